#include <assert.h>
#include <math.h>
#include <string.h>

#include "graph/base/map.h"
#include "graph/base/str.h"
#include "models/bind_impl.h"

enum { MOST_LISTED = 10 };

typedef qgc_binding binding;

/* Files keep some numbers as float32, and a YAML writes 1e-6. */
static bool same_number(double a, double b) {
    return isfinite(a) && isfinite(b) && fabs(a - b) <= 5e-7 * fmax(fabs(a), fabs(b));
}

static const char *shape_text(const int64_t *shape, int rank, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    for (int i = 0; i < rank; i++)
        qgc_str_printf(&text, "%s%lld", i ? ", " : "[", (long long)shape[i]);
    qgc_str_add(&text, rank ? "]" : "[]");
    return text.text;
}

/* Is it in a list with commas? */
static bool is_listed(const char *list, const char *word) {
    for (const char *at = list; *at;) {
        const size_t bytes = qgc_list_entry(at);
        if (strlen(word) == bytes && memcmp(at, word, bytes) == 0)
            return true;
        at += bytes + (at[bytes] == ',');
    }
    return false;
}

static qgc_status check_arch(const binding *b) {
    const char *arch = qgc_weights_arch(b->w),
               *wanted = b->is_gguf ? b->request->gguf_arch : b->request->hf_arch;
    wanted = wanted ? wanted : b->request->arch;
    if (!arch)
        return qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                        "the model is of architecture \"%s\", but \"%s\" does not state one", wanted,
                        b->path);
    if (is_listed(wanted, arch))
        return QGC_OK;
    qgc_status s =
        qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                 "the model is of architecture \"%s\", but \"%s\" holds \"%s\"", wanted, b->path, arch);
    qgc_hint(b->d, "Take a model file for \"%s\", or weights for \"%s\".", arch, wanted);
    return s;
}

/* --- parameters ------------------------------------------------------------------------------------------- */

/* "windowed", or "windowed[3]" of iteration 3. */
static const char *label_of(const binding *b, const qgc_param_want *p, int turn) {
    return p->turns ? qgc_arena_printf(b->d->arena, "%s[%d]", p->name, turn) : p->name;
}

static double value_in(const qgc_param_want *p, int turn) {
    return p->turns ? p->values[turn] : p->value;
}

static qgc_status differs(const binding *b, const qgc_param_want *p, int turn, const char *key,
                          double stated) {
    const double value = value_in(p, turn);
    qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, p->at, "\"%s\" is %.10g, but \"%s\" states %.10g as \"%s\"",
                            label_of(b, p, turn), value, b->path, stated, key);
    qgc_hint(b->d, "The weights are of another model, or \"%s\" should be %.10g.", label_of(b, p, turn),
             stated);
    return s;
}

/* Sets *found where the key is there. */
static qgc_status check_key(const binding *b, const qgc_param_want *p, int turn, const char *key,
                            bool *found) {
    double stated;
    const qgc_question q = {key, p->words, p->turns ? turn : -1};
    const char *full = qgc_weights_key(b->w, key, b->d->arena);
    switch (qgc_weights_answer(b->w, &q, &stated)) {
    case QGC_NOT_STATED:
        return QGC_OK;
    case QGC_MISSTATED:
        return qgc_fail(b->d, QGC_ERR_INPUT, p->at, "\"%s\" is %.10g, but \"%s\" states %s as \"%s\"",
                        label_of(b, p, turn), value_in(p, turn), b->path,
                        qgc_weights_shown(b->w, full, b->d->arena), full);
    case QGC_STATED:
        break;
    }
    *found = true;
    return same_number(stated, value_in(p, turn)) ? QGC_OK : differs(b, p, turn, full, stated);
}

