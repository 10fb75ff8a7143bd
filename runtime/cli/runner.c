#include "runtime/cli/runner.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/artifact.h"
#include "codegen/compile.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/session.h"

enum { CHUNK = 512, CPU_CHUNK = 128, DEFAULT_CTX = 4096 };

/* The tokenizer on its way: it is read while the weights go up. */
typedef struct {
    const qgc_weights *weights;
    pthread_t thread;
    bool started;
    qgc_arena *arena;
    qgc_diag diag;
    qgc_status status;
    qgc_tokenizer *tokenizer;
} reading;

struct cli_runner {
    qgc_weights *weights;
    reading reading;
    qgc_pool *pool;
    qgc_file artifact; /* images point into it */
    const char *label, *mode;
    const volatile sig_atomic_t *stop;
    int64_t ctx, vocab;

    /* on a GPU */
    qgc_device *device;
    qgc_program *program;
    qgc_session *session;
    float *logits; /* [vocab] of a prompt's end */

    /* on the CPU */
    qgc_eval *eval;
    qgc_graph *graph;
    int64_t position;
    int32_t last;
};

/* The context asked for, or the default; never beyond what the model was made for. */
static qgc_status choose_ctx(cli_runner *r, int64_t asked, int64_t limit, qgc_diag *d) {
    if (asked > 0 && limit > 0 && asked > limit)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --ctx is %lld, and the model takes at most %lld positions", (long long)asked,
                        (long long)limit);
    r->ctx = asked > 0 ? asked : DEFAULT_CTX;
    if (limit > 0 && r->ctx > limit)
        r->ctx = limit;
    return QGC_OK;
}

static qgc_status open_on_cpu(cli_runner *r, cli_context *c, const cli_runner_options *o) {
    const qgc_tensor **tensors;
    QGC_TRY(qgc_graph_bind(r->graph, r->weights, o->allow_unused, &tensors, c->diag));
    if (!cli_is_artifact(o->path)) /* those of an artifact have been run */
        QGC_TRY(cli_run_passes(r->graph, &o->pipeline, NULL, c->diag));
    QGC_TRY(qgc_verify_interface(r->graph, c->diag));
    QGC_TRY(choose_ctx(r, o->ctx, qgc_graph_max_positions(r->graph), c->diag));
    r->vocab = qgc_graph_output(r->graph, "logits")->shape.dim[1];
    r->mode = "cpu";
    r->eval = qgc_eval_new(r->graph, tensors, r->ctx, CPU_CHUNK, r->pool);
    qgc_eval_keep_outputs_only(r->eval);
    qgc_eval_set_sampling(r->eval, &o->sampling);
    r->label = qgc_arena_printf(c->arena, "cpu, %d threads", qgc_pool_threads(r->pool));
    return QGC_OK;
}

void cli_say_mode(const qgc_mode_choice *choice) {
    fprintf(stderr, "mode %s, chosen by auto: %s\n", qgc_mode_name(choice->mode), choice->why);
}

static void print_notes(const cli_runner *r, const cli_context *c) {
    const char *const *lines;
    size_t n = qgc_program_notes(r->program, &lines);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, "%s\n", lines[i]);
    const qgc_memory_row *rows;
    int n_rows = qgc_device_memory(r->device, &rows);
    for (int i = 0; i < n_rows; i++)
        fprintf(stderr, "%s%s %s", i ? ", " : "device memory: ", rows[i].owner,
                cli_bytes(rows[i].bytes, c->arena));
    fputc('\n', stderr);
}

