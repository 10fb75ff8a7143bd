/* Rows of kernels from outside: what they say, which nodes they fit, what a plan and a model file make of them. */

#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "codegen/lower.h"
#include "codegen/outside_phase.h"
#include "codegen/proof.h"
#include "codegen/stage/stage.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "graph/print.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/fixture.h"

/* A norm and silu in one kernel; `fuse` is what the nodes say, `row` what stands in the place of %s. */
static const char graph_text[] =
    "qgc: 2\nname: two\narch: llama\n"
    "kernels:\n  norm_silu:\n%s"
    "    text: [\"extern void norm_silu() { wait_for_previous(); }\"]\n"
    "params:\n  eps: 1e-5\n"
    "weights:\n  embed: {shape: [32, 48], dtype: f32}\n  norm: {shape: [48], dtype: f32}\n"
    "  head: {shape: [32, 48], dtype: f32}\n"
    "inputs:\n  tokens: [T]\n  positions: [T]\n  rows: [R]\n"
    "state:\n  seen: {shape: [32], dtype: i32}\n"
    "graph:\n"
    "  - {op: embedding, in: [tokens, embed], out: x}\n"
    "  - {op: rms_norm, in: [x, norm], eps: eps, out: h, fuse: \"act@norm_silu\"}\n"
    "  - {op: silu, in: [h], out: y, fuse: \"act@norm_silu\"}\n"
    "  - {op: select_rows, in: [y, rows], out: z}\n"
    "  - {op: linear, in: [z, head], out: logits}\n"
    "  - {op: mark, in: [seen, tokens], out: now}\n"
    "  - {op: sample, in: [logits, rows, positions, now], out: next}\n"
    "outputs: [logits, next]\n";

static const char row[] =
    "    nodes: [\"n = rms_norm(x, w)\", \"y = silu(n)\"]\n"
    "    params: [\"x: f32 reads\", \"w: f32 reads early\", \"y: f32 writes\", \"T: i32 = T\"]\n"
    "    options: [WIDTH = x.width, EPS = n.eps, HALF = WIDTH / 2]\n"
    "    limits: [WIDTH % 16 == 0]\n"
    "    grid: [T, x.width by 32]\n"
    "    threads: 2 * 32\n"
    "    starts: [waits]\n";

static const char *with(fixture *f, const char *old, const char *now) {
    const char *at = strstr(row, old);
    assert_non_null(at);
    return qgc_arena_printf(f->arena, "%.*s%s%s", (int)(at - row), row, now, at + strlen(old));
}

static qgc_status load(fixture *f, const char *rows, qgc_graph **g, qgc_diag *d) {
    const char *text = qgc_arena_printf(f->arena, graph_text, rows);
    return qgc_graph_load_text(g, "two.yaml", text, strlen(text), f->arena, d);
}

/* Why the group is computed by no kernel; "" if it is. */
static const char *objection(fixture *f, const char *rows) {
    qgc_graph *g;
    qgc_diag d = qgc_diag_new(f->arena);
    if (load(f, rows, &g, &d) == QGC_OK && qgc_stages_check(g, &d) == QGC_OK)
        return "";
    return qgc_diag_message(&d);
}

