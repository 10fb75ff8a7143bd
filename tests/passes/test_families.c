#include <math.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

/* Families of models (models/) on small models with random weights, against the logits that Hugging Face transformers
 * computes (tests/golden/families). Sizes are read from the weights. */

#define FOLDER "tests/golden/families/"

typedef struct {
    const char *family, *model; /* models/FAMILY.yaml, tests/golden/families/MODEL */
} sample;

static const sample samples[] = {
    {"llama", "llama"},
    {"llama", "llama/model.gguf"},
    {"llama", "llama-tied"},
    {"llama", "llama-tied/model.gguf"},
    {"llama", "llama-bias"},
    {"llama", "llama-bias/model.gguf"},
    {"mistral", "mistral"},
    {"qwen2", "qwen2"},
    {"qwen2", "qwen2/model.gguf"},
    {"qwen3", "qwen3"},
    {"qwen3", "qwen3/model.gguf"},
    {"olmo2", "olmo2"},
    {"olmo2", "olmo2/model.gguf"},
    {"granite", "granite"},
    {"granite", "granite/model.gguf"},
    {"smollm3", "smollm3"},
    {"smollm3", "smollm3/model.gguf"},
    {"gemma", "gemma"},
    {"gemma", "gemma/model.gguf"},
};

/* Caches in f32, so that nothing is rounded. */
static const char *with_f32_caches(fixture *f, const char *family) {
    const char *up = "../../../../../../../../../..";
    return fixture_write(f, "family.yaml",
                         qgc_arena_printf(f->arena,
                                          "qgc: 2\nextends: %s%s/models/%s.yaml\nname: small\n"
                                          "state: {k_cache: {dtype: f32}, v_cache: {dtype: f32}}\n",
                                          up, QGC_SOURCE_DIR, family));
}

typedef struct {
    int n, vocab;
    const int32_t *ids;
    const float *logits; /* [n, vocab] */
} golden;

static golden read_golden(fixture *f, const char *model) {
    const size_t length = strcspn(model, "/");
    qgc_file file;
    ok(f, qgc_file_open(&file, qgc_arena_printf(f->arena, FOLDER "%.*s/golden.bin", (int)length, model),
                        &f->diag));
    char *copy = qgc_arena_alloc(f->arena, file.bytes);
    memcpy(copy, file.data, file.bytes);
    const uint32_t *head = (const uint32_t *)(const void *)copy;
    const golden g = {(int)head[0], (int)head[1], (const int32_t *)(head + 2),
                      (const float *)(head + 2 + head[0])};
    assert_int_equal(file.bytes, 4 * (2 + (size_t)g.n + (size_t)g.n * (size_t)g.vocab));
    qgc_file_close(&file);
    return g;
}

/* The largest difference of logits, as a part of the largest logit of the position. */
static double distance(const golden *g, const float *logits) {
    double worst = 0;
    for (int t = 0; t < g->n; t++) {
        double most = 0, apart = 0;
        for (int i = t * g->vocab; i < (t + 1) * g->vocab; i++) {
            most = fmax(most, fabs((double)g->logits[i]));
            apart = fmax(apart, isnan(logits[i]) ? INFINITY : fabs((double)logits[i] - (double)g->logits[i]));
        }
        worst = fmax(worst, apart / most);
    }
    return worst;
}

static double run(fixture *f, qgc_graph *g, const qgc_weights *w, const golden *gold) {
    const qgc_tensor **tensors;
    qgc_pool *pool = qgc_pool_new(1);
    int64_t elems;
    ok(f, qgc_graph_bind(g, w, false, &tensors, &f->diag));
    qgc_eval *e = qgc_eval_new(g, tensors, 64, gold->n, pool);
    ok(f, qgc_eval_step(e, gold->ids, gold->n, 0, true, &f->diag));
    const float *logits = qgc_eval_value(e, qgc_graph_output(g, "logits"), &elems);
    assert_int_equal(elems, gold->n * gold->vocab);
    const double apart = distance(gold, logits);
    qgc_eval_drop(e);
    qgc_pool_drop(pool);
    return apart;
}

/* The graph as it was loaded, and as its print is loaded again without any weights at hand. */
static void logits_are_those_of_transformers(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const sample *s = &samples[i];
        const golden gold = read_golden(f, s->model);
        qgc_weights *w;
        qgc_graph *g, *again;
        ok(f, qgc_weights_open(&w, qgc_arena_printf(f->arena, FOLDER "%s", s->model), &f->diag));
        ok(f, qgc_graph_load_for(&g, with_f32_caches(f, s->family), w, f->arena, &f->diag));
        qgc_str text = qgc_str_new(f->arena), second = qgc_str_new(f->arena);
        qgc_graph_print_yaml(g, &text);
        ok(f, qgc_graph_load_text(&again, "printed", text.text, text.bytes, f->arena, &f->diag));
        qgc_graph_print_yaml(again, &second);
        if (strcmp(text.text, second.text) != 0)
            fail_msg("%s is printed as\n%s\nand then as\n%s", s->model, text.text, second.text);
        const double apart = run(f, g, w, &gold), printed = run(f, again, w, &gold);
        if (!(apart <= 1e-4) || !(printed <= 1e-4))
            fail_msg("%s: logits are %.3g apart, from the printed graph %.3g", s->model, apart, printed);
        qgc_weights_close(w);
    }
}

int main(void) {
    if (chdir(QGC_SOURCE_DIR) != 0)
        return 1;
    const struct CMUnitTest tests[] = {FIXTURE_TEST(logits_are_those_of_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
