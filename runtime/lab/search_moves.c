#include "runtime/lab/search_moves.h"

#include <string.h>

#include "graph/base/str.h"
#include "passes/edit.h"
#include "runtime/lab/random.h"

const char *search_passes_text(const search_recipe *r, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    for (size_t i = 0; i < r->n_passes; i++)
        qgc_str_printf(&text, "%s%s", i ? "," : "", r->passes[i]);
    return text.text;
}

search_recipe search_recipe_of(const char *passes, qgc_arena *a) {
    search_recipe r = {0};
    for (char *entry; (entry = qgc_pipeline_next(&passes, a));) {
        if (!*entry || qgc_passes_modes(entry, a))
            continue;
        entry[strcspn(entry, "?")] = 0;
        r.passes = qgc_arena_grow(a, r.passes, r.n_passes, sizeof(char *));
        r.passes[r.n_passes++] = entry;
    }
    return r;
}

/* The name without options. */
static bool is_pass(const char *entry, const char *name) {
    const size_t n = strlen(name);
    return strncmp(entry, name, n) == 0 && (entry[n] == 0 || entry[n] == '(');
}

/* Its place in the table of passes. */
static size_t rank_of(const char *entry) {
    size_t i = 0;
    while (i < qgc_pass_count() && !is_pass(entry, qgc_pass_at(i)->name))
        i++;
    return i;
}

static bool has_pass(const search_recipe *r, const char *name) {
    for (size_t i = 0; i < r->n_passes; i++)
        if (is_pass(r->passes[i], name))
            return true;
    return false;
}

/* --- changes --------------------------------------------------------------------------------------------- */

static search_recipe copy_of(const search_recipe *r, qgc_arena *a) {
    search_recipe copy = *r;
    copy.passes = qgc_arena_array(a, r->n_passes + 2, sizeof(char *)); /* with room for two more */
    copy.cuts = qgc_arena_array(a, r->n_cuts + 1, sizeof *copy.cuts);
    for (size_t i = 0; i < r->n_passes; i++)
        copy.passes[i] = r->passes[i];
    for (size_t i = 0; i < r->n_cuts; i++)
        copy.cuts[i] = r->cuts[i];
    return copy;
}

static void put_pass(search_recipe *r, size_t at, const char *entry) {
    memmove(r->passes + at + 1, r->passes + at, (r->n_passes - at) * sizeof(char *));
    r->passes[at] = entry;
    r->n_passes++;
}

static void take_pass(search_recipe *r, size_t at) {
    memmove(r->passes + at, r->passes + at + 1, (r->n_passes - at - 1) * sizeof(char *));
    r->n_passes--;
}

/* After the last pass that comes before it in the table. */
static void add_pass(search_recipe *r, const char *name) {
    size_t at = 0;
    for (size_t i = 0; i < r->n_passes; i++)
        if (rank_of(r->passes[i]) < rank_of(name))
            at = i + 1;
    put_pass(r, at, name);
}

static void add_move(search_moves *m, const search_recipe *r, const char *change, qgc_arena *a) {
    m->all = qgc_arena_grow(a, m->all, m->n, sizeof *m->all);
    m->all[m->n++] = (search_move){change, *r};
}

static void more_and_less(search_moves *m, const search_recipe *r, qgc_arena *a) {
    for (size_t i = 0; i < qgc_pass_count(); i++) {
        const char *name = qgc_pass_at(i)->name;
        search_recipe now = copy_of(r, a);
        if (has_pass(r, name))
            continue;
        add_pass(&now, name);
        add_move(m, &now, qgc_arena_printf(a, "+%s", name), a);
    }
    for (size_t i = 0; i < r->n_passes; i++) {
        search_recipe now = copy_of(r, a);
        take_pass(&now, i);
        add_move(m, &now, qgc_arena_printf(a, "-%s", r->passes[i]), a);
    }
}

