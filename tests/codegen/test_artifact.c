#include <stdio.h>
#include <string.h>

#include "codegen/artifact.h"
#include "graph/base/hash.h"
#include "tests/support/cmocka.h"
#include "tests/support/guarded.h"
#include "tests/support/printed.h"
#include "tests/support/small_plan.h"

#define SEED QGC_SOURCE_DIR "/tests/fuzz/corpus/artifact/small"

enum { AT_VERSION = 4, AT_TABLE_HASH = 24, AT_TABLE = 32, TABLE_BYTES = 64 };

typedef struct {
    qgc_arena *arena;
    qgc_source name;
    unsigned char *data; /* the small plan as a file */
    size_t bytes;
} fixture;

static int setup(void **state) {
    qgc_arena *a = qgc_arena_new();
    fixture *f = qgc_arena_alloc(a, sizeof *f);
    const void *data;
    *f = (fixture){.arena = a, .name = {"small.qgc", NULL, 0}};
    qgc_artifact_pack(small_plan(a), a, &data, &f->bytes);
    f->data = small_copy(a, data, f->bytes);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    qgc_arena_drop(((fixture *)*state)->arena);
    return 0;
}

static qgc_status unpack(fixture *f, const void *data, size_t bytes, qgc_plan **p, qgc_diag *d) {
    *d = qgc_diag_new(f->arena);
    return qgc_artifact_unpack(p, data, bytes, (qgc_loc){.source = &f->name}, d);
}

static void expect_error(fixture *f, const void *data, size_t bytes, const char *text) {
    qgc_plan *p;
    qgc_diag d;
    assert_int_equal(unpack(f, data, bytes, &p, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &d), text);
}

static void gives_back_the_plan(void **state) {
    fixture *f = *state;
    qgc_plan *p;
    qgc_diag d;
    assert_int_equal(unpack(f, f->data, f->bytes, &p, &d), QGC_OK);
    assert_string_equal(p->source, "qgc: 1\nname: small\n");
    assert_string_equal(p->archs[1], "sm_80");
    assert_string_equal(p->params[0].hf[1], "hidden_size");
    assert_true(p->params[1].value == 1e-6);
    assert_string_equal(p->params[2].words[1], "sliding");
    assert_true(p->params[2].turns == 2 && p->params[2].values[1] == 1 && p->params[2].otherwise[0] == 1);
    assert_true(p->weights[1].gguf_form.of == 4 && p->weights[1].gguf_form.heads == 2);
    assert_true(p->weights[1].hf_form.transposed && p->weights[1].hf_form.plus == 1);
    assert_string_equal(p->hf_arch, "small,other");
    assert_null(p->weights[1].hf);
    assert_int_equal(p->weights[0].shape[0], SMALL_VOCAB);
    assert_int_equal(p->buffers[SMALL_X].offset, 256);
    assert_int_equal(p->n_images, 4);
    assert_memory_equal(p->images[3].data, "fourth image", 12);
    assert_int_equal(((const unsigned char *)p->images[3].data - f->data) % 64, 0);
    const qgc_plan_launch *embed = &p->phases[QGC_PHASE_DECODE].launches[0];
    assert_string_equal(embed->where, "small.yaml:7:5");
    assert_int_equal(embed->args[2].value.fixed, -4 * SMALL_D);
    assert_string_equal(embed->not_early, "it is the first launch of its phase");
    assert_int_equal(p->kernels[1].lets_next, QGC_NEXT_BEHIND_WAIT);
    assert_int_equal(embed->args[0].access, QGC_READS | QGC_EARLY);
    assert_true(p->phases[QGC_PHASE_PREFILL].launches[1].accumulate);
}

/* All texts are printed, by inspect say: names are one line of UTF-8 without control characters, graphs several. */
static void refuses_texts_that_a_terminal_would_obey(void **state) {
    static const char *const names[] = {"a\033[1m", "a\nb", "a\x9B", "a\xC2\x9B", "a\x7F"};
    fixture *f = *state;
    for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
        qgc_plan *changed = small_plan(f->arena), *p;
        const bool good = i == sizeof names / sizeof *names;
        changed->phases[QGC_PHASE_DECODE].launches[0].where = good ? "a\xC3\xA9:1:2" : names[i];
        const void *data;
        size_t bytes;
        qgc_diag d;
        qgc_artifact_pack(changed, f->arena, &data, &bytes);
        assert_int_equal(unpack(f, data, bytes, &p, &d), good ? QGC_OK : QGC_ERR_INPUT);
    }
}

