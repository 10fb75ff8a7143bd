#include <assert.h>
#include <ctype.h>
#include <string.h>

#include "graph/print_impl.h"

enum { MAX_NAME = 48 }; /* the loader takes 63; the rest is for a number after it */

static const char *turn_key(printer *p, const char *name, int repeat, int layer) {
    return qgc_arena_printf(p->scratch, "%s/%d/%d", name, repeat, layer);
}

/* Letters, digits and _; no digit first; none of the symbols of shapes. */
const char *qgc_print_legal(qgc_arena *a, const char *name) {
    bool add = !name[0] || isdigit((unsigned char)name[0]) || strcmp(name, "T") == 0 ||
               strcmp(name, "R") == 0 || strcmp(name, "ctx") == 0;
    char *text = qgc_arena_printf(a, "%s%.*s", add ? "_" : "", MAX_NAME, name);
    for (char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c))
            *c = '_';
    return text;
}

/* Classes. Two results of one name in one iteration are of two classes. */
static int class_named(printer *p, qgc_map *index, const qgc_value *v) {
    int repeat = v->layer < 0 ? -1 : v->repeat;
    for (int copy = 0;; copy++) {
        const char *key = qgc_arena_printf(p->scratch, "%s/%d/%d", v->name, repeat, copy);
        int *found = qgc_map_get(index, key);
        if (!found) {
            found = qgc_arena_alloc(p->scratch, sizeof *found);
            *found = p->n_classes;
            qgc_map_put(index, key, found);
            p->classes = qgc_arena_grow(p->scratch, p->classes, (size_t)p->n_classes, sizeof *p->classes);
            p->classes[p->n_classes++] =
                (print_class){.base = qgc_print_legal(p->scratch, v->name), .repeat = repeat};
        }
        const char *turn = qgc_arena_printf(p->scratch, "%s/%d/%d/%d", v->name, repeat, copy, v->layer);
        if (qgc_map_put(index, turn, found))
            return *found;
    }
}

void qgc_print_classes(printer *p) {
    const qgc_graph *g = p->g;
    qgc_map index = qgc_map_new(p->scratch);
    p->class_of = qgc_arena_array(p->scratch, g->n_values, sizeof *p->class_of);
    p->used = qgc_arena_array(p->scratch, g->n_values, sizeof *p->used);
    for (size_t i = 0; i < g->n_values; i++)
        p->class_of[i] = -1;
    for (const qgc_node *n = g->first; n; n = n->next) {
        for (int i = 0; i < n->n_in; i++)
            p->used[n->in[i]->id] = true;
        for (int i = 0; i < n->n_out; i++)
            p->class_of[n->out[i]->id] = class_named(p, &index, n->out[i]);
    }
}

/* Names. */

static const char *take(printer *p, const char *base) {
    const char *name = base;
    for (int i = 2; !qgc_map_put(&p->taken, name, p); i++)
        name = qgc_arena_printf(p->scratch, "%s_%d", base, i);
    return name;
}

static void name_declarations(printer *p) {
    const qgc_graph *g = p->g;
    for (size_t i = 0; i < g->n_inputs; i++)
        qgc_map_put(&p->taken, g->inputs[i]->name, p);
    p->weight_names = qgc_arena_array(p->scratch, g->n_weights, sizeof *p->weight_names);
    for (size_t i = 0; i < g->n_weights; i++)
        if (p->weight_printed[i])
            p->weight_names[i] = take(p, qgc_print_legal(p->scratch, g->weights[i].name));
    p->state_names = qgc_arena_array(p->scratch, g->n_states, sizeof *p->state_names);
    for (size_t i = 0; i < g->n_states; i++)
        if (p->state_printed[i])
            p->state_names[i] = take(p, qgc_print_legal(p->scratch, g->states[i].name));
}

static void name_single(printer *p, const qgc_value *v, qgc_map *singles) {
    print_class *c = &p->classes[p->class_of[v->id]];
    if (c->repeat >= 0 || c->name)
        return;
    c->name = take(p, c->base);
    const qgc_value **cell = qgc_arena_alloc(p->scratch, sizeof(qgc_value *));
    *cell = v;
    qgc_map_put(singles, c->name, cell);
}

static bool makes(const printer *p, const print_run *run, int class, int *node) {
    const print_section *section = &p->sections[run->first];
    for (int k = 0; k < section->n_nodes; k++)
        for (int i = 0; i < section->nodes[k]->n_out; i++)
            if (p->class_of[section->nodes[k]->out[i]->id] == class) {
                *node = k;
                return true;
            }
    return false;
}

/* Does a read of `v` by node k of the first section of `run` keep its meaning if the run carries a value of
 * the same name, made by node `maker`? */
static bool read_before(const printer *p, const print_run *run, int k, int i, int maker) {
    if (run->n_sections == 1)
        return k <= maker;
    const qgc_value *next = p->sections[run->first + 1].nodes[k]->in[i];
    return qgc_print_origin(p, run->first + 1, next).kind == FROM_PREVIOUS;
}

/* May the results of `class` be called like the single result `v`? Only as the carried value that starts
 * as v, with nobody reading v afterwards: its name is gone then. */
