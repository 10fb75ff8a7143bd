#ifndef QGC_CODEGEN_PROOF_H
#define QGC_CODEGEN_PROOF_H

#include "codegen/cache.h"
#include "codegen/launch.h"
#include "graph/base/pool.h"
#include "graph/graph.h"

/* Does a kernel from outside compute what its row says? It is run on random operands of its stage, at several sizes, and what it leaves
 * is held against the references of the ops in double precision; around each buffer are words that nothing may touch, what it
 * only reads has to stay, several runs have to give the same bits, and until it waits what launches before it have to make is
 * not there. */

/* --- one run of a stage ---------------------------------------------------------------------------------- */

typedef struct {
    size_t bytes;
    void *before; /* what is in the buffer; of what is only written: bytes of ones, which are no number */
    bool writes, late; /* late: it is not there before the kernel waits */
    const double *want,
        *coarse;        /* [elems] of a result: in double precision, and by the references in float32 */
    int64_t elems, row; /* of a row */
    qgc_dtype type;
} qgc_proof_buffer;

typedef struct {
    const qgc_outside_stage *stage;
    qgc_sizes sizes;
    int orders; /* of blocks, in which it is run on the CPU */
    int n_args;
    qgc_proof_buffer buffers[QGC_OUTSIDE_PARAMS]; /* by parameter; no bytes where it is a number */
    int32_t numbers[QGC_OUTSIDE_PARAMS];
    unsigned grid[3];
    double terms; /* of the longest sum on the way */
} qgc_proof_case;

/* How many cases there are for a stage. */
int qgc_proof_cases(const qgc_outside_stage *o);

/* Case number i, in arena `a`. *why is NULL, or says why there are no operands for the stage. */
QGC_MUST_USE qgc_status qgc_proof_case_new(const qgc_outside_stage *o, const qgc_outside_launch *with, int i,
                                           qgc_proof_case *out, const char **why, qgc_arena *a, qgc_diag *d);

/* What the buffer of parameter `param` holds after a run: NULL if it is right, or what is wrong, in arena `a`. */
const char *qgc_proof_judge(const qgc_proof_case *c, int param, const void *after, qgc_arena *a);

/* --- a graph --------------------------------------------------------------------------------------------- */

typedef enum { QGC_PROVED, QGC_UNPROVED, QGC_DISPROVED } qgc_proof_result;

typedef struct {
    const qgc_kernel_row *kernel;
    const qgc_node *first; /* of the stage */
    const char *stage;     /* "attend[0]" */
    const char *key;       /* of what the proof depends on but for where it runs */
    qgc_outside_stage *of;
    qgc_outside_launch with;
    const char *file, *entry, *text; /* of what is run: the kernel, or one around its device function */
    bool is_phase;
    qgc_proof_result result;
    const char *why;      /* UNPROVED: why not; DISPROVED: what is wrong */
    bool depends_on_time; /* another time it might be another result */
} qgc_proof;

/* The stages of a graph whose kernels are from outside, each kernel once for stages that are alike: out[0 .. *n), in arena `a`, none of
 * them proved. */
QGC_MUST_USE qgc_status qgc_proofs_list(const qgc_graph *g, qgc_proof **out, int *n, qgc_arena *a,
                                        qgc_diag *d);

/* Proves them on the CPU: their files compiled as C++, where a compiler is at hand, and run in a process of their own, but only those
 * that a plug-in of this process has brought. What was proved is kept in the cache folder (NULL: the user's; no_cache: not). */
typedef struct {
    const char *cache_folder;
    bool no_cache;
    int seconds; /* that a kernel may take; 0: 60 */
} qgc_prove_options;

QGC_MUST_USE qgc_status qgc_prove(qgc_proof *proofs, int n, const qgc_prove_options *o, qgc_diag *d);

/* All of that for a graph. An error, with status QGC_ERR_INPUT, names the first kernel that is not what its row says. */
QGC_MUST_USE qgc_status qgc_prove_graph(const qgc_graph *g, const qgc_prove_options *o, qgc_proof **out,
                                        int *n, qgc_arena *a, qgc_diag *d);

/* "kernel \"mine\" does not compute stage \"ff[0]\": ..." of a proof that is DISPROVED, in arena `a`; the error that says so, `where`
 * being "on the CPU". */
const char *qgc_proof_text(const qgc_proof *p, qgc_arena *a);
qgc_status qgc_proof_fail(const qgc_graph *g, const qgc_proof *p, const char *where, qgc_diag *d);

/* What a device has shown to be wrong with a kernel is kept for the laboratory, which names the change that uses it: puts it into the
 * cache folder, with the name of the device, `why` NULL taking it back; and gets it, NULL where no device has shown anything. */
void qgc_proof_put_fault(const qgc_proof *p, const char *cache_folder, const char *device, const char *why,
                         qgc_arena *a);
const char *qgc_proof_get_fault(const qgc_proof *p, const char *cache_folder, qgc_arena *a);

/* codegen/proof_cpu.c: one kernel on the CPU, which may take so many seconds. What all kernels are linked with is kept in the cache
 * (NULL: it is compiled each time). */
QGC_MUST_USE qgc_status qgc_prove_on_cpu(qgc_proof *p, const qgc_cache *cache, int seconds, qgc_diag *d);

#endif
