#include "tests/kernels/replay.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "codegen/card.h"
#include "graph/base/hash.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/lab/random_weights.h"
#include "runtime/session.h"
#include "tests/kernels/cpu_kernels.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"
#include "tests/support/random.h"

enum { SEED = 1, STEPS = 4, TOGETHER = 8, CTX = REPLAY_LONG + TOGETHER };

/* A token that was seen is the more likely to come again: so who forgets that it was chooses another. */
static const qgc_sampling greedy = {.top_p = 1, .repeat_penalty = 0.5f};

static void must(replay *r, qgc_status status) {
    if (status != QGC_OK)
        fail_msg("%s:\n%s", r->name, qgc_test_printed(r->arena, &r->diag));
}

/* In the place of one of the same name. */
static void add_option(replay *r, const char *kernel, const char *option) {
    const size_t name = strcspn(option, "=") + 1;
    for (size_t i = 0; i < r->lowered.plan->n_kernels; i++) {
        qgc_kernel_job *job = &r->lowered.jobs[i];
        if (strcmp(r->lowered.plan->kernels[i].entry, kernel) != 0)
            continue;
        const char **options = qgc_arena_array(r->arena, (size_t)job->n_options + 1, sizeof *options);
        memcpy(options, job->options, (size_t)job->n_options * sizeof *options);
        int at = 0;
        while (at < job->n_options && strncmp(options[at], option, name) != 0)
            at++;
        options[at] = option;
        job->n_options += at == job->n_options;
        job->options = options;
    }
}

/* As if the GPU had less shared memory. */
static void limit_shared(qgc_plan *p, int bytes) {
    for (size_t i = 0; i < p->n_kernels; i++) {
        qgc_plan_kernel *k = &p->kernels[i];
        if (k->least_shared_bytes && bytes)
            k->shared_bytes = bytes > k->least_shared_bytes ? bytes : k->least_shared_bytes;
    }
}

static void lower(replay *r, const replay_of *of) {
    const qgc_lower_options options = {.chunk = REPLAY_CHUNK,
                                       .long_chunk = of->long_chunk,
                                       .least_arch = of->arch,
                                       .all_rows = of->all_rows,
                                       .most_shared_bytes = qgc_arch_shared_bytes(of->arch)};
    must(r, qgc_lower(r->graph, &options, &r->lowered, &r->diag));
    r->lowered.plan->graph = r->lowered.plan->source = "";
    r->lowered.plan->compiler = "the compiler of this machine";
    limit_shared(r->lowered.plan, of->shared_bytes);
    add_option(r, "persistent", "-DALONE=16"); /* else attention is not divided at REPLAY_LONG positions */
    for (int i = 0; i < REPLAY_OPTIONS; i++)
        if (of->options[i])
            add_option(r, "persistent", of->options[i]);
    cpu_kernels_build(&r->lowered, of->arch == 90 ? "sm_90a" : qgc_arena_printf(r->arena, "sm_%d", of->arch),
                      r->arena);
    must(r, qgc_plan_check(r->lowered.plan, r->graph->at, &r->diag));
}

replay replay_new(const replay_of *of) {
    qgc_arena *a = qgc_arena_new();
    replay r = {.arena = a,
                .diag = qgc_diag_new(a),
                .pool = qgc_pool_new(0),
                .arch = of->arch,
                .sms = of->sms,
                .together = of->together};
    r.name = qgc_arena_printf(a, "for sm_%d, passes \"%s\"", of->arch, of->passes ? of->passes : "as usual");
    if (of->weights) {
        must(&r, qgc_weights_open(&r.weights, of->weights, &r.diag));
        must(&r, qgc_graph_load_for(&r.graph, of->yaml, r.weights, a, &r.diag));
    } else {
        must(&r, qgc_graph_load_text(&r.graph, "model.yaml", of->yaml, strlen(of->yaml), a, &r.diag));
        must(&r, qgc_random_weights_open(&r.weights, r.graph, NULL, SEED, &r.diag));
    }
    must(&r, qgc_graph_bind(r.graph, r.weights, false, &r.tensors, &r.diag));
    qgc_pass_report report;
    must(&r, qgc_passes_run(r.graph,
                            &(qgc_pass_options){.passes = of->passes, .skip = of->sms ? NULL : "persistent"},
                            &report, &r.diag));
    lower(&r, of);
    return r;
}

