#ifndef QGC_MODELS_STATED_H
#define QGC_MODELS_STATED_H

#include "graph/base/stated.h"
#include "models/weights.h"

/* Numbers of a model as its weights file states them. Beside its own keys a file answers to
 *
 *   {arch}.block_count    with the name of its architecture
 *   tensor(NAME)          1 if it has that tensor, else 0
 *   rows(NAME)            the rows of that tensor
 *   null(KEY)             1 if config.json has that key with null, else 0: other than a missing key, it may mean that there is none
 *   format(gguf)          1 if it is a GGUF, else 0
 *
 * A key may hold a word, where `words` says which number it is, or a list with one of either for each iteration. */

typedef struct {
    const char *key;
    qgc_words words;
    int turn; /* of a list; -1: a list is no number, but for one whose entries are all the same */
} qgc_question;

/* Is the key the last of these, format(...)? What it says decides what other keys mean that a file leaves out. So a graph that asks is for
 * files of that format only. */
bool qgc_key_asks_format(const char *key);

qgc_stated qgc_weights_answer(const qgc_weights *w, const qgc_question *q, double *out);

/* A key with the name of the architecture put in. */
const char *qgc_weights_key(const qgc_weights *w, const char *key, qgc_arena *a);

/* How many values a key holds: those of a list, 1, or 0 where it is not stated. */
size_t qgc_weights_values(const qgc_weights *w, const char *key);

#endif
