#!/usr/bin/env python3
"""Writes small models of many families, and the logits that Hugging Face transformers computes for them.

    python3 tests/golden/families/make_families.py [NAME...]

which needs torch, transformers, safetensors, gguf and numpy. For each model: NAME/config.json, NAME/model.safetensors with
random weights in bf16, NAME/golden.bin with token ids and logits, and for some NAME/model.gguf, whose names, keys and order
of rows are those of llama.cpp's converter. The same versions of the libraries give the same files.
"""
import json
import math
import os
import struct
import sys

import gguf
import numpy as np
import torch
import transformers as tf
from safetensors.torch import save_file
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS, TEXT = 40, 64
SMALL = dict(num_hidden_layers=2, hidden_size=32, intermediate_size=28, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=48, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False, pad_token_id=None,
             bos_token_id=None, eos_token_id=None)

# Large enough for persistent mode, which wants rows of a multiple of 64 elements and heads of a multiple of 32.
WIDE = dict(SMALL, hidden_size=64, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128)

EXPERTS = dict(moe_intermediate_size=20, num_experts_per_tok=2, norm_topk_prob=True)

LAYERED = {key: value for key, value in SMALL.items() if key != "rms_norm_eps"}
LAYERED_WIDE = {key: value for key, value in WIDE.items() if key != "rms_norm_eps"}


def rope(kind, theta=1e4, **more):
    return dict(rope_parameters=dict(rope_theta=theta, rope_type=kind, **more))


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=16)

