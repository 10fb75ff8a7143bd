#ifndef QGC_PASSES_REWRITE_H
#define QGC_PASSES_REWRITE_H

#include "passes/passes.h"

/* Rules: a pattern and a function. The one rewriter walks the graph, matches patterns at each node, and
 * calls the function of a rule that matches. The function decides first and changes after, through the
 * calls below only; one that declines says why.
 *
 * A pattern is a tree of ops, written as a constant and matched against a node and the makers of its
 * inputs:
 *
 *   P(ANY, MUL, P1(ANY, SILU, V(GATE)), V(UP))    mul(silu(gate), up), in either order since mul commutes
 *
 * The first word of P captures the node under an index (ANY: not). V captures a value. The same index twice
 * is the same node, or value: P(ANY, MUL, V(X), V(X)) is a square. P1 is P for a node whose result has no
 * reader but the one above it and is no output of the graph. W and W1 are the same for any pointwise op, O
 * and O1 for any op. Inputs that a pattern does not mention, or that are FREE, may be anything; each of P,
 * P1, W, W1, O and O1 mentions one at least.
 *
 * A condition stands around the pattern of a node:
 *
 *   ATTR("cap", QGC_ABOVE, 10, P(A, SOFTCAP, V(X)))     an attribute that is a number
 *   WORD("style", "neox", P(A, ROPE, V(X)))             an attribute that is one of several words
 *   LAYERS(0, 3, P(A, MUL, V(X), V(Y)))                 only in iterations 0 to 3 of a repeat; -1 is the last one
 *
 * A node whose op does not have the attribute does not match. */

enum { QGC_MAX_CAPTURES = 12, QGC_PATTERN_INPUTS = 4 };

typedef enum {
    QGC_PATTERN_VALUE,
    QGC_PATTERN_OP,
    QGC_PATTERN_POINTWISE,
    QGC_PATTERN_ANY_OP,
    QGC_PATTERN_ATTR, /* conditions, on the node that in[0] is the pattern of */
    QGC_PATTERN_WORD,
    QGC_PATTERN_LAYERS
} qgc_pattern_kind;

typedef enum { QGC_IS, QGC_IS_NOT, QGC_BELOW, QGC_ABOVE } qgc_comparison;

typedef struct qgc_pattern {
    qgc_pattern_kind kind;
    int capture; /* index, or -1 */
    qgc_op op;
    bool one_reader;
    const struct qgc_pattern *in[QGC_PATTERN_INPUTS]; /* NULL: free */
    const char *attr;                                 /* of ATTR and WORD */
    qgc_comparison how;
    double number;    /* that an attribute is compared with */
    const char *word; /* that it has to be */
    int first, last;  /* of LAYERS; negative numbers count from the end */
} qgc_pattern;

