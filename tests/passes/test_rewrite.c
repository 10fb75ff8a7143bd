/* The vocabulary of rules: what patterns match, and what rules may do. */

#include <limits.h>
#include <string.h>

#include "graph/load.h"
#include "passes/rewrite.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

enum { A, B, X, Y, Z };

/* a, b and c of the tokens, then `nodes`. */
static qgc_graph *load(fixture *f, const char *nodes) {
    const char *text = qgc_arena_printf(
        f->arena,
        "qgc: 1\nname: case\narch: case\nweights:\n  ta: {shape: [40, 8]}\n  tb: {shape: [40, 8]}\n  tc: {shape: [40, 8]}\n"
        "%s"
        "inputs: {tokens: [T], positions: [T], rows: [R]}\ngraph:\n"
        "  - {op: embedding, in: [tokens, ta], out: a}\n  - {op: embedding, in: [tokens, tb], out: b}\n"
        "  - {op: embedding, in: [tokens, tc], out: c}\n%s",
        strstr(nodes, " w]") ? "  w: {shape: [8, 8]}\n" : "", nodes);
    qgc_graph *g;
    ok(f, qgc_graph_load_text(&g, "case.yaml", text, strlen(text), f->arena, &f->diag));
    return g;
}

/* What a rule that changes nothing saw at its last match. */
static qgc_match seen;
static int n_seen;

static bool look(qgc_rewriter *rw, const qgc_match *m) {
    (void)rw;
    seen = *m;
    n_seen++;
    return false;
}

static void apply(fixture *f, qgc_graph *g, const qgc_rule *rules) {
    qgc_pass_run run = {.name = "test"};
    qgc_pass_context c = {.graph = g, .run = &run, .scratch = f->arena, .most = INT_MAX};
    n_seen = 0;
    ok(f, qgc_rewrite(&c, rules, &f->diag));
    ok(f, qgc_verify(g, &f->diag));
}

static const qgc_rule square[] = {{"square", P(A, MUL, V(X), V(X)), look}, {0}},
                      inner_first[] = {{"(x + y) x", P(A, MUL, P(B, ADD, V(X), V(Y)), V(X)), look}, {0}},
                      inner_last[] = {{"x (x + y)", P(A, MUL, V(X), P(B, ADD, V(X), V(Y))), look}, {0}},
                      deep[] = {{"((x + y) z) (x + z)",
                                 P(A, MUL, P(B, MUL, P(ANY, ADD, V(X), V(Y)), V(Z)), P(ANY, ADD, V(X), V(Z))),
                                 look},
                                {0}},
                      same_node[] = {{"s + s", P(ANY, ADD, P(A, SILU, FREE), P(A, SILU, FREE)), look}, {0}},
                      any_op[] = {{"any(silu)", O(A, P(B, SILU, FREE)), look}, {0}},
                      any_once[] = {{"mul(any)", P(B, MUL, O1(A, FREE), FREE), look}, {0}};

#define SUM(a, b, y) "  - {op: add, in: [" a ", " b "], out: " y "}\n"
#define PRODUCT(a, b, y) "  - {op: mul, in: [" a ", " b "], out: " y "}\n"
#define SILU(x, y) "  - {op: silu, in: [" x "], out: " y "}\n"

