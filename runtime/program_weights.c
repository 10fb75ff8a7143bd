#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "graph/base/planes.h"
#include "models/bind.h"
#include "runtime/program_impl.h"

/* Weights on their way to the device:
 *
 *   file (mapped) --- copied or converted by the pool, piece by piece ---> pinned room --- DMA ---> one region
 *
 * Each weight starts at a multiple of 256. A weight that the file has under the name of another one (a tied
 * head) shares that one's place if both are stored alike. Only what a buffer of the plan names goes up. */

enum { ALIGN = 256 };

/* Elements a piece is cut at: a multiple of the block of every dtype. Of a block format it is cut at rows. */
enum { GROUP = 256 };

/* Products of the shape cannot overflow: qgc_plan_check saw to that. */
static int64_t elems_of(const qgc_plan_weight *w) {
    int64_t n = 1;
    for (int i = 0; i < w->rank; i++)
        n *= w->shape[i];
    return n;
}

/* The weights that are tensors of a file. What a want is tied to is one, too. */
static qgc_weight_want *wants_of(const qgc_plan *plan, int *want_of, size_t *n, qgc_arena *a) {
    qgc_weight_want *wants = qgc_arena_array(a, plan->n_weights, sizeof *wants);
    *n = 0;
    for (size_t i = 0; i < plan->n_weights; i++) {
        const qgc_plan_weight *w = &plan->weights[i];
        want_of[i] = w->derived.kind ? -1 : (int)*n;
        if (w->derived.kind)
            continue;
        qgc_weight_want *want = &wants[(*n)++];
        *want = (qgc_weight_want){.label = w->label,
                                  .gguf = w->gguf,
                                  .hf = w->hf,
                                  .tied = w->tied,
                                  .rank = w->rank,
                                  .gguf_form = w->gguf_form,
                                  .hf_form = w->hf_form};
        memcpy(want->shape, w->shape, sizeof want->shape);
    }
    for (size_t i = 0; i < *n; i++)
        if (wants[i].tied >= 0)
            wants[i].tied = want_of[wants[i].tied];
    return wants;
}

/* Tensors that are not in the file as they are wanted live in `made`. */
static qgc_status bind(const qgc_plan *plan, const qgc_weights *weights, bool allow_unused, qgc_arena *made,
                       const qgc_tensor **found, qgc_diag *d) {
    int *want_of = qgc_arena_array(d->arena, plan->n_weights, sizeof *want_of);
    const qgc_tensor **wanted = qgc_arena_array(d->arena, plan->n_weights, sizeof(qgc_tensor *));
    size_t n_wants;
    const qgc_weight_want *wants = wants_of(plan, want_of, &n_wants, d->arena);
    qgc_param_want *params = qgc_arena_array(d->arena, plan->n_params, sizeof *params);
    for (size_t i = 0; i < plan->n_params; i++) {
        const qgc_plan_param *p = &plan->params[i];
        params[i] = (qgc_param_want){.name = p->name,
                                     .value = p->value,
                                     .gguf = (const char *const *)p->gguf,
                                     .hf = (const char *const *)p->hf,
                                     .n_gguf = p->n_gguf,
                                     .n_hf = p->n_hf,
                                     .words = {p->words, p->n_words},
                                     .turns = p->turns,
                                     .values = p->values,
                                     .otherwise = p->n_otherwise ? p->otherwise : NULL};
    }
    qgc_bind_request request = {.arch = plan->arch,
                                .gguf_arch = plan->gguf_arch,
                                .hf_arch = plan->hf_arch,
                                .ignored = plan->ignored,
                                .n_ignored = plan->n_ignored,
                                .arena = made,
                                .weights = wants,
                                .n_weights = n_wants,
                                .params = params,
                                .n_params = plan->n_params,
                                .allow_unused = allow_unused};
    QGC_TRY(qgc_bind(weights, &request, wanted, d));
    for (size_t i = 0; i < plan->n_weights; i++)
        found[i] = want_of[i] < 0 ? NULL : wanted[want_of[i]];
    return QGC_OK;
}

