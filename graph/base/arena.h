#ifndef QGC_BASE_ARENA_H
#define QGC_BASE_ARENA_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Memory by lifetime: everything put into an arena lives until the arena is dropped, and nothing is freed
 * one by one. The compiler has one arena for a whole compile, the runtime one for each program.
 *
 * This is the only module that asks libc for memory. When the host has none left it says so and ends the
 * process with exit code 3: no caller has to check. A library must not end its process, and calls through
 * qgc_memory_try. */
typedef struct qgc_arena qgc_arena;

/* A new, empty arena. The caller drops it with qgc_arena_drop. */
qgc_arena *qgc_arena_new(void);

/* Frees the arena and everything in it. NULL is allowed. */
void qgc_arena_drop(qgc_arena *a);

/* `bytes` zeroed bytes, aligned to 16, or to 64 from 16 KiB on. Never NULL, also for 0 bytes. */
void *qgc_arena_alloc(qgc_arena *a, size_t bytes) __attribute__((malloc, returns_nonnull));

/* `n` zeroed elements of `elem_bytes` each. A product that overflows ends the process too, as no memory
 * could hold it; sizes that come from a file are to be checked before. */
void *qgc_arena_array(qgc_arena *a, size_t n, size_t elem_bytes) __attribute__((malloc, returns_nonnull));

/* Room for one element more after the `n` of `array`, which was made by this function (or is NULL with
 * n = 0). Returns the array, moved to twice the room whenever n reaches a power of two; the old copy stays
 * valid, so pointers into it do too, but they no longer see changes. */
void *qgc_arena_grow(qgc_arena *a, void *array, size_t n, size_t elem_bytes);

/* Copies of text, ended by a zero byte. */
char *qgc_arena_strdup(qgc_arena *a, const char *text);
char *qgc_arena_strndup(qgc_arena *a, const char *text, size_t bytes);
char *qgc_arena_printf(qgc_arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *qgc_arena_vprintf(qgc_arena *a, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* Calls fn(context). False if memory ran out on this thread: fn did not return then, but was left by a
 * longjmp. What it held at that moment beside finished objects (arenas, files, mappings of objects half
 * made) is lost to the process, and an object that it was changing can only be dropped. May be nested. */
bool qgc_memory_try(void (*fn)(void *context), void *context);

/* For threads that work for another: is this one inside of a qgc_memory_try? */
bool qgc_memory_is_tried(void);

/* Leaves the innermost qgc_memory_try of this thread, or ends the process where there is none. */
_Noreturn void qgc_memory_out(size_t bytes);

/* Bytes handed out so far, for statistics and tests. */
size_t qgc_arena_bytes(const qgc_arena *a);

#endif
