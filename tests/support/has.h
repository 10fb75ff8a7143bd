#ifndef TESTS_SUPPORT_HAS_H
#define TESTS_SUPPORT_HAS_H

#include <string.h>

#include "tests/support/cmocka.h"

/* Fails unless a text holds another. */
static inline void has(const char *text, const char *want) {
    if (!strstr(text, want))
        fail_msg("\"%s\" is not in:\n%s", want, text);
}

#endif
