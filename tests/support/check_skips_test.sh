#!/bin/bash
# check_skips lists each kind of skip with its reason, and fails for one that is not allowed.
# Code 77 without Python.
# usage: check_skips_test.sh PATH_OF_CHECK_SKIPS
set -u
check=$1
command -v python3 >/dev/null || { echo "python3 is not installed: skipped"; exit 77; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir "$root/release"
results=$root/release/tests.xml

fail() {
  echo "FAILED: $*"
  exit 1
}

# What ctest writes for a program that ran, for one with SKIP_RETURN_CODE, for one that is not there and for a disabled one.
ran() { printf '<testcase name="%s" status="run"><system-out>%s</system-out></testcase>\n' "$1" "$2"; }
skipped() { printf '<testcase name="%s" status="notrun"><skipped message="%s"/><system-out>%s</system-out></testcase>\n' "$@"; }
disabled() { printf '<testcase name="%s" status="disabled"><system-out></system-out></testcase>\n' "$1"; }
write() { { echo '<?xml version="1.0" encoding="UTF-8"?><testsuite>'; cat; echo '</testsuite>'; } >"$results"; }

# expect CODE LINE...: check_skips ends with it and prints these lines, and no others.
expect() {
  local code=$1 output
  shift
  output=$("$check" --allowed "$root/allowed" "$results" 2>&1)
  local found=$?
  [[ $found -eq $code ]] || fail "exit code $found instead of $code: $output"
  [[ $output == "$(printf '%s\n' "$@")" ]] || fail "printed
$output
instead of
$(printf '%s\n' "$@")"
}

passed='[ RUN      ] Sums.Add
[       OK ] Sums.Add (0 ms)
[  PASSED  ] 1 test.'
needs_root='[ RUN      ] Sums.Add
something about Sums.Add: Skipped by nobody
[       OK ] Sums.Add (0 ms)
[ RUN      ] Disks/Full.GivesUp/ext4
a line of the test
tests/fault/disk_test.cc:85: Skipped
needs root,
to mount &lt;a disk&gt;

[  SKIPPED ] Disks/Full.GivesUp/ext4 (12 ms)
[==========] 2 tests ran.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] Disks/Full.GivesUp/ext4'
line='Disks/Full.GivesUp/ext4 of disk_test (release): needs root, to mount <a disk>'

# Without skips.
echo '# nothing' >"$root/allowed"
ran sums_test "$passed" | write
expect 0 "skipped: 0 in all"

# A skip in a program that passed.
ran disk_test "$needs_root" | write
expect 1 "skipped, which is not allowed: $line" "skipped: 1 in all, 1 of them not allowed"
printf '%s\n' '# why' '' 'Disks/Full.*   needs root, to mount' >"$root/allowed"
expect 0 "skipped: $line" "skipped: 1 in all"
# Allowed for another reason, or another test: not this one.
echo 'Disks/Full.*  needs a moon' >"$root/allowed"
expect 1 "skipped, which is not allowed: $line" "skipped: 1 in all, 1 of them not allowed"
echo 'Disk/Full.*  needs root' >"$root/allowed"
expect 1 "skipped, which is not allowed: $line" "skipped: 1 in all, 1 of them not allowed"

# Skips that ctest knows, beside an allowed one.
echo 'Disks/*  needs root' >"$root/allowed"
{
  skipped check_format "SKIP_RETURN_CODE=77" "starts
clang-format is not installed: skipped
"
  ran disk_test "$needs_root"
  skipped lost_test "Unable to find executable" "Unable to find executable: /build/lost_test"
  disabled off_test
  ran sums_test "$passed
  YOU HAVE 2 DISABLED TESTS"
} | write
expect 1 "skipped, which is not allowed: check_format (release): clang-format is not installed: skipped" \
  "skipped: $line" \
  "skipped, which is not allowed: lost_test (release): Unable to find executable" \
  "skipped, which is not allowed: off_test (release): disabled" \
  "skipped, which is not allowed: 2 tests of sums_test (release): disabled in the source" \
  "skipped: 5 in all, 4 of them not allowed"

# What would hide skips is an error.
write </dev/null
expect 2 "check_skips: $results has no tests"
ran sums_test "...
The rest of the test output was removed since it exceeds the threshold of 1024 bytes." | write
expect 2 "check_skips: $results: the output of sums_test is cut off; give ctest a larger --test-output-size-passed"
echo 'Disks/*' >"$root/allowed"
expect 2 "check_skips: $root/allowed:1: a pattern needs words of the reason behind it"
echo >"$root/allowed"
rm "$results"
expect 2 "check_skips: cannot read $results: [Errno 2] No such file or directory: '$results'"
echo "all kinds of skips are found"
