#ifndef QGC_CODEGEN_LOWER_IMPL_H
#define QGC_CODEGEN_LOWER_IMPL_H

/* The words in which the lowering functions of codegen/lower_ops.c speak. */

#include "codegen/lower.h"
#include "codegen/stage/stage.h"
#include "graph/rope.h"

/* Of the ids of a route: its items in the order of their experts, and tiles of them (kernels/expert_order.cu). */
typedef struct {
    bool made;
    int order, tiles; /* buffers */
} qgc_item_order;

/* A matrix in the stream of the persistent step, as kernels that read it there are told of it. */
typedef struct {
    int stream, shares; /* buffers */
    int64_t at;         /* bytes of the stream before the iteration that it belongs to */
    qgc_dtype type;     /* that it has there: F16, BF16 or a block format */
    int64_t row_bytes;
    int64_t step_bytes; /* of a row of a block format for 64 elements, in a stage of packed_gemm.cu; else 0 */
    const char *const *place; /* options that say where its rows are: those of pack.cuh, and K */
} qgc_streamed;

/* The products of a phase of the persistent step as prefill computes them from its stream, in one kernel. */
typedef struct {
    const char *name;
    const qgc_node *const *linear; /* in the order of the phase's matrices */
    int n;
    const qgc_node *at; /* when this node comes they are computed */
    bool fused; /* and with them `result`, an `expression` of theirs and of `outside`, which may be NULL */
    const char *expression;
    const qgc_value *result, *outside;
} qgc_packed;

typedef struct {
    qgc_graph *graph;
    qgc_plan *plan;
    qgc_kernel_job *jobs;
    qgc_arena *arena;
    qgc_diag *diag;
    const qgc_node *node; /* being lowered */
    qgc_phase_kind phase;
    qgc_sizes sizes;          /* largest of this phase */
    int *uses;                /* [n_values] how often each is read */
    int *buffer_of;           /* [n_values] in this phase, -1 where there is none yet */
    int *bf16_of;             /* [n_values]: the buffer with the value rounded to bf16, in this phase */
    qgc_item_order *order_of; /* [n_values], in this phase */
    int *operand_of; /* [n_values]: the buffer with the value as operand B of packed_gemm.cu, in this phase */
    /* What the persistent step has in its stream; NULL: there is no such step. */
    qgc_streamed *streamed;       /* [n_values], of weights */
    const qgc_packed **packed_of; /* [next_node_id], of nodes that are computed with such products */
    int least_arch;               /* of qgc_lower_options */
    int sms;                      /* multiprocessors of the card */
    int shared_bytes;             /* that a block may have there */
    int most_shared_bytes; /* the same for kernels that differ by architecture: of the card, else of the largest */
    const qgc_card *card; /* of qgc_lower_options, like this: */
    bool card_alone;
    const qgc_tuning *tuning;
    qgc_knob *knobs; /* each once */
    size_t n_knobs;
    bool ended; /* the kernel that chooses the token has ended the step, as advance.cu does */
} qgc_lowering;

/* The buffer of a value. A result gets one at its first use here; an in-place op's result lives in its input's. */
int qgc_low_buffer(qgc_lowering *l, const qgc_value *v);

/* Scratch for the launches of this node (and later ones). */
int qgc_low_scratch(qgc_lowering *l, const char *name, qgc_extent bytes);

/* A buffer of a kind that needs no more than a size. */
int qgc_low_buffer_of_kind(qgc_lowering *l, const char *name, qgc_buffer_kind kind, qgc_extent bytes);

/* A table that the init phase fills, found by its name: *made says that it is new and wants a launch there. It is zero at
 * first. */
int qgc_low_table(qgc_lowering *l, const char *name, qgc_extent bytes, bool *made);

/* A kernel of the plan: kernels/<file>, whose entry is the file's name without ".cu", compiled with `options`, a list
 * of texts such as "-DIN=896" that ends with NULL. The same file with the same options is the same kernel. */
int qgc_low_kernel(qgc_lowering *l, const char *file, int threads, const char *const *options);

/* The same for a kernel that includes a program.cuh of its own, whose text is `program`. */
int qgc_low_program(qgc_lowering *l, const char *file, int threads, const char *const *options,
                    const char *program);

/* A setting of the kernel of that name and shape: what the tuning says, if it is among the candidates (ended by 0), or else
 * `usual`. */
int64_t qgc_low_setting(qgc_lowering *l, const char *kernel, const char *name, int64_t usual,
                        const int64_t *candidates);

/* A launch at the end of `phase`. Grid and arguments are then given one by one. */
qgc_plan_launch *qgc_low_launch(qgc_lowering *l, qgc_phase_kind phase, int kernel);
void qgc_low_grid(qgc_plan_launch *launch, int axis, qgc_extent elems, int64_t per_block);
void qgc_low_arg_buffer(qgc_plan_launch *launch, int buffer, int access); /* QGC_READS ..., or 0 */
void qgc_low_arg_i32(qgc_plan_launch *launch, qgc_extent value);
void qgc_low_arg_early(qgc_plan_launch *launch);
/* Buffers of all inputs of a node, then of its first result, as arguments. */
void qgc_low_operands(qgc_lowering *l, qgc_plan_launch *launch, const qgc_node *n);

/* In a prefill from the stream: is a node computed by packed_gemm.cu? Then it is lowered, with all that is computed with it, when the
 * last of their operands is there. */
bool qgc_low_packed(qgc_lowering *l, const qgc_node *n);
/* The buffer of a value of T tokens as operand B of such products, for what makes it to write, where only they read it; else -1. */
int qgc_low_operand_only(qgc_lowering *l, const qgc_value *x);

