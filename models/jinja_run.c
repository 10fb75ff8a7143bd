#include <math.h>
#include <string.h>

#include "models/jinja_impl.h"

/* Runs the nodes of a template. */

typedef qgc_jinja_value value;
typedef qgc_jinja_machine machine;

enum { STEPS = 1 << 22, STEPS_A_LETTER = 64 };

/* --- variables ----------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    value v;
} variable;

struct qgc_jinja_scope {
    qgc_jinja_scope *up;
    variable *variables;
    size_t n;
};

static qgc_jinja_scope *enter(machine *m, qgc_jinja_scope *up) {
    qgc_jinja_scope *s = qgc_arena_alloc(m->arena, sizeof *s), *before = m->scope;
    s->up = up;
    m->scope = s;
    return before;
}

/* Jinja has compiled a name that is set in a scope as one of it: read in an inner scope before, it is undefined there, if a
 * variable of the same name was given or not. */
static void check_read_before(machine *m, const char *name) {
    for (size_t i = 0; i < m->n_read; i++) {
        const qgc_jinja_scope *s = m->read[i].scope;
        if (strcmp(m->read[i].name, name) != 0 || s == m->scope)
            continue;
        while (s && s != m->scope)
            s = s->up;
        if (s)
            (void)qgc_jinja_fail(m, "\"%s\" is set after it was read in a loop or macro", name);
    }
}

static void note_read(machine *m, const char *name) {
    for (size_t i = 0; i < m->n_read; i++)
        if (strcmp(m->read[i].name, name) == 0)
            return;
    m->read = qgc_arena_grow(m->arena, m->read, m->n_read, sizeof *m->read);
    m->read[m->n_read].name = name;
    m->read[m->n_read++].scope = m->scope;
}

static void set(machine *m, const char *name, value v) {
    qgc_jinja_scope *s = m->scope;
    check_read_before(m, name);
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->variables[i].name, name) == 0) {
            s->variables[i].v = v;
            return;
        }
    s->variables = qgc_arena_grow(m->arena, s->variables, s->n, sizeof *s->variables);
    s->variables[s->n++] = (variable){name, v};
}

static value find_name(machine *m, const char *name) {
    for (const qgc_jinja_scope *s = m->scope; s; s = s->up)
        for (size_t i = 0; i < s->n; i++)
            if (strcmp(s->variables[i].name, name) == 0)
                return s->variables[i].v;
    const qgc_jinja_dict *given = m->variables.dict;
    for (size_t i = 0; i < given->n; i++)
        if (qgc_jinja_is(given->pairs[i].key.text, name)) {
            note_read(m, name);
            return given->pairs[i].value;
        }
    return qgc_jinja_global(name);
}

/* --- arithmetic ---------------------------------------------------------------------------------------------- */

static value evaluate(machine *m, const qgc_node *n);

static value too_large(machine *m) {
    return qgc_jinja_fail(m, "a number is too large");
}

static value floats(machine *m, qgc_sign sign, value a, value b) {
    const double x = qgc_jinja_is_integer(a) ? (double)a.integer : a.number,
                 y = qgc_jinja_is_integer(b) ? (double)b.integer : b.number;
    double r = 0;
    if (sign == QGC_SIGN_ADD)
        r = x + y;
    else if (sign == QGC_SIGN_SUBTRACT)
        r = x - y;
    else if (sign == QGC_SIGN_MULTIPLY)
        r = x * y;
    else if (sign == QGC_SIGN_DIVIDE && y != 0)
        r = x / y;
    else
        return qgc_jinja_fail(m, y == 0 ? "a number is divided by zero"
                                        : "this operation on numbers that are not whole is not supported");
    return isfinite(r) ? (value){.kind = QGC_JINJA_FLOAT, .number = r} : too_large(m);
}

/* Rounded down, as in Python. */
static value divide(machine *m, qgc_sign sign, int64_t x, int64_t y) {
    if (y == 0)
        return qgc_jinja_fail(m, "a number is divided by zero");
    if (y == -1)
        return sign == QGC_SIGN_MODULO ? qgc_jinja_integer(0)
               : x == INT64_MIN        ? too_large(m)
                                       : qgc_jinja_integer(-x);
    const int64_t left = x % y, other = left != 0 && (left < 0) != (y < 0);
    return qgc_jinja_integer(sign == QGC_SIGN_MODULO ? left + (other ? y : 0) : x / y - other);
}

