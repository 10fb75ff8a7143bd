#include <stdio.h>
#include <string.h>
#include <time.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "models/tokenizer.h"

/* tokenize_file TOKENIZER.JSON TEXT [--no-specials]: prints the ids of a text file, one a line, what they decode to, after
 * a line "text", and the time that it took; for tests/models/compare_tokenizer.py. With special tokens the text starts
 * with a BOS where the tokenizer has one. */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Piece by piece, as generated text is. */
static void print_text(const qgc_tokenizer *t, const qgc_tokens *ids, qgc_arena *arena) {
    qgc_utf8_stream stream = {0};
    qgc_str text = qgc_str_new(arena);
    for (size_t i = 0; i < ids->n; i++) {
        size_t bytes;
        const char *piece = i ? qgc_tokenizer_piece(t, ids->ids[i], &bytes)
                              : qgc_tokenizer_first_piece(t, ids->ids[i], &bytes);
        qgc_utf8_push(&stream, piece, bytes, &text);
        fwrite(text.text, 1, text.bytes, stdout);
        qgc_str_clear(&text);
    }
    qgc_utf8_finish(&stream, &text);
    fwrite(text.text, 1, text.bytes, stdout);
}

static qgc_status run(qgc_tokenizer **t, char **argv, bool specials, qgc_diag *d) {
    qgc_source text;
    qgc_tokens ids = qgc_tokens_new(d->arena);
    double start = now();
    QGC_TRY(qgc_tokenizer_open_json(t, argv[1], d));
    double opened = now();
    QGC_TRY(qgc_file_read(&text, argv[2], (size_t)1 << 30, "text", d));
    double read = now();
    QGC_TRY((specials ? qgc_tokenizer_encode_text : qgc_tokenizer_encode)(*t, text.text, text.bytes, specials,
                                                                          &ids, d));
    double done = now();
    for (size_t i = 0; i < ids.n; i++)
        printf("%d\n", (int)ids.ids[i]);
    printf("text\n");
    print_text(*t, &ids, d->arena);
    fprintf(stderr, "opened in %.0f ms, %zu bytes to %zu ids in %.1f ms: %.1f MB/s\n", 1e3 * (opened - start),
            text.bytes, ids.n, 1e3 * (done - read), 1e-6 * (double)text.bytes / (done - read));
    return QGC_OK;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4 || (argc == 4 && strcmp(argv[3], "--no-specials") != 0)) {
        fprintf(stderr, "usage: tokenize_file TOKENIZER.JSON TEXT [--no-specials]\n");
        return QGC_ERR_USAGE;
    }
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    qgc_tokenizer *t = NULL;
    qgc_status status = run(&t, argv, argc == 3, &d);
    qgc_diag_print(&d, stderr, false);
    qgc_tokenizer_close(t);
    qgc_arena_drop(arena);
    return (int)status;
}
