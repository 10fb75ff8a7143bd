#include "runtime/lab/tune.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "graph/base/str.h"
#include "graph/base/times.h"
#include "runtime/lab/tune_impl.h"

enum {
    MAX_CANDIDATES = 16,
};

/* A gain below this share of a step is left alone. */
static const double LEAST_GAIN = 0.002;

typedef struct {
    const char *kernel, *name;
    int64_t value, candidates[MAX_CANDIDATES + 1];
} knob;

typedef struct {
    const qgc_tune_options *o;
    qgc_tuning *tuning;
    qgc_diag *d;
    qgc_arena *arena;
    knob *knobs;
    size_t n_knobs;
    double deadline;
    pid_t pid; /* 0: no worker */
    int to, from;
    char line[QGC_TUNE_LINE];
    size_t in_line; /* bytes read that are not yet a line */
} tuner;

/* --- the worker ------------------------------------------------------------------------------------------ */

static void end_worker(tuner *t, bool by_force) {
    if (!t->pid)
        return;
    if (by_force)
        kill(t->pid, SIGKILL);
    close(t->to);
    close(t->from);
    waitpid(t->pid, NULL, 0);
    t->pid = 0;
}

static qgc_status start_worker(tuner *t) {
    int requests[2], answers[2];
    if (pipe(requests) != 0 || pipe(answers) != 0)
        return qgc_fail(t->d, QGC_ERR_DEVICE, QGC_NO_LOC, "no pipes to a tuning process: %s",
                        strerror(errno));
    fflush(NULL);
    t->in_line = 0;
    t->pid = fork();
    if (t->pid < 0) {
        t->pid = 0;
        return qgc_fail(t->d, QGC_ERR_DEVICE, QGC_NO_LOC, "no tuning process: %s", strerror(errno));
    }
    if (t->pid == 0) {
        close(requests[1]);
        close(answers[0]);
        qgc_tune_work(t->o, t->tuning, requests[0], answers[1]);
        _exit(0);
    }
    close(requests[0]);
    close(answers[1]);
    t->to = requests[1];
    t->from = answers[0];
    return QGC_OK;
}

/* The next line of the worker, without its end, until the next call; NULL if there is none: *why says what happened. */
static char *next_line(tuner *t, const char **why) {
    static char taken[QGC_TUNE_LINE];
    for (;;) {
        char *end = memchr(t->line, '\n', t->in_line);
        if (end) {
            size_t bytes = (size_t)(end - t->line);
            memcpy(taken, t->line, bytes);
            taken[bytes] = 0;
            t->in_line -= bytes + 1;
            memmove(t->line, end + 1, t->in_line);
            return taken;
        }
        if (t->in_line == sizeof t->line) {
            *why = "it answers nonsense";
            return NULL;
        }
        struct pollfd p = {.fd = t->from, .events = POLLIN};
        int ready = poll(&p, 1, (int)(1e3 * t->o->patience));
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0) {
            *why = "it did not end in time";
            return NULL;
        }
        ssize_t got = read(t->from, t->line + t->in_line, sizeof t->line - t->in_line);
        if (got <= 0) {
            *why = "it ended its process";
            return NULL;
        }
        t->in_line += (size_t)got;
    }
}

/* Fields of a line, at most n; those that are not there are "". */
static void split(char *line, const char **field, int n) {
    for (int i = 0; i < n; i++) {
        field[i] = line;
        char *tab = strchr(line, '\t');
        if (tab)
            *tab = 0;
        line = tab ? tab + 1 : line + strlen(line);
    }
}

static void add_knob(tuner *t, const char *const *field) {
    knob k = {.kernel = qgc_arena_strdup(t->arena, field[1]),
              .name = qgc_arena_strdup(t->arena, field[2]),
              .value = strtoll(field[3], NULL, 10)};
    const char *at = field[4];
    for (int i = 0; i < MAX_CANDIDATES && *at; i++) {
        char *end;
        k.candidates[i] = strtoll(at, &end, 10);
        at = *end == ',' ? end + 1 : end;
    }
    t->knobs = qgc_arena_grow(t->arena, t->knobs, t->n_knobs, sizeof *t->knobs);
    t->knobs[t->n_knobs++] = k;
}

