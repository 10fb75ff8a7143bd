#include <string.h>

#include "models/jinja_impl.h"

/* Filters, tests, methods and functions: a row each. What is not here is refused by its name where a template uses it. */

typedef qgc_jinja_value value;
typedef qgc_jinja_text text;
typedef qgc_jinja_machine machine;
typedef qgc_jinja_arguments arguments;

static const uint32_t no_letters[1];
static const text empty = {no_letters, 0};

/* --- arguments ----------------------------------------------------------------------------------------------- */

static bool given(const arguments *a, int i) {
    return i < a->n && a->values[i].kind != QGC_JINJA_UNDEFINED;
}

/* An argument that is to be a text. */
static text text_argument(machine *m, const arguments *a, int i) {
    if (given(a, i) && a->values[i].kind == QGC_JINJA_TEXT)
        return a->values[i].text;
    (void)qgc_jinja_fail(m, "argument %d is %s, expected a text", i + 1,
                         i < a->n ? qgc_jinja_kind_name(a->values[i]) : "missing");
    return empty;
}

/* A number, or `missing` where none is given. */
static int64_t number_argument(machine *m, const arguments *a, int i, int64_t missing) {
    if (!given(a, i) || a->values[i].kind == QGC_JINJA_NONE)
        return missing;
    if (qgc_jinja_is_integer(a->values[i]))
        return a->values[i].integer;
    (void)qgc_jinja_fail(m, "argument %d is %s, expected a number", i + 1, qgc_jinja_kind_name(a->values[i]));
    return missing;
}

/* The arguments after the first `n`. */
static arguments rest(const arguments *a, int n) {
    arguments r = {.n = a->n > n ? a->n - n : 0};
    for (int i = 0; i < r.n; i++) {
        r.values[i] = a->values[i + n];
        r.names[i] = a->names[i + n];
    }
    return r;
}

/* The place of a parameter in a list of names, or -1. */
static int place_of(const char *parameters, const char *name) {
    const size_t n = strlen(name);
    int place = 0;
    for (const char *p = parameters; *p; place++) {
        const size_t length = strcspn(++p, " ");
        if (length == n && memcmp(p, name, n) == 0)
            return place;
        p += length;
    }
    return -1;
}

static int count_names(const char *parameters) {
    int n = 0;
    for (; *parameters; parameters++)
        n += *parameters == ' ';
    return n;
}

/* Fails where a parameter is not known. */
static bool put_in_order(machine *m, const qgc_jinja_function *f, const arguments *a, arguments *ordered) {
    for (int i = 0; i < a->n && !m->failed; i++) {
        const int place = a->names[i] ? place_of(f->parameters, a->names[i]) : i;
        if (place >= 0 && place < ordered->n)
            ordered->values[place] = a->values[i];
        else if (a->names[i])
            (void)qgc_jinja_fail(m, "\"%s\" with argument \"%s\" is not supported", f->name, a->names[i]);
        else
            (void)qgc_jinja_fail(m, "\"%s\" takes at most %d arguments", f->name, ordered->n);
    }
    return !m->failed;
}

qgc_jinja_value qgc_jinja_call(qgc_jinja_machine *m, const qgc_jinja_function *f, qgc_jinja_value self,
                               const qgc_jinja_arguments *a) {
    if (!f->run)
        return qgc_jinja_fail(m, "\"%s\" is not supported", f->name);
    if (*f->parameters == '*')
        return f->run(m, self, a);
    arguments ordered = {.n = count_names(f->parameters)};
    return put_in_order(m, f, a, &ordered) ? f->run(m, self, &ordered) : self;
}

/* --- methods of texts ---------------------------------------------------------------------------------------- */

static value split(machine *m, value self, const arguments *a) {
    const bool at_white = !given(a, 0) || a->values[0].kind == QGC_JINJA_NONE;
    const text by = at_white ? empty : text_argument(m, a, 0);
    const int64_t most = number_argument(m, a, 1, -1);
    return m->failed ? self : qgc_jinja_split(m, self.text, at_white ? NULL : &by, most);
}

