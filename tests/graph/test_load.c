#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"

static qgc_graph *load_good(qgc_arena *a, const char *path) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    if (qgc_graph_load(&g, path, a, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    return g;
}

static const qgc_weight_decl *weight(const qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_weights; i++)
        if (strcmp(g->weights[i].name, name) == 0)
            return &g->weights[i];
    fail_msg("no weight %s", name);
    return NULL;
}

static const qgc_node *last_of(const qgc_graph *g, qgc_op op) {
    for (const qgc_node *n = g->last; n; n = n->prev)
        if (n->op == op)
            return n;
    fail_msg("no op %s", qgc_ops[op].name);
    return NULL;
}

static void unrolls_the_half_billion_model(void **state) {
    const qgc_graph *g = load_good(*state, "models/qwen2.5-0.5b.yaml");
    assert_string_equal(g->name, "qwen2.5-0.5b");
    assert_string_equal(g->arch, "qwen2");
    assert_int_equal(g->n_nodes, 24 * 18 + 6);
    assert_int_equal(g->n_repeats, 1);
    assert_int_equal(g->repeats[0].count, 24);
    assert_int_equal(g->n_inputs, 3);

    const qgc_param *base = qgc_graph_param(g, "rope_base");
    assert_true(base->value == 1e6);
    assert_int_equal(base->n_hf, 3);
    assert_string_equal(base->hf[1], "rope_parameters.rope_theta");

    const qgc_value *logits = qgc_graph_output(g, "logits"), *next = qgc_graph_output(g, "next");
    assert_string_equal(qgc_shape_text(&logits->shape, *state), "[R, 151936]");
    assert_int_equal(next->dtype, QGC_I32);
}

static void gives_layers_their_own_weights_and_the_last_x(void **state) {
    const qgc_graph *g = load_good(*state, "models/qwen2.5-0.5b.yaml");
    const qgc_weight_decl *w_down = weight(g, "w_down");
    assert_int_equal(w_down->count, 24);
    const qgc_node *select = last_of(g, QGC_OP_SELECT_ROWS);
    assert_string_equal(qgc_value_label(select->in[0], *state), "x[23]");
    const qgc_node *down = select->in[0]->maker->in[1]->maker;
    assert_ptr_equal(down->in[1], w_down->values[23]);
    assert_int_equal(down->layer, 23);
    assert_string_equal(qgc_value_label(down->in[1], *state), "w_down[23]");

    const qgc_node *first_add = g->first;
    while (first_add->op != QGC_OP_ADD)
        first_add = first_add->next;
    assert_ptr_equal(first_add->in[0], g->first->out[0]); /* x of the first turn is the embedding */

    const qgc_node *attention = last_of(g, QGC_OP_ATTENTION);
    assert_true(attention->attr[0].number == 0.125);
}

static void stores_matrices_in_bf16_and_vectors_in_f32(void **state) {
    const qgc_graph *g = load_good(*state, "models/qwen2.5-0.5b.yaml");
    assert_int_equal(weight(g, "wq")->values[3]->dtype, QGC_BF16);
    assert_int_equal(weight(g, "bq")->values[3]->dtype, QGC_F32);
    assert_int_equal(g->states[0].values[0]->dtype, QGC_F16);
}

static void ties_the_head_but_for_7b(void **state) {
    const qgc_graph *g = load_good(*state, "models/qwen2.5-0.5b.yaml");
    assert_int_equal(weight(g, "head")->tied, (int)(weight(g, "embed") - g->weights));
    g = load_good(*state, "models/qwen2.5-7b.yaml");
    assert_int_equal(weight(g, "head")->tied, -1);
    assert_string_equal(qgc_shape_text(&weight(g, "head")->values[0]->shape, *state), "[152064, 3584]");
}

static void loads_every_model(void **state) {
    static const struct {
        const char *path;
        int layers;
    } models[] = {
        {"models/qwen2.5-1.5b.yaml", 28},
        {"models/qwen2.5-3b.yaml", 36},
        {"models/qwen2.5-7b.yaml", 28},
        {"models/tiny/tiny.yaml", 4},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const qgc_graph *g = load_good(*state, models[i].path);
        assert_int_equal(g->n_nodes, (size_t)models[i].layers * 18 + 6);
    }
}

static void lets_a_file_override_single_keys(void **state) {
    const qgc_graph *g = load_good(*state, "tests/golden/tiny/tiny-f32.yaml");
    assert_string_equal(g->states[0].name, "k_cache");
    assert_int_equal(g->states[0].values[0]->dtype, QGC_F32);
    assert_string_equal(qgc_shape_text(&g->states[0].values[0]->shape, *state), "[2, ctx, 32]");
}