static void rows_say_what_is_wrong_with_them(void **state) {
    fixture *f = *state;
    static const char *const wrong[][3] = {
        {"silu(n)", "silo(n)", "unknown op \"silo\""},
        {"silu(n)", "silu(n, x)", "silu has at most 1 inputs"},
        {"silu(n)", "silu(n", "is not understood"},
        {"rms_norm(x, w)", "rms_norm(x, w, eps=many)", "attribute \"eps\" of rms_norm cannot be \"many\""},
        {"rms_norm(x, w)", "rms_norm(x, w, size=1)", "rms_norm has no attribute \"size\""},
        {"y = silu(n)", "n = silu(n)", "\"n\" is made twice"},
        {"w: f32 reads early", "w: f32", "neither reads nor writes"},
        {"w: f32 reads early", "w: f32 eats", "\"eats\" is none of reads, writes and early"},
        {"w: f32 reads early", "w: q8_0 reads", "is of type \"q8_0\", expected f32"},
        {"w: f32 reads early", "w: f32 writes", "writes what no node of the row makes"},
        {"y: f32 writes", "y: f32 reads", "reads a result of the row"},
        {"x: f32 reads", "v: f32 reads", "\"v\" is no name of its nodes"},
        {"\"x: f32 reads\", ", "", "\"x\" comes from outside and is no parameter"},
        {"\"y: f32 writes\", ", "", "it writes nothing"},
        {"WIDTH = x.width", "WIDTH", "an entry is not \\\"NAME = number\\\""},
        {"starts: [waits]", "starts: [sometimes]", "\"sometimes\" is none of"},
        {"starts: [waits]", "starts: [next before]", "does not wait itself"},
        {"starts: [waits]", "steps: decode", "parameter \"w\" is early, and the kernel does not wait"},
        {"starts: [waits]", "starts: [waits]\n    steps: all", "steps are \"all\""},
        {"starts: [waits]", "starts: [waits]\n    arch: new", "arch is \"new\""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *said = objection(f, with(f, wrong[i][0], wrong[i][1]));
        const char *want = strcmp(wrong[i][2], "an entry is not \\\"NAME = number\\\"") == 0
                               ? "an entry is not \"NAME = number\""
                               : wrong[i][2];
        if (!strstr(said, want) || !strstr(said, "kernel \"norm_silu\""))
            fail_msg("%s: %s", wrong[i][1], said);
    }
    assert_string_equal(objection(f, row), "");
}

static void nodes_that_are_not_the_row_s_are_refused(void **state) {
    fixture *f = *state;
    static const char *const wrong[][3] = {
        {"y = silu(n)", "y = sigmoid(n)", "the nodes are not"},
        {"\"n = rms_norm(x, w)\", \"y = silu(n)\"", "\"y = silu(x)\"", "the nodes are not"},
        {"rms_norm(x, w)", "rms_norm(x, w, eps=1)", "the nodes are not"},
        {"WIDTH % 16 == 0", "WIDTH % 32 == 0", "limit \"WIDTH % 32 == 0\" does not hold"},
        {"WIDTH % 16 == 0", "DEPTH == 0", "limit \"DEPTH == 0\" cannot be computed"},
        {"x: f32 reads", "x: f16 reads", "\"x\" is f32, and parameter \"x\" f16"},
        {"y: f32 writes", "n: f32 writes", "\"y\" is read outside of the group, and it does not write \"y\""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *rows = with(f, wrong[i][0], wrong[i][1]);
        if (i == 1) { /* without the norm nobody names w */
            rows = "    nodes: [\"y = silu(x)\"]\n    params: [\"x: f32 reads\", \"y: f32 writes\"]\n"
                   "    grid: [T]\n    threads: 64\n    starts: [waits]\n";
        }
        const char *said = objection(f, rows);
        if (!strstr(said, wrong[i][2]) || !strstr(said, "no kernel computes group \"act\""))
            fail_msg("%s: %s", wrong[i][1], said);
    }
}

static qgc_plan_launch *find_launch(const qgc_plan *p, qgc_phase_kind phase, const char *node) {
    for (size_t i = 0; i < p->phases[phase].n_launches; i++)
        if (strcmp(p->phases[phase].launches[i].node, node) == 0)
            return &p->phases[phase].launches[i];
    return NULL;
}

static void the_launch_is_what_the_row_says(void **state) {
    fixture *f = *state;
    qgc_graph *g;
    qgc_lowered lowered;
    ok(f, load(f, row, &g, &f->diag));
    ok(f, qgc_lower(g, &(qgc_lower_options){.chunk = 8, .least_arch = 90}, &lowered, &f->diag));
    const qgc_plan_launch *l = find_launch(lowered.plan, QGC_PHASE_DECODE, "act");
    assert_non_null(l);
    const qgc_plan_kernel *k = &lowered.plan->kernels[l->kernel];
    assert_string_equal(k->name, "outside/norm_silu.cu");
    assert_string_equal(k->entry, "norm_silu");
    assert_string_equal(k->options, "-DWIDTH=48 -DEPS=1e-05f -DHALF=24");
    assert_string_equal(k->program, "extern void norm_silu() { wait_for_previous(); }\n");
    assert_int_equal(k->threads, 64);
    assert_true(k->waits && k->lets_next == QGC_NEXT_AT_END);
    assert_int_equal(l->grid[0].per_token, 1);
    assert_int_equal(l->grid[1].fixed, 48);
    assert_int_equal(l->per_block[1], 32);
    assert_int_equal(l->n_args, 4);
    assert_int_equal(l->args[0].access, QGC_READS);
    assert_int_equal(l->args[1].access, QGC_READS | QGC_EARLY);
    assert_int_equal(l->args[2].access, QGC_WRITES);
    assert_int_equal(l->args[3].kind, QGC_ARG_I32);
    assert_int_equal(l->args[3].value.per_token, 1);
    assert_null(find_launch(lowered.plan, QGC_PHASE_PREFILL, "act")); /* it is for decode steps */
    assert_non_null(strstr(lowered.plan->not_persistent, "\"act\" is a kernel from outside, \"norm_silu\""));
}

static void prefill_is_one_launch_too_where_the_row_says_so(void **state) {
    fixture *f = *state;
    qgc_graph *g;
    qgc_lowered lowered;
    ok(f, load(f, with(f, "starts:", "steps: decode and prefill\n    starts:"), &g, &f->diag));
    ok(f, qgc_lower(g, &(qgc_lower_options){.chunk = 8}, &lowered, &f->diag));
    assert_non_null(find_launch(lowered.plan, QGC_PHASE_PREFILL, "act"));
}

static void what_no_launch_can_be_made_of_is_refused(void **state) {
    fixture *f = *state;
    static const char *const wrong[][3] = {
        {"HALF = WIDTH / 2", "HALF = WIDTH + T", "option \"WIDTH + T\" depends on T, R or ctx"},
        {"grid: [T,", "grid: [T * T,", "grid \"T * T\" is not a sum of multiples of T, R and ctx"},
        {"x.width by 32", "x.width by 0", "grid \"0\" is 0, expected 1"},
        {"x.width by 32", "x.width / 5", "grid \"x.width / 5\" is not a whole number"},
        {"threads: 2 * 32", "threads: 2048", "threads \"2048\" is 2048, expected 1 to 1024"},
        {"starts: [waits]", "starts: [waits]\n    shared: 1000000", "shared \"1000000\" is 1000000"},
        {"starts: [waits]", "starts: [waits]\n    arch: 100", "needs sm_100, and this is for sm_90"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        qgc_graph *g;
        qgc_lowered lowered;
        qgc_diag d = qgc_diag_new(f->arena);
        ok(f, load(f, with(f, wrong[i][0], wrong[i][1]), &g, &f->diag));
        assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 8, .least_arch = 90}, &lowered, &d),
                         QGC_ERR_INPUT);
        if (!strstr(qgc_diag_message(&d), wrong[i][2]))
            fail_msg("%s: %s", wrong[i][1], qgc_diag_message(&d));
    }
}

