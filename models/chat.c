#include "models/chat.h"

#include <string.h>

#include "models/template.h"
#include "models/tokenizer_impl.h"

/* Templates are recognised by their outline: what they print, in order, with expressions and statements
 * marked and without the many ways to write the same. One that has the outline of a family is then run on a few
 * conversations, and has to print what the family prints. This template
 *
 *   {% for message in messages %}{{ '<|im_start|>' + message['role'] + "\n" }}...
 *
 * has the outline  (for message in messages) <|im_start|> [message.role] \n ...  where () stands for the
 * marks of a statement, without its blanks, and [] for those of an expression. */
enum { STATEMENT = QGC_STATEMENT, END_STATEMENT = QGC_END_STATEMENT };

#define ROLE "\1message.role\2"
#define CONTENT "\1message.content\2"
#define CONTENT_COPY "\1content\2"

enum { MAX_TEMPLATE = 256 << 10 }; /* real ones have at most some 20 KiB */

static const char im_start[] = "<|im_start|>", im_end[] = "<|im_end|>";

typedef struct {
    const char *p, *end;
} cursor;

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}
static bool is_quote(char c) {
    return c == '\'' || c == '"';
}

static void skip_blanks(cursor *c) {
    while (c->p < c->end && is_blank(*c->p))
        c->p++;
}

/* Reads a string literal at the cursor, its escapes resolved. */
static void read_literal(cursor *c, qgc_str *out) {
    char quote = *c->p++;
    for (; c->p < c->end && *c->p != quote; c->p++) {
        char letter = *c->p;
        if (letter == '\\' && c->p + 1 < c->end) {
            c->p++;
            letter = qgc_template_escaped(*c->p);
        }
        qgc_str_add_bytes(out, &letter, 1);
    }
    if (c->p < c->end)
        c->p++;
}

/* ["name"] at the cursor becomes .name */
static bool read_subscript(cursor *c, qgc_str *out, qgc_str *name) {
    cursor look = {c->p + 1, c->end};
    skip_blanks(&look);
    if (*c->p != '[' || look.p == look.end || !is_quote(*look.p))
        return false;
    qgc_str_clear(name);
    read_literal(&look, name);
    skip_blanks(&look);
    if (look.p == look.end || *look.p != ']')
        return false;
    c->p = look.p + 1;
    qgc_str_printf(out, ".%s", name->text);
    return true;
}

static bool in_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Is the blank at the cursor the last of those between two words, or between a bracket or a quote and a word? */
static bool parts_words(const cursor *c, const qgc_str *out) {
    const bool ends =
        out->bytes && (in_word(out->text[out->bytes - 1]) || strchr(")]'\"", out->text[out->bytes - 1]));
    return ends && c->p + 1 < c->end && in_word(c->p[1]);
}

/* Reads code without the blanks that it does not need up to `stop` outside brackets, or to the end. */
static void read_code(cursor *c, const char *stop, qgc_str *out, qgc_str *name) {
    for (int depth = 0; c->p < c->end;) {
        char letter = *c->p;
        if (depth == 0 && strchr(stop, letter))
            return;
        if (is_quote(letter)) {
            const char *start = c->p;
            qgc_str_clear(name);
            read_literal(c, name);
            qgc_str_add_bytes(out, start, (size_t)(c->p - start));
            continue;
        }
        if (letter == '[' && read_subscript(c, out, name))
            continue;
        depth += (letter == '(' || letter == '[' || letter == '{') -
                 (letter == ')' || letter == ']' || letter == '}');
        if (!is_blank(letter))
            qgc_str_add_bytes(out, &letter, 1);
        else if (parts_words(c, out))
            qgc_str_add(out, " ");
        c->p++;
    }
}

/* Terms joined by + or ~: literals as the text that they print, others between marks. */
static void outline_expression(cursor c, qgc_str *out, qgc_str *name) {
    for (skip_blanks(&c); c.p < c.end; skip_blanks(&c)) {
        size_t before = out->bytes;
        cursor alone = c;
        bool literal = is_quote(*c.p);
        if (literal) {
            read_literal(&alone, out);
            skip_blanks(&alone);
            literal = alone.p == alone.end || *alone.p == '+' || *alone.p == '~';
        }
        if (literal) {
            c = alone;
        } else {
            out->bytes = before;
            qgc_str_add(out, "\1");
            read_code(&c, "+~", out, name);
            qgc_str_add(out, "\2");
        }
        if (c.p < c.end)
            c.p++; /* the + */
    }
}

