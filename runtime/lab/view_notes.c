#include <stdlib.h>
#include <string.h>

#include "runtime/lab/view_impl.h"

/* What stands beside the drawings of a stage, and the tables at the end of the page. */

/* --- what the rules did ----------------------------------------------------------------------------------- */

static void put_event(view_page *p, const qgc_pass_event *e) {
    const char *line = view_source_line(e->at, p->a);
    qgc_str_printf(p->out, "<li class=\"%s\"><div><span class=\"mark\">%s</span> ",
                   e->fired ? "fired" : "declined", e->fired ? "fired" : "declined");
    qgc_str_add(p->out, "<a href=\"#\" data-node=\"");
    view_put(p, e->node);
    qgc_str_add(p->out, "\"><code>");
    view_put(p, e->node);
    qgc_str_add(p->out, "</code></a> <span class=\"rule\">");
    view_put(p, e->rule);
    qgc_str_add(p->out, "</span></div>");
    if (*e->text) {
        qgc_str_add(p->out, "<div class=\"text\">");
        view_put(p, e->text);
        qgc_str_add(p->out, "</div>");
    }
    qgc_str_add(p->out, "<div class=\"source\">");
    view_place(p->out, e->at);
    if (line) {
        qgc_str_add(p->out, "<pre>");
        view_put(p, line);
        qgc_str_add(p->out, "</pre>");
    }
    qgc_str_add(p->out, "</div></li>\n");
}

/* Is an event of a layer that is drawn, or of none? */
static bool is_drawn(const qgc_view *v, const qgc_pass_event *e) {
    for (size_t i = 0; i < v->n_parts; i++)
        if (v->parts[i].layer == e->layer)
            return true;
    return e->layer < 0;
}

static void put_events(view_page *p, const qgc_pass_run *run) {
    size_t n = 0;
    qgc_str_add(p->out, "<ul class=\"events\">\n");
    for (int fired = 1; fired >= 0; fired--)
        for (size_t i = 0; i < run->n_events; i++)
            if (run->events[i].fired == (fired == 1) && is_drawn(p->v, &run->events[i])) {
                put_event(p, &run->events[i]);
                n++;
            }
    qgc_str_add(p->out, "</ul>\n");
    if (run->n_events == 0)
        qgc_str_add(p->out, run->n_fired ? "<p class=\"none\">This pass tells of no node.</p>\n"
                                         : "<p class=\"none\">No rule of this pass matched anything.</p>\n");
    if (run->note) {
        qgc_str_add(p->out, "<p class=\"none\">");
        view_put(p, run->note);
        qgc_str_add(p->out, "</p>\n");
    }
    if (n < run->n_events)
        qgc_str_printf(p->out, "<p class=\"none\">%zu more in other layers.</p>\n", run->n_events - n);
}

/* --- kernels of a drawing ---------------------------------------------------------------------------------- */

static void put_kernel_link(view_page *p, const char *node, const char *name) {
    qgc_str_add(p->out, "<a href=\"#\" data-node=\"");
    view_put(p, node);
    qgc_str_add(p->out, "\"><code>");
    view_put(p, name);
    qgc_str_add(p->out, "</code></a>");
}

/* What a kernel takes, or, where nobody has timed it, what it reads and the least that this can take. */
static void put_kernel_time(view_page *p, const view_group *g, const view_box *b) {
    const view_time *t = view_time_of(p->v, g, b);
    const view_cost *c = t ? NULL : view_cost_of(p->v, g, b);
    if (t)
        qgc_str_printf(p->out, "<span class=\"takes\">%s</span>", view_us(t->us, p->a));
    else if (c && c->bytes > 0)
        qgc_str_printf(p->out, "<span class=\"takes\">%s, \xE2\x89\xA5 %s</span>",
                       qgc_str_of_bytes((size_t)c->bytes, p->a), view_us(c->floor_us, p->a));
}

static void put_group(view_page *p, const view_scene *s, int group, bool last) {
    const view_group *g = &s->groups[group];
    qgc_str_printf(p->out, "<li style=\"--hue:%d\"><i></i>", view_hue(p->d, g));
    put_kernel_link(p, qgc_arena_printf(p->a, "kernel %s", g->label), g->label);
    if (last)
        put_kernel_time(p, g, NULL);
    qgc_str_add(p->out, "<div>");
    for (size_t i = 0; i < s->n_boxes; i++)
        if (s->boxes[i].kind == VIEW_NODE && s->boxes[i].group == group) {
            view_put(p, s->boxes[i].was.out[0]->name);
            qgc_str_add(p->out, " ");
        }
    qgc_str_add(p->out, "</div></li>\n");
}

