#include <assert.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "codegen/card.h"
#include "codegen/edges.h"
#include "codegen/plan.h"
#include "graph/base/planes.h"
#include "graph/sampling.h"

__extension__ typedef __int128 wide;

/* An extent is linear in T, R and ctx, so over a box of sizes it is smallest and largest at
 * corners, and "a buffer is as large as a product needs" is that the difference of two extents is nowhere
 * below zero. 128 bits hold every such difference: a factor has 63 bits, twice a dimension at most 33, a
 * size 24. */
typedef struct {
    wide fixed, per_token, per_row, per_ctx;
} wide_extent;

static const int64_t max_size = 1 << 24; /* of T, R and ctx */
enum {
    MAX_COUNT = 1 << 24, /* rows of a table of the plan */
    MAX_THREADS = 1024,  /* a block; these limits are CUDA's */
    MAX_SHARED = 227 << 10,
    MAX_GRID_X = INT32_MAX,
    MAX_GRID_YZ = 65535,
};

typedef struct {
    const qgc_plan *p;
    qgc_loc at;
    qgc_diag *d;
} checker;

#define BROKEN(c, ...) qgc_fail((c)->d, QGC_ERR_INPUT, (c)->at, __VA_ARGS__)

static wide_extent widen(const qgc_extent *e, int64_t factor) {
    return (wide_extent){(wide)e->fixed * factor, (wide)e->per_token * factor, (wide)e->per_row * factor,
                         (wide)e->per_ctx * factor};
}

static wide_extent minus(wide_extent a, wide_extent b) {
    return (wide_extent){a.fixed - b.fixed, a.per_token - b.per_token, a.per_row - b.per_row,
                         a.per_ctx - b.per_ctx};
}

/* The smallest and the largest of factor * size for a size from 1 to `most`. */
static wide least(wide factor, int64_t most) {
    return factor < 0 ? factor * most : factor;
}
static wide largest(wide factor, int64_t most) {
    return factor > 0 ? factor * most : factor;
}

static wide smallest_of(wide_extent e, const qgc_sizes *most) {
    return e.fixed + least(e.per_token, most->tokens) + least(e.per_row, most->rows) +
           least(e.per_ctx, most->ctx);
}

static wide largest_of(wide_extent e, const qgc_sizes *most) {
    return e.fixed + largest(e.per_token, most->tokens) + largest(e.per_row, most->rows) +
           largest(e.per_ctx, most->ctx);
}

/* True if qgc_extent_size overflows for no sizes up to max_size, nor any sum on the way. */
static bool is_safe(const qgc_extent *e) {
    const int64_t factors[] = {e->per_token, e->per_row, e->per_ctx};
    wide sum = e->fixed < 0 ? -(wide)e->fixed : (wide)e->fixed;
    for (int i = 0; i < 3; i++)
        sum += (factors[i] < 0 ? -(wide)factors[i] : (wide)factors[i]) * max_size;
    return sum <= QGC_PLAN_MOST_BYTES;
}

static bool is_within(const qgc_extent *e, const qgc_sizes *most, int64_t low, int64_t high) {
    return is_safe(e) && e->most_ctx == 0 && smallest_of(widen(e, 1), most) >= low &&
           largest_of(widen(e, 1), most) <= high;
}

/* The largest sizes of a step of that phase; the smallest are 1. */
static qgc_sizes most_of(const qgc_plan *p, qgc_phase_kind phase) {
    qgc_sizes most = qgc_plan_sizes(p, phase);
    most.ctx = max_size;
    return most;
}

/* Of any step. */
static qgc_sizes most_of_all(const qgc_plan *p) {
    qgc_sizes most = qgc_plan_largest(p);
    most.ctx = max_size;
    return most;
}

/* What the plan says of itself. */

static qgc_status check_archs(const checker *c) {
    const qgc_plan *p = c->p;
    if (p->n_archs < 1 || p->n_archs > QGC_MAX_ARCHS)
        return BROKEN(c, "the plan is for %d architectures, expected 1 to %d", p->n_archs, QGC_MAX_ARCHS);
    for (int i = 0; i < p->n_archs; i++) {
        qgc_arch arch;
        if (!p->archs[i] || !qgc_arch_read(p->archs[i], &arch))
            return BROKEN(c, "architecture \"%s\" of the plan is malformed", p->archs[i] ? p->archs[i] : "");
        for (int k = 0; k < i; k++)
            if (strcmp(p->archs[i], p->archs[k]) == 0)
                return BROKEN(c, "architecture \"%s\" of the plan is there twice", p->archs[i]);
    }
    return QGC_OK;
}

