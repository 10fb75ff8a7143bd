#include "graph/load.h"

#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/format.def"
#include "graph/load_impl.h"

static qgc_status read_word(qgc_loader *ld, const qgc_yaml *node, const char *key, const char **out) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, key));
    size_t letters = strspn(node->text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    if (letters == 0 || node->text[letters])
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                        "%s \"%s\" is not made of letters, digits, \".\", \"_\" and \"-\"", key, node->text);
    *out = node->text;
    return QGC_OK;
}

static qgc_status word(qgc_loader *ld, const char *key, const char **out) {
    const qgc_yaml *node;
    QGC_TRY(qgc_load_required(ld, ld->doc, "model file", key, &node));
    return read_word(ld, node, key, out);
}

/* A word, or a list of words, as a text with commas. */
static qgc_status read_archs(qgc_loader *ld, const qgc_yaml *node, const char **out) {
    if (!node || node->kind != QGC_YAML_LIST)
        return node ? read_word(ld, node, "arch", out) : QGC_OK;
    if (node->n == 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "arch is an empty list");
    qgc_str all = qgc_str_new(ld->arena);
    for (size_t i = 0; i < node->n; i++) {
        const char *one = NULL;
        QGC_TRY(read_word(ld, node->items[i], "arch", &one));
        qgc_str_printf(&all, "%s%s", i ? "," : "", one);
    }
    *out = all.text;
    return QGC_OK;
}

/* `arch: qwen2`, or what each format calls it: `arch: {hf: [llama, mistral], gguf: llama}`. The name of the weights at hand
 * is the graph's. */
static qgc_status load_arch(qgc_loader *ld) {
    static const char *const keys[] = {QGC_KEYS(ARCH)};
    qgc_graph *g = ld->g;
    const qgc_yaml *node;
    QGC_TRY(qgc_load_required(ld, ld->doc, "model file", "arch", &node));
    if (ld->format == 1 || node->kind != QGC_YAML_MAP)
        return read_word(ld, node, "arch", &g->arch);
    QGC_TRY(qgc_load_check_keys(ld, node, "arch", keys, 2));
    QGC_TRY(read_archs(ld, qgc_yaml_get(node, "hf"), &g->hf_arch));
    QGC_TRY(read_archs(ld, qgc_yaml_get(node, "gguf"), &g->gguf_arch));
    const char *first = g->hf_arch ? g->hf_arch : g->gguf_arch;
    if (!first)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "arch has neither \"hf\" nor \"gguf\"");
    g->arch = qgc_arena_strndup(ld->arena, first, qgc_list_entry(first));
    return QGC_OK;
}

/* Says of a graph whose shapes do not go together why the node stands there. */
static void note_reason(qgc_loader *ld) {
    const qgc_node *n = ld->g->first;
    while (n && n->n_out > 0 && n->out[0]->shape.rank > 0)
        n = n->next;
    if (n && (size_t)n->id < ld->n_reasons)
        qgc_load_note_reason(ld, ld->reasons[n->id], (qgc_place){n->repeat, n->layer});
}

/* A weight that nothing reads is a mistake in the graph, most likely a forgotten bias. */
static qgc_status check_used(qgc_loader *ld) {
    for (size_t i = 0; i < ld->symbols.n; i++) {
        const qgc_symbol *s = ld->symbols.entries[i].value;
        if (s->used || (s->when && s->decl < 0) || (s->kind != QGC_WEIGHT && s->kind != QGC_STATE))
            continue;
        return qgc_fail(ld->d, QGC_ERR_INPUT, s->at, "%s \"%s\" is declared and not used",
                        s->kind == QGC_WEIGHT ? "weight" : "state", s->name);
    }
    return QGC_OK;
}

/* `passes: "a,b(x=1)"` or `passes: [a, "b(x=1)"]`; what the words mean is not the graph's affair. */
static qgc_status load_passes(qgc_loader *ld) {
    const qgc_yaml *node = qgc_yaml_get(ld->doc, "passes");
    if (!node)
        return QGC_OK;
    ld->g->passes_at = node->at;
    if (node->kind == QGC_YAML_SCALAR) {
        ld->g->passes = node->text;
        return QGC_OK;
    }
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_LIST, "passes"));
    qgc_str text = qgc_str_new(ld->arena);
    for (size_t i = 0; i < node->n; i++) {
        QGC_TRY(qgc_load_expect(ld, node->items[i], QGC_YAML_SCALAR, "pass"));
        qgc_str_printf(&text, "%s%s", i ? "," : "", node->items[i]->text);
    }
    ld->g->passes = text.text;
    return QGC_OK;
}

