#!/bin/sh
# By root: the file in which the user $uid tells others on this host which run has its GPUs. The folder is root's, so that
# a file is about its owner; what stands in it is that user's word. Prints its path.
set -eu
: "${uid:?}"
folder=/run/qwen-rig/gpu
umask 022
own_folder "${folder%/*}" "$folder"
[ -f "$folder/$uid" ] && [ ! -L "$folder/$uid" ] || {
  rm -rf "${folder:?}/$uid"
  : >"$folder/$uid"
}
chmod 644 "$folder/$uid"
chown "$uid" "$folder/$uid"
echo "$folder/$uid"
