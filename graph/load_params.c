#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/format.def"
#include "graph/load_impl.h"

/* Parameters. Those of format 1 are numbers; those of format 2 are computed when something needs them, from what weights
 * state, or from other parameters, and per iteration of a repeat if they say so:
 *
 *   fixed        the number, whatever weights state; binding compares them
 *   keys         what the weights at hand state
 *   value        what holds if they state nothing
 */

#define COUNT(array) (sizeof(array) / sizeof *(array))

static qgc_loc text_loc(const qgc_yaml *scalar) {
    qgc_loc at = scalar->at;
    at.col += scalar->quoted;
    return at;
}

/* Reading. */

/* A scalar, or a list of scalars. */
static qgc_status read_texts(qgc_loader *ld, const qgc_yaml *node, const char *what, const char ***out,
                             int *n) {
    if (!node)
        return QGC_OK;
    const qgc_yaml *one[] = {node};
    size_t n_items = 1;
    const qgc_yaml *const *items = one;
    if (node->kind == QGC_YAML_LIST) {
        items = (const qgc_yaml *const *)node->items;
        n_items = node->n;
    }
    *out = qgc_arena_array(ld->arena, n_items, sizeof **out);
    for (size_t i = 0; i < n_items; i++) {
        QGC_TRY(qgc_load_expect(ld, items[i], QGC_YAML_SCALAR, what));
        if (!items[i]->text[0])
            return qgc_fail(ld->d, QGC_ERR_INPUT, items[i]->at,
                            "%s is empty, expected a key of weights files", what);
        (*out)[i] = items[i]->text;
    }
    *n = (int)n_items;
    return QGC_OK;
}

/* Of a repeat that the graph has, or will have. */
static qgc_status read_per(qgc_loader *ld, const qgc_yaml *per, qgc_param *p) {
    if (!per)
        return QGC_OK;
    QGC_TRY(qgc_load_check_name(ld, per, "index"));
    p->index = per->text;
    return QGC_OK;
}

static qgc_status read_param(qgc_loader *ld, const qgc_yaml *key, const qgc_yaml *entry, size_t i) {
    static const char *const keys[] = {QGC_KEYS(PARAM)};
    qgc_param *p = &ld->g->params[i];
    qgc_param_text *text = &ld->param_texts[i];
    *p = (qgc_param){.name = key->text, .value = NAN, .at = key->at};
    QGC_TRY(qgc_load_check_name(ld, key, "parameter"));
    QGC_TRY(qgc_load_expect(ld, entry, QGC_YAML_MAP, "parameter"));
    QGC_TRY(qgc_load_check_keys(ld, entry, "a parameter", keys,
                                ld->format == 1 ? QGC_OLD_KEYS(PARAM) : COUNT(keys)));
    QGC_TRY(read_texts(ld, qgc_yaml_get(entry, "gguf"), "gguf", &p->gguf, &p->n_gguf));
    QGC_TRY(read_texts(ld, qgc_yaml_get(entry, "hf"), "hf", &p->hf, &p->n_hf));
    QGC_TRY(read_texts(ld, qgc_yaml_get(entry, "words"), "word", &p->words, &p->n_words));
    text->value = qgc_yaml_get(entry, "value");
    text->fixed = qgc_yaml_get(entry, "fixed");
    text->per = qgc_yaml_get(entry, "per");
    QGC_TRY(read_per(ld, text->per, p));
    p->fixed = text->fixed || ld->format == 1;
    if (ld->format > 1 || !text->value)
        return QGC_OK;
    p->used = true;
    return qgc_load_number(ld, text->value, "value", &p->value); /* before any name is known: a number */
}

qgc_status qgc_load_params(qgc_loader *ld) {
    const qgc_yaml *section = qgc_yaml_get(ld->doc, "params");
    if (!section)
        return QGC_OK;
    qgc_graph *g = ld->g;
    g->params = qgc_arena_array(ld->arena, section->n, sizeof *g->params);
    ld->param_texts = qgc_arena_array(ld->arena, section->n, sizeof *ld->param_texts);
    for (size_t i = 0; i < section->n; i++)
        QGC_TRY(read_param(ld, section->keys[i], section->items[i], i));
    g->n_params = section->n;
    for (size_t i = 0; i < section->n; i++) {
        size_t *index = qgc_arena_alloc(ld->arena, sizeof *index);
        *index = i;
        qgc_map_put(&ld->params, section->keys[i]->text, index);
    }
    return QGC_OK;
}

/* Computing. */

