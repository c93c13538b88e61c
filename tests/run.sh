#!/usr/bin/env bash
# Installs missing packages, builds, and runs the tests; the exit status is 0 only when all of them pass.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/run.sh [--asan] [CTEST ARGUMENTS]
Installs missing packages, builds preset release and runs its tests.
  --asan   then builds preset asan too, and runs its unit and mpi tests under address and undefined-behaviour sanitizers
What follows goes to ctest: tests/run.sh -L unit; tests/run.sh -R checkpoint
VARSCOPE_JOBS: compilers, and cores for tests, at a time (default: all cores).
TEXT
}

asan=no
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --asan) asan=yes; shift ;;
    *) break ;;
  esac
done

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
jobs=${VARSCOPE_JOBS:-$(nproc)}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: VARSCOPE_JOBS=$jobs is not a number of jobs" >&2; exit 2; }

# test_preset PRESET [CTEST ARGUMENTS]: configures, builds, tests.
test_preset() {
  local preset=$1
  shift
  cmake --preset "$preset" || { echo "run.sh: cmake could not configure preset $preset" >&2; return 1; }
  cmake --build --preset "$preset" -j "$jobs" || { echo "run.sh: preset $preset does not build" >&2; return 1; }
  ctest --preset "$preset" -j "$jobs" "$@"
}

# A run without a selection that finds no tests has tested nothing.
arguments=("$@")
[[ $# -gt 0 ]] || arguments=(--no-tests=error)

tools/install_packages.sh
failed=()
test_preset release "${arguments[@]}" || failed+=(release)
if [[ $asan == yes ]]; then
  test_preset asan -L '^(unit|mpi)$' "${arguments[@]}" || failed+=(asan)
fi
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "run.sh: FAILED: ${failed[*]}" >&2
  exit 1
fi
echo "run.sh: all tests passed"
