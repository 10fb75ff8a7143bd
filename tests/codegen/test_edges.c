/* Which launches may start early: synthetic plans, then those of models. */

#include <string.h>

#include "codegen/edges.h"
#include "codegen/lower.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

/* Kernels, by when they let the next one start and whether they wait. */
enum { BEFORE, BEHIND, AT_END, NO_WAIT, N_KERNELS };

/* Buffers: w and its twin are one weight, x and y lie side by side, part lies in both, cache and log are states. */
enum { W, TWIN, X, Y, PART, CACHE, LOG, TABLE, N_BUFFERS };

enum { R = QGC_READS, RW = QGC_READS | QGC_WRITES, WR = QGC_WRITES, E = QGC_EARLY };

typedef struct {
    const char *name;
    int kernel;
    struct {
        int buffer, access;
    } args[4];
} made_up;

static qgc_plan *plan_with(qgc_arena *a, qgc_phase_kind phase, const made_up *launches, size_t n) {
    static qgc_plan_kernel kernels[N_KERNELS] = {
        [BEFORE] = {.name = "before.cu", .waits = true, .lets_next = QGC_NEXT_BEFORE_WAIT},
        [BEHIND] = {.name = "after.cu", .waits = true, .lets_next = QGC_NEXT_BEHIND_WAIT},
        [AT_END] = {.name = "at_end.cu", .waits = true, .lets_next = QGC_NEXT_AT_END},
        [NO_WAIT] = {.name = "no_wait.cu", .lets_next = QGC_NEXT_BEFORE_WAIT},
    };
    static qgc_plan_weight weights[] = {{.label = "w", .tied = -1}, {.label = "twin", .tied = 0}};
    static qgc_plan_buffer buffers[N_BUFFERS] = {
        [W] = {"w", QGC_BUFFER_WEIGHT, {.fixed = 64}, 0, -1, 0},
        [TWIN] = {"twin", QGC_BUFFER_WEIGHT, {.fixed = 64}, 1, -1, 0},
        [X] = {"x", QGC_BUFFER_SCRATCH, {.per_token = 256}, -1, -1, 0},
        [Y] = {"y", QGC_BUFFER_SCRATCH, {.per_token = 256}, -1, -1, 256},
        [PART] = {"part", QGC_BUFFER_SCRATCH, {.fixed = 16, .per_row = 300}, -1, -1, 0},
        [CACHE] = {"cache", QGC_BUFFER_STATE, {.per_ctx = 4}, -1, -1, 0},
        [LOG] = {"log", QGC_BUFFER_STATE, {.per_ctx = 4}, -1, -1, 0},
        [TABLE] = {"table", QGC_BUFFER_TABLE, {.fixed = 4}, -1, -1, 0},
    };
    qgc_plan *p = qgc_arena_alloc(a, sizeof *p);
    *p = (qgc_plan){.kernels = kernels,
                    .n_kernels = N_KERNELS,
                    .weights = weights,
                    .n_weights = 2,
                    .buffers = buffers,
                    .n_buffers = N_BUFFERS};
    p->phases[phase] = (qgc_phase){qgc_arena_array(a, n, sizeof(qgc_plan_launch)), n};
    for (size_t i = 0; i < n; i++) {
        qgc_plan_launch *l = &p->phases[phase].launches[i];
        *l = (qgc_plan_launch){.node = launches[i].name, .kernel = launches[i].kernel};
        for (int k = 0; k < 4 && launches[i].args[k].access; k++)
            l->args[l->n_args++] = (qgc_plan_arg){.kind = QGC_ARG_BUFFER,
                                                  .buffer = launches[i].args[k].buffer,
                                                  .access = launches[i].args[k].access};
    }
    return p;
}

/* A line for each launch. */
static const char *edges(qgc_arena *a, const qgc_plan *p, qgc_phase_kind phase) {
    qgc_str text = qgc_str_new(a);
    for (size_t i = 0; i < p->phases[phase].n_launches; i++) {
        const qgc_plan_launch *l = &p->phases[phase].launches[i];
        assert_int_equal(l->early, l->not_early == NULL);
        qgc_str_printf(&text, "%s: %s\n", l->node, l->early ? "early" : l->not_early);
    }
    return text.text;
}

