#include <jansson.h>
#include <math.h>

#include "graph/base/utf8.h"
#include "runtime/engine/report.h"
#include "runtime/lab/search.h"

static const char *const words[] = {
    [QGC_SEARCH_START] = "start", [QGC_SEARCH_BETTER] = "better", [QGC_SEARCH_NO_BETTER] = "no better",
    [QGC_SEARCH_SAME] = "same",   [QGC_SEARCH_WRONG] = "wrong",   [QGC_SEARCH_REFUSED] = "refused"};

/* How many candidates it is a change of. */
static int depth_of(const qgc_search *s, int i) {
    int depth = 0;
    while ((i = s->tries[i].parent) >= 0)
        depth++;
    return depth;
}

static void add_numbers(const qgc_search *s, const qgc_search_try *t, qgc_str *out) {
    qgc_str_printf(out, "%d kernels, %lld bytes", t->cost.kernels,
                   (long long)(t->cost.weight_bytes + t->cost.value_bytes));
    if (!s->mode)
        qgc_str_printf(out, ", cost %.2f MB", 1e-6 * t->model);
    if (t->us >= 0)
        qgc_str_printf(out, ", %.1f us", t->us);
    if (!isnan(t->saved))
        qgc_str_printf(out, ", saves %.2f (%.2f to %.2f)", t->saved, t->low, t->high);
}

static void add_try(const qgc_search *s, int i, qgc_str *out) {
    const qgc_search_try *t = &s->tries[i];
    qgc_str_printf(out, "%4d  %*s%-*s  %-9s  ", i, 2 * depth_of(s, i), "", 44 - 2 * depth_of(s, i),
                   qgc_printable(out->arena, t->change), words[t->verdict]);
    if (t->verdict == QGC_SEARCH_SAME)
        qgc_str_printf(out, "as %d", t->same_as);
    else if (t->why)
        qgc_str_add(out, qgc_printable(out->arena, t->why));
    else
        add_numbers(s, t, out);
    qgc_str_add(out, "\n");
}

static int count(const qgc_search *s, qgc_search_verdict verdict) {
    int n = 0;
    for (int i = 0; i < s->n_tries; i++)
        n += s->tries[i].verdict == verdict;
    return n;
}

static void add_head(const qgc_search *s, const qgc_search_options *o, qgc_str *out) {
    const char *graph = qgc_printable(out->arena, o->run.graph);
    if (s->mode)
        qgc_str_printf(out, "%s, mode %s: times of %d pairs, the last of %lld positions\n", graph, s->mode,
                       o->pairs, (long long)o->ctx);
    else
        qgc_str_printf(
            out, "%s, without a GPU: no times, but a model of them (5 MB for a launch, 2.3 for a byte)\n",
            graph);
    if (s->layers_left < s->layers_of)
        qgc_str_printf(out, "candidates have %d of %d layers; the result is of all\n", s->layers_left,
                       s->layers_of);
    qgc_str_add(out, "each candidate is a change of the one that it stands under\n\n");
}

static void add_rival(const qgc_search *s, const qgc_search_rival *r, qgc_str *out) {
    qgc_str_printf(out, "%s, '%s': ", r->what, qgc_printable(out->arena, r->passes));
    if (r->of.why)
        qgc_str_printf(out, "%s, %s\n", words[r->of.verdict], qgc_printable(out->arena, r->of.why));
    else if (!s->mode)
        qgc_str_printf(out, "%d kernels, cost %.2f MB; the best saves %.2f, %.1f %%\n", r->of.cost.kernels,
                       1e-6 * r->of.model, 1e-6 * (r->of.model - s->result.model),
                       100 * (1 - s->result.model / r->of.model));
    else
        qgc_str_printf(out, "%.1f us; the best saves %.2f (%.2f to %.2f), %.1f %%\n", r->of.us, r->of.saved,
                       r->of.low, r->of.high, 100 * r->of.saved / r->of.us);
}

void qgc_search_text(const qgc_search *s, const qgc_search_options *o, qgc_str *out) {
    add_head(s, o, out);
    for (int i = 0; i < s->n_tries; i++)
        add_try(s, i, out);
    qgc_str_printf(out,
                   "\n%d candidates in %.0f s: %d better, %d no better, %d the same, %d wrong, %d refused\n",
                   s->n_tries, s->seconds, count(s, QGC_SEARCH_BETTER), count(s, QGC_SEARCH_NO_BETTER),
                   count(s, QGC_SEARCH_SAME), count(s, QGC_SEARCH_WRONG), count(s, QGC_SEARCH_REFUSED));
    qgc_search_try best = s->result; /* what it saves is said of each rival */
    best.saved = NAN;
    qgc_str_printf(out, "best: %d, ", s->best);
    add_numbers(s, &best, out);
    qgc_str_add(out, "\n");
    for (int i = 0; i < s->n_rivals; i++)
        add_rival(s, &s->rivals[i], out);
    qgc_str_printf(out, "passes: '%s'\n", qgc_printable(out->arena, s->passes));
    qgc_str_add(out, s->is_complete ? "no change of one thing, and none of two passes, is better\n"
                                    : "the search ended before every change of the best was tried\n");
}

static json_t *rivals_json(const qgc_search *s) {
    json_t *all = json_array();
    for (int i = 0; i < s->n_rivals; i++) {
        const qgc_search_rival *r = &s->rivals[i];
        json_array_append_new(
            all, json_pack("{s:s, s:s, s:s, s:s?, s:i, s:o, s:o, s:o, s:o, s:o}", "what", r->what, "passes",
                           r->passes, "verdict", words[r->of.verdict], "why", r->of.why, "kernels",
                           r->of.cost.kernels, "model", qgc_report_number(r->of.model), "us",
                           qgc_report_number(r->of.us), "saved", qgc_report_number(r->of.saved), "low",
                           qgc_report_number(r->of.low), "high", qgc_report_number(r->of.high)));
    }
    return all;
}

qgc_status qgc_search_json(const qgc_search *s, const qgc_search_options *o, qgc_str *out, qgc_diag *d) {
    json_t *tries = json_array();
    for (int i = 0; i < s->n_tries; i++) {
        const qgc_search_try *t = &s->tries[i];
        json_array_append_new(
            tries, json_pack("{s:i, s:s, s:s, s:i, s:s?, s:i, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:f}",
                             "parent", t->parent, "change", t->change, "verdict", words[t->verdict],
                             "same_as", t->same_as, "why", t->why, "kernels", t->cost.kernels, "weight_bytes",
                             (json_int_t)t->cost.weight_bytes, "value_bytes", (json_int_t)t->cost.value_bytes,
                             "scratch_bytes", (json_int_t)t->cost.scratch_bytes, "model",
                             qgc_report_number(t->model), "us", qgc_report_number(t->us), "saved",
                             qgc_report_number(t->saved), "low", qgc_report_number(t->low), "high",
                             qgc_report_number(t->high), "seconds", t->seconds));
    }
    json_t *all =
        json_pack("{s:s, s:s?, s:I, s:I, s:i, s:i, s:o, s:i, s:b, s:s, s:o, s:o, s:o}", "graph", o->run.graph,
                  "mode", s->mode, "seed", (json_int_t)o->seed, "ctx", (json_int_t)o->ctx, "layers",
                  s->layers_left, "of_layers", s->layers_of, "tries", tries, "best", s->best, "complete",
                  s->is_complete, "passes", s->passes, "us", qgc_report_number(s->result.us), "model",
                  qgc_report_number(s->result.model), "compared", rivals_json(s));
    return qgc_report_json(all, out, d);
}
