#include "runtime/session.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/arch.h"
#include "graph/base/cuda_places.h"
#include "runtime/capture.h"

/* One feed or step on the stream:
 *
 *   host    tokens, positions, rows --upload-->            (feed only)
 *   device  prefill or decode; its last kernel puts the token chosen into tokens[0], the position after into
 *           positions[0], and the token into ring[position % size]
 *   host    waits until the token is in the ring, which is host memory
 *
 * So a step needs nothing from the host but its launch. */

struct qgc_session {
    qgc_arena *arena;
    qgc_program *program;
    const qgc_plan *plan;
    qgc_device *dev;
    qgc_session_options options;
    qgc_address *addresses; /* by buffer of the plan */
    qgc_address states;     /* all states, one after the other */
    size_t state_bytes;
    qgc_address tables, packed, scratch, io, pinned[2];
    size_t table_bytes, packed_bytes;
    volatile int32_t *ring; /* written by the device; what is not there yet is -1 */
    const volatile int32_t *fault;
    int64_t ring_size;
    int64_t
        most_steps; /* that may be queued: their choices have a place in the ring, and they can be undone */
    qgc_capture *decode; /* NULL in stream mode */
    qgc_capture *
        several; /* STEPS_TOGETHER steps, each of which starts as the one before ends; NULL where they could not */
    qgc_capture *chunk, *long_chunk; /* whole chunks of a prompt in persistent mode, or NULL */
    int32_t *positions;              /* [the largest chunk] */
    int64_t position;
    int64_t queued;     /* steps after the position whose choice nobody has taken */
    bool chosen;        /* a token waits in tokens[0] on the device */
    int32_t last;       /* that token, when it is taken */
    bool *fed;          /* by token: it is in the caches; NULL where nobody asks */
    int64_t n_rows;     /* of the logits of the last qgc_session_feed_rows */
    int64_t not_finite; /* the first position whose logits are not numbers, or -1 */
};

/* Beside the token in the ring: kernels/sample_merge.cu saw no number, or an infinite one, as the largest logit. */
enum { NOT_NUMBERS = 1 << 30 };

enum { MAX_CTX = 1 << 24, STEPS_TOGETHER = 8, STEPS_AHEAD = 2 };

static qgc_status check_range(const char *name, float value, bool ok, const char *range, qgc_diag *d) {
    if (ok && isfinite(value))
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "sampling wants a %s %s, got %g", name, range,
                    (double)value);
}

qgc_status qgc_sampling_check(const qgc_sampling *s, qgc_diag *d) {
    QGC_TRY(check_range("temperature", s->temperature, s->temperature >= 0, "of 0 or more", d));
    QGC_TRY(check_range("top_k", (float)s->top_k, s->top_k >= 0, "of 0 or more", d));
    QGC_TRY(check_range("top_p", s->top_p, s->top_p > 0 && s->top_p <= 1, "above 0 and at most 1", d));
    QGC_TRY(check_range("min_p", s->min_p, s->min_p >= 0 && s->min_p <= 1, "from 0 to 1", d));
    return check_range("repeat_penalty", s->repeat_penalty, s->repeat_penalty > 0, "above 0", d);
}

static qgc_status check_options(const qgc_session *s, qgc_diag *d) {
    const qgc_session_options *o = &s->options;
    const qgc_plan *plan = s->plan;
    int64_t most = plan->max_positions > 0 && plan->max_positions < MAX_CTX ? plan->max_positions : MAX_CTX;
    if (o->ctx < 1)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "a context of %lld positions, expected 1 or more",
                        (long long)o->ctx);
    if (o->ctx > most) {
        qgc_status status = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                                     "a context of %lld positions, \"%s\" can have at most %lld",
                                     (long long)o->ctx, plan->name, (long long)most);
        qgc_hint(d, "Use --ctx %lld or less.", (long long)most);
        return status;
    }
    return qgc_sampling_check(&o->sampling, d);
}

static const char *const prefills[] = {
    [QGC_PREFILL_CHUNKS] = "chunks", [QGC_PREFILL_STEPS] = "steps", [QGC_PREFILL_PACKED] = "packed"};

const char *qgc_prefill_name(qgc_prefill prefill) {
    return prefills[prefill];
}

qgc_status qgc_prefill_named(const char *name, qgc_prefill *out, qgc_diag *d) {
    for (size_t i = 0; i < sizeof prefills / sizeof *prefills; i++)
        if (strcmp(name, prefills[i]) == 0) {
            *out = (qgc_prefill)i;
            return QGC_OK;
        }
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "unknown prefill \"%s\", expected chunks, packed or steps",
                    name);
}

static bool is_persistent(const qgc_session *s) {
    return s->options.mode == QGC_MODE_PERSISTENT;
}

/* Does a chunk of a prompt go through it at once? */
static bool takes_chunks(const qgc_session *s) {
    return s->options.prefill != QGC_PREFILL_STEPS;
}

