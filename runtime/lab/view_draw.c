#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/lab/view_impl.h"

/* A box has two lines, and a third where times are known:
 *
 *   +------------------------+
 *   | linear               q |     op, what it makes
 *   | wq, bq        [T, 896] |     weights, states and inputs; shape
 *   | 4.21 us  ====          |
 *   +------------------------+
 *
 * The fonts are of equal letters, so that C knows how wide a text is (view.css has the sizes). */
enum {
    PAD = 9,
    LINE = 15,
    FIRST_LINE = 16,
    NODE_HEIGHT = 39,
    LEAST_WIDTH = 108,
    END_HEIGHT = 22,
    FOLD_HEIGHT = 46,
    TITLE_HEIGHT = 21,
    BAR = 44, /* of the longest time */
    MARGIN = 14,
    MOST_COLUMNS = 34,
    N_HUES = 8,
};
static const double column = 7.4, small_column = 6.5; /* of 12px and 10.5px: 0.61 em, and a little */
static const int hues[N_HUES] = {212, 28, 150, 275, 340, 48, 185, 105};

/* --- texts ------------------------------------------------------------------------------------------------ */

typedef struct {
    const char *op, *name, *leaves, *shape, *time;
    double us;
} box_text;

static const char *join(const char *list, const char *more, qgc_arena *a) {
    return *list ? qgc_arena_printf(a, "%s, %s", list, more) : more;
}

/* What a node reads that is no result: it stands in the box, as in graph/print_dot.c. */
static const char *leaves_of(const qgc_node *n, qgc_arena *a) {
    const char *list = "";
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i]->kind != QGC_RESULT)
            list = join(list, n->in[i]->name, a);
    return list;
}

static const char *results_of(const qgc_node *n, qgc_arena *a) {
    const char *list = "";
    for (int i = 0; i < n->n_out; i++)
        list = join(list, n->out[i]->name, a);
    return list;
}

static const view_time *time_of(const qgc_view *v, size_t stage, const view_group *group,
                                const view_box *box) {
    return stage + 1 == v->n_stages ? view_time_of(v, group, box) : NULL;
}

static box_text text_of(const qgc_view *v, size_t stage, const view_box *b, qgc_arena *a) {
    const qgc_node *n = &b->was;
    const view_time *t = b->group < 0 ? time_of(v, stage, NULL, b) : NULL;
    return (box_text){
        .op = qgc_ops[n->op].name,
        .name = view_shortened(results_of(n, a), MOST_COLUMNS, a),
        .leaves = view_shortened(leaves_of(n, a), MOST_COLUMNS, a),
        .shape = qgc_shape_text(&n->out[0]->shape, a),
        .time = t ? view_us(t->us, a) : NULL,
        .us = t ? t->us : 0,
    };
}

static const char *end_text(const view_box *b, qgc_arena *a) {
    if (b->kind == VIEW_IN)
        return qgc_arena_printf(a, "%s", view_shortened(qgc_value_label(b->value, a), MOST_COLUMNS, a));
    return view_shortened(b->text, MOST_COLUMNS, a);
}

/* --- sizes ------------------------------------------------------------------------------------------------ */

static double width_of_two(double letter, const char *left, const char *right) {
    return letter * (view_columns(left) + view_columns(right) + (*left && *right ? 2 : 0));
}

static void size_box(const qgc_view *v, size_t stage, const view_box *b, qgc_layout_box *out, qgc_arena *a) {
    if (b->kind == VIEW_NODE) {
        const box_text t = text_of(v, stage, b, a);
        out->width = fmax(width_of_two(column, t.op, t.name), width_of_two(small_column, t.leaves, t.shape));
        out->height = NODE_HEIGHT + (t.time ? LINE : 0);
        if (t.time)
            out->width = fmax(out->width, small_column * view_columns(t.time) + PAD + BAR);
        out->width = fmax(out->width + 2 * PAD, LEAST_WIDTH);
    } else if (b->kind == VIEW_FOLD) {
        out->width = fmax(column * view_columns(b->text), small_column * view_columns(b->more)) + 4 * PAD;
        out->height = FOLD_HEIGHT;
    } else {
        out->width = small_column * view_columns(end_text(b, a)) + 2 * PAD;
        out->height = END_HEIGHT;
    }
}

static const char *title_of(const view_group *group, const view_part *part, const qgc_graph *g,
                            qgc_arena *a) {
    const qgc_group *of = &g->groups[group->id];
    const char *name = of->repeat == part->repeat && of->layer == part->layer ? group->name : group->label;
    return view_shortened(name, MOST_COLUMNS, a);
}