static value power(machine *m, int64_t x, int64_t y) {
    int64_t r = 1;
    if (y < 0)
        return qgc_jinja_fail(m, "a negative power is not supported");
    for (; y > 0 && r != 0 && qgc_jinja_spend(m, 1); y--)
        if (__builtin_mul_overflow(r, x, &r))
            return too_large(m);
    return qgc_jinja_integer(r);
}

static value integers(machine *m, qgc_sign sign, int64_t x, int64_t y) {
    int64_t r = 0;
    bool over = false;
    if (sign == QGC_SIGN_ADD)
        over = __builtin_add_overflow(x, y, &r);
    else if (sign == QGC_SIGN_SUBTRACT)
        over = __builtin_sub_overflow(x, y, &r);
    else if (sign == QGC_SIGN_MULTIPLY)
        over = __builtin_mul_overflow(x, y, &r);
    else if (sign == QGC_SIGN_POWER)
        return power(m, x, y);
    else
        return divide(m, sign, x, y);
    return over ? too_large(m) : qgc_jinja_integer(r);
}

static value join_texts(machine *m, qgc_jinja_text a, qgc_jinja_text b) {
    qgc_jinja_builder s = {.arena = m->arena};
    if (!qgc_jinja_spend(m, a.n + b.n))
        return qgc_jinja_built(&s);
    s.room = a.n + b.n;
    s.c = qgc_arena_array(m->arena, s.room, sizeof *s.c);
    qgc_jinja_add(&s, a.c, a.n);
    qgc_jinja_add(&s, b.c, b.n);
    return qgc_jinja_built(&s);
}

static value join_lists(machine *m, value a, value b) {
    const value list = qgc_jinja_list_new(m->arena);
    list.list->kind = a.list->kind;
    for (size_t i = 0; i < a.list->n + b.list->n && qgc_jinja_spend(m, 1); i++)
        qgc_jinja_list_add(list, i < a.list->n ? a.list->items[i] : b.list->items[i - a.list->n]);
    return list;
}

static value repeat(machine *m, qgc_jinja_text t, int64_t times) {
    qgc_jinja_builder s = {.arena = m->arena};
    size_t letters = 0;
    if (times <= 0 || t.n == 0)
        return qgc_jinja_built(&s);
    if (__builtin_mul_overflow(t.n, (size_t)times, &letters) || !qgc_jinja_spend(m, letters))
        return qgc_jinja_fail(m, "it does too much for a conversation of this length");
    for (; times > 0; times--)
        qgc_jinja_add(&s, t.c, t.n);
    return qgc_jinja_built(&s);
}

static value operate(machine *m, qgc_sign sign, value a, value b) {
    if (sign == QGC_SIGN_JOIN)
        return join_texts(m, qgc_jinja_string(m, a), qgc_jinja_string(m, b));
    if (qgc_jinja_is_integer(a) && qgc_jinja_is_integer(b) && sign != QGC_SIGN_DIVIDE)
        return integers(m, sign, a.integer, b.integer);
    if (qgc_jinja_is_number(a) && qgc_jinja_is_number(b))
        return floats(m, sign, a, b);
    if (sign == QGC_SIGN_ADD && a.kind == QGC_JINJA_TEXT && b.kind == QGC_JINJA_TEXT)
        return join_texts(m, a.text, b.text);
    if (sign == QGC_SIGN_ADD && a.kind == QGC_JINJA_LIST && b.kind == QGC_JINJA_LIST &&
        a.list->kind == b.list->kind && a.list->kind <= QGC_LIST_TUPLE)
        return join_lists(m, a, b);
    if (sign == QGC_SIGN_MULTIPLY && a.kind == QGC_JINJA_TEXT && qgc_jinja_is_integer(b))
        return repeat(m, a.text, b.integer);
    const value missing = a.kind == QGC_JINJA_UNDEFINED ? a : b;
    if (missing.kind == QGC_JINJA_UNDEFINED && missing.name)
        return qgc_jinja_fail(m, "\"%s\" is undefined", missing.name);
    return qgc_jinja_fail(m, "this operation on %s and %s is not supported", qgc_jinja_kind_name(a),
                          qgc_jinja_kind_name(b));
}

