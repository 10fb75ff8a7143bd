#include "codegen/outside_phase.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

#include "graph/base/map.h"
#include "graph/base/str.h"

/* --- what it is handed ----------------------------------------------------------------------------------- */

typedef struct {
    const qgc_outside_stage *o;
    qgc_outside_phase *out;
    const char **why;
    qgc_arena *arena;
} fitting;

static bool no(const fitting *f, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool no(const fitting *f, const char *format, ...) {
    va_list args;
    va_start(args, format);
    *f->why = qgc_arena_vprintf(f->arena, format, args);
    va_end(args);
    return false;
}

enum {
    MOST_BYTES = 160 << 10, /* of the vectors, which leave room for pieces */
    MOST_PIECE = 2048       /* elements */
};

/* Elements of a value in a decode step, or 0 if they depend on the number of positions. */
static int64_t elems_of(const qgc_value *v) {
    const int64_t n = qgc_shape_elems(&v->shape, &(qgc_sizes){1, 1, 64});
    return n == qgc_shape_elems(&v->shape, &(qgc_sizes){1, 1, 65}) ? n : 0;
}

static bool is_input(const qgc_value *v, const char *name) {
    return v->kind == QGC_INPUT && strcmp(v->name, name) == 0;
}

static bool fit_vector(const fitting *f, int i, const qgc_value *v) {
    const char *name = f->o->row.params[i].name;
    f->out->widths[i] = elems_of(v);
    if (v->kind == QGC_STATE || qgc_value_is_version(v))
        return no(f, "\"%s\" is a state, which a phase does not hand to a device function", name);
    if (v->kind == QGC_WEIGHT && v->shape.rank > 1)
        return no(f, "\"%s\" is a matrix, which a phase does not hand to a device function", name);
    if (qgc_outside_type(v) != QGC_F32 || f->out->widths[i] % 4 != 0 || f->out->widths[i] == 0)
        return no(f, "\"%s\" is no vector of f32 with a multiple of 4 elements", name);
    f->out->params[i] = v->kind == QGC_WEIGHT ? QGC_PHASE_WEIGHT : QGC_PHASE_VECTOR;
    return true;
}

static bool fit_result(const fitting *f, int i, const qgc_value *v) {
    qgc_outside_phase *p = f->out;
    if (p->result >= 0)
        return no(f, "it writes two values, and a phase publishes one");
    if (!fit_vector(f, i, v))
        return false;
    p->params[i] = QGC_PHASE_RESULT;
    p->result = i;
    p->pieces = p->widths[i] / p->piece;
    return p->pieces * p->piece == p->widths[i] ||
           no(f, "\"%s\" has %lld elements, no multiple of the %lld of a piece", f->o->row.params[i].name,
              (long long)p->widths[i], (long long)p->piece);
}

static bool fit_param(const fitting *f, int i) {
    const qgc_outside_param *param = &f->o->row.params[i];
    if (param->value < 0) {
        f->out->params[i] = QGC_PHASE_NUMBER;
        return true;
    }
    const qgc_value *v = f->o->value[param->value];
    if (param->writes)
        return fit_result(f, i, v);
    if (is_input(v, "tokens") || is_input(v, "positions")) {
        f->out->params[i] = is_input(v, "tokens") ? QGC_PHASE_TOKEN : QGC_PHASE_POSITION;
        return true;
    }
    return fit_vector(f, i, v);
}

bool qgc_outside_phase_of(const qgc_outside_stage *o, const qgc_outside_launch *with, int64_t gap,
                          qgc_outside_phase *out, const char **why, qgc_arena *a) {
    const fitting f = {o, out, why, a};
    *out = (qgc_outside_phase){.result = -1, .piece = with->piece};
    if (!o->row.row->phase)
        return no(&f, "its row gives no device function");
    if (with->piece > MOST_PIECE)
        return no(&f, "a piece of %lld elements is longer than %d", (long long)with->piece, MOST_PIECE);
    int64_t bytes = 0; /* the gaps do not count: what has a phase has a check */
    for (int i = 0; i < o->row.n_params; i++) {
        if (!fit_param(&f, i))
            return false;
        out->at[i] = out->out_at;
        if (out->params[i] != QGC_PHASE_VECTOR)
            continue;
        out->out_at += out->widths[i] + gap;
        bytes += 4 * out->widths[i];
    }
    if (bytes > MOST_BYTES)
        return no(&f, "its vectors take %lld bytes of shared memory, more than %d", (long long)bytes,
                  MOST_BYTES);
    return true;
}

/* --- its text -------------------------------------------------------------------------------------------- */

/* What belongs to a block, or to a launch: a warp that calls the function is one of a block which does other things, too. */
static const char *const of_a_block[] = {"__syncthreads", "__shared__",     "DYNAMIC_SHARED",    "block_sum",
                                         "block_max",     "threadIdx",      "blockIdx",          "gridDim",
                                         "blockDim",      "let_next_start", "wait_for_previous", NULL};

/* Options of the persistent kernel, which are none of the function. */
static const char *const of_the_step[] = {"TRACE",         "STREAMS",     "WAITS",
                                          "TYPICAL_SMS",   "DEPTH",       "HELD_LONG",
                                          "HELD",          "MERGE_DEPTH", "HEAD_DEPTH",
                                          "PARTS",         "TOGETHER",    "ALONE",
                                          "SHARED_BYTES",  "HELD_BLOCKS", "HELD_LONG_BLOCKS",
                                          "TILES_AT_ONCE", "PREPARED",    "PREPARED_BLOCKS",
                                          "INTO_L2",       "AHEAD_PACE",  NULL};

typedef struct {
    qgc_str *t;
    qgc_arena *arena;
    qgc_map hidden; /* macros that are none after it */
} spacing;

static void hide(spacing *s, const char *name) {
    if (qgc_map_put(&s->hidden, name, s))
        qgc_str_printf(s->t, "#undef %s\n", name);
}

static size_t word_bytes(const char *at) {
    size_t n = 0;
    while (isalnum((unsigned char)at[n]) || at[n] == '_')
        n++;
    return n;
}

/* What comes after "#word" in a line, NULL where the line is no such directive. */
static const char *directive(const char *line, const char *word) {
    line += strspn(line, " \t");
    if (*line++ != '#')
        return NULL;
    line += strspn(line, " \t");
    const size_t n = strlen(word);
    return strncmp(line, word, n) == 0 && !isalnum((unsigned char)line[n])
               ? line + n + strspn(line + n, " \t")
               : NULL;
}

static const char *next_line(const char *line) {
    line += strcspn(line, "\n");
    return *line ? line + 1 : line;
}

static const char *type_of(qgc_phase_param p) {
    return p == QGC_PHASE_NUMBER                             ? "i32 "
           : p == QGC_PHASE_RESULT                           ? "float *"
           : p == QGC_PHASE_TOKEN || p == QGC_PHASE_POSITION ? "const i32 *"
                                                             : "const float *";
}

const char *qgc_outside_phase_declaration(const qgc_outside_stage *o, const qgc_outside_phase *p,
                                          const char *space, qgc_arena *a) {
    qgc_str t = qgc_str_new(a);
    const char *text = o->row.row->text;
    for (const char *line = text; *line; line = next_line(line))
        if (directive(line, "include"))
            qgc_str_printf(&t, "%.*s\n", (int)strcspn(line, "\n"), line);
    qgc_str_printf(&t, "namespace %s {\n__device__ void %s_phase(int piece, int lane", space,
                   o->row.row->name);
    for (int i = 0; i < o->row.n_params; i++)
        qgc_str_printf(&t, ", %s", type_of(p->params[i]));
    qgc_str_add(&t, ");\n}\n");
    return t.text;
}

static void hide_own(spacing *s, const char *text) {
    for (const char *line = text; *line; line = next_line(line)) {
        const char *name = directive(line, "define");
        name = name ? name : directive(line, "undef");
        if (name)
            hide(s, qgc_arena_strndup(s->arena, name, word_bytes(name)));
    }
}

static void define_options(spacing *s, const qgc_outside_launch *with) {
    for (int i = 0; i < with->n_options; i++) {
        const char *name = with->options[i] + 2, *value = strchr(name, '=');
        name = qgc_arena_strndup(s->arena, name, (size_t)(value - name));
        hide(s, name);
        qgc_str_printf(s->t, "#define %s %s\n", name, value + 1);
    }
}

static void put_text(const char *text, qgc_str *t) {
    for (const char *line = text; *line; line = next_line(line))
        qgc_str_printf(t, "%.*s\n", directive(line, "include") ? 0 : (int)strcspn(line, "\n"), line);
}

const char *qgc_outside_phase_space(const qgc_outside_stage *o, const qgc_outside_launch *with,
                                    const char *space, qgc_arena *a) {
    const char *text = o->row.row->text;
    qgc_str t = qgc_str_new(a);
    spacing s = {.t = &t, .arena = a, .hidden = qgc_map_new(a)};
    for (int i = 0; of_the_step[i]; i++)
        hide(&s, of_the_step[i]);
    hide_own(&s, text);
    define_options(&s, with);
    for (int i = 0; of_a_block[i]; i++) {
        hide(&s, of_a_block[i]);
        qgc_str_printf(&t, "#define %s a_device_function_has_no_%s\n", of_a_block[i], of_a_block[i]);
    }
    hide(&s, "AS_PHASE");
    qgc_str_printf(&t, "#define AS_PHASE 1\nnamespace %s {\n", space);
    put_text(text, &t);
    qgc_str_printf(&t, "}\n");
    for (size_t i = s.hidden.n; i-- > 0;)
        qgc_str_printf(&t, "#undef %s\n", s.hidden.entries[i].key);
    return t.text;
}

/* --- its check ------------------------------------------------------------------------------------------- */

enum { BLOCKS = 2, WARPS = 3, GAP = 32 };

/* Around a vector and a piece lies what is no number, and it has to stay. */
static const char before[] = "    DYNAMIC_SHARED(16, float, memory);\n"
                             "    wait_for_previous();\n"
                             "    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;\n"
                             "    const float none = bits_f32(0x7FC05A5Au);\n"
                             "    for (int e = thread; e < OUT_AT; e += THREADS)\n"
                             "        memory[e] = none;\n"
                             "    __syncthreads();\n";
static const char calls[] =
    "    __syncthreads();\n"
    "    float *out = memory + OUT_AT + warp * (PIECE + 2 * GAP) + GAP;\n"
    "    for (int piece = blockIdx.x + warp * gridDim.x; piece < PIECES; piece += WARPS * gridDim.x) {\n"
    "        for (int e = lane - GAP; e < PIECE + GAP; e += 32)\n"
    "            out[e] = none;\n"
    "        __syncwarp();\n";
static const char after[] =
    "        __syncwarp();\n"
    "        float touched = 0.0f;\n"
    "        for (int e = lane; e < GAP; e += 32)\n"
    "            if (__float_as_uint(out[e - GAP]) != 0x7FC05A5Au || __float_as_uint(out[PIECE + e]) != 0x7FC05A5Au)\n"
    "                touched = 1.0f;\n"
    "        touched = warp_max(touched);\n"
    "        for (int e = lane; e < PIECE; e += 32)\n"
    "            result[piece * PIECE + e] = touched != 0.0f ? none : out[e];\n"
    "        __syncwarp();\n"
    "    }\n"
    "    __syncthreads();\n"
    "    bool changed = false;\n";

static void put_signature(const qgc_outside_stage *o, const qgc_outside_phase *p, const char *entry,
                          qgc_str *t) {
    qgc_str_printf(t, "extern \"C\" __global__ void __launch_bounds__(%d) %s(", 32 * WARPS, entry);
    for (int i = 0; i < o->row.n_params; i++)
        qgc_str_printf(t, "%s%s%s", i ? ", " : "", type_of(p->params[i]),
                       i == p->result ? "result" : qgc_arena_printf(t->arena, "p%d", i));
    qgc_str_printf(
        t,
        ") {\n    enum { PIECE = %lld, PIECES = %lld, OUT_AT = %lld, WARPS = %d, THREADS = %d, GAP = %d };\n",
        (long long)p->piece, (long long)p->pieces, (long long)p->out_at, WARPS, 32 * WARPS, GAP);
}

static void put_call(const qgc_outside_stage *o, const qgc_outside_phase *p, qgc_str *t) {
    qgc_str_printf(t, "        the_phase::%s_phase(piece, lane", o->row.row->name);
    for (int i = 0; i < o->row.n_params; i++)
        if (p->params[i] == QGC_PHASE_VECTOR)
            qgc_str_printf(t, ", memory + %lld", (long long)p->at[i]);
        else
            qgc_str_add(t, i == p->result ? ", out" : qgc_arena_printf(t->arena, ", p%d", i));
    qgc_str_add(t, ");\n");
}

static void put_body(const qgc_outside_stage *o, const qgc_outside_phase *p, qgc_str *t) {
    qgc_str_add(t, before);
    for (int i = 0; i < o->row.n_params; i++)
        if (p->params[i] == QGC_PHASE_VECTOR)
            qgc_str_printf(
                t, "    for (int e = thread; e < %lld; e += THREADS)\n        memory[%lld + e] = p%d[e];\n",
                (long long)p->widths[i], (long long)p->at[i], i);
    qgc_str_add(t, calls);
    put_call(o, p, t);
    qgc_str_add(t, after);
    for (int i = 0; i < o->row.n_params; i++)
        if (p->params[i] == QGC_PHASE_VECTOR)
            qgc_str_printf(
                t,
                "    for (int e = thread; e < %lld + GAP; e += THREADS)\n"
                "        changed |= __float_as_uint(memory[%lld + e]) != (e < %lld ? __float_as_uint(p%d[e]) : 0x7FC05A5Au);\n",
                (long long)p->widths[i], (long long)p->at[i], (long long)p->widths[i], i);
    qgc_str_add(t,
                "    if (changed && blockIdx.x < PIECES)\n        result[blockIdx.x * PIECE] = none;\n}\n");
}

bool qgc_outside_phase_kernel(qgc_outside_stage *o, qgc_outside_launch *launch, qgc_phase_kernel *out,
                              qgc_arena *a) {
    qgc_outside_phase p = {0};
    const char *why, *name = o->row.row->name;
    if (!qgc_outside_phase_of(o, launch, GAP, &p, &why, a))
        return false;
    qgc_str t = qgc_str_new(a);
    qgc_str_add(&t, "#define APPROXIMATE 1\n#include \"common.cuh\"\n#include \"pointwise.cuh\"\n");
    qgc_str_add(&t, qgc_outside_phase_declaration(o, &p, "the_phase", a));
    out->entry = qgc_arena_printf(a, "%s_as_phase", name);
    out->file = qgc_arena_printf(a, "outside/%s.cu", out->entry);
    put_signature(o, &p, out->entry, &t);
    put_body(o, &p, &t);
    qgc_str_add(&t, qgc_outside_phase_space(o, launch, "the_phase", a));
    out->text = t.text;
    o->row.waits = true;
    o->row.next = QGC_OUTSIDE_AT_END;
    o->row.prefill = false;
    launch->n_options = 0;
    launch->options[0] = NULL;
    launch->threads = 32 * WARPS;
    launch->shared_bytes = (int)(4 * (p.out_at + WARPS * (p.piece + 2 * GAP)));
    for (int i = 0; i < 3; i++) {
        launch->grid[i] = (qgc_extent){.fixed = i ? 1 : BLOCKS};
        launch->per_block[i] = 1;
    }
    return true;
}
