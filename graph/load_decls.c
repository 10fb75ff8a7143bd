#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/format.def"
#include "graph/load.h"
#include "graph/load_impl.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const int64_t max_dim = (int64_t)1 << 31, max_elems = (int64_t)1 << 40;

void qgc_load_hint_nearest(qgc_diag *d, const char *word, const char *const *words, size_t n) {
    const char *near = qgc_nearest(word, words, n);
    if (near)
        qgc_hint(d, "Did you mean \"%s\"?", near);
}

qgc_status qgc_load_expect(qgc_loader *ld, const qgc_yaml *node, qgc_yaml_kind kind, const char *what) {
    if (node->kind == kind)
        return QGC_OK;
    return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "%s is %s, expected %s", what, qgc_yaml_kind_name(node),
                    qgc_yaml_kind_name(&(qgc_yaml){.kind = kind, .text = "", .quoted = true}));
}

qgc_status qgc_load_check_keys(qgc_loader *ld, const qgc_yaml *map, const char *what, const char *const *keys,
                               size_t n_keys) {
    for (size_t i = 0; i < map->n; i++) {
        const char *key = map->keys[i]->text;
        size_t k = 0;
        while (k < n_keys && strcmp(keys[k], key) != 0)
            k++;
        if (k < n_keys)
            continue;
        qgc_status s =
            qgc_fail(ld->d, QGC_ERR_INPUT, map->keys[i]->at, "unknown key \"%s\" of %s", key, what);
        qgc_load_hint_nearest(ld->d, key, keys, n_keys);
        qgc_str all = qgc_str_new(ld->arena);
        for (k = 0; k < n_keys; k++)
            qgc_str_printf(&all, "%s%s", k ? ", " : "", keys[k]);
        qgc_hint(ld->d, "The keys there are: %s.", all.text);
        return s;
    }
    return QGC_OK;
}

qgc_status qgc_load_required(qgc_loader *ld, const qgc_yaml *map, const char *what, const char *key,
                             const qgc_yaml **out) {
    *out = qgc_yaml_get(map, key);
    if (!*out)
        return qgc_fail(ld->d, QGC_ERR_INPUT, map->at, "%s lacks \"%s\"", what, key);
    return QGC_OK;
}

bool qgc_load_is_symbol(const char *text, int64_t *dim) {
    static const char *const names[] = {"T", "R", "ctx"};
    static const int64_t dims[] = {QGC_DIM_T, QGC_DIM_R, QGC_DIM_CTX};
    for (size_t i = 0; i < COUNT(names); i++)
        if (strcmp(text, names[i]) == 0) {
            *dim = dims[i];
            return true;
        }
    return false;
}

qgc_status qgc_load_check_name(qgc_loader *ld, const qgc_yaml *node, const char *what) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, what));
    const char *p = node->text;
    while (isalnum((unsigned char)*p) || *p == '_')
        p++;
    if (*p || p == node->text || isdigit((unsigned char)node->text[0]))
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                        "%s \"%s\" is not a name of letters, digits and \"_\"", what, node->text);
    if (p - node->text > QGC_LOAD_MAX_NAME)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "%s \"%s\" is longer than %d letters", what,
                        node->text, QGC_LOAD_MAX_NAME);
    int64_t dim;
    if (qgc_load_is_symbol(node->text, &dim))
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "%s \"%s\" has the name of a symbol of shapes", what,
                        node->text);
    return QGC_OK;
}

/* Dimensions; `symbols` are the names allowed, say "ctx". The product of the numbers stays within what can
 * be counted and stored, so that nobody after this has to fear an overflow. */
static qgc_status read_shape(qgc_loader *ld, const qgc_yaml *node, const char *what, const char *symbols,
                             qgc_shape *out) {
    *out = (qgc_shape){0};
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_LIST, "shape"));
    if (node->n < 1 || node->n > QGC_MAX_RANK)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "shape of %s has %zu dimensions, expected 1 to %d",
                        what, node->n, QGC_MAX_RANK);
    int64_t elems = 1;
    for (size_t i = 0; i < node->n; i++) {
        const qgc_yaml *item = node->items[i];
        int64_t *dim = &out->dim[i];
        QGC_TRY(qgc_load_expect(ld, item, QGC_YAML_SCALAR, "dimension"));
        if (qgc_load_is_symbol(item->text, dim)) {
            if (!strstr(symbols, item->text))
                return qgc_fail(ld->d, QGC_ERR_INPUT, item->at,
                                "dimension \"%s\" cannot stand in the shape of %s", item->text, what);
            continue;
        }
        QGC_TRY(qgc_load_whole(ld, item, (qgc_expr_range){"dimension", 1, max_dim}, dim));
        if (__builtin_mul_overflow(elems, *dim, &elems) || elems > max_elems)
            return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "%s has more than 2^40 elements", what);
    }
    out->rank = (int)node->n;
    return QGC_OK;
}

