#include "runtime/cli/pipeline.h"

#include <stdio.h>
#include <string.h>

#include "graph/print.h"
#include "passes/load.h"

qgc_status cli_load_passes(const cli_pipeline *p, qgc_diag *d) {
    int n;
    const char **paths = cli_split(p->load ? p->load : "", &n, d->arena);
    for (int i = 0; i < n; i++)
        QGC_TRY(qgc_passes_load(paths[i], d));
    return QGC_OK;
}

/* --- --print-after --------------------------------------------------------------------------------------- */

typedef struct {
    const char *wanted; /* "all", "changed" or a pass */
    bool printed;
} printing;

static qgc_status print_graph(void *context, const qgc_pass_info *pass, const qgc_pass_run *run,
                              const qgc_graph *g, qgc_diag *d) {
    printing *p = context;
    bool all = strcmp(p->wanted, "all") == 0, changed = strcmp(p->wanted, "changed") == 0;
    if (!all && !(changed && run->n_fired > 0) && strcmp(p->wanted, pass->name) != 0)
        return QGC_OK;
    qgc_str text = qgc_str_new(d->arena);
    qgc_graph_print_yaml(g, &text);
    printf("# after %s: %d fired, %d nodes in %d kernels\n%s", run->name, run->n_fired, run->n_nodes,
           run->n_kernels, text.text);
    p->printed = true;
    return QGC_OK;
}

/* Is it a word that --print-after understands? */
static qgc_status check_print_after(const char *word, qgc_diag *d) {
    enum { N_WORDS = 2 };
    size_t n = qgc_pass_count();
    const char **words = qgc_arena_array(d->arena, n + N_WORDS, sizeof *words);
    words[0] = "all";
    words[1] = "changed";
    for (size_t i = 0; i < n; i++)
        words[N_WORDS + i] = qgc_pass_at(i)->name;
    for (size_t i = 0; i < n + N_WORDS; i++)
        if (strcmp(words[i], word) == 0)
            return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                            "option --print-after is \"%s\", expected a pass, all or changed", word);
    const char *near = qgc_nearest(word, words, n + N_WORDS);
    if (near)
        qgc_hint(d, "Did you mean \"%s\"?", near);
    else
        qgc_hint(d, "qgc passes lists the passes.");
    return s;
}

qgc_status cli_run_passes(qgc_graph *g, const cli_pipeline *p, qgc_pass_report *report, qgc_diag *d) {
    QGC_TRY(cli_load_passes(p, d));
    qgc_pass_report unread;
    printing print = {.wanted = p->print_after};
    qgc_pass_options options = {.passes = p->passes, .skip = p->skip, .until = p->until};
    if (print.wanted) {
        QGC_TRY(check_print_after(print.wanted, d));
        options.after = print_graph;
        options.context = &print;
    }
    QGC_TRY(qgc_passes_run(g, &options, report ? report : &unread, d));
    bool one = print.wanted && strcmp(print.wanted, "all") != 0 && strcmp(print.wanted, "changed") != 0;
    if (one && !print.printed)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "pass \"%s\" is not in the pipeline", print.wanted);
    return QGC_OK;
}

qgc_status cli_want_no_passes(const cli_pipeline *p, const char *path, qgc_diag *d) {
    const struct {
        const char *name, *value;
    } given[] = {
        {"passes", p->passes}, {"skip", p->skip}, {"load-pass", p->load}, {"print-after", p->print_after}};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (given[i].value) {
            qgc_status s =
                qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                         "option --%s is for graphs, and \"%s\" is compiled already", given[i].name, path);
            qgc_hint(d, "Give it to qgc compile.");
            return s;
        }
    return QGC_OK;
}
