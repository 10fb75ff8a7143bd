#include "runtime/engine/rows.h"

#include <string.h>

#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/engine/engine_impl.h"
#include "runtime/engine/measured.h"
#include "runtime/engine/prepare.h"
#include "runtime/session.h"

struct qgc_rows {
    qgc_arena *arena;
    qgc_engine *engine;
    int64_t ctx, position;
    const char *how;

    /* on a GPU */
    qgc_program *program; /* whose prefill gives all rows; NULL: decode steps of the engine's own */
    qgc_session *session;
    float *logits; /* [QGC_ROWS_MOST, vocab], from the first call on that takes them to the host */

    /* on the CPU */
    qgc_eval *eval;
};

/* --- on a GPU -------------------------------------------------------------------------------------------- */

/* The graph of the engine, whose passes have been run: of an artifact the one that it holds. */
static qgc_status find_graph(qgc_rows *r, qgc_graph **g, qgc_diag *d) {
    const qgc_engine *e = r->engine;
    *g = e->graph;
    if (*g)
        return QGC_OK;
    const qgc_plan *plan = qgc_program_plan(e->program);
    const qgc_tensor **tensors;
    QGC_TRY(qgc_graph_load_text(g, e->options.path, plan->graph, strlen(plan->graph), r->arena, d));
    return qgc_graph_bind(*g, e->weights, e->options.allow_unused, &tensors, d);
}

/* The weights are those of the engine's own program, where both want the same of them. */
static qgc_status compile_all_rows(qgc_rows *r, qgc_diag *d) {
    const qgc_engine_options *o = &r->engine->options;
    qgc_graph *g;
    QGC_TRY(find_graph(r, &g, d));
    const qgc_prepare_options prepare = {.device = r->engine->device,
                                         .weights = r->engine->weights,
                                         .pool = r->engine->pool,
                                         .cache_folder = o->cache_folder,
                                         .nvrtc_library = o->nvrtc_library,
                                         .chunk = QGC_ROWS_MOST,
                                         .all_rows = true,
                                         .allow_unused = o->allow_unused,
                                         .share = r->engine->program,
                                         .progress = o->listener.progress,
                                         .context = o->listener.context};
    qgc_compiled compiled;
    return qgc_prepare(&r->program, &compiled, g, &prepare, d);
}

static qgc_status choose_mode(qgc_rows *r, const qgc_rows_options *o, qgc_mode *mode, qgc_diag *d) {
    qgc_mode_choice choice;
    QGC_TRY(qgc_engine_choose_mode(r->engine, o->mode, r->ctx, &choice, d));
    *mode = choice.mode;
    r->how = qgc_arena_printf(r->arena, "steps, mode %s", qgc_mode_name(choice.mode));
    return QGC_OK;
}

static qgc_status begin_on_gpu(qgc_rows *r, const qgc_rows_options *o, bool steps, qgc_diag *d) {
    qgc_session_options session = {.ctx = r->ctx,
                                   .mode = QGC_MODE_STREAM,
                                   .prefill = steps ? QGC_PREFILL_STEPS : QGC_PREFILL_CHUNKS,
                                   .sampling = {.top_p = 1, .repeat_penalty = 1}};
    r->how = "prefill in chunks";
    if (steps)
        QGC_TRY(choose_mode(r, o, &session.mode, d));
    else
        QGC_TRY(compile_all_rows(r, d));
    QGC_TRY(qgc_session_new(&r->session, steps ? r->engine->program : r->program, &session, d));
    qgc_engine_note_program(r->engine);
    return QGC_OK;
}

static qgc_status take_chunk(qgc_rows *r, const int32_t *tokens, int64_t n, int64_t skip, qgc_diag *d) {
    QGC_TRY(qgc_session_feed_rows(r->session, tokens, n, d));
    return n > skip ? qgc_session_read_rows(r->session, skip, n - skip, r->logits, d) : QGC_OK;
}

static qgc_status take_steps(qgc_rows *r, const int32_t *tokens, int64_t n, int64_t skip, qgc_diag *d) {
    int32_t next;
    if (skip > 0)
        QGC_TRY(qgc_session_feed(r->session, tokens, skip, &next, d));
    for (int64_t i = skip; i < n; i++) {
        QGC_TRY(qgc_session_feed(r->session, tokens + i, 1, &next, d));
        QGC_TRY(qgc_session_logits(r->session, r->logits + (i - skip) * r->engine->vocab, d));
    }
    return QGC_OK;
}

int64_t qgc_rows_most(const qgc_rows *r) {
    const int64_t fit = r->program ? qgc_program_plan(r->program)->chunk
                        : r->eval  ? qgc_graph_most_tokens(r->engine->graph)
                                   : QGC_ROWS_MOST;
    return fit < QGC_ROWS_MOST ? fit : QGC_ROWS_MOST;
}

int64_t qgc_rows_kept(const qgc_rows *r) {
    return r->program ? qgc_rows_most(r) : r->session ? 1 : 0;
}

/* --- on the CPU ------------------------------------------------------------------------------------------ */

/* An evaluator has no reset: the states of a new one are zeros. */
static void begin_on_cpu(qgc_rows *r) {
    const qgc_engine *e = r->engine;
    qgc_eval *old = r->eval;
    r->eval = NULL; /* while there is none */
    qgc_eval_drop(old);
    r->eval = qgc_eval_new(e->graph, e->tensors, r->ctx, QGC_ROWS_MOST, e->pool);
    qgc_eval_keep_outputs_only(r->eval);
    r->how = "cpu";
}

