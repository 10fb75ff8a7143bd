/* The library as a program sees it: include/qgc.h and libqgc.so, nothing else of qgc. */

#include <pthread.h>
#include <qgc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/cmocka.h"

enum { STEPS = 12, ROOM = 64, THREADS = 3 };

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif

static const char prompt[] = "It is a truth universally";

static const qgc_open_options tiny = {.size = sizeof tiny,
                                      .path = "models/tiny/tiny.yaml",
                                      .weights = "models/tiny/tiny.gguf",
                                      .device = "cpu",
                                      .threads = 2};

static void ok(qgc_error *e) {
    if (e)
        fail_msg("%s", qgc_error_text(e));
}

/* An error of that code whose text has `words`. */
static void fails(qgc_error *e, int code, const char *words) {
    assert_non_null(e);
    assert_int_equal(qgc_error_code(e), code);
    if (!strstr(qgc_error_text(e), words))
        fail_msg("\"%s\" is not in:\n%s", words, qgc_error_text(e));
    qgc_error_free(e);
}

static qgc_engine *open_tiny(void) {
    qgc_engine *engine;
    ok(qgc_open(&engine, &tiny));
    return engine;
}

static void hear_tokens(void *context, size_t done, size_t total) {
    int *n = context;
    assert_true(done <= total);
    ++*n;
}

/* Some greedy tokens. */
static void write_on(qgc_engine *engine, qgc_sequence *text, int32_t out[STEPS]) {
    int32_t ids[ROOM];
    size_t n;
    ok(qgc_encode(engine, prompt, strlen(prompt), QGC_TEXT_WHOLE, ids, ROOM, &n));
    assert_in_range(n, 2, ROOM);
    ok(qgc_feed(text, ids, n, &out[0]));
    for (int i = 1; i < STEPS; i++)
        ok(qgc_step(text, STEPS - i, &out[i]));
}

static void a_text_is_made_of_pieces(void **state) {
    (void)state;
    qgc_engine *engine = open_tiny();
    qgc_sequence *text;
    int32_t tokens[STEPS], again[STEPS];
    char made[1024] = "";
    ok(qgc_begin(&text, engine, NULL));
    write_on(engine, text, tokens);
    for (int i = 0; i < STEPS; i++) {
        size_t bytes;
        const char *piece = qgc_piece(engine, tokens[i], &bytes);
        assert_non_null(piece);
        assert_false(qgc_is_end(engine, tokens[i]));
        strncat(made, piece, bytes);
    }
    assert_string_equal(made, " different. I am sure it is not very likely to");
    assert_string_equal(qgc_get_mode(text), "cpu");
    assert_string_equal(qgc_get_device(engine), "cpu, 2 threads");
    assert_int_equal(qgc_get_ctx(text), 1024);
    assert_int_equal(qgc_get_vocab(engine), 1536);
    const int64_t position = qgc_get_position(text);
    ok(qgc_reset(text));
    assert_int_equal(qgc_get_position(text), 0);
    write_on(engine, text, again);
    assert_memory_equal(again, tokens, sizeof tokens);
    assert_int_equal(qgc_get_position(text), position);
    float logits[1536];
    int32_t next;
    ok(qgc_step(text, 1, &next));
    ok(qgc_logits(text, logits));
    for (int i = 0; i < 1536; i++)
        assert_true(logits[i] <= logits[next]);
    qgc_end(text);
    qgc_close(engine);
}

static void what_does_not_fit_is_counted_and_not_written(void **state) {
    (void)state;
    qgc_engine *engine = open_tiny();
    int32_t all[ROOM], few[3] = {-7, -7, -7};
    size_t n, again;
    ok(qgc_encode(engine, prompt, strlen(prompt), 0, all, ROOM, &n));
    ok(qgc_encode(engine, prompt, strlen(prompt), 0, few, 2, &again));
    assert_int_equal(again, n);
    assert_memory_equal(few, all, 2 * sizeof *few);
    assert_int_equal(few[2], -7);
    ok(qgc_encode(engine, prompt, strlen(prompt), 0, NULL, 0, &again));
    assert_int_equal(again, n);
    ok(qgc_encode(engine, "<|im_end|>", 10, QGC_TEXT_SPECIALS, all, ROOM, &n));
    assert_int_equal(n, 1);
    assert_true(qgc_is_end(engine, all[0]));
    ok(qgc_encode(engine, "<|im_end|>", 10, 0, all, ROOM, &n));
    assert_true(n > 1);
    qgc_close(engine);
}

