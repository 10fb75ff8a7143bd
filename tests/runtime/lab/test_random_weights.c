/* Random weights in memory: their numbers, their types, the graphs that they are for. */

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/lab/random_types.h"
#include "runtime/lab/random_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

static qgc_graph *load(fixture *f, const char *path) {
    qgc_graph *g;
    ok(f, qgc_graph_load(&g, path, f->arena, &f->diag));
    return g;
}

/* A model of one matrix and a norm; and of one more parameter. */
static const char *small_with(fixture *f, const char *param, const char *matrix, const char *norm) {
    return fixture_write(
        f, "small.yaml",
        qgc_arena_printf(f->arena,
                         "qgc: 1\nname: small\narch: qwen2\n"
                         "params: {base: {value: 1e6, hf: rope_parameters.rope_theta, gguf: qwen2.base}%s}\n"
                         "weights:\n  w: %s\n  out_norm: %s\n"
                         "state: {seen: {shape: [512], dtype: i32}}\n"
                         "inputs: {tokens: [T], positions: [T], rows: [R]}\n"
                         "graph:\n"
                         "  - {op: embedding, in: [tokens, w], out: x}\n"
                         "  - {op: rms_norm, in: [x, out_norm], eps: 1e-6, out: h}\n"
                         "  - {op: select_rows, in: [h, rows], out: last}\n"
                         "  - {op: linear, in: [last, w], out: logits}\n"
                         "  - {op: mark, in: [seen, tokens], out: now}\n"
                         "  - {op: sample, in: [logits, rows, positions, now], out: next}\n"
                         "outputs: [logits, next]\n",
                         param, matrix, norm));
}

static const char *small(fixture *f, const char *matrix, const char *norm) {
    return small_with(f, "", matrix, norm);
}

static void bind(fixture *f, const char *path) {
    qgc_graph *g = load(f, path);
    qgc_weights *w;
    const qgc_tensor **tensors;
    ok(f, qgc_random_weights_open(&w, g, NULL, 7, &f->diag));
    ok(f, qgc_graph_bind(g, w, false, &tensors, &f->diag));
    qgc_weights_close(w);
}

