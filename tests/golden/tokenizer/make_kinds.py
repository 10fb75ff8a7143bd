#!/usr/bin/env python3
"""Makes kinds/ in this folder with Hugging Face `tokenizers` (0.23.3 made those that are committed) and, for the
tables of a GGUF, `sentencepiece`: small tokenizers of every kind that qgc reads, trained on the text of make_golden.py.

    kinds/text.txt        mixed text, some KB
    kinds/NAME.json       a tokenizer.json
    kinds/NAME.ids        the ids of the text with special tokens matched and what the post-processor puts in front,
                          then -1, then the ids with special tokens as ordinary text and nothing in front
    kinds/spm*.model.json the tables of a SentencePiece model: [piece, score, type] with the types of a GGUF
    kinds/spm*.ids        the ids that SentencePiece gives, between -1, of texts without special tokens

    pip install tokenizers sentencepiece && tests/golden/tokenizer/make_kinds.py
"""
import io
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from make_golden import ODD, TEXTS, plain_text  # noqa: E402

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kinds")
CONTRACTIONS, BLANKS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BLANKS
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
O200K = "|".join([rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{CONTRACTIONS}?",
                  rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{CONTRACTIONS}?",
                  r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TEKKEN = O200K.replace(CONTRACTIONS + "?", "").replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + BLANKS)
META = "\u2581"
SPECIAL = ["<s>", "</s>", "<|end|>", "<|user|>"]
RUNS = [" " * n for n in (2, 3, 4, 8, 16)] + ["\n\n", "\r\n", "\t\t", "aa", "abab", "=="]


def bytes_only(use_regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def bos(post=None):
    template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    return processors.Sequence([post, template]) if post else template


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert), bytes_only()])


def fallback(strip):
    steps = [decoders.Replace(META, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


REPLACE = normalizers.Replace(" ", META)
PREPEND = normalizers.Sequence([normalizers.Prepend(META), REPLACE])
at_blanks = pre_tokenizers.Split(" ", "merged_with_previous")
PLAIN = dict(normalized=False)

# name: normalizer, pre-tokenizer, post-processor, decoder, flags of added tokens by name, ignore_merges
KINDS = {
    "qwen2": (normalizers.NFC(), split(QWEN2), None, None, {}, False),
    "qwen2_no_nfc": (normalizers.Sequence([]), split(QWEN2), processors.ByteLevel(), None, {}, False),
    "llama3": (None, split(LLAMA3), bos(processors.ByteLevel(trim_offsets=False)), None, {}, True),
    "gpt2": (None, bytes_only(True), processors.ByteLevel(), None, {"word": dict(single_word=True)}, False),
    "smollm": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), bytes_only(True)]), None, None,
               {"<|end|>": dict(lstrip=True, rstrip=True)}, False),
    "o200k": (None, split(O200K, "removed", True), None, None,
              {"<|end|>": dict(rstrip=True), "the": dict(normalized=True, single_word=True)}, False),
    "dbrx": (None, split(LLAMA3), None, None, {}, False),
    "tekken": (None, split(TEKKEN), bos(processors.ByteLevel(trim_offsets=False)), None, {}, True),
    "qwen35": (normalizers.NFC(), split(QWEN35), None, None, {}, False),
    "llama2": (PREPEND, None, bos(), fallback(True), {}, False),
    "llama2_old": (PREPEND, None, bos(), fallback(True), {s: dict(normalized=True) for s in SPECIAL}, False),
    "phi3": (PREPEND, None, bos(), fallback(True),
             {"<|end|>": dict(rstrip=True), "<|user|>": dict(rstrip=True), "</s>": dict(rstrip=True)}, False),
    "mistral": (None, pre_tokenizers.Metaspace(META, "first", False), bos(), fallback(True), {}, False),
    "metaspace": (None, pre_tokenizers.Metaspace(META, "always", True), None, fallback(True),
                  {"<|end|>": dict(lstrip=True, normalized=True)}, False),
    "gemma": (REPLACE, at_blanks, bos(), fallback(False),
              {"<|end|>": dict(lstrip=True, rstrip=True, normalized=True), "\n\n": {}, META * 3: {}}, False),
}


def sentence_piece(name):
    return KINDS[name][3] is not None


