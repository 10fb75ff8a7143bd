#include "runtime/engine/evaluate.h"

#include <math.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "runtime/engine/engine_impl.h"
#include "runtime/engine/rows.h"
#include "runtime/engine/score.h"

enum { DEFAULT_CTX = 512, TOKENS_BEFORE = 12 };

/* Tokens [begin, begin + n) of a text, of which those from `first` on count. */
typedef struct {
    size_t text;
    int64_t begin, n, first;
} window;

typedef struct {
    qgc_engine *engine;
    const qgc_evaluate_text *texts;
    size_t n_texts;
    const qgc_evaluate_options *o;
    qgc_evaluation *out;
    qgc_diag *d;
    qgc_tokens *tokens; /* [n_texts] */
    int32_t bos;        /* -1: the tokenizer adds none */
    window *windows;
    size_t n_windows;
    qgc_rows *rows, *against;
    qgc_scorer *scorer;           /* where both leave their logits on one GPU; else NULL */
    int64_t to_feed, most_tokens; /* in all windows, and in the largest */
    double *kl;                   /* [counted] */
    double mean, squares;         /* of the losses so far, by Welford's recurrence */
    double against_mean;
} evaluation;

/* --- texts ----------------------------------------------------------------------------------------------- */

static qgc_loc loc_of(const evaluation *v, size_t text) {
    qgc_source *source = qgc_arena_alloc(v->d->arena, sizeof *source);
    source->name = v->texts[text].name;
    return (qgc_loc){.source = source};
}

static qgc_status read_text(evaluation *v, size_t i) {
    const qgc_evaluate_text *t = &v->texts[i];
    const size_t valid = t->bytes ? qgc_utf8_check(t->text, t->bytes) : 0;
    v->tokens[i] = qgc_tokens_new(v->d->arena);
    if (valid < t->bytes)
        return qgc_fail(v->d, QGC_ERR_INPUT, loc_of(v, i), "the text is not valid UTF-8 at byte %zu", valid);
    QGC_TRY(qgc_tokenizer_encode_text(qgc_engine_tokenizer(v->engine), t->text, t->bytes, false,
                                      &v->tokens[i], v->d));
    v->out->tokens += (int64_t)v->tokens[i].n;
    if (v->tokens[i].n < 2)
        return qgc_fail(v->d, QGC_ERR_INPUT, loc_of(v, i),
                        "the text has %zu tokens, and the first that can be predicted is the second",
                        v->tokens[i].n);
    return QGC_OK;
}

/* What the tokenizer puts in front of an empty text. */
static qgc_status find_bos(evaluation *v) {
    qgc_tokens none = qgc_tokens_new(v->d->arena);
    QGC_TRY(qgc_tokenizer_encode_text(qgc_engine_tokenizer(v->engine), "", 0, false, &none, v->d));
    v->bos = none.n ? none.ids[0] : -1;
    return QGC_OK;
}

static qgc_status read_texts(evaluation *v) {
    v->tokens = qgc_arena_array(v->d->arena, v->n_texts, sizeof *v->tokens);
    v->out->texts = (int64_t)v->n_texts;
    if (v->n_texts == 0)
        return qgc_fail(v->d, QGC_ERR_USAGE, QGC_NO_LOC, "no text to evaluate");
    for (size_t i = 0; i < v->n_texts; i++) {
        qgc_frame frame = {v->d->top, "reading the text", v->texts[i].name, QGC_NO_LOC};
        v->d->top = &frame;
        const qgc_status status = read_text(v, i);
        v->d->top = frame.up;
        QGC_TRY(status);
    }
    return find_bos(v);
}

/* --- windows --------------------------------------------------------------------------------------------- */

static void add_window(evaluation *v, const window *w) {
    v->windows = qgc_arena_grow(v->d->arena, v->windows, v->n_windows, sizeof *v->windows);
    v->windows[v->n_windows++] = *w;
    v->out->counted += w->n - w->first;
    v->to_feed += w->n - 1; /* nothing is asked of the last one's logits */
    v->most_tokens = w->n > v->most_tokens ? w->n : v->most_tokens;
}

