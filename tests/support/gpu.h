#ifndef TESTS_SUPPORT_GPU_H
#define TESTS_SUPPORT_GPU_H

#include <stdlib.h>

#include "runtime/session.h"
#include "runtime/stand_in.h"
#include "tests/support/cmocka.h"

/* The GPU of the tests: number 0, as itself or, where QGC_TEST_CARD is set ("t4", "arch=80"), in the place of that card. Then
 * everything is compiled and chosen for the card, and what it does not have is left out; without the variable everything
 * has to run. */

/* For main: without a GPU the program ends here, as skipped (tests/tests.cmake). Of the tests those run that `pattern` fits; NULL: all. */
static inline void gpu_test_begin(const char *pattern) {
    enum { SKIPPED = 77 };
    if (pattern)
        cmocka_set_test_filter(pattern);
    if (!qgc_device_present()) {
        print_message("skipped: no GPU\n");
        exit(SKIPPED);
    }
}

static inline const char *gpu_test_card(void) {
    return getenv("QGC_TEST_CARD");
}

static inline qgc_status gpu_test_open(qgc_device **out, qgc_diag *d) {
    QGC_TRY(qgc_device_open(out, 0, d));
    return qgc_stand_in(*out, gpu_test_card(), d);
}

/* Chunks, if the card can multiply them. */
static inline qgc_prefill gpu_test_prefill(qgc_device *dev, qgc_prefill wanted) {
    return gpu_test_card() && qgc_device_about(dev)->no_bf16 ? QGC_PREFILL_STEPS : wanted;
}

/* Is it a fault if a program that has a mode cannot run in it? Cards lack some; not the persistent one from sm_80 on, if they have
 * 99 KB of shared memory and are not small. */
static inline bool gpu_test_has(qgc_device *dev, qgc_mode mode) {
    enum { FIRST_ARCH = 80, SHARED = 99 << 10, SMS = 100 };
    const qgc_device_info *about = qgc_device_about(dev);
    const int arch = about->newest_code ? about->newest_code : 10 * about->major + about->minor;
    return !gpu_test_card() || (mode == QGC_MODE_PERSISTENT && arch >= FIRST_ARCH &&
                                about->shared_bytes_max >= SHARED && about->sms >= SMS);
}

/* Can the program run in a mode? */
static inline bool gpu_test_runs(const qgc_program *p, qgc_mode mode, qgc_arena *a) {
    const char *why = qgc_mode_refusal(p, mode, a);
    if (!why)
        return true;
    if (gpu_test_has(qgc_program_device(p), mode))
        fail_msg("not in %s mode: %s", qgc_mode_name(mode), why);
    print_message("left out: not in %s mode: %s\n", qgc_mode_name(mode), why);
    return false;
}

#endif
