#include <assert.h>
#include <string.h>
#include <utf8proc.h>

#include "graph/base/utf8.h"
#include "models/tokenizer_impl.h"

/* Normalisation form C (unicode.org/reports/tr15) exactly as Hugging Face `tokenizers` does it, whose tables
 * are those of Unicode 9. A normalised text stays so in later versions, with one exception: combining marks
 * that were assigned later are inert there. So the table below decides what may change at all, and utf8proc,
 * whatever its version, sees only those places:
 *
 *   safe ... safe  safe unsafe unsafe  safe ...      unsafe: the quick check for NFC does not say "yes", or
 *                  ^---- a piece ---^                        the canonical combining class is not 0
 *
 * tests/models/make_nfc_table.py prints the table. */
static const struct {
    uint32_t first, last;
} unsafe_ranges[] = {
    {0x0300, 0x034E},   {0x0350, 0x036F},   {0x0374, 0x0374},   {0x037E, 0x037E},   {0x0387, 0x0387},
    {0x0483, 0x0487},   {0x0591, 0x05BD},   {0x05BF, 0x05BF},   {0x05C1, 0x05C2},   {0x05C4, 0x05C5},
    {0x05C7, 0x05C7},   {0x0610, 0x061A},   {0x064B, 0x065F},   {0x0670, 0x0670},   {0x06D6, 0x06DC},
    {0x06DF, 0x06E4},   {0x06E7, 0x06E8},   {0x06EA, 0x06ED},   {0x0711, 0x0711},   {0x0730, 0x074A},
    {0x07EB, 0x07F3},   {0x0816, 0x0819},   {0x081B, 0x0823},   {0x0825, 0x0827},   {0x0829, 0x082D},
    {0x0859, 0x085B},   {0x08D4, 0x08E1},   {0x08E3, 0x08FF},   {0x093C, 0x093C},   {0x094D, 0x094D},
    {0x0951, 0x0954},   {0x0958, 0x095F},   {0x09BC, 0x09BC},   {0x09BE, 0x09BE},   {0x09CD, 0x09CD},
    {0x09D7, 0x09D7},   {0x09DC, 0x09DD},   {0x09DF, 0x09DF},   {0x0A33, 0x0A33},   {0x0A36, 0x0A36},
    {0x0A3C, 0x0A3C},   {0x0A4D, 0x0A4D},   {0x0A59, 0x0A5B},   {0x0A5E, 0x0A5E},   {0x0ABC, 0x0ABC},
    {0x0ACD, 0x0ACD},   {0x0B3C, 0x0B3C},   {0x0B3E, 0x0B3E},   {0x0B4D, 0x0B4D},   {0x0B56, 0x0B57},
    {0x0B5C, 0x0B5D},   {0x0BBE, 0x0BBE},   {0x0BCD, 0x0BCD},   {0x0BD7, 0x0BD7},   {0x0C4D, 0x0C4D},
    {0x0C55, 0x0C56},   {0x0CBC, 0x0CBC},   {0x0CC2, 0x0CC2},   {0x0CCD, 0x0CCD},   {0x0CD5, 0x0CD6},
    {0x0D3E, 0x0D3E},   {0x0D4D, 0x0D4D},   {0x0D57, 0x0D57},   {0x0DCA, 0x0DCA},   {0x0DCF, 0x0DCF},
    {0x0DDF, 0x0DDF},   {0x0E38, 0x0E3A},   {0x0E48, 0x0E4B},   {0x0EB8, 0x0EB9},   {0x0EC8, 0x0ECB},
    {0x0F18, 0x0F19},   {0x0F35, 0x0F35},   {0x0F37, 0x0F37},   {0x0F39, 0x0F39},   {0x0F43, 0x0F43},
    {0x0F4D, 0x0F4D},   {0x0F52, 0x0F52},   {0x0F57, 0x0F57},   {0x0F5C, 0x0F5C},   {0x0F69, 0x0F69},
    {0x0F71, 0x0F76},   {0x0F78, 0x0F78},   {0x0F7A, 0x0F7D},   {0x0F80, 0x0F84},   {0x0F86, 0x0F87},
    {0x0F93, 0x0F93},   {0x0F9D, 0x0F9D},   {0x0FA2, 0x0FA2},   {0x0FA7, 0x0FA7},   {0x0FAC, 0x0FAC},
    {0x0FB9, 0x0FB9},   {0x0FC6, 0x0FC6},   {0x102E, 0x102E},   {0x1037, 0x1037},   {0x1039, 0x103A},
    {0x108D, 0x108D},   {0x1161, 0x1175},   {0x11A8, 0x11C2},   {0x135D, 0x135F},   {0x1714, 0x1714},
    {0x1734, 0x1734},   {0x17D2, 0x17D2},   {0x17DD, 0x17DD},   {0x18A9, 0x18A9},   {0x1939, 0x193B},
    {0x1A17, 0x1A18},   {0x1A60, 0x1A60},   {0x1A75, 0x1A7C},   {0x1A7F, 0x1A7F},   {0x1AB0, 0x1ABD},
    {0x1B34, 0x1B35},   {0x1B44, 0x1B44},   {0x1B6B, 0x1B73},   {0x1BAA, 0x1BAB},   {0x1BE6, 0x1BE6},
    {0x1BF2, 0x1BF3},   {0x1C37, 0x1C37},   {0x1CD0, 0x1CD2},   {0x1CD4, 0x1CE0},   {0x1CE2, 0x1CE8},
    {0x1CED, 0x1CED},   {0x1CF4, 0x1CF4},   {0x1CF8, 0x1CF9},   {0x1DC0, 0x1DF5},   {0x1DFB, 0x1DFF},
    {0x1F71, 0x1F71},   {0x1F73, 0x1F73},   {0x1F75, 0x1F75},   {0x1F77, 0x1F77},   {0x1F79, 0x1F79},
    {0x1F7B, 0x1F7B},   {0x1F7D, 0x1F7D},   {0x1FBB, 0x1FBB},   {0x1FBE, 0x1FBE},   {0x1FC9, 0x1FC9},
    {0x1FCB, 0x1FCB},   {0x1FD3, 0x1FD3},   {0x1FDB, 0x1FDB},   {0x1FE3, 0x1FE3},   {0x1FEB, 0x1FEB},
    {0x1FEE, 0x1FEF},   {0x1FF9, 0x1FF9},   {0x1FFB, 0x1FFB},   {0x1FFD, 0x1FFD},   {0x2000, 0x2001},
    {0x20D0, 0x20DC},   {0x20E1, 0x20E1},   {0x20E5, 0x20F0},   {0x2126, 0x2126},   {0x212A, 0x212B},
    {0x2329, 0x232A},   {0x2ADC, 0x2ADC},   {0x2CEF, 0x2CF1},   {0x2D7F, 0x2D7F},   {0x2DE0, 0x2DFF},
    {0x302A, 0x302F},   {0x3099, 0x309A},   {0xA66F, 0xA66F},   {0xA674, 0xA67D},   {0xA69E, 0xA69F},
    {0xA6F0, 0xA6F1},   {0xA806, 0xA806},   {0xA8C4, 0xA8C4},   {0xA8E0, 0xA8F1},   {0xA92B, 0xA92D},
    {0xA953, 0xA953},   {0xA9B3, 0xA9B3},   {0xA9C0, 0xA9C0},   {0xAAB0, 0xAAB0},   {0xAAB2, 0xAAB4},
    {0xAAB7, 0xAAB8},   {0xAABE, 0xAABF},   {0xAAC1, 0xAAC1},   {0xAAF6, 0xAAF6},   {0xABED, 0xABED},
    {0xF900, 0xFA0D},   {0xFA10, 0xFA10},   {0xFA12, 0xFA12},   {0xFA15, 0xFA1E},   {0xFA20, 0xFA20},
    {0xFA22, 0xFA22},   {0xFA25, 0xFA26},   {0xFA2A, 0xFA6D},   {0xFA70, 0xFAD9},   {0xFB1D, 0xFB1F},
    {0xFB2A, 0xFB36},   {0xFB38, 0xFB3C},   {0xFB3E, 0xFB3E},   {0xFB40, 0xFB41},   {0xFB43, 0xFB44},
    {0xFB46, 0xFB4E},   {0xFE20, 0xFE2F},   {0x101FD, 0x101FD}, {0x102E0, 0x102E0}, {0x10376, 0x1037A},
    {0x10A0D, 0x10A0D}, {0x10A0F, 0x10A0F}, {0x10A38, 0x10A3A}, {0x10A3F, 0x10A3F}, {0x10AE5, 0x10AE6},
    {0x11046, 0x11046}, {0x1107F, 0x1107F}, {0x110B9, 0x110BA}, {0x11100, 0x11102}, {0x11127, 0x11127},
    {0x11133, 0x11134}, {0x11173, 0x11173}, {0x111C0, 0x111C0}, {0x111CA, 0x111CA}, {0x11235, 0x11236},
    {0x112E9, 0x112EA}, {0x1133C, 0x1133C}, {0x1133E, 0x1133E}, {0x1134D, 0x1134D}, {0x11357, 0x11357},
    {0x11366, 0x1136C}, {0x11370, 0x11374}, {0x11442, 0x11442}, {0x11446, 0x11446}, {0x114B0, 0x114B0},
    {0x114BA, 0x114BA}, {0x114BD, 0x114BD}, {0x114C2, 0x114C3}, {0x115AF, 0x115AF}, {0x115BF, 0x115C0},
    {0x1163F, 0x1163F}, {0x116B6, 0x116B7}, {0x1172B, 0x1172B}, {0x11C3F, 0x11C3F}, {0x16AF0, 0x16AF4},
    {0x16B30, 0x16B36}, {0x1BC9E, 0x1BC9E}, {0x1D15E, 0x1D169}, {0x1D16D, 0x1D172}, {0x1D17B, 0x1D182},
    {0x1D185, 0x1D18B}, {0x1D1AA, 0x1D1AD}, {0x1D1BB, 0x1D1C0}, {0x1D242, 0x1D244}, {0x1E000, 0x1E006},
    {0x1E008, 0x1E018}, {0x1E01B, 0x1E021}, {0x1E023, 0x1E024}, {0x1E026, 0x1E02A}, {0x1E8D0, 0x1E8D6},
    {0x1E944, 0x1E94A}, {0x2F800, 0x2FA1D},
};

