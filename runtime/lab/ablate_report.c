#include "runtime/lab/ablate_report.h"

#include <math.h>
#include <string.h>

#include "runtime/engine/report.h"
#include "runtime/lab/chart.h"

static const char *judged(const qgc_ablate_effect *e) {
    return e->is_wrong ? "wrong" : "right";
}

/* --- table ----------------------------------------------------------------------------------------------- */

static void put_effect(qgc_str *out, const char *pass, int width, const qgc_ablate_effect *e, bool timed) {
    qgc_arena *a = out->arena;
    qgc_str_printf(out, "%-*s", width, pass);
    if (e->refused) {
        qgc_str_printf(out, "  cannot run in the mode: %s\n", e->refused);
        return;
    }
    if (timed)
        qgc_str_printf(out, "  %9.2f  %-18s", e->us.median,
                       qgc_arena_printf(a, "[%.2f, %.2f]", e->us.low, e->us.high));
    qgc_str_printf(out, "  %7d  %9lld  %9s  %9s  %9s  %9s  %5lld  %s\n", e->kernels, (long long)e->bytes,
                   qgc_report_small(e->drift.max_drift, a), qgc_report_small(qgc_drift_rms(&e->drift), a),
                   qgc_report_small(qgc_drift_kl(&e->drift), a), qgc_report_small(e->drift.kl_max, a),
                   (long long)e->drift.flips, judged(e));
}

static void put_head(qgc_str *out, const char *what, int width, bool timed) {
    qgc_str_printf(out, "%-*s", width, what);
    if (timed)
        qgc_str_printf(out, "  %9s  %-18s", "us", "95% interval");
    qgc_str_printf(out, "  %7s  %9s  %9s  %9s  %9s  %9s  %5s  %s\n", "kernels", "bytes", "max drift",
                   "RMS drift", "KL", "max KL", "flips", "graph");
}

static void put_way(qgc_str *out, const char *name, const qgc_ablate_way *way, bool timed) {
    if (way->refused) {
        qgc_str_printf(out, "%s cannot run in the mode: %s\n", name, way->refused);
        return;
    }
    qgc_str_printf(out, "%s: %d kernels, %lld bytes of values", name, way->cost.kernels,
                   (long long)way->cost.value_bytes);
    if (timed)
        qgc_str_printf(out, ", %.1f us", way->us);
    qgc_str_add(out, "\n");
}

static void put_subsets(qgc_str *out, const qgc_ablation *x) {
    if (x->worst_subset)
        qgc_str_printf(
            out,
            "\n%d random subsets in random orders, against no pass: max drift %s, RMS drift %s, KL %s, max KL %s, "
            "%lld flips\nthe largest drift: --passes '%s'\n",
            x->n_subsets - x->n_refused, qgc_report_small(x->subsets.max_drift, out->arena),
            qgc_report_small(qgc_drift_rms(&x->subsets), out->arena),
            qgc_report_small(qgc_drift_kl(&x->subsets), out->arena),
            qgc_report_small(x->subsets.kl_max, out->arena), (long long)x->subsets.flips, x->worst_subset);
    if (x->n_wrong_subsets > 0)
        qgc_str_printf(out, "\n%d of %d random subsets make a wrong graph\n", x->n_wrong_subsets,
                       x->n_subsets);
    if (x->n_refused > 0)
        qgc_str_printf(out, "\n%d of %d random subsets were not compared: %s\n", x->n_refused, x->n_subsets,
                       x->none.refused ? "the graph under no pass cannot run in the mode"
                                       : "they cannot run in the mode");
}

