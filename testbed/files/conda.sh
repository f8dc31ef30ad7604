#!/bin/sh
# EMULATED by the qwen-rig testbed: a stand-in for conda, for the few commands that its hosts need. It solves nothing:
# it takes from one channel the newest package of each name that was asked for, and what those depend on by name.
set -u
prefix=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
pkgs=${CONDA_PKGS_DIRS:-$prefix/pkgs}
say() { [ -n "${quiet:-}" ] || echo "$@"; }
die() { echo "$@" >&2; exit 1; }

fetch() { # URL file
  if command -v curl >/dev/null; then
    curl -fsSL --connect-timeout 10 --speed-limit 1 --speed-time 60 -o "$2" "$1" 2>"$scratch/said"
  else
    wget -q --tries=1 --timeout=60 -O "$2" "$1" 2>"$scratch/said"
  fi && return
  case $(cat "$scratch/said") in
    *404*) die "UnavailableInvalidChannel: HTTP 404 NOT FOUND for channel $channel <$1>" ;;
    *) die "CondaHTTPError: HTTP 000 CONNECTION FAILED for url <$1> ($(cat "$scratch/said"))" ;;
  esac
}

field() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p"; }

install_one() { # spec: name, name=version or name==version
  name=${1%%[=<>]*} version=$(printf '%s' "${1#"$name"}" | tr -d '=')
  case " $done_ " in *" $name "*) return ;; esac
  done_="$done_ $name"
  pattern=$(printf '%s' "$version" | sed 's/\./\\./g')${version:+(\\.|\")}
  line=$(grep -h "\"name\": \"$name\"" "$scratch"/*.json | grep -E "\"version\": \"$pattern" | tail -n 1)
  [ -n "$line" ] || die "PackagesNotFoundError: $1 is not in $channel"
  file=$(printf '%s' "$line" | sed 's/^ *"\([^"]*\)".*/\1/')
  subdir=$(printf '%s' "$line" | field subdir) sha256=$(printf '%s' "$line" | field sha256)
  if [ -n "$dry" ]; then
    printf '%s\n' "$line" | sed "s|^ *\"[^\"]*\": {|{\"fn\": \"$file\", \"url\": \"$channel/$subdir/$file\", |; s|},\$|}|" >>"$scratch/fetch"
    install_needed; return
  fi
  package=$pkgs/$file
  if [ ! -f "$package" ] || ! echo "$sha256  $package" | sha256sum -c --quiet - >/dev/null 2>&1; then
    say "Downloading $file"
    fetch "$channel/$subdir/$file" "$package.part"
    echo "$sha256  $package.part" | sha256sum -c --quiet - >/dev/null 2>&1 ||
      { rm -f "$package.part"; die "ChecksumMismatchError: $channel/$subdir/$file is not $sha256"; }
    mv "$package.part" "$package" || exit 1
  fi
  unpack
  install_needed
}

unpack() { # $package, the file $file, of which the channel says $line: unpacked in the cache, verified there, linked
  at=$pkgs/${file%.conda}
  : >>"$pkgs/urls.txt"
  if [ -n "${sha256:-}" ] && [ "$(cat "$at/info/sha256" 2>/dev/null)" != "$sha256" ]; then rm -rf "$at/info"; fi
  if [ ! -d "$at/info" ]; then # as conda does: what is there with its info counts as whole
    rm -rf "$at"
    mkdir -p "$at" || exit 1
    for part in info pkg; do
      unzip -p "$package" "$part-*.tar.zst" | zstd -dcq | tar -xf - -C "$at" || exit 1
    done
    printf %s "${sha256:-}" >"$at/info/sha256"
  fi
  [ -n "$line" ] || line=$(cat "$at/info/index.json")
  verify
  (cd "$at" && find . -mindepth 1 -maxdepth 1 ! -name info -exec cp -al {} "$target/" \; 2>/dev/null) ||
    (cd "$at" && find . -mindepth 1 -maxdepth 1 ! -name info -exec cp -a {} "$target/" \;) || exit 1
  if [ -f "$target/.userland" ]; then               # the channel's Python is the host's own, in a venv
    rm -f "$target/.userland"
    /usr/bin/python3 -m venv --copies --without-pip "$target" || exit 1
  fi
  rows | sed -n 's/.*"_path": "\([^"]*\)".*"prefix_placeholder": "\([^"]*\)".*/\2 \1/p' | while read -r holder path; do
    sed -i "s|$holder|$target|g" "$target/$path"
  done
  { printf '%s\n' "$line" | sed 's/^[^{]*//; s/},\{0,1\}$//'; printf ', "paths_data": '; cat "$at/info/paths.json"; echo '}'; } |
    tr -d '\n' | sed 's/\([{,]\) *\("[a-z0-9_]*":\)/\1\n  \2/g' >"$target/conda-meta/${file%.conda}.json" # a key a line, as conda has it
  printf '+%s::%s\n' "$channel" "${file%.conda}" >>"$target/conda-meta/history"
}

rows() { sed 's/}, {/\n/g' "$at/info/paths.json"; }

verify() { # as conda 26.7.1 words it; by size only where safety_checks is enabled, else it warns and goes on
  rows | sed -n 's/.*"_path": "\([^"]*\)", "path_type": "hardlink".*"size_in_bytes": \([0-9]*\).*/\2 \1/p' | sort >"$scratch/told"
  (cd "$at" && find . -type f ! -path './info/*' -printf '%s %P\n') | sort >"$scratch/there"
  comm -23 "$scratch/told" "$scratch/there" >"$scratch/wrong"
  bad=''
  while read -r size path; do
    if [ ! -e "$at/$path" ]; then
      printf '\nCondaVerificationError: The package for %s located at %s\nappears to be corrupted. The path %s\n' \
        "${file%%-[0-9]*}" "$at" "'$path'" >&2
      printf 'specified in the package manifest cannot be found.\n\n' >&2
      bad=1
    else
      printf '\nSafetyError: The package for %s located at %s\nappears to be corrupted. The path %s\n' \
        "${file%%-[0-9]*}" "$at" "'$path'" >&2
      printf 'has an incorrect size.\n  reported size: %s bytes\n\n' "$size" >&2
      [ "${CONDA_SAFETY_CHECKS:-warn}" != enabled ] || bad=1
    fi
  done <"$scratch/wrong"
  [ -z "$bad" ] || { echo "Verifying transaction: ...working... failed"; exit 1; }
}

install_needed() { # what $line depends on
  for needed in $(printf '%s' "$line" | sed -n 's/.*"depends": \[\([^]]*\)\].*/\1/p' | tr -d '",'); do
    install_one "$needed"
  done
}

create() {
  target='' channel='' only='' specs='' dry='' files='' defaults=$(condarc create_default_packages)
  while [ $# -gt 0 ]; do
    case $1 in
      -y|--yes|--json) ;;
      --dry-run) dry=1 ;;
      -q|--quiet) quiet=1 ;;
      --offline) channel=offline ;;
      --no-default-packages) defaults='' ;;
      /*.conda) files="$files $1" ;;
      --override-channels) only=1 ;;
      -p|--prefix) target=$2; shift ;;
      -n|--name) target=$prefix/envs/$2; shift ;;
      -c|--channel) channel=${2%/}; shift ;;
      -*) die "conda (EMULATED by the qwen-rig testbed): create knows no option $1" ;;
      *) specs="$specs $1" ;;
    esac
    shift
  done
  [ -n "$target" ] || die "ArgumentError: one of the arguments -n/--name -p/--prefix is required"
  [ -n "$only" ] && [ -n "$channel" ] || [ -n "$files" ] ||
    die "conda (EMULATED by the qwen-rig testbed): only a named channel: --override-channels -c URL"
  [ "${CONDA_OFFLINE:-$(condarc offline)}" != true ] || [ "$channel" = offline ] ||
    die "PackagesNotFoundInChannelsError: The following packages are not available from current channels:$specs"
  specs="$specs $defaults"
  case $channel in
    offline) [ -z "${specs# }" ] || die "conda (EMULATED by the qwen-rig testbed): --offline takes files alone" ;;
    http://*|https://*|file://*) ;;
    *) die "CondaHTTPError: HTTP 000 CONNECTION FAILED for channel $channel: this host has no route out" ;;
  esac
  scratch=$(mktemp -d) || exit 1
  trap 'rm -rf "$scratch"' EXIT
  [ -n "$files" ] || for subdir in linux-64 noarch; do fetch "$channel/$subdir/repodata.json" "$scratch/$subdir.json"; done
  if [ -n "$dry" ]; then # --dry-run --json: what would be fetched, in conda's own form
    done_=''
    for spec in $specs; do install_one "$spec"; done
    printf '{"actions": {"FETCH": [%s]}, "dry_run": true, "success": true, "note": "EMULATED by the qwen-rig testbed"}\n' \
      "$(paste -sd, "$scratch/fetch")"
    return
  fi
  if [ -e "$target" ]; then
    [ -d "$target/conda-meta" ] || die "DirectoryNotACondaEnvironmentError: $target exists and is no environment"
    rm -rf "$target"
  fi
  mkdir -p "$target/conda-meta" "$pkgs" || exit 1
  target=$(cd "$target" && pwd)
  echo "# cmd: conda create $specs (EMULATED by the qwen-rig testbed)" >"$target/conda-meta/history"
  done_=''
  for spec in $specs; do install_one "$spec"; done
  for package in $files; do # a file that is named is unpacked anew
    line='' sha256='' file=${package##*/}
    rm -rf "${pkgs:?}/${file%.conda}"
    unpack
  done
  [ "${CONDA_REGISTER_ENVS:-true}" = false ] || {
    mkdir -p "$HOME/.conda" && { grep -qxF "$target" "$HOME/.conda/environments.txt" 2>/dev/null ||
      echo "$target" >>"$HOME/.conda/environments.txt"; }
  }
  say "done"
}

