#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "runtime/lab/layout_rows.h"

/* Brandes and Koepf (2001): vertices are aligned with one of the middle vertices that they are joined to, once each from
 * above and below, with the left and the right in favour; blocks of aligned vertices are pushed together; and of the four
 * places of a vertex the mean of the middle two is taken. So lines that pass rows are straight. */

enum {
    BOX_GAP = 22,   /* between two boxes of a row */
    LINE_GAP = 16,  /* beside a link */
    PORT_STEP = 26, /* between links that end at one box */
};

static int by_upper_end(const layout_rows *s, const int *list, int n, sortable *out) {
    for (int i = 0; i < n; i++)
        out[i] = (sortable){layout_upper_key(s, &s->segments[list[i]]), list[i], list[i]};
    if (n > 1)
        qsort(out, (size_t)n, sizeof *out, layout_by_key);
    return n;
}

/* Links that may end anywhere at the upper side of a box spread there, in the order in which they come. */
static void spread_ends(layout_rows *s) {
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

typedef struct {
    bool down, mirrored;
    int *root, *next; /* of a vertex: the first of its block, and the next; the last's next is the first */
    double *shift;    /* from the root */
    double *x;        /* of each vertex */
    double left, right;
} alignment;

static int place_in(const layout_rows *s, const alignment *g, int v) {
    const vertex *x = &s->vertices[v];
    return g->mirrored ? s->row_sizes[x->row] - 1 - x->place : x->place;
}

static int vertex_at(const layout_rows *s, const alignment *g, int row, int i) {
    return s->rows[row][g->mirrored ? s->row_sizes[row] - 1 - i : i];
}

static bool is_bend(const layout_rows *s, int v) {
    return s->vertices[v].item < 0;
}

static bool is_inner(const layout_rows *s, const segment *g) {
    return is_bend(s, g->upper) && is_bend(s, g->lower);
}

/* Lines that pass go before others: what crosses one of their segments is not aligned. */
static void mark_row_conflicts(const layout_rows *s, int row, bool *conflicts) {
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

static int sorted_ends(const layout_rows *s, const alignment *g, int v, sortable *out) {
    const vertex *x = &s->vertices[v];
    const int n = g->down ? x->n_up : x->n_down, *list = g->down ? s->ups + x->up : s->downs + x->down;
    for (int i = 0; i < n; i++) {
        const segment *part = &s->segments[list[i]];
        const double key = g->down ? layout_upper_key(s, part) : layout_lower_key(s, part);
        out[i] = (sortable){g->mirrored ? -key : key, list[i], list[i]};
    }
    if (n > 1)
        qsort(out, (size_t)n, sizeof *out, layout_by_key);
    return n;
}

/* Puts v after u, so that the segment between them is upright. */
static void join_block(alignment *g, int u, int v, const segment *part) {
    const double ends = g->down ? part->upper_at - part->lower_at : part->lower_at - part->upper_at;
    g->next[u] = v;
    g->root[v] = g->root[u];
    g->next[v] = g->root[v];
    g->shift[v] = g->shift[u] + (g->mirrored ? -ends : ends);
}

static void align_vertices(const layout_rows *s, alignment *g, const bool *conflicts, sortable *ends) {
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

static double gap_between(const layout_rows *s, int left, int right) {
    const vertex *u = &s->vertices[left], *v = &s->vertices[right];
    const bool boxes = u->item >= 0 && v->item >= 0 && s->l->items[u->item].kind == LAYOUT_BOX &&
                       s->l->items[v->item].kind == LAYOUT_BOX;
    return (u->width + v->width) / 2 + (boxes ? BOX_GAP : LINE_GAP);
}

/* The blocks in an order in which each comes after those to its left. */
static int order_blocks(const layout_rows *s, const alignment *g, int *order, int *waits) {
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
static double bound_of(const layout_rows *s, const alignment *g, int root, int side, double otherwise) {
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
static void push_blocks(const layout_rows *s, alignment *g, int *order, int *waits) {
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

static void align_all(layout_rows *s, alignment *four) {
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
void layout_place_rows(layout_rows *s) {
    alignment four[4];
    spread_ends(s);
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