static void expect(void **state, const made_up *launches, size_t n, const char *want) {
    qgc_plan *p = plan_with(*state, QGC_PHASE_DECODE, launches, n);
    qgc_place_edges(p, *state);
    assert_string_equal(edges(*state, p, QGC_PHASE_DECODE), want);
}

#define EXPECT(want, ...)                                                                 \
    do {                                                                                  \
        const made_up made_up_launches[] = {__VA_ARGS__};                                 \
        expect(state, made_up_launches, sizeof made_up_launches / sizeof(made_up), want); \
    } while (0)

#define FIRST "it is the first launch of its phase\n"

static void launches_that_read_weights_early_start_early(void **state) {
    EXPECT("A: " FIRST "B: early\nC: early\nD: early\n", {"A", BEFORE, {{W, R | E}, {X, WR}}},
           {"B", BEFORE, {{W, R | E}, {X, R}, {Y, WR}}}, {"C", AT_END, {{TWIN, R | E}, {Y, R}, {X, WR}}},
           {"D", BEHIND, {{X, RW}}});
}

static void what_the_launch_before_writes_is_not_read_early(void **state) {
    EXPECT("A: " FIRST "B: \"B\" reads \"x\" before it waits, which \"A\" one launch earlier may still be "
           "writing\n",
           {"A", BEHIND, {{X, WR}}}, {"B", BEFORE, {{W, R | E}, {X, R | E}, {Y, WR}}});
    EXPECT("A: " FIRST
           "B: \"B\" reads \"cache\" before it waits, which \"A\" one launch earlier may still be "
           "writing\n",
           {"A", AT_END, {{CACHE, RW}}}, {"B", BEFORE, {{CACHE, R | E}}});
    EXPECT("A: " FIRST "B: early\n", {"A", BEHIND, {{X, WR}, {CACHE, WR}}},
           {"B", BEFORE, {{Y, R | E}, {LOG, R | E}, {TABLE, R | E}}});
}

static void scratch_that_shares_bytes_is_the_same_memory(void **state) {
    EXPECT("A: " FIRST
           "B: \"B\" reads \"part\" before it waits, whose bytes \"A\" one launch earlier may still "
           "be writing as \"y\"\n",
           {"A", BEHIND, {{Y, WR}}}, {"B", BEFORE, {{PART, R | E}}});
    EXPECT("A: " FIRST "B: early\n", {"A", BEHIND, {{Y, WR}}}, {"B", BEFORE, {{X, R | E}}});
}

/* Nothing of ours writes weights; a tied one lies in the other's place. */
static void a_tied_weight_is_the_same_memory(void **state) {
    EXPECT("A: " FIRST
           "B: \"B\" reads \"twin\" before it waits, whose bytes \"A\" one launch earlier may still "
           "be writing as \"w\"\n",
           {"A", BEHIND, {{W, WR}}}, {"B", BEFORE, {{TWIN, R | E}}});
}

/* A reads x; B lets C start before its own wait is over, so that A may still run; C writes x at once. */
static void a_write_is_held_against_reads_three_kernels_back(void **state) {
    EXPECT("0: " FIRST "A: early\nB: early\nC: \"C\" writes \"x\" before it waits, which \"A\" two launches "
           "earlier may still be reading\n",
           {"0", BEFORE, {{Y, WR}}}, {"A", BEFORE, {{X, R}}}, {"B", BEFORE, {{Y, R}}},
           {"C", BEFORE, {{X, WR | E}}});
    EXPECT("0: " FIRST
           "A: early\nB: early\nC: \"C\" writes \"x\" before it waits, which \"0\" three launches "
           "earlier may still be writing\n",
           {"0", BEFORE, {{X, WR}}}, {"A", BEFORE, {{Y, R}}}, {"B", BEFORE, {{Y, R}}},
           {"C", BEFORE, {{X, WR | E}}});
    EXPECT("0: " FIRST "1: early\n2: early\n3: early\nC: \"C\" reads \"x\" before it waits, which \"0\" 4 "
           "launches earlier may still be writing\n",
           {"0", BEFORE, {{X, WR}}}, {"1", BEFORE, {{Y, R}}}, {"2", BEFORE, {{Y, R}}},
           {"3", BEFORE, {{Y, R}}}, {"C", BEFORE, {{X, R | E}}});
}

