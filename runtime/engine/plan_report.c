#include "runtime/engine/plan_report.h"

#include "runtime/engine/report.h"
#include "runtime/mode.h"

size_t qgc_plan_early(const qgc_plan *p, qgc_phase_kind phase) {
    size_t n = 0;
    for (size_t i = 0; i < p->phases[phase].n_launches; i++)
        n += p->phases[phase].launches[i].early;
    return n;
}

static json_t *uses_json(const qgc_plan *p, const qgc_plan_launch *l) {
    json_t *uses = json_array();
    qgc_plan_use use[QGC_MAX_ARGS];
    const int n = qgc_plan_uses(l, use);
    for (int i = 0; i < n; i++)
        json_array_append_new(
            uses, json_pack("{s:s, s:b, s:b, s:b, s:b}", "buffer", p->buffers[use[i].buffer].name, "reads",
                            (use[i].access & QGC_READS) != 0, "writes", (use[i].access & QGC_WRITES) != 0,
                            "before_wait", (use[i].access & QGC_EARLY) != 0, "follows_addresses",
                            (use[i].access & QGC_FOLLOWS) != 0));
    return uses;
}

static json_t *launch_json(const qgc_plan *p, const qgc_plan_launch *l) {
    const bool kernel = l->kind == QGC_LAUNCH_KERNEL;
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:s?, s:o}", "node", l->node, "where", l->where, "kernel",
                     kernel ? p->kernels[l->kernel].name : "cuBLAS", "options",
                     kernel ? p->kernels[l->kernel].options : "", "early", l->early, "not_early",
                     l->not_early, "buffers", uses_json(p, l));
}

static json_t *phases_json(const qgc_plan *p) {
    json_t *phases = json_object();
    for (int k = 0; k < QGC_N_PHASES; k++) {
        json_t *launches = json_array();
        for (size_t i = 0; i < p->phases[k].n_launches; i++)
            json_array_append_new(launches, launch_json(p, &p->phases[k].launches[i]));
        json_object_set_new(phases, qgc_phase_name((qgc_phase_kind)k), launches);
    }
    return phases;
}

static json_t *archs_json(const qgc_plan *p) {
    json_t *archs = json_array();
    for (int i = 0; i < p->n_archs; i++)
        json_array_append_new(archs, json_string(p->archs[i]));
    return archs;
}

/* Of each architecture, why it cannot have a mode; null where it can. */
static json_t *modes_json(const qgc_plan *p, qgc_arena *a) {
    json_t *archs = json_object();
    for (int i = 0; i < p->n_archs; i++) {
        json_t *modes = json_object();
        for (int m = 0; m < QGC_N_MODES; m++) {
            const char *why = qgc_mode_refusal_on(p, (qgc_mode)m, p->archs[i], a);
            json_object_set_new(modes, qgc_mode_name((qgc_mode)m), why ? json_string(why) : json_null());
        }
        json_object_set_new(archs, p->archs[i], modes);
    }
    return archs;
}

/* Weights that are computed of others when they are loaded: by the name of each. */
static json_t *derived_json(const qgc_plan *p) {
    json_t *all = json_object();
    for (size_t i = 0; i < p->n_weights; i++) {
        const qgc_derivation *how = &p->weights[i].derived;
        if (!how->kind)
            continue;
        json_t *of = json_array();
        for (int k = 0; k < how->n_from; k++)
            json_array_append_new(of, json_string(p->weights[how->from[k]].label));
        json_object_set_new(all, p->weights[i].label,
                            json_pack("{s:s, s:o}", "op", qgc_derive_name(how->kind), "of", of));
    }
    return all;
}

qgc_status qgc_plan_json(const qgc_plan *p, const qgc_forecast *on, qgc_str *out, qgc_diag *d) {
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o, s:I, s:I, s:s?, s:o, s:o}", "model", p->name, "arch",
                  p->arch, "compiler", p->compiler, "weights", p->weights_path, "archs", archs_json(p),
                  "modes", modes_json(p, d->arena), "least_sms", (json_int_t)p->least_sms, "scratch_bytes",
                  (json_int_t)p->scratch_bytes, "not_persistent", p->not_persistent, "phases", phases_json(p),
                  "derived", derived_json(p));
    if (on && all)
        json_object_set_new(all, "on", qgc_forecast_json(on));
    return qgc_report_json(all, out, d);
}