static value strip_sides(machine *m, value self, const arguments *a, int sides) {
    if (!given(a, 0) || a->values[0].kind == QGC_JINJA_NONE)
        return qgc_jinja_text_value(qgc_jinja_strip(self.text, NULL, sides));
    const text set = text_argument(m, a, 0);
    return qgc_jinja_text_value(qgc_jinja_strip(self.text, &set, sides));
}
static value strip(machine *m, value self, const arguments *a) {
    return strip_sides(m, self, a, QGC_LEFT | QGC_RIGHT);
}
static value lstrip(machine *m, value self, const arguments *a) {
    return strip_sides(m, self, a, QGC_LEFT);
}
static value rstrip(machine *m, value self, const arguments *a) {
    return strip_sides(m, self, a, QGC_RIGHT);
}

/* One text, or several in a tuple. */
static value has_end(machine *m, value self, const arguments *a, bool (*test)(text, text)) {
    if (!given(a, 0) || a->values[0].kind != QGC_JINJA_LIST || a->values[0].list->kind != QGC_LIST_TUPLE)
        return qgc_jinja_boolean(test(self.text, text_argument(m, a, 0)));
    const qgc_jinja_list *any = a->values[0].list;
    bool found = false;
    for (size_t i = 0; i < any->n && !found; i++) {
        if (any->items[i].kind != QGC_JINJA_TEXT)
            return qgc_jinja_fail(m, "a text is compared with %s", qgc_jinja_kind_name(any->items[i]));
        found = test(self.text, any->items[i].text);
    }
    return qgc_jinja_boolean(found);
}
static value startswith(machine *m, value self, const arguments *a) {
    return has_end(m, self, a, qgc_jinja_starts);
}
static value endswith(machine *m, value self, const arguments *a) {
    return has_end(m, self, a, qgc_jinja_ends);
}

static value replace(machine *m, value self, const arguments *a) {
    const text pair[2] = {text_argument(m, a, 0), text_argument(m, a, 1)};
    const int64_t most = number_argument(m, a, 2, -1);
    return m->failed ? self : qgc_jinja_replace(m, self.text, pair, most);
}

static value find(machine *m, value self, const arguments *a) {
    return qgc_jinja_integer(qgc_jinja_find(m, self.text, text_argument(m, a, 0), 0));
}

static value lower(machine *m, value self, const arguments *a) {
    (void)a;
    return qgc_jinja_case(m, self.text, QGC_CASE_LOWER);
}
static value upper(machine *m, value self, const arguments *a) {
    (void)a;
    return qgc_jinja_case(m, self.text, QGC_CASE_UPPER);
}
static value capitalize(machine *m, value self, const arguments *a) {
    (void)a;
    return qgc_jinja_case(m, self.text, QGC_CASE_CAPITAL);
}

static value join_texts(machine *m, value of, text between) {
    qgc_jinja_builder b = {.arena = m->arena};
    const qgc_jinja_list list = qgc_jinja_iterate(m, of);
    for (size_t i = 0; i < list.n && !m->failed; i++) {
        const text item = qgc_jinja_string(m, list.items[i]);
        if (!qgc_jinja_spend(m, between.n + item.n))
            break;
        if (i > 0)
            qgc_jinja_add(&b, between.c, between.n);
        qgc_jinja_add(&b, item.c, item.n);
    }
    return qgc_jinja_built(&b);
}

/* ", ".join(texts) */
static value join_method(machine *m, value self, const arguments *a) {
    if (a->n && a->values[0].kind == QGC_JINJA_LIST)
        for (size_t i = 0; i < a->values[0].list->n; i++)
            if (a->values[0].list->items[i].kind != QGC_JINJA_TEXT)
                return qgc_jinja_fail(m, "%s is joined by a method, expected texts",
                                      qgc_jinja_kind_name(a->values[0].list->items[i]));
    return join_texts(m, a->values[0], self.text);
}

