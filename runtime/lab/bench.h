#ifndef QGC_LAB_BENCH_H
#define QGC_LAB_BENCH_H

#include "graph/base/str.h"
#include "models/weights.h"
#include "runtime/mode.h"
#include "runtime/session.h"

/* What a model's steps take, in the modes in which they can run, against what the memory allows. */

typedef struct {
    bool modes[QGC_N_MODES];  /* which to measure */
    const int64_t *positions; /* tokens in the caches when steps are timed, in the middle of those timed */
    size_t n_positions;
    int rounds;       /* of every mode at every position, in turns */
    int64_t generate; /* steps of a text, as qgc run makes it; 0: none */
    bool kernels;     /* time each kernel by itself, too */
    /* The same as the program, compiled to trace (codegen/lower.h): then the parts of the persistent kernel are measured, too.
     * NULL: they are not. */
    qgc_program *traced;
    unsigned probe; /* how the program was lowered (codegen/lower.h), for the report */
} qgc_bench_options;

/* A mode at a position. Numbers of a round are the mean of its steps. */
typedef struct {
    qgc_mode mode;
    int64_t position;
    double us, low_us, high_us; /* of a step: median, 10th and 90th percentile of the rounds */
    int64_t bytes;              /* that a step reads of weights and caches */
} qgc_bench_row;

/* The launches of one kernel for nodes of one name, in all layers. */
typedef struct {
    qgc_mode mode;
    const char *node, *kernel; /* "mlp", "linear.cu" */
    int count;
    double
        us; /* of all of them: replayed without the others, or what they add to the launches before them (qgc_bench_in_order) */
    int64_t bytes;
} qgc_bench_kernel;

/* How long a prompt takes, the host included; 0 us: it has no room. */
typedef struct {
    int64_t tokens;
    double us;
} qgc_bench_prompt;

enum { QGC_BENCH_PROMPTS = 2 };

/* A part of the persistent kernel, in all layers. Parts do not follow one another in time: while the readers of one wait, its
 * weights and those of others come in. */
typedef struct {
    const char *name;
    double us;                         /* spent in it by a multiprocessor, the mean of all */
    double activations_us, weights_us; /* of these, spent waiting */
    int64_t bytes;
} qgc_bench_part;

typedef struct {
    const char *model, *device, *arch;
    int driver;
    size_t l2_bytes;
    double bandwidth; /* bytes a second, measured in the same run */
    int64_t probe_bytes;
    const char *refusal[QGC_N_MODES]; /* why a mode was not measured, or NULL */
    int kernels[QGC_N_MODES];         /* launched in a step */
    int early[QGC_N_MODES];           /* of which so many are started early */
    double generate_us[QGC_N_MODES];  /* a token of a text, the host included; 0: not measured */
    int64_t generated;
    qgc_bench_prompt prompts[QGC_BENCH_PROMPTS];
    unsigned probe;          /* of enum qgc_probe: what the steps leave out */
    int64_t kernel_position; /* of what is in `parts` */
    qgc_bench_row *rows;
    size_t n_rows;
    qgc_bench_kernel *parts; /* by mode, the longest first */
    size_t n_parts;
    qgc_bench_part *trace; /* in the order of a layer, at kernel_position */
    size_t n_trace;
} qgc_bench;

/* Positions of the caches that the sessions will have. */
int64_t qgc_bench_ctx(const qgc_plan *plan, const qgc_bench_options *o);

/* Measures a program. Everything in *out lives in the arena of `d`. Errors: no mode that can run, no room for the
 * caches, those of the device. */
QGC_MUST_USE qgc_status qgc_bench_run(qgc_bench *out, qgc_program *p, const qgc_bench_options *o,
                                      qgc_diag *d);

/* How the kernels of a mode are timed. In graph and stream mode each kind by itself, as every launch starts when the one before it
 * has ended. In persistent mode, where the launches after the large one start early, each with all those before it. */
bool qgc_bench_in_order(qgc_mode mode);

/* Under which names the times of a launch are counted: "mlp" for "mlp[3]", "q" for "linear q[3]"; and "linear.cu". */
const char *qgc_bench_node(const qgc_plan_launch *l, qgc_arena *a);
const char *qgc_bench_file(const qgc_plan *plan, const qgc_plan_launch *l);

/* The tables, one JSON object, and a bar chart of the rows. */
void qgc_bench_table(const qgc_bench *b, qgc_str *out);
QGC_MUST_USE qgc_status qgc_bench_json(const qgc_bench *b, qgc_str *out, qgc_diag *d);
void qgc_bench_svg(const qgc_bench *b, qgc_str *out);

#endif
