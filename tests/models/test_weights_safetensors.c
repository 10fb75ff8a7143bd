#include <string.h>

#include "models/weights_impl.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/guarded.h"
#include "tests/support/printed.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/touched.h"

typedef struct {
    qgc_arena *arena;
    const char *folder;
    qgc_weights *w;
} fixture;

static int setup(void **state) {
    qgc_arena *a = qgc_arena_new();
    fixture *f = qgc_arena_alloc(a, sizeof *f);
    f->arena = a;
    f->folder = qgc_test_folder(a);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_weights_close(f->w);
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return 0;
}

static const char *put(fixture *f, const char *name, const char *text) {
    return qgc_test_write(f->arena, f->folder, name, text, strlen(text));
}

static const char *put_tensors(fixture *f, const char *name, const char *header, size_t n_data) {
    qgc_str s = safetensors_file(f->arena, header, n_data);
    return qgc_test_write(f->arena, f->folder, name, s.text, s.bytes);
}

static void opens(fixture *f, const char *path) {
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_status s = qgc_weights_open(&f->w, path, &d);
    assert_string_equal(qgc_test_printed(f->arena, &d), "");
    assert_int_equal(s, QGC_OK);
}

/* Opening is refused with exactly this text, where FOLDER stands for the folder. */
static void open_fails(fixture *f, const char *path, const char *expected) {
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_weights *w;
    assert_int_equal(qgc_weights_open(&w, path, &d), QGC_ERR_INPUT);
    assert_null(w);
    qgc_str text = qgc_str_new(f->arena);
    const char *rest = qgc_test_printed(f->arena, &d);
    for (const char *hit; (hit = strstr(rest, f->folder)); rest = hit + strlen(f->folder)) {
        qgc_str_add_bytes(&text, rest, (size_t)(hit - rest));
        qgc_str_add(&text, "FOLDER");
    }
    qgc_str_add(&text, rest);
    assert_string_equal(text.text, expected);
}

/* Parses bytes that end where no memory follows, so that a read past the end crashes. */
static qgc_status parse(const void *data, size_t bytes, qgc_diag *d) {
    const unsigned char *exact = guarded_copy(data, bytes);
    assert_non_null(exact);
    qgc_weights *w = qgc_weights_new("x.safetensors", QGC_WEIGHTS_HF);
    qgc_status s = qgc_safetensors_parse(w, exact, bytes, qgc_weights_place(d, "x.safetensors"), d);
    if (s == QGC_OK)
        touch_tensors(w);
    qgc_weights_close(w);
    return s;
}

static void bytes_fail(fixture *f, const qgc_str *s, const char *expected) {
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(parse(s->text, s->bytes, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &d),
                        qgc_arena_printf(f->arena, "x.safetensors: error: %s\n", expected));
}

static void header_fails(fixture *f, const char *header, size_t n_data, const char *expected) {
    qgc_str s = safetensors_file(f->arena, header, n_data);
    bytes_fail(f, &s, expected);
}

static void tensors_come_in_the_order_of_the_data(void **state) {
    fixture *f = *state;
    put(f, "config.json", "{}");
    opens(f, put_tensors(f, "x.safetensors", safetensors_sample_header, SAFETENSORS_SAMPLE_BYTES));
    assert_int_equal(qgc_weights_kind(f->w), QGC_WEIGHTS_HF);
    assert_string_equal(qgc_weights_folder(f->w), f->folder);
    assert_int_equal(qgc_weights_count(f->w), 3);
    const qgc_tensor *t = qgc_weights_at(f->w, 0);
    assert_string_equal(t->name, "a");
    assert_int_equal(t->dtype, QGC_BF16);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->bytes, 12);
    assert_int_equal(*(const unsigned char *)t->data, 1);
    assert_ptr_equal(t, qgc_weights_find(f->w, "a"));
    t = qgc_weights_at(f->w, 2);
    assert_string_equal(t->name, "c");
    assert_int_equal(t->dtype, QGC_F16);
    assert_int_equal(*(const unsigned char *)t->data, 29);
    assert_null(qgc_weights_find(f->w, "__metadata__"));
    assert_int_equal(qgc_weights_array_length(f->w, "a"), 0);
}

