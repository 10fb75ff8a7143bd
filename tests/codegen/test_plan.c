#include <math.h>
#include <string.h>

#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/small_plan.h"

static void extent_is_linear_in_each_size(void **state) {
    (void)state;
    const qgc_extent e = {1, 20, 300, 4000, 0}, ring = {.fixed = 1, .per_ctx = 4000, .most_ctx = 3};
    assert_int_equal(qgc_extent_size(&e, &(qgc_sizes){2, 3, 4}), 1 + 40 + 900 + 16000);
    assert_int_equal(qgc_extent_size(&e, &(qgc_sizes){0}), 1);
    assert_int_equal(qgc_extent_size(&ring, &(qgc_sizes){2, 3, 2}), 8001);
    assert_int_equal(qgc_extent_size(&ring, &(qgc_sizes){2, 3, 4}), 12001);
}

static void sizes_are_added_up_to_a_limit(void **state) {
    (void)state;
    const qgc_sizes at = {.tokens = 3, .rows = 1, .ctx = 1 << 24};
    int64_t sum = 0;
    assert_true(qgc_extent_add(&sum, &(qgc_extent){.fixed = 1, .per_token = 85}, &at));
    assert_int_equal(sum, 256);
    assert_true(qgc_extent_add(&sum, &(qgc_extent){.fixed = 257}, &at));
    assert_int_equal(sum, 768);
    static const qgc_extent large[] = {{.fixed = INT64_MAX},
                                       {.per_ctx = INT64_MAX},
                                       {.per_ctx = (int64_t)1 << 38},
                                       {.fixed = ((int64_t)1 << 62) - 767},
                                       {.fixed = -1},
                                       {.fixed = INT64_MIN}};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_false(qgc_extent_add(&sum, &large[i], &at));
        assert_int_equal(sum, 768);
    }
    assert_true(
        qgc_extent_add(&sum, &(qgc_extent){.per_ctx = (int64_t)1 << 38, .most_ctx = 0}, &(qgc_sizes){0}));
    assert_true(qgc_extent_add(&sum, &(qgc_extent){.per_ctx = 128, .most_ctx = 2}, &at));
    assert_int_equal(sum, 1024);
    assert_true(qgc_extent_add(&sum, &(qgc_extent){.fixed = ((int64_t)1 << 62) - 1024}, &at));
    assert_int_equal(sum, (int64_t)1 << 62);
}

static void accepts_the_small_plan(void **state) {
    qgc_diag d = qgc_diag_new(*state);
    assert_int_equal(qgc_plan_check(small_plan(*state), QGC_NO_LOC, &d), QGC_OK);
}

/* BREAK(message, statements): what is wrong after the statements changed the plan `p`. Each becomes a
 * function, so that it can be done to a fresh plan. */
#define BROKEN_HEADS                                                                                   \
    BREAK("the plan has no name", p->name = NULL)                                                      \
    BREAK("the plan has no arch", p->arch = NULL)                                                      \
    BREAK("the plan has no graph", p->graph = NULL)                                                    \
    BREAK("the plan has no source", p->source = NULL)                                                  \
    BREAK("the plan has no compiler", p->compiler = NULL)                                              \
    BREAK("vocab of the plan is 0, expected 1 to 2147483647", p->vocab = 0)                            \
    BREAK("vocab of the plan is 2147483648, expected 1 to 2147483647", p->vocab = 2147483648)          \
    BREAK("max_positions of the plan is -1, expected 0 to 16777216", p->max_positions = -1)            \
    BREAK("spare of the plan is -1, expected 0 to 16777216", p->spare = -1)                            \
    BREAK("chunk of the plan is 0, expected 1 to 16777216", p->chunk = 0)                              \
    BREAK("chunk of the plan is 16777217, expected 1 to 16777216", p->chunk = 16777217)                \
    BREAK("scratch_bytes of the plan is -1, expected 0 to 4611686018427387904", p->scratch_bytes = -1) \
    BREAK("the plan is for 0 architectures, expected 1 to 32", p->n_archs = 0)                         \
    BREAK("the plan is for 33 architectures, expected 1 to 32", p->n_archs = 33)                       \
    BREAK("architecture \"\" of the plan is malformed", p->archs[1] = NULL)                            \
    BREAK("architecture \"90\" of the plan is malformed", p->archs[1] = "90")                          \
    BREAK("architecture \"sm_90x\" of the plan is malformed", p->archs[1] = "sm_90x")                  \
    BREAK("architecture \"sm_90a\" of the plan is there twice", p->archs[1] = "sm_90a")                \
    BREAK("the table of params is missing", p->params = NULL)                                          \
    BREAK("the table of weights is missing", p->weights = NULL)                                        \
    BREAK("the table of buffers is missing", p->buffers = NULL)                                        \
    BREAK("the table of kernels is missing", p->kernels = NULL)                                        \
    BREAK("the table of images is missing", p->images = NULL)                                          \
    BREAK("the table of launches is missing", p->phases[2].launches = NULL)                            \
    BREAK("the plan has 16777217 buffers, expected at most 16777216", p->n_buffers = 16777217)

