#ifndef QGC_LAB_LAYOUT_LEVEL_H
#define QGC_LAB_LAYOUT_LEVEL_H

#include "runtime/lab/layout.h"

/* One level of a drawing (layout.h): the boxes of one group, or the boxes and frames outside of all groups. For
 * layout.c alone. */

typedef enum {
    LAYOUT_BOX,
    LAYOUT_TITLE, /* in the first row, where no box is: the first; no link */
    LAYOUT_ENTRY, /* likewise, in the order of items: where links come in from outside, at its upper side */
    LAYOUT_EXIT,  /* in the last row: where links go out, at its lower side */
} layout_kind;

typedef struct {
    layout_kind kind;
    double width, height;
    double x, y; /* given: the left upper corner */
} layout_item;

typedef struct {
    int from, to;          /* items, from < to */
    double from_at, to_at; /* distance from the left side; NAN: as is best */
    qgc_layout_point *points;
    size_t n_points;
} layout_link;

typedef struct {
    layout_item *items;
    size_t n_items;
    layout_link *links;
    size_t n_links;
    double gap;           /* between rows, at least */
    double width, height; /* given */
} layout_level;

/* Places the items of a level at 0, 0 and below, and draws its links. Points live in `a`. */
void qgc_layout_level(layout_level *l, qgc_arena *a);

#endif
