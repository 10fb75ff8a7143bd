/* The command schema: a JSON Schema (draft 7) of model files, from the tables of their keys (graph/format.def), of ops and of dtypes.
 * It knows what a file may say, not whether it makes sense: what expressions are, which names there are and how shapes go together
 * `qgc dump` says. */

#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/format.def"
#include "graph/graph.h"
#include "runtime/cli/json.h"

/* --- small schemas ---------------------------------------------------------------------------------------- */

static json_t *reference(const char *name) {
    return json_pack("{s:o}", "$ref", json_sprintf("#/definitions/%s", name));
}

static json_t *of_type(const char *type) {
    return json_pack("{s:s}", "type", type);
}

static json_t *either(json_t *a, json_t *b) {
    return json_pack("{s:[o, o]}", "anyOf", a, b);
}

static json_t *list_of(json_t *items, int least, int most) {
    json_t *list = json_pack("{s:s, s:o, s:i}", "type", "array", "items", items, "minItems", least);
    if (most)
        json_object_set_new(list, "maxItems", json_integer(most));
    return list;
}

static json_t *map_of(json_t *values) {
    return json_pack("{s:s, s:o, s:o}", "type", "object", "propertyNames", reference("name"),
                     "additionalProperties", values);
}

/* An object that has no keys but these. */
static json_t *closed(json_t *properties) {
    return json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties, "additionalProperties",
                     0);
}

static json_t *requiring(json_t *schema, const char *a, const char *b) {
    json_t *keys = json_pack("[s]", a);
    if (b)
        json_array_append_new(keys, json_string(b));
    json_object_set_new(schema, "required", keys);
    return schema;
}

static json_t *pattern(const char *text) {
    return json_pack("{s:s, s:s}", "type", "string", "pattern", text);
}

/* --- objects of keys -------------------------------------------------------------------------------------- */

/* Of what may be dropped by a file that extends another. */
static void set_or_null(json_t *properties, const char *key, const char *what) {
    json_object_set_new(properties, key, either(reference(what), of_type("null")));
}

#define PROPERTY(key, what) json_object_set_new(properties, key, reference(#what));
#define OR_NULL(key, what) set_or_null(properties, key, #what);
#define OBJECT(function, KEYS, EACH)        \
    static json_t *function(void) {         \
        json_t *properties = json_object(); \
        KEYS(EACH, EACH)                    \
        return closed(properties);          \
    }
OBJECT(file_schema, QGC_FILE_KEYS, PROPERTY)
OBJECT(arch_schema, QGC_ARCH_KEYS, PROPERTY)
OBJECT(param_schema, QGC_PARAM_KEYS, OR_NULL)
OBJECT(weight_schema, QGC_WEIGHT_KEYS, OR_NULL)
OBJECT(derived_schema, QGC_DERIVED_KEYS, PROPERTY)
OBJECT(form_schema, QGC_FORM_KEYS, PROPERTY)
OBJECT(state_schema, QGC_STATE_KEYS, OR_NULL)
OBJECT(repeat_schema, QGC_REPEAT_KEYS, PROPERTY)
OBJECT(head_schema, QGC_HEAD_KEYS, PROPERTY)
OBJECT(part_schema, QGC_PART_KEYS, PROPERTY)
OBJECT(choice_schema, QGC_CHOICE_KEYS, PROPERTY)
OBJECT(kernel_schema, QGC_KERNEL_KEYS, PROPERTY)

/* --- ops -------------------------------------------------------------------------------------------------- */

static json_t *attribute(const qgc_attr_spec *attr) {
    if (!attr->choices[0])
        return reference("expression");
    json_t *words = json_array();
    for (int i = 0; i < QGC_MAX_CHOICES && attr->choices[i]; i++)
        json_array_append_new(words, json_string(attr->choices[i]));
    return json_pack("{s:o}", "enum", words);
}

