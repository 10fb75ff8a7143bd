#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/arena.h"
#include "graph/base/diag.h"
#include "graph/base/file.h"
#include "graph/base/hash.h"
#include "graph/base/map.h"
#include "graph/base/pool.h"
#include "graph/base/str.h"
#include "graph/base/times.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

static void arena_gives_zeroed_aligned_memory_of_any_size(void **state) {
    size_t sizes[] = {0, 1, 15, 17, 1000, 20000, 70000, 1 << 20, 3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = qgc_arena_alloc(*state, sizes[i]);
        assert_int_equal((uintptr_t)p % 16, 0);
        if (sizes[i] >= 16 * 1024 + 1)
            assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(p[k], 0);
        memset(p, 0xAA, sizes[i]);
    }
}

static void grow_keeps_what_is_there(void **state) {
    int *v = NULL;
    for (int i = 0; i < 1000; i++) {
        v = qgc_arena_grow(*state, v, (size_t)i, sizeof *v);
        v[i] = i;
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(v[i], i);
}

static void map_finds_what_was_put_and_refuses_a_second_value(void **state) {
    qgc_map m = qgc_map_new(*state);
    char key[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "key %d", i);
        assert_true(qgc_map_put(&m, key, qgc_arena_strdup(*state, key)));
    }
    assert_false(qgc_map_put(&m, "key 17", &m));
    assert_string_equal(qgc_map_get(&m, "key 4999"), "key 4999");
    assert_null(qgc_map_get(&m, "key 5000"));
    assert_string_equal(m.entries[42].key, "key 42");
    assert_true(qgc_map_put_bytes(&m, "a\0b", 3, &m));
    assert_null(qgc_map_get(&m, "a"));
}

static void str_grows_and_formats(void **state) {
    qgc_str s = qgc_str_new(*state);
    assert_string_equal(s.text, "");
    for (int i = 0; i < 300; i++)
        qgc_str_printf(&s, "%d,", i);
    assert_int_equal(s.bytes, strlen(s.text));
    assert_string_equal(s.text + s.bytes - 8, "298,299,");
}

static void nearest_suggests_only_what_is_near(void **state) {
    (void)state;
    const char *const words[] = {"rms_norm", "linear", "rope"};
    assert_string_equal(qgc_nearest("rmsnorm", words, 3), "rms_norm");
    assert_string_equal(qgc_nearest("liner", words, 3), "linear");
    assert_null(qgc_nearest("attention", words, 3));
}

static void hash_is_xxh3(void **state) {
    (void)state;
    assert_true(qgc_hash64("", 0) == 0x2d06800538d394c2ULL); /* the published value for seed 0 */
    assert_int_equal(strlen(qgc_hash128("abc", 3).hex), 32);
}

static void diag_prints_place_quote_notes_hint_and_frames(void **state) {
    qgc_arena *a = *state;
    const char *text = "one\n\ttwo words\nthree";
    qgc_source source = {"x.yaml", text, strlen(text)};
    qgc_diag d = qgc_diag_new(a);
    qgc_frame outer = {NULL, "running pass", "shapes", QGC_NO_LOC};
    qgc_frame inner = {&outer, "looking at", "\"x\"", {&source, 1, 1}};
    d.top = &inner;
    assert_int_equal(qgc_fail(&d, QGC_ERR_INPUT, (qgc_loc){&source, 2, 6}, "no such %s", "word"),
                     QGC_ERR_INPUT);
    qgc_note(&d, (qgc_loc){&source, 3, 1}, "declared here");
    qgc_hint(&d, "Try another.");
    assert_int_equal(qgc_fail(&d, QGC_ERR_USAGE, QGC_NO_LOC, "an echo"), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(a, &d), "x.yaml:2:6: error: no such word\n"
                                                 "     2 | \ttwo words\n"
                                                 "       | \t    ^\n"
                                                 "x.yaml:3:1: note: declared here\n"
                                                 "     3 | three\n"
                                                 "       | ^\n"
                                                 "  hint: Try another.\n"
                                                 "x.yaml:1:1: while: looking at \"x\"\n"
                                                 "  while: running pass shapes\n");
    assert_string_equal(qgc_diag_message(&d), "no such word");
}

