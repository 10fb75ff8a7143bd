#ifndef QGC_CODEGEN_PLAN_H
#define QGC_CODEGEN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codegen/arch.h"
#include "codegen/shares.h"
#include "graph/base/derive.h"
#include "graph/base/diag.h"
#include "graph/base/tensor.h"

/* The compiled program as plain data: which buffers there are, which weights go into them, which kernels
 * are launched on them in which order. All that the runtime knows of a model stands here; it does not know
 * what an op is. Indices point into the arrays of the plan; -1 is none. */

/* A size that depends on the run: fixed + per_token * T + per_row * R + per_ctx * ctx, where T is the number
 * of tokens of a step, R the number of rows wanted, ctx the positions that the caches have room for, but at most `most_ctx` if that
 * is not 0. */
typedef struct {
    int64_t fixed, per_token, per_row, per_ctx, most_ctx;
} qgc_extent;

int64_t qgc_extent_size(const qgc_extent *e, const qgc_sizes *at);

/* Adds the bytes of a buffer, rounded up to a multiple of 256, to those of others. False, and nothing is added, where the size or
 * the sum is more than 2^62 or below 0. */
bool qgc_extent_add(int64_t *sum, const qgc_extent *bytes, const qgc_sizes *at);

typedef enum {
    QGC_BUFFER_WEIGHT, /* filled once from the weights file */
    QGC_BUFFER_STATE,  /* zero at the start of a session, kept from step to step */
    QGC_BUFFER_TABLE, /* zero at first, filled by the init phase or by what uses it; kept from step to step */
    QGC_BUFFER_SCRATCH, /* lives within a step, at `offset` of the scratch slab */
    QGC_BUFFER_IO,      /* what the session writes and reads, see qgc_io */
    QGC_BUFFER_PACKED, /* a session's: zero at first, filled by the begin phase; there only in persistent mode */
    QGC_BUFFER_STREAM, /* a program's: zero at first, filled by the pack phase; there only for persistent mode */
    QGC_N_BUFFER_KINDS
} qgc_buffer_kind;

/* What the session and the kernels exchange. Sizes are those of the buffers' extents. */
typedef enum {
    QGC_IO_TOKENS,    /* i32 [T]: ids of the step; a decode step leaves the next one in [0] */
    QGC_IO_POSITIONS, /* i32 [T]: their positions; a decode step leaves the next one in [0] */
    QGC_IO_ROWS,      /* i32 [R]: which tokens of the step get logits */
    QGC_IO_LOGITS,    /* f32 [R, vocab] */
    QGC_IO_NEXT,      /* i32 [R]: the tokens chosen */
    QGC_IO_SAMPLING,  /* one qgc_sampling (graph/sampling.h) */
    QGC_IO_RING, /* i32 [ring size], host memory: decode step at position p leaves its choice in [p % size] */
    QGC_IO_FAULT, /* i32, host memory: 0, or the place in a persistent step where a wait was given up */
    QGC_N_IO
} qgc_io;

typedef struct {
    const char *name; /* "q[3]": the value that lives here, for reports */
    qgc_buffer_kind kind;
    qgc_extent bytes; /* of SCRATCH: fits after `offset` at the sizes of the phases that use it */
    int weight;       /* of a WEIGHT: index into weights */
    int io;           /* of an IO: which */
    int64_t offset;   /* of a SCRATCH: bytes from the start of the slab, a multiple of 256 */
} qgc_plan_buffer;

typedef struct {
    const char *label; /* "wq[3]" */
    const char *gguf;  /* tensor name in a GGUF, NULL if the model does not say */
    const char *hf;    /* tensor name in safetensors */
    int tied;          /* index of the weight that stands in where the file has none, or -1 */
    int rank;
    int64_t shape[QGC_MAX_RANK];
    qgc_dtype
        storage; /* on the device (graph/base/planes.h): F32, F16 or BF16, to which the file's dtype is converted; or a
                        * block format, which the file has to have */
    qgc_tensor_form gguf_form, hf_form; /* how it is made of the tensor of that name */
    qgc_derivation derived;             /* or of other weights, which come before it; it has no tensor then */
} qgc_plan_weight;

