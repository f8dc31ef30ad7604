#!/bin/sh
# Whether $name in $folder has the sha256 $sha256: there, or absent. The folder is made.
set -eu
: "${folder:?}" "${name:?}" "${sha256:?}"
own_folder "$folder"
if [ -f "$folder/$name" ] && echo "$sha256  $folder/$name" | sha256sum -c - >/dev/null 2>&1; then
  echo there
else
  echo absent
fi
