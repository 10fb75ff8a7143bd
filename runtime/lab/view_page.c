#include "runtime/lab/view_files.h"
#include "runtime/lab/view_impl.h"

/* The page: a strip of stages, a section for each with its drawings and what the rules did, tables of passes and of
 * kernels, templates of what a click shows. Without a script all sections are there, one below the other. */

void view_put(view_page *p, const char *text) {
    qgc_xml_escape(p->out, text);
}

int view_most_kernels(const qgc_view *v) {
    int most = 1;
    for (size_t i = 0; i < v->n_stages; i++)
        most = v->stages[i].n_kernels > most ? v->stages[i].n_kernels : most;
    return most;
}

static void put_tagged(view_page *p, const char *tag, const char *text) {
    qgc_str_printf(p->out, "<%s>", tag);
    view_put(p, text);
    qgc_str_printf(p->out, "</%s>", tag);
}

/* --- head ------------------------------------------------------------------------------------------------- */

static size_t count_passes(const qgc_view *v) {
    size_t n = 0;
    for (size_t i = 1; i < v->n_stages; i++)
        n += v->stages[i].change == NULL;
    return n;
}

static void put_head(view_page *p) {
    const qgc_view *v = p->v;
    const view_stage *first = &v->stages[0], *last = &v->stages[v->n_stages - 1];
    qgc_str_add(p->out, "<header>\n");
    put_tagged(p, "h1", v->g->name);
    qgc_str_printf(
        p->out,
        "\n<p class=\"facts\"><b>%d</b> nodes in <b>%d</b> kernels, and after <b>%zu</b> passes in <b>%d</b>",
        first->n_nodes, first->n_kernels, count_passes(v), last->n_kernels);
    qgc_str_add(p->out, " <span class=\"place\">");
    view_put(p, v->path);
    qgc_str_add(p->out, "</span></p>\n");
    if (v->said) {
        qgc_str_add(p->out, "<pre class=\"said\">");
        view_put(p, v->said);
        qgc_str_add(p->out, "</pre>\n");
    }
    qgc_str_add(p->out, "</header>\n");
}

static void put_strip(view_page *p) {
    const qgc_view *v = p->v;
    const int most = view_most_kernels(v);
    qgc_str_add(p->out, "<nav class=\"strip\" aria-label=\"stages\">\n");
    for (size_t i = 0; i < v->n_stages; i++) {
        const view_stage *s = &v->stages[i];
        if (s->change)
            continue;
        qgc_str_add(p->out, "<a href=\"#after=");
        view_put(p, s->key);
        qgc_str_add(p->out, "\" data-stage=\"");
        view_put(p, s->key);
        qgc_str_printf(p->out, "\"%s><span class=\"column\"><i style=\"height:%.1f%%\"></i></span><b>",
                       s->run && s->run->n_fired == 0 ? " class=\"idle\"" : "", 100.0 * s->n_kernels / most);
        view_put(p, s->key);
        qgc_str_printf(p->out, "</b><span>%d</span></a>\n", s->n_kernels);
    }
    qgc_str_add(p->out, "</nav>\n");
}

static void put_switch(view_page *p) {
    qgc_str_add(p->out, "<div class=\"switch\" role=\"group\" aria-label=\"what is drawn\">\n");
    for (size_t i = 0; i < p->v->n_parts; i++) {
        qgc_str_printf(p->out, "<button type=\"button\" data-part=\"");
        view_put(p, p->v->parts[i].key);
        qgc_str_add(p->out, "\">");
        view_put(p, p->v->parts[i].title);
        qgc_str_add(p->out, "</button>\n");
    }
    qgc_str_add(
        p->out,
        "<span class=\"zoom\"><button type=\"button\" data-zoom=\"-\" aria-label=\"smaller\">\xE2\x88\x92</button>"
        "<button type=\"button\" data-zoom=\"+\" aria-label=\"larger\">+</button>"
        "<button type=\"button\" data-zoom=\"fit\">fit</button>"
        "<button type=\"button\" data-zoom=\"1\">1:1</button></span>\n"
        "<span class=\"legend\"><i class=\"fired\"></i>rule fired <i class=\"declined\"></i>declined "
        "<i class=\"changed\"></i>new or regrouped <i class=\"kernel\"></i>one kernel "
        "<i class=\"from\"></i>from outside</span>\n"
        "<span class=\"keys\"><kbd>&#8592;</kbd><kbd>&#8594;</kbd> passes "
        "<kbd>,</kbd><kbd>.</kbd> changes <kbd>f</kbd> fit <kbd>Esc</kbd> back</span>\n</div>\n");
}

/* --- stages ----------------------------------------------------------------------------------------------- */

