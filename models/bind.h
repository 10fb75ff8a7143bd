#ifndef QGC_MODELS_BIND_H
#define QGC_MODELS_BIND_H

#include "models/stated.h"

/* Finds the tensors that a model wants in a weights file and checks that both speak of the same model. Used
 * by the compiler and the evaluator, whose wants come from a graph, and by the runtime, whose wants come
 * from a plan. */

typedef struct {
    const char *label; /* "wq[3]", for errors */
    const char *gguf;  /* name in a GGUF, layer filled in; NULL if the model does not say */
    const char *hf;    /* name in safetensors, likewise */
    int tied;          /* index of the want whose tensor stands in where the file has none, or -1 */
    int rank;
    int64_t shape[QGC_MAX_RANK];
    qgc_loc at;
    qgc_tensor_form gguf_form, hf_form; /* how it is made of the tensor of that name */
} qgc_weight_want;

typedef struct {
    const char *name;
    double value;
    const char *const *gguf; /* keys: one that the file has, and all that it has agree */
    const char *const *hf;
    int n_gguf, n_hf;
    qgc_loc at;
    qgc_words words;      /* that a file may state for numbers */
    int turns;            /* that have a value each; 0: one value for all */
    const double *values; /* [turns] */
    const double *
        otherwise; /* [turns], or one: what a file means that has none of the keys; NULL: it has to have one */
} qgc_param_want;

typedef struct {
    const char *arch; /* as files call it, ... */
    const char *gguf_arch,
        *hf_arch; /* ... or lists, where those of a format have other names or several: "llama,mistral" */
    qgc_loc at;
    const qgc_weight_want *weights;
    size_t n_weights;
    const qgc_param_want *params;
    size_t n_params;
    const char *const *ignored; /* patterns of names of tensors that are of no use: "*" stands for any text */
    size_t n_ignored;
    bool allow_unused; /* let tensors pass that the model does not want */
    qgc_arena *arena;  /* for tensors that are not one of the file as it stands there; they live in it */
} qgc_bind_request;

/* Fills found[i] with the tensor of weights[i]. Errors, each naming the file, both values and a remedy:
 * another architecture; a hyperparameter that the file states differently, or not at all although the model
 * names a key for this format and does not say what that means; a tensor that is missing, has another shape, or is not named for this
 * format; a key that changes the numbers and that nothing computes (models/facts.def); tensors left over,
 * which are listed (at most ten, and the count). A tied weight that the file has is taken from the file. */
QGC_MUST_USE qgc_status qgc_bind(const qgc_weights *w, const qgc_bind_request *request,
                                 const qgc_tensor **found, qgc_diag *d);

#endif