/* The source, its name and its text may be gone when the error is printed. */
static void a_diag_owns_what_it_quotes(void **state) {
    qgc_arena *a = *state, *elsewhere = qgc_arena_new();
    const char text[] = "a: 1\nb: 2\n";
    qgc_source *s = qgc_arena_alloc(elsewhere, sizeof *s);
    *s = (qgc_source){qgc_arena_strdup(elsewhere, "f.yaml"), qgc_arena_strdup(elsewhere, text),
                      sizeof text - 1};
    char name[] = "the node";
    qgc_diag d = qgc_diag_new(a);
    qgc_frame frame = {NULL, "looking at", name, {s, 1, 1}};
    d.top = &frame;
    (void)qgc_fail(&d, QGC_ERR_INPUT, (qgc_loc){s, 2, 4}, "no such number as %s", name);
    qgc_note(&d, (qgc_loc){s, 1, 1}, "declared here");
    d.top = NULL;
    memset(name, 'x', sizeof name - 1);
    memset((void *)(uintptr_t)s->text, 'x', s->bytes);
    memset((void *)(uintptr_t)s->name, 'x', strlen(s->name));
    memset(s, 0x5A, sizeof *s);
    qgc_arena_drop(elsewhere);
    assert_string_equal(qgc_test_printed(a, &d), "f.yaml:2:4: error: no such number as the node\n"
                                                 "     2 | b: 2\n"
                                                 "       |    ^\n"
                                                 "f.yaml:1:1: note: declared here\n"
                                                 "     1 | a: 1\n"
                                                 "       | ^\n"
                                                 "f.yaml:1:1: while: looking at the node\n");
}

/* U+009B is one byte short of ESC [ and does the same; a lone 0x9B is not UTF-8. */
static void a_diag_gives_a_terminal_no_commands(void **state) {
    static const char text[] = "a\033[31m\0b\tc\xC2\x9B"
                               "1m \xC3\xA9 \x9B\n";
    const qgc_source source = {"f\033]0;x\007\n.yaml", text, sizeof text - 1};
    qgc_diag d = qgc_diag_new(*state);
    (void)qgc_fail(&d, QGC_ERR_INPUT, (qgc_loc){&source, 1, 16}, "no \"%s\"", "\033[2J\xC2\x9B\x7F\xE9\r\n");
    qgc_note(&d, QGC_NO_LOC, "\b%s", "\x9B");
    qgc_hint(&d, "Say %s.", "\a\xC3\xA9");
    assert_string_equal(qgc_test_printed(*state, &d), "f?]0;x??.yaml:1:16: error: no \"?[2J?????\"\n"
                                                      "     1 | a?[31m?b\tc?1m \xC3\xA9 ?\n"
                                                      "       |         \t      ^\n"
                                                      "qgc: note: ??\n"
                                                      "  hint: Say ?\xC3\xA9.\n");
}

/* What was read elsewhere may be gone when the error is printed. */
static void an_adopted_error_keeps_the_text_that_it_quotes(void **state) {
    qgc_arena *a = *state, *elsewhere = qgc_arena_new();
    qgc_source *s = qgc_arena_alloc(elsewhere, sizeof *s);
    s->text = qgc_arena_strdup(elsewhere, "a: 1\nb: 2\n");
    *s = (qgc_source){qgc_arena_strdup(elsewhere, "f.yaml"), s->text, strlen(s->text)};
    qgc_diag inner = qgc_diag_new(elsewhere), d = qgc_diag_new(a), same = qgc_diag_new(a);
    for (int i = 0; i < 2; i++) {
        qgc_diag *to = i ? &inner : &same;
        (void)qgc_fail(to, QGC_ERR_INPUT, (qgc_loc){s, 2, 4}, "no such number");
        qgc_note(to, QGC_NO_LOC, "none at all");
        qgc_hint(to, "Write 3.");
    }
    const char *want = qgc_test_printed(a, &same);
    assert_int_equal(qgc_diag_adopt(&d, &inner), QGC_ERR_INPUT);
    memset((void *)(uintptr_t)s->text, 'x', s->bytes);
    qgc_arena_drop(elsewhere);
    assert_string_equal(qgc_test_printed(a, &d), want);
}

