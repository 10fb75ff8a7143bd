#define _XOPEN_SOURCE 700 /* realpath */
#include "runtime/engine/receipt.h"

#include <stdlib.h>
#include <string.h>

#include "graph/base/hash.h"
#include "graph/base/version.h"
#include "runtime/engine/engine_impl.h"
#include "runtime/engine/report.h"
#include "runtime/engine/sequence_impl.h"

static const char *const names[QGC_N_LINKS] = {
    [QGC_LINK_QGC] = "qgc",       [QGC_LINK_GRAPH] = "graph",     [QGC_LINK_PIPELINE] = "pipeline",
    [QGC_LINK_IMAGES] = "images", [QGC_LINK_WEIGHTS] = "weights", [QGC_LINK_DRIVER] = "driver",
    [QGC_LINK_CARD] = "card",     [QGC_LINK_MODE] = "mode",       [QGC_LINK_SETTINGS] = "settings",
    [QGC_LINK_PROMPT] = "prompt"};

const char *qgc_link_name(qgc_link link) {
    return names[link];
}

/* --- the links ------------------------------------------------------------------------------------------- */

static const char *hash_of(const void *data, size_t bytes, qgc_arena *a) {
    return qgc_arena_strdup(a, qgc_hash128(data, bytes).hex);
}

/* The line "passes: [...]" of a graph's YAML, in *at and *bytes; *bytes is 0 where it has none. */
static void find_pipeline(const char *yaml, const char **at, size_t *bytes) {
    static const char key[] = "passes: [";
    const char *line = yaml;
    while (line && strncmp(line, key, sizeof key - 1) != 0) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    *at = line ? line : yaml;
    *bytes = line ? strcspn(line, "\n") : 0;
}

static const char *pipeline_of(const char *yaml, qgc_arena *a) {
    static const char key[] = "passes: [";
    const char *at;
    size_t bytes;
    find_pipeline(yaml, &at, &bytes);
    qgc_str text = qgc_str_new(a);
    for (size_t i = sizeof key - 1; i + 1 < bytes; i++) /* to before the bracket; quotes are YAML's */
        if (at[i] != '"' && at[i] != '\'')
            qgc_str_add_bytes(&text, &at[i], 1);
    return text.text;
}

static const char *graph_of(const char *yaml, qgc_arena *a) {
    const char *at;
    size_t bytes;
    find_pipeline(yaml, &at, &bytes);
    qgc_str rest = qgc_str_new(a);
    qgc_str_add_bytes(&rest, yaml, (size_t)(at - yaml));
    qgc_str_add(&rest, at + bytes);
    return hash_of(rest.text, rest.bytes, a);
}

/* Of all kernels, though a mode needs only some. */
static const char *images_of(const qgc_engine *e, qgc_arena *a) {
    if (!e->program)
        return "none";
    const qgc_plan *plan = qgc_program_plan(e->program);
    qgc_str all = qgc_str_new(a);
    for (size_t i = 0; i < plan->n_images; i++)
        if (strcmp(plan->archs[plan->images[i].arch], qgc_program_arch(e->program)) == 0)
            qgc_str_printf(&all, "%s\n", qgc_hash128(plan->images[i].data, plan->images[i].bytes).hex);
    return hash_of(all.text, all.bytes, a);
}

static const char *weights_of(const qgc_engine *e, qgc_arena *a) {
    qgc_str all = qgc_str_new(a);
    for (size_t i = 0; i < qgc_weights_count(e->weights); i++) {
        const qgc_tensor *t = qgc_weights_at(e->weights, i);
        qgc_str_printf(&all, "%s %d", t->name, (int)t->dtype);
        for (int k = 0; k < t->rank; k++)
            qgc_str_printf(&all, " %lld", (long long)t->shape[k]);
        qgc_str_printf(&all, " %s\n", qgc_hash128(t->data, t->bytes).hex);
    }
    return hash_of(all.text, all.bytes, a);
}

static const char *driver_of(const qgc_engine *e, qgc_arena *a) {
    if (!e->device)
        return "none";
    const int version = qgc_device_about(e->device)->driver_version;
    return qgc_arena_printf(a, "CUDA %d.%d", version / 1000, version % 1000 / 10);
}

static const char *settings_of(const qgc_receipt *r, qgc_arena *a) {
    const qgc_sampling *s = &r->sampling;
    return qgc_arena_printf(a,
                            "ctx %lld, prefill %s, temperature %.9g, top_k %d, top_p %.9g, min_p %.9g, "
                            "repeat_penalty %.9g, seed %llu",
                            (long long)r->ctx, r->prefill, (double)s->temperature, (int)s->top_k,
                            (double)s->top_p, (double)s->min_p, (double)s->repeat_penalty,
                            (unsigned long long)s->seed);
}

