#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

/* Hugging Face's tokenizer.json. It describes a pipeline of steps: every one is compared with what is implemented, and a
 * difference is an error that names it. */

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

/* --- steps ------------------------------------------------------------------------------------------------- */

/* A step, or a sequence of them under `field`, as a new list. None where it is null. */
static json_t *list_steps(json_t *value, const char *field) {
    const char *type = json_string_value(json_object_get(value, "type"));
    if (type && strcmp(type, "Sequence") == 0 && json_is_array(json_object_get(value, field)))
        return json_incref(json_object_get(value, field));
    json_t *list = json_array();
    if (value && !json_is_null(value))
        json_array_append(list, value);
    return list;
}

static const char *type_of(const json_t *step) {
    const char *type = json_string_value(json_object_get(step, "type"));
    return type ? type : "";
}

static bool is_json(const json_t *value, const char *expected) {
    json_t *wanted = json_loads(expected, JSON_DECODE_ANY, NULL);
    const bool equal = value && json_equal(value, wanted);
    json_decref(wanted);
    return equal;
}

#define REPLACE(from, to) \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" from "\"},\"content\":\"" to "\"}"
#define METASPACE "\xE2\x96\x81"

/* What can be done before the words are cut. */
static const struct {
    const char *steps;
    qgc_nfc_use nfc;
    bool replaces;
    qgc_front front;
} normalizers[] = {
    {"[]", .nfc = QGC_NFC_NO},
    {"[{\"type\":\"NFC\"}]", .nfc = QGC_NFC_YES},
    {"[" REPLACE(" ", METASPACE) "]", .replaces = true},
    {"[{\"type\":\"Prepend\",\"prepend\":\"" METASPACE "\"}," REPLACE(" ", METASPACE) "]", .replaces = true,
     .front = QGC_FRONT_NORMALIZED},
};

static qgc_status read_normalizer(qgc_tokenizer_kind *kind, const reader *r, json_t *value) {
    json_t *steps = list_steps(value, "normalizers");
    size_t i = 0, n = sizeof normalizers / sizeof *normalizers;
    while (i < n && !is_json(steps, normalizers[i].steps))
        i++;
    json_decref(steps);
    if (i == n)
        return qgc_fail(
            r->d, QGC_ERR_INPUT, r->at,
            "normalizer of the tokenizer is %s, only NFC, and Prepend and Replace of a blank by U+2581 "
            "are supported",
            shown(r->d, value));
    kind->nfc = normalizers[i].nfc;
    kind->replaces = normalizers[i].replaces;
    kind->front = normalizers[i].front;
    return QGC_OK;
}

/* The parts that match, or all but those between, which there are none of: the expressions match everything. */
static qgc_status read_split(const qgc_split **out, const reader *r, const json_t *split) {
    const json_t *pattern = json_object_get(split, "pattern"), *regex = json_object_get(pattern, "Regex");
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    const bool removed = behavior && strcmp(behavior, "Removed") == 0;
    *out = json_is_string(regex) ? qgc_split_by_regex(json_string_value(regex)) : NULL;
    if (!*out)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "pre-tokenizer pattern of the tokenizer is %s, which is none of those supported",
                        shown(r->d, regex ? regex : pattern));
    if (!removed)
        QGC_TRY(expect(r, json_object_get(split, "behavior"), false, "split behavior", "\"Isolated\""));
    return expect(r, json_object_get(split, "invert"), !removed, "split inversion",
                  removed ? "true" : "false");
}

/* Steps that end with ByteLevel: what cuts the text stands before it, or in it. */
static qgc_status read_byte_level(qgc_tokenizer_kind *kind, const reader *r, json_t *steps) {
    const json_t *first = json_array_get(steps, 0), *last = json_array_get(steps, json_array_size(steps) - 1);
    const bool has_split = first != last && strcmp(type_of(first), "Split") == 0;
    if (has_split) {
        QGC_TRY(read_split(&kind->split, r, first));
    } else {
        kind->split = qgc_split_by_steps(type_of(first));
        if (!kind->split)
            return qgc_fail(
                r->d, QGC_ERR_INPUT, r->at,
                "type of the first pre-tokenizer is %s, only \"Split\", \"Digits\" and \"ByteLevel\" are "
                "supported",
                shown(r->d, json_object_get(first, "type")));
        if (first != last)
            QGC_TRY(
                expect(r, json_object_get(first, "individual_digits"), false, "individual_digits", "true"));
    }
    QGC_TRY(expect(r, json_object_get(last, "add_prefix_space"), false, "add_prefix_space", "false"));
    return expect(r, json_object_get(last, "use_regex"), !has_split, "use_regex",
                  has_split ? "false" : "true");
}

