/* From stages to instances of phases. Only data flow and the names of operands count: never the order of lines. */

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "codegen/persistent/persistent.h"
#include "graph/base/str.h"

enum { PAIR = 64 }; /* elements that a warp multiplies at a time */

/* Where a value is. */
typedef enum {
    UNKNOWN,
    VECTOR,   /* published by an instance */
    PENDING,  /* a head's norm or rope is still to be done, by its reader */
    EMBEDDED, /* the token's row of the table, nowhere else */
    STATE,    /* a new version of a state: what was put into it */
} where;

typedef struct {
    where at;
    qgc_origin source;
    const qgc_node *norm, *rope; /* of a PENDING one */
    const qgc_node *append;      /* of a STATE */
} place;

typedef struct {
    qgc_persistent *p;
    qgc_arena *arena;
    place *places; /* [n_values] */
    const qgc_value *tokens, *positions, *rows;
    bool rounds; /* block formats to f16, in the stream */
} builder;

bool qgc_persistent_no(qgc_persistent *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(p->l->arena, format, args);
    va_end(args);
    p->why = text;
    return false;
}

static const char *label(const builder *b, const qgc_value *v) {
    return qgc_value_label(v, b->arena);
}

/* --- instances ------------------------------------------------------------------------------------------- */

static int add(builder *b, const qgc_stage *s, qgc_instance i) {
    qgc_persistent *p = b->p;
    i.name = s->name;
    qgc_stage *stage = qgc_arena_alloc(b->arena, sizeof *stage); /* it may be a part of another one */
    *stage = *s;
    i.stage = stage;
    i.layer = s->first->layer;
    p->instances = qgc_arena_grow(b->arena, p->instances, (size_t)p->n_instances, sizeof *p->instances);
    p->instances[p->n_instances] = i;
    return p->n_instances++;
}

static qgc_instance new_instance(qgc_phase_does does) {
    return (qgc_instance){.does = does, .x = {-1, 0}, .q = {{-1, 0}, NULL, NULL}, .of = -1, .interleaved = 1};
}

static void put(builder *b, const qgc_value *v, int maker, int64_t first) {
    b->places[v->id] = (place){.at = VECTOR, .source = {maker, first}};
}

/* A value that is read as a vector. */
static bool vector(builder *b, const qgc_value *v, qgc_origin *out) {
    const place *at = &b->places[v->id];
    if (at->at == EMBEDDED)
        return qgc_persistent_no(b->p, "\"%s\" is an embedding that is read in several ways", label(b, v));
    if (at->at != VECTOR)
        return qgc_persistent_no(b->p, "\"%s\" is not made by a phase of the kernel", label(b, v));
    *out = at->source;
    b->p->instances[at->source.maker].published = true;
    return true;
}

static bool operand_is(builder *b, const qgc_node *n, int which, const qgc_value *wanted) {
    if (n->in[which] == wanted)
        return true;
    return qgc_persistent_no(b->p, "%s \"%s\" takes \"%s\" where the kernel has \"%s\"", qgc_ops[n->op].name,
                             label(b, n->out[0]), label(b, n->in[which]), wanted->name);
}

static bool is_weight(builder *b, const qgc_node *n, int which) {
    return n->in[which]->kind == QGC_WEIGHT ||
           qgc_persistent_no(b->p, "\"%s\", which \"%s\" takes as a weight, is computed",
                             label(b, n->in[which]), label(b, n->out[0]));
}

/* --- heads ----------------------------------------------------------------------------------------------- */

/* Is a value read by attention alone, as queries, keys or values, or by an append whose version is? Then what belongs to its heads
 * is done by that reader. */
static bool only_attended(const builder *b, const qgc_value *v) { // NOLINT(misc-no-recursion)
    const qgc_graph *g = b->p->l->graph;
    bool read = false;
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++) {
            if (n->in[i] != v)
                continue;
            read = true;
            bool attends = (n->op == QGC_OP_ATTENTION || n->op == QGC_OP_ATTENTION_PART) && i < 3;
            bool appends = n->op == QGC_OP_APPEND && i == 1 && only_attended(b, n->out[0]);
            if (!attends && !appends)
                return false;
        }
    for (size_t i = 0; i < g->n_outputs; i++)
        read = read && g->outputs[i] != v;
    return read;
}

int64_t qgc_heads_dim(const qgc_node *norm, const qgc_node *rope) {
    return rope ? qgc_low_attr_int(rope, "head_dim") : qgc_low_width(norm->in[1]);
}

static bool heads_fit(builder *b, const qgc_value *v, int64_t head_dim) {
    return head_dim % 2 == 0 || qgc_persistent_no(b->p, "\"%s\" has heads of %lld elements, an odd number",
                                                  label(b, v), (long long)head_dim);
}

int qgc_persistent_angles(const qgc_persistent *p, const qgc_node *rope) {
    for (int i = 0; rope && i < p->n_ropes; i++)
        if (strcmp(qgc_low_rope_angles(p->l, p->ropes[i]), qgc_low_rope_angles(p->l, rope)) == 0)
            return i;
    return -1;
}

