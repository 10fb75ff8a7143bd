#!/usr/bin/env python3
"""Holds what `qgc schema` prints against model files, and against files with an error each.

    tests/models/check_schema.py QGC FILE.yaml...

which needs jsonschema and PyYAML. Says what is wrong, and exits with 1 if anything is.
"""
import copy
import json
import re
import subprocess
import sys

import jsonschema
import yaml



class Loader(yaml.SafeLoader):
    """YAML 1.2, in which "on" is a word."""


Loader.yaml_implicit_resolvers = {first: [(tag, words) for tag, words in all_of if tag != "tag:yaml.org,2002:bool"]
                                  for first, all_of in yaml.SafeLoader.yaml_implicit_resolvers.items()}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))

GRAPH = yaml.load("""
qgc: 2
name: small
arch: {hf: [small, tiny], gguf: small}
params:
  layers: {hf: num_hidden_layers, gguf: "{arch}.block_count", value: 2}
  turned: {per: l, hf: layer_types, words: [full, half], value: l % 2}
  d: 64
weights:
  embed: {shape: [160, d], gguf: token_embd.weight, hf: {name: embed.weight, plus: 1}}
  norm: {per: l, when: turned, shape: [d], gguf: norm, hf: {name: "{l}.norm", rows: [0, d], of: 2*d}}
state: {seen: {shape: [160], dtype: i32}}
inputs: {tokens: [T], positions: [T], rows: [R]}
ignore: ["*.inv_freq"]
parts:
  before: [{op: embedding, in: [tokens, embed], out: x}]
graph:
  - {part: before, with: {x: x}}
  - repeat: {index: l, from: 0, count: layers, carry: x}
    when: layers
    body:
      - {op: rms_norm, in: [x, norm], eps: 1e-6, out: h}
      - {when: turned, do: [{op: gelu, in: [h], approximate: tanh, out: g}], else: []}
      - {when: l > 0, op: add, in: [x, h], out: x, fuse: "a[0]"}
  - {op: rope_freqs, base: 1e4, rotary_dim: d, out: f}
outputs: [x]
""", Loader)
ERRORS = {
    "no version": lambda g: g.pop("qgc"),
    "format 3": lambda g: g.update(qgc=3),
    "no graph": lambda g: g.pop("graph"),
    "an unknown key of a file": lambda g: g.update(grpah=[]),
    "an unknown key of a parameter": lambda g: g["params"]["layers"].update(vlaue=2),
    "a parameter that is a list": lambda g: g["params"].update(d=[64]),
    "a name that starts with a digit": lambda g: g["params"].update({"2d": 128}),
    "a shape of five": lambda g: g["weights"]["embed"].update(shape=[1, 2, 3, 4, 5]),
    "an unknown dtype": lambda g: g["weights"]["embed"].update(dtype="q3_k"),
    "a tensor without a name": lambda g: g["weights"]["embed"]["hf"].pop("name"),
    "three rows": lambda g: g["weights"]["norm"]["hf"].update(rows=[0, 1, 2]),
    "an unknown key of a tensor": lambda g: g["weights"]["norm"]["hf"].update(row=[0, 1]),
    "an unknown key of a state": lambda g: g["state"]["seen"].update(gguf="seen"),
    "a part that is no list": lambda g: g["parts"].update(before={}),
    "an unknown op": lambda g: g["parts"]["before"][0].update(op="embeddings"),
    "one input of two": lambda g: g["parts"]["before"][0].update({"in": ["tokens"]}),
    "an op without a result": lambda g: g["parts"]["before"][0].pop("out"),
    "an attribute of another op": lambda g: g["graph"][1]["body"][0].update(base=1e4),
    "an attribute that is missing": lambda g: g["graph"][1]["body"][0].pop("eps"),
    "a word that is none of an attribute": lambda g: g["graph"][1]["body"][1]["do"][0].update(approximate="sigmoid"),
    "a choice without do": lambda g: g["graph"][1]["body"][1].pop("do"),
    "a repeat without an index": lambda g: g["graph"][1]["repeat"].pop("index"),
    "a repeat without a body": lambda g: g["graph"][1].pop("body"),
    "an unknown key of a part": lambda g: g["graph"][0].update(whit={}),
    "two indices of each": lambda g: g["weights"]["embed"]["hf"].update(each={"e": 1, "f": 2}),
    "memory that is not shared": lambda g: g.update(memory="own"),
}


def main():
    qgc, files = sys.argv[1], sys.argv[2:]
    schema = json.loads(subprocess.run([qgc, "schema"], check=True, capture_output=True).stdout)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    wrong = []
    for path in files:
        with open(path) as f:
            wrong += [f"{path}: {e.json_path}: {e.message}" for e in validator.iter_errors(yaml.load(f, Loader))]
    wrong += [f"the graph here: {e.json_path}: {e.message}" for e in validator.iter_errors(GRAPH)]
    for name, plant in ERRORS.items():
        graph = copy.deepcopy(GRAPH)
        plant(graph)
        if validator.is_valid(graph):
            wrong.append(f"{name} is not found")
    print("\n".join(wrong) if wrong else f"{len(files)} files are valid, {len(ERRORS)} errors are found")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
