#include "passes/load.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "passes/load_impl.h"

/* The table is the process's own, like that of passes.def: a plug-in is never unloaded, and its rows stay where they
 * are. Written before the pipeline runs, by one thread. */
enum { MAX_PATH_BYTES = 4096 };

static struct {
    const qgc_pass_info *info;
    int plugin;
} loaded[QGC_MAX_LOADED_PASSES];
static size_t n_loaded;

enum { MAX_PLUGINS = 64 };
static char paths[MAX_PLUGINS][MAX_PATH_BYTES];
static int n_plugins;

size_t qgc_loaded_count(void) {
    return n_loaded;
}

const qgc_pass_info *qgc_loaded_at(size_t i) {
    return loaded[i].info;
}

const char *qgc_loaded_from(size_t i) {
    return paths[loaded[i].plugin];
}

static bool is_taken(const char *name, const qgc_pass_info *until, const qgc_pass_info *own) {
    for (size_t i = 0; i < qgc_pass_count(); i++)
        if (strcmp(qgc_pass_at(i)->name, name) == 0)
            return true;
    for (; own < until; own++)
        if (strcmp(own->name, name) == 0)
            return true;
    return false;
}

/* "mine(x), yours" would not be found in a pipeline. */
static bool is_name(const char *name) {
    return *name && strcspn(name, "(),= ") == strlen(name);
}

qgc_status qgc_passes_add(const char *path, const qgc_pass_rows *rows, qgc_diag *d) {
    if (!rows)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "plug-in \"%s\" returns no passes", path);
    if (rows->abi != QGC_PASS_ABI) {
        qgc_status s =
            qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "plug-in \"%s\" has ABI version %d, and this qgc has %d",
                     path, rows->abi, QGC_PASS_ABI);
        qgc_hint(d, "Compile it against the headers of this qgc.");
        return s;
    }
    const qgc_pass_info *row = rows->passes;
    for (; row && row->name; row++) {
        if (!is_name(row->name))
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "plug-in \"%s\" names a pass \"%s\", expected a name without ( ) , = and blanks",
                            path, row->name);
        if (!row->run || !row->summary)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "pass \"%s\" of plug-in \"%s\" has no %s",
                            row->name, path, row->run ? "summary" : "function");
        if (is_taken(row->name, row, rows->passes))
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "plug-in \"%s\" brings pass \"%s\", which is there already", path, row->name);
    }
    size_t n = row ? (size_t)(row - rows->passes) : 0;
    if (n == 0)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "plug-in \"%s\" returns no passes", path);
    if (n > QGC_MAX_LOADED_PASSES - n_loaded)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "plug-in \"%s\" brings %zu passes, and there is room for %zu", path, n,
                        QGC_MAX_LOADED_PASSES - n_loaded);
    if (n_plugins == MAX_PLUGINS)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "plug-in \"%s\" is one more than the %d that there is room for", path, MAX_PLUGINS);
    QGC_TRY(qgc_load_plugin_kernels(path, rows->kernels, d));
    memcpy(paths[n_plugins], path, strlen(path) + 1); /* the caller has looked at its length */
    for (size_t i = 0; i < n; i++) {
        loaded[n_loaded].info = &rows->passes[i];
        loaded[n_loaded++].plugin = n_plugins;
    }
    n_plugins++;
    return QGC_OK;
}

qgc_status qgc_passes_load(const char *path, qgc_diag *d) {
    if (strlen(path) >= MAX_PATH_BYTES)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the path of a plug-in has more than %d bytes",
                        MAX_PATH_BYTES - 1);
    if (access(path, R_OK) != 0)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "could not open plug-in \"%s\": %s", path,
                        strerror(errno));
    if (!qgc_file_is_regular(path)) /* dlopen would wait for a pipe */
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "plug-in \"%s\" is not a regular file", path);
    /* Without a slash dlopen would look in the system's folders. */
    const char *file = strchr(path, '/') ? path : qgc_arena_printf(d->arena, "./%s", path);
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "could not load plug-in \"%s\": %s", path, dlerror());
    const qgc_pass_rows *(*entry)(void) = NULL;
    void *symbol = dlsym(handle, "qgc_pass_plugin");
    memcpy(&entry, &symbol, sizeof symbol);
    qgc_status status = entry ? qgc_passes_add(path, entry(), d)
                              : qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                                         "plug-in \"%s\" has no function qgc_pass_plugin", path);
    if (status != QGC_OK)
        dlclose(handle);
    return status;
}