static json_t *node_of(const qgc_op_info *op) {
    json_t *properties = json_object(), *required = json_pack("[s, s]", "op", "out");
    json_object_set_new(properties, "op",
                        json_pack("{s:s, s:s}", "const", op->name, "description", op->summary));
    json_object_set_new(properties, "in",
                        op->max_inputs ? list_of(reference("value"), op->min_inputs, op->max_inputs)
                                       : json_pack("{s:i, s:s}", "maxItems", 0, "type", "array"));
    json_object_set_new(properties, "out",
                        op->n_outputs == 1 ? reference("value")
                                           : list_of(reference("value"), op->n_outputs, op->n_outputs));
    json_object_set_new(properties, "fuse", reference("group"));
    json_object_set_new(properties, "when", reference("expression"));
    if (op->min_inputs)
        json_array_append_new(required, json_string("in"));
    for (const qgc_attr_spec *attr = op->attrs; attr->name; attr++) {
        json_object_set_new(properties, attr->name, attribute(attr));
        if (!attr->optional)
            json_array_append_new(required, json_string(attr->name));
    }
    json_t *schema = closed(properties);
    json_object_set_new(schema, "required", required);
    return schema;
}

static json_t *when_then(json_t *condition, json_t *then) {
    return json_pack("{s:o, s:o}", "if", condition, "then", then);
}

static json_t *node_schema(void) {
    json_t *names = json_array(), *each = json_array();
    for (int i = 0; i < QGC_N_OPS; i++) {
        json_array_append_new(names, json_string(qgc_ops[i].name));
        json_t *is_it = json_pack("{s:{s:{s:s}}}", "properties", "op", "const", qgc_ops[i].name);
        json_array_append_new(each, when_then(is_it, node_of(&qgc_ops[i])));
    }
    return json_pack("{s:{s:{s:o}}, s:o}", "properties", "op", "enum", names, "allOf", each);
}

/* Of a list of ops: a key says which kind of entry it is. */
static json_t *entry_schema(void) {
    static const char *const kinds[][2] = {{"op", "node"}, {"repeat", "repeat"}, {"part", "part"}};
    json_t *schema = json_pack("{s:[o, {s:[s, s]}]}", "allOf", reference("choice"), "required", "when", "do");
    for (int i = 2; i >= 0; i--) {
        json_t *then = when_then(json_pack("{s:[s]}", "required", kinds[i][0]), reference(kinds[i][1]));
        json_object_set_new(then, "else", schema);
        schema = then;
    }
    json_object_set_new(schema, "type", json_string("object"));
    return schema;
}

/* --- all of it -------------------------------------------------------------------------------------------- */

static json_t *dtype_schema(void) {
    json_t *names = json_array();
    for (int i = 0; i < QGC_N_DTYPES; i++)
        json_array_append_new(names, json_string(qgc_dtypes[i].name));
    return json_pack("{s:o}", "enum", names);
}

static json_t *derivation_schema(void) {
    json_t *names = json_array();
    for (int i = QGC_DERIVE_NONE + 1; i < QGC_N_DERIVE; i++)
        json_array_append_new(names, json_string(qgc_derive_name((qgc_derive_kind)i)));
    return json_pack("{s:o}", "enum", names);
}

static void define(json_t *all, const char *name, json_t *schema) {
    json_object_set_new(all, name, schema);
}