static void a_conversation_is_encoded_by_the_template(void **state) {
    (void)state;
    const qgc_turn turns[] = {{"user", "Hello"}, {"assistant", "I am"}, {"user", "<|im_end|>"}};
    qgc_engine *engine = open_tiny();
    qgc_sequence *text;
    int32_t ids[ROOM], more[ROOM], token;
    size_t n, n_more;
    ok(qgc_encode_chat(engine, turns, 1, ids, ROOM, &n));
    assert_in_range(n, 10, ROOM);
    ok(qgc_begin(&text, engine, NULL));
    ok(qgc_feed(text, ids, n, &token));
    size_t bytes;
    const char *piece = qgc_piece(engine, token, &bytes);
    assert_true(bytes == 1 && *piece == 'I'); /* "I am afraid, ..." */
    ok(qgc_encode_chat(engine, turns, 3, more, ROOM, &n_more));
    assert_true(n_more > n);
    assert_memory_equal(more, ids, n * sizeof *ids);
    int ends = 0;
    for (size_t i = 0; i < n_more; i++)
        ends += qgc_is_end(engine, more[i]);
    assert_int_equal(ends, 3); /* one of each turn: what is said is text */
    qgc_end(text);
    qgc_close(engine);
}

static void an_error_is_a_value_with_its_place(void **state) {
    (void)state;
    char path[] = "/tmp/qgc-lib-XXXXXX";
    static const char graph[] = "qgc: 1\nname: x\ngraph:\n  - {op: rms_nrom, in: [x], out: y}\n";
    const int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, graph, strlen(graph)) == (ssize_t)strlen(graph));
    close(fd);
    qgc_engine *engine = (qgc_engine *)path; /* not NULL */
    qgc_open_options o = tiny;
    o.path = path;
    qgc_error *e = qgc_open(&engine, &o);
    unlink(path);
    assert_non_null(e);
    assert_null(engine);
    assert_int_equal(qgc_error_code(e), QGC_CODE_INPUT);
    assert_string_equal(qgc_error_file(e), path);
    assert_true(qgc_error_line(e) > 0);
    assert_non_null(strstr(qgc_error_text(e), qgc_error_message(e)));
    assert_null(strchr(qgc_error_message(e), '\n'));
    qgc_error_free(e);
    qgc_error_free(NULL);
}

static void calls_at_fault_are_errors(void **state) {
    (void)state;
    qgc_engine *engine;
    qgc_sequence *text;
    int32_t next, ids[2] = {1, 2};
    qgc_open_options o = tiny;
    o.size = 1;
    fails(qgc_open(&engine, &o), QGC_CODE_USAGE, "options of 1 bytes");
    o = tiny;
    o.device = "tpu";
    fails(qgc_open(&engine, &o), QGC_CODE_USAGE, "unknown device \"tpu\"");
    fails(qgc_open(&engine, NULL), QGC_CODE_USAGE, "no weights");
    engine = open_tiny();
    const qgc_begin_options negative = {.size = sizeof negative, .ctx = -1},
                            mode = {.size = sizeof mode, .mode = "pdl"};
    fails(qgc_begin(&text, engine, &negative), QGC_CODE_USAGE, "-1 positions");
    assert_null(text);
    fails(qgc_begin(&text, engine, &mode), QGC_CODE_USAGE, "the CPU, which has no modes");
    ok(qgc_begin(&text, engine, NULL));
    fails(qgc_step(text, 1, &next), QGC_CODE_USAGE, "was fed no token");
    fails(qgc_feed(text, ids, 0, &next), QGC_CODE_USAGE, "no tokens to feed");
    fails(qgc_feed(text, ids, SIZE_MAX, &next), QGC_CODE_INPUT, "no room");
    ids[1] = -3;
    fails(qgc_feed(text, ids, 2, &next), QGC_CODE_INPUT, "token 1 of the text is -3");
    assert_int_equal(next, -1);
    const qgc_begin_options odd = {.size = sizeof odd, .top_p = 2};
    fails(qgc_set_sampling(text, &odd), QGC_CODE_USAGE, "top_p above 0");
    fails(qgc_inspect_file("models/tiny/tiny.yaml", NULL, NULL), QGC_CODE_INPUT, "tiny.yaml");
    fails(qgc_compile_file(&(qgc_compile_settings){.size = sizeof(qgc_compile_settings)}), QGC_CODE_USAGE,
          "no path of a graph");
    qgc_end(text);
    qgc_close(engine);
}

