#include <string.h>

#include "codegen/lower.h"
#include "graph/base/file.h"
#include "graph/load.h"
#include "runtime/lab/bisect_slice.h"
#include "runtime/lab/bisect_source.h"

/* --- what goes in ---------------------------------------------------------------------------------------- */

/* The text once more through the good side. */
static qgc_status record(bisect_slices *s, const int32_t *tokens) {
    QGC_TRY(qgc_trial_reset(s->good->trial, s->d));
    for (int64_t i = 0; i < s->steps; i++) {
        QGC_TRY(qgc_trial_step(s->good->trial, tokens[i], NULL, s->d));
        for (size_t k = 0; k < s->n_tables; k++) {
            const float *at;
            int64_t n;
            bool kept;
            QGC_TRY(qgc_trial_value(s->good->trial, s->tables[k].twin, &at, &n, &kept, s->d));
            qgc_str_add_bytes(&s->tables[k].rows, at, (size_t)n * sizeof *at);
        }
    }
    for (size_t k = 0; k < s->n_tables; k++) {
        const bisect_table *t = &s->tables[k];
        qgc_gguf_writer_tensor(&s->file, t->name, QGC_F32, 2, (int64_t[]){s->steps, t->value->shape.dim[1]});
        qgc_str_add_bytes(&s->data, t->rows.text, t->rows.bytes);
        qgc_gguf_pad(&s->data);
    }
    return QGC_OK;
}

/* --- files ----------------------------------------------------------------------------------------------- */

static qgc_status write_file(const char *folder, const char *name, const void *data, size_t bytes,
                             qgc_bisection *out, qgc_diag *d) {
    const char *path = qgc_arena_printf(d->arena, "%s/%s", folder, name);
    QGC_TRY(qgc_file_write(path, data, bytes, d));
    if (out->n_files < QGC_BISECT_FILES)
        out->files[out->n_files++] = path;
    return QGC_OK;
}

/* The sources of the kernels that compute the slice: those of the tables and of the end are not among them. */
static qgc_status write_kernels(bisect_slice *x, const char *folder, qgc_graph *g, qgc_bisection *out) {
    bisect_slices *s = x->s;
    qgc_lowered low;
    QGC_TRY(qgc_lower(g, &(qgc_lower_options){.chunk = 1, .decode_only = true}, &low, s->d));
    qgc_map own = qgc_map_new(s->arena); /* launches are named "linear q", or like their group */
    qgc_map_put(&own, BISECT_GROUP, s);
    for (const qgc_node *n = x->side->graph->first; n; n = n->next)
        for (int i = 0; i < n->n_out && x->in_slice[n->id]; i++)
            qgc_map_put(&own, bisect_slice_name(x, n->out[i]), s);
    const qgc_phase *step = &low.plan->phases[QGC_PHASE_DECODE];
    bool *written = qgc_arena_array(s->arena, low.plan->n_kernels, sizeof *written);
    int n_written = 0;
    for (size_t i = 0; i < step->n_launches && n_written < 4; i++) {
        const qgc_plan_launch *l = &step->launches[i];
        const char *space = strchr(l->node, ' '), *name = space ? space + 1 : l->node;
        if (l->kind != QGC_LAUNCH_KERNEL || !qgc_map_get(&own, name) || written[l->kernel])
            continue;
        written[l->kernel] = true;
        const char *file =
            n_written ? qgc_arena_printf(s->arena, "kernel_%d.cu", n_written + 1) : "kernel.cu";
        const char *text = bisect_kernel_source(low.plan, l, &low.jobs[l->kernel], s->arena);
        QGC_TRY(write_file(folder, file, text, strlen(text), out, s->d));
        n_written++;
    }
    return QGC_OK;
}

/* A slice that cannot stand alone is no fault of who asks. */
static bool stands_alone(const char *name, const char *text, qgc_graph **g, bisect_slices *s,
                         qgc_bisection *out) {
    qgc_diag inner = qgc_diag_new(s->arena);
    if (qgc_graph_load_text(g, name, text, strlen(text), s->arena, &inner) == QGC_OK)
        return true;
    out->not_written = qgc_arena_printf(s->d->arena, "the nodes do not make a model of their own: %s",
                                        qgc_diag_message(&inner));
    return false;
}

static qgc_status write_all(bisect_slices *s, const char *folder, const int32_t *tokens, qgc_bisection *out) {
    qgc_graph *bad_graph, *good_graph;
    bisect_slice bad = bisect_slice_new(s, s->bad), good = s->by_kernels ? bad : bisect_slice_new(s, s->good);
    const char *bad_text = bisect_slice_text(&bad, tokens), *good_text = NULL;
    if (!stands_alone("bad.yaml", bad_text, &bad_graph, s, out))
        return QGC_OK;
    if (!s->by_kernels) {
        good_text = bisect_slice_text(&good, tokens);
        if (!stands_alone("good.yaml", good_text, &good_graph, s, out))
            return QGC_OK;
    }
    QGC_TRY(record(s, tokens));
    QGC_TRY(qgc_folder_make(folder, s->d));
    QGC_TRY(write_file(folder, "bad.yaml", bad_text, strlen(bad_text), out, s->d));
    if (good_text)
        QGC_TRY(write_file(folder, "good.yaml", good_text, strlen(good_text), out, s->d));
    qgc_str inputs = qgc_gguf_writer_head(&s->file);
    qgc_str_add_bytes(&inputs, s->data.text, s->data.bytes);
    QGC_TRY(write_file(folder, "inputs.gguf", inputs.text, inputs.bytes, out, s->d));
    return write_kernels(&bad, folder, bad_graph, out);
}

qgc_status bisect_write(const char *folder, const bisect_side *good, const bisect_side *bad,
                        const bisect_comparison *c, const int32_t *tokens, int64_t positions, bool by_kernels,
                        qgc_bisection *out, qgc_diag *d) {
    bisect_slices s = {.good = good,
                       .bad = bad,
                       .c = c,
                       .by_kernels = by_kernels,
                       .steps = positions,
                       .arena = bad->arena,
                       .d = d};
    s.weights = qgc_map_new(s.arena);
    s.file = qgc_gguf_writer_new("slice", s.arena);
    s.data = qgc_str_new(s.arena);
    s.output = bisect_slice_output(&s);
    if (!s.output) {
        out->not_written = "no rows of numbers depend on the value";
        return QGC_OK;
    }
    /* token i has to be a row of the logits too */
    const int64_t width = s.output->dtype == QGC_I32 ? bad->vocab : s.output->shape.dim[1];
    s.steps = width < positions ? width : positions;
    out->steps = s.steps;
    return write_all(&s, folder, tokens, out);
}
