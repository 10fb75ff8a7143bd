#ifndef QGC_CODEGEN_CARD_H
#define QGC_CODEGEN_CARD_H

#include <stdint.h>

#include "graph/base/diag.h"

/* A GPU as a product: what lowering, the choice of a mode and predictions ask of it. */
typedef struct {
    const char *name;    /* "rtx-4090"; of one that is written out, as it was written */
    const char *product; /* as the driver calls it, NULL if that is not known */
    int arch;            /* 89 of sm_89; 0: not said, like every 0 below */
    int sms;             /* multiprocessors */
    int shared_bytes;    /* that a block may have */
    int64_t bandwidth;   /* bytes a second */
    int64_t l2_bytes, memory_bytes;
    bool no_bf16;  /* multiplies no matrices of bf16, in instructions and in cuBLAS */
    bool ptx_only; /* cubins are not run, for tries of what drivers compile */
} qgc_card;

/* What is not known of a card is taken to be this: the one that settings were measured on. */
enum { QGC_TYPICAL_SMS = 132 };

/* The most shared memory that a block may have, by architecture (90 of sm_90); of one that is not known, as much as any has. */
int qgc_arch_shared_bytes(int arch);

/* The same of all GPUs that may run code of that name: of "sm_90a" as of sm_90; of PTX the least that any GPU has which is known and
 * runs it. A name that is none: as much as any has. */
int qgc_code_shared_bytes(const char *code);

/* Row `i` of the table (codegen/cards.def); false past its end. */
bool qgc_card_at(size_t i, qgc_card *out);

/* The card that the driver calls so; false if the table has none. */
bool qgc_card_of_product(const char *product, qgc_card *out);

/* A name for files: that of the table where the card is one of it, else what it is called with small letters and digits only. */
const char *qgc_card_key(const qgc_card *card, qgc_arena *a);

/* What to compile for so that it runs on that card, whose arch is known, and may use all that it has: "sm_89", "sm_90a". */
const char *qgc_card_code(const qgc_card *card, qgc_arena *a);

/* Reads what --card and --on are given: a name of the table, or numbers, or both: "t4", "arch=80,smem=65536",
 * "rtx-4090,sms=64". What follows from the architecture is filled in. The name is kept in the arena of `d`. Errors
 * (QGC_ERR_USAGE): an unknown name, with the names there are, or key, or number. */
QGC_MUST_USE qgc_status qgc_card_read(const char *text, qgc_card *out, qgc_diag *d);

#endif
