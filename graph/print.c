#include "graph/print.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/print_impl.h"

/* Scalars. */

/* Plain where it is surely safe, else in double quotes. */
void qgc_print_text(qgc_str *out, const char *text) {
    bool plain = isalnum((unsigned char)text[0]) && strcmp(text, "null") != 0;
    for (const char *c = text; *c; c++)
        plain = plain && (isalnum((unsigned char)*c) || strchr("_./-", *c));
    if (plain) {
        qgc_str_add(out, text);
        return;
    }
    qgc_str_add(out, "\"");
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\')
            qgc_str_add(out, "\\");
        qgc_str_add_bytes(out, c, 1);
    }
    qgc_str_add(out, "\"");
}

static void add_file_keys(qgc_str *out, const char *name, const char **keys, int n, const char **separator) {
    if (n == 0)
        return;
    qgc_str_printf(out, "%s%s: %s", *separator, name, n > 1 ? "[" : "");
    for (int i = 0; i < n; i++) {
        qgc_str_add(out, i ? ", " : "");
        qgc_print_text(out, keys[i]);
    }
    qgc_str_add(out, n > 1 ? "]" : "");
    *separator = ", ";
}

/* Declarations. */

/* Are there iterations without one before the last that has one? */
static bool has_gaps(qgc_value *const *values, int count) {
    return values[count - 1]->layer > count - 1;
}

/* A number, or a list of them where iterations differ. */
static void add_numbers(qgc_str *out, const char *key, const double *numbers, int count) {
    bool uniform = true;
    for (int i = 1; i < count; i++)
        uniform = uniform && numbers[i] == numbers[0];
    qgc_str_printf(out, "%s: %s", key, uniform ? "" : "[");
    for (int i = 0; i < (uniform ? 1 : count); i++) {
        qgc_str_add(out, i ? ", " : "");
        qgc_str_add_number(out, numbers[i]);
    }
    qgc_str_add(out, uniform ? "" : "]");
}

/* In format 2 the number is fixed, and what files mean that do not state it stands beside it. */
static void add_values(printer *p, const qgc_param *param, const char *separator) {
    if (isnan(param->value))
        return;
    qgc_str_add(p->out, separator);
    add_numbers(p->out, p->format > 1 ? "fixed" : "value", param->values ? param->values : &param->value,
                param->values ? param->count : 1);
    if (!param->otherwise)
        return;
    qgc_str_add(p->out, ", ");
    add_numbers(p->out, "value", param->otherwise, param->count);
}

static void print_param(printer *p, const qgc_param *param) {
    const char *separator = "";
    qgc_str_printf(p->out, "  %s: {", param->name);
    if (param->index) {
        qgc_str_printf(p->out, "per: %s", param->index);
        separator = ", ";
    }
    add_file_keys(p->out, "gguf", param->gguf, param->n_gguf, &separator);
    add_file_keys(p->out, "hf", param->hf, param->n_hf, &separator);
    add_file_keys(p->out, "words", param->words, param->n_words, &separator);
    add_values(p, param, separator);
    qgc_str_add(p->out, "}\n");
}

/* What the graph was made with; a parameter that nothing needed says nothing about it. */
static void print_params(printer *p) {
    const qgc_graph *g = p->g;
    const char *head = "params:\n";
    for (size_t i = 0; i < g->n_params; i++) {
        if (!qgc_param_counts(&g->params[i]))
            continue;
        qgc_str_add(p->out, head);
        head = "";
        print_param(p, &g->params[i]);
    }
}

/* The rows of its ring; 0: it is none. */
static int64_t ring_of(const qgc_value *v) {
    int64_t rows = 0;
    for (int i = 0; i < v->shape.rank; i++)
        rows = rows ? rows : qgc_dim_ring(v->shape.dim[i]);
    return rows;
}