/* What keys hold that is no object of keys. */
static void define_values(json_t *all) {
    define(all, "version", json_pack("{s:[i, i]}", "enum", 1, 2));
    define(all, "memory", json_pack("{s:s}", "const", "shared"));
    define(all, "text", json_pack("{s:s, s:i}", "type", "string", "minLength", 1));
    define(all, "texts", either(reference("text"), list_of(reference("text"), 0, 0)));
    define(all, "word", pattern("^[A-Za-z0-9._-]+$"));
    define(all, "name", pattern("^[A-Za-z_][A-Za-z0-9_]{0,62}$"));
    define(all, "value", pattern("^[A-Za-z_][A-Za-z0-9_]{0,62}(\\[[A-Za-z0-9_=]+\\])?$"));
    define(all, "group", pattern("^[A-Za-z_][A-Za-z0-9_]{0,62}(\\[[A-Za-z0-9_=]+\\])?(@[A-Za-z0-9_]+)?$"));
    define(all, "lines", list_of(of_type("string"), 1, 0));
    define(all, "expression", json_pack("{s:[s, s, s]}", "type", "number", "string", "boolean"));
    define(all, "numbers", either(reference("expression"), list_of(reference("expression"), 1, 0)));
    define(all, "shape", list_of(reference("expression"), 1, 4));
    define(all, "dtype", dtype_schema());
    define(all, "dtypes", either(reference("dtype"), list_of(reference("dtype"), 1, 0)));
    define(all, "turns", list_of(of_type("integer"), 1, 0));
    define(all, "names", list_of(reference("name"), 1, QGC_MAX_SOURCES));
    define(all, "derivation", derivation_schema());
    define(all, "rows", list_of(reference("expression"), 2, 2));
    define(all, "with", map_of(reference("value")));
    define(all, "carry",
           either(either(reference("name"), list_of(reference("name"), 1, 0)), map_of(reference("value"))));
    json_t *each = map_of(reference("expression"));
    json_object_set_new(each, "minProperties", json_integer(1));
    json_object_set_new(each, "maxProperties", json_integer(1));
    define(all, "each", each);
}

static json_t *or_null(json_t *schema) {
    return either(schema, of_type("null"));
}

static void define_objects(json_t *all) {
    define(all, "arch", either(reference("word"), arch_schema()));
    define(all, "params", map_of(or_null(either(reference("expression"), param_schema()))));
    define(all, "stored", either(reference("text"), requiring(form_schema(), "name", NULL)));
    define(all, "derived", requiring(derived_schema(), "op", "of"));
    define(all, "weights", map_of(or_null(weight_schema())));
    define(all, "states", map_of(or_null(state_schema())));
    define(all, "inputs", map_of(or_null(reference("shape"))));
    define(all, "entries", list_of(reference("entry"), 0, 0));
    define(all, "parts", map_of(or_null(reference("entries"))));
    define(all, "entry", entry_schema());
    define(all, "node", node_schema());
    define(all, "repeat", requiring(repeat_schema(), "repeat", "body"));
    define(all, "head", requiring(head_schema(), "index", "count"));
    define(all, "part", requiring(part_schema(), "part", NULL));
    define(all, "choice", choice_schema());
    define(all, "kernels", map_of(either(kernel_schema(), of_type("null"))));
}

static json_t *schema_json(void) {
    json_t *all = json_object(), *file = requiring(file_schema(), "qgc", NULL);
    define_values(all);
    define_objects(all);
    json_object_set_new(file, "$schema", json_string("http://json-schema.org/draft-07/schema#"));
    json_object_set_new(file, "title", json_string("model file of qgc"));
    json_object_set_new(file, "definitions", all);
    json_object_set_new(file, "anyOf",
                        json_pack("[{s:[s]}, {s:[s, s, s, s, s]}]", "required", "extends", "required", "name",
                                  "arch", "inputs", "graph", "outputs"));
    return file;
}

qgc_status cmd_schema(cli_context *c, int argc, char **argv) {
    const char *json = NULL; /* the schema is JSON with and without it */
    const cli_option options[] = {CLI_JSON_OPTION(json), CLI_COMMON_OPTIONS(c), {0}};
    const cli_command command = {
        .name = "schema",
        .arguments = "",
        .summary = "Prints a JSON Schema of model files, with which editors complete and check them.",
        .details = "It says what a file may hold; qgc dump says whether that makes sense.",
        .options = options,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    if (cli_wants_text(json) && json)
        QGC_TRY(cli_write_json(json, schema_json(), c->diag));
    return cli_write_json("-", schema_json(), c->diag);
}
