/* Every rule of every pass by itself: where it fires, where it does not, and what it says. The rules are
 * found in the sources of the passes, so that one without a case is seen. */

#include <dirent.h>

#include "graph/base/file.h"
#include "graph/base/map.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "tests/passes/rule_cases.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

/* --- what the rules do ----------------------------------------------------------------------------------- */

static qgc_pass_run run_case(fixture *f, const rule_case *c) {
    const char *yaml = rule_yaml(c, f->arena);
    qgc_graph *g;
    qgc_pass_report report = {0};
    qgc_status s = qgc_graph_load_text(&g, "case.yaml", yaml, strlen(yaml), f->arena, &f->diag);
    if (s == QGC_OK && c->before)
        s = qgc_passes_run(g, &(qgc_pass_options){.passes = c->before, .want_matches = true}, &report,
                           &f->diag);
    if (s == QGC_OK)
        s = qgc_passes_run(g, &(qgc_pass_options){.passes = c->pass}, &report, &f->diag);
    if (s == QGC_OK && report.runs)
        return report.runs[0];
    fail_msg("%s\n%s", qgc_test_printed(f->arena, &f->diag), yaml);
    return (qgc_pass_run){0};
}

/* What the events of a pass say, for a failure. */
static const char *events_text(fixture *f, const qgc_pass_run *run) {
    qgc_str text = qgc_str_new(f->arena);
    for (size_t i = 0; i < run->n_events; i++)
        qgc_str_printf(&text, "  %s %s at %s: %s\n", run->events[i].fired ? "fired" : "declined",
                       run->events[i].rule, run->events[i].node, run->events[i].text);
    return run->n_events ? text.text : "  none\n";
}

/* A rule that fires at a node says so there; one that declines says only that. */
static bool is_as_expected(const rule_case *c, const qgc_pass_run *run) {
    bool found = !c->text;
    if (!c->rule)
        return c->fires == (run->n_fired > 0) && run->n_events == 0;
    for (size_t i = 0; i < run->n_events; i++) {
        const qgc_pass_event *e = &run->events[i];
        if (strcmp(e->rule, c->rule) != 0 || (c->text && strcmp(e->node, c->node) != 0))
            continue;
        if (!c->text || e->fired != c->fires)
            return false;
        found = found || strcmp(e->text, c->text) == 0;
    }
    return found;
}

static void each_case_is_as_expected(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < N_RULE_CASES; i++) {
        const rule_case *c = &rule_cases[i];
        qgc_pass_run run = run_case(f, c);
        if (!is_as_expected(c, &run))
            fail_msg("%s, rule \"%s\" should %s at %s: %s; in\n%sevents:\n%s", c->pass,
                     c->rule ? c->rule : "none", c->fires ? "fire" : "decline", c->node ? c->node : "none",
                     c->text ? c->text : "no event", rule_yaml(c, f->arena), events_text(f, &run));
    }
}

/* --- which rules there are ------------------------------------------------------------------------------- */

/* After white space and comments. */
static const char *skip_blanks(const char *at) {
    for (;;) {
        at += strspn(at, " \t\n");
        const char *end = strncmp(at, "/*", 2) == 0 ? strstr(at, "*/") : NULL;
        if (end)
            at = end + 2;
        else if (strncmp(at, "//", 2) == 0)
            at += strcspn(at, "\n");
        else
            return at;
    }
}

/* After the string or the character that starts here. */
static const char *skip_quoted(const char *at) {
    const char quote = *at++;
    while (*at && *at != quote)
        at += *at == '\\' && at[1] ? 2 : 1;
    return *at ? at + 1 : at;
}

/* The string that starts here, and those after it, as one. */
static const char *read_string(const char *at, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    for (; *at == '"'; at = skip_blanks(at)) {
        const char *end = skip_quoted(at);
        qgc_str_add_bytes(&text, at + 1, (size_t)(end - at - 2));
        at = end;
    }
    return text.text;
}

/* The next place after `at` that is neither blank, nor in a comment, nor in a string. */
static const char *next_token(const char *at) {
    at = *at == '"' || *at == '\'' ? skip_quoted(at) : at + 1;
    return skip_blanks(at);
}

static bool is_word_at(const char *text, const char *at, const char *word) {
    size_t n = strlen(word);
    return strncmp(at, word, n) == 0 && !rule_is_word(at[n]) && (at == text || !rule_is_word(at[-1]));
}

typedef struct {
    const char **names;
    size_t n;
} rule_list;

static void add_rule(rule_list *l, const char *name, qgc_arena *a) {
    l->names = qgc_arena_grow(a, l->names, l->n, sizeof *l->names);
    l->names[l->n++] = name;
}

/* The names of the rules of a source: the string that each entry of an array of qgc_rule begins with. */
static rule_list rules_of(const char *text, qgc_arena *a) {
    rule_list found = {0};
    for (const char *at = skip_blanks(text); *at; at = next_token(at)) {
        if (!is_word_at(text, at, "qgc_rule"))
            continue;
        while (*at && *at != '=' && *at != ';' && *at != ')')
            at = next_token(at);
        if (*at != '=')
            continue; /* a declaration, or an argument */
        int depth = 0;
        do {
            at = next_token(at);
            depth += (*at == '{') - (*at == '}');
            const char *first = *at == '{' && depth == 2 ? skip_blanks(at + 1) : "";
            if (*first == '"')
                add_rule(&found, read_string(first, a), a);
        } while (*at && depth > 0);
    }
    return found;
}

