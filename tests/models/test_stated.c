#include <string.h>

#include "models/stated.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"
#include "tests/support/safetensors_writer.h"

/* What a config.json answers. */

static const char config[] =
    "{\"model_type\": \"none\", \"n\": 12, \"yes\": true, \"no\": null, \"word\": \"b\", \"other\": \"z\", \"in\": {\"x\": 0.5},"
    " \"list\": [\"a\", \"c\", \"b\"], \"same\": [4, 4], \"mixed\": [1, \"z\"], \"flags\": [true, false], \"none\": [],"
    " \"none.layers\": 3}";

static const char *const words[] = {"a", "b|c"};

typedef struct {
    const char *key;
    int turn;
    qgc_stated stated;
    double number;
} answer;

static const answer answers[] = {
    {"n", -1, QGC_STATED, 12},          {"n", 3, QGC_STATED, 12},           {"yes", -1, QGC_STATED, 1},
    {"no", -1, QGC_NOT_STATED, 0},      {"missing", -1, QGC_NOT_STATED, 0}, {"word", -1, QGC_STATED, 1},
    {"other", -1, QGC_MISSTATED, 0},    {"in.x", -1, QGC_STATED, 0.5},      {"in", -1, QGC_MISSTATED, 0},
    {"list", 0, QGC_STATED, 0},         {"list", 1, QGC_STATED, 1},         {"list", 3, QGC_MISSTATED, 0},
    {"list", -1, QGC_MISSTATED, 0},     {"same", -1, QGC_STATED, 4},        {"mixed", 0, QGC_STATED, 1},
    {"mixed", 1, QGC_MISSTATED, 0},     {"flags", 1, QGC_STATED, 0},        {"none", -1, QGC_MISSTATED, 0},
    {"tensor(w)", -1, QGC_STATED, 1},   {"tensor(v)", -1, QGC_STATED, 0},   {"rows(w)", -1, QGC_STATED, 2},
    {"rows(v)", -1, QGC_NOT_STATED, 0},
};

static void a_config_answers(void **state) {
    qgc_arena *a = *state;
    const char *folder = qgc_test_folder(a);
    const qgc_str file =
        safetensors_file(a, "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}", 8);
    qgc_test_write(a, folder, "config.json", config, strlen(config));
    qgc_test_write(a, folder, "model.safetensors", file.text, file.bytes);
    qgc_diag d = qgc_diag_new(a);
    qgc_weights *w;
    if (qgc_weights_open(&w, folder, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        const answer *x = &answers[i];
        const qgc_question q = {x->key, {words, 2}, x->turn};
        double number = -7;
        if (qgc_weights_answer(w, &q, &number) != x->stated ||
            (x->stated == QGC_STATED && number != x->number))
            fail_msg("%s in turn %d", x->key, x->turn);
    }
    assert_int_equal(qgc_weights_values(w, "list"), 3);
    assert_int_equal(qgc_weights_values(w, "n"), 1);
    assert_int_equal(qgc_weights_values(w, "no"), 0);
    assert_string_equal(qgc_weights_key(w, "{arch}.layers", a), "none.layers");
    qgc_weights_close(w);
    qgc_test_folder_drop(a, folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {ARENA_TEST(a_config_answers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
