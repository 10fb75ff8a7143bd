#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "models/chat.h"
#include "models/tokenizer_impl.h"
#include "tests/support/cmocka.h"

/* The tables of a GGUF without a file: these stand in for models/weights.c. The tables are those of the golden
 * tokenizer.json, laid out as llama.cpp's converter does it. */
#define GOLDEN "tests/golden/tokenizer/"
enum { N_PADS = 22, MAX_GOLDEN = 1 << 20 };

struct qgc_weights {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_weights_format kind;
    const char **tokens;
    double *types;
    const char **merges;
    size_t n_tokens, n_types, n_merges;
    const char *arch, *model, *pre, *template;
    double eos, eot, add_bos, bos; /* -1: missing */
    double add_space_prefix;
    double *scores;
    size_t n_scores;
    bool eos_is_text;
    qgc_tokenizer *t;
};

qgc_weights_format qgc_weights_kind(const qgc_weights *w) {
    return w->kind;
}
const char *qgc_weights_folder(const qgc_weights *w) {
    return w ? "tests/golden/tokenizer" : NULL;
}
qgc_loc qgc_weights_loc(const qgc_weights *w) {
    (void)w;
    return QGC_NO_LOC;
}

const char *qgc_weights_arch(const qgc_weights *w) {
    return w->arch;
}

bool qgc_weights_number(const qgc_weights *w, const char *key, double *out) {
    *out = !strcmp(key, "tokenizer.ggml.eos_token_id")    ? w->eos_is_text ? -1 : w->eos
           : !strcmp(key, "tokenizer.ggml.eot_token_id")  ? w->eot
           : !strcmp(key, "tokenizer.ggml.add_bos_token") ? w->add_bos
           : !strcmp(key, "tokenizer.ggml.bos_token_id")  ? w->bos
           : strstr(key, "add_space_prefix")              ? w->add_space_prefix
                                                          : -1;
    return *out >= 0;
}

const char *qgc_weights_string(const qgc_weights *w, const char *key) {
    return !strcmp(key, "tokenizer.ggml.model")      ? w->model
           : !strcmp(key, "tokenizer.ggml.pre")      ? w->pre
           : !strcmp(key, "tokenizer.chat_template") ? w->template
                                                     : NULL;
}

const char *qgc_weights_shown(const qgc_weights *w, const char *key, qgc_arena *a) {
    double number;
    return w->eos_is_text && strstr(key, "eos")  ? "\"7\""
           : qgc_weights_number(w, key, &number) ? qgc_arena_printf(a, "%g", number)
                                                 : NULL;
}

size_t qgc_weights_array_length(const qgc_weights *w, const char *key) {
    return !strcmp(key, "tokenizer.ggml.tokens")       ? w->n_tokens
           : !strcmp(key, "tokenizer.ggml.token_type") ? w->n_types
           : !strcmp(key, "tokenizer.ggml.merges")     ? w->n_merges
           : !strcmp(key, "tokenizer.ggml.scores")     ? w->n_scores
                                                       : 0;
}

bool qgc_weights_array_string(const qgc_weights *w, const char *key, size_t i, const char **text,
                              size_t *bytes) {
    const char *const *from = strstr(key, "merges") ? w->merges : w->tokens;
    *text = from[i];
    *bytes = from[i] ? strlen(from[i]) : 0;
    return from[i] != NULL;
}

bool qgc_weights_array_number(const qgc_weights *w, const char *key, size_t i, double *out) {
    *out = strstr(key, "scores") ? w->scores[i] : w->types[i];
    return true;
}