/* The end of a block whose inside starts at p: where its "%}" stands outside of quotes. */
static const char *block_end(cursor c, char kind) {
    bool quoted = false;
    char quote = 0;
    for (; c.p + 1 < c.end; c.p++) {
        if (quoted && *c.p == '\\')
            c.p++;
        else if (quoted)
            quoted = *c.p != quote;
        else if (kind != '#' && is_quote(*c.p)) {
            quoted = true;
            quote = *c.p;
        } else if (*c.p == (kind == '{' ? '}' : kind) && c.p[1] == '}')
            return c.p;
    }
    return NULL;
}

/* What Jinja leaves of the text before a block that opens with `open`: lstrip_blocks is on in transformers. */
static void outline_text(qgc_span text, const char *open, bool at_end, qgc_str *out) {
    size_t n = text.bytes;
    if (!at_end && open[2] == '-') {
        while (n > 0 && is_blank(text.text[n - 1]))
            n--;
    } else if (!at_end && open[1] != '{' && open[2] != '+') {
        size_t line = n;
        while (line > 0 && (text.text[line - 1] == ' ' || text.text[line - 1] == '\t'))
            line--;
        if (line == 0 || text.text[line - 1] == '\n')
            n = line;
    }
    qgc_str_add_bytes(out, text.text, n);
}

/* Reads the block at the cursor and moves behind it, and behind the blanks that it swallows: all after "-%}",
 * one newline after a statement, since trim_blocks is on. False if it does not end. */
static bool outline_block(cursor *c, qgc_str *out, qgc_str *name) {
    char kind = c->p[1];
    cursor inside = {c->p + 2, block_end((cursor){c->p + 2, c->end}, kind)};
    if (!inside.end)
        return false;
    c->p = inside.end + 2;
    if (inside.p < inside.end && (*inside.p == '-' || *inside.p == '+'))
        inside.p++;
    bool swallow = inside.p < inside.end && inside.end[-1] == '-';
    if (swallow)
        inside.end--;
    if (kind == '{')
        outline_expression(inside, out, name);
    if (kind == '%') {
        qgc_str_add(out, "\3");
        read_code(&inside, "", out, name);
        qgc_str_add(out, "\4");
    }
    if (swallow)
        skip_blanks(c);
    else if (kind != '{' && c->p < c->end && *c->p == '\n')
        c->p++;
    return true;
}

/* False for a text that is no template, or holds the bytes that are the marks. */
static bool make_outline(const char *text, qgc_str *out) {
    for (const char *p = text; *p; p++) {
        if (*p > 0 && *p < 0x20 && !is_blank(*p))
            return false;
    }
    qgc_str name = qgc_str_new(out->arena);
    cursor c = {text, text + strlen(text)};
    while (c.p < c.end) {
        const char *start = c.p;
        while (c.p < c.end && !(c.p[0] == '{' && (c.p[1] == '{' || c.p[1] == '%' || c.p[1] == '#')))
            c.p++;
        outline_text((qgc_span){start, (size_t)(c.p - start)}, c.p, c.p == c.end, out);
        if (c.p < c.end && !outline_block(&c, out, &name))
            return false;
    }
    return true;
}

static void drop_statements(const char *outline, qgc_str *out) {
    bool inside = false;
    for (const char *p = outline; *p; p++) {
        inside = inside || *p == STATEMENT;
        if (!inside)
            qgc_str_add_bytes(out, p, 1);
        inside = inside && *p != END_STATEMENT;
    }
}

static bool starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

