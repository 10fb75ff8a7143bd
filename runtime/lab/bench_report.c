#include <math.h>

#include "codegen/lower.h"
#include "runtime/engine/report.h"
#include "runtime/lab/bench.h"
#include "runtime/lab/chart.h"

static double floor_us(const qgc_bench *b, int64_t bytes) {
    return 1e6 * (double)bytes / b->bandwidth;
}

/* A step whose bytes fit several times into the L2 cache may be read from there. */
static bool flattered(const qgc_bench *b) {
    return b->n_rows > 0 && b->rows[0].bytes < 4 * (int64_t)b->l2_bytes;
}

/* --- tables ---------------------------------------------------------------------------------------------- */

static void put_head(const qgc_bench *b, qgc_str *out) {
    qgc_str_printf(out, "%s on %s, %s, CUDA driver %d.%d\n", b->model, b->device, b->arch, b->driver / 1000,
                   b->driver % 1000 / 10);
    qgc_str_printf(out, "reads %.0f GB/s, measured over %.1f GB\n", 1e-9 * b->bandwidth,
                   1e-9 * (double)b->probe_bytes);
    for (int m = 0; m < QGC_N_MODES; m++) {
        if (b->refusal[m])
            qgc_str_printf(out, "not in %s mode: %s\n", qgc_mode_name((qgc_mode)m), b->refusal[m]);
        else if (b->kernels[m])
            qgc_str_printf(out, "%s mode: %d kernels a step\n", qgc_mode_name((qgc_mode)m), b->kernels[m]);
    }
    if (b->probe & QGC_PROBE_NO_STREAM)
        qgc_str_add(
            out, "nothing is read: a step is the chain of exchanges and arithmetic, and computes nothing\n");
    if (b->probe & QGC_PROBE_NO_WAITS)
        qgc_str_add(out,
                    "nothing is waited for: a step is the stream and arithmetic, and computes nothing\n");
    if (flattered(b))
        qgc_str_printf(out, "a step reads %.1f MB, and the L2 cache holds %.1f MB: it flatters\n",
                       1e-6 * (double)b->rows[0].bytes, 1e-6 * (double)b->l2_bytes);
}

static void put_rows(const qgc_bench *b, qgc_str *out) {
    qgc_str_printf(out, "\n%-10s  %8s  %10s  %8s  %8s  %7s  %8s  %8s  %9s\n", "mode", "position",
                   "us a token", "10 %", "90 %", "tok/s", "GB", "floor us", "bandwidth");
    for (size_t i = 0; i < b->n_rows; i++) {
        const qgc_bench_row *r = &b->rows[i];
        qgc_str_printf(out, "%-10s  %8lld  %10.1f  %8.1f  %8.1f  %7.0f  %8.3f  %8.1f  %7.0f %%\n",
                       qgc_mode_name(r->mode), (long long)r->position, r->us, r->low_us, r->high_us,
                       1e6 / r->us, 1e-9 * (double)r->bytes, floor_us(b, r->bytes),
                       100 * floor_us(b, r->bytes) / r->us);
    }
}

static void put_texts(const qgc_bench *b, qgc_str *out) {
    if (b->generated > 0)
        qgc_str_printf(out, "\na text of %lld tokens, the host included\n", (long long)b->generated);
    for (int m = 0; m < QGC_N_MODES; m++)
        if (b->generate_us[m] > 0)
            qgc_str_printf(out, "%-10s  %.1f us a token, %.0f tok/s\n", qgc_mode_name((qgc_mode)m),
                           b->generate_us[m], 1e6 / b->generate_us[m]);
    for (int i = 0; i < QGC_BENCH_PROMPTS; i++) {
        const qgc_bench_prompt *p = &b->prompts[i];
        if (p->us > 0)
            qgc_str_printf(out, "%sprefill of %lld tokens: %.2f ms, %.0f tok/s\n", i ? "" : "\n",
                           (long long)p->tokens, 1e-3 * p->us, 1e6 * (double)p->tokens / p->us);
    }
}

