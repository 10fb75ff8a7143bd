/* Into the plan: the buffers of the persistent kernel, the launches that put weights where it reads them, and its own. */

#include <assert.h>
#include <string.h>

#include "codegen/persistent/persistent.h"
#include "graph/base/str.h"

enum {
    BATCH = 96, /* rows of a multiprocessor that a thread's carried value can be for */
    PRODUCER_THREADS = 32,
    PACK_THREADS = 512,
    VECTOR_THREADS = 256,
    MOST_VECTORS = 5, /* of pack_vectors.cu */
};

typedef struct {
    qgc_persistent *p;
    int stream, small, caches, shares, exchange, epoch;
} emitter;

static int packed(const qgc_persistent *p, const char *name, int64_t bytes) {
    return qgc_low_buffer_of_kind(p->l, name, QGC_BUFFER_PACKED,
                                  (qgc_extent){.fixed = bytes > 0 ? bytes : 4});
}

static int streamed(const qgc_persistent *p, const char *name, int64_t bytes) {
    return qgc_low_buffer_of_kind(p->l, name, QGC_BUFFER_STREAM,
                                  (qgc_extent){.fixed = bytes > 0 ? bytes : 4});
}

static emitter make_buffers(qgc_persistent *p) {
    return (emitter){
        .p = p,
        .stream = streamed(p, "stream", p->stream),
        .small = streamed(p, "small vectors", 4 * p->small),
        .caches = packed(p, "addresses of caches", (int64_t)8 * p->n_caches),
        .shares = streamed(p, "shares", (int64_t)8 * QGC_MOST_BLOCKS * p->n_shares),
        .exchange = packed(p, "exchange", 4 * p->exchange),
        .epoch = packed(p, "epoch", 12),
    };
}

static void arg_at(qgc_plan_launch *launch, int buffer, int64_t bytes, int access) {
    qgc_low_arg_buffer(launch, buffer, access);
    launch->args[launch->n_args - 1].value.fixed = bytes;
}

/* --- packing --------------------------------------------------------------------------------------------- */

static const char *label(const qgc_persistent *p, const qgc_instance *i) {
    return i->layer < 0 ? i->name : qgc_low_text(p->l, "%s[%d]", i->name, i->layer);
}

/* What pack.cu and pack_blocks.cu are told of the types: of matrices that lie in the stream as they are stored nothing, if they are
 * of 16 bits; else the one type; of those that are rounded to f16 all types. */
static void pack_types(qgc_lowering *l, const qgc_instance *i, const char **options) {
    if (qgc_dtype_is_quantised(i->weight)) {
        options[0] = qgc_low_type(l, "FORMAT", i->weight);
        return;
    }
    bool widens = false;
    for (int k = 0; k < i->n_matrices; k++)
        widens |= qgc_dtype_is_quantised(qgc_weight_storage(i->linear[k]->in[1]));
    for (int k = 0; k < QGC_MAX_LINEARS && widens; k++) {
        const qgc_value *w = i->linear[k < i->n_matrices ? k : 0]->in[1];
        options[k] = qgc_low_text(l, "-DWEIGHT%d=%s", k, qgc_low_type_name(qgc_weight_storage(w)));
    }
}

/* Where the rows of a phase are, with room for the types after them. */
static const char **place_options(const emitter *e, int phase, const qgc_instance *i) {
    enum { ROOM = 20 };
    qgc_lowering *l = e->p->l;
    const char **options = qgc_arena_array(l->arena, ROOM, sizeof *options);
    int n = 0;
    options[n++] = qgc_low_int(l, "K", i->k);
    options[n++] = qgc_low_int(l, "WARPS", e->p->warps);
    options[n++] = qgc_low_int(l, "INTERLEAVED", i->interleaved);
    for (int k = 0; k < QGC_MAX_LINEARS; k++)
        options[n++] = qgc_low_text(l, "-DOUT%d=%lld", k,
                                    k < i->n_matrices ? (long long)qgc_low_width(i->linear[k]->out[0]) : 0LL);
    options[n++] = qgc_low_int(l, "SHARE", e->p->phases[phase].share);
    options[n++] = qgc_low_int(l, "SHARES", e->p->n_shares);
    options[n++] = qgc_arena_printf(l->arena, "-DPLACE=%s", qgc_persistent_place(e->p, phase));
    if (qgc_dtype_is_quantised(i->weight))
        options[n++] = qgc_low_int(l, "TILES", qgc_phase_tiles(e->p, phase));
    const int64_t at_once = qgc_stream_copy_bytes(l->most_shared_bytes);
    if (qgc_dtype_is_quantised(i->weight) && at_once != QGC_COPY_BYTES)
        options[n++] = qgc_low_int(l, "COPY_BYTES", at_once);
    assert(n + QGC_MAX_LINEARS < ROOM);
    return options;
}

