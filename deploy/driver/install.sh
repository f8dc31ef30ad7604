#!/bin/sh
# The driver's packages.
#   $preferences, $pins  the path and text of apt's preferences: the repository may have come for the toolkit alone, when
#                        another driver was right
#   $groups              a line of packages each, {branch} in the place of the branch
#   $branch, $least, $last  the wanted branch, and which ones will do where the repository hasn't got it
#   $headers             not empty: the kernel's headers with the last group
set -eu
: "${preferences:?}" "${pins:?}" "${groups:?}" "${headers?}" "${branch:?}" "${least:?}" "${last:?}"
write "$preferences" "$pins"
trap no_tunnel EXIT
proxies
through
update

# Which branches the repository has, by the first package's name: the wanted one, else the next, else the last that serves.
first=$(printf '%s\n' "$groups" | sed -n '1{s/ .*//;p;}')
case $first in
*"{branch}"*)
  before=${first%%"{branch}"*}
  there=$(apt-cache pkgnames "$before" | sed -n "s/^$before\([0-9]\{3\}\)${first#*"{branch}"}\$/\1/p" | sort -n | tr '\n' ' ')
  case " $there" in
  " " | *" $branch "*) ;;
  *)
    printf 'the repository has no branch %s, but %s\n' "$branch" "$there" >&2
    branch=$(printf '%s' "$there" | tr ' ' '\n' | awk -v least="$least" -v wanted="$branch" -v last="$last" '
      $1 < least || $1 > last { next }  { found = $1 }  $1 > wanted { exit }  END { print found }')
    [ -n "$branch" ] || {
      printf 'qwen-rig: it takes a branch from %s to %s: set source_nvidia_apt to a repository that has one\n' \
        "$least" "$last" >&2
      exit 1
    }
    printf 'branch %s is installed\n' "$branch" >&2
    ;;
  esac
  ;;
esac
groups=$(printf '%s\n' "$groups" | sed "s/{branch}/$branch/g")

[ -z "$headers" ] || groups="$groups linux-headers-$(uname -r)"
packages