static qgc_status load_memory(qgc_loader *ld) {
    const qgc_yaml *node = qgc_yaml_get(ld->doc, "memory");
    if (!node)
        return QGC_OK;
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, "memory"));
    if (strcmp(node->text, "shared") != 0)
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "\"memory\" is \"%s\", expected shared", node->text);
    ld->g->shares_memory = true;
    return QGC_OK;
}

/* `ignore: ["*.inv_freq"]` */
static qgc_status load_ignored(qgc_loader *ld) {
    const qgc_yaml *list = qgc_yaml_get(ld->doc, "ignore");
    if (!list)
        return QGC_OK;
    QGC_TRY(qgc_load_expect(ld, list, QGC_YAML_LIST, "ignore"));
    ld->g->ignored = qgc_arena_array(ld->arena, list->n, sizeof(char *));
    for (size_t i = 0; i < list->n; i++) {
        QGC_TRY(qgc_load_expect(ld, list->items[i], QGC_YAML_SCALAR, "pattern"));
        if (strspn(list->items[i]->text, "*") == strlen(list->items[i]->text))
            return qgc_fail(ld->d, QGC_ERR_INPUT, list->items[i]->at,
                            "pattern \"%s\" names no tensor, or all of them", list->items[i]->text);
        ld->g->ignored[ld->g->n_ignored++] = list->items[i]->text;
    }
    return QGC_OK;
}

static qgc_status declare(qgc_loader *ld) {
    QGC_TRY(word(ld, "name", &ld->g->name));
    QGC_TRY(load_arch(ld));
    ld->g->at = ld->doc->at;
    QGC_TRY(load_passes(ld));
    QGC_TRY(load_memory(ld));
    QGC_TRY(load_ignored(ld));
    QGC_TRY(qgc_load_kernels(ld));
    QGC_TRY(qgc_load_params(ld));
    QGC_TRY(qgc_load_scan(ld));
    QGC_TRY(qgc_load_inputs(ld));
    QGC_TRY(qgc_load_weights(ld));
    return qgc_load_states(ld);
}

static qgc_status build(qgc_loader *ld) {
    QGC_TRY(declare(ld));
    QGC_TRY(qgc_load_nodes(ld));
    QGC_TRY(qgc_load_outputs(ld));
    QGC_TRY(check_used(ld));
    const qgc_status inferred = qgc_infer(ld->g, ld->d);
    if (inferred != QGC_OK)
        note_reason(ld);
    QGC_TRY(inferred);
    QGC_TRY(qgc_load_params_finish(ld));
    QGC_TRY(qgc_load_groups(ld));
    return qgc_verify(ld->g, ld->d);
}

static qgc_loader new_loader(qgc_arena *a, qgc_diag *d) {
    return (qgc_loader){.arena = a,
                        .d = d,
                        .g = qgc_graph_new(a),
                        .format = 1,
                        .place = QGC_TOP_LEVEL,
                        .params = qgc_map_new(a),
                        .symbols = qgc_map_new(a),
                        .again = qgc_map_new(a),
                        .makers = qgc_map_new(a)};
}

qgc_status qgc_graph_load(qgc_graph **out, const char *path, qgc_arena *a, qgc_diag *d) {
    return qgc_graph_load_stated(out, path, NULL, a, d);
}

qgc_status qgc_graph_load_stated(qgc_graph **out, const char *path, const qgc_load_facts *facts, qgc_arena *a,
                                 qgc_diag *d) {
    *out = NULL;
    qgc_loader ld = new_loader(a, d);
    ld.facts = facts;
    QGC_TRY(qgc_load_file_document(&ld, path));
    QGC_TRY(build(&ld));
    *out = ld.g;
    return QGC_OK;
}

qgc_status qgc_graph_load_text(qgc_graph **out, const char *name, const char *text, size_t bytes,
                               qgc_arena *a, qgc_diag *d) {
    *out = NULL;
    qgc_source *source = qgc_arena_alloc(a, sizeof *source);
    *source = (qgc_source){qgc_arena_strdup(a, name), qgc_arena_strndup(a, text, bytes), bytes};
    qgc_loader ld = new_loader(a, d);
    QGC_TRY(qgc_load_text_document(&ld, source));
    QGC_TRY(build(&ld));
    *out = ld.g;
    return QGC_OK;
}
