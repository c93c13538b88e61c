#!/usr/bin/env bash
# Installs the Debian 12 packages that varscope needs; touches neither apt nor the network when all are there.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tools/install_packages.sh [--dev]
Installs what building, running and testing varscope needs (Debian 12), as root or through sudo.
  --dev   also what only its developers, and the tests that are skipped otherwise, need: clang-format, clang-tidy,
          clang with libFuzzer, shellcheck, gcovr, strace, git, curl, Python with NumPy, mkfs.ext4, mount, Doxygen
TEXT
}

# One line per purpose: compiler and build; MPI; libraries, in the order of cmake/VarscopeDependencies.cmake; tests.
packages=(
  build-essential cmake ninja-build pkg-config ccache ca-certificates
  libopenmpi-dev openmpi-bin openssh-client
  libboost-serialization-dev libyaml-cpp-dev libcli11-dev libfmt-dev libspdlog-dev zlib1g-dev
  libopenblas-pthread-dev nlohmann-json3-dev libxxhash-dev libisal-dev libprotobuf-dev protobuf-compiler libleveldb-dev
  libsimdjson-dev prometheus-cpp-dev
  libgtest-dev libgmock-dev libbenchmark-dev help2man
)
dev_packages=(clang-format clang-tidy-19 clang-19 libclang-rt-19-dev shellcheck gcovr strace git curl python3 python3-numpy e2fsprogs mount doxygen
  haproxy nghttp2-client)

case ${1:-} in
  '') ;;
  --dev) packages+=("${dev_packages[@]}") ;;
  -h | --help) usage; exit 0 ;;
  *) echo "install_packages.sh: unknown option $1; see --help" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install_packages.sh: this is not Debian; install the equivalents of: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "packages: all ${#packages[@]} are installed"
  exit 0
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null ||
    { echo "install_packages.sh: not root, and no sudo; ask an administrator for: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "packages: installing ${missing[*]}"
"${as_root[@]}" apt-get -qq update ||
  { echo "install_packages.sh: apt-get update failed (no network?); still missing: ${missing[*]}" >&2; exit 1; }
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" ||
  { echo "install_packages.sh: apt-get could not install: ${missing[*]}" >&2; exit 1; }
