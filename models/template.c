#include "models/template.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef enum { UNDEFINED, BOOLEAN, NUMBER, TEXT, MESSAGE, MESSAGES, LOOP } value_kind;

typedef struct {
    value_kind kind;
    double number;    /* of a boolean 0 or 1, of a message its index */
    const char *text; /* ended by a zero byte */
} value;

enum { MOST_NAMES = 32, MOST_DEPTH = 64, MOST_TEXT = 1 << 16 };

typedef struct {
    const char *p;   /* in the outline */
    const char *why; /* it cannot go on; NULL */
    int depth;       /* of blocks and brackets */
    int iteration;   /* of the loop; -1 outside */
    const qgc_message *messages;
    int n;
    struct {
        const char *name;
        value v;
    } names[MOST_NAMES];
    int n_names;
    qgc_str *out;
} machine;

static value refuse(machine *m) {
    if (!m->why)
        m->why = qgc_arena_printf(m->out->arena, "it has code that is not understood at \"%.40s\"", m->p);
    return (value){UNDEFINED, 0, NULL};
}

static value boolean(bool yes) {
    return (value){BOOLEAN, yes, NULL};
}

static bool is_true(const value *v) {
    return v->kind == TEXT ? v->text[0] != 0 : v->kind >= MESSAGE || (v->kind != UNDEFINED && v->number != 0);
}

/* --- words ----------------------------------------------------------------------------------------------- */

static bool in_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

/* Takes the word or the sign at the cursor if it is this one. */
static bool take(machine *m, const char *what) {
    const char *p = m->p + (*m->p == ' ');
    const size_t length = strlen(what);
    if (strncmp(p, what, length) != 0 || (in_word(what[length - 1]) && in_word(p[length])))
        return false;
    m->p = p + length;
    return true;
}

static const char *take_word(machine *m) {
    m->p += *m->p == ' ';
    const char *start = m->p;
    while (in_word(*m->p))
        m->p++;
    return qgc_arena_strndup(m->out->arena, start, (size_t)(m->p - start));
}

char qgc_template_escaped(char letter) {
    switch (letter) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    default:
        return letter;
    }
}

/* A literal in its quotes. */
static value take_text(machine *m) {
    qgc_str s = qgc_str_new(m->out->arena);
    const char quote = *m->p++;
    for (; *m->p && *m->p != quote; m->p++) {
        char c = *m->p;
        if (c == '\\' && m->p[1]) {
            m->p++;
            c = qgc_template_escaped(*m->p);
        }
        qgc_str_add_bytes(&s, &c, 1);
    }
    if (*m->p != quote)
        return refuse(m);
    m->p++;
    return (value){TEXT, 0, s.text};
}

/* An operand that does not count is not looked at: up to the end of the expression, a bracket that closes it, or, after
 * `and`, the next `or`. */
static void skip_operand(machine *m, bool after_and) {
    int depth = 0;
    for (char quote = 0; (unsigned char)*m->p > QGC_END_STATEMENT; m->p++) {
        if (quote) {
            m->p += *m->p == '\\' && m->p[1];
            if (*m->p == quote)
                quote = 0;
            continue;
        }
        if (*m->p == '\'' || *m->p == '"')
            quote = *m->p;
        depth += strchr("([{", *m->p) != NULL;
        depth -= strchr(")]}", *m->p) != NULL;
        if (depth < 0 || (depth == 0 && after_and && strncmp(m->p, " or ", 4) == 0))
            return;
    }
}

/* --- expressions ----------------------------------------------------------------------------------------- */

static value expression(machine *m);

static value find_name(machine *m, const char *name) {
    for (int i = m->n_names - 1; i >= 0; i--)
        if (strcmp(m->names[i].name, name) == 0)
            return m->names[i].v;
    if (strcmp(name, "messages") == 0)
        return (value){MESSAGES, 0, NULL};
    if (strcmp(name, "loop") == 0 && m->iteration >= 0)
        return (value){LOOP, 0, NULL};
    if (strcmp(name, "bos_token") == 0 || strcmp(name, "eos_token") == 0)
        return refuse(m); /* they are there, and not known here */
    const bool yes =
        strcmp(name, "add_generation_prompt") == 0 || strcmp(name, "true") == 0 || strcmp(name, "True") == 0;
    const bool no = strcmp(name, "false") == 0 || strcmp(name, "False") == 0;
    return yes || no ? boolean(yes) : (value){UNDEFINED, 0, NULL};
}

