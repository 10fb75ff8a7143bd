#ifndef TESTS_SUPPORT_GUARDED_H
#define TESTS_SUPPORT_GUARDED_H

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARDED_MAX = 1 << 20 };

/* A copy of at most GUARDED_MAX bytes that ends where no memory follows, so that a read after it crashes. The
 * next call overwrites it. NULL if there is no such memory. */
static inline unsigned char *guarded_copy(const void *data, size_t bytes) {
    static unsigned char *end;
    if (!end) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        int fd = open("/dev/zero", O_RDWR);
        void *p = mmap(NULL, GUARDED_MAX + page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
        close(fd);
        if (p == MAP_FAILED || mprotect((unsigned char *)p + GUARDED_MAX, page, PROT_NONE) != 0)
            return NULL;
        end = (unsigned char *)p + GUARDED_MAX;
    }
    if (bytes)
        memcpy(end - bytes, data, bytes);
    return end - bytes;
}

#endif