/* The phase that takes a chunk of so many tokens of a prompt. */
static qgc_phase_kind prefill_phase(const qgc_session *s, int64_t tokens) {
    return s->options.prefill != QGC_PREFILL_PACKED ? QGC_PHASE_PREFILL
           : tokens > s->plan->chunk                ? QGC_PHASE_LONG_PREFILL
                                                    : QGC_PHASE_PACKED_PREFILL;
}

/* The most tokens that go through it at once. */
static int64_t largest_chunk(const qgc_session *s) {
    const bool is_long = s->options.prefill == QGC_PREFILL_PACKED && s->plan->long_chunk;
    return !takes_chunks(s) ? 1 : is_long ? s->plan->long_chunk : s->plan->chunk;
}

/* Handle and workspace of cuBLAS now, so that no feed allocates. */
static qgc_status prepare_prefill(const qgc_session *s, qgc_diag *d) {
    if (!takes_chunks(s))
        return QGC_OK;
    if (s->plan->phases[prefill_phase(s, 1)].n_launches == 0) {
        qgc_status status =
            qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" has no prefill in chunks", s->plan->name);
        qgc_hint(d, "Take the prompt in decode steps (QGC_PREFILL_STEPS, --prefill steps).");
        return status;
    }
    if (!qgc_phase_has_gemm(&s->plan->phases[prefill_phase(s, 1)]))
        return QGC_OK;
    const char *why;
    if (!qgc_device_has_gemm(s->dev, &why)) {
        qgc_status status =
            qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "prefill in chunks needs cuBLAS: %s", why);
        qgc_hint(
            d,
            "Take the prompt in decode steps (QGC_PREFILL_STEPS, --prefill steps), which need no cuBLAS; or fetch it: %s",
            qgc_cuda_install("nvidia-cublas", d->arena));
        return status;
    }
    return qgc_device_prepare_gemm(s->dev, d);
}

/* True for the buffers that the session keeps in one region of this kind. */
static bool in_region(const qgc_session *s, size_t i, qgc_buffer_kind kind) {
    const qgc_plan_buffer *b = &s->plan->buffers[i];
    return b->kind == kind && !(kind == QGC_BUFFER_IO && (b->io == QGC_IO_RING || b->io == QGC_IO_FAULT));
}

/* One allocation for all buffers of a kind, each at a multiple of 256. */
static qgc_status allocate_region(qgc_session *s, qgc_buffer_kind kind, const char *owner,
                                  qgc_address *region, size_t *bytes, qgc_diag *d) {
    const qgc_plan *plan = s->plan;
    qgc_sizes sizes = qgc_plan_largest(plan);
    sizes.ctx = s->options.ctx;
    int64_t total = 0;
    *bytes = 0;
    for (size_t i = 0; i < plan->n_buffers; i++) {
        if (!in_region(s, i, kind))
            continue;
        s->addresses[i] = (qgc_address)total;
        if (!qgc_extent_add(&total, &plan->buffers[i].bytes, &sizes))
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "%s of more than 2^62 bytes in all", owner);
    }
    *bytes = (size_t)total;
    if (total == 0)
        return QGC_OK;
    QGC_TRY(qgc_device_alloc(s->dev, owner, *bytes, region, d));
    for (size_t i = 0; i < plan->n_buffers; i++)
        if (in_region(s, i, kind))
            s->addresses[i] += *region;
    return QGC_OK;
}

static qgc_status allocate_scratch(qgc_session *s, qgc_diag *d) {
    if (s->plan->scratch_bytes == 0)
        return QGC_OK;
    QGC_TRY(qgc_device_alloc(s->dev, "scratch", (size_t)s->plan->scratch_bytes, &s->scratch, d));
    for (size_t i = 0; i < s->plan->n_buffers; i++)
        if (s->plan->buffers[i].kind == QGC_BUFFER_SCRATCH)
            s->addresses[i] = s->scratch + (uint64_t)s->plan->buffers[i].offset;
    return QGC_OK;
}

/* What the device writes into the host's memory: the ring, and the place of a fault. */
static qgc_status allocate_pinned(qgc_session *s, qgc_diag *d) {
    const qgc_io roles[] = {QGC_IO_RING, QGC_IO_FAULT};
    for (int i = 0; i < 2; i++) {
        const int at = s->plan->io[roles[i]];
        const qgc_sizes sizes = {.tokens = 1, .rows = 1, .ctx = s->options.ctx};
        const int64_t bytes = qgc_extent_size(&s->plan->buffers[at].bytes, &sizes);
        void *host;
        QGC_TRY(qgc_device_alloc_pinned(s->dev, (size_t)bytes, &host, &s->pinned[i], d));
        if (roles[i] == QGC_IO_RING)
            s->ring = host;
        else
            s->fault = host;
        s->addresses[at] = s->pinned[i];
        if (roles[i] == QGC_IO_RING)
            s->ring_size = bytes / (int64_t)sizeof *s->ring;
    }
    const int64_t spare = s->plan->spare;
    s->most_steps = spare && spare < s->ring_size ? spare : s->ring_size;
    return QGC_OK;
}

static qgc_address io_address(const qgc_session *s, qgc_io role) {
    return s->addresses[s->plan->io[role]];
}

