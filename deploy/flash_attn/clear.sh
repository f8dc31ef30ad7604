#!/bin/sh
# The wheels that were brought to the env in $1, or built there, away.
set -eu
need_own "$1/.rig"
rm -f "$1"/.rig/build/*.whl