static bool has_angles(qgc_persistent *p, const qgc_node *rope) {
    if (qgc_persistent_angles(p, rope) >= 0)
        return true;
    if (p->n_ropes == QGC_MOST_ROPES)
        return false;
    p->ropes[p->n_ropes++] = rope;
    return true;
}

static bool rope_fits(builder *b, const qgc_node *rope) {
    if (!operand_is(b, rope, 1, b->positions))
        return false;
    return has_angles(b->p, rope) ||
           qgc_persistent_no(b->p, "\"%s\" turns by the third table of angles, and the kernel has %d",
                             label(b, rope->out[0]), QGC_MOST_ROPES);
}

/* Norm and rope of heads as a phase of their own. */
static bool add_heads(builder *b, const qgc_stage *s, qgc_origin x, const qgc_node *norm,
                      const qgc_node *rope, const qgc_value *out) {
    qgc_instance i = new_instance(QGC_DO_HEADS);
    i.x = x, i.norm = norm, i.rope = rope;
    i.out = qgc_low_width(out);
    if (!heads_fit(b, out, qgc_heads_dim(norm, rope)))
        return false;
    put(b, out, add(b, s, i), 0);
    return true;
}

static bool is_whole(const qgc_node *norm) {
    return norm && qgc_low_width(norm->in[1]) == qgc_low_width(norm->in[0]);
}

static bool norm_fits(builder *b, const qgc_node *norm) {
    const int64_t width = qgc_low_width(norm->out[0]);
    if (width % 4 != 0)
        return qgc_persistent_no(b->p, "\"%s\" has %lld elements, no multiple of 4", label(b, norm->in[0]),
                                 (long long)width);
    return is_weight(b, norm, 1) && (norm->n_in < 3 || is_weight(b, norm, 2));
}

static bool add_whole_norm(builder *b, const qgc_stage *s, qgc_origin x, const qgc_node *norm) {
    qgc_instance i = new_instance(QGC_DO_NORM);
    i.x = x, i.norm = norm, i.expression = "l0";
    i.out = qgc_low_width(norm->out[0]);
    if (!norm_fits(b, norm))
        return false;
    put(b, norm->out[0], add(b, s, i), 0);
    return true;
}

/* What belongs to the heads of a vector as phases of their own. */
static bool finish_heads(builder *b, const qgc_stage *s, qgc_origin x, const qgc_node *norm,
                         const qgc_node *rope) {
    b->p->instances[x.maker].published = true;
    if (is_whole(norm)) {
        if (!add_whole_norm(b, s, x, norm) || (rope && !vector(b, norm->out[0], &x)))
            return false;
        norm = NULL;
    }
    return !(norm || rope) || add_heads(b, s, x, norm, rope, (rope ? rope : norm)->out[0]);
}

/* What becomes of the rows of a product: they wait for their reader, or go through a phase. */
static bool row_goes_on(builder *b, const qgc_stage *s, const qgc_stage_row *row, qgc_origin source) {
    const qgc_node *last = row->rope ? row->rope : row->norm ? row->norm : row->linear;
    if ((row->rope && !rope_fits(b, row->rope)) || (row->norm && !is_weight(b, row->norm, 1)))
        return false;
    put(b, row->linear->out[0], source.maker, source.first);
    if (row->append)
        b->places[row->append->out[0]->id] = (place){.at = STATE, .append = row->append};
    if (last == row->linear)
        return true;
    if (!only_attended(b, last->out[0]))
        return finish_heads(b, s, source, row->norm, row->rope);
    b->places[last->out[0]->id] = (place){PENDING, source, row->norm, row->rope, NULL};
    return true;
}

/* --- products -------------------------------------------------------------------------------------------- */

static bool add_outside(builder *b, qgc_instance *i, const qgc_value *const *inputs, int n,
                        const qgc_value *result) {
    const int one_a_row = qgc_low_one_a_row(inputs, n, result);
    if (n > QGC_MOST_OUTSIDE)
        return qgc_persistent_no(b->p, "\"%s\" takes more than %d values from outside", i->name,
                                 QGC_MOST_OUTSIDE);
    for (int k = 0; k < n; k++)
        i->outside[i->n_outside++] =
            (qgc_outside){inputs[k], one_a_row >> k & 1 ? QGC_OUTSIDE_ONE : QGC_OUTSIDE_POLLED, {-1, 0}};
    return true;
}

static bool has_reader_outside_of_products(const builder *b, const qgc_value *v, const qgc_stage *own) {
    for (int s = 0; s < b->p->n_stages; s++) {
        const qgc_stage *stage = &b->p->stages[s];
        if (stage->kind == QGC_STAGE_PRODUCTS)
            continue;
        for (const qgc_node *n = stage->first; n; n = qgc_group_next(stage->first, n))
            for (int i = 0; i < n->n_in; i++)
                if (n->in[i] == v && stage != own)
                    return true;
    }
    return false;
}