/* Two neighbours exchanged, and each pass first or last. */
static void other_places(search_moves *m, const search_recipe *r, qgc_arena *a) {
    for (size_t i = 0; i < r->n_passes; i++)
        for (int last = 0; last < 2; last++) {
            search_recipe now = copy_of(r, a);
            const size_t to = last ? r->n_passes - 1 : 0;
            if (i == to)
                continue;
            take_pass(&now, i);
            put_pass(&now, to, r->passes[i]);
            add_move(m, &now, qgc_arena_printf(a, "%s %s", r->passes[i], last ? "last" : "first"), a);
        }
    for (size_t i = 1; i + 1 < r->n_passes; i++) { /* the ends were exchanged above */
        search_recipe now = copy_of(r, a);
        now.passes[i - 1] = r->passes[i];
        now.passes[i] = r->passes[i - 1];
        add_move(m, &now, qgc_arena_printf(a, "%s before %s", r->passes[i], r->passes[i - 1]), a);
    }
}

/* Options are whole numbers, of which these are tried; one that a pass refuses is told. */
static void other_options(search_moves *m, const search_recipe *r, qgc_arena *a) {
    static const int values[] = {2, 4, 8, 16};
    for (size_t i = 0; i < r->n_passes; i++) {
        const size_t rank = rank_of(r->passes[i]);
        const char *options = rank < qgc_pass_count() ? qgc_pass_at(rank)->options : NULL;
        for (char *option; options && (option = qgc_pipeline_next(&options, a));)
            for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
                search_recipe now = copy_of(r, a);
                now.passes[i] = qgc_arena_printf(a, "%s(%s=%d)", qgc_pass_at(rank)->name, option, values[k]);
                if (strcmp(now.passes[i], r->passes[i]) != 0)
                    add_move(m, &now, now.passes[i], a);
            }
    }
}

static void other_cuts(search_moves *m, const search_recipe *r, const search_cut *cuts, size_t n_cuts,
                       qgc_arena *a) {
    for (size_t i = 0; i < n_cuts; i++) {
        search_recipe now = copy_of(r, a);
        now.cuts[now.n_cuts++] = cuts[i];
        add_move(m, &now, qgc_arena_printf(a, "cut %s: %s", cuts[i].group, qgc_cut_name(cuts[i].cut)), a);
    }
    for (size_t i = 0; i < r->n_cuts; i++) {
        search_recipe now = copy_of(r, a);
        now.cuts[i] = now.cuts[--now.n_cuts];
        add_move(m, &now,
                 qgc_arena_printf(a, "no cut of %s: %s", r->cuts[i].group, qgc_cut_name(r->cuts[i].cut)), a);
    }
}

search_moves search_single_moves(const search_recipe *r, const search_cut *cuts, size_t n_cuts,
                                 qgc_arena *a) {
    search_moves m = {0};
    more_and_less(&m, r, a);
    other_places(&m, r, a);
    other_options(&m, r, a);
    other_cuts(&m, r, cuts, n_cuts, a);
    return m;
}

search_moves search_double_moves(const search_recipe *r, qgc_arena *a) {
    search_moves m = {0};
    for (size_t i = 0; i < qgc_pass_count(); i++) {
        const char *one = qgc_pass_at(i)->name;
        if (has_pass(r, one))
            continue;
        for (size_t k = i + 1; k < qgc_pass_count(); k++) {
            search_recipe now = copy_of(r, a);
            const char *two = qgc_pass_at(k)->name;
            if (has_pass(r, two))
                continue;
            add_pass(&now, one);
            add_pass(&now, two);
            add_move(&m, &now, qgc_arena_printf(a, "+%s +%s", one, two), a);
        }
        for (size_t k = 0; k < r->n_passes; k++) {
            search_recipe now = copy_of(r, a);
            take_pass(&now, k);
            add_pass(&now, one);
            add_move(&m, &now, qgc_arena_printf(a, "+%s -%s", one, r->passes[k]), a);
        }
    }
    return m;
}

void search_shuffle(search_moves *m, uint64_t *seed) {
    for (size_t i = m->n; i > 1; i--) {
        const size_t at = qgc_random(seed) % i;
        const search_move other = m->all[at];
        m->all[at] = m->all[i - 1];
        m->all[i - 1] = other;
    }
}
