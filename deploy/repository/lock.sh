#!/bin/sh
# apt's locks waited for; $lock_s: how long.
set -eu
unlocked
