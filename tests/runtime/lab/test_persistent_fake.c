/* Trials, ablation and bisection in persistent mode, on a fake device: the CPU evaluator stands in for the large kernel. */

#include <string.h>

#include "graph/base/file.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/lab/ablate.h"
#include "runtime/lab/bisect.h"
#include "runtime/lab/random_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_toy.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"
#include "tests/support/text.h"

enum { CTX = 32, HEAD_DIM = 32 };
static const int32_t tokens[] = {3, 1, 4, 1, 5, 39};

/* Small, of the family that the persistent step can be made of, and with the vocabulary of the toy. %s: a node that nobody
 * reads, with which the step does not fit. */
static const char model[] =
    "qgc: 1\n"
    "name: small\n"
    "arch: qwen2\n"
    "weights:\n"
    "  embed: {shape: [40, 64], gguf: e}\n"
    "  attn_norm: {per: l, shape: [64], gguf: \"{l}.an\"}\n"
    "  wq: {per: l, shape: [64, 64], gguf: \"{l}.q\"}\n"
    "  wk: {per: l, shape: [32, 64], gguf: \"{l}.k\"}\n"
    "  wv: {per: l, shape: [32, 64], gguf: \"{l}.v\"}\n"
    "  wo: {per: l, shape: [64, 64], gguf: \"{l}.o\"}\n"
    "  mlp_norm: {per: l, shape: [64], gguf: \"{l}.mn\"}\n"
    "  w_gate: {per: l, shape: [128, 64], gguf: \"{l}.g\"}\n"
    "  w_up: {per: l, shape: [128, 64], gguf: \"{l}.u\"}\n"
    "  w_down: {per: l, shape: [64, 128], gguf: \"{l}.d\"}\n"
    "  out_norm: {shape: [64], gguf: on}\n"
    "  head: {shape: [40, 64], gguf: h}\n"
    "state:\n"
    "  k_cache: {per: l, shape: [1, ctx, 32], dtype: f16}\n"
    "  v_cache: {per: l, shape: [1, ctx, 32], dtype: f16}\n"
    "  seen: {shape: [40], dtype: i32}\n"
    "inputs: {tokens: [T], positions: [T], rows: [R]}\n"
    "graph:\n"
    "  - {op: embedding, in: [tokens, embed], out: x}\n"
    "  - repeat: {index: l, count: 2, carry: x}\n"
    "    body:\n"
    "      - {op: rms_norm, in: [x, attn_norm], eps: 1e-06, out: h}\n"
    "      - {op: linear, in: [h, wq], out: q}\n"
    "      - {op: linear, in: [h, wk], out: k}\n"
    "      - {op: linear, in: [h, wv], out: v}\n"
    "      - {op: rope, in: [q, positions], style: neox, base: 10000, head_dim: 32, out: qr}\n"
    "      - {op: rope, in: [k, positions], style: neox, base: 10000, head_dim: 32, out: kr}\n"
    "      - {op: append, in: [k_cache, kr, positions], out: k_all}\n"
    "      - {op: append, in: [v_cache, v, positions], out: v_all}\n"
    "      - {op: attention, in: [qr, k_all, v_all, positions], scale: 0.17, out: a}\n"
    "      - {op: linear, in: [a, wo], out: o}\n"
    "      - {op: add, in: [x, o], out: x_mid}\n"
    "      - {op: rms_norm, in: [x_mid, mlp_norm], eps: 1e-06, out: m}\n"
    "      - {op: linear, in: [m, w_gate], out: gate}\n"
    "      - {op: linear, in: [m, w_up], out: up}\n"
    "      - {op: silu, in: [gate], out: act}\n"
    "      - {op: mul, in: [act, up], out: ff}\n"
    "      - {op: linear, in: [ff, w_down], out: down}\n"
    "      - {op: add, in: [x_mid, down], out: x}\n"
    "%s"
    "  - {op: select_rows, in: [x, rows], out: x_rows}\n"
    "  - {op: rms_norm, in: [x_rows, out_norm], eps: 1e-06, out: x_out}\n"
    "  - {op: linear, in: [x_out, head], out: logits}\n"
    "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
    "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n"
    "outputs: [logits, next]\n";

