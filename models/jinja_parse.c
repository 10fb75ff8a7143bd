#include <string.h>

#include "models/jinja_impl.h"

/* Expressions, from the weakest tie to the strongest:
 *
 *   a if b else c | or | and | not | == != < <= > >= in | + - | ~ | * / // % | ** | - + | .name [item] (call) | filter, is */

enum { MOST_DEPTH = 200 };

qgc_node *qgc_jinja_node(qgc_jinja_parser *p, qgc_node_kind kind) {
    qgc_node *n = qgc_arena_alloc(p->arena, sizeof *n);
    n->kind = kind;
    n->at = p->word.at;
    return n;
}

static qgc_node *join(qgc_jinja_parser *p, qgc_node_kind kind, qgc_node *a, qgc_node *b) {
    qgc_node *n = qgc_jinja_node(p, kind);
    n->at = a->at;
    n->a = a;
    n->b = b;
    return n;
}

static void expect(qgc_jinja_parser *p, const char *sign) {
    if (!qgc_jinja_take(p, sign) && !p->failed)
        qgc_jinja_fault(p, p->word.at, "expected \"%s\"", sign);
}

static qgc_node *unexpected(qgc_jinja_parser *p) {
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_CONSTANT);
    if (p->word.kind == QGC_WORD_END)
        qgc_jinja_fault(p, p->word.at, "expected an expression, and the block ends");
    else
        qgc_jinja_fault(p, p->word.at, "expected an expression, found \"%.*s\"",
                        (int)(p->word.bytes < 40 ? p->word.bytes : 40), p->word.at);
    return n;
}

const char *qgc_jinja_name(qgc_jinja_parser *p) {
    const char *name = "";
    if (p->word.kind == QGC_WORD_NAME)
        name = qgc_arena_strndup(p->arena, p->word.at, p->word.bytes);
    else
        qgc_jinja_fault(p, p->word.at, "expected a name");
    qgc_jinja_next_word(p);
    return name;
}

static void note_name(qgc_jinja_parser *p, const char *name) {
    p->out->names = qgc_arena_grow(p->arena, (void *)p->out->names, p->out->n_names, sizeof *p->out->names);
    p->out->names[p->out->n_names++] = name;
}

/* --- atoms --------------------------------------------------------------------------------------------------- */

static qgc_node *constant(qgc_jinja_parser *p, qgc_jinja_value v) {
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_CONSTANT);
    n->constant = v;
    return n;
}

static qgc_node *name_or_constant(qgc_jinja_parser *p) {
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    for (size_t i = 0; i < 6; i++) {
        if (!qgc_jinja_at(p, words[i]))
            continue;
        qgc_node *n =
            constant(p, i < 4 ? qgc_jinja_boolean(i < 2) : (qgc_jinja_value){.kind = QGC_JINJA_NONE});
        qgc_jinja_next_word(p);
        return n;
    }
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_NAME);
    n->name = qgc_jinja_name(p);
    note_name(p, n->name);
    return n;
}

/* Literals in a row are one. */
static qgc_node *literal(qgc_jinja_parser *p) {
    qgc_node *n = constant(p, p->word.value);
    qgc_jinja_next_word(p);
    while (p->word.kind == QGC_WORD_TEXT) {
        qgc_jinja_builder b = {.arena = p->arena};
        qgc_jinja_add(&b, n->constant.text.c, n->constant.text.n);
        qgc_jinja_add(&b, p->word.value.text.c, p->word.value.text.n);
        n->constant = qgc_jinja_built(&b);
        qgc_jinja_next_word(p);
    }
    return n;
}

/* Items up to the closing bracket. */
static void items(qgc_jinja_parser *p, qgc_node *of, const char *close) {
    qgc_node **last = &of->first;
    while (!p->failed && !qgc_jinja_at(p, close)) {
        *last = qgc_jinja_expression(p);
        last = &(*last)->next;
        if (of->kind == QGC_NODE_DICT) {
            expect(p, ":");
            *last = qgc_jinja_expression(p);
            last = &(*last)->next;
        }
        if (!qgc_jinja_at(p, close))
            expect(p, ",");
    }
    expect(p, close);
}

