#define _GNU_SOURCE /* open_memstream */
#include "runtime/lib/error.h"

#include <stdlib.h>

struct qgc_error {
    qgc_arena *arena; /* NULL: it is a constant */
    qgc_diag diag;
    int code, line, column;
    const char *message, *hint, *file, *text;
};

static struct qgc_error out_of_memory = {
    .code = QGC_CODE_DEVICE,
    .message = "out of host memory",
    .text = "error: out of host memory\n",
};

typedef struct {
    qgc_status (*fn)(void *arguments, qgc_diag *d);
    void *arguments;
    qgc_error *error; /* as soon as there is memory for one */
    qgc_status status;
} call;

/* As the command prints it; the message alone where libc has no memory for that. */
static const char *printed(const qgc_diag *d) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (f) {
        qgc_diag_print(d, f, false);
        fclose(f);
    }
    const char *copy = qgc_arena_strdup(d->arena, text ? text : qgc_diag_message(d));
    (free)(text); /* libc's own, made by open_memstream */
    return copy;
}

static void fill_in(qgc_error *e) {
    const qgc_diag *d = &e->diag;
    e->code = (int)d->status;
    e->message = qgc_diag_message(d);
    e->hint = d->hint;
    e->file = qgc_diag_place(d, &e->line, &e->column);
    e->text = printed(d);
}

static void make_call(void *context) {
    call *c = context;
    qgc_arena *arena = qgc_arena_new();
    c->error = qgc_arena_alloc(arena, sizeof *c->error);
    *c->error = (qgc_error){.arena = arena, .diag = qgc_diag_new(arena)};
    c->status = c->fn(c->arguments, &c->error->diag);
    if (c->status != QGC_OK)
        fill_in(c->error);
}

qgc_error *qgc_lib_call(qgc_status (*fn)(void *arguments, qgc_diag *d), void (*on_memory)(void *arguments),
                        void *arguments) {
    call c = {.fn = fn, .arguments = arguments};
    if (!qgc_memory_try(make_call, &c)) {
        qgc_error_free(c.error);
        if (on_memory)
            on_memory(arguments);
        return &out_of_memory;
    }
    if (c.status != QGC_OK)
        return c.error;
    qgc_error_free(c.error);
    return NULL;
}

int qgc_error_code(const qgc_error *e) {
    return e->code;
}
const char *qgc_error_message(const qgc_error *e) {
    return e->message;
}
const char *qgc_error_hint(const qgc_error *e) {
    return e->hint;
}
const char *qgc_error_file(const qgc_error *e) {
    return e->file;
}
int qgc_error_line(const qgc_error *e) {
    return e->line;
}
int qgc_error_column(const qgc_error *e) {
    return e->column;
}
const char *qgc_error_text(const qgc_error *e) {
    return e->text;
}

void qgc_error_free(qgc_error *e) {
    if (e)
        qgc_arena_drop(e->arena);
}
