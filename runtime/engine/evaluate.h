#ifndef QGC_ENGINE_EVALUATE_H
#define QGC_ENGINE_EVALUATE_H

#include <signal.h>

#include "runtime/engine/engine.h"
#include "runtime/engine/stats.h"

/* How well a model predicts texts, and how far its predictions are from those of another model.
 *
 * A text is tokenized by itself, special tokens in it as text, with a BOS in front where the tokenizer adds
 * one, and cut into windows. A window is fed to the model from position 0; the logits at a token are the
 * prediction of the next. Of a window w[0..n) some tokens count:
 *
 *   halves   (stride 0) as llama.cpp's perplexity tool has it. Windows of `ctx` tokens lie one after
 *            another; where the tokenizer adds a BOS, it takes the place of the first token of each. Those
 *            w[i] count for which i > n / 2 (whole numbers). What is left over at the end of a text is left
 *            out, unless the text is shorter than a window: then it is one window, whatever n is, and of two
 *            tokens the second counts.
 *   strides  as in Hugging Face's documentation ("Perplexity of fixed-length models"). A window begins
 *            `stride` tokens after the one before it, the last one where it reaches the end of the text.
 *            Those tokens count that no window before has had, but for the first token of a window, which
 *            nothing predicts: so with stride < ctx every token of a text but the first counts once. A BOS
 *            is in front of the text alone.
 *
 * With p(w[i]) the probability that softmax of the logits at w[i - 1] gives w[i], the perplexity is
 * exp(mean of -ln p) over all tokens that count, in all texts (Jelinek, Mercer, Bahl and Baker 1977).
 * Natural logarithms and double precision, of float32 logits.
 *
 * Against another model, for each token that counts: the Kullback-Leibler divergence sum_v P(v) ln(P(v) /
 * Q(v)), in nats, P of the other and Q of this one, over the whole vocabulary; and a flip where the most
 * likely token (the lowest of equals) is another one. A flip is a near tie where in both models the logits
 * of those two tokens are less than QGC_NEAR_TIE apart. */

#define QGC_NEAR_TIE 0.01

typedef struct {
    const char *name; /* for messages */
    const char *text;
    size_t bytes;
} qgc_evaluate_text;

typedef struct {
    int64_t ctx;                /* tokens of a window, 2 or more; 0: 512, or as many as the model takes */
    int64_t stride;             /* 0: halves; else 1 to ctx */
    const char *mode, *prefill; /* of a GPU: runtime/engine/rows.h */
    qgc_engine *against;        /* another model, or this one elsewhere; NULL: none */
    const volatile sig_atomic_t *stop; /* where not 0, it ends with QGC_INTERRUPTED; may be NULL */
    /* Tokens done and in all; may be NULL. */
    void (*progress)(void *context, size_t done, size_t total);
    void *context;
} qgc_evaluate_options;

/* A place in the texts. */
typedef struct {
    size_t text;
    int64_t at;         /* index of the token in the text, a BOS in front is 0; -1: there is no place */
    int32_t token;      /* that stands there */
    const char *before; /* what is before it: the pieces of some tokens */
    size_t before_bytes;
    const char *piece;
    size_t piece_bytes;
} qgc_evaluate_place;

typedef struct {
    int64_t ctx, stride;
    const char *how, *against_how; /* see qgc_rows_how; NULL: there is no other */
    int64_t texts, windows;
    int64_t tokens;    /* of the texts, BOS included */
    int64_t counted;   /* of them */
    int64_t left_out;  /* in no window: ends of texts */
    int64_t fed;       /* tokens fed to the model, in all windows */
    double loss;       /* mean of -ln p */
    double loss_error; /* standard error of that mean, tokens taken as independent */
    double perplexity;

    /* against another */
    double against_loss, against_perplexity;
    qgc_drift drift;          /* reference: the other */
    double kl_999;            /* 99.9th percentile of the divergence */
    int64_t near_ties;        /* of the flips */
    qgc_evaluate_place worst; /* the token that counts with the largest divergence */
} qgc_evaluation;

/* The result lives in the arena of `d`. Errors: a text that is not UTF-8 (with its name and the offset), or
 * shorter than 2 tokens; two models of different vocabularies; logits that are not numbers or infinite (with
 * the text and the position); those of qgc_rows_new. */
QGC_MUST_USE qgc_status qgc_evaluate(qgc_engine *e, const qgc_evaluate_text *texts, size_t n,
                                     const qgc_evaluate_options *o, qgc_evaluation *out, qgc_diag *d);

#endif
