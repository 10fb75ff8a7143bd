#ifndef QGC_GRAPH_GRAPH_H
#define QGC_GRAPH_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "graph/base/arena.h"
#include "graph/base/derive.h"
#include "graph/base/diag.h"
#include "graph/base/map.h"
#include "graph/base/tensor.h"
#include "graph/kernel_row.h"
#include "graph/op.h"

/* The graph: a flat list of nodes in an order in which each value is made before it is used.
 *
 *   value   a tensor that flows: an input of the step, a weight, a state, or the result of a node
 *   node    one use of an op: it reads values and makes values
 *
 * Every value is made once (SSA). A state is no exception: an op that changes one in place takes the old
 * version and makes a new one in the same memory (`append` takes k_cache and makes k), so that order is
 * nothing but data flow. A repeat block of the YAML is unrolled; nodes and values remember which block
 * (`repeat`) and which iteration of it (`layer`) they came from, so that the printer can roll it up again.
 *
 * Nodes and values live in the graph's arena, never move and are never freed: a pointer to one is good for
 * the whole compile. */

/* A dimension is a number, or one of three symbols whose value is known when a step runs. */
enum {
    QGC_DIM_T = -1,   /* "T": tokens of this step: 1 in decode, a chunk of the prompt in prefill */
    QGC_DIM_R = -2,   /* "R": rows of the step whose logits are wanted: the last one, or all */
    QGC_DIM_CTX = -3, /* "ctx": positions that the caches have room for */
};

/* Below these are the positions of a ring: "ctx", but at most `rows`, the last ones, position p in row p % rows. */
int64_t qgc_ring_dim(int64_t rows);
/* The rows of a ring; 0 for any other dimension. */
int64_t qgc_dim_ring(int64_t dim);

typedef struct {
    int rank;
    int64_t dim[QGC_MAX_RANK]; /* outermost first */
} qgc_shape;

typedef struct qgc_value qgc_value;
typedef struct qgc_node qgc_node;
typedef struct qgc_graph qgc_graph;

typedef enum { QGC_INPUT, QGC_WEIGHT, QGC_STATE, QGC_RESULT } qgc_value_kind;

/* What the YAML declares under `weights`. */
typedef struct {
    const char *name;
    qgc_loc at;
    int repeat;        /* index of the repeat block it is there for, or -1 for one of its kind */
    const char *index; /* the `per` name, NULL for one of its kind */
    int count;         /* how many: iterations of the repeat, or those of them that have one; or 1 */
    const char *gguf;  /* tensor name in a GGUF, "{l}" standing for the layer; NULL if not stated */
    const char *hf;    /* tensor name in safetensors, likewise */
    qgc_tensor_form gguf_form, hf_form; /* how it is made of that tensor */
    int tied;               /* index of the weight whose tensor stands in where the file has none, or -1 */
    qgc_derivation derived; /* it is no tensor, but made of other weights */
    qgc_value **values;     /* [count], by rising iteration, which is their `layer` */
} qgc_weight_decl;

/* What the YAML declares under `state`. */
typedef struct {
    const char *name;
    qgc_loc at;
    int repeat;
    const char *index;
    int count;
    qgc_value **values; /* [count] */
} qgc_state_decl;

/* A hyperparameter: its value, NAN if the model file gives none, and the keys under which weights files
 * state it: all that a file has agree with the value. A file that has none of the keys means `otherwise`; NULL: it has to
 * state one. */
typedef struct {
    const char *name;
    double value;
    qgc_loc at;
    const char **gguf; /* n_gguf keys, may be none */
    const char **hf;
    int n_gguf, n_hf;
    const char *
        *words; /* that stand for 0, 1, ... in files: "default", or several for one number, "default|none" */
    int n_words;
    const char *index; /* of the repeat that has one value in each iteration; NULL: one value */
    int count;
    double
        *values; /* [count], of which `value` is the first; NULL before format 2, where there is only that */
    double *otherwise; /* [count] */
    bool fixed;        /* by the model file: what a weights file states is compared with it */
    bool used;         /* by anything in the graph */
} qgc_param;

