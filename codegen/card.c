#include "codegen/card.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/arch.h"
#include "graph/base/str.h"

static const struct {
    const char *name, *product;
    int arch, sms, bandwidth, l2, memory;
} rows[] = {
#define CARD(name, product, arch, sms, bandwidth, l2, memory) \
    {name, product, arch, sms, bandwidth, l2, memory},
#include "codegen/cards.def"
#undef CARD
};
enum { N_ROWS = sizeof rows / sizeof *rows, GIGA = 1000000000 };

/* CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". */
static const struct {
    int arch, kilobytes;
} shared[] = {{75, 64}, {80, 163}, {86, 99}, {87, 163}, {88, 99}, {89, 99}, {120, 99}, {121, 99}};
enum { N_SHARED = sizeof shared / sizeof *shared };

int qgc_arch_shared_bytes(int arch) {
    for (size_t i = 0; i < N_SHARED; i++)
        if (shared[i].arch == arch)
            return shared[i].kilobytes << 10;
    return 227 << 10;
}

int qgc_code_shared_bytes(const char *code) {
    qgc_arch arch;
    qgc_arch_read(code, &arch);
    int least = qgc_arch_shared_bytes(arch.number);
    for (size_t i = 0; i < N_SHARED && arch.ptx; i++)
        if (qgc_arch_fit(arch, shared[i].arch) != QGC_FIT_NONE && shared[i].kilobytes << 10 < least)
            least = shared[i].kilobytes << 10;
    return least;
}

static void set_arch(qgc_card *c, int arch) {
    enum { FIRST_WITH_BF16 = 80 };
    c->arch = arch;
    c->shared_bytes = qgc_arch_shared_bytes(arch);
    c->no_bf16 = arch < FIRST_WITH_BF16;
}

bool qgc_card_at(size_t i, qgc_card *out) {
    if (i >= N_ROWS)
        return false;
    *out = (qgc_card){.name = rows[i].name,
                      .product = rows[i].product,
                      .sms = rows[i].sms,
                      .bandwidth = (int64_t)rows[i].bandwidth * GIGA,
                      .l2_bytes = (int64_t)rows[i].l2 << 10,
                      .memory_bytes = (int64_t)rows[i].memory << 30};
    set_arch(out, rows[i].arch);
    return true;
}

bool qgc_card_of_product(const char *product, qgc_card *out) {
    size_t i = 0;
    while (qgc_card_at(i, out) && strcmp(out->product, product) != 0)
        i++;
    return i < N_ROWS;
}

const char *qgc_card_key(const qgc_card *card, qgc_arena *a) {
    qgc_card known;
    if (qgc_card_of_product(card->name, &known))
        return known.name;
    char *key = qgc_arena_strdup(a, card->name);
    for (char *c = key; *c; c++)
        if (!isalnum((unsigned char)*c))
            *c = '-';
        else
            *c = (char)tolower((unsigned char)*c);
    return key;
}

const char *qgc_card_code(const qgc_card *card, qgc_arena *a) {
    enum { FIRST_WITH_LETTER = 90 };
    if (card->ptx_only)
        return qgc_arena_printf(a, "compute_%d", card->arch);
    return qgc_arena_printf(a, "sm_%d%s", card->arch, card->arch >= FIRST_WITH_LETTER ? "a" : "");
}

/* --- what is written on a command line ------------------------------------------------------------------- */

static qgc_status no_such_card(const char *name, qgc_diag *d) {
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no card \"%s\" is known", name);
    const char *names[N_ROWS];
    qgc_str list = qgc_str_new(d->arena);
    for (size_t i = 0; i < N_ROWS; i++) {
        names[i] = rows[i].name;
        qgc_str_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    qgc_note(d, QGC_NO_LOC, "there are %s", list.text);
    const char *near = qgc_nearest(name, names, N_ROWS);
    if (near)
        qgc_hint(d, "Did you mean \"%s\"?", near);
    else
        qgc_hint(d, "Write another one out: arch=89,sms=64,smem=101376,bandwidth=500,memory=16.");
    return s;
}

static qgc_status read_name(const char *name, qgc_card *out, qgc_diag *d) {
    for (size_t i = 0; qgc_card_at(i, out); i++)
        if (strcmp(out->name, name) == 0)
            return QGC_OK;
    return no_such_card(name, d);
}

static qgc_status read_number(const char *key, const char *text, int64_t most, int64_t *out, qgc_diag *d) {
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (*text >= '0' && *text <= '9' && !*end && errno == 0 && value >= 1 && value <= most) {
        *out = value;
        return QGC_OK;
    }
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "%s of a card is \"%s\", expected a number from 1 to %lld",
                    key, text, (long long)most);
}

static qgc_status read_word(const char *key, const char *text, bool *out, qgc_diag *d) {
    *out = strcmp(text, "yes") == 0;
    if (*out || strcmp(text, "no") == 0)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "%s of a card is \"%s\", expected yes or no", key, text);
}

static void set_number(qgc_card *c, const char *key, int64_t value) {
    if (strcmp(key, "arch") == 0)
        set_arch(c, (int)value);
    else if (strcmp(key, "sms") == 0)
        c->sms = (int)value;
    else if (strcmp(key, "smem") == 0)
        c->shared_bytes = (int)value;
    else if (strcmp(key, "bandwidth") == 0)
        c->bandwidth = value * GIGA;
    else
        c->memory_bytes = value << 30;
}

static qgc_status read_pair(qgc_card *c, const char *key, const char *text, qgc_diag *d) {
    static const struct {
        const char *key;
        int64_t most;
    } numbers[] = {
        {"arch", 9999}, {"sms", 1024}, {"smem", 1 << 20}, {"bandwidth", 100000}, {"memory", 100000}};
    int64_t value = 0;
    bool yes = false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(key, numbers[i].key) == 0) {
            QGC_TRY(read_number(key, text, numbers[i].most, &value, d));
            set_number(c, key, value);
            return QGC_OK;
        }
    if (strcmp(key, "bf16") == 0) {
        QGC_TRY(read_word(key, text, &yes, d));
        c->no_bf16 = !yes;
        return QGC_OK;
    }
    if (strcmp(key, "ptx") == 0)
        return read_word(key, text, &c->ptx_only, d);
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "a card has no \"%s\"", key);
    qgc_hint(
        d,
        "It has arch, sms (multiprocessors), smem (bytes a block), bandwidth (GB/s), memory (GB), bf16 and ptx "
        "(yes or no).");
    return s;
}

qgc_status qgc_card_read(const char *text, qgc_card *out, qgc_diag *d) {
    *out = (qgc_card){0};
    char *rest = qgc_arena_strdup(d->arena, text);
    for (bool first = true; rest; first = false) {
        char *part = rest, *comma = strchr(part, ','), *equals;
        rest = comma ? comma + 1 : NULL;
        if (comma)
            *comma = 0;
        equals = strchr(part, '=');
        if (!equals && !first)
            return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "card \"%s\": \"%s\" has no value", text, part);
        if (equals)
            *equals = 0;
        QGC_TRY(equals ? read_pair(out, part, equals + 1, d) : read_name(part, out, d));
    }
    out->name = qgc_arena_strdup(d->arena, text);
    return QGC_OK;
}
