#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "models/tokenizer.h"
#include "runtime/cli/pipeline.h"
#include "runtime/cli/talk.h"
#include "runtime/engine/sequence.h"

/* Ctrl-C ends the prompt or the answer, not the program's manners: statistics are still printed. A second one ends the
 * program. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    interrupted = 1;
    signal(signal_number, SIG_DFL);
}

static void heed_interrupts(void) {
    struct sigaction action = {.sa_handler = on_interrupt};
    interrupted = 0;
    sigaction(SIGINT, &action, NULL);
}

typedef struct {
    qgc_engine_options engine;
    qgc_sequence_options sequence;
    cli_pipeline pipeline;
    const char *prompt, *prompt_file, *system, *think, *date;
    qgc_chat_options chat_options;
    int64_t n, seed, top_k;
    double temperature, top_p, min_p, repeat_penalty;
    bool chat, specials, ignore_eos, verbose_prompt, json;
} run_options;

/* What a run took, for the line at its end. */
typedef struct {
    int64_t prompt_tokens, answer_tokens;
    double prompt_seconds, answer_seconds;
} run_times;

typedef struct {
    cli_context *c;
    const run_options *o;
    qgc_engine *engine;
    qgc_sequence *sequence;
    qgc_tokenizer *tokenizer;
    cli_progress progress;
    cli_talk talk;
    run_times times;
} run_state;

/* Text goes out as soon as its characters are whole. */
static void put_text(qgc_utf8_stream *stream, const char *piece, size_t bytes, qgc_str *buffer) {
    qgc_str_clear(buffer);
    qgc_utf8_push(stream, piece, bytes, buffer);
    fwrite(buffer->text, 1, buffer->bytes, stdout);
    fflush(stdout);
}

static qgc_status check_room(const run_state *s, size_t n, size_t taken) {
    qgc_diag *d = s->c->diag;
    const int64_t room = qgc_sequence_ctx(s->sequence) - (int64_t)taken;
    if ((int64_t)(n - taken) <= room)
        return QGC_OK;
    qgc_status status =
        qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the prompt has %zu tokens, and the context has room for %lld",
                 n - taken, (long long)room);
    qgc_hint(d, "Make it shorter, or ask for more with --ctx (now %lld).",
             (long long)qgc_sequence_ctx(s->sequence));
    return status;
}

static void print_ids(const qgc_tokens *prompt) {
    fputs("prompt:", stderr);
    for (size_t i = 0; i < prompt->n; i++)
        fprintf(stderr, " %d", prompt->ids[i]);
    fputc('\n', stderr);
}

static bool is_end(const run_state *s, int32_t token) {
    return s->talk.chat ? qgc_chat_is_end(s->talk.chat, token) : qgc_tokenizer_is_eos(s->tokenizer, token);
}

/* A part of an answer, as it is printed and, but for special tokens, as the conversation keeps it: with U+FFFD for what is
 * no text. */
static void keep_text(const run_state *s, int32_t token, const qgc_str *printed, qgc_str *text) {
    for (size_t i = 0; i < printed->bytes && !qgc_tokenizer_is_special(s->tokenizer, token); i++)
        if (printed->text[i])
            qgc_str_add_bytes(text, &printed->text[i], 1);
        else
            qgc_str_add(text, QGC_UTF8_REPLACEMENT);
}

/* Prints what follows, from `token` on, until an end, n tokens, a full context or Ctrl-C. Adds the tokens to `all`, and
 * their text to `text`. */
static qgc_status answer(run_state *s, int32_t token, qgc_tokens *all, qgc_str *text) {
    qgc_utf8_stream stream = {0};
    qgc_str buffer = qgc_str_new(s->c->arena);
    const int64_t limit = s->o->n >= 0 ? s->o->n : INT64_MAX;
    int64_t made = 0;
    while (made < limit && !interrupted) {
        if (!s->o->ignore_eos && is_end(s, token))
            break;
        size_t bytes;
        const char *piece = made == 0 && s->o->chat ? qgc_tokenizer_first_piece(s->tokenizer, token, &bytes)
                                                    : qgc_tokenizer_piece(s->tokenizer, token, &bytes);
        qgc_str_clear(&buffer);
        if (piece)
            put_text(&stream, piece, bytes, &buffer);
        keep_text(s, token, &buffer, text);
        made++;
        qgc_tokens_add(all, token);
        if (made == limit || qgc_sequence_position(s->sequence) == qgc_sequence_ctx(s->sequence))
            break;
        QGC_TRY(qgc_sequence_step(s->sequence, limit - made, &token, s->c->diag));
    }
    qgc_str_clear(&buffer);
    qgc_utf8_finish(&stream, &buffer);
    qgc_str_add_bytes(text, buffer.text, buffer.bytes);
    fwrite(buffer.text, 1, buffer.bytes, stdout);
    s->times.answer_tokens += made;
    return QGC_OK;
}

