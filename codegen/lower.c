#include "codegen/lower.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/edges.h"
#include "codegen/kernel_sources.h"
#include "codegen/lower_impl.h"
#include "graph/base/str.h"

static qgc_lower_fn *const lower_of[QGC_N_OPS] = {
#define OP(tag, name, min_in, max_in, n_out, signature, attrs, function, traits, summary) \
    [QGC_OP_##tag] = lower_##function,
#include "graph/ops.def"
#undef OP
};

const char *qgc_low_text(qgc_lowering *l, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(l->arena, format, args);
    va_end(args);
    return text;
}

/* The shortest text that gives the same number back; C++ wants a point or an exponent before the suffix. */
static const char *number_text(qgc_lowering *l, bool single, double value) {
    const char *text = "";
    for (int digits = 1; digits <= 17; digits++) {
        text = qgc_low_text(l, "%.*g", digits, value);
        if (single ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value)
            break;
    }
    return strpbrk(text, ".en") ? text : qgc_low_text(l, "%s.0", text);
}

const char *qgc_low_float(qgc_lowering *l, const char *name, double value) {
    return qgc_low_text(l, "-D%s=%sf", name, number_text(l, true, value));
}

const char *qgc_low_float_text(qgc_lowering *l, double value) {
    return qgc_low_text(l, "%sf", number_text(l, true, value));
}

const char *qgc_low_double_text(qgc_lowering *l, double value) {
    return number_text(l, false, value);
}

const char *qgc_low_double(qgc_lowering *l, const char *name, double value) {
    return qgc_low_text(l, "-D%s=%s", name, number_text(l, false, value));
}

const char *qgc_low_type_name(qgc_dtype t) {
    static const char *const types[QGC_N_DTYPES] = {
#define DTYPE(tag, ...) [QGC_##tag] = #tag,
#include "graph/base/dtypes.def"
#undef DTYPE
    };
    return types[t];
}

const char *qgc_low_type(qgc_lowering *l, const char *name, qgc_dtype t) {
    return qgc_low_text(l, "-D%s=%s", name, qgc_low_type_name(t));
}

const char *qgc_low_int(qgc_lowering *l, const char *name, int64_t value) {
    return qgc_low_text(l, "-D%s=%lld", name, (long long)value);
}

static bool is_among(int64_t value, const int64_t *candidates) {
    while (*candidates && *candidates != value)
        candidates++;
    return *candidates != 0;
}

int64_t qgc_low_setting(qgc_lowering *l, const char *kernel, const char *name, int64_t usual,
                        const int64_t *candidates) {
    int64_t value = qgc_tuning_get(l->tuning, kernel, name, usual);
    if (!is_among(value, candidates)) /* of another version's kernel */
        value = usual;
    for (size_t i = 0; i < l->n_knobs; i++)
        if (strcmp(l->knobs[i].kernel, kernel) == 0 && strcmp(l->knobs[i].name, name) == 0)
            return value;
    l->knobs = qgc_arena_grow(l->arena, l->knobs, l->n_knobs, sizeof *l->knobs);
    l->knobs[l->n_knobs++] = (qgc_knob){kernel, name, value, candidates};
    return value;
}

int64_t qgc_low_width(const qgc_value *v) {
    return v->shape.dim[v->shape.rank - 1];
}

double qgc_low_attr(const qgc_node *n, const char *name) {
    return n->attr[qgc_attr_index(n->op, name)].number;
}

int64_t qgc_low_attr_int(const qgc_node *n, const char *name) {
    return (int64_t)qgc_low_attr(n, name);
}

qgc_extent qgc_low_dim(int64_t dim) {
    if (qgc_dim_ring(dim))
        return (qgc_extent){.per_ctx = 1, .most_ctx = qgc_dim_ring(dim)};
    switch (dim) {
    case QGC_DIM_T:
        return (qgc_extent){.per_token = 1};
    case QGC_DIM_R:
        return (qgc_extent){.per_row = 1};
    case QGC_DIM_CTX:
        return (qgc_extent){.per_ctx = 1};
    default:
        return (qgc_extent){.fixed = dim};
    }
}

/* What would overflow becomes a size that the plan's checks refuse. */
static int64_t times(int64_t a, int64_t b) {
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

qgc_extent qgc_low_times(qgc_extent e, int64_t factor) {
    return (qgc_extent){times(e.fixed, factor), times(e.per_token, factor), times(e.per_row, factor),
                        times(e.per_ctx, factor), e.most_ctx};
}

/* A shape has at most one symbol: [T, d], [kv_heads, ctx, d]. The verifier of the graph has no rule against two, so
 * this is checked where shapes come in. */
qgc_extent qgc_low_elems(const qgc_shape *s) {
    qgc_extent e = {.fixed = 1};
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] < 0)
            e = qgc_low_dim(s->dim[i]);
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] >= 0)
            e = qgc_low_times(e, s->dim[i]);
    return e;
}

