/* Bisecting on a fake device, some of whose kernels are wrong: the graph is right all the same. */

#include <math.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/load.h"
#include "passes/load.h"
#include "passes/load_impl.h"
#include "passes/rewrite.h"
#include "runtime/lab/bisect.h"
#include "runtime/lab/random_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_toy.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"

enum { STEPS = 6 };
static const int32_t tokens[STEPS] = {5, 30, 11, 7, 39, 11};

/* --- kernels that are wrong ------------------------------------------------------------------------------ */

/* With a norm in front it takes the first element twice. */
static void run_wrong_fusion(void **args, const unsigned grid[3]) {
    float *out = pointer(args, 14);
    run_linear(args, grid);
    if (pointer(args, 1) != pointer(args, 0))
        for (int i = 0; i < VOCAB; i++)
            out[i] += ((const float *)pointer(args, 0))[0] *
                      qgc_bf16_to_f32(((const uint16_t *)pointer(args, 2))[i * D]);
}

/* It forgets the weight of the last element. */
static void run_wrong_norm(void **args, const unsigned grid[3]) {
    float *out = pointer(args, 2);
    run_rms_norm(args, grid);
    out[D - 1] /= ((const float *)pointer(args, 1))[D - 1];
}

/* The token after the most likely one. */
static void run_wrong_choice(void **args, const unsigned grid[3]) {
    run_sample_merge(args, grid);
    int32_t *next = pointer(args, 7);
    *next = (*next + 1) % VOCAB;
}

/* The draw is hotter than the settings say; what is most likely stays. */
static void run_hotter_choice(void **args, const unsigned grid[3]) {
    qgc_sampling *settings = pointer(args, 5), was = *settings;
    settings->temperature *= 1.5f;
    run_sample_merge(args, grid);
    *settings = was;
}

/* Tokens that were seen are preferred where they should be avoided. */
static void run_wrong_penalty(void **args, const unsigned grid[3]) {
    qgc_sampling *settings = pointer(args, 5), was = *settings;
    settings->repeat_penalty = 1 / was.repeat_penalty;
    run_sample_merge(args, grid);
    *settings = was;
}

/* Wrong where its result lies in front of its input, in a place that another had: as if that one were still read. */
static void run_norm_that_shares(void **args, const unsigned grid[3]) {
    float *out = pointer(args, 2);
    run_rms_norm(args, grid);
    if ((uintptr_t)out < (uintptr_t)pointer(args, 0))
        out[0] = 7;
}

/* Where there are several tokens, the last is taken for the one before. */
static void run_wrong_prefill(void **args, const unsigned grid[3]) {
    run_embedding(args, grid);
    float *out = pointer(args, 2);
    const ptrdiff_t last = (ptrdiff_t)grid[0] - 1;
    if (last > 0)
        memcpy(out + last * D, out + (last - 1) * D, D * sizeof *out);
}

/* From the end to the beginning. */
static void run_other_order(void **args, const unsigned grid[3]) {
    float *out = pointer(args, 14), normed[D];
    const float *x = vector_of_linear(args, normed);
    const uint16_t *w = pointer(args, 2);
    (void)grid;
    for (int i = 0; i < VOCAB; i++) {
        out[i] = 0;
        for (int k = D - 1; k >= 0; k--)
            out[i] += x[k] * qgc_bf16_to_f32(w[i * D + k]);
    }
}

/* --- fixture --------------------------------------------------------------------------------------------- */

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    const char *folder;
    qgc_pool *pool;
    qgc_weights *weights;
    qgc_device *dev;
    fake_kernel kernels[sizeof toy_kernels / sizeof *toy_kernels + 1]; /* room for one from outside */
} fixture;

static void ok(fixture *f, qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
}

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    *f = (fixture){.arena = arena,
                   .diag = qgc_diag_new(arena),
                   .folder = qgc_test_folder(arena),
                   .pool = qgc_pool_new(1)};
    memcpy(f->kernels, toy_kernels, sizeof toy_kernels);
    const char *path = qgc_test_path(arena, f->folder, "toy.gguf");
    qgc_graph *g;
    ok(f, qgc_graph_load_text(&g, "toy.yaml", toy_model, strlen(toy_model), arena, &f->diag));
    ok(f, qgc_random_weights_write(g, path, 1, &f->diag));
    ok(f, qgc_weights_open(&f->weights, path, &f->diag));
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    int held = fake_device_held(f->dev);
    qgc_device_close(f->dev);
    qgc_weights_close(f->weights);
    qgc_pool_drop(f->pool);
    qgc_test_folder_drop(f->arena, qgc_test_path(f->arena, f->folder, "r"));
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return held; /* everything must have been given back */
}

