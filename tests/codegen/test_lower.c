#include <stdlib.h>
#include <string.h>

#include "codegen/lower.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

static qgc_graph *load(qgc_arena *a, const char *path) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    if (qgc_graph_load(&g, path, a, &d) != QGC_OK) {
        qgc_diag_print(&d, stderr, false);
        fail();
    }
    g->shares_memory = true; /* as plan-memory says */
    return g;
}

static qgc_plan *lower(qgc_arena *a, const char *path, qgc_lower_options options) {
    qgc_diag d = qgc_diag_new(a);
    qgc_lowered lowered;
    if (qgc_lower(load(a, path), &options, &lowered, &d) != QGC_OK) {
        qgc_diag_print(&d, stderr, false);
        fail();
    }
    return lowered.plan;
}

/* The launches of a phase from `first` on, a line each. */
static const char *names(qgc_arena *a, const qgc_plan *p, qgc_phase_kind phase, size_t first, size_t n) {
    qgc_str text = qgc_str_new(a);
    for (size_t i = first; i < first + n && i < p->phases[phase].n_launches; i++) {
        const qgc_plan_launch *l = &p->phases[phase].launches[i];
        qgc_str_printf(&text, "%s: %s\n", l->node, l->kernel < 0 ? "cuBLAS" : p->kernels[l->kernel].name);
    }
    return text.text;
}

static void a_decode_step_is_one_kernel_a_node(void **state) {
    const qgc_plan *p = lower(*state, "models/tiny/tiny.yaml", (qgc_lower_options){.chunk = 8});
    assert_string_equal(names(*state, p, QGC_PHASE_DECODE, 0, 19), "embedding x: embedding.cu\n"
                                                                   "rms_norm h[0]: rms_norm.cu\n"
                                                                   "linear q[0]: linear.cu\n"
                                                                   "linear k[0]: linear.cu\n"
                                                                   "linear v[0]: linear.cu\n"
                                                                   "rope qr[0]: rope.cu\n"
                                                                   "rope kr[0]: rope.cu\n"
                                                                   "append k_all[0]: append.cu\n"
                                                                   "append v_all[0]: append.cu\n"
                                                                   "attention a[0]: attention_heads.cu\n"
                                                                   "linear o[0]: linear.cu\n"
                                                                   "add x_mid[0]: pointwise.cu\n"
                                                                   "rms_norm m[0]: rms_norm.cu\n"
                                                                   "linear gate[0]: linear.cu\n"
                                                                   "linear up[0]: linear.cu\n"
                                                                   "silu act[0]: pointwise.cu\n"
                                                                   "mul ff[0]: pointwise.cu\n"
                                                                   "linear down[0]: linear.cu\n"
                                                                   "add x[0]: pointwise.cu\n");
    /* embedding, 4 layers of 18, select, norm, head, mark, sample, and the end of the step */
    assert_int_equal(p->phases[QGC_PHASE_DECODE].n_launches, 1 + 4 * 18 + 5 + 1);
    assert_int_equal(p->phases[QGC_PHASE_INIT].n_launches, 1);
}

static void prefill_rounds_each_input_once_and_takes_the_head_by_rows(void **state) {
    const qgc_plan *p = lower(*state, "models/tiny/tiny.yaml", (qgc_lower_options){.chunk = 8});
    assert_string_equal(names(*state, p, QGC_PHASE_PREFILL, 2, 8), "linear q[0]: to_bf16.cu\n"
                                                                   "linear q[0]: bias_rows.cu\n"
                                                                   "linear q[0]: cuBLAS\n"
                                                                   "linear k[0]: bias_rows.cu\n"
                                                                   "linear k[0]: cuBLAS\n"
                                                                   "linear v[0]: bias_rows.cu\n"
                                                                   "linear v[0]: cuBLAS\n"
                                                                   "rope qr[0]: rope.cu\n");
    size_t n = p->phases[QGC_PHASE_PREFILL].n_launches;
    assert_string_equal(names(*state, p, QGC_PHASE_PREFILL, n - 4, 4), "linear logits: linear.cu\n"
                                                                       "mark seen_now: mark.cu\n"
                                                                       "sample next: sample_part.cu\n"
                                                                       "sample next: sample_merge.cu\n");
}

