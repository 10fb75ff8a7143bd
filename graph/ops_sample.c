#include <string.h>
#include <tgmath.h>

#include "graph/ops.h"

/* sample: the next token. The kernels are written to the same text (kernels/sample.cuh), and the two agree on every
 * choice for equal logits and equal exponentials; expf is the only step in which devices may differ, by an ulp.
 *
 * For row r of the logits, l[0..vocab), with the settings s and p the position of token rows[r]:
 *
 *   1. Penalty. Where seen[i] is not 0: l[i] = l[i] > 0 ? l[i] / s.repeat_penalty : l[i] * s.repeat_penalty.
 *   2. A NaN is never chosen, and counts nowhere below. m is the largest l[i]. If there is none, the choice is
 *      token 0. If s.temperature is not above 0, or m is infinite, the choice is the lowest i with l[i] = m.
 *   3. Top-k. If 0 < s.top_k < vocab, the top_k largest logits stay, of those equal to the smallest that
 *      stays the lowest ids.
 *   4. Weights. w[i] = floor(expf((l[i] - m) / s.temperature) * 2^40), an integer; 0 for what did not
 *      stay, and where the exponential is NaN (-infinity at an infinite temperature).
 *   5. Top-p. If s.top_p < 1: let mass be the sum of all w, and need = ceil(mass * floor(s.top_p * 2^32) / 2^32),
 *      but at least 1. Of the tokens by falling weight, equal ones by rising id, the shortest run from the first
 *      whose weights add up to need or more stays.
 *   6. Min-p. Those with w[i] >= ceil(min(s.min_p, 1) * 2^40) stay. (The largest weight is 2^40.)
 *   7. Draw. u = x1 * 2^32 + x0 where (x0, x1, x2, x3) = Philox4x32-10 with key (low half of s.seed, high half)
 *      and counter (p, 0, 0, 0). The target is the high 64 bits of u * mass, mass being the sum of the weights
 *      that stayed. The choice is the lowest i such that the weights up to and including i that stayed add up
 *      to more than the target.
 *
 * All after step 4 is integers, so neither the order of summation nor the number of threads matters.
 *
 * sample_part and sample_merge are the two halves of the same. The first is steps 1 and 2 for every chunk of the
 * vocabulary: the largest l[i] of the chunk, NaN if there is none. The second goes on from there. The largest say where
 * m is, and which chunks can hold tokens of the top-k: of the chunks by falling largest, equal ones in their order,
 * the first top_k. */

static int64_t chunk_of(const qgc_node *n) {
    return (int64_t)qgc_node_number(n, "chunk");
}

#ifndef QGC_DOUBLE

/* Logits are input 0, and `seen` is input `seen_at`. */
static qgc_status want_logits(const qgc_node *n, int seen_at, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "logits", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "logits", "[R, vocab]", d));
    QGC_TRY(qgc_want_dtype(n, seen_at, "seen", QGC_I32, d));
    QGC_TRY(qgc_want_form(n, seen_at, "seen", "[vocab]", d));
    const qgc_value *logits = n->in[0], *seen = n->in[seen_at];
    if (logits->shape.dim[1] == seen->shape.dim[0])
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "logits and seen of %s \"%s\" differ: %s against %s",
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena),
                            qgc_shape_text(&logits->shape, d->arena), qgc_shape_text(&seen->shape, d->arena));
    qgc_note_origin(n, logits, d);
    qgc_note_origin(n, seen, d);
    return s;
}

static qgc_status want_rows(const qgc_node *n, int rows_at, qgc_diag *d) {
    QGC_TRY(qgc_want_indices(n, rows_at, "rows", "[R]", d));
    return qgc_want_indices(n, rows_at + 1, "positions", "[T]", d);
}

qgc_status infer_sample(qgc_node *n, qgc_diag *d) {
    QGC_TRY(want_logits(n, 3, d));
    QGC_TRY(want_rows(n, 1, d));
    qgc_give(n, &(qgc_shape){1, {QGC_DIM_R}}, QGC_I32);
    return QGC_OK;
}

