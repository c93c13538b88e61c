# What run_local.sh and run_hostfile.sh share; sourced, not run. Each defines usage() first.
# shellcheck shell=bash disable=SC2034
script=${0##*/}
launch_dir=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
servers='' workers='' hostfile='' config='' train_args=()

die() {
  echo "$script: $1" >&2
  exit 2
}

is_count() { [[ $1 =~ ^[1-9][0-9]{0,6}$ ]]; }

# take_option LETTER VALUE
take_option() {
  [[ $allowed == *$1* ]] || die "there is no -$1; see --help"
  case $1 in
    s) is_count "$2" || die "-s is the number of servers, 1 or more, not '$2'"; servers=$2 ;;
    w) is_count "$2" || die "-w is the number of workers, 1 or more, not '$2'"; workers=$2 ;;
    f) hostfile=$2 ;;
  esac
}

# parse_arguments OPTIONS "$@": options of ours, the config and arguments for `varscope train`, in any order, into the variables
# above; OPTIONS names the letters allowed. Of ours are -s 1, -s1, -s=1, --servers 1, --servers=1, and so on.
parse_arguments() {
  local allowed=$1 letter value
  shift
  while [[ $# -gt 0 ]]; do
    letter=''
    case $1 in
      -h | --help) usage; exit 0 ;;
      -n | -np | --np | -c) die "there is no $1: say -s SERVERS -w WORKERS; the ranks are both together" ;;
      -s | -w | -f) letter=${1#-} ;;
      --servers | --workers) letter=${1:2:1} ;;
      --hostfile | -hostfile | --machinefile | -machinefile) letter=f ;;
      --servers=* | --workers=*) letter=${1:2:1} value=${1#*=} ;;
      --hostfile=* | --machinefile=*) letter=f value=${1#*=} ;;
      -[swf]=*) letter=${1:1:1} value=${1#*=} ;;
      -[swf]?*) letter=${1:1:1} value=${1:2} ;;
      --set)
        train_args+=("$1")
        if [[ $# -ge 2 ]]; then train_args+=("$2"); shift; fi ;;
      --resume)
        # Its value may be a word of its own where it cannot be the config.
        if [[ $# -ge 2 && ($2 == latest || -d $2 || (-n $config && $2 != -*)) ]]; then
          train_args+=("$1=$2")
          shift
        else
          train_args+=("$1")
        fi ;;
      --) shift; [[ $# -eq 0 || -n $config ]] || { config=$1; shift; }; train_args+=("$@"); break ;;
      -*) train_args+=("$1") ;;  # `varscope train` knows whether it is one
      *) if [[ -z $config ]]; then config=$1; else train_args+=("$1"); fi ;;
    esac
    if [[ -n $letter && ($1 == -? || $1 == --servers || $1 == --workers || $1 == -*file) ]]; then
      [[ $# -ge 2 ]] || die "$1 needs a value; see --help"
      value=$2
      shift
    fi
    [[ -z $letter ]] || take_option "$letter" "$value"
    shift
  done
  [[ -n $config ]] || die "name a config, for example configs/digits_mlp.yaml; see --help"
  [[ $config != train ]] || die "leave out \`train\`: this script adds it"
  [[ -f $config && -r $config ]] || die "cannot read the config $config"
  [[ -n $servers ]] || die "say how many servers: -s S"
  local argument
  for argument in ${train_args[@]+"${train_args[@]}"}; do
    case $argument in
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
  mpirun+=(${extra[@]+"${extra[@]}"})
}

# The command that goes on with this job; the arguments are how this script was called, up to the config.
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

# run_job CALLED...: runs $program under `mpirun` as `varscope launch` does: what it prints, signals, and the end, with the
# command that goes on; CALLED is how this script was called, up to the config.
run_job() {
  # shellcheck disable=SC2154
  exec "$program" launch --script "$script" --go-on "$(resume_command "$@")" "${mpirun[@]/#/--mpirun=}" -- \
    train "$config" --set "cluster.servers=$servers" ${train_args[@]+"${train_args[@]}"}
}
