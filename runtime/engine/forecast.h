#ifndef QGC_ENGINE_FORECAST_H
#define QGC_ENGINE_FORECAST_H

#include <jansson.h>

#include "codegen/card.h"
#include "graph/base/str.h"
#include "runtime/mode.h"

/* What an artifact would do on a card, without the card: which images run there, in which modes, what a step takes at least
 * and what memory it needs. */
typedef struct {
    qgc_card card;
    qgc_image_choice image;           /* arch -1: none */
    const char *arch;                 /* of that image; without one, what to compile for */
    const char *refusal[QGC_N_MODES]; /* NULL: the mode runs */
    int64_t position, ctx;
    int64_t step_bytes[QGC_N_MODES];   /* that a step reads at that position */
    double floor_us[QGC_N_MODES];      /* reading them takes; 0 where the bandwidth is not known */
    int64_t memory_bytes[QGC_N_MODES]; /* with room for ctx positions */
} qgc_forecast;

/* `about` is the card, or a device in its place, as the runtime sees it; `card` has its bandwidth. Texts are made in arena `a`.
 * Without an image that runs, modes are those of the same plan compiled for the card. */
qgc_forecast qgc_forecast_of(const qgc_plan *plan, const qgc_device_info *about, const qgc_card *card,
                             qgc_arena *a);

/* The same of a card by what --on says, an error where that does not tell its architecture. */
QGC_MUST_USE qgc_status qgc_forecast_on(const qgc_plan *plan, const char *card, qgc_forecast *out,
                                        qgc_diag *d);

/* Lines for people, and JSON. */
void qgc_forecast_text(const qgc_forecast *f, qgc_str *out);
json_t *qgc_forecast_json(const qgc_forecast *f);

/* "sm_89, 128 multiprocessors, 101376 bytes of shared memory a block, 1008 GB/s, 24 GB": what is known of a card. */
const char *qgc_card_text(const qgc_card *card, qgc_arena *a);

#endif
