#!/bin/sh
# The testbed host's pid 1: network, sshd, and an orderly end. fd 3 is sshd's log, outside the host.
ip link set lo up
ip address replace "$1/24" dev eth0
ip link set eth0 up

down() {
  trap '' INT TERM
  kill -TERM -1 2>/dev/null
  sleep 0.2
  kill -KILL -1 2>/dev/null
  exit "$1"
}
trap 'down 129' INT    # reboot, as ctrl-alt-del asks for it
trap 'down 130' TERM   # power off

while :; do
  /usr/sbin/sshd -D -e 2>&3 3>&- </dev/null >/dev/null &
  wait $!              # orphans are reaped on the way
  sleep 0.2
done
