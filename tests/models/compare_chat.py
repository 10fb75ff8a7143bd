#!/usr/bin/env python3
"""Compares the chat templates of qgc with jinja2, set up as transformers does it, by hand.

    pip install jinja2
    tests/models/compare_chat.py build/render_chat [--random 20000] [--seed 1] [TEMPLATE ...]

TEMPLATEs (files, or tokenizer_config.json with a chat_template) are rendered with many conversations. With --random, small
templates are written at random. A text that differs, or that only jinja2 refuses, is an error; what only qgc refuses is
counted by its reason, and an error in the templates that were named.
"""
import argparse
import collections
import itertools
import json
import os
import random
import subprocess
import sys
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/chat"))
from jinja_snippets import VARIABLES  # noqa: E402
from reference import render  # noqa: E402

CONTENTS = ["Hello", "", " \n x \n", "<think>\nHm.\n</think>\n\nYes", "a</think>b", "[/INST] <|eot_id|>", "\u4f60\u597d\n\n",
            "\tlet x = 1;\n", "<think>\n\n</think>\n\n", "/no_think", "{{ x }}"]
SHAPES = ["u", "su", "uau", "suau", "uauau", "suauau", "uuu", "a", "s", "us", "suu", "uaua", "ssu", "uaau"]
ROLES = {"s": "system", "u": "user", "a": "assistant"}
SWITCHES = [{}, {"enable_thinking": True, "thinking": True}, {"enable_thinking": False, "thinking": False}]


def conversations(rng):
    for shape, _ in itertools.product(SHAPES, range(4)):
        yield [{"role": ROLES[letter], "content": rng.choice(CONTENTS)} for letter in shape]


def read_template(path):
    text = open(path, encoding="utf-8", newline="").read()
    return json.loads(text)["chat_template"] if path.endswith(".json") else text


def template_cases(paths, rng):
    for path in paths:
        template = read_template(path)
        for messages, switch, prompt in itertools.product(conversations(rng), SWITCHES, (True, False)):
            yield path, template, {"messages": messages, "add_generation_prompt": prompt, "tools": None, "documents": None,
                                   "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", **switch}


# --- random templates ---------------------------------------------------------------------------------------------

ATOMS = ["1", "0", "-2", "7", "2.5", "'a'", "'b c'", "''", "' x '", "'a,b'", "true", "false", "none", "n", "half", "yes", "no",
         "nothing", "missing", "text", "d", "d.a", "d.b", "messages", "messages[0]", "messages[1].content", "empty", "loop",
         "x", "[1, 2, 3]", "['b', 'a']", "[]", "{'k': 1}", "(1, 'z')", "bos_token", "'</think>'", "messages[-1]['role']"]
BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">", "<=", ">=", "in", "not in", "and", "or"]
FILTERS = ["trim", "length", "upper", "lower", "capitalize", "first", "last", "list", "string", "join", "join(', ')", "reverse",
           "default('q')", "default('q', true)", "tojson", "int", "abs", "items", "replace('a', 'b')", "map('upper')", "select",
           "reject('none')", "select('string')", "map(attribute='role')", "selectattr('role', 'eq', 'user')", "count", "d(1)"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "integer", "float", "boolean",
         "true", "false", "odd", "even", "eq 1", "eq('a')", "in [1, 'a']", "divisibleby 2", "gt 1", "lt 'b'", "callable"]
METHODS = ["split()", "split(',')", "split('a')[-1]", "strip()", "lstrip('a')", "rstrip()", "startswith('a')", "endswith('a')",
           "upper()", "lower()", "replace('a', 'xx')", "items()", "keys()", "get('a')", "find('a')", "role", "content", "b",
           "capitalize()", "index0", "last"]
SUBSCRIPTS = ["[0]", "[-1]", "[1:]", "[:-1]", "[::-1]", "['role']", "['a']", "[5]", "[::2]", "[-3:2]", "[1]"]