/* What is made of others, which come before it; it lives in `made`. */
static qgc_status derive(const qgc_plan_weight *w, const qgc_tensor **found, size_t i, qgc_pool *pool,
                         qgc_arena *made, qgc_diag *d) {
    const qgc_tensor *from[QGC_MAX_SOURCES];
    qgc_tensor *t = qgc_arena_alloc(made, sizeof *t);
    for (int k = 0; k < w->derived.n_from; k++)
        from[k] = found[w->derived.from[k]];
    t->name = w->label;
    const char *why = qgc_derive_shape(&w->derived, from, t, d->arena);
    if (why)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "weight \"%s\" cannot be derived: %s", w->label, why);
    if (!qgc_dtype_is_quantised(t->dtype) && !qgc_dtype_is_quantised(w->storage))
        t->dtype = w->storage;
    t->bytes = qgc_dtype_bytes(t->dtype, elems_of(w));
    t->data = qgc_arena_alloc(made, t->bytes);
    found[i] = t;
    if (qgc_derive_stored(&w->derived, from, t, pool))
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "weight \"%s\" has values too large for %s", w->label,
                    qgc_dtypes[t->dtype].name);
}

static qgc_status derive_all(qgc_program *p, const qgc_tensor **found, qgc_pool *pool, qgc_arena *made,
                             qgc_diag *d) {
    size_t n = 0;
    for (size_t i = 0; i < p->plan->n_weights; i++) {
        if (!p->plan->weights[i].derived.kind)
            continue;
        QGC_TRY(derive(&p->plan->weights[i], found, i, pool, made, d));
        n++;
    }
    if (n)
        qgc_program_note(p, "%zu %s derived of others", n, n == 1 ? "weight is" : "weights are");
    return QGC_OK;
}

/* Bytes on the device of some elements, whole rows if they are of a block format. */
static size_t bytes_of(const qgc_placed *w, int64_t n) {
    return qgc_dtype_is_quantised(w->storage) ? (size_t)(n / w->row) * qgc_planes_bytes(w->storage, w->row)
                                              : qgc_dtype_bytes(w->storage, n);
}

/* Elements between two places where it may be cut. */
static int64_t group_of(const qgc_placed *w) {
    return qgc_dtype_is_quantised(w->storage) ? w->row : GROUP;
}