/* Feeds the tokens from `from` on, and prints what follows, which is added to them and to `text`. */
static qgc_status generate(run_state *s, qgc_tokens *all, size_t from, qgc_str *text) {
    const qgc_tokens prompt = {.ids = all->ids + from, .n = all->n - from};
    if (s->o->verbose_prompt)
        print_ids(&prompt);
    const double start = cli_seconds();
    const int64_t before = qgc_sequence_position(s->sequence);
    int32_t token;
    QGC_TRY(qgc_sequence_feed(s->sequence, prompt.ids, (int64_t)prompt.n, &token, s->c->diag));
    const double middle = cli_seconds();
    s->times.prompt_seconds += middle - start;
    s->times.prompt_tokens += qgc_sequence_position(s->sequence) - before;
    if (token < 0)
        return QGC_OK;
    qgc_status status = answer(s, token, all, text);
    s->times.answer_seconds += cli_seconds() - middle;
    return status;
}

static double rate(int64_t tokens, double seconds) {
    return seconds > 0 ? (double)tokens / seconds : 0;
}

/* The first token of an answer comes with the prompt's last step, so it is not counted in decode's rate. */
static void print_times(const run_state *s) {
    fflush(stdout); /* where both go to one place, the text comes first */
    const run_times *t = &s->times;
    int64_t steps = t->answer_tokens > 0 ? t->answer_tokens - 1 : 0;
    if (s->o->json)
        fprintf(
            stderr,
            "{\"device\": \"%s\", \"mode\": \"%s\", \"seed\": %lld, \"prompt_tokens\": %lld, \"prompt_seconds\": %.6f, "
            "\"answer_tokens\": %lld, \"decode_seconds\": %.6f, \"prompt_tokens_per_second\": %.2f, "
            "\"decode_tokens_per_second\": %.2f}\n",
            qgc_engine_device(s->engine), qgc_sequence_mode(s->sequence), (long long)s->o->seed,
            (long long)t->prompt_tokens, t->prompt_seconds, (long long)t->answer_tokens, t->answer_seconds,
            rate(t->prompt_tokens, t->prompt_seconds), rate(steps, t->answer_seconds));
    else if (!s->c->quiet)
        fprintf(
            stderr,
            "%s, %s; prompt %lld tokens in %.1f ms (%.0f tok/s); %lld tokens, decode %.1f ms (%.1f tok/s); seed %lld\n",
            qgc_engine_device(s->engine), qgc_sequence_mode(s->sequence), (long long)t->prompt_tokens,
            1e3 * t->prompt_seconds, rate(t->prompt_tokens, t->prompt_seconds), (long long)t->answer_tokens,
            1e3 * t->answer_seconds, rate(steps, t->answer_seconds), (long long)s->o->seed);
}

static qgc_status complete(run_state *s, const qgc_source *text) {
    qgc_tokens tokens = qgc_tokens_new(s->c->arena);
    QGC_TRY(qgc_tokenizer_encode_text(s->tokenizer, text->text, text->bytes, s->o->specials, &tokens,
                                      s->c->diag));
    if (text->bytes == 0)
        return qgc_fail(s->c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "the prompt is empty");
    QGC_TRY(check_room(s, tokens.n, 0));
    qgc_str answer = qgc_str_new(s->c->arena);
    QGC_TRY(generate(s, &tokens, 0, &answer));
    putchar('\n');
    return QGC_OK;
}

/* A message is text to its end, and C's ends at a zero byte. */
static qgc_status check_message(const qgc_source *text, qgc_diag *d) {
    const char *zero = text->bytes ? memchr(text->text, 0, text->bytes) : NULL;
    return zero ? qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the message has a zero byte at byte %zu",
                           (size_t)(zero - text->text))
                : QGC_OK;
}

/* One turn of a conversation: what the model has not taken yet is fed, or all of it where the conversation begins otherwise
 * now. One that is an error leaves the conversation as it was. Whatever ended an answer, a length, Ctrl-C, an end token, it
 * is a message like any other from then on. */
