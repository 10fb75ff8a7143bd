#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"

/* tests/golden/tokenizer/make_golden.py makes the files and the numbers. */
#define GOLDEN "tests/golden/tokenizer/"
enum { SPECIALS = 20005, MAX_GOLDEN = 1 << 20 };

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_tokenizer *t;
    qgc_source json;
} fixture;

static qgc_source golden(fixture *f, const char *name) {
    qgc_source s;
    const char *path = qgc_arena_printf(f->arena, GOLDEN "%s", name);
    assert_int_equal(qgc_file_read(&s, path, MAX_GOLDEN, "golden", &f->diag), QGC_OK);
    return s;
}

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = *state = qgc_arena_alloc(arena, sizeof *f);
    f->arena = arena;
    f->diag = qgc_diag_new(arena);
    f->json = golden(f, "tokenizer.json");
    return (int)qgc_tokenizer_open_json(&f->t, GOLDEN "tokenizer.json", &f->diag);
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_tokenizer_close(f->t);
    qgc_arena_drop(f->arena);
    return 0;
}

static qgc_tokens encode(fixture *f, const char *text, size_t bytes, bool specials) {
    qgc_tokens out = qgc_tokens_new(f->arena);
    assert_int_equal(qgc_tokenizer_encode(f->t, text, bytes, specials, &out, &f->diag), QGC_OK);
    return out;
}

static void assert_golden(fixture *f, const qgc_tokens *got, const char *name) {
    qgc_source want = golden(f, name);
    const unsigned char *p = (const unsigned char *)want.text;
    for (size_t i = 0; i < got->n && 2 * i < want.bytes; i++) {
        int id = p[2 * i] | p[2 * i + 1] << 8;
        if (got->ids[i] != id)
            fail_msg("%s: id %zu is %d, expected %d", name, i, (int)got->ids[i], id);
    }
    assert_int_equal(2 * got->n, want.bytes);
}

static void ids_equal_those_of_the_reference(void **state) {
    fixture *f = *state;
    qgc_source text = golden(f, "text.txt");
    qgc_tokens ids = encode(f, text.text, text.bytes, true);
    assert_golden(f, &ids, "ids.bin");
}

static void ids_without_specials_equal_those_of_the_reference(void **state) {
    fixture *f = *state;
    qgc_source text = golden(f, "text.txt");
    qgc_tokens ids = encode(f, text.text + text.bytes - SPECIALS, SPECIALS, false);
    assert_golden(f, &ids, "ids_no_specials.bin");
}

static qgc_str joined(fixture *f, const qgc_tokens *ids) {
    qgc_str s = qgc_str_new(f->arena);
    for (size_t i = 0; i < ids->n; i++) {
        size_t bytes;
        const char *piece = qgc_tokenizer_piece(f->t, ids->ids[i], &bytes);
        assert_non_null(piece);
        qgc_str_add_bytes(&s, piece, bytes);
    }
    return s;
}

static void pieces_are_the_text_in_form_nfc(void **state) {
    fixture *f = *state;
    qgc_source text = golden(f, "text.txt");
    size_t bytes = text.bytes - SPECIALS; /* where added tokens are, the text is normalised between them */
    qgc_nfc nfc = qgc_nfc_new(f->arena);
    qgc_span want = qgc_nfc_apply(&nfc, (qgc_span){text.text, bytes}, f->arena);
    qgc_tokens ids = encode(f, text.text, bytes, true);
    qgc_str got = joined(f, &ids);
    assert_int_equal(got.bytes, want.bytes);
    assert_memory_equal(got.text, want.text, want.bytes);
}

static void long_runs_of_one_kind_come_back(void **state) {
    static const char *const units[] = {" ",    "\n",     "a",   "ab", "1", "=",
                                        "\r\n", "\u4e00", " \t", "'s", "<", "<|im_start|"};
    fixture *f = *state;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        qgc_str s = qgc_str_new(f->arena);
        while (s.bytes < 300000)
            qgc_str_add(&s, units[i]);
        qgc_tokens ids = encode(f, s.text, s.bytes, true);
        assert_string_equal(joined(f, &ids).text, s.text);
    }
}

static void empty_text_has_no_ids(void **state) {
    assert_int_equal(encode(*state, "", 0, true).n, 0);
    assert_int_equal(encode(*state, NULL, 0, true).n, 0);
}

static void invalid_utf8_is_an_error_with_its_offset(void **state) {
    fixture *f = *state;
    qgc_tokens out = qgc_tokens_new(f->arena);
    assert_int_equal(qgc_tokenizer_encode(f->t, "0123456789 \xC3(", 13, true, &out, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&f->diag), "the text is not valid UTF-8 at byte 11");
    assert_int_equal(out.n, 0);
}

