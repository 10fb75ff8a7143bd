#!/usr/bin/env bash
# usage: packaging/test_debian.sh PACKAGE.deb ROOT [CUDA]
# Installs the package in a bare Debian 12 as apt does it, and uses it there: a text, an artifact, and a conversation that is
# typed into a terminal. ROOT is such a system in a folder; where there is none, debootstrap makes it, from the network.
# CUDA is a folder with lib64/libnvrtc.so*, for the artifact. Needs root; what it mounts is gone when it ends.
set -euo pipefail
package=$(realpath "$1") root=$(realpath -m "$2") cuda=${3:-}
[ -d "$root/etc" ] || debootstrap --variant=minbase bookworm "$root" http://deb.debian.org/debian >/dev/null

cp "$package" "$root/tmp/qgc.deb"
rm -f "$root"/tmp/libnvrtc*
[ -z "$cuda" ] || cp -L "$cuda"/lib64/libnvrtc.so.* "$cuda"/lib64/libnvrtc-builtins.so.* "$root/tmp/"
cat >"$root/tmp/inside.sh" <<'EOF'
set -euo pipefail
fail() { echo "FAILED  $1" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 HOME=/tmp/home
mkdir -p /tmp/home && cd /tmp/home && rm -f tiny.qgc chat.log keys
apt-get -qq update && apt-get -qq install -y --no-install-recommends /tmp/qgc.deb >/dev/null
tiny=/usr/share/qgc/models/tiny/tiny.yaml
want='different. I am sure it is not very likely to'

[ "$(qgc run $tiny --device cpu -q -n 12 -p 'It is a truth universally')" = " $want" ] || fail "qgc run wrote something else"
echo "ok      a text"

# Without NVRTC the error names the command that brings it.
if ls /tmp/libnvrtc.so.* >/dev/null 2>&1; then
    nvrtc=$(ls /tmp/libnvrtc.so.* | head -n 1)
    LD_LIBRARY_PATH=/tmp qgc compile $tiny --weights ${tiny%.yaml}.gguf --nvrtc "$nvrtc" -o tiny.qgc -q || fail "qgc compile failed"
    echo "ok      an artifact"
fi
qgc compile $tiny --no-cache -o none.qgc 2>log && fail "qgc compile found an NVRTC"
grep 'pip install .*nvidia-cuda-nvrtc' log >/dev/null || { cat log; fail "the error does not name the command that brings NVRTC"; }
echo "ok      the remedy where NVRTC is missing"

# A conversation: each line is typed when the answer to the one before was shown.
model=$tiny
[ -f tiny.qgc ] && model=tiny.qgc
mkfifo keys
script -qfec "stty cols 200; qgc run $model --weights ${tiny%.yaml}.gguf --device cpu -n 12 --temp 0 --color never" chat.log <keys >/dev/null &
exec 3>keys
shown() { # shown TEXT
    for _ in $(seq 600); do
        grep -F -- "$1" chat.log >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat chat.log
    fail "\"$1\" was not shown"
}
shown '/help lists the commands'
sleep 1 # until the editor has the terminal
printf 'Hello\r' >&3
shown "I am afraid, ma'am, that"
sleep 1
printf '/stats\r' >&3
shown '2 messages; '
sleep 1
printf '/quit\r' >&3
shown 'prompt 15 tokens'
exec 3>&-
wait
echo "ok      a conversation"
EOF
unshare --mount --pid --fork bash -c '
    set -e
    mount --make-rprivate /
    mount -t proc proc "$1/proc"
    mkdir -p "$1/dev/pts"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
    [ -e "$1/dev/ptmx" ] || ln -s pts/ptmx "$1/dev/ptmx"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=xterm chroot "$1" bash /tmp/inside.sh' - "$root"
echo "the package works on a bare Debian"