static void a_scalar_is_a_tensor_of_rank_0(void **state) {
    fixture *f = *state;
    put(f, "config.json", "{}");
    opens(f, put_tensors(f, "x.safetensors",
                         "{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4));
    assert_int_equal(qgc_weights_at(f->w, 0)->rank, 0);
    assert_int_equal(qgc_weights_at(f->w, 0)->bytes, 4);
}

/* Whatever the length of a name that dots end. */
static void long_keys_of_config_are_found(void **state) {
    fixture *f = *state;
    char name[601] = {0};
    memset(name, 'k', sizeof name - 1);
    put(f, "config.json", qgc_arena_printf(f->arena, "{\"%s\": {\"a\": 7}}", name));
    put_tensors(f, "model.safetensors", safetensors_sample_header, SAFETENSORS_SAMPLE_BYTES);
    opens(f, f->folder);
    double n = 0;
    assert_true(qgc_weights_number(f->w, qgc_arena_printf(f->arena, "%s.a", name), &n));
    assert_true(n == 7);
    assert_false(qgc_weights_number(f->w, qgc_arena_printf(f->arena, "%.255s.a", name), &n));
}

static void config_gives_numbers_and_strings(void **state) {
    fixture *f = *state;
    put(f, "config.json",
        "{\"model_type\": \"qwen2\", \"hidden_size\": 896, \"rms_norm_eps\": 1e-06, \"torch_dtype\": \"bfloat16\",\n"
        " \"tie_word_embeddings\": true, \"use_sliding_window\": false, \"none\": null,\n"
        " \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"deep\": {\"er\": -3}}, \"list\": [1]}");
    put_tensors(f, "model.safetensors", safetensors_sample_header, SAFETENSORS_SAMPLE_BYTES);
    opens(f, f->folder);
    const qgc_weights *w = f->w;
    double n;
    assert_string_equal(qgc_weights_arch(w), "qwen2");
    assert_string_equal(qgc_weights_string(w, "torch_dtype"), "bfloat16");
    assert_string_equal(qgc_weights_string(w, "rope_scaling.type"), "yarn");
    assert_true(qgc_weights_number(w, "hidden_size", &n) && n == 896);
    assert_true(qgc_weights_number(w, "rms_norm_eps", &n) && n == 1e-6);
    assert_true(qgc_weights_number(w, "tie_word_embeddings", &n) && n == 1);
    assert_true(qgc_weights_number(w, "use_sliding_window", &n) && n == 0);
    assert_true(qgc_weights_number(w, "rope_scaling.factor", &n) && n == 4);
    assert_true(qgc_weights_number(w, "rope_scaling.deep.er", &n) && n == -3);
    assert_false(qgc_weights_number(w, "none", &n));
    assert_false(qgc_weights_number(w, "torch_dtype", &n));
    assert_false(qgc_weights_number(w, "list", &n));
    assert_false(qgc_weights_number(w, "list.0", &n));
    assert_false(qgc_weights_number(w, "hidden_size.x", &n));
    assert_false(qgc_weights_number(w, ".", &n));
    assert_false(qgc_weights_number(w, "", &n));
    assert_null(qgc_weights_string(w, "hidden_size"));
    assert_null(qgc_weights_string(w, "rope_scaling"));
}

static void shards_are_joined_in_the_order_of_their_names(void **state) {
    fixture *f = *state;
    put(f, "config.json", "{}");
    put(f, "model.safetensors.index.json",
        "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}}");
    put_tensors(f, "m-1.safetensors", "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    put_tensors(f, "m-2.safetensors", "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4);
    opens(f, f->folder);
    assert_int_equal(qgc_weights_count(f->w), 2);
    assert_string_equal(qgc_weights_at(f->w, 0)->name, "b");
    assert_string_equal(qgc_weights_at(f->w, 1)->name, "a");
    assert_null(qgc_weights_arch(f->w));
}

static void every_truncation_is_refused(void **state) {
    fixture *f = *state;
    qgc_str s = safetensors_file(f->arena, safetensors_sample_header, SAFETENSORS_SAMPLE_BYTES);
    for (size_t bytes = 0; bytes < s.bytes; bytes++) {
        qgc_diag d = qgc_diag_new(f->arena);
        assert_int_equal(parse(s.text, bytes, &d), QGC_ERR_INPUT);
        assert_true(strlen(qgc_diag_message(&d)) > 0);
    }
}

static void no_changed_byte_does_harm(void **state) {
    static const unsigned char changes[] = {0x01, 0x80, 0xFF, 0x11};
    fixture *f = *state;
    qgc_str s = safetensors_file(f->arena, safetensors_sample_header, SAFETENSORS_SAMPLE_BYTES);
    for (size_t i = 0; i < s.bytes; i++)
        for (size_t k = 0; k < sizeof changes; k++) {
            qgc_diag d = qgc_diag_new(f->arena);
            s.text[i] = (char)(s.text[i] ^ changes[k]);
            qgc_status status = parse(s.text, s.bytes, &d);
            assert_true(status == QGC_OK || status == QGC_ERR_INPUT);
            s.text[i] = (char)(s.text[i] ^ changes[k]);
        }
}

static void bad_headers_are_refused(void **state) {
    fixture *f = *state;
    qgc_str s = qgc_str_new(f->arena);
    bytes_fail(f, &s, "has 0 bytes, too few for a safetensors file");
    gguf_put(&s, UINT64_MAX, 8);
    bytes_fail(f, &s, "has a header of 18446744073709551615 bytes, more than the 16777216 allowed");
    s = qgc_str_new(f->arena);
    gguf_put(&s, (16 << 20) + 1, 8);
    bytes_fail(f, &s, "has a header of 16777217 bytes, more than the 16777216 allowed");
    s = qgc_str_new(f->arena);
    gguf_put(&s, 100, 8);
    qgc_str_add(&s, "{}");
    bytes_fail(f, &s, "the file ends inside the header: 100 bytes wanted, 2 are left");
    header_fails(f, "[]", 0, "the header is not a JSON object");
    header_fails(f, "{\"a\"", 0, "the header is not valid JSON: ':' expected near end of file");
    header_fails(f, "", 0, "the header is not valid JSON: '[' or '{' expected near end of file");
    header_fails(f, "{\"a\":{},\"a\":{}}", 0,
                 "the header is not valid JSON: duplicate object key near '\"a\"'");
    header_fails(f, "{} {}", 0, "the header is not valid JSON: end of file expected near '{'");
    header_fails(f, "{\"\\u0000\":{}}", 0,
                 "the header is not valid JSON: NUL byte in object key not supported near '\"\\u0000\"'");
}

static void bad_names_are_refused(void **state) {
    fixture *f = *state;
    header_fails(f, "{\"\":{}}", 0, "the name of a tensor is empty");
    header_fails(f, "{\"a\\u001b[31m\":{}}", 0, "the name of a tensor has a control byte in it");
    header_fails(f, "{\"a\":7}", 0, "tensor \"a\" is not described by a JSON object");
}

#define ENTRY(name, dtype, shape, offsets) \
    "\"" name "\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void bad_dtypes_are_refused(void **state) {
    fixture *f = *state;
    header_fails(f, "{" ENTRY("a", "\"F8_E4M3\"", "[4]", "[0,4]") "}", 4,
                 "tensor \"a\" is stored as F8_E4M3, which is not supported\n"
                 "  hint: Supported are F32, F16, BF16.");
    header_fails(f, "{" ENTRY("a", "\"\\u001b\"", "[4]", "[0,4]") "}", 4,
                 "tensor \"a\" has a dtype that is no name\n"
                 "  hint: Supported are F32, F16, BF16.");
    header_fails(f, "{" ENTRY("a", "1", "[4]", "[0,4]") "}", 4,
                 "tensor \"a\" has no \"dtype\" that is a string");
    header_fails(f, "{\"a\":{}}", 0, "tensor \"a\" has no \"dtype\" that is a string");
}

static void bad_shapes_are_refused(void **state) {
    static const char fault[] = "tensor \"a\" has a dimension that is not an integer of at least 1";
    fixture *f = *state;
    header_fails(f, "{" ENTRY("a", "\"F32\"", "4", "[0,4]") "}", 4,
                 "tensor \"a\" has no \"shape\" that is a list");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1,1,1,1,1]", "[0,4]") "}", 4,
                 "tensor \"a\" has rank 5, expected at most 4");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[0]", "[0,0]") "}", 0, fault);
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[-1]", "[0,4]") "}", 4, fault);
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1.0]", "[0,4]") "}", 4, fault);
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[true]", "[0,4]") "}", 4, fault);
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[4611686018427387905]", "[0,4]") "}", 4,
                 "tensor \"a\" is larger than any file");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[4294967296,2147483648]", "[0,0]") "}", 4,
                 "tensor \"a\" is larger than any file");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[99999999999999999999]", "[0,4]") "}", 4,
                 "the header is not valid JSON: too big integer near '99999999999999999999'");
}

