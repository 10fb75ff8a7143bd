#include <math.h>
#include <string.h>

#include "codegen/nvrtc.h"
#include "graph/base/file.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/lab/bisect_impl.h"
#include "tests/support/text.h"
#include "tests/support/tiny.h"

enum { STEPS = 6 };
static const int32_t tokens[STEPS] = {5, 300, 41, 7, 1000, 41};

static bisect_side open_side(fixture *f, const char *path, const qgc_weights *w, const char *passes) {
    bisect_side s = {.arena = qgc_arena_new()};
    ok(f, qgc_graph_load(&s.graph, path, s.arena, &f->diag));
    ok(f, qgc_graph_bind(s.graph, w, false, &s.tensors, &f->diag));
    ok(f, qgc_passes_run(s.graph, &(qgc_pass_options){.passes = passes}, &s.report, &f->diag));
    ok(f, qgc_trial_new(&s.trial, s.graph, w, s.tensors,
                        &(qgc_trial_options){.ctx = STEPS, .keep_values = true, .pool = f->pool}, &f->diag));
    s.vocab = qgc_trial_vocab(s.trial);
    return s;
}

static void drop_side(bisect_side *s) {
    qgc_trial_drop(s->trial);
    qgc_arena_drop(s->arena);
}

static const float *read_value(fixture *f, const bisect_side *s, const qgc_value *v, int64_t *n) {
    const float *at;
    bool kept;
    ok(f, qgc_trial_value(s->trial, v, &at, n, &kept, &f->diag));
    assert_true(kept);
    return at;
}

static const char *read_file(fixture *f, const char *path) {
    qgc_source file;
    ok(f, qgc_file_read(&file, path, 1 << 20, "file", &f->diag));
    return file.text;
}

static void distances_are_parts_of_the_largest(void **state) {
    (void)state;
    const float good[] = {1, -4, 2}, bad[] = {1, -4, 2.5f}, nan[] = {1, NAN, 2}, inf[] = {1, INFINITY, 2},
                none[] = {0, 0, 0};
    assert_true(bisect_distance(good, good, 3) == 0);
    assert_true(fabs(bisect_distance(good, bad, 3) - 0.125) < 1e-12);
    assert_true(isinf(bisect_distance(good, nan, 3)));
    assert_true(isinf(bisect_distance(good, inf, 3)));
    assert_true(isinf(bisect_distance(inf, good, 3)));
    assert_true(bisect_distance(inf, inf, 3) == 0);
    assert_true(isinf(bisect_distance(none, good, 3)));
    assert_true(bisect_distance(none, none, 3) == 0);
}

/* The one file of the kernel compiles by itself. */
static void compile_kernel(fixture *f, qgc_nvrtc *nvrtc, const char *text) {
    const qgc_kernel_source sources[] = {{"kernel.cu", text}, {0}};
    const qgc_nvrtc_job job = {.sources = sources, .file = "kernel.cu", .arch = "sm_90a", .node = "a test"};
    const void *cubin;
    size_t bytes;
    ok(f, qgc_nvrtc_compile(nvrtc, &job, &cubin, &bytes, &f->diag));
    assert_true(bytes > 0);
}

/* The small graph gives, for tokens 0, 1, 2, ..., what the large one computed for its text. */
static void check_slice(fixture *f, const bisect_side *whole, const qgc_value *v, const qgc_bisection *b) {
    qgc_weights *w;
    ok(f, qgc_weights_open(&w, b->files[1], &f->diag));
    bisect_side slice = open_side(f, b->files[0], w, NULL);
    ok(f, qgc_trial_reset(whole->trial, &f->diag));
    float *logits = qgc_arena_array(slice.arena, (size_t)slice.vocab, sizeof *logits);
    for (int32_t i = 0; i < b->steps; i++) {
        int64_t n;
        ok(f, qgc_trial_step(whole->trial, tokens[i], NULL, &f->diag));
        ok(f, qgc_trial_step(slice.trial, i, logits, &f->diag));
        const float *want = read_value(f, whole, v, &n);
        assert_int_equal(n, slice.vocab);
        assert_memory_equal(logits, want, (size_t)n * sizeof *logits);
    }
    drop_side(&slice);
    qgc_weights_close(w);
}

/* Does a result leave its kernel? */
static bool is_handed_on(const qgc_graph *g, const qgc_value *v) {
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] == v && (n->group < 0 || n->group != v->maker->group))
                return true;
    return v == qgc_graph_output(g, "logits") || v == qgc_graph_output(g, "next");
}

/* Where kernels are at fault the slice is the whole group. Every value that leaves its kernel takes a turn. */
static void any_group_can_be_cut_out(void **state) {
    fixture *f = *state;
    bisect_side good = open_side(f, "models/tiny/tiny.yaml", f->weights, NULL),
                bad = open_side(f, "models/tiny/tiny.yaml", f->weights, NULL);
    qgc_nvrtc *nvrtc;
    ok(f, qgc_nvrtc_open(&nvrtc, NULL, &f->diag));
    bisect_comparison c;
    ok(f, bisect_compare(&good, &bad, tokens, STEPS, true, &c, &f->diag));
    assert_null(c.part);
    int n_cut = 0, group = -2;
    for (const qgc_node *n = bad.graph->first; n; n = n->next) {
        if (n->layer > 1 || !is_handed_on(bad.graph, n->out[0])) /* layers are alike */
            continue;
        c.part = n->out[0];
        for (size_t i = 0; i < bad.graph->n_values; i++)
            c.values[i].apart = 1;
        qgc_bisection b = {0};
        ok(f, bisect_write(f->folder, &good, &bad, &c, tokens, STEPS, true, &b, &f->diag));
        if (b.not_written)
            fail_msg("\"%s\": %s", c.part->name, b.not_written);
        int members = 0;
        for (const qgc_node *m = bad.graph->first; m && n->group >= 0; m = m->next)
            members += m->group == n->group;
        assert_int_equal(count(read_file(f, b.files[0]), "fuse: kernel"), members);
        const bool rows = c.part->dtype == QGC_F32 && c.part->shape.rank == 2;
        if (rows)
            check_slice(f, &good, good.graph->values[c.part->id], &b);
        if (b.n_files < 3)
            fail_msg("no kernel for \"%s\":\n%s", c.part->name, read_file(f, b.files[0]));
        if (n->group < 0 || n->group != group)
            compile_kernel(f, nvrtc, read_file(f, b.files[2]));
        group = n->group;
        n_cut++;
    }
    assert_true(n_cut > 15);
    qgc_nvrtc_close(nvrtc);
    drop_side(&bad);
    drop_side(&good);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(distances_are_parts_of_the_largest, setup, teardown),
        cmocka_unit_test_setup_teardown(any_group_can_be_cut_out, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
