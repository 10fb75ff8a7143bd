#!/usr/bin/env python3
"""Turns a folder written by train.py into the two forms that are committed.

    python3 export.py TRAINED [--to models/tiny]

    TO/tiny.gguf        GGUF v3, laid out as llama.cpp's converter does it for Qwen2: matrices in BF16,
                        norms and biases in F32, the tokenizer inside, no output.weight (the head is tied)
    TO/safetensors/     model.safetensors in bf16, config.json, tokenizer and generation settings

Both hold the same numbers; the script reads them back and compares every one. Needs gguf, safetensors, numpy.
"""
import argparse
import json
import os
import shutil

import gguf
import numpy as np

LICENSE = "cc0-1.0"
NAME = "qgc tiny"
PER_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight", "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight", "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight", "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight", "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def read_safetensors(path):
    """name -> float32 array. numpy has no bf16, so read the file by hand: it is a header and the bytes."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, t in header.items():
        assert t["dtype"] == "BF16", f"{name} is {t['dtype']}"
        begin, end = t["data_offsets"]
        bits = np.frombuffer(data[begin:end], "<u2").astype(np.uint32) << 16
        tensors[name] = bits.view(np.float32).reshape(t["shape"])
    return tensors


def gguf_names(layers):
    names = {"model.embed_tokens.weight": "token_embd.weight"}
    for i in range(layers):
        names |= {f"model.layers.{i}.{hf}": f"blk.{i}.{g}" for hf, g in PER_LAYER.items()}
    return names | {"model.norm.weight": "output_norm.weight"}


# ---- writing --------------------------------------------------------------------------------------

def tokenizer_tables(tokenizer, size):
    """Tokens in the order of their ids, their types, and the merges as 'left right'."""
    tokens, types = [None] * size, [gguf.TokenType.NORMAL] * size
    for text, i in tokenizer["model"]["vocab"].items():
        tokens[i] = text
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL
    assert None not in tokens
    # The file has the merges as pairs, older ones as one string.
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    return tokens, types, merges


def write_gguf(trained, path):
    c = read_json(os.path.join(trained, "config.json"))
    tokenizer = read_json(os.path.join(trained, "tokenizer.json"))
    settings = read_json(os.path.join(trained, "tokenizer_config.json"))
    weights = read_safetensors(os.path.join(trained, "model.safetensors"))
    tokens, types, merges = tokenizer_tables(tokenizer, c["vocab_size"])

    w = gguf.GGUFWriter(path, "qwen2")
    w.add_type("model")
    w.add_name(NAME)
    w.add_license(LICENSE)
    w.add_languages(["en"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    # As in the files of Qwen2.5-Instruct: the end of a turn is the eos, the end of a text pads and begins.
    w.add_eos_token_id(tokens.index(settings["eos_token"]))
    w.add_pad_token_id(tokens.index(settings["pad_token"]))
    w.add_bos_token_id(c["bos_token_id"])
    w.add_add_bos_token(False)
    w.add_chat_template(settings["chat_template"])

    names = gguf_names(c["num_hidden_layers"])
    assert set(names) == set(weights), set(names) ^ set(weights)
    for hf, name in names.items():
        t = weights[hf]
        if t.ndim == 1:
            w.add_tensor(name, np.ascontiguousarray(t))
        else:
            bf16 = gguf.GGMLQuantizationType.BF16
            w.add_tensor(name, gguf.quants.quantize(t, bf16), raw_dtype=bf16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_safetensors_folder(trained, folder):
    os.makedirs(folder, exist_ok=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(os.path.join(trained, name), os.path.join(folder, name))
    tokenizer = read_json(os.path.join(folder, "tokenizer.json"))
    ids = {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    with open(os.path.join(folder, "generation_config.json"), "w", encoding="utf-8") as f:
        json.dump({"bos_token_id": ids["<|endoftext|>"],
                   "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
                   "pad_token_id": ids["<|endoftext|>"]}, f, indent=2)
        f.write("\n")


# ---- reading back ---------------------------------------------------------------------------------

def compare(path, folder):
    """Every weight, token and merge of the GGUF against the safetensors folder, bit for bit."""
    weights = read_safetensors(os.path.join(folder, "model.safetensors"))
    c = read_json(os.path.join(folder, "config.json"))
    names = gguf_names(c["num_hidden_layers"])
    reader = gguf.GGUFReader(path)
    tensors = {t.name: t for t in reader.tensors}
    assert set(tensors) == set(names.values())
    for hf, name in names.items():
        t = tensors[name]
        got = gguf.quants.dequantize(t.data, t.tensor_type).reshape(weights[hf].shape)
        assert list(t.shape) == list(reversed(weights[hf].shape)), name
        assert np.array_equal(got.view(np.uint32), weights[hf].view(np.uint32)), name
        assert np.isfinite(got).all(), name
    tokenizer = read_json(os.path.join(folder, "tokenizer.json"))
    tokens, types, merges = tokenizer_tables(tokenizer, c["vocab_size"])
    for key, want in (("tokens", tokens), ("token_type", [int(t) for t in types]), ("merges", merges)):
        assert reader.fields[f"tokenizer.ggml.{key}"].contents() == want, key
    return len(names)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("trained")
    p.add_argument("--to", default=os.path.dirname(os.path.abspath(__file__)))
    a = p.parse_args()
    path, folder = os.path.join(a.to, "tiny.gguf"), os.path.join(a.to, "safetensors")
    write_safetensors_folder(a.trained, folder)
    write_gguf(a.trained, path)
    n = compare(path, folder)
    print(f"{path}: {os.path.getsize(path)} bytes, {n} tensors, equal to those of {folder}")


if __name__ == "__main__":
    main()