static qgc_sizes sizes_of(const qgc_session *s, int64_t tokens) {
    return (qgc_sizes){.tokens = tokens, .rows = 1, .ctx = s->options.ctx};
}

/* How much the launches of a phase overlap in this session, in a step by itself or in one of several. */
static qgc_overlap overlap_of(const qgc_session *s, qgc_phase_kind phase, bool follows) {
    if (phase == QGC_PHASE_DECODE && s->options.mode == QGC_MODE_PDL)
        return QGC_OVERLAP_WITHIN;
    const bool may = phase == QGC_PHASE_PERSISTENT || qgc_phase_is_packed(phase);
    const qgc_overlap most = may ? qgc_program_overlaps(s->program, phase) : QGC_OVERLAP_NONE;
    return most == QGC_OVERLAP_STEPS && !follows ? QGC_OVERLAP_WITHIN : most;
}

/* `follows`: the launch before it is a step of the same phase. */
static qgc_status launch_after(qgc_session *s, qgc_phase_kind phase, int64_t tokens, bool follows,
                               qgc_diag *d) {
    qgc_sizes sizes = sizes_of(s, tokens);
    sizes.rows = qgc_plan_rows(s->plan, phase, tokens);
    return qgc_program_launch(s->program, phase, s->addresses, &sizes, overlap_of(s, phase, follows), d);
}

static qgc_status launch(qgc_session *s, qgc_phase_kind phase, int64_t tokens, qgc_diag *d) {
    return launch_after(s, phase, tokens, false, d);
}

static qgc_phase_kind decode_phase(const qgc_session *s) {
    return is_persistent(s) ? QGC_PHASE_PERSISTENT : QGC_PHASE_DECODE;
}

static qgc_status capture(qgc_session *s, qgc_phase_kind phase, int64_t tokens, int times, qgc_capture **out,
                          qgc_diag *d) {
    QGC_TRY(qgc_capture_begin(s->dev, d));
    qgc_status launched = QGC_OK;
    for (int i = 0; i < times && launched == QGC_OK; i++)
        launched = launch_after(s, phase, tokens, i > 0, d);
    qgc_status ended = qgc_capture_end(s->dev, out, d);
    return launched != QGC_OK ? launched : ended;
}

/* Is there something to gain from steps that are launched together, and can those be undone that nobody wants? */
static bool go_together(const qgc_session *s) {
    return overlap_of(s, decode_phase(s), true) == QGC_OVERLAP_STEPS && s->fed &&
           s->most_steps >= STEPS_TOGETHER + STEPS_AHEAD && s->options.ctx >= STEPS_TOGETHER;
}

/* A whole chunk of that size, if there is one and a context has room for it. */
static qgc_status capture_chunk(qgc_session *s, int64_t tokens, qgc_capture **out, qgc_diag *d) {
    if (s->options.prefill != QGC_PREFILL_PACKED || tokens < 2 || tokens > s->options.ctx)
        return QGC_OK;
    return capture(s, prefill_phase(s, tokens), tokens, 1, out, d);
}

static qgc_status capture_steps(qgc_session *s, qgc_diag *d) {
    if (s->options.mode == QGC_MODE_STREAM)
        return QGC_OK;
    QGC_TRY(capture_chunk(s, s->plan->chunk, &s->chunk, d));
    QGC_TRY(capture_chunk(s, s->plan->long_chunk, &s->long_chunk, d));
    if (go_together(s))
        QGC_TRY(capture(s, decode_phase(s), 1, STEPS_TOGETHER, &s->several, d));
    return capture(s, decode_phase(s), 1, 1, &s->decode, d);
}

static qgc_status allocate(qgc_session *s, size_t *io_bytes, qgc_diag *d) {
    QGC_TRY(allocate_region(s, QGC_BUFFER_STATE, "kv cache", &s->states, &s->state_bytes, d));
    QGC_TRY(allocate_region(s, QGC_BUFFER_TABLE, "tables", &s->tables, &s->table_bytes, d));
    QGC_TRY(allocate_region(s, QGC_BUFFER_IO, "io", &s->io, io_bytes, d));
    if (is_persistent(s))
        QGC_TRY(allocate_region(s, QGC_BUFFER_PACKED, "exchange", &s->packed, &s->packed_bytes, d));
    QGC_TRY(allocate_scratch(s, d));
    return allocate_pinned(s, d);
}

/* cuBLAS loads its kernels when they are first used, some 80 ms in all on an H100: better now than in the first
 * answer. Steps of synthetic tokens, whose traces in the states are wiped out afterwards. */
static qgc_status warm_up_prefill(qgc_session *s, qgc_diag *d) {
    if (!takes_chunks(s) || !qgc_phase_has_gemm(&s->plan->phases[prefill_phase(s, 1)]))
        return QGC_OK;
    const int64_t most = s->plan->chunk < s->options.ctx ? s->plan->chunk : s->options.ctx;
    QGC_TRY(launch(s, prefill_phase(s, 1), most < 32 ? most : 32, d));
    return launch(s, prefill_phase(s, most), most, d);
}