/* Metaspace; older files say add_prefix_space where newer ones have prepend_scheme. */
static qgc_status read_metaspace(qgc_tokenizer_kind *kind, const reader *r, const json_t *step) {
    static const char *const schemes[] = {
        [QGC_FRONT_NONE] = "never", [QGC_FRONT_ALWAYS] = "always", [QGC_FRONT_FIRST] = "first"};
    const json_t *scheme = json_object_get(step, "prepend_scheme");
    const char *word = json_string_value(scheme);
    QGC_TRY(
        expect(r, json_object_get(step, "replacement"), false, "Metaspace replacement", "\"" METASPACE "\""));
    if (!scheme) {
        const bool none = json_is_false(json_object_get(step, "add_prefix_space"));
        kind->front = none ? QGC_FRONT_NONE : QGC_FRONT_ALWAYS;
    } else {
        size_t i = 0;
        while (i < 4 && !(word && schemes[i] && strcmp(word, schemes[i]) == 0))
            i++;
        if (i == 4)
            return qgc_fail(
                r->d, QGC_ERR_INPUT, r->at,
                "prepend_scheme of the tokenizer is %s, expected \"never\", \"always\" or \"first\"",
                shown(r->d, scheme));
        kind->front = (qgc_front)i;
    }
    kind->cut_at_blanks = !json_is_false(json_object_get(step, "split"));
    return QGC_OK;
}

static qgc_status read_steps(qgc_tokenizer_kind *kind, const reader *r, json_t *steps) {
    static const char at_blanks[] = "[{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
                                    "\"behavior\":\"MergedWithPrevious\",\"invert\":false}]";
    const size_t n = json_array_size(steps);
    const char *last = type_of(json_array_get(steps, n ? n - 1 : 0));
    if ((n == 1 || n == 2) && strcmp(last, "ByteLevel") == 0 && !kind->replaces)
        return read_byte_level(kind, r, steps);
    if (n == 1 && strcmp(last, "Metaspace") == 0 && !kind->replaces && !kind->nfc)
        return read_metaspace(kind, r, json_array_get(steps, 0));
    if (kind->replaces && (n == 0 || is_json(steps, at_blanks)))
        return QGC_OK; /* the normaliser leaves no blank to cut at */
    return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                    "pre-tokenizer of the tokenizer is %s after normalizer %s, which is not "
                    "supported",
                    shown(r->d, steps),
                    kind->replaces ? "Replace"
                    : kind->nfc    ? "NFC"
                                   : "null");
}

/* How tokens become text, which has to be the reverse. */
static qgc_status read_decoder(qgc_tokenizer_kind *kind, const reader *r, json_t *value) {
#define FALLBACK REPLACE(METASPACE, " ") ",{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}"
    static const char stripped[] =
        "[" FALLBACK ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]";
    if (kind->split)
        return expect(r, json_object_get(value, "type"), false, "decoder type", "\"ByteLevel\"");
    json_t *steps = list_steps(value, "decoders");
    kind->strips = is_json(steps, stripped);
    const bool known = kind->strips || is_json(steps, "[" FALLBACK "]");
    json_decref(steps);
    if (known)
        return QGC_OK;
    return qgc_fail(
        r->d, QGC_ERR_INPUT, r->at,
        "decoder of the tokenizer is %s, only Replace, ByteFallback, Fuse and Strip of one blank are supported",
        shown(r->d, value));
}