/* A file that has none of the keys: what it means by that is what the model was made with. */
static qgc_status check_otherwise(const binding *b, const qgc_param_want *p, int turn, const char *key) {
    const char *full = qgc_weights_key(b->w, key, b->d->arena), *label = label_of(b, p, turn);
    const double value = value_in(p, turn);
    if (p->otherwise && same_number(p->otherwise[turn], value))
        return QGC_OK;
    qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, p->at, "\"%s\" is %.10g, but \"%s\" does not state \"%s\"",
                            label, value, b->path, full);
    if (p->otherwise)
        qgc_hint(b->d, "Without it \"%s\" is %.10g: the weights are of another model.", label,
                 p->otherwise[turn]);
    else
        qgc_hint(b->d, "If such files never state it, take the key for %s away from \"%s\".", b->format,
                 p->name);
    return s;
}

/* What is not stated may mean another number in the other format, and the graph has those of one. */
static qgc_status check_format(const binding *b, const qgc_param_want *p, int turn) {
    if (same_number(value_in(p, turn), b->is_gguf))
        return QGC_OK;
    qgc_status s =
        qgc_fail(b->d, QGC_ERR_INPUT, p->at, "\"%s\" is %.10g: the graph was made for %s, and \"%s\" is %s",
                 label_of(b, p, turn), value_in(p, turn), b->is_gguf ? "safetensors" : "a GGUF", b->path,
                 b->is_gguf ? "a GGUF" : "safetensors");
    qgc_hint(b->d, "What weights leave out means other numbers there: give --weights when it is compiled.");
    return s;
}

/* All keys that the file has: one of them may contradict another. */
static qgc_status check_turn(const binding *b, const qgc_param_want *p, int turn) {
    const char *const *keys = b->is_gguf ? p->gguf : p->hf;
    const int n_keys = b->is_gguf ? p->n_gguf : p->n_hf;
    if (p->n_gguf > 0 && qgc_key_asks_format(p->gguf[0]))
        return check_format(b, p, turn);
    bool found = n_keys == 0;
    for (int i = 0; i < n_keys; i++)
        QGC_TRY(check_key(b, p, turn, keys[i], &found));
    return found ? QGC_OK : check_otherwise(b, p, turn, keys[0]);
}

/* A list in the file has as many entries as there are iterations. */
static qgc_status check_lengths(const binding *b, const qgc_param_want *p) {
    const char *const *keys = b->is_gguf ? p->gguf : p->hf;
    for (int i = 0; p->turns && i < (b->is_gguf ? p->n_gguf : p->n_hf); i++) {
        const size_t n = qgc_weights_values(b->w, keys[i]);
        if (n > 1 && n != (size_t)p->turns)
            return qgc_fail(b->d, QGC_ERR_INPUT, p->at,
                            "\"%s\" has %d values, but \"%s\" states %zu as \"%s\"", p->name, p->turns,
                            b->path, n, qgc_weights_key(b->w, keys[i], b->d->arena));
    }
    return QGC_OK;
}

static qgc_status check_param(const binding *b, const qgc_param_want *p) {
    QGC_TRY(check_lengths(b, p));
    for (int turn = 0; turn < (p->turns ? p->turns : 1); turn++)
        QGC_TRY(check_turn(b, p, turn));
    return QGC_OK;
}

/* --- tensors ---------------------------------------------------------------------------------------------- */

/* A matrix of one row may be a vector in the file: converters to GGUF leave out dimensions of 1. */
static bool has_shape(const qgc_tensor *t, const qgc_weight_want *want) {
    if (t->rank == 1 && want->rank == 2 && want->shape[0] == 1)
        return t->shape[0] == want->shape[1];
    return t->rank == want->rank && memcmp(t->shape, want->shape, (size_t)t->rank * sizeof *t->shape) == 0;
}

static qgc_status check_shape(const binding *b, const qgc_weight_want *want, const qgc_tensor *t) {
    assert(t); /* find_tied has seen to it */
    if (has_shape(t, want))
        return QGC_OK;
    qgc_arena *a = b->d->arena;
    qgc_status s = qgc_fail(
        b->d, QGC_ERR_INPUT, want->at, "weight \"%s\" is %s, but tensor \"%s\" of \"%s\" is %s", want->label,
        shape_text(want->shape, want->rank, a), t->name, b->path, shape_text(t->shape, t->rank, a));
    if (t->rank == 2 && want->rank == 2 && t->shape[0] == want->shape[1] && t->shape[1] == want->shape[0])
        qgc_hint(b->d, "It would fit if it were transposed; weights are [out, in].");
    else
        qgc_hint(b->d, "The weights are of another size than the model, or the shape in the model is wrong.");
    return s;
}