static void special_tokens_are_text_unless_wanted(void **state) {
    fixture *f = *state;
    int32_t start = qgc_tokenizer_special_id(f->t, "<|im_start|>"),
            call = qgc_tokenizer_special_id(f->t, "<tool_call>");
    assert_true(start >= 0 && qgc_tokenizer_is_special(f->t, start));
    assert_true(call >= 0 && !qgc_tokenizer_is_special(f->t, call));
    assert_int_equal(qgc_tokenizer_special_id(f->t, "the"), -1);
    assert_int_equal(encode(f, "<|im_start|>", 12, true).ids[0], start);
    assert_true(encode(f, "<|im_start|>", 12, false).n > 1);
    assert_int_equal(encode(f, "<tool_call>", 11, false).ids[0], call);
}

static void ids_outside_the_tables_have_no_piece(void **state) {
    fixture *f = *state;
    size_t bytes = 9;
    int32_t outside[] = {-1, INT32_MIN, INT32_MAX, qgc_tokenizer_size(f->t)};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_null(qgc_tokenizer_piece(f->t, outside[i], &bytes));
        assert_int_equal(bytes, 0);
        assert_false(qgc_tokenizer_is_special(f->t, outside[i]));
        assert_false(qgc_tokenizer_is_eos(f->t, outside[i]));
    }
    assert_non_null(qgc_tokenizer_piece(f->t, qgc_tokenizer_size(f->t) - 1, &bytes));
}

/* The golden tokenizer.json with the first `from` replaced. */
static qgc_source changed(fixture *f, const char *from, const char *to) {
    const char *at = strstr(f->json.text, from);
    assert_non_null(at);
    qgc_str s = qgc_str_new(f->arena);
    qgc_str_add_bytes(&s, f->json.text, (size_t)(at - f->json.text));
    qgc_str_add(&s, to);
    qgc_str_add(&s, at + strlen(from));
    return (qgc_source){"tokenizer.json", s.text, s.bytes};
}

static const struct {
    const char *from, *to, *message;
} refused[] = {
    {"\"type\":\"NFC\"", "\"type\":\"NFKC\"",
     "normalizer of the tokenizer is {\"type\":\"NFKC\"}, only NFC, and Prepend and Replace of a blank by U+2581 "
     "are supported"},
    {"|\\\\p{N}|", "|\\\\p{N}{2}|",
     "pre-tokenizer pattern of the tokenizer is \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
     "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{2}| ?[^\\\\s\\\\p..., which is none of those supported"},
    {"\"type\":\"Split\"", "\"type\":\"Punctuation\"",
     "type of the first pre-tokenizer is \"Punctuation\", only \"Split\", \"Digits\" and \"ByteLevel\" are supported"},
    {"\"Isolated\"", "\"Removed\"", "split inversion of the tokenizer is false, only true is supported"},
    {"\"invert\":false", "\"invert\":true",
     "split inversion of the tokenizer is true, only false is supported"},
    {"\"add_prefix_space\":false", "\"add_prefix_space\":true",
     "add_prefix_space of the tokenizer is true, only false is supported"},
    {"\"use_regex\":false", "\"use_regex\":true",
     "use_regex of the tokenizer is true, only false is supported"},
    {"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"Fuse\"",
     "decoder type of the tokenizer is \"Fuse\", only \"ByteLevel\" is supported"},
    {"\"post_processor\":{\"type\":\"ByteLevel\"", "\"post_processor\":{\"type\":\"TemplateProcessing\"",
     "template of the post-processor is nothing, only one token and the text are supported"},
    {"\"post_processor\":{\"type\":\"ByteLevel\"", "\"post_processor\":{\"type\":\"BertProcessing\"", NULL},
    {"\"type\":\"BPE\"", "\"type\":\"Unigram\"",
     "model type of the tokenizer is \"Unigram\", only \"BPE\" is supported"},
    {"\"dropout\":null", "\"dropout\":0.1",
     "dropout of the tokenizer is 0.10000000000000001, only null is supported"},
    {"\"ignore_merges\":false", "\"ignore_merges\":1",
     "ignore_merges of the tokenizer is 1, only false is supported"},
    {"\"byte_fallback\":false", "\"byte_fallback\":true",
     "byte_fallback of the tokenizer is true, only false is supported"},
    {"\"lstrip\":false", "\"lstrip\":0",
     "lstrip of added token \"<|endoftext|>\" is 0, expected true or false"},
    {"\"content\":\"<|im_start|>\"", "\"content\":\"<|endoftext|>\"",
     "token \"<|endoftext|>\" has two ids, 1000 and 1001"},
    {"\"content\":\"<|im_start|>\"", "\"content\":\"the\"", NULL},
    {"\"content\":\"<|im_start|>\"", "\"content\":\"\"", "added token 1001 has 0 bytes, expected 1 to 1024"},
    {"\"id\":1001", "\"id\":1000", "id 1000 has two tokens, \"<|endoftext|>\" and \"<|im_start|>\""},
    {"\"id\":1001", "\"id\":1048577", "token \"<|im_start|>\" has id 1048577, expected 0 to 1048576"},
    {"\"id\":1001", "\"id\":\"x\"", "token \"<|im_start|>\" has id \"x\", expected 0 to 1048576"},
    {"\"!\":0,", "\"!\":-1,", "token \"!\" has id -1, expected 0 to 1048576"},
    {"\"!\":0,", "\"!\":1,", "id 1 has two tokens, \"!\" and \"\"\""},
    {"\"!\":0,", "", "byte 0x21 has no token"},
    {"\"vocab\":{", "\"vocab\":[{", NULL},
    {"\"merges\":[", "\"merges\":[[\"zq\",\"a\"],",
     "merge 0 needs token \"zq\", which is not in the vocabulary"},
    {"\"merges\":[", "\"merges\":[\"a b c\",", "merge 0 is \"a b c\", expected two tokens"},
    {"\"merges\":[", "\"merges\":[[\"a\"],", "merge 0 is [\"a\"], expected two tokens"},
    {"\"merges\":[", "\"merges\":[7,", "merge 0 is 7, expected two tokens"},
    {"{", "[", NULL},
    {"\"version\"", "\"version\":1,\"version\"", NULL},
};