static const char *const *pack_options(const emitter *e, int phase, const qgc_instance *i) {
    const char **options = place_options(e, phase, i);
    int n = 0;
    while (options[n])
        n++;
    pack_types(e->p->l, i, options + n);
    return options;
}

/* For those that read the matrices of an instance in the stream. */
static void note_streamed(const emitter *e, int phase, int iteration) {
    const qgc_instance *i = qgc_phase_instance(e->p, phase, iteration);
    const qgc_phase_place *at = &e->p->phases[phase];
    for (int k = 0; k < i->n_matrices; k++)
        e->p->l->streamed[i->linear[k]->in[1]->id] =
            (qgc_streamed){.stream = e->stream,
                           .shares = e->shares,
                           .at = at->stream_at + at->stream_step * iteration,
                           .type = i->weight,
                           .row_bytes = qgc_stream_row_bytes(i->weight, i->k, e->p->warps),
                           .step_bytes = qgc_stream_step_bytes(i->weight),
                           .place = place_options(e, phase, i)};
}

static bool comes_before(const qgc_node *a, const qgc_node *b) {
    while (a && a != b)
        a = a->next;
    return a != NULL;
}

/* Can the kernel of a product of many tokens compute the pointwise piece of a stage, too? */
static bool fuses(const qgc_instance *i) {
    const qgc_stage *s = i->stage;
    if (s->n_pointwise == 0 || i->n_matrices > 2 || i->n_outside > 1)
        return false;
    const qgc_value *result = s->pointwise[s->n_pointwise - 1]->out[0];
    return i->n_outside == 0 || (i->outside[0].from != QGC_OUTSIDE_ONE &&
                                 qgc_shape_equal(&i->outside[0].value->shape, &result->shape));
}

static void note_fused(qgc_lowering *l, const qgc_instance *i, qgc_packed *p) {
    const qgc_stage *s = i->stage;
    p->at = s->pointwise[s->n_pointwise - 1];
    p->fused = true;
    p->expression = i->expression;
    p->result = p->at->out[0];
    p->outside = i->n_outside ? i->outside[0].value : NULL;
    for (int k = 0; k < s->n_pointwise; k++)
        l->packed_of[s->pointwise[k]->id] = p;
}

/* How prefill computes the products of an instance. */
static void note_packed(const emitter *e, int phase, int iteration) {
    const qgc_instance *i = qgc_phase_instance(e->p, phase, iteration);
    qgc_lowering *l = e->p->l;
    qgc_packed *p = qgc_arena_alloc(l->arena, sizeof *p);
    *p = (qgc_packed){.name = label(e->p, i), .linear = i->linear, .n = i->n_matrices, .at = i->linear[0]};
    for (int k = 0; k < i->n_matrices; k++) {
        p->at = comes_before(i->linear[k], p->at) ? i->linear[k] : p->at;
        l->packed_of[i->linear[k]->id] = p;
    }
    if (fuses(i))
        note_fused(l, i, p);
}

static void pack_rows(const emitter *e, int phase, int iteration) {
    qgc_lowering *l = e->p->l;
    const qgc_instance *i = qgc_phase_instance(e->p, phase, iteration);
    const qgc_phase_place *at = &e->p->phases[phase];
    const char *file = qgc_dtype_is_quantised(i->weight) ? "pack_blocks.cu" : "pack.cu";
    qgc_plan_launch *launch =
        qgc_low_launch(l, QGC_PHASE_PACK, qgc_low_kernel(l, file, PACK_THREADS, pack_options(e, phase, i)));
    launch->on_all = true;
    launch->node = label(e->p, i);
    for (int k = 0; k < QGC_MAX_LINEARS; k++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, i->linear[k < i->n_matrices ? k : 0]->in[1]),
                           k < i->n_matrices ? QGC_READS : 0);
    arg_at(launch, e->stream, at->stream_at + at->stream_step * iteration, QGC_WRITES);
    qgc_low_arg_buffer(launch, e->shares, QGC_READS);
}