void qgc_ablate_table(const qgc_ablation *x, const qgc_ablate_heading *h, qgc_str *out) {
    int width = 16;
    for (size_t i = 0; i < x->n_rows; i++)
        width = (int)strlen(x->rows[i].pass) > width ? (int)strlen(x->rows[i].pass) : width;
    qgc_str_printf(out, "%s, weights %s, %s%s%s\n", h->graph, h->weights, h->device, x->mode ? ", mode " : "",
                   x->mode ? x->mode : "");
    const char *step = x->prefill
                           ? qgc_arena_printf(out->arena, "a prefill step of %lld tokens", (long long)h->ctx)
                           : "a decode step";
    const char *each = x->prefill ? "such a step" : "a token";
    qgc_str_printf(out, "logits over %lld positions%s: %s\n", (long long)x->positions,
                   x->prefill ? ", 8 at a time" : "", h->text);
    if (x->timed && x->prefill)
        qgc_str_printf(out, "times of %d pairs of steps\n", h->pairs);
    else if (x->timed)
        qgc_str_printf(out, "times of %d pairs of %d steps, at the end of %lld positions\n", h->pairs,
                       QGC_PAIR_STEPS, (long long)h->ctx);
    put_way(out, qgc_arena_printf(out->arena, "%s with all passes", step), &x->all, x->timed);
    put_way(out, qgc_arena_printf(out->arena, "%s with none", step), &x->none, x->timed);
    qgc_str_printf(out, "\nsaved %s by a pass in the pipeline, against the pipeline without it\n", each);
    put_head(out, "left out", width, x->timed);
    for (size_t i = 0; i < x->n_rows; i++)
        put_effect(out, x->rows[i].pass, width, &x->rows[i].left_out, x->timed);
    qgc_str_printf(out, "\nsaved %s by a pass alone, against no pass\n", each);
    put_head(out, "alone", width, x->timed);
    for (size_t i = 0; i < x->n_rows; i++)
        put_effect(out, x->rows[i].pass, width, &x->rows[i].alone, x->timed);
    put_effect(out, "all of them", width, &x->total, x->timed);
    put_subsets(out, x);
}

/* --- JSON ------------------------------------------------------------------------------------------------ */

static json_t *effect_json(const qgc_ablate_effect *e) {
    return json_pack(
        "{s:s?, s:{s:o, s:o, s:o}, s:i, s:I, s:o, s:o, s:o, s:o, s:I, s:s}", "refused", e->refused, "us",
        "median", qgc_report_number(e->us.median), "low", qgc_report_number(e->us.low), "high",
        qgc_report_number(e->us.high), "kernels", e->kernels, "bytes", (json_int_t)e->bytes, "max_drift",
        qgc_report_number(e->drift.max_drift), "rms_drift", qgc_report_number(qgc_drift_rms(&e->drift)), "kl",
        qgc_report_number(qgc_drift_kl(&e->drift)), "max_kl", qgc_report_number(e->drift.kl_max), "flips",
        (json_int_t)e->drift.flips, "graph", judged(e));
}

static json_t *way_json(const qgc_ablate_way *way) {
    return json_pack("{s:s?, s:i, s:I, s:I, s:o}", "refused", way->refused, "kernels", way->cost.kernels,
                     "value_bytes", (json_int_t)way->cost.value_bytes, "weight_bytes",
                     (json_int_t)way->cost.weight_bytes, "us", qgc_report_number(way->us));
}

static json_t *rows_json(const qgc_ablation *x) {
    json_t *rows = json_array();
    for (size_t i = 0; i < x->n_rows; i++) {
        const qgc_ablate_row *row = &x->rows[i];
        json_array_append_new(rows,
                              json_pack("{s:s, s:i, s:i, s:o, s:o}", "pass", row->pass, "fired", row->fired,
                                        "fired_alone", row->fired_alone, "left_out",
                                        effect_json(&row->left_out), "alone", effect_json(&row->alone)));
    }
    return rows;
}

