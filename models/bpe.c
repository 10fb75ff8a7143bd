#include <string.h>

#include "graph/base/hash.h"
#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

/* Byte pair encoding: a word starts as the ids of its bytes, or of its characters where they are tokens, and of all
 * neighbours that can merge those of the lowest rank do, the leftmost first, until none can. */

typedef struct {
    int32_t left, right, merged;
    int32_t rank; /* + 1; 0 is an empty slot */
} merge;

/* Words repeat. A word of a text has one place in the cache and drives out what was there. */
enum { CACHED_BYTES = 30, CACHED_IDS = 8, CACHE_SLOTS = 1 << 15 };

typedef struct {
    uint8_t n_bytes, n_ids; /* n_bytes is 0 in an empty slot */
    char word[CACHED_BYTES];
    int32_t ids[CACHED_IDS];
} cached_word;
_Static_assert(sizeof(cached_word) == 64, "a cached word is a line of the processor's cache");

struct qgc_bpe {
    int32_t byte_ids[256];               /* -1 where there is none */
    const qgc_vocab *characters, *whole; /* or NULL */
    merge *merges;                       /* hashed, room for a power of two */
    uint32_t mask;
    cached_word *cache;
};

qgc_bpe *qgc_bpe_new(qgc_arena *arena, size_t n_merges) {
    qgc_bpe *bpe = qgc_arena_alloc(arena, sizeof *bpe);
    for (int byte = 0; byte < 256; byte++)
        bpe->byte_ids[byte] = -1;
    size_t n_slots = 16;
    while (n_slots < 2 * n_merges)
        n_slots *= 2;
    bpe->merges = qgc_arena_array(arena, n_slots, sizeof *bpe->merges);
    bpe->mask = (uint32_t)(n_slots - 1);
    bpe->cache = qgc_arena_array(arena, CACHE_SLOTS, sizeof *bpe->cache);
    return bpe;
}

void qgc_bpe_set_byte(qgc_bpe *bpe, unsigned char byte, int32_t id) {
    bpe->byte_ids[byte] = id;
}

void qgc_bpe_start_with_characters(qgc_bpe *bpe, const qgc_vocab *tokens) {
    bpe->characters = tokens;
}

void qgc_bpe_take_whole_words(qgc_bpe *bpe, const qgc_vocab *tokens) {
    bpe->whole = tokens;
}

bool qgc_bpe_has_byte(const qgc_bpe *bpe, unsigned char byte) {
    return bpe->byte_ids[byte] >= 0;
}

/* The ids that a word starts as, at most one a byte. Returns how many. */
static int32_t first_ids(const qgc_bpe *bpe, qgc_span word, int32_t *ids) {
    int32_t n = 0;
    for (size_t i = 0; i < word.bytes;) {
        uint32_t c;
        int length = bpe->characters ? qgc_utf8_decode(word.text + i, word.bytes - i, &c) : 0;
        int32_t id = length ? qgc_vocab_find(bpe->characters, (qgc_span){word.text + i, (size_t)length}) : -1;
        if (id >= 0)
            ids[n++] = id;
        for (int k = 0; id < 0 && k < (length ? length : 1); k++)
            ids[n++] = bpe->byte_ids[(unsigned char)word.text[i + (size_t)k]];
        i += (size_t)(length ? length : 1);
    }
    return n;
}

/* The slot of the pair, or the empty one where it would go. */
static merge *find_slot(const qgc_bpe *bpe, int32_t left, int32_t right) {
    uint64_t h =
        ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio */
    uint32_t i = (uint32_t)(h >> 32) & bpe->mask;
    while (bpe->merges[i].rank && (bpe->merges[i].left != left || bpe->merges[i].right != right))
        i = (i + 1) & bpe->mask;
    return &bpe->merges[i];
}

void qgc_bpe_add_merge(qgc_bpe *bpe, int32_t left, int32_t right, int32_t merged, int32_t rank) {
    *find_slot(bpe, left, right) = (merge){left, right, merged, rank + 1};
}

static const merge *find_merge(const qgc_bpe *bpe, int32_t left, int32_t right) {
    const merge *m = find_slot(bpe, left, right);
    return m->rank ? m : NULL;
}

enum { SHORT_WORD = 64 };

