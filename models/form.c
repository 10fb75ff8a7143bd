#include <assert.h>
#include <string.h>

#include "graph/base/str.h"
#include "models/bind_impl.h"

/* Weights that are not one tensor of a file as it stands there: some of its rows, its rows in another order, several tensors
 * one after the other, the matrix transposed, a number added.
 *
 *   file   [1536, 512]   q k v one after the other         rows 0..512, 512..1024, 1024..1536: three weights
 *          [1536, 512]   q0 k0 v0 q1 k1 v1 ... of 64 rows   rows 0..64 of each 192: q
 *
 * Rows that lie together stay where they are; all else is copied. */

const qgc_tensor_form *qgc_form_of(const qgc_binding *b, const qgc_weight_want *want) {
    return b->is_gguf ? &want->gguf_form : &want->hf_form;
}

/* --- numbers of a config.json ----------------------------------------------------------------------------- */

static const char list_mark[] = "list(";

/* The keys of a list(KEY|KEY); NULL if the name is none. */
static const char *keys_of(const char *name) {
    const size_t mark = strlen(list_mark), bytes = strlen(name);
    return strncmp(name, list_mark, mark) == 0 && name[bytes - 1] == ')' ? name + mark : NULL;
}

/* Of names "a|b" the first that the file has, or the first. */
static const char *one_of(const qgc_binding *b, const char *names) {
    if (!names || !strchr(names, '|') || keys_of(names))
        return names;
    for (const char *at = names; *at; at += *at == '|') {
        const char *name = qgc_arena_strndup(b->d->arena, at, strcspn(at, "|"));
        if (qgc_weights_find(b->w, name))
            return name;
        at += strlen(name);
    }
    return qgc_arena_strndup(b->d->arena, names, strcspn(names, "|"));
}

/* With a number in the place of each {e}. */
static const char *numbered(const char *name, const char *index, int64_t which, qgc_arena *a) {
    const char *mark = qgc_arena_printf(a, "{%s}", index);
    qgc_str text = qgc_str_new(a);
    for (const char *at; (at = strstr(name, mark)); name = at + strlen(mark))
        qgc_str_printf(&text, "%.*s%lld", (int)(at - name), name, (long long)which);
    qgc_str_add(&text, name);
    return text.text;
}

const char *qgc_form_name(const qgc_binding *b, const qgc_weight_want *want, int64_t which) {
    const char *name = b->is_gguf ? want->gguf : want->hf, *index = qgc_form_of(b, want)->stacked_index;
    return one_of(b, index && name ? numbered(name, index, which, b->d->arena) : name);
}

bool qgc_form_names_key(const char *name, const char *key) {
    for (const char *at = keys_of(name); at && *at && *at != ')'; at += *at == '|') {
        const size_t bytes = strcspn(at, "|)");
        if (strlen(key) == bytes && memcmp(at, key, bytes) == 0)
            return true;
        at += bytes;
    }
    return false;
}

static const qgc_tensor *tensor_of(const qgc_binding *b, const char *name, const char *key) {
    const size_t n = qgc_weights_array_length(b->w, key);
    if (n == 0)
        return NULL;
    assert(b->request->arena);
    float *numbers = qgc_arena_array(b->request->arena, n, sizeof *numbers);
    for (size_t i = 0; i < n; i++) {
        double number;
        if (!qgc_weights_array_number(b->w, key, i, &number))
            return NULL;
        numbers[i] = (float)number;
    }
    qgc_tensor *t = qgc_arena_alloc(b->request->arena, sizeof *t);
    *t = (qgc_tensor){.name = qgc_arena_strdup(b->request->arena, name),
                      .dtype = QGC_F32,
                      .rank = 1,
                      .shape = {(int64_t)n},
                      .data = numbers,
                      .bytes = n * sizeof *numbers};
    return t;
}

const qgc_tensor *qgc_form_source(const qgc_binding *b, const char *name) {
    const qgc_tensor *t = NULL;
    const char *at = keys_of(name);
    if (!at)
        return qgc_weights_find(b->w, name);
    for (; !t && *at && *at != ')'; at += *at == '|') {
        const size_t bytes = strcspn(at, "|)");
        t = tensor_of(b, name, qgc_arena_strndup(b->d->arena, at, bytes));
        at += bytes;
    }
    return t;
}

