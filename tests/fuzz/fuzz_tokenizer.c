#include <string.h>

#include "graph/base/utf8.h"
#include "models/chat.h"
#include "models/tokenizer_impl.h"

/* A tokenizer.json, its chat template and text to encode, each ended by a zero byte, in one input. Whatever the
 * files say, every id that comes out has a piece. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static qgc_span next_part(const char **p, const char *end) {
    const char *zero = *p < end ? memchr(*p, 0, (size_t)(end - *p)) : NULL;
    qgc_span part = {*p, (size_t)((zero ? zero : end) - *p)};
    *p = zero ? zero + 1 : end;
    return part;
}

static void check_pieces(const qgc_tokenizer *t, const qgc_tokens *ids) {
    for (size_t i = 0; i < ids->n; i++) {
        size_t bytes;
        if (!qgc_tokenizer_piece(t, ids->ids[i], &bytes))
            __builtin_trap();
    }
}

static void use(qgc_tokenizer *t, qgc_span text, qgc_arena *arena) {
    qgc_diag d = qgc_diag_new(arena);
    qgc_tokens ids = qgc_tokens_new(arena);
    const qgc_chat_options o = {.now = {.tm_mday = 1}};
    qgc_chat *chat;
    for (int specials = 0; specials < 2; specials++) {
        if (qgc_tokenizer_encode(t, text.text, text.bytes, specials, &ids, &d) == QGC_OK)
            check_pieces(t, &ids);
    }
    qgc_str out = qgc_str_new(arena);
    qgc_utf8_stream s = {0};
    qgc_utf8_push(&s, text.text, text.bytes, &out);
    qgc_utf8_finish(&s, &out);
    if (qgc_utf8_check(out.text, out.bytes) != out.bytes)
        __builtin_trap();
    if (qgc_chat_open(&chat, t, &o, &d) == QGC_OK) {
        const qgc_message m = {"user", out.text};
        if (qgc_chat_encode(chat, &m, 1, &ids, &d) == QGC_OK)
            check_pieces(t, &ids);
    }
    qgc_chat_close(chat);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *p = (const char *)data, *end = p + size;
    qgc_span json = next_part(&p, end), template = next_part(&p, end), text = next_part(&p, end);
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    qgc_tokenizer *t = NULL;
    const qgc_tokenizer_files files = {
        .tokenizer = {"tokenizer.json", json.text, json.bytes},
        .chat_template = {"chat_template.jinja", template.text, template.bytes}};
    if (qgc_tokenizer_from_json(&t, &files, &d) == QGC_OK)
        use(t, text, arena);
    qgc_tokenizer_close(t);
    qgc_arena_drop(arena);
    return 0;
}
