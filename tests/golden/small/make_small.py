#!/usr/bin/env python3
"""Writes the small models of this folder, and what Hugging Face transformers computes for them.

    python3 tests/golden/small/make_small.py [NAME...]

which needs torch, transformers, safetensors and numpy. For each model: NAME/config.json, NAME/model.safetensors with
random weights in bf16, and NAME/golden.bin. README.md beside this file says what they hold. The same versions of the
libraries give the same files.
"""
import os
import struct
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Olmo2Config, Olmo2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT, NEW, SEEDS = 21, 40, 4000  # seeds from the one in the table on, until a text is clear
CLEAR = 0.015  # the best two logits differ by more, as a part of the largest logit of the position
DISTINCT = 20  # different tokens among those chosen

SMALL = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(
        num_hidden_layers=3, hidden_size=128, intermediate_size=320, num_attention_heads=6, num_key_value_heads=2,
        head_dim=64, vocab_size=512, rope_theta=1e6, rms_norm_eps=1e-6, max_position_embeddings=1024,
        tie_word_embeddings=False), 158),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config(
        num_hidden_layers=3, hidden_size=192, intermediate_size=256, num_attention_heads=3, num_key_value_heads=3,
        vocab_size=256, rope_theta=5e5, rms_norm_eps=1e-6, max_position_embeddings=1024, tie_word_embeddings=False,
        pad_token_id=None, bos_token_id=None, eos_token_id=None), 17),
    "llama": (LlamaForCausalLM, LlamaConfig(
        num_hidden_layers=2, hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=384, rope_theta=5e5, rms_norm_eps=1e-5, max_position_embeddings=1024, tie_word_embeddings=False,
        pad_token_id=None, bos_token_id=None, eos_token_id=None), 131),
}


def spread(name, w, generator):
    """Random numbers such that what a layer adds is about as large as what it is added to. Larger matrices would make more
    of each rounding than a real model does."""
    noise = torch.randn(w.shape, generator=generator)
    if w.dim() == 1:
        return 1 + 0.25 * noise
    if "embed_tokens" in name:
        return 0.5 * noise
    gain = 1.25 if "q_proj" in name or "k_proj" in name else 1
    return gain * noise / w.shape[1] ** 0.5


def make(cls, config, seed):
    generator = torch.Generator().manual_seed(seed)
    config._attn_implementation = "eager"
    model = cls(config).eval()
    with torch.no_grad():
        for name, w in model.named_parameters():
            w.copy_(spread(name, w, generator).to(torch.bfloat16).to(torch.float32))
    return model, torch.randperm(config.vocab_size, generator=generator)[:PROMPT].tolist()


def run(model, ids):
    """Logits of all positions of the prompt, the greedy tokens, how clear each choice was, and the same as a part of the
    largest logit. No cache: nothing but the plain forward pass is trusted here."""
    ids, new, margins, clear = list(ids), [], [], []
    with torch.no_grad():
        prompt = logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        for _ in range(NEW):
            best = logits[-1].topk(2)
            new.append(best.indices[0].item())
            margins.append((best.values[0] - best.values[1]).item())
            clear.append(margins[-1] / logits[-1].abs().max().item())
            logits = model(input_ids=torch.tensor([ids + new]), use_cache=False).logits[0]
    return prompt.numpy().astype("<f4"), new, margins, clear


def write(name, model, ids, logits, new, margins):
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    tensors = {n: w.detach().to(torch.bfloat16).contiguous() for n, w in model.state_dict().items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
    model.config.dtype = "bfloat16"
    model.config.to_json_file(os.path.join(folder, "config.json"))
    with open(os.path.join(folder, "golden.bin"), "wb") as f:
        f.write(b"QGCGOLD1" + struct.pack("<2I", logits.shape[1], 1) + struct.pack("<4I", 0, len(ids), len(new), 0))
        f.write(np.array(ids, "<i4").tobytes() + logits.tobytes())
        f.write(np.array(new, "<i4").tobytes() + np.array(margins, "<f4").tobytes())


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or SMALL:
        cls, config, first = SMALL[name]
        for seed in range(first, SEEDS):
            model, ids = make(cls, config, seed)
            logits, new, margins, clear = run(model, ids)
            if min(clear) > CLEAR and len(set(new)) >= DISTINCT:
                break
        else:
            sys.exit(f"{name}: no seed below {SEEDS} gives a text that is clear")
        assert np.isfinite(logits).all()
        write(name, model, ids, logits, new, margins)
        print(f"{name}: seed {seed}, {sum(w.numel() for w in model.parameters()):,} parameters, logits to "
              f"{np.abs(logits).max():.2f}, best two at least {min(margins):.3f} apart ({min(clear):.1%} of the largest), "
              f"{len(set(new))} different tokens of {NEW}")


if __name__ == "__main__":
    main()