static void cut_halves(evaluation *v, size_t text) {
    const int64_t n = (int64_t)v->tokens[text].n, ctx = v->out->ctx;
    const int64_t size = n < ctx ? n : ctx;
    int64_t begin = 0;
    for (; begin + size <= n; begin += size)
        add_window(v, &(window){text, begin, size, size > 2 ? size / 2 + 1 : 1});
    v->out->left_out += n - begin;
}

static void cut_strides(evaluation *v, size_t text) {
    const int64_t n = (int64_t)v->tokens[text].n, ctx = v->out->ctx;
    for (int64_t begin = 0, end = 0; end < n; begin += v->out->stride) {
        const int64_t had = end - begin;
        end = begin + ctx < n ? begin + ctx : n;
        if (end - begin == 1) /* of a stride as long as a window: nothing predicts it */
            v->out->left_out++;
        else
            add_window(v, &(window){text, begin, end - begin, had > 1 ? had : 1});
    }
}

static int64_t limit_of(const qgc_engine *e) {
    return e && e->max_positions > 0 ? e->max_positions : INT32_MAX;
}

static qgc_status cut_windows(evaluation *v) {
    const int64_t one = limit_of(v->engine), other = limit_of(v->o->against),
                  limit = one < other ? one : other;
    qgc_evaluation *out = v->out;
    out->ctx = v->o->ctx ? v->o->ctx : DEFAULT_CTX < limit ? DEFAULT_CTX : limit;
    out->stride = v->o->stride;
    if (out->ctx < 2 || out->ctx > limit)
        return qgc_fail(v->d, QGC_ERR_USAGE, QGC_NO_LOC, "windows of %lld tokens, expected 2 to %lld",
                        (long long)out->ctx, (long long)limit);
    if (out->stride < 0 || out->stride > out->ctx)
        return qgc_fail(v->d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "a stride of %lld tokens, expected 1 to the %lld of a window", (long long)out->stride,
                        (long long)out->ctx);
    for (size_t i = 0; i < v->n_texts; i++)
        (out->stride ? cut_strides : cut_halves)(v, i);
    out->windows = (int64_t)v->n_windows;
    out->fed = v->to_feed;
    v->kl = v->o->against ? qgc_arena_array(v->d->arena, (size_t)out->counted, sizeof *v->kl) : NULL;
    return QGC_OK;
}

/* --- the other model ------------------------------------------------------------------------------------- */

static bool is_same_piece(const qgc_tokenizer *a, const qgc_tokenizer *b, int32_t id) {
    size_t bytes, other_bytes;
    const char *piece = qgc_tokenizer_piece(a, id, &bytes), *other = qgc_tokenizer_piece(b, id, &other_bytes);
    if (!piece || !other)
        return piece == other;
    return bytes == other_bytes && memcmp(piece, other, bytes) == 0;
}

/* Predictions are compared token by token, so a token has to be the same for both. */
static qgc_status check_vocabularies(const evaluation *v) {
    const qgc_engine *a = v->engine, *b = v->o->against;
    if (!b)
        return QGC_OK;
    const qgc_tokenizer *t = qgc_engine_tokenizer(a), *u = qgc_engine_tokenizer(b);
    const int32_t size = qgc_tokenizer_size(t), other = qgc_tokenizer_size(u);
    const char *path = qgc_weights_loc(b->weights).source->name;
    if (a->vocab != b->vocab || size != other)
        return qgc_fail(
            v->d, QGC_ERR_INPUT, qgc_weights_loc(a->weights),
            "the model has logits of %lld tokens and a tokenizer of %d, and the one it is compared "
            "with, of \"%s\", %lld and %d",
            (long long)a->vocab, size, path, (long long)b->vocab, other);
    for (int32_t id = 0; id < size; id++)
        if (!is_same_piece(t, u, id))
            return qgc_fail(v->d, QGC_ERR_INPUT, qgc_weights_loc(a->weights),
                            "token %d is another one in the model that it is compared with, of \"%s\"", id,
                            path);
    return QGC_OK;
}

