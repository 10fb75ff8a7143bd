/* Passes over models with experts, windows, caps and caches that are rings: wrong ones that a text hardly shows, and right ones
 * that look wrong. */

#include <string.h>

#include "graph/base/file.h"
#include "graph/ops.h"
#include "passes/load.h"
#include "passes/rewrite.h"
#include "runtime/lab/bisect.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/graph.h"
#include "tests/support/printed.h"

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    const char *folder;
} fixture;

static fixture f;

static void ok(qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f.arena, &f.diag));
}

/* --- what passes do -------------------------------------------------------------------------------------- */

/* Number `nth` of an op in a layer, or, where that is -2, of all. */
static qgc_node *node_of(const qgc_graph *g, qgc_op op, int layer, int nth) {
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->op == op && (layer == -2 || n->layer == layer) && nth-- == 0)
            return n;
    fail_msg("no %s in layer %d", qgc_ops[op].name, layer);
    return NULL;
}

static double *number(qgc_node *n, const char *attr) {
    return &n->attr[qgc_attr_index(n->op, attr)].number;
}

static qgc_node *windowed(const qgc_graph *g) {
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->op == QGC_OP_ATTENTION && *number(n, "window") > 0)
            return n;
    fail_msg("no window");
    return NULL;
}

/* A node of the place of `like`, before `before`. */
static qgc_value *put(qgc_graph *g, qgc_node *before, const qgc_node *like, qgc_op op, qgc_value *const *in,
                      int n_in) {
    qgc_node *n = qgc_graph_node(g, op, before, like->at);
    n->repeat = like->repeat;
    n->layer = like->layer;
    n->n_in = n_in;
    for (int i = 0; i < n_in; i++)
        n->in[i] = in[i];
    if (op == like->op)
        memcpy(n->attr, like->attr, sizeof n->attr);
    for (int i = 0; i < qgc_ops[op].n_outputs; i++)
        qgc_node_output(g, n, i ? "planted_2" : "planted");
    ok(qgc_ops[op].infer(n, &f.diag));
    return n->out[0];
}

static qgc_value *scaled(qgc_graph *g, qgc_node *before, qgc_value *x, double factor) {
    qgc_node *n = qgc_graph_node(g, QGC_OP_SCALE, before, before->at);
    n->repeat = before->repeat;
    n->layer = before->layer;
    n->n_in = 1;
    n->in[0] = x;
    n->attr[0].number = factor;
    qgc_node_output(g, n, "scaled");
    ok(qgc_ops[n->op].infer(n, &f.diag));
    return n->out[0];
}

#define PASS(name)                                             \
    static void name##_in(qgc_graph *g);                       \
    static qgc_status name(qgc_pass_context *c, qgc_diag *d) { \
        (void)d;                                               \
        name##_in(c->graph);                                   \
        return QGC_OK;                                         \
    }                                                          \
    static void name##_in(qgc_graph *g)

/* --- experts --------------------------------------------------------------------------------------------- */

/* Experts by scores that are those of the layer and hardly any of another one; their weights are as they were. */
static qgc_value *other_ids(qgc_graph *g) {
    qgc_node *route = node_of(g, QGC_OP_ROUTE, 1, 0);
    qgc_value *bit = scaled(g, route, node_of(g, QGC_OP_ROUTE, 0, 0)->in[0], 1e-7);
    qgc_value *sum = put(g, route, route, QGC_OP_ADD, (qgc_value *[]){route->in[0], bit}, 2);
    return put(g, route->next, route, QGC_OP_ROUTE, &sum, 1);
}

PASS(experts_by_others)
{
    qgc_node *route = node_of(g, QGC_OP_ROUTE, 1, 0);
    qgc_value *ids = other_ids(g);
    test_read_other(ids->maker->next, route->out[0], ids);
}

PASS(other_experts_that_nobody_reads)
{ other_ids(g); }