static bool has_ring(const qgc_state_decl *s) {
    bool has = false;
    for (int i = 0; i < s->count; i++)
        has = has || ring_of(s->values[i]) > 0;
    return has;
}

/* The format that can say all of it. */
static int format_of(const printer *p) {
    const qgc_graph *g = p->g;
    bool newer = g->hf_arch || g->gguf_arch || g->n_ignored || qgc_print_has_kernels(p);
    for (size_t i = 0; i < g->n_params; i++) {
        const qgc_param *param = &g->params[i];
        newer = newer || (qgc_param_counts(param) && (param->n_words || param->index || param->otherwise));
    }
    for (size_t i = 0; i < g->n_weights; i++) {
        const qgc_weight_decl *w = &g->weights[i];
        const bool plain = qgc_form_is_plain(&w->gguf_form) && qgc_form_is_plain(&w->hf_form);
        newer = newer || (p->weight_printed[i] &&
                          (has_gaps(w->values, w->count) || !plain || w->derived.kind != QGC_DERIVE_NONE));
    }
    for (size_t i = 0; i < g->n_states; i++)
        newer = newer || (p->state_printed[i] &&
                          (has_gaps(g->states[i].values, g->states[i].count) || has_ring(&g->states[i])));
    return newer ? 2 : 1;
}

/* How many iterations each repeat has as it is printed, which is what `per` means without a count. */
static void count_turns(printer *p) {
    p->turns = qgc_arena_array(p->scratch, p->g->n_repeats, sizeof *p->turns);
    for (int i = 0; i < p->n_sections; i++) {
        const print_section *section = &p->sections[i];
        if (section->repeat >= 0 && p->turns[section->repeat] <= section->layer)
            p->turns[section->repeat] = section->layer + 1;
    }
}

static void add_dtypes(printer *p, qgc_value *const *values, int count) {
    bool uniform = true;
    for (int i = 1; i < count; i++)
        uniform = uniform && values[i]->dtype == values[0]->dtype;
    if (uniform) {
        qgc_str_printf(p->out, ", dtype: %s", qgc_dtypes[values[0]->dtype].name);
        return;
    }
    for (int i = 0; i < count; i++)
        qgc_str_printf(p->out, "%s%s", i ? ", " : ", dtype: [", qgc_dtypes[values[i]->dtype].name);
    qgc_str_add(p->out, "]");
}

/* The shape, where a ring has "ctx". */
static void add_shape(printer *p, const qgc_value *v) {
    qgc_shape shape = v->shape;
    for (int i = 0; i < shape.rank; i++)
        if (qgc_dim_ring(shape.dim[i]))
            shape.dim[i] = QGC_DIM_CTX;
    qgc_str_printf(p->out, "shape: %s", qgc_shape_text(&shape, p->scratch));
}

/* The rows of rings: one number, or one for each iteration. */
static void add_rings(printer *p, const qgc_state_decl *s) {
    bool uniform = true;
    for (int i = 1; i < s->count; i++)
        uniform = uniform && ring_of(s->values[i]) == ring_of(s->values[0]);
    for (int i = 0; has_ring(s) && i < (uniform ? 1 : s->count); i++)
        qgc_str_printf(p->out, "%s%lld",
                       i         ? ", "
                       : uniform ? ", ring: "
                                 : ", ring: [",
                       (long long)ring_of(s->values[i]));
    qgc_str_add(p->out, uniform ? "" : "]");
}

/* How many iterations have one where not all have, and which. */
static void add_turns(printer *p, int turns, qgc_value *const *values, int count) {
    const bool gaps = has_gaps(values, count);
    const int last = values[count - 1]->layer, all = gaps && last < turns ? turns : last + 1;
    if (all != turns)
        qgc_str_printf(p->out, "count: %d, ", all);
    for (int i = 0; gaps && i < count; i++)
        qgc_str_printf(p->out, "%s%d", i ? ", " : "turns: [", values[i]->layer);
    qgc_str_add(p->out, gaps ? "], " : "");
}

