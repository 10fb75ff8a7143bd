#include "passes/rewrite.h"

/* Each block of the head's product finds the largest of the logits that it makes: the first half of sampling, for one
 * launch less and without reading the logits again. Some models scale or cap their logits first. */

enum { HEAD, PART, LOGITS };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "head", (qgc_node *[]){m->node[HEAD], m->node[PART]}, 2);
}

static bool apply_changed(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "head", (qgc_node *[]){m->node[HEAD], m->node[LOGITS], m->node[PART]}, 3);
}

static const qgc_rule rules[] = {
    {"sample_part(linear)", P(PART, SAMPLE_PART, P(HEAD, LINEAR, FREE)), apply},
    {"sample_part(scale(linear))", P(PART, SAMPLE_PART, P(LOGITS, SCALE, P1(HEAD, LINEAR, FREE))),
     apply_changed},
    {"sample_part(softcap(linear))", P(PART, SAMPLE_PART, P(LOGITS, SOFTCAP, P1(HEAD, LINEAR, FREE))),
     apply_changed},
    {0},
};

qgc_status qgc_pass_fuse_head_sample(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
