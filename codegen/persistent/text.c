/* The phases as the C++ that kernels/persistent.cu is compiled with. What depends on the iteration is a function of it. */

#include <stddef.h>
#include <string.h>

#include "codegen/persistent/persistent.h"
#include "graph/base/str.h"

typedef struct {
    qgc_persistent *p;
    qgc_str *t;
    int phase, count;
} writer;

static const char *const kinds[] = {"DO_PRODUCTS", "DO_ATTENTION", "DO_MERGE", "DO_EMBEDDING", "DO_NORM",
                                    "DO_HEADS",    "DO_POINTWISE", "DO_CLOSE", "DO_OUTSIDE"};

/* --- sources --------------------------------------------------------------------------------------------- */

/* Where an instance's vector is, and which use of it, said for iteration i of the reader. */
typedef struct {
    int phase; /* that makes it, -1: there is none */
    int64_t first;
    bool same_loop;
    int back; /* of the same loop: iterations ago; else the iteration */
} place;

static place place_of(const writer *w, int iteration, qgc_origin s) {
    const qgc_persistent *p = w->p;
    if (s.maker < 0)
        return (place){.phase = -1};
    const int maker = p->phase_of[s.maker], at = qgc_instance_iteration(p, s.maker);
    const bool same =
        p->phases[maker].loop == p->phases[w->phase].loop && p->loops[p->phases[maker].loop].count > 1;
    return (place){maker, s.first, same, same ? iteration - at : at};
}

static bool equal(const place *a, const place *b) {
    return a->phase == b->phase && a->first == b->first && a->same_loop == b->same_loop && a->back == b->back;
}

typedef qgc_origin source_of(const qgc_instance *i, int which);

static void write_offset(const writer *w, const place *at) {
    qgc_str_printf(w->t, "%lld",
                   at->phase < 0 ? 0LL : (long long)(w->p->phases[at->phase].vector + at->first));
}

static bool is_odd(const writer *w, int phase) {
    return qgc_phase_count(w->p, phase) % 2 != 0;
}

static void write_parity(const writer *w, const place *at) {
    if (at->phase < 0)
        qgc_str_add(w->t, "0");
    else if (at->same_loop)
        qgc_str_printf(w->t, "(i + %d%s) & 1", 2 + 1 - at->back, is_odd(w, at->phase) ? " + epoch" : "");
    else
        qgc_str_printf(w->t, "(%d%s) & 1", at->back + 1, is_odd(w, at->phase) ? " + epoch" : "");
}

/* A choice by iteration: for each run of iterations with the same place, what `write` makes of it. */
static void write_choice(const writer *w, source_of *of, int which,
                         void (*write)(const writer *, const place *)) {
    for (int i = 0; i < w->count;) {
        place at = place_of(w, i, of(qgc_phase_instance(w->p, w->phase, i), which));
        int end = i + 1;
        for (; end < w->count; end++) { /* where there is none, anything will do */
            const place next = place_of(w, end, of(qgc_phase_instance(w->p, w->phase, end), which));
            if (at.phase < 0)
                at = next;
            if (next.phase >= 0 && !equal(&at, &next))
                break;
        }
        if (end < w->count)
            qgc_str_printf(w->t, "i < %d ? ", end);
        write(w, &at);
        if (end < w->count)
            qgc_str_add(w->t, " : ");
        i = end;
    }
}

/* The three members that say where a vector is: x_from, x_parity, X_CLEAR. */
static void write_source(const writer *w, const char *name, const char *upper, source_of *of, int which) {
    bool clear = false;
    for (int i = 0; i < w->count; i++) {
        const place at = place_of(w, i, of(qgc_phase_instance(w->p, w->phase, i), which));
        clear = clear || (at.phase >= 0 && is_odd(w, at.phase));
    }
    qgc_str_printf(w->t, "    enum { %s_CLEAR = %d };\n    RULE int %s_from(int i) { return ", upper, clear,
                   name);
    write_choice(w, of, which, write_offset);
    qgc_str_printf(w->t, "; }\n    RULE u32 %s_parity(int i, u32 epoch) { return ", name);
    write_choice(w, of, which, write_parity);
    qgc_str_add(w->t, "; }\n");
}

static qgc_origin x_source(const qgc_instance *i, int which) {
    (void)which;
    return i->x;
}

static qgc_origin outside_source(const qgc_instance *i, int which) {
    return which < i->n_outside && i->outside[which].from != QGC_OUTSIDE_CARRIED ? i->outside[which].source
                                                                                 : (qgc_origin){-1, 0};
}

static qgc_origin heads_source(const qgc_instance *i, int which) {
    return which == 0 ? i->q.source : which == 1 ? i->keys.source : i->values.source;
}

/* --- numbers --------------------------------------------------------------------------------------------- */

/* Members that are as usual are left out: struct phase_defaults of kernels/persistent_step.cuh has them. */
static void constant(const writer *w, const char *name, int64_t value) {
    qgc_str_printf(w->t, "    enum { %s = %lld };\n", name, (long long)value);
}