static const char *how_timed(const qgc_bench *b, qgc_mode mode, qgc_arena *a) {
    if (!qgc_bench_in_order(mode))
        return "each by itself";
    return qgc_arena_printf(a, "what each adds to those before it, %d of %d started early, as in a step",
                            b->early[mode], b->kernels[mode]);
}

static void put_parts(const qgc_bench *b, qgc_str *out) {
    double us = 0, least = 0;
    for (size_t i = 0; i < b->n_parts; i++) {
        const qgc_bench_kernel *k = &b->parts[i];
        if (i == 0 || b->parts[i - 1].mode != k->mode) {
            qgc_str_printf(out, "\n%s mode, kernel by kernel, at position %lld: %s\n", qgc_mode_name(k->mode),
                           (long long)b->kernel_position, how_timed(b, k->mode, out->arena));
            qgc_str_printf(out, "%-14s  %-18s  %5s  %8s  %8s  %8s  %8s  %8s\n", "node", "kernel", "times",
                           "us each", "us", "MB", "floor us", "gap us");
            us = least = 0;
        }
        double floor = floor_us(b, k->bytes);
        us += k->us;
        least += floor;
        qgc_str_printf(out, "%-14s  %-18s  %5d  %8.2f  %8.1f  %8.1f  %8.1f  %8.1f\n", k->node, k->kernel,
                       k->count, k->us / k->count, k->us, 1e-6 * (double)k->bytes, floor, k->us - floor);
        if (i + 1 == b->n_parts || b->parts[i + 1].mode != k->mode)
            qgc_str_printf(out, "%-14s  %-18s  %5s  %8s  %8.1f  %8s  %8.1f  %8.1f\n", "all", "", "", "", us,
                           "", least, us - least);
    }
}

static void put_trace(const qgc_bench *b, qgc_str *out) {
    if (b->n_trace == 0)
        return;
    qgc_str_printf(
        out,
        "\npersistent mode, part by part, at position %lld; waits: for activations, and for weights\n"
        "%-14s  %8s  %8s  %8s  %8s  %11s  %8s\n",
        (long long)b->kernel_position, "part", "MB", "floor us", "us", "gap us", "activations", "weights");
    for (size_t i = 0; i < b->n_trace; i++) {
        const qgc_bench_part *p = &b->trace[i];
        double floor = floor_us(b, p->bytes);
        qgc_str_printf(out, "%-14s  %8.1f  %8.1f  %8.1f  %8.1f  %11.1f  %8.1f\n", p->name,
                       1e-6 * (double)p->bytes, floor, p->us, p->us - floor, p->activations_us,
                       p->weights_us);
    }
}

void qgc_bench_table(const qgc_bench *b, qgc_str *out) {
    put_head(b, out);
    put_rows(b, out);
    put_texts(b, out);
    put_parts(b, out);
    put_trace(b, out);
}

/* --- JSON ------------------------------------------------------------------------------------------------ */

static json_t *modes_json(const qgc_bench *b) {
    json_t *modes = json_array();
    for (int m = 0; m < QGC_N_MODES; m++)
        if (b->refusal[m] || b->kernels[m])
            json_array_append_new(modes, json_pack("{s:s, s:s?, s:i, s:i, s:o}", "mode",
                                                   qgc_mode_name((qgc_mode)m), "refused", b->refusal[m],
                                                   "kernels", b->kernels[m], "early", b->early[m],
                                                   "text_us_a_token", qgc_report_number(b->generate_us[m])));
    return modes;
}

static json_t *rows_json(const qgc_bench *b) {
    json_t *rows = json_array();
    for (size_t i = 0; i < b->n_rows; i++) {
        const qgc_bench_row *r = &b->rows[i];
        json_array_append_new(
            rows, json_pack("{s:s, s:I, s:o, s:o, s:o, s:I, s:o}", "mode", qgc_mode_name(r->mode), "position",
                            (json_int_t)r->position, "us", qgc_report_number(r->us), "us_10",
                            qgc_report_number(r->low_us), "us_90", qgc_report_number(r->high_us), "bytes",
                            (json_int_t)r->bytes, "floor_us", qgc_report_number(floor_us(b, r->bytes))));
    }
    return rows;
}

