/* qgc inspect: what it prints of an artifact. */

#include <string.h>

#include "codegen/artifact.h"
#include "graph/base/str.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/folder.h"
#include "tests/support/small_plan.h"
#include "tests/support/text.h"

typedef struct {
    qgc_arena *arena;
    const char *folder;
    qgc_plan *plan;
} fixture;

/* The small plan, with a decode step in which one launch starts early and one may not. */
static int setup(void **state) {
    qgc_arena *a = qgc_arena_new();
    fixture *f = qgc_arena_alloc(a, sizeof *f);
    *f = (fixture){a, qgc_test_folder(a), small_plan(a)};
    qgc_phase *decode = &f->plan->phases[QGC_PHASE_DECODE];
    const qgc_plan_launch embed = decode->launches[0], product = decode->launches[1];
    decode->launches = qgc_arena_array(a, 3, sizeof *decode->launches);
    decode->n_launches = 3;
    decode->launches[0] = decode->launches[1] = embed;
    decode->launches[1].node = "embedding again";
    decode->launches[1].early = true;
    decode->launches[1].not_early = NULL;
    decode->launches[2] = product;
    decode->launches[2].not_early = "it is a product of cuBLAS, whose kernels do not wait";
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return 0;
}

/* `qgc COMMAND small.qgc`. */
static const char *call(fixture *f, const char *command, int want) {
    const void *data;
    size_t bytes;
    qgc_artifact_pack(f->plan, f->arena, &data, &bytes);
    const char *path = qgc_test_write(f->arena, f->folder, "small.qgc", data, bytes);
    return qgc_test_output(f->arena, qgc_arena_printf(f->arena, "%s '%s'", command, path), want);
}

static const char *inspect(fixture *f, const char *options) {
    return call(f, qgc_arena_printf(f->arena, "inspect %s", options), 0);
}

static void derived_weights_are_listed(void **state) {
    fixture *f = *state;
    assert_null(strstr(inspect(f, ""), "derived"));
    const qgc_plan_weight *head = &f->plan->weights[0];
    qgc_plan_weight w = {.label = "twice", .tied = -1, .rank = 2, .storage = QGC_BF16};
    memcpy(w.shape, head->shape, sizeof w.shape);
    w.derived = (qgc_derivation){.kind = QGC_DERIVE_SCALE, .n_from = 1, .from = {0}, .factor = 2};
    qgc_plan_weight *all = qgc_arena_array(f->arena, f->plan->n_weights + 1, sizeof *all);
    memcpy(all, f->plan->weights, f->plan->n_weights * sizeof *all);
    all[f->plan->n_weights++] = w;
    f->plan->weights = all;
    has(inspect(f, ""), "derived    twice = scale(head, 2): bf16 [8, 4]\n");
    const char *json = strstr(inspect(f, "--json"), "\"derived\": {\n");
    assert_non_null(json);
    has(json, "\"twice\": {\n");
    has(json, "\"op\": \"scale\"");
}

static void the_summary_counts_early_launches(void **state) {
    fixture *f = *state;
    has(inspect(f, ""),
        "init       1 launches\n"
        "prefill    2 launches\n"
        "decode     3 launches, 1 of them early, but not on sm_80\n"
        "pack       0 launches\n"
        "persistent 0 launches: too small\n"
        "modes      sm_90a: stream, graph, pdl\n"
        "             not persistent: too small\n"
        "           sm_80: stream, graph\n"
        "             not pdl: image sm_80 has no programmatic dependent launch, which sm_90 has\n"
        "             not persistent: too small\n");
    f->plan->phases[QGC_PHASE_DECODE].launches[1].early = false;
    has(inspect(f, ""), "decode     3 launches, none of them early\n");
    has(inspect(f, ""), "             not pdl: no launch of a decode step may start early\n");
}

