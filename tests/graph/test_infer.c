#include <math.h>

#include "tests/support/graph.h"

enum { T = QGC_DIM_T, R = QGC_DIM_R, CTX = QGC_DIM_CTX };

static void fits(test_graph *t, const qgc_value *v, qgc_dtype dtype, qgc_shape shape) {
    assert_int_equal(qgc_infer(t->g, &t->diag), QGC_OK);
    assert_string_equal(qgc_shape_text(&v->shape, t->arena), qgc_shape_text(&shape, t->arena));
    assert_int_equal(v->dtype, dtype);
}

/* Takes the error back, so that a test can go on with the next misfit. */
static void fails(test_graph *t, const char *golden) {
    assert_int_equal(qgc_infer(t->g, &t->diag), QGC_ERR_INPUT);
    assert_diag(&t->diag, golden);
    assert_null(t->diag.top);
    t->diag = qgc_diag_new(t->arena);
}

static void embedding(void **state) {
    test_graph *t = *state;
    qgc_value *tokens = test_input(t, "tokens", QGC_I32, SHAPE(T));
    qgc_value *table = test_weight(t, "embed", SHAPE(100, 8));
    qgc_value *x = test_op(t, QGC_OP_EMBEDDING, "x", INPUTS(tokens, table));
    table->dtype = QGC_BF16;
    fits(t, x, QGC_F32, SHAPE(T, 8));
    tokens->dtype = QGC_F32;
    fails(t, "model.yaml:3:1: error: tokens of embedding \"x\" must be i32, but input \"tokens\" is f32\n"
             "model.yaml:1:1: note: input \"tokens\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of x\n");
    tokens->dtype = QGC_I32;
    tokens->shape = SHAPE(T, 2);
    fails(t,
          "model.yaml:3:1: error: tokens of embedding \"x\" must be [rows], but input \"tokens\" is [T, 2]\n"
          "model.yaml:1:1: note: input \"tokens\" is declared here\n"
          "model.yaml:3:1: while: inferring the shape of x\n");
    tokens->shape = SHAPE(T);
    table->dtype = QGC_I32;
    fails(
        t,
        "model.yaml:3:1: error: table of embedding \"x\" must be of real numbers, but weight \"embed\" is i32\n"
        "model.yaml:2:1: note: weight \"embed\" is declared here\n"
        "model.yaml:3:1: while: inferring the shape of x\n");
    table->dtype = QGC_F32;
    table->shape = SHAPE(100, T);
    fails(
        t,
        "model.yaml:3:1: error: table of embedding \"x\" must be [vocab, d], but weight \"embed\" is [100, T]\n"
        "model.yaml:2:1: note: weight \"embed\" is declared here\n"
        "model.yaml:3:1: while: inferring the shape of x\n");
}

static void rms_norm(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(T, 24));
    qgc_value *w = test_weight(t, "norm", SHAPE(24));
    qgc_value *y = test_op(t, QGC_OP_RMS_NORM, "h", INPUTS(x, w));
    test_number(y, "eps", 1e-6);
    fits(t, y, QGC_F32, SHAPE(T, 24));
    w->shape = SHAPE(8);
    fits(t, y, QGC_F32, SHAPE(T, 24));
    w->shape = SHAPE(7);
    fails(t,
          "model.yaml:3:1: error: rows of rms_norm \"h\" have 24 elements, not a multiple of the weight's 7\n"
          "model.yaml:1:1: note: input \"x\" is declared here\n"
          "model.yaml:2:1: note: weight \"norm\" is declared here\n"
          "model.yaml:3:1: while: inferring the shape of h\n");
    w->shape = SHAPE(1, 24);
    fails(t, "model.yaml:3:1: error: weight of rms_norm \"h\" must be [d], but weight \"norm\" is [1, 24]\n"
             "model.yaml:2:1: note: weight \"norm\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of h\n");
    w->shape = SHAPE(24);
    test_number(y, "eps", -1);
    fails(t, "model.yaml:3:1: error: \"eps\" of rms_norm \"h\" is -1, expected a number from 0 on\n"
             "model.yaml:3:1: while: inferring the shape of h\n");
    test_number(y, "eps", 1e39);
    fails(t, "model.yaml:3:1: error: \"eps\" of rms_norm \"h\" is 1e+39, more than float32 can hold\n"
             "model.yaml:3:1: while: inferring the shape of h\n");
    test_number(y, "eps", 1e-39);
    fails(t, "model.yaml:3:1: error: \"eps\" of rms_norm \"h\" is 1e-39, nearer to 0 than float32 can hold\n"
             "model.yaml:3:1: while: inferring the shape of h\n");
    test_number(y, "eps", 0);
    x->dtype = QGC_F16;
    fails(t, "model.yaml:3:1: error: x of rms_norm \"h\" must be f32, but input \"x\" is f16\n"
             "model.yaml:1:1: note: input \"x\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of h\n");
}