enum {
    FIRST_UNSAFE = 0x300,
    PAST_UNSAFE = 0x2FA1E,
    N_RANGES = sizeof unsafe_ranges / sizeof *unsafe_ranges,
};

qgc_nfc qgc_nfc_new(qgc_arena *arena) {
    uint64_t *bits = qgc_arena_array(arena, PAST_UNSAFE / 64 + 1, sizeof *bits);
    for (int i = 0; i < N_RANGES; i++) {
        for (uint32_t c = unsafe_ranges[i].first; c <= unsafe_ranges[i].last; c++)
            bits[c / 64] |= (uint64_t)1 << c % 64;
    }
    return (qgc_nfc){bits};
}

static bool is_unsafe(const qgc_nfc *nfc, uint32_t c) {
    return c >= FIRST_UNSAFE && c < PAST_UNSAFE && nfc->unsafe[c / 64] >> c % 64 & 1;
}

static int combining_class(int32_t c) {
    return utf8proc_get_property(c)->combining_class;
}

/* A safe code point younger than Unicode 9 never combines with what follows: not the later combining marks,
 * and not the two letters of Todhri that are the first of a later composite with U+0307. */
static bool is_inert(uint32_t c) {
    return c == 0x105D2 || c == 0x105DA || combining_class((int32_t)c) != 0;
}

