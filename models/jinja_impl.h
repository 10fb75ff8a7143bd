#ifndef QGC_MODELS_JINJA_IMPL_H
#define QGC_MODELS_JINJA_IMPL_H

#include "models/jinja.h"

/* What the files of the interpreter share. */

/* --- nodes --------------------------------------------------------------------------------------------------- */

typedef enum {
    /* expressions */
    QGC_NODE_CONSTANT, /* constant */
    QGC_NODE_NAME,     /* name */
    QGC_NODE_LIST,     /* first: its items */
    QGC_NODE_TUPLE,
    QGC_NODE_DICT,      /* first: keys and values by turns */
    QGC_NODE_ATTRIBUTE, /* a.name */
    QGC_NODE_ITEM,      /* a[b] */
    QGC_NODE_SLICE,     /* a[first], where first is three nodes that may be CONSTANT none */
    QGC_NODE_CALL,      /* a(first); arguments given by name have one */
    QGC_NODE_FILTER,    /* a | name(first) */
    QGC_NODE_TEST,      /* a is name(first); `flag`: is not */
    QGC_NODE_NOT,
    QGC_NODE_NEGATIVE,
    QGC_NODE_POSITIVE,
    QGC_NODE_BINARY,  /* a op b */
    QGC_NODE_COMPARE, /* a, then `first`, each with the op before it */
    QGC_NODE_AND,
    QGC_NODE_OR,
    QGC_NODE_CHOICE, /* a if b else c; c may be NULL */
    /* statements */
    QGC_NODE_DATA,      /* constant */
    QGC_NODE_PRINT,     /* a */
    QGC_NODE_IF,        /* a, first: what is done; b: the IF of elif, or the BLOCK of else, or NULL */
    QGC_NODE_BLOCK,     /* first; `flag`: names of its own */
    QGC_NODE_FOR,       /* for a in b if c, first; `otherwise` */
    QGC_NODE_SET,       /* a = b */
    QGC_NODE_SET_BLOCK, /* a = what first prints */
    QGC_NODE_MACRO,     /* name, a: the parameters in a row, whose `a` is the default; first */
    QGC_NODE_BREAK,
    QGC_NODE_CONTINUE,
} qgc_node_kind;

typedef enum {
    QGC_SIGN_NONE,
    QGC_SIGN_ADD,
    QGC_SIGN_SUBTRACT,
    QGC_SIGN_MULTIPLY,
    QGC_SIGN_DIVIDE,
    QGC_SIGN_FLOOR,
    QGC_SIGN_MODULO,
    QGC_SIGN_POWER,
    QGC_SIGN_JOIN,
    QGC_SIGN_EQUAL,
    QGC_SIGN_UNEQUAL,
    QGC_SIGN_LESS,
    QGC_SIGN_LESS_EQUAL,
    QGC_SIGN_GREATER,
    QGC_SIGN_GREATER_EQUAL,
    QGC_SIGN_IN,
    QGC_SIGN_NOT_IN,
} qgc_sign;

typedef struct qgc_node {
    qgc_node_kind kind;
    qgc_sign sign;
    bool flag;
    const char *at;   /* in the template */
    const char *name; /* or NULL */
    qgc_jinja_value constant;
    struct qgc_node *a, *b, *c, *first, *otherwise, *next;
} qgc_node;

struct qgc_jinja {
    qgc_source source; /* with the newlines of the interpreter */
    qgc_node *first;
    const char **names; /* [n_names], some of them several times */
    size_t n_names;
};

qgc_loc qgc_jinja_place(const qgc_source *s, const char *at);

/* --- jinja_lex.c --------------------------------------------------------------------------------------------- */

typedef enum {
    QGC_WORD_END, /* of the block, or of the text */
    QGC_WORD_NAME,
    QGC_WORD_TEXT,
    QGC_WORD_NUMBER, /* value */
    QGC_WORD_SIGN,   /* by its letters */
} qgc_word_kind;

typedef struct {
    qgc_word_kind kind;
    const char *at;
    size_t bytes;
    qgc_jinja_value value;
} qgc_word;

typedef struct {
    qgc_arena *arena;
    qgc_diag *d;
    const qgc_source *source;
    const char *p, *end;
    qgc_word word; /* the one at hand, inside a block */
    char block;    /* '{' or '%' */
    int brackets;  /* open ones, in which a block does not end */
    int depth;     /* of what is being parsed */
    bool line_starts, failed;
    qgc_jinja *out;
} qgc_jinja_parser;