/* Inputs. */

qgc_status qgc_load_inputs(qgc_loader *ld) {
    static const char *const names[] = {"tokens", "positions", "rows"};
    static const int64_t dims[] = {QGC_DIM_T, QGC_DIM_T, QGC_DIM_R};
    const qgc_yaml *section;
    QGC_TRY(qgc_load_required(ld, ld->doc, "model file", "inputs", &section));
    QGC_TRY(qgc_load_check_keys(ld, section, "inputs", names, COUNT(names)));
    qgc_graph *g = ld->g;
    g->inputs = qgc_arena_array(ld->arena, section->n, sizeof(qgc_value *));
    for (size_t i = 0; i < section->n; i++) {
        const qgc_yaml *key = section->keys[i];
        qgc_shape shape, wanted = {.rank = 1};
        for (size_t k = 0; k < COUNT(names); k++)
            if (strcmp(names[k], key->text) == 0)
                wanted.dim[0] = dims[k];
        QGC_TRY(read_shape(ld, section->items[i], "an input", "T R", &shape));
        if (!qgc_shape_equal(&shape, &wanted))
            return qgc_fail(ld->d, QGC_ERR_INPUT, section->items[i]->at,
                            "input \"%s\" has shape %s, expected %s", key->text,
                            qgc_shape_text(&shape, ld->arena), qgc_shape_text(&wanted, ld->arena));
        qgc_symbol *symbol;
        QGC_TRY(qgc_load_declare(ld, key->text, QGC_INPUT, key->at, &symbol));
        symbol->now = qgc_graph_value(g, QGC_INPUT, key->text, key->at);
        symbol->now->dtype = QGC_I32;
        symbol->now->shape = shape;
        g->inputs[g->n_inputs++] = symbol->now;
    }
    return QGC_OK;
}

/* What weights and states have in common. */

typedef struct {
    const char *what, *name;
    qgc_value_kind kind;
    qgc_loc at;
    int decl, repeat, count;
    const char *index;
    int *turns;           /* [count] NULL: all from 0 on */
    const qgc_yaml *when; /* a condition; NULL: none */
    qgc_shape shape;
    const qgc_yaml *dtype; /* a name, a list with one for each iteration, or NULL */
    qgc_dtype otherwise;   /* if it is NULL */
    const qgc_yaml *
        ring; /* of a state: how many positions stay, or a list with a number for each iteration; NULL: all */
    qgc_value **values;
} tensors;

/* How many there are: one for each iteration of the repeat that `per` names, unless `count` says otherwise. */
static qgc_status read_count(qgc_loader *ld, const qgc_yaml *entry, tensors *t) {
    const qgc_yaml *per = qgc_yaml_get(entry, "per"), *count = qgc_yaml_get(entry, "count");
    t->repeat = -1;
    t->count = 1;
    if (!per && count)
        return qgc_fail(ld->d, QGC_ERR_INPUT, count->at, "%s \"%s\" has a count and no \"per\"", t->what,
                        t->name);
    if (!per)
        return QGC_OK;
    QGC_TRY(qgc_load_check_name(ld, per, "index"));
    qgc_graph *g = ld->g;
    t->index = per->text;
    t->repeat = qgc_load_find_repeat(g, per->text);
    if (t->repeat < 0 && !count) {
        qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, per->at, "no repeat has the index \"%s\"", per->text);
        if (g->n_repeats == 1)
            qgc_hint(ld->d, "Did you mean \"%s\"?", g->repeats[0].index);
        return s;
    }
    int64_t n = t->repeat < 0 ? 0 : g->repeats[t->repeat].count;
    if (count)
        QGC_TRY(qgc_load_whole(ld, count, (qgc_expr_range){"count", 1, QGC_LOAD_MAX_TENSORS}, &n));
    t->count = (int)n;
    if (t->repeat >= 0)
        return QGC_OK;
    if (g->n_repeats == QGC_LOAD_MAX_REPEATS)
        return qgc_fail(ld->d, QGC_ERR_INPUT, per->at, "more than %d indices", QGC_LOAD_MAX_REPEATS);
    t->repeat = (int)g->n_repeats;
    g->repeats = qgc_arena_grow(ld->arena, g->repeats, g->n_repeats, sizeof *g->repeats);
    g->repeats[g->n_repeats++] = (qgc_repeat){per->text, t->count, per->at};
    return QGC_OK;
}