static void a_file_holds_its_kernels(void **state) {
    fixture *f = *state;
    qgc_graph *g, *again;
    ok(f, load(f, row, &g, &f->diag));
    qgc_str text = qgc_str_new(f->arena), second = qgc_str_new(f->arena);
    qgc_graph_print_yaml(g, &text);
    assert_non_null(strstr(text.text, "fuse: \"act@norm_silu\""));
    ok(f, qgc_graph_load_text(&again, "again.yaml", text.text, text.bytes, f->arena, &f->diag));
    qgc_graph_print_yaml(again, &second);
    assert_string_equal(second.text, text.text);
    qgc_graph *copy = qgc_graph_clone(g, f->arena);
    qgc_str third = qgc_str_new(f->arena);
    qgc_graph_print_yaml(copy, &third);
    assert_string_equal(third.text, text.text);
    for (qgc_node *n = g->first; n; n = n->next)
        n->group = -1;
    qgc_str none = qgc_str_new(f->arena);
    qgc_graph_print_yaml(g, &none);
    assert_null(strstr(none.text, "kernels:")); /* no group names it */
}

static void files_are_told_of_kernels_that_are_not_there(void **state) {
    fixture *f = *state;
    qgc_graph *g;
    qgc_diag d = qgc_diag_new(f->arena), e = qgc_diag_new(f->arena);
    const char *text = qgc_arena_printf(f->arena, graph_text, row);
    char *other = qgc_arena_strdup(f->arena, text);
    memcpy(strstr(other, "act@norm_silu"), "act@norm_solo", 13);
    assert_int_equal(qgc_graph_load_text(&g, "x", other, strlen(other), f->arena, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "unknown kernel \"norm_solo\"");
    other = qgc_arena_strdup(f->arena, text);
    memcpy(strstr(other, "\"act@norm_silu\"}\n  - {op: select"), "act            ", 15);
    assert_int_equal(qgc_graph_load_text(&g, "x", other, strlen(other), f->arena, &e), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&e), "group \"act\" is of another kernel here");
}

