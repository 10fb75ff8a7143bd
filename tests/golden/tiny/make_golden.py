#!/usr/bin/env python3
"""Writes golden.bin and golden.txt: what Hugging Face transformers computes for the tiny model.

    python3 tests/golden/tiny/make_golden.py [models/tiny/safetensors]

The stored bf16 weights, widened to float32, eager attention, on the CPU. For each prompt: the logits at
all positions, and 64 tokens chosen greedily, with the distance between the best two logits of each choice.
A test that compares tokens may stop where that distance is smaller than the errors it allows.
README.md beside this file describes golden.bin.
"""
import os
import struct
import sys

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
NEW = 64
CLOSE = 0.05
PROMPTS = [
    "She",
    "It is a truth universally acknowledged,",
    "\"You don't understand me, Mr. Knightley,\" said Emma, laughing; \"it isn't the 23 miles to Bath, nor even "
    "the carriage.\"\n\nHe looked at her for some moments in silence, and then",
]


def run(model, ids):
    """Logits of all positions of the prompt, then the greedy tokens and how clear each choice was."""
    with torch.no_grad():
        prompt = logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        ids, margins = list(ids), []
        for _ in range(NEW):
            best = logits[-1].topk(2)
            ids.append(best.indices[0].item())
            margins.append((best.values[0] - best.values[1]).item())
            # No cache: nothing but the plain forward pass is trusted here.
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return prompt.numpy().astype("<f4"), ids[-NEW:], margins


def padded(text):
    return text + bytes(-len(text) % 4)


def pack(text, ids, logits, new, margins, new_text):
    text, new_text = text.encode(), new_text.encode()
    return b"".join([
        struct.pack("<4I", len(text), len(ids), len(new), len(new_text)),
        padded(text), np.array(ids, "<i4").tobytes(), logits.tobytes(),
        np.array(new, "<i4").tobytes(), np.array(margins, "<f4").tobytes(), padded(new_text)])


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "../../../models/tiny/safetensors")
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))

    cases, report = [], []
    for text in PROMPTS:
        ids = tok.encode(text).ids
        logits, new, margins = run(model, ids)
        assert logits.shape == (len(ids), model.config.vocab_size) and np.isfinite(logits).all()
        new_text = tok.decode(new, skip_special_tokens=False)
        cases.append(pack(text, ids, logits, new, margins, new_text))
        close = "  ".join(f"{i}:{m:.5f}" for i, m in enumerate(margins) if m < CLOSE)
        report.append(f"prompt, {len(ids)} tokens:\n{text}\n\ngreedy, {NEW} tokens:\n{new_text}\n\n"
                      f"smallest distance of the best two logits: {min(margins):.5f} at token {np.argmin(margins)}\n"
                      f"below {CLOSE}, as token:distance: {close or 'none'}\n")
    with open(os.path.join(HERE, "golden.bin"), "wb") as f:
        f.write(b"QGCGOLD1" + struct.pack("<2I", model.config.vocab_size, len(cases)) + b"".join(cases))
    report = ("-" * 80 + "\n").join(report)
    with open(os.path.join(HERE, "golden.txt"), "w", encoding="utf-8") as f:
        f.write(report)
    print(report)


if __name__ == "__main__":
    main()
