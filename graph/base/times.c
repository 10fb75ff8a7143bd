#include "graph/base/times.h"

#include <time.h>

double qgc_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void qgc_times_begin(qgc_times *t) {
    *t = (qgc_times){.last = qgc_seconds()};
}

void qgc_times_lap(qgc_times *t, const char *what) {
    if (!t)
        return;
    const double now = qgc_seconds(), took = now - t->last;
    t->last = now;
    if (t->n == QGC_MOST_LAPS) {
        t->laps[t->n - 1].seconds += took;
        return;
    }
    t->laps[t->n++] = (qgc_lap){.what = what, .seconds = took};
}
