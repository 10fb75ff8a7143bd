#include <jansson.h>
#include <math.h>
#include <string.h>

#include "codegen/lower.h"
#include "graph/base/file.h"
#include "runtime/lab/bench.h"
#include "runtime/lab/view_impl.h"

enum { MOST_BYTES = 64 << 20, MOST_LAUNCHES = 1 << 24 };

static qgc_loc whole_file(const qgc_source *s) {
    return (qgc_loc){.source = s};
}

/* --- reading ---------------------------------------------------------------------------------------------- */

static qgc_status no_bench_file(const qgc_source *s, const char *why, qgc_diag *d) {
    qgc_status status = qgc_fail(d, QGC_ERR_INPUT, whole_file(s), "is no file of qgc bench: %s", why);
    qgc_hint(d, "qgc bench GRAPH.yaml --json=FILE writes one.");
    return status;
}

/* Times of a mode in which each launch is a kernel of the graph: of those in the file the first. */
static bool is_by_kernel(const char *mode) {
    return mode && strcmp(mode, qgc_mode_name(QGC_MODE_PERSISTENT)) != 0;
}

static bool read_kernel(json_t *row, view_kernel *out, qgc_arena *a) {
    const char *name, *kernel;
    double floor_us = 0;
    json_int_t count, bytes;
    if (json_unpack(row, "{s:s, s:s, s:I, s:F, s:I, s:F}", "name", &name, "kernel", &kernel, "count", &count,
                    "us", &out->us, "bytes", &bytes, "floor_us", &floor_us) != 0)
        return false;
    *out = (view_kernel){.name = qgc_arena_strdup(a, name),
                         .kernel = qgc_arena_strdup(a, kernel),
                         .count = (int)count,
                         .us = out->us,
                         .floor_us = floor_us,
                         .bytes = bytes};
    return count > 0 && count <= MOST_LAUNCHES && isfinite(out->us) && out->us >= 0;
}

static qgc_status read_kernels(qgc_view *v, const json_t *rows, const qgc_source *s, qgc_diag *d) {
    const char *mode = NULL;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) {
        const char *of = json_string_value(json_object_get(row, "mode"));
        if (!is_by_kernel(of) || (mode && strcmp(mode, of) != 0))
            continue;
        mode = of;
        v->kernels = qgc_arena_grow(v->arena, v->kernels, v->n_kernels, sizeof *v->kernels);
        if (!read_kernel(row, &v->kernels[v->n_kernels++], v->arena))
            return no_bench_file(s, qgc_arena_printf(d->arena, "kernels[%zu] lacks a number", i), d);
    }
    if (v->n_kernels > 0)
        return QGC_OK;
    qgc_status status = qgc_fail(d, QGC_ERR_INPUT, whole_file(s), "has no times of kernels");
    qgc_hint(d, "qgc bench --mode graph writes them, unless --no-kernels is given.");
    return status;
}

static qgc_status read_all(qgc_view *v, const json_t *all, const qgc_source *s, qgc_diag *d) {
    const char *model = json_string_value(json_object_get(all, "model"));
    const char *device = json_string_value(json_object_get(all, "device"));
    const json_t *kernels = json_object_get(all, "kernels");
    if (!model || !device || !json_is_array(kernels))
        return no_bench_file(s, "it names no model, device and kernels", d);
    if (strcmp(model, v->g->name) != 0)
        return qgc_fail(d, QGC_ERR_INPUT, whole_file(s), "has times of model \"%s\", and the graph is \"%s\"",
                        model, v->g->name);
    v->device = qgc_arena_strdup(v->arena, device);
    v->position = json_integer_value(json_object_get(all, "kernel_position"));
    return read_kernels(v, kernels, s, d);
}

static qgc_status read_file(qgc_view *v, const qgc_source *s, qgc_diag *d) {
    json_error_t wrong;
    json_t *all = json_loadb(s->text, s->bytes, JSON_REJECT_DUPLICATES, &wrong);
    if (!all)
        return no_bench_file(s, qgc_arena_printf(d->arena, "line %d is no JSON: %s", wrong.line, wrong.text),
                             d);
    qgc_status status = read_all(v, all, s, d);
    json_decref(all);
    return status;
}

/* --- whose times they are --------------------------------------------------------------------------------- */

static view_kernel *find_kernel(const qgc_view *v, const char *name, const char *kernel) {
    for (size_t i = 0; i < v->n_kernels; i++)
        if (strcmp(v->kernels[i].name, name) == 0 && strcmp(v->kernels[i].kernel, kernel) == 0)
            return &v->kernels[i];
    return NULL;
}

static qgc_status other_passes(const qgc_source *s, const char *what, const view_kernel *k, qgc_diag *d) {
    qgc_status status =
        qgc_fail(d, QGC_ERR_INPUT, whole_file(s), "%s: kernel \"%s\" (%s)", what, k->name, k->kernel);
    qgc_hint(d, "Give qgc bench and qgc view the same --passes, --skip and --weights.");
    return status;
}

