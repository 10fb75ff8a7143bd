#!/usr/bin/env bash
# Every check of qgc, from a fresh clone: fetches what is missing, builds with gcc and clang, runs the tests plain,
# sanitized and under valgrind, fuzzes, checks the sources, compiles the kernels; on a GPU too where there is one.
# usage: ./test.sh [--quick | --full] [--no-toolkit]
#   --quick        build with gcc and run the tests, nothing else
#   --full         clang-tidy too, which takes minutes
#   --no-toolkit   as if no CUDA toolkit were installed: its libraries come as Python wheels
# FUZZ_SECONDS (20) is the time for each fuzz target. Logs stay in build/log.
# Not -e: a check that fails is counted, and the next one runs.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tests/setup.sh"

quick=
full=
toolkit=
for option; do
    case $option in
    --quick) quick=1 ;;
    --full) full=1 ;;
    --no-toolkit) toolkit=$option ;;
    *) die "unknown option \"$option\"" "usage: ./test.sh [--quick | --full] [--no-toolkit]" ;;
    esac
done

cd "$root" || exit 1
logs=build/log
mkdir -p "$logs" || exit 1
started=$SECONDS
passed=0 failed=0 skipped=0
failures=() skips=()

# check NAME COMMAND...: one check, whose output goes to a log that is shown if it fails.
check() {
    local name=$1 log=$logs/${1//[^A-Za-z0-9]/-}.log start=$SECONDS
    shift
    if "$@" >"$log" 2>&1 </dev/null; then
        passed=$((passed + 1))
        printf '%s  ok%s  %s (%d s)\n' "$green" "$plain" "$name" $((SECONDS - start))
        return 0
    fi
    failed=$((failed + 1))
    failures+=("$name")
    printf '%sFAIL%s  %s (%d s); the end of %s:\n' "$red" "$plain" "$name" $((SECONDS - start)) "$log"
    tail -n 40 "$log" | sed 's/^/      /'
    return 1
}

skip() {
    skipped=$((skipped + 1))
    skips+=("$1: $2")
    printf 'skip  %s: %s\n' "$1" "$2"
}

finish() {
    local line
    echo
    for line in "${skips[@]}"; do echo "skipped: $line"; done
    for line in "${failures[@]}"; do echo "failed: $line"; done
    echo "$((SECONDS - started)) s in all"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ] || exit 1
    exit 0
}

