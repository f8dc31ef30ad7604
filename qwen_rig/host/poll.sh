#!/bin/sh
# The job runner's `poll` with "$@".
set -eu
[ -f "${b:?}/job.sh" ] || {
  echo "@job state=gone"
  exit 0
}
said=$(need_own "$b/job.sh" "$b/jobs/$1/lock") || {
  echo "@job state=error why=${said#qwen-rig: }"
  exit 0
}
exec sh "$b/job.sh" poll "$@"
