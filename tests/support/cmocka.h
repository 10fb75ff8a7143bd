#ifndef TESTS_SUPPORT_CMOCKA_H
#define TESTS_SUPPORT_CMOCKA_H

/* cmocka with the headers that it wants before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* It jumps to the next test, which cmocka does not say. */
void _fail(const char *file, int line) __attribute__((noreturn)); // NOLINT

#endif
