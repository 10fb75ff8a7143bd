#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "runtime/lab/layout.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

/* --- what holds of every drawing -------------------------------------------------------------------------- */

typedef struct {
    double x0, y0, x1, y1;
} area;

static area area_of_box(const qgc_layout *l, int i) {
    const qgc_layout_box *b = &l->boxes[i];
    return (area){b->x, b->y, b->x + b->width, b->y + b->height};
}

static area area_of_frame(const qgc_layout *l, int i) {
    const qgc_layout_frame *f = &l->frames[i];
    return (area){f->x, f->y, f->x + f->width, f->y + f->height};
}

/* Do two areas have more in common than their sides? Written so that NaN counts as an overlap. */
static bool overlap(area a, area b) {
    const double tiny = 1e-6;
    return !(a.x1 <= b.x0 + tiny || b.x1 <= a.x0 + tiny || a.y1 <= b.y0 + tiny || b.y1 <= a.y0 + tiny);
}

static bool within(area a, area b) {
    return a.x0 >= b.x0 - 1e-6 && a.y0 >= b.y0 - 1e-6 && a.x1 <= b.x1 + 1e-6 && a.y1 <= b.y1 + 1e-6;
}

static void check_boxes(const qgc_layout *l) {
    const area all = {0, 0, l->width, l->height};
    for (int i = 0; i < (int)l->n_boxes; i++) {
        const area a = area_of_box(l, i);
        assert_true(within(a, all));
        for (int k = 0; k < i; k++)
            if (overlap(a, area_of_box(l, k)))
                fail_msg("boxes %d and %d overlap", k, i);
        for (int k = 0; k < (int)l->n_frames; k++) {
            if (l->boxes[i].group == k && !within(a, area_of_frame(l, k)))
                fail_msg("box %d is not in its frame", i);
            if (l->boxes[i].group != k && overlap(a, area_of_frame(l, k)))
                fail_msg("box %d is in frame %d", i, k);
        }
    }
}

static area area_of_title(const qgc_layout *l, int i) {
    const qgc_layout_frame *f = &l->frames[i];
    return (area){f->x, f->y, f->x + 10 + f->title_width, f->y + f->title_height};
}

static void check_frames(const qgc_layout *l) {
    for (int i = 0; i < (int)l->n_frames; i++) {
        if (!(l->frames[i].width > 0))
            continue;
        assert_true(within(area_of_frame(l, i), (area){0, 0, l->width, l->height}));
        assert_true(within(area_of_title(l, i), area_of_frame(l, i)));
        for (int k = 0; k < i; k++)
            if (overlap(area_of_frame(l, i), area_of_frame(l, k)))
                fail_msg("frames %d and %d overlap", k, i);
        for (int k = 0; k < (int)l->n_boxes; k++)
            if (overlap(area_of_title(l, i), area_of_box(l, k)))
                fail_msg("box %d is on title %d", k, i);
    }
}

/* A straight piece of an edge goes down; where it passes boxes it is upright and passes beside them. */
static void check_piece(const qgc_layout *l, const qgc_layout_edge *e, const qgc_layout_point *p) {
    assert_true(p[1].y >= p[0].y);
    const area a = {fmin(p[0].x, p[1].x), p[0].y, fmax(p[0].x, p[1].x), p[1].y};
    const area line = {a.x0 - 0.5, a.y0, a.x1 + 0.5, a.y1};
    for (int i = 0; i < (int)l->n_boxes; i++)
        if (overlap(line, area_of_box(l, i)))
            fail_msg("edge %d -> %d runs into box %d", e->from, e->to, i);
    for (int i = 0; i < (int)l->n_frames; i++)
        if (l->frames[i].width > 0 && overlap(line, area_of_title(l, i)))
            fail_msg("edge %d -> %d runs into the title of frame %d", e->from, e->to, i);
}

