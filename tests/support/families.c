#include "tests/support/families.h"

#include <string.h>

#include "graph/base/file.h"
#include "tests/support/cmocka.h"

const family_sample family_samples[] = {
    {"llama", "llama"},
    {"llama", "llama/model.gguf"},
    {"llama", "llama-tied"},
    {"llama", "llama-tied/model.gguf"},
    {"llama", "llama-bias"},
    {"llama", "llama-bias/model.gguf"},
    {"llama", "llama3"},
    {"llama", "llama3/model.gguf"},
    {"llama", "llama-linear"},
    {"llama", "llama-linear/model.gguf"},
    {"llama", "llama-yarn"},
    {"llama", "llama-yarn/model.gguf"},
    {"llama", "llama-yarn-half"},
    {"llama", "llama-yarn-half/model.gguf"},
    {"mistral", "mistral"},
    {"mistral", "mistral/model.gguf"},
    {"mistral", "mistral-window"},
    {"mistral", "mistral-window/model.gguf"},
    {"qwen2", "qwen2"},
    {"qwen2", "qwen2/model.gguf"},
    {"qwen2", "qwen2-window"},
    {"qwen2", "qwen2-yarn"},
    {"qwen2", "qwen2-yarn/model.gguf"},
    {"qwen3", "qwen3"},
    {"qwen3", "qwen3/model.gguf"},
    {"qwen3", "qwen3-yarn"},
    {"qwen3", "qwen3-yarn/model.gguf"},
    {"qwen3", "qwen3-window"},
    {"olmo2", "olmo2"},
    {"olmo2", "olmo2/model.gguf"},
    {"granite", "granite"},
    {"granite", "granite/model.gguf"},
    {"smollm3", "smollm3"},
    {"smollm3", "smollm3/model.gguf"},
    {"phi3", "phi3"},
    {"phi3", "phi3/model.gguf"},
    {"phi3", "phi3-window"},
    {"phi3", "phi3-window/model.gguf"},
    {"phi3", "phi3-longrope"},
    {"phi3", "phi3-longrope/model.gguf"},
    {"phi3", "phi3-longrope-short"},
    {"gemma", "gemma"},
    {"gemma", "gemma/model.gguf"},
    {"gemma2", "gemma2"},
    {"gemma2", "gemma2/model.gguf"},
    {"gemma2", "gemma2-scale"},
    {"stablelm", "stablelm"},
    {"stablelm", "stablelm/model.gguf"},
    {"phi2", "phi"},
    {"phi2", "phi/model.gguf"},
    {"gpt_neox", "gpt_neox"},
    {"gpt_neox", "gpt_neox/model.gguf"},
    {"gpt2", "gpt2"},
    {"gpt2", "gpt2/model.gguf"},
    {"gpt2", "gpt2-bare"},
    {"gemma3", "gemma3"},
    {"gemma3", "gemma3-linear"},
    {"gemma3", "gemma3/model.gguf"},
    {"qwen3_moe", "qwen3_moe"},
    {"qwen3_moe", "qwen3_moe/model.gguf"},
    {"qwen3_moe", "qwen3_moe-unnormed"},
    {"qwen2_moe", "qwen2_moe"},
    {"qwen2_moe", "qwen2_moe/model.gguf"},
    {"mixtral", "mixtral"},
    {"mixtral", "mixtral/model.gguf"},
    {"mixtral", "mixtral-window"},
    {"olmoe", "olmoe"},
    {"olmoe", "olmoe/model.gguf"},
    {"phi3", "phi3-longrope-wide"},
    {"llama", "llama-sinks"},
    {"mistral", "mistral-sinks-wide"},
    {"gemma2", "gemma2-terse"},
    {"gemma2", "gemma2-uncapped"},
    {"smollm3", "smollm3-terse"},
    {"mixtral", "mixtral-terse"},
    {"gpt_neox", "gpt_neox-terse"},
    {"qwen2_moe", "qwen2_moe-window"},
    {"qwen3_moe", "qwen3_moe-window"},
    {"qwen3_moe", "qwen3_moe-wide"},
    {"llama", "llama3-wide"},
    {"llama", "llama3-wide/model.gguf"},
    {"mistral", "mistral-wide"},
    {"qwen2", "qwen2-wide"},
    {"qwen3", "qwen3-wide"},
    {"qwen3", "qwen3-wide/model.gguf"},
    {"qwen3", "qwen3-96-wide"},
    {"gemma", "gemma-256-wide"},
    {"olmo2", "olmo2-wide"},
    {"phi3", "phi3-wide"},
    {"gemma2", "gemma2-wide"},
    {"gemma3", "gemma3-wide"},
    {"granite", "granite-wide"},
    {"smollm3", "smollm3-wide"},
    {"stablelm", "stablelm-wide"},
    {"stablelm", "stablelm-parallel-wide"},
    {"gpt_neox", "gpt_neox-wide"},
    {"gpt_neox", "gpt_neox-sequential-wide"},
    {"gpt_neox", "gpt_neox-sequential-wide/model.gguf"},
    {"phi2", "phi-wide"},
    {"gpt2", "gpt2-wide"},
};
const size_t n_family_samples = sizeof family_samples / sizeof *family_samples;

family_golden family_golden_read(qgc_arena *a, const char *model) {
    const int length = (int)strcspn(model, "/");
    qgc_diag d = qgc_diag_new(a);
    qgc_file file;
    if (qgc_file_open(&file, qgc_arena_printf(a, FAMILIES_FOLDER "%.*s/golden.bin", length, model), &d) !=
        QGC_OK)
        fail_msg("%s", qgc_diag_message(&d));
    char *copy = qgc_arena_alloc(a, file.bytes);
    memcpy(copy, file.data, file.bytes);
    const uint32_t *head = (const uint32_t *)(const void *)copy;
    const size_t n_logits = (size_t)head[0] * head[1];
    const float *logits = (const float *)(const void *)(head + 2 + head[0]);
    const uint32_t *text = head + 2 + head[0] + n_logits + 1;
    assert_in_range(file.bytes, 4 * (2 + head[0] + n_logits + 2), SIZE_MAX);
    assert_int_equal(file.bytes, 4 * (2 + head[0] + n_logits + 2 + 2 * (size_t)text[0]));
    qgc_file_close(&file);
    return (family_golden){.n = (int)head[0],
                           .vocab = (int)head[1],
                           .ids = (const int32_t *)(head + 2),
                           .logits = logits,
                           .rounded = (double)logits[n_logits],
                           .n_text = (int)text[0],
                           .text = (const int32_t *)(text + 1),
                           .margins = (const float *)(const void *)(text + 1 + text[0])};
}