static void the_names_of_rules_are_found_in_c(void **state) {
    fixture *f = *state;
    rule_list l =
        rules_of("static const qgc_rule rules[] = {\n"
                 "    {\"one {\", P(A, B, FREE), apply}, // {\"not\", x}\n"
                 "    /* {\"neither\", x}, */ { /* here */ \"t\" \"wo\\\"\", {1, {\"deep\"}}, '\"'},\n"
                 "    {0},\n};\n"
                 "qgc_status f(const qgc_rule *rules);\n"
                 "static const char *qgc_rule_text = \"{\";\n"
                 "const qgc_rule more[1] = {{\"three\"}};\n",
                 f->arena);
    assert_int_equal(l.n, 3);
    assert_string_equal(l.names[0], "one {");
    assert_string_equal(l.names[1], "two\\\"");
    assert_string_equal(l.names[2], "three");
    assert_int_equal(rules_of("int x; /* qgc_rule r[] = {{\"a\"}}; */", f->arena).n, 0);
}

/* The source of a pass: "fuse-qkv" is in passes/fuse_qkv.c. */
static const char *source_of(fixture *f, const char *pass) {
    char *path = qgc_arena_printf(f->arena, "passes/%s.c", pass);
    for (char *c = path; *c; c++)
        if (*c == '-')
            *c = '_';
    qgc_source file;
    if (qgc_file_read(&file, path, (size_t)1 << 20, "the source of a pass", &f->diag) != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
    return qgc_arena_strndup(f->arena, file.text, file.bytes);
}

/* The pass of a case without its options. */
static bool is_of(const rule_case *c, const char *pass) {
    size_t n = strcspn(c->pass, "(");
    return n == strlen(pass) && strncmp(c->pass, pass, n) == 0;
}

static void want_both_cases(const char *pass, const char *rule) {
    bool seen[2] = {false, false};
    for (size_t i = 0; i < N_RULE_CASES; i++) {
        const rule_case *c = &rule_cases[i];
        bool same = rule ? c->rule && strcmp(c->rule, rule) == 0 : !c->rule;
        if (is_of(c, pass) && same)
            seen[c->fires] = true;
    }
    if (!seen[true] || !seen[false])
        fail_msg("%s, rule \"%s\" has no case where it %s: add one to tests/passes/rule_cases.h", pass,
                 rule ? rule : "none", seen[true] ? "does not fire" : "fires");
}

static void every_rule_has_a_case_where_it_fires_and_one_where_not(void **state) {
    fixture *f = *state;
    qgc_map known = qgc_map_new(f->arena);
    for (size_t i = 0; i < qgc_pass_count(); i++) {
        const char *pass = qgc_pass_at(i)->name;
        rule_list l = rules_of(source_of(f, pass), f->arena);
        for (size_t k = 0; k < l.n; k++) {
            qgc_map_put(&known, qgc_arena_printf(f->arena, "%s\n%s", pass, l.names[k]), f);
            want_both_cases(pass, l.names[k]);
        }
        if (l.n == 0)
            want_both_cases(pass, NULL);
    }
    for (size_t i = 0; i < N_RULE_CASES; i++) {
        const rule_case *c = &rule_cases[i];
        size_t n = strcspn(c->pass, "(");
        if (c->rule && !qgc_map_get(&known, qgc_arena_printf(f->arena, "%.*s\n%s", (int)n, c->pass, c->rule)))
            fail_msg("%s has a case of rule \"%s\", which is not in its source", c->pass, c->rule);
    }
}

/* Files of passes/ that hold rules are those of passes in the table. */
static void every_file_with_rules_is_a_pass(void **state) {
    fixture *f = *state;
    size_t n_files = 0, n_passes = 0;
    DIR *folder = opendir("passes");
    assert_non_null(folder);
    for (const struct dirent *e; (e = readdir(folder));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".c") != 0)
            continue;
        const char *name = qgc_arena_strndup(f->arena, e->d_name, (size_t)(dot - e->d_name));
        n_files += rules_of(source_of(f, name), f->arena).n > 0;
    }
    closedir(folder);
    for (size_t i = 0; i < qgc_pass_count(); i++)
        n_passes += rules_of(source_of(f, qgc_pass_at(i)->name), f->arena).n > 0;
    assert_true(n_passes > 0);
    assert_int_equal(n_files, n_passes);
}

/* What runs says what it is called: no rule is missed, however it is written down. */
static void every_rule_that_speaks_was_found_in_its_source(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < N_RULE_CASES; i++) {
        qgc_pass_run run = run_case(f, &rule_cases[i]);
        size_t length = strcspn(rule_cases[i].pass, "(");
        rule_list l =
            rules_of(source_of(f, qgc_arena_strndup(f->arena, rule_cases[i].pass, length)), f->arena);
        for (size_t e = 0; e < run.n_events; e++) {
            bool found = false;
            for (size_t k = 0; k < l.n; k++)
                found = found || strcmp(l.names[k], run.events[e].rule) == 0;
            if (!found)
                fail_msg("%s: rule \"%s\" is not in its source", run.name, run.events[e].rule);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(each_case_is_as_expected),
        FIXTURE_TEST(the_names_of_rules_are_found_in_c),
        FIXTURE_TEST(every_rule_has_a_case_where_it_fires_and_one_where_not),
        FIXTURE_TEST(every_file_with_rules_is_a_pass),
        FIXTURE_TEST(every_rule_that_speaks_was_found_in_its_source),
    };
    return cmocka_run_group_tests_name("passes/rules", tests, NULL, NULL);
}