const char *qgc_low_kept(qgc_lowering *l, const qgc_value *cache) {
    const int64_t rows = qgc_dim_ring(cache->shape.dim[1]);
    return rows ? qgc_low_int(l, "KEPT", rows) : NULL;
}

static bool has_two_symbols(const qgc_shape *s) {
    int symbols = 0;
    for (int i = 0; i < s->rank; i++)
        symbols += s->dim[i] < 0;
    return symbols > 1;
}

static int new_buffer(qgc_lowering *l, qgc_plan_buffer buffer) {
    qgc_plan *p = l->plan;
    p->buffers = qgc_arena_grow(l->arena, p->buffers, p->n_buffers, sizeof *p->buffers);
    p->buffers[p->n_buffers] = buffer;
    return (int)p->n_buffers++;
}

int qgc_low_buffer_of_kind(qgc_lowering *l, const char *name, qgc_buffer_kind kind, qgc_extent bytes) {
    return new_buffer(l,
                      (qgc_plan_buffer){.name = name, .kind = kind, .bytes = bytes, .weight = -1, .io = -1});
}

int qgc_low_scratch(qgc_lowering *l, const char *name, qgc_extent bytes) {
    return qgc_low_buffer_of_kind(l, name, QGC_BUFFER_SCRATCH, bytes);
}

int qgc_low_table(qgc_lowering *l, const char *name, qgc_extent bytes, bool *made) {
    for (size_t i = 0; i < l->plan->n_buffers; i++)
        if (l->plan->buffers[i].kind == QGC_BUFFER_TABLE && strcmp(l->plan->buffers[i].name, name) == 0) {
            *made = false;
            return (int)i;
        }
    *made = true;
    return new_buffer(
        l, (qgc_plan_buffer){.name = name, .kind = QGC_BUFFER_TABLE, .bytes = bytes, .weight = -1, .io = -1});
}

int qgc_low_buffer(qgc_lowering *l, const qgc_value *v) {
    int *buffer = &l->buffer_of[v->id];
    if (*buffer >= 0)
        return *buffer;
    assert(v->kind == QGC_RESULT);
    if (qgc_value_is_version(v))
        return *buffer = qgc_low_buffer(l, v->maker->in[0]);
    qgc_extent bytes = qgc_low_times(qgc_low_elems(&v->shape), (int64_t)qgc_dtype_bytes(v->dtype, 1));
    return *buffer = qgc_low_scratch(l, qgc_value_label(v, l->arena), bytes);
}

/* What a kernel does is in its text. */
static void read_kernel(qgc_plan_kernel *k) {
    const qgc_kernel_source *s = qgc_kernel_sources;
    while (s->name && strcmp(s->name, k->name) != 0)
        s++;
    const char *wait = s->name ? strstr(s->text, "wait_for_previous();") : NULL;
    const char *next = s->name ? strstr(s->text, "let_next_start();") : NULL;
    k->waits = wait != NULL;
    k->lets_next = !next                 ? QGC_NEXT_AT_END
                   : wait && wait < next ? QGC_NEXT_BEHIND_WAIT
                                         : QGC_NEXT_BEFORE_WAIT;
}