static void print_tensors(printer *p, const char *name, const char *index, int repeat,
                          qgc_value *const *values, int count) {
    qgc_str_printf(p->out, "  %s: {", name);
    if (index)
        qgc_str_printf(p->out, "per: %s, ", index);
    if (index)
        add_turns(p, p->turns[repeat], values, count);
    add_shape(p, values[0]);
    add_dtypes(p, values, count);
}

static void add_form(qgc_str *out, const qgc_tensor_form *f) {
    if (f->last)
        qgc_str_printf(out, ", rows: [%lld, %lld]", (long long)f->first, (long long)f->last);
    if (f->of)
        qgc_str_printf(out, ", of: %lld", (long long)f->of);
    if (f->transposed)
        qgc_str_add(out, ", transposed: 1");
    if (f->heads)
        qgc_str_printf(out, ", unpermute: %lld", (long long)f->heads);
    if (f->stacked_index)
        qgc_str_printf(out, ", each: {%s: %lld}", f->stacked_index, (long long)f->stacked);
    if (f->plus != 0) {
        qgc_str_add(out, ", plus: ");
        qgc_str_add_number(out, f->plus);
    }
}

/* The name of a tensor, or that and how a weight is made of it. */
static void add_stored(qgc_str *out, const char *key, const char *name, const qgc_tensor_form *form) {
    if (!name)
        return;
    const bool plain = qgc_form_is_plain(form);
    qgc_str_printf(out, plain ? ", %s: " : ", %s: {name: ", key);
    qgc_print_text(out, name);
    add_form(out, form);
    qgc_str_add(out, plain ? "" : "}");
}

/* ", derived: {op: rows, of: [w], first: 0, last: 8}" */
static void add_derived(printer *p, const qgc_derivation *how) {
    if (how->kind == QGC_DERIVE_NONE)
        return;
    qgc_str_printf(p->out, ", derived: {op: %s, of: [", qgc_derive_name(how->kind));
    for (int i = 0; i < how->n_from; i++)
        qgc_str_printf(p->out, "%s%s", i ? ", " : "", p->weight_names[how->from[i]]);
    qgc_str_add(p->out, "]");
    if (qgc_derive_has_range(how->kind))
        qgc_str_printf(p->out, ", first: %lld, last: %lld", (long long)how->first, (long long)how->last);
    if (qgc_derive_has_factor(how->kind)) {
        qgc_str_add(p->out, ", factor: ");
        qgc_str_add_number(p->out, how->factor);
    }
    if (how->head_dim)
        qgc_str_printf(p->out, ", head_dim: %lld", (long long)how->head_dim);
    qgc_str_add(p->out, "}");
}

static void print_weights(printer *p) {
    const qgc_graph *g = p->g;
    const char *head = "weights:\n";
    for (size_t i = 0; i < g->n_weights; i++) {
        const qgc_weight_decl *w = &g->weights[i];
        if (!p->weight_printed[i])
            continue;
        qgc_str_add(p->out, head);
        head = "";
        print_tensors(p, p->weight_names[i], w->index, w->repeat, w->values, w->count);
        add_derived(p, &w->derived);
        add_stored(p->out, "gguf", w->gguf, &w->gguf_form);
        add_stored(p->out, "hf", w->hf, &w->hf_form);
        if (w->tied >= 0)
            qgc_str_printf(p->out, ", tied: %s", p->weight_names[w->tied]);
        qgc_str_add(p->out, "}\n");
    }
}

static void print_states(printer *p) {
    const qgc_graph *g = p->g;
    const char *head = "state:\n";
    for (size_t i = 0; i < g->n_states; i++) {
        const qgc_state_decl *s = &g->states[i];
        if (!p->state_printed[i])
            continue;
        qgc_str_add(p->out, head);
        head = "";
        print_tensors(p, p->state_names[i], s->index, s->repeat, s->values, s->count);
        add_rings(p, s);
        qgc_str_add(p->out, "}\n");
    }
}