typedef struct {
    qgc_arena *arena;
    int32_t *at;
    size_t n, room;
} code_points;

enum { MAX_DECOMPOSED = 4 }; /* the longest canonical decomposition, of U+1F82 for one */

static void make_room(code_points *v, size_t more) {
    if (v->room - v->n >= more)
        return;
    size_t room = 2 * v->room + more + 64;
    int32_t *bigger = qgc_arena_array(v->arena, room, sizeof *bigger);
    if (v->n)
        memcpy(bigger, v->at, v->n * sizeof *bigger);
    v->at = bigger;
    v->room = room;
}

static void add_decomposed(code_points *v, uint32_t c) {
    make_room(v, MAX_DECOMPOSED);
    int last_class = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, v->at + v->n, MAX_DECOMPOSED,
                                                 UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &last_class);
    if (n < 1 || n > MAX_DECOMPOSED) { /* nothing in Unicode is so; left as it is */
        v->at[v->n] = (int32_t)c;
        n = 1;
    }
    v->n += (size_t)n;
}

/* Sorts a run of combining marks by class, marks of one class staying in order. Counting, since a run may be
 * as long as the text. */
static void sort_marks(int32_t *marks, size_t n, qgc_arena *scratch) {
    size_t start[257] = {0};
    int32_t *copy = qgc_arena_array(scratch, n, sizeof *copy);
    memcpy(copy, marks, n * sizeof *copy);
    for (size_t i = 0; i < n; i++)
        start[combining_class(copy[i]) + 1]++;
    for (int c = 1; c < 257; c++)
        start[c] += start[c - 1];
    for (size_t i = 0; i < n; i++)
        marks[start[combining_class(copy[i])]++] = copy[i];
}

