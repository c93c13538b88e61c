#!/bin/bash
# cmake/InstallHeaders.cmake over small source trees: what it installs, and what it refuses with which words.
# usage: install_headers_test.sh PATH_OF_INSTALLHEADERS
set -u
script=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

fail() {
  echo "FAILED: $*"
  exit 1
}

put() {
  mkdir -p "$(dirname "$root/source/$1")"
  printf '#pragma once\n%s\n' "$2" >"$root/source/$1"
}

headers() {
  cmake -D source_dir="$root/source" -D staging_dir="$root/staging" -D include_dir="$root/include" -P "$script" >"$root/out" 2>&1
}

refuses() {
  headers && fail "taken: $1"
  tr -s ' \n' ' ' <"$root/out" | grep -qF -- "$1" || fail "no '$1' in: $(cat "$root/out")"
}

refuses "no public headers in $root/source/include/varscope"

put include/varscope/one.h '#include "worker/graph/graph.h"'
put worker/graph/graph.h '#  include "common/base/error.h"  // an error
#include "worker/graph/graph.h"
#define VARSCOPE_GRAPH 1
inline const char* text = "common/base/error.h";'
put common/base/error.h '#include <vector>'
put common/base/unused.h ''
headers || fail "$(cat "$root/out")"
[[ $(cd "$root/include/varscope" && find . -type f | sort | tr '\n' ' ') == "./internal/common/base/error.h ./internal/worker/graph/graph.h ./one.h " ]] ||
  fail "$(find "$root/include")"
grep -q '^#include "varscope/internal/worker/graph/graph.h"$' "$root/include/varscope/one.h" || fail "$(cat "$root/include/varscope/one.h")"
diff - "$root/include/varscope/internal/worker/graph/graph.h" <<'TEXT' || fail "another text"
#pragma once
#  include "varscope/internal/common/base/error.h"  // an error
#include "varscope/internal/worker/graph/graph.h"
#define VARSCOPE_GRAPH 1
inline const char* text = "common/base/error.h";
TEXT

# A header that is no longer included is not installed from an earlier time.
put worker/graph/graph.h ''
rm -r "$root/include"
headers || fail "$(cat "$root/out")"
[[ ! -e $root/include/varscope/internal/common ]] || fail "it kept what is no longer included"

put worker/graph/graph.h '#include <common/base/error.h>'
refuses "an include that the installed header must not have: #include <common/"
put worker/graph/graph.h '#define INLINE inline'
refuses "a macro of an installed header must be called VARSCOPE_...: #define INLINE"
put worker/graph/graph.h '#include "common/base/missing.h"'
refuses "the public headers include common/base/missing.h, which is not in the sources"
exit 0
