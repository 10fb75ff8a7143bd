/* Shares of the persistent kernel: any shapes, any number of multiprocessors. */

#include <string.h>

#include "codegen/plan.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

enum { ROUNDS = 600, MOST = 8 };

static int32_t table[2 * MOST * QGC_MOST_BLOCKS];

static int32_t first_of(int n, int share, int block) {
    return table[2 * (block * n + share)];
}
static int32_t rows_of(int n, int share, int block) {
    return table[2 * (block * n + share) + 1];
}

/* Rows of the fullest block, where all have as few tiles of 8 as can be. */
static int64_t fewest(const qgc_share *s, int blocks) {
    const int64_t units = (s->rows + s->unit - 1) / s->unit, each = (units + blocks - 1) / blocks * s->unit;
    return (each + 7) / 8 * 8;
}

/* Each share is cut into consecutive ranges that are whole units and together all of it, and none has a tile too many. */
static void check_cover(const qgc_share *shares, int n, int blocks) {
    for (int i = 0; i < n; i++) {
        int64_t at = 0;
        for (int b = 0; b < blocks; b++) {
            const int32_t rows = rows_of(n, i, b);
            assert_true(rows >= 0 && rows <= fewest(&shares[i], blocks));
            assert_int_equal(first_of(n, i, b), at);
            at += rows;
            assert_true(at % shares[i].unit == 0 || at == shares[i].rows);
        }
        assert_int_equal(at, shares[i].rows);
    }
}

static int64_t tiles_of(int64_t rows) {
    return (rows + QGC_SHARE_TILE - 1) / QGC_SHARE_TILE;
}

/* Shares that are apart: each covers its rows, no block has rows of two of them, and the fullest block has as few tiles as can be. */
static void check_apart(const qgc_share *shares, int n, int blocks) {
    int64_t most = 0, needed = 0;
    for (int i = 0; i < n; i++) {
        int64_t at = 0;
        for (int b = 0; b < blocks; b++) {
            const int32_t rows = rows_of(n, i, b);
            assert_true(rows >= 0);
            assert_int_equal(first_of(n, i, b), at);
            at += rows;
            const int64_t tiles = tiles_of(rows);
            assert_true(tiles <= qgc_share_most_tiles(shares, n, i, blocks));
            most = tiles > most ? tiles : most;
            for (int k = 0; k < i; k++)
                assert_true(n > blocks || rows == 0 || rows_of(n, k, b) == 0);
        }
        assert_int_equal(at, shares[i].rows);
    }
    for (int i = 0; i < n && most > 1; i++)
        needed += (tiles_of(shares[i].rows) + most - 2) / (most - 1);
    assert_true(n > blocks || most == 1 || needed > blocks);
}

static void blocks_are_divided_among_shares_apart(void **state) {
    (void)state;
    uint64_t random = 7;
    for (int round = 0; round < ROUNDS; round++) {
        const int n = 2 + (int)(test_random(&random) % 2),
                  blocks = 1 + (int)(test_random(&random) % (round % 4 ? 200 : 4));
        qgc_share shares[3];
        for (int i = 0; i < n; i++)
            shares[i] = (qgc_share){.rows = 1 + (int64_t)(test_random(&random) % (round % 3 ? 5000 : 300)),
                                    .unit = test_random(&random) % 2 ? 8 : 1,
                                    .cost = 128 * (1 + (int64_t)(test_random(&random) % 30)),
                                    .apart = 3};
        qgc_shares_cut(shares, n, blocks, table);
        check_apart(shares, n, blocks);
    }
}

/* q and k, and a v of another format: of 132 multiprocessors 16 have v or fewer, and nobody more than two tiles. A share beside them is cut as
 * ever, and so are others that are apart from each other. */
static void shares_apart_stand_beside_others(void **state) {
    (void)state;
    static const qgc_share shares[] = {{1024, 1, 624, 0, 1},
                                       {128, 1, 960, 0, 1},
                                       {896, 1, 4624, 0, 0},
                                       {3072, 1, 600, 0, 2},
                                       {1024, 1, 800, 0, 2}};
    enum { N = 5, BLOCKS = 132 };
    qgc_shares_cut(shares, N, BLOCKS, table);
    assert_int_equal(qgc_share_most_tiles(shares, N, 0, BLOCKS), 2);
    assert_int_equal(qgc_share_most_tiles(shares, N, 1, BLOCKS), 2);
    assert_int_equal(qgc_share_most_tiles(shares, N, 2, BLOCKS), 1);
    int with_v = 0;
    for (int b = 0; b < BLOCKS; b++) {
        assert_true(rows_of(N, 0, b) == 0 || rows_of(N, 1, b) == 0);
        assert_true(rows_of(N, 3, b) == 0 || rows_of(N, 4, b) == 0);
        assert_in_range(rows_of(N, 2, b), 1, 8);
        with_v += rows_of(N, 1, b) > 0;
    }
    assert_in_range(with_v, 8, 16);
}

