#define _GNU_SOURCE /* sched_getaffinity */
#include "graph/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "graph/base/arena.h"

struct qgc_pool {
    qgc_arena *arena;
    pthread_t *threads; /* n_threads - 1: the caller is the last */
    int n_threads;

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    unsigned long round; /* counts jobs, so that a worker knows a new one from the old */
    int busy;
    bool stop;

    void (*fn)(void *, size_t, size_t);
    void *context;
    size_t n, piece;
    atomic_size_t next;
    bool tried;                /* the caller is inside of a qgc_memory_try, */
    atomic_bool out_of_memory; /* which is left when all threads have ended */
};

static void take_pieces(qgc_pool *p) {
    for (;;) {
        size_t first = atomic_fetch_add(&p->next, p->piece);
        if (first >= p->n)
            return;
        size_t last = p->n - first < p->piece ? p->n : first + p->piece;
        p->fn(p->context, first, last);
    }
}

static void take_as_pool(void *context) {
    take_pieces(context);
}

/* Memory that runs out on any thread has run out for the caller, who may not leave while others work on its data. */
static void take_or_give_up(qgc_pool *p) {
    if (!p->tried)
        take_pieces(p);
    else if (!qgc_memory_try(take_as_pool, p)) {
        atomic_store(&p->out_of_memory, true);
        atomic_store(&p->next, p->n);
    }
}

static void *worker(void *arg) {
    qgc_pool *p = arg;
    unsigned long seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->round == seen && !p->stop)
            pthread_cond_wait(&p->work, &p->lock);
        if (p->stop)
            break;
        seen = p->round;
        pthread_mutex_unlock(&p->lock);
        take_or_give_up(p);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0)
            pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int usable_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return CPU_COUNT(&set);
}

qgc_pool *qgc_pool_new(int n_threads) {
    qgc_arena *arena = qgc_arena_new();
    qgc_pool *p = qgc_arena_alloc(arena, sizeof *p);
    p->arena = arena;
    if (n_threads <= 0)
        n_threads = usable_cpus();
    p->threads = qgc_arena_array(arena, (size_t)n_threads, sizeof *p->threads);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->n_threads = 1;
    while (p->n_threads < n_threads && pthread_create(&p->threads[p->n_threads - 1], NULL, worker, p) == 0)
        p->n_threads++;
    return p;
}

void qgc_pool_drop(qgc_pool *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads - 1; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    qgc_arena_drop(p->arena);
}

int qgc_pool_threads(const qgc_pool *p) {
    return p->n_threads;
}

void qgc_pool_for(qgc_pool *p, size_t n, size_t grain, void (*fn)(void *, size_t, size_t), void *context) {
    if (n == 0)
        return;
    if (grain == 0)
        grain = 1;
    if (p->n_threads == 1 || n <= grain) {
        fn(context, 0, n);
        return;
    }
    /* Four pieces a thread even out threads of different speed. */
    size_t piece = n / (4 * (size_t)p->n_threads) + 1;
    p->piece = piece < grain ? grain : piece;
    p->fn = fn;
    p->context = context;
    p->n = n;
    atomic_store(&p->next, 0);
    p->tried = qgc_memory_is_tried();
    atomic_store(&p->out_of_memory, false);

    pthread_mutex_lock(&p->lock);
    p->busy = p->n_threads - 1;
    p->round++;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);

    take_or_give_up(p);

    pthread_mutex_lock(&p->lock);
    while (p->busy > 0)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
    if (atomic_load(&p->out_of_memory))
        qgc_memory_out(0);
}