/* "single" of a TemplateProcessing is the text, or one special token and the text. */
static qgc_status read_template(qgc_tokenizer_kind *kind, const reader *r, const json_t *step) {
    const json_t *single = json_object_get(step, "single");
    const size_t n = json_array_size(single);
    const json_t *text = json_object_get(json_array_get(single, n ? n - 1 : 0), "Sequence");
    const json_t *special = json_object_get(json_array_get(single, 0), "SpecialToken");
    const char *name = json_string_value(json_object_get(special, "id"));
    if (!text || n > 2 || (n == 2 && !name))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "template of the post-processor is %s, only one token and the text are supported",
                        shown(r->d, single));
    if (n == 1)
        return QGC_OK;
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(step, "special_tokens"), name), "ids");
    const json_int_t id = json_integer_value(json_array_get(ids, 0));
    if (json_array_size(ids) != 1 || !json_is_integer(json_array_get(ids, 0)) || id < 0 || id > QGC_MAX_ID)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                        "ids of \"%s\" in the post-processor are %s, expected one id", shown_text(r, name),
                        shown(r->d, ids));
    kind->bos = (int32_t)id;
    return QGC_OK;
}

static qgc_status read_post(qgc_tokenizer_kind *kind, const reader *r, json_t *steps) {
    json_t *step;
    size_t i;
    json_array_foreach(steps, i, step) {
        if (strcmp(type_of(step), "TemplateProcessing") == 0)
            QGC_TRY(read_template(kind, r, step));
        else if (strcmp(type_of(step), "ByteLevel") != 0)
            return qgc_fail(
                r->d, QGC_ERR_INPUT, r->at,
                "post-processor of the tokenizer is %s, only ByteLevel and TemplateProcessing are supported",
                shown(r->d, step));
    }
    return QGC_OK;
}

static qgc_status read_pipeline(qgc_tokenizer_kind *kind, const reader *r, const json_t *root) {
    kind->bos = -1;
    kind->decodes_added = true;
    QGC_TRY(read_normalizer(kind, r, json_object_get(root, "normalizer")));
    json_t *steps = list_steps(json_object_get(root, "pre_tokenizer"), "pretokenizers");
    qgc_status status = read_steps(kind, r, steps);
    json_decref(steps);
    QGC_TRY(status);
    steps = list_steps(json_object_get(root, "post_processor"), "processors");
    status = read_post(kind, r, steps);
    json_decref(steps);
    QGC_TRY(status);
    return read_decoder(kind, r, json_object_get(root, "decoder"));
}

/* Every text can be encoded, so unk_token never counts. */
static qgc_status read_model(qgc_tokenizer_kind *kind, const reader *r, const json_t *model) {
    const json_t *ignore = json_object_get(model, "ignore_merges"),
                 *dropout = json_object_get(model, "dropout");
    if (!json_is_number(dropout) || json_number_value(dropout) != 0)
        QGC_TRY(expect(r, dropout, true, "dropout", "null"));
    QGC_TRY(expect(r, json_object_get(model, "continuing_subword_prefix"), true, "continuing_subword_prefix",
                   "\"\""));
    QGC_TRY(expect(r, json_object_get(model, "end_of_word_suffix"), true, "end_of_word_suffix", "\"\""));
    QGC_TRY(expect(r, json_object_get(model, "byte_fallback"), kind->split != NULL, "byte_fallback",
                   kind->split ? "false" : "true"));
    kind->ignore_merges = json_is_true(ignore);
    return kind->ignore_merges ? QGC_OK : expect(r, ignore, true, "ignore_merges", "false");
}

/* --- tables ------------------------------------------------------------------------------------------------ */

static qgc_status read_id(const reader *r, const json_t *value, const char *text, int32_t *id) {
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || n > QGC_MAX_ID)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "token \"%s\" has id %s, expected 0 to %d",
                        shown_text(r, text), shown(r->d, value), QGC_MAX_ID);
    *id = (int32_t)n;
    return QGC_OK;
}

static qgc_status read_rows(qgc_scanned *x, const reader *r, json_t *vocab, qgc_arena *scratch) {
    const char *text;
    json_t *value;
    x->rows = qgc_arena_array(scratch, json_object_size(vocab), sizeof *x->rows);
    json_object_foreach(vocab, text, value) {
        qgc_vocab_row *row = &x->rows[x->n_rows++];
        row->text = (qgc_span){text, strlen(text)};
        QGC_TRY(read_id(r, value, text, &row->id));
    }
    return QGC_OK;
}

