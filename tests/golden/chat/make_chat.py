#!/usr/bin/env python3
"""Makes the files of this folder with jinja2 (3.1.6 made those that are committed), set up as transformers does it:

    jinja.json      templates of the language itself and what they print, null where they are refused
    families.json   a template a family, conversations with them, and what is printed
    ids.json        the ids of conversations by the tokenizers of ../tokenizer/kinds, if `tokenizers` is installed

    pip install jinja2 tokenizers && tests/golden/chat/make_chat.py
"""
import json
import os

from families import FAMILIES
from jinja_snippets import VARIABLES, all_templates
from reference import render

HERE = os.path.dirname(os.path.abspath(__file__))
BOS, EOS = "<s>", "</s>"
TALKS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "What's e\u0301 in NFC?")],
    [("user", "\n\n  newlines first"), ("assistant", "Yes.\n"), ("user", "\u4f60\u597d  ")],
    [("system", "S"), ("user", "a"), ("assistant", "<think>\nHm, hm.\n</think>\n\nb"), ("user", "c"), ("assistant", "d "), ("user", "e")],
    [("user", "a"), ("assistant", ""), ("user", "b")],
    [("user", "q"), ("assistant", "half a thought <think>\nthat was"), ("user", "go on")],
    [("user", "a"), ("user", "b")],
    [("system", "only")],
    [("user", ""), ("assistant", "</think>x</think>\n\ny"), ("user", "{{ z }} [/INST] it's")],
]
SWITCHES = [{}, {"enable_thinking": True, "thinking": True}, {"enable_thinking": False, "thinking": False}]


def messages_of(talk):
    return [{"role": role, "content": content} for role, content in talk]


def write(name, data):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=True, indent=0)
        f.write("\n")


def jinja():
    return {"variables": VARIABLES, "cases": [[t, render(t, VARIABLES)] for t in all_templates()]}


def families():
    out = []
    for name, template in FAMILIES.items():
        thinks = "thinking" in template
        cases = []
        for talk in TALKS:
            for switch in SWITCHES if thinks else SWITCHES[:1]:
                text = render(template, {"messages": messages_of(talk), "add_generation_prompt": True, "tools": None,
                                         "documents": None, "bos_token": BOS, "eos_token": EOS, **switch})
                cases.append([talk, switch.get("thinking"), text])
        out.append([name, template, cases])
    return out


# With the special tokens that every kind has.
TEMPLATE = ("{{ bos_token }}{% for m in messages %}<|user|>{{ m.role + '\n' + m.content }}<|end|>"
            "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}<|user|>")


def ids():
    from tokenizers import Tokenizer
    folder, out = os.path.join(HERE, "../tokenizer/kinds"), []
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".json") or file.endswith(".model.json"):
            continue
        t = Tokenizer.from_file(os.path.join(folder, file))
        for talk in TALKS:
            text = render(TEMPLATE, {"messages": messages_of(talk), "bos_token": BOS, "eos_token": EOS})
            out.append([file[:-5], talk, t.encode(text, add_special_tokens=False).ids])
    return {"template": TEMPLATE, "cases": out}


def main():
    write("jinja.json", jinja())
    write("families.json", families())
    try:
        write("ids.json", ids())
    except ImportError:
        print("ids.json is left as it is: no tokenizers")


if __name__ == "__main__":
    main()
