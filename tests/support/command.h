#ifndef TESTS_SUPPORT_COMMAND_H
#define TESTS_SUPPORT_COMMAND_H

#include "tests/support/shell.h"

/* What `qgc ...` prints, errors too; a signal is status -1. The path of qgc is QGC_COMMAND. */
static inline const char *qgc_test_run(qgc_arena *a, const char *arguments, int *status) {
    int ended;
    const char *text = qgc_test_shell_run(a, qgc_arena_printf(a, "'" QGC_COMMAND "' %s", arguments), &ended);
    /* a shell that waits for a command says 128 + n for signal n */
    *status = WIFEXITED(ended) && WEXITSTATUS(ended) < 128 ? WEXITSTATUS(ended) : -1;
    return text;
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