static const qgc_jinja_function text_methods[] = {
    {"split", split, " sep maxsplit"},
    {"strip", strip, " chars"},
    {"lstrip", lstrip, " chars"},
    {"rstrip", rstrip, " chars"},
    {"startswith", startswith, " prefix"},
    {"endswith", endswith, " suffix"},
    {"replace", replace, " old new count"},
    {"find", find, " sub"},
    {"lower", lower, ""},
    {"upper", upper, ""},
    {"capitalize", capitalize, ""},
    {"join", join_method, " iterable"},
    {NULL, NULL, ""},
};

/* --- methods of dictionaries and lists ----------------------------------------------------------------------- */

static value tuple_of(machine *m, value a, value b) {
    const value tuple = qgc_jinja_list_new(m->arena);
    tuple.list->kind = QGC_LIST_TUPLE;
    qgc_jinja_list_add(tuple, a);
    qgc_jinja_list_add(tuple, b);
    return tuple;
}

static value items(machine *m, value self, const arguments *a) {
    const value view = qgc_jinja_list_new(m->arena);
    (void)a;
    for (size_t i = 0; i < self.dict->n && qgc_jinja_spend(m, 4); i++)
        qgc_jinja_list_add(view, tuple_of(m, self.dict->pairs[i].key, self.dict->pairs[i].value));
    view.list->kind = QGC_LIST_VIEW;
    return view;
}

static value keys_or_values(machine *m, value self, bool keys) {
    const value view = qgc_jinja_list_new(m->arena);
    for (size_t i = 0; i < self.dict->n && qgc_jinja_spend(m, 1); i++)
        qgc_jinja_list_add(view, keys ? self.dict->pairs[i].key : self.dict->pairs[i].value);
    view.list->kind = QGC_LIST_VIEW;
    return view;
}
static value keys(machine *m, value self, const arguments *a) {
    (void)a;
    return keys_or_values(m, self, true);
}
static value values(machine *m, value self, const arguments *a) {
    (void)a;
    return keys_or_values(m, self, false);
}

static value get(machine *m, value self, const arguments *a) {
    const value *found = qgc_jinja_dict_find(self, a->values[0], m);
    return found ? *found : given(a, 1) ? a->values[1] : (value){.kind = QGC_JINJA_NONE};
}

static const qgc_jinja_function dict_methods[] = {
    {"items", items, ""},
    {"keys", keys, ""},
    {"values", values, ""},
    {"get", get, " key default"},
    /* what Python finds before an item of that name */
    {"clear", NULL, ""},
    {"copy", NULL, ""},
    {"fromkeys", NULL, ""},
    {"pop", NULL, ""},
    {"popitem", NULL, ""},
    {"setdefault", NULL, ""},
    {"update", NULL, ""},
    {NULL, NULL, ""},
};

/* The sandbox lets none of these change a list. */
static const qgc_jinja_function list_methods[] = {
    {"append", NULL, ""}, {"clear", NULL, ""},   {"copy", NULL, ""},   {"count", NULL, ""},
    {"extend", NULL, ""}, {"index", NULL, ""},   {"insert", NULL, ""}, {"pop", NULL, ""},
    {"remove", NULL, ""}, {"reverse", NULL, ""}, {"sort", NULL, ""},   {NULL, NULL, ""},
};

static const qgc_jinja_function *find_function(const qgc_jinja_function *table, text name) {
    for (; table->name; table++)
        if (qgc_jinja_is(name, table->name))
            return table;
    return NULL;
}

qgc_jinja_value qgc_jinja_method_of(qgc_jinja_machine *m, qgc_jinja_value self, qgc_jinja_text name) {
    const qgc_jinja_function *f = NULL;
    if (self.kind == QGC_JINJA_TEXT)
        f = find_function(text_methods, name);
    else if (self.kind == QGC_JINJA_DICT && !self.dict->is_namespace)
        f = find_function(dict_methods, name);
    else if (self.kind == QGC_JINJA_LIST)
        f = find_function(list_methods, name);
    if (!f)
        return qgc_jinja_undefined(NULL);
    qgc_jinja_method *method = qgc_arena_alloc(m->arena, sizeof *method);
    *method = (qgc_jinja_method){f, self};
    return (value){.kind = QGC_JINJA_METHOD, .method = method};
}

/* --- functions ----------------------------------------------------------------------------------------------- */