static void another_pipeline_or_broken_tables_are_refused_by_name(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_tokenizer *t = NULL;
        qgc_tokenizer_files files = {.tokenizer = changed(f, refused[i].from, refused[i].to)};
        assert_int_equal(qgc_tokenizer_from_json(&t, &files, &d), QGC_ERR_INPUT);
        assert_null(t);
        if (refused[i].message)
            assert_string_equal(qgc_diag_message(&d), refused[i].message);
    }
}

static void a_cut_file_is_refused_wherever_it_is_cut(void **state) {
    fixture *f = *state;
    for (size_t n = 0; n + 2 < f->json.bytes; n += 1 + n / 40) {
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_tokenizer *t = NULL;
        qgc_tokenizer_files files = {.tokenizer = {"cut.json", f->json.text, n}};
        assert_int_equal(qgc_tokenizer_from_json(&t, &files, &d), QGC_ERR_INPUT);
    }
}

/* The same file with nothing but ASCII in it: other characters are \uXXXX, and slashes are escaped. */
static qgc_source escaped(fixture *f) {
    qgc_str s = qgc_str_new(f->arena);
    for (size_t i = 0; i < f->json.bytes;) {
        uint32_t c = 0;
        i += (size_t)qgc_utf8_decode(f->json.text + i, f->json.bytes - i, &c);
        if (c >= 0x80)
            qgc_str_printf(&s, "\\u%04X", (unsigned)c);
        else
            qgc_str_printf(&s, "%s%c", c == '/' ? "\\" : "", (int)c);
    }
    return (qgc_source){"tokenizer.json", s.text, s.bytes};
}

/* Tables are read by the scanner, or by the JSON library where the scanner does not know what it sees. */
static void both_ways_of_reading_make_the_same_tokenizer(void **state) {
    fixture *f = *state;
    const struct {
        qgc_source json;
        bool scanned;
    } forms[] = {{f->json, true}, {escaped(f), true}, {changed(f, "\"merges\"", "\"m\\u0065rges\""), false}};
    qgc_source text = golden(f, "text.txt");
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const qgc_source *json = &forms[i].json;
        const qgc_tokenizer_files files = {.tokenizer = *json};
        qgc_scanned scanned;
        qgc_tokenizer *t;
        assert_int_equal(qgc_scan_tables(&scanned, (qgc_span){json->text, json->bytes}, f->arena),
                         forms[i].scanned);
        assert_int_equal(qgc_tokenizer_from_json(&t, &files, &f->diag), QGC_OK);
        qgc_tokens ids = qgc_tokens_new(f->arena);
        assert_int_equal(qgc_tokenizer_encode(t, text.text, text.bytes, true, &ids, &f->diag), QGC_OK);
        assert_golden(f, &ids, "ids.bin");
        qgc_tokenizer_close(t);
    }
}

static qgc_scanned scan(fixture *f, const char *json, bool taken) {
    qgc_scanned x;
    if (qgc_scan_tables(&x, (qgc_span){json, strlen(json)}, f->arena) != taken)
        fail_msg("%s is %s", json, taken ? "not taken" : "taken");
    return x;
}

