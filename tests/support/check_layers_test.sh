#!/bin/bash
# check_layers accepts a clean tree and finds each kind of violation, with file and line.
# usage: check_layers_test.sh PATH_OF_CHECK_LAYERS
set -u
check=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{common/transport/mpi,checkpoint,ps,worker,launch,tests,bench}

fail() {
  echo "FAILED: $*"
  exit 1
}

put() { printf '#pragma once\n%s\n' "$2" >"$root/$1"; }

put common/a.h '#include <vector>'
put common/transport/mpi/m.h '#include <mpi.h>'
put common/transport/mpi/n.cc '#include "common/a.h" // MPI_COMM_WORLD'
put checkpoint/c.h '#include "common/a.h"'
put ps/p.h '#include "checkpoint/c.h"'
put worker/w.h '#include "common/a.h"'
put launch/l.cc '#include "common/transport/mpi/m.h"'
put tests/t.cc '#include <mpi.h>'
put bench/b.cc 'auto c = MPI_COMM_WORLD;'
"$check" "$root" || fail "a clean tree is refused"

# Plants one line, requires that it is found at its place, and takes it away again.
finds() {
  local file=$1 text=$2 output
  put "$file" "$text"
  output=$("$check" "$root") && fail "not found: $file: $text"
  grep -q "^$file:2: " <<<"$output" || fail "no place named for $file: $text: $output"
  [[ $(wc -l <<<"$output") -eq 1 ]] || fail "more than one finding for $file: $text: $output"
  rm "$root/$file"
}

finds common/x.h '#include "checkpoint/c.h"'
finds common/x.cc '#include "ps/p.h"'
finds common/x.cc '#  include "worker/w.h"'
finds common/x.cc '#include "launch/l.h"'
finds common/x.cc '#include "common/transport/mpi/m.h"'
finds common/x.cc '#include <mpi.h>'
finds common/x.cc 'int x = f(MPI_COMM_WORLD);'
finds common/transport/mpi/x.cc '#include "ps/p.h"'
finds checkpoint/x.cc '#include "ps/p.h"'
finds checkpoint/x.cc '#include "worker/w.h"'
finds ps/x.cc '#include "worker/w.h"'
finds ps/x.cc '#include "common/transport/mpi/m.h"'
finds ps/x.cc '#include "launch/l.h"'
finds worker/x.cc '#include "ps/p.h"'
finds worker/x.cc '#include "checkpoint/c.h"'
finds worker/x.cc '#include "common/transport/mpi/m.h"'
finds worker/x.cc '#include "../common/a.h"'
finds launch/x.cc '#include <mpi.h>'
finds launch/x.cc 'auto c = MPI_COMM_WORLD;'
finds launch/x.cc '#include "tests/t.h"'

"$check" "$root" || fail "a clean tree is refused at the end"
"$check" "$root/nowhere" 2>/dev/null && fail "a missing tree is accepted"
echo "all violations found"
