#ifndef QGC_BASE_STATED_H
#define QGC_BASE_STATED_H

#include <stddef.h>

/* What a weights file says under a key: nothing, a number, or something that is none. */
typedef enum { QGC_NOT_STATED, QGC_STATED, QGC_MISSTATED } qgc_stated;

/* Words that stand for 0, 1, 2, ...; several for one number have a bar between: "default|none". */
typedef struct {
    const char *const *words;
    int n;
} qgc_words;

/* The number that a word stands for, or -1. */
int qgc_words_find(const qgc_words *w, const char *text, size_t bytes);

#endif