static qgc_status take_turn(run_state *s, const qgc_source *text) {
    qgc_diag *d = s->c->diag;
    qgc_tokens all = qgc_tokens_new(s->c->arena);
    qgc_str answer = qgc_str_new(s->c->arena);
    size_t taken;
    QGC_TRY(check_message(text, d));
    QGC_TRY(cli_talk_ask(&s->talk, text->text, &all, &taken, d));
    QGC_TRY(check_room(s, all.n, taken));
    s->talk.taken.n = 0; /* until the turn is done */
    if (taken == 0 && qgc_sequence_position(s->sequence) > 0)
        QGC_TRY(qgc_sequence_reset(s->sequence, d));
    heed_interrupts();
    QGC_TRY(generate(s, &all, taken, &answer));
    putchar('\n');
    cli_talk_answered(&s->talk, text->text, answer.text, &all, (size_t)qgc_sequence_position(s->sequence));
    return QGC_OK;
}

enum { MOST_OF_A_TERMINAL = 4095 }; /* bytes of a line; the rest is lost without a word (N_TTY_BUF_SIZE) */

/* A turn that cannot be taken is told, and the next one may be shorter. */
static void tell(run_state *s) {
    fflush(stdout);
    qgc_diag_print(s->c->diag, stderr, cli_has_color(s->c));
    *s->c->diag = qgc_diag_new(s->c->arena);
}

static qgc_status take_line(run_state *s, const qgc_source *line, bool terminal) {
    if (terminal && line->bytes >= MOST_OF_A_TERMINAL - 1)
        return qgc_fail(
            s->c->diag, QGC_ERR_INPUT, QGC_NO_LOC,
            "the terminal cuts lines at %d bytes, so this one was not taken; -f FILE takes longer ones",
            MOST_OF_A_TERMINAL);
    return take_turn(s, line);
}

/* Lines of stdin are turns, until its end or an empty line. Exit code 1 if one of them was not taken. */
static qgc_status converse(run_state *s) {
    const bool terminal = isatty(STDIN_FILENO);
    char *line = NULL;
    size_t room = 0;
    qgc_status status = QGC_OK, worst = QGC_OK;
    if (terminal)
        fputs("An empty line or Ctrl-D ends the conversation, Ctrl-C an answer.\n", stderr);
    while (status != QGC_ERR_DEVICE && (terminal || !interrupted)) {
        if (terminal)
            fputs("> ", stderr);
        heed_interrupts();
        ssize_t bytes = getline(&line, &room, stdin);
        while (bytes > 0 && (line[bytes - 1] == '\n' || line[bytes - 1] == '\r'))
            line[--bytes] = 0;
        if (bytes <= 0)
            break;
        const qgc_source text = {.text = line, .bytes = (size_t)bytes};
        status = take_line(s, &text, terminal);
        if (status == QGC_ERR_INPUT)
            tell(s);
        worst = status == QGC_OK ? worst : status;
    }
    (free)(line); /* libc's own, made by getline */
    return terminal && status != QGC_ERR_DEVICE ? QGC_OK : worst;
}

static qgc_status run_text(run_state *s) {
    const run_options *o = s->o;
    qgc_source text = {.text = o->prompt, .bytes = o->prompt ? strlen(o->prompt) : 0};
    if (o->prompt_file)
        QGC_TRY(qgc_file_read(&text, o->prompt_file, (size_t)64 << 20, "the prompt", s->c->diag));
    if (!o->chat)
        return complete(s, &text);
    QGC_TRY(cli_talk_open(&s->talk, s->tokenizer, &o->chat_options, o->system, s->c->arena, s->c->diag));
    return text.text ? take_turn(s, &text) : converse(s);
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

static qgc_status check(run_options *o, qgc_diag *d) {
    const char *const prefills[] = {"chunks", "steps"};
    QGC_TRY(cli_check_mode(o->sequence.mode, d));
    if (strcmp(o->sequence.prefill, prefills[0]) != 0 && strcmp(o->sequence.prefill, prefills[1]) != 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "unknown prefill \"%s\", expected chunks or steps",
                        o->sequence.prefill);
    if (o->prompt && o->prompt_file)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "both a prompt (-p) and a prompt file (-f) are given");
    if (!o->chat && !o->prompt && !o->prompt_file) {
        qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no prompt");
        qgc_hint(d, "Give one with -p TEXT or -f FILE, or talk with --chat.");
        return s;
    }
    QGC_TRY(check_ignored(o, d));
    QGC_TRY(cli_talk_options(o->think, o->date, &o->chat_options, d));
    if (o->seed < 0) { /* none given */
        uint32_t random = 0;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            random = (uint32_t)getpid();
        o->seed = random;
    }
    o->sequence.sampling = (qgc_sampling){.temperature = (float)o->temperature,
                                          .top_k = (int32_t)o->top_k,
                                          .top_p = (float)o->top_p,
                                          .min_p = (float)o->min_p,
                                          .repeat_penalty = (float)o->repeat_penalty,
                                          .seed = (uint64_t)o->seed};
    return QGC_OK;
}

