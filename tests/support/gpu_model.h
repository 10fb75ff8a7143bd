#ifndef TESTS_SUPPORT_GPU_MODEL_H
#define TESTS_SUPPORT_GPU_MODEL_H

#include <stdio.h>

#include "codegen/compile.h"
#include "graph/load.h"
#include "models/weights.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "tests/support/gpu.h"

/* A graph with random weights as a program on the GPU: what tests of steps begin with. */
typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_graph *graph;
    qgc_weights *weights;
    const qgc_tensor **tensors;
    qgc_device *device;
    qgc_program *program;
    const qgc_plan *plan;
} gpu_model;

static inline void must(gpu_model *m, qgc_status status) {
    if (status != QGC_OK) {
        qgc_diag_print(&m->diag, stderr, false);
        fail();
    }
}

/* Loads the graph of a file, without ".yaml". The weights are opened next, by the test. */
static inline void gpu_model_begin(gpu_model *m, const char *name) {
    *m = (gpu_model){.arena = qgc_arena_new()};
    m->diag = qgc_diag_new(m->arena);
    m->pool = qgc_pool_new(0);
    must(m, qgc_graph_load(&m->graph, qgc_arena_printf(m->arena, "%s.yaml", name), m->arena, &m->diag));
}

/* Binds the weights and runs passes, as qgc_passes_run takes them; NULL: the graph's own. */
static inline void gpu_model_rewrite(gpu_model *m, const char *passes) {
    qgc_pass_report report;
    must(m, qgc_graph_bind(m->graph, m->weights, false, &m->tensors, &m->diag));
    must(m, qgc_passes_run(m->graph, &(qgc_pass_options){.passes = passes}, &report, &m->diag));
}

/* Compiles for the GPU, with what `o` says of chunks and values, and loads. */
static inline void gpu_model_load(gpu_model *m, qgc_compile_options o, const qgc_program_options *program) {
    qgc_compiled compiled;
    must(m, gpu_test_open(&m->device, &m->diag));
    const char *arch = qgc_program_arch_for(m->device, m->arena);
    const qgc_card card = qgc_card_of_device(m->device, m->arena);
    o.archs = &arch;
    o.n_archs = 1;
    o.card = &card;
    o.cache_folder = getenv("QGC_TEST_CACHE"); /* of kernels that several tests compile */
    o.no_cache = !o.cache_folder;
    o.pool = m->pool;
    must(m, qgc_compile(m->graph, &o, &compiled, &m->diag));
    m->plan = compiled.plan;
    must(m, qgc_program_load(&m->program, m->plan, m->device, m->weights, m->pool, program, &m->diag));
}

static inline void gpu_model_close(gpu_model *m) {
    qgc_program_drop(m->program);
    qgc_device_close(m->device);
    qgc_weights_close(m->weights);
    qgc_pool_drop(m->pool);
    qgc_arena_drop(m->arena);
}

#endif
