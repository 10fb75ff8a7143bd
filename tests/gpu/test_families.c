/* The small models of tests/golden/families on the GPU, in every mode: the logits and the text of the evaluator, whose caches are
 * f16 as well, and the logits of transformers. */

#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "codegen/compile.h"
#include "graph/eval.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/session.h"
#include "tests/support/cmocka.h"
#include "tests/support/families.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/gpu.h"

/* CHUNK: so that a prompt of 40 tokens takes several, the last one shorter. */
enum { CHUNK = 16, CTX = 64, TEXT = 64 };

/* Relative to the largest logit of a position. A prefill multiplies bf16 numbers: it is held to 2e-2, or where a model makes
 * more of rounding, to what transformers is off by in bf16. From transformers' float32 numbers a model is as far as keys and
 * values in f16 take it, on the CPU too. */
static const double decode_tolerance = 2e-3, prefill_tolerance = 2e-2, golden_tolerance = 2e-2;

/* A model, in as many forms as the tests want. */
typedef struct {
    const char *model;
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_weights *weights;
    qgc_device *device;
    qgc_program *program;
    const qgc_plan *plan;
    family_golden golden;
    int64_t ctx;
    const float *evaluated; /* as golden.logits, of the graph before any pass */
    float *logits;          /* [vocab], for what is read */
    double from_golden;     /* the largest difference from golden.logits so far */
    int wrong;
} fixture;

static const char *pattern = "*", *cache_folder;

/* Why a model need not run in persistent mode. */
static const struct {
    const char *models, *why;
} allowed[] = {
    {"*-wide", NULL}, /* but for those below it has to */
    {"gpt2*", "takes \"positions\" where the kernel has \"tokens\""},
    {"qwen3_moe-wide", "has no phase in the kernel"},
    {"*", "no multiple of 64"}, /* d_model is 32 */
};

static bool is_allowed(const char *model, const char *why) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(model, "/"), model);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (allowed[i].why && fnmatch(allowed[i].models, name, 0) == 0 && strstr(why, allowed[i].why))
            return true;
    return false;
}

static void must(fixture *f, qgc_status status) {
    if (status != QGC_OK) {
        qgc_diag_print(&f->diag, stderr, false);
        fail_msg("%s", f->model);
    }
}

static qgc_graph *load(fixture *f, const family_sample *s, const qgc_tensor ***tensors) {
    qgc_graph *g;
    must(f, qgc_graph_load_for(&g, qgc_arena_printf(f->arena, "models/%s.yaml", s->family), f->weights,
                               f->arena, &f->diag));
    must(f, qgc_graph_bind(g, f->weights, false, tensors, &f->diag));
    return g;
}

static void open_model(fixture *f, const family_sample *s, qgc_device *device, qgc_pool *pool) {
    *f = (fixture){.model = s->model, .arena = qgc_arena_new(), .device = device, .pool = pool};
    f->diag = qgc_diag_new(f->arena);
    f->golden = family_golden_read(f->arena, s->model);
    must(f,
         qgc_weights_open(&f->weights, qgc_arena_printf(f->arena, FAMILIES_FOLDER "%s", s->model), &f->diag));
    const qgc_tensor **tensors;
    qgc_graph *g = load(f, s, &tensors);
    qgc_pass_report report;
    must(f, qgc_passes_run(g, &(qgc_pass_options){0}, &report, &f->diag));
    const char *arch = qgc_program_arch_for(device, f->arena);
    qgc_compile_options options = {
        .archs = &arch, .n_archs = 1, .chunk = CHUNK, .cache_folder = cache_folder, .pool = pool};
    qgc_compiled compiled;
    must(f, qgc_compile(g, &options, &compiled, &f->diag));
    f->plan = compiled.plan;
    f->ctx = f->plan->max_positions && f->plan->max_positions < CTX ? f->plan->max_positions : CTX;
    if (f->golden.n < 20) /* the text is short for longrope's sake, which goes by the room */
        f->ctx = f->golden.n;
    f->logits = qgc_arena_array(f->arena, (size_t)f->plan->vocab, sizeof *f->logits);
    must(f, qgc_program_load(&f->program, f->plan, device, f->weights, pool, &(qgc_program_options){0},
                             &f->diag));
}