/* Vectors one after the other; NULL: zeros. */
static void pack_vectors(const emitter *e, const qgc_instance *i, const qgc_value *const *vectors,
                         const int64_t *sizes, int n, int64_t to) {
    qgc_lowering *l = e->p->l;
    const char *options[MOST_VECTORS + 2] = {NULL};
    int there = 0;
    assert(n <= MOST_VECTORS);
    for (int k = 0; k < MOST_VECTORS; k++) {
        options[k] = qgc_low_text(l, "-DN%d=%lld", k, (long long)(k < n ? sizes[k] : 0));
        there |= k < n && vectors[k] ? 1 << k : 0;
    }
    options[MOST_VECTORS] = qgc_low_int(l, "THERE", there);
    qgc_plan_launch *launch =
        qgc_low_launch(l, QGC_PHASE_PACK, qgc_low_kernel(l, "pack_vectors.cu", VECTOR_THREADS, options));
    launch->node = label(e->p, i);
    for (int k = 0; k < MOST_VECTORS; k++) {
        const bool reads = k < n && vectors[k];
        qgc_low_arg_buffer(launch, reads ? qgc_low_buffer(l, vectors[k]) : e->small, reads ? QGC_READS : 0);
    }
    arg_at(launch, e->small, 4 * to, QGC_WRITES);
}

static void pack_vector(const emitter *e, const qgc_instance *i, const qgc_value *v, int64_t to) {
    const int64_t size = qgc_low_width(v);
    pack_vectors(e, i, (const qgc_value *[]){v}, &size, 1, to);
}

static void pack_outside_weights(const emitter *e, const qgc_instance *i, const qgc_phase_place *at,
                                 int64_t base) {
    for (int k = 0; i->does == QGC_DO_OUTSIDE && k < i->stage->outside->row.n_params; k++)
        if (i->phase.params[k] == QGC_PHASE_WEIGHT)
            pack_vector(e, i, i->stage->outside->value[i->stage->outside->row.params[k].value],
                        at->weights_at[k] + base);
}

static void pack_biases(const emitter *e, const qgc_instance *i, int64_t to) {
    const qgc_value *biases[QGC_MAX_LINEARS];
    int64_t sizes[QGC_MAX_LINEARS];
    for (int k = 0; k < i->n_matrices; k++) {
        biases[k] = i->linear[k]->n_in > 2 ? i->linear[k]->in[2] : NULL;
        sizes[k] = qgc_low_width(i->linear[k]->out[0]);
    }
    pack_vectors(e, i, biases, sizes, i->n_matrices, to);
}

static void pack_addresses(const emitter *e, const qgc_instance *i, const qgc_phase_place *at,
                           int iteration) {
    qgc_lowering *l = e->p->l;
    const char *options[] = {NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, QGC_PHASE_BEGIN, qgc_low_kernel(l, "pack_addresses.cu", 1, options));
    launch->node = label(e->p, i);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, i->key_state), 0); /* their addresses, not what is there */
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, i->value_state), 0);
    arg_at(launch, e->caches, (int64_t)8 * (at->caches_at + at->caches_step * iteration), QGC_WRITES);
}

static void pack_instance(const emitter *e, int phase, int iteration) {
    const qgc_instance *i = qgc_phase_instance(e->p, phase, iteration);
    const qgc_phase_place *at = &e->p->phases[phase];
    const int64_t base = e->p->loops[at->loop].small_step * iteration;
    if (i->does == QGC_DO_PRODUCTS) {
        pack_rows(e, phase, iteration);
        note_streamed(e, phase, iteration);
        note_packed(e, phase, iteration);
    }
    if (i->norm && i->does != QGC_DO_CLOSE)
        pack_vector(e, i, i->norm->in[1], at->norm_at + base);
    if (at->bias_at >= 0 && i->does == QGC_DO_NORM)
        pack_vector(e, i, i->norm->in[2], at->bias_at + base);
    else if (at->bias_at >= 0)
        pack_biases(e, i, at->bias_at + base);
    pack_outside_weights(e, i, at, base);
    if (i->does == QGC_DO_ATTENTION) {
        pack_addresses(e, i, at, iteration);
        if (i->q.norm)
            pack_vector(e, i, i->q.norm->in[1], at->norm_at + base);
        if (i->keys.norm)
            pack_vector(e, i, i->keys.norm->in[1], at->k_norm_at + base);
        if (i->attention->n_in > 4)
            pack_vector(e, i, i->attention->in[4], at->sinks_at + base);
    }
}

