#include <string.h>

#include "models/gguf.h"
#include "models/weights_impl.h"

/* GGUF versions 2 and 3, little-endian (github.com/ggml-org/ggml/blob/master/docs/gguf.md):
 *
 *   "GGUF"  u32 version  u64 tensors  u64 keys
 *   keys      string name, u32 type, value          string = u64 length, bytes
 *   tensors   string name, u32 rank, u64 dims[rank] (innermost first), u32 type, u64 offset
 *   padding to general.alignment, then the tensors' bytes; offsets count from here
 *
 * All of it comes from a stranger: no length, count or product is used before it is known not to
 * overflow and to be inside the file. */

enum {
    MAX_ENTRIES = 65536, /* of keys, and of tensors: a hundred times what the largest models have */
    MIN_KEY_BYTES = 13,
    MIN_TENSOR_BYTES = 32,
    DEFAULT_ALIGNMENT = 32,
    MIN_ALIGNMENT = 8
};

/* Bytes of a value, 0 where it has no fixed size. */
static const size_t value_bytes[GGUF_N_TYPES] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

/* The tensor types of ggml.h by number. Those that qgc does not read are here for the error's sake. */
static const struct {
    const char *name;
    qgc_dtype dtype;
} tensor_types[] = {
    [0] = {"F32", QGC_F32},           [1] = {"F16", QGC_F16},           [2] = {"Q4_0", QGC_Q4_0},
    [3] = {"Q4_1", QGC_Q4_1},         [4] = {"Q4_2", QGC_N_DTYPES},     [5] = {"Q4_3", QGC_N_DTYPES},
    [6] = {"Q5_0", QGC_Q5_0},         [7] = {"Q5_1", QGC_Q5_1},         [8] = {"Q8_0", QGC_Q8_0},
    [9] = {"Q8_1", QGC_N_DTYPES},     [10] = {"Q2_K", QGC_N_DTYPES},    [11] = {"Q3_K", QGC_N_DTYPES},
    [12] = {"Q4_K", QGC_Q4_K},        [13] = {"Q5_K", QGC_Q5_K},        [14] = {"Q6_K", QGC_Q6_K},
    [15] = {"Q8_K", QGC_N_DTYPES},    [16] = {"IQ2_XXS", QGC_N_DTYPES}, [17] = {"IQ2_XS", QGC_N_DTYPES},
    [18] = {"IQ3_XXS", QGC_N_DTYPES}, [19] = {"IQ1_S", QGC_N_DTYPES},   [20] = {"IQ4_NL", QGC_N_DTYPES},
    [21] = {"IQ3_S", QGC_N_DTYPES},   [22] = {"IQ2_S", QGC_N_DTYPES},   [23] = {"IQ4_XS", QGC_N_DTYPES},
    [24] = {"I8", QGC_N_DTYPES},      [25] = {"I16", QGC_N_DTYPES},     [26] = {"I32", QGC_I32},
    [27] = {"I64", QGC_N_DTYPES},     [28] = {"F64", QGC_N_DTYPES},     [29] = {"IQ1_M", QGC_N_DTYPES},
    [30] = {"BF16", QGC_BF16},        [34] = {"TQ1_0", QGC_N_DTYPES},   [35] = {"TQ2_0", QGC_N_DTYPES},
    [39] = {"MXFP4", QGC_N_DTYPES},
};

enum { N_TENSOR_TYPES = sizeof tensor_types / sizeof *tensor_types };

/* A value where it stands in the file. A string has its text as a copy that ends with a zero byte. An array
 * of strings has the offset of each, so that any of a hundred thousand tokens is found at once. */
typedef struct {
    gguf_type type, elem_type;
    const unsigned char *data;
    uint64_t n;            /* elements of an array */
    const char *text;      /* of a string */
    const uint64_t *begin; /* n + 1: string i is at data + begin[i], its length before it */
} qgc_gguf_value;

typedef struct {
    const unsigned char *data;
    size_t bytes, pos;
    qgc_loc at;
    qgc_diag *d;
    qgc_weights *w;
    /* what is being read: the header, or the key or tensor of that number, or (once it is read) that name */
    const char *kind, *name;
    uint64_t i;
} reader;

static const char *what(const reader *r) {
    if (r->name)
        return qgc_arena_printf(r->d->arena, "%s \"%s\"", r->kind, r->name);
    if (strcmp(r->kind, "the header") == 0)
        return r->kind;
    return qgc_arena_printf(r->d->arena, "%s %llu", r->kind, (unsigned long long)r->i);
}

