#include "runtime/lab/plan_report.h"

#include "runtime/lab/report.h"

const char *qgc_phase_name(qgc_phase_kind phase) {
    static const char *const names[QGC_N_PHASES] = {[QGC_PHASE_INIT] = "init",
                                                    [QGC_PHASE_PREFILL] = "prefill",
                                                    [QGC_PHASE_DECODE] = "decode",
                                                    [QGC_PHASE_PACK] = "pack",
                                                    [QGC_PHASE_PERSISTENT] = "persistent"};
    return names[phase];
}

size_t qgc_plan_early(const qgc_plan *p, qgc_phase_kind phase) {
    size_t n = 0;
    for (size_t i = 0; i < p->phases[phase].n_launches; i++)
        n += p->phases[phase].launches[i].early;
    return n;
}

static json_t *use_json(const qgc_plan *p, int buffer, int access) {
    return json_pack("{s:s, s:b, s:b, s:b, s:b}", "buffer", p->buffers[buffer].name, "reads",
                     (access & QGC_READS) != 0, "writes", (access & QGC_WRITES) != 0, "before_wait",
                     (access & QGC_EARLY) != 0, "follows_addresses", (access & QGC_FOLLOWS) != 0);
}

/* What is there for its place only is left out. */
static json_t *uses_json(const qgc_plan *p, const qgc_plan_launch *l) {
    json_t *uses = json_array();
    if (l->kind == QGC_LAUNCH_GEMM) {
        json_array_append_new(uses, use_json(p, l->a, QGC_READS));
        json_array_append_new(uses, use_json(p, l->b, QGC_READS));
        json_array_append_new(uses, use_json(p, l->c, QGC_WRITES | (l->accumulate ? QGC_READS : 0)));
        return uses;
    }
    for (int i = 0; i < l->n_args; i++)
        if (l->args[i].kind == QGC_ARG_BUFFER && l->args[i].access)
            json_array_append_new(uses, use_json(p, l->args[i].buffer, l->args[i].access));
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

qgc_status qgc_plan_json(const qgc_plan *p, qgc_str *out, qgc_diag *d) {
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:s?, s:o, s:I, s:s?, s:s?, s:o}", "model", p->name, "arch", p->arch,
                  "compiler", p->compiler, "weights", p->weights_path, "archs", archs_json(p),
                  "scratch_bytes", (json_int_t)p->scratch_bytes, "not_overlapping", p->not_overlapping,
                  "not_persistent", p->not_persistent, "phases", phases_json(p));
    return qgc_report_json(all, out, d);
}
