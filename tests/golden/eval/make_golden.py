#!/usr/bin/env python3
"""Writes golden.txt: the perplexity of pride.txt under the tiny model, and its divergence from other weights.

    python3 tests/golden/eval/make_golden.py [models/tiny/safetensors]

Needs numpy and Hugging Face's tokenizers, and shares no code with qgc: the forward pass of Qwen2 is written out
here, in float64, from the stored bf16 weights. Each window is computed as a whole, without caches. Windows,
counts and divergence are written anew from the definitions in runtime/engine/evaluate.h:

    halves  as llama.cpp's perplexity tool: of a window w[0..n) the tokens w[i] with i > n / 2 count
    strides as in Hugging Face's documentation: the tokens count that no window before has had

Where the tokenizer puts a BOS in front of a text (bos is 1), each window of halves begins with it. Here that is
<|endoftext|>, which the tests have a changed tokenizer do.

The other weights are the same with the 4 lowest of the 7 bits of each mantissa cleared, for tests to make.
"""
import json
import os
import sys

import numpy as np
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))


def read_weights(path, mask):
    with open(path, "rb") as f:
        data = f.read()
    n = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name == "__metadata__":
            continue
        assert t["dtype"] == "BF16"
        begin, end = (8 + n + at for at in t["data_offsets"])
        bits = np.frombuffer(data[begin:end], "<u2").astype(np.uint32) & mask
        tensors[name] = (bits << 16).view(np.float32).astype(np.float64).reshape(t["shape"])
    return tensors


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rope(x, base):
    """x is [tokens, heads, d]; the first half of a head is turned with the second."""
    tokens, _, d = x.shape
    angles = np.arange(tokens)[:, None] / base ** (np.arange(0, d, 2) / d)
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    a, b = x[..., :d // 2], x[..., d // 2:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q, k, v):
    tokens, heads, d = q.shape
    out = np.empty_like(q)
    future = np.triu(np.ones((tokens, tokens), bool), 1)
    for h in range(heads):
        kv = h // (heads // k.shape[1])
        scores = q[:, h] @ k[:, kv].T / np.sqrt(d)
        scores[future] = -np.inf
        out[:, h] = softmax(scores) @ v[:, kv]
    return out.reshape(tokens, heads * d)


def log_probabilities(w, c, ids):
    """[tokens, vocab]: what each token of a window predicts."""
    heads, kv_heads, eps = c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        h = rms_norm(x, w[at + "input_layernorm.weight"], eps)
        q, k, v = (h @ w[f"{at}self_attn.{m}_proj.weight"].T + w[f"{at}self_attn.{m}_proj.bias"] for m in "qkv")
        q = rope(q.reshape(len(ids), heads, -1), c["rope_theta"])
        k = rope(k.reshape(len(ids), kv_heads, -1), c["rope_theta"])
        a = attention(q, k, v.reshape(len(ids), kv_heads, -1))
        x = x + a @ w[at + "self_attn.o_proj.weight"].T
        m = rms_norm(x, w[at + "post_attention_layernorm.weight"], eps)
        gate, up = m @ w[at + "mlp.gate_proj.weight"].T, m @ w[at + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[at + "mlp.down_proj.weight"].T
    logits = rms_norm(x, w["model.norm.weight"], eps) @ w["model.embed_tokens.weight"].T
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def halves(n, ctx):
    """(begin, end, first that counts) of each window."""
    return [(begin, begin + ctx, begin + ctx // 2 + 1) for begin in range(0, n - ctx + 1, ctx)]


def strides(n, ctx, stride):
    windows, had = [], 1
    for begin in range(0, n, stride):
        end = min(begin + ctx, n)
        windows.append((begin, end, had))
        had = end
        if end == n:
            return windows


def evaluate(model, other, c, ids, windows, first_token):
    loss, other_loss, kl, flips = [], [], [], 0
    for begin, end, first in windows:
        window = ids[begin:end].copy()
        if first_token is not None:
            window[0] = first_token
        q, p = log_probabilities(model, c, window), log_probabilities(other, c, window)
        for i in range(first, end):
            mine, its = q[i - 1 - begin], p[i - 1 - begin]
            loss.append(-mine[ids[i]])
            other_loss.append(-its[ids[i]])
            kl.append((np.exp(its) * (its - mine)).sum())
            flips += mine.argmax() != its.argmax()
    return {"counted": len(loss), "perplexity": np.exp(np.mean(loss)), "other": np.exp(np.mean(other_loss)),
            "kl": np.mean(kl), "kl_999": np.percentile(kl, 99.9), "kl_max": np.max(kl), "flips": flips}


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "../../../models/tiny/safetensors")
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        c = json.load(f)
    path = os.path.join(folder, "model.safetensors")
    model, other = read_weights(path, 0xFFFF), read_weights(path, 0xFFF0)
    with open(os.path.join(HERE, "pride.txt"), encoding="utf-8") as f:
        ids = np.array(Tokenizer.from_file(os.path.join(folder, "tokenizer.json")).encode(f.read()).ids)
    bos = c["bos_token_id"]
    lines = [f"# {len(ids)} tokens; ctx stride bos counted perplexity other kl kl_999 kl_max flips"]
    for ctx, stride, has_bos in (128, 0, 0), (100, 0, 0), (128, 32, 0), (64, 64, 0), (128, 0, 1), (128, 32, 1):
        text = np.concatenate([[bos], ids]) if has_bos else ids
        windows = strides(len(text), ctx, stride) if stride else halves(len(text), ctx)
        if stride == ctx:  # nothing predicts the first token of a window
            windows = [(b, e, max(first, b + 1)) for b, e, first in windows]
        x = evaluate(model, other, c, text, windows, bos if has_bos and not stride else None)
        lines.append(f"{ctx} {stride} {has_bos} {x['counted']} {x['perplexity']:.12g} {x['other']:.12g} "
                     f"{x['kl']:.12g} {x['kl_999']:.12g} {x['kl_max']:.12g} {x['flips']}")
    with open(os.path.join(HERE, "golden.txt"), "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
