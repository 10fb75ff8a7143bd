#include <string.h>

#include "graph/base/str.h"
#include "runtime/lab/judge_impl.h"

/* What no step of a text reaches: a window of attention that is longer than the text, and the tables of longrope, which
 * change with the room that caches have. Two values whose numbers agree are computed again, by themselves, where such a number
 * makes a difference:
 *
 *   now      a' = attention(q, k, v, window=200)      q, k, v: known, so random numbers will do, the same for both
 *   before   a  = attention(q, k, v)                  at position 200: a' no longer reads position 0
 *
 * And rows of a table that no token of the text chooses, or experts: where a node reads another table, all of its rows are chosen
 * once. And weights that happen to be one number over and over in the file at hand, zeros or ones: where a node reads another such
 * vector, or none, they get other numbers. */

enum { MOST_NODES = 64, MOST_SIZES = 8, TOKENS = 3, TOKENS_OF_TABLE = 256 };

/* Elements of a value that are held, at most. */
static const int64_t MOST_ELEMS = (int64_t)1 << 26;

/* The nodes by which a value is computed of values that both graphs have. */
typedef struct {
    const judge_known *k;
    const qgc_node *nodes[MOST_NODES];
    int n;
    bool is_whole; /* no more nodes than there is room for */
} cone;

typedef struct {
    judge_work *w;
    cone now, before;
    bool *is_leaf;       /* by class: both have it */
    judge_numbers *leaf; /* by class, of the sizes that are looked at */
    int64_t ctx[MOST_SIZES];
    int n_ctx;
    int chosen_by; /* class of the indices that go through all there are, from `first` on, or -1 */
    int64_t first, choices;
    bool *is_varied; /* by class: a weight that has random numbers here; NULL: none has */
    qgc_arena *arena;
} ranging;

static bool has_node(const cone *c, const qgc_node *n) {
    for (int i = 0; i < c->n; i++)
        if (c->nodes[i] == n)
            return true;
    return false;
}

/* In the order of the list. False: there is no room. */
static bool add_node(cone *c, const qgc_node *n) {
    if (c->n == MOST_NODES)
        return c->is_whole = false;
    int at = c->n++;
    for (; at > 0 && c->nodes[at - 1]->order > n->order; at--)
        c->nodes[at] = c->nodes[at - 1];
    c->nodes[at] = n;
    return true;
}

/* Of the graph of now: up to what the one before has too. */
static void add_new(ranging *r, const qgc_node *n) { // NOLINT(misc-no-recursion)
    if (has_node(&r->now, n) || !add_node(&r->now, n))
        return;
    for (int i = 0; i < n->n_in; i++) {
        const qgc_value *v = n->in[i];
        if (v->kind == QGC_RESULT && r->w->now->is_new[v->id])
            add_new(r, v->maker);
        else
            r->is_leaf[r->w->now->class_of[v->id]] = true;
    }
}

/* Of the graph before: up to what the other one ends at. */
static void add_old(ranging *r, const qgc_value *v) { // NOLINT(misc-no-recursion)
    const int class = r->w->before->class_of[v->id];
    if (class < 0)
        return;
    if (v->kind != QGC_RESULT)
        r->is_leaf[class] = true;
    if (r->is_leaf[class] || has_node(&r->before, v->maker) || !add_node(&r->before, v->maker))
        return;
    for (int i = 0; i < v->maker->n_in; i++)
        add_old(r, v->maker->in[i]);
}

static void add_size(ranging *r, double ctx) {
    const int64_t most = qgc_graph_max_positions(r->w->now->shown.graph);
    if (!(ctx >= 1) || ctx > 1e9 || (most > 0 && ctx > (double)most) || r->n_ctx == MOST_SIZES)
        return;
    for (int i = 0; i < r->n_ctx; i++)
        if (r->ctx[i] == (int64_t)ctx)
            return;
    r->ctx[r->n_ctx++] = (int64_t)ctx;
}

/* Rooms of caches at which nodes begin to compute something else. */
static void add_sizes(ranging *r, const cone *c) {
    for (int i = 0; i < c->n; i++) {
        const qgc_node *n = c->nodes[i];
        if (n->op == QGC_OP_ATTENTION || n->op == QGC_OP_ATTENTION_PART) {
            const double window = n->attr[qgc_attr_index(n->op, "window")].number;
            if (window > 0)
                add_size(r, window + 1);
        }
        if (n->op == QGC_OP_ROPE_LONGROPE) {
            const double original = n->attr[qgc_attr_index(n->op, "original")].number;
            add_size(r, original);
            add_size(r, original + 1);
        }
    }
}

