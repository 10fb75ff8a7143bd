#ifndef QGC_MODELS_GGUF_H
#define QGC_MODELS_GGUF_H

/* Types of the values of keys, numbered as in the file (models/weights_gguf.c). */
typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_N_TYPES
} gguf_type;

#endif