static void layer_norm(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(T, 24)), *w = test_weight(t, "w", SHAPE(24));
    qgc_value *b = test_weight(t, "b", SHAPE(24)), *y = test_op(t, QGC_OP_LAYER_NORM, "h", INPUTS(x, w, b));
    test_number(y, "eps", 1e-5);
    fits(t, y, QGC_F32, SHAPE(T, 24));
    b->shape = SHAPE(12);
    fails(t, "model.yaml:4:1: error: rows of layer_norm \"h\" have 24 elements, and its bias 12\n"
             "model.yaml:1:1: note: input \"x\" is declared here\n"
             "model.yaml:3:1: note: weight \"b\" is declared here\n"
             "model.yaml:4:1: while: inferring the shape of h\n");
}

static void experts(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(T, 24)), *s = test_input(t, "s", QGC_F32, SHAPE(T, 8));
    qgc_value *up = test_weight(t, "up", SHAPE(8, 16, 24)), *down = test_weight(t, "down", SHAPE(8, 24, 16));
    qgc_value *ids = test_op(t, QGC_OP_ROUTE, "ids", INPUTS(s));
    qgc_value *weights = qgc_node_output(t->g, ids->maker, "weights");
    test_number(ids, "experts", 3);
    qgc_value *a = test_op(t, QGC_OP_EXPERT_LINEAR, "a", INPUTS(x, up, ids));
    qgc_value *b = test_op(t, QGC_OP_EXPERT_LINEAR, "b", INPUTS(a, down, ids));
    qgc_value *y = test_op(t, QGC_OP_EXPERT_SUM, "y", INPUTS(b, weights));
    fits(t, ids, QGC_I32, SHAPE(T, 3));
    fits(t, weights, QGC_F32, SHAPE(T, 3));
    fits(t, a, QGC_F32, SHAPE(T, 48));
    fits(t, b, QGC_F32, SHAPE(T, 72));
    fits(t, y, QGC_F32, SHAPE(T, 24));
    test_number(ids, "experts", 9);
    fails(t, "model.yaml:5:1: error: route \"ids\" chooses 9 of 8 experts\n"
             "model.yaml:5:1: while: inferring the shape of ids\n");
    test_number(ids, "experts", 3);
    test_number(ids, "groups", 4);
    fails(t,
          "model.yaml:5:1: error: \"groups\" of route \"ids\" is 4, and experts in groups are not computed\n"
          "model.yaml:5:1: while: inferring the shape of ids\n");
    test_number(ids, "groups", 1);
    down->shape = SHAPE(8, 24, 15);
    fails(t, "model.yaml:7:1: error: inputs of expert_linear \"b\" do not fit together\n"
             "model.yaml:6:1: note: \"a\" is [T, 48]\n"
             "model.yaml:4:1: note: \"down\" is [8, 24, 15]\n"
             "model.yaml:5:1: note: \"ids\" is [T, 3]\n"
             "model.yaml:7:1: while: inferring the shape of b\n");
    down->shape = SHAPE(8, 24, 16);
    b->maker->in[2] = test_input(t, "others", QGC_I32, SHAPE(T, 3));
    fails(t,
          "model.yaml:7:1: error: ids of expert_linear \"b\" must be made by a route, and \"others\" is not\n"
          "model.yaml:7:1: while: inferring the shape of b\n");
}

