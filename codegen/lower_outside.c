#include <math.h>
#include <string.h>

#include "codegen/launch.h"
#include "codegen/lower_impl.h"
#include "codegen/outside_phase.h"

/* --- numbers of a row ------------------------------------------------------------------------------------ */

typedef struct {
    const qgc_outside_stage *o;
    qgc_arena *arena;
    qgc_diag *d;
} planning;

static qgc_status wrong(const planning *p, const char *what, const char *expression, const char *why) {
    return qgc_fail(p->d, QGC_ERR_INPUT, p->o->row.row->at, "kernel \"%s\": %s \"%s\" %s",
                    p->o->row.row->name, what, expression, why);
}

static qgc_status whole_at(const planning *p, const char *what, const char *expression, const qgc_sizes *at,
                           int64_t *out) {
    double x = 0;
    QGC_TRY(qgc_outside_number(p->o, expression, at, &x, p->d));
    if (x != floor(x) || fabs(x) > 0x1p53)
        return wrong(p, what, expression, "is not a whole number");
    *out = (int64_t)x;
    return QGC_OK;
}

/* fixed + per_token * T + per_row * R + per_ctx * ctx, from four points, and looked at in two more. */
static qgc_status extent_of(const planning *p, const char *what, const char *expression, qgc_extent *out) {
    static const qgc_sizes points[] = {{1, 1, 1}, {2, 1, 1},  {1, 2, 1},
                                       {1, 1, 2}, {7, 3, 64}, {64, 64, 1000}};
    int64_t x[6];
    for (int i = 0; i < 6; i++)
        QGC_TRY(whole_at(p, what, expression, &points[i], &x[i]));
    *out = (qgc_extent){.per_token = x[1] - x[0], .per_row = x[2] - x[0], .per_ctx = x[3] - x[0]};
    out->fixed = x[0] - out->per_token - out->per_row - out->per_ctx;
    for (int i = 4; i < 6; i++)
        if (qgc_extent_size(out, &points[i]) != x[i])
            return wrong(p, what, expression, "is not a sum of multiples of T, R and ctx");
    return QGC_OK;
}

static qgc_status constant_of(const planning *p, const char *what, const char *expression, int64_t least,
                              int64_t most, int64_t *out) {
    qgc_extent e;
    QGC_TRY(extent_of(p, what, expression, &e));
    *out = e.fixed;
    if (e.per_token || e.per_row || e.per_ctx)
        return wrong(p, what, expression, "depends on T, R or ctx");
    if (e.fixed >= least && e.fixed <= most)
        return QGC_OK;
    return wrong(p, what, expression,
                 qgc_arena_printf(p->arena, "is %lld, expected %lld to %lld", (long long)e.fixed,
                                  (long long)least, (long long)most));
}

/* A whole number as one, any other as a float. */
static qgc_status option_of(const planning *p, const qgc_outside_option *o, const char **out) {
    static const qgc_sizes some = {1, 1, 64}, others = {7, 3, 100};
    double x = 0, y = 0;
    QGC_TRY(qgc_outside_number(p->o, o->expression, &some, &x, p->d));
    QGC_TRY(qgc_outside_number(p->o, o->expression, &others, &y, p->d));
    if (x != y)
        return wrong(p, "option", o->expression, "depends on T, R or ctx");
    if (x == floor(x) && fabs(x) < 0x1p31) {
        *out = qgc_arena_printf(p->arena, "-D%s=%lld", o->name, (long long)x);
        return QGC_OK;
    }
    const char *text = qgc_arena_printf(p->arena, "%.9g", x);
    *out = qgc_arena_printf(p->arena, "-D%s=%s%sf", o->name, text, strpbrk(text, ".e") ? "" : ".0");
    return QGC_OK;
}

static qgc_status plan_options(const planning *p, qgc_outside_launch *out) {
    const qgc_outside_row *r = &p->o->row;
    for (int i = 0; i < r->n_options; i++)
        QGC_TRY(option_of(p, &r->options[i], &out->options[out->n_options++]));
    for (int i = 0; i < r->n_params; i++)
        if (r->params[i].any) {
            const qgc_dtype t = qgc_outside_type(p->o->value[r->params[i].value]);
            out->options[out->n_options++] =
                qgc_arena_printf(p->arena, "-DTYPE_%s=%s", r->params[i].name, qgc_low_type_name(t));
        }
    return QGC_OK;
}

