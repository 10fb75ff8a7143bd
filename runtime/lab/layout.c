#include "runtime/lab/layout.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "runtime/lab/layout_level.h"

/* A cluster is a frame with its boxes, or a box in no frame. Clusters are laid out as the items of one level, and the
 * boxes of each frame as those of another, with an entry for each box outside that they read, and an exit for each of
 * them that is read outside:
 *
 *        [x]             +- title --x--+
 *         | \            |          |  |      An edge then is what the outer level has between two clusters, with
 *     [frame] |          |         [q] |      what the level of a frame has before and after it.
 *         |  /           |          |  |
 *        [y]             +----------q--+
 */

enum { PAD = 10, INNER_GAP = 20, OUTER_GAP = 26 };

/* The edges that go from one box to one other cluster: a line as far as the cluster. */
typedef struct {
    int from, to; /* box, cluster */
    int entry;    /* item in the level of the frame */
    double key;   /* entries of a frame come in the order of keys */
} route;

typedef struct {
    qgc_layout *l;
    qgc_arena *a, *scratch;
    int n_clusters;
    int *place;    /* of each cluster, in an order in which edges go forward; -1: it has no boxes */
    int *route_of; /* of each edge; -1: it stays in a cluster, or closes a cycle */
    route *routes; /* by cluster and box */
    size_t n_routes;
    layout_level *levels, outer; /* of each frame, and that of the clusters */
    int *item_of, *exit_of;      /* of each box, in the level of its frame; no exit: -1 */
    int *exit_link;              /* of each box, likewise */
    int *end_link;               /* of each edge, in the level of the frame where it ends; -1: no frame */
    int *cluster_item;           /* in the outer level */
} compound;

static int cluster_of(const compound *c, int box) {
    int group = c->l->boxes[box].group;
    return group >= 0 ? group : (int)c->l->n_frames + box;
}

/* --- the order of clusters -------------------------------------------------------------------------------- */

typedef struct {
    int *waits;                 /* of each cluster: edges from clusters without a place */
    int *first, *next, *member; /* edges that leave a cluster, as lists */
} queue;

static queue new_queue(const compound *c) {
    const qgc_layout *l = c->l;
    const size_t n = (size_t)c->n_clusters;
    queue q = {qgc_arena_array(c->scratch, n, sizeof(int)), qgc_arena_array(c->scratch, n, sizeof(int)),
               qgc_arena_array(c->scratch, l->n_edges, sizeof(int)),
               qgc_arena_array(c->scratch, n, sizeof(int))};
    for (size_t i = 0; i < n; i++)
        q.first[i] = q.member[i] = -1;
    for (int i = (int)l->n_boxes - 1; i >= 0; i--)
        q.member[cluster_of(c, i)] = i; /* the first */
    for (size_t i = 0; i < l->n_edges; i++) {
        int from = cluster_of(c, l->edges[i].from), to = cluster_of(c, l->edges[i].to);
        if (from == to)
            continue;
        q.waits[to]++;
        q.next[i] = q.first[from];
        q.first[from] = (int)i;
    }
    return q;
}

/* The cluster to come next: that with the first box of those that wait for none. In a cycle all wait: the first. */
static int next_cluster(const compound *c, const queue *q) {
    int best = -1, stuck = -1;
    for (int i = 0; i < c->n_clusters; i++) {
        if (c->place[i] >= 0 || q->member[i] < 0)
            continue;
        int *at = q->waits[i] == 0 ? &best : &stuck;
        if (*at < 0 || q->member[i] < q->member[*at])
            *at = i;
    }
    return best >= 0 ? best : stuck;
}

static void order_clusters(compound *c) {
    const queue q = new_queue(c);
    c->place = qgc_arena_array(c->scratch, (size_t)c->n_clusters, sizeof *c->place);
    for (int i = 0; i < c->n_clusters; i++)
        c->place[i] = -1;
    int n = 0;
    for (int next; (next = next_cluster(c, &q)) >= 0;) {
        c->place[next] = n++;
        for (int e = q.first[next]; e >= 0; e = q.next[e])
            q.waits[cluster_of(c, c->l->edges[e].to)]--;
    }
}

