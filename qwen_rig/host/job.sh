#!/bin/sh
# A long step of qwen-rig, run on the host so that it outlives the connection that asked for it.
#
#   start STEP KEY RUN LIMIT NICE OOM WAIT SINCE   begin the job on standard input, or attach to the one at work, or to
#                                                  one that ended well since SINCE (0: none); then as poll
#   poll STEP RUN FROM WAIT                        wait up to WAIT seconds for the run's end; say how it stands, and
#                                                  the log after line FROM
#
# Standard input of start: the script in base64 on one line, then what the script reads on its own standard input, which
# begins with its arguments (qwen_rig/shell/arguments.sh). KEY is the sha256 of those bytes, RUN a name for this beginning of the job. The answer is one line, then log lines:
#   @job state=running|done|aborted|busy|gone|error run= key= started= now= to= code= limit= log= why=(to the line's end)
# why: of running, `bound` (logind ends it with its session) or nothing; of aborted, reboot, logout (so ended) or killed.
# Times are the host's, in seconds; `now` of a job that is done is when it ended.
#
# One folder a step, beside this file: `lock` is held while a job of that step runs (the kernel lets go of it when the
# runner dies, however it dies), `state` says which, `log` what it printed, `scratch` where its temporary files are (a
# folder a line; gone with the job, or with the next one of any step). Scripts, their input and the environment may hold
# secrets: they pass through pipes and are never written down.
set -u
mask=$(umask)
umask 077
self=$0 verb=$1 jobs=$(dirname "$0")/jobs
HANDOVER=30   # seconds for the runner to come up and take the job; it takes milliseconds
KILL_AFTER=30 # seconds from the polite signal to the deadly one
LINES=400     # log lines in one answer
NEVER=2000000000
now() { date +%s; }
boot_id() { cat /proc/sys/kernel/random/boot_id; }
all() { cat; echo .; }                          # $(…) drops trailing newlines: keep them behind a dot
digest() { sha256sum | cut -d' ' -f1; }
lock() {                                        # SECONDS flock's-arguments: `flock -w`, which busybox's doesn't know
  patience=$1; shift
  if [ "$patience" = 0 ]; then flock -n "$@"; else timeout "$patience" flock "$@"; fi
}
journal() { echo "$(now) $*" >>"$jobs/journal"; } # one line per beginning and end, for people and tests

die() {
  echo "@job state=error why=$(printf %s "$*" | tr -s '\n' ' ')"
  exit 0
}

recall() { # what the step's state file says; all empty where there is none
  run='' key='' boot='' started=0 limit=0 code='' ended=0 oom=0 bound=''
  while IFS='=' read -r name value; do
    case $name in run) run=$value ;; key) key=$value ;; boot) boot=$value ;; started) started=$value ;;
      limit) limit=$value ;; code) code=$value ;; ended) ended=$value ;; oom) oom=$value ;; bound) bound=$value ;; esac
  done 2>/dev/null <"$dir/state"
}

begun() { # a run is on record whole or not at all
  printf 'run=%s\nkey=%s\nboot=%s\nstarted=%s\nlimit=%s\nbound=%s\n' \
    "$run" "$key" "$boot" "$started" "$limit" "$bound" >"$dir/state.new" && mv -f "$dir/state.new" "$dir/state"
}

memory_kills() { # how many programs the kernel has ended for want of memory, since the boot
  sed -n 's/^oom_kill //p' /proc/vmstat
}

over() { # CODE KILLS: in a line of its own, which has room left in the file's last block where a disk is full
  printf 'ended=%s\noom=%s\ncode=%s\n' "$(now)" "$2" "$1" >>"$dir/state"
}

sweep() { # RUN: end whatever still bears the mark of a run whose runner is gone
  for pass in 1 2 3; do
    found=''
    for process in /proc/[0-9]*; do
      if { tr '\0' '\n' <"$process/environ" | grep -qx "QWEN_RIG_JOB=$1"; } 2>/dev/null; then
        found=$pass
        kill -KILL "${process#/proc/}" 2>/dev/null
      fi
    done
    [ -n "$found" ] || break
  done
}

tidy() { # DIR: the temporary files of that step's job, which has ended; the caller has its lock
  while IFS= read -r folder; do
    [ -d "$folder" ] && [ ! -L "$folder" ] && [ "$(stat -c %u "$folder")" = "$(id -u)" ] && rm -rf "$folder"
  done 2>/dev/null <"$1/scratch"
  rm -f "$1/scratch"
}

