/* The texts of --help, and the command lines in the documentation. */

#include <ctype.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/printed.h"

enum { MOST_COMMANDS = 32, MOST_OPTIONS = 64 };

typedef struct {
    const char *name;  /* "weights" */
    int letter;        /* 'p', or 0 */
    const char *value; /* "FILE", "" for a flag */
    bool output;       /* --json[=FILE] */
} option;

typedef struct {
    const char *name;
    const char *help;
    option options[MOST_OPTIONS];
    int n;
} command;

typedef struct {
    qgc_arena *arena;
    command commands[MOST_COMMANDS];
    int n;
} fixture;

/* Reads "  -o, --output FILE  what for" at the start of a line; false if it is none of that form. */
static bool read_option(const char *line, option *o, qgc_arena *a) {
    if (strncmp(line + strspn(line, " "), "-", 1) != 0)
        return false;
    line += strspn(line, " ");
    o->letter = line[1] == '-' ? '\0' : line[1];
    line += line[1] == '-' ? 2 : strlen("-o, --");
    size_t length = strcspn(line, " [\n");
    o->name = qgc_arena_strndup(a, line, length);
    line += length;
    o->output = *line == '[';
    bool value = line[0] == ' ' && line[1] > ' ';
    o->value = value ? qgc_arena_strndup(a, line + 1, strcspn(line + 1, " \n")) : "";
    return true;
}

static void read_command(fixture *f, const char *name) {
    assert_true(f->n < MOST_COMMANDS);
    command *c = &f->commands[f->n++];
    c->name = name;
    c->help = qgc_test_output(f->arena, qgc_arena_printf(f->arena, "%s --help", name), 0);
    const char *line = strstr(c->help, "\noptions:\n");
    if (!line)
        fail_msg("qgc %s --help lists no options:\n%s", name, c->help);
    for (line += strlen("\noptions:\n"); *line; line += strcspn(line, "\n") + 1) {
        assert_true(c->n < MOST_OPTIONS);
        c->n += read_option(line, &c->options[c->n], f->arena);
    }
}

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    f->arena = arena;
    const char *line = strstr(qgc_test_output(arena, "--help", 0), "\n\n  ");
    for (line += 2; *line == ' '; line += strcspn(line, "\n") + 1)
        read_command(f, qgc_arena_strndup(arena, line + 2, strcspn(line + 2, " ")));
    *state = f;
    return f->n < 10;
}

static int teardown(void **state) {
    qgc_arena_drop(((fixture *)*state)->arena);
    return 0;
}

static const command *command_named(const fixture *f, const char *name, size_t length) {
    for (int i = 0; i < f->n; i++)
        if (strlen(f->commands[i].name) == length && memcmp(f->commands[i].name, name, length) == 0)
            return &f->commands[i];
    return NULL;
}

static bool has_option(const command *c, const char *word, size_t length) {
    for (int i = 0; i < c->n; i++) {
        const option *o = &c->options[i];
        if (length == 2 && word[1] == o->letter)
            return true;
        if (strlen(o->name) + 2 == length && memcmp(o->name, word + 2, length - 2) == 0)
            return true;
    }
    return false;
}

static void every_command_says_what_it_takes(void **state) {
    const fixture *f = *state;
    for (int i = 0; i < f->n; i++) {
        const command *c = &f->commands[i];
        const char *start = qgc_arena_printf(f->arena, "usage: qgc %s [options]", c->name);
        if (strncmp(c->help, start, strlen(start)) != 0)
            fail_msg("qgc %s --help begins otherwise:\n%s", c->name, c->help);
        assert_string_equal(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "%s -h", c->name), 0),
                            c->help);
        for (const char *line = c->help; *line; line += strcspn(line, "\n") + 1)
            if (strcspn(line, "\n") > 110)
                fail_msg("a line of qgc %s --help is too long: %.110s...", c->name, line);
    }
}