static qgc_status open_all(run_state *s, run_options *o) {
    qgc_diag *d = s->c->diag;
    int gpu;
    QGC_TRY(qgc_engine_choose_device(o->engine.device, &gpu, d));
    QGC_TRY(qgc_engine_want_no_mode(o->sequence.mode, gpu, d)); /* before the weights are read */
    if (qgc_engine_is_artifact(o->engine.path))
        QGC_TRY(cli_want_no_passes(&o->pipeline, o->engine.path, d));
    o->engine.passes = cli_passes(&o->pipeline);
    o->engine.listener = cli_listener(&s->progress, s->c->quiet);
    qgc_status status = qgc_engine_open(&s->engine, &o->engine, d);
    if (status == QGC_OK)
        status = qgc_sequence_new(&s->sequence, s->engine, &o->sequence, d);
    cli_progress_clear(&s->progress);
    return status;
}

static qgc_status run_all(cli_context *c, run_options *o) {
    run_state s = {.c = c, .o = o};
    qgc_status status = open_all(&s, o);
    if (status == QGC_OK) {
        s.tokenizer = qgc_engine_tokenizer(s.engine);
        heed_interrupts();
        status = run_text(&s);
        if (c->diag->status == QGC_OK)
            print_times(&s);
    }
    cli_talk_close(&s.talk);
    qgc_sequence_drop(s.sequence);
    qgc_engine_close(s.engine);
    return status == QGC_OK && interrupted ? QGC_INTERRUPTED : status;
}

qgc_status cmd_run(cli_context *c, int argc, char **argv) {
    run_options o = {.engine = {.device = "auto"},
                     .sequence = {.prefill = "chunks"},
                     .n = 256,
                     .seed = -1,
                     .top_p = 1,
                     .repeat_penalty = 1};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.engine.weights, "PATH", "GGUF, safetensors or Hugging Face folder", 0,
         0},
        {"prompt", 'p', OPTION_TEXT, &o.prompt, "TEXT", "text to continue; with --chat, what to say", 0, 0},
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
        {"prefill", 0, OPTION_TEXT, &o.sequence.prefill, "chunks|steps",
         "prompt by matrix products, or by decode steps", 0, 0},
        CLI_PIPELINE_OPTIONS(o.pipeline),
        {"strict-arch", 0, OPTION_TEXT, &o.engine.arch, "ARCH", "run this image of the artifact and no other",
         0, 0},
        CLI_THREADS_OPTION(o.engine.threads),
        {"cache", 0, OPTION_TEXT, &o.engine.cache_folder, "DIR", "of compiled kernels, if a graph is given",
         0, 0},
        CLI_ALLOW_UNUSED_OPTION(o.engine.allow_unused),
        {"specials", 0, OPTION_FLAG, &o.specials, NULL, "special tokens written in the prompt are special", 0,
         0},
        {"ignore-eos", 0, OPTION_FLAG, &o.ignore_eos, NULL, "go on behind an end-of-text token", 0, 0},
        {"verbose-prompt", 0, OPTION_FLAG, &o.verbose_prompt, NULL, "print the prompt's token ids", 0, 0},
        {"json", 0, OPTION_FLAG, &o.json, NULL, "statistics as JSON, on stderr", 0, 0},
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "run",
        .arguments = "[ARTIFACT.qgc | GRAPH.yaml]",
        .summary = "Makes text: continues a prompt, or talks.",
        .details =
            "Without an argument the one .qgc file in this folder is run. A graph is compiled first, in memory.\n"
            "Text goes to stdout, everything else to stderr.",
        .options = options,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    o.sequence.stop = &interrupted;
    o.engine.path = line.n ? line.arguments[0] : NULL;
    if (!o.engine.path)
        QGC_TRY(find_artifact(c, &o.engine.path));
    QGC_TRY(check(&o, c->diag));
    return run_all(c, &o);
}
