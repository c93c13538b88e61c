#!/bin/bash
# check_layers accepts a clean tree and finds each kind of violation, in each room, with file and line.
# usage: check_layers_test.sh PATH_OF_CHECK_LAYERS
set -u
check=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

fail() {
  echo "FAILED: $*"
  exit 1
}

put() {
  mkdir -p "$root/$(dirname "$1")"
  printf '#pragma once\n%s\n' "$2" >"$root/$1"
}

# finds FILE (LINE WORDS)...: plants lines in a file, requires that each is found at its place with its words and that nothing
# else is, and takes the file away again.
finds() {
  local file=$1 text='' i output
  shift
  local -a words=()
  while [[ $# -gt 0 ]]; do
    text+=$1$'\n'
    words+=("$2")
    shift 2
  done
  put "$file" "$text"
  output=$("$check" "$root") && fail "not found: $file: $text"
  for i in "${!words[@]}"; do
    grep -q "^$file:$((i + 2)): .*${words[i]}" <<<"$output" ||
      fail "not in place, or in other words: $file:$((i + 2)): ${words[i]}: $output"
  done
  [[ $(wc -l <<<"$output") -eq ${#words[@]} ]] || fail "more than ${#words[@]} findings for $file: $text: $output"
  rm "$root/$file"
}

# A clean tree: in each room a header room.h that includes those of all rooms below it in its folder.
mapfile -t rooms < <("$check" --rooms)
[[ ${#rooms[@]} -gt 20 ]] || fail "check_layers --rooms lists ${#rooms[@]} rooms"
folder_of() { [[ $1 == common/transport/mpi ]] && echo mpi || echo "${1%%/*}"; }
for i in "${!rooms[@]}"; do
  text='#include <vector>'
  for ((below = 0; below < i; ++below)); do
    [[ $(folder_of "${rooms[below]}") != $(folder_of "${rooms[i]}") ]] || text+=$'\n#include "'"${rooms[below]}/room.h"'"'
  done
  put "${rooms[i]}/room.h" "$text"
done
put common/transport/mpi/m.h '#include <mpi.h>'
put common/transport/mpi/n.cc '#include "common/base/room.h" // MPI_COMM_WORLD'
put checkpoint/tools/c.h '#include "common/metrics/room.h"'
put ps/p.h '#include "checkpoint/tools/c.h"'
put worker/train/w.h '#include "common/base/room.h"'
put launch/l.cc '#include "common/transport/mpi/m.h"'
put launch/main.cc '#include "launch/room.h"'
put include/varscope/graph.h '#include "worker/graph/room.h"'
put tests/t.cc '#include <mpi.h>'
put tests/f.cc '#include <varscope/graph.h>'
put bench/b.cc 'auto c = MPI_COMM_WORLD;'
"$check" "$root" || fail "a clean tree is refused"

# Inside a folder: each room against every room above it. Between folders: from every room.
n=0
for i in "${!rooms[@]}"; do
  room=${rooms[i]}
  lines=()
  for ((above = i + 1; above < ${#rooms[@]}; ++above)); do
    [[ $(folder_of "${rooms[above]}") == $(folder_of "$room") ]] || continue
    lines+=("#include \"${rooms[above]}/room.h\"" "room $room lies below the room of ${rooms[above]}/room.h")
    n=$((n + 1))
  done
  case $(folder_of "$room") in
    common) wrong="checkpoint/tools/c.h ps/p.h worker/train/w.h serve/http/room.h launch/room.h common/transport/mpi/m.h" ;;
    mpi) wrong="checkpoint/tools/c.h ps/p.h worker/train/w.h launch/room.h" ;;
    checkpoint) wrong="ps/p.h worker/train/w.h serve/http/room.h launch/room.h common/transport/mpi/m.h" ;;
    ps) wrong="worker/train/w.h serve/http/room.h launch/room.h common/transport/mpi/m.h" ;;
    worker) wrong="checkpoint/tools/c.h ps/p.h serve/http/room.h launch/room.h common/transport/mpi/m.h" ;;
    serve) wrong="ps/p.h launch/room.h common/transport/mpi/m.h" ;;
    launch) wrong="tests/t.h bench/b.h" ;;
  esac
  for header in $wrong varscope/graph.h; do
    lines+=("#  include \"$header\"" "$room must not include $header")
  done
  if [[ $room != common/transport/mpi ]]; then
    lines+=('#include <mpi.h>' "in common/transport/mpi, tests and bench only"
      'int x = f(MPI_COMM_WORLD);' "in common/transport/mpi, tests and bench only")
  fi
  finds "$room/x.cc" "${lines[@]}"
done
[[ $n -gt 40 ]] || fail "only $n pairs of rooms were tried"
finds worker/graph/x.cc '#include "../ops/a.h"' "relative to the root"
finds bench/x.cc '#include <varscope/graph.h>' "bench must not include"

# A file that is in no room.
for file in common/x.h worker/ops/deeper/x.h launch/attic/x.cc; do
  put "$file" '#include <vector>'
  output=$("$check" "$root") && fail "a file in no room is accepted: $file"
  grep -q "^$file:1: ${file%/*} is no room of " <<<"$output" || fail "no words for $file: $output"
  rm -r "${root:?}/$file"
done

# Two classes of one name.
put checkpoint/format/one.h $'struct Row {\n};'
put worker/data/two.h $'class Row final {\n};'
output=$("$check" "$root") && fail "two classes of one name are accepted"
grep -q "^worker/data/two.h:2: defines Row, as checkpoint/format/one.h does" <<<"$output" || fail "no words for two classes: $output"
put worker/data/two.h 'class Row;'
"$check" "$root" || fail "a class that is only declared is refused"
rm "$root/checkpoint/format/one.h" "$root/worker/data/two.h"

"$check" "$root" || fail "a clean tree is refused at the end"
"$check" "$root/nowhere" 2>/dev/null && fail "a missing tree is accepted"
echo "all violations found"