static void number(const writer *w, const char *name, double value) {
    qgc_str_printf(w->t, "    RULE float %s() { return %s; }\n", name, qgc_low_float_text(w->p->l, value));
}

static const qgc_node *rope_of(const qgc_instance *i, int which) {
    return which == 0 ? i->q.rope : which == 1 ? i->keys.rope : i->rope;
}

/* A number of an iteration. */
typedef int64_t number_at(const writer *w, int iteration, int which);

/* Is it another one than in all iterations before? */
static bool is_new(const writer *w, number_at *of, int which, int iteration) {
    for (int i = 0; i < iteration; i++)
        if (of(w, i, which) == of(w, iteration, which))
            return false;
    return true;
}

static bool differs(const writer *w, number_at *of, int which) {
    for (int i = 1; i < w->count; i++)
        if (of(w, i, which) != of(w, 0, which))
            return true;
    return false;
}

/* Of iterations from `first` on, 64 at most: a set of bits for each number but the first one. */
static void write_numbers(const writer *w, number_at *of, int which, int first) {
    const int end = first + 64 < w->count ? first + 64 : w->count;
    for (int k = 1; k < w->count; k++) {
        uint64_t set = 0;
        for (int i = first; i < end; i++)
            set |= (uint64_t)(of(w, i, which) == of(w, k, which)) << (i - first);
        if (set && is_new(w, of, which, k))
            qgc_str_printf(w->t, "0x%llxull >> i %% 64 & 1 ? %lld : ", (unsigned long long)set,
                           (long long)of(w, k, which));
    }
    qgc_str_printf(w->t, "%lld", (long long)of(w, 0, which));
}

/* A member that says a number of iteration i, unless it is as usual in all of them. */
static void write_rule(const writer *w, const char *name, number_at *of, int which, int64_t usual) {
    if (of(w, 0, which) == usual && !differs(w, of, which))
        return;
    qgc_str_printf(w->t, "    RULE int %s(int i) { return ", name);
    for (int first = 0; first < w->count; first += 64) {
        if (first + 64 < w->count)
            qgc_str_printf(w->t, "i < %d ? (", first + 64);
        write_numbers(w, of, which, first);
        if (first + 64 < w->count)
            qgc_str_add(w->t, ") : ");
    }
    qgc_str_add(w->t, "; }\n");
}

/* Which table of angles turns the heads in an iteration, -1 none. */
static int64_t table_at(const writer *w, int iteration, int which) {
    return qgc_persistent_angles(w->p, rope_of(qgc_phase_instance(w->p, w->phase, iteration), which));
}

static void write_rope(const writer *w, const char *name, int which) {
    write_rule(w, name, table_at, which, -1);
}

static int64_t cut_at(const writer *w, int iteration, int which) {
    (void)which;
    return qgc_persistent_cut(w->p, qgc_phase_instance(w->p, w->phase, iteration));
}

static int64_t parts_at(const writer *w, int iteration, int which) {
    (void)which;
    return qgc_parts_at(w->p, w->phase, iteration);
}

static int64_t parts_parity(const writer *w, int iteration, int which) {
    (void)which;
    return (qgc_parts_uses_before(w->p, w->phase, iteration) + 1) % 2;
}

static int64_t window_at(const writer *w, int iteration, int which) {
    (void)which;
    return qgc_low_attr_int(qgc_phase_instance(w->p, w->phase, iteration)->attention, "window");
}

static int64_t ring_at(const writer *w, int iteration, int which) {
    (void)which;
    return qgc_dim_ring(qgc_phase_instance(w->p, w->phase, iteration)->attention->in[1]->shape.dim[1]);
}

static void write_pairs(const writer *w) {
    for (int i = 0; i < w->count; i++) {
        const qgc_node *rope = qgc_instance_rope(qgc_phase_instance(w->p, w->phase, i));
        if (!rope)
            continue;
        const qgc_rope r = qgc_rope_of(rope);
        if (!qgc_rope_is_plain(&r))
            qgc_str_printf(w->t, "    enum { ROPE_FIRST = %lld, ROPE_DIM = %lld, ROPE_INTERLEAVED = %d };\n",
                           (long long)r.first, (long long)r.rotary_dim, r.interleaved);
        return;
    }
}

/* --- phases ---------------------------------------------------------------------------------------------- */

static void write_common(const writer *w) {
    const qgc_instance *i = qgc_phase_first(w->p, w->phase);
    const qgc_phase_place *at = &w->p->phases[w->phase];
    qgc_str_printf(w->t, "    enum { DOES = %s, PHASE = %d, OUT = %lld, SMALL_STEP = %lld };\n",
                   kinds[i->does], w->phase, (long long)at->vector,
                   (long long)w->p->loops[at->loop].small_step);
    if (i->logits)
        constant(w, "LOGITS", 1);
    qgc_str_printf(w->t, "    RULE u32 parity(int i, u32 epoch) { return (i + 1%s) & 1; }\n",
                   is_odd(w, w->phase) ? " + epoch" : "");
}