static void size_frame(const qgc_view *v, size_t stage, size_t part, size_t group, qgc_layout_frame *out,
                       qgc_arena *a) {
    const view_group *g = &v->stages[stage].scenes[part].groups[group];
    const view_time *t = time_of(v, stage, g, NULL);
    out->title_width = column * view_columns(title_of(g, &v->parts[part], v->g, a)) + 2;
    if (t)
        out->title_width += PAD + small_column * view_columns(view_us(t->us, a)) + PAD + BAR;
    out->title_height = TITLE_HEIGHT;
}

static qgc_layout lay_out(const qgc_view *v, size_t stage, size_t part, qgc_arena *a) {
    const view_scene *s = &v->stages[stage].scenes[part];
    qgc_layout l = {.boxes = qgc_arena_array(a, s->n_boxes, sizeof(qgc_layout_box)),
                    .n_boxes = s->n_boxes,
                    .frames = qgc_arena_array(a, s->n_groups, sizeof(qgc_layout_frame)),
                    .n_frames = s->n_groups,
                    .edges = qgc_arena_array(a, s->n_edges, sizeof(qgc_layout_edge)),
                    .n_edges = s->n_edges};
    for (size_t i = 0; i < s->n_boxes; i++) {
        size_box(v, stage, &s->boxes[i], &l.boxes[i], a);
        l.boxes[i].group = s->boxes[i].group;
    }
    for (size_t i = 0; i < s->n_groups; i++)
        size_frame(v, stage, part, i, &l.frames[i], a);
    for (size_t i = 0; i < s->n_edges; i++)
        l.edges[i] = (qgc_layout_edge){.from = s->edges[i].from, .to = s->edges[i].to};
    qgc_layout_run(&l, a);
    return l;
}

/* What the longest kernel of a drawing takes. */
static double most_us(const qgc_view *v, const view_scene *s) {
    double most = 0;
    for (size_t i = 0; i < s->n_boxes && v->timed; i++) {
        const view_box *b = &s->boxes[i];
        const view_group *group = b->group >= 0 ? &s->groups[b->group] : NULL;
        const view_time *t = b->kind == VIEW_NODE ? view_time_of(v, group, b) : NULL;
        most = t ? fmax(most, t->us) : most;
    }
    return most;
}

/* Groups take colours in the order in which their names turn up. */
static void name_groups(const view_scene *s, view_drawings *d, qgc_arena *a) {
    for (size_t i = 0; i < s->n_groups; i++) {
        int *hue = qgc_arena_alloc(a, sizeof *hue);
        *hue = hues[d->names.n % N_HUES];
        qgc_map_put(&d->names, s->groups[i].name, hue);
    }
}

view_drawings view_lay_out(const qgc_view *v, qgc_arena *a) {
    view_drawings d = {.layouts = qgc_arena_array(a, v->n_stages * v->n_parts, sizeof(qgc_layout)),
                       .widths = qgc_arena_array(a, v->n_parts, sizeof(double)),
                       .most_us = qgc_arena_array(a, v->n_parts, sizeof(double)),
                       .names = qgc_map_new(a)};
    for (size_t p = 0; p < v->n_parts; p++) {
        d.most_us[p] = most_us(v, &v->stages[v->n_stages - 1].scenes[p]);
        for (size_t i = 0; i < v->n_stages; i++) {
            qgc_layout *l = &d.layouts[i * v->n_parts + p];
            *l = lay_out(v, i, p, a);
            d.widths[p] = fmax(d.widths[p], l->width);
            name_groups(&v->stages[i].scenes[p], &d, a);
        }
    }
    return d;
}

int view_hue(const view_drawings *d, const view_group *group) {
    const int *hue = qgc_map_get(&d->names, group->name);
    return hue ? *hue : hues[0];
}

/* --- drawing ---------------------------------------------------------------------------------------------- */

typedef struct {
    const qgc_view *v;
    const view_drawings *d;
    size_t stage, part;
    const view_scene *s;
    const qgc_layout *l;
    const char *const *details;
    qgc_str *out;
    qgc_arena *a;
} pen;

static void put_text(pen *p, double x, double y, const char *classes, const char *text) {
    qgc_str_printf(p->out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, classes);
    qgc_xml_escape(p->out, text);
    qgc_str_add(p->out, "</text>");
}

static void put_attribute(pen *p, const char *name, const char *text) {
    qgc_str_printf(p->out, " %s=\"", name);
    qgc_xml_escape(p->out, text);
    qgc_str_add(p->out, "\"");
}