#define BROKEN_TABLES                                                                                       \
    BREAK("buffer 3 is not a state with a mark for each of 8 tokens", p->seen = 3)                          \
    BREAK("buffer 99 is not a state with a mark for each of 8 tokens", p->seen = 99)                        \
    BREAK("buffer -2 is not a state with a mark for each of 8 tokens", p->seen = -2)                        \
    BREAK("buffer 3 is not one for a trace", p->trace = 3)                                                  \
    BREAK("buffer 99 is not one for a trace", p->trace = 99)                                                \
    BREAK("buffer -2 is not one for a trace", p->trace = -2)                                                \
    BREAK("launch \"fill table\" has 65 parts", p->phases[0].launches[0].n_parts = 65)                      \
    BREAK("launch \"fill table\" has -1 parts", p->phases[0].launches[0].n_parts = -1)                      \
    BREAK("launch \"fill table\" has 2 parts", p->phases[0].launches[0].parts = NULL)                       \
    BREAK("launch \"fill table\" has -1 layers", p->phases[0].launches[0].n_layers = -1)                    \
    BREAK("part 1 of launch \"fill table\" has no name or reads less than nothing",                         \
          p->phases[0].launches[0].parts[1].name = NULL)                                                    \
    BREAK("part 0 of launch \"fill table\" has no name or reads less than nothing",                         \
          p->phases[0].launches[0].parts[0].weight_bytes = -1)                                              \
    BREAK("launches of phase \"init\" read more than 2^62 bytes in all",                                    \
          p->phases[0].launches[0].weight_bytes = p->phases[0].launches[0].parts[0].weight_bytes =          \
              INT64_MAX / 4)                                                                                \
    BREAK("launches of phase \"init\" read more than 2^62 bytes in all",                                    \
          p->phases[0].launches[0].position_bytes = INT64_MAX)                                              \
    BREAK("the buffers of the plan take more than 2^62 bytes in all",                                       \
          p->buffers[SMALL_CACHE].bytes.per_ctx = p->buffers[SMALL_TABLE].bytes.per_ctx = (int64_t)1 << 37) \
    BREAK("the buffers of the plan take more than 2^62 bytes in all",                                       \
          p->buffers[SMALL_CACHE].bytes.fixed = ((int64_t)1 << 62) - ((int64_t)16 << 24))                   \
    BREAK("param 0 has no name", p->params[0].name = NULL)                                                  \
    BREAK("param \"eps\" is not a finite number", p->params[1].value = NAN)                                 \
    BREAK("param \"eps\" is not a finite number", p->params[1].value = INFINITY)                            \
    BREAK("a key of param \"d\" is missing", p->params[0].gguf = NULL)                                      \
    BREAK("a key of param \"d\" is missing", p->params[0].hf[1] = NULL)                                     \
    BREAK("a word of param \"windowed\" is missing", p->params[2].words = NULL)                             \
    BREAK("the values of param \"windowed\" are not finite numbers, one for each iteration",                \
          p->params[2].values[1] = NAN)                                                                     \
    BREAK("the values of param \"windowed\" are not finite numbers, one for each iteration",                \
          p->params[2].n_otherwise = 1)                                                                     \
    BREAK("weight \"embed\" is made of an impossible tensor", p->weights[1].gguf_form.last = 5)             \
    BREAK("weight \"embed\" is made of an impossible tensor", p->weights[1].gguf_form.first = 3)            \
    BREAK("weight \"embed\" is made of an impossible tensor", p->weights[1].gguf_form.heads = -1)           \
    BREAK("weight \"embed\" is made of an impossible tensor", p->weights[1].hf_form.stacked = 0)            \
    BREAK("weight \"embed\" is made of an impossible tensor", p->weights[1].hf_form.plus = INFINITY)        \
    BREAK("a key of param \"d\" is missing", p->params[0].n_hf = -1)                                        \
    BREAK("weight 1 has no label", p->weights[1].label = NULL)                                              \
    BREAK("weight \"head\" has an impossible shape", p->weights[0].rank = 0)                                \
    BREAK("weight \"head\" has an impossible shape", p->weights[0].rank = 5)                                \
    BREAK("weight \"head\" has an impossible shape", p->weights[0].shape[1] = 0)                            \
    BREAK("weight \"head\" has an impossible shape", p->weights[0].shape[1] = INT64_MAX)                    \
    BREAK("weight \"head\" has an impossible shape", p->weights[0].storage = QGC_Q8_0)                      \
    BREAK("weight \"head\" is stored as dtype 3, expected a number or a block format",                      \
          p->weights[0].storage = QGC_I32)                                                                  \
    BREAK("weight \"head\" is tied to weight 2, but there are 2", p->weights[0].tied = 2)                   \
    BREAK("weight \"head\" is tied to weight -2, but there are 2", p->weights[0].tied = -2)                 \
    BREAK("weight \"head\" is tied to weight 0, which is tied too", p->weights[0].tied = 0)                 \
    BREAK("weight \"head\" is tied to weight 1, which has another shape", p->weights[1].shape[0]--)         \
    BREAK("buffer 4 has no name", p->buffers[SMALL_X].name = NULL)                                          \
    BREAK("buffer \"x\" has an impossible size", p->buffers[SMALL_X].bytes.per_token = -1)                  \
    BREAK("buffer \"x\" has an impossible size", p->buffers[SMALL_X].bytes.most_ctx = 8)                    \
    BREAK("buffer \"cache\" has an impossible size", p->buffers[SMALL_CACHE].bytes.most_ctx = -1)           \
    BREAK("buffer \"x\" has an impossible size", p->buffers[SMALL_X].bytes.fixed = INT64_MIN)               \
    BREAK("buffer \"x\" has an impossible size", p->buffers[SMALL_X].bytes.per_token = (int64_t)1 << 40)    \
    BREAK("buffer \"x\" is of unknown kind 7", p->buffers[SMALL_X].kind = QGC_N_BUFFER_KINDS)               \
    BREAK("the size of buffer \"embed\" depends on what it may not depend on",                              \
          p->buffers[SMALL_EMBED].bytes.per_ctx = 1)                                                        \
    BREAK("the size of buffer \"cache\" depends on what it may not depend on",                              \
          p->buffers[SMALL_CACHE].bytes.per_token = 1)                                                      \
    BREAK("the size of buffer \"table\" depends on what it may not depend on",                              \
          p->buffers[SMALL_TABLE].bytes.per_row = 1)                                                        \
    BREAK("the size of buffer \"x\" depends on what it may not depend on",                                  \
          p->buffers[SMALL_X].bytes.per_ctx = 1)                                                            \
    BREAK("buffer \"embed\" is for weight 2, but there are 2", p->buffers[SMALL_EMBED].weight = 2)          \
    BREAK("buffer \"embed\" is for weight -1, but there are 2", p->buffers[SMALL_EMBED].weight = -1)        \
    BREAK("buffer \"embed\" has 63 bytes, but weight \"embed\" has 64",                                     \
          p->buffers[SMALL_EMBED].bytes.fixed = 63)                                                         \
    BREAK("buffer \"x\" starts at byte 128 of the scratch memory, expected a multiple of 256",              \
          p->buffers[SMALL_X].offset = 128)                                                                 \
    BREAK("buffer \"x\" starts at byte -256 of the scratch memory, expected a multiple of 256",             \
          p->buffers[SMALL_X].offset = -256)                                                                \
    BREAK("buffer \"x\" has unknown role -1", p->buffers[SMALL_X].kind = QGC_BUFFER_IO)                     \
    BREAK("buffer \"x\" has role 0, which another buffer has", p->buffers[SMALL_X].kind = QGC_BUFFER_IO;    \
          p->buffers[SMALL_X].io = 0)                                                                       \
    BREAK("role 3 has buffer 14, but there are 14", p->io[QGC_IO_LOGITS] = SMALL_N_BUFFERS)                 \
    BREAK("role 3 has buffer -1, but there are 14", p->io[QGC_IO_LOGITS] = -1)                              \
    BREAK("role 3 has buffer 4, which is for something else", p->io[QGC_IO_LOGITS] = SMALL_X)               \
    BREAK("role 3 has buffer 6, which is for something else", p->io[QGC_IO_LOGITS] = SMALL_IO)              \
    BREAK("buffer \"tokens\" is too small for the role \"tokens\"",                                         \
          p->buffers[SMALL_IO].bytes.per_token = 3)                                                         \
    BREAK("buffer \"logits\" is too small for the role \"logits\"", p->vocab = 9)                           \
    BREAK("buffer \"sampling\" is too small for the role \"sampling\"",                                     \
          p->buffers[SMALL_IO + QGC_IO_SAMPLING].bytes.fixed = 31)                                          \
    BREAK("buffer \"ring\" is too small for the role \"ring\"",                                             \
          p->buffers[SMALL_IO + QGC_IO_RING].bytes.fixed = 3)                                               \
    BREAK("kernel 0 has no name, entry or options", p->kernels[0].name = NULL)                              \
    BREAK("kernel 0 has no name, entry or options", p->kernels[0].entry = NULL)                             \
    BREAK("kernel 0 has no name, entry or options", p->kernels[0].options = NULL)                           \
    BREAK("kernel \"fill.cu\" has 0 + 0 threads a block, expected 1 to 1024", p->kernels[0].threads = 0)    \
    BREAK("kernel \"fill.cu\" has 1025 + 0 threads a block, expected 1 to 1024",                            \
          p->kernels[0].threads = 1025)                                                                     \
    BREAK("kernel \"fill.cu\" has 1000 + 32 threads a block, expected 1 to 1024",                           \
          p->kernels[0].threads = 1000;                                                                     \
          p->kernels[0].copy_threads = 32)                                                                  \
    BREAK("kernel \"fill.cu\" has 64 + -1 threads a block, expected 1 to 1024",                             \
          p->kernels[0].copy_threads = -1)                                                                  \
    BREAK("kernel \"fill.cu\" has -1 bytes of shared memory, expected 0 to 232448",                         \
          p->kernels[0].shared_bytes = -1)                                                                  \
    BREAK("kernel \"fill.cu\" has 1 bytes of shared memory at least, expected 0 to 0",                      \
          p->kernels[0].least_shared_bytes = 1)                                                             \
    BREAK("kernel \"fill.cu\" lets the next one start at an unknown time 3",                                \
          p->kernels[0].lets_next = QGC_N_NEXT)                                                             \
    BREAK("the plan has 3 images, expected 4", p->n_images = 3)                                             \
    BREAK("image 3 is of kernel 2, but there are 2", p->images[3].kernel = 2)                               \
    BREAK("image 3 is for architecture 2, but there are 2", p->images[3].arch = 2)                          \
    BREAK("image 3 is empty", p->images[3].data = NULL)                                                     \
    BREAK("image 3 is empty", p->images[3].bytes = 0)                                                       \
    BREAK("kernel \"fill.cu\" has two images for \"sm_80\"", p->images[3].kernel = 0)

