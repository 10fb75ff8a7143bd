#ifndef TESTS_KERNELS_REPLAY_H
#define TESTS_KERNELS_REPLAY_H

#include "codegen/lower.h"
#include "graph/base/pool.h"
#include "models/weights.h"

/* A graph on two ways: through the compiler's plan and the runtime's session on a device that runs the kernels on the CPU
 * (cpu_kernels.h), launch by launch in the memory that the plan lays out; and through the evaluator. */

enum { REPLAY_OPTIONS = 3 };

/* `passes` as qgc_pass_options has them; "persistent" is left out of them where there are no sms. */
typedef struct {
    const char *yaml;    /* the text of the graph, whose weights are random; or the path of its file, */
    const char *weights; /* with that of its weights; else NULL */
    const char *passes;
    int arch; /* 75, 80 or 90 */
    int sms;  /* decode steps are in persistent mode, on so many multiprocessors; 0: they are not */
    int shared_bytes; /* that a block of the persistent kernel may have, 1: the least that it needs; 0: as of the arch */
    const char *options
        [REPLAY_OPTIONS]; /* "-DWAITS=0": more for the persistent kernel, instead of those it has; NULL for none */
    bool all_rows;        /* the plan is for replay_compare_rows */
    int64_t long_chunk; /* as qgc_lower_options has it */
    bool together;      /* the steps after the second prompt are launched together, where a mode can */
} replay_of;

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_graph *graph;
    qgc_weights *weights;
    const qgc_tensor **tensors;
    int arch, sms;
    bool together;
    qgc_lowered lowered; /* its plan may be changed before replay_compare, to see what comes of it */
    const char *name;    /* for messages */
} replay;

/* Fails the test with what went wrong. */
replay replay_new(const replay_of *of);
void replay_drop(replay *r);

/* How many launches of a prompt from the stream run beside the one before them; each has its tokens, starts early, and says so of all that it
 * reads and writes. */
int replay_beside(const replay *r);

/* What is run: a prompt in chunks, then some steps that feed themselves; and another prompt token by token, with steps too. */
typedef struct {
    int order;  /* of blocks and warps: on_cpu_launch.h */
    int chunks; /* tokens of the first prompt; 0: that part is left out */
    int steps;  /* of the second one */
} replay_run;

/* Three chunks, the last one shorter, and positions enough for attention to be divided. */
enum { REPLAY_CHUNK = 32, REPLAY_LONG = 2 * REPLAY_CHUNK + 5, REPLAY_SHORT = 9 };

/* How far the two ways are apart: largest differences, relative to the largest number there; NaN counts as infinite. */
typedef struct {
    double logits, states;                     /* of decode steps alone */
    double prefilled_logits, prefilled_states; /* where the prompt was taken in chunks */
    int tokens;                                /* of those chosen, how many are others */
    uint64_t bits; /* a hash of all logits that were compared: the same where their bits are */
} apart;

apart replay_compare(replay *r, const replay_run *what);

/* REPLAY_LONG tokens in chunks, of which the logits of all rows are read: the largest difference of a row from that of the
 * evaluator, relative to its largest logit. `shift` compares each with the row so many after it. */
double replay_compare_rows(replay *r, int order, int shift);

/* Sums in another order, and for a prompt in chunks activations of 16 bits: is that all? Caches of 16 bits may differ by their
 * last bit. */
bool replay_agrees(const apart *a);

#endif
