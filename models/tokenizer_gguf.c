#include <math.h>
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

static qgc_status token_kind(const reader *r, size_t i, qgc_token_kind *kind) {
    double type = 0;
    if (!qgc_weights_array_number(r->w, PREFIX "token_type", i, &type))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "type of token %zu is not a number", i);
    const bool sentencepiece = !r->t->kind.split;
    if (type == TYPE_NORMAL || (type == TYPE_BYTE && sentencepiece))
        *kind = QGC_TOKEN_NORMAL;
    else if (type == TYPE_CONTROL || (type == TYPE_UNKNOWN && sentencepiece))
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

/* White space after a special token of Phi-3 is part of it, which a GGUF has no key for: that it is Phi-3 with its
 * SentencePiece says so, but for three tokens. */
static bool takes_white_space(const reader *r, const qgc_token *token) {
    static const char *const others[] = {"<unk>", "<s>", "<|endoftext|>"};
    const char *arch = qgc_weights_arch(r->w);
    if (r->t->kind.split || !arch || strcmp(arch, "phi3") != 0 ||
        (token->kind != QGC_TOKEN_SPECIAL && token->kind != QGC_TOKEN_ADDED))
        return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strlen(others[i]) == token->bytes && memcmp(others[i], token->text, token->bytes) == 0)
            return false;
    return true;
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
        token->in_vocab = token->kind != QGC_TOKEN_SPECIAL;
        /* SentencePiece looks for its user-defined pieces where blanks are U+2581 already. */
        token->flags.normalized =
            token->kind == QGC_TOKEN_ADDED && r->t->kind.replaces && r->t->kind.front == QGC_FRONT_NONE;
        token->flags.rstrip = takes_white_space(r, token);
        r->t->n_tokens = (int32_t)i + 1;
    }
    return QGC_OK;
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
            !qgc_merge_of_text(text, &r->t->merges[i]))
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

static qgc_status read_scores(const reader *r, qgc_arena *scratch) {
    const size_t n = (size_t)r->t->n_tokens, n_scores = qgc_weights_array_length(r->w, PREFIX "scores");
    if (n_scores < n)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "tokenizer has %zu tokens and %zu scores", n,
                        n_scores);
    r->t->scores = qgc_arena_array(scratch, n, sizeof *r->t->scores);
    for (size_t i = 0; i < n; i++) {
        double score = NAN;
        if (!qgc_weights_array_number(r->w, PREFIX "scores", i, &score) || isnan(score))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "score of token %zu is not a number", i);
        r->t->scores[i] = score;
    }
    return QGC_OK;
}

/* A boolean, or what it is where the file does not say. */
static bool flag(const reader *r, const char *key, bool missing) {
    double value;
    return qgc_weights_number(r->w, key, &value) ? value != 0 : missing;
}

/* What is computed only without. */
static qgc_status refuse_flags(const reader *r) {
    static const char *const keys[] = {PREFIX "add_eos_token", PREFIX "remove_extra_whitespaces"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (flag(r, keys[i], false))
            return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "key \"%s\" is true, only false is supported",
                            keys[i]);
    if (qgc_weights_array_length(r->w, PREFIX "precompiled_charsmap"))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at,
                        "tokenizer has a precompiled_charsmap, which is not supported");
    return QGC_OK;
}

/* SentencePiece: blanks are U+2581, and one is put in front unless the file says otherwise. */
static qgc_tokenizer_kind sentencepiece(const reader *r) {
    const bool front = flag(r, PREFIX "add_space_prefix", true);
    return (qgc_tokenizer_kind){
        .replaces = true, .strips = front, .front = front ? QGC_FRONT_NORMALIZED : QGC_FRONT_NONE};
}

/* BPE over bytes, whose steps the file states by one name. */
static qgc_status read_pre(const reader *r) {
    qgc_tokenizer_kind *kind = &r->t->kind;
    const char *pre = qgc_weights_string(r->w, PREFIX "pre");
    if (!pre)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "key \"" PREFIX "pre\" is missing");
    kind->split = qgc_split_by_pre(pre, &kind->nfc);
    if (!kind->split)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at,
                        "pre-tokenizer of the tokenizer is \"%s\", which is none of those supported", pre);
    kind->ignore_merges = kind->split->ignore_merges;
    if (flag(r, PREFIX "add_space_prefix", false))
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at,
                        "key \"" PREFIX "add_space_prefix\" is true, only false is supported with \"gpt2\"");
    return QGC_OK;
}

static qgc_status read_kind(const reader *r) {
    const char *model = qgc_weights_string(r->w, PREFIX "model");
    if (!model)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at, "key \"" PREFIX "model\" is missing");
    QGC_TRY(refuse_flags(r));
    if (strcmp(model, "gpt2") == 0)
        return read_pre(r);
    if (strcmp(model, "llama") != 0)
        return qgc_fail(r->d, QGC_ERR_INPUT, r->t->at,
                        "model of the tokenizer is \"%s\", only \"gpt2\" and \"llama\" are supported", model);
    r->t->kind = sentencepiece(r);
    return QGC_OK;
}

static qgc_status read_bos(const reader *r) {
    static const char key[] = PREFIX "bos_token_id";
    qgc_tokenizer_kind *kind = &r->t->kind;
    double id = -1;
    kind->bos = -1;
    if (!flag(r, PREFIX "add_bos_token", !kind->split || kind->split->bos))
        return QGC_OK;
    if (!qgc_weights_number(r->w, key, &id) || !(id >= 0 && id < r->t->n_tokens) ||
        id != (double)(int32_t)id || r->t->tokens[(int32_t)id].kind == QGC_TOKEN_NONE)
        return qgc_fail(
            r->d, QGC_ERR_INPUT, r->t->at,
            "the tokenizer puts a BOS in front, and key \"%s\" is %s, which is none of the tokens", key,
            qgc_weights_shown(r->w, key, r->d->arena) ? qgc_weights_shown(r->w, key, r->d->arena)
                                                      : "missing");
    kind->bos = (int32_t)id;
    return QGC_OK;
}

/* Texts of the special tokens, by their ids. */
static void read_named(const reader *r) {
    static const char *const keys[QGC_N_NAMED] = {[QGC_BOS_TOKEN] = PREFIX "bos_token_id",
                                                  [QGC_EOS_TOKEN] = PREFIX "eos_token_id",
                                                  [QGC_UNK_TOKEN] = PREFIX "unknown_token_id",
                                                  [QGC_PAD_TOKEN] = PREFIX "padding_token_id"};
    for (int i = 0; i < QGC_N_NAMED; i++) {
        double id = -1;
        const bool known = qgc_weights_number(r->w, keys[i], &id) && id >= 0 && id < r->t->n_tokens;
        const qgc_token *token = known ? &r->t->tokens[(int32_t)id] : NULL;
        if (token && token->kind != QGC_TOKEN_NONE)
            r->t->named[i] =
                (qgc_named_token){true, qgc_arena_strndup(r->d->arena, token->text, token->bytes)};
    }
}

static qgc_status read_tables(const reader *r, qgc_arena *scratch) {
    QGC_TRY(read_kind(r));
    QGC_TRY(read_tokens(r, scratch));
    QGC_TRY(read_bos(r));
    if (r->t->kind.split)
        QGC_TRY(read_merges(r, scratch));
    else
        QGC_TRY(read_scores(r, scratch));
    r->t->chat_template = qgc_weights_string(r->w, "tokenizer.chat_template");
    r->t->template_at = qgc_template_place(r->t->at, r->d);
    read_named(r);
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