static void write_squares(const writer *w) {
    const qgc_phase_place *at = &w->p->phases[w->phase];
    qgc_str_printf(w->t, "    RULE int squares(int i) { return %s%d%s; }\n",
                   at->squares_step % 2 ? "(i + " : "", at->squares % 2, at->squares_step % 2 ? ") & 1" : "");
}

static void write_outside(const writer *w, int k) {
    const qgc_instance *i = qgc_phase_first(w->p, w->phase);
    const char name[] = {'a', (char)('0' + k), 0}, upper[] = {'A', (char)('0' + k), 0};
    static const char *const from[] = {"POLLED", "CARRIED", "POLLED_ONE"};
    qgc_str_printf(w->t, "    enum { %s = %s };\n", upper, from[i->outside[k].from]);
    if (i->outside[k].from != QGC_OUTSIDE_CARRIED)
        write_source(w, name, upper, outside_source, k);
}

/* The function that makes the result of the rows of n_products matrices and of n_outside values, as the kernel calls it. */
static void write_result(const writer *w, int n_products, int n_outside) {
    const qgc_instance *i = qgc_phase_first(w->p, w->phase);
    qgc_str_add(w->t, "    RULE float result(");
    for (int k = 0; k < n_products; k++)
        qgc_str_printf(w->t, "%sfloat l%d", k ? ", " : "", k);
    for (int k = 0; k < n_outside; k++)
        qgc_str_printf(w->t, "%sfloat a%d", k || n_products ? ", " : "", k);
    qgc_str_printf(w->t, ") { return %s; }\n", i->expression);
    for (int k = 0; k < i->n_outside; k++)
        write_outside(w, k);
}

static void write_norm(const writer *w) {
    const qgc_instance *i = qgc_phase_first(w->p, w->phase);
    const qgc_phase_place *at = &w->p->phases[w->phase];
    qgc_str_printf(w->t, "    enum { NORM = 1, NORM_AT = %lld, NORM_SLOT = %d, NORM_LOADED = %d };\n",
                   (long long)at->norm_at, at->norm_slot, at->norm_loaded);
    number(w, "eps", qgc_low_attr(i->norm, "eps"));
    write_squares(w);
}

static void write_embeds(const writer *w) {
    int n = 0;
    for (int k = 0; k < w->count; k++)
        n += qgc_phase_instance(w->p, w->phase, k)->embeds;
    if (n)
        qgc_str_printf(w->t, "    RULE bool embeds(int i) { return %s; }\n",
                       n == w->count ? "true" : "i == 0");
}

/* Is x of a phase taken from the L2 cache in the loop over the chunks of its rows? Where they are many its operands would take much of
 * the ring's room, and where a block has few rows that loop is run once or twice. */
static bool takes_x_in_loop(const qgc_persistent *p, int phase) {
    enum { MANY_CHUNKS = 8, FEW_ROWS = 64 };
    for (int i = 0; i < qgc_phase_count(p, phase); i++) {
        const qgc_instance *at = qgc_phase_instance(p, phase, i);
        if (at->does != QGC_DO_PRODUCTS || at->norm || at->embeds ||
            at->rows > (int64_t)FEW_ROWS * p->l->sms ||
            qgc_stream_operands(at->weight, at->k, p->warps) <= MANY_CHUNKS)
            return false;
    }
    return true;
}

int64_t qgc_phase_operands(const qgc_persistent *p, int phase) {
    const qgc_instance *first = qgc_phase_first(p, phase);
    enum { IN_LOOP = 2 };
    if (first->does != QGC_DO_PRODUCTS)
        return 0;
    if (takes_x_in_loop(p, phase))
        return IN_LOOP;
    int64_t most = 0;
    for (int i = 0; i < qgc_phase_count(p, phase); i++) {
        const qgc_instance *at = qgc_phase_instance(p, phase, i);
        const int64_t here = qgc_stream_operands(at->weight, at->k, p->warps);
        most = here > most ? here : most;
    }
    return most;
}

/* Does a phase, whose x is an attention, take tiles of the next one while it waits? */
static bool prepares(const qgc_persistent *p, int phase) {
    const qgc_instance *i = qgc_phase_first(p, phase);
    if (i->does != QGC_DO_PRODUCTS || i->x.maker < 0 || p->instances[i->x.maker].does != QGC_DO_ATTENTION ||
        phase + 1 >= p->n_phases || p->phases[phase].loop != p->phases[phase + 1].loop ||
        takes_x_in_loop(p, phase) || takes_x_in_loop(p, phase + 1))
        return false;
    qgc_dtype formats[QGC_N_DTYPES];
    return qgc_phase_first(p, phase + 1)->does == QGC_DO_PRODUCTS &&
           qgc_phase_formats(p, phase + 1, formats) == 1;
}

