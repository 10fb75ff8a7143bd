#ifndef QGC_H
#define QGC_H

/* libqgc: compiles the op graph of a language model to CUDA kernels, and makes text with it, on a GPU or
 * on the CPU.
 *
 *     qgc_open_options o = {.size = sizeof o, .path = "model.qgc"};
 *     qgc_error *e = qgc_open(&engine, &o);
 *     if (!e) e = qgc_encode(engine, prompt, strlen(prompt), QGC_TEXT_WHOLE, ids, 512, &n);
 *     if (!e) e = qgc_begin(&text, engine, NULL);
 *     if (!e) e = qgc_feed(text, ids, n, &token);
 *     while (!e && !qgc_is_end(engine, token)) { ... qgc_piece(...) ... e = qgc_step(text, 1, &token); }
 *
 * docs/examples has this as a program, and in Python.
 *
 * Errors are values: a function that can fail returns NULL, or an error that the caller frees. What it was
 * to make is then NULL. Where the host has no memory left, that is an error too, and never the end of the
 * process; an engine that was in use then is broken: all calls but those that close it fail. What was half
 * made at that moment is lost to the process.
 *
 * Threads: an engine, with all of its sequences, is used by one thread at a time. Different engines are
 * independent of each other. The library starts threads of its own for the CPU's share of the work
 * (qgc_open_options.threads), calls back on the caller's thread only, and keeps nothing outside of the
 * objects that it hands out, but for what it read from standard input. It installs no signal handlers: a
 * weights file that shrinks while it is open ends the process by SIGBUS. Text is UTF-8. "-" as a path is
 * standard input.
 *
 * Structs of options begin with their size, by which a later library tells what the caller knows of;
 * everything that is 0 has its default. Passes of one's own (qgc compile --load-pass) are for the command:
 * artifacts made with them run here. */

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QGC_API __attribute__((visibility("default")))
#define QGC_CHECK __attribute__((warn_unused_result))
#else
#define QGC_API
#define QGC_CHECK
#endif

/* Raised by a change after which programs have to be compiled anew. qgc_abi() says what the library has. */
#define QGC_ABI 1
QGC_API int qgc_abi(void);

/* "0.1.0 (1a2b3c4d5e6f)": the version, and the commit where it was known. */
QGC_API const char *qgc_version(void);

/* --- errors ---------------------------------------------------------------------------------------------- */

typedef struct qgc_error qgc_error;

enum {
    QGC_CODE_INPUT = 1,  /* a file, a graph or a text is at fault */
    QGC_CODE_USAGE = 2,  /* the call is */
    QGC_CODE_DEVICE = 3, /* the GPU, its driver or its libraries are, or memory is */
};

/* Texts live as long as the error. */
QGC_API int qgc_error_code(const qgc_error *e);
QGC_API const char *qgc_error_message(const qgc_error *e); /* one line */
QGC_API const char *qgc_error_hint(const qgc_error *e);    /* what to do about it, or NULL */
QGC_API const char *qgc_error_file(const qgc_error *e);    /* where, or NULL; */
QGC_API int qgc_error_line(const qgc_error *e);            /* from 1 on, 0: unknown */
QGC_API int qgc_error_column(const qgc_error *e);
QGC_API const char *qgc_error_text(const qgc_error *e); /* all of it, as the command prints it */
QGC_API void qgc_error_free(qgc_error *e);              /* NULL is allowed */

/* --- engines --------------------------------------------------------------------------------------------- */

/* A model that is ready to run. */
typedef struct qgc_engine qgc_engine;

typedef struct {
    size_t size; /* sizeof(qgc_open_options) */
    /* An artifact, or a graph, which is then compiled in memory. NULL: only the tokenizer is opened. */
    const char *path;
    /* A GGUF file, a safetensors file or a Hugging Face folder. NULL: what the artifact records. */
    const char *weights;
    const char *device;       /* "auto" (or NULL: a GPU if there is one), "gpu", "gpu:1", "cpu" */
    const char *arch;         /* run this image of the artifact and no other ("sm_90a"); NULL: the best */
    const char *passes;       /* of a graph: only these, "fuse-qkv,fuse-swiglu"; NULL: all; "" for none */
    const char *skip;         /* of a graph: all but these */
    const char *cache_folder; /* of compiled kernels; NULL: ~/.cache/qgc */
    const char *nvrtc;        /* libnvrtc.so to use; NULL: it is looked for */
    int32_t threads;          /* of the CPU; 0: all */
    int32_t allow_unused;     /* not 0: weights that the graph does not use are let pass */
    /* How far something that takes long is ("weights", "kernels", "prompt"), and a line for people. Either
     * may be NULL. */
    void (*progress)(void *context, const char *what, size_t done, size_t total);
    void (*note)(void *context, const char *line);
    void *context;
} qgc_open_options;

/* All texts of the options are copied. */
QGC_API QGC_CHECK qgc_error *qgc_open(qgc_engine **out, const qgc_open_options *options);

