#include <stdlib.h>
#include <string.h>

#include "codegen/artifact.h"
#include "codegen/card.h"
#include "codegen/nvrtc.h"
#include "codegen/tuning.h"
#include "graph/base/file.h"
#include "graph/base/hash.h"
#include "runtime/engine/build.h"
#include "runtime/engine/engine_impl.h"
#include "runtime/engine/receipt.h"
#include "runtime/engine/retarget.h"
#include "runtime/engine/sequence.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_device.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"
#include "tests/support/text.h"

/* Artifacts compiled again for another architecture, by hand and by an engine on a fake device: it takes every image
 * and runs none. */

static const char graph[] = "models/tiny/tiny.yaml", weights[] = "models/tiny/tiny.gguf";

static struct {
    qgc_arena *arena;
    qgc_diag diag;
    const char *folder, *cache, *old; /* an artifact for sm_80 */
    qgc_str notes;
    uint64_t images; /* a sum over those that were loaded */
    int n_images;
} f;

static void ok(qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f.arena, &f.diag));
}

static const char *build(const char *from, const char *name, const char *const *archs, int n_archs) {
    const char *path = qgc_test_path(f.arena, f.folder, name);
    const qgc_build_options o = {.graph = from,
                                 .output = path,
                                 .weights = from == graph ? weights : NULL,
                                 .archs = archs,
                                 .n_archs = n_archs,
                                 .chunk = from == graph ? 64 : 0,
                                 .cache_folder = f.cache};
    qgc_built built;
    ok(qgc_build(&o, &built, &f.diag));
    return path;
}

static const qgc_plan *read(const char *path, qgc_file *file) {
    qgc_plan *plan;
    ok(qgc_file_open(file, path, &f.diag));
    ok(qgc_artifact_unpack(&plan, file->data, file->bytes, (qgc_loc){.source = &file->source}, &f.diag));
    return plan;
}

/* --- by hand --------------------------------------------------------------------------------------------- */

static void an_artifact_for_another_arch_is_that_of_the_yaml(void **state) {
    (void)state;
    static const char *const sets[][2] = {{"sm_90a", "compute_75"}, {"sm_89", NULL}, {"compute_80", NULL}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const int n = sets[i][1] ? 2 : 1;
        qgc_file again, direct;
        read(build(f.old, "again.qgc", sets[i], n), &again);
        read(build(graph, "direct.qgc", sets[i], n), &direct);
        assert_int_equal(again.bytes, direct.bytes);
        assert_memory_equal(again.data, direct.data, again.bytes);
        qgc_file_close(&again);
        qgc_file_close(&direct);
    }
}

static void an_artifact_may_take_its_own_place(void **state) {
    (void)state;
    const char *const arch = "sm_90a";
    const char *path = build(graph, "own.qgc", (const char *const[]){"sm_80"}, 1);
    assert_string_equal(build(path, "own.qgc", &arch, 1), path);
    qgc_file file;
    const qgc_plan *plan = read(path, &file);
    assert_string_equal(plan->archs[0], "sm_90a");
    assert_int_equal(plan->chunk, 64);
    assert_non_null(strstr(plan->weights_path, weights));
    qgc_file_close(&file);
}

/* --- by an engine ---------------------------------------------------------------------------------------- */

static const fake_kernel any = {.entry = "any", .signature = ""};

static const fake_kernel *take(qgc_device *dev, const char *image, size_t bytes) {
    (void)dev;
    f.images += qgc_hash64(image, bytes);
    f.n_images++;
    return &any;
}

static qgc_status do_nothing(qgc_device *dev, const fake_kernel *k, const qgc_launch *l, qgc_diag *d) {
    (void)dev, (void)k, (void)l, (void)d;
    return QGC_OK;
}

static void hear(void *context, const char *line) {
    (void)context;
    qgc_str_printf(&f.notes, "%s\n", line);
}

static qgc_status open_engine(qgc_engine **e, const char *path, qgc_engine_options o, qgc_diag *d) {
    qgc_str_clear(&f.notes);
    f.images = 0;
    f.n_images = 0;
    o.path = path;
    o.weights = weights;
    o.device = "gpu";
    o.cache_folder = f.cache;
    o.listener.note = hear;
    return qgc_engine_open(e, &o, d);
}

static void an_engine_compiles_for_the_card_that_is_there(void **state) {
    (void)state;
    qgc_engine *e;
    const char *const archs[] = {"sm_90a"};
    const char *direct = build(graph, "direct.qgc", archs, 1);
    ok(open_engine(&e, direct, (qgc_engine_options){0}, &f.diag));
    qgc_engine_close(e);
    const uint64_t want = f.images;
    const int n = f.n_images;
    assert_null(strstr(f.notes.text, "no image"));
    ok(open_engine(&e, f.old, (qgc_engine_options){0}, &f.diag));
    assert_true(n > 20);
    assert_int_equal(f.n_images, n);
    assert_int_equal(f.images, want);
    has(f.notes.text, "no image of ");
    has(f.notes.text, "old.qgc runs on Fake GPU: its graph is compiled for sm_90a (qgc compile ");
    assert_string_equal(qgc_engine_device(e), "Fake GPU, sm_90a");
    qgc_engine_close(e);
}

static void where_an_image_runs_nothing_is_compiled(void **state) {
    (void)state;
    qgc_engine *e;
    const char *const archs[] = {"sm_80", "compute_75"};
    ok(open_engine(&e, build(graph, "ptx.qgc", archs, 2), (qgc_engine_options){.nvrtc_library = "/nowhere"},
                   &f.diag));
    has(f.notes.text, "image compute_75 runs on Fake GPU (sm_90): PTX, compiled by the driver\n");
    qgc_engine_close(e);
}

