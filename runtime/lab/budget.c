#include "runtime/lab/budget.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/yaml.h"

static const char *const names[QGC_N_LIMITS] = {[QGC_MAX_KL] = "max_kl",
                                                [QGC_MAX_DRIFT] = "max_drift",
                                                [QGC_MAX_FLIPS] = "max_flips",
                                                [QGC_MIN_US] = "min_us",
                                                [QGC_MIN_KERNELS] = "min_kernels"};

/* --- reading --------------------------------------------------------------------------------------------- */

static qgc_status want(const qgc_yaml *node, qgc_yaml_kind kind, const char *what, qgc_diag *d) {
    if (node->kind == kind)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, node->at, "%s is %s, expected %s", what, qgc_yaml_kind_name(node),
                    qgc_yaml_kind_name(&(qgc_yaml){.kind = kind, .text = "", .quoted = true}));
}

static qgc_status read_limit(qgc_limit *limit, const char *name, const qgc_yaml *node, qgc_diag *d) {
    QGC_TRY(want(node, QGC_YAML_SCALAR, name, d));
    char *end;
    *limit = (qgc_limit){true, strtod(node->text, &end), node->at};
    if (end != node->text && !*end && isfinite(limit->value))
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, node->at, "%s is \"%s\", expected a number", name, node->text);
}

static qgc_status unknown_key(const qgc_yaml *key, bool top, qgc_diag *d) {
    const char *known[QGC_N_LIMITS + 1];
    memcpy(known, names, sizeof names);
    known[QGC_N_LIMITS] = "passes";
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, key->at, "unknown limit \"%s\"", key->text);
    const char *near = qgc_nearest(key->text, known, QGC_N_LIMITS + top);
    if (near)
        qgc_hint(d, "Did you mean \"%s\"?", near);
    else
        qgc_hint(d, "There are max_kl, max_drift, max_flips, min_us and min_kernels.");
    return s;
}

/* The limits of a mapping; `passes` is a key too at the top. */
static qgc_status read_limits(qgc_limit *limits, const qgc_yaml *map, bool top, qgc_diag *d) {
    for (size_t i = 0; i < map->n; i++) {
        const char *key = map->keys[i]->text;
        if (top && strcmp(key, "passes") == 0)
            continue;
        int k = 0;
        while (k < QGC_N_LIMITS && strcmp(names[k], key) != 0)
            k++;
        if (k == QGC_N_LIMITS)
            return unknown_key(map->keys[i], top, d);
        QGC_TRY(read_limit(&limits[k], key, map->items[i], d));
    }
    return QGC_OK;
}

static qgc_status read_passes(qgc_budget *out, const qgc_yaml *passes, qgc_diag *d) {
    QGC_TRY(want(passes, QGC_YAML_MAP, "passes", d));
    out->passes = qgc_arena_array(d->arena, passes->n, sizeof *out->passes);
    out->n_passes = passes->n;
    for (size_t i = 0; i < passes->n; i++) {
        out->passes[i] = (qgc_pass_budget){.pass = passes->keys[i]->text, .at = passes->keys[i]->at};
        QGC_TRY(want(passes->items[i], QGC_YAML_MAP, "the budget of a pass", d));
        QGC_TRY(read_limits(out->passes[i].limits, passes->items[i], false, d));
    }
    return QGC_OK;
}

qgc_status qgc_budget_read(qgc_budget *out, const char *path, qgc_diag *d) {
    qgc_yaml *doc;
    *out = (qgc_budget){0};
    qgc_source *text = qgc_arena_alloc(d->arena, sizeof *text); /* places point into it */
    QGC_TRY(qgc_file_read(text, path, QGC_YAML_MAX_BYTES, "the budget", d));
    QGC_TRY(qgc_yaml_parse(&doc, text, d->arena, d));
    QGC_TRY(want(doc, QGC_YAML_MAP, "a budget", d));
    QGC_TRY(read_limits(out->limits, doc, true, d));
    const qgc_yaml *passes = qgc_yaml_get(doc, "passes");
    return passes ? read_passes(out, passes, d) : QGC_OK;
}

/* --- checking -------------------------------------------------------------------------------------------- */

/* Is `pass`, "fuse-pointwise(max=4)", the one of that name? */
static bool is_pass(const char *pass, const char *name) {
    size_t n = strlen(name);
    return strncmp(pass, name, n) == 0 && (pass[n] == 0 || pass[n] == '(');
}

static qgc_status check_names(const qgc_budget *b, const qgc_ablation *x, qgc_diag *d) {
    const char **known = qgc_arena_array(d->arena, x->n_rows, sizeof *known);
    for (size_t i = 0; i < x->n_rows; i++)
        known[i] = qgc_arena_strndup(d->arena, x->rows[i].pass, strcspn(x->rows[i].pass, "("));
    for (size_t p = 0; p < b->n_passes; p++) {
        bool found = false;
        for (size_t i = 0; i < x->n_rows; i++)
            found = found || strcmp(known[i], b->passes[p].pass) == 0;
        if (found)
            continue;
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, b->passes[p].at, "pass \"%s\" is not in the pipeline",
                                b->passes[p].pass);
        const char *near = qgc_nearest(b->passes[p].pass, known, x->n_rows);
        if (near)
            qgc_hint(d, "Did you mean \"%s\"?", near);
        return s;
    }
    return QGC_OK;
}

