#include <stdio.h>
#include <string.h>

#include "codegen/artifact.h"
#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "runtime/cli/json.h"
#include "runtime/engine/forecast.h"
#include "runtime/lab/probe.h"
#include "runtime/stand_in.h"

/* qgc devices: the GPUs that are here, or the cards that are known, and what artifacts would do on each. */

typedef struct {
    bool known, measure;
    const char *json;
} devices_options;

/* One GPU or card, and where its bandwidth is from. */
typedef struct {
    const char *name;   /* "gpu:0 NVIDIA H100 80GB HBM3", "rtx-4090" */
    const char *driver; /* "13.0"; NULL: a card of the table */
    const char *source; /* of the bandwidth */
    qgc_device_info info;
    qgc_card card;
} found;

typedef struct {
    cli_context *c;
    const devices_options *o;
    const qgc_plan **plans;
    const char **paths;
    int n_plans;
    qgc_str text;
    json_t *all;
} listing;

static json_t *found_json(const listing *l, const found *f) {
    json_t *artifacts = json_object();
    for (int i = 0; i < l->n_plans; i++) {
        const qgc_forecast forecast = qgc_forecast_of(l->plans[i], &f->info, &f->card, l->c->arena);
        json_object_set_new(artifacts, qgc_printable(l->c->arena, l->paths[i]), qgc_forecast_json(&forecast));
    }
    return json_pack("{s:s, s:s?, s:i, s:i, s:i, s:I, s:s, s:I, s:o}", "name", f->name, "cuda", f->driver,
                     "arch", f->card.arch, "multiprocessors", f->card.sms, "shared_bytes",
                     f->card.shared_bytes, "bandwidth", (json_int_t)f->card.bandwidth, "bandwidth_from",
                     f->source, "memory_bytes", (json_int_t)f->card.memory_bytes, "artifacts", artifacts);
}

/* "  tiny.qgc   sm_90a: stream, graph; not persistent: ..." */
static void add_artifact(listing *l, const found *f, int i) {
    const qgc_forecast forecast = qgc_forecast_of(l->plans[i], &f->info, &f->card, l->c->arena);
    qgc_str_printf(&l->text, "  %s: ", l->paths[i]);
    if (forecast.image.arch < 0)
        qgc_str_printf(&l->text, "no image runs there; compiled for %s:", forecast.arch);
    else
        qgc_str_printf(&l->text, "image %s:", forecast.arch);
    for (int m = 0, n = 0; m < QGC_N_MODES; m++)
        if (!forecast.refusal[m])
            qgc_str_printf(&l->text, "%s %s", n++ ? "," : "", qgc_mode_name((qgc_mode)m));
    qgc_str_add(&l->text, "\n");
    for (int m = 0; m < QGC_N_MODES; m++)
        if (forecast.refusal[m])
            qgc_str_printf(&l->text, "    not %s: %s\n", qgc_mode_name((qgc_mode)m), forecast.refusal[m]);
}

static void add_found(listing *l, const found *f) {
    json_array_append_new(l->all, found_json(l, f));
    qgc_str_printf(&l->text, "%s: %s%s%s", f->name, qgc_card_text(&f->card, l->c->arena),
                   f->driver ? ", driver of CUDA " : "", f->driver ? f->driver : "");
    qgc_str_printf(&l->text, "%s%s\n", f->card.bandwidth > 0 ? "; bandwidth " : "",
                   f->card.bandwidth > 0 ? f->source : "");
    for (int i = 0; i < l->n_plans; i++)
        add_artifact(l, f, i);
}