static qgc_node *atom(qgc_jinja_parser *p) {
    if (p->word.kind == QGC_WORD_NAME)
        return name_or_constant(p);
    if (p->word.kind == QGC_WORD_TEXT)
        return literal(p);
    if (p->word.kind == QGC_WORD_NUMBER) {
        qgc_node *n = constant(p, p->word.value);
        qgc_jinja_next_word(p);
        return n;
    }
    const bool list = qgc_jinja_at(p, "["), dict = qgc_jinja_at(p, "{");
    if (list || dict) {
        qgc_node *n = qgc_jinja_node(p, list ? QGC_NODE_LIST : QGC_NODE_DICT);
        qgc_jinja_next_word(p);
        items(p, n, list ? "]" : "}");
        return n;
    }
    if (!qgc_jinja_take(p, "("))
        return unexpected(p);
    qgc_node *n = qgc_jinja_at(p, ")") ? qgc_jinja_node(p, QGC_NODE_TUPLE) : qgc_jinja_tuple(p, true);
    expect(p, ")");
    return n;
}

/* --- what comes after an atom -------------------------------------------------------------------------------- */

/* The arguments of a call, past its bracket. */
static void arguments(qgc_jinja_parser *p, qgc_node *of) {
    qgc_node **last = &of->first;
    int n = 0;
    while (!p->failed && !qgc_jinja_at(p, ")")) {
        const char *at = p->word.at;
        const char *name = NULL;
        if (qgc_jinja_at(p, "*") || qgc_jinja_at(p, "**"))
            qgc_jinja_fault(p, at, "arguments given by * are not supported");
        qgc_node *value = qgc_jinja_expression(p);
        if (value->kind == QGC_NODE_NAME && qgc_jinja_take(p, "=")) {
            name = value->name;
            value = qgc_jinja_expression(p);
        }
        qgc_node *argument = qgc_jinja_node(p, QGC_NODE_CALL); /* a wrapper, as a value may be one already */
        *argument = (qgc_node){.at = at, .name = name, .a = value};
        *last = argument;
        last = &argument->next;
        if (++n > QGC_MOST_ARGUMENTS)
            qgc_jinja_fault(p, at, "a call has more than %d arguments", QGC_MOST_ARGUMENTS);
        if (!qgc_jinja_at(p, ")"))
            expect(p, ",");
    }
    expect(p, ")");
}

static qgc_node *call(qgc_jinja_parser *p, qgc_node *a) {
    qgc_node *n = join(p, QGC_NODE_CALL, a, NULL);
    expect(p, "(");
    arguments(p, n);
    return n;
}

/* One bound of a slice, or none. */
static qgc_node *bound(qgc_jinja_parser *p) {
    const bool missing = qgc_jinja_at(p, ":") || qgc_jinja_at(p, "]");
    return missing ? constant(p, (qgc_jinja_value){.kind = QGC_JINJA_NONE}) : qgc_jinja_expression(p);
}

static qgc_node *subscript(qgc_jinja_parser *p, qgc_node *a) {
    qgc_node *n = join(p, QGC_NODE_ITEM, a, NULL);
    if (!qgc_jinja_at(p, ":")) {
        n->b = qgc_jinja_tuple(p, true);
        if (qgc_jinja_take(p, "]"))
            return n;
    }
    n->kind = QGC_NODE_SLICE;
    n->first = n->b ? n->b : bound(p);
    n->b = NULL;
    expect(p, ":");
    n->first->next = bound(p);
    qgc_node *step =
        qgc_jinja_take(p, ":") ? bound(p) : constant(p, (qgc_jinja_value){.kind = QGC_JINJA_NONE});
    n->first->next->next = step;
    expect(p, "]");
    return n;
}

static qgc_node *member(qgc_jinja_parser *p, qgc_node *a) {
    qgc_node *n = join(p, QGC_NODE_ATTRIBUTE, a, NULL);
    if (p->word.kind == QGC_WORD_NUMBER) { /* list.0 */
        n->kind = QGC_NODE_ITEM;
        n->b = atom(p);
        return n;
    }
    n->name = qgc_jinja_name(p);
    n->constant = qgc_jinja_ascii(p->arena, n->name);
    return n;
}

static qgc_node *postfix(qgc_jinja_parser *p, qgc_node *n) {
    while (!p->failed) {
        if (qgc_jinja_take(p, "."))
            n = member(p, n);
        else if (qgc_jinja_take(p, "["))
            n = subscript(p, n);
        else if (qgc_jinja_at(p, "("))
            n = call(p, n);
        else
            break;
    }
    return n;
}

static qgc_node *filter(qgc_jinja_parser *p, qgc_node *a) {
    qgc_node *n = join(p, QGC_NODE_FILTER, a, NULL);
    n->at = p->word.at;
    n->name = qgc_jinja_name(p);
    if (qgc_jinja_take(p, "("))
        arguments(p, n);
    return n;
}