static void fill(qgc_weights *w, json_t *root) {
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab"), *value;
    json_t *merges = json_object_get(model, "merges"), *added = json_object_get(root, "added_tokens");
    const char *key;
    size_t i;
    size_t n_real = json_object_size(vocab) + json_array_size(added);
    w->n_tokens = w->n_types = n_real + N_PADS;
    w->n_merges = json_array_size(merges);
    w->tokens = qgc_arena_array(w->arena, w->n_tokens, sizeof *w->tokens);
    w->types = qgc_arena_array(w->arena, w->n_tokens, sizeof *w->types);
    w->merges = qgc_arena_array(w->arena, w->n_merges, sizeof *w->merges);
    for (i = 0; i < w->n_tokens; i++) {
        w->tokens[i] = qgc_arena_printf(w->arena, "[PAD%zu]", i);
        w->types[i] = 5;
    }
    json_object_foreach(vocab, key, value) {
        w->tokens[json_integer_value(value)] = qgc_arena_strdup(w->arena, key);
        w->types[json_integer_value(value)] = 1;
    }
    json_array_foreach(added, i, value) {
        json_int_t id = json_integer_value(json_object_get(value, "id"));
        w->tokens[id] = qgc_arena_strdup(w->arena, json_string_value(json_object_get(value, "content")));
        w->types[id] = json_is_true(json_object_get(value, "special")) ? 3 : 4;
    }
    json_array_foreach(merges, i, value) w->merges[i] =
        qgc_arena_printf(w->arena, "%s %s", json_string_value(json_array_get(value, 0)),
                         json_string_value(json_array_get(value, 1)));
}

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    qgc_weights *w = *state = qgc_arena_alloc(arena, sizeof *w);
    *w = (qgc_weights){.arena = arena,
                       .model = "gpt2",
                       .pre = "qwen2",
                       .template = "t",
                       .eos = 7,
                       .eot = 8,
                       .bos = -1,
                       .add_space_prefix = -1};
    w->diag = qgc_diag_new(arena);
    json_t *root = json_load_file(GOLDEN "tokenizer.json", 0, NULL);
    if (!root)
        return -1;
    fill(w, root);
    json_decref(root);
    return 0;
}

static int teardown(void **state) {
    qgc_weights *w = *state;
    qgc_tokenizer_close(w->t);
    qgc_arena_drop(w->arena);
    return 0;
}

static void ids_equal_those_of_tokenizer_json(void **state) {
    qgc_weights *w = *state;
    qgc_source text, want;
    qgc_tokens ids = qgc_tokens_new(w->arena);
    assert_int_equal(qgc_file_read(&text, GOLDEN "text.txt", MAX_GOLDEN, "text", &w->diag), QGC_OK);
    assert_int_equal(qgc_file_read(&want, GOLDEN "ids.bin", MAX_GOLDEN, "ids", &w->diag), QGC_OK);
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
    assert_int_equal(qgc_tokenizer_encode(w->t, text.text, text.bytes, true, &ids, &w->diag), QGC_OK);
    assert_int_equal(2 * ids.n, want.bytes);
    const unsigned char *p = (const unsigned char *)want.text;
    for (size_t i = 0; i < ids.n; i++)
        assert_int_equal(ids.ids[i], p[2 * i] | p[2 * i + 1] << 8);
}

static void padding_has_no_piece_and_ends_are_a_set(void **state) {
    qgc_weights *w = *state;
    size_t bytes;
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
    assert_int_equal(qgc_tokenizer_size(w->t), w->n_tokens - N_PADS);
    assert_null(qgc_tokenizer_piece(w->t, (int32_t)w->n_tokens - 1, &bytes));
    assert_true(qgc_tokenizer_is_eos(w->t, 7) && qgc_tokenizer_is_eos(w->t, 8));
    assert_false(qgc_tokenizer_is_eos(w->t, qgc_tokenizer_special_id(w->t, "<|im_end|>")));
    assert_string_equal(qgc_tokenizer_chat_template(w->t), "t");
}

static void a_folder_of_safetensors_has_a_tokenizer_json(void **state) {
    qgc_weights *w = *state;
    w->kind = QGC_WEIGHTS_HF;
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
    assert_int_equal(qgc_tokenizer_size(w->t), w->n_tokens - N_PADS);
}

/* The tables of a SentencePiece model, as the converter writes them. */
static void fill_from_model(qgc_weights *w, const char *path) {
    json_t *rows = json_load_file(path, 0, NULL), *row;
    size_t i;
    assert_non_null(rows);
    w->n_tokens = w->n_types = w->n_scores = json_array_size(rows);
    w->scores = qgc_arena_array(w->arena, w->n_tokens, sizeof *w->scores);
    json_array_foreach(rows, i, row) {
        w->tokens[i] = qgc_arena_strdup(w->arena, json_string_value(json_array_get(row, 0)));
        w->scores[i] = json_number_value(json_array_get(row, 1));
        w->types[i] = json_number_value(json_array_get(row, 2));
    }
    json_decref(rows);
}

