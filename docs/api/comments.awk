# Doxygen's input filter: makes the sources' plain comments its own. A comment above a declaration describes it, and so does
# one behind it. Lines that are indented in a comment (formulas, examples, tables) are shown as they are, and `words` as code.
function plain(text, out) {
  gsub(/\\/, "\\\\", text)
  gsub(/[@#<>&%|]/, "\\\\&", text)
  gsub(/\*\//, "* /", text)
  out = ""
  while (match(text, /`[^`]+`/)) {
    out = out substr(text, 1, RSTART - 1) "<code>" substr(text, RSTART + 1, RLENGTH - 2) "</code>"
    text = substr(text, RSTART + RLENGTH)
  }
  return out text
}
# Ends the comment that is open, on the line of what follows it, so that lines keep their numbers as far as they can.
function end_comment() {
  if (verbatim) print "@endverbatim"
  if (open) printf "*/ "
  if (open && $0 ~ /^ *#/) print ""
  verbatim = open = 0
}
/^ *\/\// {
  text = $0
  sub(/^ *\/\//, "", text)
  start = open ? "" : "/** "
  open = 1
  if (text ~ /^   +[^ ]/) {
    if (!verbatim) print start "@verbatim"
    else printf "%s", start
    verbatim = 1
    print text
  } else {
    if (verbatim) print "@endverbatim"
    verbatim = 0
    print start plain(text)
  }
  next
}
{
  end_comment()
  if ($0 !~ /^ *#/ && match($0, /[;,{})]  ?\/\/ /)) {
    print substr($0, 1, RSTART + RLENGTH - 4) "///< " plain(substr($0, RSTART + RLENGTH))
  } else {
    print
  }
}
