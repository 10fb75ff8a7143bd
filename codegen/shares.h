#ifndef QGC_CODEGEN_SHARES_H
#define QGC_CODEGEN_SHARES_H

#include <stdint.h>

/* Which rows of its phases each block of the persistent kernel computes. The number of blocks is that of the device's
 * multiprocessors, so the rows are cut when a session starts; what is cut stands in the plan. */

/* Rows that a block multiplies at a time: fewer of them take as long. The kernel's TILE. */
#define QGC_SHARE_TILE 8

/* Rows that are cut alike: those of one phase, or of several whose rows the same threads have to finish. */
typedef struct {
    int64_t rows; /* in all */
    int64_t unit; /* rows that stay together: the number of rows of a share is a multiple, but for the last */
    int64_t cost; /* of a row: bytes of weights read in an iteration of the loop */
    int loop;     /* shares of one loop are balanced together */
    int apart;    /* not 0: no block has rows of two shares of that number, which stand together */
} qgc_share;

/* Tiles of the block that has most of so many rows, where that is as few as can be. */
int64_t qgc_share_tiles(int64_t rows, int64_t blocks);
/* The same of share i of n, as they are cut for so many blocks. */
int64_t qgc_share_most_tiles(const qgc_share *shares, int n, int i, int blocks);

/* Cuts `n` shares for `blocks` blocks: block b takes table[2 * (b * n + i)] to (first row) and table[2 * (b * n + i) + 1] (number
 * of rows) of share i. In each share blocks take consecutive rows, in their order, and together all of them; no block has a negative
 * number, nor more tiles of QGC_SHARE_TILE rows than the fullest block must have: of one more tile all others would wait for the end.
 * Blocks are divided among shares that are to be apart, so that the fullest of them has as few tiles as can be; where blocks are
 * fewer than such shares, each takes all. What one share leaves uneven in bytes the next ones of its loop make up for, from those of
 * the coarsest units to the finest, as far as tiles permit. `table` has room for 2 * n * blocks numbers. */
void qgc_shares_cut(const qgc_share *shares, int n, int blocks, int32_t *table);

#endif