static void the_scanner_takes_tables_and_leaves_the_rest(void **state) {
    qgc_scanned x =
        scan(*state,
             " {\"a\": [\"}\\\"\"], \"model\": {\"merges\" : [\"x yz\" , [\"u\",\"v w\"]], \"b\":\n{},"
             "\"vocab\":{ \"\\ud83d\\uDE00\\n\\\"\\u00e9\" : 1048576, \"\":0} } , \"c\": 1} ",
             true);
    assert_string_equal(x.rest.text, " {\"a\": [\"}\\\"\"], \"model\": {\"merges\" :[], \"b\":\n{},"
                                     "\"vocab\":{} } , \"c\": 1} ");
    assert_int_equal(x.n_rows, 2);
    assert_string_equal(x.rows[0].text.text, "\xF0\x9F\x98\x80\n\"\xC3\xA9");
    assert_int_equal(x.rows[0].text.bytes, 8);
    assert_int_equal(x.rows[0].id, 1048576);
    assert_int_equal(x.rows[1].text.bytes, 0);
    assert_int_equal(x.n_merges, 2);
    assert_memory_equal(x.merges[0].right.text, "yz", 3);
    assert_memory_equal(x.merges[1].right.text, "v w", 4);
}

/* What the JSON library would not take, or says better. */
static void the_scanner_leaves_what_it_does_not_know(void **state) {
    static const char *const rows[] = {"\"a\":01",
                                       "\"a\":1.0",
                                       "\"a\":-1",
                                       "\"a\":1048577",
                                       "\"a\":99999999999",
                                       "\"a\":",
                                       "\"a\"",
                                       "a:1",
                                       "\"a\":1,",
                                       "\"a\":\"1\"",
                                       "\"\\ud800\":1",
                                       "\"\\udc00\":1",
                                       "\"\\ud800\\u0041\":1",
                                       "\"\\u0000\":1",
                                       "\"\\u00g0\":1",
                                       "\"\\x\":1",
                                       "\"\t\":1",
                                       "\"\xC3\":1",
                                       "\"a\":1}}",
                                       "\"a\\"};
    static const char *const merges[] = {
        "\"a\"",        "\"a b c\"",           "\" a\"", "\"a \"", "[\"a\"]",
        "[\"a\",\"\"]", "[\"a\",\"b\",\"c\"]", "7",      "null",   "\"a b\","};
    fixture *f = *state;
    scan(f, "{\"model\":{\"vocab\":{\"a\":1},\"merges\":[\"a b\"]}}", true);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        scan(f, qgc_arena_printf(f->arena, "{\"model\":{\"vocab\":{%s},\"merges\":[\"a b\"]}}", rows[i]),
             false);
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++)
        scan(f, qgc_arena_printf(f->arena, "{\"model\":{\"vocab\":{\"a\":1},\"merges\":[%s]}}", merges[i]),
             false);
    scan(f, "{\"model\":{\"vocab\":{\"a\":1}}}", false);
    scan(f, "{\"model\":{\"vocab\":{\"a\":1},\"vocab\":{\"a\":1},\"merges\":[\"a b\"]}}", false);
    scan(f, "{\"model\":{\"vocab\":{},\"merges\":[\"a b\"]}}", false);
    scan(f, "", false);
}