/* Groups one by one; nodes by themselves in one line, or each with its time. */
static void put_kernel_list(view_page *p, size_t stage, size_t part) {
    const view_scene *s = &p->v->stages[stage].scenes[part];
    const bool last = stage + 1 == p->v->n_stages, timed = last && (p->v->timed || p->v->counted);
    size_t alone = 0;
    qgc_str_add(p->out, "<div class=\"list\" data-part=\"");
    view_put(p, p->v->parts[part].key);
    qgc_str_add(p->out, "\"><h4>Kernels: ");
    view_put(p, p->v->parts[part].title);
    qgc_str_add(p->out, "</h4>\n<ul>\n");
    for (size_t i = 0; i < s->n_groups; i++)
        put_group(p, s, (int)i, last);
    for (size_t i = 0; i < s->n_boxes; i++) {
        const view_box *b = &s->boxes[i];
        if (b->kind != VIEW_NODE || b->group >= 0)
            continue;
        qgc_str_add(p->out, timed ? "<li><i></i>" : alone == 0 ? "<li class=\"alone\"><i></i>" : " ");
        put_kernel_link(p, view_label(b, p->a), timed ? view_label(b, p->a) : b->was.out[0]->name);
        if (timed)
            put_kernel_time(p, NULL, b);
        qgc_str_add(p->out, timed ? "</li>\n" : "");
        alone++;
    }
    if (alone > 0 && !timed)
        qgc_str_printf(p->out, "<div>%s</div></li>\n", alone > 1 ? "each by itself" : "by itself");
    qgc_str_add(p->out, "</ul></div>\n");
}

static void put_kernel_lists(view_page *p, size_t stage) {
    for (size_t i = 0; i < p->v->n_parts; i++)
        put_kernel_list(p, stage, i);
}

/* Beside the drawings after one change. */
static void put_change(view_page *p, size_t stage) {
    const view_change *c = p->v->stages[stage].change;
    const qgc_pass_event e = {.rule = c->rule, .at = c->at, .node = c->node, .fired = true, .text = ""};
    qgc_str_add(p->out, "<div class=\"notes\">\n<h2>");
    view_put(p, c->of);
    qgc_str_printf(p->out, "</h2>\n<p class=\"summary\">Change %d of the pass.</p>\n<ul class=\"events\">\n",
                   c->number);
    put_event(p, &e);
    qgc_str_add(p->out, "</ul>\n");
    put_kernel_lists(p, stage);
    qgc_str_add(p->out, "</div>\n");
}

/* How many changes of a pass can be gone through. */
static int count_changes(const qgc_view *v, const char *key) {
    int n = 0;
    for (size_t i = 0; i < v->n_stages; i++)
        n += v->stages[i].change && strcmp(v->stages[i].change->of, key) == 0;
    return n;
}

void view_notes(view_page *p, size_t stage) {
    const view_stage *s = &p->v->stages[stage];
    if (s->change) {
        put_change(p, stage);
        return;
    }
    qgc_str_add(p->out, "<div class=\"notes\">\n<h2>");
    if (!s->run) {
        qgc_str_printf(
            p->out,
            "as loaded</h2>\n<p class=\"summary\">Before any pass: %d nodes, each a kernel by itself "
            "unless the file says otherwise: %d kernels.</p>\n",
            s->n_nodes, s->n_kernels);
        put_kernel_lists(p, stage);
        qgc_str_add(p->out, "</div>\n");
        return;
    }
    view_put(p, s->run->name);
    qgc_str_add(p->out, "</h2>\n<p class=\"summary\">");
    view_put(p, s->pass->summary);
    const int saved = p->v->stages[view_before(p->v, stage)].n_kernels - s->n_kernels;
    qgc_str_printf(p->out,
                   "</p>\n<p class=\"counts\"><span><b>%d</b> fired</span> <span><b>%d</b> nodes</span> "
                   "<span><b>%d</b> kernels</span>",
                   s->run->n_fired, s->n_nodes, s->n_kernels);
    if (saved)
        qgc_str_printf(p->out, " <span class=\"%s\"><b>%s%d</b></span>", saved > 0 ? "less" : "more",
                       saved > 0 ? "\xE2\x88\x92" : "+", abs(saved));
    qgc_str_add(p->out, "</p>\n");
    if (count_changes(p->v, s->key))
        qgc_str_printf(
            p->out,
            "<p class=\"changes\"><button type=\"button\" data-change=\"-1\">\xE2\x86\x90</button> "
            "%d changes of what is drawn, one by one</p>\n",
            count_changes(p->v, s->key));
    put_events(p, s->run);
    put_kernel_lists(p, stage);
    qgc_str_add(p->out, "</div>\n");
}

/* --- tables ----------------------------------------------------------------------------------------------- */

