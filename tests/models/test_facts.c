/* What a config.json or a GGUF states about its model: used, known to mean nothing, or refused with name and value. */

#include <string.h>

#include "models/bind.h"
#include "models/weights_impl.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/printed.h"
#include "tests/support/text.h"

static const qgc_source yaml = {"model.yaml", NULL, 0};
static const char *const base_hf[] = {"rope_theta", "rope_parameters.rope_theta"};
static const char *const base_gguf[] = {"qwen2.rope.freq_base"}, *const eps_gguf[] = {"qwen2.eps"};
static const qgc_param_want params[] = {
    {.name = "rope_base", .value = 1e6, .hf = base_hf, .gguf = base_gguf, .n_hf = 2, .n_gguf = 1},
    {.name = "eps", .value = 1e-6, .gguf = eps_gguf, .n_gguf = 1},
    {.name = "d_head", .value = 64},
    {.name = "max_positions", .value = 4096},
};

static qgc_bind_request request_of(const char *arch) {
    return (qgc_bind_request){
        .arch = arch, .at = {&yaml, 1, 1}, .params = params, .n_params = sizeof params / sizeof *params};
}

/* What binding to a config.json of these keys says: "" if it is good. */
static const char *of_config(qgc_arena *a, const char *arch, const char *keys) {
    qgc_diag d = qgc_diag_new(a);
    const char *text = qgc_arena_printf(a, "{\"model_type\": \"%s\", \"rope_theta\": 1000000%s%s}", arch,
                                        *keys ? ", " : "", keys);
    const qgc_source source = {"config.json", text, strlen(text)};
    qgc_weights *w = qgc_weights_new("folder", QGC_WEIGHTS_HF);
    const qgc_bind_request request = request_of(arch);
    const qgc_tensor *found[1] = {0};
    qgc_status status = qgc_hf_parse_config(w, &source, &d);
    if (status == QGC_OK)
        status = qgc_bind(w, &request, found, &d);
    assert_int_equal(status, d.status);
    qgc_weights_close(w);
    return qgc_test_printed(a, &d);
}