static value range(machine *m, value self, const arguments *a) {
    const bool one = !given(a, 1);
    const int64_t start = one ? 0 : number_argument(m, a, 0, 0), stop = number_argument(m, a, one ? 0 : 1, 0),
                  step = number_argument(m, a, 2, 1);
    const value list = qgc_jinja_list_new(m->arena);
    (void)self;
    if (step == 0)
        return qgc_jinja_fail(m, "the step of a range is 0");
    for (int64_t i = start; (step > 0 ? i < stop : i > stop) && qgc_jinja_spend(m, 1);) {
        qgc_jinja_list_add(list, qgc_jinja_integer(i));
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    return list;
}

static value dict_of(machine *m, const arguments *a, const char *what) {
    const value dict = qgc_jinja_dict_new(m->arena);
    for (int i = 0; i < a->n; i++) {
        if (!a->names[i])
            return qgc_jinja_fail(m, "\"%s\" with an argument that has no name is not supported", what);
        qgc_jinja_dict_set(dict, qgc_jinja_ascii(m->arena, a->names[i]), a->values[i]);
    }
    return dict;
}
static value namespace(machine *m, value self, const arguments *a) {
    const value dict = dict_of(m, a, "namespace");
    (void)self;
    if (dict.kind == QGC_JINJA_DICT)
        dict.dict->is_namespace = true;
    return dict;
}
static value dict(machine *m, value self, const arguments *a) {
    (void)self;
    return dict_of(m, a, "dict");
}

static value raise_exception(machine *m, value self, const arguments *a) {
    (void)self;
    return qgc_jinja_fail(m, "the conversation is refused: %s",
                          qgc_jinja_shown(m, qgc_jinja_string(m, a->values[0])));
}

/* A field of a date by its letter, in English; NULL if it is not known. `zeros`: in front of a number. */
static const char *date_field(machine *m, char letter, bool zeros) {
    static const char *const months[] = {"January",   "February", "March",    "April",
                                         "May",       "June",     "July",     "August",
                                         "September", "October",  "November", "December"};
    static const char *const days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                       "Thursday", "Friday", "Saturday"};
    const struct tm *t = m->now;
    const char *month = months[(unsigned)t->tm_mon % 12], *day = days[(unsigned)t->tm_wday % 7];
    const struct {
        char letter;
        int digits, number;
    } numbers[] = {{'d', 2, t->tm_mday},      {'m', 2, t->tm_mon + 1}, {'Y', 1, t->tm_year + 1900},
                   {'H', 2, t->tm_hour},      {'M', 2, t->tm_min},     {'S', 2, t->tm_sec},
                   {'y', 2, t->tm_year % 100}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].letter == letter)
            return qgc_arena_printf(m->arena, "%0*d", zeros ? numbers[i].digits : 1, numbers[i].number);
    return letter == 'B'   ? month
           : letter == 'b' ? qgc_arena_strndup(m->arena, month, 3)
           : letter == 'A' ? day
           : letter == 'a' ? qgc_arena_strndup(m->arena, day, 3)
           : letter == '%' ? "%"
                           : NULL;
}

static value strftime_now(machine *m, value self, const arguments *a) {
    const text t = text_argument(m, a, 0);
    qgc_jinja_builder b = {.arena = m->arena};
    (void)self;
    for (size_t i = 0; i < t.n && !m->failed; i++) {
        if ((t.c[i] & ~QGC_JINJA_OUTSIDE) != '%') {
            qgc_jinja_add(&b, &t.c[i], 1);
            continue;
        }
        const bool bare = i + 1 < t.n && (t.c[i + 1] & ~QGC_JINJA_OUTSIDE) == '-';
        i += bare ? 2 : 1;
        const uint32_t letter = i < t.n ? t.c[i] & ~QGC_JINJA_OUTSIDE : 0;
        const char *field = letter < 0x80 ? date_field(m, (char)letter, !bare) : NULL;
        if (!field)
            return qgc_jinja_fail(m, "date format \"%s\" is not supported", qgc_jinja_shown(m, t));
        qgc_jinja_add_ascii(&b, field);
    }
    return qgc_jinja_built(&b);
}

