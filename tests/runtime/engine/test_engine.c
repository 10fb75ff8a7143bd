/* Engines and sequences, on the CPU. */

#include <stdlib.h>

#include "graph/base/file.h"
#include "runtime/engine/build.h"
#include "runtime/engine/sequence.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

enum { STEPS = 12, MOST_NOTES = 16 };

static const qgc_engine_options tiny = {
    .path = "models/tiny/tiny.yaml", .weights = "models/tiny/tiny.gguf", .device = "cpu", .threads = 1};

static const qgc_sequence_options greedy = {.sampling = {.top_p = 1, .repeat_penalty = 1}};

static qgc_engine *open_engine(fixture *f, const qgc_engine_options *o) {
    qgc_engine *e;
    ok(f, qgc_engine_open(&e, o, &f->diag));
    return e;
}

static qgc_sequence *begin(fixture *f, qgc_engine *e, const qgc_sequence_options *o) {
    qgc_sequence *s;
    ok(f, qgc_sequence_new(&s, e, o, &f->diag));
    return s;
}

static qgc_tokens prompt(fixture *f, qgc_engine *e) {
    static const char text[] = "It is a truth";
    qgc_tokens tokens = qgc_tokens_new(f->arena);
    ok(f, qgc_tokenizer_encode_text(qgc_engine_tokenizer(e), text, strlen(text), false, &tokens, &f->diag));
    return tokens;
}

static void write_on(fixture *f, qgc_sequence *s, const qgc_tokens *prompt, int32_t out[STEPS]) {
    ok(f, qgc_sequence_feed(s, prompt->ids, (int64_t)prompt->n, &out[0], &f->diag));
    for (int i = 1; i < STEPS; i++)
        ok(f, qgc_sequence_step(s, STEPS - i, &out[i], &f->diag));
}

static void sequences_of_an_engine_do_not_see_each_other(void **state) {
    fixture *f = *state;
    qgc_engine *e = open_engine(f, &tiny);
    qgc_tokens text = prompt(f, e);
    int32_t alone[STEPS], a[STEPS], b[STEPS];
    qgc_sequence *first = begin(f, e, &greedy), *second = begin(f, e, &greedy);
    write_on(f, first, &text, alone);
    ok(f, qgc_sequence_reset(first, &f->diag));
    assert_int_equal(qgc_sequence_position(first), 0);
    ok(f, qgc_sequence_feed(first, text.ids, (int64_t)text.n, &a[0], &f->diag));
    ok(f, qgc_sequence_feed(second, text.ids, (int64_t)text.n, &b[0], &f->diag));
    for (int i = 1; i < STEPS; i++) {
        ok(f, qgc_sequence_step(first, 1, &a[i], &f->diag));
        ok(f, qgc_sequence_step(second, 1, &b[i], &f->diag));
    }
    assert_memory_equal(a, alone, sizeof a);
    assert_memory_equal(b, alone, sizeof b);
    assert_int_equal(qgc_sequence_position(first), (int64_t)text.n + STEPS - 1);
    qgc_sequence_drop(first);
    qgc_sequence_drop(second);
    qgc_engine_close(e);
}

static void a_choice_is_the_largest_logit(void **state) {
    fixture *f = *state;
    qgc_engine *e = open_engine(f, &tiny);
    qgc_tokens text = prompt(f, e);
    qgc_sequence *s = begin(f, e, &greedy);
    const int64_t vocab = qgc_engine_vocab(e);
    float *logits = qgc_arena_array(f->arena, (size_t)vocab, sizeof *logits);
    assert_int_equal(qgc_sequence_logits(s, logits, &f->diag), QGC_ERR_USAGE);
    f->diag = qgc_diag_new(f->arena);
    int32_t next;
    ok(f, qgc_sequence_feed(s, text.ids, (int64_t)text.n, &next, &f->diag));
    ok(f, qgc_sequence_logits(s, logits, &f->diag));
    for (int64_t i = 0; i < vocab; i++)
        assert_true(logits[i] <= logits[next]);
    qgc_sequence_drop(s);
    qgc_engine_close(e);
}

static void a_sampling_that_is_set_is_that_of_a_new_sequence(void **state) {
    fixture *f = *state;
    qgc_engine *e = open_engine(f, &tiny);
    qgc_tokens text = prompt(f, e);
    qgc_sequence_options warm = greedy;
    warm.sampling.temperature = 1.5f;
    warm.sampling.seed = 5;
    int32_t want[STEPS], got[STEPS], cold[STEPS];
    qgc_sequence *s = begin(f, e, &warm);
    write_on(f, s, &text, want);
    qgc_sequence_drop(s);
    s = begin(f, e, &greedy);
    write_on(f, s, &text, cold);
    ok(f, qgc_sequence_set_sampling(s, &warm.sampling, &f->diag));
    ok(f, qgc_sequence_reset(s, &f->diag));
    write_on(f, s, &text, got);
    assert_memory_equal(got, want, sizeof got);
    assert_memory_not_equal(got, cold, sizeof got);
    warm.sampling.top_p = 0;
    assert_int_equal(qgc_sequence_set_sampling(s, &warm.sampling, &f->diag), QGC_ERR_USAGE);
    has(qgc_diag_message(&f->diag), "top_p above 0");
    qgc_sequence_drop(s);
    qgc_engine_close(e);
}

