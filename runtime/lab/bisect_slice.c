#include "runtime/lab/bisect_slice.h"

#include <ctype.h>
#include <string.h>

/* Rows of floats, one for each token of the step or each that is wanted. */
static bool is_rows(const qgc_value *v) {
    return v->maker && v->dtype == QGC_F32 && !qgc_value_is_version(v) && v->shape.rank == 2 &&
           v->shape.dim[1] > 0 && (v->shape.dim[0] == QGC_DIM_T || v->shape.dim[0] == QGC_DIM_R);
}

static const qgc_value *twin_of(const bisect_slices *s, const qgc_value *v) {
    return s->by_kernels ? s->good->graph->values[v->id] : s->c->values[v->id].other;
}

static bool is_boundary(const bisect_slices *s, const qgc_value *v) {
    const qgc_node *part = s->c->part->maker;
    const bool inside = s->by_kernels && part->group >= 0 && v->maker && v->maker->group == part->group;
    return is_rows(v) && !inside && v->maker->order < part->order && twin_of(s, v) != NULL;
}

/* --- names ----------------------------------------------------------------------------------------------- */

/* "ff[7]" as a name of a model file: "ff_7". */
static const char *plain(const char *prefix, const qgc_value *v, qgc_arena *a) {
    char *name = qgc_arena_printf(a, "%s%s", prefix, qgc_value_label(v, a));
    size_t n = 0;
    for (const char *at = name; *at; at++)
        if (isalnum((unsigned char)*at) || *at == '_')
            name[n++] = *at;
        else if (*at == '[' || *at == '=')
            name[n++] = '_';
    name[n < 60 ? n : 60] = 0;
    return name;
}

const char *bisect_slice_name(bisect_slice *x, const qgc_value *v) {
    if (v->kind == QGC_INPUT)
        return v->name;
    if (x->names[v->id])
        return x->names[v->id];
    qgc_arena *a = x->s->arena;
    const char *name = plain("", v, a), *free_one = name;
    for (int i = 2; !qgc_map_put(&x->taken, free_one, x); i++)
        free_one = qgc_arena_printf(a, "%s_%d", name, i);
    return x->names[v->id] = free_one;
}

/* --- which nodes ----------------------------------------------------------------------------------------- */

static bisect_table *find_table(bisect_slices *s, const qgc_value *v) {
    for (size_t i = 0; i < s->n_tables; i++)
        if (s->tables[i].value == v)
            return &s->tables[i];
    s->tables = qgc_arena_grow(s->arena, s->tables, s->n_tables, sizeof *s->tables);
    const char *name = plain("in_", v, s->arena);
    for (size_t i = 0; i < s->n_tables; i++)
        if (strcmp(s->tables[i].name, name) == 0) /* values may share a label */
            name = qgc_arena_printf(s->arena, "in_%zu", s->n_tables);
    s->tables[s->n_tables] = (bisect_table){v, twin_of(s, v), name, qgc_str_new(s->arena)};
    return &s->tables[s->n_tables++];
}

/* The nodes between what both sides agree on and the output, from the end to the beginning. */
static void choose_nodes(bisect_slice *x) {
    const qgc_graph *g = x->side->graph;
    bisect_slices *s = x->s;
    bool *wanted = qgc_arena_array(s->arena, g->n_values, sizeof *wanted);
    wanted[x->output->id] = true;
    for (const qgc_node *n = g->last; n; n = n->prev) {
        bool take = s->by_kernels && s->c->part->maker->group >= 0 && n->group == s->c->part->maker->group;
        for (int i = 0; i < n->n_out; i++)
            take = take || wanted[n->out[i]->id];
        if (!take)
            continue;
        x->in_slice[n->id] = true;
        for (int i = 0; i < n->n_in; i++) {
            const qgc_value *in = n->in[i], *known = x->in_bad[in->id];
            if (known && is_boundary(s, known))
                find_table(s, known);
            else
                wanted[in->id] = true;
        }
    }
}