static bool compare(machine *m, qgc_sign sign, value a, value b) {
    if (sign == QGC_SIGN_EQUAL || sign == QGC_SIGN_UNEQUAL)
        return qgc_jinja_equal(a, b, m) == (sign == QGC_SIGN_EQUAL);
    if (sign == QGC_SIGN_IN || sign == QGC_SIGN_NOT_IN)
        return qgc_jinja_contains(m, b, a) == (sign == QGC_SIGN_IN);
    const int order = qgc_jinja_order(a, b, m);
    return sign == QGC_SIGN_LESS         ? order < 0
           : sign == QGC_SIGN_GREATER    ? order > 0
           : sign == QGC_SIGN_LESS_EQUAL ? order <= 0
                                         : order >= 0;
}

/* a < b <= c */
static value comparison(machine *m, const qgc_node *n) {
    value left = evaluate(m, n->a);
    for (const qgc_node *operand = n->first; operand && !m->failed; operand = operand->next) {
        const value right = evaluate(m, operand->a);
        if (m->failed || !compare(m, operand->sign, left, right))
            return qgc_jinja_boolean(false);
        left = right;
    }
    return qgc_jinja_boolean(true);
}

static value negative(machine *m, value v) {
    if (qgc_jinja_is_integer(v))
        return integers(m, QGC_SIGN_SUBTRACT, 0, v.integer);
    if (v.kind == QGC_JINJA_FLOAT)
        return (value){.kind = QGC_JINJA_FLOAT, .number = -v.number};
    return qgc_jinja_fail(m, "%s has no sign", qgc_jinja_kind_name(v));
}

static value positive(machine *m, value v) {
    if (qgc_jinja_is_integer(v))
        return qgc_jinja_integer(v.integer);
    return v.kind == QGC_JINJA_FLOAT ? v : qgc_jinja_fail(m, "%s has no sign", qgc_jinja_kind_name(v));
}

/* --- slices -------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t start, stop, step;
} slice_bounds;

/* A bound of a slice of n items, which ends at `low` and `high`; none is `missing`. */
static int64_t bound(machine *m, value v, int64_t n, const int64_t limits[2], int64_t missing) {
    if (v.kind == QGC_JINJA_NONE)
        return missing;
    if (!qgc_jinja_is_integer(v)) {
        (void)qgc_jinja_fail(m, "a bound of a slice is %s, expected a number", qgc_jinja_kind_name(v));
        return missing;
    }
    const int64_t at = v.integer < 0 ? (v.integer < -n ? -1 : v.integer + n) : v.integer;
    return at < limits[0] ? limits[0] : at > limits[1] ? limits[1] : at;
}

static slice_bounds bounds_of(machine *m, const qgc_node *n, int64_t length) {
    const value start = evaluate(m, n->first), stop = evaluate(m, n->first->next),
                step = evaluate(m, n->first->next->next);
    slice_bounds b = {.step = 1};
    if (qgc_jinja_is_integer(step))
        b.step = step.integer;
    else if (step.kind != QGC_JINJA_NONE)
        (void)qgc_jinja_fail(m, "the step of a slice is %s, expected a number", qgc_jinja_kind_name(step));
    if (b.step == 0)
        (void)qgc_jinja_fail(m, "the step of a slice is 0");
    const bool back = b.step < 0;
    const int64_t limits[2] = {back ? -1 : 0, back ? length - 1 : length};
    b.start = bound(m, start, length, limits, back ? length - 1 : 0);
    b.stop = bound(m, stop, length, limits, back ? -1 : length);
    return b;
}