static json_t *subsets_json(const qgc_ablation *x) {
    const qgc_drift *drift = &x->subsets;
    if (x->n_subsets == 0)
        return json_null();
    return json_pack("{s:i, s:i, s:o, s:o, s:o, s:o, s:I, s:s?}", "subsets", x->n_subsets, "refused",
                     x->n_refused, "max_drift", qgc_report_number(drift->max_drift), "rms_drift",
                     qgc_report_number(qgc_drift_rms(drift)), "kl", qgc_report_number(qgc_drift_kl(drift)),
                     "max_kl", qgc_report_number(drift->kl_max), "flips", (json_int_t)drift->flips, "worst",
                     x->worst_subset);
}

qgc_status qgc_ablate_json(const qgc_ablation *x, const qgc_ablate_heading *h, qgc_str *out, qgc_diag *d) {
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:s, s:s?, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "graph",
                  h->graph, "phase", x->prefill ? "prefill" : "decode", "weights", h->weights, "device",
                  h->device, "mode", x->mode, "text", h->text, "positions", (json_int_t)x->positions, "ctx",
                  (json_int_t)h->ctx, "pairs", x->timed ? json_integer(h->pairs) : json_null(), "all_passes",
                  way_json(&x->all), "no_passes", way_json(&x->none), "total", effect_json(&x->total),
                  "passes", rows_json(x), "random_subsets", subsets_json(x));
    return qgc_report_json(all, out, d);
}

/* --- chart ----------------------------------------------------------------------------------------------- */

static qgc_chart_bar bar_of(const qgc_ablate_effect *e, bool timed) {
    if (e->refused)
        return (qgc_chart_bar){NAN, NAN, NAN};
    if (timed)
        return (qgc_chart_bar){e->us.median, e->us.low, e->us.high};
    return (qgc_chart_bar){e->kernels, NAN, NAN};
}

static const char *mode_text(const qgc_ablation *x) {
    return x->mode ? x->mode : "graph";
}

/* All but the bars: two series a row in one mode, else one a mode. */
static qgc_chart chart_of(const qgc_ablation *x, int n, const qgc_ablate_heading *h, qgc_arena *a) {
    const char **labels = qgc_arena_array(a, x->n_rows, sizeof *labels);
    for (size_t i = 0; i < x->n_rows; i++)
        labels[i] = x->rows[i].pass;
    const bool named = n == 1 && x->mode;
    qgc_chart c = {
        .title = qgc_arena_printf(a, "What each pass saves%s: %s", n > 1 ? " in the pipeline" : "", h->graph),
        .subtitle = qgc_arena_printf(a, "%s%s%s, weights %s%s", h->device, named ? ", mode " : "",
                                     named ? x->mode : "", h->weights,
                                     x->timed ? "; medians of paired differences, 95% intervals" : ""),
        .axis = x->prefill ? (x->timed ? "microseconds saved a prefill step" : "kernels saved a prefill step")
                : x->timed ? "microseconds saved a token"
                           : "kernels saved a token",
        .series = {"in the pipeline", "alone"},
        .n_series = n > 1 ? n : 2,
        .labels = labels,
        .n_rows = x->n_rows,
    };
    for (int m = 0; n > 1 && m < n; m++)
        c.series[m] = qgc_arena_printf(a, "%s mode", mode_text(&x[m]));
    return c;
}

void qgc_ablate_svg(const qgc_ablation *x, int n, const qgc_ablate_heading *h, qgc_str *out) {
    qgc_chart chart = chart_of(x, n, h, out->arena);
    const size_t series = (size_t)chart.n_series;
    qgc_chart_bar *bars = qgc_arena_array(out->arena, series * x->n_rows, sizeof *bars);
    for (size_t i = 0; i < x->n_rows; i++)
        for (size_t s = 0; s < series; s++)
            bars[series * i + s] = n > 1    ? bar_of(&x[s].rows[i].left_out, x->timed)
                                   : s == 0 ? bar_of(&x->rows[i].left_out, x->timed)
                                            : bar_of(&x->rows[i].alone, x->timed);
    chart.bars = bars;
    qgc_chart_svg(&chart, out);
}
