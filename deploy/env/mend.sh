#!/bin/sh
# Single packages ("$@") put right in the env that runs ($path), from their lock on standard input; nothing else moves.
#   $root, $name   the folder of the envs, and the env's name there
#   $afresh        not empty where the caches must not serve
#   $import_gate   the statement that must run
#   $made          the record as the env's build would write it now, a JSON object, but for what is known here only
set -eu
: "${path:?}" "${afresh?}" "${import_gate:?}" "${made:?}"
# What an uninstaller leaves behind of a package whose records are damaged: its metadata, which would count twice. By the
# folder's name: METADATA itself may be what is torn.
forget='import importlib.metadata, re, shutil, sys
for found in list(importlib.metadata.distributions()):
    if re.sub("[-_.]+", "-", found._path.name.partition("-")[0]).lower() in sys.argv[1:]:
        shutil.rmtree(found._path)
'
# The env's record names the lock that it is of now. Prints 1 where it could not be read, and is written anew.
record='import json, os, sys
path, now = sys.argv[1], json.loads(sys.argv[2])
try:
    made = json.load(open(path))
    told = isinstance(made["stack"], str) and isinstance(made.get("previous"), (str, type(None)))
except (OSError, ValueError, TypeError, LookupError, RecursionError):
    told = False
if not told:
    made = dict(now, installer=sys.argv[3], source=sys.argv[4], refused=sys.argv[5], previous="")
made["lock_sha256"] = now["lock_sha256"]
with open(path + ".new", "w") as new:
    json.dump(made, new)
os.replace(path + ".new", path)
print(int(not told))
'
lock_env
place
trap no_tunnel EXIT
proxies
installers
python=$path/bin/python
need_own "$python" "$path/.rig"
mkdir -p "$path/.rig"
readable "$path"
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
if [ -e "$path/.rig/env.json" ]; then
  lost=$("$python" -c "$record" "$path/.rig/env.json" "$made" "${installer:?}" "${source:?}" "${refused?}")
  now=$(readlink "$path" || :)
  [ "$lost" = 0 ] || [ -z "$now" ] || sweep "$now" '' # with the record, what was before this one was lost
fi
