#!/usr/bin/env bash
# All checks and timings that need a GPU, in one command. What it prints goes into docs/benchmarks.md.
#
#   tests/gpu/run.sh BUILD [MODEL.gguf]
#
# BUILD is a build folder, or one made by tests/gpu/bundle.sh. MODEL is a Qwen2.5-0.5B-Instruct as GGUF; without it
# only the tiny model is run. Exits 1 if a check failed.
set -uo pipefail
build=$(cd "$1" && pwd) model=${2:-}
cd "$(dirname "$0")/../.." || exit 1
[ -d "$build/lib" ] && export LD_LIBRARY_PATH="$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
qgc() { "$build/qgc" "$@"; }
failed=0 passed=0
check() { # check NAME COMMAND...
    if "${@:2}"; then echo "ok      $1"; passed=$((passed + 1)); else echo "FAILED  $1"; failed=$((failed + 1)); fi
}

echo "date    $(date -u +%F)"
echo "gpu     $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)"
echo "commit  ${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}"

echo; echo "== tests"
for t in "$build"/test_gpu_*; do
    "$t" > "$work/log" 2>&1; rc=$?
    grep -vE '^\[ (RUN|      OK)|^\[=' "$work/log"
    check "$(basename "$t")" test $rc = 0
done

echo; echo "== time, Qwen2.5-0.5B shape, random weights"
check "bench" qgc bench models/qwen2.5-0.5b.yaml --weights random
check "bench, node by node" qgc bench models/qwen2.5-0.5b.yaml --weights random --passes "" --mode graph --rounds 3 \
    --positions 512 --generate 0

echo; echo "== what each pass saves, Qwen2.5-0.5B shape"
echo "max_kl: 1e-4" > "$work/budget.yaml"
check "ablate" qgc ablate models/qwen2.5-0.5b.yaml --weights random --device gpu --steps 32 --ctx 320 --pairs 16 \
    --budget "$work/budget.yaml"

tiny="--weights models/tiny/tiny.gguf"
check "compile tiny" qgc compile models/tiny/tiny.yaml $tiny -o "$work/tiny.qgc"
text() { qgc run "$work/tiny.qgc" $tiny --device gpu -q -p "It is a truth universally acknowledged, that" "$@" 2>&1; }
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
echo; echo "== tiny model"
text -n 60
check "ten runs of one seed are the same text" test "$(distinct 10 text -n 64 --temp 0.9 --seed 5)" = 1
check "three seeds give three texts" test "$(distinct 3 text -n 64 --temp 0.9 --seed {})" = 3

# sanitize NAME TOOL COMMAND...
sanitize() {
    if ! command -v compute-sanitizer > /dev/null; then echo "skipped $1: no compute-sanitizer"; return; fi
    compute-sanitizer --tool "$2" --error-exitcode 9 "${@:3}" > "$work/log" 2>&1
    rc=$?
    tail -3 "$work/log"
    check "$1" test $rc = 0
}
echo; echo "== compute-sanitizer, 16 tokens of the tiny model"
for tool in memcheck initcheck racecheck; do
    # initcheck does not see what cuBLAS writes and calls it uninitialized: the prompt goes through decode steps.
    prefill=; [ $tool = initcheck ] && prefill="--prefill steps"
    sanitize $tool $tool "$build/qgc" run "$work/tiny.qgc" $tiny --device gpu --mode graph -q $prefill \
        -n 16 --temp 0.9 --top-k 40 --top-p 0.9 --seed 1 -p "She was"
done
echo; echo "== compute-sanitizer, 5 tokens of a small model in every mode"
for tool in memcheck racecheck; do
    sanitize "$tool in every mode" $tool "$build/test_gpu_modes" a_short_text*
done

if [ -n "$model" ]; then
    echo; echo "== $(basename "$model")"
    check "compile" qgc compile models/qwen2.5-0.5b.yaml --weights "$model" -o "$work/q.qgc"
    q() { qgc run "$work/q.qgc" --device gpu "$@" 2>&1; }
    q --chat -n 64 -p "What is the capital of France?" | tee "$work/paris"
    check "names Paris" grep -q Paris "$work/paris"
    q --chat -n 128 --temp 0.7 --top-p 0.9 --seed 11 -p "Write a haiku about a compiler."
    story() { q -q --chat -n 48 -p "Tell me a story." "$@"; }
    check "ten runs of one seed are the same text" test "$(distinct 10 story --temp 0.8 --seed 5)" = 1
    greedy() { a=$(story --temp 0 --seed 1) && b=$(story --temp 1 --top-k 1 --seed 2) && test "$a" = "$b"; }
    check "temperature 0 is greedy" greedy
    check "three seeds give three texts" test "$(distinct 3 story --temp 0.8 --seed {})" = 3
    echo "-- 512 tokens of prompt and 256 of answer"
    python3 -c 'print("The quick brown fox jumps over the lazy dog. " * 51)' > "$work/long" 2>/dev/null ||
        for i in $(seq 51); do printf 'The quick brown fox jumps over the lazy dog. '; done > "$work/long"
    for mode in auto graph stream; do
        for i in 1 2 3; do q -f "$work/long" -n 256 --ignore-eos --mode $mode --json | tail -1; done
    done
    for i in 1 2 3; do q -p "Once upon a time" -n 200 --ignore-eos --json | tail -1; done
    for i in 1 2; do q -p "Once upon a time" -n 200 --ignore-eos --temp 0.7 --top-k 40 --top-p 0.9 --json | tail -1; done
fi
echo; echo "$passed passed, $failed failed"
[ $failed = 0 ]