static value slice(machine *m, const qgc_node *n) {
    const value of = evaluate(m, n->a);
    const bool list = of.kind == QGC_JINJA_LIST && of.list->kind <= QGC_LIST_TUPLE;
    if (m->failed || (!list && of.kind != QGC_JINJA_TEXT))
        return qgc_jinja_fail(m, "a slice of %s is not supported", qgc_jinja_kind_name(of));
    const slice_bounds b = bounds_of(m, n, list ? (int64_t)of.list->n : (int64_t)of.text.n);
    const value items = qgc_jinja_list_new(m->arena);
    qgc_jinja_builder text = {.arena = m->arena};
    if (!m->failed && list)
        items.list->kind = of.list->kind;
    for (int64_t i = b.start;
         !m->failed && (b.step > 0 ? i < b.stop : i > b.stop) && qgc_jinja_spend(m, 1);) {
        if (list)
            qgc_jinja_list_add(items, of.list->items[i]);
        else
            qgc_jinja_add(&text, &of.text.c[i], 1);
        if (__builtin_add_overflow(i, b.step, &i))
            break;
    }
    return list ? items : qgc_jinja_built(&text);
}

/* --- calls --------------------------------------------------------------------------------------------------- */

static void run_nodes(machine *m, const qgc_node *n);

static void evaluate_arguments(machine *m, const qgc_node *first, qgc_jinja_arguments *a) {
    a->n = 0;
    for (const qgc_node *n = first; n && a->n < QGC_MOST_ARGUMENTS && !m->failed; n = n->next) {
        a->names[a->n] = n->name;
        a->values[a->n++] = evaluate(m, n->a);
    }
}

/* What is printed by nodes, as a text. */
static value capture(machine *m, const qgc_node *first) {
    qgc_jinja_builder text = {.arena = m->arena}, *before = m->out;
    m->out = &text;
    run_nodes(m, first);
    m->out = before;
    return qgc_jinja_built(&text);
}

static const value *argument_for(const qgc_jinja_arguments *a, const char *name, int place) {
    for (int i = 0; i < a->n; i++)
        if (a->names[i] ? strcmp(a->names[i], name) == 0 : i == place)
            return &a->values[i];
    return NULL;
}

/* Gives the parameters their values. Returns how many there are. */
static int bind(machine *m, const qgc_node *parameters, const qgc_jinja_arguments *a) {
    int place = 0;
    for (const qgc_node *p = parameters; p && !m->failed; p = p->next, place++) {
        const value *v = argument_for(a, p->name, place);
        set(m, p->name, v ? *v : p->a ? evaluate(m, p->a) : qgc_jinja_undefined(p->name));
    }
    for (int i = 0; i < a->n && !m->failed; i++) {
        bool known = !a->names[i] && i < place;
        for (const qgc_node *p = parameters; p && !known; p = p->next)
            known = a->names[i] && strcmp(p->name, a->names[i]) == 0;
        if (!known)
            (void)qgc_jinja_fail(m, "a macro is called with an argument that it does not have");
    }
    return place;
}

static value call_macro(machine *m, const qgc_jinja_macro *macro, const qgc_jinja_arguments *a) {
    qgc_jinja_scope *before = enter(m, macro->scope);
    const int loops = m->loops;
    m->loops = 0;
    (void)bind(m, macro->node->a, a);
    const value text = capture(m, macro->node->first);
    m->loops = loops;
    m->scope = before;
    return text;
}

static value call(machine *m, const qgc_node *n) {
    qgc_jinja_arguments a;
    const value f = evaluate(m, n->a);
    evaluate_arguments(m, n->first, &a);
    if (m->failed)
        return f;
    m->node = n;
    if (f.kind == QGC_JINJA_FUNCTION)
        return qgc_jinja_call(m, f.function, f, &a);
    if (f.kind == QGC_JINJA_METHOD)
        return qgc_jinja_call(m, f.method->function, f.method->self, &a);
    if (f.kind == QGC_JINJA_MACRO)
        return call_macro(m, f.macro, &a);
    if (f.kind == QGC_JINJA_UNDEFINED)
        return qgc_jinja_fail(m, "\"%s\" is called, which is not supported", f.name ? f.name : "");
    return qgc_jinja_fail(m, "%s is called", qgc_jinja_kind_name(f));
}

