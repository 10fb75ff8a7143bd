/* qgc run: a conversation, and on a terminal its commands. */

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/utf8.h"
#include "runtime/cli/run.h"
#include "runtime/cli/terminal.h"

typedef struct {
    run_state *s;
    cli_terminal *terminal;
    bool commands; /* lines may be commands: a person types them */
    bool over;
} shell;

/* --- commands -------------------------------------------------------------------------------------------- */

typedef qgc_status shell_command(shell *h, const char *argument, qgc_diag *d);

static qgc_status want_file(const char *command, const char *argument, qgc_diag *d) {
    return *argument ? QGC_OK
                     : qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "/%s wants a file: /%s FILE", command, command);
}

static qgc_status do_quit(shell *h, const char *argument, qgc_diag *d) {
    (void)argument;
    (void)d;
    h->over = true;
    return QGC_OK;
}

static qgc_status do_reset(shell *h, const char *argument, qgc_diag *d) {
    (void)argument;
    cli_talk_reset(&h->s->talk);
    return qgc_sequence_reset(h->s->sequence, d);
}

/* "2 messages are" */
static const char *messages(const shell *h, qgc_diag *d) {
    const size_t n = h->s->talk.n;
    return n == 1 ? "1 message is" : qgc_arena_printf(d->arena, "%zu messages are", n);
}

static qgc_status do_drop(shell *h, const char *argument, qgc_diag *d) {
    (void)argument;
    if (!cli_talk_drop_oldest(&h->s->talk))
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "there is no turn to forget");
    fprintf(stderr, "%s left\n", messages(h, d));
    return QGC_OK;
}

static qgc_status do_system(shell *h, const char *argument, qgc_diag *d) {
    (void)d;
    cli_talk_set_system(&h->s->talk, *argument ? argument : NULL);
    return QGC_OK;
}

static qgc_status do_save(shell *h, const char *argument, qgc_diag *d) {
    QGC_TRY(want_file("save", argument, d));
    QGC_TRY(cli_talk_save(&h->s->talk, argument, d));
    fprintf(stderr, "%s in %s\n", messages(h, d), qgc_printable(d->arena, argument));
    return QGC_OK;
}

static qgc_status do_load(shell *h, const char *argument, qgc_diag *d) {
    QGC_TRY(want_file("load", argument, d));
    QGC_TRY(cli_talk_load(&h->s->talk, argument, d));
    fprintf(stderr, "%s loaded\n", messages(h, d));
    return QGC_OK;
}

static qgc_status do_stats(shell *h, const char *argument, qgc_diag *d) {
    (void)argument;
    (void)d;
    const run_state *s = h->s;
    fprintf(stderr, "%zu message%s; %lld of %lld positions are taken\n", s->talk.n, s->talk.n == 1 ? "" : "s",
            (long long)qgc_sequence_position(s->sequence), (long long)qgc_sequence_ctx(s->sequence));
    run_print_times(s);
    return QGC_OK;
}

/* What /set can set, where it is, and its bounds. */
typedef struct {
    const char *name;
    double *number;
    int64_t *whole; /* one of the two */
    double min, max;
} setting;

enum { N_SETTINGS = 7 };

static void list_settings(run_options *o, setting out[N_SETTINGS]) {
    const setting all[N_SETTINGS] = {
        {"temp", &o->temperature, NULL, 0, 1e4},
        {"top-k", NULL, &o->top_k, 0, 1 << 30},
        {"top-p", &o->top_p, NULL, 1e-6, 1},
        {"min-p", &o->min_p, NULL, 0, 1},
        {"repeat-penalty", &o->repeat_penalty, NULL, 1e-3, 1e3},
        {"seed", NULL, &o->seed, 0, 9e18},
        {"n", NULL, &o->n, -1, 1 << 24},
    };
    memcpy(out, all, sizeof all);
}

static void print_settings(const setting *settings) {
    for (int i = 0; i < N_SETTINGS; i++)
        if (settings[i].number)
            fprintf(stderr, "%s %g\n", settings[i].name, *settings[i].number);
        else
            fprintf(stderr, "%s %lld\n", settings[i].name, (long long)*settings[i].whole);
}

