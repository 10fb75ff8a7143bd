#!/usr/bin/env bash
# Builds qgc, compiles the tiny model that comes with it, and lets it write: on the GPU if there is one, else
# on the CPU. Fetches what is missing. usage: ./demo.sh [--no-toolkit]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tests/setup.sh"

toolkit=
case ${1:-} in
'') ;;
--no-toolkit) toolkit=$1 ;; # as if no CUDA toolkit were installed
*) die "unknown option \"$1\"" "usage: ./demo.sh [--no-toolkit]" ;;
esac

build=$root/build/demo
tiny=$root/models/tiny
prompt='It is a truth universally acknowledged, that'

qgc() {
    printf '\n%s$ qgc' "$bold"
    local word
    for word; do
        case $word in
        *[!A-Za-z0-9_./=-]*) printf ' "%s"' "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done | sed "s|$root/||g"
    printf '%s\n' "$plain"
    "$build/qgc" "$@"
}

setup_build
setup_cuda "$toolkit"
say "building qgc in build/demo, with the CUDA headers and compiler of $cuda"
log=$root/build/demo.log
mkdir -p "$root/build"
if ! { configure "$build" -DCMAKE_BUILD_TYPE=Release && cmake --build "$build" -j "$jobs" --target qgc; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    die "the build failed" "All of its output is in build/demo.log."
fi

say "compiling the graph of the tiny model to kernels (this needs no GPU)"
qgc compile "$tiny/tiny.yaml" --weights "$tiny/tiny.gguf" -o "$root/build/tiny.qgc"

if gpu_present; then
    say "a GPU is here: text from the compiled kernels"
else
    say "no GPU is here: the same graph on the CPU"
fi
qgc run "$root/build/tiny.qgc" --weights "$tiny/tiny.gguf" --device auto -p "$prompt" -n 100 --temp 0
say "the likeliest token each time above; now drawn at random, twice with the same seed, once with another"
for seed in 7 7 8; do
    qgc run "$root/build/tiny.qgc" --weights "$tiny/tiny.gguf" --device auto -p "$prompt" -n 40 --temp 0.8 --seed $seed
done
say "done: qgc is build/demo/qgc, the compiled model build/tiny.qgc; qgc --help says what else there is"