static int kind_at(const writer *w, const qgc_dtype *formats, int iteration) {
    int kind = 0;
    while (formats[kind] != qgc_phase_instance(w->p, w->phase, iteration)->weight)
        kind++;
    return kind;
}

/* Which of the phase's formats it is in an iteration: how many sets it is in, of iterations that have format 1 or a later one, 2 or a
 * later one, ... A set is a mask for each 64 iterations. */
static void write_kind(const writer *w, const qgc_dtype *formats, int n) {
    constant(w, "KINDS", n);
    qgc_str_add(w->t, "    RULE int kind(int i) { return ");
    for (int first = 0; first < w->count; first += 64) {
        if (first + 64 < w->count)
            qgc_str_printf(w->t, "i < %d ? ", first + 64);
        for (int kind = 1; kind < n; kind++) {
            uint64_t set = 0;
            for (int i = first; i < w->count && i < first + 64; i++)
                set |= (uint64_t)(kind_at(w, formats, i) >= kind) << (i - first);
            qgc_str_printf(w->t, "%s(int)(0x%llxull >> i %% 64 & 1)", kind > 1 ? " + " : "",
                           (unsigned long long)set);
        }
        if (first + 64 < w->count)
            qgc_str_add(w->t, " : ");
    }
    qgc_str_add(w->t, "; }\n");
}

static void write_products(const writer *w) {
    const qgc_instance *i = qgc_phase_first(w->p, w->phase);
    const qgc_phase_place *at = &w->p->phases[w->phase];
    qgc_str_printf(w->t, "    enum { K = %lld, ROWS = %lld, MATRICES = %d, WEIGHT = %s, SHARE = %d };\n",
                   (long long)i->k, (long long)i->rows, i->interleaved, qgc_low_type_name(i->weight),
                   at->share);
    qgc_str_printf(w->t, "    RULE u64 at(int i, const rows *mine) { return %lldull + i * %lldull + %s; }\n",
                   (long long)at->stream_at, (long long)at->stream_step,
                   qgc_persistent_place(w->p, w->phase));
    qgc_str_printf(w->t, "    RULE u64 rest(const rows *mine) { return %s; }\n",
                   qgc_persistent_rest(w->p, w->phase));
    qgc_dtype formats[QGC_N_DTYPES];
    const int n = qgc_phase_formats(w->p, w->phase, formats);
    if (n > 1)
        write_kind(w, formats, n);
    for (int k = 0; k < n; k++)
        if (qgc_dtype_is_quantised(formats[k])) {
            constant(w, "TILES", qgc_phase_tiles(w->p, w->phase));
            break;
        }
    if (takes_x_in_loop(w->p, w->phase))
        constant(w, "X_IN_LOOP", 1);
    if (prepares(w->p, w->phase))
        qgc_str_printf(w->t, "    enum { PREPARES = 1 };\n    typedef struct phase%d next;\n", w->phase + 1);
    if (w->phase > 0 && prepares(w->p, w->phase - 1))
        constant(w, "IS_PREPARED", 1);
    if (i->norm)
        write_norm(w);
    if (at->ahead >= 0)
        qgc_str_printf(w->t, "    enum { AHEAD_SLOT = %d, AHEAD_AT = %lld, AHEAD_K = %lld };\n",
                       w->p->phases[at->ahead].norm_slot, (long long)at->ahead_at,
                       (long long)qgc_phase_first(w->p, at->ahead)->k);
    if (at->bias_at >= 0)
        qgc_str_printf(w->t, "    enum { BIAS = 1, BIAS_AT = %lld };\n", (long long)at->bias_at);
    if (i->carries)
        constant(w, "CARRIES", 1);
    write_embeds(w);
    write_source(w, "x", "X", x_source, 0);
    write_result(w, QGC_MAX_LINEARS, 4);
}

static void write_head_norm(const writer *w, const char *upper, const char *name, const qgc_node *norm,
                            int64_t at, int64_t head_dim) {
    if (!norm)
        return;
    qgc_str_printf(w->t, "    enum { %s_NORM = %s, %s_NORM_AT = %lld };\n", upper,
                   qgc_low_width(norm->in[1]) == head_dim ? "HEAD_NORM" : "WHOLE_NORM", upper, (long long)at);
    number(w, qgc_arena_printf(w->p->l->arena, "%s_eps", name), qgc_low_attr(norm, "eps"));
}