int qgc_low_kernel(qgc_lowering *l, const char *file, int threads, const char *const *options) {
    return qgc_low_program(l, file, threads, options, NULL);
}

int qgc_low_program(qgc_lowering *l, const char *file, int threads, const char *const *options,
                    const char *program) {
    qgc_plan *p = l->plan;
    qgc_str joined = qgc_str_new(l->arena);
    int n = 0;
    for (; options[n]; n++)
        qgc_str_printf(&joined, "%s%s", n ? " " : "", options[n]);
    for (size_t i = 0; i < p->n_kernels; i++)
        if (strcmp(p->kernels[i].name, file) == 0 && strcmp(p->kernels[i].options, joined.text) == 0 &&
            qgc_same_text(p->kernels[i].program, program))
            return (int)i;

    p->kernels = qgc_arena_grow(l->arena, p->kernels, p->n_kernels, sizeof *p->kernels);
    l->jobs = qgc_arena_grow(l->arena, l->jobs, p->n_kernels, sizeof *l->jobs);
    p->kernels[p->n_kernels] = (qgc_plan_kernel){.name = file,
                                                 .entry = qgc_arena_strndup(l->arena, file, strlen(file) - 3),
                                                 .options = joined.text,
                                                 .program = program,
                                                 .threads = threads};
    read_kernel(&p->kernels[p->n_kernels]);
    const char **copy = qgc_arena_array(l->arena, (size_t)n + 1, sizeof *copy);
    for (int i = 0; i < n; i++)
        copy[i] = options[i];
    l->jobs[p->n_kernels] = (qgc_kernel_job){copy, n, NULL, QGC_NO_LOC};
    if (l->node) {
        l->jobs[p->n_kernels].node = qgc_value_label(l->node->out[0], l->arena);
        l->jobs[p->n_kernels].at = l->node->at;
    }
    return (int)p->n_kernels++;
}

qgc_plan_launch *qgc_low_launch(qgc_lowering *l, qgc_phase_kind phase, int kernel) {
    qgc_phase *at = &l->plan->phases[phase];
    at->launches = qgc_arena_grow(l->arena, at->launches, at->n_launches, sizeof *at->launches);
    qgc_plan_launch *launch = &at->launches[at->n_launches++];
    *launch = (qgc_plan_launch){.kind = kernel < 0 ? QGC_LAUNCH_GEMM : QGC_LAUNCH_KERNEL,
                                .node = "the end of the step",
                                .where = "",
                                .kernel = kernel,
                                .a = -1,
                                .b = -1,
                                .c = -1};
    const qgc_node *n = l->node;
    if (n) {
        launch->node = qgc_low_text(l, "%s %s", qgc_ops[n->op].name, qgc_value_label(n->out[0], l->arena));
        if (n->at.source)
            launch->where = qgc_low_text(l, "%s:%d:%d", n->at.source->name, n->at.line, n->at.col);
    }
    for (int axis = 0; axis < 3; axis++)
        qgc_low_grid(launch, axis, (qgc_extent){.fixed = 1}, 1);
    return launch;
}

void qgc_low_grid(qgc_plan_launch *launch, int axis, qgc_extent elems, int64_t per_block) {
    launch->grid[axis] = elems;
    launch->per_block[axis] = per_block;
}

static void add_arg(qgc_plan_launch *launch, qgc_plan_arg arg) {
    assert(launch->n_args < QGC_MAX_ARGS);
    launch->args[launch->n_args++] = arg;
}

void qgc_low_arg_buffer(qgc_plan_launch *launch, int buffer, int access) {
    add_arg(launch, (qgc_plan_arg){.kind = QGC_ARG_BUFFER, .buffer = buffer, .access = access});
}

void qgc_low_arg_i32(qgc_plan_launch *launch, qgc_extent value) {
    add_arg(launch, (qgc_plan_arg){.kind = QGC_ARG_I32, .buffer = -1, .value = value});
}

void qgc_low_arg_early(qgc_plan_launch *launch) {
    add_arg(launch, (qgc_plan_arg){.kind = QGC_ARG_EARLY, .buffer = -1});
}

