#!/usr/bin/env bash
# Builds varscope, trains, kills a rank half way, resumes, and shows that the result has the same bits.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/quickstart.sh
Installs missing packages, builds varscope, and shows what it is for, in about a minute after the build:
  1. trains configs/digits_mlp.yaml with 1 server and 2 workers
  2. trains it again, and kills a worker half way (kill -9)
  3. resumes from the newest checkpoint and compares: the trained values have the same bits
Logs and checkpoints go to runs/quickstart-*. May be run again; fails if the bits differ.
Environment: VARSCOPE_QUICKSTART_EPOCHS (default 200).
TEXT
}

case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) echo "quickstart.sh: unknown argument $1; see --help" >&2; exit 2 ;;
esac

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
epochs=${VARSCOPE_QUICKSTART_EPOCHS:-200}
[[ $epochs =~ ^[1-9][0-9]*$ ]] || { echo "quickstart.sh: VARSCOPE_QUICKSTART_EPOCHS=$epochs is not a number" >&2; exit 2; }
unset VARSCOPE
job=''
trap '[[ -z $job ]] || kill -TERM "$job" 2>/dev/null || true' EXIT

# fail TEXT [LOG]
fail() {
  [[ -z ${2:-} ]] || { grep -m 3 -E "error:|Error" "$2" || tail -n 5 "$2"; } >&2
  echo "quickstart.sh: $1${2:+; all of its output is in $2}" >&2
  exit 1
}

build() {
  tools/install_packages.sh
  mkdir -p build runs
  local log=build/quickstart.log
  echo "build: cmake --preset release && cmake --build --preset release (a few minutes the first time)"
  cmake --preset release >"$log" 2>&1 || fail "cmake could not configure" "$log"
  cmake --build --preset release --target varscope >>"$log" 2>&1 || fail "it does not build" "$log"
}

# train_command NAME [ARGUMENTS]: fills `command` with the digits job, long enough to be interrupted.
train_command() {
  local name=$1
  shift
  command=(launch/run_local.sh -s 1 -w 2 configs/digits_mlp.yaml --set "job.run_dir=runs/quickstart-$name" \
    --set "train.epochs=$epochs" --set train.eval_every_epochs=10 --set checkpoint.every_steps=1000 \
    --set output.progress=off "$@")
}

# train NAME [ARGUMENTS]: runs it, for five minutes at most; its output goes to runs/quickstart-NAME.log.
train() {
  train_command "$@"
  timeout 300 "${command[@]}" >"runs/quickstart-$1.log" 2>&1
}

show() { sed -n -E "$1" "runs/quickstart-$2.log" | sed 's/^ */    /'; }
steps_in_all() { sed -n -E 's/.* ([0-9,]+) steps in all$/\1/p' "runs/quickstart-$1.log" | tr -d ,; }
values_hash() { sed -n -E 's/^ *values hash +([0-9a-f]+)$/\1/p' "runs/quickstart-$1.log"; }

# The step of the newest whole checkpoint: a checkpoint gets its name when all of it is on disk.
newest_step() {
  local newest=0 dir step
  for dir in "runs/quickstart-$1/checkpoints"/step-*; do
    step=${dir##*/step-}
    [[ $step =~ ^[0-9]+$ && $((10#$step)) -gt $newest ]] && newest=$((10#$step))
  done
  echo "$newest"
}

# The processes whose parent is $1, one a line.
children() { grep -slx $'PPid:\t'"$1" /proc/[0-9]*/status | tr -dc '0-9\n' || true; }

# kill_rank RANK [PROCESS]: kill -9 of that rank, below this process (default: the job $job). Ranks are the children of mpirun, which
# is below run_local.sh.
kill_rank() {
  local pid
  for pid in $(children "${2:-$job}"); do
    if grep -qsxz "OMPI_COMM_WORLD_RANK=$1" "/proc/$pid/environ"; then
      kill -KILL "$pid"
      return 0
    fi
    if kill_rank "$1" "$pid"; then return 0; fi
  done
  return 1
}

build
# Of an earlier quickstart: its checkpoints must not be taken for those of this one.
rm -rf runs/quickstart-straight runs/quickstart-killed
echo
echo "1. Train digits_mlp on 1 server and 2 workers"
train straight --fresh || fail "training failed" runs/quickstart-straight.log
show '/^ *(ranks|model|data) /p; /^finished/p; /^ *(test|values hash) /p' straight

half=$(($(steps_in_all straight) / 2))
echo
echo "2. Train it again, and kill -9 a worker after step $half"
train_command killed --fresh
"${command[@]}" >runs/quickstart-killed.log 2>&1 &
job=$!
deadline=$((SECONDS + 120))
while [[ $(newest_step killed) -lt $half ]]; do
  kill -0 "$job" 2>/dev/null || fail "the job ended before it could be killed" runs/quickstart-killed.log
  [[ $SECONDS -lt $deadline ]] || fail "no checkpoint of step $half within two minutes" runs/quickstart-killed.log
  sleep 0.02
done
kill_rank 2 || fail "no rank to kill: the job is over; try VARSCOPE_QUICKSTART_EPOCHS=$((epochs * 3))" runs/quickstart-killed.log
status=0
wait "$job" || status=$?
job=''
[[ $status -ne 0 ]] || fail "the job ended well although a rank was killed" runs/quickstart-killed.log
echo "    the job ended with code $status; its newest checkpoint is of step $(newest_step killed)"

echo
echo "3. Resume"
mv runs/quickstart-killed.log runs/quickstart-killed-first.log
train killed --resume || fail "resuming failed" runs/quickstart-killed.log
show '/^ *start /p; /^finished/p; /^ *(test|values hash) /p' killed

echo
expected=$(values_hash straight)
found=$(values_hash killed)
[[ -n $expected && $expected == "$found" ]] ||
  fail "the values differ: ${expected:-none} without the kill, ${found:-none} with it"
echo "Killed and resumed, the run ended with the same bits: $found"