/* Errors. Each tests/golden/errors/NAME.yaml is refused with the diagnostic in NAME.txt beside it;
 * `test_graph_load --update` writes what is printed now. */
static bool update;

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static const char **golden_names(qgc_arena *a, size_t *n) {
    const char **names = NULL;
    DIR *folder = opendir("tests/golden/errors");
    assert_non_null(folder);
    *n = 0;
    for (const struct dirent *e = readdir(folder); e; e = readdir(folder)) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".yaml") != 0)
            continue;
        names = qgc_arena_grow(a, names, *n, sizeof *names);
        names[(*n)++] = qgc_arena_strndup(a, e->d_name, (size_t)(dot - e->d_name));
    }
    closedir(folder);
    if (names)
        qsort(names, *n, sizeof *names, by_name);
    return names;
}

static void check_golden(const char *name) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a), file_diag = qgc_diag_new(a);
    qgc_graph *g;
    qgc_status s = qgc_graph_load(&g, qgc_arena_printf(a, "tests/golden/errors/%s.yaml", name), a, &d);
    if (s != QGC_ERR_INPUT || g)
        fail_msg("%s.yaml is not refused", name);
    const char *text = qgc_test_printed(a, &d),
               *path = qgc_arena_printf(a, "tests/golden/errors/%s.txt", name);
    if (update)
        assert_int_equal(qgc_file_write(path, text, strlen(text), &file_diag), QGC_OK);
    qgc_source golden;
    if (qgc_file_read(&golden, path, 1 << 20, "golden text", &file_diag) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &file_diag));
    if (strcmp(golden.text, text) != 0)
        fail_msg("%s.yaml gives\n%s\nexpected\n%s", name, text, golden.text);
    qgc_arena_drop(a);
}

static void refuses_bad_files_with_clear_errors(void **state) {
    size_t n;
    const char **names = golden_names(*state, &n);
    assert_true(n >= 38);
    for (size_t i = 0; i < n; i++)
        check_golden(names[i]);
}

static void check_bad_text(qgc_arena *a, const char *text, size_t bytes, const char *expected) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    assert_int_equal(qgc_graph_load_text(&g, "bad.yaml", text, bytes, a, &d), QGC_ERR_INPUT);
    assert_null(g);
    assert_string_equal(qgc_test_printed(a, &d), expected);
}

static void weights_in_the_place_of_a_graph_are_told_from_one(void **state) {
    static const char *const paths[] = {"models/tiny/tiny.gguf", "models/tiny/safetensors",
                                        "models/tiny/safetensors/model.safetensors"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        qgc_diag d = qgc_diag_new(*state);
        qgc_graph *g;
        assert_int_equal(qgc_graph_load(&g, paths[i], *state, &d), QGC_ERR_INPUT);
        assert_string_equal(
            qgc_test_printed(*state, &d),
            qgc_arena_printf(*state,
                             "%s: error: this holds weights, and here goes the graph of the model (YAML)\n"
                             "  hint: Name a graph, models/qwen2.5-0.5b.yaml say, and this with --weights.\n",
                             paths[i]));
    }
}

/* Also where it is longer than a graph may be. */
static void an_artifact_in_the_place_of_a_graph_is_told_from_one(void **state) {
    char path[] = "/tmp/qgc-test-load-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g;
    char *data = qgc_arena_alloc(*state, 2 << 20);
    memcpy(data, "QGC\x1a", 4);
    assert_int_equal(qgc_file_write(path, data, 2 << 20, &d), QGC_OK);
    assert_int_equal(qgc_graph_load(&g, path, *state, &d), QGC_ERR_INPUT);
    unlink(path);
    assert_string_equal(
        qgc_test_printed(*state, &d),
        qgc_arena_printf(*state,
                         "%s: error: this is an artifact, and here goes the graph of the model (YAML)\n"
                         "  hint: qgc inspect --graph prints the graph that an artifact was compiled from.\n",
                         path));
}

