#ifndef QGC_ENGINE_ENGINE_IMPL_H
#define QGC_ENGINE_ENGINE_IMPL_H

#include <pthread.h>

#include "codegen/plan.h"
#include "graph/base/file.h"
#include "runtime/engine/engine.h"

/* The tokenizer is read on a thread of its own, while the weights go up. */
typedef struct {
    const qgc_weights *weights;
    pthread_t thread;
    bool started, tried, out_of_memory; /* see qgc_memory_try */
    qgc_arena *arena;                   /* NULL when it has ended */
    qgc_diag diag;
    qgc_status status;
    qgc_tokenizer *tokenizer;
} qgc_engine_reading;

struct qgc_engine {
    qgc_arena *arena;
    qgc_engine_options options;
    bool broken;
    qgc_weights *weights;
    qgc_engine_reading reading;
    qgc_chat *chat; /* NULL: not opened yet */
    qgc_pool *pool;
    qgc_file artifact; /* images point into it */
    const char *label;
    qgc_str source;               /* the YAML of the graph before any pass, with its pipeline */
    int64_t vocab, max_positions; /* 0: as many as there is memory for */

    /* on a GPU */
    qgc_device *device;
    qgc_program *program;
    size_t n_noted; /* of its notes, so far */

    /* on the CPU */
    qgc_graph *graph;
    const qgc_tensor **tensors;
};

void qgc_engine_note(const qgc_engine *e, const char *line);
/* What the program has to say that was not said yet. */
void qgc_engine_note_program(qgc_engine *e);

#endif
