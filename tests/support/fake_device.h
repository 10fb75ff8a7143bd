#ifndef TESTS_SUPPORT_FAKE_DEVICE_H
#define TESTS_SUPPORT_FAKE_DEVICE_H

#include "graph/base/str.h"
#include "runtime/device.h"

/* A device in host memory: an address is a pointer, kernels are C functions, everything happens at once.
 * fake_device.c has all functions of runtime/device.h and capture.h and is linked in place of qgc_device.
 * It writes what it is asked to do into a text, where an address reads "owner+offset". */

/* `signature` has a letter for each argument: p a pointer, i an i32. */
typedef struct {
    const char *entry;
    const char *signature;
    void (*run)(void **args, const unsigned grid[3]);
} fake_kernel;

enum { FAKE_MAX_ALLOCATIONS = 64 };

typedef struct {
    const char *owner; /* NULL: free */
    unsigned char *start;
    size_t bytes;
} fake_allocation;

struct qgc_device {
    qgc_arena *arena;
    qgc_device_info info;
    const fake_kernel *kernels; /* ended by a row without an entry */
    /* In place of that table and of `run`, where they are set: a kernel made of an image (NULL if there is none in it), and
     * what a launch of it does. */
    const fake_kernel *(*load)(qgc_device *dev, const char *image, size_t bytes);
    qgc_status (*launch)(qgc_device *dev, const fake_kernel *k, const qgc_launch *l, qgc_diag *d);
    void (*ready)(qgc_device *dev, const fake_kernel *k); /* before each launch, if it is set */
    const void *context;                                  /* of these three */
    qgc_str log;
    bool quiet; /* nothing is written */
    bool log_uploads;
    unsigned char noise; /* that memory is full of at first */

    /* What is to go wrong. */
    const char *full_for;      /* no memory for this owner */
    const char *broken_kernel; /* launching it fails */
    bool no_room;              /* on a multiprocessor for a block */
    bool no_cublas;
    bool deaf; /* replays do nothing */

    fake_allocation allocations[FAKE_MAX_ALLOCATIONS];
    int n_allocations; /* slots used so far */
    long n_made;
    unsigned char stage[4096]; /* small, so that weights take several */
    struct qgc_capture *recording;
};

/* Lives in an arena of its own, which qgc_device_close drops. */
qgc_device *fake_device_new(const fake_kernel *kernels);

/* What qgc_device_open opens; NULL: a device without kernels. */
extern qgc_device *(*fake_device_opened)(void);

/* Number of allocations not given back. */
int fake_device_held(const qgc_device *dev);

#endif
