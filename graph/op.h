#ifndef QGC_GRAPH_OP_H
#define QGC_GRAPH_OP_H

#include <stdbool.h>

#include "graph/base/diag.h"

/* The op table. The rows stand in graph/ops.def; this header gives them an enum and the columns that the
 * graph needs: names, arity, attributes, shape rule, CPU reference. Lowering takes its own column. */

typedef enum {
#define OP(tag, ...) QGC_OP_##tag,
#include "graph/ops.def"
#undef OP
    QGC_N_OPS
} qgc_op;

enum { QGC_MAX_INPUTS = 6, QGC_MAX_OUTPUTS = 3, QGC_MAX_ATTRS = 8, QGC_MAX_CHOICES = 4 };

typedef enum {
    QGC_PURE = 0,
    QGC_POINTWISE = 1 << 0, /* result i depends on element i of each input only */
    QGC_COMMUTES = 1 << 1,  /* the two inputs may be swapped */
    QGC_IN_PLACE = 1 << 2,  /* output 0 is the new version of input 0, a state, in the same memory */
} qgc_traits;

/* An attribute of an op. It has to be written in the YAML, unless it is optional: then it has the usual value where it is not. */
typedef struct {
    const char *name;
    const char *choices[QGC_MAX_CHOICES]; /* the words allowed; none for a number */
    bool optional;
    double usual; /* of an optional one, which is a number */
} qgc_attr_spec;

struct qgc_node;
struct qgc_call;

/* Gives the outputs of a node their shapes and dtypes, or says why its inputs do not fit. */
typedef qgc_status qgc_infer_fn(struct qgc_node *n, qgc_diag *d);

/* Computes a node on the CPU (see graph/eval.h). Cannot fail: infer has checked the shapes. */
typedef void qgc_ref_fn(const struct qgc_call *call);

typedef struct {
    const char *name; /* in the YAML */
    int min_inputs, max_inputs, n_outputs;
    unsigned traits;
    const char *signature; /* "x, weight, bias?" for help and errors */
    const char *summary;
    qgc_attr_spec attrs[QGC_MAX_ATTRS + 1]; /* ended by one without a name */
    qgc_infer_fn *infer;
    qgc_ref_fn *ref;        /* in float32 */
    qgc_ref_fn *ref_double; /* the same text in double precision: graph/real.h */
} qgc_op_info;

extern const qgc_op_info qgc_ops[QGC_N_OPS];

/* The op of that YAML name, or QGC_N_OPS. */
qgc_op qgc_op_named(const char *name);

/* Index of an attribute in the op's list; the name must be one of the op's. */
int qgc_attr_index(qgc_op op, const char *name);

#endif