static void merges_may_be_one_text(void **state) {
    fixture *f = *state;
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_tokenizer *t = NULL;
    qgc_tokenizer_files files = {.tokenizer = changed(f, "\"merges\":[", "\"merges\":[\"! !\",")};
    assert_int_equal(qgc_tokenizer_from_json(&t, &files, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "merge 0 needs token \"!!\", which is not in the vocabulary");
}

static void a_gap_in_the_ids_has_no_piece(void **state) {
    fixture *f = *state;
    qgc_tokenizer *t = NULL;
    size_t bytes;
    qgc_tokenizer_files files = {.tokenizer = changed(f, "\"id\":1009", "\"id\":2000")};
    assert_int_equal(qgc_tokenizer_from_json(&t, &files, &f->diag), QGC_OK);
    assert_int_equal(qgc_tokenizer_size(t), 2001);
    assert_null(qgc_tokenizer_piece(t, 1500, &bytes));
    qgc_tokenizer_close(t);
}

static qgc_source text_source(const char *name, const char *text) {
    return (qgc_source){name, text, strlen(text)};
}

static void ends_and_template_come_from_the_files_beside(void **state) {
    fixture *f = *state;
    qgc_tokenizer *t = NULL;
    qgc_tokenizer_files files = {
        .tokenizer = f->json,
        .config = text_source("tokenizer_config.json",
                              "{\"eos_token\": {\"content\": \"<|im|>\"}, \"add_bos_token\": false,"
                              "\"chat_template\": [{\"name\": \"tools\", \"template\": \"no\"},"
                              "{\"name\": \"default\", \"template\": \"yes\"}]}"),
        .generation = text_source("generation_config.json", "{\"eos_token_id\": [7, 1004]}"),
    };
    assert_int_equal(qgc_tokenizer_from_json(&t, &files, &f->diag), QGC_OK);
    const int32_t ends[] = {7, 1004};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        assert_true(qgc_tokenizer_is_eos(t, ends[i]));
    for (int32_t other = 1000; other < 1004; other++) /* eos_token, <|im|>, does not count beside them */
        assert_false(qgc_tokenizer_is_eos(t, other));
    assert_string_equal(qgc_tokenizer_chat_template(t), "yes");
    qgc_tokenizer_close(t);

    files.chat_template = text_source("chat_template.jinja", "file");
    assert_int_equal(qgc_tokenizer_from_json(&t, &files, &f->diag), QGC_OK);
    assert_string_equal(qgc_tokenizer_chat_template(t), "file");
    qgc_tokenizer_close(t);
    assert_null(qgc_tokenizer_chat_template(f->t));
}

static const struct {
    const char *config, *generation, *message;
} refused_beside[] = {
    {"{\"add_bos_token\": true}", NULL,
     "add_bos_token is true, and the post-processor of tokenizer.json puts nothing in front"},
    {"{\"add_prefix_space\": true, \"tokenizer_class\": \"GPT2TokenizerFast\"}", NULL,
     "add_prefix_space is true, and tokenizer.json puts no blank in front"},
    {"{\"added_tokens_decoder\": {\"1003\": {\"content\": \"<|other|>\"}}}", NULL,
     "added_tokens_decoder has token \"<|other|>\" with id 1003, which tokenizer.json has not"},
    {"{\"added_tokens_decoder\": {\"99999\": {\"content\": \"<|im|>\"}}}", NULL,
     "added_tokens_decoder has token \"<|im|>\" with id 99999, which tokenizer.json has not"},
    {"{\"added_tokens_decoder\": {\"1003x\": {\"content\": \"<|im|>\"}}}", NULL,
     "added_tokens_decoder has token \"<|im|>\" with id 1003x, which tokenizer.json has not"},
    {"{\"added_tokens_decoder\": {\"1003\": {\"content\": \"<|im|>\", \"lstrip\": 1}}}", NULL,
     "lstrip of added token \"<|im|>\" is 1, expected true or false"},
    {"{\"eos_token\": \"<eos>\"}", NULL, "eos_token \"<eos>\" is not in the vocabulary"},
    {"[]", NULL, "is not a JSON object"},
    {NULL, "{\"eos_token_id\": -1}", "end-of-text id -1 is not a token id"},
    {NULL, "{\"eos_token_id\": \"1\"}", "eos_token_id is \"1\", expected a number"},
    {NULL, "{\"eos_token_id\": [7, 99999]}",
     "end-of-text id 99999 is none of the tokens, whose ids end at 1009"},
};

/* config.json counts where generation_config.json does not say. */
static void ends_may_be_stated_in_config_json_alone(void **state) {
    fixture *f = *state;
    static const char *const generations[] = {NULL, "{}", "{\"eos_token_id\": null}",
                                              "{\"eos_token_id\": 9}"};
    for (int i = 0; i < 4; i++) {
        qgc_tokenizer *t = NULL;
        qgc_tokenizer_files files = {.tokenizer = f->json,
                                     .model = text_source("config.json", "{\"eos_token_id\": [7, 8]}")};
        if (generations[i])
            files.generation = text_source("generation_config.json", generations[i]);
        assert_int_equal(qgc_tokenizer_from_json(&t, &files, &f->diag), QGC_OK);
        assert_int_equal(qgc_tokenizer_is_eos(t, 7), i < 3);
        assert_int_equal(qgc_tokenizer_is_eos(t, 8), i < 3);
        assert_int_equal(qgc_tokenizer_is_eos(t, 9), i == 3);
        qgc_tokenizer_close(t);
    }
}

static void the_eos_token_ends_a_text_where_no_other_file_says(void **state) {
    fixture *f = *state;
    qgc_tokenizer *t = NULL;
    const qgc_tokenizer_files files = {.tokenizer = f->json,
                                       .config = text_source("c.json", "{\"eos_token\": \"<|im|>\"}"),
                                       .generation = text_source("g.json", "{}"),
                                       .model = text_source("m.json", "{\"eos_token_id\": null}")};
    assert_int_equal(qgc_tokenizer_from_json(&t, &files, &f->diag), QGC_OK);
    for (int32_t id = 0; id < qgc_tokenizer_size(t); id++)
        assert_int_equal(qgc_tokenizer_is_eos(t, id), id == 1003);
    qgc_tokenizer_close(t);
}

static void wrong_files_beside_are_refused(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < sizeof refused_beside / sizeof *refused_beside; i++) {
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_tokenizer *t = NULL;
        qgc_tokenizer_files files = {.tokenizer = f->json};
        if (refused_beside[i].config)
            files.config = text_source("c", refused_beside[i].config);
        if (refused_beside[i].generation)
            files.generation = text_source("g", refused_beside[i].generation);
        assert_int_equal(qgc_tokenizer_from_json(&t, &files, &d), QGC_ERR_INPUT);
        assert_string_equal(qgc_diag_message(&d), refused_beside[i].message);
    }
}