condarc() { # KEY: its value in ~/.condarc, or the items of its list
  sed -n "/^$1:/{s/^$1: *//; s/[][,]/ /g; p; :l; n; s/^ *- */ /p; t l; q}" "$HOME/.condarc" 2>/dev/null | tr '\n' ' ' |
    sed 's/^ *//; s/ *$//'
}

remove() { # -n NAME --all [--override-frozen]: what conda put there goes, by way of a link too; then the env's name
  name='' all='' forced=''
  while [ $# -gt 0 ]; do
    case $1 in
      -n|--name) name=$2; shift ;;
      --all) all=1 ;;
      --override-frozen) forced=1 ;;
      -y|--yes) ;;
      *) die "conda (EMULATED by the qwen-rig testbed): remove knows no $1" ;;
    esac
    shift
  done
  target=$prefix/envs/$name
  [ -n "$all" ] && [ -d "$target/conda-meta" ] || die "EnvironmentLocationNotFound: Not a conda environment: $target"
  [ -n "$forced" ] || not_frozen
  for record in "$target"/conda-meta/*-*-*.json; do
    [ -e "$record" ] || continue
    file=${record##*/}
    while read -r path; do rm -f "$target/$path"; done <"$pkgs/${file%.json}/info/files"
  done
  rm -rf "$target/conda-meta"
  if [ -L "$target" ]; then rm "$target"; else rm -rf "$target"; fi
}

