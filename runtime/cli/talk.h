#ifndef QGC_CLI_TALK_H
#define QGC_CLI_TALK_H

#include <jansson.h>

#include "models/chat.h"

/* A conversation: its messages, and which tokens of it the model has taken. The template is run on the
 * whole of it each time, so what the model has taken need not be how the conversation begins now:
 * templates drop thoughts of earlier answers. */
typedef struct {
    qgc_arena *arena;
    qgc_chat *chat;
    qgc_message *messages;
    size_t n;
    qgc_tokens taken;
} cli_talk;

/* What options say: --think on|off, --date YYYY-MM-DD, --system TEXT; each may be NULL. Checks the command
 * line alone. */
QGC_MUST_USE qgc_status cli_talk_options(const char *think, const char *date, qgc_chat_options *out,
                                         qgc_diag *d);

QGC_MUST_USE qgc_status cli_talk_open(cli_talk *t, qgc_tokenizer *tokenizer, const qgc_chat_options *o,
                                      const char *system, qgc_arena *arena, qgc_diag *d);
void cli_talk_close(cli_talk *t);

/* The tokens of the conversation when the user says this, and how many of them, from the start, the model
 * has taken: 0 if it has taken others. The message belongs to the conversation from the answer on. */
QGC_MUST_USE qgc_status cli_talk_ask(cli_talk *t, const char *text, qgc_tokens *all, size_t *taken,
                                     qgc_diag *d);

/* Adds the message and its answer: `all` are the tokens of both, of which the model took the first
 * `taken`. */
void cli_talk_answered(cli_talk *t, const char *text, const char *answer, const qgc_tokens *all,
                       size_t taken);

/* A message more, copied. `role` is "system", "user" or "assistant". */
void cli_talk_add(cli_talk *t, const char *role, const char *content);

/* Back to the system message, if there is one. */
void cli_talk_reset(cli_talk *t);

/* Forgets the first message of the user and its answer; false if there is none. */
bool cli_talk_drop_oldest(cli_talk *t);

/* Another system message; NULL for none. */
void cli_talk_set_system(cli_talk *t, const char *text);

/* The messages as a list for jansson; to a file, and from one, which takes the place of what was said.
 * Errors: those of files; one that is no conversation, which changes nothing. */
json_t *cli_talk_json(const cli_talk *t);
QGC_MUST_USE qgc_status cli_talk_save(const cli_talk *t, const char *path, qgc_diag *d);
QGC_MUST_USE qgc_status cli_talk_load(cli_talk *t, const char *path, qgc_diag *d);

#endif
