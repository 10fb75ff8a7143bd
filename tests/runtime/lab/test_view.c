#include <ctype.h>
#include <string.h>

#include "codegen/lower.h"
#include "graph/base/file.h"
#include "graph/load.h"
#include "runtime/lab/bench.h"
#include "runtime/lab/view.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"
#include "tests/support/usual.h"

#define PASSES                                                                                     \
    "dead-code?,split-attention,split-sample,fuse-swiglu,fuse-qkv,fuse-rope-append,fuse-residual," \
    "fuse-norm-linear,fuse-embed,fuse-head-sample,fuse-merge-linear,fuse-pointwise?"

static qgc_graph *load(fixture *f, const char *path) {
    qgc_graph *g = NULL;
    ok(f, qgc_graph_load(&g, path, f->arena, &f->diag));
    return g;
}

/* A view of a graph that has been through its passes. */
static qgc_view *view_of(fixture *f, qgc_graph *g, const char *passes, int64_t layer) {
    qgc_view *v = NULL;
    qgc_pass_report report;
    ok(f, qgc_view_new(&v, g, "graph.yaml", layer, &f->diag));
    const qgc_pass_options o = {.passes = passes, .after = qgc_view_after, .context = v};
    ok(f, qgc_passes_run(g, &o, &report, &f->diag));
    return v;
}

static const char *html(fixture *f, const qgc_view *v) {
    qgc_str out = qgc_str_new(f->arena);
    qgc_view_html(v, &out);
    assert_int_equal(strlen(out.text), out.bytes);
    return out.text;
}

static const char *tiny(fixture *f, const char *passes, int64_t layer) {
    return html(f, view_of(f, load(f, "models/tiny/tiny.yaml"), passes, layer));
}

static void lacks(const char *page, const char *text) {
    if (strstr(page, text))
        fail_msg("\"%s\" is in the page", text);
}

/* The part of a page from one text to another after it. */
static const char *piece(fixture *f, const char *page, const char *from, const char *to) {
    const char *start = strstr(page, from), *end = start ? strstr(start + strlen(from), to) : NULL;
    if (!end) {
        fail_msg("\"%s\" is not in the page, or no \"%s\" after it", from, to);
        return NULL;
    }
    return qgc_arena_strndup(f->arena, start, (size_t)(end - start));
}

static const char *stage(fixture *f, const char *page, const char *key) {
    return piece(f, page, qgc_arena_printf(f->arena, "<section class=\"stage\" id=\"after=%s\"", key),
                 "</section>");
}

static const char *drawing(fixture *f, const char *page, const char *key, const char *part) {
    return piece(f, stage(f, page, key), qgc_arena_printf(f->arena, "<figure data-part=\"%s\"", part),
                 "</figure>");
}

/* --- is it well formed? ----------------------------------------------------------------------------------- */

enum { DEEPEST = 64 };

typedef struct {
    const char *at;
    const char *open[DEEPEST]; /* names of elements, and their lengths */
    size_t lengths[DEEPEST];
    int depth;
} checker;

static void bad(const checker *c, const char *what) {
    fail_msg("%s: %.60s", what, c->at);
}

static void check_entity(const checker *c) {
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#8592;", "&#8594;"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(c->at, known[i], strlen(known[i])) == 0)
            return;
    bad(c, "a bare &");
}

