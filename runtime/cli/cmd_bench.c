#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/lower.h"
#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/cli/json.h"
#include "runtime/cli/lab.h"
#include "runtime/engine/prepare.h"
#include "runtime/engine/sequence.h"
#include "runtime/lab/bench.h"
#include "runtime/stand_in.h"

enum { CHUNK = 512, MOST_POSITIONS = 16 };

typedef struct {
    const char *weights, *modes, *positions, *json, *svg, *cache, *card;
    int64_t gpu, rounds, generate, threads;
    bool no_kernels, no_tuning, allow_unused, fastest, no_stream, no_waits;
    cli_pipeline pipeline;
} bench_options;

/* *fastest: "auto" is among them, which the program decides. */
static qgc_status choose_modes(const char *text, bool *modes, bool *fastest, cli_context *c) {
    int n;
    const char **names = cli_split(text, &n, c->arena);
    for (int i = 0; i < n; i++) {
        qgc_mode mode;
        if (strcmp(names[i], "auto") == 0) {
            *fastest = true;
            continue;
        }
        if (strcmp(names[i], "all") == 0) {
            for (int m = 0; m < QGC_N_MODES; m++)
                modes[m] = true;
            continue;
        }
        QGC_TRY(qgc_mode_named(names[i], &mode, c->diag));
        modes[mode] = true;
    }
    return n > 0 ? QGC_OK : qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "option --mode names no mode");
}

static qgc_status choose_positions(const char *text, int64_t *positions, size_t *n_positions, qgc_diag *d,
                                   qgc_arena *a) {
    int n;
    const char **numbers = cli_split(text, &n, a);
    if (n > MOST_POSITIONS)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --positions has %d positions, at most %d", n,
                        MOST_POSITIONS);
    for (int i = 0; i < n; i++) {
        char *end;
        errno = 0;
        positions[i] = strtoll(numbers[i], &end, 10);
        if (*end || end == numbers[i] || errno || positions[i] < 1 || positions[i] > 1 << 24)
            return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "position \"%s\" is not a number from 1 on",
                            numbers[i]);
    }
    *n_positions = (size_t)n;
    return QGC_OK;
}

/* What takes parts of a step away is for the steps of persistent mode: texts and other modes would mean nothing. */
static qgc_status choose_probe(qgc_bench_options *bench, const bench_options *o, qgc_diag *d) {
    const char *option = o->no_stream ? "no-stream" : "no-waits";
    if (!o->no_stream && !o->no_waits)
        return QGC_OK;
    for (int m = 0; m < QGC_N_MODES; m++)
        if (m != QGC_MODE_PERSISTENT && bench->modes[m]) {
            qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                     "option --%s is for persistent mode, and %s mode is measured too", option,
                     qgc_mode_name((qgc_mode)m));
            qgc_hint(d, "Add --mode persistent.");
            return QGC_ERR_USAGE;
        }
    bench->probe = (o->no_stream ? QGC_PROBE_NO_STREAM : 0) | (o->no_waits ? QGC_PROBE_NO_WAITS : 0);
    bench->generate = 0;
    return QGC_OK;
}

typedef struct {
    cli_lab lab;
    qgc_program *program, *traced;
} parts;

/* What `auto` comes to joins the modes that are measured. */
static void add_fastest(const parts *p, qgc_bench_options *bench, cli_context *c) {
    const int64_t ctx = qgc_bench_ctx(qgc_program_plan(p->program), bench);
    const qgc_mode_choice choice = qgc_mode_fastest(p->program, ctx, c->arena);
    bench->modes[choice.mode] = true;
    cli_note(c, qgc_mode_choice_text(&choice, c->arena));
}

/* The parts of the persistent kernel are measured, if there is one and kernels are asked for. */
static bool traces(const parts *p, const qgc_bench_options *bench, cli_context *c) {
    return bench->kernels && bench->modes[QGC_MODE_PERSISTENT] &&
           !qgc_mode_refusal(p->program, QGC_MODE_PERSISTENT, c->arena);
}

static qgc_status load(parts *p, const char *path, const bench_options *o, qgc_bench_options *bench,
                       cli_context *c) {
    qgc_graph *g;
    const qgc_tensor **tensors;
    cli_lab *lab = &p->lab;
    QGC_TRY(cli_lab_graph(&g, &lab->weights, path, o->weights, c));
    QGC_TRY(qgc_device_open(&lab->device, (int)o->gpu, c->diag));
    QGC_TRY(qgc_stand_in(lab->device, o->card, c->diag));
    QGC_TRY(cli_lab_weights(&lab->weights, o->weights, g, c));
    QGC_TRY(qgc_graph_bind(g, lab->weights, o->allow_unused, &tensors, c->diag));
    QGC_TRY(cli_run_passes(g, &o->pipeline, NULL, c->diag));
    lab->pool = qgc_pool_new((int)o->threads);
    qgc_prepare_options prepare = {.device = lab->device,
                                   .weights = lab->weights,
                                   .pool = lab->pool,
                                   .cache_folder = o->cache,
                                   .chunk = CHUNK,
                                   .no_tuning = o->no_tuning,
                                   .probe = bench->probe,
                                   .allow_unused = true, /* let pass, or not, when it was bound */
                                   .later = true};
    qgc_compiled compiled;
    QGC_TRY(qgc_prepare(&p->program, &compiled, g, &prepare, c->diag));
    cli_note_cache(c, compiled.cache_fault);
    if (o->fastest)
        add_fastest(p, bench, c);
    if (!traces(p, bench, c))
        return QGC_OK;
    prepare.probe |= QGC_PROBE_TRACE;
    prepare.later = false;
    prepare.share = p->program;
    QGC_TRY(qgc_prepare(&p->traced, &compiled, g, &prepare, c->diag));
    bench->traced = p->traced;
    return QGC_OK;
}

