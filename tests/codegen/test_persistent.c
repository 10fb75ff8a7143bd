#include <string.h>

#include "codegen/lower.h"
#include "graph/load.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

/* Which graphs the persistent step takes. Its kernel is tested on a GPU: tests/gpu/test_modes.c. */

static const qgc_plan *lowered(fixture *f, qgc_graph *g) {
    qgc_lowered out;
    assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 32}, &out, &f->diag), QGC_OK);
    return out.plan;
}

static qgc_graph *load(fixture *f, const char *path) {
    qgc_graph *g;
    ok(f, qgc_graph_load(&g, path, f->arena, &f->diag));
    return g;
}

static const qgc_plan *plan_of(fixture *f, const char *path) {
    return lowered(f, load(f, path));
}

/* A small Qwen2, with some more lines of YAML. */
static const qgc_plan *plan_with(fixture *f, const char *more) {
    const char *text = qgc_arena_printf(f->arena,
                                        "qgc: 1\nextends: ../..%s/models/qwen2.yaml\nname: small\n"
                                        "params: {layers: 2, d_model: 128, d_ff: 192, heads: 4, kv_heads: 2, "
                                        "d_head: 32, vocab: 99, rope_base: 1e4, eps: 1e-6, "
                                        "max_positions: 64}\n%s",
                                        QGC_SOURCE_DIR, more);
    const char *path = fixture_write(f, "small.yaml", text);
    return plan_of(f, path);
}

static void takes_the_models_of_the_family(void **state) {
    static const char *const paths[] = {"models/qwen2.5-0.5b.yaml", "models/qwen2.5-1.5b.yaml",
                                        "models/qwen2.5-3b.yaml", "models/qwen2.5-7b.yaml"};
    for (int i = 0; i < 4; i++) {
        const qgc_plan *p = plan_of(*state, paths[i]);
        assert_null(p->not_persistent);
        const qgc_phase *phase = &p->phases[QGC_PHASE_PERSISTENT];
        assert_true(phase->launches[0].on_all);
        assert_string_equal(p->kernels[phase->launches[0].kernel].name, "persistent.cu");
        assert_true(phase->launches[0].weight_bytes > (int64_t)900e6);
        for (size_t k = 1; k < phase->n_launches; k++)
            assert_false(phase->launches[k].on_all);
    }
}

/* The bytes of its parts are those of the kernel. */
static void counts_its_parts(void **state) {
    fixture *f = *state;
    const qgc_plan *p = plan_of(f, "models/qwen2.5-0.5b.yaml");
    const qgc_plan_launch *l = &p->phases[QGC_PHASE_PERSISTENT].launches[0];
    int64_t weights = 0, position = 0;
    for (int i = 0; i < l->n_parts; i++) {
        weights += l->parts[i].weight_bytes;
        position += l->parts[i].position_bytes;
    }
    assert_int_equal(weights, l->weight_bytes);
    assert_int_equal(position, l->position_bytes);
    assert_string_equal(l->parts[4].name, "mlp");
    assert_int_equal(p->trace, -1);
}

static void wants_a_block_for_each_head_and_few_rows_for_each(void **state) {
    assert_int_equal(plan_with(*state, "")->least_sms, 2);
    const char *text = "qgc: 1\nextends: small.yaml\nname: other\nparams: {kv_heads: 4}\n";
    fixture *f = *state;
    assert_int_equal(
        plan_of(f, qgc_test_write(f->arena, f->folder, "other.yaml", text, strlen(text)))->least_sms, 4);
    assert_int_equal(plan_of(f, "models/qwen2.5-0.5b.yaml")->least_sms, 896 / 88 + 1);
}

