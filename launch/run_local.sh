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
Ends with mpirun's status; SIGINT, SIGUSR1 (checkpoint) and SIGUSR2 (checkpoint, then end with 75) are handed on to mpirun.
SIGTERM acts as SIGUSR2; a second one ends the job at once.
Environment: VARSCOPE (the program), VARSCOPE_DATA (folder of the data sets), MPIRUN, VARSCOPE_MPIRUN_ARGS (more options).
TEXT
}

# shellcheck source=launch/mpirun_support.sh
. "$(dirname "$(readlink -f "$0")")/mpirun_support.sh"

parse_arguments sw "$@"
[[ -n $workers ]] || die "say how many workers: -w W"
program=$(find_varscope)
prepare_mpirun
run_job "${mpirun[@]}" --oversubscribe -n $((servers + workers)) \
  "$program" train "$config" --set "cluster.servers=$servers" ${train_args[@]+"${train_args[@]}"}
hint_and_exit "$0" -s "$servers" -w "$workers"
