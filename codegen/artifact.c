/* Every struct of the file has one function that visits its fields in order, and the same function writes
 * and reads: an `io` either grows a text or takes from one. A field cannot be written and then forgotten
 * when reading. Reading fails once: after that nothing is taken and nothing changes.
 *
 * The form is strict: one plan has one sequence of bytes, and no byte of a file is without meaning. So
 * padding is zero, sections lie side by side, and where images lie follows from their sizes. */

#include "codegen/artifact.h"

#include <assert.h>
#include <string.h>

#include "graph/base/hash.h"
#include "graph/base/str.h"
#include "graph/base/utf8.h"

enum {
    MAGIC = 0x1a434751, /* "QGC\x1a" */
    HEAD_BYTES = 32,
    SECTION_BYTES = 32, /* a row of the section table */
    ALIGN = 64,
    MAX_ROWS = 1 << 24, /* of any table */
};

typedef enum { SECTION_PLAN, SECTION_IMAGES, N_SECTIONS } section_kind;
enum { TABLE_BYTES = N_SECTIONS * SECTION_BYTES };
static const char *const section_names[N_SECTIONS] = {"plan", "images"};

typedef struct {
    qgc_str *out; /* what is written, NULL when reading */

    const unsigned char *data; /* what is read */
    size_t bytes, at;
    bool bad;
    qgc_arena *arena;
} io;

static const unsigned char *take(io *s, size_t bytes) {
    if (s->bad || s->bytes - s->at < bytes) {
        s->bad = true;
        return NULL;
    }
    const unsigned char *taken = s->data + s->at;
    s->at += bytes;
    return taken;
}

/* Simple values. */