/* What lowering has to know of weights that are derived of others. */
typedef struct {
    int *weight_of; /* by value id: index in the plan */
    const int *uses;
    bool *is_source; /* by declaration: another one is derived of it */
} derived_weights;

static derived_weights find_derived(qgc_lowering *l) {
    const qgc_graph *g = l->graph;
    derived_weights found = {.weight_of = qgc_arena_array(l->arena, g->n_values, sizeof(int)),
                             .uses = qgc_graph_uses(g, l->arena),
                             .is_source = qgc_arena_array(l->arena, g->n_weights + 1, sizeof(bool))};
    for (size_t w = 0; w < g->n_weights; w++)
        for (int k = 0; k < g->weights[w].derived.n_from; k++)
            found.is_source[g->weights[w].derived.from[k]] = true;
    return found;
}

static void add_weights(qgc_lowering *l) {
    const qgc_graph *g = l->graph;
    const derived_weights from = find_derived(l);
    qgc_plan *p = l->plan;
    int *first = qgc_arena_array(l->arena, g->n_weights + 1, sizeof *first); /* of each declaration */
    for (size_t w = 0; w < g->n_weights; w++) {
        const qgc_weight_decl *decl = &g->weights[w];
        first[w] = (int)p->n_weights;
        for (int i = 0; i < decl->count; i++) {
            const qgc_value *v = decl->values[i];
            p->weights = qgc_arena_grow(l->arena, p->weights, p->n_weights, sizeof *p->weights);
            qgc_plan_weight *entry = &p->weights[p->n_weights];
            *entry = (qgc_plan_weight){.label = qgc_value_label(v, l->arena),
                                       .gguf = qgc_tensor_name(decl->gguf, decl->index, v->layer, l->arena),
                                       .hf = qgc_tensor_name(decl->hf, decl->index, v->layer, l->arena),
                                       .tied = -1,
                                       .rank = v->shape.rank,
                                       .storage = qgc_weight_storage(v),
                                       .gguf_form = decl->gguf_form,
                                       .hf_form = decl->hf_form};
            memcpy(entry->shape, v->shape.dim, sizeof entry->shape);
            entry->derived = decl->derived;
            for (int k = 0; k < decl->derived.n_from; k++)
                entry->derived.from[k] = from.weight_of[qgc_weight_source(g, v, k)->id];
            from.weight_of[v->id] = (int)p->n_weights;
            if (from.is_source[w] && !from.uses[v->id]) { /* it need not go to the device */
                p->n_weights++;
                continue;
            }
            const qgc_extent bytes = {.fixed = qgc_weight_bytes(v)};
            l->buffer_of[v->id] = new_buffer(l, (qgc_plan_buffer){.name = entry->label,
                                                                  .kind = QGC_BUFFER_WEIGHT,
                                                                  .bytes = bytes,
                                                                  .weight = (int)p->n_weights,
                                                                  .io = -1});
            p->n_weights++;
        }
    }
    for (size_t w = 0; w < g->n_weights; w++)
        if (g->weights[w].tied >= 0) {
            assert(p->weights); /* there are two, then */
            for (int i = 0; i < g->weights[w].count; i++)
                p->weights[first[w] + i].tied = first[g->weights[w].tied] + i;
        }
}

static void add_states(qgc_lowering *l) {
    const qgc_graph *g = l->graph;
    for (size_t s = 0; s < g->n_states; s++)
        for (int i = 0; i < g->states[s].count; i++) {
            const qgc_value *v = g->states[s].values[i];
            qgc_extent bytes = qgc_low_times(qgc_low_elems(&v->shape), (int64_t)qgc_dtype_bytes(v->dtype, 1));
            l->buffer_of[v->id] = new_buffer(l, (qgc_plan_buffer){.name = qgc_value_label(v, l->arena),
                                                                  .kind = QGC_BUFFER_STATE,
                                                                  .bytes = bytes,
                                                                  .weight = -1,
                                                                  .io = -1});
        }
}