typedef struct {
    const char *index; /* "l" */
    int count;
    qgc_loc at;
} qgc_repeat;

struct qgc_value {
    qgc_value_kind kind;
    int id; /* position in graph->values: an index for tables beside the graph */
    const char *name;
    int repeat, layer; /* -1 outside of repeats */
    qgc_dtype dtype;   /* results are F32 unless the op says otherwise; weights as they are to be stored */
    qgc_shape shape;
    qgc_loc at;
    int decl;           /* index into weights or states; -1 for others */
    qgc_node *maker;    /* of a result */
    int out;            /* which output of the maker */
    unsigned char runs; /* for qgc_nodes_gather, and 0 outside of it */
};

/* An attribute: a number, or the index of a word in the op's list of choices. */
typedef struct {
    double number;
    int choice;
} qgc_attr;

/* Nodes that one kernel computes. A group is a name that its nodes carry; within a repeat each iteration has its own. */
typedef struct {
    const char *name; /* "qkv": the `fuse` key of its nodes in the YAML */
    int repeat, layer;
    qgc_loc at;
    const qgc_kernel_row *kernel; /* from outside, that computes it; NULL: one of qgc */
} qgc_group;

struct qgc_node {
    qgc_op op;
    int id;        /* counts up in order of creation; not the position in the list */
    int64_t order; /* rises along the list, by steps of any size */
    qgc_node *prev, *next;
    int repeat, layer; /* -1 outside of repeats */
    int group;         /* index into graph->groups, or -1 */
    qgc_loc at;
    int n_in, n_out;
    qgc_value *in[QGC_MAX_INPUTS];
    qgc_value *out[QGC_MAX_OUTPUTS];
    qgc_attr attr[QGC_MAX_ATTRS]; /* in the order of the op's attribute list */
};

struct qgc_graph {
    qgc_arena *arena;
    const char *name; /* "qwen2.5-0.5b" */
    const char *arch; /* "qwen2": general.architecture of a GGUF, model_type of a config.json */
    const char *gguf_arch,
        *hf_arch; /* lists, where those of a format have another name or several: "llama,mistral"; or NULL */
    qgc_loc at;
    const char *passes; /* those still to be run, as passes/passes.h takes them; NULL: not said */
    qgc_loc passes_at;
    bool shares_memory; /* the memory of dead results is used again: codegen/memory.c */

    qgc_param *params;
    size_t n_params;
    qgc_repeat *repeats;
    size_t n_repeats;
    qgc_weight_decl *weights;
    size_t n_weights;
    qgc_state_decl *states;
    size_t n_states;
    const char **ignored; /* patterns of names of tensors that weights files may hold for nothing */
    size_t n_ignored;
    const qgc_kernel_row **kernels; /* from outside, that groups may name */
    size_t n_kernels;

    qgc_value **values; /* all, in order of creation */
    size_t n_values;
    qgc_node *first, *last;
    size_t n_nodes; /* in the list now */
    int next_node_id;

    qgc_group *groups;
    size_t n_groups;
    qgc_map group_index; /* (repeat, layer, name) to an int: the index into groups */

    qgc_value **inputs; /* "tokens" [T], "positions" [T], "rows" [R]; all I32 */
    size_t n_inputs;
    qgc_value **outputs; /* kept alive, found by name: "logits" [R, vocab], "next" [R] */
    size_t n_outputs;
};

qgc_graph *qgc_graph_new(qgc_arena *arena);

/* A value of the given kind, appended to g->values; inputs and outputs are listed by the caller. */
qgc_value *qgc_graph_value(qgc_graph *g, qgc_value_kind kind, const char *name, qgc_loc at);

