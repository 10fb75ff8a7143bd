#!/usr/bin/env python3
"""Kernels that are wrong on purpose: qgc bisect has to name them on a GPU, in each mode that runs them; and one that
qgc itself makes harmless.

usage: tests/gpu/faults.py QGC FOLDER      (in the root of the repository; FOLDER is for copies of QGC)

An executable holds the text of its kernels. A copy of it in which a few bytes of that text are others is a qgc with
one wrong kernel, and needs no compiler."""
import pathlib
import subprocess
import sys

MODES = ("stream", "graph", "pdl", "persistent")
LAUNCHED = MODES[:3]

# name, what stands in the text, what takes its place, the modes in which it is tried, what the report has to have
FAULTS = [
    ("norms half a percent off", "1.0f / sqrtf(mean + EPS)", "1.0f / sqrtf(mean*1.01f)", LAUNCHED, "value "),
    ("norms half a percent off, persistent", "* (1.0f / S::K) + S::eps())", "* (1.0f / S::K) * 1.01f)",
     ("persistent",), "value "),
    ("each pair rotated as the first", "table[(size_t)position * pairs::TURNED + at.pair]",
     "table[(size_t)position * pairs::TURNED + 0]", LAUNCHED, "value "),
    ("keys and values always to row 0", "kept_row(position, ctx)) * HEAD_DIM + row % HEAD_DIM",
     "kept_row(0, ctx)) * HEAD_DIM + row % HEAD_DIM", LAUNCHED, "value "),
    ("parts of attention weighted by their totals", "share[i] = expf(weights[i].x - most) / total;",
     "share[i] = weights[i].y / total;", LAUNCHED, "value "),
    ("a penalty that prefers", "return logit > 0.0f ? logit / penalty", "return logit > 0.0f ? logit * penalty",
     MODES, 'value   "next"'),
    # What does not wait is not started early (codegen/edges.c looks at the PTX), and so it is right.
    ("products that do not wait", "    wait_for_previous();\n    let_next_start();\n    const vector v = load_vector(",
     "    let_next_start();\n    const vector v = load_vector(", ("pdl",), "harmless"),
]


def plant(executable, old, new, copy):
    text = executable.read_bytes()
    old, new = old.encode(), new.encode()
    if old not in text:
        sys.exit(f"no kernel has {old.decode()!r}")
    copy.write_bytes(text.replace(old, new.ljust(len(old))))
    copy.chmod(0o755)


def start(copy, mode):
    command = [copy, "bisect", "models/tiny/tiny.yaml", "--weights", "models/tiny/tiny.gguf", "--device", "gpu",
               "--mode", mode, "--steps", "24", "--cache", f"{copy}.cache", "-q"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def is_missed(name, mode, process, wanted):
    report = process.communicate(timeout=300)[0]
    found = process.returncode == (0 if wanted == "harmless" else 1) and wanted in report
    last = [line for line in report.splitlines() if line.startswith(("value", "wrong", "harmless", "equal", "qgc:"))]
    print(f"{'found ' if found else 'MISSED'}  {name}, {mode}: {' | '.join(last)[:160]}")
    return not found


def main():
    executable, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    running = []
    for i, (name, old, new, modes, wanted) in enumerate(FAULTS):
        copy = folder / f"fault-{i}"
        plant(executable, old, new, copy)
        running += [(name, mode, start(copy, mode), wanted) for mode in modes]
    missed = sum([is_missed(*one) for one in running])
    print(f"{len(running)} runs with a wrong kernel, {missed} missed")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
