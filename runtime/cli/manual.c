#include "runtime/cli/manual.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "graph/base/version.h"

/* --- texts ----------------------------------------------------------------------------------------------- */

typedef struct {
    char from;
    const char *to;
} escape;

static void put(const char *text, const escape *escapes) {
    for (; *text; text++) {
        const escape *e = escapes;
        while (e->from && e->from != *text)
            e++;
        if (e->from)
            fputs(e->to, stdout);
        else
            putchar(*text);
    }
}

static const escape in_man[] = {{'-', "\\-"}, {'\\', "\\e"}, {'"', "\\(dq"}, {'\'', "\\(aq"}, {0}};
static const escape in_fish[] = {{'\'', "\\'"}, {'\\', "\\\\"}, {0}};
static const escape in_zsh[] = {{'\'', "'\\''"}, {'[', "\\["},   {']', "\\]"},
                                {':', "\\:"},    {'\\', "\\\\"}, {0}};

/* What a shell can offer for a value. */
typedef enum { NOTHING, FILES, WORDS } offer;

static offer offer_of(const cli_option *o) {
    if (!o->value)
        return NOTHING;
    if (strchr(o->value, '|'))
        return WORDS;
    return strstr(o->value, "FILE") || strstr(o->value, "PATH") || strstr(o->value, "DIR") ? FILES : NOTHING;
}

/* "auto gpu cpu" of "auto|gpu|gpu:N|cpu". */
static void put_words(const cli_option *o) {
    size_t length;
    for (const char *at = o->value; *at; at += length + (at[length] == '|')) {
        length = strcspn(at, "|");
        bool fixed = true;
        for (size_t i = 0; i < length; i++)
            fixed = fixed && !isupper((unsigned char)at[i]);
        if (fixed)
            printf("%s%.*s", at == o->value ? "" : " ", (int)length, at);
    }
}

/* --- manual pages ---------------------------------------------------------------------------------------- */

static const char exit_codes[] =
    ".SH EXIT STATUS\n0 ok, 1 the input is at fault, 2 usage, 3 the device or memory, "
    "130 after Ctrl\\-C.\n";

static void put_title(const char *name, const char *summary) {
    printf(".TH ");
    for (const char *p = name; *p; p++)
        putchar(toupper((unsigned char)*p));
    printf(" 1 \"\" \"qgc %s\" \"qgc\"\n.SH NAME\n%s \\- ", qgc_version_number, name);
    put(summary, in_man);
}

static void put_option(const cli_option *o) {
    printf(".TP\n");
    if (o->letter)
        printf("\\fB\\-%c\\fR, ", o->letter);
    printf("\\fB\\-\\-");
    put(o->name, in_man);
    printf("\\fR");
    if (o->value) {
        printf(o->kind == OPTION_OUTPUT ? "[=\\fI" : " \\fI");
        put(o->value, in_man);
        printf(o->kind == OPTION_OUTPUT ? "\\fR]" : "\\fR");
    }
    putchar('\n');
    put(o->help, in_man);
    if (o->kind == OPTION_INT)
        printf(" (default %lld)", (long long)*(int64_t *)o->into);
    else if (o->kind == OPTION_NUMBER)
        printf(" (default %g)", *(double *)o->into);
    else if (o->kind == OPTION_TEXT && *(const char **)o->into)
        printf(" (default %s)", *(const char **)o->into);
    if (cli_option_variable(o))
        printf("; the environment variable \\fB%s\\fR sets the default", cli_option_variable(o));
    putchar('\n');
}

static void put_page(const cli_command *c) {
    char name[64];
    snprintf(name, sizeof name, "qgc-%s", c->name);
    put_title(name, c->summary);
    printf("\n.SH SYNOPSIS\n\\fBqgc %s\\fR [options] ", c->name);
    put(c->arguments, in_man);
    printf("\n.SH DESCRIPTION\n");
    put(c->summary, in_man);
    putchar('\n');
    if (c->details)
        put(c->details, in_man);
    printf("\n.SH OPTIONS\n");
    for (const cli_option *o = c->options; o->name; o++)
        put_option(o);
    printf("%s.SH SEE ALSO\n\\fBqgc\\fR(1)\n", exit_codes);
}

static void put_main_page(const cli_summary *commands, int n) {
    put_title("qgc", "compiles op graphs of language models to CUDA kernels and runs them");
    printf("\n.SH SYNOPSIS\n\\fBqgc\\fR \\fICOMMAND\\fR [options]\n.SH COMMANDS\n");
    for (int i = 0; i < n; i++) {
        printf(".TP\n\\fBqgc\\-%s\\fR(1)\n", commands[i].name);
        put(commands[i].summary, in_man);
        putchar('\n');
    }
    fputs(exit_codes, stdout);
    printf(
        ".SH ENVIRONMENT\n\\fBQGC_MODELS\\fR: folders of weights, with colons between them. \\fBHF_HOME\\fR, "
        "\\fBHF_HUB_CACHE\\fR: where Hugging Face keeps what was downloaded. \\fBCUDA_PATH\\fR: the CUDA toolkit. "
        "\\fBNO_COLOR\\fR: messages are not coloured.\n");
}

/* --- bash ------------------------------------------------------------------------------------------------ */

static void put_bash_option(const cli_option *o) {
    if (!o->value || o->kind == OPTION_OUTPUT)
        return;
    printf("    --%s", o->name);
    if (o->letter)
        printf(" | -%c", o->letter);
    switch (offer_of(o)) {
    case WORDS:
        printf(") COMPREPLY=($(compgen -W '");
        put_words(o);
        printf("' -- \"$1\")) && return 0 ;;\n");
        break;
    case FILES:
        printf(") COMPREPLY=($(compgen -f -- \"$1\")) && return 0 ;;\n");
        break;
    case NOTHING:
        printf(") return 0 ;;\n");
        break;
    }
}

