#ifndef TESTS_SUPPORT_TEXT_H
#define TESTS_SUPPORT_TEXT_H

#include <string.h>

#include "tests/support/cmocka.h"

/* Fails unless a text holds another. */
static inline void has(const char *text, const char *want) {
    if (!strstr(text, want))
        fail_msg("\"%s\" is not in:\n%s", want, text);
}

/* How often a word is in a text. */
static inline int count(const char *text, const char *word) {
    int n = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        n++;
    return n;
}

#endif
