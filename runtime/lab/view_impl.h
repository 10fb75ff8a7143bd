#ifndef QGC_LAB_VIEW_PARTS_H
#define QGC_LAB_VIEW_PARTS_H

#include "runtime/lab/layout.h"
#include "runtime/lab/view.h"
#include "runtime/lab/xml.h"

/* What the view*.c files share. */

/* A drawing for each layer that is drawn, and one of what is in no layer. */
typedef struct {
    const char *key, *title; /* "layer", "layer 3 of 24" */
    int repeat, layer;       /* -1: of what is in no layer */
} view_part;

typedef enum {
    VIEW_NODE,
    VIEW_IN,   /* a value that comes from outside of the drawing */
    VIEW_OUT,  /* a value that is read there */
    VIEW_FOLD, /* all layers of a repeat */
} view_kind;

typedef struct {
    view_kind kind;
    const qgc_node *node;
    qgc_node was;            /* the node as it was then */
    const qgc_value *value;  /* of IN and OUT */
    const char *text, *more; /* of OUT: who reads it; of FOLD: "layers 0 to 23" and what is in them */
    int group;               /* of the scene, or -1 */
} view_box;

typedef struct {
    int from, to;
    const qgc_value *value;
} view_edge;

typedef struct {
    int id;                   /* in the graph */
    const char *name, *label; /* "qkv", "qkv[3]" */
} view_group;

/* What one drawing shows. */
typedef struct {
    view_box *boxes;
    size_t n_boxes;
    view_edge *edges;
    size_t n_edges;
    view_group *groups;
    size_t n_groups;
    int *box_of, n_ids; /* by the id of a node; -1: it is not drawn */
} view_scene;

/* What one rule did. */
typedef struct {
    const char *of; /* key of the stage after the whole pass */
    const char *rule, *node;
    qgc_loc at;
    int number; /* from 1, of all changes of the pass */
} view_change;

/* The graph before the first pass, after one, or after one change of it. */
typedef struct {
    const char *key;           /* "fuse-qkv", "fuse-qkv-2" where it ran before, "loaded" */
    const qgc_pass_info *pass; /* NULL: before the first */
    const qgc_pass_run *run;   /* likewise */
    const view_change *change; /* it is after this change of the pass, which goes on; NULL: after all of it */
    int n_nodes, n_kernels;
    view_scene *scenes; /* one for each part */
} view_stage;

/* A line of the bench file: the launches of one kernel for nodes of one name. */
typedef struct {
    const char *name, *kernel;
    int count;
    double us, floor_us; /* of all of them */
    int64_t bytes;
} view_kernel;

struct qgc_view {
    qgc_arena *arena;
    const qgc_graph *g;
    const char *path;
    view_part *parts;
    size_t n_parts;
    view_stage *stages;
    size_t n_stages;
    const qgc_pass_watch *other; /* that is told of changes first; NULL */

    const char *said;                     /* above the drawings: what bisect has found, or NULL */
    const char *first_stage, *first_node; /* that are shown at first; NULL */

    bool timed;    /* from a bench file */
    bool counted;  /* bytes and floors of kernels are known without one */
    qgc_map costs; /* as times, to a view_cost */
    const char *device, *bench_path;
    int64_t position;
    view_kernel *kernels;
    size_t n_kernels;
    qgc_map times; /* "linear q[3]" or "qkv[3]", as launches are called, to a view_time */
};

typedef struct {
    double us;          /* mean of its launches */
    const char *kernel; /* "linear.cu" */
} view_time;

/* --- view_text.c --- */

/* How many letters wide a text is in a font of equal ones; letters beyond ASCII may be two wide. */
int view_columns(const char *text);

/* At most `most` columns: longer ones end in an ellipsis. */
const char *view_shortened(const char *text, int most, qgc_arena *a);

/* "4.21 µs" */
const char *view_us(double us, qgc_arena *a);

/* The shortest text that is read as the same number. */
const char *view_number(double x, qgc_arena *a);

/* The line of the YAML at a place, without what is before it; NULL where it is not known. */
const char *view_source_line(qgc_loc at, qgc_arena *a);

/* "models/qwen2.yaml:48", escaped, or nothing. */
void view_place(qgc_str *out, qgc_loc at);

/* What a launch reads, and the least time that the memory of the card takes for it. */
typedef struct {
    int64_t bytes;
    double floor_us;
} view_cost;

/* --- view.c --- */

/* The stage that a stage is held against: of a change the one before, of a whole pass that after the pass before. */
size_t view_before(const qgc_view *v, size_t stage);

/* --- view_scene.c --- */

view_scene view_scene_of(const qgc_view *v, const view_part *part, const qgc_graph *g);

/* "q[3]": how events call a node. */
const char *view_label(const view_box *b, qgc_arena *a);

/* The box of a node in a scene, or NULL. */
const view_box *view_find(const view_scene *s, const qgc_node *node);

/* --- view_times.c --- */

/* What a kernel of the last stage takes: of a group, or, if `group` is NULL, of a node by itself. NULL: not known. */
const view_time *view_time_of(const qgc_view *v, const view_group *group, const view_box *box);

/* The same of what it reads. */
const view_cost *view_cost_of(const qgc_view *v, const view_group *group, const view_box *box);

/* --- view_draw.c --- */

/* The drawings of all stages: [stage * n_parts + part]. `names` gives groups of one name the same colour. */
typedef struct {
    qgc_layout *layouts;
    double *widths; /* of each part, the widest */
    qgc_map names;
    double *most_us; /* likewise, the longest time of a kernel */
} view_drawings;

view_drawings view_lay_out(const qgc_view *v, qgc_arena *a);

/* The colour of a group, as a hue in degrees. */
int view_hue(const view_drawings *d, const view_group *group);

/* One drawing as SVG. `details` are the ids of the templates of its boxes and then of its groups. */
void view_draw(const qgc_view *v, const view_drawings *d, size_t stage, size_t part,
               const char *const *details, qgc_str *out);

/* --- view_detail.c --- */

/* Templates with what there is to know of each box and group, each text once. */
typedef struct {
    qgc_str text;
    qgc_map ids;       /* text to id */
    qgc_map histories; /* "part/node" to what the passes did to it */
} view_details;

/* The id of what there is to know of a box, or of group `group` if `box` is NULL. */
const char *view_detail(const qgc_view *v, size_t stage, size_t part, const view_box *box, int group,
                        view_details *all);

/* --- view_page.c, view_notes.c --- */

typedef struct {
    const qgc_view *v;
    const view_drawings *d;
    qgc_str *out;
    qgc_arena *a;
    view_details details;
} view_page;

/* Text, escaped. */
void view_put(view_page *p, const char *text);

/* The most kernels that there are in any stage; 1 at least. */
int view_most_kernels(const qgc_view *v);

/* What stands beside the drawings of a stage. */
void view_notes(view_page *p, size_t stage);

/* The tables of passes and, where there are times, of kernels. */
void view_tables(view_page *p);

#endif
