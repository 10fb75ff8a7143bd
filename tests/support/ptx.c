/* Pointers are followed from the parameters through registers: a register that is computed from others may point where any of
 * them does, whatever way control took (registers are assigned once but for loops and branches that meet, so this loses
 * little). Each load, store and atomic operation on global memory is then one on the parameters that its address comes from.
 * What may run before a wait is what is reached from the entry without passing one. */

#include "tests/support/ptx.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/plan.h"
#include "graph/base/map.h"

/* Bit i: comes from parameter i. */
typedef struct {
    uint32_t is; /* an address that is parameter i plus something */
    uint32_t
        from; /* a number of 64 bits that was read from where parameter i points: it may be an address too */
} origin;

typedef struct {
    const char *text;      /* "ld.global.f32 %f1, [%rd2+4]" without its predicate */
    const char *operands;  /* after the opcode */
    const char *predicate; /* "@%p1", or NULL */
    size_t block;
    bool reached_early;
} statement;

typedef struct {
    qgc_arena *arena;
    const char *entry;
    statement *list;
    size_t n;
    qgc_map labels;       /* of a block ("3 over"), to the number of the statement after it */
    size_t *around;       /* [n_blocks] of blocks in braces, which have their own labels: what each is in */
    size_t n_blocks, now; /* the one that is being read */
    qgc_map registers;    /* to an origin */
    origin local, shared; /* of all that was put there */
    bool changed;
} reader;

/* --- text to statements ---------------------------------------------------------------------------------- */

static bool begins(const char *text, const char *word) {
    return strncmp(text, word, strlen(word)) == 0;
}

/* The text without comments, white space as single blanks. */
static char *cleaned(const char *from, const char *end, qgc_arena *a) {
    char *out = qgc_arena_alloc(a, (size_t)(end - from) + 1), *to = out;
    while (from < end) {
        if (begins(from, "//"))
            from += strcspn(from, "\n");
        else if (isspace((unsigned char)*from)) {
            from += strspn(from, " \t\n\r");
            *to++ = ' ';
        } else
            *to++ = *from++;
    }
    *to = 0;
    return out;
}

static const char *label_of(const reader *r, size_t block, const char *name, size_t bytes) {
    return qgc_arena_printf(r->arena, "%zu %.*s", block, (int)bytes, name);
}

static void add_label(reader *r, const char *name, size_t bytes) {
    size_t *at = qgc_arena_alloc(r->arena, sizeof *at);
    *at = r->n;
    qgc_map_put(&r->labels, label_of(r, r->now, name, bytes), at);
}

static void enter_block(reader *r) {
    r->around = qgc_arena_grow(r->arena, r->around, r->n_blocks, sizeof *r->around);
    r->around[r->n_blocks] = r->now;
    r->now = r->n_blocks++;
}

/* Skips blanks, braces of blocks, and labels. */
static char *skip_to_opcode(reader *r, char *at) {
    for (;;) {
        for (; *at == ' ' || *at == '{' || *at == '}'; at++)
            if (*at == '{')
                enter_block(r);
            else if (*at == '}')
                r->now = r->around[r->now];
        size_t name = strcspn(at, " :;,%[");
        if (*at == '.' || at[name] != ':' || at[name + 1] == ':' || name == 0) /* not shared::cluster */
            return at;
        add_label(r, at, name);
        at += name + 1;
    }
}

static void add_statement(reader *r, char *text) {
    statement s = {.text = text, .block = r->now};
    if (*text == '@') {
        s.predicate = text;
        s.text = text + strcspn(text, " ");
        s.text += strspn(s.text, " ");
    }
    s.operands = s.text + strcspn(s.text, " ");
    r->list = qgc_arena_grow(r->arena, r->list, r->n, sizeof *r->list);
    r->list[r->n++] = s;
}

static void split(reader *r, char *body) {
    for (char *at = skip_to_opcode(r, body); *at; at = skip_to_opcode(r, at)) {
        char *end = strchr(at, ';');
        if (end)
            *end = 0;
        if (*at != '.')
            add_statement(r, at);
        at = end ? end + 1 : at + strlen(at);
    }
}

/* --- origins --------------------------------------------------------------------------------------------- */

/* The register or symbol that starts here: its bytes. */
static size_t word_bytes(const char *at) {
    return strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_%$");
}

static origin *origin_of(reader *r, const char *name, size_t bytes) {
    origin *o = qgc_map_get_bytes(&r->registers, name, bytes);
    if (!o) {
        o = qgc_arena_alloc(r->arena, sizeof *o);
        qgc_map_put_bytes(&r->registers, name, bytes, o);
    }
    return o;
}

