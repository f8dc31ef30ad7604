# shellcheck shell=sh
# Locks installed: by uv where it can be fetched, else by pip; from the best source, and from the next where one fails or
# serves other bytes than the lock's.
#   $wanted_installer          auto, uv or pip
#   $uv_version, $uv_lock      the installer itself, and its lock
#   $build_lock, $build_id     the lock of what packages are built with here, empty where none is built; its name
#   $pip_sources, $uv_sources  a line for each source, the best first: its label, then that installer's options

installers() { # before anything else here, and after `place`
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/qwen-rig
  uv=$cache/uv-${uv_version:?}/bin/uv tools=''
  own_folder "$cache" "${UV_CACHE_DIR:-${cache%/*}/uv}" "${PIP_CACHE_DIR:-${cache%/*}/pip}"
  need_own "$uv" "$cache/uv.new"
  temporary "$cache/tmp"
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore UV_NO_PROGRESS=1 UV_HTTP_TIMEOUT=120
}

labels() {
  printf '%s\n' "${pip_sources:?}" | cut -d' ' -f1
}

options() { # SOURCES LABEL
  while read -r label words; do
    if [ "$label" = "$2" ]; then
      printf %s "$words"
      return
    fi
  done <<EOT
$1
EOT
}

by_pip() { # LABEL, then pip's own arguments
  words=$(options "${pip_sources:?}" "$1")
  shift
  set -f
  # shellcheck disable=SC2086  # options: a URL has no blanks
  set -- $words "$@"
  set +f
  PYTHONPATH=$tools "$python" -E -m pip install -q "$@" # -E: for what it starts alone, not for pip itself
}

by_uv() { # LABEL, then uv's own arguments
  words=$(options "${uv_sources:?}" "$1")
  shift
  set -f
  # shellcheck disable=SC2086  # options: a URL has no blanks
  set -- $words "$@"
  set +f
  PYTHONPATH=$tools "$uv" pip install -q "$@"
}

get_uv() {
  [ "${wanted_installer:?}" != pip ] || return 1
  [ -x "$uv" ] && "$uv" --version >/dev/null 2>&1 && return 0
  { mkdir -p "$cache" && printf %s "${uv_lock:?}" >"$cache/uv.txt"; } || return 1
  tool "$cache/uv.txt" "$cache/uv.new" "${uv%/bin/uv}"
}

tool() { # LOCK WHILE WHERE: what a lock names, from the first source that has it, in a folder of its own
  for from in $(labels); do
    rm -rf "$2"
    by_pip "$from" --timeout 30 --require-hashes --only-binary :all: --no-deps --target "$2" -r "$1" || continue
    rm -rf "$3" && mv "$2" "$3" && return 0
  done
  return 1
}

get_tools() { # what packages are built with; with no isolation, no build asks an index for more
  kept=$cache/build-${build_id:?}
  need_own "$kept" "$kept.new"
  printf %s "$build_lock" >"$cache/build.txt"
  [ -d "$kept" ] || tool "$cache/build.txt" "$kept.new" "$kept" || {
    echo "qwen-rig: what source packages are built with can't be fetched as locked: check source_pip_index"
    exit 1
  }
  tools=$kept
}

pip_has_files() { # whether any of the files is there that pip's configuration is in (pip's documentation, "Configuration")
  [ -z "${PIP_CONFIG_FILE:-}${XDG_CONFIG_DIRS:-}" ] || return 0
  for each in "${XDG_CONFIG_HOME:-${HOME:-/root}/.config}/pip/pip.conf" "${HOME:-/root}/.pip/pip.conf" \
    /etc/pip.conf /etc/xdg/pip/pip.conf "${python%/bin/*}/pip.conf"; do
    [ ! -e "$each" ] || return 0
  done
  return 1
}

