#include <stdlib.h>
#include <string.h>

#include "codegen/artifact.h"
#include "codegen/nvrtc.h"
#include "graph/base/utf8.h"
#include "graph/load.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/engine/engine_impl.h"
#include "runtime/engine/find.h"
#include "runtime/engine/prepare.h"
#include "runtime/engine/retarget.h"
#include "runtime/stand_in.h"

enum { CHUNK = 512 };

/* --- choices --------------------------------------------------------------------------------------------- */

qgc_status qgc_engine_choose_device(const char *text, int *index, qgc_diag *d) {
    *index = 0;
    if (strcmp(text, "cpu") == 0) {
        *index = -1;
        return QGC_OK;
    }
    if (strcmp(text, "auto") == 0) {
        *index = qgc_device_present() ? 0 : -1;
        return QGC_OK;
    }
    const size_t name = strncmp(text, "gpu", 3) == 0 ? 3 : strncmp(text, "cuda", 4) == 0 ? 4 : 0;
    const size_t digits = name && text[name] == ':' ? strspn(text + name + 1, "0123456789") : 0;
    if (name && !text[name])
        return QGC_OK;
    if ((digits == 1 || digits == 2) && !text[name + 1 + digits]) {
        *index = (int)strtol(text + name + 1, NULL, 10);
        return QGC_OK;
    }
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "unknown device \"%s\", expected auto, gpu, gpu:N or cpu",
                    text);
}

qgc_status qgc_engine_want_no_mode(const char *mode, int device, qgc_diag *d) {
    if (device >= 0 || !mode || strcmp(mode, "auto") == 0)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                            "option --mode is %s, and steps run on the CPU, which has no modes", mode);
    qgc_hint(d, "Leave it out, or run on a GPU (--device gpu).");
    return s;
}

const char *qgc_engine_default_arch(qgc_arena *a) {
    qgc_diag ignored = qgc_diag_new(a);
    qgc_device *dev;
    if (!qgc_device_present() || qgc_device_open(&dev, 0, &ignored) != QGC_OK)
        return "sm_90a";
    const char *arch = qgc_program_arch_for(dev, a);
    qgc_device_close(dev);
    return arch;
}

void qgc_engine_note_recorded(const char *path, qgc_diag *d) {
    qgc_note(d, QGC_NO_LOC, "the artifact \"%s\" records that its weights are there", path);
    qgc_hint(d, "Say with --weights where they are now.");
}

bool qgc_engine_is_artifact(const char *path) {
    static const char magic[] = "QGC\x1a";
    qgc_arena *scratch = qgc_arena_new();
    qgc_diag ignored = qgc_diag_new(scratch);
    qgc_file f;
    bool yes = qgc_file_open(&f, path, &ignored) == QGC_OK && f.bytes >= 4 && memcmp(f.data, magic, 4) == 0;
    qgc_file_close(&f);
    qgc_arena_drop(scratch);
    return yes;
}

void qgc_engine_note(const qgc_engine *e, const char *line) {
    if (e->options.listener.note)
        e->options.listener.note(e->options.listener.context, line);
}

/* --- passes ---------------------------------------------------------------------------------------------- */

static qgc_status keep_source(void *context, const qgc_pass_info *pass, const qgc_pass_run *run,
                              const qgc_graph *g, qgc_diag *d) {
    (void)run;
    (void)d;
    if (!pass)
        qgc_graph_print_yaml(g, context);
    return QGC_OK;
}

qgc_status qgc_engine_run_passes(const qgc_engine_passes *p, qgc_graph *g, qgc_str *source, qgc_diag *d) {
    if (p->run)
        return p->run(p->context, g, source, d);
    qgc_pass_report unread = {0};
    const qgc_pass_options options = {.passes = p->passes,
                                      .skip = p->skip,
                                      .want_matches = true,
                                      .after = source ? keep_source : NULL,
                                      .context = source};
    return qgc_passes_run(g, &options, &unread, d);
}

/* --- tokenizer ------------------------------------------------------------------------------------------- */

