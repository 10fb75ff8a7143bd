#include "codegen/shares.h"

#include <assert.h>
#include <stdbool.h>

#include "codegen/plan.h"

enum { MOST_BLOCKS = QGC_MOST_BLOCKS, MOST_SHARES = QGC_MOST_SHARES };

/* Bytes of each block in the shares of a loop that are cut already, and what of them the share that is cut now brings. */
typedef struct {
    int64_t done[MOST_BLOCKS];
    int64_t more[MOST_BLOCKS];
} balance;

static int64_t within(int64_t x, int64_t least, int64_t most) {
    return x < least ? least : x > most ? most : x;
}

static int64_t divided_up(int64_t x, int64_t by) {
    return (x + by - 1) / by;
}

int64_t qgc_share_tiles(int64_t rows, int64_t blocks) {
    return divided_up(rows, QGC_SHARE_TILE * blocks);
}

/* The fewest units that the block with most of them can have; whole tiles of rows, as a tile that is not full takes as long as one
 * that is. */
static int64_t most_units(const qgc_share *s, int blocks) {
    return s->unit < QGC_SHARE_TILE ? qgc_share_tiles(s->rows, blocks) * (QGC_SHARE_TILE / s->unit)
                                    : divided_up(divided_up(s->rows, s->unit), blocks);
}

/* Fills every block up to `level` bytes, with at most `most` of this share; how many that takes in all. */
static int64_t fill(balance *b, int blocks, int64_t level, int64_t most) {
    int64_t all = 0;
    for (int k = 0; k < blocks; k++)
        all += b->more[k] = within(level - b->done[k], 0, most);
    return all;
}

/* Fills blocks with `bytes`, at most `most` each and enough for all, so that the fullest has as few as can be. */
static void fill_evenly(balance *b, int blocks, int64_t bytes, int64_t most) {
    int64_t low = 0, high = most; /* the level is low or above it, and below high */
    for (int k = 0; k < blocks; k++)
        high = b->done[k] + most >= high ? b->done[k] + most + 1 : high;
    while (high - low > 1) {
        const int64_t level = low + (high - low) / 2;
        if (fill(b, blocks, level, most) <= bytes)
            low = level;
        else
            high = level;
    }
    int64_t left = bytes - fill(b, blocks, low, most);
    for (int k = 0; k < blocks && left > 0; k++)
        if (b->done[k] <= low && b->more[k] < most)
            b->more[k]++, left--;
}

/* Cuts share i. A cut is at the unit that is nearest to where the bytes of all blocks before it end. */
static void cut(const qgc_share *s, int i, int n, int blocks, balance *b, int32_t *table) {
    const int64_t units = divided_up(s->rows, s->unit), bytes = s->unit * (s->cost ? s->cost : 1);
    int64_t at = 0, filled = 0;
    fill_evenly(b, blocks, units * bytes, most_units(s, blocks) * bytes);
    for (int block = 0; block < blocks; block++) {
        filled += b->more[block];
        const int64_t end = (filled + bytes / 2) / bytes;
        const int64_t last = end * s->unit < s->rows ? end * s->unit : s->rows;
        const int64_t first = at * s->unit < s->rows ? at * s->unit : s->rows;
        table[2 * ((int64_t)block * n + i)] = (int32_t)first;
        table[2 * ((int64_t)block * n + i) + 1] = (int32_t)(last - first);
        b->done[block] += (last - first) * s->cost;
        at = end;
    }
}

/* The next share of a loop to be cut: of the largest unit, the first of those that are alike. */
static int coarsest(const qgc_share *shares, int n, int loop, const bool *is_cut) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!is_cut[i] && shares[i].loop == loop &&
            (best < 0 || shares[i].unit * shares[i].cost > shares[best].unit * shares[best].cost))
            best = i;
    return best;
}

void qgc_shares_cut(const qgc_share *shares, int n, int blocks, int32_t *table) {
    bool is_cut[MOST_SHARES] = {false};
    assert(n <= MOST_SHARES && blocks >= 1 && blocks <= MOST_BLOCKS);
    for (int first = 0; first < n; first++) {
        if (is_cut[first])
            continue;
        balance b = {.done = {0}};
        for (int i; (i = coarsest(shares, n, shares[first].loop, is_cut)) >= 0;) {
            cut(&shares[i], i, n, blocks, &b, table);
            is_cut[i] = true;
        }
    }
}
