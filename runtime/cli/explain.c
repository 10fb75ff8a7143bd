#include "runtime/cli/explain.h"

#include <ctype.h>
#include <string.h>

/* Events that differ in their layer only are one line. */

/* Are two texts the same but for the layers in them, "h[3]"? */
static bool same_but_layers(const char *a, const char *b) {
    while (*a && *a == *b) {
        if (*a == '[' && isdigit((unsigned char)a[1]) && isdigit((unsigned char)b[1])) {
            a += strcspn(a, "]");
            b += strcspn(b, "]");
            continue;
        }
        a++;
        b++;
    }
    return *a == *b;
}

static bool alike(const qgc_pass_event *a, const qgc_pass_event *b) {
    return a->fired == b->fired && a->at.line == b->at.line && (a->layer < 0) == (b->layer < 0) &&
           strcmp(a->rule, b->rule) == 0 && same_but_layers(a->node, b->node) &&
           same_but_layers(a->text, b->text);
}

static size_t base_length(const char *node) {
    return strcspn(node, "[");
}

/* "down" is "down[3]" too. */
static bool is_named(const char *label, const char *node) {
    return strcmp(label, node) == 0 ||
           (strlen(node) == base_length(label) && strncmp(node, label, strlen(node)) == 0);
}

bool cli_explain_concerns(const qgc_pass_event *e, const char *node) {
    bool concerns = !node || is_named(e->node, node);
    for (int i = 0; i < e->n_others && !concerns; i++)
        concerns = is_named(e->others[i], node);
    return concerns;
}

static bool has_event(const qgc_pass_run *run, const char *node) {
    for (size_t i = 0; i < run->n_events; i++)
        if (cli_explain_concerns(&run->events[i], node))
            return true;
    return false;
}

/* Text with "[*]" in place of the layer, where it stands for several. */
static const char *without_layers(const char *text, qgc_arena *a) {
    qgc_str out = qgc_str_new(a);
    for (; *text; text++) {
        qgc_str_add_bytes(&out, text, 1);
        if (*text == '[' && isdigit((unsigned char)text[1])) {
            qgc_str_add(&out, "*");
            text += strcspn(text, "]") - 1;
        }
    }
    return out.text;
}

/* "down[0..23]" or "down[0..3, 5]", from the `n` layers in rising order. */
static const char *with_ranges(const char *node, const int *layers, int n, qgc_arena *a) {
    qgc_str out = qgc_str_new(a);
    qgc_str_add_bytes(&out, node, base_length(node));
    for (int i = 0; i < n;) {
        int first = i++;
        while (i < n && layers[i] == layers[i - 1] + 1)
            i++;
        qgc_str_printf(&out, "%s%d", first ? ", " : "[", layers[first]);
        if (i - first > 1)
            qgc_str_printf(&out, "..%d", layers[i - 1]);
    }
    qgc_str_add(&out, "]");
    return out.text;
}

/* Events come in the order of sweeps, which need not be that of layers. */
static void insert_layer(int *layers, int *n, int layer) {
    int at = *n;
    while (at > 0 && layers[at - 1] > layer)
        at--;
    if (at > 0 && layers[at - 1] == layer)
        return;
    memmove(&layers[at + 1], &layers[at], (size_t)(*n - at) * sizeof *layers);
    layers[at] = layer;
    ++*n;
}

static void put_event(const qgc_pass_run *run, size_t i, const char *node, bool *told, qgc_str *out) {
    qgc_arena *a = out->arena;
    const qgc_pass_event *e = &run->events[i];
    int *layers = qgc_arena_array(a, run->n_events, sizeof *layers), n = 0;
    for (size_t k = i; k < run->n_events; k++)
        if (!told[k] && alike(e, &run->events[k]) && cli_explain_concerns(&run->events[k], node)) {
            told[k] = true;
            insert_layer(layers, &n, run->events[k].layer);
        }
    bool several = n > 1;
    const char *label = several ? with_ranges(e->node, layers, n, a) : e->node;
    const char *text = several ? without_layers(e->text, a) : e->text;
    qgc_str_printf(out, "  %s  %-28s %s%s%s", e->fired ? "fired   " : "declined", e->rule, label,
                   *text ? ": " : "", text);
    if (e->at.source)
        qgc_str_printf(out, "  (%s:%d)", e->at.source->name, e->at.line);
    qgc_str_add(out, "\n");
}

void cli_explain(const qgc_pass_report *report, const char *node, qgc_str *out) {
    for (size_t i = 0; i < report->n_runs; i++) {
        const qgc_pass_run *run = &report->runs[i];
        if (node && !has_event(run, node))
            continue;
        qgc_str_printf(out, "%s: %d fired, %d nodes in %d kernels, %.0f us\n", run->name, run->n_fired,
                       run->n_nodes, run->n_kernels, run->us);
        bool *told = qgc_arena_array(out->arena, run->n_events, sizeof *told);
        for (size_t k = 0; k < run->n_events; k++)
            if (!told[k] && cli_explain_concerns(&run->events[k], node))
                put_event(run, k, node, told, out);
        if (run->note && !node)
            qgc_str_printf(out, "  %s\n", run->note);
    }
}