static qgc_plan_param param_of(const qgc_param *p) {
    return (qgc_plan_param){.name = p->name,
                            .value = p->value,
                            .n_gguf = p->n_gguf,
                            .n_hf = p->n_hf,
                            .gguf = p->gguf,
                            .hf = p->hf,
                            .words = p->words,
                            .n_words = p->n_words,
                            .turns = p->index ? p->count : 0,
                            .values = p->index ? p->values : NULL,
                            .n_otherwise = p->otherwise ? p->count : 0,
                            .otherwise = p->otherwise};
}

static void add_params(qgc_lowering *l) {
    const qgc_graph *g = l->graph;
    qgc_plan *p = l->plan;
    p->params = qgc_arena_array(l->arena, g->n_params, sizeof *p->params);
    for (size_t i = 0; i < g->n_params; i++)
        if (qgc_param_counts(&g->params[i]))
            p->params[p->n_params++] = param_of(&g->params[i]);
    p->gguf_arch = g->gguf_arch;
    p->hf_arch = g->hf_arch;
    p->ignored = g->ignored;
    p->n_ignored = g->n_ignored;
}

/* The buffer of a role; a value of the graph that plays it lives there. */
static void add_io(qgc_lowering *l, qgc_io role, const char *name, qgc_extent bytes, const qgc_value *v) {
    int buffer = new_buffer(
        l, (qgc_plan_buffer){
               .name = name, .kind = QGC_BUFFER_IO, .bytes = bytes, .weight = -1, .io = (int)role});
    l->plan->io[role] = buffer;
    if (v)
        l->buffer_of[v->id] = buffer;
}

static qgc_status add_interface(qgc_lowering *l) {
    qgc_graph *g = l->graph;
    QGC_TRY(qgc_verify_interface(g, l->diag));
    const qgc_value *logits = qgc_graph_output(g, "logits");
    l->plan->vocab = logits->shape.dim[1];
    l->plan->max_positions = qgc_graph_max_positions(g);

    qgc_extent per_token = {.per_token = 4}, per_row = {.per_row = 4};
    add_io(l, QGC_IO_TOKENS, "tokens", per_token, qgc_graph_input(g, "tokens"));
    add_io(l, QGC_IO_POSITIONS, "positions", per_token, qgc_graph_input(g, "positions"));
    add_io(l, QGC_IO_ROWS, "rows", per_row, qgc_graph_input(g, "rows"));
    add_io(l, QGC_IO_LOGITS, "logits", (qgc_extent){.per_row = 4 * l->plan->vocab}, logits);
    add_io(l, QGC_IO_NEXT, "next", per_row, qgc_graph_output(g, "next"));
    add_io(l, QGC_IO_SAMPLING, "sampling", (qgc_extent){.fixed = 32}, NULL);
    add_io(l, QGC_IO_RING, "ring", (qgc_extent){.fixed = (int64_t)4 * QGC_LOW_RING}, NULL);
    add_io(l, QGC_IO_FAULT, "fault", (qgc_extent){.fixed = 4}, NULL);
    return QGC_OK;
}

/* kernels/advance.cu ends a step, unless its last kernel did. */
static void add_advance(qgc_lowering *l) {
    l->node = NULL;
    if (l->ended)
        return;
    const char *options[] = {qgc_low_text(l, "-DRING=%d", QGC_LOW_RING), NULL};
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "advance.cu", 1, options));
    qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_NEXT], QGC_READS);
    qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_TOKENS], QGC_WRITES);
    qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_POSITIONS], QGC_READS | QGC_WRITES);
    qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_RING], QGC_WRITES);
    qgc_low_arg_i32(launch, (qgc_extent){.per_token = 1});
}

static bool is_packed(const qgc_lowering *l, const qgc_node *linear) {
    return qgc_phase_is_packed(l->phase) && l->packed_of[linear->id];
}

static bool is_product(const qgc_node *n) {
    return n->op == QGC_OP_LINEAR || n->op == QGC_OP_EXPERT_LINEAR;
}

/* Is the group of a node computed by one kernel in this phase? In prefill the products of many tokens are cuBLAS's or those of
 * expert_tiles.cu, and the rest of such a group goes node by node. */
