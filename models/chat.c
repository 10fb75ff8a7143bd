#include "models/chat.h"

#include <string.h>

#include "graph/base/utf8.h"
#include "models/jinja.h"
#include "models/tokenizer_impl.h"

typedef struct {
    const qgc_message *messages;
    size_t n;
} talk;

struct qgc_chat {
    qgc_arena *arena;
    qgc_tokenizer *tokenizer;
    qgc_jinja *template;
    qgc_chat_options options;
    int32_t end; /* the special token after an answer, or -1 */
};

static qgc_loc place_of(const qgc_tokenizer *t) {
    return (qgc_loc){.source = t->template_source.name ? &t->template_source : NULL};
}

/* The names by which templates ask for special tokens. */
static const char *const token_names[QGC_N_NAMED] = {
    [QGC_BOS_TOKEN] = "bos_token",
    [QGC_EOS_TOKEN] = "eos_token",
    [QGC_UNK_TOKEN] = "unk_token",
    [QGC_PAD_TOKEN] = "pad_token",
};

static qgc_status check_names(const qgc_chat *c, qgc_diag *d) {
    const qgc_tokenizer *t = c->tokenizer;
    for (int i = 0; i < QGC_N_NAMED; i++)
        if (!t->named[i].stated && qgc_jinja_names(c->template, token_names[i]))
            return qgc_fail(d, QGC_ERR_INPUT, place_of(t),
                            "chat template prints \"%s\", which the tokenizer does not state",
                            token_names[i]);
    if (c->options.think == QGC_THINK_DEFAULT || qgc_jinja_names(c->template, "enable_thinking") ||
        qgc_jinja_names(c->template, "thinking"))
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, place_of(t), "chat template has no choice about thinking");
    qgc_hint(d, "It has neither a variable \"enable_thinking\" nor \"thinking\": leave --think out.");
    return s;
}

/* --- printing ------------------------------------------------------------------------------------------------ */

static void set(qgc_jinja_value dict, const char *name, qgc_jinja_value v, qgc_arena *arena) {
    qgc_jinja_dict_set(dict, qgc_jinja_text_of(arena, name, strlen(name), 0), v);
}

static qgc_jinja_value text_of(qgc_arena *arena, const char *text, uint32_t mark) {
    return qgc_jinja_text_of(arena, text, strlen(text), mark);
}

static qgc_jinja_value list_messages(const talk *said, qgc_arena *arena) {
    const qgc_jinja_value list = qgc_jinja_list_new(arena);
    for (size_t i = 0; i < said->n; i++) {
        const qgc_message *m = &said->messages[i];
        const qgc_jinja_value message = qgc_jinja_dict_new(arena);
        set(message, "role", text_of(arena, m->role, 0), arena);
        set(message, "content", text_of(arena, m->content, QGC_JINJA_OUTSIDE), arena);
        qgc_jinja_list_add(list, message);
    }
    return list;
}

/* The variables that transformers gives a template. */
static qgc_jinja_value variables_of(const qgc_chat *c, const talk *said, qgc_arena *arena) {
    const qgc_jinja_value all = qgc_jinja_dict_new(arena), none = {.kind = QGC_JINJA_NONE};
    set(all, "messages", list_messages(said, arena), arena);
    set(all, "add_generation_prompt", qgc_jinja_boolean(true), arena);
    set(all, "tools", none, arena);
    set(all, "documents", none, arena);
    for (int i = 0; i < QGC_N_NAMED; i++)
        if (c->tokenizer->named[i].text)
            set(all, token_names[i], text_of(arena, c->tokenizer->named[i].text, 0), arena);
    if (c->options.think != QGC_THINK_DEFAULT) {
        const qgc_jinja_value on = qgc_jinja_boolean(c->options.think == QGC_THINK_ON);
        set(all, "enable_thinking", on, arena);
        set(all, "thinking", on, arena);
    }
    return all;
}

static qgc_status check_messages(const talk *said, qgc_diag *d) {
    for (size_t i = 0; i < said->n; i++) {
        const qgc_message *m = &said->messages[i];
        if (strcmp(m->role, "system") != 0 && strcmp(m->role, "user") != 0 &&
            strcmp(m->role, "assistant") != 0)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "role of a message is \"%s\", expected \"system\", \"user\" or \"assistant\"",
                            m->role);
        const size_t bytes = strlen(m->content), valid = qgc_utf8_check(m->content, bytes);
        if (valid < bytes)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the message is not valid UTF-8 at byte %zu",
                            valid);
    }
    return QGC_OK;
}

static qgc_status render(const qgc_chat *c, const talk *said, qgc_jinja_text *out, qgc_arena *arena,
                         qgc_diag *d) {
    const qgc_jinja_context with = {variables_of(c, said, arena), c->options.now};
    return qgc_jinja_render(c->template, &with, out, arena, d);
}

/* A template may pass over a system message without a word, and then the model never sees it. */
static qgc_status check_system(const qgc_chat *c, const talk *said, const qgc_jinja_text *whole,
                               qgc_arena *arena, qgc_diag *d) {
    const qgc_message *first = said->messages;
    qgc_jinja_text without;
    qgc_diag other = qgc_diag_new(arena);
    if (said->n < 2 || strcmp(first->role, "system") != 0 || !*first->content ||
        render(c, &(const talk){first + 1, said->n - 1}, &without, arena, &other) != QGC_OK)
        return QGC_OK;
    for (size_t i = 0; i < whole->n || i < without.n; i++)
        if (whole->n != without.n || whole->c[i] != without.c[i])
            return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, place_of(c->tokenizer), "chat template prints no system message");
}

