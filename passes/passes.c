#include "passes/passes.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/stage/stage.h"
#include "graph/base/str.h"
#include "graph/base/times.h"
#include "passes/edit.h"
#include "passes/load.h"

static const qgc_pass_info table[] = {
#define PASS(name, function, options, usual, summary) {name, qgc_pass_##function, options, summary},
#include "passes/passes.def"
#undef PASS
};
static const bool in_default[] = {
#define PASS(name, function, options, usual, summary) usual,
#include "passes/passes.def"
#undef PASS
};
enum { N_PASSES = sizeof table / sizeof *table, MAX_OPTIONS = 8 };

size_t qgc_pass_count(void) {
    return N_PASSES + qgc_loaded_count();
}

const qgc_pass_info *qgc_pass_at(size_t i) {
    return i < N_PASSES ? &table[i] : qgc_loaded_at(i - N_PASSES);
}

bool qgc_pass_is_usual(size_t i) {
    return i >= N_PASSES || in_default[i];
}

double qgc_pass_option(const qgc_pass_context *c, const char *name, double otherwise) {
    for (int i = 0; i < c->n_options; i++)
        if (strcmp(c->option_names[i], name) == 0)
            return c->option_values[i];
    return otherwise;
}

/* --- the pipeline as text -------------------------------------------------------------------------------- */

/* One pass as it was asked for. */
typedef struct {
    const qgc_pass_info *info;
    const char *text; /* "fuse-pointwise(max=4)" */
    bool optional;    /* it may match nothing: there was a "?" after it */
    const char *names[MAX_OPTIONS];
    double values[MAX_OPTIONS];
    int n_options;
} request;

/* An error in the command line, or, where it has a place, in the graph's file. */
static qgc_status wrong(qgc_loc at, qgc_diag *d, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static qgc_status wrong(qgc_loc at, qgc_diag *d, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(d->arena, format, args);
    va_end(args);
    return qgc_fail(d, at.source ? QGC_ERR_INPUT : QGC_ERR_USAGE, at, "%s", text);
}

static const qgc_pass_info *pass_named(const char *name) {
    for (size_t i = 0; i < qgc_pass_count(); i++)
        if (strcmp(name, qgc_pass_at(i)->name) == 0)
            return qgc_pass_at(i);
    return NULL;
}

/* The mode that a pass of this name has become; NULL: none. */
static const char *mode_of(const char *name) {
    static const char *const modes[][2] = {{"pdl-edges", "pdl"}, {"persistent", "persistent"}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(name, modes[i][0]) == 0 && !pass_named(name))
            return modes[i][1];
    return NULL;
}

qgc_status qgc_pass_find(const char *name, qgc_loc at, const qgc_pass_info **out, qgc_diag *d) {
    *out = pass_named(name);
    if (*out)
        return QGC_OK;
    const char *names[N_PASSES + QGC_MAX_LOADED_PASSES];
    for (size_t i = 0; i < qgc_pass_count(); i++)
        names[i] = qgc_pass_at(i)->name;
    qgc_status s = wrong(at, d, "unknown pass \"%s\"", name);
    const char *near = qgc_nearest(name, names, qgc_pass_count()), *mode = mode_of(name);
    if (mode)
        qgc_hint(d, "It is a mode now: --mode %s.", mode);
    else if (near)
        qgc_hint(d, "Did you mean \"%s\"?", near);
    else
        qgc_hint(d, "qgc passes lists them.");
    return s;
}

/* Is `name` a word of the list "max, parts"? */
static bool has_option(const char *list, const char *name, size_t bytes) {
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += strspn(at, ", ")) {
        size_t length = strcspn(at, ",");
        if (length == bytes && strncmp(at, name, bytes) == 0)
            return true;
    }
    return false;
}

/* "max=4,parts=8" */
static qgc_status parse_options(request *r, const char *text, qgc_loc at, qgc_diag *d) {
    while (*text) {
        size_t length = strcspn(text, ","), name = strcspn(text, "=");
        const char *word = qgc_arena_strndup(d->arena, text, length);
        char *end = NULL;
        double value = name < length ? strtod(word + name + 1, &end) : 0;
        if (name >= length || end == word + name + 1 || *end || !(fabs(value) <= INT_MAX) ||
            value != trunc(value))
            return wrong(at, d, "option \"%s\" of pass \"%s\" is not NAME=WHOLE NUMBER", word, r->info->name);
        if (!has_option(r->info->options, word, name) || r->n_options == MAX_OPTIONS) {
            qgc_status s = wrong(at, d, "pass \"%s\" has no option \"%.*s\"", r->info->name, (int)name, word);
            if (r->info->options)
                qgc_hint(d, "It has: %s.", r->info->options);
            return s;
        }
        r->names[r->n_options] = qgc_arena_strndup(d->arena, word, name);
        r->values[r->n_options++] = value;
        text += length + (text[length] == ',');
    }
    return QGC_OK;
}

char *qgc_pipeline_next(const char **text, qgc_arena *a) {
    if (!**text)
        return NULL;
    *text += strspn(*text, " ");
    size_t length = qgc_list_entry(*text);
    const char *start = *text;
    *text += length + (start[length] == ',');
    while (length > 0 && start[length - 1] == ' ')
        length--;
    return qgc_arena_strndup(a, start, length);
}