static void check_edges(const qgc_layout *l) {
    for (size_t i = 0; i < l->n_edges; i++) {
        const qgc_layout_edge *e = &l->edges[i];
        assert_true(e->n_points >= 2);
        const area from = area_of_box(l, e->from), to = area_of_box(l, e->to);
        const qgc_layout_point first = e->points[0], last = e->points[e->n_points - 1];
        assert_true(fabs(first.y - from.y1) < 1e-6 && first.x >= from.x0 && first.x <= from.x1);
        assert_true(fabs(last.y - to.y0) < 1e-6 && last.x >= to.x0 && last.x <= to.x1);
        assert_true(last.y > first.y);
        for (size_t k = 0; k + 1 < e->n_points; k++)
            check_piece(l, e, &e->points[k]);
    }
}

static void check(const qgc_layout *l) {
    check_boxes(l);
    check_frames(l);
    check_edges(l);
}

/* --- graphs ----------------------------------------------------------------------------------------------- */

static uint32_t below(uint64_t *random, int n) {
    return (uint32_t)(test_random(random) % (uint64_t)n);
}

/* `n` boxes of random sizes, in groups of up to `groups` that follow one another, each reading up to `reads` of those
 * before it, at most `reach` back. */
static qgc_layout random_graph(qgc_arena *a, int n, int reads, int reach, int groups) {
    uint64_t random = (uint64_t)n * 1000 + (uint64_t)(reads * 100 + reach * 10 + groups);
    qgc_layout l = {.boxes = qgc_arena_array(a, (size_t)n, sizeof(qgc_layout_box)),
                    .n_boxes = (size_t)n,
                    .frames = qgc_arena_array(a, (size_t)n, sizeof(qgc_layout_frame)),
                    .edges = qgc_arena_array(a, (size_t)n * (size_t)reads, sizeof(qgc_layout_edge))};
    int group = -1;
    for (int i = 0, left = 0; i < n; i++, left--) {
        if (left == 0) {
            left = 1 + (int)below(&random, groups);
            group = left > 1 ? (int)l.n_frames++ : -1;
            if (group >= 0)
                l.frames[group] =
                    (qgc_layout_frame){.title_width = 20 + below(&random, 90), .title_height = 18};
        }
        l.boxes[i] = (qgc_layout_box){
            .width = 20 + below(&random, 200), .height = 10 + below(&random, 50), .group = group};
        for (int k = 0; k < reads && i > 0; k++) {
            const int back = 1 + (int)below(&random, i < reach ? i : reach);
            if (below(&random, 4) > 0)
                l.edges[l.n_edges++] = (qgc_layout_edge){.from = i - back, .to = i};
        }
    }
    return l;
}

static void random_graphs_keep_clear_of_one_another(void **state) {
    const int sizes[] = {1, 2, 3, 5, 8, 13, 30, 60}, reaches[] = {1, 3, 20, 1000};
    for (int n = 0; n < 8; n++)
        for (int reads = 1; reads < 4; reads++)
            for (int reach = 0; reach < 4; reach++)
                for (int groups = 1; groups < 7; groups++) {
                    qgc_layout l = random_graph(*state, sizes[n], reads, reaches[reach], groups);
                    qgc_layout_run(&l, *state);
                    check(&l);
                }
}

static void the_same_graph_gives_the_same_drawing(void **state) {
    qgc_layout a = random_graph(*state, 80, 3, 30, 4), b = random_graph(*state, 80, 3, 30, 4);
    qgc_layout_run(&a, *state);
    qgc_layout_run(&b, *state);
    assert_memory_equal(a.boxes, b.boxes, a.n_boxes * sizeof *a.boxes);
    assert_memory_equal(a.frames, b.frames, a.n_frames * sizeof *a.frames);
    for (size_t i = 0; i < a.n_edges; i++) {
        assert_int_equal(a.edges[i].n_points, b.edges[i].n_points);
        assert_memory_equal(a.edges[i].points, b.edges[i].points,
                            a.edges[i].n_points * sizeof *a.edges[i].points);
    }
}

