#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "models/jinja_impl.h"

/* Values, with the truth, the equality and the order that Python gives them. */

enum { LETTER = 0x7FFFFFFF };

typedef qgc_jinja_value value;

qgc_jinja_value qgc_jinja_fail(qgc_jinja_machine *m, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(m->d->arena, format, args);
    va_end(args);
    if (!m->failed) {
        const char *at = m->node ? m->node->at : m->t->source.text;
        (void)qgc_fail(m->d, QGC_ERR_INPUT, qgc_jinja_place(&m->t->source, at), "chat template: %s", text);
    }
    m->failed = true;
    return qgc_jinja_undefined(NULL);
}

bool qgc_jinja_spend(qgc_jinja_machine *m, size_t steps) {
    m->fuel -= steps < INT32_MAX ? (int64_t)steps : INT32_MAX;
    if (m->fuel < 0)
        (void)qgc_jinja_fail(m, "it does too much for a conversation of this length");
    return !m->failed;
}

/* --- making them --------------------------------------------------------------------------------------------- */

qgc_jinja_value qgc_jinja_undefined(const char *name) {
    return (value){.kind = QGC_JINJA_UNDEFINED, .name = name};
}
qgc_jinja_value qgc_jinja_boolean(bool yes) {
    return (value){.kind = QGC_JINJA_BOOLEAN, .integer = yes};
}
qgc_jinja_value qgc_jinja_integer(int64_t n) {
    return (value){.kind = QGC_JINJA_INTEGER, .integer = n};
}
qgc_jinja_value qgc_jinja_text_value(qgc_jinja_text text) {
    return (value){.kind = QGC_JINJA_TEXT, .text = text};
}

qgc_jinja_value qgc_jinja_text_of(qgc_arena *arena, const char *text, size_t bytes, uint32_t mark) {
    uint32_t *c = qgc_arena_array(arena, bytes, sizeof *c);
    size_t n = 0;
    for (size_t i = 0; i < bytes; n++) {
        const int length = qgc_utf8_decode(text + i, bytes - i, &c[n]);
        if (length == 0)
            c[n] = 0xFFFD;
        c[n] |= mark;
        i += length ? (size_t)length : 1;
    }
    return qgc_jinja_text_value((qgc_jinja_text){c, n});
}

qgc_jinja_value qgc_jinja_ascii(qgc_arena *arena, const char *text) {
    return qgc_jinja_text_of(arena, text, strlen(text), 0);
}

qgc_jinja_value qgc_jinja_list_new(qgc_arena *arena) {
    qgc_jinja_list *list = qgc_arena_alloc(arena, sizeof *list);
    list->arena = arena;
    return (value){.kind = QGC_JINJA_LIST, .list = list};
}

void qgc_jinja_list_add(qgc_jinja_value list, qgc_jinja_value item) {
    qgc_jinja_list *l = list.list;
    l->items = qgc_arena_grow(l->arena, l->items, l->n, sizeof *l->items);
    l->items[l->n++] = item;
}

qgc_jinja_value qgc_jinja_dict_new(qgc_arena *arena) {
    qgc_jinja_dict *dict = qgc_arena_alloc(arena, sizeof *dict);
    dict->arena = arena;
    return (value){.kind = QGC_JINJA_DICT, .dict = dict};
}

const qgc_jinja_value *qgc_jinja_dict_find(qgc_jinja_value dict, qgc_jinja_value key, qgc_jinja_machine *m) {
    for (size_t i = 0; i < dict.dict->n; i++)
        if (qgc_jinja_equal(dict.dict->pairs[i].key, key, m))
            return &dict.dict->pairs[i].value;
    return NULL;
}

void qgc_jinja_dict_set(qgc_jinja_value dict, qgc_jinja_value key, qgc_jinja_value v) {
    qgc_jinja_dict *of = dict.dict;
    for (size_t i = 0; i < of->n; i++)
        if (qgc_jinja_equal(of->pairs[i].key, key, NULL)) {
            of->pairs[i].value = v;
            return;
        }
    of->pairs = qgc_arena_grow(of->arena, of->pairs, of->n, sizeof *of->pairs);
    of->pairs[of->n++] = (qgc_jinja_pair){key, v};
}

/* --- texts that grow ----------------------------------------------------------------------------------------- */

