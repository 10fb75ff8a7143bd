#ifndef QGC_ENGINE_FIND_H
#define QGC_ENGINE_FIND_H

#include "graph/base/diag.h"

/* Weights by name. A name that is no path leads to what is in one of the folders of $QGC_MODELS (with
 * colons between them), under that name or with .gguf after it; "owner/name" and "owner/name/file.gguf"
 * lead to what was downloaded from the Hugging Face hub ($HF_HUB_CACHE, $HF_HOME/hub,
 * ~/.cache/huggingface/hub). */

/* `*path` is `name` where that is a path to something or cannot be a name, so that opening it says what is
 * wrong. Errors: a name that is found nowhere (with where it was looked for, and the command that
 * downloads it); a repository with several GGUF files (with their names). */
QGC_MUST_USE qgc_status qgc_find_weights(const char *name, const char **path, qgc_diag *d);

/* What a model that names no weights may have: beside an artifact or graph at `beside`, a GGUF file or
 * folder of its name, or else of `model`; the same in $QGC_MODELS; a repository of the hub whose name is
 * `model`, in whatever letters, alone or with -Instruct, -it, -Chat or -GGUF after it, the conversational
 * ones first. NULL where there is none. In the arena. */
const char *qgc_find_weights_of(const char *model, const char *beside, qgc_arena *a);

/* A file that was recorded and is no longer there: one of its name beside the artifact, or in $QGC_MODELS;
 * else NULL. */
const char *qgc_find_moved(const char *recorded, const char *beside, qgc_arena *a);

#endif
