#!/usr/bin/env python3
"""Makes the files of this folder with Hugging Face `tokenizers` (0.23.3 made those that are committed):

    tokenizer.json        a small tokenizer of the qwen2 kind, trained on the text below
    text.txt              mixed text, a few hundred KB
    ids.bin               its ids, uint16 in little-endian order, special tokens matched
    ids_no_specials.bin   the ids of its last SPECIALS bytes with special tokens as ordinary text
    chat.txt, chat.bin    conversations that transformers 5.17 rendered, and their ids, if it is installed

    pip install tokenizers transformers jinja2 && tests/golden/tokenizer/make_golden.py
"""
import array
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im|>"]
ADDED = ["<tool_call>", "</tool_call>", "<think>", "</think>", "<|fim_prefix|>", "<tool"]

TEXTS = [
    """A compiler for graphs reads what a model does and writes kernels that do it. Each pass changes the graph a
little, and after each pass the result must be the same as before. We don't guess: it's measured, and if a number
can't be explained, we're not done. The tokens come one by one; they'll be words again at the end. I'd say that
you've seen this before. DON'T SHOUT, IT'S RUDE; I'M SURE THEY'LL AGREE, WE'VE ASKED. The king's horses weren't
there, and the weights of the model were read from the disk in one go.
""",
    """static int merge_short(const qgc_bpe *bpe, int32_t *ids, int n) {
    for (int i = 0; i + 1 < n; i++) {
        if (pairs[i] && (best < 0 || pairs[i]->rank < pairs[best]->rank))
            best = i;    /* the first of the lowest */
    }
\treturn best >= 0 ? 0x1F : -1; // 3.14159e-2
}
def forward(self, x: torch.Tensor) -> torch.Tensor:
    \"\"\"One step of the model.\"\"\"
    return self.down(F.silu(self.gate(x)) * self.up(x)) if x.shape[0] != 0 else None
{"name": "qwen2", "layers": 24, "tied": true, "eps": 1e-06, "list": [1, 22, 333, 4444]}
""",
    """\u4e00\u4e2a\u7f16\u8bd1\u5668\u8bfb\u53d6\u6a21\u578b\u7684\u8ba1\u7b97\u56fe\uff0c\u5199\u51fa\u6267\u884c\u5b83\u7684\u5185\u6838\u3002\u4f60\u597d\uff0c\u4e16\u754c\uff01\u6211\u4eec\u4e0d\u731c\u6d4b\uff0c\u6211\u4eec\u6d4b\u91cf\u3002
\u6a5f\u68b0\u5b66\u7fd2\u306e\u30e2\u30c7\u30eb\u3092\u30b3\u30f3\u30d1\u30a4\u30eb\u3059\u308b\u3002\u304c\u304e\u3050\u3052\u3054\u3001\u30d1\u30d4\u30d7\u30da\u30dd\u3002
\ubaa8\ub378\uc758 \uadf8\ub798\ud504\ub97c \uc77d\uace0 \ucee4\ub110\uc744 \uc4f4\ub2e4. \uc548\ub155\ud558\uc138\uc694.
""",
    """\u064a\u0642\u0631\u0623 \u0627\u0644\u0645\u062a\u0631\u062c\u0645 \u0631\u0633\u0645 \u0627\u0644\u0646\u0645\u0648\u0630\u062c \u0648\u064a\u0643\u062a\u0628 \u0627\u0644\u0646\u0648\u0649. \u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627 \u0628\u0650\u0627\u0644\u0639\u064e\u0627\u0644\u064e\u0645\u0650 \u0661\u0662\u0663
\u092f\u0939 \u0938\u0902\u0915\u0932\u0915 \u092e\u0949\u0921\u0932 \u0915\u093e \u0917\u094d\u0930\u093e\u092b \u092a\u0922\u093c\u0924\u093e \u0939\u0948\u0964 \u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u096a\u096b\u096c
\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd. \u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5. \u041a\u043e\u043c\u043f\u0438\u043b\u044f\u0442\u043e\u0440 \u0447\u0438\u0442\u0430\u0435\u0442 \u0433\u0440\u0430\u0444, \u0451\u043b\u043a\u0430 \u0438 \u0439\u043e\u0434.
C'est d\u00e9j\u00e0 l'\u00e9t\u00e9, o\u00f9 \u00eates-vous ? Gr\u00f6\u00dfe, \u00dcbung. Ti\u1ebfng Vi\u1ec7t r\u1ea5t \u0111\u1eb9p. \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01
""",
    """\U0001f600\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea\U0001f1ef\U0001f1f5 \u2764\ufe0f\u200d\U0001f525 #\ufe0f\u20e3 \u2192 \u2264 \u221e \u00bd \u00b2 \u2167 \u24b6
""",
]