bisect_slice bisect_slice_new(bisect_slices *s, const bisect_side *side) {
    const qgc_graph *g = side->graph;
    bisect_slice x = {.s = s, .side = side, .taken = qgc_map_new(s->arena)};
    x.in_bad = qgc_arena_array(s->arena, g->n_values, sizeof(qgc_value *));
    x.in_slice = qgc_arena_array(s->arena, (size_t)g->next_node_id, sizeof *x.in_slice);
    x.names = qgc_arena_array(s->arena, g->n_values, sizeof(char *));
    static const char *const reserved[] = {"tokens", "positions", "rows",    "logits",
                                           "next",   "seen",      "seen_now"};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        qgc_map_put(&x.taken, reserved[i], s);
    const bool is_bad = side == s->bad;
    for (size_t i = 0; i < s->bad->graph->n_values; i++) {
        const qgc_value *v = s->bad->graph->values[i], *twin = v->maker ? twin_of(s, v) : NULL;
        if (is_bad)
            x.in_bad[v->id] = v;
        else if (twin)
            x.in_bad[twin->id] = v;
    }
    x.output = is_bad ? s->output : twin_of(s, s->output);
    choose_nodes(&x);
    return x;
}

/* The value that the slice ends in: the one that parts, or of those computed from it the first that differs and is rows of
 * floats. */
const qgc_value *bisect_slice_output(const bisect_slices *s) {
    const qgc_value *part = s->c->part;
    if (is_rows(part) || part == qgc_graph_output(s->bad->graph, "next"))
        return part;
    bool *after = qgc_arena_array(s->arena, s->bad->graph->n_values, sizeof *after);
    after[part->id] = true;
    for (const qgc_node *n = part->maker->next; n; n = n->next) {
        bool reads = false;
        for (int i = 0; i < n->n_in; i++)
            reads = reads || after[n->in[i]->id];
        for (int i = 0; i < n->n_out && reads; i++) {
            const bisect_value *v = &s->c->values[n->out[i]->id];
            if (is_rows(n->out[i]) && v->other && v->apart > 0)
                return n->out[i];
            after[n->out[i]->id] = true;
        }
    }
    return NULL;
}

/* --- the model file -------------------------------------------------------------------------------------- */

static bool reads_tokens(const qgc_node *n) {
    return n->op == QGC_OP_EMBEDDING && n->in[0]->kind == QGC_INPUT && strcmp(n->in[0]->name, "tokens") == 0;
}

static qgc_dtype stored_as(const qgc_tensor *t) {
    return qgc_dtype_is_quantised(t->dtype) ? QGC_F16 : t->dtype;
}

/* `rows` rows of a tensor, in the type that the file gets: those of the tokens, or where there are none the first. */
static void put_rows(bisect_slices *s, const qgc_tensor *t, int64_t rows, const int32_t *tokens) {
    const int64_t n = qgc_tensor_row_elems(t);
    const size_t bytes = qgc_dtype_bytes(t->dtype, n), stored = qgc_dtype_bytes(stored_as(t), n);
    float *x = qgc_arena_array(s->arena, (size_t)n, sizeof *x);
    void *to = qgc_arena_alloc(s->arena, stored);
    for (int64_t row = 0; row < rows; row++) {
        const char *from = (const char *)t->data + (size_t)(tokens ? tokens[row] : row) * bytes;
        if (stored_as(t) == t->dtype) {
            qgc_str_add_bytes(&s->data, from, bytes);
            continue;
        }
        qgc_to_f32(t->dtype, from, x, n);
        qgc_from_f32(stored_as(t), x, to, n);
        qgc_str_add_bytes(&s->data, to, stored);
    }
}

/* Weights of a node, each declared once, its numbers put into the file when it is first seen. Of the table that the model
 * looks its tokens up in, the rows that were looked up take the places of their positions. */
