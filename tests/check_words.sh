#!/usr/bin/env bash
# Memory comes from arenas: the words malloc, calloc, realloc and free occur in graph/base/arena.c only, and in the
# test that makes memory run out. What libc or a library has handed out is given back by (free)(x), with a comment
# on the line that says whose it was. And words that the documentation and the comments do without, as plainer ones say
# the same: after for "behind", synthetic or fake for "made up", the reader for "whoever", differ for "parted", chunk or range for "stretch"; and lines
# of Markdown end at column 110, but for tables and what commands print. And ten
# questions that the glossary and README.md answer. Prints what breaks this; exit code 1 if anything does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
failed=0

mapfile -t files < <(find graph passes codegen runtime models tests include docs/examples -name '*.[ch]' ! -path graph/base/arena.c ! -path tests/runtime/lib/test_qgc.c | sort)
awk '
FNR == 1 { inside = 0 }
{
    text = $0
    comment = 0
    gsub(/\\./, "", text)
    gsub(/"[^"]*"/, "\"\"", text)
    if (inside) {
        if (!sub(/^.*\*\//, "", text)) next
        inside = 0
    }
    while (match(text, /\/\*/)) {
        start = RSTART
        comment = 1
        end = index(substr(text, start + 2), "*/")
        if (!end) {
            text = substr(text, 1, start - 1)
            inside = 1
        } else
            text = substr(text, 1, start - 1) " " substr(text, start + end + 3)
    }
    gsub(/__attribute__ *\(\(.*\)\)/, "", text)
    gsub(/(\.|->)(malloc|calloc|realloc|free)/, "", text)
    if (comment) gsub(/\(free\)\(/, "", text)
    if ((" " text " ") ~ /[^A-Za-z0-9_](malloc|calloc|realloc|free)[^A-Za-z0-9_]/) {
        print FILENAME ":" FNR ": " $0
        broken = 1
    }
}
END { exit broken }
' "${files[@]}" || failed=1

mapfile -t texts < <(find graph passes codegen kernels runtime models tests include docs packaging ./*.md \
    -name '*.[ch]' -o -name '*.md' -o -name '*.def' -o -name '*.cmake' -o -name '*.cc' -o -name '*.sh' -o -name '*.cu' -o -name '*.cuh' |
    grep -vE '^tests/check_words.sh$' | sort)
if grep -nwE "[Bb]ehind|made[- ]up|[Ww]hoever|parted|[Ss]tretch(es)?" "${texts[@]}"; then failed=1; fi

mapfile -t pages < <(printf '%s\n' "${texts[@]}" | grep '\.md$')
awk '
FNR == 1 { printed = 0 }
/^ *```/ { printed = !printed }
!printed && !/^\|/ && length($0) > 110 { print FILENAME ":" FNR ": longer than 110 columns"; broken = 1 }
END { exit broken }' "${pages[@]}" || failed=1

# Ten questions of a newcomer, which README.md and docs/words.md answer: the file, and how the line begins that answers.
while IFS='|' read -r question file begins; do
    if ! grep -qF -- "$begins" "$file"; then
        echo "$file: \"$question\" has no line \"$begins\""
        failed=1
    fi
done <<'EOF'
what is a stage?|docs/words.md|| stage | a group, or a node by itself
what is a group?|docs/words.md|| group | nodes that one kernel computes
what is a phase?|docs/words.md|| phase | a stage, or a part of it, inside of the persistent kernel
what is a share?|docs/words.md|| share | the rows of a stage that one block
what is a pass?|docs/words.md|| pass, rule | a named change of a graph
where does a new op go?|docs/words.md|| an op | a row of `graph/ops.def`
where does a new format go?|docs/words.md|| a format of weights | a row of `graph/base/dtypes.def`
where does a new card go?|docs/words.md|| a card | a row of `codegen/cards.def`
which mode runs, and why?|README.md|`auto`, the default, takes the mode that `qgc tune` has timed as the fastest
what is one copy of the weights?|docs/words.md|| copy | of the weights: all of them once in device memory
EOF

# The glossary: at most 60 lines, each word once, and the files that it names are there.
if [ "$(wc -l <docs/words.md)" -gt 60 ]; then
    echo "docs/words.md: more than 60 lines"
    failed=1
fi
twice=$(sed -n 's/^| \([^|]*[^ |]\) *|.*/\1/p' docs/words.md | tr ',' '\n' | sed 's/^ *//' | sort | uniq -d)
if [ -n "$twice" ]; then
    echo "docs/words.md: defined twice: $twice"
    failed=1
fi
while read -r path; do
    if [ ! -e "$path" ]; then
        echo "docs/words.md: there is no $path"
        failed=1
    fi
done < <(grep -oE '`[a-z_]+/[a-z_/]+(\.[a-z]+)?`' docs/words.md | tr -d '`')
exit $failed
