#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "models/jinja_impl.h"
#include "models/tokenizer_impl.h"

/* Cuts a template into text and blocks, and blocks into words. */

qgc_loc qgc_jinja_place(const qgc_source *s, const char *at) {
    qgc_loc loc = {.source = s, .line = 1, .col = 1};
    for (const char *p = s->text; p < at; p++) {
        loc.col = *p == '\n' ? 1 : loc.col + 1;
        loc.line += *p == '\n';
    }
    return loc;
}

void qgc_jinja_fault(qgc_jinja_parser *p, const char *at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(p->d->arena, format, args);
    va_end(args);
    if (!p->failed)
        (void)qgc_fail(p->d, QGC_ERR_INPUT, qgc_jinja_place(p->source, at), "chat template: %s", text);
    p->failed = true;
    p->word = (qgc_word){.kind = QGC_WORD_END, .at = p->end};
    p->p = p->end;
}

/* --- text between blocks ------------------------------------------------------------------------------------- */

/* Moves past white space; true if the last of it was a newline. */
static bool skip_white(qgc_jinja_parser *p) {
    bool newline = false;
    uint32_t c;
    for (int n; p->p < p->end && (n = qgc_utf8_decode(p->p, (size_t)(p->end - p->p), &c)) > 0; p->p += n) {
        if (!qgc_jinja_is_white(c))
            break;
        newline = c == '\n';
    }
    return newline;
}

/* Moves past the end of a block or comment, which has two letters, and what it swallows: all white space after a minus,
 * a newline unless it is the end of an expression. */
static void leave_block(qgc_jinja_parser *p, char kind, char sign) {
    p->p += 2;
    p->line_starts = false;
    if (sign == '-') {
        p->line_starts = skip_white(p);
    } else if (sign != '+' && kind != '{' && p->p < p->end && *p->p == '\n') {
        p->p++;
        p->line_starts = true;
    }
}

static void skip_comment(qgc_jinja_parser *p) {
    const char *start = p->p, *at = p->p;
    while (at + 1 < p->end && !(at[0] == '#' && at[1] == '}'))
        at++;
    if (at + 1 >= p->end) {
        qgc_jinja_fault(p, start, "comment does not end");
        return;
    }
    p->p = at;
    leave_block(p, '#', at > start ? at[-1] : 0);
}

/* How many letters of the text stay before a block that begins with `kind` and `sign`. */
static size_t without_indent(const qgc_jinja_parser *p, const qgc_jinja_builder *b, size_t from, char kind,
                             char sign) {
    size_t n = b->n;
    if (sign == '-') {
        while (n > from && qgc_jinja_is_white(b->c[n - 1]))
            n--;
        return n;
    }
    if (sign == '+' || kind == '{')
        return n;
    size_t line = n;
    while (line > from && b->c[line - 1] != '\n' && qgc_jinja_is_white(b->c[line - 1]))
        line--;
    const bool starts = line > from ? b->c[line - 1] == '\n' : p->line_starts;
    return starts ? line : n;
}

static void add_utf8(qgc_jinja_builder *b, const char *text, const char *end) {
    uint32_t c;
    for (int n; text < end && (n = qgc_utf8_decode(text, (size_t)(end - text), &c)) > 0; text += n)
        qgc_jinja_add(b, &c, 1);
}

static const char *find_block(const qgc_jinja_parser *p) {
    const char *at = p->p;
    while (at + 1 < p->end && !(at[0] == '{' && (at[1] == '{' || at[1] == '%' || at[1] == '#')))
        at++;
    return at + 1 < p->end ? at : p->end;
}

qgc_jinja_value qgc_jinja_read_data(qgc_jinja_parser *p) {
    qgc_jinja_builder b = {.arena = p->arena};
    for (p->block = '#'; p->block == '#' && !p->failed;) {
        const size_t from = b.n;
        const char *at = find_block(p);
        add_utf8(&b, p->p, at);
        p->block = at < p->end ? at[1] : 0;
        p->p = at;
        if (!p->block)
            break;
        const char sign = at + 2 < p->end ? at[2] : 0;
        b.n = without_indent(p, &b, from, p->block, sign);
        p->p += 2 + (sign == '-' || sign == '+');
        if (p->block == '#')
            skip_comment(p);
    }
    p->brackets = 0;
    if (p->block && !p->failed)
        qgc_jinja_next_word(p);
    return qgc_jinja_built(&b);
}

/* --- words --------------------------------------------------------------------------------------------------- */

