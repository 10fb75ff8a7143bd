#include <stdlib.h>
#include <string.h>

#include "codegen/card.h"
#include "graph/base/file.h"
#include "tests/support/fixture.h"

static qgc_card read(fixture *f, const char *text) {
    qgc_card card;
    assert_int_equal(qgc_card_read(text, &card, &f->diag), QGC_OK);
    return card;
}

static void has_a_table_of_cards(void **state) {
    fixture *f = *state;
    qgc_card card, other;
    size_t n = 0;
    for (; qgc_card_at(n, &card); n++) {
        assert_string_equal(read(f, card.name).product, card.product);
        assert_true(qgc_card_of_product(card.product, &other));
        assert_string_equal(other.name, card.name);
        assert_true(card.arch >= 75 && card.sms >= 16 && card.sms <= 256);
        assert_true(card.bandwidth >= 200000000000 && card.bandwidth < 10000000000000);
        assert_true(card.l2_bytes >= 1 << 20 && card.memory_bytes >= (int64_t)8 << 30);
        assert_true(card.shared_bytes >= 65536 && card.shared_bytes <= 232448);
        assert_int_equal(card.no_bf16, card.arch < 80);
    }
    assert_true(n > 10);
    assert_false(qgc_card_of_product("A card", &other));
    const qgc_card h100 = read(f, "h100-sxm");
    assert_int_equal(h100.sms, QGC_TYPICAL_SMS);
    assert_int_equal(h100.shared_bytes, 232448);
    assert_int_equal(read(f, "rtx-4090").shared_bytes, 101376);
}

static void reads_a_card_that_is_written_out(void **state) {
    fixture *f = *state;
    qgc_card card = read(f, "arch=80,sms=40,smem=65536,bandwidth=500,memory=16,bf16=no,ptx=yes");
    assert_string_equal(card.name, "arch=80,sms=40,smem=65536,bandwidth=500,memory=16,bf16=no,ptx=yes");
    assert_null(card.product);
    assert_int_equal(card.arch, 80);
    assert_int_equal(card.sms, 40);
    assert_int_equal(card.shared_bytes, 65536);
    assert_int_equal(card.bandwidth, 500000000000);
    assert_int_equal(card.memory_bytes, (int64_t)16 << 30);
    assert_true(card.no_bf16 && card.ptx_only);
    card = read(f, "sms=8");
    assert_int_equal(card.sms, 8);
    assert_int_equal(card.arch, 0);
    assert_int_equal(card.shared_bytes, 0);
    assert_false(card.no_bf16 || card.ptx_only);
    card = read(f, "arch=75");
    assert_int_equal(card.shared_bytes, 65536);
    assert_true(card.no_bf16);
    card = read(f, "rtx-4090,sms=64");
    assert_int_equal(card.sms, 64);
    assert_int_equal(card.arch, 89);
    assert_string_equal(card.name, "rtx-4090,sms=64");
}

/* Code for one GPU may use all that this one has, PTX only what all have that run it. */
static void code_may_use_what_its_gpus_have(void **state) {
    (void)state;
    static const struct {
        const char *code;
        int kilobytes;
    } want[] = {{"sm_75", 64},        {"sm_80", 163},        {"sm_89", 99},       {"sm_90a", 227},
                {"sm_120", 99},       {"compute_75", 64},    {"compute_80", 99},  {"compute_100", 99},
                {"compute_90a", 227}, {"compute_100f", 227}, {"compute_120f", 99}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_int_equal(qgc_code_shared_bytes(want[i].code), want[i].kilobytes << 10);
}

static void names_the_code_for_a_card(void **state) {
    fixture *f = *state;
    const char *const pairs[][2] = {{"t4", "sm_75"},
                                    {"rtx-4090", "sm_89"},
                                    {"h200", "sm_90a"},
                                    {"gb10", "sm_121a"},
                                    {"t4,ptx=yes", "compute_75"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const qgc_card card = read(f, pairs[i][0]);
        assert_string_equal(qgc_card_code(&card, f->arena), pairs[i][1]);
    }
}

static void says_what_is_wrong_with_a_card(void **state) {
    fixture *f = *state;
    const struct {
        const char *text, *message;
    } cases[] = {
        {"rtx-4091", "no card \"rtx-4091\" is known"},
        {"", "no card \"\" is known"},
        {"cores=5", "a card has no \"cores\""},
        {"sms=0", "sms of a card is \"0\", expected a number from 1 to 1024"},
        {"sms=1025", "sms of a card is \"1025\", expected a number from 1 to 1024"},
        {"sms=", "sms of a card is \"\", expected a number from 1 to 1024"},
        {"sms=4x", "sms of a card is \"4x\", expected a number from 1 to 1024"},
        {"memory=99999999999999999999",
         "memory of a card is \"99999999999999999999\", expected a number from 1 to "
         "100000"},
        {"bf16=maybe", "bf16 of a card is \"maybe\", expected yes or no"},
        {"sms=4,t4", "card \"sms=4,t4\": \"t4\" has no value"},
        {"t4,", "card \"t4,\": \"\" has no value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_card card;
        assert_int_equal(qgc_card_read(cases[i].text, &card, &d), QGC_ERR_USAGE);
        assert_string_equal(qgc_diag_message(&d), cases[i].message);
    }
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_card card;
    assert_int_equal(qgc_card_read("rtx4090", &card, &d), QGC_ERR_USAGE);
    assert_non_null(strstr(qgc_test_printed(f->arena, &d), "hint: Did you mean \"rtx-4090\"?\n"));
    assert_non_null(strstr(qgc_test_printed(f->arena, &d), "note: there are t4, "));
}

/* Kernels have a number of multiprocessors for a compile by themselves; lowering passes no option where it is that one. */
static void kernels_have_the_typical_number_of_multiprocessors(void **state) {
    fixture *f = *state;
    const char *const places[][2] = {{"kernels/persistent_step.cuh", "#define TYPICAL_SMS"},
                                     {"kernels/flash_attention.cu", "#define SMS"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        qgc_source text;
        ok(f, qgc_file_read(&text, places[i][0], 1 << 20, "a kernel", &f->diag));
        const char *at = strstr(text.text, places[i][1]);
        assert_non_null(at);
        assert_int_equal(strtol(at + strlen(places[i][1]), NULL, 10), QGC_TYPICAL_SMS);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(has_a_table_of_cards),
        FIXTURE_TEST(reads_a_card_that_is_written_out),
        FIXTURE_TEST(code_may_use_what_its_gpus_have),
        FIXTURE_TEST(names_the_code_for_a_card),
        FIXTURE_TEST(says_what_is_wrong_with_a_card),
        FIXTURE_TEST(kernels_have_the_typical_number_of_multiprocessors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