static qgc_status write_reports(const qgc_bench *b, const bench_options *o, cli_context *c) {
    qgc_str text = qgc_str_new(c->arena);
    qgc_bench_table(b, &text);
    cli_print_report(&text, cli_report_stream(o->json, o->svg));
    if (o->json) {
        qgc_str_clear(&text);
        QGC_TRY(qgc_bench_json(b, &text, c->diag));
        QGC_TRY(qgc_file_write(o->json, text.text, text.bytes, c->diag));
    }
    if (o->svg) {
        qgc_str_clear(&text);
        qgc_bench_svg(b, &text);
        QGC_TRY(qgc_file_write(o->svg, text.text, text.bytes, c->diag));
    }
    return QGC_OK;
}

static qgc_status bench_graph(cli_context *c, const char *path, bench_options *o) {
    int64_t positions[MOST_POSITIONS];
    qgc_bench_options bench = {
        .positions = positions, .rounds = (int)o->rounds, .generate = o->generate, .kernels = !o->no_kernels};
    QGC_TRY(choose_modes(o->modes, bench.modes, &o->fastest, c));
    QGC_TRY(choose_positions(o->positions, positions, &bench.n_positions, c->diag, c->arena));
    QGC_TRY(choose_probe(&bench, o, c->diag));
    parts p = {0};
    qgc_bench result;
    QGC_TRY(cli_check_stdout("svg", o->svg, "json", o->json, c->diag));
    qgc_status s = load(&p, path, o, &bench, c);
    if (s == QGC_OK)
        s = qgc_file_check_output(o->json, c->diag);
    if (s == QGC_OK)
        s = qgc_file_check_output(o->svg, c->diag);
    if (s == QGC_OK)
        s = qgc_bench_run(&result, p.program, &bench, c->diag);
    if (s == QGC_OK)
        s = write_reports(&result, o, c);
    qgc_program_drop(p.traced);
    qgc_program_drop(p.program);
    cli_lab_close(&p.lab);
    return s;
}

qgc_status cmd_bench(cli_context *c, int argc, char **argv) {
    bench_options o = {
        .modes = "graph,pdl,persistent", .positions = "16,512,4096", .rounds = 9, .generate = 256};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.weights, "PATH", CLI_WEIGHTS_HELP, 0, 0},
        {"mode", 0, OPTION_TEXT, &o.modes, "LIST", "of stream, graph, pdl, persistent, auto, or all", 0, 0},
        {"positions", 0, OPTION_TEXT, &o.positions, "LIST", "tokens in the caches when steps are timed", 0,
         0},
        {"rounds", 0, OPTION_INT, &o.rounds, "N", "of 64 steps, of every mode at every position in turns", 1,
         1000},
        {"generate", 0, OPTION_INT, &o.generate, "N", "length of a text that is timed; 0: none", 0, 1 << 20},
        {"no-stream", 0, OPTION_FLAG, &o.no_stream, NULL,
         "persistent mode copies nothing: the chain of exchanges by itself", 0, 0},
        {"no-waits", 0, OPTION_FLAG, &o.no_waits, NULL,
         "persistent mode waits for no multiprocessor: the stream by itself", 0, 0},
        {"no-kernels", 0, OPTION_FLAG, &o.no_kernels, NULL, "do not time each kernel by itself", 0, 0},
        CLI_JSON_OPTION(o.json),
        {"svg", 0, OPTION_TEXT, &o.svg, "FILE", "a chart", 0, 0},
        CLI_PIPELINE_OPTIONS(o.pipeline),
        {"no-tuning", 0, OPTION_FLAG, &o.no_tuning, NULL, "leave out what qgc tune has found", 0, 0},
        {"gpu", 0, OPTION_INT, &o.gpu, "N", "which GPU", 0, 63},
        CLI_CARD_OPTION(o.card),
        CLI_THREADS_OPTION(o.threads),
        {"cache", 0, OPTION_TEXT, &o.cache, "DIR", "of compiled kernels; ~/.cache/qgc", 0, 0},
        CLI_ALLOW_UNUSED_OPTION(o.allow_unused),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "bench",
        .arguments = "GRAPH.yaml",
        .summary = "Times decode steps in every mode, against what the card's memory allows.",
        .details =
            "The bandwidth is measured in the same run. A step's floor is what it reads of weights and caches,\n"
            "divided by that.",
        .options = options,
    };
    const char *path;
    QGC_TRY(cli_parse_one(command, argc, argv, &path, c->diag));
    return !path ? QGC_OK : bench_graph(c, path, &o);
}