/* Graphs that only GPU tests compute are bound here too: a key that their family comes to read is seen without a GPU. */
static void graphs_of_the_gpu_tests_take_them(void **state) {
    fixture *f = *state;
    static const char *const shapes[] = {"broad",  "chosen", "eights",   "experts", "gemma",
                                         "halves", "long",   "mixed",    "nines",   "odd",
                                         "sevens", "single", "smallest", "tall",    "wide"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        bind(f, qgc_arena_printf(f->arena, "tests/gpu/shapes/%s.yaml", shapes[i]));
    DIR *folder = opendir("tests/gpu/cases");
    assert_non_null(folder);
    for (struct dirent *e; (e = readdir(folder));)
        if (strstr(e->d_name, ".yaml"))
            bind(f, qgc_arena_printf(f->arena, "tests/gpu/cases/%s", e->d_name));
    closedir(folder);
}

static void the_numbers_are_those_of_the_file(void **state) {
    fixture *f = *state;
    const qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    const char *path = fixture_path(f, "random.gguf");
    qgc_weights *file, *memory;
    ok(f, qgc_random_weights_write(g, path, 7, &f->diag));
    ok(f, qgc_weights_open(&file, path, &f->diag));
    ok(f, qgc_random_weights_open(&memory, g, NULL, 7, &f->diag));
    assert_int_equal(qgc_weights_count(file), qgc_weights_count(memory));
    for (size_t i = 0; i < qgc_weights_count(file); i++) {
        const qgc_tensor *a = qgc_weights_at(file, i), *b = qgc_weights_find(memory, a->name);
        assert_non_null(b);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    qgc_weights_close(file);
    qgc_weights_close(memory);
}

/* Every type: the mean is about 0, and the square of a row's sum about that of one activation. */
static void blocks_of_every_type_are_of_the_right_size(void **state) {
    fixture *f = *state;
    static const char *const types[] = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1",
                                        "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"};
    const qgc_graph *g = load(f, small(f, "{shape: [512, 256], gguf: w}", "{shape: [256], gguf: norm}"));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        qgc_weights *w;
        ok(f, qgc_random_weights_open(&w, g, types[i], 1, &f->diag));
        const qgc_tensor *t = qgc_weights_find(w, "w");
        const bool head = i > 3; /* which has a type of its own where the others are quantised */
        assert_string_equal(qgc_dtypes[t->dtype].name, head ? "q6_k" : types[i]);
        float *x = qgc_arena_array(f->arena, 512 * 256, sizeof *x);
        qgc_to_f32(t->dtype, t->data, x, 512 * 256);
        double sum = 0, squares = 0;
        for (int k = 0; k < 512 * 256; k++) {
            sum += (double)x[k];
            squares += (double)x[k] * (double)x[k];
        }
        const double rms = sqrt(squares / (512 * 256));
        if (!(rms > 0.9 / 16 && rms < 1.1 / 16 && fabs(sum / (512 * 256)) < 0.05 * rms))
            fail_msg("%s: %g, mean %g", types[i], rms, sum / (512 * 256));
        assert_int_equal(qgc_weights_find(w, "norm")->dtype, QGC_F32);
        qgc_weights_close(w);
    }
    for (int type = QGC_Q8_0; type <= QGC_Q6_K; type++) { /* the blocks themselves */
        uint64_t seed = 3;
        const int64_t n = 200, elems = n * qgc_dtypes[type].block_elems;
        char *blocks = qgc_arena_alloc(f->arena, qgc_dtype_bytes((qgc_dtype)type, elems));
        float *x = qgc_arena_array(f->arena, (size_t)elems, sizeof *x);
        qgc_random_blocks((qgc_dtype)type, 0.02f, &seed, blocks, n);
        qgc_to_f32((qgc_dtype)type, blocks, x, elems);
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < elems; k++) {
            sum += (double)x[k];
            squares += (double)x[k] * (double)x[k];
        }
        const double rms = sqrt(squares / (double)elems), mean = sum / (double)elems;
        if (!(rms > 0.015 && rms < 0.025 && fabs(mean) < 0.15 * rms))
            fail_msg("%s: %g, mean %g", qgc_dtypes[type].name, rms, mean);
    }
}

/* llama.cpp's rules for 24 layers: more bits in the first and last eighth, and in each third layer between. */
static void a_mix_gives_more_bits_to_what_matters_most(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int layer, row;
        bool is_head;
        qgc_dtype q4, q5;
    } cases[] = {
        {"token_embd.weight", -1, 1024, false, QGC_Q4_K, QGC_Q5_K},
        {"output.weight", -1, 1024, true, QGC_Q6_K, QGC_Q6_K},
        {"blk.0.attn_q.weight", 0, 1024, false, QGC_Q4_K, QGC_Q5_K},
        {"blk.0.attn_v.weight", 0, 1024, false, QGC_Q6_K, QGC_Q6_K},
        {"blk.3.attn_v.weight", 3, 1024, false, QGC_Q4_K, QGC_Q5_K},
        {"blk.5.attn_v.weight", 5, 1024, false, QGC_Q6_K, QGC_Q6_K},
        {"blk.20.ffn_down.weight", 20, 1024, false, QGC_Q6_K, QGC_Q6_K},
        {"blk.21.ffn_down.weight", 21, 1024, false, QGC_Q6_K, QGC_Q6_K},
        {"blk.6.ffn_down.weight", 6, 896, false, QGC_Q5_0, QGC_Q5_1},
        {"blk.23.ffn_down.weight", 23, 896, false, QGC_Q8_0, QGC_Q8_0},
        {"blk.6.ffn_up.weight", 6, 100, false, QGC_F16, QGC_F16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qgc_random_tensor t = {.name = cases[i].name,
                                     .dtype = QGC_BF16,
                                     .rank = 2,
                                     .layer = cases[i].layer,
                                     .n_layers = 24,
                                     .is_head = cases[i].is_head,
                                     .shape = {64, cases[i].row}};
        assert_int_equal(qgc_random_type(&t, "q4_k_m"), cases[i].q4);
        assert_int_equal(qgc_random_type(&t, "q5_k_m"), cases[i].q5);
        assert_int_equal(qgc_random_type(&t, NULL), QGC_BF16);
    }
    const qgc_random_tensor norm = {
        .name = "blk.0.attn_norm.weight", .dtype = QGC_BF16, .rank = 1, .shape = {64}};
    assert_int_equal(qgc_random_type(&norm, "q4_k_m"), QGC_F32);
}