static bool embedding_fits(builder *b, const qgc_node *n) {
    if (!operand_is(b, n, 0, b->tokens) || !is_weight(b, n, 1))
        return false;
    if (b->p->embedding && b->p->embedding != n)
        return qgc_persistent_no(b->p, "\"%s\" is a second embedding", label(b, n->out[0]));
    b->p->embedding = n;
    b->p->table = n->in[1];
    return true;
}

static bool add_embedding(builder *b, const qgc_stage *s, const qgc_node *n) {
    if (!embedding_fits(b, n))
        return false;
    qgc_instance i = new_instance(QGC_DO_EMBEDDING);
    i.out = qgc_low_width(n->out[0]);
    put(b, n->out[0], add(b, s, i), 0);
    return true;
}

static bool product_fits(builder *b, const qgc_node *linear) {
    const qgc_value *w = linear->in[1];
    const qgc_dtype t = qgc_weight_storage(w);
    for (int i = 1; i < linear->n_in; i++)
        if (!is_weight(b, linear, i))
            return false;
    if (t == QGC_F32)
        return qgc_persistent_no(b->p, "weight \"%s\" is stored as f32, in more than 16 bits", label(b, w));
    if (qgc_low_width(w) % PAIR != 0)
        return qgc_persistent_no(b->p, "\"%s\" has rows of %lld elements, no multiple of %d", label(b, w),
                                 (long long)qgc_low_width(w), PAIR);
    return true;
}

/* A layer_norm before products is a phase of its own. */
static bool centre(builder *b, const qgc_stage *s) {
    qgc_origin x;
    return (!s->embedding || add_embedding(b, s, s->embedding)) && vector(b, s->norm->in[0], &x) &&
           add_whole_norm(b, s, x, s->norm);
}

/* The vector that the products read, and the norm before it. */
static bool add_gather(builder *b, const qgc_stage *s, qgc_instance *i) {
    const qgc_value *x = s->rows[0].linear->in[0];
    i->norm = s->norm;
    if (s->norm && s->norm->op == QGC_OP_LAYER_NORM) {
        i->norm = NULL;
        return centre(b, s) && vector(b, s->norm->out[0], &i->x);
    }
    if (s->norm)
        x = s->norm->in[0];
    if (s->norm && !is_weight(b, s->norm, 1))
        return false;
    if (s->embedding) {
        if (!embedding_fits(b, s->embedding))
            return false;
        i->embeds = true;
        if (has_reader_outside_of_products(b, x, s)) {
            i->embeds = false;
            if (!add_embedding(b, s, s->embedding))
                return false;
        } else
            b->places[x->id] = (place){.at = EMBEDDED};
    }
    return i->embeds || vector(b, x, &i->x);
}

/* Products whose rows do not meet: their results lie one after the other. */
static bool add_apart(builder *b, const qgc_stage *s, qgc_instance i) {
    i.expression = "l0";
    i.out = i.rows;
    int maker = add(b, s, i);
    int64_t first = 0;
    for (int k = 0; k < s->n_rows; k++) {
        if (!row_goes_on(b, s, &s->rows[k], (qgc_origin){maker, first}))
            return false;
        first += qgc_low_width(s->rows[k].linear->out[0]);
    }
    return true;
}

static bool add_expression(builder *b, const qgc_stage *s, qgc_instance *i, const qgc_value *result) {
    const qgc_value *inputs[QGC_MOST_OUTSIDE];
    int n;
    i->expression = qgc_low_expression(b->p->l, s, result, inputs, &n);
    i->out = qgc_low_width(result);
    i->logits = result == qgc_graph_output(b->p->l->graph, "logits");
    return add_outside(b, i, inputs, n, result);
}

static bool add_part(builder *b, const qgc_stage *s) {
    const qgc_node *mark = s->part->in[1]->maker;
    if (s->part->in[0] != qgc_graph_output(b->p->l->graph, "logits"))
        return qgc_persistent_no(b->p, "\"%s\" is of other values than the logits",
                                 label(b, s->part->out[0]));
    if (!mark || mark->op != QGC_OP_MARK || mark->in[0]->kind != QGC_STATE)
        return qgc_persistent_no(b->p, "\"%s\" is not of the state that the step's token is marked in",
                                 label(b, s->part->out[0]));
    if (!operand_is(b, mark, 1, b->tokens))
        return false;
    b->p->mark = mark, b->p->part = s->part;
    b->p->covered[mark->id] = true;
    return true;
}

static bool is_block_format(const qgc_node *linear) {
    return qgc_dtype_is_quantised(qgc_weight_storage(linear->in[1]));
}

/* Stages of different layers that may become one phase. */
static bool are_alike(const qgc_stage *a, const qgc_stage *b) {
    return a->kind == QGC_STAGE_PRODUCTS && b->kind == QGC_STAGE_PRODUCTS && a->n_rows == b->n_rows &&
           strcmp(a->name, b->name) == 0;
}