/* Makes the table as long as the largest id wants it. */
static qgc_status size_tokens(qgc_tokenizer_tables *t, const reader *r, const qgc_scanned *x, json_t *added,
                              qgc_arena *scratch) {
    json_t *value;
    size_t i;
    int32_t id = 0, largest = -1;
    for (i = 0; i < x->n_rows; i++)
        largest = x->rows[i].id > largest ? x->rows[i].id : largest;
    json_array_foreach(added, i, value) {
        const char *text = json_string_value(json_object_get(value, "content"));
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

static qgc_status read_vocab(qgc_tokenizer_tables *t, const reader *r, const qgc_scanned *x) {
    for (size_t i = 0; i < x->n_rows; i++) {
        const qgc_vocab_row *row = &x->rows[i];
        qgc_token *token = &t->tokens[row->id];
        if (token->kind != QGC_TOKEN_NONE)
            return two_texts(r, row->id, token->text, row->text.text);
        *token = (qgc_token){row->text.text, row->text.bytes, QGC_TOKEN_NORMAL, true, {0}};
    }
    return QGC_OK;
}

static qgc_status read_flags(qgc_added_flags *out, const reader *r, const json_t *added, const char *text) {
    static const char *const names[] = {"lstrip", "rstrip", "single_word", "normalized"};
    bool *const flags[] = {&out->lstrip, &out->rstrip, &out->single_word, &out->normalized};
    for (size_t k = 0; k < 4; k++) {
        const json_t *flag = json_object_get(added, names[k]);
        if (!json_is_boolean(flag))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                            "%s of added token \"%s\" is %s, expected true or false", names[k],
                            shown_text(r, text), shown(r->d, flag));
        *flags[k] = json_is_true(flag);
    }
    return QGC_OK;
}

/* An added token may be in the vocabulary too, under the same id. */
static qgc_status read_one_added(qgc_tokenizer_tables *t, const reader *r, const json_t *added) {
    const int32_t id = (int32_t)json_integer_value(json_object_get(added, "id"));
    const char *text = json_string_value(json_object_get(added, "content"));
    const bool special = json_is_true(json_object_get(added, "special"));
    qgc_token *token = &t->tokens[id];
    const bool in_vocab = token->kind == QGC_TOKEN_NORMAL;
    qgc_added_flags flags;
    QGC_TRY(read_flags(&flags, r, added, text));
    if (token->kind != QGC_TOKEN_NONE && (!in_vocab || strcmp(token->text, text) != 0))
        return two_texts(r, id, token->text, text);
    *token = (qgc_token){text, strlen(text), special ? QGC_TOKEN_SPECIAL : QGC_TOKEN_ADDED, in_vocab, flags};
    return QGC_OK;
}

static qgc_status read_added(qgc_tokenizer_tables *t, const reader *r, json_t *added) {
    json_t *value;
    size_t i;
    json_array_foreach(added, i, value) {
        QGC_TRY(read_one_added(t, r, value));
    }
    return QGC_OK;
}

bool qgc_merge_of_text(qgc_span text, qgc_merge *out) {
    const char *end = text.text + text.bytes, *space = text.bytes ? memchr(text.text, ' ', text.bytes) : NULL;
    if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
        return false;
    out->left = (qgc_span){text.text, (size_t)(space - text.text)};
    out->right = (qgc_span){space + 1, (size_t)(end - space - 1)};
    return out->left.bytes > 0 && out->right.bytes > 0;
}

/* A merge is "a b" or ["a", "b"]. */
static bool read_merge(const json_t *value, qgc_merge *out) {
    if (json_is_string(value))
        return qgc_merge_of_text((qgc_span){json_string_value(value), json_string_length(value)}, out);
    const char *left = json_string_value(json_array_get(value, 0)),
               *right = json_string_value(json_array_get(value, 1));
    if (json_array_size(value) != 2 || !left || !right)
        return false;
    out->left = (qgc_span){left, strlen(left)};
    out->right = (qgc_span){right, strlen(right)};
    return out->left.bytes > 0 && out->right.bytes > 0;
}

static qgc_status read_merges(qgc_scanned *x, const reader *r, const json_t *merges, qgc_arena *scratch) {
    x->n_merges = json_array_size(merges);
    x->merges = qgc_arena_array(scratch, x->n_merges, sizeof *x->merges);
    for (size_t i = 0; i < x->n_merges; i++) {
        if (!read_merge(json_array_get(merges, i), &x->merges[i]))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->at, "merge %zu is %s, expected two tokens", i,
                            shown(r->d, json_array_get(merges, i)));
    }
    return QGC_OK;
}