static const qgc_jinja_function functions[] = {
    {"range", range, " start stop step"},
    {"namespace", namespace, "*"},
    {"dict", dict, "*"},
    {"raise_exception", raise_exception, " message"},
    {"strftime_now", strftime_now, " format"},
    {"lipsum", NULL, ""},
    {"cycler", NULL, ""},
    {"joiner", NULL, ""},
};

qgc_jinja_value qgc_jinja_global(const char *name) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, name) == 0)
            return (value){.kind = QGC_JINJA_FUNCTION, .function = &functions[i]};
    return qgc_jinja_undefined(name);
}

/* --- filters ------------------------------------------------------------------------------------------------- */

static value as_text(machine *m, value v) {
    return qgc_jinja_text_value(qgc_jinja_string(m, v));
}

static value filter_trim(machine *m, value v, const arguments *a) {
    return strip(m, as_text(m, v), a);
}
static value filter_string(machine *m, value v, const arguments *a) {
    (void)a;
    return as_text(m, v);
}
static value filter_lower(machine *m, value v, const arguments *a) {
    return lower(m, as_text(m, v), a);
}
static value filter_upper(machine *m, value v, const arguments *a) {
    return upper(m, as_text(m, v), a);
}
static value filter_capitalize(machine *m, value v, const arguments *a) {
    return capitalize(m, as_text(m, v), a);
}

static value filter_replace(machine *m, value v, const arguments *a) {
    const text pair[2] = {qgc_jinja_string(m, a->values[0]), qgc_jinja_string(m, a->values[1])};
    const int64_t most = number_argument(m, a, 2, -1);
    const value of = as_text(m, v);
    return m->failed ? of : qgc_jinja_replace(m, of.text, pair, most ? most : -1);
}

static value filter_length(machine *m, value v, const arguments *a) {
    (void)a;
    if (v.kind == QGC_JINJA_UNDEFINED)
        return qgc_jinja_integer(0);
    if (v.kind == QGC_JINJA_TEXT)
        return qgc_jinja_integer((int64_t)v.text.n);
    if (v.kind == QGC_JINJA_LIST && v.list->kind != QGC_LIST_LAZY)
        return qgc_jinja_integer((int64_t)v.list->n);
    if (v.kind == QGC_JINJA_DICT && !v.dict->is_namespace)
        return qgc_jinja_integer((int64_t)v.dict->n);
    return qgc_jinja_fail(m, "%s has no length", qgc_jinja_kind_name(v));
}

static value filter_default(machine *m, value v, const arguments *a) {
    const bool missing =
        v.kind == QGC_JINJA_UNDEFINED || (qgc_jinja_true(a->values[1]) && !qgc_jinja_true(v));
    return !missing ? v : given(a, 0) ? a->values[0] : qgc_jinja_ascii(m->arena, "");
}

static value filter_list(machine *m, value v, const arguments *a) {
    const value list = qgc_jinja_list_new(m->arena);
    (void)a;
    *list.list = qgc_jinja_iterate(m, v);
    return list;
}

static value filter_first(machine *m, value v, const arguments *a) {
    (void)a;
    if (v.kind == QGC_JINJA_LIST && v.list->kind == QGC_LIST_LAZY && v.list->n > 0) {
        v.list->n--; /* and what comes after it is still to come */
        return *v.list->items++;
    }
    const qgc_jinja_list list = qgc_jinja_iterate(m, v);
    return list.n ? list.items[0] : qgc_jinja_undefined("the first of nothing");
}

static value filter_last(machine *m, value v, const arguments *a) {
    (void)a;
    if (v.kind == QGC_JINJA_LIST && v.list->kind == QGC_LIST_LAZY)
        return qgc_jinja_fail(m, "\"last\" of what a filter yields is not supported");
    const qgc_jinja_list list = qgc_jinja_iterate(m, v);
    return list.n ? list.items[list.n - 1] : qgc_jinja_undefined("the last of nothing");
}

static value lazy_list(machine *m) {
    const value list = qgc_jinja_list_new(m->arena);
    list.list->kind = QGC_LIST_LAZY;
    return list;
}

