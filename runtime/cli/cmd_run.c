#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "runtime/cli/json.h"
#include "runtime/cli/run.h"
#include "runtime/session.h"

volatile sig_atomic_t run_interrupted;

static void on_interrupt(int signal_number) {
    run_interrupted = 1;
    signal(signal_number, SIG_DFL);
}

void run_heed_interrupts(void) {
    struct sigaction action = {.sa_handler = on_interrupt};
    run_interrupted = 0;
    sigaction(SIGINT, &action, NULL);
}

static qgc_status run_text(run_state *s) {
    const run_options *o = s->o;
    qgc_source text = {.text = o->prompt, .bytes = o->prompt ? strlen(o->prompt) : 0};
    const char *file = o->prompt && strcmp(o->prompt, "-") == 0 ? "-" : o->prompt_file;
    if (file)
        QGC_TRY(qgc_file_read(&text, file, (size_t)64 << 20, "the prompt", s->c->diag));
    if (!o->chat)
        return run_complete(s, &text);
    QGC_TRY(cli_talk_open(&s->talk, s->tokenizer, &o->chat_options, o->system, s->c->arena, s->c->diag));
    return text.text ? run_turn(s, &text) : run_converse(s);
}

/* The artifact when none is named: the one .qgc file of this folder. */
static qgc_status find_artifact(cli_context *c, const char **path) {
    glob_t found;
    qgc_status status = QGC_OK;
    int error = glob("*.qgc", 0, NULL, &found);
    if (error != 0 || found.gl_pathc != 1) {
        status = qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "no artifact named, and this folder has %s",
                          error ? "none" : "more than one");
        qgc_hint(c->diag, error ? "Make one with qgc compile GRAPH.yaml." : "Name one: qgc run %s.",
                 error ? "" : found.gl_pathv[0]);
    } else
        *path = qgc_arena_strdup(c->arena, found.gl_pathv[0]);
    if (error == 0)
        globfree(&found);
    return status;
}

/* An option that would do nothing here was given for a reason. */
static qgc_status check_ignored(const run_options *o, qgc_diag *d) {
    const char *talk = o->system ? "system" : o->think ? "think" : o->date ? "date" : NULL;
    if (!o->chat && talk)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s is for a conversation (--chat)", talk);
    if (o->chat && o->specials)
        return qgc_fail(
            d, QGC_ERR_USAGE, QGC_NO_LOC,
            "option --specials is for a prompt, and messages of a conversation (--chat) are text");
    const char *name = o->top_k != 0 ? "top-k" : o->top_p < 1 ? "top-p" : o->min_p > 0 ? "min-p" : NULL;
    if (o->temperature > 0 || !name)
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                 "option --%s is for a temperature above 0: at 0 the most likely token is taken", name);
    qgc_hint(d, "Give one, --temp 0.7 say.");
    return s;
}

qgc_sampling run_sampling(const run_options *o) {
    return (qgc_sampling){.temperature = (float)o->temperature,
                          .top_k = (int32_t)o->top_k,
                          .top_p = (float)o->top_p,
                          .min_p = (float)o->min_p,
                          .repeat_penalty = (float)o->repeat_penalty,
                          .seed = (uint64_t)o->seed};
}

static qgc_status check(run_options *o, qgc_diag *d) {
    qgc_prefill prefill;
    QGC_TRY(cli_check_mode(o->sequence.mode, d));
    QGC_TRY(qgc_prefill_named(o->sequence.prefill, &prefill, d));
    if (o->prompt && o->prompt_file)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "both a prompt (-p) and a prompt file (-f) are given");
    if (!o->chat && !o->prompt && !o->prompt_file) {
        qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no prompt");
        qgc_hint(d, "Give one with -p TEXT, -f FILE or, from standard input, -p -; or talk with --chat.");
        return s;
    }
    if (o->receipt && !o->prompt && !o->prompt_file)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --receipt is for one prompt (-p, -f)");
    QGC_TRY(cli_check_stdout("receipt", o->receipt, "json", o->json, d));
    QGC_TRY(qgc_file_check_output(o->receipt, d));
    QGC_TRY(qgc_file_check_output(o->json, d));
    QGC_TRY(check_ignored(o, d));
    QGC_TRY(cli_talk_options(o->think, o->date, &o->chat_options, d));
    if (o->seed < 0) { /* none given */
        uint32_t random = 0;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            random = (uint32_t)getpid();
        o->seed = random;
    }
    o->sequence.sampling = run_sampling(o);
    return QGC_OK;
}

static qgc_status open_all(run_state *s, run_options *o) {
    qgc_diag *d = s->c->diag;
    int gpu;
    if (o->sequence.mode) { /* before the weights are read */
        QGC_TRY(qgc_engine_choose_device(o->engine.device, &gpu, d));
        QGC_TRY(qgc_engine_want_no_mode(o->sequence.mode, gpu, d));
    }
    if (qgc_engine_is_artifact(o->engine.path))
        QGC_TRY(cli_want_no_passes(&o->pipeline, o->engine.path, d));
    o->engine.passes = cli_passes(&o->pipeline);
    o->engine.sequence_next = true;
    o->engine.listener = cli_listener(&s->progress, s->c->quiet);
    qgc_status status = qgc_engine_open(&s->engine, &o->engine, d);
    if (status == QGC_OK)
        status = qgc_sequence_new(&s->sequence, s->engine, &o->sequence, d);
    cli_progress_clear(&s->progress);
    return status;
}

