#ifndef QGC_CLI_ASIDE_H
#define QGC_CLI_ASIDE_H

/* While a pass from outside runs, what it prints to standard output goes to standard error, so that a graph or JSON that the
 * command prints stays what it is. Between the two calls qgc itself prints nothing there. */

/* Nothing changes where that has begun already, or where there is no standard output. */
void cli_aside_begin(void);
/* Does nothing where it has not begun. */
void cli_aside_end(void);

#endif
