#include <string.h>
#include <utf8proc.h>

#include "models/jinja_impl.h"
#include "models/tokenizer_impl.h"

/* What Python does with texts. */

enum { LETTER = 0x7FFFFFFF };

typedef qgc_jinja_value value;
typedef qgc_jinja_text text;

bool qgc_jinja_is_white(uint32_t c) {
    c &= LETTER;
    return qgc_is_white(c) || (c >= 0x1C && c <= 0x1F);
}

static bool same(uint32_t a, uint32_t b) {
    return ((a ^ b) & LETTER) == 0;
}

bool qgc_jinja_starts(qgc_jinja_text t, qgc_jinja_text with) {
    size_t i = 0;
    while (i < with.n && i < t.n && same(t.c[i], with.c[i]))
        i++;
    return i == with.n;
}

bool qgc_jinja_ends(qgc_jinja_text t, qgc_jinja_text with) {
    return with.n <= t.n && qgc_jinja_starts((text){t.c + (t.n - with.n), with.n}, with);
}

int64_t qgc_jinja_find(qgc_jinja_machine *m, qgc_jinja_text in, qgc_jinja_text what, size_t from) {
    for (size_t i = from; i <= in.n && what.n <= in.n - i; i++) {
        size_t k = 0;
        while (k < what.n && same(in.c[i + k], what.c[k]))
            k++;
        if (k == what.n)
            return (int64_t)i;
        if (!qgc_jinja_spend(m, (k + 1) / 8 + (i % 8 == 0)))
            break;
    }
    return QGC_NOT_FOUND;
}

static bool in_set(uint32_t c, const qgc_jinja_text *set) {
    if (!set)
        return qgc_jinja_is_white(c);
    for (size_t i = 0; i < set->n; i++)
        if (same(c, set->c[i]))
            return true;
    return false;
}

qgc_jinja_text qgc_jinja_strip(qgc_jinja_text t, const qgc_jinja_text *set, int sides) {
    for (; (sides & QGC_LEFT) && t.n > 0 && in_set(t.c[0], set); t.n--)
        t.c++;
    while ((sides & QGC_RIGHT) && t.n > 0 && in_set(t.c[t.n - 1], set))
        t.n--;
    return t;
}

/* By runs of white space, with none at the ends. */
static value split_at_white(qgc_jinja_machine *m, text t, int64_t most) {
    const value list = qgc_jinja_list_new(m->arena);
    t = qgc_jinja_strip(t, NULL, QGC_LEFT);
    for (; t.n > 0 && most != 0 && qgc_jinja_spend(m, 1); most--) {
        size_t n = 0;
        while (n < t.n && !qgc_jinja_is_white(t.c[n]))
            n++;
        qgc_jinja_list_add(list, qgc_jinja_text_value((text){t.c, n}));
        t = qgc_jinja_strip((text){t.c + n, t.n - n}, NULL, QGC_LEFT);
    }
    if (t.n > 0)
        qgc_jinja_list_add(list, qgc_jinja_text_value(t));
    return list;
}

qgc_jinja_value qgc_jinja_split(qgc_jinja_machine *m, qgc_jinja_text t, const qgc_jinja_text *by,
                                int64_t most) {
    if (!by)
        return split_at_white(m, t, most);
    if (by->n == 0)
        return qgc_jinja_fail(m, "a text is split at an empty one");
    const value list = qgc_jinja_list_new(m->arena);
    for (int64_t at;
         most != 0 && (at = qgc_jinja_find(m, t, *by, 0)) != QGC_NOT_FOUND && qgc_jinja_spend(m, 1); most--) {
        const size_t n = (size_t)at;
        qgc_jinja_list_add(list, qgc_jinja_text_value((text){t.c, n}));
        t = (text){t.c + n + by->n, t.n - n - by->n};
    }
    qgc_jinja_list_add(list, qgc_jinja_text_value(t));
    return list;
}

qgc_jinja_value qgc_jinja_replace(qgc_jinja_machine *m, qgc_jinja_text t, const qgc_jinja_text pair[2],
                                  int64_t most) {
    const text old = pair[0], new = pair[1];
    qgc_jinja_builder b = {.arena = m->arena};
    if (old.n == 0)
        return qgc_jinja_fail(m, "an empty text is replaced, which is not supported");
    for (int64_t at; most != 0 && (at = qgc_jinja_find(m, t, old, 0)) != QGC_NOT_FOUND; most--) {
        const size_t n = (size_t)at;
        if (!qgc_jinja_spend(m, n + new.n + 1))
            break;
        qgc_jinja_add(&b, t.c, n);
        qgc_jinja_add(&b, new.c, new.n);
        t = (text){t.c + n + old.n, t.n - n - old.n};
    }
    qgc_jinja_add(&b, t.c, t.n);
    return qgc_jinja_built(&b);
}

/* Has the letter no other case? The cases of others are Unicode's business, and change from one version to the next. */
static bool is_caseless(uint32_t c) {
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LO || k == UTF8PROC_CATEGORY_ND ||
           (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_SK) || k == UTF8PROC_CATEGORY_ZS;
}

