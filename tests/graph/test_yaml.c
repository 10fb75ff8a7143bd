#include <stdio.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/yaml.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

static const qgc_source *source_of(qgc_arena *a, const char *text, size_t bytes) {
    qgc_source *source = qgc_arena_alloc(a, sizeof *source);
    *source = (qgc_source){"test.yaml", text, bytes};
    return source;
}

static qgc_yaml *read_good(qgc_arena *a, const char *text) {
    qgc_diag d = qgc_diag_new(a);
    qgc_yaml *root;
    if (qgc_yaml_parse(&root, source_of(a, text, strlen(text)), a, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    return root;
}

/* The whole diagnostic of a bad text. */
static void check_bad_bytes(qgc_arena *a, const char *text, size_t bytes, const char *expected) {
    qgc_diag d = qgc_diag_new(a);
    qgc_yaml *root;
    assert_int_equal(qgc_yaml_parse(&root, source_of(a, text, bytes), a, &d), QGC_ERR_INPUT);
    assert_null(root);
    assert_string_equal(qgc_test_printed(a, &d), expected);
}

static void check_bad(qgc_arena *a, const char *text, const char *expected) {
    check_bad_bytes(a, text, strlen(text), expected);
}

static void gives_a_tree_with_places(void **state) {
    qgc_yaml *root = read_good(*state, "a: 1\n"
                                       "list: [x, \"y z\"]\n"
                                       "map:\n"
                                       "  größe: null\n"
                                       "  b: \"null\"\n");
    assert_int_equal(root->kind, QGC_YAML_MAP);
    assert_int_equal(root->n, 3);
    assert_string_equal(root->keys[1]->text, "list");
    assert_int_equal(root->keys[1]->at.line, 2);
    assert_int_equal(root->keys[1]->at.col, 1);

    const qgc_yaml *list = qgc_yaml_get(root, "list");
    assert_int_equal(list->kind, QGC_YAML_LIST);
    assert_int_equal(list->at.col, 7);
    assert_int_equal(list->n, 2);
    assert_string_equal(list->items[1]->text, "y z");
    assert_true(list->items[1]->quoted);
    assert_false(list->items[0]->quoted);
    assert_int_equal(list->items[1]->at.col, 11);

    const qgc_yaml *map = qgc_yaml_get(root, "map");
    const qgc_yaml *null = qgc_yaml_get(map, "größe");
    assert_true(qgc_yaml_is_null(null));
    assert_int_equal(null->at.line, 4);
    assert_int_equal(null->at.col, 10); /* characters, not bytes */
    assert_false(qgc_yaml_is_null(qgc_yaml_get(map, "b")));
    assert_null(qgc_yaml_get(map, "c"));
}

static void takes_32_levels_and_not_33(void **state) {
    char text[100] = {0};
    memset(text, '[', 32);
    memset(text + 32, ']', 32);
    const qgc_yaml *node = read_good(*state, text);
    for (int i = 0; i < 31; i++)
        node = node->items[0];
    assert_int_equal(node->n, 0);

    memset(text, '[', 33);
    memset(text + 33, ']', 33);
    check_bad(*state, text,
              "test.yaml:1:33: error: lists and mappings are nested more than 32 deep\n"
              "     1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n"
              "       |                                 ^\n");
}

static void does_not_recurse_on_depth_1000(void **state) {
    qgc_str text = qgc_str_new(*state);
    for (int i = 0; i < 1000; i++)
        qgc_str_add(&text, "- ");
    qgc_str_add(&text, "x\n");
    qgc_diag d = qgc_diag_new(*state);
    qgc_yaml *root;
    assert_int_equal(qgc_yaml_parse(&root, source_of(*state, text.text, text.bytes), *state, &d),
                     QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "lists and mappings are nested more than 32 deep");
}

static void refuses_what_model_files_do_not_need(void **state) {
    check_bad(*state, "a: &x 1\n",
              "test.yaml:1:4: error: anchors are not allowed\n"
              "     1 | a: &x 1\n"
              "       |    ^\n");
    check_bad(*state, "a: [*x, *x]\n",
              "test.yaml:1:5: error: aliases are not allowed\n"
              "     1 | a: [*x, *x]\n"
              "       |     ^\n");
    check_bad(*state, "a: !!int 1\n",
              "test.yaml:1:4: error: tags are not allowed\n"
              "     1 | a: !!int 1\n"
              "       |    ^\n");
    check_bad(*state, "a: 1\n---\nb: 2\n",
              "test.yaml:2:1: error: a second document begins, expected one\n"
              "     2 | ---\n"
              "       | ^\n");
    check_bad(*state, "{[a]: 1}\n",
              "test.yaml:1:2: error: key of a mapping is a list, expected a scalar\n"
              "     1 | {[a]: 1}\n"
              "       |  ^\n");
    check_bad(*state, "a: |\n  b\n  c\n",
              "test.yaml:1:4: error: text holds the control character 0x0a\n"
              "     1 | a: |\n"
              "       |    ^\n");
    check_bad(*state, "a: \"\\0\"\n",
              "test.yaml:1:4: error: text holds the control character 0x00\n"
              "     1 | a: \"\\0\"\n"
              "       |    ^\n");
}

static void refuses_a_key_given_twice(void **state) {
    check_bad(*state, "a: {b: 1,\n    b: 2}\n",
              "test.yaml:2:5: error: key \"b\" is given twice\n"
              "     2 |     b: 2}\n"
              "       |     ^\n"
              "test.yaml:1:5: note: key \"b\" is given here first\n"
              "     1 | a: {b: 1,\n"
              "       |     ^\n");
}

static void places_errors_of_syntax(void **state) {
    check_bad(*state, "a:\n\tb: 1\n",
              "test.yaml:2:1: error: line is indented with a tab\n"
              "     2 | \tb: 1\n"
              "       | ^\n"
              "  hint: YAML is indented with spaces only.\n");
    check_bad(*state, "a: [1, 2\nb: 3\n",
              "test.yaml:2:2: error: not valid YAML: did not find expected ',' or ']'\n"
              "     2 | b: 3\n"
              "       |  ^\n"
              "test.yaml:1:4: note: while parsing a flow sequence\n"
              "     1 | a: [1, 2\n"
              "       |    ^\n");
}

static void refuses_what_is_no_text(void **state) {
    check_bad(*state, "", "test.yaml: error: file is empty\n");
    check_bad(*state, "# nothing\n", "test.yaml: error: file is empty\n");
    check_bad_bytes(*state, "GGUF\3\0\0\0", 8,
                    "test.yaml: error: file is binary (byte 5 is zero), expected YAML text\n");
    const char *const bad[] = {"a: \xff\n", "a: \xc0\x80\n", "a: \xed\xa0\x80\n", "a: \xf4\x90\x80\x80\n",
                               "a: \xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qgc_diag d = qgc_diag_new(*state);
        qgc_yaml *root;
        assert_int_equal(qgc_yaml_parse(&root, source_of(*state, bad[i], strlen(bad[i])), *state, &d),
                         QGC_ERR_INPUT);
        assert_memory_equal(qgc_diag_message(&d), "text is not valid UTF-8", 23);
    }
    check_bad(*state, "a: 1\nb: \x01\n",
              "test.yaml:2:4: error: not valid YAML: control characters are not allowed\n"
              "     2 | b: ?\n"
              "       |    ^\n");
}

static void limits_size(void **state) {
    size_t bytes = (1 << 20) + 1;
    char *text = qgc_arena_alloc(*state, bytes);
    memset(text, '\n', bytes);
    check_bad_bytes(*state, text, bytes,
                    "test.yaml: error: file is 1048577 bytes long, expected 1048576 at most\n");

    qgc_str scalar = qgc_str_new(*state);
    for (int i = 0; i < 257; i++)
        qgc_str_add(&scalar, "x");
    qgc_diag d = qgc_diag_new(*state);
    qgc_yaml *root;
    assert_int_equal(qgc_yaml_parse(&root, source_of(*state, scalar.text, 257), *state, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "text is 257 bytes long, expected 256 at most");
}

static void reads_files(void **state) {
    qgc_arena *other = qgc_arena_new();
    qgc_diag d = qgc_diag_new(other);
    qgc_yaml *root;
    assert_int_equal(qgc_yaml_read(&root, "models/qwen2.yaml", *state, &d), QGC_OK);
    qgc_arena_drop(other); /* the tree and its text don't live there */
    assert_string_equal(qgc_yaml_get(root, "arch")->text, "qwen2");
    assert_string_equal(root->at.source->name, "models/qwen2.yaml");
    assert_memory_equal(root->at.source->text, "# Qwen2", 7);

    d = qgc_diag_new(*state);
    assert_int_equal(qgc_yaml_read(&root, "models/nowhere.yaml", *state, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(*state, &d),
                        "models/nowhere.yaml: error: could not open model file: No such file or directory\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(gives_a_tree_with_places),
        ARENA_TEST(takes_32_levels_and_not_33),
        ARENA_TEST(does_not_recurse_on_depth_1000),
        ARENA_TEST(refuses_what_model_files_do_not_need),
        ARENA_TEST(refuses_a_key_given_twice),
        ARENA_TEST(places_errors_of_syntax),
        ARENA_TEST(refuses_what_is_no_text),
        ARENA_TEST(limits_size),
        ARENA_TEST(reads_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
