#include "graph/base/stated.h"

#include <stdbool.h>
#include <string.h>

/* Is it one of the words between bars? */
static bool is_one_of(const char *words, const char *text, size_t bytes) {
    for (;;) {
        const size_t length = strcspn(words, "|");
        if (length == bytes && memcmp(words, text, bytes) == 0)
            return true;
        if (!words[length])
            return false;
        words += length + 1;
    }
}

int qgc_words_find(const qgc_words *w, const char *text, size_t bytes) {
    for (int i = 0; i < w->n; i++)
        if (is_one_of(w->words[i], text, bytes))
            return i;
    return -1;
}
