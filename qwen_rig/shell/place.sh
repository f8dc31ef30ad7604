# shellcheck shell=sh

place() { # of $place, a line NAME=FOLDER each: the data disk's folders made, ours alone, and the variables that say so
  while IFS= read -r pair <&8; do
    [ -n "$pair" ] || continue
    own_folder "${pair#*=}"
    export "${pair?}"
  done 8<<EOT
${place?}
EOT
  case $place in *TMPDIR=*) job_folder "$TMPDIR" ;; esac
}

readable() { # ENV: what lies in a record's place and is no file, or a link that leads nowhere, goes
  for each in "$1"/.rig/*.json "$1"/.rig/*.py "$1"/.rig/*.yaml "$1"/.rig/*.txt; do
    if [ -d "$each" ] || { [ -L "$each" ] && [ ! -e "$each" ]; }; then rm -rf "$each"; fi
  done
}