static qgc_status render_checked(const qgc_chat *c, const talk *said, qgc_jinja_text *out, qgc_arena *arena,
                                 qgc_diag *d) {
    QGC_TRY(check_messages(said, d));
    QGC_TRY(render(c, said, out, arena, d));
    return check_system(c, said, out, arena, d);
}

/* As UTF-8. `outside` [bytes of it], if not NULL, says which of them come from messages. */
static const char *to_utf8(qgc_jinja_text text, bool *outside, size_t *bytes, qgc_arena *arena) {
    char *out = qgc_arena_array(arena, text.n + 1, 4);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        const int length = qgc_utf8_encode(text.c[i] & ~QGC_JINJA_OUTSIDE, out + n);
        for (int k = 0; outside && k < length; k++)
            outside[n + (size_t)k] = text.c[i] & QGC_JINJA_OUTSIDE;
        n += (size_t)length;
    }
    *bytes = n;
    return out;
}

qgc_status qgc_chat_print(const qgc_chat *c, const qgc_message *messages, size_t n, const char **out,
                          qgc_diag *d) {
    qgc_arena *scratch = qgc_arena_new();
    qgc_jinja_text text;
    size_t bytes;
    qgc_status status = render_checked(c, &(const talk){messages, n}, &text, scratch, d);
    if (status == QGC_OK)
        *out = to_utf8(text, NULL, &bytes, d->arena);
    qgc_arena_drop(scratch);
    return status;
}

/* --- the end of an answer ------------------------------------------------------------------------------------ */

/* The special token that the text of the template starts with, or -1. */
static int32_t starting_token(const qgc_tokenizer *t, qgc_jinja_text text, qgc_arena *arena) {
    enum { MOST = 100 };
    size_t bytes, n = 0;
    while (n < text.n && n < MOST && !(text.c[n] & QGC_JINJA_OUTSIDE))
        n++;
    const char *utf8 = to_utf8((qgc_jinja_text){text.c, n}, NULL, &bytes, arena);
    const qgc_span span = {utf8, bytes};
    const qgc_added *const all[] = {&t->added, &t->normalized};
    for (int i = 0; i < 2; i++) {
        size_t at = 1;
        const qgc_added_token *a = qgc_added_find(all[i], span, 0, &at);
        if (a && at == 0 && a->special)
            return a->id;
    }
    return -1;
}

/* What comes after the answer of a small conversation, but for white space. A template that refuses it says nothing. */
static int32_t find_end(const qgc_chat *c) {
    static const qgc_message messages[] = {{"user", "1"}, {"assistant", "2"}, {"user", "3"}};
    qgc_arena *scratch = qgc_arena_new();
    qgc_diag d = qgc_diag_new(scratch);
    qgc_jinja_text text;
    int32_t end = -1;
    if (render(c, &(const talk){messages, 3}, &text, scratch, &d) == QGC_OK) {
        size_t at = 0;
        while (at < text.n && text.c[at] != ('2' | QGC_JINJA_OUTSIDE))
            at++;
        at += at < text.n;
        while (at < text.n && qgc_is_white(text.c[at]))
            at++;
        end = starting_token(c->tokenizer, (qgc_jinja_text){text.c + at, text.n - at}, scratch);
    }
    qgc_arena_drop(scratch);
    return end;
}

bool qgc_chat_is_end(const qgc_chat *c, int32_t id) {
    return id == c->end || qgc_tokenizer_is_eos(c->tokenizer, id);
}

qgc_status qgc_chat_encode(const qgc_chat *c, const qgc_message *messages, size_t n, qgc_tokens *out,
                           qgc_diag *d) {
    qgc_arena *scratch = qgc_arena_new();
    qgc_jinja_text text;
    qgc_status status = render_checked(c, &(const talk){messages, n}, &text, scratch, d);
    if (status == QGC_OK) {
        size_t bytes;
        bool *outside = qgc_arena_array(scratch, text.n + 1, 4 * sizeof *outside);
        const char *utf8 = to_utf8(text, outside, &bytes, scratch);
        status = qgc_tokenizer_encode_marked(c->tokenizer, utf8, bytes, outside, out, d);
    }
    qgc_arena_drop(scratch);
    return status;
}

/* --- opening and closing ------------------------------------------------------------------------------------- */

static qgc_status parse(qgc_chat *c, qgc_diag *d) {
    const qgc_tokenizer *t = c->tokenizer;
    const qgc_source text = {t->template_source.name ? t->template_source.name : "chat template",
                             t->chat_template, strlen(t->chat_template)};
    qgc_status status = qgc_jinja_parse(&c->template, &text, c->arena, d);
    if (status != QGC_OK)
        qgc_hint(d, "`qgc run -p` without --chat works with any model.");
    return status == QGC_OK ? check_names(c, d) : status;
}

qgc_status qgc_chat_open(qgc_chat **out, qgc_tokenizer *t, const qgc_chat_options *o, qgc_diag *d) {
    *out = NULL;
    if (!t->chat_template) {
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, place_of(t), "the weights have no chat template");
        qgc_hint(d, "`qgc run -p` without --chat works.");
        return s;
    }
    qgc_arena *arena = qgc_arena_new();
    qgc_chat *c = qgc_arena_alloc(arena, sizeof *c);
    *c = (qgc_chat){.arena = arena, .tokenizer = t, .options = *o};
    qgc_status status = parse(c, d);
    if (status == QGC_OK) {
        c->end = find_end(c);
        *out = c;
    } else
        qgc_chat_close(c);
    return status;
}

void qgc_chat_close(qgc_chat *c) {
    if (c)
        qgc_arena_drop(c->arena);
}