static qgc_status does_not_fit(const qgc_binding *b, const qgc_weight_want *want, const qgc_tensor *t,
                               const char *why) {
    return qgc_fail(b->d, QGC_ERR_INPUT, want->at,
                    "weight \"%s\" cannot be made of tensor \"%s\" of \"%s\": %s", want->label, t->name,
                    b->path, why);
}

/* A tensor like another one, with memory of its own. */
static qgc_tensor *new_tensor(const qgc_binding *b, const qgc_tensor *like, const int64_t *shape,
                              qgc_dtype dtype) {
    int64_t elems = 1;
    qgc_tensor *t = qgc_arena_alloc(b->request->arena, sizeof *t);
    *t = *like;
    t->dtype = dtype;
    for (int i = 0; i < t->rank; i++) {
        t->shape[i] = shape[i];
        elems *= shape[i];
    }
    t->bytes = qgc_dtype_bytes(dtype, elems);
    t->data = qgc_arena_alloc(b->request->arena, t->bytes);
    return t;
}

static unsigned char *room(const qgc_tensor *t) {
    return (unsigned char *)(uintptr_t)t->data; /* made by new_tensor */
}

/* --- several tensors, one after the other ---------------------------------------------------------------- */

static qgc_status stack(const qgc_binding *b, const qgc_weight_want *want, const qgc_tensor **t) {
    const qgc_tensor_form *f = qgc_form_of(b, want);
    const qgc_tensor *first = *t;
    if (!f->stacked_index)
        return QGC_OK;
    if (first->rank >= QGC_MAX_RANK)
        return does_not_fit(b, want, first, "it has too many dimensions to be one of several");
    int64_t shape[QGC_MAX_RANK] = {f->stacked};
    memcpy(shape + 1, first->shape, (size_t)first->rank * sizeof *shape);
    qgc_tensor like = *first;
    like.rank = first->rank + 1;
    const qgc_tensor *all = new_tensor(b, &like, shape, first->dtype);
    for (int64_t i = 0; i < f->stacked; i++) {
        const char *name = qgc_form_name(b, want, i);
        const qgc_tensor *one = qgc_weights_find(b->w, name);
        if (!one)
            return qgc_fail(b->d, QGC_ERR_INPUT, want->at,
                            "weight \"%s\" is missing: \"%s\" has no tensor \"%s\"", want->label, b->path,
                            name);
        if (one->dtype != first->dtype || one->bytes != first->bytes || one->rank != first->rank ||
            memcmp(one->shape, first->shape, (size_t)first->rank * sizeof *shape) != 0)
            return does_not_fit(b, want, one, "it differs from the first of them in shape or type");
        memcpy(room(all) + (size_t)i * first->bytes, one->data, first->bytes);
    }
    *t = all;
    return QGC_OK;
}

/* --- transposed ------------------------------------------------------------------------------------------- */

static qgc_status transpose(const qgc_binding *b, const qgc_weight_want *want, const qgc_tensor **t) {
    const qgc_tensor *from = *t;
    if (!qgc_form_of(b, want)->transposed || from->rank == 1) /* of a bias there is nothing to do */
        return QGC_OK;
    if (from->rank != 2 || qgc_dtype_is_quantised(from->dtype))
        return does_not_fit(b, want, from, "only a matrix that is not quantised can be transposed");
    const size_t bytes = qgc_dtype_bytes(from->dtype, 1);
    const int64_t rows = from->shape[1], columns = from->shape[0];
    const qgc_tensor *to = new_tensor(b, from, (const int64_t[]){rows, columns}, from->dtype);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            memcpy(room(to) + (size_t)(r * columns + c) * bytes,
                   (const unsigned char *)from->data + (size_t)(c * rows + r) * bytes, bytes);
    *t = to;
    return QGC_OK;
}

/* --- rows ------------------------------------------------------------------------------------------------- */

/* A row of a matrix; of a vector an element. */
static int64_t row_elems(const qgc_tensor *t) {
    return t->rank == 1 ? 1 : qgc_tensor_row_elems(t);
}

static bool rows_are_whole(const qgc_tensor *t) {
    return row_elems(t) % qgc_dtypes[t->dtype].block_elems == 0;
}