static value atom(machine *m) {
    m->p += *m->p == ' ';
    if (*m->p == '\'' || *m->p == '"')
        return take_text(m);
    if (isdigit((unsigned char)*m->p) || (*m->p == '-' && isdigit((unsigned char)m->p[1]))) {
        char *end;
        const double number = strtod(m->p, &end);
        m->p = end;
        return (value){NUMBER, number, NULL};
    }
    if (take(m, "(")) {
        value v = ++m->depth < MOST_DEPTH ? expression(m) : refuse(m);
        m->depth--;
        return take(m, ")") ? v : refuse(m);
    }
    if (!in_word(*m->p))
        return refuse(m);
    value v = find_name(m, take_word(m));
    return *m->p == '(' ? refuse(m) : v; /* a call */
}

static value member(machine *m, const value *of, const char *name) {
    if (of->kind == MESSAGE) {
        const qgc_message *message = &m->messages[(int)of->number];
        if (strcmp(name, "role") == 0)
            return (value){TEXT, 0, message->role};
        return strcmp(name, "content") == 0 ? (value){TEXT, 0, message->content}
                                            : (value){UNDEFINED, 0, NULL};
    }
    if (of->kind != LOOP)
        return refuse(m);
    if (strcmp(name, "first") == 0)
        return boolean(m->iteration == 0);
    if (strcmp(name, "last") == 0)
        return boolean(m->iteration == m->n - 1);
    if (strcmp(name, "index0") == 0 || strcmp(name, "index") == 0)
        return (value){NUMBER, m->iteration + (name[5] == 0), NULL};
    return refuse(m);
}

static value postfix(machine *m) {
    value v = atom(m);
    while (!m->why && (*m->p == '.' || *m->p == '[')) {
        if (*m->p++ == '.') {
            v = member(m, &v, take_word(m));
            continue;
        }
        const value index = expression(m);
        const double i = index.number < 0 ? index.number + m->n : index.number;
        if (!take(m, "]") || v.kind != MESSAGES || index.kind != NUMBER || !(i >= 0 && i < m->n) ||
            i != (int)i)
            return refuse(m);
        v = (value){MESSAGE, i, NULL};
    }
    return v;
}

static value sum(machine *m) {
    value v = postfix(m);
    while (!m->why && (take(m, "+") || take(m, "~"))) {
        const value next = postfix(m);
        if (v.kind != TEXT || next.kind != TEXT || strlen(v.text) + strlen(next.text) > MOST_TEXT)
            return refuse(m); /* texts that double and double would fill the memory */
        v.text = qgc_arena_printf(m->out->arena, "%s%s", v.text, next.text);
    }
    return v;
}

static value test(machine *m, const value *v) {
    const bool wanted = !take(m, "not");
    if (take(m, "defined"))
        return boolean((v->kind != UNDEFINED) == wanted);
    if (take(m, "undefined"))
        return boolean((v->kind == UNDEFINED) == wanted);
    if (v->kind != UNDEFINED && take(m, "string"))
        return boolean((v->kind == TEXT) == wanted);
    if (v->kind != UNDEFINED && (take(m, "none") || take(m, "None") || take(m, "mapping")))
        return boolean(!wanted);
    if (v->kind == BOOLEAN && (take(m, "true") || take(m, "false")))
        return boolean(((v->number != 0) == (m->p[-2] == 'u')) == wanted); /* tr-u-e */
    return refuse(m);
}

static bool equal(const value *a, const value *b) {
    if (a->kind == TEXT || b->kind == TEXT)
        return a->kind == b->kind && strcmp(a->text, b->text) == 0;
    return a->kind != UNDEFINED && b->kind != UNDEFINED && a->number == b->number;
}

static value comparison(machine *m) {
    value v = sum(m);
    if (m->why)
        return v;
    if (take(m, "is"))
        return test(m, &v);
    const bool same = take(m, "=="), other = !same && take(m, "!=");
    if (same || other) {
        const value right = sum(m);
        if (v.kind >= MESSAGE || right.kind >= MESSAGE)
            return refuse(m);
        return boolean(equal(&v, &right) == same);
    }
    return v;
}

static value negation(machine *m) {
    bool turned = false, any = false;
    for (; take(m, "not"); any = true)
        turned = !turned;
    value v = comparison(m);
    return any ? boolean(is_true(&v) != turned) : v;
}

static value conjunction(machine *m) {
    value v = negation(m);
    while (!m->why && take(m, "and")) {
        if (is_true(&v))
            v = negation(m);
        else
            skip_operand(m, true);
    }
    return v;
}

static value expression(machine *m) {
    value v = conjunction(m);
    while (!m->why && take(m, "or")) {
        if (is_true(&v))
            skip_operand(m, false);
        else
            v = conjunction(m);
    }
    return v;
}

/* --- statements ------------------------------------------------------------------------------------------ */

