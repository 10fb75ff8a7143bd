/* docs/passes.md, "Kernels from outside" and "... in persistent mode": their blocks are a kernel, a plug-in and commands, which are
 * followed here; then the same kernels with faults, each of which is found before the kernel is used. */

#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/plugin.h"

static const char page[] = "\n## Kernels from outside\n",
                  second_page[] = "\n## Kernels from outside in persistent mode\n";

/* The first block of a language after a heading. */
static const char *block_of(fixture *f, const char *heading, const char *language) {
    qgc_file file;
    ok(f, qgc_file_open(&file, "docs/passes.md", &f->diag));
    const char *text = qgc_arena_strndup(f->arena, (const char *)file.data, file.bytes);
    qgc_file_close(&file);
    const char *fence = qgc_arena_printf(f->arena, "```%s\n", language);
    const char *at = strstr(text, heading);
    at = at ? strstr(at, fence) : NULL;
    assert_non_null(at);
    at += strlen(fence);
    const char *end = strstr(at, "```\n");
    assert_non_null(end);
    return qgc_arena_strndup(f->arena, at, (size_t)(end - at));
}

static const char *block(fixture *f, const char *language) {
    return block_of(f, page, language);
}

/* What is proved once is not proved again, so each test has a cache of its own. */
static void use_own_cache(fixture *f) {
    assert_int_equal(setenv("XDG_CACHE_HOME", f->folder, 1), 0);
}

static void write_page(fixture *f) {
    use_own_cache(f);
    fixture_write(f, "online_attention.cu", block(f, "cuda"));
    fixture_write(f, "online.c", block(f, "c"));
}

/* `text` with the first `old` replaced, which has to be there. */
static const char *with(fixture *f, const char *text, const char *old, const char *now) {
    const char *at = strstr(text, old);
    if (!at)
        fail_msg("\"%s\" is not there to be replaced", old);
    return qgc_arena_printf(f->arena, "%.*s%s%s", (int)(at - text), text, now, at + strlen(old));
}

static const char *all_with(fixture *f, const char *text, const char *old, const char *now) {
    qgc_str out = qgc_str_new(f->arena);
    for (const char *at; (at = strstr(text, old)); text = at + strlen(old)) {
        qgc_str_add_bytes(&out, text, (size_t)(at - text));
        qgc_str_add(&out, now);
    }
    qgc_str_add(&out, text);
    return out.text;
}

static bool has(const char *text, const char *part) {
    return strstr(text, part) != NULL;
}

/* The commands of a page, which have to succeed; what they print. */
static const char *follow(fixture *f, const char *heading) {
    const char *commands = block_of(f, heading, "sh");
    commands = all_with(f, commands, "-I QGC", "-I '" QGC_SOURCE_DIR "'");
    commands = all_with(f, commands, "cc -std", "'" QGC_CC "' -std");
    commands = all_with(f, commands, "qgc compile", "'" QGC_COMMAND "' compile");
    const char *const names[] = {"inspect", "bisect", "ablate"};
    for (int i = 0; i < 3; i++)
        commands = all_with(f, commands, qgc_arena_printf(f->arena, "\nqgc %s", names[i]),
                            qgc_arena_printf(f->arena, "\n'" QGC_COMMAND "' %s", names[i]));
    const char *script =
        fixture_write(f, "page.sh",
                      qgc_arena_printf(f->arena, "set -e\ncd '%s'\nln -s '" QGC_SOURCE_DIR "/models'\n%s",
                                       f->folder, commands));
    const char *text = qgc_test_shell(f->arena, qgc_arena_printf(f->arena, "sh '%s'", script), 0);
    assert_false(has(text, "not checked"));
    assert_true(has(text, "equal: bit for bit"));
    assert_false(has(text, "wrong"));
    return text;
}

static void the_page_is_followed(void **state) {
    fixture *f = *state;
    write_page(f);
    const char *said = follow(f, page);
    assert_true(has(said, "early attend[3]"));
    assert_true(has(said, "outside/online_attention.cu"));
    assert_true(has(said, "which has no phase in the kernel: its row gives no device function"));
}

static void write_second_page(fixture *f) {
    use_own_cache(f);
    fixture_write(f, "row_norm.cu", block_of(f, second_page, "cuda"));
    fixture_write(f, "row_norm.c", block_of(f, second_page, "c"));
}

static void the_page_of_persistent_mode_is_followed(void **state) {
    fixture *f = *state;
    write_second_page(f);
    const char *said = follow(f, second_page);
    assert_true(has(said, "outside/row_norm_as_phase.cu"));
    assert_true(has(said, "persistent.cu"));
    assert_false(has(said, "has no phase"));
}

static const char tiny[] = "models/tiny/tiny.yaml --weights models/tiny/tiny.gguf";

static const char *passes_of(fixture *f, const char *plugin) {
    return qgc_arena_printf(f->arena, "--load-pass '%s' --passes fuse-qkv,online-attention,fuse-swiglu",
                            plugin);
}

