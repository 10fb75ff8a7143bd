#include "runtime/lab/bench.h"

#include <stdlib.h>
#include <string.h>

#include "graph/base/times.h"
#include "runtime/engine/plan_report.h"
#include "runtime/engine/stats.h"
#include "runtime/lab/probe.h"

enum { STEPS = 64, PREFILL = 512, ROOM = 16, REPEATS = 20, GENERATE_FROM = 16 };

typedef struct {
    const qgc_bench_options *o;
    qgc_bench *out;
    qgc_program *program;
    const qgc_plan *plan;
    qgc_arena *arena;
    qgc_diag *d;
    qgc_session *sessions[QGC_N_MODES];
    int32_t *tokens; /* synthetic, as many as a prompt can have */
} bench;

static double now_us(void) {
    return 1e6 * qgc_seconds();
}

static int64_t largest_position(const qgc_bench_options *o) {
    int64_t most = PREFILL;
    for (size_t i = 0; i < o->n_positions; i++)
        most = o->positions[i] > most ? o->positions[i] : most;
    return most > GENERATE_FROM + o->generate ? most : GENERATE_FROM + o->generate;
}

int64_t qgc_bench_ctx(const qgc_plan *plan, const qgc_bench_options *o) {
    const int64_t ctx = largest_position(o) + STEPS + ROOM;
    return plan->max_positions > 0 && ctx > plan->max_positions ? plan->max_positions : ctx;
}

static qgc_status open_sessions(bench *b) {
    const qgc_bench_options *o = b->o;
    const int64_t ctx = qgc_bench_ctx(b->plan, o);
    b->tokens = qgc_arena_array(b->arena, (size_t)ctx, sizeof *b->tokens);
    for (int64_t i = 0; i < ctx; i++)
        b->tokens[i] = (int32_t)((i * 7919 + 13) % b->plan->vocab);
    bool any = false;
    for (int m = 0; m < QGC_N_MODES; m++) {
        if (!o->modes[m])
            continue;
        b->out->refusal[m] = qgc_mode_refusal(b->program, (qgc_mode)m, b->arena);
        if (b->out->refusal[m])
            continue;
        const qgc_session_options session = {
            .ctx = ctx, .mode = (qgc_mode)m, .sampling = {.top_p = 1, .repeat_penalty = 1}};
        QGC_TRY(qgc_session_new(&b->sessions[m], b->program, &session, b->d));
        const qgc_phase_kind phase = qgc_session_phase(b->sessions[m]);
        b->out->kernels[m] = (int)b->plan->phases[phase].n_launches;
        b->out->early[m] = qgc_session_overlaps(b->sessions[m]) ? (int)qgc_plan_early(b->plan, phase) : 0;
        any = true;
    }
    return any ? QGC_OK
               : qgc_fail(b->d, QGC_ERR_USAGE, QGC_NO_LOC, "\"%s\" can run in none of these modes",
                          b->plan->name);
}

static qgc_status feed(const bench *b, qgc_session *s, int64_t n) {
    int32_t next;
    QGC_TRY(qgc_session_reset(s, b->d));
    return qgc_session_feed(s, b->tokens, n > 0 ? n : 1, &next, b->d);
}

/* --- steps ----------------------------------------------------------------------------------------------- */

/* The mean of a round, on the host's clock: what the host takes is in it. */
static qgc_status time_round(const bench *b, qgc_session *s, int64_t position, double *us) {
    int32_t chosen[STEPS];
    const int64_t wanted = position >= STEPS / 2 ? STEPS : position + 1, most = qgc_session_most_steps(s),
                  steps = wanted < most ? wanted : most;
    QGC_TRY(feed(b, s, position - steps / 2));
    double start = now_us();
    QGC_TRY(qgc_session_steps(s, steps, chosen, b->d));
    *us = (now_us() - start) / (double)steps;
    return QGC_OK;
}

