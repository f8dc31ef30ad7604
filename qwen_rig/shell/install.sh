#!/bin/sh
# What compiles; $groups: a line of packages each.
set -eu
proxies
through
update
packages
