#include <stdio.h>

#include "graph/base/file.h"
#include "runtime/engine/receipt.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

/* Receipts of texts on the CPU. */

enum { N_IDS = 12 };

static const int32_t prompt[] = {1448, 364, 258, 1202, 1520};
enum { N_PROMPT = sizeof prompt / sizeof *prompt };

static const qgc_engine_options tiny = {
    .path = "models/tiny/tiny.yaml", .weights = "models/tiny/tiny.gguf", .device = "cpu", .threads = 1};
static const qgc_sequence_options warm = {
    .ctx = 64, .sampling = {.temperature = 0.7f, .top_k = 40, .top_p = 0.9f, .repeat_penalty = 1, .seed = 5}};

/* A text, and its receipt in the file. */
static const char *run(fixture *f, const qgc_engine_options *engine) {
    static int32_t ids[N_IDS];
    qgc_engine *e;
    qgc_sequence *s;
    ok(f, qgc_engine_open(&e, engine, &f->diag));
    ok(f, qgc_sequence_new(&s, e, &warm, &f->diag));
    ok(f, qgc_sequence_feed(s, prompt, N_PROMPT, &ids[0], &f->diag));
    for (int i = 1; i < N_IDS; i++)
        ok(f, qgc_sequence_step(s, 1, &ids[i], &f->diag));
    qgc_receipt r = qgc_receipt_of(s, prompt, N_PROMPT, f->arena);
    r.ids = ids;
    r.n_ids = N_IDS;
    const char *path = fixture_path(f, "r.json");
    ok(f, qgc_receipt_write(&r, path, &f->diag));
    qgc_sequence_drop(s);
    qgc_engine_close(e);
    return path;
}

static qgc_receipt read(fixture *f, const char *path) {
    qgc_receipt r;
    ok(f, qgc_receipt_read(&r, path, &f->diag));
    return r;
}

typedef struct {
    qgc_link link;
    int64_t token;
} difference;

static difference again(fixture *f, const qgc_receipt *was, qgc_engine_options o) {
    qgc_engine *e;
    qgc_receipt is;
    ok(f, qgc_receipt_open(&e, was, &o, &f->diag));
    ok(f, qgc_receipt_again(was, e, &is, &f->diag));
    const difference d = {qgc_receipt_link(was, &is), qgc_receipt_token(was, &is)};
    qgc_engine_close(e);
    return d;
}

static void a_text_is_made_again(void **state) {
    fixture *f = *state;
    const qgc_receipt was = read(f, run(f, &tiny));
    assert_int_equal(was.n_prompt, N_PROMPT);
    assert_memory_equal(was.prompt, prompt, sizeof prompt);
    assert_int_equal(was.n_ids, N_IDS);
    assert_float_equal((double)was.sampling.top_p, 0.9f, 0);
    assert_string_equal(was.links[QGC_LINK_CARD], "cpu");
    assert_string_equal(was.links[QGC_LINK_IMAGES], "none");
    difference d = again(f, &was, (qgc_engine_options){.threads = 1});
    assert_int_equal(d.link, QGC_N_LINKS);
    assert_int_equal(d.token, -1);
    d = again(f, &was, (qgc_engine_options){.threads = 3}); /* threads are no link */
    assert_int_equal(d.link, QGC_N_LINKS);
    assert_int_equal(d.token, -1);
}

/* Passes and their options reach the second run. */
static void a_pipeline_is_run_again(void **state) {
    fixture *f = *state;
    qgc_engine_options o = tiny;
    o.passes.passes = "fuse-qkv,split-attention(parts=3),fuse-swiglu?";
    const qgc_receipt was = read(f, run(f, &o));
    assert_non_null(strstr(was.links[QGC_LINK_PIPELINE], "split-attention(parts=3)"));
    const difference d = again(f, &was, (qgc_engine_options){0});
    assert_int_equal(d.link, QGC_N_LINKS);
    assert_int_equal(d.token, -1);
    const qgc_receipt whole = read(f, run(f, &tiny));
    assert_int_equal(qgc_receipt_link(&was, &whole), QGC_LINK_PIPELINE);
}