static qgc_status missing(const binding *b, const qgc_weight_want *want, const char *name) {
    size_t n = qgc_weights_count(b->w);
    const char **names = qgc_arena_array(b->d->arena, n, sizeof *names);
    for (size_t i = 0; i < n; i++)
        names[i] = qgc_weights_at(b->w, i)->name;
    qgc_status s =
        qgc_fail(b->d, QGC_ERR_INPUT, want->at, "weight \"%s\" is missing: \"%s\" has no tensor \"%s\"",
                 want->label, b->path, name);
    const char *nearest = qgc_nearest(name, names, n);
    if (nearest)
        qgc_hint(b->d, "The nearest name in it is \"%s\".", nearest);
    else
        qgc_hint(b->d,
                 "The file has %zu tensors, none of such a name: is it of this architecture, and whole?", n);
    return s;
}

static qgc_status no_name(const binding *b, const qgc_weight_want *want) {
    qgc_status s =
        qgc_fail(b->d, QGC_ERR_INPUT, want->at, "weight \"%s\" has no name for %s, which \"%s\" is",
                 want->label, b->format, b->path);
    qgc_hint(b->d, "Write the name of its tensor under \"%s\" in its declaration.",
             b->is_gguf ? "gguf" : "hf");
    return s;
}

/* What the file has under the want's own name; left NULL where a tied weight stands in. */
static qgc_status find_own(const binding *b, size_t i) {
    const qgc_weight_want *want = &b->request->weights[i];
    const char *name = qgc_form_name(b, want, 0);
    const qgc_tensor *source = name ? qgc_form_source(b, name) : NULL;
    b->found[i] = NULL;
    if (source)
        return qgc_form_make(b, want, source, &b->found[i]);
    if (want->tied >= 0)
        return QGC_OK;
    return name ? missing(b, want, name) : no_name(b, want);
}

/* A tied weight may stand in for another tied one; a circle ends after as many steps as there are weights. */
static qgc_status find_tied(const binding *b, size_t i) {
    size_t from = i;
    for (size_t steps = 0; !b->found[from]; steps++) {
        const qgc_weight_want *want = &b->request->weights[from];
        if (want->tied < 0 || steps > b->request->n_weights)
            return qgc_fail(b->d, QGC_ERR_INPUT, want->at, "weight \"%s\" is tied to itself", want->label);
        from = (size_t)want->tied;
    }
    b->found[i] = b->found[from];
    return QGC_OK;
}

/* Which tensors of the file are in use, and how many rows of those of which a weight is a part. */
typedef struct {
    int64_t rows, all; /* in use, and those that it has; all is 0 where a weight is the whole of it */
} use;

static void note_use(qgc_map *uses, const char *name, use more) {
    use *u = qgc_map_get(uses, name);
    if (!u) {
        u = qgc_arena_alloc(uses->arena, sizeof *u);
        u->all = more.all;
        qgc_map_put(uses, name, u);
    }
    u->rows += more.rows;
    u->all = more.all < u->all ? more.all : u->all;
}

static void note_want(const binding *b, qgc_map *uses, size_t i) {
    const qgc_weight_want *want = &b->request->weights[i];
    const qgc_tensor_form *f = qgc_form_of(b, want);
    const char *name = qgc_form_name(b, want, 0);
    const qgc_tensor *source = name ? qgc_weights_find(b->w, name) : NULL;
    if (!source) /* another weight stands in */
        return;
    use u = {0};
    if (f->last)
        u = (use){b->found[i]->shape[0], source->shape[f->transposed && source->rank == 2 ? 1 : 0]};
    for (int64_t k = 0; k < (f->stacked_index ? f->stacked : 1); k++)
        note_use(uses, qgc_form_name(b, want, k), u);
}