typedef struct {
    const char *name;
    double value;
    int n_gguf, n_hf;
    const char **gguf; /* the keys under which a file states it */
    const char **hf;
    const char **words; /* that a file may state for 0, 1, 2, ... */
    int n_words;
    int turns;         /* of a repeat, that have a value each; 0: one value for all */
    double *values;    /* [turns] */
    int n_otherwise;   /* iterations, or 1; 0: a file has to state it */
    double *otherwise; /* [n_otherwise] what a file means that does not */
} qgc_plan_param;

/* When a kernel lets the next one start, if that one may start early. */
typedef enum {
    QGC_NEXT_AT_END,
    QGC_NEXT_BEFORE_WAIT, /* so what it waits for may still run then */
    QGC_NEXT_BEHIND_WAIT,
    QGC_N_NEXT
} qgc_next;

/* One compilation of one .cu. */
typedef struct {
    const char *name;    /* "linear.cu"; of a kernel from outside "outside/mine.cu" */
    const char *entry;   /* the extern "C" function */
    const char *options; /* "-DIN=896 -DOUT=128 ...", for reports */
    const char *
        program; /* the text of program.cuh that it includes; NULL: the one of kernels/. From outside: its own text */
    const char *
        unchecked; /* why a kernel from outside was not run on the CPU against the evaluator; NULL: it was, or it is one of qgc */
    int threads;   /* a block */
    int copy_threads; /* and those more of an image for less than sm_90: they copy what bulk copies bring there */
    int shared_bytes; /* dynamic shared memory a block; where `least` is not 0 the most that it makes use of */
    int least_shared_bytes; /* of one that is compiled for what there is, as SHARED_BYTES; 0: it always takes as much */
    bool waits; /* for the launch before it to have ended; by no way around that does it end itself */
    qgc_next lets_next;
} qgc_plan_kernel;

/* Threads of a block of the image of a kernel for that architecture. */
int qgc_kernel_threads(const qgc_plan_kernel *k, const char *arch);

/* The shared memory of a block of the image of a kernel for that architecture: more than its GPUs have where that is too little. */
int qgc_kernel_shared_bytes(const qgc_plan_kernel *k, const char *arch);

/* The machine code of a kernel for one architecture, or its PTX, which ends with a zero. */
typedef struct {
    int kernel;
    int arch; /* index into archs */
    const void *data;
    size_t bytes;
} qgc_plan_image;

typedef enum {
    QGC_ARG_BUFFER, /* device pointer: start of the buffer + value bytes */
    QGC_ARG_I32,    /* value */
    QGC_ARG_EARLY,  /* i32: is the launch one that starts early? */
    QGC_N_ARG_KINDS
} qgc_arg_kind;

/* What a kernel does with a buffer that it is given; nothing of it: it is there for its place among the arguments. Weights
 * are never written. */
enum {
    QGC_READS = 1,
    QGC_WRITES = 2,
    QGC_EARLY = 4,   /* and that also before it waits for the launches before it */
    QGC_FOLLOWS = 8, /* addresses of states lie there, which are read and written; with EARLY, read early */
    QGC_N_ACCESS = 16
};

typedef struct {
    qgc_arg_kind kind;
    int buffer;
    qgc_extent value;
    int access; /* of a BUFFER: what of the above */
} qgc_plan_arg;

typedef enum { QGC_LAUNCH_KERNEL, QGC_LAUNCH_GEMM, QGC_N_LAUNCH_KINDS } qgc_launch_kind;

enum { QGC_MAX_ARGS = 28 };

/* Work of one kind in a kernel that does several, layer after layer: for reports. */
typedef struct {
    const char *name;                     /* "mlp" */
    int64_t weight_bytes, position_bytes; /* as those of a launch */
} qgc_plan_part;

/* What a kernel that traces leaves for each block, of one of its warps: clock cycles spent in each part, and of these waiting for
 * activations and for weights; u32 [QGC_TRACE_BLOCKS, n_parts of the launch, QGC_TRACE_WORDS]. */
enum { QGC_MAX_PARTS = 64, QGC_TRACE_BLOCKS = 1024 };
enum { QGC_TRACE_CYCLES, QGC_TRACE_ACTIVATIONS, QGC_TRACE_WEIGHTS, QGC_TRACE_WORDS };
int64_t qgc_trace_bytes(int n_parts);

/* One kernel with its arguments, or one product of matrices by cuBLAS, which reads a and b and writes c:
 *   c[rows, n] (f32) = a[rows, k] (bf16) * b[n, k]^T (bf16), plus what c holds if `accumulate`. */