/* First and last launch of a phase that names a buffer; false if none does. */
static bool life(const qgc_phase *phase, int buffer, size_t *first, size_t *last) {
    bool found = false;
    for (size_t i = 0; i < phase->n_launches; i++) {
        const qgc_plan_launch *l = &phase->launches[i];
        bool here = l->a == buffer || l->b == buffer || l->c == buffer;
        for (int k = 0; k < l->n_args; k++)
            here = here || (l->args[k].kind == QGC_ARG_BUFFER && l->args[k].buffer == buffer);
        if (here && !found)
            *first = i;
        if (here)
            *last = i;
        found = found || here;
    }
    return found;
}

/* No two buffers that are alive at once overlap; returns the number of pairs that were looked at. */
static size_t check_scratch(const qgc_plan *p, qgc_phase_kind phase, int64_t tokens) {
    size_t pairs = 0;
    const qgc_sizes sizes = {.tokens = tokens, .rows = 1};
    for (size_t i = 0; i < p->n_buffers; i++)
        for (size_t k = 0; k < i; k++) {
            const qgc_plan_buffer *a = &p->buffers[i], *b = &p->buffers[k];
            size_t a0, a1, b0, b1;
            if (a->kind != QGC_BUFFER_SCRATCH || b->kind != QGC_BUFFER_SCRATCH ||
                !life(&p->phases[phase], (int)i, &a0, &a1) || !life(&p->phases[phase], (int)k, &b0, &b1))
                continue;
            int64_t a_end = a->offset + qgc_extent_size(&a->bytes, &sizes);
            int64_t b_end = b->offset + qgc_extent_size(&b->bytes, &sizes);
            assert_true(a_end <= p->scratch_bytes && a->offset % 256 == 0);
            if (a0 > b1 || b0 > a1)
                continue;
            assert_true(a_end <= b->offset || b_end <= a->offset);
            pairs++;
        }
    return pairs;
}

static void buffers_alive_at_once_do_not_overlap(void **state) {
    const qgc_plan *p = lower(*state, "models/tiny/tiny.yaml", (qgc_lower_options){.chunk = 33});
    assert_true(check_scratch(p, QGC_PHASE_PREFILL, 33) > 100);
    assert_true(check_scratch(p, QGC_PHASE_DECODE, 1) > 100);
}

static void a_chunk_is_cut_to_what_rings_have_room_for(void **state) {
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g;
    qgc_lowered low;
    assert_int_equal(
        qgc_graph_load_text(&g, "model.yaml", small_ring_and_none, strlen(small_ring_and_none), *state, &d),
        QGC_OK);
    assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 32}, &low, &d), QGC_OK);
    assert_int_equal(low.plan->spare, 32);
    const qgc_value *const *caches = (const qgc_value *const *)g->states[0].values;
    for (int i = 0; i < 2; i++) {
        const qgc_extent *bytes = &low.plan->buffers[low.buffers[caches[i]->id]].bytes;
        assert_int_equal(bytes->per_ctx, 2 * 32 * 2);
        assert_int_equal(bytes->most_ctx, i ? 0 : 38);
    }
    assert_int_equal(low.plan->chunk, 32);
    assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 33}, &low, &d), QGC_OK);
    assert_int_equal(low.plan->chunk, 32);
}

static void scratch_of_a_deep_model_stays_that_of_a_layer(void **state) {
    const qgc_plan *tiny = lower(*state, "models/qwen2.5-0.5b.yaml", (qgc_lower_options){.chunk = 512});
    /* x, h2, gate, up, s, m at once are 2 * 896 + 4 * 4864 floats a token, and a little more */
    assert_int_equal(tiny->long_chunk, 2048);
    assert_true(tiny->scratch_bytes < 2048 * 4 * (4 * 896 + 4 * 4864));
    tiny = lower(*state, "models/qwen2.5-0.5b.yaml", (qgc_lower_options){.chunk = 511});
    assert_int_equal(tiny->long_chunk, 0);
    assert_true(tiny->scratch_bytes < 511 * 4 * (4 * 896 + 4 * 4864));
}

