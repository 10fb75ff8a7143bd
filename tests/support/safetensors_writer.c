#include "tests/support/safetensors_writer.h"

#include <string.h>

#include "tests/support/gguf_writer.h"

/* not in the order of the data, and padded with spaces as the usual writers do */
const char safetensors_sample_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[12,28]},"
    "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
    "\"c\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[28,34]}}   ";

qgc_str safetensors_file(qgc_arena *a, const char *header, size_t n_data) {
    qgc_str s = qgc_str_new(a);
    gguf_put(&s, strlen(header), 8);
    qgc_str_add(&s, header);
    gguf_put_data(&s, n_data);
    return s;
}