qgc_status qgc_outside_plan(const qgc_outside_stage *o, qgc_outside_launch *out, qgc_arena *a, qgc_diag *d) {
    const qgc_outside_row *r = &o->row;
    const planning p = {o, a, d};
    int64_t threads, shared = 0;
    *out = (qgc_outside_launch){.n_options = 0};
    QGC_TRY(plan_options(&p, out));
    QGC_TRY(constant_of(&p, "threads", r->row->threads, 1, 1024, &threads));
    if (r->row->shared)
        QGC_TRY(constant_of(&p, "shared", r->row->shared, 0, 227 << 10, &shared));
    if (r->row->phase)
        QGC_TRY(constant_of(&p, "phase", r->row->phase, 1, 1 << 16, &out->piece));
    out->threads = (int)threads;
    out->shared_bytes = (int)shared;
    for (int i = 0; i < 3; i++) {
        const char *extent, *by;
        qgc_outside_axis(r, i, &extent, &by, a);
        QGC_TRY(extent_of(&p, "grid", extent, &out->grid[i]));
        QGC_TRY(constant_of(&p, "grid", by, 1, 1 << 30, &out->per_block[i]));
    }
    for (int i = 0; i < r->n_params; i++)
        if (r->params[i].value < 0)
            QGC_TRY(extent_of(&p, "number", r->params[i].expression, &out->numbers[i]));
    return QGC_OK;
}

/* --- the launch ------------------------------------------------------------------------------------------ */

static int access_of(const qgc_outside_param *p) {
    return (p->reads ? QGC_READS : 0) | (p->writes ? QGC_WRITES : 0) | (p->early ? QGC_EARLY : 0);
}

/* For reports: bytes of matrices, and of caches for each position. */
static void count_bytes(qgc_plan_launch *launch, const qgc_outside_param *p, const qgc_value *v) {
    if (!p->reads)
        return;
    if (v->kind == QGC_WEIGHT && v->shape.rank > 1)
        launch->weight_bytes += qgc_weight_bytes(v);
    if (v->kind != QGC_STATE && !qgc_value_is_version(v))
        return;
    const qgc_extent bytes = qgc_low_times(qgc_low_elems(&v->shape), (int64_t)qgc_dtype_bytes(v->dtype, 1));
    launch->position_bytes += bytes.per_ctx;
}

static int kernel_of(qgc_lowering *l, const qgc_outside_row *r, const qgc_outside_launch *with) {
    const char *file = qgc_arena_printf(l->arena, "outside/%s.cu", r->row->name);
    const int kernel = qgc_low_program(l, file, with->threads, with->options, r->row->text);
    qgc_plan_kernel *k = &l->plan->kernels[kernel];
    k->entry = r->row->name;
    k->shared_bytes = with->shared_bytes;
    k->waits = r->waits;
    k->lets_next = r->next == QGC_OUTSIDE_AT_END        ? QGC_NEXT_AT_END
                   : r->next == QGC_OUTSIDE_BEFORE_WAIT ? QGC_NEXT_BEFORE_WAIT
                                                        : QGC_NEXT_BEHIND_WAIT;
    return kernel;
}

/* For the checks on a device: nothing of a step launches them. */
static void add_checks(qgc_lowering *l, const qgc_outside_stage *o, const qgc_outside_launch *with) {
    qgc_outside_stage stage = *o;
    qgc_outside_launch launch = *with;
    qgc_phase_kernel phase;
    const bool has_phase = qgc_outside_phase_kernel(&stage, &launch, &phase, l->arena);
    if (o->row.waits || has_phase)
        qgc_low_kernel(l, "bring_late.cu", 1024, (const char *[]){NULL});
    if (!has_phase)
        return;
    const int kernel = qgc_low_program(l, phase.file, launch.threads, launch.options, phase.text);
    qgc_plan_kernel *k = &l->plan->kernels[kernel];
    k->entry = phase.entry;
    k->shared_bytes = launch.shared_bytes;
    k->waits = true;
}

qgc_status qgc_lower_outside(qgc_lowering *l, const qgc_outside_stage *o) {
    const qgc_outside_row *r = &o->row;
    qgc_outside_launch with;
    QGC_TRY(qgc_outside_plan(o, &with, l->arena, l->diag));
    if (l->least_arch && l->least_arch < r->arch)
        return qgc_fail(l->diag, QGC_ERR_INPUT, r->row->at,
                        "kernel \"%s\" needs sm_%d, and this is for sm_%d", r->row->name, r->arch,
                        l->least_arch);
    if (l->shared_bytes && with.shared_bytes > l->shared_bytes)
        return qgc_fail(l->diag, QGC_ERR_INPUT, r->row->at,
                        "kernel \"%s\" needs %d bytes of shared memory a block, and the card has %d",
                        r->row->name, with.shared_bytes, l->shared_bytes);
    const int kernel = kernel_of(l, r, &with);
    add_checks(l, o, &with);
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, kernel);
    for (int i = 0; i < 3; i++)
        qgc_low_grid(launch, i, with.grid[i], with.per_block[i]);
    for (int i = 0; i < r->n_params; i++)
        if (r->params[i].value < 0)
            qgc_low_arg_i32(launch, with.numbers[i]);
        else {
            const qgc_value *v = o->value[r->params[i].value];
            qgc_low_arg_buffer(launch, qgc_low_buffer(l, v), access_of(&r->params[i]));
            count_bytes(launch, &r->params[i], v);
        }
    return QGC_OK;
}
