#!/usr/bin/env bash
# Trains on this machine: mpirun with S servers and W workers, also where they outnumber the cores.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/run_local.sh -s SERVERS -w WORKERS CONFIG [ARGUMENTS FOR varscope train]
Starts SERVERS + WORKERS ranks on this machine; they may outnumber its cores.
  launch/run_local.sh -s 1 -w 2 configs/digits_mlp.yaml
  launch/run_local.sh -s 2 -w 4 configs/fashion_mlp.yaml --set train.epochs=3
  launch/run_local.sh -s 1 -w 2 configs/fashion_mlp.yaml --resume
Options may stand anywhere, also as -s1, --servers 1, --workers=2. Ends with the job's status, and says what has failed and
how to go on. SIGINT (Ctrl-C) and SIGTERM make a checkpoint and end the job with code 75, a second one ends it at once. SIGHUP and
SIGUSR2 make a checkpoint and end it, SIGUSR1 makes one.
Environment: VARSCOPE (the program), VARSCOPE_DATA (folder of the data sets), MPIRUN, VARSCOPE_MPIRUN_ARGS (more options).
TEXT
}

# shellcheck source=launch/mpirun_support.sh
. "$(dirname "$(readlink -f "$0")")/mpirun_support.sh"

parse_arguments sw "$@"
[[ -n $workers ]] || die "say how many workers: -w W"
program=$(find_varscope)
prepare_mpirun
mpirun+=(--oversubscribe -n $((servers + workers)))
run_job "$0" -s "$servers" -w "$workers"
