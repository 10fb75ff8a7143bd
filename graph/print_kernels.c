#include <string.h>

#include "graph/base/str.h"
#include "graph/print_impl.h"

/* Kernels from outside, of which those are printed that a group of the graph names. */

static bool is_named(const qgc_graph *g, const qgc_kernel_row *row) {
    for (const qgc_node *n = g->first; n; n = n->next)
        if (qgc_node_kernel(g, n) == row)
            return true;
    return false;
}

bool qgc_print_has_kernels(const printer *p) {
    for (size_t i = 0; i < p->g->n_kernels; i++)
        if (is_named(p->g, p->g->kernels[i]))
            return true;
    return false;
}

/* As a list, each entry of which is short. */
static void print_list(printer *p, const char *key, const char *text, const char *between) {
    const char *separator = "";
    if (!text)
        return;
    qgc_str_printf(p->out, "    %s: [", key);
    while (*text) {
        const size_t bytes = *between == ',' ? qgc_list_entry(text) : strcspn(text, between);
        qgc_str_add(p->out, separator);
        qgc_print_text(p->out, qgc_arena_strndup(p->scratch, text, bytes));
        text += bytes + (text[bytes] != 0);
        text += strspn(text, " ");
        separator = ", ";
    }
    qgc_str_add(p->out, "]\n");
}

static void print_scalar(printer *p, const char *key, const char *text) {
    if (!text)
        return;
    qgc_str_printf(p->out, "    %s: ", key);
    qgc_print_text(p->out, text);
    qgc_str_add(p->out, "\n");
}

static void print_lines(printer *p, const char *text) {
    qgc_str_add(p->out, "    text:\n");
    while (*text) {
        const size_t bytes = strcspn(text, "\n");
        qgc_str_add(p->out, "      - ");
        if (bytes)
            qgc_print_text(p->out, qgc_arena_strndup(p->scratch, text, bytes));
        else
            qgc_str_add(p->out, "\"\"");
        qgc_str_add(p->out, "\n");
        text += bytes + (text[bytes] != 0);
    }
}

void qgc_print_kernels(printer *p) {
    bool first = true;
    for (size_t i = 0; i < p->g->n_kernels; i++) {
        const qgc_kernel_row *row = p->g->kernels[i];
        if (!is_named(p->g, row))
            continue;
        qgc_str_printf(p->out, "%s  %s:\n", first ? "kernels:\n" : "", row->name);
        first = false;
        print_list(p, "nodes", row->nodes, ";");
        print_list(p, "params", row->params, ",");
        print_list(p, "options", row->options, ",");
        print_list(p, "limits", row->limits, ",");
        print_list(p, "grid", row->grid, ",");
        print_scalar(p, "threads", row->threads);
        print_scalar(p, "shared", row->shared);
        print_list(p, "starts", row->starts, ",");
        print_scalar(p, "steps", row->steps);
        print_scalar(p, "arch", row->arch);
        print_scalar(p, "phase", row->phase);
        print_lines(p, row->text);
    }
}
