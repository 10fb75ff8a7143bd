#ifndef QGC_CLI_TALK_H
#define QGC_CLI_TALK_H

#include "models/chat.h"

/* A conversation: its messages, and which tokens of it the model has taken. The template is run on the whole of it each
 * time, so what the model has taken need not be how the conversation begins now: templates drop thoughts of earlier answers. */
typedef struct {
    qgc_arena *arena;
    qgc_chat *chat;
    qgc_message *messages;
    size_t n;
    qgc_tokens taken;
} cli_talk;

/* What options say: --think on|off, --date YYYY-MM-DD, --system TEXT; each may be NULL. Checks the command line alone. */
QGC_MUST_USE qgc_status cli_talk_options(const char *think, const char *date, qgc_chat_options *out,
                                         qgc_diag *d);

QGC_MUST_USE qgc_status cli_talk_open(cli_talk *t, qgc_tokenizer *tokenizer, const qgc_chat_options *o,
                                      const char *system, qgc_arena *arena, qgc_diag *d);
void cli_talk_close(cli_talk *t);

/* The tokens of the conversation when the user says this, and how many of them, from the start, the model has taken: 0 if it
 * has taken others. The message belongs to the conversation from the answer on. */
QGC_MUST_USE qgc_status cli_talk_ask(cli_talk *t, const char *text, qgc_tokens *all, size_t *taken,
                                     qgc_diag *d);

/* Adds the message and its answer: `all` are the tokens of both, of which the model took the first `taken`. */
void cli_talk_answered(cli_talk *t, const char *text, const char *answer, const qgc_tokens *all,
                       size_t taken);

#endif