PASS(router_hardly_scaled)
{
    qgc_node *route = node_of(g, QGC_OP_ROUTE, 1, 0);
    route->in[0] = scaled(g, route, route->in[0], 1.0001);
}

PASS(weights_of_chosen)
{ /* which sum up to 1 either way */
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->op == QGC_OP_ROUTE)
            n->attr[qgc_attr_index(n->op, "scoring")].choice = 1;
}

PASS(scale_out_of_route)
{
    qgc_node *sum = node_of(g, QGC_OP_EXPERT_SUM, 1, 0);
    *number(node_of(g, QGC_OP_ROUTE, 1, 0), "scale") = 2;
    qgc_value *half = scaled(g, sum->next, sum->out[0], 0.5);
    test_read_other(half->maker->next, sum->out[0], half);
}

PASS(route_hardly_scaled)
{ *number(node_of(g, QGC_OP_ROUTE, 1, 0), "scale") = 1 + 1e-9; }

PASS(gate_and_up)
{
    qgc_node *gate = node_of(g, QGC_OP_EXPERT_LINEAR, 1, 0), *up = node_of(g, QGC_OP_EXPERT_LINEAR, 1, 1);
    qgc_value *w = gate->in[1];
    gate->in[1] = up->in[1];
    up->in[1] = w;
}

/* --- rules with derived weights -------------------------------------------------------------------------- */

enum { A, B };
static bool done;
static double factor; /* of a bias; 0: of zeros */
static int64_t expert;

static qgc_value *derive(qgc_rewriter *rw, const char *name, qgc_derivation how, qgc_value *a, qgc_value *b) {
    return qgc_derive(rw, name, &how, (qgc_value *[]){a, b}, b ? 2 : 1);
}

static qgc_value *rows_of(qgc_rewriter *rw, const char *name, qgc_value *w, int64_t first, int64_t last) {
    return derive(rw, name, (qgc_derivation){.kind = QGC_DERIVE_ROWS, .first = first, .last = last}, w, NULL);
}

static qgc_value *filled(qgc_rewriter *rw, const char *name, qgc_value *like, double x) {
    return derive(rw, name, (qgc_derivation){.kind = QGC_DERIVE_FILL, .factor = x}, like, NULL);
}

/* Zeros, but for one row. */
static qgc_value *bias_of_one(qgc_rewriter *rw, qgc_value *like) {
    const qgc_derivation join = {.kind = QGC_DERIVE_CONCAT_ROWS};
    const int64_t n = like->shape.dim[0];
    qgc_value *zeros = filled(rw, "zeros", like, 0),
              *bias = rows_of(rw, "row", filled(rw, "full", like, factor), 0, 1);
    if (expert > 0)
        bias = derive(rw, "low", join, rows_of(rw, "before", zeros, 0, expert), bias);
    return expert + 1 < n ? derive(rw, "all", join, bias, rows_of(rw, "after", zeros, expert + 1, n)) : bias;
}

static bool add_bias(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *each = m->node[B];
    if (each->n_in > 3 || each->layer != 1)
        return false;
    qgc_value *router = each->in[2]->maker->in[0]->maker->in[1];
    qgc_value *in[] = {each->in[0], each->in[1], each->in[2],
                       factor == 0 ? filled(rw, "zeros", router, 0) : bias_of_one(rw, router)};
    qgc_node *now = qgc_insert(rw, each, each->op, each->out[0]->name, in, 4);
    if (qgc_settle(rw, now)) {
        qgc_replace(rw, each->out[0], now->out[0]);
        qgc_erase(rw, each);
    }
    return true;
}

