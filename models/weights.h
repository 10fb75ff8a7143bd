#ifndef QGC_MODELS_WEIGHTS_H
#define QGC_MODELS_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "graph/base/diag.h"
#include "graph/base/tensor.h"

/* A weights file: names to tensors, and the facts that stand beside them. Two formats with one interface:
 *   GGUF v2 and v3        one file                       github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *   safetensors           one file beside its config.json, or a folder with config.json and either
 *                         model.safetensors or model.safetensors.index.json and its shards
 * Files are mapped, not read. Everything in them is checked before it is used: a file cannot make the
 * program read outside the mapping, ask for absurd memory, or crash. */

typedef enum { QGC_WEIGHTS_GGUF, QGC_WEIGHTS_HF } qgc_weights_format;

typedef struct qgc_weights qgc_weights;

/* Opens a GGUF file, a safetensors file or a Hugging Face folder; which one is told by the content (a
 * folder, the magic bytes), not by the name. Errors name the file, the tensor or key, and both values that
 * disagree. `*out` is NULL on failure. */
QGC_MUST_USE qgc_status qgc_weights_open(qgc_weights **out, const char *path, qgc_diag *d);
void qgc_weights_close(qgc_weights *w);

qgc_weights_format qgc_weights_kind(const qgc_weights *w);
const char *qgc_weights_path(const qgc_weights *w);

/* The folder in which tokenizer.json and its like are to be found. For GGUF the folder of the file. */
const char *qgc_weights_folder(const qgc_weights *w);

/* A place for errors about this file. */
qgc_loc qgc_weights_loc(const qgc_weights *w);

/* All tensors in the order of the file(s), shapes outermost first ([out, in]); both live as long as w. */
size_t qgc_weights_count(const qgc_weights *w);
const qgc_tensor *qgc_weights_at(const qgc_weights *w, size_t i);

/* By its name in the file, or NULL. */
const qgc_tensor *qgc_weights_find(const qgc_weights *w, const char *name);

/* The architecture as the file calls it: GGUF general.architecture, config.json model_type; NULL if the
 * file does not say. */
const char *qgc_weights_arch(const qgc_weights *w);

/* A hyperparameter: a GGUF key, or a key of config.json (dots go into nested objects). False where it is
 * missing or of another kind. Booleans are the numbers 0 and 1. */
bool qgc_weights_number(const qgc_weights *w, const char *key, double *out);
const char *qgc_weights_string(const qgc_weights *w, const char *key);

/* The value under a key in a few words, for errors: as JSON of at most 4,000 bytes, in the arena. NULL where the key is
 * missing or null. */
const char *qgc_weights_shown(const qgc_weights *w, const char *key, qgc_arena *a);

/* Does a config.json have the key, with null? */
bool qgc_weights_is_null(const qgc_weights *w, const char *key);

/* The i-th key in an object of config.json, in the order of the file; NULL where there are fewer, or no such object. */
const char *qgc_weights_member(const qgc_weights *w, const char *object, size_t i);

/* Arrays of a GGUF (the tokenizer's tables) and of a config.json. Length 0 where the key is missing or no array. Strings
 * are not ended by a zero byte; booleans are numbers. False where i is out of range or the elements are of another kind. */
size_t qgc_weights_array_length(const qgc_weights *w, const char *key);
bool qgc_weights_array_string(const qgc_weights *w, const char *key, size_t i, const char **text,
                              size_t *bytes);
bool qgc_weights_array_number(const qgc_weights *w, const char *key, size_t i, double *out);

#endif