/* --- the kernel ------------------------------------------------------------------------------------------ */

static int64_t position_bytes(const qgc_instance *i) {
    int64_t bytes = 0;
    const bool all = i->attention && qgc_low_attr(i->attention, "window") == 0;
    for (int k = 1; all && k <= 2; k++)
        bytes += i->attention->in[k]->shape.dim[0] *
                 (int64_t)qgc_dtype_bytes(i->attention->in[k]->dtype, i->attention->in[k]->shape.dim[2]);
    return bytes;
}

static void name_parts(const qgc_persistent *p, qgc_plan_launch *launch) {
    launch->n_parts = p->n_phases;
    launch->n_layers = 1;
    launch->parts = qgc_arena_array(p->l->arena, (size_t)p->n_phases, sizeof *launch->parts);
    for (int k = 0; k < p->n_phases; k++) {
        qgc_plan_part *part = &launch->parts[k];
        *part = (qgc_plan_part){.name = qgc_phase_instance(p, k, 0)->name};
        if (qgc_phase_instance(p, k, 0)->does == QGC_DO_MERGE)
            part->name = qgc_low_text(p->l, "merge of %s", part->name);
        for (int i = 0; i < qgc_phase_count(p, k); i++) {
            const qgc_instance *instance = qgc_phase_instance(p, k, i);
            part->weight_bytes += qgc_instance_weights(p, instance);
            part->position_bytes += position_bytes(instance);
        }
        if (qgc_phase_count(p, k) > launch->n_layers)
            launch->n_layers = qgc_phase_count(p, k);
        launch->weight_bytes += part->weight_bytes;
        launch->position_bytes += part->position_bytes;
    }
}

typedef struct {
    int buffer, access;
} argument;

/* What is not there is never looked at, and the small vectors take its place. */
static argument if_there(const emitter *e, bool there, int buffer, int access) {
    return there ? (argument){buffer, access} : (argument){e->small, 0};
}

static void launch_kernel(const emitter *e, int kernel) {
    const qgc_persistent *p = e->p;
    qgc_lowering *l = p->l;
    const int *io = l->plan->io;
    int ropes[QGC_MOST_ROPES];
    for (int i = 0; i < QGC_MOST_ROPES; i++)
        ropes[i] = i < p->n_ropes ? qgc_low_rope_table(l, p->ropes[i]) : -1;
    const int mark = p->mark ? qgc_low_buffer(l, p->mark->out[0]) : -1;
    const int parts = p->part ? qgc_low_buffer(l, p->part->out[0]) : -1;
    const argument args[] = {
        {e->stream, QGC_READS | QGC_EARLY},
        {e->small, QGC_READS | QGC_EARLY},
        if_there(e, p->n_caches > 0, e->caches, QGC_READS | QGC_FOLLOWS | QGC_EARLY),
        {e->shares, QGC_READS | QGC_EARLY},
        if_there(e, p->table != NULL, p->table ? qgc_low_buffer(l, p->table) : -1, QGC_READS),
        if_there(e, ropes[0] >= 0, ropes[0], QGC_READS | QGC_EARLY),
        if_there(e, ropes[1] >= 0, ropes[1], QGC_READS | QGC_EARLY),
        {io[QGC_IO_TOKENS], QGC_READS},
        {io[QGC_IO_POSITIONS], QGC_READS},
        {e->exchange, QGC_READS | QGC_WRITES},
        {e->epoch, QGC_READS | QGC_WRITES | QGC_EARLY},
        {io[QGC_IO_LOGITS], QGC_WRITES},
        {io[QGC_IO_FAULT], QGC_READS | QGC_WRITES},
        if_there(e, mark >= 0, mark, QGC_READS | QGC_WRITES),
        {io[QGC_IO_SAMPLING], p->part ? QGC_READS : 0},
        if_there(e, parts >= 0, parts, QGC_WRITES),
        if_there(e, l->plan->trace >= 0, l->plan->trace, QGC_WRITES),
    };
    qgc_plan_launch *launch = qgc_low_launch(l, QGC_PHASE_PERSISTENT, kernel);
    launch->on_all = true;
    launch->node = "persistent";
    name_parts(p, launch);
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        qgc_low_arg_buffer(launch, args[i].buffer, args[i].access);
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
    qgc_low_arg_early(launch);
}

