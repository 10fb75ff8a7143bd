#!/usr/bin/env bash
# All checks and timings that need a GPU, in one command. What it prints goes into docs/benchmarks.md.
#
#   tests/gpu/run.sh BUILD [MODEL]
#
# BUILD is a build folder, or one made by tests/gpu/bundle.sh. MODEL is a Qwen2.5-0.5B-Instruct, as GGUF or as a folder, or
# one of that shape made by tests/gpu/random_model.py; without it only the tiny model is run. PARTS chooses among what is done,
# "tests families bench base ablate tiny eval sanitize model" if it is not set; besides these there are
#
#   shapes   steps of other models' shapes; writes up to 17 GB of random weights to /tmp
#   faults   kernels that are wrong on purpose, which bisect has to find (faults.py)
#   32b      the same of a 32B model and of one with experts, which take 66 and 61 GB there and on the card
#   cards    the tests again, the GPU in the place of older cards (CARDS, separated by spaces): their kernels, as PTX
#
# BASE is another build folder, of an older commit. The part base runs its `qgc bench` and this build's alternately,
# prints both, and fails where a step of this build is more than 1 % slower. Exits 1 if a check failed.
set -uo pipefail
build=$(cd "$1" && pwd) model=${2:-} base=${BASE:-}
[ -n "$base" ] && { base=$(cd "$base" && pwd) || exit 1; }
cd "$(dirname "$0")/../.." || exit 1
[ -d "$build/lib" ] && export LD_LIBRARY_PATH="$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
qgc() { "$build/qgc" "$@"; }
failed=0 passed=0
part() { case " ${PARTS:-tests families bench base ablate tiny eval sanitize model} " in *" $1 "*) true ;; *) false ;; esac; }
check() { # check NAME COMMAND...
    if "${@:2}"; then echo "ok      $1"; passed=$((passed + 1)); else echo "FAILED  $1"; failed=$((failed + 1)); fi
}

echo "date    $(date -u +%F)"
echo "gpu     $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)"
echo "commit  ${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}"

start() { # start CARD TEST
    env ${1:+"QGC_TEST_CARD=$1"} "$2" > "$work/log-$(basename "$2")-$1" 2>&1
}
judge() { # judge CARD TEST STATUS
    grep -vE '^\[ (RUN|      OK)|^\[=' "$work/log-$(basename "$2")-$1"
    check "$(basename "$2")${1:+ as $1}" test "$3" = 0
}
# suites CARDS TEST...: of all cards at once, as most of their time is that of compilers; then, one by one, those that compare times.
suites() {
    local card t cards=("") together=() alone=() pids=()
    [ -n "$1" ] && read -ra cards <<< "$1"
    for t in "${@:2}"; do
        case $t in *_trial) alone+=("$t") ;; *) together+=("$t") ;; esac
    done
    for card in "${cards[@]}"; do
        for t in "${together[@]}"; do start "$card" "$t" & pids+=($!); done
    done
    for card in "${cards[@]}"; do
        for t in "${together[@]}"; do
            wait "${pids[0]}"; judge "$card" "$t" $?
            pids=("${pids[@]:1}")
        done
    done
    for card in "${cards[@]}"; do
        for t in "${alone[@]}"; do start "$card" "$t"; judge "$card" "$t" $?; done
    done
}
if part tests; then
echo; echo "== tests"
all=()
for t in "$build"/test_gpu_*; do [ "$(basename "$t")" = test_gpu_families ] || all+=("$t"); done
QGC_TEST_CACHE=$work/kernels suites "" "${all[@]}"
fi

if part families; then
echo; echo "== small models of all families in every mode"
"$build/test_gpu_families" > "$work/log"; rc=$?
grep -E '^(ok|WRONG|[0-9]+ models)' "$work/log"
check "test_gpu_families" test $rc = 0
fi

if part faults; then
echo; echo "== kernels that are wrong on purpose"
check "faults" python3 tests/gpu/faults.py "$build/qgc" "$work"
fi

