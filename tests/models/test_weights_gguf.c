#include <dirent.h>
#include <string.h>

#include "graph/base/file.h"
#include "models/weights_impl.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/guarded.h"
#include "tests/support/printed.h"
#include "tests/support/touched.h"

/* Parses bytes that end where no memory follows, so that a read past the end crashes. The tensors are touched,
 * the weights are gone afterwards. */
static qgc_status parse(const void *data, size_t bytes, qgc_diag *d) {
    const unsigned char *exact = guarded_copy(data, bytes);
    assert_non_null(exact);
    qgc_weights *w = qgc_weights_new("x.gguf", QGC_WEIGHTS_GGUF);
    qgc_status s = qgc_gguf_parse(w, exact, bytes, qgc_weights_place(d, "x.gguf"), d);
    if (s == QGC_OK)
        touch_tensors(w);
    qgc_weights_close(w);
    return s;
}

/* The file is refused with exactly this text. */
static void fails(void **state, const qgc_str *s, const char *expected) {
    qgc_diag d = qgc_diag_new(*state);
    assert_int_equal(parse(s->text, s->bytes, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(*state, &d), expected);
}

static qgc_str start(void **state, uint64_t n_tensors, uint64_t n_keys) {
    qgc_str s = qgc_str_new(*state);
    gguf_put_header(&s, 3, n_tensors, n_keys);
    return s;
}

static qgc_weights *sample(void **state) {
    qgc_str s = gguf_sample(*state);
    qgc_diag d = qgc_diag_new(*state);
    qgc_weights *w = qgc_weights_new("some/folder/x.gguf", QGC_WEIGHTS_GGUF);
    qgc_status status = qgc_gguf_parse(w, s.text, s.bytes, QGC_NO_LOC, &d);
    assert_string_equal(qgc_test_printed(*state, &d), "");
    assert_int_equal(status, QGC_OK);
    return w;
}

static void numbers_of_every_type_are_read(void **state) {
    static const struct {
        const char *key;
        double value;
    } expected[] = {
        {"n.u8", 200},         {"n.i8", -2},  {"n.u16", 60000},  {"n.i16", -3},
        {"n.u32", 4000000000}, {"n.i32", -4}, {"n.f32", 0.25},   {"n.bool", 1},
        {"n.u64", 0x1p52},     {"n.i64", -5}, {"n.f64", 1e-300}, {"general.alignment", 64},
    };
    qgc_weights *w = sample(state);
    double got;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_true(qgc_weights_number(w, expected[i].key, &got));
        assert_true(got == expected[i].value);
    }
    assert_false(qgc_weights_number(w, "n.missing", &got));
    assert_false(qgc_weights_number(w, "general.architecture", &got));
    assert_false(qgc_weights_number(w, "a.i32", &got));
    assert_null(qgc_weights_string(w, "n.u8"));
    assert_null(qgc_weights_string(w, "a.tokens"));
    assert_string_equal(qgc_weights_string(w, "general.architecture"), "qwen2");
    assert_string_equal(qgc_weights_arch(w), "qwen2");
    assert_string_equal(qgc_weights_folder(w), "some/folder");
    qgc_weights_close(w);
}