static void says_what_is_another(void **state) {
    fixture *f = *state;
    const char *path = run(f, &tiny);
    qgc_receipt was = read(f, path);
    was.sampling.seed = 6;
    difference d = again(f, &was, (qgc_engine_options){0});
    assert_int_equal(d.link, QGC_LINK_SETTINGS);
    assert_true(d.token >= 0 && d.token < N_IDS);

    was = read(f, path);
    int32_t *ids = qgc_arena_array(f->arena, N_IDS, sizeof *ids);
    memcpy(ids, was.ids, N_IDS * sizeof *ids);
    ids[7]++;
    was.ids = ids;
    d = again(f, &was, (qgc_engine_options){0});
    assert_int_equal(d.link, QGC_N_LINKS);
    assert_int_equal(d.token, 7);
    was.n_ids = 3;
    assert_int_equal(again(f, &was, (qgc_engine_options){0}).token, -1);

    was = read(f, path);
    int32_t *fed = qgc_arena_array(f->arena, N_PROMPT, sizeof *fed);
    memcpy(fed, prompt, sizeof prompt);
    fed[2] = 300;
    was.prompt = fed;
    assert_int_equal(again(f, &was, (qgc_engine_options){0}).link, QGC_LINK_PROMPT);
}

/* One changed byte of a tensor, and one of the graph. */
static void weights_and_graph_are_looked_at(void **state) {
    fixture *f = *state;
    const qgc_receipt was = read(f, run(f, &tiny));
    qgc_file file;
    ok(f, qgc_file_open(&file, tiny.weights, &f->diag));
    char *copy = qgc_arena_alloc(f->arena, file.bytes);
    memcpy(copy, file.data, file.bytes);
    copy[file.bytes - 9] ^= 1;
    const char *weights = qgc_test_write(f->arena, f->folder, "other.gguf", copy, file.bytes);
    qgc_file_close(&file);
    assert_int_equal(again(f, &was, (qgc_engine_options){.weights = weights}).link, QGC_LINK_WEIGHTS);

    const qgc_receipt moved = {.links = {"", "a", "b", "", "c", "", "", "", "", ""}};
    qgc_receipt other = moved;
    for (int i = QGC_N_LINKS - 1; i >= 0; i--) {
        other.links[i] = "x";
        assert_int_equal(qgc_receipt_link(&moved, &other), i);
    }
}

static void what_is_no_receipt_is_refused(void **state) {
    fixture *f = *state;
    qgc_source text;
    ok(f, qgc_file_read(&text, run(f, &tiny), 1 << 20, "it", &f->diag));
    const char *const broken[][2] = {{"\"receipt\": 1", "\"receipt\": 2"},
                                     {"\"ids\": [", "\"ids\": [-1, "},
                                     {"\"prompt\": [", "\"prompts\": ["},
                                     {"\"seed\": 5", "\"seed\": \"5\""},
                                     {"\"mode\": \"cpu\"", "\"mode\": 3"},
                                     {"\"weights\"", "\"weight\""},
                                     {"{", "["}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const char *at = strstr(text.text, broken[i][0]);
        assert_non_null(at);
        const char *changed = qgc_arena_printf(f->arena, "%.*s%s%s", (int)(at - text.text), text.text,
                                               broken[i][1], at + strlen(broken[i][0]));
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_receipt r;
        assert_int_equal(qgc_receipt_read(&r, fixture_write(f, "broken.json", changed), &d), QGC_ERR_INPUT);
        assert_non_null(strstr(qgc_diag_message(&d), "is no receipt of qgc"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_text_is_made_again),          FIXTURE_TEST(a_pipeline_is_run_again),
        FIXTURE_TEST(says_what_is_another),          FIXTURE_TEST(weights_and_graph_are_looked_at),
        FIXTURE_TEST(what_is_no_receipt_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
