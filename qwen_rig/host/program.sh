#!/bin/sh
# One of the programs here, run by the python of $env: the files, which come on standard input as a JSON object of names
# and texts, go into the env's .rig, and $first of them is run with "$@".
#   $script  the proxy script to read before, empty for none
#   $quiet   what of the program isn't wanted: out, err, or empty
set -eu
: "${env:?}" "${first:?}" "${script?}" "${quiet?}"
# Unpacked by the env's python, so that a host needs neither tar nor a copy of this project.
unpack='import json, pathlib, sys
for name, text in json.load(sys.stdin).items():
    pathlib.Path(sys.argv[1], name).write_text(text, encoding="utf-8")
'
place
trap no_tunnel EXIT
proxies
turbo "$script"
need_own "$env/bin/python" "$env/.rig"
mkdir -p "$env/.rig"
readable "$env"
temporary "$env/.rig/tmp"
"$env/bin/python" -c "$unpack" "$env/.rig"
case $quiet in
  out) exec >/dev/null ;;
  err) exec 2>/dev/null ;;
esac
"$env/bin/python" "$env/.rig/$first" "$@"
