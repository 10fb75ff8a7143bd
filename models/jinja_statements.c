#include <string.h>

#include "graph/base/utf8.h"
#include "models/jinja_impl.h"

/* Statements: a body is text and blocks, up to a statement that ends it. */

enum { MOST_DEPTH = 60, MOST_TEMPLATE = 1 << 20 };

static qgc_node *parse_body(qgc_jinja_parser *p, const char *const *ends);

static void expect_end(qgc_jinja_parser *p) {
    if (p->word.kind != QGC_WORD_END)
        qgc_jinja_fault(p, p->word.at, "expected the end of the block, found \"%.*s\"",
                        (int)(p->word.bytes < 40 ? p->word.bytes : 40), p->word.at);
}

static void expect_word(qgc_jinja_parser *p, const char *word) {
    if (!qgc_jinja_take(p, word) && !p->failed)
        qgc_jinja_fault(p, p->word.at, "expected \"%s\"", word);
}

static void end_statement(qgc_jinja_parser *p, const char *word) {
    expect_word(p, word);
    expect_end(p);
}

static qgc_node *parse_if(qgc_jinja_parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    qgc_node *first = qgc_jinja_node(p, QGC_NODE_IF), *n = first;
    for (;;) {
        n->a = qgc_jinja_tuple(p, false);
        expect_end(p);
        n->first = parse_body(p, ends);
        if (p->failed || !qgc_jinja_take(p, "elif"))
            break;
        n->b = qgc_jinja_node(p, QGC_NODE_IF);
        n = n->b;
    }
    if (qgc_jinja_take(p, "else")) {
        expect_end(p);
        n->b = qgc_jinja_node(p, QGC_NODE_BLOCK);
        n->b->first = parse_body(p, last);
    }
    end_statement(p, "endif");
    return first;
}

static qgc_node *parse_for(qgc_jinja_parser *p) {
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_FOR);
    n->a = qgc_jinja_target(p);
    expect_word(p, "in");
    n->b = qgc_jinja_tuple(p, false);
    if (qgc_jinja_take(p, "if"))
        n->c = qgc_jinja_expression(p);
    if (qgc_jinja_at(p, "recursive"))
        qgc_jinja_fault(p, p->word.at, "recursive loops are not supported");
    expect_end(p);
    n->first = parse_body(p, ends);
    if (qgc_jinja_take(p, "else")) {
        expect_end(p);
        n->otherwise = parse_body(p, last);
    }
    end_statement(p, "endfor");
    return n;
}

static qgc_node *parse_set(qgc_jinja_parser *p) {
    static const char *const ends[] = {"endset", NULL};
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_SET);
    n->a = qgc_jinja_target(p);
    if (qgc_jinja_take(p, "=")) {
        n->b = qgc_jinja_tuple(p, true);
        expect_end(p);
        return n;
    }
    n->kind = QGC_NODE_SET_BLOCK;
    expect_end(p);
    n->first = parse_body(p, ends);
    end_statement(p, "endset");
    return n;
}

static qgc_node *parse_macro(qgc_jinja_parser *p) {
    static const char *const ends[] = {"endmacro", NULL};
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_MACRO);
    n->name = qgc_jinja_name(p);
    expect_word(p, "(");
    qgc_node **last = &n->a;
    int n_parameters = 0;
    while (!p->failed && !qgc_jinja_at(p, ")")) {
        qgc_node *parameter = *last = qgc_jinja_node(p, QGC_NODE_NAME);
        last = &parameter->next;
        parameter->name = qgc_jinja_name(p);
        if (qgc_jinja_take(p, "="))
            parameter->a = qgc_jinja_expression(p);
        if (++n_parameters > QGC_MOST_ARGUMENTS)
            qgc_jinja_fault(p, parameter->at, "a macro has more than %d parameters", QGC_MOST_ARGUMENTS);
        if (!qgc_jinja_at(p, ")"))
            expect_word(p, ",");
    }
    expect_word(p, ")");
    expect_end(p);
    n->first = parse_body(p, ends);
    expect_word(p, "endmacro");
    if (p->word.kind == QGC_WORD_NAME) /* it may be said again */
        qgc_jinja_next_word(p);
    expect_end(p);
    return n;
}

/* What transformers marks as made by the model; it prints the same. What is set in it is forgotten after it. */
static qgc_node *parse_generation(qgc_jinja_parser *p) {
    static const char *const ends[] = {"endgeneration", NULL};
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_BLOCK);
    n->flag = true;
    expect_end(p);
    n->first = parse_body(p, ends);
    end_statement(p, "endgeneration");
    return n;
}