static void put_figure(view_page *p, size_t stage, size_t part) {
    const view_part *of = &p->v->parts[part];
    const view_scene *s = &p->v->stages[stage].scenes[part];
    const char **ids = qgc_arena_array(p->a, s->n_boxes + s->n_groups, sizeof *ids);
    for (size_t i = 0; i < s->n_boxes; i++)
        ids[i] = view_detail(p->v, stage, part, &s->boxes[i], -1, &p->details);
    for (size_t i = 0; i < s->n_groups; i++)
        ids[s->n_boxes + i] = view_detail(p->v, stage, part, NULL, (int)i, &p->details);
    qgc_str_add(p->out, "<figure data-part=\"");
    view_put(p, of->key);
    qgc_str_add(p->out, "\"><figcaption>");
    view_put(p, of->title);
    qgc_str_add(p->out, "</figcaption>\n");
    view_draw(p->v, p->d, stage, part, ids, p->out);
    qgc_str_add(p->out, "</figure>\n");
}

static void put_stage(view_page *p, size_t stage) {
    const char *key = p->v->stages[stage].key;
    const view_change *change = p->v->stages[stage].change;
    qgc_str_add(p->out, change ? "<section class=\"stage change\" id=\"after="
                               : "<section class=\"stage\" id=\"after=");
    view_put(p, key);
    qgc_str_add(p->out, "\" data-stage=\"");
    view_put(p, key);
    if (change) {
        qgc_str_add(p->out, "\" data-of=\"");
        view_put(p, change->of);
    }
    qgc_str_add(p->out, "\">\n<div class=\"drawings\">\n");
    for (size_t i = 0; i < p->v->n_parts; i++)
        put_figure(p, stage, i);
    qgc_str_add(p->out, "</div>\n");
    view_notes(p, stage);
    qgc_str_add(p->out, "</section>\n");
}

/* --- the page --------------------------------------------------------------------------------------------- */

/* Arrows point where lines end; all drawings use this one. */
static const char arrow[] =
    "<svg width=\"0\" height=\"0\" class=\"shared\" aria-hidden=\"true\"><defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" "
    "refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\" markerUnits=\"userSpaceOnUse\">"
    "<path d=\"M0 0.8L8 4L0 7.2z\"/></marker></defs></svg>\n";

/* What the page shows where its address says nothing. */
static void put_first(view_page *p) {
    if (p->v->first_stage) {
        qgc_str_add(p->out, " data-first=\"");
        view_put(p, p->v->first_stage);
        qgc_str_add(p->out, "\"");
    }
    if (p->v->first_node) {
        qgc_str_add(p->out, " data-node=\"");
        view_put(p, p->v->first_node);
        qgc_str_add(p->out, "\"");
    }
}

void qgc_view_html(const qgc_view *v, qgc_str *out) {
    const view_drawings d = view_lay_out(v, out->arena);
    view_page p = {.v = v,
                   .d = &d,
                   .out = out,
                   .a = out->arena,
                   .details = {qgc_str_new(out->arena), qgc_map_new(out->arena), qgc_map_new(out->arena)}};
    qgc_str_add(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                     "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                     "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>");
    qgc_xml_escape(out, v->g->name);
    qgc_str_printf(out, " through its passes</title>\n<style>\n%s</style>\n</head>\n<body>\n%s", qgc_view_css,
                   arrow);
    put_head(&p);
    qgc_str_add(out, "<div class=\"controls\">\n");
    put_strip(&p);
    put_switch(&p);
    qgc_str_add(out, "</div>\n<main");
    put_first(&p);
    qgc_str_add(out, ">\n");
    for (size_t i = 0; i < v->n_stages; i++)
        put_stage(&p, i);
    qgc_str_add(out, "</main>\n");
    view_tables(&p);
    qgc_str_add_bytes(out, p.details.text.text, p.details.text.bytes);
    qgc_str_printf(out, "<script>\n%s</script>\n</body>\n</html>\n", qgc_view_js);
}

void qgc_view_pair(const qgc_str pages[2], const char *const titles[2], qgc_str *out) {
    qgc_str_add(
        out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
             "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>two pipelines</title>\n<style>\n"
             "body { margin: 0; display: grid; grid-template-columns: 1fr 1fr; height: 100vh; font: 13px "
             "system-ui, sans-serif; color-scheme: light dark; }\n"
             "div { display: flex; flex-direction: column; min-width: 0; border-right: 1px solid #8c959f; }\n"
             "p { margin: 6px 14px; overflow-wrap: anywhere; max-height: 5em; overflow-y: auto; }\n"
             "iframe { flex: 1; border: 0; width: 100%; }\n</style>\n</head>\n<body>\n");
    for (int i = 0; i < 2; i++) {
        qgc_str_add(out, "<div><p><code>");
        qgc_xml_escape(out, titles[i]);
        qgc_str_add(out, "</code></p><iframe title=\"");
        qgc_xml_escape(out, titles[i]);
        qgc_str_add(out, "\" srcdoc=\"");
        qgc_xml_escape(out, pages[i].text);
        qgc_str_add(out, "\"></iframe></div>\n");
    }
    qgc_str_add(
        out,
        "<script>\naddEventListener('message', event => document.querySelectorAll('iframe').forEach(frame =>\n"
        "  frame.contentWindow === event.source || frame.contentWindow.postMessage(event.data, '*')));\n"
        "</script>\n</body>\n</html>\n");
}
