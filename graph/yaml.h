#ifndef QGC_GRAPH_YAML_H
#define QGC_GRAPH_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/base/arena.h"
#include "graph/base/diag.h"
#include "graph/base/map.h"

/* YAML text as a tree whose every part knows its line and column. What model files don't need is refused
 * rather than read: anchors, aliases, tags, a second document, keys that are no scalars, keys given twice,
 * control characters, and anything larger or deeper than these limits. */
enum {
    QGC_YAML_MAX_BYTES = 1 << 20, /* of a file */
    QGC_YAML_MAX_DEPTH = 32,      /* of lists and mappings in one another */
    QGC_YAML_MAX_TEXT = 256,      /* bytes of one scalar */
};

typedef enum { QGC_YAML_SCALAR, QGC_YAML_LIST, QGC_YAML_MAP } qgc_yaml_kind;

typedef struct qgc_yaml qgc_yaml;
struct qgc_yaml {
    qgc_yaml_kind kind;
    qgc_loc at;

    const char *text; /* of a scalar, ended by a zero byte and without others */
    bool quoted;      /* the text begins one column after `at` */

    size_t n;         /* elements of a list, entries of a mapping */
    qgc_yaml **items; /* [n] elements, or the values of the entries */
    qgc_yaml **keys;  /* [n] scalars, of a mapping */
    qgc_map index;    /* key text to value, of a mapping */
};

/* Reads `source` into a tree in `a`. The source has to live as long as the tree. */
QGC_MUST_USE qgc_status qgc_yaml_parse(qgc_yaml **out, const qgc_source *source, qgc_arena *a, qgc_diag *d);

/* The same for a file; its text goes into `a` as well. */
QGC_MUST_USE qgc_status qgc_yaml_read(qgc_yaml **out, const char *path, qgc_arena *a, qgc_diag *d);

/* The same for a file that another one names, and which may be any file: no error shows its text, before the caller has
 * seen that it is what it should be and puts `text` into the source. */
typedef struct {
    qgc_source *source;
    const char *text;
} qgc_yaml_hidden;
QGC_MUST_USE qgc_status qgc_yaml_read_hidden(qgc_yaml **out, const char *path, qgc_yaml_hidden *hidden,
                                             qgc_arena *a, qgc_diag *d);

/* The value under `key` of a mapping, or NULL. */
qgc_yaml *qgc_yaml_get(const qgc_yaml *map, const char *key);

/* True for the word null, not for "null" in quotes. */
bool qgc_yaml_is_null(const qgc_yaml *node);

/* "a list", for errors. */
const char *qgc_yaml_kind_name(const qgc_yaml *node);

/* An empty mapping, and an entry more in one; false, and no change, if the key is there. */
qgc_yaml *qgc_yaml_new_map(qgc_arena *a, qgc_loc at);
bool qgc_yaml_put(qgc_arena *a, qgc_yaml *map, qgc_yaml *key, qgc_yaml *value);

#endif