/* Experts chosen by scores and a bias: the same for all, or a part of some weight. */
static bool add_route_bias(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *route = m->root;
    if (route->n_in > 1 || route->layer != 1)
        return false;
    qgc_node *norm = node_of(qgc_rewriter_graph(rw), QGC_OP_RMS_NORM, 1, 0);
    qgc_value *some = rows_of(rw, "some", norm->in[1], 0, route->in[0]->shape.dim[1]);
    qgc_value *bias =
        factor > 0
            ? derive(rw, "part", (qgc_derivation){.kind = QGC_DERIVE_SCALE, .factor = factor}, some, NULL)
            : filled(rw, "same", some, -factor);
    qgc_node *now = qgc_insert(rw, route, QGC_OP_ROUTE, "biased", (qgc_value *[]){route->in[0], bias}, 2);
    memcpy(now->attr, route->attr, sizeof now->attr);
    if (qgc_settle(rw, now)) {
        qgc_replace(rw, route->out[0], now->out[0]);
        qgc_replace(rw, route->out[1], now->out[1]);
        qgc_erase(rw, route);
    }
    return true;
}

static bool drop_bias(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *n = m->root;
    if (n->n_in < 3 || done)
        return false;
    done = true;
    qgc_node *now = qgc_insert(rw, n, n->op, n->out[0]->name, n->in, 2);
    if (qgc_settle(rw, now)) {
        qgc_replace(rw, n->out[0], now->out[0]);
        qgc_erase(rw, n);
    }
    return true;
}

/* A matrix times a factor, stored as float16, and a result that is divided by it. */
static bool scale_matrix(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *n = m->root, *next = n->next;
    if (n->layer != 1 || done)
        return false;
    done = true;
    qgc_value *w =
        derive(rw, "scaled_w", (qgc_derivation){.kind = QGC_DERIVE_SCALE, .factor = factor}, n->in[1], NULL);
    w->dtype = QGC_F16;
    qgc_set_input(rw, n, 1, w);
    qgc_node *back = qgc_insert(rw, next, QGC_OP_SCALE, "back", n->out, 1), *readers[2];
    back->attr[0].number = 1 / factor;
    if (!qgc_settle(rw, back) || qgc_readers(rw, n->out[0], readers, 2) < 2)
        return true;
    qgc_node *reader = readers[readers[0] == back];
    for (int i = 0; i < reader->n_in; i++)
        if (reader->in[i] == n->out[0])
            qgc_set_input(rw, reader, i, back->out[0]);
    return true;
}

/* Some 800 million numbers that nobody asks for. */
static bool derive_much(qgc_rewriter *rw, const qgc_match *m) {
    qgc_value *w = m->root->in[1];
    for (int i = 0; i < 11 && !done; i++) {
        const char *name = qgc_arena_printf(f.arena, "much_%d", i);
        w = qgc_derive(rw, name, &(qgc_derivation){.kind = QGC_DERIVE_CONCAT_ROWS},
                       (qgc_value *[]){w, w, w, w}, 4);
    }
    const bool first = !done;
    done = true;
    return first;
}

/* In the matrix there is nothing wrong. */
static bool drop_bias_and_derive(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *n = m->root;
    if (n->n_in < 3 || done)
        return false;
    qgc_value *w =
        derive(rw, "times_1", (qgc_derivation){.kind = QGC_DERIVE_SCALE, .factor = 1}, n->in[1], NULL);
    qgc_set_input(rw, n, 1, w);
    return drop_bias(rw, m);
}

static bool fold_norm(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *norm = m->root, *readers[8];
    const int n = qgc_readers(rw, norm->out[0], readers, 8);
    if (qgc_weight_is_derived(qgc_rewriter_graph(rw), norm->in[1]))
        return false;
    for (int i = 0; i < n; i++)
        qgc_set_input(rw, readers[i], 1,
                      derive(rw, qgc_arena_printf(f.arena, "%s_normed", readers[i]->in[1]->name),
                             (qgc_derivation){.kind = QGC_DERIVE_SCALE_COLUMNS}, readers[i]->in[1],
                             norm->in[1]));
    qgc_set_input(rw, norm, 1,
                  filled(rw, qgc_arena_printf(f.arena, "%s_ones", norm->in[1]->name), norm->in[1], 1));
    return true;
}