static void arrays_are_indexed(void **state) {
    qgc_weights *w = sample(state);
    const char *text;
    size_t bytes;
    double number;
    assert_int_equal(qgc_weights_array_length(w, "a.tokens"), 4);
    assert_true(qgc_weights_array_string(w, "a.tokens", 0, &text, &bytes));
    assert_int_equal(bytes, 3);
    assert_memory_equal(text, "one", 3);
    assert_true(qgc_weights_array_string(w, "a.tokens", 1, &text, &bytes));
    assert_int_equal(bytes, 0);
    assert_true(qgc_weights_array_string(w, "a.tokens", 2, &text, &bytes));
    assert_int_equal(bytes, 3);
    assert_memory_equal(text, "a\0b", 3);
    assert_true(qgc_weights_array_string(w, "a.tokens", 3, &text, &bytes));
    assert_int_equal(bytes, 4);
    assert_memory_equal(text, "four", 4);
    assert_false(qgc_weights_array_string(w, "a.tokens", 4, &text, &bytes));
    assert_false(qgc_weights_array_string(w, "a.tokens", SIZE_MAX, &text, &bytes));
    assert_false(qgc_weights_array_number(w, "a.tokens", 0, &number));
    assert_int_equal(qgc_weights_array_length(w, "a.i32"), 3);
    assert_true(qgc_weights_array_number(w, "a.i32", 1, &number));
    assert_true(number == -1);
    assert_false(qgc_weights_array_number(w, "a.i32", 3, &number));
    assert_false(qgc_weights_array_string(w, "a.i32", 0, &text, &bytes));
    assert_true(qgc_weights_array_number(w, "a.bool", 1, &number));
    assert_true(number == 1);
    assert_int_equal(qgc_weights_array_length(w, "a.empty"), 0);
    assert_int_equal(qgc_weights_array_length(w, "n.u8"), 0);
    assert_int_equal(qgc_weights_array_length(w, "missing"), 0);
    qgc_weights_close(w);
}

static void shapes_come_outermost_first(void **state) {
    qgc_weights *w = sample(state);
    assert_int_equal(qgc_weights_count(w), 3);
    const qgc_tensor *t = qgc_weights_at(w, 0);
    assert_string_equal(t->name, "matrix");
    assert_int_equal(t->dtype, QGC_Q8_0);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 32);
    assert_int_equal(t->bytes, 68);
    assert_int_equal(*(const unsigned char *)t->data, 65);
    t = qgc_weights_find(w, "norm");
    assert_ptr_equal(t, qgc_weights_at(w, 2));
    assert_int_equal(t->rank, 1);
    assert_int_equal(t->shape[0], 5);
    assert_int_equal(t->bytes, 10);
    assert_int_equal(*(const unsigned char *)t->data, 193);
    assert_null(qgc_weights_find(w, "missing"));
    qgc_weights_close(w);
}

static void version_2_is_read_alike(void **state) {
    qgc_str s = gguf_sample(*state);
    s.text[4] = 2;
    qgc_diag d = qgc_diag_new(*state);
    assert_int_equal(parse(s.text, s.bytes, &d), QGC_OK);
}

static void every_truncation_is_refused(void **state) {
    qgc_str s = gguf_sample(*state);
    for (size_t bytes = 0; bytes < s.bytes; bytes++) {
        qgc_arena *a = qgc_arena_new();
        qgc_diag d = qgc_diag_new(a);
        assert_int_equal(parse(s.text, bytes, &d), QGC_ERR_INPUT);
        assert_true(strlen(qgc_diag_message(&d)) > 0);
        qgc_arena_drop(a);
    }
}

/* Whatever a single byte becomes, the file is read or refused, and nothing outside it is touched. */
static void no_changed_byte_does_harm(void **state) {
    static const unsigned char changes[] = {0x01, 0x80, 0xFF, 0x55};
    qgc_str s = gguf_sample(*state);
    for (size_t i = 0; i < s.bytes; i++)
        for (size_t k = 0; k < sizeof changes; k++) {
            qgc_arena *a = qgc_arena_new();
            qgc_diag d = qgc_diag_new(a);
            s.text[i] = (char)(s.text[i] ^ changes[k]);
            qgc_status status = parse(s.text, s.bytes, &d);
            assert_true(status == QGC_OK || status == QGC_ERR_INPUT);
            s.text[i] = (char)(s.text[i] ^ changes[k]);
            qgc_arena_drop(a);
        }
}