static void print_inputs(printer *p) {
    const qgc_graph *g = p->g;
    qgc_str_add(p->out, "inputs: {");
    for (size_t i = 0; i < g->n_inputs; i++)
        qgc_str_printf(p->out, "%s%s: %s", i ? ", " : "", g->inputs[i]->name,
                       qgc_shape_text(&g->inputs[i]->shape, p->scratch));
    qgc_str_add(p->out, "}\n");
}

/* What any value of a declaration being read says of the whole, and what those read are tied to. */
static void find_printed(printer *p) {
    const qgc_graph *g = p->g;
    p->weight_printed = qgc_arena_array(p->scratch, g->n_weights, sizeof *p->weight_printed);
    p->state_printed = qgc_arena_array(p->scratch, g->n_states, sizeof *p->state_printed);
    for (size_t i = 0; i < g->n_values; i++) {
        const qgc_value *v = g->values[i];
        if (p->used[i] && v->kind == QGC_WEIGHT)
            p->weight_printed[v->decl] = true;
        if (p->used[i] && v->kind == QGC_STATE)
            p->state_printed[v->decl] = true;
    }
    for (size_t i = g->n_weights; i-- > 0;) /* sources come before what is made of them */
        for (int k = 0; p->weight_printed[i] && k < g->weights[i].derived.n_from; k++)
            p->weight_printed[g->weights[i].derived.from[k]] = true;
    for (size_t i = 0; i < g->n_weights; i++)
        if (p->weight_printed[i] && g->weights[i].tied >= 0)
            p->weight_printed[g->weights[i].tied] = true;
}

/* Nodes. */

/* Node k of the first section of a run; of a run of several the second section tells what is carried. */
static const char *input_name(printer *p, const print_run *run, int k, int i) {
    const qgc_value *v = p->sections[run->first].nodes[k]->in[i];
    if (run->n_sections > 1) {
        const print_section *second = &p->sections[run->first + 1];
        print_origin from = qgc_print_origin(p, run->first + 1, second->nodes[k]->in[i]);
        if (from.kind == FROM_PREVIOUS)
            return qgc_print_name(p, second->nodes[from.node]->out[from.out]);
        if (from.kind == FROM_SECTION)
            return qgc_print_name(p, v);
    }
    return qgc_print_reference(p, v, run);
}

static void print_node(printer *p, const print_run *run, int k) {
    const qgc_node *n = p->sections[run->first].nodes[k];
    const qgc_op_info *op = &qgc_ops[n->op];
    qgc_str_printf(p->out, "- {op: %s, in: [", op->name);
    for (int i = 0; i < n->n_in; i++)
        qgc_str_printf(p->out, "%s%s", i ? ", " : "",
                       n->repeat < 0 ? qgc_print_reference(p, n->in[i], NULL) : input_name(p, run, k, i));
    qgc_str_add(p->out, "]");
    for (int i = 0; op->attrs[i].name; i++) {
        if (!qgc_attr_is_written(n, i))
            continue;
        qgc_str_printf(p->out, ", %s: ", op->attrs[i].name);
        if (op->attrs[i].choices[0])
            qgc_print_text(p->out, op->attrs[i].choices[n->attr[i].choice]);
        else
            qgc_str_add_number(p->out, n->attr[i].number);
    }
    qgc_str_printf(p->out, ", out: %s", n->n_out > 1 ? "[" : "");
    for (int i = 0; i < n->n_out; i++)
        qgc_str_printf(p->out, "%s%s", i ? ", " : "", qgc_print_name(p, n->out[i]));
    qgc_str_add(p->out, n->n_out > 1 ? "]" : "");
    const char *fuse = qgc_print_fuse(p, n);
    if (fuse) {
        qgc_str_add(p->out, ", fuse: ");
        qgc_print_text(p->out, fuse);
    }
    qgc_str_add(p->out, "}\n");
}

