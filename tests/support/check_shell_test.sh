#!/bin/bash
# check_shell passes clean scripts, and finds a fault in a script with and without an ending. Code 77 without shellcheck.
# usage: check_shell_test.sh PATH_OF_CHECK_SHELL
set -u
check=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cd "$root" || exit 2
git init -q .

fail() {
  echo "FAILED: $*"
  exit 1
}

printf '#!/bin/bash\necho good\n' >good
# shellcheck disable=SC2016
printf '#!/usr/bin/env python3\nprint("$no shell")\n' >python
git add -A
output=$("$check" "$root")
code=$?
[[ $code -ne 77 ]] || { echo "$output"; exit 77; }
[[ $code -eq 0 ]] || fail "clean scripts are refused: $output"
for name in bad bad.sh; do
  # shellcheck disable=SC2016
  printf '#!/usr/bin/env bash\nrm -rf $1/x\n' >"$name"
  git add -A
  output=$("$check" "$root") && fail "$name is not found"
  grep -q "In $name line 2:" <<<"$output" || fail "no place is named: $output"
  rm "$name"
done
echo "faults are found"
