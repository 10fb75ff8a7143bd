#include "graph/yaml.h"

#include <stdint.h>
#include <string.h>

#include <yaml.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"

/* The open lists and mappings stand on a stack of fixed depth, so nothing recurses on the input. */
typedef struct {
    qgc_arena *arena;
    qgc_diag *d;
    const qgc_source *source; /* of places; without a text where that is not to be shown */
    const qgc_source *text;
    qgc_yaml *open[QGC_YAML_MAX_DEPTH];
    qgc_yaml *key[QGC_YAML_MAX_DEPTH]; /* of an open mapping: read, and its value still to come */
    int depth;
    qgc_yaml *root;
} reader;

qgc_yaml *qgc_yaml_get(const qgc_yaml *map, const char *key) {
    return qgc_map_get(&map->index, key);
}

bool qgc_yaml_is_null(const qgc_yaml *node) {
    return node->kind == QGC_YAML_SCALAR && !node->quoted && strcmp(node->text, "null") == 0;
}

const char *qgc_yaml_kind_name(const qgc_yaml *node) {
    switch (node->kind) {
    case QGC_YAML_LIST:
        return "a list";
    case QGC_YAML_MAP:
        return "a mapping";
    case QGC_YAML_SCALAR:
        break;
    }
    return node->text[0] || node->quoted ? "a scalar" : "empty";
}

static qgc_yaml *new_node(qgc_arena *a, qgc_yaml_kind kind, qgc_loc at) {
    qgc_yaml *node = qgc_arena_alloc(a, sizeof *node);
    *node = (qgc_yaml){.kind = kind, .at = at, .index = qgc_map_new(a)};
    return node;
}

qgc_yaml *qgc_yaml_new_map(qgc_arena *a, qgc_loc at) {
    return new_node(a, QGC_YAML_MAP, at);
}

static void append(qgc_arena *a, qgc_yaml *node, qgc_yaml *key, qgc_yaml *item) {
    if (key) {
        node->keys = qgc_arena_grow(a, node->keys, node->n, sizeof(qgc_yaml *));
        node->keys[node->n] = key;
    }
    node->items = qgc_arena_grow(a, node->items, node->n, sizeof(qgc_yaml *));
    node->items[node->n++] = item;
}

bool qgc_yaml_put(qgc_arena *a, qgc_yaml *map, qgc_yaml *key, qgc_yaml *value) {
    if (!qgc_map_put(&map->index, key->text, value))
        return false;
    append(a, map, key, value);
    return true;
}

static qgc_loc loc_at(const reader *r, yaml_mark_t mark) {
    return (qgc_loc){r->source, (int)mark.line + 1, (int)mark.column + 1};
}

static qgc_loc loc_of_byte(const reader *r, size_t offset) {
    qgc_loc at = {r->source, 1, 1};
    for (size_t i = 0; i < offset && i < r->text->bytes; i++) {
        unsigned char c = (unsigned char)r->text->text[i];
        if (c == '\n') {
            at.line++;
            at.col = 1;
        } else if ((c & 0xC0) != 0x80)
            at.col++;
    }
    return at;
}

/* What libyaml would report without a place, or not at all. */
static qgc_status check_bytes(const reader *r) {
    const qgc_source *source = r->text;
    qgc_loc whole = {.source = r->source};
    qgc_diag *d = r->d;
    if (source->bytes > QGC_YAML_MAX_BYTES)
        return qgc_fail(d, QGC_ERR_INPUT, whole, "file is %zu bytes long, expected %d at most", source->bytes,
                        QGC_YAML_MAX_BYTES);
    const char *zero = source->bytes ? memchr(source->text, 0, source->bytes) : NULL;
    if (zero)
        return qgc_fail(d, QGC_ERR_INPUT, whole, "file is binary (byte %zu is zero), expected YAML text",
                        (size_t)(zero - source->text));
    const size_t valid = qgc_utf8_check(source->text, source->bytes);
    if (valid < source->bytes)
        return qgc_fail(d, QGC_ERR_INPUT, loc_of_byte(r, valid), "text is not valid UTF-8 (byte 0x%02x)",
                        (unsigned char)source->text[valid]);
    return QGC_OK;
}

/* The place of a tab among the blanks that a line starts with; line 0 if there is none. */
static qgc_loc find_indenting_tab(const reader *r, int line) {
    const char *p = r->text->text, *end = p + r->text->bytes;
    for (int i = 1; i < line && p < end; i++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        p = newline ? newline + 1 : end;
    }
    for (int col = 1; p < end && (*p == ' ' || *p == '\t'); p++, col++)
        if (*p == '\t')
            return (qgc_loc){r->source, line, col};
    return QGC_NO_LOC;
}

