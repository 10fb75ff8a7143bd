#include <stdio.h>

#include "codegen/artifact.h"
#include "graph/base/str.h"
#include "runtime/cli/json.h"
#include "runtime/engine/plan_report.h"
#include "runtime/mode.h"

/* "4096 + 512 T" */
static void print_extent(const qgc_extent *e) {
    const struct {
        int64_t factor;
        const char *symbol;
    } parts[] = {{e->fixed, ""}, {e->per_token, " T"}, {e->per_row, " R"}, {e->per_ctx, " ctx"}};
    bool first = true;
    for (int i = 0; i < 4; i++)
        if (parts[i].factor) {
            printf("%s%lld%s", first ? "" : " + ", (long long)parts[i].factor, parts[i].symbol);
            first = false;
        }
    if (e->most_ctx)
        printf(", for %lld positions at most", (long long)e->most_ctx);
    if (first)
        putchar('0');
}

/* May launches of a phase start early with an image? Those of the persistent step do where it runs. */
static bool starts_early(const qgc_plan *p, qgc_phase_kind phase, const char *arch, qgc_arena *a) {
    return !qgc_mode_refusal_on(p, QGC_MODE_PDL, arch, a) &&
           (phase != QGC_PHASE_PERSISTENT || !qgc_mode_refusal_on(p, QGC_MODE_PERSISTENT, arch, a));
}

/* The architectures with which none does, "sm_75, sm_80", and how many those are. */
static const char *archs_without(const qgc_plan *p, qgc_phase_kind phase, int *n, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    *n = 0;
    for (int i = 0; i < p->n_archs; i++)
        if (!starts_early(p, phase, p->archs[i], a))
            qgc_str_printf(&text, "%s%s", (*n)++ ? ", " : "", p->archs[i]);
    return text.text;
}

static bool runs_nowhere(const qgc_plan *p, qgc_mode mode, qgc_arena *a) {
    int i = 0;
    while (i < p->n_archs && qgc_mode_refusal_on(p, mode, p->archs[i], a))
        i++;
    return i == p->n_archs;
}

/* "decode     124 launches, 123 of them early, but not on sm_75"; where there is no persistent step, why. */
static void print_phase(const qgc_plan *p, qgc_phase_kind phase, qgc_arena *a) {
    const bool persistent = phase == QGC_PHASE_PERSISTENT;
    int n_without;
    const char *without = archs_without(p, phase, &n_without, a);
    printf("%-10s %zu launches", qgc_phase_name(phase), p->phases[phase].n_launches);
    if (persistent && p->not_persistent)
        printf(": %s", p->not_persistent);
    else if (persistent && runs_nowhere(p, QGC_MODE_PERSISTENT, a))
        printf(", which none of these architectures can run");
    else if ((persistent || phase == QGC_PHASE_DECODE) && n_without == p->n_archs)
        printf(", none of them early");
    else if (persistent || phase == QGC_PHASE_DECODE)
        printf(", %zu of them early%s%s", qgc_plan_early(p, phase), n_without ? ", but not on " : "",
               without);
    putchar('\n');
}

/* "derived    wq_n[0] = scale_columns(wq[0], norm[0]): f32 [16, 16]" */
static void print_derived(const qgc_plan *p) {
    bool first = true;
    for (size_t i = 0; i < p->n_weights; i++) {
        const qgc_plan_weight *w = &p->weights[i];
        const qgc_derivation *how = &w->derived;
        if (!how->kind)
            continue;
        printf("%-10s %s = %s(", first ? "derived" : "", w->label, qgc_derive_name(how->kind));
        first = false;
        for (int k = 0; k < how->n_from; k++)
            printf("%s%s", k ? ", " : "", p->weights[how->from[k]].label);
        if (qgc_derive_has_range(how->kind))
            printf(", %lld to %lld", (long long)how->first, (long long)how->last - 1);
        if (qgc_derive_has_factor(how->kind))
            printf(", %g", how->factor);
        if (how->head_dim)
            printf(", heads of %lld", (long long)how->head_dim);
        printf("): %s [", qgc_dtypes[w->storage].name);
        for (int r = 0; r < w->rank; r++)
            printf("%s%lld", r ? ", " : "", (long long)w->shape[r]);
        puts("]");
    }
}

