#!/usr/bin/env bash
# Installs a build to a temporary folder; builds and runs an outside project against it; runs the installed program.
set -euo pipefail

case ${1:-} in
  -h | --help) echo "usage: tests/install/run.sh [BUILD FOLDER]    checks \`cmake --install\` of it (default build/release)"; exit 0 ;;
esac
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
build=${1:-$here/../../build/release}
[[ -f $build/CMakeCache.txt ]] || { echo "install/run.sh: no build in $build: cmake --preset release, and build it" >&2; exit 2; }
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
prefix=$temporary/prefix

cmake --install "$build" --prefix "$prefix" >/dev/null
# The installed files must not name the folders they were built from.
if grep -rlF "$(readlink -f "$here/../..")" "$prefix" --include='*.cmake' --include='*.h'; then
  echo "install/run.sh: these installed files name the source folder" >&2
  exit 1
fi
cmake -S "$here" -B "$temporary/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" >"$temporary/log" ||
  { cat "$temporary/log" >&2; exit 1; }
cmake --build "$temporary/build"
"$temporary/build/varscope_user"
"$temporary/build/varscope_user_all"
"$prefix/bin/varscope" --version
# A layer of one's own, as docs/custom_layers.md shows it.
cp -r "$here/../../docs/examples/custom_layer" "$temporary/custom"
cmake -S "$temporary/custom" -B "$temporary/custom/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" \
  >"$temporary/log" || { cat "$temporary/log" >&2; exit 1; }
cmake --build "$temporary/custom/build"
# A model of one's own, saved and restored, as docs/saver.md shows it.
cp -r "$here/../../docs/examples/saver" "$temporary/saver"
cmake -S "$temporary/saver" -B "$temporary/saver/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" \
  >"$temporary/log" || { cat "$temporary/log" >&2; exit 1; }
cmake --build "$temporary/saver/build"
"$temporary/saver/build/my_saver" "$temporary/saved"
cd "$temporary"
"$temporary/custom/build/my_varscope" config --explain >"$temporary/explained"
grep -q "type: swish" "$temporary/explained"
"$temporary/custom/build/my_varscope" gradcheck "$temporary/custom/digits_swish.yaml"
VARSCOPE=$temporary/custom/build/my_varscope "$prefix/share/varscope/launch/run_local.sh" -s 1 -w 2 \
  "$temporary/custom/digits_swish.yaml" --set output.progress=off
env -u VARSCOPE "$prefix/share/varscope/launch/run_local.sh" -s 1 -w 2 "$prefix/share/varscope/configs/digits_mlp.yaml" \
  --set train.epochs=1 --set output.progress=off