/* Does what is at hand start the argument of a test that is written without brackets? */
static bool has_argument(const qgc_jinja_parser *p) {
    if (p->word.kind == QGC_WORD_NAME)
        return !qgc_jinja_at(p, "else") && !qgc_jinja_at(p, "or") && !qgc_jinja_at(p, "and");
    return p->word.kind == QGC_WORD_TEXT || p->word.kind == QGC_WORD_NUMBER || qgc_jinja_at(p, "[") ||
           qgc_jinja_at(p, "{");
}

static qgc_node *test(qgc_jinja_parser *p, qgc_node *a) {
    qgc_node *n = join(p, QGC_NODE_TEST, a, NULL);
    n->flag = qgc_jinja_take(p, "not");
    n->at = p->word.at;
    n->name = qgc_jinja_name(p);
    if (qgc_jinja_take(p, "(")) {
        arguments(p, n);
    } else if (has_argument(p)) {
        if (qgc_jinja_at(p, "is"))
            qgc_jinja_fault(p, p->word.at, "tests cannot be chained by is");
        qgc_node *argument = qgc_jinja_node(p, QGC_NODE_CALL);
        argument->a = postfix(p, atom(p));
        n->first = argument;
    }
    return n;
}

static qgc_node *filters(qgc_jinja_parser *p, qgc_node *n) {
    while (!p->failed) {
        if (qgc_jinja_take(p, "|"))
            n = filter(p, n);
        else if (qgc_jinja_take(p, "is"))
            n = test(p, n);
        else if (qgc_jinja_at(p, "("))
            n = call(p, n);
        else
            break;
    }
    return n;
}

/* --- operators ----------------------------------------------------------------------------------------------- */

static qgc_node *unary(qgc_jinja_parser *p, bool with_filters) {
    qgc_node *n;
    const bool minus = qgc_jinja_at(p, "-");
    if (++p->depth > MOST_DEPTH)
        qgc_jinja_fault(p, p->word.at, "expressions are nested more than %d deep", MOST_DEPTH);
    if (minus || qgc_jinja_at(p, "+")) {
        n = qgc_jinja_node(p, minus ? QGC_NODE_NEGATIVE : QGC_NODE_POSITIVE);
        qgc_jinja_next_word(p);
        n->a = unary(p, false);
    } else
        n = atom(p);
    n = postfix(p, n);
    p->depth--;
    return with_filters ? filters(p, n) : n;
}

typedef struct {
    const char *word;
    qgc_sign sign;
} sign_row;

/* Levels of binary operators, the weakest first. */
static const sign_row levels[][4] = {
    {{"+", QGC_SIGN_ADD}, {"-", QGC_SIGN_SUBTRACT}, {NULL, QGC_SIGN_NONE}},
    {{"~", QGC_SIGN_JOIN}, {NULL, QGC_SIGN_NONE}},
    {{"*", QGC_SIGN_MULTIPLY}, {"/", QGC_SIGN_DIVIDE}, {"//", QGC_SIGN_FLOOR}, {"%", QGC_SIGN_MODULO}},
    {{"**", QGC_SIGN_POWER}, {NULL, QGC_SIGN_NONE}},
};
enum { N_LEVELS = sizeof levels / sizeof *levels };

static qgc_sign take_level(qgc_jinja_parser *p, int level) {
    for (int i = 0; i < 4 && levels[level][i].word; i++)
        if (qgc_jinja_take(p, levels[level][i].word))
            return levels[level][i].sign;
    return QGC_SIGN_NONE;
}

static qgc_node *binary(qgc_jinja_parser *p, int level) {
    if (level == N_LEVELS)
        return unary(p, true);
    qgc_node *n = binary(p, level + 1);
    for (qgc_sign sign; !p->failed && (sign = take_level(p, level)) != QGC_SIGN_NONE;) {
        n = join(p, QGC_NODE_BINARY, n, binary(p, level + 1));
        n->sign = sign;
    }
    return n;
}