/* The bytes of a block in a loop, and the mean. */
static int64_t bytes_of(const qgc_share *shares, int n, int loop, int block) {
    int64_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += shares[i].loop == loop ? rows_of(n, i, block) * shares[i].cost : 0;
    return bytes;
}

/* No unit of the finest share were better elsewhere: a block with two units more bytes than another has none of it, or the
 * other has all that it may have; but for a unit by which cuts are rounded. */
static void check_balance(const qgc_share *shares, int n, int blocks, int loop) {
    int finest = -1;
    for (int i = 0; i < n; i++)
        if (shares[i].loop == loop &&
            (finest < 0 || shares[i].unit * shares[i].cost <= shares[finest].unit * shares[finest].cost))
            finest = i;
    if (finest < 0)
        return;
    const qgc_share *s = &shares[finest];
    int64_t most_given = 0, least_kept = INT64_MAX;
    for (int b = 0; b < blocks; b++) {
        const int64_t bytes = bytes_of(shares, n, loop, b), rows = rows_of(n, finest, b);
        if (rows > s->unit && bytes > most_given)
            most_given = bytes;
        if (rows + s->unit < fewest(s, blocks) && bytes < least_kept)
            least_kept = bytes;
    }
    if (least_kept < INT64_MAX)
        assert_true(most_given - least_kept <= 2 * s->unit * s->cost);
}

static void any_shares_cover_their_rows_in_balance(void **state) {
    (void)state;
    uint64_t random = 5;
    for (int round = 0; round < ROUNDS; round++) {
        const int n = 1 + (int)(test_random(&random) % MOST);
        qgc_share shares[MOST];
        for (int i = 0; i < n; i++) {
            static const int units[] = {1, 1, 8, 32};
            const int64_t rows = 1 + (int64_t)(test_random(&random) % (round % 3 ? 20000 : 300));
            shares[i] = (qgc_share){.rows = rows,
                                    .unit = units[test_random(&random) % 4],
                                    .cost = 128 * (1 + (int64_t)(test_random(&random) % 300)),
                                    .loop = (int)(test_random(&random) % 2)};
        }
        const int blocks = 20 + (int)(test_random(&random) % 181);
        qgc_shares_cut(shares, n, blocks, table);
        check_cover(shares, n, blocks);
        check_balance(shares, n, blocks, 0);
        check_balance(shares, n, blocks, 1);
    }
}

/* A layer as models have it: q, k, v; out and down; gate and up; and the head. Negative numbers of rows were once the share of some
 * blocks of the first three. */
static void layers_of_models_are_balanced(void **state) {
    (void)state;
    static const int shapes[][4] = {/* width, heads, key-value heads, hidden; heads of 64 */
                                    {896, 7, 1, 4928},     {896, 14, 2, 14336}, {832, 6, 1, 4544},
                                    {896, 14, 2, 4864},    {576, 9, 3, 1536},   {3584, 56, 8, 18944},
                                    {5120, 80, 16, 27648}, {2048, 32, 8, 8192}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int blocks = 20; blocks <= 200; blocks++) {
            const int64_t d = shapes[i][0], q = INT64_C(64) * shapes[i][1], kv = INT64_C(64) * shapes[i][2],
                          ff = shapes[i][3];
            const qgc_share shares[] = {{q + 2 * kv, 1, 2 * d, 0, 0},
                                        {d, 1, 2 * (q + ff), 0, 0},
                                        {2 * ff, 8, 2 * d, 0, 0},
                                        {151936, 32, 2 * d, 1, 0}};
            qgc_shares_cut(shares, 4, blocks, table);
            check_cover(shares, 4, blocks);
            int64_t most = 0, total = 0;
            for (int b = 0; b < blocks; b++) {
                const int64_t bytes = bytes_of(shares, 4, 0, b);
                most = bytes > most ? bytes : most;
                total += bytes;
            }
            /* a row of OUT and DOWN is what small models cannot cut finer, and 8 of gate and up are nobody's to make up for where the
             * others have no more rows in their tiles */
            assert_true((double)most <= 1.02 * (double)total / blocks + (double)(2 * (q + ff) + 16 * d));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_shares_cover_their_rows_in_balance),
        cmocka_unit_test(layers_of_models_are_balanced),
        cmocka_unit_test(blocks_are_divided_among_shares_apart),
        cmocka_unit_test(shares_apart_stand_beside_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