/* Gives each weight that a buffer names its place. Returns the bytes of the region. */
static size_t place(const qgc_plan *plan, const qgc_tensor *const *found, qgc_placed *all) {
    for (size_t i = 0; i < plan->n_weights; i++) {
        const qgc_plan_weight *w = &plan->weights[i];
        const int64_t n = elems_of(w), row = w->shape[w->rank - 1];
        all[i] = (qgc_placed){.from = found[i], .storage = w->storage, .elems = n, .row = row, .shared = -1};
        all[i].bytes = bytes_of(&all[i], n);
    }
    for (size_t i = 0; i < plan->n_buffers; i++)
        if (plan->buffers[i].kind == QGC_BUFFER_WEIGHT)
            all[plan->buffers[i].weight].wanted = true;
    for (size_t i = 0; i < plan->n_weights; i++) {
        const int root = qgc_plan_weight_root(plan, (int)i);
        if (!all[i].wanted || root == (int)i || found[i] != found[root])
            continue;
        all[i].shared = root;
        all[root].wanted = true;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < plan->n_weights; i++) {
        if (!all[i].wanted || all[i].shared >= 0)
            continue;
        all[i].offset = bytes;
        bytes += (all[i].bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    }
    return bytes;
}

/* One piece of a weight, filled by the pool in groups. */
typedef struct {
    const qgc_placed *w;
    int64_t first, n; /* elements of the weight */
    unsigned char *room;
    atomic_bool rounded, overflowed;
} piece;

/* Compares what is stored, widened again, with what was meant. */
static void look_back(piece *p, const float *meant, const float *stored, int64_t n) {
    bool rounded = false, overflowed = false;
    for (int64_t i = 0; i < n; i++) {
        bool differs = stored[i] != meant[i] && !isnan(meant[i]);
        rounded |= differs;
        overflowed |= differs && isinf(stored[i]);
    }
    if (rounded)
        atomic_store(&p->rounded, true);
    if (overflowed)
        atomic_store(&p->overflowed, true);
}

static void convert_groups(piece *p, int64_t first, int64_t n) {
    enum { MOST = 4 * GROUP };
    float meant[MOST], stored[MOST];
    const int64_t most = MOST;
    for (int64_t done = 0; done < n; done += most) {
        int64_t at = first + done, now = n - done < most ? n - done : most;
        const unsigned char *from =
            (const unsigned char *)p->w->from->data + qgc_dtype_bytes(p->w->from->dtype, p->first + at);
        unsigned char *to = p->room + qgc_dtype_bytes(p->w->storage, at);
        qgc_to_f32(p->w->from->dtype, from, meant, now);
        qgc_from_f32(p->w->storage, meant, to, now);
        if (p->w->storage == QGC_F32)
            continue;
        qgc_to_f32(p->w->storage, to, stored, now);
        look_back(p, meant, stored, now);
    }
}

static void fill_rows(const piece *p, int64_t first, int64_t last) {
    const qgc_placed *w = p->w;
    for (int64_t at = first; at < last; at += w->row)
        qgc_to_planes(w->storage,
                      (const unsigned char *)w->from->data + qgc_dtype_bytes(w->storage, p->first + at),
                      p->room + bytes_of(w, at), w->row);
}

static void fill_groups(void *context, size_t first_group, size_t last_group) {
    piece *p = context;
    const int64_t group = group_of(p->w);
    int64_t first = (int64_t)first_group * group, last = (int64_t)last_group * group;
    if (last > p->n)
        last = p->n;
    if (qgc_dtype_is_quantised(p->w->storage)) {
        fill_rows(p, first, last);
        return;
    }
    if (p->w->from->dtype != p->w->storage) {
        convert_groups(p, first, last - first);
        return;
    }
    size_t start = qgc_dtype_bytes(p->w->storage, first);
    const unsigned char *from =
        (const unsigned char *)p->w->from->data + qgc_dtype_bytes(p->w->storage, p->first);
    memcpy(p->room + start, from + start, qgc_dtype_bytes(p->w->storage, last - first));
}

static void report(qgc_loading *x, size_t bytes) {
    x->done += bytes;
    if (x->options.progress)
        x->options.progress(x->options.context, "weights", x->done, x->total);
}

static qgc_status send_weight(qgc_device *dev, qgc_address to, qgc_placed *w, qgc_loading *x, qgc_diag *d) {
    bool overflowed = false;
    for (int64_t first = 0; first < w->elems;) {
        void *room;
        size_t bytes;
        QGC_TRY(qgc_device_stage(dev, bytes_of(w, w->elems - first), &room, &bytes, d));
        const int64_t group = group_of(w);
        int64_t n = w->elems - first;
        if (bytes < bytes_of(w, n))
            n = (int64_t)(bytes / bytes_of(w, group)) * group;
        if (n == 0)
            return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC,
                            "%zu bytes, a row of it, do not fit the %zu of an upload", bytes_of(w, group),
                            bytes);
        piece p = {.w = w, .first = first, .n = n, .room = room};
        qgc_pool_for(x->pool, (size_t)((n + group - 1) / group), (size_t)(65536 / group) + 1, fill_groups,
                     &p);
        w->rounded |= atomic_load(&p.rounded);
        overflowed |= atomic_load(&p.overflowed);
        bytes = bytes_of(w, n);
        QGC_TRY(qgc_device_send(dev, to + bytes_of(w, first), bytes, d));
        report(x, bytes);
        first += n;
    }
    if (!overflowed)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "tensor \"%s\" (%s) has values too large for %s",
                            w->from->name, qgc_dtypes[w->from->dtype].name, qgc_dtypes[w->storage].name);
    qgc_hint(d, "Compile again with --weights and this file, so that the tensor is kept as it is.");
    return s;
}