static qgc_status set_number(const setting *to, const char *text, qgc_diag *d) {
    char *end;
    errno = 0;
    const long long whole = to->whole ? strtoll(text, &end, 10) : 0;
    const double number = to->whole ? (double)whole : strtod(text, &end);
    if (end == text || *end || errno == ERANGE || !isfinite(number) || number < to->min || number > to->max)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "%s is \"%s\", expected a %snumber from %g to %g",
                        to->name, text, to->whole ? "whole " : "", to->min, to->max);
    if (to->whole)
        *to->whole = whole;
    else
        *to->number = number;
    return QGC_OK;
}

/* "temp 0.7" */
static qgc_status do_set(shell *h, const char *argument, qgc_diag *d) {
    setting settings[N_SETTINGS];
    list_settings(h->s->o, settings);
    if (!*argument) {
        print_settings(settings);
        return QGC_OK;
    }
    const size_t length = strcspn(argument, " \t=");
    const char *name = qgc_arena_strndup(d->arena, argument, length), *names[N_SETTINGS];
    const char *value = argument + length + strspn(argument + length, " \t=");
    for (int i = 0; i < N_SETTINGS; i++) {
        names[i] = settings[i].name;
        if (strcmp(name, settings[i].name) != 0)
            continue;
        QGC_TRY(set_number(&settings[i], value, d));
        const qgc_sampling sampling = run_sampling(h->s->o);
        return qgc_sequence_set_sampling(h->s->sequence, &sampling, d);
    }
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "there is no setting \"%s\"", name);
    const char *near = qgc_nearest(name, names, N_SETTINGS);
    if (near)
        qgc_hint(d, "Did you mean %s?", near);
    else
        qgc_hint(d, "/set by itself lists them.");
    return s;
}

static shell_command do_help;

static const struct {
    const char *name, *argument, *help;
    shell_command *run;
} commands[] = {
    {"help", "", "this", do_help},
    {"reset", "", "begin a new conversation, with the same system message", do_reset},
    {"drop", "", "forget the oldest turn", do_drop},
    {"system", " [TEXT]", "another system message, or none", do_system},
    {"set", " [NAME VALUE]", "temp, top-k, top-p, min-p, repeat-penalty, seed, n; by itself shows them",
     do_set},
    {"save", " FILE", "the conversation, as JSON", do_save},
    {"load", " FILE", "go on from one that was saved", do_load},
    {"stats", "", "how long it took so far", do_stats},
    {"quit", "", "end, as does Ctrl-D", do_quit},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static qgc_status do_help(shell *h, const char *argument, qgc_diag *d) {
    (void)h;
    (void)argument;
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, "  %-20s %s\n",
                qgc_arena_printf(d->arena, "/%s%s", commands[i].name, commands[i].argument),
                commands[i].help);
    fputs("A line that ends with \\ goes on in the next; \"\"\" begins and ends a message of several lines;\n"
          "// begins a message with a slash. Ctrl-C stops an answer.\n",
          stderr);
    return QGC_OK;
}

/* "/set temp 0.7" without its slash. */
static qgc_status run_command(shell *h, const char *line, qgc_diag *d) {
    const size_t length = strcspn(line, " \t");
    const char *name = qgc_arena_strndup(d->arena, line, length), *names[N_COMMANDS];
    const char *argument = line + length + strspn(line + length, " \t");
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(h, argument, d);
    }
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "there is no command /%s", name);
    const char *near = qgc_nearest(name, names, N_COMMANDS);
    if (near)
        qgc_hint(d, "Did you mean /%s?", near);
    else
        qgc_hint(d, "/help lists the commands.");
    return s;
}

/* --- lines ----------------------------------------------------------------------------------------------- */

static const char quotes[] = "\"\"\"";

static bool ends_with(const qgc_str *text, const char *end) {
    const size_t n = strlen(end);
    return text->bytes >= n && memcmp(text->text + text->bytes - n, end, n) == 0;
}

static void cut(qgc_str *text, size_t bytes) {
    text->bytes -= bytes;
    text->text[text->bytes] = 0;
}