# name: class of the configuration, what it is told, architecture of its GGUF (None: none is written)
MODELS = {
    "llama": (tf.LlamaConfig, dict(SMALL, **rope("default", 5e5)), "llama"),
    "llama-tied": (tf.LlamaConfig, dict(SMALL, tie_word_embeddings=True, head_dim=12), "llama"),
    "llama3": (tf.LlamaConfig, dict(SMALL, tie_word_embeddings=True, **LLAMA3), "llama"),
    "llama-linear": (tf.LlamaConfig, dict(SMALL, **rope("linear", factor=4.0)), "llama"),
    "llama-yarn": (tf.LlamaConfig, dict(SMALL, **YARN), "llama"),
    "llama-yarn-half": (tf.LlamaConfig, dict(SMALL, num_hidden_layers=1, **rope("yarn", factor=0.5, original_max_position_embeddings=16)), "llama"),
    "llama-bias": (tf.LlamaConfig, dict(SMALL, attention_bias=True, mlp_bias=True), "llama"),
    "mistral": (tf.MistralConfig, dict(SMALL, sliding_window=None), "llama"),
    "mistral-window": (tf.MistralConfig, dict(SMALL, sliding_window=5), "llama"),
    "qwen2": (tf.Qwen2Config, dict(SMALL, tie_word_embeddings=True), "qwen2"),
    "qwen2-window": (tf.Qwen2Config, dict(SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=1), None),
    "qwen2-yarn": (tf.Qwen2Config, dict(SMALL, **YARN), "qwen2"),
    "qwen3": (tf.Qwen3Config, dict(SMALL, head_dim=16), "qwen3"),
    "qwen3-yarn": (tf.Qwen3Config, dict(SMALL, head_dim=16, num_hidden_layers=1, **YARN), "qwen3"),
    "qwen3-window": (tf.Qwen3Config, dict(SMALL, head_dim=8, num_hidden_layers=2, use_sliding_window=True, sliding_window=4, max_window_layers=1), None),
    "olmo2": (tf.Olmo2Config, dict(SMALL), "olmo2"),
    "olmo3": (tf.Olmo3Config, dict(SMALL, num_hidden_layers=4, intermediate_size=16, sliding_window=3), None),
    "phi3": (tf.Phi3Config, dict(SMALL, sliding_window=None), "phi3"),
    "phi3-window": (tf.Phi3Config, dict(SMALL, sliding_window=7, num_hidden_layers=1), "phi3"),
    "phi3-longrope": (tf.Phi3Config, dict(SMALL, original_max_position_embeddings=16, max_position_embeddings=64,
                                          partial_rotary_factor=0.75, num_attention_heads=2, rope_parameters=dict(
                                              rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.75,
                                              original_max_position_embeddings=16,
                                              short_factor=[1.0, 1.1, 1.3, 1.5, 1.8, 2.0],
                                              long_factor=[1.0, 1.5, 2.5, 4.0, 6.0, 8.0])), "phi3"),
    "phi3-longrope-short": (tf.Phi3Config, dict(SMALL, original_max_position_embeddings=16, num_hidden_layers=1,
                                                rope_parameters=dict(rope_type="longrope", rope_theta=1e4,
                                                                     original_max_position_embeddings=16,
                                                                     short_factor=[1.0, 1.2, 1.5, 2.0],
                                                                     long_factor=[1.0, 1.5, 4.0, 8.0])), None),
    "gemma": (tf.GemmaConfig, dict(SMALL, tie_word_embeddings=True, head_dim=12, hidden_act="gelu_pytorch_tanh"), "gemma"),
    "gemma2": (tf.Gemma2Config, dict(SMALL, tie_word_embeddings=True, head_dim=12, query_pre_attn_scalar=12,
                                     attn_logit_softcapping=1.5, final_logit_softcapping=3.0, sliding_window=4), "gemma2"),
    "gemma2-scale": (tf.Gemma2Config, dict(SMALL, tie_word_embeddings=True, head_dim=8, query_pre_attn_scalar=11,
                                           num_hidden_layers=1), None),
    "gemma3": (tf.Gemma3TextConfig, dict(SMALL, tie_word_embeddings=True, head_dim=8, query_pre_attn_scalar=8,
                                         sliding_window=4, num_hidden_layers=6, intermediate_size=16), "gemma3"),
    "gemma3-linear": (tf.Gemma3TextConfig, dict(
        SMALL, tie_word_embeddings=True, head_dim=8, query_pre_attn_scalar=11, sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                             sliding_attention=dict(rope_type="default", rope_theta=1e4))), None),
    "granite": (tf.GraniteConfig, dict(SMALL, embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.4,
                                       logits_scaling=2.0), "granite"),
    "smollm3": (tf.SmolLM3Config, dict(SMALL, num_hidden_layers=4, intermediate_size=20, no_rope_layer_interval=4, tie_word_embeddings=True), "smollm3"),
    "stablelm": (tf.StableLmConfig, dict(LAYERED, layer_norm_eps=1e-5, use_qkv_bias=True, partial_rotary_factor=0.5), "stablelm"),
    "gpt_neox": (tf.GPTNeoXConfig, dict(LAYERED, rotary_pct=0.5, use_parallel_residual=True, attention_bias=True), "gptneox"),
    "phi": (tf.PhiConfig, dict(LAYERED, partial_rotary_factor=0.5), "phi2"),
    "gpt2": (tf.GPT2Config, dict(vocab_size=48, n_positions=24, n_embd=32, n_layer=2, n_head=4, bos_token_id=None,
                                 eos_token_id=None), "gpt2"),
    "gpt2-bare": (tf.GPT2Config, dict(vocab_size=48, n_positions=24, n_embd=32, n_layer=1, n_head=4, bos_token_id=None,
                                      eos_token_id=None), None),
    "qwen3_moe": (tf.Qwen3MoeConfig, dict(SMALL, **EXPERTS, num_experts=5), "qwen3moe"),
    "qwen3_moe-unnormed": (tf.Qwen3MoeConfig, dict(SMALL, **dict(EXPERTS, norm_topk_prob=False), num_experts=5,
                                                   num_hidden_layers=1), None),
    "qwen2_moe": (tf.Qwen2MoeConfig, dict(SMALL, **dict(EXPERTS, norm_topk_prob=False), num_experts=5,
                                          shared_expert_intermediate_size=12), "qwen2moe"),
    "mixtral": (tf.MixtralConfig, dict(SMALL, num_local_experts=5, num_experts_per_tok=2, sliding_window=None), "llama"),
    "mixtral-window": (tf.MixtralConfig, dict(SMALL, num_local_experts=3, num_experts_per_tok=2, sliding_window=7,
                                              num_hidden_layers=1), None),
    "olmoe": (tf.OlmoeConfig, dict(SMALL, num_experts=6, num_experts_per_tok=3, norm_topk_prob=False), "olmoe"),
    "phi3-longrope-wide": (tf.Phi3Config, dict(WIDE, original_max_position_embeddings=16, num_hidden_layers=1, rope_parameters=dict(
        rope_type="longrope", rope_theta=1e4, original_max_position_embeddings=16,
        short_factor=[1.0 + 0.05 * i for i in range(16)], long_factor=[1.0 + 0.5 * i for i in range(16)])), None),
    "llama-sinks": (tf.LlamaConfig, dict(SMALL), None),
    "mistral-sinks-wide": (tf.MistralConfig, dict(WIDE, sliding_window=9), None),
    "gemma2-terse": (tf.Gemma2Config, dict(SMALL, tie_word_embeddings=True, head_dim=12, num_hidden_layers=1), None),
    "gemma2-uncapped": (tf.Gemma2Config, dict(SMALL, tie_word_embeddings=True, head_dim=12, query_pre_attn_scalar=12, num_hidden_layers=1,
                                              attn_logit_softcapping=None, final_logit_softcapping=None), None),
    "smollm3-terse": (tf.SmolLM3Config, dict(SMALL, num_hidden_layers=4, intermediate_size=20, tie_word_embeddings=True,
                                             use_sliding_window=True, sliding_window=4), None),
    "mixtral-terse": (tf.MixtralConfig, dict(SMALL, num_local_experts=3, num_experts_per_tok=2, num_hidden_layers=1), None),
    "gpt_neox-terse": (tf.GPTNeoXConfig, dict(LAYERED, num_hidden_layers=1), None),
    "qwen2_moe-window": (tf.Qwen2MoeConfig, dict(SMALL, **EXPERTS, num_experts=3, shared_expert_intermediate_size=12,
                                                 use_sliding_window=True, sliding_window=4), None),
    "qwen3_moe-window": (tf.Qwen3MoeConfig, dict(SMALL, **EXPERTS, num_experts=3, use_sliding_window=True, sliding_window=4,
                                                 num_hidden_layers=1), None),
    "qwen3_moe-wide": (tf.Qwen3MoeConfig, dict(WIDE, **dict(EXPERTS, moe_intermediate_size=64), head_dim=64, num_experts=4,
                                               num_hidden_layers=1), None),
    "llama3-wide": (tf.LlamaConfig, dict(WIDE, attention_bias=True, **LLAMA3), "llama"),
    "mistral-wide": (tf.MistralConfig, dict(WIDE, sliding_window=9), None),
    "qwen2-wide": (tf.Qwen2Config, dict(WIDE, **YARN), None),
    "qwen3-wide": (tf.Qwen3Config, dict(WIDE, head_dim=64), "qwen3"),
    "qwen3-96-wide": (tf.Qwen3Config, dict(WIDE, head_dim=96, num_hidden_layers=1), None),
    "gemma-256-wide": (tf.GemmaConfig, dict(WIDE, tie_word_embeddings=True, head_dim=256, hidden_act="gelu_pytorch_tanh",
                                            num_hidden_layers=1), None),
    "olmo2-wide": (tf.Olmo2Config, dict(WIDE), None),
    "phi3-wide": (tf.Phi3Config, dict(WIDE, sliding_window=9, partial_rotary_factor=0.75, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.75)), None),
    "gemma2-wide": (tf.Gemma2Config, dict(WIDE, tie_word_embeddings=True, head_dim=32, query_pre_attn_scalar=24,
                                          attn_logit_softcapping=1.5, final_logit_softcapping=3.0, sliding_window=9), None),
    "gemma3-wide": (tf.Gemma3TextConfig, dict(
        WIDE, tie_word_embeddings=True, head_dim=32, query_pre_attn_scalar=32, sliding_window=9,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                             sliding_attention=dict(rope_type="default", rope_theta=1e4))), None),
    "granite-wide": (tf.GraniteConfig, dict(WIDE, embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.2,
                                            logits_scaling=2.0), None),
    "smollm3-wide": (tf.SmolLM3Config, dict(WIDE, no_rope_layer_interval=2, tie_word_embeddings=True), None),
    "stablelm-wide": (tf.StableLmConfig, dict(LAYERED_WIDE, layer_norm_eps=1e-5, use_qkv_bias=True, partial_rotary_factor=0.25),
                      None),
    "stablelm-parallel-wide": (tf.StableLmConfig, dict(LAYERED_WIDE, layer_norm_eps=1e-5, use_parallel_residual=True,
                                                       partial_rotary_factor=0.5), None),
    "gpt_neox-wide": (tf.GPTNeoXConfig, dict(LAYERED_WIDE, rotary_pct=0.25, use_parallel_residual=True, attention_bias=True),
                      None),
    "gpt_neox-sequential-wide": (tf.GPTNeoXConfig, dict(LAYERED_WIDE, rotary_pct=0.5, use_parallel_residual=False,
                                                        attention_bias=True), "gptneox"),
    "phi-wide": (tf.PhiConfig, dict(LAYERED_WIDE, partial_rotary_factor=0.5), None),
    "gpt2-wide": (tf.GPT2Config, dict(vocab_size=48, n_positions=128, n_embd=64, n_layer=2, n_head=2, bos_token_id=None,
                                      eos_token_id=None), None),
}


