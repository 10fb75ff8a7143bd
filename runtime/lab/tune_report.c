#include <jansson.h>

#include "runtime/engine/report.h"
#include "runtime/lab/tune.h"

static const char *const verdicts[] = {[QGC_TUNE_SLOWER] = "no faster",
                                       [QGC_TUNE_FASTER] = "kept",
                                       [QGC_TUNE_WRONG] = "wrong",
                                       [QGC_TUNE_FAILED] = "failed"};

void qgc_tune_log_add(qgc_tune_log *log, const qgc_tune_result *r) {
    log->results = qgc_arena_grow(log->arena, log->results, log->n, sizeof *log->results);
    log->results[log->n++] = *r;
    log->kept += r->verdict == QGC_TUNE_FASTER;
}

/* What was not timed has no times. */
static json_t *result_json(const qgc_tune_result *r) {
    json_t *all = json_pack("{s:s, s:s, s:I, s:s, s:s?}", "kernel", r->kernel, "knob", r->name, "value",
                            (json_int_t)r->value, "verdict", verdicts[r->verdict], "why", r->why);
    const bool timed = r->verdict == QGC_TUNE_SLOWER || r->verdict == QGC_TUNE_FASTER;
    const struct {
        const char *key;
        double us;
    } times[] = {{"base_us", r->base_us}, {"us", r->us}, {"low_us", r->low_us}, {"high_us", r->high_us}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        json_object_set_new(all, times[i].key, timed ? qgc_report_number(times[i].us) : json_null());
    return all;
}

qgc_status qgc_tune_json(const qgc_tune_log *log, const qgc_tuning *t, const char *written, qgc_str *out,
                         qgc_diag *d) {
    json_t *results = json_array(), *settings = json_array(), *times = json_array();
    for (size_t i = 0; i < log->n; i++)
        json_array_append_new(results, result_json(&log->results[i]));
    for (size_t i = 0; i < t->settings.n; i++)
        json_array_append_new(settings, json_pack("{s:s, s:s, s:I}", "kernel", t->settings.rows[i].of, "knob",
                                                  t->settings.rows[i].name, "value",
                                                  (json_int_t)t->settings.rows[i].value));
    for (size_t i = 0; i < t->times.n; i++)
        json_array_append_new(times, json_pack("{s:s, s:s, s:o}", "program", t->times.rows[i].of, "mode",
                                               t->times.rows[i].name, "us",
                                               qgc_report_number(1e-3 * (double)t->times.rows[i].value)));
    json_t *all =
        json_pack("{s:s?, s:s?, s:o, s:i, s:o, s:o, s:s?}", "arch", t->arch, "card", t->card, "candidates",
                  results, "kept", log->kept, "settings", settings, "times", times, "file", written);
    return qgc_report_json(all, out, d);
}
