#include "codegen/proof.h"

#include <string.h>

#include "codegen/cache.h"
#include "codegen/cpu_sources.h"
#include "codegen/outside_phase.h"
#include "codegen/stage/stage.h"
#include "graph/base/hash.h"
#include "graph/base/str.h"

/* --- which ----------------------------------------------------------------------------------------------- */

/* What the numbers of a proof depend on: the row, shapes, types, attributes, and what runs it. */
static const char *key_of(const qgc_proof *p, qgc_arena *a) {
    const qgc_kernel_row *row = p->kernel;
    const qgc_outside_stage *o = p->of;
    qgc_str s = qgc_str_new(a);
    qgc_str_printf(&s, "proof 3\n%s\n%s\n%s\n%s\n%s\n", p->text, row->nodes, row->params, row->grid,
                   row->threads);
    qgc_str_printf(&s, "%s\n%s\n", row->starts ? row->starts : "", row->steps ? row->steps : "");
    for (int i = 0; i < p->with.n_options; i++)
        qgc_str_printf(&s, "%s\n", p->with.options[i]);
    for (int i = 0; i < o->row.n_names; i++)
        qgc_str_printf(&s, "%s %s %s\n", o->row.names[i], qgc_dtypes[qgc_outside_type(o->value[i])].name,
                       qgc_shape_text(&o->value[i]->shape, a));
    for (int i = 0; i < o->row.n_nodes; i++)
        for (int k = 0; qgc_ops[o->node[i]->op].attrs[k].name; k++)
            qgc_str_printf(&s, "%d %.17g %d\n", i, o->node[i]->attr[k].number, o->node[i]->attr[k].choice);
    for (const qgc_kernel_source *f = qgc_cpu_sources; f->name; f++)
        qgc_str_add(&s, f->text);
    return qgc_arena_printf(a, "proof-%s", qgc_hash128(s.text, s.bytes).hex);
}

static bool is_known(const qgc_proof *proofs, int n, const char *key) {
    for (int i = 0; i < n; i++)
        if (strcmp(proofs[i].key, key) == 0)
            return true;
    return false;
}

static const char *stage_name(const qgc_graph *g, const qgc_node *n, qgc_arena *a) {
    const qgc_group *group = &g->groups[n->group];
    return group->layer < 0 ? group->name : qgc_arena_printf(a, "%s[%d]", group->name, group->layer);
}

static qgc_status make_proof(const qgc_graph *g, const qgc_stage *s, qgc_proof *p, qgc_arena *a,
                             qgc_diag *d) {
    *p = (qgc_proof){.kernel = s->outside->row.row,
                     .first = s->first,
                     .stage = stage_name(g, s->first, a),
                     .of = qgc_arena_alloc(a, sizeof *p->of),
                     .entry = s->outside->row.row->name,
                     .text = s->outside->row.row->text,
                     .result = QGC_UNPROVED};
    p->file = qgc_arena_printf(a, "outside/%s.cu", p->entry);
    *p->of = *s->outside;
    QGC_TRY(qgc_outside_plan(p->of, &p->with, a, d));
    p->key = key_of(p, a);
    return QGC_OK;
}

/* The same stage by the device function of the kernel; false where it has none. */
static bool make_proof_of_phase(const qgc_proof *kernel, qgc_proof *p, qgc_arena *a) {
    qgc_phase_kernel phase;
    *p = *kernel;
    p->of = qgc_arena_alloc(a, sizeof *p->of);
    *p->of = *kernel->of;
    if (!qgc_outside_phase_kernel(p->of, &p->with, &phase, a))
        return false;
    p->file = phase.file, p->entry = phase.entry, p->text = phase.text;
    p->is_phase = true;
    p->key = key_of(p, a);
    return true;
}

