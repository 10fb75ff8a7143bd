#ifndef QGC_LAB_LAYOUT_H
#define QGC_LAB_LAYOUT_H

#include <stddef.h>

#include "graph/base/arena.h"

/* Drawings of small directed graphs: boxes in rows, edges downwards, groups of boxes in frames.
 *
 *        [a]              Rows are longest paths, the order within a row keeps crossings few, an edge that passes
 *       /   \             rows goes round their boxes. The boxes of a group are laid out by themselves, and their
 *   +-[b]-+  |            frame then takes part as one box: no frame overlaps another or a box that is not in it.
 *   | [c] |  |
 *   +--|--+  |            The same graph gives the same drawing. */

typedef struct {
    double x, y; /* y goes down */
} qgc_layout_point;

typedef struct {
    double width, height;
    int group;   /* index into frames, or -1 */
    double x, y; /* given: the left upper corner */
} qgc_layout_box;

typedef struct {
    double title_width, title_height; /* at the left upper corner; no edge crosses it */
    double x, y, width, height;       /* given; all 0 for a group without boxes */
} qgc_layout_frame;

typedef struct {
    int from, to; /* boxes; not the same */
    /* given: a line from the lower side of `from` to the upper side of `to`. Two neighbours with one x are joined by a
     * straight line, others lie between two rows. NULL for an edge that closes a cycle, of boxes or of groups. */
    qgc_layout_point *points;
    size_t n_points;
} qgc_layout_edge;

typedef struct {
    qgc_layout_box *boxes; /* within a group, each edge goes to a box with a higher index */
    size_t n_boxes;
    qgc_layout_frame *frames;
    size_t n_frames;
    qgc_layout_edge *edges;
    size_t n_edges;
    double width, height; /* given: everything lies within */
} qgc_layout;

/* Fills in what is given. Points live in `a`. */
void qgc_layout_run(qgc_layout *l, qgc_arena *a);

#endif