static void a_thousand_boxes_take_no_time(void **state) {
    const int reaches[] = {10, 1000}, groups[] = {1, 6};
    for (int i = 0; i < 4; i++) {
        qgc_layout l = random_graph(*state, 1000, 2, reaches[i / 2], groups[i % 2]);
        const clock_t start = clock();
        qgc_layout_run(&l, *state);
        const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (!(seconds < 30)) /* a second or less; checkers are slow */
            fail_msg("%.1f s", seconds);
        check(&l);
    }
}

/* --- drawings that one can foresee ------------------------------------------------------------------------ */

typedef struct {
    int from, to;
} pair;

/* Boxes of 100 x 40, all in no group, and edges. */
static qgc_layout plain_graph(qgc_arena *a, int n, const pair *edges, int n_edges) {
    qgc_layout l = {.boxes = qgc_arena_array(a, (size_t)n, sizeof(qgc_layout_box)),
                    .n_boxes = (size_t)n,
                    .edges = qgc_arena_array(a, (size_t)n_edges, sizeof(qgc_layout_edge)),
                    .n_edges = (size_t)n_edges};
    for (int i = 0; i < n; i++)
        l.boxes[i] = (qgc_layout_box){.width = 100, .height = 40, .group = -1};
    for (int i = 0; i < n_edges; i++)
        l.edges[i] = (qgc_layout_edge){.from = edges[i].from, .to = edges[i].to};
    return l;
}

static void nothing_takes_no_room(void **state) {
    qgc_layout l = {0};
    qgc_layout_run(&l, *state);
    assert_true(l.width == 0 && l.height == 0);
}

static void a_chain_is_straight(void **state) {
    const pair edges[] = {{0, 1}, {1, 2}, {2, 3}};
    qgc_layout l = plain_graph(*state, 4, edges, 3);
    qgc_layout_run(&l, *state);
    check(&l);
    assert_true(l.width == 100);
    for (int i = 0; i < 3; i++) {
        assert_true(fabs(l.boxes[i].x) < 1e-6);
        assert_int_equal(l.edges[i].n_points, 2);
    }
}

static void a_diamond_has_its_ends_in_the_middle(void **state) {
    const pair edges[] = {{0, 1}, {0, 2}, {1, 3}, {2, 3}};
    qgc_layout l = plain_graph(*state, 4, edges, 4);
    qgc_layout_run(&l, *state);
    check(&l);
    assert_true(l.boxes[1].y == l.boxes[2].y);
    const double middle = (l.boxes[1].x + l.boxes[2].x) / 2;
    assert_true(fabs(l.boxes[0].x - middle) < 1 && fabs(l.boxes[3].x - middle) < 1);
}

/* 0 -> 5, 1 -> 4, 2 -> 3 cross if the rows are in order of index. */
static void order_avoids_crossings(void **state) {
    const pair edges[] = {{0, 5}, {1, 4}, {2, 3}};
    qgc_layout l = plain_graph(*state, 6, edges, 3);
    qgc_layout_run(&l, *state);
    check(&l);
    for (int i = 0; i < 3; i++)
        assert_true(fabs(l.boxes[i].x - l.boxes[5 - i].x) < 1e-6);
}

static void what_is_read_late_stands_low(void **state) {
    const pair edges[] = {{0, 1}, {1, 2}, {3, 4}, {2, 4}};
    qgc_layout l = plain_graph(*state, 5, edges, 4);
    qgc_layout_run(&l, *state);
    check(&l);
    assert_true(l.boxes[3].y == l.boxes[2].y);
}