static qgc_status check_stored(const qgc_placed *w, qgc_diag *d) {
    if (w->from->dtype == QGC_I32 && w->storage != QGC_I32)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "tensor \"%s\" holds i32, which is no weight",
                        w->from->name);
    if (!qgc_dtype_is_quantised(w->storage) || w->from->dtype == w->storage)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "tensor \"%s\" is %s, and this artifact is for %s",
                            w->from->name, qgc_dtypes[w->from->dtype].name, qgc_dtypes[w->storage].name);
    qgc_hint(d, "Compile again with --weights and this file.");
    return s;
}

qgc_status qgc_program_send(qgc_program *p, int weight, qgc_address to, qgc_diag *d) {
    qgc_placed *w = &p->loading->all[weight];
    qgc_frame frame = {d->top, "loading weight", p->plan->weights[weight].label, QGC_NO_LOC};
    d->top = &frame;
    qgc_status s = check_stored(w, d);
    if (s == QGC_OK)
        s = send_weight(p->dev, to, w, p->loading, d);
    d->top = frame.up;
    return s;
}

static qgc_status send_all(qgc_program *p, qgc_diag *d) {
    qgc_loading *x = p->loading;
    x->done = x->total = 0;
    for (size_t i = 0; i < p->plan->n_weights; i++)
        if (x->all[i].wanted && x->all[i].shared < 0)
            x->total += x->all[i].bytes;
    for (size_t i = 0; i < p->plan->n_weights; i++)
        if (x->all[i].wanted && x->all[i].shared < 0)
            QGC_TRY(qgc_program_send(p, (int)i, p->weights + x->all[i].offset, d));
    return QGC_OK;
}

/* How a conversion is called: with values changed, with more bits than before, or neither. */
static void note_conversion(qgc_program *p, size_t n, qgc_dtype from, qgc_dtype to, bool rounded) {
    const char *tensors = n == 1 ? "tensor" : "tensors", *a = qgc_dtypes[from].name, *b = qgc_dtypes[to].name;
    bool wider = qgc_dtype_bytes(to, GROUP) > qgc_dtype_bytes(from, GROUP);
    if (rounded && !qgc_dtype_is_quantised(from))
        qgc_program_note(p, "%zu %s %s rounded to %s: compile with --weights to keep %s", n, tensors, a, b,
                         n == 1 ? "it" : "them");
    else if (rounded)
        qgc_program_note(p, "%zu %s %s rounded to %s", n, tensors, a, b);
    else if (wider)
        qgc_program_note(p, "%zu %s %s widened to %s", n, tensors, a, b);
    else
        qgc_program_note(p, "%zu %s %s stored as %s without loss", n, tensors, a, b);
}

static void note_blocks(qgc_program *p, const qgc_placed *all) {
    size_t count[QGC_N_DTYPES] = {0};
    for (size_t i = 0; i < p->plan->n_weights; i++)
        if (all[i].wanted && all[i].shared < 0 && qgc_dtype_is_quantised(all[i].storage))
            count[all[i].storage]++;
    for (int t = 0; t < QGC_N_DTYPES; t++)
        if (count[t])
            qgc_program_note(p, "%zu %s %s kept as in the file", count[t],
                             count[t] == 1 ? "tensor" : "tensors", qgc_dtypes[t].name);
}

void qgc_program_note_conversions(qgc_program *p) {
    const qgc_placed *all = p->loading->all;
    size_t count[QGC_N_DTYPES][QGC_N_DTYPES][2] = {0};
    note_blocks(p, all);
    for (size_t i = 0; i < p->plan->n_weights; i++)
        if (all[i].wanted && all[i].shared < 0 && all[i].from->dtype != all[i].storage)
            count[all[i].from->dtype][all[i].storage][all[i].rounded]++;
    for (int from = 0; from < QGC_N_DTYPES; from++)
        for (int to = 0; to < QGC_N_DTYPES; to++)
            for (int rounded = 0; rounded < 2; rounded++)
                if (count[from][to][rounded])
                    note_conversion(p, count[from][to][rounded], (qgc_dtype)from, (qgc_dtype)to, rounded);
    for (size_t i = 0; i < p->plan->n_weights; i++)
        if (all[i].wanted && all[i].shared >= 0)
            qgc_program_note(p, "%s is tied to %s and shares its memory", p->plan->weights[i].label,
                             p->plan->weights[all[i].shared].label);
}

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_form(const qgc_tensor_form *a, const qgc_tensor_form *b) {
    return same_text(a->stacked_index, b->stacked_index) && a->stacked == b->stacked &&
           a->transposed == b->transposed && a->first == b->first && a->last == b->last && a->of == b->of &&
           a->heads == b->heads && a->plus == b->plus;
}