static qgc_bench_row *add_row(bench *b, int mode, int64_t position) {
    qgc_bench *out = b->out;
    out->rows = qgc_arena_grow(b->arena, out->rows, out->n_rows, sizeof *out->rows);
    qgc_bench_row *r = &out->rows[out->n_rows++];
    *r = (qgc_bench_row){.mode = (qgc_mode)mode, .position = position};
    r->bytes = qgc_plan_step_bytes(b->plan, qgc_session_phase(b->sessions[mode]), position);
    return r;
}

/* Round after round, every mode at every position in each, so that a card that slows down slows all. */
static qgc_status time_steps(bench *b) {
    const qgc_bench_options *o = b->o;
    for (size_t i = 0; i < o->n_positions; i++)
        for (int m = 0; m < QGC_N_MODES; m++)
            if (b->sessions[m])
                add_row(b, m, o->positions[i]);
    const size_t n = b->out->n_rows, rounds = (size_t)o->rounds;
    double *us = qgc_arena_array(b->arena, n * rounds, sizeof *us);
    for (int round = -1; round < o->rounds; round++) /* one to warm up */
        for (size_t i = 0; i < n; i++) {
            const qgc_bench_row *r = &b->out->rows[i];
            double mean = 0;
            QGC_TRY(time_round(b, b->sessions[r->mode], r->position, &mean));
            if (round >= 0)
                us[i * rounds + (size_t)round] = mean;
        }
    for (size_t i = 0; i < n; i++) {
        qgc_bench_row *r = &b->out->rows[i];
        r->us = qgc_median(us + i * rounds, rounds, b->arena);
        r->low_us = qgc_percentile(us + i * rounds, rounds, 10, b->arena);
        r->high_us = qgc_percentile(us + i * rounds, rounds, 90, b->arena);
    }
    return QGC_OK;
}

/* A text as qgc run makes it: each token is looked at while the step after it runs. */
static qgc_status generate(const bench *b, qgc_session *s, double *us) {
    int32_t next;
    QGC_TRY(feed(b, s, GENERATE_FROM));
    double start = now_us();
    for (int64_t left = b->o->generate; left > 0; left--) {
        QGC_TRY(qgc_session_queue_ahead(s, left, b->d));
        QGC_TRY(qgc_session_take(s, &next, b->d));
    }
    *us = (now_us() - start) / (double)b->o->generate;
    return QGC_OK;
}

/* The best of three. */
static qgc_status time_texts(bench *b) {
    b->out->generated = b->o->generate;
    for (int m = 0; m < QGC_N_MODES && b->o->generate > 0; m++)
        for (int i = 0; i < 3 && b->sessions[m]; i++) {
            double us = 0, *best = &b->out->generate_us[m];
            QGC_TRY(generate(b, b->sessions[m], &us));
            *best = *best == 0 || us < *best ? us : *best;
        }
    return QGC_OK;
}

static qgc_session *any_session(const bench *b) {
    int m = 0;
    while (!b->sessions[m])
        m++;
    return b->sessions[m];
}

static qgc_status time_prompt(bench *b, qgc_session *s, qgc_bench_prompt *prompt) {
    for (int i = 0; i < 4; i++) { /* the first warms up */
        const double start = now_us();
        QGC_TRY(feed(b, s, prompt->tokens));
        const double us = now_us() - start;
        if (i > 0 && (prompt->us == 0 || us < prompt->us))
            prompt->us = us;
    }
    return QGC_OK;
}

/* Prompts of the usual sizes, the longer ones where there is room for them. */
static qgc_status time_prompts(bench *b) {
    static const int64_t tokens[QGC_BENCH_PROMPTS] = {512, 2048};
    qgc_session *s = any_session(b);
    QGC_TRY(qgc_session_reset(s, b->d));
    const int64_t room = qgc_session_room(s);
    for (int i = 0; i < QGC_BENCH_PROMPTS && (i == 0 || tokens[i] <= room); i++) {
        b->out->prompts[i].tokens = tokens[i] < room ? tokens[i] : room;
        QGC_TRY(time_prompt(b, s, &b->out->prompts[i]));
    }
    return QGC_OK;
}

