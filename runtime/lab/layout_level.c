#include "runtime/lab/layout_level.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The four steps of Sugiyama, Tagawa and Toda (1981): rows, bends where links pass rows, order within rows, places. */

enum {
    BOX_GAP = 22,     /* between two boxes of a row */
    LINE_GAP = 16,    /* beside a link */
    PORT_STEP = 26,   /* between links that end at one box */
    MOST_SWEEPS = 24, /* over the order; fewer where bends are many */
    MOST_SWAPS = 12,
    MANY_VERTICES = 20000,
    MANY_PAIRS = 10000,
};

/* What stands in a row: an item, or a link that passes. */
typedef struct {
    int item; /* -1: a link passes */
    int row, place;
    double width, x; /* x of the middle */
    int up, n_up;    /* segments: in `ups` and in `downs` */
    int down, n_down;
} vertex;

/* A part of a link, from one row to the next. */
typedef struct {
    int upper, lower;
    double upper_at, lower_at; /* from the middle */
} segment;

typedef struct {
    layout_level *l;
    qgc_arena *a;
    int *row_of; /* [n_items] */
    int n_rows;
    vertex *vertices;
    int n_vertices;
    int **rows, *row_sizes; /* vertices from left to right */
    segment *segments;
    int n_segments;
    int *ups, *downs;
    int *first_vertex, *first_segment; /* of each link: its bends and parts follow one another */
} state;

/* --- rows ------------------------------------------------------------------------------------------------- */

/* Links sorted by an end: those of item i are list[start[i] .. start[i + 1]). */
typedef struct {
    int *start, *list;
} index_of;

static index_of links_by(const layout_level *l, bool by_from, qgc_arena *a) {
    index_of by = {qgc_arena_array(a, l->n_items + 2, sizeof(int)),
                   qgc_arena_array(a, l->n_links, sizeof(int))};
    for (size_t i = 0; i < l->n_links; i++)
        by.start[(by_from ? l->links[i].from : l->links[i].to) + 2]++;
    for (size_t i = 2; i < l->n_items + 2; i++)
        by.start[i] += by.start[i - 1];
    for (size_t i = 0; i < l->n_links; i++)
        by.list[by.start[(by_from ? l->links[i].from : l->links[i].to) + 1]++] = (int)i;
    return by;
}

static bool in_first_row(const layout_item *item) {
    return item->kind == LAYOUT_TITLE || item->kind == LAYOUT_ENTRY;
}

/* What is read more than it reads goes down to its readers. */
static void sink_items(state *s, const index_of *outs, const index_of *ins) {
    const layout_level *l = s->l;
    for (int i = (int)l->n_items - 1; i >= 0; i--) {
        int n_out = outs->start[i + 1] - outs->start[i], n_in = ins->start[i + 1] - ins->start[i];
        int lowest = s->n_rows;
        for (int k = outs->start[i]; k < outs->start[i + 1]; k++) {
            int row = s->row_of[l->links[outs->list[k]].to];
            lowest = row < lowest ? row : lowest;
        }
        if (l->items[i].kind == LAYOUT_BOX && n_out > n_in)
            s->row_of[i] = lowest - 1;
    }
}

static void set_rows(state *s) {
    const layout_level *l = s->l;
    const index_of outs = links_by(l, true, s->a), ins = links_by(l, false, s->a);
    bool has_first = false, has_last = false;
    s->row_of = qgc_arena_array(s->a, l->n_items, sizeof *s->row_of);
    for (size_t i = 0; i < l->n_items; i++) {
        has_first = has_first || in_first_row(&l->items[i]);
        has_last = has_last || l->items[i].kind == LAYOUT_EXIT;
    }
    for (size_t i = 0; i < l->n_items; i++) {
        const layout_item *item = &l->items[i];
        if (item->kind == LAYOUT_BOX && has_first && s->row_of[i] == 0)
            s->row_of[i] = 1;
        if (item->kind != LAYOUT_EXIT && s->row_of[i] >= s->n_rows)
            s->n_rows = s->row_of[i] + 1;
        for (int k = outs.start[i]; k < outs.start[i + 1]; k++) {
            int *row = &s->row_of[l->links[outs.list[k]].to];
            *row = s->row_of[i] + 1 > *row ? s->row_of[i] + 1 : *row;
        }
    }
    s->n_rows += has_last;
    for (size_t i = 0; i < l->n_items; i++)
        if (l->items[i].kind == LAYOUT_EXIT)
            s->row_of[i] = s->n_rows - 1;
    sink_items(s, &outs, &ins);
}

