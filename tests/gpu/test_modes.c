/* The ways to run a decode step against each other: the same tokens, and nearly or exactly the same logits. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/eval.h"
#include "runtime/lab/random_weights.h"
#include "runtime/session.h"
#include "tests/support/cmocka.h"
#include "tests/support/golden.h"
#include "tests/support/gpu_model.h"

enum { CHUNK = 256, MOST_CTX = 33000 };

typedef gpu_model fixture;

/* With matrices of a type, NULL: as the graph has them. */
static void open_model_of(fixture *f, const char *name, const char *type) {
    gpu_model_begin(f, name);
    must(f, qgc_random_weights_open(&f->weights, f->graph, type, 7, &f->diag));
    gpu_model_rewrite(f, NULL);
    gpu_model_load(f, (qgc_compile_options){.chunk = CHUNK}, &(qgc_program_options){0});
}

static void open_model(fixture *f, const char *name) {
    open_model_of(f, name, NULL);
}

static qgc_session *session(fixture *f, qgc_mode mode, int64_t ctx, float temperature) {
    qgc_session *s;
    qgc_session_options o = {
        .ctx = ctx,
        .mode = mode,
        .prefill = gpu_test_prefill(f->device, QGC_PREFILL_CHUNKS),
        .sampling = {.temperature = temperature, .top_p = 1, .repeat_penalty = 1, .seed = 3}};
    must(f, qgc_session_new(&s, f->program, &o, &f->diag));
    return s;
}

/* A prompt, then `steps` steps in both modes. Both are fed the same token, so that one near tie does not part them. */
static void modes_agree_of(const char *name, const char *type, int64_t prompt, int steps, double tolerance) {
    fixture f;
    open_model_of(&f, name, type);
    int64_t ctx = prompt + steps + 1;
    if (!gpu_test_runs(f.program, QGC_MODE_PERSISTENT, f.arena)) {
        gpu_model_close(&f);
        return;
    }
    qgc_session *graph = session(&f, QGC_MODE_GRAPH, ctx, 0), *one = session(&f, QGC_MODE_PERSISTENT, ctx, 0);
    int32_t *tokens = qgc_arena_array(f.arena, (size_t)prompt, sizeof *tokens), a, b;
    for (int64_t i = 0; i < prompt; i++)
        tokens[i] = (int32_t)((i * 7919 + 13) % f.plan->vocab);
    must(&f, qgc_session_feed(graph, tokens, prompt, &a, &f.diag));
    must(&f, qgc_session_feed(one, tokens, prompt, &b, &f.diag));
    float *want = qgc_arena_array(f.arena, (size_t)f.plan->vocab, sizeof *want);
    float *got = qgc_arena_array(f.arena, (size_t)f.plan->vocab, sizeof *got);
    double worst = 0;
    int flips = 0;
    for (int i = 0; i < steps; i++) {
        int32_t token = a;
        must(&f, qgc_session_feed(graph, &token, 1, &a, &f.diag));
        must(&f, qgc_session_feed(one, &token, 1, &b, &f.diag));
        must(&f, qgc_session_logits(graph, want, &f.diag));
        must(&f, qgc_session_logits(one, got, &f.diag));
        double difference = golden_difference(got, want, f.plan->vocab);
        worst = !(difference <= worst) ? difference : worst;
        flips += a != b;
    }
    print_message(
        "%s%s%s after %lld tokens: %d steps, logits differ by %.1e of the largest, %d other tokens\n", name,
        type ? " in " : "", type ? type : "", (long long)prompt, steps, worst, flips);
    assert_true(worst <= tolerance);
    assert_true(flips <= steps / 50); /* near ties */
    qgc_session_drop(graph);
    qgc_session_drop(one);
    gpu_model_close(&f);
}

static void modes_agree(const char *name, int64_t prompt, int steps, double tolerance) {
    modes_agree_of(name, NULL, prompt, steps, tolerance);
}