/* Rows that meet have to be of one type: are they of block formats and of several? */
static bool meet_in_several(const qgc_stage *s) {
    for (int k = 1; k < s->n_rows && s->n_pointwise; k++)
        if (qgc_weight_storage(s->rows[k].linear->in[1]) != qgc_weight_storage(s->rows[0].linear->in[1]) &&
            (is_block_format(s->rows[k].linear) || is_block_format(s->rows[0].linear)))
            return true;
    return false;
}

/* Does a matrix of a stage that is alike in several layers have a block format in one of them, and in another one something that no
 * phase can be at the same time? A phase has code for each of its block formats, and for those alone. */
static bool differ(const qgc_stage *a, const qgc_stage *b) {
    if (!are_alike(a, b) || meet_in_several(a) != meet_in_several(b))
        return are_alike(a, b);
    for (int k = 0; k < a->n_rows; k++)
        if (is_block_format(a->rows[k].linear) != is_block_format(b->rows[k].linear))
            return true;
    return false;
}

/* Such layers would each need code of their own, which then takes longer to read than weights in 16 bits: all are rounded to f16. */
static bool formats_differ(const qgc_persistent *p) {
    for (int i = 0; i < p->n_stages; i++)
        for (int k = 0; k < i; k++)
            if (differ(&p->stages[i], &p->stages[k]))
                return true;
    return false;
}

static qgc_dtype stream_type(const builder *b, const qgc_node *linear) {
    const qgc_dtype t = qgc_weight_storage(linear->in[1]);
    return b->rounds && qgc_dtype_is_quantised(t) ? QGC_F16 : t;
}

/* How the matrices of an instance lie in the stream: as they are if all are alike, else as f16, which block formats are rounded to. */
static bool take_stream_type(builder *b, qgc_instance *i) {
    const qgc_value *first = i->linear[0]->in[1];
    i->weight = stream_type(b, i->linear[0]);
    bool mixed = false;
    for (int k = 1; k < i->n_matrices; k++)
        mixed |= stream_type(b, i->linear[k]) != i->weight;
    for (int k = 0; k < i->n_matrices && mixed; k++) {
        const qgc_value *w = i->linear[k]->in[1];
        if (qgc_weight_storage(w) == QGC_BF16)
            return qgc_persistent_no(b->p, "weights \"%s\" and \"%s\" meet in one phase, and one is bf16",
                                     label(b, first), label(b, w));
        i->weight = QGC_F16;
    }
    return true;
}

static bool add_phase_of_products(builder *b, const qgc_stage *s) {
    qgc_instance i = new_instance(QGC_DO_PRODUCTS);
    i.name = s->name;
    for (int k = 0; k < s->n_rows; k++) {
        const qgc_node *linear = s->rows[k].linear;
        if (!product_fits(b, linear))
            return false;
        i.linear[i.n_matrices++] = linear;
        i.rows += qgc_low_width(linear->out[0]);
        i.k = qgc_low_width(linear->in[0]);
    }
    if (!take_stream_type(b, &i))
        return false;
    if (!add_gather(b, s, &i))
        return false;
    if (s->part && !add_part(b, s))
        return false;
    if (!s->n_pointwise && s->n_rows > 1)
        return add_apart(b, s, i);
    if (!s->n_pointwise && (s->rows[0].norm || s->rows[0].rope || s->rows[0].append))
        return add_apart(b, s, i);
    const qgc_value *result =
        s->n_pointwise ? s->pointwise[s->n_pointwise - 1]->out[0] : s->rows[0].linear->out[0];
    i.interleaved = s->n_rows;
    if (i.interleaved == 3) /* a tile has 8 rows */
        return qgc_persistent_no(b->p, "\"%s\" puts rows of three products together", s->name);
    if (!add_expression(b, s, &i, result))
        return false;
    put(b, result, add(b, s, i), 0);
    return true;
}

/* Are two matrices of a stage of one type, here and in all layers? */
static bool are_of_one_type(const builder *b, const qgc_stage *s, int k, int l) {
    for (int i = 0; i < b->p->n_stages; i++) {
        const qgc_stage *other = &b->p->stages[i];
        if (are_alike(s, other) &&
            stream_type(b, other->rows[k].linear) != stream_type(b, other->rows[l].linear))
            return false;
    }
    return true;
}

/* A stage whose rows do not meet is a phase for each type of its matrices; the same phases in all layers. */
static bool add_products(builder *b, const qgc_stage *s) {
    if (s->n_pointwise)
        return add_phase_of_products(b, s);
    bool done[QGC_MAX_LINEARS] = {false};
    for (int k = 0; k < s->n_rows; k++) {
        if (done[k])
            continue;
        qgc_stage of_type = *s;
        of_type.n_rows = 0;
        for (int i = k; i < s->n_rows; i++)
            if (are_of_one_type(b, s, i, k)) {
                of_type.rows[of_type.n_rows++] = s->rows[i];
                done[i] = true;
            }
        if (!add_phase_of_products(b, &of_type))
            return false;
    }
    return true;
}