/* After its sequences have ended. NULL is allowed. */
QGC_API void qgc_close(qgc_engine *engine);

/* "NVIDIA H100 80GB HBM3, sm_90a" or "cpu, 2 threads". */
QGC_API const char *qgc_get_device(const qgc_engine *engine);
QGC_API int64_t qgc_get_vocab(const qgc_engine *engine); /* rows of the logits; 0 without a graph */

/* --- text and tokens ------------------------------------------------------------------------------------- */

enum {
    /* A text from its start: with a BOS in front, where the model wants one. */
    QGC_TEXT_WHOLE = 1,
    /* Special tokens that are written in it ("<|im_end|>") are special; else they are text. */
    QGC_TEXT_SPECIALS = 2,
};

/* The ids of a text. *n is how many they are, and the first `room` of those are in `ids`: call again with
 * more room where *n is larger. */
QGC_API QGC_CHECK qgc_error *qgc_encode(qgc_engine *engine, const char *text, size_t bytes, int flags,
                                        int32_t *ids, size_t room, size_t *n);

/* The bytes that an id stands for, not ended by a zero: not always whole characters, but those of ids in a
 * row are. NULL for an id that is not in the tables. Lives as long as the engine. */
QGC_API const char *qgc_piece(const qgc_engine *engine, int32_t id, size_t *bytes);

/* What somebody says in a conversation: `role` is "system", "user" or "assistant". */
typedef struct {
    const char *role, *content;
} qgc_turn;

/* The ids of a whole conversation by the model's own chat template, up to where its answer begins; like
 * qgc_encode. Special tokens in what is said are text. To go on, add the answer and the next turn and
 * encode it all again: where the ids begin with those that a sequence has taken, only the rest need be fed.
 * Errors, too: weights without a template. */
QGC_API QGC_CHECK qgc_error *qgc_encode_chat(qgc_engine *engine, const qgc_turn *turns, size_t n_turns,
                                             int32_t *ids, size_t room, size_t *n);

/* Does a text end with this token, or, after qgc_encode_chat, an answer? 1 or 0. */
QGC_API int qgc_is_end(const qgc_engine *engine, int32_t id);

/* --- sequences ------------------------------------------------------------------------------------------- */

/* One text: the tokens read and written so far, and the choice of the next. */
typedef struct qgc_sequence qgc_sequence;

typedef struct {
    size_t size; /* sizeof(qgc_begin_options) */
    int64_t ctx; /* positions; 0: as many as the model allows, up to 4096 */
    /* Of steps on a GPU: "stream", "graph", "pdl", "persistent"; "auto" or NULL: the fastest. */
    const char *mode;
    /* Of prompts on a GPU: "chunks" (or NULL), by matrix products; "packed", by those from the order of the weights that persistent
     * mode has, with no other copy, which "chunks" does only where it is as fast; "steps", by decode steps. */
    const char *prefill;
    float temperature;    /* 0: always the most likely token */
    int32_t top_k;        /* 0: all */
    float top_p;          /* 0: all */
    float min_p;          /* 0: all */
    float repeat_penalty; /* 0: none */
    uint64_t seed;
    /* Where not 0, a prompt is not taken further, and qgc_feed chooses -1; may be set by a signal handler.
     * May be NULL. */
    const volatile sig_atomic_t *stop;
} qgc_begin_options;

/* Options may be NULL: all defaults. */
QGC_API QGC_CHECK qgc_error *qgc_begin(qgc_sequence **out, qgc_engine *engine,
                                       const qgc_begin_options *options);
QGC_API void qgc_end(qgc_sequence *text); /* NULL is allowed */

QGC_API const char *qgc_get_mode(const qgc_sequence *text); /* "persistent"; "cpu" on the CPU */
QGC_API int64_t qgc_get_ctx(const qgc_sequence *text);
QGC_API int64_t qgc_get_position(const qgc_sequence *text); /* tokens taken */

/* Takes n >= 1 tokens, and chooses the one that follows the last. */
QGC_API QGC_CHECK qgc_error *qgc_feed(qgc_sequence *text, const int32_t *tokens, size_t n, int32_t *next);

/* Takes the token chosen last, and chooses the next. `wanted` >= 1 is how many of these calls there will
 * be, as far as is known: with 2 or more a GPU begins with the next step while the host still deals with
 * this one. */
QGC_API QGC_CHECK qgc_error *qgc_step(qgc_sequence *text, int64_t wanted, int32_t *next);

/* The logits from which the last token was chosen, qgc_get_vocab of them; after a feed, or a step with 1
 * wanted. */
QGC_API QGC_CHECK qgc_error *qgc_logits(qgc_sequence *text, float *logits);

/* From now on tokens are chosen so. Only the fields from temperature to seed are looked at. */
QGC_API QGC_CHECK qgc_error *qgc_set_sampling(qgc_sequence *text, const qgc_begin_options *options);

/* Back to an empty text. */
QGC_API QGC_CHECK qgc_error *qgc_reset(qgc_sequence *text);