static void a_text_is_evaluated_against_another_engine(void **state) {
    (void)state;
    static const char text[] =
        "She had been a good deal in love with him, and was sorry for it. He could not forgive her.";
    const qgc_text texts[] = {{"one", text, sizeof text - 1}, {"two", prompt, sizeof prompt - 1}};
    qgc_engine *engine = open_tiny(), *other = open_tiny();
    int heard = 0;
    const qgc_eval_options o = {
        .size = sizeof o, .ctx = 16, .against = other, .progress = hear_tokens, .context = &heard};
    qgc_eval_result x = {.size = sizeof x}, whole = {.size = sizeof whole};
    ok(qgc_eval_texts(engine, texts, 2, &o, &x));
    assert_int_equal(x.ctx, 16);
    assert_true(heard > 1 && x.windows > 1 && x.counted > 7 && x.counted < x.tokens);
    assert_true(x.perplexity > 2 && x.perplexity < 1000);
    assert_true(x.perplexity == x.against_perplexity);
    assert_true(x.kl_max == 0 && x.flips == 0 && x.max_drift == 0 && x.worst_text == 0);
    ok(qgc_eval_texts(engine, texts, 2, NULL, &whole));
    assert_true(whole.windows == 2 && whole.left_out == 0 && whole.against_perplexity == 0);
    /* Less of a result for an older program, and what follows it is unchanged. */
    qgc_eval_result old = {.size = offsetof(qgc_eval_result, loss), .loss = -7};
    ok(qgc_eval_texts(engine, texts, 2, &o, &old));
    assert_true(old.counted == x.counted && old.loss < -6);
    const volatile sig_atomic_t stop = 1;
    const qgc_eval_options stopped = {.size = sizeof stopped, .stop = &stop};
    ok(qgc_eval_texts(engine, texts, 2, &stopped, &x));
    assert_true(x.stopped);
    x.size = 4;
    fails(qgc_eval_texts(engine, texts, 2, NULL, &x), QGC_CODE_USAGE, "a result of 4 bytes");
    x.size = sizeof x;
    fails(qgc_eval_texts(engine, texts, 0, NULL, &x), QGC_CODE_USAGE, "no text to evaluate");
    fails(qgc_eval_texts(engine, &(qgc_text){"latin", "\xe9", 1}, 1, NULL, &x), QGC_CODE_INPUT,
          "latin: error: the text is not valid UTF-8 at byte 0");
    qgc_close(other);
    qgc_close(engine);
}

/* What an older program, that knows less of the options, has after them is not looked at. */
static void options_are_as_long_as_the_caller_says(void **state) {
    (void)state;
    struct {
        qgc_begin_options o;
    } old = {
        .o = {.size = offsetof(qgc_begin_options, temperature), .ctx = 32, .temperature = -5, .top_p = 77}};
    qgc_engine *engine = open_tiny();
    qgc_sequence *text;
    ok(qgc_begin(&text, engine, &old.o));
    assert_int_equal(qgc_get_ctx(text), 32);
    qgc_end(text);
    qgc_begin_options newer[2] = {{.ctx = 48}, {.size = 77}}; /* the second in place of fields of later */
    newer[0].size = sizeof newer;
    ok(qgc_begin(&text, engine, newer));
    assert_int_equal(qgc_get_ctx(text), 48);
    qgc_end(text);
    qgc_close(engine);
}

static void keep_json(void *context, const char *json, size_t bytes) {
    assert_int_equal(strlen(json), bytes);
    snprintf(context, 4096, "%s", json);
}

static void hear(void *context, const char *what, size_t done, size_t total) {
    int *n = context;
    assert_string_equal(what, "kernels");
    assert_true(done <= total);
    ++*n;
}

/* Needs NVRTC. */
static void a_graph_is_compiled_and_runs(void **state) {
    (void)state;
    char path[] = "/tmp/qgc-lib-XXXXXX", json[4096];
    const int fd = mkstemp(path);
    close(fd);
    int heard = 0;
    qgc_compile_settings s = {.size = sizeof s,
                              .graph = tiny.path,
                              .output = path,
                              .weights = tiny.weights,
                              .archs = "sm_90a,sm_80+ptx",
                              .progress = hear,
                              .context = &heard};
    ok(qgc_compile_file(&s));
    assert_true(heard > 0);
    ok(qgc_inspect_file(path, keep_json, json));
    assert_non_null(strstr(json, "\"model\": \"tiny\""));
    assert_non_null(strstr(json, "\"sm_80\""));
    assert_non_null(strstr(json, "\"compute_80\""));
    qgc_engine *engine;
    qgc_sequence *text;
    int32_t here[STEPS], there[STEPS];
    const qgc_open_options o = {.size = sizeof o, .path = path, .device = "cpu"}; /* weights: as recorded */
    ok(qgc_open(&engine, &o));
    ok(qgc_begin(&text, engine, NULL));
    write_on(engine, text, here);
    qgc_end(text);
    qgc_close(engine);
    engine = open_tiny();
    ok(qgc_begin(&text, engine, NULL));
    write_on(engine, text, there);
    qgc_end(text);
    qgc_close(engine);
    unlink(path);
    assert_memory_equal(here, there, sizeof here);
}