static void check_attributes(checker *c) {
    c->at += strspn(c->at, " \n");
    while (*c->at && *c->at != '>' && *c->at != '/') {
        const size_t name = strspn(c->at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-:");
        if (name == 0 || strncmp(c->at + name, "=\"", 2) != 0)
            bad(c, "not NAME=\"...\"");
        for (c->at += name + 2; *c->at != '"'; c->at++) {
            if (!*c->at || *c->at == '<')
                bad(c, "an attribute does not end");
            if (*c->at == '&')
                check_entity(c);
        }
        c->at++;
        c->at += strspn(c->at, " \n");
    }
}

static void close_element(checker *c) {
    const size_t length = strcspn(c->at + 2, ">");
    const char *open = c->depth > 0 ? c->open[c->depth - 1] : "";
    if (c->depth == 0 || length != c->lengths[c->depth - 1] || strncmp(c->at + 2, open, length) != 0)
        bad(c, "closes what is not open");
    c->depth--;
    c->at += length + 3;
}

/* What is between the tags of a script or a style is no markup. */
static void skip_raw(checker *c, const char *end) {
    c->at = strstr(c->at, end);
    assert_non_null(c->at);
}

static void open_element(checker *c) {
    const char *name = ++c->at;
    const size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789FG");
    if (length == 0)
        bad(c, "a bare <");
    c->at += length;
    check_attributes(c);
    if (*c->at == '/') {
        assert_true(c->at[1] == '>');
        c->at += 2;
        return;
    }
    assert_true(*c->at == '>' && c->depth < DEEPEST);
    c->at++;
    c->open[c->depth] = name;
    c->lengths[c->depth++] = length;
    if (strncmp(name, "style", length) == 0)
        skip_raw(c, "</style>");
    else if (strncmp(name, "script", length) == 0)
        skip_raw(c, "</script>");
}

static void check_ids(fixture *f, const char *page) {
    qgc_map ids = qgc_map_new(f->arena);
    for (const char *at = page; (at = strstr(at, " id=\"")); at++)
        if (!qgc_map_put_bytes(&ids, at + 5, strcspn(at + 5, "\""), f))
            fail_msg("twice: %.40s", at);
    for (const char *at = page; (at = strstr(at, " data-detail=\"")); at++)
        if (!qgc_map_get_bytes(&ids, at + 14, strcspn(at + 14, "\"")))
            fail_msg("no template: %.40s", at);
}

/* Every tag is closed, every attribute quoted, every & an entity: XML but for the first line, style and script. */
static void check_page(fixture *f, const char *page) {
    const char *doctype = "<!DOCTYPE html>\n";
    assert_memory_equal(page, doctype, strlen(doctype));
    checker c = {.at = page + strlen(doctype)};
    while (*c.at) {
        if (strncmp(c.at, "</", 2) == 0)
            close_element(&c);
        else if (*c.at == '<')
            open_element(&c);
        else {
            if (*c.at == '&')
                check_entity(&c);
            if ((unsigned char)*c.at < ' ' && *c.at != '\n' && *c.at != '\t')
                bad(&c, "a control character");
            c.at++;
        }
    }
    assert_int_equal(c.depth, 0);
    check_ids(f, page);
}

/* --- tests ------------------------------------------------------------------------------------------------ */

static void is_one_file_of_well_formed_html(void **state) {
    fixture *f = *state;
    for (int layer = 0; layer < 4; layer++) {
        const char *page = tiny(f, PASSES, layer);
        check_page(f, page);
        lacks(page, "http:");
        lacks(page, "https:");
        lacks(page, "src=");
        lacks(page, "@import");
        lacks(page, "<link");
    }
}

static void the_same_graph_gives_the_same_page(void **state) {
    assert_string_equal(tiny(*state, PASSES, 1), tiny(*state, PASSES, 1));
}

static void each_pass_has_a_stage(void **state) {
    fixture *f = *state;
    const char *page = tiny(f, NULL, -1), *at = page;
    assert_int_equal(count(page, "<section class=\"stage\""), 1 + (int)usual_passes());
    assert_non_null(strstr(page, "id=\"after=loaded\""));
    for (size_t i = 0; i < usual_passes(); i++) {
        at =
            strstr(at, qgc_arena_printf(f->arena, "<section class=\"stage\" id=\"after=%s\"", usual_pass(i)));
        assert_non_null(at);
    }
    has(tiny(f, PASSES, 1), "<b>78</b> nodes in <b>78</b> kernels, and after <b>12</b> passes in <b>24</b>");
}

static void a_pass_that_runs_twice_has_two_stages(void **state) {
    const char *page = tiny(*state, "fuse-qkv,dead-code,fuse-qkv", 1);
    check_page(*state, page);
    has(page, "id=\"after=fuse-qkv\"");
    has(page, "id=\"after=fuse-qkv-2\"");
    has(stage(*state, page, "fuse-qkv-2"), "<b>0</b> fired");
}

static void groups_are_framed_from_their_pass_on(void **state) {
    fixture *f = *state;
    const char *page = tiny(f, PASSES, 2), *frame = "<g class=\"frame\"";
    assert_int_equal(count(stage(f, page, "loaded"), frame), 0);
    assert_int_equal(count(drawing(f, page, "fuse-swiglu", "layer"), frame), 1);
    assert_int_equal(count(drawing(f, page, "fuse-qkv", "layer"), frame), 2);
    assert_int_equal(count(drawing(f, page, "fuse-residual", "layer"), frame), 4);
    assert_int_equal(count(drawing(f, page, "fuse-norm-linear", "around"), frame), 1);
    has(drawing(f, page, "fuse-qkv", "layer"), "data-node=\"kernel qkv[2]\"");
    has(drawing(f, page, "fuse-qkv", "layer"), "class=\"title\">qkv</text>");
}

static void draws_the_layer_that_was_asked_for(void **state) {
    fixture *f = *state;
    const char *third = drawing(f, tiny(f, "", 3), "loaded", "layer");
    has(third, "data-node=\"q[3]\" data-name=\"q\"");
    has(third, ">x[2]</text>");
    has(third, ">to x_rows</text>");
    assert_int_equal(count(third, "class=\"node\""), 18);
    const char *other = drawing(f, tiny(f, "", -1), "loaded", "layer"); /* the second */
    has(other, "data-node=\"q[1]\"");
    has(other, ">x[0]</text>");
    has(other, ">to layer 2</text>");
}

static void a_node_elsewhere_is_drawn_with_its_kernel(void **state) {
    fixture *f = *state;
    const char *page = tiny(f, PASSES, 0), *embedding = ">embedding</text>";
    lacks(drawing(f, page, "fuse-norm-linear", "layer"), embedding);
    has(drawing(f, page, "fuse-embed", "layer"), embedding);
    has(drawing(f, page, "fuse-embed", "around"), "class=\"title\">qkv[0]</text>");
}

static void around_the_layers_they_are_one_box(void **state) {
    fixture *f = *state;
    const char *page = tiny(f, PASSES, 1);
    const char *loaded = drawing(f, page, "loaded", "around");
    has(loaded, ">layers 0 to 3</text>");
    has(loaded, ">72 nodes, 72 kernels</text>");
    assert_int_equal(count(loaded, "class=\"fold\""), 1);
    assert_int_equal(count(loaded, "class=\"node\""), 6);
    assert_int_equal(count(loaded, ">to the output</text>"), 2);
    has(drawing(f, page, "fuse-pointwise", "around"), ">76 nodes, 19 kernels</text>");
}

static void says_what_fired_and_what_did_not_and_why(void **state) {
    fixture *f = *state;
    const char *page = tiny(f, "fuse-residual,fuse-norm-linear", 1);
    const char *fired = stage(f, page, "fuse-residual");
    has(fired, "<li class=\"fired\">");
    has(fired, "in group &quot;out&quot;");
    has(fired,
        qgc_arena_printf(f->arena, "llama.yaml:%d</span><pre>- {op: add, in: [x, o], out: x_mid}</pre>",
                         line_of("models/llama.yaml", "add, in: [x, o]")));
    has(fired, "6 more in other layers");
    assert_int_equal(count(fired, "class=\"mark fired\""), 2);
    const char *declined = stage(f, page, "fuse-norm-linear");
    has(declined, "<li class=\"declined\">");
    has(declined, "&quot;q&quot; and &quot;k&quot;, which read it, are different kernels");
    has(declined, "class=\"mark declined\"");
}

/* The template that a node of a drawing names. */
static const char *detail(fixture *f, const char *page, const char *key, const char *node) {
    const char *box = piece(f, drawing(f, page, key, "layer"),
                            qgc_arena_printf(f->arena, "data-node=\"%s\"", node), " tabindex");
    const char *id = strstr(box, "data-detail=\"");
    assert_non_null(id);
    id += strlen("data-detail=\"");
    return piece(f, page, qgc_arena_printf(f->arena, "<template id=\"%.*s\">", (int)strcspn(id, "\""), id),
                 "</template>");
}

static void a_node_tells_all_that_there_is_to_know(void **state) {
    fixture *f = *state;
    const char *page = tiny(f, PASSES, 1), *q = detail(f, page, "fuse-rope-append", "q[1]");
    has(q, "<h3><code>q[1]</code> <span>linear</span></h3>");
    has(q, "<pre>- {op: linear, in: [x, wq, bq], out: q}</pre>");
    has(q,
        "<a href=\"#\" data-node=\"h[1]\"><code>h[1]</code></a></td><td>[T, 192]</td><td>f32</td><td>result</td>");
    has(q, "<code>wq[1]</code></td><td>[192, 192]</td><td>bf16</td><td>weight</td>");
    has(q, "blk.1.attn_q.weight");
    has(q, "<b>qkv[1]</b></a>, with");
    has(q, "<li data-stage=\"fuse-qkv\" class=\"fired\">");
    has(q, "<code>products of one vector</code>: in group &quot;qkv&quot;");
    has(detail(f, page, "loaded", "q[1]"), "A kernel by itself.");
    has(detail(f, page, "loaded", "qr[1]"), "<dt>style</dt><dd>neox</dd>");
    has(detail(f, page, "loaded", "h[1]"), "<dt>eps</dt><dd>1e-06</dd>");
    /* The rule fired at q; and a_parts is not there at first. */
    has(detail(f, page, "fuse-norm-linear", "h[1]"), "fuse-norm-linear</a> into kernel <b>qkv[1]</b>");
    has(detail(f, page, "split-attention", "a_parts[1]"), "split-attention</a> appears");
    const char *plain = tiny(f, "fuse-norm-linear", 1);
    has(detail(f, plain, "fuse-norm-linear", "k[1]"),
        "declined <code>linear(rms_norm)</code> at <code>h[1]</code>");
}

/* --- names that nobody expects ---------------------------------------------------------------------------- */

static void everything_is_escaped(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    qgc_view *v = NULL;
    g->name = "<name>&\"";
    for (size_t i = 0; i < g->n_values; i++)
        if (strcmp(g->values[i]->name, "q") == 0)
            g->values[i]->name = "<q>&\"";
        else if (strcmp(g->values[i]->name, "wq") == 0)
            g->values[i]->name = "<w>&\"";
    for (size_t i = 0; i < g->n_weights; i++)
        g->weights[i].gguf = "<gguf>&\"";
    qgc_source source = {.name = "<file>&\"", .text = "  <line>&\"\n", .bytes = 11};
    for (qgc_node *n = g->first; n; n = n->next) {
        n->at = (qgc_loc){&source, 1, 1};
        if (n->layer == 1)
            n->group = qgc_graph_group(g, "<group>&\"", 0, 1, n->at);
    }
    const qgc_pass_info pass = {.name = "<pass>&\"", .summary = "<summary>&\""};
    qgc_pass_event event = {"<rule>&\"", {&source, 1, 1}, "<q>&\"[1]", 1, true, "<text>&\"", NULL, 0};
    const qgc_pass_run run = {.name = "<run>&\"", .events = &event, .n_events = 1, .n_fired = 1};
    ok(f, qgc_view_new(&v, g, "<path>&\"", 1, &f->diag));
    ok(f, qgc_view_after(v, NULL, NULL, g, &f->diag));
    ok(f, qgc_view_after(v, &pass, &run, g, &f->diag));
    const char *page = html(f, v);
    check_page(f, page);
    static const char *const names[] = {"name", "q",       "w",    "gguf", "file", "line", "group",
                                        "pass", "summary", "rule", "run",  "text", "path"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        has(page, qgc_arena_printf(f->arena, "&lt;%s&gt;&amp;&quot;", names[i]));
        lacks(page, qgc_arena_printf(f->arena, "<%s>&", names[i]));
    }
}

static void what_is_not_utf_8_is_replaced(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    g->name = "a\xff"
              "b\xc3\xa9\xed\xa0\x80\x01\xe2\x82";
    const char *page = html(f, view_of(f, g, "", 1));
    check_page(f, page);
    has(page, "<h1>a\xef\xbf\xbd"
              "b\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd</h1>");
}

static void long_names_are_cut(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    for (size_t i = 0; i < g->n_values; i++)
        if (strcmp(g->values[i]->name, "q") == 0)
            g->values[i]->name = "a_name_that_is_much_too_long_for_any_box_of_a_drawing";
    const char *page = html(f, view_of(f, g, "", 1));
    has(page, ">a_name_that_is_much_too_long_for\xe2\x80\xa6</text>");
    has(page, "<h3><code>a_name_that_is_much_too_long_for_any_box_of_a_drawing[1]</code>");
}

/* --- graphs of other shapes ------------------------------------------------------------------------------- */

static qgc_graph *load_text(fixture *f, const char *text) {
    qgc_graph *g = NULL;
    ok(f, qgc_graph_load_text(&g, "g.yaml", text, strlen(text), f->arena, &f->diag));
    return g;
}

static const char flat[] =
    "qgc: 1\nname: flat\narch: none\nparams: {}\ninputs: {tokens: [T]}\n"
    "weights:\n  e: {shape: [8, 4]}\n"
    "graph:\n  - {op: embedding, in: [tokens, e], out: y}\n  - {op: add, in: [y, y], out: z}\n"
    "outputs: [z]\n";

static void a_graph_without_layers_is_one_drawing(void **state) {
    fixture *f = *state;
    const char *page = html(f, view_of(f, load_text(f, flat), NULL, -1));
    check_page(f, page);
    assert_int_equal(count(page, "<figure data-part=\"around\"><figcaption>the graph</figcaption>"),
                     1 + (int)usual_passes());
    assert_int_equal(count(page, "<figure "), 1 + (int)usual_passes());
    /* y + y is one line, not two */
    assert_int_equal(count(drawing(f, page, "loaded", "around"), "class=\"edge\""), 2);
}

static void no_such_layer_is_an_error(void **state) {
    fixture *f = *state;
    qgc_view *v = NULL;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    assert_int_equal(qgc_view_new(&v, g, "g", 4, &f->diag), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&f->diag), "the graph has no layer 4: its layers are 0 to 3");
    f->diag = qgc_diag_new(f->arena);
    assert_int_equal(qgc_view_new(&v, load_text(f, flat), "g", 0, &f->diag), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&f->diag), "the graph has no layers, and so no layer 0");
}

