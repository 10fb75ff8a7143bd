#include "graph/base/derive.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

static const char *const names[QGC_N_DERIVE] = {
    [QGC_DERIVE_CONCAT_ROWS] = "concat_rows",
    [QGC_DERIVE_CONCAT_COLUMNS] = "concat_columns",
    [QGC_DERIVE_ROWS] = "rows",
    [QGC_DERIVE_COLUMNS] = "columns",
    [QGC_DERIVE_SCALE] = "scale",
    [QGC_DERIVE_SCALE_COLUMNS] = "scale_columns",
    [QGC_DERIVE_THROUGH] = "through",
    [QGC_DERIVE_FILL] = "fill",
};

const char *qgc_derive_name(qgc_derive_kind kind) {
    return names[kind];
}

qgc_derive_kind qgc_derive_named(const char *name) {
    for (int i = 1; i < QGC_N_DERIVE; i++)
        if (strcmp(names[i], name) == 0)
            return (qgc_derive_kind)i;
    return QGC_DERIVE_NONE;
}

static bool is_concat(qgc_derive_kind kind) {
    return kind == QGC_DERIVE_CONCAT_ROWS || kind == QGC_DERIVE_CONCAT_COLUMNS;
}

bool qgc_derive_copies(qgc_derive_kind kind) {
    return is_concat(kind) || qgc_derive_has_range(kind);
}

bool qgc_derive_has_range(qgc_derive_kind kind) {
    return kind == QGC_DERIVE_ROWS || kind == QGC_DERIVE_COLUMNS;
}

bool qgc_derive_has_factor(qgc_derive_kind kind) {
    return kind == QGC_DERIVE_SCALE || kind == QGC_DERIVE_FILL;
}

bool qgc_derivation_equal(const qgc_derivation *a, const qgc_derivation *b) {
    bool equal = a->kind == b->kind && a->n_from == b->n_from && a->first == b->first && a->last == b->last &&
                 a->factor == b->factor && a->head_dim == b->head_dim;
    for (int i = 0; equal && i < a->n_from; i++)
        equal = a->from[i] == b->from[i];
    return equal;
}

/* --- shapes ---------------------------------------------------------------------------------------------- */

/* The dimension that is put together or cut: of a vector there is one. */
static int axis_of(const qgc_derivation *how, int rank) {
    const bool columns = how->kind == QGC_DERIVE_CONCAT_COLUMNS || how->kind == QGC_DERIVE_COLUMNS;
    return columns ? rank - 1 : 0;
}

/* The wanted number of sources, and of dimensions. */
static const char *check_sources(const qgc_derivation *how, const qgc_tensor *const *from, qgc_arena *a) {
    const int n = how->n_from;
    if (how->kind <= QGC_DERIVE_NONE || how->kind >= QGC_N_DERIVE)
        return "there is no such way to derive a weight";
    const bool many = is_concat(how->kind), through = how->kind == QGC_DERIVE_THROUGH;
    const int least = many || through || how->kind == QGC_DERIVE_SCALE_COLUMNS ? 2 : 1;
    const int most = many ? QGC_MAX_SOURCES : through ? 3 : least;
    if (n < least || n > most)
        return qgc_arena_printf(a, "%s is made of %d weights, not %d", names[how->kind],
                                n < least ? least : most, n);
    for (int i = 0; i < n; i++) {
        if (from[i]->rank < 1 || from[i]->rank > 2)
            return "only vectors and matrices can be used";
        if (is_concat(how->kind) && from[i]->rank != from[0]->rank)
            return "a vector and a matrix cannot be put together";
    }
    const bool of_matrix = through || how->kind == QGC_DERIVE_SCALE_COLUMNS || axis_of(how, 2) == 1;
    return of_matrix && from[0]->rank != 2 ? "it is made of a matrix" : NULL;
}

static const char *check_through(const qgc_derivation *how, const qgc_tensor *const *from, qgc_arena *a) {
    const int64_t rows = from[0]->shape[0], columns = from[0]->shape[1], n = from[1]->shape[0],
                  d = how->head_dim;
    const bool heads = d > 0 && columns % d == 0 && n % d == 0 && n > 0 && (columns / d) % (n / d) == 0;
    if (from[1]->rank != 1 || !(d ? heads : n == columns))
        return qgc_arena_printf(a, "%lld numbers do not go through a matrix of %lld columns", (long long)n,
                                (long long)columns);
    if (how->n_from == 3 && (from[2]->rank != 1 || from[2]->shape[0] != rows))
        return "the bias has another number of rows than the matrix";
    return NULL;
}