static void bad_offsets_are_refused(void **state) {
    static const char fault[] = "tensor \"a\" has no \"data_offsets\" of two integers";
    fixture *f = *state;
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[false,true]") "}", 4, fault);
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[0,4.0]") "}", 4, fault);
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[0,4,8]") "}", 4, fault);
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "{}") "}", 4, fault);
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[-4,0]") "}", 4,
                 "tensor \"a\" is at offsets -4 to 0, which is not inside the 4 bytes of data");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[4,0]") "}", 4,
                 "tensor \"a\" is at offsets 4 to 0, which is not inside the 4 bytes of data");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[4,8]") "}", 4,
                 "tensor \"a\" is at offsets 4 to 8, which is not inside the 4 bytes of data");
    header_fails(
        f, "{" ENTRY("a", "\"F32\"", "[1]", "[0,9223372036854775807]") "}", 4,
        "tensor \"a\" is at offsets 0 to 9223372036854775807, which is not inside the 4 bytes of data");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[2]", "[0,4]") "}", 4,
                 "tensor \"a\" spans 4 bytes, its shape and dtype 8");
}

static void data_is_covered_exactly(void **state) {
    fixture *f = *state;
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[0,4]") "," ENTRY("b", "\"F32\"", "[1]", "[8,12]") "}",
                 12, "4 bytes before tensor \"b\" belong to no tensor");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[2,6]") "}", 6,
                 "2 bytes before tensor \"a\" belong to no tensor");
    header_fails(f, "{" ENTRY("b", "\"F32\"", "[1]", "[2,6]") "," ENTRY("a", "\"F32\"", "[1]", "[0,4]") "}",
                 6, "tensors \"a\" and \"b\" share bytes of the file");
    header_fails(f, "{" ENTRY("a", "\"F32\"", "[1]", "[0,4]") "}", 5, "the last 1 bytes belong to no tensor");
    header_fails(f, "{}", 3, "the last 3 bytes belong to no tensor");
}

