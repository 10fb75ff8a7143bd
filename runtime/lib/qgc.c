/* The functions of include/qgc.h: each packs its arguments for qgc_lib_call, which turns what goes wrong
 * into an error. */

#include "include/qgc.h"

#include <string.h>

#include "codegen/artifact.h"
#include "graph/base/file.h"
#include "graph/base/version.h"
#include "runtime/engine/build.h"
#include "runtime/engine/evaluate.h"
#include "runtime/engine/plan_report.h"
#include "runtime/engine/sequence.h"
#include "runtime/lib/error.h"

enum { CHUNK = 512 };

int qgc_abi(void) {
    return QGC_ABI;
}

const char *qgc_version(void) {
    return qgc_version_text;
}

/* A struct of options as this library knows it, of one as the caller knew it. */
static qgc_status take_options(void *to, size_t known, const void *from, qgc_diag *d) {
    size_t size = 0;
    memset(to, 0, known);
    if (from)
        memcpy(&size, from, sizeof size);
    if (from && size < sizeof size)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "options of %zu bytes: their first field is their own size", size);
    memcpy(to, from ? from : to, size < known ? size : known);
    return QGC_OK;
}

static qgc_status want_whole(const qgc_engine *e, qgc_diag *d) {
    return qgc_engine_is_broken(e)
               ? qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC,
                          "the engine ran out of host memory in an earlier call, and can only be closed")
               : QGC_OK;
}

/* --- engines --------------------------------------------------------------------------------------------- */

typedef struct {
    qgc_engine **out;
    const qgc_open_options *options;
} open_call;

static qgc_status open_engine(void *arguments, qgc_diag *d) {
    const open_call *c = arguments;
    qgc_open_options o;
    QGC_TRY(take_options(&o, sizeof o, c->options, d));
    const qgc_engine_options options = {
        .path = o.path,
        .weights = o.weights,
        .device = o.device,
        .arch = o.arch,
        .cache_folder = o.cache_folder,
        .nvrtc_library = o.nvrtc,
        .passes = {.passes = o.passes, .skip = o.skip},
        .threads = o.threads,
        .allow_unused = o.allow_unused != 0,
        .listener = {.progress = o.progress, .note = o.note, .context = o.context},
    };
    return qgc_engine_open(c->out, &options, d);
}

/* What was opened so far can be closed. */
static void give_up_opening(void *arguments) {
    const open_call *c = arguments;
    qgc_engine_close(*c->out);
    *c->out = NULL;
}

qgc_error *qgc_open(qgc_engine **out, const qgc_open_options *options) {
    *out = NULL;
    return qgc_lib_call(open_engine, give_up_opening, &(open_call){out, options});
}

void qgc_close(qgc_engine *engine) {
    qgc_engine_close(engine);
}

const char *qgc_get_device(const qgc_engine *engine) {
    return qgc_engine_device(engine);
}

int64_t qgc_get_vocab(const qgc_engine *engine) {
    return qgc_engine_vocab(engine);
}

/* --- text and tokens ------------------------------------------------------------------------------------- */

typedef struct {
    qgc_engine *engine;
    const char *text;
    size_t bytes;
    int flags;
    const qgc_turn *turns;
    size_t n_turns;
    int32_t *ids;
    size_t room, *n;
} encode_call;

static void give_tokens(const encode_call *c, const qgc_tokens *tokens) {
    const size_t n = tokens->n < c->room ? tokens->n : c->room;
    *c->n = tokens->n;
    if (n)
        memcpy(c->ids, tokens->ids, n * sizeof *c->ids);
}

static qgc_status encode(void *arguments, qgc_diag *d) {
    const encode_call *c = arguments;
    QGC_TRY(want_whole(c->engine, d));
    qgc_tokens tokens = qgc_tokens_new(d->arena);
    const bool specials = (c->flags & QGC_TEXT_SPECIALS) != 0;
    qgc_tokenizer *t = qgc_engine_tokenizer(c->engine);
    if (c->flags & QGC_TEXT_WHOLE)
        QGC_TRY(qgc_tokenizer_encode_text(t, c->text, c->bytes, specials, &tokens, d));
    else
        QGC_TRY(qgc_tokenizer_encode(t, c->text, c->bytes, specials, &tokens, d));
    give_tokens(c, &tokens);
    return QGC_OK;
}

