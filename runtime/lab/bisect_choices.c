#include "graph/eval.h"
#include "runtime/lab/bisect_impl.h"
#include "runtime/lab/judge_impl.h"

/* The kernels that choose a token compute in whole numbers after one exponential, so from the same logits they choose what the
 * reference chooses, whatever the settings. Logits are compared elsewhere; here they are those of the device. */

typedef struct {
    bisect_side *s;
    const qgc_node *node; /* that makes the choice */
    float *logits;        /* [vocab] of the last step */
    int32_t *seen;        /* [vocab] */
    qgc_arena *arena;
} choosing;

static bool chooses_from_logits(const qgc_graph *g, const qgc_node *n) {
    return n && (n->op == QGC_OP_SAMPLE || n->op == QGC_OP_SAMPLE_MERGE) &&
           n->in[0] == qgc_graph_output(g, "logits");
}

static int32_t reference(const choosing *c, int32_t position, const qgc_sampling *settings) {
    const qgc_node node = {.op = QGC_OP_SAMPLE, .n_in = 4, .n_out = 1};
    int32_t row = 0, next = -1;
    const qgc_operand vector = {.dtype = QGC_I32, .rank = 1, .dim = {1}};
    qgc_call call = {.node = &node, .sampling = settings, .ctx = 1, .scratch = c->arena};
    call.in[0] = (qgc_operand){
        .dtype = QGC_F32, .rank = 2, .dim = {1, c->s->vocab}, .data = c->logits, .is_real = true};
    call.in[1] = call.in[2] = call.in[3] = call.out[0] = vector;
    call.in[1].data = &row;
    call.in[2].data = &position;
    call.in[3].data = c->seen;
    call.in[3].dim[0] = c->s->vocab;
    call.out[0].data = &next;
    qgc_ops[QGC_OP_SAMPLE].ref(&call);
    return next;
}

static qgc_status next_of(const choosing *c, int32_t *next, qgc_diag *d) {
    const float *at;
    int64_t n;
    bool kept;
    QGC_TRY(qgc_trial_value(c->s->trial, c->node->out[0], &at, &n, &kept, d));
    *next = kept ? (int32_t)at[0] : -1;
    return QGC_OK;
}

static void tell(const choosing *c, int64_t position, const qgc_sampling *settings, int32_t got, int32_t want,
                 qgc_bisection *out, qgc_arena *a) {
    qgc_str where = qgc_str_new(a);
    qgc_str_add(&where, "in a decode step");
    judge_settings_text(settings, &where);
    *out = (qgc_bisection){.verdict = QGC_BISECT_WRONG,
                           .mode = out->mode,
                           .n_passes = out->n_passes,
                           .all = out->all,
                           .evaluated = out->evaluated,
                           .by_kernels = true,
                           .value = qgc_arena_strdup(a, qgc_value_label(c->node->out[0], a)),
                           .node = bisect_node_text(c->node, a),
                           .place = bisect_place(c->node->at, a),
                           .position = position,
                           .not_written = "the choice is wrong of logits that are right"};
    out->why = qgc_arena_printf(
        a, "at position %lld %s the device chooses token %d, and of the same logits %d is chosen",
        (long long)position, where.text, got, want);
}

/* The text under one kind of settings. */
static qgc_status look(choosing *c, const int32_t *tokens, int64_t positions, const qgc_sampling *settings,
                       qgc_bisection *out, qgc_diag *d) {
    QGC_TRY(qgc_trial_reset(c->s->trial, d));
    QGC_TRY(qgc_trial_set_sampling(c->s->trial, settings, d));
    for (int64_t i = 0; i < c->s->vocab; i++)
        c->seen[i] = 0;
    for (int64_t i = 0; i < positions; i++) {
        int32_t got;
        QGC_TRY(qgc_trial_step(c->s->trial, tokens[i], c->logits, d));
        QGC_TRY(next_of(c, &got, d));
        c->seen[tokens[i]] = 1;
        const int32_t want = reference(c, (int32_t)i, settings);
        if (got < 0 || got == want)
            continue;
        tell(c, i, settings, got, want, out, d->arena);
        return QGC_OK;
    }
    return QGC_OK;
}

qgc_status bisect_choices(bisect_side *s, const int32_t *tokens, int64_t positions, qgc_bisection *out,
                          qgc_diag *d) {
    const qgc_value *next = qgc_graph_output(s->graph, "next");
    choosing c = {.s = s, .node = next ? next->maker : NULL};
    if (!chooses_from_logits(s->graph, c.node))
        return QGC_OK;
    c.arena = qgc_arena_new();
    c.logits = qgc_arena_array(c.arena, (size_t)s->vocab, sizeof *c.logits);
    c.seen = qgc_arena_array(c.arena, (size_t)s->vocab, sizeof *c.seen);
    qgc_status status = QGC_OK;
    for (int lane = 0; lane < JUDGE_LANES && status == QGC_OK && out->verdict != QGC_BISECT_WRONG; lane++)
        status = look(&c, tokens, positions, &judge_sampling[lane], out, d);
    qgc_arena_drop(c.arena);
    return status;
}