static qgc_status check_texts(const checker *c) {
    const qgc_plan *p = c->p;
    const struct {
        const char *what, *text;
    } texts[] = {{"name", p->name},
                 {"arch", p->arch},
                 {"graph", p->graph},
                 {"source", p->source},
                 {"compiler", p->compiler}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!texts[i].text)
            return BROKEN(c, "the plan has no %s", texts[i].what);
    return QGC_OK;
}

static qgc_status check_numbers(const checker *c) {
    const qgc_plan *p = c->p;
    const struct {
        const char *what;
        int64_t value, low, high;
    } numbers[] = {{"vocab", p->vocab, 1, INT32_MAX},
                   {"max_positions", p->max_positions, 0, max_size},
                   {"spare", p->spare, 0, max_size},
                   {"chunk", p->chunk, 1, max_size},
                   {"long_chunk", p->long_chunk, 0, max_size},
                   {"scratch_bytes", p->scratch_bytes, 0, QGC_PLAN_MOST_BYTES},
                   {"least_sms", p->least_sms, 0, 1 << 16}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value < numbers[i].low || numbers[i].value > numbers[i].high)
            return BROKEN(c, "%s of the plan is %lld, expected %lld to %lld", numbers[i].what,
                          (long long)numbers[i].value, (long long)numbers[i].low, (long long)numbers[i].high);
    return QGC_OK;
}

static qgc_status check_counts(const checker *c) {
    const qgc_plan *p = c->p;
    const struct {
        const char *what;
        size_t n;
        const void *rows;
    } tables[] = {{"params", p->n_params, p->params},
                  {"ignored", p->n_ignored, p->ignored},
                  {"weights", p->n_weights, p->weights},
                  {"buffers", p->n_buffers, p->buffers},
                  {"kernels", p->n_kernels, p->kernels},
                  {"images", p->n_images, p->images},
                  {"launches", p->phases[0].n_launches, p->phases[0].launches},
                  {"launches", p->phases[1].n_launches, p->phases[1].launches},
                  {"launches", p->phases[2].n_launches, p->phases[2].launches},
                  {"launches", p->phases[3].n_launches, p->phases[3].launches},
                  {"launches", p->phases[4].n_launches, p->phases[4].launches},
                  {"launches", p->phases[5].n_launches, p->phases[5].launches},
                  {"launches", p->phases[6].n_launches, p->phases[6].launches},
                  {"launches", p->phases[7].n_launches, p->phases[7].launches}};
    _Static_assert(QGC_N_PHASES == 8, "each phase has a row above");
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        if (tables[i].n > MAX_COUNT)
            return BROKEN(c, "the plan has %zu %s, expected at most %d", tables[i].n, tables[i].what,
                          MAX_COUNT);
        if (tables[i].n > 0 && !tables[i].rows)
            return BROKEN(c, "the table of %s is missing", tables[i].what);
    }
    return QGC_OK;
}

static bool has_keys(const char *const *keys, int n) {
    if (n < 0 || (n > 0 && !keys))
        return false;
    for (int i = 0; i < n; i++)
        if (!keys[i])
            return false;
    return true;
}

static bool are_numbers(const double *numbers, int n) {
    if (n < 0 || (n > 0 && !numbers))
        return false;
    for (int i = 0; i < n; i++)
        if (!isfinite(numbers[i]))
            return false;
    return true;
}

static qgc_status check_param(const checker *c, size_t i) {
    const qgc_plan_param *m = &c->p->params[i];
    if (!m->name)
        return BROKEN(c, "param %zu has no name", i);
    if (!isfinite(m->value))
        return BROKEN(c, "param \"%s\" is not a finite number", m->name);
    if (!has_keys(m->gguf, m->n_gguf) || !has_keys(m->hf, m->n_hf))
        return BROKEN(c, "a key of param \"%s\" is missing", m->name);
    if (!has_keys(m->words, m->n_words))
        return BROKEN(c, "a word of param \"%s\" is missing", m->name);
    if (!are_numbers(m->values, m->turns) || !are_numbers(m->otherwise, m->n_otherwise) ||
        (m->n_otherwise > 0 && m->n_otherwise != (m->turns ? m->turns : 1)))
        return BROKEN(c, "the values of param \"%s\" are not finite numbers, one for each iteration",
                      m->name);
    return QGC_OK;
}

/* Weights and buffers. */