/* A node at the end of the list, or before `before`. Its optional attributes are as usual. Its outputs are made as results named by `names`
 * (n_out of them, as the op has) with the node's place in repeats; shapes are left to qgc_infer. */
qgc_node *qgc_graph_node(qgc_graph *g, qgc_op op, qgc_node *before, qgc_loc at);
qgc_value *qgc_node_output(qgc_graph *g, qgc_node *n, const char *name);
void qgc_graph_remove(qgc_graph *g, qgc_node *n);

/* A copy in another arena: nodes of the list and values have the ids that they had, what was removed is left out. Names and
 * places are those of `g`, whose arena outlives the copy. */
qgc_graph *qgc_graph_clone(const qgc_graph *g, qgc_arena *arena);

/* The group of that name in an iteration of a repeat, made if there is none; and the same, -1 if there is none. A group may
 * have no nodes: those that it had may be gone, or in another group. */
int qgc_graph_group(qgc_graph *g, const char *name, int repeat, int layer, qgc_loc at);
int qgc_graph_find_group(const qgc_graph *g, const char *name, int repeat, int layer);

/* The kernel from outside of that name, or NULL; adds one, and returns the graph's: a name stands for one kernel, so NULL if
 * there is another of it. */
const qgc_kernel_row *qgc_graph_kernel(const qgc_graph *g, const char *name);
const qgc_kernel_row *qgc_graph_add_kernel(qgc_graph *g, const qgc_kernel_row *row);

/* The kernel from outside that computes the group of a node; NULL: there is none. */
const qgc_kernel_row *qgc_node_kernel(const qgc_graph *g, const qgc_node *n);

/* The node after `n` if it is in the group of `first` too, else NULL; of a node in no group NULL. So a loop goes over a group whose
 * nodes stand together, or over a node by itself. */
const qgc_node *qgc_group_next(const qgc_node *first, const qgc_node *n);

/* Moves the nodes of a group together, without changing what the graph computes: nodes between them that need nothing
 * of the group go before it, the others after it; other groups, whose nodes stand together, stay whole, and who reads a
 * state stays before who changes it. False, with nothing changed, if a node outside has to lie between two nodes of the
 * group; *between (may be NULL) is then that node. Given all `n` nodes of the group, in any order, it looks at no more
 * than the list between the first and the last of them; given the group, it goes over the list to find them. */
bool qgc_nodes_gather(qgc_graph *g, qgc_node *const *nodes, int n, const qgc_node **between);
bool qgc_group_gather(qgc_graph *g, int group, const qgc_node **between);

/* Has the attribute number `i` of a node to be written: is it other than what an optional one usually is? */
bool qgc_attr_is_written(const qgc_node *n, int i);

/* Do two nodes of one op have the same attributes? */
bool qgc_attrs_equal(const qgc_node *a, const qgc_node *b);

/* Is it a result that lies in the memory of the state that it is a version of? */
bool qgc_value_is_version(const qgc_value *v);

/* How often a value is read: once for each input that names it, once for each output of the graph. It goes over the
 * list; who asks for many values asks for all, by id, in arena `a`. */
int qgc_value_uses(const qgc_graph *g, const qgc_value *v);
int *qgc_graph_uses(const qgc_graph *g, qgc_arena *a);

/* Is it a weight that is derived of others? And what its derivation names as source number i: of a declaration for
 * each iteration that of the weight's own. NULL if there is none. */
bool qgc_weight_is_derived(const qgc_graph *g, const qgc_value *weight);
qgc_value *qgc_weight_source(const qgc_graph *g, const qgc_value *weight, int i);

/* Do the sources of a derived weight fit? NULL, or why not. *out gets the shape and the type that it has by itself. */
const char *qgc_weight_misfit(const qgc_graph *g, const qgc_value *weight, qgc_tensor *out, qgc_arena *a);

/* The tensor of a weight as it is stored: that of the table `tensors`, by value id, or what is derived of such. Its
 * numbers live in arena `a`. NULL where there is none. */
