# What run_local.sh and run_hostfile.sh share; sourced, not run. Each defines usage() first.
# shellcheck shell=bash disable=SC2034
script=${0##*/}
launch_dir=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
servers='' workers='' hostfile='' config='' train_args=()
child='' got_signal='' interrupted=no

die() {
  echo "$script: $1" >&2
  exit 2
}

is_count() { [[ $1 =~ ^[1-9][0-9]{0,6}$ ]]; }

# parse_arguments OPTIONS "$@": `[-f FILE] -s S -w W CONFIG [ARGS]` into the variables above; OPTIONS names the letters allowed.
parse_arguments() {
  local allowed=$1
  shift
  while [[ $# -gt 0 ]]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      -n | -np | --np | -c) die "there is no $1: say -s SERVERS -w WORKERS; the ranks are both together" ;;
      -s | -w | -f)
        [[ $allowed == *${1#-}* ]] || die "there is no $1; see --help"
        [[ $# -ge 2 ]] || die "$1 needs a value; see --help"
        case $1 in
          -s) is_count "$2" || die "-s is the number of servers, 1 or more, not '$2'"; servers=$2 ;;
          -w) is_count "$2" || die "-w is the number of workers, 1 or more, not '$2'"; workers=$2 ;;
          -f) hostfile=$2 ;;
        esac
        shift 2 ;;
      -*) die "unknown option $1; arguments for \`varscope train\` come after the CONFIG; see --help" ;;
      *) break ;;
    esac
  done
  [[ $# -gt 0 ]] || die "name a config, for example configs/digits_mlp.yaml; see --help"
  config=$1
  [[ $config != train ]] || die "leave out \`train\`: this script adds it"
  [[ -f $config && -r $config ]] || die "cannot read the config $config"
  [[ -n $servers ]] || die "say how many servers: -s S"
  shift
  train_args=("$@")
  local argument
  for argument in "$@"; do
    case $argument in
      -s | -w | -f | -n | -np) die "$argument belongs before the config" ;;
      cluster.servers=* | --set=cluster.servers=*) die "$argument: the number of servers is what -s says" ;;
    esac
  done
}

# The program: $VARSCOPE, or the build or the installation that this script belongs to, or the one on PATH.
find_varscope() {
  local candidate
  if [[ -n ${VARSCOPE:-} ]]; then
    [[ -f $VARSCOPE && -x $VARSCOPE ]] || die "VARSCOPE=$VARSCOPE is not a program"
    readlink -f "$VARSCOPE"
    return
  fi
  for candidate in "$launch_dir/../build/release/bin/varscope" "$launch_dir/../../../bin/varscope"; do
    if [[ -x $candidate ]]; then
      readlink -f "$candidate"
      return
    fi
  done
  command -v varscope ||
    die "no varscope program: build it (cmake --preset release && cmake --build --preset release) or set VARSCOPE"
}

# set_mca NAME VALUE: a default for mpirun and all ranks, which the environment and VARSCOPE_MPIRUN_ARGS can override (mpirun refuses
# a parameter that its command line has twice).
set_mca() { [[ -v OMPI_MCA_$1 ]] || export "OMPI_MCA_$1=$2"; }

# Fills `mpirun` with the command and the options that every job of ours has. MPIRUN and VARSCOPE_MPIRUN_ARGS are lists of words.
prepare_mpirun() {
  read -ra mpirun <<<"${MPIRUN:-mpirun}"
  command -v "${mpirun[0]}" >/dev/null || die "no ${mpirun[0]} here; tools/install_packages.sh installs Open MPI"
  if [[ $(id -u) -eq 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  # PMIx, below mpirun and in every rank, may close a socket that libevent's epoll still knows when a rank dies, and libevent
  # prints a line about it that says nothing to users. Its poll does not; PMIx has few sockets, and MPI's own loop is no epoll.
  export EVENT_NOEPOLL=1
  local extra
  read -ra extra <<<"${VARSCOPE_MPIRUN_ARGS:-}"
  # Ranks wait for each other: they must not be bound to one core.
  set_mca hwloc_base_binding_policy none
  set_mca btl_base_warn_component_unused 0
  mpirun+=(--quiet ${extra[@]+"${extra[@]}"})
}

# mpirun's own answer to SIGTERM leaves its ranks a second, often not enough for a checkpoint: the first one asks for
# a checkpoint and the end, the second one is handed on.
forward() {
  local signal=$1
  if [[ $signal == TERM && $got_signal != USR2 ]]; then
    signal=USR2
    echo "$script: got SIGTERM: the job makes a checkpoint and ends; a second SIGTERM ends it at once" >&2
  fi
  [[ $signal == USR1 ]] || got_signal=$signal  # USR1 makes a checkpoint and does not end the job
  interrupted=yes
  [[ -z $child ]] || kill -"$signal" "$child" 2>/dev/null || true
}

# The command that goes on with this job; $1 is how this script was called, up to the config.
resume_command() {
  local words=("$@" "$config") argument
  for argument in ${train_args[@]+"${train_args[@]}"}; do
    case $argument in
      --fresh | --resume | --resume=*) ;;
      *) words+=("$argument") ;;
    esac
  done
  printf '%q ' "${words[@]}"
  echo --resume
}

# run_job COMMAND...: runs it to its end, hands on signals, and returns its status in `status`. It gets a process group of its own, so that
# Ctrl-C in a terminal reaches mpirun once, through us: a second one would make it leave ranks behind.
run_job() {
  local name
  for name in INT TERM USR1 USR2 HUP; do
    # shellcheck disable=SC2064
    trap "forward $name" "$name"
  done
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  if [[ -n $got_signal ]]; then kill -"$got_signal" "$child" 2>/dev/null || true; fi
  while :; do
    interrupted=no
    status=0
    wait "$child" 2>/dev/null || status=$?
    [[ $interrupted == yes ]] || break
  done
}

# Our own codes below 6 want an edit before a restart; everything else came from a signal, from mpirun, or from a code of
# ours of 10 and above.
hint_and_exit() {
  [[ $status -ne 126 && $status -ne 127 ]] || exit "$status"  # the program could not be started
  if [[ $status -gt 5 || ($status -ne 0 && -n $got_signal) ]]; then
    echo "$script: the job ended with code $status; to go on from its newest checkpoint: $(resume_command "$@")" >&2
  fi
  exit "$status"
}