static qgc_status syntax_error(const reader *r, const yaml_parser_t *parser) {
    const char *problem = parser->problem ? parser->problem : "unknown problem";
    if (parser->error == YAML_READER_ERROR)
        return qgc_fail(r->d, QGC_ERR_INPUT, loc_of_byte(r, parser->problem_offset), "not valid YAML: %s",
                        problem);
    qgc_loc at = loc_at(r, parser->problem_mark);
    qgc_loc tab = find_indenting_tab(r, at.line);
    if (tab.line) {
        qgc_status s = qgc_fail(r->d, QGC_ERR_INPUT, tab, "line is indented with a tab");
        qgc_hint(r->d, "YAML is indented with spaces only.");
        return s;
    }
    qgc_status s = qgc_fail(r->d, QGC_ERR_INPUT, at, "not valid YAML: %s", problem);
    if (parser->context)
        qgc_note(r->d, loc_at(r, parser->context_mark), "%s", parser->context);
    return s;
}

/* Puts a finished scalar, or a list or mapping that was just opened, into what it stands in. */
static qgc_status place(reader *r, qgc_yaml *node) {
    if (r->depth == 0) {
        r->root = node;
        return QGC_OK;
    }
    qgc_yaml *in = r->open[r->depth - 1];
    if (in->kind == QGC_YAML_LIST) {
        append(r->arena, in, NULL, node);
        return QGC_OK;
    }
    qgc_yaml **key = &r->key[r->depth - 1];
    if (!*key) {
        if (node->kind != QGC_YAML_SCALAR)
            return qgc_fail(r->d, QGC_ERR_INPUT, node->at, "key of a mapping is %s, expected a scalar",
                            qgc_yaml_kind_name(node));
        for (size_t i = 0; qgc_yaml_get(in, node->text) && i < in->n; i++) {
            if (strcmp(in->keys[i]->text, node->text) != 0)
                continue;
            if (!r->source->text)
                return qgc_fail(r->d, QGC_ERR_INPUT, node->at, "a key is given twice");
            qgc_status s = qgc_fail(r->d, QGC_ERR_INPUT, node->at, "key \"%s\" is given twice", node->text);
            qgc_note(r->d, in->keys[i]->at, "key \"%s\" is given here first", node->text);
            return s;
        }
        *key = node;
        return QGC_OK;
    }
    qgc_yaml_put(r->arena, in, *key, node);
    *key = NULL;
    return QGC_OK;
}

static qgc_status refuse_extras(const reader *r, const yaml_event_t *e, const yaml_char_t *anchor,
                                const yaml_char_t *tag) {
    if (anchor)
        return qgc_fail(r->d, QGC_ERR_INPUT, loc_at(r, e->start_mark), "anchors are not allowed");
    if (tag)
        return qgc_fail(r->d, QGC_ERR_INPUT, loc_at(r, e->start_mark), "tags are not allowed");
    return QGC_OK;
}

static qgc_status take_scalar(reader *r, const yaml_event_t *e) {
    const char *text = (const char *)e->data.scalar.value;
    size_t bytes = e->data.scalar.length;
    qgc_loc at = loc_at(r, e->start_mark);
    QGC_TRY(refuse_extras(r, e, e->data.scalar.anchor, e->data.scalar.tag));
    if (bytes > QGC_YAML_MAX_TEXT)
        return qgc_fail(r->d, QGC_ERR_INPUT, at, "text is %zu bytes long, expected %d at most", bytes,
                        QGC_YAML_MAX_TEXT);
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] < 32 || text[i] == 127)
            return qgc_fail(r->d, QGC_ERR_INPUT, at, "text holds the control character 0x%02x",
                            (unsigned char)text[i]);

    for (size_t i = 0; i + 1 < bytes; i++) /* C1, which terminals take for commands as well */
        if ((unsigned char)text[i] == 0xC2 && (unsigned char)text[i + 1] < 0xA0)
            return qgc_fail(r->d, QGC_ERR_INPUT, at, "text holds the control character 0x%02x",
                            (unsigned char)text[i + 1]);

    qgc_yaml *node = new_node(r->arena, QGC_YAML_SCALAR, at);
    node->text = qgc_arena_strndup(r->arena, text, bytes);
    node->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return place(r, node);
}