static bool is_one_kernel(const qgc_lowering *l, const qgc_node *node) {
    const qgc_kernel_row *outside = qgc_node_kernel(l->graph, node);
    if (node->group < 0)
        return false;
    if (outside) {
        qgc_outside_row row;
        qgc_diag d = qgc_diag_new(l->arena);
        return !qgc_phase_is_prefill(l->phase) ||
               (qgc_outside_read(outside, &row, l->arena, &d) == QGC_OK && row.prefill);
    }
    for (const qgc_node *n = node; n && n->group == node->group; n = n->next)
        if (is_product(n))
            return !is_packed(l, n) && (!qgc_phase_is_prefill(l->phase) ||
                                        (n->in[0]->shape.dim[0] == QGC_DIM_R && !l->plan->all_rows));
    for (const qgc_node *n = node->prev; n && n->group == node->group; n = n->prev)
        if (is_product(n))
            return false; /* the rest of a group that goes node by node */
    return true;
}

/* The group that begins with `first`; *next is the node after it. */
static qgc_status lower_group(qgc_lowering *l, const qgc_node *first, const qgc_node **next) {
    const qgc_group *group = &l->graph->groups[first->group];
    qgc_stage fusion;
    const char *why;
    if (!qgc_stage_at(l->graph, first, l->uses, &fusion, &why, l->arena))
        return qgc_fail(l->diag, QGC_ERR_INPUT, group->at, "no kernel computes group \"%s\": %s", group->name,
                        why);
    for (*next = first; *next && (*next)->group == first->group;)
        *next = (*next)->next;
    return qgc_lower_stage(
        l, &fusion, group->layer < 0 ? group->name : qgc_low_text(l, "%s[%d]", group->name, group->layer));
}

static void begin_phase(qgc_lowering *l, qgc_phase_kind phase, int64_t tokens) {
    l->phase = phase;
    l->ended = false;
    l->sizes = (qgc_sizes){.tokens = tokens, .rows = qgc_plan_rows(l->plan, phase, tokens)};
    for (size_t i = 0; i < l->graph->n_values; i++) {
        const qgc_value *v = l->graph->values[i];
        l->bf16_of[i] = l->operand_of[i] = -1;
        l->order_of[i].made = false;
        int buffer = l->buffer_of[i]; /* scratch is each phase's own */
        if (v->kind == QGC_RESULT && buffer >= 0 && l->plan->buffers[buffer].kind == QGC_BUFFER_SCRATCH)
            l->buffer_of[i] = -1;
    }
}

/* All nodes but those that are covered already (NULL: none are); as groups, or each by itself. */
static qgc_status lower_nodes(qgc_lowering *l, const bool *covered, bool groups) {
    for (const qgc_node *node = l->graph->first, *next; node; node = next) {
        next = node->next;
        if (covered && covered[node->id])
            continue;
        l->node = node;
        if (qgc_low_packed(l, node))
            continue;
        qgc_frame frame = {l->diag->top, "choosing a kernel for", qgc_value_label(node->out[0], l->arena),
                           node->at};
        l->diag->top = &frame;
        qgc_status status = QGC_OK;
        for (int i = 0; i < node->n_out && status == QGC_OK; i++)
            if (has_two_symbols(&node->out[i]->shape))
                status = qgc_fail(l->diag, QGC_ERR_INPUT, node->at, "\"%s\" has two symbolic dimensions: %s",
                                  node->out[i]->name, qgc_shape_text(&node->out[i]->shape, l->arena));
        if (status == QGC_OK)
            status =
                is_one_kernel(l, node) && groups ? lower_group(l, node, &next) : lower_of[node->op](l, node);
        l->diag->top = frame.up;
        QGC_TRY(status);
    }
    add_advance(l);
    return QGC_OK;
}

static qgc_status lower_phase(qgc_lowering *l, qgc_phase_kind phase, int64_t tokens) {
    begin_phase(l, phase, tokens);
    return lower_nodes(l, NULL, true);
}

