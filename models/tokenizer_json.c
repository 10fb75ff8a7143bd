#include <assert.h>
#include <jansson.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

/* Hugging Face's tokenizer.json. It describes a pipeline of which qgc knows one: every part is compared with
 * what is implemented, and a difference is an error that names it. */

enum { MAX_TABLES = 64 << 20, MAX_CONFIG = 16 << 20 };

static qgc_loc in_source(qgc_diag *d, const qgc_source *s) {
    qgc_source *copy = qgc_arena_alloc(d->arena, sizeof *copy);
    copy->name = qgc_arena_strdup(d->arena, s->name);
    return (qgc_loc){.source = copy};
}

/* Parses an object. The caller drops the reference. */
static qgc_status parse(json_t **out, const qgc_source *s, qgc_diag *d) {
    json_error_t error;
    *out = json_loadb(s->text, s->bytes, JSON_REJECT_DUPLICATES, &error);
    qgc_loc at = in_source(d, s);
    if (!*out) {
        at.line = error.line > 0 ? error.line : 0;
        at.col = error.column > 0 ? error.column : 0;
        return qgc_fail(d, QGC_ERR_INPUT, at, "is not valid JSON: %s", error.text);
    }
    if (!json_is_object(*out))
        return qgc_fail(d, QGC_ERR_INPUT, at, "is not a JSON object");
    return QGC_OK;
}

enum { MOST_SHOWN = 80 };

static int add_shown(const char *text, size_t bytes, void *out) {
    qgc_str *s = out;
    size_t room = s->bytes < MOST_SHOWN ? MOST_SHOWN - s->bytes : 0;
    qgc_str_add_bytes(s, text, bytes < room ? bytes : room);
    if (bytes > room && s->bytes <= MOST_SHOWN)
        qgc_str_add(s, "...");
    return 0;
}

/* A value in a few words, for errors. */
static const char *shown(qgc_diag *d, const json_t *value) {
    qgc_str s = qgc_str_new(d->arena);
    if (!value)
        return "nothing";
    json_dump_callback(value, add_shown, &s, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT);
    return s.text;
}

/* What every check needs for its error. */
typedef struct {
    qgc_loc at;
    qgc_diag *d;
} reader;

static const char *shown_text(const reader *r, const char *text) {
    return qgc_shown(r->d, (qgc_span){text, strlen(text)});
}

/* Fails unless `value`, the `name` of the tokenizer, is the JSON text `expected`; with `or_missing`, null and
 * no value at all are as good. */
static qgc_status expect(const reader *r, const json_t *value, bool or_missing, const char *name,
                         const char *expected) {
    if (or_missing && (!value || json_is_null(value)))
        return QGC_OK;
    json_t *wanted = json_loads(expected, JSON_DECODE_ANY, NULL);
    bool equal = value && wanted && json_equal(value, wanted);
    json_decref(wanted);
    if (equal)
        return QGC_OK;
    return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "%s of the tokenizer is %s, only %s is supported", name,
                    shown(r->d, value), expected);
}

static qgc_status check_split(const reader *r, const json_t *split) {
    QGC_TRY(expect(r, json_object_get(split, "type"), false, "type of the first pre-tokenizer", "\"Split\""));
    const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
    if (!json_is_string(regex) || strcmp(json_string_value(regex), qgc_qwen2_pattern) != 0)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "pre-tokenizer pattern of the tokenizer is %s, only that of qwen2 is supported",
                        shown(r->d, regex ? regex : json_object_get(split, "pattern")));
    QGC_TRY(expect(r, json_object_get(split, "behavior"), false, "split behavior", "\"Isolated\""));
    return expect(r, json_object_get(split, "invert"), true, "split inversion", "false");
}

static qgc_status check_pipeline(const reader *r, const json_t *root) {
    QGC_TRY(expect(r, json_object_get(root, "normalizer"), false, "normalizer", "{\"type\":\"NFC\"}"));

    const json_t *pre = json_object_get(root, "pre_tokenizer"),
                 *steps = json_object_get(pre, "pretokenizers");
    QGC_TRY(expect(r, json_object_get(pre, "type"), false, "pre-tokenizer type", "\"Sequence\""));
    if (json_array_size(steps) != 2)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "pre-tokenizer of the tokenizer has %zu steps, expected 2", json_array_size(steps));
    QGC_TRY(check_split(r, json_array_get(steps, 0)));
    const json_t *bytes = json_array_get(steps, 1);
    QGC_TRY(expect(r, json_object_get(bytes, "type"), false, "type of the second pre-tokenizer",
                   "\"ByteLevel\""));
    QGC_TRY(expect(r, json_object_get(bytes, "add_prefix_space"), false, "add_prefix_space", "false"));
    QGC_TRY(expect(r, json_object_get(bytes, "use_regex"), false, "use_regex", "false"));

    const json_t *post = json_object_get(root, "post_processor"), *decoder = json_object_get(root, "decoder");
    if (json_is_object(post))
        post = json_object_get(post, "type");
    QGC_TRY(expect(r, post, true, "post-processor type", "\"ByteLevel\""));
    return expect(r, json_object_get(decoder, "type"), false, "decoder type", "\"ByteLevel\"");
}

