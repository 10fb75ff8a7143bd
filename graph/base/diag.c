#include "graph/base/diag.h"

#include <stdarg.h>
#include <string.h>

typedef enum { LINE_ERROR, LINE_NOTE, LINE_WHILE } line_kind;

struct qgc_diag_line {
    struct qgc_diag_line *next;
    line_kind kind;
    qgc_loc at;
    const char *text;
};

qgc_diag qgc_diag_new(qgc_arena *arena) {
    return (qgc_diag){.arena = arena};
}

static char *format_text(qgc_arena *a, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static char *format_text(qgc_arena *a, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = qgc_arena_alloc(a, (size_t)(n < 0 ? 0 : n) + 1);
    if (n > 0)
        vsnprintf(text, (size_t)n + 1, format, args);
    return text;
}

static struct qgc_diag_line *new_line(qgc_diag *d, line_kind kind, qgc_loc at, const char *text) {
    struct qgc_diag_line *line = qgc_arena_alloc(d->arena, sizeof *line);
    *line = (struct qgc_diag_line){.kind = kind, .at = at, .text = text};
    return line;
}

static void append(qgc_diag *d, struct qgc_diag_line *line) {
    if (d->last)
        d->last->next = line;
    else
        d->lines = line;
    d->last = line;
}

qgc_status qgc_fail(qgc_diag *d, qgc_status status, qgc_loc at, const char *format, ...) {
    if (d->status != QGC_OK)
        return d->status;
    d->status = status;
    va_list args;
    va_start(args, format);
    append(d, new_line(d, LINE_ERROR, at, format_text(d->arena, format, args)));
    va_end(args);
    for (const qgc_frame *f = d->top; f; f = f->up) {
        const char *text = f->name ? qgc_arena_printf(d->arena, "%s %s", f->doing, f->name) : f->doing;
        append(d, new_line(d, LINE_WHILE, f->at, qgc_arena_strdup(d->arena, text)));
    }
    return status;
}

/* Notes go behind the error and earlier notes, before the frames. */
void qgc_note(qgc_diag *d, qgc_loc at, const char *format, ...) {
    if (!d->lines)
        return;
    va_list args;
    va_start(args, format);
    struct qgc_diag_line *line = new_line(d, LINE_NOTE, at, format_text(d->arena, format, args));
    va_end(args);
    struct qgc_diag_line *before = d->lines;
    while (before->next && before->next->kind == LINE_NOTE)
        before = before->next;
    line->next = before->next;
    before->next = line;
    if (d->last == before)
        d->last = line;
}

void qgc_hint(qgc_diag *d, const char *format, ...) {
    if (!d->lines || d->hint)
        return;
    va_list args;
    va_start(args, format);
    d->hint = format_text(d->arena, format, args);
    va_end(args);
}

static const qgc_source *copy_source(qgc_arena *a, const qgc_source *s) {
    qgc_source *copy = qgc_arena_alloc(a, sizeof *copy);
    *copy = (qgc_source){.name = qgc_arena_strdup(a, s->name), .bytes = s->bytes};
    if (s->text)
        copy->text = qgc_arena_strndup(a, s->text, s->bytes);
    return copy;
}

void qgc_diag_keep(qgc_diag *d) {
    const qgc_source *from = NULL, *copy = NULL; /* lines that follow one another mostly have one source */
    for (struct qgc_diag_line *l = d->lines; l; l = l->next) {
        if (l->at.source && l->at.source != from) {
            from = l->at.source;
            copy = copy_source(d->arena, from);
        }
        l->at.source = l->at.source ? copy : NULL;
    }
}

qgc_status qgc_diag_adopt(qgc_diag *d, const qgc_diag *other) {
    if (d->status != QGC_OK)
        return d->status;
    for (const struct qgc_diag_line *l = other->lines; l; l = l->next)
        append(d, new_line(d, l->kind, l->at, qgc_arena_strdup(d->arena, l->text)));
    qgc_diag_keep(d);
    if (other->hint)
        d->hint = qgc_arena_strdup(d->arena, other->hint);
    return d->status = other->status;
}

/* Quotes line `at.line` of the source with a caret under column `at.col`. Tabs stay tabs in the caret line,
 * so that the caret stands right however wide they are; other control bytes are shown as '?'. */
static void print_quote(qgc_loc at, FILE *out) {
    if (!at.source || !at.source->text || at.line <= 0)
        return;
    const char *p = at.source->text, *end = p + at.source->bytes;
    for (int line = 1; line < at.line && p < end; line++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        p = newline ? newline + 1 : end;
    }
    if (p >= end)
        return;
    const char *newline = memchr(p, '\n', (size_t)(end - p));
    size_t bytes = (size_t)((newline ? newline : end) - p);
    if (bytes > 200)
        bytes = 200;
    if (bytes && p[bytes - 1] == '\r')
        bytes--;
    fprintf(out, "%6d | ", at.line);
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)p[i];
        fputc(c < 32 && c != '\t' ? '?' : c, out);
    }
    fputs("\n       | ", out);
    int column = 1;
    for (size_t i = 0; i < bytes && column < at.col; i++) {
        unsigned char c = (unsigned char)p[i];
        if ((c & 0xC0) == 0x80) /* a continuation byte of UTF-8 takes no column */
            continue;
        fputc(c == '\t' ? '\t' : ' ', out);
        column++;
    }
    fputs("^\n", out);
}

static void print_place(qgc_loc at, FILE *out) {
    if (!at.source) {
        fputs("qgc: ", out);
        return;
    }
    if (at.line > 0)
        fprintf(out, "%s:%d:%d: ", at.source->name, at.line, at.col);
    else
        fprintf(out, "%s: ", at.source->name);
}

void qgc_diag_print(const qgc_diag *d, FILE *out, bool colour) {
    const char *red = colour ? "\033[1;31m" : "", *cyan = colour ? "\033[36m" : "",
               *off = colour ? "\033[0m" : "";
    bool hint_printed = false;
    for (const struct qgc_diag_line *l = d->lines; l; l = l->next) {
        if (l->kind == LINE_WHILE && !hint_printed && d->hint) {
            fprintf(out, "  %shint%s: %s\n", cyan, off, d->hint);
            hint_printed = true;
        }
        if (l->kind == LINE_WHILE && !l->at.source) {
            fprintf(out, "  while: %s\n", l->text);
            continue;
        }
        print_place(l->at, out);
        switch (l->kind) {
        case LINE_ERROR:
            fprintf(out, "%serror%s: %s\n", red, off, l->text);
            break;
        case LINE_NOTE:
            fprintf(out, "%snote%s: %s\n", cyan, off, l->text);
            break;
        case LINE_WHILE:
            fprintf(out, "while: %s\n", l->text);
            break;
        }
        if (l->kind != LINE_WHILE)
            print_quote(l->at, out);
    }
    if (d->hint && !hint_printed)
        fprintf(out, "  %shint%s: %s\n", cyan, off, d->hint);
}

const char *qgc_diag_message(const qgc_diag *d) {
    return d->lines ? d->lines->text : "";
}