/* The union over the registers in a piece of text. */
static origin origins_in(reader *r, const char *from, const char *end) {
    origin sum = {0};
    for (const char *at = from; at < end;) {
        size_t bytes = word_bytes(at);
        if (bytes && *at == '%' && !(at[1] == 'p' && isdigit((unsigned char)at[2]))) { /* not a predicate */
            const origin *o = origin_of(r, at, bytes);
            sum.is |= o->is;
            sum.from |= o->from;
        }
        at += bytes ? bytes : 1;
    }
    return sum;
}

static void join(reader *r, origin *to, origin o) {
    r->changed = r->changed || (to->is | o.is) != to->is || (to->from | o.from) != to->from;
    to->is |= o.is;
    to->from |= o.from;
}

/* Every register of the first operand gets an origin. */
static void assign(reader *r, const char *from, const char *end, origin o) {
    for (const char *at = from; at < end;) {
        size_t bytes = word_bytes(at);
        if (bytes && *at == '%')
            join(r, origin_of(r, at, bytes), o);
        at += bytes ? bytes : 1;
    }
}

/* The comma after the first operand, or the end. */
static const char *first_end(const char *operands) {
    int depth = 0;
    const char *at = operands;
    for (; *at && (*at != ',' || depth > 0); at++)
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
    return at;
}

static bool has_word(const char *text, const char *word) {
    const char *end = text + strcspn(text, " "), *found = strstr(text, word);
    return found && found < end;
}

static bool of_64_bits(const char *opcode) {
    return has_word(opcode, ".u64") || has_word(opcode, ".b64") || has_word(opcode, ".s64");
}

/* "[kernel_param_3+8]": 3, if this is where a pointer is loaded from; else -1. */
static int param_of(const reader *r, const char *operands) {
    const char *at = strchr(operands, '[');
    if (!at || !begins(at + 1, r->entry))
        return -1;
    at += 1 + strlen(r->entry);
    return begins(at, "_param_") ? (int)strtol(at + strlen("_param_"), NULL, 10) : -1;
}

/* The address of a memory instruction: `which` bracket, from 0. */
static origin address_of(reader *r, const char *operands, int which) {
    const char *at = operands;
    for (; which >= 0 && (at = strchr(at, '[')); which--)
        at++;
    return at ? origins_in(r, at, at + strcspn(at, "]")) : (origin){0};
}

static origin loaded(reader *r, const statement *s) {
    const int param = param_of(r, s->operands);
    if (!of_64_bits(s->text))
        return (origin){0};
    if (has_word(s->text, ".param"))
        return (origin){.is = param >= 0 ? 1u << param : 0};
    if (has_word(s->text, ".shared"))
        return r->shared;
    if (has_word(s->text, ".local"))
        return r->local;
    origin address = address_of(r, s->operands, 0);
    return (origin){.from = address.is | address.from};
}

static void flow(reader *r, const statement *s) {
    const char *end = first_end(s->operands);
    if (begins(s->text, "ld.") || begins(s->text, "ldu."))
        assign(r, s->operands, end, loaded(r, s));
    else if (begins(s->text, "st.") && of_64_bits(s->text) && has_word(s->text, ".shared"))
        join(r, &r->shared, origins_in(r, end, end + strlen(end)));
    else if (begins(s->text, "st.") && of_64_bits(s->text) && has_word(s->text, ".local"))
        join(r, &r->local, origins_in(r, end, end + strlen(end)));
    else if (*s->operands && !strchr(s->operands, '['))
        assign(r, s->operands, end, origins_in(r, end, end + strlen(end)));
}

/* --- effects --------------------------------------------------------------------------------------------- */

/* On the memory that is at stake here: global, or of any space. */
static bool is_outside(const char *opcode) {
    return has_word(opcode, ".global") || (!has_word(opcode, ".shared") && !has_word(opcode, ".local") &&
                                           !has_word(opcode, ".param") && !has_word(opcode, ".const"));
}

