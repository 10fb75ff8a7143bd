#include <math.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/families.h"
#include "tests/support/fixture.h"

/* Families of models (models/) on small models with random weights, against the logits that Hugging Face transformers
 * computes (tests/golden/families). Sizes are read from the weights. */

#define FOLDER FAMILIES_FOLDER

/* Caches in f32, so that nothing is rounded, and more lines of the file. */
static const char *with_f32_caches(fixture *f, const char *family, const char *more) {
    const char *up = "../../../../../../../../../..";
    return fixture_write(f, "family.yaml",
                         qgc_arena_printf(f->arena,
                                          "qgc: 2\nextends: %s%s/models/%s.yaml\nname: small\n"
                                          "state: {k_cache: {dtype: f32}, v_cache: {dtype: f32}}\n%s",
                                          up, QGC_SOURCE_DIR, family, more));
}

/* The difference of the logits of a position, relative to the largest one. */
static double row_distance(const family_golden *g, int t, const float *row) {
    const float *want = g->logits + t * g->vocab;
    double most = 0, apart = 0;
    for (int i = 0; i < g->vocab; i++) {
        most = fmax(most, fabs((double)want[i]));
        apart = fmax(apart, isnan(row[i]) ? INFINITY : fabs((double)row[i] - (double)want[i]));
    }
    return apart / most;
}

/* The largest one of all positions. */
static double distance(const family_golden *g, const float *logits) {
    double worst = 0;
    for (int t = 0; t < g->n; t++)
        worst = fmax(worst, row_distance(g, t, logits + t * g->vocab));
    return worst;
}

static double run(fixture *f, qgc_graph *g, const qgc_weights *w, const family_golden *gold) {
    const qgc_tensor **tensors;
    qgc_pool *pool = qgc_pool_new(1);
    int64_t elems;
    ok(f, qgc_graph_bind(g, w, false, &tensors, &f->diag));
    qgc_eval *e = qgc_eval_new(g, tensors, gold->n, gold->n, pool);
    ok(f, qgc_eval_step(e, gold->ids, gold->n, 0, true, &f->diag));
    const float *logits = qgc_eval_value(e, qgc_graph_output(g, "logits"), &elems);
    assert_int_equal(elems, gold->n * gold->vocab);
    const double apart = distance(gold, logits);
    qgc_eval_drop(e);
    qgc_pool_drop(pool);
    return apart;
}

/* The graph as it was loaded, and as its print is loaded again without any weights at hand. */
static void logits_are_those_of_transformers(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < n_family_samples; i++) {
        const family_sample *s = &family_samples[i];
        const family_golden gold = family_golden_read(f->arena, s->model);
        qgc_weights *w;
        qgc_graph *g, *again;
        ok(f, qgc_weights_open(&w, qgc_arena_printf(f->arena, FOLDER "%s", s->model), &f->diag));
        ok(f, qgc_graph_load_for(&g, with_f32_caches(f, s->family, ""), w, f->arena, &f->diag));
        qgc_str text = qgc_str_new(f->arena), second = qgc_str_new(f->arena);
        qgc_graph_print_yaml(g, &text);
        ok(f, qgc_graph_load_text(&again, "printed", text.text, text.bytes, f->arena, &f->diag));
        qgc_graph_print_yaml(again, &second);
        if (strcmp(text.text, second.text) != 0)
            fail_msg("%s is printed as\n%s\nand then as\n%s", s->model, text.text, second.text);
        const double apart = run(f, g, w, &gold), printed = run(f, again, w, &gold);
        if (!(apart <= 1e-4) || !(printed <= 1e-4))
            fail_msg("%s: logits are %.3g apart, from the printed graph %.3g", s->model, apart, printed);
        qgc_weights_close(w);
    }
}

/* --- step by step ------------------------------------------------------------------------------------------ */

/* Positions that rings have room for beside those of the window, so that all are used again. */
#define SPARE "3"

