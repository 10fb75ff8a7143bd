/* Files that are not plain ones: pipes, devices, links, folders; files that shrink; memory that runs out. */

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

static const char *content(fixture *f, const char *path) {
    qgc_source s;
    ok(f, qgc_file_read(&s, path, 1 << 20, "the file", &f->diag));
    return s.text;
}

static void fails(fixture *f, qgc_status s, const char *want) {
    assert_int_equal(s, QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &f->diag), want);
    f->diag = qgc_diag_new(f->arena);
}

static const char *make_pipe(fixture *f) {
    const char *path = fixture_path(f, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    return path;
}

/* All three would wait for ever if they waited. */
static void a_pipe_without_another_end_is_an_error(void **state) {
    fixture *f = *state;
    const char *path = make_pipe(f);
    qgc_source s;
    qgc_file file;
    fails(f, qgc_file_read(&s, path, 10, "the prompt", &f->diag),
          qgc_arena_printf(f->arena, "%s: error: the prompt is a pipe that nothing is written to\n", path));
    fails(f, qgc_file_open(&file, path, &f->diag),
          qgc_arena_printf(f->arena, "%s: error: is a pipe, expected a regular file\n", path));
    fails(
        f, qgc_file_write(path, "x", 1, &f->diag),
        qgc_arena_printf(f->arena, "%s: error: could not write the file: No such device or address\n", path));
}

static void a_pipe_with_a_writer_is_read_to_its_end(void **state) {
    fixture *f = *state;
    const char *path = make_pipe(f);
    int held = open(path, O_RDWR); /* so that the child need not wait for a reader */
    assert_true(held >= 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_WRONLY);
        close(held);
        bool good = write(fd, "first ", 6) == 6;
        nanosleep(&(struct timespec){.tv_nsec = 50000000},
                  NULL); /* the reader finds the pipe empty in between */
        good = good && write(fd, "second", 6) == 6;
        _exit(!good);
    }
    char byte = 0;
    while (read(held, &byte, 1) == 1 && byte != ' ') /* the child is there */
        ;
    close(held);
    assert_string_equal(content(f, path), "second");
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_int_equal(ended, 0);
}