static void traces_if_it_is_asked_to(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/qwen2.5-0.5b.yaml");
    qgc_lowered out;
    assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 32, .traced = true}, &out, &f->diag), QGC_OK);
    assert_true(out.plan->trace >= 0);
    const qgc_plan_launch *l = &out.plan->phases[QGC_PHASE_PERSISTENT].launches[0];
    assert_non_null(strstr(out.plan->kernels[l->kernel].options, "-DTRACE=1"));
    bool written = false;
    for (int i = 0; i < l->n_args; i++)
        written = written || (l->args[i].buffer == out.plan->trace && l->args[i].access == QGC_WRITES);
    assert_true(written);
}

static const qgc_value *result(const qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind == QGC_RESULT && strcmp(g->values[i]->name, name) == 0)
            return g->values[i];
    fail_msg("no value \"%s\"", name);
    return NULL;
}

/* For runs of single steps; what stays inside the kernel has no buffer, though a decode step has one for it. */
static void says_where_a_step_has_its_values(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/qwen2.5-0.5b.yaml");
    qgc_lowered out;
    ok(f, qgc_lower(g, &(qgc_lower_options){.chunk = 1, .no_prefill = true}, &out, &f->diag));
    assert_int_equal(out.plan->phases[QGC_PHASE_PREFILL].n_launches, 0);
    assert_null(out.plan->not_persistent);
    static const char *const inside[] = {"q", "act", "x"}, *const outside[] = {"k_all", "logits", "next"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(out.persistent_buffers[result(g, inside[i])->id], -1);
        assert_true(out.buffers[result(g, inside[i])->id] >= 0);
        assert_true(out.persistent_buffers[result(g, outside[i])->id] >= 0);
    }
    ok(f, qgc_lower(load(f, "tests/gpu/shapes/odd.yaml"), &(qgc_lower_options){.chunk = 1}, &out, &f->diag));
    assert_null(out.persistent_buffers);
}

static void leaves_sampling_to_kernels_of_its_own(void **state) {
    const qgc_plan *p = plan_with(*state, "");
    const qgc_phase *phase = &p->phases[QGC_PHASE_PERSISTENT];
    assert_null(p->not_persistent);
    assert_int_equal(p->phases[QGC_PHASE_PACK].n_launches, 3); /* two layers and the head */
    assert_true(phase->n_launches > 1);
    assert_string_equal(p->kernels[phase->launches[phase->n_launches - 1].kernel].name, "sample_merge.cu");
}

static void says_why_a_graph_does_not_fit(void **state) {
    static const struct {
        const char *yaml, *why;
    } cases[] = {
        {"state: {v_cache: {dtype: f32}}\n", "caches are f16 and f32, not both f16 or both bf16"},
        {"weights: {wo: {dtype: f16}}\n",
         "weight \"wo[0]\" is stored as f16, and not all as bf16 or all as f16"},
        {"outputs: [logits, next, x_out]\n", "\"x_out\" is an output"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qgc_plan *p = plan_with(*state, cases[i].yaml);
        assert_non_null(p->not_persistent);
        assert_string_equal(p->not_persistent, cases[i].why);
        assert_int_equal(p->phases[QGC_PHASE_PERSISTENT].n_launches, 0);
        assert_int_equal(p->phases[QGC_PHASE_PACK].n_launches, 0);
    }
    assert_string_equal(plan_of(*state, "tests/gpu/shapes/odd.yaml")->not_persistent,
                        "weight \"wq[0]\" is stored as f16, and not all as bf16 or all as f16");
    assert_string_equal(plan_of(*state, "tests/gpu/shapes/smallest.yaml")->not_persistent,
                        "width 1 is no multiple of 64");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(takes_the_models_of_the_family),
        FIXTURE_TEST(counts_its_parts),
        FIXTURE_TEST(wants_a_block_for_each_head_and_few_rows_for_each),
        FIXTURE_TEST(traces_if_it_is_asked_to),
        FIXTURE_TEST(says_where_a_step_has_its_values),
        FIXTURE_TEST(leaves_sampling_to_kernels_of_its_own),
        FIXTURE_TEST(says_why_a_graph_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
