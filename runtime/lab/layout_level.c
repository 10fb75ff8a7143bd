#include "runtime/lab/layout_level.h"

#include <math.h>
#include <stdbool.h>

#include "runtime/lab/layout_rows.h"

/* The four steps of Sugiyama, Tagawa and Toda (1981): rows, bends where links pass rows, order within rows, places. */

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
static void sink_items(layout_rows *s, const index_of *outs, const index_of *ins) {
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

static void set_rows(layout_rows *s) {
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

static int add_vertex(layout_rows *s, int item, int row) {
    double width = item < 0 ? 0 : s->l->items[item].width;
    s->vertices[s->n_vertices] = (vertex){.item = item, .row = row, .width = width};
    return s->n_vertices++;
}

static void cut_link(layout_rows *s, int link) {
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

static void list_segments(layout_rows *s) {
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

static void fill_rows(layout_rows *s) {
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

static void make_vertices(layout_rows *s) {
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

/* --- heights, links --------------------------------------------------------------------------------------- */

static bool is_box_row(const layout_rows *s, int row) {
    for (int i = 0; i < s->row_sizes[row]; i++) {
        const int item = s->vertices[s->rows[row][i]].item;
        if (item >= 0 && s->l->items[item].kind == LAYOUT_BOX)
            return true;
    }
    return false;
}

/* Lines that go far to the side get more room to do so; between boxes and the side of a frame there may be little. */
static double gap_below(const layout_rows *s, int row) {
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

static void set_heights(layout_rows *s, double *tops, double *bottoms) {
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
    const qgc_layout_point *next = &k->points[k->n_points];
    if (k->n_points == 0 || next[-1].x != x || next[-1].y != y)
        k->points[k->n_points++] = (qgc_layout_point){x, y};
}

static void draw_link(const layout_rows *s, int link, const double *tops, const double *bottoms) {
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
    layout_rows s = {.l = l, .a = a};
    set_rows(&s);
    make_vertices(&s);
    layout_order_rows(&s);
    layout_place_rows(&s);
    double *tops = qgc_arena_array(a, (size_t)s.n_rows, sizeof *tops);
    double *bottoms = qgc_arena_array(a, (size_t)s.n_rows, sizeof *bottoms);
    set_heights(&s, tops, bottoms);
    for (size_t i = 0; i < l->n_links; i++)
        draw_link(&s, (int)i, tops, bottoms);
}
