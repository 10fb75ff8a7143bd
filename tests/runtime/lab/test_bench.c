#include <stdlib.h>
#include <string.h>

#include "codegen/lower.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "runtime/lab/bench.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

/* A bench of a card that reads 1 GB in a millisecond. */
static qgc_bench example(void) {
    static qgc_bench_row rows[] = {
        {QGC_MODE_GRAPH, 16, 800.4, 799.6, 803, 500000000},
        {QGC_MODE_GRAPH, 512, 900, 898, 904, 600000000},
    };
    static qgc_bench_kernel parts[] = {
        {QGC_MODE_GRAPH, "mlp", "linear.cu", 24, 480, 400000000},
        {QGC_MODE_GRAPH, "next", "sample_merge.cu", 1, 5, 0},
    };
    return (qgc_bench){.model = "toy",
                       .device = "A card",
                       .arch = "sm_90a",
                       .driver = 13000,
                       .l2_bytes = 50000000,
                       .bandwidth = 1e12,
                       .probe_bytes = 2000000000,
                       .refusal = {[QGC_MODE_PERSISTENT] = "\"x_out\" is an output"},
                       .kernels = {[QGC_MODE_GRAPH] = 123},
                       .generate_us = {[QGC_MODE_GRAPH] = 810},
                       .generated = 256,
                       .prompts = {{512, 8000}, {2048, 16000}},
                       .kernel_position = 512,
                       .rows = rows,
                       .n_rows = 2,
                       .parts = parts,
                       .n_parts = 2};
}

static void the_table_says_floors_and_gaps(void **state) {
    const qgc_bench b = example();
    qgc_str out = qgc_str_new(*state);
    qgc_bench_table(&b, &out);
    assert_string_equal(
        out.text,
        "toy on A card, sm_90a, CUDA driver 13.0\n"
        "reads 1000 GB/s, measured over 2.0 GB\n"
        "graph mode: 123 kernels a step\n"
        "not in persistent mode: \"x_out\" is an output\n"
        "\n"
        "mode        position  us a token      10 %      90 %    tok/s        GB  floor us  bandwidth\n"
        "graph             16       800.4     799.6     803.0     1249     0.500     500.0       62 %\n"
        "graph            512       900.0     898.0     904.0     1111     0.600     600.0       67 %\n"
        "\n"
        "a text of 256 tokens, the host included\n"
        "graph       810.0 us a token, 1235 tok/s\n"
        "\n"
        "prefill of 512 tokens: 8.00 ms, 64000 tok/s\n"
        "prefill of 2048 tokens: 16.00 ms, 128000 tok/s\n"
        "\n"
        "graph mode, kernel by kernel, at position 512: each by itself\n"
        "node            kernel              times   us each        us        MB  floor us    gap us\n"
        "mlp             linear.cu              24     20.00     480.0     400.0     400.0      80.0\n"
        "next            sample_merge.cu         1      5.00       5.0       0.0       0.0       5.0\n"
        "all                                                     485.0               400.0      85.0\n");
}

/* The parts of the persistent kernel, which were not measured above. */
static qgc_bench traced_example(void) {
    static qgc_bench_part trace[] = {{"qkv", 50, 20, 5, 40000000}, {"merge", 10, 8, 0, 0}};
    qgc_bench b = example();
    b.trace = trace;
    b.n_trace = 2;
    return b;
}

static void the_table_says_what_parts_wait_for(void **state) {
    const qgc_bench b = traced_example();
    qgc_str out = qgc_str_new(*state);
    qgc_bench_table(&b, &out);
    const char *parts = strstr(out.text, "\npersistent mode, part by part");
    assert_non_null(parts);
    assert_string_equal(
        parts, "\npersistent mode, part by part, at position 512; waits: for activations, and for weights\n"
               "part                  MB  floor us        us    gap us  activations   weights\n"
               "qkv                 40.0      40.0      50.0      10.0         20.0       5.0\n"
               "merge                0.0       0.0      10.0      10.0          8.0       0.0\n");
}

static void the_table_says_how_kernels_are_timed(void **state) {
    static qgc_bench_kernel parts[] = {
        {QGC_MODE_PERSISTENT, "persistent", "persistent.cu", 1, 380, 400000000},
        {QGC_MODE_PERSISTENT, "next", "sample_merge.cu", 1, 3, 0}};
    qgc_bench b = example();
    b.parts = parts;
    b.kernels[QGC_MODE_PERSISTENT] = 2;
    b.early[QGC_MODE_PERSISTENT] = 1;
    qgc_str out = qgc_str_new(*state);
    qgc_bench_table(&b, &out);
    assert_non_null(strstr(
        out.text, "\npersistent mode, kernel by kernel, at position 512: what each adds to those before it, "
                  "1 of 2 started early, as in a step\nnode "));
}

