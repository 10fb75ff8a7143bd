#include "runtime/engine/forecast.h"

#include "runtime/stand_in.h"

enum { POSITION = 512, CTX = 4096, SPARE = 1 << 29 /* cuBLAS's workspace, the driver, a display */ };

static qgc_phase_kind phase_of(qgc_mode mode) {
    return mode == QGC_MODE_PERSISTENT ? QGC_PHASE_PERSISTENT : QGC_PHASE_DECODE;
}

static int64_t within(const qgc_plan *plan, int64_t positions) {
    return plan->max_positions > 0 && plan->max_positions < positions ? plan->max_positions : positions;
}

static int64_t memory_of(const qgc_plan *plan, qgc_mode mode, int64_t ctx, qgc_arena *a) {
    const qgc_plan_memory_use m = qgc_plan_memory_of(plan, mode == QGC_MODE_PERSISTENT, ctx, a);
    const int64_t parts[] = {m.weights,  m.stream,  m.staging,   m.states, m.tables,
                             m.exchange, m.scratch, m.interface, SPARE};
    int64_t bytes = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!qgc_extent_add(&bytes, &(qgc_extent){.fixed = parts[i]}, &(qgc_sizes){0}))
            return (int64_t)1 << 62;
    return bytes;
}

static const char *too_large(const qgc_forecast *f, qgc_mode mode, qgc_arena *a) {
    const int64_t needs = f->memory_bytes[mode], has = f->card.memory_bytes;
    if (has == 0 || needs <= has)
        return NULL;
    return qgc_arena_printf(a, "at %lld positions it needs %s, %s has %s", (long long)f->ctx,
                            qgc_str_of_bytes((size_t)needs, a), f->card.name,
                            qgc_str_of_bytes((size_t)has, a));
}

static void forecast_mode(qgc_forecast *f, const qgc_plan *plan, qgc_mode mode, const qgc_device_info *about,
                          qgc_arena *a) {
    f->refusal[mode] = qgc_mode_refusal_with(plan, mode, f->arch, about, a);
    f->step_bytes[mode] = qgc_plan_step_bytes(plan, phase_of(mode), f->position);
    f->memory_bytes[mode] = memory_of(plan, mode, f->ctx, a);
    if (f->card.bandwidth > 0)
        f->floor_us[mode] = 1e6 * (double)f->step_bytes[mode] / (double)f->card.bandwidth;
    if (!f->refusal[mode])
        f->refusal[mode] = too_large(f, mode, a);
}

qgc_forecast qgc_forecast_of(const qgc_plan *plan, const qgc_device_info *about, const qgc_card *card,
                             qgc_arena *a) {
    qgc_forecast f = {.card = *card,
                      .image = qgc_image_best(plan, about),
                      .position = within(plan, POSITION),
                      .ctx = within(plan, CTX)};
    f.arch = f.image.arch >= 0 ? plan->archs[f.image.arch] : qgc_card_code(card, a);
    for (int m = 0; m < QGC_N_MODES; m++)
        forecast_mode(&f, plan, (qgc_mode)m, about, a);
    return f;
}

qgc_status qgc_forecast_on(const qgc_plan *plan, const char *card, qgc_forecast *out, qgc_diag *d) {
    qgc_card read;
    *out = (qgc_forecast){0};
    QGC_TRY(qgc_card_read(card, &read, d));
    if (!read.arch || !read.sms) {
        qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "card \"%s\" does not say %s", card,
                                read.arch ? "how many multiprocessors it has" : "its architecture");
        qgc_hint(d, "Begin with a card of the table, or add %s.", read.arch ? "sms=64" : "arch=89");
        return s;
    }
    const qgc_device_info about = qgc_info_of_card(&read);
    *out = qgc_forecast_of(plan, &about, &read, d->arena);
    return QGC_OK;
}

