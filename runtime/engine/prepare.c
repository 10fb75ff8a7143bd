#include "runtime/engine/prepare.h"

#include "runtime/engine/proof_device.h"
#include "runtime/stand_in.h"

static void show_kernels(void *context, size_t done, size_t total) {
    const qgc_prepare_options *o = context;
    o->progress(o->context, "kernels", done, total);
}

qgc_status qgc_prepare_plan(qgc_program **out, const qgc_plan *plan, const qgc_prepare_options *o,
                            qgc_diag *d) {
    const qgc_program_options program = {.arch = o->arch,
                                         .allow_unused = o->allow_unused,
                                         .share = o->share,
                                         .later = o->later,
                                         .progress = o->progress,
                                         .context = o->context,
                                         .times = o->times};
    QGC_TRY(qgc_program_load(out, plan, o->device, o->weights, o->pool, &program, d));
    const qgc_prove_options prove = {.cache_folder = o->cache_folder};
    const qgc_status status = qgc_prove_on_device(plan, o->device, qgc_program_arch(*out), &prove, d);
    if (status != QGC_OK) {
        qgc_program_drop(*out);
        *out = NULL;
    }
    return status;
}

qgc_status qgc_prepare_compiled(qgc_compiled *compiled, qgc_graph *g, const qgc_prepare_options *o,
                                qgc_diag *d) {
    qgc_prepare_options copy = *o;
    const char *arch = o->arch ? o->arch : qgc_program_arch_for(o->device, g->arena);
    const qgc_card card = qgc_card_of_device(o->device, g->arena);
    qgc_compile_options compile = {.archs = &arch,
                                   .n_archs = 1,
                                   .chunk = o->chunk,
                                   .keep_values = o->keep_values,
                                   .no_prefill = o->no_prefill,
                                   .decode_only = o->decode_only,
                                   .all_rows = o->all_rows,
                                   .no_persistent = o->no_persistent,
                                   .probe = o->probe,
                                   .cache_folder = o->cache_folder,
                                   .nvrtc_library = o->nvrtc_library,
                                   .tuning = o->tuning,
                                   .card = &card,
                                   .pool = o->pool,
                                   .progress = o->progress ? show_kernels : NULL,
                                   .context = &copy};
    if (!compile.tuning && !o->no_tuning)
        QGC_TRY(qgc_compile_find_tuning(&compile, &compile.tuning, d));
    return qgc_compile(g, &compile, compiled, d);
}

qgc_status qgc_prepare(qgc_program **out, qgc_compiled *compiled, qgc_graph *g, const qgc_prepare_options *o,
                       qgc_diag *d) {
    *out = NULL;
    QGC_TRY(qgc_prepare_compiled(compiled, g, o, d));
    return qgc_prepare_plan(out, compiled->plan, o, d);
}