void qgc_jinja_add(qgc_jinja_builder *b, const uint32_t *c, size_t n) {
    if (b->n + n > b->room) {
        b->room = 2 * b->room > b->n + n ? 2 * b->room : b->n + n + 16;
        uint32_t *more = qgc_arena_array(b->arena, b->room, sizeof *more);
        if (b->n)
            memcpy(more, b->c, b->n * sizeof *more);
        b->c = more;
    }
    if (n)
        memcpy(b->c + b->n, c, n * sizeof *c);
    b->n += n;
}

void qgc_jinja_add_ascii(qgc_jinja_builder *b, const char *text) {
    for (; *text; text++) {
        const uint32_t c = (unsigned char)*text;
        qgc_jinja_add(b, &c, 1);
    }
}

qgc_jinja_value qgc_jinja_built(const qgc_jinja_builder *b) {
    static const uint32_t none[1];
    return qgc_jinja_text_value((qgc_jinja_text){b->c ? b->c : none, b->n});
}

bool qgc_jinja_is(qgc_jinja_text text, const char *ascii) {
    size_t i = 0;
    while (i < text.n && ascii[i] && (text.c[i] & LETTER) == (unsigned char)ascii[i])
        i++;
    return i == text.n && !ascii[i];
}

const char *qgc_jinja_shown(qgc_jinja_machine *m, qgc_jinja_text text) {
    enum { MOST = 60 };
    qgc_str s = qgc_str_new(m->arena);
    for (size_t i = 0; i < text.n && i < MOST; i++) {
        char letters[4];
        const uint32_t c = text.c[i] & LETTER;
        qgc_str_add_bytes(&s, letters, (size_t)qgc_utf8_encode(c < 0x20 ? '?' : c, letters));
    }
    return s.text;
}

const char *qgc_jinja_kind_name(qgc_jinja_value v) {
    static const char *const names[] = {[QGC_JINJA_UNDEFINED] = "what is undefined",
                                        [QGC_JINJA_NONE] = "none",
                                        [QGC_JINJA_BOOLEAN] = "a boolean",
                                        [QGC_JINJA_INTEGER] = "a number",
                                        [QGC_JINJA_FLOAT] = "a number",
                                        [QGC_JINJA_TEXT] = "a text",
                                        [QGC_JINJA_LIST] = "a list",
                                        [QGC_JINJA_DICT] = "a dictionary",
                                        [QGC_JINJA_LOOP] = "a loop",
                                        [QGC_JINJA_MACRO] = "a macro",
                                        [QGC_JINJA_FUNCTION] = "a function",
                                        [QGC_JINJA_METHOD] = "a method"};
    return names[v.kind];
}

/* --- truth and equality -------------------------------------------------------------------------------------- */

bool qgc_jinja_is_integer(qgc_jinja_value v) {
    return v.kind == QGC_JINJA_INTEGER || v.kind == QGC_JINJA_BOOLEAN;
}
bool qgc_jinja_is_number(qgc_jinja_value v) {
    return qgc_jinja_is_integer(v) || v.kind == QGC_JINJA_FLOAT;
}

bool qgc_jinja_true(qgc_jinja_value v) {
    switch (v.kind) {
    case QGC_JINJA_UNDEFINED:
    case QGC_JINJA_NONE:
        return false;
    case QGC_JINJA_BOOLEAN:
    case QGC_JINJA_INTEGER:
        return v.integer != 0;
    case QGC_JINJA_FLOAT:
        return v.number != 0;
    case QGC_JINJA_TEXT:
        return v.text.n > 0;
    case QGC_JINJA_LIST:
        return v.list->kind == QGC_LIST_LAZY || v.list->n > 0;
    case QGC_JINJA_DICT:
        return v.dict->is_namespace || v.dict->n > 0;
    case QGC_JINJA_LOOP:
    case QGC_JINJA_MACRO:
    case QGC_JINJA_FUNCTION:
    case QGC_JINJA_METHOD:
        break;
    }
    return true;
}

static int order_texts(qgc_jinja_text a, qgc_jinja_text b) {
    size_t i = 0;
    while (i < a.n && i < b.n && ((a.c[i] ^ b.c[i]) & LETTER) == 0)
        i++;
    const uint32_t x = i < a.n ? (a.c[i] & LETTER) + 1 : 0, y = i < b.n ? (b.c[i] & LETTER) + 1 : 0;
    return (x > y) - (x < y);
}