static void small_models_agree_with_graph_mode(void **state) {
    (void)state;
    modes_agree("tests/gpu/shapes/halves", 2, 100, 3e-4);
    modes_agree("tests/gpu/shapes/halves", 700, 20, 3e-4);
    modes_agree("tests/gpu/shapes/broad", 2, 100, 3e-3);
    modes_agree("tests/gpu/shapes/broad", 700, 20, 3e-3);
    modes_agree("tests/gpu/shapes/gemma", 2, 100, 3e-3);
    modes_agree("tests/gpu/shapes/long", 2, 100, 3e-3);
    modes_agree("tests/gpu/shapes/gemma", 700, 20, 3e-3);
    modes_agree("tests/gpu/shapes/rings", 1403, 20, 3e-3);
    modes_agree("tests/gpu/shapes/windows", 700, 20, 3e-4);
    modes_agree("tests/gpu/shapes/halves", 3000, 20, 3e-4); /* more splits than a warp has lanes */
    modes_agree("tests/gpu/shapes/broad", 3000, 20, 3e-3);
}

/* A prompt in chunks and steps one by one, several times around the ring: the logits after each step. */
static float *logits_of_steps(const char *name, qgc_mode mode, int64_t prompt, int steps, fixture *f) {
    open_model(f, name);
    if (!gpu_test_runs(f->program, mode, f->arena))
        return NULL;
    qgc_session *s = session(f, mode, prompt + steps + 1, 0);
    int32_t *tokens = qgc_arena_array(f->arena, (size_t)(prompt + steps), sizeof *tokens), next;
    float *all = qgc_arena_array(f->arena, (size_t)(steps * f->plan->vocab), sizeof *all);
    for (int64_t i = 0; i < prompt + steps; i++)
        tokens[i] = (int32_t)((i * 7919 + 13) % f->plan->vocab);
    for (int64_t at = 0, n; at < prompt; at += n) { /* by 500, which is no multiple of a chunk */
        n = prompt - at < 500 ? prompt - at : 500;
        must(f, qgc_session_feed(s, tokens + at, n, &next, &f->diag));
    }
    for (int i = 0; i < steps; i++) {
        must(f, qgc_session_feed(s, tokens + prompt + i, 1, &next, &f->diag));
        must(f, qgc_session_logits(s, all + i * f->plan->vocab, &f->diag));
    }
    qgc_session_drop(s);
    return all;
}

static void rings_change_no_bit(void **state) {
    (void)state;
    enum { PROMPT = 1403, AFTER = 60 };
    for (int mode = 0; mode < QGC_N_MODES; mode++) {
        fixture whole, ring;
        const float *want = logits_of_steps("tests/gpu/shapes/gemma", (qgc_mode)mode, PROMPT, AFTER, &whole);
        const float *got = logits_of_steps("tests/gpu/shapes/rings", (qgc_mode)mode, PROMPT, AFTER, &ring);
        assert_true(!want == !got);
        double worst = 0;
        for (int i = 0; want && i < AFTER; i++)
            worst = fmax(worst, golden_difference(got + i * whole.plan->vocab, want + i * whole.plan->vocab,
                                                  whole.plan->vocab));
        print_message("%s mode: rings differ by %.1e\n", qgc_mode_name((qgc_mode)mode), worst);
        assert_true(worst <= (mode == QGC_MODE_PERSISTENT ? 1e-4 : 0)); /* there tiles are cut otherwise */
        gpu_model_close(&ring);
        gpu_model_close(&whole);
    }
}

static void long_contexts_agree_with_graph_mode(void **state) {
    (void)state;
    modes_agree("tests/gpu/shapes/halves", 32700, 5, 3e-4);
}

static void qwen_agrees_with_graph_mode(void **state) {
    (void)state;
    modes_agree("models/qwen2.5-0.5b", 10, 256, 1e-3);
    modes_agree("models/qwen2.5-0.5b", 1000, 20, 1e-3);
}

/* Formats whose v has one of its own, and lies on other multiprocessors than q and k; one format for all; a v as wide as the model; rows of
 * two chunks, by 16 warps. Float32 and double, on the CPU, differ by up to 9e-5. */
