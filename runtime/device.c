#include "runtime/device.h"

#include <assert.h>
#include <string.h>

#include "runtime/cublas.h"
#include "runtime/device_impl.h"

int qgc_device_count(void) {
    qgc_arena *arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(arena);
    qgc_cuda_driver cu;
    int n = 0;
    if (qgc_cuda_driver_load(&cu, &d) != QGC_OK || cu.DeviceGetCount(&n) != CUDA_SUCCESS)
        n = 0;
    qgc_arena_drop(arena);
    return n;
}

bool qgc_device_present(void) {
    return qgc_device_count() > 0;
}

qgc_status qgc_device_enter(qgc_device *dev, qgc_diag *d) {
    return QGC_CUDA(&dev->cu, d, CtxSetCurrent, dev->context);
}

/* Opening and closing. */

static qgc_status no_such_gpu(const qgc_cuda_driver *cu, int index, int n, qgc_diag *d) {
    qgc_status s = qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "no GPU number %d: there %s %d, counted from 0",
                            index, n == 1 ? "is" : "are", n);
    for (int i = 0; i < n; i++) {
        CUdevice number;
        char name[128] = "";
        if (cu->DeviceGet(&number, i) == CUDA_SUCCESS &&
            cu->DeviceGetName(name, sizeof name, number) == CUDA_SUCCESS)
            qgc_note(d, QGC_NO_LOC, "GPU %d is %s", i, name);
    }
    return s;
}

static qgc_status read_info(qgc_device *dev, qgc_diag *d) {
    const qgc_cuda_driver *cu = &dev->cu;
    qgc_device_info *info = &dev->info;
    int l2 = 0;
    const struct {
        CUdevice_attribute attribute;
        int *value;
    } wanted[] = {
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &info->major},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &info->minor},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &info->sms},
        {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, &l2},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &info->shared_bytes_max},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        QGC_TRY(QGC_CUDA(cu, d, DeviceGetAttribute, wanted[i].value, wanted[i].attribute, dev->number));
    info->l2_bytes = (size_t)l2;
    info->no_bf16 = info->major < 8;
    QGC_TRY(QGC_CUDA(cu, d, DeviceGetName, info->name, (int)sizeof info->name, dev->number));
    QGC_TRY(QGC_CUDA(cu, d, DeviceTotalMem, &info->total_bytes, dev->number));
    return QGC_CUDA(cu, d, DriverGetVersion, &info->driver_version);
}

static qgc_status open_device(qgc_device *dev, int index, qgc_diag *d) {
    qgc_cuda_driver *cu = &dev->cu;
    QGC_TRY(qgc_cuda_driver_load(cu, d));
    int n = 0;
    QGC_TRY(QGC_CUDA(cu, d, DeviceGetCount, &n));
    if (index < 0 || index >= n)
        return no_such_gpu(cu, index, n, d);
    QGC_TRY(QGC_CUDA(cu, d, DeviceGet, &dev->number, index));
    QGC_TRY(read_info(dev, d));
    QGC_TRY(QGC_CUDA(cu, d, DevicePrimaryCtxRetain, &dev->context, dev->number));
    QGC_TRY(qgc_device_enter(dev, d));
    return QGC_CUDA(cu, d, StreamCreate, &dev->stream, CU_STREAM_NON_BLOCKING);
}

qgc_status qgc_device_open(qgc_device **out, int index, qgc_diag *d) {
    *out = NULL;
    qgc_arena *arena = qgc_arena_new();
    qgc_device *dev = qgc_arena_alloc(arena, sizeof *dev);
    dev->arena = arena;
    qgc_status s = open_device(dev, index, d);
    if (s == QGC_OK)
        *out = dev;
    else
        qgc_device_close(dev);
    return s;
}

static void close_staging(qgc_device *dev) {
    qgc_staging *st = &dev->staging;
    for (int i = 0; i < 2; i++) {
        if (st->sent[i])
            dev->cu.EventDestroy(st->sent[i]);
        if (st->host[i])
            dev->cu.MemFreeHost(st->host[i]);
    }
}

