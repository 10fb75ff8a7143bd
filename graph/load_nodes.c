#include <string.h>

#include "graph/base/str.h"
#include "graph/format.def"
#include "graph/load.h"
#include "graph/load_impl.h"

enum { MAX_CARRY = 64 };

/* An op as written: what it needs to become a node in any iteration. */
typedef struct {
    qgc_op op;
    qgc_loc at;
    const qgc_yaml *in[QGC_MAX_INPUTS];
    const qgc_yaml *out[QGC_MAX_OUTPUTS];
    int n_in, n_out;
    qgc_attr attr[QGC_MAX_ATTRS];
    const qgc_yaml *fuse;     /* NULL: in no group */
    const qgc_reason *reason; /* why it is there; NULL: it stands there as it is */
} op_text;

/* A repeat as written. */
typedef struct {
    qgc_loc at;
    const char *index;
    const qgc_yaml *count_text;
    int64_t from, count;
    const qgc_yaml *carry[MAX_CARRY]; /* names */
    const qgc_yaml *start[MAX_CARRY]; /* in the first iteration; NULL: what the name means already */
    int n_carry;
    const qgc_yaml *body;
} repeat_text;

/* Ops. */

static qgc_status unknown_op(qgc_loader *ld, const qgc_yaml *node) {
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "unknown op \"%s\"", node->text);
    const char *words[QGC_N_OPS];
    for (int i = 0; i < QGC_N_OPS; i++)
        words[i] = qgc_ops[i].name;
    qgc_load_hint_nearest(ld->d, node->text, words, QGC_N_OPS);
    return s;
}

static qgc_status read_choice(qgc_loader *ld, const qgc_yaml *node, const qgc_attr_spec *spec, int *out) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, spec->name));
    int n = 0;
    for (; n < QGC_MAX_CHOICES && spec->choices[n]; n++)
        if (strcmp(spec->choices[n], node->text) == 0) {
            *out = n;
            return QGC_OK;
        }
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "unknown %s \"%s\"", spec->name, node->text);
    qgc_load_hint_nearest(ld->d, node->text, spec->choices, (size_t)n);
    qgc_str all = qgc_str_new(ld->arena);
    for (int i = 0; i < n; i++)
        qgc_str_printf(&all, "%s%s", i ? ", " : "", spec->choices[i]);
    qgc_hint(ld->d, "It can be: %s.", all.text);
    return s;
}

static qgc_status read_attrs(qgc_loader *ld, const qgc_yaml *map, op_text *o) {
    const qgc_op_info *info = &qgc_ops[o->op];
    const char *what = qgc_arena_printf(ld->arena, "op \"%s\"", info->name);
    const char *keys[5 + QGC_MAX_ATTRS] = {"op", "in", "out"};
    size_t n_keys = 3;
    for (const qgc_attr_spec *spec = info->attrs; spec->name; spec++)
        keys[n_keys++] = spec->name;
    keys[n_keys++] = "fuse";
    if (ld->format > 1)
        keys[n_keys++] = "when"; /* which has been decided */
    QGC_TRY(qgc_load_check_keys(ld, map, what, keys, n_keys));
    for (int i = 0; info->attrs[i].name; i++) {
        const qgc_attr_spec *spec = &info->attrs[i];
        const qgc_yaml *node = qgc_yaml_get(map, spec->name);
        o->attr[i].number = spec->usual;
        if (!node && spec->optional)
            continue;
        QGC_TRY(qgc_load_required(ld, map, what, spec->name, &node));
        if (spec->choices[0])
            QGC_TRY(read_choice(ld, node, spec, &o->attr[i].choice));
        else
            QGC_TRY(qgc_load_number(ld, node, spec->name, &o->attr[i].number));
    }
    return QGC_OK;
}

static qgc_status wrong_arity(qgc_loader *ld, const qgc_yaml *list, const qgc_op_info *info) {
    const char *expected = info->min_inputs == info->max_inputs
                               ? qgc_arena_printf(ld->arena, "%d", info->min_inputs)
                               : qgc_arena_printf(ld->arena, "%d to %d", info->min_inputs, info->max_inputs);
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, list->at, "op \"%s\" has %zu input%s, expected %s",
                            info->name, list->n, list->n == 1 ? "" : "s", expected);
    qgc_hint(ld->d, "Its inputs are: %s.", info->signature);
    return s;
}