static qgc_status unknown_param(qgc_loader *ld, const char *name, qgc_loc at, qgc_diag *d) {
    const qgc_graph *g = ld->g;
    int64_t dim;
    if (qgc_load_is_symbol(name, &dim))
        return qgc_fail(d, QGC_ERR_INPUT, at, "symbol \"%s\" can only stand alone, as a dimension", name);
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, at, "unknown parameter \"%s\"", name);
    const char **words = qgc_arena_array(ld->arena, g->n_params, sizeof *words);
    for (size_t i = 0; i < g->n_params; i++)
        words[i] = g->params[i].name;
    qgc_load_hint_nearest(d, name, words, g->n_params);
    return s;
}

/* What would give it one: a key in weights, or a line in a file. */
static qgc_status no_value(qgc_loader *ld, const qgc_param *p, qgc_loc at, qgc_diag *d) {
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, at, "parameter \"%s\" has no value", p->name);
    qgc_note(d, p->at, "parameter \"%s\" is declared here", p->name);
    for (size_t i = 0; i < ld->n_extends; i++)
        qgc_note(d, ld->extends[i], "this file gives it no value either");
    const qgc_load_facts *f = ld->facts;
    if (ld->format > 1 && f && (f->is_gguf ? p->n_gguf : p->n_hf) > 0)
        qgc_hint(
            d,
            "\"%s\" does not state \"%s\"; write \"%s: ...\" under \"params\" of a file that extends this one.",
            f->path, f->is_gguf ? p->gguf[0] : p->hf[0], p->name);
    else if (ld->format > 1 && !f && p->n_hf + p->n_gguf > 0)
        qgc_hint(
            d,
            "Weights state it: give them with --weights; or write \"%s: ...\" under \"params\" of a file that extends this one.",
            p->name);
    else
        qgc_hint(d, "Write \"%s: ...\" under \"params\" of a file that extends this one.", p->name);
    return s;
}

static qgc_status misstated(qgc_loader *ld, const qgc_param *p, const char *key, qgc_diag *d) {
    const qgc_load_facts *f = ld->facts;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, p->at,
                            "\"%s\" states \"%s\" as %.120s, which is no value of parameter \"%s\"", f->path,
                            key, f->shown(f->context, key, ld->arena), p->name);
    if (p->n_words == 0)
        return s;
    qgc_str all = qgc_str_new(ld->arena);
    for (int i = 0; i < p->n_words; i++)
        qgc_str_printf(&all, "%s%s", i ? ", " : "", p->words[i]);
    qgc_hint(d, "This model computes: %s.", all.text);
    return s;
}

/* What weights state, all keys alike; NAN if nothing. */
static qgc_status read_stated(qgc_loader *ld, const qgc_param *p, int turn, double *out, qgc_diag *d) {
    const qgc_load_facts *f = ld->facts;
    *out = NAN;
    if (!f)
        return QGC_OK;
    const char *const *keys = f->is_gguf ? p->gguf : p->hf, *first = NULL;
    for (int i = 0; p->index && i < (f->is_gguf ? p->n_gguf : p->n_hf); i++) {
        const size_t n = f->count(f->context, keys[i]);
        if (n > 1 && n != (size_t)p->count)
            return qgc_fail(d, QGC_ERR_INPUT, p->at,
                            "\"%s\" states %zu values as \"%s\", and there are %d iterations of \"%s\"",
                            f->path, n, keys[i], p->count, p->index);
    }
    for (int i = 0; i < (f->is_gguf ? p->n_gguf : p->n_hf); i++) {
        double number;
        const qgc_stated stated = f->number(f->context, p, keys[i], turn, &number);
        if (stated == QGC_MISSTATED)
            return misstated(ld, p, keys[i], d);
        if (stated == QGC_NOT_STATED)
            continue;
        if (first && number != *out)
            return qgc_fail(d, QGC_ERR_INPUT, p->at,
                            "\"%s\" states \"%s\" as %.10g and \"%s\" as %.10g, which are both \"%s\"",
                            f->path, first, *out, keys[i], number, p->name);
        first = keys[i];
        *out = number;
    }
    return QGC_OK;
}

/* An entry of a list with one for each iteration, or what stands for all. */
static qgc_status compute_text(qgc_loader *ld, const qgc_yaml *text, const qgc_param *p, double *out) {
    if (text->kind == QGC_YAML_LIST && p->index) {
        if (text->n != (size_t)p->count)
            return qgc_fail(ld->d, QGC_ERR_INPUT, text->at, "parameter \"%s\" has %zu values, expected %d",
                            p->name, text->n, p->count);
        text = text->items[ld->place.layer];
    }
    return qgc_load_number(ld, text, "value", out);
}