static void bad_headers_are_refused(void **state) {
    qgc_str s = qgc_str_new(*state);
    fails(state, &s,
          "x.gguf: error: the file ends inside the header: 4 bytes wanted at offset 0, 0 are left\n");
    qgc_str_add(&s, "GGML....");
    fails(state, &s, "x.gguf: error: does not start with \"GGUF\"\n");
    s = qgc_str_new(*state);
    gguf_put_header(&s, 1, 0, 0);
    fails(state, &s, "x.gguf: error: is of GGUF version 1, expected 2 or 3\n");
    s = qgc_str_new(*state);
    gguf_put_header(&s, 0, 0, 0);
    fails(state, &s, "x.gguf: error: is of GGUF version 0, expected 2 or 3\n");
    s = qgc_str_new(*state);
    gguf_put_header(&s, 0x03000000, 0, 0);
    fails(state, &s, "x.gguf: error: is a big-endian GGUF file, only little-endian ones are supported\n");
    s = start(state, 0x4000000000000000, 0);
    fails(state, &s, "x.gguf: error: has 4611686018427387904 tensors, more than the 65536 allowed\n");
    s = start(state, 0, UINT64_MAX);
    fails(state, &s, "x.gguf: error: has 18446744073709551615 keys, more than the 65536 allowed\n");
    s = start(state, 65536, 0);
    fails(state, &s, "x.gguf: error: has 65536 tensors, more than 24 bytes could hold\n");
    s = start(state, 0, 2);
    fails(state, &s, "x.gguf: error: has 2 keys, more than 24 bytes could hold\n");
}

static void bad_keys_are_refused(void **state) {
    qgc_str s = start(state, 0, 1);
    gguf_put(&s, UINT64_MAX, 8);
    gguf_put(&s, 0, 8);
    fails(state, &s,
          "x.gguf: error: the file ends inside key 0: 18446744073709551615 bytes wanted at offset 32, "
          "8 are left\n");
    s = start(state, 0, 1);
    gguf_put_key_u32(&s, "", 1);
    fails(state, &s, "x.gguf: error: the name of key 0 is empty\n");
    s = start(state, 0, 1);
    gguf_put_key_u32(&s, "red\033[31m", 1);
    fails(state, &s, "x.gguf: error: the name of key 0 has a control byte in it\n");
    s = start(state, 0, 1);
    gguf_put(&s, 1025, 8);
    for (int i = 0; i < 1025; i++)
        qgc_str_add(&s, "k");
    fails(state, &s, "x.gguf: error: the name of key 0 is longer than 1024 bytes\n");
    s = start(state, 0, 2);
    gguf_put_key_u32(&s, "same", 1);
    gguf_put_key_string(&s, "same", "x");
    fails(state, &s, "x.gguf: error: key \"same\" is there twice\n");
    s = start(state, 0, 1);
    gguf_put_key(&s, "k", 13);
    fails(state, &s, "x.gguf: error: key \"k\" has unknown value type 13\n");
    s = start(state, 0, 1);
    gguf_put_key(&s, "k", GGUF_BOOL);
    gguf_put(&s, 2, 1);
    fails(state, &s, "x.gguf: error: key \"k\" has boolean 2, expected 0 or 1\n");
    s = start(state, 0, 1);
    gguf_put_key(&s, "k", GGUF_STRING);
    gguf_put(&s, 3, 8);
    qgc_str_add_bytes(&s, "a\0b", 3);
    fails(state, &s, "x.gguf: error: key \"k\" has a zero byte in its text\n");
    s = start(state, 0, 1);
    gguf_put_key(&s, "k", GGUF_F64);
    gguf_put(&s, 0, 7);
    fails(state, &s,
          "x.gguf: error: the file ends inside key \"k\": 8 bytes wanted at offset 37, 7 are left\n");
}