static const char *check_fit(const qgc_derivation *how, const qgc_tensor *const *from, qgc_arena *a) {
    if (how->kind == QGC_DERIVE_THROUGH)
        return check_through(how, from, a);
    if (how->kind == QGC_DERIVE_SCALE_COLUMNS &&
        (from[1]->rank != 1 || from[0]->shape[1] % from[1]->shape[0] != 0))
        return qgc_arena_printf(a, "rows of %lld columns are no multiple of %lld numbers",
                                (long long)from[0]->shape[1], (long long)from[1]->shape[0]);
    if (qgc_derive_has_range(how->kind)) {
        const int64_t n = from[0]->shape[axis_of(how, from[0]->rank)];
        if (how->first < 0 || how->last <= how->first || how->last > n)
            return qgc_arena_printf(a, "%lld to %lld is not within %lld", (long long)how->first,
                                    (long long)how->last - 1, (long long)n);
    }
    for (int i = 1; is_concat(how->kind) && from[0]->rank == 2 && i < how->n_from; i++)
        if (from[i]->shape[1 - axis_of(how, 2)] != from[0]->shape[1 - axis_of(how, 2)])
            return "the matrices differ in the other dimension";
    return NULL;
}

/* Does each piece that is copied consist of whole blocks? */
static bool pieces_are_whole(const qgc_derivation *how, const qgc_tensor *const *from) {
    const int64_t block = qgc_dtypes[from[0]->dtype].block_elems;
    const bool along_rows = from[0]->rank == 2 && axis_of(how, 2) == 0;
    if (along_rows)
        return true;
    if (qgc_derive_has_range(how->kind))
        return how->first % block == 0 && how->last % block == 0;
    for (int i = 0; i < how->n_from; i++)
        if (qgc_tensor_row_elems(from[i]) % block != 0)
            return false;
    return true;
}

/* The one type of what is copied; else float32. */
static qgc_dtype dtype_of(const qgc_derivation *how, const qgc_tensor *const *from) {
    bool copies = qgc_derive_copies(how->kind);
    for (int i = 1; copies && i < how->n_from; i++)
        copies = from[i]->dtype == from[0]->dtype;
    return copies && pieces_are_whole(how, from) ? from[0]->dtype : QGC_F32;
}

const char *qgc_derive_shape(const qgc_derivation *how, const qgc_tensor *const *from, qgc_tensor *out,
                             qgc_arena *a) {
    const char *why = check_sources(how, from, a);
    why = why ? why : check_fit(how, from, a);
    if (why)
        return why;
    const int axis = axis_of(how, from[0]->rank);
    out->rank = from[0]->rank;
    memcpy(out->shape, from[0]->shape, sizeof out->shape);
    for (int i = 1; is_concat(how->kind) && i < how->n_from; i++)
        out->shape[axis] += from[i]->shape[axis];
    if (qgc_derive_has_range(how->kind))
        out->shape[axis] = how->last - how->first;
    if (how->kind == QGC_DERIVE_THROUGH)
        out->rank = 1;
    for (int i = 0; i < out->rank; i++)
        if (out->shape[i] > INT32_MAX)
            return qgc_arena_printf(a, "%lld rows or columns are too many", (long long)out->shape[i]);
    out->dtype = dtype_of(how, from);
    out->bytes = qgc_dtype_bytes(out->dtype, qgc_tensor_rows(out) * qgc_tensor_row_elems(out));
    return NULL;
}

/* --- numbers --------------------------------------------------------------------------------------------- */

typedef struct {
    const qgc_derivation *how;
    const qgc_derive_source *from;
    const qgc_tensor *shape; /* of the result */
    double *reals;           /* where the result goes, or NULL: */
    unsigned char *stored;   /* in the type of `shape` */
    atomic_bool overflowed;
} deriving;

/* Room for a row of the result in its types, and of what it is made of. */
typedef struct {
    double *row, *spare[2];
    float *narrow, *back;
} room;

