#!/usr/bin/env bash
# Installs missing packages, builds, and runs the tests; the exit status is 0 only when all of them pass.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/run.sh [--asan] [CTEST ARGUMENTS]
Installs missing packages, builds preset release and runs its tests.
  --asan   then builds preset asan too, and runs its unit and mpi tests under address and undefined-behaviour sanitizers
What follows goes to ctest: tests/run.sh -L unit; tests/run.sh -R checkpoint
Results are also written to build/PRESET/tests.xml; tools/check_skips lists what was skipped in there.
VARSCOPE_JOBS: compilers, and cores for tests, at a time (default: all cores).
TEXT
}

sanitizers=()
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --asan) sanitizers+=("${1#--}"); shift ;;
    *) break ;;
  esac
done

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
jobs=${VARSCOPE_JOBS:-$(nproc)}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: VARSCOPE_JOBS=$jobs is not a number of jobs" >&2; exit 2; }

# Configures and builds a preset.
build() {
  cmake --preset "$1" || { echo "run.sh: cmake could not configure preset $1" >&2; return 1; }
  cmake --build --preset "$1" -j "$jobs" || { echo "run.sh: preset $1 does not build" >&2; return 1; }
}

# run_tests PRESET [CTEST ARGUMENTS]. All output of tests goes into the results.
run_tests() {
  rm -f "build/$1/tests.xml"
  ctest --preset "$1" -j "$jobs" --output-junit tests.xml --test-output-size-passed 10000000 --test-output-size-failed 10000000 \
    "${@:2}"
}

# timed WHAT COMMAND...: says how long it took.
timed() {
  local status=0 start=$SECONDS
  "${@:2}" || status=$?
  printf 'run.sh: %s took %d min %d s\n' "$1" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60))
  return $status
}

# test_preset PRESET [CTEST ARGUMENTS]: builds and tests.
test_preset() {
  timed "building preset $1" build "$1" && timed "testing preset $1" run_tests "$@"
}

# A run without a selection that finds no tests has tested nothing.
arguments=("$@")
[[ $# -gt 0 ]] || arguments=(--no-tests=error)

timed "installing packages" tools/install_packages.sh
failed=()
test_preset release "${arguments[@]}" || failed+=(release)
for sanitizer in "${sanitizers[@]}"; do
  test_preset "$sanitizer" -L '^(unit|mpi)$' "${arguments[@]}" || failed+=("$sanitizer")
done
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "run.sh: FAILED: ${failed[*]}" >&2
  exit 1
fi
echo "run.sh: all tests passed"