/* Does a node make what is needed, or another of its group where they are one kernel? */
static bool makes_needed(const qgc_lowering *l, const qgc_node *n, const bool *needed) {
    const bool group = is_one_kernel(l, n);
    const qgc_node *m = n;
    bool makes = false;
    while (group && m->prev && m->prev->group == n->group)
        m = m->prev;
    for (; m && (m == n || (group && m->group == n->group)); m = m->next)
        for (int i = 0; i < m->n_out; i++)
            makes = makes || qgc_value_is_version(m->out[i]) || needed[m->out[i]->id];
    return makes;
}

/* Where the logits of all rows are wanted, nothing is chosen: what neither they nor a state need is left out. */
static qgc_status lower_all_rows(qgc_lowering *l, int64_t tokens) {
    const qgc_graph *g = l->graph;
    bool *needed = qgc_arena_array(l->arena, g->n_values, sizeof *needed);
    bool *left_out = qgc_arena_array(l->arena, (size_t)g->next_node_id + 1, sizeof *left_out);
    begin_phase(l, QGC_PHASE_PREFILL, tokens);
    needed[qgc_graph_output(g, "logits")->id] = true;
    for (const qgc_node *n = g->last; n; n = n->prev) {
        left_out[n->id] = !makes_needed(l, n, needed);
        for (int i = 0; i < n->n_in && !left_out[n->id]; i++)
            needed[n->in[i]->id] = true;
    }
    l->ended = true; /* no step follows from it */
    return lower_nodes(l, left_out, true);
}

/* Where the values of the phase that was lowered last are. */
static int *copy_buffers(const qgc_lowering *l) {
    int *copy = qgc_arena_array(l->arena, l->graph->n_values, sizeof *copy);
    return memcpy(copy, l->buffer_of, l->graph->n_values * sizeof *copy);
}

/* Tokens of a chunk of a longer prompt, 0: there are none such. Products of more tokens at a time keep the card busier, and are cut
 * otherwise. Not where rings have no room for so many, nor where the model has no such positions. */
static int64_t long_chunk_of(const qgc_lowering *l, const qgc_lower_options *o) {
    enum { USUAL = 512, TIMES = 4 };
    const qgc_plan *p = l->plan;
    const int64_t wanted = o->long_chunk ? o->long_chunk : p->chunk >= USUAL ? TIMES * p->chunk : 0;
    const bool fits =
        (p->max_positions == 0 || wanted <= p->max_positions) && (p->spare == 0 || wanted <= p->spare);
    return wanted > p->chunk && fits && !qgc_phase_has_gemm(&p->phases[QGC_PHASE_PACKED_PREFILL]) ? wanted
                                                                                                  : 0;
}

static qgc_status lower_packed(qgc_lowering *l, const qgc_lower_options *o) {
    QGC_TRY(lower_phase(l, QGC_PHASE_PACKED_PREFILL, l->plan->chunk));
    l->plan->long_chunk = long_chunk_of(l, o);
    return l->plan->long_chunk ? lower_phase(l, QGC_PHASE_LONG_PREFILL, l->plan->long_chunk) : QGC_OK;
}

/* After the persistent kernel come the nodes that it does not cover, one by one. */
static qgc_status lower_persistent(qgc_lowering *l, const qgc_lower_options *o, int **buffers) {
    bool *covered, fits;
    begin_phase(l, QGC_PHASE_PERSISTENT, 1);
    l->node = NULL;
    QGC_TRY(qgc_emit_persistent(l, o->probe, &covered, &fits));
    if (!fits)
        return QGC_OK;
    QGC_TRY(lower_nodes(l, covered, false));
    *buffers = copy_buffers(l);
    return o->no_prefill ? QGC_OK : lower_packed(l, o);
}

static int shared_bytes(const qgc_lower_options *o) {
    if (o->card && o->card->shared_bytes)
        return o->card->shared_bytes;
    return qgc_arch_shared_bytes(o->least_arch);
}

