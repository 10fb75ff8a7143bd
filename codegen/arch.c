#include "codegen/arch.h"

#include <stdlib.h>
#include <string.h>

bool qgc_arch_read(const char *name, qgc_arch *out) {
    static const char machine[] = "sm_", ptx[] = "compute_";
    *out = (qgc_arch){0};
    const bool is_ptx = strncmp(name, ptx, sizeof ptx - 1) == 0;
    if (!is_ptx && strncmp(name, machine, sizeof machine - 1) != 0)
        return false;
    const char *number = name + (is_ptx ? sizeof ptx : sizeof machine) - 1;
    const size_t digits = strspn(number, "0123456789");
    const char *letter = number + digits;
    if (digits < 2 || digits > 4 || (*letter && ((*letter != 'a' && *letter != 'f') || letter[1])))
        return false;
    *out = (qgc_arch){.number = (int)strtol(number, NULL, 10), .letter = *letter, .ptx = is_ptx};
    return true;
}

int qgc_arch_number(const char *name) {
    qgc_arch arch;
    return qgc_arch_read(name, &arch) ? arch.number : 0;
}

bool qgc_arch_has_wgmma(const char *name) {
    qgc_arch arch;
    return qgc_arch_read(name, &arch) && arch.number == 90 && arch.letter == 'a';
}

static bool same_family(qgc_arch code, int gpu) {
    return code.number / 10 == gpu / 10 && code.number <= gpu;
}

static qgc_fit fit_of_ptx(qgc_arch code, int gpu) {
    const bool runs = code.letter == 'a'   ? code.number == gpu
                      : code.letter == 'f' ? same_family(code, gpu)
                                           : code.number <= gpu;
    return runs ? QGC_FIT_PTX : QGC_FIT_NONE;
}

qgc_fit qgc_arch_fit(qgc_arch code, int gpu) {
    if (code.ptx)
        return fit_of_ptx(code, gpu);
    if (!same_family(code, gpu))
        return QGC_FIT_NONE;
    if (code.number == gpu)
        return QGC_FIT_EXACT;
    return code.letter == 'a' ? QGC_FIT_NONE : code.letter == 'f' ? QGC_FIT_FAMILY : QGC_FIT_MINOR;
}

int qgc_arch_rank(qgc_arch code, int gpu) {
    enum { PER_FIT = 1 << 20, PER_NUMBER = 4 };
    const qgc_fit fit = qgc_arch_fit(code, gpu);
    const int letter = code.letter == 'a' ? 2 : code.letter == 'f' ? 1 : 0;
    return fit == QGC_FIT_NONE ? 0 : (int)fit * PER_FIT + code.number * PER_NUMBER + letter;
}

const char *qgc_fit_text(qgc_fit fit) {
    static const char *const texts[] = {[QGC_FIT_NONE] = "it does not run on this GPU",
                                        [QGC_FIT_PTX] = "PTX, compiled by the driver",
                                        [QGC_FIT_MINOR] = "machine code of the same major version",
                                        [QGC_FIT_FAMILY] = "machine code for the family of this GPU",
                                        [QGC_FIT_EXACT] = "machine code for this GPU"};
    return texts[fit];
}

/* Bytes of the comments and empty lines at the start. */
static size_t comment_bytes(const char *text, size_t bytes) {
    size_t at = 0;
    while (at < bytes && (text[at] == '/' || text[at] == '\n')) {
        const char *newline = memchr(text + at, '\n', bytes - at);
        at = newline ? (size_t)(newline + 1 - text) : bytes;
    }
    return at;
}

/* The directive comes first, after comments. */
int qgc_ptx_version(const void *text, size_t bytes) {
    static const char directive[] = ".version ";
    enum { LENGTH = sizeof directive - 1, NUMBER = 3 };
    const size_t at = comment_bytes(text, bytes);
    const char *line = (const char *)text + at;
    if (bytes - at < LENGTH + NUMBER || memcmp(line, directive, LENGTH) != 0)
        return 0;
    const char *v = line + LENGTH;
    const bool good = v[0] >= '1' && v[0] <= '9' && v[1] == '.' && v[2] >= '0' && v[2] <= '9';
    return good ? 10 * (v[0] - '0') + (v[2] - '0') : 0;
}

int qgc_ptx_driver(int ptx_version) {
    /* 8.5 came with CUDA 12.5 and 12.6, so what came later has another minor version than CUDA until 13.0. */
    enum { SHIFTED = 86, AGAIN_EQUAL = 90 };
    const int major = ptx_version / 10 + 4, minor = ptx_version % 10;
    return 1000 * major + 10 * (ptx_version >= SHIFTED && ptx_version < AGAIN_EQUAL ? minor + 1 : minor);
}