/* Errors of these calls are echoes of an earlier one, and there is nothing to be done about them. */
void qgc_device_close(qgc_device *dev) {
    if (!dev)
        return;
    if (dev->context && dev->cu.CtxSetCurrent(dev->context) == CUDA_SUCCESS) {
        if (dev->stream)
            dev->cu.StreamSynchronize(dev->stream);
        qgc_cublas_close(dev);
        for (qgc_event *e = dev->events; e; e = e->next)
            qgc_event_drop(dev, e);
        for (qgc_function *f = dev->functions; f; f = f->next)
            qgc_device_unload(dev, f);
        for (size_t i = 0; i < dev->n_allocations; i++)
            qgc_device_free(dev, dev->allocations[i].address);
        close_staging(dev);
        if (dev->stream)
            dev->cu.StreamDestroy(dev->stream);
        dev->cu.CtxSetCurrent(NULL);
    }
    if (dev->context)
        dev->cu.DevicePrimaryCtxRelease(dev->number);
    qgc_arena_drop(dev->arena);
}

const qgc_device_info *qgc_device_about(qgc_device *dev) {
    size_t total;
    if (dev->cu.CtxSetCurrent(dev->context) != CUDA_SUCCESS ||
        dev->cu.MemGetInfo(&dev->info.free_bytes, &total) != CUDA_SUCCESS)
        dev->info.free_bytes = 0;
    return &dev->info;
}

void qgc_device_show(qgc_device *dev, const qgc_device_info *info) {
    dev->info = *info;
}

/* Memory. */

static int row_of(qgc_device *dev, const char *owner) {
    for (int i = 0; i < dev->n_rows; i++)
        if (strcmp(dev->rows[i].owner, owner) == 0)
            return i;
    dev->rows = qgc_arena_grow(dev->arena, dev->rows, (size_t)dev->n_rows, sizeof *dev->rows);
    dev->rows[dev->n_rows] = (qgc_memory_row){.owner = owner};
    return dev->n_rows++;
}

static void remember(qgc_device *dev, qgc_allocation made) {
    dev->n_made++;
    if (made.row >= 0)
        dev->rows[made.row].bytes += made.bytes;
    for (size_t i = 0; i < dev->n_allocations; i++)
        if (!dev->allocations[i].address) {
            dev->allocations[i] = made;
            return;
        }
    dev->allocations = qgc_arena_grow(dev->arena, dev->allocations, dev->n_allocations, sizeof made);
    dev->allocations[dev->n_allocations++] = made;
}

static double mib(size_t bytes) {
    return (double)bytes / (1024 * 1024);
}

static qgc_status does_not_fit(qgc_device *dev, const char *owner, size_t bytes, qgc_diag *d) {
    qgc_status s = qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "%.1f MiB of device memory for \"%s\" do not fit",
                            mib(bytes), owner);
    size_t ours = 0;
    for (int i = 0; i < dev->n_rows; i++)
        if (dev->rows[i].bytes) {
            qgc_note(d, QGC_NO_LOC, "%.1f MiB hold \"%s\"", mib(dev->rows[i].bytes), dev->rows[i].owner);
            ours += dev->rows[i].bytes;
        }
    size_t free_bytes = 0, total = 0;
    if (dev->cu.MemGetInfo(&free_bytes, &total) == CUDA_SUCCESS) {
        size_t others = total > free_bytes + ours ? total - free_bytes - ours : 0;
        qgc_note(d, QGC_NO_LOC,
                 "%.1f MiB are free of the %.1f MiB of %s; %.1f MiB are held by other programs and CUDA",
                 mib(free_bytes), mib(total), dev->info.name, mib(others));
    }
    qgc_hint(d, "Use a smaller context (--ctx), a smaller model, or end what else runs on the GPU.");
    return s;
}

