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

static qgc_status check_arch(const binding *b) {
    const char *arch = qgc_weights_arch(b->w), *wanted = b->request->arch;
    if (!arch)
        return qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                        "the model is of architecture \"%s\", but \"%s\" does not state one", wanted,
                        b->path);
    if (strcmp(arch, wanted) == 0)
        return QGC_OK;
    qgc_status s =
        qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                 "the model is of architecture \"%s\", but \"%s\" holds \"%s\"", wanted, b->path, arch);
    qgc_hint(b->d, "Take a model file for \"%s\", or weights for \"%s\".", arch, wanted);
    return s;
}

static qgc_status check_key(const binding *b, const qgc_param_want *p, const char *key, double stated) {
    if (same_number(stated, p->value))
        return QGC_OK;
    qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, p->at, "\"%s\" is %.10g, but \"%s\" states %.10g as \"%s\"",
                            p->name, p->value, b->path, stated, key);
    qgc_hint(b->d, "The weights are of another model, or \"%s\" should be %.10g.", p->name, stated);
    return s;
}

/* All keys that the file has: one of them may contradict another. */
static qgc_status check_param(const binding *b, const qgc_param_want *p) {
    const char *const *keys = b->is_gguf ? p->gguf : p->hf;
    const int n_keys = b->is_gguf ? p->n_gguf : p->n_hf;
    bool found = n_keys == 0;
    for (int i = 0; i < n_keys; i++) {
        double stated;
        if (!qgc_weights_number(b->w, keys[i], &stated))
            continue;
        QGC_TRY(check_key(b, p, keys[i], stated));
        found = true;
    }
    if (found)
        return QGC_OK;
    const char *shown = qgc_weights_shown(b->w, keys[0], b->d->arena);
    if (shown)
        return qgc_fail(b->d, QGC_ERR_INPUT, p->at, "\"%s\" is %.10g, but \"%s\" states %s as \"%s\"",
                        p->name, p->value, b->path, shown, keys[0]);
    qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, p->at, "\"%s\" is %.10g, but \"%s\" does not state \"%s\"",
                            p->name, p->value, b->path, keys[0]);
    qgc_hint(b->d, "If such files never state it, take the key for %s away from \"%s\".", b->format, p->name);
    return s;
}

static qgc_status check_shape(const binding *b, const qgc_weight_want *want, const qgc_tensor *t) {
    assert(t); /* find_tied has seen to it */
    if (t->rank == want->rank && memcmp(t->shape, want->shape, (size_t)t->rank * sizeof *t->shape) == 0)
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
    const char *name = b->is_gguf ? want->gguf : want->hf;
    b->found[i] = name ? qgc_weights_find(b->w, name) : NULL;
    if (b->found[i] || want->tied >= 0)
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

static qgc_status check_unused(const binding *b) {
    qgc_arena *scratch = qgc_arena_new();
    qgc_map used = qgc_map_new(scratch);
    for (size_t i = 0; i < b->request->n_weights; i++)
        qgc_map_put(&used, b->found[i]->name, (void *)(uintptr_t)b->found[i]);
    qgc_str list = qgc_str_new(scratch);
    size_t n_unused = 0;
    for (size_t i = 0; i < qgc_weights_count(b->w); i++) {
        const char *name = qgc_weights_at(b->w, i)->name;
        if (qgc_map_get(&used, name))
            continue;
        if (n_unused++ < MOST_LISTED)
            qgc_str_printf(&list, "%s\"%s\"", n_unused > 1 ? ", " : "", name);
    }
    qgc_status s = QGC_OK;
    if (n_unused > 0) {
        if (n_unused > MOST_LISTED)
            qgc_str_printf(&list, " and %zu more", n_unused - MOST_LISTED);
        s = qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                     "\"%s\" has %zu tensor%s that the model does not use: %s", b->path, n_unused,
                     n_unused == 1 ? "" : "s", list.text);
        qgc_hint(b->d, "A model that leaves out weights gives wrong text; --allow-unused lets them pass.");
    }
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
    return r->allow_unused ? QGC_OK : check_unused(b);
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
