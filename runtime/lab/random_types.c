#include "runtime/lab/random_types.h"

#include <math.h>
#include <string.h>

#include "runtime/lab/random.h"

/* --- which type ------------------------------------------------------------------------------------------ */

static bool find_dtype(const char *name, qgc_dtype *out) {
    for (int t = 0; t < QGC_N_DTYPES; t++)
        if (t != QGC_I32 && strcmp(qgc_dtypes[t].name, name) == 0) {
            *out = (qgc_dtype)t;
            return true;
        }
    return false;
}

qgc_status qgc_random_types_check(const char *types, qgc_diag *d) {
    qgc_dtype any;
    if (!types || strcmp(types, "q4_k_m") == 0 || strcmp(types, "q5_k_m") == 0 || find_dtype(types, &any))
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "random weights of type \"%s\" are not known", types);
    qgc_hint(d,
             "Known are f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k, q4_k_m and q5_k_m.");
    return s;
}

static bool ends_in(const char *name, const char *end) {
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* The first and the last eighth of the layers, and each third one between them. */
static bool has_more_bits(int layer, int n_layers) {
    const int eighth = n_layers / 8;
    return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

/* Rows that are no whole blocks of 256 are stored in blocks of 32. */
static qgc_dtype that_fits(qgc_dtype t, int64_t row) {
    if (row % qgc_dtypes[t].block_elems == 0)
        return t;
    t = t == QGC_Q4_K ? QGC_Q5_0 : t == QGC_Q5_K ? QGC_Q5_1 : QGC_Q8_0;
    return row % qgc_dtypes[t].block_elems == 0 ? t : QGC_F16;
}

/* llama.cpp, llama_tensor_get_type: what the mixes give to the tensors that matter most. */
qgc_dtype qgc_random_type(const qgc_random_tensor *t, const char *types) {
    qgc_dtype type = t->dtype;
    const int64_t row = t->shape[t->rank - 1];
    if (!types)
        return type;
    if (t->rank < 2)
        return QGC_F32;
    const bool mix = !find_dtype(types, &type);
    if (mix)
        type = types[1] == '4' ? QGC_Q4_K : QGC_Q5_K;
    if (qgc_dtype_is_quantised(type) && type != QGC_Q8_0 && t->is_head)
        return that_fits(QGC_Q6_K, row);
    if (mix && (ends_in(t->name, "attn_v.weight") || ends_in(t->name, "ffn_down.weight")) &&
        has_more_bits(t->layer, t->n_layers))
        type = QGC_Q6_K;
    return that_fits(type, row);
}

/* --- blocks ---------------------------------------------------------------------------------------------- */

/* Where a block has its scales, as float16, and what the second is for a first of 1, so that the mean is about 0. */
typedef struct {
    qgc_dtype dtype;
    int scale, other; /* offsets; -1: there is none */
    float ratio;
} layout;

static const layout layouts[] = {
    {QGC_Q8_0, 0, -1, 0},    {QGC_Q4_0, 0, -1, 0},   {QGC_Q5_0, 0, -1, 0},    {QGC_Q5_1, 0, 2, -15.5f},
    {QGC_Q4_1, 0, 2, -7.5f}, {QGC_Q4_K, 0, 2, 7.5f}, {QGC_Q5_K, 0, 2, 15.5f}, {QGC_Q6_K, 208, -1, 0},
};

static void set_scales(const layout *l, char *blocks, int64_t n, float scale) {
    const float other = scale * l->ratio;
    for (int64_t i = 0; i < n; i++, blocks += qgc_dtypes[l->dtype].block_bytes) {
        qgc_from_f32(QGC_F16, &scale, blocks + l->scale, 1);
        if (l->other >= 0)
            qgc_from_f32(QGC_F16, &other, blocks + l->other, 1);
    }
}

void qgc_random_blocks(qgc_dtype dtype, float rms, uint64_t *state, char *blocks, int64_t n) {
    enum { LOOKED_AT = 4096 }; /* elements */
    const layout *l = layouts;
    while (l->dtype != dtype)
        l++;
    const int64_t elems = qgc_dtypes[dtype].block_elems, bytes = n * qgc_dtypes[dtype].block_bytes;
    for (int64_t i = 0; i < bytes; i += 8) {
        const uint64_t bits = qgc_random(state);
        memcpy(blocks + i, &bits, bytes - i < 8 ? (size_t)(bytes - i) : 8);
    }
    set_scales(l, blocks, n, 1);
    float x[LOOKED_AT];
    const int64_t looked_at = n * elems < LOOKED_AT ? n * elems : LOOKED_AT;
    double sum = 0;
    qgc_to_f32(dtype, blocks, x, looked_at);
    for (int64_t i = 0; i < looked_at; i++)
        sum += (double)x[i] * (double)x[i];
    set_scales(l, blocks, n, rms / (float)sqrt(sum / (double)looked_at));
}