static void write_attention(const writer *w) {
    const qgc_instance *i = qgc_phase_first(w->p, w->phase);
    const qgc_phase_place *at = &w->p->phases[w->phase];
    const int64_t head_dim = i->attention->in[1]->shape.dim[2];
    qgc_str_printf(w->t, "    enum { HEADS = %lld, KV_HEADS = %lld, HEAD_DIM = %lld, CACHE = %s };\n",
                   (long long)(qgc_low_width(i->attention->in[0]) / head_dim),
                   (long long)i->attention->in[1]->shape.dim[0], (long long)head_dim,
                   qgc_low_type_name(i->attention->in[1]->dtype));
    write_rule(w, "cut", cut_at, 0, 0);
    qgc_str_printf(w->t, "    enum { CACHES_AT = %d, CACHES_STEP = %d };\n", at->caches_at, at->caches_step);
    write_rule(w, "parts_at", parts_at, 0, -1);
    if (differs(w, cut_at, 0))
        write_rule(w, "parts_parity", parts_parity, 0, -1);
    number(w, "scale", qgc_low_attr(i->attention, "scale"));
    write_rule(w, "window", window_at, 0, 0);
    if (ring_at(w, 0, 0) || differs(w, ring_at, 0))
        constant(w, "RINGS", 1);
    write_rule(w, "ring", ring_at, 0, 0);
    if (qgc_low_attr(i->attention, "softcap") != 0) {
        constant(w, "CAPPED", 1);
        number(w, "softcap", qgc_low_attr(i->attention, "softcap"));
    }
    if (i->attention->n_in > 4) {
        constant(w, "SINKS", 1);
        constant(w, "SINKS_AT", at->sinks_at);
    }
    write_head_norm(w, "Q", "q", i->q.norm, at->norm_at, head_dim);
    write_head_norm(w, "K", "k", i->keys.norm, at->k_norm_at, head_dim);
    write_pairs(w);
    write_rope(w, "q_rope", 0);
    write_rope(w, "k_rope", 1);
    write_source(w, "q", "Q", heads_source, 0);
    write_source(w, "k", "K", heads_source, 1);
    write_source(w, "v", "V", heads_source, 2);
}

/* The last iterations of an attention that leave parts to be closed. */
static void write_lasts(const writer *w, int attention) {
    int n = 0;
    qgc_str_add(w->t, "    RULE int last(int k) { return ");
    for (int i = 0; i < qgc_phase_count(w->p, attention); i++)
        if (qgc_parts_end_odd(w->p, attention, i))
            qgc_str_printf(w->t, "k == %d ? %d : ", n++, i);
    qgc_str_add(w->t, "0; }\n");
    constant(w, "LASTS", n);
}

static void write_vector(const writer *w) {
    const qgc_instance *i = qgc_phase_first(w->p, w->phase);
    const qgc_phase_place *at = &w->p->phases[w->phase];
    constant(w, "N", i->out);
    if (i->norm) {
        constant(w, "NORM_AT", at->norm_at);
        number(w, "eps", qgc_low_attr(i->norm, "eps"));
    }
    if (i->norm && i->norm->op == QGC_OP_LAYER_NORM)
        constant(w, "CENTRED", 1);
    if (at->bias_at >= 0)
        qgc_str_printf(w->t, "    enum { BIAS = 1, BIAS_AT = %lld };\n", (long long)at->bias_at);
    if (i->x.maker >= 0)
        write_source(w, "x", "X", x_source, 0);
    if (i->does == QGC_DO_NORM) {
        write_squares(w);
        write_result(w, 1, 4);
    }
    if (i->does == QGC_DO_HEADS) {
        constant(w, "HEADS_NORM", i->norm != NULL);
        constant(w, "HEAD_DIM", qgc_heads_dim(i->norm, i->rope));
        write_pairs(w);
        write_rope(w, "rope", 2);
    }
    if (i->does == QGC_DO_POINTWISE)
        write_result(w, 0, QGC_MOST_OUTSIDE);
}

/* --- kernels from outside -------------------------------------------------------------------------------- */

/* The first phase with the same function, whose namespace it is. */
static int space_of(const qgc_persistent *p, int phase) {
    const char *space = qgc_phase_first(p, phase)->space;
    int first = 0;
    while (!qgc_phase_first(p, first)->space || strcmp(qgc_phase_first(p, first)->space, space) != 0)
        first++;
    return first;
}

static int64_t piece_room(const qgc_instance *i) {
    return (i->phase.piece + 3) / 4 * 4;
}

static qgc_origin reads_source(const qgc_instance *i, int which) {
    return i->reads[which];
}

/* Where its vectors come from, and the call that brings them. */
static void write_gather(const writer *w, const qgc_instance *i) {
    const int n = i->stage->outside->row.n_params;
    for (int k = 0; k < n; k++)
        if (i->phase.params[k] == QGC_PHASE_VECTOR)
            write_source(w, qgc_low_text(w->p->l, "o%d", k), qgc_low_text(w->p->l, "O%d", k), reads_source,
                         k);
    qgc_str_add(w->t, "    template <typename G> RULE void gather(int i, u32 epoch, const G &g) {\n");
    for (int k = 0; k < n; k++)
        if (i->phase.params[k] == QGC_PHASE_VECTOR)
            qgc_str_printf(
                w->t,
                "        g.template vector<O%d_CLEAR>(%lld, %lld, o%d_from(i), o%d_parity(i, epoch));\n", k,
                (long long)i->phase.at[k], (long long)i->phase.widths[k], k, k);
    qgc_str_add(w->t, "    }\n");
}