static void read_tokenizer(void *context) {
    qgc_engine_reading *t = context;
    t->status = qgc_tokenizer_open(&t->tokenizer, t->weights, &t->diag);
}

static void *read_on_thread(void *context) {
    qgc_engine_reading *t = context;
    if (t->tried)
        t->out_of_memory = !qgc_memory_try(read_tokenizer, t);
    else
        read_tokenizer(t);
    return NULL;
}

/* On a thread of its own; where there is none to be had, here. */
static void begin_tokenizer(qgc_engine *e) {
    qgc_engine_reading *t = &e->reading;
    *t =
        (qgc_engine_reading){.weights = e->weights, .arena = qgc_arena_new(), .tried = qgc_memory_is_tried()};
    t->diag = qgc_diag_new(t->arena);
    t->started = pthread_create(&t->thread, NULL, read_on_thread, t) == 0;
    if (!t->started)
        read_tokenizer(t);
}

/* Once. Its error is told if there is no other. */
static qgc_status end_tokenizer(qgc_engine *e, qgc_diag *d) {
    qgc_engine_reading *t = &e->reading;
    if (!t->arena)
        return QGC_OK;
    if (t->started)
        pthread_join(t->thread, NULL);
    t->started = false;
    if (t->out_of_memory)
        qgc_memory_out(0);
    qgc_status status = t->status == QGC_OK ? QGC_OK : qgc_diag_adopt(d, &t->diag);
    qgc_arena_drop(t->arena);
    t->arena = NULL;
    return status;
}

/* --- opening --------------------------------------------------------------------------------------------- */

static qgc_status open_on_cpu(qgc_engine *e, bool passes_were_run, qgc_diag *d) {
    const qgc_engine_options *o = &e->options;
    QGC_TRY(qgc_graph_bind(e->graph, e->weights, o->allow_unused, &e->tensors, d));
    if (!passes_were_run)
        QGC_TRY(qgc_engine_run_passes(&o->passes, e->graph, &e->source, d));
    QGC_TRY(qgc_verify_interface(e->graph, d));
    e->max_positions = qgc_graph_max_positions(e->graph);
    e->vocab = qgc_graph_output(e->graph, "logits")->shape.dim[1];
    const int threads = qgc_pool_threads(e->pool);
    e->label = qgc_arena_printf(e->arena, "cpu, %d thread%s", threads, threads == 1 ? "" : "s");
    return QGC_OK;
}

void qgc_engine_note_program(qgc_engine *e) {
    const char *const *lines;
    const size_t n = qgc_program_notes(e->program, &lines);
    for (; e->n_noted < n; e->n_noted++)
        qgc_engine_note(e, lines[e->n_noted]);
}

/* Is the artifact to be compiled again, as none of its images runs here and no one is asked for? Without NVRTC it is not, and
 * loading it says what there is. */
static bool wants_retarget(const qgc_engine *e, const qgc_plan *plan) {
    if (!plan || e->options.arch || qgc_image_best(plan, qgc_device_about(e->device)).arch >= 0)
        return false;
    qgc_arena *a = qgc_arena_new();
    qgc_diag ignored = qgc_diag_new(a);
    qgc_nvrtc *nvrtc;
    const bool there = qgc_nvrtc_open(&nvrtc, e->options.nvrtc_library, &ignored) == QGC_OK;
    if (there)
        qgc_nvrtc_close(nvrtc);
    qgc_arena_drop(a);
    return there;
}

static void note_cache(const qgc_engine *e, const qgc_compiled *compiled) {
    if (compiled->cache_fault)
        qgc_engine_note(
            e, qgc_arena_printf(e->arena, "note: compiled kernels are not kept: %s", compiled->cache_fault));
}

static qgc_status compile_again(qgc_engine *e, const qgc_plan **plan, const qgc_prepare_options *prepare,
                                qgc_diag *d) {
    qgc_prepare_options options = *prepare;
    qgc_compiled compiled;
    options.chunk = (*plan)->chunk;
    QGC_TRY(qgc_retarget_graph(&e->graph, *plan, e->options.path, e->arena, d));
    QGC_TRY(qgc_engine_run_passes(&(qgc_engine_passes){0}, e->graph, NULL, d));
    QGC_TRY(qgc_prepare(&e->program, &compiled, e->graph, &options, d));
    qgc_retarget_places(compiled.plan, *plan);
    note_cache(e, &compiled);
    *plan = compiled.plan;
    return QGC_OK;
}