/* The first error stays. */
void qgc_jinja_fault(qgc_jinja_parser *p, const char *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Reads the text up to the next block, which p->block then says and whose first word is at hand; 0 at the end. */
qgc_jinja_value qgc_jinja_read_data(qgc_jinja_parser *p);
void qgc_jinja_next_word(qgc_jinja_parser *p);
/* Takes the name or the sign at hand, if it is this one. */
bool qgc_jinja_take(qgc_jinja_parser *p, const char *word);
bool qgc_jinja_at(const qgc_jinja_parser *p, const char *word);

/* --- jinja_parse.c: expressions ------------------------------------------------------------------------------ */

qgc_node *qgc_jinja_node(qgc_jinja_parser *p, qgc_node_kind kind);
qgc_node *qgc_jinja_expression(qgc_jinja_parser *p);
/* With commas, a tuple; without `choice`, "if" is not part of it. */
qgc_node *qgc_jinja_tuple(qgc_jinja_parser *p, bool choice);
/* A name, an attribute of one, or several names. */
qgc_node *qgc_jinja_target(qgc_jinja_parser *p);
const char *qgc_jinja_name(qgc_jinja_parser *p);

/* --- jinja_value.c ------------------------------------------------------------------------------------------- */

typedef enum {
    QGC_LIST_PLAIN,
    QGC_LIST_TUPLE,
    QGC_LIST_VIEW, /* of a dictionary: no item by its index */
    QGC_LIST_LAZY, /* what a filter yields once: always true, of no length */
} qgc_list_kind;

typedef struct qgc_jinja_list {
    qgc_arena *arena;
    qgc_jinja_value *items;
    size_t n;
    qgc_list_kind kind;
} qgc_jinja_list;

typedef struct {
    qgc_jinja_value key, value;
} qgc_jinja_pair;

typedef struct qgc_jinja_dict {
    qgc_arena *arena;
    qgc_jinja_pair *pairs;
    size_t n;
    bool is_namespace;
} qgc_jinja_dict;

typedef struct qgc_jinja_loop {
    const qgc_jinja_value *items;
    size_t n, index;
    int depth;
} qgc_jinja_loop;

typedef struct qgc_jinja_scope qgc_jinja_scope;

typedef struct qgc_jinja_macro {
    const qgc_node *node;
    qgc_jinja_scope *scope; /* in which it was defined */
} qgc_jinja_macro;

enum { QGC_MOST_CALLS = 500 }; /* nested ones, of the interpreter */

/* A text that grows. */
typedef struct {
    qgc_arena *arena;
    uint32_t *c;
    size_t n, room;
} qgc_jinja_builder;

typedef struct {
    qgc_arena *arena;
    qgc_diag *d;
    const qgc_jinja *t;
    const qgc_node *node; /* at work */
    qgc_jinja_scope *scope;
    qgc_jinja_builder *out;
    qgc_jinja_value variables;
    const struct tm *now;
    struct {
        const char *name;
        const qgc_jinja_scope *scope;
    } * read; /* [n_read]: variables, and where each was read first */
    size_t n_read;
    int64_t fuel; /* steps and letters left */
    int depth, loops, json_depth;
    enum { QGC_GO_ON, QGC_BREAK, QGC_CONTINUE } flow;
    bool failed;
} qgc_jinja_machine;

/* The first error stays. Returns undefined. */
qgc_jinja_value qgc_jinja_fail(qgc_jinja_machine *m, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Takes from what a run may do; false when it is used up. */
bool qgc_jinja_spend(qgc_jinja_machine *m, size_t steps);

qgc_jinja_value qgc_jinja_undefined(const char *name);
qgc_jinja_value qgc_jinja_ascii(qgc_arena *arena, const char *text);
void qgc_jinja_add(qgc_jinja_builder *b, const uint32_t *c, size_t n);
void qgc_jinja_add_ascii(qgc_jinja_builder *b, const char *text);
qgc_jinja_value qgc_jinja_built(const qgc_jinja_builder *b);
bool qgc_jinja_is(qgc_jinja_text text, const char *ascii);
/* For errors: at most 60 letters of a text; the kind of a value. */
const char *qgc_jinja_shown(qgc_jinja_machine *m, qgc_jinja_text text);
const char *qgc_jinja_kind_name(qgc_jinja_value v);

bool qgc_jinja_true(qgc_jinja_value v);
bool qgc_jinja_equal(qgc_jinja_value a, qgc_jinja_value b, qgc_jinja_machine *m);
/* a <=> b; fails where Python has no order. */
int qgc_jinja_order(qgc_jinja_value a, qgc_jinja_value b, qgc_jinja_machine *m);
bool qgc_jinja_contains(qgc_jinja_machine *m, qgc_jinja_value in, qgc_jinja_value what);
const qgc_jinja_value *qgc_jinja_dict_find(qgc_jinja_value dict, qgc_jinja_value key, qgc_jinja_machine *m);
/* As it is printed. */
qgc_jinja_text qgc_jinja_string(qgc_jinja_machine *m, qgc_jinja_value v);
/* What a loop over it goes through, as a list of its own; a lazy one is empty afterwards. */
qgc_jinja_list qgc_jinja_iterate(qgc_jinja_machine *m, qgc_jinja_value v);
bool qgc_jinja_is_integer(qgc_jinja_value v); /* a boolean is one, as in Python */
bool qgc_jinja_is_number(qgc_jinja_value v);
qgc_jinja_value qgc_jinja_text_value(qgc_jinja_text text);
qgc_jinja_value qgc_jinja_attribute(qgc_jinja_machine *m, qgc_jinja_value of, qgc_jinja_value name);
qgc_jinja_value qgc_jinja_item(qgc_jinja_machine *m, qgc_jinja_value of, qgc_jinja_value index);

/* --- jinja_text.c -------------------------------------------------------------------------------------------- */

enum { QGC_NOT_FOUND = -1, QGC_LEFT = 1, QGC_RIGHT = 2 };

/* White space as Python has it. */
bool qgc_jinja_is_white(uint32_t c);

/* Where `what` is in the text from `from` on, or QGC_NOT_FOUND. */
int64_t qgc_jinja_find(qgc_jinja_machine *m, qgc_jinja_text in, qgc_jinja_text what, size_t from);
bool qgc_jinja_starts(qgc_jinja_text text, qgc_jinja_text with);
bool qgc_jinja_ends(qgc_jinja_text text, qgc_jinja_text with);
/* Without the letters of `set`, or white space where it is NULL, at these sides. */
qgc_jinja_text qgc_jinja_strip(qgc_jinja_text text, const qgc_jinja_text *set, int sides);
/* At most `most` cuts from the left, or all if it is negative; by white space where `by` is NULL. */
qgc_jinja_value qgc_jinja_split(qgc_jinja_machine *m, qgc_jinja_text text, const qgc_jinja_text *by,
                                int64_t most);
qgc_jinja_value qgc_jinja_replace(qgc_jinja_machine *m, qgc_jinja_text text, const qgc_jinja_text pair[2],
                                  int64_t most);
typedef enum { QGC_CASE_LOWER, QGC_CASE_UPPER, QGC_CASE_CAPITAL } qgc_letter_case;
qgc_jinja_value qgc_jinja_case(qgc_jinja_machine *m, qgc_jinja_text text, qgc_letter_case to);
qgc_jinja_value qgc_jinja_reversed(qgc_jinja_machine *m, qgc_jinja_text text);
/* Appends JSON, as json.dumps of Python writes it. `indent` < 0: on one line. */
void qgc_jinja_json(qgc_jinja_machine *m, qgc_jinja_value v, int indent, qgc_jinja_builder *out);

/* --- jinja_calls.c ------------------------------------------------------------------------------------------- */

enum { QGC_MOST_ARGUMENTS = 8 };

/* Arguments of a call: those by position, then those by name. */
typedef struct {
    qgc_jinja_value values[QGC_MOST_ARGUMENTS];
    const char *names[QGC_MOST_ARGUMENTS]; /* NULL: by position */
    int n;
} qgc_jinja_arguments;

typedef struct qgc_jinja_function {
    const char *name;
    qgc_jinja_value (*run)(qgc_jinja_machine *m, qgc_jinja_value self, const qgc_jinja_arguments *a);
    const char
        *parameters; /* the names that arguments may have, each after a blank, in their order; "*": any */
} qgc_jinja_function;

typedef struct qgc_jinja_method {
    const qgc_jinja_function *function;
    qgc_jinja_value self;
} qgc_jinja_method;

/* Puts the arguments in the order of the parameters; those that are missing are undefined with no name. */
qgc_jinja_value qgc_jinja_call(qgc_jinja_machine *m, const qgc_jinja_function *f, qgc_jinja_value self,
                               const qgc_jinja_arguments *a);
qgc_jinja_value qgc_jinja_filter(qgc_jinja_machine *m, const char *name, qgc_jinja_value v,
                                 const qgc_jinja_arguments *a);
bool qgc_jinja_test(qgc_jinja_machine *m, const char *name, qgc_jinja_value v, const qgc_jinja_arguments *a);
/* A function of every template, or undefined. */
qgc_jinja_value qgc_jinja_global(const char *name);
/* The method of a text, a list or a dictionary, or undefined. */
qgc_jinja_value qgc_jinja_method_of(qgc_jinja_machine *m, qgc_jinja_value self, qgc_jinja_text name);

#endif
