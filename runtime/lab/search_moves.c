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

/* --- a change made to a recipe --------------------------------------------------------------------------- */

/* With room for what a move adds. */
static search_recipe copy_of(const search_recipe *r, qgc_arena *a) {
    search_recipe copy = *r;
    copy.passes = qgc_arena_array(a, r->n_passes + SEARCH_EDITS, sizeof(char *));
    copy.cuts = qgc_arena_array(a, r->n_cuts + SEARCH_EDITS, sizeof *copy.cuts);
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

static bool add_pass(search_recipe *r, const char *name) {
    size_t at = 0;
    if (has_pass(r, name))
        return false;
    for (size_t i = 0; i < r->n_passes; i++)
        if (rank_of(r->passes[i]) < rank_of(name))
            at = i + 1;
    put_pass(r, at, name);
    return true;
}

/* Where the entry is; n_passes where it is not. */
static size_t place_of(const search_recipe *r, const char *entry) {
    size_t i = 0;
    while (i < r->n_passes && strcmp(r->passes[i], entry) != 0)
        i++;
    return i;
}

static bool move_before(search_recipe *r, size_t at, const char *pass, const char *other) {
    take_pass(r, at);
    const size_t to = other ? place_of(r, other) : r->n_passes;
    if (other && to == r->n_passes)
        return false;
    put_pass(r, to, pass);
    return true;
}

static bool edit_pass(search_recipe *r, const search_edit *e) {
    const size_t at = place_of(r, e->pass);
    if (at == r->n_passes)
        return false;
    switch (e->kind) {
    case SEARCH_DROP:
        take_pass(r, at);
        return true;
    case SEARCH_OPTION:
        r->passes[at] = e->other;
        return true;
    case SEARCH_FIRST:
        take_pass(r, at);
        put_pass(r, 0, e->pass);
        return true;
    case SEARCH_LAST:
        return move_before(r, at, e->pass, NULL);
    case SEARCH_BEFORE:
        return move_before(r, at, e->pass, e->other);
    case SEARCH_ADD:
    case SEARCH_CUT:
    case SEARCH_JOIN:
        break;
    }
    return false;
}

static bool edit_cut(search_recipe *r, const search_edit *e) {
    size_t at = 0;
    while (at < r->n_cuts && (r->cuts[at].cut != e->cut.cut || strcmp(r->cuts[at].group, e->cut.group) != 0))
        at++;
    if ((at < r->n_cuts) == (e->kind == SEARCH_CUT))
        return false;
    if (e->kind == SEARCH_CUT)
        r->cuts[r->n_cuts++] = e->cut;
    else
        r->cuts[at] = r->cuts[--r->n_cuts];
    return true;
}

bool search_apply(const search_recipe *r, const search_move *m, search_recipe *out, qgc_arena *a) {
    *out = copy_of(r, a);
    for (int i = 0; i < m->n; i++) {
        const search_edit *e = &m->edits[i];
        const bool done = e->kind == SEARCH_ADD                             ? add_pass(out, e->pass)
                          : e->kind == SEARCH_CUT || e->kind == SEARCH_JOIN ? edit_cut(out, e)
                                                                            : edit_pass(out, e);
        if (!done)
            return false;
    }
    return true;
}

/* --- which changes there are ----------------------------------------------------------------------------- */

const char *search_edit_text(const search_edit *e, qgc_arena *a) {
    switch (e->kind) {
    case SEARCH_ADD:
        return qgc_arena_printf(a, "+%s", e->pass);
    case SEARCH_DROP:
        return qgc_arena_printf(a, "-%s", e->pass);
    case SEARCH_OPTION:
        return e->other;
    case SEARCH_FIRST:
        return qgc_arena_printf(a, "%s first", e->pass);
    case SEARCH_LAST:
        return qgc_arena_printf(a, "%s last", e->pass);
    case SEARCH_BEFORE:
        return qgc_arena_printf(a, "%s before %s", e->pass, e->other);
    case SEARCH_CUT:
    case SEARCH_JOIN:
        break;
    }
    return qgc_arena_printf(a, "%s %s: %s", e->kind == SEARCH_CUT ? "cut" : "no cut of", e->cut.group,
                            qgc_cut_name(e->cut.cut));
}

static void add_move(search_moves *m, search_edit one, const search_edit *two, qgc_arena *a) {
    search_move move = {.edits = {one}, .n = 1, .change = search_edit_text(&one, a)};
    if (two) {
        move.edits[move.n++] = *two;
        move.change = qgc_arena_printf(a, "%s %s", move.change, search_edit_text(two, a));
    }
    m->all = qgc_arena_grow(a, m->all, m->n, sizeof *m->all);
    m->all[m->n++] = move;
}

static void more_and_less(search_moves *m, const search_recipe *r, qgc_arena *a) {
    for (size_t i = 0; i < qgc_pass_count(); i++)
        if (!has_pass(r, qgc_pass_at(i)->name))
            add_move(m, (search_edit){.kind = SEARCH_ADD, .pass = qgc_pass_at(i)->name}, NULL, a);
    for (size_t i = 0; i < r->n_passes; i++)
        add_move(m, (search_edit){.kind = SEARCH_DROP, .pass = r->passes[i]}, NULL, a);
}

/* Two neighbours exchanged, and each pass first or last. */
static void other_places(search_moves *m, const search_recipe *r, qgc_arena *a) {
    for (size_t i = 0; i < r->n_passes; i++) {
        const char *pass = r->passes[i];
        if (i > 0)
            add_move(m, (search_edit){.kind = SEARCH_FIRST, .pass = pass}, NULL, a);
        if (i + 1 < r->n_passes)
            add_move(m, (search_edit){.kind = SEARCH_LAST, .pass = pass}, NULL, a);
        if (i > 0 && i + 1 < r->n_passes) /* the ends were exchanged above */
            add_move(m, (search_edit){.kind = SEARCH_BEFORE, .pass = pass, .other = r->passes[i - 1]}, NULL,
                     a);
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
                const char *other =
                    qgc_arena_printf(a, "%s(%s=%d)", qgc_pass_at(rank)->name, option, values[k]);
                if (strcmp(other, r->passes[i]) != 0)
                    add_move(m, (search_edit){.kind = SEARCH_OPTION, .pass = r->passes[i], .other = other},
                             NULL, a);
            }
    }
}