/* The name under which the kernel is tuned: its products. */
static const char *name_of(const qgc_persistent *p) {
    qgc_str t = qgc_str_new(p->l->arena);
    qgc_str_add(&t, "persistent.cu");
    for (int k = 0; k < p->n_loops; k++) {
        const qgc_loop *l = &p->loops[k];
        for (int i = 0; i < l->period; i++) {
            const qgc_instance *x = &p->instances[l->first + i];
            if (x->does != QGC_DO_PRODUCTS)
                continue;
            qgc_str_printf(&t, " %d x %lldx%lld", l->count, (long long)x->rows, (long long)x->k);
            qgc_dtype formats[QGC_N_DTYPES];
            const int n = qgc_phase_formats(p, l->first_phase + i, formats);
            for (int f = 0; f < n; f++)
                qgc_str_printf(&t, "%c%s", f ? '+' : ' ', qgc_dtypes[formats[f]].name);
        }
    }
    return t.text;
}

/* The longest row of products in a loop: a warp's part of it takes registers that then cannot hold weights. */
static int64_t longest_row(const qgc_persistent *p) {
    int64_t most = 0;
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].does == QGC_DO_PRODUCTS && p->instances[i].k > most)
            most = p->instances[i].k;
    return most;
}

static int64_t shortest_row(const qgc_persistent *p) {
    int64_t least = longest_row(p);
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].does == QGC_DO_PRODUCTS && p->instances[i].k < least)
            least = p->instances[i].k;
    return least;
}

/* Bytes that a phase reads of the weights, in the loop that reads most of them. */
static int64_t bytes_of_a_phase(const qgc_persistent *p) {
    int64_t most = 0;
    for (int k = 0; k < p->n_loops; k++) {
        const qgc_loop *l = &p->loops[k];
        const int64_t bytes = p->phases[l->first_phase].stream_step / l->period;
        if (l->count > 1 && bytes > most)
            most = bytes;
    }
    return most;
}

/* A tile of keys is as long as attention can take it. */
static bool tiles_are_whole(const qgc_persistent *p) {
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].attention &&
            qgc_persistent_span(p, p->instances[i].attention->in[1]->shape.dim[2]) < 64)
            return false;
    return true;
}

/* Are rows of one chunk for the warps of a block, and the longest of few? There a warp that waits for several tiles at once has fewer
 * instructions before an activation comes; where all rows are of several chunks it was slower when that was measured
 * (docs/performance.md). */
static bool waits_for_several(const qgc_persistent *p) {
    return p->warps <= 14 && shortest_row(p) / 64 <= p->warps && longest_row(p) / 64 / p->warps <= 8;
}

bool qgc_persistent_copies_in_bulk(const qgc_persistent *p) {
    return p->l->least_arch == 0 || p->l->least_arch >= QGC_FIRST_WITH_BULK_COPIES;
}

/* Bytes of a phase; BLOCKS: of block formats. */
enum { LONG_PHASE = 20000000, SHORT_PHASE = 10000000, FEW_BLOCKS = 6000000, SHORT_BLOCKS = 3000000 };

/* Warps of which each has many registers, and some. */
enum { NONE = 1 /* settings are never 0 */, MANY_EACH = 11, SOME_EACH = 14 };

/* Registers for unpacked tiles: a second copying warp takes some from all, up to 11 warps leave many, more than 14 few. K formats gain by
 * them only where phases are short: the code that they take more is fetched again in each layer. */
