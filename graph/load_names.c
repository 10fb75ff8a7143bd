#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "graph/load.h"
#include "graph/load_impl.h"
#include "graph/ops.h"

/* All names of a file share one space: inputs, weights, states and the results of ops. A name made inside
 * of a repeat is made once in each iteration. It is read bare within its iteration, and from elsewhere as "q[3]", or
 * "q[l=3]" where repeats of several indices make it. A carried name is read bare after the repeat as well,
 * and then is what the last iteration made. */

/* A name as written: "x", "x[3]", "x[l=3]". */
typedef struct {
    const char *name;
    const char *index; /* NULL if not stated */
    long turn;         /* -1 if not stated */
} reference;

int qgc_load_find_repeat(const qgc_graph *g, const char *index) {
    for (size_t i = 0; i < g->n_repeats; i++)
        if (strcmp(g->repeats[i].index, index) == 0)
            return (int)i;
    return -1;
}

/* What a name means in an iteration, and how often it was made there. */
typedef struct {
    qgc_value *now;
    int made;
} turn_value;

_Static_assert(sizeof(qgc_place) == 2 * sizeof(int), "a place has no holes: its bytes are a key");

static turn_value *turn_of(const qgc_loader *ld, const char *name, qgc_place where) {
    const qgc_symbol *symbol = qgc_map_get(&ld->symbols, name);
    return symbol ? qgc_map_get_bytes(&symbol->turns, (const char *)&where, sizeof where) : NULL;
}

qgc_value *qgc_load_turn_value(const qgc_loader *ld, const char *name, qgc_place where) {
    const turn_value *t = turn_of(ld, name, where);
    return t ? t->now : NULL;
}

int qgc_load_turn_made(const qgc_loader *ld, const char *name, qgc_place where) {
    const turn_value *t = turn_of(ld, name, where);
    return t ? t->made : 0;
}

void qgc_load_put_turn_value(qgc_loader *ld, qgc_symbol *symbol, qgc_place where, qgc_value *v) {
    turn_value *t = turn_of(ld, symbol->name, where);
    if (!t) {
        t = qgc_arena_alloc(ld->arena, sizeof *t);
        qgc_map_put_bytes(&symbol->turns, (const char *)&where, sizeof where, t);
    }
    *t = (turn_value){v, t->made + 1};
}

static const char *word_of(const qgc_symbol *symbol) {
    return qgc_value_word(&(qgc_value){.kind = symbol->kind});
}

static void note_origin(qgc_loader *ld, const qgc_symbol *symbol) {
    qgc_note(ld->d, symbol->at, "%s \"%s\" is %s here", word_of(symbol), symbol->name,
             symbol->kind == QGC_RESULT ? "made" : "declared");
}

qgc_status qgc_load_declare(qgc_loader *ld, const char *name, qgc_value_kind kind, qgc_loc at,
                            qgc_symbol **out) {
    const qgc_symbol *old = qgc_map_get(&ld->symbols, name);
    if (old) {
        qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, at, "name \"%s\" is taken", name);
        note_origin(ld, old);
        return s;
    }
    *out = qgc_arena_alloc(ld->arena, sizeof **out);
    **out = (qgc_symbol){.name = name, .kind = kind, .at = at, .turns = qgc_map_new(ld->arena), .decl = -1};
    qgc_map_put(&ld->symbols, name, *out);
    return QGC_OK;
}

/* `what` is "value" or "group". */
static qgc_status not_a_reference(qgc_loader *ld, const qgc_yaml *node, const char *what) {
    qgc_status s =
        qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "\"%s\" is not the name of a %s", node->text, what);
    qgc_hint(ld->d, "A %s is written \"x\", \"x[3]\" or \"x[l=3]\".", what);
    return s;
}

