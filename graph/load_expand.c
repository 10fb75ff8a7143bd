#include <string.h>

#include "graph/base/str.h"
#include "graph/format.def"
#include "graph/load_impl.h"

/* Format 2: lists of ops with parts and conditions in them.
 *
 *   - {part: rotate}                                     the ops of that part stand here
 *   - {part: norm, with: {x: o, w: o_norm}}              the same, and "x" of the part is "o" here
 *   - {when: qk_norm, op: rms_norm, ...}                 there where the condition is not 0
 *   - {when: dense, do: [...], else: [...]}
 *
 * In a repeat conditions are decided iteration by iteration. What is there keeps the reasons for it, for errors. */

static qgc_status expand_list(qgc_loader *ld, const qgc_yaml *list, qgc_item around, int depth,
                              qgc_items *out);

static const qgc_reason *because(qgc_loader *ld, qgc_reason reason) {
    qgc_reason *r = qgc_arena_alloc(ld->arena, sizeof *r);
    *r = reason;
    return r;
}

/* A list of ops in place of a node: of a part, `do`, `else`. */
static qgc_status check_list(qgc_loader *ld, const qgc_yaml *list, const char *what, int depth) {
    QGC_TRY(qgc_load_expect(ld, list, QGC_YAML_LIST, what));
    if (depth < QGC_LOAD_MAX_PARTS)
        return QGC_OK;
    return qgc_fail(ld->d, QGC_ERR_INPUT, list->at, "parts stand more than %d deep in one another",
                    QGC_LOAD_MAX_PARTS);
}

/* --- parts ------------------------------------------------------------------------------------------------ */

static const qgc_yaml *parts_of(const qgc_loader *ld) {
    return qgc_yaml_get(ld->doc, "parts");
}

static qgc_status unknown_part(qgc_loader *ld, const qgc_yaml *name) {
    const qgc_yaml *parts = parts_of(ld);
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, name->at, "unknown part \"%s\"", name->text);
    const char **words = qgc_arena_array(ld->arena, parts ? parts->n : 0, sizeof *words);
    for (size_t i = 0; parts && i < parts->n; i++)
        words[i] = parts->keys[i]->text;
    qgc_load_hint_nearest(ld->d, name->text, words, parts ? parts->n : 0);
    qgc_str all = qgc_str_new(ld->arena);
    for (size_t i = 0; parts && i < parts->n; i++)
        qgc_str_printf(&all, "%s%s", i ? ", " : "", words[i]);
    qgc_hint(ld->d, "The parts there are: %s.", all.bytes ? all.text : "none");
    return s;
}

static bool is_inside(const qgc_reason *reason, const char *part) {
    for (; reason; reason = reason->up)
        if (reason->part && strcmp(reason->part, part) == 0)
            return true;
    return false;
}

static bool lists(const qgc_yaml *names, const char *name) {
    if (!names)
        return false;
    if (names->kind == QGC_YAML_SCALAR)
        return strcmp(names->text, name) == 0;
    for (size_t i = 0; i < names->n; i++)
        if (lists(names->items[i], name))
            return true;
    return false;
}

/* Does a list of ops, whatever its conditions, read or make a value of that name? What it has in parts of its own is taken
 * for a yes where it hands the name on, or gives that part none. */
static bool mentions(const qgc_yaml *list, const char *name) {
    for (size_t i = 0; list && list->kind == QGC_YAML_LIST && i < list->n; i++) {
        const qgc_yaml *item = list->items[i];
        if (item->kind != QGC_YAML_MAP)
            continue;
        if (lists(qgc_yaml_get(item, "in"), name) || lists(qgc_yaml_get(item, "out"), name) ||
            qgc_yaml_get(item, "part") || mentions(qgc_yaml_get(item, "do"), name) ||
            mentions(qgc_yaml_get(item, "else"), name))
            return true;
    }
    return false;
}

static qgc_status check_with(qgc_loader *ld, const qgc_yaml *with, const qgc_yaml *name,
                             const qgc_yaml *list) {
    QGC_TRY(qgc_load_expect(ld, with, QGC_YAML_MAP, "with"));
    for (size_t i = 0; i < with->n; i++) {
        QGC_TRY(qgc_load_check_name(ld, with->keys[i], "name of the part"));
        QGC_TRY(qgc_load_expect(ld, with->items[i], QGC_YAML_SCALAR, "name of a value"));
        if (!mentions(list, with->keys[i]->text)) {
            qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, with->keys[i]->at,
                                    "part \"%s\" has no value \"%s\"", name->text, with->keys[i]->text);
            qgc_note(ld->d, list->at, "part \"%s\" is written here", name->text);
            return s;
        }
    }
    return QGC_OK;
}

