#include "runtime/lab/probe.h"

#include "codegen/nvrtc.h"

enum { THREADS = 512, BLOCKS_EACH = 4, PASSES = 10, LEAST_MB = 64 };

static qgc_status compile(const char *arch, const void **cubin, size_t *bytes, qgc_diag *d) {
    qgc_nvrtc *nvrtc;
    QGC_TRY(qgc_nvrtc_open(&nvrtc, NULL, d));
    const qgc_nvrtc_job job = {
        .file = "read.cu", .arch = arch, .node = "the probe of the bandwidth", .at = QGC_NO_LOC};
    qgc_status s = qgc_nvrtc_compile(nvrtc, &job, cubin, bytes, d);
    qgc_nvrtc_close(nvrtc);
    return s;
}

static qgc_status pass(qgc_device *dev, qgc_function *f, const qgc_launch *l, qgc_event *const marks[2],
                       double *us, qgc_diag *d) {
    QGC_TRY(qgc_event_record(dev, marks[0], d));
    QGC_TRY(qgc_device_launch(dev, f, l, d));
    QGC_TRY(qgc_event_record(dev, marks[1], d));
    return qgc_event_elapsed(dev, marks[0], marks[1], us, d);
}

static qgc_status measure(qgc_device *dev, qgc_function *f, qgc_address room, int64_t bytes, double *best_us,
                          qgc_diag *d) {
    uint64_t n = (uint64_t)bytes / 16;
    qgc_address sum = room; /* written by one chance in 2^32, and then it is as good as before */
    void *args[] = {&room, &n, &sum};
    const qgc_launch launch = {.grid = {(unsigned)(qgc_device_about(dev)->sms * BLOCKS_EACH), 1, 1},
                               .threads = THREADS,
                               .args = args};
    qgc_event *marks[2] = {NULL, NULL};
    qgc_status s = QGC_OK;
    for (int i = 0; i < 2 && s == QGC_OK; i++)
        s = qgc_event_new(dev, &marks[i], d);
    *best_us = 0;
    for (int i = -1; i < PASSES && s == QGC_OK; i++) { /* one to warm up */
        double us = 0;
        s = pass(dev, f, &launch, marks, &us, d);
        if (i >= 0 && (*best_us == 0 || us < *best_us))
            *best_us = us;
    }
    for (int i = 0; i < 2; i++)
        qgc_event_drop(dev, marks[i]);
    return s;
}

qgc_status qgc_probe_bandwidth(qgc_device *dev, const char *arch, double *bytes_per_second, int64_t *bytes,
                               qgc_diag *d) {
    const void *cubin;
    size_t size;
    QGC_TRY(compile(arch, &cubin, &size, d));
    int64_t room = (int64_t)(qgc_device_about(dev)->free_bytes / 2);
    room = (room < (int64_t)2 << 30 ? room : (int64_t)2 << 30) / 4096 * 4096;
    if (room < (int64_t)LEAST_MB << 20)
        return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "%s has no memory left to measure its bandwidth",
                        qgc_device_about(dev)->name);
    qgc_function *f = NULL;
    qgc_address data = 0;
    double us = 0;
    QGC_TRY(qgc_device_load(dev, cubin, size, "read", 0, &f, d));
    qgc_status s = qgc_device_alloc(dev, "probe", (size_t)room, &data, d);
    if (s == QGC_OK)
        s = qgc_device_fill(dev, data, 1, (size_t)room, d);
    if (s == QGC_OK)
        s = measure(dev, f, data, room, &us, d);
    qgc_device_free(dev, data);
    qgc_device_unload(dev, f);
    *bytes = room;
    *bytes_per_second = us > 0 ? 1e6 * (double)room / us : 0;
    return s;
}
