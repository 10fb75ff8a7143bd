#include <string.h>

#include "graph/base/hash.h"
#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

/* Turns the tables of a file into a tokenizer and checks them on the way. */

enum { MAX_ADDED_BYTES = 1024, N_LETTERS = 0x144 };

/* Vocabularies write bytes as letters that can be seen: printable Latin-1 stands for itself, the rest for
 * U+0100 and up in order (GPT-2's bytes_to_unicode). -1 where a code point stands for no byte. */
static void make_letters(int16_t letters[N_LETTERS]) {
    int next = 0x100;
    for (int c = 0; c < N_LETTERS; c++)
        letters[c] = -1;
    for (int16_t byte = 0; byte < 256; byte++) {
        bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
        letters[printable ? byte : next++] = byte;
    }
}

/* The bytes that a token stands for; false if it is not written in letters. */
static bool to_bytes(const int16_t letters[N_LETTERS], const qgc_token *token, char *out, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < token->bytes;) {
        uint32_t c = 0;
        int length = qgc_utf8_decode(token->text + i, token->bytes - i, &c);
        if (length == 0 || c >= N_LETTERS || letters[c] < 0)
            return false;
        out[(*n)++] = (char)letters[c];
        i += (size_t)length;
    }
    return true;
}

/* Ids by text, as the file writes it, for the tokens that merges are made of. */
typedef struct {
    uint32_t hash; /* the upper half, so that a look at the text is nearly always the last */
    int32_t id;    /* + 1; 0 is an empty slot */
} vocabulary_slot;

typedef struct {
    const qgc_token *tokens;
    int32_t n_tokens;
    vocabulary_slot *slots;
    size_t mask;
} vocabulary;

static bool is_token(const qgc_token *token, qgc_span text) {
    return token->kind == QGC_TOKEN_NORMAL && token->bytes == text.bytes &&
           memcmp(token->text, text.text, text.bytes) == 0;
}

/* The slot of the text, or the empty one where it would go, with the hash already in it. */
static vocabulary_slot *find_slot(const vocabulary *v, qgc_span text) {
    uint64_t h = qgc_hash64(text.text, text.bytes);
    uint32_t upper = (uint32_t)(h >> 32);
    size_t i = (size_t)h & v->mask;
    while (v->slots[i].id && (v->slots[i].hash != upper || !is_token(&v->tokens[v->slots[i].id - 1], text)))
        i = (i + 1) & v->mask;
    v->slots[i].hash = upper;
    return &v->slots[i];
}

static int32_t find_id(const vocabulary *v, qgc_span text) {
    return find_slot(v, text)->id - 1;
}

const char *qgc_shown(qgc_diag *d, qgc_span s) {
    enum { MOST = 60 };
    size_t n = s.bytes < MOST ? s.bytes : MOST;
    while (n < s.bytes && n > 0 && ((unsigned char)s.text[n] & 0xC0) == 0x80) /* not within a character */
        n--;
    char *copy = qgc_arena_strndup(d->arena, s.text, n);
    for (char *p = copy; p < copy + n; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            *p = '?';
    }
    return copy;
}

static qgc_status index_vocabulary(vocabulary *v, const qgc_tokenizer_tables *from, qgc_arena *scratch,
                                   qgc_diag *d) {
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)from->n_tokens)
        n_slots *= 2;
    *v = (vocabulary){from->tokens, from->n_tokens, qgc_arena_array(scratch, n_slots, sizeof *v->slots),
                      n_slots - 1};
    for (int32_t id = 0; id < from->n_tokens; id++) {
        const qgc_token *token = &from->tokens[id];
        if (token->kind != QGC_TOKEN_NORMAL)
            continue;
        qgc_span text = {token->text, token->bytes};
        vocabulary_slot *slot = find_slot(v, text);
        if (slot->id)
            return qgc_fail(d, QGC_ERR_INPUT, from->at, "token \"%s\" has two ids, %d and %d",
                            qgc_shown(d, text), (int)slot->id - 1, (int)id);
        slot->id = id + 1;
    }
    return QGC_OK;
}