/* Names as they are called outside of the part that they stand in. */
static qgc_status read_names(qgc_loader *ld, const qgc_yaml *node, const char *what, const qgc_yaml **out) {
    for (size_t i = 0; i < node->n; i++) {
        QGC_TRY(qgc_load_expect(ld, node->items[i], QGC_YAML_SCALAR, what));
        out[i] = node->items[i];
    }
    return QGC_OK;
}

/* What a part makes is called as its `with` says, which may state what is no name of a value. */
static qgc_status rename_all(qgc_loader *ld, const qgc_scope *scope, op_text *o) {
    for (int i = 0; i < o->n_in; i++)
        o->in[i] = qgc_load_renamed(ld, scope, o->in[i]);
    for (int i = 0; i < o->n_out; i++) {
        o->out[i] = qgc_load_renamed(ld, scope, o->out[i]);
        QGC_TRY(qgc_load_check_name(ld, o->out[i], "output"));
    }
    return QGC_OK;
}

static qgc_status read_inputs(qgc_loader *ld, const qgc_yaml *node, op_text *o) {
    const qgc_op_info *info = &qgc_ops[o->op];
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_LIST, "in"));
    if (node->n < (size_t)info->min_inputs || node->n > (size_t)info->max_inputs)
        return wrong_arity(ld, node, info);
    o->n_in = (int)node->n;
    return read_names(ld, node, "input", o->in);
}

static qgc_status read_outputs(qgc_loader *ld, const qgc_yaml *node, op_text *o) {
    const qgc_op_info *info = &qgc_ops[o->op];
    size_t n = node->kind == QGC_YAML_LIST ? node->n : 1;
    if (n != (size_t)info->n_outputs)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "op \"%s\" has %zu outputs, expected %d", info->name,
                        n, info->n_outputs);
    if (node->kind == QGC_YAML_LIST)
        QGC_TRY(read_names(ld, node, "output", o->out));
    else
        o->out[0] = node;
    o->n_out = info->n_outputs;
    for (int i = 0; i < o->n_out; i++)
        QGC_TRY(qgc_load_check_name(ld, o->out[i], "output"));
    return QGC_OK;
}

static qgc_status read_op_text(qgc_loader *ld, const qgc_yaml *map, op_text *o) {
    const qgc_yaml *name, *in, *out;
    QGC_TRY(qgc_load_expect(ld, map, QGC_YAML_MAP, "entry of the graph"));
    if (qgc_yaml_get(map, "repeat"))
        return qgc_fail(ld->d, QGC_ERR_INPUT, map->at, "a repeat cannot stand inside of a repeat");
    QGC_TRY(qgc_load_required(ld, map, "entry of the graph", "op", &name));
    QGC_TRY(qgc_load_expect(ld, name, QGC_YAML_SCALAR, "op"));
    o->op = qgc_op_named(name->text);
    if (o->op == QGC_N_OPS)
        return unknown_op(ld, name);
    QGC_TRY(read_attrs(ld, map, o));
    const char *what = qgc_arena_printf(ld->arena, "op \"%s\"", name->text);
    in = qgc_yaml_get(map, "in");
    if (in || qgc_ops[o->op].max_inputs > 0)
        QGC_TRY(qgc_load_required(ld, map, what, "in", &in));
    QGC_TRY(qgc_load_required(ld, map, what, "out", &out));
    if (in)
        QGC_TRY(read_inputs(ld, in, o));
    o->fuse = qgc_yaml_get(map, "fuse");
    return read_outputs(ld, out, o);
}

static qgc_status read_op(qgc_loader *ld, const qgc_item *item, op_text *o) {
    *o = (op_text){.at = item->yaml->at, .reason = item->reason};
    qgc_status s = read_op_text(ld, item->yaml, o);
    if (s == QGC_OK)
        s = rename_all(ld, item->scope, o);
    if (s != QGC_OK)
        qgc_load_note_reason(ld, o->reason, ld->place);
    return s;
}

/* Repeats. */