/* What the name of an output of the body means in the first iteration, before the body makes it; NULL if it is
 * not carried. A name that means something before the repeat has to be carried, or it would be taken. */
static const qgc_value *start_of(const printer *p, const print_run *run, int node, int out,
                                 const char *name) {
    for (int i = 0; i < run->n_carries; i++)
        if (run->carries[i].node == node && run->carries[i].out == out)
            return run->carries[i].start;
    return qgc_print_now(p, name);
}

static void print_carries(printer *p, const print_run *run) {
    const print_section *section = &p->sections[run->first];
    qgc_str names = qgc_str_new(p->scratch), starts = qgc_str_new(p->scratch);
    int n = 0;
    bool renamed = false;
    for (int k = 0; k < section->n_nodes; k++)
        for (int i = 0; i < section->nodes[k]->n_out; i++) {
            const char *name = qgc_print_name(p, section->nodes[k]->out[i]);
            const qgc_value *start = start_of(p, run, k, i, name);
            if (!start)
                continue;
            const char *reference = qgc_print_reference(p, start, NULL);
            renamed = renamed || strcmp(reference, name) != 0;
            qgc_str_printf(&names, "%s%s", n ? ", " : "", name);
            qgc_str_printf(&starts, "%s%s: %s", n++ ? ", " : "", name, reference);
        }
    if (renamed)
        qgc_str_printf(p->out, ", carry: {%s}", starts.text);
    else if (n)
        qgc_str_printf(p->out, n > 1 ? ", carry: [%s]" : ", carry: %s", names.text);
}

static void start_carries(printer *p, const print_run *run) {
    for (int i = 0; i < run->n_carries; i++) {
        const print_carry *c = &run->carries[i];
        const qgc_value *v = p->sections[run->first].nodes[c->node]->out[c->out];
        qgc_print_set_now(p, qgc_print_name(p, v), c->start);
    }
}

/* After a repeat a carried name means what the last iteration made. */
static void end_carries(printer *p, const print_run *run) {
    const print_section *last = &p->sections[run->first + run->n_sections - 1];
    for (int k = 0; k < last->n_nodes; k++)
        for (int i = 0; i < last->nodes[k]->n_out; i++) {
            const char *name = qgc_print_name(p, last->nodes[k]->out[i]);
            if (qgc_print_now(p, name))
                qgc_print_set_now(p, name, last->nodes[k]->out[i]);
        }
}

static void print_repeat(printer *p, const print_run *run) {
    const print_section *section = &p->sections[run->first];
    qgc_str_printf(p->out, "  - repeat: {index: %s, ", p->g->repeats[section->repeat].index);
    if (section->layer)
        qgc_str_printf(p->out, "from: %d, ", section->layer);
    qgc_str_printf(p->out, "count: %d", run->n_sections);
    print_carries(p, run);
    qgc_str_add(p->out, "}\n    body:\n");
    start_carries(p, run);
    for (int k = 0; k < section->n_nodes; k++) {
        qgc_str_add(p->out, "      ");
        print_node(p, run, k);
        for (int turn = 0; turn < run->n_sections; turn++)
            for (int i = 0; i < section->nodes[k]->n_out; i++)
                qgc_print_made(p, p->sections[run->first + turn].nodes[k]->out[i]);
    }
    end_carries(p, run);
}

static void print_single_nodes(printer *p, const print_run *run) {
    const print_section *section = &p->sections[run->first];
    for (int k = 0; k < section->n_nodes; k++) {
        qgc_str_add(p->out, "  ");
        print_node(p, run, k);
        for (int i = 0; i < section->nodes[k]->n_out; i++)
            qgc_print_set_now(p, qgc_print_name(p, section->nodes[k]->out[i]), section->nodes[k]->out[i]);
    }
}