qgc_status qgc_device_alloc(qgc_device *dev, const char *owner, size_t bytes, qgc_address *out, qgc_diag *d) {
    assert(!dev->capturing);
    *out = 0;
    QGC_TRY(qgc_device_enter(dev, d));
    int row = row_of(dev, owner);
    CUdeviceptr p = 0;
    CUresult r = dev->cu.MemAlloc(&p, bytes ? bytes : 1);
    if (r == CUDA_ERROR_OUT_OF_MEMORY)
        return does_not_fit(dev, owner, bytes, d);
    QGC_TRY(qgc_cuda_try(&dev->cu, r, "cuMemAlloc", d));
    assert(p % 256 == 0);
    remember(dev, (qgc_allocation){.address = p, .bytes = bytes, .row = row});
    *out = p;
    return QGC_OK;
}

qgc_status qgc_device_alloc_pinned(qgc_device *dev, size_t bytes, void **host, qgc_address *address,
                                   qgc_diag *d) {
    assert(!dev->capturing);
    *host = NULL;
    *address = 0;
    QGC_TRY(qgc_device_enter(dev, d));
    void *p = NULL;
    QGC_TRY(QGC_CUDA(&dev->cu, d, MemHostAlloc, &p, bytes ? bytes : 1, CU_MEMHOSTALLOC_DEVICEMAP));
    CUdeviceptr seen = 0;
    qgc_status s = QGC_CUDA(&dev->cu, d, MemHostGetDevicePointer, &seen, p, 0);
    if (s != QGC_OK) {
        dev->cu.MemFreeHost(p);
        return s;
    }
    memset(p, 0, bytes);
    remember(dev, (qgc_allocation){.address = seen, .bytes = bytes, .row = -1, .host = p});
    *host = p;
    *address = seen;
    return QGC_OK;
}

void qgc_device_free(qgc_device *dev, qgc_address p) {
    if (!p)
        return;
    for (size_t i = 0; i < dev->n_allocations; i++) {
        qgc_allocation *a = &dev->allocations[i];
        if (a->address != p)
            continue;
        dev->cu.CtxSetCurrent(dev->context);
        if (a->host) {
            dev->cu.StreamSynchronize(dev->stream); /* unlike cuMemFree, cuMemFreeHost need not wait */
            dev->cu.MemFreeHost(a->host);
        } else {
            dev->cu.MemFree(p);
        }
        if (a->row >= 0)
            dev->rows[a->row].bytes -= a->bytes;
        *a = (qgc_allocation){0};
        return;
    }
    assert(false && "an address that was not allocated");
}

int qgc_device_memory(const qgc_device *dev, const qgc_memory_row **rows) {
    *rows = dev->rows;
    return dev->n_rows;
}

long qgc_device_n_allocations(const qgc_device *dev) {
    return dev->n_made;
}

/* Copies. */

static qgc_status open_staging(qgc_device *dev, qgc_diag *d) {
    qgc_staging *st = &dev->staging;
    for (int i = 0; i < 2; i++) {
        if (!st->sent[i])
            QGC_TRY(QGC_CUDA(&dev->cu, d, EventCreate, &st->sent[i], CU_EVENT_DISABLE_TIMING));
        if (st->host[i])
            continue;
        void *p = NULL;
        QGC_TRY(QGC_CUDA(&dev->cu, d, MemHostAlloc, &p, QGC_STAGE_BYTES, 0));
        st->host[i] = p;
        dev->n_made++;
    }
    return QGC_OK;
}

/* Leaves the current room and waits until the other one is free. */
static qgc_status other_room(qgc_device *dev, qgc_diag *d) {
    qgc_staging *st = &dev->staging;
    QGC_TRY(QGC_CUDA(&dev->cu, d, EventRecord, st->sent[st->at], dev->stream));
    st->waits[st->at] = true;
    st->at ^= 1;
    st->used = 0;
    if (st->waits[st->at])
        QGC_TRY(QGC_CUDA(&dev->cu, d, EventSynchronize, st->sent[st->at]));
    st->waits[st->at] = false;
    return QGC_OK;
}

qgc_status qgc_device_stage(qgc_device *dev, size_t want, void **room, size_t *bytes, qgc_diag *d) {
    assert(!dev->capturing);
    QGC_TRY(qgc_device_enter(dev, d));
    QGC_TRY(open_staging(dev, d));
    qgc_staging *st = &dev->staging;
    if (want > QGC_STAGE_BYTES)
        want = QGC_STAGE_BYTES;
    if (want > QGC_STAGE_BYTES - st->used)
        QGC_TRY(other_room(dev, d));
    *room = st->host[st->at] + st->used;
    *bytes = want;
    return QGC_OK;
}