static const char *compile_page(fixture *f) {
    write_page(f);
    return plugin_compile(f, "online", block(f, "c"));
}

/* Compiled anew from the artifact without the plug-in, and run. */
static void the_artifact_needs_no_plug_in(void **state) {
    fixture *f = *state;
    const char *plugin = compile_page(f), *one = fixture_path(f, "one.qgc"),
               *two = fixture_path(f, "two.qgc");
    qgc_test_output(f->arena,
                    qgc_arena_printf(f->arena, "compile %s %s -o '%s'", tiny, passes_of(f, plugin), one), 0);
    qgc_test_output(f->arena, qgc_arena_printf(f->arena, "compile '%s' --arch sm_80 -o '%s'", one, two), 0);
    assert_true(has(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "inspect '%s'", two), 0),
                    "outside/online_attention.cu"));
    const char *plain = qgc_test_output(
        f->arena, qgc_arena_printf(f->arena, "run %s --device cpu -q --seed 1 -n 8 -p 'Once upon'", tiny), 0);
    assert_string_equal(
        qgc_test_output(
            f->arena,
            qgc_arena_printf(f->arena, "run '%s' --device cpu -q --seed 1 -n 8 -p 'Once upon'", two), 0),
        plain);
}

/* A model file's text is not run on the CPU, and the artifact says so. */
static void what_a_file_brings_is_not_run(void **state) {
    fixture *f = *state;
    const char *plugin = compile_page(f), *graph = fixture_path(f, "graph.yaml"),
               *out = fixture_path(f, "x.qgc");
    qgc_test_output(
        f->arena,
        qgc_arena_printf(f->arena, "dump models/tiny/tiny.yaml %s -q > '%s'", passes_of(f, plugin), graph),
        0);
    qgc_test_output(f->arena, qgc_arena_printf(f->arena, "compile '%s' -o '%s'", graph, out), 0);
    assert_true(has(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "inspect '%s'", out), 0),
                    "not checked on a CPU: a file brings it, and what files bring is not run on the CPU"));
}

typedef struct {
    const char *what, *old, *now, *says;
} planted;

#ifndef EVERY /* of so many faults one; more where a sanitizer makes them slow */
#define EVERY 1
#endif

static const planted faults[] = {
    {"a wrong number", "lane] * SCALE", "lane] * (SCALE * 1.001f)", "\"a\" is"},
    {"a position too few", "i <= p[token]", "i < p[token] + (p[token] == 0)", "\"a\" is"},
    {"not after 4,000 positions", "i <= p[token]", "i <= p[token] % 4001", "\"a\" is"},
    {"not for a hundred tokens", "query[e] = q[from", "query[e] = q[(token < 100 ? from : 0)", "\"a\" is"},
    {"no cap on a sum", "keep = expf(most - now)", "keep = 1.0f", "\"a\" is"},
    {"another head's cache", "head / (HEADS / KV_HEADS)", "head % KV_HEADS", "\"a\" is"},
    {"writes outside", "a[from + d] = value", "a[from + d + (head == HEADS - 1)] = value",
     "writes where it must not"},
    {"writes an operand", "a[from + d] = value", "((float *)q)[from + d] = a[from + d] = value",
     "writes where it must not"},
    {"does not wait", "    wait_for_previous();", "    if (HEAD_DIM > 256)\n        wait_for_previous();",
     "without having waited"},
    {"reads before it waits", "    wait_for_previous();\n    const int lane",
     "    const i32 seen = p[blockIdx.y];\n    wait_for_previous();\n    p = &seen - blockIdx.y;\n    const int lane",
     "kernel"},
    {"writes before it waits", "    wait_for_previous();",
     "    if (threadIdx.x == 0)\n        a[0] = 0.0f;\n    __syncthreads();\n    wait_for_previous();",
     "writes before it waits"},
    {"other bits in another order", "    __syncthreads();\n    for (int d", "    for (int d", "other bits"},
    {"a barrier that not all reach", "    if (lane == 0)\n        largest",
     "    if (warp == 0)\n        __syncthreads();\n    if (lane == 0)\n        largest",
     "breaks a rule of CUDA"},
    {"crashes", "a[from + d] = value", "*(float *)(size_t)(d + 1) = value", "it crashes"},
};

