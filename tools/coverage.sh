#!/usr/bin/env bash
# Runs the tests of an instrumented build and prints which share of each folder's lines they reach.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tools/coverage.sh [--html] [CTEST ARGUMENTS]
Builds preset coverage, runs its unit, mpi and fault tests, and prints line coverage of common, ps, worker and checkpoint.
Needs gcov (part of build-essential).
  --html   also writes build/coverage/report/index.html with every line; takes minutes, and gcovr (install_packages.sh --dev)
VARSCOPE_JOBS: compilers, and cores for tests, at a time (default: all cores).
TEXT
}

[[ ${1:-} != -h && ${1:-} != --help ]] || { usage; exit 0; }
html=no
if [[ ${1:-} == --html ]]; then
  html=yes
  shift
  command -v gcovr >/dev/null || { echo "coverage.sh: --html needs gcovr; run tools/install_packages.sh --dev" >&2; exit 1; }
fi
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
root=$PWD
jobs=${VARSCOPE_JOBS:-$(nproc)}
arguments=("$@")
[[ $# -gt 0 ]] || arguments=(--no-tests=error)
command -v gcov >/dev/null || { echo "coverage.sh: no gcov here; run tools/install_packages.sh" >&2; exit 1; }

cmake --preset coverage >/dev/null || { echo "coverage.sh: cmake could not configure preset coverage" >&2; exit 1; }
cmake --build --preset coverage -j "$jobs" || { echo "coverage.sh: preset coverage does not build" >&2; exit 1; }
find build/coverage -name '*.gcda' -delete
status=0
ctest --preset coverage -j "$jobs" -L '^(unit|mpi|fault)$' "${arguments[@]}" || status=$?

# A rank that is killed writes no counts; what the others and the next run wrote is merged by gcov's run-time.
lines=$(mktemp -d)
trap 'rm -rf "$lines"' EXIT
# A line counts once, however many files include its header and however many times a template is compiled.
find "$root/build/coverage" -name '*.gcda' -print0 >"$lines/list"
[[ -s $lines/list ]] || { echo "coverage.sh: no test wrote any counts" >&2; exit 1; }
(cd "$lines" && xargs -0 -r -n 20 gcov --stdout --preserve-paths --demangled-names <list 2>/dev/null) |
  awk -F: -v root="$root/" '
    # gcov text: "   count:  line:source"; "-" is no code, "#####" and "=====" were never reached.
    $2 + 0 == 0 && $3 == "Source" { file = $4; sub("^" root, "", file); split(file, part, "/"); folder = part[1]
      counted = folder ~ /^(common|ps|worker|checkpoint)$/ && file !~ /^\//; next }
    counted && NF >= 3 { count = $1; gsub(/[ *]/, "", count); if (count == "-" || count == "") next
      key = file ":" ($2 + 0); if (!(key in seen)) { seen[key] = folder; ++all[folder] }
      if (count !~ /^[#=]+$/ && !(key in hit)) { hit[key] = 1; ++reached[folder] } }
    END {
      n = split("common ps worker checkpoint", order, " ")
      printf "%-12s %8s %8s %8s\n", "folder", "lines", "reached", "share"
      for (i = 1; i <= n; ++i) { f = order[i]; a += all[f]; r += reached[f]
        if (all[f]) printf "%-12s %8d %8d %7.1f%%\n", f, all[f], reached[f], 100 * reached[f] / all[f] }
      if (a) printf "%-12s %8d %8d %7.1f%%\n", "total", a, r, 100 * r / a
    }'
if [[ $html == yes ]]; then
  mkdir -p build/coverage/report
  gcovr -j "$jobs" --root . --filter '(common|ps|worker|checkpoint)/' --html-details build/coverage/report/index.html build/coverage
  echo "every line: build/coverage/report/index.html"
fi
[[ $status -eq 0 ]] || echo "coverage.sh: some tests failed" >&2
exit "$status"
