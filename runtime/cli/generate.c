/* qgc run: text from tokens. */

#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/times.h"
#include "graph/base/utf8.h"
#include "runtime/cli/json.h"
#include "runtime/cli/run.h"
#include "runtime/engine/receipt.h"

/* Does JSON stand on standard output in place of the text? */
static bool is_silent(const run_state *s) {
    return s->o->json && qgc_file_is_stdout(s->o->json);
}

/* Where the text goes: not to standard output if a receipt is to stand there. */
static FILE *text_stream(const run_state *s) {
    return cli_report_stream(s->o->receipt, NULL);
}

/* Text goes out as soon as its characters are whole. */
static void put_text(run_state *s, const qgc_str *text) {
    FILE *out = text_stream(s);
    if (s->o->json)
        qgc_str_add_bytes(&s->text, text->text, text->bytes);
    if (!is_silent(s))
        fwrite(text->text, 1, text->bytes, out);
    fflush(out);
}

static void end_line(const run_state *s) {
    if (!is_silent(s))
        fputc('\n', text_stream(s));
}

static qgc_status check_room(const run_state *s, size_t n, size_t taken) {
    qgc_diag *d = s->c->diag;
    const int64_t room = qgc_sequence_ctx(s->sequence) - (int64_t)taken;
    if ((int64_t)(n - taken) <= room)
        return QGC_OK;
    qgc_status status =
        qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the prompt has %zu tokens, and the context has room for %lld",
                 n - taken, (long long)room);
    if (s->shell && s->talk.n > 0)
        qgc_hint(
            d,
            "/reset begins a new conversation, /drop forgets its oldest turn; --ctx gives more room (now %lld).",
            (long long)qgc_sequence_ctx(s->sequence));
    else
        qgc_hint(d, "Make it shorter, or ask for more with --ctx (now %lld).",
                 (long long)qgc_sequence_ctx(s->sequence));
    return status;
}

static void print_ids(const qgc_tokens *prompt) {
    fputs("prompt:", stderr);
    for (size_t i = 0; i < prompt->n; i++)
        fprintf(stderr, " %d", prompt->ids[i]);
    fputc('\n', stderr);
}

static bool is_end(const run_state *s, int32_t token) {
    return s->talk.chat ? qgc_chat_is_end(s->talk.chat, token) : qgc_tokenizer_is_eos(s->tokenizer, token);
}

/* A part of an answer, as it is printed and, but for special tokens, as the conversation keeps it: with U+FFFD for what is
 * no text. */
static void keep_text(const run_state *s, int32_t token, const qgc_str *printed, qgc_str *text) {
    for (size_t i = 0; i < printed->bytes && !qgc_tokenizer_is_special(s->tokenizer, token); i++)
        if (printed->text[i])
            qgc_str_add_bytes(text, &printed->text[i], 1);
        else
            qgc_str_add(text, QGC_UTF8_REPLACEMENT);
}

/* Prints what follows, from `token` on, until an end, n tokens, a full context or Ctrl-C. Adds the tokens to `all`, and
 * their text to `text`. */
static qgc_status answer(run_state *s, int32_t token, qgc_tokens *all, qgc_str *text) {
    qgc_utf8_stream stream = {0};
    qgc_str buffer = qgc_str_new(s->c->arena);
    const int64_t limit = s->o->n >= 0 ? s->o->n : INT64_MAX;
    int64_t made = 0;
    while (made < limit && !run_interrupted) {
        if (!s->o->ignore_eos && is_end(s, token))
            break;
        size_t bytes;
        const char *piece = made == 0 && s->o->chat ? qgc_tokenizer_first_piece(s->tokenizer, token, &bytes)
                                                    : qgc_tokenizer_piece(s->tokenizer, token, &bytes);
        qgc_str_clear(&buffer);
        if (piece)
            qgc_utf8_push(&stream, piece, bytes, &buffer);
        put_text(s, &buffer);
        keep_text(s, token, &buffer, text);
        made++;
        qgc_tokens_add(all, token);
        s->full = qgc_sequence_position(s->sequence) == qgc_sequence_ctx(s->sequence);
        if (made == limit || s->full)
            break;
        QGC_TRY(qgc_sequence_step(s->sequence, limit - made, &token, s->c->diag));
    }
    qgc_str_clear(&buffer);
    qgc_utf8_finish(&stream, &buffer);
    qgc_str_add_bytes(text, buffer.text, buffer.bytes);
    put_text(s, &buffer);
    s->times.answer_tokens += made;
    return QGC_OK;
}

static void keep_tokens(run_state *s, const qgc_tokens *all, size_t from, size_t answer) {
    if (!s->o->receipt)
        return;
    s->fed = s->made = qgc_tokens_new(s->c->arena);
    for (size_t i = from; i < all->n; i++)
        qgc_tokens_add(i < answer ? &s->fed : &s->made, all->ids[i]);
}

/* The first token is there: where the time went since the command began. */
static void print_start(run_state *s) {
    qgc_times *t = &s->o->start;
    double sum = 0;
    qgc_times_lap(t, "prompt");
    for (size_t i = 0; i < t->n; i++) {
        fprintf(stderr, "%8.1f ms  %s\n", 1e3 * t->laps[i].seconds, t->laps[i].what);
        sum += t->laps[i].seconds;
    }
    fprintf(stderr, "%8.1f ms  to the first token\n", 1e3 * sum);
}

