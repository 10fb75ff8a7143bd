#include <string.h>

#include "models/bind.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_weights.h"
#include "tests/support/printed.h"

static const qgc_source yaml = {"model.yaml", NULL, 0};

#define AT(line) \
    { &yaml, line, 3 }

static const qgc_tensor tensors[] = {
    {.name = "embd.weight", .rank = 2, .shape = {10, 4}},
    {.name = "blk.0.q", .rank = 2, .shape = {6, 4}},
    {.name = "blk.1.q", .rank = 2, .shape = {6, 4}},
    {.name = "norm", .rank = 1, .shape = {4}},
};

static const qgc_weight_want wants[] = {
    {"head", "output.weight", "lm_head", 1, 2, {10, 4}, AT(4), {0}, {0}},
    {"embed", "embd.weight", NULL, -1, 2, {10, 4}, AT(5), {0}, {0}},
    {"wq[0]", "blk.0.q", NULL, -1, 2, {6, 4}, AT(6), {0}, {0}},
    {"wq[1]", "blk.1.q", NULL, -1, 2, {6, 4}, AT(6), {0}, {0}},
    {"norm", "norm", NULL, -1, 1, {4}, AT(7), {0}, {0}},
};

static const char *const eps_keys[] = {"llm.eps", "general.eps"}, *const vocab_keys[] = {"vocab_size"};

static const qgc_param_want params[] = {
    {"eps", 1e-6, eps_keys, NULL, 2, 0, AT(2), {0}, 0, NULL, NULL},
    {"vocab", 10, NULL, vocab_keys, 0, 1, AT(3), {0}, 0, NULL, NULL},
};

static const qgc_weights whole = {.kind = QGC_WEIGHTS_GGUF,
                                  .path = "file",
                                  .arch = "qwen2",
                                  .tensors = tensors,
                                  .n_tensors = 4,
                                  .keys = {"other", "general.eps"},
                                  .numbers = {7, (double)1e-6f}};

static const qgc_bind_request whole_request = {
    .arch = "qwen2", .at = AT(1), .weights = wants, .n_weights = 5, .params = params, .n_params = 2};

static void binds(qgc_arena *a, const qgc_weights *w, const qgc_bind_request *r, const qgc_tensor **found) {
    qgc_diag d = qgc_diag_new(a);
    qgc_status s = qgc_bind(w, r, found, &d);
    assert_string_equal(qgc_test_printed(a, &d), "");
    assert_int_equal(s, QGC_OK);
}

static void fails(qgc_arena *a, const qgc_weights *w, const qgc_bind_request *r, const char *golden) {
    const qgc_tensor *found[8] = {0};
    qgc_diag d = qgc_diag_new(a);
    assert_int_equal(qgc_bind(w, r, found, &d), QGC_ERR_INPUT);
    assert_string_equal(
        qgc_test_printed(a, &d),
        qgc_arena_printf(a, "%smodel.yaml:1:3: while: binding the weights of file\n", golden));
    assert_null(d.top);
}

static void a_whole_file_binds_and_a_tied_weight_is_shared(void **state) {
    const qgc_tensor *found[5];
    binds(*state, &whole, &whole_request, found);
    const int expected[] = {0, 0, 1, 2, 3};
    for (int i = 0; i < 5; i++)
        assert_ptr_equal(found[i], &tensors[expected[i]]);
}

static void a_tied_weight_that_the_file_has_is_taken_from_it(void **state) {
    qgc_tensor more[5];
    memcpy(more, tensors, sizeof tensors);
    more[4] = (qgc_tensor){.name = "output.weight", .rank = 2, .shape = {10, 4}};
    qgc_weights w = whole;
    w.tensors = more;
    w.n_tensors = 5;
    const qgc_tensor *found[5];
    binds(*state, &w, &whole_request, found);
    assert_ptr_equal(found[0], &more[4]);
    assert_ptr_equal(found[1], &more[0]);
    more[4].shape[0] = 11;
    fails(
        *state, &w, &whole_request,
        "model.yaml:4:3: error: weight \"head\" is [10, 4], but tensor \"output.weight\" of \"file\" is [11, 4]\n"
        "  hint: The weights are of another size than the model, or the shape in the model is wrong.\n");
}

static void another_architecture(void **state) {
    qgc_weights w = whole;
    w.arch = "llama";
    fails(*state, &w, &whole_request,
          "model.yaml:1:3: error: the model is of architecture \"qwen2\", but \"file\" holds \"llama\"\n"
          "  hint: Take a model file for \"llama\", or weights for \"qwen2\".\n");
    w.arch = NULL;
    fails(*state, &w, &whole_request,
          "model.yaml:1:3: error: the model is of architecture \"qwen2\", but \"file\" does not state one\n");
}

static void a_hyperparameter_that_differs(void **state) {
    qgc_weights w = whole;
    w.numbers[1] = 1e-5;
    fails(*state, &w, &whole_request,
          "model.yaml:2:3: error: \"eps\" is 1e-06, but \"file\" states 1e-05 as \"general.eps\"\n"
          "  hint: The weights are of another model, or \"eps\" should be 1e-05.\n");
}

static void the_first_key_found_counts(void **state) {
    qgc_weights w = whole;
    w.keys[2] = "llm.eps";
    w.numbers[2] = 1;
    fails(*state, &w, &whole_request,
          "model.yaml:2:3: error: \"eps\" is 1e-06, but \"file\" states 1 as \"llm.eps\"\n"
          "  hint: The weights are of another model, or \"eps\" should be 1.\n");
}