#define RULE_PASS(name, pattern, rule, by)                      \
    static qgc_status name(qgc_pass_context *c, qgc_diag *d) {  \
        const qgc_rule rules[] = {{#rule, pattern, rule}, {0}}; \
        done = false;                                           \
        factor = by;                                            \
        return qgc_rewrite(c, rules, d);                        \
    }
#define EACH P(A, EXPERT_SUM, P(B, EXPERT_LINEAR, FREE))
RULE_PASS(bias_of_zeros, EACH, add_bias, 0)
RULE_PASS(bias_of_one_expert, EACH, add_bias, 10)
RULE_PASS(route_with_the_same, P(ANY, ROUTE, FREE), add_route_bias, -0.25)
RULE_PASS(route_with_hardly_a_bias, P(ANY, ROUTE, FREE), add_route_bias, 1e-6)
RULE_PASS(drops_a_bias, P(ANY, LINEAR, FREE), drop_bias, 0)
#define DOWN P(ANY, LINEAR, P(ANY, MUL, FREE))
RULE_PASS(matrix_of_twice, DOWN, scale_matrix, 2)
RULE_PASS(matrix_too_large, DOWN, scale_matrix, 1e7)
RULE_PASS(matrix_too_small, DOWN, scale_matrix, 1e-7)
RULE_PASS(derives_much, P(ANY, RMS_NORM, FREE), derive_much, 0)
RULE_PASS(drops_a_bias_and_derives, P(ANY, LINEAR, FREE), drop_bias_and_derive, 0)
RULE_PASS(folds_norms, P(ANY, RMS_NORM, FREE), fold_norm, 0)

PASS(norm_of_another_layer)
{
    qgc_node *norm = node_of(g, QGC_OP_RMS_NORM, 0, 0);
    norm->in[1] = node_of(g, QGC_OP_RMS_NORM, 0, 1)->in[1];
}

/* --- windows and rings ----------------------------------------------------------------------------------- */

PASS(window_one_more)
{ ++*number(windowed(g), "window"); }

PASS(no_cap)
{ *number(windowed(g), "softcap") = 0; }

/* Rows of the caches in the layer of the first window; 0: all positions. */
static void set_ring(const qgc_graph *g, int64_t rows) {
    const int layer = windowed(g)->layer;
    for (size_t i = 0; i < g->n_values; i++) {
        qgc_value *v = g->values[i];
        if (v->kind != QGC_WEIGHT && v->shape.rank == 3 && v->layer == layer)
            v->shape.dim[1] = rows ? qgc_ring_dim(rows) : QGC_DIM_CTX;
    }
}

PASS(smaller_ring)
{ set_ring(g, (int64_t)*number(windowed(g), "window") + 40); }

PASS(no_ring)
{ set_ring(g, 0); }

PASS(ring_below_the_window)
{ set_ring(g, (int64_t)*number(windowed(g), "window") - 1); }

/* softcap(2 x, 2 cap) / 2 */
PASS(cap_of_twice)
{
    qgc_node *cap = node_of(g, QGC_OP_SOFTCAP, -2, 0);
    cap->in[0] = scaled(g, cap, cap->in[0], 2);
    cap->attr[0].number *= 2;
    qgc_value *half = scaled(g, cap->next, cap->out[0], 0.5);
    test_read_other(half->maker->next, cap->out[0], half);
    half->name = "logits";
    cap->out[0]->name = "twice";
    for (size_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == cap->out[0])
            g->outputs[i] = half;
}

/* --- states ---------------------------------------------------------------------------------------------- */

static qgc_value *new_cache(qgc_graph *g, const qgc_value *like) {
    qgc_value *v = qgc_graph_value(g, QGC_STATE, "mine", like->at);
    v->dtype = like->dtype;
    v->shape = like->shape;
    v->repeat = v->layer = -1;
    g->states = qgc_arena_grow(g->arena, g->states, g->n_states, sizeof *g->states);
    qgc_state_decl *s = &g->states[g->n_states];
    *s = (qgc_state_decl){.name = "mine", .at = like->at, .repeat = -1, .count = 1};
    s->values = qgc_arena_array(g->arena, 1, sizeof(qgc_value *));
    s->values[0] = v;
    v->decl = (int)g->n_states++;
    return v;
}

static qgc_value *append_too(qgc_graph *g) {
    qgc_node *attention = node_of(g, QGC_OP_ATTENTION, 1, 0), *append = attention->in[1]->maker;
    return put(g, attention, append, QGC_OP_APPEND,
               (qgc_value *[]){new_cache(g, append->in[0]), append->in[1], append->in[2]}, 3);
}

PASS(a_cache_that_nobody_reads)
{ append_too(g); }

PASS(a_cache_of_its_own)
{
    qgc_value *mine = append_too(g);
    node_of(g, QGC_OP_ATTENTION, 1, 0)->in[1] = mine;
}

PASS(a_cache_of_its_own_and_a_window)
{
    a_cache_of_its_own_in(g);
    *number(node_of(g, QGC_OP_ATTENTION, 1, 0), "window") = 100;
}

/* --- what float32 cannot hold ---------------------------------------------------------------------------- */

/* rms_norm(a x) with a^2 eps */
static void scale_norm(qgc_graph *g, double a) {
    qgc_node *norm = node_of(g, QGC_OP_RMS_NORM, 1, 0);
    norm->in[0] = scaled(g, norm, norm->in[0], a);
    norm->attr[0].number *= a * a;
}

PASS(norm_of_many_times)
{ scale_norm(g, 1e3); }

PASS(squares_too_large)
{ scale_norm(g, 3e20); }

PASS(eps_too_small)
{ scale_norm(g, 1e-20); }

/* --- outputs --------------------------------------------------------------------------------------------- */

/* Logits of all tokens, where the choice is made of those that are wanted. */
PASS(logits_of_all_tokens)
{
    qgc_value *right = qgc_graph_output(g, "logits");
    qgc_node *head = right->maker, *norm = head->in[0]->maker, *select = norm->in[0]->maker;
    qgc_value *all = put(g, head, norm, QGC_OP_RMS_NORM, (qgc_value *[]){select->in[0], norm->in[1]}, 2);
    g->outputs[0] = put(g, head, head, QGC_OP_LINEAR, (qgc_value *[]){all, head->in[1]}, 2);
    g->outputs[0]->name = "logits";
    right->name = "wanted";
}

/* --- dead nodes ------------------------------------------------------------------------------------------ */

PASS(a_window_that_nobody_reads)
{
    qgc_node *attention = node_of(g, QGC_OP_ATTENTION, 1, 0);
    qgc_value *dead = put(g, attention->next, attention, QGC_OP_ATTENTION, attention->in, attention->n_in);
    *number(dead->maker, "window") = 300;
}

/* --- the table ------------------------------------------------------------------------------------------- */

#define WRONG QGC_BISECT_WRONG
#define FINE QGC_BISECT_HARMLESS /* or equal */
#define MOE "qwen3_moe"
#define TINY NULL

static const struct {
    const char *name;
    qgc_pass_fn *run;
    const char *family;
    qgc_bisect_verdict verdict;
    const char *value, *why;
    bool small; /* a few nodes show it */
} rows[] = {
    {"experts-by-others", experts_by_others, MOE, WRONG, "planted[1]", "by other scores", false},
    {"other-experts-that-nobody-reads", other_experts_that_nobody_reads, MOE, FINE, NULL, NULL, false},
    {"router-hardly-scaled", router_hardly_scaled, MOE, WRONG, "scaled[1]", NULL, true},
    {"weights-of-chosen", weights_of_chosen, MOE, FINE, NULL, NULL, false},
    {"scale-out-of-route", scale_out_of_route, MOE, FINE, NULL, NULL, false},
    {"route-hardly-scaled", route_hardly_scaled, MOE, WRONG, "shares[1]", NULL, true},
    {"gate-and-up", gate_and_up, MOE, WRONG, "gate[1]", NULL, true},
    {"bias-of-zeros", bias_of_zeros, MOE, FINE, NULL, NULL, false},
    {"route-with-the-same", route_with_the_same, MOE, FINE, NULL, NULL, false},
    {"route-with-hardly-a-bias", route_with_hardly_a_bias, MOE, WRONG, "biased[1]", "by other scores", false},
    {"window-one-more", window_one_more, "gemma2", WRONG, "a[0]", NULL, true},
    {"no-cap", no_cap, "gemma2", WRONG, "a[0]", NULL, true},
    {"smaller-ring", smaller_ring, "gemma2", FINE, NULL, NULL, false},
    {"no-ring", no_ring, "gemma2", FINE, NULL, NULL, false},
    {"ring-below-the-window", ring_below_the_window, "gemma2", WRONG, NULL, "does not hold together", false},
    {"cap-of-twice", cap_of_twice, "gemma2", FINE, NULL, NULL, false},
    {"a-cache-that-nobody-reads", a_cache_that_nobody_reads, TINY, FINE, NULL, NULL, false},
    {"a-cache-of-its-own", a_cache_of_its_own, TINY, FINE, NULL, NULL, false},
    {"a-cache-of-its-own-and-a-window", a_cache_of_its_own_and_a_window, TINY, WRONG, NULL, NULL, false},
    {"norm-of-many-times", norm_of_many_times, TINY, FINE, NULL, NULL, false},
    {"squares-too-large", squares_too_large, TINY, WRONG, "h[1]", "squares of \"scaled[1]\" are too large",
     false},
    {"eps-too-small", eps_too_small, TINY, WRONG, NULL, "nearer to 0 than float32 can hold", false},
    {"logits-of-all-tokens", logits_of_all_tokens, TINY, WRONG, NULL,
     "output \"logits\" is f32 [T, 1536] and was f32 [R, 1536]", false},
    {"derives-much", derives_much, TINY, FINE, NULL, NULL, false},
    {"matrix-of-twice", matrix_of_twice, TINY, FINE, NULL, NULL, false},
    {"matrix-too-large", matrix_too_large, TINY, WRONG, "scaled_w[1]", "too large for float16", false},
    {"matrix-too-small", matrix_too_small, TINY, WRONG, "scaled_w[1]", "too small for float16", false},
    {"a-window-that-nobody-reads", a_window_that_nobody_reads, TINY, FINE, NULL, NULL, false},
    {"bias-of-one-expert", bias_of_one_expert, MOE, WRONG, "each[1]", NULL, false},
    {"drops-a-bias", drops_a_bias, "qwen2", WRONG, "q[0]", NULL, true},
    {"drops-a-bias-and-derives", drops_a_bias_and_derives, "qwen2", WRONG, "q[0]", NULL, true},
    {"norm-of-another-layer", norm_of_another_layer, "qwen2", WRONG, "h[0]", NULL, true},
    {"folds-norms", folds_norms, "qwen2", FINE, NULL, NULL, false},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static size_t row_named(const char *name) {
    for (size_t i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return i;
    fail_msg("no pass \"%s\"", name);
    return 0;
}

/* --- judging --------------------------------------------------------------------------------------------- */

typedef struct {
    const char *weights; /* NULL: those of the family */
    int64_t positions;   /* 0: 16 */
    qgc_judge_phase phase;
} circumstances;

static qgc_bisection judge(size_t i, const circumstances *c) {
    static const int32_t tokens[] = {5, 30, 41, 7, 10, 2, 47, 8, 41, 5, 14, 9, 33, 12, 30, 41};
    const char *family = rows[i].family;
    const char *graph =
        family ? qgc_arena_printf(f.arena, "models/%s.yaml", family) : "models/tiny/tiny.yaml";
    const char *weights = c->weights ? c->weights
                          : family ? qgc_arena_printf(f.arena, "tests/golden/families/%s/model.gguf", family)
                                   : "models/tiny/tiny.gguf";
    qgc_weights *w;
    qgc_bisection b;
    ok(qgc_weights_open(&w, weights, &f.diag));
    const qgc_bisect_options o = {.run.graph = graph,
                                  .run.weights = w,
                                  .run.passes = rows[i].name,
                                  .run.pool = f.pool,
                                  .run.tokens = tokens,
                                  .run.n_tokens = c->positions ? (size_t)c->positions : 16,
                                  .run.positions = c->positions ? c->positions : 16,
                                  .reproduction = rows[i].small ? f.folder : NULL,
                                  .phase = c->phase};
    ok(qgc_bisect(&o, &b, &f.diag));
    qgc_weights_close(w);
    return b;
}

static bool is_text(const char *got, const char *want) {
    return !want || (got && strstr(got, want));
}

static void each_pass_is_judged_as_it_is(void **state) {
    (void)state;
    int failed = 0;
    for (size_t i = 0; i < N_ROWS; i++) {
        const qgc_bisection b = judge(i, &(circumstances){.weights = NULL});
        const bool right = (b.verdict == WRONG) == (rows[i].verdict == WRONG) &&
                           (rows[i].verdict != WRONG ||
                            (is_text(b.value, rows[i].value) && is_text(b.why, rows[i].why) && b.pass)) &&
                           (!rows[i].small || b.n_files > 0);
        if (!right)
            print_error("%s: %s, \"%s\": %s; %s\n", rows[i].name, b.verdict == WRONG ? "wrong" : "right",
                        b.value ? b.value : "", b.why ? b.why : "", b.not_written ? b.not_written : "");
        failed += !right;
    }
    assert_int_equal(failed, 0);
}

/* A text that is one step: no state of before it is read. */
static void a_short_text_tells_states_apart(void **state) {
    (void)state;
    const circumstances few = {.positions = 5};
    assert_int_not_equal(judge(row_named("a-cache-of-its-own"), &few).verdict, WRONG);
    assert_int_not_equal(judge(row_named("a-cache-that-nobody-reads"), &few).verdict, WRONG);
    assert_int_equal(judge(row_named("a-cache-of-its-own-and-a-window"), &few).verdict, WRONG);
}

/* One token chooses two of five: where no token chooses the expert that is wrong, all of them are looked at. */
static void an_expert_that_no_token_chooses_is_found(void **state) {
    (void)state;
    int unseen = 0;
    for (expert = 0; expert < 5; expert++) {
        const qgc_bisection b = judge(row_named("bias-of-one-expert"),
                                      &(circumstances){.positions = 1, .phase = QGC_PHASE_ONLY_DECODE});
        assert_int_equal(b.verdict, WRONG);
        assert_string_equal(b.value, "each[1]");
        unseen += b.why && strstr(b.why, "is chosen, which the text does not");
    }
    expert = 0;
    assert_in_range(unseen, 1, 4);
    const qgc_bisection b =
        judge(row_named("bias-of-zeros"), &(circumstances){.positions = 1, .phase = QGC_PHASE_ONLY_DECODE});
    assert_int_not_equal(b.verdict, WRONG);
}

/* A copy of the weights of a family in which tensors whose names have `word` are all `value`, as bf16. */
static const char *with_constant(const char *family, const char *word, uint16_t value) {
    const char *from = qgc_arena_printf(f.arena, "tests/golden/families/%s", family);
    const char *to = qgc_arena_printf(f.arena, "%s/%s", f.folder, word);
    qgc_source config, tensors;
    ok(qgc_file_read(&config, qgc_arena_printf(f.arena, "%s/config.json", from), 1 << 20, "config", &f.diag));
    ok(qgc_file_read(&tensors, qgc_arena_printf(f.arena, "%s/model.safetensors", from), 1 << 24, "weights",
                     &f.diag));
    char *bytes = qgc_arena_alloc(f.arena, tensors.bytes);
    memcpy(bytes, tensors.text, tensors.bytes);
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    const char *text = qgc_arena_strndup(f.arena, bytes + 8, header);
    for (const char *at = text; (at = strstr(at, "\"model.")); at++) {
        const char *end = strchr(at + 1, '"'), *offsets = strstr(at, "\"data_offsets\":[");
        const char *found = strstr(at, word);
        long long first, last;
        assert_non_null(offsets);
        if (!found || found > end || sscanf(offsets, "\"data_offsets\":[%lld,%lld]", &first, &last) != 2)
            continue;
        for (long long k = first; k < last; k += 2)
            memcpy(bytes + 8 + header + k, &value, 2);
    }
    ok(qgc_folder_make(to, &f.diag));
    ok(qgc_file_write(qgc_arena_printf(f.arena, "%s/config.json", to), config.text, config.bytes, &f.diag));
    ok(qgc_file_write(qgc_arena_printf(f.arena, "%s/model.safetensors", to), bytes, tensors.bytes, &f.diag));
    return to;
}

/* A pass does not see the weights: that the file at hand has zeros there, or ones, makes no wrong pass right. */
static void weights_of_one_number_hide_nothing(void **state) {
    (void)state;
    const char *zeros = with_constant("qwen2", "_proj.bias", 0),
               *ones = with_constant("qwen2", "layernorm", 0x3f80);
    qgc_bisection b = judge(row_named("drops-a-bias"), &(circumstances){.weights = zeros});
    assert_int_equal(b.verdict, WRONG);
    assert_string_equal(b.value, "q[0]");
    assert_non_null(strstr(b.why, "only because \"bq[0]\" has one number over and over"));
    b = judge(row_named("drops-a-bias-and-derives"), &(circumstances){.weights = zeros});
    assert_int_equal(b.verdict, WRONG);
    b = judge(row_named("norm-of-another-layer"), &(circumstances){.weights = ones});
    assert_int_equal(b.verdict, WRONG);
    assert_string_equal(b.value, "h[0]");
    b = judge(row_named("folds-norms"), &(circumstances){.weights = ones});
    assert_int_not_equal(b.verdict, WRONG);
}

/* No node makes it. */
static void a_weight_is_told_of_by_its_name(void **state) {
    (void)state;
    const qgc_bisection b = judge(row_named("matrix-too-large"), &(circumstances){.weights = NULL});
    const qgc_bisect_options o = {.run.graph = "tiny", .run.positions = 16};
    qgc_str text = qgc_str_new(f.arena);
    qgc_bisect_text(&b, &o, &text);
    assert_non_null(strstr(text.text, "\nvalue   \"scaled_w[1]\"  models/"));
}

static int setup(void **state) {
    (void)state;
    f = (fixture){.arena = qgc_arena_new(), .pool = qgc_pool_new(1)};
    f.diag = qgc_diag_new(f.arena);
    f.folder = qgc_test_folder(f.arena);
    static qgc_pass_info passes[N_ROWS + 1];
    for (size_t i = 0; i < N_ROWS; i++)
        passes[i] = (qgc_pass_info){rows[i].name, rows[i].run, NULL, "planted"};
    static const qgc_pass_rows table = {.abi = QGC_PASS_ABI, .passes = passes};
    ok(qgc_passes_add("the test", &table, &f.diag));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    qgc_test_folder_drop(f.arena, f.folder);
    qgc_pool_drop(f.pool);
    qgc_arena_drop(f.arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pass_is_judged_as_it_is),
        cmocka_unit_test(a_short_text_tells_states_apart),
        cmocka_unit_test(an_expert_that_no_token_chooses_is_found),
        cmocka_unit_test(weights_of_one_number_hide_nothing),
        cmocka_unit_test(a_weight_is_told_of_by_its_name),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
