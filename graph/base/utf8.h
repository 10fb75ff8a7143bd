#ifndef QGC_BASE_UTF8_H
#define QGC_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#include "graph/base/str.h"

/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */

#define QGC_UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD, for what is no character */

/* The length of the character at `text`, and its code point; 0 if the n bytes do not start with a whole one. Reads no byte
 * after the first that does not belong to it, so of a text that a zero ends n may be 4 anywhere. */
int qgc_utf8_decode(const char *text, size_t n, uint32_t *code_point);

/* Writes one character, returns its length. */
int qgc_utf8_encode(uint32_t code_point, char out[4]);

/* The offset of the first byte that is not UTF-8; n if there is none. */
size_t qgc_utf8_check(const char *text, size_t n);

/* Makes a text safe for a terminal, in place: control characters (C0, DEL and C1, such as U+009B) and bytes that are not
 * UTF-8 become '?', but for those in `keep` ("\n\t", say). The text gets no longer. */
void qgc_make_printable(char *text, const char *keep);

/* The same as a copy: for names and paths that come from outside and are printed. */
const char *qgc_printable(qgc_arena *a, const char *text);

/* Streaming text that never splits a character: bytes are held back until the character is whole. */
typedef struct {
    unsigned char held[4];
    int n_held;
} qgc_utf8_stream;

/* Appends to `out` what has become whole; an invalid byte comes out as U+FFFD. */
void qgc_utf8_push(qgc_utf8_stream *s, const char *data, size_t bytes, qgc_str *out);

/* At the end of the text: an unfinished character comes out as U+FFFD. */
void qgc_utf8_finish(qgc_utf8_stream *s, qgc_str *out);

#endif