static qgc_sign take_comparison(qgc_jinja_parser *p) {
    static const sign_row rows[] = {{"==", QGC_SIGN_EQUAL},  {"!=", QGC_SIGN_UNEQUAL},
                                    {"<", QGC_SIGN_LESS},    {"<=", QGC_SIGN_LESS_EQUAL},
                                    {">", QGC_SIGN_GREATER}, {">=", QGC_SIGN_GREATER_EQUAL},
                                    {"in", QGC_SIGN_IN}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (qgc_jinja_take(p, rows[i].word))
            return rows[i].sign;
    if (!qgc_jinja_take(p, "not"))
        return QGC_SIGN_NONE;
    expect(p, "in");
    return QGC_SIGN_NOT_IN;
}

static qgc_node *comparison(qgc_jinja_parser *p) {
    qgc_node *n = binary(p, 0);
    qgc_node **last = NULL;
    for (qgc_sign sign; !p->failed && (sign = take_comparison(p)) != QGC_SIGN_NONE;) {
        if (!last) {
            n = join(p, QGC_NODE_COMPARE, n, NULL);
            last = &n->first;
        }
        qgc_node *operand = qgc_jinja_node(p, QGC_NODE_COMPARE); /* a wrapper, for its sign */
        operand->sign = sign;
        operand->a = binary(p, 0);
        *last = operand;
        last = &operand->next;
    }
    return n;
}

static qgc_node *negation(qgc_jinja_parser *p) {
    if (!qgc_jinja_at(p, "not"))
        return comparison(p);
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_NOT);
    if (++p->depth > MOST_DEPTH)
        qgc_jinja_fault(p, p->word.at, "expressions are nested more than %d deep", MOST_DEPTH);
    qgc_jinja_next_word(p);
    n->a = negation(p);
    p->depth--;
    return n;
}

static qgc_node *conjunction(qgc_jinja_parser *p) {
    qgc_node *n = negation(p);
    while (qgc_jinja_take(p, "and"))
        n = join(p, QGC_NODE_AND, n, negation(p));
    return n;
}

static qgc_node *disjunction(qgc_jinja_parser *p) {
    qgc_node *n = conjunction(p);
    while (qgc_jinja_take(p, "or"))
        n = join(p, QGC_NODE_OR, n, conjunction(p));
    return n;
}

qgc_node *qgc_jinja_expression(qgc_jinja_parser *p) {
    if (++p->depth > MOST_DEPTH) {
        qgc_jinja_fault(p, p->word.at, "expressions are nested more than %d deep", MOST_DEPTH);
        return qgc_jinja_node(p, QGC_NODE_CONSTANT);
    }
    qgc_node *n = disjunction(p);
    while (qgc_jinja_take(p, "if")) {
        n = join(p, QGC_NODE_CHOICE, n, disjunction(p));
        if (qgc_jinja_take(p, "else"))
            n->c = qgc_jinja_expression(p);
    }
    p->depth--;
    return n;
}

/* Ends a row of expressions? */
static bool row_ends(const qgc_jinja_parser *p) {
    return p->word.kind == QGC_WORD_END || qgc_jinja_at(p, ")") || qgc_jinja_at(p, "]") ||
           qgc_jinja_at(p, "=") || qgc_jinja_at(p, "in");
}

qgc_node *qgc_jinja_tuple(qgc_jinja_parser *p, bool choice) {
    qgc_node *n = choice ? qgc_jinja_expression(p) : disjunction(p);
    if (!qgc_jinja_at(p, ","))
        return n;
    qgc_node *tuple = qgc_jinja_node(p, QGC_NODE_TUPLE);
    tuple->first = n;
    while (!p->failed && qgc_jinja_take(p, ",") && !row_ends(p)) {
        n->next = choice ? qgc_jinja_expression(p) : disjunction(p);
        n = n->next;
    }
    return tuple;
}

static qgc_node *one_target(qgc_jinja_parser *p) {
    if (qgc_jinja_take(p, "(")) {
        qgc_node *n = qgc_jinja_target(p);
        expect(p, ")");
        return n;
    }
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_NAME);
    n->name = qgc_jinja_name(p);
    return qgc_jinja_take(p, ".") ? member(p, n) : n;
}

qgc_node *qgc_jinja_target(qgc_jinja_parser *p) {
    if (++p->depth > MOST_DEPTH)
        qgc_jinja_fault(p, p->word.at, "names are nested more than %d deep", MOST_DEPTH);
    qgc_node *n = one_target(p);
    p->depth--;
    if (!qgc_jinja_at(p, ","))
        return n;
    qgc_node *tuple = qgc_jinja_node(p, QGC_NODE_TUPLE);
    tuple->first = n;
    while (!p->failed && qgc_jinja_take(p, ",") && !row_ends(p)) {
        n->next = one_target(p);
        n = n->next;
    }
    return tuple;
}
