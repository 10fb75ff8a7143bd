#ifndef QGC_CLI_OPTIONS_H
#define QGC_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "graph/base/diag.h"

/* Command lines: each command has a table of options, from which both parsing and --help come. */

typedef enum {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_INT,
    OPTION_NUMBER,
    OPTION_OUTPUT, /* a path, given as --name=FILE only; --name alone is "-" */
} option_kind;

typedef struct {
    const char *name; /* "weights" for --weights */
    char letter;      /* 'n' for -n, or 0 */
    option_kind kind;
    void *into;        /* bool, const char *, int64_t or double; holds the default */
    const char *value; /* "FILE", for help; NULL for a flag */
    const char *help;
    double min, max; /* bounds of INT and NUMBER, both included; none if both are 0 */
} cli_option;

/* The environment variable that an option takes its value from where it is not given: "QGC_DEVICE" of
 * device, for a few that are the same from command to command; else NULL. */
const char *cli_option_variable(const cli_option *o);

typedef struct {
    const char *name;          /* "run" */
    const char *arguments;     /* "[ARTIFACT]", for help */
    const char *summary;       /* one line */
    const char *details;       /* more for --help, or NULL */
    const cli_option *options; /* ended by one without a name */
    int min_arguments, max_arguments;
} cli_command;

typedef struct {
    const char **arguments; /* those that are no options */
    int n;
    bool help; /* --help was there and has been answered */
} cli_line;

/* Parses argv[0..argc) (without program and command). "--name=value", "--name value", "-n value" and
 * "-nvalue" are understood; "--" ends the options. Errors have status QGC_ERR_USAGE and a hint. `--help`
 * is answered here; --help=man and --help=bash, zsh or fish are for the installation (cli/manual.h). */
QGC_MUST_USE qgc_status cli_parse(const cli_command *c, int argc, char **argv, cli_line *line, qgc_diag *d);

/* The same for a command that takes one argument: it stands in *argument, NULL where --help was there and has been answered. */
QGC_MUST_USE qgc_status cli_parse_one(cli_command c, int argc, char **argv, const char **argument,
                                      qgc_diag *d);

/* Splits "a,b,c" at commas; empty parts are left out. */
const char **cli_split(const char *text, int *n, qgc_arena *a);

#endif