static const qgc_limit *limit_of(const qgc_budget *b, const char *pass, qgc_limit_kind kind) {
    for (size_t i = 0; i < b->n_passes; i++)
        if (is_pass(pass, b->passes[i].pass) && b->passes[i].limits[kind].there)
            return &b->passes[i].limits[kind];
    return &b->limits[kind];
}

/* What was not measured keeps no limit. */
static bool within(qgc_limit_kind kind, const qgc_ablate_effect *e, double limit) {
    if (e->refused)
        return false;
    switch (kind) {
    case QGC_MAX_KL:
        return e->drift.kl_max <= limit;
    case QGC_MAX_DRIFT:
        return e->drift.max_drift <= limit;
    case QGC_MAX_FLIPS:
        return (double)e->drift.flips <= limit;
    case QGC_MIN_US:
        return e->us.high >= limit;
    case QGC_MIN_KERNELS:
        return e->kernels >= limit;
    case QGC_N_LIMITS:
    default:
        return false;
    }
}

static const char *said(qgc_limit_kind kind, const qgc_ablate_effect *e, qgc_arena *a) {
    if (e->refused)
        return qgc_arena_printf(a, "was not measured (%s)", e->refused);
    switch (kind) {
    case QGC_MAX_KL:
        return qgc_arena_printf(a, "changes the logits by a KL divergence of %.3g", e->drift.kl_max);
    case QGC_MAX_DRIFT:
        return qgc_arena_printf(a, "changes a logit by %.3g", e->drift.max_drift);
    case QGC_MAX_FLIPS:
        return qgc_arena_printf(a, "changes the most likely token at %lld of %lld positions",
                                (long long)e->drift.flips, (long long)e->drift.positions);
    case QGC_MIN_US:
        return qgc_arena_printf(a, "saves %.2f us a token, %.2f at most", e->us.median, e->us.high);
    case QGC_MIN_KERNELS:
        return qgc_arena_printf(a, "saves %d kernels a token", e->kernels);
    case QGC_N_LIMITS:
    default:
        return "";
    }
}

static void report(const char *what, qgc_limit_kind kind, const qgc_ablate_effect *e, const qgc_limit *limit,
                   qgc_diag *d) {
    const char *text = qgc_arena_printf(d->arena, "%s %s, and its budget is %s %g", what,
                                        said(kind, e, d->arena), names[kind], limit->value);
    if (d->status == QGC_OK)
        (void)qgc_fail(d, QGC_ERR_INPUT, limit->at, "%s", text);
    else
        qgc_note(d, limit->at, "%s", text);
}

static const char *pass_named(const char *pass, const char *where, qgc_arena *a) {
    return qgc_arena_printf(a, "pass \"%s\"%s", pass, where);
}

static void check_row(const qgc_budget *b, const qgc_ablate_row *row, bool timed, int *unchecked,
                      qgc_diag *d) {
    for (int k = 0; k < QGC_N_LIMITS; k++) {
        qgc_limit_kind kind = (qgc_limit_kind)k;
        const qgc_limit *limit = limit_of(b, row->pass, kind);
        bool saving = kind == QGC_MIN_US || kind == QGC_MIN_KERNELS;
        if (!limit->there)
            continue;
        if (kind == QGC_MIN_US && !timed)
            ++*unchecked;
        else if (!within(kind, &row->left_out, limit->value))
            report(pass_named(row->pass, saving ? "" : " in the pipeline", d->arena), kind, &row->left_out,
                   limit, d);
        else if (!saving && !within(kind, &row->alone, limit->value))
            report(pass_named(row->pass, " alone", d->arena), kind, &row->alone, limit, d);
    }
}

qgc_status qgc_budget_check(const qgc_budget *b, const qgc_ablation *x, int *unchecked, qgc_diag *d) {
    *unchecked = 0;
    QGC_TRY(check_names(b, x, d));
    for (size_t i = 0; i < x->n_rows; i++)
        check_row(b, &x->rows[i], x->timed, unchecked, d);
    return d->status;
}

qgc_status qgc_budget_check_drift(const qgc_budget *b, const qgc_drift *x, int *unchecked, qgc_diag *d) {
    const qgc_ablate_effect effect = {.drift = *x};
    *unchecked = 0;
    for (int k = 0; k < QGC_N_LIMITS; k++) {
        const qgc_limit_kind kind = (qgc_limit_kind)k;
        const bool saving = kind == QGC_MIN_US || kind == QGC_MIN_KERNELS;
        for (size_t i = 0; i < b->n_passes; i++)
            *unchecked += b->passes[i].limits[k].there;
        if (b->limits[k].there && saving)
            ++*unchecked;
        else if (b->limits[k].there && !within(kind, &effect, b->limits[k].value))
            report("the model, against the other,", kind, &effect, &b->limits[k], d);
    }
    return d->status;
}