static qgc_status check_model(const reader *r, const json_t *model) {
    QGC_TRY(expect(r, json_object_get(model, "type"), false, "model type", "\"BPE\""));
    QGC_TRY(expect(r, json_object_get(model, "dropout"), true, "dropout", "null"));
    QGC_TRY(expect(r, json_object_get(model, "unk_token"), true, "unk_token", "null"));
    QGC_TRY(expect(r, json_object_get(model, "continuing_subword_prefix"), true, "continuing_subword_prefix",
                   "\"\""));
    QGC_TRY(expect(r, json_object_get(model, "end_of_word_suffix"), true, "end_of_word_suffix", "\"\""));
    QGC_TRY(expect(r, json_object_get(model, "byte_fallback"), true, "byte_fallback", "false"));
    return expect(r, json_object_get(model, "ignore_merges"), true, "ignore_merges", "false");
}

static qgc_status read_id(const reader *r, const json_t *value, const char *text, int32_t *id) {
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || n > QGC_MAX_ID)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "token \"%s\" has id %s, expected 0 to %d",
                        shown_text(r, text), shown(r->d, value), QGC_MAX_ID);
    *id = (int32_t)n;
    return QGC_OK;
}

/* Makes the table as long as the largest id wants it. */
static qgc_status size_tokens(qgc_tokenizer_tables *t, const reader *r, json_t *vocab, json_t *added,
                              qgc_arena *scratch) {
    const char *text;
    json_t *value;
    size_t i;
    int32_t id = 0, largest = -1;
    json_object_foreach(vocab, text, value) {
        QGC_TRY(read_id(r, value, text, &id));
        largest = id > largest ? id : largest;
    }
    json_array_foreach(added, i, value) {
        text = json_string_value(json_object_get(value, "content"));
        if (!text)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "added token %zu has no content", i);
        QGC_TRY(read_id(r, json_object_get(value, "id"), text, &id));
        largest = id > largest ? id : largest;
    }
    t->n_tokens = largest + 1;
    t->tokens = qgc_arena_array(scratch, (size_t)t->n_tokens, sizeof *t->tokens);
    return QGC_OK;
}

static qgc_status two_texts(const reader *r, int32_t id, const char *text, const char *other) {
    return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "id %d has two tokens, \"%s\" and \"%s\"", (int)id,
                    shown_text(r, text), shown_text(r, other));
}

static qgc_status read_vocab(qgc_tokenizer_tables *t, const reader *r, json_t *vocab) {
    const char *text;
    json_t *value;
    assert(t->tokens);
    json_object_foreach(vocab, text, value) {
        qgc_token *token = &t->tokens[json_integer_value(value)];
        if (token->kind != QGC_TOKEN_NONE)
            return two_texts(r, (int32_t)json_integer_value(value), token->text, text);
        *token = (qgc_token){text, strlen(text), QGC_TOKEN_NORMAL};
    }
    return QGC_OK;
}

/* An added token may be in the vocabulary too, under the same id. */
static qgc_status read_added(qgc_tokenizer_tables *t, const reader *r, json_t *added) {
    static const char *const flags[] = {"lstrip", "rstrip", "single_word", "normalized"};
    json_t *value;
    size_t i;
    json_array_foreach(added, i, value) {
        int32_t id = (int32_t)json_integer_value(json_object_get(value, "id"));
        const char *text = json_string_value(json_object_get(value, "content"));
        for (size_t k = 0; k < sizeof flags / sizeof *flags; k++) {
            if (!json_is_false(json_object_get(value, flags[k])))
                return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                                "%s of added token \"%s\" is %s, only false is supported", flags[k],
                                shown_text(r, text), shown(r->d, json_object_get(value, flags[k])));
        }
        qgc_token *token = &t->tokens[id];
        if (token->kind != QGC_TOKEN_NONE &&
            (token->kind != QGC_TOKEN_NORMAL || strcmp(token->text, text) != 0))
            return two_texts(r, id, token->text, text);
        bool special = json_is_true(json_object_get(value, "special"));
        *token = (qgc_token){text, strlen(text), special ? QGC_TOKEN_SPECIAL : QGC_TOKEN_ADDED};
    }
    return QGC_OK;
}

