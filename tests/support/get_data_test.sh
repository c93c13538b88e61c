#!/bin/bash
# launch/get_data.sh text8 over a mirror in a folder: what it leaves, what it refuses with which words, and that
# configs/text8_lstm.yaml trains on it.
# usage: get_data_test.sh SOURCE_FOLDER VARSCOPE_BINARY
set -u
source=$1 varscope=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cd "$root" || exit 2
export VARSCOPE_DATA=$root/data VARSCOPE_DATA_MIRROR=file://$root/mirror
head=data/text8/text8.split.head
mkdir -p mirror/text8

fail() {
  echo "FAILED: $*"
  exit 1
}

le() { printf '%b' "$(printf '\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)))"; }

# A zip archive of the file text8: a local header, the deflated bytes, and a directory that lists them.
zip_text8() {
  local packed size entry
  gzip -n -c text8 >text8.gz
  size=$(stat -c %s text8.gz)
  packed=$((size - 18))
  # fields of both headers: flags 0, method 8, date and time, CRC-32, both sizes, lengths of the name and of extra fields
  fields() {
    printf '\0\0\x08\0\0\0\x21\0'
    tail -c 8 text8.gz | head -c 4
    le $packed
    tail -c 4 text8.gz
    printf '\x05\0\0\0'
  }
  entry=$({ printf 'PK\x03\x04\x14\0'; fields; printf text8; } | wc -c)
  {
    printf 'PK\x03\x04\x14\0'; fields; printf text8
    tail -c +11 text8.gz | head -c $packed
    printf 'PK\x01\x02\x14\0\x14\0'; fields; printf '\0\0\0\0\0\0\0\0\0\0\0\0\0\0text8'
    printf 'PK\x05\x06\0\0\0\0\x01\0\x01\0'; le 51; le $((entry + packed)); printf '\0\0'
  } >mirror/text8/text8.zip
}

# get_data WORDS: the script, as if the archive of the mirror were the official one and its head had so many words.
get_data() {
  sed -E "s/^text8 text8.zip [0-9a-f]{64}$/text8 text8.zip $(sha256sum <mirror/text8/text8.zip | cut -d' ' -f1)/
    s/^head_words=[0-9]+/head_words=$1/" "$source/launch/get_data.sh" >get_data.sh
  bash get_data.sh text8 >out 2>&1
}

says() { grep -qF -- "$1" out || fail "no '$1' in: $(cat out)"; }

# Words as in text8: one line, a space before the first.
awk 'BEGIN { for (i = 0; i < 6000; ++i) printf " word%c%c", 97 + i * i % 23, 97 + i % 26 }' >text8
zip_text8

get_data 5000 || fail "$(cat out)"
says "the first 5000 words of $root/data/text8/text8.zip"
[[ $(tr '\n' ' ' <$head) == "$(tr -s ' ' '\n' <text8 | sed 1d | head -n 5000 | tr '\n' ' ')" ]] || fail "other words: $(head -c 200 $head)"
[[ $(wc -L <$head) -lt 200 ]] || fail "it is not in lines"
[[ -z $(find data -name '*.part') ]] || fail "it leaves $(find data -name '*.part')"

# What is there is left alone, even without the archive.
rm -r mirror/text8/text8.zip data/text8/text8.zip
VARSCOPE_DATA_MIRROR=file:///nowhere bash get_data.sh text8 >out 2>&1 || fail "$(cat out)"
says "text8.split.head: there already"

# A link stays, and leads to the new file; what is no plain file stays, too.
zip_text8
mkdir elsewhere
mv $head elsewhere/head
ln -s "$root/elsewhere/head" $head
echo old >elsewhere/head
get_data 5000 || fail "$(cat out)"
[[ -L $head && $(wc -w <elsewhere/head) -eq 5000 ]] || fail "a link is replaced: $(ls -l $head)"
rm $head
mkfifo $head
get_data 5000 && fail "a FIFO is written over"
says "text8.split.head is no plain file: move it away, or name another folder"
[[ -p $head ]] || fail "a FIFO is gone"
rm $head
mv elsewhere/head $head

# The config trains on it.
"$varscope" train "$source/configs/text8_lstm.yaml" --set output.progress=off >out 2>&1 || fail "$(cat out)"
says "values hash"

# An archive with too few words, one that was changed on its way, none at all.
rm -r data
zip_text8
get_data 7000 && fail "too few words are taken"
says "gives 6000 words instead of 7000: delete it and fetch it anew, or put the text at $root/data/text8/text8.split.head yourself"
[[ ! -e $head ]] || fail "it left a head of too few words"
rm -r data
bash "$source/launch/get_data.sh" text8 >out 2>&1 && fail "another archive than the official one is taken"
says "text8.zip has another sha256 than a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232"
[[ -z $(find data -type f) ]] || fail "it leaves $(find data -type f)"
rm mirror/text8/text8.zip
bash "$source/launch/get_data.sh" text8 >out 2>&1 && fail "nothing is enough"
says "cannot get text8/text8.zip: check the network, or set VARSCOPE_DATA_MIRROR, or put the file at $root/data/text8/text8.zip yourself"