static qgc_status fill(qgc_session *s, size_t io_bytes, qgc_diag *d) {
    QGC_TRY(qgc_device_fill(s->dev, s->io, 0, io_bytes, d));
    QGC_TRY(qgc_device_upload(s->dev, io_address(s, QGC_IO_SAMPLING), &s->options.sampling,
                              sizeof s->options.sampling, d));
    if (s->table_bytes)
        QGC_TRY(qgc_device_fill(s->dev, s->tables, 0, s->table_bytes, d));
    QGC_TRY(launch(s, QGC_PHASE_INIT, 1, d));
    if (is_persistent(s)) {
        QGC_TRY(qgc_device_fill(s->dev, s->packed, 0, s->packed_bytes, d));
        QGC_TRY(launch(s, QGC_PHASE_BEGIN, 1, d));
    }
    QGC_TRY(warm_up_prefill(s, d));
    QGC_TRY(qgc_device_fill(s->dev, s->states, 0, s->state_bytes, d));
    return qgc_device_sync(s->dev, d); /* an error of the init phase shows here and not in the first feed */
}

/* Are products from the stream of the persistent step as fast as those of cuBLAS from a plain copy, and is there none yet? Where there is
 * one, as where modes are compared, all modes have the same numbers after a prompt. */
static bool is_packed_better(const qgc_session *s) {
    const qgc_phase *packed = &s->plan->phases[QGC_PHASE_PACKED_PREFILL];
    return !qgc_program_has_weights(s->program) && packed->n_launches > 0 && !qgc_phase_has_gemm(packed) &&
           qgc_arch_has_wgmma(qgc_program_arch(s->program));
}

/* Products of many tokens from the stream of the persistent step are of bf16, on tensor cores. Why not on these, or NULL. */
static const char *no_packed_prefill(const qgc_session *s, qgc_arena *a) {
    enum { FIRST_WITH_BF16 = 80 };
    const char *arch = qgc_program_arch(s->program);
    if (qgc_arch_number(arch) >= FIRST_WITH_BF16)
        return NULL;
    return qgc_arena_printf(a, "image %s multiplies no bf16 on tensor cores, which sm_80 does", arch);
}

static qgc_status refuse_packed_prefill(const char *why, qgc_diag *d) {
    qgc_status status =
        qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "a prompt cannot be multiplied from packed weights: %s", why);
    qgc_hint(d, "Use --prefill steps.");
    return status;
}

static qgc_status choose_prefill(qgc_session *s, qgc_diag *d) {
    const char *no_packed = no_packed_prefill(s, d->arena);
    if (s->options.prefill == QGC_PREFILL_PACKED && is_persistent(s) && no_packed)
        return refuse_packed_prefill(no_packed, d);
    if (s->options.prefill == QGC_PREFILL_PACKED && !is_persistent(s)) {
        qgc_status status =
            qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                     "a prompt from packed weights is for persistent mode, and this is %s mode",
                     qgc_mode_name(s->options.mode));
        qgc_hint(d, "Use --prefill chunks.");
        return status;
    }
    if (!is_persistent(s) || s->options.prefill != QGC_PREFILL_CHUNKS)
        return QGC_OK;
    const bool better = is_packed_better(s);
    const char *why = better ? NULL : qgc_mode_no_second_copy(s->program, s->options.ctx, d->arena);
    if (why && no_packed) {
        s->options.prefill = QGC_PREFILL_STEPS;
        qgc_program_note(s->program, "the prompt takes decode steps: %s; %s", why, no_packed);
        return QGC_OK;
    }
    if (better || why)
        s->options.prefill = QGC_PREFILL_PACKED;
    if (why)
        qgc_program_note(s->program, "the prompt is multiplied from the packed weights: %s", why);
    return QGC_OK;
}

/* What the mode reads of the weights, and what chunks of a prompt read. */
static qgc_status want_weights(qgc_session *s, qgc_diag *d) {
    const qgc_plan *plan = s->plan;
    const bool both = is_persistent(s) && s->options.prefill == QGC_PREFILL_CHUNKS;
    if (both)
        QGC_TRY(qgc_program_want(s->program, false, d));
    QGC_TRY(qgc_program_want(s->program, is_persistent(s), d));
    memcpy(s->addresses, qgc_program_addresses(s->program, is_persistent(s)),
           plan->n_buffers * sizeof *s->addresses);
    const qgc_address *stored = qgc_program_addresses(s->program, false);
    for (size_t i = 0; i < plan->n_buffers && both; i++)
        if (plan->buffers[i].kind == QGC_BUFFER_WEIGHT)
            s->addresses[i] = stored[i];
    return QGC_OK;
}

