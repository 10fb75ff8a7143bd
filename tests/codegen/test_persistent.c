#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/kernel_sources.h"
#include "codegen/lower.h"
#include "graph/base/file.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/subset.h"

/* Which graphs the persistent step takes, and what it makes of them. Its kernel is tested on a GPU: tests/gpu/. */

static const qgc_plan *lower_by(fixture *f, const char *path, const char *passes,
                                const qgc_lower_options *o) {
    qgc_graph *g;
    qgc_pass_report report;
    qgc_lowered out;
    ok(f, qgc_graph_load(&g, path, f->arena, &f->diag));
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.passes = passes}, &report, &f->diag));
    ok(f, qgc_lower(g, o, &out, &f->diag));
    return out.plan;
}

static const qgc_plan *lower(fixture *f, const char *path, const char *passes, unsigned probe) {
    return lower_by(f, path, passes, &(qgc_lower_options){.chunk = 32, .probe = probe});
}

static const qgc_plan *plan_of(fixture *f, const char *path) {
    return lower(f, path, NULL, 0);
}

/* A small Qwen2, with some more lines of YAML. */
static const char *small_with(fixture *f, const char *more) {
    const char *text = qgc_arena_printf(f->arena,
                                        "qgc: 1\nextends: ../..%s/models/qwen2.yaml\nname: small\n"
                                        "params: {layers: 2, d_model: 128, d_ff: 192, heads: 4, kv_heads: 2, "
                                        "d_head: 32, vocab: 99, rope_base: 1e4, eps: 1e-6, "
                                        "max_positions: 64}\n%s",
                                        QGC_SOURCE_DIR, more);
    return fixture_write(f, "small.yaml", text);
}

static const qgc_plan_launch *step_of(const qgc_plan *p) {
    return &p->phases[QGC_PHASE_PERSISTENT].launches[0];
}

static const char *program_of(const qgc_plan *p) {
    return p->kernels[step_of(p)->kernel].program;
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        n++;
    return n;
}

static bool has_option(const qgc_lowered *out, const char *option) {
    const qgc_kernel_job *job = &out->jobs[step_of(out->plan)->kernel];
    for (int i = 0; i < job->n_options; i++)
        if (strcmp(job->options[i], option) == 0)
            return true;
    return false;
}