# Keys that a config.json does not state: they mean what the family's configuration has by itself.
UNSTATED = {
    "gemma2-terse": ("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "sliding_window", "layer_types",
                     "hidden_activation", "rope_parameters"),
    "smollm3-terse": ("rope_parameters", "layer_types", "no_rope_layers", "no_rope_layer_interval"),
    "mixtral-terse": ("rope_parameters", "sliding_window"),
    "gpt_neox-terse": ("hidden_act", "layer_norm_eps", "rope_parameters", "use_parallel_residual", "attention_bias"),
    "qwen2_moe-window": ("layer_types", "max_window_layers"),
}


def spread(name, w, generator):
    """Random numbers such that what a layer adds is about as large as what it is added to, and attention is not even."""
    noise = torch.randn(w.shape, generator=generator)
    if "norm" in name or ".ln_" in name:
        return (0 if type_adds_one else 1) + 0.25 * noise if name.endswith("weight") else 0.2 * noise
    if "sinks" in name:
        return 2 * noise
    if w.dim() == 1:
        return 0.3 * noise
    if "embed" in name or "wte" in name:
        return 0.7 * noise
    if "wpe" in name:
        return 0.3 * noise
    gain = 2 if any(part in name for part in ("q_proj", "k_proj", "qkv_proj", "c_attn", "query_key_value")) else 1
    return gain * noise / min(w.shape[-2:]) ** 0.5


