#include "passes/rewrite.h"

/* Each block of the head's product finds the largest of the logits that it makes: the first half of sampling, for one
 * launch less and without reading the logits again. */

enum { HEAD, PART };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "head", (qgc_node *[]){m->node[HEAD], m->node[PART]}, 2);
}

static const qgc_rule rules[] = {
    {"sample_part(linear)", P(PART, SAMPLE_PART, P(HEAD, LINEAR, FREE)), apply},
    {0},
};

qgc_status qgc_pass_fuse_head_sample(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