static const char *argument(const writer *w, const qgc_instance *i, int k) {
    const qgc_phase_place *at = &w->p->phases[w->phase];
    const qgc_extent *n = &i->with->numbers[k];
    switch (i->phase.params[k]) {
    case QGC_PHASE_VECTOR:
        return qgc_low_text(w->p->l, "in + %lld", (long long)i->phase.at[k]);
    case QGC_PHASE_WEIGHT:
        return qgc_low_text(w->p->l, "small + %lld", (long long)at->weights_at[k]);
    case QGC_PHASE_TOKEN:
        return "token";
    case QGC_PHASE_POSITION:
        return "position";
    case QGC_PHASE_RESULT:
        return "out";
    case QGC_PHASE_NUMBER:
        break;
    }
    return qgc_low_text(w->p->l, "%lld + %lld * ctx", (long long)(n->fixed + n->per_token + n->per_row),
                        (long long)n->per_ctx);
}

static void write_outside_phase(const writer *w) {
    const qgc_instance *i = qgc_phase_first(w->p, w->phase);
    qgc_str_printf(w->t, "    enum { N = %lld, PIECE = %lld, PIECES_AT = %lld, PIECE_ROOM = %lld };\n",
                   (long long)i->out, (long long)i->phase.piece, (long long)i->phase.out_at,
                   (long long)piece_room(i));
    write_gather(w, i);
    qgc_str_printf(
        w->t,
        "    RULE void compute(int piece, int lane, const float *in, const float *small, float *out, "
        "const i32 *token, const i32 *position, i32 ctx) {\n        outside%d::%s_phase(piece, lane",
        space_of(w->p, w->phase), i->stage->outside->row.row->name);
    for (int k = 0; k < i->stage->outside->row.n_params; k++)
        qgc_str_printf(w->t, ", %s", argument(w, i, k));
    qgc_str_add(w->t, ");\n    }\n");
}

/* Each function once: declared, or in its namespace. */
static void write_functions(const qgc_persistent *p, bool declared, qgc_str *t) {
    for (int i = 0; i < p->n_phases; i++) {
        const qgc_instance *x = qgc_phase_first(p, i);
        if (!x->space || space_of(p, i) != i)
            continue;
        const char *space = qgc_low_text(p->l, "outside%d", i);
        qgc_str_add(t, declared
                           ? qgc_outside_phase_declaration(x->stage->outside, &x->phase, space, p->l->arena)
                           : qgc_outside_phase_space(x->stage->outside, x->with, space, p->l->arena));
    }
}

/* The phase with its other formats. */
static void write_kinds(const writer *w) {
    qgc_dtype formats[QGC_N_DTYPES];
    const int n = qgc_phase_formats(w->p, w->phase, formats);
    for (int kind = 1; kind < n; kind++)
        qgc_str_printf(w->t,
                       "struct phase%d_%d : phase%d { enum { WEIGHT = %s }; };\n"
                       "template <> struct kind_of<phase%d, %d> { typedef phase%d_%d type; };\n",
                       w->phase, kind, w->phase, qgc_low_type_name(formats[kind]), w->phase, kind, w->phase,
                       kind);
}

static void write_phase(qgc_persistent *p, int phase, qgc_str *t) {
    const writer w = {p, t, phase, qgc_phase_count(p, phase)};
    const qgc_instance *i = qgc_phase_first(p, phase);
    qgc_str_printf(t, "\nstruct phase%d : phase_defaults { /* %s */\n", phase, i->name);
    write_common(&w);
    switch (i->does) {
    case QGC_DO_PRODUCTS:
        write_products(&w);
        break;
    case QGC_DO_ATTENTION:
        write_attention(&w);
        break;
    case QGC_DO_CLOSE:
        constant(&w, "K", i->k);
        write_lasts(&w, p->phase_of[i->of]);
        write_source(&w, "x", "X", x_source, 0);
        qgc_str_printf(t, "    typedef phase%d of;\n", p->phase_of[i->of]);
        break;
    case QGC_DO_MERGE:
        qgc_str_printf(t, "    typedef phase%d of;\n", p->phase_of[i->of]);
        break;
    case QGC_DO_EMBEDDING:
    case QGC_DO_NORM:
    case QGC_DO_HEADS:
    case QGC_DO_POINTWISE:
        write_vector(&w);
        break;
    case QGC_DO_OUTSIDE:
        write_outside_phase(&w);
        break;
    }
    qgc_str_add(t, "};\n");
    if (i->does == QGC_DO_PRODUCTS)
        write_kinds(&w);
}

/* --- the program ----------------------------------------------------------------------------------------- */

