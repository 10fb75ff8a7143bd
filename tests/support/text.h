#ifndef TESTS_SUPPORT_TEXT_H
#define TESTS_SUPPORT_TEXT_H

#include <stdio.h>
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

/* The line of a file of the repository that holds a text: it moves when the file is changed. */
static inline int line_of(const char *path, const char *text) {
    char name[512], line[1024];
    snprintf(name, sizeof name, "%s/%s", QGC_SOURCE_DIR, path);
    FILE *f = fopen(name, "r");
    int number = 0, found = 0;
    while (f && !found && fgets(line, sizeof line, f)) {
        number++;
        found = strstr(line, text) ? number : 0;
    }
    if (f)
        fclose(f);
    if (!found)
        fail_msg("\"%s\" is not in %s", text, path);
    return found;
}

#endif