static int most_shared_bytes(const qgc_lower_options *o) {
    const int most = o->most_shared_bytes ? o->most_shared_bytes : qgc_arch_shared_bytes(0);
    return o->card && o->card->shared_bytes && o->card->shared_bytes < most ? o->card->shared_bytes : most;
}

/* The state in which the only node of that kind marks tokens; -1 where there is none, or several. */
static int seen_buffer(const qgc_lowering *l) {
    int found = -1, marks = 0;
    for (const qgc_node *n = l->graph->first; n; n = n->next)
        if (n->op == QGC_OP_MARK) {
            found = l->buffer_of[n->in[0]->id];
            marks++;
        }
    return marks == 1 && found >= 0 && l->plan->buffers[found].kind == QGC_BUFFER_STATE ? found : -1;
}

/* A chunk is cut to what rings have room for. */
static void set_chunk(qgc_plan *p, const qgc_graph *g, int64_t chunk) {
    const int64_t most = qgc_graph_most_tokens(g);
    p->chunk = chunk < most ? chunk : most;
    p->spare = most < INT64_MAX ? most : 0;
}

qgc_status qgc_lower(qgc_graph *g, const qgc_lower_options *o, qgc_lowered *out, qgc_diag *d) {
    qgc_arena *a = g->arena;
    qgc_plan *plan = qgc_arena_alloc(a, sizeof *plan);
    *plan = (qgc_plan){.name = g->name,
                       .arch = g->arch,
                       .all_rows = o->all_rows,
                       .trace = -1,
                       .seen = -1,
                       .shares_buffer = -1};
    set_chunk(plan, g, o->chunk);
    qgc_lowering l = {.graph = g,
                      .plan = plan,
                      .arena = a,
                      .diag = d,
                      .least_arch = o->least_arch,
                      .sms = o->card && o->card->sms ? o->card->sms : QGC_TYPICAL_SMS,
                      .shared_bytes = shared_bytes(o),
                      .most_shared_bytes = most_shared_bytes(o),
                      .card = o->card,
                      .card_alone = o->card && o->card->shared_bytes && o->card_alone,
                      .tuning = o->tuning,
                      .uses = qgc_graph_uses(g, a),
                      .buffer_of = qgc_arena_array(a, g->n_values, sizeof(int)),
                      .bf16_of = qgc_arena_array(a, g->n_values, sizeof(int)),
                      .operand_of = qgc_arena_array(a, g->n_values, sizeof(int)),
                      .order_of = qgc_arena_array(a, g->n_values, sizeof(qgc_item_order))};
    for (size_t i = 0; i < g->n_values; i++)
        l.buffer_of[i] = -1;
    add_weights(&l);
    add_states(&l);
    add_params(&l);
    QGC_TRY(add_interface(&l));
    if (o->all_rows)
        QGC_TRY(lower_all_rows(&l, plan->chunk));
    else if (!o->decode_only && !o->no_prefill)
        QGC_TRY(lower_phase(&l, QGC_PHASE_PREFILL, plan->chunk));
    int *prefill_buffers = plan->phases[QGC_PHASE_PREFILL].n_launches ? copy_buffers(&l) : NULL;
    QGC_TRY(lower_phase(&l, QGC_PHASE_DECODE, 1));
    int *buffers = copy_buffers(&l), *persistent_buffers = NULL;
    if (o->decode_only || o->all_rows || o->no_persistent)
        plan->not_persistent = o->all_rows      ? "it was compiled for the logits of all tokens"
                               : o->decode_only ? "it was compiled for decode steps only"
                                                : "it was compiled for steps in other modes";
    else
        QGC_TRY(lower_persistent(&l, o, &persistent_buffers));
    QGC_TRY(qgc_plan_memory(plan, o->keep_values || !g->shares_memory, d));
    qgc_place_edges(plan, a);
    plan->seen = seen_buffer(&l);
    *out = (qgc_lowered){.plan = plan,
                         .jobs = l.jobs,
                         .buffers = buffers,
                         .prefill_buffers = prefill_buffers,
                         .persistent_buffers = persistent_buffers,
                         .knobs = l.knobs,
                         .n_knobs = l.n_knobs};
    return QGC_OK;
}