/* Rows 1 to 4 of "head", and what cannot be derived of it. */
static void derived_weights_name_those_before_them(void **state) {
    static const struct {
        qgc_derivation how;
        const char *message; /* NULL: it is read as it was written */
    } cases[] = {
        {{.kind = QGC_DERIVE_ROWS, .n_from = 1, .from = {0}, .first = 1, .last = 5}, NULL},
        {{.kind = QGC_DERIVE_ROWS, .n_from = 1, .from = {2}, .first = 1, .last = 5},
         "weight \"some\" is derived of weight 2, which is not before it"},
        {{.kind = QGC_DERIVE_ROWS, .n_from = 1, .from = {0}, .first = 1, .last = 6},
         "weight \"some\" has another shape than what is derived"},
        {{.kind = QGC_DERIVE_ROWS, .n_from = 1, .from = {0}, .first = 1, .last = 9},
         "weight \"some\" cannot be derived: 1 to 8 is not within 8"},
        {{.kind = QGC_DERIVE_SCALE_COLUMNS, .n_from = 1, .from = {0}},
         "weight \"some\" cannot be derived: scale_columns is made of 2 weights, not 1"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_plan *plan = small_plan(f->arena), *p;
        const void *data;
        size_t bytes;
        qgc_diag d;
        qgc_plan_weight *all = qgc_arena_array(f->arena, 3, sizeof *all);
        memcpy(all, plan->weights, 2 * sizeof *all);
        all[2] = (qgc_plan_weight){.label = "some",
                                   .tied = -1,
                                   .rank = 2,
                                   .shape = {4, SMALL_D},
                                   .storage = QGC_BF16,
                                   .derived = cases[i].how};
        plan->weights = all;
        plan->n_weights = 3;
        qgc_artifact_pack(plan, f->arena, &data, &bytes);
        const qgc_status s = unpack(f, data, bytes, &p, &d);
        assert_int_equal(s, cases[i].message ? QGC_ERR_INPUT : QGC_OK);
        if (s == QGC_OK)
            assert_true(qgc_derivation_equal(&p->weights[2].derived, &cases[i].how));
        else if (!strstr(qgc_diag_message(&d), cases[i].message))
            fail_msg("case %zu: %s", i, qgc_diag_message(&d));
    }
}

static void packs_what_it_unpacked_to_the_same_bytes(void **state) {
    fixture *f = *state;
    qgc_plan *p;
    qgc_diag d;
    const void *again;
    size_t bytes;
    assert_int_equal(unpack(f, f->data, f->bytes, &p, &d), QGC_OK);
    qgc_artifact_pack(p, f->arena, &again, &bytes);
    assert_int_equal(bytes, f->bytes);
    assert_memory_equal(again, f->data, bytes);
}

/* The file on disk pins the format: when it moves, the version has to. It is also a seed of the fuzz target.
 * Written anew by `test_codegen_artifact --update`. */
static void format_is_that_of_the_version(void **state) {
    fixture *f = *state;
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_file seed;
    assert_int_equal(qgc_file_open(&seed, SEED, &d), QGC_OK);
    assert_int_equal(seed.bytes, f->bytes);
    assert_memory_equal(seed.data, f->data, f->bytes);
    qgc_file_close(&seed);
}

static void refuses_a_file_cut_at_any_length(void **state) {
    fixture *f = *state;
    for (size_t n = 0; n < f->bytes; n++) {
        qgc_arena *a = qgc_arena_new();
        qgc_diag d = qgc_diag_new(a);
        qgc_plan *p;
        const unsigned char *cut = guarded_copy(f->data, n);
        assert_non_null(cut);
        assert_int_equal(qgc_artifact_unpack(&p, cut, n, QGC_NO_LOC, &d), QGC_ERR_INPUT);
        qgc_arena_drop(a);
    }
    expect_error(f, f->data, 0, "small.qgc: error: is not a .qgc file\n");
    expect_error(f, f->data, 20, "small.qgc: error: the file is truncated: 20 bytes\n");
    expect_error(f, f->data, 100,
                 qgc_arena_printf(f->arena,
                                  "small.qgc: error: the file is truncated: 100 bytes, expected %zu\n",
                                  f->bytes));
}

static void refuses_a_change_of_any_byte(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < f->bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            qgc_arena *a = qgc_arena_new();
            qgc_diag d = qgc_diag_new(a);
            qgc_plan *p;
            f->data[i] ^= (unsigned char)(1 << bit);
            assert_int_equal(qgc_artifact_unpack(&p, f->data, f->bytes, QGC_NO_LOC, &d), QGC_ERR_INPUT);
            f->data[i] ^= (unsigned char)(1 << bit);
            qgc_arena_drop(a);
        }
}

