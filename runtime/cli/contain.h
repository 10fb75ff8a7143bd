#ifndef QGC_CLI_CONTAIN_H
#define QGC_CLI_CONTAIN_H

#include "passes/passes.h"

/* A command in a child process, so that a pass from outside that crashes, aborts, ends the process or hangs
 * is named, with its change, and leaves the graph before that change as a file. The two processes share a
 * page in which the child says what it is about to do. */

/* Does the command line ask for it: --contain, or, of bisect and ablate, a pass from outside? */
bool cli_contain_wanted(int argc, char **argv);

/* Forks. In the child it returns false, and the command goes on there. In the parent it waits, and returns
 * true with the exit code of the child in *code, or with an error in d. Called before there are threads or
 * a device. */
bool cli_contain(int *code, qgc_diag *d);

/* For the child; without one they do nothing, and the watch is NULL. A pass may run for so many seconds
 * between two of its changes; a plug-in is about to be loaded. */
const qgc_pass_watch *cli_contain_watch(void);
void cli_contain_limit(double seconds);
void cli_contain_loading(const char *plugin);
/* The command comes to its end, with or without an error: what happens from here on is no pass's doing. */
void cli_contain_end(void);

#endif
