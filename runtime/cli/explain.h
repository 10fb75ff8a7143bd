#ifndef QGC_CLI_EXPLAIN_H
#define QGC_CLI_EXPLAIN_H

#include "graph/base/str.h"
#include "passes/passes.h"

/* What the passes did, for people: a line for each pass, and below it one for each rule that fired or nearly did, layers
 * together. With `node` ("down", or "down[3]") only what concerns that node; NULL: all. */
void cli_explain(const qgc_pass_report *report, const char *node, qgc_str *out);

/* Is an event about a node: "down", in all layers, or "down[3]"? So it is about NULL. */
bool cli_explain_concerns(const qgc_pass_event *e, const char *node);

#endif
