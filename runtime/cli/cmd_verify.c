#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "runtime/cli/json.h"
#include "runtime/engine/receipt.h"

/* qgc verify: makes the text of a receipt again, and says what differs. */

typedef struct {
    qgc_engine_options engine;
    const char *json;
} verify_options;

/* "driver is CUDA 13.0 here, CUDA 12.8 in the receipt" for each link that differs. */
static void add_links(const qgc_receipt *was, const qgc_receipt *is, qgc_str *out) {
    const qgc_link first = qgc_receipt_link(was, is);
    for (int i = (int)first; i < QGC_N_LINKS; i++)
        if (strcmp(was->links[i], is->links[i]) != 0)
            qgc_str_printf(out, "%s%s is %s here, %s in the receipt\n",
                           i == (int)first ? "first in the chain: " : "", qgc_link_name((qgc_link)i),
                           is->links[i], was->links[i]);
    if (first == QGC_N_LINKS)
        qgc_str_add(out, "the chain is the same\n");
}

static void add_tokens(const qgc_receipt *was, const qgc_receipt *is, qgc_str *out) {
    const int64_t at = qgc_receipt_token(was, is);
    if (at < 0)
        qgc_str_printf(out, "all %zu tokens are the same\n", was->n_ids);
    else
        qgc_str_printf(out, "token %lld of %zu is %d here, %d in the receipt\n", (long long)at + 1,
                       was->n_ids, (int)is->ids[at], (int)was->ids[at]);
}

static json_t *verify_json(const qgc_receipt *was, const qgc_receipt *is) {
    const qgc_link first = qgc_receipt_link(was, is);
    const int64_t at = qgc_receipt_token(was, is);
    json_t *differs = json_array();
    for (int i = 0; i < QGC_N_LINKS; i++)
        if (strcmp(was->links[i], is->links[i]) != 0)
            json_array_append_new(differs, json_pack("{s:s, s:s, s:s}", "link", qgc_link_name((qgc_link)i),
                                                     "receipt", was->links[i], "here", is->links[i]));
    return json_pack("{s:b, s:I, s:o, s:s?, s:o}", "same", at < 0, "tokens", (json_int_t)was->n_ids,
                     "first_token", at < 0 ? json_null() : json_integer(at), "first_link",
                     first == QGC_N_LINKS ? NULL : qgc_link_name(first), "differs", differs);
}

static qgc_status report(const qgc_receipt *was, const qgc_receipt *is, const verify_options *o,
                         cli_context *c) {
    if (o->json)
        QGC_TRY(cli_write_json(o->json, verify_json(was, is), c->diag));
    if (cli_wants_text(o->json)) {
        qgc_str text = qgc_str_new(c->arena);
        add_links(was, is, &text);
        add_tokens(was, is, &text);
        cli_print_report(&text, stdout);
    }
    const qgc_link first = qgc_receipt_link(was, is);
    if (qgc_receipt_token(was, is) < 0)
        return QGC_OK;
    if (first == QGC_N_LINKS)
        return qgc_fail(
            c->diag, QGC_ERR_INPUT, QGC_NO_LOC,
            "the tokens are not those of the receipt, though everything in its chain is the same");
    return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "the tokens are not those of the receipt; %s differs",
                    qgc_link_name(first));
}

static qgc_status verify(const char *path, verify_options *o, cli_context *c) {
    qgc_receipt was, is;
    qgc_engine *e = NULL;
    cli_progress progress = {0};
    QGC_TRY(qgc_receipt_read(&was, path, c->diag));
    o->engine.listener = cli_listener(&progress, c->quiet);
    qgc_status s = qgc_receipt_open(&e, &was, &o->engine, c->diag);
    if (s == QGC_OK)
        s = qgc_receipt_again(&was, e, &is, c->diag);
    cli_progress_clear(&progress);
    if (s == QGC_OK)
        s = report(&was, &is, o, c);
    qgc_engine_close(e);
    return s;
}

qgc_status cmd_verify(cli_context *c, int argc, char **argv) {
    verify_options o = {0};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.engine.weights, "PATH", "where they are now", 0, 0},
        {"model", 0, OPTION_TEXT, &o.engine.path, "FILE", "where the artifact or the graph is now", 0, 0},
        {"device", 0, OPTION_TEXT, &o.engine.device, "auto|gpu|gpu:N|cpu",
         "another one than that of the receipt", 0, 0},
        CLI_THREADS_OPTION(o.engine.threads),
        {"cache", 0, OPTION_TEXT, &o.engine.cache_folder, "DIR", "of compiled kernels, if it is of a graph",
         0, 0},
        CLI_ALLOW_UNUSED_OPTION(o.engine.allow_unused),
        CLI_JSON_OPTION(o.json),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "verify",
        .arguments = "RECEIPT.json",
        .summary = "Makes the text of a receipt (qgc run --receipt) again, and says what differs.",
        .details =
            "The first token that differs, and the first link of the chain that led to it: qgc, graph, pipeline,\n"
            "images, weights, driver, card, mode, settings, prompt. Exit code 1 where the tokens differ.",
        .options = options,
    };
    const char *path;
    QGC_TRY(cli_parse_one(command, argc, argv, &path, c->diag));
    return !path ? QGC_OK : verify(path, &o, c);
}
