#ifndef TESTS_SUPPORT_COMMAND_H
#define TESTS_SUPPORT_COMMAND_H

#include <stdio.h>
#include <sys/wait.h>

#include "graph/base/str.h"
#include "tests/support/cmocka.h"

/* What `qgc ...` prints, errors too; a signal is status -1. The path of qgc is QGC_COMMAND. */
static inline const char *qgc_test_run(qgc_arena *a, const char *arguments, int *status) {
    fflush(stdout);
    FILE *f = popen(qgc_arena_printf(a, "'" QGC_COMMAND "' %s 2>&1", arguments), "r");
    assert_non_null(f);
    qgc_str text = qgc_str_new(a);
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;)
        qgc_str_add_bytes(&text, piece, n);
    int ended = pclose(f);
    /* a shell that waits for a command says 128 + n for signal n */
    *status = WIFEXITED(ended) && WEXITSTATUS(ended) < 128 ? WEXITSTATUS(ended) : -1;
    return text.text;
}

/* The same where the status is known. */
static inline const char *qgc_test_output(qgc_arena *a, const char *arguments, int want) {
    int status;
    const char *text = qgc_test_run(a, arguments, &status);
    if (status != want)
        fail_msg("qgc %s: status %d, output:\n%s", arguments, status, text);
    return text;
}

#endif
