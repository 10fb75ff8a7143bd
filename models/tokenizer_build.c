#include <stdlib.h>
#include <string.h>

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

/* The byte of "<0x0A>", or -1. */
static int named_byte(const qgc_token *token) {
    static const char digits[] = "0123456789ABCDEF";
    if (token->bytes != 6 || memcmp(token->text, "<0x", 3) != 0 || token->text[5] != '>')
        return -1;
    const char *high = memchr(digits, token->text[3], 16), *low = memchr(digits, token->text[4], 16);
    return high && low ? (int)(high - digits) << 4 | (int)(low - digits) : -1;
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

/* The tokens that merges are made of, by their texts as the file writes them. */
static qgc_status index_vocabulary(qgc_vocab *v, const qgc_tokenizer_tables *from, qgc_arena *scratch,
                                   qgc_diag *d) {
    *v = qgc_vocab_new(scratch, from->tokens, from->n_tokens);
    for (int32_t id = 0; id < from->n_tokens; id++) {
        const qgc_token *token = &from->tokens[id];
        if (token->kind != QGC_TOKEN_NORMAL && !token->in_vocab)
            continue;
        int32_t other = qgc_vocab_put(v, id);
        if (other >= 0)
            return qgc_fail(d, QGC_ERR_INPUT, from->at, "token \"%s\" has two ids, %d and %d",
                            qgc_shown(d, (qgc_span){token->text, token->bytes}), (int)other, (int)id);
    }
    return QGC_OK;
}

static bool is_visible_ascii(const qgc_token *token) {
    for (size_t i = 0; i < token->bytes; i++)
        if (token->text[i] < '!' || token->text[i] > '~')
            return false;
    return true;
}

/* Writes what a token stands for: its name, unless it is made of letters that stand for bytes, or of characters with
 * U+2581 for the blank. Returns if text can lead to it by its bytes. */
static bool write_token(const qgc_tokenizer *t, const int16_t letters[N_LETTERS], const qgc_token *token,
                        char *out, size_t *n) {
    static const char metaspace[] = "\xE2\x96\x81";
    const bool in_vocab = token->kind == QGC_TOKEN_NORMAL || token->in_vocab;
    const bool decoded = token->kind == QGC_TOKEN_NORMAL || t->kind.decodes_added;
    if (t->kind.split && decoded && to_bytes(letters, token, out, n))
        return in_vocab;
    *n = 0;
    for (size_t i = 0; i < token->bytes;) {
        const bool blank = !t->kind.split && (in_vocab || decoded) && token->bytes - i >= 3 &&
                           memcmp(token->text + i, metaspace, 3) == 0;
        out[(*n)++] = blank ? ' ' : token->text[i];
        i += blank ? 3 : 1;
    }
    if (t->kind.split)
        return token->in_vocab && is_visible_ascii(token);
    return in_vocab && !(token->bytes && memchr(token->text, ' ', token->bytes));
}

/* Copies a token to `text`, as the text that it stands for, and returns how many bytes that is. */
static size_t copy_token(qgc_tokenizer *t, const qgc_token *token, int32_t id,
                         const int16_t letters[N_LETTERS], char *text) {
    const int named = t->kind.split ? -1 : named_byte(token);
    size_t n;
    const bool reached = write_token(t, letters, token, text, &n) && named < 0;
    if (named >= 0) {
        text[0] = (char)named;
        n = 1;
    }
    text[n] = 0;
    t->tokens[id] = *token;
    t->tokens[id].text = text;
    t->tokens[id].bytes = n;
    if (named >= 0 || (reached && t->kind.split && n == 1))
        qgc_bpe_set_byte(t->bpe, (unsigned char)text[0], id);
    if (reached && t->by_bytes.tokens)
        qgc_vocab_put(&t->by_bytes, id);
    return n;
}

static qgc_status copy_tokens(qgc_tokenizer *t, const qgc_tokenizer_tables *from, qgc_diag *d) {
    int16_t letters[N_LETTERS];
    make_letters(letters);
    size_t room = 1;
    for (int32_t id = 0; id < from->n_tokens; id++)
        room += from->tokens[id].bytes + 1;
    char *text = qgc_arena_alloc(t->arena, room);
    t->n_tokens = from->n_tokens;
    t->tokens = qgc_arena_array(t->arena, (size_t)t->n_tokens, sizeof *t->tokens);
    if (t->kind.ignore_merges || !t->kind.split)
        t->by_bytes = qgc_vocab_new(t->arena, t->tokens, t->n_tokens);
    for (int32_t id = 0; id < t->n_tokens; id++)
        if (from->tokens[id].kind != QGC_TOKEN_NONE)
            text += copy_token(t, &from->tokens[id], id, letters, text) + 1;
    for (int byte = 0; byte < 256; byte++) {
        if (!qgc_bpe_has_byte(t->bpe, (unsigned char)byte))
            return qgc_fail(d, QGC_ERR_INPUT, from->at, "byte 0x%02X has no token", (unsigned)byte);
    }
    return QGC_OK;
}

static qgc_status no_token(const qgc_tokenizer_tables *from, size_t i, qgc_span text, qgc_diag *d) {
    return qgc_fail(d, QGC_ERR_INPUT, from->at,
                    "merge %zu needs token \"%s\", which is not in the vocabulary", i, qgc_shown(d, text));
}

static qgc_status add_merges(qgc_tokenizer *t, const qgc_vocab *v, const qgc_tokenizer_tables *from,
                             qgc_diag *d) {
    qgc_str text = qgc_str_new(d->arena);
    for (size_t i = 0; i < from->n_merges; i++) {
        const qgc_merge *m = &from->merges[i];
        qgc_str_clear(&text);
        qgc_str_add_bytes(&text, m->left.text, m->left.bytes);
        qgc_str_add_bytes(&text, m->right.text, m->right.bytes);
        const qgc_span whole = {text.text, text.bytes};
        int32_t left = qgc_vocab_find(v, m->left), right = qgc_vocab_find(v, m->right),
                merged = qgc_vocab_find(v, whole);
        if (left < 0 || right < 0 || merged < 0)
            return no_token(from, i, left < 0 ? m->left : right < 0 ? m->right : whole, d);
        qgc_bpe_add_merge(t->bpe, left, right, merged, (int32_t)i);
    }
    return QGC_OK;
}

/* --- scores ------------------------------------------------------------------------------------------------ */

typedef struct {
    double score;
    int32_t id;
} scored;

static int by_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score)
                                : (x->id > y->id) - (x->id < y->id);
}