void replay_drop(replay *r) {
    qgc_weights_close(r->weights);
    qgc_pool_drop(r->pool);
    qgc_arena_drop(r->arena);
}

/* --- one run on both ways -------------------------------------------------------------------------------- */

typedef struct {
    replay *r;
    qgc_session *session;
    qgc_eval *eval;
    int64_t position, vocab;
    double logits; /* differences so far */
    int tokens;
    uint64_t bits;
} run;

static double larger(double a, double b) {
    return a > b ? a : b;
}

/* The largest difference of n numbers, relative to the largest of `want`. */
static double difference(const float *got, const float *want, int64_t n) {
    double most = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double by = fabs((double)got[i] - want[i]);
        most = by <= most ? most : isnan(by) ? HUGE_VAL : by;
        largest = larger(largest, fabs((double)want[i]));
    }
    return largest > 0 ? most / largest : most;
}

/* The evaluator takes n tokens, as the session has; then both have chosen a token and left logits. */
static void follow(run *x, const int32_t *tokens, int64_t n, int32_t next) {
    int64_t elems;
    must(x->r, qgc_eval_step(x->eval, tokens, n, x->position, false, &x->r->diag));
    x->position += n;
    const float *want = qgc_eval_value(x->eval, qgc_graph_output(x->r->graph, "logits"), &elems);
    const int32_t *chosen = qgc_eval_value(x->eval, qgc_graph_output(x->r->graph, "next"), &elems);
    float *got = qgc_arena_array(x->r->arena, (size_t)x->vocab, sizeof *got);
    must(x->r, qgc_session_logits(x->session, got, &x->r->diag));
    x->logits = larger(x->logits, difference(got, want, x->vocab));
    x->tokens += next != *chosen;
    x->bits = 31 * x->bits + qgc_hash64(got, (size_t)x->vocab * sizeof *got);
}

/* Rows of a cache [heads, ctx, dim] that were written so far; the rest is compared as well, both are 0 there. */
static double state_difference(run *x, const qgc_value *v, int buffer) {
    qgc_arena *a = x->r->arena;
    int64_t elems;
    const void *want = qgc_eval_value(x->eval, v, &elems);
    const size_t bytes = qgc_dtype_bytes(v->dtype, elems);
    void *got = qgc_arena_alloc(a, bytes);
    must(x->r, qgc_session_read(x->session, buffer, got, bytes, &x->r->diag));
    if (v->dtype == QGC_I32)
        return memcmp(got, want, bytes) == 0 ? 0 : HUGE_VAL;
    float *g = qgc_arena_array(a, (size_t)elems, sizeof *g),
          *w = qgc_arena_array(a, (size_t)elems, sizeof *w);
    qgc_to_f32(v->dtype, got, g, elems);
    qgc_to_f32(v->dtype, want, w, elems);
    return difference(g, w, elems);
}

static double states_difference(run *x) {
    double worst = 0;
    const qgc_graph *g = x->r->graph;
    for (size_t s = 0; s < g->n_states; s++)
        for (int i = 0; i < g->states[s].count; i++) {
            const qgc_value *v = g->states[s].values[i];
            worst = larger(worst, state_difference(x, v, x->r->lowered.buffers[v->id]));
        }
    return worst;
}