static judge_numbers room(const ranging *r, const qgc_value *v, const judge_step *s) {
    const size_t bytes = (size_t)qgc_shape_elems(&v->shape, &s->sizes) * judge_elem_bytes(v->dtype);
    return (judge_numbers){v->dtype, NULL, 1, qgc_arena_alloc(r->arena, bytes)};
}

/* A value that both have: itself, if it is an input or a weight, else random numbers. */
static const judge_numbers *leaf_of(ranging *r, const qgc_value *v, int class, const judge_step *s) {
    const qgc_judge *j = r->w->j;
    judge_numbers *x = &r->leaf[class];
    uint64_t seed = (uint64_t) class + 1;
    if (v->kind == QGC_WEIGHT && !(r->is_varied && r->is_varied[class]))
        return &j->classes[class].at[0];
    if (x->data)
        return x;
    *x = room(r, v, s);
    if (v->kind == QGC_WEIGHT)
        x->dtype = QGC_F32; /* as doubles, however it is stored */
    if (class == r->chosen_by)
        for (int64_t i = 0; i < qgc_shape_elems(&v->shape, &s->sizes); i++)
            ((int32_t *)x->data)[i] = (int32_t)((r->first + i) % r->choices);
    else if (v->kind == QGC_INPUT)
        judge_fill_input(v->name, s, j->o.tokens, j->o.n_tokens, x->data);
    else
        judge_fill_state(v->dtype, x->data, qgc_shape_elems(&v->shape, &s->sizes), 1, &seed);
    return x;
}

static bool fits(const cone *c, const judge_step *s) {
    for (int i = 0; i < c->n; i++)
        for (int k = 0; k < c->nodes[i]->n_in; k++)
            if (c->nodes[i]->in[k]->kind != QGC_WEIGHT &&
                qgc_shape_elems(&c->nodes[i]->in[k]->shape, &s->sizes) > MOST_ELEMS)
                return false;
    return true;
}

/* The numbers of a value; NULL: they cannot be computed. */
static const judge_numbers *compute(ranging *r, const cone *c, const qgc_value *of, const judge_step *s) {
    judge_numbers *all = qgc_arena_array(r->arena, c->k->shown.graph->n_values, sizeof *all);
    qgc_diag d = qgc_diag_new(r->arena);
    for (int i = 0; i < c->n; i++) {
        const qgc_node *n = c->nodes[i];
        const judge_numbers *in[QGC_MAX_INPUTS], *out[QGC_MAX_OUTPUTS];
        for (int k = 0; k < n->n_in; k++) {
            const qgc_value *v = n->in[k];
            in[k] = all[v->id].data ? &all[v->id] : leaf_of(r, v, c->k->class_of[v->id], s);
        }
        for (int k = 0; k < n->n_out; k++) {
            all[n->out[k]->id] = room(r, n->out[k], s);
            out[k] = &all[n->out[k]->id];
        }
        if (judge_compute(n, s, in, out, r->w->j->o.pool, &d) != QGC_OK)
            return NULL;
    }
    return all[of->id].data ? &all[of->id] : leaf_of(r, of, c->k->class_of[of->id], s);
}

/* Do both compute the same where caches have room for so many? If not, why. */
static const char *objection_at(ranging *r, const qgc_value *v, const qgc_value *u, int64_t ctx) {
    const int64_t tokens = ctx < TOKENS ? ctx : TOKENS;
    const judge_step s = {.first = ctx - tokens, .sizes = {tokens, 1, ctx}};
    qgc_arena *out = r->w->j->arena;
    const char *label = qgc_value_label(v, out);
    if (!fits(&r->now, &s) || !fits(&r->before, &s))
        return qgc_arena_printf(out, "\"%s\" depends on more positions than can be compared: %lld", label,
                                (long long)ctx);
    memset(r->leaf, 0, r->w->j->n_classes * sizeof *r->leaf);
    const judge_numbers *bad = compute(r, &r->now, v, &s), *good = compute(r, &r->before, u, &s);
    if (!good || !bad)
        return qgc_arena_printf(out, "\"%s\" cannot be computed with room for %lld positions", label,
                                (long long)ctx);
    const int64_t elems = qgc_shape_elems(&v->shape, &s.sizes);
    const int64_t row = v->shape.rank > 1 ? qgc_dim_size(v->shape.dim[v->shape.rank - 1], &s.sizes) : elems;
    judge_difference d = {0};
    judge_compare_rows(good, bad, elems, row, 0, &d);
    if (d.apart <= QGC_JUDGE_BOUND)
        return NULL;
    return qgc_arena_printf(out, "\"%s\" is another at position %lld, with room for %lld: %.2g apart", label,
                            (long long)(s.first + d.row), (long long)ctx, d.apart);
}