/* Which modes images of each architecture can run in, and what keeps them from the others. */
static void print_modes(const qgc_plan *p, qgc_arena *a) {
    for (int i = 0; i < p->n_archs; i++) {
        printf("%-10s %s:", i ? "" : "modes", p->archs[i]);
        for (int m = 0, n = 0; m < QGC_N_MODES; m++)
            if (!qgc_mode_refusal_on(p, (qgc_mode)m, p->archs[i], a))
                printf("%s %s", n++ ? "," : "", qgc_mode_name((qgc_mode)m));
        if (p->least_sms > 0 && !qgc_mode_refusal_on(p, QGC_MODE_PERSISTENT, p->archs[i], a))
            printf(" (on %lld multiprocessors or more, %d bytes of shared memory a block)",
                   (long long)p->least_sms, qgc_mode_shared_bytes(p, p->archs[i]));
        putchar('\n');
        for (int m = 0; m < QGC_N_MODES; m++) {
            const char *why = qgc_mode_refusal_on(p, (qgc_mode)m, p->archs[i], a);
            if (why)
                printf("%-10s   not %s: %s\n", "", qgc_mode_name((qgc_mode)m), why);
        }
    }
}

/* "compute_80: PTX 9.0 for sm_80 and newer, by drivers of CUDA 13.0 and newer". */
static void print_ptx(const char *name, const qgc_plan_image *image) {
    qgc_arch arch;
    if (!qgc_arch_read(name, &arch) || !arch.ptx)
        return;
    const int version = qgc_ptx_version(image->data, image->bytes), driver = qgc_ptx_driver(version);
    const char *and = arch.letter == 'a' ? "alone" : arch.letter == 'f' ? "and its family" : "and newer";
    printf("%-10s   %s: PTX %d.%d for sm_%d %s, by drivers of CUDA %d.%d and newer\n", "", name, version / 10,
           version % 10, arch.number, and, driver / 1000, driver % 1000 / 10);
}

static void print_all_ptx(const qgc_plan *p) {
    int next = 0;
    for (size_t i = 0; i < p->n_images; i++)
        if (p->images[i].arch == next) /* they stand in the order of archs */
            print_ptx(p->archs[next++], &p->images[i]);
}

static void print_summary(const qgc_plan *p, qgc_arena *a) {
    printf("model      %s (%s), vocabulary %lld, at most %lld positions\n", p->name, p->arch,
           (long long)p->vocab, (long long)p->max_positions);
    printf("compiler   %s\n", p->compiler);
    printf("weights    %s\n", p->weights_path ? p->weights_path : "to be named at run");
    printf("archs     ");
    for (int i = 0; i < p->n_archs; i++) {
        size_t bytes = 0;
        for (size_t k = 0; k < p->n_images; k++)
            bytes += p->images[k].arch == i ? p->images[k].bytes : 0;
        printf("%s %s (%s)", i ? "," : "", p->archs[i], qgc_str_of_bytes(bytes, a));
    }
    putchar('\n');
    print_all_ptx(p);
    qgc_sizes at_ctx = qgc_plan_largest(p);
    at_ctx.ctx = p->max_positions ? p->max_positions : 4096;
    size_t sums[QGC_N_BUFFER_KINDS] = {0};
    for (size_t i = 0; i < p->n_buffers; i++) {
        const qgc_plan_buffer *b = &p->buffers[i];
        const bool elsewhere =
            b->kind == QGC_BUFFER_WEIGHT && qgc_plan_weight_root(p, b->weight) != b->weight;
        sums[b->kind] += elsewhere ? 0 : (size_t)qgc_extent_size(&b->bytes, &at_ctx);
    }
    printf("memory     weights %s, states %s and tables %s at %lld positions, scratch %s, interface %s\n",
           qgc_str_of_bytes(sums[QGC_BUFFER_WEIGHT], a), qgc_str_of_bytes(sums[QGC_BUFFER_STATE], a),
           qgc_str_of_bytes(sums[QGC_BUFFER_TABLE], a), (long long)at_ctx.ctx,
           qgc_str_of_bytes((size_t)p->scratch_bytes, a), qgc_str_of_bytes(sums[QGC_BUFFER_IO], a));
    for (int phase = 0; phase < QGC_N_PHASES; phase++)
        if (phase <= QGC_PHASE_PERSISTENT || p->phases[phase].n_launches > 0)
            print_phase(p, (qgc_phase_kind)phase, a);
    print_modes(p, a);
    print_derived(p);
}