static void file_errors_name_the_path(void **state) {
    qgc_file f;
    qgc_diag d = qgc_diag_new(*state);
    assert_int_equal(qgc_file_open(&f, "/no/such/file", &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(*state, &d),
                        "/no/such/file: error: could not open the file: No such file or directory\n");
    d = qgc_diag_new(*state);
    assert_int_equal(qgc_file_open(&f, "/", &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "is a folder, expected a file");
}

static void file_write_then_map_gives_the_same_bytes(void **state) {
    qgc_diag d = qgc_diag_new(*state);
    char *path = qgc_arena_printf(*state, "/tmp/qgc-test-%p", (void *)&d);
    assert_int_equal(qgc_file_write(path, "hello", 5, &d), QGC_OK);
    qgc_file f;
    assert_int_equal(qgc_file_open(&f, path, &d), QGC_OK);
    assert_int_equal(f.bytes, 5);
    assert_memory_equal(f.data, "hello", 5);
    qgc_file_close(&f);
    qgc_source s;
    assert_int_equal(qgc_file_read(&s, path, 4, "the test file", &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "the test file is larger than 4 bytes");
    remove(path);
}

typedef struct {
    atomic_int hits[1000];
} pool_job;

static void count_hits(void *context, size_t first, size_t last) {
    pool_job *job = context;
    for (size_t i = first; i < last; i++)
        atomic_fetch_add(&job->hits[i], 1);
}

static void ask_for_too_much(void *arena) {
    qgc_arena_alloc(arena, SIZE_MAX); /* a sanitizer would not let libc refuse less */
    fail_msg("there is memory for %zu bytes", SIZE_MAX);
}

static void ask_in_vain_and_again(void *arena) {
    assert_false(qgc_memory_try(ask_for_too_much, arena));
    assert_true(qgc_memory_is_tried());
    qgc_arena_array(arena, SIZE_MAX / 4, 8);
    fail();
}

static void memory_that_runs_out_is_told_where_it_is_tried(void **state) {
    assert_false(qgc_memory_is_tried());
    assert_false(qgc_memory_try(ask_in_vain_and_again, *state));
    assert_false(qgc_memory_is_tried());
    assert_string_equal(qgc_arena_strdup(*state, "still good"), "still good");
}

enum { MANY = 4000, LAST = MANY - 1 };

static void ask_at_the_last(void *context, size_t first, size_t last) {
    atomic_size_t *seen = context;
    if (first <= LAST && LAST < last)
        qgc_memory_out(1);
    atomic_fetch_add(seen, last - first);
}

static void laps_beyond_the_most_are_added_to_the_last(void **state) {
    (void)state;
    qgc_times t;
    qgc_times_begin(&t);
    qgc_times_lap(NULL, "nobody wants to know");
    for (int i = 0; i < QGC_MOST_LAPS + 5; i++)
        qgc_times_lap(&t, i < QGC_MOST_LAPS ? "lap" : "more");
    assert_int_equal(t.n, QGC_MOST_LAPS);
    double sum = 0;
    for (size_t i = 0; i < t.n; i++) {
        assert_string_equal(t.laps[i].what, "lap");
        assert_true(t.laps[i].seconds >= 0);
        sum += t.laps[i].seconds;
    }
    assert_true(sum < 10);
}

typedef struct {
    qgc_pool *pool;
    atomic_size_t seen;
} pool_try;

static void run_pool(void *context) {
    pool_try *t = context;
    qgc_pool_for(t->pool, MANY, 1, ask_at_the_last, &t->seen);
    fail();
}

static void memory_that_runs_out_on_a_thread_of_a_pool_is_told_to_its_caller(void **state) {
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        pool_try t = {.pool = qgc_pool_new(threads)};
        assert_false(qgc_memory_try(run_pool, &t));
        assert_true(atomic_load(&t.seen) < MANY);
        pool_job *job = qgc_arena_alloc(*state, sizeof *job);
        qgc_pool_for(t.pool, 1000, 7, count_hits, job); /* and the pool is as good as before */
        for (int i = 0; i < 1000; i++)
            assert_int_equal(atomic_load(&job->hits[i]), 1);
        qgc_pool_drop(t.pool);
    }
}

static void pool_covers_every_index_once(void **state) {
    for (int threads = 1; threads <= 4; threads++) {
        qgc_pool *p = qgc_pool_new(threads);
        for (size_t n = 0; n <= 1000; n += 111) {
            pool_job *job = qgc_arena_alloc(*state, sizeof *job);
            qgc_pool_for(p, n, 7, count_hits, job);
            for (size_t i = 0; i < 1000; i++)
                assert_int_equal(job->hits[i], i < n ? 1 : 0);
        }
        qgc_pool_drop(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(arena_gives_zeroed_aligned_memory_of_any_size),
        ARENA_TEST(grow_keeps_what_is_there),
        ARENA_TEST(map_finds_what_was_put_and_refuses_a_second_value),
        ARENA_TEST(str_grows_and_formats),
        cmocka_unit_test(nearest_suggests_only_what_is_near),
        cmocka_unit_test(hash_is_xxh3),
        ARENA_TEST(diag_prints_place_quote_notes_hint_and_frames),
        ARENA_TEST(a_diag_owns_what_it_quotes),
        ARENA_TEST(a_diag_gives_a_terminal_no_commands),
        ARENA_TEST(an_adopted_error_keeps_the_text_that_it_quotes),
        ARENA_TEST(file_errors_name_the_path),
        ARENA_TEST(file_write_then_map_gives_the_same_bytes),
        cmocka_unit_test(laps_beyond_the_most_are_added_to_the_last),
        ARENA_TEST(pool_covers_every_index_once),
        ARENA_TEST(memory_that_runs_out_is_told_where_it_is_tried),
        ARENA_TEST(memory_that_runs_out_on_a_thread_of_a_pool_is_told_to_its_caller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
