#define _GNU_SOURCE /* getline beside histedit.h */ /* NOLINT(bugprone-reserved-identifier): libc asks for this name */
#include "runtime/cli/terminal.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef QGC_LIBEDIT
#include <histedit.h>
#endif

#include "graph/base/diag.h"
#include "graph/base/file.h"

enum {
    MOST_OF_A_TERMINAL = 4095, /* bytes of a line; the rest is lost without a word (N_TTY_BUF_SIZE) */
    MOST_LINES = 1000,         /* of the history */
};

struct cli_terminal {
    bool edit;
    char *line; /* getline's own */
    size_t room;
    const char *prompt;
#ifdef QGC_LIBEDIT
    EditLine *editor; /* NULL: lines are not edited */
    History *history;
    const char *history_file; /* NULL: none is kept */
#endif
};

#ifdef QGC_LIBEDIT

/* libedit asks for the prompt with nothing but itself. */
static char *prompt_of(EditLine *editor) {
    cli_terminal *t;
    el_get(editor, EL_CLIENTDATA, &t);
    return (char *)(size_t)t->prompt; /* which it does not change */
}

/* $XDG_STATE_HOME/qgc/history, or ~/.local/state/qgc/history; NULL where it cannot be kept. */
static const char *find_history(qgc_arena *a) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    qgc_diag ignored = qgc_diag_new(a);
    if (!(state && *state)) {
        if (!home || !*home)
            return NULL;
        state = qgc_arena_printf(a, "%s/.local/state", home);
        if (qgc_folder_make(qgc_arena_printf(a, "%s/.local", home), &ignored) != QGC_OK ||
            qgc_folder_make(state, &ignored) != QGC_OK)
            return NULL;
    }
    const char *folder = qgc_arena_printf(a, "%s/qgc", state);
    return qgc_folder_make(folder, &ignored) == QGC_OK ? qgc_arena_printf(a, "%s/history", folder) : NULL;
}

static void begin_editing(cli_terminal *t, qgc_arena *a) {
    HistEvent event;
    setlocale(LC_CTYPE, ""); /* letters of more than a byte */
    t->editor = el_init("qgc", stdin, stderr, stderr);
    t->history = history_init();
    if (!t->editor || !t->history)
        return;
    el_set(t->editor, EL_CLIENTDATA, t);
    el_set(t->editor, EL_PROMPT, prompt_of);
    el_set(t->editor, EL_EDITOR, "emacs");
    history(t->history, &event, H_SETSIZE, MOST_LINES);
    history(t->history, &event, H_SETUNIQUE, 1);
    el_set(t->editor, EL_HIST, history, t->history);
    el_source(t->editor, NULL); /* the user's ~/.editrc */
    t->history_file = find_history(a);
    if (t->history_file)
        history(t->history, &event, H_LOAD, t->history_file);
}

static void end_editing(cli_terminal *t) {
    HistEvent event;
    if (t->history && t->history_file)
        history(t->history, &event, H_SAVE, t->history_file);
    if (t->editor)
        el_end(t->editor);
    if (t->history)
        history_end(t->history);
}

static const char *edited_line(cli_terminal *t, size_t *bytes) {
    HistEvent event;
    int n = 0;
    const char *line = el_gets(t->editor, &n);
    if (!line || n <= 0)
        return NULL;
    if (line[strspn(line, " \t\r\n")])
        history(t->history, &event, H_ENTER, line);
    *bytes = (size_t)n;
    return line;
}

#endif

cli_terminal *cli_terminal_open(bool edit, qgc_arena *a) {
    cli_terminal *t = qgc_arena_alloc(a, sizeof *t);
    *t = (cli_terminal){.edit = edit};
#ifdef QGC_LIBEDIT
    const char *kind = getenv("TERM");
    if (edit && kind && strcmp(kind, "dumb") != 0)
        begin_editing(t, a);
#endif
    return t;
}

void cli_terminal_close(cli_terminal *t) {
    if (!t)
        return;
#ifdef QGC_LIBEDIT
    end_editing(t);
#endif
    (free)(t->line); /* libc's own, made by getline */
}

static const char *plain_line(cli_terminal *t, size_t *bytes, bool *cut) {
    if (t->edit)
        fputs(t->prompt, stderr);
    const ssize_t n = getline(&t->line, &t->room, stdin);
    if (n <= 0)
        return NULL;
    *bytes = (size_t)n;
    *cut = t->edit && n >= MOST_OF_A_TERMINAL;
    return t->line;
}

const char *cli_terminal_line(cli_terminal *t, const char *prompt, size_t *bytes, bool *cut) {
    const char *line;
    t->prompt = prompt;
    *cut = false;
    *bytes = 0;
#ifdef QGC_LIBEDIT
    line = t->editor ? edited_line(t, bytes) : plain_line(t, bytes, cut);
#else
    line = plain_line(t, bytes, cut);
#endif
    while (line && *bytes > 0 && (line[*bytes - 1] == '\n' || line[*bytes - 1] == '\r'))
        --*bytes;
    return line;
}