static void what_cannot_be_fed_changes_nothing(void **state) {
    fixture *f = *state;
    qgc_engine *e = open_engine(f, &tiny);
    qgc_sequence_options small = greedy;
    small.ctx = 4;
    qgc_sequence *s = begin(f, e, &small);
    const int32_t five[5] = {1, 2, 3, 4, 5}, wrong[2] = {1, 1 << 20};
    int32_t next;
    const struct {
        const int32_t *tokens;
        int64_t n;
        const char *want;
    } cases[] = {{five, 5, "no room for 5 tokens: 0 of 4 positions"},
                 {five, 0, "no tokens to feed"},
                 {wrong, 2, "token 1 of the text is 1048576, outside the vocabulary of 1536"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        f->diag = qgc_diag_new(f->arena);
        assert_int_not_equal(qgc_sequence_feed(s, cases[i].tokens, cases[i].n, &next, &f->diag), QGC_OK);
        has(qgc_diag_message(&f->diag), cases[i].want);
        assert_int_equal(next, -1);
        assert_int_equal(qgc_sequence_position(s), 0);
    }
    f->diag = qgc_diag_new(f->arena);
    assert_int_equal(qgc_sequence_step(s, 1, &next, &f->diag), QGC_ERR_USAGE);
    f->diag = qgc_diag_new(f->arena);
    ok(f, qgc_sequence_feed(s, five, 4, &next, &f->diag));
    assert_int_equal(qgc_sequence_step(s, 1, &next, &f->diag), QGC_ERR_INPUT);
    has(qgc_diag_message(&f->diag), "4 of 4 positions are taken");
    qgc_sequence_drop(s);
    qgc_engine_close(e);
}

static void an_engine_without_a_graph_has_the_tokenizer_only(void **state) {
    fixture *f = *state;
    qgc_engine *e = open_engine(f, &(qgc_engine_options){.weights = tiny.weights, .device = "cpu"});
    assert_true(prompt(f, e).n > 2);
    assert_int_equal(qgc_engine_vocab(e), 0);
    qgc_sequence *s;
    assert_int_equal(qgc_sequence_new(&s, e, &greedy, &f->diag), QGC_ERR_USAGE);
    assert_null(s);
    has(qgc_diag_message(&f->diag), "without a graph or an artifact");
    qgc_engine_close(e);
}

static void weights_beside_the_graph_are_found(void **state) {
    fixture *f = *state;
    qgc_engine *e = open_engine(f, &(qgc_engine_options){.path = tiny.path, .device = "cpu"});
    assert_string_equal(qgc_weights_path(qgc_engine_weights(e)), "models/tiny/tiny.gguf");
    qgc_engine_close(e);
}

static void what_cannot_be_opened_is_an_error_and_leaves_nothing(void **state) {
    fixture *f = *state;
    unsetenv("QGC_MODELS");
    setenv("HF_HUB_CACHE", "/nowhere", 1);
    qgc_engine_options no_such_pass = tiny;
    no_such_pass.passes.passes = "fuse-nothing";
    const struct {
        qgc_engine_options o;
        const char *want;
    } cases[] = {
        {no_such_pass, "fuse-nothing"},
        {{.path = "models/tiny/none.yaml", .weights = tiny.weights, .device = "cpu"}, "none.yaml"},
        {{.path = "models/qwen2.5-7b.yaml", .device = "cpu"},
         "no weights: \"models/qwen2.5-7b.yaml\" does not name any"},
        {{.device = "cpu"}, "no weights"},
        {{.path = tiny.path, .weights = tiny.weights, .device = "tpu"}, "unknown device \"tpu\""},
        {{.path = tiny.path, .weights = "models/tiny/tiny.yaml", .device = "cpu"}, "tiny.yaml"},
        {{.path = tiny.path, .weights = tiny.weights, .device = "cpu", .arch = "sm_90a"}, "--strict-arch"},
        {{.path = tiny.path, .weights = tiny.weights, .device = "cpu", .card = "t4"}, "--card"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        f->diag = qgc_diag_new(f->arena);
        qgc_engine *e;
        assert_int_not_equal(qgc_engine_open(&e, &cases[i].o, &f->diag), QGC_OK);
        assert_null(e);
        has(qgc_test_printed(f->arena, &f->diag), cases[i].want);
    }
}

/* Its errors are those of the sequence; an engine without one is closed as any other. */
static void a_tokenizer_may_be_read_beside_the_beginning_of_a_sequence(void **state) {
    fixture *f = *state;
    qgc_engine_options o = tiny;
    o.sequence_next = true;
    qgc_engine *e = open_engine(f, &o);
    qgc_sequence *s = begin(f, e, &greedy);
    assert_int_equal(prompt(f, e).n, 5);
    qgc_sequence_drop(s);
    qgc_engine_close(e);
    qgc_engine_close(open_engine(f, &o));

    const char *folder = qgc_path_folder(f->arena, fixture_write(f, "config.json", "{}"));
    static const char *const names[] = {"config.json", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        qgc_source file;
        const char *path = qgc_arena_printf(f->arena, "models/tiny/safetensors/%s", names[i]);
        ok(f, qgc_file_read(&file, path, 1 << 26, "it", &f->diag));
        path = qgc_arena_printf(f->arena, "%s/%s", folder, names[i]);
        ok(f, qgc_file_write(path, file.text, file.bytes, &f->diag));
    }
    fixture_write(f, "tokenizer.json", "{}");
    o.weights = folder;
    e = open_engine(f, &o);
    assert_int_equal(qgc_sequence_new(&s, e, &greedy, &f->diag), QGC_ERR_INPUT);
    assert_null(s);
    has(qgc_test_printed(f->arena, &f->diag), "tokenizer.json: error: ");
    qgc_engine_close(e);
}

static void a_device_goes_by_its_name_and_number(void **state) {
    fixture *f = *state;
    const struct {
        const char *text;
        int index; /* -2: an error */
    } cases[] = {{"cpu", -1},   {"gpu", 0},   {"cuda", 0},    {"gpu:0", 0},    {"gpu:12", 12},
                 {"cuda:3", 3}, {"gpu:", -2}, {"gpu:1x", -2}, {"gpu:123", -2}, {"cudas", -2},
                 {"gpu1", -2},  {"", -2},     {":1", -2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_diag d = qgc_diag_new(f->arena);
        int index = -3;
        const qgc_status s = qgc_engine_choose_device(cases[i].text, &index, &d);
        assert_int_equal(s, cases[i].index == -2 ? QGC_ERR_USAGE : QGC_OK);
        if (s == QGC_OK)
            assert_int_equal(index, cases[i].index);
    }
}

typedef struct {
    const char *what[MOST_NOTES];
    size_t done, total;
    int n;
} heard;

static void hear(void *context, const char *what, size_t done, size_t total) {
    heard *h = context;
    assert_true(done <= total);
    if (h->n == 0 || strcmp(h->what[h->n - 1], what) != 0) {
        assert_true(h->n < MOST_NOTES);
        h->what[h->n++] = what;
    } else
        assert_true(done >= h->done);
    h->done = done;
    h->total = total;
}

static void a_prompt_tells_how_far_it_is_and_can_be_stopped(void **state) {
    fixture *f = *state;
    heard h = {0};
    volatile sig_atomic_t stop = 0;
    qgc_engine_options o = tiny;
    o.listener = (qgc_engine_listener){.progress = hear, .context = &h};
    qgc_engine *e = open_engine(f, &o);
    qgc_sequence_options with_stop = greedy;
    with_stop.stop = &stop;
    qgc_sequence *s = begin(f, e, &with_stop);
    int32_t tokens[300], next;
    for (int i = 0; i < 300; i++)
        tokens[i] = i;
    ok(f, qgc_sequence_feed(s, tokens, 300, &next, &f->diag));
    assert_string_equal(h.what[h.n - 1], "prompt");
    assert_int_equal(h.done, 300);
    assert_int_equal(h.total, 300);
    stop = 1;
    ok(f, qgc_sequence_feed(s, tokens, 300, &next, &f->diag));
    assert_int_equal(next, -1);
    assert_int_equal(qgc_sequence_position(s), 300);
    qgc_sequence_drop(s);
    qgc_engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(sequences_of_an_engine_do_not_see_each_other),
        FIXTURE_TEST(a_choice_is_the_largest_logit),
        FIXTURE_TEST(a_sampling_that_is_set_is_that_of_a_new_sequence),
        FIXTURE_TEST(what_cannot_be_fed_changes_nothing),
        FIXTURE_TEST(an_engine_without_a_graph_has_the_tokenizer_only),
        FIXTURE_TEST(weights_beside_the_graph_are_found),
        FIXTURE_TEST(what_cannot_be_opened_is_an_error_and_leaves_nothing),
        FIXTURE_TEST(a_tokenizer_may_be_read_beside_the_beginning_of_a_sequence),
        FIXTURE_TEST(a_device_goes_by_its_name_and_number),
        FIXTURE_TEST(a_prompt_tells_how_far_it_is_and_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