static void linear(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(R, 32));
    qgc_value *w = test_weight(t, "w", SHAPE(48, 32));
    qgc_value *b = test_weight(t, "b", SHAPE(48));
    t->layer = 3;
    qgc_value *y = test_op(t, QGC_OP_LINEAR, "q", INPUTS(x, w, b));
    w->dtype = QGC_Q8_0;
    fits(t, y, QGC_F32, SHAPE(R, 48));
    b->shape = SHAPE(32);
    fails(t, "model.yaml:4:1: error: bias of linear \"q[3]\" has 32 elements, but its weight has 48 rows\n"
             "model.yaml:3:1: note: weight \"b\" is declared here\n"
             "model.yaml:2:1: note: weight \"w\" is declared here\n"
             "model.yaml:4:1: while: inferring the shape of q\n");
    b->shape = SHAPE(48, 1);
    fails(t, "model.yaml:4:1: error: bias of linear \"q[3]\" must be [out], but weight \"b\" is [48, 1]\n"
             "model.yaml:3:1: note: weight \"b\" is declared here\n"
             "model.yaml:4:1: while: inferring the shape of q\n");
    y->maker->n_in = 2;
    fits(t, y, QGC_F32, SHAPE(R, 48));
    w->layer = 3;
    w->shape = SHAPE(16, 48);
    fails(t, "model.yaml:4:1: error: inner dimensions of linear \"q[3]\" differ: [R, 32] against [16, 48]\n"
             "model.yaml:1:1: note: input \"x\" is declared here\n"
             "model.yaml:2:1: note: weight \"w[3]\" is declared here\n"
             "model.yaml:4:1: while: inferring the shape of q\n");
    w->shape = SHAPE(32, 48);
    fails(t, "model.yaml:4:1: error: inner dimensions of linear \"q[3]\" differ: [R, 32] against [32, 48]\n"
             "model.yaml:1:1: note: input \"x\" is declared here\n"
             "model.yaml:2:1: note: weight \"w[3]\" is declared here\n"
             "  hint: \"w\" would fit if it were transposed; weights are [out, in].\n"
             "model.yaml:4:1: while: inferring the shape of q\n");
    w->shape = SHAPE(32);
    fails(t,
          "model.yaml:4:1: error: weight of linear \"q[3]\" must be [out, in], but weight \"w[3]\" is [32]\n"
          "model.yaml:2:1: note: weight \"w[3]\" is declared here\n"
          "model.yaml:4:1: while: inferring the shape of q\n");
    w->shape = SHAPE(48, 32);
    x->shape = SHAPE(7, 32);
    fails(t, "model.yaml:4:1: error: x of linear \"q[3]\" must be [rows, in], but input \"x\" is [7, 32]\n"
             "model.yaml:1:1: note: input \"x\" is declared here\n"
             "model.yaml:4:1: while: inferring the shape of q\n");
}

static void rope(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(T, 24));
    qgc_value *positions = test_input(t, "positions", QGC_I32, SHAPE(T));
    qgc_value *y = test_op(t, QGC_OP_ROPE, "qr", INPUTS(x, positions));
    test_number(y, "base", 10000);
    test_number(y, "head_dim", 8);
    fits(t, y, QGC_F32, SHAPE(T, 24));
    const double odd[] = {3, 10, 48};
    const char *const text[] = {"3", "10", "48"};
    for (int i = 0; i < 3; i++) {
        test_number(y, "head_dim", odd[i]);
        fails(t, qgc_arena_printf(
                     t->arena,
                     "model.yaml:3:1: error: rows of rope \"qr\" have 24 elements, not a multiple of an "
                     "even head_dim, which is %s\n"
                     "model.yaml:1:1: note: input \"x\" is declared here\n"
                     "model.yaml:3:1: while: inferring the shape of qr\n",
                     text[i]));
    }
    test_number(y, "head_dim", 7.5);
    fails(t, "model.yaml:3:1: error: \"head_dim\" of rope \"qr\" is 7.5, expected a whole number from 2 on\n"
             "model.yaml:3:1: while: inferring the shape of qr\n");
    test_number(y, "head_dim", 8);
    test_number(y, "base", NAN);
    fails(t, "model.yaml:3:1: error: \"base\" of rope \"qr\" is nan, expected a number from 1 on\n"
             "model.yaml:3:1: while: inferring the shape of qr\n");
    test_number(y, "base", 10000);
    positions->shape = SHAPE(R);
    fails(t, "model.yaml:3:1: error: positions of rope \"qr\" must be [T], but input \"positions\" is [R]\n"
             "model.yaml:2:1: note: input \"positions\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of qr\n");
}

