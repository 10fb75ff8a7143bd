#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "models/bind.h"
#include "models/weights_impl.h"

/* Any bytes as a config.json, whose keys are held against a model: it is good, or refused with a reason. */

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    static const char *const base[] = {"rope_theta", "rope_parameters.rope_theta"};
    static const qgc_param_want params[] = {{.name = "rope_base", .value = 1e6, .hf = base, .n_hf = 2},
                                            {.name = "d_head", .value = 64},
                                            {.name = "max_positions", .value = 4096}};
    static const qgc_weight_want wants[] = {
        {.label = "embed", .hf = "embed", .tied = -1, .rank = 1, .shape = {1}},
        {.label = "head", .hf = "head", .tied = 0, .rank = 1, .shape = {1}}};
    static const char *const archs[] = {"qwen2", "llama"};
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    const qgc_source source = {"config.json", (const char *)data, bytes};
    qgc_weights *w = qgc_weights_new("folder", QGC_WEIGHTS_HF);
    qgc_tensor *t = qgc_weights_add(w, "embed", 5);
    t->rank = 1;
    t->shape[0] = 1;
    qgc_bind_request request = {
        .arch = archs[bytes % 2], .params = params, .n_params = 3, .weights = wants, .n_weights = 2};
    const qgc_tensor *found[2] = {NULL, NULL};
    qgc_status status = qgc_hf_parse_config(w, &source, &d);
    if (status == QGC_OK)
        status = qgc_bind(w, &request, found, &d);
    if (status != d.status || (status == QGC_OK) != (*qgc_diag_message(&d) == 0) ||
        (status == QGC_OK && found[1] != t))
        abort();
    qgc_weights_close(w);
    qgc_arena_drop(arena);
    return 0;
}
