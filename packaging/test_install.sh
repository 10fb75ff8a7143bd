#!/usr/bin/env bash
# usage: test_install.sh BUILD
# Installs a build into a folder of its own and uses it from there as a stranger would: the command, both libraries by pkg-config
# and by CMake, a plug-in, manual pages, completions; then makes the Debian package, and has lintian look at it where it is.
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_CACHE=$work/none CUDA_VISIBLE_DEVICES=
unset QGC_MODELS QGC_DEVICE
cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
CMAKE_GENERATOR=$(cached CMAKE_GENERATOR) # there may be no make
export CMAKE_GENERATOR

fail() {
    echo "$1" >&2
    exit 1
}
want='different. I am sure it is not very likely to'
prompt='It is a truth universally'

cmake --install "$build" --prefix "$work/first" >"$work/log" || { cat "$work/log"; exit 1; }
mv "$work/first" "$work/usr" # it may be moved
usr=$work/usr
lib=$(dirname "$(find "$usr" -name libqgc.so)")
qgc=$usr/bin/qgc
tiny=$usr/share/qgc/models/tiny/tiny.yaml

# The command, and nothing of the build in it.
cd "$work"
[ "$("$qgc" run "$tiny" --device cpu -q -n 12 -p "$prompt")" = " $want" ] || fail "qgc run wrote something else"
readelf -d "$qgc" "$lib/libqgc.so" | grep -E 'R(UN)?PATH' && fail "there is a RUNPATH"
readelf -lW "$qgc" | grep GNU_RELRO >/dev/null || fail "qgc has no RELRO"
readelf -dW "$qgc" | grep -E 'BIND_NOW|NOW' >/dev/null || fail "qgc binds lazily"
readelf -hW "$qgc" | grep 'DYN' >/dev/null || fail "qgc is not position-independent"
nm -D "$qgc" | grep __stack_chk_fail >/dev/null || fail "qgc has no stack protector"
[ -s "$usr/share/man/man1/qgc-run.1.gz" ] && [ -s "$usr/share/man/man1/qgc.1.gz" ] || fail "no manual pages"
for file in bash-completion/completions/qgc zsh/vendor-completions/_qgc fish/vendor_completions.d/qgc.fish; do
    [ -s "$usr/share/$file" ] || fail "no completion $file"
done

# The libraries.
export PKG_CONFIG_PATH=$lib/pkgconfig
cp "$root/docs/examples/embed.c" .
run_embed() {
    local text
    text=$("$@" "$tiny" "${tiny%.yaml}.gguf" "$prompt")
    [[ $text == " $want"* ]] || fail "$1 wrote \"$text\""
}
read -ra flags < <(pkg-config --cflags --libs qgc)
cc embed.c -o by_pkg_config "${flags[@]}"
LD_LIBRARY_PATH=$lib run_embed ./by_pkg_config
mkdir project
cat >project/CMakeLists.txt <<'EOF'
cmake_minimum_required(VERSION 3.22)
project(embed LANGUAGES C)
find_package(qgc 0.1 REQUIRED)
add_executable(shared ../embed.c)
target_link_libraries(shared qgc::qgc)
add_executable(static ../embed.c)
target_link_libraries(static qgc::static)
EOF
cmake -S project -B project/build -Dqgc_ROOT="$usr" >log 2>&1 && cmake --build project/build >>log 2>&1 || { cat log; exit 1; }
run_embed project/build/shared
run_embed project/build/static
ldd project/build/static | grep libqgc >/dev/null && fail "the static program loads the library"

# A plug-in, from the headers that were installed.
cat >pass.c <<'EOF'
#include "passes/load.h"
#include "passes/rewrite.h"
static qgc_status nothing(qgc_pass_context *c, qgc_diag *d) { (void)c, (void)d; return QGC_OK; }
const qgc_pass_rows *qgc_pass_plugin(void) {
    static const qgc_pass_info passes[] = {{"do-nothing", nothing, NULL, "nothing"}, {0}};
    static const qgc_pass_rows rows = {QGC_PASS_ABI, passes};
    return &rows;
}
EOF
read -ra flags < <(pkg-config --cflags qgc-passes)
cc -std=c11 -shared -fPIC "${flags[@]}" pass.c -o pass.so
"$qgc" passes --load-pass ./pass.so | grep do-nothing >/dev/null || fail "the plug-in was not loaded"

# A build without tests has none.
cmake -S "$root" -B plain -DBUILD_TESTING=OFF -DQGC_NVRTC_INCLUDE="$(cached QGC_NVRTC_INCLUDE)" \
    -DQGC_CUDA_INCLUDE="$(cached QGC_CUDA_INCLUDE)" >log 2>&1 || { cat log; exit 1; }
cmake --build plain --target help | grep test_ && fail "there are tests in a build without"

# The package.
command -v dpkg-deb >/dev/null && command -v dpkg-shlibdeps >/dev/null && command -v cpack >/dev/null ||
    { echo "no tools for a Debian package: not tested"; exit 0; }
(cd "$build" && cpack -G DEB -B "$work/deb") >log 2>&1 || { cat log; exit 1; }
deb=$(echo "$work"/deb/qgc_*.deb)
dpkg-deb -f "$deb" Depends | grep libjansson4 >/dev/null || fail "the package does not depend on libjansson4"
dpkg-deb -x "$deb" root
[ "$(root/usr/bin/qgc run root/usr/share/qgc/models/tiny/tiny.yaml --device cpu -q -n 12 -p "$prompt")" = " $want" ] ||
    fail "the packaged qgc wrote something else"
if command -v lintian >/dev/null; then
    lintian --fail-on error "$deb" || fail "lintian has errors"
fi
echo "installed, embedded and packaged"