static int64_t registers_held(const qgc_persistent *p) {
    const bool room = p->warps <= SOME_EACH;
    const int64_t bytes = bytes_of_a_phase(p);
    if (!qgc_persistent_copies_in_bulk(p))
        return qgc_persistent_has_k_formats(p) ? NONE : 12;
    if (qgc_persistent_has_k_formats(p))
        return bytes >= FEW_BLOCKS ? NONE : room && bytes < SHORT_BLOCKS ? 36 : 24;
    return p->warps <= MANY_EACH || (room && bytes < SHORT_BLOCKS) ? 48 : 36;
}

/* K formats of few bits where phases are shortest: tiles are unpacked while an attention is waited for, and fewer of them have to be held. Of
 * more bits, and in other formats, that was slower. */
static bool of_short_k_formats(const qgc_persistent *p) {
    return qgc_persistent_copies_in_bulk(p) && qgc_persistent_has_k_formats(p) && p->warps <= SOME_EACH &&
           qgc_persistent_takes_few_bits(p) && bytes_of_a_phase(p) < SHORT_BLOCKS;
}

/* Are tiles of 16-bit weights taken while an attention is waited for? Where phases are long, memory is what is waited for. */
static bool is_prepared(const qgc_persistent *p) {
    return !qgc_persistent_has_blocks(p) && bytes_of_a_phase(p) < SHORT_PHASE;
}

/* Bytes in flight, where attention is cut or not. Where a phase is long, a third slot in flight is worth more than the exchange that it
 * delays; where it is short and attention is cut, one slot less is better, as there is an exchange more; where slots are small, as
 * those of eight warps are, four of them are enough. Measured: docs/performance.md. */
static int64_t depth_of(const qgc_persistent *p, bool cut) {
    enum { SMALL_SLOTS = 8 /* warps */ };
    const int64_t bytes = bytes_of_a_phase(p);
    const bool is_long = bytes >= LONG_PHASE;
    if (qgc_persistent_has_blocks(p))
        return is_long
                   ? 57500
                   : (bytes < SHORT_BLOCKS ? 29000 : 36000) - (qgc_persistent_has_k_formats(p) ? 7000 : 0);
    if (is_long)
        return 50000;
    return (cut && bytes < SHORT_PHASE) || p->warps <= SMALL_SLOTS ? 36000 : 43000;
}

/* Fragments of rows of several chunks that a warp holds: as many as registers leave room for. Eleven warps, and the one that copies, have
 * 168 of them each, and more have 128. */
static int64_t held_of_long_rows(const qgc_persistent *p) {
    enum { MOST_WITH_ROOM = 11 };
    if (p->warps <= MOST_WITH_ROOM)
        return 8;
    return longest_row(p) / 64 / p->warps > 8 ? 2 : 6;
}

/* Options that change the speed of the kernel only; the usual values were measured (docs/performance.md). */
static int speed_options(const qgc_persistent *p, const char *name, const char **options) {
    static const int64_t depths[] = {22000, 29000, 36000, 43000, 50000, 57500, 72000, 0};
    static const int64_t held[] = {1, 2, 4, 5, 6, 7, 8, 10, 0};
    static const int64_t together[] = {1, 2, 4, 6, 0};
    static const int64_t held_blocks[] = {1, 6, 12, 18, 24, 30, 36, 42, 48, 0},
                         at_once[] = {1, 2, 4, 6, 8, 0};
    static const int64_t parts[] = {4, 8, 16, 32, 64, 0}, alone[] = {16, 32, 48, 64, 96, 128, 192, 256, 0};
    const struct {
        const char *name;
        int64_t usual;
        const int64_t *candidates;
    } knobs[] = {{"DEPTH", depth_of(p, false), depths},
                 {"MERGE_DEPTH", depth_of(p, true), depths},
                 {"HEAD_DEPTH", 57500, depths},
                 {"HELD", is_prepared(p) ? 6 : 4, held},
                 {"HELD_LONG", held_of_long_rows(p), held},
                 {"TOGETHER", waits_for_several(p) ? 4 : 1, together},
                 {"PARTS", 16, parts},
                 {"PREPARED", is_prepared(p) ? 4 : NONE, held},
                 {"ALONE", tiles_are_whole(p) ? 128 : 64, alone},
                 {"HELD_BLOCKS", of_short_k_formats(p) ? 24 : registers_held(p), held_blocks},
                 {"HELD_LONG_BLOCKS", registers_held(p), held_blocks},
                 {"PREPARED_BLOCKS", of_short_k_formats(p) ? 40 : NONE, held_blocks},
                 {"TILES_AT_ONCE", 4, at_once}};
    const int count = (int)(sizeof knobs / sizeof *knobs),
              of_blocks = 4; /* the last ones are for blocks only */
    int n = 0;
    for (; n < (qgc_persistent_has_blocks(p) ? count : count - of_blocks); n++)
        options[n] =
            qgc_low_int(p->l, knobs[n].name,
                        qgc_low_setting(p->l, name, knobs[n].name, knobs[n].usual, knobs[n].candidates));
    return n;
}

/* Cycles in which as many bytes are asked for as the memory brings, or some more: 800 were best where a multiprocessor has its part of an
 * H100's 3,352 GB/s. */
static int64_t pace_on(const qgc_card *card) {
    enum { MEASURED = 800 };
    const double part = 3352e9 / QGC_TYPICAL_SMS;
    if (!card || !card->bandwidth || !card->sms)
        return MEASURED;
    return (int64_t)(MEASURED * part * card->sms / (double)card->bandwidth + 0.5);
}

/* How far the stream is asked for ahead of bulk copies, and how fast: usually where the ring is small, and weights are not of block
 * formats (docs/performance.md). */
static int ahead_options(const qgc_persistent *p, const char *name, const char **options) {
    enum { SMALL_RING = 150000 };
    static const int64_t distances[] = {14336, 57344, 114688, 172032, 229376, 0};
    static const int64_t paces[] = {500, 650, 800, 1000, 1300, 1600, 2000, 2700, 0};
    qgc_lowering *l = p->l;
    if (!qgc_persistent_copies_in_bulk(p))
        return 0;
    const int64_t usual = l->most_shared_bytes < SMALL_RING && !qgc_persistent_has_blocks(p) ? 172032 : 0;
    const int64_t distance = qgc_low_setting(l, name, "INTO_L2", usual, distances);
    options[0] = qgc_low_int(l, "INTO_L2", distance);
    if (distance == 0)
        return 1;
    options[1] =
        qgc_low_int(l, "AHEAD_PACE", qgc_low_setting(l, name, "AHEAD_PACE", pace_on(l->card), paces));
    return 2;
}

/* Blocks that one split of the positions takes. */
static int64_t units_of(const qgc_node *attention) {
    const qgc_shape *keys = &attention->in[1]->shape;
    const int64_t group = qgc_low_width(attention->in[0]) / keys->dim[2] / keys->dim[0];
    return keys->dim[0] * ((group + 7) / 8);
}

/* Shares are of equal bytes, and rows so only nearly of equal number. */
static int64_t least_sms(const qgc_persistent *p) {
    int64_t least = p->carried_width / (BATCH - 8) + 1;
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].attention && units_of(p->instances[i].attention) > least)
            least = units_of(p->instances[i].attention);
    return least;
}

/* What a ring can have, in whole units of its alignment. */
static int most_shared(const qgc_lowering *l) {
    enum { ALIGN = 128 };
    return l->most_shared_bytes / ALIGN * ALIGN;
}

/* Of a second warp that fills the ring before sm_90, unless it leaves all others fewer registers: persistent_step.cuh. */
static int copy_threads(const qgc_persistent *p) {
    return p->warps % 4 == 3 ? 0 : 32;
}

/* What a block takes of a multiprocessor. */
static void set_size(const qgc_persistent *p, unsigned probe, qgc_plan_kernel *k) {
    k->copy_threads = copy_threads(p);
    k->shared_bytes = most_shared(p->l);
    k->least_shared_bytes = p->l->card_alone
                                ? k->shared_bytes
                                : (int)qgc_persistent_ring_bytes(p, (probe & QGC_PROBE_TRACE) != 0);
}

