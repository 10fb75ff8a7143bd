#define PCRE2_CODE_UNIT_WIDTH 8
#include <assert.h>
#include <pcre2.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

/* The pre-tokenizer: cuts text into the words inside which BPE merges. */

const char qgc_qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
    "|\\s+(?!\\S)|\\s+";

/* The same for PCRE2, so that its version does not matter. Letters and numbers are those of Unicode 16 as in
 * the reference (tokenizers 0.23): what is younger than 14, the PCRE2 of 2022, is listed. White space is
 * the Unicode property, which has no U+180E. The contractions are written out: U+017F folds to s. */
#define LETTER                                                                                                  \
    "\\p{L}\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}" \
    "\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}"  \
    "\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}"   \
    "\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"            \
    "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}"             \
    "\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NUMBER                                                                                                        \
    "\\p{N}\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}" \
    "\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
#define SPACE \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

static const char pattern[] = "'(?:[sS\\x{17f}tTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
                              "|[^\\r\\n" LETTER NUMBER "]?[" LETTER "]+"
                              "|[" NUMBER "]"
                              "|\\x{20}?[^" SPACE LETTER NUMBER "]+[\\r\\n]*"
                              "|[" SPACE "]*[\\r\\n]+"
                              "|[" SPACE "]+(?![^" SPACE "])"
                              "|[" SPACE "]+";

struct qgc_words {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    bool jit;
};

qgc_status qgc_words_open(qgc_words **out, qgc_arena *arena, qgc_diag *d) {
    qgc_words *w = *out = qgc_arena_alloc(arena, sizeof *w);
    int error = 0;
    PCRE2_SIZE offset = 0;
    w->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, NULL);
    if (!w->code) {
        PCRE2_UCHAR message[120] = "";
        pcre2_get_error_message(error, message, sizeof message);
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "the PCRE2 library cannot compile the pre-tokenizer: %s", (const char *)message);
    }
    /* Where there is no JIT (not built in, or no memory may be executable) the interpreter does it. */
    w->jit = pcre2_jit_compile(w->code, PCRE2_JIT_COMPLETE) == 0;
    w->match = pcre2_match_data_create(1, NULL);
    w->context = pcre2_match_context_create(NULL);
    if (!w->match || !w->context)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the PCRE2 library has no memory left");
    /* A run of spaces may be as long as the text; none of the alternatives backtracks more than once over it. */
    pcre2_set_match_limit(w->context, UINT32_MAX);
    pcre2_set_depth_limit(w->context, UINT32_MAX);
    pcre2_set_heap_limit(w->context, UINT32_MAX);
    return QGC_OK;
}

void qgc_words_close(qgc_words *w) {
    pcre2_match_context_free(w->context);
    pcre2_match_data_free(w->match);
    pcre2_code_free(w->code);
}

size_t qgc_words_next(qgc_words *w, const char *text, size_t n) {
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int found = w->jit ? pcre2_jit_match(w->code, subject, n, 0, PCRE2_NO_UTF_CHECK, w->match, w->context)
                       : pcre2_match(w->code, subject, n, 0, PCRE2_NO_UTF_CHECK, w->match, w->context);
    size_t bytes = found > 0 ? pcre2_get_ovector_pointer(w->match)[1] : 0;
    assert(bytes > 0 && "every character is a letter, a number, white space or something else");
    if (bytes > 0)
        return bytes;
    uint32_t c;
    return (size_t)qgc_utf8_decode(text, n, &c);
}
