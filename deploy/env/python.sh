# shellcheck shell=sh
# An empty env with Python and pip.
#   $conda, $channels         conda, and the channels, one a line, the best first
#   $conda_lock, $addresses   a line for each file, its path below a channel and its sha256; the same channels by address
#                             Empty: conda chooses, and checks what it gets by the channel's own sums

conda_state() { # DIR: what conda has done there, as a checksum
  (cd "$1/conda-meta" && cksum history ./*.json) 2>/dev/null | cksum
}

as_we_left() { # DIR: whether our build was cut off there, and nobody else has been at its Python since
  [ -s "$1/.rig/python" ] && [ "$(cat "$1/.rig/python")" = "$(conda_state "$1")" ] && runs "$1"
}

runs() { # DIR: whether the Python that was asked for runs there, and finds its pip
  "$1/bin/python" -E -c 'import sys, pip
sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "${python_version:?}"
}

python_env() { # DIR VERSION
  if [ -n "${conda_lock?}" ]; then locked_python "$1"; else chosen_python "$1" "$2"; fi
}

chosen_python() { # DIR VERSION
  while IFS= read -r channel <&8; do
    rm -rf "$1"
    ! "${conda:?}" create -y -q -p "$1" --override-channels -c "$channel" "python=$2" pip || return 0
  done 8<<EOT
${channels:?}
EOT
  return 1
}

locked_python() { # DIR: conda is given files that are checked, and asks no channel
  at=$1 store=${cache:?}/conda
  mkdir -p "$store"
  set --
  while read -r path digest <&8; do
    locked_file "$path" "$digest" || {
      echo "qwen-rig: no channel has $path with the locked sha256: check source_conda_channel, or \`make pins\` anew"
      return 1
    }
    set -- "$@" "$store/${path##*/}"
  done 8<<EOT
$conda_lock
EOT
  rm -rf "$at"
  "${conda:?}" create -y -q -p "$at" --offline "$@"
}

locked_file() { # PATH SHA256: in $store, from the first channel that has these bytes
  file=$store/${1##*/}
  ! is_locked "$2" "$file" || return 0
  while IFS= read -r from <&7; do
    if download "$from/$1" "$file.new" && is_locked "$2" "$file.new"; then
      mv "$file.new" "$file"
      return 0
    fi
    rm -f "$file.new"
  done 7<<EOT
${addresses:?}
EOT
  return 1
}

is_locked() { # SHA256 FILE
  echo "$1  $2" | sha256sum -c --quiet - >/dev/null 2>&1
}
