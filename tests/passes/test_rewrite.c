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

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(an_index_twice_is_the_same),    FIXTURE_TEST(a_pattern_may_be_of_any_op),
        FIXTURE_TEST(one_reader_of_any_op),          FIXTURE_TEST(a_rule_sets_an_input_and_copies_a_node),
        FIXTURE_TEST(two_outputs_do_not_become_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