/* Line by line, since SentencePiece puts a blank in front of every text. */
static void assert_lines(qgc_weights *w, const char *path) {
    qgc_source text, want;
    assert_int_equal(qgc_file_read(&text, GOLDEN "kinds/text.txt", MAX_GOLDEN, "text", &w->diag), QGC_OK);
    assert_int_equal(qgc_file_read(&want, path, MAX_GOLDEN, "ids", &w->diag), QGC_OK);
    const char *p = text.text, *end = p + text.bytes;
    char *number = qgc_arena_strdup(w->arena, want.text);
    for (int line = 0; p <= end; line++) {
        const char *stop = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        stop = stop ? stop : end;
        qgc_tokens ids = qgc_tokens_new(w->arena);
        assert_int_equal(qgc_tokenizer_encode(w->t, p, (size_t)(stop - p), false, &ids, &w->diag), QGC_OK);
        qgc_tokens_add(&ids, -1);
        for (size_t i = 0; i < ids.n; i++) {
            long id = strtol(number, &number, 10);
            if (id != ids.ids[i])
                fail_msg("%s, line %d: id %zu is %d, expected %ld", path, line, i, (int)ids.ids[i], id);
        }
        p = stop + 1;
    }
}

static void scores_merge_as_in_sentencepiece(void **state) {
    qgc_weights *w = *state;
    w->model = "llama";
    w->bos = 1;
    fill_from_model(w, GOLDEN "kinds/spm.model.json");
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
    assert_lines(w, GOLDEN "kinds/spm.ids");
    qgc_tokenizer_close(w->t);
    w->add_space_prefix = 0;
    fill_from_model(w, GOLDEN "kinds/spm_no_front.model.json");
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
    assert_lines(w, GOLDEN "kinds/spm_no_front.ids");
}

static void assert_refused(qgc_weights *w, const char *message) {
    w->diag = qgc_diag_new(w->arena);
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_ERR_INPUT);
    assert_null(w->t);
    assert_string_equal(qgc_diag_message(&w->diag), message);
}

/* Every name of a pre-tokenizer, and the golden tokenizer.json whose words are cut the same way. */
static const struct {
    const char *pre, *kind;
    bool ids; /* no added token there has a flag, which a GGUF cannot state: the ids are the same too */
} pres[] = {
    {"qwen2", "qwen2", true},       {"deepseek-r1-qwen", "qwen2", false},
    {"megrez", "qwen2", false},     {"stablelm2", "qwen2", false},
    {"hunyuan", "qwen2", false},    {"qwen35", "qwen35", false},
    {"llama-bpe", "llama3", true},  {"llama3", "llama3", true},
    {"llama-v3", "llama3", true},   {"dbrx", "dbrx", true},
    {"smaug-bpe", "dbrx", true},    {"gpt-4o", "o200k", false},
    {"tekken", "tekken", true},     {"gpt-2", "gpt2", false},
    {"phi-2", "gpt2", false},       {"mpt", "gpt2", false},
    {"olmo", "gpt2", false},        {"smollm", "smollm", false},
    {"starcoder", "smollm", false}, {"refact", "smollm", false},
    {"command-r", "smollm", false}, {"exaone", "smollm", false},
    {"codeshell", "smollm", false}, {"minerva-7b", "smollm", false},
};

/* As the second half of a file of ids says, after -1. */
static void assert_golden_ids(qgc_weights *w, const char *kind) {
    qgc_source text, want;
    qgc_tokens ids = qgc_tokens_new(w->arena);
    assert_int_equal(qgc_file_read(&text, GOLDEN "kinds/text.txt", MAX_GOLDEN, "text", &w->diag), QGC_OK);
    assert_int_equal(qgc_file_read(&want, qgc_arena_printf(w->arena, GOLDEN "kinds/%s.ids", kind), MAX_GOLDEN,
                                   "ids", &w->diag),
                     QGC_OK);
    assert_int_equal(qgc_tokenizer_encode(w->t, text.text, text.bytes, false, &ids, &w->diag), QGC_OK);
    const char *p = strstr(want.text, " -1 ");
    assert_non_null(p);
    char *end = qgc_arena_strdup(w->arena, p + 3);
    for (size_t i = 0; i < ids.n; i++)
        assert_int_equal(strtol(end, &end, 10), ids.ids[i]);
    assert_string_equal(end, "\n");
}

