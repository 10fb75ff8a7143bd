#include "runtime/cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/str.h"
#include "runtime/cli/manual.h"
#include "runtime/engine/engine.h"

enum {
    COLUMN = 28, /* of what an option is for */
    MOST_OPTIONS = 64,
};

const char *cli_option_variable(const cli_option *o) {
    static const struct {
        const char *option, *variable;
    } variables[] = {{"cache", "QGC_CACHE"},
                     {"color", "QGC_COLOR"},
                     {"device", "QGC_DEVICE"},
                     {"nvrtc", "QGC_NVRTC"},
                     {"threads", "QGC_THREADS"}};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        if (strcmp(variables[i].option, o->name) == 0)
            return variables[i].variable;
    return NULL;
}

static void print_help(const cli_command *c) {
    printf("usage: qgc %s [options]%s%s\n\n%s\n", c->name, *c->arguments ? " " : "", c->arguments,
           c->summary);
    if (c->details)
        printf("\n%s\n", c->details);
    printf("\noptions:\n");
    for (const cli_option *o = c->options; o->name; o++) {
        char left[64];
        const char *before = !o->value ? "" : o->kind == OPTION_OUTPUT ? "[=" : " ";
        snprintf(left, sizeof left, "%c%c%s --%s%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
                 o->letter ? "," : " ", o->name, before, o->value ? o->value : "",
                 o->kind == OPTION_OUTPUT ? "]" : "");
        if (strlen(left) > COLUMN)
            printf("  %s\n  %*s %s", left, COLUMN, "", o->help);
        else
            printf("  %-*s %s", COLUMN, left, o->help);
        if (o->kind == OPTION_INT)
            printf(" [%lld]", (long long)*(int64_t *)o->into);
        else if (o->kind == OPTION_NUMBER)
            printf(" [%g]", *(double *)o->into);
        else if (o->kind == OPTION_TEXT && *(const char **)o->into)
            printf(" [%s]", *(const char **)o->into);
        if (cli_option_variable(o))
            printf(" ($%s)", cli_option_variable(o));
        putchar('\n');
    }
    printf("  %-*s %s\n", COLUMN, "-h, --help", "this text");
}

static qgc_status unknown_option(const cli_command *c, const char *word, qgc_diag *d) {
    const char *names[MOST_OPTIONS];
    size_t n = 0;
    for (const cli_option *o = c->options; o->name && n < MOST_OPTIONS; o++)
        names[n++] = o->name;
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "unknown option \"%s\" of qgc %s", word, c->name);
    const char *near = strncmp(word, "--", 2) == 0 ? qgc_nearest(word + 2, names, n) : NULL;
    if (near)
        qgc_hint(d, "Did you mean --%s?", near);
    else
        qgc_hint(d, "See qgc %s --help.", c->name);
    return s;
}

/* So that bounds are whole numbers where they are meant to be. */
enum { MOST_DIGITS = 10 };

static qgc_status store_number(const cli_option *o, const char *text, qgc_diag *d) {
    char *end;
    errno = 0;
    double number = 0;
    long long whole = 0;
    if (o->kind == OPTION_INT) {
        whole = strtoll(text, &end, 10);
        number = (double)whole;
    } else
        number = strtod(text, &end);
    if (end == text || *end || errno == ERANGE || !isfinite(number))
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s wants %s, got \"%s\"", o->name,
                        o->kind == OPTION_INT ? "a whole number" : "a number", text);
    if (!(o->min == 0 && o->max == 0) && !(number >= o->min && number <= o->max))
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s is %s, expected %.*g to %.*g", o->name,
                        text, MOST_DIGITS, o->min, MOST_DIGITS, o->max);
    if (o->kind == OPTION_INT)
        *(int64_t *)o->into = whole;
    else
        *(double *)o->into = number;
    return QGC_OK;
}

/* --color is read where messages are printed, so it is checked here. */
static qgc_status check_color(const cli_option *o, const char *text, qgc_diag *d) {
    if (strcmp(o->name, "color") != 0 || strcmp(text, "auto") == 0 || strcmp(text, "always") == 0 ||
        strcmp(text, "never") == 0)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --color is \"%s\", expected auto, always or never",
                    text);
}

/* An empty path is a variable of the shell that is not set: nothing is taken for it. */
static qgc_status check_path(const cli_option *o, const char *text, qgc_diag *d) {
    const bool is_path = o->value && (strcmp(o->value, "FILE") == 0 || strcmp(o->value, "PATH") == 0 ||
                                      strcmp(o->value, "DIR") == 0);
    if (!is_path || !text || *text)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s wants %s, got an empty text", o->name,
                    o->value);
}