configured() { # uv doesn't read pip's configuration: where no source is named, both shall ask the same index
  [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] || return 0
  UV_DEFAULT_INDEX=${PIP_INDEX_URL:-}
  if [ -z "$UV_DEFAULT_INDEX" ] && pip_has_files; then # asked only then: pip takes a second to start
    UV_DEFAULT_INDEX=$("$python" -m pip config get global.index-url 2>/dev/null || :)
  fi
  if [ -n "$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX; else unset UV_DEFAULT_INDEX; fi
}

# uv links files out of its cache into envs: what somebody edits or tears in an env is so in the cache, too.
forget_cached() { # NAME…: what uv has of these packages in its cache goes
  [ ! -x "$uv" ] || env -u UV_NO_CACHE "$uv" cache clean -q "$@" >/dev/null 2>&1 || :
}

spoilt() { # ENV LOCK: the lock's packages there of which a file isn't as it was installed, a line each
  locked=$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/\1/p' "$2" | tr 'A-Z_.' 'a-z--')
  for site in "$1"/lib/python3.*/site-packages; do
    [ ! -d "$site" ] || (cd "$site" && torn)
  done | sed -n 's/^torn|\(.*\)-[^-|]*\.dist-info|.*/\1/p' | tr 'A-Z_.' 'a-z--' | grep -Fx -e "$locked" || :
}

whole_packages() { # ENV LOCK [OPTIONS]: as `packages`; and what came out of the cache in another shape is fetched anew
  env=$1 lock=$2
  shift 2
  packages "$env/bin/python" "$lock" "$@"
  names=$(spoilt "$env" "$lock") first=$source before=$refused
  [ -n "$names" ] || return 0
  # shellcheck disable=SC2086  # names of packages, a line each
  printf 'not as its record says, and fetched anew: %s\n' $names
  # shellcheck disable=SC2086
  forget_cached $names
  if [ "$by" = by_uv ]; then
    for each in $names; do set -- --reinstall-package "$each" "$@"; done
  else
    set -- --force-reinstall "$@"
  fi
  packages "$env/bin/python" "$lock" "$@"
  source=$first refused=$before$refused # most came from there
}

packages() { # PYTHON LOCK [OPTIONS]; sets installer, source (whose label) and refused (`label:why;` of those before it)
  python=$1 lock=$2 refused=''
  shift 2
  set -- --require-hashes "$@" -r "$lock"
  if [ -n "${build_lock?}" ]; then
    get_tools
    set -- --no-build-isolation "$@"
  else
    set -- --only-binary :all: "$@"
  fi
  configured
  if get_uv; then
    installer="uv $uv_version" by=by_uv
    set -- --python "$python" "$@"
  elif [ "$wanted_installer" = uv ]; then
    echo "qwen-rig: uv $uv_version can't be fetched and installer=uv: set installer=auto, or check source_pip_index"
    exit 1
  else
    installer=pip by=by_pip
    set -- --timeout 60 ${tools:+--use-pep517} "$@"
  fi
  forgotten=''
  for source in $(labels); do
    said=$(mktemp) # what an installer says, its owner's to read
    while :; do
      if "$by" "$source" "$@" >"$said" 2>&1; then
        cat "$said"
        rm -f "$said"
        return 0
      fi
      bad=$(sed -n 's/.*Failed to install: [^ ]* (\([A-Za-z0-9._-]*\)==.*/\1/p' "$said" | head -n 1) # torn in uv's cache
      case " $forgotten " in *" $bad "*) break ;; esac # none, or once fetched anew
      forgotten="$forgotten $bad"
      forget_cached "$bad"
    done
    cat "$said"
    if grep -qi 'hash' "$said"; then why='other bytes than the lock names'; else why='failed'; fi
    rm -f "$said"
    refused="$refused$source:$why;"
    echo "source $source: $why"
  done
  exit 1
}

torch_apart() { # ENV: the torch packages from an index of their own, by the installer that the rest came by
  # $torch_lock: they, empty where they are in the lock; $torch_pip, $torch_uv: a line of options for each source
  [ -n "${torch_lock?}" ] || return 0
  python=$1/bin/python torch=$1/.rig/torch.txt
  printf %s "$torch_lock" >"$torch"
  if [ "$installer" = pip ]; then list=${torch_pip:?}; else list=${torch_uv:?}; fi
  while IFS= read -r words <&8; do
    set -f
    # shellcheck disable=SC2086  # options: a URL has no blanks
    set -- $words --only-binary :all: -r "$torch"
    set +f
    if [ "$installer" = pip ]; then
      (outside_tunnel && "$python" -E -m pip install -q --timeout 60 "$@") && return 0
    else
      (outside_tunnel && "$uv" pip install -q --python "$python" "$@") && return 0
    fi
  done 8<<EOT
$list
EOT
  return 1
}