/* What a session and its program take on the device, by mode. */
static void print_memory(const qgc_plan *p, int64_t ctx, qgc_arena *a) {
    const qgc_plan_memory_use m[] = {qgc_plan_memory_of(p, false, ctx, a),
                                     qgc_plan_memory_of(p, true, ctx, a)};
    const struct {
        const char *name;
        int64_t bytes[2];
    } rows[] = {{"weights as they are stored", {m[0].weights, m[1].weights}},
                {"weights in the order of the persistent step", {m[0].stream, m[1].stream}},
                {"room for weights on their way there", {m[0].staging, m[1].staging}},
                {"states", {m[0].states, m[1].states}},
                {"tables", {m[0].tables, m[1].tables}},
                {"scratch", {m[0].scratch, m[1].scratch}},
                {"exchange between multiprocessors", {m[0].exchange, m[1].exchange}},
                {"interface", {m[0].interface, m[1].interface}}};
    const bool persistent = !p->not_persistent;
    int64_t sums[2] = {0, 0};
    printf("\nmemory at %lld positions %*s%s\n", (long long)ctx, 34, "other modes",
           persistent ? "    persistent" : "");
    for (size_t i = 0; i <= sizeof rows / sizeof *rows; i++) {
        const bool last = i == sizeof rows / sizeof *rows;
        const int64_t *bytes = last ? sums : rows[i].bytes;
        printf("  %-44s %12s", last ? "all" : rows[i].name, qgc_str_of_bytes((size_t)bytes[0], a));
        if (persistent)
            printf(" %13s", qgc_str_of_bytes((size_t)bytes[1], a));
        putchar('\n');
        for (int k = 0; k < 2 && !last; k++)
            sums[k] += bytes[k];
    }
}

static void print_kernels(const qgc_plan *p) {
    printf("\nkernels\n");
    for (size_t i = 0; i < p->n_kernels; i++) {
        size_t uses = 0;
        for (int phase = 0; phase < QGC_N_PHASES; phase++)
            for (size_t k = 0; k < p->phases[phase].n_launches; k++)
                uses += p->phases[phase].launches[k].kernel == (int)i;
        printf("  %-16s %4zu launches, %4d threads  %s\n", p->kernels[i].name, uses, p->kernels[i].threads,
               p->kernels[i].options);
        if (p->kernels[i].unchecked)
            printf("  %-16s not checked on a CPU: %s\n", "", p->kernels[i].unchecked);
    }
}

static void print_product(const qgc_plan_launch *l) {
    printf("cuBLAS [");
    print_extent(&l->rows);
    printf(", %lld] x [%lld, %lld]^T\n", (long long)l->k, (long long)l->n, (long long)l->k);
}

static void print_kernel_launch(const qgc_plan *p, const qgc_plan_launch *l) {
    printf("%-16s", p->kernels[l->kernel].name);
    for (int axis = 0; axis < 3; axis++) {
        printf("%s(", axis ? " x " : " ");
        print_extent(&l->grid[axis]);
        printf(")/%lld", (long long)l->per_block[axis]);
    }
    printf("  %s\n", l->where);
}

static void print_launches(const qgc_plan *p, qgc_arena *a) {
    for (int phase = 0; phase < QGC_N_PHASES; phase++) {
        int n_without;
        archs_without(p, (qgc_phase_kind)phase, &n_without, a);
        const bool waits = n_without < p->n_archs; /* there is an image that can */
        printf("\n%s\n", qgc_phase_name((qgc_phase_kind)phase));
        for (size_t i = 0; i < p->phases[phase].n_launches; i++) {
            const qgc_plan_launch *l = &p->phases[phase].launches[i];
            printf("  %4zu %-5s %-32s ", i, l->early && waits ? "early" : "", l->node);
            if (l->kind == QGC_LAUNCH_GEMM)
                print_product(l);
            else
                print_kernel_launch(p, l);
            if (l->not_early)
                printf("             not early: %s\n", l->not_early);
        }
    }
}

