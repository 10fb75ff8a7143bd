#ifndef QGC_CLI_RUN_H
#define QGC_CLI_RUN_H

#include <signal.h>

#include "models/tokenizer.h"
#include "runtime/cli/pipeline.h"
#include "runtime/cli/talk.h"
#include "runtime/engine/sequence.h"

/* What the files of `qgc run` share: cmd_run.c has its options, generate.c makes text, shell.c is a
 * conversation. */

typedef struct {
    qgc_engine_options engine;
    qgc_sequence_options sequence;
    cli_pipeline pipeline;
    const char *prompt, *prompt_file, *system, *think, *date, *json, *receipt;
    qgc_chat_options chat_options;
    int64_t n, seed, top_k;
    double temperature, top_p, min_p, repeat_penalty;
    bool chat, specials, ignore_eos, verbose_prompt, show_times;
    qgc_times start; /* laps until the first token */
} run_options;

/* What a run took, for the line at its end. */
typedef struct {
    int64_t prompt_tokens, answer_tokens;
    double prompt_seconds, answer_seconds;
} run_times;

typedef struct {
    cli_context *c;
    run_options *o;
    qgc_engine *engine;
    qgc_sequence *sequence;
    qgc_tokenizer *tokenizer;
    cli_progress progress;
    cli_talk talk;
    run_times times;
    qgc_str text;         /* that was made, if JSON is wanted */
    bool shell;           /* a person types: there are commands */
    qgc_tokens fed, made; /* the prompt and the answer, for a receipt */
    bool full;            /* the last answer ended because no position was left */
} run_state;

/* Ctrl-C ends the prompt or the answer, not the program's manners: statistics are still printed. A second
 * one ends the program. run_heed_interrupts begins anew. */
extern volatile sig_atomic_t run_interrupted;
void run_heed_interrupts(void);

/* The sampling of the options, as it is now. */
qgc_sampling run_sampling(const run_options *o);

/* Continues a prompt. */
QGC_MUST_USE qgc_status run_complete(run_state *s, const qgc_source *text);

/* One turn of a conversation: what the model has not taken yet is fed, or all of it where the conversation
 * begins otherwise now. One that is an error leaves the conversation as it was. Whatever ended an answer,
 * a length, Ctrl-C, an end token, it is a message like any other from then on. */
QGC_MUST_USE qgc_status run_turn(run_state *s, const qgc_source *text);

/* Lines of stdin are turns, until its end or an empty line; on a terminal empty lines are nothing, and
 * those that begin with a slash are commands. Exit code 1 if one of them was not taken. */
QGC_MUST_USE qgc_status run_converse(run_state *s);

/* What the run took: as a line on stderr. */
void run_print_times(const run_state *s);

/* The text or the messages, and what they took, where --json says. */
QGC_MUST_USE qgc_status run_write_json(run_state *s);

/* What the text was made of, where --receipt says. */
QGC_MUST_USE qgc_status run_write_receipt(run_state *s);

#endif
