#include <string.h>

#include "runtime/device.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

/* What the device says where there is none. With one, tests/gpu/test_device.c has the rest. */

static void says_what_to_do_where_there_is_no_gpu(void **state) {
    (void)state;
    if (qgc_device_present())
        skip();
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    qgc_device *dev;
    assert_int_equal(qgc_device_open(&dev, 0, &d), QGC_ERR_DEVICE);
    assert_null(dev);
    const char *text = qgc_test_printed(arena, &d);
    assert_non_null(strstr(text, "error: "));
    assert_non_null(strstr(text, "driver"));
    assert_non_null(strstr(text, "  hint: "));
    qgc_device_close(NULL);
    qgc_arena_drop(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_to_do_where_there_is_no_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