static void check_nothing_is_shared(const qgc_plan *p) {
    const qgc_sizes sizes = {.tokens = 1, .rows = 1};
    for (size_t i = 0; i < p->n_buffers; i++)
        for (size_t k = 0; k < i; k++) {
            const qgc_plan_buffer *a = &p->buffers[i], *b = &p->buffers[k];
            size_t first, last;
            if (a->kind != QGC_BUFFER_SCRATCH || b->kind != QGC_BUFFER_SCRATCH ||
                !life(&p->phases[QGC_PHASE_DECODE], (int)i, &first, &last) ||
                !life(&p->phases[QGC_PHASE_DECODE], (int)k, &first, &last))
                continue;
            assert_true(a->offset + qgc_extent_size(&a->bytes, &sizes) <= b->offset ||
                        b->offset + qgc_extent_size(&b->bytes, &sizes) <= a->offset);
        }
}

static void kept_values_share_nothing(void **state) {
    check_nothing_is_shared(
        lower(*state, "models/tiny/tiny.yaml", (qgc_lower_options){.chunk = 3, .keep_values = true}));
}

static void without_the_pass_nothing_is_shared(void **state) {
    qgc_graph *g = load(*state, "models/tiny/tiny.yaml");
    qgc_diag d = qgc_diag_new(*state);
    qgc_lowered lowered;
    g->shares_memory = false;
    assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 3}, &lowered, &d), QGC_OK);
    check_nothing_is_shared(lowered.plan);
}

/* Each of them is one that the loader lets pass. */
static void results_that_no_memory_holds_are_refused(void **state) {
    static const char text[] = "qgc: 1\nname: huge\narch: huge\nparams: {n: 80}\n"
                               "weights:\n  embed: {shape: [2, 2^30]}\n  head: {shape: [9, 2^30]}\n"
                               "state:\n  seen: {shape: [9], dtype: i32}\n"
                               "inputs: {tokens: [T], positions: [T], rows: [R]}\n"
                               "graph:\n"
                               "  - {op: embedding, in: [tokens, embed], out: x}\n"
                               "  - repeat: {index: l, count: n, carry: x}\n"
                               "    body:\n"
                               "      - {op: silu, in: [x], out: x}\n"
                               "  - {op: select_rows, in: [x, rows], out: r}\n"
                               "  - {op: linear, in: [r, head], out: logits}\n"
                               "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
                               "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n"
                               "outputs: [logits, next]\n";
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g;
    qgc_lowered lowered;
    if (qgc_graph_load_text(&g, "huge.yaml", text, strlen(text), *state, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(*state, &d));
    assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 1 << 24}, &lowered, &d), QGC_ERR_INPUT);
    assert_int_equal(strncmp(qgc_diag_message(&d), "the results of a step, up to \"x", 30), 0);
    assert_non_null(strstr(qgc_diag_message(&d), "\", take more than 2^62 bytes in all"));
}

static void a_plan_for_decode_steps_has_no_other_phase(void **state) {
    const qgc_plan *p =
        lower(*state, "models/tiny/tiny.yaml", (qgc_lower_options){.chunk = 1, .decode_only = true});
    const qgc_plan *full = lower(*state, "models/tiny/tiny.yaml", (qgc_lower_options){.chunk = 1});
    assert_int_equal(p->phases[QGC_PHASE_PREFILL].n_launches, 0);
    assert_int_equal(p->phases[QGC_PHASE_PACK].n_launches, 0);
    assert_int_equal(p->phases[QGC_PHASE_PERSISTENT].n_launches, 0);
    assert_string_equal(p->not_persistent, "it was compiled for decode steps only");
    assert_string_equal(names(*state, p, QGC_PHASE_DECODE, 0, 200),
                        names(*state, full, QGC_PHASE_DECODE, 0, 200));
    assert_true(p->n_kernels < full->n_kernels && p->n_buffers < full->n_buffers);
}