static json_t *parts_json(const qgc_bench *b) {
    json_t *parts = json_array();
    for (size_t i = 0; i < b->n_parts; i++) {
        const qgc_bench_kernel *k = &b->parts[i];
        json_array_append_new(
            parts, json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:I, s:o}", "mode", qgc_mode_name(k->mode),
                             "timed", qgc_bench_in_order(k->mode) ? "in order" : "alone", "name", k->node,
                             "kernel", k->kernel, "count", k->count, "us", qgc_report_number(k->us), "bytes",
                             (json_int_t)k->bytes, "floor_us", json_real(floor_us(b, k->bytes))));
    }
    return parts;
}

static json_t *trace_json(const qgc_bench *b) {
    json_t *trace = json_array();
    for (size_t i = 0; i < b->n_trace; i++) {
        const qgc_bench_part *p = &b->trace[i];
        json_array_append_new(
            trace, json_pack("{s:s, s:o, s:o, s:o, s:I, s:o}", "name", p->name, "us",
                             qgc_report_number(p->us), "activations_us", qgc_report_number(p->activations_us),
                             "weights_us", qgc_report_number(p->weights_us), "bytes", (json_int_t)p->bytes,
                             "floor_us", json_real(floor_us(b, p->bytes))));
    }
    return trace;
}

static json_t *prompts_json(const qgc_bench *b) {
    json_t *prompts = json_array();
    for (int i = 0; i < QGC_BENCH_PROMPTS; i++)
        if (b->prompts[i].us > 0)
            json_array_append_new(prompts, json_pack("{s:I, s:o}", "tokens", (json_int_t)b->prompts[i].tokens,
                                                     "us", qgc_report_number(b->prompts[i].us)));
    return prompts;
}

qgc_status qgc_bench_json(const qgc_bench *b, qgc_str *out, qgc_diag *d) {
    json_t *all = json_pack(
        "{s:s, s:s, s:b, s:b, s:s, s:i, s:o, s:I, s:o, s:o, s:I, s:o, s:I, s:o, s:o}", "model", b->model,
        "device", b->device, "streams", !(b->probe & QGC_PROBE_NO_STREAM), "waits",
        !(b->probe & QGC_PROBE_NO_WAITS), "arch", b->arch, "driver", b->driver, "bytes_per_second",
        qgc_report_number(b->bandwidth), "probe_bytes", (json_int_t)b->probe_bytes, "modes", modes_json(b),
        "steps", rows_json(b), "text_tokens", (json_int_t)b->generated, "prompts", prompts_json(b),
        "kernel_position", (json_int_t)b->kernel_position, "kernels", parts_json(b), "parts", trace_json(b));
    return qgc_report_json(all, out, d);
}

/* --- chart ----------------------------------------------------------------------------------------------- */

void qgc_bench_svg(const qgc_bench *b, qgc_str *out) {
    qgc_arena *a = out->arena;
    const char **labels = qgc_arena_array(a, b->n_rows, sizeof *labels);
    qgc_chart_bar *bars = qgc_arena_array(a, 2 * b->n_rows, sizeof *bars);
    for (size_t i = 0; i < b->n_rows; i++) {
        const qgc_bench_row *r = &b->rows[i];
        labels[i] = qgc_arena_printf(a, "%s, %lld", qgc_mode_name(r->mode), (long long)r->position);
        bars[2 * i] = (qgc_chart_bar){r->us, r->low_us, r->high_us};
        bars[2 * i + 1] = (qgc_chart_bar){floor_us(b, r->bytes), NAN, NAN};
    }
    const qgc_chart chart = {
        .title = qgc_arena_printf(a, "A decode step of %s", b->model),
        .subtitle = qgc_arena_printf(
            a, "%s, %s, reads %.0f GB/s; by mode and position, 10th to 90th percentile of rounds", b->device,
            b->arch, 1e-9 * b->bandwidth),
        .axis = "microseconds a token",
        .series = {"measured", "floor: bytes over bandwidth"},
        .n_series = 2,
        .labels = labels,
        .bars = bars,
        .n_rows = b->n_rows,
    };
    qgc_chart_svg(&chart, out);
}