static qgc_status compute_at(qgc_loader *ld, const qgc_param *p, const qgc_param_text *text, qgc_loc at,
                             double *out) {
    if (text->fixed)
        return compute_text(ld, text->fixed, p, out);
    QGC_TRY(read_stated(ld, p, p->index ? ld->place.layer : -1, out, ld->d));
    if (!isnan(*out))
        return QGC_OK;
    if (text->value)
        return compute_text(ld, text->value, p, out);
    return no_value(ld, p, at, ld->d);
}

/* At `where`: an iteration of its repeat, or outside of repeats. */
static qgc_status compute(qgc_loader *ld, size_t i, qgc_place where, qgc_loc at) {
    qgc_param *p = &ld->g->params[i];
    qgc_param_text *text = &ld->param_texts[i];
    if (text->busy)
        return qgc_fail(ld->d, QGC_ERR_INPUT, p->at, "parameter \"%s\" is computed from itself", p->name);
    const qgc_place before = ld->place;
    qgc_frame frame = {ld->d->top, "computing parameter", p->name, p->at};
    ld->d->top = &frame;
    ld->place = where;
    text->busy = true;
    const qgc_status s = compute_at(ld, p, text, at, &p->values[p->index ? where.layer : 0]);
    text->busy = false;
    ld->place = before;
    ld->d->top = frame.up;
    return s;
}

/* Room for as many values as there are iterations. */
static qgc_status make_room(qgc_loader *ld, qgc_param *p, qgc_param_text *text) {
    const int repeat = p->index ? qgc_load_find_repeat(ld->g, p->index) : -1;
    if (p->index && repeat < 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, text->per->at, "no repeat has the index \"%s\"", p->index);
    p->count = p->index ? ld->g->repeats[repeat].count : 1;
    if (text->n_turns == p->count)
        return QGC_OK;
    text->n_turns = p->count; /* a repeat that was found to be longer: what is known is found again */
    p->values = qgc_arena_array(ld->arena, (size_t)p->count, sizeof *p->values);
    text->known = qgc_arena_array(ld->arena, (size_t)p->count, sizeof *text->known);
    return QGC_OK;
}

static qgc_status not_in_a_turn(qgc_loader *ld, const qgc_param *p, qgc_loc at) {
    qgc_status s =
        qgc_fail(ld->d, QGC_ERR_INPUT, at,
                 "parameter \"%s\" is there once for each iteration of \"%s\" and cannot be used here",
                 p->name, p->index);
    qgc_note(ld->d, p->at, "parameter \"%s\" is declared here", p->name);
    return s;
}

static qgc_status value_of(qgc_loader *ld, size_t i, qgc_loc at, double *out) {
    qgc_param *p = &ld->g->params[i];
    qgc_param_text *text = &ld->param_texts[i];
    QGC_TRY(make_room(ld, p, text));
    qgc_place where = QGC_TOP_LEVEL;
    if (p->index) {
        where = ld->place;
        if (where.repeat < 0 || strcmp(ld->g->repeats[where.repeat].index, p->index) != 0)
            return not_in_a_turn(ld, p, at);
    }
    const int turn = p->index ? where.layer : 0;
    if (!text->known[turn])
        QGC_TRY(compute(ld, i, where, at));
    text->known[turn] = p->used = true;
    *out = p->values[turn];
    return QGC_OK;
}

/* A parameter, or in format 2 the index of the repeat around. */
static qgc_status param_number(void *context, const char *name, qgc_loc at, double *out, qgc_diag *d) {
    qgc_loader *ld = context;
    const size_t *index = qgc_map_get(&ld->params, name);
    if (ld->format > 1 && ld->place.repeat >= 0 &&
        strcmp(ld->g->repeats[ld->place.repeat].index, name) == 0) {
        *out = ld->place.layer;
        return QGC_OK;
    }
    if (!index)
        return unknown_param(ld, name, at, d);
    if (ld->format > 1)
        return value_of(ld, *index, at, out);
    const qgc_param *param = &ld->g->params[*index];
    *out = param->value;
    return isnan(param->value) ? no_value(ld, param, at, d) : QGC_OK;
}

qgc_status qgc_load_number(qgc_loader *ld, const qgc_yaml *node, const char *what, double *out) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, what));
    qgc_expr_names names = {param_number, ld};
    return qgc_expr_eval(out, node->text, text_loc(node), &names, ld->d);
}

qgc_status qgc_load_whole(qgc_loader *ld, const qgc_yaml *node, qgc_expr_range range, int64_t *out) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, range.what));
    qgc_expr_names names = {param_number, ld};
    return qgc_expr_whole(out, node->text, text_loc(node), &names, range, ld->d);
}

/* Telling. */