static void leaves_out_what_a_probe_leaves_out(void **state) {
    fixture *f = *state;
    static const struct {
        unsigned probe;
        bool no_stream, no_waits;
    } cases[] = {{0, false, false},
                 {QGC_PROBE_NO_STREAM, true, false},
                 {QGC_PROBE_NO_WAITS, false, true},
                 {QGC_PROBE_NO_STREAM | QGC_PROBE_NO_WAITS, true, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_graph *g;
        qgc_pass_report report;
        qgc_lowered out;
        ok(f, qgc_graph_load(&g, "models/qwen2.5-0.5b.yaml", f->arena, &f->diag));
        ok(f, qgc_passes_run(g, &(qgc_pass_options){0}, &report, &f->diag));
        ok(f, qgc_lower(g, &(qgc_lower_options){.chunk = 32, .probe = cases[i].probe}, &out, &f->diag));
        assert_int_equal(has_option(&out, "-DSTREAMS=0"), cases[i].no_stream);
        assert_int_equal(has_option(&out, "-DWAITS=0"), cases[i].no_waits);
    }
}

static void takes_the_models_of_its_families(void **state) {
    static const char *const paths[] = {"models/qwen2.5-0.5b.yaml",
                                        "models/qwen2.5-1.5b.yaml",
                                        "models/qwen2.5-3b.yaml",
                                        "models/qwen2.5-7b.yaml",
                                        "tests/gpu/shapes/qwen3-0.6b.yaml",
                                        "tests/gpu/shapes/qwen3-8b.yaml",
                                        "tests/gpu/shapes/llama-3.2-1b.yaml",
                                        "tests/gpu/shapes/olmo-2-1b.yaml",
                                        "tests/gpu/shapes/qwen2.5-32b.yaml",
                                        "models/tiny/tiny.yaml"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const qgc_plan *p = plan_of(*state, paths[i]);
        assert_null(p->not_persistent);
        const qgc_phase *phase = &p->phases[QGC_PHASE_PERSISTENT];
        assert_true(phase->launches[0].on_all);
        assert_string_equal(p->kernels[phase->launches[0].kernel].name, "persistent.cu");
        for (size_t k = 1; k < phase->n_launches; k++)
            assert_false(phase->launches[k].on_all);
        assert_int_equal(count(program_of(p), "for (int i = 0;"), 1); /* one loop over the layers */
    }
}

/* No pass, each alone, each left out, and many in any order: there is always a persistent step, and a fusion is a phase less. */
static void takes_any_subset_of_the_passes(void **state) {
    static const char *const paths[] = {"models/tiny/tiny.yaml", "tests/golden/small/qwen3.yaml",
                                        "tests/golden/small/olmo2.yaml", "tests/golden/small/llama.yaml"};
    fixture *f = *state;
    uint64_t random = 11;
    for (size_t m = 0; m < sizeof paths / sizeof *paths; m++) {
        const int all = step_of(lower(f, paths[m], NULL, 0))->n_parts;
        assert_true(step_of(lower(f, paths[m], "", 0))->n_parts > all);
        for (int i = 0; i < 80; i++) {
            const char *passes = test_pipeline(f->arena, (unsigned)i, test_chosen_pipelines(), &random);
            const qgc_plan *p = lower(f, paths[m], passes, 0);
            if (p->not_persistent)
                fail_msg("%s with passes \"%s\": %s", paths[m], passes, p->not_persistent);
            assert_true(step_of(p)->n_parts >= all);
        }
    }
}

/* kernels/program.cuh, which editors and nvcc see, is what is written for this model; QGC_UPDATE=1 writes it anew. */
static void the_program_beside_the_kernels_is_one_of_these(void **state) {
    const char *text = program_of(plan_of(*state, "models/qwen2.5-0.5b.yaml"));
    if (getenv("QGC_UPDATE")) {
        FILE *file = fopen(QGC_SOURCE_DIR "/kernels/program.cuh", "w");
        assert_non_null(file);
        assert_true(fputs(text, file) >= 0);
        assert_int_equal(fclose(file), 0);
    }
    fixture *f = *state;
    qgc_source source;
    ok(f, qgc_file_read(&source, QGC_SOURCE_DIR "/kernels/program.cuh", 1 << 20, "program", &f->diag));
    assert_string_equal(source.text, text);
}

static const qgc_plan_part *part_named(const qgc_plan_launch *l, const char *name) {
    for (int i = 0; i < l->n_parts; i++)
        if (strcmp(l->parts[i].name, name) == 0)
            return &l->parts[i];
    fail_msg("there is no part \"%s\"", name);
    return NULL;
}

/* The bytes of its parts are those of the kernel. */
static void counts_its_parts(void **state) {
    const qgc_plan *p = plan_of(*state, "models/qwen2.5-0.5b.yaml");
    const qgc_plan_launch *l = step_of(p);
    int64_t weights = 0, position = 0;
    for (int i = 0; i < l->n_parts; i++) {
        weights += l->parts[i].weight_bytes;
        position += l->parts[i].position_bytes;
    }
    assert_int_equal(weights, l->weight_bytes);
    assert_int_equal(position, l->position_bytes);
    assert_int_equal(l->weight_bytes,
                     2 * (24LL * (1152 * 896 + 896 * 896 + 3 * 896 * 4864) + 151936LL * 896));
    assert_int_equal(part_named(l, "mlp")->weight_bytes, 2LL * 24 * 2 * 4864 * 896);
    assert_int_equal(l->n_layers, 24);
    assert_int_equal(p->trace, -1);
}

static void wants_a_block_for_each_head_and_few_rows_for_each(void **state) {
    fixture *f = *state;
    assert_int_equal(plan_of(f, small_with(f, ""))->least_sms, 2);
    const char *text = "qgc: 1\nextends: small.yaml\nname: other\nparams: {kv_heads: 4}\n";
    assert_int_equal(plan_of(f, fixture_write(f, "other.yaml", text))->least_sms, 4);
    assert_int_equal(plan_of(f, "models/qwen2.5-0.5b.yaml")->least_sms, 896 / 88 + 1);
}

static void traces_if_it_is_asked_to(void **state) {
    const qgc_plan *p = lower(*state, "models/qwen2.5-0.5b.yaml", NULL, QGC_PROBE_TRACE);
    assert_true(p->trace >= 0);
    const qgc_plan_launch *l = step_of(p);
    assert_non_null(strstr(p->kernels[l->kernel].options, "-DTRACE=1"));
    bool written = false;
    for (int i = 0; i < l->n_args; i++)
        written = written || (l->args[i].buffer == p->trace && l->args[i].access == QGC_WRITES);
    assert_true(written);
}

static void leaves_sampling_to_kernels_of_its_own(void **state) {
    fixture *f = *state;
    const qgc_plan *p = plan_of(f, small_with(f, ""));
    const qgc_phase *phase = &p->phases[QGC_PHASE_PERSISTENT];
    assert_true(phase->n_launches > 1);
    assert_string_equal(p->kernels[phase->launches[phase->n_launches - 1].kernel].name, "sample_merge.cu");
}

/* The order of lines is nothing, data flow is all: with silu(gate) a line before up it is the same program. */
static void the_order_of_lines_does_not_matter(void **state) {
    fixture *f = *state;
    const char *silu_first = program_of(plan_of(f, "tests/gpu/cases/silu_first.yaml"));
    assert_int_equal(count(silu_first, "op_mul(op_silu(l0),l1)"), 1);
    assert_int_equal(count(silu_first, "struct phase"),
                     count(program_of(plan_of(f, "models/tiny/tiny.yaml")), "struct phase"));
}

/* A bias in some layers is zeros in the others, a layer without rope turns by no table, and windows, rings and how positions are cut
 * are data. */
static void layers_may_differ(void **state) {
    fixture *f = *state;
    const char *biases = program_of(plan_of(f, "tests/gpu/cases/biases_in_some_layers.yaml"));
    assert_int_equal(count(biases, "for (int i = 0;"), 1);
    assert_int_equal(count(biases, "BIAS = 1"), 1);
    const char *unrotated = program_of(plan_of(f, "tests/gpu/cases/unrotated_layer.yaml"));
    assert_int_equal(count(unrotated, "for (int i = 0;"), 1);
    assert_non_null(strstr(unrotated, "int q_rope(int i) { return 0x"));
    const char *windows = program_of(plan_of(f, "tests/gpu/shapes/gemma-2-2b.yaml"));
    assert_int_equal(count(windows, "for (int i = 0;"), 1);
    assert_int_equal(count(windows, "DOES = DO_ATTENTION"), 1);
    assert_non_null(strstr(windows, "int window(int i) { return 0x2aaaaaaull >> i % 64 & 1 ? 0 : 4096; }"));
    assert_non_null(strstr(windows, "int ring(int i) { return 0x2aaaaaaull >> i % 64 & 1 ? 0 : 5120; }"));
    assert_non_null(strstr(windows, "int cut(int i) { return 0x2aaaaaaull >> i % 64 & 1 ? 1 : 0; }"));
}

static void says_why_a_graph_does_not_fit(void **state) {
    static const struct {
        const char *yaml, *why;
    } cases[] = {
        {"state: {v_cache: {dtype: f32}}\n", "caches are f16 and f32, not both f16 or both bf16"},
        {"weights: {wo: {dtype: f32}}\n", "weight \"wo[0]\" is stored as f32, in more than 16 bits"},
        {"outputs: [logits, next, x_out]\n", "\"x_out\" is an output"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qgc_plan *p = plan_of(f, small_with(f, cases[i].yaml));
        assert_non_null(p->not_persistent);
        assert_string_equal(p->not_persistent, cases[i].why);
        assert_int_equal(p->phases[QGC_PHASE_PERSISTENT].n_launches, 0);
        assert_int_equal(p->phases[QGC_PHASE_PACK].n_launches, 0);
    }
    assert_string_equal(plan_of(f, "tests/gpu/cases/old_cache.yaml")->not_persistent,
                        "attention \"a_parts\" reads \"k_cache\" as it is before this step");
    assert_string_equal(plan_of(f, "tests/gpu/shapes/smallest.yaml")->not_persistent,
                        "\"wq[0]\" has rows of 1 elements, no multiple of 64");
}

/* Four slots of 14,336 bytes with their barriers, and what lies beside the ring: kernels/program.cuh has the number. */
static void the_ring_is_as_large_as_the_card_allows(void **state) {
    enum { LEAST = 84992 };
    static const struct {
        int has;
        bool alone;
        int least, most;
    } cards[] = {{0, false, LEAST, 232448},
                 {101376, false, LEAST, 101376},
                 {101376, true, 101376, 101376},
                 {300000, false, LEAST, 232448},
                 {LEAST + 512, false, LEAST, LEAST + 512}};
    fixture *f = *state;
    const char *const path = "models/qwen2.5-0.5b.yaml";
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++) {
        const qgc_card card = {.shared_bytes = cards[i].has};
        const qgc_plan *p = lower_by(
            f, path, NULL, &(qgc_lower_options){.chunk = 32, .card = &card, .card_alone = cards[i].alone});
        const qgc_plan_kernel *k = &p->kernels[step_of(p)->kernel];
        assert_int_equal(k->least_shared_bytes, cards[i].least);
        assert_int_equal(k->shared_bytes, cards[i].most);
        assert_int_equal(k->threads, 14 * 32 + 32);
        assert_int_equal(k->copy_threads, 32);
        assert_null(strstr(k->options, "SHARED_BYTES"));
    }
    const qgc_card small = {.shared_bytes = 40000};
    const qgc_plan *p = lower_by(f, path, NULL, &(qgc_lower_options){.chunk = 32, .card = &small});
    assert_string_equal(p->not_persistent,
                        "its ring needs 54016 bytes of shared memory a block, and there are 39936");
    assert_int_equal(p->phases[QGC_PHASE_PERSISTENT].n_launches, 0);
    assert_non_null(strstr(program_of(plan_of(f, path)), "WORKSPACE_BYTES = 26864 "));
}

/* Fewer warps multiply where a ring of four slots for more of them has no room: on sm_75, or on a card with as little. */
static void fewer_warps_where_shared_memory_is_small(void **state) {
    fixture *f = *state;
    const qgc_card card = {.shared_bytes = 65536};
    const qgc_lower_options options[] = {{.chunk = 32, .card = &card},
                                         {.chunk = 32, .most_shared_bytes = 65536}};
    for (int i = 0; i < 2; i++) {
        const qgc_plan *p = lower_by(f, "models/qwen2.5-0.5b.yaml", NULL, &options[i]);
        const qgc_plan_kernel *k = &p->kernels[step_of(p)->kernel];
        assert_int_equal(k->threads, 8 * 32 + 32);
        assert_true(k->least_shared_bytes <= 65536 && k->shared_bytes == 65536);
        assert_non_null(strstr(k->program, "WARPS = 8,"));
        assert_non_null(strstr(k->program, "#define COPY_BYTES 8800"));
    }
}

/* At the pace of the memory of the card. Where the ring is large, or copies are not in bulk, it is not. */
static void the_stream_is_asked_for_ahead_of_a_small_ring(void **state) {
    static const struct {
        int arch, shared;
        int64_t bandwidth; /* of 132 multiprocessors */
        const char *option;
    } cases[] = {{90, 101376, 0, "-DINTO_L2=172032 -DAHEAD_PACE=800"},
                 {90, 101376, 3352000000000, "-DINTO_L2=172032 -DAHEAD_PACE=800"},
                 {120, 101376, 1676000000000, "-DINTO_L2=172032 -DAHEAD_PACE=1600"},
                 {90, 232448, 0, "-DINTO_L2=0"},
                 {80, 101376, 0, NULL}};
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qgc_card card = {.sms = 132, .shared_bytes = cases[i].shared, .bandwidth = cases[i].bandwidth};
        const qgc_lower_options options = {.chunk = 32, .least_arch = cases[i].arch, .card = &card};
        const qgc_plan *p = lower_by(f, "models/qwen2.5-0.5b.yaml", NULL, &options);
        const char *has = p->kernels[step_of(p)->kernel].options;
        assert_true(cases[i].option ? strstr(has, cases[i].option) != NULL : !strstr(has, "INTO_L2"));
        assert_int_equal(count(program_of(p), "RULE u64 rest("), 5);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_stream_is_asked_for_ahead_of_a_small_ring),
        FIXTURE_TEST(leaves_out_what_a_probe_leaves_out),
        FIXTURE_TEST(takes_the_models_of_its_families),
        FIXTURE_TEST(takes_any_subset_of_the_passes),
        FIXTURE_TEST(the_program_beside_the_kernels_is_one_of_these),
        FIXTURE_TEST(counts_its_parts),
        FIXTURE_TEST(wants_a_block_for_each_head_and_few_rows_for_each),
        FIXTURE_TEST(traces_if_it_is_asked_to),
        FIXTURE_TEST(leaves_sampling_to_kernels_of_its_own),
        FIXTURE_TEST(the_order_of_lines_does_not_matter),
        FIXTURE_TEST(layers_may_differ),
        FIXTURE_TEST(says_why_a_graph_does_not_fit),
        FIXTURE_TEST(the_ring_is_as_large_as_the_card_allows),
        FIXTURE_TEST(fewer_warps_where_shared_memory_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