/* `turns: [1, 3]` of a graph that was printed. */
static qgc_status read_turns(qgc_loader *ld, const qgc_yaml *list, tensors *t) {
    QGC_TRY(qgc_load_expect(ld, list, QGC_YAML_LIST, "turns"));
    if (!t->index || list->n < 1 || list->n > (size_t)t->count)
        return qgc_fail(ld->d, QGC_ERR_INPUT, list->at, "%s \"%s\" lists %zu iterations, and there are %d",
                        t->what, t->name, list->n, t->index ? t->count : 0);
    t->turns = qgc_arena_array(ld->arena, list->n, sizeof *t->turns);
    for (size_t i = 0; i < list->n; i++) {
        int64_t turn;
        QGC_TRY(qgc_load_whole(ld, list->items[i], (qgc_expr_range){"iteration", 0, t->count - 1}, &turn));
        if (i && turn <= t->turns[i - 1])
            return qgc_fail(ld->d, QGC_ERR_INPUT, list->items[i]->at,
                            "%s \"%s\" lists iteration %lld after %d, expected them in rising order", t->what,
                            t->name, (long long)turn, t->turns[i - 1]);
        t->turns[i] = (int)turn;
    }
    t->count = (int)list->n;
    return QGC_OK;
}

/* Those iterations in which the condition is not 0, or none. */
static qgc_status read_when(qgc_loader *ld, tensors *t) {
    int *turns = qgc_arena_array(ld->arena, (size_t)t->count, sizeof *turns), n = 0;
    const qgc_place before = ld->place;
    for (int i = 0; i < t->count; i++) {
        double condition;
        ld->place = t->index ? (qgc_place){t->repeat, i} : QGC_TOP_LEVEL;
        QGC_TRY(qgc_load_number(ld, t->when, "when", &condition));
        if (condition != 0)
            turns[n++] = i;
    }
    ld->place = before;
    t->turns = turns;
    t->count = n;
    return QGC_OK;
}

/* Which iterations of the repeat have one. */
static qgc_status choose_turns(qgc_loader *ld, const qgc_yaml *entry, tensors *t) {
    const qgc_yaml *turns = qgc_yaml_get(entry, "turns");
    t->when = qgc_yaml_get(entry, "when");
    if (turns && t->when)
        return qgc_fail(ld->d, QGC_ERR_INPUT, turns->at, "%s \"%s\" has \"turns\" and \"when\"", t->what,
                        t->name);
    if (turns)
        return read_turns(ld, turns, t);
    return t->when ? read_when(ld, t) : QGC_OK;
}

static qgc_status read_dtype(qgc_loader *ld, const qgc_yaml *node, const tensors *t, qgc_dtype *out) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, "dtype"));
    const char *words[QGC_N_DTYPES] = {0};
    size_t n = 0;
    for (int i = 0; i < QGC_N_DTYPES; i++)
        if (t->kind == QGC_WEIGHT ? i != QGC_I32 : !qgc_dtype_is_quantised((qgc_dtype)i))
            words[n++] = qgc_dtypes[i].name;
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i], node->text) == 0) {
            *out = qgc_dtype_named(node->text);
            return QGC_OK;
        }
    bool known = qgc_dtype_named(node->text) != QGC_N_DTYPES;
    qgc_status s = known ? qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "%s \"%s\" cannot be of dtype \"%s\"",
                                    t->what, t->name, node->text)
                         : qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "unknown dtype \"%s\"", node->text);
    qgc_load_hint_nearest(ld->d, node->text, words, n);
    return s;
}

/* A list has as many as there are. */
static qgc_status check_list(qgc_loader *ld, const qgc_yaml *list, const char *what, const tensors *t) {
    if (!list || list->kind != QGC_YAML_LIST || list->n == (size_t)t->count)
        return QGC_OK;
    return qgc_fail(ld->d, QGC_ERR_INPUT, list->at, "%s \"%s\" has %zu %s, expected %d", t->what, t->name,
                    list->n, what, t->count);
}

