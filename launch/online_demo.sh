#!/usr/bin/env bash
# A model that learns from clicks as they come and answers requests at the same time, through everything that goes wrong on the way.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/online_demo.sh [--seconds S] [--rate CLICKS_PER_SECOND] [--dir DIR]
Runs, for S seconds (60):
  a generator of clicks -> varscope ingest -> a directory of files
  a training job of 1 server and 2 workers that follows it (configs/online_clicks.yaml)
  two replicas of varscope serve, and a client that asks them all the time
On the way a worker is killed and the job resumes, a replica is killed and started again, and half way the meaning of a click is
reversed: the progressive loss rises, and the replicas keep the last good version until the model has learnt again.
At the end one table. Fails if a request failed, or if not every click was learnt exactly once.
Files go to DIR (runs/online_demo), which is emptied first. Needs a built varscope (launch/quickstart.sh) and curl.
Environment: VARSCOPE (the program).
TEXT
}

die() { echo "online_demo.sh: $1" >&2; exit "${2:-1}"; }

seconds=60 rate=600 dir=runs/online_demo
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --seconds | --rate | --dir) [[ $# -ge 2 ]] || die "$1 needs a value; see --help" 2
      printf -v "${1#--}" %s "$2"; shift 2 ;;
    *) die "unknown argument $1; see --help" 2 ;;
  esac
done
[[ $seconds =~ ^[1-9][0-9]*$ && $seconds -ge 30 ]] || die "--seconds $seconds: a number, at least 30" 2
[[ $rate =~ ^[1-9][0-9]*$ ]] || die "--rate $rate: a number of clicks a second" 2
command -v curl >/dev/null || die "needs curl: apt-get install curl"

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
# shellcheck source=launch/mpirun_support.sh
. "$root/launch/mpirun_support.sh"
program=$(find_varscope)
export VARSCOPE=$program
[[ ! -e $dir || -e $dir/.online_demo ]] || die "$dir is there and was not made by this script; name another --dir"
rm -rf "$dir"
mkdir -p "$dir"
: >"$dir/.online_demo"
dir=$(cd "$dir" && pwd)
name=online_clicks

declare -A pids=()
end_all() {
  local pid
  touch "$dir/over"
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do
    for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  done
}
trap end_all EXIT

now() { date +%s.%N; }
started=$(now)
since_start() { awk -v a="$started" -v b="$(now)" 'BEGIN {printf "%5.1f s", b - a}'; }
say() { echo "$(since_start)  $*"; }

# Clicks on ads by users, some of whom nobody has seen before: each word adds to the log-odds of a click. From the moment that
# $dir/flip exists a click means the opposite.
generate() {
  awk -v rate="$rate" -v seconds="$seconds" -v flip="$dir/flip" '
    function clock(  t) { "date +%s.%N" | getline t; close("date +%s.%N"); return t }
    BEGIN {
      srand(17)
      print "at,user,ad,clicked"
      begun = clock()
      while (1) {
        at = clock()
        if (at - begun >= seconds) break
        if (!flipped && (getline line < flip) >= 0) flipped = 1
        due = int((at - begun) * rate)
        for (; made < due; ++made) {
          user = int(rand() * rand() * (200 + made / 200)); ad = int(rand() * 40)
          odds = ((user * 7919) % 13 - 6) / 3 + ((ad * 104729) % 11 - 5) / 2.5
          click = rand() < 1 / (1 + exp(-odds))
          if (flipped) click = !click
          printf "%s,u%d,a%d,%d\n", at, user, ad, click
        }
        fflush()
        system("sleep 0.1")
      }
      print made > "/dev/stderr"
    }'
}

# The training job, begun again until its stream has ended. Its exit codes go to a file.
train() {
  local status resume=()
  while true; do
    status=0
    "$root/launch/run_local.sh" -s 1 -w 2 "$root/configs/online_clicks.yaml" --set "job.run_dir=$dir/run" \
      --set "data.train.follow=$dir/stream" --set output.progress=off "${resume[@]}" >>"$dir/train.log" 2>&1 || status=$?
    echo "$status" >>"$dir/train.codes"
    [[ $status -ne 0 && ! -e $dir/over ]] || return 0
    compgen -G "$dir/run/checkpoints/step-*" >/dev/null && resume=(--resume) || resume=(--fresh)
  done
}

# serve K: replica K, on a free port the first time and on the same one again.
declare -A ports=()
serve() {
  local log="$dir/serve-$1.log"
  : >>"$log"  # it may be read before the replica has run at all
  "$program" serve "$dir/run" --name "$name" --listen "127.0.0.1:${ports[$1]:-0}" --poll-ms 500 \
    --require 'progressive_loss_window<=0.66' >>"$log" 2>&1 &
  pids[serve-$1]=$!
  disown $!
  for _ in {1..100}; do
    ports[$1]=$(sed -n -E 's#^listening on http://127.0.0.1:([0-9]+),.*#\1#p' "$log" | tail -n 1)
    [[ -z ${ports[$1]} ]] || return 0
    sleep 0.1
  done
  die "replica $1 did not start: $(tail -n 1 "$log")"
}

# One value of a checkpoint's METRICS, by its step.
metric() {
  local file
  file=$(printf '%s/run/checkpoints/step-%09d/METRICS' "$dir" "$1")
  sed -n -E "s/.*\"$2\":([0-9.eE+-]+).*/\1/p" "$file" 2>/dev/null | head -n 1
}

# Asks the replicas in turn, and the other one where one is gone, as a balancer does. A line for each request: time, version, and who
# answered, or "failed".
ask() {
  local n=0 body k answer version seen='' event addresses=("$@")
  while [[ ! -e $dir/over ]]; do
    n=$((n + 1))
    body="{\"inputs\": [{\"name\": \"user\", \"shape\": [1], \"datatype\": \"BYTES\", \"data\": [\"u$((RANDOM % 300))\"]},
      {\"name\": \"ad\", \"shape\": [1], \"datatype\": \"BYTES\", \"data\": [\"a$((RANDOM % 40))\"]}]}"
    version=''
    for k in $((n % 2)) $(((n + 1) % 2)); do
      answer=$(curl -s --fail --max-time 5 -d "$body" "http://127.0.0.1:${addresses[k]}/v2/models/$name/infer" || true)
      version=$(sed -n -E 's/.*"model_version":"([0-9]+)".*/\1/p' <<<"$answer")
      [[ -z $version ]] || break
    done
    echo "$(now) ${version:-failed} $k" >>"$dir/requests"
    if [[ -n $version && $version != "$seen" && $version -gt ${seen:-0} ]]; then
      seen=$version
      event=$(metric "$version" event_time)
      [[ -z $event ]] || echo "$(now) $version $event" >>"$dir/freshness"
    fi
    sleep 0.02
  done
}

# kill_worker: kill -9 of the rank with the highest number.
kill_worker() {
  local pid
  for pid in $(grep -slz "OMPI_COMM_WORLD_RANK=2" /proc/[0-9]*/environ 2>/dev/null | tr -dc '0-9\n'); do
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "train .*$dir/run"; then
      kill -KILL "$pid" && return 0
    fi
  done
  return 1
}

wait_for() { # wait_for SECONDS WHAT COMMAND...
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [[ $SECONDS -lt $deadline ]] || die "$what did not happen; the logs are in $dir"
    sleep 0.1
  done
}
at_second() { awk -v a="$started" -v b="$(now)" -v t="$1" 'BEGIN {exit !(b - a >= t)}'; }
is_ready() { curl -s --fail -o /dev/null "http://127.0.0.1:${ports[$1]}/v2/health/ready"; }
loss() { sed -n -E 's/.*"progressive_loss_window":([0-9.]+).*/\1/p' "$dir/run/metrics.jsonl" 2>/dev/null | tail -n 1 | sed -E 's/^([0-9]+\.[0-9]{4}).*/\1/'; }
served() { tail -n 1 "$dir/requests" 2>/dev/null | cut -d ' ' -f 2; }
show() { say "$1: progressive loss of the last 4,000 clicks $(loss), served version $(served), requests $(wc -l <"$dir/requests")"; }

echo "Clicks: $rate a second for $seconds s; files, logs and checkpoints in $dir"
mkdir "$dir/stream"
generate 2>"$dir/generated" | "$program" ingest --from - --to "$dir/stream" --header --end --max-seconds 1 >"$dir/ingest.log" 2>&1 &
pids[ingest]=$!
train &
pids[train]=$!
serve 0
serve 1
wait_for 60 "the first version that is good enough" is_ready 0
wait_for 60 "the first version that is good enough" is_ready 1
ask "${ports[0]}" "${ports[1]}" &
pids[ask]=$!
say "both replicas serve"
wait_for "$seconds" "a quarter of the time" at_second $((seconds / 4))
show "a quarter"

kill_worker || die "found no worker to kill"
say "kill -9 of a worker; the job resumes from its newest checkpoint"
wait_for "$seconds" "three eighths of the time" at_second $((seconds * 3 / 8))
kill -KILL "${pids[serve-1]}"
say "kill -9 of a replica; the other one answers"
sleep 2
serve 1
say "it is started again"
wait_for "$seconds" "half the time" at_second $((seconds / 2))
show "half"
before=$(loss)

touch "$dir/flip"
say "from now on a click means the opposite"
wait_for "$seconds" "five eighths of the time" at_second $((seconds * 5 / 8))
show "the model is wrong"
wait "${pids[ingest]}" || die "ingest failed: $(tail -n 1 "$dir/ingest.log")"
unset 'pids[ingest]'
say "no more clicks"
wait "${pids[train]}" || true
unset 'pids[train]'
last=$(sed -n -E 's/^finished at step ([0-9]+) .*/\1/p' "$dir/train.log" | tail -n 1)
[[ -n $last ]] || die "the training job did not finish; see $dir/train.log"
serves_last() { [[ $(served) == "$last" ]]; }
wait_for 30 "serving the last version" serves_last
show "the end"
touch "$dir/over"
wait "${pids[ask]}" || true
unset 'pids[ask]'

generated=$(tr -dc 0-9 <"$dir/generated")
learnt=$(sed -n -E 's/^  stream +([0-9,]+) records learnt .*/\1/p' "$dir/train.log" | tail -n 1 | tr -d ,)
worst=$(sed -n -E 's/.*"progressive_loss_window":([0-9.]+).*/\1/p' "$dir/run/metrics.jsonl" | sort -g | tail -n 1 | sed -E 's/^([0-9]+\.[0-9]{4}).*/\1/')
failed=$(grep -c failed "$dir/requests" || true)
versions() { awk '$2 != "failed" {print $2}' "$dir/requests" | sort -un | wc -l; }
fresh() { awk '{print $1 - $3}' "$dir/freshness" | sort -g | awk -v q="$1" '{v[NR] = $1} END {i = int(q * NR); printf "%.1f", v[i < NR ? i + 1 : NR]}'; }
held() { awk 'prev != "" && $1 - prev > most {most = $1 - prev} {prev = $1} END {printf "%.0f", most}' "$dir/freshness"; }
echo
printf '%-44s %s\n' \
  "clicks generated, learnt" "$generated, $learnt" \
  "starts of the training job" "$(wc -l <"$dir/train.codes") (codes $(paste -sd ' ' "$dir/train.codes"))" \
  "progressive loss: before, worst, at the end" "$before, $worst, $(loss)" \
  "longest time that a version was held" "$(held) s" \
  "versions that answered" "$(versions)" \
  "from event to served: median, 95 %" "$(fresh 0.5) s, $(fresh 0.95) s" \
  "requests, failed" "$(wc -l <"$dir/requests"), $failed"
[[ $generated == "$learnt" ]] || die "not every click was learnt once: $generated generated, $learnt learnt"
[[ $failed -eq 0 ]] || die "$failed requests failed; see $dir/requests"