/* `l` is the launch of a kernel in prefill, `m` the product of matrices in decode. */
#define BROKEN_LAUNCHES                                                                                     \
    BREAK("phase \"decode\" of the plan is empty", p->phases[2].n_launches = 0)                             \
    BREAK("launch 0 of phase 1 does not say of which node it is", l->node = NULL)                           \
    BREAK("launch 0 of phase 1 does not say of which node it is", l->where = NULL)                          \
    BREAK("launch \"embedding x\" reads -1 bytes of weights", l->weight_bytes = -1)                         \
    BREAK("launch \"embedding x\" reads -8 bytes of caches for a position", l->position_bytes = -8)         \
    BREAK("launch \"embedding x\" is of unknown kind 2", l->kind = QGC_N_LAUNCH_KINDS)                      \
    BREAK("launch \"embedding x\" is of kernel 2, but there are 2", l->kernel = 2)                          \
    BREAK("launch \"embedding x\" is of kernel -1, but there are 2", l->kernel = -1)                        \
    BREAK("launch \"embedding x\" has 29 arguments, expected 0 to 28", l->n_args = 29)                      \
    BREAK("launch \"embedding x\" has -1 arguments, expected 0 to 28", l->n_args = -1)                      \
    BREAK("argument 0 of launch \"embedding x\" is of unknown kind 3", l->args[0].kind = QGC_N_ARG_KINDS)   \
    BREAK("launch \"embedding x\" names buffer 14, but there are 14", l->args[0].buffer = SMALL_N_BUFFERS)  \
    BREAK("launch \"embedding x\" names buffer -1, but there are 14", l->args[0].buffer = -1)               \
    BREAK("argument 0 of launch \"embedding x\" has an impossible value",                                   \
          l->args[0].value.per_row = INT64_MIN)                                                             \
    BREAK("argument 0 of launch \"embedding x\" points outside buffer \"embed\"",                           \
          l->args[0].value.fixed = 65)                                                                      \
    BREAK("argument 0 of launch \"embedding x\" points outside buffer \"embed\"",                           \
          l->args[0].value.fixed = -1)                                                                      \
    BREAK("argument 2 of launch \"embedding x\" points outside buffer \"x\"", l->args[2].value.fixed--)     \
    BREAK("launch \"embedding x\" is to start early: it is in no phase in which launches do",               \
          l->early = true)                                                                                  \
    BREAK(                                                                                                  \
        "launch \"linear logits\" is to start early: it is a product of cuBLAS, whose kernels do not wait", \
        m->early = true)                                                                                    \
    BREAK("argument 0 of launch \"embedding x\" has impossible access 16", l->args[0].access = 16)          \
    BREAK("argument 0 of launch \"embedding x\" has impossible access 4", l->args[0].access = QGC_EARLY)    \
    BREAK("argument 3 of launch \"embedding x\" has impossible access 1", l->args[3].access = QGC_READS)    \
    BREAK("argument 0 of launch \"embedding x\" overwrites weight \"embed\"",                               \
          l->args[0].access = QGC_WRITES)                                                                   \
    BREAK("argument 3 of launch \"embedding x\" does not fit 32 bits",                                      \
          l->args[3].value.per_token = (1 << 27) + 1)                                                       \
    BREAK("argument 3 of launch \"embedding x\" does not fit 32 bits", l->args[3].value.per_ctx = -256)     \
    BREAK("argument 3 of launch \"embedding x\" does not fit 32 bits", l->args[3].value.most_ctx = 8)       \
    BREAK("launch \"embedding x\" gives a block 0 along y, expected 1 to 2147483647", l->per_block[1] = 0)  \
    BREAK("the grid of launch \"embedding x\" may be outside 1 to 65535 along y",                           \
          l->grid[1].per_token = 4096)                                                                      \
    BREAK("the grid of launch \"embedding x\" may be outside 1 to 65535 along z", l->grid[2].fixed = 0)     \
    BREAK("the grid of launch \"embedding x\" may be outside 1 to 2147483647 along x",                      \
          l->grid[0].per_ctx = 128)                                                                         \
    BREAK("the grid of launch \"embedding x\" may be outside 1 to 2147483647 along x",                      \
          l->grid[0].per_token = (int64_t)1 << 60)                                                          \
    BREAK("buffer \"x\" of launch \"embedding x\" ends after the 640 bytes of the scratch memory",          \
          p->buffers[SMALL_X].offset = 512)                                                                 \
    BREAK("launch \"linear logits\" names buffer 14, but there are 14", m->b = SMALL_N_BUFFERS)             \
    BREAK("launch \"linear logits\" names buffer -1, but there are 14", m->c = -1)                          \
    BREAK("the product of launch \"linear logits\" may have dimensions outside 1 to 2147483647", m->n = 0)  \
    BREAK("the product of launch \"linear logits\" may have dimensions outside 1 to 2147483647", m->k = -1) \
    BREAK("the product of launch \"linear logits\" may have dimensions outside 1 to 2147483647",            \
          m->rows.per_row = 0)                                                                              \
    BREAK("the product of launch \"linear logits\" overwrites what it reads", m->c = m->a)                  \
    BREAK("the product of launch \"linear logits\" overwrites what it reads", m->c = SMALL_EMBED)           \
    BREAK("buffer \"x bf16\" is too small for a of the product of launch \"linear logits\"",                \
          m->rows.fixed = 1)                                                                                \
    BREAK("buffer \"head\" is too small for b of the product of launch \"linear logits\"", m->k = 4;        \
          m->n = 9)                                                                                         \
    BREAK("buffer \"logits\" is too small for c of the product of launch \"linear logits\"",                \
          m->a = SMALL_CACHE;                                                                               \
          m->rows.per_row = 2)                                                                              \
    BREAK("buffer \"x bf16\" is too small for a of the product of launch \"linear logits\"",                \
          m->k = INT32_MAX;                                                                                 \
          m->rows.per_row = INT32_MAX)