tidy_all() { # what jobs left that were killed: our own step's, and others' that aren't at work
  for found in "$jobs"/*/scratch; do
    [ -f "$found" ] || continue
    if [ "${found%/scratch}" = "$dir" ]; then tidy "$dir"; else
      lock 0 "${found%/scratch}/lock" /bin/sh "$self" tidy "${found%/scratch}"
    fi
  done
}

answer() { # STATE FROM
  log=$dir/log to=0 why='' now=$(now)
  [ "$1" != 'done' ] || now=$ended
  [ "$1" != 'done' ] || [ "$oom" = 0 ] || why=oom
  [ ! -e "$log" ] || to=$(wc -l <"$log")
  case $1 in
    running) why=${bound:+bound} ;; # to its session, with which logind ends it
    aborted) if [ "$boot" != "$(boot_id)" ]; then why=reboot; else why=${bound:+logout}; why=${why:-killed}; fi ;;
  esac
  echo "@job state=$1 run=$run key=$key started=$started now=$now to=$to code=$code limit=$limit log=$log why=$why"
  from=$2
  [ $((to - from)) -le $LINES ] || from=$((to - LINES))
  # A progress bar is one line with carriage returns: its last picture counts. The reader takes UTF-8 only.
  [ "$to" -le "$from" ] || sed -n "$((from + 1)),${to}p" "$log" | sed "s/$(printf '\r')\$//; s/.*$(printf '\r')//" |
    { iconv -c -f UTF-8 -t UTF-8 2>/dev/null || tr -cd '\11\12\40-\176'; }
  exit 0
}

poll() { # RUN FROM WAIT
  free=''
  if lock "$3" -s "$dir/lock" true; then free=1; fi
  recall
  if [ "$run" != "$1" ]; then # another has begun since; how ours ended is still in the journal, without its log
    run=$1 key='' started=0 limit=0
    code=$(sed -n "s/^[0-9]* end $step $run \([0-9]*\)\$/\1/p" "$jobs/journal" 2>/dev/null | tail -n 1)
    if [ -n "$code" ]; then ended=0; answer 'done' "$NEVER"; fi
    answer gone "$NEVER"
  fi
  if [ -n "$code" ] && { [ "$code" = 0 ] || [ "$boot" = "$(boot_id)" ]; }; then answer 'done' "$2"; fi
  if [ -n "$free" ]; then answer aborted "$2"; fi # no end on record: killed, or a shutdown's own signals ended it
  answer running "$2"
}

launch() { # the runner, out of reach of this session's end; $bound where the host keeps it within
  set -- "$self" supervise "$step" "$wanted_key" "$wanted_run" "$limit" "$nice" "$oom"
  [ -d /run/systemd/system ] && unit "$@" </dev/null >/dev/null 2>&1 8>&- && return
  setsid /bin/sh "$@" "$bound" </dev/null >/dev/null 2>&1 8>&- &
}

unit() { # as a unit of systemd's: root's, and a user's where logind would end it with the session
  set -- --quiet --collect --no-ask-password --unit="qwen-rig-$step-$wanted_run" --property=OOMPolicy=continue \
    /bin/sh "$@"
  me=$(id -un)
  if [ "$(id -u)" = 0 ]; then
    systemd-run "$@"
  elif sessions_end; then
    if [ -e "/var/lib/systemd/linger/$me" ]; then # else systemd ends a user's own units with the last session
      XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)} systemd-run --user "$@" && return
    fi
    sudo -n systemd-run --uid="$me" "$@" && return
    bound=1
    return 1
  else
    return 1
  fi
}

sessions_end() { # whether logind ends what a session leaves behind: logind.conf(5), KillUserProcesses
  [ "$(timeout 5 busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \
    KillUserProcesses)" = 'b true' ]
}

start() {
  payload=$(all) && payload=${payload%.}
  [ "$(printf %s "$payload" | digest)" = "$wanted_key" ] || die "the job's script came incomplete"
  said=$({ echo . >"$dir/room.$$" && rm "$dir/room.$$"; } 2>&1) || die "$said"
  exec 8>>"$dir/start.lock"
  lock $((2 * HANDOVER)) 8 || die "another start of $step doesn't end: see $dir"
  until lock 0 -s "$dir/lock" true; do
    recall
    if [ -z "$code" ]; then
      exec 8>&-
      [ "$key" = "$wanted_key" ] || answer busy 0
      poll "$run" 0 "$wait"
    fi
    sleep 0.1 # it has ended and is about to let go
  done
  recall
  if [ "$key" = "$wanted_key" ] && [ "$code" = 0 ] && [ "$since" -gt 0 ] && [ "$ended" -ge "$since" ]; then
    answer 'done' 0 # by another controller, after ours had looked
  fi
  if [ "$run" != "$wanted_run" ]; then # else this very start came through, and only its answer was lost
    if [ -d /run/systemd/system ] && [ "$(timeout 5 systemctl is-system-running 2>/dev/null)" = stopping ]; then
      sleep "$HANDOVER" # what was ended by this shutdown begins anew after it: the connection goes before we do
      die "the host is shutting down"
    fi
    [ -z "$run" ] || [ -n "$code" ] || [ "$boot" != "$(boot_id)" ] || sweep "$run"
    rm -f "$dir"/pipe.*
    said=$(mkfifo "$pipe" 2>&1) || die "$said"
    limit=$wanted_limit bound=''
    launch
    environment=$(printf 'umask %s\n' "$mask"; export -p)
    # Opening the pipe waits for its reader, who reads when it has the lock and the state is written.
    # shellcheck disable=SC2016  # the inner shell's
    { printf %s "$environment" | base64 | tr -d '\n'; printf '\n%s' "$payload"; } |
      timeout "$HANDOVER" sh -c 'cat >"$1"' sh "$pipe" 2>/dev/null || die "the runner did not come up; see $dir"
  fi
  exec 8>&-
  poll "$wanted_run" 0 "$wait"
}

supervise() { # in a session or unit of its own
  exec 9>>"$dir/lock"
  lock "$HANDOVER" 9 || exit 75
  [ -p "$pipe" ] || exit 75 # given up meanwhile, or begun by another
  recall
  run=$wanted_run key=$wanted_key boot=$(boot_id) started=$(now) limit=$wanted_limit bound=$wanted_bound
  [ ! -e "$dir/log" ] || mv -f "$dir/log" "$dir/log.1"
  : >"$dir/log" && begun || exit 73
  tidy_all
  : >"$dir/scratch"
  payload=$(timeout "$HANDOVER" cat "$pipe"; echo .) && payload=${payload%.}
  rm -f "$pipe"
  [ "$(printf %s "${payload#*
}" | digest)" = "$key" ] || exit 65 # half a script never runs
  journal start "$step" "$run" "$boot"
  stopped='' kills=$(memory_kills)
  trap 'stopped=1' HUP INT TERM
  # Only the runner holds the lock: what the job leaves behind must not, nor what feeds a job that doesn't read.
  { exec 9>&-; printf %s "$payload"; } | QWEN_RIG_JOB=$run timeout -k "$KILL_AFTER" "$limit" nice -n "$nice" \
    /bin/sh "$self" body "$oom" "$dir/scratch" >>"$dir/log" 2>&1 9>&- &
  wait $!
  code=$?
  if [ -n "$stopped" ]; then # a shutdown, or somebody's `systemctl stop`: no end of its own
    kill -TERM $! 2>/dev/null
    wait $!
    sweep "$run"
    tidy "$dir"
    exit 1
  fi
  case $code in # what timeout had to kill is 137; busybox's says how what it ended has ended
    137 | 143) [ $(($(now) - started)) -lt "$limit" ] || code=124 ;;
  esac
  case $code in 124 | 137) sweep "$run" ;; esac
  [ -z "$(tail -c 1 "$dir/log")" ] || echo >>"$dir/log"
  tidy "$dir"
  over "$code" $(($(memory_kills) - kills))
  journal end "$step" "$run" "$code"
}

body() { # OOM SCRATCH: environment, script and input come by the pipe
  IFS= read -r environment && IFS= read -r script || exit 65
  [ "$1" = 0 ] || echo "$1" >/proc/self/oom_score_adj
  eval "$(printf %s "$environment" | base64 -d)"
  cd "${HOME:-/}" 2>/dev/null || cd /
  export QWEN_RIG_SCRATCH="$2"
  if own=$(mktemp -d 2>/dev/null); then printf '%s\n' "$own" >>"$2" && export TMPDIR="$own"; fi
  unset own
  script=$(printf %s "$script" | base64 -d)
  unset environment
  eval "$script"
}

case $verb in
  start) step=$2 wanted_key=$3 wanted_run=$4 wanted_limit=$5 nice=$6 oom=$7 wait=$8 since=$9 ;;
  supervise) step=$2 wanted_key=$3 wanted_run=$4 wanted_limit=$5 nice=$6 oom=$7 wanted_bound=${8:-} ;;
  poll) step=$2 ;;
  body) body "$2" "$3"; exit ;;
  tidy) tidy "$2"; exit ;;
esac
dir=$jobs/$step pipe=$jobs/$step/pipe.${wanted_run:-}
said=$(mkdir -p "$dir" 2>&1) || die "$said"
case $verb in
  start) start ;;
  poll) poll "$3" "$4" "$5" ;;
  supervise) supervise ;;
esac