# What a random text is made of besides words of the texts above.
ODD = [
    "e\u0301", "A\u030a", "\u212b", "\u2126", "o\u0323\u0302", "o\u0302\u0323", "\u1ed9", "q\u0307\u0323", "s\u0323\u0307", "\u1e9b\u0323", "\u0344", "\u0374",
    "\u1112\u1161\u11ab", "\u1100\u1161", "\uac00\u11a8", "\u304b\u3099", "\u30cf\u309a", "\u0915\u093c", "\u0958", "\u09c7\u09be", "\u0dd9\u0dcf\u0dca", "\uf900", "\U0002f800",
    "\U0001d15e", "\U00011935\U00011930", "a\u0898\u0323\u0301", "\u05e9\u05bc\u05c1", "\ufb2c", "\u0f73", "\u0f71\u0f72", "\u1e0a\u0323", "Z\u0351\u0346\u0323\u0316\u0334",
    "'s", "'S", "'\u017f", "'t", "'T", "'re", "'RE", "'rE", "'ve", "'Ve", "'m", "'M", "'ll", "'LL", "'lL", "'d", "'D", "\u2019s", "''s", "'\u212a",
    "\u212a", "\u017f", "'\ufb06", "'ll'd've", "x's'", "1's", " 's",
    "\r\n", "\r\n\r\n", "\r", "\n", "\n\n\n", " \n", "\n ", " \r\n \t", "\t", "\t\t", "  ", "   ", " " * 17, "\t" * 9, "\n" * 12, " " * 130,
    "\x0b", "\x0c", "\x1c", "\x1f", "\x00", "\x7f", "\u0085", "\u00a0", "\u1680", "\u180e", "\u2003", "\u2028", "\u2029", "\u200b", "\u202f", "\u2060", "\u3000",
    "\ufeff", "\u00ad", "\ue000", "\uf8ff", "\U000f0000", "\U0010ffff", "\ufdd0", "\uffff", "\u0378", "\U0003fffd", "\U000e0001", "\u1c89", "\U00011f02", "\U0001ccf0",
    "0", "7", "42", "1234567890", "3.14", "1,000", "\u0663", "\u096c", "\u00b2", "\u2167", "\u3007", "\U0001d7d8", "0xDEADBEEF", "1e-9",
    "!", "?!", "...", "\u2026", "--", "->", "==", "!==", "/*", "*/", "//", "#include <x.h>", "{}", "();\n", "}\r\n", "$", "\u20ac", "\\n", "\"\"\"", "~~~\n\n",
    "a" * 70, "ab" * 200, "\u4e00" * 90, "=" * 300, "9" * 33, "\U0001f600" * 20, "\u0301" * 40, "\u0301\u0323" * 30,
]