static void order_marks(code_points *v) {
    for (size_t i = 0; i < v->n;) {
        int class = combining_class(v->at[i]);
        if (class == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        bool ordered = true;
        for (int next; end < v->n && (next = combining_class(v->at[end])) != 0; end++) {
            ordered = ordered && class <= next;
            class = next;
        }
        if (!ordered)
            sort_marks(v->at + i, end - i, v->arena);
        i = end;
    }
}

/* Normalises one piece and appends it to `out`. */
static void apply_piece(qgc_span piece, code_points *v, qgc_str *out) {
    v->n = 0;
    for (size_t i = 0; i < piece.bytes;) {
        uint32_t c = 0;
        i += (size_t)qgc_utf8_decode(piece.text + i, piece.bytes - i, &c);
        add_decomposed(v, c);
    }
    order_marks(v);
    assert(v->at); /* no piece is empty */
    utf8proc_ssize_t n =
        utf8proc_normalize_utf32(v->at, (utf8proc_ssize_t)v->n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        char bytes[4];
        qgc_str_add_bytes(out, bytes, (size_t)qgc_utf8_encode((uint32_t)v->at[i], bytes));
    }
}

/* The end of the run of unsafe characters that starts at byte `i`. */
static size_t run_end(const qgc_nfc *nfc, qgc_span in, size_t i) {
    uint32_t c = 0;
    while (i < in.bytes) {
        int length = qgc_utf8_decode(in.text + i, in.bytes - i, &c);
        if (!is_unsafe(nfc, c))
            break;
        i += (size_t)length;
    }
    return i;
}

/* The offset of the next unsafe character from byte `i` on; `*piece` is where its piece starts. */
static size_t find_unsafe(const qgc_nfc *nfc, qgc_span in, size_t i, size_t *piece) {
    uint32_t before = 0;
    *piece = i;
    while (i < in.bytes) {
        uint32_t c = (unsigned char)in.text[i];
        int length = c < 0x80 ? 1 : qgc_utf8_decode(in.text + i, in.bytes - i, &c);
        if (is_unsafe(nfc, c)) {
            if (is_inert(before))
                *piece = i;
            return i;
        }
        *piece = i;
        before = c;
        i += (size_t)length;
    }
    return in.bytes;
}

qgc_span qgc_nfc_apply(const qgc_nfc *nfc, qgc_span in, qgc_arena *scratch) {
    size_t piece, at = find_unsafe(nfc, in, 0, &piece);
    if (at == in.bytes)
        return in;
    qgc_str out = qgc_str_new(scratch);
    code_points v = {.arena = scratch};
    size_t done = 0;
    while (at < in.bytes) {
        size_t end = run_end(nfc, in, at);
        qgc_str_add_bytes(&out, in.text + done, piece - done);
        apply_piece((qgc_span){in.text + piece, end - piece}, &v, &out);
        done = end;
        at = find_unsafe(nfc, in, end, &piece);
    }
    qgc_str_add_bytes(&out, in.text + done, in.bytes - done);
    return (qgc_span){out.text, out.bytes};
}