/* The bytes on the device, or -1 if the shape is not one that a weight may have. */
static int64_t weight_bytes(const qgc_plan_weight *w) {
    int64_t elems = 1;
    if (w->rank < 1 || w->rank > QGC_MAX_RANK)
        return -1;
    for (int i = 0; i < w->rank; i++)
        if (w->shape[i] < 1 || __builtin_mul_overflow(elems, w->shape[i], &elems) ||
            elems > QGC_PLAN_MOST_BYTES / 4)
            return -1;
    const int64_t row = w->shape[w->rank - 1];
    if (row % qgc_dtypes[w->storage].block_elems != 0)
        return -1;
    return elems / row * (int64_t)qgc_planes_bytes(w->storage, row);
}

static bool same_shape(const qgc_plan_weight *a, const qgc_plan_weight *b) {
    return a->rank == b->rank && memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]) == 0;
}

static qgc_status check_tied(const checker *c, size_t i) {
    const qgc_plan_weight *w = &c->p->weights[i];
    if (w->tied == -1)
        return QGC_OK;
    if (w->tied < 0 || (size_t)w->tied >= c->p->n_weights)
        return BROKEN(c, "weight \"%s\" is tied to weight %d, but there are %zu", w->label, w->tied,
                      c->p->n_weights);
    const qgc_plan_weight *other = &c->p->weights[w->tied];
    if (other->tied != -1) /* itself, or the start of a chain */
        return BROKEN(c, "weight \"%s\" is tied to weight %d, which is tied too", w->label, w->tied);
    if (!same_shape(w, other))
        return BROKEN(c, "weight \"%s\" is tied to weight %d, which has another shape", w->label, w->tied);
    return QGC_OK;
}

static bool is_form(const qgc_tensor_form *f) {
    const bool rows = f->last ? 0 <= f->first && f->first < f->last && f->last <= QGC_PLAN_MOST_BYTES
                              : f->first == 0 && f->of == 0;
    return isfinite(f->plus) && f->heads >= 0 && f->heads <= QGC_PLAN_MOST_BYTES && rows &&
           (f->of == 0 || (f->of >= f->last && f->of <= QGC_PLAN_MOST_BYTES)) &&
           (f->stacked_index ? f->stacked >= 1 && f->stacked <= MAX_COUNT : f->stacked == 0);
}

/* What it is made of is there, and makes it. */
static qgc_status check_derived(const checker *c, size_t i) {
    const qgc_plan_weight *w = &c->p->weights[i];
    const qgc_derivation *how = &w->derived;
    qgc_tensor shapes[QGC_MAX_SOURCES], made = {.name = NULL};
    const qgc_tensor *from[QGC_MAX_SOURCES];
    if (how->kind == QGC_DERIVE_NONE)
        return QGC_OK;
    if (how->kind < 0 || how->kind >= QGC_N_DERIVE || how->n_from < 1 || how->n_from > QGC_MAX_SOURCES ||
        w->tied != -1 || !isfinite(how->factor) || how->head_dim < 0)
        return BROKEN(c, "weight \"%s\" has an impossible derivation", w->label);
    for (int k = 0; k < how->n_from; k++) {
        if (how->from[k] < 0 || (size_t)how->from[k] >= i)
            return BROKEN(c, "weight \"%s\" is derived of weight %d, which is not before it", w->label,
                          how->from[k]);
        const qgc_plan_weight *source = &c->p->weights[how->from[k]];
        shapes[k] = (qgc_tensor){.dtype = QGC_F32, .rank = source->rank};
        memcpy(shapes[k].shape, source->shape, sizeof shapes[k].shape);
        from[k] = &shapes[k];
    }
    const char *why = qgc_derive_shape(how, from, &made, c->d->arena);
    if (why)
        return BROKEN(c, "weight \"%s\" cannot be derived: %s", w->label, why);
    if (made.rank != w->rank || memcmp(made.shape, w->shape, (size_t)w->rank * sizeof *w->shape) != 0)
        return BROKEN(c, "weight \"%s\" has another shape than what is derived", w->label);
    return QGC_OK;
}

static qgc_status check_weight(const checker *c, size_t i) {
    const qgc_plan_weight *w = &c->p->weights[i];
    if (!w->label)
        return BROKEN(c, "weight %zu has no label", i);
    if (w->storage >= QGC_N_DTYPES || w->storage == QGC_I32)
        return BROKEN(c, "weight \"%s\" is stored as dtype %d, expected a number or a block format", w->label,
                      (int)w->storage);
    if (weight_bytes(w) < 0)
        return BROKEN(c, "weight \"%s\" has an impossible shape", w->label);
    if (!is_form(&w->gguf_form) || !is_form(&w->hf_form))
        return BROKEN(c, "weight \"%s\" is made of an impossible tensor", w->label);
    return QGC_OK;
}