static int order_numbers(value a, value b) {
    if (qgc_jinja_is_integer(a) && qgc_jinja_is_integer(b))
        return (a.integer > b.integer) - (a.integer < b.integer);
    const long double x = qgc_jinja_is_integer(a) ? (long double)a.integer : (long double)a.number,
                      y = qgc_jinja_is_integer(b) ? (long double)b.integer : (long double)b.number;
    return (x > y) - (x < y);
}

static bool equal_lists(const qgc_jinja_list *a, const qgc_jinja_list *b, qgc_jinja_machine *m) {
    if (a == b)
        return true;
    if (a->n != b->n || a->kind != b->kind || a->kind == QGC_LIST_LAZY || a->kind == QGC_LIST_VIEW)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!qgc_jinja_equal(a->items[i], b->items[i], m))
            return false;
    return true;
}

static bool equal_dicts(value a, value b, qgc_jinja_machine *m) {
    if (a.dict == b.dict)
        return true;
    if (a.dict->n != b.dict->n || a.dict->is_namespace || b.dict->is_namespace)
        return false;
    for (size_t i = 0; i < a.dict->n; i++) {
        const value *other = qgc_jinja_dict_find(b, a.dict->pairs[i].key, m);
        if (!other || !qgc_jinja_equal(a.dict->pairs[i].value, *other, m))
            return false;
    }
    return true;
}

/* m may be NULL for keys; it counts what is compared, and how deep. */
static bool equal_kinds(value a, value b, qgc_jinja_machine *m) {
    switch (a.kind) {
    case QGC_JINJA_TEXT:
        return (!m || qgc_jinja_spend(m, a.text.n / 8)) && a.text.n == b.text.n &&
               order_texts(a.text, b.text) == 0;
    case QGC_JINJA_LIST:
        return equal_lists(a.list, b.list, m);
    case QGC_JINJA_DICT:
        return equal_dicts(a, b, m);
    case QGC_JINJA_LOOP:
        return a.loop == b.loop;
    case QGC_JINJA_MACRO:
        return a.macro == b.macro;
    case QGC_JINJA_FUNCTION:
        return a.function == b.function;
    case QGC_JINJA_METHOD:
        return a.method == b.method;
    case QGC_JINJA_UNDEFINED:
    case QGC_JINJA_NONE:
    case QGC_JINJA_BOOLEAN:
    case QGC_JINJA_INTEGER:
    case QGC_JINJA_FLOAT:
        break;
    }
    return true;
}

bool qgc_jinja_equal(qgc_jinja_value a, qgc_jinja_value b, qgc_jinja_machine *m) {
    if (m && (!qgc_jinja_spend(m, 1) || ++m->depth > QGC_MOST_CALLS)) {
        (void)qgc_jinja_fail(m, "values are nested too deep to be compared");
        return false;
    }
    const bool equal = qgc_jinja_is_number(a) && qgc_jinja_is_number(b)
                           ? order_numbers(a, b) == 0
                           : a.kind == b.kind && equal_kinds(a, b, m);
    if (m)
        m->depth--;
    return equal;
}

int qgc_jinja_order(qgc_jinja_value a, qgc_jinja_value b, qgc_jinja_machine *m) {
    if (qgc_jinja_is_number(a) && qgc_jinja_is_number(b))
        return order_numbers(a, b);
    if (a.kind == QGC_JINJA_TEXT && b.kind == QGC_JINJA_TEXT)
        return order_texts(a.text, b.text);
    (void)qgc_jinja_fail(m, "%s and %s have no order", qgc_jinja_kind_name(a), qgc_jinja_kind_name(b));
    return 0;
}

