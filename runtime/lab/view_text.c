#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "runtime/lab/view_impl.h"

/* --- letters ---------------------------------------------------------------------------------------------- */

/* The bytes of the letter that begins a text, 0 if it is not UTF-8. */
static size_t letter_bytes(const char *text) {
    uint32_t letter;
    return (size_t)qgc_utf8_decode(text, 4, &letter);
}

int view_columns(const char *text) {
    int columns = 0;
    for (const char *t = text; *t;) {
        const size_t n = letter_bytes(t);
        columns += n == 1 ? 1 : 2;
        t += n ? n : 1;
    }
    return columns;
}

const char *view_shortened(const char *text, int most, qgc_arena *a) {
    if (view_columns(text) <= most)
        return text;
    const char *t = text;
    for (int columns = 0;;) {
        const size_t n = letter_bytes(t);
        columns += n == 1 ? 1 : 2;
        if (columns > most - 2) /* an ellipsis counts as two */
            break;
        t += n ? n : 1;
    }
    return qgc_arena_printf(a, "%.*s\xE2\x80\xA6", (int)(t - text), text);
}

/* --- numbers, places -------------------------------------------------------------------------------------- */

const char *view_us(double us, qgc_arena *a) {
    return qgc_arena_printf(a, "%.*f \xC2\xB5s", us < 10 ? 2 : us < 1000 ? 1 : 0, us);
}

const char *view_number(double x, qgc_arena *a) {
    if (x == floor(x) && fabs(x) < 1e15)
        return qgc_arena_printf(a, "%.0f", x);
    for (int digits = 1; digits < 17; digits++) {
        const char *text = qgc_arena_printf(a, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            return text;
    }
    return qgc_arena_printf(a, "%.17g", x);
}

const char *view_source_line(qgc_loc at, qgc_arena *a) {
    enum { MOST = 160 };
    if (!at.source || !at.source->text || at.line < 1)
        return NULL;
    const char *line = at.source->text;
    for (int i = 1; i < at.line && line; i++) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    if (!line)
        return NULL;
    line += strspn(line, " ");
    return view_shortened(qgc_arena_strndup(a, line, strcspn(line, "\r\n")), MOST, a);
}

void view_place(qgc_str *out, qgc_loc at) {
    if (!at.source)
        return;
    qgc_str_add(out, "<span class=\"place\">");
    qgc_xml_escape(out, at.source->name);
    qgc_str_printf(out, ":%d</span>", at.line);
}