int64_t qgc_persistent_largest_head(const qgc_persistent *p) {
    int64_t most = 32;
    for (int i = 0; i < p->n_instances; i++) {
        const qgc_instance *x = &p->instances[i];
        int64_t d = x->attention ? x->attention->in[1]->shape.dim[2] : 0;
        if (x->rope)
            d = qgc_low_attr_int(x->rope, "head_dim");
        most = d > most ? d : most;
    }
    return most;
}

/* Floats that the warps of a block leave of an attention. */
static int64_t part_room(const qgc_persistent *p) {
    int64_t most = 4;
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].attention) {
            const int64_t d = p->instances[i].attention->in[1]->shape.dim[2];
            const int64_t room = qgc_persistent_span(p, d) / 16 * 8 * d;
            most = room > most ? room : most;
        }
    return most;
}

static int64_t norm_loads(const qgc_persistent *p) {
    int64_t most = 1;
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].does == QGC_DO_PRODUCTS && p->instances[i].norm) {
            const int64_t mine = (p->instances[i].k / 64 + p->warps - 1) / p->warps;
            const int64_t loads = mine > 1 ? (mine + 1) / 2 : 1;
            most = loads > most ? loads : most;
        }
    return most;
}

/* Bytes of a slot: the most that a copy of any product brings; at least those of 16-bit numbers. */
static int64_t slot_bytes(const qgc_persistent *p) {
    const int64_t at_once = qgc_stream_copy_bytes(p->l->most_shared_bytes);
    int64_t most = qgc_stream_slot_bytes(QGC_F16, 0, p->warps, at_once);
    for (int i = 0; i < p->n_instances; i++) {
        const qgc_instance *x = &p->instances[i];
        const int64_t here =
            x->does == QGC_DO_PRODUCTS ? qgc_stream_slot_bytes(x->weight, x->k, p->warps, at_once) : 0;
        most = here > most ? here : most;
    }
    return most;
}

static int64_t operands(const qgc_persistent *p) {
    int64_t most = 0;
    for (int i = 0; i < p->n_phases; i++) {
        const int64_t here = qgc_phase_operands(p, i);
        most = here > most ? here : most;
    }
    return most;
}

static int64_t aligned(int64_t bytes, int64_t to) {
    return (bytes + to - 1) / to * to;
}

/* Floats that phases from outside have for their vectors and pieces. */
static int64_t outside_room(const qgc_persistent *p) {
    int64_t most = 0;
    for (int i = 0; i < p->n_instances; i++) {
        const qgc_instance *x = &p->instances[i];
        const int64_t here = x->space ? x->phase.out_at + p->warps * piece_room(x) : 0;
        most = here > most ? here : most;
    }
    return most;
}

/* Bytes of the structure `workspace` of persistent_step.cuh, which the kernel asserts. */
static int64_t workspace_bytes(const qgc_persistent *p, bool traced) {
    enum {
        STEP = 16,
        SUMS = 2 * 96,
        SQUARES = 3,
        HEADS = 8,
        LARGEST = 2 * 4 * 8,
        WORDS = 3,
        FLOAT = 4,
        ALIGN = 16
    };
    const int64_t stride = (p->warps + 3) / 4 * 4 + 4, head = qgc_persistent_largest_head(p),
                  ropes = p->n_ropes ? p->n_ropes : 1;
    const int64_t n_operands = operands(p), n_cuts = p->n_cuts ? p->n_cuts : 1;
    int64_t bytes = aligned(8 * p->n_shares + 16 * n_cuts + STEP, ALIGN);
    bytes += FLOAT * stride * (SUMS + SQUARES);
    bytes += 2 * 16 * (head + 8) + FLOAT * (LARGEST + part_room(p) + 2 * stride);
    bytes += 8 * ropes * (head / 2);
    bytes = aligned(bytes, ALIGN) + (n_operands ? n_operands * p->warps * QGC_OPERAND_BYTES : 8);
    if (outside_room(p))
        bytes = aligned(bytes, ALIGN) + FLOAT * outside_room(p);
    return aligned(bytes + FLOAT * WORDS * (traced ? p->n_phases : 1), ALIGN);
}

int64_t qgc_persistent_ring_bytes(const qgc_persistent *p, bool traced) {
    enum { LEAST_SLOTS = 4, BARRIERS = 16, SIZES = 8 /* how much is in a slot */, ALIGN = 128 };
    const int64_t slots = LEAST_SLOTS * (aligned(slot_bytes(p) + BARRIERS, ALIGN) + SIZES);
    return aligned(workspace_bytes(p, traced) + ALIGN + slots, ALIGN);
}