static void put_passes(view_page *p) {
    const qgc_view *v = p->v;
    const int most = view_most_kernels(v);
    qgc_str_add(p->out,
                "<section class=\"table\"><h2>Passes</h2>\n<table class=\"passes\"><thead><tr><th>pass</th>"
                "<th>fired</th><th>nodes</th><th>kernels</th><th></th><th>saved</th>"
                "<th>what it is for</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < v->n_stages; i++) {
        const view_stage *s = &v->stages[i];
        if (s->change)
            continue;
        qgc_str_printf(p->out, "<tr data-stage=\"");
        view_put(p, s->key);
        qgc_str_add(p->out, "\"><td><a href=\"#after=");
        view_put(p, s->key);
        qgc_str_add(p->out, "\"><code>");
        view_put(p, s->run ? s->run->name : s->key);
        qgc_str_printf(p->out, "</code></a></td><td>%s</td><td>%d</td><td>%d</td>",
                       s->run ? qgc_arena_printf(p->a, "%d", s->run->n_fired) : "", s->n_nodes, s->n_kernels);
        qgc_str_printf(
            p->out, "<td class=\"meter\"><i style=\"width:%.1f%%\"></i></td><td>%s</td><td>",
            100.0 * s->n_kernels / most,
            s->run ? qgc_arena_printf(p->a, "%d", v->stages[view_before(v, i)].n_kernels - s->n_kernels)
                   : "");
        view_put(p, s->pass ? s->pass->summary : "the graph as it was loaded");
        qgc_str_add(p->out, "</td></tr>\n");
    }
    qgc_str_add(p->out, "</tbody></table></section>\n");
}

static int by_time(const void *a, const void *b) {
    const view_kernel *x = a, *y = b;
    if (x->us != y->us)
        return x->us < y->us ? 1 : -1;
    return strcmp(x->name, y->name);
}

/* What a bar shows at its full width: the longest time or floor; without times the most bytes. */
static double widest(const qgc_view *v) {
    double most = 1e-9;
    for (size_t i = 0; i < v->n_kernels; i++) {
        const view_kernel *k = &v->kernels[i];
        const double one = !v->timed ? (double)k->bytes : k->us > k->floor_us ? k->us : k->floor_us;
        most = one > most ? one : most;
    }
    return most;
}

static void put_kernel(view_page *p, const view_kernel *k, double most) {
    const bool timed = p->v->timed;
    qgc_str_add(p->out, "<tr><td><code>");
    view_put(p, k->name);
    qgc_str_add(p->out, "</code></td><td><code>");
    view_put(p, k->kernel);
    qgc_str_printf(p->out, "</code></td><td>%d</td>", k->count);
    if (timed)
        qgc_str_printf(p->out, "<td>%s</td><td>%s</td>", view_us(k->us / k->count, p->a),
                       view_us(k->us, p->a));
    qgc_str_printf(p->out, "<td class=\"meter\"><i style=\"width:%.1f%%\"></i>",
                   100 * (timed ? k->us : (double)k->bytes) / most);
    if (timed)
        qgc_str_printf(p->out, "<u style=\"width:%.1f%%\"></u>", 100 * k->floor_us / most);
    qgc_str_printf(p->out, "</td><td>%.3f</td><td>%s</td></tr>\n", 1e-6 * (double)k->bytes,
                   view_us(k->floor_us, p->a));
}

static void put_heading(view_page *p) {
    const qgc_view *v = p->v;
    qgc_str_add(p->out, "<section class=\"table\"><h2>Kernels of a decode step</h2>\n<p class=\"summary\">");
    if (v->timed) {
        view_put(p, v->device);
        qgc_str_printf(p->out,
                       ", at position %lld, each timed by itself; the floor is what memory allows. From ",
                       (long long)v->position);
        view_put(p, v->bench_path);
        qgc_str_add(p->out, ".");
    } else
        qgc_str_printf(p->out,
                       "Bytes of weights and caches that they read at position %lld, and the least time that "
                       "this takes on a %s. qgc bench measures the time.",
                       (long long)v->position, v->device);
    qgc_str_printf(p->out,
                   "</p>\n<table class=\"kernels\"><thead><tr><th>node or group</th><th>kernel</th>"
                   "<th>launches</th>%s<th></th><th>MB</th><th>floor</th></tr></thead>\n<tbody>\n",
                   v->timed ? "<th>each</th><th>all</th>" : "");
}

/* What each kernel takes, or without times what it reads, and what memory allows. */
static void put_kernels(view_page *p) {
    const qgc_view *v = p->v;
    if (!v->timed && !v->counted)
        return;
    view_kernel *sorted = qgc_arena_array(p->a, v->n_kernels, sizeof *sorted), all = {.us = 0};
    for (size_t i = 0; i < v->n_kernels; i++) {
        sorted[i] = v->kernels[i];
        all.us += sorted[i].us;
        all.floor_us += sorted[i].floor_us;
        all.bytes += sorted[i].bytes;
        all.count += sorted[i].count;
    }
    if (v->timed)
        qsort(sorted, v->n_kernels, sizeof *sorted, by_time);
    put_heading(p);
    for (size_t i = 0; i < v->n_kernels; i++)
        put_kernel(p, &sorted[i], widest(v));
    qgc_str_printf(p->out, "</tbody><tfoot><tr><td>all</td><td></td><td>%d</td>", all.count);
    if (v->timed)
        qgc_str_printf(p->out, "<td></td><td>%s</td>", view_us(all.us, p->a));
    qgc_str_printf(p->out, "<td></td><td>%.3f</td><td>%s</td></tr></tfoot></table></section>\n",
                   1e-6 * (double)all.bytes, view_us(all.floor_us, p->a));
}

void view_tables(view_page *p) {
    put_kernels(p);
    put_passes(p);
}
