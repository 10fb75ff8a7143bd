#include <math.h>
#include <string.h>

#include "graph/eval.h"
#include "graph/ops.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

enum { MAX_VOCAB = 1000 };

static const qgc_sampling plain = {.temperature = 1, .top_p = 1, .repeat_penalty = 1};

/* The choice among n logits for a token at `position`. */
static int choose_at(const float *logits, const int32_t *seen, int n, const qgc_sampling *s,
                     int32_t position) {
    static const int32_t none[MAX_VOCAB];
    float l[MAX_VOCAB];
    int32_t marks[MAX_VOCAB], rows[1] = {2}, positions[3] = {-1, -1, position}, next[1] = {-1};
    memcpy(l, logits, (size_t)n * sizeof *l);
    memcpy(marks, seen ? seen : none, (size_t)n * sizeof *marks);
    qgc_node node = {.op = QGC_OP_SAMPLE, .n_in = 4};
    qgc_call call = {.node = &node,
                     .in = {{QGC_F32, 2, {1, n}, l, true},
                            {QGC_I32, 1, {1}, rows, false},
                            {QGC_I32, 1, {3}, positions, false},
                            {QGC_I32, 1, {n}, marks, false}},
                     .out = {{QGC_I32, 1, {1}, next, false}},
                     .sampling = s,
                     .scratch = qgc_arena_new()};
    qgc_ops[QGC_OP_SAMPLE].ref(&call);
    qgc_arena_drop(call.scratch);
    assert_memory_equal(l, logits, (size_t)n * sizeof *l);
    return next[0];
}

static int choose(const float *logits, int n, const qgc_sampling *s) {
    return choose_at(logits, NULL, n, s, 0);
}

/* How often each token is chosen over many positions. */
static void count(const float *logits, int n, const qgc_sampling *s, int draws, int *counts) {
    memset(counts, 0, (size_t)n * sizeof *counts);
    for (int i = 0; i < draws; i++)
        counts[choose_at(logits, NULL, n, s, i)]++;
}

/* Exactly the tokens of `bits` are ever chosen. */
static void only(const float *logits, int n, const qgc_sampling *s, unsigned bits) {
    int counts[32];
    count(logits, n, s, 2000, counts);
    for (int i = 0; i < n; i++)
        if ((counts[i] > 0) != (bits >> i & 1))
            fail_msg("token %d was chosen %d times", i, counts[i]);
}