static void rope_of_a_part(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(T, 24));
    qgc_value *positions = test_input(t, "positions", QGC_I32, SHAPE(T));
    qgc_value *y = test_op(t, QGC_OP_ROPE, "qr", INPUTS(x, positions));
    test_number(y, "base", 10000);
    test_number(y, "head_dim", 8);
    const double fine[][2] = {{0, 4}, {4, 0}, {2, 6}, {1, 6}}, wrong[][2] = {{8, 0}, {0, 3}, {3, 0}, {4, 6}};
    const char *const text[] = {"0 elements from 8", "3 elements from 0", "5 elements from 3",
                                "6 elements from 4"};
    for (int i = 0; i < 4; i++) {
        test_number(y, "first", fine[i][0]);
        test_number(y, "rotary_dim", fine[i][1]);
        fits(t, y, QGC_F32, SHAPE(T, 24));
        test_number(y, "first", wrong[i][0]);
        test_number(y, "rotary_dim", wrong[i][1]);
        fails(t, qgc_arena_printf(
                     t->arena,
                     "model.yaml:3:1: error: rope \"qr\" turns %s on in heads of 8, expected an even "
                     "number within them\n"
                     "model.yaml:3:1: while: inferring the shape of qr\n",
                     text[i]));
    }
}

static void rope_by_frequencies(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(T, 24));
    qgc_value *positions = test_input(t, "positions", QGC_I32, SHAPE(T));
    qgc_value *by = test_weight(t, "by", SHAPE(3));
    qgc_value *f = test_op(t, QGC_OP_ROPE_FREQS, "f", INPUTS(NULL));
    test_number(f, "base", 10);
    test_number(f, "rotary_dim", 6);
    qgc_value *g = test_op(t, QGC_OP_ROPE_DIVIDE, "g", INPUTS(f, by));
    qgc_value *y = test_op(t, QGC_OP_ROPE, "qr", INPUTS(x, positions, g));
    test_number(y, "head_dim", 8);
    fits(t, f, QGC_F32, SHAPE(2, 3));
    fits(t, g, QGC_F32, SHAPE(2, 3));
    fits(t, y, QGC_F32, SHAPE(T, 24));
    test_number(y, "base", 10);
    fails(t, "model.yaml:6:1: error: rope \"qr\" has frequencies and a base, which is 10\n"
             "model.yaml:6:1: while: inferring the shape of qr\n");
    test_number(y, "base", 0);
    test_number(y, "rotary_dim", 4);
    fails(
        t,
        "model.yaml:6:1: error: rope \"qr\" has frequencies for 6 elements of a head, and its rotary_dim is 4\n"
        "model.yaml:6:1: while: inferring the shape of qr\n");
    test_number(y, "rotary_dim", 6);
    test_number(y, "first", 4);
    fails(
        t,
        "model.yaml:6:1: error: rope \"qr\" turns 6 elements from 4 on in heads of 8, expected an even number "
        "within them\n"
        "model.yaml:6:1: while: inferring the shape of qr\n");
    test_number(y, "first", 0);
    by->shape = SHAPE(4);
    fails(t, "model.yaml:5:1: error: rope_divide \"g\" has 3 frequencies and 4 divisors\n"
             "model.yaml:4:1: note: value \"f\" is made here\n"
             "model.yaml:3:1: note: weight \"by\" is declared here\n"
             "model.yaml:5:1: while: inferring the shape of g\n");
    by->shape = SHAPE(3);
    g->maker->op = QGC_OP_ROPE_LONGROPE;
    g->maker->n_in = 3;
    g->maker->in[2] = by;
    fails(
        t,
        "model.yaml:5:1: error: \"original\" of rope_longrope \"g\" is 0, expected a whole number from 1 on\n"
        "model.yaml:5:1: while: inferring the shape of g\n");
    test_number(g, "original", 100);
    fits(t, g, QGC_F32, SHAPE(2, 3));
    g->maker->op = QGC_OP_ROPE_DIVIDE;
    g->maker->n_in = 2;
    y->maker->in[2] = x;
    fails(t,
          "model.yaml:6:1: error: freqs of rope \"qr\" must be made by rope_freqs, and input \"x\" is not\n"
          "model.yaml:1:1: note: input \"x\" is declared here\n"
          "model.yaml:6:1: while: inferring the shape of qr\n");
    y->maker->in[2] = g;
    test_number(f, "rotary_dim", 7);
    fails(t, "model.yaml:4:1: error: \"rotary_dim\" of rope_freqs \"f\" is 7, expected an even number\n"
             "model.yaml:4:1: while: inferring the shape of f\n");
}

