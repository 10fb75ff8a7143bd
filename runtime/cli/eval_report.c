#include "runtime/cli/eval_report.h"

#include <math.h>
#include <string.h>

#include "runtime/engine/report.h"

static void put_model(qgc_str *out, const char *model, const char *weights, const char *device,
                      const char *how) {
    qgc_str_printf(out, "%s, weights %s, %s", model, weights, device);
    if (strcmp(how, "cpu") != 0)
        qgc_str_printf(out, ", %s", how);
    qgc_str_add(out, "\n");
}

static void put_counts(qgc_str *out, const qgc_evaluation *x) {
    qgc_str_printf(out, "%lld %s, %lld tokens; %lld %s of %lld, ", (long long)x->texts,
                   x->texts == 1 ? "text" : "texts", (long long)x->tokens, (long long)x->windows,
                   x->windows == 1 ? "window" : "windows", (long long)x->ctx);
    if (x->stride)
        qgc_str_printf(out, "each %lld after the one before: ", (long long)x->stride);
    else
        qgc_str_add(out, "of which the second half counts: ");
    qgc_str_printf(out, "%lld tokens count, %lld at ends of texts are left out\n", (long long)x->counted,
                   (long long)x->left_out);
}

/* The token between arrows of its line: what is before it, then the token in quotes. */
static void put_worst(qgc_str *out, const qgc_evaluation *x, const eval_heading *h) {
    const qgc_evaluate_place *w = &x->worst;
    qgc_str line = qgc_str_new(out->arena);
    qgc_str_add_bytes(&line, w->before, w->before_bytes);
    qgc_str_add(&line, "\" -> \"");
    qgc_str_add_bytes(&line, w->piece, w->piece_bytes);
    for (char *c = line.text; (c = strpbrk(c, "\n\t")) != NULL;)
        *c = ' ';
    qgc_str_printf(out, "largest KL     at token %lld of %s: \"%s\"\n", (long long)w->at,
                   h->texts[w->text].name, line.text);
}

static void put_comparison(qgc_str *out, const qgc_evaluation *x, const eval_heading *h) {
    qgc_arena *a = out->arena;
    const qgc_drift *drift = &x->drift;
    qgc_str_add(out, "\nagainst ");
    put_model(out, h->against, h->against_weights, h->against_device, x->against_how);
    qgc_str_printf(out, "perplexity     %.6g there (%+.3g %% here)\n", x->against_perplexity,
                   100 * (x->perplexity / x->against_perplexity - 1));
    qgc_str_printf(out, "KL divergence  %s mean, %s 99.9th percentile, %s largest (nats)\n",
                   qgc_report_small(qgc_drift_kl(drift), a), qgc_report_small(x->kl_999, a),
                   qgc_report_small(drift->kl_max, a));
    qgc_str_printf(out, "logits         %s largest drift, %s RMS drift\n",
                   qgc_report_small(drift->max_drift, a), qgc_report_small(qgc_drift_rms(drift), a));
    qgc_str_printf(out, "flips          %lld (%.3g %%), of which near ties %lld\n", (long long)drift->flips,
                   100 * (double)drift->flips / (double)drift->positions, (long long)x->near_ties);
    put_worst(out, x, h);
}

void eval_report_text(const qgc_evaluation *x, const eval_heading *h, qgc_str *out) {
    put_model(out, h->model, h->weights, h->device, x->how);
    put_counts(out, x);
    qgc_str_printf(out, "perplexity     %.6g\n", x->perplexity);
    qgc_str_printf(out, "loss           %.6g nats a token", x->loss);
    if (isfinite(x->loss_error))
        qgc_str_printf(out, ", standard error %.2g", x->loss_error);
    qgc_str_add(out, "\n");
    if (h->against)
        put_comparison(out, x, h);
}

static json_t *model_json(const char *model, const char *weights, const char *device, const char *how) {
    return json_pack("{s:s, s:s, s:s, s:s}", "model", model, "weights", weights, "device", device, "how",
                     how);
}

static json_t *worst_json(const qgc_evaluation *x, const eval_heading *h, qgc_arena *a) {
    const qgc_evaluate_place *w = &x->worst;
    return json_pack("{s:s, s:I, s:i, s:o, s:o}", "text", h->texts[w->text].name, "at", (json_int_t)w->at,
                     "token", (int)w->token, "piece", cli_json_text(w->piece, w->piece_bytes, a), "before",
                     cli_json_text(w->before, w->before_bytes, a));
}

static json_t *comparison_json(const qgc_evaluation *x, const eval_heading *h, qgc_arena *a) {
    const qgc_drift *drift = &x->drift;
    if (!h->against)
        return json_null();
    json_t *kl = json_pack("{s:o, s:o, s:o}", "mean", qgc_report_number(qgc_drift_kl(drift)), "p999",
                           qgc_report_number(x->kl_999), "max", qgc_report_number(drift->kl_max));
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o}", "with",
                     model_json(h->against, h->against_weights, h->against_device, x->against_how),
                     "perplexity", qgc_report_number(x->against_perplexity), "loss",
                     qgc_report_number(x->against_loss), "kl", kl, "max_drift",
                     qgc_report_number(drift->max_drift), "rms_drift",
                     qgc_report_number(qgc_drift_rms(drift)), "flips", (json_int_t)drift->flips, "near_ties",
                     (json_int_t)x->near_ties, "largest_kl", worst_json(x, h, a));
}

json_t *eval_report_json(const qgc_evaluation *x, const eval_heading *h, qgc_arena *a) {
    return json_pack("{s:o, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "evaluated",
                     model_json(h->model, h->weights, h->device, x->how), "ctx", (json_int_t)x->ctx, "stride",
                     x->stride ? json_integer(x->stride) : json_null(), "texts", (json_int_t)x->texts,
                     "tokens", (json_int_t)x->tokens, "windows", (json_int_t)x->windows, "counted",
                     (json_int_t)x->counted, "left_out", (json_int_t)x->left_out, "perplexity",
                     qgc_report_number(x->perplexity), "loss", qgc_report_number(x->loss), "loss_error",
                     qgc_report_number(x->loss_error), "tokens_per_second",
                     qgc_report_number(h->tokens_per_second), "against", comparison_json(x, h, a));
}