static void leave(machine *m, char mark) {
    if (*m->p == mark)
        m->p++;
    else
        refuse(m);
}

static void skip_to(machine *m, char mark) {
    while (*m->p && *m->p != mark)
        m->p++;
    leave(m, mark);
}

static void run_block(machine *m, bool live);

/* Does the statement at the cursor begin with this word? Then the cursor is moved past it. */
static bool at(machine *m, const char *word) {
    const char *before = m->p;
    if (*m->p != QGC_STATEMENT)
        return false;
    m->p++;
    if (take(m, word))
        return true;
    m->p = before;
    return false;
}

static bool condition(machine *m, bool live) {
    bool yes = false;
    if (live) {
        const value v = expression(m);
        yes = is_true(&v);
        leave(m, QGC_END_STATEMENT);
    } else
        skip_to(m, QGC_END_STATEMENT);
    return yes && !m->why;
}

static void run_if(machine *m, bool live) {
    bool taken = condition(m, live);
    run_block(m, live && taken);
    while (!m->why && at(m, "elif")) {
        const bool now = condition(m, live && !taken);
        run_block(m, live && !taken && now);
        taken = taken || now;
    }
    if (!m->why && at(m, "else")) {
        leave(m, QGC_END_STATEMENT);
        run_block(m, live && !taken);
    }
    if (!m->why && !at(m, "endif"))
        refuse(m);
    else
        leave(m, QGC_END_STATEMENT);
}

static void set_name(machine *m, const char *name, value v) {
    if (m->n_names == MOST_NAMES) {
        refuse(m);
        return;
    }
    m->names[m->n_names].name = name;
    m->names[m->n_names++].v = v;
}

/* What is set within an iteration is forgotten after it, as in Jinja. */
static void run_for(machine *m, bool live) {
    const char *name = live ? take_word(m) : "";
    if (live) {
        const value list = take(m, "in") ? expression(m) : refuse(m);
        if (m->why || list.kind != MESSAGES || m->iteration >= 0 || *m->p != QGC_END_STATEMENT) {
            refuse(m);
            return;
        }
    }
    skip_to(m, QGC_END_STATEMENT);
    const char *body = m->p;
    const int n_names = m->n_names;
    for (int i = 0; i < (live ? m->n : 1) && !m->why; i++) {
        m->p = body;
        m->iteration = live ? i : m->iteration;
        if (live)
            set_name(m, name, (value){MESSAGE, i, NULL});
        run_block(m, live);
        m->n_names = n_names;
    }
    m->iteration = live ? -1 : m->iteration;
    if (!m->why && !at(m, "endfor"))
        refuse(m);
    else
        leave(m, QGC_END_STATEMENT);
}

/* A name that is set in a branch stays, as in Jinja. */
static void run_set(machine *m) {
    const char *name = take_word(m);
    if (!take(m, "=")) {
        refuse(m);
        return;
    }
    const value v = expression(m);
    leave(m, QGC_END_STATEMENT);
    set_name(m, name, v);
}

static void print(machine *m) {
    m->p++;
    const value v = expression(m);
    if (!m->why && v.kind != TEXT)
        refuse(m);
    if (!m->why)
        qgc_str_add(m->out, v.text);
    leave(m, QGC_END_EXPRESSION);
}

/* Up to the end, or to a statement that ends a block. */
static void run_block(machine *m, bool live) {
    if (++m->depth > MOST_DEPTH)
        refuse(m);
    while (*m->p && !m->why) {
        if (*m->p == QGC_EXPRESSION && live) {
            print(m);
        } else if (*m->p == QGC_EXPRESSION) {
            skip_to(m, QGC_END_EXPRESSION);
        } else if (at(m, "if")) {
            run_if(m, live);
        } else if (at(m, "for")) {
            run_for(m, live);
        } else if (*m->p == QGC_STATEMENT && (strncmp(m->p + 1, "e", 1) == 0)) {
            break; /* else, elif, endif, endfor */
        } else if (live && at(m, "set")) {
            run_set(m);
        } else if (*m->p == QGC_STATEMENT && live) {
            refuse(m);
        } else if (*m->p == QGC_STATEMENT) {
            skip_to(m, QGC_END_STATEMENT);
        } else {
            if (live)
                qgc_str_add_bytes(m->out, m->p, 1);
            m->p++;
        }
    }
    m->depth--;
}

const char *qgc_template_run(const char *outline, const qgc_message *messages, int n, qgc_str *out) {
    machine m = {.p = outline, .iteration = -1, .messages = messages, .n = n, .out = out};
    run_block(&m, true);
    if (!m.why && *m.p)
        refuse(&m);
    return m.why;
}