bool qgc_jinja_contains(qgc_jinja_machine *m, qgc_jinja_value in, qgc_jinja_value what) {
    if (in.kind == QGC_JINJA_TEXT && what.kind == QGC_JINJA_TEXT)
        return qgc_jinja_find(m, in.text, what.text, 0) != QGC_NOT_FOUND;
    const bool hashed = what.kind < QGC_JINJA_LIST && what.kind != QGC_JINJA_UNDEFINED;
    if (in.kind == QGC_JINJA_DICT && !in.dict->is_namespace && hashed)
        return qgc_jinja_dict_find(in, what, m) != NULL;
    if (in.kind == QGC_JINJA_UNDEFINED)
        return false;
    if (in.kind != QGC_JINJA_LIST || in.list->kind == QGC_LIST_LAZY) {
        (void)qgc_jinja_fail(m, "%s cannot be in %s", qgc_jinja_kind_name(what), qgc_jinja_kind_name(in));
        return false;
    }
    for (size_t i = 0; i < in.list->n && !m->failed; i++)
        if (qgc_jinja_equal(in.list->items[i], what, m))
            return true;
    return false;
}

/* --- as text and as items ------------------------------------------------------------------------------------ */

/* As Python writes it, where that is simple. */
static const char *write_float(qgc_jinja_machine *m, double x) {
    qgc_str s = qgc_str_new(m->arena);
    if (!(fabs(x) < 1e15) || (x != 0 && fabs(x) < 1e-3)) {
        (void)qgc_jinja_fail(m, "number %g is printed, and only those from 0.001 to 1e15 are supported", x);
        return "";
    }
    qgc_str_add_number(&s, x);
    if (strchr(s.text, 'e'))
        (void)qgc_jinja_fail(m, "number %s is printed, which is not supported", s.text);
    if (!strchr(s.text, '.'))
        qgc_str_add(&s, ".0");
    return s.text;
}

qgc_jinja_text qgc_jinja_string(qgc_jinja_machine *m, qgc_jinja_value v) {
    const char *text = "";
    switch (v.kind) {
    case QGC_JINJA_TEXT:
        return v.text;
    case QGC_JINJA_UNDEFINED:
        break;
    case QGC_JINJA_NONE:
        text = "None";
        break;
    case QGC_JINJA_BOOLEAN:
        text = v.integer ? "True" : "False";
        break;
    case QGC_JINJA_INTEGER:
        text = qgc_arena_printf(m->arena, "%lld", (long long)v.integer);
        break;
    case QGC_JINJA_FLOAT:
        text = write_float(m, v.number);
        break;
    case QGC_JINJA_LIST:
    case QGC_JINJA_DICT:
    case QGC_JINJA_LOOP:
    case QGC_JINJA_MACRO:
    case QGC_JINJA_FUNCTION:
    case QGC_JINJA_METHOD:
        (void)qgc_jinja_fail(m, "%s as text is not supported", qgc_jinja_kind_name(v));
    }
    return qgc_jinja_ascii(m->arena, text).text;
}

static qgc_jinja_list new_list(qgc_jinja_machine *m, size_t n) {
    const size_t room = qgc_jinja_spend(m, n) ? n : 0;
    return (qgc_jinja_list){
        .arena = m->arena, .items = qgc_arena_array(m->arena, room, sizeof(value)), .n = room};
}

qgc_jinja_list qgc_jinja_iterate(qgc_jinja_machine *m, qgc_jinja_value v) {
    qgc_jinja_list list = {.arena = m->arena};
    if (v.kind == QGC_JINJA_TEXT) {
        list = new_list(m, v.text.n);
        for (size_t i = 0; i < list.n; i++)
            list.items[i] = qgc_jinja_text_value((qgc_jinja_text){v.text.c + i, 1});
    } else if (v.kind == QGC_JINJA_DICT && !v.dict->is_namespace) {
        list = new_list(m, v.dict->n);
        for (size_t i = 0; i < list.n; i++)
            list.items[i] = v.dict->pairs[i].key;
    } else if (v.kind == QGC_JINJA_LIST) {
        list = new_list(m, v.list->n);
        if (list.n)
            memcpy(list.items, v.list->items, list.n * sizeof *list.items);
        if (v.list->kind == QGC_LIST_LAZY)
            v.list->n = 0;
    } else if (v.kind != QGC_JINJA_UNDEFINED)
        (void)qgc_jinja_fail(m, "%s has no items to go through", qgc_jinja_kind_name(v));
    return list;
}

/* --- members ------------------------------------------------------------------------------------------------- */