static void an_index_twice_is_the_same(void **state) {
    fixture *f = *state;
    static const struct {
        const qgc_rule *rules;
        const char *nodes;
        const char *x, *y; /* what X and Y are; NULL: there is no match */
    } cases[] = {
        {square, PRODUCT("a", "a", "p") "outputs: [p]\n", "a", NULL},
        {square, PRODUCT("a", "b", "p") "outputs: [p]\n", NULL, NULL},
        {square, PRODUCT("b", "a", "q") PRODUCT("q", "q", "p") "outputs: [p]\n", "q", NULL},
        /* the sum's operands, or the product's, are the other way round */
        {inner_first, SUM("a", "b", "s") PRODUCT("s", "a", "p") "outputs: [p]\n", "a", "b"},
        {inner_first, SUM("b", "a", "s") PRODUCT("s", "a", "p") "outputs: [p]\n", "a", "b"},
        {inner_first, SUM("a", "b", "s") PRODUCT("a", "s", "p") "outputs: [p]\n", "a", "b"},
        {inner_first, SUM("b", "a", "s") PRODUCT("a", "s", "p") "outputs: [p]\n", "a", "b"},
        {inner_first, SUM("a", "b", "s") PRODUCT("s", "c", "p") "outputs: [p]\n", NULL, NULL},
        {inner_first, SUM("a", "a", "s") PRODUCT("s", "a", "p") "outputs: [p]\n", "a", "a"},
        {inner_last, SUM("b", "a", "s") PRODUCT("s", "a", "p") "outputs: [p]\n", "a", "b"},
        {inner_last, SUM("b", "c", "s") PRODUCT("c", "s", "p") "outputs: [p]\n", "c", "b"},
        {deep,
         SUM("b", "a", "s") PRODUCT("c", "s", "q") SUM("c", "a", "t") PRODUCT("t", "q", "p") "outputs: [p]\n",
         "a", "b"},
        {deep,
         SUM("a", "b", "s") PRODUCT("s", "c", "q") SUM("b", "c", "t") PRODUCT("q", "t", "p") "outputs: [p]\n",
         "b", "a"},
        {deep,
         SUM("a", "b", "s") PRODUCT("s", "c", "q") SUM("a", "b", "t") PRODUCT("q", "t", "p") "outputs: [p]\n",
         NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        apply(f, load(f, cases[i].nodes), cases[i].rules);
        if (n_seen != (cases[i].x != NULL))
            fail_msg("case %zu: %d matches", i, n_seen);
        if (!cases[i].x)
            continue;
        assert_string_equal(seen.value[X]->name, cases[i].x);
        assert_string_equal(seen.root->out[0]->name, "p");
        if (cases[i].y)
            assert_string_equal(seen.value[Y]->name, cases[i].y);
    }
    apply(f, load(f, SILU("a", "s") SUM("s", "s", "p") "outputs: [p]\n"), same_node);
    assert_int_equal(n_seen, 1);
    apply(f, load(f, SILU("a", "s") SILU("a", "t") SUM("s", "t", "p") "outputs: [p]\n"), same_node);
    assert_int_equal(n_seen, 0);
}

static void a_pattern_may_be_of_any_op(void **state) {
    fixture *f = *state;
    apply(f, load(f, SILU("a", "s") "  - {op: linear, in: [s, w], out: p}\noutputs: [p]\n"), any_op);
    assert_int_equal(n_seen, 1);
    assert_int_equal(seen.node[A]->op, QGC_OP_LINEAR);
    assert_string_equal(seen.node[B]->out[0]->name, "s");
    apply(f, load(f, SILU("a", "s") PRODUCT("b", "s", "p") "outputs: [p]\n"), any_op);
    assert_int_equal(n_seen, 1); /* mul commutes: either input may be the silu */
}

static void one_reader_of_any_op(void **state) {
    fixture *f = *state;
    apply(f, load(f, SILU("a", "s") PRODUCT("s", "c", "p") PRODUCT("p", "s", "q") "outputs: [q]\n"),
          any_once);
    assert_int_equal(n_seen, 2); /* c at p, and p at q: s has two readers */
    assert_string_equal(seen.node[A]->out[0]->name, "p");
}

/* --- conditions ------------------------------------------------------------------------------------------ */

#define SCALED(x, factor, y) "  - {op: scale, in: [" x "], factor: " factor ", out: " y "}\n"
#define GELU(x, how, y) "  - {op: gelu, in: [" x "], approximate: " how ", out: " y "}\n"
#define IN_LAYERS(from, to)                                       \
    {                                                             \
        {"layers", LAYERS(from, to, P(ANY, SILU, FREE)), look}, { \
            0                                                     \
        }                                                         \
    }

static const qgc_rule above[] = {{"above", ATTR("factor", QGC_ABOVE, 2, P(ANY, SCALE, FREE)), look}, {0}},
                      below[] = {{"below", ATTR("factor", QGC_BELOW, 2, P(ANY, SCALE, FREE)), look}, {0}},
                      equal[] = {{"is", ATTR("factor", QGC_IS, 2, P(ANY, SCALE, FREE)), look}, {0}},
                      unequal[] = {{"is not", ATTR("factor", QGC_IS_NOT, 2, P(ANY, SCALE, FREE)), look}, {0}},
                      exact[] = {{"exact", WORD("approximate", "none", P(ANY, GELU, FREE)), look}, {0}},
                      any_factor[] = {{"any op", ATTR("factor", QGC_ABOVE, 2, W(ANY, FREE)), look}, {0}},
                      nested[] = {{"nested",
                                   P(ANY, SILU,
                                     ATTR("factor", QGC_ABOVE, 1,
                                          ATTR("factor", QGC_BELOW, 3, P1(ANY, SCALE, V(X))))),
                                   look},
                                  {0}},
                      first_layer[] = IN_LAYERS(0, 0), but_last[] = IN_LAYERS(0, -2),
                      last_layer[] = IN_LAYERS(-1, -1), no_layer[] = IN_LAYERS(3, 2);

static void conditions_hold_for_the_nodes_they_name(void **state) {
    fixture *f = *state;
    static const char scales[] = SCALED("a", "1", "s") SCALED("s", "2", "t") SCALED("t", "3", "u")
        GELU("u", "none", "v") GELU("v", "tanh", "p") "outputs: [p]\n";
    static const struct {
        const qgc_rule *rules;
        int matches;
    } cases[] = {{above, 1}, {below, 1}, {equal, 1}, {unequal, 2}, {exact, 1}, {any_factor, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        apply(f, load(f, scales), cases[i].rules);
        if (n_seen != cases[i].matches)
            fail_msg("case %zu: %d matches, not %d", i, n_seen, cases[i].matches);
    }
    apply(f, load(f, SCALED("a", "2", "s") SILU("s", "p") "outputs: [p]\n"), nested);
    assert_int_equal(n_seen, 1);
    assert_string_equal(seen.value[X]->name, "a");
    apply(f, load(f, SCALED("a", "3", "s") SILU("s", "p") "outputs: [p]\n"), nested);
    assert_int_equal(n_seen, 0);
}

static void layers_are_counted_from_either_end(void **state) {
    fixture *f = *state;
    static const char text[] = "qgc: 1\nname: case\narch: case\nweights:\n  t: {shape: [40, 8]}\n"
                               "inputs: {tokens: [T], positions: [T], rows: [R]}\ngraph:\n"
                               "  - {op: embedding, in: [tokens, t], out: x}\n"
                               "  - {op: silu, in: [x], out: y}\n"
                               "  - repeat: {index: l, count: 5, carry: y}\n    body:\n"
                               "      - {op: silu, in: [y], out: y}\noutputs: [y]\n";
    static const struct {
        const qgc_rule *rules;
        int matches;
    } cases[] = {{first_layer, 1}, {but_last, 4}, {last_layer, 1}, {no_layer, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_graph *g;
        ok(f, qgc_graph_load_text(&g, "case.yaml", text, strlen(text), f->arena, &f->diag));
        apply(f, g, cases[i].rules);
        if (n_seen != cases[i].matches)
            fail_msg("case %zu: %d matches, not %d", i, n_seen, cases[i].matches);
    }
    assert_int_equal(seen.root ? seen.root->layer : -1, 4); /* the last match of all was in the last layer */
}

static void refuses(fixture *f, const qgc_rule *rules, const char *want) {
    qgc_pass_run run = {.name = "test"};
    qgc_pass_context c = {
        .graph = load(f, SILU("a", "p") "outputs: [p]\n"), .run = &run, .scratch = f->arena, .most = INT_MAX};
    f->diag = qgc_diag_new(f->arena);
    assert_int_equal(qgc_rewrite(&c, rules, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&f->diag), want);
}

static const qgc_rule no_attr[] = {{"r", ATTR("factr", QGC_IS, 1, P(ANY, SCALE, FREE)), look}, {0}},
                      no_number[] = {{"r", ATTR("approximate", QGC_IS, 1, P(ANY, GELU, FREE)), look}, {0}},
                      no_word[] = {{"r", WORD("approximate", "erf", P(ANY, GELU, FREE)), look}, {0}},
                      no_node[] = {{"r", P(ANY, SILU, LAYERS(0, 1, V(X))), look}, {0}};

static void a_condition_that_cannot_hold_is_refused(void **state) {
    refuses(*state, no_attr, "rule \"r\" asks for attribute \"factr\", which scale does not have");
    refuses(*state, no_number,
            "rule \"r\" asks for attribute \"approximate\" of gelu as a number, which it is not");
    refuses(
        *state, no_word,
        "rule \"r\" asks for attribute \"approximate\" of gelu to be \"erf\", which is none of its words");
    refuses(*state, no_node, "rule \"r\" has a condition around what is no node");
}

/* --- what rules may do ----------------------------------------------------------------------------------- */

static bool read_another(qgc_rewriter *rw, const qgc_match *m) {
    qgc_value *a = m->value[X], *b = m->value[Y];
    if (strcmp(a->name, "a") != 0 || strcmp(b->name, "b") != 0)
        return false;
    qgc_node *readers[4];
    qgc_set_input(rw, m->root, 0, b);
    assert_int_equal(qgc_readers(rw, a, readers, 4), 0);
    assert_int_equal(qgc_readers(rw, b, readers, 4), 1);
    return qgc_settle(rw, m->root);
}

static bool copy_it(qgc_rewriter *rw, const qgc_match *m) {
    if (qgc_rewriter_pass(rw)->run->n_fired > 0) /* the copy is called so too */
        return false;
    qgc_node *n = qgc_insert_like(rw, m->root, m->root, "copy");
    assert_true(qgc_settle(rw, n));
    assert_true(n->attr[0].number == m->root->attr[0].number && n->in[0] == m->root->in[0]);
    qgc_replace(rw, m->root->out[0], n->out[0]);
    qgc_erase(rw, m->root);
    return true;
}

static bool merge_outputs(qgc_rewriter *rw, const qgc_match *m) {
    if (strcmp(m->root->out[0]->name, "q") != 0 || m->root->in[0]->maker->op != QGC_OP_EMBEDDING)
        return false;
    qgc_graph *g = qgc_rewriter_graph(rw);
    qgc_value *other = qgc_graph_output(g, "p");
    if (m->root->next->in[0] == other)
        return false;
    qgc_replace(rw, m->root->out[0], other);
    return true;
}

static const qgc_rule set_rule[] = {{"set", P(ANY, MUL, V(X), V(Y)), read_another}, {0}},
                      copy_rule[] = {{"copy", P(ANY, SCALE, FREE), copy_it}, {0}},
                      merge_rule[] = {{"merge", P(ANY, SILU, FREE), merge_outputs}, {0}};

static void a_rule_sets_an_input_and_copies_a_node(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, PRODUCT("a", "b", "p") "outputs: [p]\n");
    apply(f, g, set_rule);
    assert_ptr_equal(g->last->in[0], g->last->in[1]);
    assert_string_equal(g->last->in[0]->name, "b");
    g = load(f, "  - {op: scale, in: [a], factor: 0.25, out: p}\noutputs: [p]\n");
    apply(f, g, copy_rule);
    assert_int_equal(g->n_nodes, 4);
    assert_string_equal(g->outputs[0]->name, "p");
    assert_true(g->outputs[0]->maker->attr[0].number == 0.25);
}

/* Both names stay, each with its value; readers follow. */
static void two_outputs_do_not_become_one(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, SILU("a", "p") SILU("a", "q") SILU("q", "r") "outputs: [p, q, r]\n");
    qgc_value *p = qgc_graph_output(g, "p"), *q = qgc_graph_output(g, "q");
    apply(f, g, merge_rule);
    assert_ptr_equal(qgc_graph_output(g, "p"), p);
    assert_ptr_equal(qgc_graph_output(g, "q"), q);
    assert_ptr_equal(qgc_graph_output(g, "r")->maker->in[0], p);
}

/* silu(x) becomes silu(gelu(x)), in the group of the silu: `by` says what is done there. */
static bool put_inside(qgc_rewriter *rw, const qgc_match *m) {
    if (m->root->in[0]->maker->op == QGC_OP_GELU)
        return false;
    qgc_node *gelu = qgc_insert(rw, m->root, QGC_OP_GELU, "inside", m->root->in, 1);
    assert_true(qgc_settle(rw, gelu));
    qgc_set_input(rw, m->root, 0, gelu->out[0]);
    if (m->root->group < 0)
        return true;
    qgc_put_in_group(rw, gelu, m->root);
    qgc_settle_group(rw, m->root);
    return true;
}

/* A product of what the group makes: no kernel computes it any more. */
static bool spoil(qgc_rewriter *rw, const qgc_match *m) {
    if (m->root->group < 0)
        return false;
    qgc_node *mul = m->root->in[0]->maker;
    qgc_node *linear =
        qgc_insert(rw, m->root, QGC_OP_LINEAR, "more",
                   (qgc_value *[]){mul->out[0], qgc_rewriter_graph(rw)->weights[3].values[0]}, 2);
    assert_true(qgc_settle(rw, linear));
    qgc_set_input(rw, m->root, 1, linear->out[0]);
    qgc_put_in_group(rw, linear, m->root);
    assert_false(qgc_settle_group(rw, mul));
    return true;
}

static const qgc_rule inside_rule[] = {{"inside", P(ANY, SILU, FREE), put_inside}, {0}},
                      spoil_rule[] = {{"spoil", P(ANY, ADD, P(ANY, MUL, FREE), FREE), spoil}, {0}};

#define GROUPED(op_and_in, y) "  - {" op_and_in ", out: " y ", fuse: g}\n"

static void a_node_is_put_into_a_group(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, GROUPED("op: mul, in: [a, b]", "p") GROUPED("op: silu, in: [p]", "q")
                               SILU("c", "r") SUM("q", "r", "s") "outputs: [s]\n");
    apply(f, g, inside_rule);
    assert_int_equal(g->n_nodes, 9);
    int grouped = 0;
    for (const qgc_node *n = g->first; n; n = n->next)
        grouped += n->group >= 0;
    assert_int_equal(grouped, 3); /* of the two gelu, the one of the group */
}