def train(name):
    normalizer, pre, post, decoder, flags, ignore_merges = KINDS[name]
    t = Tokenizer(models.BPE(byte_fallback=decoder is not None, fuse_unk=decoder is not None))
    if decoder:  # trained on words, as SentencePiece does it, and on runs of blanks
        t.pre_tokenizer = pre_tokenizers.Metaspace(META, "always", True)
        first = SPECIAL + [f"<0x{b:02X}>" for b in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=1000, show_progress=False, special_tokens=first, limit_alphabet=300)
    else:
        t.normalizer, t.pre_tokenizer = normalizer, pre
        trainer = trainers.BpeTrainer(vocab_size=1000, show_progress=False, special_tokens=SPECIAL,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(TEXTS + RUNS * 5, trainer)
    data = json.loads(t.to_str())
    vocab, merges = data["model"]["vocab"], data["model"]["merges"]
    if decoder:
        for a, b in [(META, META), (META * 2, META), (META * 2, META * 2), ("\n", "\n"), ("e", META), (META, "1")]:
            if a in vocab and b in vocab and a + b not in vocab:
                vocab[a + b] = len(vocab)
                merges.append([a, b])
    if ignore_merges:  # words that no merge leads to
        for word in ["measured", "\u0120replayed", "1234", "123", "\u0120\u0120\u010a"]:
            vocab.setdefault(word, len(vocab))
    data["model"]["ignore_merges"] = ignore_merges
    data["added_tokens"] = []
    t = Tokenizer.from_str(json.dumps(data))
    t.normalizer, t.pre_tokenizer = normalizer, pre
    t.decoder = decoder or decoders.ByteLevel()
    if post:
        t.post_processor = post
    for s in SPECIAL:
        t.add_special_tokens([AddedToken(s, special=True, **{**PLAIN, **flags.get(s, {})})])
    for s in ["<think>", "<thin", "word"] + [s for s in flags if s not in SPECIAL + ["word"]]:
        t.add_tokens([AddedToken(s, special=False, **{**PLAIN, **flags.get(s, {})})])
    return t


def save(t, path):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(json.loads(t.to_str()), f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    return Tokenizer.from_file(path)


def mixed_text(rng, size):
    """Every odd part between others, and added tokens with white space and words around them."""
    added = SPECIAL + ["<think>", "<thin", "word", "the", "\n\n", META * 3, META]
    around = ["", " ", "  ", "\n", " \n\t ", "x", "X1", "\u00e9", "\u0301", "_", "-", "\u3000", "1", "\u24b6", "\u200d"]
    parts = [p for o in ODD[:110] for p in (rng.choice(around), o)]
    for s in added * 4:
        parts += [rng.choice(around), s, rng.choice(around)]
    rng.shuffle(parts)
    return "".join(parts) + plain_text(rng, size)[:size]


def reference_ids(t, text):
    t.encode_special_tokens = False
    ids = t.encode(text).ids
    t.encode_special_tokens = True
    ids += [-1] + t.encode(text, add_special_tokens=False).ids
    t.encode_special_tokens = False
    return ids


def write_ids(name, ids):
    with open(os.path.join(HERE, name), "w") as f:
        f.write(" ".join(map(str, ids)) + "\n")


# Where a blank is put in front there are no user-defined symbols: SentencePiece puts one at the start of the text alone,
# tokenizer.json and llama.cpp after each of these too, and qgc does as they do. Types of a GGUF: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
def train_sentencepiece(name, front, text):
    import sentencepiece
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for t in TEXTS for line in t.split("\n")] * 2), model_writer=out, model_type="bpe",
        vocab_size=900, byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
        add_dummy_prefix=front, remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        control_symbols=["<|end|>"], user_defined_symbols=[] if front else ["<think>", META * 4], minloglevel=2, num_threads=1,
        hard_vocab_limit=False)
    p = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    kind = lambda i: (2 if p.is_unknown(i) else 3 if p.is_control(i) else 6 if p.is_byte(i) else 5 if p.is_unused(i)
                      else 4 if p.id_to_piece(i) in ("<think>", META * 4) and not front else 1)
    with open(os.path.join(HERE, name + ".model.json"), "w", encoding="utf-8") as f:
        json.dump([[p.id_to_piece(i), p.get_score(i), kind(i)] for i in range(len(p))], f, ensure_ascii=False)
        f.write("\n")
    ids = []
    for line in text.split("\n"):
        ids += p.encode(line) + [-1]
    write_ids(name + ".ids", ids)


def main():
    os.makedirs(HERE, exist_ok=True)
    text = mixed_text(random.Random(20261127), 2500)
    with open(os.path.join(HERE, "text.txt"), "w", encoding="utf-8", newline="") as f:
        f.write(text)
    for name in KINDS:
        t = save(train(name), os.path.join(HERE, name + ".json"))
        write_ids(name + ".ids", reference_ids(t, text))
        print(name, t.get_vocab_size())
    for name, front in (("spm", True), ("spm_no_front", False)):
        train_sentencepiece(name, front, text)


if __name__ == "__main__":
    main()