static qgc_status encode_chat(void *arguments, qgc_diag *d) {
    const encode_call *c = arguments;
    qgc_chat *chat;
    QGC_TRY(want_whole(c->engine, d));
    QGC_TRY(qgc_engine_chat(c->engine, &chat, d));
    qgc_tokens tokens = qgc_tokens_new(d->arena);
    qgc_message *messages = qgc_arena_array(d->arena, c->n_turns, sizeof *messages);
    for (size_t i = 0; i < c->n_turns; i++)
        messages[i] = (qgc_message){c->turns[i].role, c->turns[i].content};
    QGC_TRY(qgc_chat_encode(chat, messages, c->n_turns, &tokens, d));
    give_tokens(c, &tokens);
    return QGC_OK;
}

static void break_encoding(void *arguments) {
    qgc_engine_break(((const encode_call *)arguments)->engine);
}

qgc_error *qgc_encode(qgc_engine *engine, const char *text, size_t bytes, int flags, int32_t *ids,
                      size_t room, size_t *n) {
    *n = 0;
    return qgc_lib_call(encode, break_encoding,
                        &(encode_call){.engine = engine,
                                       .text = text,
                                       .bytes = bytes,
                                       .flags = flags,
                                       .ids = ids,
                                       .room = room,
                                       .n = n});
}

qgc_error *qgc_encode_chat(qgc_engine *engine, const qgc_turn *turns, size_t n_turns, int32_t *ids,
                           size_t room, size_t *n) {
    *n = 0;
    return qgc_lib_call(
        encode_chat, break_encoding,
        &(encode_call){
            .engine = engine, .turns = turns, .n_turns = n_turns, .ids = ids, .room = room, .n = n});
}

const char *qgc_piece(const qgc_engine *engine, int32_t id, size_t *bytes) {
    return qgc_tokenizer_piece(qgc_engine_tokenizer(engine), id, bytes);
}

int qgc_is_end(const qgc_engine *engine, int32_t id) {
    return qgc_engine_is_end(engine, id);
}

/* --- sequences ------------------------------------------------------------------------------------------- */

/* What the functions of a sequence are given; each uses some. */
typedef struct {
    qgc_sequence *sequence, **out;
    qgc_engine *engine;
    const qgc_begin_options *options;
    const int32_t *tokens;
    int64_t n;
    int32_t *next;
    float *logits;
} text_call;

static void break_text(void *arguments) {
    const text_call *c = arguments;
    qgc_engine_break(c->engine);
    if (c->out)
        *c->out = NULL;
}

/* 0 is what a caller who knows nothing of a field leaves in it. */
static qgc_sampling sampling_of(const qgc_begin_options *o) {
    return (qgc_sampling){.temperature = o->temperature,
                          .top_k = o->top_k,
                          .top_p = o->top_p != 0 ? o->top_p : 1,
                          .min_p = o->min_p,
                          .repeat_penalty = o->repeat_penalty != 0 ? o->repeat_penalty : 1,
                          .seed = o->seed};
}

static qgc_status begin(void *arguments, qgc_diag *d) {
    const text_call *c = arguments;
    qgc_begin_options o;
    QGC_TRY(want_whole(c->engine, d));
    QGC_TRY(take_options(&o, sizeof o, c->options, d));
    const qgc_sequence_options options = {
        .ctx = o.ctx, .mode = o.mode, .prefill = o.prefill, .sampling = sampling_of(&o), .stop = o.stop};
    return qgc_sequence_new(c->out, c->engine, &options, d);
}

qgc_error *qgc_begin(qgc_sequence **out, qgc_engine *engine, const qgc_begin_options *options) {
    *out = NULL;
    return qgc_lib_call(begin, break_text, &(text_call){.out = out, .engine = engine, .options = options});
}

void qgc_end(qgc_sequence *text) {
    qgc_sequence_drop(text);
}

const char *qgc_get_mode(const qgc_sequence *text) {
    return qgc_sequence_mode(text);
}
int64_t qgc_get_ctx(const qgc_sequence *text) {
    return qgc_sequence_ctx(text);
}
int64_t qgc_get_position(const qgc_sequence *text) {
    return qgc_sequence_position(text);
}

