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
Options may stand anywhere, also as -s1, --servers 1, --hostfile=hosts. SIGINT (Ctrl-C) and SIGTERM make a checkpoint and end
the job with code 75, a second one ends it at once. SIGHUP and SIGUSR2 make a checkpoint and end it, SIGUSR1 makes one.
Environment: VARSCOPE (the program), VARSCOPE_DATA (folder of the data sets) and OPENBLAS_* (both passed to all hosts), MPIRUN,
VARSCOPE_MPIRUN_ARGS (more options, for example: --mca btl_tcp_if_include 10.0.0.0/24).
TEXT
}

# shellcheck source=launch/mpirun_support.sh
. "$(dirname "$(readlink -f "$0")")/mpirun_support.sh"

# Prints the hostfile as mpirun reads it: without the carriage returns and the byte order mark of other systems.
plain_hostfile() { sed -e '1s/^\xef\xbb\xbf//' -e 's/\r$//' -- "$hostfile"; }

# Prints what is wrong with the hostfile, by line; nothing when mpirun can read it.
check_hostfile() {
  plain_hostfile | awk -v file="$hostfile" '
    { line = $0; sub(/#.*/, ""); gsub(/[ \t]*=[ \t]*/, "=") }
    NF == 0 { next }
    function bad(what) { if (!found) print file ":" NR ": " what ": \"" line "\"; a line is: HOST slots=N"; found = 1 }
    { ++hosts }
    $1 ~ /=/ || $1 !~ /^[+^]?[A-Za-z0-9_.:@\[\]-]+$/ { bad("no name of a host"); next }
    { for (i = 2; i <= NF; ++i) {
        key = $i; value = ""; at = index($i, "=")
        if (at > 0) { key = substr($i, 1, at - 1); value = substr($i, at + 1) }
        name = tolower(key); gsub(/[-_]/, "", name)
        if (name ~ /^(slots|count|cpus|slotsmax|maxslots|countmax|maxcount|cpusmax|maxcpus)$/) {
          if (value !~ /^[0-9]+$/) bad(key " needs a number")
        } else if (name ~ /^(username|userid|port|boards|sockets|cores|socketsperboard|corespersocket)$/) {
          if (value == "") bad(key " needs a value")
        } else bad("unknown word \"" key "\"" (name ~ /^(slot|slt|solts|sltos|cpu|np|n)$/ ? "; did you mean slots?" : ""))
      } }
    END { if (!found && hosts == 0) print file ": names no host" }'
}

# Prints the sum of the slots; nothing when a line does not say how many it has.
count_slots() {
  plain_hostfile | awk '{ sub(/#.*/, "") } NF == 0 { next }
       { n = -1; gsub(/[ \t]*=[ \t]*/, "="); for (i = 2; i <= NF; ++i) if ($i ~ /^slots=[0-9]+$/) n = substr($i, 7)
         if (n < 0) { unknown = 1; exit } sum += n }
       END { if (!unknown) print sum + 0 }'
}

parse_arguments swf "$@"
[[ -n $hostfile ]] || die "name the hosts: -f HOSTFILE"
[[ -f $hostfile && -r $hostfile ]] || die "cannot read the hostfile $hostfile"
hostfile=$(readlink -f "$hostfile")
problem=$(check_hostfile)
[[ -z $problem ]] || die "$problem"
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
# Else w.1.foo.net and w.2.foo.net would both be "w".
set_mca orte_keep_fqdn_hostnames 1
read_hostfile=$hostfile
if [[ $(plain_hostfile | cksum) != "$(cksum <"$hostfile")" ]]; then
  # A file without a name: gone when the last process has closed it. mpirun opens it more than once.
  temporary=$(mktemp)
  plain_hostfile >"$temporary"
  exec {plain}<"$temporary"
  rm "$temporary"
  read_hostfile=/proc/self/fd/$plain
fi
mpirun+=(--hostfile "$read_hostfile" -n $((servers + workers)))
if [[ -z ${MPIRUN:-} && -z ${OMPI_MCA_plm_rsh_agent:-} && "${VARSCOPE_MPIRUN_ARGS:-}" != *plm_rsh_a* ]]; then
  command -v ssh >/dev/null || die "no ssh here; tools/install_packages.sh installs it"
  # Fail at once where ssh would ask for a password or wait for a host that is off.
  set_mca plm_rsh_args "-o BatchMode=yes -o ConnectTimeout=15"
fi
# ssh passes no environment. OPENBLAS_CORETYPE chooses OpenBLAS's kernels, and with them the last bits of every result.
for name in $(compgen -e | grep -E '^(VARSCOPE_DATA$|OPENBLAS_|EVENT_NOEPOLL$)' || true) VARSCOPE_LAUNCHER; do
  mpirun+=(-x "$name")
done
run_job "$0" -f "$hostfile" -s "$servers" -w "$workers"