static qgc_status open_node(reader *r, const yaml_event_t *e, qgc_yaml_kind kind) {
    qgc_loc at = loc_at(r, e->start_mark);
    if (r->depth == QGC_YAML_MAX_DEPTH)
        return qgc_fail(r->d, QGC_ERR_INPUT, at, "lists and mappings are nested more than %d deep",
                        QGC_YAML_MAX_DEPTH);
    qgc_yaml *node = new_node(r->arena, kind, at);
    QGC_TRY(place(r, node));
    r->key[r->depth] = NULL;
    r->open[r->depth++] = node;
    return QGC_OK;
}

static qgc_status take(reader *r, const yaml_event_t *e) {
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (r->root)
            return qgc_fail(r->d, QGC_ERR_INPUT, loc_at(r, e->start_mark),
                            "a second document begins, expected one");
        return QGC_OK;
    case YAML_ALIAS_EVENT:
        return qgc_fail(r->d, QGC_ERR_INPUT, loc_at(r, e->start_mark), "aliases are not allowed");
    case YAML_SCALAR_EVENT:
        return take_scalar(r, e);
    case YAML_SEQUENCE_START_EVENT:
        QGC_TRY(refuse_extras(r, e, e->data.sequence_start.anchor, e->data.sequence_start.tag));
        return open_node(r, e, QGC_YAML_LIST);
    case YAML_MAPPING_START_EVENT:
        QGC_TRY(refuse_extras(r, e, e->data.mapping_start.anchor, e->data.mapping_start.tag));
        return open_node(r, e, QGC_YAML_MAP);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        r->depth--;
        return QGC_OK;
    case YAML_STREAM_END_EVENT:
        if (!r->root)
            return qgc_fail(r->d, QGC_ERR_INPUT, (qgc_loc){.source = r->source}, "file is empty");
        return QGC_OK;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
    return QGC_OK;
}

/* A byte order mark is no text: libyaml, told that this is UTF-8, would take it for some. */
static void set_input(const qgc_source *text, yaml_parser_t *parser) {
    static const char mark[] = "\xEF\xBB\xBF";
    const bool marked = text->bytes >= 3 && memcmp(text->text, mark, 3) == 0;
    const size_t skipped = marked ? 3 : 0;
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(parser, (const unsigned char *)text->text + skipped, text->bytes - skipped);
}

static qgc_status parse(reader *r) {
    QGC_TRY(check_bytes(r));
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return qgc_fail(r->d, QGC_ERR_INPUT, (qgc_loc){.source = r->source},
                        "could not start the YAML parser");
    set_input(r->text, &parser);

    qgc_status status = QGC_OK;
    for (bool more = true; more && status == QGC_OK;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            status = syntax_error(r, &parser);
            break;
        }
        status = take(r, &event);
        more = event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

qgc_status qgc_yaml_parse(qgc_yaml **out, const qgc_source *source, qgc_arena *a, qgc_diag *d) {
    *out = NULL;
    reader r = {.arena = a, .d = d, .source = source, .text = source};
    QGC_TRY(parse(&r));
    *out = r.root;
    return QGC_OK;
}

static qgc_status read_source(qgc_source *source, const char *path, qgc_arena *a, qgc_diag *d) {
    QGC_TRY(qgc_file_read(source, path, QGC_YAML_MAX_BYTES, "model file", d));
    if (a != d->arena) {
        source->name = qgc_arena_strdup(a, source->name);
        source->text = qgc_arena_strndup(a, source->text, source->bytes);
    }
    return QGC_OK;
}

qgc_status qgc_yaml_read(qgc_yaml **out, const char *path, qgc_arena *a, qgc_diag *d) {
    *out = NULL;
    qgc_source *source = qgc_arena_alloc(a, sizeof *source);
    QGC_TRY(read_source(source, path, a, d));
    return qgc_yaml_parse(out, source, a, d);
}

qgc_status qgc_yaml_read_hidden(qgc_yaml **out, const char *path, qgc_yaml_hidden *hidden, qgc_arena *a,
                                qgc_diag *d) {
    *out = NULL;
    qgc_source *text = qgc_arena_alloc(a, sizeof *text), *source = qgc_arena_alloc(a, sizeof *source);
    QGC_TRY(read_source(text, path, a, d));
    *source = (qgc_source){.name = text->name, .bytes = text->bytes};
    *hidden = (qgc_yaml_hidden){source, text->text};
    reader r = {.arena = a, .d = d, .source = source, .text = text};
    QGC_TRY(parse(&r));
    *out = r.root;
    return QGC_OK;
}