/* Feeds the tokens from `from` on, and prints what follows, which is added to them and to `text`. */
static qgc_status generate(run_state *s, qgc_tokens *all, size_t from, qgc_str *text) {
    const qgc_tokens prompt = {.ids = all->ids + from, .n = all->n - from};
    if (s->o->verbose_prompt)
        print_ids(&prompt);
    const double start = qgc_seconds();
    const int64_t before = qgc_sequence_position(s->sequence);
    int32_t token;
    QGC_TRY(qgc_sequence_feed(s->sequence, prompt.ids, (int64_t)prompt.n, &token, s->c->diag));
    const double middle = qgc_seconds();
    if (s->times.prompt_seconds == 0 && s->o->show_times)
        print_start(s);
    s->times.prompt_seconds += middle - start;
    s->times.prompt_tokens += qgc_sequence_position(s->sequence) - before;
    if (token < 0)
        return QGC_OK;
    const size_t n_all = all->n;
    qgc_status status = answer(s, token, all, text);
    keep_tokens(s, all, from, n_all);
    s->times.answer_seconds += qgc_seconds() - middle;
    return status;
}

static double rate(int64_t tokens, double seconds) {
    return seconds > 0 ? (double)tokens / seconds : 0;
}

/* The first token of an answer comes with the prompt's last step, so it is not counted in decode's rate. */
void run_print_times(const run_state *s) {
    fflush(stdout); /* where both go to one place, the text comes first */
    const run_times *t = &s->times;
    int64_t steps = t->answer_tokens > 0 ? t->answer_tokens - 1 : 0;
    if (s->c->quiet)
        return;
    const char *device = qgc_engine_device(s->engine), *mode = qgc_sequence_mode(s->sequence);
    const bool on_cpu = strcmp(mode, "cpu") == 0; /* which the device says, too */
    fprintf(stderr, "%s%s%s; prompt %lld token%s in %.1f ms (%.0f tok/s); ", device, on_cpu ? "" : ", ",
            on_cpu ? "" : mode, (long long)t->prompt_tokens, t->prompt_tokens == 1 ? "" : "s",
            1e3 * t->prompt_seconds, rate(t->prompt_tokens, t->prompt_seconds));
    fprintf(stderr, "%lld token%s, decode %.1f ms", (long long)t->answer_tokens,
            t->answer_tokens == 1 ? "" : "s", 1e3 * t->answer_seconds);
    if (steps > 0)
        fprintf(stderr, " (%.1f tok/s)", rate(steps, t->answer_seconds));
    fprintf(stderr, "; seed %lld\n", (long long)s->o->seed);
}

qgc_status run_write_json(run_state *s) {
    const run_times *t = &s->times;
    const int64_t steps = t->answer_tokens > 0 ? t->answer_tokens - 1 : 0;
    json_t *all =
        json_pack("{s:s, s:s, s:I, s:I, s:f, s:I, s:f, s:f, s:f}", "device", qgc_engine_device(s->engine),
                  "mode", qgc_sequence_mode(s->sequence), "seed", (json_int_t)s->o->seed, "prompt_tokens",
                  (json_int_t)t->prompt_tokens, "prompt_seconds", t->prompt_seconds, "answer_tokens",
                  (json_int_t)t->answer_tokens, "decode_seconds", t->answer_seconds,
                  "prompt_tokens_per_second", rate(t->prompt_tokens, t->prompt_seconds),
                  "decode_tokens_per_second", rate(steps, t->answer_seconds));
    if (all && s->talk.chat)
        json_object_set_new(all, "messages", cli_talk_json(&s->talk));
    else if (all)
        json_object_set_new(all, "text", json_stringn(s->text.text, s->text.bytes));
    return cli_write_json(s->o->json, all, s->c->diag);
}

qgc_status run_write_receipt(run_state *s) {
    if (s->fed.n == 0)
        return QGC_OK; /* it was stopped before the end of the prompt */
    qgc_receipt r = qgc_receipt_of(s->sequence, s->fed.ids, s->fed.n, s->c->arena);
    r.ids = s->made.ids;
    r.n_ids = s->made.n;
    return qgc_receipt_write(&r, s->o->receipt, s->c->diag);
}

qgc_status run_complete(run_state *s, const qgc_source *text) {
    qgc_tokens tokens = qgc_tokens_new(s->c->arena);
    QGC_TRY(qgc_tokenizer_encode_text(s->tokenizer, text->text, text->bytes, s->o->specials, &tokens,
                                      s->c->diag));
    if (text->bytes == 0)
        return qgc_fail(s->c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "the prompt is empty");
    QGC_TRY(check_room(s, tokens.n, 0));
    qgc_str answer = qgc_str_new(s->c->arena);
    QGC_TRY(generate(s, &tokens, 0, &answer));
    end_line(s);
    return QGC_OK;
}

/* A message is text to its end, and C's ends at a zero byte. */
static qgc_status check_message(const qgc_source *text, qgc_diag *d) {
    const char *zero = text->bytes ? memchr(text->text, 0, text->bytes) : NULL;
    return zero ? qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the message has a zero byte at byte %zu",
                           (size_t)(zero - text->text))
                : QGC_OK;
}

qgc_status run_turn(run_state *s, const qgc_source *text) {
    qgc_diag *d = s->c->diag;
    qgc_tokens all = qgc_tokens_new(s->c->arena);
    qgc_str answer = qgc_str_new(s->c->arena);
    size_t taken;
    QGC_TRY(check_message(text, d));
    QGC_TRY(cli_talk_ask(&s->talk, text->text, &all, &taken, d));
    QGC_TRY(check_room(s, all.n, taken));
    s->talk.taken.n = 0; /* until the turn is done */
    if (taken == 0 && qgc_sequence_position(s->sequence) > 0)
        QGC_TRY(qgc_sequence_reset(s->sequence, d));
    run_heed_interrupts();
    QGC_TRY(generate(s, &all, taken, &answer));
    end_line(s);
    cli_talk_answered(&s->talk, text->text, answer.text, &all, (size_t)qgc_sequence_position(s->sequence));
    return QGC_OK;
}
