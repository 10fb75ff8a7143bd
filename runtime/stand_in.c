#include "runtime/stand_in.h"

#include <stdio.h>
#include <string.h>

static qgc_status has_less(const qgc_device_info *info, const char *what, int has, int wanted, qgc_diag *d) {
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                    "%s cannot stand in for that card: it has %s %d, the card %d", info->name, what, has,
                    wanted);
}

static void append(char *name, size_t room, const char *text) {
    const size_t at = strlen(name);
    snprintf(name + at, room - at, "%s", text);
}

qgc_status qgc_stand_in_info(qgc_device_info *info, const qgc_card *card, qgc_diag *d) {
    const int own = 10 * info->major + info->minor;
    const struct {
        const char *what;
        int has, wanted;
    } limits[] = {{"compute capability", own, card->arch},
                  {"multiprocessors", info->sms, card->sms},
                  {"bytes of shared memory a block", info->shared_bytes_max, card->shared_bytes}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].wanted > limits[i].has)
            return has_less(info, limits[i].what, limits[i].has, limits[i].wanted, d);
    if (card->sms)
        info->sms = card->sms;
    if (card->shared_bytes)
        info->shared_bytes_max = card->shared_bytes;
    info->newest_code = card->arch;
    info->ptx_only = card->ptx_only || (card->arch && card->arch != own);
    info->no_bf16 = info->no_bf16 || card->no_bf16;
    append(info->name, sizeof info->name, " as ");
    append(info->name, sizeof info->name, card->name);
    return QGC_OK;
}

qgc_status qgc_stand_in(qgc_device *dev, const char *card, qgc_diag *d) {
    if (!card)
        return QGC_OK;
    qgc_card read;
    qgc_device_info info = *qgc_device_about(dev);
    QGC_TRY(qgc_card_read(card, &read, d));
    QGC_TRY(qgc_stand_in_info(&info, &read, d));
    qgc_device_show(dev, &info);
    return QGC_OK;
}

qgc_card qgc_card_of_device(qgc_device *dev, qgc_arena *a) {
    const qgc_device_info *info = qgc_device_about(dev);
    qgc_card card = {.name = qgc_arena_strdup(a, info->name)}, known;
    if (qgc_card_of_product(info->name, &known)) {
        card.product = known.product;
        card.bandwidth = known.bandwidth;
    }
    card.arch = info->newest_code ? info->newest_code : 10 * info->major + info->minor;
    card.sms = info->sms;
    card.shared_bytes = info->shared_bytes_max;
    card.l2_bytes = (int64_t)info->l2_bytes;
    card.memory_bytes = (int64_t)info->total_bytes;
    card.no_bf16 = info->no_bf16;
    card.ptx_only = info->ptx_only;
    return card;
}

qgc_device_info qgc_info_of_card(const qgc_card *card) {
    qgc_device_info info = {.major = card->arch / 10,
                            .minor = card->arch % 10,
                            .sms = card->sms,
                            .total_bytes = (size_t)card->memory_bytes,
                            .free_bytes = (size_t)card->memory_bytes,
                            .l2_bytes = (size_t)card->l2_bytes,
                            .shared_bytes_max = card->shared_bytes,
                            .no_bf16 = card->no_bf16,
                            .ptx_only = card->ptx_only};
    append(info.name, sizeof info.name, card->name);
    return info;
}
