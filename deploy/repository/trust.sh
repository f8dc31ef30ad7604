#!/bin/sh
# NVIDIA's repository with its key, as far as `apt-get update` agrees; on failure nothing stays.
#   $keyring, $repository, $preferences  the files' paths
#   $key, $source, $pins                 their texts
set -eu
: "${keyring:?}" "${repository:?}" "${preferences:?}" "${key:?}" "${source:?}" "${pins:?}"
trap '[ $? -eq 0 ] || rm -f "$keyring" "$repository" "$preferences"; no_tunnel' EXIT
write "$keyring" "$key"
write "$repository" "$source"
write "$preferences" "$pins"
proxies
through
update
