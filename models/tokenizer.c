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

/* --- between the added tokens ------------------------------------------------------------------------------ */

typedef struct {
    qgc_tokenizer *t;
    qgc_tokens *out;
    qgc_arena *scratch;
    bool specials;
    const char *start;   /* of the whole text, or NULL where ids stand before it */
    const bool *outside; /* of the whole text, or NULL: bytes that are no part of a special token */
} encoder;

static const char metaspace[] = "\xE2\x96\x81"; /* U+2581 */
enum { METASPACE_BYTES = sizeof metaspace - 1 };

/* A blank for each U+2581, and one in front if asked for. */
static qgc_span with_blanks(qgc_span in, bool front, qgc_arena *arena) {
    char *text = qgc_arena_alloc(arena, in.bytes + 1);
    size_t n = 0;
    if (front)
        text[n++] = ' ';
    for (size_t i = 0; i < in.bytes;) {
        bool blank = in.bytes - i >= METASPACE_BYTES && memcmp(in.text + i, metaspace, METASPACE_BYTES) == 0;
        text[n++] = blank ? ' ' : in.text[i];
        i += blank ? METASPACE_BYTES : 1;
    }
    return (qgc_span){text, n};
}

qgc_span qgc_normalize(const qgc_tokenizer *t, qgc_span text, qgc_arena *arena) {
    if (t->kind.nfc == QGC_NFC_YES)
        text = qgc_nfc_apply(&t->nfc, text, arena);
    if (t->kind.replaces && text.bytes > 0)
        text = with_blanks(text, t->kind.front == QGC_FRONT_NORMALIZED, arena);
    return text;
}

/* The pre-tokenizer of SentencePiece, where the normaliser has not done it. */
static qgc_span pre_tokenize(const encoder *e, qgc_span text) {
    const qgc_tokenizer_kind *kind = &e->t->kind;
    if (kind->split || kind->replaces || text.bytes == 0)
        return text;
    bool front = kind->front == QGC_FRONT_ALWAYS || (kind->front == QGC_FRONT_FIRST && text.text == e->start);
    bool has = text.text[0] == ' ' ||
               (text.bytes >= METASPACE_BYTES && memcmp(text.text, metaspace, METASPACE_BYTES) == 0);
    return with_blanks(text, front && !has, e->scratch);
}

static size_t next_word(const qgc_tokenizer *t, qgc_span text) {
    if (t->words)
        return qgc_words_next(t->words, text.text, text.bytes);
    const char *blank = t->kind.cut_at_blanks ? memchr(text.text + 1, ' ', text.bytes - 1) : NULL;
    return blank ? (size_t)(blank - text.text) : text.bytes;
}

/* Text without added tokens. */
static void encode_plain(const encoder *e, qgc_span text) {
    text = pre_tokenize(e, text);
    while (text.bytes > 0) {
        qgc_span word = {text.text, next_word(e->t, text)};
        qgc_bpe_encode(e->t->bpe, word, e->out);
        text = (qgc_span){text.text + word.bytes, text.bytes - word.bytes};
    }
}

/* --- added tokens ------------------------------------------------------------------------------------------ */

/* The character before `at`, and its length: 0 at the start. */
static size_t last_character(qgc_span in, size_t at, uint32_t *c) {
    size_t n = 0;
    while (n < at && ((unsigned char)in.text[at - ++n] & 0xC0) == 0x80)
        ;
    return n ? (size_t)qgc_utf8_decode(in.text + at - n, n, c) : 0;
}

static size_t next_character(qgc_span in, size_t at, uint32_t *c) {
    return at < in.bytes ? (size_t)qgc_utf8_decode(in.text + at, in.bytes - at, c) : 0;
}

static bool stands_alone(qgc_span in, size_t at, size_t end) {
    uint32_t c;
    return !(last_character(in, at, &c) && qgc_is_word_character(c)) &&
           !(next_character(in, end, &c) && qgc_is_word_character(c));
}

/* Moves the ends of a match over the white space that is part of the token, not before `done`. */
static void strip(const encoder *e, const qgc_added_token *a, qgc_span in, size_t done, size_t *at,
                  size_t *end) {
    /* A blank that the normaliser wrote is no white space. */
    const bool blank = !(e->t->kind.replaces && a->flags.normalized);
    uint32_t c;
    if (a->flags.lstrip && *at < done)
        *at = done;
    for (size_t n; a->flags.lstrip && *at > done && (n = last_character(in, *at, &c)); *at -= n)
        if (!qgc_is_white(c) || (c == ' ' && !blank))
            break;
    for (size_t n; a->flags.rstrip && (n = next_character(in, *end, &c)); *end += n)
        if (!qgc_is_white(c) || (c == ' ' && !blank))
            break;
}

typedef void encode_fn(const encoder *e, qgc_span text);

/* Is the token ordinary text here? Outside bytes are known before the normaliser only. */
static bool is_text(const encoder *e, const qgc_added *added, const qgc_added_token *a, const char *at) {
    if (!a->special || !e->specials)
        return a->special;
    for (size_t i = 0; e->outside && added == &e->t->added && i < a->text.bytes; i++)
        if (e->outside[at - e->start + (ptrdiff_t)i])
            return true;
    return false;
}

/* Added tokens as their ids, and what is between them by `plain`. */
static void cut_added(const encoder *e, const qgc_added *added, qgc_span in, encode_fn *plain) {
    size_t done = 0, from = 0, at;
    for (const qgc_added_token *a; (a = qgc_added_find(added, in, from, &at));) {
        size_t end = from = at + a->text.bytes;
        if (is_text(e, added, a, in.text + at))
            continue; /* ordinary text, and as in the reference no other added token is looked for in it */
        if (a->flags.single_word && !stands_alone(in, at, end))
            continue;
        strip(e, a, in, done, &at, &end);
        if (at >= end)
            continue; /* the one before it has taken it as white space, and none is left */
        if (done < at)
            plain(e, (qgc_span){in.text + done, at - done});
        qgc_tokens_add(e->out, a->id);
        done =
            end; /* may be beyond `from`, where white space is a token too: as in the reference both count */
    }
    plain(e, (qgc_span){in.text + done, in.bytes - done});
}

