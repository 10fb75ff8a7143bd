#!/usr/bin/env python3
"""Changes the config.json of small models key by key, and compares what qgc computes with transformers, by hand.

    pip install torch transformers safetensors gguf
    tests/models/compare_configs.py build/print_values [NAME ...]

NAMEs are models of tests/golden/families/make_families.py; without, all that have a family of their own. Each key is left
out, set to null and changed; what transformers computes then, qgc has to compute as well, or refuse. What only qgc refuses
is counted by the key; what differs is an error.
"""
import argparse
import collections
import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
sys.path.insert(0, os.path.join(HERE, "../golden/families"))
import make_families as families  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

MOST_APART = 1e-4  # of the largest logit; caches are in f32
IGNORED = ("architectures", "model_type", "dtype", "transformers_version")
FAMILIES = {"phi": "phi2"}  # where a model is not called after its family


def family_of(name):
    stem = name.split("-")[0]
    stem = {"llama3": "llama"}.get(stem, stem)
    return FAMILIES.get(stem, stem)


def changes(value):
    """Other values of a key."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, max(value - 1, 0), 0, 2 * value]
    if isinstance(value, float):
        return [1.5 * value, 1.0, 0.5 * value, 0.0]
    if isinstance(value, str):
        return ["gelu", "gelu_pytorch_tanh", "silu"] if value in ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh") else []
    if isinstance(value, list) and value:
        return [value[::-1], [value[0]] * len(value), value[:-1]]
    return [0, 1, 5, 0.5, True] if value is None else []


def keys(config, path=()):
    """The path of each key, also of those inside of objects."""
    for key, value in config.items():
        if key not in IGNORED:
            yield path + (key,), value
        if isinstance(value, dict):
            yield from keys(value, path + (key,))


def changed(config, path, how, value=None):
    new = copy.deepcopy(config)
    inner = new
    for key in path[:-1]:
        inner = inner[key]
    if how == "missing":
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return new


def logits_of_transformers(folder, ids):
    """None where transformers does not read such a file."""
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        return families.logits_of(model, ids)[-1]
    except Exception:
        return None


def logits_of_qgc(program, graph, folder, ids):
    """Or what it says."""
    done = subprocess.run([program, graph, folder, "logits"] + [str(i) for i in ids], capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr
    return [float(line.split()[1]) for line in done.stdout.splitlines()], ""


def compare(program, graph, folder, ids):
    """"equal", "refused", "not read by transformers", or how far it is."""
    want = logits_of_transformers(folder, ids)
    if want is None:
        return "not read by transformers"
    got, said = logits_of_qgc(program, graph, folder, ids)
    if got is None:
        return "refused" if "error:" in said else f"fails: {said[-200:]}"
    apart = max(abs(a - b) for a, b in zip(got, want)) / (max(abs(b) for b in want) or 1)
    return "equal" if len(got) == len(want) and apart <= MOST_APART else f"{apart:.2g} apart"


def check(name, program, folder, counts):
    cls, told, _ = families.MODELS[name]
    model, ids = families.make(name, cls(**told), families.SEEDS.get(name, 7))
    save_file({n: torch.from_numpy(w.copy()).to(torch.bfloat16) for n, w in families.tensors_of(model, None)},
              os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    graph = os.path.join(folder, "graph.yaml")
    with open(graph, "w") as f:
        up = os.path.relpath(os.path.join(ROOT, "models"), os.path.realpath(folder))
        f.write(f"qgc: 2\nextends: {up}/{family_of(name)}.yaml\nname: small\n"
                "state: {k_cache: {dtype: f32}, v_cache: {dtype: f32}}\n")
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "id2label", "label2id")}
    wrong = 0
    for path, value in list(keys(config)):
        for how, other in [("missing", None), ("null", None)] + [("changed", v) for v in changes(value)]:
            with open(os.path.join(folder, "config.json"), "w") as f:
                json.dump(changed(config, path, how, other), f)
            result = compare(program, graph, folder, ids)
            counts[result if result in ("equal", "refused", "not read by transformers") else "wrong"] += 1
            if result not in ("equal", "refused", "not read by transformers"):
                print(f"{name}: {'.'.join(path)} {how} {'' if how == 'missing' else other}: {result}", flush=True)
                wrong += 1
    return wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("names", nargs="*")
    a = p.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    own = [n for n in families.MODELS if "-" not in n and os.path.exists(os.path.join(ROOT, "models", family_of(n) + ".yaml"))]
    counts, wrong = collections.Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        for name in a.names or own:
            wrong += check(name, os.path.abspath(a.program), folder, counts)
    print(", ".join(f"{n} {what}" for what, n in counts.most_common()))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
