#!/bin/sh
# What guards the driver: files ("$@": path and text in turn), then the initramfs. $sign with $sign_text is the last file
# and the sign that all is done: without it, a run that broke off here is one to be repeated.
set -eu
: "${sign:?}" "${sign_text:?}"
rm -f "$sign"
while [ $# -gt 0 ]; do
  write "$1" "$2"
  shift 2
done
if command -v update-initramfs >/dev/null; then update-initramfs -u; fi
write "$sign" "$sign_text"