qgc_status qgc_device_send(qgc_device *dev, qgc_address to, size_t bytes, qgc_diag *d) {
    qgc_staging *st = &dev->staging;
    assert(st->host[0] && bytes <= QGC_STAGE_BYTES - st->used);
    if (bytes == 0)
        return QGC_OK;
    const void *from = st->host[st->at] + st->used;
    QGC_TRY(QGC_CUDA(&dev->cu, d, MemcpyHtoDAsync, to, from, bytes, dev->stream));
    size_t next = (st->used + bytes + 255) & ~(size_t)255;
    st->used = next < QGC_STAGE_BYTES ? next : QGC_STAGE_BYTES;
    return QGC_OK;
}

qgc_status qgc_device_upload(qgc_device *dev, qgc_address to, const void *from, size_t bytes, qgc_diag *d) {
    for (size_t done = 0; done < bytes;) {
        void *room;
        size_t piece;
        QGC_TRY(qgc_device_stage(dev, bytes - done, &room, &piece, d));
        memcpy(room, (const char *)from + done, piece);
        QGC_TRY(qgc_device_send(dev, to + done, piece, d));
        done += piece;
    }
    return QGC_OK;
}

qgc_status qgc_device_download(qgc_device *dev, void *to, qgc_address from, size_t bytes, qgc_diag *d) {
    assert(!dev->capturing);
    if (bytes == 0)
        return QGC_OK;
    QGC_TRY(qgc_device_enter(dev, d));
    QGC_TRY(QGC_CUDA(&dev->cu, d, MemcpyDtoHAsync, to, from, bytes, dev->stream));
    return qgc_device_sync(dev, d);
}

qgc_status qgc_device_fill(qgc_device *dev, qgc_address p, unsigned char byte, size_t bytes, qgc_diag *d) {
    if (bytes == 0)
        return QGC_OK;
    QGC_TRY(qgc_device_enter(dev, d));
    return QGC_CUDA(&dev->cu, d, MemsetD8Async, p, byte, bytes, dev->stream);
}

qgc_status qgc_device_sync(qgc_device *dev, qgc_diag *d) {
    assert(!dev->capturing);
    QGC_TRY(qgc_device_enter(dev, d));
    return QGC_CUDA(&dev->cu, d, StreamSynchronize, dev->stream);
}

qgc_status qgc_device_busy(qgc_device *dev, bool *busy, qgc_diag *d) {
    QGC_TRY(qgc_device_enter(dev, d));
    CUresult r = dev->cu.StreamQuery(dev->stream);
    *busy = r == CUDA_ERROR_NOT_READY;
    return *busy ? QGC_OK : qgc_cuda_try(&dev->cu, r, "cuStreamQuery", d);
}

/* Code. */

/* The driver takes the size of a cubin from its header, and that of PTX from the zero at its end, so there must be one. */
static bool is_code(const void *code, size_t bytes) {
    const char *text = code;
    if (bytes >= 64 && memcmp(code, "\177ELF", 4) == 0)
        return true;
    return bytes > 0 && text[bytes - 1] == 0 && (text[0] == '/' || text[0] == '.');
}

static void hint_too_old(const qgc_device *dev, qgc_diag *d) {
    qgc_hint(
        d,
        "The driver (CUDA %d.%d) may be older than the compiler of this code: update it, or compile again by an NVRTC "
        "of CUDA %d (--nvrtc).",
        dev->info.driver_version / 1000, dev->info.driver_version % 1000 / 10,
        dev->info.driver_version / 1000);
}