static void block_formats_agree_with_graph_mode(void **state) {
    (void)state;
    modes_agree_of("tests/gpu/shapes/blocks", "q4_k_m", 10, 64, 3e-3);
    modes_agree_of("tests/gpu/shapes/blocks", "q4_k_m", 600, 20, 3e-3);
    modes_agree_of("tests/gpu/shapes/blocks", "q8_0", 10, 64, 3e-3);
    modes_agree_of("tests/gpu/shapes/blocks-wide-v", "q4_k_m", 10, 64, 3e-3);
    modes_agree_of("tests/gpu/shapes/blocks-two-chunks", "q4_k_m", 10, 64, 3e-3);
}

/* Started early or not, the kernels are the same. */
static void pdl_is_graph_mode_bit_for_bit(void **state) {
    (void)state;
    fixture f;
    open_model(&f, "models/qwen2.5-0.5b");
    if (!gpu_test_runs(f.program, QGC_MODE_PDL, f.arena)) {
        gpu_model_close(&f);
        return;
    }
    qgc_session *graph = session(&f, QGC_MODE_GRAPH, 700, 0), *pdl = session(&f, QGC_MODE_PDL, 700, 0);
    size_t bytes = (size_t)f.plan->vocab * sizeof(float);
    float *want = qgc_arena_alloc(f.arena, bytes), *got = qgc_arena_alloc(f.arena, bytes);
    int32_t tokens[400], a[256], b[256];
    for (int i = 0; i < 400; i++)
        tokens[i] = (i * 7919 + 13) % 1000;
    must(&f, qgc_session_feed(graph, tokens, 400, a, &f.diag));
    must(&f, qgc_session_feed(pdl, tokens, 400, b, &f.diag));
    assert_int_equal(a[0], b[0]);
    for (int round = 0; round < 2; round++) { /* one by one, and queued */
        if (round)
            must(&f, qgc_session_steps(graph, 128, a, &f.diag));
        for (int i = 0; !round && i < 128; i++)
            must(&f, qgc_session_step(graph, &a[i], &f.diag));
        must(&f, qgc_session_steps(pdl, 128, b, &f.diag));
        assert_memory_equal(a, b, 128 * sizeof *a);
        must(&f, qgc_session_logits(graph, want, &f.diag));
        must(&f, qgc_session_logits(pdl, got, &f.diag));
        assert_memory_equal(want, got, bytes);
    }
    qgc_session_drop(graph);
    qgc_session_drop(pdl);
    gpu_model_close(&f);
}

/* Short enough for compute-sanitizer. */
static void a_short_text_is_the_same_in_every_mode(void **state) {
    (void)state;
    fixture f;
    open_model(&f, "tests/gpu/shapes/halves");
    int32_t prompt[] = {7, 1, 900}, texts[QGC_N_MODES][5];
    for (int mode = 0; mode < QGC_N_MODES; mode++) {
        if (!gpu_test_runs(f.program, (qgc_mode)mode, f.arena))
            continue;
        qgc_session *s = session(&f, (qgc_mode)mode, 16, 0);
        must(&f, qgc_session_feed(s, prompt, 3, &texts[mode][0], &f.diag));
        must(&f, qgc_session_steps(s, 4, &texts[mode][1], &f.diag));
        assert_memory_equal(texts[mode], texts[0], sizeof texts[0]);
        qgc_session_drop(s);
    }
    gpu_model_close(&f);
}

/* May the program run in this mode? Says why not. */
static bool can_run(fixture *f, const char *name, int mode) {
    const char *why = qgc_mode_refusal(f->program, (qgc_mode)mode, f->arena);
    if (why)
        print_message("%s: not in %s mode: %s\n", name, qgc_mode_name((qgc_mode)mode), why);
    return why == NULL;
}

/* Ten texts of `steps` steps in one session, reset before each, then one in a session of its own: the same tokens, and the
 * same logits to the last bit. Words that blocks exchange carry the parity of their use, which goes on over a reset:
 * with an odd number of layers and of steps each run starts with the other one. */
