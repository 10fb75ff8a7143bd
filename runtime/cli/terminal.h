#ifndef QGC_CLI_TERMINAL_H
#define QGC_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/base/arena.h"

/* Lines of standard input. On a terminal they can be edited, and those of earlier conversations come back
 * with the arrow keys (libedit, where qgc was built with it); else they are read as they are. */
typedef struct cli_terminal cli_terminal;

/* With `edit` standard input and standard error are a terminal. */
cli_terminal *cli_terminal_open(bool edit, qgc_arena *a);
void cli_terminal_close(cli_terminal *t); /* NULL is allowed; the terminal is as it was before */

/* A line without its end, which lives until the next; NULL at the end of the input, and after Ctrl-C.
 * `prompt` is shown on standard error where lines are edited. *cut: the terminal cannot take lines as long
 * as this one, and has lost its end. */
const char *cli_terminal_line(cli_terminal *t, const char *prompt, size_t *bytes, bool *cut);

#endif