/* --- proofs ---------------------------------------------------------------------------------------------- */

static const char right[] =
    "#include \"common.cuh\"\n"
    "extern \"C\" __global__ void norm_silu(const float *x, const float *w, float *y, i32 tokens) {\n"
    "    wait_for_previous();\n"
    "    if (blockIdx.y)\n        return;\n"
    "    float squares = 0.0f;\n"
    "    for (int i = threadIdx.x; i < WIDTH; i += 64)\n"
    "        squares += x[i] * x[i];\n"
    "    const float scale = 1.0f / sqrtf(block_sum<2>(squares) / WIDTH + EPS);\n"
    "    for (int i = threadIdx.x; i < WIDTH; i += 64) {\n"
    "        const float n = x[i] * scale * w[i];\n"
    "        y[i] = n / (1.0f + expf(-n));\n"
    "    }\n"
    "}\n";

/* A graph whose only kernel has this text. */
static qgc_graph *graph_of(fixture *f, const char *rows, const char *text, bool brought) {
    qgc_graph *g;
    ok(f, load(f, rows, &g, &f->diag));
    qgc_kernel_row *own = qgc_arena_alloc(f->arena, sizeof *own);
    *own = *g->kernels[0];
    own->text = text;
    own->brought = brought;
    for (size_t i = 0; i < g->n_groups; i++)
        g->groups[i].kernel = own;
    g->kernels[0] = own;
    return g;
}

static qgc_proof prove(fixture *f, const char *text, bool brought, int seconds) {
    qgc_proof *proofs;
    int n;
    qgc_graph *g = graph_of(f, row, text, brought);
    ok(f, qgc_proofs_list(g, &proofs, &n, f->arena, &f->diag));
    assert_int_equal(n, 1);
    assert_string_equal(proofs[0].stage, "act");
    ok(f,
       qgc_prove(proofs, n, &(qgc_prove_options){.cache_folder = f->folder, .seconds = seconds}, &f->diag));
    return proofs[0];
}

static const char *replaced(fixture *f, const char *old, const char *now) {
    const char *at = strstr(right, old);
    assert_non_null(at);
    return qgc_arena_printf(f->arena, "%.*s%s%s", (int)(at - right), right, now, at + strlen(old));
}

static void a_right_kernel_is_proved_and_remembered(void **state) {
    fixture *f = *state;
    assert_int_equal(prove(f, right, true, 0).result, QGC_PROVED);
    assert_int_equal(prove(f, right, false, 0).result, QGC_PROVED); /* by the cache: it is not run */
}

static void what_no_plug_in_brings_is_not_run(void **state) {
    const qgc_proof p = prove(*state, right, false, 0);
    assert_int_equal(p.result, QGC_UNPROVED);
    assert_string_equal(p.why, "a file brings it, and what files bring is not run on the CPU");
}

static void what_is_no_c_is_not_proved(void **state) {
    fixture *f = *state;
    const qgc_proof p = prove(f, replaced(f, "const float n", "const __half n"), true, 0);
    assert_int_equal(p.result, QGC_UNPROVED);
    assert_non_null(strstr(p.why, "it does not compile as C++: outside.cu:"));
}