/* --- kernels --------------------------------------------------------------------------------------------- */

const char *qgc_bench_node(const qgc_plan_launch *l, qgc_arena *a) {
    const char *node = l->node, *space = strrchr(node, ' '), *from = space ? space + 1 : node;
    if (strchr(node, ' ') != space) /* "the end of the step" */
        from = node;
    return qgc_arena_strndup(a, from, strcspn(from, "["));
}

const char *qgc_bench_file(const qgc_plan *plan, const qgc_plan_launch *l) {
    return l->kind == QGC_LAUNCH_GEMM ? "cuBLAS" : plan->kernels[l->kernel].name;
}

static int by_time(const void *a, const void *b) {
    const qgc_bench_kernel *x = a, *y = b;
    return x->us < y->us ? 1 : x->us > y->us ? -1 : strcmp(x->node, y->node);
}

/* Marks the launches that are of one kind with the first that is not done yet; false when all are. */
static bool next_kind(const bench *b, const qgc_phase *p, bool *done, bool *wanted, qgc_bench_kernel *k,
                      int64_t position) {
    memset(wanted, 0, p->n_launches * sizeof *wanted);
    for (size_t i = 0; i < p->n_launches; i++) {
        const qgc_plan_launch *l = &p->launches[i];
        const char *node = qgc_bench_node(l, b->arena), *kernel = qgc_bench_file(b->plan, l);
        if (done[i] || (k->count > 0 && (strcmp(k->node, node) != 0 || strcmp(k->kernel, kernel) != 0)))
            continue;
        k->node = node;
        k->kernel = kernel;
        k->count++;
        k->bytes += l->weight_bytes + l->position_bytes * position;
        done[i] = wanted[i] = true;
    }
    return k->count > 0;
}

/* Launches of one kind are counted together. */
static void add_kernel(bench *b, const qgc_bench_kernel *k) {
    qgc_bench *out = b->out;
    for (size_t i = 0; i < out->n_parts; i++) {
        qgc_bench_kernel *x = &out->parts[i];
        if (x->mode != k->mode || strcmp(x->node, k->node) != 0 || strcmp(x->kernel, k->kernel) != 0)
            continue;
        x->count += k->count;
        x->us += k->us;
        x->bytes += k->bytes;
        return;
    }
    out->parts = qgc_arena_grow(b->arena, out->parts, out->n_parts, sizeof *out->parts);
    out->parts[out->n_parts++] = *k;
}

/* The launches of one kind in all layers, one after the other: by the time the first comes again its weights have left
 * the L2 cache, if all of them are more than fit into it. */
static qgc_status time_alone(bench *b, qgc_mode mode, int64_t position) {
    qgc_session *s = b->sessions[mode];
    const qgc_phase *p = &b->plan->phases[qgc_session_phase(s)];
    bool *done = qgc_arena_array(b->arena, p->n_launches, sizeof *done);
    bool *wanted = qgc_arena_array(b->arena, p->n_launches, sizeof *wanted);
    for (qgc_bench_kernel k = {.mode = mode}; next_kind(b, p, done, wanted, &k, position);
         k = (qgc_bench_kernel){.mode = mode}) {
        QGC_TRY(feed(b, s, position)); /* the last one may have moved the position */
        QGC_TRY(qgc_session_time(s, wanted, REPEATS, &k.us, b->d));
        add_kernel(b, &k);
    }
    return QGC_OK;
}

