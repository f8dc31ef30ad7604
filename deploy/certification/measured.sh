#!/bin/sh
# What was measured, as it was written to the file $1.
set -eu
cat "$1"
