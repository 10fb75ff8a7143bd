#!/bin/sh
# Trains a few variants of the tiny model side by side on one GPU and keeps the one with the lowest
# loss on the validation chapters. Which one that was stands in OUT/train_log.json, all of them in
# OUT/variants.txt.
#
#     sh train.sh austen.txt TOKENIZER_FOLDER OUT
set -eu
text=$1 tokenizer=$2 out=$3
here=$(dirname "$0")
mkdir -p "$out"
work=$(mktemp -d)

n=0
while read -r options; do
    n=$((n + 1))
    # shellcheck disable=SC2086
    python3 "$here/train.py" "$text" "$tokenizer" "$work/$n" --max-seconds "${MAX_SECONDS:-330}" $options \
        > "$work/$n.txt" 2>&1 &
done <<VARIANTS
${VARIANTS:---steps 1500 --dropout 0.1
--steps 3000 --dropout 0.1
--steps 3000 --dropout 0.2
--steps 3000 --dropout 0.2 --lr 4e-3
--steps 3000 --dropout 0.15 --weight-decay 0.5
--steps 6000 --dropout 0.2
--steps 6000 --dropout 0.3}
VARIANTS
wait

python3 - "$work" "$out" <<'CHOOSE'
import glob, json, os, shutil, sys
work, out = sys.argv[1:]
found = []
for path in glob.glob(f"{work}/*/train_log.json"):
    log = json.load(open(path, encoding="utf-8"))
    found.append((log["result"]["valid_loss"], os.path.dirname(path), log))
if not found:
    for path in sorted(glob.glob(f"{work}/*.txt")):
        print(path, open(path).read()[-2000:], sep="\n")
    sys.exit("no variant finished")
found.sort(key=lambda f: f[0])
folder = found[0][1]
for name in os.listdir(folder):
    shutil.copy(os.path.join(folder, name), out)
shutil.copy(folder + ".txt", os.path.join(out, "train.txt"))
with open(os.path.join(out, "variants.txt"), "w") as f:
    for loss, folder, log in found:
        o, r = log["options"], log["result"]
        line = (f"valid {loss:.4f}  test {r['test_loss']:.4f}  train {r['train_loss']:.4f}"
                f"  steps {log['steps_done']} of {o['steps']}  best at {log['best_step']}  dropout {o['dropout']}  decay {o['weight_decay']}  lr {o['lr']}  {log['seconds']} s")
        print(line)
        f.write(line + "\n")
CHOOSE
cat "$out/train.txt"
rm -rf "$work"