static void declare_weights(bisect_slice *x, const qgc_node *n, const int32_t *tokens, qgc_map *declared,
                            qgc_str *out) {
    bisect_slices *s = x->s;
    for (int i = 0; i < n->n_in; i++) {
        const qgc_value *v = n->in[i];
        const bool looked_up = reads_tokens(n) && i == 1;
        if (v->kind != QGC_WEIGHT)
            continue;
        const char *name = bisect_slice_name(x, v);
        const qgc_tensor *t = qgc_weight_tensor(x->side->graph, v, x->side->tensors, NULL, s->arena);
        qgc_shape shape = v->shape;
        if (looked_up)
            shape.dim[0] = s->steps;
        if (!qgc_map_put(declared, name, s))
            continue;
        qgc_str_printf(out, "  %s: {shape: %s, gguf: %s, dtype: %s}\n", name,
                       qgc_shape_text(&shape, s->arena), name, qgc_dtypes[stored_as(t)].name);
        if (!qgc_map_put(&s->weights, name, s))
            continue;
        qgc_gguf_writer_tensor(&s->file, name, stored_as(t), shape.rank, shape.dim);
        put_rows(s, t, looked_up ? s->steps : qgc_tensor_rows(t), looked_up ? tokens : NULL);
        qgc_gguf_pad(&s->data);
    }
}

static bool reads_table(const bisect_slice *x, const bisect_table *t) {
    for (const qgc_node *n = x->side->graph->first; n; n = n->next)
        for (int i = 0; i < n->n_in && x->in_slice[n->id]; i++)
            if (x->in_bad[n->in[i]->id] == t->value)
                return true;
    return false;
}

static void declare_tables(bisect_slice *x, qgc_str *out) {
    for (size_t i = 0; i < x->s->n_tables; i++) {
        const bisect_table *t = &x->s->tables[i];
        if (reads_table(x, t))
            qgc_str_printf(out, "  %s: {shape: [%lld, %lld], gguf: %s, dtype: f32}\n", t->name,
                           (long long)x->s->steps, (long long)t->value->shape.dim[1], t->name);
    }
}

/* The positions of a ring are those of the caches, of which it has no more than so many rows. */
static void declare_state(bisect_slice *x, const qgc_value *v, qgc_str *out) {
    qgc_shape shape = v->shape;
    int64_t ring = 0;
    for (int i = 0; i < shape.rank; i++)
        if (qgc_dim_ring(shape.dim[i]) > 0) {
            ring = qgc_dim_ring(shape.dim[i]);
            shape.dim[i] = QGC_DIM_CTX;
        }
    qgc_str_printf(out, "  %s: {shape: %s, dtype: %s", bisect_slice_name(x, v),
                   qgc_shape_text(&shape, x->s->arena), qgc_dtypes[v->dtype].name);
    if (ring > 0)
        qgc_str_printf(out, ", ring: %lld", (long long)ring);
    qgc_str_add(out, "}\n");
}

static void declare_states(bisect_slice *x, qgc_str *out) {
    qgc_map declared = qgc_map_new(x->s->arena);
    for (const qgc_node *n = x->side->graph->first; n; n = n->next)
        for (int i = 0; i < n->n_in && x->in_slice[n->id]; i++) {
            const qgc_value *v = n->in[i];
            if (v->kind != QGC_STATE || !qgc_map_put(&declared, bisect_slice_name(x, v), x))
                continue;
            declare_state(x, v, out);
        }
}

/* The value of the table, in the place of the one of the model. */
static void look_up(bisect_slice *x, const qgc_value *v, const bisect_table *t, qgc_str *out) {
    const char *name = bisect_slice_name(x, v);
    if (v == qgc_graph_output(x->side->graph, "logits") && x->output->dtype == QGC_I32)
        name = x->names[v->id] = "logits";
    if (v->shape.dim[0] == QGC_DIM_R) {
        qgc_str_printf(out, "  - {op: embedding, in: [tokens, %s], out: %s_t}\n", t->name, t->name);
        qgc_str_printf(out, "  - {op: select_rows, in: [%s_t, rows], out: %s}\n", t->name, name);
    } else {
        qgc_str_printf(out, "  - {op: embedding, in: [tokens, %s], out: %s}\n", t->name, name);
    }
}