static void encode_normalized(const encoder *e, qgc_span text) {
    cut_added(e, &e->t->normalized, qgc_normalize(e->t, text, e->scratch), encode_plain);
}

/* Text that is in form NFC is the same whether the tokenizer normalises or not. */
static qgc_status check_form(const qgc_tokenizer *t, qgc_span text, qgc_diag *d) {
    qgc_arena *scratch = qgc_arena_new();
    const qgc_span other = qgc_nfc_apply(&t->nfc, text, scratch);
    const bool same = other.bytes == text.bytes && memcmp(other.text, text.text, text.bytes) == 0;
    qgc_arena_drop(scratch);
    return same
               ? QGC_OK
               : qgc_fail(
                     d, QGC_ERR_INPUT, QGC_NO_LOC,
                     "the text is not in form NFC, and the file does not say if this tokenizer brings it into that");
}

static qgc_status check_text(const qgc_tokenizer *t, const char *text, size_t bytes, qgc_diag *d) {
    if (bytes > INT32_MAX)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the text has %zu bytes, at most %d can be encoded",
                        bytes, INT32_MAX);
    size_t valid = bytes ? qgc_utf8_check(text, bytes) : 0;
    if (valid < bytes)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the text is not valid UTF-8 at byte %zu", valid);
    return t->kind.nfc == QGC_NFC_UNKNOWN && bytes ? check_form(t, (qgc_span){text, bytes}, d) : QGC_OK;
}

qgc_status qgc_tokenizer_encode(qgc_tokenizer *t, const char *text, size_t bytes, bool specials,
                                qgc_tokens *out, qgc_diag *d) {
    QGC_TRY(check_text(t, text, bytes, d));
    if (bytes == 0)
        return QGC_OK;
    qgc_arena *scratch = qgc_arena_new();
    const encoder e = {
        .t = t, .out = out, .scratch = scratch, .specials = specials, .start = out->n ? NULL : text};
    cut_added(&e, &t->added, (qgc_span){text, bytes}, encode_normalized);
    qgc_arena_drop(scratch);
    return QGC_OK;
}

/* Special tokens that are looked for after the normaliser, which moves the bytes. */
static qgc_status check_normalized(const qgc_tokenizer *t, qgc_span text, const bool *outside, qgc_diag *d) {
    for (size_t i = 0; i < t->normalized.n; i++) {
        const qgc_added_token *a = &t->normalized.tokens[i];
        for (size_t at = 0; a->special && at + a->name.bytes <= text.bytes; at++) {
            bool found = memcmp(text.text + at, a->name.text, a->name.bytes) == 0, any = false;
            for (size_t k = 0; found && k < a->name.bytes; k++)
                any = any || outside[at + k];
            if (found && any)
                return qgc_fail(
                    d, QGC_ERR_INPUT, QGC_NO_LOC,
                    "the message has \"%s\", which this tokenizer would take for the special token",
                    qgc_shown(d, a->name));
        }
    }
    return QGC_OK;
}

qgc_status qgc_tokenizer_encode_marked(qgc_tokenizer *t, const char *text, size_t bytes, const bool *outside,
                                       qgc_tokens *out, qgc_diag *d) {
    QGC_TRY(check_text(t, text, bytes, d));
    QGC_TRY(check_normalized(t, (qgc_span){text, bytes}, outside, d));
    qgc_arena *scratch = qgc_arena_new();
    const encoder e = {
        .t = t, .out = out, .scratch = scratch, .specials = true, .start = text, .outside = outside};
    if (bytes > 0)
        cut_added(&e, &t->added, (qgc_span){text, bytes}, encode_normalized);
    qgc_arena_drop(scratch);
    return QGC_OK;
}

qgc_status qgc_tokenizer_encode_text(qgc_tokenizer *t, const char *text, size_t bytes, bool specials,
                                     qgc_tokens *out, qgc_diag *d) {
    const int32_t bos = t->kind.bos;
    QGC_TRY(qgc_tokenizer_encode(t, text, bytes, specials, out, d));
    if (bos < 0 || (out->n && out->ids[0] == bos))
        return QGC_OK;
    qgc_tokens_add(out, bos); /* room for one more */
    memmove(out->ids + 1, out->ids, (out->n - 1) * sizeof *out->ids);
    out->ids[0] = bos;
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

const char *qgc_tokenizer_first_piece(const qgc_tokenizer *t, int32_t id, size_t *bytes) {
    const char *piece = qgc_tokenizer_piece(t, id, bytes);
    const bool strip = piece && t->kind.strips && *bytes && *piece == ' ';
    *bytes -= strip;
    return strip ? piece + 1 : piece;
}

const qgc_added_token *qgc_added_by_name(const qgc_tokenizer *t, qgc_span name) {
    const qgc_added *const all[] = {&t->added, &t->normalized};
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < all[k]->n; i++) {
            const qgc_added_token *a = &all[k]->tokens[i];
            if (a->name.bytes == name.bytes && memcmp(a->name.text, name.text, name.bytes) == 0)
                return a;
        }
    }
    return NULL;
}

int32_t qgc_tokenizer_special_id(const qgc_tokenizer *t, const char *text) {
    const qgc_added_token *a = qgc_added_by_name(t, (qgc_span){text, strlen(text)});
    return a ? a->id : -1;
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
