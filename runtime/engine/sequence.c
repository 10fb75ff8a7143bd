#include "runtime/engine/sequence.h"

#include <string.h>

#include "graph/eval.h"
#include "runtime/engine/engine_impl.h"
#include "runtime/engine/measured.h"
#include "runtime/engine/sequence_impl.h"
#include "runtime/session.h"

enum { PIECE = 512, CPU_PIECE = 128, DEFAULT_CTX = 4096 };

struct qgc_sequence {
    qgc_arena *arena;
    qgc_engine *engine;
    qgc_sequence_options options;
    int64_t ctx;
    const char *mode;

    /* on a GPU */
    qgc_session *session;
    float *logits; /* [vocab] of a prompt's end */

    /* on the CPU */
    qgc_eval *eval;
    int64_t position;
    int32_t last; /* the token chosen last, -1 before the first */
};

/* --- beginning ------------------------------------------------------------------------------------------- */

/* The context asked for, or the default; never beyond what the model was made for. */
static qgc_status choose_ctx(qgc_sequence *s, qgc_diag *d) {
    const int64_t asked = s->options.ctx, limit = s->engine->max_positions;
    if (asked < 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "a context of %lld positions, expected 1 or more",
                        (long long)asked);
    if (asked > 0 && limit > 0 && asked > limit)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --ctx is %lld, and the model takes at most %lld positions", (long long)asked,
                        (long long)limit);
    s->ctx = asked > 0 ? asked : DEFAULT_CTX;
    if (limit > 0 && s->ctx > limit)
        s->ctx = limit;
    return QGC_OK;
}

const char *qgc_mode_choice_text(const qgc_mode_choice *choice, qgc_arena *a) {
    return qgc_arena_printf(a, "mode %s, chosen by auto: %s", qgc_mode_name(choice->mode), choice->why);
}

static void note_memory(const qgc_sequence *s) {
    const qgc_memory_row *rows;
    const int n = qgc_device_memory(s->engine->device, &rows);
    qgc_str line = qgc_str_new(s->arena);
    for (int i = 0; i < n; i++)
        qgc_str_printf(&line, "%s%s %s", i ? ", " : "device memory: ", rows[i].owner,
                       qgc_str_of_bytes(rows[i].bytes, s->arena));
    qgc_engine_note(s->engine, line.text);
}

/* Matrices of chunks are bf16; a card that multiplies none takes a prompt step by step. */
static qgc_prefill prefill_of(const qgc_sequence *s, qgc_prefill wanted) {
    const qgc_phase *phase = &qgc_program_plan(s->engine->program)->phases[QGC_PHASE_PREFILL];
    const qgc_device_info *about = qgc_device_about(s->engine->device);
    bool multiplies = false;
    for (size_t i = 0; i < phase->n_launches; i++)
        multiplies = multiplies || phase->launches[i].kind == QGC_LAUNCH_GEMM;
    if (wanted == QGC_PREFILL_STEPS || !about->no_bf16 || !multiplies)
        return wanted;
    qgc_engine_note(
        s->engine, qgc_arena_printf(s->arena, "the prompt takes decode steps: %s multiplies no bf16 matrices",
                                    about->name));
    return QGC_PREFILL_STEPS;
}

static qgc_status begin_on_gpu(qgc_sequence *s, qgc_prefill prefill, qgc_diag *d) {
    const qgc_sequence_options *o = &s->options;
    qgc_mode_choice choice;
    prefill = prefill_of(s, prefill);
    QGC_TRY(qgc_engine_choose_mode(s->engine, o->mode, s->ctx, &choice, d));
    s->mode = qgc_mode_name(choice.mode);
    if (choice.why)
        qgc_engine_note(s->engine, qgc_mode_choice_text(&choice, s->arena));
    const qgc_session_options session = {.ctx = s->ctx,
                                         .mode = choice.mode,
                                         .prefill = prefill,
                                         .sampling = o->sampling,
                                         .times = s->engine->options.times};
    QGC_TRY(qgc_session_new(&s->session, s->engine->program, &session, d));
    qgc_engine_note_program(s->engine);
    s->logits = qgc_arena_array(s->arena, (size_t)s->engine->vocab, sizeof *s->logits);
    note_memory(s);
    return QGC_OK;
}

static qgc_eval *new_eval(const qgc_sequence *s) {
    qgc_eval *eval = qgc_eval_new(s->engine->graph, s->engine->tensors, s->ctx, CPU_PIECE, s->engine->pool);
    qgc_eval_keep_outputs_only(eval);
    qgc_eval_set_sampling(eval, &s->options.sampling);
    return eval;
}

