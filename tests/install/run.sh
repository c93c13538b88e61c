#!/usr/bin/env bash
# Installs a build to a temporary folder; looks at what is there; builds and runs outside projects against it: one that has
# headers of the names of ours, the program in README.md, the examples; runs the installed program.
set -euo pipefail

case ${1:-} in
  -h | --help) echo "usage: tests/install/run.sh [BUILD FOLDER]    checks \`cmake --install\` of it (default build/release)"; exit 0 ;;
esac
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
source=$(readlink -f "$here/../..")
build=${1:-$source/build/release}
[[ -f $build/CMakeCache.txt ]] || { echo "install/run.sh: no build in $build: cmake --preset release, and build it" >&2; exit 2; }
export LC_ALL=C
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
prefix=$temporary/prefix

die() {
  echo "install/run.sh: $1" >&2
  exit 1
}

# build_project FOLDER: configures and builds it against the installed package, in FOLDER/build.
build_project() {
  cmake -S "$1" -B "$1/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" >"$temporary/log" ||
    { cat "$temporary/log" >&2; exit 1; }
  cmake --build "$1/build"
}

# block LANGUAGE: the blocks ```LANGUAGE of README.md.
block() { awk -v begin="\`\`\`$1" '$0 == "```" { on = 0 } on; $0 == begin { on = 1 }' "$source/README.md"; }

cmake --install "$build" --prefix "$prefix" >/dev/null

# --- what is there ---
# The installed files must not name the folders they were built from.
if grep -rlF "$source" "$prefix" --include='*.cmake' --include='*.h' --include='*.1'; then die "these installed files name the source folder"; fi
# Nothing lies beside varscope/ for projects to stumble over, and no header beside the public ones and internal/.
[[ $(ls "$prefix/include") == varscope ]] || die "include/ has $(ls "$prefix/include")"
public=$(cd "$source/include/varscope" && printf '%s\n' *.h internal | sort)
[[ $(ls "$prefix/include/varscope") == "$public" ]] || die "include/varscope has $(ls "$prefix/include/varscope")"
if grep -vE '^(//.*|#include .*|#pragma once|)$' "$source"/include/varscope/*.h; then die "public headers have no code of their own"; fi
for library in "$prefix"/lib*/*.a "$prefix"/lib*/*/*.a; do
  [[ ! -e $library || ${library##*/} == libvarscope_*.a ]] || die "a library with a name that may collide: $library"
done
# Pages link to pages, pictures and examples that are there, but not to sources.
while IFS=: read -r page link; do
  target=$(dirname "$page")/${link%%#*}
  [[ -e $target ]] || die "${page#"$prefix/"} links to $link, which is not installed"
done < <(find "$prefix/share/doc" -name '*.md' -exec grep -oHE '\]\([^) ]+\)' {} + | sed -E 's/\]\(([^)]*)\)$/\1/' | grep -vE ':(https?:|#)')
empty=$(find "$prefix" -type d -empty)
[[ -z $empty ]] || die "empty folders are installed: $empty"
for file in README.md LICENSE CHANGELOG.md docs/design.md docs/examples/saver/main.cc; do
  [[ -f $prefix/share/doc/varscope/$file ]] || die "share/doc/varscope/$file is not installed"
done
[[ -f $prefix/share/varscope/examples/custom_layer/swish.cc ]] || die "the examples are not installed"
# The man page has every command; a system without help2man goes without.
page=$prefix/share/man/man1/varscope.1
if [[ -f $page ]]; then
  for command in train eval plan graph gradcheck config 'checkpoint export'; do
    grep -q "^.SS \"varscope $command " "$page" || die "the man page has no $command"
  done
  if command -v man >/dev/null; then
    warnings=$(LC_ALL=C man --warnings -E ascii -l "$page" 2>&1 >"$temporary/man") || die "man cannot show the page: $warnings"
    [[ -z $warnings ]] || die "the man page: $warnings"
    grep -q -- '--check-numerics' "$temporary/man" || die "the man page does not show train --check-numerics"
  fi
elif command -v help2man >/dev/null; then
  die "there is no man page"
fi
"$prefix/bin/varscope" completion bash | cmp - "$prefix/share/bash-completion/completions/varscope"
"$prefix/bin/varscope" completion zsh | cmp - "$prefix/share/zsh/site-functions/_varscope"

# --- projects of others ---
cp -r "$here" "$temporary/user"
build_project "$temporary/user"
"$temporary/user/build/varscope_user"
"$temporary/user/build/varscope_user_parts"
# What README.md shows is a project that prints what README.md says.
mkdir "$temporary/readme"
block cpp >"$temporary/readme/main.cc"
{
  printf 'cmake_minimum_required(VERSION 3.25)\nproject(readme LANGUAGES CXX)\nadd_compile_options(-Wall -Wextra -Werror)\n'
  block cmake
} >"$temporary/readme/CMakeLists.txt"
build_project "$temporary/readme"
"$temporary/readme/build/xor" >"$temporary/xor"
awk '/^```cpp$/ { cpp = 1 } cpp && /^```$/ { ++n; next } n == 2' "$source/README.md" | diff - "$temporary/xor" ||
  die "README.md shows another output of its program"
# A layer of one's own, as docs/custom_layers.md shows it; a model saved and restored, as docs/saver.md does.
cp -r "$prefix/share/varscope/examples/custom_layer" "$temporary/custom"
build_project "$temporary/custom"
cp -r "$prefix/share/varscope/examples/saver" "$temporary/saver"
build_project "$temporary/saver"
"$temporary/saver/build/my_saver" "$temporary/saved"

# --- the program, and one with a layer of one's own ---
cd "$temporary"
"$prefix/bin/varscope" --version
"$temporary/custom/build/my_varscope" config --explain >"$temporary/explained"
grep -q "type: swish" "$temporary/explained"
"$temporary/custom/build/my_varscope" gradcheck "$temporary/custom/digits_swish.yaml"
VARSCOPE=$temporary/custom/build/my_varscope "$prefix/share/varscope/launch/run_local.sh" -s 1 -w 2 \
  "$temporary/custom/digits_swish.yaml" --set output.progress=off
env -u VARSCOPE "$prefix/share/varscope/launch/run_local.sh" -s 1 -w 2 "$prefix/share/varscope/configs/digits_mlp.yaml" \
  --set train.epochs=1 --set output.progress=off