def add_sinks(model):
    """The attention of gpt-oss, as transformers has it, in another model."""
    family = sys.modules[type(model).__module__]
    plain = family.eager_attention_forward
    family.eager_attention_forward = lambda module, *rest, **more: (
        gpt_oss.eager_attention_forward if hasattr(module, "sinks") else plain)(module, *rest, **more)
    for layer in model.model.layers:
        layer.self_attn.sinks = torch.nn.Parameter(torch.zeros(model.config.num_attention_heads))


def make(name, config, seed):
    global type_adds_one
    type_adds_one = name.startswith("gemma")
    generator = torch.Generator().manual_seed(seed)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = tf.AutoModelForCausalLM.from_config(config).eval().float()
    if "-sinks" in name:
        add_sinks(model)
    with torch.no_grad():
        for parameter, w in model.named_parameters():
            w.copy_(spread(parameter, w, generator).to(torch.bfloat16).float())
    n = 14 if name.endswith("-short") else min(TOKENS, config.max_position_embeddings)
    return model, torch.randint(config.vocab_size, (n,), generator=generator).tolist()


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy().astype("<f4")


def greedy_text(model, first, n):
    """n tokens after the first, and by how much each is better than the second best, as a part of the largest logit. They are
    computed in a text of all n positions, by which longrope chooses its frequencies."""
    ids, text, margins = [first] + [0] * (n - 1), [], []
    for i in range(n):
        row = logits_of(model, ids)[i]
        second, best = np.sort(row)[-2:]
        text.append(int(row.argmax()))
        margins.append((best - second) / np.abs(row).max())
        ids[i + 1:i + 2] = text[-1:] if i + 1 < n else []
    return text, margins


def write_golden(path, ids, logits, rounded, text, margins):
    """rounded: the logits of the same model in bf16; how far they are is written too."""
    apart = (np.abs(rounded - logits).max(1) / np.abs(logits).max(1)).max()
    with open(path, "wb") as f:
        f.write(struct.pack("<2I", len(ids), logits.shape[1]) + np.array(ids, "<i4").tobytes() + logits.tobytes() +
                struct.pack("<fI", apart, len(text)) + np.array(text, "<i4").tobytes() + np.array(margins, "<f4").tobytes())
    return apart


# --- GGUF, as llama.cpp's convert_hf_to_gguf.py writes it ---------------------------------------------------------------