#define ANY (-1)
#define V(index) (&(const qgc_pattern){.kind = QGC_PATTERN_VALUE, .capture = (index)})
#define P(index, tag, ...) \
    (&(const qgc_pattern){ \
        .kind = QGC_PATTERN_OP, .capture = (index), .op = QGC_OP_##tag, .in = {__VA_ARGS__}})
#define P1(index, tag, ...)                       \
    (&(const qgc_pattern){.kind = QGC_PATTERN_OP, \
                          .capture = (index),     \
                          .op = QGC_OP_##tag,     \
                          .one_reader = true,     \
                          .in = {__VA_ARGS__}})
#define W(index, ...) \
    (&(const qgc_pattern){.kind = QGC_PATTERN_POINTWISE, .capture = (index), .in = {__VA_ARGS__}})
#define W1(index, ...)     \
    (&(const qgc_pattern){ \
        .kind = QGC_PATTERN_POINTWISE, .capture = (index), .one_reader = true, .in = {__VA_ARGS__}})
#define O(index, ...) \
    (&(const qgc_pattern){.kind = QGC_PATTERN_ANY_OP, .capture = (index), .in = {__VA_ARGS__}})
#define O1(index, ...)     \
    (&(const qgc_pattern){ \
        .kind = QGC_PATTERN_ANY_OP, .capture = (index), .one_reader = true, .in = {__VA_ARGS__}})
#define FREE NULL
#define ATTR(name, is, value, pattern)              \
    (&(const qgc_pattern){.kind = QGC_PATTERN_ATTR, \
                          .capture = -1,            \
                          .attr = (name),           \
                          .how = (is),              \
                          .number = (value),        \
                          .in = {pattern}})
#define WORD(name, value, pattern) \
    (&(const qgc_pattern){         \
        .kind = QGC_PATTERN_WORD, .capture = -1, .attr = (name), .word = (value), .in = {pattern}})
#define LAYERS(from, to, pattern) \
    (&(const qgc_pattern){        \
        .kind = QGC_PATTERN_LAYERS, .capture = -1, .first = (from), .last = (to), .in = {pattern}})

typedef struct qgc_rewriter qgc_rewriter;

typedef struct {
    qgc_node *root;
    qgc_node *node[QGC_MAX_CAPTURES];   /* captured by P */
    qgc_value *value[QGC_MAX_CAPTURES]; /* captured by V */
} qgc_match;

/* True if the graph was changed. */
typedef bool qgc_rule_fn(qgc_rewriter *rw, const qgc_match *m);

typedef struct {
    const char *name; /* "silu(gate) * up": what explain calls it */
    const qgc_pattern *pattern;
    qgc_rule_fn *apply;
} qgc_rule;

/* Applies the rules (ended by one without a name) until none fires. Errors name the rule: more than 1000
 * changes for each node of the graph, or 64 times its nodes, which is taken for an endless rewrite; a condition on an attribute, or a
 * word of it, that the op does not have, or around what is no node. What is said again of a node is logged
 * once. */
QGC_MUST_USE qgc_status qgc_rewrite(qgc_pass_context *c, const qgc_rule *rules, qgc_diag *d);

/* For the functions of rules. The rewriter keeps count of who reads what: a rule changes nodes, their
 * inputs and the outputs of the graph by these calls only. */

qgc_graph *qgc_rewriter_graph(qgc_rewriter *rw);

/* Records why a match does not apply; returns false, so that a rule can `return qgc_decline(...)`. */
bool qgc_decline(qgc_rewriter *rw, const qgc_node *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts nodes, and all of the groups that they are in, into one group called `name`, if one kernel can
 * compute it (codegen/stage/stage.h) and no node outside lies between them; else declines with the reason.
 * False without a word if they are in one group already. */
bool qgc_fuse(qgc_rewriter *rw, const char *name, qgc_node *const *nodes, int n);

/* The same for a kernel from outside, which a plug-in has brought (passes/load.h) or the graph declares: the nodes have to be
 * exactly those of its row. A name that there is not is an error of the rule. Nodes of such a group are not taken into another. */
bool qgc_fuse_as(qgc_rewriter *rw, const char *kernel, const char *name, qgc_node *const *nodes, int n);

/* The nodes that read a value, in the order of the list, at most `room`; returns how many there are. A node
 * that reads it twice counts once. */
int qgc_readers(const qgc_rewriter *rw, const qgc_value *v, qgc_node **out, int room);

/* How often a value is read: once for each input that names it, and once if it is an output of the graph. */
int qgc_uses(const qgc_rewriter *rw, const qgc_value *v);

/* Everybody who reads `old` reads `now` instead, outputs of the graph too. Shapes and dtypes are equal. An
 * output takes its name along; if `now` is an output already, under a name of its own, `old` stays one, and
 * its node has to stay. */
void qgc_replace(qgc_rewriter *rw, qgc_value *old, qgc_value *now);

/* A new node before `before`, at its place in the YAML and its iteration of the repeat, whose result is called
 * `name`, and other results "name_2" and on. The caller sets attributes and then calls qgc_settle. */
qgc_node *qgc_insert(qgc_rewriter *rw, qgc_node *before, qgc_op op, const char *name, qgc_value *const *in,
                     int n_in);

/* A new node of the op, attributes and inputs of `like`; the caller may change them, and calls qgc_settle. */
qgc_node *qgc_insert_like(qgc_rewriter *rw, qgc_node *before, const qgc_node *like, const char *name);

/* Input i of a node is v from now on, which is made before the node. The caller calls qgc_settle. */
void qgc_set_input(qgc_rewriter *rw, qgc_node *n, int i, qgc_value *v);

/* A weight that is computed of others, once, when they are loaded (graph/base/derive.h; `how` says what of, beside its
 * `from`, which is filled in). It is called `name` and is of the layer that its sources are of; one that is there
 * already is taken. It is stored as what it copies is, else as float32: the caller may set its dtype to f16 or
 * bf16. NULL if the sources do not fit: then the rule is at fault, and the rewriter reports that as an error. */
qgc_value *qgc_derive(qgc_rewriter *rw, const char *name, const qgc_derivation *how, qgc_value *const *of,
                      int n);

/* Gives the results of a new or changed node their shapes. False if the op's rule objects: then the rule
 * that made it is at fault, and the rewriter reports the objection as an error. */
bool qgc_settle(qgc_rewriter *rw, qgc_node *n);

/* Removes a node, whose results nothing may read any more. */
void qgc_erase(qgc_rewriter *rw, qgc_node *n);

/* A node that is in no group is in that of `member` from now on. Rules that change what is in a group, or what
 * its nodes read, call qgc_settle_group when they are done. */
void qgc_put_in_group(qgc_rewriter *rw, qgc_node *n, const qgc_node *member);

/* Moves the nodes of the group of `member` together. If no kernel computes them any more, or a node outside has
 * to lie between them, the group is dissolved: each of its nodes is by itself, which is right and slower. Then
 * it returns false and the reason is recorded as by qgc_decline. */
bool qgc_settle_group(qgc_rewriter *rw, qgc_node *member);

/* The pass that is running: its options. */
const qgc_pass_context *qgc_rewriter_pass(const qgc_rewriter *rw);

#endif