static void a_group_that_no_kernel_computes_is_dissolved(void **state) {
    fixture *f = *state;
    qgc_graph *g =
        load(f, GROUPED("op: mul, in: [a, b]", "p") GROUPED(
                    "op: add, in: [p, c]", "q") "  - {op: linear, in: [q, w], out: r}\noutputs: [r]\n");
    qgc_pass_run run = {.name = "test"};
    qgc_pass_context c = {.graph = g, .run = &run, .scratch = f->arena, .most = INT_MAX};
    ok(f, qgc_rewrite(&c, spoil_rule, &f->diag));
    ok(f, qgc_verify(g, &f->diag));
    for (const qgc_node *n = g->first; n; n = n->next)
        assert_int_equal(n->group, -1);
    assert_string_equal(
        run.events[0].text,
        "group \"g\" is dissolved: the kernel does not have \"p\" where it computes \"more\"");
}

/* A new node has as many results as its op. */
static bool add_route(qgc_rewriter *rw, const qgc_match *m) {
    if (qgc_uses(rw, m->root->out[0]) != 1)
        return false;
    qgc_node *n = qgc_insert(rw, m->root->next, QGC_OP_ROUTE, "chosen", m->root->out, 1);
    n->attr[qgc_attr_index(n->op, "experts")].number = 2;
    assert_true(qgc_settle(rw, n));
    assert_int_equal(n->n_out, 2);
    assert_string_equal(n->out[0]->name, "chosen");
    assert_string_equal(n->out[1]->name, "chosen_2");
    return true;
}