static void begin(run *x, qgc_program *program, qgc_prefill prefill, qgc_mode mode) {
    replay *r = x->r;
    const qgc_session_options o = {.ctx = CTX, .mode = mode, .prefill = prefill, .sampling = greedy};
    must(r, qgc_session_new(&x->session, program, &o, &r->diag));
    x->eval = qgc_eval_new(r->graph, r->tensors, CTX, (int64_t)qgc_plan_largest(x->r->lowered.plan).tokens,
                           r->pool);
    qgc_eval_set_sampling(x->eval, &greedy);
    x->vocab = r->lowered.plan->vocab;
}

static void end(run *x) {
    qgc_eval_drop(x->eval);
    qgc_session_drop(x->session);
}

static void fill_prompt(int32_t prompt[REPLAY_LONG], int64_t vocab) {
    uint64_t seed = 7;
    for (int i = 0; i < REPLAY_LONG; i++)
        prompt[i] = (int32_t)(test_random(&seed) % (uint64_t)vocab);
}

/* A prompt, `chunk` tokens at a time; returns the token after it. */
static int32_t take_prompt(run *x, int tokens, int chunk) {
    int32_t prompt[REPLAY_LONG], next = -1;
    assert(tokens <= REPLAY_LONG);
    fill_prompt(prompt, x->vocab);
    for (int done = 0; done < tokens; done += chunk) {
        const int n = tokens - done < chunk ? tokens - done : chunk;
        must(x->r, qgc_session_feed(x->session, prompt + done, n, &next, &x->r->diag));
        follow(x, prompt + done, n, next);
    }
    return next;
}

/* What each step chose is the next one's token, on both ways: so a token that is none ends them. */
static void take_steps(run *x, int32_t next) {
    for (int i = 0; i < STEPS; i++) {
        if (next < 0 || next >= x->vocab) {
            x->tokens++;
            return;
        }
        const int32_t token = next;
        must(x->r, qgc_session_step(x->session, &next, &x->r->diag));
        follow(x, &token, 1, next);
    }
}

/* The same without the host in between; logits are those after the last step. */
static void take_steps_together(run *x, int32_t next) {
    int32_t chosen[TOGETHER];
    if (next < 0 || next >= x->vocab) {
        x->tokens++;
        return;
    }
    must(x->r, qgc_session_steps(x->session, TOGETHER, chosen, &x->r->diag));
    for (int i = 0; i + 1 < TOGETHER; i++) {
        const int32_t token = i ? chosen[i - 1] : next;
        int64_t elems;
        must(x->r, qgc_eval_step(x->eval, &token, 1, x->position++, false, &x->r->diag));
        const int32_t *want = qgc_eval_value(x->eval, qgc_graph_output(x->r->graph, "next"), &elems);
        x->tokens += chosen[i] != *want;
    }
    follow(x, &chosen[TOGETHER - 2], 1, chosen[TOGETHER - 1]);
}

static void by_chunks(replay *r, qgc_program *program, int tokens, apart *out) {
    run x = {.r = r};
    begin(&x, program, r->sms ? QGC_PREFILL_PACKED : QGC_PREFILL_CHUNKS,
          r->sms ? QGC_MODE_PERSISTENT : QGC_MODE_STREAM);
    take_steps(&x, take_prompt(&x, tokens, (int)qgc_plan_largest(r->lowered.plan).tokens));
    out->prefilled_logits = x.logits;
    out->prefilled_states = states_difference(&x);
    out->tokens += x.tokens;
    out->bits = 31 * out->bits + x.bits;
    end(&x);
}

static void by_steps(replay *r, qgc_program *program, int tokens, apart *out) {
    run x = {.r = r};
    begin(&x, program, QGC_PREFILL_STEPS, r->sms ? QGC_MODE_PERSISTENT : QGC_MODE_GRAPH);
    (r->together ? take_steps_together : take_steps)(&x, take_prompt(&x, tokens, 1));
    out->logits = x.logits;
    out->states = states_difference(&x);
    out->tokens += x.tokens;
    out->bits = 31 * out->bits + x.bits;
    end(&x);
}

