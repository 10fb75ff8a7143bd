#include "codegen/shares.h"

#include <assert.h>
#include <stdbool.h>

#include "codegen/plan.h"

enum { MOST_BLOCKS = QGC_MOST_BLOCKS, MOST_SHARES = QGC_MOST_SHARES };

/* Bytes of rows up to the end of each block, in the shares of a loop that are cut already. */
typedef struct {
    int64_t done[MOST_BLOCKS + 1];
    int64_t total;
} balance;

static int64_t within(int64_t x, int64_t least, int64_t most) {
    return x < least ? least : x > most ? most : x;
}

/* Cuts share i. A cut is where the bytes of all blocks before it come nearest to their part of the total. */
static void cut(const qgc_share *s, int i, int n, int blocks, balance *b, int32_t *table) {
    const int64_t units = (s->rows + s->unit - 1) / s->unit, bytes = s->unit * s->cost;
    int64_t at = 0;
    b->total += s->rows * s->cost;
    for (int block = 0; block < blocks; block++) {
        /* in two parts: the total may have more than 2^53 / blocks bytes */
        const int64_t goal = b->total / blocks * (block + 1) + b->total % blocks * (block + 1) / blocks;
        const int64_t wanted = bytes ? (goal - b->done[block + 1] + bytes / 2) / bytes : 0;
        const int64_t end = block == blocks - 1 ? units : within(wanted, at, units);
        const int64_t last = end * s->unit < s->rows ? end * s->unit : s->rows;
        const int64_t first = at * s->unit < s->rows ? at * s->unit : s->rows;
        table[2 * ((int64_t)block * n + i)] = (int32_t)first;
        table[2 * ((int64_t)block * n + i) + 1] = (int32_t)(last - first);
        b->done[block + 1] += last * s->cost;
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
        balance b = {.total = 0};
        for (int i; (i = coarsest(shares, n, shares[first].loop, is_cut)) >= 0;) {
            cut(&shares[i], i, n, blocks, &b, table);
            is_cut[i] = true;
        }
    }
}