/* A node that picks rows of tables, of which a row may be a matrix: by which indices, and of what. False: it has no table of
 * that number. */
enum { MOST_TABLES = 2 };
static bool picks(const qgc_node *n, int number, const qgc_value **indices, const qgc_value **table) {
    static const int inputs[MOST_TABLES] = {1, 3};
    const bool of_expert = n->op == QGC_OP_EXPERT_LINEAR;
    if (!of_expert && (n->op != QGC_OP_EMBEDDING || number > 0))
        return false;
    if (inputs[number] >= n->n_in)
        return false;
    *indices = n->in[of_expert ? 2 : 0];
    *table = n->in[inputs[number]];
    return true;
}

static bool has_pick(const cone *c, int indices, int table) {
    const qgc_value *i, *t;
    for (int k = 0; k < c->n * MOST_TABLES; k++)
        if (picks(c->nodes[k / MOST_TABLES], k % MOST_TABLES, &i, &t) && c->k->class_of[i->id] == indices &&
            c->k->class_of[t->id] == table)
            return true;
    return false;
}

/* How far both are apart in a step of so many tokens, in which leaves have numbers of their own. */
static judge_difference apart_alone(ranging *r, int64_t tokens, const qgc_value *v, const qgc_value *u) {
    const judge_step s = {.sizes = {tokens, tokens, tokens}};
    judge_difference d = {0};
    qgc_arena *outer = r->arena;
    r->arena = qgc_arena_new();
    memset(r->leaf, 0, r->w->j->n_classes * sizeof *r->leaf);
    const judge_numbers *bad = compute(r, &r->now, v, &s), *good = bad ? compute(r, &r->before, u, &s) : NULL;
    if (good && bad) {
        const int64_t elems = qgc_shape_elems(&v->shape, &s.sizes);
        const int64_t row =
            v->shape.rank > 1 ? qgc_dim_size(v->shape.dim[v->shape.rank - 1], &s.sizes) : elems;
        judge_compare_rows(good, bad, elems, row, 0, &d);
    }
    qgc_arena_drop(r->arena);
    r->arena = outer;
    return d;
}

/* One step, in which so many tokens have the next indices, `each` of them so many. */
static const char *objection_to_some(ranging *r, int64_t each, const qgc_value *v, const qgc_value *u) {
    const judge_difference d = apart_alone(r, TOKENS_OF_TABLE, v, u);
    if (d.apart <= QGC_JUDGE_BOUND)
        return NULL;
    qgc_arena *out = r->w->j->arena;
    return qgc_arena_printf(
        out, "\"%s\" is another where row %lld is chosen, which the text does not: %.2g apart",
        qgc_value_label(v, out), (long long)((r->first + d.row * each) % r->choices), d.apart);
}

/* Tables that one of the graphs has and the other not: are all their rows the same? */
static const char *objection_to_tables(ranging *r, const cone *c, const cone *other, const qgc_value *v,
                                       const qgc_value *u) {
    const qgc_value *indices, *table;
    const char *why = NULL;
    for (int i = 0; i < c->n * MOST_TABLES && !why; i++) {
        if (!picks(c->nodes[i / MOST_TABLES], i % MOST_TABLES, &indices, &table))
            continue;
        const int class = c->k->class_of[indices->id];
        if (!r->is_leaf[class] || has_pick(other, class, c->k->class_of[table->id]))
            continue;
        const int64_t at_once =
            qgc_shape_elems(&indices->shape, &(qgc_sizes){TOKENS_OF_TABLE, TOKENS_OF_TABLE, TOKENS_OF_TABLE});
        r->chosen_by = class;
        r->choices = table->shape.dim[0];
        for (r->first = 0; r->first < r->choices && !why; r->first += at_once)
            why = objection_to_some(r, at_once / TOKENS_OF_TABLE, v, u);
    }
    r->chosen_by = -1;
    return why;
}

/* --- weights of one number over and over ----------------------------------------------------------------- */