const qgc_tensor *qgc_weight_tensor(const qgc_graph *g, const qgc_value *weight,
                                    const qgc_tensor *const *tensors, qgc_pool *pool, qgc_arena *a);

/* The numbers of a derived weight in double precision, rounded to nothing. */
const double *qgc_weight_reals(const qgc_graph *g, const qgc_value *weight, const qgc_tensor *const *tensors,
                               qgc_pool *pool, qgc_arena *a);

/* By name: a hyperparameter, an input, an output; NULL if there is none. */
const qgc_param *qgc_graph_param(const qgc_graph *g, const char *name);
/* Does it say what the graph was made with? One that nothing needed does not. */
bool qgc_param_counts(const qgc_param *p);
qgc_value *qgc_graph_input(const qgc_graph *g, const char *name);
qgc_value *qgc_graph_output(const qgc_graph *g, const char *name);

/* How many positions the model can have: the parameter max_positions, and no more than the rows of a table in which it
 * looks positions up. 0: there is no limit. */
int64_t qgc_graph_max_positions(const qgc_graph *g);

/* "q", or "q[3]" in layer 3. */
const char *qgc_value_label(const qgc_value *v, qgc_arena *a);

/* A tensor's name in a file: `pattern` with "{index}" replaced by the layer: "blk.{l}.attn_q.weight" in layer 3 is
 * "blk.3.attn_q.weight". The pattern itself where there is nothing to replace; NULL stays NULL. */
const char *qgc_tensor_name(const char *pattern, const char *index, int layer, qgc_arena *a);

bool qgc_shape_equal(const qgc_shape *a, const qgc_shape *b);
/* Has `a` one element for each row of `b`, which has longer ones: [T, 1] and [T, d]? */
bool qgc_is_one_a_row(const qgc_shape *a, const qgc_shape *b);
/* "[T, 896]" */
const char *qgc_shape_text(const qgc_shape *s, qgc_arena *a);
/* Product of the dimensions from `first` on, which must be numbers. */
int64_t qgc_shape_elems_from(const qgc_shape *s, int first);

/* Turns dimensions into counts. */
int64_t qgc_dim_size(int64_t dim, const qgc_sizes *sizes);
int64_t qgc_shape_elems(const qgc_shape *s, const qgc_sizes *sizes);

/* Gives every result its shape and dtype, node by node. */
QGC_MUST_USE qgc_status qgc_infer(qgc_graph *g, qgc_diag *d);

/* Checks what holds between any two passes: lists are well linked, every value is made before it is used,
 * arity and attributes fit the op table, shapes are those that the rules give, a state has one newest
 * version and no reader of an older one after its change, outputs exist. An error here is a fault of a
 * pass, and the message says so. */
QGC_MUST_USE qgc_status qgc_verify(qgc_graph *g, qgc_diag *d);

/* Of that, what anybody relies on who goes over a graph, and what a pass that writes where it should not leaves broken: the list
 * ends, no pointer leads out of the graph, and ids, ops, arities, groups, turns and declarations are some that there are. */
QGC_MUST_USE qgc_status qgc_verify_links(const qgc_graph *g, qgc_diag *d);

/* Checks that the graph is one that can be run: inputs "tokens", "positions" and "rows", outputs "logits" [R, vocab] and
 * "next" [R] of whole numbers. */
QGC_MUST_USE qgc_status qgc_verify_interface(const qgc_graph *g, qgc_diag *d);

/* The rows of the rings that an attention reads its keys and values from; 0 of one whose caches are none, and of any other node. */
int64_t qgc_node_ring(const qgc_node *n);

/* The most tokens of a step that fits at any position: a ring has room for them beside what the first of them sees. As many steps can be
 * undone. INT64_MAX where no cache is a ring. */
int64_t qgc_graph_most_tokens(const qgc_graph *g);

#endif
