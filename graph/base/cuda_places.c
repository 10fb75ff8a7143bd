#define _GNU_SOURCE /* GLOB_ONLYDIR */ /* NOLINT(bugprone-reserved-identifier): libc asks for this name */
#include "graph/base/cuda_places.h"

#include <glob.h>
#include <stdlib.h>

#include "graph/base/file.h"

typedef struct {
    const char *const *names;
    size_t n_names;
    const char *wheel;
    qgc_arena *arena;
    const char **paths;
    size_t n;
} search;

static void add(search *s, const char *path) {
    s->paths = qgc_arena_grow(s->arena, s->paths, s->n, sizeof *s->paths);
    s->paths[s->n++] = path;
}

/* The library in a folder, by the names it is there under; with `anyhow` by all of them. */
static void add_folder(search *s, const char *folder, bool anyhow) {
    for (size_t i = 0; i < s->n_names; i++) {
        const char *path = qgc_arena_printf(s->arena, "%s/%s", folder, s->names[i]);
        if (anyhow || qgc_file_exists(path))
            add(s, path);
    }
}

static void add_toolkit(search *s, const char *toolkit, bool anyhow) {
    if (!toolkit || !*toolkit)
        return;
    add_folder(s, qgc_arena_printf(s->arena, "%s/lib64", toolkit), anyhow);
    add_folder(s, qgc_arena_printf(s->arena, "%s/lib", toolkit), false);
}

/* Wheels of CUDA 13 share a folder, those before it have one each. */
static void add_wheels(search *s, const char *site_packages) {
    const char *const folders[] = {
        qgc_arena_printf(s->arena, "%s/nvidia/cu1[3-9]/lib", site_packages),
        qgc_arena_printf(s->arena, "%s/nvidia/%s/lib", site_packages, s->wheel),
    };
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        glob_t found;
        if (glob(folders[i], GLOB_ONLYDIR, NULL, &found) != 0)
            continue;
        for (size_t k = 0; k < found.gl_pathc; k++)
            add_folder(s, qgc_arena_strdup(s->arena, found.gl_pathv[k]), false);
        globfree(&found);
    }
}

/* "$name/rest"; nothing where the variable is not set. */
static void add_wheels_of(search *s, const char *name, const char *rest) {
    const char *value = getenv(name);
    if (value && *value)
        add_wheels(s, qgc_arena_printf(s->arena, "%s/%s", value, rest));
}

static const char *own_folder(qgc_arena *a) {
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && *data)
        return qgc_arena_printf(a, "%s/qgc/cuda", data);
    return home && *home ? qgc_arena_printf(a, "%s/.local/share/qgc/cuda", home) : NULL;
}

const char **qgc_cuda_candidates(const char *const *names, size_t n_names, const char *wheel, qgc_arena *a) {
    search s = {.names = names, .n_names = n_names, .wheel = wheel, .arena = a};
    add_toolkit(&s, getenv("CUDA_PATH"), true);
    add_toolkit(&s, getenv("CUDA_HOME"), true);
    for (size_t i = 0; i < n_names; i++)
        add(&s, names[i]);
    if (*QGC_CUDA_LIBRARY_DIR)
        add_folder(&s, QGC_CUDA_LIBRARY_DIR, false);
    add_toolkit(&s, "/usr/local/cuda", false);
    add_toolkit(&s, "/opt/cuda", false);
    if (own_folder(a))
        add_wheels(&s, own_folder(a));
    add_wheels_of(&s, "VIRTUAL_ENV", "lib/python3*/site-packages");
    if (getenv("CONDA_PREFIX"))
        add_folder(&s, qgc_arena_printf(a, "%s/lib", getenv("CONDA_PREFIX")), false);
    add_wheels_of(&s, "CONDA_PREFIX", "lib/python3*/site-packages");
    add_wheels_of(&s, "HOME", ".local/lib/python3*/site-packages");
    add_wheels(&s, "/usr/local/lib/python3*/dist-packages");
    add_wheels(&s, "/usr/local/lib/python3*/site-packages");
    add_wheels(&s, "/usr/lib/python3/dist-packages");
    add(&s, NULL);
    return s.paths;
}

const char *qgc_cuda_install(const char *wheel, qgc_arena *a) {
    const char *data = getenv("XDG_DATA_HOME");
    return qgc_arena_printf(a, "python3 -m pip install --target %s/qgc/cuda %s",
                            data && *data ? data : "~/.local/share", wheel);
}