/* The one dimension that is "ctx" becomes that of a ring, if the number for iteration i of those that there are is not 0. */
static qgc_status read_ring(qgc_loader *ld, const tensors *t, int i, qgc_value *v) {
    if (!t->ring)
        return QGC_OK;
    const qgc_yaml *number = t->ring->kind == QGC_YAML_LIST ? t->ring->items[i] : t->ring;
    const qgc_place before = ld->place;
    int64_t rows, *dim = NULL;
    for (int k = 0; k < v->shape.rank; k++)
        if (v->shape.dim[k] == QGC_DIM_CTX)
            dim = dim ? dim : &v->shape.dim[k];
    if (!dim)
        return qgc_fail(ld->d, QGC_ERR_INPUT, t->ring->at, "state \"%s\" has a ring and no dimension \"ctx\"",
                        t->name);
    ld->place = t->index ? (qgc_place){t->repeat, v->layer} : QGC_TOP_LEVEL;
    QGC_TRY(qgc_load_whole(ld, number, (qgc_expr_range){"ring", 0, INT32_MAX}, &rows));
    ld->place = before;
    *dim = qgc_ring_dim(rows);
    return QGC_OK;
}

static qgc_status make_values(qgc_loader *ld, tensors *t) {
    const qgc_yaml *list = t->dtype && t->dtype->kind == QGC_YAML_LIST ? t->dtype : NULL;
    QGC_TRY(check_list(ld, list, "dtypes", t));
    QGC_TRY(check_list(ld, t->ring, "rings", t));
    ld->n_tensors += (size_t)t->count;
    if (ld->n_tensors > QGC_LOAD_MAX_TENSORS)
        return qgc_fail(ld->d, QGC_ERR_INPUT, t->at, "model has more than %d weights and states",
                        QGC_LOAD_MAX_TENSORS);
    qgc_dtype dtype = t->otherwise;
    if (t->dtype && !list)
        QGC_TRY(read_dtype(ld, t->dtype, t, &dtype));
    t->values = qgc_arena_array(ld->arena, (size_t)t->count, sizeof(qgc_value *));
    for (int i = 0; i < t->count; i++) {
        if (list)
            QGC_TRY(read_dtype(ld, list->items[i], t, &dtype));
        qgc_value *v = qgc_graph_value(ld->g, t->kind, t->name, t->at);
        v->dtype = dtype;
        v->shape = t->shape;
        v->decl = t->decl;
        if (t->index) {
            v->repeat = t->repeat;
            v->layer = t->turns ? t->turns[i] : i;
        }
        QGC_TRY(read_ring(ld, t, i, v));
        t->values[i] = v;
    }
    return QGC_OK;
}

/* A name that no iteration has anything of. */
static qgc_status declare_absent(qgc_loader *ld, const qgc_yaml *key, const tensors *t) {
    qgc_symbol *symbol;
    QGC_TRY(qgc_load_declare(ld, t->name, t->kind, key->at, &symbol));
    symbol->when = t->when;
    return QGC_OK;
}

static qgc_status read_tensors(qgc_loader *ld, const qgc_yaml *key, const qgc_yaml *entry, tensors *t) {
    const qgc_yaml *shape;
    QGC_TRY(read_count(ld, entry, t));
    QGC_TRY(qgc_load_required(ld, entry, qgc_arena_printf(ld->arena, "%s \"%s\"", t->what, t->name), "shape",
                              &shape));
    QGC_TRY(choose_turns(ld, entry, t));
    if (t->count == 0) /* its shape may make no sense, or have no value */
        return declare_absent(ld, key, t);
    QGC_TRY(read_shape(ld, shape, t->kind == QGC_WEIGHT ? "a weight" : "a state",
                       t->kind == QGC_WEIGHT ? "" : "ctx", &t->shape));
    t->dtype = qgc_yaml_get(entry, "dtype");
    t->otherwise = t->shape.rank == 1 ? QGC_F32 : QGC_BF16;
    t->ring = t->kind == QGC_STATE ? qgc_yaml_get(entry, "ring") : NULL;
    qgc_symbol *symbol;
    QGC_TRY(qgc_load_declare(ld, t->name, t->kind, key->at, &symbol));
    symbol->when = t->when;
    QGC_TRY(make_values(ld, t));
    symbol->decl = t->decl;
    if (!t->index)
        symbol->now = t->values[0];
    return QGC_OK;
}