/* Every two tokens that a token can be cut into merge to it; of equal scores the leftmost goes first, so they have the
 * same rank. Returns how many there are, and adds them to bpe if it is not NULL. */
static size_t merge_parts(qgc_bpe *bpe, const qgc_vocab *v, int32_t id, int32_t rank) {
    const qgc_token *token = &v->tokens[id];
    size_t n = 0;
    for (size_t cut = 1; cut < token->bytes; cut++) {
        if (((unsigned char)token->text[cut] & 0xC0) == 0x80)
            continue; /* inside a character */
        int32_t left = qgc_vocab_find(v, (qgc_span){token->text, cut});
        int32_t right = qgc_vocab_find(v, (qgc_span){token->text + cut, token->bytes - cut});
        if (left < 0 || right < 0)
            continue;
        n++;
        if (bpe)
            qgc_bpe_add_merge(bpe, left, right, id, rank);
    }
    return n;
}

/* Is this a piece that merges make? Not a control token or a byte. */
static bool is_piece(const qgc_token *token) {
    return (token->kind == QGC_TOKEN_NORMAL || token->kind == QGC_TOKEN_ADDED) && named_byte(token) < 0;
}

static size_t count_merges(const qgc_vocab *v, const qgc_tokenizer_tables *from) {
    size_t n = from->n_merges;
    for (int32_t id = 0; from->scores && id < from->n_tokens; id++)
        n += is_piece(&from->tokens[id]) ? merge_parts(NULL, v, id, 0) : 0;
    return n;
}