static void expect(qgc_plan *p, const char *message, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    assert_int_equal(qgc_plan_check(p, QGC_NO_LOC, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), message);
}

#define BREAK(message, ...)               \
    {                                     \
        qgc_plan *p = small_plan(*state); \
        __VA_ARGS__;                      \
        expect(p, message, *state);       \
    }

/* What a block takes of the GPUs of an image: what there is, between the least that the kernel needs and the most that it makes use
 * of; PTX what all have that run it. */
static void a_kernel_takes_what_an_architecture_has(void **state) {
    (void)state;
    const qgc_plan_kernel ring = {.threads = 480,
                                  .copy_threads = 32,
                                  .shared_bytes = 232448,
                                  .least_shared_bytes = 84480},
                          fixed = {.threads = 480, .shared_bytes = 70000},
                          card = {.shared_bytes = 101376, .least_shared_bytes = 101376};
    static const struct {
        const char *arch;
        int bytes, threads;
    } want[] = {{"sm_75", 84480, 512},       {"sm_80", 166912, 512},       {"sm_86", 101376, 512},
                {"sm_89", 101376, 512},      {"sm_90a", 232448, 480},      {"sm_100f", 232448, 480},
                {"sm_120", 101376, 480},     {"compute_75", 84480, 512},   {"compute_80", 101376, 512},
                {"compute_90", 101376, 480}, {"compute_90a", 232448, 480}, {"compute_100f", 232448, 480}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_int_equal(qgc_kernel_shared_bytes(&ring, want[i].arch), want[i].bytes);
        assert_int_equal(qgc_kernel_threads(&ring, want[i].arch), want[i].threads);
        assert_int_equal(qgc_kernel_shared_bytes(&fixed, want[i].arch), 70000);
        assert_int_equal(qgc_kernel_threads(&fixed, want[i].arch), 480);
        assert_int_equal(qgc_kernel_shared_bytes(&card, want[i].arch), 101376);
    }
}

