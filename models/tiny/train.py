#!/usr/bin/env python3
"""Trains the tiny model: Qwen2's architecture with 1.7 million parameters, on Jane Austen's novels.

    python3 train.py austen.txt TOKENIZER_FOLDER OUT [--steps N --dropout P ...]

Writes model.safetensors (bf16), config.json, the tokenizer files and train_log.json into OUT. Needs
torch, transformers, tokenizers and safetensors, and no network. The weights are rounded to bf16 at the
end: the rounded weights are the model, and every loss in the "result" of the log is theirs.
"""
import argparse
import json
import math
import os
import shutil
import time

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

import corpus

EOT, IM_START, IM_END = 1533, 1534, 1535

# In the form of Qwen2.5's own config.json, whatever the version of transformers would write.
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": EOT,
    "eos_token_id": IM_END,
    "hidden_act": "silu",
    "hidden_size": 192,
    "initializer_range": 0.02,
    "intermediate_size": 448,
    "max_position_embeddings": 1024,
    "max_window_layers": 4,
    "model_type": "qwen2",
    "num_attention_heads": 6,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 1024,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 1536,
}


# ---- data -----------------------------------------------------------------------------------------

def novel_documents(tok, chapters):
    return [tok.encode(c).ids + [EOT] for c in chapters]


def chat_documents(tok, chapters):
    """Dialogues under the chat template. Each document is one conversation."""
    documents = []
    for turns in (t for c in chapters for t in corpus.conversations(c)):
        ids = []
        for i, turn in enumerate(turns):
            role = "assistant" if i % 2 else "user"
            ids += [IM_START, *tok.encode(role + "\n" + turn).ids, IM_END, *tok.encode("\n").ids]
        documents.append(ids + [EOT])
    return documents


def join(documents):
    return torch.tensor([t for d in documents for t in d])


class Batches:
    """Random windows of one long stream of training documents; one window in 16 starts where a document does."""

    def __init__(self, documents, device, seed):
        self.rng = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(documents), generator=self.rng).tolist()
        documents = [documents[i] for i in order]
        self.starts = torch.tensor([0] + [len(d) for d in documents]).cumsum(0)
        self.stream = join(documents).to(device)

    def next(self, rows, length):
        last = len(self.stream) - length - 1
        at = torch.randint(last, (rows,), generator=self.rng)
        fixed = torch.randint(len(self.starts), (rows // 16,), generator=self.rng)
        at[:len(fixed)] = self.starts[fixed].clamp(max=last)
        window = self.stream[at.to(self.stream.device)[:, None] + torch.arange(length + 1, device=self.stream.device)]
        return window[:, :-1], window[:, 1:]


# ---- model ----------------------------------------------------------------------------------------

def build(device):
    model = Qwen2ForCausalLM(Qwen2Config(**CONFIG, attn_implementation="sdpa"))
    # Versions differ in where the rope base is kept: look at what came of it.
    want = 1.0 / CONFIG["rope_theta"] ** (torch.arange(0, 32, 2) / 32)
    assert torch.allclose(model.model.rotary_emb.inv_freq.cpu(), want), "the rope base was not understood"
    for name, p in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            with torch.no_grad():
                p.div_(math.sqrt(2 * CONFIG["num_hidden_layers"]))      # as in GPT-2: they add up
    return model.to(device)


def add_dropout(model, p):
    """transformers' Qwen2 has dropout on the attention weights only; this drops what enters the residual stream."""
    def hook(module, _args, output):
        if isinstance(output, tuple):
            return (F.dropout(output[0], p, module.training), *output[1:])
        return F.dropout(output, p, module.training)

    for module in [model.model.embed_tokens, *(m for l in model.model.layers for m in (l.self_attn, l.mlp))]:
        module.register_forward_hook(hook)


def loss_of(model, x, y, reduction="mean"):
    hidden = model.model(input_ids=x, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden)
    return F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), reduction=reduction)


@torch.no_grad()
def evaluate(model, stream, length=512, windows=128):
    """Mean loss over the stream cut into windows, at most `windows` of them, evenly spread."""
    model.eval()
    count = (len(stream) - 1) // length
    chosen = torch.linspace(0, count - 1, min(count, windows)).long()
    total = 0.0
    for part in chosen.split(16):
        rows = torch.stack([stream[i * length:(i + 1) * length + 1] for i in part.tolist()])
        total += loss_of(model, rows[:, :-1], rows[:, 1:], "sum").item()
    model.train()
    return total / (len(chosen) * length)


@torch.no_grad()
def sample(model, tok, ids, count, device, temperature=0.8):
    rng = torch.Generator(device=device).manual_seed(1)
    ids = list(ids)
    model.eval()
    for _ in range(count):
        logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, -1].float()
        ids.append(torch.multinomial((logits / temperature).softmax(0), 1, generator=rng).item())
        if ids[-1] in (EOT, IM_END):
            break
    return tok.decode(ids, skip_special_tokens=False)


