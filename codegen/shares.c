#include "codegen/shares.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

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

/* Blocks first .. first + n - 1. */
typedef struct {
    int first, n;
} range;

/* The fewest blocks that a share's rows need if none has more than so many tiles. */
static int64_t least_blocks(const qgc_share *s, int64_t tiles) {
    const int64_t unit = s->unit > QGC_SHARE_TILE ? s->unit : QGC_SHARE_TILE,
                  most = tiles * QGC_SHARE_TILE / unit * unit;
    return divided_up(s->rows, most < unit ? unit : most);
}

/* Of shares `first` to `last`: how many blocks they need so, together. */
static int64_t blocks_of_all(const qgc_share *shares, int first, int last, int64_t tiles) {
    int64_t sum = 0;
    for (int i = first; i <= last; i++)
        sum += least_blocks(&shares[i], tiles);
    return sum;
}

/* The blocks of share i. Those that it shares with others are divided so that the fullest has as few tiles as can be; what is left then goes
 * to the first of them, which is usually the largest. */
static range blocks_of(const qgc_share *shares, int n, int i, int blocks) {
    int first = i, last = i;
    while (first > 0 && shares[i].apart && shares[first - 1].apart == shares[i].apart)
        first--;
    while (last + 1 < n && shares[i].apart && shares[last + 1].apart == shares[i].apart)
        last++;
    if (last - first + 1 > blocks || first == last)
        return (range){0, blocks};
    int64_t tiles = 1;
    while (blocks_of_all(shares, first, last, tiles) > blocks)
        tiles++;
    const int64_t after = blocks_of_all(shares, i + 1, last, tiles), own = least_blocks(&shares[i], tiles);
    return i == first ? (range){0, (int)(blocks - after)} : (range){(int)(blocks - after - own), (int)own};
}

int64_t qgc_share_most_tiles(const qgc_share *shares, int n, int i, int blocks) {
    return qgc_share_tiles(shares[i].rows, blocks_of(shares, n, i, blocks).n);
}

/* The fewest units that the block with most of them can have; whole tiles of rows, as a tile that is not full takes as long as one
 * that is. */
static int64_t most_units(const qgc_share *s, int blocks) {
    return s->unit < QGC_SHARE_TILE ? qgc_share_tiles(s->rows, blocks) * (QGC_SHARE_TILE / s->unit)
                                    : divided_up(divided_up(s->rows, s->unit), blocks);
}

/* Fills every block of them up to `level` bytes, with at most `most` of this share; how many that takes in all. */
static int64_t fill(balance *b, range of, int64_t level, int64_t most) {
    int64_t all = 0;
    for (int k = of.first; k < of.first + of.n; k++)
        all += b->more[k] = within(level - b->done[k], 0, most);
    return all;
}

/* Fills blocks with `bytes`, at most `most` each and enough for all, so that the fullest has as few as can be. */
static void fill_evenly(balance *b, range of, int64_t bytes, int64_t most) {
    int64_t low = 0, high = most; /* the level is low or above it, and below high */
    for (int k = of.first; k < of.first + of.n; k++)
        high = b->done[k] + most >= high ? b->done[k] + most + 1 : high;
    while (high - low > 1) {
        const int64_t level = low + (high - low) / 2;
        if (fill(b, of, level, most) <= bytes)
            low = level;
        else
            high = level;
    }
    int64_t left = bytes - fill(b, of, low, most);
    for (int k = of.first; k < of.first + of.n && left > 0; k++)
        if (b->done[k] <= low && b->more[k] < most)
            b->more[k]++, left--;
}

/* Cuts share i. A cut is at the unit that is nearest to where the bytes of all blocks before it end. */
static void cut(const qgc_share *shares, int i, int n, int blocks, balance *b, int32_t *table) {
    const qgc_share *s = &shares[i];
    const range of = blocks_of(shares, n, i, blocks);
    const int64_t units = divided_up(s->rows, s->unit), bytes = s->unit * (s->cost ? s->cost : 1);
    int64_t at = 0, filled = 0;
    memset(b->more, 0, sizeof b->more);
    fill_evenly(b, of, units * bytes, most_units(s, of.n) * bytes);
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
            cut(shares, i, n, blocks, &b, table);
            is_cut[i] = true;
        }
    }
}