typedef struct {
    qgc_loader *ld;
    qgc_str text;
} teller;

static qgc_status tell_number(void *context, const char *name, qgc_loc at, double *out, qgc_diag *d) {
    teller *t = context;
    QGC_TRY(param_number(t->ld, name, at, out, d));
    if (!strstr(t->text.text, qgc_arena_printf(d->arena, " %s is ", name)))
        qgc_str_printf(&t->text, "%s %s is %.10g", t->text.bytes ? "," : "", name, *out);
    return QGC_OK;
}

/* Whatever goes wrong here has been told, or is no matter. */
void qgc_load_note_values(qgc_loader *ld, const qgc_yaml *expression, qgc_place place) {
    qgc_diag *const d = ld->d, probe = qgc_diag_new(ld->arena);
    qgc_diag unread = probe;
    const qgc_place before = ld->place;
    teller t = {ld, qgc_str_new(ld->arena)};
    const qgc_expr_names names = {tell_number, &t};
    double x;
    ld->d = &unread;
    ld->place = place;
    const qgc_status s = qgc_expr_eval(&x, expression->text, text_loc(expression), &names, &unread);
    ld->d = d;
    ld->place = before;
    const bool is_name = strncmp(t.text.text, " ", 1) == 0 &&
                         strncmp(t.text.text + 1, expression->text, strlen(expression->text)) == 0;
    if (s == QGC_OK && t.text.bytes && !is_name)
        qgc_note(d, expression->at, "\"%s\" is %.10g here:%s", expression->text, x, t.text.text);
    else if (s == QGC_OK)
        qgc_note(d, expression->at, "\"%s\" is %.10g", expression->text, x);
}

/* Finishing. */

/* What a file means that states none of the keys; NULL if it has to state one, or if that cannot be told. */
static double *otherwise_of(qgc_loader *ld, const qgc_param *p, const qgc_param_text *text) {
    if (!text->value || p->n_gguf + p->n_hf == 0)
        return NULL;
    double *all = qgc_arena_array(ld->arena, (size_t)p->count, sizeof *all);
    qgc_diag *const d = ld->d;
    qgc_diag *unread = qgc_arena_alloc(ld->arena, sizeof *unread);
    *unread = qgc_diag_new(ld->arena);
    qgc_status s = QGC_OK;
    ld->d = unread;
    for (int turn = 0; turn < p->count && s == QGC_OK; turn++) {
        ld->place = p->index ? (qgc_place){qgc_load_find_repeat(ld->g, p->index), turn} : QGC_TOP_LEVEL;
        s = compute_text(ld, text->value, p, &all[turn]);
    }
    ld->place = QGC_TOP_LEVEL;
    ld->d = d;
    return s == QGC_OK ? all : NULL;
}

static qgc_status finish(qgc_loader *ld, size_t i) {
    qgc_param *p = &ld->g->params[i];
    double x;
    QGC_TRY(make_room(ld, p, &ld->param_texts[i]));
    for (int turn = 0; turn < p->count; turn++) {
        ld->place = p->index ? (qgc_place){qgc_load_find_repeat(ld->g, p->index), turn} : QGC_TOP_LEVEL;
        QGC_TRY(value_of(ld, i, p->at, &x));
    }
    ld->place = QGC_TOP_LEVEL;
    p->value = p->values[0];
    p->otherwise = otherwise_of(ld, p, &ld->param_texts[i]);
    return QGC_OK;
}

/* What is read by name, whatever expressions name it: how many positions there can be, if that is stated. */
static void finish_unnamed(qgc_loader *ld) {
    const size_t *index = qgc_map_get(&ld->params, "max_positions");
    qgc_diag *const d = ld->d;
    qgc_diag *unread = qgc_arena_alloc(ld->arena, sizeof *unread);
    *unread = qgc_diag_new(ld->arena);
    double x;
    if (!index)
        return;
    ld->d = unread;
    const qgc_status s = value_of(ld, *index, QGC_NO_LOC, &x);
    ld->g->params[*index].used |= s == QGC_OK;
    ld->d = d;
}

qgc_status qgc_load_params_finish(qgc_loader *ld) {
    if (ld->format == 1)
        return QGC_OK;
    finish_unnamed(ld);
    for (bool more = true; more;) { /* what a value is computed from is used, too */
        more = false;
        for (size_t i = 0; i < ld->g->n_params; i++) {
            if (ld->param_texts[i].finished || !(ld->g->params[i].used || ld->param_texts[i].fixed))
                continue;
            QGC_TRY(finish(ld, i));
            more = ld->param_texts[i].finished = true;
        }
    }
    return QGC_OK;
}
