#include "runtime/lab/trial.h"

#include <string.h>

#include "codegen/lower.h"
#include "graph/eval.h"
#include "runtime/engine/prepare.h"
#include "runtime/session.h"

/* Tokens of a step of prefill; a step of one is none, and the last one has up to twice as many but one. */
enum { PIECE = 8, LEAST_ROOM = 3 };

struct qgc_trial {
    qgc_arena *arena;
    qgc_arena *read; /* what qgc_trial_value has given since the last step */
    qgc_graph *graph;
    const qgc_tensor *const *tensors;
    qgc_trial_options options;
    int64_t vocab;

    /* on the CPU */
    qgc_eval *eval;
    int64_t position;
    int64_t tokens; /* of the last step */

    /* on a GPU */
    const qgc_plan *plan;
    const int *buffers; /* by value id */
    qgc_mode mode;
    const char *refusal; /* there is no session then */
    qgc_program *program;
    qgc_session *session;
    qgc_event *start, *end;
};

static void start_eval(qgc_trial *t) {
    qgc_eval_drop(t->eval);
    const qgc_trial_options *o = &t->options;
    t->eval = (o->in_double ? qgc_eval_new_double : qgc_eval_new)(t->graph, t->tensors, o->ctx,
                                                                  o->chunk ? o->chunk : 1, o->pool);
    if (!t->options.keep_values)
        qgc_eval_keep_outputs_only(t->eval);
    t->position = 0;
}

/* The persistent kernel is compiled only if it may run. */
static bool may_be_persistent(const char *mode) {
    return strcmp(mode, "auto") == 0 || strcmp(mode, qgc_mode_name(QGC_MODE_PERSISTENT)) == 0;
}

static const char *mode_of(const qgc_trial_options *o) {
    return o->mode ? o->mode : qgc_mode_name(QGC_MODE_GRAPH);
}

static qgc_prepare_options preparing(const qgc_trial_options *o, const qgc_weights *weights) {
    return (qgc_prepare_options){.device = o->device,
                                 .weights = weights,
                                 .pool = o->pool,
                                 .cache_folder = o->cache_folder,
                                 .chunk = o->chunk ? o->chunk : 1,
                                 .keep_values = o->keep_values,
                                 .no_prefill = !o->chunk,
                                 .no_persistent = o->chunk && !may_be_persistent(mode_of(o)),
                                 .decode_only = !o->chunk && !may_be_persistent(mode_of(o)),
                                 .allow_unused = true, /* let pass, or not, when it was bound */
                                 .share = o->share ? o->share->program : NULL};
}

qgc_status qgc_trial_compile(qgc_graph *g, const qgc_trial_options *o, qgc_diag *d) {
    const qgc_prepare_options prepare = preparing(o, NULL);
    qgc_compiled compiled;
    return qgc_prepare_compiled(&compiled, g, &prepare, d);
}

static qgc_status start_session(qgc_trial *t, const qgc_weights *weights, qgc_diag *d) {
    const qgc_trial_options *o = &t->options;
    const char *mode = mode_of(o);
    const qgc_prepare_options prepare = preparing(o, weights);
    qgc_compiled compiled;
    QGC_TRY(qgc_prepare(&t->program, &compiled, t->graph, &prepare, d));
    t->plan = compiled.plan;
    qgc_mode_choice choice;
    QGC_TRY(qgc_mode_choose(t->program, mode, o->ctx, &choice, d));
    t->mode = choice.mode;
    t->buffers = o->chunk                         ? compiled.prefill_buffers
                 : t->mode == QGC_MODE_PERSISTENT ? compiled.persistent_buffers
                                                  : compiled.buffers;
    t->refusal = qgc_mode_refusal(t->program, t->mode, t->arena);
    if (t->refusal)
        return QGC_OK;
    const qgc_session_options session = {.ctx = o->ctx,
                                         .mode = t->mode,
                                         .prefill = o->chunk ? QGC_PREFILL_CHUNKS : QGC_PREFILL_STEPS,
                                         .sampling = {.top_p = 1, .repeat_penalty = 1}};
    QGC_TRY(qgc_session_new(&t->session, t->program, &session, d));
    QGC_TRY(qgc_event_new(o->device, &t->start, d));
    return qgc_event_new(o->device, &t->end, d);
}

