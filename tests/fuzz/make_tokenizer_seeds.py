#!/usr/bin/env python3
"""Makes tests/fuzz/corpus/tokenizer from tests/golden/tokenizer: a tokenizer of the bytes and few merges, a template, a text."""
import json
import os

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus/tokenizer")
GOLDEN = os.path.join(HERE, "../../../golden/tokenizer")
data = json.load(open(os.path.join(GOLDEN, "tokenizer.json"), encoding="utf-8"))
model = data["model"]
ids = {i: t for t, i in model["vocab"].items()}
model["vocab"] = {ids[i]: i for i in range(276)}
model["merges"] = [m for m in model["merges"] if "".join(m) in model["vocab"]]
data["added_tokens"] = data["added_tokens"][:5]
for i, token in enumerate(data["added_tokens"]):
    token["id"] = 276 + i
pairs = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
model["merges"] = [" ".join(m) for m in model["merges"]]
texts = json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode()
chats = open(os.path.join(GOLDEN, "chat.txt"), "rb").read()
templates = [c for c in chats.split(b"\0") if b"im_start" in c]
for i, (tables, template) in enumerate(zip([pairs, texts, pairs, texts, pairs], templates)):
    text = "<|im_start|>the e\u0301\u0323 \u4f60\u597d  it's 12\r\n\n <|im_end|>\U0001f600\u0301".encode() * (i + 1)
    with open(os.path.join(HERE, f"seed{i}"), "wb") as f:
        f.write(tables + b"\0" + template + b"\0" + text)
