#ifndef QGC_BASE_PLANES_H
#define QGC_BASE_PLANES_H

#include "graph/base/tensor.h"

/* How a matrix lies on a device. Rows follow each other. A row of F32, F16 or BF16 is as in a file. In a file a row of a block
 * format has scales between its quants, at odd addresses; on a device each kind of field has a plane of its own, so that
 * the lanes of a warp read adjacent words. The fields of a row of n elements, in this order, keep their bits:
 *
 *   low     n of 4 bits, or of 8; a 32-bit word has elements 8i .. 8i+3 in the low halves of its bytes, 8i+4 .. 8i+7 in the
 *           high ones. Bytes of Q8_0 are its own.
 *   high    the fifth bits, n / 8 bytes, bit j of byte i for element 8i+j; of Q6_K the fifth and sixth, n / 8 words of 16 bits,
 *           for element 8i+j at bit 4j, or 4(j-4)+2 from j = 4 on
 *   scales  Q8_0, Q4_0, Q5_0: n / 32 f16 d. Q4_1, Q5_1: n / 32 times f16 d, f16 m. Q4_K, Q5_K: n / 256 times f16 d, f16 dmin; then
 *           n / 32 bytes: scale, and the low two bits of the minimum above it; then n / 64 bytes, each the upper four
 *           bits of the minima of two blocks, the first in the low half. Q6_K: n / 256 f16 d; then n / 16 scales of 8 bits
 *   padding up to a multiple of 16 bytes
 *
 * kernels/quantised.cuh reads this. */

/* Bytes of a row of `n` elements on the device; n is a multiple of the block. */
size_t qgc_planes_bytes(qgc_dtype t, int64_t n);

/* Writes one row as it lies on the device: `n` elements at `src`, as the file has them, to qgc_planes_bytes(t, n) bytes
 * at `dst`. Neither needs alignment. */
void qgc_to_planes(qgc_dtype t, const void *src, void *dst, int64_t n);

#endif