static qgc_status read_carry(qgc_loader *ld, const qgc_yaml *node, repeat_text *r) {
    if (!node)
        return QGC_OK;
    size_t n = node->kind == QGC_YAML_SCALAR ? 1 : node->n;
    if (n > MAX_CARRY)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "repeat carries %zu values, expected %d at most", n,
                        MAX_CARRY);
    for (size_t i = 0; i < n; i++) {
        switch (node->kind) {
        case QGC_YAML_SCALAR:
            r->carry[i] = node;
            break;
        case QGC_YAML_LIST:
            r->carry[i] = node->items[i];
            break;
        case QGC_YAML_MAP:
            r->carry[i] = node->keys[i];
            r->start[i] = node->items[i];
            break;
        }
        QGC_TRY(qgc_load_check_name(ld, r->carry[i], "carried value"));
        for (size_t k = 0; k < i; k++)
            if (strcmp(r->carry[k]->text, r->carry[i]->text) == 0)
                return qgc_fail(ld->d, QGC_ERR_INPUT, r->carry[i]->at, "value \"%s\" is carried twice",
                                r->carry[i]->text);
    }
    r->n_carry = (int)n;
    return QGC_OK;
}

/* `{index: l, from: 4, count: 20, carry: x}` */
static qgc_status read_head(qgc_loader *ld, const qgc_yaml *head, repeat_text *r) {
    static const char *const keys[] = {QGC_KEYS(HEAD)};
    const qgc_yaml *index, *from = qgc_yaml_get(head, "from");
    QGC_TRY(qgc_load_check_keys(ld, head, "a repeat", keys, 4));
    QGC_TRY(qgc_load_required(ld, head, "repeat", "index", &index));
    QGC_TRY(qgc_load_required(ld, head, "repeat", "count", &r->count_text));
    QGC_TRY(qgc_load_check_name(ld, index, "index"));
    r->index = index->text;
    QGC_TRY(qgc_load_whole(ld, r->count_text, (qgc_expr_range){"count", 1, QGC_LOAD_MAX_NODES}, &r->count));
    if (from)
        QGC_TRY(qgc_load_whole(ld, from, (qgc_expr_range){"from", 0, QGC_LOAD_MAX_NODES}, &r->from));
    return read_carry(ld, qgc_yaml_get(head, "carry"), r);
}

static qgc_status read_repeat(qgc_loader *ld, const qgc_yaml *item, repeat_text *r) {
    static const char *const keys[] = {QGC_KEYS(REPEAT)};
    const qgc_yaml *head;
    *r = (repeat_text){.at = item->at};
    QGC_TRY(qgc_load_check_keys(ld, item, "a repeat", keys,
                                ld->format > 1 ? sizeof keys / sizeof *keys : QGC_OLD_KEYS(REPEAT)));
    QGC_TRY(qgc_load_required(ld, item, "repeat", "repeat", &head));
    QGC_TRY(qgc_load_required(ld, item, "repeat", "body", &r->body));
    QGC_TRY(qgc_load_expect(ld, head, QGC_YAML_MAP, "repeat"));
    QGC_TRY(qgc_load_expect(ld, r->body, QGC_YAML_LIST, "body"));
    if (r->body->n == 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, r->body->at, "body of the repeat is empty");
    return read_head(ld, head, r);
}

static bool is_repeat(const qgc_yaml *item) {
    return item->kind == QGC_YAML_MAP && (qgc_yaml_get(item, "repeat") || qgc_yaml_get(item, "body"));
}

/* Repeats over one index are parts of one: it has as many iterations as the farthest part reaches. */
static qgc_status note_repeat(qgc_loader *ld, const repeat_text *r) {
    qgc_graph *g = ld->g;
    int i = qgc_load_find_repeat(g, r->index);
    if (i < 0 && g->n_repeats == QGC_LOAD_MAX_REPEATS)
        return qgc_fail(ld->d, QGC_ERR_INPUT, r->at, "more than %d indices", QGC_LOAD_MAX_REPEATS);
    if (i < 0) {
        i = (int)g->n_repeats;
        g->repeats = qgc_arena_grow(ld->arena, g->repeats, g->n_repeats, sizeof *g->repeats);
        g->repeats[g->n_repeats++] = (qgc_repeat){r->index, 0, r->at};
    }
    int end = (int)(r->from + r->count);
    if (g->repeats[i].count < end)
        g->repeats[i].count = end;
    return QGC_OK;
}

/* What the op makes, for the error of an op before it that wants it; malformed ones are found later. */
static void note_makers(qgc_loader *ld, const qgc_yaml *op) {
    const qgc_yaml *out = qgc_yaml_get(op, "out");
    if (!out)
        return;
    qgc_loc *at = qgc_arena_alloc(ld->arena, sizeof *at);
    *at = op->at;
    if (out->kind == QGC_YAML_SCALAR)
        qgc_map_put(&ld->makers, out->text, at);
    for (size_t i = 0; out->kind == QGC_YAML_LIST && i < out->n; i++)
        if (out->items[i]->kind == QGC_YAML_SCALAR)
            qgc_map_put(&ld->makers, out->items[i]->text, at);
}