/* The shape of what sample_part makes of the logits; the chunk is not longer than they are. */
static qgc_status parts_shape(const qgc_node *n, qgc_shape *shape, qgc_diag *d) {
    const int64_t vocab = n->in[0]->shape.dim[1];
    QGC_TRY(qgc_want_number(n, "chunk", 1, true, d));
    if (qgc_node_number(n, "chunk") > INT32_MAX)
        return qgc_fail(d, QGC_ERR_INPUT, n->at, "chunk of %s \"%s\" is %g, expected at most %d",
                        qgc_ops[n->op].name, qgc_node_label(n, d->arena), qgc_node_number(n, "chunk"),
                        INT32_MAX);
    *shape = (qgc_shape){2, {QGC_DIM_R, (vocab + chunk_of(n) - 1) / chunk_of(n)}};
    return QGC_OK;
}

qgc_status infer_sample_part(qgc_node *n, qgc_diag *d) {
    qgc_shape shape;
    QGC_TRY(want_logits(n, 1, d));
    QGC_TRY(parts_shape(n, &shape, d));
    qgc_give(n, &shape, QGC_F32);
    return QGC_OK;
}

/* As many parts may be of other chunks: 1000 and 900 tokens make two of 1536. */
static qgc_status want_chunks(const qgc_node *n, const qgc_value *parts, qgc_diag *d) {
    const qgc_node *maker = parts->maker;
    if (!maker || maker->op != QGC_OP_SAMPLE_PART || chunk_of(maker) == chunk_of(n))
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, n->at, "chunk of sample_merge \"%s\" is %lld, and its parts are of %lld",
                 qgc_node_label(n, d->arena), (long long)chunk_of(n), (long long)chunk_of(maker));
    qgc_note_origin(n, parts, d);
    return s;
}

qgc_status infer_sample_merge(qgc_node *n, qgc_diag *d) {
    qgc_shape shape;
    QGC_TRY(want_logits(n, 4, d));
    QGC_TRY(parts_shape(n, &shape, d));
    QGC_TRY(qgc_want_dtype(n, 1, "parts", QGC_F32, d));
    const qgc_value *parts = n->in[1];
    if (!qgc_shape_equal(&parts->shape, &shape)) {
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "parts of sample_merge \"%s\" must be %s, not %s",
                                qgc_node_label(n, d->arena), qgc_shape_text(&shape, d->arena),
                                qgc_shape_text(&parts->shape, d->arena));
        qgc_note_origin(n, parts, d);
        return s;
    }
    QGC_TRY(want_chunks(n, parts, d));
    QGC_TRY(want_rows(n, 2, d));
    qgc_give(n, &(qgc_shape){1, {QGC_DIM_R}}, QGC_I32);
    return QGC_OK;
}

/* Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). */
void qgc_philox(const uint32_t key[2], uint32_t counter[4]) {
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * counter[0], b = (uint64_t)0xCD9E8D57u * counter[2];
        counter[0] = (uint32_t)(b >> 32) ^ counter[1] ^ k0;
        counter[1] = (uint32_t)b;
        counter[2] = (uint32_t)(a >> 32) ^ counter[3] ^ k1;
        counter[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

#endif

enum { WEIGHT_BITS = 40 };

/* The high 64 bits of the product of two 64-bit numbers. */
static uint64_t high_half(uint64_t a, uint64_t b) {
    uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
    uint64_t other = a0 * b1 + (middle & 0xFFFFFFFFu);
    return a1 * b1 + (middle >> 32) + (other >> 32);
}

#ifdef QGC_DOUBLE
typedef uint64_t rank;
#else
typedef uint32_t rank;
#endif
enum { RANK_BITS = 8 * sizeof(rank) };
#define SIGN ((rank)1 << (RANK_BITS - 1))

/* Rises with the number, so that numbers can be searched as integers; -0 and 0 are equal, NaN is 0. */
static rank rank_of(qgc_real f) {
    if (isnan(f))
        return 0;
    f += 0; /* -0 becomes 0 */
    rank bits;
    memcpy(&bits, &f, sizeof bits);
    return (bits & SIGN) ? ~bits : bits | SIGN;
}

/* The lowest id with the largest logit; 0 if all are NaN. */
static int64_t largest(const qgc_real *l, int64_t n) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(l[i]) && (best < 0 || l[i] > l[best]))
            best = i;
    return best < 0 ? 0 : best;
}

