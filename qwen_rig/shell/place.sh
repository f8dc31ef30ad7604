# shellcheck shell=sh

place() { # of $place, a line NAME=FOLDER each: the data disk's folders made, and the variables that send things there
  while IFS= read -r pair <&8; do
    [ -n "$pair" ] || continue
    mkdir -p "${pair#*=}"
    export "${pair?}"
  done 8<<EOT
${place?}
EOT
}