static void a_folder_is_read_with_the_files_beside(void **state) {
    fixture *f = *state;
    qgc_tokenizer *t = NULL;
    const char *folder = qgc_test_folder(f->arena), *config = "{\"chat_template\": \"x\"}";
    const char *json = qgc_test_path(f->arena, folder, "tokenizer.json");
    assert_int_equal(qgc_tokenizer_open_json(&t, json, &f->diag), QGC_ERR_INPUT);
    f->diag = qgc_diag_new(f->arena);
    qgc_test_write(f->arena, folder, "tokenizer.json", f->json.text, f->json.bytes);
    qgc_test_write(f->arena, folder, "tokenizer_config.json", config, strlen(config));
    assert_int_equal(qgc_tokenizer_open_json(&t, json, &f->diag), QGC_OK);
    assert_string_equal(qgc_tokenizer_chat_template(t), "x");
    qgc_tokenizer_close(t);
    static const char *const others[] = {"generation_config.json", "config.json", "chat_template.jinja"};
    for (int i = 0; i < 3; i++) { /* what cannot be read is not absent */
        const char *link = qgc_test_path(f->arena, folder, others[i]);
        assert_int_equal(symlink("nowhere", link), 0);
        assert_int_equal(qgc_tokenizer_open_json(&t, json, &f->diag), QGC_ERR_INPUT);
        assert_non_null(strstr(qgc_test_printed(f->arena, &f->diag), others[i]));
        f->diag = qgc_diag_new(f->arena);
        assert_int_equal(unlink(link), 0);
    }
    qgc_test_folder_drop(f->arena, folder);
}

/* --- every kind -------------------------------------------------------------------------------------------- */

#define KINDS GOLDEN "kinds/"
static const char *const kinds[] = {"qwen2",      "qwen2_no_nfc", "llama3",  "gpt2",      "smollm",
                                    "o200k",      "dbrx",         "tekken",  "qwen35",    "llama2",
                                    "llama2_old", "phi3",         "mistral", "metaspace", "gemma"};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static qgc_tokenizer *open_kind(fixture *f, const char *name) {
    qgc_tokenizer *t = NULL;
    const char *path = qgc_arena_printf(f->arena, KINDS "%s.json", name);
    assert_int_equal(qgc_tokenizer_open_json(&t, path, &f->diag), QGC_OK);
    return t;
}

/* Compares with numbers up to -1 or the end, and returns what is after them. */
static const char *assert_ids(const char *kind, const qgc_tokens *ids, const char *want) {
    char *end;
    for (size_t i = 0; i < ids->n; i++, want = end) {
        long id = strtol(want, &end, 10);
        if (end == want || id != ids->ids[i])
            fail_msg("%s: id %zu is %d, expected %ld", kind, i, (int)ids->ids[i], id);
    }
    long stop = strtol(want, &end, 10);
    assert_true(end == want || stop == -1);
    return end;
}

static void ids_of_every_kind_equal_those_of_the_reference(void **state) {
    fixture *f = *state;
    const qgc_source text = golden(f, "kinds/text.txt");
    for (int i = 0; i < N_KINDS; i++) {
        qgc_tokenizer *t = open_kind(f, kinds[i]);
        const qgc_source ids = golden(f, qgc_arena_printf(f->arena, "kinds/%s.ids", kinds[i]));
        qgc_tokens with = qgc_tokens_new(f->arena), without = qgc_tokens_new(f->arena);
        assert_int_equal(qgc_tokenizer_encode_text(t, text.text, text.bytes, true, &with, &f->diag), QGC_OK);
        assert_int_equal(qgc_tokenizer_encode(t, text.text, text.bytes, false, &without, &f->diag), QGC_OK);
        assert_ids(kinds[i], &without, assert_ids(kinds[i], &with, ids.text));
        qgc_tokenizer_close(t);
    }
}

