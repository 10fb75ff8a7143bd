#include "runtime/engine/measured.h"

#include <string.h>

#include "codegen/tuning.h"
#include "graph/base/file.h"
#include "runtime/engine/engine_impl.h"
#include "runtime/stand_in.h"

/* The times of the program's steps by mode; false: there are none. */
static bool read_times(qgc_engine *e, double us[QGC_N_MODES], qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    qgc_tuning tuning;
    const qgc_card card = qgc_card_of_device(e->device, a);
    const char *arch = qgc_program_arch(e->program),
               *path = qgc_tuning_path(e->options.cache_folder, arch, qgc_card_key(&card, a), a);
    const char *key = qgc_mode_key(qgc_program_plan(e->program), a);
    bool any = false;
    if (!path || !qgc_file_exists(path))
        return false;
    if (qgc_tuning_read(&tuning, path, arch, &d) != QGC_OK) {
        qgc_engine_note(e, qgc_arena_printf(a, "times of modes are not used: %s", qgc_diag_message(&d)));
        return false;
    }
    for (int m = 0; m < QGC_N_MODES; m++) {
        us[m] = 1e-3 * (double)qgc_tuning_time(&tuning, key, qgc_mode_name((qgc_mode)m));
        any = any || us[m] > 0;
    }
    return any;
}

qgc_status qgc_engine_choose_mode(qgc_engine *e, const char *name, int64_t ctx, qgc_mode_choice *out,
                                  qgc_diag *d) {
    double us[QGC_N_MODES];
    if ((!name || strcmp(name, "auto") == 0) && read_times(e, us, d->arena)) {
        *out = qgc_mode_measured(e->program, ctx, us, d->arena);
        return QGC_OK;
    }
    return qgc_mode_choose(e->program, name ? name : "auto", ctx, out, d);
}