static void nothing_is_compiled_where_an_image_is_asked_for_or_there_is_no_compiler(void **state) {
    (void)state;
    const qgc_engine_options cases[] = {{.arch = "sm_80"}, {.nvrtc_library = "/nowhere/libnvrtc.so"}};
    const char *const messages[] = {"the image for \"sm_80\" does not run on Fake GPU, which is sm_90",
                                    "no image of \"tiny\" runs on Fake GPU, which is sm_90; there is sm_80"};
    for (int i = 0; i < 2; i++) {
        qgc_engine *e;
        qgc_diag d = qgc_diag_new(f.arena);
        assert_int_equal(open_engine(&e, f.old, cases[i], &d), QGC_ERR_INPUT);
        assert_string_equal(qgc_diag_message(&d), messages[i]);
        assert_null(strstr(f.notes.text, "its graph is compiled"));
    }
}

/* A card in whose place the GPU stands gets its code too. */
static void a_card_gets_code_of_its_own(void **state) {
    (void)state;
    qgc_engine *e;
    qgc_sequence *s;
    ok(open_engine(&e, f.old, (qgc_engine_options){.card = "t4"}, &f.diag));
    has(f.notes.text, "its graph is compiled for compute_75 ");
    assert_string_equal(qgc_engine_device(e), "Fake GPU as t4, compute_75");
    const qgc_sequence_options o = {.mode = "graph", .sampling = {.top_p = 1, .repeat_penalty = 1}};
    ok(qgc_sequence_new(&s, e, &o, &f.diag));
    has(f.notes.text, "the prompt takes decode steps: Fake GPU as t4 multiplies no bf16 matrices\n");
    const int32_t prompt[] = {1, 2, 3};
    assert_string_equal(qgc_receipt_of(s, prompt, 3, f.diag.arena).prefill,
                        "steps"); /* it multiplies no chunks */
    qgc_sequence_drop(s);
    qgc_engine_close(e);
}

/* What qgc tune has timed on this card decides what auto is, and a note says so; a file that is none does not. */
static void auto_goes_by_times_in_the_cache(void **state) {
    (void)state;
    const char *const archs[] = {"sm_90a"};
    const char *direct = build(graph, "direct.qgc", archs, 1);
    const char *path = qgc_tuning_path(f.cache, "sm_90a", "fake-gpu", f.arena);
    const qgc_sequence_options o = {.sampling = {.top_p = 1, .repeat_penalty = 1}};
    for (int i = 0; i < 3; i++) {
        qgc_engine *e;
        qgc_sequence *s;
        ok(open_engine(&e, direct, (qgc_engine_options){0}, &f.diag));
        qgc_tuning t = qgc_tuning_new("sm_90a", f.arena);
        const char *key = qgc_mode_key(qgc_program_plan(e->program), f.arena);
        for (int m = 0; m < QGC_N_MODES; m++)
            qgc_tuning_set_time(&t, key, qgc_mode_name((qgc_mode)m), m == QGC_MODE_STREAM ? 5000 : 7000 + m);
        if (i == 1)
            ok(qgc_tuning_write(&t, path, &f.diag));
        if (i == 2)
            ok(qgc_file_write(path, "tuning: x\n", 10, &f.diag));
        ok(qgc_sequence_new(&s, e, &o, &f.diag));
        assert_int_equal(strcmp(qgc_sequence_mode(s), "stream") == 0, i == 1);
        assert_int_equal(
            strstr(f.notes.text, "measured by qgc tune, us a step: stream 5.0, graph 7.0") != NULL, i == 1);
        assert_int_equal(strstr(f.notes.text, "times of modes are not used: ") != NULL, i == 2);
        qgc_sequence_drop(s);
        qgc_engine_close(e);
    }
    remove(path);
}

static qgc_device *device(void) {
    qgc_device *dev = fake_device_new(NULL);
    dev->info.sms = QGC_TYPICAL_SMS;
    dev->info.shared_bytes_max = qgc_arch_shared_bytes(90);
    dev->load = take;
    dev->launch = do_nothing;
    dev->quiet = true;
    return dev;
}

static int start(void **state) {
    (void)state;
    f.arena = qgc_arena_new();
    f.diag = qgc_diag_new(f.arena);
    f.folder = qgc_test_folder(f.arena);
    f.cache = qgc_test_cache(qgc_test_path(f.arena, f.folder, "cache"));
    f.notes = qgc_str_new(f.arena);
    fake_device_opened = device;
    f.old = build(graph, "old.qgc", (const char *const[]){"sm_80"}, 1);
    return 0;
}

static int stop(void **state) {
    (void)state;
    fake_device_opened = NULL;
    qgc_test_folder_drop(f.arena, f.folder);
    qgc_arena_drop(f.arena);
    return 0;
}

static bool has_nvrtc(void) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_nvrtc *n;
    const bool there = qgc_nvrtc_open(&n, NULL, &d) == QGC_OK;
    if (there)
        qgc_nvrtc_close(n);
    qgc_arena_drop(a);
    return there;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_artifact_for_another_arch_is_that_of_the_yaml),
        cmocka_unit_test(an_artifact_may_take_its_own_place),
        cmocka_unit_test(an_engine_compiles_for_the_card_that_is_there),
        cmocka_unit_test(where_an_image_runs_nothing_is_compiled),
        cmocka_unit_test(nothing_is_compiled_where_an_image_is_asked_for_or_there_is_no_compiler),
        cmocka_unit_test(a_card_gets_code_of_its_own),
        cmocka_unit_test(auto_goes_by_times_in_the_cache),
    };
    if (!has_nvrtc()) {
        print_message("skipped: no NVRTC\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start, stop);
}
