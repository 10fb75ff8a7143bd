/* Weights by name: beside the model, in QGC_MODELS, in the cache of the Hugging Face hub. */

#include "runtime/engine/find.h"
#include "tests/support/environment.h"
#include "tests/support/text.h"

static void forget_environment(void) {
    const char *const variables[] = {"QGC_MODELS", "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
}

/* A file of a downloaded repository. */
static const char *download(fixture *f, const char *repository, const char *file) {
    put_file(f, qgc_arena_printf(f->arena, "hub/models--%s/refs/main", repository), "c0ffee\n");
    return put_file(f, qgc_arena_printf(f->arena, "hub/models--%s/snapshots/c0ffee/%s", repository, file),
                    "{}");
}

static const char *download_folder(fixture *f, const char *repository) {
    download(f, repository, "model.safetensors");
    return qgc_path_folder(f->arena, download(f, repository, "config.json"));
}

static const char *find(fixture *f, const char *name) {
    const char *path;
    f->diag = qgc_diag_new(f->arena);
    ok(f, qgc_find_weights(name, &path, &f->diag));
    return path;
}

static const char *find_none(fixture *f, const char *name, qgc_status want) {
    const char *path;
    f->diag = qgc_diag_new(f->arena);
    assert_int_equal(qgc_find_weights(name, &path, &f->diag), want);
    return qgc_test_printed(f->arena, &f->diag);
}

static void random_weights_are_for_other_commands(void **state) {
    fixture *f = *state;
    forget_environment();
    has(find_none(f, "random", QGC_ERR_INPUT),
        "no weights \"random\": random ones are for ablate, bench, bisect, search, tune and view");
    has(find_none(f, "random:q4_0", QGC_ERR_INPUT), "no weights \"random:q4_0\"");
    assert_string_equal(find(f, "randomly.gguf"), "randomly.gguf");
}

static void a_path_is_a_path(void **state) {
    fixture *f = *state;
    forget_environment();
    set_folder(f, "HF_HUB_CACHE", "hub");
    const char *const names[] = {
        "models/tiny/tiny.gguf", "models/tiny",      "/nowhere/x.gguf", "-",
        "./Owner/name",          "models/none.gguf", "none.gguf",       "models/none",
        "nowhere/none.gguf",     "~/Owner/name"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_string_equal(find(f, names[i]), names[i]);
}

static void a_folder_of_models_has_files_by_name(void **state) {
    fixture *f = *state;
    forget_environment();
    const char *file = put_file(f, "b/small.gguf", ""), *other = put_file(f, "a/large.gguf", "");
    setenv("QGC_MODELS", qgc_arena_printf(f->arena, "%s::%s", fixture_path(f, "a"), fixture_path(f, "b")), 1);
    assert_string_equal(find(f, "small"), file);
    assert_string_equal(find(f, "small.gguf"), file);
    assert_string_equal(find(f, "large"), other);
    assert_string_equal(find(f, "medium"), "medium");
}

static void a_repository_is_its_snapshot(void **state) {
    fixture *f = *state;
    forget_environment();
    set_folder(f, "HF_HUB_CACHE", "hub");
    const char *folder = download_folder(f, "Qwen--Qwen2.5-0.5B-Instruct");
    assert_string_equal(find(f, "Qwen/Qwen2.5-0.5B-Instruct"), folder);
    const char *gguf = download(f, "Qwen--Qwen2.5-0.5B-Instruct-GGUF", "q8_0.gguf");
    assert_string_equal(find(f, "Qwen/Qwen2.5-0.5B-Instruct-GGUF"), gguf);
    const char *other = download(f, "Qwen--Qwen2.5-0.5B-Instruct-GGUF", "q4_k.gguf");
    const char *said = find_none(f, "Qwen/Qwen2.5-0.5B-Instruct-GGUF", QGC_ERR_USAGE);
    has(said, "has several weights: q4_k.gguf, q8_0.gguf");
    has(said, "Name one: Qwen/Qwen2.5-0.5B-Instruct-GGUF/FILE.");
    assert_string_equal(find(f, "Qwen/Qwen2.5-0.5B-Instruct-GGUF/q4_k.gguf"), other);
    unsetenv("HF_HUB_CACHE");
    setenv("HF_HOME", f->folder, 1);
    assert_string_equal(find(f, "Qwen/Qwen2.5-0.5B-Instruct"), folder);
}

static void what_was_not_downloaded_comes_with_the_command_that_does_it(void **state) {
    fixture *f = *state;
    forget_environment();
    set_folder(f, "HF_HUB_CACHE", "hub");
    const char *said = find_none(f, "Qwen/Qwen2.5-7B-Instruct", QGC_ERR_INPUT);
    has(said, "no weights \"Qwen/Qwen2.5-7B-Instruct\": it is no path, and was not downloaded");
    has(said, "hub/models--Qwen--Qwen2.5-7B-Instruct\"");
    has(said, "hf download Qwen/Qwen2.5-7B-Instruct (");
    has(find_none(f, "Qwen/Qwen2.5-7B-Instruct-GGUF/q8.gguf", QGC_ERR_INPUT),
        "hf download Qwen/Qwen2.5-7B-Instruct-GGUF q8.gguf (");
}

static void a_model_that_names_no_weights_has_those_beside_it(void **state) {
    fixture *f = *state;
    forget_environment();
    const char *artifact = put_file(f, "work/mine.qgc", "");
    assert_null(qgc_find_weights_of("toy", artifact, f->arena));
    set_folder(f, "HF_HUB_CACHE", "hub");
    const char *base = download_folder(f, "Some--Toy");
    assert_string_equal(qgc_find_weights_of("toy", artifact, f->arena), base);
    download_folder(f, "Some--Toy-2");
    download_folder(f, "Some--Toys");
    const char *talks = download_folder(f, "Some--toy-Instruct");
    download(f, "Else--toy-Instruct-GGUF", "x.gguf");
    assert_string_equal(qgc_find_weights_of("toy", artifact, f->arena), talks);
    set_folder(f, "QGC_MODELS", "store");
    const char *stored = put_file(f, "store/toy.gguf", "");
    assert_string_equal(qgc_find_weights_of("toy", artifact, f->arena), stored);
    const char *by_model = put_file(f, "work/toy.gguf", "");
    assert_string_equal(qgc_find_weights_of("toy", artifact, f->arena), by_model);
    const char *by_name = put_file(f, "work/mine.gguf", "");
    assert_string_equal(qgc_find_weights_of("toy", artifact, f->arena), by_name);
}

static void a_file_that_has_moved_is_found_by_its_name(void **state) {
    fixture *f = *state;
    forget_environment();
    const char *artifact = put_file(f, "work/mine.qgc", "");
    assert_null(qgc_find_moved("/old/w.gguf", artifact, f->arena));
    set_folder(f, "QGC_MODELS", "store");
    const char *stored = put_file(f, "store/w.gguf", "");
    assert_string_equal(qgc_find_moved("/old/w.gguf", artifact, f->arena), stored);
    const char *beside = put_file(f, "work/w.gguf", "");
    assert_string_equal(qgc_find_moved("/old/w.gguf", artifact, f->arena), beside);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_path_is_a_path),
        FIXTURE_TEST(random_weights_are_for_other_commands),
        FIXTURE_TEST(a_folder_of_models_has_files_by_name),
        FIXTURE_TEST(a_repository_is_its_snapshot),
        FIXTURE_TEST(what_was_not_downloaded_comes_with_the_command_that_does_it),
        FIXTURE_TEST(a_model_that_names_no_weights_has_those_beside_it),
        FIXTURE_TEST(a_file_that_has_moved_is_found_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
