#include "passes/edit.h"

#include <string.h>

#include "graph/base/str.h"

/* The entries of a pipeline, "fuse-pointwise(max=4)?". */
typedef struct {
    const char **entries;
    size_t n;
    qgc_arena *arena;
} pipeline;

static const char *name_of(const char *entry, qgc_arena *a) {
    return qgc_arena_strndup(a, entry, strcspn(entry, "(?"));
}

/* The first entry of that name, or p->n. */
static size_t find(const pipeline *p, const char *name) {
    size_t i = 0;
    while (i < p->n && strcmp(name_of(p->entries[i], p->arena), name) != 0)
        i++;
    return i;
}

static void put(pipeline *p, size_t at, const char *entry) {
    p->entries = qgc_arena_grow(p->arena, p->entries, p->n, sizeof(char *));
    memmove(p->entries + at + 1, p->entries + at, (p->n - at) * sizeof(char *));
    p->entries[at] = entry;
    p->n++;
}

static void take_out(pipeline *p, const char *name, size_t but) {
    size_t kept = 0;
    for (size_t i = 0; i < p->n; i++)
        if (i == but || strcmp(name_of(p->entries[i], p->arena), name) != 0)
            p->entries[kept++] = p->entries[i];
    p->n = kept;
}

static qgc_status read_list(pipeline *p, const char *text) {
    for (char *entry; (entry = qgc_pipeline_next(&text, p->arena));)
        if (*entry)
            put(p, p->n, entry);
    return QGC_OK;
}

static qgc_status find_or_fail(const pipeline *p, const char *name, size_t *at, qgc_diag *d) {
    const qgc_pass_info *info;
    QGC_TRY(qgc_pass_find(name, QGC_NO_LOC, &info, d));
    *at = find(p, name);
    if (*at < p->n)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "pass \"%s\" is not in the pipeline", name);
}

typedef enum { REPLACE, BEFORE, AFTER } placing;

/* One "A=B". */
static qgc_status place(pipeline *p, const char *edit, placing how, qgc_diag *d) {
    static const char *const options[] = {"replace", "before", "after"};
    const size_t left = strcspn(edit, "=(");
    if (edit[left] != '=' || left == 0 || !edit[left + 1])
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s is \"%s\", expected PASS=PASS",
                        options[how], edit);
    const char *anchor = qgc_arena_strndup(p->arena, edit, left), *entry = edit + left + 1;
    const char *name = name_of(entry, p->arena);
    const qgc_pass_info *info;
    size_t at;
    QGC_TRY(find_or_fail(p, anchor, &at, d));
    QGC_TRY(qgc_pass_find(name, QGC_NO_LOC, &info, d));
    if (strcmp(name, anchor) == 0 && how != REPLACE)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --%s puts pass \"%s\" beside itself",
                        options[how], name);
    if (how == REPLACE) {
        p->entries[at] = entry;
        take_out(p, name, at);
        return QGC_OK;
    }
    take_out(p, name, p->n);
    put(p, find(p, anchor) + (how == AFTER), entry);
    return QGC_OK;
}

static qgc_status place_all(pipeline *p, const char *list, placing how, qgc_diag *d) {
    for (char *edit; list && (edit = qgc_pipeline_next(&list, p->arena));)
        if (*edit)
            QGC_TRY(place(p, edit, how, d));
    return QGC_OK;
}

static qgc_status leave_out(pipeline *p, const char *list, bool must_be_there, qgc_diag *d) {
    for (char *entry; list && (entry = qgc_pipeline_next(&list, p->arena));) {
        const char *name = name_of(entry, p->arena);
        size_t at;
        if (*entry && must_be_there)
            QGC_TRY(find_or_fail(p, name, &at, d));
        take_out(p, name, p->n);
    }
    return QGC_OK;
}

bool qgc_pass_edits_any(const qgc_pass_edits *e) {
    return e->without || e->replace || e->before || e->after;
}

qgc_status qgc_pass_pipeline(const char **out, const qgc_graph *g, const char *passes, const char *skip,
                             const qgc_pass_edits *e, qgc_diag *d) {
    pipeline p = {.arena = d->arena};
    const bool of_file = !passes && g && g->passes;
    const char *text = passes ? passes : of_file ? g->passes : qgc_pipeline_default(d->arena);
    QGC_TRY(read_list(&p, text));
    for (size_t i = 0; i < p.n; i++) {
        const qgc_pass_info *info;
        if (!qgc_passes_modes(p.entries[i], d->arena))
            QGC_TRY(qgc_pass_find(name_of(p.entries[i], d->arena), of_file ? g->passes_at : QGC_NO_LOC, &info,
                                  d));
    }
    QGC_TRY(leave_out(&p, skip, false, d));
    QGC_TRY(leave_out(&p, e->without, true, d));
    QGC_TRY(place_all(&p, e->replace, REPLACE, d));
    QGC_TRY(place_all(&p, e->before, BEFORE, d));
    QGC_TRY(place_all(&p, e->after, AFTER, d));
    qgc_str line = qgc_str_new(d->arena);
    for (size_t i = 0; i < p.n; i++)
        qgc_str_printf(&line, "%s%s", i ? "," : "", p.entries[i]);
    *out = line.text;
    return QGC_OK;
}
