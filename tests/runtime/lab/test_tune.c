#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The search, with a worker that is told what to answer. */
#include "graph/base/diag.h"
#include "runtime/lab/tune.c"
#include "tests/support/cmocka.h"

/* A fake GPU: a step takes 100 us, ROWS=4 makes it 90, then HELD=8 makes it 80; SPLIT=2 computes something else, 4
 * crashes, and 8 hangs. Everything else changes nothing. */
void qgc_tune_work(const qgc_tune_options *o, const qgc_tuning *tuning, int requests, int answers) {
    FILE *in = fdopen(requests, "r"), *out = fdopen(answers, "w");
    if (o->gpu == 1) {
        fputs("failed\tno GPU 1\n", out);
        fclose(out);
        return;
    }
    if (o->gpu == 2)
        _exit(1);
    fputs(
        "arch\tsm_90a\ncard\th100-sxm\nknob\ta.cu 1 to 2\tSPLIT\t1\t1,2,4,8\nknob\ta.cu 1 to 2\tROWS\t1\t1,2,4\n"
        "knob\tb.cu\tHELD\t4\t4,8\nready\n",
        out);
    fflush(out);
    char line[256], what[16], name[16];
    double best = 100;
    for (size_t i = 0; i < tuning->settings.n; i++)
        best -= 10;
    while (fgets(line, sizeof line, in)) {
        if (strncmp(line, "modes\t", 6) == 0) {
            fputs("mode\ttoy, 5 and 6 bytes\tpdl\t90500\nmode\ttoy, 5 and 6 bytes\tgraph\t80000\nready\n",
                  out);
            fflush(out);
            continue;
        }
        const char *kernel = strchr(line, '\t') + 1, *setting = strchr(kernel, '\t');
        int length = 0;
        sscanf(line, "%15s", what);
        sscanf(setting, "%15s%n", name, &length);
        const long long value = strtoll(setting + length, NULL, 10);
        bool faster = (strcmp(name, "ROWS") == 0 && value == 4) || (strcmp(name, "HELD") == 0 && value == 8);
        if (strcmp(name, "SPLIT") == 0 && value == 4)
            abort();
        if (strcmp(name, "SPLIT") == 0 && value == 8 && o->patience < 60)
            pause();
        if (strcmp(what, "keep") == 0) {
            best -= 10;
            fputs("ready\n", out);
        } else if (strcmp(name, "SPLIT") == 0 && value == 2)
            fputs("wrong\tlogits differ by 1e+00 of the largest\n", out);
        else if (faster)
            fprintf(out, "time\t%g\t%g\t-10.5\t-9.5\n", best, best - 10);
        else
            fprintf(out, "time\t%g\t%g\t-0.5\t0.5\n", best, best - 0.05);
        fflush(out);
    }
}

typedef struct {
    char log[2048];
} results;

static void note(void *context, const qgc_tune_result *r) {
    static const char *const words[] = {"slower", "faster", "wrong", "failed"};
    results *all = context;
    size_t n = strlen(all->log);
    snprintf(all->log + n, sizeof all->log - n, "%s=%lld %s%s%s\n", r->name, (long long)r->value,
             words[r->verdict], r->why ? ": " : "", r->why ? r->why : "");
}

static void keeps_what_is_faster_and_survives_what_is_not_right(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    results all = {""};
    qgc_tuning t = {.arena = a};
    const qgc_tune_options o = {
        .mode = "graph", .seconds = 6000, .patience = 10, .report = note, .context = &all};
    assert_int_equal(qgc_tune(&t, &o, &d), QGC_OK);
    assert_string_equal(all.log, "SPLIT=2 wrong: logits differ by 1e+00 of the largest\n"
                                 "SPLIT=4 failed: it ended its process\n"
                                 "SPLIT=8 failed: it did not end in time\n"
                                 "ROWS=2 slower\n"
                                 "ROWS=4 faster\n"
                                 "HELD=8 faster\n");
    assert_string_equal(t.arch, "sm_90a");
    assert_string_equal(t.card, "h100-sxm");
    assert_int_equal(t.settings.n, 2);
    assert_int_equal(t.times.n, 2);
    assert_int_equal(qgc_tuning_time(&t, "toy, 5 and 6 bytes", "pdl"), 90500);
    assert_int_equal(qgc_tuning_time(&t, "toy, 5 and 6 bytes", "stream"), 0);
    assert_int_equal(qgc_tuning_get(&t, "a.cu 1 to 2", "ROWS", 0), 4);
    assert_int_equal(qgc_tuning_get(&t, "b.cu", "HELD", 0), 8);
    qgc_arena_drop(a);
}

static void log_result(void *context, const qgc_tune_result *r) {
    qgc_tune_log_add(context, r);
}

static void what_was_tried_is_json(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_tune_log log = {.arena = a};
    qgc_tuning t = {.arena = a};
    const qgc_tune_options o = {
        .mode = "graph", .seconds = 6000, .patience = 60, .report = log_result, .context = &log};
    assert_int_equal(qgc_tune(&t, &o, &d), QGC_OK);
    assert_int_equal(log.kept, 2);
    qgc_str out = qgc_str_new(a);
    assert_int_equal(qgc_tune_json(&log, &t, "x/tuning.yaml", &out, &d), QGC_OK);
    json_t *all = json_loads(out.text, 0, NULL), *tried = json_object_get(all, "candidates");
    assert_int_equal(json_array_size(tried), 6);
    const json_t *wrong = json_array_get(tried, 0), *kept = json_array_get(tried, 4);
    assert_string_equal(json_string_value(json_object_get(wrong, "verdict")), "wrong");
    assert_true(json_is_null(json_object_get(wrong, "us")));
    assert_string_equal(json_string_value(json_object_get(kept, "verdict")), "kept");
    assert_float_equal(json_number_value(json_object_get(kept, "high_us")), -9.5, 0);
    assert_int_equal(json_array_size(json_object_get(all, "settings")), 2);
    assert_int_equal(json_array_size(json_object_get(all, "times")), 2);
    assert_string_equal(json_string_value(json_object_get(all, "file")), "x/tuning.yaml");
    json_decref(all);
    qgc_arena_drop(a);
}

static void begins_nothing_when_time_is_over(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    results all = {""};
    qgc_tuning t = {.arena = a};
    const qgc_tune_options o = {
        .mode = "graph", .seconds = 0, .patience = 5, .report = note, .context = &all};
    assert_int_equal(qgc_tune(&t, &o, &d), QGC_OK);
    assert_string_equal(all.log, "");
    qgc_arena_drop(a);
}

static void says_why_nothing_can_be_tried(void **state) {
    (void)state;
    static const char *const why[] = {
        "no GPU 1", "the process that tries candidates could not begin: it ended its process"};
    for (int gpu = 1; gpu <= 2; gpu++) {
        qgc_arena *a = qgc_arena_new();
        qgc_diag d = qgc_diag_new(a);
        qgc_tuning t = {.arena = a};
        const qgc_tune_options o = {.mode = "graph", .gpu = gpu, .seconds = 6000, .patience = 60};
        assert_int_equal(qgc_tune(&t, &o, &d), QGC_ERR_DEVICE);
        assert_string_equal(qgc_diag_message(&d), why[gpu - 1]);
        qgc_arena_drop(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_what_is_faster_and_survives_what_is_not_right),
        cmocka_unit_test(what_was_tried_is_json),
        cmocka_unit_test(begins_nothing_when_time_is_over),
        cmocka_unit_test(says_why_nothing_can_be_tried),
    };
    return cmocka_run_group_tests_name("lab/tune", tests, NULL, NULL);
}