/* The beginnings of the step, each longer than the last by one launch. A mean of many, for it is a difference that counts. */
static qgc_status time_in_order(bench *b, qgc_mode mode, int64_t position) {
    enum { MORE = 5 };
    qgc_session *s = b->sessions[mode];
    const qgc_phase *p = &b->plan->phases[qgc_session_phase(s)];
    bool *wanted = qgc_arena_array(b->arena, p->n_launches, sizeof *wanted);
    double before = 0;
    for (size_t i = 0; i < p->n_launches; i++) {
        const qgc_plan_launch *l = &p->launches[i];
        double us = 0;
        wanted[i] = true;
        QGC_TRY(feed(b, s, position));
        QGC_TRY(qgc_session_time(s, wanted, MORE * REPEATS, &us, b->d));
        add_kernel(b, &(qgc_bench_kernel){.mode = mode,
                                          .node = qgc_bench_node(l, b->arena),
                                          .kernel = qgc_bench_file(b->plan, l),
                                          .count = 1,
                                          .us = us - before,
                                          .bytes = l->weight_bytes + l->position_bytes * position});
        before = us;
    }
    return QGC_OK;
}

bool qgc_bench_in_order(qgc_mode mode) {
    return mode == QGC_MODE_PERSISTENT;
}

static qgc_status time_kernels(bench *b, qgc_mode mode, int64_t position) {
    const size_t first = b->out->n_parts;
    QGC_TRY(qgc_bench_in_order(mode) ? time_in_order(b, mode, position) : time_alone(b, mode, position));
    if (b->out->n_parts > first)
        qsort(b->out->parts + first, b->out->n_parts - first, sizeof *b->out->parts, by_time);
    return QGC_OK;
}

/* Of graph mode, whose kernels those of pdl and stream mode are, and of persistent mode. */
static qgc_status time_all_kernels(bench *b) {
    if (!b->o->kernels)
        return QGC_OK;
    const int64_t room = qgc_session_room(any_session(b)) + qgc_session_position(any_session(b));
    b->out->kernel_position = room > PREFILL + STEPS ? PREFILL : room / 2;
    for (int m = QGC_MODE_GRAPH; m >= QGC_MODE_STREAM; m--)
        if (b->sessions[m]) {
            QGC_TRY(time_kernels(b, (qgc_mode)m, b->out->kernel_position));
            break;
        }
    return b->sessions[QGC_MODE_PERSISTENT] ? time_kernels(b, QGC_MODE_PERSISTENT, b->out->kernel_position)
                                            : QGC_OK;
}

/* --- parts of the persistent kernel ---------------------------------------------------------------------- */

enum { TRACED_STEPS = 16 };

/* The sums of all steps and blocks, [n_parts][QGC_TRACE_WORDS], in the order of a launch's trace. */
typedef struct {
    const qgc_plan_launch *launch;
    size_t words; /* of a block */
    double *sums;
} traced;

static traced new_trace(const bench *b) {
    const qgc_plan *plan = qgc_program_plan(b->o->traced);
    traced t = {.launch = qgc_phase_parts(&plan->phases[QGC_PHASE_PERSISTENT])};
    t.words = t.launch ? (size_t)t.launch->n_parts * QGC_TRACE_WORDS : 0;
    t.sums = qgc_arena_array(b->arena, t.words, sizeof *t.sums);
    return t;
}

static qgc_status trace_steps(bench *b, qgc_session *s, traced *t) {
    const int sms = qgc_device_about(qgc_program_device(b->program))->sms;
    const size_t blocks = (size_t)(sms < QGC_TRACE_BLOCKS ? sms : QGC_TRACE_BLOCKS), n = blocks * t->words;
    const int buffer = qgc_program_plan(b->o->traced)->trace;
    uint32_t *trace = qgc_arena_array(b->arena, n, sizeof *trace);
    QGC_TRY(feed(b, s, b->out->kernel_position));
    for (int i = 0; i < TRACED_STEPS; i++) {
        int32_t next;
        QGC_TRY(qgc_session_step(s, &next, b->d));
        QGC_TRY(qgc_session_read(s, buffer, trace, n * sizeof *trace, b->d));
        for (size_t k = 0; k < n; k++)
            t->sums[k % t->words] += trace[k];
    }
    return QGC_OK;
}