typedef struct {
    qgc_launch_kind kind;
    const char *node;  /* "linear q[3]" */
    const char *where; /* "models/qwen2.yaml:31:9" */

    int kernel;
    qgc_extent grid[3]; /* blocks along x, y, z: ceil(extent / per_block) */
    int64_t per_block[3];
    int n_args;
    qgc_plan_arg args[QGC_MAX_ARGS];

    int a, b, c; /* buffers */
    qgc_extent rows;
    int64_t n, k;
    bool accumulate;

    /* It may be started while launches before it still run: codegen/edges.h. The first one of a persistent step: while the end of such a
     * step right before it runs. */
    bool early;
    const char *not_early; /* why not; NULL if it may, or if it was not examined */

    bool on_all; /* grid[0] is the number of multiprocessors of the device, and all blocks run at once */
    /* for reports, the floor of this launch: bytes read from weights, and from caches for each position in them */
    int64_t weight_bytes, position_bytes;
    int n_parts; /* 0 where it does one thing; in the order in which the kernel counts them */
    qgc_plan_part *parts;
    /* A wait that is given up at part p of layer l leaves the word 1 + n_parts * l + p (QGC_IO_FAULT), and l is below this: what comes
     * after the layers counts as one more. 0: it gives up none. */
    int n_layers;
} qgc_plan_launch;

typedef enum {
    QGC_PHASE_INIT, /* once after the weights are there */
    QGC_PHASE_PREFILL, /* T tokens of a prompt, T <= chunk; R = 1 (or T: all_rows); empty in a plan for decode steps only */
    QGC_PHASE_DECODE, /* T = R = 1; feeds itself: its last launch moves next into tokens, positions and ring */
    QGC_PHASE_PACK,   /* once for a program: weights are put in the order of the persistent step */
    QGC_PHASE_PERSISTENT, /* as decode, with most of it in one kernel; empty where the graph does not fit */
    QGC_PHASE_BEGIN,      /* once for a session in persistent mode, after init: where its caches lie */
    QGC_PHASE_PACKED_PREFILL, /* as prefill, from weights in the order of the persistent step */
    QGC_PHASE_LONG_PREFILL,   /* the same for chunks of up to long_chunk tokens; empty where that is 0 */
    QGC_N_PHASES
} qgc_phase_kind;

typedef struct {
    qgc_plan_launch *launches;
    size_t n_launches;
} qgc_phase;

const char *qgc_phase_name(qgc_phase_kind phase); /* "decode" */

/* Does a step of the phase take T tokens of a prompt? And does it read weights in the order of the persistent step? */
bool qgc_phase_is_prefill(qgc_phase_kind phase);
bool qgc_phase_is_packed(qgc_phase_kind phase);

/* Is a launch of the phase a product by cuBLAS? */
bool qgc_phase_has_gemm(const qgc_phase *phase);

/* The first launch of a phase that has parts, or NULL. */
const qgc_plan_launch *qgc_phase_parts(const qgc_phase *phase);

/* A buffer, and what a launch does to it. */
typedef struct {
    int buffer, access;
} qgc_plan_use;

/* What a launch uses, in out[0 .. result), a product of cuBLAS too; what is there for its place only is left out. */
int qgc_plan_uses(const qgc_plan_launch *l, qgc_plan_use out[QGC_MAX_ARGS]);

enum { QGC_MAX_ARCHS = 32, QGC_MOST_SHARES = 64, QGC_MOST_BLOCKS = 1024 };