static void a_launch_that_lets_the_next_start_behind_its_wait_ends_the_chain(void **state) {
    EXPECT("A: " FIRST "B: early\nC: early\n", {"A", BEFORE, {{X, R}}}, {"B", BEHIND, {{Y, R}}},
           {"C", BEFORE, {{X, WR | E}}});
    EXPECT("A: " FIRST "B: early\nC: early\n", {"A", BEFORE, {{X, R}}}, {"B", AT_END, {{Y, R}}},
           {"C", BEFORE, {{X, WR | E}}});
}

/* B was started the ordinary way, so A had ended when it began. */
static void a_launch_that_is_not_early_ends_the_chain(void **state) {
    EXPECT("A: " FIRST "B: \"B\" reads \"x\" before it waits, which \"A\" one launch earlier may still be "
           "writing\nC: early\n",
           {"A", BEFORE, {{X, RW}}}, {"B", BEFORE, {{X, R | E}}}, {"C", BEFORE, {{Y, WR | E}}});
    EXPECT("A: " FIRST "B: early\nC: early\n", {"A", BEFORE, {{X, R}}}, {"B", BEFORE, {{Y, R}}},
           {"C", BEFORE, {{TABLE, WR | E}}});
}

static void writes_meet_writes(void **state) {
    EXPECT("A: " FIRST "B: \"B\" writes \"x\" before it waits, which \"A\" one launch earlier may still be "
           "writing\n",
           {"A", BEFORE, {{X, WR}}}, {"B", BEFORE, {{X, WR | E}}});
}

/* And nothing after it overtakes what it did not wait for: it is started when all has ended. */
static void a_kernel_without_a_wait_is_started_the_ordinary_way(void **state) {
    EXPECT("A: " FIRST
           "B: kernel \"no_wait.cu\" does not wait for the launches before it\nC: early\nD: \"D\" "
           "writes \"y\" before it waits, which \"B\" two launches earlier may still be reading\n",
           {"A", BEFORE, {{X, R}}}, {"B", NO_WAIT, {{Y, R}}}, {"C", BEFORE, {{X, WR | E}}},
           {"D", BEFORE, {{Y, WR | E}}});
}

/* A kernel that has the addresses of the states may do anything to them. */
static void addresses_are_followed_to_all_states(void **state) {
    EXPECT("A: " FIRST "B: \"B\" reads \"log\" before it waits, which \"A\" one launch earlier may still be "
           "writing\n",
           {"A", BEFORE, {{TABLE, R | QGC_FOLLOWS}}}, {"B", BEFORE, {{LOG, R | E}}});
    EXPECT("A: " FIRST "B: early\n", {"A", BEFORE, {{TABLE, R}}}, {"B", BEFORE, {{LOG, R | E}}});
}

/* Before its wait such a kernel only reads states. */
static void addresses_that_are_followed_early_are_read(void **state) {
    EXPECT("A: " FIRST "B: early\n", {"A", BEFORE, {{LOG, R}}},
           {"B", BEFORE, {{TABLE, R | E | QGC_FOLLOWS}}});
    EXPECT("A: " FIRST "B: \"B\" reads \"log\" before it waits, which \"A\" one launch earlier may still be "
           "writing\n",
           {"A", BEFORE, {{LOG, WR}}}, {"B", BEFORE, {{TABLE, R | E | QGC_FOLLOWS}}});
}

static void products_of_cublas_are_no_part_of_it(void **state) {
    static const made_up launches[] = {{"A", BEFORE, {{X, R}}},
                                       {"B", BEFORE, {{Y, R}}},
                                       {"C", BEFORE, {{Y, R}}},
                                       {"D", BEFORE, {{W, R | E}}}};
    qgc_plan *p = plan_with(*state, QGC_PHASE_DECODE, launches, 4);
    p->phases[QGC_PHASE_DECODE].launches[1].kind = QGC_LAUNCH_GEMM;
    qgc_place_edges(p, *state);
    assert_string_equal(
        edges(*state, p, QGC_PHASE_DECODE),
        "A: " FIRST "B: it is a product of cuBLAS, whose kernels do not wait\n"
        "C: \"B\" before it is a product of cuBLAS, of which it is not known when it lets the "
        "next launch start\n"
        "D: early\n");
}

