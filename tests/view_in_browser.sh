#!/usr/bin/env bash
# Opens pages of qgc view in a real browser: what the script of a page does, that texts fit into their boxes, that
# nothing is fetched. Leaves screenshots in the folder.
# usage: tests/view_in_browser.sh QGC FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
qgc=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)

# The profile is thrown away: a browser that is open stays out of it.
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
browse() {
    timeout 1200 chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --user-data-dir="$profile" \
        --virtual-time-budget=20000 --window-size=1600,1500 "$@" 2>"$folder/browser.log"
}

# Put after the script of the page: plays with it and leaves what happened in attributes of <html>.
cat >"$folder/probe.js" <<'END'
const root = document.documentElement, log = [];
const wait = () => new Promise(done => setTimeout(done, 500));
const note = () => log.push(root.dataset.after + ':' + root.dataset.node + ':' +
    document.querySelectorAll('section.stage.chosen').length + ':' + !!document.querySelector('.chosen #detail'));
const press = key => document.dispatchEvent(new KeyboardEvent('keydown', {key: key, bubbles: true}));
const click = name => Array.from(document.querySelectorAll('section.chosen figure.chosen [data-node]'))
    .find(n => n.dataset.node === name).dispatchEvent(new MouseEvent('click', {bubbles: true}));
const inside = (a, b) => a.left >= b.left - 0.5 && a.right <= b.right + 0.5 && a.top >= b.top - 0.5 &&
    a.bottom <= b.bottom + 0.5;
const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 3 || b.bottom <= a.top + 3;

/* All drawings, as without a script, and those of single changes. */
const measure = () => {
  root.classList.remove('js');
  document.querySelectorAll('.stage.change').forEach(stage => { stage.style.display = 'grid'; });
  let n = 0;
  const faults = [];
  document.querySelectorAll('.node, .frame, .end, .fold').forEach(box => {
    const rects = box.querySelectorAll('rect'), front = box.matches('.fold') ? rects[rects.length - 1] : rects[0];
    const room = front.getBoundingClientRect();
    const texts = Array.from(box.querySelectorAll('text'));
    texts.forEach((text, i) => {
      const at = text.getBoundingClientRect();
      n++;
      if (!inside(at, room) || at.width < 1) faults.push('sticks out: ' + text.textContent);
      if (texts.some((other, k) => k < i && !apart(at, other.getBoundingClientRect())))
        faults.push('on another: ' + text.textContent);
    });
  });
  root.classList.add('js');
  root.dataset.texts = n;
  root.dataset.faults = faults.join(', ') || 'none';
};

addEventListener('load', async () => {
  await wait(); note();
  press('ArrowRight'); await wait(); note();
  click('k[1]'); await wait(); note();
  click('kernel qkv[1]'); await wait(); note();
  press('Escape'); await wait(); note();
  press('End'); await wait(); press('ArrowRight'); await wait(); note();
  press('Home'); await wait(); press('ArrowLeft'); await wait(); note();
  document.querySelector('.switch [data-part=around]').click(); await wait();
  click('logits'); await wait(); note();
  measure();
  root.dataset.log = log.join(' ');
  root.dataset.fetched = performance.getEntriesByType('resource').length;
});
END

# with_probe PAGE OUT
with_probe() {
    sed '/^<script>$/i <script>addEventListener("error", e => { document.documentElement.dataset.error = e.message; });</script>' "$1" |
        awk -v probe="$folder/probe.js" '{ print } /^<\/script>$/ { print "<script>"; while ((getline line < probe) > 0) print line; print "</script>" }' >"$2"
}

# attribute PAGE NAME
attribute() { sed -n "/^<html/s/.* data-$2=\"\([^\"]*\)\".*/\1/p" "$1"; }

# want PAGE NAME VALUE
want() {
    local value
    value=$(attribute "$1" "$2")
    [ "$value" = "$3" ] && return
    echo "$1: data-$2 is \"$value\", expected \"$3\""
    return 1
}

look_at() {
    local name=$1 dom=$folder/$1.dom last
    "$qgc" view "$2" --layer 1 -o "$folder/$name.html"
    last=$("$qgc" passes | sed -n '$s/ .*//p')
    with_probe "$folder/$name.html" "$folder/$name-probe.html"
    browse --dump-dom "file://$folder/$name-probe.html#after=fuse-qkv&node=q" >"$dom"
    want "$dom" error ""
    want "$dom" log "fuse-qkv:q[1]:1:true fuse-rope-append:q[1]:1:true fuse-rope-append:k[1]:1:true fuse-rope-append:kernel\
 qkv[1]:1:true fuse-rope-append::1:false $last::1:false loaded::1:false loaded:logits:1:true"
    want "$dom" faults none
    want "$dom" fetched 0
    [ "$(attribute "$dom" texts)" -gt 500 ] || { echo "$name: few texts: $(attribute "$dom" texts)"; return 1; }
    browse --screenshot="$folder/$name.png" "file://$folder/$name.html#after=fuse-rope-append&node=q"
    [ "$(wc -c <"$folder/$name.png")" -gt 20000 ] || { echo "$name.png is all but empty"; return 1; }
}

look_at tiny models/tiny/tiny.yaml
look_at qwen2.5-0.5b models/qwen2.5-0.5b.yaml
echo "ok: screenshots are in $folder"
