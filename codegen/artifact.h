#ifndef QGC_CODEGEN_ARTIFACT_H
#define QGC_CODEGEN_ARTIFACT_H

#include "codegen/plan.h"
#include "graph/base/file.h"

/* The .qgc file: a plan and its images. Little endian:
 *
 *   magic "QGC\x1a"  u32 version  u64 file bytes  u32 sections  u32 zero  u64 XXH3-64 of the section table
 *   section table: {u32 kind, u32 zero, u64 offset, u64 bytes, u64 XXH3-64 of the bytes} each
 *   sections, each at a multiple of 64: the plan's fields; the images
 *
 * A .qgc file holds machine code: running one is running a program. The checksums find damage, not malice;
 * the checks of qgc_plan_check keep the host side from reading or writing where it must not. */

enum { QGC_ARTIFACT_VERSION = 15 };

/* The plan as the bytes of a file, in the arena. The same plan gives the same bytes. */
void qgc_artifact_pack(const qgc_plan *p, qgc_arena *a, const void **data, size_t *bytes);

/* Reads a plan back. Texts and tables are copied into the arena of `d`, images point into `data`. Errors:
 * not a .qgc file; truncated; damaged (which section); of a newer or older version (both numbers; the
 * remedy is to compile again). */
QGC_MUST_USE qgc_status qgc_artifact_unpack(qgc_plan **out, const void *data, size_t bytes, qgc_loc at,
                                            qgc_diag *d);

#endif
