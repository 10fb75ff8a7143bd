#include <jansson.h>
#include <string.h>

#include "graph/base/str.h"
#include "models/weights_impl.h"

/* safetensors (github.com/huggingface/safetensors#format) and what stands beside it in a Hugging Face folder.
 *
 *   u64 n  |  n bytes of JSON, the header  |  the tensors' bytes
 *   {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ..., "__metadata__": {...}}
 *
 * Offsets count from the end of the header. The tensors have to cover those bytes exactly, so a file cannot
 * hide anything between them or let two of them share bytes. */

enum {
    MAX_HEADER_BYTES = 16 << 20,
    MAX_CONFIG_BYTES = 1 << 20,
    MAX_ENTRIES = 65536,
    MAX_SHARDS = 1024,
};

/* Parses JSON; `of` names it in errors. The caller drops the result with json_decref. */
static qgc_status parse_json(json_t **out, const void *text, size_t bytes, const char *of, qgc_loc at,
                             qgc_diag *d) {
    json_error_t e;
    *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &e);
    if (!*out) {
        if (at.source->text) {
            at.line = e.line;
            at.col = e.column;
        }
        /* the text may quote the file */
        for (char *p = e.text; *p; p++)
            if ((unsigned char)*p < 32 || *p == 127)
                *p = '?';
        return qgc_fail(d, QGC_ERR_INPUT, at, "%s is not valid JSON: %s", of, e.text);
    }
    if (!json_is_object(*out))
        return qgc_fail(d, QGC_ERR_INPUT, at, "%s is not a JSON object", of);
    return QGC_OK;
}

typedef struct {
    qgc_weights *w;
    const unsigned char *data; /* of the tensors, after the header */
    size_t bytes;
    qgc_loc at;
    qgc_diag *d;
} reader;

static qgc_status read_dtype(const reader *r, const json_t *entry, qgc_tensor *t) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensor \"%s\" has no \"dtype\" that is a string",
                        t->name);
    if (strcmp(dtype, "F32") == 0)
        t->dtype = QGC_F32;
    else if (strcmp(dtype, "F16") == 0)
        t->dtype = QGC_F16;
    else if (strcmp(dtype, "BF16") == 0)
        t->dtype = QGC_BF16;
    else {
        qgc_status s = QGC_ERR_INPUT;
        if (qgc_weights_name_fault(dtype, strlen(dtype)))
            s = qgc_fail(r->d, s, r->at, "tensor \"%s\" has a dtype that is no name", t->name);
        else
            s = qgc_fail(r->d, s, r->at, "tensor \"%s\" is stored as %s, which is not supported", t->name,
                         dtype);
        qgc_hint(r->d, "Supported are F32, F16, BF16.");
        return s;
    }
    return QGC_OK;
}

/* The shape, and the size in bytes of what it spans. */
static qgc_status read_shape(const reader *r, const json_t *entry, qgc_tensor *t) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensor \"%s\" has no \"shape\" that is a list", t->name);
    if (json_array_size(shape) > QGC_MAX_RANK)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensor \"%s\" has rank %zu, expected at most %d",
                        t->name, json_array_size(shape), QGC_MAX_RANK);
    t->rank = (int)json_array_size(shape);
    int64_t bytes = qgc_dtypes[t->dtype].block_bytes;
    for (int i = 0; i < t->rank; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 1)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                            "tensor \"%s\" has a dimension that is not an integer of at least 1", t->name);
        t->shape[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(bytes, t->shape[i], &bytes))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensor \"%s\" is larger than any file", t->name);
    }
    t->bytes = (size_t)bytes;
    return QGC_OK;
}

static qgc_status read_offsets(const reader *r, const json_t *entry, qgc_tensor *t) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensor \"%s\" has no \"data_offsets\" of two integers",
                        t->name);
    int64_t begin = json_integer_value(first), end = json_integer_value(second);
    if (begin < 0 || end < begin || (uint64_t)end > r->bytes)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "tensor \"%s\" is at offsets %lld to %lld, which is not inside the %zu bytes of data",
                        t->name, (long long)begin, (long long)end, r->bytes);
    if ((uint64_t)(end - begin) != t->bytes)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensor \"%s\" spans %lld bytes, its shape and dtype %zu",
                        t->name, (long long)(end - begin), t->bytes);
    t->data = r->data + begin;
    return QGC_OK;
}

