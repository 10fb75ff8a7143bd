#ifndef QGC_CODEGEN_STAGE_OUTSIDE_H
#define QGC_CODEGEN_STAGE_OUTSIDE_H

#include "graph/graph.h"

/* Kernels from outside (graph/kernel_row.h): what a row says, read; which nodes of a graph it computes; and what its expressions
 * are for them. The row names values and nodes; a node goes by the name of its first result.
 *
 *   nodes     "n = rms_norm(x, w); y = gelu(n, kind=tanh)"    all nodes of the group; what is written of attributes has to hold
 *   params    "x: f32 reads, k: f16 reads writes, w: any reads early, y: f32 writes, T: i32 = T"
 *             buffers of values: `any` is f32, f16 or bf16, and TYPE_w then an option; `early`: also before the wait; and numbers
 *   options   "WIDTH = x.width, EPS = n.eps": numbers; later expressions may use the names
 *   limits    conditions
 *   grid      "x.elems by 256, T": how much, and how much of it a block does
 *   starts    "waits": every block waits for the launch before; "next before", "next after" its wait: when it lets the next
 *             one start, which is at its end where neither is said
 *   phase     "HEAD_DIM": elements of a piece of the result, which its device function computes (codegen/outside_phase.h)
 *   steps     "decode", or "decode and prefill": what it computes; other steps go node by node
 *
 * Numbers are x.width (the last dimension), x.dim0, x.dim1, ..., x.elems, attributes (n.eps; of a word its number), options, T, R
 * and ctx. */

enum { QGC_OUTSIDE_NODES = 16, QGC_OUTSIDE_NAMES = 48, QGC_OUTSIDE_PARAMS = 24, QGC_OUTSIDE_OPTIONS = 24 };

typedef enum { QGC_OUTSIDE_AT_END, QGC_OUTSIDE_BEFORE_WAIT, QGC_OUTSIDE_AFTER_WAIT } qgc_outside_next;

/* A node of a row: names by their indices, and attributes that it has to have, NAN where any will do. */
typedef struct {
    qgc_op op;
    int n_in, n_out;
    int in[QGC_MAX_INPUTS], out[QGC_MAX_OUTPUTS];
    double attr[QGC_MAX_ATTRS]; /* a number, or the index of a word */
} qgc_outside_node;

typedef struct {
    const char *name;
    int value;      /* index of a name; -1: a number */
    bool any;       /* of f32, f16 and bf16 */
    qgc_dtype type; /* of a value, where it is not any */
    bool reads, writes, early;
    const char *expression; /* of a number */
} qgc_outside_param;

typedef struct {
    const char *name, *expression;
} qgc_outside_option;

typedef struct {
    const qgc_kernel_row *row;
    const char *names[QGC_OUTSIDE_NAMES];
    int maker[QGC_OUTSIDE_NAMES]; /* the node that makes it; -1: it comes from outside */
    int n_names;
    qgc_outside_node nodes[QGC_OUTSIDE_NODES];
    int n_nodes;
    qgc_outside_param params[QGC_OUTSIDE_PARAMS];
    int n_params;
    qgc_outside_option options[QGC_OUTSIDE_OPTIONS];
    int n_options;
    bool waits, prefill;
    qgc_outside_next next;
    int arch; /* the least, 0 for any */
} qgc_outside_row;

/* Reads a row, in arena `a`. Errors, at the place of the row, name the kernel and what is wrong with which of its entries. */
QGC_MUST_USE qgc_status qgc_outside_read(const qgc_kernel_row *row, qgc_outside_row *out, qgc_arena *a,
                                         qgc_diag *d);

/* A row, and what its names are in a graph. */
typedef struct {
    qgc_outside_row row;
    const qgc_node *node[QGC_OUTSIDE_NODES];
    const qgc_value *value[QGC_OUTSIDE_NAMES];
} qgc_outside_stage;

/* Does the kernel compute exactly these nodes, of which `uses` says how often their results are read? If not, *why says what
 * is in the way, in arena `a`. */
bool qgc_outside_match(const qgc_kernel_row *row, const qgc_node *const *nodes, int n, const int *uses,
                       qgc_outside_stage *out, const char **why, qgc_arena *a);

/* The number of an expression for these nodes, at these sizes. */
QGC_MUST_USE qgc_status qgc_outside_number(const qgc_outside_stage *o, const char *expression,
                                           const qgc_sizes *sizes, double *out, qgc_diag *d);

/* Axis 0, 1 or 2 of the grid: how much ("T" where there is no such axis: "1"), and how much a block does. In arena `a`. */
void qgc_outside_axis(const qgc_outside_row *r, int axis, const char **extent, const char **by, qgc_arena *a);

/* How a value lies in memory that is a parameter: the type of a weight is that on the device. */
qgc_dtype qgc_outside_type(const qgc_value *v);

#endif