static void close_model(fixture *f) {
    qgc_program_drop(f->program);
    qgc_weights_close(f->weights);
    qgc_arena_drop(f->arena);
}

static qgc_session *session(fixture *f, int mode) {
    qgc_session *s;
    qgc_session_options o = {
        .ctx = f->ctx, .mode = (qgc_mode)mode, .sampling = {.top_p = 1, .repeat_penalty = 1}};
    must(f, qgc_session_new(&s, f->program, &o, &f->diag));
    return s;
}

/* The larger one; what is no number counts as larger than any. */
static double larger(double a, double b) {
    return !(b <= a) ? b : a;
}

/* Takes n tokens of the golden text from `first` on; how far the logits of the last one are from the evaluator's. */
static double feed(fixture *f, qgc_session *s, int first, int n) {
    const size_t row = (size_t)(first + n - 1) * (size_t)f->golden.vocab;
    int32_t next;
    must(f, qgc_session_feed(s, f->golden.ids + first, n, &next, &f->diag));
    must(f, qgc_session_logits(s, f->logits, &f->diag));
    f->from_golden =
        larger(f->from_golden, golden_difference(f->logits, f->golden.logits + row, f->golden.vocab));
    return golden_difference(f->logits, f->evaluated + row, f->golden.vocab);
}

/* After a prompt of `prompt` tokens, and after each of those that follow by a decode step. */
static double worst_after(fixture *f, qgc_session *s, int prompt) {
    must(f, qgc_session_reset(s, &f->diag));
    double worst = feed(f, s, 0, prompt);
    for (int i = prompt; i < f->golden.n; i++)
        worst = larger(worst, feed(f, s, i, 1));
    return worst;
}

/* After prompts of 2 to all tokens, in chunks; these are the same launches in every mode. */
static double worst_of_prompts(fixture *f, qgc_session *s) {
    double worst = 0;
    for (int n = 2; n <= f->golden.n; n++) {
        must(f, qgc_session_reset(s, &f->diag));
        worst = larger(worst, feed(f, s, 0, n));
    }
    return worst;
}

/* --- greedy text ------------------------------------------------------------------------------------------ */

typedef struct {
    int n;
    int32_t ids[TEXT];
    bool near[TEXT]; /* the two best logits are so close that rounding may choose the other */
} text;

static int32_t largest(const float *logits, int n, bool *near) {
    int best = 0;
    float second = -INFINITY, most = 0;
    for (int i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(logits[i]));
        best = logits[i] > logits[best] ? i : best;
    }
    for (int i = 0; i < n; i++)
        second = i != best && logits[i] > second ? logits[i] : second;
    *near = (double)(logits[best] - second) <= 2 * decode_tolerance * (double)most;
    return best;
}

/* The logits of the evaluator at all golden tokens, and what it writes after the first one; on the graph before any pass. */
static text evaluate(fixture *f, const family_sample *sample) {
    const qgc_tensor **tensors;
    qgc_graph *g = load(f, sample, &tensors);
    const qgc_value *out = qgc_graph_output(g, "logits");
    qgc_eval *e = qgc_eval_new(g, tensors, f->ctx, f->golden.n, f->pool);
    text t = {0};
    int64_t elems;
    must(f, qgc_eval_step(e, f->golden.ids, f->golden.n, 0, true, &f->diag));
    const float *logits = qgc_eval_value(e, out, &elems);
    assert_int_equal(elems, f->golden.n * f->golden.vocab);
    float *copy = qgc_arena_array(f->arena, (size_t)elems, sizeof *copy);
    memcpy(copy, logits, (size_t)elems * sizeof *copy);
    f->evaluated = copy;
    for (int32_t token = f->golden.ids[0]; t.n < TEXT && t.n < f->ctx; t.n++) {
        must(f, qgc_eval_step(e, &token, 1, t.n, false, &f->diag));
        token = t.ids[t.n] = largest(qgc_eval_value(e, out, &elems), f->golden.vocab, &t.near[t.n]);
    }
    qgc_eval_drop(e);
    return t;
}