/* --- routes ----------------------------------------------------------------------------------------------- */

typedef struct {
    int to, from, edge;
} crossing;

static int by_route(const void *a, const void *b) {
    const crossing *x = a, *y = b;
    if (x->to != y->to)
        return x->to < y->to ? -1 : 1;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return x->edge < y->edge ? -1 : x->edge > y->edge;
}

static void find_routes(compound *c) {
    const qgc_layout *l = c->l;
    crossing *found = qgc_arena_array(c->scratch, l->n_edges, sizeof *found);
    size_t n = 0;
    c->route_of = qgc_arena_array(c->scratch, l->n_edges, sizeof *c->route_of);
    for (size_t i = 0; i < l->n_edges; i++) {
        const int from = cluster_of(c, l->edges[i].from), to = cluster_of(c, l->edges[i].to);
        c->route_of[i] = -1;
        if (c->place[from] < c->place[to])
            found[n++] = (crossing){to, l->edges[i].from, (int)i};
    }
    if (n > 1)
        qsort(found, n, sizeof *found, by_route);
    c->routes = qgc_arena_array(c->scratch, n, sizeof *c->routes);
    for (size_t i = 0; i < n; i++) {
        const route *last = c->n_routes ? &c->routes[c->n_routes - 1] : NULL;
        if (!last || last->to != found[i].to || last->from != found[i].from)
            c->routes[c->n_routes++] = (route){.from = found[i].from, .to = found[i].to};
        c->route_of[found[i].edge] = (int)c->n_routes - 1;
    }
}

/* --- frames ----------------------------------------------------------------------------------------------- */

static int add_item(layout_level *level, layout_kind kind, double width, double height) {
    level->items[level->n_items] = (layout_item){.kind = kind, .width = width, .height = height};
    return (int)level->n_items++;
}

static int add_link(layout_level *level, int from, int to) {
    level->links[level->n_links] = (layout_link){.from = from, .to = to, .from_at = NAN, .to_at = NAN};
    return (int)level->n_links++;
}

static bool comes_before(const route *a, const route *b) {
    return a->key != b->key ? a->key < b->key : a->from < b->from;
}

/* In the order in which their lines come. */
static void add_entries(compound *c, int frame) {
    size_t first = 0, end;
    while (first < c->n_routes && c->routes[first].to != frame)
        first++;
    for (end = first; end < c->n_routes && c->routes[end].to == frame; end++)
        add_item(&c->levels[frame], LAYOUT_ENTRY, 0, 0);
    for (size_t i = first; i < end; i++) {
        c->routes[i].entry = 0;
        for (size_t k = first; k < end; k++)
            c->routes[i].entry += comes_before(&c->routes[k], &c->routes[i]);
    }
}

static void add_frame_items(compound *c, int frame) {
    const qgc_layout *l = c->l;
    layout_level *level = &c->levels[frame];
    add_entries(c, frame);
    add_item(level, LAYOUT_TITLE, l->frames[frame].title_width, l->frames[frame].title_height);
    for (size_t i = 0; i < l->n_boxes; i++)
        if (l->boxes[i].group == frame)
            c->item_of[i] = add_item(level, LAYOUT_BOX, l->boxes[i].width, l->boxes[i].height);
    for (size_t i = 0; i < c->n_routes; i++) {
        const int box = c->routes[i].from;
        if (l->boxes[box].group == frame && c->exit_of[box] < 0)
            c->exit_of[box] = add_item(level, LAYOUT_EXIT, 0, 0);
    }
}

