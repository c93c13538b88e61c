#!/bin/bash
# check_tidy finds faults in files and headers that have changed, leaves those alone that only moved, and remembers clean ones.
# Code 77 without clang-tidy or Python.
# usage: check_tidy_test.sh PATH_OF_CHECK_TIDY
set -u
check=$1
command -v python3 >/dev/null || { echo "python3 is not installed: skipped"; exit 77; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cd "$root" || exit 2
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q .

fail() {
  echo "FAILED: $*"
  exit 1
}

commit() {
  git add -A
  git commit -q --allow-empty -m "$1"
}

# expect CODE LINE... -- ARGUMENTS: check_tidy ends with it and prints these lines before its closing one. Each * in a line
# stands for anything.
expect() {
  local code=$1 lines=() output found
  shift
  while [[ $1 != -- ]]; do
    lines+=("$1")
    shift
  done
  shift
  output=$("$check" --root "$root" "$@" 2>&1)
  found=$?
  [[ $found -ne 77 ]] || { echo "$output"; exit 77; }
  [[ $found -eq $code ]] || fail "exit code $found instead of $code: $output"
  # shellcheck disable=SC2053
  [[ $output == $(printf '%s\n' "${lines[@]}" "check_tidy: *; 0 min * s") ]] || fail "printed
$output
instead of
$(printf '%s\n' "${lines[@]}")"
}

fault='inline int quotient(int a) { int b = 0; b = a; if (a == 1 || a == 1) return b; return 0; }'
mkdir old ours
printf '%s\n' 'cmake_minimum_required(VERSION 3.25)' 'project(p CXX)' 'set(CMAKE_INCLUDE_CURRENT_DIR ON)' \
  'add_library(p old/old.cc ours/clean.cc ours/user.cc)' >CMakeLists.txt
printf '/build/\n' >.gitignore
printf "Checks: '-*,misc-redundant-expression'\n" >.clang-tidy
printf '#include <vector>\n%s\nint f() { return quotient(2); }\n' "$fault" >old/old.cc
printf '#pragma once\ninline int one() { return 1; }\n' >ours/header.h
printf '#include "ours/header.h"\nint g() { return one(); }\n' >ours/user.cc
printf 'int h() { return 0; }\n' >ours/clean.cc
commit "the root: all is new"
old="old/old.cc:2:*: warning: both sides of operator are equivalent ?misc-redundant-expression?"
expect 1 "$old" --
for i in {1..50}; do commit "empty $i"; done

# Fifty commits ago is nothing.
expect 0 --
expect 1 "$old" -- --all
expect 1 "$old" -- old/old.cc
# A move, with its includes.
mkdir new
git mv old/old.cc new/old.cc
sed -i 's/<vector>/<array>/' new/old.cc
sed -i 's:old/old.cc:new/old.cc:' CMakeLists.txt
commit "a move"
expect 0 --
# A header that no source file has the name of.
printf '%s\n' "$fault" >>ours/header.h
expect 1 "ours/header.h:3:*: warning: both sides of operator are equivalent ?misc-redundant-expression?" --
printf '#pragma once\ninline int one() { return 2; }\n' >ours/header.h
expect 0 --
# A clean file is not looked at again until it, its headers or the checks have changed.
[[ $(find build/tidy/clean -type f | wc -l) -eq 3 ]] || fail "marks of clean files: $(cat build/tidy/clean/*)"
printf "Checks: '-*,misc-redundant-expression,modernize-use-trailing-return-type'\n" >.clang-tidy
expect 1 "ours/header.h:2:*: warning: use a trailing return type for this function ?modernize-use-trailing-return-type?" \
  "ours/user.cc:2:*: warning: use a trailing return type for this function ?modernize-use-trailing-return-type?" --

# When the time is over nothing more is begun, and what is left is counted.
expect 0 -- --minutes 0
output=$("$check" --root "$root" --minutes 0) || fail "code $?: $output"
[[ $output == *"source files: 1, 1 of them not looked at within 0 min; "* ]] || fail "printed $output"

# What cannot be checked is no success.
expect_words() {
  local output
  output=$("$check" --root "$root" "${@:2}" 2>&1) && fail "code 0: $*"
  [[ $output == *"$1"* ]] || fail "\"$1\" is not in: $output"
}
expect_words "none of these is built: ours/header2.h" ours/header2.h
expect_words "unknown option --al; see --help" --al
printf 'not a word of C++\n' >ours/clean.cc
expect_words "ours/clean.cc:1:1: error: expected unqualified-id" ours/clean.cc
echo "faults are found where something has changed"
