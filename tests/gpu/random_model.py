#!/usr/bin/env python3
"""Writes a Hugging Face folder of the shape of Qwen2.5-0.5B with random weights in bf16: for timing, where no model is at hand.

usage: random_model.py FOLDER TOKENIZER.json

A tokenizer with fewer tokens than the model is grown to the size of Qwen's by merges drawn at random, so that reading it takes
as long: tests/golden/tokenizer/tokenizer.json will do.
"""
import json
import math
import random
import shutil
import struct
import sys
from array import array
from pathlib import Path

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


def grow(tokenizer, size):
    """Merges of tokens it has, until there are `size` without the added ones, which follow them."""
    model, draw = tokenizer["model"], random.Random(1)
    vocab, merges = model["vocab"], model["merges"]
    tokens = list(vocab)
    while len(tokens) < size:
        left, right = (tokens[int(len(tokens) * draw.random() ** 3)] for _ in range(2))
        if len(left + right) <= 8 and left + right not in vocab:
            vocab[left + right] = len(tokens)
            tokens.append(left + right)
            merges.append(f"{left} {right}" if not merges or isinstance(merges[0], str) else [left, right])
    for i, added in enumerate(tokenizer["added_tokens"]):
        added["id"] = size + i


def put_tokenizer(folder, path):
    tokenizer = json.loads(path.read_text())
    if len(tokenizer["model"]["vocab"]) < 151643:
        grow(tokenizer, 151643)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2))
    else:
        shutil.copy(path, folder / "tokenizer.json")
    config = path.with_name("tokenizer_config.json")
    if config.exists():
        shutil.copy(config, folder / "tokenizer_config.json")


def main():
    folder, tokenizer = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    # A prime number of them, over and over: rows differ, and it takes a second.
    draw = random.Random(1)
    block, blocks = [draw.gauss(0, 1) for _ in range(400_009)], {}
    header, at = {}, 0
    for name, shape in shapes():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes():
            n = math.prod(shape)
            mean, scale = 1.0 if "norm" in name else 0.0, 0.1 if len(shape) == 1 else shape[-1] ** -0.5
            if (mean, scale) not in blocks:
                values = array("f", (mean + scale * x for x in block))
                blocks[mean, scale] = array("H", values.tobytes())[1::2].tobytes()
            bits = blocks[mean, scale]
            f.write((bits * (2 * n // len(bits) + 1))[:2 * n])
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "RANDOM").write_text("made by random_model.py: it speaks no language\n")
    put_tokenizer(folder, tokenizer)


if __name__ == "__main__":
    main()