static qgc_status open_rows(evaluation *v) {
    const qgc_evaluate_options *o = v->o;
    qgc_rows_options rows = {.ctx = v->most_tokens, .mode = o->mode, .prefill = o->prefill};
    QGC_TRY(qgc_rows_new(&v->rows, v->engine, &rows, v->d));
    v->out->how = qgc_arena_strdup(v->d->arena, qgc_rows_how(v->rows));
    if (!o->against)
        return QGC_OK;
    if (!o->against->device)
        rows.mode = rows.prefill = NULL;
    QGC_TRY(qgc_rows_new(&v->against, o->against, &rows, v->d));
    v->out->against_how = qgc_arena_strdup(v->d->arena, qgc_rows_how(v->against));
    return QGC_OK;
}

/* Logits are scored on the GPU where all of them are on it. */
static qgc_status open_scorer(evaluation *v) {
    const qgc_engine *e = v->engine, *other = v->o->against;
    int gpu, other_gpu;
    QGC_TRY(qgc_engine_choose_device(e->options.device, &gpu, v->d));
    QGC_TRY(qgc_engine_choose_device(other ? other->options.device : e->options.device, &other_gpu, v->d));
    if (gpu < 0 || gpu != other_gpu)
        return QGC_OK;
    const qgc_scorer_options options = {.arch = qgc_program_arch_for(e->device, v->d->arena),
                                        .cache_folder = e->options.cache_folder,
                                        .nvrtc_library = e->options.nvrtc_library,
                                        .vocab = e->vocab,
                                        .most_rows = QGC_ROWS_MOST};
    return qgc_scorer_new(&v->scorer, e->device, &options, v->d);
}

/* --- rows ------------------------------------------------------------------------------------------------ */

/* Tokens [at, at + n) of a window, of which the logits of the first `skip` do not count. */
typedef struct {
    const window *window;
    const int32_t *ids; /* of the window */
    int64_t at, n, skip;
    qgc_row_score *scores; /* [n - skip] */
} piece;

/* Rows of logits on the host, and the tokens that they are to predict. */
typedef struct {
    const float *logits, *against; /* [n, vocab]; against may be NULL */
    const int32_t *targets;        /* [n] */
    int64_t vocab;
    qgc_row_score *scores; /* [n] */
} host_rows;

static void score_some(void *context, size_t first, size_t last) {
    const host_rows *r = context;
    for (size_t i = first; i < last; i++) {
        qgc_arena *scratch = qgc_arena_new();
        const int64_t at = (int64_t)i * r->vocab;
        qgc_score_row(r->logits + at, r->against ? r->against + at : NULL, r->targets[i], r->vocab,
                      &r->scores[i], scratch);
        qgc_arena_drop(scratch);
    }
}

static const int32_t *targets_of(const piece *p) {
    return p->ids + p->at + p->skip + 1;
}

static qgc_status score_on_host(const evaluation *v, const piece *p) {
    host_rows r = {.targets = targets_of(p), .vocab = v->engine->vocab, .scores = p->scores};
    QGC_TRY(qgc_rows_take(v->rows, p->ids + p->at, p->n, p->skip, &r.logits, v->d));
    if (v->against)
        QGC_TRY(qgc_rows_take(v->against, p->ids + p->at, p->n, p->skip, &r.against, v->d));
    qgc_pool_for(v->engine->pool, (size_t)(p->n - p->skip), 1, score_some, &r);
    return QGC_OK;
}

static qgc_status score_on_gpu(const evaluation *v, const piece *p) {
    qgc_address logits, other = 0;
    QGC_TRY(qgc_rows_keep(v->rows, p->ids + p->at, p->n, p->skip, &logits, v->d));
    if (v->against)
        QGC_TRY(qgc_rows_keep(v->against, p->ids + p->at, p->n, p->skip, &other, v->d));
    if (p->n == p->skip)
        return QGC_OK;
    return qgc_scorer_score(v->scorer, logits, other, targets_of(p), p->n - p->skip, p->scores, v->d);
}

