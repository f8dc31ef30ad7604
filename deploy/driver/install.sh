#!/bin/sh
# The driver's packages.
#   $preferences, $pins  the path and text of apt's preferences: the repository may have come for the toolkit alone, when
#                        another driver was right
#   $groups              a line of packages each
#   $headers             not empty: the kernel's headers with the last group
set -eu
: "${preferences:?}" "${pins:?}" "${groups:?}" "${headers?}"
write "$preferences" "$pins"
trap no_tunnel EXIT
proxies
through
update
[ -z "$headers" ] || groups="$groups linux-headers-$(uname -r)"
packages