static qgc_status check_buffer_weight(const checker *c, const qgc_plan_buffer *b) {
    if (b->weight < 0 || (size_t)b->weight >= c->p->n_weights)
        return BROKEN(c, "buffer \"%s\" is for weight %d, but there are %zu", b->name, b->weight,
                      c->p->n_weights);
    const qgc_plan_weight *w = &c->p->weights[b->weight];
    if (b->bytes.fixed < weight_bytes(w))
        return BROKEN(c, "buffer \"%s\" has %lld bytes, but weight \"%s\" has %lld", b->name,
                      (long long)b->bytes.fixed, w->label, (long long)weight_bytes(w));
    return QGC_OK;
}

static qgc_status check_buffer_io(const checker *c, const qgc_plan_buffer *b) {
    if (b->io < 0 || b->io >= QGC_N_IO)
        return BROKEN(c, "buffer \"%s\" has unknown role %d", b->name, b->io);
    if (&c->p->buffers[c->p->io[b->io]] != b)
        return BROKEN(c, "buffer \"%s\" has role %d, which another buffer has", b->name, b->io);
    return QGC_OK;
}

static qgc_status check_buffer(const checker *c, size_t i) {
    const qgc_plan_buffer *b = &c->p->buffers[i];
    const qgc_extent *e = &b->bytes;
    if (!b->name)
        return BROKEN(c, "buffer %zu has no name", i);
    if (!is_safe(e) || e->fixed < 0 || e->per_token < 0 || e->per_row < 0 || e->per_ctx < 0 ||
        e->most_ctx < 0 || (e->most_ctx > 0 && b->kind != QGC_BUFFER_STATE))
        return BROKEN(c, "buffer \"%s\" has an impossible size", b->name);
    bool per_step = e->per_token || e->per_row;
    switch (b->kind) {
    case QGC_BUFFER_WEIGHT:
        if (per_step || e->per_ctx)
            break;
        return check_buffer_weight(c, b);
    case QGC_BUFFER_STATE:
    case QGC_BUFFER_TABLE:
    case QGC_BUFFER_PACKED:
    case QGC_BUFFER_STREAM:
        if (per_step)
            break;
        return QGC_OK;
    case QGC_BUFFER_SCRATCH:
        if (e->per_ctx)
            break;
        if (b->offset < 0 || b->offset % 256 != 0)
            return BROKEN(
                c, "buffer \"%s\" starts at byte %lld of the scratch memory, expected a multiple of 256",
                b->name, (long long)b->offset);
        return QGC_OK;
    case QGC_BUFFER_IO:
        return check_buffer_io(c, b);
    case QGC_N_BUFFER_KINDS:
    default:
        return BROKEN(c, "buffer \"%s\" is of unknown kind %d", b->name, (int)b->kind);
    }
    return BROKEN(c, "the size of buffer \"%s\" depends on what it may not depend on", b->name);
}

/* A session may sum the sizes of any of them. */
static qgc_status check_sum(const checker *c) {
    const qgc_plan *p = c->p;
    const qgc_sizes most = most_of_all(p);
    int64_t sum = 0;
    bool fits = qgc_extent_add(&sum, &(qgc_extent){.fixed = p->scratch_bytes}, &most);
    for (size_t i = 0; fits && i < p->n_weights; i++)
        fits = qgc_extent_add(&sum, &(qgc_extent){.fixed = weight_bytes(&p->weights[i])}, &most);
    for (size_t i = 0; fits && i < p->n_buffers; i++)
        fits = p->buffers[i].kind == QGC_BUFFER_WEIGHT || qgc_extent_add(&sum, &p->buffers[i].bytes, &most);
    return fits ? QGC_OK : BROKEN(c, "the buffers of the plan take more than 2^62 bytes in all");
}

/* That each role has a buffer as large as the session takes it to be. */
static qgc_status check_io(const checker *c) {
    const qgc_plan *p = c->p;
    const struct {
        const char *name;
        qgc_extent needs;
    } roles[QGC_N_IO] = {
        [QGC_IO_TOKENS] = {"tokens", {.per_token = 4}},
        [QGC_IO_POSITIONS] = {"positions", {.per_token = 4}},
        [QGC_IO_ROWS] = {"rows", {.per_row = 4}},
        [QGC_IO_LOGITS] = {"logits", {.per_row = 4 * p->vocab}},
        [QGC_IO_NEXT] = {"next", {.per_row = 4}},
        [QGC_IO_SAMPLING] = {"sampling", {.fixed = sizeof(qgc_sampling)}},
        [QGC_IO_RING] = {"ring", {.fixed = 4}},
        [QGC_IO_FAULT] = {"fault", {.fixed = 4}},
    };
    qgc_sizes most = most_of_all(p);
    for (int i = 0; i < QGC_N_IO; i++) {
        const qgc_plan_buffer *b = &p->buffers[p->io[i]];
        wide_extent spare = minus(widen(&b->bytes, 1), widen(&roles[i].needs, 1));
        if (smallest_of(spare, &most) < 0)
            return BROKEN(c, "buffer \"%s\" is too small for the role \"%s\"", b->name, roles[i].name);
    }
    return QGC_OK;
}