if part cards; then
as=${CARDS:-t4 arch=75,bf16=yes arch=80 rtx-4090 arch=90,ptx=yes arch=90,smem=101376}
echo; echo "== tests, as $as"
QGC_TEST_CACHE=$work/kernels suites "$as" "$build"/test_gpu_{kernels,modes,tiny,trial,passes}
fi

if part bench; then
echo; echo "== time, Qwen2.5-0.5B shape, random weights"
check "bench" qgc bench models/qwen2.5-0.5b.yaml --weights random
check "bench, node by node" qgc bench models/qwen2.5-0.5b.yaml --weights random --passes "" --mode graph --rounds 3 \
    --positions 512 --generate 0
fi

# shape NAME POSITIONS
shape() {
    echo "-- $1"
    check "bench $1" qgc bench "tests/gpu/shapes/$1.yaml" --weights random --positions "$2" --rounds 3 --no-kernels --generate 0
}
if part shapes; then
    echo; echo "== time, shapes of other models, random weights"
    for name in qwen3-0.6b llama-3.2-1b; do shape $name 16,512,4096; done
    shape olmo-2-1b 16,512,4032 # it has 4,096 positions
    for name in qwen3-4b phi-3-mini gemma-2-2b; do shape $name 16,512; done
    for name in qwen3-8b llama-3.1-8b mistral-7b; do shape $name 16; done
fi
if part 32b; then
    echo; echo "== time, shapes of 30B and 32B, random weights"
    for name in qwen3-30b-a3b qwen2.5-32b; do shape $name 16; done
fi

qgc_of_base() { LD_LIBRARY_PATH="$base/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$base/qgc" "$@"; }
# steps SIDE BENCH.json: "SIDE MODE POSITION US" for each step in it.
steps() {
    tr '\n' ' ' < "$2" | grep -oE '"mode": "[a-z]+", *"position": [0-9]+, *"us": [0-9.e+-]+' | tr -d '",:' |
        awk -v side="$1" '{ print side, $2, $4, $6 }'
}
# against GRAPH POSITIONS RUNS: steps of both builds, the best of so many runs of each. Fails where this build is more than 1 %
# slower, or lacks a mode that the base has.
against() {
    local run options=(bench "$1" --weights random --positions "$2" --rounds 3 --no-kernels --generate 0)
    : > "$work/steps"
    for run in $(seq "$3"); do
        qgc_of_base "${options[@]}" --json="$work/base.json" > /dev/null || return 1
        qgc "${options[@]}" --json="$work/tip.json" > /dev/null || return 1
        { steps base "$work/base.json"; steps tip "$work/tip.json"; } >> "$work/steps"
        echo "run $run of $3 of each: done"
    done
    awk '
        function number(us) { return us ? sprintf("%.1f", us) : "-" }
        { key = $2 " " $3; side = $1 " " key }
        !(key in seen) { seen[key] = 1; keys[++n] = key }
        !(side in us) || $4 < us[side] { us[side] = $4 }
        END {
            printf "%-11s %8s %12s %12s %9s\n", "mode", "position", "base us", "tip us", "tip/base"
            for (i = 1; i <= n; i++) {
                split(keys[i], k, " "); b = us["base " keys[i]]; t = us["tip " keys[i]]
                printf "%-11s %8s %12s %12s %9s\n", k[1], k[2], number(b), number(t), b && t ? sprintf("%.4f", t / b) : "-"
                if (b && (!t || t > 1.01 * b)) slower = 1
                if (b) compared++
            }
            exit slower || !compared
        }' "$work/steps"
}
if part base && [ -n "$base" ]; then
    echo; echo "== steps of this build against those of $base"
    while read -r graph positions runs; do
        echo "-- $graph"
        check "no step is 1 % slower, $graph" against "$graph" "$positions" "$runs"
    done <<- END
	models/qwen2.5-0.5b.yaml 16,512,4096 3
	tests/gpu/shapes/llama-3.2-1b.yaml 16,512,4096 3
	models/qwen2.5-7b.yaml 16,512 2
	END
fi

