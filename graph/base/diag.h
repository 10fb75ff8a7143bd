#ifndef QGC_BASE_DIAG_H
#define QGC_BASE_DIAG_H

#include <stdbool.h>
#include <stdio.h>

#include "graph/base/arena.h"

/* What went wrong, where, and what to do about it. The first error of a diag wins; later ones are echoes
 * and are dropped. Wording: lower case, no full stop, the kind of thing before its name, names in double
 * quotes, both values when two disagree. A hint is a whole sentence.
 *
 * A diag owns all that it prints: the name of the file, the line that is quoted and the texts are copied
 * when they are recorded, so sources, files and arenas may go before the error is printed. What a terminal
 * could take for a command (control characters, bytes that are not UTF-8) is printed as '?'. */

/* The status is also the exit code of the command. */
typedef enum {
    QGC_OK = 0,
    QGC_ERR_INPUT = 1,     /* a file, a prompt or a graph is at fault */
    QGC_ERR_USAGE = 2,     /* the command line is at fault */
    QGC_ERR_DEVICE = 3,    /* the GPU, its driver or its libraries are at fault, or memory is */
    QGC_INTERRUPTED = 130, /* by Ctrl-C: no error, and no diagnostic */
} qgc_status;

/* A file whose text is quoted in errors. `text` is NULL for binary files. */
typedef struct {
    const char *name;
    const char *text;
    size_t bytes;
} qgc_source;

/* A place in a source: line and column count from 1, and 0 means unknown. */
typedef struct {
    const qgc_source *source;
    int line, col;
} qgc_loc;

#define QGC_NO_LOC ((qgc_loc){0})

/* What was being done. Lives on the stack of the function that does it and is formatted only on failure:
 * qgc_frame frame = {d->top, "inferring the shape of", name, at};  d->top = &frame; ...  d->top =
 * frame.up; */
typedef struct qgc_frame {
    struct qgc_frame *up;
    const char *doing;
    const char *name; /* may be NULL */
    qgc_loc at;
} qgc_frame;

typedef struct qgc_diag qgc_diag;
struct qgc_diag {
    qgc_arena *arena;
    qgc_frame *top;
    qgc_status status;
    struct qgc_diag_line *lines, *last; /* message, notes, frames, in order of printing */
    const char *hint;
};

/* An empty diag whose texts live in `arena`. */
qgc_diag qgc_diag_new(qgc_arena *arena);

/* Records an error and the frames around it; returns `status`, so that a caller can `return qgc_fail(...)`.
 * When an error is there already, returns that one's status and records nothing. */
qgc_status qgc_fail(qgc_diag *d, qgc_status status, qgc_loc at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Adds to the error just recorded: a second place that matters, and what to do. */
void qgc_note(qgc_diag *d, qgc_loc at, const char *format, ...) __attribute__((format(printf, 3, 4)));
void qgc_hint(qgc_diag *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Takes over the error of `other` with all its texts, which are copied into d's arena; `other` and its
 * arena may go afterwards. For work done elsewhere, on a thread of its own say. Returns its status. */
qgc_status qgc_diag_adopt(qgc_diag *d, const qgc_diag *other);

/* Prints the error as `file:line:col: error: ...` with the line of the source and a caret, its notes, the
 * hint and the frames. Prints nothing if there is no error. */
void qgc_diag_print(const qgc_diag *d, FILE *out, bool colour);

/* The message alone, without place, notes or hint; "" if there is no error. */
const char *qgc_diag_message(const qgc_diag *d);

/* The file in which it is, and where in there (from 1 on, 0: unknown); NULL if no file is at fault, or
 * there is no error. */
const char *qgc_diag_place(const qgc_diag *d, int *line, int *col);

/* Passes an error up. */
#define QGC_TRY(call)                       \
    do {                                    \
        qgc_status qgc_try_status = (call); \
        if (qgc_try_status != QGC_OK)       \
            return qgc_try_status;          \
    } while (0)

#define QGC_MUST_USE __attribute__((warn_unused_result))

#endif
