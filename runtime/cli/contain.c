#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "runtime/cli/contain.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/base/times.h"
#include "graph/print.h"
#include "passes/load.h"
#include "runtime/cli/cli.h"

enum { NAME_BYTES = 4096, YAML_BYTES = 8 << 20, POLL_MS = 20 };

/* What the child is doing; the parent reads it when the child is gone, or stuck. */
typedef struct {
    volatile sig_atomic_t inside; /* of a pass, or of a plug-in that is loaded */
    volatile double since, limit;
    char pass[NAME_BYTES], rule[NAME_BYTES], node[NAME_BYTES]; /* rule: "" between rules */
    int change;                                                /* that it is about to make */
    bool changed;                                              /* the graph is another than the one kept */
    size_t yaml_bytes;                                         /* 0: there is no graph */
    char yaml[YAML_BYTES];                                     /* before the change */
} shared_page;

static shared_page *page; /* of the child and its parent */

/* What has no room ends with "...". */
static void set_name(char *to, const char *name) {
    if (snprintf(to, NAME_BYTES, "%s", name) >= NAME_BYTES)
        memcpy(to + NAME_BYTES - sizeof "...", "...", sizeof "...");
}

/* --- the child ------------------------------------------------------------------------------------------- */

void cli_contain_limit(double seconds) {
    if (page)
        page->limit = seconds;
}

void cli_contain_loading(const char *plugin) {
    if (!page)
        return;
    page->inside = 0;
    page->since = qgc_seconds();
    page->pass[0] = page->rule[0] = 0;
    if (plugin)
        set_name(page->node, plugin);
    page->inside = plugin != NULL; /* last: from here on the parent compares `since` with the limit */
}

/* Is it one that was loaded? `pass` may have options. */
static bool is_from_outside(const char *pass) {
    for (size_t i = 0; i < qgc_loaded_count(); i++) {
        const size_t bytes = strlen(qgc_loaded_at(i)->name);
        if (strncmp(pass, qgc_loaded_at(i)->name, bytes) == 0 && (pass[bytes] == 0 || pass[bytes] == '('))
            return true;
    }
    return false;
}

/* A graph that is too large is not kept, nor one that is broken between two changes. */
static void keep_graph(const qgc_graph *g) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_str text = qgc_str_new(a);
    if (qgc_verify_links(g, &d) == QGC_OK)
        qgc_graph_print_yaml(g, &text);
    page->yaml_bytes = text.bytes <= YAML_BYTES ? text.bytes : 0;
    memcpy(page->yaml, text.text, page->yaml_bytes);
    page->changed = false;
    qgc_arena_drop(a);
}

static void go_on(void *context, const char *pass, const qgc_graph *g) {
    (void)context;
    if (is_from_outside(pass) && (page->yaml_bytes == 0 || page->changed))
        keep_graph(g);
    set_name(page->pass, pass);
    page->rule[0] = 0;
    page->since = qgc_seconds();
    page->inside = 1;
}

static void before_rule(void *context, const char *pass, const char *rule, const qgc_node *at,
                        const qgc_graph *g) {
    (void)context;
    if (!rule) {
        page->yaml_bytes = 0;
        page->change = 1;
    }
    go_on(NULL, pass, g);
    if (!rule)
        return;
    set_name(page->rule, rule);
    snprintf(page->node, NAME_BYTES, at->layer >= 0 ? "%s[%d]" : "%s", at->out[0]->name, at->layer);
}

static qgc_status after_rule(void *context, const qgc_pass_step *step, qgc_graph *g, qgc_diag *d) {
    (void)context;
    (void)g;
    (void)d;
    page->inside = 0;
    page->change = step->run->n_fired + 1;
    page->changed = page->changed || step->fired || !step->rule;
    return QGC_OK;
}

void cli_contain_end(void) {
    if (page)
        page->inside = page->pass[0] = 0;
}

const qgc_pass_watch *cli_contain_watch(void) {
    static const qgc_pass_watch watch = {.before = before_rule, .after = after_rule, .go_on = go_on};
    return page ? &watch : NULL;
}