/* The lines that belong to a first one which goes on. False at the end of the input. */
static bool read_on(shell *h, qgc_str *text) {
    const bool block = text->bytes >= strlen(quotes) && memcmp(text->text, quotes, strlen(quotes)) == 0;
    bool open = block && (text->bytes < 2 * strlen(quotes) || !ends_with(text, quotes));
    while (open || (!block && ends_with(text, "\\"))) {
        size_t bytes;
        bool lost;
        const char *line = cli_terminal_line(h->terminal, "... ", &bytes, &lost);
        if (!line)
            return false;
        if (!block)
            cut(text, 1);
        qgc_str_add(text, "\n");
        qgc_str_add_bytes(text, line, bytes);
        open = block && !ends_with(text, quotes);
    }
    if (block) {
        cut(text, strlen(quotes));
        memmove(text->text, text->text + strlen(quotes), text->bytes - strlen(quotes) + 1);
        text->bytes -= strlen(quotes);
    }
    return true;
}

/* What cannot be taken is told, and the next one may be shorter. */
static void tell(const run_state *s) {
    fflush(stdout);
    qgc_diag_print(s->c->diag, stderr, cli_has_color(s->c));
    *s->c->diag = qgc_diag_new(s->c->arena);
}

static void offer_reset(const run_state *s) {
    fprintf(
        stderr,
        "The context is full (%lld positions): /reset begins a new conversation, /drop forgets its oldest turn; "
        "--ctx gives more room.\n",
        (long long)qgc_sequence_ctx(s->sequence));
}

static qgc_status take_line(shell *h, const char *line, size_t bytes) {
    run_state *s = h->s;
    qgc_str text = qgc_str_new(s->c->arena);
    qgc_str_add_bytes(&text, line, bytes);
    if (h->commands && !read_on(h, &text)) {
        h->over = true;
        return QGC_OK;
    }
    const bool slash = h->commands && text.bytes && text.text[0] == '/';
    if (slash && text.bytes > 1 && text.text[1] != '/')
        return run_command(h, text.text + 1, s->c->diag);
    const qgc_source message = {.text = text.text + slash, .bytes = text.bytes - slash};
    s->full = false;
    QGC_TRY(run_turn(s, &message));
    if (h->commands && s->full)
        offer_reset(s);
    return QGC_OK;
}

static qgc_status read_lines(shell *h) {
    run_state *s = h->s;
    qgc_status status = QGC_OK, worst = QGC_OK;
    while (!h->over && status != QGC_ERR_DEVICE && (h->commands || !run_interrupted)) {
        size_t bytes;
        bool lost;
        run_heed_interrupts();
        const char *line = cli_terminal_line(h->terminal, "> ", &bytes, &lost);
        if (!line || (bytes == 0 && !h->commands))
            break;
        if (bytes == 0)
            continue;
        status =
            lost ? qgc_fail(s->c->diag, QGC_ERR_INPUT, QGC_NO_LOC,
                            "the terminal has cut this line, so it was not taken; -f FILE takes longer ones")
                 : take_line(h, line, bytes);
        if (status == QGC_ERR_INPUT || (h->commands && status == QGC_ERR_USAGE))
            tell(s);
        worst = status == QGC_OK ? worst : status;
    }
    return h->commands && status != QGC_ERR_DEVICE ? QGC_OK : worst;
}

qgc_status run_converse(run_state *s) {
    const bool typed = isatty(STDIN_FILENO), edit = typed && isatty(STDERR_FILENO);
    shell h = {.s = s, .commands = typed, .terminal = cli_terminal_open(edit, s->c->arena)};
    const char *mode = qgc_sequence_mode(s->sequence);
    const bool on_cpu = strcmp(mode, "cpu") == 0; /* there are no modes, and the device says so */
    s->shell = typed;
    if (typed && !s->c->quiet)
        fprintf(stderr, "%s%s%s. /help lists the commands; Ctrl-C stops an answer, Ctrl-D ends.\n",
                qgc_engine_device(s->engine), on_cpu ? "" : ", ", on_cpu ? "" : mode);
    qgc_status status = read_lines(&h);
    cli_terminal_close(h.terminal);
    return status;
}
