#ifndef QGC_BASE_TIMES_H
#define QGC_BASE_TIMES_H

#include <stddef.h>

/* Where the time of a start goes: a list of laps, each with the time since the one before it. One thread uses it. */
typedef struct {
    const char *what;
    double seconds;
} qgc_lap;

enum { QGC_MOST_LAPS = 32 };

typedef struct {
    qgc_lap laps[QGC_MOST_LAPS];
    size_t n;
    double last; /* qgc_seconds() when the last one ended */
} qgc_times;

/* Seconds on a clock that only goes forward, from some moment on. */
double qgc_seconds(void);

/* From now on. */
void qgc_times_begin(qgc_times *t);

/* Ends a lap. `what` is a literal; laps beyond the most there can be are added to the last one. `t` may be NULL: then
 * nothing is noted. */
void qgc_times_lap(qgc_times *t, const char *what);

#endif
