#ifndef QGC_CODEGEN_KERNEL_SOURCES_H
#define QGC_CODEGEN_KERNEL_SOURCES_H

/* The files of kernels/, put into the executable at build time by codegen/embed.cmake. Ended by a row
 * without a name. */
typedef struct {
    const char *name; /* "linear.cu" */
    const char *text;
} qgc_kernel_source;

extern const qgc_kernel_source qgc_kernel_sources[];

#endif