static void a_group_has_a_frame_of_its_own(void **state) {
    const pair edges[] = {{0, 1}, {0, 2}, {1, 3}, {2, 3}, {0, 4}, {3, 4}};
    qgc_layout l = plain_graph(*state, 5, edges, 6);
    qgc_layout_frame frames[] = {{.title_width = 50, .title_height = 20}, {.title_width = 50}};
    l.frames = frames;
    l.n_frames = 2; /* the second has no boxes */
    l.boxes[1].group = l.boxes[2].group = l.boxes[3].group = 0;
    qgc_layout_run(&l, *state);
    check(&l);
    assert_true(frames[0].width > 200 && frames[0].height > 100);
    assert_true(frames[1].width == 0 && frames[1].height == 0);
    /* 0 -> 1 and 0 -> 2 are one line as far as the frame, and two in it. */
    assert_true(l.edges[0].points[1].x == l.edges[1].points[1].x);
    assert_true(l.edges[0].points[l.edges[0].n_points - 1].x != l.edges[1].points[l.edges[1].n_points - 1].x);
}

/* Where an edge is at a height at which it is upright. */
static double x_at(const qgc_layout_edge *e, double y) {
    for (size_t i = 0; i + 1 < e->n_points; i++)
        if (e->points[i].x == e->points[i + 1].x && e->points[i].y <= y && y <= e->points[i + 1].y)
            return e->points[i].x;
    fail_msg("edge %d -> %d is not upright at %g", e->from, e->to, y);
    return 0;
}

/* [0 -> 1] -> 2 -> [3 -> 4], and 0 -> 4: the long line passes 2 on the side on which it comes into the second frame. */
static void lines_come_into_a_frame_as_they_pass_outside(void **state) {
    const pair edges[] = {{0, 1}, {1, 2}, {2, 3}, {3, 4}, {0, 4}};
    for (int wide = 0; wide < 5; wide++) {
        qgc_layout l = plain_graph(*state, 5, edges, 5);
        qgc_layout_frame frames[] = {{.title_width = 50, .title_height = 20},
                                     {.title_width = 50, .title_height = 20}};
        l.frames = frames;
        l.n_frames = 2;
        l.boxes[0].group = l.boxes[1].group = 0;
        l.boxes[3].group = l.boxes[4].group = 1;
        l.boxes[wide].width = 300;
        qgc_layout_run(&l, *state);
        check(&l);
        const bool left_of_box = x_at(&l.edges[4], l.boxes[2].y + 1) < l.boxes[2].x;
        const bool left_in_frame = x_at(&l.edges[4], frames[1].y + 1) < x_at(&l.edges[2], frames[1].y + 1);
        assert_int_equal(left_of_box, left_in_frame);
    }
}

static void an_edge_that_closes_a_cycle_is_not_drawn(void **state) {
    const pair edges[] = {{0, 1}, {1, 2}, {2, 0}, {1, 3}};
    qgc_layout l = plain_graph(*state, 4, edges, 4);
    qgc_layout_run(&l, *state);
    check_boxes(&l);
    assert_null(l.edges[2].points);
    for (int i = 0; i < 4; i++)
        assert_true(i == 2 || l.edges[i].n_points >= 2);
    /* The frame of 0 and 2 is before and after 1. */
    qgc_layout_frame frame = {.title_width = 10, .title_height = 10};
    qgc_layout g = plain_graph(*state, 3, edges, 2);
    g.frames = &frame;
    g.n_frames = 1;
    g.boxes[0].group = g.boxes[2].group = 0;
    qgc_layout_run(&g, *state);
    check_boxes(&g);
    assert_non_null(g.edges[0].points);
    assert_null(g.edges[1].points);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(nothing_takes_no_room),
        ARENA_TEST(a_chain_is_straight),
        ARENA_TEST(a_diamond_has_its_ends_in_the_middle),
        ARENA_TEST(order_avoids_crossings),
        ARENA_TEST(what_is_read_late_stands_low),
        ARENA_TEST(a_group_has_a_frame_of_its_own),
        ARENA_TEST(lines_come_into_a_frame_as_they_pass_outside),
        ARENA_TEST(an_edge_that_closes_a_cycle_is_not_drawn),
        ARENA_TEST(random_graphs_keep_clear_of_one_another),
        ARENA_TEST(the_same_graph_gives_the_same_drawing),
        ARENA_TEST(a_thousand_boxes_take_no_time),
    };
    return cmocka_run_group_tests_name("lab/layout", tests, NULL, NULL);
}
