#include "runtime/cli/json.h"

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "runtime/engine/report.h"

qgc_status cli_write_json(const char *where, json_t *all, qgc_diag *d) {
    qgc_str text = qgc_str_new(d->arena);
    QGC_TRY(qgc_report_json(all, &text, d));
    return qgc_file_write(where, text.text, text.bytes, d);
}

bool cli_wants_text(const char *where) {
    return !where || !qgc_file_is_stdout(where);
}

json_t *cli_json_text(const char *text, size_t bytes, qgc_arena *a) {
    qgc_utf8_stream stream = {0};
    qgc_str whole = qgc_str_new(a);
    qgc_utf8_push(&stream, text, bytes, &whole);
    qgc_utf8_finish(&stream, &whole);
    return json_stringn(whole.text, whole.bytes);
}