PERMUTED = ("llama", "granite", "smollm3")
ADDS_ONE = ("gemma", "gemma2", "gemma3")
ARCHS = {gguf.MODEL_ARCH_NAMES[a]: a for a in gguf.MODEL_ARCH}


def permute(w, heads):
    """Rows of a head as two halves -> pairs of neighbours."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def keys(writer, arch, c):
    heads, kv = c.num_attention_heads, getattr(c, "num_key_value_heads", None) or c.num_attention_heads
    d_head = getattr(c, "head_dim", None) or c.hidden_size // heads
    turned = int(d_head * ((c.rope_parameters or {}).get("partial_rotary_factor", 1) if hasattr(c, "rope_parameters") else 1))
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(getattr(c, "intermediate_size", None) or getattr(c, "n_inner", None) or 4 * c.hidden_size)
    writer.add_head_count(heads)
    if arch == "gptneox":  # states less than others
        writer.add_rope_dimension_count(turned)
        writer.add_parallel_residual(c.use_parallel_residual)
        writer.add_layer_norm_eps(c.layer_norm_eps)
        return
    writer.add_head_count_kv(kv)
    if hasattr(c, "num_experts_per_tok"):
        writer.add_expert_count(getattr(c, "num_local_experts", None) or c.num_experts)
        writer.add_expert_used_count(c.num_experts_per_tok)
    if hasattr(c, "moe_intermediate_size"):
        writer.add_expert_feed_forward_length(c.moe_intermediate_size)
    if hasattr(c, "shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(c.shared_expert_intermediate_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    if getattr(c, "head_dim", None):
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if hasattr(c, "rms_norm_eps") and arch not in ("stablelm", "phi2", "gpt2"):
        writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(getattr(c, "layer_norm_eps", None) or c.layer_norm_epsilon)
    if arch == "gpt2":
        return
    writer.add_vocab_size(c.vocab_size)
    writer.add_rope_dimension_count(turned)
    parameters = c.rope_parameters
    if arch == "gemma3":
        writer.add_rope_freq_base(parameters["full_attention"]["rope_theta"])
    else:
        writer.add_rope_freq_base(parameters["rope_theta"])
    kind = parameters.get("rope_type")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(parameters["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
    if kind == "longrope":
        times = c.max_position_embeddings / parameters["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(times) / math.log(parameters["original_max_position_embeddings"])))
    # The converter does not state the window of a Mistral; a GGUF that does is read.
    if getattr(c, "sliding_window", None) and (arch in ("phi3", "gemma2", "gemma3") or c.model_type == "mistral"):
        writer.add_sliding_window(c.sliding_window)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)
    if arch == "granite":
        writer.add_attention_scale(c.attention_multiplier)
        writer.add_embedding_scale(c.embedding_multiplier)
        writer.add_residual_scale(c.residual_multiplier)
        writer.add_logit_scale(c.logits_scaling)
    if arch == "stablelm":
        writer.add_parallel_residual(c.use_parallel_residual)


def llama3_divisors(c):
    p = c.rope_parameters
    d_head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    freqs = 1.0 / p["rope_theta"] ** (np.arange(0, d_head, 2, dtype=np.float32) / d_head)
    low = p["original_max_position_embeddings"] / p["low_freq_factor"]
    high = p["original_max_position_embeddings"] / p["high_freq_factor"]
    out = []
    for f in freqs:
        wave = 2 * np.pi / f
        if wave < high:
            out.append(1.0)
        elif wave > low:
            out.append(p["factor"])
        else:
            smooth = (p["original_max_position_embeddings"] / wave - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
            out.append(1 / ((1 - smooth) / p["factor"] + smooth))
    return np.array(out, np.float32)


def experts_of(kind, name, w):
    """Stacked experts of transformers by the names of checkpoints, one by one."""
    block = name.rsplit(".experts.", 1)[0]
    half = w.shape[1] // 2
    if name.endswith("gate_up_proj"):
        parts = {"gate_proj": w[:, :half], "up_proj": w[:, half:]}
    else:
        parts = {"down_proj": w}
    for part, stacked in parts.items():
        if kind == "mixtral":
            part = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}[part]
        for e in range(len(stacked)):
            yield f"{block}.experts.{e}.{part}.weight", stacked[e]


def tensors_of(model, arch):
    """Name in the checkpoint, and the numbers; the head that is tied is left out as in a checkpoint."""
    kind = model.config.model_type
    for name, w in whole_tensors_of(model):
        if kind == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        if ".experts." in name:
            yield from experts_of(kind, name, w)
        else:
            yield name, w


def whole_tensors_of(model):
    tied = model.config.tie_word_embeddings
    for name, w in model.state_dict().items():
        if model.config.model_type == "gpt_neox" and name == "lm_head.weight":
            name = "embed_out.weight"  # as checkpoints have it
        if not (tied and name == "lm_head.weight") and not name.endswith((".attn.bias", ".masked_bias", "inv_freq")):
            yield name, w.numpy()


def stacked(tensors):
    """Experts one after the other in one tensor, under the name that the map of the gguf package has for it."""
    experts = {}
    for name, w in tensors:
        if ".experts." not in name:
            yield name, w
            continue
        block, rest = name.split(".experts.")
        part = rest.split(".")[1]
        merged = f"layers.{block.split('.')[2]}.feed_forward.experts.{part}" if part in ("w1", "w2", "w3") else f"{block}.experts.{part}"
        experts.setdefault(merged + ".weight", []).append(w)
    for name, parts in experts.items():
        yield name, np.stack(parts)


def by_kind(w, heads):
    """Rows of q, k and v by turns, head by head -> those of q, those of k, those of v."""
    return w.reshape(heads, 3, w.shape[0] // heads // 3, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)


def write_gguf(path, model, arch):
    c = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("small")
    keys(writer, arch, c)
    names = gguf.get_tensor_name_map(ARCHS[arch], c.num_hidden_layers)
    kv = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
    if (getattr(c, "rope_parameters", None) or {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(c))
    for length in ("long", "short") if (getattr(c, "rope_parameters", None) or {}).get("rope_type") == "longrope" else ():
        writer.add_tensor(f"rope_factors_{length}.weight", np.array(c.rope_parameters[f"{length}_factor"], np.float32))
    for name, w in stacked(tensors_of(model, arch)):
        if arch in PERMUTED and "q_proj" in name:
            w = permute(w, c.num_attention_heads)
        if arch in PERMUTED and "k_proj" in name:
            w = permute(w, kv)
        if arch == "gptneox" and "query_key_value" in name:
            w = by_kind(w, c.num_attention_heads)
        if arch in ADDS_ONE and name.endswith("norm.weight"):
            w = w + 1
        if arch == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            w = w.T
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new, name
        if "shared_expert_gate" in name:
            w = w.squeeze()
        w = np.ascontiguousarray(w, np.float32)
        if w.ndim == 1 or new.endswith(("_norm.weight", "ffn_gate_inp.weight")) or new == "position_embd.weight":
            writer.add_tensor(new, w)
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(new, gguf.quants.quantize(w, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# With 7 two experts are nearly equal at the first tokens, and products of bf16 choose the other one.
SEEDS = {"qwen3_moe-window": 23}


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or MODELS:
        cls, told, arch = MODELS[name]
        model, ids = make(name, cls(**told), SEEDS.get(name, 7))
        logits = logits_of(model, ids)
        assert np.isfinite(logits).all()
        folder = os.path.join(HERE, name)
        os.makedirs(folder, exist_ok=True)
        kept = {n.removeprefix("transformer.") if name.endswith("-bare") else n: torch.from_numpy(w.copy()).to(torch.bfloat16) for n, w in tensors_of(model, arch)}
        save_file(kept, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
        config = model.config.to_dict()
        config = {k: v for k, v in config.items() if k not in ("transformers_version", "_name_or_path", "id2label", "label2id")}
        for key in UNSTATED.get(name, ()):
            del config[key]
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f, indent=1, sort_keys=True)
            f.write("\n")
        if arch:
            write_gguf(os.path.join(folder, "model.gguf"), model, arch)
        room = model.config.max_position_embeddings
        text, margins = greedy_text(model, ids[0], len(ids) if name.endswith("-short") else min(TEXT, room))
        rounded = logits_of(model.to(torch.bfloat16), ids)
        apart = write_golden(os.path.join(folder, "golden.bin"), ids, logits, rounded, text, margins)
        print(f"{name}: logits to {np.abs(logits).max():.2f}, in bf16 {apart:.3f} apart")


if __name__ == "__main__":
    main()
