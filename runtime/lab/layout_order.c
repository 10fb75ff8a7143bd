#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/lab/layout_rows.h"

/* The order within rows: sweeps down and up that sort each row by the mean of its neighbours, and then swaps of two that
 * stand beside one another. */

enum {
    MOST_SWEEPS = 24, /* fewer where vertices are many */
    MOST_SWAPS = 12,
    MANY_VERTICES = 20000,
    MANY_PAIRS = 10000,
};

/* Is it a row of a title and entries? */
static bool has_fixed_order(const layout_rows *s, int row) {
    const int item = s->vertices[s->rows[row][0]].item;
    return item >= 0 && s->l->items[item].kind != LAYOUT_BOX && s->l->items[item].kind != LAYOUT_EXIT;
}

static double end_key(const layout_rows *s, int v, double at) {
    const vertex *x = &s->vertices[v];
    return x->place + (x->width > 0 ? at / (x->width + 1) : 0);
}

double layout_upper_key(const layout_rows *s, const segment *g) {
    return end_key(s, g->upper, g->upper_at);
}

double layout_lower_key(const layout_rows *s, const segment *g) {
    return end_key(s, g->lower, g->lower_at);
}

int layout_by_key(const void *a, const void *b) {
    const sortable *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->tie < y->tie ? -1 : x->tie > y->tie;
}

/* Inversions of `keys`, which are sorted on the way. */
static int64_t count_inversions(double *keys, double *room, int n) {
    if (n < 2)
        return 0;
    const int half = n / 2;
    int64_t count = count_inversions(keys, room, half) + count_inversions(keys + half, room, n - half);
    int i = 0, j = half, k = 0;
    while (i < half || j < n) {
        bool left = j == n || (i < half && keys[i] <= keys[j]);
        count += left ? 0 : half - i;
        room[k++] = left ? keys[i++] : keys[j++];
    }
    memcpy(keys, room, (size_t)n * sizeof *keys);
    return count;
}

static int64_t crossings_below(const layout_rows *s, int row, sortable *ends, double *keys) {
    int n = 0;
    for (int i = 0; i < s->row_sizes[row]; i++) {
        const vertex *v = &s->vertices[s->rows[row][i]];
        for (int k = 0; k < v->n_down; k++) {
            const segment *g = &s->segments[s->downs[v->down + k]];
            ends[n++] = (sortable){layout_upper_key(s, g), layout_lower_key(s, g), 0};
        }
    }
    if (n < 2)
        return 0;
    qsort(ends, (size_t)n, sizeof *ends, layout_by_key);
    for (int i = 0; i < n; i++)
        keys[i] = ends[i].tie;
    return count_inversions(keys, keys + n, n);
}

static int64_t count_crossings(const layout_rows *s, sortable *ends, double *keys) {
    int64_t n = 0;
    for (int row = 0; row + 1 < s->n_rows; row++)
        n += crossings_below(s, row, ends, keys);
    return n;
}

/* Sorts a row by the mean of where its segments from above, or below, end; who has none stays. */
static void sort_row(layout_rows *s, int row, bool from_above, sortable *wanted) {
    int n = 0;
    for (int i = 0; i < s->row_sizes[row]; i++) {
        const vertex *v = &s->vertices[s->rows[row][i]];
        const int n_ends = from_above ? v->n_up : v->n_down;
        double sum = 0;
        for (int k = 0; k < n_ends; k++)
            sum += from_above ? layout_upper_key(s, &s->segments[s->ups[v->up + k]])
                              : layout_lower_key(s, &s->segments[s->downs[v->down + k]]);
        if (n_ends > 0)
            wanted[n++] = (sortable){sum / n_ends, v->place, s->rows[row][i]};
    }
    if (n > 1)
        qsort(wanted, (size_t)n, sizeof *wanted, layout_by_key);
    for (int i = 0, k = 0; i < s->row_sizes[row]; i++) {
        const vertex *v = &s->vertices[s->rows[row][i]];
        if ((from_above ? v->n_up : v->n_down) > 0)
            s->rows[row][i] = wanted[k++].what;
    }
    for (int i = 0; i < s->row_sizes[row]; i++)
        s->vertices[s->rows[row][i]].place = i;
}

static void sweep(layout_rows *s, bool down, sortable *room) {
    for (int i = 1; i < s->n_rows; i++) {
        const int row = down ? i : s->n_rows - 1 - i;
        if (!has_fixed_order(s, row))
            sort_row(s, row, down, room);
    }
}

/* How many of the segments of two neighbours cross, above and below, if u is left of v. */
static int64_t pair_crossings(const layout_rows *s, const vertex *u, const vertex *v) {
    int64_t n = 0;
    for (int i = 0; i < u->n_up; i++)
        for (int k = 0; k < v->n_up; k++)
            n += layout_upper_key(s, &s->segments[s->ups[u->up + i]]) >
                 layout_upper_key(s, &s->segments[s->ups[v->up + k]]);
    for (int i = 0; i < u->n_down; i++)
        for (int k = 0; k < v->n_down; k++)
            n += layout_lower_key(s, &s->segments[s->downs[u->down + i]]) >
                 layout_lower_key(s, &s->segments[s->downs[v->down + k]]);
    return n;
}

static bool swap_neighbours(layout_rows *s, int row, int i) {
    int *at = &s->rows[row][i];
    vertex *u = &s->vertices[at[0]], *v = &s->vertices[at[1]];
    const int64_t pairs = (int64_t)u->n_up * v->n_up + (int64_t)u->n_down * v->n_down;
    if (has_fixed_order(s, row) || pairs > MANY_PAIRS || pair_crossings(s, v, u) >= pair_crossings(s, u, v))
        return false;
    const int left = at[0];
    at[0] = at[1];
    at[1] = left;
    u->place = i + 1;
    v->place = i;
    return true;
}

static void swap_all(layout_rows *s) {
    bool changed = true;
    for (int round = 0; round < MOST_SWAPS && changed; round++) {
        changed = false;
        for (int row = 0; row < s->n_rows; row++)
            for (int i = 0; i + 1 < s->row_sizes[row]; i++)
                changed = swap_neighbours(s, row, i) || changed;
    }
}

static void save_places(const layout_rows *s, int *places) {
    for (int i = 0; i < s->n_vertices; i++)
        places[i] = s->vertices[i].place;
}

static void take_places(layout_rows *s, const int *places) {
    for (int i = 0; i < s->n_vertices; i++) {
        s->vertices[i].place = places[i];
        s->rows[s->vertices[i].row][places[i]] = i;
    }
}

void layout_order_rows(layout_rows *s) {
    sortable *room = qgc_arena_array(s->a, (size_t)s->n_vertices + (size_t)s->n_segments, sizeof *room);
    double *keys = qgc_arena_array(s->a, 2 * (size_t)s->n_segments, sizeof *keys);
    int *best = qgc_arena_array(s->a, (size_t)s->n_vertices, sizeof *best);
    const int most = s->n_vertices > MANY_VERTICES ? 4 : MOST_SWEEPS;
    int64_t fewest = count_crossings(s, room, keys);
    save_places(s, best);
    for (int i = 0; i < most && fewest > 0; i++) {
        sweep(s, i % 2 == 0, room);
        int64_t n = count_crossings(s, room, keys);
        if (n < fewest) {
            fewest = n;
            save_places(s, best);
        }
    }
    take_places(s, best);
    if (fewest > 0)
        swap_all(s);
}
