#include "runtime/cli/talk.h"

#include <stdio.h>
#include <string.h>

/* A day as a date of the calendar with its day of the week; false if there is no such day. */
static bool read_date(const char *text, struct tm *out) {
    int year, month, day, end = 0;
    if (sscanf(text, "%4d-%2d-%2d%n", &year, &month, &day, &end) != 3 || text[end])
        return false;
    struct tm t = {
        .tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = 12, .tm_isdst = -1};
    const struct tm asked = t;
    if (mktime(&t) == (time_t)-1 || t.tm_mon != asked.tm_mon || t.tm_mday != asked.tm_mday)
        return false;
    t.tm_hour = 0;
    *out = t;
    return true;
}

qgc_status cli_talk_options(const char *think, const char *date, qgc_chat_options *out, qgc_diag *d) {
    const time_t now = time(NULL);
    *out = (qgc_chat_options){.think = QGC_THINK_DEFAULT};
    if (!localtime_r(&now, &out->now))
        out->now = (struct tm){.tm_mday = 1, .tm_year = 70, .tm_wday = 4};
    if (think && strcmp(think, "on") != 0 && strcmp(think, "off") != 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --think is \"%s\", expected on or off", think);
    if (think)
        out->think = strcmp(think, "on") == 0 ? QGC_THINK_ON : QGC_THINK_OFF;
    if (date && !read_date(date, &out->now))
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --date is \"%s\", expected a day like 2024-07-26", date);
    return QGC_OK;
}

void cli_talk_add(cli_talk *t, const char *role, const char *content) {
    t->messages = qgc_arena_grow(t->arena, t->messages, t->n, sizeof *t->messages);
    t->messages[t->n++] =
        (qgc_message){qgc_arena_strdup(t->arena, role), qgc_arena_strdup(t->arena, content)};
}

static bool has_system(const cli_talk *t) {
    return t->n > 0 && strcmp(t->messages[0].role, "system") == 0;
}

void cli_talk_reset(cli_talk *t) {
    t->n = has_system(t);
    t->taken.n = 0;
}

/* n messages from `at` on are taken out. */
static void remove_messages(cli_talk *t, size_t at, size_t n) {
    memmove(t->messages + at, t->messages + at + n, (t->n - at - n) * sizeof *t->messages);
    t->n -= n;
}

bool cli_talk_drop_oldest(cli_talk *t) {
    const size_t first = has_system(t);
    if (t->n == first)
        return false;
    size_t n = 1;
    while (first + n < t->n && strcmp(t->messages[first + n].role, "user") != 0)
        n++;
    remove_messages(t, first, n);
    return true;
}

void cli_talk_set_system(cli_talk *t, const char *text) {
    if (has_system(t))
        remove_messages(t, 0, 1);
    if (!text)
        return;
    cli_talk_add(t, "system", text);
    const qgc_message last = t->messages[t->n - 1];
    memmove(t->messages + 1, t->messages, (t->n - 1) * sizeof *t->messages);
    t->messages[0] = last;
}

qgc_status cli_talk_open(cli_talk *t, qgc_tokenizer *tokenizer, const qgc_chat_options *o, const char *system,
                         qgc_arena *arena, qgc_diag *d) {
    *t = (cli_talk){.arena = arena, .taken = qgc_tokens_new(arena)};
    if (system)
        cli_talk_add(t, "system", system);
    return qgc_chat_open(&t->chat, tokenizer, o, d);
}

void cli_talk_close(cli_talk *t) {
    qgc_chat_close(t->chat);
}

qgc_status cli_talk_ask(cli_talk *t, const char *text, qgc_tokens *all, size_t *taken, qgc_diag *d) {
    const size_t before = t->n;
    cli_talk_add(t, "user", text);
    qgc_status status = qgc_chat_encode(t->chat, t->messages, t->n, all, d);
    t->n = before;
    size_t same = 0;
    while (same < t->taken.n && same < all->n && t->taken.ids[same] == all->ids[same])
        same++;
    *taken = same == t->taken.n && same < all->n ? same : 0;
    return status;
}

void cli_talk_answered(cli_talk *t, const char *text, const char *answer, const qgc_tokens *all,
                       size_t taken) {
    cli_talk_add(t, "user", text);
    cli_talk_add(t, "assistant", answer);
    t->taken.n = 0;
    for (size_t i = 0; i < taken && i < all->n; i++)
        qgc_tokens_add(&t->taken, all->ids[i]);
}