static qgc_bisection bisect_phase(fixture *f, const char *entry,
                                  void (*run)(void **args, const unsigned grid[3]), const char *passes,
                                  qgc_judge_phase phase) {
    for (size_t i = 0; f->kernels[i].entry; i++)
        if (strcmp(f->kernels[i].entry, entry) == 0)
            f->kernels[i].run = run;
    f->dev = fake_device_new(f->kernels);
    const qgc_bisect_options o = {.run.graph = "toy.yaml",
                                  .text = toy_model,
                                  .run.weights = f->weights,
                                  .run.passes = passes,
                                  .run.device = f->dev,
                                  .run.cache_folder = toy_cache.folder,
                                  .run.pool = f->pool,
                                  .run.tokens = tokens,
                                  .run.n_tokens = STEPS,
                                  .run.positions = STEPS,
                                  .phase = phase,
                                  .reproduction = qgc_test_path(f->arena, f->folder, "r")};
    ok(f, qgc_folder_make(o.reproduction, &f->diag));
    qgc_bisection b;
    ok(f, qgc_bisect(&o, &b, &f->diag));
    return b;
}

static qgc_bisection bisect(fixture *f, const char *entry, void (*run)(void **args, const unsigned grid[3]),
                            const char *passes) {
    return bisect_phase(f, entry, run, passes, QGC_PHASE_BOTH);
}

static const char *read_file(fixture *f, const char *path) {
    qgc_source file;
    ok(f, qgc_file_read(&file, path, 1 << 20, "file", &f->diag));
    return file.text;
}

/* --- tests ----------------------------------------------------------------------------------------------- */

static void a_wrong_fused_kernel_is_found_and_cut_out(void **state) {
    fixture *f = *state;
    qgc_bisection b = bisect(f, "linear", run_wrong_fusion, FUSED ",plan-memory");
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_true(b.by_kernels && !b.by_memory);
    assert_true(b.evaluated == 0 && b.all > 1e-2 && b.none < 1e-5);
    assert_string_equal(b.mode, "graph");
    assert_string_equal(b.pass, "fuse-norm-linear");
    assert_int_equal(b.change, 1);
    assert_int_equal(b.n_changes, 1);
    assert_string_equal(b.rule_at, "logits");
    assert_string_equal(b.value, "logits");
    assert_string_equal(b.node, "linear(h, head)");
    assert_true(b.apart > 1e-2 && b.inputs < 1e-5);
    assert_int_equal(b.n_files, 3);
    const char *bad = read_file(f, b.files[0]), *kernel = read_file(f, b.files[2]);
    assert_non_null(strstr(bad, "  - {op: rms_norm, in: [x_rows, norm], eps: 1e-06, out: h, fuse: kernel}\n"
                                "  - {op: linear, in: [h, head], out: logits, fuse: kernel}\n"));
    assert_non_null(strstr(kernel, "/* Kernel \"linear\" of kernel, "));
    assert_non_null(strstr(kernel, "#define NORM 1\n"));
}

static void a_wrong_kernel_of_a_node_needs_no_pass(void **state) {
    fixture *f = *state;
    qgc_bisection b = bisect(f, "rms_norm", run_wrong_norm, "dead-code");
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_true(b.by_kernels);
    assert_null(b.pass);
    assert_string_equal(b.value, "h");
    assert_string_equal(b.node, "rms_norm(x_rows, norm)");
    assert_non_null(strstr(read_file(f, b.files[0]),
                           "  - {op: rms_norm, in: [x_rows, norm], eps: 1e-06, out: logits}\n"));
}

static void a_wrong_choice_is_found_behind_logits_that_are_right(void **state) {
    fixture *f = *state;
    qgc_bisection b = bisect(f, "sample_merge", run_wrong_choice, FUSED ",plan-memory");
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_true(b.by_kernels && !b.by_memory);
    assert_null(b.pass);
    assert_string_equal(b.value, "next");
    assert_true(b.apart > 1e-3);
    assert_non_null(
        strstr(read_file(f, b.files[0]), "  - {op: sample, in: [logits, rows, positions, seen_now"));
}

static void a_draw_that_is_wrong_is_found_where_the_most_likely_token_is_right(void **state) {
    fixture *f = *state;
    const qgc_bisection b = bisect(f, "sample_merge", run_hotter_choice, FUSED);
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_string_equal(b.value, "next");
    assert_non_null(strstr(b.why, ", temperature "));
    assert_non_null(strstr(b.why, " the device chooses token "));
}

static void a_penalty_that_is_wrong_is_found(void **state) {
    fixture *f = *state;
    const qgc_bisection b = bisect(f, "sample_merge", run_wrong_penalty, FUSED);
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_string_equal(b.value, "next");
    assert_non_null(strstr(b.why, ", penalty "));
}

static void a_fault_of_the_memory_plan_is_no_fault_of_a_kernel(void **state) {
    fixture *f = *state;
    qgc_bisection b = bisect(f, "rms_norm", run_norm_that_shares, "dead-code,plan-memory");
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_true(b.by_kernels && b.by_memory);
    assert_string_equal(b.pass, "plan-memory");
    assert_int_equal(b.change, 1);
    assert_null(b.value);
    assert_int_equal(b.n_files, 0);
}