/* Names that a part may give to what it makes. */
static void note_with(qgc_loader *ld, const qgc_yaml *with) {
    for (size_t i = 0; with && with->kind == QGC_YAML_MAP && i < with->n; i++)
        if (with->items[i]->kind == QGC_YAML_SCALAR)
            qgc_map_put(&ld->again, with->items[i]->text, qgc_arena_strdup(ld->arena, with->items[i]->text));
}

static void note_names(qgc_loader *ld, const qgc_yaml *item) {
    note_makers(ld, item);
    note_with(ld, qgc_yaml_get(item, "with"));
}

qgc_status qgc_load_scan(qgc_loader *ld) {
    const qgc_yaml *graph;
    QGC_TRY(qgc_load_required(ld, ld->doc, "model file", "graph", &graph));
    QGC_TRY(qgc_load_expect(ld, graph, QGC_YAML_LIST, "graph"));
    if (graph->n == 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, graph->at, "graph is empty");
    QGC_TRY(qgc_load_check_parts(ld));
    qgc_items all;
    QGC_TRY(qgc_load_expand(ld, graph, &all));
    for (size_t i = 0; i < all.n; i++) {
        repeat_text r;
        if (!is_repeat(all.items[i].yaml))
            continue;
        QGC_TRY(read_repeat(ld, all.items[i].yaml, &r));
        QGC_TRY(note_repeat(ld, &r));
    }
    qgc_load_visit(ld, graph, note_names);
    return QGC_OK;
}

/* Nodes. */

static qgc_status made_twice(qgc_loader *ld, const qgc_yaml *out, qgc_loc first, bool carry_helps) {
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, out->at, "value \"%s\" is made twice", out->text);
    qgc_note(ld->d, first, "value \"%s\" is made here first", out->text);
    if (carry_helps)
        qgc_hint(ld->d, "If an iteration hands it to the next one, list it in the \"carry\" of the repeat.");
    return s;
}

static bool is_carried(const repeat_text *r, const char *name) {
    for (int i = 0; i < r->n_carry; i++)
        if (strcmp(r->carry[i]->text, name) == 0)
            return true;
    return false;
}

static void set_read(qgc_loader *ld, const qgc_value *v) {
    while (ld->n_read <= (size_t)v->id) {
        ld->read = qgc_arena_grow(ld->arena, ld->read, ld->n_read, sizeof *ld->read);
        ld->read[ld->n_read++] = false;
    }
    ld->read[v->id] = true;
}

/* In format 2 a name may be made again where it was made, and means the newer value from there on. The older one has been
 * read, or it was in vain: a mistake. */
static qgc_status make_again(qgc_loader *ld, const qgc_yaml *out, const qgc_value *older) {
    if ((size_t)older->id < ld->n_read && ld->read[older->id])
        return QGC_OK;
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, out->at,
                            "value \"%s\" is made again, and nothing has read it", out->text);
    qgc_note(ld->d, older->at, "value \"%s\" is made here first", out->text);
    return s;
}

/* Is the name free for what is made again of `name`? It has it in other iterations, perhaps. */
static bool is_free(const qgc_loader *ld, const char *next, const char *name) {
    const char *other = qgc_map_get(&ld->again, next);
    return !qgc_map_get(&ld->makers, next) && !qgc_map_get(&ld->symbols, next) &&
           (!other || strcmp(other, name) == 0);
}

/* "q" is called q_2 where it is made the second time, so that each value of an iteration has a name of its own. Long names are cut,
 * and two that are the same then have different numbers. */
static const char *name_again(qgc_loader *ld, const char *name, int made) {
    const char *again = name;
    for (int i = made + 1; i > 1 && again == name; i++) {
        const char *next = qgc_arena_printf(ld->arena, "%.48s_%d", name, i);
        if (is_free(ld, next, name))
            again = next;
    }
    if (again != name)
        qgc_map_put(&ld->again, again, qgc_arena_strdup(ld->arena, name));
    return again;
}