/* --- the parent ------------------------------------------------------------------------------------------ */

static const char *what_happened(int ended, bool hung, qgc_arena *a) {
    if (hung)
        return qgc_arena_printf(a, "did not end within %g seconds", page->limit);
    if (WIFSIGNALED(ended))
        return qgc_arena_printf(a, "crashed (%s)", strsignal(WTERMSIG(ended)));
    return qgc_arena_printf(a, "ended the process with exit code %d", WEXITSTATUS(ended));
}

/* The graph before the change, beside where the command was run. */
static void leave_graph(qgc_diag *d) {
    if (page->yaml_bytes == 0)
        return;
    const char *path =
        qgc_arena_printf(d->arena, "before-%.*s.yaml", (int)strcspn(page->pass, "("), page->pass);
    qgc_diag inner = qgc_diag_new(d->arena);
    if (qgc_file_write(path, page->yaml, page->yaml_bytes, &inner) == QGC_OK)
        qgc_hint(d, "The graph before that is in \"%s\"; compiled with the same plug-in it shows the same.",
                 path);
}

/* By itself, or because of what a pass has left. */
static qgc_status tell_of_command(const char *what, qgc_diag *d) {
    const qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the command %s", what);
    if (!page->pass[0])
        return s;
    qgc_note(d, QGC_NO_LOC, "it was looking at the graph after %d changes of pass \"%s\"", page->change - 1,
             page->pass);
    leave_graph(d);
    return s;
}

static qgc_status tell(int ended, bool hung, qgc_diag *d) {
    const char *what = what_happened(ended, hung, d->arena);
    if (!page->inside)
        return tell_of_command(what, d);
    if (!page->pass[0])
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "plug-in \"%s\" %s when it was loaded", page->node,
                        what);
    const qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "pass \"%s\" %s", page->pass, what);
    if (page->rule[0])
        qgc_note(d, QGC_NO_LOC, "in what would have been change %d, rule \"%s\" at \"%s\"", page->change,
                 page->rule, page->node);
    else
        qgc_note(d, QGC_NO_LOC, "in what would have been change %d, outside of a rule", page->change);
    leave_graph(d);
    return s;
}

static bool is_stuck(void) {
    return page->inside && page->limit > 0 && qgc_seconds() - page->since > page->limit;
}

static qgc_status wait_for(pid_t child, int *code, qgc_diag *d) {
    int ended = 0;
    bool hung = false;
    for (;;) {
        const pid_t done = waitpid(child, &ended, WNOHANG);
        if (done == child)
            break;
        if (done < 0 && errno != EINTR)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "could not wait for the command: %s",
                            strerror(errno));
        if (!hung && is_stuck()) {
            hung = true;
            kill(child, SIGKILL);
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    if (WIFEXITED(ended) && !page->inside) {
        *code = WEXITSTATUS(ended);
        return QGC_OK;
    }
    return tell(ended, hung, d);
}

bool cli_contain(int *code, qgc_diag *d) {
    void *memory = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(NULL);
    const pid_t child = memory == MAP_FAILED ? -1 : fork();
    if (child < 0) {
        *code = (int)qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC,
                              "could not run the command in a process of its own: %s", strerror(errno));
        return true;
    }
    page = memory;
    if (child == 0) {
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody would end it if it hangs */
#endif
        return false;
    }
    signal(SIGINT, SIG_IGN); /* the child answers Ctrl-C */
    const qgc_status status = wait_for(child, code, d);
    if (status != QGC_OK)
        *code = (int)status;
    return true;
}

bool cli_contain_wanted(int argc, char **argv) {
    const bool judges = argc > 1 && (strcmp(argv[1], "bisect") == 0 || strcmp(argv[1], "ablate") == 0 ||
                                     strcmp(argv[1], "search") == 0);
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--contain") == 0 || (judges && strncmp(argv[i], "--load-pass", 11) == 0))
            return true;
    return false;
}