static void says_which_section_is_damaged(void **state) {
    fixture *f = *state;
    f->data[f->bytes - 1] ^= 1;
    expect_error(f, f->data, f->bytes, "small.qgc: error: section \"images\" of the file is damaged\n");
    f->data[f->bytes - 1] ^= 1;
    f->data[150] ^= 1;
    expect_error(f, f->data, f->bytes, "small.qgc: error: section \"plan\" of the file is damaged\n");
    f->data[150] ^= 1;
    f->data[AT_TABLE] ^= 1;
    expect_error(f, f->data, f->bytes, "small.qgc: error: the section table of the file is damaged\n");
}

static void refuses_bytes_behind_the_end(void **state) {
    fixture *f = *state;
    unsigned char *longer = qgc_arena_alloc(f->arena, f->bytes + 1);
    memcpy(longer, f->data, f->bytes);
    expect_error(f, longer, f->bytes + 1,
                 qgc_arena_printf(f->arena,
                                  "small.qgc: error: the file is too long: %zu bytes, expected %zu\n",
                                  f->bytes + 1, f->bytes));
}

static void refuses_other_versions_with_both_numbers(void **state) {
    fixture *f = *state;
    f->data[AT_VERSION] = QGC_ARTIFACT_VERSION + 1;
    expect_error(f, f->data, f->bytes,
                 "small.qgc: error: the file has version 16, expected 15\n"
                 "  hint: Compile the model again with this qgc, or run it with a newer one.\n");
    f->data[AT_VERSION] = 0;
    expect_error(f, f->data, f->bytes,
                 "small.qgc: error: the file has version 0, expected 15\n"
                 "  hint: Compile the model again with this qgc.\n");
}

static void put_hash(unsigned char *to, const void *data, size_t bytes) {
    uint64_t hash = qgc_hash64(data, bytes);
    for (int i = 0; i < 8; i++)
        to[i] = (unsigned char)(hash >> (8 * i));
}

/* The first section starts after the table; its length is in its row. */
static unsigned char *plan_section(fixture *f) {
    return f->data + 128;
}

static void seal(fixture *f) {
    const unsigned char *row = f->data + AT_TABLE;
    size_t bytes = (size_t)row[16] | (size_t)row[17] << 8 | (size_t)row[18] << 16;
    put_hash(f->data + AT_TABLE + 24, plan_section(f), bytes);
    put_hash(f->data + AT_TABLE_HASH, f->data + AT_TABLE, TABLE_BYTES);
}

/* With checksums that are right: a liar's file, not a damaged one. */
static void refuses_lengths_that_lie(void **state) {
    fixture *f = *state;
    unsigned char *name_length = plan_section(f);
    seal(f);
    qgc_plan *p;
    qgc_diag d;
    assert_int_equal(unpack(f, f->data, f->bytes, &p, &d), QGC_OK);

    memset(name_length, 0xFF, 4);
    seal(f);
    expect_error(f, f->data, f->bytes,
                 "small.qgc: error: section \"plan\" of the file is malformed at byte 4\n");

    memset(name_length, 0, 4); /* no name: the rest is read five bytes too early */
    seal(f);
    assert_int_equal(unpack(f, f->data, f->bytes, &p, &d), QGC_ERR_INPUT);
}

static void refuses_a_plan_that_is_wrong(void **state) {
    fixture *f = *state;
    qgc_plan *p = small_plan(f->arena);
    p->phases[QGC_PHASE_PREFILL].launches[0].args[0].buffer = 99;
    const void *data;
    size_t bytes;
    qgc_artifact_pack(p, f->arena, &data, &bytes);
    expect_error(f, data, bytes,
                 "small.qgc: error: launch \"embedding x\" names buffer 99, but there are 14\n");
}

static int update(void) {
    void *state;
    setup(&state);
    fixture *f = state;
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_status status = qgc_file_write(SEED, f->data, f->bytes, &d);
    qgc_diag_print(&d, stderr, false);
    teardown(&state);
    return (int)status;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--update") == 0)
        return update();
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(refuses_texts_that_a_terminal_would_obey),
        TEST(gives_back_the_plan),
        TEST(derived_weights_name_those_before_them),
        TEST(packs_what_it_unpacked_to_the_same_bytes),
        TEST(format_is_that_of_the_version),
        TEST(refuses_a_file_cut_at_any_length),
        TEST(refuses_a_change_of_any_byte),
        TEST(says_which_section_is_damaged),
        TEST(refuses_bytes_behind_the_end),
        TEST(refuses_other_versions_with_both_numbers),
        TEST(refuses_lengths_that_lie),
        TEST(refuses_a_plan_that_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
