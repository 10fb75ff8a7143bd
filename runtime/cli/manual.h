#ifndef QGC_CLI_MANUAL_H
#define QGC_CLI_MANUAL_H

#include "runtime/cli/options.h"

/* Manual pages and completions of shells, written from the tables of options to standard output: `qgc run
 * --help=man`, `qgc --help=zsh`. The installation calls them (packaging/install.cmake). */

/* One command: a page, or its part of a completion. Error: a format that is not man, bash, zsh or fish. */
QGC_MUST_USE qgc_status cli_manual_command(const cli_command *c, const char *format, qgc_diag *d);

/* What a table of commands needs for the page of qgc itself, or for what stands before and after those
 * parts. */
typedef struct {
    const char *name, *summary;
} cli_summary;

/* "man" and "names" are whole; of the others this is what comes before the parts of the commands. The same
 * errors. */
QGC_MUST_USE qgc_status cli_manual_begin(const cli_summary *commands, int n, const char *format, qgc_diag *d);
void cli_manual_end(const cli_summary *commands, int n, const char *format);

#endif