static bool in_name(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

static int hex_digit(char c) {
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* \x41, \u0041, \U00000041: the code point, and the cursor past it. */
static uint32_t take_hex(qgc_jinja_parser *p, const char **at, int digits) {
    uint32_t c = 0;
    const char *start = *at;
    for (int i = 0; i < digits; i++, ++*at) {
        const int digit = *at < p->end ? hex_digit(**at) : -1;
        if (digit < 0 || c > 0x10FFFF) {
            qgc_jinja_fault(p, start, "escape in a literal has no %d hexadecimal digits", digits);
            return 0;
        }
        c = 16 * c + (uint32_t)digit;
    }
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
        qgc_jinja_fault(p, start, "escape in a literal is no character");
    return c;
}

/* What comes after a backslash, as in Python; one that means nothing stays. */
static void take_escape(qgc_jinja_parser *p, const char **at, qgc_jinja_builder *b) {
    static const char letters[] = "ntrabfv\\'\"", values[] = "\n\t\r\a\b\f\v\\'\"";
    const char c = *(*at)++;
    const char *found = strchr(letters, c);
    uint32_t value = '\\';
    if (c == '\n')
        return;
    if (c && found)
        value = (uint32_t)(unsigned char)values[found - letters];
    else if (c == 'x' || c == 'u' || c == 'U')
        value = take_hex(p, at, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    else if (c == 'N' || (c >= '0' && c <= '7'))
        qgc_jinja_fault(p, *at - 2, "escape \\%c in a literal is not supported", c);
    else
        --*at;
    qgc_jinja_add(b, &value, 1);
}

static void take_literal(qgc_jinja_parser *p) {
    const char *at = p->p + 1;
    qgc_jinja_builder b = {.arena = p->arena};
    while (at < p->end && *at != *p->p && !p->failed) {
        uint32_t c;
        if (*at == '\\' && at + 1 < p->end) {
            at++;
            take_escape(p, &at, &b);
            continue;
        }
        const int n = qgc_utf8_decode(at, (size_t)(p->end - at), &c);
        qgc_jinja_add(&b, &c, 1);
        at += n > 0 ? n : 1;
    }
    if (p->failed)
        return;
    if (at >= p->end) {
        qgc_jinja_fault(p, p->p, "literal does not end");
        return;
    }
    p->word.kind = QGC_WORD_TEXT;
    p->word.value = qgc_jinja_built(&b);
    p->word.bytes = (size_t)(at + 1 - p->p);
}

static void take_number(qgc_jinja_parser *p) {
    const char *at = p->p;
    bool whole = true;
    while (isdigit((unsigned char)*at)) /* the text ends with a zero byte */
        at++;
    if (at[0] == '.' && isdigit((unsigned char)at[1]))
        for (whole = false, at++; isdigit((unsigned char)*at); at++)
            ;
    const char *exponent = at + 1 + (*at && (at[1] == '+' || at[1] == '-'));
    if ((*at == 'e' || *at == 'E') && isdigit((unsigned char)*exponent))
        for (whole = false, at = exponent; isdigit((unsigned char)*at); at++)
            ;
    errno = 0;
    p->word.kind = QGC_WORD_NUMBER;
    p->word.bytes = (size_t)(at - p->p);
    p->word.value = whole ? qgc_jinja_integer(strtoll(p->p, NULL, 10))
                          : (qgc_jinja_value){.kind = QGC_JINJA_FLOAT, .number = strtod(p->p, NULL)};
    if (errno == ERANGE)
        qgc_jinja_fault(p, p->p, "number is too large");
}

static void take_sign(qgc_jinja_parser *p) {
    static const char *const two[] = {"**", "//", "==", "!=", ">=", "<="};
    p->word.kind = QGC_WORD_SIGN;
    p->word.bytes = 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (strncmp(p->p, two[i], 2) == 0)
            p->word.bytes = 2;
    if (*p->p == 0 || (p->word.bytes == 1 && !strchr("+-/*%~[](){}><=.:|,", *p->p)))
        qgc_jinja_fault(p, p->p, "unexpected character");
    if (*p->p && strchr("([{", *p->p))
        p->brackets++;
    if (*p->p && strchr(")]}", *p->p) && --p->brackets < 0)
        qgc_jinja_fault(p, p->p, "unexpected '%c'", *p->p);
}

/* The sign before the end of the block at the cursor, ' ' where there is none; 0 if it does not end here. */
static char block_ends(const qgc_jinja_parser *p) {
    const char first = p->block == '{' ? '}' : '%';
    if (p->brackets > 0)
        return 0;
    const bool sign = *p->p == '-' || (*p->p == '+' && p->block == '%');
    const char *at = p->p + sign;
    return at + 1 < p->end && at[0] == first && at[1] == '}' ? (sign ? *p->p : ' ') : 0;
}

void qgc_jinja_next_word(qgc_jinja_parser *p) {
    if (p->failed)
        return;
    skip_white(p);
    p->word = (qgc_word){.kind = QGC_WORD_END, .at = p->p};
    if (p->p >= p->end) {
        qgc_jinja_fault(p, p->end, "the template ends inside a block");
        return;
    }
    const char sign = block_ends(p);
    if (sign) {
        p->p += sign != ' ';
        leave_block(p, p->block, sign);
        return;
    }
    if (*p->p == '\'' || *p->p == '"')
        take_literal(p);
    else if (isdigit((unsigned char)*p->p))
        take_number(p);
    else if (in_name(*p->p)) {
        p->word.kind = QGC_WORD_NAME;
        while (in_name(p->p[p->word.bytes]))
            p->word.bytes++;
    } else
        take_sign(p);
    if (!p->failed)
        p->p += p->word.bytes;
}

bool qgc_jinja_at(const qgc_jinja_parser *p, const char *word) {
    return (p->word.kind == QGC_WORD_NAME || p->word.kind == QGC_WORD_SIGN) &&
           strlen(word) == p->word.bytes && memcmp(p->word.at, word, p->word.bytes) == 0;
}

bool qgc_jinja_take(qgc_jinja_parser *p, const char *word) {
    const bool found = qgc_jinja_at(p, word);
    if (found)
        qgc_jinja_next_word(p);
    return found;
}
