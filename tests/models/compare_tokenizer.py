#!/usr/bin/env python3
"""Compares the ids of qgc with those of Hugging Face `tokenizers`, by hand, on random text.

    pip install tokenizers
    tests/models/compare_tokenizer.py path/to/tokenizer.json build/tokenize_file [--mb 4] [--seed 1] [FILE ...]

Each kind of text is encoded with special tokens matched and what the post-processor puts in front, and without either;
the ids are decoded piece by piece. FILEs are compared as well. Exits with 1 at the first difference, having printed the
text around it.
"""
import argparse
import random
import subprocess
import sys
import tempfile

import tokenizers

WORDS = """the and of return static const int for while if else def class import self None true false printf
tokenizer model weights don't DON'T we're I'll you've it's IT'S I'D 'tis ca\u0301fe\u0301 caf\u00e9 na\u00efve \u212bngstr\u00f6m \u1e9b\u0323
\u4f60\u597d \u4e16\u754c \u6a5f\u68b0\u5b66\u4e60 \u65e5\u672c\u8a9e \u30ab\u3099 \ud55c\uad6d\uc5b4 \u1112\u1161\u11ab \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627 \u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u093c \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22
\u05e2\u05d1\u05e8\u05d9\u05ea \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd x\u00b2 \u00bd \u2167 \u0665 12345 3.14159 0xFF ==> -> ...
!= <= /* */ // ## '' \" \\ ' 's 'S '\u017f 'T 'll 'LL 'Ve 're'm 'd \u212a \u017ft""".split()
SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", " \n ", "\r", "\x0b", "\x0c", "\u0085", "\u00a0", "\u2003",
          "\u2028", "\u3000", "\u180e", "\u200b", "\ufeff", "\x1c", "\x00", " " * 37, "\t" * 9, "\n" * 20, "", ""]
MARKS = [0x300, 0x301, 0x302, 0x308, 0x30A, 0x323, 0x327, 0x328, 0x334, 0x338, 0x345, 0x5B0, 0x64B, 0x93C, 0x94D,
         0x9BE, 0x1161, 0x11A8, 0x3099, 0x309A, 0x20D0, 0x1D165, 0x9FE, 0x898, 0x1E8D0]


def any_code_point(rng):
    while True:
        c = rng.choice((0x80, 0x250, 0x800, 0x3000, 0x10000, 0x20000, 0x110000))
        c = rng.randrange(c)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def words(rng):
    return rng.choice(WORDS) + rng.choice(SPACES if rng.random() < 0.3 else [" "])


def random_unicode(rng):
    return any_code_point(rng)


def marks(rng):
    base = rng.choice("aeiouAEns \u00e9\u1ea5\u0915\u0995\uac00\u1112\u1112\u1161\u304b\U00011935\U000105d2")
    return base + "".join(chr(rng.choice(MARKS)) for _ in range(rng.randrange(6)))


def white(rng):
    return rng.choice(SPACES) + rng.choice(["", "", "a", "1", "!", "\u00e9"])


def long_runs(rng):
    return rng.choice(["a", "ab", "  ", "=", "\u4e00", "1", "\U0001f600", "e\u0301", "\u0301\u0323", "Aa'"]) * rng.randrange(1, 600)


def with_added(tokens):
    def make(rng):
        t = rng.choice(tokens)
        return rng.choice([t, t, t[:-1], t[1:], words(rng), "<", "<|", "<" + t, marks(rng), white(rng), " "])
    return make


def every_code_point(added):
    """Each one alone between letters, once with marks around it, and before and after added tokens."""
    ok = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    return ("".join(f"a{c}b" for c in ok), "".join(f"\u00e0\u0323{c}\u0323\u0301 '{c}" for c in ok),
            *("".join(f"-{c}{t}{c}" for c in ok) for t in added))


def make_text(kind, size, rng):
    parts, n = [], 0
    while n < size:
        parts.append(kind(rng))
        n += len(parts[-1].encode())
    return "".join(parts)


def compare(name, text, reference, tokenizer, program):
    data = text.encode()
    with tempfile.NamedTemporaryFile() as f:
        f.write(data)
        f.flush()
        for specials in (True, False):
            reference.encode_special_tokens = not specials
            want = reference.encode(text, add_special_tokens=specials).ids
            command = [program, tokenizer, f.name] + ([] if specials else ["--no-specials"])
            done = subprocess.run(command, capture_output=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.decode()}")
            numbers, _, decoded = done.stdout.partition(b"text\n")
            got = [int(x) for x in numbers.split()]
            if got != want:
                at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
                pieces = [[reference.id_to_token(i) for i in ids[max(0, at - 5):at + 8]] for ids in (got, want)]
                print(f"{name}, specials={specials}: id {at} differs\n  qgc  {pieces[0]}\n  want {pieces[1]}")
                print("  before it:", ascii(reference.decode(want[max(0, at - 20):at], skip_special_tokens=False)))
                sys.exit(1)
            want_text = reference.decode(want, skip_special_tokens=False).encode()
            if decoded != want_text:
                at = next((i for i, (a, b) in enumerate(zip(decoded, want_text)) if a != b), -1)
                print(f"{name}, specials={specials}: decoded text differs at byte {at} of {len(decoded)}, {len(want_text)}")
                print(f"  qgc  {decoded[max(0, at - 30):at + 30]}\n  want {want_text[max(0, at - 30):at + 30]}")
                sys.exit(1)
        print(f"{name}: {len(data)} bytes, {len(want)} ids equal; {done.stderr.decode().strip()}")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("tokenizer")
    p.add_argument("program")
    p.add_argument("files", nargs="*")
    p.add_argument("--mb", type=float, default=4)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_intermixed_args()
    reference = tokenizers.Tokenizer.from_file(a.tokenizer)
    added = [t.content for t in reference.get_added_tokens_decoder().values()] or ["<|x|>"]
    flagged = [t.content for t in reference.get_added_tokens_decoder().values() if t.lstrip or t.rstrip or t.single_word][:2]
    rng = random.Random(a.seed)
    for kind in (words, random_unicode, marks, white, long_runs, with_added(added)):
        text = make_text(kind, a.mb * 1e6 / 6, rng)
        compare(kind.__name__, text, reference, a.tokenizer, a.program)
    for i, text in enumerate(every_code_point(flagged)):
        compare(f"every code point {i}", text, reference, a.tokenizer, a.program)
    for path in a.files:
        with open(path, newline="", encoding="utf-8", errors="replace") as f:
            compare(path, f.read(), reference, a.tokenizer, a.program)


if __name__ == "__main__":
    main()
