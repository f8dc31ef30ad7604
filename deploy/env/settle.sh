# shellcheck shell=sh
# What makes a generation, filled and proven, fit to stand at the env's name.

register() { # LINK: for conda and for our own look later, under the one name that the env goes by
  list=$HOME/.conda/environments.txt
  own_folder "$HOME/.conda"
  need_own "$list"
  [ -e "$list" ] && grep -qxF -e "$1" "$list" || printf '%s\n' "$1" >>"$list"
}

name_for_conda() { # LINK KNOWN_AS: `conda activate NAME` looks in conda's own folders, and a data disk is none
  known=$2
  if [ -n "$known" ] && owned "$known"; then
    mkdir -p "${known%/*}"
    case $(readlink "$known" 2>/dev/null || :) in */qwen-rig/envs/"${1##*/}") rm -f "$known" ;; esac
    [ -e "$known" ] || [ -L "$known" ] || ln -s "$1" "$known"
  fi
  # Of the same env under two names, conda lists both: it is told one.
  if [ -n "$known" ] && [ "$(readlink "$known" 2>/dev/null)" = "$1" ]; then register "$known"; else register "$1"; fi
}

settle() { # GENERATION LINK
  # Where conda installs here, it takes for its own what the lock holds: it refuses instead, and says why (CEP 22; conda
  # before 25.5 doesn't look).
  [ ! -d "$1/conda-meta" ] || printf '{"message": "%s"}\n' "qwen-rig made this env from a lock. Its pip adds packages; \
\`conda create -n NAME --clone $2\` makes an env of your own." >"$1/conda-meta/frozen"
  # Its programs start by the link: conda knows the env by that name, and puts the new one into a clone's.
  for program in "$1"/bin/*; do
    [ -f "$program" ] && [ ! -L "$program" ] || continue
    IFS= read -r first <"$program" 2>/dev/null || continue
    case $first in "#!$1/bin/python"*) ;; *) continue ;; esac
    cp -p "$program" "$program.new"
    { printf '#!%s\n' "$2/bin/python${first#"#!$1/bin/python"}" && tail -n +2 "$program"; } >"$program.new"
    mv "$program.new" "$program"
  done
}