static void put_bash(const cli_command *c) {
    printf("_qgc_%s() {\n    case $2 in\n", c->name);
    for (const cli_option *o = c->options; o->name; o++)
        put_bash_option(o);
    printf("    esac\n    case $1 in\n    -*) COMPREPLY=($(compgen -W '");
    for (const cli_option *o = c->options; o->name; o++)
        printf("--%s ", o->name);
    printf("--help' -- \"$1\")) ;;\n    *) COMPREPLY=($(compgen -f -- \"$1\")) ;;\n    esac\n}\n");
}

static void end_bash(const cli_summary *commands, int n) {
    printf("_qgc() {\n    local word=${COMP_WORDS[COMP_CWORD]}\n    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W '");
    for (int i = 0; i < n; i++)
        printf("%s ", commands[i].name);
    printf("--help --version' -- \"$word\"))\n"
           "    elif declare -F \"_qgc_${COMP_WORDS[1]}\" >/dev/null; then\n"
           "        \"_qgc_${COMP_WORDS[1]}\" \"$word\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n    fi\n}\n"
           "complete -o filenames -F _qgc qgc\n");
}

/* --- zsh ------------------------------------------------------------------------------------------------- */

static void put_zsh_option(const cli_option *o) {
    if (o->letter)
        printf(" \\\n        '(-%c --%s)'{-%c%s,--%s%s}'[", o->letter, o->name, o->letter,
               o->value ? "+" : "", o->name, o->value ? "=" : "");
    else
        printf(" \\\n        '--%s%s[", o->name, !o->value ? "" : o->kind == OPTION_OUTPUT ? "=-" : "=");
    put(o->help, in_zsh);
    putchar(']');
    if (o->value) {
        fputs(o->kind == OPTION_OUTPUT ? "::" : ":", stdout);
        put(o->value, in_zsh);
        putchar(':');
    }
    if (offer_of(o) == FILES)
        printf("_files");
    else if (offer_of(o) == WORDS) {
        putchar('(');
        put_words(o);
        putchar(')');
    } else if (o->value)
        putchar(' ');
    putchar('\'');
}

static void put_zsh(const cli_command *c) {
    printf("_qgc_%s() {\n    _arguments -s", c->name);
    for (const cli_option *o = c->options; o->name; o++)
        put_zsh_option(o);
    printf(" \\\n        '--help[help]' '*:file:_files'\n}\n");
}

static void end_zsh(const cli_summary *commands, int n) {
    printf("_qgc() {\n    local -a commands=(\n");
    for (int i = 0; i < n; i++) {
        printf("        '%s:", commands[i].name);
        put(commands[i].summary, in_zsh);
        printf("'\n");
    }
    printf(
        "    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n"
        "    elif (( $+functions[_qgc_$words[2]] )); then\n        local name=$words[2]\n        shift words\n"
        "        (( CURRENT-- ))\n        _qgc_$name\n    fi\n}\n_qgc \"$@\"\n");
}

/* --- fish ------------------------------------------------------------------------------------------------ */

static void put_fish(const cli_command *c) {
    for (const cli_option *o = c->options; o->name; o++) {
        printf("complete -c qgc -n '__fish_seen_subcommand_from %s' -l %s", c->name, o->name);
        if (o->letter)
            printf(" -s %c", o->letter);
        if (offer_of(o) == FILES && o->kind != OPTION_OUTPUT)
            printf(" -r -F");
        else if (offer_of(o) == WORDS) {
            printf(" -xa '");
            put_words(o);
            putchar('\'');
        } else if (o->value && o->kind != OPTION_OUTPUT)
            printf(" -x");
        printf(" -d '");
        put(o->help, in_fish);
        printf("'\n");
    }
}

static void begin_fish(const cli_summary *commands, int n) {
    for (int i = 0; i < n; i++) {
        printf("complete -c qgc -n __fish_use_subcommand -a %s -d '", commands[i].name);
        put(commands[i].summary, in_fish);
        printf("'\n");
    }
}

/* --- choosing -------------------------------------------------------------------------------------------- */

static qgc_status unknown(const char *format, qgc_diag *d) {
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                    "option --help is \"%s\", expected nothing, man, bash, zsh or fish", format);
}

qgc_status cli_manual_command(const cli_command *c, const char *format, qgc_diag *d) {
    if (strcmp(format, "man") == 0)
        put_page(c);
    else if (strcmp(format, "bash") == 0)
        put_bash(c);
    else if (strcmp(format, "zsh") == 0)
        put_zsh(c);
    else if (strcmp(format, "fish") == 0)
        put_fish(c);
    else
        return unknown(format, d);
    return QGC_OK;
}

qgc_status cli_manual_begin(const cli_summary *commands, int n, const char *format, qgc_diag *d) {
    if (strcmp(format, "man") == 0)
        put_main_page(commands, n);
    else if (strcmp(format, "names") == 0)
        for (int i = 0; i < n; i++)
            puts(commands[i].name);
    else if (strcmp(format, "bash") == 0)
        puts("# Completion of qgc for bash, made from its tables of options.");
    else if (strcmp(format, "zsh") == 0)
        puts("#compdef qgc\n# Completion of qgc for zsh, made from its tables of options.");
    else if (strcmp(format, "fish") == 0)
        begin_fish(commands, n);
    else
        return unknown(format, d);
    return QGC_OK;
}

void cli_manual_end(const cli_summary *commands, int n, const char *format) {
    if (strcmp(format, "bash") == 0)
        end_bash(commands, n);
    else if (strcmp(format, "zsh") == 0)
        end_zsh(commands, n);
}