static void *write_alone(void *out) {
    qgc_engine *engine = open_tiny();
    qgc_sequence *text;
    ok(qgc_begin(&text, engine, NULL));
    write_on(engine, text, out);
    qgc_end(text);
    qgc_close(engine);
    return NULL;
}

static void engines_on_threads_do_not_meet(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    int32_t out[THREADS][STEPS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_alone, out[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 1; i < THREADS; i++)
        assert_memory_equal(out[i], out[0], sizeof out[0]);
}

/* --- memory ---------------------------------------------------------------------------------------------- */

#ifndef HAS_ASAN

void *__libc_calloc(size_t n, size_t bytes);

static long until_none = -1; /* requests that are granted; -1: all */
static long asked;

/* In place of libc's, for the library too. */
void *calloc(size_t n, size_t bytes) {
    const long i = __atomic_add_fetch(&asked, 1, __ATOMIC_RELAXED);
    return until_none >= 0 && i > until_none ? NULL : __libc_calloc(n, bytes);
}

static void grant(long n) {
    __atomic_store_n(&asked, 0, __ATOMIC_RELAXED);
    until_none = n;
}

static qgc_error *use(qgc_engine **engine, qgc_sequence **text) {
    int32_t ids[ROOM], token;
    size_t n;
    const qgc_begin_options small = {.size = sizeof small, .ctx = 64};
    *text = NULL;
    qgc_error *e = qgc_open(engine, &tiny);
    if (!e)
        e = qgc_encode(*engine, prompt, strlen(prompt), QGC_TEXT_WHOLE, ids, ROOM, &n);
    if (!e)
        e = qgc_encode_chat(*engine, &(qgc_turn){"user", "Hello"}, 1, ids, ROOM, &n);
    if (!e)
        e = qgc_begin(text, *engine, &small);
    if (!e)
        e = qgc_feed(*text, ids, n, &token);
    for (int i = 0; !e && i < 4; i++)
        e = qgc_step(*text, 1, &token);
    qgc_eval_result result = {.size = sizeof result};
    if (!e)
        e = qgc_eval_texts(*engine, &(qgc_text){"prompt", prompt, strlen(prompt)}, 1, NULL, &result);
    return e;
}

/* Wherever memory runs out, an error comes back, and what was opened can be closed. */
static void no_memory_is_an_error_wherever_it_is_missed(void **state) {
    (void)state;
    qgc_engine *engine = NULL;
    qgc_sequence *text;
    grant(-1);
    ok(use(&engine, &text));
    const long all = asked;
    qgc_end(text);
    qgc_close(engine);
    assert_true(all > 50);
    int failed = 0;
    for (long n = 0; n < all; n += 1 + n / 64) {
        grant(n);
        qgc_error *e = use(&engine, &text);
        grant(-1);
        if (e) { /* another time a thread may ask for less */
            failed++;
            fails(e, QGC_CODE_DEVICE, "memory");
            int32_t token;
            if (text)
                fails(qgc_step(text, 1, &token), QGC_CODE_DEVICE, "can only be closed");
        }
        qgc_end(text);
        qgc_close(engine);
        engine = NULL;
    }
    assert_true(failed > 20);
    ok(use(&engine, &text)); /* and the next engine is as good as any */
    qgc_end(text);
    qgc_close(engine);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_made_of_pieces),
        cmocka_unit_test(what_does_not_fit_is_counted_and_not_written),
        cmocka_unit_test(a_conversation_is_encoded_by_the_template),
        cmocka_unit_test(an_error_is_a_value_with_its_place),
        cmocka_unit_test(calls_at_fault_are_errors),
        cmocka_unit_test(options_are_as_long_as_the_caller_says),
        cmocka_unit_test(a_text_is_evaluated_against_another_engine),
        cmocka_unit_test(a_graph_is_compiled_and_runs),
        cmocka_unit_test(engines_on_threads_do_not_meet),
#ifndef HAS_ASAN
        cmocka_unit_test(no_memory_is_an_error_wherever_it_is_missed),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
