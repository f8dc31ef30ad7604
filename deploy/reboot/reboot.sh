#!/bin/sh
# A reboot, detached, so that the session ends before the host does; what refuses it stays in $refused for boot_id.sh.
set -eu
rm -f "${refused:?}"
(sleep 1; said=$(reboot 2>&1) || printf '%s\n' "${said:-reboot: exit status $?}" >"$refused") </dev/null >/dev/null 2>&1 &
