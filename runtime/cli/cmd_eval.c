/* The command that measures how well a model predicts: eval. */

#include <math.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/times.h"
#include "graph/base/utf8.h"
#include "runtime/cli/eval_report.h"
#include "runtime/cli/run.h"
#include "runtime/cli/texts.h"
#include "runtime/lab/budget.h"

typedef struct {
    qgc_engine_options engine, against; /* against.path is NULL where there is none */
    qgc_evaluate_options evaluate;
    cli_pipeline pipeline, other_pipeline; /* the other graph's own */
    const char *other, *other_weights, *json, *budget;
} eval_options;

/* The two models, and how fast they read. */
typedef struct {
    qgc_engine *engine, *against;
    cli_progress progress;
    bool quiet;
    double begun, ended; /* of what comes after the first piece, whose launches may load code */
    size_t first, done;
} eval_state;

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The model of --against: the evaluator, an artifact, a graph, or else weights. What is not said is as in
 * the first one. */
static qgc_status choose_other(eval_options *o, qgc_diag *d) {
    o->against = o->engine;
    const bool evaluator = strcmp(o->other, "evaluator") == 0, artifact = qgc_engine_is_artifact(o->other);
    const bool graph = artifact || ends_with(o->other, ".yaml") || ends_with(o->other, ".yml");
    if (!graph && o->other_weights)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --against-weights is for an artifact or a graph, and --against is \"%s\"",
                        o->other);
    if (evaluator) {
        o->against.device = "cpu";
        o->against.arch = NULL;
    } else if (graph) {
        o->against.path = o->other;
        o->against.passes = cli_passes(&o->other_pipeline);
        o->against.weights = o->other_weights ? o->other_weights : o->engine.weights;
    } else
        o->against.weights = o->other;
    return QGC_OK;
}

static qgc_status check(eval_options *o, qgc_diag *d) {
    int gpu;
    QGC_TRY(cli_check_mode(o->evaluate.mode, d));
    QGC_TRY(qgc_engine_choose_device(o->engine.device, &gpu, d));
    QGC_TRY(qgc_engine_want_no_mode(o->evaluate.mode, gpu, d)); /* before the weights are read */
    if (!o->other && (o->other_weights || o->budget))
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --%s is for a comparison with another model (--against)",
                        o->budget ? "budget" : "against-weights");
    if (qgc_engine_is_artifact(o->engine.path))
        QGC_TRY(cli_want_no_passes(&o->pipeline, o->engine.path, d));
    QGC_TRY(qgc_file_check_output(o->json, d));
    o->engine.passes = cli_passes(&o->pipeline);
    return o->other ? choose_other(o, d) : QGC_OK;
}

static qgc_status open_models(eval_state *s, eval_options *o, qgc_diag *d) {
    o->engine.listener = o->against.listener = cli_listener(&s->progress, s->quiet);
    QGC_TRY(qgc_engine_open(&s->engine, &o->engine, d));
    if (o->other)
        QGC_TRY(qgc_engine_open(&s->against, &o->against, d));
    o->evaluate.against = s->against;
    return QGC_OK;
}

static void show(void *context, size_t done, size_t total) {
    eval_state *s = context;
    s->ended = qgc_seconds();
    if (s->first == 0) {
        s->first = done;
        s->begun = s->ended;
        s->progress = (cli_progress){.label = "tokens"};
    }
    s->done = done;
    if (!s->quiet)
        cli_progress_show(&s->progress, done, total);
}

static double speed_of(const eval_state *s) {
    return s->done > s->first && s->ended > s->begun ? (double)(s->done - s->first) / (s->ended - s->begun)
                                                     : NAN;
}

/* The weights by the name that was given, or where they were found. */
static const char *weights_of(const qgc_engine_options *o, const qgc_engine *e) {
    return o->weights ? o->weights : qgc_weights_loc(qgc_engine_weights(e)).source->name;
}

static eval_heading heading_of(const eval_state *s, const eval_options *o, const qgc_evaluate_text *texts) {
    eval_heading h = {.model = o->engine.path,
                      .weights = weights_of(&o->engine, s->engine),
                      .device = qgc_engine_device(s->engine),
                      .texts = texts,
                      .tokens_per_second = speed_of(s)};
    if (s->against) {
        h.against = o->against.path;
        h.against_weights = weights_of(&o->against, s->against);
        h.against_device = qgc_engine_device(s->against);
    }
    return h;
}

static qgc_status hold_against(const qgc_budget *budget, const eval_options *o, const qgc_evaluation *x,
                               cli_context *c) {
    if (!o->budget)
        return QGC_OK;
    int unchecked;
    QGC_TRY(qgc_budget_check_drift(budget, &x->drift, &unchecked, c->diag));
    FILE *out = cli_report_stream(o->json, NULL);
    fprintf(out, "\n%s is kept\n", qgc_printable(c->arena, o->budget));
    if (unchecked)
        fprintf(out, "not checked, as they are for qgc ablate: %d limits of passes\n", unchecked);
    return QGC_OK;
}