static void a_bos_is_put_in_front_once(void **state) {
    fixture *f = *state;
    qgc_tokenizer *t = open_kind(f, "llama3");
    static const char *const texts[] = {"", "a", "<s>a"};
    for (int i = 0; i < 3; i++) {
        qgc_tokens ids = qgc_tokens_new(f->arena);
        assert_int_equal(qgc_tokenizer_encode_text(t, texts[i], strlen(texts[i]), true, &ids, &f->diag),
                         QGC_OK);
        assert_int_equal(ids.n, i ? 2 : 1);
        assert_int_equal(ids.ids[0], 0);
    }
    qgc_tokenizer_close(t);
}

/* What is decoded piece by piece is the text, and a blank is put in front of what starts one alone. */
static void blanks_in_front_come_and_go(void **state) {
    static const char text[] = " two  blanks \xF0\x9F\x98\x80\n";
    static const char *const names[] = {"llama2", "phi3", "gemma"};
    fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        f->t = (qgc_tokenizer_close(f->t), open_kind(f, names[i]));
        qgc_tokens ids = encode(f, text, sizeof text - 1, false);
        size_t bytes;
        const char *first = qgc_tokenizer_first_piece(f->t, ids.ids[0], &bytes);
        qgc_str s = qgc_str_new(f->arena);
        qgc_str_add_bytes(&s, first, bytes);
        ids.ids++;
        ids.n--;
        qgc_str rest = joined(f, &ids);
        qgc_str_add(&s, rest.text);
        assert_string_equal(s.text, text);
    }
    f->t = (qgc_tokenizer_close(f->t), open_kind(f, "mistral"));
    qgc_tokens ids = encode(f, "a", 1, true);
    const int32_t at_start = ids.ids[0];
    assert_int_equal(qgc_tokenizer_encode(f->t, "a", 1, true, &ids, &f->diag), QGC_OK);
    assert_int_equal(ids.n, 2);
    assert_int_not_equal(ids.ids[1], at_start);
}

/* Opens a kind with one more added token. */
static void open_with_added(fixture *f, const char *kind, int id, const char *content, const char *flags) {
    static const char list[] = "\"added_tokens\":[";
    const qgc_source json = golden(f, qgc_arena_printf(f->arena, "kinds/%s.json", kind));
    const char *at = strstr(json.text, list) + strlen(list);
    const char *text =
        qgc_arena_printf(f->arena, "%.*s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,%s},%s",
                         (int)(at - json.text), json.text, id, content, flags, at);
    const qgc_tokenizer_files files = {.tokenizer = text_source("changed", text)};
    f->t = (qgc_tokenizer_close(f->t), NULL);
    assert_int_equal(qgc_tokenizer_from_json(&f->t, &files, &f->diag), QGC_OK);
}

#define FLAGS(lstrip, rstrip, normalized, special) \
    "\"lstrip\":" lstrip ",\"rstrip\":" rstrip ",\"normalized\":" normalized ",\"special\":" special
#define PLAIN FLAGS("false", "false", "false", "false")
#define NORMALIZED FLAGS("false", "false", "true", "false")
#define SPECIAL FLAGS("false", "false", "true", "true")

/* What an added token decodes to, as `tokenizers` has it: what is looked for in the normalised text is that there, and all that
 * a decoder does to tokens it does to added ones. */