static bool may_share(const printer *p, int class, const qgc_value *v) {
    int maker = 0, r = 0;
    while (!makes(p, &p->runs[r], class, &maker))
        r++;
    const print_run *run = &p->runs[r];
    if (p->section_of[v->maker->id] >= run->first)
        return false;
    for (int i = 0; i < run->n_carries; i++) {
        const print_carry *c = &run->carries[i];
        const qgc_node *n = p->sections[run->first].nodes[c->node];
        if (p->class_of[n->out[c->out]->id] == class && c->start != v)
            return false;
    }
    for (int k = run->first; k < p->n_sections; k++)
        for (int n = 0; n < p->sections[k].n_nodes; n++)
            for (int i = 0; i < p->sections[k].nodes[n]->n_in; i++)
                if (p->sections[k].nodes[n]->in[i] == v &&
                    !(k == run->first && read_before(p, run, n, i, maker)))
                    return false;
    for (size_t i = 0; i < p->g->n_outputs; i++)
        if (p->g->outputs[i] == v)
            return false;
    return true;
}

/* Names of single results, and those given to results of repeats; both with what they are given to. */
typedef struct {
    qgc_map singles; /* name to const qgc_value ** */
    qgc_map hidden;  /* names of singles that a repeat took over: any later one may have them */
    qgc_map layered; /* (name, repeat) */
} given;

/* Classes come in the order in which the text makes them. */
static void name_class(printer *p, int class, given *names) {
    print_class *c = &p->classes[class];
    if (c->name)
        return;
    const char *name = c->base;
    for (int i = 2;; i++) {
        const qgc_value **single = qgc_map_get(&names->singles, name);
        bool is_free = !qgc_map_get(&p->taken, name) || qgc_map_get(&names->hidden, name) ||
                       (single && may_share(p, class, *single));
        if (is_free && qgc_map_put(&names->layered, turn_key(p, name, c->repeat, 0), p)) {
            if (single)
                qgc_map_put(&names->hidden, name, p);
            break;
        }
        name = qgc_arena_printf(p->scratch, "%s_%d", c->base, i);
    }
    c->name = name;
}

void qgc_print_names(printer *p) {
    const qgc_graph *g = p->g;
    given names = {qgc_map_new(p->scratch), qgc_map_new(p->scratch), qgc_map_new(p->scratch)};
    name_declarations(p);
    for (size_t i = 0; i < g->n_outputs; i++)
        name_single(p, g->outputs[i], &names.singles);
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            name_single(p, n->out[i], &names.singles);
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            name_class(p, p->class_of[n->out[i]->id], &names);
}

/* References. */

const char *qgc_print_name(const printer *p, const qgc_value *v) {
    switch (v->kind) {
    case QGC_INPUT:
        return v->name;
    case QGC_WEIGHT:
        return p->weight_names[v->decl];
    case QGC_STATE:
        return p->state_names[v->decl];
    case QGC_RESULT:
        break;
    }
    return p->classes[p->class_of[v->id]].name;
}

const qgc_value *qgc_print_now(const printer *p, const char *name) {
    const qgc_value **cell = qgc_map_get(&p->now, name);
    return cell ? *cell : NULL;
}

void qgc_print_set_now(printer *p, const char *name, const qgc_value *v) {
    const qgc_value **cell = qgc_map_get(&p->now, name);
    if (!cell) {
        cell = qgc_arena_alloc(p->scratch, sizeof(qgc_value *));
        qgc_map_put(&p->now, name, cell);
    }
    *cell = v;
}

void qgc_print_made(printer *p, const qgc_value *v) {
    qgc_value **cell = qgc_arena_alloc(p->scratch, sizeof(qgc_value *));
    *cell = v->maker->out[v->out];
    qgc_map_put(&p->made, turn_key(p, qgc_print_name(p, v), v->repeat, v->layer), cell);
}

static const qgc_value *made_in(printer *p, const char *name, int repeat, int layer) {
    qgc_value **cell = qgc_map_get(&p->made, turn_key(p, name, repeat, layer));
    return cell ? *cell : NULL;
}

/* What the loader finds under the bare name in every iteration of the run; NULL if iterations differ. */
static const qgc_value *bare(printer *p, const char *name, const print_run *run) {
    const qgc_value *now = qgc_print_now(p, name);
    if (!run)
        return now;
    const print_section *section = &p->sections[run->first];
    const qgc_value *found = made_in(p, name, section->repeat, section->layer);
    if (run->n_sections == 1)
        return found ? found : now;
    for (int i = 0; i < section->n_nodes; i++)
        for (int k = 0; k < section->nodes[i]->n_out; k++)
            if (strcmp(qgc_print_name(p, section->nodes[i]->out[k]), name) == 0)
                return NULL;
    for (int turn = 0; turn < run->n_sections; turn++)
        if (made_in(p, name, section->repeat, section->layer + turn))
            return NULL;
    return now;
}

const char *qgc_print_reference(printer *p, const qgc_value *v, const print_run *run) {
    const char *name = qgc_print_name(p, v);
    if (v->layer < 0)
        return name;
    bool declared = v->kind == QGC_WEIGHT || v->kind == QGC_STATE;
    if (declared && run && qgc_print_origin(p, run->first, v).kind == FROM_TURN)
        return name;
    if (!declared && bare(p, name, run) == v)
        return name;
    bool several = false;
    for (int r = 0; !declared && r < (int)p->g->n_repeats; r++)
        several = several || (r != v->repeat && made_in(p, name, r, v->layer));
    if (several)
        return qgc_arena_printf(p->scratch, "\"%s[%s=%d]\"", name, p->g->repeats[v->repeat].index, v->layer);
    return qgc_arena_printf(p->scratch, "\"%s[%d]\"", name, v->layer);
}
