#!/bin/sh
# The job runner's `poll` with "$@".
set -eu
[ -f "${b:?}/job.sh" ] || {
  echo "@job state=gone"
  exit 0
}
exec sh "$b/job.sh" poll "$@"
