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