static bool add_pointwise(builder *b, const qgc_stage *s) {
    qgc_instance i = new_instance(s->norm ? QGC_DO_NORM : QGC_DO_POINTWISE);
    const qgc_value *result = s->pointwise[s->n_pointwise - 1]->out[0];
    i.name = s->name;
    i.norm = s->norm;
    if (s->norm && (!norm_fits(b, s->norm) || !vector(b, s->norm->in[0], &i.x)))
        return false;
    if (!add_expression(b, s, &i, result))
        return false;
    put(b, result, add(b, s, i), 0);
    return true;
}

/* --- attention ------------------------------------------------------------------------------------------- */

static bool read_heads(builder *b, const qgc_value *v, qgc_heads_read *out) {
    const place *at = &b->places[v->id];
    if (at->at == PENDING) {
        *out = (qgc_heads_read){at->source, at->norm, at->rope};
        b->p->instances[at->source.maker].published = true;
        return true;
    }
    *out = (qgc_heads_read){{-1, 0}, NULL, NULL};
    return vector(b, v, &out->source);
}

/* What a version of a cache has got in this step, and the state. */
static bool read_cache(builder *b, const qgc_node *n, int which, qgc_heads_read *out,
                       const qgc_value **state) {
    const place *at = &b->places[n->in[which]->id];
    if (at->at != STATE)
        return qgc_persistent_no(b->p, "attention \"%s\" reads \"%s\" as it is before this step",
                                 label(b, n->out[0]), label(b, n->in[which]));
    if (at->append->in[0]->kind != QGC_STATE)
        return qgc_persistent_no(b->p, "\"%s\" is changed twice in a step", label(b, at->append->in[0]));
    *state = at->append->in[0];
    return operand_is(b, at->append, 2, b->positions) && read_heads(b, at->append->in[1], out);
}

static bool pairs_equal(const qgc_node *a, const qgc_node *b) {
    const qgc_rope of_a = qgc_rope_of(a), of_b = qgc_rope_of(b);
    return qgc_rope_pairs_equal(&of_a, &of_b);
}

static bool attention_fits(builder *b, const qgc_node *n, const qgc_instance *i) {
    const qgc_shape *keys = &n->in[1]->shape;
    const int64_t head_dim = keys->dim[2], queries = qgc_low_width(n->in[0]);
    qgc_dtype t = n->in[1]->dtype;
    if (t != n->in[2]->dtype || (t != QGC_F16 && t != QGC_BF16))
        return qgc_persistent_no(b->p, "caches are %s and %s, not both f16 or both bf16", qgc_dtypes[t].name,
                                 qgc_dtypes[n->in[2]->dtype].name);
    if (head_dim % 32 != 0 || head_dim > 256)
        return qgc_persistent_no(b->p, "heads of %lld elements, no multiple of 32 up to 256",
                                 (long long)head_dim);
    if (queries % (head_dim * keys->dim[0]) != 0)
        return qgc_persistent_no(b->p, "%lld query heads to %lld key-value heads",
                                 (long long)(queries / head_dim), (long long)keys->dim[0]);
    const qgc_heads_read *const reads[] = {&i->q, &i->keys, &i->values};
    if (i->q.rope && i->keys.rope && !pairs_equal(i->q.rope, i->keys.rope))
        return qgc_persistent_no(b->p, "\"%s\" and \"%s\" turn other elements of their heads",
                                 label(b, i->q.rope->out[0]), label(b, i->keys.rope->out[0]));
    for (int k = 0; k < 3; k++)
        if (reads[k]->rope && qgc_low_attr_int(reads[k]->rope, "head_dim") != head_dim)
            return qgc_persistent_no(b->p, "rotation of heads that are no heads of \"%s\"",
                                     label(b, n->out[0]));
    if (i->values.norm || i->values.rope)
        return qgc_persistent_no(b->p, "the values of \"%s\" are normed or rotated", label(b, n->out[0]));
    for (int k = 0; k < 2; k++)
        if (reads[k]->norm && qgc_low_width(reads[k]->norm->in[1]) != head_dim &&
            qgc_low_width(reads[k]->norm->in[1]) != qgc_low_width(reads[k]->norm->in[0]))
            return qgc_persistent_no(b->p, "\"%s\" norms neither heads nor all of them",
                                     label(b, reads[k]->norm->out[0]));
    return true;
}

static bool add_attention(builder *b, const qgc_stage *s) {
    const qgc_node *n = s->node;
    qgc_instance i = new_instance(QGC_DO_ATTENTION);
    i.attention = n;
    if (!operand_is(b, n, 3, b->positions) || (n->n_in > 4 && !is_weight(b, n, 4)) ||
        !read_heads(b, n->in[0], &i.q) || !read_cache(b, n, 1, &i.keys, &i.key_state) ||
        !read_cache(b, n, 2, &i.values, &i.value_state) || !attention_fits(b, n, &i))
        return false;
    i.out = qgc_low_width(n->in[0]);
    int maker = add(b, s, i);
    qgc_instance merge = new_instance(QGC_DO_MERGE);
    merge.of = maker;
    add(b, s, merge);
    put(b, n->out[0], maker, 0);
    return true;
}