static qgc_status feed(void *arguments, qgc_diag *d) {
    const text_call *c = arguments;
    QGC_TRY(want_whole(c->engine, d));
    return qgc_sequence_feed(c->sequence, c->tokens, c->n, c->next, d);
}

static qgc_status step(void *arguments, qgc_diag *d) {
    const text_call *c = arguments;
    QGC_TRY(want_whole(c->engine, d));
    return qgc_sequence_step(c->sequence, c->n, c->next, d);
}

static qgc_status read_logits(void *arguments, qgc_diag *d) {
    const text_call *c = arguments;
    QGC_TRY(want_whole(c->engine, d));
    return qgc_sequence_logits(c->sequence, c->logits, d);
}

static qgc_status set_sampling(void *arguments, qgc_diag *d) {
    const text_call *c = arguments;
    qgc_begin_options o;
    QGC_TRY(want_whole(c->engine, d));
    QGC_TRY(take_options(&o, sizeof o, c->options, d));
    const qgc_sampling sampling = sampling_of(&o);
    return qgc_sequence_set_sampling(c->sequence, &sampling, d);
}

static qgc_status reset(void *arguments, qgc_diag *d) {
    const text_call *c = arguments;
    QGC_TRY(want_whole(c->engine, d));
    return qgc_sequence_reset(c->sequence, d);
}

static qgc_error *call_text(qgc_status (*fn)(void *, qgc_diag *), qgc_sequence *text, text_call c) {
    c.sequence = text;
    c.engine = qgc_sequence_engine(text);
    return qgc_lib_call(fn, break_text, &c);
}

qgc_error *qgc_feed(qgc_sequence *text, const int32_t *tokens, size_t n, int32_t *next) {
    *next = -1;
    const int64_t most = n < INT64_MAX ? (int64_t)n : INT64_MAX;
    return call_text(feed, text, (text_call){.tokens = tokens, .n = most, .next = next});
}

qgc_error *qgc_step(qgc_sequence *text, int64_t wanted, int32_t *next) {
    *next = -1;
    return call_text(step, text, (text_call){.n = wanted < 1 ? 1 : wanted, .next = next});
}

qgc_error *qgc_logits(qgc_sequence *text, float *logits) {
    return call_text(read_logits, text, (text_call){.logits = logits});
}

qgc_error *qgc_set_sampling(qgc_sequence *text, const qgc_begin_options *options) {
    return call_text(set_sampling, text, (text_call){.options = options});
}

qgc_error *qgc_reset(qgc_sequence *text) {
    return call_text(reset, text, (text_call){0});
}

/* --- evaluation ------------------------------------------------------------------------------------------ */

typedef struct {
    qgc_engine *engine, *against; /* against: known once the options were read */
    const qgc_text *texts;
    size_t n;
    const qgc_eval_options *options;
    qgc_eval_result *result;
} eval_call;

static void break_eval(void *arguments) {
    const eval_call *c = arguments;
    qgc_engine_break(c->engine);
    if (c->against)
        qgc_engine_break(c->against);
}

/* As much of a result as the caller knows of. */
static void give_result(qgc_eval_result *to, const qgc_evaluation *x, bool stopped) {
    qgc_eval_result all = {.size = to->size,
                           .stopped = stopped,
                           .ctx = x->ctx,
                           .windows = x->windows,
                           .tokens = x->tokens,
                           .counted = x->counted,
                           .left_out = x->left_out,
                           .loss = x->loss,
                           .loss_error = x->loss_error,
                           .perplexity = x->perplexity};
    if (x->against_how && !stopped) {
        all.against_perplexity = x->against_perplexity;
        all.kl_mean = qgc_drift_kl(&x->drift);
        all.kl_999 = x->kl_999;
        all.kl_max = x->drift.kl_max;
        all.max_drift = x->drift.max_drift;
        all.flips = x->drift.flips;
        all.near_ties = x->near_ties;
        all.worst_text = (int64_t)x->worst.text;
        all.worst_token = x->worst.at;
    }
    memcpy(to, &all, to->size < sizeof all ? to->size : sizeof all);
}

