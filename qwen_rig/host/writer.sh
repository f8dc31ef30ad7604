#!/bin/sh
# The right to write one env, $name, from its first byte to its proof: one run's at a time.
#   $wish    what the env is to be; two runs with one wish write side by side, as they attach to each other's jobs
#   $run     who asks; $since, when that run read the host's state; $wait, seconds to wait for it here
#   $gone    a run that is known to have ended, empty where none is
#   $verb    claim or release
# The answer is a job's (job.sh): done (code 1: another run with another wish has written there since) or busy.
# The right ends with its release, with a boot, or some time after the last claim, while none of its jobs is at work: so
# nobody waits for a controller that is gone.
set -eu
: "${b:?}" "${verb:?}" "${name:?}" "${wish:?}" "${run:?}" "${since:?}" "${wait:?}" "${keep:?}" "${gone?}"
umask 077
own_folder "$b" "$b/jobs"
file=$b/jobs/writer.$name
need_own "$file" "$file.lock"

answer() { # STATE CODE
  echo "@job state=$1 run=$had started=$began now=$(date +%s) code=$2"
  exit 0
}

recall() {
  had='' its='' boot='' began=0 until=0 over=0
  while IFS='=' read -r key value; do
    case $key in run) had=$value ;; wish) its=$value ;; boot) boot=$value ;; began) began=$value ;;
      until) until=$value ;; over) over=$value ;; esac
  done 2>/dev/null <"$file" || :
  case $began$until$over in *[!0-9]*) had='' began=0 until=0 over=0 ;; esac # torn: as good as none
}

write() { # BEGAN UNTIL OVER
  printf 'run=%s\nwish=%s\nboot=%s\nbegan=%s\nuntil=%s\nover=%s\n' "$run" "$wish" "$now_boot" "$1" "$2" "$3" >"$file.new"
  mv -f "$file.new" "$file"
}

at_work() { # whether a job that writes an env, or proves one, is at work
  for step in env attention flash_build verify; do
    [ -e "$b/jobs/$step/lock" ] || continue
    flock -n -s "$b/jobs/$step/lock" true || return 0
  done
  return 1
}

another() { # whether another run has the right, and wants something else
  [ -n "$had" ] && [ "$had" != "$run" ] && [ "$its" != "$wish" ] && [ "$over" = 0 ] && [ "$boot" = "$now_boot" ] || return 1
  { [ "$had" != "$gone" ] && [ "$(date +%s)" -le "$until" ]; } || at_work
}

now_boot=$(cat /proc/sys/kernel/random/boot_id)
[ ! -d "$file" ] || rm -rf "$file"
exec 9>>"$file.lock"
end=$(($(date +%s) + wait))
while :; do
  timeout 30 flock 9
  recall
  now=$(date +%s)
  if [ "$verb" = release ]; then
    [ "$had" != "$run" ] || write "$began" 0 "$now"
    answer 'done' 0
  fi
  if ! another; then
    changed=0
    if [ -n "$had" ] && [ "$had" != "$run" ] && [ "$its" != "$wish" ]; then
      [ "$over" -gt 0 ] && [ "$over" -lt "$since" ] || changed=1 # ended before our look; all else isn't known
    fi
    [ "$had" = "$run" ] || began=$now
    write "$began" $((now + keep)) 0
    answer 'done' "$changed"
  fi
  flock -u 9
  [ "$now" -lt "$end" ] || answer busy 0
  sleep 1
done
