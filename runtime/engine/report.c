#include "runtime/engine/report.h"

#include <math.h>

const char *qgc_report_small(double x, qgc_arena *a) {
    if (x == 0 || fabs(x) >= 0.01)
        return qgc_arena_printf(a, "%.3g", x);
    return qgc_arena_printf(a, "%.1e", x);
}

json_t *qgc_report_number(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

static qgc_status write_json(json_t *all, size_t digits, qgc_str *out, qgc_diag *d) {
    char *text = all ? json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(digits)) : NULL;
    if (text)
        qgc_str_printf(out, "%s\n", text);
    const bool written = text != NULL;
    (free)(text); /* jansson's own */
    json_decref(all);
    return written
               ? QGC_OK
               : qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "a name in the report is not UTF-8, which JSON is");
}

qgc_status qgc_report_json(json_t *all, qgc_str *out, qgc_diag *d) {
    return write_json(all, 9, out, d);
}

qgc_status qgc_report_json_exactly(json_t *all, qgc_str *out, qgc_diag *d) {
    return write_json(all, 17, out, d);
}
