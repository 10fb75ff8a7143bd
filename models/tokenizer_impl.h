#ifndef QGC_MODELS_TOKENIZER_IMPL_H
#define QGC_MODELS_TOKENIZER_IMPL_H

#include "models/tokenizer.h"

/* What the files of the tokenizer share. Text goes
 *
 *   text -> added tokens cut out -> normalised -> normalised ones cut out -> words -> bytes or characters -> ids
 *           added.c                 nfc.c         added.c                    words.c  bpe.c
 *
 * and tables come from tokenizer_json.c or tokenizer_gguf.c through tokenizer_build.c.
 *
 * SentencePiece writes a blank as U+2581. Here it is a blank in the text and in the tokens, and a U+2581 of the
 * text becomes one: both lead to the same ids. */

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

/* What an added token takes besides its text, and where it counts. */
typedef struct {
    bool lstrip, rstrip; /* white space before and after it is part of it */
    bool single_word;    /* only where no letter, mark or digit is beside it */
    bool normalized;     /* looked for in the normalised text, itself normalised */
} qgc_added_flags;

typedef struct {
    qgc_span text; /* what is looked for */
    qgc_span name; /* as the file writes it */
    int32_t id;
    bool special;
    qgc_added_flags flags;
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
/* The first of the longest added tokens at or after byte `from`, and where it starts; NULL if there is none. */
const qgc_added_token *qgc_added_find(const qgc_added *added, qgc_span in, size_t from, size_t *at);

/* characters.c */

bool qgc_is_white(uint32_t code_point);
/* A letter, mark, digit, connector or joiner: \w of a regular expression. */
bool qgc_is_word_character(uint32_t code_point);

/* words.c */

typedef struct qgc_words qgc_words;

/* Is text to be in form NFC? */
typedef enum {
    QGC_NFC_NO,
    QGC_NFC_YES,
    QGC_NFC_UNKNOWN, /* no file says, so that text which is not in it is refused */
} qgc_nfc_use;

/* How text is cut into words. */
typedef struct {
    const char *regex;            /* of a Split step in tokenizer.json */
    const char *steps;            /* NULL, or the first of the steps that mean it without a Split */
    const char *gguf;             /* NULL, or names in tokenizer.ggml.pre, each between blanks */
    const char *unsure;           /* the same, but for that it is not known if their text is normalised */
    bool nfc, ignore_merges, bos; /* what goes with such a name in a GGUF */
} qgc_split;

/* The split by its regular expression or its steps in tokenizer.json, or by its name in a GGUF; NULL if it is not
 * known. */
const qgc_split *qgc_split_by_regex(const char *regex);
const qgc_split *qgc_split_by_steps(const char *steps);
const qgc_split *qgc_split_by_pre(const char *name, qgc_nfc_use *nfc);

QGC_MUST_USE qgc_status qgc_words_open(qgc_words **out, const qgc_split *split, qgc_arena *arena,
                                       qgc_diag *d);
void qgc_words_close(qgc_words *w);
/* The length of the word that starts the n > 0 bytes of UTF-8. */
size_t qgc_words_next(qgc_words *w, const char *text, size_t n);

/* vocab.c */

typedef enum {
    QGC_TOKEN_NONE,    /* no token has this id */
    QGC_TOKEN_NORMAL,  /* made by merges */
    QGC_TOKEN_ADDED,   /* always matched in the text */
    QGC_TOKEN_SPECIAL, /* matched in the text where special tokens are wanted */
} qgc_token_kind;

typedef struct {
    const char *text;
    size_t bytes;
    qgc_token_kind kind;
    bool in_vocab;         /* an added token that merges may make too; normal ones always are */
    qgc_added_flags flags; /* of an added token */
} qgc_token;

/* Ids by text. */
typedef struct {
    const qgc_token *tokens;
    int32_t n_tokens;
    struct qgc_vocab_slot *slots;
    size_t mask;
} qgc_vocab;

/* An empty one with room for all of the tokens. */
qgc_vocab qgc_vocab_new(qgc_arena *arena, const qgc_token *tokens, int32_t n_tokens);
/* Puts the token of this id in. The id of the same text that is there already, or -1. */
int32_t qgc_vocab_put(qgc_vocab *v, int32_t id);
/* The id of a text, or -1. */
int32_t qgc_vocab_find(const qgc_vocab *v, qgc_span text);

/* bpe.c */

typedef struct qgc_bpe qgc_bpe;

qgc_bpe *qgc_bpe_new(qgc_arena *arena, size_t n_merges);
void qgc_bpe_set_byte(qgc_bpe *bpe, unsigned char byte, int32_t id);
bool qgc_bpe_has_byte(const qgc_bpe *bpe, unsigned char byte);
/* Merges `left` and `right` to `merged`; a lower rank goes first, of equal ones the leftmost. A later merge of the
 * same pair wins. */
void qgc_bpe_add_merge(qgc_bpe *bpe, int32_t left, int32_t right, int32_t merged, int32_t rank);
/* Words start as characters, of which those that are no token start as bytes. `tokens` lives as long as bpe. */
void qgc_bpe_start_with_characters(qgc_bpe *bpe, const qgc_vocab *tokens);
/* A word that is a token is that one, whatever merges make of it. */
void qgc_bpe_take_whole_words(qgc_bpe *bpe, const qgc_vocab *tokens);
/* Appends the ids of one word. */
void qgc_bpe_encode(qgc_bpe *bpe, qgc_span word, qgc_tokens *out);

/* tokenizer_build.c */

typedef struct {
    qgc_span left, right;
} qgc_merge;

enum { QGC_MAX_ID = 1 << 20, QGC_MAX_EOS = 32 };

/* Special tokens by what they are for, which chat templates print. */
enum { QGC_BOS_TOKEN, QGC_EOS_TOKEN, QGC_UNK_TOKEN, QGC_PAD_TOKEN, QGC_N_NAMED };

typedef struct {
    bool stated;      /* by the files, if only that there is none */
    const char *text; /* or NULL */
} qgc_named_token;

/* Where SentencePiece puts a blank in front. */
typedef enum {
    QGC_FRONT_NONE,
    QGC_FRONT_NORMALIZED, /* of every text between added tokens, by the normaliser */
    QGC_FRONT_ALWAYS,     /* of the same, unless it starts with one, by the pre-tokenizer */
    QGC_FRONT_FIRST,      /* of what starts the whole text, unless it starts with one */
} qgc_front;

/* What a tokenizer does besides its tables. */
typedef struct {
    qgc_nfc_use nfc;
    bool ignore_merges;
    const qgc_split
        *split;    /* NULL: SentencePiece, with characters, byte tokens like <0x0A> and the three below */
    bool replaces; /* the normaliser replaces blanks, so that they are no white space around added tokens */
    bool cut_at_blanks; /* a word starts at every blank; without, all text is one word */
    bool strips;        /* decoding drops a blank that starts the text */
    bool
        decodes_added; /* letters and U+2581 are bytes and blanks in added tokens too, as in a tokenizer.json */
    qgc_front front;
    int32_t bos; /* put in front of a text, or -1 */
} qgc_tokenizer_kind;

/* The tables as a file states them, on their way into a tokenizer, which copies what it keeps. */
typedef struct {
    qgc_loc at;        /* for errors */
    qgc_token *tokens; /* [n_tokens], by id */
    int32_t n_tokens;
    qgc_merge *merges; /* [n_merges], the first goes first */
    size_t n_merges;
    double
        *scores; /* [n_tokens] or NULL: instead of merges, any two tokens may become one, the highest first */
    qgc_tokenizer_kind kind;
    int32_t eos[QGC_MAX_EOS];
    int n_eos;
    qgc_named_token named[QGC_N_NAMED];
    const char *chat_template; /* or NULL */
    qgc_loc template_at;       /* the file that has it */
} qgc_tokenizer_tables;

QGC_MUST_USE qgc_status qgc_tokenizer_build(qgc_tokenizer **out, const qgc_tokenizer_tables *tables,
                                            qgc_diag *d);

/* For errors: at most 60 bytes of a text, and what cannot be printed as '?'. */
const char *qgc_shown(qgc_diag *d, qgc_span s);

/* The place of a template inside a file, whose lines are those of the template. */
qgc_loc qgc_template_place(qgc_loc file, qgc_diag *d);

/* Adds to the ids that end a text. An id that is none of the tokens, which are to be read before, is an error of the
 * file. */
QGC_MUST_USE qgc_status qgc_tables_add_eos(qgc_tokenizer_tables *t, double id, qgc_loc at, qgc_diag *d);

/* tokenizer_scan.c */

typedef struct {
    qgc_span text; /* with a zero byte after it */
    int32_t id;    /* 0 to QGC_MAX_ID */
} qgc_vocab_row;

/* The tables of a tokenizer.json, and what is left of it without them: they are empty there. */
typedef struct {
    qgc_vocab_row *rows;
    size_t n_rows;
    qgc_merge *merges;
    size_t n_merges;
    qgc_str rest;
} qgc_scanned;

/* False: the file is not as such files are, and perhaps at fault. Texts and tables live in the arena. */
bool qgc_scan_tables(qgc_scanned *out, qgc_span file, qgc_arena *arena);

/* "a b"; false if it is not two texts with one blank between them. */
bool qgc_merge_of_text(qgc_span text, qgc_merge *out);

/* tokenizer_json.c: the texts of a folder; those that are not there are NULL. `tokenizer` must be. */
typedef struct {
    qgc_source tokenizer, config, generation, model, chat_template; /* model: config.json */
} qgc_tokenizer_files;

QGC_MUST_USE qgc_status qgc_tokenizer_from_json(qgc_tokenizer **out, const qgc_tokenizer_files *files,
                                                qgc_diag *d);

/* tokenizer.c: the text as the normaliser leaves it, the span itself or in the arena. */
qgc_span qgc_normalize(const qgc_tokenizer *t, qgc_span text, qgc_arena *arena);
/* As qgc_tokenizer_encode with special tokens, but for those that touch a byte which is `outside` [bytes]: they are text.
 * Error: such a text of a token that is looked for in the normalised text, where that cannot be told. */
QGC_MUST_USE qgc_status qgc_tokenizer_encode_marked(qgc_tokenizer *t, const char *text, size_t bytes,
                                                    const bool *outside, qgc_tokens *out, qgc_diag *d);
/* The added token with this name, or NULL. */
const qgc_added_token *qgc_added_by_name(const qgc_tokenizer *t, qgc_span name);

struct qgc_tokenizer {
    qgc_arena *arena;
    qgc_token *tokens; /* as bytes, not as letters */
    int32_t n_tokens;
    qgc_tokenizer_kind kind;
    qgc_added added, normalized; /* looked for before and after the normaliser */
    qgc_vocab by_bytes;          /* tokens that text leads to; empty where only merges are needed */
    qgc_nfc nfc;
    qgc_words *words; /* NULL without a split */
    qgc_bpe *bpe;
    int32_t eos[QGC_MAX_EOS];
    int n_eos;
    qgc_named_token named[QGC_N_NAMED];
    const char *chat_template;
    qgc_source template_source; /* the file that has it, for errors */
};

#endif