static qgc_node *parse_jump(qgc_jinja_parser *p, qgc_node_kind kind) {
    qgc_node *n = qgc_jinja_node(p, kind);
    expect_end(p);
    return n;
}

static qgc_node *parse_statement(qgc_jinja_parser *p) {
    const qgc_word word = p->word;
    if (qgc_jinja_take(p, "if"))
        return parse_if(p);
    if (qgc_jinja_take(p, "for"))
        return parse_for(p);
    if (qgc_jinja_take(p, "set"))
        return parse_set(p);
    if (qgc_jinja_take(p, "macro"))
        return parse_macro(p);
    if (qgc_jinja_take(p, "generation"))
        return parse_generation(p);
    if (qgc_jinja_take(p, "break"))
        return parse_jump(p, QGC_NODE_BREAK);
    if (qgc_jinja_take(p, "continue"))
        return parse_jump(p, QGC_NODE_CONTINUE);
    qgc_jinja_fault(p, word.at, "statement \"%.*s\" is not supported here",
                    (int)(word.bytes < 40 ? word.bytes : 40), word.at);
    return NULL;
}

static qgc_node *parse_print(qgc_jinja_parser *p) {
    qgc_node *n = qgc_jinja_node(p, QGC_NODE_PRINT);
    n->a = qgc_jinja_tuple(p, true);
    expect_end(p);
    return n;
}

static bool ends_here(const qgc_jinja_parser *p, const char *const *ends) {
    bool found = false;
    for (; p->block == '%' && *ends && !found; ends++)
        found = qgc_jinja_at(p, *ends);
    return found;
}

static const char *last_of(const char *const *words) {
    while (words[1])
        words++;
    return *words;
}

static qgc_node *parse_body(qgc_jinja_parser *p, const char *const *ends) {
    qgc_node *first = NULL, **last = &first;
    const char *start = p->p;
    if (++p->depth > MOST_DEPTH)
        qgc_jinja_fault(p, p->p, "statements are nested more than %d deep", MOST_DEPTH);
    while (!p->failed) {
        qgc_node *data = qgc_jinja_node(p, QGC_NODE_DATA);
        data->constant = qgc_jinja_read_data(p);
        *last = data;
        last = &data->next;
        if (p->failed || ends_here(p, ends))
            break;
        if (!p->block && *ends)
            qgc_jinja_fault(p, start, "the template ends before \"%s\"", last_of(ends));
        if (!p->block)
            break;
        qgc_node *n = p->block == '{' ? parse_print(p) : parse_statement(p);
        if (n)
            last = &(*last = n)->next;
    }
    p->depth--;
    return first;
}

/* Newlines become \n, and one at the end goes, as in Jinja. */
static qgc_source with_newlines(const qgc_source *s, qgc_arena *arena) {
    char *text = qgc_arena_alloc(arena, s->bytes + 1);
    size_t n = 0;
    for (size_t i = 0; i < s->bytes; i++) {
        if (s->text[i] != '\r')
            text[n++] = s->text[i];
        else if (i + 1 == s->bytes || s->text[i + 1] != '\n')
            text[n++] = '\n';
    }
    n -= n > 0 && text[n - 1] == '\n';
    text[n] = 0;
    return (qgc_source){s->name, text, n};
}

qgc_status qgc_jinja_parse(qgc_jinja **out, const qgc_source *text, qgc_arena *arena, qgc_diag *d) {
    static const char *const none[] = {NULL};
    const qgc_loc at = {.source = &(const qgc_source){.name = text->name}};
    *out = NULL;
    if (text->bytes > MOST_TEMPLATE)
        return qgc_fail(d, QGC_ERR_INPUT, at, "chat template has %zu bytes, at most %d are supported",
                        text->bytes, MOST_TEMPLATE);
    if (qgc_utf8_check(text->text, text->bytes) < text->bytes || memchr(text->text, 0, text->bytes))
        return qgc_fail(d, QGC_ERR_INPUT, at, "chat template is not UTF-8 text");
    qgc_jinja *t = qgc_arena_alloc(arena, sizeof *t);
    t->source = with_newlines(text, arena);
    qgc_jinja_parser p = {.arena = arena,
                          .d = d,
                          .source = &t->source,
                          .p = t->source.text,
                          .end = t->source.text + t->source.bytes,
                          .line_starts = true,
                          .out = t};
    t->first = parse_body(&p, none);
    if (p.failed)
        return d->status;
    *out = t;
    return QGC_OK;
}

bool qgc_jinja_names(const qgc_jinja *t, const char *name) {
    for (size_t i = 0; i < t->n_names; i++)
        if (strcmp(t->names[i], name) == 0)
            return true;
    return false;
}