static void config_keys_that_mean_nothing_pass(void **state) {
    static const struct {
        const char *arch, *keys;
    } cases[] = {
        {"qwen2", ""},
        {"qwen2", "\"hidden_act\": \"silu\""},
        {"qwen2", "\"hidden_act\": \"swish\", \"partial_rotary_factor\": 1.0"},
        {"qwen2", "\"rope_scaling\": null, \"quantization_config\": null"},
        {"qwen2", "\"rope_scaling\": {\"type\": \"default\", \"rope_type\": \"default\", \"factor\": 3}"},
        {"qwen2", "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 1000000.0}"},
        {"qwen2", "\"rope_parameters\": {\"partial_rotary_factor\": 1, \"factor\": 1}"},
        {"qwen2", "\"sliding_window\": 32, \"use_sliding_window\": false, \"max_window_layers\": 2"},
        {"qwen2", "\"sliding_window\": 32"},
        {"qwen3", "\"sliding_window\": 32"},
        {"mistral", "\"sliding_window\": 4096"},
        {"mistral", "\"sliding_window\": null"},
        {"qwen2", "\"layer_types\": [\"full_attention\", \"full_attention\"]"},
        {"mistral", "\"sliding_window\": 5000, \"layer_types\": [\"sliding_attention\", \"full_attention\"]"},
        {"qwen2", "\"attention_dropout\": 0.1, \"use_cache\": true, \"anything\": [1, {\"else\": 2}]"},
        {"granite", "\"embedding_multiplier\": 1, \"residual_multiplier\": 1.0, \"logits_scaling\": 1"},
        {"gemma2", "\"attn_logit_softcapping\": null"},
        {"qwen2", "\"head_dim\": 64, \"is_causal\": true"},
        {"qwen2", "\"num_experts\": 0, \"use_qk_norm\": false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(of_config(*state, cases[i].arch, cases[i].keys), "");
}

static void config_keys_that_are_not_computed_are_refused(void **state) {
    static const struct {
        const char *arch, *keys, *want;
    } cases[] = {
        {"qwen2", "\"hidden_act\": \"gelu\"", "states \"hidden_act\" as \"gelu\""},
        {"qwen2", "\"hidden_act\": \"sil\"", "states \"hidden_act\" as \"sil\""},
        {"qwen2", "\"hidden_act\": \" silu\"", "states \"hidden_act\" as \" silu\""},
        {"qwen2", "\"hidden_act\": \"silu swish\"", "states \"hidden_act\" as \"silu swish\""},
        {"qwen2", "\"hidden_act\": \"\"", "states \"hidden_act\" as \"\""},
        {"qwen2", "\"hidden_act\": 3", "states \"hidden_act\" as 3"},
        {"gemma", "\"hidden_activation\": \"gelu_pytorch_tanh\"", "\"hidden_activation\" as \"gelu_py"},
        {"qwen2", "\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\" as 0.5"},
        {"qwen2", "\"rotary_pct\": 0.25", "\"rotary_pct\" as 0.25"},
        {"qwen2", "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}",
         "\"rope_scaling.type\" as \"yarn\""},
        {"llama", "\"rope_scaling\": {\"rope_type\": \"llama3\"}",
         "\"rope_scaling.rope_type\" as \"llama3\""},
        {"qwen2", "\"rope_scaling\": {\"type\": \"linear\", \"rope_type\": \"default\"}",
         "\"rope_scaling.type\""},
        {"qwen2", "\"rope_scaling\": {\"rope_type\": 1}", "\"rope_scaling.rope_type\" as 1"},
        {"qwen2", "\"rope_scaling\": {\"factor\": 4}", "\"rope_scaling.factor\" as 4"},
        {"qwen2", "\"rope_parameters\": {\"rope_type\": \"longrope\"}", "\"rope_parameters.rope_type\""},
        {"qwen2", "\"rope_parameters\": {\"partial_rotary_factor\": 0.4}",
         "\"rope_parameters.partial_rotary_factor\""},
        {"gemma3", "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}",
         "\"rope_parameters.full_attention\""},
        {"qwen2", "\"rope_parameters\": {\"rope_theta\": 10000}",
         "states 10000 as \"rope_parameters.rope_theta\""},
        {"qwen2", "\"rope_parameters\": {\"rope_theta\": 1000000, \"mscale\": 2, \"factor\": 1}",
         "\"rope_parameters.mscale\" as 2"},
        {"gemma3", "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 10}}",
         "\"rope_parameters.full_attention.rope_theta\" as 10"},
        {"qwen2", "\"sliding_window\": 32, \"use_sliding_window\": true", "\"sliding_window\" as 32"},
        {"mistral", "\"sliding_window\": 32", "\"sliding_window\" as 32"},
        {"mistral", "\"sliding_window\": 4095", "\"sliding_window\" as 4095"},
        {"qwen2", "\"sliding_window\": 32, \"layer_types\": [\"full_attention\", \"sliding_attention\"]",
         "\"layer_types\" as [\"full_attention\", \"sliding_attention\"]"},
        {"qwen3", "\"layer_types\": [\"linear_attention\"]", "\"layer_types\" as [\"linear_attention\"]"},
        {"qwen3", "\"layer_types\": 3", "\"layer_types\" as 3"},
        {"qwen2", "\"head_dim\": 128", "\"head_dim\" as 128"},
        {"qwen2", "\"rms_norm_eps\": 1e-6",
         "\"rms_norm_eps\" as 1e-06"}, /* eps names no key for this format here */
        {"qwen3", "\"is_causal\": false", "\"is_causal\" as false"},
        {"llama", "\"per_layer_config\": {\"1\": {\"num_key_value_heads\": 1}}", "\"per_layer_config\" as {"},
        {"smollm", "\"rope_interleaved\": true", "\"rope_interleaved\" as true"},
        {"granite", "\"embedding_multiplier\": 12", "\"embedding_multiplier\" as 12"},
        {"granite", "\"residual_multiplier\": 0.22", "\"residual_multiplier\" as 0.22"},
        {"granite", "\"attention_multiplier\": 0.0078125", "\"attention_multiplier\" as 0.0078125"},
        {"granite", "\"logits_scaling\": 8", "\"logits_scaling\" as 8"},
        {"gemma2", "\"attn_logit_softcapping\": 50", "\"attn_logit_softcapping\" as 50"},
        {"gemma2", "\"query_pre_attn_scalar\": 256", "\"query_pre_attn_scalar\" as 256"},
        {"qwen2_moe", "\"num_experts\": 60", "\"num_experts\" as 60"},
        {"smollm3", "\"no_rope_layers\": [1, 1, 1, 0]", "\"no_rope_layers\" as [1, 1, 1, 0]"},
        {"qwen2", "\"quantization_config\": {\"quant_method\": \"gptq\"}",
         "\"quantization_config\" as {\"quant_method\": \"gptq\"}"},
        {"qwen2\\u0007", "", "the name of the architecture has a control byte in it"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        has(of_config(*state, cases[i].arch, cases[i].keys), cases[i].want);
}

/* --- GGUF ------------------------------------------------------------------------------------------------ */

typedef struct {
    const char *arch, *key, *word; /* a key with a word, */
    double number;                 /* or a number as float32 */
    const char *want;              /* NULL: it passes */
} gguf_case;

static void put_float(qgc_str *s, const char *key, double x) {
    const float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    gguf_put_key(s, key, GGUF_F32);
    gguf_put(s, bits, 4);
}

/* What is printed when such a file is bound; "" if nothing is wrong with it. */
static const char *bound(qgc_arena *a, const qgc_str *file, const qgc_bind_request *request) {
    qgc_diag d = qgc_diag_new(a);
    qgc_weights *w = qgc_weights_new("model.gguf", QGC_WEIGHTS_GGUF);
    const qgc_tensor *found[1] = {0};
    qgc_status status = qgc_gguf_parse(w, file->text, file->bytes, (qgc_loc){.source = &yaml}, &d);
    if (status == QGC_OK)
        status = qgc_bind(w, request, found, &d);
    assert_int_equal(status, d.status);
    qgc_weights_close(w);
    return qgc_test_printed(a, &d);
}

static const char *of_gguf(qgc_arena *a, const gguf_case *c) {
    const bool tensor = c->key && strstr(c->key, ".weight"), key = c->key && !tensor;
    qgc_str s = qgc_str_new(a);
    gguf_put_header(&s, 3, tensor, 5 + key);
    gguf_put_key_string(&s, "general.architecture", c->arch);
    put_float(&s, "qwen2.rope.freq_base", 1e6);
    put_float(&s, "qwen2.eps", 1e-6);
    gguf_put_key_u32(&s, "qwen2.embedding_length", 896);
    gguf_put_key_u32(&s, "qwen2.attention.head_count", 14);
    if (key && c->word)
        gguf_put_key_string(&s, c->key, c->word);
    else if (key)
        put_float(&s, c->key, c->number);
    if (tensor)
        gguf_put_tensor(&s, c->key, (uint64_t[]){1, 32}, GGML_F32, 0);
    gguf_put_padding(&s, 32);
    gguf_put_data(&s, tensor ? 128 : 0);
    qgc_bind_request request = request_of(c->arch);
    request.allow_unused = true;
    if (strcmp(c->arch, "qwen2") != 0)
        request.n_params = 0;
    return bound(a, &s, &request);
}

static void keys_of_a_gguf(void **state) {
    static const gguf_case cases[] = {
        {"qwen2", NULL, NULL, 0, NULL},
        {"qwen2", "qwen2.rope.scaling.type", "none", 0, NULL},
        {"qwen2", "qwen2.attention.layer_norm_rms_epsilon", NULL, 1e-6,
         "\"qwen2.attention.layer_norm_rms_epsilon\" as "},
        {"qwen2", "qwen2.rope.scaling.type", "yarn", 0, "states \"qwen2.rope.scaling.type\" as \"yarn\""},
        {"qwen2", "qwen2.rope.scaling.type", NULL, 2, "states \"qwen2.rope.scaling.type\" as 2"},
        {"qwen2", "qwen2.rope.scaling.factor", NULL, 1, NULL},
        {"qwen2", "qwen2.rope.scaling.factor", NULL, 4, "\"qwen2.rope.scaling.factor\" as 4"},
        {"qwen2", "qwen2.rope.scaling.original_context_length", NULL, 4, NULL},
        {"qwen2", "qwen2.rope.scale_linear", NULL, 2, "\"qwen2.rope.scale_linear\" as 2"},
        {"qwen2", "qwen2.rope.dimension_count", NULL, 64, NULL},
        {"qwen2", "qwen2.rope.dimension_count", NULL, 32, "\"qwen2.rope.dimension_count\" as 32"},
        {"qwen2", "qwen2.attention.key_length", NULL, 64, NULL},
        {"qwen2", "qwen2.attention.key_length", NULL, 128, "\"qwen2.attention.key_length\" as 128"},
        {"qwen2", "qwen2.attention.sliding_window", NULL, 4096, NULL},
        {"qwen2", "qwen2.attention.sliding_window", NULL, 0, NULL},
        {"qwen2", "qwen2.attention.sliding_window", NULL, 512, "\"qwen2.attention.sliding_window\" as 512"},
        {"qwen2", "qwen2.attention.scale", NULL, 0.1, "\"qwen2.attention.scale\" as 0.1"},
        {"qwen2", "qwen2.expert_count", NULL, 8, "\"qwen2.expert_count\" as 8"},
        {"qwen2", "qwen2.logit_scale", NULL, 8, "\"qwen2.logit_scale\" as 8"},
        {"qwen2", "qwen2.logit_scale", NULL, 1, NULL},
        {"qwen2", "qwen2.final_logit_softcapping", NULL, 30, "\"qwen2.final_logit_softcapping\" as 30"},
        {"qwen2", "qwen2.attention.temperature_scale", NULL, 0.1,
         "\"qwen2.attention.temperature_scale\" as 0.1"},
        {"qwen2", "qwen2.attention.shared_kv_layers", NULL, 2, "\"qwen2.attention.shared_kv_layers\" as 2"},
        {"qwen2", "qwen2.attention.key_length_swa", NULL, 64, "\"qwen2.attention.key_length_swa\" as 64"},
        {"qwen2", "qwen2.router_logit_softcapping", NULL, 30, "\"qwen2.router_logit_softcapping\" as 30"},
        {"qwen2", "qwen2.nextn_predict_layers", NULL, 1, "\"qwen2.nextn_predict_layers\" as 1"},
        {"qwen2", "split.count", NULL, 3, "is number 1 of the 3 files of one model"},
        {"qwen2", "split.count", NULL, 1, NULL},
        {"qwen2", "rope_freqs.weight", NULL, 0, "has tensor \"rope_freqs.weight\""},
        {"qwen2", "rope_factors_long.weight", NULL, 0, "has tensor \"rope_factors_long.weight\""},
        {"llama", NULL, NULL, 0, "the rows of q and k stand in another order"},
        {"granite", NULL, NULL, 0, "the rows of q and k stand in another order"},
        {"olmo2", NULL, NULL, 0, NULL},
        {"q\033[2J", NULL, NULL, 0, "the name of the architecture has a control byte in it"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *said = of_gguf(*state, &cases[i]);
        if (cases[i].want)
            has(said, cases[i].want);
        else
            assert_string_equal(said, "");
    }
}

/* A GGUF of one matrix, whose rows are put back or are in order, with such keys. */
static const char *of_rotation(qgc_arena *a, bool permuted, bool has_eps, uint32_t turned) {
    static const char *const head[] = {"{arch}.attention.key_length"},
                             *const part[] = {"{arch}.rope.dimension_count"},
                             *const eps[] = {"{arch}.attention.layer_norm_rms_epsilon"};
    const qgc_param_want wants[] = {
        {.name = "d_head", .value = 8, .gguf = head, .n_gguf = 1},
        {.name = "rotary_dim", .value = turned, .gguf = part, .n_gguf = 1},
        {.name = "eps", .value = 1e-6, .gguf = eps, .n_gguf = 1, .otherwise = (const double[]){1e-6}}};
    const qgc_weight_want wq = {.label = "wq",
                                .gguf = "q",
                                .tied = -1,
                                .rank = 2,
                                .shape = {8, 8},
                                .gguf_form = {.heads = permuted ? 1 : 0}};
    qgc_str s = qgc_str_new(a);
    gguf_put_header(&s, 3, 1, 3 + has_eps);
    gguf_put_key_string(&s, "general.architecture", "llama");
    gguf_put_key_u32(&s, "llama.attention.key_length", 8);
    gguf_put_key_u32(&s, "llama.rope.dimension_count", turned);
    if (has_eps)
        put_float(&s, "llama.attention.layer_norm_rms_epsilon", 1e-6);
    gguf_put_tensor(&s, "q", (uint64_t[]){8, 8}, GGML_F32, 0);
    gguf_put_padding(&s, 32);
    gguf_put_data(&s, 256);
    const qgc_bind_request request = {.arch = "llama",
                                      .at = {&yaml, 1, 1},
                                      .params = wants,
                                      .n_params = 3,
                                      .weights = &wq,
                                      .arena = a,
                                      .n_weights = 1};
    return bound(a, &s, &request);
}

/* Of rows that are put back into halves the pairs of a part are not where a rotation of a part takes them. An epsilon is stated. */
static void a_part_of_permuted_rows_and_no_epsilon_are_refused(void **state) {
    assert_string_equal(of_rotation(*state, true, true, 8), "");
    has(of_rotation(*state, true, true, 4),
        "states \"llama.rope.dimension_count\" as 4, which this model does not");
    has(of_rotation(*state, true, false, 8), "does not state \"llama.attention.layer_norm_rms_epsilon\"");
    has(of_rotation(*state, false, true, 4), "the rows of q and k stand in another order");
}

/* A GGUF of this architecture, and of this kind of scaling. */
static const char *of_scaling(qgc_arena *a, const char *arch, const char *type, double turned) {
    static const char *const kind[] = {"{arch}.rope.scaling.type"},
                             *const part[] = {"{arch}.rope.dimension_count"},
                             *const words[] = {"none", "linear", "longrope"};
    const qgc_words known = {words, 3};
    const qgc_param_want wants[] = {
        {.name = "scaling",
         .value = qgc_words_find(&known, type, strlen(type)),
         .gguf = kind,
         .n_gguf = 1,
         .words = known},
        {.name = "d_head", .value = 8},
        {.name = "rotary_dim", .value = turned, .gguf = part, .n_gguf = 1, .otherwise = &turned}};
    const qgc_bind_request request = {
        .arch = arch, .at = {&yaml, 1, 1}, .params = wants, .n_params = 3, .arena = a};
    qgc_str s = qgc_str_new(a);
    gguf_put_header(&s, 3, 0, 2);
    gguf_put_key_string(&s, "general.architecture", arch);
    gguf_put_key_string(&s, qgc_arena_printf(a, "%s.rope.scaling.type", arch), type);
    return bound(a, &s, &request);
}

/* A kind of scaling says nothing without its numbers, or the tensors by which frequencies are divided. */
static void what_a_gguf_has_to_state(void **state) {
    assert_string_equal(of_scaling(*state, "qwen2", "none", 8), "");
    has(of_scaling(*state, "qwen2", "longrope", 8), "states \"qwen2.rope.scaling.type\" as \"longrope\", but "
                                                    "has no tensor \"rope_factors_long.weight\"");
    has(of_scaling(*state, "qwen2", "linear", 8), "does not state \"qwen2.rope.scaling.factor\"");
    has(of_scaling(*state, "stablelm", "none", 4), "does not state \"stablelm.rope.dimension_count\"");
    has(of_scaling(*state, "gptneox", "none", 8), "does not state \"gptneox.use_parallel_residual\"");
}

/* Infinity is as near to any number as may be, to a careless comparison. */
static void an_infinite_number_is_no_match(void **state) {
    static const char *const keys[] = {"qwen2.rope.freq_base", "qwen2.eps"};
    for (int i = 0; i < 2; i++) {
        qgc_str s = qgc_str_new(*state);
        gguf_put_header(&s, 3, 0, 3);
        gguf_put_key_string(&s, "general.architecture", "qwen2");
        put_float(&s, keys[i], 1e300);
        put_float(&s, keys[!i], i ? 1e6 : 1e-6);
        qgc_diag d = qgc_diag_new(*state);
        qgc_weights *w = qgc_weights_new("model.gguf", QGC_WEIGHTS_GGUF);
        const qgc_bind_request request = request_of("qwen2");
        const qgc_tensor *found[1] = {0};
        assert_int_equal(qgc_gguf_parse(w, s.text, s.bytes, (qgc_loc){.source = &yaml}, &d), QGC_OK);
        assert_int_equal(qgc_bind(w, &request, found, &d), QGC_ERR_INPUT);
        qgc_weights_close(w);
        has(qgc_diag_message(&d), qgc_arena_printf(*state, "states inf as \"%s\"", keys[i]));
    }
}

static void a_head_that_is_said_to_be_there_has_to_be(void **state) {
    static const qgc_weight_want wants[] = {
        {.label = "embed", .hf = "embed", .tied = -1, .rank = 1, .shape = {1}},
        {.label = "head", .hf = "lm_head", .tied = 0, .rank = 1, .shape = {1}}};
    for (int tied = 0; tied < 2; tied++) {
        const char *text = qgc_arena_printf(
            *state, "{\"model_type\": \"qwen2\", \"rope_theta\": 1e6, \"tie_word_embeddings\": %s}",
            tied ? "true" : "false");
        const qgc_source source = {"config.json", text, strlen(text)};
        qgc_diag d = qgc_diag_new(*state);
        qgc_weights *w = qgc_weights_new("folder", QGC_WEIGHTS_HF);
        qgc_tensor *t = qgc_weights_add(w, "embed", 5);
        t->rank = 1;
        t->shape[0] = 1;
        qgc_bind_request request = request_of("qwen2");
        request.weights = wants;
        request.n_weights = 2;
        const qgc_tensor *found[2] = {0};
        assert_int_equal(qgc_hf_parse_config(w, &source, &d), QGC_OK);
        assert_int_equal(qgc_bind(w, &request, found, &d), tied ? QGC_OK : QGC_ERR_INPUT);
        qgc_weights_close(w);
        if (!tied)
            has(qgc_diag_message(&d),
                "states \"tie_word_embeddings\" as false, but has no tensor \"lm_head\"");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(config_keys_that_mean_nothing_pass),
        ARENA_TEST(config_keys_that_are_not_computed_are_refused),
        ARENA_TEST(keys_of_a_gguf),
        ARENA_TEST(a_part_of_permuted_rows_and_no_epsilon_are_refused),
        ARENA_TEST(what_a_gguf_has_to_state),
        ARENA_TEST(an_infinite_number_is_no_match),
        ARENA_TEST(a_head_that_is_said_to_be_there_has_to_be),
    };
    return cmocka_run_group_tests_name("models/facts", tests, NULL, NULL);
}
