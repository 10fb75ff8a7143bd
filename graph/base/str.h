#ifndef QGC_BASE_STR_H
#define QGC_BASE_STR_H

#include <stddef.h>

#include "graph/base/arena.h"

/* A growing text in an arena. `text` is always ended by a zero byte once anything was added. */
typedef struct {
    qgc_arena *arena;
    char *text;
    size_t bytes, room;
} qgc_str;

/* An empty string; `text` is "" and not NULL. */
qgc_str qgc_str_new(qgc_arena *arena);

void qgc_str_add(qgc_str *s, const char *text);
void qgc_str_add_bytes(qgc_str *s, const void *data, size_t bytes);
void qgc_str_printf(qgc_str *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A number in the fewest letters that give it again. */
void qgc_str_add_number(qgc_str *s, double x);

/* "988.0 MB", in the arena. */
const char *qgc_str_of_bytes(size_t bytes, qgc_arena *a);

/* Are two texts equal, or both none (NULL)? */
bool qgc_same_text(const char *a, const char *b);

/* Is the word one of those in `words`, each between blanks: " a b "? NULL is no word, and no words. */
bool qgc_has_word(const char *words, const char *word);

/* Empties the string and keeps its room. */
void qgc_str_clear(qgc_str *s);

/* The word of `words` (n of them) nearest to `word` by edit distance, or NULL if none is near enough to be
 * worth a hint (more than a third of its letters differ). */
const char *qgc_nearest(const char *word, const char *const *words, size_t n);

/* Bytes of the first entry of a list such as "a,b(x=1,y=2),c": a comma between brackets belongs to its entry. */
size_t qgc_list_entry(const char *text);

#endif