static void emit(qgc_persistent *p, const char *name, const char *text, unsigned probe) {
    qgc_lowering *l = p->l;
    const char *options[27];
    int n = 0;
    options[n++] = qgc_low_int(l, "TRACE", (probe & QGC_PROBE_TRACE) != 0);
    if (probe & QGC_PROBE_NO_STREAM)
        options[n++] = "-DSTREAMS=0";
    if (probe & QGC_PROBE_NO_WAITS)
        options[n++] = "-DWAITS=0";
    if (l->sms !=
        QGC_TYPICAL_SMS) /* of the card that is compiled for: the kernel's default is the same number */
        options[n++] = qgc_low_int(l, "TYPICAL_SMS", l->sms);
    n += speed_options(p, name, options + n);
    n += ahead_options(p, name, options + n);
    options[n] = NULL;
    const int kernel =
        qgc_low_program(l, "persistent.cu", (int)p->warps * 32 + PRODUCER_THREADS, options, text);
    set_size(p, probe, &l->plan->kernels[kernel]);
    l->plan->least_sms = least_sms(p);
    emitter e = make_buffers(p);
    l->streamed = qgc_arena_array(l->arena, l->graph->n_values, sizeof *l->streamed);
    l->packed_of = qgc_arena_array(l->arena, (size_t)l->graph->next_node_id + 1, sizeof(qgc_packed *));
    l->plan->shares = p->shares;
    l->plan->n_shares = (size_t)p->n_shares;
    l->plan->shares_buffer = e.shares;
    if (probe & QGC_PROBE_TRACE)
        l->plan->trace = packed(p, "trace", qgc_trace_bytes(p->n_phases));
    for (int k = 0; k < p->n_phases; k++)
        for (int i = 0; i < qgc_phase_count(p, k); i++)
            pack_instance(&e, k, i);
    launch_kernel(&e, kernel);
}

/* Operands of long rows of block formats lie in shared memory, beside the ring. */
static bool operands_fit(qgc_persistent *p) {
    enum { MOST = 128 << 10 }; /* bytes */
    for (int i = 0; i < p->n_phases; i++) {
        const qgc_instance *x = qgc_phase_first(p, i);
        if (qgc_phase_operands(p, i) * p->warps * QGC_OPERAND_BYTES > MOST)
            return qgc_persistent_no(p, "rows of %lld elements of \"%s\" are too long for its shared memory",
                                     (long long)x->k, x->name);
    }
    return true;
}

static bool fits(qgc_persistent *p, unsigned probe, const char **name, const char **text) {
    if (!qgc_persistent_instances(p) || !qgc_persistent_loops(p) || !qgc_persistent_reuse(p))
        return false;
    *name = name_of(p);
    p->warps = qgc_persistent_warps(p, *name);
    qgc_persistent_shares(p);
    if (p->n_shares > QGC_MOST_SHARES)
        return qgc_persistent_no(p, "its products are cut in %d ways, and the plan has room for %d",
                                 p->n_shares, QGC_MOST_SHARES);
    qgc_persistent_vectors(p);
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].attention &&
            qgc_persistent_span(p, p->instances[i].attention->in[1]->shape.dim[2]) < 16)
            return qgc_persistent_no(p, "16 positions of \"%s\" are more than a tile", p->instances[i].name);
    if (!operands_fit(p))
        return false;
    const int64_t needs = qgc_persistent_ring_bytes(p, (probe & QGC_PROBE_TRACE) != 0);
    if (needs > most_shared(p->l))
        return qgc_persistent_no(p, "its ring needs %lld bytes of shared memory a block, and there are %d",
                                 (long long)needs, most_shared(p->l));
    return qgc_persistent_text(p, text);
}

qgc_status qgc_emit_persistent(qgc_lowering *l, unsigned probe, bool **covered, bool *does_fit) {
    qgc_stage *stages;
    qgc_persistent p = {
        .l = l, .covered = qgc_arena_array(l->arena, (size_t)l->graph->next_node_id + 1, sizeof(bool))};
    *covered = p.covered;
    *does_fit = false;
    QGC_TRY(qgc_stages_list(l->graph, l->uses, &stages, &p.n_stages, l->arena, l->diag));
    p.stages = stages;
    const char *name = NULL, *text = NULL;
    *does_fit = fits(&p, probe, &name, &text);
    if (*does_fit)
        emit(&p, name, text, probe);
    else
        l->plan->not_persistent = p.why;
    return QGC_OK;
}