static qgc_status begin_on_cpu(qgc_sequence *s, qgc_prefill prefill, qgc_diag *d) {
    QGC_TRY(qgc_engine_want_no_mode(s->options.mode, -1, d));
    if (prefill != QGC_PREFILL_CHUNKS) {
        qgc_status status =
            qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --prefill is for a GPU, and this runs on the CPU");
        if (strcmp(s->engine->options.device, "auto") == 0)
            qgc_hint(d, "No GPU was found; --device gpu says why.");
        return status;
    }
    QGC_TRY(qgc_sampling_check(&s->options.sampling, d));
    s->mode = "cpu";
    s->eval = new_eval(s);
    return QGC_OK;
}

static qgc_status begin(qgc_sequence *s, qgc_diag *d) {
    const char *name = s->options.prefill ? s->options.prefill : "chunks";
    qgc_prefill prefill;
    QGC_TRY(qgc_prefill_named(name, &prefill, d));
    if (s->engine->vocab == 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "the engine was opened without a graph or an artifact");
    QGC_TRY(choose_ctx(s, d));
    return s->engine->device ? begin_on_gpu(s, prefill, d) : begin_on_cpu(s, prefill, d);
}

qgc_status qgc_sequence_new(qgc_sequence **out, qgc_engine *e, const qgc_sequence_options *o, qgc_diag *d) {
    qgc_arena *arena = qgc_arena_new();
    qgc_sequence *s = qgc_arena_alloc(arena, sizeof *s);
    *s = (qgc_sequence){.arena = arena, .engine = e, .options = *o, .last = -1};
    *out = NULL;
    qgc_status status = begin(s, d);
    const qgc_status read = qgc_engine_want_tokenizer(e, d);
    status = status == QGC_OK ? read : status;
    if (status == QGC_OK)
        *out = s;
    else
        qgc_sequence_drop(s);
    return status;
}

void qgc_sequence_drop(qgc_sequence *s) {
    if (!s)
        return;
    qgc_session_drop(s->session);
    qgc_eval_drop(s->eval);
    qgc_arena_drop(s->arena);
}

qgc_engine *qgc_sequence_engine(const qgc_sequence *s) {
    return s->engine;
}
const char *qgc_sequence_mode(const qgc_sequence *s) {
    return s->mode;
}
const char *qgc_sequence_prefill(const qgc_sequence *s) {
    return qgc_prefill_name(s->session ? qgc_session_prefill(s->session) : QGC_PREFILL_CHUNKS);
}
const qgc_sequence_options *qgc_sequence_options_of(const qgc_sequence *s) {
    return &s->options;
}
int64_t qgc_sequence_ctx(const qgc_sequence *s) {
    return s->ctx;
}
int64_t qgc_sequence_position(const qgc_sequence *s) {
    return s->session ? qgc_session_position(s->session) : s->position;
}

/* --- reading --------------------------------------------------------------------------------------------- */

static bool is_stopped(const qgc_sequence *s) {
    return s->options.stop && *s->options.stop;
}

static void show(const qgc_sequence *s, int64_t done, int64_t n) {
    const qgc_engine_listener *l = &s->engine->options.listener;
    if (l->progress && n > 1)
        l->progress(l->context, "prompt", (size_t)done, (size_t)n);
}

static qgc_status step_cpu(qgc_sequence *s, const int32_t *tokens, int64_t n, qgc_diag *d) {
    QGC_TRY(qgc_eval_step(s->eval, tokens, n, s->position, false, d));
    if (!qgc_eval_is_finite(s->eval))
        return qgc_eval_find_not_finite(s->eval, tokens, n, s->position, d);
    s->position += n;
    int64_t elems;
    const int32_t *chosen = qgc_eval_value(s->eval, qgc_graph_output(s->engine->graph, "next"), &elems);
    s->last = chosen[elems - 1];
    return QGC_OK;
}

static qgc_status feed_cpu(qgc_sequence *s, const int32_t *tokens, int64_t n, int32_t *next, qgc_diag *d) {
    const int64_t fit = qgc_graph_most_tokens(s->engine->graph), most = fit < CPU_PIECE ? fit : CPU_PIECE;
    for (int64_t done = 0; done < n;) {
        if (is_stopped(s))
            return QGC_OK;
        const int64_t piece = n - done < most ? n - done : most;
        QGC_TRY(step_cpu(s, tokens + done, piece, d));
        done += piece;
        show(s, done, n);
    }
    *next = s->last;
    return QGC_OK;
}

/* What sampling saw of the logits of some step. */
static qgc_status check_finite(const qgc_sequence *s, qgc_diag *d) {
    const int64_t position = qgc_session_not_finite(s->session);
    if (position < 0)
        return QGC_OK;
    qgc_status status =
        qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the logits at position %lld are not numbers, or infinite",
                 (long long)position);
    qgc_hint(
        d,
        "A weight is broken, or a number became too large for a type of the model: --device cpu names the first "
        "such value, qgc bisect the pass or kernel.");
    return status;
}

