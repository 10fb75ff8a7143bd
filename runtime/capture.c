#include "runtime/capture.h"

#include <assert.h>

#include "runtime/device_impl.h"

struct qgc_capture {
    CUgraphExec exec;
    int n_nodes;
};

qgc_status qgc_capture_begin(qgc_device *dev, qgc_diag *d) {
    assert(!dev->capturing);
    QGC_TRY(qgc_device_enter(dev, d));
    /* Thread-local: what other threads of the process do with CUDA does not break the capture. */
    QGC_TRY(QGC_CUDA(&dev->cu, d, StreamBeginCapture, dev->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    dev->capturing = true;
    return QGC_OK;
}

static qgc_status instantiate(qgc_device *dev, CUgraph graph, qgc_capture *c, qgc_diag *d) {
    size_t n = 0;
    QGC_TRY(QGC_CUDA(&dev->cu, d, GraphGetNodes, graph, NULL, &n));
    c->n_nodes = (int)n;
    QGC_TRY(QGC_CUDA(&dev->cu, d, GraphInstantiate, &c->exec, graph, 0));
    /* So that the first replay costs what the others cost. */
    qgc_status s = QGC_CUDA(&dev->cu, d, GraphUpload, c->exec, dev->stream);
    if (s != QGC_OK)
        dev->cu.GraphExecDestroy(c->exec);
    return s;
}

qgc_status qgc_capture_end(qgc_device *dev, qgc_capture **out, qgc_diag *d) {
    *out = NULL;
    assert(dev->capturing);
    dev->capturing = false;
    CUgraph graph = NULL;
    qgc_status s = QGC_CUDA(&dev->cu, d, StreamEndCapture, dev->stream, &graph);
    if (s == QGC_OK)
        s = d->status; /* a launch in between failed */
    qgc_capture *c = qgc_arena_alloc(dev->arena, sizeof *c);
    if (s == QGC_OK)
        s = instantiate(dev, graph, c, d);
    if (graph)
        dev->cu.GraphDestroy(graph);
    if (s == QGC_OK)
        *out = c;
    return s;
}

qgc_status qgc_capture_replay(qgc_device *dev, qgc_capture *c, qgc_diag *d) {
    QGC_TRY(qgc_device_enter(dev, d));
    return QGC_CUDA(&dev->cu, d, GraphLaunch, c->exec, dev->stream);
}

int qgc_capture_nodes(const qgc_capture *c) {
    return c->n_nodes;
}

void qgc_capture_drop(qgc_device *dev, qgc_capture *c) {
    if (!c || !c->exec)
        return;
    dev->cu.CtxSetCurrent(dev->context);
    dev->cu.GraphExecDestroy(c->exec);
    c->exec = NULL;
}