/* Gives a result its name; `r` is the repeat it is made in, NULL if none. */
static qgc_status bind_again(qgc_loader *ld, const qgc_yaml *out, const repeat_text *r, qgc_value *v) {
    const qgc_place where = {v->repeat, v->layer};
    qgc_symbol *symbol = qgc_map_get(&ld->symbols, out->text);
    const bool known = symbol && symbol->kind == QGC_RESULT;
    const qgc_value *older = !known ? NULL : r ? qgc_load_turn_value(ld, out->text, where) : symbol->now;
    if (older)
        QGC_TRY(make_again(ld, out, older));
    if (known && r && !older && symbol->now && !is_carried(r, out->text))
        return made_twice(ld, out, symbol->at, true);
    if (!known)
        QGC_TRY(qgc_load_declare(ld, out->text, QGC_RESULT, out->at, &symbol));
    v->name = name_again(ld, out->text, r ? qgc_load_turn_made(ld, out->text, where) : symbol->made);
    if (!r || is_carried(r, out->text))
        symbol->now = v;
    symbol->made += !r;
    if (r)
        qgc_load_put_turn_value(ld, symbol, where, v);
    return QGC_OK;
}

static qgc_status bind(qgc_loader *ld, const qgc_yaml *out, const repeat_text *r, qgc_value *v) {
    if (ld->format > 1)
        return bind_again(ld, out, r, v);
    const qgc_place where = {v->repeat, v->layer};
    qgc_symbol *symbol = qgc_map_get(&ld->symbols, out->text);
    if (symbol && symbol->kind == QGC_RESULT && (!r || (symbol->now && !is_carried(r, out->text))))
        return made_twice(ld, out, symbol->at, r != NULL);
    if (!symbol || symbol->kind != QGC_RESULT)
        QGC_TRY(qgc_load_declare(ld, out->text, QGC_RESULT, out->at, &symbol));
    if (!r || is_carried(r, out->text))
        symbol->now = v;
    if (r && qgc_load_turn_value(ld, out->text, where))
        return made_twice(ld, out, symbol->at, false);
    if (r)
        qgc_load_put_turn_value(ld, symbol, where, v);
    return QGC_OK;
}

static qgc_value *newer_of(const qgc_loader *ld, const qgc_value *v) {
    return (size_t)v->id < ld->n_newer ? ld->newer[v->id] : NULL;
}

static void set_newer(qgc_loader *ld, const qgc_value *v, qgc_value *newer) {
    while (ld->n_newer <= (size_t)v->id) {
        ld->newer = qgc_arena_grow(ld->arena, ld->newer, ld->n_newer, sizeof(qgc_value *));
        ld->newer[ld->n_newer++] = NULL;
    }
    ld->newer[v->id] = newer;
}

static bool is_state(const qgc_value *v) {
    return v->kind == QGC_STATE || qgc_value_is_version(v);
}

/* A state that an op changes in place is gone: the op's output is the same memory. */
static qgc_status check_newest(qgc_loader *ld, const qgc_yaml *node, const qgc_value *v) {
    const qgc_value *newer = newer_of(ld, v);
    if (!newer)
        return QGC_OK;
    const char *label = qgc_value_label(v, ld->arena), *newer_label = qgc_value_label(newer, ld->arena);
    qgc_status s =
        qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "state \"%s\" is read after it was changed", label);
    qgc_note(ld->d, newer->at, "\"%s\" is changed here, to \"%s\"", label, newer_label);
    return s;
}

static qgc_status check_state(qgc_loader *ld, const op_text *o, int i, const qgc_value *v) {
    QGC_TRY(check_newest(ld, o->in[i], v));
    if (i == 0 && (qgc_ops[o->op].traits & QGC_IN_PLACE) && !is_state(v))
        return qgc_fail(ld->d, QGC_ERR_INPUT, o->in[i]->at, "op \"%s\" changes a state, and \"%s\" is none",
                        qgc_ops[o->op].name, v->name);
    return QGC_OK;
}

/* A weight or a state that is not there in this iteration, where the op cannot do without. */
static qgc_status left_out(qgc_loader *ld, const op_text *o, int i, qgc_place where) {
    const char *name = o->in[i]->text,
               *turn = where.layer < 0 ? "" : qgc_arena_printf(ld->arena, " in iteration %d", where.layer);
    const qgc_symbol *symbol = qgc_map_get(&ld->symbols, name);
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, o->in[i]->at,
                            "\"%s\" is left out%s, and op \"%s\" needs it", name, turn, qgc_ops[o->op].name);
    if (symbol && symbol->when)
        qgc_load_note_values(ld, symbol->when, where);
    return s;
}

