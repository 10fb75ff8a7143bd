#include <stdio.h>

#include "graph/base/utf8.h"
#include "tests/models/jinja_json.h"

/* Renders templates for tests/models/compare_chat.py: reads [[template, variables], ...] as JSON from standard input and
 * writes a list of texts, or of ["error"] where one is refused. The date is 26 July 2024, 09:05:03. */

static json_t *render(const json_t *item) {
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    qgc_jinja_context with = {.now = {.tm_year = 124,
                                      .tm_mon = 6,
                                      .tm_mday = 26,
                                      .tm_wday = 5,
                                      .tm_hour = 9,
                                      .tm_min = 5,
                                      .tm_sec = 3}};
    const json_t *text = json_array_get(item, 0);
    const qgc_source source = {"template", json_string_value(text), json_string_length(text)};
    qgc_jinja *t;
    qgc_jinja_text out;
    json_t *result;
    with.variables = jinja_from_json(arena, json_array_get(item, 1), 0);
    if (qgc_jinja_parse(&t, &source, arena, &d) != QGC_OK ||
        qgc_jinja_render(t, &with, &out, arena, &d) != QGC_OK) {
        result = json_pack("[s]", qgc_diag_message(&d));
    } else {
        qgc_str s = qgc_str_new(arena);
        for (size_t i = 0; i < out.n; i++) {
            char letters[4];
            qgc_str_add_bytes(&s, letters, (size_t)qgc_utf8_encode(out.c[i] & ~QGC_JINJA_OUTSIDE, letters));
        }
        result = json_stringn(s.text, s.bytes);
    }
    qgc_arena_drop(arena);
    return result;
}

int main(void) {
    json_t *items = json_loadf(stdin, JSON_ALLOW_NUL, NULL), *results = json_array(), *item;
    size_t i;
    json_array_foreach(items, i, item) {
        json_array_append_new(results, render(item));
    }
    json_dumpf(results, stdout, JSON_ENSURE_ASCII);
    const bool good = json_array_size(items) > 0;
    json_decref(items);
    json_decref(results);
    return good ? 0 : 1;
}