# run_tests NAME BUILD [ctest options]: every test counts by itself.
run_tests() {
    local name=$1 build=$2 log=$logs/${1//[^A-Za-z0-9]/-}.log junit=$root/$logs/junit.xml start=$SECONDS
    local n_tests n_failed n_skipped
    shift 2
    rm -f "$junit"
    # A test that never ends is ended by what it computes, or after hours if it waits: never because others compute too.
    (
        ulimit -t 1800
        ctest --test-dir "$build" -j "$jobs" --timeout 14400 --output-on-failure --output-junit "$junit" "$@"
    ) >"$log" 2>&1 </dev/null
    count() { sed -n "/<testsuite/,/>/s/.*[^a-z]$1=\"\([0-9]*\)\".*/\1/p" "$junit" 2>/dev/null | head -n 1; }
    n_tests=$(count tests) n_failed=$(count failures) n_skipped=$(count skipped)
    if [ "${n_tests:-0}" -eq 0 ]; then
        failed=$((failed + 1))
        failures+=("$name: no test was run")
        tail -n 40 "$log"
        return
    fi
    passed=$((passed + n_tests - n_failed - n_skipped))
    failed=$((failed + n_failed))
    skipped=$((skipped + n_skipped))
    printf '%s  %s: %d tests, %d failed, %d skipped (%d s)\n' \
        "$([ "$n_failed" -eq 0 ] && echo "$green  ok$plain" || echo "${red}FAIL$plain")" \
        "$name" "$n_tests" "$n_failed" "$n_skipped" $((SECONDS - start))
    [ "$n_skipped" -eq 0 ] || skips+=("$name: $n_skipped tests; see $log")
    if [ "$n_failed" -ne 0 ]; then
        while read -r line; do failures+=("$name: $line"); done < <(sed -n 's/^\t *[0-9]* - //p' "$log")
        grep -vE '^ *[0-9]+/[0-9]+ Test|^ +Start ' "$log" | tail -n 80 | sed 's/^/      /'
    fi
}

# build FOLDER [cmake options]
build() { configure "$@" && cmake --build "$1" -j "$jobs"; }

# --- sources ---------------------------------------------------------------------------------------------

list_sources() { find graph passes codegen runtime models tests docs/examples -name '*.c' | sort; }

check_format() { find graph passes codegen runtime models tests include docs/examples -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror; }

check_cppcheck() {
    list_sources | cppcheck -q -j "$jobs" --std=c11 --language=c --inline-suppr --error-exitcode=1 \
        --enable=warning,style,performance,portability --suppress=missingIncludeSystem \
        --suppressions-list=tests/cppcheck.txt -I . --file-list=-
}

check_tidy() { list_sources | xargs -P "$jobs" -n 4 clang-tidy -p build/clang --quiet; }

check_scripts() { shellcheck -x -S warning demo.sh test.sh .ci/run tests/*.sh packaging/*.sh; }

# nvcc looks at what a person or an editor would see: each kernel by itself, with its default constants. Other
# architectures are NVRTC's, in the tests.
nvcc_kernels() {
    printf '%s\n' kernels/*.cu | xargs -P "$jobs" -I{} nvcc -std=c++17 -arch=sm_90a -cubin -o /dev/null {}
}

# --- programs --------------------------------------------------------------------------------------------

# Memcheck over the unit tests, and over commands. Left out: what spends its time in NVRTC, in numbers or in programs that it
# starts, which memcheck does not look into (sanitized runs see those); and thousands of rounds through what the commands do once.
valgrind_tests() {
    {
        find build/gcc -maxdepth 1 -name 'test_*' -type f -executable | sort | grep -vE "$valgrind_skip"
        printf 'build/gcc/qgc %s\n' "dump models/tiny/tiny.yaml" "explain models/tiny/tiny.yaml --node ff" \
            "tokenize --weights models/tiny/tiny.gguf dance" "view models/tiny/tiny.yaml -o build/view.html" \
            "run models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu -p She -n 4"
    } | xargs -P "$jobs" -d '\n' -I{} sh -c 'ulimit -t 1800; valgrind -q --leak-check=full --show-leak-kinds=definite \
            --errors-for-leak-kinds=definite --error-exitcode=9 {} || { echo "{} ended with $?"; exit 1; }'
}
valgrind_skip='gpu|base_utf8|graph_(print|sample)|codegen_persistent|passes_families|lab_layout|runtime_(cli_|lib_)|outside|kernels_|nvrtc|cache|access|limits|retarget|eval|ops$|passes_(passes|semantics|golden)|lab_(bisect|ablate|planted|random_weights|search|view|vocabulary)|engine_receipt|(persistent|trial|bisect)_fake'

fuzz() {
    local name=$1 corpus=tests/fuzz/corpus/${1#fuzz_}
    local found=build/fuzz/$1
    mkdir -p "$corpus"
    ASAN_OPTIONS=allocator_may_return_null=1 "build/clang/$name" -max_total_time="$fuzz_seconds" -timeout=300 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found/crash-" "$found" "$corpus"
}
export fuzz_seconds=${FUZZ_SECONDS:-20}
export -f fuzz

# All of them, as many at once as there are processors; fuzz_said NAME is what came of one.
fuzz_all() {
    local name
    for name; do mkdir -p "build/fuzz/$name" && rm -f "build/fuzz/$name.ended"; done
    printf '%s\n' "$@" |
        xargs -P "$jobs" -I{} bash -c 'fuzz {} >build/fuzz/{}.log 2>&1 </dev/null; echo $? >build/fuzz/{}.ended'
}
fuzz_said() {
    cat "build/fuzz/$1.log"
    [ "$(cat "build/fuzz/$1.ended")" = 0 ]
}

qgc=build/gcc/qgc
# What one check compiles for a GPU the others find there, but for those that time it.
export QGC_TEST_CACHE=$root/build/cubins

# What a command takes of the processors, in seconds: how busy they are with other things does not matter.
cpu_seconds_of() {
    local TIMEFORMAT='%U %S' times
    { times=$({ time "$@" >&3 2>&3; } 2>&1); } 3>&2 || return
    awk "BEGIN { split(\"$times\", t, \" \"); printf \"%.2f\", t[1] + t[2] }"
}

compile_tiny() {
    "$qgc" compile models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --arch "$1" --cache "$QGC_TEST_CACHE" -o "build/tiny-$1.qgc"
}

# Seconds of one processor, about three times what is usual.
compile_timed() {
    local cache cold warm
    cache=$(mktemp -d)
    cold=$(cpu_seconds_of "$qgc" compile "$1" --arch sm_90a --cache "$cache" -o build/cold.qgc) &&
        warm=$(cpu_seconds_of "$qgc" compile "$1" --arch sm_90a --cache "$cache" -o build/warm.qgc)
    local status=$?
    rm -rf "$cache"
    [ "$status" -eq 0 ] || return "$status"
    echo "$(basename "$1"): cold $cold s, warm $warm s of a processor"
    cmp build/cold.qgc build/warm.qgc || return
    awk "BEGIN { exit !($cold <= 60 && $warm <= 3) }" || { echo "too slow: at most 60 s and 3 s"; return 1; }
}

# The text that PyTorch got for the first prompt of tests/golden/tiny.
write_on_cpu() {
    local text expected
    expected=$(sed -n '/^greedy/{n;p;q}' tests/golden/tiny/golden.txt)
    text=$("$qgc" run build/tiny-sm_90a.qgc --weights models/tiny/tiny.gguf --device cpu --temp 0 -n 64 -p She) || return
    echo "$text"
    [ "$text" = "$expected" ] || { echo "expected: $expected"; return 1; }
}

# ---------------------------------------------------------------------------------------------------------

setup_build
setup_tests
[ -n "$quick" ] || setup_checks
setup_cuda "$toolkit"
say "CUDA: $cuda; $jobs cores"

say "gcc"
check "build with gcc" build build/gcc -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++ -DQGC_WERROR=ON || finish
run_tests "tests" build/gcc -L cpu
[ -z "$quick" ] || finish

say "sources"
check "layers" tests/check_layers.sh
check "words" tests/check_words.sh
case $(clang-format --version) in
*"version 14."*) check "format" check_format ;;
*) skip "format" "the sources are formatted as clang-format 14 does" ;;
esac
case $(cppcheck --version) in
*" 2.10"*) check "cppcheck" check_cppcheck ;;
*) skip "cppcheck" "each version minds other things, and the sources are as 2.10 wants them" ;;
esac
check "docs/adding_an_op.md" tests/adding_an_op.sh -DQGC_CUDA_DIR="$cuda"
check "scripts" check_scripts

say "clang, with sanitizers"
if check "build with clang" build build/clang -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1" \
    -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_CXX_FLAGS_DEBUG="-O1" -DQGC_WERROR=ON -DQGC_SANITIZE=address,undefined -DQGC_FUZZ=ON; then
    # without what takes minutes so, and is the same code as in other tests
    run_tests "sanitized tests" build/clang -L cpu -E 'kernels_(replay_(ops|outside)|packed|quantised|evaluate)|runtime_cli_(eval|kernels)|codegen_(access|limits|outside)|lab_planted'
    mapfile -t targets < <(basename -s .c tests/fuzz/fuzz_*.c)
    fuzz_all "${targets[@]}"
    for target in "${targets[@]}"; do check "$target for $fuzz_seconds s" fuzz_said "$target"; done
    if [ -n "$full" ]; then check "clang-tidy" check_tidy; else skip "clang-tidy" "only with --full"; fi
else
    skip "sanitized tests, fuzzing, clang-tidy" "the build with clang failed"
fi
check "valgrind" valgrind_tests

say "kernels"
if have nvcc && [ -z "$toolkit" ]; then
    check "kernels through nvcc" nvcc_kernels
else
    skip "kernels through nvcc" "no nvcc"
fi
# of every architecture by the test codegen_limits
for arch in sm_75 sm_120 sm_90a; do check "tiny model for $arch" compile_tiny "$arch"; done
check "compile qwen2.5-0.5b" compile_timed models/qwen2.5-0.5b.yaml
sed -n '/: cold/s/^/      /p' "$logs/compile-qwen2-5-0-5b.log"
check "tiny model writes on the CPU" write_on_cpu

say "pages"
if have chromium; then
    check "qgc view in a browser" tests/view_in_browser.sh "$qgc" build/view
else
    skip "qgc view in a browser" "no chromium, and apt-get could not install it"
fi

say "model files"
if present python3-yaml && present python3-jsonschema; then
    check "model files against qgc schema" python3 tests/models/check_schema.py "$qgc" models/*.yaml models/tiny/*.yaml \
        tests/gpu/*/*.yaml tests/golden/small/*.yaml
else
    skip "model files against qgc schema" "no Python with PyYAML and jsonschema, and apt-get could not bring one"
fi

say "GPU"
if gpu_present; then
    run_tests "GPU tests" build/gcc -L gpu
    check "tiny model on the GPU, with compute-sanitizer" tests/gpu/run.sh build/gcc
else
    skip "GPU tests" "no GPU"
fi
finish
