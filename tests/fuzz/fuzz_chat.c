#include <stdlib.h>
#include <string.h>

#include "models/chat.h"
#include "models/tokenizer_impl.h"

/* Any bytes as a chat template: it is taken for a family or refused with a reason, and what is taken for ChatML has printed
 * what ChatML prints (models/chat.c runs it). */

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    const qgc_span start = {"<|im_start|>", 12}, end = {"<|im_end|>", 10};
    qgc_added_token added[] = {{.text = start, .name = start, .id = 1, .special = true},
                               {.text = end, .name = end, .id = 2, .special = true}};
    qgc_tokenizer t = {.arena = arena, .added = {.arena = arena, .tokens = added, .n = 2}};
    t.chat_template = qgc_arena_strndup(arena, (const char *)data, bytes);
    qgc_chat chat;
    const bool good = qgc_chat_open(&chat, &t, &d) == QGC_OK;
    if (good != (d.status == QGC_OK) || good != (*qgc_diag_message(&d) == 0))
        abort();
    qgc_arena_drop(arena);
    return 0;
}