/* Each role has one buffer. */
static qgc_status check_roles(const checker *c) {
    for (int i = 0; i < QGC_N_IO; i++) {
        int b = c->p->io[i];
        if (b < 0 || (size_t)b >= c->p->n_buffers)
            return BROKEN(c, "role %d has buffer %d, but there are %zu", i, b, c->p->n_buffers);
        if (c->p->buffers[b].kind != QGC_BUFFER_IO || c->p->buffers[b].io != i)
            return BROKEN(c, "role %d has buffer %d, which is for something else", i, b);
    }
    return QGC_OK;
}

/* Kernels, images, launches. */

static qgc_status check_kernel(const checker *c, size_t i) {
    const qgc_plan_kernel *k = &c->p->kernels[i];
    if (!k->name || !k->entry || !k->options)
        return BROKEN(c, "kernel %zu has no name, entry or options", i);
    if (k->threads < 1 || k->threads > MAX_THREADS || k->copy_threads < 0 ||
        k->copy_threads > MAX_THREADS - k->threads)
        return BROKEN(c, "kernel \"%s\" has %d + %d threads a block, expected 1 to %d", k->name, k->threads,
                      k->copy_threads, MAX_THREADS);
    if (k->shared_bytes < 0 || k->shared_bytes > MAX_SHARED)
        return BROKEN(c, "kernel \"%s\" has %d bytes of shared memory, expected 0 to %d", k->name,
                      k->shared_bytes, MAX_SHARED);
    if (k->least_shared_bytes < 0 || k->least_shared_bytes > k->shared_bytes)
        return BROKEN(c, "kernel \"%s\" has %d bytes of shared memory at least, expected 0 to %d", k->name,
                      k->least_shared_bytes, k->shared_bytes);
    if (k->lets_next < 0 || k->lets_next >= QGC_N_NEXT)
        return BROKEN(c, "kernel \"%s\" lets the next one start at an unknown time %d", k->name,
                      (int)k->lets_next);
    return QGC_OK;
}

/* As many images as pairs of kernel and architecture, and none twice: so each pair has one. */
static qgc_status check_images(const checker *c) {
    const qgc_plan *p = c->p;
    size_t n_archs = (size_t)p->n_archs, n_pairs = p->n_kernels * n_archs;
    if (p->n_images != n_pairs)
        return BROKEN(c, "the plan has %zu images, expected %zu", p->n_images, n_pairs);
    bool *seen = qgc_arena_array(c->d->arena, n_pairs, sizeof *seen);
    for (size_t i = 0; i < p->n_images; i++) {
        const qgc_plan_image *m = &p->images[i];
        if (m->kernel < 0 || (size_t)m->kernel >= p->n_kernels)
            return BROKEN(c, "image %zu is of kernel %d, but there are %zu", i, m->kernel, p->n_kernels);
        if (m->arch < 0 || m->arch >= p->n_archs)
            return BROKEN(c, "image %zu is for architecture %d, but there are %d", i, m->arch, p->n_archs);
        if (!m->data || m->bytes == 0)
            return BROKEN(c, "image %zu is empty", i);
        bool *pair = &seen[(size_t)m->kernel * n_archs + (size_t)m->arch];
        if (*pair)
            return BROKEN(c, "kernel \"%s\" has two images for \"%s\"", p->kernels[m->kernel].name,
                          p->archs[m->arch]);
        *pair = true;
    }
    return QGC_OK;
}

/* That the buffer is there, and if it is scratch, inside the scratch memory at the sizes of the phase. */
static qgc_status check_use(const checker *c, const qgc_plan_launch *l, int buffer, const qgc_sizes *most) {
    if (buffer < 0 || (size_t)buffer >= c->p->n_buffers)
        return BROKEN(c, "launch \"%s\" names buffer %d, but there are %zu", l->node, buffer,
                      c->p->n_buffers);
    const qgc_plan_buffer *b = &c->p->buffers[buffer];
    if (b->kind != QGC_BUFFER_SCRATCH ||
        largest_of(widen(&b->bytes, 1), most) + b->offset <= c->p->scratch_bytes)
        return QGC_OK;
    return BROKEN(c, "buffer \"%s\" of launch \"%s\" ends after the %lld bytes of the scratch memory",
                  b->name, l->node, (long long)c->p->scratch_bytes);
}