/* As a list: it may be longer than a scalar may be. */
static void print_passes(printer *p) {
    const char *text = p->g->passes;
    if (!text)
        return;
    qgc_str_add(p->out, "passes: [");
    for (bool first = true; *text; first = false) {
        size_t bytes = qgc_list_entry(text);
        qgc_str_add(p->out, first ? "" : ", ");
        qgc_print_text(p->out, qgc_arena_strndup(p->scratch, text, bytes));
        text += bytes + (text[bytes] == ',');
    }
    qgc_str_add(p->out, "]\n");
}

/* "llama,mistral" as a list. */
static void add_archs(qgc_str *out, const char *key, const char *list, qgc_arena *a) {
    const bool several = list[qgc_list_entry(list)] == ',';
    qgc_str_printf(out, "%s: %s", key, several ? "[" : "");
    for (const char *at = list; *at;) {
        const size_t bytes = qgc_list_entry(at);
        qgc_str_add(out, at == list ? "" : ", ");
        qgc_print_text(out, qgc_arena_strndup(a, at, bytes));
        at += bytes + (at[bytes] == ',');
    }
    qgc_str_add(out, several ? "]" : "");
}

static void print_arch(printer *p) {
    const qgc_graph *g = p->g;
    if (!g->hf_arch && !g->gguf_arch) {
        qgc_print_text(p->out, g->arch);
        return;
    }
    qgc_str_add(p->out, "{");
    if (g->gguf_arch)
        add_archs(p->out, "gguf", g->gguf_arch, p->scratch);
    qgc_str_add(p->out, g->gguf_arch && g->hf_arch ? ", " : "");
    if (g->hf_arch)
        add_archs(p->out, "hf", g->hf_arch, p->scratch);
    qgc_str_add(p->out, "}");
}

static void print_outputs(printer *p) {
    qgc_str_add(p->out, "outputs: [");
    for (size_t i = 0; i < p->g->n_outputs; i++)
        qgc_str_printf(p->out, "%s%s", i ? ", " : "", qgc_print_reference(p, p->g->outputs[i], NULL));
    qgc_str_add(p->out, "]\n");
}

void qgc_graph_print_yaml(const qgc_graph *g, qgc_str *out) {
    qgc_arena *scratch = qgc_arena_new();
    printer p = {.g = g,
                 .scratch = scratch,
                 .out = out,
                 .taken = qgc_map_new(scratch),
                 .now = qgc_map_new(scratch),
                 .made = qgc_map_new(scratch)};
    qgc_print_sections(&p);
    qgc_print_classes(&p);
    qgc_print_groups(&p);
    qgc_print_runs(&p);
    find_printed(&p);
    count_turns(&p);
    qgc_print_names(&p);

    p.format = format_of(&p);

    qgc_str_printf(out, "qgc: %d\nname: ", p.format);
    qgc_print_text(out, g->name);
    qgc_str_add(out, "\narch: ");
    print_arch(&p);
    qgc_str_add(out, "\n");
    print_passes(&p);
    qgc_str_add(out, g->shares_memory ? "memory: shared\n" : "");
    for (size_t i = 0; i < g->n_ignored; i++) {
        qgc_str_add(out, i ? ", " : "ignore: [");
        qgc_print_text(out, g->ignored[i]);
    }
    qgc_str_add(out, g->n_ignored ? "]\n" : "");
    qgc_print_kernels(&p);
    print_params(&p);
    print_weights(&p);
    print_states(&p);
    print_inputs(&p);
    qgc_str_add(out, "graph:\n");
    for (int i = 0; i < p.n_runs; i++)
        if (p.sections[p.runs[i].first].repeat < 0)
            print_single_nodes(&p, &p.runs[i]);
        else
            print_repeat(&p, &p.runs[i]);
    print_outputs(&p);
    qgc_arena_drop(scratch);
}