static int best_of(const float *logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* The logits after one more token. */
static const float *step(fixture *f, qgc_eval *e, const qgc_graph *g, int32_t token, int at) {
    int64_t elems;
    ok(f, qgc_eval_step(e, &token, 1, at, false, &f->diag));
    return qgc_eval_value(e, qgc_graph_output(g, "logits"), &elems);
}

/* How many tokens of transformers' text are not the best after those before them; of two that are nearly equal either is right. */
static int other_tokens(fixture *f, qgc_eval *e, const qgc_graph *g, const family_golden *gold) {
    const double near_tie = 2e-4;
    int others = 0;
    for (int i = 0; i < gold->n_text; i++) {
        const float *logits = step(f, e, g, i ? gold->text[i - 1] : gold->ids[0], i);
        others += best_of(logits, gold->vocab) != gold->text[i] && (double)gold->margins[i] > near_tie;
    }
    return others;
}

static double apart_in_steps(fixture *f, qgc_eval *e, const qgc_graph *g, const family_golden *gold) {
    double worst = 0;
    for (int i = 0; i < gold->n; i++)
        worst = fmax(worst, row_distance(gold, i, step(f, e, g, gold->ids[i], i)));
    return worst;
}

/* With rings that are used several times. */
static void decode_steps_are_those_of_transformers(void **state) {
    static const char rings[] = "params: {ring: {value: \"seen_before ? seen_before + " SPARE " : 0\"}}\n";
    fixture *f = *state;
    for (size_t i = 0; i < n_family_samples; i++) {
        const family_sample *s = &family_samples[i];
        const family_golden gold = family_golden_read(f->arena, s->model);
        const int room = gold.n_text > gold.n ? gold.n_text : gold.n;
        qgc_weights *w;
        qgc_graph *g;
        const qgc_tensor **tensors;
        qgc_pool *pool = qgc_pool_new(1);
        ok(f, qgc_weights_open(&w, qgc_arena_printf(f->arena, FOLDER "%s", s->model), &f->diag));
        ok(f, qgc_graph_load_for(&g, with_f32_caches(f, s->family, rings), w, f->arena, &f->diag));
        ok(f, qgc_graph_bind(g, w, false, &tensors, &f->diag));
        qgc_eval *e = qgc_eval_new(g, tensors, room, 1, pool);
        const double apart = apart_in_steps(f, e, g, &gold);
        const int others = other_tokens(f, e, g, &gold);
        if (!(apart <= 1e-4) || others)
            fail_msg("%s: logits are %.3g apart in steps, %d of %d tokens of a text are others", s->model,
                     apart, others, gold.n_text);
        qgc_eval_drop(e);
        qgc_pool_drop(pool);
        qgc_weights_close(w);
    }
}

/* models/README.md adds a family: its block, as it stands there, beside the files of models/. */
static void the_family_of_the_page_is_right(void **state) {
    static const char start[] = "```yaml\n# OLMo 3", *const files[] = {"llama.yaml", "olmo2.yaml"};
    fixture *f = *state;
    qgc_source page, file;
    qgc_weights *w;
    qgc_graph *g;
    ok(f, qgc_file_read(&page, "models/README.md", 1 << 20, "page", &f->diag));
    const char *block = strstr(page.text, start), *end = block ? strstr(block + 3, "```") : NULL;
    assert_non_null(end);
    fixture_write(f, "olmo3.yaml", qgc_arena_strndup(f->arena, block + 8, (size_t)(end - block) - 8));
    for (size_t i = 0; i < 2; i++) {
        ok(f, qgc_file_read(&file, qgc_arena_printf(f->arena, "models/%s", files[i]), 1 << 20, "family",
                            &f->diag));
        fixture_write(f, files[i], file.text);
    }
    const char *path = fixture_write(f, "small.yaml",
                                     "qgc: 2\nextends: olmo3.yaml\nname: small\n"
                                     "state: {k_cache: {dtype: f32}, v_cache: {dtype: f32}}\n");
    const family_golden gold = family_golden_read(f->arena, "olmo3");
    ok(f, qgc_weights_open(&w, FOLDER "olmo3", &f->diag));
    ok(f, qgc_graph_load_for(&g, path, w, f->arena, &f->diag));
    const double apart = run(f, g, w, &gold);
    if (!(apart <= 1e-4))
        fail_msg("logits are %.3g apart", apart);
    qgc_weights_close(w);
}

/* --- what is stated and not computed ---------------------------------------------------------------------- */

/* A folder like that of a model, with keys put in front of those of its config.json. */
static const char *with_keys(fixture *f, const char *model, const char *keys) {
    qgc_file config, weights;
    qgc_diag *d = &f->diag;
    ok(f, qgc_file_open(&config, qgc_arena_printf(f->arena, FOLDER "%s/config.json", model), d));
    ok(f, qgc_file_open(&weights, qgc_arena_printf(f->arena, FOLDER "%s/model.safetensors", model), d));
    const char *text =
        qgc_arena_printf(f->arena, "{%s%.*s", keys, (int)config.bytes - 1, (const char *)config.data + 1);
    fixture_write(f, "config.json", text);
    ok(f, qgc_file_write(fixture_path(f, "model.safetensors"), weights.data, weights.bytes, d));
    qgc_file_close(&config);
    qgc_file_close(&weights);
    return f->folder;
}

/* A folder like that of a model, with the first `from` of its config.json replaced. */
static const char *with_change(fixture *f, const char *model, const char *from, const char *to) {
    qgc_source config;
    const char *folder = with_keys(f, model, ""), *at;
    ok(f, qgc_file_read(&config, qgc_arena_printf(f->arena, "%s/config.json", folder), 1 << 20, "config",
                        &f->diag));
    at = strstr(config.text, from);
    if (!at)
        fail_msg("the config.json of %s has no %s", model, from);
    fixture_write(
        f, "config.json",
        qgc_arena_printf(f->arena, "%.*s%s%s", (int)(at - config.text), config.text, to, at + strlen(from)));
    return folder;
}

/* What loading and binding say: "" if nothing. */
static const char *said(fixture *f, const char *family, const char *path) {
    const qgc_tensor **tensors;
    qgc_weights *w;
    qgc_graph *g;
    qgc_diag d = qgc_diag_new(f->arena);
    ok(f, qgc_weights_open(&w, path, &f->diag));
    if (qgc_graph_load_for(&g, qgc_arena_printf(f->arena, "models/%s.yaml", family), w, f->arena, &d) ==
        QGC_OK)
        (void)!qgc_graph_bind(g, w, false, &tensors, &d);
    qgc_weights_close(w);
    return qgc_diag_message(&d);
}

static void what_is_not_computed_is_refused(void **state) {
    static const struct {
        const char *family, *model, *keys, *want;
    } cases[] = {
        {"llama", "llama", "", ""},
        {"llama", "llama", "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2},",
         "\"rope_scaling.type\" as \"dynamic\""},
        {"llama", "llama", "\"rope_scaling\": {\"mscale\": 2},", "\"rope_scaling.mscale\" as 2"},
        {"llama", "llama", "\"rope_scaling\": {\"rope_type\": \"linear\"},", "which are both \"scaling\""},
        {"llama", "llama", "\"sliding_window\": 4,", "\"sliding_window\" as 4"},
        {"llama", "llama", "\"logits_scaling\": 4,", "\"logits_scaling\" as 4"},
        {"llama", "llama", "\"final_logit_softcapping\": 30,", "\"final_logit_softcapping\" as 30"},
        {"llama", "llama", "\"quantization_config\": {\"quant_method\": \"gptq\"},",
         "\"quantization_config\""},
        {"llama", "llama", "\"num_local_experts\": 8,", "\"num_local_experts\" as 8"},
        {"llama", "llama", "\"layer_types\": [\"full_attention\"],", "which is no value of parameter"},
        {"llama", "llama", "\"layer_types\": [\"full_attention\", \"linear_attention\"],",
         "which is no value of parameter \"windowed\""},
        {"llama", "qwen2", "", "the model is of architecture \"llama\", but"},
        {"qwen2", "qwen2", "\"partial_rotary_factor\": 0.5, \"hidden_activation\": \"gelu\",",
         "\"hidden_activation\" as \"gelu\""},
        {"gemma3", "gemma3", "\"sliding_window_pattern\": 6,", ""},
        {"gemma3", "gemma3-linear", "\"rope_scaling\": {\"rope_type\": \"yarn\"},",
         "which is no value of parameter \"scaling\""},
        {"gemma3", "gemma3", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 8},",
         "\"rope_scaling.type\" as \"linear\""},
        {"phi3", "phi3-window", "\"layer_types\": [\"sliding_attention\", \"full_attention\"],",
         "\"layer_types\""},
        {"phi3", "phi3-longrope", "", ""},
        {"phi3", "phi3-longrope", "\"rope_scaling\": {\"long_mscale\": 1.2},",
         "\"rope_scaling.long_mscale\" as 1.2"},
        {"stablelm", "stablelm", "\"alibi\": true,", "\"alibi\" as true"},
        {"olmo2", "olmo2", "\"clip_qkv\": 8,", "\"clip_qkv\" as 8"},
        {"gemma", "gemma", "\"hidden_activation\": \"relu\",",
         "which is no value of parameter \"exact_gelu\""},
        {"mixtral", "mixtral", "\"mlp_only_layers\": [], \"decoder_sparse_step\": 1,", ""},
        {"mixtral", "mixtral", "\"mlp_only_layers\": [1],", "\"mlp_only_layers\" as [1]"},
        {"mixtral", "mixtral", "\"decoder_sparse_step\": 2,", "\"decoder_sparse_step\" as 2"},
        {"mixtral", "mixtral", "\"routed_scaling_factor\": 2,", "\"routed_scaling_factor\" as 2"},
        {"qwen3_moe", "qwen2_moe", "", "the model is of architecture \"qwen3_moe\""},
        {"llama", "llama", "\"partial_rotary_factor\": 0.5,", "\"partial_rotary_factor\" as 0.5"},
        {"mixtral", "mixtral-terse", "\"sliding_window\": 0,", "\"sliding_window\" as 0"},
        {"mixtral", "mixtral-terse", "\"sliding_window\": null,", ""},
        {"llama", "llama", "\"use_bidirectional_attention\": true,",
         "\"use_bidirectional_attention\" as true"},
        {"granite", "granite", "\"embedding_scale\": 8, \"scale_emb\": 2,", "\"scale_emb\" as 2"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *message = said(f, cases[i].family, with_keys(f, cases[i].model, cases[i].keys));
        if (*cases[i].want ? !strstr(message, cases[i].want) : *message)
            fail_msg("%s with %s says: %s", cases[i].model, cases[i].keys, message);
    }
}

/* What a file leaves out or states by another key. */
static void what_is_stated_otherwise_is_known_or_refused(void **state) {
    static const struct {
        const char *family, *model, *from, *to, *want;
    } cases[] = {
        {"llama", "llama-tied", "\"tie_word_embeddings\": true,", "",
         "does not state \"tie_word_embeddings\", which means false, but has no tensor \"lm_head.weight\""},
        {"gemma", "gemma", "\"tie_word_embeddings\": true,", "", ""},
        {"smollm3", "smollm3", "\"tie_word_embeddings\": true,", "", ""},
        {"llama", "llama-linear", "\"factor\": 4.0,", "", "but not \"rope_parameters.factor\""},
        {"llama", "llama-yarn", "\"factor\": 4.0,", "\"factor\": null,",
         "\"rope_parameters.rope_type\" as \"yarn\", but not \"rope_parameters.factor\""},
        {"llama", "llama3", "\"low_freq_factor\": 1.0,", "", "but not \"rope_parameters.low_freq_factor\""},
        {"llama", "llama3", "\"high_freq_factor\": 4.0,", "", "but not \"rope_parameters.high_freq_factor\""},
        {"gemma3", "gemma3-linear", "\"factor\": 8.0,", "",
         "but not \"rope_parameters.full_attention.factor\""},
        {"phi3", "phi3", "\"partial_rotary_factor\": 1.0", "\"partial_rotary_factor\": 0.0",
         "\"rotary_dim\" of rope \"qr[0]\" is -1"},
        {"llama", "llama-yarn", "\"factor\": 4.0,", "\"factor\": 4.0, \"truncate\": null,",
         "\"rope_parameters.truncate\" as null"},
        {"phi3", "phi3-longrope", "\n \"original_max_position_embeddings\": 16,", "",
         "\"rope_parameters.original_max_position_embeddings\" as 16"},
        {"phi3", "phi3-longrope", "\"max_position_embeddings\": 64,", "",
         "as \"longrope\", but not \"rope_parameters.factor\""},
        {"llama", "llama",
         "\"rope_parameters\": {\n  \"rope_theta\": 500000.0,\n  \"rope_type\": \"default\"\n }",
         "\"rope_scaling\": \"linear\"", "\"rope_scaling\" as \"linear\""},
        {"gemma2", "gemma2", "\"attn_logit_softcapping\": 1.5", "\"attn_logit_softcapping\": 0.0",
         "\"attn_logit_softcapping\" as 0"},
        {"gemma2", "gemma2", "\"final_logit_softcapping\": 3.0", "\"final_logit_softcapping\": 0",
         "\"final_logit_softcapping\" as 0"},
        {"gemma2", "gemma2", "\"hidden_activation\": \"gelu_pytorch_tanh\"", "\"hidden_act\": \"gelu\"",
         "\"hidden_act\" as \"gelu\""},
        {"gemma2", "gemma2", "\"hidden_activation\": \"gelu_pytorch_tanh\"",
         "\"hidden_act\": \"gelu_pytorch_tanh\"", ""},
        {"qwen2", "qwen2-window", "\"use_sliding_window\": true", "\"use_sliding_window\": false",
         "\"layer_types\" as ["},
        /* a window or a rotation that no layer has */
        {"qwen2", "qwen2-window", "\"sliding_attention\"", "\"full_attention\"", ""},
        {"gemma3", "gemma3-linear", "\"sliding_attention\"", "\"full_attention\"", ""},
        {"gemma3", "gemma3-linear", "\"full_attention\"\n", "\"sliding_attention\"\n", ""},
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *message =
            said(f, cases[i].family, with_change(f, cases[i].model, cases[i].from, cases[i].to));
        if (*cases[i].want ? !strstr(message, cases[i].want) : *message)
            fail_msg("%s with %s says: %s", cases[i].model, cases[i].to, message);
    }
}

/* The epsilon that a configuration has by itself, which logits show from 2e-5 on. */
static void a_missing_epsilon_is_that_of_transformers(void **state) {
    static const char *const families[] = {"olmo2", "phi3", "mixtral", "olmoe"};
    fixture *f = *state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const family_golden gold = family_golden_read(f->arena, families[i]);
        const char *path = with_change(f, families[i], "\"rms_norm_eps\": 1e-05,", "");
        qgc_weights *w;
        qgc_graph *g;
        ok(f, qgc_weights_open(&w, path, &f->diag));
        ok(f, qgc_graph_load_for(&g, with_f32_caches(f, families[i], ""), w, f->arena, &f->diag));
        const double apart = run(f, g, w, &gold);
        if (!(apart <= 1e-5))
            fail_msg("%s: logits are %.3g apart", families[i], apart);
        qgc_weights_close(w);
    }
}

