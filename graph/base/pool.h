#ifndef QGC_BASE_POOL_H
#define QGC_BASE_POOL_H

#include <stddef.h>

/* A fixed set of threads that split loops. */
typedef struct qgc_pool qgc_pool;

/* `n_threads` counts the caller; 0 means one for each CPU this process may use. NULL is never returned;
 * where the system gives fewer threads than asked for, the pool has fewer. */
qgc_pool *qgc_pool_new(int n_threads);
void qgc_pool_drop(qgc_pool *p);
int qgc_pool_threads(const qgc_pool *p);

/* Calls fn(context, first, last) so that the ranges [first, last) cover [0, n) once, in pieces of at least
 * `grain`, and returns when all are done. Which thread takes which piece varies from call to call, so a
 * result must not depend on it. Not to be called from inside fn. */
void qgc_pool_for(qgc_pool *p, size_t n, size_t grain, void (*fn)(void *context, size_t first, size_t last),
                  void *context);

#endif