/* Does one upload serve both plans? */
static bool want_the_same(const qgc_plan *a, const qgc_plan *b) {
    if (a->n_weights != b->n_weights)
        return false;
    for (size_t i = 0; i < a->n_weights; i++) {
        const qgc_plan_weight *x = &a->weights[i], *y = &b->weights[i];
        if (x->storage != y->storage || x->rank != y->rank || x->tied != y->tied ||
            memcmp(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape) != 0 ||
            !same_text(x->gguf, y->gguf) || !same_text(x->hf, y->hf) ||
            !qgc_derivation_equal(&x->derived, &y->derived) || !same_form(&x->gguf_form, &y->gguf_form) ||
            !same_form(&x->hf_form, &y->hf_form))
            return false;
    }
    return true;
}

bool qgc_program_take_weights(qgc_program *p, const qgc_program *from) {
    const qgc_plan *plan = p->plan;
    if (!want_the_same(plan, from->plan))
        return false;
    qgc_address *at = qgc_arena_array(p->arena, plan->n_weights, sizeof *at);
    for (size_t i = 0; i < from->plan->n_buffers; i++)
        if (from->plan->buffers[i].kind == QGC_BUFFER_WEIGHT)
            at[from->plan->buffers[i].weight] = from->addresses[i];
    bool all = true;
    for (size_t i = 0; i < plan->n_buffers; i++)
        if (plan->buffers[i].kind == QGC_BUFFER_WEIGHT) {
            p->addresses[i] = at[plan->buffers[i].weight];
            all = all && p->addresses[i];
        }
    return all;
}

static qgc_status find(qgc_program *p, const qgc_weights *weights, qgc_diag *d) {
    const qgc_plan *plan = p->plan;
    qgc_loading *x = p->loading;
    const qgc_tensor **found = qgc_arena_array(p->arena, plan->n_weights, sizeof(qgc_tensor *));
    QGC_TRY(bind(plan, weights, x->options.allow_unused, x->made, found, d));
    QGC_TRY(derive_all(p, found, x->pool, x->made, d));
    x->all = qgc_arena_array(p->arena, plan->n_weights, sizeof *x->all);
    x->bytes = place(plan, found, x->all);
    return QGC_OK;
}

qgc_status qgc_program_find_weights(qgc_program *p, const qgc_weights *weights, qgc_pool *pool,
                                    const qgc_program_options *options, qgc_diag *d) {
    p->loading = qgc_arena_alloc(p->arena, sizeof *p->loading);
    *p->loading = (qgc_loading){.pool = pool, .options = *options, .made = qgc_arena_new()};
    return find(p, weights, d);
}

qgc_status qgc_program_put_weights(qgc_program *p, qgc_diag *d) {
    const qgc_plan *plan = p->plan;
    const qgc_loading *x = p->loading;
    QGC_TRY(qgc_device_alloc(p->dev, "weights", x->bytes, &p->weights, d));
    QGC_TRY(send_all(p, d));
    /* The mapping may be closed after this, and a failed transfer shows here. */
    QGC_TRY(qgc_device_sync(p->dev, d));
    qgc_program_note_conversions(p);
    for (size_t i = 0; i < plan->n_buffers; i++) {
        const qgc_plan_buffer *b = &plan->buffers[i];
        if (b->kind == QGC_BUFFER_WEIGHT)
            p->addresses[i] = p->weights + x->all[qgc_placed_root(x->all, b->weight)].offset;
    }
    p->is_stored = true;
    return QGC_OK;
}
