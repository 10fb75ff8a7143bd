#include "passes/rewrite.h"

/* Rows of a product are normed by heads, rotated in pairs, and put into the cache by the kernel that computes them. */

enum { LINEAR, NORM, ROPE, APPEND };

static bool rotate(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "heads", (qgc_node *[]){m->node[LINEAR], m->node[ROPE]}, 2);
}

static bool norm_and_rotate(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "heads", (qgc_node *[]){m->node[LINEAR], m->node[NORM], m->node[ROPE]}, 3);
}

static bool put_normed(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "heads",
                    (qgc_node *[]){m->node[LINEAR], m->node[NORM], m->node[ROPE], m->node[APPEND]}, 4);
}

static bool put_rotated(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "heads", (qgc_node *[]){m->node[LINEAR], m->node[ROPE], m->node[APPEND]}, 3);
}

static bool put(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "heads", (qgc_node *[]){m->node[LINEAR], m->node[APPEND]}, 2);
}

static const qgc_rule rules[] = {
    {"rope(linear)", P(ROPE, ROPE, P1(LINEAR, LINEAR, FREE)), rotate},
    {"append(rope(linear))", P(APPEND, APPEND, FREE, P1(ROPE, ROPE, P1(LINEAR, LINEAR, FREE))), put_rotated},
    {"rope(norm(linear))", P(ROPE, ROPE, P1(NORM, RMS_NORM, P1(LINEAR, LINEAR, FREE))), norm_and_rotate},
    {"append(rope(norm(linear)))",
     P(APPEND, APPEND, FREE, P1(ROPE, ROPE, P1(NORM, RMS_NORM, P1(LINEAR, LINEAR, FREE)))), put_normed},
    {"append(linear)", P(APPEND, APPEND, FREE, P1(LINEAR, LINEAR, FREE)), put},
    {0},
};

qgc_status qgc_pass_fuse_rope_append(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