/* How many tokens are the same before the first other one. */
static int same_text(fixture *f, qgc_session *s, const text *want) {
    int32_t got[TEXT];
    must(f, qgc_session_reset(s, &f->diag));
    must(f, qgc_session_feed(s, f->golden.ids, 1, got, &f->diag));
    must(f, qgc_session_steps(s, want->n - 1, got + 1, &f->diag));
    int same = 0;
    while (same < want->n && got[same] == want->ids[same])
        same++;
    return same;
}

/* --- all of it -------------------------------------------------------------------------------------------- */

static void check_mode(fixture *f, int mode, const text *want) {
    qgc_session *s = session(f, mode);
    f->from_golden = 0;
    const double steps = worst_after(f, s, 1), apart = f->from_golden;
    double prefilled = worst_after(f, s, f->golden.n / 2);
    if (mode == QGC_MODE_STREAM)
        prefilled = larger(prefilled, worst_of_prompts(f, s));
    const int same = same_text(f, s, want);
    const bool near_tie = same < want->n && want->near[same];
    const double most = larger(prefill_tolerance, f->golden.rounded);
    const bool right = steps <= decode_tolerance && prefilled <= most && f->from_golden <= most &&
                       apart <= golden_tolerance && (same == want->n || near_tie);
    print_message("%-6s%s in %s mode: logits differ by %.1e in decode steps (%.1e from transformers), %.1e "
                  "after a prefill (%.1e, transformers in bf16 %.1e); %d of %d tokens are the same%s\n",
                  right ? "ok" : "WRONG", f->model, qgc_mode_name((qgc_mode)mode), steps, apart, prefilled,
                  f->from_golden, f->golden.rounded, same, want->n,
                  near_tie ? ", then two are nearly equal" : "");
    f->wrong += !right;
    qgc_session_drop(s);
}

static void check_modes(fixture *f, const family_sample *sample) {
    const text want = evaluate(f, sample);
    for (int mode = 0; mode < QGC_N_MODES; mode++) {
        const char *why = qgc_mode_refusal(f->program, (qgc_mode)mode, f->arena);
        if (!why) {
            check_mode(f, mode, &want);
            continue;
        }
        const bool right = mode == QGC_MODE_PERSISTENT && is_allowed(f->model, why);
        print_message("%-6s%s: not in %s mode: %s\n", right ? "ok" : "WRONG", f->model,
                      qgc_mode_name((qgc_mode)mode), why);
        f->wrong += !right;
    }
}

/* All are looked at before the test fails. */
static void families_are_right_in_every_mode(void **state) {
    (void)state;
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    qgc_device *device;
    qgc_pool *pool = qgc_pool_new(0);
    int wrong = 0, models = 0;
    const char *folder = cache_folder ? NULL : qgc_test_folder(arena);
    cache_folder = folder ? folder : cache_folder; /* models have kernels in common */
    assert_int_equal(qgc_device_open(&device, 0, &d), QGC_OK);
    for (size_t i = 0; i < n_family_samples; i++) {
        if (fnmatch(pattern, family_samples[i].model, 0) != 0)
            continue;
        fixture f;
        open_model(&f, &family_samples[i], device, pool);
        check_modes(&f, &family_samples[i]);
        wrong += f.wrong;
        models++;
        close_model(&f);
    }
    qgc_device_close(device);
    qgc_pool_drop(pool);
    if (folder)
        qgc_test_folder_drop(arena, folder);
    qgc_arena_drop(arena);
    print_message("%d models, %d times wrong\n", models, wrong);
    assert_true(models > 0);
    assert_int_equal(wrong, 0);
}

/* usage: test_gpu_families [PATTERN of models [FOLDER of compiled kernels]] */
int main(int argc, char **argv) {
    pattern = argc > 1 ? argv[1] : pattern;
    cache_folder = argc > 2 ? argv[2] : NULL;
    gpu_test_begin(NULL);
    const struct CMUnitTest tests[] = {cmocka_unit_test(families_are_right_in_every_mode)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
