/* qgc eval, as a user calls it, against what an independent program computes (tests/golden/eval). */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "tests/support/command.h"
#include "tests/support/environment.h"
#include "tests/support/text.h"

#define MODEL "models/tiny/safetensors"
#define TEXT "tests/golden/eval/pride.txt"
#define TINY "eval models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu "
#define EXACT \
    "eval tests/golden/tiny/tiny-f32.yaml --weights models/tiny/tiny.gguf --device cpu " /* caches too */

static const char *output(fixture *f, const char *arguments, int want) {
    return qgc_test_output(f->arena, arguments, want);
}

static const char *read_all(fixture *f, const char *path, size_t *bytes) {
    qgc_source text;
    ok(f, qgc_file_read(&text, path, (size_t)16 << 20, "a file", &f->diag));
    *bytes = text.bytes;
    return text.text;
}

/* A copy of a file of the model in a folder, changed in its bytes from `first` on (0: in none) or by
 * replacing a text. */
static void copy_file(fixture *f, const char *folder, const char *name, const char *const change[2]) {
    size_t bytes;
    const char *text = read_all(f, qgc_arena_printf(f->arena, MODEL "/%s", name), &bytes);
    const char *at = change ? strstr(text, change[0]) : NULL;
    qgc_str out = qgc_str_new(f->arena);
    assert_true(!change || at);
    const size_t before = at ? (size_t)(at - text) : bytes;
    qgc_str_add_bytes(&out, text, before);
    if (at) {
        qgc_str_add(&out, change[1]);
        const size_t after = before + strlen(change[0]);
        qgc_str_add_bytes(&out, text + after, bytes - after);
    }
    put_file(f, qgc_arena_printf(f->arena, "%s/%s", folder, name), "");
    const char *path = fixture_path(f, qgc_arena_printf(f->arena, "%s/%s", folder, name));
    ok(f, qgc_file_write(path, out.text, out.bytes, &f->diag));
}

/* The tensors with only those bits of each bf16 that are in the mask. */
static void copy_weights(fixture *f, const char *folder, uint16_t mask) {
    size_t bytes;
    const char *text = read_all(f, MODEL "/model.safetensors", &bytes);
    char *copy = qgc_arena_alloc(f->arena, bytes);
    memcpy(copy, text, bytes);
    uint64_t head;
    memcpy(&head, text, sizeof head);
    for (size_t at = 8 + (size_t)head; at + 2 <= bytes; at += 2) {
        uint16_t x;
        memcpy(&x, copy + at, 2);
        x &= mask;
        memcpy(copy + at, &x, 2);
    }
    put_file(f, qgc_arena_printf(f->arena, "%s/model.safetensors", folder), "");
    ok(f, qgc_file_write(fixture_path(f, qgc_arena_printf(f->arena, "%s/model.safetensors", folder)), copy,
                         bytes, &f->diag));
}

/* A folder with the model, its weights masked; with `bos` its tokenizer puts <|endoftext|> in front. */
static const char *copy_model(fixture *f, const char *folder, uint16_t mask, bool bos) {
    static const char *const post[2] = {
        "\"post_processor\": {\n    \"type\": \"ByteLevel\",\n    \"add_prefix_space\": false,\n"
        "    \"trim_offsets\": false,\n    \"use_regex\": false\n  }",
        "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
        "\"<|endoftext|>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [{\"Sequence\": "
        "{\"id\": \"A\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}], \"special_tokens\": "
        "{\"<|endoftext|>\": {\"id\": \"<|endoftext|>\", \"ids\": [1533], \"tokens\": [\"<|endoftext|>\"]}}}"};
    static const char *const adds[2] = {"\"add_bos_token\": false", "\"add_bos_token\": true"};
    copy_weights(f, folder, mask);
    copy_file(f, folder, "config.json", NULL);
    copy_file(f, folder, "generation_config.json", NULL);
    copy_file(f, folder, "tokenizer.json", bos ? post : NULL);
    copy_file(f, folder, "tokenizer_config.json", bos ? adds : NULL);
    return fixture_path(f, folder);
}

