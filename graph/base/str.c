#include "graph/base/str.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

qgc_str qgc_str_new(qgc_arena *arena) {
    qgc_str s = {.arena = arena, .room = 64};
    s.text = qgc_arena_alloc(arena, s.room);
    return s;
}

static void make_room(qgc_str *s, size_t more) {
    if (s->room - s->bytes > more)
        return;
    size_t room = 2 * s->room;
    while (room - s->bytes <= more)
        room *= 2;
    char *text = qgc_arena_alloc(s->arena, room);
    memcpy(text, s->text, s->bytes);
    s->text = text;
    s->room = room;
}

void qgc_str_add_bytes(qgc_str *s, const void *data, size_t bytes) {
    make_room(s, bytes);
    if (bytes)
        memcpy(s->text + s->bytes, data, bytes);
    s->bytes += bytes;
    s->text[s->bytes] = 0;
}

void qgc_str_add(qgc_str *s, const char *text) {
    qgc_str_add_bytes(s, text, strlen(text));
}

void qgc_str_printf(qgc_str *s, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n > 0) {
        make_room(s, (size_t)n);
        vsnprintf(s->text + s->bytes, (size_t)n + 1, format, again);
        s->bytes += (size_t)n;
    }
    va_end(again);
}

void qgc_str_add_number(qgc_str *s, double x) {
    char text[40];
    if (x == floor(x) && fabs(x) < 1e15) {
        qgc_str_printf(s, "%.0f", x);
        return;
    }
    int digits = 1;
    do
        snprintf(text, sizeof text, "%.*g", digits, x);
    while (strtod(text, NULL) != x && digits++ < 17);
    qgc_str_add(s, text);
}

bool qgc_same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool qgc_has_word(const char *words, const char *word) {
    const size_t bytes = word && words && !strchr(word, ' ') ? strlen(word) : 0;
    for (const char *at = words; bytes && (at = strstr(at, word)); at++)
        if (at[-1] == ' ' && at[bytes] == ' ') /* the list begins and ends with a blank, the word does not */
            return true;
    return false;
}

const char *qgc_str_of_bytes(size_t bytes, qgc_arena *a) {
    if (bytes >= 1000000000)
        return qgc_arena_printf(a, "%.2f GB", (double)bytes * 1e-9);
    if (bytes >= 1000000)
        return qgc_arena_printf(a, "%.1f MB", (double)bytes * 1e-6);
    return qgc_arena_printf(a, "%.1f kB", (double)bytes * 1e-3);
}

void qgc_str_clear(qgc_str *s) {
    s->bytes = 0;
    s->text[0] = 0;
}

enum { MAX_WORD = 63 };

/* Levenshtein distance of two short words. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb) {
    size_t row[MAX_WORD + 1];
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[nb];
}

const char *qgc_nearest(const char *word, const char *const *words, size_t n) {
    size_t length = strlen(word), best = (length + 2) / 3 + 1;
    const char *found = NULL;
    if (length > MAX_WORD)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t other = strlen(words[i]);
        if (other > MAX_WORD)
            continue;
        size_t d = distance(word, length, words[i], other);
        if (d < best) {
            best = d;
            found = words[i];
        }
    }
    return found;
}

size_t qgc_list_entry(const char *text) {
    size_t i = 0;
    for (int depth = 0; text[i] && (depth > 0 || text[i] != ','); i++)
        depth += (text[i] == '(') - (text[i] == ')');
    return i;
}