static qgc_status take_cpu(qgc_rows *r, const int32_t *tokens, int64_t n, int64_t skip, const float **logits,
                           qgc_diag *d) {
    QGC_TRY(qgc_eval_step(r->eval, tokens, n, r->position, n > skip, d));
    int64_t elems;
    const float *at = qgc_eval_value(r->eval, qgc_graph_output(r->engine->graph, "logits"), &elems);
    *logits = at + (n > skip ? skip * r->engine->vocab : 0);
    return QGC_OK;
}

/* --- both ------------------------------------------------------------------------------------------------ */

static qgc_status check_options(const qgc_rows *r, const qgc_rows_options *o, bool *steps, qgc_diag *d) {
    const char *prefill = o->prefill ? o->prefill : "chunks";
    const int64_t limit = r->engine->max_positions;
    *steps = strcmp(prefill, "steps") == 0;
    if (!*steps && strcmp(prefill, "chunks") != 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "unknown prefill \"%s\", expected chunks or steps",
                        prefill);
    if (r->engine->vocab == 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "the engine was opened without a graph or an artifact");
    if (o->ctx < 1 || (limit > 0 && o->ctx > limit))
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "windows of %lld tokens, and the model takes 1 to %lld positions", (long long)o->ctx,
                        (long long)(limit > 0 ? limit : INT32_MAX));
    if (r->engine->device && o->mode && !*steps) {
        qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                                "mode %s is for decode steps, and a prefill in chunks has no modes", o->mode);
        qgc_hint(d, "Take the tokens by decode steps: --prefill steps.");
        return s;
    }
    if (!r->engine->device && *steps)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --prefill is for a GPU, and this runs on the CPU");
    return r->engine->device ? QGC_OK : qgc_engine_want_no_mode(o->mode, -1, d);
}

static qgc_status begin(qgc_rows *r, const qgc_rows_options *o, qgc_diag *d) {
    bool steps;
    QGC_TRY(check_options(r, o, &steps, d));
    if (r->engine->device)
        return begin_on_gpu(r, o, steps, d);
    begin_on_cpu(r);
    return QGC_OK;
}

qgc_status qgc_rows_new(qgc_rows **out, qgc_engine *e, const qgc_rows_options *o, qgc_diag *d) {
    qgc_arena *arena = qgc_arena_new();
    qgc_rows *r = qgc_arena_alloc(arena, sizeof *r);
    *r = (qgc_rows){.arena = arena, .engine = e, .ctx = o->ctx};
    *out = NULL;
    qgc_status status = begin(r, o, d);
    if (status == QGC_OK)
        *out = r;
    else
        qgc_rows_drop(r);
    return status;
}

void qgc_rows_drop(qgc_rows *r) {
    if (!r)
        return;
    qgc_session_drop(r->session);
    qgc_program_drop(r->program);
    qgc_eval_drop(r->eval);
    qgc_arena_drop(r->arena);
}

const char *qgc_rows_how(const qgc_rows *r) {
    return r->how;
}

qgc_status qgc_rows_reset(qgc_rows *r, qgc_diag *d) {
    r->position = 0;
    if (r->session)
        return qgc_session_reset(r->session, d);
    begin_on_cpu(r);
    return QGC_OK;
}

static qgc_status check_tokens(const qgc_rows *r, const int32_t *tokens, int64_t n, qgc_diag *d) {
    const int64_t most = qgc_rows_most(r);
    if (n < 1 || n > most || n > r->ctx - r->position)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "%lld tokens at position %lld of %lld, expected 1 to %lld that fit", (long long)n,
                        (long long)r->position, (long long)r->ctx, (long long)most);
    for (long long i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= r->engine->vocab)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "token %lld of the window is %d, outside the vocabulary of %lld", r->position + i,
                            (int)tokens[i], (long long)r->engine->vocab);
    return QGC_OK;
}

qgc_status qgc_rows_take(qgc_rows *r, const int32_t *tokens, int64_t n, int64_t skip, const float **logits,
                         qgc_diag *d) {
    QGC_TRY(check_tokens(r, tokens, n, d));
    if (r->session && !r->logits)
        r->logits = qgc_arena_array(r->arena, (size_t)(QGC_ROWS_MOST * r->engine->vocab), sizeof *r->logits);
    *logits = r->logits;
    const int64_t left_out = skip < n ? skip : n;
    if (r->program)
        QGC_TRY(take_chunk(r, tokens, n, left_out, d));
    else if (r->session)
        QGC_TRY(take_steps(r, tokens, n, left_out, d));
    else
        QGC_TRY(take_cpu(r, tokens, n, left_out, logits, d));
    r->position += n;
    return QGC_OK;
}

qgc_status qgc_rows_keep(qgc_rows *r, const int32_t *tokens, int64_t n, int64_t skip, qgc_address *address,
                         qgc_diag *d) {
    int32_t next;
    QGC_TRY(check_tokens(r, tokens, n, d));
    if (!r->session || n - skip > qgc_rows_kept(r))
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "%lld rows are to stay on the GPU, which keeps %lld",
                        (long long)(n - skip), (long long)qgc_rows_kept(r));
    *address = qgc_session_logits_at(r->session, r->program ? skip : 0);
    QGC_TRY(r->program ? qgc_session_feed_rows(r->session, tokens, n, d)
                       : qgc_session_feed(r->session, tokens, n, &next, d));
    r->position += n;
    return QGC_OK;
}