/* --- the kernels ----------------------------------------------------------------------------------------- */

/* What the large kernel computes with. */
static struct {
    qgc_arena *arena;
    qgc_graph *graph;
    const qgc_tensor **tensors;
    qgc_pool *pool;
    qgc_eval *eval;
    float wrong; /* added to a logit */
} oracle;

/* The arguments of the large kernel that count here. */
enum { SMALL = 1, CACHES = 2, TOKENS = 7, POSITIONS = 8, LOGITS = 11, SEEN = 13, PARTS = 15, ROOM = 17 };

static void run_pack_addresses(void **args, const unsigned grid[3]) {
    qgc_address *to = pointer(args, 2);
    (void)grid;
    to[0] = *(const qgc_address *)args[0];
    to[1] = *(const qgc_address *)args[1];
}

/* Those of the device have room for `ctx` positions, at most as many as the evaluator's. */
static void copy_caches(const qgc_address *caches, int32_t ctx) {
    for (size_t i = 0; i < oracle.graph->n_values; i++) {
        const qgc_value *v = oracle.graph->values[i];
        const bool keys = strcmp(v->name, "k_all") == 0;
        int64_t n;
        if (!keys && strcmp(v->name, "v_all") != 0)
            continue;
        void *to = (void *)(uintptr_t)caches[2 * v->layer + !keys]; /* NOLINT(performance-no-int-to-ptr) */
        memcpy(to, qgc_eval_value(oracle.eval, v, &n), (size_t)ctx * HEAD_DIM * sizeof(uint16_t));
    }
}

static void run_persistent(void **args, const unsigned grid[3]) {
    const int32_t token = *(const int32_t *)pointer(args, TOKENS),
                  position = *(const int32_t *)pointer(args, POSITIONS);
    float *logits = pointer(args, LOGITS), *parts = pointer(args, PARTS);
    qgc_diag d = qgc_diag_new(oracle.arena);
    int64_t n;
    (void)grid;
    if (position == 0) {
        qgc_eval_drop(oracle.eval);
        oracle.eval = qgc_eval_new(oracle.graph, oracle.tensors, CTX, 1, oracle.pool);
    }
    assert_int_equal(qgc_eval_step(oracle.eval, &token, 1, position, false, &d), QGC_OK);
    memcpy(logits, qgc_eval_value(oracle.eval, qgc_graph_output(oracle.graph, "logits"), &n),
           VOCAB * sizeof *logits);
    logits[3] += oracle.wrong;
    copy_caches(pointer(args, CACHES), *(const int32_t *)args[ROOM]);
    if (pointer(args, SEEN) == pointer(args, SMALL)) /* sampling begins in kernels of its own */
        return;
    ((int32_t *)pointer(args, SEEN))[token] = 1;
    for (int i = 0; i < VOCAB; i++)
        parts[i / CHUNK] = i % CHUNK ? fmaxf(parts[i / CHUNK], logits[i]) : logits[i];
}

static void run_nothing(void **args, const unsigned grid[3]) {
    (void)args, (void)grid;
}

/* Kernels of decode steps are loaded, and never launched in this mode. */
static const char *const unused[] = {"advance",         "append",          "attention",
                                     "attention_heads", "attention_merge", "bias_rows",
                                     "pointwise",       "linear_heads",    "rope"};
enum { N_TOY = sizeof toy_kernels / sizeof *toy_kernels - 1, N_UNUSED = sizeof unused / sizeof *unused };

static void all_kernels(fake_kernel to[N_TOY + N_UNUSED + 6]) {
    memcpy(to, toy_kernels, N_TOY * sizeof *to);
    for (size_t i = 0; i < N_UNUSED; i++)
        to[N_TOY + i] = (fake_kernel){unused[i], "", run_nothing};
    fake_kernel *more = to + N_TOY + N_UNUSED;
    more[0] = (fake_kernel){"rope_table", "pi", run_nothing};
    more[1] = (fake_kernel){"pack", "pppppp", run_nothing};
    more[2] = (fake_kernel){"pack_vectors", "pppppp", run_nothing};
    more[3] = (fake_kernel){"pack_addresses", "ppp", run_pack_addresses};
    more[4] = (fake_kernel){"persistent", "pppppppppppppppppi", run_persistent};
    more[5] = (fake_kernel){0};
}

