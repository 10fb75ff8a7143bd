#ifndef QGC_PASSES_PASSES_H
#define QGC_PASSES_PASSES_H

#include "graph/graph.h"

/* The pipeline: named passes over one graph, each of which may be left out. A pass either changes what the graph
 * computes with (rewriting, to the same results), or puts nodes into groups that one kernel computes. Any subset, in
 * any order, gives a graph that compiles and computes the same. */

/* What happened at one node: a rule fired, or nearly did. */
typedef struct {
    const char *rule;
    qgc_loc at;
    const char *node; /* "down[3]" */
    int layer;
    bool fired;
    const char *text;          /* what it did, or which condition stopped it */
    const char *const *others; /* the other nodes of the match, and those that it was about to fuse */
    int n_others;
} qgc_pass_event;

typedef struct {
    const char *name; /* with options, as it was asked for: "fuse-pointwise(max=4)" */
    int n_fired;
    int n_nodes;   /* in the graph afterwards */
    int n_kernels; /* nodes and groups afterwards */
    double us;
    qgc_pass_event *events;
    size_t n_events;
    const char *note; /* where to look for what comes of it; NULL: all of it is in the events */
} qgc_pass_run;

typedef struct {
    qgc_pass_run *runs;
    size_t n_runs;
} qgc_pass_report;

/* What a rule has done at a node, or, at the end of a pass, what of it no rule has told. */
typedef struct {
    const qgc_pass_run *run;
    const char *rule; /* NULL: the pass has ended */
    const char *node; /* "down[3]" */
    qgc_loc at;
    bool fired; /* the rule says that it changed the graph */
} qgc_pass_step;

/* Looks on while passes run, change by change; each function may be NULL. */
typedef struct {
    /* A pass begins, with `rule` NULL, or one of its rules is about to be tried at a node that it matches. */
    void (*before)(void *context, const char *pass, const char *rule, const qgc_node *at, const qgc_graph *g);
    /* A rule has been tried, or a pass has ended and is not verified yet. An error ends the pipeline. */
    qgc_status (*after)(void *context, const qgc_pass_step *step, qgc_graph *g, qgc_diag *d);
    /* After that the pass goes on. */
    void (*go_on)(void *context, const char *pass, const qgc_graph *g);
    void *context;
} qgc_pass_watch;

/* What a pass is handed. */
typedef struct {
    qgc_graph *graph;
    qgc_pass_run *run;
    qgc_arena *scratch;              /* dropped after the pass */
    const char *const *option_names; /* the options given: "max" ... */
    const double *option_values;     /* ... and 4 */
    int n_options;
    const qgc_pass_watch *watch; /* NULL, or for the rewriter */
    int most; /* changes that are wanted: a pass stops when run->n_fired is as many. INT_MAX where all are */
} qgc_pass_context;

/* The value of an option, or `otherwise` where it was not given. */
double qgc_pass_option(const qgc_pass_context *c, const char *name, double otherwise);

/* A pass adds 1 to run->n_fired for each change that it makes, and stops at c->most; the rewriter does both for rules. */
typedef qgc_status qgc_pass_fn(qgc_pass_context *c, qgc_diag *d);

#define PASS(name, function, options, usual, summary) qgc_pass_fn qgc_pass_##function;
#include "passes/passes.def"
#undef PASS

typedef struct {
    const char *name;
    qgc_pass_fn *run;
    const char *options; /* "max, parts": whole numbers; NULL for none */
    const char *summary;
} qgc_pass_info;

/* The table of passes.def, then those loaded from outside (passes/load.h). */
size_t qgc_pass_count(void);
const qgc_pass_info *qgc_pass_at(size_t i);

/* Is pass i in the default pipeline, which has the order of the table? Those from outside are. */
bool qgc_pass_is_usual(size_t i);

/* The beginning of a pipeline, for who looks for the change that does harm. */
typedef struct {
    size_t passes; /* the first so many, */
    int changes;   /* the last of which makes at most so many changes */
} qgc_pass_limit;

typedef struct {
    /* "fuse-qkv,fuse-pointwise(max=4)"; NULL: what the graph's file says, else the default; "" for none. An entry
     * with "?" at its end may match nothing, and so may those of the default. */
    const char *passes;
    const char *skip;            /* "fuse-residual,...", NULL for none */
    const char *until;           /* the last pass to run; NULL: all of them */
    const qgc_pass_limit *limit; /* NULL: none */
    const qgc_pass_watch *watch; /* NULL: none */
    bool want_matches;           /* a pass that matches nothing, though it has no "?", is an error */
    /* Called once before the first pass, with `pass` and `run` NULL, and after each; for dumps. May be NULL. */
    qgc_status (*after)(void *context, const qgc_pass_info *pass, const qgc_pass_run *run, const qgc_graph *g,
                        qgc_diag *d);
    void *context;
} qgc_pass_options;

/* Runs the pipeline. g->passes holds what is still to be run of it: printed at any time, the graph is a file that goes on
 * from there; at the end that are those after `until`. After each pass the graph is verified; an error there names the
 * pass, and the plug-in that brought it. Errors: an unknown pass or option (with the nearest name, and its place where the
 * graph's file has it), an `until` that would not run, a pass without matches (with what it nearly matched). `*report`
 * lives in the graph's arena. */
QGC_MUST_USE qgc_status qgc_passes_run(qgc_graph *g, const qgc_pass_options *o, qgc_pass_report *report,
                                       qgc_diag *d);

/* "pdl-edges" and "persistent" were passes and are modes now. Where a pipeline names them they are ignored, with their options; this
 * is a line that says so, in arena `a`, or NULL where it names neither. */
const char *qgc_passes_modes(const char *pipeline, qgc_arena *a);

#endif
