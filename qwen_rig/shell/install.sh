#!/bin/sh
# What compiles; $groups: a line of packages each.
set -eu
trap no_tunnel EXIT
proxies
through
update
packages
