#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "codegen/cache.h"
#include "graph/base/file.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

static qgc_cache open_cache(fixture *f) {
    qgc_cache c = qgc_cache_open(fixture_path(f, "a/b"), f->arena);
    assert_non_null(c.folder);
    return c;
}

static bool holds(const qgc_cache *c, const char *key, const char *text) {
    const void *data;
    size_t bytes;
    return qgc_cache_get(c, key, c->arena, &data, &bytes) && bytes == strlen(text) &&
           memcmp(data, text, bytes) == 0;
}

static void gives_back_what_was_put(void **state) {
    fixture *f = *state;
    qgc_cache c = open_cache(f);
    assert_false(holds(&c, "k", "text"));
    qgc_cache_put(&c, "k", "text", 4, f->arena);
    assert_true(holds(&c, "k", "text"));
    assert_false(holds(&c, "other", "text"));
    qgc_cache_put(&c, "k", "", 0, f->arena);
    assert_true(holds(&c, "k", ""));
}

static void leaves_one_file_for_each_key(void **state) {
    fixture *f = *state;
    qgc_cache c = open_cache(f);
    for (int i = 0; i < 3; i++)
        qgc_cache_put(&c, "k", "text", 4, f->arena);
    int n = 0;
    DIR *d = opendir(c.folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    assert_int_equal(n, 1);
}

static void makes_folders_for_the_user_alone(void **state) {
    fixture *f = *state;
    qgc_cache c = open_cache(f);
    struct stat st;
    assert_int_equal(stat(c.folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(stat(qgc_path_folder(f->arena, c.folder), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void takes_a_damaged_file_for_missing(void **state) {
    fixture *f = *state;
    qgc_cache c = open_cache(f);
    qgc_diag d = qgc_diag_new(f->arena);
    const char *path = qgc_arena_printf(f->arena, "%s/k", c.folder);
    qgc_cache_put(&c, "k", "some text", 9, f->arena);
    qgc_source good;
    assert_int_equal(qgc_file_read(&good, path, 4096, "cache file", &d), QGC_OK);

    for (size_t i = 0; i < good.bytes; i++) {
        char *bad = qgc_arena_strndup(f->arena, good.text, good.bytes);
        bad[i] ^= 0x10;
        assert_int_equal(qgc_file_write(path, bad, good.bytes, &d), QGC_OK);
        assert_false(holds(&c, "k", "some text"));
        assert_int_equal(qgc_file_write(path, good.text, i, &d), QGC_OK);
        assert_false(holds(&c, "k", "some text"));
    }
    assert_int_equal(qgc_file_write(path, good.text, good.bytes + 1, &d), QGC_OK);
    assert_false(holds(&c, "k", "some text"));

    qgc_cache_put(&c, "k", "some text", 9, f->arena);
    assert_true(holds(&c, "k", "some text"));
}

static void takes_the_file_of_another_key_for_missing(void **state) {
    fixture *f = *state;
    qgc_cache c = open_cache(f);
    qgc_cache_put(&c, "k", "text", 4, f->arena);
    assert_int_equal(
        rename(qgc_arena_printf(f->arena, "%s/k", c.folder), qgc_arena_printf(f->arena, "%s/l", c.folder)),
        0);
    assert_false(holds(&c, "l", "text"));
}

static void does_nothing_where_there_is_no_folder(void **state) {
    fixture *f = *state;
    qgc_diag d = qgc_diag_new(f->arena);
    const char *file = fixture_path(f, "file");
    assert_int_equal(qgc_file_write(file, "", 0, &d), QGC_OK);
    const char *const folders[] = {"", file, qgc_arena_printf(f->arena, "%s/below", file)};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        qgc_cache c = qgc_cache_open(folders[i], f->arena);
        assert_null(c.folder);
        assert_non_null(strstr(c.fault, folders[i]));
        assert_non_null(strstr(c.fault, i == 0   ? "No such file"
                                        : i == 1 ? "File exists"
                                                 : "Not a directory"));
        assert_false(qgc_cache_put(&c, "k", "text", 4, f->arena));
        assert_false(holds(&c, "k", "text"));
    }
}

static void survives_the_folder_being_deleted(void **state) {
    fixture *f = *state;
    qgc_cache c = open_cache(f);
    qgc_test_folder_drop(f->arena, c.folder);
    assert_false(qgc_cache_put(&c, "k", "text", 4, f->arena));
    assert_false(holds(&c, "k", "text"));
}

static void finds_the_folder_of_the_user(void **state) {
    fixture *f = *state;
    assert_int_equal(setenv("HOME", f->folder, 1), 0);
    assert_int_equal(unsetenv("XDG_CACHE_HOME"), 0);
    const char *in_home = fixture_path(f, ".cache/qgc");
    assert_string_equal(qgc_cache_open(NULL, f->arena).folder, in_home);
    assert_true(qgc_file_is_folder(in_home));

    assert_int_equal(setenv("XDG_CACHE_HOME", "relative", 1), 0);
    assert_string_equal(qgc_cache_open(NULL, f->arena).folder, in_home);

    assert_int_equal(setenv("XDG_CACHE_HOME", f->folder, 1), 0);
    assert_string_equal(qgc_cache_open(NULL, f->arena).folder, fixture_path(f, "qgc"));

    assert_int_equal(unsetenv("XDG_CACHE_HOME"), 0);
    assert_int_equal(unsetenv("HOME"), 0);
    assert_null(qgc_cache_open(NULL, f->arena).folder);
}

typedef struct {
    const qgc_cache *cache;
    bool wrong;
} worker;

static void *put_and_get(void *context) {
    worker *w = context;
    qgc_arena *a = qgc_arena_new();
    qgc_cache c = {.folder = w->cache->folder, .arena = a};
    for (int i = 0; i < 200; i++) {
        qgc_cache_put(&c, "k", "the same text", 13, a);
        w->wrong |= !holds(&c, "k", "the same text");
    }
    qgc_arena_drop(a);
    return NULL;
}

static void never_shows_half_a_file_to_another_thread(void **state) {
    fixture *f = *state;
    qgc_cache c = open_cache(f);
    worker workers[2] = {{&c, false}, {&c, false}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_and_get, &workers[i]), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_false(workers[i].wrong);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(gives_back_what_was_put),
        FIXTURE_TEST(leaves_one_file_for_each_key),
        FIXTURE_TEST(makes_folders_for_the_user_alone),
        FIXTURE_TEST(takes_a_damaged_file_for_missing),
        FIXTURE_TEST(takes_the_file_of_another_key_for_missing),
        FIXTURE_TEST(does_nothing_where_there_is_no_folder),
        FIXTURE_TEST(survives_the_folder_being_deleted),
        FIXTURE_TEST(finds_the_folder_of_the_user),
        FIXTURE_TEST(never_shows_half_a_file_to_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
