#!/usr/bin/env bash
# Who may include whom: every #include of the sources against the table below, in which a folder sees what is
# to its left in the pipeline and nothing else; and where inline assembly may stand. Prints what breaks it; exit code 1 if
# anything does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The project's own headers: "file header" pairs that are allowed. A * also matches slashes.
own() {
    case "$1 $2" in
    "tests/"* | "runtime/cli/"*) ;;
    *" tests/"* | *" runtime/cli/"*) return 1 ;;
    *" include/"*) [[ $1 == runtime/lib/* ]] ;;
    "runtime/lab/"*) ;;
    *" runtime/lab/"*) return 1 ;;
    "runtime/lib/"*) ;;
    *" runtime/lib/"*) return 1 ;;
    "runtime/engine/"*) ;;
    *" runtime/engine/"*) return 1 ;;

    "graph/base/"*" graph/base/"*) ;;
    "graph/base/"*) return 1 ;;
    "models/"*" models/"* | "models/"*" graph/base/"*) ;;
    "graph/"*" graph/"*) ;;
    "codegen/stage/"*" codegen/stage/"* | "codegen/stage/"*" graph/"*) ;;
    "codegen/stage/"*) return 1 ;;
    "passes/"*" passes/"* | "passes/"*" codegen/stage/"* | "passes/"*" graph/"*) ;;
    "passes/bind_weights."[ch]" models/weights.h" | "passes/bind_weights.c models/bind.h") ;;
    "codegen/"*" codegen/"* | "codegen/"*" graph/"*) ;;

    # What CUDA looks like is known to the device alone.
    "runtime/"*" runtime/cuda_driver.h" | "runtime/"*" runtime/device_impl.h" | "runtime/"*" runtime/cublas.h")
        case $1 in
        runtime/device.c | runtime/device_impl.h | runtime/capture.c | runtime/cuda_driver.c | runtime/cublas.[ch]) ;;
        *) return 1 ;;
        esac
        ;;
    "runtime/"*" runtime/"* | "runtime/"*" graph/base/"*) ;;
    "runtime/session.h graph/sampling.h") ;; # parameters only: no ops
    "runtime/"*" codegen/plan.h" | "runtime/"*" codegen/arch.h" | "runtime/"*" codegen/card.h" | "runtime/"*" models/weights.h" | "runtime/"*" models/bind.h") ;;

    # What stands in for CUDA on a CPU is C++, with the headers of that.
    "kernels/cpu/"*" "*"/"*) return 1 ;;
    "kernels/cpu/"*) ;;
    # NVRTC is given the headers of kernels/ under their bare names, and no header of CUDA.
    "kernels/"*" "*"/"*) return 1 ;;
    "kernels/"*" "*.cuh) ;;
    *) return 1 ;;
    esac
}

# Libraries. libc's headers are everyone's but the kernels'.
library() {
    case "$1 $2" in
    "kernels/cpu/"*) ;;
    "kernels/"*) return 1 ;;
    "tests/"*) ;;
    *" cmocka.h") return 1 ;;
    *" yaml.h") [ "$1" = graph/yaml.c ] ;;
    *" xxhash.h") [ "$1" = graph/base/hash.c ] ;;
    "runtime/lab/"*" jansson.h" | "runtime/engine/"*" jansson.h" | "runtime/cli/"*" jansson.h") ;;
    *" jansson.h" | *" pcre2.h" | *" utf8proc.h") [[ $1 == models/* ]] ;;
    *" histedit.h") [ "$1" = runtime/cli/terminal.c ] ;;
    *" nvrtc.h") [ "$1" = codegen/nvrtc.c ] ;;
    *" cublas"*) [ "$1" = runtime/cublas.c ] ;;
    *" cuda"* | *" nv"*) [ "$1" = runtime/cuda_driver.h ] ;;
    esac
}

broken=0
while IFS=: read -r file line text; do
    header=${text#*[<\"]}
    header=${header%%[>\"]*}
    if [[ $text == *\"* ]]; then
        own "$file" "$header" && continue
    else
        library "$file" "$header" && continue
    fi
    echo "$file:$line: may not include $header"
    broken=1
done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' -r graph passes codegen runtime models kernels tests include \
    --include='*.[ch]' --include='*.cu' --include='*.cuh')

# What is not C++ in the kernels stands in one file, so that all others run on a CPU too (kernels/cpu).
if grep -nE '\<(asm|__asm__)\>' kernels/*.cu kernels/*.cuh | grep -v '^kernels/ptx\.cuh:'; then
    echo "inline assembly belongs in kernels/ptx.cuh"
    broken=1
fi

# docs/design.md says what each file of the runtime is for, and names none that is not there.
described=$(awk -F'|' '/^## Files of runtime/ { on = 1 } on && $2 !~ /\// { print $2 }' docs/design.md | grep -oE '[a-z_]+' | sort -u)
there=$(printf '%s\n' runtime/*.[ch] runtime/engine/*.[ch] runtime/lab/*.[ch] | sed 's|.*/||; s|\.[ch]$||' | sort -u)
if ! diff <(echo "$described") <(echo "$there"); then
    echo "docs/design.md describes other files of runtime/ (<) than there are (>)"
    broken=1
fi
exit $broken
