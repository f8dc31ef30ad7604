#!/bin/sh
# Single packages ("$@") put right in the env that runs ($path), from their lock on standard input; nothing else moves.
#   $root, $name   the folder of the envs, and the env's name there
#   $afresh        not empty where the caches must not serve
#   $import_gate   the statement that must run
#   $lock_sha256   of the lock that the env is of when all is done
set -eu
: "${path:?}" "${afresh?}" "${import_gate:?}" "${lock_sha256:?}"
# What an uninstaller leaves behind of a package whose records are damaged: its metadata, which would count twice. By the
# folder's name: METADATA itself may be what is torn.
forget='import importlib.metadata, re, shutil, sys
for found in list(importlib.metadata.distributions()):
    if re.sub("[-_.]+", "-", found._path.name.partition("-")[0]).lower() in sys.argv[1:]:
        shutil.rmtree(found._path)
'
# The env's record, where it has one, names the lock that it is of now.
record='import json, os, sys
path = sys.argv[1]
made = json.load(open(path))
made["lock_sha256"] = sys.argv[2]
with open(path + ".new", "w") as new:
    json.dump(made, new)
os.replace(path + ".new", path)
'
lock_env
place
trap no_tunnel EXIT
proxies
installers
python=$path/bin/python
need_own "$python" "$path/.rig"
mkdir -p "$path/.rig"
[ -z "$afresh" ] || export UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1
rm -f "$path/.rig/verification.json" "$path/.rig/verify.json" # what they proved was before this
cat >"${cache:?}/mend.txt"
rm -rf "$path"/.rig/try.* # of a run that was killed: nobody else mends here meanwhile
try=$(mktemp -d "$path/.rig/try.XXXXXX") # fetched and checked first: a file that isn't the lock's must not cost the one that is there
trap 'rm -rf "$try"; no_tunnel' EXIT
packages "$python" "$cache/mend.txt" --no-deps --target "$try"
"$python" -m pip uninstall -q -y "$@" || true
"$python" -c "$forget" "$@"
packages "$python" "$cache/mend.txt" --no-deps
[ -z "$afresh" ] || forget_cached "$@"
timeout -k 10 600 "$python" -c "$import_gate"
[ ! -e "$path/.rig/env.json" ] || "$python" -c "$record" "$path/.rig/env.json" "$lock_sha256"