/* Whole chunks at a time, so that the cuts are where the session makes them. The logits of a prompt are
 * looked at one by one, once. */
static qgc_status feed_gpu(qgc_sequence *s, const int32_t *tokens, int64_t n, int32_t *next, qgc_diag *d) {
    const int64_t chunk = qgc_session_largest_chunk(s->session);
    const int64_t most = chunk * (1 + (PIECE - 1) / chunk);
    for (int64_t done = 0; done < n; done += most) {
        if (is_stopped(s)) {
            *next = -1;
            return QGC_OK;
        }
        const int64_t piece = n - done < most ? n - done : most;
        QGC_TRY(qgc_session_feed(s->session, tokens + done, piece, next, d));
        show(s, done + piece, n);
    }
    QGC_TRY(qgc_session_look(s->session, s->logits, d));
    return check_finite(s, d);
}

/* Looked at before the first piece, so that an error leaves the sequence as it was. */
static qgc_status check_tokens(const qgc_sequence *s, const int32_t *tokens, int64_t n, qgc_diag *d) {
    const int64_t room = s->ctx - qgc_sequence_position(s);
    if (n < 1)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no tokens to feed");
    if (n > room) {
        qgc_status status = qgc_fail(
            d, QGC_ERR_INPUT, QGC_NO_LOC, "no room for %lld %s: %lld of %lld positions are taken",
            (long long)n, n == 1 ? "token" : "tokens", (long long)(s->ctx - room), (long long)s->ctx);
        qgc_hint(d, "Use a larger context (--ctx) or a shorter text.");
        return status;
    }
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->engine->vocab)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "token %lld of the text is %d, outside the vocabulary of %lld", (long long)i,
                            (int)tokens[i], (long long)s->engine->vocab);
    return QGC_OK;
}

qgc_status qgc_sequence_feed(qgc_sequence *s, const int32_t *tokens, int64_t n, int32_t *next, qgc_diag *d) {
    *next = -1;
    QGC_TRY(check_tokens(s, tokens, n, d));
    return s->session ? feed_gpu(s, tokens, n, next, d) : feed_cpu(s, tokens, n, next, d);
}

static qgc_status step_gpu(qgc_sequence *s, int64_t wanted, int32_t *next, qgc_diag *d) {
    QGC_TRY(qgc_session_queue_ahead(s->session, wanted, d));
    QGC_TRY(qgc_session_step(s->session, next, d));
    return check_finite(s, d);
}

qgc_status qgc_sequence_step(qgc_sequence *s, int64_t wanted, int32_t *next, qgc_diag *d) {
    *next = -1;
    if (s->session)
        return step_gpu(s, wanted, next, d);
    if (s->last < 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "the sequence was fed no token yet");
    const int32_t token = s->last;
    QGC_TRY(check_tokens(s, &token, 1, d));
    QGC_TRY(step_cpu(s, &token, 1, d));
    *next = s->last;
    return QGC_OK;
}

qgc_status qgc_sequence_logits(qgc_sequence *s, float *logits, qgc_diag *d) {
    if (s->session && qgc_session_queued(s->session) > 0)
        return qgc_fail(
            d, QGC_ERR_USAGE, QGC_NO_LOC,
            "the device is a step ahead, and its logits are not those of the last choice: step with 1 "
            "wanted before logits are read");
    if (s->session)
        return qgc_session_logits(s->session, logits, d);
    if (s->last < 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "the sequence was fed no token yet");
    int64_t n;
    const float *at = qgc_eval_value(s->eval, qgc_graph_output(s->engine->graph, "logits"), &n);
    memcpy(logits, at + n - s->engine->vocab, (size_t)s->engine->vocab * sizeof *logits);
    return QGC_OK;
}

qgc_status qgc_sequence_set_sampling(qgc_sequence *s, const qgc_sampling *sampling, qgc_diag *d) {
    QGC_TRY(qgc_sampling_check(sampling, d));
    s->options.sampling = *sampling;
    if (s->session)
        return qgc_session_set_sampling(s->session, sampling, d);
    qgc_eval_set_sampling(s->eval, &s->options.sampling);
    return QGC_OK;
}

/* An evaluator has no reset: its states, of what was seen too, are zeros in a new one. */
qgc_status qgc_sequence_reset(qgc_sequence *s, qgc_diag *d) {
    if (s->session)
        return qgc_session_reset(s->session, d);
    qgc_eval *old = s->eval;
    s->eval = NULL; /* while there is none */
    qgc_eval_drop(old);
    s->eval = new_eval(s);
    s->position = 0;
    s->last = -1;
    return QGC_OK;
}