/* Text in the plan's arena, for options. */
const char *qgc_low_text(qgc_lowering *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A float and a double as C++ writes them, exactly: "1e-06f", "1000000.0". */
const char *qgc_low_float(qgc_lowering *l, const char *name, double value);
const char *qgc_low_double(qgc_lowering *l, const char *name, double value);
const char *qgc_low_float_text(qgc_lowering *l, double value);  /* "1e-06f" */
const char *qgc_low_double_text(qgc_lowering *l, double value); /* "1e-06" */

/* The number of elements of a shape, or of its first dimension, as an extent. */
qgc_extent qgc_low_elems(const qgc_shape *s);
/* The option of kernels that read or write a cache [heads, positions, d] which is a ring, "-DKEPT=5120"; NULL of one that is none. */
const char *qgc_low_kept(qgc_lowering *l, const qgc_value *cache);
qgc_extent qgc_low_dim(int64_t dim);
qgc_extent qgc_low_times(qgc_extent e, int64_t factor);

/* "-DNAME=F16", "-DNAME=896"; the last dimension of a value; attributes of a node. */
const char *qgc_low_type_name(qgc_dtype t);
const char *qgc_low_type(qgc_lowering *l, const char *name, qgc_dtype t);
const char *qgc_low_int(qgc_lowering *l, const char *name, int64_t value);
int64_t qgc_low_width(const qgc_value *v);
double qgc_low_attr(const qgc_node *n, const char *name);
int64_t qgc_low_attr_int(const qgc_node *n, const char *name);

enum { QGC_LOW_THREADS = 256 }; /* of a block, where nothing asks for another number */

enum { QGC_LOW_MOST_EXPERTS = 1024 }; /* that a route can choose from */

/* Host and device agree on this; the answer that a step leaves is read before 1024 more are made. */
enum { QGC_LOW_RING = 1024 };

/* Can a table be made for a rope? Status QGC_ERR_INPUT if its frequencies depend on more than one weight. */
QGC_MUST_USE qgc_status qgc_low_rope_check(qgc_lowering *l, const qgc_node *rope);

/* The table of cosines and sines that a rope node reads, with its launch in the init phase; and what the table depends on, as text:
 * equal for ropes with the same table. */
int qgc_low_rope_table(qgc_lowering *l, const qgc_node *rope);
const char *qgc_low_rope_angles(qgc_lowering *l, const qgc_node *rope);

/* The options that say which elements of a head turn: none where all do, in style neox. Returns how many, 3 at most. */
int qgc_low_rope_options(qgc_lowering *l, const qgc_node *rope, const char **options);

/* The kernel of a group, or of a node that is one by itself (codegen/lower_group.c). */
qgc_status qgc_lower_stage(qgc_lowering *l, const qgc_stage *f, const char *name);

/* Can route.cuh choose them? Status QGC_ERR_INPUT if they are too many. And its options: 4 of them. */
QGC_MUST_USE qgc_status qgc_low_route_check(qgc_lowering *l, const qgc_node *route);
int qgc_low_route_options(qgc_lowering *l, const qgc_node *route, const char **options);

/* The kernel of a stage of experts, in a step of one token (codegen/lower_experts.c). */
qgc_status qgc_lower_experts(qgc_lowering *l, const qgc_stage *f);

/* The launch of a kernel from outside (codegen/lower_outside.c). */
qgc_status qgc_lower_outside(qgc_lowering *l, const qgc_outside_stage *o);

typedef qgc_status qgc_lower_fn(qgc_lowering *l, const qgc_node *n);

#define OP(tag, name, min_in, max_in, n_out, signature, attrs, function, traits, summary) \
    qgc_lower_fn lower_##function;
#include "graph/ops.def"
#undef OP

/* What becomes of a norm's elements in its kernel: an expression of l0 and of outside values. */
enum { QGC_NORM_INPUTS = 4 };
typedef struct {
    const char *expression;
    const qgc_value *const *inputs;
    int n_inputs;
    const qgc_value *result;
} qgc_normed;

/* How many warps share a row of `in` elements, where a kernel has so many warps with one each. */
int64_t qgc_low_split(int64_t in, int64_t warps);

/* A norm by itself (`then` NULL), or with pointwise ops after it. */
qgc_status qgc_low_norm(qgc_lowering *l, const qgc_node *n, const qgc_normed *then);

/* The text "op_mul(op_silu(l0),op_scale(a0,0.5f))" of what a result is of the stage's products, l0 and so on, and of the values from outside that it
 * names a0 and so on: inputs[0 .. *n), at most 6. */
const char *qgc_low_expression(qgc_lowering *l, const qgc_stage *f, const qgc_value *result,
                               const qgc_value **inputs, int *n);

/* Which of the values that an expression takes from outside have one number for each row of the result: bits. */
int qgc_low_one_a_row(const qgc_value *const *inputs, int n, const qgc_value *result);

/* Gives a launch of a kernel of products the values that its expression takes from outside: QGC_OUTSIDE_OF_PRODUCTS arguments. */
enum { QGC_OUTSIDE_OF_PRODUCTS = 4 };
void qgc_low_outside_arguments(qgc_lowering *l, qgc_plan_launch *launch, const qgc_value *const *inputs,
                               int n);

/* The kernel that computes most of a decode step, in the phases pack and persistent, and which nodes it covers, by id. *fits: false,
 * with the reason in the plan, if the graph cannot be computed so (codegen/persistent/). */
QGC_MUST_USE qgc_status qgc_emit_persistent(qgc_lowering *l, unsigned probe, bool **covered, bool *fits);

/* Scratch buffers get their offsets: codegen/memory.c. Error: more than 2^62 bytes in all. */
QGC_MUST_USE qgc_status qgc_plan_memory(qgc_plan *p, bool keep_values, qgc_diag *d);

#endif
