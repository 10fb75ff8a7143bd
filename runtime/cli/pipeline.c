#include "runtime/cli/pipeline.h"

#include <stdio.h>
#include <string.h>

#include "codegen/stage/stage.h"
#include "graph/base/file.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "passes/load.h"
#include "runtime/cli/aside.h"
#include "runtime/cli/contain.h"
#include "runtime/cli/explain.h"

qgc_status cli_load_stated(qgc_graph **g, const char *path, const char *weights, cli_context *c) {
    qgc_weights *w = NULL;
    if (weights)
        QGC_TRY(cli_open_weights(&w, weights, c->diag));
    const qgc_status s = qgc_graph_load_for(g, path, w, c->arena, c->diag);
    qgc_weights_close(w);
    return s;
}

enum { USUAL_LIMIT = 60 }; /* seconds */

qgc_status cli_load_passes(const cli_pipeline *p, qgc_diag *d) {
    int n;
    const char **paths = cli_split(p->load ? p->load : "", &n, d->arena);
    cli_contain_limit(p->pass_limit > 0 ? p->pass_limit : USUAL_LIMIT);
    for (int i = 0; i < n; i++) {
        cli_contain_loading(paths[i]);
        cli_aside_begin();
        const qgc_status status = qgc_passes_load(paths[i], d);
        cli_aside_end();
        cli_contain_loading(NULL);
        QGC_TRY(status);
    }
    return QGC_OK;
}

/* --- looking on ------------------------------------------------------------------------------------------ */

static void tell_before(void *context, const char *pass, const char *rule, const qgc_node *at,
                        const qgc_graph *g) {
    (void)context;
    const qgc_pass_watch *contain = cli_contain_watch();
    if (contain)
        contain->before(contain->context, pass, rule, at, g);
    cli_aside_begin();
}

/* Of a change, that is; what a pass leaves at its end is verified anyway. */
static qgc_status verify_change(const qgc_pass_step *step, qgc_graph *g, qgc_diag *d) {
    if (!step->rule)
        return QGC_OK;
    qgc_status status = qgc_verify(g, d);
    if (status == QGC_OK)
        status = qgc_stages_check(g, d);
    if (status != QGC_OK)
        qgc_note(d, step->at, "rule \"%s\" at \"%s\" left it so, %s", step->rule, step->node,
                 step->fired ? qgc_arena_printf(d->arena, "change %d of the pass", step->run->n_fired)
                             : "and says that it changed nothing");
    return status;
}

static qgc_status tell_after(void *context, const qgc_pass_step *step, qgc_graph *g, qgc_diag *d) {
    const qgc_pass_watch *contain = cli_contain_watch();
    cli_aside_end();
    if (contain)
        QGC_TRY(contain->after(contain->context, step, g, d));
    return context ? verify_change(step, g, d) : QGC_OK;
}

static void tell_going_on(void *context, const char *pass, const qgc_graph *g) {
    (void)context;
    const qgc_pass_watch *contain = cli_contain_watch();
    if (contain)
        contain->go_on(contain->context, pass, g);
    cli_aside_begin();
}

const qgc_pass_watch *cli_watch(const cli_pipeline *p, bool verify, qgc_arena *a) {
    const bool verifies = p->verify_each && verify;
    if (!verifies && qgc_loaded_count() == 0)
        return cli_contain_watch();
    qgc_pass_watch *watch = qgc_arena_alloc(a, sizeof *watch);
    *watch = (qgc_pass_watch){.before = tell_before, .after = tell_after, .go_on = tell_going_on};
    watch->context = verifies ? watch : NULL;
    return watch;
}

/* --- --print-after, --dump-passes -------------------------------------------------------------------------- */

typedef struct {
    const char *wanted; /* "all", "changed" or a pass; NULL: nothing is printed */
    bool printed;
    const char *folder; /* NULL: no files */
    int n_files;
    qgc_str *source; /* NULL: not wanted */
} watcher;

static void print_graph(watcher *w, const qgc_pass_info *pass, const qgc_pass_run *run, const char *text) {
    bool all = strcmp(w->wanted, "all") == 0, changed = strcmp(w->wanted, "changed") == 0;
    if (!all && !(changed && run->n_fired > 0) && strcmp(w->wanted, pass->name) != 0)
        return;
    printf("# after %s: %d fired, %d nodes in %d kernels\n%s", run->name, run->n_fired, run->n_nodes,
           run->n_kernels, text);
    w->printed = true;
}

