#include <math.h>

#include "runtime/engine/report.h"
#include "runtime/lab/bisect.h"

static const char *const words[] = {"equal", "harmless", "wrong"};

/* --- text ------------------------------------------------------------------------------------------------ */

/* "0", "1.2e-07", "0.35" */
static const char *distance(double x, qgc_arena *a) {
    return isinf(x) ? "without bound" : qgc_report_small(x, a);
}

static void put_pass(qgc_str *out, const qgc_bisection *b) {
    qgc_arena *a = out->arena;
    if (!b->pass) {
        qgc_str_printf(out, "pass    none: logits are %s apart without any\n", distance(b->none, a));
        return;
    }
    qgc_str_printf(out, "pass    %s: logits %s apart before it, %s with it\n", b->pass,
                   distance(b->before_pass, a), distance(b->with_pass, a));
    if (b->change == 0)
        qgc_str_add(out, "change  unknown: the pass does not count its changes\n");
    else
        qgc_str_printf(out, "change  %d of %d: logits %s apart before it, %s with it\n", b->change,
                       b->n_changes, distance(b->before_change, a), distance(b->with_change, a));
    if (b->rule)
        qgc_str_printf(out, "        %s at \"%s\"%s%s%s%s\n", b->rule, b->rule_at, *b->rule_text ? ", " : "",
                       b->rule_text, *b->rule_place ? "  " : "", b->rule_place);
}

/* In double precision: an index has no distance. */
static void put_judged(qgc_str *out, const qgc_bisection *b) {
    qgc_arena *a = out->arena;
    const char *inputs = distance(b->inputs, a), *bound = distance(b->rounding, a);
    if (isinf(b->apart))
        qgc_str_printf(out, "        another at position %lld %s; what goes in is %s apart\n",
                       (long long)b->position, b->where, inputs);
    else
        qgc_str_printf(
            out, "        %s apart at position %lld %s; what goes in is %s apart, and rounding explains %s\n",
            distance(b->apart, a), (long long)b->position, b->where, inputs, bound);
}

static void put_value(qgc_str *out, const qgc_bisection *b) {
    qgc_arena *a = out->arena;
    if (b->why)
        qgc_str_printf(out, "why     %s\n", b->why);
    if (!b->value && !b->by_kernels)
        return;
    if (b->by_memory) {
        qgc_str_add(
            out, "value   none, where each keeps a place of its own: the plan of the memory is at fault\n");
        return;
    }
    if (!b->value) {
        qgc_str_printf(out, "value   none of the %d that can be compared differs\n", b->n_compared);
        return;
    }
    qgc_str_printf(out, "value   \"%s\"%s%s%s%s\n", b->value, *b->node ? " = " : "", b->node,
                   *b->place ? "  " : "", b->place); /* no node makes a weight */
    if (b->where) {
        put_judged(out, b);
        return;
    }
    if (!b->by_kernels)
        return; /* bit for bit what was in its place */
    qgc_str_printf(
        out, "        %s apart at position %lld; what goes in is %s apart, which with rounding explains %s\n",
        distance(b->apart, a), (long long)b->position, distance(b->inputs, a), distance(b->rounding, a));
}

static void put_other_faults(qgc_str *out, const qgc_bisection *b) {
    for (int i = 1; i < b->n_faults; i++) {
        const qgc_bisect_fault *f = &b->faults[i];
        qgc_str_printf(out, "also    %s: ", f->pass ? f->pass : "no pass");
        if (f->change > 0)
            qgc_str_printf(out, "change %d of %d, %s at \"%s\": ", f->change, f->n_changes, f->rule,
                           f->rule_at);
        if (f->value)
            qgc_str_printf(out, "\"%s\" %s apart", f->value, distance(f->apart, out->arena));
        qgc_str_printf(out, "%s%s\n", f->value && f->why ? "; " : "", f->why ? f->why : "");
    }
    if (b->n_faults == QGC_BISECT_FAULTS)
        qgc_str_printf(out, "no more than %d faults are looked for\n", QGC_BISECT_FAULTS);
}

static void put_files(qgc_str *out, const qgc_bisection *b) {
    if (b->not_written)
        qgc_str_printf(out, "no reproduction: %s\n", b->not_written);
    for (int i = 0; i < b->n_files; i++)
        qgc_str_printf(out, "written: %s\n", b->files[i]);
}

