#include "graph/base/utf8.h"
#include "models/jinja_impl.h"
#include "tests/models/jinja_json.h"
#include "tests/support/cmocka.h"

/* tests/golden/chat/make_chat.py makes the file: what jinja2 prints. */
#define GOLDEN "tests/golden/chat/jinja.json"

static const struct tm now = {
    .tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_wday = 5, .tm_hour = 9, .tm_min = 5, .tm_sec = 3};

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_jinja_text text; /* of the last render */
} fixture;

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = *state = qgc_arena_alloc(arena, sizeof *f);
    f->arena = arena;
    f->diag = qgc_diag_new(arena);
    return 0;
}

static int teardown(void **state) {
    qgc_arena_drop(((fixture *)*state)->arena);
    return 0;
}

/* What the template prints, or NULL where it is refused. */
static const char *render(fixture *f, const char *template, qgc_jinja_value variables) {
    const qgc_source source = {"t.jinja", template, strlen(template)};
    const qgc_jinja_context with = {variables, now};
    qgc_jinja *t;
    f->diag = qgc_diag_new(f->arena);
    if (qgc_jinja_parse(&t, &source, f->arena, &f->diag) != QGC_OK ||
        qgc_jinja_render(t, &with, &f->text, f->arena, &f->diag) != QGC_OK)
        return NULL;
    qgc_str s = qgc_str_new(f->arena);
    for (size_t i = 0; i < f->text.n; i++) {
        char letters[4];
        const uint32_t c = f->text.c[i] & ~QGC_JINJA_OUTSIDE;
        qgc_str_add_bytes(&s, letters, (size_t)qgc_utf8_encode(c, letters));
    }
    return s.text;
}

static void templates_print_what_jinja2_prints(void **state) {
    fixture *f = *state;
    json_t *root = json_load_file(GOLDEN, 0, NULL), *item;
    size_t i;
    assert_non_null(root);
    const qgc_jinja_value variables = jinja_from_json(f->arena, json_object_get(root, "variables"), 0);
    json_array_foreach(json_object_get(root, "cases"), i, item) {
        const char *template = json_string_value(json_array_get(item, 0)),
                   *want = json_string_value(json_array_get(item, 1));
        const char *got = render(f, template, variables);
        if (!got != !want || (got && strcmp(got, want) != 0))
            fail_msg("%s\nis     %s\nwanted %s", template, got ? got : qgc_diag_message(&f->diag), want);
        assert_true(got || strncmp(qgc_diag_message(&f->diag), "chat template: ", 15) == 0);
    }
    assert_true(i > 120);
    json_decref(root);
}

static const struct {
    const char *template, *message;
    int line, col;
} refused[] = {
    {"a\n {{ 'x' | nofilter }}", "filter \"nofilter\" is not supported", 2, 11},
    {"{{ 'x' is notest }}", "test \"notest\" is not supported", 1, 11},
    {"{% include 'x' %}", "statement \"include\" is not supported here", 1, 4},
    {"{{ x.y }}", "\"x\" is undefined, and \"y\" of it is asked for", 1, 4},
    {"\n\n{{ 'a' + x }}", "\"x\" is undefined", 3, 4},
    {"{{ f(1) }}", "\"f\" is called, which is not supported", 1, 4},
    {"{{ lipsum() }}", "\"lipsum\" is not supported", 1, 4},
    {"{{ 'a'.upper(1) }}", "\"upper\" takes at most 0 arguments", 1, 4},
    {"{{ [1].append(2) }}", "\"append\" is not supported", 1, 4},
    {"{{ {'a': 1} }}", "a dictionary as text is not supported", 1, 4},
    {"{{ 1.5e300 * 1e300 }}", "a number is too large", 1, 4},
    {"{{ 9223372036854775807 + 1 }}", "a number is too large", 1, 4},
    {"{{ 9223372036854775808 }}", "number is too large", 1, 4},
    {"{{ '\xC3\x9F' | upper }}", "the case of U+00DF is changed, which is not supported", 1, 11},
    {"{{ strftime_now('%U') }}", "date format \"%U\" is not supported", 1, 4},
    {"{% for x in [1] recursive %}{% endfor %}", "recursive loops are not supported", 1, 17},
    {"{% for x in [1] %}", "the template ends before \"endfor\"", 1, 19},
    {"{{ raise_exception('no') }}", "the conversation is refused: no", 1, 4},
    {"{{ '\\N{DASH}' }}", "escape \\N in a literal is not supported", 1, 5},
    {"{% for m in [1] %}{{ given }}{% endfor %}{% set given = 2 %}",
     "\"given\" is set after it was read in a loop or macro", 1, 49},
    {"{{ [1, 2] | select | length }}", "a list has no length", 1, 22},
};

static void what_is_not_known_is_refused_by_name_and_place(void **state) {
    fixture *f = *state;
    const qgc_jinja_value variables = qgc_jinja_dict_new(f->arena);
    qgc_jinja_dict_set(variables, qgc_jinja_text_of(f->arena, "given", 5, 0), qgc_jinja_integer(1));
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_null(render(f, refused[i].template, variables));
        assert_string_equal(qgc_diag_message(&f->diag),
                            qgc_arena_printf(f->arena, "chat template: %s", refused[i].message));
        const char *place = qgc_arena_printf(f->arena, "t.jinja:%d:%d: ", refused[i].line, refused[i].col);
        char *printed = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&printed, &bytes);
        qgc_diag_print(&f->diag, out, false);
        fclose(out);
        const bool there = strncmp(printed, place, strlen(place)) == 0;
        if (!there)
            fail_msg("%s: %s", place, printed);
        (free)(printed); /* made by open_memstream */
    }
}