/* The outline must print a message as ChatML does, and the prompt as nothing but ChatML's. */
static const char *why_not_chatml(const char *outline, qgc_arena *scratch) {
    qgc_str printed = qgc_str_new(scratch);
    drop_statements(outline, &printed);
    bool plain = strstr(printed.text, "<|im_start|>" ROLE "\n" CONTENT "<|im_end|>\n");
    bool copied = strstr(printed.text, "<|im_start|>" ROLE "\n" CONTENT_COPY "<|im_end|>\n") &&
                  strstr(outline, "\3set content=message.content\4");
    if (!plain && !copied)
        return "it does not print \"<|im_start|>\", role, newline, content and \"<|im_end|>\"";
    if (strstr(outline, "\1bos_token\2"))
        return "it prints a BOS token";
    const char *prompt = strstr(outline, "\3if add_generation_prompt");
    prompt = prompt ? strchr(prompt, END_STATEMENT) : NULL;
    static const char expected[] = "<|im_start|>assistant\n";
    if (!prompt || !starts_with(prompt + 1, expected))
        return "its prompt is not \"<|im_start|>assistant\" and a newline";
    char next = prompt[sizeof expected];
    return next == STATEMENT ? NULL : "its prompt goes on behind \"<|im_start|>assistant\" and a newline";
}

/* A system message that stands in the template word for word. `*two` says that there are several. */
static const char *find_default_system(const char *outline, qgc_arena *arena, bool *two) {
    static const char start[] = "<|im_start|>system\n", end[] = "<|im_end|>\n";
    const char *found = NULL;
    *two = false;
    for (const char *p = outline; (p = strstr(p, start)) != NULL;) {
        p += sizeof start - 1;
        size_t n = strcspn(p, "\1\2\3\4");
        const char *stop = strstr(p, end);
        if (!stop || (size_t)(stop - p) >= n || stop == p)
            continue;
        const char *text = qgc_arena_strndup(arena, p, (size_t)(stop - p));
        *two = *two || (found && strcmp(found, text) != 0);
        found = text;
    }
    return found;
}

static qgc_loc place_of(const qgc_tokenizer *t) {
    qgc_loc at = {.source = t->template_source.name ? &t->template_source : NULL};
    return at;
}

static qgc_status refuse(const qgc_tokenizer *t, const char *why, qgc_diag *d) {
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, place_of(t), "chat template is not of a known family: %s", why);
    qgc_hint(d, "Known is ChatML, as in Qwen2.5. `qgc run -p` without --chat works with any model.");
    return s;
}

/* --- what it prints ---------------------------------------------------------------------------------------- */

static void print_turn(qgc_str *out, const char *role, const char *content) {
    qgc_str_printf(out, "%s%s\n%s%s\n", im_start, role, content, im_end);
}

/* Conversations, each role by its first letter. */
static const char *const talks[] = {"u", "su", "uau", "suau", "uauau", "suauau"};
enum { N_TALKS = sizeof talks / sizeof *talks, MOST_TURNS = 8 };

/* Does the template print the talk as ChatML does? With blanks around the contents, which it might trim. */
static const char *why_other(const char *outline, const char *talk, const char *system, qgc_arena *scratch) {
    qgc_message messages[MOST_TURNS];
    qgc_str want = qgc_str_new(scratch), got = qgc_str_new(scratch);
    int n = 0;
    if (*talk != 's' && system)
        print_turn(&want, "system", system);
    for (; talk[n]; n++) {
        const char *role = talk[n] == 's' ? "system" : talk[n] == 'u' ? "user" : "assistant";
        messages[n] = (qgc_message){role, qgc_arena_printf(scratch, "\n Text %d. \n", n)};
        print_turn(&want, role, messages[n].content);
    }
    qgc_str_printf(&want, "%sassistant\n", im_start);
    const char *why = qgc_template_run(outline, messages, n, &got);
    if (why || strcmp(got.text, want.text) == 0)
        return why;
    size_t same = 0;
    while (got.text[same] == want.text[same])
        same++;
    while (same > 0 && got.text[same - 1] != '\n') /* shown from the start of the line */
        same--;
    return qgc_arena_printf(scratch, "it prints \"%.40s\" where ChatML has \"%.40s\"", got.text + same,
                            want.text + same);
}

