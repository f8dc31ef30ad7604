#!/bin/sh
# EMULATED by the qwen-rig testbed: a stand-in for Miniforge's installer. It holds a stand-in for conda, no Python.
prefix=$HOME/miniforge3 batch='' update=''
while getopts bfhp:su option; do
  case $option in
    b) batch=1 ;;
    p) prefix=$OPTARG ;;
    u) update=1 ;;
    f|s) ;;
    *) echo "usage: $0 -b [-u] [-p PREFIX] (EMULATED by the qwen-rig testbed)"; exit 2 ;;
  esac
done
[ -n "$batch" ] || { echo "EMULATED by the qwen-rig testbed: batch mode only, -b" >&2; exit 1; }
if [ -e "$prefix" ] && [ -z "$update" ]; then
  echo "ERROR: File or directory already exists: '$prefix'" >&2
  echo "If you want to update an existing installation, use the -u option." >&2
  exit 1
fi
mkdir -p "$prefix" || exit 1
prefix=$(cd "$prefix" && pwd)
echo "PREFIX=$prefix"
echo "Unpacking payload ..."
sed '1,/^#PAYLOAD$/d' "$0" | tar -xzf - -C "$prefix" || exit 1
mkdir -p "$prefix/envs" "$prefix/pkgs"
echo "installation finished."
exit 0
#PAYLOAD
