#!/bin/bash
# Does what docs/tutorial.md says: runs its blocks ```sh in their order, in one shell, and compares what each prints with the
# block ``` behind it.
# usage: tutorial_test.sh SOURCE_FOLDER VARSCOPE_BINARY
#
# The lines shown must be all that is printed, but for what "..." stands for: any number of lines. What may differ between machines is
# not compared: fractions, dates, times, hashes, steps, folders, numbers of five digits. The block ```python runs where python3 has NumPy.
set -u
source=$(readlink -f "$1")
varscope=$(readlink -f "$2")
export VARSCOPE=$varscope LC_ALL=C
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/tree/build/release/bin" "$root/blocks"
ln -s "$varscope" "$root/tree/build/release/bin/varscope"
ln -s "$source/launch" "$root/tree/launch"
cd "$root/tree" || exit 2

fail() {
  echo "FAILED: $*"
  exit 1
}

# blocks/N.sh or N.python, and N.shown, the block without a language right behind it.
awk -v blocks="$root/blocks" '
  /^```/ && open { open = 0; close(file); previous = FNR; next }
  /^```(sh|python)$/ { file = blocks "/" sprintf("%02d", ++n) "." substr($0, 4); open = 1; next }
  /^```$/ && previous == FNR - 1 { file = blocks "/" sprintf("%02d", n) ".shown"; open = 1; next }
  /^```/ { print "line " FNR ": a block that is neither sh nor python nor an output of one"; exit 1 }
  open { print >file }
  END { if (open) { print "a block without an end"; exit 1 } }' "$source/docs/tutorial.md" || fail "docs/tutorial.md cannot be read"

python3 -c 'import numpy' 2>"$root/numpy" || echo "python3 has no NumPy: the blocks of Python are skipped"
{
  echo 'set -euo pipefail'
  printf '%s\n' "$root"/blocks/*.sh "$root"/blocks/*.python | sort | while read -r block; do
    name=${block%.*}
    if [[ $block == *.python ]]; then
      [[ -s $root/numpy ]] || echo "python3 '$block' >'$name.output' 2>&1"
    else
      echo "exec >'$name.output' 2>&1"
      cat "$block"
    fi
  done
} >"$root/script"
timeout 200 bash "$root/script" || {
  code=$?
  last=$(find "$root/blocks" -name '*.output' | sort | tail -n 1)
  cat "${last%.output}".{sh,python} "$last" 2>/dev/null
  fail "this block ends with code $code"
}

# What is compared of the lines of a file.
compared() {
  sed -E 's/\x1b\[[0-9;]*m//g; s/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]+Z/DATE/g; s/\b[0-9a-f]{32}\b/HASH/g; s/\b(run|id) +[0-9a-f-]{8,}/\1 ID/g
    s/-?[0-9]+(\.[0-9]+)?e-?[0-9]+/X/g; s/-?[0-9]+\.[0-9]+/X/g; s/[0-9]+ (ms|s|%|bytes)\b/X \1/g; s/[0-9]{1,3}(,[0-9]{3})+/X/g
    s#/[^ ]*/flowers/#DIR/#g; s/"step":[0-9]+/STEP/; s/\b(step-|step +)[0-9]+( +[0-9]+)?/\1N/g; s/[0-9]{5,}/X/g; s/[[:space:]]+/ /g; s/ $//' "$1"
}

compare() {
  awk -v shown="$1" '
    { output[++n] = $0 }
    END {
      at = 1; gap = 1
      while ((getline line <shown) > 0) {
        if (line == "...") { gap = 1; continue }
        start = at
        while (at <= n && output[at] != line && gap) ++at
        if (at > n || output[at] != line) { print "not printed behind line " start - 1 ": " line; exit 1 }
        ++at; gap = 0
      }
      if (!gap && at <= n) { print "printed, but not shown: " output[at]; exit 1 }
    }' "$2"
}

n=0
for shown in "$root"/blocks/*.shown; do
  name=${shown%.shown}
  [[ -e $name.output ]] || continue
  compared "$shown" >"$name.a"
  compared "$name.output" >"$name.b"
  found=$(compare "$name.a" "$name.b") || {
    cat "$name".{sh,python} 2>/dev/null
    echo "prints:"
    head -c 6000 "$name.output"
    fail "docs/tutorial.md shows another output: $found"
  }
  n=$((n + 1))
done
[[ $n -ge 10 ]] || fail "only $n outputs are compared"
echo "$n outputs are as docs/tutorial.md shows them"