static void says_where_a_decode_step_has_each_value(void **state) {
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g = load(*state, "models/tiny/tiny.yaml");
    qgc_lowered lowered;
    assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 3}, &lowered, &d), QGC_OK);
    const qgc_phase *decode = &lowered.plan->phases[QGC_PHASE_DECODE];
    for (const qgc_node *n = g->first; n; n = n->next) {
        const int buffer = lowered.buffers[n->out[0]->id];
        size_t first, last;
        assert_true(buffer >= 0 && life(decode, buffer, &first, &last));
        if (lowered.plan->buffers[buffer].kind == QGC_BUFFER_SCRATCH)
            assert_string_equal(lowered.plan->buffers[buffer].name, qgc_value_label(n->out[0], *state));
    }
}

static const qgc_plan_weight *weight(const qgc_plan *p, const char *label) {
    for (size_t i = 0; i < p->n_weights; i++)
        if (strcmp(p->weights[i].label, label) == 0)
            return &p->weights[i];
    return NULL;
}

static void weights_carry_their_names_in_files(void **state) {
    const qgc_plan *p = lower(*state, "models/qwen2.5-0.5b.yaml", (qgc_lower_options){.chunk = 8});
    const qgc_plan_weight *wq = weight(p, "wq[3]"), *head = weight(p, "head");
    assert_string_equal(wq->gguf, "blk.3.attn_q.weight");
    assert_string_equal(wq->hf, "model.layers.3.self_attn.q_proj.weight");
    assert_int_equal(wq->storage, QGC_BF16);
    assert_int_equal(weight(p, "bq[0]")->storage, QGC_F32);
    assert_string_equal(p->weights[head->tied].label, "embed");
    assert_int_equal(p->vocab, 151936);
    assert_int_equal(p->max_positions, 32768);
}

static void kernels_are_shared_between_layers(void **state) {
    const qgc_plan *p = lower(*state, "models/qwen2.5-0.5b.yaml", (qgc_lower_options){.chunk = 8});
    assert_true(p->n_kernels < 60);
    for (size_t i = 0; i < p->n_kernels; i++)
        for (size_t k = 0; k < i; k++)
            assert_true(strcmp(p->kernels[i].name, p->kernels[k].name) != 0 ||
                        strcmp(p->kernels[i].options, p->kernels[k].options) != 0);
}

static void an_append_lives_in_its_cache(void **state) {
    const qgc_plan *p = lower(*state, "models/tiny/tiny.yaml", (qgc_lower_options){.chunk = 8});
    const qgc_plan_launch *append = &p->phases[QGC_PHASE_DECODE].launches[7];
    const qgc_plan_launch *attention = &p->phases[QGC_PHASE_DECODE].launches[9];
    assert_int_equal(p->buffers[append->args[0].buffer].kind, QGC_BUFFER_STATE);
    assert_int_equal(attention->args[1].buffer, append->args[0].buffer);
}

/* The kernel of the attention of layer 0, and its options. */
static const char *attention_kernel(qgc_arena *a, const qgc_plan *p, qgc_phase_kind phase) {
    for (size_t i = 0; i < p->phases[phase].n_launches; i++) {
        const qgc_plan_launch *l = &p->phases[phase].launches[i];
        if (strcmp(l->node, "attention a[0]") == 0)
            return qgc_arena_printf(a, "%s %s", p->kernels[l->kernel].name, p->kernels[l->kernel].options);
    }
    return "none";
}

static void check_attention(qgc_arena *a, const char *path, int least_arch, const char *prefill,
                            const char *decode) {
    const qgc_plan *p = lower(a, path, (qgc_lower_options){.chunk = 512, .least_arch = least_arch});
    assert_int_equal(strncmp(attention_kernel(a, p, QGC_PHASE_PREFILL), prefill, strlen(prefill)), 0);
    assert_int_equal(strncmp(attention_kernel(a, p, QGC_PHASE_DECODE), decode, strlen(decode)), 0);
}

