#ifndef QGC_CLI_JSON_H
#define QGC_CLI_JSON_H

#include <jansson.h>

#include "runtime/cli/cli.h"

/* --json means the same for every command: what it has found is one JSON value, on standard output in place of the text, or in
 * the file of --json=FILE beside it. */
/* clang-format off */
#define CLI_JSON_OPTION(into) \
    {"json", 0, OPTION_OUTPUT, &(into), "FILE", "the result as JSON, on stdout or in a file", 0, 0}
/* clang-format on */

/* Writes `all` to where --json says, and gives it back to jansson. Errors: those of qgc_file_write; NULL, which jansson makes of a
 * text that is not UTF-8. */
QGC_MUST_USE qgc_status cli_write_json(const char *where, json_t *all, qgc_diag *d);

/* Is there text for a reader beside the JSON of `where` (NULL: none)? Not where that has standard output. */
bool cli_wants_text(const char *where);

/* A text of which bytes that are not UTF-8 are U+FFFD. */
json_t *cli_json_text(const char *text, size_t bytes, qgc_arena *a);

#endif
