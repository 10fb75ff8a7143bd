/* qgc search, as a user calls it. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

#define TINY "search models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu --ids 0-7 "

static const char *output(fixture *f, const char *arguments, int want) {
    return qgc_test_output(f->arena, arguments, want);
}

static void it_finds_a_pipeline_and_writes_a_file_that_has_it(void **state) {
    fixture *f = *state;
    const char *path = fixture_path(f, "best.yaml");
    const char *text = output(f, qgc_arena_printf(f->arena, TINY "--passes '' -o '%s'", path), 0);
    has(text, "models/tiny/tiny.yaml, without a GPU: no times, but a model of them");
    has(text, "   0  no pass ");
    has(text, "no change of one thing, and none of two passes, is better\n");
    has(text, "\nbest: ");
    const char *dump = output(f, qgc_arena_printf(f->arena, "dump '%s' --after plan-memory", path), 0);
    has(dump, "fuse: qkv");
    has(dump, "memory: shared\n");
}

static void json_has_the_tree(void **state) {
    fixture *f = *state;
    const char *text = output(f, TINY "--passes fuse-qkv --most 2 --json", 0);
    has(text, "\"mode\": null");
    has(text, "\"parent\": -1");
    has(text, "\"change\": \"fuse-qkv\"");
    has(text, "\"verdict\": \"start\"");
    has(text, "\"parent\": 0");
    has(text, "\"complete\": false");
}

static void what_makes_no_sense_is_refused(void **state) {
    fixture *f = *state;
    has(output(f, TINY "--mode graph", 2), "mode");
    has(output(f, TINY "--passes fuse-nothing", 2), "unknown pass \"fuse-nothing\"");
    has(output(f, TINY "--ctx 100000", 2), "a context of 100000 positions, \"tiny\" can have at most ");
    has(output(f, "search models/tiny/tiny.yaml --device cpu", 2), "no weights");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(it_finds_a_pipeline_and_writes_a_file_that_has_it),
        FIXTURE_TEST(json_has_the_tree),
        FIXTURE_TEST(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