static void runs_are_the_same_bits(fixture *f, int mode, int steps) {
    size_t bytes = (size_t)f->plan->vocab * sizeof(float);
    float *first = qgc_arena_alloc(f->arena, bytes), *now = qgc_arena_alloc(f->arena, bytes);
    int32_t chosen[65], again[65], prompt[3] = {1, 2, 3};
    qgc_session *s = session(f, (qgc_mode)mode, 400, 0.9f);
    for (int run = 0; run <= 10; run++) {
        int32_t *text = run ? again : chosen;
        if (run == 10) {
            qgc_session_drop(s);
            s = session(f, (qgc_mode)mode, 400, 0.9f);
        }
        must(f, qgc_session_reset(s, &f->diag));
        must(f, qgc_session_feed(s, prompt, 3, text, &f->diag));
        for (int i = 1; i <= steps; i++)
            must(f, qgc_session_step(s, &text[i], &f->diag));
        must(f, qgc_session_logits(s, run ? now : first, &f->diag));
        if (!run)
            continue;
        assert_memory_equal(again, chosen, (size_t)(steps + 1) * sizeof *again);
        assert_memory_equal(now, first, bytes);
    }
    qgc_session_drop(s);
}

/* Three layers in all but the last two. */
static void ten_runs_are_the_same_bits_in_every_mode(void **state) {
    (void)state;
    static const char *const names[] = {"tests/gpu/shapes/halves",  "tests/golden/small/qwen3",
                                        "tests/golden/small/olmo2", "tests/gpu/cases/biases_in_some_layers",
                                        "tests/golden/small/llama", "tests/gpu/shapes/broad"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fixture f;
        open_model(&f, names[i]);
        for (int mode = 0; mode < QGC_N_MODES; mode++)
            if (can_run(&f, names[i], mode)) {
                runs_are_the_same_bits(&f, mode, 64);
                runs_are_the_same_bits(&f, mode, 33);
                runs_are_the_same_bits(&f, mode, 1);
            }
        gpu_model_close(&f);
    }
}

/* Graphs that differ from those of the models in what a kernel may take for granted. */
static const struct {
    const char *name;
    bool persistent; /* it has to be */
} cases[] = {
    {"tests/gpu/cases/biases_in_some_layers", true},
    {"tests/gpu/cases/unrotated_layer", true},
    {"tests/gpu/cases/silu_first", true},
    {"tests/gpu/cases/old_cache", false},
    {"tests/gpu/shapes/halves", true},
};

enum { CASE_CTX = 64, CASE_PROMPT = 20, CASE_STEPS = 33 };

static int32_t case_token(const fixture *f, int i) {
    return (int32_t)((i * 7919 + 13) % f->plan->vocab);
}

/* The evaluator's logits [CASE_STEPS, vocab], of the graph before any pass, after a prompt of `prompt` tokens that is one
 * step, and after each token that follows. */
static float *evaluated(fixture *f, const char *name, int prompt) {
    qgc_graph *g;
    const qgc_tensor **tensors;
    must(f, qgc_graph_load(&g, qgc_arena_printf(f->arena, "%s.yaml", name), f->arena, &f->diag));
    must(f, qgc_graph_bind(g, f->weights, false, &tensors, &f->diag));
    const size_t vocab = (size_t)f->plan->vocab;
    float *all = qgc_arena_array(f->arena, CASE_STEPS * vocab, sizeof *all);
    int32_t tokens[CASE_PROMPT + CASE_STEPS];
    for (int i = 0; i < prompt + CASE_STEPS; i++)
        tokens[i] = case_token(f, i);
    qgc_eval *e = qgc_eval_new(g, tensors, CASE_CTX, CASE_PROMPT, f->pool);
    for (int i = 0, at = 0; i < CASE_STEPS; i++) {
        int n = i ? 1 : prompt;
        int64_t elems;
        must(f, qgc_eval_step(e, tokens + at, n, at, false, &f->diag));
        memcpy(all + (size_t)i * vocab, qgc_eval_value(e, qgc_graph_output(g, "logits"), &elems),
               vocab * sizeof *all);
        assert_int_equal(elems, vocab);
        at += n;
    }
    qgc_eval_drop(e);
    return all;
}