static qgc_status begin(qgc_session *s, qgc_diag *d) {
    size_t io_bytes;
    QGC_TRY(check_options(s, d));
    QGC_TRY(qgc_mode_check(s->program, s->options.mode, d));
    QGC_TRY(choose_prefill(s, d));
    QGC_TRY(prepare_prefill(s, d));
    qgc_times_lap(s->options.times, "cuBLAS");
    QGC_TRY(want_weights(s, d));
    qgc_times_lap(s->options.times, "weights sent and packed");
    QGC_TRY(allocate(s, &io_bytes, d));
    qgc_times_lap(s->options.times, "memory of the session");
    QGC_TRY(fill(s, io_bytes, d));
    qgc_times_lap(s->options.times, "tables and first launches");
    QGC_TRY(capture_steps(s, d));
    qgc_times_lap(s->options.times, "graphs of steps");
    return QGC_OK;
}

qgc_status qgc_session_new(qgc_session **out, qgc_program *p, const qgc_session_options *o, qgc_diag *d) {
    *out = NULL;
    const qgc_plan *plan = qgc_program_plan(p);
    qgc_arena *arena = qgc_arena_new();
    qgc_session *s = qgc_arena_alloc(arena, sizeof *s);
    *s = (qgc_session){.arena = arena,
                       .program = p,
                       .plan = plan,
                       .dev = qgc_program_device(p),
                       .not_finite = -1,
                       .options = *o};
    s->addresses = qgc_arena_array(arena, plan->n_buffers, sizeof *s->addresses);
    s->positions = qgc_arena_array(arena, (size_t)qgc_plan_largest(plan).tokens, sizeof *s->positions);
    if (plan->seen >= 0)
        s->fed = qgc_arena_array(arena, (size_t)plan->vocab, sizeof *s->fed);
    qgc_frame frame = {d->top, "starting a session", NULL, QGC_NO_LOC};
    d->top = &frame;
    qgc_status status = begin(s, d);
    d->top = frame.up;
    if (status == QGC_OK)
        *out = s;
    else
        qgc_session_drop(s);
    return status;
}

void qgc_session_drop(qgc_session *s) {
    if (!s)
        return;
    qgc_capture_drop(s->dev, s->decode);
    qgc_capture_drop(s->dev, s->several);
    qgc_capture_drop(s->dev, s->chunk);
    qgc_capture_drop(s->dev, s->long_chunk);
    const qgc_address owned[] = {s->states,  s->tables,    s->packed,   s->io,
                                 s->scratch, s->pinned[0], s->pinned[1]};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        qgc_device_free(s->dev, owned[i]);
    qgc_arena_drop(s->arena);
}

int64_t qgc_session_position(const qgc_session *s) {
    return s->position;
}
int64_t qgc_session_room(const qgc_session *s) {
    return s->options.ctx - s->position;
}

static qgc_status check_room(const qgc_session *s, int64_t n, qgc_diag *d) {
    if (n <= qgc_session_room(s))
        return QGC_OK;
    qgc_status status = qgc_fail(
        d, QGC_ERR_INPUT, QGC_NO_LOC, "no room for %lld %s: %lld of %lld positions are taken", (long long)n,
        n == 1 ? "token" : "tokens", (long long)s->position, (long long)s->options.ctx);
    qgc_hint(d, "Use a larger context (--ctx) or a shorter text.");
    return status;
}

/* The decode phase on what lies in tokens[0] and positions[0]. */
static qgc_status decode(qgc_session *s, qgc_diag *d) {
    if (s->decode)
        return qgc_capture_replay(s->dev, s->decode, d);
    return launch(s, decode_phase(s), 1, d);
}

/* The kernel says where it gave up a wait (codegen/plan.h), if nothing has written over that word. */
static void note_fault(const qgc_plan *plan, int32_t fault, qgc_diag *d) {
    const qgc_plan_launch *l = qgc_phase_parts(&plan->phases[QGC_PHASE_PERSISTENT]);
    if (!l || fault < 1 || fault > (int64_t)l->n_parts * l->n_layers)
        qgc_note(d, QGC_NO_LOC, "the word for a wait given up is damaged: it is %d", (int)fault);
    else
        qgc_note(d, QGC_NO_LOC, "\"%s\" waited in vain for what \"%s\" of layer %d reads", l->node,
                 l->parts[(fault - 1) % l->n_parts].name, (int)((fault - 1) / l->n_parts));
}

/* What a wait for the device gave, with the place of a fault. */
static qgc_status waited(const qgc_session *s, qgc_status status, qgc_diag *d) {
    if (status != QGC_OK && *s->fault)
        note_fault(s->plan, *s->fault, d);
    return status;
}

/* The place in the ring of the token chosen after a position; before the step is launched it is cleared. */
static void expect_choice(qgc_session *s, int64_t position) {
    s->ring[position % s->ring_size] = -1;
}

/* Waits until it is there. The device may have failed meanwhile, and is asked now and then. */
static qgc_status choice(qgc_session *s, int64_t position, int32_t *next, qgc_diag *d) {
    enum { LOOKS = 4096 };
    const volatile int32_t *place = &s->ring[position % s->ring_size];
    for (bool busy = true; *place < 0 && busy;) {
        for (int i = 0; i < LOOKS && *place < 0; i++)
            ;
        if (*place < 0)
            QGC_TRY(waited(s, qgc_device_busy(s->dev, &busy, d), d));
    }
    *next = *place;
    return *next >= 0
               ? QGC_OK
               : waited(s,
                        qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "the device ended a step without a choice"),
                        d);
}

