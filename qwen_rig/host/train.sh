#!/bin/sh
# A training run as a job: its programs, which come on standard input as a JSON object of names and texts, go into
# $run/program, and train_run.py of them is run by $env's python. $id: who began the run; another's folder isn't taken.
# exec, so that the signal that ends the job reaches the trainer, which saves.
set -eu
: "${env:?}" "${run:?}" "${id:?}"
unpack='import json, os, pathlib, sys
for name, text in json.load(sys.stdin).items():
    path = pathlib.Path(sys.argv[1], name)
    new = path.with_name(f".{name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
'
trap no_tunnel EXIT
place
proxies
need_own "$env/bin/python"
own_folder "$run" "$run/program"
temporary "$run/tmp"
if [ -e "$run/id" ] && [ "$(cat "$run/id")" != "$id" ]; then
  echo "qwen-rig: a run of that name is on this host already, and it is another: take another name (--name)"
  exit 65
fi
echo "$id" >"$run/id"
"$env/bin/python" -c "$unpack" "$run/program"
[ -z "${tunnel:-}" ] || [ -z "${QWEN_RIG_SCRATCH:-}" ] || printf '%s\n' "$tunnel" >>"$QWEN_RIG_SCRATCH" # gone with the job
exec "$env/bin/python" "$run/program/train_run.py" "$run" </dev/null
