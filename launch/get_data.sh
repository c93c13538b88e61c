#!/usr/bin/env bash
# Fetches data sets from their official homes and checks every file's sha256.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/get_data.sh NAME...     fetch these data sets
       launch/get_data.sh --list      what there is
Files go to $VARSCOPE_DATA/NAME (default: data/NAME); files that are there and whole are left alone.
VARSCOPE_DATA_MIRROR: fetch $VARSCOPE_DATA_MIRROR/NAME/FILE instead, for example file:///srv/data or https://host/data.
TEXT
}

die() {
  echo "get_data.sh: $1" >&2
  exit 1
}

# The homes of a data set, the first one tried first. A file's name is appended.
declare -A homes=(
  [fashion-mnist]="https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/
http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
  [text8]="http://mattmahoney.net/dc/"
  [a9a]="https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
  [agaricus]="https://github.com/dmlc/xgboost/raw/master/demo/data/
https://github.com/dmlc/xgboost/raw/v1.7.6/demo/data/"
  [criteo]="https://github.com/ycjuan/kaggle-2014-criteo/raw/master/"
  [higgs]="https://github.com/microsoft/LightGBM/raw/master/examples/binary_classification/"
)
declare -A about=(
  [fashion-mnist]="70,000 images of clothes, 28 x 28, 10 classes; 30 MB; MIT licence, Zalando SE"
  [a9a]="48,842 adults and whether they earn more than 50,000, 123 features of 0 and 1; 3 MB; UCI Adult, CC BY 4.0"
  [agaricus]="8,124 mushrooms, edible or not, 126 features of 0 and 1; 1 MB; UCI, CC BY 4.0"
  [criteo]="1,999 shown advertisements, clicked or not, 13 integers and 26 categories; 0.5 MB; Criteo, non-commercial"
  [higgs]="7,500 collisions, 28 numbers; 1 MB; UCI HIGGS, CC BY 4.0"
  [text8]="the words of English Wikipedia in 2006, 100 MB of text; 31 MB; GFDL and CC BY-SA"
)
# set, file, sha256
files="
fashion-mnist train-images-idx3-ubyte.gz 3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84
fashion-mnist train-labels-idx1-ubyte.gz a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845
fashion-mnist t10k-images-idx3-ubyte.gz 346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073
fashion-mnist t10k-labels-idx1-ubyte.gz 67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5
a9a a9a f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906
a9a a9a.t 1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9
agaricus agaricus.txt.train 915c2def06e9b44a306ad097fe8b6652c7c477d9c1e605bd2130ad20a70a8ad6
agaricus agaricus.txt.test 765db79391141953d890ce197fe828a621d6487fbba4de5e4d2217bd140371c0
criteo train.tiny.csv 68f7852149b089e7929ba9e1acd6debbc986cbd498107a7c4dc9f2e716500b18
higgs binary.train 41c42dc14f86960256bf872fc8ae6286c688b44f43b4057b29428787fc1e0444
higgs binary.test d99ebec91acd99638f00c727c251c947a1d17ddfcbea27bfef6b0dc5e5fb1db3
text8 text8.zip a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232
"
head_words=549570  # of text8, in text8.split.head, which configs/text8_lstm.yaml reads


is_whole() { [[ -f $1 && $(sha256sum <"$1") == "$2  -" ]]; }

# download URL FILE: false when it cannot be had.
download() {
  if [[ $1 == file://* ]]; then
    cp --no-preserve=mode -- "${1#file://}" "$2" 2>/dev/null
  elif command -v curl >/dev/null; then
    curl --fail --silent --location --retry 2 --connect-timeout 15 --speed-limit 1000 --speed-time 60 --output "$2" "$1"
  elif command -v wget >/dev/null; then
    wget --quiet --tries=3 --timeout=60 --output-document="$2" "$1"
  else
    die "needs curl or wget: apt-get install curl"
  fi
}

# place_of PATH: behind all links, so that a link stays and what it leads to is replaced. Only a plain file is.
place_of() {
  local place
  place=$(readlink -m -- "$1")
  [[ ! -e $place || -f $place ]] || die "$1 is no plain file: move it away, or name another folder"
  echo "$place"
}

# fetch SET FILE SHA256: under a temporary name first, so that a file with its own name is always whole.
fetch() {
  local set=$1 file=$2 sha256=$3 path url wrong=''
  path=$(place_of "$folder/$1/$2") || exit 1
  if is_whole "$path" "$sha256"; then
    echo "$path: there already"
    return
  fi
  part="$path.part"
  for url in ${VARSCOPE_DATA_MIRROR:+"${VARSCOPE_DATA_MIRROR%/}/$set/"} \
    $([[ -n ${VARSCOPE_DATA_MIRROR:-} ]] || echo "${homes[$set]}"); do
    rm -f "$part"
    echo "$path: fetching $url$file"
    download "$url$file" "$part" || continue
    if is_whole "$part" "$sha256"; then
      mv -f "$part" "$path"
      part=''
      return
    fi
    wrong=" ($url$file has another sha256 than $sha256)"
  done
  die "cannot get $set/$file$wrong: check the network, or set VARSCOPE_DATA_MIRROR, or put the file at $path yourself"
}

has_head() { [[ -f $folder/text8/text8.split.head && $(wc -w <"$folder/text8/text8.split.head") -eq $head_words ]]; }

# The first words of the text, in lines. gzip reads the one file of a zip archive, and checks it.
unpack_head() {
  local zip=$folder/text8/text8.zip path words
  path=$(place_of "$folder/text8/text8.split.head") || exit 1
  echo "$path: the first $head_words words of $zip"
  part=$path.part
  # awk ends before the text does: the count tells whether it had enough.
  (set +o pipefail; gzip -dc <"$zip" 2>/dev/null | tr -s '[:space:]' '\n' |
    awk -v words="$head_words" 'NF { printf "%s%s", $0, ++n % 20 && n < words ? " " : "\n"; if (n == words) exit }') >"$part" ||
    die "cannot write $part: is there room?"
  words=$(wc -w <"$part")
  [[ $words -eq $head_words ]] ||
    die "$zip gives $words words instead of $head_words: delete it and fetch it anew, or put the text at $path yourself"
  mv -f "$part" "$path"
  part=''
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  --list)
    for name in "${!about[@]}"; do printf '%-16s %s\n' "$name" "${about[$name]}"; done
    exit 0 ;;
  '') usage >&2; exit 2 ;;
esac

folder=${VARSCOPE_DATA:-data}
part=''
trap 'rm -f ${part:+"$part"}' EXIT
for name in "$@"; do
  [[ -n ${homes[$name]:-} ]] || die "no data set '$name'; --list shows: ${!homes[*]}"
done
for name in "$@"; do
  mkdir -p "$folder/$name" 2>/dev/null || die "cannot make $folder/$name; choose another folder with VARSCOPE_DATA"
  if [[ $name == text8 ]] && has_head; then
    echo "$folder/text8/text8.split.head: there already"
    continue
  fi
  while read -r set file sha256; do
    [[ $set != "$name" ]] || fetch "$set" "$file" "$sha256"
  done <<<"$files"
  [[ $name != text8 ]] || unpack_head
done
