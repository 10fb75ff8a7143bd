#include "graph/op.h"

#include <assert.h>
#include <string.h>

#define OP(tag, name, min_in, max_in, n_out, signature, attrs, function, traits, summary) \
    qgc_infer_fn infer_##function;                                                        \
    qgc_ref_fn ref_##function, ref_##function##_double;
#include "graph/ops.def"
#undef OP

#define NUMBER(attr_name) \
    { .name = attr_name }
#define OPTION(attr_name, value) \
    { .name = attr_name, .optional = true, .usual = value }
#define CHOICE(attr_name, ...)                        \
    {                                                 \
        .name = attr_name, .choices = { __VA_ARGS__ } \
    }
#define ATTRS(...) \
    { __VA_ARGS__ }
#define NO_ATTRS \
    {            \
        { 0 }    \
    }

const qgc_op_info qgc_ops[QGC_N_OPS] = {
#define OP(tag, yaml_name, min_in, max_in, n_out, inputs, attributes, function, op_traits, what) \
    [QGC_OP_##tag] = {.name = yaml_name,                                                         \
                      .min_inputs = min_in,                                                      \
                      .max_inputs = max_in,                                                      \
                      .n_outputs = n_out,                                                        \
                      .traits = op_traits,                                                       \
                      .signature = inputs,                                                       \
                      .summary = what,                                                           \
                      .attrs = attributes,                                                       \
                      .infer = infer_##function,                                                 \
                      .ref = ref_##function,                                                     \
                      .ref_double = ref_##function##_double},
#include "graph/ops.def"
#undef OP
};

qgc_op qgc_op_named(const char *name) {
    for (int i = 0; i < QGC_N_OPS; i++)
        if (strcmp(qgc_ops[i].name, name) == 0)
            return (qgc_op)i;
    return QGC_N_OPS;
}

int qgc_attr_index(qgc_op op, const char *name) {
    int i = 0;
    while (qgc_ops[op].attrs[i].name && strcmp(qgc_ops[op].attrs[i].name, name) != 0)
        i++;
    assert(qgc_ops[op].attrs[i].name);
    return i;
}