/* The command fails before a kernel is compiled for a GPU, and bisect names pass and change. */
static void planted_faults_are_found(void **state) {
    fixture *f = *state;
    const char *plugin = compile_page(f), *text = block(f, "cuda");
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i += EVERY) {
        const planted *p = &faults[i];
        fixture_write(f, "online_attention.cu", with(f, text, p->old, p->now));
        int status;
        const char *said = qgc_test_run(
            f->arena, qgc_arena_printf(f->arena, "bisect %s %s --device cpu", tiny, passes_of(f, plugin)),
            &status);
        if (status != 1 || !has(said, "pass    online-attention") || !has(said, "change  1 of 4") ||
            !has(said, p->says) ||
            !has(said, "kernel \"online_attention\" does not compute stage \"attend[0]\""))
            fail_msg("%s: %s", p->what, said);
        said = qgc_test_output(f->arena,
                               qgc_arena_printf(f->arena, "compile %s %s -o '%s'", tiny, passes_of(f, plugin),
                                                fixture_path(f, "bad.qgc")),
                               1);
        if (!has(said, p->says))
            fail_msg("%s: %s", p->what, said);
    }
    assert_false(qgc_file_exists(fixture_path(f, "bad.qgc")));
}

static const planted faults_of_a_function[] = {
    {"a wrong number in the last piece", "n[e] = x[64 * piece + e] * scale",
     "n[e] = x[64 * piece + e] * (piece == WIDTH / 64 - 1 ? scale * 1.001f : scale)", "\"n\" is"},
    {"the last rows of a piece", "e < 64; e += 32)\n        n[e]", "e < 62; e += 32)\n        n[e]",
     "\"n\" is"},
    {"writes after its piece", "e < 64; e += 32)\n        n[e]", "e < 96; e += 32)\n        n[e]",
     "\"n\" is nan"},
    {"writes what it reads", "n[e] = x[64 * piece + e] * scale",
     "n[e] = ((float *)x)[64 * piece + e] *= scale", "other bits"},
    {"a barrier of the block", "    const float scale = scale_of(warp_sum(squares));",
     "    __syncthreads();\n    const float scale = scale_of(warp_sum(squares));",
     "it uses __syncthreads, which belongs to a block"},
};

/* In graph mode, too, where the function is not used. */
static void faults_of_a_device_function_are_found(void **state) {
    fixture *f = *state;
    write_second_page(f);
    const char *plugin = plugin_compile(f, "row_norm", block_of(f, second_page, "c")),
               *text = block_of(f, second_page, "cuda");
    const char *command = qgc_arena_printf(
        f->arena, "bisect %s --load-pass '%s' --passes fuse-qkv,row-norm --device cpu", tiny, plugin);
    for (size_t i = 0; i < sizeof faults_of_a_function / sizeof *faults_of_a_function; i += EVERY) {
        const planted *p = &faults_of_a_function[i];
        const char *at = strstr(text, "__device__ void row_norm_phase");
        fixture_write(
            f, "row_norm.cu",
            qgc_arena_printf(f->arena, "%.*s%s", (int)(at - text), text, with(f, at, p->old, p->now)));
        const char *said = qgc_test_output(f->arena, command, 1);
        if (!has(said, "pass    row-norm") || !has(said, "change  1 of") || !has(said, p->says) ||
            !has(said, "the device function of kernel \"row_norm\" does not compute stage \"normed"))
            fail_msg("%s: %s", p->what, said);
    }
}

static void the_laboratory_judges_by_it(void **state) {
    fixture *f = *state;
    const char *plugin = compile_page(f), *text = block(f, "cuda");
    fixture_write(f, "online_attention.cu", with(f, text, "lane] * SCALE", "lane] * (SCALE * 1.001f)"));
    const char *said = qgc_test_output(
        f->arena,
        qgc_arena_printf(f->arena, "ablate %s %s --device cpu --steps 4", tiny, passes_of(f, plugin)), 1);
    assert_true(has(said, "pass \"online-attention\" makes a graph that computes something else"));
    said = qgc_test_output(
        f->arena,
        qgc_arena_printf(f->arena,
                         "search %s --device cpu --load-pass '%s' --passes split-sample --most 14 --seed 2",
                         tiny, plugin),
        0);
    assert_true(has(said, "+online-attention"));
    assert_true(has(said, "does not compute stage"));
}

static void a_text_that_is_no_cuda_names_its_line(void **state) {
    fixture *f = *state;
    const char *plugin = compile_page(f);
    fixture_write(f, "online_attention.cu", with(f, block(f, "cuda"), "const float now", "const flat now"));
    const char *said = qgc_test_output(
        f->arena,
        qgc_arena_printf(f->arena, "compile %s %s -o '%s'", tiny, passes_of(f, plugin), fixture_path(f, "x")),
        1);
    assert_true(has(said, "kernels/outside/online_attention.cu:"));
    assert_true(has(said, "identifier \"flat\" is undefined"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_page_is_followed),
        FIXTURE_TEST(the_artifact_needs_no_plug_in),
        FIXTURE_TEST(the_page_of_persistent_mode_is_followed),
        FIXTURE_TEST(faults_of_a_device_function_are_found),
        FIXTURE_TEST(what_a_file_brings_is_not_run),
        FIXTURE_TEST(planted_faults_are_found),
        FIXTURE_TEST(the_laboratory_judges_by_it),
        FIXTURE_TEST(a_text_that_is_no_cuda_names_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
