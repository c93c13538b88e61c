#!/usr/bin/env bash
# Installs missing packages, builds, and runs the tests; the exit status is 0 only when all of them pass.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/run.sh [--asan] [--tsan] [CTEST ARGUMENTS]
Installs missing packages, builds preset release and runs its tests.
  --asan   then builds preset asan too, and runs its unit and mpi tests under address and undefined-behaviour sanitizers
  --tsan   then builds preset tsan too, and runs the unit tests that start threads, and the mpi tests of one and two ranks,
           under the thread sanitizer
While tests run, the other presets are built beside them at the lowest priority.
What follows goes to ctest: tests/run.sh -L unit; tests/run.sh -R checkpoint
Results are also written to build/PRESET/tests.xml; tools/check_skips lists what was skipped in there.
VARSCOPE_JOBS: compilers, and cores for tests, at a time (default: all cores).
TEXT
}

sanitizers=()
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --asan | --tsan) sanitizers+=("${1#--}"); shift ;;
    *) break ;;
  esac
done

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# What one clone has compiled is found by ccache in another one, in whatever folder that is.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$PWD} CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR:-1}
jobs=${VARSCOPE_JOBS:-$(nproc)}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: VARSCOPE_JOBS=$jobs is not a number of jobs" >&2; exit 2; }

# build PRESET [TARGET]: configures and builds.
build() {
  cmake --preset "$1" || { echo "run.sh: cmake could not configure preset $1" >&2; return 1; }
  cmake --build --preset "$1" -j "$jobs" --target "${2:-all}" || { echo "run.sh: preset $1 does not build" >&2; return 1; }
}

# GCC 12's thread sanitizer finds its memory only where addresses vary by at most 28 bits; newer kernels begin with more. Without
# random addresses it does.
fixed_addresses=()
prepare_for_tsan() {
  local bits
  bits=$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)
  [[ $bits -gt 28 ]] || return 0
  setarch -R true 2>/dev/null ||
    { echo "run.sh: the thread sanitizer needs \`sysctl vm.mmap_rnd_bits=28\` here (it is $bits, and setarch -R is refused)" >&2; return 1; }
  fixed_addresses=(setarch -R)
}

# run_tests PRESET [CTEST ARGUMENTS]. All output of tests goes into the results.
run_tests() {
  rm -f "build/$1/tests.xml"
  "${fixed_addresses[@]}" ctest --preset "$1" -j "$jobs" --output-junit tests.xml --test-output-size-passed 10000000 --test-output-size-failed 10000000 \
    "${@:2}"
}

# timed WHAT COMMAND...: says how long it took.
timed() {
  local status=0 start=$SECONDS
  "${@:2}" || status=$?
  printf 'run.sh: %s took %d min %d s\n' "$1" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60))
  return $status
}

# Tests mostly wait for each other, so the other presets are built beside them, at the lowest priority: begin_builds PRESET...
# end_build PRESET waits for one, and shows what it said where it failed.
builds=$(mktemp -d)
builder=
stop_building() { [[ -z $builder ]] || kill -- "-$builder" 2>/dev/null || true; }
trap 'stop_building; rm -rf "$builds"' EXIT
begin_builds() {
  set -m  # a process group of its own, so that all of it can be stopped
  {
    renice -n 19 "$BASHPID" >/dev/null 2>&1 || true
    for preset in "$@"; do
      code=0
      build "$preset" unit_and_mpi_tests >"$builds/$preset.log" 2>&1 || code=$?
      echo "$code" >"$builds/code" && mv "$builds/code" "$builds/$preset.code"
    done
  } &
  builder=$!
  set +m
}
end_build() {
  while [[ ! -e $builds/$1.code ]] && kill -0 "$builder" 2>/dev/null; do sleep 1; done
  [[ $(cat "$builds/$1.code" 2>/dev/null) == 0 ]] || { cat "$builds/$1.log"; return 1; }
}

# A run without a selection that finds no tests has tested nothing.
arguments=("$@")
[[ $# -gt 0 ]] || arguments=(--no-tests=error)

timed "installing packages" tools/install_packages.sh
failed=()
for preset in release "${sanitizers[@]}"; do
  labels=()
  if [[ $preset == release ]]; then
    timed "building preset $preset" build "$preset" || failed+=("$preset")
    [[ ${#sanitizers[@]} -eq 0 ]] || begin_builds "${sanitizers[@]}"
  else
    timed "waiting for preset $preset to be built" end_build "$preset" || failed+=("$preset")
    labels=(-L '^(unit|mpi)$')
  fi
  [[ " ${failed[*]} " != *" $preset "* ]] || continue
  fixed_addresses=()
  [[ $preset != tsan ]] || prepare_for_tsan || { failed+=(tsan); continue; }
  timed "testing preset $preset" run_tests "$preset" "${labels[@]}" "${arguments[@]}" || failed+=("$preset")
done
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "run.sh: FAILED: ${failed[*]}" >&2
  exit 1
fi
echo "run.sh: all tests passed"