static qgc_status parse_reference(qgc_loader *ld, const qgc_yaml *node, const char *what, reference *out) {
    const char *text = node->text, *open = strchr(text, '[');
    *out = (reference){.name = text, .turn = -1};
    if (text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")] && !open)
        return not_a_reference(ld, node, what);
    if (strlen(text) > QGC_LOAD_MAX_NAME + (open ? strlen(open) : 0))
        return not_a_reference(ld, node, what);
    if (!open)
        return QGC_OK;
    out->name = qgc_arena_strndup(ld->arena, text, (size_t)(open - text));
    const char *number = open + 1, *equals = strchr(open, '=');
    if (equals) {
        out->index = qgc_arena_strndup(ld->arena, number, (size_t)(equals - number));
        number = equals + 1;
    }
    char *end;
    out->turn = strtol(number, &end, 10);
    if (!isdigit((unsigned char)*number) || strcmp(end, "]") != 0 || end - number > 6)
        return not_a_reference(ld, node, what);
    return QGC_OK;
}

static qgc_status unknown(qgc_loader *ld, const qgc_yaml *node, const char *name) {
    const qgc_loc *later = qgc_map_get(&ld->makers, name);
    if (later) {
        qgc_status s =
            qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "value \"%s\" is used before it is made", name);
        qgc_note(ld->d, *later, "value \"%s\" is made here", name);
        qgc_hint(ld->d,
                 "A graph has no cycles; what one iteration of a repeat hands to the next is listed in its "
                 "\"carry\".");
        return s;
    }
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "unknown value \"%s\"", name);
    size_t n = 0;
    const char **words = qgc_arena_array(ld->arena, ld->symbols.n + ld->makers.n, sizeof *words);
    for (size_t i = 0; i < ld->symbols.n; i++)
        words[n++] = ld->symbols.entries[i].key;
    for (size_t i = 0; i < ld->makers.n; i++)
        words[n++] = ld->makers.entries[i].key;
    qgc_load_hint_nearest(ld->d, name, words, n);
    return s;
}

/* The values of a weight or a state with one for each iteration; NULL for anything else. */
static qgc_value **declared_turns(const qgc_loader *ld, const qgc_symbol *symbol, int *repeat, int *count) {
    const qgc_graph *g = ld->g;
    if (symbol->decl < 0)
        return NULL;
    if (symbol->kind == QGC_WEIGHT && g->weights[symbol->decl].index) {
        *repeat = g->weights[symbol->decl].repeat;
        *count = g->weights[symbol->decl].count;
        return g->weights[symbol->decl].values;
    }
    if (symbol->kind == QGC_STATE && g->states[symbol->decl].index) {
        *repeat = g->states[symbol->decl].repeat;
        *count = g->states[symbol->decl].count;
        return g->states[symbol->decl].values;
    }
    return NULL;
}

/* That of one iteration; NULL if that iteration has none. */
static qgc_value *value_of_turn(qgc_value *const *values, int count, long turn) {
    for (int i = 0; i < count; i++)
        if (values[i]->layer == turn)
            return values[i];
    return NULL;
}

static qgc_status no_such_turn(qgc_loader *ld, const qgc_yaml *node, const qgc_symbol *symbol, long turn) {
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "%s \"%s\" has no iteration %ld here",
                            word_of(symbol), symbol->name, turn);
    note_origin(ld, symbol);
    return s;
}

static qgc_status resolve_turn(qgc_loader *ld, const qgc_yaml *node, const reference *ref,
                               const qgc_symbol *symbol, qgc_value **out) {
    int repeat, count;
    int wanted = ref->index ? qgc_load_find_repeat(ld->g, ref->index) : -1;
    if (ref->index && wanted < 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "no repeat has the index \"%s\"", ref->index);
    qgc_value **values = declared_turns(ld, symbol, &repeat, &count);
    if (values) {
        *out = value_of_turn(values, count, ref->turn);
        if (!*out || (ref->index && wanted != repeat))
            return no_such_turn(ld, node, symbol, ref->turn);
        return QGC_OK;
    }
    *out = NULL;
    for (int r = 0; r < (int)ld->g->n_repeats; r++) {
        if (ref->index && r != wanted)
            continue;
        qgc_value *v = qgc_load_turn_value(ld, ref->name, (qgc_place){r, (int)ref->turn});
        if (v && *out) {
            qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                                    "value \"%s[%ld]\" is made by several repeats", ref->name, ref->turn);
            qgc_hint(ld->d, "Name the index too: \"%s[%s=%ld]\".", ref->name, ld->g->repeats[r].index,
                     ref->turn);
            return s;
        }
        if (v)
            *out = v;
    }
    return *out ? QGC_OK : no_such_turn(ld, node, symbol, ref->turn);
}

static qgc_status not_outside(qgc_loader *ld, const qgc_yaml *node, const qgc_symbol *symbol) {
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                            "%s \"%s\" is there once for each iteration and cannot be used here",
                            word_of(symbol), symbol->name);
    note_origin(ld, symbol);
    qgc_hint(ld->d,
             symbol->kind == QGC_RESULT
                 ? "List it in \"carry\" to use the last one, or name an iteration: \"%s[0]\"."
                 : "Outside of its repeat an iteration is named: \"%s[0]\".",
             symbol->name);
    return s;
}