static qgc_status load_module(qgc_device *dev, const void *code, qgc_function *f, qgc_diag *d) {
    char log[1024] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): the driver takes numbers so */
    void *values[] = {log, (void *)(uintptr_t)(sizeof log - 1)};
    CUresult r = dev->cu.ModuleLoadDataEx(&f->module, code, 2, options, values);
    if (r == CUDA_SUCCESS)
        return QGC_OK;
    f->module = NULL;
    qgc_status s = qgc_cuda_try(&dev->cu, r, "cuModuleLoadDataEx", d);
    if (log[0])
        qgc_note(d, QGC_NO_LOC, "the driver says: %s", log);
    if (r == CUDA_ERROR_NO_BINARY_FOR_GPU)
        qgc_hint(d, "The code was compiled for another architecture than sm_%d%d of %s.", dev->info.major,
                 dev->info.minor, dev->info.name);
    else if (r == CUDA_ERROR_INVALID_IMAGE || r == CUDA_ERROR_UNSUPPORTED_PTX_VERSION ||
             r == CUDA_ERROR_INVALID_PTX)
        hint_too_old(dev, d);
    return s;
}

static qgc_status load(qgc_device *dev, const void *code, int shared_bytes, qgc_function *f, qgc_diag *d) {
    QGC_TRY(load_module(dev, code, f, d));
    CUresult r = dev->cu.ModuleGetFunction(&f->function, f->module, f->entry);
    if (r == CUDA_ERROR_NOT_FOUND)
        return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "the code has no kernel \"%s\"", f->entry);
    QGC_TRY(qgc_cuda_try(&dev->cu, r, "cuModuleGetFunction", d));
    if (shared_bytes > dev->info.shared_bytes_max)
        return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC,
                        "kernel \"%s\" wants %d bytes of shared memory, %s has %d a block", f->entry,
                        shared_bytes, dev->info.name, dev->info.shared_bytes_max);
    if (shared_bytes > 0)
        QGC_TRY(QGC_CUDA(&dev->cu, d, FuncSetAttribute, f->function,
                         CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes));
    return QGC_OK;
}

qgc_status qgc_device_load(qgc_device *dev, const void *code, size_t bytes, const char *entry,
                           int shared_bytes, qgc_function **out, qgc_diag *d) {
    *out = NULL;
    assert(!dev->capturing);
    qgc_frame frame = {d->top, "loading kernel", entry, QGC_NO_LOC};
    d->top = &frame;
    qgc_function *f = qgc_arena_alloc(dev->arena, sizeof *f);
    f->entry = qgc_arena_strdup(dev->arena, entry);
    qgc_status s = qgc_device_enter(dev, d);
    if (s == QGC_OK && !is_code(code, bytes))
        s = qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "the code of kernel \"%s\" is neither a cubin nor PTX",
                     entry);
    if (s == QGC_OK)
        s = load(dev, code, shared_bytes, f, d);
    d->top = frame.up;
    if (s != QGC_OK) {
        qgc_device_unload(dev, f);
        return s;
    }
    f->next = dev->functions;
    dev->functions = f;
    *out = f;
    return QGC_OK;
}

void qgc_device_unload(qgc_device *dev, qgc_function *f) {
    if (!f || !f->module)
        return;
    dev->cu.CtxSetCurrent(dev->context);
    dev->cu.ModuleUnload(f->module);
    f->module = NULL;
}

qgc_status qgc_device_residence(qgc_device *dev, qgc_function *f, int threads, int shared_bytes,
                                qgc_residence *out, qgc_diag *d) {
    *out = (qgc_residence){0};
    QGC_TRY(qgc_device_enter(dev, d));
    QGC_TRY(
        QGC_CUDA(&dev->cu, d, FuncGetAttribute, &out->registers, CU_FUNC_ATTRIBUTE_NUM_REGS, f->function));
    return QGC_CUDA(&dev->cu, d, OccupancyMaxActiveBlocksPerMultiprocessor, &out->blocks, f->function,
                    threads, (size_t)shared_bytes);
}

/* Drivers since CUDA 12.8 know the attribute. */
static bool knows_division(const qgc_device *dev) {
    return dev->info.driver_version >= 12080;
}

