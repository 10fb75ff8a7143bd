#ifndef TESTS_SUPPORT_CUBIN_H
#define TESTS_SUPPORT_CUBIN_H

#include <stdbool.h>
#include <stddef.h>

/* What a kernel of a cubin takes of a multiprocessor, read off the sections that the driver reads. */
typedef struct {
    int registers;    /* of a thread */
    int stack_bytes;  /* of a thread, in local memory: spilled registers, and arrays that are indexed */
    int shared_bytes; /* static, of a block */
    int threads;      /* the most that a block may have, as the kernel was compiled; 0: not said */
} cubin_facts;

/* False if it is no cubin, or has no kernel `entry`. A cubin here has one kernel. */
bool cubin_read(const void *cubin, size_t bytes, const char *entry, cubin_facts *out);

#endif