static void philox_gives_the_known_answers(void **state) {
    (void)state;
    /* kat_vectors of Random123 (github.com/DEShawResearch/random123) */
    const struct {
        uint32_t counter[4], key[2], answer[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t x[4];
        memcpy(x, known[i].counter, sizeof x);
        qgc_philox(known[i].key, x);
        assert_memory_equal(x, known[i].answer, sizeof x);
    }
}

static void greedy_takes_the_largest_and_the_lowest_id_among_equals(void **state) {
    (void)state;
    qgc_sampling s = plain;
    s.temperature = 0;
    assert_int_equal(choose((float[]){1, 3, 2, 3}, 4, &s), 1);
    assert_int_equal(choose((float[]){-0.0f, 0.0f}, 2, &s), 0);
    assert_int_equal(choose((float[]){5}, 1, &s), 0);
}

static void greedy_never_takes_a_nan(void **state) {
    (void)state;
    qgc_sampling s = plain;
    s.temperature = 0;
    assert_int_equal(choose((float[]){NAN, -2, NAN, -1}, 4, &s), 3);
    assert_int_equal(choose((float[]){NAN, -INFINITY}, 2, &s), 1);
    assert_int_equal(choose((float[]){-1, INFINITY, NAN}, 3, &s), 1);
    assert_int_equal(choose((float[]){NAN, NAN}, 2, &s), 0);
}

static void draws_stand_nan_and_infinity(void **state) {
    (void)state;
    qgc_sampling s = plain;
    only((float[]){NAN, 1, NAN, 1}, 4, &s, 1u << 1 | 1u << 3);
    only((float[]){1, INFINITY, 1, INFINITY}, 4, &s, 1u << 1);
    only((float[]){NAN, -INFINITY, 1}, 3, &s, 1u << 2);
    only((float[]){NAN, -INFINITY, -INFINITY}, 3, &s, 1u << 1);
    assert_int_equal(choose((float[]){NAN, NAN}, 2, &s), 0);
    s.top_k = 3;
    s.top_p = 0.9f;
    only((float[]){NAN, NAN, NAN, 2}, 4, &s, 1u << 3);
}

static void temperature_near_0_is_greedy(void **state) {
    (void)state;
    qgc_sampling s = plain;
    s.temperature = 1e-30f;
    only((float[]){1, 1.0001f, 1}, 3, &s, 1u << 1);
}

static void top_k_keeps_the_largest_and_the_lowest_ids_among_ties(void **state) {
    (void)state;
    const float l[] = {1, 2, -1, 2, 2, 1};
    qgc_sampling s = plain;
    const unsigned kept[] = {0x3F, 1u << 1, 1u << 1 | 1u << 3, 0x1A, 0x1B, 0x3B, 0x3F, 0x3F};
    for (int k = 0; k < 8; k++) {
        s.top_k = k;
        only(l, 6, &s, kept[k]);
    }
}

static void top_p_keeps_the_shortest_run_that_reaches_it(void **state) {
    (void)state;
    /* Of 16: 8, 4, 2, 1, 1; exact, as the exponents are powers of two but for the rounding of expf. */
    const float ln2 = 0.69314718f;
    const float l[] = {0, 3 * ln2, ln2, 2 * ln2, 0};
    qgc_sampling s = plain;
    const struct {
        float top_p;
        unsigned kept;
    } rows[] = {{0, 1u << 1},  {0.01f, 1u << 1}, {0.49f, 1u << 1}, {0.51f, 0x0A},
                {0.74f, 0x0A}, {0.76f, 0x0E},    {0.88f, 0x0F}, /* the tie goes to id 0 */
                {0.95f, 0x1F}, {1, 0x1F}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s.top_p = rows[i].top_p;
        only(l, 5, &s, rows[i].kept);
    }
}

static void top_p_counts_what_top_k_kept(void **state) {
    (void)state;
    const float ln2 = 0.69314718f;
    qgc_sampling s = plain;
    s.top_k = 2; /* of 12: 8, 4 */
    s.top_p = 0.65f;
    only((float[]){0, 3 * ln2, ln2, 2 * ln2, 0}, 5, &s, 1u << 1);
    s.top_p = 0.68f;
    only((float[]){0, 3 * ln2, ln2, 2 * ln2, 0}, 5, &s, 0x0A);
}

static void min_p_is_relative_to_the_most_likely(void **state) {
    (void)state;
    const float ln2 = 0.69314718f;
    const float l[] = {0, 3 * ln2, ln2, 2 * ln2, 0};
    qgc_sampling s = plain;
    const struct {
        float min_p;
        unsigned kept;
    } rows[] = {{0, 0x1F}, {0.12f, 0x1F}, {0.13f, 0x0E}, {0.3f, 0x0A}, {0.51f, 0x02}, {1, 0x02}, {2, 0x02}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s.min_p = rows[i].min_p;
        only(l, 5, &s, rows[i].kept);
    }
}

static void the_penalty_lowers_what_was_seen(void **state) {
    (void)state;
    qgc_sampling s = plain;
    s.temperature = 0;
    s.repeat_penalty = 2;
    assert_int_equal(choose_at((float[]){3, 2, 1}, (int32_t[]){1, 0, 0}, 3, &s, 0), 1);
    assert_int_equal(choose_at((float[]){-1, -1.5f, -3}, (int32_t[]){1, 0, 1}, 3, &s, 0), 1);
    s.repeat_penalty = 1;
    assert_int_equal(choose_at((float[]){3, 2, 1}, (int32_t[]){1, 0, 0}, 3, &s, 0), 0);
}

static void the_draw_depends_on_seed_and_position_only(void **state) {
    (void)state;
    float l[100];
    for (int i = 0; i < 100; i++)
        l[i] = 0.01f * (float)i;
    qgc_sampling s = plain;
    s.seed = 0x123456789ABCDEFu;
    int first = choose_at(l, NULL, 100, &s, 5), same_position = 0, same_seed = 0;
    assert_int_equal(choose_at(l, NULL, 100, &s, 5), first);
    for (int i = 0; i < 50; i++) {
        same_seed += choose_at(l, NULL, 100, &s, 6 + i) == first;
        s.seed += (uint64_t)1 << 32; /* the high half counts too */
        same_position += choose_at(l, NULL, 100, &s, 5) == first;
    }
    assert_true(same_seed < 10 && same_position < 10);
}

/* Chi-square of the counts against the probabilities; below the 1 in 10,000 point of its distribution, by the
 * approximation of Wilson and Hilferty. */
static void follows(const int *counts, const double *p, int n, int draws) {
    double chi = 0;
    for (int i = 0; i < n; i++)
        chi += pow(counts[i] - p[i] * draws, 2) / (p[i] * draws);
    double df = n - 1, limit = df * pow(1 - 2 / (9 * df) + 3.719 * sqrt(2 / (9 * df)), 3);
    if (!(chi < limit))
        fail_msg("chi-square %g, limit %g", chi, limit);
}

static void draws_follow_the_probabilities(void **state) {
    (void)state;
    enum { N = 50, DRAWS = 40000 };
    static int counts[N];
    float l[N];
    double p[N], sum = 0;
    qgc_sampling s = plain;
    for (int i = 0; i < N; i++)
        p[i] = 1.0 / N, l[i] = 7;
    count(l, N, &s, DRAWS, counts);
    follows(counts, p, N, DRAWS);

    uint64_t seed = 3;
    s.temperature = 0.7f;
    for (int i = 0; i < N; i++)
        sum += p[i] = exp((l[i] = test_random_float(&seed)) / 0.7);
    for (int i = 0; i < N; i++)
        p[i] /= sum;
    count(l, N, &s, DRAWS, counts);
    follows(counts, p, N, DRAWS);
}

/* The text of graph/ops_sample.c, done once more in the plainest way: by sorting. */
typedef struct {
    float logit;
    uint64_t weight;
    int id;
    bool kept;
} entry;

static int slow_choice(const float *logits, int n, const qgc_sampling *s, int32_t position) {
    entry e[MAX_VOCAB];
    for (int i = 0; i < n; i++) /* insertion sort by falling logit, then rising id */
        for (int at = i;; at--)
            if (at == 0 || e[at - 1].logit >= logits[i]) {
                memmove(e + at + 1, e + at, (size_t)(i - at) * sizeof *e);
                e[at] = (entry){logits[i], 0, i, true};
                break;
            }
    uint64_t mass = 0, run = 0, drawn_from = 0;
    for (int i = 0; i < n; i++) {
        e[i].weight = (uint64_t)ldexp(expf((e[i].logit - e[0].logit) / s->temperature), 40);
        e[i].kept = s->top_k == 0 || i < s->top_k;
        mass += e[i].kept ? e[i].weight : 0;
    }
    /* mass * floor(top_p * 2^32) / 2^32, rounded up, a bit of the product at a time */
    uint64_t share = (uint64_t)ldexp(s->top_p, 32), need = 0, sticky = 0;
    for (int bit = 0; bit < 32; bit++) {
        need += share >> bit & 1 ? mass : 0;
        sticky |= need & 1;
        need >>= 1;
    }
    need += sticky;
    for (int i = 0; i < n; i++) {
        if (s->top_p < 1 && i > 0 && run >= need)
            e[i].kept = false;
        run += e[i].kept ? e[i].weight : 0;
        if ((double)e[i].weight < (double)s->min_p * ldexp(1, 40))
            e[i].kept = false;
        drawn_from += e[i].kept ? e[i].weight : 0;
    }
    uint32_t x[4] = {(uint32_t)position, 0, 0, 0};
    qgc_philox((uint32_t[]){(uint32_t)s->seed, (uint32_t)(s->seed >> 32)}, x);
    /* the high half of a product with a mass below 2^52, by long multiplication */
    assert_true(drawn_from < (uint64_t)1 << 52);
    uint64_t low = ((uint64_t)x[0] * (drawn_from >> 32)) + ((uint64_t)x[0] * (uint32_t)drawn_from >> 32);
    uint64_t high = (uint64_t)x[1] * (uint32_t)drawn_from, carry = low + (uint32_t)high;
    uint64_t target = (uint64_t)x[1] * (drawn_from >> 32) + (high >> 32) + (carry >> 32), sum = 0;
    for (int id = 0; id < n; id++)
        for (int i = 0; i < n; i++)
            if (e[i].id == id && e[i].kept && (sum += e[i].weight) > target)
                return id;
    return -1;
}

static void agrees_with_a_sort_on_random_logits(void **state) {
    (void)state;
    uint64_t seed = 11;
    for (int round = 0; round < 600; round++) {
        float l[200];
        int n = 1 + (int)(test_random(&seed) % 200);
        float spread = round % 3 == 0 ? 1 : 20;
        for (int i = 0; i < n; i++) {
            l[i] = test_random_float(&seed) * spread;
            if (round % 2)
                l[i] = roundf(l[i]) + 0.0f; /* many ties */
        }
        qgc_sampling s = {.temperature = 0.1f + (float)(round % 7) * 0.3f,
                          .top_k = round % 5 ? (int)(test_random(&seed) % 50) : 0,
                          .top_p = round % 4 ? fabsf(test_random_float(&seed)) : 1,
                          .min_p = round % 6 ? 0 : fabsf(test_random_float(&seed)),
                          .repeat_penalty = 1,
                          .seed = test_random(&seed)};
        assert_int_equal(choose_at(l, NULL, n, &s, round), slow_choice(l, n, &s, round));
    }
}

/* sample_part and sample_merge over the same logits. */
static int choose_in_two_halves(const float *logits, const int32_t *seen, int n, int chunk,
                                const qgc_sampling *s, int32_t position) {
    float l[MAX_VOCAB], parts[MAX_VOCAB] = {0};
    int32_t marks[MAX_VOCAB], rows[1] = {0}, positions[1] = {position}, next[1] = {-1};
    memcpy(l, logits, (size_t)n * sizeof *l);
    memcpy(marks, seen, (size_t)n * sizeof *marks);
    const int n_parts = (n + chunk - 1) / chunk;
    qgc_node part = {.op = QGC_OP_SAMPLE_PART, .n_in = 2}, merge = {.op = QGC_OP_SAMPLE_MERGE, .n_in = 5};
    part.attr[qgc_attr_index(part.op, "chunk")].number = chunk;
    merge.attr[qgc_attr_index(merge.op, "chunk")].number = chunk;
    qgc_call first = {.node = &part,
                      .in = {{QGC_F32, 2, {1, n}, l, true}, {QGC_I32, 1, {n}, marks, false}},
                      .out = {{QGC_F32, 2, {1, n_parts}, parts, true}},
                      .sampling = s,
                      .scratch = qgc_arena_new()};
    qgc_ops[part.op].ref(&first);
    qgc_call second = {.node = &merge,
                       .in = {{QGC_F32, 2, {1, n}, l, true},
                              {QGC_F32, 2, {1, n_parts}, parts, true},
                              {QGC_I32, 1, {1}, rows, false},
                              {QGC_I32, 1, {1}, positions, false},
                              {QGC_I32, 1, {n}, marks, false}},
                       .out = {{QGC_I32, 1, {1}, next, false}},
                       .sampling = s,
                       .scratch = first.scratch};
    qgc_ops[merge.op].ref(&second);
    qgc_arena_drop(first.scratch);
    return next[0];
}

static void two_halves_choose_as_the_whole_does(void **state) {
    (void)state;
    static const float temperatures[] = {0, 0.3f, 1, 5}, top_ps[] = {1, 0.9f, 0.3f}, penalties[] = {1, 1.3f};
    static const int top_ks[] = {0, 1, 7, 40, MAX_VOCAB}, chunks[] = {1, 7, 32, 2000};
    uint64_t seed = 1;
    for (int round = 0; round < 4000; round++) {
        float l[MAX_VOCAB];
        int32_t seen[MAX_VOCAB];
        const int n = 1 + (int)(test_random(&seed) % MAX_VOCAB);
        for (int i = 0; i < n; i++) {
            float u = test_random_float(&seed);
            l[i] = round % 3 == 0 ? roundf(8 * u) : round % 3 == 1 ? 10 * u : u > 0.5f ? NAN : 3 * u;
            seen[i] = test_random(&seed) % 5 == 0;
        }
        const qgc_sampling s = {.temperature = temperatures[test_random(&seed) % 4],
                                .top_k = top_ks[test_random(&seed) % 5],
                                .top_p = top_ps[test_random(&seed) % 3],
                                .repeat_penalty = penalties[test_random(&seed) % 2],
                                .seed = test_random(&seed)};
        const int chunk = chunks[test_random(&seed) % 4];
        int whole = choose_at(l, seen, n, &s, round),
            halves = choose_in_two_halves(l, seen, n, chunk, &s, round);
        if (whole != halves)
            fail_msg("round %d, %d tokens, chunk %d, top-k %d: %d, not %d", round, n, chunk, s.top_k, halves,
                     whole);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(greedy_takes_the_largest_and_the_lowest_id_among_equals),
        cmocka_unit_test(greedy_never_takes_a_nan),
        cmocka_unit_test(draws_stand_nan_and_infinity),
        cmocka_unit_test(temperature_near_0_is_greedy),
        cmocka_unit_test(top_k_keeps_the_largest_and_the_lowest_ids_among_ties),
        cmocka_unit_test(top_p_keeps_the_shortest_run_that_reaches_it),
        cmocka_unit_test(top_p_counts_what_top_k_kept),
        cmocka_unit_test(min_p_is_relative_to_the_most_likely),
        cmocka_unit_test(the_penalty_lowers_what_was_seen),
        cmocka_unit_test(the_draw_depends_on_seed_and_position_only),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(agrees_with_a_sort_on_random_logits),
        cmocka_unit_test(two_halves_choose_as_the_whole_does),
    };
    return cmocka_run_group_tests_name("graph/sample", tests, NULL, NULL);
}