/* Cycles become shares of the time that the kernel takes when it does not trace. */
static void put_trace(bench *b, const traced *t) {
    const qgc_plan *plan = qgc_program_plan(b->o->traced);
    const qgc_plan_launch *l = t->launch;
    double cycles = 0, us = 0;
    for (int i = 0; i < l->n_parts; i++)
        cycles += t->sums[(size_t)i * QGC_TRACE_WORDS + QGC_TRACE_CYCLES];
    for (size_t i = 0; i < b->out->n_parts; i++)
        if (b->out->parts[i].mode == QGC_MODE_PERSISTENT &&
            strcmp(b->out->parts[i].kernel, qgc_bench_file(plan, l)) == 0)
            us = b->out->parts[i].us;
    b->out->trace = qgc_arena_array(b->arena, (size_t)l->n_parts, sizeof *b->out->trace);
    b->out->n_trace = (size_t)l->n_parts;
    for (int i = 0; i < l->n_parts; i++) {
        const double *sums = &t->sums[(size_t)i * QGC_TRACE_WORDS];
        b->out->trace[i] = (qgc_bench_part){.name = l->parts[i].name,
                                            .us = us * sums[QGC_TRACE_CYCLES] / cycles,
                                            .activations_us = us * sums[QGC_TRACE_ACTIVATIONS] / cycles,
                                            .weights_us = us * sums[QGC_TRACE_WEIGHTS] / cycles,
                                            .bytes = l->parts[i].weight_bytes +
                                                     l->parts[i].position_bytes * b->out->kernel_position};
    }
}

/* When the other sessions are gone, for each in this mode has a copy of the weights. */
static qgc_status trace_parts(bench *b) {
    qgc_session *s;
    traced t = new_trace(b);
    if (!t.launch || qgc_program_plan(b->o->traced)->trace < 0)
        return QGC_OK;
    const qgc_session_options o = {.ctx = b->out->kernel_position + TRACED_STEPS + ROOM,
                                   .mode = QGC_MODE_PERSISTENT,
                                   .sampling = {.top_p = 1, .repeat_penalty = 1}};
    QGC_TRY(qgc_session_new(&s, b->o->traced, &o, b->d));
    qgc_status status = trace_steps(b, s, &t);
    qgc_session_drop(s);
    if (status == QGC_OK)
        put_trace(b, &t);
    return status;
}

static qgc_status run_all(bench *b) {
    qgc_device *dev = qgc_program_device(b->program);
    QGC_TRY(qgc_probe_bandwidth(dev, qgc_program_arch(b->program), &b->out->bandwidth, &b->out->probe_bytes,
                                b->d));
    QGC_TRY(open_sessions(b));
    QGC_TRY(time_steps(b));
    QGC_TRY(time_texts(b));
    QGC_TRY(time_prompts(b));
    return time_all_kernels(b);
}

qgc_status qgc_bench_run(qgc_bench *out, qgc_program *p, const qgc_bench_options *o, qgc_diag *d) {
    const qgc_device_info *info = qgc_device_about(qgc_program_device(p));
    *out = (qgc_bench){.model = qgc_program_plan(p)->name,
                       .device = info->name,
                       .arch = qgc_program_arch(p),
                       .driver = info->driver_version,
                       .probe = o->probe,
                       .l2_bytes = info->l2_bytes};
    bench b = {.o = o, .out = out, .program = p, .plan = qgc_program_plan(p), .arena = d->arena, .d = d};
    qgc_status s = run_all(&b);
    const bool traces = o->traced && o->kernels && b.sessions[QGC_MODE_PERSISTENT];
    for (int m = 0; m < QGC_N_MODES; m++)
        qgc_session_drop(b.sessions[m]);
    return s == QGC_OK && traces ? trace_parts(&b) : s;
}