if part ablate; then
echo; echo "== what each pass saves, Qwen2.5-0.5B shape"
echo "max_kl: 1e-4" > "$work/budget.yaml"
check "ablate" qgc ablate models/qwen2.5-0.5b.yaml --weights random --device gpu --steps 64 --ctx 320 --pairs 16 --subsets 200 \
    --budget "$work/budget.yaml" --json="$work/ablate.json" --svg "$work/ablate.svg"
[ -n "${KEEP:-}" ] && cp "$work"/ablate.* "$KEEP/"
fi

tiny=(--weights models/tiny/tiny.gguf)
check "compile tiny" qgc compile models/tiny/tiny.yaml "${tiny[@]}" -o "$work/tiny.qgc"
text() { qgc run "$work/tiny.qgc" "${tiny[@]}" --device gpu -q -p "It is a truth universally acknowledged, that" "$@" 2>&1; }
# distinct N COMMAND...: how many different outputs N runs have, {} being the number of the run; 0 if a run fails.
distinct() {
    local i n=$1; shift
    : > "$work/sums"
    for i in $(seq "$n"); do
        "${@//\{\}/$i}" > "$work/one" || { echo 0; return; }
        sha256sum < "$work/one" >> "$work/sums"
    done
    sort -u "$work/sums" | wc -l
}
if part eval; then
    echo; echo "== predictions of the tiny model on the GPU, against the evaluator"
    echo "max_kl: 0.01" > "$work/chunks.yaml"  # products of bf16
    echo "max_kl: 1e-4" > "$work/steps.yaml"
    evaluate() { qgc eval models/tiny/tiny.yaml "${tiny[@]}" --device gpu --ctx 128 tests/golden/eval/pride.txt "$@"; }
    check "prefill in chunks" evaluate --against evaluator --budget "$work/chunks.yaml"
    for mode in stream graph pdl persistent; do
        check "steps, mode $mode" evaluate --prefill steps --mode $mode --against evaluator --budget "$work/steps.yaml"
    done
    check "an artifact" qgc eval "$work/tiny.qgc" "${tiny[@]}" --device gpu tests/golden/eval/pride.txt --against models/tiny/tiny.yaml
fi

if part tiny; then
echo; echo "== tiny model"
text -n 60
check "ten runs of one seed are the same text" test "$(distinct 10 text -n 64 --temp 0.9 --seed 5)" = 1
check "three seeds give three texts" test "$(distinct 3 text -n 64 --temp 0.9 --seed {})" = 3
for mode in graph pdl persistent; do
    check "bisect: kernels are harmless, $mode" \
        qgc bisect models/tiny/tiny.yaml "${tiny[@]}" --device gpu --mode $mode
done
check "ablate: a persistent step without each pass" \
    qgc ablate models/tiny/tiny.yaml "${tiny[@]}" --device gpu --mode persistent --steps 16 --ctx 64 --pairs 6
fi

# sanitize NAME TOOL COMMAND...
sanitize() {
    if ! command -v compute-sanitizer > /dev/null; then echo "skipped $1: no compute-sanitizer"; return; fi
    compute-sanitizer --tool "$2" --error-exitcode 9 "${@:3}" > "$work/log" 2>&1
    rc=$?
    tail -3 "$work/log"
    check "$1" test $rc = 0
}
if part sanitize; then
echo; echo "== compute-sanitizer, 16 tokens of the tiny model"
for tool in memcheck initcheck racecheck; do
    # initcheck does not see what cuBLAS writes and calls it uninitialized: the prompt goes through decode steps.
    prefill=(); [ $tool = initcheck ] && prefill=(--prefill steps)
    sanitize $tool $tool "$build/qgc" run "$work/tiny.qgc" "${tiny[@]}" --device gpu --mode graph -q "${prefill[@]}" \
        -n 16 --temp 0.9 --top-k 40 --top-p 0.9 --seed 1 -p "She was"
done
echo; echo "== compute-sanitizer, 5 tokens of a small model in every mode"
for tool in memcheck racecheck; do
    sanitize "$tool in every mode" $tool "$build/test_gpu_modes" a_short_text*
done
fi