static void add_scored_merges(qgc_tokenizer *t, const qgc_vocab *v, const qgc_tokenizer_tables *from,
                              qgc_arena *scratch) {
    scored *order = qgc_arena_array(scratch, (size_t)from->n_tokens, sizeof *order);
    size_t n = 0;
    for (int32_t id = 0; id < from->n_tokens; id++)
        if (is_piece(&from->tokens[id]))
            order[n++] = (scored){from->scores[id], id};
    qsort(order, n, sizeof *order, by_score);
    int32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        rank += i > 0 && order[i].score != order[i - 1].score;
        merge_parts(t->bpe, v, order[i].id, rank);
    }
}

/* --- added tokens ------------------------------------------------------------------------------------------ */

static qgc_status check_added(const qgc_tokenizer_tables *from, int32_t id, qgc_span text, qgc_diag *d) {
    if (text.bytes == 0 || text.bytes > MAX_ADDED_BYTES)
        return qgc_fail(d, QGC_ERR_INPUT, from->at, "added token %d has %zu bytes, expected 1 to %d", (int)id,
                        text.bytes, MAX_ADDED_BYTES);
    if (qgc_utf8_check(text.text, text.bytes) != text.bytes)
        return qgc_fail(d, QGC_ERR_INPUT, from->at, "added token %d is not valid UTF-8", (int)id);
    return QGC_OK;
}

/* The id of another token with the same text, or -1. */
static int32_t same_token(const qgc_tokenizer *t, const qgc_vocab *v, const qgc_added_token *a) {
    const int32_t other = qgc_vocab_find(v, a->name);
    const qgc_added_token *same = other < 0 || other == a->id ? qgc_added_by_name(t, a->name) : NULL;
    return same ? same->id : other == a->id ? -1 : other;
}

/* Token `id` stands for another text than the one by which words lead to it. */
static void set_text(qgc_tokenizer *t, int32_t id, const char *text, size_t bytes) {
    if (t->by_bytes.tokens == t->tokens) { /* the first one */
        qgc_token *words = qgc_arena_array(t->arena, (size_t)t->n_tokens, sizeof *words);
        memcpy(words, t->tokens, (size_t)t->n_tokens * sizeof *words);
        t->by_bytes.tokens = words;
    }
    t->tokens[id].text = text;
    t->tokens[id].bytes = bytes;
}

/* What is looked for in the normalised text stands for its own text as that is there. */
static void take_normalized(qgc_tokenizer *t, const qgc_added_token *a) {
    int16_t letters[N_LETTERS];
    qgc_token *token = &t->tokens[a->id];
    const qgc_token normalized = {.text = a->text.text, .bytes = a->text.bytes, .kind = token->kind};
    char *text = qgc_arena_alloc(t->arena, a->text.bytes + 1);
    size_t n;
    if (!t->kind.split && named_byte(&normalized) >= 0)
        return;
    make_letters(letters);
    (void)write_token(t, letters, &normalized, text, &n);
    text[n] = 0;
    if (n != token->bytes || memcmp(text, token->text, n) != 0)
        set_text(t, a->id, text, n);
}

static qgc_status add_one(qgc_tokenizer *t, const qgc_vocab *v, const qgc_tokenizer_tables *from, int32_t id,
                          qgc_diag *d) {
    const qgc_token *token = &from->tokens[id];
    const qgc_span name = {qgc_arena_strndup(t->arena, token->text, token->bytes), token->bytes};
    qgc_added_token added = {name, name, id, token->kind == QGC_TOKEN_SPECIAL, token->flags};
    QGC_TRY(check_added(from, id, name, d));
    if (token->flags.normalized)
        added.text = qgc_normalize(t, name, t->arena);
    else if (from->scores) /* a GGUF may write the blanks of these either way */
        added.text = (qgc_span){t->tokens[id].text, t->tokens[id].bytes};
    const int32_t other = same_token(t, v, &added);
    if (other >= 0)
        return qgc_fail(d, QGC_ERR_INPUT, from->at, "token \"%s\" has two ids, %d and %d", qgc_shown(d, name),
                        (int)other, (int)id);
    if (!qgc_added_put(token->flags.normalized ? &t->normalized : &t->added, added))
        return qgc_fail(d, QGC_ERR_INPUT, from->at, "added token \"%s\" equals another one once normalised",
                        qgc_shown(d, name));
    if (token->flags.normalized && t->kind.decodes_added)
        take_normalized(t, &added);
    return QGC_OK;
}