/* Step 3: others become NaN. The rank of the k-th largest is found bit by bit: the largest rank that k or more
 * logits reach. */
static void keep_top_k(qgc_real *l, int64_t n, int64_t k) {
    rank kth = 0;
    for (int bit = RANK_BITS - 1; bit >= 0; bit--) {
        rank trial = kth | (rank)1 << bit;
        int64_t reach = 0;
        for (int64_t i = 0; i < n; i++)
            reach += rank_of(l[i]) >= trial;
        if (reach >= k)
            kth = trial;
    }
    int64_t above = 0;
    for (int64_t i = 0; i < n; i++)
        above += rank_of(l[i]) > kth;
    int64_t ties = k - above;
    for (int64_t i = 0; i < n; i++) {
        const rank r = rank_of(l[i]);
        if (r < kth || (r == kth && ties-- <= 0))
            l[i] = NAN;
    }
}

static uint64_t mass_from(const uint64_t *w, int64_t n, uint64_t least) {
    uint64_t mass = 0;
    for (int64_t i = 0; i < n; i++)
        mass += w[i] >= least ? w[i] : 0;
    return mass;
}

/* Step 5: others become 0. The smallest weight that stays is found bit by bit: the largest one such that those
 * from it on add up to what is needed. */
static void keep_top_p(uint64_t *w, int64_t n, float top_p) {
    uint64_t mass = mass_from(w, n, 0);
    uint64_t share = top_p > 0 ? (uint64_t)((double)top_p * 4294967296.0) : 0;
    /* mass < 2^62: in two halves, so that no product overflows */
    uint64_t low = (mass & 0xFFFFFFFFu) * share;
    uint64_t need = (mass >> 32) * share + (low >> 32) + ((low & 0xFFFFFFFFu) != 0);
    if (need == 0)
        need = 1;
    uint64_t smallest = 0;
    for (int bit = WEIGHT_BITS; bit >= 0; bit--) {
        uint64_t trial = smallest | (uint64_t)1 << bit;
        if (mass_from(w, n, trial) >= need)
            smallest = trial;
    }
    uint64_t have = mass_from(w, n, smallest + 1);
    for (int64_t i = 0; i < n; i++) {
        if (w[i] == smallest && have < need)
            have += smallest;
        else if (w[i] <= smallest)
            w[i] = 0;
    }
}

static void keep_min_p(uint64_t *w, int64_t n, float min_p) {
    uint64_t least = (uint64_t)ceil(fmin(min_p, 1.0) * (double)((uint64_t)1 << WEIGHT_BITS));
    for (int64_t i = 0; i < n; i++)
        if (w[i] < least)
            w[i] = 0;
}

static int64_t draw(const uint64_t *w, int64_t n, uint64_t seed, int32_t position) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t x[4] = {(uint32_t)position, 0, 0, 0};
    qgc_philox(key, x);
    uint64_t target = high_half((uint64_t)x[1] << 32 | x[0], mass_from(w, n, 0));
    uint64_t sum = 0;
    int64_t i = 0;
    for (; i < n - 1; i++) {
        sum += w[i];
        if (sum > target)
            break;
    }
    return i;
}

/* `best` is the id of the largest logit; `l` may be changed; `w` is room for n weights. */
static int64_t choose(qgc_real *l, uint64_t *w, int64_t n, int64_t best, const qgc_sampling *s,
                      int32_t position) {
    qgc_real m = l[best];
    if (!(s->temperature > 0) || !isfinite(m))
        return best;
    if (s->top_k > 0 && s->top_k < n)
        keep_top_k(l, n, s->top_k);
    for (int64_t i = 0; i < n; i++) {
        qgc_real e = isnan(l[i]) ? 0 : exp((l[i] - m) / s->temperature);
        if (e > 1) /* m is not the largest: the parts are of other logits */
            e = 1;
        w[i] = e > 0 ? (uint64_t)(e * (qgc_real)((uint64_t)1 << WEIGHT_BITS)) : 0;
    }
    if (s->top_p < 1)
        keep_top_p(w, n, s->top_p);
    if (s->min_p > 0)
        keep_min_p(w, n, s->min_p);
    return draw(w, n, s->seed, position);
}

