#include <string.h>

#include "models/tokenizer_impl.h"

/* The tables inside a GGUF file (github.com/ggml-org/ggml/blob/master/docs/gguf.md), and the choice between
 * them and tokenizer.json. Token types are those of llama.cpp: padding up to the rows of the model is
 * "unused" and left out, "control" is special, "user defined" is added and always matched. */

#define PREFIX "tokenizer.ggml."

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

typedef struct {
    const qgc_weights *w;
    qgc_tokenizer_tables *t;
    qgc_diag *d;
} reader;

static qgc_status expect_string(const reader *r, const char *key, const char *what, const char *expected) {
    const char *value = qgc_weights_string(r->w, key);
    if (!value)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "key \"%s\" is missing", key);
    if (strcmp(value, expected) != 0)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at,
                        "%s of the tokenizer is \"%s\", only \"%s\" is supported", what, value, expected);
    return QGC_OK;
}

static qgc_status token_kind(const reader *r, size_t i, qgc_token_kind *kind) {
    double type = 0;
    if (!qgc_weights_array_number(r->w, PREFIX "token_type", i, &type))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "type of token %zu is not a number", i);
    if (type == TYPE_NORMAL)
        *kind = QGC_TOKEN_NORMAL;
    else if (type == TYPE_CONTROL)
        *kind = QGC_TOKEN_SPECIAL;
    else if (type == TYPE_USER_DEFINED)
        *kind = QGC_TOKEN_ADDED;
    else if (type == TYPE_UNUSED)
        *kind = QGC_TOKEN_NONE;
    else
        return qgc_fail(
            r->d, QGC_ERR_INPUT, r->t->at,
            "type of token %zu is %g, expected 1 (normal), 3 (control), 4 (user defined) or 5 (unused)", i,
            type);
    return QGC_OK;
}

static qgc_status read_tokens(const reader *r, qgc_arena *scratch) {
    size_t n = qgc_weights_array_length(r->w, PREFIX "tokens");
    size_t n_types = qgc_weights_array_length(r->w, PREFIX "token_type");
    if (n == 0 || n > QGC_MAX_ID + 1)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "tokenizer has %zu tokens, expected 1 to %d", n,
                        QGC_MAX_ID + 1);
    if (n_types != n)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "tokenizer has %zu tokens and %zu token types", n,
                        n_types);
    r->t->tokens = qgc_arena_array(scratch, n, sizeof *r->t->tokens);
    for (size_t i = 0; i < n; i++) {
        qgc_token *token = &r->t->tokens[i];
        QGC_TRY(token_kind(r, i, &token->kind));
        if (token->kind == QGC_TOKEN_NONE)
            continue;
        if (!qgc_weights_array_string(r->w, PREFIX "tokens", i, &token->text, &token->bytes))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "token %zu is not a string", i);
        r->t->n_tokens = (int32_t)i + 1;
    }
    return QGC_OK;
}

/* "a b" */
static bool split_merge(qgc_span text, qgc_merge *out) {
    const char *end = text.text + text.bytes, *space = text.bytes ? memchr(text.text, ' ', text.bytes) : NULL;
    if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
        return false;
    out->left = (qgc_span){text.text, (size_t)(space - text.text)};
    out->right = (qgc_span){space + 1, (size_t)(end - space - 1)};
    return out->left.bytes > 0 && out->right.bytes > 0;
}

static qgc_status read_merges(const reader *r, qgc_arena *scratch) {
    size_t n = qgc_weights_array_length(r->w, PREFIX "merges");
    if (n > QGC_MAX_ID)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "tokenizer has %zu merges, expected at most %d", n,
                        QGC_MAX_ID);
    r->t->merges = qgc_arena_array(scratch, n, sizeof *r->t->merges);
    r->t->n_merges = n;
    for (size_t i = 0; i < n; i++) {
        qgc_span text;
        if (!qgc_weights_array_string(r->w, PREFIX "merges", i, &text.text, &text.bytes) ||
            !split_merge(text, &r->t->merges[i]))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "merge %zu is not two tokens with a space between",
                            i);
    }
    return QGC_OK;
}

static qgc_status read_eos(const reader *r) {
    static const char *const keys[] = {PREFIX "eos_token_id", PREFIX "eot_token_id", PREFIX "eom_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        double id;
        const char *shown = qgc_weights_shown(r->w, keys[i], r->d->arena);
        if (qgc_weights_number(r->w, keys[i], &id))
            QGC_TRY(qgc_tables_add_eos(r->t, id, r->t->at, r->d));
        else if (shown)
            return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "key \"%s\" is %s, expected a number", keys[i],
                            shown);
    }
    return QGC_OK;
}

static qgc_status read_tables(const reader *r, qgc_arena *scratch) {
    QGC_TRY(expect_string(r, PREFIX "model", "model", "gpt2"));
    QGC_TRY(expect_string(r, PREFIX "pre", "pre-tokenizer", "qwen2"));
    double bos = 0;
    if (qgc_weights_number(r->w, PREFIX "add_bos_token", &bos) && bos != 0)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at,
                        "add_bos_token of the tokenizer is true, only false is supported");
    QGC_TRY(read_tokens(r, scratch));
    QGC_TRY(read_merges(r, scratch));
    r->t->chat_template = qgc_weights_string(r->w, "tokenizer.chat_template");
    r->t->template_at = r->t->at;
    return read_eos(r);
}

qgc_status qgc_tokenizer_open(qgc_tokenizer **out, const qgc_weights *w, qgc_diag *d) {
    *out = NULL;
    if (qgc_weights_kind(w) == QGC_WEIGHTS_HF) {
        const char *path = qgc_arena_printf(d->arena, "%s/tokenizer.json", qgc_weights_folder(w));
        return qgc_tokenizer_open_json(out, path, d);
    }
    qgc_arena *scratch = qgc_arena_new();
    qgc_tokenizer_tables t = {.at = qgc_weights_loc(w)};
    qgc_status status = read_tables(&(const reader){w, &t, d}, scratch);
    if (status == QGC_OK)
        status = qgc_tokenizer_build(out, &t, d);
    qgc_arena_drop(scratch);
    return status;
}