/* Weights. */

/* A name of tensors in weights files. "{l}" stands for the iteration and has to be there if there are several; "{e}", if the
 * weight is made of several tensors, for each of them. */
static qgc_status read_tensor_name(qgc_loader *ld, const qgc_yaml *node, const tensors *t, const char *each,
                                   const char **out) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, "tensor name"));
    if (!node->text[0])
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "tensor name is empty");
    const char *wanted = t->index ? qgc_arena_printf(ld->arena, "{%s}", t->index) : NULL;
    const char *other = each ? qgc_arena_printf(ld->arena, "{%s}", each) : NULL;
    const char *brace = strpbrk(node->text, "{}");
    if (wanted && !strstr(node->text, wanted))
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "tensor name \"%s\" does not hold \"%s\"", node->text,
                        wanted);
    if (other && !strstr(node->text, other))
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "tensor name \"%s\" does not hold \"%s\"", node->text,
                        other);
    for (; brace; brace = strpbrk(brace, "{}")) {
        if (other && strncmp(brace, other, strlen(other)) == 0) {
            brace += strlen(other);
            continue;
        }
        if (!wanted || strncmp(brace, wanted, strlen(wanted)) != 0)
            return qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                            "tensor name \"%s\" has a brace that is not part of \"%s\"", node->text,
                            wanted ? wanted : "{l}");
        brace += strlen(wanted);
    }
    *out = node->text;
    return QGC_OK;
}

/* `rows: [a, b], of: n` */
static qgc_status read_rows(qgc_loader *ld, const qgc_yaml *node, qgc_tensor_form *form) {
    const qgc_yaml *rows = qgc_yaml_get(node, "rows"), *of = qgc_yaml_get(node, "of");
    if (!rows && of)
        return qgc_fail(ld->d, QGC_ERR_INPUT, of->at, "\"of\" stands without \"rows\"");
    if (!rows)
        return QGC_OK;
    QGC_TRY(qgc_load_expect(ld, rows, QGC_YAML_LIST, "rows"));
    if (rows->n != 2)
        return qgc_fail(ld->d, QGC_ERR_INPUT, rows->at,
                        "rows has %zu numbers, expected the first and the one after the last", rows->n);
    QGC_TRY(qgc_load_whole(ld, rows->items[0], (qgc_expr_range){"row", 0, max_dim}, &form->first));
    QGC_TRY(
        qgc_load_whole(ld, rows->items[1], (qgc_expr_range){"row", form->first + 1, max_dim}, &form->last));
    return of ? qgc_load_whole(ld, of, (qgc_expr_range){"of", form->last, max_dim}, &form->of) : QGC_OK;
}

/* `each: {e: experts}` */
static qgc_status read_each(qgc_loader *ld, const qgc_yaml *each, qgc_tensor_form *form) {
    if (!each)
        return QGC_OK;
    QGC_TRY(qgc_load_expect(ld, each, QGC_YAML_MAP, "each"));
    if (each->n != 1)
        return qgc_fail(ld->d, QGC_ERR_INPUT, each->at, "each has %zu indices, expected one", each->n);
    QGC_TRY(qgc_load_check_name(ld, each->keys[0], "index"));
    form->stacked_index = each->keys[0]->text;
    return qgc_load_whole(ld, each->items[0], (qgc_expr_range){"count", 1, QGC_LOAD_MAX_TENSORS},
                          &form->stacked);
}

/* What a flag, a number of heads or an addend says; `out` is what it is without. */
static qgc_status read_form_number(qgc_loader *ld, const qgc_yaml *node, const char *key, double *out) {
    const qgc_yaml *number = qgc_yaml_get(node, key);
    return number ? qgc_load_number(ld, number, key, out) : QGC_OK;
}

