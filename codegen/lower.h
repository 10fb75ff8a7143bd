#ifndef QGC_CODEGEN_LOWER_H
#define QGC_CODEGEN_LOWER_H

#include "codegen/card.h"
#include "codegen/plan.h"
#include "codegen/tuning.h"
#include "graph/graph.h"

/* From the graph to the plan: which kernels run on which buffers, in which order. Every node is lowered twice,
 * once for a prefill step (T tokens) and once for a decode step (T = R = 1), by the function of its row in
 * graph/ops.def. Kernels are named and given their options here; compiling them is codegen/compile.c's part. */

/* What a persistent kernel that is to be measured does otherwise. Without stream or waits its results mean nothing. */
enum qgc_probe {
    QGC_PROBE_TRACE = 1, /* it counts cycles of its parts, which makes it slower */
    QGC_PROBE_NO_STREAM =
        2, /* neither weights nor caches are read: what is left is the chain of exchanges, and arithmetic */
    QGC_PROBE_NO_WAITS =
        4, /* nothing from another multiprocessor is waited for: what is left is the stream, and arithmetic */
};

typedef struct {
    int64_t chunk; /* largest number of tokens in a prefill step, 1 or more */
    int64_t
        long_chunk; /* in one of phase long-prefill; 0: 4 times `chunk` where that is 512 or more, else there is none */
    /* Scratch is not shared even if the graph allows it, so that every value can be read when the step is over. */
    bool keep_values;
    int least_arch;  /* the oldest that the kernels are for, 75 for sm_75; 0: new enough for all of them */
    bool no_prefill; /* for runs of single steps */
    bool
        decode_only; /* no phases but init and decode: for runs of single steps in another mode than persistent */
    /* Prefill computes the logits of every token of a step (R = T), by GEMM like its other products, and chooses
     * none; there is no persistent step. For runs of a whole text: qgc_session_feed_rows. */
    bool all_rows;
    bool no_persistent;       /* no persistent step: for runs of other steps that have a prefill */
    unsigned probe;           /* of enum qgc_probe */
    const qgc_tuning *tuning; /* settings of kernels; NULL: the usual ones */
    /* For which the work is split and whose shared memory is kept to, where a kernel has a choice; NULL: what settings
     * were measured on. */
    const qgc_card *card;
    bool card_alone; /* the code need run on no other card than that one */
    int most_shared_bytes; /* that a block can have on any architecture that it is compiled for; 0: any that is known */
} qgc_lower_options;

/* What the compile step has to know about plan->kernels[i] beyond the plan: its options one by one, and the first
 * node that wants it, for errors. */
typedef struct {
    const char **options;
    int n_options;
    const char *node;
    qgc_loc at;
} qgc_kernel_job;

typedef struct {
    qgc_plan *plan;       /* complete but for archs, images, graph, source, compiler */
    qgc_kernel_job *jobs; /* [plan->n_kernels] */
    int *buffers; /* [g->n_values]: where a decode step has a value; -1 where it never leaves a kernel */
    int *prefill_buffers;    /* the same of a prefill step; NULL where there is none */
    int *persistent_buffers; /* the same of a persistent step; NULL where there is none */
    qgc_knob *knobs;
    size_t n_knobs;
} qgc_lowered;

/* Errors: a node that no kernel fits (a head size beyond what attention does, say), with its place. */
QGC_MUST_USE qgc_status qgc_lower(qgc_graph *g, const qgc_lower_options *o, qgc_lowered *out, qgc_diag *d);

#endif