static void write_constants(const qgc_persistent *p, qgc_str *t) {
    const qgc_value *table = p->table;
    const int64_t at_once = qgc_stream_copy_bytes(p->l->most_shared_bytes);
    qgc_str_printf(t, "#define TABLE %s\n", table ? qgc_low_type_name(qgc_weight_storage(table)) : "BF16");
    if (at_once != QGC_COPY_BYTES)
        qgc_str_printf(t, "#define COPY_BYTES %lld\n", (long long)at_once);
    qgc_str_printf(t, "enum { WARPS = %lld, SHARES = %d, ATTENTIONS = %d, ROPES = %d, PHASES = %d };\n",
                   (long long)p->warps, p->n_shares, p->n_cuts ? p->n_cuts : 1, p->n_ropes ? p->n_ropes : 1,
                   p->n_phases);
    qgc_str_printf(t, "enum { COPY = %lld, MOST_HEAD_DIM = %lld, PART_ROOM = %lld };\n", (long long)p->copy,
                   (long long)qgc_persistent_largest_head(p), (long long)part_room(p));
    qgc_str_printf(t, "enum { SLOT_BYTES = %lld, OPERANDS = %lld };\n", (long long)slot_bytes(p),
                   (long long)operands(p));
    if (outside_room(p))
        qgc_str_printf(t, "#define OUTSIDE_ROOM %lld\n", (long long)outside_room(p));
    qgc_str_printf(t, "enum { WORKSPACE_BYTES = %lld };\n", (long long)workspace_bytes(p, false));
    qgc_str_printf(
        t, "enum { NORM_LOADS = %lld, NORM_SLOTS = %d, START_SLOT = %d, START_AT = %lld, START_K = %lld };\n",
        (long long)norm_loads(p), p->n_norm_slots ? p->n_norm_slots : 1, p->start_slot,
        (long long)(p->start_slot < 0 ? 0 : p->phases[p->start_phase].norm_at),
        (long long)(p->start_slot < 0 ? 64 : qgc_phase_first(p, p->start_phase)->k));
    qgc_str_printf(t, "enum { CARRIED_SHARE = %d, CARRIED_EMBEDDING = %lld };\n", p->carried_share,
                   (long long)(p->carries_embedding ? p->carried_width : 0));
    qgc_str_printf(t, "enum { MARK = %d, LARGEST = %d };\n", p->part != NULL, p->part != NULL);
    qgc_str_add(t, "__device__ __forceinline__ constexpr int rope_half(int table) { return ");
    for (int i = 0; i + 1 < p->n_ropes; i++)
        qgc_str_printf(t, "table == %d ? %lld : ", i, (long long)qgc_rope_of(p->ropes[i]).rotary_dim / 2);
    qgc_str_printf(t, "%lld; }\n",
                   p->n_ropes ? (long long)qgc_rope_of(p->ropes[p->n_ropes - 1]).rotary_dim / 2 : 0LL);
}

static void write_loop(const qgc_loop *l, qgc_str *t) {
    if (l->count > 1)
        qgc_str_printf(t, "#pragma unroll 1\n        for (int i = 0; i < %d; i++) {\n", l->count);
    for (int k = 0; k < l->period; k++)
        qgc_str_printf(t, "%sf(phase%d(), %s);\n", l->count > 1 ? "            " : "        ",
                       l->first_phase + k, l->count > 1 ? "i" : "0");
    if (l->count > 1)
        qgc_str_add(t, "        }\n");
}

static void write_cuts(const qgc_persistent *p, qgc_str *t) {
    qgc_str_add(
        t,
        "\n/* One attention of each shape: its phase, and an iteration. */\nstruct cuts {\n    template <typename F> RULE void each(F f) {\n");
    for (int cut = 0; cut < p->n_cuts; cut++)
        for (int i = 0; i < p->n_phases; i++)
            if (i == p->phase_of[p->cuts[cut]])
                qgc_str_printf(t, "        f(phase%d(), %d);\n", i, qgc_instance_iteration(p, p->cuts[cut]));
    qgc_str_add(t, "    }\n};\n");
}

bool qgc_persistent_text(qgc_persistent *p, const char **text) {
    qgc_str t = qgc_str_new(p->l->arena);
    qgc_str_printf(&t, "/* The phases of a decode step of %s, written by codegen/persistent/text.c. */\n%s\n",
                   p->l->graph->name, outside_room(p) ? "#ifndef OUTSIDE_ROOM" : "#pragma once");
    write_constants(p, &t);
    write_functions(p, true, &t);
    for (int i = 0; i < p->n_phases; i++)
        write_phase(p, i, &t);
    write_cuts(p, &t);
    qgc_str_add(
        &t,
        "\n/* All phases in their order: f(phase, iteration). */\nstruct program {\n    template <typename F> RULE void "
        "each(F f) {\n");
    for (int i = 0; i < p->n_loops; i++)
        write_loop(&p->loops[i], &t);
    qgc_str_add(&t, "    }\n};\n");
    if (outside_room(p)) { /* when it is included again, at the end */
        qgc_str_add(&t, "#else\n");
        write_functions(p, false, &t);
        qgc_str_add(&t, "#endif\n");
    }
    *text = t.text;
    return true;
}
