#!/bin/sh
# The job runner (job.sh), which comes in base64 on a line of standard input and whose sha256 is $digest, installed below
# $b; then its `start` with "$@", which reads the job from the rest.
set -eu
: "${b:?}" "${digest:?}"
IFS= read -r program
new=$b/job.sh.$$
said=$({ umask 077 && own_folder "$b" "$b/jobs" && need_own "$b/job.sh" "$b/jobs/$1/lock"; } 2>&1) || {
  echo "@job state=error why=${said#qwen-rig: }"
  exit 0
}
said=$(umask 077; { printf %s "$program" | base64 -d >"$new" &&
  { echo "$digest  $new" | sha256sum -c >/dev/null 2>&1 || { echo "$new came incomplete"; false; }; } &&
  mv -f "$new" "$b/job.sh"; } 2>&1) || {
  rm -f "$new"
  echo "@job state=error why=$(printf %s "$said" | tr -s '\n' ' ')"
  exit 0
}
exec sh "$b/job.sh" start "$@"
