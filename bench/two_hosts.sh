#!/usr/bin/env bash
# Runs a program as two ranks on two hosts with a slow link between them: network namespaces of this machine.
# shellcheck disable=SC2016  # what hosts run expands there
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bench/two_hosts.sh RATE PROGRAM [ARGUMENTS]
Starts two ranks of PROGRAM by mpirun, one on each of two hosts whose link carries RATE each way (100mbit, as tc writes it).
The hosts are network namespaces with names, /dev/shm and processes of their own; files are shared. They are gone at the end.
Needs root, iproute2 and util-linux. The exit status is that of mpirun, or 77 where the machine does not permit such hosts.
Environment: MPIRUN.
TEXT
}

self=$(readlink -f "${BASH_SOURCE[0]}")

# enter HOST COMMAND...: becomes the command on this host, in the same directory.
enter() {
  local pid
  pid=$(<"$VARSCOPE_TWO_HOSTS/$1.pid")
  exec nsenter -t "$pid" -m -n -u -i -- sh -c 'cd "$0" && exec "$@"' "$PWD" "${@:2}"
}

# What mpirun calls instead of ssh: HOST COMMAND...
if [[ -n ${VARSCOPE_TWO_HOSTS:-} && ${1:-} == --rsh ]]; then
  enter "$2" sh -c "${*:3}"
fi
case ${1:-} in
  -h | --help) usage; exit 0 ;;
esac
[[ $# -ge 2 ]] || { usage >&2; exit 2; }
rate=$1
shift

state=$(mktemp -d)
export VARSCOPE_TWO_HOSTS=$state
pids=()
remove() {
  [[ ${#pids[@]} -eq 0 ]] || kill -KILL "${pids[@]}" 2>/dev/null || true
  rm -rf "$state"
}
trap remove EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

cannot() {
  echo "two_hosts.sh: $1: no hosts of this machine's own" >&2
  exit 77
}
[[ $(id -u) -eq 0 ]] || cannot "not root"
for program in unshare nsenter ip tc; do
  command -v "$program" >/dev/null || cannot "no program $program"
done

# The process that keeps host $1's namespaces. It says when it has them.
hold() {
  unshare --net --uts --mount --ipc -- sh -c 'echo ready >"$1" && exec sleep infinity' hold "$state/$1.ready" \
    </dev/null >/dev/null 2>"$state/$1.error" &
  pids+=($!)
  disown
  echo $! >"$state/$1.pid"
  for _ in {1..500}; do
    [[ ! -s $state/$1.ready ]] || return 0
    kill -0 $! 2>/dev/null || break
    sleep 0.01
  done
  cannot "$(head -1 "$state/$1.error")"
}

# set_up HOST ADDRESS: the name, the link's end and the rate at which it sends.
set_up() {
  nsenter -t "$(<"$state/$1.pid")" -m -n -u -i -- sh -e -c '
    hostname "$1"
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount --bind "$4/hosts" /etc/hosts
    ip link set lo up
    ip addr add "$2/24" dev link0
    ip link set link0 up
    tc qdisc add dev link0 root tbf rate "$3" burst 256kb latency 50ms' \
    set_up "$1" "$2" "$rate" "$state" 2>"$state/$1.error" || cannot "$(head -1 "$state/$1.error")"
}

printf '127.0.0.1 localhost\n10.97.0.1 host0\n10.97.0.2 host1\n' >"$state/hosts"
printf 'host0 slots=1\nhost1 slots=1\n' >"$state/hostfile"
printf '#!/bin/sh\nexec "%s" --rsh "$@"\n' "$self" >"$state/agent"
chmod +x "$state/agent"
hold host0
hold host1
ip link add name link0 netns "${pids[0]}" type veth peer name link0 netns "${pids[1]}" 2>"$state/error" ||
  cannot "$(head -1 "$state/error")"
set_up host0 10.97.0.1
set_up host1 10.97.0.2

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
(enter host0 "${MPIRUN:-mpirun}" --quiet --hostfile "$state/hostfile" --mca plm rsh --mca plm_rsh_agent "$state/agent" \
  --mca pml ob1 --mca btl self,vader,tcp --mca btl_tcp_if_include 10.97.0.0/24 --mca oob_tcp_if_include 10.97.0.0/24 \
  --bind-to none --mca mpi_yield_when_idle 1 -n 2 "$@")