/* A merge is "a b" or ["a", "b"]. */
static bool read_merge(const json_t *value, qgc_merge *out) {
    const char *left = json_string_value(value), *right;
    if (left) {
        const char *space = strchr(left, ' ');
        if (!space || strchr(space + 1, ' '))
            return false;
        out->left = (qgc_span){left, (size_t)(space - left)};
        right = space + 1;
    } else {
        left = json_string_value(json_array_get(value, 0));
        right = json_string_value(json_array_get(value, 1));
        if (json_array_size(value) != 2 || !left || !right)
            return false;
        out->left = (qgc_span){left, strlen(left)};
    }
    out->right = (qgc_span){right, strlen(right)};
    return out->left.bytes > 0 && out->right.bytes > 0;
}

static qgc_status read_merges(qgc_tokenizer_tables *t, const reader *r, const json_t *merges,
                              qgc_arena *scratch) {
    t->n_merges = json_array_size(merges);
    t->merges = qgc_arena_array(scratch, t->n_merges, sizeof *t->merges);
    for (size_t i = 0; i < t->n_merges; i++) {
        if (!read_merge(json_array_get(merges, i), &t->merges[i]))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "merge %zu is %s, expected two tokens", i,
                            shown(r->d, json_array_get(merges, i)));
    }
    return QGC_OK;
}

static qgc_status read_tables(qgc_tokenizer_tables *t, json_t *root, qgc_arena *scratch, qgc_diag *d) {
    const reader r = {t->at, d};
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab");
    json_t *merges = json_object_get(model, "merges"), *added = json_object_get(root, "added_tokens");
    QGC_TRY(check_model(&r, model));
    QGC_TRY(check_pipeline(&r, root));
    if (!json_is_object(vocab) || !json_is_array(merges))
        return qgc_fail(d, QGC_ERR_INPUT, t->at, "model of the tokenizer has no %s",
                        json_is_object(vocab) ? "merges" : "vocab");
    if (added && !json_is_array(added))
        return qgc_fail(d, QGC_ERR_INPUT, t->at, "added_tokens is %s, expected a list", shown(d, added));
    QGC_TRY(size_tokens(t, &r, vocab, added, scratch));
    QGC_TRY(read_vocab(t, &r, vocab));
    QGC_TRY(read_added(t, &r, added));
    return read_merges(t, &r, merges, scratch);
}

static bool is_missing(const json_t *value) {
    return !value || json_is_null(value);
}

/* generation_config.json, or config.json where that does not say: eos_token_id is a number or a list of them. */
static qgc_status read_ends(qgc_tokenizer_tables *t, const json_t *root, qgc_loc at, qgc_diag *d) {
    const json_t *eos = json_object_get(root, "eos_token_id");
    if (is_missing(eos))
        return QGC_OK;
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (!json_is_integer(id))
            return qgc_fail(d, QGC_ERR_INPUT, at, "eos_token_id is %s, expected a number", shown(d, id));
        QGC_TRY(qgc_tables_add_eos(t, (double)json_integer_value(id), at, d));
    }
    return QGC_OK;
}

/* A token of tokenizer_config.json is a text, or an object with that text as its content. */
static const char *token_text(const json_t *value) {
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

/* The template is a text, or a list of named ones of which "default" is for conversations. */
static const char *template_text(const json_t *value) {
    size_t i;
    json_t *entry;
    json_array_foreach(value, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(entry, "template"));
    }
    return json_string_value(value);
}

static qgc_status read_config(qgc_tokenizer_tables *t, const json_t *root, qgc_loc at, qgc_diag *d) {
    const reader r = {at, d};
    QGC_TRY(expect(&r, json_object_get(root, "add_bos_token"), true, "add_bos_token", "false"));
    if (!t->chat_template) {
        t->chat_template = template_text(json_object_get(root, "chat_template"));
        t->template_at = at;
    }
    const char *eos = token_text(json_object_get(root, "eos_token"));
    for (int32_t id = 0; eos && id < t->n_tokens; id++) {
        if (t->tokens[id].kind != QGC_TOKEN_NONE && strcmp(t->tokens[id].text, eos) == 0)
            return qgc_tables_add_eos(t, id, at, d);
    }
    if (eos)
        return qgc_fail(d, QGC_ERR_INPUT, at, "eos_token \"%s\" is not in the vocabulary",
                        shown_text(&r, eos));
    return QGC_OK;
}