static void put_bar(pen *p, double x, double y, double us) {
    const double most = p->d->most_us[p->part], share = most > 0 ? us / most : 0;
    qgc_str_printf(p->out,
                   "<rect class=\"track\" x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"5\" rx=\"2.5\"/>"
                   "<rect class=\"time-bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"5\" rx=\"2.5\"/>",
                   x, y, BAR, x, y, fmax(BAR * share, 1.5));
}

static void put_frame(pen *p, size_t i) {
    const view_group *g = &p->s->groups[i];
    const qgc_layout_frame *f = &p->l->frames[i];
    const char *title = title_of(g, &p->v->parts[p->part], p->v->g, p->a);
    const view_time *t = time_of(p->v, p->stage, g, NULL);
    qgc_str_printf(p->out, "<g class=\"frame\" style=\"--hue:%d\" tabindex=\"0\" role=\"button\"",
                   view_hue(p->d, g));
    put_attribute(p, "data-node", qgc_arena_printf(p->a, "kernel %s", g->label));
    put_attribute(p, "aria-label", qgc_arena_printf(p->a, "kernel %s", g->label));
    qgc_str_printf(
        p->out, " data-detail=\"%s\"><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"10\"/>",
        p->details[p->s->n_boxes + i], f->x, f->y, f->width, f->height);
    put_text(p, f->x + 10, f->y + 15, "title", title);
    if (t) {
        const double x = f->x + 10 + column * view_columns(title) + PAD;
        const char *us = view_us(t->us, p->a);
        put_text(p, x, f->y + 15, "time", us);
        put_bar(p, x + small_column * view_columns(us) + 5, f->y + 9, t->us);
    }
    qgc_str_add(p->out, "</g>\n");
}

/* From row to row a line bends: upright at both ends. */
static void put_edge(pen *p, size_t i) {
    const qgc_layout_edge *e = &p->l->edges[i];
    const qgc_value *value = p->s->edges[i].value;
    if (e->n_points == 0)
        return;
    qgc_str_printf(
        p->out,
        "<path class=\"edge\" data-from=\"%d\" data-to=\"%d\" marker-end=\"url(#arrow)\" d=\"M%.1f %.1f",
        e->from, e->to, e->points[0].x, e->points[0].y);
    for (size_t k = 1; k < e->n_points; k++) {
        const qgc_layout_point a = e->points[k - 1], b = e->points[k];
        const double middle = (a.y + b.y) / 2;
        if (fabs(a.x - b.x) < 0.05)
            qgc_str_printf(p->out, "V%.1f", b.y);
        else
            qgc_str_printf(p->out, "C%.1f %.1f %.1f %.1f %.1f %.1f", a.x, middle, b.x, middle, b.x, b.y);
    }
    qgc_str_add(p->out, "\"><title>");
    qgc_xml_escape(p->out, qgc_value_label(value, p->a));
    qgc_str_printf(p->out, " %s %s</title></path>\n", qgc_shape_text(&value->shape, p->a),
                   qgc_dtypes[value->dtype].name);
}

/* Did a rule fire at this node in the pass of this stage, or decline? */
static const char *mark_of(pen *p, const view_box *b) {
    const qgc_pass_run *run = p->v->stages[p->stage].run;
    const view_change *change = p->v->stages[p->stage].change;
    const char *mark = NULL, *label = view_label(b, p->a);
    if (change)
        return strcmp(change->node, label) == 0 ? "fired" : NULL;
    for (size_t i = 0; run && i < run->n_events; i++)
        if (strcmp(run->events[i].node, label) == 0) {
            if (run->events[i].fired)
                return "fired";
            mark = "declined";
        }
    return mark;
}

/* New in this stage, or in another group than before. */
static bool is_changed(pen *p, const view_box *b) {
    if (p->stage == 0)
        return false;
    const view_box *before = view_find(&p->v->stages[view_before(p->v, p->stage)].scenes[p->part], b->node);
    return !before || before->was.group != b->was.group;
}

static void open_box(pen *p, size_t i, const char *classes) {
    const qgc_layout_box *b = &p->l->boxes[i];
    qgc_str_printf(p->out, "<g class=\"%s\" data-box=\"%zu\" transform=\"translate(%.1f %.1f)\"", classes, i,
                   b->x, b->y);
}

