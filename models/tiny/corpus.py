#!/usr/bin/env python3
"""The text that the tiny model learns from: Jane Austen's six novels.

    apt-get download r-cran-janeaustenr
    python3 corpus.py r-cran-janeaustenr_*_all.deb austen.txt

The novels are in the public domain; the Debian package that carries them is under the MIT licence.
austen.txt holds one paragraph a line, an empty line between paragraphs and a form feed between chapters.

The other scripts import `split` and `conversations` from here, so that the tokenizer, the training and
the losses that are reported all agree on which chapter is for what.
"""
import io
import re
import struct
import subprocess
import sys
import tarfile
import zlib

RDB = "./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"


# ---- from the package to the text -----------------------------------------------------------------

def r_strings(blob):
    """The strings of one R character vector, in R's binary ("X") serialisation, version 3."""
    magic, version, name_len = blob[:2], *struct.unpack_from(">I8xI", blob, 2)
    if magic != b"X\n" or version != 3:
        raise ValueError("not an R object of serialisation version 3")
    at = 18 + name_len                                  # past the header and the name of the encoding
    kind, count = struct.unpack_from(">II", blob, at)
    if kind & 255 != 16:                                # STRSXP
        raise ValueError("not a character vector")
    at += 8
    for _ in range(count):
        _flags, size = struct.unpack_from(">Ii", blob, at)
        at += 8
        yield blob[at:at + size].decode("utf-8")
        at += size


def books(deb):
    """The lines of each book. The .rdb is a row of (big-endian length, zlib stream) pairs."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True).stdout
    rdb = tarfile.open(fileobj=io.BytesIO(tar)).extractfile(RDB).read()
    while rdb:
        stream = zlib.decompressobj()
        yield list(r_strings(stream.decompress(rdb[4:])))
        rdb = stream.unused_data


def book_chapters(lines):
    """The chapters of one book as lists of paragraphs; title pages and what follows the end are left out."""
    chapters, paragraph = [], []
    for line in lines + [""]:
        line = line.strip()
        if re.fullmatch(r"(chapter|volume) [\dIVXL]+", line, re.I):
            if line[0] in "cC":
                chapters.append([])
            continue
        if line.lower() in ("finis", "the end") or line.startswith("*Vide"):
            break
        if line:
            paragraph.append(line)
        elif paragraph:
            if chapters:                                # before the first chapter there is only a title page
                chapters[-1].append(tidy(" ".join(paragraph)))
            paragraph = []
    return chapters


def tidy(text):
    """Emphasis is written _so_, a star marks a footnote, and some books have two spaces after a full stop."""
    return re.sub(r"\s+", " ", re.sub("[_*]", "", text))


# ---- what the other scripts use -------------------------------------------------------------------

def split(path):
    """Chapters for training, for choosing the checkpoint, and for the losses reported at the end."""
    chapters = open(path, encoding="utf-8").read().split("\f")
    parts = {"train": [], "valid": [], "test": []}
    for i, chapter in enumerate(chapters):
        parts[{9: "valid", 19: "test"}.get(i % 20, "train")].append(chapter.strip("\n"))
    return parts


def speech(paragraph, most=400):
    """What is said in a paragraph that is mostly one person talking, or None."""
    if paragraph.count('"') % 2 or not paragraph.startswith('"') or len(paragraph) > most:
        return None
    said = "".join(part if i % 2 else " " for i, part in enumerate(paragraph.split('"'))).split()
    said = " ".join(said)
    if len(said) < 0.6 * len(paragraph) or len(said) < 2:
        return None
    return said[0].upper() + said[1:].rstrip(",") + ("." if said.endswith(",") else "")


def conversations(chapter):
    """Dialogues of the novel as lists of turns, so that the chat template means something to the model."""
    turns = []
    for paragraph in chapter.split("\n\n") + [""]:
        said = speech(paragraph)
        if said:
            turns.append(said)
            continue
        if len(turns) >= 2:
            yield turns[:len(turns) // 2 * 2]           # end with a turn of the assistant
        turns = []


def main():
    deb, out = sys.argv[1:]
    chapters = [c for lines in books(deb) for c in book_chapters(lines)]
    text = "\n\f\n".join("\n\n".join(chapter) for chapter in chapters) + "\n"
    with open(out, "w", encoding="utf-8") as f:
        f.write(text)
    print(f"{out}: {len(chapters)} chapters, {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