static value loop_item(const qgc_jinja_loop *loop, size_t i) {
    return i < loop->n ? loop->items[i] : qgc_jinja_undefined("a neighbour in the loop");
}

static value loop_member(qgc_jinja_machine *m, const qgc_jinja_loop *l, qgc_jinja_text name) {
    const struct {
        const char *name;
        int64_t number;
    } numbers[] = {{"index", (int64_t)l->index + 1},
                   {"index0", (int64_t)l->index},
                   {"length", (int64_t)l->n},
                   {"revindex", (int64_t)(l->n - l->index)},
                   {"revindex0", (int64_t)(l->n - l->index) - 1},
                   {"depth", l->depth},
                   {"depth0", l->depth - 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (qgc_jinja_is(name, numbers[i].name))
            return qgc_jinja_integer(numbers[i].number);
    if (qgc_jinja_is(name, "first"))
        return qgc_jinja_boolean(l->index == 0);
    if (qgc_jinja_is(name, "last"))
        return qgc_jinja_boolean(l->index + 1 == l->n);
    if (qgc_jinja_is(name, "previtem"))
        return loop_item(l, l->index ? l->index - 1 : SIZE_MAX);
    if (qgc_jinja_is(name, "nextitem"))
        return loop_item(l, l->index + 1);
    return qgc_jinja_fail(m, "\"loop.%s\" is not supported", qgc_jinja_shown(m, name));
}

static value undefined_member(qgc_jinja_machine *m, qgc_jinja_text name) {
    return qgc_jinja_undefined(qgc_jinja_shown(m, name));
}

/* of.name: a method before an item, as Python and Jinja have it. */
qgc_jinja_value qgc_jinja_attribute(qgc_jinja_machine *m, qgc_jinja_value of, qgc_jinja_value name) {
    if (of.kind == QGC_JINJA_UNDEFINED)
        return qgc_jinja_fail(m, "\"%s\" is undefined, and \"%s\" of it is asked for", of.name ? of.name : "",
                              qgc_jinja_shown(m, name.text));
    if (of.kind == QGC_JINJA_LOOP)
        return loop_member(m, of.loop, name.text);
    if (qgc_jinja_is_number(of) || of.kind > QGC_JINJA_LOOP ||
        (name.text.n > 1 && name.text.c[0] == '_' && name.text.c[1] == '_'))
        return qgc_jinja_fail(m, "\"%s\" of %s is not supported", qgc_jinja_shown(m, name.text),
                              qgc_jinja_kind_name(of));
    const value method = qgc_jinja_method_of(m, of, name.text);
    if (method.kind == QGC_JINJA_METHOD)
        return method;
    const value *found = of.kind == QGC_JINJA_DICT ? qgc_jinja_dict_find(of, name, m) : NULL;
    return found ? *found : undefined_member(m, name.text);
}

/* of[index]: an item before a method. */
qgc_jinja_value qgc_jinja_item(qgc_jinja_machine *m, qgc_jinja_value of, qgc_jinja_value index) {
    const bool text = of.kind == QGC_JINJA_TEXT, list = of.kind == QGC_JINJA_LIST;
    if (of.kind == QGC_JINJA_DICT && !of.dict->is_namespace) {
        const value *found = qgc_jinja_dict_find(of, index, m);
        if (found)
            return *found;
    }
    if (index.kind == QGC_JINJA_TEXT)
        return qgc_jinja_attribute(m, of, index);
    if (of.kind == QGC_JINJA_UNDEFINED)
        return qgc_jinja_fail(m, "\"%s\" is undefined, and an item of it is asked for",
                              of.name ? of.name : "");
    if (of.kind >= QGC_JINJA_LOOP)
        return qgc_jinja_fail(m, "an item of %s is not supported", qgc_jinja_kind_name(of));
    const bool has_items = text || (list && of.list->kind <= QGC_LIST_TUPLE);
    const int64_t n = text ? (int64_t)of.text.n : has_items ? (int64_t)of.list->n : 0;
    const int64_t i = qgc_jinja_is_integer(index) ? index.integer + (index.integer < 0 ? n : 0) : -1;
    if (i < 0 || i >= n)
        return qgc_jinja_undefined("an item that is not there");
    return text ? qgc_jinja_text_value((qgc_jinja_text){of.text.c + i, 1}) : of.list->items[i];
}