static void bad_arrays_are_refused(void **state) {
    qgc_str s = start(state, 0, 1);
    gguf_put_key_array(&s, "k", GGUF_ARRAY, 1);
    gguf_put(&s, 0, 12);
    fails(state, &s, "x.gguf: error: key \"k\" is an array of arrays, which is not supported\n");
    s = start(state, 0, 1);
    gguf_put_key_array(&s, "k", 99, 1);
    fails(state, &s, "x.gguf: error: key \"k\" has unknown value type 99\n");
    s = start(state, 0, 1);
    gguf_put_key_array(&s, "k", GGUF_U64, 1ull << 61); /* times 8 is 0 */
    gguf_put(&s, 0, 8);
    fails(
        state, &s,
        "x.gguf: error: key \"k\" has 2305843009213693952 elements, more than the 8 bytes left could hold\n");
    s = start(state, 0, 1);
    gguf_put_key_array(&s, "k", GGUF_U32, 3);
    gguf_put(&s, 0, 8);
    fails(state, &s, "x.gguf: error: key \"k\" has 3 elements, more than the 8 bytes left could hold\n");
    s = start(state, 0, 1);
    gguf_put_key_array(&s, "k", GGUF_STRING, 2);
    gguf_put(&s, 100, 8);
    gguf_put(&s, 0, 8);
    fails(state, &s,
          "x.gguf: error: the file ends inside key \"k\": 100 bytes wanted at offset 57, 8 are left\n");
    s = start(state, 0, 1);
    gguf_put_key_array(&s, "k", GGUF_BOOL, 3);
    gguf_put(&s, 0x030001, 3);
    fails(state, &s, "x.gguf: error: key \"k\" has boolean 3, expected 0 or 1\n");
}

/* One tensor "t" in a file that has room for 64 elements of F32. */
static qgc_str with_tensor(void **state, const uint64_t dims[2], uint32_t type, uint64_t offset) {
    qgc_str s = start(state, 1, 0);
    gguf_put_tensor(&s, "t", dims, type, offset);
    gguf_put_padding(&s, 32);
    gguf_put_data(&s, 256);
    return s;
}

static void bad_tensors_are_refused(void **state) {
    static const uint64_t square[] = {8, 8};
    qgc_str s = with_tensor(state, square, GGML_F32, 0);
    qgc_diag d = qgc_diag_new(*state);
    assert_int_equal(parse(s.text, s.bytes, &d), QGC_OK);

    s = with_tensor(state, square, GGML_IQ4_XS, 0);
    fails(state, &s,
          "x.gguf: error: tensor \"t\" is stored as IQ4_XS, which is not supported\n"
          "  hint: Supported are F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, I32, BF16.\n");
    s = with_tensor(state, square, 31, 0);
    fails(state, &s,
          "x.gguf: error: tensor \"t\" is stored as unknown type 31\n"
          "  hint: Supported are F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, I32, BF16.\n");
    s = with_tensor(state, square, UINT32_MAX, 0);
    fails(state, &s,
          "x.gguf: error: tensor \"t\" is stored as unknown type 4294967295\n"
          "  hint: Supported are F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, I32, BF16.\n");
    s = with_tensor(state, (uint64_t[]){0, 8}, GGML_F32, 0);
    fails(state, &s, "x.gguf: error: tensor \"t\" has a dimension of 0, expected at least 1\n");
    s = with_tensor(state, (uint64_t[]){8, UINT64_MAX}, GGML_F32, 0);
    fails(state, &s, "x.gguf: error: tensor \"t\" has a dimension of -1, expected at least 1\n");
    s = with_tensor(state, (uint64_t[]){40, 2}, GGML_Q8_0, 0);
    fails(state, &s,
          "x.gguf: error: tensor \"t\" has rows of 40 elements, which q8_0 stores in blocks of 32\n");
    s = with_tensor(state, (uint64_t[]){1ull << 32, 1ull << 31}, GGML_F32, 0); /* 2^65 bytes */
    fails(state, &s, "x.gguf: error: tensor \"t\" is larger than the file of 352 bytes\n");
    s = with_tensor(state, (uint64_t[]){1ull << 62, 1}, GGML_F32, 0); /* 2^64 bytes */
    fails(state, &s, "x.gguf: error: tensor \"t\" is larger than the file of 352 bytes\n");
    s = with_tensor(state, (uint64_t[]){100, 1}, GGML_F32, 0);
    fails(state, &s, "x.gguf: error: tensor \"t\" is larger than the file of 352 bytes\n");
    s = with_tensor(state, square, GGML_F32, 16);
    fails(state, &s, "x.gguf: error: tensor \"t\" is at offset 16, which is not a multiple of 32\n");
    s = with_tensor(state, square, GGML_F32, 32);
    fails(state, &s,
          "x.gguf: error: tensor \"t\" has 256 bytes at offset 32, which is outside the file of 352 bytes\n");
    s = with_tensor(state, square, GGML_F32, UINT64_MAX - 31); /* with the start of the data it wraps to 64 */
    fails(state, &s,
          "x.gguf: error: tensor \"t\" has 256 bytes at offset 18446744073709551584, which is outside the "
          "file of 352 bytes\n");

    s = start(state, 1, 0);
    gguf_put_string(&s, "t");
    gguf_put(&s, 5, 4);
    gguf_put_data(&s, 64);
    fails(state, &s, "x.gguf: error: tensor \"t\" has rank 5, expected 1 to 4\n");
    s = start(state, 1, 0);
    gguf_put_string(&s, "t");
    gguf_put(&s, 0, 4);
    gguf_put_data(&s, 64);
    fails(state, &s, "x.gguf: error: tensor \"t\" has rank 0, expected 1 to 4\n");
}