/* A graph that was made for some weights, printed or in an artifact, is not for others. */
static void a_printed_graph_is_for_its_weights(void **state) {
    static const struct {
        const char *family, *made_for, *bound_to, *want;
    } cases[] = {
        {"llama", "llama", "llama-linear", "\"rope_base\" is 500000, but"},
        {"llama", "llama", "llama-tied", "\"d_head\" is 8, but"},
        {"llama", "llama-bias", "llama", "\"qkv_bias\" is 1, but"},
        {"llama", "llama-bias/model.gguf", "llama/model.gguf", "\"qkv_bias\" is 1, but"},
        {"mistral", "mistral", "mistral-window", "\"window\" is 0, but"},
        {"qwen2", "qwen2", "qwen2-window", "\"windowed[1]\" is 0, but"},
        {"llama", "llama", "llama/model.gguf", ""},
        {"qwen3", "qwen3", "qwen3/model.gguf", ""},
        {"gemma2", "gemma2", "gemma2/model.gguf", "the graph was made for safetensors, and"},
        {"gemma2", "gemma2/model.gguf", "gemma2", "the graph was made for a GGUF, and"},
        {"gemma3", "gemma3", "gemma3/model.gguf", "the graph was made for safetensors, and"},
        {"mixtral", "mixtral", "mixtral/model.gguf", "the graph was made for safetensors, and"},
        {"mixtral", "mixtral/model.gguf", "mixtral", "the graph was made for a GGUF, and"},
        {"gemma2", "gemma2-terse", "gemma2-uncapped", "\"query_scale\" is 256, but"},
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_weights *w;
        qgc_graph *g, *printed;
        const qgc_tensor **tensors;
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_str text = qgc_str_new(f->arena);
        ok(f, qgc_weights_open(&w, qgc_arena_printf(f->arena, FOLDER "%s", cases[i].made_for), &f->diag));
        ok(f, qgc_graph_load_for(&g, qgc_arena_printf(f->arena, "models/%s.yaml", cases[i].family), w,
                                 f->arena, &f->diag));
        qgc_weights_close(w);
        qgc_graph_print_yaml(g, &text);
        ok(f, qgc_graph_load_text(&printed, "printed", text.text, text.bytes, f->arena, &f->diag));
        ok(f, qgc_weights_open(&w, qgc_arena_printf(f->arena, FOLDER "%s", cases[i].bound_to), &f->diag));
        (void)!qgc_graph_bind(printed, w, false, &tensors, &d);
        if (*cases[i].want ? !strstr(qgc_diag_message(&d), cases[i].want) : *qgc_diag_message(&d))
            fail_msg("%s bound to %s says: %s", cases[i].made_for, cases[i].bound_to, qgc_diag_message(&d));
        qgc_weights_close(w);
    }
}

int main(void) {
    if (chdir(QGC_SOURCE_DIR) != 0)
        return 1;
    const struct CMUnitTest tests[] = {FIXTURE_TEST(logits_are_those_of_transformers),
                                       FIXTURE_TEST(decode_steps_are_those_of_transformers),
                                       FIXTURE_TEST(the_family_of_the_page_is_right),
                                       FIXTURE_TEST(what_is_not_computed_is_refused),
                                       FIXTURE_TEST(what_is_stated_otherwise_is_known_or_refused),
                                       FIXTURE_TEST(a_missing_epsilon_is_that_of_transformers),
                                       FIXTURE_TEST(a_printed_graph_is_for_its_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