static qgc_status run_all(cli_context *c, run_options *o) {
    run_state s = {.c = c, .o = o, .text = qgc_str_new(c->arena)};
    qgc_status status = open_all(&s, o);
    if (status == QGC_OK) {
        s.tokenizer = qgc_engine_tokenizer(s.engine);
        run_heed_interrupts();
        status = run_text(&s);
        if (c->diag->status == QGC_OK)
            run_print_times(&s);
        if (o->json && status == QGC_OK)
            status = run_write_json(&s);
        if (o->receipt && status == QGC_OK)
            status = run_write_receipt(&s);
    }
    cli_talk_close(&s.talk);
    qgc_sequence_drop(s.sequence);
    qgc_engine_close(s.engine);
    return status == QGC_OK && run_interrupted ? QGC_INTERRUPTED : status;
}

qgc_status cmd_run(cli_context *c, int argc, char **argv) {
    run_options o = {.engine = {.device = "auto"},
                     .sequence = {.prefill = "chunks"},
                     .n = 256,
                     .seed = -1,
                     .top_p = 1,
                     .repeat_penalty = 1};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.engine.weights, "PATH",
         "GGUF, safetensors, Hugging Face folder or repository", 0, 0},
        {"prompt", 'p', OPTION_TEXT, &o.prompt, "TEXT",
         "text to continue; with --chat, what to say; - is stdin", 0, 0},
        {"file", 'f', OPTION_TEXT, &o.prompt_file, "FILE", "the prompt stands in a file", 0, 0},
        {"chat", 0, OPTION_FLAG, &o.chat, NULL,
         "a conversation by the model's own template; without -p, from stdin", 0, 0},
        {"system", 0, OPTION_TEXT, &o.system, "TEXT", "system message of the conversation", 0, 0},
        {"think", 0, OPTION_TEXT, &o.think, "on|off",
         "thoughts before an answer, where the template has a choice", 0, 0},
        {"date", 0, OPTION_TEXT, &o.date, "YYYY-MM-DD",
         "the day that the template may print; today if not given", 0, 0},
        {"n", 'n', OPTION_INT, &o.n, "N", "most tokens to make; -1: until the context is full", -1, 1 << 24},
        {"ctx", 0, OPTION_INT, &o.sequence.ctx, "N", "positions in the context; 0: the model's, up to 4096",
         0, 1 << 24},
        {"temp", 0, OPTION_NUMBER, &o.temperature, "T", "temperature; 0: always the most likely token", 0,
         1e4},
        {"top-k", 0, OPTION_INT, &o.top_k, "K", "choose among the K most likely; 0: all", 0, 1 << 30},
        {"top-p", 0, OPTION_NUMBER, &o.top_p, "P", "choose among the most likely that make up P", 1e-6, 1},
        {"min-p", 0, OPTION_NUMBER, &o.min_p, "P", "leave out what is less likely than P times the best", 0,
         1},
        {"repeat-penalty", 0, OPTION_NUMBER, &o.repeat_penalty, "R", "make tokens seen before less likely",
         1e-3, 1e3},
        {"seed", 0, OPTION_INT, &o.seed, "N", "of the random choice; -1: a new one each time", -1, 9e18},
        {"device", 0, OPTION_TEXT, &o.engine.device, "auto|gpu|gpu:N|cpu", "where to run", 0, 0},
        {"mode", 0, OPTION_TEXT, &o.sequence.mode, "auto|stream|graph|pdl|persistent",
         "how a step runs on a GPU; auto, if not given, is the fastest", 0, 0},
        {"prefill", 0, OPTION_TEXT, &o.sequence.prefill, "chunks|packed|steps",
         "prompt by matrix products, from packed weights, or by steps", 0, 0},
        CLI_PIPELINE_OPTIONS(o.pipeline),
        {"strict-arch", 0, OPTION_TEXT, &o.engine.arch, "ARCH",
         "run this image of the artifact and no other, compile none", 0, 0},
        CLI_CARD_OPTION(o.engine.card),
        CLI_THREADS_OPTION(o.engine.threads),
        {"cache", 0, OPTION_TEXT, &o.engine.cache_folder, "DIR", "of compiled kernels, if a graph is given",
         0, 0},
        CLI_ALLOW_UNUSED_OPTION(o.engine.allow_unused),
        {"specials", 0, OPTION_FLAG, &o.specials, NULL, "special tokens written in the prompt are special", 0,
         0},
        {"ignore-eos", 0, OPTION_FLAG, &o.ignore_eos, NULL, "go on after an end-of-text token", 0, 0},
        {"verbose-prompt", 0, OPTION_FLAG, &o.verbose_prompt, NULL, "print the prompt's token ids", 0, 0},
        {"times", 0, OPTION_FLAG, &o.show_times, NULL, "say where the time to the first token went", 0, 0},
        {"receipt", 0, OPTION_TEXT, &o.receipt, "FILE", "what the text was made of, for qgc verify", 0, 0},
        CLI_JSON_OPTION(o.json),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "run",
        .arguments = "[ARTIFACT.qgc | GRAPH.yaml]",
        .summary = "Makes text: continues a prompt, or talks.",
        .details =
            "Without an argument the one .qgc file in this folder is run. A graph is compiled first, in memory. Without\n"
            "a prompt, on a terminal, it is a conversation: /help there says more. Text goes to stdout, everything else\n"
            "to stderr.",
        .options = options,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    qgc_times_begin(&o.start);
    o.engine.times = &o.start;
    o.sequence.stop = &run_interrupted;
    o.engine.path = line.n ? line.arguments[0] : NULL;
    if (!o.engine.path)
        QGC_TRY(find_artifact(c, &o.engine.path));
    if (!o.prompt && !o.prompt_file && isatty(STDIN_FILENO))
        o.chat = true;
    QGC_TRY(check(&o, c->diag));
    return run_all(c, &o);
}