static void names_what_is_wrong_with_the_head(void **state) {
    BROKEN_HEADS
}

static void names_what_is_wrong_in_a_table(void **state) {
    BROKEN_TABLES
}

#undef BREAK
#define BREAK(message, ...)                                             \
    {                                                                   \
        qgc_plan *p = small_plan(*state);                               \
        qgc_plan_launch *l = &p->phases[QGC_PHASE_PREFILL].launches[0]; \
        qgc_plan_launch *m = &p->phases[QGC_PHASE_DECODE].launches[1];  \
        (void)l, (void)m;                                               \
        __VA_ARGS__;                                                    \
        expect(p, message, *state);                                     \
    }

static void names_what_is_wrong_with_a_launch(void **state) {
    BROKEN_LAUNCHES
}

/* Scratch of decode alone is planned for one token. */
static void scratch_needs_room_for_the_phases_that_use_it(void **state) {
    qgc_plan *p = small_plan(*state);
    qgc_phase *prefill = &p->phases[QGC_PHASE_PREFILL];
    p->buffers[SMALL_X_BF16].bytes.per_token = 2 * SMALL_D * SMALL_CHUNK;
    expect(p, "buffer \"x bf16\" of launch \"linear logits\" ends after the 640 bytes of the scratch memory",
           *state);
    prefill->n_launches = 1;
    qgc_diag d = qgc_diag_new(*state);
    assert_int_equal(qgc_plan_check(p, QGC_NO_LOC, &d), QGC_OK);
}