/* The first launch of a persistent step comes after the last one of the step before. */
static void expect_circle(void **state, const made_up *launches, size_t n, const char *want) {
    qgc_plan *p = plan_with(*state, QGC_PHASE_PERSISTENT, launches, n);
    qgc_place_edges(p, *state);
    assert_string_equal(edges(*state, p, QGC_PHASE_PERSISTENT), want);
}

#define EXPECT_CIRCLE(want, ...)                                                                 \
    do {                                                                                         \
        const made_up made_up_launches[] = {__VA_ARGS__};                                        \
        expect_circle(state, made_up_launches, sizeof made_up_launches / sizeof(made_up), want); \
    } while (0)

static void persistent_steps_are_a_circle(void **state) {
    EXPECT_CIRCLE("A: early\nB: early\n", {"A", AT_END, {{W, R | E}, {X, RW}}},
                  {"B", BEHIND, {{X, R}, {Y, RW}}});
    EXPECT_CIRCLE(
        "A: \"A\" reads \"y\" before it waits, which \"B\" one launch earlier may still be writing\n"
        "B: early\n",
        {"A", AT_END, {{W, R | E}, {Y, R | E}}}, {"B", BEHIND, {{X, R}, {Y, RW}}});
    /* B lets the next step start before its own wait, so that A of the step before may still run */
    EXPECT_CIRCLE(
        "A: \"A\" reads \"x\" before it waits, which \"A\" two launches earlier may still be writing\n"
        "B: early\n",
        {"A", AT_END, {{X, RW | E}}}, {"B", BEFORE, {{Y, RW}}});
    EXPECT_CIRCLE("A: early\nB: early\n", {"A", AT_END, {{X, RW | E}}}, {"B", BEHIND, {{Y, RW}}});
    EXPECT_CIRCLE(
        "A: it is the first launch of its phase, and lets the next one start before its own wait is over\n"
        "B: early\n",
        {"A", BEFORE, {{W, R | E}}}, {"B", BEHIND, {{X, R}}});
    EXPECT_CIRCLE("A: kernel \"no_wait.cu\" does not wait for the launches before it\nB: early\n",
                  {"A", NO_WAIT, {{W, R | E}}}, {"B", BEHIND, {{X, R}}});
}

/* They start when what is before them has ended, which waits for none of them. */
static void blocks_that_run_at_once_may_start_early(void **state) {
    static const made_up launches[] = {{"A", AT_END, {{X, R}}}, {"B", BEFORE, {{Y, R}}}};
    qgc_plan *p = plan_with(*state, QGC_PHASE_PERSISTENT, launches, 2);
    p->phases[QGC_PHASE_PERSISTENT].launches[0].on_all = true;
    qgc_place_edges(p, *state);
    assert_string_equal(edges(*state, p, QGC_PHASE_PERSISTENT), "A: early\nB: early\n");
}

/* Init, prefill and pack run as they always did. */
static void other_phases_are_not_looked_at(void **state) {
    static const made_up launches[] = {{"A", BEFORE, {{X, R}}}, {"B", BEFORE, {{Y, R}}}};
    qgc_plan *p = plan_with(*state, QGC_PHASE_PREFILL, launches, 2);
    qgc_place_edges(p, *state);
    for (int i = 0; i < 2; i++) {
        assert_false(p->phases[QGC_PHASE_PREFILL].launches[i].early);
        assert_null(p->phases[QGC_PHASE_PREFILL].launches[i].not_early);
    }
}

/* --- models ---------------------------------------------------------------------------------------------- */