static qgc_status check_access(const checker *c, const qgc_plan_launch *l, int i) {
    const qgc_plan_arg *arg = &l->args[i];
    bool touches = (arg->access & (QGC_READS | QGC_WRITES)) != 0;
    if (arg->access < 0 || arg->access >= QGC_N_ACCESS || (arg->access != 0 && !touches) ||
        (arg->access != 0 && arg->kind != QGC_ARG_BUFFER))
        return BROKEN(c, "argument %d of launch \"%s\" has impossible access %d", i, l->node, arg->access);
    if ((arg->access & QGC_WRITES) && c->p->buffers[arg->buffer].kind == QGC_BUFFER_WEIGHT)
        return BROKEN(c, "argument %d of launch \"%s\" overwrites weight \"%s\"", i, l->node,
                      c->p->buffers[arg->buffer].name);
    return QGC_OK;
}

static qgc_status check_arg(const checker *c, const qgc_plan_launch *l, int i, const qgc_sizes *most) {
    const qgc_plan_arg *arg = &l->args[i];
    if (!is_safe(&arg->value))
        return BROKEN(c, "argument %d of launch \"%s\" has an impossible value", i, l->node);
    switch (arg->kind) {
    case QGC_ARG_BUFFER: {
        QGC_TRY(check_use(c, l, arg->buffer, most));
        const qgc_plan_buffer *b = &c->p->buffers[arg->buffer];
        wide_extent after = minus(widen(&b->bytes, 1), widen(&arg->value, 1));
        if (smallest_of(widen(&arg->value, 1), most) < 0 || smallest_of(after, most) < 0)
            return BROKEN(c, "argument %d of launch \"%s\" points outside buffer \"%s\"", i, l->node,
                          b->name);
        return QGC_OK;
    }
    case QGC_ARG_EARLY:
        return QGC_OK;
    case QGC_ARG_I32:
        if (!is_within(&arg->value, most, INT32_MIN, INT32_MAX))
            return BROKEN(c, "argument %d of launch \"%s\" does not fit 32 bits", i, l->node);
        return QGC_OK;
    case QGC_N_ARG_KINDS:
    default:
        return BROKEN(c, "argument %d of launch \"%s\" is of unknown kind %d", i, l->node, (int)arg->kind);
    }
}

static qgc_status check_grid(const checker *c, const qgc_plan_launch *l, const qgc_sizes *most) {
    for (int i = 0; i < 3; i++) {
        int64_t limit = i == 0 ? MAX_GRID_X : MAX_GRID_YZ;
        if (l->per_block[i] < 1 || l->per_block[i] > INT32_MAX)
            return BROKEN(c, "launch \"%s\" gives a block %lld along %c, expected 1 to %d", l->node,
                          (long long)l->per_block[i], "xyz"[i], INT32_MAX);
        if (!is_within(&l->grid[i], most, 1, limit * l->per_block[i]))
            return BROKEN(c, "the grid of launch \"%s\" may be outside 1 to %lld along %c", l->node,
                          (long long)limit, "xyz"[i]);
    }
    return QGC_OK;
}

static qgc_status check_kernel_launch(const checker *c, const qgc_plan_launch *l, const qgc_sizes *most) {
    if (l->kernel < 0 || (size_t)l->kernel >= c->p->n_kernels)
        return BROKEN(c, "launch \"%s\" is of kernel %d, but there are %zu", l->node, l->kernel,
                      c->p->n_kernels);
    if (l->n_args < 0 || l->n_args > QGC_MAX_ARGS)
        return BROKEN(c, "launch \"%s\" has %d arguments, expected 0 to %d", l->node, l->n_args,
                      QGC_MAX_ARGS);
    for (int i = 0; i < l->n_args; i++) {
        QGC_TRY(check_arg(c, l, i, most));
        QGC_TRY(check_access(c, l, i));
    }
    return check_grid(c, l, most);
}

static qgc_status check_gemm_launch(const checker *c, const qgc_plan_launch *l, const qgc_sizes *most) {
    const int at[] = {l->a, l->b, l->c};
    for (int i = 0; i < 3; i++)
        QGC_TRY(check_use(c, l, at[i], most));
    if (l->n < 1 || l->n > INT32_MAX || l->k < 1 || l->k > INT32_MAX ||
        !is_within(&l->rows, most, 1, INT32_MAX))
        return BROKEN(c, "the product of launch \"%s\" may have dimensions outside 1 to %d", l->node,
                      INT32_MAX);
    if (l->c == l->a || l->c == l->b || c->p->buffers[l->c].kind == QGC_BUFFER_WEIGHT)
        return BROKEN(c, "the product of launch \"%s\" overwrites what it reads", l->node);

    const qgc_extent n = {.fixed = l->n};
    const wide_extent needs[] = {widen(&l->rows, 2 * l->k), widen(&n, 2 * l->k), widen(&l->rows, 4 * l->n)};
    for (int i = 0; i < 3; i++) {
        const qgc_plan_buffer *b = &c->p->buffers[at[i]];
        if (smallest_of(minus(widen(&b->bytes, 1), needs[i]), most) < 0)
            return BROKEN(c, "buffer \"%s\" is too small for %c of the product of launch \"%s\"", b->name,
                          "abc"[i], l -> node);
    }
    return QGC_OK;
}