/* `x` has the tables that were scanned, or none. */
static qgc_status read_tables(qgc_tokenizer_tables *t, json_t *root, qgc_scanned *x, qgc_arena *scratch,
                              qgc_diag *d) {
    const reader r = {t->at, d};
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab");
    json_t *merges = json_object_get(model, "merges"), *added = json_object_get(root, "added_tokens");
    QGC_TRY(expect(&r, json_object_get(model, "type"), false, "model type", "\"BPE\""));
    QGC_TRY(read_pipeline(&t->kind, &r, root));
    QGC_TRY(read_model(&t->kind, &r, model));
    if (!json_is_object(vocab) || !json_is_array(merges))
        return qgc_fail(d, QGC_ERR_INPUT, t->at, "model of the tokenizer has no %s",
                        json_is_object(vocab) ? "merges" : "vocab");
    if (added && !json_is_array(added))
        return qgc_fail(d, QGC_ERR_INPUT, t->at, "added_tokens is %s, expected a list", shown(d, added));
    const bool scanned = x->rows != NULL;
    if (!scanned)
        QGC_TRY(read_rows(x, &r, vocab, scratch));
    QGC_TRY(size_tokens(t, &r, x, added, scratch));
    QGC_TRY(read_vocab(t, &r, x));
    QGC_TRY(read_added(t, &r, added));
    if (t->kind.bos >= t->n_tokens || (t->kind.bos >= 0 && t->tokens[t->kind.bos].kind == QGC_TOKEN_NONE))
        return qgc_fail(d, QGC_ERR_INPUT, t->at, "id %d of the post-processor is none of the tokens",
                        (int)t->kind.bos);
    if (!scanned)
        QGC_TRY(read_merges(x, &r, merges, scratch));
    t->merges = x->merges;
    t->n_merges = x->n_merges;
    return QGC_OK;
}

/* The file without its tables, where they could be scanned; all of it else, or where the rest is at fault, as lines are counted in
 * all of it. */
static qgc_status parse_around(json_t **out, qgc_scanned *x, const qgc_source *file, qgc_arena *scratch,
                               qgc_diag *d) {
    qgc_diag ignored = qgc_diag_new(scratch);
    if (qgc_scan_tables(x, (qgc_span){file->text, file->bytes}, scratch)) {
        const qgc_source rest = {file->name, x->rest.text, x->rest.bytes};
        if (parse(out, &rest, &ignored) == QGC_OK)
            return QGC_OK;
    }
    json_decref(*out);
    *out = NULL;
    *x = (qgc_scanned){0};
    return parse(out, file, d);
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

/* The two files have to agree on the BOS, or it is not known which of them the model was trained by. */
static qgc_status check_bos(const qgc_tokenizer_tables *t, const json_t *root, const reader *r) {
    const json_t *bos = json_object_get(root, "add_bos_token");
    QGC_TRY(expect(r, json_object_get(root, "add_eos_token"), true, "add_eos_token", "false"));
    if (is_missing(bos) || (json_is_boolean(bos) && json_is_true(bos) == (t->kind.bos >= 0)))
        return QGC_OK;
    return qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                    "add_bos_token is %s, and the post-processor of tokenizer.json puts %s", shown(r->d, bos),
                    t->kind.bos >= 0 ? "a token in front" : "nothing in front");
}

/* Of some classes transformers changes the steps of tokenizer.json where the key says otherwise. */
static qgc_status check_prefix(const qgc_tokenizer_tables *t, const json_t *root, const reader *r) {
    static const char classes[] = " GPT2Tokenizer GPT2TokenizerFast GPTNeoXTokenizer GPTNeoXTokenizerFast "
                                  "LlamaTokenizer LlamaTokenizerFast ";
    const json_t *prefix = json_object_get(root, "add_prefix_space");
    const bool front = t->kind.front != QGC_FRONT_NONE;
    if (!json_is_boolean(prefix) || json_is_true(prefix) == front ||
        !qgc_has_word(classes, json_string_value(json_object_get(root, "tokenizer_class"))))
        return QGC_OK;
    qgc_status s = qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                            "add_prefix_space is %s, and tokenizer.json puts %s blank in front",
                            shown(r->d, prefix), front ? "a" : "no");
    qgc_hint(r->d, "Make the two files agree. Ids are those of tokenizer.json.");
    return s;
}