static bool reads_weight(const cone *c, int class) {
    for (int i = 0; i < c->n; i++)
        for (int k = 0; k < c->nodes[i]->n_in; k++)
            if (c->nodes[i]->in[k]->kind == QGC_WEIGHT && c->k->class_of[c->nodes[i]->in[k]->id] == class)
                return true;
    return false;
}

/* Of a vector; large tensors are not looked through. */
static bool is_constant(const qgc_tensor *t, qgc_arena *a) {
    if (!t || t->rank != 1)
        return false;
    float *x = qgc_arena_array(a, (size_t)t->shape[0], sizeof *x);
    qgc_to_f32(t->dtype, t->data, x, t->shape[0]);
    for (int64_t i = 1; i < t->shape[0]; i++)
        if (!(x[i] == x[0]))
            return false;
    return true;
}

/* Marks the constant weights that one of the graphs reads here and the other does not. */
static void vary_weights(ranging *r, const cone *c, const cone *other, const qgc_value **some) {
    for (int i = 0; i < c->n; i++)
        for (int k = 0; k < c->nodes[i]->n_in; k++) {
            const qgc_value *v = c->nodes[i]->in[k];
            const int class = c->k->class_of[v->id];
            if (v->kind != QGC_WEIGHT || reads_weight(other, class) ||
                !is_constant(r->w->j->classes[class].at[0].tensor, r->arena))
                continue;
            r->is_varied[class] = true;
            *some = v;
        }
}

/* Those that a derived weight is made of stay as they are: it has been computed. */
static void keep_sources(ranging *r, const judge_known *k, const qgc_value *v) { // NOLINT(misc-no-recursion)
    const qgc_graph *g = k->shown.graph;
    for (int i = 0; qgc_weight_is_derived(g, v) && i < g->weights[v->decl].derived.n_from; i++) {
        const qgc_value *source = qgc_weight_source(g, v, i);
        r->is_varied[k->class_of[source->id]] = false;
        keep_sources(r, k, source);
    }
}

static void keep_all_sources(ranging *r, const cone *c) {
    for (int i = 0; i < c->n; i++)
        for (int k = 0; k < c->nodes[i]->n_in; k++)
            keep_sources(r, c->k, c->nodes[i]->in[k]);
}

static const char *objection_to_constants(ranging *r, const qgc_value *v, const qgc_value *u) {
    const qgc_value *some = NULL;
    qgc_arena *out = r->w->j->arena;
    r->is_varied = qgc_arena_array(r->arena, r->w->j->n_classes, sizeof *r->is_varied);
    vary_weights(r, &r->now, &r->before, &some);
    vary_weights(r, &r->before, &r->now, &some);
    keep_all_sources(r, &r->now);
    keep_all_sources(r, &r->before);
    const char *why = NULL;
    if (some && apart_alone(r, TOKENS, v, u).apart > QGC_JUDGE_BOUND)
        why = qgc_arena_printf(out, "\"%s\" is the same only because \"%s\" has one number over and over",
                               qgc_value_label(v, out), qgc_value_label(some, out));
    r->is_varied = NULL;
    return why;
}

const char *judge_objection_in_range(judge_work *w, const qgc_value *v, const qgc_value *u) {
    ranging r = {.w = w,
                 .now = {.k = w->now, .is_whole = true},
                 .before = {.k = w->before, .is_whole = true},
                 .chosen_by = -1,
                 .arena = qgc_arena_new()};
    const char *why = NULL;
    r.is_leaf = qgc_arena_array(r.arena, w->j->n_classes, sizeof *r.is_leaf);
    r.leaf = qgc_arena_array(r.arena, w->j->n_classes, sizeof *r.leaf);
    add_new(&r, v->maker);
    add_sizes(&r, &r.now);
    add_old(&r, u);
    if (r.now.is_whole && r.before.is_whole)
        add_sizes(&r, &r.before);
    else if (r.n_ctx > 0)
        why =
            qgc_arena_printf(w->j->arena, "\"%s\" depends on positions and on too many nodes to compare them",
                             qgc_value_label(v, w->j->arena));
    for (int i = 0; i < r.n_ctx && !why; i++)
        why = objection_at(&r, v, u, r.ctx[i]);
    if (!why && !w->misfit && r.now.is_whole &&
        r.before.is_whole) { /* what reads another table is told of once */
        why = objection_to_tables(&r, &r.now, &r.before, v, u);
        why = why ? why : objection_to_tables(&r, &r.before, &r.now, v, u);
        why = why ? why : objection_to_constants(&r, v, u);
    }
    qgc_arena_drop(r.arena);
    return why;
}