/* What is not there is left out of the inputs too, if the op can do without it and all after it. */
static qgc_status resolve_inputs(qgc_loader *ld, const op_text *o, qgc_place where, qgc_node *n) {
    int absent = -1;
    for (int i = 0; i < o->n_in; i++) {
        qgc_value *v;
        QGC_TRY(qgc_load_resolve(ld, o->in[i], where, &v));
        if (!v && i < qgc_ops[o->op].min_inputs)
            return left_out(ld, o, i, where);
        if (!v) {
            absent = i;
            continue;
        }
        if (absent >= 0)
            return left_out(ld, o, absent, where);
        n->in[i] = v;
        QGC_TRY(check_state(ld, o, i, v));
        set_read(ld, v);
        n->n_in++;
    }
    return QGC_OK;
}

static void keep_reason(qgc_loader *ld, const qgc_node *n, const qgc_reason *reason) {
    while (ld->n_reasons <= (size_t)n->id) {
        ld->reasons = qgc_arena_grow(ld->arena, ld->reasons, ld->n_reasons, sizeof *ld->reasons);
        ld->reasons[ld->n_reasons++] = NULL;
    }
    ld->reasons[n->id] = reason;
}

static qgc_status make_node_of(qgc_loader *ld, const op_text *o, qgc_place where, const repeat_text *r) {
    qgc_graph *g = ld->g;
    if (g->n_nodes == QGC_LOAD_MAX_NODES)
        return qgc_fail(ld->d, QGC_ERR_INPUT, o->at, "graph has more than %d nodes", QGC_LOAD_MAX_NODES);
    qgc_node *n = qgc_graph_node(g, o->op, NULL, o->at);
    n->repeat = where.repeat;
    n->layer = where.layer;
    memcpy(n->attr, o->attr, sizeof n->attr);
    if (o->fuse)
        QGC_TRY(qgc_load_group(ld, o->fuse, where, &n->group));
    keep_reason(ld, n, o->reason);
    QGC_TRY(resolve_inputs(ld, o, where, n));
    for (int i = 0; i < o->n_out; i++)
        QGC_TRY(bind(ld, o->out[i], r, qgc_node_output(g, n, o->out[i]->text)));
    if (qgc_ops[o->op].traits & QGC_IN_PLACE)
        set_newer(ld, n->in[0], n->out[0]);
    return QGC_OK;
}

static qgc_status make_node(qgc_loader *ld, const op_text *o, qgc_place where, const repeat_text *r) {
    const qgc_status s = make_node_of(ld, o, where, r);
    if (s != QGC_OK)
        qgc_load_note_reason(ld, o->reason, where);
    return s;
}

/* What a carried name stands for when the first iteration begins. */
static qgc_status start_carry(qgc_loader *ld, const qgc_yaml *name, const qgc_yaml *start) {
    qgc_value *v;
    QGC_TRY(qgc_load_resolve(ld, start ? start : name, QGC_TOP_LEVEL, &v));
    qgc_symbol *symbol = qgc_map_get(&ld->symbols, name->text);
    if (!v)
        return qgc_fail(ld->d, QGC_ERR_INPUT, name->at, "carried value \"%s\" starts as what is left out",
                        name->text);
    if (symbol && symbol->kind != QGC_RESULT)
        return qgc_fail(ld->d, QGC_ERR_INPUT, name->at, "carried value \"%s\" is not the result of an op",
                        name->text);
    /* The old value has to stay within reach: as "x[3]", or as what the name means in the first iteration. */
    bool hides = symbol && symbol->now && symbol->now->layer < 0 && symbol->now != v;
    if (!symbol || hides)
        QGC_TRY(qgc_load_declare(ld, name->text, QGC_RESULT, name->at, &symbol));
    symbol->now = v;
    set_read(ld, v);
    return QGC_OK;
}

/* The ops of an iteration: those of format 1 are the same in all, and are read once. */
typedef struct {
    op_text *ops;
    size_t n;
} turn_ops;

static qgc_status read_ops(qgc_loader *ld, const qgc_yaml *body, turn_ops *out) {
    qgc_items items;
    QGC_TRY(qgc_load_expand(ld, body, &items));
    *out = (turn_ops){qgc_arena_array(ld->arena, items.n, sizeof *out->ops), items.n};
    for (size_t i = 0; i < items.n; i++)
        QGC_TRY(read_op(ld, &items.items[i], &out->ops[i]));
    return QGC_OK;
}

