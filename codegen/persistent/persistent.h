#ifndef QGC_CODEGEN_PERSISTENT_PERSISTENT_H
#define QGC_CODEGEN_PERSISTENT_PERSISTENT_H

#include "codegen/lower_impl.h"
#include "codegen/outside_phase.h"
#include "codegen/shares.h"

/* The persistent emitter: the stages of a decode step as phases of one kernel (kernels/persistent.cu).
 *
 *   phases.c    each stage becomes one instance of a phase, or several; what they read from each other
 *   loops.c     instances that repeat become loops, so that the kernel has each phase once
 *   reuse.c     the memory of an exchanged vector is not written again before all have read it: shown, or refused
 *   vectors.c   where norms and biases lie, and which phase loads them ahead of the one that needs them
 *   text.c      the phases as C++ structures, which the kernel is compiled with
 *   emit.c      buffers, the launches that pack weights, the launch of the kernel
 *
 * An instance is one phase in one iteration; a phase is all instances at one place of a loop. */

typedef enum {
    QGC_DO_PRODUCTS,
    QGC_DO_ATTENTION,
    QGC_DO_MERGE,
    QGC_DO_EMBEDDING,
    QGC_DO_NORM,
    QGC_DO_HEADS,
    QGC_DO_POINTWISE,
    QGC_DO_CLOSE,
    QGC_DO_OUTSIDE,
} qgc_phase_does;

enum { QGC_MOST_OUTSIDE = 6, QGC_MOST_PHASES = 64, QGC_MOST_ROPES = 2 };

/* A vector that is read: elements from `first` on of what an instance publishes. */
typedef struct {
    int maker; /* -1: none */
    int64_t first;
} qgc_origin;

/* Where a value from outside of a phase comes from, as in the kernel: its element from a vector, what the thread carries, or the only
 * element of a vector. */
typedef enum { QGC_OUTSIDE_POLLED, QGC_OUTSIDE_CARRIED, QGC_OUTSIDE_ONE } qgc_outside_from;

typedef struct {
    const qgc_value *value;
    qgc_outside_from from;
    qgc_origin source; /* of a CARRIED one only who made it, -1 the embedding */
} qgc_outside;

/* Queries, keys or values of an attention: a vector, and what is done to each head as it is read. */
typedef struct {
    qgc_origin source;
    const qgc_node *norm, *rope; /* or NULL */
} qgc_heads_read;

typedef struct {
    qgc_phase_does does;
    const char *name; /* of its stage, */
    const qgc_stage *stage;
    int layer;
    int64_t out;       /* floats that it may publish */
    bool published;    /* somebody reads them */
    bool carries;      /* the result stays with the threads that finish its rows, too */
    bool logits;       /* the result is the logits of the step */
    const char *shape; /* equal for instances that one phase can be */

    qgc_origin x;         /* PRODUCTS, NORM, HEADS, CLOSE: what is read whole */
    const qgc_node *norm; /* of x: PRODUCTS, NORM, HEADS; or NULL */
    const qgc_node *rope; /* HEADS; or NULL */
    bool embeds;          /* PRODUCTS: x is the token's row of the table */
    int64_t k, rows;      /* PRODUCTS: rows of all matrices */
    qgc_dtype weight;
    int n_matrices, interleaved; /* PRODUCTS: matrices whose rows take turns, 1: they follow each other */
    const qgc_node *linear[QGC_MAX_LINEARS];
    const char *expression; /* PRODUCTS, POINTWISE */
    qgc_outside outside[QGC_MOST_OUTSIDE];
    int n_outside;

    const qgc_node *attention; /* ATTENTION */
    qgc_heads_read q, keys, values;
    const qgc_value *key_state, *value_state;
    int of; /* MERGE: the instance of the attention; CLOSE: the first one of its phase */

    const qgc_outside_launch *with; /* OUTSIDE: of the stage's kernel, */
    qgc_outside_phase phase;        /* what its device function is handed, */
    const qgc_origin *reads;        /* [parameters] the vectors of these, */
    const char *space;              /* and the text of its function, but for the name of its namespace */
} qgc_instance;

/* Instances first .. first + period * count, in `count` iterations of `period` phases. */
typedef struct {
    int first, period, count;
    int first_phase;
    int64_t small_at, small_step; /* floats: its vectors, and from iteration to iteration */
} qgc_loop;

