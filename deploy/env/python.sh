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
  own_rules
  if [ -n "${conda_lock?}" ]; then locked_python "$1" || return 1; else chosen_python "$1" "$2" || return 1; fi
  runs "$1" || {
    printf '%s\n' "qwen-rig: in the env that ${conda:?} made, Python $2 and pip don't run: set another conda_prefix"
    rm -rf "$1"
    return 1
  }
}

own_rules() { # what .condarc says of other envs isn't for ours: the environment goes before all files of that name
  # safety_checks: as it is, conda fills an env from a package that was cut off while it was unpacked, and only warns.
  export CONDA_SAFETY_CHECKS=enabled CONDA_OFFLINE=false CONDA_USE_ONLY_TAR_BZ2=false CONDA_REGISTER_ENVS=false \
    CONDA_NUMBER_CHANNEL_NOTICES=0 CONDA_ALWAYS_SOFTLINK=false CONDA_JSON=false CONDA_DRY_RUN=false \
    CONDA_DOWNLOAD_ONLY=false CONDA_REPORT_ERRORS=false
}

create() { # DIR, then conda's own arguments: of a failure, conda's own word for it comes last
  at=$1 tries=5
  shift
  said=$(mktemp "${TMPDIR:-/tmp}/said.XXXXXX")
  until "${conda:?}" create -y -q -p "$at" --no-default-packages "$@" 2>"$said"; do
    tries=$((tries - 1))
    if [ "$tries" -gt 0 ] && half_unpacked "$said"; then continue; fi
    cat "$said"
    error=$(sed -nE 's/^ *([a-z_]+\.)*([A-Z][a-z]+[A-Z][A-Za-z]*: *[^ ].*)/\2/p' "$said" | grep -v '^Clobber' | tail -n 1 |
      cut -c1-300)
    [ -n "$error" ] || error=$(grep -v '^ *$' "$said" | tail -n 1 | cut -c1-300)
    rm -f "$said"
    printf '%s\n' "qwen-rig: conda: ${error:-it failed and said nothing}$(condarc)"
    return 1
  done
  rm -f "$said"
}

half_unpacked() { # FILE: of what conda said; whether it named packages in its cache that aren't whole, which are gone now
  gone=1
  while IFS= read -r package <&8; do
    # A package lies beside conda's list of what it fetched; it is unpacked anew, from its archive or the channel.
    if [ -d "$package" ] && [ -e "${package%/*}/urls.txt" ] && owned "$package"; then rm -rf "$package" && gone=0; fi
  done 8<<EOT
$(sed -n 's/^\(CondaVerification\|Safety\)Error: The package for .* located at \(\/.*\)$/\2/p' "$1" | sort -u)
EOT
  return "$gone"
}

condarc() { # the files that told conda what to do, and of what; no value, as there are passwords among them
  base=${conda%/bin/conda}
  for file in /etc/conda/.condarc /etc/conda/condarc "$base/.condarc" "$base/condarc" "$HOME/.config/conda/.condarc" \
    "$HOME/.conda/.condarc" "$HOME/.conda/condarc" "$HOME/.condarc" ${CONDARC:+"$CONDARC"}; do
    [ -s "$file" ] && [ -r "$file" ] || continue
    keys=$(sed -n 's/^\([a-z_]\{1,40\}\) *:.*/\1/p' "$file" | head -n 20 | tr '\n' ' ')
    printf '%s' "; it was told by $file (${keys% })"
  done
}

chosen_python() { # DIR VERSION
  while IFS= read -r channel <&8; do
    rm -rf "$1"
    ! create "$1" --override-channels -c "$channel" "python=$2" pip || return 0
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
  create "$at" --offline "$@"
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