const char *qgc_card_text(const qgc_card *card, qgc_arena *a) {
    qgc_str s = qgc_str_new(a);
    qgc_str_printf(&s, "sm_%d, %d multiprocessors, %d bytes of shared memory a block", card->arch, card->sms,
                   card->shared_bytes);
    if (card->bandwidth > 0)
        qgc_str_printf(&s, ", %.0f GB/s", 1e-9 * (double)card->bandwidth);
    if (card->memory_bytes > 0)
        qgc_str_printf(&s, ", %s", qgc_str_of_bytes((size_t)card->memory_bytes, a));
    if (card->no_bf16)
        qgc_str_add(&s, ", no products of bf16 matrices");
    return s.text;
}

static void image_line(const qgc_forecast *f, qgc_str *out) {
    if (f->image.arch >= 0)
        qgc_str_printf(out, "image      %s: %s\n", f->arch, qgc_fit_text(f->image.fit));
    else
        qgc_str_printf(out, "image      none runs there; compile for %s, for which the following is\n",
                       f->arch);
}

static void mode_lines(const qgc_forecast *f, qgc_str *out) {
    qgc_str_add(out, "modes     ");
    int n = 0;
    for (int m = 0; m < QGC_N_MODES; m++)
        if (!f->refusal[m])
            qgc_str_printf(out, "%s %s", n++ ? "," : "", qgc_mode_name((qgc_mode)m));
    qgc_str_add(out, n ? "\n" : " none\n");
    for (int m = 0; m < QGC_N_MODES; m++)
        if (f->refusal[m])
            qgc_str_printf(out, "             not %s: %s\n", qgc_mode_name((qgc_mode)m), f->refusal[m]);
}

/* Of modes that run, those that read the same have one line. */
static void floor_lines(const qgc_forecast *f, qgc_str *out) {
    for (int m = 0; m < QGC_N_MODES; m++) {
        bool said = false;
        for (int k = 0; k < m; k++)
            said = said || (!f->refusal[k] && f->step_bytes[k] == f->step_bytes[m] &&
                            f->memory_bytes[k] == f->memory_bytes[m]);
        if (said || f->refusal[m])
            continue;
        qgc_str_printf(out, "floor      ");
        if (f->floor_us[m] > 0)
            qgc_str_printf(out, "%.1f us a step, ", f->floor_us[m]);
        const bool cached = f->step_bytes[m] <= f->card.l2_bytes;
        qgc_str_printf(out, "%s read at position %lld%s; %s of memory at %lld positions (%s)\n",
                       qgc_str_of_bytes((size_t)f->step_bytes[m], out->arena), (long long)f->position,
                       cached ? " (less where they stay in L2, which has room for them)" : "",
                       qgc_str_of_bytes((size_t)f->memory_bytes[m], out->arena), (long long)f->ctx,
                       qgc_mode_name((qgc_mode)m));
    }
}

void qgc_forecast_text(const qgc_forecast *f, qgc_str *out) {
    qgc_str_printf(out, "on         %s: %s\n", f->card.name, qgc_card_text(&f->card, out->arena));
    image_line(f, out);
    mode_lines(f, out);
    floor_lines(f, out);
    qgc_str_printf(out, "prompt     in %s\n", f->card.no_bf16 ? "decode steps" : "chunks");
}

json_t *qgc_forecast_json(const qgc_forecast *f) {
    json_t *modes = json_object();
    for (int m = 0; m < QGC_N_MODES; m++)
        json_object_set_new(modes, qgc_mode_name((qgc_mode)m),
                            json_pack("{s:s?, s:I, s:f, s:I}", "refusal", f->refusal[m], "step_bytes",
                                      (json_int_t)f->step_bytes[m], "floor_us", f->floor_us[m],
                                      "memory_bytes", (json_int_t)f->memory_bytes[m]));
    return json_pack("{s:s, s:i, s:i, s:i, s:I, s:I, s:b, s:s?, s:s, s:I, s:I, s:o}", "card", f->card.name,
                     "arch", f->card.arch, "multiprocessors", f->card.sms, "shared_bytes",
                     f->card.shared_bytes, "bandwidth", (json_int_t)f->card.bandwidth, "memory_bytes",
                     (json_int_t)f->card.memory_bytes, "bf16", !f->card.no_bf16, "image",
                     f->image.arch >= 0 ? f->arch : NULL, "code", f->arch, "position",
                     (json_int_t)f->position, "ctx", (json_int_t)f->ctx, "modes", modes);
}
