#include <stdio.h>
#include <string.h>

#include "codegen/artifact.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/small_plan.h"

/* Writes the small valid files from which the fuzzers start: make_seeds tests/fuzz/corpus */

static void write_file(qgc_arena *a, const char *folder, const char *name, const qgc_str *s) {
    FILE *f = fopen(qgc_arena_printf(a, "%s/%s", folder, name), "wb");
    if (!f || fwrite(s->text, 1, s->bytes, f) != s->bytes || fclose(f) != 0)
        fprintf(stderr, "could not write %s/%s\n", folder, name);
}

/* One tensor of each type that is read, a row of 256. */
static qgc_str gguf_of_every_type(qgc_arena *a) {
    static const struct {
        uint32_t type;
        size_t bytes;
    } types[] = {{0, 1024}, {1, 512},  {2, 144},  {6, 176},  {7, 192},  {8, 272},
                 {12, 144}, {13, 176}, {14, 210}, {30, 512}, {26, 1024}};
    enum { N_TYPES = sizeof types / sizeof *types };
    qgc_str s = qgc_str_new(a);
    gguf_put_header(&s, 2, N_TYPES, 1);
    gguf_put_key_string(&s, "general.architecture", "llama");
    size_t offset = 0;
    for (size_t i = 0; i < N_TYPES; i++) {
        gguf_put_tensor(&s, qgc_arena_printf(a, "t%zu", i), (uint64_t[]){256, 1}, types[i].type, offset);
        offset = (offset + types[i].bytes + 31) / 32 * 32;
    }
    gguf_put_padding(&s, 32);
    gguf_put_data(&s, offset);
    return s;
}

static qgc_str small_artifact(qgc_arena *a) {
    const void *data;
    size_t bytes;
    qgc_str s = qgc_str_new(a);
    qgc_artifact_pack(small_plan(a), a, &data, &bytes);
    qgc_str_add_bytes(&s, data, bytes);
    return s;
}

int main(int n_args, char **args) {
    if (n_args != 2) {
        fputs("usage: make_seeds FOLDER\n", stderr);
        return 2;
    }
    qgc_arena *a = qgc_arena_new();
    const char *folder = args[1];
    qgc_str s = small_artifact(a);
    write_file(a, folder, "artifact/small", &s);
    s = gguf_sample(a);
    write_file(a, folder, "gguf/sample.gguf", &s);
    s = gguf_of_every_type(a);
    write_file(a, folder, "gguf/types.gguf", &s);
    s = safetensors_file(a, safetensors_sample_header, SAFETENSORS_SAMPLE_BYTES);
    write_file(a, folder, "safetensors/sample.safetensors", &s);
    s = safetensors_file(a, "{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4);
    write_file(a, folder, "safetensors/scalar.safetensors", &s);
    s = qgc_str_new(a);
    qgc_str_add(&s,
                "{\"model_type\": \"qwen2\", \"hidden_size\": 896, \"rms_norm_eps\": 1e-06, \"tie\": true,\n"
                " \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}, \"a\": {\"a\": {\"a\": -3}}}\n");
    write_file(a, folder, "safetensors/config.json", &s);
    qgc_arena_drop(a);
    return 0;
}