def expression(rng, depth):
    kind = rng.random()
    if depth == 0 or kind < 0.15:
        return rng.choice(ATOMS)
    inner = expression(rng, depth - 1)
    if kind < 0.40:
        return f"{inner} {rng.choice(BINARY)} {expression(rng, depth - 1)}"
    if kind < 0.55:
        return f"{inner} | {rng.choice(FILTERS)}"
    if kind < 0.65:
        return f"{inner} is {rng.choice(['', 'not '])}{rng.choice(TESTS)}"
    if kind < 0.75:
        return f"({inner}).{rng.choice(METHODS)}"
    if kind < 0.83:
        return f"({inner}){rng.choice(SUBSCRIPTS)}"
    if kind < 0.90:
        return f"({inner})"
    if kind < 0.95:
        return f"{inner} if {expression(rng, depth - 1)} else {expression(rng, depth - 1)}"
    return f"not {inner}"


def statements(rng, depth):
    dash = lambda: rng.choice(["", "", "", "-", "+"])  # noqa: E731
    end = lambda: rng.choice(["", "", "", "-"])  # noqa: E731
    kind = rng.random()
    if depth == 0 or kind < 0.25:
        return f"{{{{{end()} {expression(rng, 3)} {end()}}}}}"
    if kind < 0.40:
        return rng.choice([" ", "\n", "  \n  ", "t", "\n\n", "\t", " a\n"])
    body = "".join(statements(rng, depth - 1) for _ in range(rng.randrange(1, 4)))
    if kind < 0.60:
        other = f"{{%{dash()} else {dash()}%}}" + statements(rng, depth - 1) if rng.random() < 0.5 else ""
        return f"{{%{dash()} if {expression(rng, 2)} {dash()}%}}{body}{other}{{%{dash()} endif {dash()}%}}"
    if kind < 0.80:
        only = f" if {expression(rng, 1)}" if rng.random() < 0.2 else ""
        over = rng.choice(["messages", "[1, 2]", "text", "d", "range(3)", expression(rng, 2)])
        return f"{{%{dash()} for x in {over}{only} {dash()}%}}{body}{{%{dash()} endfor {dash()}%}}"
    if kind < 0.92:
        return f"{{%{dash()} set {rng.choice('xyn')} = {expression(rng, 2)} {dash()}%}}"
    if kind < 0.96:
        return f"{{#{dash()} comment {dash()}#}}"
    return f"{{%{dash()} set y {dash()}%}}{body}{{%{dash()} endset {dash()}%}}"


def random_cases(n, rng):
    for _ in range(n):
        yield "random", "".join(statements(rng, 3) for _ in range(rng.randrange(1, 5))), VARIABLES


# --- both ---------------------------------------------------------------------------------------------------------

def compare(program, cases, reasons):
    """Prints what differs; returns how many do."""
    asked = json.dumps([[template, variables] for _, template, variables in cases]).encode()
    got = json.loads(subprocess.run([program], input=asked, capture_output=True, check=True).stdout)
    n_bad = 0
    for (name, template, variables), ours in zip(cases, got):
        theirs = render(template, variables)
        refused = ours[0] if isinstance(ours, list) else None
        if refused and theirs is not None:
            reasons[refused] += 1
            if name == "random":
                continue
        elif (theirs is None and refused) or ours == theirs:
            continue
        n_bad += 1
        if n_bad == 1:
            print(f"{name}: differs\n  template  {template[-600:]!r}\n  variables {str(variables)[:400]}\n"
                  f"  qgc       {ours!r}\n  jinja2    {theirs!r}")
    return n_bad


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("templates", nargs="*")
    p.add_argument("--random", type=int, default=0)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_intermixed_args()
    warnings.simplefilter("ignore", SyntaxWarning)
    rng = random.Random(a.seed)
    reasons = collections.Counter()
    cases = itertools.chain(template_cases(a.templates, rng), random_cases(a.random, rng))
    n, n_bad = 0, 0
    while batch := list(itertools.islice(cases, 500)):
        n_bad += compare(a.program, batch, reasons)
        n += len(batch)
    print(f"{n} texts, {n_bad} differ; {sum(reasons.values())} refused by qgc alone:")
    for reason, count in reasons.most_common(25):
        print(f"  {count:6} {reason}")
    sys.exit(n_bad > 0)


if __name__ == "__main__":
    main()
