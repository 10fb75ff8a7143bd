#include "graph/base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Blocks form a list. Small requests are cut from the newest block; a large one gets a block of its own,
 * put after the newest so that the room there is not lost. */
typedef struct block {
    struct block *next;
    size_t room, used;
    void *base; /* what libc returned */
} block;

enum { OUT_OF_MEMORY = 3 }; /* the exit code: QGC_ERR_DEVICE, as the machine and not the input is too small */

enum { ALIGN = 16, BLOCK_ALIGN = 64, BLOCK_BYTES = 64 * 1024 };

struct qgc_arena {
    block *newest;
    size_t bytes;
};

/* The innermost qgc_memory_try of this thread. */
typedef struct attempt {
    struct attempt *up;
    jmp_buf back;
} attempt;

static _Thread_local attempt *innermost;

bool qgc_memory_try(void (*fn)(void *context), void *context) {
    attempt a = {.up = innermost};
    innermost = &a;
    const bool whole = setjmp(a.back) == 0;
    if (whole)
        fn(context);
    innermost = a.up;
    return whole;
}

bool qgc_memory_is_tried(void) {
    return innermost != NULL;
}

_Noreturn void qgc_memory_out(size_t bytes) {
    if (innermost)
        longjmp(innermost->back, 1);
    fprintf(stderr, "qgc: error: out of host memory (%zu bytes asked for)\n", bytes);
    _exit(OUT_OF_MEMORY);
}

static void *must_calloc(size_t bytes) {
    void *p = calloc(1, bytes);
    if (!p)
        qgc_memory_out(bytes);
    return p;
}

qgc_arena *qgc_arena_new(void) {
    return must_calloc(sizeof(qgc_arena));
}

void qgc_arena_drop(qgc_arena *a) {
    if (!a)
        return;
    for (block *b = a->newest, *next; b; b = next) {
        next = b->next;
        free(b->base);
    }
    free(a);
}

static char *block_start(const block *b) {
    uintptr_t first = (uintptr_t)b + sizeof(block);
    uintptr_t past = (first + BLOCK_ALIGN - 1) & ~(uintptr_t)(BLOCK_ALIGN - 1);
    return (char *)b->base + (past - (uintptr_t)b->base);
}

static block *new_block(size_t room) {
    if (room > SIZE_MAX - sizeof(block) - BLOCK_ALIGN)
        qgc_memory_out(room);
    void *base = must_calloc(sizeof(block) + BLOCK_ALIGN + room);
    block *b = base;
    b->base = base;
    b->room = room;
    return b;
}

void *qgc_arena_alloc(qgc_arena *a, size_t bytes) {
    if (bytes > SIZE_MAX - ALIGN)
        qgc_memory_out(bytes);
    size_t rounded = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (rounded == 0)
        rounded = ALIGN;
    a->bytes += rounded;

    block *b = a->newest;
    if (b && b->room - b->used >= rounded) {
        char *p = block_start(b) + b->used;
        b->used += rounded;
        return p;
    }
    if (rounded > BLOCK_BYTES / 4 && b) {
        block *own = new_block(rounded);
        own->used = rounded;
        own->next = b->next;
        b->next = own;
        return block_start(own);
    }
    block *fresh = new_block(rounded > BLOCK_BYTES ? rounded : BLOCK_BYTES);
    fresh->used = rounded;
    fresh->next = b;
    a->newest = fresh;
    return block_start(fresh);
}

void *qgc_arena_array(qgc_arena *a, size_t n, size_t elem_bytes) {
    size_t bytes;
    if (__builtin_mul_overflow(n, elem_bytes, &bytes))
        qgc_memory_out(SIZE_MAX);
    return qgc_arena_alloc(a, bytes);
}

void *qgc_arena_grow(qgc_arena *a, void *array, size_t n, size_t elem_bytes) {
    if (n & (n - 1)) /* between powers of two there is room */
        return array;
    if (n == 1)
        return array; /* the first call made room for two */
    void *bigger = qgc_arena_array(a, n ? 2 * n : 2, elem_bytes);
    if (n)
        memcpy(bigger, array, n * elem_bytes);
    return bigger;
}

char *qgc_arena_strndup(qgc_arena *a, const char *text, size_t bytes) {
    char *copy = qgc_arena_alloc(a, bytes + 1);
    memcpy(copy, text, bytes);
    return copy;
}

char *qgc_arena_strdup(qgc_arena *a, const char *text) {
    return qgc_arena_strndup(a, text, strlen(text));
}

char *qgc_arena_vprintf(qgc_arena *a, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = qgc_arena_alloc(a, (size_t)(n < 0 ? 0 : n) + 1);
    if (n > 0)
        vsnprintf(text, (size_t)n + 1, format, args);
    return text;
}

char *qgc_arena_printf(qgc_arena *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = qgc_arena_vprintf(a, format, args);
    va_end(args);
    return text;
}

size_t qgc_arena_bytes(const qgc_arena *a) {
    return a->bytes;
}
