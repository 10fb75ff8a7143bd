#include <math.h>

#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/golden.h"
#include "tests/support/printed.h"

/* Models from their YAML and their weights against Hugging Face transformers in float32: the tiny model in both formats
 * (tests/golden/tiny/README.md describes the files), and small ones of other families (tests/golden/small). transformers
 * has caches in float32, and so have the graphs named -f32: there only the order of sums differs. Caches in f16 round
 * keys and values to 11 bits, and the logits differ by as much. */

enum { CTX = 160, CHUNK = 48 };

#define EXACT 1e-4
#define ROUNDED 1e-3

typedef struct {
    const char *graph, *weights, *golden; /* YAML, weights file or folder, folder of golden.bin */
    double tolerance;                     /* of logits, relative to the largest at the position */
} model;

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    golden golden;
    double tolerance;
    qgc_graph *g;
    qgc_weights *w;
    qgc_pool *pool;
    qgc_eval *e;
} fixture;

static void ok(fixture *f, qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
}

static void open_model(fixture *f, const model *m) {
    f->arena = qgc_arena_new();
    f->diag = qgc_diag_new(f->arena);
    f->golden = golden_read(f->arena, m->golden);
    f->tolerance = m->tolerance;
    ok(f, qgc_graph_load(&f->g, m->graph, f->arena, &f->diag));
    ok(f, qgc_weights_open(&f->w, m->weights, &f->diag));
    const qgc_tensor **tensors;
    ok(f, qgc_graph_bind(f->g, f->w, false, &tensors, &f->diag));
    f->pool = qgc_pool_new(2);
    f->e = qgc_eval_new(f->g, tensors, CTX, CTX, f->pool);
}

static void close_model(fixture *f) {
    qgc_eval_drop(f->e);
    qgc_pool_drop(f->pool);
    qgc_weights_close(f->w);
    qgc_arena_drop(f->arena);
}

static const void *output(fixture *f, const char *name, int64_t elems) {
    int64_t n;
    const void *data = qgc_eval_value(f->e, qgc_graph_output(f->g, name), &n);
    assert_non_null(data);
    assert_int_equal(n, elems);
    return data;
}

static void logits_agree(fixture *f) {
    const int64_t vocab = f->golden.vocab;
    double worst = 0;
    for (int i = 0; i < f->golden.n_cases; i++) {
        const golden_case *c = &f->golden.cases[i];
        ok(f, qgc_eval_step(f->e, c->ids, c->n_ids, 0, true, &f->diag));
        const float *logits = output(f, "logits", c->n_ids * vocab);
        for (int32_t t = 0; t < c->n_ids; t++) {
            double apart = golden_difference(logits + t * vocab, c->logits + t * vocab, vocab);
            if (!(apart <= f->tolerance))
                fail_msg("case %d, position %d: logits are %g apart", i, t, apart);
            worst = fmax(worst, apart);
        }
    }
    print_message("%s: logits differ by at most %.2g, %.2g allowed\n", f->g->name, worst, f->tolerance);
}

/* The prompt in chunks, then token by token. After a near tie the text goes on with the token of transformers, so that all
 * choices are compared. */
static void tokens_agree(fixture *f) {
    int ties = 0;
    for (int i = 0; i < f->golden.n_cases; i++) {
        const golden_case *c = &f->golden.cases[i];
        int64_t at = 0;
        for (int64_t n; at < c->n_ids; at += n) {
            n = c->n_ids - at < CHUNK ? c->n_ids - at : CHUNK;
            ok(f, qgc_eval_step(f->e, c->ids + at, n, at, false, &f->diag));
        }
        for (int32_t k = 0; k < c->n_new; k++, at++) {
            int32_t next = *(const int32_t *)output(f, "next", 1);
            if (next != c->new_ids[k] && !golden_near_tie(&f->golden, c, k, f->tolerance))
                fail_msg("%s, case %d, token %d: %d, expected %d", f->g->name, i, k, next, c->new_ids[k]);
            ties += next != c->new_ids[k];
            ok(f, qgc_eval_step(f->e, &c->new_ids[k], 1, at, false, &f->diag));
        }
    }
    if (ties)
        print_message("%s: %d near ties chosen otherwise\n", f->g->name, ties);
}

static void agree(const model *models, size_t n) {
    for (size_t i = 0; i < n; i++) {
        fixture f;
        open_model(&f, &models[i]);
        logits_agree(&f);
        tokens_agree(&f);
        close_model(&f);
    }
}

#define TINY "tests/golden/tiny"
#define SMALL "tests/golden/small/"

static void caches_in_f32_give_the_logits_and_tokens_of_transformers(void **state) {
    (void)state;
    static const model models[] = {
        {TINY "/tiny-f32.yaml", "models/tiny/safetensors", TINY, EXACT},
        {TINY "/tiny-f32.yaml", "models/tiny/tiny.gguf", TINY, EXACT},
        {SMALL "qwen3-f32.yaml", SMALL "qwen3", SMALL "qwen3", EXACT},
        {SMALL "olmo2-f32.yaml", SMALL "olmo2", SMALL "olmo2", EXACT},
        {SMALL "llama-f32.yaml", SMALL "llama", SMALL "llama", EXACT},
    };
    agree(models, sizeof models / sizeof *models);
}

static void caches_in_f16_give_them_up_to_the_rounding(void **state) {
    (void)state;
    static const model models[] = {
        {"models/tiny/tiny.yaml", "models/tiny/safetensors", TINY, ROUNDED},
        {"models/tiny/tiny.yaml", "models/tiny/tiny.gguf", TINY, ROUNDED},
        {SMALL "qwen3.yaml", SMALL "qwen3", SMALL "qwen3", ROUNDED},
        {SMALL "olmo2.yaml", SMALL "olmo2", SMALL "olmo2", ROUNDED},
        {SMALL "llama.yaml", SMALL "llama", SMALL "llama", ROUNDED},
    };
    agree(models, sizeof models / sizeof *models);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caches_in_f32_give_the_logits_and_tokens_of_transformers),
        cmocka_unit_test(caches_in_f16_give_them_up_to_the_rounding),
    };
    return cmocka_run_group_tests_name("passes/golden", tests, NULL, NULL);
}
