/* Plans of whole models, pinned by hashes: tests/golden/plans.txt has a line for each phase of each. Moving code must not
 * change one; who means to change them runs this with QGC_UPDATE=1 in the environment, and the difference is in the commit. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/lower.h"
#include "graph/base/file.h"
#include "graph/base/hash.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

static const char golden[] = QGC_SOURCE_DIR "/tests/golden/plans.txt";

static void print_extent(qgc_str *text, const qgc_extent *e) {
    qgc_str_printf(text, " %lld,%lld,%lld,%lld", (long long)e->fixed, (long long)e->per_token,
                   (long long)e->per_row, (long long)e->per_ctx);
    if (e->most_ctx)
        qgc_str_printf(text, "<%lld", (long long)e->most_ctx);
}

static void print_buffer(qgc_str *text, const qgc_plan *p, int buffer) {
    if (buffer >= 0)
        qgc_str_printf(text, " %s/%d@%lld", p->buffers[buffer].name, (int)p->buffers[buffer].kind,
                       (long long)p->buffers[buffer].offset);
}

static void print_launch(qgc_str *text, const qgc_plan *p, const qgc_plan_launch *l) {
    qgc_str_printf(text, "%s", l->node);
    if (l->kind == QGC_LAUNCH_KERNEL) {
        const qgc_plan_kernel *k = &p->kernels[l->kernel];
        qgc_str_printf(text, " %s %s %d+%d %d-%d", k->name, k->options, k->threads, k->copy_threads,
                       k->least_shared_bytes, k->shared_bytes);
        if (k->program)
            qgc_str_add(text, k->program);
    }
    for (int i = 0; i < 3; i++) {
        print_extent(text, &l->grid[i]);
        qgc_str_printf(text, "/%lld", (long long)l->per_block[i]);
    }
    for (int i = 0; i < l->n_args; i++) {
        print_buffer(text, p, l->args[i].buffer);
        print_extent(text, &l->args[i].value);
        qgc_str_printf(text, " %d", l->args[i].access);
    }
    print_buffer(text, p, l->a), print_buffer(text, p, l->b), print_buffer(text, p, l->c);
    print_extent(text, &l->rows);
    qgc_str_printf(text, " %lld %lld %d %d %d\n", (long long)l->n, (long long)l->k, l->accumulate, l->early,
                   l->on_all);
}

/* A line for each phase of a graph with a pipeline. */
static void pin(fixture *f, qgc_str *out, const char *path, const char *passes) {
    qgc_graph *g;
    qgc_pass_report report;
    qgc_lowered lowered;
    ok(f, qgc_graph_load(&g, path, f->arena, &f->diag));
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.passes = passes}, &report, &f->diag));
    ok(f, qgc_lower(g, &(qgc_lower_options){.chunk = 512}, &lowered, &f->diag));
    for (int phase = 0; phase < QGC_N_PHASES; phase++) {
        qgc_str text = qgc_str_new(f->arena);
        const qgc_phase *ph = &lowered.plan->phases[phase];
        for (size_t i = 0; i < ph->n_launches; i++)
            print_launch(&text, lowered.plan, &ph->launches[i]);
        qgc_str_printf(out, "%s %s %s: %zu launches, %016llx\n", path, passes ? "no passes" : "default",
                       qgc_phase_name((qgc_phase_kind)phase), ph->n_launches,
                       (unsigned long long)qgc_hash64(text.text, text.bytes));
    }
}

static void plans_are_those_that_were_pinned(void **state) {
    fixture *f = *state;
    static const char *const models[] = {"models/tiny/tiny.yaml", "models/qwen2.5-0.5b.yaml",
                                         "models/qwen2.5-7b.yaml", "tests/gpu/shapes/broad.yaml",
                                         "tests/gpu/shapes/long.yaml"}; /* weights in blocks */
    qgc_str text = qgc_str_new(f->arena);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        pin(f, &text, models[i], NULL);
        pin(f, &text, models[i], "");
    }
    if (getenv("QGC_UPDATE")) {
        FILE *file = fopen(golden, "w");
        assert_non_null(file);
        assert_true(fputs(text.text, file) >= 0);
        assert_int_equal(fclose(file), 0);
    }
    qgc_file want;
    ok(f, qgc_file_open(&want, golden, &f->diag));
    if (want.bytes != text.bytes || memcmp(want.data, text.text, text.bytes) != 0)
        fail_msg("%s is not what the plans are now:\n%s", golden, text.text);
    qgc_file_close(&want);
}

int main(void) {
    const struct CMUnitTest tests[] = {FIXTURE_TEST(plans_are_those_that_were_pinned)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
