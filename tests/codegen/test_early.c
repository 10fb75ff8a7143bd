#include <stdbool.h>
#include <string.h>

#include "codegen/kernel_sources.h"
#include "tests/support/cmocka.h"

/* What makes an early start safe, read off the text of the kernels (kernels/common.cuh, wait_for_previous). */

/* The body of a file's kernel, from its entry on. */
static const char *body(const qgc_kernel_source *s) {
    const char *entry = strstr(s->text, "extern \"C\" __global__");
    return entry ? strstr(entry, ") {\n") : NULL;
}

static bool is_kernel(const qgc_kernel_source *s) {
    const char *dot = strrchr(s->name, '.');
    return dot && strcmp(dot, ".cu") == 0;
}

/* Kernels without a wait are launched in the ordinary way: those that run once, and those of prefill by cuBLAS. */
static bool goes_the_ordinary_way(const char *name) {
    static const char *const names[] = {"pack.cu",           "pack_blocks.cu",  "pack_vectors.cu",
                                        "pack_addresses.cu", "score_rows.cu",   "rope_table.cu",
                                        "to_bf16.cu",        "bias_rows.cu",    "read.cu",
                                        "bring_late.cu",     "expert_order.cu", "expert_tiles.cu"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Their warps wait one by one, and what they do before is read off their PTX (test_access.c). */
static bool waits_by_warps(const char *name) {
    return strcmp(name, "persistent.cu") == 0 || strcmp(name, "packed_gemm.cu") == 0;
}

static void every_kernel_of_a_step_waits_once(void **state) {
    (void)state;
    int found = 0;
    for (const qgc_kernel_source *s = qgc_kernel_sources; s->name; s++) {
        if (!is_kernel(s) || waits_by_warps(s->name))
            continue;
        const char *wait = strstr(body(s), "wait_for_previous();");
        if (goes_the_ordinary_way(s->name)) {
            assert_null(wait);
            continue;
        }
        if (!wait || strstr(wait + 1, "wait_for_previous();")) {
            print_error("%s waits %s\n", s->name, wait ? "more than once" : "not at all");
            fail();
        }
        found++;
    }
    assert_true(found >= 10);
}

/* Before its wait a kernel writes nothing, leaves by no way around the wait, and, but for those that load weights, does
 * nothing at all. */
static void nothing_happens_before_the_wait(void **state) {
    (void)state;
    for (const qgc_kernel_source *s = qgc_kernel_sources; s->name; s++) {
        if (!is_kernel(s) || goes_the_ordinary_way(s->name) || waits_by_warps(s->name))
            continue;
        const char *from = body(s) + strlen(") {\n"), *wait = strstr(from, "wait_for_previous();");
        bool loads = strncmp(s->name, "linear", 6) == 0 || strcmp(s->name, "expert_mix.cu") == 0;
        for (const char *at = from; at < wait; at++) {
            assert_true(strncmp(at, "return", 6) != 0);
            assert_true(strncmp(at, "__shared__", 10) != 0 || !loads);
        }
        if (!loads) {
            const char *only[] = {"    let_next_start();\n    ", "    "};
            const bool lets_next_first = strncmp(from, only[0], strlen(only[0])) == 0;
            const char *all = only[!lets_next_first];
            assert_int_equal(wait - from, strlen(all));
            assert_memory_equal(from, all, strlen(all));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_of_a_step_waits_once),
        cmocka_unit_test(nothing_happens_before_the_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