/* None may crash, fill the memory or take long. */
static void templates_that_never_end_are_stopped(void **state) {
    static const char *const templates[] = {
        "{% for i in range(100000000) %}{{ i }}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' * 9223372036854775807 }}",
        "{{ range(-9223372036854775807, 9223372036854775807, 9223372036854775807) | list | length }}{{ 'a' * 99999999 }}",
        "{% set x = 'a' * 100000 %}{% for i in range(999) %}{{ (x + 'b') in (x + x) }}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns == ns.x }}{% set ns.y = [ns] %}{{ [ns.y] | tojson }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(900) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[], y=[]) %}{% for i in range(900) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (render(f, templates[i], qgc_jinja_dict_new(f->arena)))
            fail_msg("%s", templates[i]);
    assert_true(qgc_arena_bytes(f->arena) < (size_t)2 << 30);
}

static void deep_nesting_is_refused(void **state) {
    static const char *const parts[][3] = {
        {"{{ ", "(", ""},       {"{{ ", "[", ""},     {"{{ ", "not ", ""},     {"{{ ", "- ", ""},
        {"", "{% if x %}", ""}, {"{% for ", "(", ""}, {"{{ 1", " + 1", " }}"}, {"{{ x", "|d(x", ""}};
    fixture *f = *state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        qgc_str s = qgc_str_new(f->arena);
        qgc_str_add(&s, parts[i][0]);
        for (int k = 0; k < 5000; k++)
            qgc_str_add(&s, parts[i][1]);
        qgc_str_add(&s, parts[i][2]);
        assert_null(render(f, s.text, qgc_jinja_dict_new(f->arena)));
    }
}

static qgc_jinja_value outside(fixture *f, const char *name, const char *text) {
    const qgc_jinja_value variables = qgc_jinja_dict_new(f->arena);
    qgc_jinja_dict_set(variables, qgc_jinja_text_of(f->arena, name, strlen(name), 0),
                       qgc_jinja_text_of(f->arena, text, strlen(text), QGC_JINJA_OUTSIDE));
    return variables;
}

/* A capital stands for a letter from outside. */
static void letters_from_outside_stay_marked(void **state) {
    static const struct {
        const char *template, *want;
    } cases[] = {
        {"a{{ x }}b", "a BCB b"},
        {"{{ x | trim }}", "BCB"},
        {"{{ x.split('c')[-1] }}", "B "},
        {"{{ x | replace('b', '-') }}", " -C- "},
        {"{{ x[1:3] ~ 'q' }}", "BCq"},
        {"{{ x | trim | tojson }}", "\"BCB\""},
        {"{{ [x, 'z'] | join('|') }}", " BCB |z"},
        {"{% for c in x %}{{ c }}.{% endfor %}", " .B.C.B. ."},
        {"{% set y %}{{ x }}{% endset %}{{ y | upper | lower }}", " BCB "},
        {"{{ x == ' bcb ' }}{{ 'b' in x }}{{ {' bcb ': 'found'}[x] }}", "TrueTruefound"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_non_null(render(f, cases[i].template, outside(f, "x", " bcb ")));
        assert_int_equal(f->text.n, strlen(cases[i].want));
        for (size_t k = 0; k < f->text.n; k++) {
            const uint32_t c = f->text.c[k], letter = c & ~QGC_JINJA_OUTSIDE,
                           want = (unsigned char)cases[i].want[k];
            const bool marked = want >= 'A' && want <= 'Z' && letter >= 'a';
            if (letter >= 'a' && letter <= 'z')
                assert_int_equal((c & QGC_JINJA_OUTSIDE) != 0, marked);
            assert_int_equal(marked ? letter - 'a' : letter, marked ? want - 'A' : want);
        }
    }
}

static void names_of_a_template_are_known(void **state) {
    static const char text[] = "{% if a %}{{ b.c | d(e) }}{% endif %}{# f #} g";
    fixture *f = *state;
    qgc_jinja *t;
    const qgc_source source = {"t", text, sizeof text - 1};
    assert_int_equal(qgc_jinja_parse(&t, &source, f->arena, &f->diag), QGC_OK);
    for (char name[2] = "a"; name[0] <= 'g'; name[0]++)
        assert_int_equal(qgc_jinja_names(t, name), name[0] == 'a' || name[0] == 'b' || name[0] == 'e');
}

static void bytes_that_are_no_text_are_refused(void **state) {
    static const struct {
        const char *text;
        size_t bytes;
    } cases[] = {{"a\xFF", 2}, {"a\0b", 3}, {"\xC3", 1}};
    fixture *f = *state;
    for (size_t i = 0; i < 3; i++) {
        const qgc_source source = {"t", cases[i].text, cases[i].bytes};
        qgc_jinja *t;
        f->diag = qgc_diag_new(f->arena);
        assert_int_equal(qgc_jinja_parse(&t, &source, f->arena, &f->diag), QGC_ERR_INPUT);
        assert_string_equal(qgc_diag_message(&f->diag), "chat template is not UTF-8 text");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(templates_print_what_jinja2_prints, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_known_is_refused_by_name_and_place, setup, teardown),
        cmocka_unit_test_setup_teardown(templates_that_never_end_are_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(deep_nesting_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(letters_from_outside_stay_marked, setup, teardown),
        cmocka_unit_test_setup_teardown(names_of_a_template_are_known, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_that_are_no_text_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
