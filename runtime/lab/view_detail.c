#include <string.h>

#include "runtime/lab/view_impl.h"

typedef struct {
    const qgc_view *v;
    size_t stage, part;
    const view_scene *s;
    view_details *all;
    qgc_str *out;
    qgc_arena *a;
} writer;

/* --- pieces ----------------------------------------------------------------------------------------------- */

/* A link to a node of the drawing, or its name where it is in none. */
static void put_link(writer *w, const qgc_node *node, const char *label) {
    if (view_find(w->s, node)) {
        qgc_str_add(w->out, "<a href=\"#\" data-node=\"");
        qgc_xml_escape(w->out, label);
        qgc_str_add(w->out, "\">");
    }
    qgc_str_add(w->out, "<code>");
    qgc_xml_escape(w->out, label);
    qgc_str_add(w->out, view_find(w->s, node) ? "</code></a>" : "</code>");
}

static void put_source(writer *w, qgc_loc at) {
    const char *line = view_source_line(at, w->a);
    qgc_str_add(w->out, "<div class=\"source\">");
    view_place(w->out, at);
    if (line) {
        qgc_str_add(w->out, "<pre>");
        qgc_xml_escape(w->out, line);
        qgc_str_add(w->out, "</pre>");
    }
    qgc_str_add(w->out, "</div>\n");
}

static const char *kind_name(const qgc_value *value) {
    static const char *const names[] = {"input", "weight", "state", "result"};
    return names[value->kind];
}

/* The tensor of a weight in a file. */
static const char *tensor_of(const writer *w, const qgc_value *value) {
    if (value->kind != QGC_WEIGHT)
        return NULL;
    const qgc_weight_decl *decl = &w->v->g->weights[value->decl];
    return qgc_tensor_name(decl->gguf ? decl->gguf : decl->hf, decl->index, value->layer, w->a);
}

static void put_value(writer *w, const char *way, const qgc_value *value) {
    const char *label = qgc_value_label(value, w->a), *tensor = tensor_of(w, value);
    qgc_str_printf(w->out, "<tr><th>%s</th><td>", way);
    if (value->kind == QGC_RESULT)
        put_link(w, value->maker, label);
    else {
        qgc_str_add(w->out, "<code>");
        qgc_xml_escape(w->out, label);
        qgc_str_add(w->out, "</code>");
    }
    qgc_str_printf(w->out, "</td><td>%s</td><td>%s</td><td>%s</td></tr>\n",
                   qgc_shape_text(&value->shape, w->a), qgc_dtypes[value->dtype].name, kind_name(value));
    if (tensor) {
        qgc_str_add(w->out, "<tr class=\"tensor\"><th></th><td colspan=\"4\">");
        qgc_xml_escape(w->out, tensor);
        qgc_str_add(w->out, "</td></tr>\n");
    }
}

static void put_values(writer *w, const qgc_node *n) {
    qgc_str_add(w->out, "<table class=\"values\">\n");
    for (int i = 0; i < n->n_in; i++)
        put_value(w, i ? "" : "reads", n->in[i]);
    for (int i = 0; i < n->n_out; i++)
        put_value(w, i ? "" : "makes", n->out[i]);
    qgc_str_add(w->out, "</table>\n");
}

static void put_attributes(writer *w, const qgc_node *n) {
    const qgc_attr_spec *attrs = qgc_ops[n->op].attrs;
    if (!attrs[0].name)
        return;
    qgc_str_add(w->out, "<dl>");
    for (int i = 0; attrs[i].name; i++)
        if (qgc_attr_is_written(n, i))
            qgc_str_printf(w->out, "<div><dt>%s</dt><dd>%s</dd></div>", attrs[i].name,
                           attrs[i].choices[0] ? attrs[i].choices[n->attr[i].choice]
                                               : view_number(n->attr[i].number, w->a));
    qgc_str_add(w->out, "</dl>\n");
}