static void add_frame_links(compound *c, int frame) {
    const qgc_layout *l = c->l;
    layout_level *level = &c->levels[frame];
    for (size_t i = 0; i < l->n_edges; i++) {
        const qgc_layout_edge *e = &l->edges[i];
        if (l->boxes[e->to].group != frame)
            continue;
        if (c->route_of[i] >= 0)
            c->end_link[i] = add_link(level, c->routes[c->route_of[i]].entry, c->item_of[e->to]);
        else if (l->boxes[e->from].group == frame && e->from < e->to)
            c->end_link[i] = add_link(level, c->item_of[e->from], c->item_of[e->to]);
    }
    for (size_t i = 0; i < l->n_boxes; i++)
        if (l->boxes[i].group == frame && c->exit_of[i] >= 0)
            c->exit_link[i] = add_link(level, c->item_of[i], c->exit_of[i]);
}

static void lay_out_frame(compound *c, int frame) {
    qgc_layout *l = c->l;
    layout_level *level = &c->levels[frame];
    const size_t n = l->n_boxes + c->n_routes;
    level->items = qgc_arena_array(c->scratch, 2 * n + 1, sizeof *level->items);
    level->links = qgc_arena_array(c->scratch, l->n_edges + n, sizeof *level->links);
    level->gap = INNER_GAP;
    add_frame_items(c, frame);
    add_frame_links(c, frame);
    qgc_layout_level(level, c->scratch);
    l->frames[frame].width = level->width + 2 * PAD;
    l->frames[frame].height = level->height + PAD;
}

static int *all_none(compound *c, size_t n) {
    int *list = qgc_arena_array(c->scratch, n, sizeof *list);
    for (size_t i = 0; i < n; i++)
        list[i] = -1;
    return list;
}

static void lay_out_frames(compound *c) {
    qgc_layout *l = c->l;
    c->levels = qgc_arena_array(c->scratch, l->n_frames, sizeof *c->levels);
    c->item_of = all_none(c, l->n_boxes);
    c->exit_of = all_none(c, l->n_boxes);
    c->exit_link = all_none(c, l->n_boxes);
    c->end_link = all_none(c, l->n_edges);
    for (size_t i = 0; i < l->n_frames; i++) {
        qgc_layout_frame *f = &l->frames[i];
        f->x = f->y = f->width = f->height = 0;
        if (c->place[i] >= 0)
            lay_out_frame(c, (int)i);
    }
}

/* --- the outer level -------------------------------------------------------------------------------------- */

static void add_clusters(compound *c) {
    const qgc_layout *l = c->l;
    int *at = qgc_arena_array(c->scratch, (size_t)c->n_clusters, sizeof *at);
    int n = 0;
    for (int i = 0; i < c->n_clusters; i++)
        if (c->place[i] >= 0) {
            at[c->place[i]] = i;
            n++;
        }
    c->cluster_item = qgc_arena_array(c->scratch, (size_t)c->n_clusters, sizeof *c->cluster_item);
    c->outer.items = qgc_arena_array(c->scratch, (size_t)n, sizeof *c->outer.items);
    for (int i = 0; i < n; i++) {
        const int cluster = at[i], box = cluster - (int)l->n_frames;
        c->cluster_item[cluster] =
            box < 0 ? add_item(&c->outer, LAYOUT_BOX, l->frames[cluster].width, l->frames[cluster].height)
                    : add_item(&c->outer, LAYOUT_BOX, l->boxes[box].width, l->boxes[box].height);
    }
}

/* Lines end at the entries of frames; while these have no order yet, in the order in which they come. */
static void lay_out_clusters(compound *c, bool entries) {
    const qgc_layout *l = c->l;
    c->outer = (layout_level){.gap = OUTER_GAP};
    add_clusters(c);
    c->outer.links = qgc_arena_array(c->scratch, c->n_routes, sizeof *c->outer.links);
    for (size_t i = 0; i < c->n_routes; i++) {
        const route *r = &c->routes[i];
        const int from = cluster_of(c, r->from);
        layout_link *link =
            &c->outer.links[add_link(&c->outer, c->cluster_item[from], c->cluster_item[r->to])];
        if (from < (int)l->n_frames)
            link->from_at = PAD + c->levels[from].items[c->exit_of[r->from]].x;
        if (r->to < (int)l->n_frames && entries)
            link->to_at = PAD + c->levels[r->to].items[r->entry].x;
    }
    qgc_layout_level(&c->outer, c->scratch);
}