/* How a weight is made of tensors of a file, and their name: `{name: qkv.weight, rows: [0, d]}`. */
static qgc_status read_form(qgc_loader *ld, const qgc_yaml *node, const tensors *t, const char **name,
                            qgc_tensor_form *form) {
    static const char *const keys[] = {QGC_KEYS(FORM)};
    const qgc_yaml *text, *heads = qgc_yaml_get(node, "unpermute");
    double transposed = 0;
    QGC_TRY(qgc_load_check_keys(ld, node, "a tensor", keys, COUNT(keys)));
    QGC_TRY(qgc_load_required(ld, node, "tensor", "name", &text));
    QGC_TRY(read_rows(ld, node, form));
    QGC_TRY(read_each(ld, qgc_yaml_get(node, "each"), form));
    QGC_TRY(read_form_number(ld, node, "transposed", &transposed));
    QGC_TRY(read_form_number(ld, node, "plus", &form->plus));
    if (heads)
        QGC_TRY(qgc_load_whole(ld, heads, (qgc_expr_range){"unpermute", 0, max_dim}, &form->heads));
    form->transposed = transposed != 0;
    return read_tensor_name(ld, text, t, form->stacked_index, name);
}

static qgc_status read_stored(qgc_loader *ld, const qgc_yaml *node, const tensors *t, const char **name,
                              qgc_tensor_form *form) {
    if (!node)
        return QGC_OK;
    if (ld->format > 1 && node->kind == QGC_YAML_MAP)
        return read_form(ld, node, t, name, form);
    return read_tensor_name(ld, node, t, NULL, name);
}

/* A weight declared above, of which another is made. */
static qgc_status read_source(qgc_loader *ld, const qgc_yaml *node, const qgc_weight_decl *decl, int *from) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, "weight"));
    qgc_symbol *symbol = qgc_map_get(&ld->symbols, node->text);
    if (!symbol || symbol->kind != QGC_WEIGHT || symbol->decl < 0 || symbol->decl >= (int)ld->g->n_weights)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                        "weight \"%s\" is derived of \"%s\", which is no weight declared above it",
                        decl->name, node->text);
    symbol->used = true;
    *from = symbol->decl;
    return QGC_OK;
}

static qgc_status read_derived_numbers(qgc_loader *ld, const qgc_yaml *node, qgc_derivation *how) {
    const qgc_yaml *first, *last, *factor, *head_dim = qgc_yaml_get(node, "head_dim");
    const char *op = qgc_derive_name(how->kind);
    if (qgc_derive_has_range(how->kind)) {
        QGC_TRY(qgc_load_required(ld, node, op, "first", &first));
        QGC_TRY(qgc_load_required(ld, node, op, "last", &last));
        QGC_TRY(qgc_load_whole(ld, first, (qgc_expr_range){"first", 0, max_dim}, &how->first));
        QGC_TRY(qgc_load_whole(ld, last, (qgc_expr_range){"last", how->first + 1, max_dim}, &how->last));
    }
    if (qgc_derive_has_factor(how->kind)) {
        QGC_TRY(qgc_load_required(ld, node, op, "factor", &factor));
        QGC_TRY(qgc_load_number(ld, factor, "factor", &how->factor));
    }
    if (head_dim)
        QGC_TRY(qgc_load_whole(ld, head_dim, (qgc_expr_range){"head_dim", 1, max_dim}, &how->head_dim));
    return QGC_OK;
}

/* `derived: {op: scale_columns, of: [wq, norm]}` */
static qgc_status read_derived(qgc_loader *ld, const qgc_yaml *entry, qgc_weight_decl *decl) {
    static const char *const keys[] = {QGC_KEYS(DERIVED)};
    static const char *const others[] = {"gguf", "hf", "tied"};
    const qgc_yaml *node = qgc_yaml_get(entry, "derived"), *op, *of;
    qgc_derivation *how = &decl->derived;
    if (!node)
        return QGC_OK;
    for (size_t i = 0; i < COUNT(others); i++)
        if (qgc_yaml_get(entry, others[i]))
            return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "weight \"%s\" is derived, and has \"%s\" too",
                            decl->name, others[i]);
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_MAP, "derived"));
    QGC_TRY(qgc_load_check_keys(ld, node, "a derived weight", keys, COUNT(keys)));
    QGC_TRY(qgc_load_required(ld, node, "derived", "op", &op));
    QGC_TRY(qgc_load_required(ld, node, "derived", "of", &of));
    QGC_TRY(qgc_load_expect(ld, op, QGC_YAML_SCALAR, "op"));
    QGC_TRY(qgc_load_expect(ld, of, QGC_YAML_LIST, "of"));
    how->kind = qgc_derive_named(op->text);
    if (how->kind == QGC_DERIVE_NONE) {
        const char *words[QGC_N_DERIVE];
        for (int i = 1; i < QGC_N_DERIVE; i++)
            words[i - 1] = qgc_derive_name((qgc_derive_kind)i);
        const qgc_status s =
            qgc_fail(ld->d, QGC_ERR_INPUT, op->at, "weights are not derived by \"%s\"", op->text);
        qgc_load_hint_nearest(ld->d, op->text, words, QGC_N_DERIVE - 1);
        return s;
    }
    if (of->n > QGC_MAX_SOURCES)
        return qgc_fail(ld->d, QGC_ERR_INPUT, of->at,
                        "weight \"%s\" is derived of %zu weights, at most %d can be", decl->name, of->n,
                        QGC_MAX_SOURCES);
    how->n_from = (int)of->n;
    for (int i = 0; i < how->n_from; i++)
        QGC_TRY(read_source(ld, of->items[i], decl, &how->from[i]));
    return read_derived_numbers(ld, node, how);
}