/* Where a program has no weights as they are stored, its stream is made from the file. */
apart replay_compare(replay *r, const replay_run *what) {
    const qgc_program_options options = {.later = r->sms > 0};
    qgc_device *device = cpu_device_new(r->arch, r->sms ? r->sms : 1, &what->order);
    qgc_program *program;
    apart out = {0};
    must(r, qgc_program_load(&program, r->lowered.plan, device, r->weights, r->pool, &options, &r->diag));
    if (r->sms && what->chunks && what->steps == 0) /* from the device, instead */
        must(r, qgc_program_want(program, false, &r->diag));
    if (what->chunks)
        by_chunks(r, program, what->chunks, &out);
    if (what->steps)
        by_steps(r, program, what->steps, &out);
    qgc_program_drop(program);
    qgc_device_close(device);
    return out;
}

/* The rows of n tokens, which are not read all at once. */
static void take_rows(run *x, const int32_t *tokens, int n, int shift) {
    qgc_diag *d = &x->r->diag;
    const int half = n > 1 ? n / 2 : 1;
    int64_t elems;
    float *got = qgc_arena_array(x->r->arena, (size_t)(n * x->vocab), sizeof *got);
    must(x->r, qgc_session_feed_rows(x->session, tokens, n, d));
    must(x->r, qgc_session_read_rows(x->session, 0, half, got, d));
    if (n > half)
        must(x->r, qgc_session_read_rows(x->session, half, n - half, got + half * x->vocab, d));
    must(x->r, qgc_eval_step(x->eval, tokens, n, x->position, true, d));
    const float *want = qgc_eval_value(x->eval, qgc_graph_output(x->r->graph, "logits"), &elems);
    assert_int_equal(elems, n * x->vocab);
    for (int i = 0; i + shift < n; i++)
        x->logits =
            larger(x->logits, difference(got + i * x->vocab, want + (i + shift) * x->vocab, x->vocab));
    x->position += n;
}

int replay_beside(const replay *r) {
    const qgc_plan *plan = r->lowered.plan;
    const qgc_phase *phase = &plan->phases[QGC_PHASE_PACKED_PREFILL];
    int n = 0;
    for (size_t i = 0; i < phase->n_launches; i++) {
        const qgc_plan_launch *l = &phase->launches[i];
        if (l->kind != QGC_LAUNCH_KERNEL || !strstr(plan->kernels[l->kernel].options, "-DBESIDE=1"))
            continue;
        if (!l->early)
            fail_msg("\"%s\" starts late: %s", l->node, l->not_early);
        assert_int_equal(l->args[0].buffer, phase->launches[i - 1].args[0].buffer);
        for (int k = 0; k < l->n_args; k++)
            assert_true(!l->args[k].access || (l->args[k].access & QGC_EARLY));
        n++;
    }
    return n;
}

double replay_compare_rows(replay *r, int order, int shift) {
    qgc_device *device = cpu_device_new(r->arch, 1, &order);
    qgc_program *program;
    int32_t prompt[REPLAY_LONG];
    run x = {.r = r};
    must(r, qgc_program_load(&program, r->lowered.plan, device, r->weights, r->pool,
                             &(qgc_program_options){0}, &r->diag));
    begin(&x, program, QGC_PREFILL_CHUNKS, QGC_MODE_STREAM);
    fill_prompt(prompt, x.vocab);
    for (int done = 0; done < REPLAY_LONG; done += REPLAY_CHUNK)
        take_rows(&x, prompt + done, REPLAY_LONG - done < REPLAY_CHUNK ? REPLAY_LONG - done : REPLAY_CHUNK,
                  shift);
    end(&x);
    qgc_program_drop(program);
    qgc_device_close(device);
    return x.logits;
}

bool replay_agrees(const apart *a) {
    return a->tokens == 0 && a->logits <= 3e-4 && a->states <= 4e-3 && a->prefilled_logits <= 2e-2 &&
           a->prefilled_states <= 2e-2;
}
