#!/usr/bin/env python3
"""Writes a Hugging Face folder of the shape of Qwen2.5-0.5B with random weights in bf16: for timing, where no model is at hand.

usage: random_model.py FOLDER TOKENIZER.json
"""
import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

LAYERS, D, FF, HEADS, KV_HEADS, D_HEAD, VOCAB = 24, 896, 4864, 14, 2, 64, 151936
CONFIG = {
    "model_type": "qwen2", "num_hidden_layers": LAYERS, "hidden_size": D, "intermediate_size": FF,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB, "rope_theta": 1e6,
    "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "tie_word_embeddings": True,
    "bos_token_id": 151643, "eos_token_id": 151645,
}


def shapes():
    yield "model.embed_tokens.weight", (VOCAB, D)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", (D,)
        for name, rows in (("q", HEADS * D_HEAD), ("k", KV_HEADS * D_HEAD), ("v", KV_HEADS * D_HEAD)):
            yield f"{at}self_attn.{name}_proj.weight", (rows, D)
            yield f"{at}self_attn.{name}_proj.bias", (rows,)
        yield at + "self_attn.o_proj.weight", (D, HEADS * D_HEAD)
        yield at + "post_attention_layernorm.weight", (D,)
        yield at + "mlp.gate_proj.weight", (FF, D)
        yield at + "mlp.up_proj.weight", (FF, D)
        yield at + "mlp.down_proj.weight", (D, FF)
    yield "model.norm.weight", (D,)


def main():
    folder, tokenizer = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    # A prime number of them, over and over: rows differ, and it takes a second.
    block = np.random.default_rng(1).standard_normal(4_000_037, dtype=np.float32)
    header, at = {}, 0
    for name, shape in shapes():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes():
            n = int(np.prod(shape))
            scale = 0.1 if len(shape) == 1 else shape[-1] ** -0.5
            values = scale * block + (1.0 if "norm" in name else 0.0)
            bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            f.write(np.resize(bits, n).tobytes())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "RANDOM").write_text("made by random_model.py: it speaks no language\n")
    shutil.copy(tokenizer, folder / "tokenizer.json")
    config = tokenizer.with_name("tokenizer_config.json")
    if config.exists():
        shutil.copy(config, folder / "tokenizer_config.json")


if __name__ == "__main__":
    main()
