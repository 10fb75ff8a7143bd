/* Scores of rows of logits: the kernel against the host. */

#include <math.h>

#include "codegen/nvrtc.h"
#include "kernels/cpu/on_cpu_launch.h"
#include "runtime/engine/score.h"
#include "tests/support/fixture.h"
#include "tests/support/random.h"

void score_rows_on_cpu(const float *logits, const float *other, const int32_t *targets, void *out,
                       int32_t vocab, int rows, int order);

enum { ROWS = 7, MOST_VOCAB = 1000 };

typedef struct {
    float logits[ROWS * MOST_VOCAB], other[ROWS * MOST_VOCAB];
    int32_t targets[ROWS];
    qgc_row_score scores[ROWS];
} rows;

static float draw(uint64_t *seed) {
    return (float)((double)(test_random(seed) % 2000001) / 1e6 - 1) * 20;
}

/* Those of the other model are near; whole numbers have many equals. */
static void fill(rows *r, int vocab, bool whole, uint64_t seed) {
    for (int i = 0; i < ROWS * vocab; i++) {
        r->logits[i] = whole ? roundf(draw(&seed) / 8) : draw(&seed);
        r->other[i] = r->logits[i] + (whole ? roundf(draw(&seed) / 20) : draw(&seed) / 100);
    }
    for (int i = 0; i < ROWS; i++)
        r->targets[i] = (int32_t)(test_random(&seed) % (uint64_t)vocab);
}

static void near(double got, double want, const char *what, int row) {
    if (!(fabs(got - want) <= 1e-12 * (1 + fabs(want))))
        fail_msg("%s of row %d is %.17g, expected %.17g", what, row, got, want);
}

static void compare(fixture *f, const rows *r, int vocab, bool other) {
    for (int i = 0; i < ROWS; i++) {
        const qgc_row_score *got = &r->scores[i];
        qgc_row_score want;
        qgc_score_row(r->logits + i * vocab, other ? r->other + i * vocab : NULL, r->targets[i], vocab, &want,
                      f->arena);
        for (int side = 0; side < 1 + other; side++) {
            near(got->log_sum[side], want.log_sum[side], "log sum", i);
            near(got->target[side], want.target[side], "target", i);
            near(got->top[side], want.top[side], "largest logit", i);
            near(got->crossed[side], want.crossed[side], "logit of the other's largest", i);
            assert_int_equal(got->largest[side], want.largest[side]);
            assert_int_equal(got->broken[side], 0);
        }
        near(got->max_drift, want.max_drift, "drift", i);
        near(got->squares, want.squares, "squares", i);
        near(got->kl, want.kl, "divergence", i);
        assert_true(!other || vocab < 60 || want.kl > 1e-6);
    }
}

static void the_kernel_scores_as_the_host_does(void **state) {
    fixture *f = *state;
    static const int vocabs[] = {MOST_VOCAB, 999, 64, 33, 2, 1};
    rows *r = qgc_arena_alloc(f->arena, sizeof *r);
    for (size_t i = 0; i < sizeof vocabs / sizeof *vocabs; i++)
        for (int other = 0; other < 2; other++) {
            const int vocab = vocabs[i];
            fill(r, vocab, false, 3 + i);
            score_rows_on_cpu(r->logits, other ? r->other : NULL, r->targets, r->scores, vocab, ROWS,
                              ON_CPU_RANDOM + (int)i);
            if (vocab > 1)
                compare(f, r, vocab, other);
            else /* the only token is certain */
                for (int row = 0; row < ROWS; row++)
                    assert_true(r->scores[row].log_sum[0] == r->scores[row].target[0] &&
                                r->scores[row].kl == 0);
        }
}

static void the_lowest_of_equals_is_the_largest(void **state) {
    fixture *f = *state;
    rows *r = qgc_arena_alloc(f->arena, sizeof *r);
    fill(r, MOST_VOCAB, true, 1);
    score_rows_on_cpu(r->logits, r->other, r->targets, r->scores, MOST_VOCAB, ROWS, ON_CPU_BACKWARDS);
    compare(f, r, MOST_VOCAB, true);
}

static void what_is_no_number_is_counted_on_both_ways(void **state) {
    fixture *f = *state;
    static const float broken[] = {NAN, INFINITY, -INFINITY};
    rows *r = qgc_arena_alloc(f->arena, sizeof *r);
    for (int i = 0; i < 3; i++) {
        fill(r, MOST_VOCAB, false, 5);
        r->logits[2 * MOST_VOCAB + 7] = r->logits[2 * MOST_VOCAB + 99] = broken[i];
        r->other[5 * MOST_VOCAB + 999] = broken[i];
        score_rows_on_cpu(r->logits, r->other, r->targets, r->scores, MOST_VOCAB, ROWS, ON_CPU_FORWARDS);
        for (int row = 0; row < ROWS; row++) {
            qgc_row_score want;
            qgc_score_row(r->logits + row * MOST_VOCAB, r->other + row * MOST_VOCAB, r->targets[row],
                          MOST_VOCAB, &want, f->arena);
            assert_int_equal(want.broken[0], row == 2 ? 2 : 0);
            assert_int_equal(want.broken[1], row == 5 ? 1 : 0);
            assert_memory_equal(r->scores[row].broken, want.broken, sizeof want.broken);
        }
    }
}

static void the_kernel_compiles_for_old_and_new_cards(void **state) {
    fixture *f = *state;
    static const char *const archs[] = {"sm_75", "sm_90a", "sm_120"};
    qgc_nvrtc *nvrtc;
    ok(f, qgc_nvrtc_open(&nvrtc, NULL, &f->diag));
    for (int i = 0; i < 3; i++) {
        const void *cubin;
        size_t bytes;
        ok(f, qgc_nvrtc_compile(nvrtc, &(qgc_nvrtc_job){.file = "score_rows.cu", .arch = archs[i]}, &cubin,
                                &bytes, &f->diag));
        assert_true(bytes > 1000);
    }
    qgc_nvrtc_close(nvrtc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_kernel_scores_as_the_host_does),
        FIXTURE_TEST(the_lowest_of_equals_is_the_largest),
        FIXTURE_TEST(what_is_no_number_is_counted_on_both_ways),
        FIXTURE_TEST(the_kernel_compiles_for_old_and_new_cards),
    };
    return cmocka_run_group_tests_name("kernels/score", tests, NULL, NULL);
}
