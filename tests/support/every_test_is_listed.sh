#!/usr/bin/env bash
# Each test of a GoogleTest program is run by exactly one of the filters that ctest has for it.
# usage: every_test_is_listed.sh PROGRAM FILTER...
set -euo pipefail
program=$1
shift
count() { "$program" --gtest_list_tests "$@" | grep -c '^  ' || true; }

all=$(count)
listed=0
for filter in "$@"; do
  n=$(count "--gtest_filter=$filter")
  listed=$((listed + n))
done
if [[ $all -ne $listed ]]; then
  echo "$program has $all tests, but the filters of its files run $listed: a suite is in two files, or its TEST( does not" \
    "begin a line (cmake/VarscopeTests.cmake)"
  exit 1
fi
echo "$program: all $all tests are run"