static json_t *run_json(fixture *f, const char *arguments) {
    json_error_t e;
    const char *path = fixture_path(f, "x.json");
    output(f, qgc_arena_printf(f->arena, "%s --json='%s'", arguments, path), 0);
    json_t *x = json_load_file(path, 0, &e);
    assert_non_null(x);
    return x;
}

static double number(const json_t *x, const char *key) {
    const json_t *value = json_object_get(x, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static void near(double got, double want, double tolerance, const char *what) {
    if (!(fabs(got - want) <= tolerance * fabs(want)))
        fail_msg("%s is %.12g, expected %.12g", what, got, want);
}

enum {
    CTX,
    STRIDE,
    BOS,
    COUNTED,
    PERPLEXITY,
    OTHER,
    KL,
    KL_999,
    KL_MAX,
    FLIPS,
    N_COLUMNS
}; /* of golden.txt */

static void compare_row(fixture *f, const double g[N_COLUMNS]) {
    const bool bos = g[BOS] > 0;
    json_t *x = run_json(
        f, qgc_arena_printf(f->arena,
                            "eval tests/golden/tiny/tiny-f32.yaml --device cpu --weights '%s' --against "
                            "'%s' --ctx %.0f --stride %.0f " TEXT,
                            fixture_path(f, bos ? "bos" : "plain"),
                            fixture_path(f, bos ? "bos-other" : "other"), g[CTX], g[STRIDE]));
    const json_t *against = json_object_get(x, "against"), *kl = json_object_get(against, "kl");
    near(number(x, "counted"), g[COUNTED], 0, "what counts");
    near(number(x, "perplexity"), g[PERPLEXITY], 1e-6, "the perplexity");
    near(number(x, "loss"), log(g[PERPLEXITY]), 1e-6, "the loss");
    near(number(against, "perplexity"), g[OTHER], 1e-6, "the other's perplexity");
    near(number(kl, "mean"), g[KL], 1e-5, "the mean divergence");
    near(number(kl, "p999"), g[KL_999], 1e-5, "the percentile");
    near(number(kl, "max"), g[KL_MAX], 1e-5, "the largest divergence");
    near(number(against, "flips"), g[FLIPS], 0, "the count of flips");
    json_decref(x);
}

static void gives_the_numbers_of_an_independent_program(void **state) {
    fixture *f = *state;
    copy_model(f, "plain", 0xFFFF, false);
    copy_model(f, "other", 0xFFF0, false);
    copy_model(f, "bos", 0xFFFF, true);
    copy_model(f, "bos-other", 0xFFF0, true);
    size_t bytes;
    int n = 0;
    const char *text = read_all(f, "tests/golden/eval/golden.txt", &bytes);
    for (text = strchr(text, '\n'); text && text[1]; text = strchr(text, '\n'), n++) { /* after a comment */
        double row[N_COLUMNS];
        for (int i = 0; i < N_COLUMNS; i++) {
            char *end;
            row[i] = strtod(text, &end);
            assert_ptr_not_equal(end, text);
            text = end;
        }
        compare_row(f, row);
    }
    assert_int_equal(n, 6);
}

/* What the report says, but for the speed, which is another each time. */
static void says_what_counts_and_where_the_models_differ_most(void **state) {
    fixture *f = *state;
    const char *other = copy_model(f, "other", 0xFFF0, false);
    const char *text = output(
        f, qgc_arena_printf(f->arena, EXACT "-q --threads 1 --ctx 128 --against '%s' " TEXT, other), 0);
    has(text,
        qgc_arena_printf(f->arena,
                         "tests/golden/tiny/tiny-f32.yaml, weights models/tiny/tiny.gguf, cpu, 1 thread\n"
                         "1 text, 659 tokens; 5 windows of 128, of which the second half counts: 315 tokens "
                         "count, 19 at ends of texts are left out\n"
                         "perplexity     8.09623\n"
                         "loss           2.0914 nats a token, standard error 0.11\n"
                         "\n"
                         "against tests/golden/tiny/tiny-f32.yaml, weights %s, cpu, 1 thread\n"
                         "perplexity     8.49996 there (-4.75 %% here)\n",
                         other));
    has(text, "KL divergence  0.019 mean, 0.204 99.9th percentile, 0.222 largest (nats)\n");
    has(text, "flips          16 (5.08 %), of which near ties 0\n");
    has(text,
        "largest KL     at token 496 of " TEXT ": \" design in settling here?\"  \"Design\" -> \"!\"\n");
    assert_null(strstr(text, "tokens a second"));
}

static void the_evaluator_and_other_passes_are_no_different(void **state) {
    fixture *f = *state;
    static const char *const others[] = {"evaluator", "models/tiny/tiny.yaml --skip fuse-qkv"};
    for (size_t i = 0; i < 2; i++) {
        const char *text = output(f, qgc_arena_printf(f->arena, TINY TEXT " --against %s", others[i]), 0);
        has(text, "(+0 % here)\nKL divergence  0 mean, 0 99.9th percentile, 0 largest (nats)\n");
        has(text, "flips          0 (0 %), of which near ties 0\n");
    }
}

/* An artifact names its weights. Needs NVRTC. */
static void an_artifact_is_what_its_graph_is(void **state) {
    fixture *f = *state;
    const char *artifact = fixture_path(f, "t.qgc");
    output(f,
           qgc_arena_printf(f->arena, "compile models/tiny/tiny.yaml --weights models/tiny/tiny.gguf -o '%s'",
                            artifact),
           0);
    const char *text =
        output(f,
               qgc_arena_printf(f->arena, "eval '%s' --device cpu " TEXT " --against models/tiny/tiny.yaml",
                                artifact),
               0);
    has(text, qgc_arena_printf(f->arena, "%s, weights ", artifact));
    has(text, "models/tiny/tiny.gguf, cpu, ");
    has(text, "(+0 % here)\nKL divergence  0 mean, ");
    text = output(
        f, qgc_arena_printf(f->arena, TINY TEXT " --against '%s' --against-weights " MODEL, artifact), 0);
    has(text, qgc_arena_printf(f->arena, "against %s, weights " MODEL ", cpu, ", artifact));
    has(output(f, qgc_arena_printf(f->arena, "eval '%s' --device cpu --skip fuse-qkv " TEXT, artifact), 2),
        "option --skip is for graphs");
}

static void a_folder_is_its_files_each_by_itself(void **state) {
    fixture *f = *state;
    put_file(f, "texts/b.txt", "She had been a good deal in love with him, and was sorry for it.");
    put_file(f, "texts/a.txt", "Emma could not forgive her.");
    put_file(f, "texts/deeper/c.txt", "not looked at");
    const char *folder = fixture_path(f, "texts");
    json_t *both = run_json(f, qgc_arena_printf(f->arena, TINY "'%s'", folder)),
           *a = run_json(f, qgc_arena_printf(f->arena, TINY "'%s/a.txt'", folder)),
           *b = run_json(f, qgc_arena_printf(f->arena, TINY "- <'%s/b.txt'", folder));
    assert_int_equal(number(both, "texts"), 2);
    assert_int_equal(number(both, "tokens"), number(a, "tokens") + number(b, "tokens"));
    assert_int_equal(number(both, "left_out"), 0);
    const double n = number(a, "counted"), m = number(b, "counted");
    assert_true(n > 1 && m > 1);
    assert_int_equal(number(both, "counted"), n + m);
    near(number(both, "loss"), (n * number(a, "loss") + m * number(b, "loss")) / (n + m), 1e-7,
         "the mean loss");
    json_decref(both);
    json_decref(a);
    json_decref(b);
    /* In the order of their names. */
    put_file(f, "texts/a.txt", "");
    has(output(f, qgc_arena_printf(f->arena, TINY "'%s'", folder), 1),
        qgc_arena_printf(f->arena,
                         "%s/a.txt: error: the text has 0 tokens, and the first that can be predicted is "
                         "the second\n",
                         folder));
    has(output(f, qgc_arena_printf(f->arena, TINY "'%s/deeper'", fixture_path(f, "")), 1), "could not ");
    ok(f, qgc_folder_make(fixture_path(f, "empty"), &f->diag));
    has(output(f, qgc_arena_printf(f->arena, TINY "'%s'", fixture_path(f, "empty")), 1),
        "has no regular files\n");
}

/* Of two tokens the second counts, of n one for each i > n / 2. */
static void a_text_shorter_than_a_window_is_one(void **state) {
    fixture *f = *state;
    static const struct {
        const char *text;
        int tokens, counted;
    } cases[] = {{"She said", 2, 1}, {"She said.", 3, 1}, {"She said so.", 4, 1}, {"She said so, and", 5, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *x =
            run_json(f, qgc_arena_printf(f->arena, TINY "'%s'", fixture_write(f, "t", cases[i].text)));
        assert_int_equal(number(x, "tokens"), cases[i].tokens);
        assert_int_equal(number(x, "counted"), cases[i].counted);
        assert_int_equal(number(x, "windows"), 1);
        json_decref(x);
    }
    has(output(f, qgc_arena_printf(f->arena, TINY "'%s'", fixture_write(f, "t", "She")), 1),
        "/t: error: the text has 1 tokens, and the first");
}

static void refuses_a_text_that_is_not_utf8_by_file_and_offset(void **state) {
    fixture *f = *state;
    const char *path = fixture_write(f, "latin1.txt", "caf\xe9 au lait");
    has(output(f, qgc_arena_printf(f->arena, TINY TEXT " '%s'", path), 1),
        qgc_arena_printf(f->arena, "%s: error: the text is not valid UTF-8 at byte 3\n", path));
}

static void refuses_another_vocabulary_by_name(void **state) {
    fixture *f = *state;
    static const char *const change[2] = {"\"<|im_start|>\"", "\"<|im_begin|>\""};
    const char *other = copy_model(f, "other", 0xFFFF, false);
    copy_file(f, "other", "tokenizer.json", change);
    copy_file(f, "other", "tokenizer_config.json", change);
    has(output(f, qgc_arena_printf(f->arena, TINY TEXT " --against '%s'", other), 1),
        qgc_arena_printf(
            f->arena,
            "tiny.gguf: error: token 1534 is another one in the model that it is compared with, of \"%s",
            other));
}

static void logits_that_are_no_numbers_are_an_error_with_their_place(void **state) {
    fixture *f = *state;
    copy_model(f, "broken", 0xFFFF, false);
    size_t bytes;
    const char *path = fixture_path(f, "broken/model.safetensors");
    const char *from = read_all(f, path, &bytes);
    char *text = qgc_arena_alloc(f->arena, bytes);
    memcpy(text, from, bytes - 2);
    text[bytes - 2] = '\xc0'; /* 0x7FC0 is not a number */
    text[bytes - 1] = '\x7f';
    ok(f, qgc_file_write(path, text, bytes, &f->diag));
    const char *broken = fixture_path(f, "broken");
    const char *arguments = "eval models/tiny/tiny.yaml --device cpu --ctx 128 " TEXT;
    has(output(f, qgc_arena_printf(f->arena, "%s --weights '%s'", arguments, broken), 1),
        TEXT ": error: the logits at token 64 of the text are not numbers, or infinite\n");
    has(output(f, qgc_arena_printf(f->arena, "%s --weights " MODEL " --against '%s'", arguments, broken), 1),
        TEXT
        ": error: the logits at token 64 of the text, of the model that it is compared with, are not numbers");
}

static void a_budget_holds_or_is_an_error(void **state) {
    fixture *f = *state;
    const char *other = copy_model(f, "other", 0xFFF0, false);
    const char *with = qgc_arena_printf(f->arena, EXACT TEXT " --ctx 128 --against '%s' --budget", other);
    const char *wide = fixture_write(f, "wide.yaml",
                                     "max_kl: 0.3\nmax_drift: 10\nmax_flips: 16\nmin_us: 3\n"
                                     "passes:\n  fuse-qkv: {min_kernels: 2}\n");
    const char *narrow = fixture_write(f, "narrow.yaml", "max_kl: 0.2\nmax_flips: 15\n");
    const char *text = output(f, qgc_arena_printf(f->arena, "%s '%s'", with, wide), 0);
    has(text, "wide.yaml is kept\nnot checked, as they are for qgc ablate: 2 limits of passes\n");
    text = output(f, qgc_arena_printf(f->arena, "%s '%s'", with, narrow), 1);
    has(text,
        "narrow.yaml:1:9: error: the model, against the other, changes the logits by a KL divergence of 0.222, "
        "and its budget is max_kl 0.2\n");
    has(text,
        "narrow.yaml:2:12: note: the model, against the other, changes the most likely token at 16 of 315 "
        "positions, and its budget is max_flips 15\n");
}

static void refuses_options_that_make_no_sense(void **state) {
    fixture *f = *state;
    static const struct {
        const char *arguments, *want;
    } cases[] = {
        {"--budget b.yaml", "b.yaml"},
        {"--against-weights w",
         "option --against-weights is for a comparison with another model (--against)"},
        {"--against models/tiny/tiny.gguf --against-weights w",
         "option --against-weights is for an artifact or a graph, and --against is \"models/tiny/tiny.gguf\""},
        {"--ctx 64 --stride 65", "a stride of 65 tokens, expected 1 to the 64 of a window"},
        {"--ctx 1", "windows of 1 tokens, expected 2 to 1024"},
        {"--ctx 1025", "windows of 1025 tokens, expected 2 to 1024"},
        {"--mode graph", "option --mode is graph, and steps run on the CPU"},
        {"--mode warp", "unknown mode \"warp\""},
        {"--prefill steps", "option --prefill is for a GPU, and this runs on the CPU"},
        {"--prefill leaps", "unknown prefill \"leaps\", expected chunks or steps"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        has(output(f, qgc_arena_printf(f->arena, TINY TEXT " %s", cases[i].arguments), i ? 2 : 1),
            cases[i].want);
    has(output(f, "eval models/tiny/tiny.yaml", 2),
        "qgc eval takes GRAPH.yaml | ARTIFACT.qgc TEXT..., got 1 argument");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(gives_the_numbers_of_an_independent_program),
        FIXTURE_TEST(says_what_counts_and_where_the_models_differ_most),
        FIXTURE_TEST(the_evaluator_and_other_passes_are_no_different),
        FIXTURE_TEST(an_artifact_is_what_its_graph_is),
        FIXTURE_TEST(a_folder_is_its_files_each_by_itself),
        FIXTURE_TEST(a_text_shorter_than_a_window_is_one),
        FIXTURE_TEST(refuses_a_text_that_is_not_utf8_by_file_and_offset),
        FIXTURE_TEST(refuses_another_vocabulary_by_name),
        FIXTURE_TEST(logits_that_are_no_numbers_are_an_error_with_their_place),
        FIXTURE_TEST(a_budget_holds_or_is_an_error),
        FIXTURE_TEST(refuses_options_that_make_no_sense),
    };
    return cmocka_run_group_tests_name("runtime/cli/eval", tests, NULL, NULL);
}