static void added_tokens_decode_as_in_the_reference(void **state) {
    static const struct {
        const char *kind, *content, *flags, *want;
    } cases[] = {
        {"llama2", "<a b>", NORMALIZED, " <a b>"},
        {"llama2", "<a b>", PLAIN, "<a b>"},
        {"llama2", "<q\xE2\x96\x81r>", PLAIN, "<q r>"},
        {"llama2", "<q\xE2\x96\x81r>", SPECIAL, " <q r>"},
        {"llama2_old", " lead", NORMALIZED, "  lead"},
        {"gemma", " lead", NORMALIZED, " lead"},
        {"gemma", "\xE2\x96\x81meta", PLAIN, " meta"},
        {"mistral", "<q\xE2\x96\x81r>", SPECIAL, "<q r>"},
        {"qwen2", "<q\xE2\x96\x81r>", SPECIAL, "<q\xE2\x96\x81r>"},
        {"qwen2", "e\xCC\x81x", NORMALIZED, "\xE9x"}, /* in form NFC a letter that stands for a byte */
        {"qwen2", "e\xCC\x81x", PLAIN, "e\xCC\x81x"},
        {"o200k", "e\xCC\x81x", SPECIAL, "e\xCC\x81x"},
        {"o200k", "\xC4\xA0Zz", PLAIN, " Zz"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bytes;
        open_with_added(f, cases[i].kind, 2000, cases[i].content, cases[i].flags);
        const char *piece = qgc_tokenizer_piece(f->t, 2000, &bytes);
        if (bytes != strlen(cases[i].want) || memcmp(piece, cases[i].want, bytes) != 0)
            fail_msg("%s: \"%s\" decodes to \"%.*s\"", cases[i].kind, cases[i].content, (int)bytes, piece);
    }
}

/* A token of white space that takes white space on both sides takes the next one like it. */
static void white_space_takes_white_space(void **state) {
    static const char text[] = "a\n \n\nb";
    fixture *f = *state;
    open_with_added(f, "dbrx", 2000, "\\n", FLAGS("true", "true", "false", "false"));
    assert_int_equal(encode(f, text, sizeof text - 1, true).n, 3);
    open_with_added(f, "dbrx", 2000, "\\n", FLAGS("false", "true", "false", "false"));
    assert_int_equal(encode(f, text, sizeof text - 1, true).n, 5);
}

/* Words begin as characters, also where one of them is an added token that stands for a blank and itself. */
static void characters_are_known_by_their_own_text(void **state) {
    fixture *f = *state;
    const qgc_source json = golden(f, "kinds/llama2_old.json");
    const int a = (int)strtol(strstr(json.text, "\"a\":") + 4, NULL, 10);
    open_with_added(f, "llama2_old", a, "a", NORMALIZED);
    const qgc_tokens ids = encode(f, "<a a", 4, true);
    assert_int_equal(ids.n, 3); /* " <", "a", " a" */
    assert_int_equal(ids.ids[1], a);
    assert_int_equal(ids.ids[2], a);
    assert_string_equal(joined(f, &ids).text, " < a a");
}

/* Flags of added tokens are those of tokenizer_config.json, where it has them. */
static void flags_beside_count(void **state) {
    static const char text[] = "a<|end|>  b";
    static const char *const configs[] = {
        NULL,
        "{\"add_prefix_space\": true, \"tokenizer_class\": \"PreTrainedTokenizerFast\"}", /* which does not obey */
        "{\"added_tokens_decoder\": {\"2\": {\"content\": \"<|end|>\", \"lstrip\": false, \"rstrip\": true,"
        " \"normalized\": false, \"single_word\": false, \"special\": true}}}"};
    fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        qgc_tokenizer_files files = {.tokenizer = golden(f, "kinds/llama3.json")};
        if (configs[i])
            files.config = text_source("tokenizer_config.json", configs[i]);
        f->t = (qgc_tokenizer_close(f->t), NULL);
        assert_int_equal(qgc_tokenizer_from_json(&f->t, &files, &f->diag), QGC_OK);
        const qgc_tokens ids = encode(f, text, sizeof text - 1, true);
        assert_string_equal(joined(f, &ids).text, i == 2 ? "a<|end|>b" : text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ids_equal_those_of_the_reference, setup, teardown),
        cmocka_unit_test_setup_teardown(ids_without_specials_equal_those_of_the_reference, setup, teardown),
        cmocka_unit_test_setup_teardown(pieces_are_the_text_in_form_nfc, setup, teardown),
        cmocka_unit_test_setup_teardown(long_runs_of_one_kind_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(empty_text_has_no_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(invalid_utf8_is_an_error_with_its_offset, setup, teardown),
        cmocka_unit_test_setup_teardown(special_tokens_are_text_unless_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(ids_outside_the_tables_have_no_piece, setup, teardown),
        cmocka_unit_test_setup_teardown(another_pipeline_or_broken_tables_are_refused_by_name, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_cut_file_is_refused_wherever_it_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(merges_may_be_one_text, setup, teardown),
        cmocka_unit_test_setup_teardown(both_ways_of_reading_make_the_same_tokenizer, setup, teardown),
        cmocka_unit_test_setup_teardown(the_scanner_takes_tables_and_leaves_the_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(the_scanner_leaves_what_it_does_not_know, setup, teardown),
        cmocka_unit_test_setup_teardown(a_gap_in_the_ids_has_no_piece, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_and_template_come_from_the_files_beside, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_may_be_stated_in_config_json_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(the_eos_token_ends_a_text_where_no_other_file_says, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_files_beside_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_is_read_with_the_files_beside, setup, teardown),
        cmocka_unit_test_setup_teardown(ids_of_every_kind_equal_those_of_the_reference, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bos_is_put_in_front_once, setup, teardown),
        cmocka_unit_test_setup_teardown(blanks_in_front_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(flags_beside_count, setup, teardown),
        cmocka_unit_test_setup_teardown(added_tokens_decode_as_in_the_reference, setup, teardown),
        cmocka_unit_test_setup_teardown(white_space_takes_white_space, setup, teardown),
        cmocka_unit_test_setup_teardown(characters_are_known_by_their_own_text, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
