#ifndef QGC_MODELS_TOKENIZER_IMPL_H
#define QGC_MODELS_TOKENIZER_IMPL_H

#include "models/tokenizer.h"

/* What the files of the tokenizer share. Text goes
 *
 *   text -> added tokens cut out -> NFC -> words -> bytes -> merges -> ids
 *           added.c                 nfc.c  words.c  bpe.c
 *
 * and tables come from tokenizer_json.c or tokenizer_gguf.c through tokenizer_build.c. */

typedef struct {
    const char *text;
    size_t bytes;
} qgc_span;

/* nfc.c */

typedef struct {
    const uint64_t *unsafe; /* one bit for each code point that may change or change its neighbours */
} qgc_nfc;

qgc_nfc qgc_nfc_new(qgc_arena *arena);
/* The text in form NFC: the span itself where it is already, else in the scratch arena. Wants valid UTF-8. */
qgc_span qgc_nfc_apply(const qgc_nfc *nfc, qgc_span in, qgc_arena *scratch);

/* added.c */

typedef struct {
    qgc_span text;
    int32_t id;
    bool special;
} qgc_added_token;

typedef struct qgc_trie_node qgc_trie_node;

typedef struct {
    qgc_arena *arena;
    qgc_added_token *tokens;
    size_t n;
    qgc_trie_node *nodes; /* the first is the root */
    size_t n_nodes;
} qgc_added;

/* False if the text is there already. */
bool qgc_added_put(qgc_added *added, qgc_added_token token);
/* The first of the longest added tokens at or behind byte `from`, and where it starts; NULL if there is none. */
const qgc_added_token *qgc_added_find(const qgc_added *added, qgc_span in, size_t from, size_t *at);

/* words.c */

typedef struct qgc_words qgc_words;

/* The pre-tokenizer of qwen2 as it stands in tokenizer.json. */
extern const char qgc_qwen2_pattern[];

QGC_MUST_USE qgc_status qgc_words_open(qgc_words **out, qgc_arena *arena, qgc_diag *d);
void qgc_words_close(qgc_words *w);
/* The length of the word that starts the n > 0 bytes of UTF-8. */
size_t qgc_words_next(qgc_words *w, const char *text, size_t n);

/* bpe.c */

typedef struct qgc_bpe qgc_bpe;

qgc_bpe *qgc_bpe_new(qgc_arena *arena, size_t n_merges);
void qgc_bpe_set_byte(qgc_bpe *bpe, unsigned char byte, int32_t id);
/* Merges `left` and `right` to `merged`; a lower rank goes first. A later merge of the same pair wins. */
void qgc_bpe_add_merge(qgc_bpe *bpe, int32_t left, int32_t right, int32_t merged, int32_t rank);
/* Appends the ids of one word. */
void qgc_bpe_encode(qgc_bpe *bpe, qgc_span word, qgc_tokens *out);

/* tokenizer_build.c */

typedef enum {
    QGC_TOKEN_NONE,    /* no token has this id */
    QGC_TOKEN_NORMAL,  /* made by merges; written in the letters that stand for bytes */
    QGC_TOKEN_ADDED,   /* always matched in the text */
    QGC_TOKEN_SPECIAL, /* matched in the text where special tokens are wanted */
} qgc_token_kind;

typedef struct {
    const char *text;
    size_t bytes;
    qgc_token_kind kind;
} qgc_token;

typedef struct {
    qgc_span left, right;
} qgc_merge;

enum { QGC_MAX_ID = 1 << 20, QGC_MAX_EOS = 32 };

/* The tables as a file states them, on their way into a tokenizer, which copies what it keeps. */
typedef struct {
    qgc_loc at;        /* for errors */
    qgc_token *tokens; /* [n_tokens], by id */
    int32_t n_tokens;
    qgc_merge *merges; /* [n_merges], the first goes first */
    size_t n_merges;
    int32_t eos[QGC_MAX_EOS];
    int n_eos;
    const char *chat_template; /* or NULL */
    qgc_loc template_at;       /* the file that has it */
} qgc_tokenizer_tables;

QGC_MUST_USE qgc_status qgc_tokenizer_build(qgc_tokenizer **out, const qgc_tokenizer_tables *tables,
                                            qgc_diag *d);

/* For errors: at most 60 bytes of a text, and what cannot be printed as '?'. */
const char *qgc_shown(qgc_diag *d, qgc_span s);

/* Adds to the ids that end a text. An id that is none of the tokens, which are to be read before, is an error of the
 * file. */
QGC_MUST_USE qgc_status qgc_tables_add_eos(qgc_tokenizer_tables *t, double id, qgc_loc at, qgc_diag *d);

/* tokenizer_json.c: the texts of a folder; those that are not there are NULL. `tokenizer` must be. */
typedef struct {
    qgc_source tokenizer, config, generation, model, chat_template; /* model: config.json */
} qgc_tokenizer_files;

QGC_MUST_USE qgc_status qgc_tokenizer_from_json(qgc_tokenizer **out, const qgc_tokenizer_files *files,
                                                qgc_diag *d);

struct qgc_tokenizer {
    qgc_arena *arena;
    qgc_token *tokens; /* as bytes, not as letters */
    int32_t n_tokens;
    qgc_added added;
    qgc_nfc nfc;
    qgc_words *words;
    qgc_bpe *bpe;
    int32_t eos[QGC_MAX_EOS + 2];
    int n_eos;
    const char *chat_template;
    qgc_source template_source; /* the file that has it, for errors */
};

#endif