/* --- times ------------------------------------------------------------------------------------------------ */

/* What qgc bench writes of the kernels of a graph, as if the i-th kind took i + 1 us a launch. */
static const char *bench_file(fixture *f, const char *passes, const char *model) {
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    qgc_pass_report report;
    qgc_lowered low;
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.passes = passes}, &report, &f->diag));
    ok(f, qgc_lower(g, &(qgc_lower_options){.chunk = 8}, &low, &f->diag));
    const qgc_phase *p = &low.plan->phases[QGC_PHASE_DECODE];
    qgc_bench b = {
        .model = model, .device = "A card", .arch = "sm_90a", .bandwidth = 1e12, .kernel_position = 512};
    b.parts = qgc_arena_array(f->arena, p->n_launches + 1, sizeof *b.parts);
    for (size_t i = 0; i < p->n_launches; i++) {
        const char *node = qgc_bench_node(&p->launches[i], f->arena);
        const char *kernel = qgc_bench_file(low.plan, &p->launches[i]);
        size_t k = 0;
        while (k < b.n_parts &&
               (strcmp(b.parts[k].node, node) != 0 || strcmp(b.parts[k].kernel, kernel) != 0))
            k++;
        b.n_parts += k == b.n_parts;
        b.parts[k] = (qgc_bench_kernel){
            QGC_MODE_GRAPH, node, kernel, b.parts[k].count + 1, b.parts[k].us + 1 + (double)k, 1000000};
    }
    b.parts[b.n_parts++] = (qgc_bench_kernel){QGC_MODE_PERSISTENT, "persistent", "persistent.cu", 1, 99, 0};
    qgc_str text = qgc_str_new(f->arena);
    ok(f, qgc_bench_json(&b, &text, &f->diag));
    return qgc_test_write(f->arena, f->folder, "bench.json", text.text, text.bytes);
}