static room make_room(const deriving *d, qgc_arena *a) {
    const size_t n = (size_t)qgc_tensor_row_elems(d->shape);
    size_t most = 1;
    for (int i = 0; i < d->how->n_from; i++)
        if ((size_t)qgc_tensor_row_elems(d->from[i].tensor) > most)
            most = (size_t)qgc_tensor_row_elems(d->from[i].tensor);
    return (room){
        .row = qgc_arena_array(a, n, sizeof(double)),
        .spare = {qgc_arena_array(a, most, sizeof(double)), qgc_arena_array(a, most, sizeof(double))},
        .narrow = qgc_arena_array(a, n, sizeof(float)),
        .back = qgc_arena_array(a, n, sizeof(float))};
}

/* Elements first .. first + n - 1 of row `row` of a source. */
static void read_some(const qgc_derive_source *s, int64_t row, int64_t first, int64_t n, double *to) {
    enum { PIECE = 256 }; /* a multiple of every block */
    const qgc_tensor *t = s->tensor;
    const int64_t width = qgc_tensor_row_elems(t), block = qgc_dtypes[t->dtype].block_elems;
    if (s->reals) {
        memcpy(to, s->reals + row * width + first, (size_t)n * sizeof *to);
        return;
    }
    const unsigned char *data =
        (const unsigned char *)t->data + qgc_dtype_bytes(t->dtype, width) * (size_t)row;
    float some[PIECE];
    for (int64_t at = first / block * block; at < first + n; at += PIECE) {
        const int64_t k = width - at < PIECE ? width - at : PIECE;
        qgc_to_f32(t->dtype, data + qgc_dtype_bytes(t->dtype, at), some, k);
        for (int64_t i = at < first ? first - at : 0; i < k && at + i < first + n; i++)
            to[at + i - first] = (double)some[i];
    }
}

/* Row r of matrices one after the other, or all of vectors. */
static void concat(const deriving *d, int64_t r, double *to) {
    const bool along_rows = d->shape->rank == 2 && axis_of(d->how, 2) == 0;
    for (int i = 0; i < d->how->n_from; i++) {
        const qgc_derive_source *s = &d->from[i];
        const int64_t rows = qgc_tensor_rows(s->tensor), n = qgc_tensor_row_elems(s->tensor);
        if (along_rows && r >= rows) {
            r -= rows;
            continue;
        }
        read_some(s, r, 0, n, to);
        if (along_rows)
            return;
        to += n;
    }
}

static void scale_columns(const deriving *d, int64_t r, double *to, const room *have) {
    const int64_t n = qgc_tensor_row_elems(d->shape), m = qgc_tensor_row_elems(d->from[1].tensor);
    double *by = have->spare[0];
    read_some(&d->from[0], r, 0, n, to);
    read_some(&d->from[1], 0, 0, m, by);
    for (int64_t i = 0; i < n; i++)
        to[i] *= by[i % m];
}

/* The whole vector. */
static void through(const deriving *d, double *to, const room *have) {
    const qgc_tensor *matrix = d->from[0].tensor;
    const int64_t rows = matrix->shape[0], n = matrix->shape[1], m = d->from[1].tensor->shape[0],
                  head = d->how->head_dim ? d->how->head_dim : n;
    double *row = have->spare[0], *v = have->spare[1];
    const int64_t shared = n / m; /* so many heads read one of v */
    read_some(&d->from[1], 0, 0, m, v);
    if (d->how->n_from == 3)
        read_some(&d->from[2], 0, 0, rows, to);
    for (int64_t r = 0; r < rows; r++) {
        double sum = d->how->n_from == 3 ? to[r] : 0;
        read_some(&d->from[0], r, 0, n, row);
        for (int64_t i = 0; i < n; i++)
            sum += row[i] * v[i / head / shared * head + i % head];
        to[r] = sum;
    }
}

static void derive_row(const deriving *d, int64_t r, double *to, const room *have) {
    const qgc_derivation *how = d->how;
    const int64_t n = qgc_tensor_row_elems(d->shape);
    const bool cuts_columns = d->shape->rank == 1 || how->kind == QGC_DERIVE_COLUMNS;
    switch (how->kind) {
    case QGC_DERIVE_CONCAT_ROWS:
    case QGC_DERIVE_CONCAT_COLUMNS:
        concat(d, r, to);
        return;
    case QGC_DERIVE_ROWS:
    case QGC_DERIVE_COLUMNS:
        read_some(&d->from[0], cuts_columns ? r : how->first + r, cuts_columns ? how->first : 0, n, to);
        return;
    case QGC_DERIVE_SCALE:
        read_some(&d->from[0], r, 0, n, to);
        for (int64_t i = 0; i < n; i++)
            to[i] *= how->factor;
        return;
    case QGC_DERIVE_SCALE_COLUMNS:
        scale_columns(d, r, to, have);
        return;
    case QGC_DERIVE_THROUGH:
        through(d, to, have);
        return;
    case QGC_DERIVE_FILL:
        for (int64_t i = 0; i < n; i++)
            to[i] = how->factor;
        return;
    case QGC_DERIVE_NONE:
    case QGC_N_DERIVE:
        break;
    }
    assert(0);
}

