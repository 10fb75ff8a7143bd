#ifndef QGC_CODEGEN_STAGE_STAGE_H
#define QGC_CODEGEN_STAGE_STAGE_H

#include "codegen/stage/outside.h"
#include "graph/graph.h"

/* A stage is what one kernel computes: the nodes of a group, or a node by itself, sorted by what they are to the kernel. Passes ask
 * before they put nodes into a group, the pass driver asks after each pass, and both emitters of codegen compose their kernels
 * of stages; so what may be fused is said in one place.
 *
 *   pointwise   a tree (or any connected piece) of pointwise ops over values of one shape, and others with one element a row, with
 *               one result; it may read an rms_norm over all of a row, which is then of the stage too
 *   products    [rms_norm, layer_norm or attention_merge] -> linear, one or several over the same x -> what is done with each row:
 *                 nothing; or a pointwise piece over the rows of all of them, which have equal shapes;
 *                 or, for each linear by itself, [rms_norm of its heads, or of all of it] -> [rope] -> [append];
 *                 and after a single one, or its pointwise piece, sample_part with a chunk of QGC_SAMPLE_CHUNK, which leaves what it
 *                 reads as well;
 *               or after a single one, with a norm before it, route, which leaves its scores and the normed vector as well;
 *               before the norm there may be an embedding, which leaves its rows as well
 *   experts     expert_linear without a bias, one or two with the same x and ids, and a pointwise piece over the rows of all of them;
 *               or one -> expert_sum, and perhaps a pointwise piece over the sum
 *   outside     what a kernel from outside says that it computes (codegen/stage/outside.h), for groups that name it */

typedef enum {
    QGC_STAGE_POINTWISE,
    QGC_STAGE_PRODUCTS,
    QGC_STAGE_EXPERTS,
    QGC_STAGE_OUTSIDE,
    QGC_STAGE_NODE, /* a node that has a kernel of its own only */
} qgc_stage_kind;

enum { QGC_MAX_LINEARS = 4, QGC_MAX_POINTWISE = 16 };

/* More nodes than these no kernel computes: embedding, norm or merge, products with norm, rope and append, pointwise ops,
 * a sample_part. */
enum { QGC_MAX_GROUP = 3 + 4 * QGC_MAX_LINEARS + QGC_MAX_POINTWISE };

/* The chunk of a sample_part that a kernel of products computes: as many rows as one of its blocks. */
enum { QGC_SAMPLE_CHUNK = 32 };

typedef struct {
    const qgc_node *linear; /* of EXPERTS an expert_linear */
    const qgc_node *norm;   /* of heads, or of all of the product; or NULL */
    const qgc_node *rope;   /* or NULL */
    const qgc_node *append; /* or NULL */
} qgc_stage_row;

typedef struct {
    qgc_stage_kind kind;
    const qgc_node *first;     /* in the order of the list; set by qgc_stages_list */
    const char *name;          /* "qkv", "rms_norm h": without the layer; set by qgc_stages_list */
    const qgc_node *node;      /* of a NODE */
    const qgc_node *embedding; /* what the norm reads, or NULL */
    const qgc_node *norm;      /* rms_norm or layer_norm that makes x, or NULL */
    const qgc_node *merge;     /* attention_merge that makes x, or NULL */
    const qgc_node *part;      /* sample_part of the only product, or NULL */
    const qgc_node *route;     /* of the only product's rows, or NULL */
    const qgc_node *sum;       /* expert_sum of the only product, or NULL */
    qgc_stage_row rows[QGC_MAX_LINEARS];
    int n_rows;
    const qgc_node *pointwise[QGC_MAX_POINTWISE]; /* in an order in which they can be computed */
    int n_pointwise;
    const qgc_outside_stage *outside; /* of an OUTSIDE, in the arena of who asked */
} qgc_stage;

/* How a weight is to lie on the device: vectors (norms, biases) as F32, matrices as they are (graph/base/planes.h). Products in one
 * kernel may have matrices of several types. */
qgc_dtype qgc_weight_storage(const qgc_value *weight);

/* The bytes that it takes there. */
int64_t qgc_weight_bytes(const qgc_value *weight);

/* Recognises the nodes of a group: `n` of them, in the order of the list, and no other is in the group. `uses` says how
 * often each value of the graph is read (qgc_graph_uses). If no kernel computes them together, returns false and says
 * in *why what is in the way ("\"h[3]\" is read outside of the group"), in arena `a`. */
bool qgc_stage_of(const qgc_node *const *nodes, int n, const int *uses, qgc_stage *out, const char **why,
                  qgc_arena *a);

/* The same for a kernel from outside; NULL: those of qgc. */
bool qgc_stage_by(const qgc_kernel_row *kernel, const qgc_node *const *nodes, int n, const int *uses,
                  qgc_stage *out, const char **why, qgc_arena *a);

/* The same for the group of `first`, whose nodes follow it, and the kernel that it names. */
bool qgc_stage_at(const qgc_graph *g, const qgc_node *first, const int *uses, qgc_stage *out,
                  const char **why, qgc_arena *a);

/* The stages of a graph in the order of its list: out[0 .. *n). A linear by itself is products of one row, a pointwise op by itself
 * is pointwise. Errors are those of qgc_stages_check. */
QGC_MUST_USE qgc_status qgc_stages_list(const qgc_graph *g, const int *uses, qgc_stage **out, int *n,
                                        qgc_arena *a, qgc_diag *d);

/* Is every group of the graph, whose nodes stand together, one that a kernel can compute? Status QGC_ERR_INPUT names the
 * first that is not, at its place in the YAML, and why. */
QGC_MUST_USE qgc_status qgc_stages_check(const qgc_graph *g, qgc_diag *d);

#endif