typedef struct {
    int loop, slot;
    int64_t vector; /* floats from the start of a copy of the exchange; -1: it publishes nothing */
    int64_t parts;  /* ATTENTION: floats from the start of the exchange */
    int share;      /* PRODUCTS */
    int64_t stream_at, stream_step;                /* bytes: of the loop in the stream, and of an iteration */
    int64_t norm_at, bias_at, k_norm_at, sinks_at; /* floats of the small vectors, in iteration 0; -1: none */
    int norm_slot;                                 /* registers of the norm's weights */
    bool norm_loaded;                              /* by the phase itself */
    int ahead;                                     /* phase whose norm it loads ahead, or -1 */
    int64_t ahead_at;
    int squares, squares_step; /* which buffer for squares, in iteration 0, and what each iteration adds */
    int caches_at, caches_step;
    int64_t weights_at[QGC_OUTSIDE_PARAMS]; /* OUTSIDE: floats of the small vectors, in iteration 0 */
} qgc_phase_place;

typedef struct {
    qgc_lowering *l;
    bool *covered; /* [next_node_id] */
    const char *why;
    const qgc_stage *stages;
    int n_stages;
    qgc_instance *instances;
    int n_instances;
    qgc_loop *loops;
    int n_loops;
    qgc_phase_place *phases;
    int n_phases;
    int *phase_of; /* [n_instances] */

    const qgc_node *embedding; /* the only one */
    const qgc_value *table;
    const qgc_node *mark, *part; /* in the kernel: both or none */
    const qgc_node *ropes[QGC_MOST_ROPES];
    int n_ropes;
    int64_t carried_width; /* rows of what is carried, 0: nothing is */
    bool carries_embedding;

    int64_t warps, copy, exchange; /* floats of a copy, and in all */
    int64_t small, stream;         /* floats, bytes */
    int n_caches, n_norm_slots;
    int *cuts, n_cuts;           /* an attention of each shape */
    int start_slot, start_phase; /* the norm that is loaded before the first phase, or -1 */
    qgc_share *shares;
    int n_shares, carried_share;
} qgc_persistent;