static void store_row(deriving *d, int64_t r, const room *have) {
    const int64_t n = qgc_tensor_row_elems(d->shape);
    const double *x = have->row;
    float *narrow = have->narrow, *back = have->back;
    unsigned char *to = d->stored + qgc_dtype_bytes(d->shape->dtype, n) * (size_t)r;
    for (int64_t i = 0; i < n; i++)
        narrow[i] = (float)x[i];
    qgc_from_f32(d->shape->dtype, narrow, to, n);
    qgc_to_f32(d->shape->dtype, to, back, n);
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i]) && !isfinite(back[i]))
            atomic_store(&d->overflowed, true);
}

static void derive_rows(void *context, size_t first, size_t last) {
    deriving *d = context;
    qgc_arena *scratch = qgc_arena_new();
    const room have = make_room(d, scratch);
    const size_t n = (size_t)qgc_tensor_row_elems(d->shape);
    for (size_t r = first; r < last; r++) {
        derive_row(d, (int64_t)r, d->reals ? d->reals + r * n : have.row, &have);
        if (!d->reals)
            store_row(d, (int64_t)r, &have);
    }
    qgc_arena_drop(scratch);
}

static void derive_all(deriving *d, qgc_pool *pool) {
    const size_t rows = (size_t)qgc_tensor_rows(d->shape);
    if (pool)
        qgc_pool_for(pool, rows, 16, derive_rows, d);
    else
        derive_rows(d, 0, rows);
}

void qgc_derive_double(const qgc_derivation *how, const qgc_derive_source *from, const qgc_tensor *shape,
                       double *out, qgc_pool *pool) {
    deriving d = {.how = how, .from = from, .shape = shape, .reals = out};
    derive_all(&d, pool);
}

/* Bytes of a piece of a row, from one place to another. */
static void copy_row(const qgc_derivation *how, const qgc_tensor *const *from, const qgc_tensor *out,
                     int64_t r) {
    const size_t width = qgc_dtype_bytes(out->dtype, qgc_tensor_row_elems(out));
    unsigned char *to = (unsigned char *)(uintptr_t)out->data + width * (size_t)r;
    const bool columns = out->rank == 1 || axis_of(how, 2) == 1;
    if (qgc_derive_has_range(how->kind)) {
        const size_t row = qgc_dtype_bytes(out->dtype, qgc_tensor_row_elems(from[0]));
        const size_t skip = columns ? qgc_dtype_bytes(out->dtype, how->first) : row * (size_t)how->first;
        memcpy(to, (const unsigned char *)from[0]->data + row * (size_t)r + skip, width);
        return;
    }
    for (int i = 0; i < how->n_from; i++) {
        const size_t row = qgc_dtype_bytes(out->dtype, qgc_tensor_row_elems(from[i]));
        const int64_t rows = qgc_tensor_rows(from[i]);
        if (!columns && r >= rows) {
            r -= rows;
            continue;
        }
        memcpy(to, (const unsigned char *)from[i]->data + row * (size_t)r, row);
        if (!columns)
            return;
        to += row;
    }
}

bool qgc_derive_stored(const qgc_derivation *how, const qgc_tensor *const *from, qgc_tensor *out,
                       qgc_pool *pool) {
    bool copies = qgc_derive_copies(how->kind);
    for (int i = 0; i < how->n_from; i++)
        copies = copies && from[i]->dtype == out->dtype;
    if (copies && pieces_are_whole(how, from)) {
        for (int64_t r = 0; r < qgc_tensor_rows(out); r++)
            copy_row(how, from, out, r);
        return true;
    }
    assert(!qgc_dtype_is_quantised(out->dtype));
    qgc_derive_source sources[QGC_MAX_SOURCES] = {{0}};
    for (int i = 0; i < how->n_from; i++)
        sources[i].tensor = from[i];
    deriving d = {.how = how, .from = sources, .shape = out, .stored = (unsigned char *)(uintptr_t)out->data};
    derive_all(&d, pool);
    return !atomic_load(&d.overflowed);
}
