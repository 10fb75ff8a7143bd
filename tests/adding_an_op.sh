#!/usr/bin/env bash
# Does what docs/adding_an_op.md says, block by block, in a copy of the sources below build/op; builds that, and looks
# whether the new op is right. usage: tests/adding_an_op.sh [cmake options]
#
# Of the page it understands: a paragraph that ends, before a block of c or yaml, with
#   In `FILE`, after the function `NAME`:         In `FILE`, after the row of `TEXT`:
#   In `FILE`, in place of the row of `TEXT`:      In `FILE`, at the end:          A new file, `FILE`:
# and blocks of sh, which are run in the copy, in their order: before the build those that call no qgc.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
page=$root/docs/adding_an_op.md
work=$root/build/op
fail() { echo "adding_an_op: $*" >&2; exit 1; }

# --- the copy, and the page's blocks in it ---------------------------------------------------------------------

# Cuts the page into $work/blocks: NN.place, the sentence that says where block NN goes, and NN.LANGUAGE, its text.
cut_page() {
    rm -rf "$work/blocks" && mkdir -p "$work/blocks"
    awk -v to="$work/blocks" '
    /^```/ && inside { inside = 0; close(block); paragraph = ""; next }
    inside { print > block; next }
    /^```/ {
        inside = 1
        base = sprintf("%s/%02d", to, ++n)
        block = base "." (length($0) > 3 ? substr($0, 4) : "text")
        where = match(paragraph, /(In|A new file,) `[^`]*`[^.:`]*(`[^`]*`)?:$/) ? substr(paragraph, RSTART) : ""
        print where > (base ".place")
        printf "" > block
        next
    }
    /^$/ { ended = 1; next }
    { paragraph = ended ? $0 : paragraph " " $0; ended = 0 }' "$page"
}

# put BLOCK FILE HOW TEXT: HOW is function, row, instead or end. The place has to be there once. A block after a function,
# or at the end, has an empty line before it.
put() {
    [ -f "$2" ] || fail "$page names $2, which is not there"
    awk -v block="$1" -v how="$3" -v text="$4" '
    function insert(  line) { if (how == "function" || how == "end") print ""; while ((getline line < block) > 0) print line; close(block); found++ }
    how == "function" && !open && index($0, text "(") && /^[^ \t].*\{$/ { open = 1 }
    how == "instead" && index($0, text) { insert(); next }
    { print }
    open && /^}/ { open = 0; insert() }
    how == "row" && index($0, text) { insert() }
    END { if (how == "end") insert(); exit found != 1 }' "$2" >"$work/changed" ||
        fail "\"$4\" is not the place of exactly one $3 in $2, as docs/adding_an_op.md has it"
    cp "$work/changed" "$2"
}

apply_block() {
    local block=$1 place=$2 file text
    file=$(sed -n 's/^[^`]*`\([^`]*\)`.*/\1/p' <<<"$place")
    text=$(sed -n 's/^[^`]*`[^`]*`[^`]*`\([^`]*\)`.*/\1/p' <<<"$place")
    case $place in
    "In "*", after the function "*) put "$block" "$file" function "$text" ;;
    "In "*", after the row of "*) put "$block" "$file" row "$text" ;;
    "In "*", in place of the row of "*) put "$block" "$file" instead "$text" ;;
    "In "*", at the end:") put "$block" "$file" end "" ;;
    "A new file, "*)
        [ ! -e "$file" ] || fail "$file is there already"
        cp "$block" "$file"
        ;;
    *) fail "it is not clear where block $(basename "$block") of $page goes: \"$place\"" ;;
    esac
}

apply_page() {
    local place block applied=0
    for place in "$work"/blocks/*.place; do
        block=$(ls "${place%.place}".[!p]*)
        case $block in
        *.c | *.yaml)
            apply_block "$block" "$(cat "$place")"
            applied=$((applied + 1))
            ;;
        *.sh) grep -q '^qgc ' "$block" || bash -euo pipefail "$block" ;;
        esac
    done
    [ $applied -ge 10 ] || fail "$applied blocks found in $page, expected 10 or more"
}

# Files that are as they were keep their times, so that a second run builds little.
copy_changed() {
    local file
    (cd "$work/new" && find . -type f) | while read -r file; do
        cmp -s "$work/new/$file" "$work/source/$file" && continue
        mkdir -p "$(dirname "$work/source/$file")"
        cp "$work/new/$file" "$work/source/$file"
    done
    (cd "$work/source" && find . -type f) | while read -r file; do
        [ -e "$work/new/$file" ] || rm "$work/source/$file"
    done
}

# --- what the new op has to do ---------------------------------------------------------------------------------

expect() { # expect WHAT TEXT COMMAND...
    local what=$1 text=$2 out
    shift 2
    out=$("$@" 2>&1) || fail "$what: \"$*\" failed: $out"
    grep -qF -- "$text" <<<"$out" || fail "$what: \"$*\" does not print \"$text\", but: $out"
    echo "ok: $what"
}

# Every element of act is relu2 of that of gate, by awk's own arithmetic, and few are 0.
compare_values() {
    local name
    for name in gate act; do
        "$work/build/print_values" models/tiny/relu2.yaml models/tiny/tiny.gguf $name 5 300 41 >"$work/$name" ||
            fail "the tiny model with relu2 cannot be evaluated"
    done
    paste -d ' ' "$work/gate" "$work/act" | awk '
    {
        want = $2 > 0 ? $2 * $2 : 0
        error = want > $4 ? want - $4 : $4 - want
        if (!(error <= 1e-5 * (1 + want))) { print $3 ": relu2 of " $2 " is " want ", not " $4; bad = 1 }
        large += want > 0.0001
    }
    END {
        print NR " values compared, " large + 0 " of them away from 0"
        exit bad || NR != 4 * 3 * 448 || large < NR / 4
    }' || fail "the evaluator does not compute relu2"
}

# The kernel's function, as C++, against the values of the evaluator.
compare_kernel() {
    cat >"$work/kernel.cc" <<-'END'
	#include <math.h>
	#include <stdio.h>
	#include "kernels/pointwise.cuh"
	int main(void) {
	    float x, y;
	    long n = 0;
	    for (; scanf("%*s %f %*s %f", &x, &y) == 2; n++)
	        if (!(fabsf(op_relu2(x) - y) <= 1e-5f * (1 + fabsf(y))))
	            return printf("op_relu2(%g) is %g, not %g\n", x, op_relu2(x), y), 1;
	    return n < 1000;
	}
	END
    "${CXX:-c++}" -D__device__=static -D__forceinline__=inline -I . "$work/kernel.cc" -o "$work/kernel" -lm &&
        paste -d ' ' "$work/gate" "$work/act" | "$work/kernel" || fail "the kernel's function is not its reference"
    echo "ok: the kernel's function is what the reference is"
}

# The lines of the group in which act is, by the YAML of a dump.
fused_with() { qgc dump models/tiny/relu2.yaml --passes "$1" | grep -E "out: (gate|up|act|ff), fuse: $2}"; }

qgc() { "$work/build/qgc" "$@"; }
export -f qgc
export work

check_op() {
    cd "$work/source"
    expect "qgc ops lists it" "relu2        in: [x]" qgc ops
    expect "its reference is right" "PASSED" "$work/build/test_graph_ops"
    expect "its rule fires and declines" "PASSED" "$work/build/test_passes_rules"
    expect "random models with it compute the same" "PASSED" "$work/build/test_passes_semantics"
    compare_values
    compare_kernel
    [ "$(fused_with fuse-pointwise pointwise | wc -l)" = 2 ] || fail "fuse-pointwise does not take relu2 and mul"
    [ "$(fused_with fuse-swiglu mlp | wc -l)" = 4 ] || fail "fuse-swiglu does not take relu2 with the products"
    echo "ok: both fusions take it"
    local block
    for block in "$work"/blocks/*.sh; do
        ! grep -q '^qgc ' "$block" || (cd "$work/source" && bash -euo pipefail "$block" >"$work/commands.log" 2>&1) ||
            fail "a command of the page failed: $(tail -n 5 "$work/commands.log")"
    done
    echo "ok: the commands of the page"
    grep -aqF "op_mul(op_relu2(" tiny-relu2.qgc || fail "no kernel of tiny-relu2.qgc computes relu2 with its neighbour"
}

mkdir -p "$work/source"
rm -rf "$work/new" && mkdir "$work/new"
(cd "$root" && cp -R CMakeLists.txt ./*.md LICENSE graph passes codegen runtime kernels models tests docs include packaging "$work/new")
cut_page
(cd "$work/new" && apply_page)
copy_changed
cmake -S "$work/source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE=-O1 \
    -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DCMAKE_C_FLAGS=-DROUNDS=100 -DQGC_WERROR=ON -U 'QGC_NVRTC_*' -U 'QGC_CUDA_*' "$@" >"$work/build.log" 2>&1 &&
    cmake --build "$work/build" --target qgc print_values test_graph_ops test_passes_rules test_passes_semantics test_gpu_kernels >>"$work/build.log" 2>&1 ||
    { tail -n 30 "$work/build.log"; fail "the sources with the page's changes do not build"; }
check_op