static void refuses_files_that_are_no_text(void **state) {
    check_bad_text(*state, "GGUF\3\0\0\0", 8,
                   "bad.yaml: error: file is binary (byte 5 is zero), expected YAML text\n");

    size_t bytes = 2 << 20;
    char *text = qgc_arena_alloc(*state, bytes);
    memset(text, '#', bytes);
    check_bad_text(*state, text, bytes,
                   "bad.yaml: error: file is 2097152 bytes long, expected 1048576 at most\n");

    char path[] = "/tmp/qgc-test-load-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g;
    assert_int_equal(qgc_file_write(path, text, bytes, &d), QGC_OK);
    assert_int_equal(qgc_graph_load(&g, path, *state, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "model file is larger than 1048576 bytes");
    unlink(path);
}

static void refuses_depth_1000(void **state) {
    qgc_str text = qgc_str_new(*state);
    qgc_str_add(&text, "qgc: 1\ngraph: ");
    for (int i = 0; i < 1000; i++)
        qgc_str_add(&text, "[");
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g;
    assert_int_equal(qgc_graph_load_text(&g, "deep.yaml", text.text, text.bytes, *state, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "lists and mappings are nested more than 32 deep");
}

static void refuses_text_that_extends_a_file(void **state) {
    const char *text = "qgc: 1\nextends: models/qwen2.yaml\n";
    check_bad_text(*state, text, strlen(text),
                   "bad.yaml:2:10: error: text that is no file cannot extend one\n"
                   "     2 | extends: models/qwen2.yaml\n"
                   "       |          ^\n");
}

#define HEAD \
    "qgc: 1\nname: big\narch: none\ninputs: {tokens: [T], positions: [T]}\nstate: {seen: {shape: [4], dtype: i32}}\n"

static void limits_the_nodes_of_a_graph(void **state) {
    const char *text = HEAD "graph:\n"
                            "  - repeat: {index: l, count: 50001, carry: {s: seen}}\n"
                            "    body:\n"
                            "      - {op: mark, in: [s, tokens], out: t}\n"
                            "      - {op: mark, in: [t, tokens], out: s}\n"
                            "outputs: [s]\n";
    check_bad_text(*state, text, strlen(text),
                   "bad.yaml:7:31: error: graph has more than 100000 nodes\n"
                   "     7 |   - repeat: {index: l, count: 50001, carry: {s: seen}}\n"
                   "       |                               ^\n");
}

/* Files of one folder that extend one another in a row. */
static void limits_the_files_that_extend_one_another(void **state) {
    const char *folder = qgc_test_folder(*state);
    for (int i = 0; i < 18; i++) {
        const char *text = qgc_arena_printf(*state, "qgc: 1\nextends: %d.yaml\n", i + 1);
        qgc_test_write(*state, folder, qgc_arena_printf(*state, "%d.yaml", i), text, strlen(text));
    }
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g;
    qgc_status s = qgc_graph_load(&g, qgc_test_path(*state, folder, "0.yaml"), *state, &d);
    qgc_test_folder_drop(*state, folder);
    assert_int_equal(s, QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "more than 16 files extend one another");
}

/* docs/format.md ends with a complete example. */
static void loads_the_example_of_the_documentation(void **state) {
    qgc_diag d = qgc_diag_new(*state);
    qgc_source doc;
    assert_int_equal(qgc_file_read(&doc, "docs/format.md", 1 << 20, "documentation", &d), QGC_OK);
    const char *start = strstr(doc.text, "```yaml\n# complete example");
    assert_non_null(start);
    start += strlen("```yaml\n");
    const char *end = strstr(start, "```");
    assert_non_null(end);
    qgc_graph *g;
    if (qgc_graph_load_text(&g, "docs/format.md", start, (size_t)(end - start), *state, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(*state, &d));
    assert_string_equal(g->name, "bigram");
}

int main(int n_args, char **args) {
    update = n_args > 1 && strcmp(args[1], "--update") == 0;
    if (chdir(QGC_SOURCE_DIR) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        ARENA_TEST(unrolls_the_half_billion_model),
        ARENA_TEST(gives_layers_their_own_weights_and_the_last_x),
        ARENA_TEST(stores_matrices_in_bf16_and_vectors_in_f32),
        ARENA_TEST(ties_the_head_but_for_7b),
        ARENA_TEST(loads_every_model),
        ARENA_TEST(lets_a_file_override_single_keys),
        ARENA_TEST(refuses_bad_files_with_clear_errors),
        ARENA_TEST(weights_in_the_place_of_a_graph_are_told_from_one),
        ARENA_TEST(an_artifact_in_the_place_of_a_graph_is_told_from_one),
        ARENA_TEST(refuses_files_that_are_no_text),
        ARENA_TEST(refuses_depth_1000),
        ARENA_TEST(refuses_text_that_extends_a_file),
        ARENA_TEST(limits_the_nodes_of_a_graph),
        ARENA_TEST(limits_the_files_that_extend_one_another),
        ARENA_TEST(loads_the_example_of_the_documentation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
