#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/lab/judge_impl.h"
#include "runtime/lab/random.h"

/* The largest logit; all tokens; few; with penalties; almost all alike, so that the draw decides; and with
 * the opposite of a penalty, so that what has been seen is in front. */
const qgc_sampling judge_sampling[JUDGE_LANES] = {
    {.top_p = 1, .repeat_penalty = 1},
    {.top_p = 1, .repeat_penalty = 1.7f},
    {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 11},
    {.temperature = 20, .top_p = 1, .repeat_penalty = 1.3f, .seed = 0x500000007u},
    {.temperature = 8, .top_k = 40, .top_p = 0.9f, .repeat_penalty = 1, .seed = 3},
    {.top_p = 1, .repeat_penalty = 0.02f},
    {.temperature = 30, .top_k = 8, .top_p = 1, .repeat_penalty = 0.05f, .seed = 5},
    {.temperature = 4, .top_k = 300, .top_p = 0.95f, .min_p = 0.1f, .repeat_penalty = 1.2f, .seed = 77},
};

/* --- steps ----------------------------------------------------------------------------------------------- */

/* Lengths of steps, again from the start where the text is longer, and whether all rows are wanted. */
typedef struct {
    int64_t tokens;
    bool all_rows;
} step_form;

static const step_form both[] = {{7, false}, {1, false}, {1, false}, {4, true}, {2, false}, {1, false}},
                       prefill[] = {{7, false}, {5, true}, {4, false}}, decode[] = {{1, false}};

/* Far steps stand at a position that is beyond the parts of a split attention. */
enum { FAR_POSITION = 150, FAR_TOKENS = 3 };

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

typedef struct {
    judge_step *steps;
    size_t n;
    qgc_arena *arena;
} step_list;

static void add_step(step_list *l, int64_t first, step_form form, bool is_far) {
    l->steps = qgc_arena_grow(l->arena, l->steps, l->n, sizeof *l->steps);
    l->steps[l->n++] = (judge_step){
        .first = first, .sizes = {form.tokens, form.all_rows ? form.tokens : 1, 0}, .is_far = is_far};
}

judge_step *judge_plan_steps(int64_t n, int64_t most, qgc_judge_phase phase, size_t *n_steps, qgc_arena *a) {
    const step_form *forms = phase == QGC_PHASE_BOTH           ? both
                             : phase == QGC_PHASE_ONLY_PREFILL ? prefill
                                                               : decode;
    const size_t n_forms = phase == QGC_PHASE_BOTH           ? sizeof both / sizeof *both
                           : phase == QGC_PHASE_ONLY_PREFILL ? sizeof prefill / sizeof *prefill
                                                             : sizeof decode / sizeof *decode;
    step_list l = {.arena = a};
    for (int64_t at = 0, i = 0; at < n; i++) {
        step_form form = forms[(size_t)i % n_forms];
        form.tokens = least(form.tokens, n - at);
        add_step(&l, at, form, false);
        at += form.tokens;
    }
    const int64_t ctx = most > 0 ? least(most, n + FAR_POSITION) : n + FAR_POSITION;
    if (phase != QGC_PHASE_ONLY_PREFILL)
        add_step(&l, ctx - 1, (step_form){1, false}, true);
    if (phase != QGC_PHASE_ONLY_DECODE && ctx >= FAR_TOKENS)
        add_step(&l, ctx - FAR_TOKENS, (step_form){FAR_TOKENS, true}, true);
    for (size_t i = 0; i < l.n; i++)
        l.steps[i].sizes.ctx = ctx;
    *n_steps = l.n;
    return l.steps;
}

void judge_fill_input(const char *name, const judge_step *step, const int32_t *tokens, int64_t n_tokens,
                      int32_t *to) {
    const int64_t n = step->sizes.tokens, rows = step->sizes.rows;
    if (strcmp(name, "rows") == 0)
        for (int64_t i = 0; i < rows; i++)
            to[i] = (int32_t)(n - rows + i);
    else
        for (int64_t i = 0; i < n; i++)
            to[i] = strcmp(name, "tokens") == 0 ? tokens[(step->first + i) % n_tokens]
                                                : (int32_t)(step->first + i);
}

void judge_fill_state(qgc_dtype t, void *to, int64_t n, double size, uint64_t *seed) {
    for (int64_t i = 0; i < n; i++) {
        const uint64_t x = qgc_random(seed);
        if (t == QGC_I32)
            ((int32_t *)to)[i] = x % 8 == 0;
        else
            ((double *)to)[i] = size * (ldexp((double)(x >> 11), -52) - 1);
    }
}

/* --- nodes ----------------------------------------------------------------------------------------------- */

size_t judge_elem_bytes(qgc_dtype t) {
    return t == QGC_I32 ? sizeof(int32_t) : sizeof(double);
}

bool judge_samples(qgc_op op) {
    return op == QGC_OP_SAMPLE || op == QGC_OP_SAMPLE_PART || op == QGC_OP_SAMPLE_MERGE;
}

static qgc_operand operand(const qgc_value *v, const judge_numbers *x, const qgc_sizes *sizes, int lane) {
    qgc_operand o = {.dtype = x->tensor ? x->tensor->dtype : v->dtype, .rank = v->shape.rank};
    int64_t elems = 1;
    for (int i = 0; i < o.rank; i++)
        elems *= o.dim[i] = qgc_dim_size(v->shape.dim[i], sizes);
    if (x->tensor) {
        o.data = (void *)(uintptr_t)x->tensor->data; /* references only read it */
        return o;
    }
    o.is_real = v->dtype != QGC_I32;
    if (v->kind == QGC_WEIGHT) /* derived: doubles, however it is stored */
        o.dtype = QGC_F32;
    const int at = x->lanes > 1 ? lane : 0;
    o.data = (char *)x->data + (size_t)at * (size_t)elems * judge_elem_bytes(v->dtype);
    return o;
}

