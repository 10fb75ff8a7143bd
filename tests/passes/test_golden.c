#include <math.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

/* The tiny model from its YAML and its weights, in both formats, against Hugging Face transformers in float32
 * (tests/golden/tiny/README.md describes the file). */

enum { MAX_CASES = 8, CTX = 160, CHUNK = 48 };

typedef struct {
    uint32_t n_ids, n_new;
    const int32_t *ids, *chosen;
    const float *logits; /* [n_ids, vocab] */
} golden_case;

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_file golden;
    uint32_t vocab, n_cases;
    golden_case cases[MAX_CASES];
    qgc_graph *g;
    qgc_weights *w;
    qgc_pool *pool;
    qgc_eval *e;
} fixture;

static void ok(fixture *f, qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
}

/* The next `bytes` of the file, which is padded to words. */
static const void *take(const fixture *f, size_t *at, size_t bytes) {
    const void *p = f->golden.data + *at;
    *at += (bytes + 3) & ~(size_t)3;
    assert_true(*at <= f->golden.bytes);
    return p;
}

static uint32_t take_number(const fixture *f, size_t *at) {
    uint32_t n;
    memcpy(&n, take(f, at, sizeof n), sizeof n);
    return n;
}

static void read_golden(fixture *f) {
    ok(f, qgc_file_open(&f->golden, "tests/golden/tiny/golden.bin", &f->diag));
    size_t at = 0;
    assert_memory_equal(take(f, &at, 8), "QGCGOLD1", 8);
    f->vocab = take_number(f, &at);
    f->n_cases = take_number(f, &at);
    assert_true(f->n_cases >= 3 && f->n_cases <= MAX_CASES);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        golden_case *c = &f->cases[i];
        uint32_t text_bytes = take_number(f, &at);
        c->n_ids = take_number(f, &at);
        c->n_new = take_number(f, &at);
        uint32_t new_bytes = take_number(f, &at);
        take(f, &at, text_bytes);
        c->ids = take(f, &at, 4u * c->n_ids);
        c->logits = take(f, &at, (size_t)4 * c->n_ids * f->vocab);
        c->chosen = take(f, &at, 4u * c->n_new);
        take(f, &at, 4u * c->n_new);
        take(f, &at, new_bytes);
        assert_true(c->n_new == 64 && c->n_ids + c->n_new <= CTX);
    }
    assert_int_equal(at, f->golden.bytes);
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
    read_golden(f);
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_eval_drop(f->e);
    qgc_pool_drop(f->pool);
    qgc_weights_close(f->w);
    qgc_file_close(&f->golden);
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

/* Largest difference of a row, relative to its largest logit. */
static double difference(const float *got, const float *want, uint32_t n) {
    double largest = 0, apart = 0;
    for (uint32_t i = 0; i < n; i++) {
        largest = fmax(largest, fabsf(want[i]));
        if (!(fabs((double)got[i] - want[i]) <= apart))
            apart = fabs((double)got[i] - want[i]);
    }
    return apart / largest;
}

static void logits_agree(fixture *f) {
    double worst = 0;
    for (uint32_t i = 0; i < f->n_cases; i++) {
        const golden_case *c = &f->cases[i];
        ok(f, qgc_eval_step(f->e, c->ids, c->n_ids, 0, true, &f->diag));
        const float *logits = output(f, "logits", (int64_t)c->n_ids * f->vocab);
        for (uint32_t t = 0; t < c->n_ids; t++) {
            double apart = difference(logits + t * f->vocab, c->logits + t * f->vocab, f->vocab);
            if (!(apart <= 1e-4))
                fail_msg("case %u, position %u: logits are %g apart", i, t, apart);
            worst = fmax(worst, apart);
        }
    }
    print_message("largest relative difference %.2g\n", worst);
}

/* The prompt in chunks, then token by token. */
static void tokens_agree(fixture *f) {
    for (uint32_t i = 0; i < f->n_cases; i++) {
        const golden_case *c = &f->cases[i];
        int64_t at = 0;
        for (int64_t n; at < c->n_ids; at += n) {
            n = c->n_ids - at < CHUNK ? c->n_ids - at : CHUNK;
            ok(f, qgc_eval_step(f->e, c->ids + at, n, at, false, &f->diag));
        }
        for (uint32_t k = 0; k < c->n_new; k++, at++) {
            int32_t next = *(const int32_t *)output(f, "next", 1);
            if (next != c->chosen[k])
                fail_msg("case %u, token %u: %d, expected %d", i, k, next, c->chosen[k]);
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
