#ifndef QGC_LAB_LAYOUT_ROWS_H
#define QGC_LAB_LAYOUT_ROWS_H

#include <stdint.h>

#include "runtime/lab/layout_level.h"

/* What layout_level.c, layout_order.c and layout_place.c share: the rows of a level while it is laid out. */

/* What stands in a row: an item, or a link that passes. */
typedef struct {
    int item; /* -1: a link passes */
    int row, place;
    double width, x; /* x of the middle */
    int up, n_up;    /* segments: in `ups` and in `downs` */
    int down, n_down;
} vertex;

/* A part of a link, from one row to the next. */
typedef struct {
    int upper, lower;
    double upper_at, lower_at; /* from the middle */
} segment;

typedef struct {
    layout_level *l;
    qgc_arena *a;
    int *row_of; /* [n_items] */
    int n_rows;
    vertex *vertices;
    int n_vertices;
    int **rows, *row_sizes; /* vertices from left to right */
    segment *segments;
    int n_segments;
    int *ups, *downs;
    int *first_vertex, *first_segment; /* of each link: its bends and parts follow one another */
} layout_rows;

/* `what`, to be sorted by key and then by tie. */
typedef struct {
    double key, tie;
    int what;
} sortable;

int layout_by_key(const void *a, const void *b);

/* Where a segment ends in the order of a row: links of one wide box keep the order of their ends. */
double layout_upper_key(const layout_rows *s, const segment *g);
double layout_lower_key(const layout_rows *s, const segment *g);

/* Puts each row into an order in which few links cross. */
void layout_order_rows(layout_rows *s);

/* Gives each vertex its x, keeping the order, and each link without one its end; and the level its width. */
void layout_place_rows(layout_rows *s);

#endif