/* The next `n` bytes. */
static qgc_status take(reader *r, uint64_t n, const unsigned char **out) {
    *out = r->data + r->pos;
    if (n > r->bytes - r->pos)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "the file ends inside %s: %llu bytes wanted at offset %zu, %zu are left", what(r),
                        (unsigned long long)n, r->pos, r->bytes - r->pos);
    r->pos += (size_t)n;
    return QGC_OK;
}

static uint64_t little_endian(const unsigned char *p, size_t bytes) {
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static qgc_status take_u32(reader *r, uint32_t *out) {
    const unsigned char *p;
    QGC_TRY(take(r, 4, &p));
    *out = (uint32_t)little_endian(p, 4);
    return QGC_OK;
}

static qgc_status take_u64(reader *r, uint64_t *out) {
    const unsigned char *p;
    QGC_TRY(take(r, 8, &p));
    *out = little_endian(p, 8);
    return QGC_OK;
}

static qgc_status take_string(reader *r, const char **text, uint64_t *bytes) {
    const unsigned char *p;
    QGC_TRY(take_u64(r, bytes));
    QGC_TRY(take(r, *bytes, &p));
    *text = (const char *)p;
    return QGC_OK;
}

/* A name, which from now on stands in errors. */
static qgc_status take_name(reader *r, const char **name, uint64_t *bytes) {
    QGC_TRY(take_string(r, name, bytes));
    const char *fault = qgc_weights_name_fault(*name, (size_t)*bytes);
    if (fault)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "the name of %s %s", what(r), fault);
    r->name = qgc_arena_strndup(r->d->arena, *name, (size_t)*bytes);
    return QGC_OK;
}

static qgc_status take_type(reader *r, gguf_type *type) {
    uint32_t v;
    QGC_TRY(take_u32(r, &v));
    if (v >= GGUF_N_TYPES)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s has unknown value type %u", what(r), v);
    *type = (gguf_type)v;
    return QGC_OK;
}

static qgc_status check_bools(const reader *r, const unsigned char *p, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s has boolean %d, expected 0 or 1", what(r), p[i]);
    return QGC_OK;
}

static qgc_status read_array(reader *r, qgc_gguf_value *v) {
    QGC_TRY(take_type(r, &v->elem_type));
    QGC_TRY(take_u64(r, &v->n));
    if (v->elem_type == GGUF_ARRAY)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s is an array of arrays, which is not supported",
                        what(r));
    uint64_t least = v->elem_type == GGUF_STRING ? 8 : value_bytes[v->elem_type], bytes;
    if (__builtin_mul_overflow(v->n, least, &bytes) || bytes > r->bytes - r->pos)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "%s has %llu elements, more than the %zu bytes left could hold", what(r),
                        (unsigned long long)v->n, r->bytes - r->pos);
    if (v->elem_type != GGUF_STRING) {
        QGC_TRY(take(r, bytes, &v->data));
        return v->elem_type == GGUF_BOOL ? check_bools(r, v->data, v->n) : QGC_OK;
    }
    v->data = r->data;
    uint64_t *begin = qgc_arena_array(r->w->arena, (size_t)v->n + 1, sizeof *begin);
    for (uint64_t i = 0; i < v->n; i++) {
        const char *text;
        uint64_t n;
        QGC_TRY(take_string(r, &text, &n));
        begin[i] = r->pos - n;
    }
    begin[v->n] = r->pos + 8; /* where the next would begin, so that the last one's length is found alike */
    v->begin = begin;
    return QGC_OK;
}

static qgc_status read_value(reader *r, qgc_gguf_value *v) {
    QGC_TRY(take_type(r, &v->type));
    if (v->type == GGUF_ARRAY)
        return read_array(r, v);
    if (v->type == GGUF_STRING) {
        uint64_t bytes;
        const char *text;
        QGC_TRY(take_string(r, &text, &bytes));
        if (memchr(text, 0, (size_t)bytes))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s has a zero byte in its text", what(r));
        v->text = qgc_arena_strndup(r->w->arena, text, (size_t)bytes);
        return QGC_OK;
    }
    QGC_TRY(take(r, value_bytes[v->type], &v->data));
    return v->type == GGUF_BOOL ? check_bools(r, v->data, 1) : QGC_OK;
}