typedef struct {
    const char *name;                /* of the graph: "qwen2.5-0.5b" */
    const char *arch;                /* of the model: "qwen2" */
    const char *gguf_arch, *hf_arch; /* names that files may give it, with commas between; NULL: that one */
    const char **ignored;            /* patterns of names of tensors that files may hold for nothing */
    size_t n_ignored;
    const char *graph;        /* the YAML of the graph that was lowered; valid input for the CPU evaluator */
    const char *source;       /* the YAML of the graph before any pass, with the passes that were run */
    const char *compiler;     /* "qgc 0.1.0, NVRTC 13.0" */
    const char *weights_path; /* the weights it was compiled for, NULL if none were named */
    int64_t vocab;            /* rows of the logits */
    int64_t max_positions;    /* 0: the model names no limit */
    int64_t chunk;            /* largest T of a prefill step */
    int64_t long_chunk; /* of phase long-prefill, more than `chunk`: for longer prompts; 0: there is none */
    int64_t
        spare; /* steps that can be undone: for so many positions caches that are rings have room beside what a token
                               * sees; 0: any number */
    bool all_rows; /* R = T in prefill, which ends with the logits; never so in an artifact */
    int64_t scratch_bytes;
    const char *not_persistent; /* why the persistent phase is empty; NULL if it is there */
    int64_t least_sms; /* multiprocessors that the persistent phase needs, and the most that it can use */
    qgc_share *shares; /* of the blocks of the persistent phase, cut for the device when a session starts */
    size_t n_shares;
    int shares_buffer; /* where what is cut goes: i32 [blocks, n_shares, 2]; -1 where n_shares is 0 */
    int trace;         /* buffer in which the persistent kernel leaves its trace, or -1 */
    int seen; /* state, i32 [vocab]: 1 for a token that a step was fed, which sampling looks at; -1: there is none */

    const char *archs[QGC_MAX_ARCHS]; /* "sm_90a", "compute_80": codegen/arch.h */
    int n_archs;

    qgc_plan_param *params;
    size_t n_params;
    qgc_plan_weight *weights;
    size_t n_weights;
    qgc_plan_buffer *buffers;
    size_t n_buffers;
    qgc_plan_kernel *kernels;
    size_t n_kernels;
    qgc_plan_image *images;
    size_t n_images;
    qgc_phase phases[QGC_N_PHASES];
    int io[QGC_N_IO]; /* buffer of each role */
} qgc_plan;

/* The weight in whose memory one lies: that to which it is tied, where both are stored alike, as they are where one tensor is both; else
 * itself. */
int qgc_plan_weight_root(const qgc_plan *p, int weight);

/* Which weights persistent mode reads as they are stored, in stays[n_weights]: all but those that only the pack phase reads. Of a
 * tied weight that stays the other one does. */
void qgc_plan_staying(const qgc_plan *p, bool *stays);

/* Bytes of the weights as they are stored, those that are tied once: of all of them, or of those that stay. */
int64_t qgc_plan_weight_bytes(const qgc_plan *p, const bool *stays);

/* Bytes of the weights that do not stay and that one launch of the pack phase reads together, the most of any: so much room they take
 * on their way into the stream. */
int64_t qgc_plan_staging_bytes(const qgc_plan *p, const bool *stays);

/* Bytes on the device of a session and its program, in persistent mode or another, with caches of `ctx` positions; 2^62 where a sum is
 * more than that. */
typedef struct {
    int64_t weights;  /* as they are stored: all, or those that stay */
    int64_t stream;   /* in the order of the persistent step */
    int64_t staging;  /* while weights are put into that order */
    int64_t exchange; /* what else is there for persistent mode only */
    int64_t states, tables, scratch, interface;
} qgc_plan_memory_use;
qgc_plan_memory_use qgc_plan_memory_of(const qgc_plan *p, bool persistent, int64_t ctx, qgc_arena *a);

/* R of a step of so many tokens. */
int64_t qgc_plan_rows(const qgc_plan *p, qgc_phase_kind phase, int64_t tokens);

/* The largest sizes of a step of a phase, without positions; and of any step, for buffers that all phases use. */
qgc_sizes qgc_plan_sizes(const qgc_plan *p, qgc_phase_kind phase);
qgc_sizes qgc_plan_largest(const qgc_plan *p);

/* Bytes that a step of a phase reads at a position: matrices of weights, and the caches. */
int64_t qgc_plan_step_bytes(const qgc_plan *p, qgc_phase_kind phase, int64_t position);

/* Bytes of anything, so that sums of two fit. */
#define QGC_PLAN_MOST_BYTES ((int64_t)1 << 62)

/* codegen/plan_check.c: checks everything that the runtime relies on: indices in range, extents and shapes that cannot overflow for ctx
 * and T up to 2^24, grids within CUDA's limits and arguments within their buffers at all sizes that the phase may have (ctx up to
 * 2^24), all buffers and all that a step reads within 2^62 bytes in sum, no weight written, early starts that can be proved
 * harmless, scratch inside the slab, a buffer of sufficient size for each role, weight buffers as large as their weights, one
 * image for each kernel and arch. Status QGC_ERR_INPUT. */
QGC_MUST_USE qgc_status qgc_plan_check(const qgc_plan *p, qgc_loc at, qgc_diag *d);

#endif