static qgc_status recognise(qgc_chat *out, const qgc_tokenizer *t, qgc_arena *scratch, qgc_diag *d) {
    qgc_str outline = qgc_str_new(scratch);
    bool two = false;
    if (strlen(t->chat_template) > MAX_TEMPLATE)
        return refuse(t, "it is too long", d);
    if (!make_outline(t->chat_template, &outline))
        return refuse(t, "it is not a Jinja template", d);
    const char *why = why_not_chatml(outline.text, scratch);
    if (why)
        return refuse(t, why, d);
    const char *const needed[] = {im_start, im_end};
    for (int i = 0; i < 2; i++) {
        if (qgc_tokenizer_special_id(t, needed[i]) < 0)
            return qgc_fail(d, QGC_ERR_INPUT, place_of(t),
                            "chat template needs token \"%s\", which the tokenizer does not have", needed[i]);
    }
    for (int i = 0; i < 2; i++) {
        const qgc_added_flags *f = &qgc_added_by_name(t, (qgc_span){needed[i], strlen(needed[i])})->flags;
        if (f->lstrip || f->rstrip || f->single_word || f->normalized) /* the turns are encoded one by one */
            return refuse(t, qgc_arena_printf(scratch, "token \"%s\" takes more than its text", needed[i]),
                          d);
    }
    const char *system = find_default_system(outline.text, t->arena, &two);
    if (two)
        return refuse(t, "it has two default system messages", d);
    for (int i = 0; i < N_TALKS && !why; i++)
        why = why_other(outline.text, talks[i], system, scratch);
    if (why)
        return refuse(t, why, d);
    *out = (qgc_chat){"chatml", system};
    return QGC_OK;
}

qgc_status qgc_chat_open(qgc_chat *out, const qgc_tokenizer *t, qgc_diag *d) {
    *out = (qgc_chat){0};
    if (!t->chat_template) {
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, place_of(t), "the weights have no chat template");
        qgc_hint(d, "`qgc run -p` without --chat works.");
        return s;
    }
    qgc_arena *scratch = qgc_arena_new();
    qgc_status status = recognise(out, t, scratch, d);
    qgc_arena_drop(scratch);
    return status;
}

static qgc_status encode_turn(qgc_tokenizer *t, const char *role, const char *content, qgc_tokens *out,
                              qgc_diag *d) {
    /* Role, newline and content are one text: a newline at the start of the content merges with that one. */
    qgc_tokens_add(out, qgc_tokenizer_special_id(t, im_start));
    const char *text = qgc_arena_printf(d->arena, "%s\n%s", role, content);
    QGC_TRY(qgc_tokenizer_encode(t, text, strlen(text), false, out, d));
    qgc_tokens_add(out, qgc_tokenizer_special_id(t, im_end));
    return qgc_tokenizer_encode(t, "\n", 1, false, out, d);
}

qgc_status qgc_chat_encode_message(const qgc_chat *c, qgc_tokenizer *t, const qgc_message *m, bool is_first,
                                   qgc_tokens *out, qgc_diag *d) {
    bool system = strcmp(m->role, "system") == 0;
    if (!system && strcmp(m->role, "user") != 0 && strcmp(m->role, "assistant") != 0)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "role of a message is \"%s\", expected \"system\", \"user\" or \"assistant\"",
                        m->role);
    if (is_first && !system && c->default_system)
        QGC_TRY(encode_turn(t, "system", c->default_system, out, d));
    return encode_turn(t, m->role, m->content, out, d);
}

qgc_status qgc_chat_encode_prompt(const qgc_chat *c, qgc_tokenizer *t, qgc_tokens *out, qgc_diag *d) {
    (void)c; /* one family so far */
    static const char role[] = "assistant\n";
    qgc_tokens_add(out, qgc_tokenizer_special_id(t, im_start));
    return qgc_tokenizer_encode(t, role, sizeof role - 1, false, out, d);
}

qgc_status qgc_chat_encode_end(const qgc_chat *c, qgc_tokenizer *t, qgc_tokens *out, qgc_diag *d) {
    (void)c;
    return qgc_tokenizer_encode(t, "\n", 1, false, out, d);
}
