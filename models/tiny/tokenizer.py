#!/usr/bin/env python3
"""Trains the tokenizer of the tiny model: byte-level BPE, in everything but size that of Qwen2.

    python3 tokenizer.py austen.txt OUT      # writes tokenizer.json and tokenizer_config.json into OUT

Vocabulary: 256 bytes, 1277 merges and 3 special tokens after them, 1536 in all. Only the training
chapters are looked at.
"""
import json
import os
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

import corpus

VOCAB = 1536
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CHATML = ("{% for message in messages %}"
          "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
          "{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def byte_level(part):
    return part.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)


def train(texts):
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"),
                                                 byte_level(pre_tokenizers)])
    tok.post_processor = byte_level(processors)
    tok.decoder = byte_level(decoders)
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    # Added after the training, so that they come after the merges, as in Qwen2's file.
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    assert tok.get_vocab_size() == VOCAB
    return tok


def save(tok, path):
    """The library leaves out or fills in a few settings of no effect; write them as Qwen2's file does."""
    doc = json.loads(tok.to_str())
    doc["decoder"].update(add_prefix_space=False, trim_offsets=False, use_regex=False)
    doc["model"].update(continuing_subword_prefix="", end_of_word_suffix="")
    write_json(doc, path)


def write_json(doc, path):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(doc, f, indent=2, ensure_ascii=False)
        f.write("\n")


def config(tok):
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                      "single_word": False, "special": True} for t in SPECIAL},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "chat_template": CHATML,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 1024,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def main():
    text, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    chapters = corpus.split(text)["train"]
    tok = train(chapters)
    save(tok, os.path.join(out, "tokenizer.json"))
    write_json(config(tok), os.path.join(out, "tokenizer_config.json"))
    n = sum(len(e.ids) for e in tok.encode_batch(chapters))
    print(f"{tok.get_vocab_size()} tokens; the training chapters are {n} tokens, "
          f"{sum(len(c.encode()) for c in chapters) / n:.3f} bytes each")


if __name__ == "__main__":
    main()