/* Where the table of the embedding is the head, too, they are one tensor; of another type a head is one of its own, and does not stay
 * with the table. */
static void a_tied_weight_has_memory_of_its_own_where_it_is_stored_otherwise(void **state) {
    enum { HEAD, EMBED, ALIGNED = 256 }; /* weights */
    qgc_plan *p = small_plan(*state);
    bool stays[2];
    assert_int_equal(p->weights[HEAD].tied, EMBED);
    qgc_plan_launch *reads = &p->phases[QGC_PHASE_INIT].launches[0];
    reads->args[0] = (qgc_plan_arg){.kind = QGC_ARG_BUFFER, .buffer = SMALL_EMBED, .access = QGC_READS};
    for (int own = 0; own < 2; own++) {
        p->weights[HEAD].storage = own ? QGC_F32 : p->weights[EMBED].storage;
        assert_int_equal(qgc_plan_weight_root(p, HEAD), own ? HEAD : EMBED);
        assert_int_equal(qgc_plan_weight_bytes(p, NULL), own ? 2 * ALIGNED : ALIGNED);
        for (size_t i = 0; i < QGC_N_PHASES; i++)
            p->phases[i].n_launches = i == QGC_PHASE_INIT;
        qgc_plan_staying(p, stays);
        assert_true(stays[EMBED]);
        assert_int_equal(stays[HEAD], !own);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(extent_is_linear_in_each_size),
        ARENA_TEST(sizes_are_added_up_to_a_limit),
        ARENA_TEST(accepts_the_small_plan),
        ARENA_TEST(a_kernel_takes_what_an_architecture_has),
        ARENA_TEST(names_what_is_wrong_with_the_head),
        ARENA_TEST(names_what_is_wrong_in_a_table),
        ARENA_TEST(names_what_is_wrong_with_a_launch),
        ARENA_TEST(scratch_needs_room_for_the_phases_that_use_it),
        ARENA_TEST(a_tied_weight_has_memory_of_its_own_where_it_is_stored_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