void qgc_bisect_text(const qgc_bisection *b, const qgc_bisect_options *o, qgc_str *out) {
    qgc_arena *a = out->arena;
    const char *mode = b->mode ? qgc_arena_printf(a, " in %s mode", b->mode) : "";
    qgc_str_printf(out, "%s on %s%s, against the CPU evaluator on %s\n", o->run.graph,
                   o->run.device ? qgc_device_about(o->run.device)->name : "the CPU evaluator", mode,
                   o->against ? o->against : "the graph before any pass");
    qgc_str_printf(out, "%d pass%s, %lld position%s: logits %s apart, relative to the largest\n", b->n_passes,
                   b->n_passes == 1 ? "" : "es", (long long)o->run.positions,
                   o->run.positions == 1 ? "" : "s", distance(b->all, a));
    if (b->verdict == QGC_BISECT_EQUAL) {
        qgc_str_add(out, "equal: bit for bit\n");
        return;
    }
    if (o->run.device)
        qgc_str_printf(
            out,
            b->by_kernels
                ? "the graph is right: on the evaluator logits are %s apart; so kernels are looked at\n"
                : "the graph is not the same: on the evaluator too logits are %s apart\n",
            distance(b->evaluated, a));
    put_pass(out, b);
    put_value(out, b);
    put_other_faults(out, b);
    if (b->choices > 0)
        qgc_str_printf(out,
                       "tokens  %.3g %% of those chosen, with several settings of sampling, are others\n",
                       100 * b->choices);
    if (b->verdict == QGC_BISECT_WRONG)
        qgc_str_printf(out, "wrong: %s\n", b->why ? b->why : "more than rounding explains");
    else
        qgc_str_add(out, "harmless: no more than rounding explains\n");
    put_files(out, b);
}

/* --- JSON ------------------------------------------------------------------------------------------------ */

static json_t *pass_json(const qgc_bisection *b) {
    if (!b->pass)
        return json_null();
    return json_pack("{s:s, s:o, s:o, s:i, s:i, s:o, s:o, s:s?, s:s?, s:s?, s:s?}", "name", b->pass, "before",
                     qgc_report_number(b->before_pass), "with", qgc_report_number(b->with_pass), "change",
                     b->change, "changes", b->n_changes, "before_change", qgc_report_number(b->before_change),
                     "with_change", qgc_report_number(b->with_change), "rule", b->rule, "at", b->rule_at,
                     "place", b->rule_place, "text", b->rule_text);
}

static json_t *faults_json(const qgc_bisection *b) {
    json_t *all = json_array();
    for (int i = 0; i < b->n_faults; i++) {
        const qgc_bisect_fault *f = &b->faults[i];
        json_array_append_new(
            all, json_pack("{s:s?, s:i, s:i, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:I, s:o, s:s?, s:s?}",
                           "pass", f->pass, "change", f->change, "changes", f->n_changes, "rule", f->rule,
                           "at", f->rule_at, "rule_place", f->rule_place, "value", f->value, "node", f->node,
                           "place", f->place, "position", (json_int_t)f->position, "apart",
                           qgc_report_number(f->apart), "where", f->where, "why", f->why));
    }
    return all;
}

static json_t *value_json(const qgc_bisection *b) {
    if (!b->value)
        return json_null();
    return json_pack("{s:s, s:s, s:s, s:I, s:o, s:o, s:o}", "name", b->value, "node", b->node, "place",
                     b->place, "position", (json_int_t)b->position, "apart", qgc_report_number(b->apart),
                     "inputs_apart", qgc_report_number(b->inputs), "explained",
                     qgc_report_number(b->rounding));
}

qgc_status qgc_bisect_json(const qgc_bisection *b, const qgc_bisect_options *o, qgc_str *out, qgc_diag *d) {
    json_t *files = json_array();
    for (int i = 0; i < b->n_files; i++)
        json_array_append_new(files, json_string(b->files[i]));
    json_t *all = json_pack(
        "{s:s, s:s?, s:s, s:s?, s:s, s:I, s:i, s:o, s:o, s:b, s:b, s:o, s:o, s:i, s:i, s:o, s:o, s:o}",
        "graph", o->run.graph, "against", o->against, "device",
        o->run.device ? qgc_device_about(o->run.device)->name : "cpu", "mode", b->mode, "verdict",
        words[b->verdict], "positions", (json_int_t)o->run.positions, "passes", b->n_passes, "apart",
        qgc_report_number(b->all), "apart_on_evaluator", qgc_report_number(b->evaluated), "by_kernels",
        (int)b->by_kernels, "by_memory", (int)b->by_memory, "pass", pass_json(b), "value", value_json(b),
        "compared", b->n_compared, "unread", b->n_unread, "files", files, "faults", faults_json(b), "choices",
        qgc_report_number(b->choices));
    return qgc_report_json(all, out, d);
}