static qgc_status resolve_bare(qgc_loader *ld, const qgc_yaml *node, qgc_symbol *symbol, qgc_place where,
                               qgc_value **out) {
    int repeat, count;
    qgc_value **values = declared_turns(ld, symbol, &repeat, &count);
    if (values) {
        if (repeat != where.repeat)
            return not_outside(ld, node, symbol);
        *out = value_of_turn(values, count, where.layer);
        return *out || symbol->when ? QGC_OK : no_such_turn(ld, node, symbol, where.layer);
    }
    if (symbol->when && symbol->decl < 0) {
        *out = NULL;
        return QGC_OK;
    }
    *out = where.repeat >= 0 ? qgc_load_turn_value(ld, symbol->name, where) : NULL;
    if (!*out)
        *out = symbol->now;
    return *out ? QGC_OK : not_outside(ld, node, symbol);
}

qgc_status qgc_load_resolve(qgc_loader *ld, const qgc_yaml *node, qgc_place where, qgc_value **out) {
    reference ref;
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, "input"));
    QGC_TRY(parse_reference(ld, node, "value", &ref));
    qgc_symbol *symbol = qgc_map_get(&ld->symbols, ref.name);
    if (!symbol)
        return unknown(ld, node, ref.name);
    symbol->used = true;
    if (ref.turn >= 0)
        return resolve_turn(ld, node, &ref, symbol, out);
    return resolve_bare(ld, node, symbol, where, out);
}

/* The iteration of "qkv[3]", "qkv[l=3]". */
static qgc_status turn_of_group(qgc_loader *ld, const qgc_yaml *node, const reference *ref, qgc_place *out) {
    const qgc_graph *g = ld->g;
    out->repeat = ref->index ? qgc_load_find_repeat(g, ref->index) : 0;
    out->layer = (int)ref->turn;
    if (out->repeat < 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "no repeat has the index \"%s\"", ref->index);
    if (!ref->index && g->n_repeats > 1) {
        qgc_status s =
            qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "group \"%s\" may be of several repeats", node->text);
        qgc_hint(ld->d, "Name the index too: \"%s[%s=%ld]\".", ref->name, g->repeats[0].index, ref->turn);
        return s;
    }
    if (g->n_repeats == 0 || ref->turn >= g->repeats[out->repeat].count)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "group \"%s\" has no iteration %ld here", ref->name,
                        ref->turn);
    return QGC_OK;
}

/* Of "qkv@mine", where `at` is the "@": the kernel from outside that computes the group. */
static qgc_status kernel_of_group(qgc_loader *ld, const qgc_yaml *node, const char *at,
                                  const qgc_kernel_row **out) {
    *out = at ? qgc_graph_kernel(ld->g, at + 1) : NULL;
    if (!at || *out)
        return QGC_OK;
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "unknown kernel \"%s\"", at + 1);
    qgc_hint(ld->d, "Kernels from outside are declared under \"kernels\".");
    return s;
}

/* All nodes of a group name the same kernel, or none does. */
static qgc_status put_kernel(qgc_loader *ld, const qgc_yaml *node, size_t n_before, int group,
                             const qgc_kernel_row *kernel) {
    qgc_group *at = &ld->g->groups[group];
    if ((size_t)group >= n_before)
        at->kernel = kernel;
    if (at->kernel == kernel)
        return QGC_OK;
    qgc_status s =
        qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "group \"%s\" is of another kernel here", at->name);
    qgc_note(ld->d, at->at, "it is first named here");
    return s;
}

qgc_status qgc_load_group(qgc_loader *ld, const qgc_yaml *node, qgc_place where, int *group) {
    reference ref;
    const qgc_kernel_row *kernel;
    const size_t n_before = ld->g->n_groups;
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, "fuse"));
    const char *at = strchr(node->text, '@');
    QGC_TRY(kernel_of_group(ld, node, at, &kernel));
    qgc_yaml own = *node;
    own.text = at ? qgc_arena_strndup(ld->arena, node->text, (size_t)(at - node->text)) : node->text;
    QGC_TRY(parse_reference(ld, &own, "group", &ref));
    const qgc_yaml name = {.kind = QGC_YAML_SCALAR, .at = node->at, .text = ref.name};
    QGC_TRY(qgc_load_check_name(ld, &name, "group"));
    if (ref.turn >= 0)
        QGC_TRY(turn_of_group(ld, node, &ref, &where));
    *group = qgc_graph_group(ld->g, ref.name, where.repeat, where.layer, node->at);
    return put_kernel(ld, node, n_before, *group, kernel);
}