static value filter_reverse(machine *m, value v, const arguments *a) {
    (void)a;
    if (v.kind == QGC_JINJA_TEXT)
        return qgc_jinja_reversed(m, v.text);
    if (v.kind == QGC_JINJA_LIST && v.list->kind == QGC_LIST_LAZY)
        return qgc_jinja_fail(m, "\"reverse\" of what a filter yields is not supported");
    const value list = lazy_list(m);
    const qgc_jinja_list of = qgc_jinja_iterate(m, v);
    for (size_t i = of.n; i > 0; i--)
        qgc_jinja_list_add(list, of.items[i - 1]);
    return list;
}

static value filter_join(machine *m, value v, const arguments *a) {
    return join_texts(m, v, given(a, 0) ? qgc_jinja_string(m, a->values[0]) : empty);
}

static value filter_items(machine *m, value v, const arguments *a) {
    if (v.kind == QGC_JINJA_UNDEFINED)
        return lazy_list(m);
    if (v.kind != QGC_JINJA_DICT || v.dict->is_namespace)
        return qgc_jinja_fail(m, "\"items\" of %s, expected a dictionary", qgc_jinja_kind_name(v));
    const value list = items(m, v, a);
    list.list->kind = QGC_LIST_LAZY;
    return list;
}

/* As transformers has it: nothing is escaped but what JSON escapes. */
static value filter_tojson(machine *m, value v, const arguments *a) {
    qgc_jinja_builder b = {.arena = m->arena};
    const int64_t indent = number_argument(m, a, 1, -1);
    if (indent > 16 || indent < -1 || qgc_jinja_true(a->values[0]))
        return qgc_jinja_fail(m, "\"tojson\" with these arguments is not supported");
    qgc_jinja_json(m, v, (int)indent, &b);
    return qgc_jinja_built(&b);
}

static value filter_int(machine *m, value v, const arguments *a) {
    int64_t n = 0;
    (void)a;
    if (qgc_jinja_is_integer(v))
        return qgc_jinja_integer(v.integer);
    if (v.kind == QGC_JINJA_FLOAT && v.number > -1e15 && v.number < 1e15)
        return qgc_jinja_integer((int64_t)v.number);
    const text t = v.kind == QGC_JINJA_TEXT ? qgc_jinja_strip(v.text, NULL, QGC_LEFT | QGC_RIGHT) : empty;
    for (size_t i = 0; i < t.n; i++) {
        const uint32_t digit = (t.c[i] & ~QGC_JINJA_OUTSIDE) - '0';
        if (digit > 9 || t.n > 15)
            return qgc_jinja_fail(m, "\"int\" of \"%s\" is not supported", qgc_jinja_shown(m, t));
        n = 10 * n + digit;
    }
    return t.n ? qgc_jinja_integer(n)
               : qgc_jinja_fail(m, "\"int\" of %s is not supported", qgc_jinja_kind_name(v));
}

static value filter_abs(machine *m, value v, const arguments *a) {
    (void)a;
    if (qgc_jinja_is_integer(v) && v.integer != INT64_MIN)
        return qgc_jinja_integer(v.integer < 0 ? -v.integer : v.integer);
    return qgc_jinja_fail(m, "\"abs\" of %s is not supported", qgc_jinja_kind_name(v));
}

/* The item of a dotted name. */
static value item_by_path(machine *m, value v, value path) {
    if (path.kind != QGC_JINJA_TEXT)
        return qgc_jinja_item(m, v, path);
    const text dot = qgc_jinja_ascii(m->arena, ".").text;
    const value parts = qgc_jinja_split(m, path.text, &dot, -1);
    for (size_t i = 0; parts.kind == QGC_JINJA_LIST && i < parts.list->n && !m->failed; i++)
        v = qgc_jinja_item(m, v, parts.list->items[i]);
    return v;
}

static const char *name_argument(machine *m, const arguments *a, int i) {
    const text t = text_argument(m, a, i);
    return m->failed ? "" : qgc_jinja_shown(m, t);
}