/* The declaration that was read last. */
static qgc_status check_derived(qgc_loader *ld, const tensors *t) {
    for (int i = 0; i < t->count; i++) {
        qgc_value *v = t->values[i];
        qgc_tensor made = {.name = NULL};
        const char *why = qgc_weight_misfit(ld->g, v, &made, ld->arena);
        if (!why && (made.rank != v->shape.rank ||
                     memcmp(made.shape, v->shape.dim, (size_t)made.rank * sizeof *made.shape) != 0)) {
            qgc_shape shape = {.rank = made.rank};
            memcpy(shape.dim, made.shape, sizeof shape.dim);
            why = qgc_arena_printf(ld->arena, "its shape would be %s", qgc_shape_text(&shape, ld->arena));
        }
        if (why)
            return qgc_fail(ld->d, QGC_ERR_INPUT, t->at, "weight \"%s\" cannot be derived: %s",
                            qgc_value_label(v, ld->arena), why);
        if (!t->dtype)
            v->dtype = made.dtype;
    }
    return QGC_OK;
}

static qgc_status read_weight(qgc_loader *ld, const qgc_yaml *key, const qgc_yaml *entry) {
    static const char *const keys[] = {QGC_KEYS(WEIGHT)};
    qgc_graph *g = ld->g;
    tensors t = {
        .what = "weight", .name = key->text, .kind = QGC_WEIGHT, .at = key->at, .decl = (int)g->n_weights};
    QGC_TRY(qgc_load_check_name(ld, key, "weight"));
    QGC_TRY(
        qgc_load_expect(ld, entry, QGC_YAML_MAP, qgc_arena_printf(ld->arena, "weight \"%s\"", key->text)));
    QGC_TRY(qgc_load_check_keys(ld, entry, "a weight", keys,
                                ld->format == 1 ? QGC_OLD_KEYS(WEIGHT) : COUNT(keys)));
    QGC_TRY(read_tensors(ld, key, entry, &t));
    if (t.count == 0)
        return QGC_OK;

    qgc_weight_decl decl = {.name = t.name,
                            .at = t.at,
                            .repeat = t.repeat,
                            .index = t.index,
                            .count = t.count,
                            .tied = -1,
                            .values = t.values};
    QGC_TRY(read_stored(ld, qgc_yaml_get(entry, "gguf"), &t, &decl.gguf, &decl.gguf_form));
    QGC_TRY(read_stored(ld, qgc_yaml_get(entry, "hf"), &t, &decl.hf, &decl.hf_form));
    QGC_TRY(read_derived(ld, entry, &decl));
    g->weights[g->n_weights++] = decl;
    return decl.derived.kind ? check_derived(ld, &t) : QGC_OK;
}

static bool same_turns(const qgc_weight_decl *a, const qgc_weight_decl *b) {
    bool same = a->count == b->count && a->repeat == b->repeat;
    for (int i = 0; same && i < a->count; i++)
        same = a->values[i]->layer == b->values[i]->layer;
    return same;
}