static void numbers_of_frequencies(void **state) {
    test_graph *t = *state;
    qgc_value *f = test_op(t, QGC_OP_ROPE_FREQS, "f", INPUTS(NULL));
    test_number(f, "base", 10);
    test_number(f, "rotary_dim", 6);
    qgc_value *g = test_op(t, QGC_OP_ROPE_LLAMA3, "g", INPUTS(f));
    test_number(g, "factor", 8), test_number(g, "original", 8192);
    test_number(g, "low", 4), test_number(g, "high", 4);
    fails(
        t,
        "model.yaml:2:1: error: \"high\" of rope_llama3 \"g\" is 4, expected more than \"low\", which is 4\n"
        "model.yaml:2:1: while: inferring the shape of g\n");
    g->maker->op = QGC_OP_ROPE_YARN;
    test_number(g, "factor", 4), test_number(g, "original", 8192), test_number(g, "base", 1);
    test_number(g, "beta_fast", 1), test_number(g, "beta_slow", 1);
    fails(t, "model.yaml:2:1: error: \"base\" of rope_yarn \"g\" is 1, expected more\n"
             "model.yaml:2:1: while: inferring the shape of g\n");
    test_number(g, "base", 10);
    fails(
        t,
        "model.yaml:2:1: error: \"beta_fast\" of rope_yarn \"g\" is 1, expected more than \"beta_slow\", which is 1\n"
        "model.yaml:2:1: while: inferring the shape of g\n");
    g->maker->op = QGC_OP_ROPE_LINEAR;
    test_number(g, "factor", 0);
    fails(
        t,
        "model.yaml:2:1: error: \"factor\" of rope_linear \"g\" is 0, expected a number from 1.17549e-38 on\n"
        "model.yaml:2:1: while: inferring the shape of g\n");
}

static void append(void **state) {
    test_graph *t = *state;
    qgc_value *cache = test_state(t, "k_cache", QGC_BF16, SHAPE(2, CTX, 8));
    qgc_value *x = test_input(t, "k", QGC_F32, SHAPE(T, 16));
    qgc_value *positions = test_input(t, "positions", QGC_I32, SHAPE(T));
    qgc_value *keys = test_op(t, QGC_OP_APPEND, "keys", INPUTS(cache, x, positions));
    fits(t, keys, QGC_BF16, SHAPE(2, CTX, 8));
    qgc_value *again = test_op(t, QGC_OP_APPEND, "again", INPUTS(keys, x, positions));
    fits(t, again, QGC_BF16, SHAPE(2, CTX, 8));
    x->shape = SHAPE(T, 15);
    fails(
        t,
        "model.yaml:4:1: error: rows of append \"keys\" have 15 elements, but its cache [2, ctx, 8] takes 16\n"
        "model.yaml:2:1: note: input \"k\" is declared here\n"
        "model.yaml:1:1: note: state \"k_cache\" is declared here\n"
        "model.yaml:4:1: while: inferring the shape of keys\n");
    x->shape = SHAPE(T, 16);
    cache->dtype = QGC_Q8_0;
    fails(
        t,
        "model.yaml:4:1: error: cache of append \"keys\" must be f32, f16 or bf16, but state \"k_cache\" is q8_0\n"
        "model.yaml:1:1: note: state \"k_cache\" is declared here\n"
        "model.yaml:4:1: while: inferring the shape of keys\n");
    cache->dtype = QGC_F32;
    cache->shape = SHAPE(2, 64, 8);
    fails(
        t,
        "model.yaml:4:1: error: cache of append \"keys\" must be [kv_heads, ctx, d], but state \"k_cache\" is "
        "[2, 64, 8]\n"
        "model.yaml:1:1: note: state \"k_cache\" is declared here\n"
        "model.yaml:4:1: while: inferring the shape of keys\n");
    keys->maker->in[0] = x;
    fails(t, "model.yaml:4:1: error: cache of append \"keys\" must be a state, but \"k\" is an input\n"
             "model.yaml:2:1: note: input \"k\" is declared here\n"
             "model.yaml:4:1: while: inferring the shape of keys\n");
}

