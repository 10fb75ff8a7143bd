#ifndef QGC_MODELS_JINJA_H
#define QGC_MODELS_JINJA_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "graph/base/diag.h"

/* Chat templates are programs in Jinja (jinja.palletsprojects.com, 3.1), which transformers runs in a sandbox, with
 * trim_blocks, lstrip_blocks, loop controls and some functions of its own. This interprets the part of the language that
 * templates are written in. What it does not know is an error that names it and its place: never a guess.
 *
 *   text --jinja_lex.c--> tokens --jinja_parse.c--> nodes --jinja_run.c--> text
 *                                                            jinja_calls.c: filters, tests, methods, functions
 *                                                            jinja_text.c, jinja_value.c: what they work on */

/* Texts are code points, as in Python. Those that come from a message carry this bit through everything that is done with
 * them, so that what a user writes is never taken for a special token of the template. No comparison looks at it. */
#define QGC_JINJA_OUTSIDE 0x80000000u

typedef struct {
    const uint32_t *c;
    size_t n;
} qgc_jinja_text;

typedef enum {
    QGC_JINJA_UNDEFINED,
    QGC_JINJA_NONE,
    QGC_JINJA_BOOLEAN,
    QGC_JINJA_INTEGER,
    QGC_JINJA_FLOAT,
    QGC_JINJA_TEXT,
    QGC_JINJA_LIST,
    QGC_JINJA_DICT,
    /* these are made by templates only */
    QGC_JINJA_LOOP,
    QGC_JINJA_MACRO,
    QGC_JINJA_FUNCTION,
    QGC_JINJA_METHOD,
} qgc_jinja_kind;

typedef struct qgc_jinja_value {
    qgc_jinja_kind kind;
    union {
        const char *name; /* of what is undefined */
        int64_t integer;  /* of a boolean 0 or 1 */
        double number;
        qgc_jinja_text text;
        struct qgc_jinja_list *list;
        struct qgc_jinja_dict *dict;
        struct qgc_jinja_loop *loop;
        struct qgc_jinja_macro *macro;
        const struct qgc_jinja_function *function;
        struct qgc_jinja_method *method;
    };
} qgc_jinja_value;

qgc_jinja_value qgc_jinja_boolean(bool yes);
qgc_jinja_value qgc_jinja_integer(int64_t n);
/* Of UTF-8, which is to be valid. `mark` is 0 or QGC_JINJA_OUTSIDE. */
qgc_jinja_value qgc_jinja_text_of(qgc_arena *arena, const char *text, size_t bytes, uint32_t mark);
qgc_jinja_value qgc_jinja_list_new(qgc_arena *arena);
void qgc_jinja_list_add(qgc_jinja_value list, qgc_jinja_value item);
qgc_jinja_value qgc_jinja_dict_new(qgc_arena *arena);
void qgc_jinja_dict_set(qgc_jinja_value dict, qgc_jinja_value key, qgc_jinja_value v);

/* A template, parsed. */
typedef struct qgc_jinja qgc_jinja;

/* Parses the text, whose name is the one in errors, into the arena. Errors: no UTF-8, syntax, statements that are not
 * known. */
QGC_MUST_USE qgc_status qgc_jinja_parse(qgc_jinja **out, const qgc_source *text, qgc_arena *arena,
                                        qgc_diag *d);

/* Does the template use a variable of this name? */
bool qgc_jinja_names(const qgc_jinja *t, const char *name);

typedef struct {
    qgc_jinja_value variables; /* a dictionary */
    struct tm now;             /* what strftime_now prints */
} qgc_jinja_context;

/* Runs the template. The text lives in the arena. Errors: what is not known, what Jinja refuses as well, raise_exception,
 * and templates that never end or fill the memory. */
QGC_MUST_USE qgc_status qgc_jinja_render(const qgc_jinja *t, const qgc_jinja_context *with,
                                         qgc_jinja_text *out, qgc_arena *arena, qgc_diag *d);

#endif
