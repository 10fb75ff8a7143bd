#include <string.h>

#include "codegen/stage/outside.h"
#include "graph/base/file.h"
#include "graph/base/str.h"
#include "passes/load.h"
#include "passes/load_impl.h"

/* Kernels of plug-ins, for the rest of the process, as the passes are. */
enum { MOST_KERNELS = 64, MOST_LINE = 200 };

static const qgc_kernel_row *loaded[MOST_KERNELS];
static size_t n_loaded;
static qgc_arena *kept; /* their texts */

const qgc_kernel_row *qgc_loaded_kernel(const char *name) {
    for (size_t i = 0; i < n_loaded; i++)
        if (strcmp(loaded[i]->name, name) == 0)
            return loaded[i];
    return NULL;
}

/* As a model file can hold it: lines of some length, without tabs and other control characters. */
static qgc_status clean_text(const char *text, const char *name, const char **out, qgc_diag *d) {
    qgc_str clean = qgc_str_new(kept);
    int line = 1;
    size_t bytes = 0;
    for (const char *c = text; *c; c++, bytes++) {
        if (*c == '\n') {
            line++;
            bytes = (size_t)-1;
        }
        if (*c == '\t')
            qgc_str_add(&clean, "    ");
        else if ((unsigned char)*c < 32 && *c != '\n')
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "kernel \"%s\": line %d of its text holds the control character 0x%02x", name,
                            line, (unsigned char)*c);
        else
            qgc_str_add_bytes(&clean, c, 1);
        if (bytes != (size_t)-1 && bytes >= MOST_LINE)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "kernel \"%s\": line %d of its text has more than %d bytes", name, line,
                            MOST_LINE);
    }
    if (clean.bytes && clean.text[clean.bytes - 1] != '\n')
        qgc_str_add(&clean, "\n");
    *out = clean.text;
    return QGC_OK;
}

static qgc_status text_of(const char *plugin, const qgc_kernel_row *row, const char **out, qgc_diag *d) {
    enum { MOST_BYTES = 256 << 10 };
    qgc_source source;
    if (row->text)
        return clean_text(row->text, row->name, out, d);
    if (!row->file)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "kernel \"%s\" of plug-in \"%s\" has no file",
                        row->name, plugin);
    const char *path = row->file[0] == '/' ? row->file
                                           : qgc_arena_printf(d->arena, "%s/%s",
                                                              qgc_path_folder(d->arena, plugin), row->file);
    QGC_TRY(qgc_file_read(&source, path, MOST_BYTES, "kernel", d));
    return clean_text(source.text, row->name, out, d);
}

/* One that is there already has to be the same: a plug-in may be named twice under two paths. */
static qgc_status add(const char *plugin, const qgc_kernel_row *row, qgc_diag *d) {
    qgc_outside_row read;
    qgc_kernel_row *own = qgc_arena_alloc(kept, sizeof *own);
    if (qgc_loaded_kernel(row->name))
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "plug-in \"%s\" brings kernel \"%s\", which is there already", plugin, row->name);
    if (n_loaded == MOST_KERNELS)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "kernel \"%s\" is one more than the %d that there is room for", row->name,
                        MOST_KERNELS);
    *own = *row;
    own->at = QGC_NO_LOC;
    own->brought = true;
    QGC_TRY(text_of(plugin, row, &own->text, d));
    own->file = NULL;
    QGC_TRY(qgc_outside_read(own, &read, d->arena, d));
    loaded[n_loaded++] = own;
    return QGC_OK;
}

qgc_status qgc_load_plugin_kernels(const char *plugin, const qgc_kernel_row *rows, qgc_diag *d) {
    const size_t before = n_loaded;
    if (!kept)
        kept = qgc_arena_new();
    for (; rows && rows->name; rows++)
        if (add(plugin, rows, d) != QGC_OK) {
            n_loaded = before;
            return d->status;
        }
    return QGC_OK;
}
