#ifndef QGC_MODELS_WEIGHTS_IMPL_H
#define QGC_MODELS_WEIGHTS_IMPL_H

#include "graph/base/file.h"
#include "graph/base/map.h"
#include "models/weights.h"

/* What the two readers share. Each fills tensors and facts from bytes that are in memory already, so that a
 * fuzzer can call it without a file. While a file is read, errors are placed in a source that lives in the
 * arena of the diag, because the weights are gone once opening has failed. */

struct qgc_weights {
    qgc_arena *arena;
    qgc_weights_format format;
    qgc_source source; /* the path, for errors after opening */
    const char *folder, *arch;
    qgc_file *files;
    size_t n_files;
    qgc_tensor **tensors;
    size_t n_tensors;
    qgc_map by_name; /* tensor name to qgc_tensor */
    qgc_map keys;    /* GGUF: key to qgc_gguf_value */
    void *config;    /* HF: json_t of config.json */
};

/* Weights without tensors or files. */
qgc_weights *qgc_weights_new(const char *path, qgc_weights_format format);

/* A place in the file at `path`, which may go before the diag does. */
qgc_loc qgc_weights_place(qgc_diag *d, const char *path);

/* Room for one tensor more under `name`, zeroed but for the name, or NULL if the name is taken. */
qgc_tensor *qgc_weights_add(qgc_weights *w, const char *name, size_t name_bytes);

/* What is wrong with a name that stands in a file: NULL, or words to follow it ("is empty"). Such a name is
 * printed in errors and looked up as C text, so it has to be short and without control bytes. */
const char *qgc_weights_name_fault(const char *name, size_t bytes);

/* Sorts by where the bytes stand. */
void qgc_weights_sort_by_place(qgc_tensor **tensors, size_t n);

/* Reads a GGUF from `data`, which has to outlive w. */
QGC_MUST_USE qgc_status qgc_gguf_parse(qgc_weights *w, const void *data, size_t bytes, qgc_loc at,
                                       qgc_diag *d);
bool qgc_gguf_number(const qgc_weights *w, const char *key, double *out);
const char *qgc_gguf_string(const qgc_weights *w, const char *key);
size_t qgc_gguf_array_length(const qgc_weights *w, const char *key);
bool qgc_gguf_array_string(const qgc_weights *w, const char *key, size_t i, const char **text, size_t *bytes);
bool qgc_gguf_array_number(const qgc_weights *w, const char *key, size_t i, double *out);

const char *qgc_gguf_shown(const qgc_weights *w, const char *key, qgc_arena *a);

/* Reads one safetensors file from `data`, which has to outlive w, after the tensors that are there. */
QGC_MUST_USE qgc_status qgc_safetensors_parse(qgc_weights *w, const void *data, size_t bytes, qgc_loc at,
                                              qgc_diag *d);

/* Reads config.json from its text. */
QGC_MUST_USE qgc_status qgc_hf_parse_config(qgc_weights *w, const qgc_source *text, qgc_diag *d);

/* Reads the folder, or the one file that w->files holds already. */
QGC_MUST_USE qgc_status qgc_hf_open_folder(qgc_weights *w, qgc_diag *d);
QGC_MUST_USE qgc_status qgc_hf_open_file(qgc_weights *w, qgc_diag *d);
void qgc_hf_close(qgc_weights *w);
bool qgc_hf_number(const qgc_weights *w, const char *key, double *out);
const char *qgc_hf_shown(const qgc_weights *w, const char *key, qgc_arena *a);
bool qgc_hf_is_null(const qgc_weights *w, const char *key);
const char *qgc_hf_string(const qgc_weights *w, const char *key);
const char *qgc_hf_member(const qgc_weights *w, const char *object, size_t i);
size_t qgc_hf_array_length(const qgc_weights *w, const char *key);
bool qgc_hf_array_string(const qgc_weights *w, const char *key, size_t i, const char **text, size_t *bytes);
bool qgc_hf_array_number(const qgc_weights *w, const char *key, size_t i, double *out);

#endif
