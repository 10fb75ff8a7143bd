#ifndef QGC_ENGINE_MEASURED_H
#define QGC_ENGINE_MEASURED_H

#include "runtime/engine/engine.h"
#include "runtime/mode.h"

/* The mode of a name, or for "auto" and NULL the fastest: by the times that qgc tune has measured of this program on this card, if they
 * are in the cache folder, else by the model of qgc_mode_fastest. Nothing is measured here. A file of times that cannot be
 * read is noted and not used. Errors: an unknown mode. */
QGC_MUST_USE qgc_status qgc_engine_choose_mode(qgc_engine *e, const char *name, int64_t ctx,
                                               qgc_mode_choice *out, qgc_diag *d);

#endif
