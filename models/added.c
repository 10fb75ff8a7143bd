#include <string.h>

#include "models/tokenizer_impl.h"

/* Added tokens stand in a trie: children of a node are a list, most nodes have one.
 *
 *   root -'<'- . -'|'- . -'i'- . -'m'- ...        a node with a token ends its text
 *               \-'t'- . -'o'- . ...  */
struct qgc_trie_node {
    uint32_t child, sibling; /* indices into nodes; 0 is none, as nothing leads to the root */
    uint32_t token;          /* index + 1 into tokens */
    unsigned char byte;
};

static uint32_t find_child(const qgc_added *a, uint32_t node, unsigned char byte) {
    uint32_t child = a->nodes[node].child;
    while (child && a->nodes[child].byte != byte)
        child = a->nodes[child].sibling;
    return child;
}

static uint32_t new_node(qgc_added *a, uint32_t parent, unsigned char byte) {
    a->nodes = qgc_arena_grow(a->arena, a->nodes, a->n_nodes, sizeof *a->nodes);
    uint32_t node = (uint32_t)a->n_nodes++;
    a->nodes[node].byte = byte;
    if (node) {
        a->nodes[node].sibling = a->nodes[parent].child;
        a->nodes[parent].child = node;
    }
    return node;
}

bool qgc_added_put(qgc_added *a, qgc_added_token token) {
    uint32_t node = a->n_nodes ? 0 : new_node(a, 0, 0);
    for (size_t i = 0; i < token.text.bytes; i++) {
        unsigned char byte = (unsigned char)token.text.text[i];
        uint32_t child = find_child(a, node, byte);
        node = child ? child : new_node(a, node, byte);
    }
    if (a->nodes[node].token)
        return false;
    a->tokens = qgc_arena_grow(a->arena, a->tokens, a->n, sizeof *a->tokens);
    a->tokens[a->n] = token;
    a->nodes[node].token = (uint32_t)++a->n;
    return true;
}

/* The longest added token that the bytes start with. */
static const qgc_added_token *match(const qgc_added *a, const char *text, size_t n) {
    const qgc_added_token *longest = NULL;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = find_child(a, node, (unsigned char)text[i]);
        if (!node)
            break;
        if (a->nodes[node].token)
            longest = &a->tokens[a->nodes[node].token - 1];
    }
    return longest;
}

/* Where a byte that starts an added token comes next. Nearly always they all start with the same one. */
static size_t find_start(const qgc_added *a, qgc_span in, size_t from) {
    uint32_t child = a->nodes[0].child;
    if (!child)
        return in.bytes;
    if (!a->nodes[child].sibling) {
        const char *p = memchr(in.text + from, a->nodes[child].byte, in.bytes - from);
        return p ? (size_t)(p - in.text) : in.bytes;
    }
    while (from < in.bytes && !find_child(a, 0, (unsigned char)in.text[from]))
        from++;
    return from;
}

const qgc_added_token *qgc_added_find(const qgc_added *a, qgc_span in, size_t from, size_t *at) {
    for (; a->n && from < in.bytes; from++) {
        from = find_start(a, in, from);
        const qgc_added_token *found = match(a, in.text + from, in.bytes - from);
        if (found) {
            *at = from;
            return found;
        }
    }
    return NULL;
}