static qgc_status write_json(const qgc_plan *p, const qgc_forecast *on, const char *where, cli_context *c) {
    qgc_str text = qgc_str_new(c->arena);
    QGC_TRY(qgc_plan_json(p, on, &text, c->diag));
    return qgc_file_write(where, text.text, text.bytes, c->diag);
}

typedef struct {
    bool launches, graph, memory;
    int64_t ctx;
    const char *json, *on;
} inspect_options;

static void print_forecast(const qgc_forecast *on, cli_context *c) {
    qgc_str text = qgc_str_new(c->arena);
    qgc_forecast_text(on, &text);
    cli_print_report(&text, stdout);
}

/* Options of which one leaves nothing for the other to do. */
static qgc_status check(const inspect_options *o, qgc_diag *d) {
    const char *other = o->launches ? "launches"
                        : o->memory ? "memory"
                        : o->on     ? "on"
                        : o->json   ? "json"
                                    : NULL;
    if (o->graph && other)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --graph prints the graph alone, and --%s is given", other);
    if (o->ctx > 0 && !o->memory)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --ctx is for the list of --memory");
    return QGC_OK;
}

/* That of qgc run. */
static int64_t default_ctx(const qgc_plan *p) {
    enum { CTX = 4096 };
    return p->max_positions > 0 && p->max_positions < CTX ? p->max_positions : CTX;
}

static qgc_status show(const qgc_plan *plan, const inspect_options *o, cli_context *c) {
    qgc_forecast on;
    if (o->on)
        QGC_TRY(qgc_forecast_on(plan, o->on, &on, c->diag));
    if (o->json)
        QGC_TRY(write_json(plan, o->on ? &on : NULL, o->json, c));
    if (!cli_wants_text(o->json))
        return QGC_OK;
    if (o->graph) {
        fputs(plan->graph, stdout);
        return QGC_OK;
    }
    print_summary(plan, c->arena);
    if (o->on)
        print_forecast(&on, c);
    if (o->memory)
        print_memory(plan, o->ctx > 0 ? o->ctx : default_ctx(plan), c->arena);
    print_kernels(plan);
    if (o->launches)
        print_launches(plan, c->arena);
    return QGC_OK;
}

qgc_status cmd_inspect(cli_context *c, int argc, char **argv) {
    inspect_options o = {0};
    const cli_option options[] = {
        {"launches", 0, OPTION_FLAG, &o.launches, NULL,
         "list every launch, its place in the YAML, and whether it starts early", 0, 0},
        {"memory", 0, OPTION_FLAG, &o.memory, NULL, "list what a session takes on a device, by mode", 0, 0},
        {"ctx", 0, OPTION_INT, &o.ctx, "N", "positions that --memory counts caches for; 0: those of qgc run",
         0, 1 << 24},
        {"on", 0, OPTION_TEXT, &o.on, "CARD",
         "modes, floor of a step and memory there: rtx-4090; arch=89,sms=64,...", 0, 0},
        CLI_JSON_OPTION(o.json),
        {"graph", 0, OPTION_FLAG, &o.graph, NULL,
         "print the graph that was compiled, as YAML, and nothing else", 0, 0},
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "inspect",
        .arguments = "ARTIFACT.qgc",
        .summary =
            "Shows what is in an artifact. Running one is running a program: look first if it is not yours.",
        .options = options,
    };
    const char *path;
    QGC_TRY(cli_parse_one(command, argc, argv, &path, c->diag));
    if (!path)
        return QGC_OK;
    QGC_TRY(check(&o, c->diag));
    qgc_file file;
    QGC_TRY(qgc_file_open(&file, path, c->diag));
    qgc_plan *plan;
    qgc_status status =
        qgc_artifact_unpack(&plan, file.data, file.bytes, (qgc_loc){.source = &file.source}, c->diag);
    if (status == QGC_OK)
        status = show(plan, &o, c);
    qgc_file_close(&file);
    return status;
}
