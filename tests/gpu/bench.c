/* Times a decode step and the prefill of 512 tokens of Qwen2.5-0.5B with random weights in bf16, so that no file has to
 * be fetched. usage: bench [GRAPH.yaml [PASSES]]. Prints microseconds; the floor of a step is its bytes over the bandwidth. */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "codegen/compile.h"
#include "graph/load.h"
#include "models/weights.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/lab/random_weights.h"
#include "runtime/session.h"

enum { CHUNK = 512, CTX = 4608, PROMPT = 512, STEPS = 64, ROUNDS = 5 };

static qgc_diag diag;

static void must(qgc_status status) {
    if (status != QGC_OK) {
        qgc_diag_print(&diag, stderr, false);
        exit((int)status);
    }
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of ROUNDS rounds of STEPS steps behind `position` tokens of context. */
static double decode_us(qgc_program *p, qgc_mode mode, int64_t position) {
    static int32_t tokens[CTX];
    double us[ROUNDS];
    qgc_session *s;
    qgc_session_options o = {.ctx = CTX, .mode = mode, .sampling = {.top_p = 1, .repeat_penalty = 1}};
    must(qgc_session_new(&s, p, &o, &diag));
    for (int r = -1; r < ROUNDS; r++) { /* one round to warm up */
        int32_t next;
        must(qgc_session_reset(s, &diag));
        must(qgc_session_feed(s, tokens, position - STEPS / 2, &next, &diag));
        double start = now_us();
        for (int i = 0; i < STEPS; i++)
            must(qgc_session_step(s, &next, &diag));
        if (r >= 0)
            us[r] = (now_us() - start) / STEPS;
    }
    qgc_session_drop(s);
    qsort(us, ROUNDS, sizeof *us, by_value);
    return us[ROUNDS / 2];
}

static double prefill_us(qgc_program *p) {
    static int32_t tokens[PROMPT];
    double us[ROUNDS];
    qgc_session *s;
    qgc_session_options o = {.ctx = CTX, .sampling = {.top_p = 1, .repeat_penalty = 1}};
    must(qgc_session_new(&s, p, &o, &diag));
    for (int r = -1; r < ROUNDS; r++) {
        int32_t next;
        must(qgc_session_reset(s, &diag));
        double start = now_us();
        must(qgc_session_feed(s, tokens, PROMPT, &next, &diag));
        if (r >= 0)
            us[r] = now_us() - start;
    }
    qgc_session_drop(s);
    qsort(us, ROUNDS, sizeof *us, by_value);
    return us[ROUNDS / 2];
}

int main(int argc, char **argv) {
    qgc_arena *arena = qgc_arena_new();
    diag = qgc_diag_new(arena);
    qgc_pool *pool = qgc_pool_new(0);
    qgc_graph *g;
    qgc_weights *weights;
    qgc_device *device;
    qgc_program *program;
    const qgc_tensor **tensors;
    must(qgc_graph_load(&g, argc > 1 ? argv[1] : "models/qwen2.5-0.5b.yaml", arena, &diag));
    const char *path = qgc_arena_printf(arena, "/tmp/qgc-bench-%ld.gguf", (long)getpid());
    must(qgc_random_weights_write(g, path, 1, &diag));
    must(qgc_weights_open(&weights, path, &diag));
    unlink(path);
    must(qgc_graph_bind(g, weights, false, &tensors, &diag));
    qgc_pass_report report;
    must(qgc_passes_run(g, &(qgc_pass_options){.passes = argc > 2 ? argv[2] : NULL}, &report, &diag));
    must(qgc_device_open(&device, 0, &diag));
    const qgc_device_info *info = qgc_device_about(device);
    const char *arch =
        qgc_arena_printf(arena, "sm_%d%d%s", info->major, info->minor, info->major >= 9 ? "a" : "");
    qgc_compile_options options = {
        .archs = &arch, .n_archs = 1, .chunk = CHUNK, .no_cache = true, .pool = pool};
    qgc_compiled compiled;
    must(qgc_compile(g, &options, &compiled, &diag));
    double start = now_us();
    must(qgc_program_load(&program, compiled.plan, device, weights, pool, &(qgc_program_options){0}, &diag));
    printf("%s, %s, bf16, random weights; loaded in %.0f ms\n", info->name, g->name,
           1e-3 * (now_us() - start));

    const int64_t positions[] = {40, 512, 4096};
    for (int i = 0; i < 3; i++)
        for (int mode = QGC_MODE_GRAPH; mode <= QGC_MODE_PERSISTENT; mode++) {
            double us = decode_us(program, (qgc_mode)mode, positions[i]);
            printf("decode at position %4lld, %s: %7.1f us a token, %6.1f tok/s\n", (long long)positions[i],
                   mode == QGC_MODE_GRAPH ? "graph " : "persistent", us, 1e6 / us);
        }
    double us = prefill_us(program);
    printf("prefill of %d tokens: %.2f ms, %.0f tok/s\n", PROMPT, 1e-3 * us, 1e6 * PROMPT / us);
    qgc_program_drop(program);
    qgc_device_close(device);
    qgc_weights_close(weights);
    qgc_pool_drop(pool);
    qgc_arena_drop(arena);
    return 0;
}