/* --- evaluation ------------------------------------------------------------------------------------------ */

/* How well a model predicts texts, and how far its predictions are from those of another.
 *
 * A text is encoded by itself, as a whole (QGC_TEXT_WHOLE), and cut into windows; each window is fed from
 * position 0, and the logits at a token predict the next one. Of a window w[0..n) these tokens count:
 *
 *   stride 0: as llama.cpp's perplexity tool has it. Windows of `ctx` tokens lie one after another, and
 *       each begins with the BOS, in place of its first token, where the model wants one. w[i] counts for i
 *       > n / 2 (in whole numbers). The end of a text that fills no window is left out; a text shorter than
 *       a window is one of its own length, and of two tokens the second counts.
 *   stride > 0: as Hugging Face's documentation has it. Each window begins `stride` tokens after the one
 *       before, and the last one ends the text. Those w[i], i > 0, count that were in no window before. The
 *       BOS is at the start of the text alone.
 *
 * The loss is the mean of -ln p over all tokens that count, p being the probability that softmax of the
 * logits gives the token; the perplexity is exp(loss) (Jelinek et al. 1977). Against another model with the
 * same vocabulary, for each token that counts: the divergence sum P ln(P / Q) in nats, P of the other
 * (Kullback and Leibler 1951), and a flip where the most likely token is another; it is a near tie where in
 * both models the logits of those two tokens are less than 0.01 apart. All sums are in double precision. */
typedef struct {
    const char *name; /* for errors */
    const char *text;
    size_t bytes;
} qgc_text;

typedef struct {
    size_t size;    /* sizeof(qgc_eval_options) */
    int64_t ctx;    /* tokens of a window, 2 or more; 0: 512, or as many as the model takes */
    int64_t stride; /* 0 to ctx */
    /* On a GPU: "chunks" (or NULL), by matrix products in bf16, compiled for this, which needs NVRTC; or
     * "steps", by decode steps in `mode`, as in qgc_begin_options. */
    const char *prefill, *mode;
    qgc_engine *against;               /* may be on another device, or the same engine; NULL: none */
    const volatile sig_atomic_t *stop; /* where not 0, it ends with `stopped`; may be NULL */
    void (*progress)(void *context, size_t done, size_t total); /* tokens; may be NULL */
    void *context;
} qgc_eval_options;

typedef struct {
    size_t size;     /* sizeof(qgc_eval_result), set by the caller */
    int32_t stopped; /* not 0: the rest means nothing */
    int32_t reserved;
    int64_t ctx, windows;
    int64_t tokens;          /* of the texts, BOS included */
    int64_t counted;         /* of them */
    int64_t left_out;        /* in no window */
    double loss, loss_error; /* and the standard error of that mean, tokens taken as independent */
    double perplexity;
    /* Against another: of this model from that one. 0 where there is none. */
    double against_perplexity;
    double kl_mean, kl_999, kl_max; /* 99.9th percentile, type 7 of Hyndman and Fan */
    double max_drift;               /* largest difference of two logits */
    int64_t flips, near_ties;       /* near ties are flips, too */
    /* Where the divergence is largest: which text, and which of its tokens. */
    int64_t worst_text, worst_token;
} qgc_eval_result;

/* Errors, too: a text that is not UTF-8 or has less than 2 tokens; other vocabularies; logits that are not
 * numbers or infinite, with their text and token. Options may be NULL: all defaults. */
QGC_API QGC_CHECK qgc_error *qgc_eval_texts(qgc_engine *engine, const qgc_text *texts, size_t n,
                                            const qgc_eval_options *options, qgc_eval_result *result);

/* --- artifacts ------------------------------------------------------------------------------------------- */

typedef struct {
    size_t size;         /* sizeof(qgc_compile_settings) */
    const char *graph;   /* path of the YAML */
    const char *output;  /* path of the artifact */
    const char *weights; /* to check against, to take the types of and to record; NULL: none */
    const char *archs; /* "sm_90a,sm_80+ptx" (with compute_80, PTX); NULL: this machine's GPU, else sm_90a */
    const char *passes, *skip, *cache_folder, *nvrtc; /* as in qgc_open_options */
    int64_t chunk;                                    /* largest prefill step; 0: 512 */
    int32_t allow_unused;
    void (*progress)(void *context, const char *what, size_t done, size_t total);
    void *context;
} qgc_compile_settings;

/* A graph to an artifact. Needs NVRTC, and no GPU. */
QGC_API QGC_CHECK qgc_error *qgc_compile_file(const qgc_compile_settings *settings);

/* What is in an artifact, as JSON of one object: model, architectures, modes, and every launch of each
 * phase. It is given to `write`, in one call. */
QGC_API QGC_CHECK qgc_error *qgc_inspect_file(const char *path,
                                              void (*write)(void *context, const char *json, size_t bytes),
                                              void *context);

#ifdef __cplusplus
}
#endif

#endif
