#!/bin/sh
# The file at $url printed in base64, within $seconds; in a folder below $b meanwhile. apt's own downloader is on every
# Debian and Ubuntu, and obeys apt's proxy. Its own time limit holds per try and per read; `timeout` ends a server that
# takes the request and says nothing.
set -eu
: "${url:?}" "${seconds:?}"
umask 077
own_folder "${b:?}"
dir=$(mktemp -d "$b/fetch.XXXXXX")
trap 'rm -rf "$dir"; no_tunnel' EXIT
proxies
code=0
helper=/usr/lib/apt/apt-helper
timeout -k 5 "$seconds" $helper -o Acquire::Retries=1 download-file "$url" "$dir/file" >&2 || code=$?
[ $code -ne 124 ] ||
  printf '%s\n' "qwen-rig: $url did not come within $seconds s: check source_nvidia_apt, and the way there" >&2
[ $code -eq 0 ] || exit 1
base64 "$dir/file"
