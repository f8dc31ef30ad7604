#!/bin/sh
# A file that came as $part into its $folder, as $target there, if its sha256 is $sha256; else it goes. Parts that nobody
# has written to for $abandoned_min minutes are nobody's: those in $landing go too.
set -eu
: "${landing:?}" "${abandoned_min:?}" "${part:?}" "${sha256:?}" "${folder:?}" "${target:?}"
need_own "$landing" "$folder"
find "$landing" -maxdepth 1 -name '.qwen-rig-*.part' -mmin "+$abandoned_min" -exec rm -f {} + || :
{ printf '%s  %s\n' "$sha256" "$part" | sha256sum -c - >/dev/null && mkdir -p "$folder" && mv -f "$part" "$target"; } || {
  rm -f "$part"
  exit 1
}