static void too_many_entries_are_refused(void **state) {
    fixture *f = *state;
    qgc_str header = qgc_str_new(f->arena);
    for (int i = 0; i <= 65536; i++)
        qgc_str_printf(&header, "%c\"%d\":0", i ? ',' : '{', i);
    qgc_str_add(&header, "}");
    header_fails(f, header.text, 0, "has 65537 entries, more than the 65536 allowed");
}

static void a_configuration_has_to_be_there_and_valid(void **state) {
    fixture *f = *state;
    const char *path = put_tensors(f, "x.safetensors", safetensors_sample_header, SAFETENSORS_SAMPLE_BYTES);
    static const char missing[] =
        "FOLDER/config.json: error: could not open config.json: No such file or directory\n"
        "  hint: safetensors files say nothing of the model; a config.json has to stand beside them.\n";
    open_fails(f, path, missing);
    open_fails(f, f->folder, missing);
    put(f, "config.json", "{\"a\": 1,\n \"b\": }");
    open_fails(
        f, path,
        "FOLDER/config.json:2:7: error: the configuration is not valid JSON: unexpected token near '}'\n"
        "     2 |  \"b\": }\n"
        "       |       ^\n");
    put(f, "config.json", "[1]");
    open_fails(f, path, "FOLDER/config.json: error: the configuration is not a JSON object\n");
    put(f, "config.json", "{\"a\": 1, \"a\": 2}");
    open_fails(
        f, path,
        "FOLDER/config.json:1:12: error: the configuration is not valid JSON: duplicate object key near "
        "'\"a\"'\n"
        "     1 | {\"a\": 1, \"a\": 2}\n"
        "       |            ^\n");
    put(f, "config.json", "{}");
    qgc_weights *w;
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_weights_open(&w, path, &d), QGC_OK);
    qgc_weights_close(w);
}