static void add_time(qgc_view *v, const char *launch, const view_kernel *k) {
    view_time *t = qgc_map_get(&v->times, launch);
    if (!t) {
        t = qgc_arena_alloc(v->arena, sizeof *t);
        t->kernel = k->kernel;
        qgc_map_put(&v->times, launch, t);
    } else if (strcmp(t->kernel, k->kernel) != 0)
        t->kernel = qgc_arena_printf(v->arena, "%s, %s", t->kernel, k->kernel);
    t->us += k->us / k->count;
}

/* The launches of a decode step have to be those that were timed, each as often. */
static qgc_status match_launches(qgc_view *v, const qgc_plan *plan, const qgc_source *s, qgc_diag *d) {
    const qgc_phase *p = &plan->phases[QGC_PHASE_DECODE];
    int *counts = qgc_arena_array(d->arena, v->n_kernels, sizeof *counts);
    for (size_t i = 0; i < p->n_launches; i++) {
        const qgc_plan_launch *l = &p->launches[i];
        const char *name = qgc_bench_node(l, d->arena), *file = qgc_bench_file(plan, l);
        const view_kernel *k = find_kernel(v, name, file);
        if (!k)
            return other_passes(s, "does not have all kernels of the graph",
                                &(view_kernel){.name = name, .kernel = file}, d);
        counts[k - v->kernels]++;
        add_time(v, l->node, k);
    }
    for (size_t i = 0; i < v->n_kernels; i++)
        if (counts[i] != v->kernels[i].count)
            return other_passes(s,
                                qgc_arena_printf(d->arena, "has %d launches where the graph has %d",
                                                 v->kernels[i].count, counts[i]),
                                &v->kernels[i], d);
    return QGC_OK;
}

qgc_status qgc_view_read_times(qgc_view *v, qgc_graph *g, const char *path, qgc_diag *d) {
    qgc_source *s = qgc_arena_alloc(d->arena, sizeof *s);
    QGC_TRY(qgc_file_read(s, path, MOST_BYTES, "bench file", d));
    s->name = qgc_arena_strdup(d->arena, path);
    QGC_TRY(read_file(v, s, d));
    qgc_lowered lowered;
    QGC_TRY(qgc_lower(g, &(qgc_lower_options){.chunk = 1, .decode_only = true}, &lowered, d));
    QGC_TRY(match_launches(v, lowered.plan, s, d));
    v->bench_path = s->name;
    v->timed = true;
    return QGC_OK;
}

const view_time *view_time_of(const qgc_view *v, const view_group *group, const view_box *box) {
    if (!v->timed)
        return NULL;
    if (group)
        return qgc_map_get(&v->times, group->label);
    return qgc_map_get(
        &v->times, qgc_arena_printf(v->arena, "%s %s", qgc_ops[box->was.op].name, view_label(box, v->arena)));
}

/* --- without times ---------------------------------------------------------------------------------------- */

static void add_kernel(qgc_view *v, const char *name, const char *kernel, const view_cost *c) {
    view_kernel *k = find_kernel(v, name, kernel);
    if (!k) {
        v->kernels = qgc_arena_grow(v->arena, v->kernels, v->n_kernels, sizeof *v->kernels);
        k = &v->kernels[v->n_kernels++];
        *k = (view_kernel){.name = name, .kernel = qgc_arena_strdup(v->arena, kernel)};
    }
    k->count++;
    k->bytes += c->bytes;
    k->floor_us += c->floor_us;
}

static void add_cost(qgc_view *v, const char *launch, const view_cost *c) {
    view_cost *at = qgc_map_get(&v->costs, launch);
    if (!at) {
        at = qgc_arena_alloc(v->arena, sizeof *at);
        qgc_map_put(&v->costs, launch, at);
    }
    at->bytes += c->bytes;
    at->floor_us += c->floor_us;
}

void qgc_view_count(qgc_view *v, qgc_graph *g, const qgc_card *card) {
    enum { POSITION = 512 };
    qgc_diag quiet = qgc_diag_new(v->arena);
    qgc_lowered lowered;
    const qgc_lower_options options = {.chunk = 1, .decode_only = true, .card = card};
    const int64_t most = qgc_graph_max_positions(g);
    if (v->timed || card->bandwidth <= 0 || qgc_lower(g, &options, &lowered, &quiet) != QGC_OK)
        return;
    v->counted = true;
    v->position = most && most < POSITION ? most : POSITION;
    v->device = qgc_arena_strdup(v->arena, card->name);
    const qgc_phase *p = &lowered.plan->phases[QGC_PHASE_DECODE];
    for (size_t i = 0; i < p->n_launches; i++) {
        const qgc_plan_launch *l = &p->launches[i];
        view_cost c = {.bytes = l->weight_bytes + l->position_bytes * v->position};
        c.floor_us = 1e6 * (double)c.bytes / (double)card->bandwidth;
        add_cost(v, l->node, &c);
        add_kernel(v, qgc_bench_node(l, v->arena), qgc_bench_file(lowered.plan, l), &c);
    }
}

const view_cost *view_cost_of(const qgc_view *v, const view_group *group, const view_box *box) {
    if (!v->counted)
        return NULL;
    return qgc_map_get(&v->costs, group ? group->label
                                        : qgc_arena_printf(v->arena, "%s %s", qgc_ops[box->was.op].name,
                                                           view_label(box, v->arena)));
}