static qgc_status open_on_gpu(cli_runner *r, cli_context *c, const cli_runner_options *o,
                              const qgc_plan *plan) {
    cli_progress progress = {.label = "weights"};
    qgc_program_options program = {.arch = o->arch,
                                   .allow_unused = o->allow_unused,
                                   .progress = o->quiet ? NULL : cli_progress_show,
                                   .context = &progress};
    qgc_status loaded =
        qgc_program_load(&r->program, plan, r->device, r->weights, r->pool, &program, c->diag);
    cli_progress_clear(&progress);
    QGC_TRY(loaded);
    QGC_TRY(choose_ctx(r, o->ctx, plan->max_positions, c->diag));
    r->vocab = plan->vocab;
    qgc_mode_choice choice;
    QGC_TRY(qgc_mode_choose(r->program, o->mode ? o->mode : "auto", r->ctx, &choice, c->diag));
    r->mode = qgc_mode_name(choice.mode);
    if (choice.why && !o->quiet)
        cli_say_mode(&choice);
    qgc_session_options session = {
        .ctx = r->ctx,
        .mode = choice.mode,
        .prefill = strcmp(o->prefill, "steps") == 0 ? QGC_PREFILL_STEPS : QGC_PREFILL_CHUNKS,
        .sampling = o->sampling,
    };
    QGC_TRY(qgc_session_new(&r->session, r->program, &session, c->diag));
    r->logits = qgc_arena_array(c->arena, (size_t)r->vocab, sizeof *r->logits);
    r->label =
        qgc_arena_printf(c->arena, "%s, %s", qgc_device_about(r->device)->name, qgc_program_arch(r->program));
    if (!o->quiet)
        print_notes(r, c);
    return QGC_OK;
}

/* A graph given instead of an artifact is compiled for the GPU at hand, through the cache. */
static qgc_status compile_here(cli_runner *r, cli_context *c, const cli_runner_options *o,
                               const qgc_plan **plan) {
    const qgc_tensor **tensors;
    QGC_TRY(qgc_graph_bind(r->graph, r->weights, o->allow_unused, &tensors, c->diag));
    QGC_TRY(cli_run_passes(r->graph, &o->pipeline, NULL, c->diag));
    const char *arch = o->arch ? o->arch : qgc_program_arch_for(r->device, c->arena);
    qgc_compile_options options = {
        .archs = &arch, .n_archs = 1, .chunk = CHUNK, .cache_folder = o->cache_folder, .pool = r->pool};
    qgc_compiled compiled;
    QGC_TRY(qgc_compile_find_tuning(&options, &options.tuning, c->diag));
    QGC_TRY(qgc_compile(r->graph, &options, &compiled, c->diag));
    if (!o->quiet)
        cli_note_cache(compiled.cache_fault, c->arena);
    *plan = compiled.plan;
    return QGC_OK;
}

qgc_status cli_choose_device(const char *text, int *index, qgc_diag *d) {
    *index = 0;
    if (strcmp(text, "cpu") == 0) {
        *index = -1;
        return QGC_OK;
    }
    if (strcmp(text, "auto") == 0) {
        *index = qgc_device_present() ? 0 : -1;
        return QGC_OK;
    }
    if (strcmp(text, "gpu") == 0 || strcmp(text, "cuda") == 0)
        return QGC_OK;
    if (strncmp(text, "gpu:", 4) == 0 && text[4] >= '0' && text[4] <= '9' && strlen(text) <= 6) {
        *index = (int)strtol(text + 4, NULL, 10);
        return QGC_OK;
    }
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "unknown device \"%s\", expected auto, gpu, gpu:N or cpu",
                    text);
}

qgc_status cli_check_mode(const char *mode, qgc_diag *d) {
    qgc_mode known;
    return !mode || strcmp(mode, "auto") == 0 ? QGC_OK : qgc_mode_named(mode, &known, d);
}

qgc_status cli_want_no_mode(const char *mode, int device, qgc_diag *d) {
    if (device >= 0 || !mode || strcmp(mode, "auto") == 0)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                            "option --mode is %s, and steps run on the CPU, which has no modes", mode);
    qgc_hint(d, "Leave it out, or run on a GPU (--device gpu).");
    return s;
}

static qgc_status open_plan(cli_runner *r, cli_context *c, const cli_runner_options *o,
                            const qgc_plan **plan) {
    *plan = NULL;
    if (!cli_is_artifact(o->path))
        return qgc_graph_load(&r->graph, o->path, c->arena, c->diag);
    QGC_TRY(cli_want_no_passes(&o->pipeline, o->path, c->diag));
    QGC_TRY(qgc_file_open(&r->artifact, o->path, c->diag));
    qgc_plan *unpacked;
    qgc_loc at = {.source = &r->artifact.source};
    QGC_TRY(qgc_artifact_unpack(&unpacked, r->artifact.data, r->artifact.bytes, at, c->diag));
    *plan = unpacked;
    return QGC_OK;
}