static void binds(fixture *f, const char *path, qgc_weights_format format, qgc_dtype dtype) {
    qgc_graph *g = load(f, path);
    qgc_weights *w;
    const qgc_tensor **tensors;
    ok(f, qgc_random_weights_open(&w, g, NULL, 1, &f->diag));
    assert_int_equal(qgc_weights_kind(w), format);
    ok(f, qgc_graph_bind(g, w, false, &tensors, &f->diag));
    assert_int_equal(qgc_weights_at(w, 0)->dtype, dtype);
    qgc_weights_close(w);
}

static void graphs_of_any_names_and_types_get_some(void **state) {
    fixture *f = *state;
    binds(f, small(f, "{shape: [512, 256], hf: w}", "{shape: [256], hf: norm}"), QGC_WEIGHTS_HF, QGC_BF16);
    binds(f, small(f, "{shape: [512, 256], gguf: w, dtype: q4_k}", "{shape: [256], gguf: norm}"),
          QGC_WEIGHTS_GGUF, QGC_Q4_K);
    binds(
        f,
        small(f, "{shape: [512, 256], gguf: w, hf: v, dtype: q8_0}", "{shape: [256], hf: norm, dtype: f32}"),
        QGC_WEIGHTS_HF, QGC_Q8_0);
    qgc_weights *w;
    const qgc_graph *g = load(f, small(f, "{shape: [512, 256], gguf: w}", "{shape: [256], hf: norm}"));
    assert_int_equal(qgc_random_weights_open(&w, g, NULL, 1, &f->diag), QGC_ERR_INPUT);
    has(qgc_diag_message(&f->diag), "so no file can hold all");
    f->diag = qgc_diag_new(f->arena);
    assert_int_equal(qgc_random_weights_open(&w, g, "q3_k", 1, &f->diag), QGC_ERR_USAGE);
}

/* What a file leaves out means other numbers in the other format. */
static void a_graph_for_one_format_gets_that(void **state) {
    fixture *f = *state;
    static const char both[] = "{shape: [512, 256], gguf: w, hf: w}",
                      norm[] = "{shape: [256], gguf: n, hf: n}";
    binds(f, small_with(f, ", gguf: {gguf: format(gguf), value: 0}", both, norm), QGC_WEIGHTS_HF, QGC_BF16);
    binds(f, small_with(f, ", gguf: {gguf: format(gguf), value: 1}", both, norm), QGC_WEIGHTS_GGUF, QGC_BF16);
    binds(f, small(f, both, norm), QGC_WEIGHTS_GGUF, QGC_BF16);
}

/* An error, and not a machine that dies. */
static void more_than_the_memory_is_an_error(void **state) {
    fixture *f = *state;
    qgc_weights *w;
    const qgc_graph *g =
        load(f, small(f, "{shape: [512, 2147483647], gguf: w}", "{shape: [2147483647], gguf: norm}"));
    assert_int_equal(qgc_random_weights_open(&w, g, "f32", 1, &f->diag), QGC_ERR_DEVICE);
    has(qgc_diag_message(&f->diag), " GB take more memory than there is");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(graphs_of_the_gpu_tests_take_them),
        FIXTURE_TEST(the_numbers_are_those_of_the_file),
        FIXTURE_TEST(blocks_of_every_type_are_of_the_right_size),
        FIXTURE_TEST(a_mix_gives_more_bits_to_what_matters_most),
        FIXTURE_TEST(graphs_of_any_names_and_types_get_some),
        FIXTURE_TEST(a_graph_for_one_format_gets_that),
        FIXTURE_TEST(more_than_the_memory_is_an_error),
    };
    return cmocka_run_group_tests_name("runtime/lab/random_weights", tests, NULL, NULL);
}