static value filter(machine *m, const qgc_node *n) {
    qgc_jinja_arguments a;
    const value v = evaluate(m, n->a);
    evaluate_arguments(m, n->first, &a);
    m->node = n;
    return m->failed ? v : qgc_jinja_filter(m, n->name, v, &a);
}

static value test(machine *m, const qgc_node *n) {
    qgc_jinja_arguments a;
    const value v = evaluate(m, n->a);
    evaluate_arguments(m, n->first, &a);
    m->node = n;
    return m->failed ? v : qgc_jinja_boolean(qgc_jinja_test(m, n->name, v, &a) != n->flag);
}

/* --- expressions --------------------------------------------------------------------------------------------- */

static value list_of(machine *m, const qgc_node *n) {
    const value list = qgc_jinja_list_new(m->arena);
    list.list->kind = n->kind == QGC_NODE_TUPLE ? QGC_LIST_TUPLE : QGC_LIST_PLAIN;
    for (const qgc_node *item = n->first; item && !m->failed; item = item->next)
        qgc_jinja_list_add(list, evaluate(m, item));
    return list;
}

static value dict_of(machine *m, const qgc_node *n) {
    const value dict = qgc_jinja_dict_new(m->arena);
    for (const qgc_node *key = n->first; key && key->next && !m->failed; key = key->next->next) {
        const value k = evaluate(m, key), v = evaluate(m, key->next);
        if (k.kind >= QGC_JINJA_LIST || k.kind == QGC_JINJA_UNDEFINED)
            return qgc_jinja_fail(m, "%s as the key of a dictionary is not supported",
                                  qgc_jinja_kind_name(k));
        qgc_jinja_dict_set(dict, k, v);
    }
    return dict;
}

/* Operators that do not look at all of their operands. */
static value choose(machine *m, const qgc_node *n) {
    if (n->kind == QGC_NODE_CHOICE) {
        const value condition = evaluate(m, n->b);
        if (m->failed || qgc_jinja_true(condition))
            return m->failed ? condition : evaluate(m, n->a);
        return n->c ? evaluate(m, n->c) : qgc_jinja_undefined("what an if without else leaves");
    }
    const value left = evaluate(m, n->a);
    if (m->failed || qgc_jinja_true(left) == (n->kind == QGC_NODE_OR))
        return left;
    return evaluate(m, n->b);
}

static value evaluate_kind(machine *m, const qgc_node *n) {
    value a, b;
    switch (n->kind) {
    case QGC_NODE_CONSTANT:
        return n->constant;
    case QGC_NODE_NAME:
        return find_name(m, n->name);
    case QGC_NODE_LIST:
    case QGC_NODE_TUPLE:
        return list_of(m, n);
    case QGC_NODE_DICT:
        return dict_of(m, n);
    case QGC_NODE_ATTRIBUTE:
        a = evaluate(m, n->a);
        m->node = n;
        return m->failed ? a : qgc_jinja_attribute(m, a, n->constant);
    case QGC_NODE_ITEM:
    case QGC_NODE_BINARY:
        a = evaluate(m, n->a);
        b = evaluate(m, n->b);
        m->node = n;
        return m->failed ? a : n->kind == QGC_NODE_ITEM ? qgc_jinja_item(m, a, b) : operate(m, n->sign, a, b);
    case QGC_NODE_SLICE:
        return slice(m, n);
    case QGC_NODE_CALL:
        return call(m, n);
    case QGC_NODE_FILTER:
        return filter(m, n);
    case QGC_NODE_TEST:
        return test(m, n);
    case QGC_NODE_COMPARE:
        return comparison(m, n);
    case QGC_NODE_NOT:
        a = evaluate(m, n->a);
        return qgc_jinja_boolean(!qgc_jinja_true(a));
    case QGC_NODE_NEGATIVE:
        a = evaluate(m, n->a);
        return negative(m, a);
    case QGC_NODE_POSITIVE:
        a = evaluate(m, n->a);
        return positive(m, a);
    case QGC_NODE_AND:
    case QGC_NODE_OR:
    case QGC_NODE_CHOICE:
        return choose(m, n);
    case QGC_NODE_DATA:
    case QGC_NODE_PRINT:
    case QGC_NODE_IF:
    case QGC_NODE_BLOCK:
    case QGC_NODE_FOR:
    case QGC_NODE_SET:
    case QGC_NODE_SET_BLOCK:
    case QGC_NODE_MACRO:
    case QGC_NODE_BREAK:
    case QGC_NODE_CONTINUE:
        break;
    }
    return qgc_jinja_fail(m, "a statement is no expression");
}