/* --- sums ------------------------------------------------------------------------------------------------ */

static qgc_status broken(const evaluation *v, const window *w, int64_t at, bool against) {
    const long long place = w->begin + at;
    qgc_status s = qgc_fail(v->d, QGC_ERR_INPUT, loc_of(v, w->text),
                            "the logits at token %lld of the text%s are not numbers, or infinite", place,
                            against ? ", of the model that it is compared with," : "");
    qgc_hint(v->d, "A weight is broken, or a number became too large for a type of the model: qgc run "
                   "--device cpu names the first such value, qgc bisect the pass or kernel.");
    return s;
}

/* Are the logits of both largest tokens nearly the same in both? */
static bool is_near_tie(const qgc_row_score *s) {
    return fabs(s->top[0] - s->crossed[0]) < QGC_NEAR_TIE && fabs(s->top[1] - s->crossed[1]) < QGC_NEAR_TIE;
}

static void add_comparison(evaluation *v, const window *w, int64_t at, const qgc_row_score *s, int64_t done) {
    const qgc_drift drift = {.positions = 1,
                             .max_drift = s->max_drift,
                             .squares = s->squares,
                             .logits = (double)v->engine->vocab,
                             .kl_sum = s->kl,
                             .kl_max = s->kl,
                             .flips = s->largest[0] != s->largest[1]};
    v->against_mean += (s->log_sum[1] - s->target[1] - v->against_mean) / (double)(done + 1);
    v->kl[done] = s->kl;
    v->out->near_ties += drift.flips && is_near_tie(s);
    if (v->out->worst.at < 0 || s->kl > v->out->drift.kl_max)
        v->out->worst = (qgc_evaluate_place){
            .text = w->text, .at = w->begin + at, .token = v->tokens[w->text].ids[w->begin + at]};
    qgc_drift_add(&v->out->drift, &drift);
}

/* Token `at` of a window; `done` tokens were counted before. */
static qgc_status add_row(evaluation *v, const window *w, int64_t at, const qgc_row_score *s, int64_t done) {
    if (s->broken[0] || s->broken[1])
        return broken(v, w, at - 1, !s->broken[0]);
    const double loss = s->log_sum[0] - s->target[0], step = loss - v->mean;
    v->mean += step / (double)(done + 1);
    v->squares += step * (loss - v->mean);
    if (v->kl)
        add_comparison(v, w, at, s, done);
    return QGC_OK;
}

static int64_t within(int64_t x, int64_t low, int64_t high) {
    return x < low ? low : x > high ? high : x;
}

/* How many tokens both models take at once. */
static int64_t most_of(const evaluation *v) {
    const int64_t most = qgc_rows_most(v->rows), other = v->against ? qgc_rows_most(v->against) : most;
    return most < other ? most : other;
}

/* The tokens from `at` on that the models take next: where logits stay on a GPU, as many as it keeps. */
static piece next_piece(const evaluation *v, const window *w, int64_t at) {
    const int64_t most = within(w->n - 1 - at, 1, most_of(v));
    const int64_t skip = within(w->first - 1 - at, 0, most); /* so many do not count */
    const bool one_by_one = v->scorer && qgc_rows_kept(v->rows) < most_of(v);
    const int64_t n = !one_by_one ? most : skip > 0 ? skip : 1;
    return (piece){.window = w, .at = at, .n = n, .skip = skip};
}

static qgc_status take_piece(evaluation *v, piece *p, int64_t *done) {
    qgc_arena *scratch = qgc_arena_new();
    p->scores = qgc_arena_array(scratch, (size_t)(p->n - p->skip), sizeof *p->scores);
    qgc_status s = (v->scorer ? score_on_gpu : score_on_host)(v, p);
    for (int64_t i = 0; s == QGC_OK && i < p->n - p->skip; i++)
        s = add_row(v, p->window, p->at + p->skip + i + 1, &p->scores[i], (*done)++);
    qgc_arena_drop(scratch);
    return s;
}