/* Is there a blank outside of brackets, as in "a b" and "a(max=2) b"? */
static bool has_blank(const char *entry) {
    const char *close = strchr(entry, ')');
    return strcspn(entry, " ") < strcspn(entry, "(") || (close && strchr(close, ' '));
}

/* Cuts `entry` of a pipeline into name and options; *options is NULL where there is no bracket. */
static qgc_status parse_entry(char *entry, request *r, const char **options, qgc_loc at, qgc_diag *d) {
    size_t length = strlen(entry);
    if (has_blank(entry)) {
        qgc_status s = wrong(at, d, "\"%s\" has a blank where the name of one pass is expected", entry);
        qgc_hint(d, "Passes are separated by commas.");
        return s;
    }
    *r = (request){.optional = entry[length - 1] == '?'};
    if (r->optional)
        entry[--length] = 0;
    r->text = qgc_arena_strdup(d->arena, entry);
    char *open = strchr(entry, '(');
    *options = open ? open + 1 : NULL;
    if (!open)
        return QGC_OK;
    if (entry[length - 1] != ')')
        return wrong(at, d, "pass \"%s\" lacks a closing bracket", entry);
    entry[length - 1] = 0;
    *open = 0;
    return QGC_OK;
}

static qgc_status parse_pipeline(const char *text, qgc_loc at, request **out, size_t *n, qgc_diag *d) {
    for (char *entry; (entry = qgc_pipeline_next(&text, d->arena));) {
        request r;
        const char *options = NULL;
        if (!*entry)
            continue;
        QGC_TRY(parse_entry(entry, &r, &options, at, d));
        if (mode_of(entry))
            continue;
        QGC_TRY(qgc_pass_find(entry, at, &r.info, d));
        assert(r.info);
        if (options)
            QGC_TRY(parse_options(&r, options, at, d));
        *out = qgc_arena_grow(d->arena, *out, *n, sizeof **out);
        (*out)[(*n)++] = r;
    }
    return QGC_OK;
}

const char *qgc_passes_modes(const char *pipeline, qgc_arena *a) {
    const char *first = NULL, *second = NULL; /* there are two */
    for (char *entry; (entry = qgc_pipeline_next(&pipeline, a));) {
        entry[strcspn(entry, "(?")] = 0;
        if (!mode_of(entry) || (first && strcmp(entry, first) == 0))
            continue;
        *(first ? &second : &first) = entry;
    }
    if (second)
        return qgc_arena_printf(a, "passes \"%s\" and \"%s\" are modes now: --mode %s, --mode %s", first,
                                second, mode_of(first), mode_of(second));
    return first ? qgc_arena_printf(a, "pass \"%s\" is a mode now: --mode %s", first, mode_of(first)) : NULL;
}

/* Not every model has something for every pass. */
const char *qgc_pipeline_default(qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    for (size_t i = 0; i < qgc_pass_count(); i++)
        if (qgc_pass_is_usual(i))
            qgc_str_printf(&text, "%s%s?", text.bytes ? "," : "", qgc_pass_at(i)->name);
    return text.text;
}

/* --- running --------------------------------------------------------------------------------------------- */

static double now_us(void) {
    return 1e6 * qgc_seconds();
}

/* Nodes by themselves, and groups. */
static int count_kernels(const qgc_graph *g) {
    int n = 0;
    for (const qgc_node *node = g->first; node; node = node->next)
        n += node->group < 0 || !node->prev || node->prev->group != node->group;
    return n;
}

/* The plug-in that brought a pass; NULL for one of the table. */
static const char *plugin_of(const qgc_pass_info *info) {
    for (size_t i = 0; i < qgc_loaded_count(); i++)
        if (qgc_loaded_at(i) == info)
            return qgc_loaded_from(i);
    return NULL;
}

static qgc_status call_pass(const request *r, qgc_pass_context *c, qgc_diag *d) {
    const qgc_pass_watch *watch = c->watch;
    if (watch && watch->before)
        watch->before(watch->context, r->text, NULL, NULL, c->graph);
    double start = now_us();
    qgc_status status = r->info->run(c, d);
    c->run->us = now_us() - start;
    if (status != QGC_OK || d->status != QGC_OK) /* an error there is kept, and this one is for want of any */
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "pass \"%s\" failed and does not say why",
                        r->info->name);
    if (c->run->n_fired < 0 || (c->run->n_events > 0 && !c->run->events))
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "pass \"%s\" reports what it cannot have done",
                        r->info->name);
    if (watch && watch->after)
        QGC_TRY(watch->after(watch->context, &(qgc_pass_step){.run = c->run}, c->graph, d));
    QGC_TRY(qgc_verify(c->graph, d));
    status = qgc_stages_check(c->graph, d);
    if (status != QGC_OK)
        qgc_hint(d, "The pass that ran last made that group: it is at fault, not the model file.");
    return status;
}

typedef struct {
    const qgc_pass_watch *watch;
    int most; /* changes */
} run_options;