static void times_stand_beside_the_kernels(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    qgc_view *v = view_of(f, g, PASSES, 1);
    ok(f, qgc_view_read_times(v, g, bench_file(f, PASSES, "tiny"), &f->diag));
    const char *page = html(f, v);
    check_page(f, page);
    /* Launches are qkv, a_parts, out, mlp, out_2, ...: the first takes 1 us. */
    const char *last = drawing(f, page, "fuse-pointwise", "layer");
    assert_int_equal(count(last, "class=\"time\""), 5);
    has(piece(f, last, "data-node=\"kernel qkv[1]\"", "</g>"), ">1.00 \xc2\xb5s</text>");
    has(piece(f, last, "data-node=\"a_parts[1]\"", "</g>"), ">2.00 \xc2\xb5s</text>");
    has(piece(f, last, "data-node=\"kernel out_2[1]\"", "</g>"), ">5.00 \xc2\xb5s</text>");
    lacks(drawing(f, page, "fuse-merge-linear", "layer"), "class=\"time\"");
    has(detail(f, page, "fuse-pointwise", "q[1]"), "<b>1.00 \xc2\xb5s</b> in <code>linear_heads.cu</code>");
    const char *table = piece(f, page, "<table class=\"kernels\">", "</table>");
    has(table,
        "<td><code>mlp</code></td><td><code>linear.cu</code></td><td>4</td><td>4.00 \xc2\xb5s</td><td>16.0 \xc2\xb5s</td>");
    lacks(table, "persistent");
}