/* map(attribute="name"), or map("filter", arguments of it) */
static value filter_map(machine *m, value v, const arguments *a) {
    const value list = lazy_list(m);
    const bool attribute = a->n == 1 && a->names[0] && strcmp(a->names[0], "attribute") == 0;
    if (a->n == 0 || (a->names[0] && !attribute))
        return qgc_jinja_fail(m, "\"map\" with these arguments is not supported");
    const char *filter = attribute ? NULL : name_argument(m, a, 0);
    const arguments more = rest(a, 1);
    const qgc_jinja_list of = qgc_jinja_iterate(m, v);
    for (size_t i = 0; i < of.n && qgc_jinja_spend(m, 1); i++)
        qgc_jinja_list_add(list, attribute ? item_by_path(m, of.items[i], a->values[0])
                                           : qgc_jinja_filter(m, filter, of.items[i], &more));
    return list;
}

/* The items, or those whose attribute, that pass a test, or with `wanted` false those that do not. */
static value choose(machine *m, value v, const arguments *a, bool by_attribute, bool wanted) {
    const value list = lazy_list(m);
    if (by_attribute && !given(a, 0))
        return qgc_jinja_fail(m, "items are chosen by an attribute that is not given");
    const arguments more = rest(a, by_attribute), tested = rest(&more, 1);
    const char *test = more.n ? name_argument(m, &more, 0) : NULL;
    const qgc_jinja_list of = qgc_jinja_iterate(m, v);
    for (size_t i = 0; i < of.n && qgc_jinja_spend(m, 1); i++) {
        const value item = by_attribute ? item_by_path(m, of.items[i], a->values[0]) : of.items[i];
        const bool passed = test ? qgc_jinja_test(m, test, item, &tested) : qgc_jinja_true(item);
        if (passed == wanted)
            qgc_jinja_list_add(list, of.items[i]);
    }
    return list;
}
static value filter_select(machine *m, value v, const arguments *a) {
    return choose(m, v, a, false, true);
}
static value filter_reject(machine *m, value v, const arguments *a) {
    return choose(m, v, a, false, false);
}
static value filter_selectattr(machine *m, value v, const arguments *a) {
    return choose(m, v, a, true, true);
}
static value filter_rejectattr(machine *m, value v, const arguments *a) {
    return choose(m, v, a, true, false);
}

static const qgc_jinja_function filters[] = {
    {"trim", filter_trim, " chars"},
    {"length", filter_length, ""},
    {"count", filter_length, ""},
    {"tojson", filter_tojson, " ensure_ascii indent"},
    {"default", filter_default, " default_value boolean"},
    {"d", filter_default, " default_value boolean"},
    {"join", filter_join, " d"},
    {"first", filter_first, ""},
    {"last", filter_last, ""},
    {"list", filter_list, ""},
    {"string", filter_string, ""},
    {"lower", filter_lower, ""},
    {"upper", filter_upper, ""},
    {"capitalize", filter_capitalize, ""},
    {"replace", filter_replace, " old new count"},
    {"reverse", filter_reverse, ""},
    {"items", filter_items, ""},
    {"int", filter_int, ""},
    {"abs", filter_abs, ""},
    {"map", filter_map, "*"},
    {"select", filter_select, "*"},
    {"reject", filter_reject, "*"},
    {"selectattr", filter_selectattr, "*"},
    {"rejectattr", filter_rejectattr, "*"},
    {NULL, NULL, ""},
};

qgc_jinja_value qgc_jinja_filter(qgc_jinja_machine *m, const char *name, qgc_jinja_value v,
                                 const qgc_jinja_arguments *a) {
    const qgc_jinja_function *f = filters;
    while (f->name && strcmp(f->name, name) != 0)
        f++;
    if (!f->name)
        return qgc_jinja_fail(m, "filter \"%s\" is not supported", name);
    if (++m->depth > QGC_MOST_CALLS)
        return qgc_jinja_fail(m, "filters are nested too deep");
    const value result = qgc_jinja_call(m, f, v, a);
    m->depth--;
    return result;
}

/* --- tests --------------------------------------------------------------------------------------------------- */