/* A path as it is found from anywhere, if it is one. */
static const char *whole_path(const char *path, qgc_arena *a) {
    char *real = path ? realpath(path, NULL) : NULL;
    const char *copy = qgc_arena_strdup(a, real ? real : path ? path : "");
    (free)(real); /* libc's own, made by realpath */
    return copy;
}

qgc_receipt qgc_receipt_of(qgc_sequence *s, const int32_t *prompt, size_t n_prompt, qgc_arena *a) {
    const qgc_engine *e = qgc_sequence_engine(s);
    const qgc_sequence_options *o = qgc_sequence_options_of(s);
    qgc_receipt r = {.path = whole_path(e->options.path, a),
                     .weights = whole_path(qgc_weights_path(e->weights), a),
                     .device = e->device ? "gpu" : "cpu",
                     .card = e->options.card,
                     .ctx = qgc_sequence_ctx(s),
                     .mode = qgc_sequence_mode(s),
                     .prefill = qgc_sequence_prefill(s),
                     .sampling = o->sampling,
                     .prompt = prompt,
                     .n_prompt = n_prompt};
    r.links[QGC_LINK_QGC] = qgc_version_text;
    r.links[QGC_LINK_GRAPH] = graph_of(e->source.text, a);
    r.links[QGC_LINK_PIPELINE] = pipeline_of(e->source.text, a);
    r.links[QGC_LINK_IMAGES] = images_of(e, a);
    r.links[QGC_LINK_WEIGHTS] = weights_of(e, a);
    r.links[QGC_LINK_DRIVER] = driver_of(e, a);
    r.links[QGC_LINK_CARD] = e->device ? qgc_engine_device(e) : "cpu";
    r.links[QGC_LINK_MODE] = r.mode;
    r.links[QGC_LINK_SETTINGS] = settings_of(&r, a);
    r.links[QGC_LINK_PROMPT] = hash_of(prompt, n_prompt * sizeof *prompt, a);
    return r;
}

qgc_link qgc_receipt_link(const qgc_receipt *a, const qgc_receipt *b) {
    int i = 0;
    while (i < QGC_N_LINKS && strcmp(a->links[i], b->links[i]) == 0)
        i++;
    return (qgc_link)i;
}

int64_t qgc_receipt_token(const qgc_receipt *a, const qgc_receipt *b) {
    size_t i = 0;
    while (i < a->n_ids && i < b->n_ids && a->ids[i] == b->ids[i])
        i++;
    return i == a->n_ids && i == b->n_ids ? -1 : (int64_t)i;
}

/* --- the file -------------------------------------------------------------------------------------------- */

enum { VERSION = 1, MOST_BYTES = 1 << 28 };

static json_t *tokens_json(const int32_t *ids, size_t n) {
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, json_integer(ids[i]));
    return all;
}

static json_t *receipt_json(const qgc_receipt *r) {
    const qgc_sampling *s = &r->sampling;
    json_t *links = json_object();
    for (int i = 0; i < QGC_N_LINKS; i++)
        json_object_set_new(links, names[i], json_string(r->links[i]));
    json_t *sampling = json_pack("{s:f, s:i, s:f, s:f, s:f, s:I}", "temperature", (double)s->temperature,
                                 "top_k", (int)s->top_k, "top_p", (double)s->top_p, "min_p", (double)s->min_p,
                                 "repeat_penalty", (double)s->repeat_penalty, "seed", (json_int_t)s->seed);
    return json_pack("{s:i, s:s, s:s, s:s, s:s?, s:I, s:s, s:s, s:o, s:o, s:o, s:o}", "receipt", VERSION,
                     "path", r->path, "weights", r->weights, "device", r->device, "card", r->card, "ctx",
                     (json_int_t)r->ctx, "mode", r->mode, "prefill", r->prefill, "sampling", sampling,
                     "chain", links, "prompt", tokens_json(r->prompt, r->n_prompt), "ids",
                     tokens_json(r->ids, r->n_ids));
}

qgc_status qgc_receipt_write(const qgc_receipt *r, const char *path, qgc_diag *d) {
    qgc_str text = qgc_str_new(d->arena);
    QGC_TRY(qgc_report_json(receipt_json(r), &text, d));
    return qgc_file_write(path, text.text, text.bytes, d);
}

static bool read_tokens(const json_t *array, const int32_t **ids, size_t *n, qgc_arena *a) {
    *n = json_array_size(array);
    int32_t *all = qgc_arena_array(a, *n + 1, sizeof *all);
    for (size_t i = 0; i < *n; i++) {
        const json_t *id = json_array_get(array, i);
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
            return false;
        all[i] = (int32_t)value;
    }
    *ids = all;
    return json_is_array(array);
}

