#!/bin/sh
# What qwen-rig put on this host: looked at ($act look), or removed ($act remove). "$@": a kind and a path in turn.
#   tree   a folder with all in it; a link is removed, not what it leads to
#   file   a file or a link
#   ours   a file that begins as ours do: another's of that name stays
#   empty  a folder, where nothing is left in it
#   line   a line of $lines_of, which is $path
# Prints a line each that is there, `kind KiB path`, or that was removed; jobs that are at work come first, `busy 0 step`,
# and nothing is removed then.
set -eu
: "${act:?}" "${jobs:?}" "${lines_of:?}"
set -f
busy=''
if [ -d "$jobs" ]; then
  set +f
  for lock in "$jobs"/*/lock; do
    [ -e "$lock" ] || continue
    flock -n -s "$lock" true || { lock=${lock%/lock} busy=1 && echo "busy 0 ${lock##*/}"; }
  done
  set -f
fi
[ -z "$busy" ] || [ "$act" = look ] || exit 75
changed=''
kib() { # PATH
  size=$(du -skx "$1" 2>/dev/null) || :
  size=${size%%[!0-9]*}
  echo "${size:-0}"
}
there() { # KIND PATH
  case $1 in
    tree | empty) [ -d "$2" ] || [ -L "$2" ] ;;
    file) [ -e "$2" ] || [ -L "$2" ] ;;
    ours) [ -f "$2" ] && [ ! -L "$2" ] && head -n 1 "$2" | grep -q 'Managed by qwen-rig\|by qwen-rig with NVIDIA' ;;
    line) [ -f "$lines_of" ] && grep -qxF -e "$2" "$lines_of" ;;
    *) return 1 ;;
  esac
}
gone() { # KIND PATH
  case $1 in
    line)
      grep -vxF -e "$2" "$lines_of" >"$lines_of.new" || :
      if [ -s "$lines_of.new" ]; then mv "$lines_of.new" "$lines_of"; else rm -f "$lines_of.new" "$lines_of"; fi
      ;;
    empty) rmdir "$2" 2>/dev/null || return 1 ;;
    tree) if [ -L "$2" ]; then rm -f "$2"; else rm -rf --one-file-system "$2"; fi ;;
    *) rm -f "$2" ;;
  esac
}
while [ $# -gt 1 ]; do
  kind=$1 path=$2
  shift 2
  there "$kind" "$path" || continue
  need_own "${path%/*}"
  if [ "$act" = look ]; then
    [ "$kind" != empty ] || continue
    echo "$kind $(kib "$path") $path"
  else
    size=$(kib "$path")
    gone "$kind" "$path" || continue
    [ "$kind" = empty ] || echo "$kind $size $path"
    case $path in /etc/modprobe.d/*) changed=1 ;; esac
  fi
done
if [ -n "$changed" ] && command -v update-initramfs >/dev/null; then update-initramfs -u >/dev/null; fi