static void words_are_cut_by_the_name_of_the_pre_tokenizer(void **state) {
    qgc_weights *w = *state;
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        const char *path = qgc_arena_printf(w->arena, GOLDEN "kinds/%s.json", pres[i].kind);
        qgc_tokenizer *json = NULL;
        json_t *root = json_load_file(path, 0, NULL);
        fill(w, root);
        json_decref(root);
        w->pre = pres[i].pre;
        w->bos = 0;
        assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
        assert_int_equal(qgc_tokenizer_open_json(&json, path, &w->diag), QGC_OK);
        assert_string_equal(w->t->kind.split->regex, json->kind.split->regex);
        assert_int_equal(w->t->kind.ignore_merges, json->kind.ignore_merges);
        if (pres[i].ids)
            assert_golden_ids(w, pres[i].kind);
        qgc_tokenizer_close(json);
        qgc_tokenizer_close(w->t);
    }
    w->t = NULL;
}

/* Where no file says if text is normalised, that which would change is refused. */
static void text_that_may_have_to_be_normalised_is_refused(void **state) {
    static const char composed[] = "caf\xC3\xA9", apart[] = "cafe\xCC\x81";
    qgc_weights *w = *state;
    qgc_tokens ids = qgc_tokens_new(w->arena);
    w->pre = "megrez";
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
    assert_int_equal(qgc_tokenizer_encode(w->t, composed, sizeof composed - 1, true, &ids, &w->diag), QGC_OK);
    assert_true(ids.n > 0);
    assert_int_equal(qgc_tokenizer_encode(w->t, apart, sizeof apart - 1, true, &ids, &w->diag),
                     QGC_ERR_INPUT);
    assert_string_equal(
        qgc_diag_message(&w->diag),
        "the text is not in form NFC, and the file does not say if this tokenizer brings it into that");
}

/* With special tokens, into w->arena. */
static qgc_tokens encode_marked(qgc_weights *w, const char *text) {
    qgc_tokens ids = qgc_tokens_new(w->arena);
    assert_int_equal(qgc_tokenizer_encode(w->t, text, strlen(text), true, &ids, &w->diag), QGC_OK);
    return ids;
}

/* Of Phi-3 the special tokens take the white space after them, as its tokenizer.json states. */
static void special_tokens_of_phi3_take_white_space(void **state) {
    qgc_weights *w = *state;
    w->model = "llama";
    w->bos = 1;
    fill_from_model(w, GOLDEN "kinds/spm.model.json");
    for (int phi3 = 0; phi3 < 2; phi3++) {
        w->arch = phi3 ? "phi3" : "llama";
        assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
        const qgc_tokens apart = encode_marked(w, "a<|end|> \n b<s> c"),
                         beside = encode_marked(w, "a<|end|>b<s> c"),
                         before = encode_marked(w, "a<|end|>b<s>c");
        assert_int_equal(
            apart.n == beside.n && memcmp(apart.ids, beside.ids, apart.n * sizeof *apart.ids) == 0, phi3);
        assert_int_not_equal(beside.n, before.n); /* <s> takes none */
        qgc_tokenizer_close(w->t);
    }
    w->t = NULL;
}

static void a_template_prints_the_special_tokens_of_the_file(void **state) {
    qgc_weights *w = *state;
    const qgc_chat_options o = {.now = {.tm_mday = 1}};
    const qgc_message m = {"user", "x"};
    const char *text = NULL;
    qgc_chat *chat;
    w->template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}";
    w->bos = 1001;
    w->eos = 1002;
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
    assert_int_equal(qgc_chat_open(&chat, w->t, &o, &w->diag), QGC_OK);
    assert_int_equal(qgc_chat_print(chat, &m, 1, &text, &w->diag), QGC_OK);
    assert_string_equal(text, "<|im_start|>x<|im_end|>");
    qgc_chat_close(chat);
    qgc_tokenizer_close(w->t);
    w->bos = -1;
    assert_int_equal(qgc_tokenizer_open(&w->t, w, &w->diag), QGC_OK);
    assert_int_equal(qgc_chat_open(&chat, w->t, &o, &w->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&w->diag),
                        "chat template prints \"bos_token\", which the tokenizer does not state");
}

