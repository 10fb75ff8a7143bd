#ifndef QGC_GRAPH_REAL_H
#define QGC_GRAPH_REAL_H

#include "graph/eval.h"

/* The type in which the references of the op table compute. Each graph/ops_*.c is compiled twice, and the
 * second time QGC_DOUBLE is defined: one text, and two references of each op, that of an evaluator in
 * float32 (ref_silu) and that of one in double precision (ref_silu_double). What is no reference stands
 * between #ifndef QGC_DOUBLE and #endif.
 *
 * References include <tgmath.h>, in which exp and fmax are those of the type of their arguments. */
#ifdef QGC_DOUBLE
typedef double qgc_real;
#define QGC_TWIN(name) name##_double
#else
typedef float qgc_real;
#define QGC_TWIN(name) name
#endif

#define QGC_REF(op) QGC_TWIN(ref_##op)

#define qgc_reals QGC_TWIN(qgc_reals)
#define qgc_read_reals QGC_TWIN(qgc_read_reals)
#define qgc_write_reals QGC_TWIN(qgc_write_reals)
#define qgc_find_not_finite QGC_TWIN(qgc_find_not_finite)

/* All elements of input i: where they are, or widened in the call's scratch where they are stored in
 * another type. */
const qgc_real *qgc_reals(const qgc_call *call, int i);

/* The n elements of an operand from element `first` on. Both are multiples of the block of its dtype. */
void qgc_read_reals(const qgc_operand *o, int64_t first, qgc_real *to, int64_t n);

/* The other way: rounded once, to nearest even, where the operand is f16 or bf16. */
void qgc_write_reals(const qgc_operand *o, int64_t first, const qgc_real *from, int64_t n);

/* The first of n that is no number, or infinite; n if there is none. */
int64_t qgc_find_not_finite(const qgc_real *x, int64_t n);
#ifndef QGC_DOUBLE
int64_t qgc_find_not_finite_double(const double *x, int64_t n);
#endif

#endif