static void *read_tokenizer(void *context) {
    reading *t = context;
    t->status = qgc_tokenizer_open(&t->tokenizer, t->weights, &t->diag);
    return NULL;
}

/* On a thread of its own; where there is none to be had, here. */
static void begin_tokenizer(cli_runner *r) {
    reading *t = &r->reading;
    *t = (reading){.weights = r->weights, .arena = qgc_arena_new()};
    t->diag = qgc_diag_new(t->arena);
    t->started = pthread_create(&t->thread, NULL, read_tokenizer, t) == 0;
    if (!t->started)
        read_tokenizer(t);
}

/* Once. The error is told if there is no other. */
static qgc_status end_tokenizer(cli_runner *r, qgc_diag *d) {
    reading *t = &r->reading;
    if (!t->arena)
        return QGC_OK;
    if (t->started)
        pthread_join(t->thread, NULL);
    qgc_status status = t->status == QGC_OK ? QGC_OK : qgc_diag_adopt(d, &t->diag);
    qgc_arena_drop(t->arena);
    t->arena = NULL;
    return status;
}

/* Options that a CPU has no use for; cli_want_no_mode is about --mode. */
static qgc_status want_no_gpu(const cli_runner_options *o, qgc_diag *d) {
    const char *name = strcmp(o->prefill, "chunks") != 0 ? "prefill" : o->arch ? "strict-arch" : NULL;
    if (!name)
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s is for a GPU, and this runs on the CPU", name);
    if (strcmp(o->device, "auto") == 0)
        qgc_hint(d, "No GPU was found; --device gpu says why.");
    return s;
}

static qgc_status open_all(cli_runner *r, cli_context *c, const cli_runner_options *o) {
    int gpu;
    QGC_TRY(cli_choose_device(o->device, &gpu, c->diag));
    QGC_TRY(cli_want_no_mode(o->mode, gpu, c->diag));
    const qgc_plan *plan;
    QGC_TRY(open_plan(r, c, o, &plan));
    const char *weights = o->weights ? o->weights : plan ? plan->weights_path : NULL;
    if (!weights) {
        qgc_status s =
            qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "no weights: \"%s\" does not name any", o->path);
        qgc_hint(c->diag, "Give a GGUF file, a safetensors file or a Hugging Face folder with --weights.");
        return s;
    }
    qgc_status opened = qgc_weights_open(&r->weights, weights, c->diag);
    if (opened != QGC_OK && !o->weights)
        cli_note_recorded(o->path, c->diag);
    QGC_TRY(opened);
    begin_tokenizer(r);
    r->pool = qgc_pool_new((int)o->threads);
    r->stop = o->stop;
    if (gpu < 0) {
        QGC_TRY(want_no_gpu(o, c->diag));
        if (plan)
            QGC_TRY(
                qgc_graph_load_text(&r->graph, o->path, plan->graph, strlen(plan->graph), c->arena, c->diag));
        return open_on_cpu(r, c, o);
    }
    QGC_TRY(qgc_device_open(&r->device, gpu, c->diag));
    if (!plan)
        QGC_TRY(compile_here(r, c, o, &plan));
    return open_on_gpu(r, c, o, plan);
}

qgc_status cli_runner_open(cli_runner **out, cli_context *c, const cli_runner_options *o) {
    cli_runner *r = qgc_arena_alloc(c->arena, sizeof *r);
    qgc_status status = open_all(r, c, o), read = end_tokenizer(r, c->diag);
    status = status == QGC_OK ? read : status;
    if (status != QGC_OK) {
        cli_runner_close(r);
        r = NULL;
    }
    *out = r;
    return status;
}

void cli_runner_close(cli_runner *r) {
    if (!r)
        return;
    if (r->session)
        qgc_session_drop(r->session);
    if (r->program)
        qgc_program_drop(r->program);
    if (r->device)
        qgc_device_close(r->device);
    if (r->eval)
        qgc_eval_drop(r->eval);
    qgc_tokenizer_close(r->reading.tokenizer);
    if (r->weights)
        qgc_weights_close(r->weights);
    qgc_pool_drop(r->pool);
    qgc_file_close(&r->artifact);
}

