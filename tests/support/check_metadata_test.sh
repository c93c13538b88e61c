#!/bin/bash
# check_metadata accepts this project and finds each kind of disagreement, with the file.
# usage: check_metadata_test.sh PATH_OF_CHECK_METADATA
set -u
check=$1
source=$(dirname "$check")/..
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

fail() {
  echo "FAILED: $*"
  exit 1
}

restore() { cp "$source"/{CMakeLists.txt,CITATION.cff,CHANGELOG.md,LICENSE,README.md} "$root"; }

# finds FILE SED WORDS: with this change the check fails, with one line, of this file and these words.
finds() {
  local output
  restore
  sed -i "$2" "$root/$1"
  output=$("$check" "$root") && fail "not found: $1: $2"
  [[ $output == "$1: "*"$3"* ]] || fail "$1: $2: $output"
  [[ $(wc -l <<<"$output") -eq 1 ]] || fail "more than one finding for $1: $2: $output"
}

restore
"$check" "$root" || fail "the project is refused"
finds CITATION.cff 's/^version: .*/version: 99.1/' "version is '99.1', CMakeLists.txt says"
finds CITATION.cff '/^license:/d' "license: Apache-2.0"
finds CHANGELOG.md '/^## /d' "neither a section [Unreleased]"
finds LICENSE '1,5d' "word for word"
finds README.md 's/The varscope authors//' "Copyright YEAR"