static qgc_status evaluate(void *arguments, qgc_diag *d) {
    eval_call *c = arguments;
    qgc_eval_options o;
    qgc_evaluation x;
    QGC_TRY(want_whole(c->engine, d));
    QGC_TRY(take_options(&o, sizeof o, c->options, d));
    if (c->result->size < sizeof c->result->size)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "a result of %zu bytes: its first field is its own size", c->result->size);
    c->against = o.against;
    if (o.against)
        QGC_TRY(want_whole(o.against, d));
    qgc_evaluate_text *texts = qgc_arena_array(d->arena, c->n, sizeof *texts);
    for (size_t i = 0; i < c->n; i++)
        texts[i] = (qgc_evaluate_text){c->texts[i].name, c->texts[i].text, c->texts[i].bytes};
    const qgc_evaluate_options options = {.ctx = o.ctx,
                                          .stride = o.stride,
                                          .mode = o.mode,
                                          .prefill = o.prefill,
                                          .against = o.against,
                                          .stop = o.stop,
                                          .progress = o.progress,
                                          .context = o.context};
    const qgc_status status = qgc_evaluate(c->engine, texts, c->n, &options, &x, d);
    if (status != QGC_OK && status != QGC_INTERRUPTED)
        return status;
    give_result(c->result, &x, status == QGC_INTERRUPTED);
    return QGC_OK;
}

qgc_error *qgc_eval_texts(qgc_engine *engine, const qgc_text *texts, size_t n,
                          const qgc_eval_options *options, qgc_eval_result *result) {
    return qgc_lib_call(
        evaluate, break_eval,
        &(eval_call){.engine = engine, .texts = texts, .n = n, .options = options, .result = result});
}

/* --- artifacts ------------------------------------------------------------------------------------------- */

/* "a,b" */
static const char **split(const char *text, int *n, qgc_arena *a) {
    const char **parts = NULL;
    *n = 0;
    for (size_t length; *text; text += length + (text[length] == ',')) {
        length = strcspn(text, ",");
        if (length == 0)
            continue;
        parts = qgc_arena_grow(a, parts, (size_t)*n, sizeof *parts);
        parts[(*n)++] = qgc_arena_strndup(a, text, length);
    }
    return parts;
}

typedef struct {
    const qgc_compile_settings *settings;
} compile_call;

static qgc_status compile_file(void *arguments, qgc_diag *d) {
    qgc_compile_settings s;
    QGC_TRY(take_options(&s, sizeof s, ((const compile_call *)arguments)->settings, d));
    if (!s.graph || !s.output)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no path of %s", s.graph ? "an artifact" : "a graph");
    qgc_build_options build = {
        .graph = s.graph,
        .output = s.output,
        .weights = s.weights,
        .chunk = s.chunk > 0 ? s.chunk : CHUNK,
        .cache_folder = s.cache_folder,
        .nvrtc_library = s.nvrtc,
        .allow_unused = s.allow_unused != 0,
        .passes = {.passes = s.passes, .skip = s.skip},
        .listener = {.progress = s.progress, .context = s.context},
    };
    if (s.archs)
        build.archs = split(s.archs, &build.n_archs, d->arena);
    qgc_built built;
    return qgc_build(&build, &built, d);
}

qgc_error *qgc_compile_file(const qgc_compile_settings *settings) {
    return qgc_lib_call(compile_file, NULL, &(compile_call){settings});
}

typedef struct {
    const char *path;
    void (*write)(void *context, const char *json, size_t bytes);
    void *context;
    qgc_file file;
} inspect_call;

static qgc_status inspect(void *arguments, qgc_diag *d) {
    inspect_call *c = arguments;
    qgc_plan *plan;
    QGC_TRY(qgc_file_open(&c->file, c->path, d));
    const qgc_loc at = {.source = &c->file.source};
    QGC_TRY(qgc_artifact_unpack(&plan, c->file.data, c->file.bytes, at, d));
    qgc_str json = qgc_str_new(d->arena);
    QGC_TRY(qgc_plan_json(plan, NULL, &json, d));
    c->write(c->context, json.text, json.bytes);
    return QGC_OK;
}

qgc_error *qgc_inspect_file(const char *path, void (*write)(void *context, const char *json, size_t bytes),
                            void *context) {
    inspect_call c = {.path = path, .write = write, .context = context};
    qgc_error *e = qgc_lib_call(inspect, NULL, &c);
    qgc_file_close(&c.file);
    return e;
}
