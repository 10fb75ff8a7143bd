#ifndef QGC_MODELS_CHAT_H
#define QGC_MODELS_CHAT_H

#include <time.h>

#include "models/tokenizer.h"

/* Conversations in the model's own format: its chat template, which is a program (models/jinja.h), is run on the whole
 * conversation each time, as transformers does it. So a template may drop the thoughts of earlier answers, put the system
 * message where it wants, or refuse a conversation, and it is an error if it uses what qgc does not know. */
typedef struct qgc_chat qgc_chat;

typedef struct {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8; special tokens in it are ordinary text */
} qgc_message;

typedef enum {
    QGC_THINK_DEFAULT, /* as the template has it */
    QGC_THINK_ON,
    QGC_THINK_OFF,
} qgc_think;

typedef struct {
    qgc_think think; /* the variables enable_thinking and thinking */
    struct tm now;   /* the date that some templates print */
} qgc_chat_options;

/* Parses the template of the tokenizer, which has to live as long. Errors: no template in the files, one that is not
 * known whole, a choice about thinking where the template has none. */
QGC_MUST_USE qgc_status qgc_chat_open(qgc_chat **out, qgc_tokenizer *t, const qgc_chat_options *o,
                                      qgc_diag *d);
void qgc_chat_close(qgc_chat *c);

/* Does an answer stop here? At what ends a text (qgc_tokenizer_is_eos), and at the special token that the template prints
 * after an answer. */
bool qgc_chat_is_end(const qgc_chat *c, int32_t id);

/* What the template prints for the messages, up to where the answer begins, in d's arena. Errors: a conversation that the
 * template refuses, or whose system message it does not print. */
QGC_MUST_USE qgc_status qgc_chat_print(const qgc_chat *c, const qgc_message *messages, size_t n,
                                       const char **out, qgc_diag *d);

/* Appends the ids of that: special tokens count where the template prints them, and are text in messages. No BOS is put
 * in front, which is the template's business. */
QGC_MUST_USE qgc_status qgc_chat_encode(const qgc_chat *c, const qgc_message *messages, size_t n,
                                        qgc_tokens *out, qgc_diag *d);

#endif