qgc_jinja_value qgc_jinja_case(qgc_jinja_machine *m, qgc_jinja_text t, qgc_letter_case to) {
    qgc_jinja_builder b = {.arena = m->arena};
    if (!qgc_jinja_spend(m, t.n))
        return qgc_jinja_built(&b);
    for (size_t i = 0; i < t.n; i++) {
        uint32_t c = t.c[i], letter = c & LETTER;
        const bool upper = to == QGC_CASE_UPPER || (to == QGC_CASE_CAPITAL && i == 0);
        if (letter >= 0x80 && !is_caseless(letter))
            return qgc_jinja_fail(m, "the case of U+%04X is changed, which is not supported", letter);
        if (upper ? letter >= 'a' && letter <= 'z' : letter >= 'A' && letter <= 'Z')
            c ^= 0x20;
        qgc_jinja_add(&b, &c, 1);
    }
    return qgc_jinja_built(&b);
}

qgc_jinja_value qgc_jinja_reversed(qgc_jinja_machine *m, qgc_jinja_text t) {
    qgc_jinja_builder b = {.arena = m->arena};
    for (size_t i = t.n; qgc_jinja_spend(m, 1) && i > 0; i--)
        qgc_jinja_add(&b, &t.c[i - 1], 1);
    return qgc_jinja_built(&b);
}

/* --- JSON ---------------------------------------------------------------------------------------------------- */

static void add_json_letter(qgc_jinja_builder *out, uint32_t c) {
    static const char letters[] = "\"\\\n\r\t\b\f", escapes[] = "\"\\nrtbf";
    const uint32_t letter = c & LETTER, mark = c & QGC_JINJA_OUTSIDE;
    const char *found = letter && letter < 0x80 ? strchr(letters, (int)letter) : NULL;
    uint32_t written[6] = {'\\', 'u', '0', '0', 0, 0};
    size_t n = 1;
    if (found) {
        written[1] = (unsigned char)escapes[found - letters];
        n = 2;
    } else if (letter < 0x20) {
        written[4] = (unsigned char)"01"[letter / 16];
        written[5] = (unsigned char)"0123456789abcdef"[letter % 16];
        n = 6;
    } else
        written[0] = letter;
    for (size_t i = 0; i < n; i++)
        written[i] |= mark;
    qgc_jinja_add(out, written, n);
}

static void add_json_text(qgc_jinja_machine *m, text t, qgc_jinja_builder *out) {
    qgc_jinja_add_ascii(out, "\"");
    for (size_t i = 0; i < t.n && qgc_jinja_spend(m, 1); i++)
        add_json_letter(out, t.c[i]);
    qgc_jinja_add_ascii(out, "\"");
}

static void new_line(qgc_jinja_machine *m, int indent, qgc_jinja_builder *out) {
    qgc_jinja_add_ascii(out, "\n");
    for (int i = 0; i < indent * m->json_depth && qgc_jinja_spend(m, 1); i++)
        qgc_jinja_add_ascii(out, " ");
}

/* A list's or dictionary's items, between its brackets. */
static void add_json_items(qgc_jinja_machine *m, value v, int indent, qgc_jinja_builder *out) {
    const bool dict = v.kind == QGC_JINJA_DICT;
    const size_t n = dict ? v.dict->n : v.list->n;
    qgc_jinja_add_ascii(out, dict ? "{" : "[");
    m->json_depth++;
    for (size_t i = 0; i < n && !m->failed; i++) {
        if (i > 0)
            qgc_jinja_add_ascii(out, indent < 0 ? ", " : ",");
        if (indent >= 0)
            new_line(m, indent, out);
        if (dict && v.dict->pairs[i].key.kind != QGC_JINJA_TEXT)
            (void)qgc_jinja_fail(m, "a dictionary with keys other than texts as JSON is not supported");
        if (dict) {
            qgc_jinja_json(m, v.dict->pairs[i].key, indent, out);
            qgc_jinja_add_ascii(out, ": ");
        }
        qgc_jinja_json(m, dict ? v.dict->pairs[i].value : v.list->items[i], indent, out);
    }
    m->json_depth--;
    if (n > 0 && indent >= 0)
        new_line(m, indent, out);
    qgc_jinja_add_ascii(out, dict ? "}" : "]");
}

void qgc_jinja_json(qgc_jinja_machine *m, qgc_jinja_value v, int indent, qgc_jinja_builder *out) {
    if (!qgc_jinja_spend(m, 1) || ++m->depth > QGC_MOST_CALLS) {
        (void)qgc_jinja_fail(m, "values are nested too deep for JSON");
        return;
    }
    const bool list = v.kind == QGC_JINJA_LIST && v.list->kind <= QGC_LIST_TUPLE;
    if (v.kind == QGC_JINJA_TEXT)
        add_json_text(m, v.text, out);
    else if (v.kind == QGC_JINJA_NONE)
        qgc_jinja_add_ascii(out, "null");
    else if (v.kind == QGC_JINJA_BOOLEAN)
        qgc_jinja_add_ascii(out, v.integer ? "true" : "false");
    else if (v.kind == QGC_JINJA_INTEGER || v.kind == QGC_JINJA_FLOAT) {
        const text number = qgc_jinja_string(m, v);
        qgc_jinja_add(out, number.c, number.n);
    } else if (list || (v.kind == QGC_JINJA_DICT && !v.dict->is_namespace))
        add_json_items(m, v, indent, out);
    else
        (void)qgc_jinja_fail(m, "%s as JSON is not supported", qgc_jinja_kind_name(v));
    m->depth--;
}