qgc_status qgc_proofs_list(const qgc_graph *g, qgc_proof **out, int *n, qgc_arena *a, qgc_diag *d) {
    qgc_stage *stages;
    int n_stages = 0;
    *n = 0;
    *out = NULL;
    if (!g->n_kernels)
        return QGC_OK;
    QGC_TRY(qgc_stages_list(g, qgc_graph_uses(g, a), &stages, &n_stages, a, d));
    *out = qgc_arena_array(a, 2 * (size_t)n_stages + 2, sizeof **out);
    for (int i = 0; i < n_stages; i++) {
        if (stages[i].kind != QGC_STAGE_OUTSIDE)
            continue;
        qgc_proof kernel, phase;
        QGC_TRY(make_proof(g, &stages[i], &kernel, a, d));
        if (!is_known(*out, *n, kernel.key))
            (*out)[(*n)++] = kernel;
        if (make_proof_of_phase(&kernel, &phase, a) && !is_known(*out, *n, phase.key))
            (*out)[(*n)++] = phase;
    }
    return QGC_OK;
}

/* What is kept is why a kernel is wrong: nothing of one that is right. */

/* --- proving --------------------------------------------------------------------------------------------- */

static qgc_status prove_one(qgc_proof *p, const qgc_cache *cache, int seconds, qgc_diag *d) {
    const void *data;
    size_t bytes;
    if (cache && qgc_cache_get(cache, p->key, d->arena, &data, &bytes)) {
        p->result = bytes ? QGC_DISPROVED : QGC_PROVED;
        p->why = bytes ? qgc_arena_strndup(d->arena, data, bytes) : NULL;
        return QGC_OK;
    }
    if (!p->kernel->brought) {
        p->why = "a file brings it, and what files bring is not run on the CPU";
        return QGC_OK;
    }
    QGC_TRY(qgc_prove_on_cpu(p, cache, seconds, d));
    if (cache && !p->depends_on_time && p->result != QGC_UNPROVED)
        qgc_cache_put(cache, p->key, p->why ? p->why : "", p->why ? strlen(p->why) : 0, d->arena);
    return QGC_OK;
}

qgc_status qgc_prove(qgc_proof *proofs, int n, const qgc_prove_options *o, qgc_diag *d) {
    const qgc_cache cache = qgc_cache_open(o->cache_folder, d->arena);
    for (int i = 0; i < n; i++)
        QGC_TRY(prove_one(&proofs[i], o->no_cache ? NULL : &cache, o->seconds ? o->seconds : 60, d));
    return QGC_OK;
}

const char *qgc_proof_text(const qgc_proof *p, qgc_arena *a) {
    return qgc_arena_printf(a, "%skernel \"%s\" does not compute stage \"%s\": %s",
                            p->is_phase ? "the device function of " : "", p->kernel->name, p->stage, p->why);
}

qgc_status qgc_proof_fail(const qgc_graph *g, const qgc_proof *p, const char *where, qgc_diag *d) {
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, g->groups[p->first->group].at, "%s", qgc_proof_text(p, d->arena));
    qgc_note(d, QGC_NO_LOC, "it was run %s on random operands of the stage, beside the evaluator", where);
    return s;
}

qgc_status qgc_prove_graph(const qgc_graph *g, const qgc_prove_options *o, qgc_proof **out, int *n,
                           qgc_arena *a, qgc_diag *d) {
    QGC_TRY(qgc_proofs_list(g, out, n, a, d));
    if (*n)
        QGC_TRY(qgc_prove(*out, *n, o, d));
    for (int i = 0; i < *n; i++)
        if ((*out)[i].result == QGC_DISPROVED)
            return qgc_proof_fail(g, &(*out)[i], "on the CPU", d);
    return QGC_OK;
}

/* --- what a device has shown ----------------------------------------------------------------------------- */

void qgc_proof_put_fault(const qgc_proof *p, const char *cache_folder, const char *device, const char *why,
                         qgc_arena *a) {
    const qgc_cache cache = qgc_cache_open(cache_folder, a);
    const char *text = why ? qgc_arena_printf(a, "%s (on %s)", why, device) : "";
    qgc_cache_put(&cache, qgc_arena_printf(a, "device-%s", p->key), text, strlen(text), a);
}

const char *qgc_proof_get_fault(const qgc_proof *p, const char *cache_folder, qgc_arena *a) {
    const qgc_cache cache = qgc_cache_open(cache_folder, a);
    const void *data;
    size_t bytes;
    return qgc_cache_get(&cache, qgc_arena_printf(a, "device-%s", p->key), a, &data, &bytes) && bytes
               ? qgc_arena_strndup(a, data, bytes)
               : NULL;
}