/* The artifact's own graph and pipeline, compiled for the GPU at hand through the cache of kernels. */
static qgc_status retarget(qgc_engine *e, const qgc_plan **plan, const qgc_prepare_options *prepare,
                           qgc_diag *d) {
    const char *arch = qgc_program_arch_for(e->device, e->arena), *name = qgc_device_about(e->device)->name;
    qgc_engine_note(
        e, qgc_arena_printf(e->arena,
                            "no image of %s runs on %s: its graph is compiled for %s (qgc compile %s "
                            "--arch %s makes an artifact of that)",
                            e->options.path, name, arch, e->options.path, arch));
    const qgc_status s = compile_again(e, plan, prepare, d);
    if (s != QGC_OK)
        qgc_note(d, QGC_NO_LOC, "no image of the artifact runs on %s, so its graph is compiled again", name);
    return s;
}

/* An artifact's plan, or a graph (`plan` is NULL), which is compiled for the GPU at hand. */
static qgc_status open_on_gpu(qgc_engine *e, const qgc_plan *plan, qgc_diag *d) {
    const qgc_engine_options *o = &e->options;
    const qgc_prepare_options prepare = {.device = e->device,
                                         .weights = e->weights,
                                         .pool = e->pool,
                                         .arch = o->arch,
                                         .cache_folder = o->cache_folder,
                                         .nvrtc_library = o->nvrtc_library,
                                         .chunk = CHUNK,
                                         .allow_unused = o->allow_unused,
                                         .later = true,
                                         .progress = o->listener.progress,
                                         .context = o->listener.context,
                                         .times = o->times};
    if (wants_retarget(e, plan))
        QGC_TRY(retarget(e, &plan, &prepare, d));
    else if (plan)
        QGC_TRY(qgc_prepare_plan(&e->program, plan, &prepare, d));
    else {
        qgc_compiled compiled;
        QGC_TRY(qgc_graph_bind(e->graph, e->weights, o->allow_unused, &e->tensors, d));
        QGC_TRY(qgc_engine_run_passes(&o->passes, e->graph, &e->source, d));
        qgc_times_lap(o->times, "passes");
        QGC_TRY(qgc_prepare(&e->program, &compiled, e->graph, &prepare, d));
        note_cache(e, &compiled);
        plan = compiled.plan;
    }
    e->vocab = plan->vocab;
    e->max_positions = plan->max_positions;
    e->label =
        qgc_arena_printf(e->arena, "%s, %s", qgc_device_about(e->device)->name, qgc_program_arch(e->program));
    qgc_engine_note_program(e);
    return QGC_OK;
}

static qgc_status open_plan(qgc_engine *e, const qgc_plan **plan, qgc_diag *d) {
    *plan = NULL;
    if (!e->options.path || !qgc_engine_is_artifact(e->options.path))
        return QGC_OK;
    QGC_TRY(qgc_file_open(&e->artifact, e->options.path, d));
    qgc_plan *unpacked;
    const qgc_loc at = {.source = &e->artifact.source};
    QGC_TRY(qgc_artifact_unpack(&unpacked, e->artifact.data, e->artifact.bytes, at, d));
    *plan = unpacked;
    qgc_str_add(&e->source, unpacked->source);
    return QGC_OK;
}

