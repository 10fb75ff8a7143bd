#include "graph/base/diag.h"

#include <stdarg.h>
#include <string.h>

#include "graph/base/utf8.h"

typedef enum { LINE_ERROR, LINE_NOTE, LINE_WHILE } line_kind;

/* All of it stands in the diag's own arena, and is text that a terminal may be given. */
struct qgc_diag_line {
    struct qgc_diag_line *next;
    line_kind kind;
    const char *file; /* NULL: the place is unknown */
    int line, col;
    const char *quote; /* the line of the file, or NULL */
    const char *text;
};

enum { MOST_QUOTED = 200 }; /* bytes */

qgc_diag qgc_diag_new(qgc_arena *arena) {
    return (qgc_diag){.arena = arena};
}

static char *format_text(qgc_arena *a, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static char *format_text(qgc_arena *a, const char *format, va_list args) {
    char *text = qgc_arena_vprintf(a, format, args);
    qgc_make_printable(text, "");
    return text;
}

/* Line `at.line` of the source, or NULL. */
static const char *quoted_line(qgc_arena *a, qgc_loc at) {
    if (!at.source || !at.source->text || at.line <= 0)
        return NULL;
    const char *p = at.source->text, *end = p + at.source->bytes;
    for (int line = 1; line < at.line && p < end; line++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        p = newline ? newline + 1 : end;
    }
    if (p >= end)
        return NULL;
    const char *newline = memchr(p, '\n', (size_t)(end - p));
    size_t bytes = (size_t)((newline ? newline : end) - p);
    if (bytes > MOST_QUOTED) {
        bytes = MOST_QUOTED;
        while (bytes > 0 && ((unsigned char)p[bytes] & 0xC0) == 0x80) /* not inside a character */
            bytes--;
    }
    if (bytes && p[bytes - 1] == '\r')
        bytes--;
    char *quote = qgc_arena_strndup(a, p, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (!quote[i]) /* which would end the text */
            quote[i] = '?';
    qgc_make_printable(quote, "\t");
    return quote;
}

static struct qgc_diag_line *new_line(qgc_diag *d, line_kind kind, qgc_loc at, const char *text) {
    struct qgc_diag_line *line = qgc_arena_alloc(d->arena, sizeof *line);
    *line = (struct qgc_diag_line){.kind = kind, .line = at.line, .col = at.col, .text = text};
    if (at.source)
        line->file = qgc_printable(d->arena, at.source->name ? at.source->name : "");
    if (kind != LINE_WHILE)
        line->quote = quoted_line(d->arena, at);
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
        append(d, new_line(d, LINE_WHILE, f->at, qgc_printable(d->arena, text)));
    }
    return status;
}

/* Notes go after the error and earlier notes, before the frames. */
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

static struct qgc_diag_line *copy_line(qgc_arena *a, const struct qgc_diag_line *l) {
    struct qgc_diag_line *copy = qgc_arena_alloc(a, sizeof *copy);
    *copy = *l;
    copy->next = NULL;
    copy->file = l->file ? qgc_arena_strdup(a, l->file) : NULL;
    copy->quote = l->quote ? qgc_arena_strdup(a, l->quote) : NULL;
    copy->text = qgc_arena_strdup(a, l->text);
    return copy;
}

qgc_status qgc_diag_adopt(qgc_diag *d, const qgc_diag *other) {
    if (d->status != QGC_OK)
        return d->status;
    for (const struct qgc_diag_line *l = other->lines; l; l = l->next)
        append(d, copy_line(d->arena, l));
    if (other->hint)
        d->hint = qgc_arena_strdup(d->arena, other->hint);
    return d->status = other->status;
}

/* The line of the file, with a caret under its column. Tabs stay tabs in the caret line, so that the caret stands
 * right however wide they are. */
static void print_quote(const struct qgc_diag_line *l, FILE *out) {
    if (!l->quote)
        return;
    fprintf(out, "%6d | %s\n       | ", l->line, l->quote);
    int column = 1;
    for (const char *p = l->quote; *p && column < l->col; p++) {
        if (((unsigned char)*p & 0xC0) == 0x80) /* a continuation byte of UTF-8 takes no column */
            continue;
        fputc(*p == '\t' ? '\t' : ' ', out);
        column++;
    }
    fputs("^\n", out);
}

static void print_place(const struct qgc_diag_line *l, FILE *out) {
    if (!l->file)
        fputs("qgc: ", out);
    else if (l->line > 0)
        fprintf(out, "%s:%d:%d: ", l->file, l->line, l->col);
    else
        fprintf(out, "%s: ", l->file);
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
        if (l->kind == LINE_WHILE && !l->file) {
            fprintf(out, "  while: %s\n", l->text);
            continue;
        }
        print_place(l, out);
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
        print_quote(l, out);
    }
    if (d->hint && !hint_printed)
        fprintf(out, "  %shint%s: %s\n", cyan, off, d->hint);
}

const char *qgc_diag_place(const qgc_diag *d, int *line, int *col) {
    *line = d->lines ? d->lines->line : 0;
    *col = d->lines ? d->lines->col : 0;
    return d->lines ? d->lines->file : NULL;
}

const char *qgc_diag_message(const qgc_diag *d) {
    return d->lines ? d->lines->text : "";
}
