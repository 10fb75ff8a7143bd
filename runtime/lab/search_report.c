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

void qgc_search_text(const qgc_search *s, const qgc_search_options *o, qgc_str *out) {
    if (s->mode)
        qgc_str_printf(out, "%s, mode %s: times of %d pairs, the last of %lld positions\n",
                       qgc_printable(out->arena, o->run.graph), s->mode, o->pairs, (long long)o->ctx);
    else
        qgc_str_printf(
            out, "%s, without a GPU: no times, but a model of them (5 MB for a launch, 2.3 for a byte)\n",
            qgc_printable(out->arena, o->run.graph));
    qgc_str_add(out, "each candidate is a change of the one that it stands under\n\n");
    for (int i = 0; i < s->n_tries; i++)
        add_try(s, i, out);
    qgc_str_printf(out, "\n%d candidates: %d better, %d no better, %d the same, %d wrong, %d refused\n",
                   s->n_tries, count(s, QGC_SEARCH_BETTER), count(s, QGC_SEARCH_NO_BETTER),
                   count(s, QGC_SEARCH_SAME), count(s, QGC_SEARCH_WRONG), count(s, QGC_SEARCH_REFUSED));
    qgc_str_printf(out, "best: %d, ", s->best);
    add_numbers(s, &s->tries[s->best], out);
    qgc_str_printf(out, "\npasses: '%s'\n", qgc_printable(out->arena, s->passes));
    qgc_str_add(out, s->is_complete ? "no change of one thing, and none of two passes, is better\n"
                                    : "the search ended before every change of the best was tried\n");
}

qgc_status qgc_search_json(const qgc_search *s, const qgc_search_options *o, qgc_str *out, qgc_diag *d) {
    json_t *tries = json_array();
    for (int i = 0; i < s->n_tries; i++) {
        const qgc_search_try *t = &s->tries[i];
        json_array_append_new(
            tries, json_pack("{s:i, s:s, s:s, s:i, s:s?, s:i, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}",
                             "parent", t->parent, "change", t->change, "verdict", words[t->verdict],
                             "same_as", t->same_as, "why", t->why, "kernels", t->cost.kernels, "weight_bytes",
                             (json_int_t)t->cost.weight_bytes, "value_bytes", (json_int_t)t->cost.value_bytes,
                             "scratch_bytes", (json_int_t)t->cost.scratch_bytes, "model",
                             qgc_report_number(t->model), "us", qgc_report_number(t->us), "saved",
                             qgc_report_number(t->saved), "low", qgc_report_number(t->low), "high",
                             qgc_report_number(t->high)));
    }
    json_t *all = json_pack("{s:s, s:s?, s:I, s:I, s:o, s:i, s:b, s:s}", "graph", o->run.graph, "mode",
                            s->mode, "seed", (json_int_t)o->seed, "ctx", (json_int_t)o->ctx, "tries", tries,
                            "best", s->best, "complete", s->is_complete, "passes", s->passes);
    return qgc_report_json(all, out, d);
}
