#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "graph/load.h"
#include "graph/print.h"

/* Any bytes: the loader gives a graph or an error. What it loads, the printer prints, and that text gives
 * the same text again. Large graphs are only loaded, to keep the fuzzer quick. */
enum { MAX_NODES_TO_PRINT = 500 };

static void check_round_trip(const qgc_graph *g, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    qgc_str text = qgc_str_new(a), again = qgc_str_new(a), dot = qgc_str_new(a);
    qgc_graph *copy;
    qgc_graph_print_dot(g, &dot);
    qgc_graph_print_yaml(g, &text);
    if (qgc_graph_load_text(&copy, "printed.yaml", text.text, text.bytes, a, &d) != QGC_OK) {
        fputs(text.text, stderr);
        qgc_diag_print(&d, stderr, false);
        abort();
    }
    qgc_graph_print_yaml(copy, &again);
    if (strcmp(text.text, again.text) != 0 || copy->n_nodes != g->n_nodes) {
        fprintf(stderr, "%s\nand then\n%s\n", text.text, again.text);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    if (qgc_graph_load_text(&g, "fuzz.yaml", (const char *)data, bytes, a, &d) != QGC_OK) {
        FILE *nowhere = fopen("/dev/null", "w");
        if (nowhere) {
            qgc_diag_print(&d, nowhere, false);
            fclose(nowhere);
        }
    } else if (g->n_nodes <= MAX_NODES_TO_PRINT)
        check_round_trip(g, a);
    qgc_arena_drop(a);
    return 0;
}