static void sums_in_another_order_are_harmless(void **state) {
    fixture *f = *state;
    qgc_bisection b = bisect(f, "linear", run_other_order, FUSED);
    assert_int_equal(b.verdict, QGC_BISECT_HARMLESS);
    assert_true(b.by_kernels && b.all > 0 && b.all < 1e-5);
    assert_string_equal(b.value, "logits");
    assert_true(b.apart > 0 && b.apart < b.rounding);
}

static void kernels_of_prefill_are_looked_at_where_it_is_asked_for(void **state) {
    fixture *f = *state;
    qgc_bisection b = bisect_phase(f, "embedding", run_wrong_prefill, "dead-code", QGC_PHASE_ONLY_PREFILL);
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_true(b.by_kernels && !b.by_memory);
    assert_null(b.pass);
    assert_string_equal(b.value, "x");
    assert_int_equal(b.position, STEPS - 1); /* of the step */
    assert_true(b.apart > 1e-1);
    assert_string_equal(b.not_written, "a few nodes by themselves are looked at in decode steps");
}

static void prefill_that_is_right_is_no_fault(void **state) {
    fixture *f = *state;
    qgc_bisection b = bisect_phase(f, "embedding", run_embedding, FUSED, QGC_PHASE_ONLY_PREFILL);
    assert_int_not_equal(b.verdict, QGC_BISECT_WRONG);
}

static void decode_steps_do_not_see_a_fault_of_prefill(void **state) {
    fixture *f = *state;
    qgc_bisection b = bisect_phase(f, "embedding", run_wrong_prefill, "dead-code", QGC_PHASE_ONLY_DECODE);
    assert_int_not_equal(b.verdict, QGC_BISECT_WRONG);
}

/* --- a kernel from outside ------------------------------------------------------------------------------- */

enum { NORM };

static bool fuse_norm(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse_as(rw, "own_norm", "own", (qgc_node *[]){m->node[NORM]}, 1);
}

static const qgc_rule norm_rules[] = {{"rms_norm", P(NORM, RMS_NORM, FREE), fuse_norm}, {0}};

static qgc_status own_norm(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, norm_rules, d);
}

static const qgc_kernel_row own_rows[] = {
    {.name = "own_norm",
     .text = "extern \"C\" __global__ void own_norm(const float *x, const float *w, float *n) {\n"
             "    float squares = 0.0f;\n"
             "    for (int i = 0; i < WIDTH; i++) squares += x[i] * x[i];\n"
             "    for (int i = 0; i < WIDTH; i++) n[i] = x[i] / sqrtf(squares / WIDTH + EPS) * w[i];\n"
             "}\n",
     .nodes = "n = rms_norm(x, w)",
     .params = "x: f32 reads, w: f32 reads, n: f32 writes",
     .options = "WIDTH = x.width, EPS = n.eps",
     .grid = "1",
     .threads = "1"},
    {0}};

/* Its text is right, and what the device makes of it is not: that names the pass and its change, too. */
static void a_kernel_that_only_a_device_shows_to_be_wrong_is_named(void **state) {
    fixture *f = *state;
    static const qgc_pass_info passes[] = {{"own-norm", own_norm, NULL, "a norm by a kernel from outside"},
                                           {0}};
    static const qgc_pass_rows table = {.abi = QGC_PASS_ABI, .passes = passes};
    ok(f, qgc_passes_add("the test", &table, &f->diag));
    ok(f, qgc_load_plugin_kernels("the test", own_rows, &f->diag));
    f->kernels[sizeof toy_kernels / sizeof *toy_kernels - 1] =
        (fake_kernel){"own_norm", "ppp", run_wrong_norm};
    const qgc_bisection b = bisect(f, "own_norm", run_wrong_norm, "dead-code,own-norm");
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_string_equal(b.pass, "own-norm");
    assert_int_equal(b.change, 1);
    assert_string_equal(b.rule_at, "h");
    assert_non_null(strstr(b.why, "kernel \"own_norm\" does not compute stage \"own\": \"n\" is"));
    assert_non_null(strstr(b.why, "(on "));
    qgc_device_close(f->dev);
    f->dev = NULL;
    const qgc_bisection right = bisect(f, "own_norm", run_rms_norm, "dead-code,own-norm");
    assert_int_not_equal(right.verdict, QGC_BISECT_WRONG); /* a device that is there is asked again */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_wrong_fused_kernel_is_found_and_cut_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wrong_kernel_of_a_node_needs_no_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wrong_choice_is_found_behind_logits_that_are_right, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_draw_that_is_wrong_is_found_where_the_most_likely_token_is_right,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_penalty_that_is_wrong_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(a_fault_of_the_memory_plan_is_no_fault_of_a_kernel, setup, teardown),
        cmocka_unit_test_setup_teardown(kernels_of_prefill_are_looked_at_where_it_is_asked_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(prefill_that_is_right_is_no_fault, setup, teardown),
        cmocka_unit_test_setup_teardown(decode_steps_do_not_see_a_fault_of_prefill, setup, teardown),
        cmocka_unit_test_setup_teardown(sums_in_another_order_are_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(a_kernel_that_only_a_device_shows_to_be_wrong_is_named, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, make_toy_cache, drop_toy_cache);
}