qgc_status qgc_trial_new(qgc_trial **out, qgc_graph *g, const qgc_weights *weights,
                         const qgc_tensor *const *tensors, const qgc_trial_options *o, qgc_diag *d) {
    *out = NULL;
    const qgc_value *logits = qgc_graph_output(g, "logits");
    if (!logits || logits->shape.rank != 2)
        return qgc_fail(d, QGC_ERR_INPUT, g->at, "the graph has no output \"logits\" of shape [R, vocab]");
    if (o->chunk && qgc_graph_most_tokens(g) < LEAST_ROOM)
        return qgc_fail(d, QGC_ERR_INPUT, g->at,
                        "steps of prefill are of %d tokens and more, and rings of \"%s\" have room for %lld",
                        LEAST_ROOM, g->name, (long long)qgc_graph_most_tokens(g));
    qgc_arena *arena = qgc_arena_new();
    qgc_trial *t = qgc_arena_alloc(arena, sizeof *t);
    *t = (qgc_trial){.arena = arena,
                     .read = qgc_arena_new(),
                     .graph = g,
                     .tensors = tensors,
                     .options = *o,
                     .vocab = logits->shape.dim[1]};
    qgc_status status = QGC_OK;
    if (o->device)
        status = start_session(t, weights, d);
    else
        start_eval(t);
    if (status == QGC_OK)
        *out = t;
    else
        qgc_trial_drop(t);
    return status;
}

void qgc_trial_drop(qgc_trial *t) {
    if (!t)
        return;
    if (t->options.device) {
        qgc_event_drop(t->options.device, t->start);
        qgc_event_drop(t->options.device, t->end);
    }
    qgc_session_drop(t->session);
    qgc_program_drop(t->program);
    qgc_eval_drop(t->eval);
    qgc_arena_drop(t->read);
    qgc_arena_drop(t->arena);
}

const char *qgc_trial_mode(const qgc_trial *t) {
    return t->options.device ? qgc_mode_name(t->mode) : NULL;
}

const char *qgc_trial_refusal(const qgc_trial *t) {
    return t->refusal;
}

int64_t qgc_trial_vocab(const qgc_trial *t) {
    return t->vocab;
}

int64_t qgc_trial_position(const qgc_trial *t) {
    return t->session ? qgc_session_position(t->session) : t->position;
}

/* What was read belongs to the step before. */
static void forget(qgc_trial *t) {
    qgc_arena_drop(t->read);
    t->read = qgc_arena_new();
}

/* PIECE, or fewer tokens where rings have no room for the last step then. */
static int64_t piece_of(const qgc_trial *t) {
    const int64_t most = qgc_graph_most_tokens(t->graph);
    return most < 2 * PIECE - 1 ? (most + 1) / 2 : PIECE;
}

int64_t qgc_trial_steps(const qgc_trial *t, int64_t n) {
    const int64_t piece = piece_of(t);
    return !t->options.chunk ? n : n < 2 * piece ? 1 : n / piece;
}

/* The last step has what is left over: one token alone is no prefill. */
int64_t qgc_trial_step_end(const qgc_trial *t, int64_t n, int64_t i) {
    if (!t->options.chunk)
        return i + 1;
    return i + 1 == qgc_trial_steps(t, n) ? n : (i + 1) * piece_of(t);
}

qgc_status qgc_trial_step(qgc_trial *t, int32_t token, float *logits, qgc_diag *d) {
    return qgc_trial_feed(t, &token, 1, logits, d);
}

