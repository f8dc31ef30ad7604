#!/bin/sh
# Files ("$@": name and text in turn) in $folder, each whole or not at all, and by one run at a time, which is waited
# $wait_s for. $piped: the name of one more, whose text comes on standard input; empty: none. A full disk leaves what was
# there. The folder is made where the one above it is there; it is itself what is locked, so that nothing is left behind.
set -eu
: "${folder:?}" "${wait_s:?}" "${piped?}"
need_own "$folder"
cd "${folder%/*}"
mkdir -p "${folder##*/}"
cd "${folder##*/}"
exec 9<.
flock -w "$wait_s" 9 || {
  echo 'qwen-rig: another run writes to this folder: wait for it'
  exit 75
}
whole() { # NAME: a folder in its place would take the new file in
  [ ! -d "$1" ] || rm -rf "$1"
  mv "$1.new" "$1"
}
if [ -n "$piped" ]; then
  cat >"$piped.new"
  whole "$piped"
fi
while [ $# -gt 0 ]; do
  printf %s "$2" >"$1.new"
  whole "$1"
  shift 2
done