/* Tokens would write anywhere in a cache, and read anywhere in a table of angles. */
static void positions_are_not_tokens(void **state) {
    test_graph *t = *state;
    qgc_value *cache = test_state(t, "k_cache", QGC_F32, SHAPE(2, CTX, 8));
    qgc_value *x = test_input(t, "k", QGC_F32, SHAPE(T, 16));
    qgc_value *tokens = test_input(t, "tokens", QGC_I32, SHAPE(T));
    qgc_value *positions = test_input(t, "positions", QGC_I32, SHAPE(T));
    qgc_value *keys = test_op(t, QGC_OP_APPEND, "keys", INPUTS(cache, x, tokens));
    fails(t, "model.yaml:5:1: error: positions of append \"keys\" must not be the input \"tokens\"\n"
             "model.yaml:5:1: while: inferring the shape of keys\n");
    keys->maker->in[2] = positions;
    qgc_value *y = test_op(t, QGC_OP_ATTENTION, "a", INPUTS(x, keys, keys, tokens));
    test_number(y, "scale", 1);
    fails(t, "model.yaml:6:1: error: positions of attention \"a\" must not be the input \"tokens\"\n"
             "model.yaml:6:1: while: inferring the shape of a\n");
    y->maker->in[3] = positions;
    fits(t, y, QGC_F32, SHAPE(T, 16));
}

static void attention(void **state) {
    test_graph *t = *state;
    qgc_value *q = test_input(t, "q", QGC_F32, SHAPE(T, 48));
    qgc_value *keys = test_state(t, "keys", QGC_F32, SHAPE(2, CTX, 8));
    qgc_value *values = test_state(t, "values", QGC_F16, SHAPE(2, CTX, 8));
    qgc_value *positions = test_input(t, "positions", QGC_I32, SHAPE(T));
    qgc_value *y = test_op(t, QGC_OP_ATTENTION, "a", INPUTS(q, keys, values, positions));
    test_number(y, "scale", 0.5);
    fits(t, y, QGC_F32, SHAPE(T, 48));
    q->shape = SHAPE(T, 24);
    fails(
        t,
        "model.yaml:5:1: error: rows of q of attention \"a\" have 24 elements, not a multiple of the 16 of its "
        "keys [2, ctx, 8]\n"
        "model.yaml:1:1: note: input \"q\" is declared here\n"
        "model.yaml:2:1: note: state \"keys\" is declared here\n"
        "model.yaml:5:1: while: inferring the shape of a\n");
    values->shape = SHAPE(1, CTX, 8);
    fails(
        t,
        "model.yaml:5:1: error: keys and values of attention \"a\" differ: [2, ctx, 8] against [1, ctx, 8]\n"
        "model.yaml:2:1: note: state \"keys\" is declared here\n"
        "model.yaml:3:1: note: state \"values\" is declared here\n"
        "model.yaml:5:1: while: inferring the shape of a\n");
    values->dtype = QGC_I32;
    fails(
        t,
        "model.yaml:5:1: error: values of attention \"a\" must be f32, f16 or bf16, but state \"values\" is i32\n"
        "model.yaml:3:1: note: state \"values\" is declared here\n"
        "model.yaml:5:1: while: inferring the shape of a\n");
    values->dtype = QGC_F32;
    values->shape = keys->shape = SHAPE(2, CTX, (int64_t)1 << 40);
    fails(t,
          "model.yaml:5:1: error: keys of attention \"a\" must be [kv_heads, ctx, d], but state \"keys\" is "
          "[2, ctx, 1099511627776]\n"
          "model.yaml:2:1: note: state \"keys\" is declared here\n"
          "model.yaml:5:1: while: inferring the shape of a\n");
}

