#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"

/* print_values GRAPH.yaml WEIGHTS NAME TOKEN...: what one step of these tokens on the CPU makes of the output of that name, or
 * else of the values, one element a line after the label of its value ("act[3]"); for tests/adding_an_op.sh and
 * tests/models/compare_configs.py. The numbers of the graph are those of the weights. */

enum { CTX = 64 };

/* 0 tokens: one is not a number, or there are too many. */
static int64_t read_tokens(char **argv, int argc, int32_t *tokens) {
    for (int i = 0; i < argc; i++) {
        char *end;
        tokens[i < CTX ? i : 0] = (int32_t)strtol(argv[i], &end, 10);
        if (i == CTX || end == argv[i] || *end)
            return 0;
    }
    return argc;
}

static void print_value(const qgc_eval *e, const qgc_value *v, qgc_arena *a) {
    int64_t n;
    const float *data = qgc_eval_value(e, v, &n);
    for (int64_t k = 0; k < n; k++)
        printf("%s %.9g\n", qgc_value_label(v, a), (double)data[k]);
}

static bool print(const qgc_eval *e, const qgc_graph *g, const char *name, qgc_arena *a) {
    const qgc_value *output = qgc_graph_output(g, name);
    bool found = false;
    for (size_t i = 0; i < g->n_values; i++) {
        const qgc_value *v = g->values[i];
        if (v->kind != QGC_RESULT || v->dtype != QGC_F32 ||
            (output ? v != output : strcmp(v->name, name) != 0))
            continue;
        print_value(e, v, a);
        found = true;
    }
    return found;
}

static qgc_status run(qgc_weights **w, char **argv, const int32_t *tokens, int64_t n, qgc_diag *d) {
    qgc_graph *g;
    const qgc_tensor **tensors;
    QGC_TRY(qgc_weights_open(w, argv[2], d));
    QGC_TRY(qgc_graph_load_for(&g, argv[1], *w, d->arena, d));
    QGC_TRY(qgc_graph_bind(g, *w, false, &tensors, d));
    qgc_pool *pool = qgc_pool_new(1);
    qgc_eval *e = qgc_eval_new(g, tensors, CTX, n, pool);
    qgc_status status = qgc_eval_step(e, tokens, n, 0, false, d);
    if (status == QGC_OK && !print(e, g, argv[3], d->arena))
        status = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "the graph has no result \"%s\" of float32", argv[3]);
    qgc_eval_drop(e);
    qgc_pool_drop(pool);
    return status;
}

int main(int argc, char **argv) {
    int32_t tokens[CTX];
    int64_t n = argc > 4 ? read_tokens(argv + 4, argc - 4, tokens) : 0;
    if (n == 0) {
        fprintf(stderr, "usage: print_values GRAPH.yaml WEIGHTS NAME TOKEN... (at most %d)\n", CTX);
        return QGC_ERR_USAGE;
    }
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    qgc_weights *w = NULL;
    qgc_status status = run(&w, argv, tokens, n, &d);
    qgc_diag_print(&d, stderr, false);
    qgc_weights_close(w);
    qgc_arena_drop(arena);
    return (int)status;
}