static void put_time(writer *w, const view_time *t) {
    if (!t || w->stage + 1 != w->v->n_stages)
        return;
    qgc_str_printf(w->out, "<p class=\"takes\"><b>%s</b> in <code>", view_us(t->us, w->a));
    qgc_xml_escape(w->out, t->kernel);
    qgc_str_add(w->out, "</code></p>\n");
}

static void put_members(writer *w, int group) {
    for (size_t i = 0; i < w->s->n_boxes; i++) {
        const view_box *b = &w->s->boxes[i];
        if (b->kind != VIEW_NODE || b->group != group)
            continue;
        qgc_str_add(w->out, " ");
        put_link(w, b->node, view_label(b, w->a));
    }
}

static void put_kernel(writer *w, const view_box *b) {
    if (b->group < 0) {
        qgc_str_add(w->out, "<p class=\"kernel\">A kernel by itself.</p>\n");
        put_time(w, view_time_of(w->v, NULL, b));
        return;
    }
    const view_group *g = &w->s->groups[b->group];
    qgc_str_add(w->out, "<p class=\"kernel\">In kernel <a href=\"#\" data-node=\"kernel ");
    qgc_xml_escape(w->out, g->label);
    qgc_str_add(w->out, "\"><b>");
    qgc_xml_escape(w->out, g->label);
    qgc_str_add(w->out, "</b></a>, with");
    put_members(w, b->group);
    qgc_str_add(w->out, "</p>\n");
    put_time(w, view_time_of(w->v, g, NULL));
}

/* --- what the passes did ---------------------------------------------------------------------------------- */

static void open_entry(writer *w, const view_stage *stage, const char *classes) {
    qgc_str_add(w->out, "<li data-stage=\"");
    qgc_xml_escape(w->out, stage->key);
    qgc_str_printf(w->out, "\" class=\"%s\"><a href=\"#after=", classes);
    qgc_xml_escape(w->out, stage->key);
    qgc_str_add(w->out, "\">");
    qgc_xml_escape(w->out, stage->key);
    qgc_str_add(w->out, "</a> ");
}

/* A node as events call it: "q[3]", with quotes, and the quoted "q" of its layer. */
typedef struct {
    const char *label, *quoted, *quoted_name;
    int layer;
} names;

/* Does an event tell of this node: at it, or with its name? */
static bool concerns(const qgc_pass_event *e, const names *n) {
    return strcmp(e->node, n->label) == 0 || strstr(e->text, n->quoted) ||
           (e->layer == n->layer && !e->fired && strstr(e->text, n->quoted_name));
}

static bool put_events(writer *w, const view_stage *stage, const names *n) {
    bool fired = false;
    for (size_t i = 0; i < stage->run->n_events; i++) {
        const qgc_pass_event *e = &stage->run->events[i];
        if (!concerns(e, n))
            continue;
        fired = fired || e->fired;
        open_entry(w, stage, e->fired ? "fired" : "declined");
        qgc_str_printf(w->out, "%s <code>", e->fired ? "fired" : "declined");
        qgc_xml_escape(w->out, e->rule);
        qgc_str_add(w->out, "</code>");
        if (strcmp(e->node, n->label) != 0) {
            qgc_str_add(w->out, " at <code>");
            qgc_xml_escape(w->out, e->node);
            qgc_str_add(w->out, "</code>");
        }
        qgc_str_add(w->out, *e->text ? ": " : "");
        qgc_xml_escape(w->out, e->text);
        qgc_str_add(w->out, "</li>\n");
    }
    return fired;
}

/* A node may be new, or come into a group, without being the one at which the rule fired. */
static void put_change(writer *w, const view_stage *before, const view_stage *stage, const view_box *now) {
    const view_box *then = view_find(&before->scenes[w->part], now->node);
    const bool joined = now->group >= 0 && (!then || then->was.group != now->was.group);
    if (then && !joined)
        return;
    open_entry(w, stage, "fired");
    qgc_str_add(w->out, then ? "" : "appears");
    if (joined) {
        qgc_str_add(w->out, then ? "into kernel <b>" : ", in kernel <b>");
        qgc_xml_escape(w->out, stage->scenes[w->part].groups[now->group].label);
        qgc_str_add(w->out, "</b>");
    }
    qgc_str_add(w->out, "</li>\n");
}