# ---- training -------------------------------------------------------------------------------------

def train(model, batches, valid, a, device):
    """Returns the weights with the lowest loss on the validation chapters, and the curve."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]             # norms and biases
    groups = [{"params": decay, "weight_decay": a.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, 0.98), fused=device == "cuda")
    best, best_loss, best_step, curve = None, math.inf, 0, []
    begin, step, progress, running = time.time(), 0, 0.0, []
    while progress < 1.0:
        # The clock may shorten the schedule, so that a slow machine still ends with a finished cosine.
        progress = max((step + 1) / a.steps, (time.time() - begin) / a.max_seconds)
        scale = min(1.0, (step + 1) / a.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
        for group in opt.param_groups:
            group["lr"] = a.lr * scale
        # The last tenth sees twice the length, so that all of max_position_embeddings has been trained.
        longer = progress > 0.9
        x, y = batches.next(a.batch // 2 if longer else a.batch, a.length * 2 if longer else a.length)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(model, x, y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        running.append(loss.detach())
        step += 1
        if step % a.every == 0 or progress >= 1.0:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                v = evaluate(model, valid)
            t = torch.stack(running).mean().item()
            curve.append([step, round(t, 4), round(v, 4)])
            seconds = time.time() - begin
            print(f"step {step:5d}  {seconds:6.1f} s  loss with dropout {t:.4f}  validation {v:.4f}", flush=True)
            running = []
            if v < best_loss:
                best_loss, best_step = v, step
                best = {k: p.detach().clone() for k, p in model.state_dict().items()}
    return best, {"best_step": best_step, "steps_done": step, "tokens_seen": step * a.batch * a.length,
                  "seconds": round(time.time() - begin, 1), "curve": curve}


def save(model, tokenizer, out):
    os.makedirs(out, exist_ok=True)
    tensors = {k: v.to("cpu", torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    del tensors["lm_head.weight"]                       # tied to the embedding
    path = os.path.join(out, "model.safetensors")
    save_file(tensors, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)                               # the library makes it private
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(CONFIG, f, indent=2)
        f.write("\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if os.path.abspath(tokenizer) != os.path.abspath(out):
            shutil.copy(os.path.join(tokenizer, name), out)


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("text")
    p.add_argument("tokenizer", help="folder with tokenizer.json")
    p.add_argument("out")
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--max-seconds", type=float, default=400.0)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--length", type=int, default=512)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--warmup", type=int, default=100)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--dropout", type=float, default=0.2)
    p.add_argument("--every", type=int, default=100, help="steps between two looks at the validation chapters")
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def main():
    a = options()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(a.seed)
    tok = Tokenizer.from_file(os.path.join(a.tokenizer, "tokenizer.json"))
    assert [tok.token_to_id(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [EOT, IM_START, IM_END]

    parts = corpus.split(a.text)
    novels = {k: novel_documents(tok, v) for k, v in parts.items()}
    chats = {k: chat_documents(tok, v) for k, v in parts.items()}
    streams = {k: join(v).to(device) for k, v in novels.items()}
    batches = Batches(novels["train"] + chats["train"], device, a.seed)

    model = build(device)
    add_dropout(model, a.dropout)
    model.train()
    best, log = train(model, batches, streams["valid"], a, device)

    # From here on the model is what the file will hold.
    model.load_state_dict({k: p.to(torch.bfloat16).float() if p.is_floating_point() else p for k, p in best.items()})
    save(model, a.tokenizer, a.out)
    result = {}
    for name, stream in streams.items():
        n_bytes = sum(len(c.encode()) for c in parts[name])
        loss = evaluate(model, stream)
        result[f"{name}_loss"] = round(loss, 4)
        result[f"{name}_bits_per_byte"] = round(loss / math.log(2) * len(stream) / n_bytes, 4)
    result["test_loss_1024"] = round(evaluate(model, streams["test"], 1024), 4)
    result["test_chat_loss"] = round(evaluate(model, join(chats["test"]).to(device)), 4)

    prompts = ["Emma was", "It is a truth universally acknowledged, that",
               "<|im_start|>user\nWill you dance with me this evening?<|im_end|>\n<|im_start|>assistant\n"]
    texts = [sample(model, tok, tok.encode(p).ids, 160, device) for p in prompts]
    log |= {
        "result": result,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_tokens": len(streams["train"]), "chat_tokens": sum(map(len, chats["train"])),
        "valid_tokens": len(streams["valid"]), "test_tokens": len(streams["test"]),
        "options": {k: v for k, v in vars(a).items() if k not in ("text", "tokenizer", "out")},
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "samples": texts,
    }
    with open(os.path.join(a.out, "train_log.json"), "w", encoding="utf-8") as f:
        json.dump(log, f, indent=1, ensure_ascii=False)
        f.write("\n")
    print(json.dumps(result, indent=1), *texts, sep="\n---\n")


if __name__ == "__main__":
    main()