static qgc_status expand_part(qgc_loader *ld, const qgc_yaml *item, qgc_item around, int depth,
                              qgc_items *out) {
    static const char *const keys[] = {QGC_KEYS(PART)};
    const qgc_yaml *name = qgc_yaml_get(item, "part"), *with = qgc_yaml_get(item, "with");
    QGC_TRY(qgc_load_check_keys(ld, item, "a part", keys, 3));
    QGC_TRY(qgc_load_expect(ld, name, QGC_YAML_SCALAR, "part"));
    const qgc_yaml *list = parts_of(ld) ? qgc_yaml_get(parts_of(ld), name->text) : NULL;
    if (!list)
        return unknown_part(ld, name);
    if (is_inside(around.reason, name->text))
        return qgc_fail(ld->d, QGC_ERR_INPUT, name->at, "part \"%s\" is put into itself", name->text);
    around.reason = because(ld, (qgc_reason){.up = around.reason, .part = name->text, .at = name->at});
    QGC_TRY(check_list(ld, list, qgc_arena_printf(ld->arena, "part \"%s\"", name->text), depth));
    if (with) {
        QGC_TRY(check_with(ld, with, name, list));
        qgc_scope *scope = qgc_arena_alloc(ld->arena, sizeof *scope);
        *scope = (qgc_scope){around.scope, with};
        around.scope = scope;
    }
    return expand_list(ld, list, around, depth + 1, out);
}

const qgc_yaml *qgc_load_renamed(qgc_loader *ld, const qgc_scope *scope, const qgc_yaml *name) {
    const char *text = name->text;
    for (; scope; scope = scope->up) {
        const qgc_yaml *outside = qgc_yaml_get(scope->with, text);
        text = outside ? outside->text : text;
    }
    if (text == name->text)
        return name;
    qgc_yaml *renamed = qgc_arena_alloc(ld->arena, sizeof *renamed);
    *renamed = (qgc_yaml){.kind = QGC_YAML_SCALAR, .at = name->at, .text = text};
    return renamed;
}

/* --- conditions ------------------------------------------------------------------------------------------- */

static qgc_status expand_choice(qgc_loader *ld, const qgc_yaml *item, qgc_item around, int depth,
                                qgc_items *out) {
    static const char *const keys[] = {QGC_KEYS(CHOICE)};
    const qgc_yaml *when = qgc_yaml_get(item, "when"), *yes = qgc_yaml_get(item, "do"),
                   *no = qgc_yaml_get(item, "else");
    double condition;
    QGC_TRY(qgc_load_check_keys(ld, item, "a choice", keys, 3));
    if (!when || !yes)
        return qgc_fail(ld->d, QGC_ERR_INPUT, item->at, "choice lacks \"%s\"", when ? "do" : "when");
    QGC_TRY(qgc_load_number(ld, when, "when", &condition));
    QGC_TRY(check_list(ld, yes, "do", depth));
    if (no)
        QGC_TRY(check_list(ld, no, "else", depth));
    around.reason = because(
        ld, (qgc_reason){.up = around.reason, .when = when, .otherwise = condition == 0, .at = when->at});
    const qgc_yaml *list = condition != 0 ? yes : no;
    return list ? expand_list(ld, list, around, depth + 1, out) : QGC_OK;
}

/* Is an op or a part with a condition of its own there? */
static qgc_status decide(qgc_loader *ld, const qgc_yaml *item, qgc_item *around, bool *is_there) {
    const qgc_yaml *when = qgc_yaml_get(item, "when");
    double condition = 1;
    if (when) {
        QGC_TRY(qgc_load_number(ld, when, "when", &condition));
        around->reason = because(ld, (qgc_reason){.up = around->reason, .when = when, .at = when->at});
    }
    *is_there = condition != 0;
    return QGC_OK;
}

static qgc_status expand_item(qgc_loader *ld, const qgc_yaml *item, qgc_item around, int depth,
                              qgc_items *out) {
    bool is_there = true;
    if (++ld->n_expanded > QGC_LOAD_MAX_ENTRIES)
        return qgc_fail(ld->d, QGC_ERR_INPUT, item->at, "parts come to more than %d entries",
                        QGC_LOAD_MAX_ENTRIES);
    QGC_TRY(qgc_load_expect(ld, item, QGC_YAML_MAP, "entry of the graph"));
    if (qgc_yaml_get(item, "do") || qgc_yaml_get(item, "else"))
        return expand_choice(ld, item, around, depth, out);
    QGC_TRY(decide(ld, item, &around, &is_there));
    if (!is_there)
        return QGC_OK;
    if (qgc_yaml_get(item, "part"))
        return expand_part(ld, item, around, depth, out);
    if (out->n == QGC_LOAD_MAX_NODES)
        return qgc_fail(ld->d, QGC_ERR_INPUT, item->at, "graph has more than %d nodes", QGC_LOAD_MAX_NODES);
    around.yaml = item;
    out->items = qgc_arena_grow(ld->arena, out->items, out->n, sizeof *out->items);
    out->items[out->n++] = around;
    return QGC_OK;
}