static qgc_status check_parts(const checker *c, const qgc_plan_launch *l) {
    if (l->n_parts < 0 || l->n_parts > QGC_MAX_PARTS || (l->n_parts > 0 && !l->parts))
        return BROKEN(c, "launch \"%s\" has %d parts", l->node, l->n_parts);
    if (l->n_layers < 0 || l->n_layers > MAX_COUNT)
        return BROKEN(c, "launch \"%s\" has %d layers", l->node, l->n_layers);
    for (int i = 0; i < l->n_parts; i++)
        if (!l->parts[i].name || l->parts[i].weight_bytes < 0 || l->parts[i].position_bytes < 0)
            return BROKEN(c, "part %d of launch \"%s\" has no name or reads less than nothing", i, l->node);
    return QGC_OK;
}

static qgc_status check_trace(const checker *c) {
    const qgc_plan *p = c->p;
    const qgc_plan_launch *traced = qgc_phase_parts(&p->phases[QGC_PHASE_PERSISTENT]);
    if (p->trace == -1)
        return QGC_OK;
    if (p->trace < 0 || (size_t)p->trace >= p->n_buffers || p->buffers[p->trace].kind != QGC_BUFFER_PACKED ||
        p->buffers[p->trace].bytes.fixed < qgc_trace_bytes(traced ? traced->n_parts : 0))
        return BROKEN(c, "buffer %d is not one for a trace", p->trace);
    return QGC_OK;
}

static qgc_status check_seen(const checker *c) {
    const qgc_plan *p = c->p;
    if (p->seen == -1)
        return QGC_OK;
    if (p->seen < 0 || (size_t)p->seen >= p->n_buffers || p->buffers[p->seen].kind != QGC_BUFFER_STATE ||
        p->buffers[p->seen].bytes.fixed / (int64_t)sizeof(int32_t) < p->vocab)
        return BROKEN(c, "buffer %d is not a state with a mark for each of %lld tokens", p->seen,
                      (long long)p->vocab);
    return QGC_OK;
}

static qgc_status check_share(const checker *c, const qgc_share *x) {
    const int64_t most = (int64_t)1 << 31;
    if (x->rows < 1 || x->rows >= most || x->unit < 1 || x->unit > x->rows + 64 || x->cost < 1 ||
        x->cost >= most || x->loop < 0 || x->apart < 0)
        return BROKEN(c, "a share of %lld rows in units of %lld, of %lld bytes, is impossible",
                      (long long)x->rows, (long long)x->unit, (long long)x->cost);
    return QGC_OK;
}

static qgc_status check_shares(const checker *c) {
    const qgc_plan *p = c->p;
    if (p->n_shares == 0 && p->shares_buffer == -1)
        return QGC_OK;
    if (p->n_shares > QGC_MOST_SHARES || p->shares_buffer < 0 || (size_t)p->shares_buffer >= p->n_buffers ||
        p->buffers[p->shares_buffer].kind != QGC_BUFFER_STREAM ||
        p->buffers[p->shares_buffer].bytes.fixed < (int64_t)8 * QGC_MOST_BLOCKS * (int64_t)p->n_shares)
        return BROKEN(c, "buffer %d is not one for %zu shares", p->shares_buffer, p->n_shares);
    for (size_t i = 0; i < p->n_shares; i++)
        QGC_TRY(check_share(c, &p->shares[i]));
    return QGC_OK;
}