static void other_cuts(search_moves *m, const search_recipe *r, const search_cut *cuts, size_t n_cuts,
                       qgc_arena *a) {
    for (size_t i = 0; i < n_cuts; i++)
        add_move(m, (search_edit){.kind = SEARCH_CUT, .cut = cuts[i]}, NULL, a);
    for (size_t i = 0; i < r->n_cuts; i++)
        add_move(m, (search_edit){.kind = SEARCH_JOIN, .cut = r->cuts[i]}, NULL, a);
}

static void two_passes(search_moves *m, const search_recipe *r, qgc_arena *a) {
    for (size_t i = 0; i < qgc_pass_count(); i++) {
        const search_edit one = {.kind = SEARCH_ADD, .pass = qgc_pass_at(i)->name};
        if (has_pass(r, one.pass))
            continue;
        for (size_t k = i + 1; k < qgc_pass_count(); k++)
            if (!has_pass(r, qgc_pass_at(k)->name))
                add_move(m, one, &(search_edit){.kind = SEARCH_ADD, .pass = qgc_pass_at(k)->name}, a);
        for (size_t k = 0; k < r->n_passes; k++)
            add_move(m, one, &(search_edit){.kind = SEARCH_DROP, .pass = r->passes[k]}, a);
    }
}

search_moves search_moves_of(const search_recipe *r, const search_cut *cuts, size_t n_cuts, qgc_arena *a) {
    search_moves m = {0};
    more_and_less(&m, r, a);
    two_passes(&m, r, a);
    other_options(&m, r, a);
    other_cuts(&m, r, cuts, n_cuts, a);
    other_places(&m, r, a);
    return m;
}

/* --- their order ----------------------------------------------------------------------------------------- */

static void shuffle(search_moves *m, uint64_t *seed) {
    for (size_t i = m->n; i > 1; i--) {
        const size_t at = qgc_random(seed) % i;
        const search_move other = m->all[at];
        m->all[at] = m->all[i - 1];
        m->all[i - 1] = other;
    }
}

/* What rarely helps comes last: the order of passes, and one in the place of another. */
static int class_of(const search_move *m) {
    const search_edit_kind last = m->edits[m->n - 1].kind;
    if (m->n == 2)
        return last == SEARCH_ADD ? 1 : 4;
    return last <= SEARCH_DROP ? 0 : last <= SEARCH_JOIN ? 2 : 3;
}

typedef struct {
    int class;
    double gain;
} move_key;

static bool comes_before(move_key a, move_key b) {
    return a.class != b.class ? a.class < b.class : a.gain > b.gain;
}

void search_order(search_moves *m, uint64_t *seed, double (*gain)(const void *context, const search_edit *e),
                  const void *context) {
    qgc_arena *a = qgc_arena_new();
    move_key *keys = qgc_arena_array(a, m->n + 1, sizeof *keys);
    shuffle(m, seed);
    for (size_t i = 0; i < m->n; i++) {
        const search_move move = m->all[i];
        move_key key = {.class = class_of(&move)};
        for (int k = 0; k < move.n; k++)
            key.gain += gain(context, &move.edits[k]);
        size_t at = i;
        for (; at > 0 && comes_before(key, keys[at - 1]); at--) {
            m->all[at] = m->all[at - 1];
            keys[at] = keys[at - 1];
        }
        m->all[at] = move;
        keys[at] = key;
    }
    qgc_arena_drop(a);
}
