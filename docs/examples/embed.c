/* Continues a text: embed MODEL.qgc WEIGHTS "Once upon a time". Built by: cc embed.c $(pkg-config --cflags --libs qgc) */

#include <qgc.h>
#include <stdio.h>
#include <string.h>

enum { MOST_IDS = 512, MOST_TOKENS = 40 };

/* What went wrong, if anything did; the exit code is that of the command. */
static int tell(qgc_error *e) {
    int code = e ? qgc_error_code(e) : 0;
    if (e)
        fputs(qgc_error_text(e), stderr);
    qgc_error_free(e);
    return code;
}

int main(int argc, char **argv) {
    if (argc != 4 || qgc_abi() != QGC_ABI)
        return fprintf(stderr, "usage: embed MODEL.qgc WEIGHTS TEXT (qgc %s)\n", qgc_version()), 2;
    qgc_engine *engine = NULL;
    qgc_sequence *text = NULL;
    int32_t ids[MOST_IDS], token = -1;
    size_t n = 0, bytes = 0;
    const qgc_open_options options = {.size = sizeof options, .path = argv[1], .weights = argv[2]};
    qgc_error *e = qgc_open(&engine, &options);
    if (!e)
        e = qgc_encode(engine, argv[3], strlen(argv[3]), QGC_TEXT_WHOLE, ids, MOST_IDS, &n);
    if (!e)
        e = qgc_begin(&text, engine, NULL);
    if (!e)
        e = qgc_feed(text, ids, n < MOST_IDS ? n : MOST_IDS, &token);
    for (int i = 0; !e && i < MOST_TOKENS && !qgc_is_end(engine, token); i++) {
        const char *piece = qgc_piece(engine, token, &bytes);
        fwrite(piece ? piece : "", 1, bytes, stdout);
        e = qgc_step(text, MOST_TOKENS - i, &token);
    }
    puts("");
    qgc_end(text);
    qgc_close(engine);
    return tell(e);
}