/* "03-fuse-qkv.yaml" is there before the next pass begins, so what makes that one crash is in it. */
static qgc_status write_file(watcher *w, const qgc_pass_info *pass, const qgc_str *text, qgc_diag *d) {
    const char *path =
        qgc_arena_printf(d->arena, "%s/%02d-%s.yaml", w->folder, w->n_files++, pass ? pass->name : "loaded");
    return qgc_file_write(path, text->text, text->bytes, d);
}

static qgc_status watch(void *context, const qgc_pass_info *pass, const qgc_pass_run *run, const qgc_graph *g,
                        qgc_diag *d) {
    watcher *w = context;
    if (pass && !w->wanted && !w->folder)
        return QGC_OK;
    qgc_str text = qgc_str_new(d->arena);
    qgc_graph_print_yaml(g, &text);
    if (w->source && !pass)
        qgc_str_add(w->source, text.text);
    if (w->wanted && pass)
        print_graph(w, pass, run, text.text);
    return w->folder ? write_file(w, pass, &text, d) : QGC_OK;
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

/* Those that were run before an error, too. */
static void explain(const qgc_pass_report *report, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    cli_explain(report, NULL, &text);
    fputs(text.text, stderr);
}

void cli_note_modes(const qgc_graph *g, const cli_pipeline *p, qgc_arena *a) {
    const char *passes = p->passes ? p->passes : g->passes ? g->passes : "";
    const char *note = qgc_passes_modes(qgc_arena_printf(a, "%s,%s", passes, p->skip ? p->skip : ""), a);
    if (note)
        fprintf(stderr, "%s\n", note);
}

qgc_status cli_edit_pipeline(cli_pipeline *p, const qgc_graph *g, qgc_diag *d) {
    if (!qgc_pass_edits_any(&p->edits))
        return QGC_OK;
    QGC_TRY(qgc_pass_pipeline(&p->passes, g, p->passes, p->skip, &p->edits, d));
    p->skip = NULL;
    p->edits = (qgc_pass_edits){NULL, NULL, NULL, NULL};
    return QGC_OK;
}

static qgc_status run_passes(qgc_graph *g, const cli_pipeline *p, qgc_pass_report *report, qgc_diag *d) {
    cli_note_modes(g, p, d->arena);
    qgc_pass_report unread = {0};
    watcher w = {.wanted = p->print_after, .folder = p->dump_folder, .source = p->source};
    qgc_pass_options options = {
        .passes = p->passes, .skip = p->skip, .until = p->until, .want_matches = report == NULL};
    options.watch = cli_watch(p, true, d->arena);
    if (w.wanted)
        QGC_TRY(check_print_after(w.wanted, d));
    if (w.folder)
        QGC_TRY(qgc_folder_make(w.folder, d));
    if (w.wanted || w.folder || w.source) {
        options.after = watch;
        options.context = &w;
    }
    if (!report)
        report = &unread;
    qgc_status status = qgc_passes_run(g, &options, report, d);
    cli_aside_end(); /* an error has left a pass where it was */
    if (p->explain)
        explain(report, d->arena);
    QGC_TRY(status);
    bool one = w.wanted && strcmp(w.wanted, "all") != 0 && strcmp(w.wanted, "changed") != 0;
    if (one && !w.printed)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "pass \"%s\" is not in the pipeline", w.wanted);
    return QGC_OK;
}

qgc_status cli_run_passes(qgc_graph *g, const cli_pipeline *p, qgc_pass_report *report, qgc_diag *d) {
    cli_pipeline edited = *p;
    QGC_TRY(cli_load_passes(p, d));
    QGC_TRY(cli_edit_pipeline(&edited, g, d));
    return run_passes(g, &edited, report, d);
}

static qgc_status run_for_engine(void *context, qgc_graph *g, qgc_str *source, qgc_diag *d) {
    cli_pipeline pipeline = *(const cli_pipeline *)context;
    pipeline.source = source;
    return cli_run_passes(g, &pipeline, NULL, d);
}

qgc_engine_passes cli_passes(cli_pipeline *p) {
    return (qgc_engine_passes){.run = run_for_engine, .context = p};
}

qgc_status cli_want_no_passes(const cli_pipeline *p, const char *path, qgc_diag *d) {
    const struct {
        const char *name, *value;
    } given[] = {{"passes", p->passes},
                 {"skip", p->skip},
                 {"without", p->edits.without},
                 {"replace", p->edits.replace},
                 {"before", p->edits.before},
                 {"after", p->edits.after},
                 {"load-pass", p->load},
                 {"verify-each", p->verify_each ? "" : NULL},
                 {"print-after", p->print_after},
                 {"dump-passes", p->dump_folder},
                 {"explain", p->explain ? "" : NULL}};
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
