#include <math.h>

#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/golden.h"
#include "tests/support/printed.h"

/* The tiny model from its YAML and its weights, in both formats, against Hugging Face transformers in float32
 * (tests/golden/tiny/README.md describes the file). */

enum { CTX = 160, CHUNK = 48 };

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    golden golden;
    qgc_graph *g;
    qgc_weights *w;
    qgc_pool *pool;
    qgc_eval *e;
} fixture;

static void ok(fixture *f, qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
}

static void open_model(fixture *f, const char *weights) {
    ok(f, qgc_graph_load(&f->g, "models/tiny/tiny.yaml", f->arena, &f->diag));
    ok(f, qgc_weights_open(&f->w, weights, &f->diag));
    const qgc_tensor **tensors;
    ok(f, qgc_graph_bind(f->g, f->w, false, &tensors, &f->diag));
    f->pool = qgc_pool_new(2);
    f->e = qgc_eval_new(f->g, tensors, CTX, CTX, f->pool);
}

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    f->arena = arena;
    f->diag = qgc_diag_new(arena);
    *state = f;
    f->golden = golden_read(arena);
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_eval_drop(f->e);
    qgc_pool_drop(f->pool);
    qgc_weights_close(f->w);
    qgc_arena_drop(f->arena);
    return 0;
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
            if (!(apart <= 1e-4))
                fail_msg("case %d, position %d: logits are %g apart", i, t, apart);
            worst = fmax(worst, apart);
        }
    }
    print_message("largest relative difference %.2g\n", worst);
}

/* The prompt in chunks, then token by token. */
static void tokens_agree(fixture *f) {
    for (int i = 0; i < f->golden.n_cases; i++) {
        const golden_case *c = &f->golden.cases[i];
        int64_t at = 0;
        for (int64_t n; at < c->n_ids; at += n) {
            n = c->n_ids - at < CHUNK ? c->n_ids - at : CHUNK;
            ok(f, qgc_eval_step(f->e, c->ids + at, n, at, false, &f->diag));
        }
        for (int32_t k = 0; k < c->n_new; k++, at++) {
            int32_t next = *(const int32_t *)output(f, "next", 1);
            if (next != c->new_ids[k])
                fail_msg("case %d, token %d: %d, expected %d", i, k, next, c->new_ids[k]);
            ok(f, qgc_eval_step(f->e, &next, 1, at, false, &f->diag));
        }
    }
}

static void logits_and_tokens_are_those_of_transformers_from_safetensors(void **state) {
    open_model(*state, "models/tiny/safetensors");
    logits_agree(*state);
    tokens_agree(*state);
}

static void logits_and_tokens_are_those_of_transformers_from_gguf(void **state) {
    open_model(*state, "models/tiny/tiny.gguf");
    logits_agree(*state);
    tokens_agree(*state);
}

#define GOLDEN_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        GOLDEN_TEST(logits_and_tokens_are_those_of_transformers_from_safetensors),
        GOLDEN_TEST(logits_and_tokens_are_those_of_transformers_from_gguf),
    };
    return cmocka_run_group_tests_name("passes/golden", tests, NULL, NULL);
}