static void a_node_with_several_results_is_inserted(void **state) {
    fixture *f = *state;
    const qgc_rule rules[] = {{"route", P(ANY, SILU, FREE), add_route}, {0}};
    qgc_graph *g = load(f, SILU("a", "s") SUM("s", "a", "p") "outputs: [p]\n");
    apply(f, g, rules);
    assert_int_equal(g->last->prev->op, QGC_OP_ROUTE);
}

/* Calls that make no sense are errors of the rule, which say what was wrong with them. */
static bool set_no_input(qgc_rewriter *rw, const qgc_match *m) {
    qgc_set_input(rw, m->root, 7, m->root->in[0]);
    return true;
}

static bool insert_of_none(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_settle(rw, qgc_insert(rw, m->root, QGC_OP_SILU, "s", m->root->in, 0));
}

static bool insert_of_many(qgc_rewriter *rw, const qgc_match *m) {
    qgc_value *in[30];
    for (int i = 0; i < 30; i++)
        in[i] = m->root->in[0];
    return qgc_settle(rw, qgc_insert(rw, m->root, QGC_OP_SILU, "s", in, 30));
}

static void misuse_is_told(void **state) {
    fixture *f = *state;
    static const struct {
        qgc_rule_fn *apply;
        const char *want;
    } cases[] = {{set_no_input, "rule \"misuse\" sets input 7 of sigmoid, which has 1"},
                 {insert_of_none, "rule \"misuse\" makes silu of 0 inputs, expected x"},
                 {insert_of_many, "rule \"misuse\" makes silu of 30 inputs"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qgc_rule rules[] = {{"misuse", P(ANY, SIGMOID, FREE), cases[i].apply}, {0}};
        qgc_graph *g = load(f, "  - {op: sigmoid, in: [a], out: p}\noutputs: [p]\n");
        qgc_pass_run run = {.name = "test"};
        qgc_pass_context c = {.graph = g, .run = &run, .scratch = f->arena, .most = INT_MAX};
        f->diag = qgc_diag_new(f->arena);
        assert_int_equal(qgc_rewrite(&c, rules, &f->diag), QGC_ERR_INPUT);
        assert_string_equal(qgc_diag_message(&f->diag), cases[i].want);
    }
}

/* Long before memory is used up. */
static bool grow(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *n = qgc_insert(rw, m->root, QGC_OP_SILU, "more", m->root->in, 1);
    return qgc_settle(rw, n);
}

static void a_graph_does_not_grow_for_ever(void **state) {
    fixture *f = *state;
    const qgc_rule rules[] = {{"grow", P(ANY, SIGMOID, FREE), grow}, {0}};
    qgc_graph *g = load(f, "  - {op: sigmoid, in: [a], out: p}\noutputs: [p]\n");
    qgc_pass_run run = {.name = "test"};
    qgc_pass_context c = {.graph = g, .run = &run, .scratch = f->arena, .most = INT_MAX};
    assert_int_equal(qgc_rewrite(&c, rules, &f->diag), QGC_ERR_INPUT);
    assert_non_null(strstr(qgc_diag_message(&f->diag), "rule \"grow\" goes on for ever"));
    assert_in_range(g->n_nodes, 64 * 4, 64 * (4 + 64) + 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(an_index_twice_is_the_same),
        FIXTURE_TEST(a_pattern_may_be_of_any_op),
        FIXTURE_TEST(one_reader_of_any_op),
        FIXTURE_TEST(a_rule_sets_an_input_and_copies_a_node),
        FIXTURE_TEST(two_outputs_do_not_become_one),
        FIXTURE_TEST(conditions_hold_for_the_nodes_they_name),
        FIXTURE_TEST(layers_are_counted_from_either_end),
        FIXTURE_TEST(a_condition_that_cannot_hold_is_refused),
        FIXTURE_TEST(a_node_is_put_into_a_group),
        FIXTURE_TEST(a_group_that_no_kernel_computes_is_dissolved),
        FIXTURE_TEST(a_node_with_several_results_is_inserted),
        FIXTURE_TEST(misuse_is_told),
        FIXTURE_TEST(a_graph_does_not_grow_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