static uint64_t visit_bits(io *s, uint64_t value, size_t bytes) {
    if (s->out) {
        unsigned char raw[8];
        for (size_t i = 0; i < bytes; i++)
            raw[i] = (unsigned char)(value >> (8 * i));
        qgc_str_add_bytes(s->out, raw, bytes);
        return value;
    }
    const unsigned char *from = take(s, bytes);
    value = 0;
    for (size_t i = 0; from && i < bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static void visit_u32(io *s, uint32_t *v) {
    *v = (uint32_t)visit_bits(s, *v, 4);
}
static void visit_u64(io *s, uint64_t *v) {
    *v = visit_bits(s, *v, 8);
}
static void visit_i32(io *s, int *v) {
    *v = (int32_t)visit_bits(s, (uint32_t)*v, 4);
}
static void visit_i64(io *s, int64_t *v) {
    *v = (int64_t)visit_bits(s, (uint64_t)*v, 8);
}

static void visit_size(io *s, size_t *v) {
    _Static_assert(sizeof(size_t) == 8, "sizes have 64 bits");
    *v = visit_bits(s, *v, 8);
}

static void visit_f64(io *s, double *v) {
    uint64_t bits;
    memcpy(&bits, v, sizeof bits);
    visit_u64(s, &bits);
    memcpy(v, &bits, sizeof bits);
}

static void visit_bool(io *s, bool *v) {
    uint64_t value = visit_bits(s, *v, 1);
    s->bad |= value > 1;
    *v = value == 1;
}

/* A number that counts something or chooses among `limit`. */
static int visit_choice(io *s, int value, int limit) {
    visit_i32(s, &value);
    if (value >= 0 && value < limit)
        return value;
    assert(!s->out);
    s->bad = true;
    return 0;
}

/* u32 length + 1 and the bytes, or 0 for NULL. A const char ** goes in as void *, for visit_table. */
/* UTF-8 without control characters, as it is printed. */
static bool is_text(const char *text, size_t bytes, bool lines) {
    for (size_t i = 0; i < bytes;) {
        uint32_t c = 0;
        const int length = qgc_utf8_decode(text + i, bytes - i, &c);
        if (length == 0 || (c < 32 && !(lines && c == '\n')) || (c >= 127 && c < 160))
            return false;
        i += (size_t)length;
    }
    return true;
}

static void visit_any_text(io *s, const char **text, bool lines) {
    uint32_t length = s->out && *text ? (uint32_t)strlen(*text) + 1 : 0;
    visit_u32(s, &length);
    if (s->out) {
        if (*text)
            qgc_str_add(s->out, *text);
        return;
    }
    *text = NULL;
    const char *from = length ? (const char *)take(s, length - 1) : NULL;
    if (!from)
        return;
    s->bad |= !is_text(from, length - 1, lines);
    *text = qgc_arena_strndup(s->arena, from, length - 1);
}

static void visit_text(io *s, void *row) {
    visit_any_text(s, row, false);
}

/* A table: the number of rows, then the rows. Each row has at least a byte in the file, and room is made row
 * by row, so a false count cannot ask for much more memory than the file is large. */
static void *visit_table(io *s, void *rows, size_t *n, size_t row_bytes, void (*visit)(io *s, void *row)) {
    visit_size(s, n);
    if (s->out) {
        for (size_t i = 0; i < *n; i++)
            visit(s, (char *)rows + i * row_bytes);
        return rows;
    }
    s->bad |= *n > s->bytes - s->at || *n > MAX_ROWS;
    rows = NULL;
    for (size_t i = 0; i < *n && !s->bad; i++) {
        rows = qgc_arena_grow(s->arena, rows, i, row_bytes);
        visit(s, (char *)rows + i * row_bytes);
    }
    if (s->bad)
        *n = 0;
    return rows;
}

/* The structs of codegen/plan.h. */

static void visit_extent(io *s, qgc_extent *e) {
    visit_i64(s, &e->fixed);
    visit_i64(s, &e->per_token);
    visit_i64(s, &e->per_row);
    visit_i64(s, &e->per_ctx);
    visit_i64(s, &e->most_ctx);
}

static void visit_keys(io *s, const char ***keys, int *n) {
    size_t count = (size_t)*n;
    *keys = visit_table(s, (void *)*keys, &count, sizeof **keys, visit_text);
    *n = (int)count;
}

static void visit_number(io *s, void *row) {
    visit_f64(s, row);
}

static void visit_numbers(io *s, double **numbers, int *n) {
    size_t count = (size_t)*n;
    *numbers = visit_table(s, *numbers, &count, sizeof **numbers, visit_number);
    *n = (int)count;
}

static void visit_param(io *s, void *row) {
    qgc_plan_param *m = row;
    visit_text(s, &m->name);
    visit_f64(s, &m->value);
    visit_keys(s, &m->gguf, &m->n_gguf);
    visit_keys(s, &m->hf, &m->n_hf);
    visit_keys(s, &m->words, &m->n_words);
    visit_numbers(s, &m->values, &m->turns);
    visit_numbers(s, &m->otherwise, &m->n_otherwise);
}

static void visit_form(io *s, qgc_tensor_form *f) {
    visit_text(s, &f->stacked_index);
    visit_i64(s, &f->stacked);
    visit_bool(s, &f->transposed);
    visit_i64(s, &f->first);
    visit_i64(s, &f->last);
    visit_i64(s, &f->of);
    visit_i64(s, &f->heads);
    visit_f64(s, &f->plus);
}

static void visit_derivation(io *s, qgc_derivation *how) {
    how->kind = (qgc_derive_kind)visit_choice(s, (int)how->kind, QGC_N_DERIVE);
    if (how->kind == QGC_DERIVE_NONE)
        return;
    how->n_from = visit_choice(s, how->n_from, QGC_MAX_SOURCES + 1);
    for (int i = 0; i < how->n_from; i++)
        visit_i32(s, &how->from[i]);
    visit_i64(s, &how->first);
    visit_i64(s, &how->last);
    visit_f64(s, &how->factor);
    visit_i64(s, &how->head_dim);
}

static void visit_weight(io *s, void *row) {
    qgc_plan_weight *w = row;
    visit_text(s, &w->label);
    visit_text(s, &w->gguf);
    visit_text(s, &w->hf);
    visit_i32(s, &w->tied);
    w->rank = visit_choice(s, w->rank, QGC_MAX_RANK + 1);
    for (int i = 0; i < w->rank; i++)
        visit_i64(s, &w->shape[i]);
    w->storage = (qgc_dtype)visit_choice(s, (int)w->storage, QGC_N_DTYPES);
    visit_form(s, &w->gguf_form);
    visit_form(s, &w->hf_form);
    visit_derivation(s, &w->derived);
}

static void visit_buffer(io *s, void *row) {
    qgc_plan_buffer *b = row;
    visit_text(s, &b->name);
    b->kind = (qgc_buffer_kind)visit_choice(s, (int)b->kind, QGC_N_BUFFER_KINDS);
    visit_extent(s, &b->bytes);
    visit_i32(s, &b->weight);
    visit_i32(s, &b->io);
    visit_i64(s, &b->offset);
}

static void visit_kernel(io *s, void *row) {
    qgc_plan_kernel *k = row;
    visit_text(s, &k->name);
    visit_text(s, &k->entry);
    visit_text(s, &k->options);
    visit_any_text(s, &k->program, true);
    visit_any_text(s, &k->unchecked, true);
    visit_i32(s, &k->threads);
    visit_i32(s, &k->copy_threads);
    visit_i32(s, &k->shared_bytes);
    visit_i32(s, &k->least_shared_bytes);
    visit_bool(s, &k->waits);
    k->lets_next = (qgc_next)visit_choice(s, (int)k->lets_next, QGC_N_NEXT);
}

/* The machine code itself is in a section of its own. */
static void visit_image(io *s, void *row) {
    qgc_plan_image *m = row;
    visit_i32(s, &m->kernel);
    visit_i32(s, &m->arch);
    visit_size(s, &m->bytes);
}

static void visit_arg(io *s, qgc_plan_arg *arg) {
    arg->kind = (qgc_arg_kind)visit_choice(s, (int)arg->kind, QGC_N_ARG_KINDS);
    visit_i32(s, &arg->buffer);
    visit_extent(s, &arg->value);
    arg->access = visit_choice(s, arg->access, QGC_N_ACCESS);
}

static void visit_part(io *s, void *row) {
    qgc_plan_part *part = row;
    visit_text(s, &part->name);
    visit_i64(s, &part->weight_bytes);
    visit_i64(s, &part->position_bytes);
}

static void visit_launch(io *s, void *row) {
    qgc_plan_launch *l = row;
    l->kind = (qgc_launch_kind)visit_choice(s, (int)l->kind, QGC_N_LAUNCH_KINDS);
    visit_text(s, &l->node);
    visit_text(s, &l->where);
    visit_i32(s, &l->kernel);
    for (int i = 0; i < 3; i++) {
        visit_extent(s, &l->grid[i]);
        visit_i64(s, &l->per_block[i]);
    }
    l->n_args = visit_choice(s, l->n_args, QGC_MAX_ARGS + 1);
    for (int i = 0; i < l->n_args; i++)
        visit_arg(s, &l->args[i]);
    visit_i32(s, &l->a);
    visit_i32(s, &l->b);
    visit_i32(s, &l->c);
    visit_extent(s, &l->rows);
    visit_i64(s, &l->n);
    visit_i64(s, &l->k);
    visit_bool(s, &l->accumulate);
    visit_bool(s, &l->early);
    visit_text(s, &l->not_early);
    visit_bool(s, &l->on_all);
    visit_i64(s, &l->weight_bytes);
    visit_i64(s, &l->position_bytes);
    size_t n_parts = (size_t)l->n_parts;
    l->parts = visit_table(s, l->parts, &n_parts, sizeof *l->parts, visit_part);
    l->n_parts = (int)n_parts;
    visit_i32(s, &l->n_layers);
}

static void visit_share(io *s, void *row) {
    qgc_share *x = row;
    visit_i64(s, &x->rows);
    visit_i64(s, &x->unit);
    visit_i64(s, &x->cost);
    visit_i32(s, &x->loop);
    visit_i32(s, &x->apart);
}

static void visit_plan(io *s, qgc_plan *p) {
    visit_text(s, &p->name);
    visit_text(s, &p->arch);
    visit_text(s, &p->gguf_arch);
    visit_text(s, &p->hf_arch);
    p->ignored = visit_table(s, (void *)p->ignored, &p->n_ignored, sizeof *p->ignored, visit_text);
    visit_any_text(s, &p->graph, true);
    visit_any_text(s, &p->source, true);
    visit_text(s, &p->compiler);
    visit_text(s, &p->weights_path);
    visit_i64(s, &p->vocab);
    visit_i64(s, &p->max_positions);
    visit_i64(s, &p->spare);
    visit_i64(s, &p->chunk);
    visit_i64(s, &p->long_chunk);
    visit_i64(s, &p->scratch_bytes);
    visit_text(s, &p->not_persistent);
    visit_i64(s, &p->least_sms);
    visit_i32(s, &p->trace);
    visit_i32(s, &p->seen);
    p->shares = visit_table(s, p->shares, &p->n_shares, sizeof *p->shares, visit_share);
    visit_i32(s, &p->shares_buffer);
    p->n_archs = visit_choice(s, p->n_archs, QGC_MAX_ARCHS + 1);
    for (int i = 0; i < p->n_archs; i++)
        visit_text(s, &p->archs[i]);
    p->params = visit_table(s, p->params, &p->n_params, sizeof *p->params, visit_param);
    p->weights = visit_table(s, p->weights, &p->n_weights, sizeof *p->weights, visit_weight);
    p->buffers = visit_table(s, p->buffers, &p->n_buffers, sizeof *p->buffers, visit_buffer);
    p->kernels = visit_table(s, p->kernels, &p->n_kernels, sizeof *p->kernels, visit_kernel);
    p->images = visit_table(s, p->images, &p->n_images, sizeof *p->images, visit_image);
    for (int i = 0; i < QGC_N_PHASES; i++) {
        qgc_phase *phase = &p->phases[i];
        phase->launches =
            visit_table(s, phase->launches, &phase->n_launches, sizeof *phase->launches, visit_launch);
    }
    for (int i = 0; i < QGC_N_IO; i++)
        visit_i32(s, &p->io[i]);
}

/* The file around them. */

typedef struct {
    uint32_t magic, version;
    uint64_t bytes;
    uint32_t n_sections, zero;
    uint64_t table_hash;
} head;

typedef struct {
    uint32_t kind, zero;
    uint64_t offset, bytes, hash;
} section;

static void visit_head(io *s, head *h) {
    visit_u32(s, &h->magic);
    visit_u32(s, &h->version);
    visit_u64(s, &h->bytes);
    visit_u32(s, &h->n_sections);
    visit_u32(s, &h->zero);
    visit_u64(s, &h->table_hash);
}

static void visit_section(io *s, section *x) {
    visit_u32(s, &x->kind);
    visit_u32(s, &x->zero);
    visit_u64(s, &x->offset);
    visit_u64(s, &x->bytes);
    visit_u64(s, &x->hash);
}

static size_t aligned(size_t bytes) {
    return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static void pad(qgc_str *s) {
    static const char zeros[ALIGN];
    qgc_str_add_bytes(s, zeros, aligned(s->bytes) - s->bytes);
}

void qgc_artifact_pack(const qgc_plan *p, qgc_arena *a, const void **data, size_t *bytes) {
    qgc_str content[N_SECTIONS] = {qgc_str_new(a), qgc_str_new(a)};
    qgc_plan fields = *p;
    visit_plan(&(io){.out = &content[SECTION_PLAN]}, &fields);
    for (size_t i = 0; i < p->n_images; i++) {
        pad(&content[SECTION_IMAGES]);
        qgc_str_add_bytes(&content[SECTION_IMAGES], p->images[i].data, p->images[i].bytes);
    }

    qgc_str table = qgc_str_new(a);
    size_t end = HEAD_BYTES + TABLE_BYTES;
    for (uint32_t i = 0; i < N_SECTIONS; i++) {
        const qgc_str *c = &content[i];
        section x = {
            .kind = i, .offset = aligned(end), .bytes = c->bytes, .hash = qgc_hash64(c->text, c->bytes)};
        visit_section(&(io){.out = &table}, &x);
        end = aligned(end) + c->bytes;
    }

    qgc_str file = qgc_str_new(a);
    head h = {MAGIC, QGC_ARTIFACT_VERSION, end, N_SECTIONS, 0, qgc_hash64(table.text, table.bytes)};
    visit_head(&(io){.out = &file}, &h);
    qgc_str_add_bytes(&file, table.text, table.bytes);
    for (int i = 0; i < N_SECTIONS; i++) {
        pad(&file);
        qgc_str_add_bytes(&file, content[i].text, content[i].bytes);
    }
    assert(file.bytes == end);
    *data = file.text;
    *bytes = file.bytes;
}

/* Takes what fills up to a multiple of 64; false unless it is zeros. */
static bool take_padding(io *s) {
    size_t n = aligned(s->at) - s->at;
    const unsigned char *padding = take(s, n);
    for (size_t i = 0; padding && i < n; i++)
        if (padding[i] != 0)
            return false;
    return padding != NULL;
}

static qgc_status read_head(io *s, head *h, qgc_loc at, qgc_diag *d) {
    visit_u32(s, &h->magic);
    if (s->bad || h->magic != MAGIC)
        return qgc_fail(d, QGC_ERR_INPUT, at, "is not a .qgc file");
    visit_u32(s, &h->version);
    if (!s->bad && h->version != QGC_ARTIFACT_VERSION) {
        qgc_status status = qgc_fail(d, QGC_ERR_INPUT, at, "the file has version %u, expected %d", h->version,
                                     QGC_ARTIFACT_VERSION);
        qgc_hint(d, "Compile the model again with this qgc%s.",
                 h->version > QGC_ARTIFACT_VERSION ? ", or run it with a newer one" : "");
        return status;
    }
    s->at = 0;
    visit_head(s, h);
    if (s->bad)
        return qgc_fail(d, QGC_ERR_INPUT, at, "the file is truncated: %zu bytes", s->bytes);
    if (h->bytes > s->bytes)
        return qgc_fail(d, QGC_ERR_INPUT, at, "the file is truncated: %zu bytes, expected %llu", s->bytes,
                        (unsigned long long)h->bytes);
    if (h->bytes < s->bytes)
        return qgc_fail(d, QGC_ERR_INPUT, at, "the file is too long: %zu bytes, expected %llu", s->bytes,
                        (unsigned long long)h->bytes);
    return QGC_OK;
}

/* Reads the section table; where everything lies and every checksum is right when this returns. */
static qgc_status read_sections(io *s, const head *h, io sections[N_SECTIONS], qgc_loc at, qgc_diag *d) {
    const unsigned char *table = s->data + s->at;
    bool good = h->n_sections == N_SECTIONS && h->zero == 0 && s->bytes - s->at >= TABLE_BYTES &&
                qgc_hash64(table, TABLE_BYTES) == h->table_hash;
    section rows[N_SECTIONS] = {0};
    for (uint32_t i = 0; good && i < N_SECTIONS; i++) {
        visit_section(s, &rows[i]);
        good = rows[i].kind == i && rows[i].zero == 0;
    }
    for (int i = 0; good && i < N_SECTIONS; i++) {
        good = take_padding(s) && s->at == rows[i].offset;
        const unsigned char *data = good ? take(s, rows[i].bytes) : NULL;
        if (data && qgc_hash64(data, rows[i].bytes) != rows[i].hash)
            return qgc_fail(d, QGC_ERR_INPUT, at, "section \"%s\" of the file is damaged", section_names[i]);
        good = data != NULL;
        sections[i] = (io){.data = data, .bytes = rows[i].bytes, .arena = d->arena};
    }
    if (!good || s->at != s->bytes)
        return qgc_fail(d, QGC_ERR_INPUT, at, "the section table of the file is damaged");
    return QGC_OK;
}

/* Images lie in the order of their table, each at a multiple of 64, and fill the section. */
static bool place_images(io *s, qgc_plan *p) {
    for (size_t i = 0; i < p->n_images; i++) {
        if (!take_padding(s))
            return false;
        p->images[i].data = take(s, p->images[i].bytes);
    }
    return !s->bad && s->at == s->bytes;
}

static qgc_status malformed(section_kind kind, const io *s, qgc_loc at, qgc_diag *d) {
    return qgc_fail(d, QGC_ERR_INPUT, at, "section \"%s\" of the file is malformed at byte %zu",
                    section_names[kind], s->at);
}

qgc_status qgc_artifact_unpack(qgc_plan **out, const void *data, size_t bytes, qgc_loc at, qgc_diag *d) {
    io file = {.data = data, .bytes = bytes};
    io sections[N_SECTIONS] = {0};
    head h = {0};
    QGC_TRY(read_head(&file, &h, at, d));
    QGC_TRY(read_sections(&file, &h, sections, at, d));

    qgc_plan *p = qgc_arena_alloc(d->arena, sizeof *p);
    io *fields = &sections[SECTION_PLAN], *images = &sections[SECTION_IMAGES];
    visit_plan(fields, p);
    if (fields->bad || fields->at != fields->bytes)
        return malformed(SECTION_PLAN, fields, at, d);
    if (!place_images(images, p))
        return malformed(SECTION_IMAGES, images, at, d);
    QGC_TRY(qgc_plan_check(p, at, d));
    *out = p;
    return QGC_OK;
}
