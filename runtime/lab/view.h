#ifndef QGC_LAB_VIEW_H
#define QGC_LAB_VIEW_H

#include "codegen/card.h"
#include "graph/base/str.h"
#include "passes/passes.h"

/* A graph on its way through the passes as one HTML page that needs no other file: drawings of one layer, and of what
 * lies before and after the layers, before any pass and after each; what the rules did at each node; and, where times
 * were measured, what each kernel takes. */
typedef struct qgc_view qgc_view;

/* `layer` is the one to draw, of each repeat that has it; -1: the second of three or more, else the first. `path` is the
 * file of the graph, for the page. The view lives in the graph's arena. Errors: no such layer. */
QGC_MUST_USE qgc_status qgc_view_new(qgc_view **out, const qgc_graph *g, const char *path, int64_t layer,
                                     qgc_diag *d);

/* Takes down the graph as it is now: qgc_pass_options.after, with the view as context. */
qgc_status qgc_view_after(void *view, const qgc_pass_info *pass, const qgc_pass_run *run, const qgc_graph *g,
                          qgc_diag *d);

/* Looks on while the passes run, so that changes of what is drawn can be gone through one by one; `other`, which may be NULL, looks
 * on too. */
qgc_pass_watch qgc_view_watch(qgc_view *v, const qgc_pass_watch *other);

/* What stands above the drawings, and what is shown at first: after which pass (NULL: the last), and which node (NULL: none). */
void qgc_view_say(qgc_view *v, const char *text, const char *pass, const char *node);

/* Reads the times of kernels from a file of qgc bench --json. `g` is the graph after all passes. Errors: no such file,
 * one of another model or of other passes, one without times of kernels. */
QGC_MUST_USE qgc_status qgc_view_read_times(qgc_view *v, qgc_graph *g, const char *path, qgc_diag *d);

/* Counts what the kernels of a decode step read, and the least that it takes on a card. `g` is the graph after all passes; one of
 * which no step can be made is left as it is. */
void qgc_view_count(qgc_view *v, qgc_graph *g, const qgc_card *card);

/* Two pages side by side; what is chosen in one is in the other. `titles` stand above them. */
void qgc_view_pair(const qgc_str pages[2], const char *const titles[2], qgc_str *out);

/* The page. */
void qgc_view_html(const qgc_view *v, qgc_str *out);

#endif