/* The token of a place in the ring, and what sampling says of its logits. */
static int32_t token_of(qgc_session *s, int64_t position, int32_t place) {
    if (place < 0 || !(place & NOT_NUMBERS))
        return place;
    if (s->not_finite < 0)
        s->not_finite = position;
    return place & ~NOT_NUMBERS;
}

static qgc_status put(qgc_session *s, qgc_io role, const int32_t *values, int64_t n, qgc_diag *d) {
    return qgc_device_upload(s->dev, io_address(s, role), values, (size_t)n * sizeof *values, d);
}

static qgc_status feed_one(qgc_session *s, int32_t token, int32_t position, qgc_diag *d) {
    QGC_TRY(put(s, QGC_IO_TOKENS, &token, 1, d));
    QGC_TRY(put(s, QGC_IO_POSITIONS, &position, 1, d));
    return decode(s, d);
}

/* `first`, first + 1, ... */
static qgc_status put_count(qgc_session *s, qgc_io role, int64_t first, int64_t n, qgc_diag *d) {
    for (int64_t i = 0; i < n; i++)
        s->positions[i] = (int32_t)(first + i);
    return put(s, role, s->positions, n, d);
}

/* Decode has one row, the first, so rows[0] goes back to 0 after the chunk. */
static qgc_status feed_chunk(qgc_session *s, const int32_t *tokens, int64_t first, int64_t n, qgc_diag *d) {
    const int32_t last = (int32_t)(n - 1), zero = 0;
    QGC_TRY(put(s, QGC_IO_TOKENS, tokens, n, d));
    QGC_TRY(put_count(s, QGC_IO_POSITIONS, first, n, d));
    QGC_TRY(put(s, QGC_IO_ROWS, &last, 1, d));
    qgc_capture *whole = n == s->plan->chunk ? s->chunk : n == s->plan->long_chunk ? s->long_chunk : NULL;
    if (whole)
        QGC_TRY(qgc_capture_replay(s->dev, whole, d));
    else
        QGC_TRY(launch(s, prefill_phase(s, n), n, d));
    return put(s, QGC_IO_ROWS, &zero, 1, d);
}

static qgc_status check_tokens(const qgc_session *s, const int32_t *tokens, int64_t n, qgc_diag *d) {
    if (n < 1)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no tokens to feed");
    QGC_TRY(check_room(s, n, d));
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->plan->vocab)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "token %lld of the text is %d, outside the vocabulary of %lld", (long long)i,
                            (int)tokens[i], (long long)s->plan->vocab);
    return QGC_OK;
}

static void note_fed(qgc_session *s, const int32_t *tokens, int64_t n) {
    for (int64_t i = 0; i < n && s->fed; i++)
        if (tokens[i] >= 0 && tokens[i] < s->plan->vocab)
            s->fed[tokens[i]] = true;
}

/* A token that only steps were fed which nobody has taken counts as not seen. */
static qgc_status forget_token(const qgc_session *s, int32_t token, qgc_diag *d) {
    const int32_t zero = 0;
    if (token < 0 || token >= s->plan->vocab || s->fed[token])
        return QGC_OK;
    return qgc_device_upload(s->dev, s->addresses[s->plan->seen] + (uint64_t)token * sizeof zero, &zero,
                             sizeof zero, d);
}

/* As if the steps that were queued and not taken had not been: of what they wrote, only what was seen is looked at later. */
static qgc_status forget_queued(qgc_session *s, qgc_diag *d) {
    if (s->queued > 0 && s->fed) {
        QGC_TRY(waited(s, qgc_device_sync(s->dev, d), d));
        QGC_TRY(forget_token(s, s->last, d));
        for (int64_t i = 0; i + 1 < s->queued; i++)
            QGC_TRY(forget_token(s, s->ring[(s->position + i) % s->ring_size] & ~NOT_NUMBERS, d));
    }
    s->queued = 0;
    return QGC_OK;
}

qgc_status qgc_session_feed(qgc_session *s, const int32_t *tokens, int64_t n, int32_t *next, qgc_diag *d) {
    QGC_TRY(check_tokens(s, tokens, n, d));
    const int64_t most = largest_chunk(s);
    QGC_TRY(forget_queued(s, d));
    s->n_rows = 0;
    for (int64_t done = 0; done < n;) {
        int64_t now = n - done < most ? n - done : most;
        if (now == 1)
            QGC_TRY(feed_one(s, tokens[done], (int32_t)(s->position + done), d));
        else
            QGC_TRY(feed_chunk(s, tokens + done, s->position + done, now, d));
        done += now;
    }
    QGC_TRY(waited(s, qgc_device_sync(s->dev, d), d)); /* pieces a ring apart have one place in it */
    const int64_t last = s->position + n - 1;
    *next = s->last = token_of(s, last, s->ring[last % s->ring_size]);
    s->position += n;
    s->chosen = true;
    note_fed(s, tokens, n);
    return QGC_OK;
}

