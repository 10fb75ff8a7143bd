#include "tests/support/cubin.h"

#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Attributes of .nv.info, which NVIDIA documents nowhere; cuobjdump -elf prints them under these names. */
enum {
    EIATTR_MAX_THREADS = 0x05,
    EIATTR_FRAME_SIZE = 0x11,
    EIATTR_REGCOUNT = 0x2f,
    RESERVED = 1024,  /* bytes that the system takes of a block's, which are no part of its limit */
    FORMAT_BYTES = 4, /* of an attribute: a length and so many bytes */
};

typedef struct {
    const unsigned char *data;
    size_t bytes;
    Elf64_Ehdr head;
    const char *names;
    int entry; /* the symbol of the kernel */
} cubin;

static bool is_inside(const cubin *c, uint64_t offset, uint64_t bytes) {
    return offset <= c->bytes && bytes <= c->bytes - offset;
}

static Elf64_Shdr section(const cubin *c, int i) {
    Elf64_Shdr s = {0};
    const uint64_t at = c->head.e_shoff + (uint64_t)i * c->head.e_shentsize;
    if (i < c->head.e_shnum && is_inside(c, at, sizeof s))
        memcpy(&s, c->data + at, sizeof s);
    return s;
}

static bool is_named(const cubin *c, const Elf64_Shdr *s, const char *prefix, const char *entry) {
    char name[256];
    snprintf(name, sizeof name, "%s%s", prefix, entry);
    return strcmp(c->names + s->sh_name, name) == 0;
}

static uint32_t word(const unsigned char *p) {
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* One attribute that has bytes; the first word of some is the symbol that they are about. */
static void take(const cubin *c, int attribute, const unsigned char *p, size_t bytes, cubin_facts *out) {
    const bool ours = bytes >= 8 && (int)word(p) == c->entry;
    if (attribute == EIATTR_REGCOUNT && ours)
        out->registers = (int)word(p + 4);
    else if (attribute == EIATTR_FRAME_SIZE && bytes >= 8 && (int)word(p + 4) > out->stack_bytes)
        out->stack_bytes = (int)word(p + 4); /* of functions that it calls too */
    else if (attribute == EIATTR_MAX_THREADS && bytes >= 4)
        out->threads = (int)word(p);
}

static void read_info(const cubin *c, const Elf64_Shdr *s, cubin_facts *out) {
    const unsigned char *p = c->data + s->sh_offset, *end = p + s->sh_size;
    while (end - p >= 4) {
        uint16_t bytes;
        memcpy(&bytes, p + 2, sizeof bytes);
        if (p[0] != FORMAT_BYTES) {
            p += 4;
            continue;
        }
        if (end - p - 4 < bytes)
            return;
        take(c, p[1], p + 4, bytes, out);
        p += 4 + bytes;
    }
}

/* The number of the symbol of the kernel, -1 if there is none. */
static int find_entry(const cubin *c, const char *entry) {
    for (int i = 0; i < c->head.e_shnum; i++) {
        const Elf64_Shdr table = section(c, i), texts = section(c, (int)table.sh_link);
        if (table.sh_type != SHT_SYMTAB || !is_inside(c, table.sh_offset, table.sh_size))
            continue;
        for (uint64_t k = 0; (k + 1) * sizeof(Elf64_Sym) <= table.sh_size; k++) {
            Elf64_Sym symbol;
            memcpy(&symbol, c->data + table.sh_offset + k * sizeof symbol, sizeof symbol);
            if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC &&
                strcmp((const char *)c->data + texts.sh_offset + symbol.st_name, entry) == 0)
                return (int)k;
        }
    }
    return -1;
}

bool cubin_read(const void *data, size_t bytes, const char *entry, cubin_facts *out) {
    cubin c = {.data = data, .bytes = bytes};
    *out = (cubin_facts){0};
    if (bytes < sizeof c.head || memcmp(data, ELFMAG, SELFMAG) != 0)
        return false;
    memcpy(&c.head, data, sizeof c.head);
    c.names = (const char *)c.data + section(&c, c.head.e_shstrndx).sh_offset;
    c.entry = find_entry(&c, entry);
    bool reserves = false;
    for (int i = 0; i < c.head.e_shnum && c.entry >= 0; i++) {
        const Elf64_Shdr s = section(&c, i);
        const bool of_all = is_named(&c, &s, ".nv.info", ""), ours = is_named(&c, &s, ".nv.info.", entry);
        if ((of_all || ours) && is_inside(&c, s.sh_offset, s.sh_size))
            read_info(&c, &s, out);
        else if (is_named(&c, &s, ".nv.shared.", entry))
            out->shared_bytes = (int)s.sh_size;
        reserves = reserves || is_named(&c, &s, ".nv.shared.reserved.", "0");
    }
    if (reserves && out->shared_bytes >= RESERVED)
        out->shared_bytes -= RESERVED;
    return c.entry >= 0 && out->registers > 0;
}
