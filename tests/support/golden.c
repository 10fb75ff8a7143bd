#include "tests/support/golden.h"

#include <math.h>
#include <string.h>

#include "graph/base/file.h"
#include "tests/support/cmocka.h"

typedef struct {
    const char *at, *end;
} reader;

/* `bytes` bytes, which are followed by zeros up to a multiple of 4. */
static const void *take(reader *r, size_t bytes) {
    const char *here = r->at;
    size_t padded = (bytes + 3) / 4 * 4;
    assert_true((size_t)(r->end - r->at) >= padded);
    r->at += padded;
    return here;
}

static int32_t take_count(reader *r) {
    int32_t n;
    memcpy(&n, take(r, sizeof n), sizeof n);
    return n;
}

static void read_case(reader *r, int32_t vocab, golden_case *c, qgc_arena *a) {
    size_t text_bytes = (size_t)take_count(r);
    c->n_ids = take_count(r);
    c->n_new = take_count(r);
    size_t new_bytes = (size_t)take_count(r);
    c->text = qgc_arena_strndup(a, take(r, text_bytes), text_bytes);
    c->ids = take(r, 4 * (size_t)c->n_ids);
    c->logits = take(r, 4 * (size_t)c->n_ids * (size_t)vocab);
    c->new_ids = take(r, 4 * (size_t)c->n_new);
    c->margins = take(r, 4 * (size_t)c->n_new);
    c->new_text = qgc_arena_strndup(a, take(r, new_bytes), new_bytes);
}

golden golden_read(qgc_arena *a, const char *folder) {
    qgc_diag d = qgc_diag_new(a);
    qgc_source file;
    const char *path = qgc_arena_printf(a, "%s/golden.bin", folder);
    if (qgc_file_read(&file, path, (size_t)1 << 24, "the golden file", &d) != QGC_OK) {
        qgc_diag_print(&d, stderr, false);
        fail();
    }
    reader r = {file.text, file.text + file.bytes};
    assert_memory_equal(take(&r, 8), "QGCGOLD1", 8);
    golden g = {.vocab = take_count(&r)};
    g.n_cases = take_count(&r);
    g.cases = qgc_arena_array(a, (size_t)g.n_cases, sizeof *g.cases);
    for (int32_t i = 0; i < g.n_cases; i++)
        read_case(&r, g.vocab, &g.cases[i], a);
    assert_ptr_equal(r.at, r.end);
    return g;
}

double golden_difference(const float *got, const float *want, int64_t n) {
    double worst = 0, size = 1e-30;
    for (int64_t i = 0; i < n; i++) {
        double delta =
            got[i] == want[i] ? 0 : fabs((double)got[i] - (double)want[i]); /* infinities may agree */
        if (!(delta <= worst))
            worst = isfinite(delta) ? delta : INFINITY;
        if (isfinite(want[i]) && fabs((double)want[i]) > size)
            size = fabs((double)want[i]);
    }
    return worst / size;
}

static double largest(const float *x, int64_t n) {
    double size = 0;
    for (int64_t i = 0; i < n; i++)
        size = fmax(size, fabs((double)x[i]));
    return size;
}

bool golden_near_tie(const golden *g, const golden_case *c, int32_t k, double tolerance) {
    /* each of the two best may be off by so much */
    return c->margins[k] <= 2 * tolerance * largest(c->logits, (int64_t)c->n_ids * g->vocab);
}
