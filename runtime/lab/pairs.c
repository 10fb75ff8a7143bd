#include "runtime/lab/pairs.h"

/* Runs a trial up to the position from which `steps` fit. */
static qgc_status wind(const qgc_pairs *p, qgc_trial *t, int64_t steps, qgc_diag *d) {
    const int64_t first = p->ctx > steps ? p->ctx - steps : 1;
    double us;
    QGC_TRY(qgc_trial_reset(t, d));
    QGC_TRY(qgc_trial_step(t, p->token, NULL, d));
    while (qgc_trial_position(t) < first) {
        int64_t left = first - qgc_trial_position(t), now = left < 256 ? left : 256;
        QGC_TRY(qgc_trial_time(t, (int)now, &us, d));
    }
    return QGC_OK;
}

static qgc_status time_once(qgc_trial *t, double *us, qgc_diag *d) {
    QGC_TRY(qgc_trial_time(t, QGC_PAIR_STEPS, us, d));
    *us /= QGC_PAIR_STEPS;
    return QGC_OK;
}

qgc_status qgc_pairs_time(const qgc_pairs *p, qgc_trial *a, qgc_trial *b, double *us_a, double *us_b,
                          qgc_diag *d) {
    const int64_t fit = (p->ctx - 1) / QGC_PAIR_STEPS, most = fit < p->n ? fit : p->n;
    for (int i = 0; i < p->n; i++) {
        if (i % most == 0) {
            QGC_TRY(wind(p, a, most * QGC_PAIR_STEPS, d));
            QGC_TRY(wind(p, b, most * QGC_PAIR_STEPS, d));
        }
        if (i % 2)
            QGC_TRY(time_once(b, &us_b[i], d));
        QGC_TRY(time_once(a, &us_a[i], d));
        if (i % 2 == 0)
            QGC_TRY(time_once(b, &us_b[i], d));
    }
    return QGC_OK;
}

qgc_status qgc_pairs_time_prefill(const qgc_pairs *p, const int32_t *tokens, qgc_trial *const two[2],
                                  double *us_a, double *us_b, qgc_diag *d) {
    double *const us[2] = {us_a, us_b};
    for (int i = -1; i < p->n; i++) /* once to warm up */
        for (int k = 0; k < 2; k++) {
            const int which = (k + i + 1) % 2;
            QGC_TRY(qgc_trial_time_feed(two[which], tokens, p->ctx, &us[which][i < 0 ? 0 : i], d));
        }
    return QGC_OK;
}
