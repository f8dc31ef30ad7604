#!/bin/sh
# train_files.py, which comes on standard input, run with "$@" by $env's python; $run: what it looks at.
set -eu
: "${env:?}" "${run:?}"
need_own "$env/bin/python" "$run"
exec "$env/bin/python" -I - "$@"