static qgc_status check_template(const qgc_source *s, qgc_diag *d) {
    if (qgc_utf8_check(s->text, s->bytes) < s->bytes || memchr(s->text, 0, s->bytes))
        return qgc_fail(d, QGC_ERR_INPUT, in_source(d, s), "is not UTF-8 text");
    return QGC_OK;
}

enum { TOKENIZER, CONFIG, GENERATION, MODEL, N_OBJECTS };

static qgc_status read_all(qgc_tokenizer **out, const qgc_tokenizer_files *files, json_t *roots[N_OBJECTS],
                           qgc_arena *scratch, qgc_diag *d) {
    qgc_tokenizer_tables t = {.at = in_source(d, &files->tokenizer)};
    QGC_TRY(parse(&roots[TOKENIZER], &files->tokenizer, d));
    QGC_TRY(read_tables(&t, roots[TOKENIZER], scratch, d));
    if (files->chat_template.text) {
        QGC_TRY(check_template(&files->chat_template, d));
        t.chat_template = qgc_arena_strndup(scratch, files->chat_template.text, files->chat_template.bytes);
        t.template_at = in_source(d, &files->chat_template);
    }
    if (files->config.text) {
        QGC_TRY(parse(&roots[CONFIG], &files->config, d));
        QGC_TRY(read_config(&t, roots[CONFIG], in_source(d, &files->config), d));
    }
    if (files->generation.text) {
        QGC_TRY(parse(&roots[GENERATION], &files->generation, d));
        QGC_TRY(read_ends(&t, roots[GENERATION], in_source(d, &files->generation), d));
    }
    if (files->model.text && is_missing(json_object_get(roots[GENERATION], "eos_token_id"))) {
        QGC_TRY(parse(&roots[MODEL], &files->model, d));
        QGC_TRY(read_ends(&t, roots[MODEL], in_source(d, &files->model), d));
    }
    return qgc_tokenizer_build(out, &t, d);
}

qgc_status qgc_tokenizer_from_json(qgc_tokenizer **out, const qgc_tokenizer_files *files, qgc_diag *d) {
    *out = NULL;
    json_t *roots[N_OBJECTS] = {NULL};
    qgc_arena *scratch = qgc_arena_new();
    qgc_status status = read_all(out, files, roots, scratch, d);
    qgc_arena_drop(scratch);
    for (int i = 0; i < N_OBJECTS; i++)
        json_decref(roots[i]);
    return status;
}

/* A file of the folder; its text stays NULL where the file is not there. */
static qgc_status read_beside(qgc_source *out, const char *folder, const char *name, qgc_diag *d) {
    const char *path = qgc_arena_printf(d->arena, "%s/%s", folder, name);
    return qgc_file_exists(path) ? qgc_file_read(out, path, MAX_CONFIG, name, d) : QGC_OK;
}

qgc_status qgc_tokenizer_open_json(qgc_tokenizer **out, const char *path, qgc_diag *d) {
    *out = NULL;
    qgc_tokenizer_files files = {0};
    qgc_file f;
    const char *folder = qgc_path_folder(d->arena, path);
    QGC_TRY(read_beside(&files.config, folder, "tokenizer_config.json", d));
    QGC_TRY(read_beside(&files.generation, folder, "generation_config.json", d));
    QGC_TRY(read_beside(&files.model, folder, "config.json", d));
    QGC_TRY(read_beside(&files.chat_template, folder, "chat_template.jinja", d));
    QGC_TRY(qgc_file_open(&f, path, d));
    qgc_status status = QGC_OK;
    if (f.bytes == 0 || f.bytes > MAX_TABLES)
        status = qgc_fail(d, QGC_ERR_INPUT, in_source(d, &f.source),
                          "the tokenizer has %zu bytes, expected 1 to %d", f.bytes, MAX_TABLES);
    if (status == QGC_OK) {
        files.tokenizer = (qgc_source){f.source.name, (const char *)f.data, f.bytes};
        status = qgc_tokenizer_from_json(out, &files, d);
    }
    qgc_file_close(&f);
    return status;
}
