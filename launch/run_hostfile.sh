#!/usr/bin/env bash
# Trains on several hosts: mpirun starts the ranks through ssh on the hosts of a hostfile.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/run_hostfile.sh -f HOSTFILE -s SERVERS [-w WORKERS] CONFIG [ARGUMENTS FOR varscope train]
Starts SERVERS + WORKERS ranks on the hosts of HOSTFILE; without -w, as many workers as slots are left. A hostfile has one
line per host:   node1 slots=4
ssh must log in without asking. The program, the config, the data and the run's folder must have the same path everywhere
(a shared file system).
  launch/run_hostfile.sh -f hosts -s 2 configs/fashion_mlp.yaml
Hosts with unlike processors: set OPENBLAS_CORETYPE (for example Haswell), or the last bits depend on which host computes.
A lost host ends the job within seconds; the last line then says how to resume.
SIGUSR1 (checkpoint) and SIGUSR2 (checkpoint, then end with 75) are handed on; SIGTERM acts as SIGUSR2, a second one ends the job.
Environment: VARSCOPE (the program), VARSCOPE_DATA (folder of the data sets) and OPENBLAS_* (both passed to all hosts), MPIRUN,
VARSCOPE_MPIRUN_ARGS (more options, for example: --mca btl_tcp_if_include 10.0.0.0/24).
TEXT
}

# shellcheck source=launch/mpirun_support.sh
. "$(dirname "$(readlink -f "$0")")/mpirun_support.sh"

# Prints the sum of the slots; nothing when a line does not say how many it has.
count_slots() {
  awk '{ sub(/#.*/, "") } NF == 0 { next }
       { n = -1; gsub(/[ \t]*=[ \t]*/, "="); for (i = 2; i <= NF; ++i) if ($i ~ /^slots=[0-9]+$/) n = substr($i, 7)
         if (n < 0) { unknown = 1; exit } sum += n }
       END { if (!unknown) print sum + 0 }' "$hostfile"
}

parse_arguments swf "$@"
[[ -n $hostfile ]] || die "name the hosts: -f HOSTFILE"
[[ -f $hostfile && -r $hostfile ]] || die "cannot read the hostfile $hostfile"
hostfile=$(readlink -f "$hostfile")
slots=$(count_slots)
if [[ -z $workers ]]; then
  [[ -n $slots ]] || die "$hostfile: a host has no slots=N; add it, or say how many workers: -w W"
  workers=$((slots - servers))
  [[ $workers -ge 1 ]] || die "$hostfile has $slots slots: none is left for a worker beside $servers servers"
elif [[ -n $slots && $((servers + workers)) -gt $slots ]]; then
  die "$hostfile has $slots slots for $servers servers and $workers workers; lower -w, or raise slots="
fi

program=$(find_varscope)
prepare_mpirun
# A host that is switched off says nothing: without keepalive mpirun would wait for minutes.
set_mca oob_tcp_keepalive_time 3
set_mca oob_tcp_keepalive_intvl 1
set_mca oob_tcp_keepalive_probes 3
set_mca plm rsh
mpirun+=(--hostfile "$hostfile" -n $((servers + workers)))
if [[ -z ${MPIRUN:-} && -z ${OMPI_MCA_plm_rsh_agent:-} && "${VARSCOPE_MPIRUN_ARGS:-}" != *plm_rsh_a* ]]; then
  command -v ssh >/dev/null || die "no ssh here; tools/install_packages.sh installs it"
  # Fail at once where ssh would ask for a password or wait for a host that is off.
  set_mca plm_rsh_args "-o BatchMode=yes -o ConnectTimeout=15"
fi
# ssh passes no environment. OPENBLAS_CORETYPE chooses OpenBLAS's kernels, and with them the last bits of every result.
for name in $(compgen -e | grep -E '^(VARSCOPE_DATA$|OPENBLAS_|EVENT_NOEPOLL$)' || true); do mpirun+=(-x "$name"); done
run_job "${mpirun[@]}" "$program" train "$config" --set "cluster.servers=$servers" ${train_args[@]+"${train_args[@]}"}
hint_and_exit "$0" -f "$hostfile" -s "$servers" -w "$workers"