static void put_stages(writer *w, const view_box *b) {
    const char *label = view_label(b, w->a), *name = b->was.out[0]->name;
    const names n = {label, qgc_arena_printf(w->a, "\"%s\"", label), qgc_arena_printf(w->a, "\"%s\"", name),
                     b->was.layer};
    for (size_t i = 1; i < w->v->n_stages; i++) {
        const view_stage *stage = &w->v->stages[i];
        if (stage->change)
            continue;
        const view_box *now = view_find(&stage->scenes[w->part], b->node);
        if (!put_events(w, stage, &n) && now)
            put_change(w, &w->v->stages[view_before(w->v, i)], stage, now);
    }
}

/* The same in all stages. */
static void put_history(writer *w, const view_box *b) {
    const char *key = qgc_arena_printf(w->a, "%zu/%d", w->part, b->node->id);
    char *known = qgc_map_get(&w->all->histories, key);
    if (!known) {
        qgc_str text = qgc_str_new(w->a), *out = w->out;
        w->out = &text;
        put_stages(w, b);
        w->out = out;
        known = text.text;
        qgc_map_put(&w->all->histories, key, known);
    }
    if (*known) {
        qgc_str_add(w->out, "<h4>What the passes did</h4><ol class=\"history\">\n");
        qgc_str_add(w->out, known);
        qgc_str_add(w->out, "</ol>\n");
    } else
        qgc_str_add(w->out, "<p class=\"none\">No rule said anything about it.</p>\n");
}

/* --- whole ones ------------------------------------------------------------------------------------------- */

static void put_node(writer *w, const view_box *b) {
    const qgc_op_info *op = &qgc_ops[b->was.op];
    qgc_str_add(w->out, "<h3><code>");
    qgc_xml_escape(w->out, view_label(b, w->a));
    qgc_str_printf(w->out, "</code> <span>%s</span></h3>\n<p class=\"summary\">", op->name);
    qgc_xml_escape(w->out, op->summary);
    qgc_str_add(w->out, "</p>\n");
    put_source(w, b->was.at);
    put_values(w, &b->was);
    put_attributes(w, &b->was);
    put_kernel(w, b);
    put_history(w, b);
}

static void put_group(writer *w, int group) {
    const view_group *g = &w->s->groups[group];
    qgc_str_add(w->out, "<h3><code>");
    qgc_xml_escape(w->out, g->label);
    qgc_str_add(w->out, "</code> <span>kernel</span></h3>\n<p class=\"kernel\">Computes");
    put_members(w, group);
    qgc_str_add(w->out, "</p>\n");
    put_time(w, view_time_of(w->v, g, NULL));
    for (size_t i = 0; i < w->s->n_boxes; i++)
        if (w->s->boxes[i].kind == VIEW_NODE && w->s->boxes[i].group == group)
            put_source(w, w->s->boxes[i].was.at);
}

static const char *add_once(view_details *all, const qgc_str *text, qgc_arena *a) {
    char *id = qgc_map_get_bytes(&all->ids, text->text, text->bytes);
    if (id)
        return id;
    id = qgc_arena_printf(a, "d%zu", all->ids.n);
    qgc_map_put_bytes(&all->ids, text->text, text->bytes, id);
    qgc_str_printf(&all->text, "<template id=\"%s\">\n", id);
    qgc_str_add_bytes(&all->text, text->text, text->bytes);
    qgc_str_add(&all->text, "</template>\n");
    return id;
}

const char *view_detail(const qgc_view *v, size_t stage, size_t part, const view_box *box, int group,
                        view_details *all) {
    qgc_arena *a = all->text.arena;
    qgc_str text = qgc_str_new(a);
    writer w = {v, stage, part, &v->stages[stage].scenes[part], all, &text, a};
    if (!box)
        put_group(&w, group);
    else if (box->kind == VIEW_NODE)
        put_node(&w, box);
    else
        return "";
    return add_once(all, &text, a);
}