static qgc_status expand_list(qgc_loader *ld, const qgc_yaml *list, qgc_item around, int depth,
                              qgc_items *out) {
    for (size_t i = 0; i < list->n; i++) {
        const qgc_status s = expand_item(ld, list->items[i], around, depth, out);
        if (s != QGC_OK && around.reason)
            qgc_load_note_reason(ld, around.reason, ld->place);
        if (s != QGC_OK)
            return s;
    }
    return QGC_OK;
}

qgc_status qgc_load_expand(qgc_loader *ld, const qgc_yaml *list, qgc_items *out) {
    *out = (qgc_items){0};
    if (ld->format > 1)
        return expand_list(ld, list, (qgc_item){0}, 0, out);
    out->items = qgc_arena_array(ld->arena, list->n, sizeof *out->items);
    for (; out->n < list->n; out->n++)
        out->items[out->n] = (qgc_item){.yaml = list->items[out->n]};
    return QGC_OK;
}

void qgc_load_note_reason(qgc_loader *ld, const qgc_reason *reason, qgc_place place) {
    enum { MOST = 8 };
    if (ld->told)
        return;
    ld->told = true;
    for (int i = 0; reason && i < MOST; reason = reason->up, i++)
        if (reason->part)
            qgc_note(ld->d, reason->at, "part \"%s\" is put here", reason->part);
        else
            qgc_load_note_values(ld, reason->when, place);
}

/* --- without deciding ------------------------------------------------------------------------------------- */

typedef struct {
    qgc_loader *ld;
    void (*visit)(qgc_loader *, const qgc_yaml *);
    qgc_map *put; /* gets each name of a part that is put somewhere, with its place; NULL: nobody asks */
} walk;

static void walk_list(const walk *w, const qgc_yaml *list, int depth) {
    if (!list || list->kind != QGC_YAML_LIST || depth > QGC_LOAD_MAX_PARTS)
        return;
    for (size_t i = 0; i < list->n; i++) {
        const qgc_yaml *item = list->items[i],
                       *part = item->kind == QGC_YAML_MAP ? qgc_yaml_get(item, "part") : NULL;
        if (item->kind != QGC_YAML_MAP)
            continue;
        if (part && part->kind == QGC_YAML_SCALAR && w->put)
            qgc_map_put(w->put, part->text, qgc_yaml_get(item, "part"));
        walk_list(w, qgc_yaml_get(item, "do"), depth + 1);
        walk_list(w, qgc_yaml_get(item, "else"), depth + 1);
        walk_list(w, qgc_yaml_get(item, "body"), depth + 1);
        if (w->visit)
            w->visit(w->ld, item);
    }
}

void qgc_load_visit(qgc_loader *ld, const qgc_yaml *list, void (*visit)(qgc_loader *, const qgc_yaml *)) {
    const walk w = {.ld = ld, .visit = visit};
    const qgc_yaml *parts = parts_of(ld);
    walk_list(&w, list, 0);
    for (size_t i = 0; parts && i < parts->n; i++)
        walk_list(&w, parts->items[i], 0);
}

qgc_status qgc_load_check_parts(qgc_loader *ld) {
    const qgc_yaml *parts = parts_of(ld);
    if (ld->format == 1)
        return QGC_OK;
    qgc_map put = qgc_map_new(ld->arena);
    const walk w = {.ld = ld, .put = &put};
    walk_list(&w, qgc_yaml_get(ld->doc, "graph"), 0);
    for (size_t i = 0; parts && i < parts->n; i++)
        walk_list(&w, parts->items[i], 0);
    for (size_t i = 0; i < put.n; i++)
        if (!parts || !qgc_yaml_get(parts, put.entries[i].key))
            return unknown_part(ld, put.entries[i].value);
    for (size_t i = 0; parts && i < parts->n; i++) {
        /* of a file that is extended some may be left, where the graph is another */
        const bool is_inherited = ld->n_extends && parts->keys[i]->at.source != ld->extends[0].source;
        if (is_inherited || qgc_map_get(&put, parts->keys[i]->text))
            continue;
        return qgc_fail(ld->d, QGC_ERR_INPUT, parts->keys[i]->at, "part \"%s\" is put nowhere",
                        parts->keys[i]->text);
    }
    return QGC_OK;
}