static bool read_sampling(json_t *sampling, qgc_sampling *out) {
    double temperature, top_p, min_p, repeat_penalty;
    int top_k;
    json_int_t seed;
    if (json_unpack(sampling, "{s:F, s:i, s:F, s:F, s:F, s:I}", "temperature", &temperature, "top_k", &top_k,
                    "top_p", &top_p, "min_p", &min_p, "repeat_penalty", &repeat_penalty, "seed", &seed) != 0)
        return false;
    *out = (qgc_sampling){.temperature = (float)temperature,
                          .top_k = top_k,
                          .top_p = (float)top_p,
                          .min_p = (float)min_p,
                          .repeat_penalty = (float)repeat_penalty,
                          .seed = (uint64_t)seed};
    return true;
}

/* Texts belong to the JSON: they are copied. */
static bool read_texts(json_t *all, qgc_receipt *r, qgc_arena *a) {
    const struct {
        const char *key;
        const char **into;
    } texts[] = {{"path", &r->path},
                 {"weights", &r->weights},
                 {"device", &r->device},
                 {"mode", &r->mode},
                 {"prefill", &r->prefill}};
    const json_t *links = json_object_get(all, "chain"), *card = json_object_get(all, "card");
    bool good = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = json_string_value(json_object_get(all, texts[i].key));
        good = good && text;
        *texts[i].into = text ? qgc_arena_strdup(a, text) : "";
    }
    for (int i = 0; i < QGC_N_LINKS; i++) {
        const char *text = json_string_value(json_object_get(links, names[i]));
        good = good && text;
        r->links[i] = text ? qgc_arena_strdup(a, text) : "";
    }
    r->card = json_is_string(card) ? qgc_arena_strdup(a, json_string_value(card)) : NULL;
    return good;
}

static bool read_receipt(json_t *all, qgc_receipt *r, qgc_arena *a) {
    const json_t *version = json_object_get(all, "receipt"), *ctx = json_object_get(all, "ctx");
    r->ctx = json_integer_value(ctx);
    return json_integer_value(version) == VERSION && json_is_integer(ctx) && read_texts(all, r, a) &&
           read_sampling(json_object_get(all, "sampling"), &r->sampling) &&
           read_tokens(json_object_get(all, "prompt"), &r->prompt, &r->n_prompt, a) &&
           read_tokens(json_object_get(all, "ids"), &r->ids, &r->n_ids, a) && r->n_prompt > 0;
}

qgc_status qgc_receipt_read(qgc_receipt *out, const char *path, qgc_diag *d) {
    qgc_source file;
    json_error_t error;
    *out = (qgc_receipt){0};
    QGC_TRY(qgc_file_read(&file, path, MOST_BYTES, "the receipt", d));
    json_t *all = json_loadb(file.text, file.bytes, JSON_REJECT_DUPLICATES, &error);
    const bool good = all && read_receipt(all, out, d->arena);
    json_decref(all);
    if (good)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" is no receipt of qgc", path);
    qgc_hint(d, "qgc run --receipt FILE writes one.");
    return s;
}

/* --- once more ------------------------------------------------------------------------------------------- */

qgc_status qgc_receipt_open(qgc_engine **out, const qgc_receipt *r, qgc_engine_options *o, qgc_diag *d) {
    o->path = o->path ? o->path : r->path;
    o->weights = o->weights ? o->weights : r->weights;
    o->device = o->device ? o->device : r->device;
    o->card = r->card;
    if (!qgc_engine_is_artifact(o->path))
        o->passes.passes = r->links[QGC_LINK_PIPELINE];
    return qgc_engine_open(out, o, d);
}

static qgc_status make_tokens(const qgc_receipt *r, qgc_sequence *s, int32_t *ids, qgc_diag *d) {
    int32_t next;
    QGC_TRY(qgc_sequence_feed(s, r->prompt, (int64_t)r->n_prompt, &next, d));
    for (size_t i = 0; i < r->n_ids; i++) {
        ids[i] = next;
        if (i + 1 < r->n_ids)
            QGC_TRY(qgc_sequence_step(s, (int64_t)(r->n_ids - i - 1), &next, d));
    }
    return QGC_OK;
}

qgc_status qgc_receipt_again(const qgc_receipt *r, qgc_engine *e, qgc_receipt *out, qgc_diag *d) {
    const bool on_cpu = !e->device;
    const qgc_sequence_options o = {.ctx = r->ctx,
                                    .mode = on_cpu || strcmp(r->mode, "cpu") == 0 ? NULL : r->mode,
                                    .prefill = on_cpu ? "chunks" : r->prefill,
                                    .sampling = r->sampling};
    int32_t *ids = qgc_arena_array(d->arena, r->n_ids + 1, sizeof *ids);
    qgc_sequence *s;
    QGC_TRY(qgc_sequence_new(&s, e, &o, d));
    *out = qgc_receipt_of(s, r->prompt, r->n_prompt, d->arena);
    const qgc_status status = make_tokens(r, s, ids, d);
    out->ids = ids;
    out->n_ids = r->n_ids;
    qgc_sequence_drop(s);
    return status;
}
