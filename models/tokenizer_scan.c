#include <string.h>

#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

/* The tables of a tokenizer.json, of 300,000 rows in all, read without a tree of JSON values: that takes a tenth of the time.
 *
 *   {..., "model": {..., "vocab": {"!": 0, ...}, "merges": ["a b", ...]}}
 *
 * Only what is as expected is read here. What is not makes qgc_scan_tables return false, and the JSON library, which then reads
 * all of the file, says what is wrong with it. */

typedef struct {
    const char *at, *end;
    char *text; /* where the next text goes */
} scanner;

static void skip_blanks(scanner *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

/* The next character but for blanks, which is passed if it is `c`. */
static bool take(scanner *s, char c) {
    skip_blanks(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

/* --- texts ------------------------------------------------------------------------------------------------- */

/* Four digits of \uXXXX; -1 if they are none. */
static int32_t take_code(scanner *s) {
    int32_t code = 0;
    if (s->end - s->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const char c = *s->at++;
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return -1;
        code = code * 16 + digit;
    }
    return code;
}

static void put(scanner *s, uint32_t byte) {
    *s->text++ = (char)(unsigned char)byte;
}

/* After "\u". No character is longer in UTF-8 than as an escape. */
static bool take_escaped_code(scanner *s) {
    int32_t high = take_code(s), low;
    if (high <= 0 || (high >= 0xDC00 && high < 0xE000))
        return false;
    uint32_t c = (uint32_t)high;
    if (high >= 0xD800 && high < 0xDC00) {
        if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
            return false;
        s->at += 2;
        low = take_code(s);
        if (low < 0xDC00 || low >= 0xE000)
            return false;
        c = 0x10000 + ((c - 0xD800) << 10 | ((uint32_t)low - 0xDC00));
    }
    if (c >= 0x80) {
        const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        static const uint32_t first[] = {0, 0xC0, 0xE0, 0xF0};
        put(s, first[more] | c >> 6 * more);
        for (int i = more - 1; i >= 0; i--)
            put(s, 0x80 | (c >> 6 * i & 0x3F));
    } else
        put(s, c);
    return true;
}

static bool take_escape(scanner *s) {
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (s->at == s->end)
        return false;
    const char c = *s->at++;
    if (c == 'u')
        return take_escaped_code(s);
    const char *name = memchr(names, c, sizeof names - 1);
    if (!name)
        return false;
    *s->text++ = meant[name - names];
    return true;
}

/* A text, which goes to where texts go, with a zero byte after it. */
static bool take_text(scanner *s, qgc_span *out) {
    if (!take(s, '"'))
        return false;
    out->text = s->text;
    while (s->at < s->end && *s->at != '"') {
        if ((unsigned char)*s->at < 0x20)
            return false;
        if (*s->at != '\\')
            *s->text++ = *s->at++;
        else if (s->at++, !take_escape(s))
            return false;
    }
    out->bytes = (size_t)(s->text - out->text);
    *s->text++ = 0;
    return s->at++ < s->end;
}

/* --- rows -------------------------------------------------------------------------------------------------- */

static bool take_id(scanner *s, int32_t *id) {
    skip_blanks(s);
    const char *first = s->at;
    *id = 0;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && s->at - first < 8)
        *id = *id * 10 + (*s->at++ - '0');
    const bool plain = s->at > first && (*first != '0' || s->at == first + 1);
    return plain && *id <= QGC_MAX_ID;
}

/* Rows are counted by what ends them, of which a text may have some more. */
static size_t most_rows(const scanner *s, char end) {
    size_t n = 1;
    for (const char *p = s->at; (p = memchr(p, end, (size_t)(s->end - p))); p++)
        n++;
    return n;
}

static bool take_vocab(scanner *s, qgc_scanned *out, qgc_arena *arena) {
    out->rows = qgc_arena_array(arena, most_rows(s, ':'), sizeof *out->rows);
    if (!take(s, '{') || take(s, '}'))
        return false;
    do {
        qgc_vocab_row *row = &out->rows[out->n_rows++];
        if (!take_text(s, &row->text) || !take(s, ':') || !take_id(s, &row->id))
            return false;
    } while (take(s, ','));
    return take(s, '}');
}

/* "a b", or ["a", "b"]. */
static bool take_merge(scanner *s, qgc_merge *out) {
    if (take(s, '['))
        return take_text(s, &out->left) && take(s, ',') && take_text(s, &out->right) && take(s, ']') &&
               out->left.bytes > 0 && out->right.bytes > 0;
    qgc_span both;
    return take_text(s, &both) && qgc_merge_of_text(both, out);
}

static bool take_merges(scanner *s, qgc_scanned *out, qgc_arena *arena) {
    out->merges = qgc_arena_array(arena, most_rows(s, ','), sizeof *out->merges);
    if (!take(s, '[') || take(s, ']'))
        return false;
    do {
        if (!take_merge(s, &out->merges[out->n_merges++]))
            return false;
    } while (take(s, ','));
    return take(s, ']');
}

/* --- what is around them ----------------------------------------------------------------------------------- */

/* A key, without its text being kept. */
static bool take_key(scanner *s, qgc_span *key) {
    if (!take(s, '"'))
        return false;
    key->text = s->at;
    while (s->at < s->end && *s->at != '"' && *s->at != '\\')
        s->at++;
    key->bytes = (size_t)(s->at - key->text);
    return take(s, '"') && take(s, ':');
}

static bool skip_text(scanner *s) {
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++)
        if (*s->at == '\\' && ++s->at == s->end)
            return false;
    return s->at++ < s->end;
}

/* A value of any kind, up to the comma or bracket after it. */
static bool skip_value(scanner *s) {
    int depth = 0;
    while (s->at < s->end) {
        const char c = *s->at;
        if (depth == 0 && (c == ',' || c == '}' || c == ']'))
            return true;
        if (c == '"') {
            if (!skip_text(s))
                return false;
            continue;
        }
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        s->at++;
    }
    return false;
}

static bool is_key(qgc_span key, const char *name) {
    return key.bytes == strlen(name) && memcmp(key.text, name, key.bytes) == 0;
}

/* What is left of the file for the JSON library, from `from` to where the scanner is, and a table that has nothing in it. */
static void keep(scanner *s, qgc_scanned *out, const char **from, const char *empty) {
    qgc_str_add_bytes(&out->rest, *from, (size_t)(s->at - *from));
    qgc_str_add(&out->rest, empty);
}

static bool take_model(scanner *s, qgc_scanned *out, const char **from, qgc_arena *arena) {
    qgc_span key;
    if (!take(s, '{'))
        return false;
    do {
        if (!take_key(s, &key))
            return false;
        const bool vocab = is_key(key, "vocab"), merges = is_key(key, "merges");
        if ((vocab && out->rows) || (merges && out->merges))
            return false;
        if (vocab || merges)
            keep(s, out, from, vocab ? "{}" : "[]");
        if (!(vocab ? take_vocab(s, out, arena) : merges ? take_merges(s, out, arena) : skip_value(s)))
            return false;
        if (vocab || merges)
            *from = s->at;
    } while (take(s, ','));
    return take(s, '}');
}

static bool take_file(scanner *s, qgc_scanned *out, qgc_arena *arena) {
    const char *from = s->at;
    bool has_model = false;
    qgc_span key;
    if (!take(s, '{'))
        return false;
    do {
        if (!take_key(s, &key))
            return false;
        const bool model = is_key(key, "model");
        if ((model && has_model) || !(model ? take_model(s, out, &from, arena) : skip_value(s)))
            return false;
        has_model = has_model || model;
    } while (take(s, ','));
    s->at = s->end;
    keep(s, out, &from, "");
    return out->rows && out->merges;
}

bool qgc_scan_tables(qgc_scanned *out, qgc_span file, qgc_arena *arena) {
    *out = (qgc_scanned){.rest = qgc_str_new(arena)};
    if (qgc_utf8_check(file.text, file.bytes) < file.bytes)
        return false;
    /* a text is not longer than in the file, where it has quotes besides, and here a zero byte */
    scanner s = {file.text, file.text + file.bytes, qgc_arena_alloc(arena, file.bytes + 1)};
    return take_file(&s, out, arena);
}