static value evaluate(machine *m, const qgc_node *n) {
    const qgc_node *before = m->node;
    m->node = n;
    if (!qgc_jinja_spend(m, 1))
        return qgc_jinja_undefined(NULL);
    if (++m->depth > QGC_MOST_CALLS)
        return qgc_jinja_fail(m, "calls and expressions are nested more than %d deep", QGC_MOST_CALLS);
    const value v = evaluate_kind(m, n);
    m->depth--;
    m->node = before;
    return v;
}

/* --- statements ---------------------------------------------------------------------------------------------- */

static void print(machine *m, qgc_jinja_text text) {
    if (qgc_jinja_spend(m, text.n))
        qgc_jinja_add(m->out, text.c, text.n);
}

/* Several names take the items of a list one by one. */
static void assign(machine *m, const qgc_node *target, value v) {
    if (m->failed)
        return;
    if (target->kind == QGC_NODE_NAME) {
        set(m, target->name, v);
        return;
    }
    m->node = target;
    if (target->kind == QGC_NODE_ATTRIBUTE) {
        const value of = find_name(m, target->a->name);
        if (of.kind == QGC_JINJA_DICT && of.dict->is_namespace)
            qgc_jinja_dict_set(of, target->constant, v);
        else
            (void)qgc_jinja_fail(m, "\"%s\" of %s is set, which only a namespace has", target->name,
                                 qgc_jinja_kind_name(of));
        return;
    }
    const qgc_jinja_list list = qgc_jinja_iterate(m, v);
    size_t i = 0;
    for (const qgc_node *name = target->first; name && i < list.n && !m->failed; name = name->next, i++) {
        assign(m, name, list.items[i]);
        if (!name->next && i + 1 == list.n)
            return;
    }
    (void)qgc_jinja_fail(m, "%zu values are given to another number of names", list.n);
}

/* The items that the condition of the loop lets through. */
static qgc_jinja_list loop_items(machine *m, const qgc_node *n) {
    const value of = evaluate(m, n->b);
    m->node = n->b;
    qgc_jinja_list list = {.arena = m->arena};
    if (!m->failed)
        list = qgc_jinja_iterate(m, of);
    size_t kept = 0;
    for (size_t i = 0; n->c && i < list.n && !m->failed; i++) {
        qgc_jinja_scope *before = enter(m, m->scope);
        assign(m, n->a, list.items[i]);
        const value passed = m->failed ? of : evaluate(m, n->c);
        if (qgc_jinja_true(passed))
            list.items[kept++] = list.items[i];
        m->scope = before;
    }
    list.n = n->c ? kept : list.n;
    return list;
}

static void run_for(machine *m, const qgc_node *n) {
    const qgc_jinja_list list = loop_items(m, n);
    qgc_jinja_loop *loop = qgc_arena_alloc(m->arena, sizeof *loop);
    *loop = (qgc_jinja_loop){.items = list.items, .n = list.n, .depth = 1};
    m->loops++;
    for (; loop->index < list.n && !m->failed && m->flow != QGC_BREAK; loop->index++) {
        m->flow = QGC_GO_ON;
        qgc_jinja_scope *before = enter(m, m->scope);
        set(m, "loop", (value){.kind = QGC_JINJA_LOOP, .loop = loop});
        assign(m, n->a, list.items[loop->index]);
        run_nodes(m, n->first);
        m->scope = before;
    }
    m->loops--;
    m->flow = QGC_GO_ON;
    if (list.n == 0)
        run_nodes(m, n->otherwise);
}

