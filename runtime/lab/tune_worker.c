#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/str.h"
#include "runtime/engine/prepare.h"
#include "runtime/lab/tune_impl.h"
#include "runtime/session.h"
#include "runtime/stand_in.h"

enum { CHUNK = 512, CHECKED = 8, STEPS = 32, TURNS = 9, ROOM = 64 };

/* Logits of a candidate, by the largest. */
static const double TOLERANCE = 2e-3;

typedef struct {
    qgc_arena *arena;
    qgc_program *program;
    qgc_session *session;
    qgc_compiled compiled;
} build;

typedef struct {
    const qgc_tune_options *o;
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_device *device;
    qgc_tuning tuning; /* of the best so far */
    const char *arch;
    qgc_mode mode;
    build best;
    int32_t *prompt;
    float *want, *got;
    FILE *in, *out;
} worker;

/* An error as one line. */
static const char *message(worker *w) {
    char *text = qgc_arena_strdup(w->arena, qgc_diag_message(&w->diag));
    for (char *p = text; *p; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
    return text;
}

static void drop(build *b) {
    qgc_session_drop(b->session);
    qgc_program_drop(b->program);
    *b = (build){0};
}

static qgc_status make(worker *w, const qgc_tuning *tuning, build *b) {
    *b = (build){0};
    qgc_program *first = w->best.program; /* NULL: this is it */
    const qgc_prepare_options prepare = {.device = w->device,
                                         .weights = w->o->weights,
                                         .pool = w->pool,
                                         .arch = w->arch,
                                         .cache_folder = w->o->cache_folder,
                                         .chunk = CHUNK,
                                         .tuning = tuning,
                                         .allow_unused = true,
                                         .share = first};
    QGC_TRY(qgc_prepare(&b->program, &b->compiled, w->o->graph, &prepare, &w->diag));
    const int64_t ctx = w->o->position + CHECKED + 2 * (int64_t)TURNS * STEPS + ROOM;
    if (!first && strcmp(w->o->mode, "auto") == 0)
        w->mode = qgc_mode_fastest(b->program, ctx, w->arena).mode;
    const qgc_session_options session = {
        .ctx = ctx, .mode = w->mode, .sampling = {.top_p = 1, .repeat_penalty = 1}};
    return qgc_session_new(&b->session, b->program, &session, &w->diag);
}

static qgc_status begin(worker *w) {
    if (strcmp(w->o->mode, "auto") != 0)
        QGC_TRY(qgc_mode_named(w->o->mode, &w->mode, &w->diag));
    QGC_TRY(qgc_device_open(&w->device, w->o->gpu, &w->diag));
    w->arch = qgc_program_arch_for(w->device, w->arena);
    if (w->tuning.arch && strcmp(w->tuning.arch, w->arch) != 0)
        return qgc_fail(&w->diag, QGC_ERR_USAGE, QGC_NO_LOC, "the tuning is for %s, and the GPU is %s",
                        w->tuning.arch, w->arch);
    QGC_TRY(make(w, &w->tuning, &w->best));
    const int64_t vocab = w->best.compiled.plan->vocab;
    w->want = qgc_arena_array(w->arena, (size_t)vocab, sizeof *w->want);
    w->got = qgc_arena_array(w->arena, (size_t)vocab, sizeof *w->got);
    w->prompt = qgc_arena_array(w->arena, (size_t)w->o->position + 1, sizeof *w->prompt);
    for (int64_t i = 0; i <= w->o->position; i++)
        w->prompt[i] = (int32_t)((i * 7919 + 13) % vocab);
    return QGC_OK;
}

static bool is_of_mode(const worker *w, const char *kernel) {
    const bool persistent = strncmp(kernel, "persistent.cu", strlen("persistent.cu")) == 0;
    return persistent == (w->mode == QGC_MODE_PERSISTENT) && (!w->o->only || strstr(kernel, w->o->only));
}

static void introduce(worker *w) {
    const qgc_card card = qgc_card_of_device(w->device, w->arena);
    fprintf(w->out, "arch\t%s\ncard\t%s\n", w->arch, qgc_card_key(&card, w->arena));
    for (size_t i = 0; i < w->best.compiled.n_knobs; i++) {
        const qgc_knob *k = &w->best.compiled.knobs[i];
        if (!is_of_mode(w, k->kernel))
            continue;
        fprintf(w->out, "knob\t%s\t%s\t%lld\t", k->kernel, k->name, (long long)k->value);
        for (const int64_t *c = k->candidates; *c; c++)
            fprintf(w->out, "%s%lld", c == k->candidates ? "" : ",", (long long)*c);
        fputc('\n', w->out);
    }
    fputs("ready\n", w->out);
}

static qgc_status feed(worker *w, qgc_session *s) {
    int32_t next;
    QGC_TRY(qgc_session_reset(s, &w->diag));
    return qgc_session_feed(s, w->prompt, w->o->position > 0 ? w->o->position : 1, &next, &w->diag);
}

/* The largest difference of logits over a few steps on the same tokens, by the largest logit; NaN where there is one. */
static qgc_status difference(worker *w, qgc_session *s, double *worst) {
    const int64_t vocab = w->best.compiled.plan->vocab;
    *worst = 0;
    QGC_TRY(feed(w, w->best.session));
    QGC_TRY(feed(w, s));
    for (int i = 0; i < CHECKED; i++) {
        const int32_t token = (int32_t)((i * 104729 + 7) % vocab);
        int32_t next;
        QGC_TRY(qgc_session_feed(w->best.session, &token, 1, &next, &w->diag));
        QGC_TRY(qgc_session_logits(w->best.session, w->want, &w->diag));
        QGC_TRY(qgc_session_feed(s, &token, 1, &next, &w->diag));
        QGC_TRY(qgc_session_logits(s, w->got, &w->diag));
        double largest = 0, most = 0;
        for (int64_t v = 0; v < vocab; v++) {
            double apart = fabs((double)w->got[v] - (double)w->want[v]);
            largest = fmax(largest, fabs((double)w->want[v]));
            most = !(apart <= most) ? apart : most;
        }
        most = largest > 0 ? most / largest : most;
        *worst = !(most <= *worst) ? most : *worst;
    }
    return QGC_OK;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static qgc_status time_steps(worker *w, qgc_session *s, qgc_event *const marks[2], double *us) {
    int32_t chosen[STEPS];
    QGC_TRY(qgc_event_record(w->device, marks[0], &w->diag));
    QGC_TRY(qgc_session_steps(s, STEPS, chosen, &w->diag));
    QGC_TRY(qgc_event_record(w->device, marks[1], &w->diag));
    QGC_TRY(qgc_event_elapsed(w->device, marks[0], marks[1], us, &w->diag));
    *us /= STEPS;
    return QGC_OK;
}

/* In turns, which of the two begins alternating. The interval is between the second and the last but one of nine
 * differences: 96 % (order statistics of the median). */
static qgc_status compare(worker *w, qgc_session *s, double out[4]) {
    double best[TURNS], us[TURNS], longer[TURNS];
    qgc_event *marks[2];
    for (int i = 0; i < 2; i++)
        QGC_TRY(qgc_event_new(w->device, &marks[i], &w->diag));
    for (int i = -1; i < TURNS; i++) { /* one turn to warm up */
        double b = 0, c = 0;
        for (int k = 0; k < 2; k++)
            QGC_TRY((i + k) % 2 ? time_steps(w, w->best.session, marks, &b) : time_steps(w, s, marks, &c));
        if (i >= 0)
            best[i] = b, us[i] = c, longer[i] = c - b;
    }
    for (int i = 0; i < 2; i++)
        qgc_event_drop(w->device, marks[i]);
    qsort(best, TURNS, sizeof *best, by_value);
    qsort(us, TURNS, sizeof *us, by_value);
    qsort(longer, TURNS, sizeof *longer, by_value);
    out[0] = best[TURNS / 2], out[1] = us[TURNS / 2], out[2] = longer[1], out[3] = longer[TURNS - 2];
    return QGC_OK;
}

/* How long a step takes in each mode that the program has, the best so far against each of the others. A mode without room for a second
 * session is left out. */
static void time_modes(worker *w) {
    const char *key = qgc_mode_key(w->best.compiled.plan, w->arena);
    const int64_t ctx = w->o->position + CHECKED + 2 * (int64_t)TURNS * STEPS + ROOM;
    for (int m = 0; m < QGC_N_MODES; m++) {
        const qgc_session_options o = {
            .ctx = ctx, .mode = (qgc_mode)m, .sampling = {.top_p = 1, .repeat_penalty = 1}};
        qgc_session *s = NULL;
        double times[4];
        if (m == (int)w->mode || qgc_mode_refusal(w->best.program, (qgc_mode)m, w->arena))
            continue;
        qgc_status status = qgc_session_new(&s, w->best.program, &o, &w->diag);
        if (status == QGC_OK)
            status = feed(w, w->best.session);
        if (status == QGC_OK)
            status = feed(w, s);
        if (status == QGC_OK)
            status = compare(w, s, times);
        qgc_session_drop(s);
        if (status == QGC_OK)
            fprintf(w->out, "mode\t%s\t%s\t%.0f\nmode\t%s\t%s\t%.0f\n", key, qgc_mode_name((qgc_mode)m),
                    1e3 * times[1], key, qgc_mode_name(w->mode), 1e3 * times[0]);
        w->diag = qgc_diag_new(w->arena);
    }
    fputs("ready\n", w->out);
}

static qgc_status judge(worker *w, const qgc_tuning *tuning) {
    build b;
    double worst = 0, times[4];
    qgc_status s = make(w, tuning, &b);
    if (s == QGC_OK)
        s = difference(w, b.session, &worst);
    const bool right = worst <= TOLERANCE;
    if (s == QGC_OK && right)
        s = compare(w, b.session, times);
    drop(&b);
    if (s == QGC_OK && right)
        fprintf(w->out, "time\t%.4f\t%.4f\t%.4f\t%.4f\n", times[0], times[1], times[2], times[3]);
    else if (s == QGC_OK)
        fprintf(w->out, "wrong\tlogits differ by %.1e of the largest\n", worst);
    return s;
}

/* The best so far is another one from now on. */
static qgc_status keep(worker *w, const qgc_tuning *tuning) {
    build b;
    QGC_TRY(make(w, tuning, &b));
    build old = w->best;
    /* the weights belong to the first program, which stays */
    qgc_session_drop(old.session);
    w->best.session = b.session;
    w->best.compiled = b.compiled;
    w->tuning = *tuning;
    fputs("ready\n", w->out);
    return QGC_OK;
}

static qgc_tuning with(const worker *w, const char *kernel, const char *name, int64_t value) {
    qgc_tuning t = qgc_tuning_new(w->arch, w->arena);
    for (size_t i = 0; i < w->tuning.settings.n; i++)
        qgc_tuning_set(&t, w->tuning.settings.rows[i].of, w->tuning.settings.rows[i].name,
                       w->tuning.settings.rows[i].value);
    qgc_tuning_set(&t, kernel, name, value);
    return t;
}

static void answer(worker *w, char *line) {
    char *rest = line, *field[4];
    for (int i = 0; i < 4; i++)
        field[i] = strtok_r(i ? NULL : line, "\t\n", &rest);
    if (!field[3])
        return;
    if (strcmp(field[0], "modes") == 0) {
        time_modes(w);
        return;
    }
    const qgc_tuning tuning = with(w, field[1], field[2], strtoll(field[3], NULL, 10));
    w->diag = qgc_diag_new(w->arena);
    qgc_status s = strcmp(field[0], "keep") == 0 ? keep(w, &tuning) : judge(w, &tuning);
    if (s != QGC_OK)
        fprintf(w->out, "failed\t%s\n", message(w));
}

void qgc_tune_work(const qgc_tune_options *o, const qgc_tuning *tuning, int requests, int answers) {
    worker w = {.o = o,
                .arena = qgc_arena_new(),
                .tuning = *tuning,
                .in = fdopen(requests, "r"),
                .out = fdopen(answers, "w")};
    if (!w.in || !w.out)
        return;
    setvbuf(w.out, NULL, _IOLBF, 0);
    w.diag = qgc_diag_new(w.arena);
    w.pool = qgc_pool_new(0);
    if (begin(&w) == QGC_OK)
        introduce(&w);
    else
        fprintf(w.out, "failed\t%s\n", message(&w));
    char line[QGC_TUNE_LINE];
    while (w.best.session && fgets(line, sizeof line, w.in))
        answer(&w, line);
    fclose(w.out);
    fclose(w.in);
}