static qgc_status add_gpu(listing *l, qgc_device *dev, int index) {
    qgc_arena *a = l->c->arena;
    found f = {
        .source = "by its data sheet", .info = *qgc_device_about(dev), .card = qgc_card_of_device(dev, a)};
    f.name = qgc_arena_printf(a, "gpu:%d %s", index, f.card.name);
    f.driver = qgc_arena_printf(a, "%d.%d", f.info.driver_version / 1000, f.info.driver_version % 1000 / 10);
    if (l->o->measure) {
        double bandwidth;
        int64_t bytes;
        QGC_TRY(qgc_probe_bandwidth(dev, qgc_card_code(&f.card, a), &bandwidth, &bytes, l->c->diag));
        f.card.bandwidth = (int64_t)bandwidth;
        f.source = "measured";
    }
    add_found(l, &f);
    return QGC_OK;
}

static qgc_status add_gpus(listing *l) {
    const int n = qgc_device_count();
    qgc_status status = QGC_OK;
    for (int i = 0; i < n && status == QGC_OK; i++) {
        qgc_device *dev;
        QGC_TRY(qgc_device_open(&dev, i, l->c->diag));
        status = add_gpu(l, dev, i);
        qgc_device_close(dev);
    }
    if (n == 0) {
        qgc_diag why = qgc_diag_new(l->c->arena);
        qgc_device *dev;
        if (qgc_device_open(&dev, 0, &why) == QGC_OK)
            qgc_device_close(dev);
        qgc_str_printf(&l->text, "no GPU: %s\n", qgc_diag_message(&why));
    }
    return status;
}

static void add_cards(listing *l) {
    qgc_card card;
    for (size_t i = 0; qgc_card_at(i, &card); i++)
        add_found(l, &(found){.name = card.name,
                              .source = "by its data sheet",
                              .info = qgc_info_of_card(&card),
                              .card = card});
}

static qgc_status list(listing *l) {
    if (l->o->known)
        add_cards(l);
    else
        QGC_TRY(add_gpus(l));
    if (l->o->json)
        QGC_TRY(cli_write_json(l->o->json, json_incref(l->all), l->c->diag));
    if (cli_wants_text(l->o->json))
        cli_print_report(&l->text, stdout);
    return QGC_OK;
}

/* Plans keep pointing into the files that they are read from. */
static qgc_status open_plans(listing *l, qgc_file *files) {
    for (int i = 0; i < l->n_plans; i++) {
        qgc_plan *plan;
        QGC_TRY(qgc_file_open(&files[i], l->paths[i], l->c->diag));
        QGC_TRY(qgc_artifact_unpack(&plan, files[i].data, files[i].bytes,
                                    (qgc_loc){.source = &files[i].source}, l->c->diag));
        l->plans[i] = plan;
    }
    return QGC_OK;
}

static qgc_status run(cli_context *c, const devices_options *o, const cli_line *line) {
    const size_t n = (size_t)line->n;
    qgc_file *files = qgc_arena_array(c->arena, n + 1, sizeof *files);
    listing l = {.c = c,
                 .o = o,
                 .paths = line->arguments,
                 .n_plans = line->n,
                 .plans = qgc_arena_array(c->arena, n + 1, sizeof *l.plans),
                 .text = qgc_str_new(c->arena),
                 .all = json_array()};
    qgc_status status = open_plans(&l, files);
    if (status == QGC_OK)
        status = list(&l);
    json_decref(l.all);
    for (size_t i = 0; i < n; i++)
        qgc_file_close(&files[i]);
    return status;
}

qgc_status cmd_devices(cli_context *c, int argc, char **argv) {
    devices_options o = {0};
    const cli_option options[] = {
        {"known", 0, OPTION_FLAG, &o.known, NULL,
         "the cards of the table instead, which --on and --card take", 0, 0},
        {"measure", 0, OPTION_FLAG, &o.measure, NULL, "measure how fast each GPU reads its memory", 0, 0},
        CLI_JSON_OPTION(o.json),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "devices",
        .arguments = "[ARTIFACT.qgc]...",
        .summary = "Lists the GPUs that are here, and in which modes each could run the artifacts.",
        .options = options,
        .max_arguments = 64,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    return line.help ? QGC_OK : run(c, &o, &line);
}