static void put_node(pen *p, size_t i) {
    const view_box *b = &p->s->boxes[i];
    const qgc_layout_box *at = &p->l->boxes[i];
    const box_text t = text_of(p->v, p->stage, b, p->a);
    const char *mark = mark_of(p, b), *label = view_label(b, p->a);
    open_box(p, i, is_changed(p, b) ? "node changed" : "node");
    put_attribute(p, "data-node", label);
    put_attribute(p, "data-name", b->was.out[0]->name);
    put_attribute(p, "aria-label", qgc_arena_printf(p->a, "%s %s", t.op, label));
    qgc_str_printf(
        p->out,
        " data-detail=\"%s\" tabindex=\"0\" role=\"button\"><rect width=\"%.1f\" height=\"%.1f\" rx=\"6\"/>",
        p->details[i], at->width, at->height);
    put_text(p, PAD, FIRST_LINE, "op", t.op);
    put_text(p, at->width - PAD, FIRST_LINE, "name", t.name);
    if (*t.leaves)
        put_text(p, PAD, FIRST_LINE + LINE, "leaves", t.leaves);
    put_text(p, at->width - PAD, FIRST_LINE + LINE, "shape", t.shape);
    if (t.time) {
        put_text(p, PAD, FIRST_LINE + 2 * LINE, "time", t.time);
        put_bar(p, PAD + small_column * view_columns(t.time) + 5, FIRST_LINE + 2 * LINE - 6, t.us);
    }
    if (mark)
        qgc_str_printf(p->out, "<circle class=\"mark %s\" cx=\"%.1f\" cy=\"0\" r=\"5\"/>", mark,
                       at->width - 2);
    qgc_str_add(p->out, "</g>\n");
}

static void put_end(pen *p, size_t i) {
    const view_box *b = &p->s->boxes[i];
    const qgc_layout_box *at = &p->l->boxes[i];
    open_box(p, i, "end");
    qgc_str_printf(p->out, "><rect width=\"%.1f\" height=\"%.1f\" rx=\"%d\"/><title>", at->width, at->height,
                   END_HEIGHT / 2);
    qgc_xml_escape(p->out, qgc_value_label(b->value, p->a));
    qgc_str_printf(p->out, " %s</title>", qgc_shape_text(&b->value->shape, p->a));
    put_text(p, at->width / 2, 15, "", end_text(b, p->a));
    qgc_str_add(p->out, "</g>\n");
}

static void put_fold(pen *p, size_t i) {
    const view_box *b = &p->s->boxes[i];
    const qgc_layout_box *at = &p->l->boxes[i];
    open_box(p, i, "fold");
    for (size_t k = 0; k < p->v->n_parts; k++)
        if (p->v->parts[k].repeat == b->was.repeat)
            put_attribute(p, "data-part", p->v->parts[k].key);
    qgc_str_add(p->out, " tabindex=\"0\" role=\"button\">");
    for (int k = 2; k >= 0; k--) /* a stack */
        qgc_str_printf(p->out, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%.1f\" rx=\"6\"/>", 4 * k,
                       4 * k, at->width - 8, at->height - 8);
    put_text(p, (at->width - 8) / 2, 16, "op", b->text);
    put_text(p, (at->width - 8) / 2, 31, "shape", b->more);
    qgc_str_add(p->out, "</g>\n");
}

void view_draw(const qgc_view *v, const view_drawings *d, size_t stage, size_t part,
               const char *const *details, qgc_str *out) {
    const qgc_layout *l = &d->layouts[stage * v->n_parts + part];
    pen p = {.v = v,
             .d = d,
             .stage = stage,
             .part = part,
             .s = &v->stages[stage].scenes[part],
             .l = l,
             .details = details,
             .out = out,
             .a = out->arena};
    const double width = d->widths[part] + 2 * MARGIN, height = l->height + 2 * MARGIN;
    qgc_str_printf(out,
                   "<svg class=\"drawing\" viewBox=\"%.1f %d %.1f %.1f\" width=\"%.1f\" height=\"%.1f\">\n",
                   -(width - l->width) / 2, -MARGIN, width, height, width, height);
    for (size_t i = 0; i < p.s->n_groups; i++)
        put_frame(&p, i);
    for (size_t i = 0; i < p.s->n_edges; i++)
        put_edge(&p, i);
    for (size_t i = 0; i < p.s->n_boxes; i++)
        if (p.s->boxes[i].kind == VIEW_NODE)
            put_node(&p, i);
        else if (p.s->boxes[i].kind == VIEW_FOLD)
            put_fold(&p, i);
        else
            put_end(&p, i);
    qgc_str_add(out, "</svg>\n");
}
