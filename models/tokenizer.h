#ifndef QGC_MODELS_TOKENIZER_H
#define QGC_MODELS_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "graph/base/diag.h"
#include "graph/base/str.h"
#include "models/weights.h"

/* Text to token ids and back, by BPE (Sennrich et al. 2016, arxiv.org/abs/1508.07909): over bytes as in GPT-2, Llama 3
 * and Qwen, or over characters with a fallback to bytes as in SentencePiece, Llama 2 and Gemma. Ids equal those of
 * Hugging Face `tokenizers`. A component that is not known is refused by name, never guessed. */
typedef struct qgc_tokenizer qgc_tokenizer;

/* Token ids in an arena, growing. */
typedef struct {
    qgc_arena *arena;
    int32_t *ids;
    size_t n, room;
} qgc_tokens;

qgc_tokens qgc_tokens_new(qgc_arena *arena);
void qgc_tokens_add(qgc_tokens *t, int32_t id);

/* The tokenizer of a weights file: the tables inside a GGUF, or tokenizer.json (with tokenizer_config.json
 * and generation_config.json where they are) in the folder of the safetensors. */
QGC_MUST_USE qgc_status qgc_tokenizer_open(qgc_tokenizer **out, const qgc_weights *w, qgc_diag *d);

/* From a tokenizer.json by its path; the other two files are looked for beside it. */
QGC_MUST_USE qgc_status qgc_tokenizer_open_json(qgc_tokenizer **out, const char *path, qgc_diag *d);

void qgc_tokenizer_close(qgc_tokenizer *t);

/* Number of ids: 1 + the largest. A model may have more rows than this. */
int32_t qgc_tokenizer_size(const qgc_tokenizer *t);

/* Appends the ids of `bytes` bytes of UTF-8. With `specials`, added special tokens written in the text
 * become their ids; without, they are ordinary text. Bytes that are not UTF-8 are an error that names the
 * offset. Nothing is put before or after (no BOS); a text appended to ids does not start a text, which counts where a
 * blank is put in front of that alone. */
QGC_MUST_USE qgc_status qgc_tokenizer_encode(qgc_tokenizer *t, const char *text, size_t bytes, bool specials,
                                             qgc_tokens *out, qgc_diag *d);

/* The same for a whole text into an empty `out`: with the BOS in front where the files say so and the ids do not start
 * with it already. */
QGC_MUST_USE qgc_status qgc_tokenizer_encode_text(qgc_tokenizer *t, const char *text, size_t bytes,
                                                  bool specials, qgc_tokens *out, qgc_diag *d);

/* The bytes that an id stands for (not always whole UTF-8 characters); NULL and 0 bytes for an id that is
 * not in the tables. Special tokens give their name. Lives as long as t. */
const char *qgc_tokenizer_piece(const qgc_tokenizer *t, int32_t id, size_t *bytes);

/* The same for an id that starts a text: without the blank that encoding puts in front, where decoding drops it. */
const char *qgc_tokenizer_first_piece(const qgc_tokenizer *t, int32_t id, size_t *bytes);
bool qgc_tokenizer_is_special(const qgc_tokenizer *t, int32_t id);

/* The id of an added token by its exact text, or -1. */
int32_t qgc_tokenizer_special_id(const qgc_tokenizer *t, const char *text);

/* Does generation stop here? The set is what the files say: the eos, eot and eom ids of a GGUF; generation_config.json,
 * where that does not say config.json, and where neither does the eos_token of tokenizer_config.json. */
bool qgc_tokenizer_is_eos(const qgc_tokenizer *t, int32_t id);

/* The chat template (Jinja text) as the file states it, or NULL. */
const char *qgc_tokenizer_chat_template(const qgc_tokenizer *t);

#endif
