#!/bin/sh
# EMULATED by the qwen-rig testbed: a stand-in for conda, for the few commands that its hosts need. It solves nothing:
# it takes from one channel the newest package of each name that was asked for, and what those depend on by name.
set -u
prefix=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
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
  package=$prefix/pkgs/$file
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

unpack() { # $package, the file $file, of which the channel says $line
  tar -xzf "$package" -C "$target" || exit 1
  if [ -f "$target/.userland" ]; then               # the channel's Python is the host's own, in a venv
    rm -f "$target/.userland"
    /usr/bin/python3 -m venv --copies --without-pip "$target" || exit 1
  fi
  if [ -f "$target/.has_prefix" ]; then
    while read -r path; do sed -i "s|@PREFIX@|$target|g" "$target/$path"; done <"$target/.has_prefix"
    rm -f "$target/.has_prefix"
  fi
  printf '%s\n' "$line" | sed 's/^[^{]*//; s/,$//' >"$target/conda-meta/${file%.tar.gz}.json"
  printf '+%s::%s\n' "$channel" "${file%.tar.gz}" >>"$target/conda-meta/history"
}

install_needed() { # what $line depends on
  for needed in $(printf '%s' "$line" | sed -n 's/.*"depends": \[\([^]]*\)\].*/\1/p' | tr -d '",'); do
    install_one "$needed"
  done
}

create() {
  target='' channel='' only='' specs='' dry='' files=''
  while [ $# -gt 0 ]; do
    case $1 in
      -y|--yes|--json) ;;
      --dry-run) dry=1 ;;
      -q|--quiet) quiet=1 ;;
      --offline) channel=offline ;;
      /*.tar.gz) files="$files $1" ;;
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
  case $channel in
    offline) [ -z "$specs" ] || die "conda (EMULATED by the qwen-rig testbed): --offline takes files alone" ;;
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
  mkdir -p "$target/conda-meta" "$prefix/pkgs" || exit 1
  target=$(cd "$target" && pwd)
  echo "# cmd: conda create $specs (EMULATED by the qwen-rig testbed)" >"$target/conda-meta/history"
  done_=''
  for spec in $specs; do install_one "$spec"; done
  for package in $files; do line='' file=${package##*/}; unpack; done
  mkdir -p "$HOME/.conda" && { grep -qxF "$target" "$HOME/.conda/environments.txt" 2>/dev/null ||
    echo "$target" >>"$HOME/.conda/environments.txt"; }
  say "done"
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
    [ "${2:-}" = list ] || die "conda (EMULATED by the qwen-rig testbed): env knows only list"
    { echo "$prefix"; environments; } ;;
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
  *) die "conda (EMULATED by the qwen-rig testbed): knows --version, create, info, env list and run, not: $*" ;;
esac
