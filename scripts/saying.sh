#!/bin/sh
# Runs a command and says every 10 s that it is at work: saying.sh WHAT COMMAND ARGUMENT…
what=$1
shift
printf '%s\n' "$what" >&2
"$@" &
pid=$!
trap 'kill "$pid" 2>/dev/null' HUP INT TERM
seconds=0
while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    [ $((seconds % 10)) -ne 0 ] || printf '  %s: %s s so far\n' "$what" "$seconds" >&2
done
wait "$pid"
