#include "runtime/cli/weights.h"

#include <string.h>

#include "runtime/lab/random_weights.h"

enum { SEED = 1 };

bool cli_weights_are_random(const char *path) {
    return path && strcmp(path, "random") == 0;
}

qgc_status cli_lab_weights(qgc_weights **out, const char *path, const qgc_graph *g, cli_context *c) {
    *out = NULL;
    if (!path) {
        qgc_status s = qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "no weights");
        qgc_hint(c->diag, "Give a file or folder with --weights, or --weights random for made-up ones.");
        return s;
    }
    return cli_weights_are_random(path) ? qgc_random_weights_open(out, g, SEED, c->diag)
                                        : qgc_weights_open(out, path, c->diag);
}
