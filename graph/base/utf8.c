#include "graph/base/utf8.h"

#include <stdbool.h>
#include <string.h>

/* How many of the n bytes at p start a character, or could start one if more came; 0 if the first byte
 * never does. `*whole` tells whether the character is complete. */
static int prefix(const unsigned char *p, size_t n, bool *whole) {
    unsigned char first = p[0], low = 0x80, high = 0xBF;
    int length = 2;
    *whole = false;
    if (first < 0x80) {
        *whole = true;
        return 1;
    }
    if (first < 0xC2 || first > 0xF4)
        return 0;
    if (first >= 0xE0) {
        length = first >= 0xF0 ? 4 : 3;
        if (first == 0xE0)
            low = 0xA0;
        else if (first == 0xED)
            high = 0x9F;
        else if (first == 0xF0)
            low = 0x90;
        else if (first == 0xF4)
            high = 0x8F;
    }
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n || p[i] < low || p[i] > high)
            return i;
        low = 0x80;
        high = 0xBF;
    }
    *whole = true;
    return length;
}

int qgc_utf8_decode(const char *text, size_t n, uint32_t *code_point) {
    const unsigned char *p = (const unsigned char *)text;
    bool whole;
    if (n == 0)
        return 0;
    int length = prefix(p, n, &whole);
    if (!whole)
        return 0;
    uint32_t c = length == 1 ? p[0] : p[0] & (0x7Fu >> length);
    for (int i = 1; i < length; i++)
        c = c << 6 | (p[i] & 0x3Fu);
    *code_point = c;
    return length;
}

int qgc_utf8_encode(uint32_t c, char out[4]) {
    int length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (length == 1) {
        out[0] = (char)c;
        return 1;
    }
    for (int i = length - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(0xF00u >> length | c); /* the ones that say how long it is end up in the low byte */
    return length;
}

size_t qgc_utf8_check(const char *text, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= sizeof eight) {
            memcpy(&eight, text + i, sizeof eight);
            if (!(eight & 0x8080808080808080u)) {
                i += sizeof eight;
                continue;
            }
        }
        bool whole;
        int length = prefix((const unsigned char *)text + i, n - i, &whole);
        if (!whole)
            return i;
        i += (size_t)length;
    }
    return n;
}

static bool is_control(uint32_t c) {
    return c < 32 || (c >= 127 && c < 160);
}

void qgc_make_printable(char *text, const char *keep) {
    char *to = text;
    for (const char *p = text; *p;) {
        uint32_t c = 0;
        int length = qgc_utf8_decode(p, 4, &c);
        bool stays = length > 0 && (!is_control(c) || (c < 128 && strchr(keep, (int)c)));
        if (stays)
            memmove(to, p, (size_t)length);
        else
            *to = '?';
        to += stays ? length : 1;
        p += length > 0 ? length : 1;
    }
    *to = 0;
}

const char *qgc_printable(qgc_arena *a, const char *text) {
    char *copy = qgc_arena_strdup(a, text);
    qgc_make_printable(copy, "");
    return copy;
}

/* As in Python and in Rust, the longest start of a character that goes wrong comes out as one U+FFFD, and
 * the byte that broke it starts anew. */
static void push_byte(qgc_utf8_stream *s, unsigned char byte, qgc_str *out) {
    bool whole;
    s->held[s->n_held++] = byte;
    int good = prefix(s->held, (size_t)s->n_held, &whole);
    if (!whole && good == s->n_held)
        return;
    if (whole) {
        qgc_str_add_bytes(out, s->held, (size_t)s->n_held);
        s->n_held = 0;
        return;
    }
    qgc_str_add(out, QGC_UTF8_REPLACEMENT);
    s->n_held = 0;
    if (good > 0)
        push_byte(s, byte, out);
}

void qgc_utf8_push(qgc_utf8_stream *s, const char *data, size_t bytes, qgc_str *out) {
    for (size_t i = 0; i < bytes; i++)
        push_byte(s, (unsigned char)data[i], out);
}

void qgc_utf8_finish(qgc_utf8_stream *s, qgc_str *out) {
    if (s->n_held > 0)
        qgc_str_add(out, QGC_UTF8_REPLACEMENT);
    s->n_held = 0;
}
