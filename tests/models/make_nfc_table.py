#!/usr/bin/env python3
"""Prints the table of models/nfc.c: the code points that Hugging Face `tokenizers` may change when it normalises, or
that may change their neighbours.

They are those for which Unicode's quick check for NFC is not "yes" or the combining class is not 0, without those that
are younger than the tables of `tokenizers` (Unicode 9), which is tried out.

    pip install tokenizers && tests/models/make_nfc_table.py      with Python 3.8 or later (Unicode 12 or later)
"""
import unicodedata

from tokenizers import normalizers

reference = normalizers.NFC().normalize_str
code_points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def nfc(text):
    return unicodedata.normalize("NFC", text)


def is_younger_mark(c):
    text = "a\u0323" + chr(c) + "\u0316" + chr(c) + "\u0300\u0345\u0334"
    return reference(text) != nfc(text)


marks = {c for c in code_points if unicodedata.combining(chr(c))}
changed = {c for c in code_points if nfc(chr(c)) != chr(c)}
seconds = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # the vowels and finals of Hangul
for c in code_points:
    parts = unicodedata.decomposition(chr(c)).split()
    if len(parts) == 2 and not parts[0].startswith("<") and c not in changed:
        first, second = (chr(int(p, 16)) for p in parts)
        if reference(first + second) == chr(c):
            seconds.add(ord(second))
unsafe = {c for c in marks if not is_younger_mark(c)} | changed | seconds

ranges = []
for c in sorted(unsafe):
    if ranges and ranges[-1][1] == c - 1:
        ranges[-1][1] = c
    else:
        ranges.append([c, c])
line = "   "
for first, last in ranges:
    item = f" {{0x{first:04X}, 0x{last:04X}}},"
    if len(line) + len(item) > 108:
        print(line)
        line = "   "
    line += item
print(line)