static void another_tokenizer_is_refused_by_name(void **state) {
    qgc_weights *w = *state, good = *w;
    w->model = "t5";
    assert_refused(w, "model of the tokenizer is \"t5\", only \"gpt2\" and \"llama\" are supported");
    w->model = "llama";
    w->add_bos = -1; /* missing: true */
    assert_refused(
        w, "the tokenizer puts a BOS in front, and key \"tokenizer.ggml.bos_token_id\" is missing, which is "
           "none of the tokens");
    w->bos = 5;
    assert_refused(w, "tokenizer has 1010 tokens and 0 scores");
    *w = good;
    w->pre = "default";
    assert_refused(w, "pre-tokenizer of the tokenizer is \"default\", which is none of those supported");
    w->pre = NULL;
    assert_refused(w, "key \"tokenizer.ggml.pre\" is missing");
    *w = good;
    w->add_bos = 1;
    assert_refused(
        w, "the tokenizer puts a BOS in front, and key \"tokenizer.ggml.bos_token_id\" is missing, which is "
           "none of the tokens");
    *w = good;
    w->n_types--;
    assert_refused(w, "tokenizer has 1032 tokens and 1031 token types");
    *w = good;
    w->n_tokens = 0;
    assert_refused(w, "tokenizer has 0 tokens, expected 1 to 1048577");
    *w = good;
    w->eos = 0.5;
    assert_refused(w, "end-of-text id 0.5 is not a token id");
    w->eos = 1010; /* padding */
    assert_refused(w, "end-of-text id 1010 is none of the tokens, whose ids end at 1009");
    w->eos = 5000;
    assert_refused(w, "end-of-text id 5000 is none of the tokens, whose ids end at 1009");
    w->eos_is_text = true;
    assert_refused(w, "key \"tokenizer.ggml.eos_token_id\" is \"7\", expected a number");
    *w = good;
    w->n_merges = 0; /* or none at all: the table of a missing key has this length */
    assert_refused(w, "tokenizer has 744 tokens of several bytes, and no merges that make them");
}

static void broken_tables_are_refused(void **state) {
    qgc_weights *w = *state;
    w->types[3] = 6;
    assert_refused(w,
                   "type of token 3 is 6, expected 1 (normal), 3 (control), 4 (user defined) or 5 (unused)");
    w->types[3] = 1;
    const char *good = w->tokens[300];
    w->tokens[300] = NULL;
    assert_refused(w, "token 300 is not a string");
    w->tokens[300] = w->tokens[299];
    assert_refused(w, qgc_arena_printf(w->arena, "token \"%s\" has two ids, 299 and 300", w->tokens[299]));
    w->tokens[300] = good;
    w->merges[5] = "abc";
    assert_refused(w, "merge 5 is not two tokens with a space between");
    w->merges[5] = "a b c";
    assert_refused(w, "merge 5 is not two tokens with a space between");
    w->merges[5] = " a";
    assert_refused(w, "merge 5 is not two tokens with a space between");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ids_equal_those_of_tokenizer_json, setup, teardown),
        cmocka_unit_test_setup_teardown(padding_has_no_piece_and_ends_are_a_set, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_of_safetensors_has_a_tokenizer_json, setup, teardown),
        cmocka_unit_test_setup_teardown(scores_merge_as_in_sentencepiece, setup, teardown),
        cmocka_unit_test_setup_teardown(words_are_cut_by_the_name_of_the_pre_tokenizer, setup, teardown),
        cmocka_unit_test_setup_teardown(text_that_may_have_to_be_normalised_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(special_tokens_of_phi3_take_white_space, setup, teardown),
        cmocka_unit_test_setup_teardown(a_template_prints_the_special_tokens_of_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(another_tokenizer_is_refused_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_tables_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