static void put_node(bisect_slice *x, const qgc_node *n, qgc_str *out) {
    const qgc_op_info *op = &qgc_ops[n->op];
    qgc_str_printf(out, "  - {op: %s, in: [", op->name);
    for (int i = 0; i < n->n_in; i++)
        qgc_str_printf(out, "%s%s", i ? ", " : "", bisect_slice_name(x, n->in[i]));
    qgc_str_add(out, "]");
    for (int i = 0; op->attrs[i].name; i++)
        if (!qgc_attr_is_written(n, i))
            continue;
        else if (op->attrs[i].choices[0])
            qgc_str_printf(out, ", %s: %s", op->attrs[i].name, op->attrs[i].choices[n->attr[i].choice]);
        else {
            qgc_str_printf(out, ", %s: ", op->attrs[i].name);
            qgc_str_add_number(out, n->attr[i].number);
        }
    qgc_str_printf(out, ", out: %s", n->n_out > 1 ? "[" : "");
    for (int i = 0; i < n->n_out; i++)
        qgc_str_printf(out, "%s%s", i ? ", " : "", bisect_slice_name(x, n->out[i]));
    qgc_str_add(out, n->n_out > 1 ? "]" : "");
    if (x->s->by_kernels && n->group >= 0 && n->group == x->s->c->part->maker->group)
        qgc_str_printf(out, ", fuse: %s", BISECT_GROUP);
    qgc_str_add(out, "}\n");
}

/* What a model has to end with: logits, and a token chosen from them. */
static void put_end(bisect_slice *x, qgc_str *out) {
    const qgc_value *v = x->output;
    if (v->dtype == QGC_I32)
        return;
    if (v->shape.dim[0] == QGC_DIM_T)
        qgc_str_printf(out, "  - {op: select_rows, in: [%s, rows], out: logits}\n", bisect_slice_name(x, v));
    qgc_str_add(out, "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
                     "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n");
}

const char *bisect_slice_text(bisect_slice *x, const int32_t *tokens) {
    bisect_slices *s = x->s;
    qgc_str out = qgc_str_new(s->arena);
    if (x->output->dtype == QGC_I32)
        x->names[x->output->id] = "next";
    else if (x->output->shape.dim[0] == QGC_DIM_R)
        x->names[x->output->id] = "logits";
    qgc_str_printf(
        &out,
        "# Cut out of \"%s\": what makes %s. Token i of the text stands for what went in at position i.\n"
        "qgc: 2\nname: %s\narch: slice\npasses: []\nweights:\n",
        s->bad->graph->name, qgc_value_label(x->output, s->arena), x->side == s->bad ? "bad" : "good");
    qgc_map declared = qgc_map_new(s->arena);
    declare_tables(x, &out);
    for (const qgc_node *n = x->side->graph->first; n; n = n->next)
        if (x->in_slice[n->id])
            declare_weights(x, n, tokens, &declared, &out);
    qgc_str_add(&out, "state:\n");
    declare_states(x, &out);
    if (x->output->dtype != QGC_I32)
        qgc_str_printf(&out, "  seen: {shape: [%lld], dtype: i32}\n", (long long)x->output->shape.dim[1]);
    qgc_str_add(&out, "inputs: {tokens: [T], positions: [T], rows: [R]}\ngraph:\n");
    for (const qgc_node *n = x->side->graph->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            for (size_t k = 0; k < s->n_tables; k++)
                if (x->in_bad[n->out[i]->id] == s->tables[k].value && reads_table(x, &s->tables[k]))
                    look_up(x, n->out[i], &s->tables[k], &out);
    for (const qgc_node *n = x->side->graph->first; n; n = n->next)
        if (x->in_slice[n->id])
            put_node(x, n, &out);
    put_end(x, &out);
    qgc_str_add(&out, "outputs: [logits, next]\n");
    return out.text;
}