static void run_if(machine *m, const qgc_node *n) {
    for (; n && n->kind == QGC_NODE_IF && !m->failed; n = n->b) {
        const value condition = evaluate(m, n->a);
        if (!m->failed && qgc_jinja_true(condition)) {
            run_nodes(m, n->first);
            return;
        }
    }
    if (n && !m->failed)
        run_nodes(m, n->first);
}

static void define_macro(machine *m, const qgc_node *n) {
    qgc_jinja_macro *macro = qgc_arena_alloc(m->arena, sizeof *macro);
    *macro = (qgc_jinja_macro){n, m->scope};
    set(m, n->name, (value){.kind = QGC_JINJA_MACRO, .macro = macro});
}

static void set_block(machine *m, const qgc_node *n) {
    qgc_jinja_scope *before = enter(m, m->scope);
    const value text = capture(m, n->first);
    m->scope = before;
    assign(m, n->a, text);
}

static void jump(machine *m, const qgc_node *n) {
    if (m->loops == 0)
        (void)qgc_jinja_fail(m, "a loop is left outside of one");
    m->flow = n->kind == QGC_NODE_BREAK ? QGC_BREAK : QGC_CONTINUE;
}

static void run_block(machine *m, const qgc_node *n) {
    qgc_jinja_scope *before = n->flag ? enter(m, m->scope) : m->scope;
    run_nodes(m, n->first);
    m->scope = before;
}

static void run(machine *m, const qgc_node *n) {
    value v;
    m->node = n;
    if (n->kind == QGC_NODE_DATA) {
        print(m, n->constant.text);
    } else if (n->kind == QGC_NODE_PRINT) {
        v = evaluate(m, n->a);
        if (!m->failed)
            print(m, qgc_jinja_string(m, v));
    } else if (n->kind == QGC_NODE_IF) {
        run_if(m, n);
    } else if (n->kind == QGC_NODE_BLOCK) {
        run_block(m, n);
    } else if (n->kind == QGC_NODE_FOR) {
        run_for(m, n);
    } else if (n->kind == QGC_NODE_SET) {
        v = evaluate(m, n->b);
        assign(m, n->a, v);
    } else if (n->kind == QGC_NODE_SET_BLOCK) {
        set_block(m, n);
    } else if (n->kind == QGC_NODE_MACRO) {
        define_macro(m, n);
    } else
        jump(m, n);
}

static void run_nodes(machine *m, const qgc_node *n) {
    if (++m->depth > QGC_MOST_CALLS)
        (void)qgc_jinja_fail(m, "statements and calls are nested more than %d deep", QGC_MOST_CALLS);
    for (; n && !m->failed && m->flow == QGC_GO_ON && qgc_jinja_spend(m, 1); n = n->next)
        run(m, n);
    m->depth--;
}

/* Letters of all texts in a value. */
static size_t count_letters(value v, int depth) {
    size_t n = 0;
    if (v.kind == QGC_JINJA_TEXT)
        n = v.text.n;
    for (size_t i = 0; v.kind == QGC_JINJA_LIST && i < v.list->n && depth > 0; i++)
        n += count_letters(v.list->items[i], depth - 1);
    for (size_t i = 0; v.kind == QGC_JINJA_DICT && i < v.dict->n && depth > 0; i++)
        n += count_letters(v.dict->pairs[i].value, depth - 1);
    return n;
}

qgc_status qgc_jinja_render(const qgc_jinja *t, qgc_jinja_value variables, const struct tm *now,
                            qgc_jinja_text *out, qgc_arena *arena, qgc_diag *d) {
    enum { DEEP_ENOUGH = 4 };
    qgc_jinja_builder text = {.arena = arena};
    machine m = {.arena = arena, .d = d, .t = t, .out = &text, .variables = variables, .now = now};
    m.fuel = STEPS + STEPS_A_LETTER * (int64_t)count_letters(variables, DEEP_ENOUGH);
    (void)enter(&m, NULL);
    run_nodes(&m, t->first);
    *out = qgc_jinja_built(&text).text;
    return m.failed ? d->status : QGC_OK;
}