/* The ids of a window, with the BOS that halves begin with. */
static const int32_t *ids_of(const evaluation *v, const window *w, qgc_arena *a) {
    const int32_t *from = v->tokens[w->text].ids + w->begin;
    int32_t *ids = qgc_arena_array(a, (size_t)w->n, sizeof *ids);
    memcpy(ids, from, (size_t)w->n * sizeof *ids);
    if (v->bos >= 0 && !v->out->stride)
        ids[0] = v->bos;
    return ids;
}

static qgc_status take_window(evaluation *v, const window *w, int64_t *done, int64_t *fed) {
    qgc_arena *scratch = qgc_arena_new();
    const int32_t *ids = ids_of(v, w, scratch);
    qgc_status s = qgc_rows_reset(v->rows, v->d);
    if (s == QGC_OK && v->against)
        s = qgc_rows_reset(v->against, v->d);
    for (int64_t at = 0; s == QGC_OK && at < w->n - 1;) {
        piece p = next_piece(v, w, at);
        p.ids = ids;
        s = v->o->stop && *v->o->stop ? QGC_INTERRUPTED : take_piece(v, &p, done);
        at += p.n;
        *fed += p.n;
        if (s == QGC_OK && v->o->progress)
            v->o->progress(v->o->context, (size_t)*fed, (size_t)v->to_feed);
    }
    qgc_arena_drop(scratch);
    return s;
}

/* --- result ---------------------------------------------------------------------------------------------- */

static void say_worst(const evaluation *v) {
    qgc_evaluate_place *worst = &v->out->worst;
    const qgc_tokenizer *t = qgc_engine_tokenizer(v->engine);
    const int32_t *ids = v->tokens[worst->text].ids;
    qgc_str before = qgc_str_new(v->d->arena), itself = qgc_str_new(v->d->arena);
    for (int64_t i = worst->at > TOKENS_BEFORE ? worst->at - TOKENS_BEFORE : 0; i <= worst->at; i++) {
        size_t bytes;
        const char *text = qgc_tokenizer_piece(t, ids[i], &bytes);
        qgc_str_add_bytes(i < worst->at ? &before : &itself, text ? text : "", bytes);
    }
    worst->before = before.text;
    worst->before_bytes = before.bytes;
    worst->piece = itself.text;
    worst->piece_bytes = itself.bytes;
}

static void finish(evaluation *v) {
    qgc_evaluation *out = v->out;
    const double n = (double)out->counted;
    out->loss = v->mean;
    out->loss_error = out->counted > 1 ? sqrt(v->squares / (n - 1) / n) : NAN;
    out->perplexity = exp(out->loss);
    if (!v->kl)
        return;
    out->against_loss = v->against_mean;
    out->against_perplexity = exp(out->against_loss);
    out->kl_999 = qgc_percentile(v->kl, (size_t)out->counted, 99.9, v->d->arena);
    say_worst(v);
}

static qgc_status evaluate(evaluation *v) {
    int64_t done = 0, fed = 0;
    if (v->engine->vocab == 0 || (v->o->against && v->o->against->vocab == 0))
        return qgc_fail(v->d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "an engine was opened without a graph or an artifact");
    QGC_TRY(check_vocabularies(v));
    QGC_TRY(read_texts(v));
    QGC_TRY(cut_windows(v));
    QGC_TRY(open_rows(v));
    QGC_TRY(open_scorer(v));
    for (size_t i = 0; i < v->n_windows; i++)
        QGC_TRY(take_window(v, &v->windows[i], &done, &fed));
    finish(v);
    return QGC_OK;
}

qgc_status qgc_evaluate(qgc_engine *e, const qgc_evaluate_text *texts, size_t n,
                        const qgc_evaluate_options *o, qgc_evaluation *out, qgc_diag *d) {
    evaluation v = {.engine = e, .texts = texts, .n_texts = n, .o = o, .out = out, .d = d};
    *out = (qgc_evaluation){.worst = {.at = -1}};
    const qgc_status s = evaluate(&v);
    qgc_scorer_drop(v.scorer);
    qgc_rows_drop(v.against);
    qgc_rows_drop(v.rows);
    return s;
}