/* The same in a mode; the largest difference. */
static double case_difference(fixture *f, int mode, int prompt, const float *want) {
    const size_t vocab = (size_t)f->plan->vocab;
    float *got = qgc_arena_array(f->arena, vocab, sizeof *got);
    int32_t tokens[CASE_PROMPT], next;
    double worst = 0;
    qgc_session *s = session(f, (qgc_mode)mode, CASE_CTX, 0);
    for (int i = 0, at = 0; i < CASE_STEPS; i++) {
        int n = i ? 1 : prompt;
        for (int k = 0; k < n; k++)
            tokens[k] = case_token(f, at + k);
        must(f, qgc_session_feed(s, tokens, n, &next, &f->diag));
        must(f, qgc_session_logits(s, got, &f->diag));
        double here = golden_difference(got, want + (size_t)i * vocab, f->plan->vocab);
        worst = !(here <= worst) ? here : worst;
        at += n;
    }
    qgc_session_drop(s);
    return worst;
}

/* From the first token on by decode steps, and after a prompt by a chunk, whose products are rounded to bf16. All modes of
 * all graphs are looked at before the test fails. */
static void cases_agree_with_the_evaluator_in_every_mode(void **state) {
    (void)state;
    static const struct {
        int prompt;
        double tolerance;
    } starts[] = {{1, 2e-3}, {CASE_PROMPT, 3e-2}};
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        open_model(&f, cases[i].name);
        /* where a prompt is several steps, what reads a cache of before the step reads another one */
        const bool chunks = gpu_test_prefill(f.device, QGC_PREFILL_CHUNKS) == QGC_PREFILL_CHUNKS;
        for (int k = 0; k < (chunks ? 2 : 1); k++) {
            const float *want = evaluated(&f, cases[i].name, starts[k].prompt);
            for (int mode = 0; mode < QGC_N_MODES; mode++) {
                if (!can_run(&f, cases[i].name, mode)) {
                    wrong += cases[i].persistent && mode == QGC_MODE_PERSISTENT &&
                             gpu_test_has(f.device, QGC_MODE_PERSISTENT);
                    continue;
                }
                double worst = case_difference(&f, mode, starts[k].prompt, want);
                print_message("%s in %s mode, first %d tokens: logits differ by %.1e of the largest\n",
                              cases[i].name, qgc_mode_name((qgc_mode)mode), starts[k].prompt, worst);
                wrong += !(worst <= starts[k].tolerance);
            }
        }
        gpu_model_close(&f);
    }
    assert_int_equal(wrong, 0);
}

static void a_model_that_does_not_fit_is_refused(void **state) {
    (void)state;
    fixture f;
    open_model(&f, "tests/gpu/shapes/odd");
    qgc_session *s;
    qgc_session_options o = {
        .ctx = 8, .mode = QGC_MODE_PERSISTENT, .sampling = {.top_p = 1, .repeat_penalty = 1}};
    assert_int_equal(qgc_session_new(&s, f.program, &o, &f.diag), QGC_ERR_USAGE);
    gpu_model_close(&f);
}

/* usage: test_gpu_modes [PATTERN of the tests to run] */
int main(int argc, char **argv) {
    gpu_test_begin(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_models_agree_with_graph_mode),
        cmocka_unit_test(pdl_is_graph_mode_bit_for_bit),
        cmocka_unit_test(a_short_text_is_the_same_in_every_mode),
        cmocka_unit_test(ten_runs_are_the_same_bits_in_every_mode),
        cmocka_unit_test(cases_agree_with_the_evaluator_in_every_mode),
        cmocka_unit_test(a_model_that_does_not_fit_is_refused),
        cmocka_unit_test(qwen_agrees_with_graph_mode),
        cmocka_unit_test(block_formats_agree_with_graph_mode),
        cmocka_unit_test(rings_change_no_bit),
        cmocka_unit_test(long_contexts_agree_with_graph_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