static qgc_status report(const eval_state *s, const eval_options *o, const qgc_evaluate_text *texts,
                         const qgc_evaluation *x, cli_context *c) {
    const eval_heading heading = heading_of(s, o, texts);
    qgc_str text = qgc_str_new(c->arena);
    eval_report_text(x, &heading, &text);
    FILE *out = cli_report_stream(o->json, NULL);
    cli_print_report(&text, out);
    fflush(out);
    if (isfinite(heading.tokens_per_second))
        cli_note(c, qgc_arena_printf(c->arena, "%.0f tokens a second", heading.tokens_per_second));
    return o->json ? cli_write_json(o->json, eval_report_json(x, &heading, c->arena), c->diag) : QGC_OK;
}

static qgc_status run(eval_state *s, eval_options *o, const cli_line *line, cli_context *c) {
    qgc_budget budget = {0};
    qgc_evaluate_text *texts;
    size_t n;
    qgc_evaluation x;
    if (o->budget)
        QGC_TRY(qgc_budget_read(&budget, o->budget, c->diag));
    QGC_TRY(check(o, c->diag));
    QGC_TRY(cli_texts_read(line->arguments + 1, line->n - 1, &texts, &n, c));
    QGC_TRY(open_models(s, o, c->diag));
    run_heed_interrupts();
    o->evaluate.stop = &run_interrupted;
    o->evaluate.progress = show;
    o->evaluate.context = s;
    const qgc_status status = qgc_evaluate(s->engine, texts, n, &o->evaluate, &x, c->diag);
    cli_progress_clear(&s->progress);
    QGC_TRY(status);
    QGC_TRY(report(s, o, texts, &x, c));
    return hold_against(&budget, o, &x, c);
}

qgc_status cmd_eval(cli_context *c, int argc, char **argv) {
    eval_options o = {.engine = {.device = "auto"}, .evaluate = {.prefill = "chunks"}};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.engine.weights, "PATH",
         "GGUF, safetensors, Hugging Face folder or repository", 0, 0},
        {"ctx", 0, OPTION_INT, &o.evaluate.ctx, "N",
         "tokens of a window; 0: 512, or as many as the model takes", 0, 1 << 24},
        {"stride", 0, OPTION_INT, &o.evaluate.stride, "N",
         "windows N tokens apart, whose new tokens count; 0: second halves count", 0, 1 << 24},
        {"against", 0, OPTION_TEXT, &o.other, "OTHER",
         "an artifact, a graph, weights, or \"evaluator\": this model on the CPU", 0, 0},
        {"against-weights", 0, OPTION_TEXT, &o.other_weights, "PATH",
         "of an artifact or graph to compare with, if others", 0, 0},
        {"budget", 0, OPTION_TEXT, &o.budget, "FILE",
         "limits (YAML) as of qgc ablate; exit code 1 where one is broken", 0, 0},
        CLI_JSON_OPTION(o.json),
        {"device", 0, OPTION_TEXT, &o.engine.device, "auto|gpu|gpu:N|cpu", "where to run", 0, 0},
        {"prefill", 0, OPTION_TEXT, &o.evaluate.prefill, "chunks|steps",
         "on a GPU: by matrix products, or by decode steps, token by token", 0, 0},
        {"mode", 0, OPTION_TEXT, &o.evaluate.mode, "auto|stream|graph|pdl|persistent",
         "of decode steps; auto, if not given, is the fastest", 0, 0},
        CLI_PIPELINE_OPTIONS(o.pipeline),
        {"strict-arch", 0, OPTION_TEXT, &o.engine.arch, "ARCH", "run this image of the artifact and no other",
         0, 0},
        CLI_THREADS_OPTION(o.engine.threads),
        {"cache", 0, OPTION_TEXT, &o.engine.cache_folder, "DIR", "of compiled kernels", 0, 0},
        CLI_ALLOW_UNUSED_OPTION(o.engine.allow_unused),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "eval",
        .arguments = "GRAPH.yaml | ARTIFACT.qgc TEXT...",
        .summary = "Measures how well a model predicts texts, and how far it is from another.",
        .details =
            "Prints the perplexity: exp of the mean of -ln p over the tokens that count. Compared with another\n"
            "model it prints the KL divergence and the flips of the most likely token, too. A TEXT is a file, a\n"
            "folder, whose regular files are a text each, or - for standard input. Passes that are chosen are\n"
            "those of the first model; another graph has its own.",
        .options = options,
        .min_arguments = 2,
        .max_arguments = 1 << 20,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    o.engine.path = line.arguments[0];
    eval_state s = {.quiet = c->quiet};
    const qgc_status status = run(&s, &o, &line, c);
    cli_progress_clear(&s.progress);
    qgc_engine_close(s.against);
    qgc_engine_close(s.engine);
    return status;
}
