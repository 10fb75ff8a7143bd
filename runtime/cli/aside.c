#include "runtime/cli/aside.h"

#include <stdio.h>
#include <unistd.h>

static int kept = -1; /* standard output, while it is aside */

void cli_aside_begin(void) {
    if (kept >= 0)
        return;
    fflush(stdout);
    kept = dup(STDOUT_FILENO);
    if (kept >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        close(kept);
        kept = -1;
    }
}

void cli_aside_end(void) {
    if (kept < 0)
        return;
    fflush(stdout); /* what the pass has printed */
    dup2(kept, STDOUT_FILENO);
    close(kept);
    kept = -1;
}
