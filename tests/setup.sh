# What demo.sh and test.sh need to build qgc, sourced by both: packages through apt, and the CUDA toolkit's
# headers and libraries, which come as Python wheels where no toolkit is found. Sets `root`, `jobs`, `cuda`.
# shellcheck shell=bash disable=SC2034

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc 2>/dev/null || echo 2)
cuda=

# One release of CUDA: the wheels must agree with each other. cuBLAS, by far the largest, is used on a GPU only.
cuda_wheels=(nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88
    nvidia-cuda-cccl==13.0.85)
cublas_wheel=nvidia-cublas==13.1.0.3
cuda_oldest=12040 # CUDA_VERSION of 12.4

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' red='' green='' plain=''
fi

say() { printf '%s==>%s %s\n' "$bold" "$plain" "$*"; }

die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Is there what Debian's package $1 would bring? It may come from elsewhere.
present() {
    case $1 in
    libc6-dev) echo '#include <stdio.h>' | gcc -E - ;;
    ninja-build) have ninja ;;
    pkg-config) have pkg-config ;;
    libyaml-dev) pkg-config --exists yaml-0.1 ;;
    libpcre2-dev) pkg-config --exists libpcre2-8 ;;
    libutf8proc-dev) pkg-config --exists libutf8proc ;;
    libjansson-dev) pkg-config --exists jansson ;;
    libxxhash-dev) pkg-config --exists libxxhash ;;
    libcmocka-dev) pkg-config --exists cmocka ;;
    libedit-dev) pkg-config --exists libedit ;;
    libclang-*-dev) echo 'int main(void) { return 0; }' |
        clang -x c -fsanitize=address,undefined,fuzzer-no-link -o /dev/null - ;;
    fonts-dejavu-core) [ -e /usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf ] ;;
    python3-pip) python3 -m pip --version ;;
    python3-yaml) python3 -c 'import yaml' ;;
    python3-jsonschema) python3 -c 'import jsonschema' ;;
    *) have "$1" ;;
    esac >/dev/null 2>&1
}

apt() {
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o=Dpkg::Use-Pty=0 "$@" </dev/null >"$apt_log" 2>&1
}

# Installs those of the packages $@ that are missing, or says which they are and ends.
install_packages() {
    local package missing=() apt_log
    for package; do
        present "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    have apt-get || die "some packages are missing, and there is no apt-get to install them with" \
        "Please install what Debian calls: ${missing[*]}"
    [ "$(id -u)" -eq 0 ] || have sudo ||
        die "some packages are missing, and installing them takes root or sudo, which is not here" \
            "Please install, as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    apt_log=$(mktemp)
    if ! { apt update && apt install --no-install-recommends "${missing[@]}"; }; then
        tail -n 5 "$apt_log" >&2
        rm -f "$apt_log"
        die "apt-get could not install what is missing" "Please install: ${missing[*]}"
    fi
    rm -f "$apt_log"
    for package in "${missing[@]}"; do
        present "$package" || die "package $package is installed, and yet what it should bring is not found"
    done
}

setup_build() {
    install_packages gcc libc6-dev cmake ninja-build pkg-config libyaml-dev libpcre2-dev libutf8proc-dev \
        libjansson-dev libxxhash-dev libcmocka-dev libedit-dev
}

# What the tests need besides: kernels are run on the CPU as C++.
setup_tests() { install_packages g++; }

# clang's runtime for sanitizers and fuzzing is a package of its own from Debian 12 on, named after its version.
setup_checks() {
    install_packages shellcheck clang clang-format clang-tidy cppcheck valgrind
    local version kind
    version=$(clang -dumpversion)
    kind=rt
    have apt-cache && [ -z "$(apt-cache search --names-only "^libclang-rt-${version%%.*}-dev$")" ] && kind=common
    install_packages "libclang-$kind-${version%%.*}-dev"
    # Pages are looked at, and model files held against their schema, where that is possible.
    (install_packages chromium fonts-dejavu-core) 2>/dev/null || true
    (install_packages python3 python3-yaml python3-jsonschema) 2>/dev/null || true
}

# The folder $1 if it is a toolkit that will do: headers and NVRTC of 12.4 or newer, and cuBLAS where there is a GPU.
toolkit_will_do() {
    local header=$1/include/cuda.h version library
    [ -f "$header" ] && [ -f "$1/include/nvrtc.h" ] || return 1
    version=$(sed -n 's/^#define CUDA_VERSION  *\([0-9]*\).*/\1/p' "$header")
    [ "${version:-0}" -ge $cuda_oldest ] || return 1
    for library in nvrtc $(gpu_present && echo cublas); do
        compgen -G "$1/lib*/lib$library.so*" >/dev/null ||
            compgen -G "$1/lib/*/lib$library.so*" >/dev/null || return 1
    done
}

# Puts NVIDIA's wheels into build/cuda, unless they are there. They need no GPU and no driver.
fetch_cuda() {
    local folder=$root/build/cuda size="about 100 MB"
    if gpu_present; then
        cuda_wheels+=("$cublas_wheel")
        size="about 700 MB"
    fi
    if [ "$(cat "$folder/wheels" 2>/dev/null)" != "${cuda_wheels[*]}" ]; then
        install_packages python3 python3-pip
        say "no CUDA toolkit 12.4 or newer: fetching NVIDIA's Python wheels into build/cuda ($size)"
        rm -rf "$folder"
        mkdir -p "$folder"
        PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check --no-deps \
            --only-binary :all: --target "$folder" "${cuda_wheels[@]}" ||
            die "the wheels of the CUDA toolkit could not be fetched" \
                "Please install the CUDA toolkit (12.4 or newer), or these with pip: ${cuda_wheels[*]}"
        echo "${cuda_wheels[*]}" >"$folder/wheels"
    fi
    cuda=$folder/nvidia/cu13
    toolkit_will_do "$cuda" || die "build/cuda is not complete" "Remove it and try again."
}

# Sets `cuda` to the folder of the toolkit. With --no-toolkit only the wheels will do.
setup_cuda() {
    local folder nvcc
    if [ "${1:-}" != --no-toolkit ]; then
        nvcc=$(command -v nvcc || true)
        for folder in ${nvcc:+"$(dirname "$(dirname "$(readlink -f "$nvcc")")")"} /usr/local/cuda /usr/local/cuda-* \
            /opt/cuda; do
            if toolkit_will_do "$folder"; then
                cuda=$folder
                return
            fi
        done
    fi
    fetch_cuda
}

# configure FOLDER [cmake options]. Where CUDA is, is looked up anew: it may have changed.
configure() {
    local folder=$1
    shift
    cmake -S "$root" -B "$folder" -G Ninja -U 'QGC_NVRTC_*' -U 'QGC_CUDA_*' -DQGC_CUDA_DIR="$cuda" "$@"
}

# Does the driver show a GPU? Not: is there a driver.
gpu_present() { have nvidia-smi && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }
