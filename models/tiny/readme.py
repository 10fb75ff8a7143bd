#!/usr/bin/env python3
"""Writes the measured numbers into README.md, between its two marks.

    python3 readme.py TRAINED      # the folder that train.py or train.sh wrote
"""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BEGIN, END = "<!-- measured: written by readme.py -->\n", "<!-- end of measured -->\n"


def table(log):
    r, o = log["result"], log["options"]
    rows = [
        ("training chapters", "train"),
        ("validation chapters, which chose the checkpoint", "valid"),
        ("test chapters, which chose nothing", "test"),
    ]
    lines = ["| text | tokens | loss, nats a token | bits a byte |", "|---|---|---|---|"]
    lines += [f"| {name} | {log[f'{k}_tokens']:,} | {r[f'{k}_loss']:.4f} | {r[f'{k}_bits_per_byte']:.4f} |"
              for name, k in rows]
    lines += ["", "Windows of 512 tokens, at most 128 of each text. "
              f"Test chapters in windows of 1024: {r['test_loss_1024']:.4f}.",
              f"Dialogues of the test chapters under the chat template: {r['test_chat_loss']:.4f}.", ""]
    flags = " ".join(f"--{k.replace('_', '-')} {v:g}" for k, v in o.items())
    lines += [f"{log['parameters']:,} parameters. Trained on one {log['device']} in {log['seconds']:.0f} s: "
              f"{log['steps_done']:,} steps, {log['tokens_seen'] / 1e6:.0f} million tokens seen",
              f"({log['train_tokens'] + log['chat_tokens']:,} different ones: the chapters, and "
              f"{log['chat_tokens']:,} tokens of dialogues made from them), checkpoint of step {log['best_step']:,}.",
              f"torch {log['versions']['torch']}, transformers {log['versions']['transformers']}, options", "",
              f"```\n{flags}\n```", ""]
    return lines


def samples(log):
    lines = ["Samples, temperature 0.8, up to 160 tokens, the first ones drawn:", ""]
    for text in log["samples"]:
        lines += ["```", text, "```", ""]
    return lines


def sizes():
    lines = ["| file | bytes |", "|---|---|"]
    for name in ("tiny.gguf", "safetensors/model.safetensors", "safetensors/tokenizer.json"):
        lines.append(f"| `{name}` | {os.path.getsize(os.path.join(HERE, name)):,} |")
    return lines + [""]


def variants(trained):
    """What else was tried, if train.sh trained more than one."""
    path = os.path.join(trained, "variants.txt")
    if not os.path.exists(path):
        return []
    return ["All variants that `train.sh` trained, side by side on that device, which makes each one slower:", "",
            "```", open(path).read().rstrip(), "```", ""]


def main():
    trained = sys.argv[1]
    with open(os.path.join(trained, "train_log.json"), encoding="utf-8") as f:
        log = json.load(f)
    path = os.path.join(HERE, "README.md")
    text = open(path, encoding="utf-8").read()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    body = "\n".join(table(log) + variants(trained) + sizes() + samples(log)).rstrip("\n") + "\n"
    with open(path, "w", encoding="utf-8") as f:
        f.write(before + BEGIN + "\n" + body + "\n" + END + after)


if __name__ == "__main__":
    main()
