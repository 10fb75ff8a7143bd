#define _GNU_SOURCE /* memfd_create */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen/tuning.h"

/* Any bytes as a file of settings: refused with a reason, or read into settings above 0 that are found again. */

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

static const char *open_memory(int *fd, qgc_arena *a) {
    *fd = memfd_create("tuning", MFD_CLOEXEC);
    if (*fd < 0)
        abort();
    return qgc_arena_printf(a, "/proc/self/fd/%d", *fd);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    int fd;
    const char *path = open_memory(&fd, arena);
    if (write(fd, data, bytes) != (ssize_t)bytes)
        abort();
    qgc_tuning first;
    const qgc_status status = qgc_tuning_read(&first, path, "sm_90a", &d);
    if (status != d.status)
        abort();
    for (size_t i = 0; status == QGC_OK && i < first.settings.n; i++)
        if (first.settings.rows[i].value < 1 ||
            qgc_tuning_get(&first, first.settings.rows[i].of, first.settings.rows[i].name, 0) !=
                first.settings.rows[i].value)
            abort();
    close(fd);
    qgc_arena_drop(arena);
    return 0;
}
