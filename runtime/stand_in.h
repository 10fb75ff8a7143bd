#ifndef QGC_RUNTIME_STAND_IN_H
#define QGC_RUNTIME_STAND_IN_H

#include "codegen/card.h"
#include "runtime/device.h"

/* A device in the place of a lesser card: what is compiled, chosen and launched is what that card would get, so that code for
 * it runs where there is none. Memory, clocks and caches stay the device's. */

/* What the device is as that card: its multiprocessors, its shared memory, code for its architecture at most, as PTX where it
 * is another one. What the card does not say stays. Errors (QGC_ERR_USAGE): the card has more of something. */
QGC_MUST_USE qgc_status qgc_stand_in_info(qgc_device_info *info, const qgc_card *card, qgc_diag *d);

/* The same for a device that is open, with the text of --card; NULL changes nothing. */
QGC_MUST_USE qgc_status qgc_stand_in(qgc_device *dev, const char *card, qgc_diag *d);

/* The device as lowering asks of it, in arena `a`. */
qgc_card qgc_card_of_device(qgc_device *dev, qgc_arena *a);

/* A device of which no more is known than the card says, for what is asked without one. */
qgc_device_info qgc_info_of_card(const qgc_card *card);

#endif
