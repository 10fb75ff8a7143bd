#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file_impl.h"
#include "graph/base/utf8.h"

/* One process is one command, so these are its books. */

enum { MOST_MAPPED = 512 };

typedef struct {
    const volatile void *begin; /* NULL: the row is not taken */
    size_t bytes;
    const char *name; /* in the arena */
} mapping;

typedef struct {
    dev_t device;
    ino_t number;
} identity;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool guarding;
static mapping mappings[MOST_MAPPED];
static qgc_arena *arena;
static identity *inputs;
static size_t n_inputs;

void qgc_file_note_input(const struct stat *st) {
    if (!guarding || !S_ISREG(st->st_mode))
        return;
    pthread_mutex_lock(&lock);
    inputs = qgc_arena_grow(arena, inputs, n_inputs, sizeof *inputs);
    inputs[n_inputs++] = (identity){st->st_dev, st->st_ino};
    pthread_mutex_unlock(&lock);
}

bool qgc_file_is_input(const struct stat *st) {
    bool found = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_inputs && !found; i++)
        found = inputs[i].device == st->st_dev && inputs[i].number == st->st_ino;
    pthread_mutex_unlock(&lock);
    return found;
}

/* A file beyond the rows is guarded all the same, only without its name. */
void qgc_file_note_mapped(const void *data, size_t bytes, const char *path) {
    if (!guarding)
        return;
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < MOST_MAPPED && mappings[i].begin)
        i++;
    if (i < MOST_MAPPED) {
        char *name = qgc_arena_strdup(arena, path);
        qgc_make_printable(name, "");
        mappings[i].name = name;
        mappings[i].bytes = bytes;
        mappings[i].begin = data;
    }
    pthread_mutex_unlock(&lock);
}

void qgc_file_forget_mapped(const void *data) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_MAPPED; i++)
        if (mappings[i].begin == data)
            mappings[i].begin = NULL;
    pthread_mutex_unlock(&lock);
}

static void say(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(QGC_ERR_INPUT); /* no one reads it */
}

/* Reading a page of a mapping that its file no longer has. Only what a signal handler may call is called. */
static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
    (void)signal_number;
    (void)context;
    const uintptr_t at = (uintptr_t)info->si_addr;
    const char *name = NULL;
    for (int i = 0; i < MOST_MAPPED && !name; i++) {
        const uintptr_t begin = (uintptr_t)mappings[i].begin;
        if (begin && at >= begin && at - begin < mappings[i].bytes)
            name = mappings[i].name;
    }
    say(name ? name : "qgc");
    say(": error: the file became shorter, or could no longer be read, while it was in use\n");
    _exit(QGC_ERR_INPUT);
}

void qgc_file_guard(void) {
    if (guarding)
        return;
    arena = qgc_arena_new(); /* for as long as the process */
    guarding = true;
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
}