not_frozen() { # CEP 22, as conda 26.7.1 words it
  [ ! -e "$target/conda-meta/frozen" ] || die "
EnvironmentIsFrozenError: Cannot modify '$target'. The environment is marked as frozen. Reason:

    $(sed 's/.*"message": "\(.*\)".*/\1/' "$target/conda-meta/frozen")

You can bypass these protections with the \`--override-frozen\` flag, at your own risk."
}

environments() { for env in "$prefix"/envs/*/ "$prefix"/envs/.[!.]*/; do [ -d "${env}conda-meta" ] && echo "${env%/}"; done; }

case ${1:-} in
  --version|-V) echo "conda @VERSION@" ;;
  create) shift; create "$@" ;;
  info)
    printf '{\n  "conda_version": "@VERSION@",\n  "root_prefix": "%s",\n  "platform": "linux-64",\n  "envs": [' "$prefix"
    { echo "$prefix"; environments; } | sed 's/.*/"&"/' | paste -sd, | tr -d '\n'
    printf '],\n  "note": "EMULATED by the qwen-rig testbed"\n}\n' ;;
  env)
    case ${2:-} in
      list) { echo "$prefix"; environments; } ;;
      remove) shift 2; remove --all "$@" ;;
      *) die "conda (EMULATED by the qwen-rig testbed): env knows only list and remove" ;;
    esac ;;
  remove) shift; remove "$@" ;;
  install)
    [ "${2:-}" = -n ] || die "conda (EMULATED by the qwen-rig testbed): install -n NAME alone"
    target=$prefix/envs/$3
    not_frozen
    die "conda (EMULATED by the qwen-rig testbed): installs into no env that is there" ;;
  run)
    shift
    env=$prefix
    while [ $# -gt 0 ]; do
      case $1 in
        -p|--prefix) env=$2; shift 2 ;;
        -n|--name) env=$prefix/envs/$2; shift 2 ;;
        --no-capture-output|--live-stream) shift ;;
        *) break ;;
      esac
    done
    [ -d "$env/conda-meta" ] || die "EnvironmentLocationNotFound: $env"
    CONDA_PREFIX=$env PATH=$env/bin:$PATH exec "$@" ;;
  *) die "conda (EMULATED by the qwen-rig testbed): knows --version, create, info, env, remove, install and run, not: $*" ;;
esac
