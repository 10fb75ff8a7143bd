#ifndef QGC_MODELS_CHAT_H
#define QGC_MODELS_CHAT_H

#include "models/tokenizer.h"

/* Conversations in the model's own format. Templates are Jinja programs; qgc knows families of them, finds
 * out by the template's text which one a file carries, and refuses one that it does not know. */
typedef struct {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8; special tokens in it are ordinary text */
} qgc_message;

typedef struct {
    const char *family;         /* "chatml" */
    const char *default_system; /* what the template puts first where there is no system message, or NULL */
} qgc_chat;

/* Recognises the template. The texts in `out` live as long as t. Errors: no template in the file, or one of
 * an unknown family (the hint says that `qgc run -p` without --chat works). */
QGC_MUST_USE qgc_status qgc_chat_open(qgc_chat *out, const qgc_tokenizer *t, qgc_diag *d);

/* Appends the ids of one message; with is_first, those of the default system message before it if the
 * template wants one and this is not a system message. */
QGC_MUST_USE qgc_status qgc_chat_encode_message(const qgc_chat *c, qgc_tokenizer *t, const qgc_message *m,
                                                bool is_first, qgc_tokens *out, qgc_diag *d);

/* Appends what stands before the assistant's answer ("<|im_start|>assistant\n"). */
QGC_MUST_USE qgc_status qgc_chat_encode_prompt(const qgc_chat *c, qgc_tokenizer *t, qgc_tokens *out,
                                               qgc_diag *d);

/* Appends what stands between an answer that ended with its EOS token and the next message ("\n"). */
QGC_MUST_USE qgc_status qgc_chat_encode_end(const qgc_chat *c, qgc_tokenizer *t, qgc_tokens *out,
                                            qgc_diag *d);

#endif
