#!/bin/sh
# A reboot, detached, so that the session ends before the host does.
set -eu
(sleep 1; reboot) </dev/null >/dev/null 2>&1 &