/* The weights that an artifact or a graph goes with, where none are named; in `*path`, and in words how they were found. */
static qgc_status choose_weights(const qgc_engine *e, const qgc_plan *plan, const char **path, qgc_diag *d) {
    const qgc_engine_options *o = &e->options;
    const char *recorded = plan ? plan->weights_path : NULL;
    const char *model = plan ? plan->name : e->graph ? e->graph->name : NULL;
    *path = recorded;
    if (recorded && qgc_file_exists(recorded))
        return QGC_OK;
    if (recorded)
        *path = qgc_find_moved(recorded, o->path, e->arena);
    else if (o->path)
        *path = qgc_find_weights_of(model, o->path, e->arena);
    if (*path)
        qgc_engine_note(e, qgc_arena_printf(e->arena, "weights %s", qgc_printable(e->arena, *path)));
    if (*path || recorded) {
        *path = *path ? *path : recorded; /* whose error says that they are not there */
        return QGC_OK;
    }
    qgc_status s =
        o->path ? qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no weights: \"%s\" does not name any", o->path)
                : qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no weights");
    if (o->path)
        qgc_note(d, QGC_NO_LOC,
                 "looked for \"%s\" beside it, in QGC_MODELS and in what was downloaded from Hugging Face",
                 model);
    qgc_hint(
        d,
        "Give a GGUF file, a safetensors file, a Hugging Face folder or the name of a repository with --weights.");
    return s;
}

static qgc_status open_weights(qgc_engine *e, const qgc_plan *plan, qgc_diag *d) {
    const char *path;
    if (e->options.weights)
        QGC_TRY(qgc_find_weights(e->options.weights, &path, d));
    else
        QGC_TRY(choose_weights(e, plan, &path, d));
    qgc_status opened = qgc_weights_open(&e->weights, path, d);
    if (opened != QGC_OK && !e->options.weights && plan && plan->weights_path)
        qgc_engine_note_recorded(e->options.path, d);
    return opened;
}

/* A graph, which may read its numbers from the weights. */
static qgc_status open_graph(qgc_engine *e, const qgc_plan *plan, qgc_diag *d) {
    if (!e->options.path || plan)
        return open_weights(e, plan, d);
    if (e->options.weights)
        QGC_TRY(open_weights(e, plan, d));
    QGC_TRY(qgc_graph_load_for(&e->graph, e->options.path, e->weights, e->arena, d));
    return e->weights ? QGC_OK : open_weights(e, plan, d); /* which says what is missing */
}

static qgc_status want_no_arch(const qgc_engine_options *o, qgc_diag *d) {
    if (!o->arch && !o->card)
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s is for a GPU, and this runs on the CPU",
                 o->arch ? "strict-arch" : "card");
    if (strcmp(o->device, "auto") == 0)
        qgc_hint(d, "No GPU was found; --device gpu says why.");
    return s;
}

static qgc_status open_device(qgc_engine *e, int gpu, const qgc_plan *plan, qgc_diag *d) {
    if (gpu >= 0) {
        QGC_TRY(qgc_device_open(&e->device, gpu, d));
        qgc_times_lap(e->options.times, "device");
        QGC_TRY(qgc_stand_in(e->device, e->options.card, d));
        return open_on_gpu(e, plan, d);
    }
    QGC_TRY(want_no_arch(&e->options, d));
    if (plan)
        QGC_TRY(
            qgc_graph_load_text(&e->graph, e->options.path, plan->graph, strlen(plan->graph), e->arena, d));
    return open_on_cpu(e, plan != NULL, d);
}

static qgc_status open_all(qgc_engine *e, qgc_diag *d) {
    const qgc_engine_options *o = &e->options;
    const bool either = strcmp(o->device, "auto") == 0; /* the driver knows, which takes long to begin */
    int gpu = -1;
    const qgc_plan *plan;
    if (!either)
        QGC_TRY(qgc_engine_choose_device(o->device, &gpu, d));
    QGC_TRY(open_plan(e, &plan, d));
    qgc_times_lap(o->times, "artifact");
    QGC_TRY(open_graph(e, plan, d));
    qgc_times_lap(o->times, "weights opened");
    begin_tokenizer(e);
    if (!o->path)
        return QGC_OK;
    if (either)
        QGC_TRY(qgc_engine_choose_device(o->device, &gpu, d));
    qgc_times_lap(o->times, "driver");
    e->pool = qgc_pool_new((int)o->threads);
    return open_device(e, gpu, plan, d);
}