/* First as if lines could come into frames anywhere, then as they came. */
static void lay_out_twice(compound *c) {
    lay_out_frames(c);
    lay_out_clusters(c, false);
    for (size_t i = 0; i < c->n_routes; i++) {
        const layout_link *link = &c->outer.links[i];
        c->routes[i].key = link->points[link->n_points - 1].x;
    }
    lay_out_frames(c);
    lay_out_clusters(c, true);
}

/* --- all together ----------------------------------------------------------------------------------------- */

static void set_places(compound *c) {
    qgc_layout *l = c->l;
    for (size_t i = 0; i < l->n_frames; i++)
        if (c->place[i] >= 0) {
            l->frames[i].x = c->outer.items[c->cluster_item[i]].x;
            l->frames[i].y = c->outer.items[c->cluster_item[i]].y;
        }
    for (size_t i = 0; i < l->n_boxes; i++) {
        qgc_layout_box *b = &l->boxes[i];
        const layout_item *item = b->group >= 0 ? &c->levels[b->group].items[c->item_of[i]]
                                                : &c->outer.items[c->cluster_item[cluster_of(c, (int)i)]];
        b->x = item->x + (b->group >= 0 ? l->frames[b->group].x + PAD : 0);
        b->y = item->y + (b->group >= 0 ? l->frames[b->group].y : 0);
    }
}

/* Points with one x or one y as the two before them make these longer. */
static void add_points(qgc_layout_edge *e, const layout_link *link, double x, double y) {
    for (size_t i = 0; i < link->n_points; i++) {
        const qgc_layout_point p = {link->points[i].x + x, link->points[i].y + y};
        qgc_layout_point *last = e->points + e->n_points;
        if (e->n_points > 0 && fabs(last[-1].x - p.x) < 1e-6 && fabs(last[-1].y - p.y) < 1e-6)
            continue;
        if (e->n_points > 1 && fabs(last[-1].x - p.x) < 1e-6 && fabs(last[-2].x - p.x) < 1e-6)
            last[-1].y = p.y;
        else
            e->points[e->n_points++] = p;
    }
}

static const layout_link *link_inside(const compound *c, int frame, int link) {
    return frame >= 0 && link >= 0 ? &c->levels[frame].links[link] : NULL;
}

static void draw_edge(const compound *c, size_t i) {
    const qgc_layout *l = c->l;
    qgc_layout_edge *e = &l->edges[i];
    const int from = l->boxes[e->from].group, to = l->boxes[e->to].group;
    const layout_link *between = c->route_of[i] >= 0 ? &c->outer.links[c->route_of[i]] : NULL;
    const layout_link *start = between ? link_inside(c, from, c->exit_link[e->from]) : NULL;
    const layout_link *end = link_inside(c, to, c->end_link[i]);
    size_t n = 0;
    for (int k = 0; k < 3; k++) {
        const layout_link *link = k == 0 ? start : k == 1 ? between : end;
        n += link ? link->n_points : 0;
    }
    e->points = n ? qgc_arena_array(c->a, n, sizeof *e->points) : NULL;
    e->n_points = 0;
    if (start)
        add_points(e, start, l->frames[from].x + PAD, l->frames[from].y);
    if (between)
        add_points(e, between, 0, 0);
    if (end)
        add_points(e, end, l->frames[to].x + PAD, l->frames[to].y);
}

void qgc_layout_run(qgc_layout *l, qgc_arena *a) {
    compound c = {.l = l, .a = a, .scratch = qgc_arena_new(), .n_clusters = (int)(l->n_frames + l->n_boxes)};
    order_clusters(&c);
    find_routes(&c);
    lay_out_twice(&c);
    set_places(&c);
    for (size_t i = 0; i < l->n_edges; i++)
        draw_edge(&c, i);
    l->width = c.outer.width;
    l->height = c.outer.height;
    qgc_arena_drop(c.scratch);
}
