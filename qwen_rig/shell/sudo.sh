#!/bin/sh
# A command ("$@" behind the first two) by sudo, whose password is the first line of standard input; the rest is the
# command's. $1: the user to become, empty for root; $2: more options of sudo's. No argument and no environment holds
# the password.
#
# A sudo that wants none (NOPASSWD) leaves that line unread, and the command must not find it: what runs under sudo throws
# away all before the mark. A sudo that takes the password for wrong asks for the next line, which is none: so the
# password is tried first, once, with nothing behind it. Options that sudo-rs lacks (-p, -A) aren't used.
set -u
unset password # one of the environment would stay exported
IFS= read -r password || exit 65
user=$1 options=$2 mark='qwen-rig: the input begins'
shift 2
export SUDO_PROMPT=''
become() { # -k: what an earlier sudo left cached doesn't count, so that each asks alike
  # shellcheck disable=SC2086  # options
  sudo -k -S $options ${user:+-u "$user"} "$@"
}
said=$(printf '%s\n' "$password" | LC_ALL=C become true 2>&1) || {
  printf '%s\n' "$said" 'qwen-rig: sudo does not let us in with the password that the inventory names' >&2
  exit 1
}
# shellcheck disable=SC2016  # the inner shell's
{ printf '%s\n%s\n' "$password" "$mark"; exec cat; } |
  become sh -c 'while IFS= read -r line; do [ "$line" != "$0" ] || exec "$@"; done; exit 65' "$mark" "$@"
