#!/bin/sh
# Miniforge in $prefix.
#   $unfinished    what is appended to the prefix for the folder that marks it as unfinished
#   $file, $digest the installer's name and sha256
#   $sources       a line for each: the address of its folder, then the proxy script to read first (- for none)
#   $marker        the file in the prefix that tells that this program made it
# Conda knows its prefix by heart, so it can't be made elsewhere and moved. What marks it as unfinished stands beside it:
# the probe passes over such a prefix (facts/_conda.py), however sound it looks, and we begin anew. One that we made and that is
# broken is mended where it is, as envs lie in it; what marks that stays where it failed, and the next one goes beside.
set -eu
: "${prefix:?}" "${unfinished:?}" "${marker:?}" "${file:?}" "${digest:?}" "${sources:?}"
place
trap no_tunnel EXIT
proxies
work=$prefix.$unfinished
need_own "$prefix/bin/conda" "$prefix/$marker" "$work/begun"
update=''
clear() {
  [ ! -e "$work/begun" ] || rm -rf "$prefix"
  rm -rf "$work/begun" "$work/installer.sh"
  [ -e "$work/mending" ] || rm -rf "$work"
}
leave() {
  clear
  no_tunnel
}
clear
if "$prefix/bin/conda" --version 2>/dev/null; then exit 0; fi # another run has made it since we looked
trap leave EXIT
mkdir -p "$work"
got='' said=''
while read -r url script <&8; do
  [ "$script" != - ] || script=''
  if (turbo "$script" && download "${url%/}/$file" "$work/installer.sh"); then
    if echo "$digest  $work/installer.sh" | sha256sum -c --quiet -; then
      got=1
      break
    fi
    said="$file from $url isn't the file that is expected: check source_miniforge"
  fi
done 8<<EOT
$sources
EOT
[ -n "$got" ] || {
  [ -z "$said" ] || printf '%s\n' "qwen-rig: $said"
  exit 1
}
if [ -e "$prefix/$marker" ]; then
  update=-u
  : >"$work/mending"
elif [ -e "$prefix" ]; then # no conda, and not ours: kept, under another name
  old=$prefix.before-qwen-rig n=1
  while [ -e "$old" ]; do n=$((n + 1)) old=$prefix.before-qwen-rig-$n; done
  mv "$prefix" "$old"
fi
[ -n "$update" ] || : >"$work/begun"
bash "$work/installer.sh" -b $update -p "$prefix"
"$prefix/bin/conda" --version
: >"$prefix/$marker" # so that `qwen-rig remove` knows whose it is
rm -f "$work/begun" "$work/mending"
