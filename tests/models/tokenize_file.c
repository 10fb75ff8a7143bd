#include <stdio.h>
#include <string.h>
#include <time.h>

#include "graph/base/file.h"
#include "models/tokenizer.h"

/* tokenize_file TOKENIZER.JSON TEXT [--no-specials]: prints the ids of a text file, one a line, and the time
 * that it took; for tests/models/compare_tokenizer.py. */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The pieces of the ids must be the text, where that was in form NFC. */
static bool is_text(const qgc_tokenizer *t, const qgc_tokens *ids, const qgc_source *text) {
    size_t done = 0;
    for (size_t i = 0; i < ids->n; i++) {
        size_t bytes;
        const char *piece = qgc_tokenizer_piece(t, ids->ids[i], &bytes);
        if (bytes > text->bytes - done || memcmp(text->text + done, piece, bytes) != 0)
            return false;
        done += bytes;
    }
    return done == text->bytes;
}

static qgc_status run(qgc_tokenizer **t, char **argv, bool specials, qgc_diag *d) {
    qgc_source text;
    qgc_tokens ids = qgc_tokens_new(d->arena);
    double start = now();
    QGC_TRY(qgc_tokenizer_open_json(t, argv[1], d));
    double opened = now();
    QGC_TRY(qgc_file_read(&text, argv[2], (size_t)1 << 30, "text", d));
    double read = now();
    QGC_TRY(qgc_tokenizer_encode(*t, text.text, text.bytes, specials, &ids, d));
    double done = now();
    for (size_t i = 0; i < ids.n; i++)
        printf("%d\n", (int)ids.ids[i]);
    fprintf(stderr, "opened in %.0f ms, %zu bytes to %zu ids in %.1f ms: %.1f MB/s%s\n",
            1e3 * (opened - start), text.bytes, ids.n, 1e3 * (done - read),
            1e-6 * (double)text.bytes / (done - read),
            is_text(*t, &ids, &text) ? "" : "; the pieces are not the text (it was not NFC)");
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