static int attributes_of(const qgc_device *dev, const qgc_launch *l, CUlaunchAttribute out[3]) {
    int n = 0;
    if (l->together)
        out[n++] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value = {.cooperative = 1}};
    if (l->early)
        out[n++] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                       .value = {.programmaticStreamSerializationAllowed = 1}};
    if (l->most_shared && knows_division(dev))
        out[n++] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                                       .value = {.sharedMemCarveout = 100}};
    return n;
}

qgc_status qgc_device_launch(qgc_device *dev, qgc_function *f, const qgc_launch *l, qgc_diag *d) {
    QGC_TRY(qgc_device_enter(dev, d));
    CUlaunchAttribute attributes[3];
    const CUlaunchConfig config = {.gridDimX = l->grid[0],
                                   .gridDimY = l->grid[1],
                                   .gridDimZ = l->grid[2],
                                   .blockDimX = l->threads,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .sharedMemBytes = l->shared_bytes,
                                   .hStream = dev->stream,
                                   .attrs = attributes,
                                   .numAttrs = (unsigned)attributes_of(dev, l, attributes)};
    const CUresult r = dev->cu.LaunchKernelEx(&config, f->function, l->args, NULL);
    if (r == CUDA_SUCCESS)
        return QGC_OK;
    qgc_status s = qgc_cuda_try(&dev->cu, r, "cuLaunchKernelEx", d);
    qgc_note(d, QGC_NO_LOC, "kernel \"%s\": grid %u x %u x %u, %u threads, %u bytes of shared memory",
             f->entry, l->grid[0], l->grid[1], l->grid[2], l->threads, l->shared_bytes);
    return s;
}

bool qgc_device_has_gemm(qgc_device *dev, const char **why) {
    const char *missing =
        dev->info.no_bf16 ? "it multiplies no bf16 matrices on this GPU" : qgc_cublas_missing(dev);
    if (why)
        *why = missing;
    return !missing;
}

qgc_status qgc_device_prepare_gemm(qgc_device *dev, qgc_diag *d) {
    QGC_TRY(qgc_device_enter(dev, d));
    return qgc_cublas_prepare(dev, d);
}

qgc_status qgc_device_gemm(qgc_device *dev, const qgc_gemm *g, qgc_diag *d) {
    assert(g->m >= 0 && g->n >= 0 && g->k > 0);
    if (g->m == 0 || g->n == 0)
        return QGC_OK;
    QGC_TRY(qgc_device_prepare_gemm(dev, d));
    return qgc_cublas_gemm(dev, g, d);
}

/* Events. */

qgc_status qgc_event_new(qgc_device *dev, qgc_event **out, qgc_diag *d) {
    *out = NULL;
    QGC_TRY(qgc_device_enter(dev, d));
    qgc_event *e = qgc_arena_alloc(dev->arena, sizeof *e);
    QGC_TRY(QGC_CUDA(&dev->cu, d, EventCreate, &e->event, CU_EVENT_DEFAULT));
    e->next = dev->events;
    dev->events = e;
    *out = e;
    return QGC_OK;
}

void qgc_event_drop(qgc_device *dev, qgc_event *e) {
    if (!e || !e->event)
        return;
    dev->cu.CtxSetCurrent(dev->context);
    dev->cu.EventDestroy(e->event);
    e->event = NULL;
}

qgc_status qgc_event_record(qgc_device *dev, qgc_event *e, qgc_diag *d) {
    QGC_TRY(qgc_device_enter(dev, d));
    return QGC_CUDA(&dev->cu, d, EventRecord, e->event, dev->stream);
}

qgc_status qgc_event_wait(qgc_device *dev, qgc_event *e, qgc_diag *d) {
    QGC_TRY(qgc_device_enter(dev, d));
    return QGC_CUDA(&dev->cu, d, EventSynchronize, e->event);
}

qgc_status qgc_event_elapsed(qgc_device *dev, qgc_event *from, qgc_event *to, double *us, qgc_diag *d) {
    QGC_TRY(qgc_event_wait(dev, to, d));
    float ms = 0;
    QGC_TRY(QGC_CUDA(&dev->cu, d, EventElapsedTime, &ms, from->event, to->event));
    *us = (double)ms * 1000;
    return QGC_OK;
}