/* A step of one large kernel, for cards that are too old, have too little shared memory, and can run it. */
static void the_summary_says_which_architectures_can_be_persistent(void **state) {
    fixture *f = *state;
    qgc_plan *p = f->plan;
    p->archs[0] = "sm_120a";
    p->archs[1] = "sm_75";
    p->not_persistent = NULL;
    p->least_sms = 11;
    p->kernels[1].shared_bytes = 232448;
    p->phases[QGC_PHASE_PACK] = (qgc_phase){p->phases[QGC_PHASE_INIT].launches, 1};
    p->phases[QGC_PHASE_PERSISTENT] = (qgc_phase){p->phases[QGC_PHASE_DECODE].launches, 1};
    p->phases[QGC_PHASE_PACKED_PREFILL] = (qgc_phase){p->phases[QGC_PHASE_DECODE].launches, 1};
    p->phases[QGC_PHASE_PERSISTENT].launches[0].on_all = true;
    const char *none = inspect(f, "");
    has(inspect(f, "--launches"), "\n     1 early embedding again");
    has(none, "persistent 1 launches, which none of these architectures can run\n");
    has(none,
        "not persistent: it needs 232448 bytes of shared memory a block, sm_120a has 101376 (compiled for "
        "it alone it may need less)\n");
    has(none,
        "not persistent: it needs 232448 bytes of shared memory a block, sm_75 has 65536 (compiled for it "
        "alone it may need less)\n");
    p->kernels[1].least_shared_bytes = 101376; /* it takes what there is */
    has(inspect(f, ""),
        "sm_120a: stream, graph, pdl, persistent (on 11 multiprocessors or more, 101376 bytes of shared memory a block)\n");
    p->archs[0] = "sm_86";
    has(inspect(f, ""),
        "modes      sm_86: stream, graph, persistent (on 11 multiprocessors or more, 101376 bytes of shared memory a block)\n");
    has(inspect(f, "--launches"), "\n     1       embedding again");
    has(inspect(f, ""), "persistent 1 launches, none of them early\n"); /* by sm_86 and sm_75 */
    p->archs[0] = "sm_90a";
    const char *some = inspect(f, "");
    has(some, "persistent 1 launches, 0 of them early, but not on sm_75\n");
    has(some,
        "modes      sm_90a: stream, graph, pdl, persistent (on 11 multiprocessors or more, 232448 bytes of shared memory a block)\n"
        "           sm_75: stream, graph\n");
    has(inspect(f, "--json"),
        "  \"modes\": {\n    \"sm_90a\": {\n      \"stream\": null,\n      \"graph\": null,\n"
        "      \"pdl\": null,\n      \"persistent\": null\n    },\n    \"sm_75\": {\n"
        "      \"stream\": null,\n      \"graph\": null,\n      \"pdl\": \"image sm_75 has no "
        "programmatic dependent launch, which sm_90 has\",\n");
}

static void the_summary_says_what_ptx_is_for(void **state) {
    fixture *f = *state;
    static const char ptx[] = "//\n.version 8.7\n.target sm_80\n";
    qgc_plan *p = f->plan;
    p->archs[1] = "compute_80";
    for (size_t i = 0; i < p->n_images; i++)
        if (p->images[i].arch == 1)
            p->images[i] = (qgc_plan_image){p->images[i].kernel, 1, ptx, sizeof ptx};
    has(inspect(f, ""), ", compute_80 (");
    has(inspect(f, ""),
        "\n             compute_80: PTX 8.7 for sm_80 and newer, by drivers of CUDA 12.8 and newer\n");
    p->archs[1] = "compute_90a";
    has(inspect(f, ""), "compute_90a: PTX 8.7 for sm_90 alone");
    has(inspect(f, ""), "           compute_90a: stream, graph, pdl\n");
    p->archs[1] = "compute_100f";
    has(inspect(f, ""), "compute_100f: PTX 8.7 for sm_100 and its family");
}