static void attention_goes_to_the_tensor_cores_where_it_can(void **state) {
    const char *const plain = "attention.cu ", *const tiles = "flash_attention.cu ",
                      *const group = "attention_heads.cu ";
    check_attention(*state, "models/qwen2.5-0.5b.yaml", 0, tiles, group);
    check_attention(*state, "models/qwen2.5-0.5b.yaml", 80, tiles, group);
    check_attention(*state, "models/qwen2.5-0.5b.yaml", 75, plain, plain);
    check_attention(*state, "models/qwen2.5-7b.yaml", 90, tiles, group);          /* heads of 128 */
    check_attention(*state, "models/tiny/tiny.yaml", 90, tiles, group);           /* heads of 32 */
    check_attention(*state, "tests/golden/tiny/tiny-f32.yaml", 90, plain, plain); /* caches in f32 */
    check_attention(*state, "tests/gpu/shapes/odd.yaml", 90, plain, plain);
    check_attention(*state, "tests/gpu/shapes/eights.yaml", 90, plain, plain); /* heads of 40 */
    check_attention(*state, "tests/gpu/shapes/mixed.yaml", 90, tiles, group);
}

/* 2 key-value heads, 112 tiles of 64 rows in a full chunk: of 128 rows there would be 56. */
static void attention_is_cut_so_that_it_fills_a_card(void **state) {
    const qgc_plan *p = lower(*state, "models/qwen2.5-0.5b.yaml", (qgc_lower_options){.chunk = 512});
    assert_non_null(strstr(attention_kernel(*state, p, QGC_PHASE_PREFILL), " -DPARTS=10 "));
    assert_non_null(strstr(attention_kernel(*state, p, QGC_PHASE_DECODE), " -DPARTS=1 -DBLOCKS=64"));
    const qgc_phase *phase = &p->phases[QGC_PHASE_PREFILL];
    for (size_t i = 0; i < phase->n_launches; i++) {
        const qgc_plan_launch *l = &phase->launches[i];
        if (strcmp(l->node, "attention a[0]") != 0)
            continue;
        assert_int_equal(l->grid[0].per_token, 7);
        assert_int_equal(l->per_block[0], 64);
        assert_int_equal(l->grid[1].fixed, 2);
        assert_int_equal(l->grid[2].fixed, 10);
        assert_int_equal(p->kernels[l->kernel].shared_bytes, 2 * 2 * 64 * 72 * 2);
        assert_int_equal(l->position_bytes, 2 * 2 * 64 * 2);
    }
}

/* Fewer multiprocessors are filled by fewer blocks; what would not fit into shared memory goes another way. */
static void attention_is_cut_for_the_card_that_is_named(void **state) {
    const qgc_card small = {.sms = 12}, tight = {.shared_bytes = 65536}, wide = {.shared_bytes = 69632};
    const qgc_plan *p =
        lower(*state, "models/qwen2.5-0.5b.yaml", (qgc_lower_options){.chunk = 512, .card = &small});
    assert_non_null(strstr(attention_kernel(*state, p, QGC_PHASE_PREFILL), " -DPARTS=2 "));
    assert_non_null(strstr(attention_kernel(*state, p, QGC_PHASE_PREFILL), " -DSMS=12"));
    assert_non_null(strstr(attention_kernel(*state, p, QGC_PHASE_DECODE), " -DPARTS=1 -DBLOCKS=6"));
    const char *const models[] = {"models/qwen2.5-0.5b.yaml",
                                  "models/qwen2.5-7b.yaml"}; /* heads of 64, 128 */
    for (int i = 0; i < 2; i++) {
        p = lower(*state, models[i], (qgc_lower_options){.chunk = 512, .card = &wide});
        assert_non_null(strstr(attention_kernel(*state, p, QGC_PHASE_PREFILL), "flash_attention.cu "));
        p = lower(*state, models[i], (qgc_lower_options){.chunk = 512, .card = &tight});
        const char *kernel = attention_kernel(*state, p, QGC_PHASE_PREFILL);
        assert_int_equal(strstr(kernel, "attention_heads.cu ") != NULL, i == 1);
    }
}