/* Sets p->why; returns false, so that a function can `return qgc_persistent_no(...)`. */
bool qgc_persistent_no(qgc_persistent *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* In this order. Each returns false, with the reason in p->why, where the graph cannot be computed so. */
bool qgc_persistent_instances(qgc_persistent *p);
bool qgc_persistent_loops(qgc_persistent *p);
bool qgc_persistent_reuse(qgc_persistent *p);
void qgc_persistent_vectors(qgc_persistent *p);
/* Of an attention in an iteration of its phase: where its parts lie, in floats from the start of the exchange; how many iterations before
 * it have the same ones; and which is the next one that has them, or -1. */
int64_t qgc_parts_at(const qgc_persistent *p, int phase, int iteration);
int qgc_parts_uses_before(const qgc_persistent *p, int phase, int iteration);
int qgc_parts_next_use(const qgc_persistent *p, int phase, int iteration);
/* Is that the last use of them, and are there an odd number of uses? */
bool qgc_parts_end_odd(const qgc_persistent *p, int phase, int iteration);
/* Which of the cuts is that of an attention; as many as there are: none. */
int qgc_persistent_cut(const qgc_persistent *p, const qgc_instance *attention);
/* Where the rows of a phase begin, in bytes from the start of an iteration in the stream: an expression of FIRST(share) and
 * COUNT(share), a block's rows. */
const char *qgc_persistent_place(const qgc_persistent *p, int phase);
/* How many bytes a block reads of the stream from there to the end of the iteration, likewise: they lie together. */
const char *qgc_persistent_rest(const qgc_persistent *p, int phase);
void qgc_persistent_shares(qgc_persistent *p);
/* Tiles of a phase's rows in the block that has most, on a card like that it is compiled for. */
int64_t qgc_phase_tiles(const qgc_persistent *p, int phase);
/* The text of program.cuh. */
bool qgc_persistent_text(qgc_persistent *p, const char **text);

/* What the weights of a phase lie in the stream as, in the order in which its iterations have it; returns how many. More than one are
 * block formats. */
int qgc_phase_formats(const qgc_persistent *p, int phase, qgc_dtype formats[QGC_N_DTYPES]);

/* The instance that a phase is in an iteration, the one of iteration 0, and how many there are. */
const qgc_instance *qgc_phase_instance(const qgc_persistent *p, int phase, int iteration);
const qgc_instance *qgc_phase_first(const qgc_persistent *p, int phase);
int qgc_phase_count(const qgc_persistent *p, int phase);
/* The iteration that an instance is. */
int qgc_instance_iteration(const qgc_persistent *p, int instance);

/* Elements of a head: what `rope` turns or, without one (NULL), what `norm` norms. */
int64_t qgc_heads_dim(const qgc_node *norm, const qgc_node *rope);
/* Elements that a norm goes over; NULL: 0. */
int64_t qgc_norm_width(const qgc_node *norm);
/* A rope that says which elements of an instance's heads turn, or NULL. */
const qgc_node *qgc_instance_rope(const qgc_instance *i);
/* Which table of angles is a rope's; NULL, or none: -1. */
int qgc_persistent_angles(const qgc_persistent *p, const qgc_node *rope);
/* Bytes of a row of k elements in the stream, of F16, BF16 or a block format. */
int64_t qgc_stream_row_bytes(qgc_dtype t, int64_t k, int64_t warps);
/* Bytes of a row for 64 elements as kernels/packed_blocks.cuh brings them, of a block format; else 0. */
int64_t qgc_stream_step_bytes(qgc_dtype t);
/* What a copy may bring of block formats: in a small shared memory less, as the ring has to have room for four. */
enum { QGC_COPY_BYTES = 17600 };
int64_t qgc_stream_copy_bytes(int shared_bytes);
/* How many of `tiles` tiles of block formats are multiplied at a time: as many as a copy brings. As in kernels/stream_blocks.cuh. */
int64_t qgc_stream_group(qgc_dtype t, int64_t k, int64_t warps, int64_t copy_bytes, int64_t tiles);
/* The most bytes that a copy brings of such rows, where of block formats it may bring `copy_bytes`. */
int64_t qgc_stream_slot_bytes(qgc_dtype t, int64_t k, int64_t warps, int64_t copy_bytes);
/* Operands of x that a lane keeps in shared memory while such rows are multiplied. */
int64_t qgc_stream_operands(qgc_dtype t, int64_t k, int64_t warps);
/* The same for a phase: the most in any iteration; 2 where x is taken from the L2 cache, two chunks at a time. */
enum { QGC_OPERAND_BYTES = 272 }; /* of one, of all lanes of a warp */
int64_t qgc_phase_operands(const qgc_persistent *p, int phase);
/* Bytes of a row of products of a phase: the most in any iteration, for which there is room in each. */
int64_t qgc_phase_row_bytes(const qgc_persistent *p, int phase);
/* Bytes of the weights that an instance reads from the stream. */
int64_t qgc_instance_weights(const qgc_persistent *p, const qgc_instance *i);

/* Elements of the largest head, 32 at least. */
int64_t qgc_persistent_largest_head(const qgc_persistent *p);

/* Is a matrix of it in a block format? In Q4_K, Q5_K or Q6_K? */
bool qgc_persistent_has_blocks(const qgc_persistent *p);
bool qgc_persistent_has_k_formats(const qgc_persistent *p);
/* Do the weights of its layers take less than 6 bits? */
bool qgc_persistent_takes_few_bits(const qgc_persistent *p);

/* Do all cards that it is for copy in bulk? */
bool qgc_persistent_copies_in_bulk(const qgc_persistent *p);

/* Bytes of shared memory that its block takes with the smallest ring that works: kernels/persistent_step.cuh. `traced`: with
 * QGC_PROBE_TRACE. */
int64_t qgc_persistent_ring_bytes(const qgc_persistent *p, bool traced);

/* Warps that compute, from the tuning of that name or as many as waste least. */
int64_t qgc_persistent_warps(const qgc_persistent *p, const char *name);

/* Positions in a tile of keys of that size of head, as in kernels/persistent_step.cuh. */
int64_t qgc_persistent_span(const qgc_persistent *p, int64_t head_dim);

#endif