static qgc_status store(const cli_option *o, const char *text, qgc_diag *d) {
    QGC_TRY(check_path(o, text, d));
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)o->into = true;
        return QGC_OK;
    case OPTION_TEXT:
        QGC_TRY(check_color(o, text, d));
        *(const char **)o->into = text;
        return QGC_OK;
    case OPTION_OUTPUT:
        *(const char **)o->into = text ? text : "-";
        return QGC_OK;
    case OPTION_INT:
    case OPTION_NUMBER:
        return store_number(o, text, d);
    }
    return QGC_OK;
}

/* The option that `word` ("--name", "--name=value" or "-n") names; *value is what stands after the '='. */
static const cli_option *find(const cli_command *c, const char *word, const char **value) {
    *value = NULL;
    for (const cli_option *o = c->options; o->name; o++) {
        if (word[1] != '-') {
            if (!o->letter || word[1] != o->letter)
                continue;
            if (word[2] == 0)
                return o;
            if (o->kind != OPTION_FLAG) { /* -n5 */
                *value = word + 2;
                return o;
            }
            continue;
        }
        size_t length = strlen(o->name);
        if (strncmp(word + 2, o->name, length) != 0)
            continue;
        if (word[2 + length] == 0)
            return o;
        if (word[2 + length] == '=') {
            *value = word + 3 + length;
            return o;
        }
    }
    return NULL;
}

/* A device is looked at here, where it is known that a variable names it. */
static qgc_status store_variable(const cli_option *o, const char *value, qgc_diag *d) {
    int index;
    if (strcmp(o->name, "device") == 0 && strcmp(value, "auto") != 0)
        QGC_TRY(qgc_engine_choose_device(value, &index, d));
    return store(o, value, d);
}

/* Those options that the command line does not give, from the environment. An error names the variable. */
static qgc_status take_variables(const cli_command *c, const bool *given, qgc_diag *d) {
    for (int i = 0; c->options[i].name; i++) {
        const char *name = cli_option_variable(&c->options[i]), *value = name ? getenv(name) : NULL;
        if (given[i] || !value || !*value)
            continue;
        qgc_status s = store_variable(&c->options[i], value, d);
        if (s != QGC_OK) {
            qgc_note(d, QGC_NO_LOC, "the environment variable %s gives it", name);
            return s;
        }
    }
    return QGC_OK;
}

typedef struct {
    const cli_command *command;
    int argc;
    char **argv;
    bool *given; /* by option */
} parsing;

/* The option of argv[*i], whose value may be the next word: *i is then moved there. */
static qgc_status take_option(const parsing *p, int *i, qgc_diag *d) {
    const char *word = p->argv[*i], *value;
    const cli_option *o = find(p->command, word, &value);
    if (!o)
        return unknown_option(p->command, word, d);
    if (o->kind == OPTION_FLAG && value)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s takes no value", o->name);
    if (o->kind != OPTION_FLAG && o->kind != OPTION_OUTPUT && !value) {
        if (*i + 1 == p->argc)
            return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option %s wants a value: %s", word, o->value);
        value = p->argv[++*i];
    }
    p->given[o - p->command->options] = true;
    return store(o, value, d);
}

qgc_status cli_parse(const cli_command *c, int argc, char **argv, cli_line *line, qgc_diag *d) {
    *line = (cli_line){.arguments = qgc_arena_array(d->arena, (size_t)argc + 1, sizeof(char *))};
    bool options_end = false;
    bool given[MOST_OPTIONS] = {false};
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (options_end || word[0] != '-' || word[1] == 0) {
            line->arguments[line->n++] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            options_end = true;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            print_help(c);
            line->help = true;
            return QGC_OK;
        }
        if (strncmp(word, "--help=", 7) == 0) {
            line->help = true;
            return cli_manual_command(c, word + 7, d);
        }
        QGC_TRY(take_option(&(parsing){c, argc, argv, given}, &i, d));
    }
    QGC_TRY(take_variables(c, given, d));
    if (line->n < c->min_arguments || line->n > c->max_arguments) {
        qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "qgc %s takes %s%s, got %d argument%s", c->name,
                                c->max_arguments == 0 ? "no arguments" : c->arguments, "", line->n,
                                line->n == 1 ? "" : "s");
        qgc_hint(d, "See qgc %s --help.", c->name);
        return s;
    }
    return QGC_OK;
}

qgc_status cli_parse_one(cli_command c, int argc, char **argv, const char **argument, qgc_diag *d) {
    cli_line line;
    c.min_arguments = c.max_arguments = 1;
    QGC_TRY(cli_parse(&c, argc, argv, &line, d));
    *argument = line.help ? NULL : line.arguments[0];
    return QGC_OK;
}

const char **cli_split(const char *text, int *n, qgc_arena *a) {
    const char **parts = NULL;
    *n = 0;
    while (*text) {
        size_t length = strcspn(text, ",");
        if (length) {
            parts = qgc_arena_grow(a, parts, (size_t)*n, sizeof *parts);
            parts[(*n)++] = qgc_arena_strndup(a, text, length);
        }
        text += length + (text[length] == ',');
    }
    return parts;
}