/* What an instruction does through which of its brackets; 0: nothing to global memory. */
static int effect_of(const char *opcode, int *bracket) {
    *bracket = 0;
    if (begins(opcode, "cp.async") && has_word(opcode, ".global") && strchr(opcode, '[')) {
        if (begins(opcode, "cp.async.bulk.global"))
            return QGC_WRITES;
        *bracket = begins(opcode, "cp.async.bulk.prefetch") ? 0 : 1;
        return QGC_READS;
    }
    if (!is_outside(opcode))
        return 0;
    if (begins(opcode, "ld.") || begins(opcode, "ldu.") || begins(opcode, "prefetch"))
        return QGC_READS;
    if (begins(opcode, "st."))
        return QGC_WRITES;
    return begins(opcode, "atom.") || begins(opcode, "red.") ? QGC_READS | QGC_WRITES : 0;
}

static void add_effect(reader *r, const statement *s, ptx_effects *e) {
    int bracket, effect = effect_of(s->text, &bracket);
    if (begins(s->text, "griddepcontrol.launch_dependents")) {
        e->lets_next_start = true;
        e->before_wait = e->before_wait || s->reached_early;
    }
    const char *end = first_end(s->operands);
    const origin stored = origins_in(r, end, end + strlen(end));
    if (begins(s->text, "st.param") && (stored.is || stored.from))
        e->hands_on = true;
    if (begins(s->text, "brx") || begins(s->text, "cp.reduce") || begins(s->text, "multimem"))
        e->unclear = s->text;
    if (!effect)
        return;
    origin address = address_of(r, s->operands, bracket);
    for (int i = 0; i < PTX_MAX_PARAMS; i++) {
        e->access[i] |= address.is >> i & 1 ? effect | (s->reached_early ? QGC_EARLY : 0) : 0;
        if (!address.is && (address.from >> i & 1)) { /* beside a pointer that is known it is an index */
            e->access[i] |= QGC_FOLLOWS;
            if ((effect & QGC_WRITES) &&
                s->reached_early) /* what is followed early is only read (codegen/plan.h) */
                e->unclear = s->text;
        }
    }
    if ((effect & QGC_WRITES) && !address.is && !address.from && has_word(s->text, ".global"))
        e->unclear = s->text;
}

/* --- what comes before a wait ---------------------------------------------------------------------------- */

static bool is_wait(const statement *s) {
    return begins(s->text, "griddepcontrol.wait");
}

/* The number of the statement that a branch goes to; of one to a label that is not there, the number after the last one. */
static size_t target_of(const reader *r, const statement *s) {
    const char *name = s->operands + strspn(s->operands, " ");
    for (size_t block = s->block;; block = r->around[block]) {
        const size_t *target = qgc_map_get(&r->labels, label_of(r, block, name, strcspn(name, " ")));
        if (target || block == 0)
            return target ? *target : r->n;
    }
}

/* Marks what is reached from the entry without a wait; true if an end is among it. */
static bool reach(reader *r) {
    size_t *todo = qgc_arena_array(r->arena, 2 * r->n + 1, sizeof *todo), n = 0;
    bool ends = false;
    todo[n++] = 0;
    while (n > 0) {
        size_t at = todo[--n];
        if (at >= r->n) {
            ends = true;
            continue;
        }
        statement *s = &r->list[at];
        if (s->reached_early || is_wait(s))
            continue;
        s->reached_early = true;
        const bool branch = begins(s->text, "bra"), end = begins(s->text, "ret") || begins(s->text, "exit");
        ends = ends || end;
        if (branch)
            todo[n++] = target_of(r, s);
        if ((!branch && !end) || s->predicate)
            todo[n++] = at + 1;
    }
    return ends;
}

/* The brace that closes the one at `at`: instructions that are written as text may bring blocks of their own. */
static const char *closing(const char *at) {
    int depth = 0;
    for (; *at; at++) {
        depth += (*at == '{') - (*at == '}');
        if (depth == 0)
            return at;
    }
    return NULL;
}

ptx_effects ptx_effects_of(const char *ptx, const char *entry, qgc_arena *a) {
    ptx_effects e = {0};
    const char *head = strstr(ptx, qgc_arena_printf(a, ".entry %s(", entry));
    const char *body = head ? strstr(head, "\n{") : NULL, *end = body ? closing(body + 1) : NULL;
    if (!end)
        return e;
    e.found = true;
    reader r = {.arena = a, .entry = entry, .labels = qgc_map_new(a), .registers = qgc_map_new(a)};
    enter_block(&r);
    split(&r, cleaned(body, end, a));
    do {
        r.changed = false;
        for (size_t i = 0; i < r.n; i++)
            flow(&r, &r.list[i]);
    } while (r.changed);
    e.waits = !reach(&r);
    for (size_t i = 0; i < r.n; i++)
        add_effect(&r, &r.list[i], &e);
    return e;
}