static bool is_sequence(value v) {
    return v.kind == QGC_JINJA_TEXT || v.kind == QGC_JINJA_UNDEFINED ||
           (v.kind == QGC_JINJA_LIST && v.list->kind <= QGC_LIST_TUPLE) ||
           (v.kind == QGC_JINJA_DICT && !v.dict->is_namespace);
}

/* Tests without arguments; -1 if there is none of this name. */
static int test_kind(const char *name, value v) {
    const bool mapping = v.kind == QGC_JINJA_DICT && !v.dict->is_namespace;
    const struct {
        const char *name;
        bool passed;
    } tests[] = {
        {"defined", v.kind != QGC_JINJA_UNDEFINED},
        {"undefined", v.kind == QGC_JINJA_UNDEFINED},
        {"none", v.kind == QGC_JINJA_NONE},
        {"string", v.kind == QGC_JINJA_TEXT},
        {"mapping", mapping},
        {"sequence", is_sequence(v)},
        {"iterable", is_sequence(v) || v.kind == QGC_JINJA_LIST || v.kind == QGC_JINJA_LOOP},
        {"number", qgc_jinja_is_number(v)},
        {"integer", v.kind == QGC_JINJA_INTEGER},
        {"float", v.kind == QGC_JINJA_FLOAT},
        {"boolean", v.kind == QGC_JINJA_BOOLEAN},
        {"true", v.kind == QGC_JINJA_BOOLEAN && v.integer},
        {"false", v.kind == QGC_JINJA_BOOLEAN && !v.integer},
        {"callable", v.kind >= QGC_JINJA_MACRO || v.kind == QGC_JINJA_UNDEFINED},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (strcmp(tests[i].name, name) == 0)
            return tests[i].passed;
    return -1;
}

static bool test_number(machine *m, const char *name, value v, int64_t by) {
    if (!qgc_jinja_is_integer(v) || by == 0) {
        (void)qgc_jinja_fail(m, "test \"%s\" of %s is not supported", name, qgc_jinja_kind_name(v));
        return false;
    }
    const int64_t left = by == -1 ? 0 : v.integer % by;
    return strcmp(name, "odd") == 0 ? left != 0 : left == 0;
}

/* Tests with one argument. */
static bool test_two(machine *m, const char *name, value v, value other) {
    static const struct {
        const char *name;
        int order;   /* -1: less, 0: equal, 1: greater, 2: in */
        bool passed; /* when it is so */
    } tests[] = {{"equalto", 0, true}, {"eq", 0, true},   {"==", 0, true},        {"ne", 0, false},
                 {"!=", 0, false},     {"lt", -1, true},  {"lessthan", -1, true}, {"<", -1, true},
                 {"ge", -1, false},    {">=", -1, false}, {"gt", 1, true},        {"greaterthan", 1, true},
                 {">", 1, true},       {"le", 1, false},  {"<=", 1, false},       {"in", 2, true}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (strcmp(tests[i].name, name) != 0)
            continue;
        const int order = tests[i].order;
        const bool so = order == 2   ? qgc_jinja_contains(m, other, v)
                        : order == 0 ? qgc_jinja_equal(v, other, m)
                                     : qgc_jinja_order(v, other, m) == order;
        return so == tests[i].passed;
    }
    (void)qgc_jinja_fail(m, "test \"%s\" is not supported", name);
    return false;
}

bool qgc_jinja_test(qgc_jinja_machine *m, const char *name, qgc_jinja_value v, const qgc_jinja_arguments *a) {
    const bool parity = strcmp(name, "odd") == 0 || strcmp(name, "even") == 0;
    const int passed = a->n == 0 ? test_kind(name, v) : -1;
    if (passed >= 0)
        return passed;
    if (parity && a->n == 0)
        return test_number(m, name, v, 2);
    if (strcmp(name, "divisibleby") == 0 && a->n == 1)
        return test_number(m, name, v, number_argument(m, a, 0, 0));
    if (a->n == 1 && !a->names[0])
        return test_two(m, name, v, a->values[0]);
    (void)qgc_jinja_fail(m, "test \"%s\" is not supported", name);
    return false;
}