static void a_link_stays_and_its_target_is_written(void **state) {
    fixture *f = *state;
    const char *link = fixture_path(f, "link"), *target = fixture_path(f, "target");
    struct stat st;
    assert_int_equal(symlink("target", link), 0);
    ok(f, qgc_file_write(link, "one", 3, &f->diag)); /* which leads nowhere yet */
    assert_string_equal(content(f, target), "one");
    assert_int_equal(chmod(target, 0640), 0);
    ok(f, qgc_file_write(link, "two", 3, &f->diag));
    assert_string_equal(content(f, target), "two");
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(target, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void a_device_is_written_to_and_not_replaced(void **state) {
    fixture *f = *state;
    struct stat before, after;
    assert_int_equal(stat("/dev/null", &before), 0);
    ok(f, qgc_file_write("/dev/null", "text", 4, &f->diag));
    assert_int_equal(stat("/dev/null", &after), 0);
    assert_true(S_ISCHR(after.st_mode));
    assert_int_equal(before.st_ino, after.st_ino);
}

static void a_place_where_nothing_can_be_written_is_told_before(void **state) {
    fixture *f = *state;
    const char *below = fixture_path(f, "nowhere/x");
    fails(f, qgc_file_check_output(below, &f->diag),
          qgc_arena_printf(f->arena, "%s: error: could not write the file: No such file or directory\n",
                           below));
    fails(f, qgc_file_check_output(f->folder, &f->diag),
          qgc_arena_printf(f->arena, "%s: error: could not write the file: it is a folder\n", f->folder));
    ok(f, qgc_file_check_output(fixture_path(f, "fresh"), &f->diag));
    assert_false(qgc_file_exists(fixture_path(f, "fresh")));
    ok(f, qgc_file_check_output("/dev/null", &f->diag));
    ok(f, qgc_file_check_output("-", &f->diag));
    ok(f, qgc_file_check_output(NULL, &f->diag));
}

static void what_cannot_be_opened_exists(void **state) {
    fixture *f = *state;
    const char *link = fixture_path(f, "link");
    assert_int_equal(symlink("nowhere", link), 0);
    assert_true(qgc_file_exists(link));
    assert_false(qgc_file_exists(fixture_path(f, "nothing")));
    assert_false(qgc_file_is_regular(link));
    assert_true(qgc_file_is_regular(fixture_write(f, "file", "")));
}

/* What a child that does `body` says on stderr, and how it ends. */
static const char *child(fixture *f, void (*body)(fixture *), int *ended) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t id = fork();
    if (id == 0) {
        dup2(ends[1], STDERR_FILENO);
        body(f);
        _exit(77);
    }
    close(ends[1]);
    char *text = qgc_arena_alloc(f->arena, 4096);
    for (size_t n = 0; n < 4095;) {
        ssize_t got = read(ends[0], text + n, 4095 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(ends[0]);
    assert_int_equal(waitpid(id, ended, 0), id);
    return text;
}

/* Of more than 300 bytes, all of which are said. */
static const char *long_path(fixture *f) {
    char folder[301] = {0};
    for (size_t i = 0; i + 2 < sizeof folder; i += 2)
        memcpy(folder + i, "./", 2);
    return qgc_arena_printf(f->arena, "%s/%s/shrinks", f->folder, folder);
}

static void shrink(fixture *f) {
    qgc_file file;
    qgc_file_guard();
    const char *path = long_path(f);
    if (qgc_file_open(&file, path, &f->diag) != QGC_OK || truncate(path, 0) != 0)
        return;
    volatile unsigned char sum = 0;
    for (size_t i = 0; i < file.bytes; i += 512)
        sum = (unsigned char)(sum + file.data[i]);
}

static void a_file_that_shrinks_under_the_reader_is_named(void **state) {
    fixture *f = *state;
    char *bytes = qgc_arena_alloc(f->arena, 65536);
    qgc_test_write(f->arena, f->folder, "shrinks", bytes, 65536);
    int ended;
    const char *said = child(f, shrink, &ended);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), QGC_ERR_INPUT);
    has(said, qgc_arena_printf(f->arena, "%s: error: the file became shorter", long_path(f)));
}

static void write_over_input(fixture *f) {
    qgc_source s;
    qgc_file_guard();
    const char *path = fixture_path(f, "input"), *link = fixture_path(f, "also");
    if (qgc_file_read(&s, path, 100, "the file", &f->diag) != QGC_OK)
        return;
    qgc_status refused = qgc_file_write(link, "x", 1, &f->diag);
    qgc_diag_print(&f->diag, stderr, false);
    f->diag = qgc_diag_new(f->arena);
    qgc_status replaced = qgc_file_replace(path, "y", 1, &f->diag);
    _exit(refused == QGC_ERR_INPUT && replaced == QGC_OK ? 42 : 43);
}

static void an_input_is_not_written_over(void **state) {
    fixture *f = *state;
    fixture_write(f, "input", "text");
    assert_int_equal(symlink("input", fixture_path(f, "also")), 0);
    int ended;
    const char *said = child(f, write_over_input, &ended);
    has(said, "also: error: could not write the file: it is an input of this command");
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), 42);
    assert_string_equal(content(f, fixture_path(f, "input")), "y");
}

static void ask_for_too_much(fixture *f) {
    (void)qgc_arena_alloc(f->arena, SIZE_MAX - 100);
}
static void ask_for_too_many(fixture *f) {
    (void)qgc_arena_array(f->arena, SIZE_MAX / 2, 4);
}

static void memory_that_runs_out_has_an_exit_code(void **state) {
    fixture *f = *state;
    void (*const asks[])(fixture *) = {ask_for_too_much, ask_for_too_many};
    for (int i = 0; i < 2; i++) {
        int ended;
        has(child(f, asks[i], &ended), "qgc: error: out of host memory");
        assert_true(WIFEXITED(ended));
        assert_int_equal(WEXITSTATUS(ended), QGC_ERR_DEVICE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_pipe_without_another_end_is_an_error),
        FIXTURE_TEST(a_pipe_with_a_writer_is_read_to_its_end),
        FIXTURE_TEST(a_link_stays_and_its_target_is_written),
        FIXTURE_TEST(a_device_is_written_to_and_not_replaced),
        FIXTURE_TEST(a_place_where_nothing_can_be_written_is_told_before),
        FIXTURE_TEST(what_cannot_be_opened_exists),
        FIXTURE_TEST(a_file_that_shrinks_under_the_reader_is_named),
        FIXTURE_TEST(an_input_is_not_written_over),
        FIXTURE_TEST(memory_that_runs_out_has_an_exit_code),
    };
    return cmocka_run_group_tests_name("graph/base/file", tests, NULL, NULL);
}