qgc_status qgc_session_feed_rows(qgc_session *s, const int32_t *tokens, int64_t n, qgc_diag *d) {
    QGC_TRY(check_tokens(s, tokens, n, d));
    if (!s->plan->all_rows || n > s->plan->chunk)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "all rows of %lld tokens are wanted, of a plan for %s of %lld", (long long)n,
                        s->plan->all_rows ? "those" : "the last row", (long long)s->plan->chunk);
    QGC_TRY(forget_queued(s, d));
    QGC_TRY(put(s, QGC_IO_TOKENS, tokens, n, d));
    QGC_TRY(put_count(s, QGC_IO_POSITIONS, s->position, n, d));
    QGC_TRY(put_count(s, QGC_IO_ROWS, 0, n, d));
    QGC_TRY(launch(s, QGC_PHASE_PREFILL, n, d));
    QGC_TRY(qgc_device_sync(s->dev, d));
    s->position += n;
    s->n_rows = n;
    note_fed(s, tokens, n);
    return QGC_OK;
}

qgc_status qgc_session_read_rows(qgc_session *s, int64_t first, int64_t n, float *logits, qgc_diag *d) {
    if (first < 0 || n < 1 || first + n > s->n_rows)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "rows %lld to %lld of the logits of %lld tokens",
                        (long long)first, (long long)(first + n - 1), (long long)s->n_rows);
    const size_t row_bytes = (size_t)s->plan->vocab * sizeof *logits;
    return qgc_device_download(s->dev, logits, qgc_session_logits_at(s, first), (size_t)n * row_bytes, d);
}

qgc_address qgc_session_logits_at(const qgc_session *s, int64_t row) {
    return io_address(s, QGC_IO_LOGITS) + (size_t)(row * s->plan->vocab) * sizeof(float);
}

static qgc_status check_chosen(const qgc_session *s, qgc_diag *d) {
    return s->chosen ? QGC_OK : qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "the session was fed no token yet");
}

/* One step, or as many as go together. */
static qgc_status queue(qgc_session *s, bool together, qgc_diag *d) {
    const int64_t n = together ? STEPS_TOGETHER : 1;
    QGC_TRY(check_chosen(s, d));
    QGC_TRY(check_room(s, s->queued + n, d));
    if (s->queued + n > s->most_steps)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "%lld steps are queued, which is the most",
                        (long long)s->queued);
    s->n_rows = 0;
    for (int64_t i = 0; i < n; i++)
        expect_choice(s, s->position + s->queued + i);
    QGC_TRY(together ? qgc_capture_replay(s->dev, s->several, d) : decode(s, d));
    s->queued += n;
    return QGC_OK;
}

qgc_status qgc_session_queue(qgc_session *s, qgc_diag *d) {
    return queue(s, false, d);
}

/* Queues until there are `n`, together where that many are left. */
static qgc_status queue_up_to(qgc_session *s, int64_t n, qgc_diag *d) {
    while (s->queued < n)
        QGC_TRY(queue(s, s->several && n - s->queued >= STEPS_TOGETHER, d));
    return QGC_OK;
}

qgc_status qgc_session_queue_ahead(qgc_session *s, int64_t wanted, qgc_diag *d) {
    int64_t most = qgc_session_room(s) < s->most_steps ? qgc_session_room(s) : s->most_steps;
    most = wanted < most ? wanted : most;
    if (s->queued >= STEPS_AHEAD)
        return QGC_OK;
    const int64_t n =
        s->several && most - s->queued >= STEPS_TOGETHER ? s->queued + STEPS_TOGETHER : STEPS_AHEAD;
    return queue_up_to(s, n < most ? n : most, d);
}

qgc_status qgc_session_take(qgc_session *s, int32_t *next, qgc_diag *d) {
    if (s->queued == 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no step is queued");
    QGC_TRY(choice(s, s->position, next, d));
    note_fed(s, &s->last, 1);
    *next = s->last = token_of(s, s->position, *next);
    s->position++;
    s->queued--;
    return QGC_OK;
}

int64_t qgc_session_queued(const qgc_session *s) {
    return s->queued;
}
int64_t qgc_session_most_steps(const qgc_session *s) {
    return s->most_steps;
}

qgc_status qgc_session_step(qgc_session *s, int32_t *next, qgc_diag *d) {
    if (s->queued == 0)
        QGC_TRY(qgc_session_queue(s, d));
    return qgc_session_take(s, next, d);
}

qgc_status qgc_session_steps(qgc_session *s, int64_t n, int32_t *next, qgc_diag *d) {
    QGC_TRY(check_chosen(s, d));
    QGC_TRY(check_room(s, n, d));
    if (n < 1)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "%lld steps, expected 1 or more", (long long)n);
    for (int64_t done = 0; done < n;) {
        const int64_t now = n - done < s->most_steps ? n - done : s->most_steps;
        QGC_TRY(queue_up_to(s, now, d));
        for (int64_t i = 0; i < now; i++)
            QGC_TRY(qgc_session_take(s, &next[done + i], d));
        done += now;
    }
    return QGC_OK;
}

qgc_phase_kind qgc_session_phase(const qgc_session *s) {
    return decode_phase(s);
}