/* --- vertices --------------------------------------------------------------------------------------------- */

static int add_vertex(state *s, int item, int row) {
    double width = item < 0 ? 0 : s->l->items[item].width;
    s->vertices[s->n_vertices] = (vertex){.item = item, .row = row, .width = width};
    return s->n_vertices++;
}

static void cut_link(state *s, int link) {
    const layout_link *k = &s->l->links[link];
    const int first = s->row_of[k->from], last = s->row_of[k->to];
    const double from_width = s->l->items[k->from].width, to_width = s->l->items[k->to].width;
    s->first_vertex[link] = s->n_vertices;
    s->first_segment[link] = s->n_segments;
    int upper = k->from;
    for (int row = first + 1; row <= last; row++) {
        int lower = row == last ? k->to : add_vertex(s, -1, row);
        s->segments[s->n_segments++] = (segment){
            .upper = upper,
            .lower = lower,
            .upper_at = row > first + 1 || isnan(k->from_at) ? 0 : k->from_at - from_width / 2,
            .lower_at = row < last || isnan(k->to_at) ? 0 : k->to_at - to_width / 2,
        };
        upper = lower;
    }
}

static void list_segments(state *s) {
    int up = 0, down = 0;
    s->ups = qgc_arena_array(s->a, (size_t)s->n_segments, sizeof *s->ups);
    s->downs = qgc_arena_array(s->a, (size_t)s->n_segments, sizeof *s->downs);
    for (int i = 0; i < s->n_segments; i++) {
        s->vertices[s->segments[i].upper].n_down++;
        s->vertices[s->segments[i].lower].n_up++;
    }
    for (int i = 0; i < s->n_vertices; i++) {
        vertex *v = &s->vertices[i];
        v->up = up;
        v->down = down;
        up += v->n_up;
        down += v->n_down;
        v->n_up = v->n_down = 0;
    }
    for (int i = 0; i < s->n_segments; i++) {
        vertex *upper = &s->vertices[s->segments[i].upper], *lower = &s->vertices[s->segments[i].lower];
        s->downs[upper->down + upper->n_down++] = i;
        s->ups[lower->up + lower->n_up++] = i;
    }
}

static void fill_rows(state *s) {
    s->rows = qgc_arena_array(s->a, (size_t)s->n_rows, sizeof *s->rows);
    s->row_sizes = qgc_arena_array(s->a, (size_t)s->n_rows, sizeof *s->row_sizes);
    for (int i = 0; i < s->n_vertices; i++)
        s->row_sizes[s->vertices[i].row]++;
    for (int r = 0; r < s->n_rows; r++) {
        s->rows[r] = qgc_arena_array(s->a, (size_t)s->row_sizes[r], sizeof **s->rows);
        s->row_sizes[r] = 0;
    }
    for (int titles = 1; titles >= 0; titles--)
        for (int i = 0; i < s->n_vertices; i++) {
            vertex *v = &s->vertices[i];
            if ((v->item >= 0 && s->l->items[v->item].kind == LAYOUT_TITLE) != titles)
                continue;
            v->place = s->row_sizes[v->row]++;
            s->rows[v->row][v->place] = i;
        }
}

static void make_vertices(state *s) {
    const layout_level *l = s->l;
    size_t n_vertices = l->n_items, n_segments = 0;
    for (size_t i = 0; i < l->n_links; i++) {
        int rows = s->row_of[l->links[i].to] - s->row_of[l->links[i].from];
        n_vertices += (size_t)(rows - 1);
        n_segments += (size_t)rows;
    }
    s->vertices = qgc_arena_array(s->a, n_vertices, sizeof *s->vertices);
    s->segments = qgc_arena_array(s->a, n_segments, sizeof *s->segments);
    s->first_vertex = qgc_arena_array(s->a, l->n_links, sizeof *s->first_vertex);
    s->first_segment = qgc_arena_array(s->a, l->n_links, sizeof *s->first_segment);
    for (size_t i = 0; i < l->n_items; i++)
        add_vertex(s, (int)i, s->row_of[i]);
    for (size_t i = 0; i < l->n_links; i++)
        cut_link(s, (int)i);
    list_segments(s);
    fill_rows(s);
}