static void a_hyperparameter_that_is_not_stated(void **state) {
    qgc_weights w = whole;
    w.keys[1] = NULL;
    fails(*state, &w, &whole_request,
          "model.yaml:2:3: error: \"eps\" is 1e-06, but \"file\" does not state \"llm.eps\"\n"
          "  hint: If such files never state it, take the key for GGUF away from \"eps\".\n");
}

static void numbers_near_each_other_are_told_apart(void **state) {
    qgc_weights w = whole;
    w.kind = QGC_WEIGHTS_HF;
    w.keys[0] = "vocab_size";
    w.numbers[0] = 151936;
    qgc_param_want vocab = params[1];
    vocab.value = 151937;
    qgc_bind_request r = {.arch = "qwen2", .at = AT(1), .params = &vocab, .n_params = 1};
    fails(*state, &w, &r,
          "model.yaml:3:3: error: \"vocab\" is 151937, but \"file\" states 151936 as \"vocab_size\"\n"
          "  hint: The weights are of another model, or \"vocab\" should be 151936.\n");
}

static void a_tensor_that_is_missing(void **state) {
    qgc_weights w = whole;
    w.n_tensors = 3;
    fails(*state, &w, &whole_request,
          "model.yaml:7:3: error: weight \"norm\" is missing: \"file\" has no tensor \"norm\"\n"
          "  hint: The file has 3 tensors, none of such a name: is it of this architecture, and whole?\n");
    qgc_tensor typo[4];
    memcpy(typo, tensors, sizeof tensors);
    typo[2].name = "blk.1.p";
    w.n_tensors = 4;
    w.tensors = typo;
    fails(*state, &w, &whole_request,
          "model.yaml:6:3: error: weight \"wq[1]\" is missing: \"file\" has no tensor \"blk.1.q\"\n"
          "  hint: The nearest name in it is \"blk.0.q\".\n");
}

static void a_weight_without_a_name_for_the_format(void **state) {
    qgc_weights w = whole;
    w.kind = QGC_WEIGHTS_HF;
    w.keys[0] = "vocab_size";
    w.numbers[0] = 10;
    fails(*state, &w, &whole_request,
          "model.yaml:5:3: error: weight \"embed\" has no name for safetensors, which \"file\" is\n"
          "  hint: Write the name of its tensor under \"hf\" in its declaration.\n");
}

static void a_tensor_of_another_shape(void **state) {
    qgc_tensor other[4];
    memcpy(other, tensors, sizeof tensors);
    other[1].shape[0] = 4;
    other[1].shape[1] = 6;
    qgc_weights w = whole;
    w.tensors = other;
    fails(*state, &w, &whole_request,
          "model.yaml:6:3: error: weight \"wq[0]\" is [6, 4], but tensor \"blk.0.q\" of \"file\" is [4, 6]\n"
          "  hint: It would fit if it were transposed; weights are [out, in].\n");
    other[1].rank = 1;
    fails(*state, &w, &whole_request,
          "model.yaml:6:3: error: weight \"wq[0]\" is [6, 4], but tensor \"blk.0.q\" of \"file\" is [4]\n"
          "  hint: The weights are of another size than the model, or the shape in the model is wrong.\n");
}

static void weights_tied_in_a_circle(void **state) {
    const qgc_weight_want circle[] = {{"a", "a", NULL, 1, 1, {4}, AT(4), {0}, {0}},
                                      {"b", NULL, NULL, 0, 1, {4}, AT(5), {0}, {0}}};
    qgc_bind_request r = {.arch = "qwen2", .at = AT(1), .weights = circle, .n_weights = 2};
    fails(*state, &whole, &r, "model.yaml:5:3: error: weight \"b\" is tied to itself\n");
}

static void tensors_left_over(void **state) {
    qgc_tensor more[30];
    memcpy(more, tensors, sizeof tensors);
    for (int i = 4; i < 30; i++)
        more[i] = (qgc_tensor){.name = qgc_arena_printf(*state, "extra.%d", i), .rank = 1, .shape = {1}};
    qgc_weights w = whole;
    w.tensors = more;
    w.n_tensors = 5;
    fails(*state, &w, &whole_request,
          "model.yaml:1:3: error: \"file\" has 1 tensor that the model does not use: \"extra.4\"\n"
          "  hint: A model that leaves out weights gives wrong text; --allow-unused lets them pass.\n");
    w.n_tensors = 30;
    fails(
        *state, &w, &whole_request,
        "model.yaml:1:3: error: \"file\" has 26 tensors that the model does not use: \"extra.4\", \"extra.5\", "
        "\"extra.6\", \"extra.7\", \"extra.8\", \"extra.9\", \"extra.10\", \"extra.11\", \"extra.12\", \"extra.13\" "
        "and 16 more\n"
        "  hint: A model that leaves out weights gives wrong text; --allow-unused lets them pass.\n");
    qgc_bind_request r = whole_request;
    r.allow_unused = true;
    const qgc_tensor *found[5];
    binds(*state, &w, &r, found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(a_whole_file_binds_and_a_tied_weight_is_shared),
        ARENA_TEST(a_tied_weight_that_the_file_has_is_taken_from_it),
        ARENA_TEST(another_architecture),
        ARENA_TEST(a_hyperparameter_that_differs),
        ARENA_TEST(the_first_key_found_counts),
        ARENA_TEST(a_hyperparameter_that_is_not_stated),
        ARENA_TEST(numbers_near_each_other_are_told_apart),
        ARENA_TEST(a_tensor_that_is_missing),
        ARENA_TEST(a_weight_without_a_name_for_the_format),
        ARENA_TEST(a_tensor_of_another_shape),
        ARENA_TEST(weights_tied_in_a_circle),
        ARENA_TEST(tensors_left_over),
    };
    return cmocka_run_group_tests_name("models/bind", tests, NULL, NULL);
}
