/* How the positions of a token are divided. PARTS of them are what a split attention leaves apart, see attention.cu. A part that is longer
 * than ALONE is shared by up to BLOCKS blocks, the last of which puts together what they have.
 *
 * A block of attention_heads.cu takes 128 positions at a time, in 0.75 us, and puts together eight shares at a time, in 0.5 to 0.8; to meet
 * costs 2.2 (docs/performance.md). So a share is 128 positions while the blocks are few, and as they become more both grow. */
#pragma once
#include "attention.cuh"
#include "last.cuh"

#ifndef PARTS
#define PARTS 1
#endif
#ifndef LEAST_SPAN /* positions of a part at least */
#define LEAST_SPAN 64
#endif
#ifndef BLOCKS
#define BLOCKS 1
#endif
#ifndef ALONE /* positions of a part that one block takes: to meet takes longer than to read some hundred more */
#define ALONE 512
#endif
#ifndef BLOCK_SPAN /* the least for a block, of a part that several share */
#define BLOCK_SPAN 128
#endif
#ifndef FEW_BLOCKS /* so many share a part, and one more for each MORE_POSITIONS that it has */
#define FEW_BLOCKS 8
#endif
#ifndef MORE_POSITIONS
#define MORE_POSITIONS 768
#endif

/* Where a block has its positions: `n` blocks of the part have some. */
struct range {
    int begin, end, n;
};

__device__ __forceinline__ range range_of(int part, int block, int all) {
    int seen = all - first_seen(all);
    int span = PARTS > 1 ? max((seen + PARTS - 1) / PARTS, LEAST_SPAN) : seen;
    int begin = first_seen(all) + min(part * span, seen), end = min(begin + span, all);
    if (BLOCKS == 1 || end - begin <= ALONE)
        return {begin, end, 1};
    const int length = end - begin;
    int n = min(min((length + BLOCK_SPAN - 1) / BLOCK_SPAN, FEW_BLOCKS + length / MORE_POSITIONS), (int)BLOCKS);
    const int each = ((length + n - 1) / n + 15) / 16 * 16;
    n = (length + each - 1) / each;
    return {begin + block * each, min(begin + (block + 1) * each, end), n};
}