static void says_where_the_cache_flatters(void **state) {
    qgc_bench b = example();
    b.l2_bytes = 200000000;
    qgc_str out = qgc_str_new(*state);
    qgc_bench_table(&b, &out);
    assert_non_null(
        strstr(out.text, "a step reads 500.0 MB, and the L2 cache holds 200.0 MB: it flatters\n"));
}

static void says_what_steps_leave_out(void **state) {
    qgc_bench b = example();
    qgc_str out = qgc_str_new(*state);
    qgc_bench_table(&b, &out);
    assert_null(strstr(out.text, "computes nothing"));
    b.probe = QGC_PROBE_NO_STREAM;
    qgc_bench_table(&b, &out);
    assert_non_null(
        strstr(out.text,
               "nothing is read: a step is the chain of exchanges and arithmetic, and computes nothing\n"));
    assert_null(strstr(out.text, "nothing is waited for"));
    b.probe = QGC_PROBE_NO_WAITS;
    qgc_bench_table(&b, &out);
    assert_non_null(strstr(
        out.text, "nothing is waited for: a step is the stream and arithmetic, and computes nothing\n"));
    qgc_diag d = qgc_diag_new(*state);
    qgc_str json = qgc_str_new(*state);
    assert_int_equal(qgc_bench_json(&b, &json, &d), QGC_OK);
    assert_non_null(strstr(json.text, "\"streams\": true"));
    assert_non_null(strstr(json.text, "\"waits\": false"));
}

static void the_json_has_the_numbers(void **state) {
    qgc_arena *a = *state;
    const qgc_bench b = traced_example();
    qgc_str out = qgc_str_new(a);
    qgc_diag d = qgc_diag_new(a);
    assert_int_equal(qgc_bench_json(&b, &out, &d), QGC_OK);
    static const char *const parts[] = {
        "\"bytes_per_second\": 1e12",
        "\"refused\": \"\\\"x_out\\\" is an output\"",
        "\"refused\": null",
        "\"mode\": \"graph\",\n      \"position\": 16,\n      \"us\": 800.4",
        "\"name\": \"mlp\",\n      \"kernel\": \"linear.cu\",\n      \"count\": 24,\n      \"us\": 480.0",
        "\"floor_us\": 400.0",
        "\"name\": \"qkv\",\n      \"us\": 50.0,\n      \"activations_us\": 20.0,\n      \"weights_us\": 5.0",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(out.text, parts[i]))
            fail_msg("no %s in\n%s", parts[i], out.text);
    qgc_bench bad = b;
    bad.model = "\xff";
    assert_int_equal(qgc_bench_json(&bad, &out, &d), QGC_ERR_INPUT);
}

static void the_chart_has_a_row_for_each_line(void **state) {
    const qgc_bench b = example();
    qgc_str out = qgc_str_new(*state);
    qgc_bench_svg(&b, &out);
    assert_non_null(strstr(out.text, "graph, 16"));
    assert_non_null(strstr(out.text, "graph, 512"));
    assert_non_null(strstr(out.text, "</svg>"));
}

/* Every mode reads the same: all matrices once, of which the embedding serves as the head, and the caches. */
static void a_step_reads_every_matrix_once(void **state) {
    qgc_arena *a = *state;
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    qgc_pass_report report;
    qgc_lowered lowered;
    if (qgc_graph_load(&g, "models/qwen2.5-0.5b.yaml", a, &d) != QGC_OK ||
        qgc_passes_run(g, &(qgc_pass_options){0}, &report, &d) != QGC_OK ||
        qgc_lower(g, &(qgc_lower_options){.chunk = 8}, &lowered, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    const int64_t layer = 896 * (896 + 128 + 128) + 896 * 896 + 3 * 896 * 4864;
    const int64_t matrices = 2 * (24 * layer + (int64_t)896 * 151936), position = 24 * 2 * 2 * 64 * 2;
    const qgc_phase_kind phases[] = {QGC_PHASE_DECODE, QGC_PHASE_PERSISTENT};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(qgc_plan_step_bytes(lowered.plan, phases[i], 0), matrices);
        assert_int_equal(qgc_plan_step_bytes(lowered.plan, phases[i], 1000), matrices + 1000 * position);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(the_table_says_floors_and_gaps),
        ARENA_TEST(the_table_says_what_parts_wait_for),
        ARENA_TEST(the_table_says_how_kernels_are_timed),
        ARENA_TEST(the_json_has_the_numbers),
        ARENA_TEST(says_where_the_cache_flatters),
        ARENA_TEST(says_what_steps_leave_out),
        ARENA_TEST(the_json_has_the_numbers),
        ARENA_TEST(the_chart_has_a_row_for_each_line),
        ARENA_TEST(a_step_reads_every_matrix_once),
    };
    return cmocka_run_group_tests_name("lab/bench", tests, NULL, NULL);
}
