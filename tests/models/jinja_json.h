#ifndef QGC_TESTS_MODELS_JINJA_JSON_H
#define QGC_TESTS_MODELS_JINJA_JSON_H

#include <jansson.h>
#include <string.h>

#include "models/jinja.h"

/* A JSON value as one of a template. Texts under the key "content" are marked as from outside. */
static qgc_jinja_value jinja_from_json(qgc_arena *arena, const json_t *v, uint32_t mark) {
    qgc_jinja_value out = {.kind = QGC_JINJA_NONE};
    const char *key;
    json_t *item;
    size_t i;
    if (json_is_string(v))
        out = qgc_jinja_text_of(arena, json_string_value(v), json_string_length(v), mark);
    else if (json_is_boolean(v))
        out = qgc_jinja_boolean(json_is_true(v));
    else if (json_is_integer(v))
        out = qgc_jinja_integer(json_integer_value(v));
    else if (json_is_real(v))
        out = (qgc_jinja_value){.kind = QGC_JINJA_FLOAT, .number = json_real_value(v)};
    else if (json_is_array(v)) {
        out = qgc_jinja_list_new(arena);
        json_array_foreach(v, i, item) {
            qgc_jinja_list_add(out, jinja_from_json(arena, item, mark));
        }
    } else if (json_is_object(v)) {
        out = qgc_jinja_dict_new(arena);
        json_object_foreach((json_t *)(uintptr_t)v, key, item) {
            const uint32_t inner = strcmp(key, "content") == 0 ? QGC_JINJA_OUTSIDE : 0;
            qgc_jinja_dict_set(out, qgc_jinja_text_of(arena, key, strlen(key), 0),
                               jinja_from_json(arena, item, inner));
        }
    }
    return out;
}

#endif