static qgc_status run_pass(qgc_graph *g, const request *r, const run_options *o, qgc_pass_run *run,
                           qgc_diag *d) {
    *run = (qgc_pass_run){.name = r->text};
    qgc_pass_context c = {.graph = g,
                          .run = run,
                          .scratch = qgc_arena_new(),
                          .option_names = r->names,
                          .option_values = r->values,
                          .n_options = r->n_options,
                          .watch = o->watch,
                          .most = o->most};
    const char *plugin = plugin_of(r->info), *name = r->text;
    if (plugin)
        name = qgc_arena_printf(d->arena, "%s of plug-in \"%s\"", r->text, plugin);
    qgc_frame frame = {d->top, "running pass", name, QGC_NO_LOC};
    d->top = &frame;
    qgc_status status = call_pass(r, &c, d);
    d->top = frame.up;
    qgc_arena_drop(c.scratch);
    run->n_nodes = (int)g->n_nodes;
    run->n_kernels = status == QGC_OK ? count_kernels(g) : 0; /* the list may have no end */
    return status;
}

static bool is_skipped(const request *skipped, size_t n, const qgc_pass_info *info) {
    for (size_t i = 0; i < n; i++)
        if (skipped[i].info == info)
            return true;
    return false;
}

/* Leaves out of the passes wanted those that are skipped; *end: after the last that is to run. */
static qgc_status narrow(request *wanted, size_t *n, const qgc_pass_options *o, size_t *end, qgc_diag *d) {
    request *skipped = NULL;
    const qgc_pass_info *until = NULL;
    size_t n_skipped = 0, n_kept = 0;
    QGC_TRY(parse_pipeline(o->skip ? o->skip : "", QGC_NO_LOC, &skipped, &n_skipped, d));
    if (o->until)
        QGC_TRY(qgc_pass_find(o->until, QGC_NO_LOC, &until, d));
    for (size_t i = 0; i < *n; i++)
        if (!is_skipped(skipped, n_skipped, wanted[i].info))
            wanted[n_kept++] = wanted[i];
    *n = *end = n_kept;
    if (!until)
        return QGC_OK;
    for (; *end > 0; (*end)--) /* a pass may come twice: the last time counts */
        if (wanted[*end - 1].info == until)
            return QGC_OK;
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "pass \"%s\" is not in the pipeline", o->until);
}

/* The passes that are still to be run, for the graph's text. */
static const char *rest_of(const request *wanted, size_t n, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    for (size_t i = 0; i < n; i++)
        qgc_str_printf(&text, "%s%s%s", i ? "," : "", wanted[i].text, wanted[i].optional ? "?" : "");
    return text.text;
}

/* A pass that was named and found nothing is a mistake: what it nearly matched says why. */
static qgc_status matched_nothing(const request *r, const qgc_pass_run *run, qgc_loc at, qgc_diag *d) {
    enum { MOST_NOTES = 5 };
    qgc_status s = wrong(at, d, "pass \"%s\" matched nothing", r->text);
    int told = 0;
    for (size_t i = 0; i < run->n_events && told < MOST_NOTES; i++) {
        const qgc_pass_event *e = &run->events[i];
        if (!e->fired && ++told)
            qgc_note(d, e->at, "%s at \"%s\": %s", e->rule, e->node, e->text);
    }
    qgc_hint(d, "Write \"%s?\" if it may match nothing.", r->text);
    return s;
}

qgc_status qgc_passes_run(qgc_graph *g, const qgc_pass_options *o, qgc_pass_report *report, qgc_diag *d) {
    request *wanted = NULL;
    size_t n_wanted = 0, end;
    const char *text = o->passes ? o->passes : g->passes ? g->passes : qgc_pipeline_default(d->arena);
    const qgc_loc at = o->passes || !g->passes ? QGC_NO_LOC : g->passes_at;
    QGC_TRY(qgc_stages_check(g, d));
    QGC_TRY(parse_pipeline(text, at, &wanted, &n_wanted, d));
    QGC_TRY(narrow(wanted, &n_wanted, o, &end, d));
    if (o->limit && o->limit->passes < end)
        end = o->limit->passes;
    *report = (qgc_pass_report){.runs = qgc_arena_array(g->arena, end, sizeof(qgc_pass_run))};
    g->passes = rest_of(wanted, n_wanted, g->arena);
    if (o->after)
        QGC_TRY(o->after(o->context, NULL, NULL, g, d));
    for (size_t i = 0; i < end; i++) {
        qgc_pass_run *run = &report->runs[report->n_runs++];
        const bool limited = o->limit && i + 1 == o->limit->passes;
        QGC_TRY(
            run_pass(g, &wanted[i], &(run_options){o->watch, limited ? o->limit->changes : INT_MAX}, run, d));
        g->passes = rest_of(wanted + i + 1, n_wanted - i - 1, g->arena);
        if (o->want_matches && run->n_fired == 0 && !wanted[i].optional)
            return matched_nothing(&wanted[i], run, at, d);
        if (o->after)
            QGC_TRY(o->after(o->context, wanted[i].info, run, g, d));
    }
    return QGC_OK;
}