q() { qgc run "$work/q.qgc" --device gpu "$@" 2>&1; }
# from_start NAME MOST COMMAND...: seconds from the start of the process to its end, the best of three.
from_start() {
    local best=999 from seconds
    for _ in 1 2 3; do
        from=$EPOCHREALTIME
        "${@:3}" > "$work/one" || return 1
        seconds=$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
        best=$(awk -v a="$best" -v b="$seconds" 'BEGIN { print a < b ? a : b }')
        echo "$1: $seconds s"
    done
    awk -v s="$best" -v most="$2" 'BEGIN { exit !(s <= most) }'
}
# number KEY: of the JSON on standard input.
number() { grep -o "\"$1\": [-0-9.e+]*" | head -1 | sed 's/.*: //'; }
# near BENCH MODE: what `qgc run` takes for 256 tokens is within 3 % of what the bench did.
near() {
    local bench run
    bench=$(tr '\n' ' ' < "$1" | grep -o "\"mode\": \"$2\",[^}]*text_us_a_token[^,}]*" | head -1 | number text_us_a_token)
    for _ in 1 2 3; do
        q -q -p "Once upon a time" -n 257 --ignore-eos --mode "$2" --json="$work/run.json" > /dev/null
        run=$(awk -v n="$(number decode_tokens_per_second < "$work/run.json")" 'BEGIN { printf "%.1f", 1e6 / n }')
        echo "$2: $run us a token, bench $bench"
        awk -v a="$run" -v b="$bench" 'BEGIN { exit !(a <= 1.03 * b) }' && return 0
    done
    return 1
}
if part model && [ -n "$model" ]; then
    echo; echo "== $(basename "$model")"
    check "compile" qgc compile models/qwen2.5-0.5b.yaml --weights "$model" -o "$work/q.qgc"
    for mode in auto graph; do
        check "first token within 1.0 s, $mode" from_start "$mode" 1.0 q -q -p "Once upon a time" -n 1 --mode $mode
    done
    qgc bench models/qwen2.5-0.5b.yaml --weights "$model" --positions 16 --rounds 3 --no-kernels --json="$work/bench.json"
    for mode in graph pdl persistent; do
        check "256 tokens as fast as the bench, $mode" near "$work/bench.json" $mode
    done
    check "eval, prefill in chunks" qgc eval "$work/q.qgc" --weights "$model" --device gpu docs/benchmarks.md
    check "eval, steps" qgc eval "$work/q.qgc" --weights "$model" --device gpu --prefill steps docs/performance.md
    for sampling in "--temp 0.7" "--temp 0.7 --top-k 40 --top-p 0.9" "--temp 0.7 --top-p 0.95"; do
        echo "$sampling:"
        # shellcheck disable=SC2086
        q -p "Once upon a time" -n 200 --ignore-eos $sampling | tail -1
    done
    echo "-- 512 tokens of prompt and 256 of answer"
    for _ in $(seq 51); do printf 'The quick brown fox jumps over the lazy dog. '; done > "$work/long"
    for mode in auto graph stream; do q -f "$work/long" -n 256 --ignore-eos --mode $mode | tail -1; done
    story() { q -q --chat -n 48 -p "Tell me a story." "$@"; }
    check "ten runs of one seed are the same text" test "$(distinct 10 story --temp 0.8 --seed 5)" = 1
    greedy() { a=$(story --temp 0 --seed 1) && b=$(story --temp 1 --top-k 1 --seed 2) && test "$a" = "$b"; }
    check "temperature 0 is greedy" greedy
    check "three seeds give three texts" test "$(distinct 3 story --temp 0.8 --seed {})" = 3
    if [ ! -f "$model/RANDOM" ]; then
        q --chat -n 64 -p "What is the capital of France?" | tee "$work/paris"
        check "names Paris" grep -q Paris "$work/paris"
        q --chat -n 128 --temp 0.7 --top-p 0.9 --seed 11 -p "Write a haiku about a compiler."
    fi
fi
echo; echo "$passed passed, $failed failed"
[ $failed = 0 ]
