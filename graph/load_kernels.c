#include <string.h>

#include "graph/base/str.h"
#include "graph/format.def"
#include "graph/load_impl.h"

/* A text, or a list of them, which `between` stands between. NULL where the key is not there. */
static qgc_status read_texts(qgc_loader *ld, const qgc_yaml *map, const char *key, const char *between,
                             const char **out) {
    const qgc_yaml *node = qgc_yaml_get(map, key);
    *out = NULL;
    if (!node)
        return QGC_OK;
    if (node->kind != QGC_YAML_LIST) {
        QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, key));
        *out = node->text;
        return QGC_OK;
    }
    qgc_str text = qgc_str_new(ld->arena);
    for (size_t i = 0; i < node->n; i++) {
        QGC_TRY(qgc_load_expect(ld, node->items[i], QGC_YAML_SCALAR, key));
        qgc_str_printf(&text, "%s%s", i ? between : "", node->items[i]->text);
    }
    *out = text.text;
    return QGC_OK;
}

static qgc_status want(qgc_loader *ld, const qgc_yaml *map, const char *key) {
    const qgc_yaml *ignored;
    return qgc_load_required(ld, map, "kernel", key, &ignored);
}

static qgc_status load_kernel(qgc_loader *ld, const qgc_yaml *name, const qgc_yaml *map) {
    static const char *const keys[] = {QGC_KEYS(KERNEL)};
    static const char *const required[] = {"nodes", "params", "grid", "threads", "text"};
    QGC_TRY(qgc_load_check_name(ld, name, "kernel"));
    QGC_TRY(qgc_load_expect(ld, map, QGC_YAML_MAP, "kernel"));
    QGC_TRY(qgc_load_check_keys(ld, map, "kernel", keys, sizeof keys / sizeof *keys));
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        QGC_TRY(want(ld, map, required[i]));
    qgc_kernel_row *row = qgc_arena_alloc(ld->arena, sizeof *row);
    *row = (qgc_kernel_row){.name = name->text, .at = name->at};
    const struct {
        const char *key, *between, **to;
    } texts[] = {
        {"nodes", "; ", &row->nodes},   {"params", ", ", &row->params}, {"options", ", ", &row->options},
        {"limits", ", ", &row->limits}, {"grid", ", ", &row->grid},     {"threads", ", ", &row->threads},
        {"shared", ", ", &row->shared}, {"starts", ", ", &row->starts}, {"steps", " and ", &row->steps},
        {"arch", ", ", &row->arch},     {"phase", ", ", &row->phase},   {"text", "\n", &row->text}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        QGC_TRY(read_texts(ld, map, texts[i].key, texts[i].between, texts[i].to));
    row->text = qgc_arena_printf(ld->arena, "%s\n", row->text);
    qgc_graph_add_kernel(ld->g, row);
    return QGC_OK;
}

qgc_status qgc_load_kernels(qgc_loader *ld) {
    const qgc_yaml *map = qgc_yaml_get(ld->doc, "kernels");
    for (size_t i = 0; map && i < map->n; i++)
        QGC_TRY(load_kernel(ld, map->keys[i], map->items[i]));
    return QGC_OK;
}