def train():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    t.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    runs = [" " * n for n in (2, 4, 8, 16, 32)] + ["\n\n", "\r\n", "\t\t", "aa", "ab" * 2, "=="]
    trainer = trainers.BpeTrainer(vocab_size=1000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(TEXTS + runs * 5, trainer)
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    t.add_tokens([AddedToken(s, special=False, normalized=False) for s in ADDED])
    return t


def save(t, path):
    """As Qwen's file: merges as pairs, empty affixes."""
    data = json.loads(t.to_str())
    data["model"]["continuing_subword_prefix"] = data["model"]["end_of_word_suffix"] = ""
    with open(path, "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    return Tokenizer.from_file(path)


def any_code_point(rng):
    while True:
        c = rng.randrange(rng.choice((0x250, 0x800, 0x3000, 0x10000, 0x20000, 0x110000)))
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def plain_text(rng, size):
    words = [w for text in TEXTS for w in text.split(" ")]
    parts, n = list(TEXTS), 0
    while n < size:
        kind = rng.random()
        part = (rng.choice(words) + " " if kind < 0.65 else rng.choice(ODD) if kind < 0.85
                else any_code_point(rng) if kind < 0.95 else rng.choice(ODD) + rng.choice(words))
        parts.append(part)
        n += len(part.encode())
    return "".join(parts)


def special_text(rng, size):
    tokens = SPECIAL + ADDED
    parts, n = [], 0
    while n < size:
        t = rng.choice(tokens)
        part = rng.choice([t, t, t, t[:-1], t[1:], "<" + t, t + t, " ", "e\u0301", "\u0301", "\n", "user\n", "it's ", "<|im", "\u4f60\u597d",
                           "<|im_start|>system\nYou are.<|im_end|>\n"])
        parts.append(part)
        n += len(part.encode())
    return "".join(parts)


def write_ids(name, ids):
    data = array.array("H", ids)
    if array.array("H", [1]).tobytes() != b"\1\0":
        data.byteswap()
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(data.tobytes())


QWEN25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n{\\"name\\": <function-name>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
QWEN2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
         "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
         "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
RAW = """{# trim_blocks and lstrip_blocks matter here #}
  {% for message in messages %}
<|im_start|>{{ message["role"] }}
{{ message [ 'content' ] ~ "<|im_end|>\\n" }}
    {%- endfor %}

{%- if add_generation_prompt %}
{{ "<|im_start|>" ~ 'assistant' -}} {{ '\\n' }}
  {%- if true %}{% endif %}
{%- endif %}"""
OLD = """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content']}}{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '<|im_end|>' + '\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
COPIED = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role != "system" or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

CONVERSATIONS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "What's e\u0301 in NFC?")],
    [("user", "\n\n  newlines first"), ("assistant", "Yes.\n"), ("user", "\u4f60\u597d <think> it's</think>")],
    [("system", ""), ("user", ""), ("assistant", "a"), ("user", "\u0301b"), ("assistant", "c "), ("user", "d")],
    [("user", "a"), ("system", "b"), ("user", "c")],
]


def chats(t):
    """chat.txt: template, NUL, then for each conversation role, NUL, content, NUL ..., NUL; an end NUL. chat.bin: the ids
    of the conversations, each after its number of ids."""
    from transformers import PreTrainedTokenizerFast
    fast = PreTrainedTokenizerFast(tokenizer_object=t)
    text, ids = "", []
    for template in (QWEN25, QWEN2, RAW, OLD, COPIED):
        text += template + "\0"
        for talk in CONVERSATIONS:
            messages = [{"role": r, "content": c} for r, c in talk]
            out = fast.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=True)
            out = list(out["input_ids"]) if hasattr(out, "keys") else list(out)
            text += "".join(f"{r}\0{c}\0" for r, c in talk) + "\0"
            ids += [len(out)] + out
        text += "\0"
    with open(os.path.join(HERE, "chat.txt"), "w", encoding="utf-8", newline="") as f:
        f.write(text)
    write_ids("chat.bin", ids)


def main():
    t = save(train(), os.path.join(HERE, "tokenizer.json"))
    rng = random.Random(20240607)
    specials = special_text(rng, 20000)
    text = plain_text(rng, 190000) + specials
    with open(os.path.join(HERE, "text.txt"), "w", encoding="utf-8", newline="") as f:
        f.write(text)
    write_ids("ids.bin", t.encode(text, add_special_tokens=False).ids)
    t.encode_special_tokens = True
    write_ids("ids_no_specials.bin", t.encode(specials, add_special_tokens=False).ids)
    t.encode_special_tokens = False
    print(f"SPECIALS = {len(specials.encode())} bytes of {len(text.encode())}")
    chats(t)


if __name__ == "__main__":
    main()