/* Step 1 for one token. */
static qgc_real penalised(qgc_real l, int32_t seen, const qgc_sampling *s) {
    return !seen ? l : l > 0 ? l / s->repeat_penalty : l * s->repeat_penalty;
}

static void penalise(const qgc_real *logits, const int32_t *seen, int64_t n, const qgc_sampling *s,
                     qgc_real *l) {
    for (int64_t i = 0; i < n; i++)
        l[i] = penalised(logits[i], seen[i], s);
}

void QGC_REF(sample)(const qgc_call *call) {
    const qgc_sampling *s = call->sampling;
    int64_t n = call->in[0].dim[1];
    const qgc_real *logits = qgc_reals(call, 0);
    const int32_t *rows = call->in[1].data, *positions = call->in[2].data, *seen = call->in[3].data;
    int32_t *next = call->out[0].data;
    qgc_real *l = qgc_arena_array(call->scratch, (size_t)n, sizeof *l);
    uint64_t *w = qgc_arena_array(call->scratch, (size_t)n, sizeof *w);
    for (int64_t r = 0; r < call->in[0].dim[0]; r++) {
        penalise(logits + r * n, seen, n, s, l);
        next[r] = (int32_t)choose(l, w, n, largest(l, n), s, positions[rows[r]]);
    }
}

void QGC_REF(sample_part)(const qgc_call *call) {
    int64_t n = call->in[0].dim[1], chunk = chunk_of(call->node), n_parts = call->out[0].dim[1];
    const qgc_real *logits = qgc_reals(call, 0);
    const int32_t *seen = call->in[1].data;
    qgc_real *parts = call->out[0].data;
    for (int64_t r = 0; r < call->in[0].dim[0]; r++)
        for (int64_t p = 0; p < n_parts; p++) {
            qgc_real most = NAN;
            for (int64_t i = p * chunk; i < n && i < (p + 1) * chunk; i++)
                most = fmax(most, penalised(logits[r * n + i], seen[i], call->sampling)); /* skips NaN */
            parts[r * n_parts + p] = most;
        }
}

/* What is in none of the first k chunks, by falling largest, becomes NaN. */
static void keep_chunks(qgc_real *l, int64_t n, const qgc_real *parts, int64_t n_parts, int64_t chunk,
                        int64_t k, qgc_real *kept) {
    memcpy(kept, parts, (size_t)n_parts * sizeof *kept);
    keep_top_k(kept, n_parts, k);
    for (int64_t i = 0; i < n; i++)
        if (isnan(kept[i / chunk]))
            l[i] = NAN;
}

void QGC_REF(sample_merge)(const qgc_call *call) {
    const qgc_sampling *s = call->sampling;
    int64_t n = call->in[0].dim[1], n_parts = call->in[1].dim[1], chunk = chunk_of(call->node);
    const qgc_real *logits = qgc_reals(call, 0);
    const int32_t *rows = call->in[2].data, *positions = call->in[3].data, *seen = call->in[4].data;
    int32_t *next = call->out[0].data;
    qgc_real *l = qgc_arena_array(call->scratch, (size_t)n, sizeof *l);
    qgc_real *kept = qgc_arena_array(call->scratch, (size_t)n_parts, sizeof *kept);
    uint64_t *w = qgc_arena_array(call->scratch, (size_t)n, sizeof *w);
    for (int64_t r = 0; r < call->in[0].dim[0]; r++) {
        const qgc_real *parts = qgc_reals(call, 1) + r * n_parts;
        penalise(logits + r * n, seen, n, s, l);
        int64_t first = largest(parts, n_parts) * chunk;
        int64_t best = isnan(parts[first / chunk])
                           ? 0
                           : first + largest(l + first, n - first < chunk ? n - first : chunk);
        if (s->top_k > 0 && s->top_k < n_parts && s->temperature > 0 && isfinite(l[best]))
            keep_chunks(l, n, parts, n_parts, chunk, s->top_k, kept);
        next[r] = (int32_t)choose(l, w, n, best, s, positions[rows[r]]);
    }
}