static qgc_status read_key(reader *r) {
    const char *name;
    uint64_t name_bytes;
    QGC_TRY(take_name(r, &name, &name_bytes));
    qgc_gguf_value *v = qgc_arena_alloc(r->w->arena, sizeof *v);
    if (!qgc_map_put_bytes(&r->w->keys, name, (size_t)name_bytes, v))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s is there twice", what(r));
    return read_value(r, v);
}

static const char *supported_types(qgc_arena *a) {
    const char *list = tensor_types[0].name;
    for (size_t i = 1; i < N_TENSOR_TYPES; i++)
        if (tensor_types[i].name && tensor_types[i].dtype != QGC_N_DTYPES)
            list = qgc_arena_printf(a, "%s, %s", list, tensor_types[i].name);
    return list;
}

static qgc_status read_tensor_type(reader *r, qgc_tensor *t) {
    uint32_t type;
    QGC_TRY(take_u32(r, &type));
    bool known = type < N_TENSOR_TYPES && tensor_types[type].name;
    if (known && tensor_types[type].dtype != QGC_N_DTYPES) {
        t->dtype = tensor_types[type].dtype;
        return QGC_OK;
    }
    qgc_status s;
    if (known)
        s = qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s is stored as %s, which is not supported", what(r),
                     tensor_types[type].name);
    else
        s = qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s is stored as unknown type %u", what(r), type);
    qgc_hint(r->d, "Supported are %s.", supported_types(r->d->arena));
    return s;
}

/* Dims into the shape, outermost first, and the size in bytes of what they span. */
static qgc_status read_shape(reader *r, qgc_tensor *t) {
    uint32_t rank;
    QGC_TRY(take_u32(r, &rank));
    if (rank < 1 || rank > QGC_MAX_RANK)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s has rank %u, expected 1 to %d", what(r), rank,
                        QGC_MAX_RANK);
    t->rank = (int)rank;
    for (int i = t->rank - 1; i >= 0; i--) {
        uint64_t dim;
        QGC_TRY(take_u64(r, &dim));
        if (dim < 1 || dim > INT64_MAX)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s has a dimension of %lld, expected at least 1",
                            what(r), (long long)dim);
        t->shape[i] = (int64_t)dim;
    }
    return QGC_OK;
}

static qgc_status find_size(const reader *r, qgc_tensor *t) {
    const qgc_dtype_info *info = &qgc_dtypes[t->dtype];
    int64_t row = qgc_tensor_row_elems(t);
    if (row % info->block_elems)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "%s has rows of %lld elements, which %s stores in blocks of %d", what(r),
                        (long long)row, info->name, info->block_elems);
    uint64_t bytes = (uint64_t)(row / info->block_elems);
    bool overflow = __builtin_mul_overflow(bytes, (uint64_t)info->block_bytes, &bytes);
    for (int i = 0; i < t->rank - 1; i++)
        overflow |= __builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes);
    /* the count of elements is to fit as well: a block may hold more of them than bytes */
    int64_t elems = 1;
    for (int i = 0; i < t->rank; i++)
        overflow |= __builtin_mul_overflow(elems, t->shape[i], &elems);
    if (overflow || bytes > r->bytes)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s is larger than the file of %zu bytes", what(r),
                        r->bytes);
    t->bytes = (size_t)bytes;
    return QGC_OK;
}

/* The data of a tensor is placed later, when it is known where offsets count from. */
static qgc_status read_tensor(reader *r, uint64_t *offset) {
    const char *name;
    uint64_t name_bytes;
    QGC_TRY(take_name(r, &name, &name_bytes));
    qgc_tensor *t = qgc_weights_add(r->w, name, (size_t)name_bytes);
    if (!t)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s is there twice", what(r));
    QGC_TRY(read_shape(r, t));
    QGC_TRY(read_tensor_type(r, t));
    QGC_TRY(find_size(r, t));
    return take_u64(r, offset);
}

static qgc_status find_alignment(const reader *r, uint64_t *alignment) {
    static const char key[] = "general.alignment";
    const qgc_gguf_value *v = qgc_map_get(&r->w->keys, key);
    *alignment = DEFAULT_ALIGNMENT;
    if (!v)
        return QGC_OK;
    if (v->type != GGUF_U32)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "key \"%s\" is not a number of 32 bits", key);
    *alignment = little_endian(v->data, 4);
    if (*alignment < MIN_ALIGNMENT || (*alignment & (*alignment - 1)))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "key \"%s\" is %llu, expected a power of two of at least %d", key,
                        (unsigned long long)*alignment, MIN_ALIGNMENT);
    return QGC_OK;
}