static qgc_plan *lowered(qgc_arena *a, const char *path, const char *passes) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    qgc_pass_report report;
    qgc_lowered l = {0};
    if (qgc_graph_load(&g, path, a, &d) != QGC_OK ||
        qgc_passes_run(g, &(qgc_pass_options){.passes = passes}, &report, &d) != QGC_OK ||
        qgc_lower(g, &(qgc_lower_options){.chunk = 512}, &l, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    return l.plan;
}

/* All of a phase but its first launch start early; of a persistent step that one too. */
static void all_but_the_first(const qgc_plan *p, qgc_phase_kind phase, size_t n) {
    assert_int_equal(p->phases[phase].n_launches, n);
    for (size_t i = 0; i < n; i++) {
        const qgc_plan_launch *l = &p->phases[phase].launches[i];
        if (l->early != (i > 0 || phase == QGC_PHASE_PERSISTENT))
            fail_msg("%s: %s", l->node, l->not_early ? l->not_early : "early");
    }
}

static void the_steps_of_models_start_early(void **state) {
    const qgc_plan *p = lowered(*state, "models/qwen2.5-0.5b.yaml", NULL);
    all_but_the_first(p, QGC_PHASE_DECODE, 124);
    all_but_the_first(p, QGC_PHASE_PERSISTENT, 2);
    all_but_the_first(lowered(*state, "models/tiny/tiny.yaml", NULL), QGC_PHASE_DECODE, 24);
    all_but_the_first(lowered(*state, "models/tiny/tiny.yaml", ""), QGC_PHASE_DECODE, 79);
    all_but_the_first(lowered(*state, "models/qwen2.5-7b.yaml", NULL), QGC_PHASE_DECODE, 144);
}

/* In a real step: the output projection of layer 3, if it read its input early, after kernels that let it. */
static void a_kernel_that_read_its_input_early_would_be_found(void **state) {
    qgc_plan *p = lowered(*state, "models/tiny/tiny.yaml", NULL);
    qgc_phase *decode = &p->phases[QGC_PHASE_DECODE];
    size_t at = 0;
    while (strcmp(decode->launches[at].node, "out[3]") != 0)
        at++;
    qgc_plan_launch *out = &decode->launches[at];
    out->args[0].access |= QGC_EARLY;
    qgc_place_edges(p, *state);
    assert_false(out->early);
    assert_string_equal(out->not_early,
                        "\"out[3]\" reads \"a[3]\" before it waits, which \"attention a[3]\" one "
                        "launch earlier may still be writing");
    out->args[0].access &= ~QGC_EARLY;
    for (int i = 0; i < out->n_args; i++) /* the residual comes from two launches further back */
        if (strcmp(p->buffers[out->args[i].buffer].name, "x[2]") == 0)
            out->args[i].access |= QGC_EARLY;
    qgc_place_edges(p, *state);
    assert_null(out->not_early); /* queries, keys and values let attention start after their own wait only */
    p->kernels[(out - 2)->kernel].lets_next = QGC_NEXT_BEFORE_WAIT;
    qgc_place_edges(p, *state);
    assert_string_equal(out->not_early, "\"out[3]\" reads \"x[2]\" before it waits, which \"out_2[2]\" three "
                                        "launches earlier may still be writing");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(launches_that_read_weights_early_start_early),
        ARENA_TEST(what_the_launch_before_writes_is_not_read_early),
        ARENA_TEST(scratch_that_shares_bytes_is_the_same_memory),
        ARENA_TEST(a_tied_weight_is_the_same_memory),
        ARENA_TEST(a_write_is_held_against_reads_three_kernels_back),
        ARENA_TEST(a_launch_that_lets_the_next_start_behind_its_wait_ends_the_chain),
        ARENA_TEST(a_launch_that_is_not_early_ends_the_chain),
        ARENA_TEST(writes_meet_writes),
        ARENA_TEST(a_kernel_without_a_wait_is_started_the_ordinary_way),
        ARENA_TEST(addresses_are_followed_to_all_states),
        ARENA_TEST(addresses_that_are_followed_early_are_read),
        ARENA_TEST(products_of_cublas_are_no_part_of_it),
        ARENA_TEST(persistent_steps_are_a_circle),
        ARENA_TEST(blocks_that_run_at_once_may_start_early),
        ARENA_TEST(other_phases_are_not_looked_at),
        ARENA_TEST(the_steps_of_models_start_early),
        ARENA_TEST(a_kernel_that_read_its_input_early_would_be_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