/* `tied: embed`: that weight's tensor stands in where a file has none for this one. */
static qgc_status tie(qgc_loader *ld, qgc_weight_decl *decl, const qgc_yaml *entry) {
    const qgc_yaml *node = qgc_yaml_get(entry, "tied");
    if (!node)
        return QGC_OK;
    const qgc_graph *g = ld->g;
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, "tied"));
    qgc_symbol *symbol = qgc_map_get(&ld->symbols, node->text);
    if (!symbol || symbol->kind != QGC_WEIGHT) {
        qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                                "weight \"%s\" is tied to unknown weight \"%s\"", decl->name, node->text);
        const char **words = qgc_arena_array(ld->arena, g->n_weights, sizeof *words);
        for (size_t i = 0; i < g->n_weights; i++)
            words[i] = g->weights[i].name;
        qgc_load_hint_nearest(ld->d, node->text, words, g->n_weights);
        return s;
    }
    if (symbol->decl < 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "weight \"%s\" is tied to \"%s\", which is left out",
                        decl->name, node->text);
    const qgc_weight_decl *to = &g->weights[symbol->decl];
    const qgc_shape *shape = &decl->values[0]->shape, *to_shape = &to->values[0]->shape;
    if (to->derived.kind)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "weight \"%s\" is tied to \"%s\", which is derived",
                        decl->name, to->name);
    if (to == decl)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "weight \"%s\" is tied to itself", decl->name);
    if (to->tied >= 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                        "weight \"%s\" is tied to \"%s\", which is tied itself", decl->name, to->name);
    if (!same_turns(decl, to) || !qgc_shape_equal(shape, to_shape)) {
        qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                                "weight \"%s\" is %d x %s and cannot be tied to \"%s\", which is %d x %s",
                                decl->name, decl->count, qgc_shape_text(shape, ld->arena), to->name,
                                to->count, qgc_shape_text(to_shape, ld->arena));
        qgc_note(ld->d, to->at, "weight \"%s\" is declared here", to->name);
        return s;
    }
    decl->tied = symbol->decl;
    symbol->used = true;
    return QGC_OK;
}

qgc_status qgc_load_weights(qgc_loader *ld) {
    const qgc_yaml *section = qgc_yaml_get(ld->doc, "weights");
    if (!section)
        return QGC_OK;
    qgc_graph *g = ld->g;
    g->weights = qgc_arena_array(ld->arena, section->n, sizeof *g->weights);
    for (size_t i = 0; i < section->n; i++)
        QGC_TRY(read_weight(ld, section->keys[i], section->items[i]));
    for (size_t i = 0; i < section->n; i++) {
        const qgc_symbol *symbol = qgc_map_get(&ld->symbols, section->keys[i]->text);
        if (symbol->decl >= 0)
            QGC_TRY(tie(ld, &g->weights[symbol->decl], section->items[i]));
    }
    return QGC_OK;
}

/* States. */

static qgc_status read_state(qgc_loader *ld, const qgc_yaml *key, const qgc_yaml *entry) {
    static const char *const keys[] = {QGC_KEYS(STATE)};
    qgc_graph *g = ld->g;
    const char *label = qgc_arena_printf(ld->arena, "state \"%s\"", key->text);
    tensors t = {
        .what = "state", .name = key->text, .kind = QGC_STATE, .at = key->at, .decl = (int)g->n_states};
    const qgc_yaml *dtype;
    QGC_TRY(qgc_load_check_name(ld, key, "state"));
    QGC_TRY(qgc_load_expect(ld, entry, QGC_YAML_MAP, label));
    QGC_TRY(
        qgc_load_check_keys(ld, entry, "a state", keys, ld->format == 1 ? QGC_OLD_KEYS(STATE) : COUNT(keys)));
    QGC_TRY(qgc_load_required(ld, entry, label, "dtype", &dtype));
    QGC_TRY(read_tensors(ld, key, entry, &t));
    if (t.count == 0)
        return QGC_OK;
    g->states[g->n_states++] = (qgc_state_decl){.name = t.name,
                                                .at = t.at,
                                                .repeat = t.repeat,
                                                .index = t.index,
                                                .count = t.count,
                                                .values = t.values};
    return QGC_OK;
}

qgc_status qgc_load_states(qgc_loader *ld) {
    const qgc_yaml *section = qgc_yaml_get(ld->doc, "state");
    if (!section)
        return QGC_OK;
    ld->g->states = qgc_arena_array(ld->arena, section->n, sizeof *ld->g->states);
    for (size_t i = 0; i < section->n; i++)
        QGC_TRY(read_state(ld, section->keys[i], section->items[i]));
    return QGC_OK;
}