static void want_error(fixture *f, const char *passes, const char *file, const char *message,
                       const char *hint) {
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    qgc_view *v = view_of(f, g, passes, 1);
    f->diag = qgc_diag_new(f->arena);
    assert_int_equal(qgc_view_read_times(v, g, file, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &f->diag),
                        qgc_arena_printf(f->arena, "%s: error: %s\n%s", file, message, hint));
    f->diag = qgc_diag_new(f->arena);
}

static const char *write(fixture *f, const char *text) {
    return fixture_write(f, "bench.json", text);
}

static void times_of_something_else_are_refused(void **state) {
    fixture *f = *state;
    const char *hint = "  hint: Give qgc bench and qgc view the same --passes, --skip and --weights.\n";
    want_error(f, PASSES, bench_file(f, PASSES, "toy"),
               "has times of model \"toy\", and the graph is \"tiny\"", "");
    want_error(f, "", bench_file(f, PASSES, "tiny"),
               "does not have all kernels of the graph: kernel \"x\" (embedding.cu)", hint);
    want_error(f, "fuse-swiglu", bench_file(f, "fuse-swiglu,fuse-qkv", "tiny"),
               "does not have all kernels of the graph: kernel \"q\" (linear.cu)", hint);
    qgc_source file;
    ok(f, qgc_file_read(&file, bench_file(f, PASSES, "tiny"), 1 << 20, "file", &f->diag));
    char *four = strstr(file.text, "\"count\": 4,");
    assert_non_null(four);
    *strchr(four, '4') = '5';
    want_error(f, PASSES, write(f, file.text),
               "has 5 launches where the graph has 4: kernel \"qkv\" (linear_heads.cu)", hint);
}