static void every_option_is_there_once_and_is_taken(void **state) {
    const fixture *f = *state;
    for (int i = 0; i < f->n; i++)
        for (int k = 0; k < f->commands[i].n; k++) {
            const command *c = &f->commands[i];
            const option *o = &c->options[k];
            for (int j = 0; j < k; j++)
                if (strcmp(o->name, c->options[j].name) == 0 ||
                    (o->letter && o->letter == c->options[j].letter))
                    fail_msg("qgc %s has two options --%s, or two letters", c->name, o->name);
            if (strcmp(o->name, "help") == 0 || o->output)
                continue;
            const char *want, *arguments;
            if (*o->value) {
                arguments = qgc_arena_printf(f->arena, "%s --%s", c->name, o->name);
                want = qgc_arena_printf(f->arena, "option --%s wants a value: %s\n", o->name, o->value);
            } else {
                arguments = qgc_arena_printf(f->arena, "%s --%s=1", c->name, o->name);
                want = qgc_arena_printf(f->arena, "option --%s takes no value\n", o->name);
            }
            const char *text = qgc_test_output(f->arena, arguments, 2);
            if (!strstr(text, want))
                fail_msg("qgc %s does not say \"%s\", but:\n%s", arguments, want, text);
        }
}

static void every_command_writes_json(void **state) {
    const fixture *f = *state;
    for (int i = 0; i < f->n; i++) {
        const option *o = NULL;
        for (int k = 0; k < f->commands[i].n; k++)
            if (strcmp(f->commands[i].options[k].name, "json") == 0)
                o = &f->commands[i].options[k];
        if (!o || !o->output)
            fail_msg("qgc %s has no option --json[=FILE]", f->commands[i].name);
    }
}

/* A command line after `qgc `, as it stands in a text: the command is known, and so are its options. A name in capitals
 * stands for any. Returns how many options were looked at. */
static int check_line(const fixture *f, const char *file, const char *line) {
    size_t length = strspn(line, "abcdefghijklmnopqrstuvwxyz");
    const command *c = command_named(f, line, length);
    int n = 0;
    if (length == 0)
        return 0;
    if (!c)
        fail_msg("%s: qgc has no command \"%.*s\"", file, (int)length, line);
    for (line += length; *line == ' '; line += length) {
        line += strspn(line, " ");
        length = strcspn(line, " \n`|;#)=");
        if (*line == '"' || *line == '\'')
            length = strcspn(line + 1, *line == '"' ? "\"\n" : "'\n") + 2;
        if (*line != '-' || length < 2 || isdigit((unsigned char)line[1]))
            continue;
        if (!has_option(c, line, length))
            fail_msg("%s: qgc %s has no option \"%.*s\"", file, c->name, (int)length, line);
        n++;
    }
    return n;
}

/* Command lines stand after a backtick, a prompt, or at the start of a line. */
static int check_file(const fixture *f, const char *path) {
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_source text;
    if (qgc_file_read(&text, path, 1 << 20, "the text", &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &d));
    int n = 0;
    for (const char *at = strstr(text.text, "qgc "); at; at = strstr(at + 1, "qgc "))
        if (at == text.text || strchr("`\n", at[-1]) || (at - text.text > 1 && strncmp(at - 2, "$ ", 2) == 0))
            n += check_line(f, path, at + strlen("qgc "));
    return n;
}

static void the_documentation_names_options_that_are_there(void **state) {
    const fixture *f = *state;
    glob_t pages;
    assert_int_equal(glob("docs/*.md", 0, NULL, &pages), 0);
    int n = check_file(f, "README.md");
    for (size_t i = 0; i < pages.gl_pathc; i++)
        n += check_file(f, pages.gl_pathv[i]);
    globfree(&pages);
    assert_true(n > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_says_what_it_takes),
        cmocka_unit_test(every_option_is_there_once_and_is_taken),
        cmocka_unit_test(every_command_writes_json),
        cmocka_unit_test(the_documentation_names_options_that_are_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