static qgc_status take_rows(const qgc_binding *b, const qgc_weight_want *want, const qgc_tensor **t) {
    const qgc_tensor_form *f = qgc_form_of(b, want);
    const qgc_tensor *from = *t;
    if (f->last == 0)
        return QGC_OK;
    if (from->rank < 1 || from->rank > 2 || !rows_are_whole(from))
        return does_not_fit(b, want, from, "it has no rows to choose from");
    const int64_t rows = from->shape[0], of = f->of ? f->of : rows, taken = f->last - f->first;
    if (f->last > of || rows % of)
        return does_not_fit(
            b, want, from,
            qgc_arena_printf(b->d->arena, "it has %lld rows, and rows %lld to %lld of each %lld are wanted",
                             (long long)rows, (long long)f->first, (long long)f->last - 1, (long long)of));
    const size_t row_bytes = qgc_dtype_bytes(from->dtype, row_elems(from));
    int64_t shape[QGC_MAX_RANK] = {rows / of * taken, from->shape[1]};
    const unsigned char *data = (const unsigned char *)from->data + (size_t)f->first * row_bytes;
    if (rows == of) { /* they lie together */
        qgc_tensor *cut = qgc_arena_alloc(b->request->arena, sizeof *cut);
        *cut = *from;
        cut->shape[0] = taken;
        cut->bytes = (size_t)taken * row_bytes;
        cut->data = data;
        *t = cut;
        return QGC_OK;
    }
    const qgc_tensor *to = new_tensor(b, from, shape, from->dtype);
    for (int64_t group = 0; group < rows / of; group++)
        memcpy(room(to) + (size_t)(group * taken) * row_bytes, data + (size_t)(group * of) * row_bytes,
               (size_t)taken * row_bytes);
    *t = to;
    return QGC_OK;
}

/* Rows 2i and 2i + 1 of a head, which a rotation of neighbours turns, become rows i and d/2 + i, which one of halves does. */
static qgc_status unpermute(const qgc_binding *b, const qgc_weight_want *want, const qgc_tensor **t) {
    const int64_t heads = qgc_form_of(b, want)->heads;
    const qgc_tensor *from = *t;
    double in_order; /* in a GGUF that was written here */
    if (heads == 0 || (qgc_weights_number(b->w, "qgc.rows_in_order", &in_order) && in_order == 1))
        return QGC_OK;
    const int64_t rows = from->rank ? from->shape[0] : 0, d = rows / heads;
    if (from->rank < 1 || from->rank > 2 || rows % heads || d % 2 || !rows_are_whole(from))
        return does_not_fit(
            b, want, from,
            qgc_arena_printf(b->d->arena, "it has no pairs of rows in %lld heads", (long long)heads));
    const size_t row_bytes = qgc_dtype_bytes(from->dtype, row_elems(from));
    const qgc_tensor *to = new_tensor(b, from, from->shape, from->dtype);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t in_head = r % d, old = r - in_head + 2 * (in_head % (d / 2)) + in_head / (d / 2);
        memcpy(room(to) + (size_t)r * row_bytes, (const unsigned char *)from->data + (size_t)old * row_bytes,
               row_bytes);
    }
    *t = to;
    return QGC_OK;
}

/* --- a number added --------------------------------------------------------------------------------------- */

static qgc_status add(const qgc_binding *b, const qgc_weight_want *want, const qgc_tensor **t) {
    const double plus = qgc_form_of(b, want)->plus;
    const qgc_tensor *from = *t;
    if (plus == 0)
        return QGC_OK;
    if (qgc_dtype_is_quantised(from->dtype) || from->dtype == QGC_I32)
        return does_not_fit(b, want, from, "a number can be added to what is not quantised only");
    const qgc_tensor *to = new_tensor(b, from, from->shape, QGC_F32);
    const int64_t n = qgc_tensor_rows(from) * qgc_tensor_row_elems(from);
    float *values = (float *)(uintptr_t)to->data;
    qgc_to_f32(from->dtype, from->data, values, n);
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)((double)values[i] + plus);
    *t = to;
    return QGC_OK;
}

qgc_status qgc_form_make(const qgc_binding *b, const qgc_weight_want *want, const qgc_tensor *source,
                         const qgc_tensor **out) {
    *out = source;
    if (qgc_form_is_plain(qgc_form_of(b, want)))
        return QGC_OK;
    assert(b->request->arena);
    QGC_TRY(stack(b, want, out));
    QGC_TRY(transpose(b, want, out));
    QGC_TRY(take_rows(b, want, out));
    QGC_TRY(unpermute(b, want, out));
    return add(b, want, out);
}