static void what_is_no_bench_file_is_refused(void **state) {
    fixture *f = *state;
    const char *hint = "  hint: qgc bench GRAPH.yaml --json=FILE writes one.\n";
    want_error(f, PASSES, write(f, "{\"model\":\n}"),
               "is no file of qgc bench: line 2 is no JSON: unexpected token near '}'", hint);
    want_error(f, PASSES, write(f, "[1, 2]"),
               "is no file of qgc bench: it names no model, device and kernels", hint);
    want_error(
        f, NULL,
        write(
            f,
            "{\"model\": \"tiny\", \"device\": \"x\", \"kernels\": [{\"mode\": \"graph\", \"name\": \"q\"}]}"),
        "is no file of qgc bench: kernels[0] lacks a number", hint);
    want_error(f, PASSES, write(f, "{\"model\": \"tiny\", \"device\": \"x\", \"kernels\": []}"),
               "has no times of kernels",
               "  hint: qgc bench --mode graph writes them, unless --no-kernels is given.\n");
    want_error(f, PASSES, "no/such.json", "could not open bench file: No such file or directory", "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(is_one_file_of_well_formed_html),
        FIXTURE_TEST(the_same_graph_gives_the_same_page),
        FIXTURE_TEST(each_pass_has_a_stage),
        FIXTURE_TEST(a_pass_that_runs_twice_has_two_stages),
        FIXTURE_TEST(groups_are_framed_from_their_pass_on),
        FIXTURE_TEST(draws_the_layer_that_was_asked_for),
        FIXTURE_TEST(a_node_elsewhere_is_drawn_with_its_kernel),
        FIXTURE_TEST(around_the_layers_they_are_one_box),
        FIXTURE_TEST(says_what_fired_and_what_did_not_and_why),
        FIXTURE_TEST(a_node_tells_all_that_there_is_to_know),
        FIXTURE_TEST(everything_is_escaped),
        FIXTURE_TEST(what_is_not_utf_8_is_replaced),
        FIXTURE_TEST(long_names_are_cut),
        FIXTURE_TEST(a_graph_without_layers_is_one_drawing),
        FIXTURE_TEST(no_such_layer_is_an_error),
        FIXTURE_TEST(times_stand_beside_the_kernels),
        FIXTURE_TEST(times_of_something_else_are_refused),
        FIXTURE_TEST(what_is_no_bench_file_is_refused),
    };
    return cmocka_run_group_tests_name("lab/view", tests, NULL, NULL);
}