/* The kernel cuts attention by itself, so the parts are of no use to anybody but the merge. */
static bool add_merge(builder *b, const qgc_node *n) {
    const qgc_node *part = n->in[0]->maker;
    if (!part || part->op != QGC_OP_ATTENTION_PART || b->places[n->in[0]->id].at != VECTOR)
        return qgc_persistent_no(b->p, "\"%s\" merges something else than parts of attention",
                                 label(b, n->out[0]));
    if (b->p->l->uses[part->out[0]->id] != 1)
        return qgc_persistent_no(b->p, "parts of attention \"%s\" are read by others than one merge",
                                 label(b, part->out[0]));
    b->places[n->out[0]->id] = b->places[n->in[0]->id];
    return true;
}

/* --- other nodes ----------------------------------------------------------------------------------------- */

static bool add_norm(builder *b, const qgc_stage *s) {
    const qgc_node *n = s->node;
    qgc_origin x;
    if (!is_weight(b, n, 1) || !vector(b, n->in[0], &x))
        return false;
    return is_whole(n) ? add_whole_norm(b, s, x, n) : add_heads(b, s, x, n, NULL, n->out[0]);
}

static bool add_node(builder *b, const qgc_stage *s) {
    const qgc_node *n = s->node;
    qgc_origin x;
    switch ((int)n->op) {
    case QGC_OP_EMBEDDING:
        return add_embedding(b, s, n);
    case QGC_OP_RMS_NORM:
    case QGC_OP_LAYER_NORM:
        return add_norm(b, s);
    case QGC_OP_ROPE:
        return rope_fits(b, n) && vector(b, n->in[0], &x) && add_heads(b, s, x, NULL, n, n->out[0]);
    case QGC_OP_ROPE_FREQS: /* in the tables of the ropes */
    case QGC_OP_ROPE_LINEAR:
    case QGC_OP_ROPE_LLAMA3:
    case QGC_OP_ROPE_YARN:
    case QGC_OP_ROPE_DIVIDE:
    case QGC_OP_ROPE_LONGROPE:
        return true;
    case QGC_OP_APPEND:
        b->places[n->out[0]->id] = (place){.at = STATE, .append = n};
        return true;
    case QGC_OP_ATTENTION:
    case QGC_OP_ATTENTION_PART:
        return add_attention(b, s);
    case QGC_OP_ATTENTION_MERGE:
        return add_merge(b, n);
    case QGC_OP_SELECT_ROWS: /* a step has one row */
        b->places[n->out[0]->id] = b->places[n->in[0]->id];
        return operand_is(b, n, 1, b->rows);
    default:
        return qgc_persistent_no(b->p, "%s \"%s\" has no phase in the kernel", qgc_ops[n->op].name,
                                 label(b, n->out[0]));
    }
}

/* What runs after the kernel, in kernels of its own. */
static bool comes_after(const qgc_stage *s) {
    return s->kind == QGC_STAGE_NODE &&
           (s->node->op == QGC_OP_MARK || s->node->op == QGC_OP_SAMPLE || s->node->op == QGC_OP_SAMPLE_PART ||
            s->node->op == QGC_OP_SAMPLE_MERGE);
}

/* A kernel from outside that gives a device function. */
static bool add_outside_phase(builder *b, const qgc_stage *s) {
    const qgc_outside_stage *o = s->outside;
    const char *why, *name = o->row.row->name;
    qgc_instance i = new_instance(QGC_DO_OUTSIDE);
    qgc_diag d = qgc_diag_new(b->arena);
    qgc_outside_launch *with = qgc_arena_alloc(b->arena, sizeof *with);
    if (qgc_outside_plan(o, with, b->arena, &d) != QGC_OK)
        return qgc_persistent_no(b->p, "%s", qgc_diag_message(&d));
    if (!qgc_outside_phase_of(o, with, 0, &i.phase, &why, b->arena))
        return qgc_persistent_no(
            b->p, "\"%s\" is a kernel from outside, \"%s\", which has no phase in the kernel: %s", s->name,
            name, why);
    qgc_origin *reads = qgc_arena_array(b->arena, QGC_OUTSIDE_PARAMS, sizeof *reads);
    for (int k = 0; k < o->row.n_params; k++) {
        reads[k] = (qgc_origin){-1, 0};
        const qgc_value *v = o->row.params[k].value < 0 ? NULL : o->value[o->row.params[k].value];
        if (i.phase.params[k] == QGC_PHASE_VECTOR && !vector(b, v, &reads[k]))
            return false;
        if (reads[k].first % 4 != 0)
            return qgc_persistent_no(b->p, "\"%s\" begins at element %lld of a vector, no multiple of 4",
                                     label(b, v), (long long)reads[k].first);
    }
    const qgc_value *result = o->value[o->row.params[i.phase.result].value];
    i.with = with, i.reads = reads;
    i.space = qgc_outside_phase_space(o, with, "the_phase", b->arena);
    i.out = i.phase.widths[i.phase.result];
    i.logits = result == qgc_graph_output(b->p->l->graph, "logits");
    put(b, result, add(b, s, i), 0);
    return true;
}

