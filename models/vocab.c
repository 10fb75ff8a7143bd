#include <string.h>

#include "graph/base/hash.h"
#include "models/tokenizer_impl.h"

/* Ids by text: a hash table with the tokens beside it. */
struct qgc_vocab_slot {
    uint32_t hash; /* the upper half, so that a look at the text is nearly always the last */
    int32_t id;    /* + 1; 0 is an empty slot */
};

typedef struct qgc_vocab_slot vocab_slot;

qgc_vocab qgc_vocab_new(qgc_arena *arena, const qgc_token *tokens, int32_t n_tokens) {
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)n_tokens)
        n_slots *= 2;
    return (qgc_vocab){tokens, n_tokens, qgc_arena_array(arena, n_slots, sizeof(vocab_slot)), n_slots - 1};
}

static bool is_text(const qgc_token *token, qgc_span text) {
    return token->bytes == text.bytes && memcmp(token->text, text.text, text.bytes) == 0;
}

/* The slot of the text, or the empty one where it would go. */
static vocab_slot *find_slot(const qgc_vocab *v, qgc_span text, uint32_t *hash) {
    uint64_t h = qgc_hash64(text.text, text.bytes);
    size_t i = (size_t)h & v->mask;
    *hash = (uint32_t)(h >> 32);
    while (v->slots[i].id && (v->slots[i].hash != *hash || !is_text(&v->tokens[v->slots[i].id - 1], text)))
        i = (i + 1) & v->mask;
    return &v->slots[i];
}

int32_t qgc_vocab_put(qgc_vocab *v, int32_t id) {
    uint32_t hash;
    vocab_slot *slot = find_slot(v, (qgc_span){v->tokens[id].text, v->tokens[id].bytes}, &hash);
    if (slot->id)
        return slot->id - 1;
    *slot = (vocab_slot){hash, id + 1};
    return -1;
}

int32_t qgc_vocab_find(const qgc_vocab *v, qgc_span text) {
    uint32_t hash;
    return find_slot(v, text, &hash)->id - 1;
}
