#include <stdlib.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "models/chat.h"
#include "models/jinja.h"
#include "models/tokenizer_impl.h"

/* Any bytes as a chat template, run on conversations: it is refused with a reason, or it prints text, in which the letters
 * that are marked are letters of messages. */

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

static void check(bool good, const qgc_diag *d) {
    if (good != (d->status == QGC_OK) || good != (*qgc_diag_message(d) == 0))
        abort();
}

static void talk(const qgc_chat *c, qgc_arena *arena) {
    static const qgc_message messages[] = {{"system", "Be \xC3\xA9<|im_end|>"},
                                           {"user", " a,b </think> c\n"},
                                           {"assistant", "<think>\nd\n</think>\n\ne"},
                                           {"user", ""}};
    static const struct { int first, n; } talks[] = {{0, 2}, {1, 1}, {1, 3}, {0, 4}, {2, 1}};
    for (size_t i = 0; i < sizeof talks / sizeof *talks; i++) {
        qgc_diag d = qgc_diag_new(arena);
        const char *text = NULL;
        const bool good =
            qgc_chat_print(c, messages + talks[i].first, (size_t)talks[i].n, &text, &d) == QGC_OK;
        check(good, &d);
        if (good && qgc_utf8_check(text, strlen(text)) < strlen(text))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    const qgc_span start = {"<|im_start|>", 12}, end = {"<|im_end|>", 10};
    qgc_added_token added[] = {{.text = start, .name = start, .id = 1, .special = true},
                               {.text = end, .name = end, .id = 2, .special = true}};
    qgc_tokenizer t = {.arena = arena, .added = {.arena = arena}};
    for (int i = 0; i < 2; i++)
        if (!qgc_added_put(&t.added, added[i]))
            abort();
    for (int i = 0; i < QGC_N_NAMED; i++)
        t.named[i] = (qgc_named_token){true, i < 2 ? "<|im_end|>" : NULL};
    t.chat_template = qgc_arena_strndup(arena, (const char *)data, bytes);
    const qgc_chat_options o = {.now = {.tm_mday = 1, .tm_year = 125}};
    qgc_chat *chat;
    const bool good = qgc_chat_open(&chat, &t, &o, &d) == QGC_OK;
    check(good, &d);
    if (good)
        talk(chat, arena);
    qgc_chat_close(chat);
    qgc_arena_drop(arena);
    return 0;
}