bool qgc_session_overlaps(const qgc_session *s) {
    return overlap_of(s, decode_phase(s), true) != QGC_OVERLAP_NONE;
}

/* Once to warm up, then `repeats` times between two events. */
static qgc_status time_replays(qgc_session *s, qgc_capture *c, int repeats, qgc_event *const marks[2],
                               double *us, qgc_diag *d) {
    QGC_TRY(qgc_capture_replay(s->dev, c, d));
    QGC_TRY(qgc_event_record(s->dev, marks[0], d));
    for (int i = 0; i < repeats; i++)
        QGC_TRY(qgc_capture_replay(s->dev, c, d));
    QGC_TRY(qgc_event_record(s->dev, marks[1], d));
    QGC_TRY(qgc_event_elapsed(s->dev, marks[0], marks[1], us, d));
    *us /= repeats;
    return QGC_OK;
}

static qgc_status time_phase(qgc_session *s, qgc_phase_kind phase, const qgc_sizes *sizes, const bool *wanted,
                             int repeats, double *us, qgc_diag *d) {
    qgc_capture *c = NULL;
    QGC_TRY(qgc_capture_begin(s->dev, d));
    qgc_status launched = qgc_program_launch_some(s->program, phase, wanted, s->addresses, sizes,
                                                  overlap_of(s, phase, false), d);
    qgc_status status = qgc_capture_end(s->dev, &c, d);
    qgc_event *marks[2] = {NULL, NULL};
    for (int i = 0; i < 2 && status == QGC_OK; i++)
        status = qgc_event_new(s->dev, &marks[i], d);
    if (launched == QGC_OK && status == QGC_OK)
        status = time_replays(s, c, repeats, marks, us, d);
    qgc_capture_drop(s->dev, c);
    for (int i = 0; i < 2; i++)
        qgc_event_drop(s->dev, marks[i]);
    return launched != QGC_OK ? launched : status;
}

qgc_status qgc_session_time(qgc_session *s, const bool *wanted, int repeats, double *us, qgc_diag *d) {
    const qgc_sizes sizes = sizes_of(s, 1);
    QGC_TRY(check_chosen(s, d));
    return time_phase(s, decode_phase(s), &sizes, wanted, repeats, us, d);
}

qgc_status qgc_session_time_prefill(qgc_session *s, int64_t tokens, const bool *wanted, int repeats,
                                    double *us, qgc_diag *d) {
    const qgc_sizes sizes = sizes_of(s, tokens);
    QGC_TRY(check_chosen(s, d));
    if (tokens < 1 || tokens > largest_chunk(s))
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "a chunk of %lld tokens, expected 1 to %lld",
                        (long long)tokens, (long long)largest_chunk(s));
    return time_phase(s, prefill_phase(s, tokens), &sizes, wanted, repeats, us, d);
}

qgc_phase_kind qgc_session_prefill_phase(const qgc_session *s, int64_t tokens) {
    return prefill_phase(s, tokens);
}

int64_t qgc_session_largest_chunk(const qgc_session *s) {
    return largest_chunk(s);
}

qgc_prefill qgc_session_prefill(const qgc_session *s) {
    return s->options.prefill;
}

qgc_status qgc_session_logits(qgc_session *s, float *logits, qgc_diag *d) {
    QGC_TRY(check_chosen(s, d));
    return qgc_device_download(s->dev, logits, io_address(s, QGC_IO_LOGITS),
                               (size_t)s->plan->vocab * sizeof *logits, d);
}

int64_t qgc_session_not_finite(const qgc_session *s) {
    return s->not_finite;
}

qgc_status qgc_session_look(qgc_session *s, float *logits, qgc_diag *d) {
    QGC_TRY(qgc_session_logits(s, logits, d));
    for (int64_t i = 0; i < s->plan->vocab && s->not_finite < 0; i++)
        if (!isfinite(logits[i]))
            s->not_finite = s->position - 1;
    return QGC_OK;
}

qgc_status qgc_session_read(qgc_session *s, int buffer, void *to, size_t bytes, qgc_diag *d) {
    assert(buffer >= 0 && (size_t)buffer < s->plan->n_buffers);
    return qgc_device_download(s->dev, to, s->addresses[buffer], bytes, d);
}

qgc_status qgc_session_set_sampling(qgc_session *s, const qgc_sampling *sampling, qgc_diag *d) {
    QGC_TRY(qgc_sampling_check(sampling, d));
    s->options.sampling = *sampling;
    return qgc_device_upload(s->dev, io_address(s, QGC_IO_SAMPLING), &s->options.sampling,
                             sizeof s->options.sampling, d);
}

qgc_status qgc_session_reset(qgc_session *s, qgc_diag *d) {
    s->position = 0;
    s->n_rows = 0;
    s->not_finite = -1;
    s->queued = 0;
    s->chosen = false;
    if (s->fed)
        memset(s->fed, 0, (size_t)s->plan->vocab * sizeof *s->fed);
    return qgc_device_fill(s->dev, s->states, 0, s->state_bytes, d);
}