static void pointwise(void **state) {
    test_graph *t = *state;
    qgc_value *a = test_input(t, "a", QGC_F32, SHAPE(T, 48));
    qgc_value *b = test_input(t, "b", QGC_F32, SHAPE(T, 48));
    qgc_value *sum = test_op(t, QGC_OP_ADD, "sum", INPUTS(a, b));
    fits(t, sum, QGC_F32, SHAPE(T, 48));
    qgc_value *product = test_op(t, QGC_OP_MUL, "product", INPUTS(sum, b));
    fits(t, product, QGC_F32, SHAPE(T, 48));
    qgc_value *silu = test_op(t, QGC_OP_SILU, "act", INPUTS(product));
    fits(t, silu, QGC_F32, SHAPE(T, 48));
    product->maker->in[1] = test_input(t, "c", QGC_F32, SHAPE(R, 48));
    fails(t, "model.yaml:4:1: error: shapes of mul \"product\" differ: [T, 48] against [R, 48]\n"
             "model.yaml:3:1: note: value \"sum\" is made here\n"
             "model.yaml:6:1: note: input \"c\" is declared here\n"
             "model.yaml:4:1: while: inferring the shape of product\n");
    b->dtype = QGC_I32;
    fails(t, "model.yaml:3:1: error: b of add \"sum\" must be f32, but input \"b\" is i32\n"
             "model.yaml:2:1: note: input \"b\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of sum\n");
    b->dtype = QGC_F32;
    product->maker->in[1] = b;
    silu->maker->in[0] = test_input(t, "i", QGC_I32, SHAPE(T, 48));
    fails(t, "model.yaml:5:1: error: x of silu \"act\" must be f32, but input \"i\" is i32\n"
             "model.yaml:7:1: note: input \"i\" is declared here\n"
             "model.yaml:5:1: while: inferring the shape of act\n");
}

/* Of a mul alone one side may have one number a row. */
static void one_number_a_row(void **state) {
    test_graph *t = *state;
    qgc_value *a = test_input(t, "a", QGC_F32, SHAPE(T, 48)), *b = test_input(t, "b", QGC_F32, SHAPE(T, 1));
    qgc_value *product = test_op(t, QGC_OP_MUL, "product", INPUTS(a, b));
    fits(t, product, QGC_F32, SHAPE(T, 48));
    product->maker->in[0] = b;
    product->maker->in[1] = a;
    fits(t, product, QGC_F32, SHAPE(T, 48));
    b->shape = SHAPE(R, 1);
    fails(t, "model.yaml:3:1: error: shapes of mul \"product\" differ: [R, 1] against [T, 48]\n"
             "model.yaml:2:1: note: input \"b\" is declared here\n"
             "model.yaml:1:1: note: input \"a\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of product\n");
    b->shape = SHAPE(T, 1);
    product->maker->op = QGC_OP_ADD;
    fails(t, "model.yaml:3:1: error: shapes of add \"product\" differ: [T, 1] against [T, 48]\n"
             "model.yaml:2:1: note: input \"b\" is declared here\n"
             "model.yaml:1:1: note: input \"a\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of product\n");
}

static void numbers_of_pointwise_ops(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(T, 48));
    qgc_value *y = test_op(t, QGC_OP_SCALE, "y", INPUTS(x));
    test_number(y, "factor", -2);
    fits(t, y, QGC_F32, SHAPE(T, 48));
    y->maker->op = QGC_OP_SOFTCAP;
    test_number(y, "cap", 30);
    fits(t, y, QGC_F32, SHAPE(T, 48));
    test_number(y, "cap", 0);
    fails(t, "model.yaml:2:1: error: \"cap\" of softcap \"y\" is 0, expected a number from 1.17549e-38 on\n"
             "model.yaml:2:1: while: inferring the shape of y\n");
}