/* Copies the tokens, turned into bytes, and finds those of the single bytes. */
static qgc_status copy_tokens(qgc_tokenizer *t, const qgc_tokenizer_tables *from, qgc_diag *d) {
    int16_t letters[N_LETTERS];
    bool seen[256] = {false};
    make_letters(letters);
    size_t room = 1;
    for (int32_t id = 0; id < from->n_tokens; id++)
        room += from->tokens[id].bytes + 1;
    char *text = qgc_arena_alloc(t->arena, room);
    t->n_tokens = from->n_tokens;
    t->tokens = qgc_arena_array(t->arena, (size_t)t->n_tokens, sizeof *t->tokens);
    for (int32_t id = 0; id < t->n_tokens; id++) {
        const qgc_token *token = &from->tokens[id];
        size_t n = token->bytes;
        if (token->kind == QGC_TOKEN_NONE)
            continue;
        bool is_bytes = token->kind == QGC_TOKEN_NORMAL && to_bytes(letters, token, text, &n);
        if (!is_bytes) { /* an added token, or one that no text leads to, which stands for its name */
            n = token->bytes;
            memcpy(text, token->text, n);
        } else if (n == 1) {
            qgc_bpe_set_byte(t->bpe, (unsigned char)text[0], id);
            seen[(unsigned char)text[0]] = true;
        }
        text[n] = 0;
        t->tokens[id] = (qgc_token){text, n, token->kind};
        text += n + 1;
    }
    for (int byte = 0; byte < 256; byte++) {
        if (!seen[byte])
            return qgc_fail(d, QGC_ERR_INPUT, from->at, "byte 0x%02X has no token", (unsigned)byte);
    }
    return QGC_OK;
}

/* Merges mostly stand in the order of what they make, so the id behind the last one is a good guess. */
static int32_t find_merged(const vocabulary *v, qgc_span text, int32_t guess) {
    if (guess < v->n_tokens && is_token(&v->tokens[guess], text))
        return guess;
    return find_id(v, text);
}

static qgc_status add_merges(qgc_tokenizer *t, const vocabulary *v, const qgc_tokenizer_tables *from,
                             qgc_diag *d) {
    qgc_str whole = qgc_str_new(d->arena);
    int32_t merged = -1;
    for (size_t i = 0; i < from->n_merges; i++) {
        const qgc_merge *m = &from->merges[i];
        qgc_str_clear(&whole);
        qgc_str_add_bytes(&whole, m->left.text, m->left.bytes);
        qgc_str_add_bytes(&whole, m->right.text, m->right.bytes);
        int32_t left = find_id(v, m->left), right = find_id(v, m->right);
        merged = find_merged(v, (qgc_span){whole.text, whole.bytes}, merged + 1);
        if (left < 0 || right < 0 || merged < 0) {
            qgc_span missing = left < 0    ? m->left
                               : right < 0 ? m->right
                                           : (qgc_span){whole.text, whole.bytes};
            return qgc_fail(d, QGC_ERR_INPUT, from->at,
                            "merge %zu needs token \"%s\", which is not in the vocabulary", i,
                            qgc_shown(d, missing));
        }
        qgc_bpe_add_merge(t->bpe, left, right, merged, (int32_t)i);
    }
    return QGC_OK;
}

static qgc_status add_added(qgc_tokenizer *t, const vocabulary *v, const qgc_tokenizer_tables *from,
                            qgc_diag *d) {
    t->added.arena = t->arena;
    for (int32_t id = 0; id < t->n_tokens; id++) {
        const qgc_token *token = &t->tokens[id];
        if (token->kind != QGC_TOKEN_ADDED && token->kind != QGC_TOKEN_SPECIAL)
            continue;
        qgc_span text = {token->text, token->bytes};
        if (text.bytes == 0 || text.bytes > MAX_ADDED_BYTES)
            return qgc_fail(d, QGC_ERR_INPUT, from->at, "added token %d has %zu bytes, expected 1 to %d",
                            (int)id, text.bytes, MAX_ADDED_BYTES);
        if (qgc_utf8_check(text.text, text.bytes) != text.bytes)
            return qgc_fail(d, QGC_ERR_INPUT, from->at, "added token %d is not valid UTF-8", (int)id);
        int32_t other = find_id(v, text);
        if (other < 0 &&
            !qgc_added_put(&t->added, (qgc_added_token){text, id, token->kind == QGC_TOKEN_SPECIAL}))
            other = qgc_tokenizer_special_id(t, text.text);
        if (other >= 0)
            return qgc_fail(d, QGC_ERR_INPUT, from->at, "token \"%s\" has two ids, %d and %d",
                            qgc_shown(d, text), (int)other, (int)id);
    }
    return QGC_OK;
}

