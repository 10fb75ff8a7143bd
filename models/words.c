#define PCRE2_CODE_UNIT_WIDTH 8
#include <assert.h>
#include <pcre2.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

/* The pre-tokenizer: cuts text into the words inside which BPE merges. The names in GGUF are those of llama.cpp
 * (src/llama-vocab.cpp), which says what pattern goes with each, and not if text is normalised before. Names of other
 * patterns are refused. */

/* Classes for PCRE2, so that its version does not matter. Letters, marks and numbers are those of Unicode 16 as in
 * the reference (tokenizers 0.23): what is younger than 14, the PCRE2 of 2022, is listed. White space is
 * the Unicode property, which has no U+180E. Contractions are written out, since
 * U+017F folds to s. */
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

/* Beside those of "\\p{M}": marks, and the letters without case, since both stand in the same classes. */
#define MARK                                                                                         \
    "\\p{M}"                                                                                         \
    "\\x{897}\\x{cf3}\\x{ece}\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d4f}\\x{10d69}-\\x{10d6d}"        \
    "\\x{10d6f}\\x{10ec2}-\\x{10ec4}\\x{10efc}-\\x{10eff}\\x{1123f}-\\x{11241}\\x{11380}-\\x{11389}" \
    "\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}-\\x{113c0}\\x{113c2}\\x{113c5}"             \
    "\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d3}\\x{113e1}-\\x{113e2}\\x{11bc0}-\\x{11be0}"           \
    "\\x{11f00}-\\x{11f10}\\x{11f12}-\\x{11f3a}\\x{11f3e}-\\x{11f42}\\x{11f5a}\\x{1342f}"            \
    "\\x{13440}-\\x{13455}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1612f}\\x{16d40}-\\x{16d6c}\\x{18cff}" \
    "\\x{1b132}\\x{1b155}\\x{1e030}-\\x{1e06d}\\x{1e08f}\\x{1e4d0}-\\x{1e4ef}\\x{1e5d0}-\\x{1e5f0}"  \
    "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define UPPER \
    "\\p{Lu}" \
    "\\x{1c89}\\x{a7cb}-\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}"
#define LOWER \
    "\\p{Ll}" \
    "\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}"
/* The numbers of Rust's standard library, which is of Unicode 17. */
#define DIGIT NUMBER "\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}"

/* What stands for a class in the expressions below. */
static const struct {
    const char *name, *members;
} classes[] = {{"\\p{L}", LETTER}, {"\\p{N}", NUMBER}, {"\\p{Lu}", UPPER}, {"\\p{Ll}", LOWER},
               {"\\p{M}", MARK},   {"\\d", DIGIT},     {"\\s", SPACE}};

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BLANKS "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CAPITALS "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define SMALL "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"

/* Those of GPT-4's kind differ in what a number is. */
#define GPT4(number) \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" number "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" BLANKS

/* Those of o200k's kind tell small letters from capitals. */
#define CASED(contraction)                                                                              \
    "[^\\r\\n\\p{L}\\p{N}]?[" CAPITALS "]*[" SMALL "]+" contraction "|[^\\r\\n\\p{L}\\p{N}]?[" CAPITALS \
    "]+[" SMALL "]*" contraction "|"
#define CASED_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANKS

static const qgc_split splits[] = {
    {.gguf = " qwen2 ",
     .unsure = " deepseek-r1-qwen megrez stablelm2 hunyuan ",
     .nfc = true,
     .regex = GPT4("\\p{N}")},
    {.unsure = " qwen35 ",
     .regex = CONTRACTION
     "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BLANKS},
    {.gguf = " llama-bpe llama3 llama-v3 ", .ignore_merges = true, .bos = true, .regex = GPT4("\\p{N}{1,3}")},
    {.gguf = " dbrx smaug-bpe ", .regex = GPT4("\\p{N}{1,3}")},
    {.gguf = " gpt-4o ", .regex = CASED(CONTRACTION "?") "\\p{N}{1,3}" CASED_REST},
    {.gguf = " tekken ", .ignore_merges = true, .bos = true, .regex = CASED("") "\\p{N}" CASED_REST},
    {.gguf = " gpt-2 phi-2 ",
     .unsure = " mpt olmo ",
     .steps = "ByteLevel",
     .regex = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    /* Digits are cut out before the expression sees the text, and it does not see them beside a blank. */
    {.gguf = " smollm starcoder refact ",
     .unsure = " command-r exaone codeshell minerva-7b ",
     .steps = "Digits",
     .regex = "\\d|'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?[^\\s\\p{L}\\d]+|\\s+(?![^\\s\\d])|\\s+"},
};
enum { N_SPLITS = sizeof splits / sizeof *splits };

const qgc_split *qgc_split_by_steps(const char *steps) {
    for (size_t i = 0; i < N_SPLITS; i++)
        if (splits[i].steps && strcmp(splits[i].steps, steps) == 0)
            return &splits[i];
    return NULL;
}

const qgc_split *qgc_split_by_regex(const char *regex) {
    for (size_t i = 0; i < N_SPLITS; i++)
        if (!splits[i].steps && strcmp(splits[i].regex, regex) == 0)
            return &splits[i];
    return NULL;
}

const qgc_split *qgc_split_by_pre(const char *name, qgc_nfc_use *nfc) {
    for (size_t i = 0; i < N_SPLITS; i++) {
        const bool unsure = qgc_has_word(splits[i].unsure, name);
        if (!unsure && !qgc_has_word(splits[i].gguf, name))
            continue;
        *nfc = unsure ? QGC_NFC_UNKNOWN : splits[i].nfc ? QGC_NFC_YES : QGC_NFC_NO;
        return &splits[i];
    }
    return NULL;
}

static bool takes(const char **p, const char *word) {
    const size_t n = strlen(word);
    const bool found = strncmp(*p, word, n) == 0;
    *p += found ? n : 0;
    return found;
}

static const char *take_class(const char **p) {
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (takes(p, classes[i].name))
            return classes[i].members;
    return NULL;
}

/* The expression with its classes as PCRE2 is to know them. */
static void expand(const char *regex, qgc_str *out) {
    bool inside = false; /* of brackets */
    for (const char *p = regex, *members; *p;) {
        if (takes(&p, CONTRACTION)) {
            qgc_str_add(out, "(?:'(?:[sS\\x{17f}tTmMdD]|[rR][eE]|[vV][eE]|[lL][lL]))");
        } else if (takes(&p, "\\S")) {
            qgc_str_add(out, "[^" SPACE "]");
        } else if ((members = take_class(&p))) {
            qgc_str_add(out, inside ? "" : "[");
            qgc_str_add(out, members);
            qgc_str_add(out, inside ? "" : "]");
        } else {
            inside = *p == '[' || (inside && *p != ']');
            qgc_str_add_bytes(out, p++, 1);
        }
    }
}

struct qgc_words {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    bool jit;
};

qgc_status qgc_words_open(qgc_words **out, const qgc_split *split, qgc_arena *arena, qgc_diag *d) {
    qgc_words *w = *out = qgc_arena_alloc(arena, sizeof *w);
    int error = 0;
    PCRE2_SIZE offset = 0;
    qgc_str pattern = qgc_str_new(arena);
    expand(split->regex, &pattern);
    w->code = pcre2_compile((PCRE2_SPTR)pattern.text, PCRE2_ZERO_TERMINATED,
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
    if (!w)
        return;
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
