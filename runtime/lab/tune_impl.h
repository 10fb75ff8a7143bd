#ifndef QGC_LAB_TUNE_PARTS_H
#define QGC_LAB_TUNE_PARTS_H

#include "runtime/lab/tune.h"

/* What tune.c, which decides what to try, and tune_worker.c, the process that tries, share. They talk in lines, fields
 * separated by tabs:
 *
 *   worker  arch sm_90a | card h100-sxm | knob KERNEL NAME VALUE 1,2,4 | ready
 *   tune    try KERNEL NAME VALUE
 *   worker  time BASE CANDIDATE LOW HIGH | wrong TEXT | failed TEXT
 *   tune    keep KERNEL NAME VALUE
 *   worker  ready, or failed TEXT
 *   tune    modes - - 0
 *   worker  mode PROGRAM MODE NANOSECONDS | ready
 *
 * A worker that cannot begin says "failed TEXT" in place of "arch". It ends with its input. */
enum { QGC_TUNE_LINE = 4096 }; /* bytes of a line, with its end */

/* Reads requests and answers them until there are no more; `tuning` is what to begin with. */
void qgc_tune_work(const qgc_tune_options *o, const qgc_tuning *tuning, int requests, int answers);

#endif