/* --- fixture --------------------------------------------------------------------------------------------- */

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    const char *folder;
    qgc_device *dev;
    qgc_weights *weights;
    fake_kernel kernels[N_TOY + N_UNUSED + 6];
} fixture;

static void ok(fixture *f, qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
}

static qgc_graph *load(fixture *f, const qgc_tensor ***tensors) {
    const char *text = qgc_arena_printf(f->arena, model, "");
    qgc_graph *g;
    ok(f, qgc_graph_load_text(&g, "small.yaml", text, strlen(text), f->arena, &f->diag));
    if (tensors)
        ok(f, qgc_graph_bind(g, f->weights, false, tensors, &f->diag));
    return g;
}

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    *f = (fixture){.arena = arena, .diag = qgc_diag_new(arena), .folder = qgc_test_folder(arena)};
    all_kernels(f->kernels);
    f->dev = fake_device_new(f->kernels);
    f->dev->info.shared_bytes_max = 227 << 10;
    f->dev->info.sms = 4;
    f->dev->info.free_bytes = (size_t)1 << 40;
    const char *path = qgc_test_path(arena, f->folder, "small.gguf");
    ok(f, qgc_random_weights_write(load(f, NULL), path, 1, &f->diag));
    ok(f, qgc_weights_open(&f->weights, path, &f->diag));
    memset(&oracle, 0, sizeof oracle);
    oracle.arena = arena;
    oracle.pool = qgc_pool_new(1);
    oracle.graph = load(f, &oracle.tensors);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    const int held = fake_device_held(f->dev);
    qgc_eval_drop(oracle.eval);
    qgc_pool_drop(oracle.pool);
    qgc_device_close(f->dev);
    qgc_weights_close(f->weights);
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return held; /* everything must have been given back */
}

static qgc_experiment experiment(fixture *f, const char *more, const char *passes) {
    const char *text = qgc_arena_printf(f->arena, model, more);
    return (qgc_experiment){.graph = qgc_test_write(f->arena, f->folder, "small.yaml", text, strlen(text)),
                            .weights = f->weights,
                            .passes = passes,
                            .device = f->dev,
                            .mode = "persistent",
                            .cache_folder = toy_cache.folder,
                            .pool = oracle.pool,
                            .tokens = tokens,
                            .n_tokens = 6,
                            .positions = 6};
}

static const qgc_value *value(const qgc_graph *g, const char *name) {
    if (qgc_graph_output(g, name))
        return qgc_graph_output(g, name);
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind == QGC_RESULT && strcmp(g->values[i]->name, name) == 0)
            return g->values[i];
    fail_msg("no value \"%s\"", name);
    return NULL;
}

/* --- tests ----------------------------------------------------------------------------------------------- */

/* Auto comes to it, too. */
static void a_trial_reads_what_leaves_the_kernel(void **state) {
    fixture *f = *state;
    const qgc_tensor **tensors;
    qgc_pass_report report;
    for (int i = 0; i < 2; i++) {
        qgc_trial *t;
        qgc_graph *g = load(f, &tensors);
        ok(f, qgc_passes_run(g, &(qgc_pass_options){0}, &report, &f->diag));
        const qgc_trial_options o = {.device = f->dev,
                                     .mode = i ? "auto" : "persistent",
                                     .ctx = CTX,
                                     .keep_values = true,
                                     .cache_folder = toy_cache.folder,
                                     .pool = oracle.pool};
        ok(f, qgc_trial_new(&t, g, f->weights, tensors, &o, &f->diag));
        assert_null(qgc_trial_refusal(t));
        assert_string_equal(qgc_trial_mode(t), "persistent");
        qgc_trial_cost cost;
        ok(f, qgc_trial_cost_of(t, &cost, &f->diag));
        assert_int_equal(cost.kernels, 2);
        float logits[VOCAB];
        for (int k = 0; k < 3; k++)
            ok(f, qgc_trial_step(t, tokens[k], logits, &f->diag));
        static const char *const inside[] = {"q", "act", "x_rows"}, *const outside[] = {"k_all", "logits",
                                                                                        "next"};
        for (int k = 0; k < 3; k++) {
            const float *at;
            int64_t n;
            bool kept;
            ok(f, qgc_trial_value(t, value(g, inside[k]), &at, &n, &kept, &f->diag));
            assert_false(kept);
            ok(f, qgc_trial_value(t, value(g, outside[k]), &at, &n, &kept, &f->diag));
            assert_true(kept);
            if (k == 1)
                assert_memory_equal(at, logits, sizeof logits);
        }
        double us;
        ok(f, qgc_trial_time(t, 4, &us, &f->diag));
        assert_int_equal(qgc_trial_position(t), 7);
        qgc_trial_drop(t);
    }
}

