#include <jansson.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "runtime/cli/json.h"
#include "runtime/cli/talk.h"

enum { MOST_BYTES = 64 << 20 };

json_t *cli_talk_json(const cli_talk *t) {
    json_t *all = json_array();
    for (size_t i = 0; i < t->n; i++)
        json_array_append_new(
            all, json_pack("{s:s, s:s}", "role", t->messages[i].role, "content", t->messages[i].content));
    return all;
}

qgc_status cli_talk_save(const cli_talk *t, const char *path, qgc_diag *d) {
    return cli_write_json(path, json_pack("{s:o}", "messages", cli_talk_json(t)), d);
}

static bool is_role(const char *role) {
    return role &&
           (strcmp(role, "system") == 0 || strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0);
}

/* The messages of `all`, into an empty conversation. */
static qgc_status take_messages(cli_talk *t, const json_t *all, qgc_loc at, qgc_diag *d) {
    const json_t *list = json_object_get(all, "messages");
    if (!json_is_array(list))
        return qgc_fail(d, QGC_ERR_INPUT, at, "it is no conversation: there is no list \"messages\"");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *m = json_array_get(list, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        const char *content = json_string_value(json_object_get(m, "content"));
        if (!is_role(role) || !content)
            return qgc_fail(d, QGC_ERR_INPUT, at, "message %zu has no role and content that are known", i);
        cli_talk_add(t, role, content);
    }
    return QGC_OK;
}

qgc_status cli_talk_load(cli_talk *t, const char *path, qgc_diag *d) {
    qgc_source file;
    json_error_t error;
    QGC_TRY(qgc_file_read(&file, path, MOST_BYTES, "the conversation", d));
    file.name = path;
    json_t *all = json_loadb(file.text, file.bytes, 0, &error);
    if (!all) {
        const qgc_loc at = {.source = &file, .line = error.line, .col = error.column};
        return qgc_fail(d, QGC_ERR_INPUT, at, "it is no JSON: %s", error.text);
    }
    cli_talk loaded = *t;
    loaded.messages = NULL;
    loaded.n = 0;
    qgc_status status = take_messages(&loaded, all, (qgc_loc){.source = &file}, d);
    json_decref(all);
    if (status == QGC_OK)
        *t = loaded;
    return status;
}