static qgc_status check_launch(const checker *c, int phase, size_t i) {
    const qgc_plan_launch *l = &c->p->phases[phase].launches[i];
    qgc_sizes most = most_of(c->p, (qgc_phase_kind)phase);
    if (!l->node || !l->where)
        return BROKEN(c, "launch %zu of phase %d does not say of which node it is", i, phase);
    if (l->position_bytes < 0)
        return BROKEN(c, "launch \"%s\" reads %lld bytes of caches for a position", l->node,
                      (long long)l->position_bytes);
    if (l->weight_bytes < 0)
        return BROKEN(c, "launch \"%s\" reads %lld bytes of weights", l->node, (long long)l->weight_bytes);
    QGC_TRY(check_parts(c, l));
    switch (l->kind) {
    case QGC_LAUNCH_KERNEL:
        return check_kernel_launch(c, l, &most);
    case QGC_LAUNCH_GEMM:
        return check_gemm_launch(c, l, &most);
    case QGC_N_LAUNCH_KINDS:
    default:
        return BROKEN(c, "launch \"%s\" is of unknown kind %d", l->node, (int)l->kind);
    }
}

/* What says that it starts early is held against the same proof as what lowering has placed. */
static qgc_status check_early(const checker *c, int phase, size_t i) {
    const qgc_plan_launch *l = &c->p->phases[phase].launches[i];
    if (!l->early)
        return QGC_OK;
    const char *why = !qgc_phase_may_overlap((qgc_phase_kind)phase)
                          ? "it is in no phase in which launches do"
                          : qgc_edge_refusal(c->p, (qgc_phase_kind)phase, i, c->d->arena);
    return why ? BROKEN(c, "launch \"%s\" is to start early: %s", l->node, why) : QGC_OK;
}

/* Reports sum them. */
static qgc_status check_reads(const checker *c, int phase) {
    wide sum = 0;
    for (size_t i = 0; i < c->p->phases[phase].n_launches; i++) {
        const qgc_plan_launch *l = &c->p->phases[phase].launches[i];
        wide parts = 0;
        for (int k = 0; k < l->n_parts; k++)
            parts += l->parts[k].weight_bytes + (wide)l->parts[k].position_bytes * max_size;
        sum += l->weight_bytes + (wide)l->position_bytes * max_size + parts;
    }
    return sum <= QGC_PLAN_MOST_BYTES ? QGC_OK
                                      : BROKEN(c, "launches of phase \"%s\" read more than 2^62 bytes in all",
                                               qgc_phase_name((qgc_phase_kind)phase));
}

static qgc_status check_phases(const checker *c) {
    for (int phase = 0; phase < QGC_N_PHASES; phase++) {
        bool may_be_empty =
            phase == QGC_PHASE_INIT || phase == QGC_PHASE_PREFILL || phase == QGC_PHASE_BEGIN ||
            (phase >= QGC_PHASE_PACK && c->p->not_persistent != NULL) ||
            (phase == QGC_PHASE_PACKED_PREFILL && c->p->phases[QGC_PHASE_PREFILL].n_launches == 0) ||
            (phase == QGC_PHASE_LONG_PREFILL && c->p->long_chunk == 0);
        if (!may_be_empty && c->p->phases[phase].n_launches == 0)
            return BROKEN(c, "phase \"%s\" of the plan is empty", qgc_phase_name((qgc_phase_kind)phase));
        for (size_t i = 0; i < c->p->phases[phase].n_launches; i++) {
            QGC_TRY(check_launch(c, phase, i));
            QGC_TRY(check_early(c, phase, i));
        }
        QGC_TRY(check_reads(c, phase));
    }
    return QGC_OK;
}

static qgc_status check_each(const checker *c, size_t n, qgc_status (*check)(const checker *c, size_t i)) {
    for (size_t i = 0; i < n; i++)
        QGC_TRY(check(c, i));
    return QGC_OK;
}

/* In this order, so that each check may rely on those before it. */

static qgc_status check_head(const checker *c) {
    QGC_TRY(check_texts(c));
    QGC_TRY(check_numbers(c));
    QGC_TRY(check_archs(c));
    return check_counts(c);
}

static qgc_status check_buffers(const checker *c) {
    QGC_TRY(check_each(c, c->p->n_weights, check_weight));
    QGC_TRY(check_each(c, c->p->n_weights, check_tied));
    QGC_TRY(check_each(c, c->p->n_weights, check_derived));
    QGC_TRY(check_roles(c));
    QGC_TRY(check_each(c, c->p->n_buffers, check_buffer));
    QGC_TRY(check_shares(c));
    QGC_TRY(check_sum(c));
    return check_io(c);
}

qgc_status qgc_plan_check(const qgc_plan *p, qgc_loc at, qgc_diag *d) {
    const checker c = {p, at, d};
    QGC_TRY(check_head(&c));
    QGC_TRY(check_each(&c, p->n_params, check_param));
    QGC_TRY(check_buffers(&c));
    QGC_TRY(check_each(&c, p->n_kernels, check_kernel));
    QGC_TRY(check_images(&c));
    QGC_TRY(check_phases(&c));
    QGC_TRY(check_seen(&c));
    return check_trace(&c);
}