qgc_status qgc_trial_feed(qgc_trial *t, const int32_t *tokens, int64_t n_tokens, float *logits, qgc_diag *d) {
    forget(t);
    t->tokens = n_tokens;
    if (t->refusal)
        return qgc_mode_check(t->program, t->mode, d);
    if (t->session) {
        int32_t next;
        QGC_TRY(qgc_session_feed(t->session, tokens, n_tokens, &next, d));
        return logits ? qgc_session_logits(t->session, logits, d) : QGC_OK;
    }
    QGC_TRY(qgc_eval_step(t->eval, tokens, n_tokens, t->position, false, d));
    t->position += n_tokens;
    int64_t n;
    const void *at = qgc_eval_value(t->eval, qgc_graph_output(t->graph, "logits"), &n);
    if (logits)
        memcpy(logits, at, (size_t)n * sizeof *logits);
    return QGC_OK;
}

qgc_status qgc_trial_logits(qgc_trial *t, double *logits, qgc_diag *d) {
    int64_t n = t->vocab;
    const float *floats;
    if (t->session) {
        float *room = qgc_arena_array(t->read, (size_t)n, sizeof *room);
        QGC_TRY(qgc_session_logits(t->session, room, d));
        floats = room;
    } else {
        const void *at = qgc_eval_value(t->eval, qgc_graph_output(t->graph, "logits"), &n);
        floats = at;
        if (t->options.in_double)
            memcpy(logits, at, (size_t)n * sizeof *logits);
    }
    for (int64_t i = 0; i < n && (t->session || !t->options.in_double); i++)
        logits[i] = (double)floats[i];
    return QGC_OK;
}

qgc_status qgc_trial_set_sampling(qgc_trial *t, const qgc_sampling *s, qgc_diag *d) {
    return t->session ? qgc_session_set_sampling(t->session, s, d) : QGC_OK;
}

static const float *as_floats(qgc_trial *t, qgc_dtype dtype, const void *from, int64_t n) {
    float *to = qgc_arena_array(t->read, (size_t)n, sizeof *to);
    if (dtype != QGC_I32) {
        qgc_to_f32(dtype, from, to, n);
        return to;
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t x;
        memcpy(&x, (const char *)from + (size_t)i * sizeof x, sizeof x);
        to[i] = (float)x;
    }
    return to;
}

/* Where a step on the GPU has left a value, or -1. */
static int kept_in(const qgc_trial *t, const qgc_value *v) {
    const int buffer = t->session ? t->buffers[v->id] : -1;
    if (buffer < 0 || qgc_session_position(t->session) == 0)
        return -1;
    return t->options.keep_values || t->plan->buffers[buffer].kind != QGC_BUFFER_SCRATCH ? buffer : -1;
}

qgc_status qgc_trial_value(qgc_trial *t, const qgc_value *v, const float **to, int64_t *n, bool *kept,
                           qgc_diag *d) {
    *to = NULL;
    *n = 0;
    *kept = false;
    if (v->kind != QGC_RESULT)
        return QGC_OK;
    const void *from = NULL;
    if (t->eval)
        from = qgc_eval_value(t->eval, v, n);
    else if (kept_in(t, v) >= 0) {
        *n = qgc_shape_elems(&v->shape, &(qgc_sizes){.tokens = t->tokens, .rows = 1, .ctx = t->options.ctx});
        size_t bytes = qgc_dtype_bytes(v->dtype, *n);
        void *room = qgc_arena_alloc(t->read, bytes);
        QGC_TRY(qgc_session_read(t->session, kept_in(t, v), room, bytes, d));
        from = room;
    }
    *kept = from != NULL;
    if (from)
        *to = as_floats(t, v->dtype, from, *n);
    return QGC_OK;
}

qgc_status qgc_trial_reset(qgc_trial *t, qgc_diag *d) {
    forget(t);
    if (t->session)
        return qgc_session_reset(t->session, d);
    if (!t->refusal)
        start_eval(t);
    return QGC_OK;
}

/* --- cost ------------------------------------------------------------------------------------------------ */