static void a_folder_has_to_hold_weights(void **state) {
    fixture *f = *state;
    put(f, "config.json", "{}");
    open_fails(f, f->folder,
               "FOLDER: error: the folder has neither \"model.safetensors\" nor "
               "\"model.safetensors.index.json\"\n");
}

/* A folder whose index is this text, and one shard "s" with the tensor "a". */
static void index_fails(fixture *f, const char *text, const char *expected) {
    put(f, "config.json", "{}");
    put(f, "model.safetensors.index.json", text);
    put_tensors(f, "s", "{" ENTRY("a", "\"F32\"", "[1]", "[0,4]") "}", 4);
    open_fails(f, f->folder, expected);
}

#define INDEX "FOLDER/model.safetensors.index.json: error: "

static void bad_indexes_are_refused(void **state) {
    fixture *f = *state;
    index_fails(f, "{}", INDEX "has no object \"weight_map\"\n");
    index_fails(f, "{\"weight_map\":{}}", INDEX "names 0 files, expected 1 to 1024\n");
    index_fails(f, "{\"weight_map\":{\"a\":1}}", INDEX "weight \"a\" has no name of a file\n");
    index_fails(f, "{\"weight_map\":{\"a\":\"\"}}", INDEX "weight \"a\" has no name of a file\n");
    index_fails(f, "{\"weight_map\":{\"a\":\"../x\"}}",
                INDEX "weight \"a\" is in file \"../x\", expected a plain file name\n");
    index_fails(f, "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
                INDEX "weight \"a\" is in file \"/etc/passwd\", expected a plain file name\n");
    index_fails(f, "{\"weight_map\":{\"a\":\"..\"}}",
                INDEX "weight \"a\" is in file \"..\", expected a plain file name\n");
    index_fails(f, "{\"weight_map\":{\"a\":\"s\",\"b\":\"s\"}}", INDEX "weight \"b\" is not in file \"s\"\n");
    index_fails(f, "{\"weight_map\":{\"a\":\"none\"}}",
                "FOLDER/none: error: could not open the file: No such file or directory\n");
    index_fails(f, "{\"weight_map\":{\"\\u0007\":\"s\"}}",
                INDEX "the name of a weight has a control byte in it\n");
    put(f, "empty", "");
    index_fails(f, "{\"weight_map\":{\"a\":\"s\",\"b\":\"empty\"}}",
                "FOLDER/empty: error: has 0 bytes, too few for a safetensors file\n");
}

static void a_weight_stands_in_the_shard_that_the_index_names(void **state) {
    fixture *f = *state;
    put_tensors(f, "t", "{" ENTRY("b", "\"F32\"", "[1]", "[0,4]") "}", 4);
    index_fails(f, "{\"weight_map\":{\"a\":\"t\",\"b\":\"s\"}}", INDEX "weight \"a\" is not in file \"t\"\n");
    put_tensors(f, "t", "{" ENTRY("a", "\"F32\"", "[1]", "[0,4]") "}", 4);
    index_fails(f, "{\"weight_map\":{\"a\":\"s\",\"b\":\"t\"}}",
                "FOLDER/t: error: tensor \"a\" is in another of the files too\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tensors_come_in_the_order_of_the_data, setup, teardown),
        cmocka_unit_test_setup_teardown(a_scalar_is_a_tensor_of_rank_0, setup, teardown),
        cmocka_unit_test_setup_teardown(config_gives_numbers_and_strings, setup, teardown),
        cmocka_unit_test_setup_teardown(long_keys_of_config_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_are_joined_in_the_order_of_their_names, setup, teardown),
        cmocka_unit_test_setup_teardown(every_truncation_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(no_changed_byte_does_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_headers_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_names_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_dtypes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_shapes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_offsets_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(data_is_covered_exactly, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_entries_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_configuration_has_to_be_there_and_valid, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_has_to_hold_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_indexes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_weight_stands_in_the_shard_that_the_index_names, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