static qgc_status read_entry(const reader *r, const char *name, const json_t *entry) {
    size_t bytes = strlen(name);
    const char *fault = qgc_weights_name_fault(name, bytes);
    if (fault)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "the name of a tensor %s", fault);
    if (!json_is_object(entry))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensor \"%s\" is not described by a JSON object", name);
    qgc_tensor *t = qgc_weights_add(r->w, name, bytes);
    if (!t)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensor \"%s\" is in another of the files too", name);
    QGC_TRY(read_dtype(r, entry, t));
    QGC_TRY(read_shape(r, entry, t));
    return read_offsets(r, entry, t);
}

/* Sorts the tensors of this file by their place, and checks that each begins where the one before it ends. */
static qgc_status check_cover(const reader *r, qgc_tensor **tensors, size_t n) {
    qgc_weights_sort_by_place(tensors, n);
    const unsigned char *covered = r->data, *end = r->data + r->bytes;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *begin = tensors[i]->data;
        if (begin < covered)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "tensors \"%s\" and \"%s\" share bytes of the file",
                            tensors[i - 1]->name, tensors[i]->name);
        if (begin > covered)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%zu bytes before tensor \"%s\" belong to no tensor",
                            (size_t)(begin - covered), tensors[i]->name);
        covered = begin + tensors[i]->bytes;
    }
    if (covered < end)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "the last %zu bytes belong to no tensor",
                        (size_t)(end - covered));
    return QGC_OK;
}

static qgc_status read_header(const reader *r, json_t *header) {
    if (json_object_size(header) > MAX_ENTRIES)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "has %zu entries, more than the %d allowed",
                        json_object_size(header), MAX_ENTRIES);
    size_t before = r->w->n_tensors;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") != 0)
            QGC_TRY(read_entry(r, name, entry));
    }
    size_t n = r->w->n_tensors - before;
    return check_cover(r, n ? r->w->tensors + before : NULL, n);
}

qgc_status qgc_safetensors_parse(qgc_weights *w, const void *data, size_t bytes, qgc_loc at, qgc_diag *d) {
    const unsigned char *p = data;
    if (bytes < 8)
        return qgc_fail(d, QGC_ERR_INPUT, at, "has %zu bytes, too few for a safetensors file", bytes);
    uint64_t header_bytes = 0;
    for (int i = 0; i < 8; i++)
        header_bytes |= (uint64_t)p[i] << (8 * i);
    if (header_bytes > MAX_HEADER_BYTES)
        return qgc_fail(d, QGC_ERR_INPUT, at, "has a header of %llu bytes, more than the %d allowed",
                        (unsigned long long)header_bytes, MAX_HEADER_BYTES);
    if (header_bytes > bytes - 8)
        return qgc_fail(d, QGC_ERR_INPUT, at,
                        "the file ends inside the header: %llu bytes wanted, %zu are left",
                        (unsigned long long)header_bytes, bytes - 8);
    size_t start = 8 + (size_t)header_bytes;
    const reader r = {.w = w, .data = p + start, .bytes = bytes - start, .at = at, .d = d};
    json_t *header = NULL;
    qgc_status s = parse_json(&header, p + 8, (size_t)header_bytes, "the header", at, d);
    if (s == QGC_OK)
        s = read_header(&r, header);
    json_decref(header);
    return s;
}

qgc_status qgc_hf_parse_config(qgc_weights *w, const qgc_source *text, qgc_diag *d) {
    json_t *config = NULL;
    qgc_status s =
        parse_json(&config, text->text, text->bytes, "the configuration", (qgc_loc){.source = text}, d);
    w->config = config;
    QGC_TRY(s);
    w->arch = qgc_hf_string(w, "model_type");
    const char *fault = w->arch ? qgc_weights_name_fault(w->arch, strlen(w->arch)) : NULL;
    return fault ? qgc_fail(d, QGC_ERR_INPUT, (qgc_loc){.source = text}, "the name of the architecture %s",
                            fault)
                 : QGC_OK;
}

static const char *in_folder(const qgc_weights *w, const char *name) {
    return qgc_arena_printf(w->arena, "%s/%s", w->folder, name);
}

/* A text file of the folder; its source lives as long as the diag. */
static qgc_status read_text(const qgc_weights *w, const char *name, size_t limit, qgc_source **out,
                            qgc_diag *d) {
    *out = qgc_arena_alloc(d->arena, sizeof **out);
    return qgc_file_read(*out, in_folder(w, name), limit, name, d);
}

static qgc_status open_config(qgc_weights *w, qgc_diag *d) {
    qgc_source *text;
    qgc_status s = read_text(w, "config.json", MAX_CONFIG_BYTES, &text, d);
    if (s != QGC_OK) {
        qgc_hint(d, "safetensors files say nothing of the model; a config.json has to stand beside them.");
        return s;
    }
    return qgc_hf_parse_config(w, text, d);
}