static void select_rows(void **state) {
    test_graph *t = *state;
    qgc_value *x = test_input(t, "x", QGC_F32, SHAPE(T, 48));
    qgc_value *rows = test_input(t, "rows", QGC_I32, SHAPE(R));
    qgc_value *y = test_op(t, QGC_OP_SELECT_ROWS, "last", INPUTS(x, rows));
    fits(t, y, QGC_F32, SHAPE(R, 48));
    rows->shape = SHAPE(T);
    fails(t, "model.yaml:3:1: error: rows of select_rows \"last\" must be [R], but input \"rows\" is [T]\n"
             "model.yaml:2:1: note: input \"rows\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of last\n");
}

static void mark(void **state) {
    test_graph *t = *state;
    qgc_value *seen = test_state(t, "seen", QGC_I32, SHAPE(100));
    qgc_value *tokens = test_input(t, "tokens", QGC_I32, SHAPE(T));
    qgc_value *y = test_op(t, QGC_OP_MARK, "marked", INPUTS(seen, tokens));
    fits(t, y, QGC_I32, SHAPE(100));
    seen->dtype = QGC_F32;
    fails(t, "model.yaml:3:1: error: seen of mark \"marked\" must be i32, but state \"seen\" is f32\n"
             "model.yaml:1:1: note: state \"seen\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of marked\n");
    y->maker->in[0] = tokens;
    fails(t, "model.yaml:3:1: error: seen of mark \"marked\" must be a state, but \"tokens\" is an input\n"
             "model.yaml:2:1: note: input \"tokens\" is declared here\n"
             "model.yaml:3:1: while: inferring the shape of marked\n");
}

static void sample(void **state) {
    test_graph *t = *state;
    qgc_value *logits = test_input(t, "logits", QGC_F32, SHAPE(R, 100));
    qgc_value *rows = test_input(t, "rows", QGC_I32, SHAPE(R));
    qgc_value *positions = test_input(t, "positions", QGC_I32, SHAPE(T));
    qgc_value *seen = test_state(t, "seen", QGC_I32, SHAPE(100));
    qgc_value *y = test_op(t, QGC_OP_SAMPLE, "next", INPUTS(logits, rows, positions, seen));
    fits(t, y, QGC_I32, SHAPE(R));
    seen->shape = SHAPE(99);
    fails(t, "model.yaml:5:1: error: logits and seen of sample \"next\" differ: [R, 100] against [99]\n"
             "model.yaml:1:1: note: input \"logits\" is declared here\n"
             "model.yaml:4:1: note: state \"seen\" is declared here\n"
             "model.yaml:5:1: while: inferring the shape of next\n");
    logits->shape = SHAPE(T, 100);
    fails(
        t,
        "model.yaml:5:1: error: logits of sample \"next\" must be [R, vocab], but input \"logits\" is [T, 100]\n"
        "model.yaml:1:1: note: input \"logits\" is declared here\n"
        "model.yaml:5:1: while: inferring the shape of next\n");
}

#define GRAPH_TEST(f) cmocka_unit_test_setup_teardown(f, test_graph_setup, test_graph_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        GRAPH_TEST(embedding),
        GRAPH_TEST(rms_norm),
        GRAPH_TEST(linear),
        GRAPH_TEST(rope),
        GRAPH_TEST(append),
        GRAPH_TEST(positions_are_not_tokens),
        GRAPH_TEST(attention),
        GRAPH_TEST(pointwise),
        GRAPH_TEST(mark),
        GRAPH_TEST(layer_norm),
        GRAPH_TEST(experts),
        GRAPH_TEST(rope_of_a_part),
        GRAPH_TEST(rope_by_frequencies),
        GRAPH_TEST(numbers_of_frequencies),
        GRAPH_TEST(one_number_a_row),
        GRAPH_TEST(numbers_of_pointwise_ops),
        GRAPH_TEST(select_rows),
        GRAPH_TEST(sample),
    };
    return cmocka_run_group_tests_name("graph/infer", tests, NULL, NULL);
}