static qgc_str with_two(void **state, const char *first, const char *second, uint64_t offset) {
    qgc_str s = start(state, 2, 0);
    gguf_put_tensor(&s, first, (uint64_t[]){8, 2}, GGML_F32, offset);
    gguf_put_tensor(&s, second, (uint64_t[]){8, 2}, GGML_F32, 0);
    gguf_put_padding(&s, 32);
    gguf_put_data(&s, 192);
    return s;
}

static void two_tensors_share_neither_name_nor_bytes(void **state) {
    qgc_str s = with_two(state, "a", "b", 64);
    qgc_diag d = qgc_diag_new(*state);
    assert_int_equal(parse(s.text, s.bytes, &d), QGC_OK);
    s = with_two(state, "a", "b", 32);
    fails(state, &s, "x.gguf: error: tensors \"b\" and \"a\" share bytes of the file\n");
    s = with_two(state, "a", "a", 64);
    fails(state, &s, "x.gguf: error: tensor \"a\" is there twice\n");
}

static void alignment_is_a_power_of_two(void **state) {
    static const struct {
        uint32_t value;
        const char *expected;
    } bad[] = {
        {0, "x.gguf: error: key \"general.alignment\" is 0, expected a power of two of at least 8\n"},
        {4, "x.gguf: error: key \"general.alignment\" is 4, expected a power of two of at least 8\n"},
        {48, "x.gguf: error: key \"general.alignment\" is 48, expected a power of two of at least 8\n"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qgc_str s = start(state, 0, 1);
        gguf_put_key_u32(&s, "general.alignment", bad[i].value);
        fails(state, &s, bad[i].expected);
    }
    qgc_str s = start(state, 0, 1);
    gguf_put_key_string(&s, "general.alignment", "32");
    fails(state, &s, "x.gguf: error: key \"general.alignment\" is not a number of 32 bits\n");
    /* the largest one is fine by itself, but leaves no room for a tensor */
    s = start(state, 1, 1);
    gguf_put_key_u32(&s, "general.alignment", 1u << 31);
    gguf_put_tensor(&s, "t", (uint64_t[]){1, 1}, GGML_F32, 0);
    fails(state, &s,
          "x.gguf: error: tensor \"t\" has 4 bytes at offset 0, which is outside the file of 98 bytes\n");
}

static void files_are_told_by_their_content(void **state) {
    const char *folder = qgc_test_folder(*state);
    qgc_str s = gguf_sample(*state);
    const char *path = qgc_test_write(*state, folder, "weights.safetensors", s.text, s.bytes);
    qgc_diag d = qgc_diag_new(*state);
    qgc_weights *w;
    assert_int_equal(qgc_weights_open(&w, path, &d), QGC_OK);
    assert_int_equal(qgc_weights_kind(w), QGC_WEIGHTS_GGUF);
    assert_string_equal(qgc_weights_path(w), path);
    assert_string_equal(qgc_weights_folder(w), folder);
    assert_string_equal(qgc_weights_loc(w).source->name, path);
    assert_int_equal(qgc_weights_count(w), 3);
    qgc_weights_close(w);
    qgc_weights_close(NULL);

    path = qgc_test_write(*state, folder, "text.gguf", "hello, world", 12);
    assert_int_equal(qgc_weights_open(&w, path, &d), QGC_ERR_INPUT);
    assert_null(w);
    assert_string_equal(qgc_test_printed(*state, &d),
                        qgc_arena_printf(*state,
                                         "%s: error: is neither a GGUF nor a safetensors file\n"
                                         "  hint: Give a .gguf file, a .safetensors file, or a folder with "
                                         "config.json and safetensors files.\n",
                                         path));
    d = qgc_diag_new(*state);
    path = qgc_test_write(*state, folder, "empty.gguf", "", 0);
    assert_int_equal(qgc_weights_open(&w, path, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "is neither a GGUF nor a safetensors file");
    d = qgc_diag_new(*state);
    assert_int_equal(qgc_weights_open(&w, qgc_test_path(*state, folder, "none.gguf"), &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "could not open the file: No such file or directory");
    qgc_test_folder_drop(*state, folder);
}

/* What the tensors of the golden files widen to, against values made by another program. */

#define QUANT QGC_SOURCE_DIR "/tests/golden/quant"

/* Tensor "t" of TYPE.gguf, and tensor "type" of any file, hold what is in TYPE.f32. */
static const char *values_path(qgc_arena *a, const char *file, const char *tensor) {
    const char *dot = strrchr(file, '.');
    char *stem = strcmp(tensor, "t") == 0 ? qgc_arena_strndup(a, file, (size_t)(dot - file))
                                          : qgc_arena_strdup(a, tensor);
    for (char *p = stem; *p; p++)
        if (*p >= 'a' && *p <= 'z')
            *p = (char)(*p - 'a' + 'A');
    return qgc_arena_printf(a, QUANT "/%s.f32", stem);
}

static void compare_with_values(qgc_arena *a, const qgc_tensor *t, const char *path) {
    qgc_diag d = qgc_diag_new(a);
    qgc_source values;
    assert_int_equal(qgc_file_read(&values, path, 1 << 20, "the values", &d), QGC_OK);
    int64_t n = qgc_tensor_rows(t) * qgc_tensor_row_elems(t);
    assert_int_equal(values.bytes, (size_t)n * sizeof(float));
    float *got = qgc_arena_array(a, (size_t)n, sizeof *got);
    qgc_to_f32(t->dtype, t->data, got, n);
    assert_memory_equal(got, values.text, values.bytes);
}

static void golden_blocks_widen_to_golden_values(void **state) {
    DIR *folder = opendir(QUANT);
    if (!folder) {
        skip();
        return;
    }
    int n_compared = 0;
    for (struct dirent *e; (e = readdir(folder));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".gguf") != 0)
            continue;
        qgc_diag d = qgc_diag_new(*state);
        qgc_weights *w;
        assert_int_equal(qgc_weights_open(&w, qgc_test_path(*state, QUANT, e->d_name), &d), QGC_OK);
        for (size_t i = 0; i < qgc_weights_count(w); i++, n_compared++) {
            const qgc_tensor *t = qgc_weights_at(w, i);
            compare_with_values(*state, t, values_path(*state, e->d_name, t->name));
        }
        qgc_weights_close(w);
    }
    closedir(folder);
    assert_true(n_compared > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(numbers_of_every_type_are_read),
        ARENA_TEST(arrays_are_indexed),
        ARENA_TEST(shapes_come_outermost_first),
        ARENA_TEST(version_2_is_read_alike),
        ARENA_TEST(every_truncation_is_refused),
        ARENA_TEST(no_changed_byte_does_harm),
        ARENA_TEST(bad_headers_are_refused),
        ARENA_TEST(bad_keys_are_refused),
        ARENA_TEST(bad_arrays_are_refused),
        ARENA_TEST(bad_tensors_are_refused),
        ARENA_TEST(two_tensors_share_neither_name_nor_bytes),
        ARENA_TEST(alignment_is_a_power_of_two),
        ARENA_TEST(files_are_told_by_their_content),
        ARENA_TEST(golden_blocks_widen_to_golden_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
