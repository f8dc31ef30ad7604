#!/bin/sh
# apt's locks waited for; $lock_s: how long.
set -eu
command -v apt-get >/dev/null || exit 0
unlocked
