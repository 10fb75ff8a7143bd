#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "models/tokenizer.h"
#include "runtime/cli/json.h"

/* The length of the character at the start of n bytes, 0 if they do not start with a whole one. */
static size_t character(const char *text, size_t n) {
    unsigned char b = (unsigned char)text[0];
    size_t length = b < 0x80 ? 1 : b >= 0xF0 ? 4 : b >= 0xE0 ? 3 : b >= 0xC2 ? 2 : 0;
    if (length > n)
        return 0;
    for (size_t k = 1; k < length; k++)
        if (((unsigned char)text[k] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* A piece in double quotes on one line: control bytes and bytes of unfinished characters as \xNN. */
static void print_piece(const char *piece, size_t bytes) {
    qgc_arena *a = qgc_arena_new();
    putchar('"');
    for (size_t i = 0; i < bytes;) {
        unsigned char b = (unsigned char)piece[i];
        size_t length = character(piece + i, bytes - i);
        const bool c1 =
            length == 2 && b == 0xC2 && (unsigned char)piece[i + 1] < 0xA0; /* U+009B and its like */
        if (length == 0 || b < 32 || b == 127 || c1) {
            printf(b == '\n' ? "\\n" : b == '\t' ? "\\t" : "\\x%02X", b);
            i++;
            continue;
        }
        if (b == '"' || b == '\\')
            putchar('\\');
        fwrite(piece + i, 1, length, stdout);
        i += length;
    }
    putchar('"');
    qgc_arena_drop(a);
}

typedef struct {
    const char *weights, *file, *json;
    bool specials, ids_only;
} tokenize_options;

static void print_tokens(qgc_tokenizer *t, const qgc_tokens *tokens, bool ids_only) {
    for (size_t i = 0; i < tokens->n; i++) {
        size_t bytes;
        const char *piece = qgc_tokenizer_piece(t, tokens->ids[i], &bytes);
        printf("%d", tokens->ids[i]);
        if (!ids_only) {
            putchar('\t');
            print_piece(piece, bytes);
        }
        putchar('\n');
    }
}

static json_t *tokens_json(qgc_tokenizer *t, const qgc_tokens *tokens, bool ids_only, qgc_arena *a) {
    json_t *all = json_array();
    for (size_t i = 0; i < tokens->n; i++) {
        size_t bytes;
        const char *piece = qgc_tokenizer_piece(t, tokens->ids[i], &bytes);
        json_array_append_new(all, ids_only ? json_integer(tokens->ids[i])
                                            : json_pack("{s:i, s:o}", "id", (int)tokens->ids[i], "piece",
                                                        cli_json_text(piece, bytes, a)));
    }
    return all;
}

static qgc_status tokenize(cli_context *c, const tokenize_options *o, const qgc_source *text) {
    qgc_weights *w;
    QGC_TRY(cli_open_weights(&w, o->weights, c->diag));
    qgc_tokenizer *t = NULL;
    qgc_tokens tokens = qgc_tokens_new(c->arena);
    qgc_status status = qgc_tokenizer_open(&t, w, c->diag);
    if (status == QGC_OK)
        status = qgc_tokenizer_encode_text(t, text->text, text->bytes, o->specials, &tokens, c->diag);
    if (status == QGC_OK && o->json)
        status = cli_write_json(o->json, tokens_json(t, &tokens, o->ids_only, c->arena), c->diag);
    if (status == QGC_OK && cli_wants_text(o->json))
        print_tokens(t, &tokens, o->ids_only);
    qgc_tokenizer_close(t);
    qgc_weights_close(w);
    return status;
}

qgc_status cmd_tokenize(cli_context *c, int argc, char **argv) {
    tokenize_options o = {0};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.weights, "PATH", "whose tokenizer to use", 0, 0},
        {"file", 'f', OPTION_TEXT, &o.file, "FILE", "the text stands in a file", 0, 0},
        {"specials", 0, OPTION_FLAG, &o.specials, NULL, "special tokens in the text are special", 0, 0},
        {"ids", 0, OPTION_FLAG, &o.ids_only, NULL, "print ids only", 0, 0},
        CLI_JSON_OPTION(o.json),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "tokenize",
        .arguments = "[TEXT]",
        .summary = "Prints the token ids of a text and the piece that each stands for, one a line.",
        .options = options,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    if (!o.weights)
        return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "qgc tokenize wants --weights PATH");
    if ((line.n == 1) == (o.file != NULL))
        return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "qgc tokenize wants a text, or a file with -f");
    qgc_source text;
    if (o.file)
        QGC_TRY(qgc_file_read(&text, o.file, (size_t)1 << 30, "the text", c->diag));
    else
        text = (qgc_source){.text = line.arguments[0], .bytes = strlen(line.arguments[0])};
    return tokenize(c, &o, &text);
}