static bool no_phase(builder *b, const qgc_node *n) {
    return qgc_persistent_no(b->p, "%s \"%s\" has no phase in the kernel", qgc_ops[n->op].name,
                             label(b, n->out[0]));
}

static void cover(builder *b, const qgc_stage *s) {
    for (const qgc_node *n = s->first; n; n = qgc_group_next(s->first, n))
        b->p->covered[n->id] = true;
}

static bool add_stage(builder *b, const qgc_stage *s) {
    if (comes_after(s))
        return true;
    cover(b, s);
    if (s->kind == QGC_STAGE_OUTSIDE)
        return add_outside_phase(b, s);
    if (s->route || s->kind == QGC_STAGE_EXPERTS)
        return no_phase(b, s->route ? s->route : s->rows[0].linear);
    if (s->merge && !add_merge(b, s->merge))
        return false;
    return s->kind == QGC_STAGE_PRODUCTS    ? add_products(b, s)
           : s->kind == QGC_STAGE_POINTWISE ? add_pointwise(b, s)
                                            : add_node(b, s);
}

/* --- what is carried ------------------------------------------------------------------------------------- */

/* May the threads that finish an instance's rows keep them? Those of one matrix are theirs alone. */
static bool can_carry(const qgc_instance *i, int64_t width) {
    return i->does == QGC_DO_PRODUCTS && i->n_matrices == 1 && !i->logits && i->rows == width &&
           i->out == width;
}

/* The instance that makes an outside value, if its threads can keep it for this one: -1 the embedding, -2 none. */
static int holder_of(const builder *b, const qgc_instance *i, const qgc_outside *o) {
    const place *at = &b->places[o->value->id];
    if (!can_carry(i, i->rows))
        return -2;
    if (o->value->maker && o->value->maker == b->p->embedding)
        return -1;
    return at->at == VECTOR && at->source.first == 0 && can_carry(&b->p->instances[at->source.maker], i->rows)
               ? at->source.maker
               : -2;
}

/* Is an instance's result an outside value of a later one that could take it so? */
static bool is_wanted(const builder *b, int maker) {
    for (int t = maker + 1; t < b->p->n_instances; t++)
        for (int k = 0; k < b->p->instances[t].n_outside; k++)
            if (holder_of(b, &b->p->instances[t], &b->p->instances[t].outside[k]) == maker)
                return true;
    return false;
}

/* One value of each row is carried: the one that was left there last. All of one width. */
static bool place_outside(builder *b) {
    qgc_persistent *p = b->p;
    int holder = -1; /* the embedding, which is there at first */
    for (int t = 0; t < p->n_instances; t++) {
        qgc_instance *i = &p->instances[t];
        for (int k = 0; k < i->n_outside; k++) {
            qgc_outside *o = &i->outside[k];
            int maker = holder_of(b, i, o);
            bool fits = maker == holder && (p->carried_width == 0 || p->carried_width == i->rows);
            if (fits) {
                o->from = QGC_OUTSIDE_CARRIED;
                o->source.maker = maker;
                p->carried_width = i->rows;
                p->carries_embedding = p->carries_embedding || maker == -1;
                if (maker >= 0)
                    p->instances[maker].carries = true;
            } else if (!vector(b, o->value, &o->source))
                return false;
        }
        if (can_carry(i, i->rows) && (p->carried_width == 0 || p->carried_width == i->rows) &&
            is_wanted(b, t))
            holder = t;
    }
    return true;
}

/* --- what may be read outside of the kernel -------------------------------------------------------------- */

static bool leaves(const qgc_persistent *p, const qgc_value *v) {
    return v == qgc_graph_output(p->l->graph, "logits") ||
           (p->part && (v == p->part->out[0] || v == p->mark->out[0]));
}

static bool nobody_else_reads(builder *b) {
    qgc_persistent *p = b->p;
    const qgc_graph *g = p->l->graph;
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; !p->covered[n->id] && i < n->n_in; i++) {
            const qgc_value *v = n->in[i];
            if (v->maker && p->covered[v->maker->id] && !leaves(p, v))
                return qgc_persistent_no(p, "\"%s\" is read by \"%s\", which runs after the kernel",
                                         label(b, v), label(b, n->out[0]));
            if (p->mark && v == p->mark->in[0])
                return qgc_persistent_no(p, "\"%s\" is read by \"%s\" as it was before the kernel",
                                         label(b, v), label(b, n->out[0]));
        }
    for (size_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i]->maker && p->covered[g->outputs[i]->maker->id] && !leaves(p, g->outputs[i]))
            return qgc_persistent_no(p, "\"%s\" is an output", label(b, g->outputs[i]));
    for (int t = 0; t < p->n_instances; t++)
        if (p->instances[t].logits)
            return true;
    return qgc_persistent_no(p, "no phase of the kernel makes the logits");
}

