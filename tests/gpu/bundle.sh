#!/usr/bin/env bash
# Puts the built executables and the shared libraries that they need (but for libc's and CUDA's) into one folder, to
# run them on a machine with a GPU where those are not installed. usage: tests/gpu/bundle.sh BUILD FOLDER
set -euo pipefail
build=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder/lib"
cp "$build"/qgc "$build"/test_gpu_* "$folder/"
strip "$folder"/qgc "$folder"/test_gpu_*
ldd "$folder"/qgc "$folder"/test_gpu_* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -Ev '/(libc|libm|libdl|libpthread|librt)\.so' | xargs -I{} cp -L {} "$folder/lib/"
du -sh "$folder"
