#include <limits.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

qgc_tokens qgc_tokens_new(qgc_arena *arena) {
    return (qgc_tokens){.arena = arena};
}

void qgc_tokens_add(qgc_tokens *t, int32_t id) {
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        int32_t *ids = qgc_arena_array(t->arena, t->room, sizeof *ids);
        if (t->n)
            memcpy(ids, t->ids, t->n * sizeof *ids);
        t->ids = ids;
    }
    t->ids[t->n++] = id;
}

void qgc_tokenizer_close(qgc_tokenizer *t) {
    if (!t)
        return;
    qgc_words_close(t->words);
    qgc_arena_drop(t->arena);
}

int32_t qgc_tokenizer_size(const qgc_tokenizer *t) {
    return t->n_tokens;
}

/* Text without added tokens. */
static void encode_plain(qgc_tokenizer *t, qgc_span text, qgc_tokens *out, qgc_arena *scratch) {
    text = qgc_nfc_apply(&t->nfc, text, scratch);
    while (text.bytes > 0) {
        qgc_span word = {text.text, qgc_words_next(t->words, text.text, text.bytes)};
        qgc_bpe_encode(t->bpe, word, out);
        text = (qgc_span){text.text + word.bytes, text.bytes - word.bytes};
    }
}

qgc_status qgc_tokenizer_encode(qgc_tokenizer *t, const char *text, size_t bytes, bool specials,
                                qgc_tokens *out, qgc_diag *d) {
    if (bytes > INT32_MAX)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the text has %zu bytes, at most %d can be encoded",
                        bytes, INT32_MAX);
    if (bytes == 0)
        return QGC_OK;
    size_t valid = qgc_utf8_check(text, bytes);
    if (valid < bytes)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the text is not valid UTF-8 at byte %zu", valid);
    qgc_arena *scratch = qgc_arena_new();
    const qgc_span all = {text, bytes};
    size_t done = 0, from = 0, at;
    for (const qgc_added_token *a; (a = qgc_added_find(&t->added, all, from, &at));) {
        from = at + a->text.bytes;
        if (a->special && !specials)
            continue; /* ordinary text, and as in the reference no other added token is looked for in it */
        encode_plain(t, (qgc_span){text + done, at - done}, out, scratch);
        qgc_tokens_add(out, a->id);
        done = from;
    }
    encode_plain(t, (qgc_span){text + done, bytes - done}, out, scratch);
    qgc_arena_drop(scratch);
    return QGC_OK;
}

static const qgc_token *find_token(const qgc_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->n_tokens && t->tokens[id].kind != QGC_TOKEN_NONE ? &t->tokens[id] : NULL;
}

const char *qgc_tokenizer_piece(const qgc_tokenizer *t, int32_t id, size_t *bytes) {
    const qgc_token *token = find_token(t, id);
    *bytes = token ? token->bytes : 0;
    return token ? token->text : NULL;
}

bool qgc_tokenizer_is_special(const qgc_tokenizer *t, int32_t id) {
    const qgc_token *token = find_token(t, id);
    return token && token->kind == QGC_TOKEN_SPECIAL;
}

int32_t qgc_tokenizer_special_id(const qgc_tokenizer *t, const char *text) {
    size_t bytes = strlen(text);
    for (size_t i = 0; i < t->added.n; i++) {
        const qgc_added_token *a = &t->added.tokens[i];
        if (a->text.bytes == bytes && memcmp(a->text.text, text, bytes) == 0)
            return a->id;
    }
    return -1;
}

bool qgc_tokenizer_is_eos(const qgc_tokenizer *t, int32_t id) {
    for (int i = 0; i < t->n_eos; i++) {
        if (t->eos[i] == id)
            return true;
    }
    return false;
}

const char *qgc_tokenizer_chat_template(const qgc_tokenizer *t) {
    return t->chat_template;
}