/* Does a buffer hold a value that one kernel leaves for another? */
static bool is_handed_on(const qgc_plan_buffer *b) {
    return b->kind == QGC_BUFFER_SCRATCH || (b->kind == QGC_BUFFER_IO && b->io != QGC_IO_SAMPLING &&
                                             b->io != QGC_IO_RING && b->io != QGC_IO_FAULT);
}

static bool named_before(const qgc_plan_launch *l, int arg) {
    for (int i = 0; i < arg; i++)
        if (l->args[i].kind == QGC_ARG_BUFFER && l->args[i].buffer == l->args[arg].buffer)
            return true;
    return false;
}

static int64_t values_of(const qgc_plan *p, const qgc_plan_launch *l, const qgc_sizes *sizes) {
    int64_t bytes = 0;
    for (int i = 0; i < l->n_args; i++) {
        if (l->args[i].kind != QGC_ARG_BUFFER || named_before(l, i))
            continue;
        const qgc_plan_buffer *b = &p->buffers[l->args[i].buffer];
        if (is_handed_on(b))
            bytes += qgc_extent_size(&b->bytes, sizes);
    }
    return bytes;
}

qgc_status qgc_trial_cost_of(const qgc_trial *t, qgc_trial_cost *cost, qgc_diag *d) {
    const qgc_plan *p = t->plan;
    if (!p) {
        qgc_lowered lowered;
        const int64_t most = t->options.chunk;
        const qgc_lower_options lower = {
            .chunk = most ? most : 1, .decode_only = !most, .no_persistent = most != 0};
        QGC_TRY(qgc_lower(t->graph, &lower, &lowered, d));
        p = lowered.plan;
    }
    const int64_t chunk = t->options.chunk;
    const qgc_sizes sizes = {.tokens = chunk ? chunk : 1, .rows = 1, .ctx = t->options.ctx};
    const qgc_phase *step = &p->phases[chunk        ? QGC_PHASE_PREFILL
                                       : t->session ? qgc_session_phase(t->session)
                                                    : QGC_PHASE_DECODE];
    *cost = (qgc_trial_cost){.kernels = (int)step->n_launches, .scratch_bytes = p->scratch_bytes};
    for (size_t i = 0; i < step->n_launches; i++) {
        cost->weight_bytes += step->launches[i].weight_bytes;
        cost->value_bytes += values_of(p, &step->launches[i], &sizes);
    }
    return QGC_OK;
}

/* --- time ------------------------------------------------------------------------------------------------ */

qgc_status qgc_trial_time_feed(qgc_trial *t, const int32_t *tokens, int64_t n, double *us, qgc_diag *d) {
    qgc_device *dev = t->options.device;
    int32_t next;
    if (!t->session)
        return t->refusal ? qgc_mode_check(t->program, t->mode, d)
                          : qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "steps are timed on a GPU only");
    QGC_TRY(qgc_trial_reset(t, d));
    QGC_TRY(qgc_event_record(dev, t->start, d));
    QGC_TRY(qgc_session_feed(t->session, tokens, n, &next, d));
    QGC_TRY(qgc_event_record(dev, t->end, d));
    QGC_TRY(qgc_event_wait(dev, t->end, d));
    return qgc_event_elapsed(dev, t->start, t->end, us, d);
}

qgc_status qgc_trial_time(qgc_trial *t, int steps, double *us, qgc_diag *d) {
    if (t->refusal)
        return qgc_mode_check(t->program, t->mode, d);
    if (!t->session)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "steps are timed on a GPU only");
    forget(t);
    qgc_device *dev = t->options.device;
    int32_t *chosen = qgc_arena_array(t->read, steps > 0 ? (size_t)steps : 1, sizeof *chosen);
    QGC_TRY(qgc_event_record(dev, t->start, d));
    QGC_TRY(qgc_session_steps(t->session, steps, chosen, d));
    QGC_TRY(qgc_event_record(dev, t->end, d));
    QGC_TRY(qgc_event_wait(dev, t->end, d));
    return qgc_event_elapsed(dev, t->start, t->end, us, d);
}