/* Registers of the persistent step are laid out for the shares of the card. */
static void the_persistent_step_has_the_multiprocessors_of_the_card(void **state) {
    const qgc_card cards[] = {{.sms = QGC_TYPICAL_SMS}, {.sms = 78}};
    for (int i = 0; i < 2; i++) {
        const qgc_plan *p = lower(*state, "models/qwen2.5-0.5b.yaml",
                                  (qgc_lower_options){.chunk = 512, .least_arch = 90, .card = &cards[i]});
        const qgc_phase *step = &p->phases[QGC_PHASE_PERSISTENT];
        int told = 0, steps = 0;
        for (size_t k = 0; k < step->n_launches; k++) {
            const qgc_plan_kernel *kernel = &p->kernels[step->launches[k].kernel];
            steps += strcmp(kernel->name, "persistent.cu") == 0;
            told += strstr(kernel->options, "-DTYPICAL_SMS=78") != NULL;
        }
        assert_int_equal(steps, 1);
        assert_int_equal(told, i);
    }
}

/* In prefill an attention that reads a cache before a later append is launched before it, whatever was fused. */
static void prefill_reads_the_version_of_a_cache_that_is_meant(void **state) {
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g;
    qgc_pass_report report;
    qgc_lowered out;
    assert_int_equal(qgc_graph_load(&g, "tests/gpu/cases/old_cache.yaml", *state, &d), QGC_OK);
    assert_int_equal(qgc_passes_run(g, &(qgc_pass_options){0}, &report, &d), QGC_OK);
    assert_int_equal(qgc_lower(g, &(qgc_lower_options){.chunk = 8}, &out, &d), QGC_OK);
    const qgc_plan *p = out.plan;
    const qgc_phase *prefill = &p->phases[QGC_PHASE_PREFILL];
    int attention = -1, append = -1;
    for (size_t i = 0; i < prefill->n_launches; i++) {
        const qgc_plan_launch *l = &prefill->launches[i];
        const char *name = l->kind == QGC_LAUNCH_KERNEL ? p->kernels[l->kernel].name : "";
        if (strstr(name, "attention"))
            attention = (int)i;
        else if (append < 0 && strcmp(name, "append.cu") == 0)
            append = (int)i;
    }
    assert_true(attention >= 0 && attention < append);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(a_decode_step_is_one_kernel_a_node),
        ARENA_TEST(prefill_rounds_each_input_once_and_takes_the_head_by_rows),
        ARENA_TEST(a_chunk_is_cut_to_what_rings_have_room_for),
        ARENA_TEST(buffers_alive_at_once_do_not_overlap),
        ARENA_TEST(scratch_of_a_deep_model_stays_that_of_a_layer),
        ARENA_TEST(kept_values_share_nothing),
        ARENA_TEST(without_the_pass_nothing_is_shared),
        ARENA_TEST(results_that_no_memory_holds_are_refused),
        ARENA_TEST(a_plan_for_decode_steps_has_no_other_phase),
        ARENA_TEST(says_where_a_decode_step_has_each_value),
        ARENA_TEST(weights_carry_their_names_in_files),
        ARENA_TEST(kernels_are_shared_between_layers),
        ARENA_TEST(prefill_reads_the_version_of_a_cache_that_is_meant),
        ARENA_TEST(attention_goes_to_the_tensor_cores_where_it_can),
        ARENA_TEST(attention_is_cut_so_that_it_fills_a_card),
        ARENA_TEST(the_persistent_step_has_the_multiprocessors_of_the_card),
        ARENA_TEST(attention_is_cut_for_the_card_that_is_named),
        ARENA_TEST(an_append_lives_in_its_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