static qgc_status place_tensors(reader *r, const uint64_t *offsets) {
    uint64_t alignment;
    QGC_TRY(find_alignment(r, &alignment));
    /* pos is at most 2^63 and the alignment below 2^32, so this sum cannot overflow */
    uint64_t start = ((uint64_t)r->pos + alignment - 1) & ~(alignment - 1);
    for (size_t i = 0; i < r->w->n_tensors; i++) {
        qgc_tensor *t = r->w->tensors[i];
        r->name = t->name;
        if (offsets[i] & (alignment - 1))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                            "%s is at offset %llu, which is not a multiple of %llu", what(r),
                            (unsigned long long)offsets[i], (unsigned long long)alignment);
        uint64_t begin, end;
        if (__builtin_add_overflow(start, offsets[i], &begin) ||
            __builtin_add_overflow(begin, t->bytes, &end) || end > r->bytes)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                            "%s has %zu bytes at offset %llu, which is outside the file of %zu bytes",
                            what(r), t->bytes, (unsigned long long)offsets[i], r->bytes);
        t->data = r->data + begin;
    }
    return QGC_OK;
}

static qgc_status refuse_overlaps(const reader *r) {
    size_t n = r->w->n_tensors;
    qgc_tensor **sorted = qgc_arena_array(r->d->arena, n, sizeof(qgc_tensor *));
    for (size_t i = 0; i < n; i++)
        sorted[i] = r->w->tensors[i];
    qgc_weights_sort_by_place(sorted, n);
    for (size_t i = 1; i < n; i++) {
        const qgc_tensor *a = sorted[i - 1], *b = sorted[i];
        if ((const unsigned char *)a->data + a->bytes > (const unsigned char *)b->data)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensors \"%s\" and \"%s\" share bytes of the file",
                            a->name, b->name);
    }
    return QGC_OK;
}

static qgc_status check_version(const reader *r, uint32_t version) {
    if (version == 2 || version == 3)
        return QGC_OK;
    uint32_t swapped = __builtin_bswap32(version);
    if (swapped >= 1 && swapped <= 0xFFFF)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "is a big-endian GGUF file, only little-endian ones are supported");
    return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "is of GGUF version %u, expected 2 or 3", version);
}

/* A count that is larger than what could stand in the rest of the file is refused before anything is sized
 * by it. */
static qgc_status take_count(reader *r, const char *of, uint64_t least_bytes, uint64_t *n) {
    QGC_TRY(take_u64(r, n));
    if (*n > MAX_ENTRIES)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "has %llu %s, more than the %d allowed",
                        (unsigned long long)*n, of, MAX_ENTRIES);
    if (*n * least_bytes > r->bytes)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "has %llu %s, more than %zu bytes could hold",
                        (unsigned long long)*n, of, r->bytes);
    return QGC_OK;
}

static qgc_status read_header(reader *r, uint64_t *n_tensors, uint64_t *n_keys) {
    const unsigned char *magic;
    r->kind = "the header";
    QGC_TRY(take(r, 4, &magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "does not start with \"GGUF\"");
    uint32_t version;
    QGC_TRY(take_u32(r, &version));
    QGC_TRY(check_version(r, version));
    QGC_TRY(take_count(r, "tensors", MIN_TENSOR_BYTES, n_tensors));
    return take_count(r, "keys", MIN_KEY_BYTES, n_keys);
}

static qgc_status read_keys(reader *r, uint64_t n) {
    r->kind = "key";
    for (r->i = 0; r->i < n; r->i++) {
        r->name = NULL;
        QGC_TRY(read_key(r));
    }
    return QGC_OK;
}

static qgc_status read_tensors(reader *r, uint64_t n) {
    uint64_t *offsets = qgc_arena_array(r->w->arena, (size_t)n, sizeof *offsets);
    r->kind = "tensor";
    for (r->i = 0; r->i < n; r->i++) {
        r->name = NULL;
        QGC_TRY(read_tensor(r, &offsets[r->i]));
    }
    QGC_TRY(place_tensors(r, offsets));
    return refuse_overlaps(r);
}

/* The name of the architecture is printed, and starts keys. Of a model in several files each has a part of the tensors. */
static qgc_status check_arch_and_shards(const qgc_weights *w, qgc_loc at, qgc_diag *d) {
    const char *fault = w->arch ? qgc_weights_name_fault(w->arch, strlen(w->arch)) : NULL;
    double shards, number = 0;
    if (fault)
        return qgc_fail(d, QGC_ERR_INPUT, at, "the name of the architecture %s", fault);
    if (!qgc_gguf_number(w, "split.count", &shards) || shards <= 1)
        return QGC_OK;
    (void)qgc_gguf_number(w, "split.no", &number);
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, at, "is number %g of the %g files of one model, which are not read",
                 number + 1, shards);
    qgc_hint(d, "Join them to one file with llama.cpp's llama-gguf-split --merge.");
    return s;
}