/* Starts a worker and listens to what it can do; knobs are taken from the first. */
static qgc_status meet_worker(tuner *t) {
    QGC_TRY(start_worker(t));
    const bool first = t->n_knobs == 0;
    const char *why = "", *field[5];
    for (char *line; (line = next_line(t, &why));) {
        split(line, field, 5);
        if (strcmp(field[0], "ready") == 0)
            return QGC_OK;
        if (strcmp(field[0], "failed") == 0) {
            end_worker(t, false);
            return qgc_fail(t->d, QGC_ERR_DEVICE, QGC_NO_LOC, "%s", field[1]);
        }
        if (strcmp(field[0], "arch") == 0 && !t->tuning->arch)
            t->tuning->arch = qgc_arena_strdup(t->tuning->arena, field[1]);
        if (strcmp(field[0], "card") == 0)
            t->tuning->card = qgc_arena_strdup(t->tuning->arena, field[1]);
        if (strcmp(field[0], "knob") == 0 && first)
            add_knob(t, field);
    }
    end_worker(t, true);
    return qgc_fail(t->d, QGC_ERR_DEVICE, QGC_NO_LOC, "the process that tries candidates could not begin: %s",
                    why);
}

static char *ask(tuner *t, const char *what, const qgc_tune_result *r, const char **why) {
    char line[QGC_TUNE_LINE];
    int bytes =
        snprintf(line, sizeof line, "%s\t%s\t%s\t%lld\n", what, r->kernel, r->name, (long long)r->value);
    if (bytes >= (int)sizeof line || write(t->to, line, (size_t)bytes) != bytes) {
        *why = bytes >= (int)sizeof line ? "its name is too long" : "its process is gone";
        return NULL;
    }
    return next_line(t, why);
}

/* --- the search ------------------------------------------------------------------------------------------ */

static void take_times(qgc_tune_result *r, const char *const *field) {
    r->base_us = strtod(field[1], NULL);
    r->us = strtod(field[2], NULL);
    r->low_us = strtod(field[3], NULL);
    r->high_us = strtod(field[4], NULL);
    r->verdict =
        r->high_us < 0 && r->base_us - r->us >= LEAST_GAIN * r->base_us ? QGC_TUNE_FASTER : QGC_TUNE_SLOWER;
}

static qgc_status try_candidate(tuner *t, qgc_tune_result *r) {
    const char *why = "", *field[5];
    char *line = ask(t, "try", r, &why);
    if (!line) {
        r->verdict = QGC_TUNE_FAILED;
        r->why = why;
        end_worker(t, true);
        return meet_worker(t);
    }
    split(line, field, 5);
    if (strcmp(field[0], "time") == 0)
        take_times(r, field);
    else {
        r->verdict = strcmp(field[0], "wrong") == 0 ? QGC_TUNE_WRONG : QGC_TUNE_FAILED;
        r->why = qgc_arena_strdup(t->arena, field[1]);
    }
    return QGC_OK;
}

static qgc_status keep(tuner *t, const qgc_tune_result *r) {
    qgc_tuning_set(t->tuning, r->kernel, r->name, r->value);
    const char *why = "";
    char *line = ask(t, "keep", r, &why);
    if (line && strcmp(line, "ready") == 0)
        return QGC_OK;
    end_worker(t, true); /* a new one begins with what has been kept */
    return meet_worker(t);
}

static qgc_status try_knob(tuner *t, knob *k) {
    for (const int64_t *c = k->candidates; *c && qgc_seconds() < t->deadline; c++) {
        if (*c == k->value)
            continue;
        qgc_tune_result r = {.kernel = k->kernel, .name = k->name, .value = *c};
        QGC_TRY(try_candidate(t, &r));
        if (r.verdict == QGC_TUNE_FASTER) {
            QGC_TRY(keep(t, &r));
            k->value = *c;
        }
        if (t->o->report)
            t->o->report(t->o->context, &r);
    }
    return QGC_OK;
}

/* How long steps take in each mode with what was kept. A worker that fails at it has told nothing. */
static void time_modes(tuner *t) {
    const qgc_tune_result none = {.kernel = "-", .name = "-"};
    const char *why = "", *field[4];
    char *line = ask(t, "modes", &none, &why);
    for (; line; line = next_line(t, &why)) {
        split(line, field, 4);
        if (strcmp(field[0], "mode") != 0)
            break;
        const long long ns = strtoll(field[3], NULL, 10);
        if (ns > 0)
            qgc_tuning_set_time(t->tuning, field[1], field[2], ns);
    }
    if (!line)
        end_worker(t, true);
}

qgc_status qgc_tune(qgc_tuning *tuning, const qgc_tune_options *o, qgc_diag *d) {
    tuner t = {.o = o, .tuning = tuning, .d = d, .arena = d->arena, .deadline = qgc_seconds() + o->seconds};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGPIPE, &ignore, &before); /* a worker that is gone is noticed otherwise */
    qgc_status s = meet_worker(&t);
    for (size_t i = 0; i < t.n_knobs && s == QGC_OK; i++)
        s = try_knob(&t, &t.knobs[i]);
    if (s == QGC_OK)
        time_modes(&t);
    end_worker(&t, false);
    sigaction(SIGPIPE, &before, NULL);
    return s;
}