static void the_summary_says_what_a_card_would_do(void **state) {
    fixture *f = *state;
    const char *text = inspect(f, "--on rtx-3090");
    has(text,
        "\non         rtx-3090: sm_86, 82 multiprocessors, 101376 bytes of shared memory a block, 936 GB/s, ");
    has(text, "\nimage      sm_80: machine code of the same major version\nmodes      stream, graph\n");
    has(text, "             not persistent: too small\nfloor  ");
    has(inspect(f, "--on rtx-3090 --json"), "  \"on\": {\n    \"card\": \"rtx-3090\",\n    \"arch\": 86,\n");
    has(call(f, "inspect --on a-card", 2), "no card \"a-card\" is known\n");
}

static void devices_lists_cards_and_what_they_run(void **state) {
    fixture *f = *state;
    const char *text = call(f, "devices --known", 0);
    has(text,
        "\na100-80gb: sm_80, 108 multiprocessors, 166912 bytes of shared memory a block, 2039 GB/s, 85.90 GB; "
        "bandwidth by its data sheet\n");
    has(text, "small.qgc: image sm_80: stream, graph\n    not pdl: image sm_80 has no programmatic");
    has(text, "small.qgc: no image runs there; compiled for sm_75: stream, graph\n");
    has(text, "small.qgc: image sm_90a: stream, graph, pdl\n    not persistent: too small\n");
    has(call(f, "devices --known --json", 0),
        "    \"name\": \"t4\",\n    \"cuda\": null,\n    \"arch\": 75,\n");
    has(qgc_test_output(f->arena, "devices models/tiny/tiny.yaml", 1), "is not a .qgc file\n");
}

static void every_launch_says_whether_it_starts_early(void **state) {
    has(inspect(*state, "--launches"),
        "\ndecode\n"
        "     0       embedding x                      embed.cu         (1)/1 x (1 T)/1 x (1)/1  small.yaml:7:5\n"
        "             not early: it is the first launch of its phase\n"
        "     1 early embedding again                  embed.cu         (1)/1 x (1 T)/1 x (1)/1  small.yaml:7:5\n"
        "     2       linear logits                    cuBLAS [1 R, 4] x [8, 4]^T\n"
        "             not early: it is a product of cuBLAS, whose kernels do not wait\n");
}

static void json_says_what_launches_do_with_their_buffers(void **state) {
    const char *text = inspect(*state, "--json"), *decode = strstr(text, "    \"decode\": [\n");
    assert_non_null(decode);
    has(text, "  \"not_persistent\": \"too small\",\n");
    const char *want = "        \"node\": \"embedding again\",\n"
                       "        \"where\": \"small.yaml:7:5\",\n"
                       "        \"kernel\": \"embed.cu\",\n"
                       "        \"options\": \"-DD=4\",\n"
                       "        \"early\": true,\n"
                       "        \"not_early\": null,\n"
                       "        \"buffers\": [\n"
                       "          {\n"
                       "            \"buffer\": \"embed\",\n"
                       "            \"reads\": true,\n"
                       "            \"writes\": false,\n"
                       "            \"before_wait\": true,\n"
                       "            \"follows_addresses\": false\n"
                       "          },\n"
                       "          {\n"
                       "            \"buffer\": \"tokens\",\n"
                       "            \"reads\": true,\n"
                       "            \"writes\": false,\n"
                       "            \"before_wait\": false,\n";
    has(decode, want);
    has(decode,
        "        \"early\": false,\n        \"not_early\": \"it is a product of cuBLAS, whose kernels do "
        "not wait\",\n");
    has(decode,
        "            \"buffer\": \"logits\",\n            \"reads\": true,\n            \"writes\": true,\n");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(derived_weights_are_listed),
        TEST(the_summary_counts_early_launches),
        TEST(the_summary_says_which_architectures_can_be_persistent),
        TEST(the_summary_says_what_ptx_is_for),
        TEST(the_summary_says_what_a_card_would_do),
        TEST(devices_lists_cards_and_what_they_run),
        TEST(every_launch_says_whether_it_starts_early),
        TEST(json_says_what_launches_do_with_their_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