/* --- order within rows ------------------------------------------------------------------------------------ */

/* Is it a row of a title and entries? */
static bool has_fixed_order(const state *s, int row) {
    const int item = s->vertices[s->rows[row][0]].item;
    return item >= 0 && in_first_row(&s->l->items[item]);
}

/* Where a segment ends in the order of a row: links of one wide box keep the order of their ends. */
static double end_key(const state *s, int v, double at) {
    const vertex *x = &s->vertices[v];
    return x->place + (x->width > 0 ? at / (x->width + 1) : 0);
}

static double upper_key(const state *s, const segment *g) {
    return end_key(s, g->upper, g->upper_at);
}

static double lower_key(const state *s, const segment *g) {
    return end_key(s, g->lower, g->lower_at);
}

typedef struct {
    double key, tie;
    int what;
} sortable;

static int by_key(const void *a, const void *b) {
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

static int64_t crossings_below(const state *s, int row, sortable *ends, double *keys) {
    int n = 0;
    for (int i = 0; i < s->row_sizes[row]; i++) {
        const vertex *v = &s->vertices[s->rows[row][i]];
        for (int k = 0; k < v->n_down; k++) {
            const segment *g = &s->segments[s->downs[v->down + k]];
            ends[n++] = (sortable){upper_key(s, g), lower_key(s, g), 0};
        }
    }
    if (n < 2)
        return 0;
    qsort(ends, (size_t)n, sizeof *ends, by_key);
    for (int i = 0; i < n; i++)
        keys[i] = ends[i].tie;
    return count_inversions(keys, keys + n, n);
}

static int64_t count_crossings(const state *s, sortable *ends, double *keys) {
    int64_t n = 0;
    for (int row = 0; row + 1 < s->n_rows; row++)
        n += crossings_below(s, row, ends, keys);
    return n;
}

/* Sorts a row by the mean of where its segments from above, or below, end; who has none stays. */
static void sort_row(state *s, int row, bool from_above, sortable *wanted) {
    int n = 0;
    for (int i = 0; i < s->row_sizes[row]; i++) {
        const vertex *v = &s->vertices[s->rows[row][i]];
        const int n_ends = from_above ? v->n_up : v->n_down;
        double sum = 0;
        for (int k = 0; k < n_ends; k++)
            sum += from_above ? upper_key(s, &s->segments[s->ups[v->up + k]])
                              : lower_key(s, &s->segments[s->downs[v->down + k]]);
        if (n_ends > 0)
            wanted[n++] = (sortable){sum / n_ends, v->place, s->rows[row][i]};
    }
    if (n > 1)
        qsort(wanted, (size_t)n, sizeof *wanted, by_key);
    for (int i = 0, k = 0; i < s->row_sizes[row]; i++) {
        const vertex *v = &s->vertices[s->rows[row][i]];
        if ((from_above ? v->n_up : v->n_down) > 0)
            s->rows[row][i] = wanted[k++].what;
    }
    for (int i = 0; i < s->row_sizes[row]; i++)
        s->vertices[s->rows[row][i]].place = i;
}

static void sweep(state *s, bool down, sortable *room) {
    for (int i = 1; i < s->n_rows; i++) {
        const int row = down ? i : s->n_rows - 1 - i;
        if (!has_fixed_order(s, row))
            sort_row(s, row, down, room);
    }
}

/* How many of the segments of two neighbours cross, above and below, if u is left of v. */
static int64_t pair_crossings(const state *s, const vertex *u, const vertex *v) {
    int64_t n = 0;
    for (int i = 0; i < u->n_up; i++)
        for (int k = 0; k < v->n_up; k++)
            n +=
                upper_key(s, &s->segments[s->ups[u->up + i]]) > upper_key(s, &s->segments[s->ups[v->up + k]]);
    for (int i = 0; i < u->n_down; i++)
        for (int k = 0; k < v->n_down; k++)
            n += lower_key(s, &s->segments[s->downs[u->down + i]]) >
                 lower_key(s, &s->segments[s->downs[v->down + k]]);
    return n;
}

static bool swap_neighbours(state *s, int row, int i) {
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

static void swap_all(state *s) {
    bool changed = true;
    for (int round = 0; round < MOST_SWAPS && changed; round++) {
        changed = false;
        for (int row = 0; row < s->n_rows; row++)
            for (int i = 0; i + 1 < s->row_sizes[row]; i++)
                changed = swap_neighbours(s, row, i) || changed;
    }
}

static void save_places(const state *s, int *places) {
    for (int i = 0; i < s->n_vertices; i++)
        places[i] = s->vertices[i].place;
}

static void take_places(state *s, const int *places) {
    for (int i = 0; i < s->n_vertices; i++) {
        s->vertices[i].place = places[i];
        s->rows[s->vertices[i].row][places[i]] = i;
    }
}

static void order_rows(state *s) {
    sortable *room = qgc_arena_array(s->a, (size_t)(s->n_vertices + s->n_segments), sizeof *room);
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

/* --- places ----------------------------------------------------------------------------------------------- */

static int by_upper_end(const state *s, const int *list, int n, sortable *out) {
    for (int i = 0; i < n; i++)
        out[i] = (sortable){upper_key(s, &s->segments[list[i]]), list[i], list[i]};
    if (n > 1)
        qsort(out, (size_t)n, sizeof *out, by_key);
    return n;
}

/* Links that may end anywhere at the upper side of a box spread there, in the order in which they come. */
static void spread_ends(state *s) {
    const layout_level *l = s->l;
    sortable *ends = qgc_arena_array(s->a, (size_t)s->n_segments, sizeof *ends);
    bool *fixed = qgc_arena_array(s->a, (size_t)s->n_segments, sizeof *fixed);
    for (size_t i = 0; i < l->n_links; i++) {
        int rows = s->row_of[l->links[i].to] - s->row_of[l->links[i].from];
        fixed[s->first_segment[i] + rows - 1] = !isnan(l->links[i].to_at);
    }
    for (size_t i = 0; i < l->n_items; i++) {
        const vertex *v = &s->vertices[i];
        int n = by_upper_end(s, s->ups + v->up, v->n_up, ends);
        double step = v->width / (n + 1);
        step = step > PORT_STEP ? PORT_STEP : step;
        for (int k = 0; k < n; k++)
            if (!fixed[ends[k].what])
                s->segments[ends[k].what].lower_at = (k - (n - 1) / 2.0) * step;
    }
}

/* Brandes and Koepf (2001): vertices are aligned with one of the middle vertices that they are joined to, once each from
 * above and below, with the left and the right in favour; blocks of aligned vertices are pushed together; and of the four
 * places of a vertex the mean of the middle two is taken. So lines that pass rows are straight. */
typedef struct {
    bool down, mirrored;
    int *root, *next; /* of a vertex: the first of its block, and the next; the last's next is the first */
    double *shift;    /* from the root */
    double *x;        /* of each vertex */
    double left, right;
} alignment;

static int place_in(const state *s, const alignment *g, int v) {
    const vertex *x = &s->vertices[v];
    return g->mirrored ? s->row_sizes[x->row] - 1 - x->place : x->place;
}

static int vertex_at(const state *s, const alignment *g, int row, int i) {
    return s->rows[row][g->mirrored ? s->row_sizes[row] - 1 - i : i];
}

static bool is_bend(const state *s, int v) {
    return s->vertices[v].item < 0;
}

static bool is_inner(const state *s, const segment *g) {
    return is_bend(s, g->upper) && is_bend(s, g->lower);
}

/* Lines that pass go before others: what crosses one of their segments is not aligned. */
static void mark_row_conflicts(const state *s, int row, bool *conflicts) {
    const int n = s->row_sizes[row], n_above = s->row_sizes[row - 1];
    int low = 0;
    for (int i = 0, done = 0; i < n; i++) {
        const vertex *v = &s->vertices[s->rows[row][i]];
        const bool inner = v->n_up == 1 && is_inner(s, &s->segments[s->ups[v->up]]);
        if (!inner && i + 1 < n)
            continue;
        const int high = inner ? s->vertices[s->segments[s->ups[v->up]].upper].place : n_above;
        for (; done <= i; done++) {
            const vertex *lower = &s->vertices[s->rows[row][done]];
            for (int k = 0; k < lower->n_up; k++) {
                const segment *g = &s->segments[s->ups[lower->up + k]];
                const int place = s->vertices[g->upper].place;
                if (!is_inner(s, g) && (place < low || place > high))
                    conflicts[s->ups[lower->up + k]] = true;
            }
        }
        low = high;
    }
}

static int sorted_ends(const state *s, const alignment *g, int v, sortable *out) {
    const vertex *x = &s->vertices[v];
    const int n = g->down ? x->n_up : x->n_down, *list = g->down ? s->ups + x->up : s->downs + x->down;
    for (int i = 0; i < n; i++) {
        const segment *part = &s->segments[list[i]];
        const double key = g->down ? upper_key(s, part) : lower_key(s, part);
        out[i] = (sortable){g->mirrored ? -key : key, list[i], list[i]};
    }
    if (n > 1)
        qsort(out, (size_t)n, sizeof *out, by_key);
    return n;
}

/* Puts v behind u, so that the segment between them is upright. */
static void join_block(alignment *g, int u, int v, const segment *part) {
    const double ends = g->down ? part->upper_at - part->lower_at : part->lower_at - part->upper_at;
    g->next[u] = v;
    g->root[v] = g->root[u];
    g->next[v] = g->root[v];
    g->shift[v] = g->shift[u] + (g->mirrored ? -ends : ends);
}

static void align_vertices(const state *s, alignment *g, const bool *conflicts, sortable *ends) {
    for (int i = 0; i < s->n_vertices; i++) {
        g->root[i] = g->next[i] = i;
        g->shift[i] = 0;
    }
    for (int r = 1; r < s->n_rows; r++) {
        const int row = g->down ? r : s->n_rows - 1 - r;
        int last = -1;
        for (int i = 0; i < s->row_sizes[row]; i++) {
            const int v = vertex_at(s, g, row, i), n = sorted_ends(s, g, v, ends);
            for (int k = (n - 1) / 2; n > 0 && k <= n / 2 && g->next[v] == v && g->root[v] == v; k++) {
                const segment *part = &s->segments[ends[k].what];
                const int u = g->down ? part->upper : part->lower;
                if (conflicts[ends[k].what] || place_in(s, g, u) <= last)
                    continue;
                join_block(g, u, v, part);
                last = place_in(s, g, u);
            }
        }
    }
}

static double gap_between(const state *s, int left, int right) {
    const vertex *u = &s->vertices[left], *v = &s->vertices[right];
    const bool boxes = u->item >= 0 && v->item >= 0 && s->l->items[u->item].kind == LAYOUT_BOX &&
                       s->l->items[v->item].kind == LAYOUT_BOX;
    return (u->width + v->width) / 2 + (boxes ? BOX_GAP : LINE_GAP);
}

/* The blocks in an order in which each comes behind those to its left. */
static int order_blocks(const state *s, const alignment *g, int *order, int *waits) {
    int n = 0, done = 0;
    for (int i = 0; i < s->n_vertices; i++)
        waits[i] = 0;
    for (int i = 0; i < s->n_vertices; i++)
        waits[g->root[i]] += place_in(s, g, i) > 0;
    for (int i = 0; i < s->n_vertices; i++)
        if (g->root[i] == i && waits[i] == 0)
            order[n++] = i;
    for (; done < n; done++) {
        int v = order[done];
        do {
            const int row = s->vertices[v].row, place = place_in(s, g, v);
            if (place + 1 < s->row_sizes[row]) {
                const int root = g->root[vertex_at(s, g, row, place + 1)];
                if (--waits[root] == 0)
                    order[n++] = root;
            }
            v = g->next[v];
        } while (v != order[done]);
    }
    return n;
}

/* How far to the left, or to the right, a block may go for its neighbours on that side; `otherwise` without any. */
static double bound_of(const state *s, const alignment *g, int root, int side, double otherwise) {
    double bound = otherwise;
    bool any = false;
    int v = root;
    do {
        const int row = s->vertices[v].row, place = place_in(s, g, v) + side;
        if (place >= 0 && place < s->row_sizes[row]) {
            const int other = vertex_at(s, g, row, place);
            const double at =
                g->x[g->root[other]] + g->shift[other] - g->shift[v] - side * gap_between(s, v, other);
            bound = !any ? at : side < 0 ? fmax(bound, at) : fmin(bound, at);
            any = true;
        }
        v = g->next[v];
    } while (v != root);
    return bound;
}

/* To the left as far as it goes, then to the right where there is room. */
static void push_blocks(const state *s, alignment *g, int *order, int *waits) {
    const int n = order_blocks(s, g, order, waits);
    for (int i = 0; i < n; i++)
        g->x[order[i]] = bound_of(s, g, order[i], -1, 0);
    for (int i = n - 1; i >= 0; i--)
        g->x[order[i]] = fmax(g->x[order[i]], bound_of(s, g, order[i], 1, g->x[order[i]]));
    for (int i = 0; i < s->n_vertices; i++)
        if (g->root[i] != i)
            g->x[i] = g->x[g->root[i]] + g->shift[i];
    g->left = HUGE_VAL;
    g->right = -HUGE_VAL;
    for (int i = 0; i < s->n_vertices; i++) {
        g->x[i] = g->mirrored ? -g->x[i] : g->x[i];
        g->left = fmin(g->left, g->x[i] - s->vertices[i].width / 2);
        g->right = fmax(g->right, g->x[i] + s->vertices[i].width / 2);
    }
}

static double middle_of_four(const double *x) {
    double low = x[0], high = x[0], sum = 0;
    for (int i = 0; i < 4; i++) {
        low = fmin(low, x[i]);
        high = fmax(high, x[i]);
        sum += x[i];
    }
    return (sum - low - high) / 2;
}

static void align_all(state *s, alignment *four) {
    const size_t n = (size_t)s->n_vertices;
    sortable *ends = qgc_arena_array(s->a, (size_t)s->n_segments, sizeof *ends);
    bool *conflicts = qgc_arena_array(s->a, (size_t)s->n_segments, sizeof *conflicts);
    int *order = qgc_arena_array(s->a, n, sizeof *order), *waits = qgc_arena_array(s->a, n, sizeof *waits);
    int *root = qgc_arena_array(s->a, n, sizeof *root), *next = qgc_arena_array(s->a, n, sizeof *next);
    double *shift = qgc_arena_array(s->a, n, sizeof *shift);
    for (int row = 1; row < s->n_rows; row++)
        mark_row_conflicts(s, row, conflicts);
    for (int i = 0; i < 4; i++) {
        four[i] = (alignment){.down = i < 2,
                              .mirrored = i % 2 == 1,
                              .root = root,
                              .next = next,
                              .shift = shift,
                              .x = qgc_arena_array(s->a, n, sizeof(double))};
        align_vertices(s, &four[i], conflicts, ends);
        push_blocks(s, &four[i], order, waits);
    }
}

/* All four are brought to the sides of the narrowest: who leans left to its left side. */
static void place_all(state *s) {
    alignment four[4];
    align_all(s, four);
    const alignment *best = &four[0];
    for (int i = 1; i < 4; i++)
        best = four[i].right - four[i].left < best->right - best->left ? &four[i] : best;
    double left = HUGE_VAL, right = -HUGE_VAL;
    for (int v = 0; v < s->n_vertices; v++) {
        double x[4];
        for (int i = 0; i < 4; i++)
            x[i] =
                four[i].x[v] + (four[i].mirrored ? best->right - four[i].right : best->left - four[i].left);
        s->vertices[v].x = middle_of_four(x);
        left = fmin(left, s->vertices[v].x - s->vertices[v].width / 2);
        right = fmax(right, s->vertices[v].x + s->vertices[v].width / 2);
    }
    for (int i = 0; i < s->n_vertices; i++)
        s->vertices[i].x -= left;
    s->l->width = s->n_vertices > 0 ? right - left : 0;
}

/* --- heights, links --------------------------------------------------------------------------------------- */

static bool is_box_row(const state *s, int row) {
    for (int i = 0; i < s->row_sizes[row]; i++) {
        const int item = s->vertices[s->rows[row][i]].item;
        if (item >= 0 && s->l->items[item].kind == LAYOUT_BOX)
            return true;
    }
    return false;
}

/* Lines that go far to the side get more room to do so; between boxes and the side of a frame there may be little. */
static double gap_below(const state *s, int row) {
    const double gap = s->l->gap, least = is_box_row(s, row) && is_box_row(s, row + 1) ? gap : gap / 3;
    double far = 0;
    for (int i = 0; i < s->row_sizes[row]; i++) {
        const vertex *v = &s->vertices[s->rows[row][i]];
        for (int k = 0; k < v->n_down; k++) {
            const segment *g = &s->segments[s->downs[v->down + k]];
            far = fmax(far, fabs(v->x + g->upper_at - s->vertices[g->lower].x - g->lower_at));
        }
    }
    return fmax(fmin(least + far / 6, 2 * gap), least);
}

static void set_heights(state *s, double *tops, double *bottoms) {
    layout_level *l = s->l;
    double y = 0;
    for (int row = 0; row < s->n_rows; row++) {
        double height = 0;
        for (int i = 0; i < s->row_sizes[row]; i++) {
            int item = s->vertices[s->rows[row][i]].item;
            height = item >= 0 ? fmax(height, l->items[item].height) : height;
        }
        tops[row] = y;
        bottoms[row] = y + height;
        y += height + (row + 1 < s->n_rows ? gap_below(s, row) : 0);
    }
    l->height = y;
    for (size_t i = 0; i < l->n_items; i++) {
        const vertex *v = &s->vertices[i];
        layout_item *item = &l->items[i];
        item->x = v->x - v->width / 2;
        item->y = (tops[v->row] + bottoms[v->row] - item->height) / 2;
        if (item->kind == LAYOUT_TITLE || item->kind == LAYOUT_ENTRY)
            item->y = tops[v->row];
        else if (item->kind == LAYOUT_EXIT)
            item->y = bottoms[v->row];
    }
}

static void add_point(layout_link *k, double x, double y) {
    const qgc_layout_point *last = k->n_points ? &k->points[k->n_points - 1] : NULL;
    if (!last || last->x != x || last->y != y)
        k->points[k->n_points++] = (qgc_layout_point){x, y};
}

static void draw_link(const state *s, int link, const double *tops, const double *bottoms) {
    layout_link *k = &s->l->links[link];
    const int first = s->row_of[k->from], last = s->row_of[k->to];
    const segment *parts = &s->segments[s->first_segment[link]];
    const layout_item *from = &s->l->items[k->from], *to = &s->l->items[k->to];
    const double from_x = s->vertices[k->from].x + parts[0].upper_at,
                 to_x = s->vertices[k->to].x + parts[last - first - 1].lower_at;
    k->points = qgc_arena_array(s->a, 2 * (size_t)(last - first + 1), sizeof *k->points);
    add_point(k, from_x, from->kind == LAYOUT_ENTRY ? from->y : from->y + from->height);
    add_point(k, from_x, bottoms[first]);
    for (int row = first + 1; row < last; row++) {
        const vertex *bend = &s->vertices[s->first_vertex[link] + row - first - 1];
        add_point(k, bend->x, tops[row]);
        add_point(k, bend->x, bottoms[row]);
    }
    add_point(k, to_x, tops[last]);
    add_point(k, to_x, to->y);
}

void qgc_layout_level(layout_level *l, qgc_arena *a) {
    state s = {.l = l, .a = a};
    set_rows(&s);
    make_vertices(&s);
    order_rows(&s);
    spread_ends(&s);
    place_all(&s);
    double *tops = qgc_arena_array(a, (size_t)s.n_rows, sizeof *tops);
    double *bottoms = qgc_arena_array(a, (size_t)s.n_rows, sizeof *bottoms);
    set_heights(&s, tops, bottoms);
    for (size_t i = 0; i < l->n_links; i++)
        draw_link(&s, (int)i, tops, bottoms);
}
