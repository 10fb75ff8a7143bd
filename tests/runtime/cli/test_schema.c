/* What `qgc schema` prints: that it is whole. tests/models/check_schema.py holds it against files. */

#include <string.h>

#include "graph/format.def"
#include "graph/op.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/text.h"

static void all_that_it_refers_to_is_there(void **state) {
    static const char mark[] = "#/definitions/";
    qgc_arena *a = *state;
    const char *schema = qgc_test_output(a, "schema", 0);
    int found = 0;
    for (const char *at = schema; (at = strstr(at, mark)); found++) {
        at += strlen(mark);
        has(schema, qgc_arena_printf(a, "\"%.*s\": {", (int)strcspn(at, "\""), at));
    }
    assert_true(found > 100);
}

static void it_has_all_ops_and_their_attributes(void **state) {
    qgc_arena *a = *state;
    const char *schema = qgc_test_output(a, "schema", 0);
    for (int i = 0; i < QGC_N_OPS; i++) {
        has(schema, qgc_arena_printf(a, "\"const\": \"%s\"", qgc_ops[i].name));
        for (const qgc_attr_spec *attr = qgc_ops[i].attrs; attr->name; attr++)
            has(schema, qgc_arena_printf(a, "\"%s\": {", attr->name));
    }
}

static void it_has_all_keys(void **state) {
    /* clang-format off */
    static const char *const keys[] = {QGC_KEYS(FILE) QGC_KEYS(ARCH) QGC_KEYS(PARAM) QGC_KEYS(WEIGHT) QGC_KEYS(FORM)
                                       QGC_KEYS(STATE) QGC_KEYS(REPEAT) QGC_KEYS(HEAD) QGC_KEYS(PART) QGC_KEYS(CHOICE)};
    /* clang-format on */
    qgc_arena *a = *state;
    const char *schema = qgc_test_output(a, "schema", 0);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        has(schema, qgc_arena_printf(a, "\"%s\": {", keys[i]));
}

int main(void) {
    const struct CMUnitTest tests[] = {ARENA_TEST(all_that_it_refers_to_is_there),
                                       ARENA_TEST(it_has_all_ops_and_their_attributes),
                                       ARENA_TEST(it_has_all_keys)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
