#ifndef TESTS_SUPPORT_SHELL_H
#define TESTS_SUPPORT_SHELL_H

#include <stdio.h>
#include <sys/wait.h>

#include "graph/base/str.h"
#include "tests/support/cmocka.h"

/* What a shell prints for a line, errors too, and how it ended, as pclose says it. */
static inline const char *qgc_test_shell_run(qgc_arena *a, const char *line, int *ended) {
    fflush(stdout);
    FILE *f = popen(qgc_arena_printf(a, "exec 2>&1; %s", line), "r");
    assert_non_null(f);
    qgc_str text = qgc_str_new(a);
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;)
        qgc_str_add_bytes(&text, piece, n);
    *ended = pclose(f);
    return text.text;
}

/* The same where the exit code is known. */
static inline const char *qgc_test_shell(qgc_arena *a, const char *line, int want) {
    int ended;
    const char *text = qgc_test_shell_run(a, line, &ended);
    if (!WIFEXITED(ended) || WEXITSTATUS(ended) != want)
        fail_msg("%s\nended with %x:\n%s", line, (unsigned)ended, text);
    return text;
}

#endif