static qgc_status check_vocab(const qgc_engine *e, qgc_diag *d) {
    const int32_t size = qgc_tokenizer_size(e->reading.tokenizer);
    if (!e->options.path || e->vocab == 0 || size <= e->vocab)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, qgc_weights_loc(e->weights),
                    "the tokenizer has %d ids, and the model rows for %lld", size, (long long)e->vocab);
}

qgc_status qgc_engine_want_tokenizer(qgc_engine *e, qgc_diag *d) {
    if (!e->reading.arena)
        return QGC_OK;
    QGC_TRY(end_tokenizer(e, d));
    qgc_times_lap(e->options.times, "rest of the tokenizer");
    return check_vocab(e, d);
}

static qgc_engine_options copy_of(const qgc_engine_options *o, qgc_arena *a) {
    qgc_engine_options copy = *o;
    const char **const texts[] = {&copy.path,          &copy.weights,      &copy.device,
                                  &copy.arch,          &copy.cache_folder, &copy.nvrtc_library,
                                  &copy.passes.passes, &copy.passes.skip,  &copy.card};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        *texts[i] = *texts[i] ? qgc_arena_strdup(a, *texts[i]) : NULL;
    copy.device = copy.device ? copy.device : "auto";
    return copy;
}

/* An artifact's plan lives in the arena of the diag that it was unpacked with, so the engine has one of
 * its own. */
qgc_status qgc_engine_open(qgc_engine **out, const qgc_engine_options *o, qgc_diag *d) {
    qgc_arena *arena = qgc_arena_new();
    qgc_engine *e = qgc_arena_alloc(arena, sizeof *e);
    *e = (qgc_engine){.arena = arena, .options = copy_of(o, arena), .source = qgc_str_new(arena)};
    *out = e;
    qgc_diag own = qgc_diag_new(arena);
    qgc_status status = open_all(e, &own);
    if (status == QGC_OK && o->sequence_next)
        return QGC_OK;
    const qgc_status read = qgc_engine_want_tokenizer(e, &own);
    status = status == QGC_OK ? read : status;
    if (status == QGC_OK)
        return QGC_OK;
    qgc_diag_adopt(d, &own);
    qgc_engine_close(e);
    *out = NULL;
    return status;
}

void qgc_engine_break(qgc_engine *e) {
    e->broken = true;
}
bool qgc_engine_is_broken(const qgc_engine *e) {
    return e->broken;
}

void qgc_engine_close(qgc_engine *e) {
    if (!e)
        return;
    if (e->reading.started)
        pthread_join(e->reading.thread, NULL);
    qgc_arena_drop(e->reading.arena);
    qgc_program_drop(e->program);
    qgc_device_close(e->device);
    qgc_chat_close(e->chat);
    qgc_tokenizer_close(e->reading.tokenizer);
    qgc_weights_close(e->weights);
    qgc_pool_drop(e->pool);
    qgc_file_close(&e->artifact);
    qgc_arena_drop(e->arena);
}

const qgc_weights *qgc_engine_weights(const qgc_engine *e) {
    return e->weights;
}
qgc_tokenizer *qgc_engine_tokenizer(const qgc_engine *e) {
    return e->reading.tokenizer;
}
qgc_status qgc_engine_chat(qgc_engine *e, qgc_chat **out, qgc_diag *d) {
    qgc_chat_options options = {.think = QGC_THINK_DEFAULT};
    const time_t now = time(NULL);
    *out = NULL;
    if (!localtime_r(&now, &options.now))
        return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "could not tell the date");
    if (!e->chat)
        QGC_TRY(qgc_chat_open(&e->chat, e->reading.tokenizer, &options, d));
    *out = e->chat;
    return QGC_OK;
}
bool qgc_engine_is_end(const qgc_engine *e, int32_t id) {
    return e->chat ? qgc_chat_is_end(e->chat, id) : qgc_tokenizer_is_eos(e->reading.tokenizer, id);
}
const char *qgc_engine_device(const qgc_engine *e) {
    return e->label ? e->label : "none";
}
int64_t qgc_engine_vocab(const qgc_engine *e) {
    return e->vocab;
}
