/* Every op's kernel against its CPU reference: models of awkward shapes with random weights, all values of a step
 * compared one by one. A kernel is right if its result is near the reference's for inputs that were near. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/eval.h"
#include "runtime/lab/random_weights.h"
#include "runtime/session.h"
#include "tests/support/cmocka.h"
#include "tests/support/golden.h"
#include "tests/support/gpu_model.h"

enum { CTX = 1200, CHUNK = 48 };

typedef struct {
    gpu_model model;
    qgc_eval *eval;
} fixture;

/* `passes` as for qgc_passes_run. */
static void open_model(fixture *f, const char *name, const char *passes) {
    gpu_model *m = &f->model;
    qgc_arena *names = qgc_arena_new();
    gpu_model_begin(m, qgc_arena_printf(names, "tests/gpu/shapes/%s", name));
    qgc_arena_drop(names);
    const char *path = qgc_arena_printf(m->arena, "/tmp/qgc-%s-%ld.gguf", name, (long)getpid());
    must(m, qgc_random_weights_write(m->graph, path, 7, &m->diag));
    must(m, qgc_weights_open(&m->weights, path, &m->diag));
    unlink(path);
    gpu_model_rewrite(m, passes);
    f->eval = qgc_eval_new(m->graph, m->tensors, CTX, CHUNK, m->pool);
    gpu_model_load(m, (qgc_compile_options){.chunk = CHUNK, .keep_values = true}, &(qgc_program_options){0});
}

static void close_model(fixture *f) {
    qgc_eval_drop(f->eval);
    gpu_model_close(&f->model);
}

/* The buffer in which a phase leaves a result: the one of that name among the arguments of its launches. */
static int buffer_of(const fixture *f, qgc_phase_kind phase, const qgc_value *v) {
    const char *label = qgc_value_label(v, f->model.arena);
    const qgc_phase *p = &f->model.plan->phases[phase];
    for (size_t i = 0; i < p->n_launches; i++) {
        for (int k = 0; k < p->launches[i].n_args; k++) {
            int buffer = p->launches[i].args[k].buffer;
            if (p->launches[i].args[k].kind == QGC_ARG_BUFFER &&
                strcmp(f->model.plan->buffers[buffer].name, label) == 0)
                return buffer;
        }
        int c = p->launches[i].c;
        if (c >= 0 && strcmp(f->model.plan->buffers[c].name, label) == 0)
            return c;
    }
    return -1;
}

/* Compares every float32 result of the step just run; returns how many. */
static int compare_values(fixture *f, qgc_session *s, qgc_phase_kind phase, double tolerance) {
    int compared = 0;
    for (const qgc_node *n = f->model.graph->first; n; n = n->next) {
        const qgc_value *v = n->out[0];
        int buffer = buffer_of(f, phase, v);
        if (v->dtype != QGC_F32 || qgc_ops[n->op].traits & QGC_IN_PLACE || buffer < 0)
            continue;
        int64_t elems;
        const float *want = qgc_eval_value(f->eval, v, &elems);
        float *got = qgc_arena_array(f->model.arena, (size_t)elems, sizeof *got);
        must(&f->model, qgc_session_read(s, buffer, got, (size_t)elems * sizeof *got, &f->model.diag));
        double worst = golden_difference(got, want, elems);
        if (!(worst <= tolerance)) {
            print_error("%s of %s: differs by %g of the largest value, %g allowed\n",
                        qgc_value_label(v, f->model.arena), qgc_ops[n->op].name, worst, tolerance);
            fail();
        }
        compared++;
    }
    return compared;
}

static int32_t token_at(const fixture *f, int64_t position) {
    return (int32_t)((position * 7919 + 13) % f->model.plan->vocab);
}

/* `n` tokens by decode steps or by chunks, on both; then all values of the last step. */
static void run_and_compare(const char *name, const char *passes, int64_t n, qgc_prefill prefill,
                            double tolerance) {
    fixture f;
    open_model(&f, name, passes);
    if (gpu_test_prefill(f.model.device, prefill) != prefill) {
        print_message("left out: %s multiplies no bf16 matrices\n", qgc_device_about(f.model.device)->name);
        close_model(&f);
        return;
    }
    qgc_session *s;
    qgc_session_options options = {.ctx = CTX,
                                   .mode = n % 2 ? QGC_MODE_STREAM : QGC_MODE_GRAPH,
                                   .prefill = prefill,
                                   .sampling = {.top_p = 1, .repeat_penalty = 1}};
    must(&f.model, qgc_session_new(&s, f.model.program, &options, &f.model.diag));
    int64_t step = prefill == QGC_PREFILL_CHUNKS ? CHUNK : 1, last = 0;
    int32_t next = -1, tokens[CHUNK];
    for (int64_t done = 0; done < n; done += last) {
        last = n - done < step ? n - done : step;
        for (int64_t i = 0; i < last; i++)
            tokens[i] = token_at(&f, done + i);
        must(&f.model, qgc_session_feed(s, tokens, last, &next, &f.model.diag));
        must(&f.model, qgc_eval_step(f.eval, tokens, last, done, false, &f.model.diag));
    }
    qgc_phase_kind phase = last > 1 ? QGC_PHASE_PREFILL : QGC_PHASE_DECODE;
    assert_true(compare_values(&f, s, phase, tolerance) >= 5);
    assert_in_range(next, 0, f.model.plan->vocab - 1);
    qgc_session_drop(s);
    close_model(&f);
}