/* Every version of a cache that a covered append makes is put there by the attention that reads it. */
static bool caches_are_written(builder *b) {
    qgc_persistent *p = b->p;
    for (const qgc_node *n = p->l->graph->first; n; n = n->next) {
        if (n->op != QGC_OP_APPEND || !p->covered[n->id])
            continue;
        bool read = false;
        for (int t = 0; t < p->n_instances; t++)
            if (p->instances[t].does == QGC_DO_ATTENTION)
                read = read || p->instances[t].attention->in[1] == n->out[0] ||
                       p->instances[t].attention->in[2] == n->out[0];
        if (!read)
            return qgc_persistent_no(p, "\"%s\" is read by no attention", label(b, n->out[0]));
    }
    return true;
}

/* --- shapes ---------------------------------------------------------------------------------------------- */

static const char *number(const builder *b, const qgc_node *n, const char *attr) {
    return n ? qgc_arena_printf(b->arena, "%.17g", qgc_low_attr(n, attr)) : "";
}

int64_t qgc_norm_width(const qgc_node *norm) {
    return norm ? qgc_low_width(norm->in[1]) : 0;
}

const qgc_node *qgc_instance_rope(const qgc_instance *i) {
    return i->rope ? i->rope : i->q.rope ? i->q.rope : i->keys.rope;
}

/* Which elements of a head turn. Where all do, or none, the code is one. */
static void add_pairs(const builder *b, const qgc_node *rope, qgc_str *t) {
    const char *options[3];
    const int n = rope ? qgc_low_rope_options(b->p->l, rope, options) : 0;
    for (int k = 0; k < n; k++)
        qgc_str_printf(t, " %s", options[k]);
}

static void add_outside_shape(const qgc_instance *i, qgc_str *t) {
    for (int k = 0; k < i->stage->outside->row.n_params; k++) {
        const qgc_extent *n = &i->with->numbers[k];
        qgc_str_printf(t, " %d %lld %lld %lld", i->phase.params[k], (long long)i->phase.widths[k],
                       (long long)(n->fixed + n->per_token + n->per_row), (long long)n->per_ctx);
    }
    qgc_str_printf(t, " %lld %s", (long long)i->phase.piece, i->space);
}

/* All that the code of an instance depends on, but for where things lie, what is data, and which block format it is: a phase may have
 * several. */
static const char *shape_of(const builder *b, const qgc_instance *i) {
    qgc_str t = qgc_str_new(b->arena);
    qgc_str_printf(&t, "%d %lld %d %lld %s", i->does, (long long)i->out, i->logits,
                   (long long)qgc_norm_width(i->norm), number(b, i->norm, "eps"));
    if (i->norm && i->norm->op == QGC_OP_LAYER_NORM)
        qgc_str_printf(&t, " centred %d", i->norm->n_in);
    if (i->expression)
        qgc_str_printf(&t, " %lld %lld %d %d %s", (long long)i->k, (long long)i->rows,
                       qgc_dtype_is_quantised(i->weight) ? -1 : (int)i->weight, i->interleaved,
                       i->expression);
    for (int k = 0; k < i->n_matrices; k++)
        qgc_str_printf(&t, " %lld", (long long)qgc_low_width(i->linear[k]->out[0]));
    for (int k = 0; k < i->n_outside; k++)
        qgc_str_printf(&t, " %d", i->outside[k].from);
    if (i->does == QGC_DO_HEADS)
        qgc_str_printf(&t, " %lld", (long long)qgc_heads_dim(i->norm, i->rope));
    if (i->attention)
        qgc_str_printf(&t, " %d %s", i->attention->n_in, number(b, i->attention, "softcap"));
    if (i->attention)
        qgc_str_printf(&t, " %lld %lld %d %s %lld %s %lld %s", (long long)i->attention->in[1]->shape.dim[0],
                       (long long)i->attention->in[1]->shape.dim[2], i->attention->in[1]->dtype,
                       number(b, i->attention, "scale"), (long long)qgc_norm_width(i->q.norm),
                       number(b, i->q.norm, "eps"), (long long)qgc_norm_width(i->keys.norm),
                       number(b, i->keys.norm, "eps"));
    if (i->does == QGC_DO_OUTSIDE)
        add_outside_shape(i, &t);
    add_pairs(b, qgc_instance_rope(i), &t);
    return t.text;
}

bool qgc_persistent_instances(qgc_persistent *p) {
    const qgc_graph *g = p->l->graph;
    builder b = {.p = p,
                 .arena = p->l->arena,
                 .places = qgc_arena_array(p->l->arena, g->n_values + 1, sizeof(place)),
                 .tokens = qgc_graph_input(g, "tokens"),
                 .positions = qgc_graph_input(g, "positions"),
                 .rows = qgc_graph_input(g, "rows"),
                 .rounds = formats_differ(p)};
    for (int i = 0; i < p->n_stages; i++)
        if (!add_stage(&b, &p->stages[i]))
            return false;
    if (!place_outside(&b) || !nobody_else_reads(&b) || !caches_are_written(&b))
        return false;
    for (int t = 0; t < p->n_instances; t++)
        p->instances[t].shape = shape_of(&b, &p->instances[t]);
    return true;
}