static void wrong_kernels_are_disproved(void **state) {
    fixture *f = *state;
    static const char *const wrong[][3] = {
        {"/ WIDTH + EPS", "/ WIDTH + 1e-6f", "\"y\" is"}, /* another eps */
        {"* w[i]", "* w[0]", "\"y\" is"},
        {"/ WIDTH + EPS", "/ WIDTH + (squares > 0.0f ? EPS : 0.0f)", "\"y\" is nan"}, /* of zeros */
        {"* w[i]", "* w[i] * (x[i] > 90.0f ? 2.0f : 1.0f)", "\"y\" is"},              /* of large numbers */
        {"i < WIDTH; i += 64) {", "i < WIDTH - 1; i += 64) {", "\"y\" is"}, /* the last is not written */
        {"y[i] = n", "if (i == 0)\n            y[WIDTH] = 0.0f;\n        y[i] = n",
         "writes where it must not"},
        {"    wait_for", "    let_next_start();\n    wait_for", "its text lets the next launch start"},
        {"    wait_for_previous();\n", "", "its text does not call wait_for_previous"},
        {"    if (blockIdx.y)\n", "    for (volatile int i = 0; i == 0;)\n        ;\n    if (blockIdx.y)\n",
         "it does not end in 2 seconds"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *text = replaced(f, wrong[i][0], wrong[i][1]);
        if (i == 6 || i == 7) { /* by its row alone */
            qgc_outside_row read;
            qgc_diag d = qgc_diag_new(f->arena);
            qgc_graph *g;
            ok(f, load(f, row, &g, &f->diag));
            qgc_kernel_row own = *g->kernels[0];
            own.text = text;
            assert_int_equal(qgc_outside_read(&own, &read, f->arena, &d), QGC_ERR_INPUT);
            assert_non_null(strstr(qgc_diag_message(&d), wrong[i][2]));
            continue;
        }
        const qgc_proof p = prove(f, text, true, 2);
        if (p.result != QGC_DISPROVED || !strstr(p.why, wrong[i][2]))
            fail_msg("%s: %s", wrong[i][1], p.why ? p.why : "proved");
        assert_int_equal(p.depends_on_time, i == 8);
    }
}

/* --- device functions ------------------------------------------------------------------------------------ */

static const char with_phase[] = "    starts: [waits]\n    phase: 16\n";

/* Why the stage of a graph has no phase; "" if it has one. */
static const char *no_phase(fixture *f, const char *rows, const char *text) {
    qgc_proof *proofs;
    qgc_outside_phase phase;
    const char *why = "";
    qgc_diag d = qgc_diag_new(f->arena);
    int n;
    if (qgc_proofs_list(graph_of(f, rows, text, true), &proofs, &n, f->arena, &d) != QGC_OK)
        return qgc_diag_message(&d);
    const bool has = qgc_outside_phase_of(proofs[0].of, &proofs[0].with, 0, &phase, &why, f->arena);
    assert_int_equal(n, has ? 2 : 1);
    return has ? "" : why;
}

static void a_row_says_whether_it_has_a_phase(void **state) {
    fixture *f = *state;
    static const char text[] = "wait_for_previous() AS_PHASE norm_silu_phase";
    static const char *const rows[][3] = {
        {"starts: [waits]\n", "starts: [waits]\n    phase: 16\n", ""},
        {"starts: [waits]\n", "starts: [waits]\n    phase: WIDTH\n", ""},
        {"starts: [waits]\n", "starts: [waits]\n", "its row gives no device function"},
        {"starts: [waits]\n", "starts: [waits]\n    phase: 32\n", "no multiple of the 32 of a piece"},
        {"starts: [waits]\n", "starts: [waits]\n    phase: 4800\n",
         "a piece of 4800 elements is longer than 2048"},
        {"starts: [waits]\n", "starts: [waits]\n    phase: 0\n", "phase \"0\" is 0, expected 1"},
        {"starts: [waits]\n", "starts: [waits]\n    phase: 16 * T\n",
         "phase \"16 * T\" depends on T, R or ctx"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *said = no_phase(f, with(f, rows[i][0], rows[i][1]), text);
        if (!strstr(said, rows[i][2]) || (!*rows[i][2] && *said))
            fail_msg("%s: %s", rows[i][1], said);
    }
    const char *two = qgc_arena_printf(f->arena, "%s    phase: 16\n",
                                       with(f, "\"y: f32 writes\"", "\"y: f32 writes\", \"n: f32 writes\""));
    assert_string_equal(no_phase(f, two, text), "it writes two values, and a phase publishes one");
    const char *said = no_phase(f, with(f, "    starts: [waits]\n", with_phase), right);
    assert_non_null(strstr(said, "no \"norm_silu_phase\" with AS_PHASE around its entry"));
}

/* What a block would have to keep, it cannot. */
static void a_phase_has_room_in_shared_memory(void **state) {
    fixture *f = *state;
    static const char text[] = "wait_for_previous() AS_PHASE norm_silu_phase";
    char *wide = qgc_arena_printf(f->arena, graph_text, with(f, "    starts: [waits]\n", with_phase));
    qgc_str all = qgc_str_new(f->arena);
    for (const char *at; (at = strstr(wide, "48")); wide = (char *)(uintptr_t)at + 2) {
        qgc_str_add_bytes(&all, wide, (size_t)(at - wide));
        qgc_str_add(&all, "48000");
    }
    qgc_str_add(&all, wide);
    qgc_graph *g;
    ok(f, qgc_graph_load_text(&g, "two.yaml", all.text, all.bytes, f->arena, &f->diag));
    qgc_kernel_row own = *g->kernels[0];
    own.text = text;
    for (size_t i = 0; i < g->n_groups; i++)
        g->groups[i].kernel = &own;
    g->kernels[0] = &own;
    qgc_proof *proofs;
    qgc_outside_phase phase;
    const char *why = "";
    int n;
    ok(f, qgc_proofs_list(g, &proofs, &n, f->arena, &f->diag));
    assert_int_equal(n, 1);
    assert_false(qgc_outside_phase_of(proofs[0].of, &proofs[0].with, 0, &phase, &why, f->arena));
    assert_string_equal(why, "its vectors take 192000 bytes of shared memory, more than 163840");
}

static void a_device_function_is_proved_too(void **state) {
    fixture *f = *state;
    static const char function[] =
        "__device__ void norm_silu_phase(int piece, int lane, const float *x, const float *w, float *y, i32 tokens) {\n"
        "    float squares = 0.0f;\n"
        "    for (int i = lane; i < WIDTH; i += 32)\n        squares += x[i] * x[i];\n"
        "    const float scale = 1.0f / sqrtf(warp_sum(squares) / WIDTH + EPS);\n"
        "    for (int i = lane; i < 16 * tokens; i += 32) {\n"
        "        const float n = x[16 * piece + i] * scale * w[16 * piece + i];\n"
        "        y[i] = n / (1.0f + expf(-n));\n    }\n}\n";
    static const char *const faults[][3] = {
        {"", "", NULL},
        {"i < 16 * tokens", "i < 16 * tokens - (piece == 2)", "\"y\" is nan and not"},
        {"y[i] = n", "y[i + (i == 15)] = n", "\"y\" is nan and not"},
        {"x[16 * piece + i] * scale", "x[16 * piece + i + (piece == 2)] * scale", "\"y\" is"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        const char *at = strstr(function, faults[i][0]);
        const char *entry = strstr(right, "extern");
        const char *text = qgc_arena_printf(f->arena, "%.*s#ifndef AS_PHASE\n%s#endif\n%.*s%s%s",
                                            (int)(entry - right), right, entry, (int)(at - function),
                                            function, faults[i][1], at + strlen(faults[i][0]));
        qgc_proof *proofs;
        int n;
        ok(f, qgc_proofs_list(graph_of(f, with(f, "    starts: [waits]\n", with_phase), text, true), &proofs,
                              &n, f->arena, &f->diag));
        assert_int_equal(n, 2);
        ok(f, qgc_prove(proofs, n, &(qgc_prove_options){.cache_folder = f->folder}, &f->diag));
        assert_int_equal(proofs[0].result, QGC_PROVED);
        assert_int_equal(proofs[1].result, faults[i][2] ? QGC_DISPROVED : QGC_PROVED);
        if (faults[i][2])
            assert_non_null(strstr(qgc_proof_text(&proofs[1], f->arena), faults[i][2]));
    }
}

/* Options of the persistent step are macros of its whole file, in which the device function stands: of 16-bit weights, of weights in blocks,
 * of a small ring, and of probes. A number of that name in the function is its own. */
static void no_option_of_the_step_reaches_a_device_function(void **state) {
    fixture *f = *state;
    static const char text[] = "wait_for_previous() AS_PHASE norm_silu_phase";
    qgc_proof *proofs;
    int n;
    ok(f, qgc_proofs_list(graph_of(f, with(f, "    starts: [waits]\n", with_phase), text, true), &proofs, &n,
                          f->arena, &f->diag));
    const char *space = qgc_outside_phase_space(proofs[0].of, &proofs[0].with, "their", f->arena);
    const char *blocks = small_with_dtype(f->arena, small_qwen2, "w1", "q8_0");
    static const unsigned probes[] = {0, QGC_PROBE_TRACE, QGC_PROBE_NO_STREAM, QGC_PROBE_NO_WAITS};
    const qgc_card small = {.sms = 132, .shared_bytes = 101376};
    int options = 0;
    for (size_t i = 0; i < 2 * sizeof probes / sizeof *probes; i++) {
        const char *yaml = i % 2 ? blocks : small_qwen2;
        qgc_graph *g;
        qgc_lowered out;
        ok(f, qgc_graph_load_text(&g, "small.yaml", yaml, strlen(yaml), f->arena, &f->diag));
        ok(f, qgc_lower(
                  g, &(qgc_lower_options){.chunk = 32, .probe = probes[i / 2], .card = i / 2 ? NULL : &small},
                  &out, &f->diag));
        const qgc_plan_launch *step = &out.plan->phases[QGC_PHASE_PERSISTENT].launches[0];
        for (const char *at = out.plan->kernels[step->kernel].options; (at = strstr(at, "-D")) != NULL;
             at += 2) {
            const char *undef =
                qgc_arena_printf(f->arena, "#undef %.*s\n", (int)strcspn(at + 2, "="), at + 2);
            if (!strstr(space, undef))
                fail_msg("no %s", undef);
            options++;
        }
    }
    assert_true(options > 8 * 10);
}

/* Proofs are made in folders of this process. */
static void nothing_stays_in_tmp(void **state) {
    fixture *f = *state;
    const char *prefix = qgc_arena_printf(f->arena, "qgc-kernel-%d-", (int)getpid());
    DIR *d = opendir("/tmp");
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));)
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0)
            fail_msg("/tmp/%s is left", e->d_name);
    closedir(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(rows_say_what_is_wrong_with_them),
        FIXTURE_TEST(nodes_that_are_not_the_row_s_are_refused),
        FIXTURE_TEST(the_launch_is_what_the_row_says),
        FIXTURE_TEST(prefill_is_one_launch_too_where_the_row_says_so),
        FIXTURE_TEST(what_no_launch_can_be_made_of_is_refused),
        FIXTURE_TEST(a_file_holds_its_kernels),
        FIXTURE_TEST(files_are_told_of_kernels_that_are_not_there),
        FIXTURE_TEST(a_right_kernel_is_proved_and_remembered),
        FIXTURE_TEST(what_no_plug_in_brings_is_not_run),
        FIXTURE_TEST(what_is_no_c_is_not_proved),
        FIXTURE_TEST(wrong_kernels_are_disproved),
        FIXTURE_TEST(a_row_says_whether_it_has_a_phase),
        FIXTURE_TEST(a_phase_has_room_in_shared_memory),
        FIXTURE_TEST(a_device_function_is_proved_too),
        FIXTURE_TEST(no_option_of_the_step_reaches_a_device_function),
        FIXTURE_TEST(nothing_stays_in_tmp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