static const char *const shapes[] = {"smallest", "odd", "eights", "wide", "tall"};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* Those whose attention is for the tensor cores. */
static const char *const heads[] = {"sevens", "single", "nines", "mixed"};
enum { N_HEADS = sizeof heads / sizeof *heads };

/* Node by node, with the whole pipeline, and with the products and what follows them in different kernels. */
static const char *const pipelines[] = {"", NULL, "split-attention,fuse-qkv,fuse-norm-linear",
                                        "fuse-rope-append,fuse-residual,fuse-pointwise"};
enum { N_PIPELINES = sizeof pipelines / sizeof *pipelines };

/* Where a value goes into a cache, a difference in its last bits may have it rounded the other way: in f16 by 1e-3 of it,
 * in bf16, which some of the latter have, by 8e-3. */
static void first_decode_step_matches_on_every_shape(void **state) {
    (void)state;
    for (int k = 0; k < N_PIPELINES; k++) {
        for (int i = 0; i < N_SHAPES; i++)
            run_and_compare(shapes[i], pipelines[k], 1, QGC_PREFILL_STEPS, 1e-3);
        for (int i = 0; i < N_HEADS; i++)
            run_and_compare(heads[i], pipelines[k], 1, QGC_PREFILL_STEPS, 8e-3);
    }
}

/* 300 positions: more than one tile of the attention kernel, and parts that are all in use. */
static void decode_behind_a_long_context_matches(void **state) {
    (void)state;
    for (int k = 0; k < N_PIPELINES; k++) {
        run_and_compare("odd", pipelines[k], 300, QGC_PREFILL_STEPS, 2e-3);
        run_and_compare("eights", pipelines[k], 299, QGC_PREFILL_STEPS, 2e-3);
        run_and_compare("wide", pipelines[k], 35, QGC_PREFILL_STEPS, 2e-3);
        run_and_compare("sevens", pipelines[k], 300, QGC_PREFILL_STEPS, 2e-3);
        run_and_compare("nines", pipelines[k], 257, QGC_PREFILL_STEPS, 8e-3);
        run_and_compare("mixed", pipelines[k], 145, QGC_PREFILL_STEPS, 8e-3);
        run_and_compare("single", pipelines[k], 200, QGC_PREFILL_STEPS, 2e-3);
        run_and_compare("gemma", pipelines[k], 300, QGC_PREFILL_STEPS, 2e-3);
        run_and_compare("experts", pipelines[k], 35, QGC_PREFILL_STEPS, 2e-3);
    }
}

/* A whole attention, or one in few parts, is computed by several blocks that meet; with many parts most are empty. */
static void blocks_share_a_long_part(void **state) {
    (void)state;
    run_and_compare("sevens", "", 600, QGC_PREFILL_STEPS, 2e-3);
    run_and_compare("sevens", "split-attention(parts=2)", 1099, QGC_PREFILL_STEPS, 2e-3);
    run_and_compare("nines", "split-attention(parts=64)", 300, QGC_PREFILL_STEPS, 8e-3);
}

static void prefill_in_chunks_matches_within_bf16(void **state) {
    (void)state;
    for (int k = 0; k < N_PIPELINES; k++) {
        for (int i = 0; i < N_SHAPES; i++)
            run_and_compare(shapes[i], pipelines[k], CHUNK, QGC_PREFILL_CHUNKS, 3e-2);
        for (int i = 0; i < N_HEADS; i++)
            run_and_compare(heads[i], pipelines[k], CHUNK, QGC_PREFILL_CHUNKS, 3e-2);
        run_and_compare("gemma", pipelines[k], 300, QGC_PREFILL_CHUNKS, 3e-2);
        run_and_compare("eights", pipelines[k], 300, QGC_PREFILL_CHUNKS,
                        3e-2); /* the last chunk is not full */
    }
}

/* More tokens than a tile has room for choose the same experts. */
static void prefill_by_experts_matches(void **state) {
    (void)state;
    run_and_compare("chosen", NULL, CHUNK, QGC_PREFILL_CHUNKS, 3e-2);
    run_and_compare("chosen", "", CHUNK + 9, QGC_PREFILL_CHUNKS, 3e-2);
}

/* Far enough that several blocks share the positions of a tile of tokens, most of which lie before the chunk. */
static void prefill_behind_a_long_context_matches(void **state) {
    (void)state;
    run_and_compare("odd", NULL, 1099, QGC_PREFILL_CHUNKS, 3e-2);
    run_and_compare("gemma", NULL, 1099, QGC_PREFILL_CHUNKS, 3e-2);
    for (int i = 0; i < N_HEADS; i++)
        run_and_compare(heads[i], NULL, 1099, QGC_PREFILL_CHUNKS, 3e-2);
}

/* usage: test_gpu_kernels [PATTERN of the tests to run] */
int main(int argc, char **argv) {
    gpu_test_begin(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_decode_step_matches_on_every_shape),
        cmocka_unit_test(decode_behind_a_long_context_matches),
        cmocka_unit_test(blocks_share_a_long_part),
        cmocka_unit_test(prefill_in_chunks_matches_within_bf16),
        cmocka_unit_test(prefill_by_experts_matches),
        cmocka_unit_test(prefill_behind_a_long_context_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
