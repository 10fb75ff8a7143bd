#include "runtime/lab/bisect_source.h"

#include <string.h>

#include "codegen/kernel_sources.h"
#include "graph/base/map.h"
#include "graph/base/str.h"

/* `program` takes the place of program.cuh, if there is one. */
static const char *text_of(const char *name, const char *program) {
    if (program && strcmp(name, "program.cuh") == 0)
        return program;
    for (const qgc_kernel_source *s = qgc_kernel_sources; s->name; s++)
        if (strcmp(s->name, name) == 0)
            return s->text;
    return "";
}

static const char include[] = "#include \"", once[] = "#pragma once";

/* Headers include headers, each once; the depth of the calls is that of kernels/. */
static void put_file(qgc_str *out, const char *name, const char *program,
                     qgc_map *included) { // NOLINT(misc-no-recursion)
    if (!qgc_map_put(included, name, out))
        return;
    qgc_str_printf(out, "/* --- %s --- */\n", name);
    for (const char *line = text_of(name, program); *line;) {
        const size_t bytes = strcspn(line, "\n");
        if (strncmp(line, include, sizeof include - 1) == 0) {
            const char *file = line + sizeof include - 1;
            put_file(out, qgc_arena_strndup(out->arena, file, strcspn(file, "\"")), program, included);
        } else if (strncmp(line, once, sizeof once - 1) != 0) {
            qgc_str_printf(out, "%.*s\n", (int)bytes, line);
        }
        line += bytes + (line[bytes] == '\n');
    }
}

const char *bisect_kernel_source(const qgc_plan *p, const qgc_plan_launch *l, const qgc_kernel_job *job,
                                 qgc_arena *a) {
    const qgc_plan_kernel *k = &p->kernels[l->kernel];
    const qgc_sizes one = {.tokens = 1, .rows = 1, .ctx = 1};
    qgc_str out = qgc_str_new(a);
    qgc_str_printf(&out, "/* Kernel \"%s\" of %s, %d threads a block", k->entry, l->node, k->threads);
    for (int axis = 0; axis < 3 && !l->on_all; axis++) {
        const int64_t elems = qgc_extent_size(&l->grid[axis], &one);
        qgc_str_printf(&out, "%s%lld", axis ? " x " : ", grid ",
                       (long long)((elems + l->per_block[axis] - 1) / l->per_block[axis]));
    }
    qgc_str_add(&out,
                ". To compile it:\n *   nvcc -std=c++17 -arch=sm_90a -cubin FILE\n * The macros are what qgc "
                "gives to NVRTC. */\n");
    for (int i = 0; i < job->n_options; i++) {
        const char *option = job->options[i];
        if (strncmp(option, "-D", 2) != 0)
            continue;
        const size_t name = strcspn(option + 2, "=");
        qgc_str_printf(&out, "#define %.*s %s\n", (int)name, option + 2,
                       option[2 + name] ? option + 3 + name : "1");
    }
    qgc_map included = qgc_map_new(a);
    put_file(&out, k->name, k->program, &included);
    return out.text;
}