const qgc_weights *cli_runner_weights(const cli_runner *r) {
    return r->weights;
}
qgc_tokenizer *cli_runner_tokenizer(const cli_runner *r) {
    return r->reading.tokenizer;
}
const char *cli_runner_device(const cli_runner *r) {
    return r->label;
}
const char *cli_runner_mode(const cli_runner *r) {
    return r->mode;
}
int64_t cli_runner_ctx(const cli_runner *r) {
    return r->ctx;
}
int64_t cli_runner_vocab(const cli_runner *r) {
    return r->vocab;
}

int64_t cli_runner_position(const cli_runner *r) {
    return r->session ? qgc_session_position(r->session) : r->position;
}

static bool is_stopped(const cli_runner *r) {
    return r->stop && *r->stop;
}

static qgc_status feed_cpu(cli_runner *r, const int32_t *tokens, int64_t n, int32_t *next, qgc_diag *d) {
    *next = -1;
    for (int64_t done = 0; done < n;) {
        if (is_stopped(r))
            return QGC_OK;
        int64_t piece = n - done < CPU_CHUNK ? n - done : CPU_CHUNK;
        QGC_TRY(qgc_eval_step(r->eval, tokens + done, piece, r->position, false, d));
        if (!qgc_eval_is_finite(r->eval))
            return qgc_eval_find_not_finite(r->eval, tokens + done, piece, r->position, d);
        r->position += piece;
        done += piece;
    }
    int64_t elems;
    const int32_t *chosen = qgc_eval_value(r->eval, qgc_graph_output(r->graph, "next"), &elems);
    *next = r->last = chosen[elems - 1];
    return QGC_OK;
}

/* What sampling saw of the logits of some step. */
static qgc_status check_finite(const cli_runner *r, qgc_diag *d) {
    const int64_t position = qgc_session_not_finite(r->session);
    if (position < 0)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "the logits at position %lld are not numbers, or infinite", (long long)position);
    qgc_hint(
        d,
        "A weight is broken, or a number became too large for a type of the model: --device cpu names the first "
        "such value, qgc bisect the pass or kernel.");
    return s;
}

/* Whole chunks at a time, so that the cuts are where the session makes them. The logits of a prompt are looked at one by
 * one, once. */
static qgc_status feed_gpu(cli_runner *r, const int32_t *tokens, int64_t n, int32_t *next, qgc_diag *d) {
    const int64_t chunk = qgc_program_plan(r->program)->chunk, most = chunk * (1 + (CHUNK - 1) / chunk);
    *next = -1;
    for (int64_t done = 0; done < n; done += most) {
        if (is_stopped(r)) {
            *next = -1;
            return QGC_OK;
        }
        QGC_TRY(qgc_session_feed(r->session, tokens + done, n - done < most ? n - done : most, next, d));
    }
    QGC_TRY(qgc_session_look(r->session, r->logits, d));
    return check_finite(r, d);
}

qgc_status cli_runner_feed(cli_runner *r, const int32_t *tokens, int64_t n, int32_t *next, qgc_diag *d) {
    return r->session ? feed_gpu(r, tokens, n, next, d) : feed_cpu(r, tokens, n, next, d);
}

/* One step ahead and no further: it starts from the token that is taken next, which the model is fed in any case if the
 * text goes on behind it, so that nothing has to be undone. */
static qgc_status step_gpu(cli_runner *r, int64_t wanted, int32_t *next, qgc_diag *d) {
    enum { AHEAD = 2 };
    int64_t room = qgc_session_room(r->session);
    while (qgc_session_queued(r->session) < AHEAD && qgc_session_queued(r->session) < wanted &&
           qgc_session_queued(r->session) < room)
        QGC_TRY(qgc_session_queue(r->session, d));
    QGC_TRY(qgc_session_step(r->session, next, d));
    return check_finite(r, d);
}

qgc_status cli_runner_step(cli_runner *r, int64_t wanted, int32_t *next, qgc_diag *d) {
    if (r->session)
        return step_gpu(r, wanted, next, d);
    int32_t token = r->last;
    const volatile sig_atomic_t *stop = r->stop;
    r->stop = NULL; /* a step is done whole */
    qgc_status status = feed_cpu(r, &token, 1, next, d);
    r->stop = stop;
    return status;
}