qgc_status qgc_tables_add_eos(qgc_tokenizer_tables *t, double id, qgc_loc at, qgc_diag *d) {
    if (!(id >= 0 && id <= QGC_MAX_ID) || id != (double)(int32_t)id)
        return qgc_fail(d, QGC_ERR_INPUT, at, "end-of-text id %g is not a token id", id);
    if (id >= t->n_tokens || t->tokens[(int32_t)id].kind == QGC_TOKEN_NONE)
        return qgc_fail(d, QGC_ERR_INPUT, at, "end-of-text id %g is none of the tokens, whose ids end at %d",
                        id, (int)t->n_tokens - 1);
    if (t->n_eos == QGC_MAX_EOS)
        return qgc_fail(d, QGC_ERR_INPUT, at, "more than %d end-of-text ids", QGC_MAX_EOS);
    t->eos[t->n_eos++] = (int32_t)id;
    return QGC_OK;
}

/* Without merges every text would come out as single bytes, and the model knows it as words. */
static qgc_status want_merges(const qgc_tokenizer *t, const qgc_tokenizer_tables *from, qgc_diag *d) {
    int n_longer = 0;
    for (int32_t id = 0; id < t->n_tokens; id++)
        n_longer += t->tokens[id].kind == QGC_TOKEN_NORMAL && t->tokens[id].bytes > 1;
    if (from->n_merges > 0 || n_longer == 0)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, from->at,
                    "tokenizer has %d tokens of several bytes, and no merges that make them", n_longer);
}

static void set_eos(qgc_tokenizer *t, const qgc_tokenizer_tables *from) {
    static const char *const always[] = {"<|im_end|>", "<|endoftext|>"};
    memcpy(t->eos, from->eos, sizeof from->eos);
    t->n_eos = from->n_eos;
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
        int32_t id = qgc_tokenizer_special_id(t, always[i]);
        if (id >= 0)
            t->eos[t->n_eos++] = id;
    }
}

static qgc_status fill(qgc_tokenizer *t, const qgc_tokenizer_tables *from, qgc_arena *scratch, qgc_diag *d) {
    vocabulary v;
    QGC_TRY(index_vocabulary(&v, from, scratch, d));
    QGC_TRY(copy_tokens(t, from, d));
    QGC_TRY(want_merges(t, from, d));
    QGC_TRY(add_merges(t, &v, from, d));
    QGC_TRY(add_added(t, &v, from, d));
    set_eos(t, from);
    if (from->chat_template)
        t->chat_template = qgc_arena_strdup(t->arena, from->chat_template);
    const qgc_source *source = (from->chat_template ? from->template_at : from->at).source;
    if (source)
        t->template_source.name = qgc_arena_strdup(t->arena, source->name);
    t->nfc = qgc_nfc_new(t->arena);
    return QGC_OK;
}

qgc_status qgc_tokenizer_build(qgc_tokenizer **out, const qgc_tokenizer_tables *from, qgc_diag *d) {
    qgc_arena *arena = qgc_arena_new(), *scratch = qgc_arena_new();
    qgc_tokenizer *t = qgc_arena_alloc(arena, sizeof *t);
    t->arena = arena;
    t->bpe = qgc_bpe_new(arena, from->n_merges);
    qgc_status status = qgc_words_open(&t->words, arena, d);
    if (status == QGC_OK)
        status = fill(t, from, scratch, d);
    qgc_arena_drop(scratch);
    if (status != QGC_OK) {
        qgc_tokenizer_close(t);
        t = NULL;
    }
    *out = t;
    return status;
}