/* The new version of a state begins as the old one. */
static void copy_version(const qgc_node *n, qgc_call *call, const qgc_sizes *sizes) {
    if (!(qgc_ops[n->op].traits & QGC_IN_PLACE))
        return;
    const size_t bytes =
        (size_t)qgc_shape_elems(&n->out[0]->shape, sizes) * judge_elem_bytes(n->out[0]->dtype);
    memcpy(call->out[0].data, call->in[0].data, bytes);
    call->in[0].data = call->out[0].data;
}

qgc_status judge_compute(const qgc_node *n, const judge_step *step, const judge_numbers *const in[],
                         const judge_numbers *const out[], qgc_pool *pool, qgc_diag *d) {
    qgc_status status = QGC_OK;
    for (int lane = 0; lane < out[0]->lanes && status == QGC_OK; lane++) {
        qgc_call call = {.node = n, .sampling = &judge_sampling[lane], .ctx = step->sizes.ctx, .pool = pool};
        for (int i = 0; i < n->n_in; i++)
            call.in[i] = operand(n->in[i], in[i], &step->sizes, lane);
        for (int i = 0; i < n->n_out; i++)
            call.out[i] = operand(n->out[i], out[i], &step->sizes, lane);
        copy_version(n, &call, &step->sizes);
        status = qgc_call_check(&call, &step->sizes, d);
        call.scratch = qgc_arena_new();
        if (status == QGC_OK)
            qgc_ops[n->op].ref_double(&call);
        qgc_arena_drop(call.scratch);
    }
    return status;
}

/* --- range ----------------------------------------------------------------------------------------------- */

static double largest_of(const double *x, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i]))
            most = fmax(most, fabs(x[i]));
    return most;
}

void judge_measure(const double *x, int64_t n, int64_t row, judge_extent *out) {
    for (int64_t i = 0; i < n; i += row) {
        const double most = largest_of(x + i, row);
        out->most = fmax(out->most, most);
        if (most > 0 && (out->least == 0 || most < out->least))
            out->least = most;
    }
}

const char *judge_misfit(qgc_dtype t, const judge_extent *x) {
    if (x->most > (t == QGC_F16 ? 65504 : (double)FLT_MAX))
        return t == QGC_F16 ? "too large for float16" : "too large for float32";
    if (x->least > 0 && x->least < (t == QGC_F16 ? ldexp(1, -14) : (double)FLT_MIN))
        return t == QGC_F16 ? "too small for float16" : "too small for float32";
    return NULL;
}

const char *judge_misfit_of_squares(const double *x, int64_t n, int64_t row, double eps) {
    for (int64_t i = 0; i < n; i += row) {
        const double most = largest_of(x + i, row);
        if (most * most > (double)FLT_MAX / (double)row)
            return "too large for float32";
        if (most > 0 && most * most < (double)FLT_MIN && eps < ldexp((double)FLT_MIN, 24))
            return "too small for float32";
    }
    return NULL;
}

/* --- differences ----------------------------------------------------------------------------------------- */

static void compare_whole(const int32_t *good, const int32_t *bad, int64_t n, size_t step,
                          judge_difference *out) {
    for (int64_t i = 0; i < n; i++) {
        if (good[i] == bad[i])
            continue;
        if (out->apart == 0)
            *out = (judge_difference){
                .apart = INFINITY, .step = step, .row = i, .any = true, .others = out->others};
        out->others++;
    }
}

/* Of one row. */
static double row_apart(const double *good, const double *bad, int64_t n, bool *any) {
    double largest = 0, apart = 0;
    for (int64_t i = 0; i < n; i++) {
        const double difference = fabs(good[i] - bad[i]);
        if (isfinite(good[i]))
            largest = fmax(largest, fabs(good[i]));
        if (good[i] == bad[i] || (isnan(good[i]) && isnan(bad[i])))
            continue;
        *any = true;
        if (!(difference < INFINITY))
            return INFINITY;
        apart = fmax(apart, difference);
    }
    return apart == 0 ? 0 : largest == 0 ? INFINITY : apart / largest;
}

void judge_compare_rows(const judge_numbers *good, const judge_numbers *bad, int64_t elems, int64_t row,
                        size_t step, judge_difference *out) {
    const int lanes = good->lanes > bad->lanes ? good->lanes : bad->lanes;
    for (int lane = 0; lane < lanes; lane++) {
        const int64_t from_good = good->lanes > 1 ? lane * elems : 0,
                      from_bad = bad->lanes > 1 ? lane * elems : 0;
        if (good->dtype == QGC_I32) {
            const double before = out->apart;
            compare_whole((const int32_t *)good->data + from_good, (const int32_t *)bad->data + from_bad,
                          elems, step, out);
            if (before == 0)
                out->lane = lane;
            continue;
        }
        for (int64_t i = 0; i < elems; i += row) {
            const double apart = row_apart((const double *)good->data + from_good + i,
                                           (const double *)bad->data + from_bad + i, row, &out->any);
            if (apart <= out->apart)
                continue;
            out->apart = apart;
            out->step = step;
            out->lane = lane;
            out->row = i / row;
        }
    }
}
