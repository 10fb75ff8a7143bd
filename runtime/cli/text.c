#include "runtime/cli/text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"

enum { SEED = 1, MOST_IDS = 1 << 20 };

qgc_status cli_text_check(const cli_text *t, bool random, qgc_diag *d) {
    const struct {
        const char *name, *value;
    } given[] = {{"tokens", t->file}, {"prompt", t->prompt}, {"ids", t->ids}};
    const char *first = NULL;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        if (!given[i].value)
            continue;
        if (first)
            return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "two texts are given, --%s and --%s", first,
                            given[i].name);
        first = given[i].name;
    }
    if (random && (t->file || t->prompt))
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "random weights come without a tokenizer, and option --%s is a text", first);
    return QGC_OK;
}

static qgc_status count_vocab(const qgc_graph *g, int64_t *vocab, qgc_diag *d) {
    const qgc_value *logits = qgc_graph_output(g, "logits");
    if (!logits || logits->shape.rank != 2 || logits->shape.dim[1] < 1)
        return qgc_fail(d, QGC_ERR_INPUT, g->at, "the graph has no output \"logits\" of shape [R, vocab]");
    *vocab = logits->shape.dim[1];
    return QGC_OK;
}

/* Ids spread over the vocabulary: a model with random weights knows no words. */
static qgc_status make_up(const qgc_graph *g, int64_t n, qgc_tokens *out, qgc_diag *d) {
    int64_t vocab = 0;
    QGC_TRY(count_vocab(g, &vocab, d));
    assert(vocab > 0);
    uint64_t state = SEED;
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth, MMIX */
        qgc_tokens_add(out, (int32_t)((state >> 33) % (uint64_t)vocab));
    }
    return QGC_OK;
}

/* "5,300,0-15" */
static qgc_status parse_ids(const char *text, const qgc_graph *g, qgc_tokens *out, qgc_diag *d) {
    int64_t vocab = 0;
    QGC_TRY(count_vocab(g, &vocab, d));
    for (const char *at = text;;) {
        char *end;
        const long long first = strtoll(at, &end, 10);
        long long last = first;
        bool number = end != at;
        if (number && *end == '-') {
            at = end + 1;
            last = strtoll(at, &end, 10);
            number = end != at;
        }
        if (!number || (*end && *end != ',') || first < 0 || last < first || last >= vocab)
            return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                            "option --ids is \"%s\", expected ids from 0 to %lld like 5,300,0-15", text,
                            (long long)vocab - 1);
        for (long long id = first; id <= last && out->n < MOST_IDS; id++)
            qgc_tokens_add(out, (int32_t)id);
        if (!*end)
            return QGC_OK;
        at = end + 1;
    }
}

static qgc_status encode(const qgc_weights *w, const qgc_source *text, qgc_tokens *out, qgc_diag *d) {
    qgc_tokenizer *tokenizer;
    QGC_TRY(qgc_tokenizer_open(&tokenizer, w, d));
    qgc_status status = qgc_tokenizer_encode(tokenizer, text->text, text->bytes, false, out, d);
    qgc_tokenizer_close(tokenizer);
    if (status == QGC_OK && out->n == 0)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the text is empty");
    return status;
}

qgc_status cli_text_read(const cli_text *t, const qgc_weights *w, const qgc_graph *g, bool random,
                         int64_t n_random, qgc_tokens *out, const char **name, cli_context *c) {
    *out = qgc_tokens_new(c->arena);
    if (t->ids) {
        *name = "the ids given";
        return parse_ids(t->ids, g, out, c->diag);
    }
    if (random) {
        *name = "random tokens";
        return make_up(g, n_random, out, c->diag);
    }
    const char *prompt = t->prompt ? t->prompt : "Once upon a time";
    qgc_source text = {.text = prompt, .bytes = strlen(prompt)};
    *name = qgc_arena_printf(c->arena, "\"%s\"", prompt);
    if (t->file) {
        QGC_TRY(qgc_file_read(&text, t->file, (size_t)64 << 20, "the text", c->diag));
        *name = t->file;
    }
    return encode(w, &text, out, c->diag);
}