qgc_status qgc_gguf_parse(qgc_weights *w, const void *data, size_t bytes, qgc_loc at, qgc_diag *d) {
    reader r = {.data = data, .bytes = bytes, .at = at, .d = d, .w = w};
    uint64_t n_tensors = 0, n_keys = 0;
    QGC_TRY(read_header(&r, &n_tensors, &n_keys));
    QGC_TRY(read_keys(&r, n_keys));
    QGC_TRY(read_tensors(&r, n_tensors));
    w->arch = qgc_gguf_string(w, "general.architecture");
    return check_arch_and_shards(w, at, d);
}

/* A number as it stands in the file; false for what is none. */
static bool number_at(gguf_type type, const unsigned char *p, double *out) {
    uint64_t bits = little_endian(p, value_bytes[type]);
    switch (type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
    case GGUF_BOOL:
        *out = (double)bits;
        return true;
    case GGUF_I8:
        *out = (int8_t)bits;
        return true;
    case GGUF_I16:
        *out = (int16_t)bits;
        return true;
    case GGUF_I32:
        *out = (int32_t)bits;
        return true;
    case GGUF_I64:
        *out = (double)(int64_t)bits;
        return true;
    case GGUF_F32: {
        float f;
        memcpy(&f, p, sizeof f);
        *out = (double)f;
        return true;
    }
    case GGUF_F64:
        memcpy(out, p, sizeof *out);
        return true;
    case GGUF_STRING:
    case GGUF_ARRAY:
    case GGUF_N_TYPES:
        break;
    }
    return false;
}

bool qgc_gguf_number(const qgc_weights *w, const char *key, double *out) {
    const qgc_gguf_value *v = qgc_map_get(&w->keys, key);
    return v && v->data && v->type != GGUF_ARRAY && number_at(v->type, v->data, out);
}

const char *qgc_gguf_string(const qgc_weights *w, const char *key) {
    const qgc_gguf_value *v = qgc_map_get(&w->keys, key);
    return v ? v->text : NULL;
}

const char *qgc_gguf_shown(const qgc_weights *w, const char *key, qgc_arena *a) {
    const qgc_gguf_value *v = qgc_map_get(&w->keys, key);
    double number;
    if (!v)
        return NULL;
    if (v->type == GGUF_ARRAY)
        return qgc_arena_printf(a, "an array of %llu", (unsigned long long)v->n);
    if (v->type == GGUF_STRING)
        return qgc_arena_printf(a, "\"%.80s\"", v->text);
    return number_at(v->type, v->data, &number) ? qgc_arena_printf(a, "%.10g", number) : "?";
}

static const qgc_gguf_value *find_array(const qgc_weights *w, const char *key) {
    const qgc_gguf_value *v = qgc_map_get(&w->keys, key);
    return v && v->type == GGUF_ARRAY ? v : NULL;
}

size_t qgc_gguf_array_length(const qgc_weights *w, const char *key) {
    const qgc_gguf_value *v = find_array(w, key);
    return v ? (size_t)v->n : 0;
}

bool qgc_gguf_array_string(const qgc_weights *w, const char *key, size_t i, const char **text,
                           size_t *bytes) {
    const qgc_gguf_value *v = find_array(w, key);
    if (!v || v->elem_type != GGUF_STRING || i >= v->n)
        return false;
    *text = (const char *)v->data + v->begin[i];
    *bytes = (size_t)(v->begin[i + 1] - 8 - v->begin[i]);
    return true;
}

bool qgc_gguf_array_number(const qgc_weights *w, const char *key, size_t i, double *out) {
    const qgc_gguf_value *v = find_array(w, key);
    if (!v || v->elem_type == GGUF_STRING || i >= v->n)
        return false;
    return number_at(v->elem_type, v->data + i * value_bytes[v->elem_type], out);
}