/* Without dead-code there is a node that the large kernel knows nothing of. */
static void ablation_says_which_pipelines_cannot_run(void **state) {
    fixture *f = *state;
    const qgc_ablate_options o = {
        .run = experiment(f, "  - {op: embedding, in: [tokens, embed], out: spare}\n", "dead-code,fuse-qkv"),
        .ctx = CTX,
        .pairs = 6,
        .subsets = 2};
    qgc_ablation x;
    ok(f, qgc_ablate(&o, &x, &f->diag));
    static const char why[] = "\"spare\" is a second embedding";
    assert_string_equal(x.mode, "persistent");
    assert_null(x.all.refused);
    assert_string_equal(x.none.refused, why);
    assert_string_equal(x.total.refused, why);
    assert_string_equal(x.rows[0].left_out.refused, why);
    assert_string_equal(x.rows[0].alone.refused, why);
    assert_string_equal(x.rows[1].alone.refused, why);
    assert_int_equal(x.n_refused, 2);
    const qgc_ablate_effect *e = &x.rows[1].left_out;
    assert_null(e->refused);
    assert_true(e->us.median == 0 && e->kernels == 0 && e->drift.max_drift == 0 && e->drift.positions == 6);
    assert_true(x.all.cost.kernels < 8); /* no step has as few by itself */
}

static void a_wrong_persistent_kernel_is_found(void **state) {
    fixture *f = *state;
    const qgc_bisect_options o = {.run = experiment(f, "", "split-attention,fuse-qkv,fuse-residual"),
                                  .reproduction = qgc_test_path(f->arena, f->folder, "r")};
    qgc_bisection b;
    ok(f, qgc_bisect(&o, &b, &f->diag));
    assert_string_equal(b.mode, "persistent");
    assert_int_equal(b.verdict, QGC_BISECT_HARMLESS); /* float32, against double precision */
    oracle.wrong = 0.5f;
    ok(f, qgc_bisect(&o, &b, &f->diag));
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_true(b.by_kernels && !b.by_memory);
    assert_string_equal(b.value, "logits");
    assert_int_equal(b.n_files, 0);
    assert_string_equal(b.not_written, "a few nodes by themselves do not run in persistent mode");
    assert_true(b.n_unread > 20 && b.n_compared > 4);
}

static void bisecting_what_cannot_run_is_an_error(void **state) {
    fixture *f = *state;
    const qgc_bisect_options o = {
        .run = experiment(f, "  - {op: embedding, in: [tokens, embed], out: spare}\n", "fuse-qkv")};
    qgc_bisection b;
    assert_int_equal(qgc_bisect(&o, &b, &f->diag), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&f->diag),
                        "\"small\" cannot run in persistent mode: \"spare\" is a second embedding");
}

#define PERSISTENT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        PERSISTENT_TEST(a_trial_reads_what_leaves_the_kernel),
        PERSISTENT_TEST(ablation_says_which_pipelines_cannot_run),
        PERSISTENT_TEST(a_wrong_persistent_kernel_is_found),
        PERSISTENT_TEST(bisecting_what_cannot_run_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_toy_cache, drop_toy_cache);
}