static qgc_status parse_last_file(qgc_weights *w, const char *path, qgc_diag *d) {
    const qgc_file *f = &w->files[w->n_files - 1];
    return qgc_safetensors_parse(w, f->data, f->bytes, qgc_weights_place(d, path), d);
}

/* "model-00001-of-00003.safetensors" has a part of the tensors. */
static qgc_status refuse_shard(const qgc_weights *w, qgc_diag *d) {
    const char *of = strstr(qgc_path_base(w->source.name), "-of-");
    if (!of || strspn(of + 4, "0123456789") == 0 || strtol(of + 4, NULL, 10) == 1)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, qgc_weights_place(d, w->source.name),
                            "is one of the %ld files of one model", strtol(of + 4, NULL, 10));
    qgc_hint(d, "Give the folder, with model.safetensors.index.json in it.");
    return s;
}

qgc_status qgc_hf_open_file(qgc_weights *w, qgc_diag *d) {
    QGC_TRY(refuse_shard(w, d));
    QGC_TRY(parse_last_file(w, w->source.name, d));
    return open_config(w, d);
}

/* A shard stands in the folder itself: a name with a slash could lead anywhere. */
static bool is_plain_name(const char *name) {
    return !qgc_weights_name_fault(name, strlen(name)) && name[0] != '.' && !strchr(name, '/') &&
           !strchr(name, '\\') && !strstr(name, "..");
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

typedef struct {
    qgc_loc at;
    json_t *files;       /* "weight_map": name of a weight to name of its file */
    const char **shards; /* the files, each once, sorted */
    size_t n_shards;
} shard_index;

static qgc_status list_shards(const qgc_weights *w, shard_index *index, qgc_diag *d) {
    qgc_map seen = qgc_map_new(w->arena);
    const char *weight;
    json_t *value;
    json_object_foreach(index->files, weight, value) {
        const char *fault = qgc_weights_name_fault(weight, strlen(weight));
        if (fault)
            return qgc_fail(d, QGC_ERR_INPUT, index->at, "the name of a weight %s", fault);
        const char *shard = json_string_value(value);
        if (!shard || qgc_weights_name_fault(shard, strlen(shard)))
            return qgc_fail(d, QGC_ERR_INPUT, index->at, "weight \"%s\" has no name of a file", weight);
        if (!is_plain_name(shard))
            return qgc_fail(d, QGC_ERR_INPUT, index->at,
                            "weight \"%s\" is in file \"%s\", expected a plain file name", weight, shard);
        qgc_map_put(&seen, shard, &seen);
    }
    if (seen.n == 0 || seen.n > MAX_SHARDS)
        return qgc_fail(d, QGC_ERR_INPUT, index->at, "names %zu files, expected 1 to %d", seen.n, MAX_SHARDS);
    index->shards = qgc_arena_array(w->arena, seen.n, sizeof *index->shards);
    index->n_shards = seen.n;
    for (size_t i = 0; i < seen.n; i++)
        index->shards[i] = seen.entries[i].key;
    qsort(index->shards, index->n_shards, sizeof *index->shards, compare_names);
    return QGC_OK;
}

static bool is_in_file(const qgc_tensor *t, const qgc_file *f) {
    uintptr_t p = (uintptr_t)t->data, begin = (uintptr_t)f->data;
    return p >= begin && p - begin < f->bytes;
}

/* Every weight of the index stands in the shard that it names. */
static qgc_status check_index(const qgc_weights *w, const shard_index *index, qgc_diag *d) {
    qgc_map files = qgc_map_new(d->arena);
    for (size_t i = 0; i < index->n_shards; i++)
        qgc_map_put(&files, index->shards[i], &w->files[i]);
    const char *weight;
    json_t *value;
    json_object_foreach(index->files, weight, value) {
        const char *shard = json_string_value(value);
        const qgc_tensor *t = qgc_weights_find(w, weight);
        if (!t || !is_in_file(t, qgc_map_get(&files, shard)))
            return qgc_fail(d, QGC_ERR_INPUT, index->at, "weight \"%s\" is not in file \"%s\"", weight,
                            shard);
    }
    return QGC_OK;
}

static qgc_status open_shards(qgc_weights *w, json_t *root, qgc_loc at, qgc_diag *d) {
    shard_index index = {.at = at, .files = json_object_get(root, "weight_map")};
    if (!json_is_object(index.files))
        return qgc_fail(d, QGC_ERR_INPUT, at, "has no object \"weight_map\"");
    QGC_TRY(list_shards(w, &index, d));
    w->files = qgc_arena_array(w->arena, index.n_shards, sizeof *w->files);
    for (size_t i = 0; i < index.n_shards; i++) {
        const char *path = in_folder(w, index.shards[i]);
        QGC_TRY(qgc_file_open(&w->files[i], path, d));
        w->n_files++;
        QGC_TRY(parse_last_file(w, path, d));
    }
    return check_index(w, &index, d);
}

static qgc_status open_index(qgc_weights *w, const char *name, qgc_diag *d) {
    qgc_source *text;
    QGC_TRY(read_text(w, name, MAX_HEADER_BYTES, &text, d));
    json_t *root = NULL;
    qgc_status s = parse_json(&root, text->text, text->bytes, "the index", (qgc_loc){.source = text}, d);
    if (s == QGC_OK)
        s = open_shards(w, root, (qgc_loc){.source = text}, d);
    json_decref(root);
    return s;
}

qgc_status qgc_hf_open_folder(qgc_weights *w, qgc_diag *d) {
    static const char single[] = "model.safetensors", index[] = "model.safetensors.index.json";
    QGC_TRY(open_config(w, d));
    const char *path = in_folder(w, single);
    if (qgc_file_exists(path)) {
        w->files = qgc_arena_alloc(w->arena, sizeof *w->files);
        QGC_TRY(qgc_file_open(w->files, path, d));
        w->n_files = 1;
        return parse_last_file(w, path, d);
    }
    if (qgc_file_exists(in_folder(w, index)))
        return open_index(w, index, d);
    return qgc_fail(d, QGC_ERR_INPUT, qgc_weights_place(d, w->folder),
                    "the folder has neither \"%s\" nor \"%s\"", single, index);
}

void qgc_hf_close(qgc_weights *w) {
    json_decref(w->config);
    w->config = NULL;
}

/* The value under a key whose dots go into nested objects. */
static const json_t *find(const qgc_weights *w, const char *key) {
    const json_t *value = w->config;
    for (const char *dot; (dot = strchr(key, '.')); key = dot + 1) {
        value = json_object_get(value, qgc_arena_strndup(w->arena, key, (size_t)(dot - key)));
    }
    return json_object_get(value, key);
}

static bool number_of(const json_t *value, double *out) {
    if (!json_is_number(value) && !json_is_boolean(value))
        return false;
    *out = json_is_boolean(value) ? (double)json_is_true(value) : json_number_value(value);
    return true;
}

bool qgc_hf_number(const qgc_weights *w, const char *key, double *out) {
    return number_of(find(w, key), out);
}

const char *qgc_hf_member(const qgc_weights *w, const char *object, size_t i) {
    json_t *value = (json_t *)(uintptr_t)find(w, object); /* which is only read */
    void *at = json_object_iter(value);
    for (; at && i > 0; i--)
        at = json_object_iter_next(value, at);
    return at ? json_object_iter_key(at) : NULL;
}

size_t qgc_hf_array_length(const qgc_weights *w, const char *key) {
    return json_array_size(find(w, key)); /* 0 for what is no array */
}

bool qgc_hf_array_string(const qgc_weights *w, const char *key, size_t i, const char **text, size_t *bytes) {
    const json_t *value = json_array_get(find(w, key), i);
    *text = json_string_value(value);
    *bytes = json_string_length(value);
    return *text != NULL;
}

bool qgc_hf_array_number(const qgc_weights *w, const char *key, size_t i, double *out) {
    return number_of(json_array_get(find(w, key), i), out);
}

static int add_shown(const char *text, size_t bytes, void *out) {
    enum { MOST_SHOWN = 4000 };
    qgc_str *s = out;
    const size_t room = s->bytes < MOST_SHOWN ? MOST_SHOWN - s->bytes : 0;
    qgc_str_add_bytes(s, text, bytes < room ? bytes : room);
    if (bytes > room && s->bytes <= MOST_SHOWN)
        qgc_str_add(s, "...");
    return 0;
}

const char *qgc_hf_shown(const qgc_weights *w, const char *key, qgc_arena *a) {
    const json_t *value = find(w, key);
    if (!value || json_is_null(value))
        return NULL;
    if (json_is_real(value))
        return qgc_arena_printf(a, "%.10g", json_real_value(value));
    qgc_str s = qgc_str_new(a);
    json_dump_callback(value, add_shown, &s, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    return s.text;
}

bool qgc_hf_is_null(const qgc_weights *w, const char *key) {
    return json_is_null(find(w, key));
}

const char *qgc_hf_string(const qgc_weights *w, const char *key) {
    return json_string_value(find(w, key));
}