static qgc_status make_turn(qgc_loader *ld, const repeat_text *r, const turn_ops *ops, qgc_place where) {
    for (size_t i = 0; i < ops->n; i++)
        QGC_TRY(make_node(ld, &ops->ops[i], where, r));
    for (int i = 0; i < r->n_carry; i++)
        if (!qgc_load_turn_value(ld, r->carry[i]->text, where))
            return qgc_fail(ld->d, QGC_ERR_INPUT, r->carry[i]->at,
                            "carried value \"%s\" is not made in the body", r->carry[i]->text);
    return QGC_OK;
}

static qgc_status make_repeat(qgc_loader *ld, const qgc_yaml *item) {
    repeat_text r;
    turn_ops ops = {0};
    QGC_TRY(read_repeat(ld, item, &r));
    if (ld->format == 1 && (size_t)r.count * r.body->n > QGC_LOAD_MAX_NODES - ld->g->n_nodes)
        return qgc_fail(ld->d, QGC_ERR_INPUT, r.count_text->at, "graph has more than %d nodes",
                        QGC_LOAD_MAX_NODES);
    if (ld->format == 1)
        QGC_TRY(read_ops(ld, r.body, &ops));
    for (int i = 0; i < r.n_carry; i++)
        QGC_TRY(start_carry(ld, r.carry[i], r.start[i]));
    int repeat = qgc_load_find_repeat(ld->g, r.index);
    for (int64_t turn = r.from; turn < r.from + r.count; turn++) {
        ld->place = (qgc_place){repeat, (int)turn};
        if (ld->format > 1)
            QGC_TRY(read_ops(ld, r.body, &ops));
        QGC_TRY(make_turn(ld, &r, &ops, ld->place));
    }
    ld->place = QGC_TOP_LEVEL;
    return QGC_OK;
}

qgc_status qgc_load_nodes(qgc_loader *ld) {
    qgc_items all;
    QGC_TRY(qgc_load_expand(ld, qgc_yaml_get(ld->doc, "graph"), &all));
    for (size_t i = 0; i < all.n; i++) {
        if (is_repeat(all.items[i].yaml)) {
            QGC_TRY(make_repeat(ld, all.items[i].yaml));
            continue;
        }
        op_text o;
        QGC_TRY(read_op(ld, &all.items[i], &o));
        QGC_TRY(make_node(ld, &o, QGC_TOP_LEVEL, NULL));
    }
    return QGC_OK;
}

/* An output is found by its name: of several values that were made under it the last has it, and the first that one's. */
static void name_output(qgc_loader *ld, qgc_value *v, const char *name) {
    qgc_graph *g = ld->g;
    for (size_t i = 0; i < g->n_values && strcmp(v->name, name) != 0; i++) {
        qgc_value *first = g->values[i];
        if (first->kind != QGC_RESULT || first->layer >= 0 || strcmp(first->name, name) != 0)
            continue;
        first->name = v->name;
        v->name = name;
    }
}

qgc_status qgc_load_outputs(qgc_loader *ld) {
    qgc_graph *g = ld->g;
    const qgc_yaml *list;
    QGC_TRY(qgc_load_required(ld, ld->doc, "model file", "outputs", &list));
    QGC_TRY(qgc_load_expect(ld, list, QGC_YAML_LIST, "outputs"));
    if (list->n == 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, list->at, "list of outputs is empty");
    g->outputs = qgc_arena_array(ld->arena, list->n, sizeof(qgc_value *));
    for (size_t i = 0; i < list->n; i++) {
        const qgc_yaml *item = list->items[i];
        qgc_value *v;
        QGC_TRY(qgc_load_resolve(ld, item, QGC_TOP_LEVEL, &v));
        if (!v || v->kind != QGC_RESULT)
            return qgc_fail(ld->d, QGC_ERR_INPUT, item->at, "output \"%s\" is not the result of an op",
                            item->text);
        QGC_TRY(check_newest(ld, item, v));
        if (v->layer < 0)
            name_output(ld, v, item->text);
        if (qgc_graph_output(g, v->name))
            return qgc_fail(ld->d, QGC_ERR_INPUT, item->at, "output \"%s\" is listed twice", item->text);
        g->outputs[g->n_outputs++] = v;
    }
    return QGC_OK;
}