/* The id that a text of digits states, or -1. */
static int32_t id_of_text(const char *text, int32_t n_tokens) {
    char *end;
    const long id = strtol(text, &end, 10);
    return *end || end == text || id < 0 || id >= n_tokens ? -1 : (int32_t)id;
}

/* added_tokens_decoder: an object of added tokens by their ids, whose flags count and not those of tokenizer.json. */
static qgc_status read_decoder_of_added(qgc_tokenizer_tables *t, json_t *root, const reader *r) {
    const char *key;
    json_t *added;
    json_object_foreach(json_object_get(root, "added_tokens_decoder"), key, added) {
        const char *text = json_string_value(json_object_get(added, "content"));
        const int32_t id = id_of_text(key, t->n_tokens);
        if (!text || id < 0 || t->tokens[id].kind == QGC_TOKEN_NONE ||
            strcmp(t->tokens[id].text, text) != 0) {
            qgc_status s =
                qgc_fail(r->d, QGC_ERR_INPUT, r->at,
                         "added_tokens_decoder has token \"%s\" with id %s, which tokenizer.json has not",
                         text ? shown_text(r, text) : "?", shown_text(r, key));
            qgc_hint(r->d, "Save the tokenizer with both files anew, or take the entry away.");
            return s;
        }
        QGC_TRY(read_flags(&t->tokens[id].flags, r, added, text));
        if (t->tokens[id].kind == QGC_TOKEN_NORMAL)
            t->tokens[id].kind =
                json_is_true(json_object_get(added, "special")) ? QGC_TOKEN_SPECIAL : QGC_TOKEN_ADDED;
    }
    return QGC_OK;
}

static void read_named(qgc_tokenizer_tables *t, const json_t *root) {
    static const char *const keys[QGC_N_NAMED] = {[QGC_BOS_TOKEN] = "bos_token",
                                                  [QGC_EOS_TOKEN] = "eos_token",
                                                  [QGC_UNK_TOKEN] = "unk_token",
                                                  [QGC_PAD_TOKEN] = "pad_token"};
    for (int i = 0; i < QGC_N_NAMED; i++) {
        const json_t *value = json_object_get(root, keys[i]);
        t->named[i] = (qgc_named_token){value != NULL, token_text(value)};
    }
}

static qgc_status read_config(qgc_tokenizer_tables *t, json_t *root, qgc_loc at, qgc_diag *d) {
    const reader r = {at, d};
    QGC_TRY(check_bos(t, root, &r));
    QGC_TRY(check_prefix(t, root, &r));
    QGC_TRY(read_decoder_of_added(t, root, &r));
    if (!t->chat_template) {
        t->chat_template = template_text(json_object_get(root, "chat_template"));
        t->template_at = qgc_template_place(at, d);
    }
    read_named(t, root);
    return QGC_OK;
}

/* Where no other file says what ends a text. */
static qgc_status end_by_name(qgc_tokenizer_tables *t, qgc_loc at, qgc_diag *d) {
    const char *eos = t->named[QGC_EOS_TOKEN].text;
    for (int32_t id = 0; eos && id < t->n_tokens; id++) {
        if (t->tokens[id].kind != QGC_TOKEN_NONE && strcmp(t->tokens[id].text, eos) == 0)
            return qgc_tables_add_eos(t, id, at, d);
    }
    return eos ? qgc_fail(d, QGC_ERR_INPUT, at, "eos_token \"%s\" is not in the vocabulary",
                          qgc_shown(d, (qgc_span){eos, strlen(eos)}))
               : QGC_OK;
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
    qgc_scanned scanned;
    QGC_TRY(parse_around(&roots[TOKENIZER], &scanned, &files->tokenizer, scratch, d));
    QGC_TRY(read_tables(&t, roots[TOKENIZER], &scanned, scratch, d));
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
    if (t.n_eos == 0 && files->config.text)
        QGC_TRY(end_by_name(&t, in_source(d, &files->config), d));
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
