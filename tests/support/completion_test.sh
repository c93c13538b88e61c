#!/bin/bash
# The completion script that the program prints, as bash calls it: what is offered for a command line up to the cursor.
# usage: completion_test.sh VARSCOPE_BINARY
set -u
export LC_ALL=C
varscope=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cd "$root" || exit 2
mkdir -p runs/a "my jobs" train
touch a.yaml b.yml "my jobs/c d.yaml" notes.txt

fail() {
  echo "FAILED: $*"
  exit 1
}

"$varscope" completion bash >script.sh || fail "completion bash ends with $?"
# shellcheck disable=SC1091
source ./script.sh
name=_$(basename "$varscope")
complete -p "$(basename "$varscope")" | grep -q -- "-F $name " || fail "nothing is registered: $(complete -p)"

# offers EXPECTED WORD...: one answer a line, sorted; the last word is being typed. Words as bash breaks them, at '='.
offers() {
  local expected=$1 found
  shift
  COMP_WORDS=(varscope "$@")
  COMP_CWORD=$#
  COMPREPLY=(left over)
  "$name"
  found=$(printf '%s\n' "${COMPREPLY[@]}" | sort)
  [[ $found == "$(printf '%s\n' "$expected" | sort)" ]] || fail "varscope $*: offers ${found//$'\n'/, } instead of ${expected//$'\n'/, }"
}
lines() { printf '%s\n' "$@"; }

# Commands, also where a folder has the name of one.
offers "$(lines checkpoint config data eval gradcheck graph ingest init neighbors plan predict serve train)" ''
offers train tr
offers "$(lines diff export import inspect list pin prune reshard rollback verify)" checkpoint ''
offers "$(lines pin prune)" checkpoint p
offers '' nosuch

# Options are those that --help shows, everywhere.
for command in '' train eval neighbors plan graph gradcheck config init ingest 'data show' checkpoint 'checkpoint prune' 'checkpoint import'; do
  # shellcheck disable=SC2086
  offers "$("$varscope" $command --help | grep -oE '^  (-[a-z], )?--[a-z-]+' | grep -oE -- '--[a-z-]+')" $command --
done
offers --check-numerics train --ch
offers --resume train a.yaml --res

# Files: YAML where a config is due, else any; nothing beyond the last positional.
offers "$(lines a.yaml b.yml 'my jobs' runs train)" train ''
offers "$(lines a.yaml b.yml 'my jobs' runs train)" train --fresh --set train.epochs = 3 ''
offers 'my jobs/c d.yaml' train 'my jobs/'
offers '' train a.yaml ''
offers "$(lines a.yaml b.yml 'my jobs' notes.txt runs script.sh train)" checkpoint diff ''
offers "$(lines a.yaml b.yml 'my jobs' notes.txt runs script.sh train)" checkpoint diff runs/a ''
offers "$(lines 'my jobs' runs train)" checkpoint list ''
offers '' checkpoint rollback runs ''
offers runs/a train a.yaml --resume = runs/
offers notes.txt eval a.yaml --checkpoint no
offers "$(lines 'my jobs' runs train)" train a.yaml --replay ''

# Values of options: keys, choices, files, nothing for a number.
offers "$(lines checkpoint.keep= checkpoint.keep_best.count= checkpoint.keep_best.metric= checkpoint.keep_best.mode= \
  checkpoint.keep_every_hours= checkpoint.keep_every_steps=)" train a.yaml --set checkpoint.keep
offers '' train a.yaml --set train.epochs = ''
offers train.epochs config a.yaml --get train.ep
offers npz checkpoint export runs/a out --format n
offers "$(lines npz safetensors tf)" checkpoint export runs/a out --format ''
offers npz checkpoint export runs/a out --format = n
offers notes.txt graph a.yaml --dot no
offers '' plan --servers ''
offers runs/a neighbors runs/
offers '' neighbors runs/a ''
offers "$(lines a.yaml b.yml 'my jobs' runs train)" plan --servers 3 ''
# A shell that does not break words at '=' wants the whole word.
offers --resume=runs/a train a.yaml --resume=runs/

# Shells without completion of ours.
"$varscope" completion fish 2>err && fail "fish is taken"
grep -q '"fish" is not a shell we complete in; there are bash, zsh' err || fail "$(cat err)"
zsh=$("$varscope" completion zsh)
[[ $zsh == "#compdef $(basename "$varscope")"* ]] || fail "zsh: ${zsh:0:200}"
"$varscope" --help | grep -q completion && fail "completion is listed"
exit 0