static qgc_status add_added(qgc_tokenizer *t, const qgc_vocab *v, const qgc_tokenizer_tables *from,
                            qgc_diag *d) {
    t->added.arena = t->normalized.arena = t->arena;
    for (int32_t id = 0; id < t->n_tokens; id++)
        if (from->tokens[id].kind == QGC_TOKEN_ADDED || from->tokens[id].kind == QGC_TOKEN_SPECIAL)
            QGC_TRY(add_one(t, v, from, id, d));
    return QGC_OK;
}

qgc_loc qgc_template_place(qgc_loc file, qgc_diag *d) {
    if (!file.source)
        return file;
    qgc_source *source = qgc_arena_alloc(d->arena, sizeof *source);
    source->name = qgc_arena_printf(d->arena, "%s(chat_template)", file.source->name);
    return (qgc_loc){.source = source};
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
static qgc_status want_merges(const qgc_tokenizer *t, const qgc_tokenizer_tables *from, size_t n_merges,
                              qgc_diag *d) {
    int n_longer = 0;
    for (int32_t id = 0; id < t->n_tokens; id++)
        n_longer += t->tokens[id].kind == QGC_TOKEN_NORMAL && t->tokens[id].bytes > 1;
    if (n_merges > 0 || n_longer == 0)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, from->at,
                    "tokenizer has %d tokens of several bytes, and no merges that make them", n_longer);
}

/* What is known about tokens and the template by their files. */
static void copy_facts(qgc_tokenizer *t, const qgc_tokenizer_tables *from) {
    memcpy(t->eos, from->eos, sizeof from->eos);
    t->n_eos = from->n_eos;
    for (int i = 0; i < QGC_N_NAMED; i++) {
        t->named[i] = from->named[i];
        if (from->named[i].text)
            t->named[i].text = qgc_arena_strdup(t->arena, from->named[i].text);
    }
    if (from->chat_template)
        t->chat_template = qgc_arena_strdup(t->arena, from->chat_template);
    const qgc_source *source = (from->chat_template ? from->template_at : from->at).source;
    if (source)
        t->template_source.name = qgc_arena_strdup(t->arena, source->name);
}

static qgc_status fill(qgc_tokenizer *t, const qgc_tokenizer_tables *from, qgc_arena *scratch, qgc_diag *d) {
    qgc_vocab v;
    QGC_TRY(index_vocabulary(&v, from, scratch, d));
    const size_t n_merges = count_merges(&v, from);
    t->bpe = qgc_bpe_new(t->arena, n_merges);
    t->nfc = qgc_nfc_new(t->arena);
    QGC_TRY(copy_tokens(t, from, d));
    QGC_TRY(want_merges(t, from, n_merges, d));
    QGC_TRY(add_merges(t, &v, from, d));
    if (from->scores)
        add_scored_merges(t, &v, from, scratch);
    if (!t->kind.split)
        qgc_bpe_start_with_characters(t->bpe, &t->by_bytes);
    if (t->kind.ignore_merges)
        qgc_bpe_take_whole_words(t->bpe, &t->by_bytes);
    QGC_TRY(add_added(t, &v, from, d));
    copy_facts(t, from);
    return QGC_OK;
}

qgc_status qgc_tokenizer_build(qgc_tokenizer **out, const qgc_tokenizer_tables *from, qgc_diag *d) {
    qgc_arena *arena = qgc_arena_new(), *scratch = qgc_arena_new();
    qgc_tokenizer *t = qgc_arena_alloc(arena, sizeof *t);
    t->arena = arena;
    t->kind = from->kind;
    qgc_status status = t->kind.split ? qgc_words_open(&t->words, t->kind.split, arena, d) : QGC_OK;
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