/* A word of at most SHORT_WORD bytes: looks at all pairs before each merge. Returns how many ids are left. */
static int merge_short(const qgc_bpe *bpe, int32_t *ids, int n) {
    const merge *pairs[SHORT_WORD]; /* pairs[i] merges ids[i] with ids[i + 1] */
    for (int i = 0; i + 1 < n; i++)
        pairs[i] = find_merge(bpe, ids[i], ids[i + 1]);
    for (;;) {
        int best = -1;
        for (int i = 0; i + 1 < n; i++) {
            if (pairs[i] && (best < 0 || pairs[i]->rank < pairs[best]->rank))
                best = i;
        }
        if (best < 0)
            return n;
        ids[best] = pairs[best]->merged;
        n--;
        memmove(ids + best + 1, ids + best + 2, (size_t)(n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            memmove(pairs + best + 1, pairs + best + 2, (size_t)(n - best - 2) * sizeof(pairs[0]));
            pairs[best] = find_merge(bpe, ids[best], ids[best + 1]);
        }
        if (best > 0)
            pairs[best - 1] = find_merge(bpe, ids[best - 1], ids[best]);
    }
}

/* A long word is a linked list of symbols beside a heap of the merges that were possible when they were
 * pushed; one whose symbols have changed since is passed over. */
typedef struct {
    int32_t id; /* -1 once it was merged into its left neighbour */
    int32_t prev, next;
} symbol;

typedef struct {
    const merge *merge;
    int32_t at;
} candidate;

typedef struct {
    const qgc_bpe *bpe;
    symbol *symbols;
    candidate *heap;
    size_t n_heap;
} long_word;

static bool goes_before(candidate a, candidate b) {
    return a.merge->rank != b.merge->rank ? a.merge->rank < b.merge->rank : a.at < b.at;
}

/* Pushes the merge of symbol `at` with the next one, if there is such. */
static void push_candidate(long_word *w, int32_t at) {
    if (at < 0 || w->symbols[at].next < 0)
        return;
    candidate c = {find_merge(w->bpe, w->symbols[at].id, w->symbols[w->symbols[at].next].id), at};
    if (!c.merge)
        return;
    size_t i = w->n_heap++;
    for (; i > 0 && goes_before(c, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static candidate pop_candidate(long_word *w) {
    candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && goes_before(w->heap[child + 1], w->heap[child]))
            child++;
        if (!goes_before(w->heap[child], last))
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

static void merge_candidate(long_word *w, candidate c) {
    symbol *left = &w->symbols[c.at];
    if (left->id != c.merge->left || left->next < 0 || w->symbols[left->next].id != c.merge->right)
        return;
    symbol *right = &w->symbols[left->next];
    left->id = c.merge->merged;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0)
        w->symbols[left->next].prev = c.at;
    push_candidate(w, left->prev);
    push_candidate(w, c.at);
}

static void encode_long(const qgc_bpe *bpe, qgc_span word, qgc_tokens *out) {
    qgc_arena *scratch = qgc_arena_new();
    long_word w = {.bpe = bpe, .symbols = qgc_arena_array(scratch, word.bytes, sizeof *w.symbols)};
    /* One candidate for each pair at first; a merge takes one and pushes two at most. */
    w.heap = qgc_arena_array(scratch, 2 * word.bytes, sizeof *w.heap);
    int32_t *ids = qgc_arena_array(scratch, word.bytes, sizeof *ids);
    const int32_t n = first_ids(bpe, word, ids);
    for (int32_t i = 0; i < n; i++)
        w.symbols[i] = (symbol){ids[i], i - 1, i + 1 < n ? i + 1 : -1};
    for (int32_t i = 0; i < n; i++)
        push_candidate(&w, i);
    while (w.n_heap > 0)
        merge_candidate(&w, pop_candidate(&w));
    for (int32_t i = 0; i >= 0; i = w.symbols[i].next)
        qgc_tokens_add(out, w.symbols[i].id);
    qgc_arena_drop(scratch);
}

static void add_ids(qgc_tokens *out, const int32_t *ids, int n) {
    for (int i = 0; i < n; i++)
        qgc_tokens_add(out, ids[i]);
}

void qgc_bpe_encode(qgc_bpe *bpe, qgc_span word, qgc_tokens *out) {
    const int32_t whole = bpe->whole ? qgc_vocab_find(bpe->whole, word) : -1;
    if (whole >= 0) {
        qgc_tokens_add(out, whole);
        return;
    }
    if (word.bytes > SHORT_WORD) {
        encode_long(bpe, word, out);
        return;
    }
    cached_word *cached = NULL;
    if (word.bytes <= CACHED_BYTES) {
        cached = &bpe->cache[qgc_hash64(word.text, word.bytes) % CACHE_SLOTS];
        if (cached->n_bytes == word.bytes && memcmp(cached->word, word.text, word.bytes) == 0) {
            add_ids(out, cached->ids, cached->n_ids);
            return;
        }
    }
    int32_t ids[SHORT_WORD];
    int n = merge_short(bpe, ids, first_ids(bpe, word, ids));
    add_ids(out, ids, n);
    if (cached && n <= CACHED_IDS) {
        cached->n_bytes = (uint8_t)word.bytes;
        cached->n_ids = (uint8_t)n;
        memcpy(cached->word, word.text, word.bytes);
        memcpy(cached->ids, ids, (size_t)n * sizeof *ids);
    }
}