/* Rows of a tensor that no weight is made of are as much left out as a whole tensor. */
static qgc_status check_rows(const binding *b, const qgc_map *uses) {
    for (size_t i = 0; i < uses->n; i++) {
        const use *u = uses->entries[i].value;
        if (u->all == 0 || u->rows == u->all)
            continue;
        qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                                "weights are made of %lld rows of tensor \"%s\" of \"%s\", which has %lld",
                                (long long)u->rows, uses->entries[i].key, b->path, (long long)u->all);
        qgc_hint(b->d, "A model that leaves out weights, or takes some twice, gives wrong text.");
        return s;
    }
    return QGC_OK;
}

/* "*" stands for any text. */
static bool matches(const char *pattern, const char *name) {
    const char *star = NULL, *from = name; /* the last "*", and where what follows it was tried last */
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++from;
        } else
            return false;
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

static bool is_ignored(const binding *b, const char *name) {
    for (size_t i = 0; i < b->request->n_ignored; i++)
        if (matches(b->request->ignored[i], name))
            return true;
    return false;
}

static qgc_status list_unused(const binding *b, const qgc_map *uses, qgc_arena *scratch) {
    qgc_str list = qgc_str_new(scratch);
    size_t n_unused = 0;
    for (size_t i = 0; i < qgc_weights_count(b->w); i++) {
        const char *name = qgc_weights_at(b->w, i)->name;
        if (qgc_map_get(uses, name) || is_ignored(b, name))
            continue;
        if (n_unused++ < MOST_LISTED)
            qgc_str_printf(&list, "%s\"%s\"", n_unused > 1 ? ", " : "", name);
    }
    if (n_unused == 0)
        return QGC_OK;
    if (n_unused > MOST_LISTED)
        qgc_str_printf(&list, " and %zu more", n_unused - MOST_LISTED);
    qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                            "\"%s\" has %zu tensor%s that the model does not use: %s", b->path, n_unused,
                            n_unused == 1 ? "" : "s", list.text);
    qgc_hint(b->d, "A model that leaves out weights gives wrong text; --allow-unused lets them pass.");
    return s;
}

static qgc_status check_unused(const binding *b) {
    qgc_arena *scratch = qgc_arena_new();
    qgc_map uses = qgc_map_new(scratch);
    for (size_t i = 0; i < b->request->n_weights; i++)
        note_want(b, &uses, i);
    qgc_status s = check_rows(b, &uses);
    if (s == QGC_OK && !b->request->allow_unused)
        s = list_unused(b, &uses, scratch);
    qgc_arena_drop(scratch);
    return s;
}

static qgc_status bind_all(const binding *b) {
    const qgc_bind_request *r = b->request;
    QGC_TRY(check_arch(b));
    for (size_t i = 0; i < r->n_params; i++)
        QGC_TRY(check_param(b, &r->params[i]));
    for (size_t i = 0; i < r->n_weights; i++)
        QGC_TRY(find_own(b, i));
    for (size_t i = 0; i < r->n_weights; i++)
        QGC_TRY(find_tied(b, i));
    for (size_t i = 0; i < r->n_weights; i++)
        QGC_TRY(check_shape(b, &r->weights[i], b->found[i]));
    QGC_TRY(qgc_facts_check(b));
    return check_unused(b);
}

qgc_status qgc_bind(const qgc_weights *w, const qgc_bind_request *request, const qgc_tensor **found,
                    qgc_diag *d) {
    bool is_gguf = qgc_weights_kind(w) == QGC_WEIGHTS_GGUF;
    binding b = {w, request, found, d, is_gguf, qgc_weights_path(w), is_gguf ? "GGUF" : "safetensors"};
    qgc_frame frame = {d->top, "binding the weights of", b.path, request->at};
    d->top = &frame;
    qgc_status s = bind_all(&b);
    d->top = frame.up;
    return s;
}
