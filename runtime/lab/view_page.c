#include <stdlib.h>
#include <string.h>

#include "runtime/lab/view_files.h"
#include "runtime/lab/view_parts.h"

/* The page: a strip of stages, a section for each with its drawings and what the rules did, tables of passes and of
 * kernels, templates of what a click shows. Without a script all sections are there, one below the other. */

typedef struct {
    const qgc_view *v;
    const view_drawings *d;
    qgc_str *out;
    qgc_arena *a;
    view_details details;
} page;

static void put(page *p, const char *text) {
    view_escape(p->out, text);
}

static void put_tagged(page *p, const char *tag, const char *text) {
    qgc_str_printf(p->out, "<%s>", tag);
    put(p, text);
    qgc_str_printf(p->out, "</%s>", tag);
}

static int most_kernels(const qgc_view *v) {
    int most = 1;
    for (size_t i = 0; i < v->n_stages; i++)
        most = v->stages[i].n_kernels > most ? v->stages[i].n_kernels : most;
    return most;
}

/* --- head ------------------------------------------------------------------------------------------------- */

static void put_head(page *p) {
    const qgc_view *v = p->v;
    const view_stage *first = &v->stages[0], *last = &v->stages[v->n_stages - 1];
    qgc_str_add(p->out, "<header>\n");
    put_tagged(p, "h1", v->g->name);
    qgc_str_printf(
        p->out,
        "\n<p class=\"facts\"><b>%d</b> nodes in <b>%d</b> kernels, and behind <b>%zu</b> passes in <b>%d</b>",
        first->n_nodes, first->n_kernels, v->n_stages - 1, last->n_kernels);
    qgc_str_add(p->out, " <span class=\"place\">");
    put(p, v->path);
    qgc_str_add(p->out, "</span></p>\n</header>\n");
}

static void put_strip(page *p) {
    const qgc_view *v = p->v;
    const int most = most_kernels(v);
    qgc_str_add(p->out, "<nav class=\"strip\" aria-label=\"stages\">\n");
    for (size_t i = 0; i < v->n_stages; i++) {
        const view_stage *s = &v->stages[i];
        qgc_str_add(p->out, "<a href=\"#after=");
        put(p, s->key);
        qgc_str_add(p->out, "\" data-stage=\"");
        put(p, s->key);
        qgc_str_printf(p->out, "\"%s><span class=\"column\"><i style=\"height:%.1f%%\"></i></span><b>",
                       s->run && s->run->n_fired == 0 ? " class=\"idle\"" : "", 100.0 * s->n_kernels / most);
        put(p, s->key);
        qgc_str_printf(p->out, "</b><span>%d</span></a>\n", s->n_kernels);
    }
    qgc_str_add(p->out, "</nav>\n");
}

static void put_switch(page *p) {
    qgc_str_add(p->out, "<div class=\"switch\" role=\"group\" aria-label=\"what is drawn\">\n");
    for (size_t i = 0; i < p->v->n_parts; i++) {
        qgc_str_printf(p->out, "<button type=\"button\" data-part=\"");
        put(p, p->v->parts[i].key);
        qgc_str_add(p->out, "\">");
        put(p, p->v->parts[i].title);
        qgc_str_add(p->out, "</button>\n");
    }
    qgc_str_add(p->out, "<span class=\"keys\"><kbd>&#8592;</kbd><kbd>&#8594;</kbd> passes "
                        "<kbd>Tab</kbd><kbd>Enter</kbd> nodes <kbd>Esc</kbd> back</span>\n</div>\n");
}

/* --- stages ----------------------------------------------------------------------------------------------- */

static void put_event(page *p, const qgc_pass_event *e) {
    const char *line = view_source_line(e->at, p->a);
    qgc_str_printf(p->out, "<li class=\"%s\"><div><span class=\"mark\">%s</span> ",
                   e->fired ? "fired" : "declined", e->fired ? "fired" : "declined");
    qgc_str_add(p->out, "<a href=\"#\" data-node=\"");
    put(p, e->node);
    qgc_str_add(p->out, "\"><code>");
    put(p, e->node);
    qgc_str_add(p->out, "</code></a> <span class=\"rule\">");
    put(p, e->rule);
    qgc_str_add(p->out, "</span></div>");
    if (*e->text) {
        qgc_str_add(p->out, "<div class=\"text\">");
        put(p, e->text);
        qgc_str_add(p->out, "</div>");
    }
    qgc_str_add(p->out, "<div class=\"source\">");
    view_place(p->out, e->at);
    if (line) {
        qgc_str_add(p->out, "<pre>");
        put(p, line);
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

static void put_events(page *p, const qgc_pass_run *run) {
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
        qgc_str_add(p->out, "<p class=\"none\">No rule of this pass matched anything.</p>\n");
    else if (n < run->n_events)
        qgc_str_printf(p->out, "<p class=\"none\">%zu more in other layers.</p>\n", run->n_events - n);
}

static void put_notes(page *p, size_t stage) {
    const view_stage *s = &p->v->stages[stage];
    qgc_str_add(p->out, "<div class=\"notes\">\n<h2>");
    if (!s->run) {
        qgc_str_printf(
            p->out,
            "as loaded</h2>\n<p class=\"summary\">Before any pass: %d nodes, each a kernel by itself "
            "unless the file says otherwise: %d kernels.</p>\n</div>\n",
            s->n_nodes, s->n_kernels);
        return;
    }
    put(p, s->run->name);
    qgc_str_add(p->out, "</h2>\n<p class=\"summary\">");
    put(p, s->pass->summary);
    const int saved = p->v->stages[stage - 1].n_kernels - s->n_kernels;
    qgc_str_printf(p->out,
                   "</p>\n<p class=\"counts\"><span><b>%d</b> fired</span> <span><b>%d</b> nodes</span> "
                   "<span><b>%d</b> kernels</span>",
                   s->run->n_fired, s->n_nodes, s->n_kernels);
    if (saved)
        qgc_str_printf(p->out, " <span class=\"%s\"><b>%s%d</b></span>", saved > 0 ? "less" : "more",
                       saved > 0 ? "\xE2\x88\x92" : "+", abs(saved));
    qgc_str_add(p->out, "</p>\n");
    put_events(p, s->run);
    qgc_str_add(p->out, "</div>\n");
}

static void put_figure(page *p, size_t stage, size_t part) {
    const view_part *of = &p->v->parts[part];
    const view_scene *s = &p->v->stages[stage].scenes[part];
    const char **ids = qgc_arena_array(p->a, s->n_boxes + s->n_groups, sizeof *ids);
    for (size_t i = 0; i < s->n_boxes; i++)
        ids[i] = view_detail(p->v, stage, part, &s->boxes[i], -1, &p->details);
    for (size_t i = 0; i < s->n_groups; i++)
        ids[s->n_boxes + i] = view_detail(p->v, stage, part, NULL, (int)i, &p->details);
    qgc_str_add(p->out, "<figure data-part=\"");
    put(p, of->key);
    qgc_str_add(p->out, "\"><figcaption>");
    put(p, of->title);
    qgc_str_add(p->out, "</figcaption>\n");
    view_draw(p->v, p->d, stage, part, ids, p->out);
    qgc_str_add(p->out, "</figure>\n");
}

static void put_stage(page *p, size_t stage) {
    const char *key = p->v->stages[stage].key;
    qgc_str_add(p->out, "<section class=\"stage\" id=\"after=");
    put(p, key);
    qgc_str_add(p->out, "\" data-stage=\"");
    put(p, key);
    qgc_str_add(p->out, "\">\n<div class=\"drawings\">\n");
    for (size_t i = 0; i < p->v->n_parts; i++)
        put_figure(p, stage, i);
    qgc_str_add(p->out, "</div>\n");
    put_notes(p, stage);
    qgc_str_add(p->out, "</section>\n");
}

/* --- tables ----------------------------------------------------------------------------------------------- */

static void put_passes(page *p) {
    const qgc_view *v = p->v;
    const int most = most_kernels(v);
    qgc_str_add(p->out,
                "<section class=\"table\"><h2>Passes</h2>\n<table class=\"passes\"><thead><tr><th>pass</th>"
                "<th>fired</th><th>nodes</th><th>kernels</th><th></th><th>saved</th><th>takes</th>"
                "<th>what it is for</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < v->n_stages; i++) {
        const view_stage *s = &v->stages[i];
        qgc_str_printf(p->out, "<tr data-stage=\"");
        put(p, s->key);
        qgc_str_add(p->out, "\"><td><a href=\"#after=");
        put(p, s->key);
        qgc_str_add(p->out, "\"><code>");
        put(p, s->run ? s->run->name : s->key);
        qgc_str_printf(p->out, "</code></a></td><td>%s</td><td>%d</td><td>%d</td>",
                       s->run ? qgc_arena_printf(p->a, "%d", s->run->n_fired) : "", s->n_nodes, s->n_kernels);
        qgc_str_printf(p->out,
                       "<td class=\"meter\"><i style=\"width:%.1f%%\"></i></td><td>%s</td><td>%s</td><td>",
                       100.0 * s->n_kernels / most,
                       s->run ? qgc_arena_printf(p->a, "%d", v->stages[i - 1].n_kernels - s->n_kernels) : "",
                       s->run ? view_us(s->run->us, p->a) : "");
        put(p, s->pass ? s->pass->summary : "the graph as it was loaded");
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

static void put_kernel(page *p, const view_kernel *k, double most) {
    qgc_str_add(p->out, "<tr><td><code>");
    put(p, k->name);
    qgc_str_add(p->out, "</code></td><td><code>");
    put(p, k->kernel);
    qgc_str_printf(
        p->out,
        "</code></td><td>%d</td><td>%s</td><td>%s</td><td class=\"meter\"><i style=\"width:%.1f%%\"></i>"
        "<u style=\"width:%.1f%%\"></u></td><td>%.1f</td><td>%s</td></tr>\n",
        k->count, view_us(k->us / k->count, p->a), view_us(k->us, p->a), 100 * k->us / most,
        100 * k->floor_us / most, 1e-6 * (double)k->bytes, view_us(k->floor_us, p->a));
}

static void put_kernels(page *p) {
    const qgc_view *v = p->v;
    if (!v->timed)
        return;
    view_kernel *sorted = qgc_arena_array(p->a, v->n_kernels, sizeof *sorted), all = {.us = 0};
    double most = 1e-9;
    for (size_t i = 0; i < v->n_kernels; i++) {
        sorted[i] = v->kernels[i];
        all.us += sorted[i].us;
        all.floor_us += sorted[i].floor_us;
        all.bytes += sorted[i].bytes;
        all.count += sorted[i].count;
        most = sorted[i].us > most ? sorted[i].us : most;
        most = sorted[i].floor_us > most ? sorted[i].floor_us : most;
    }
    qsort(sorted, v->n_kernels, sizeof *sorted, by_time);
    qgc_str_add(p->out, "<section class=\"table\"><h2>Kernels of a decode step</h2>\n<p class=\"summary\">");
    put(p, v->device);
    qgc_str_printf(p->out, ", at position %lld, each timed by itself; the floor is what memory allows. From ",
                   (long long)v->position);
    put(p, v->bench_path);
    qgc_str_add(
        p->out,
        ".</p>\n<table class=\"kernels\"><thead><tr><th>node or group</th><th>kernel</th><th>launches</th>"
        "<th>each</th><th>all</th><th></th><th>MB</th><th>floor</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < v->n_kernels; i++)
        put_kernel(p, &sorted[i], most);
    qgc_str_printf(
        p->out,
        "</tbody><tfoot><tr><td>all</td><td></td><td>%d</td><td></td><td>%s</td><td></td><td>%.1f</td>"
        "<td>%s</td></tr></tfoot></table></section>\n",
        all.count, view_us(all.us, p->a), 1e-6 * (double)all.bytes, view_us(all.floor_us, p->a));
}

/* --- the page --------------------------------------------------------------------------------------------- */

/* Arrows point where lines end; all drawings use this one. */
static const char arrow[] =
    "<svg width=\"0\" height=\"0\" class=\"shared\" aria-hidden=\"true\"><defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" "
    "refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\" markerUnits=\"userSpaceOnUse\">"
    "<path d=\"M0 0.8L8 4L0 7.2z\"/></marker></defs></svg>\n";

void qgc_view_html(const qgc_view *v, qgc_str *out) {
    const view_drawings d = view_lay_out(v, out->arena);
    page p = {.v = v,
              .d = &d,
              .out = out,
              .a = out->arena,
              .details = {qgc_str_new(out->arena), qgc_map_new(out->arena)}};
    qgc_str_add(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                     "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                     "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>");
    view_escape(out, v->g->name);
    qgc_str_printf(out, " through its passes</title>\n<style>\n%s</style>\n</head>\n<body>\n%s", qgc_view_css,
                   arrow);
    put_head(&p);
    put_strip(&p);
    put_switch(&p);
    qgc_str_add(out, "<main>\n");
    for (size_t i = 0; i < v->n_stages; i++)
        put_stage(&p, i);
    qgc_str_add(out, "</main>\n");
    put_kernels(&p);
    put_passes(&p);
    qgc_str_add_bytes(out, p.details.text.text, p.details.text.bytes);
    qgc_str_printf(out, "<script>\n%s</script>\n</body>\n</html>\n", qgc_view_js);
}
