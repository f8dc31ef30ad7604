# shellcheck shell=sh
# The way out: the proxy knob, the host's own proxy script, a download.

proxies() { # of $proxy: a URL; direct: none at all (a bundle is on loopback); empty: as the host has it
  case ${proxy?} in
    '') ;;
    direct) unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY ;;
    *) export http_proxy="$proxy" https_proxy="$proxy" HTTP_PROXY="$proxy" HTTPS_PROXY="$proxy" ;;
  esac
}

turbo() { # [FILE]: the host's own proxy script, where one is named and can be read
  if [ -n "$1" ] && [ -r "$1" ]; then
    wrong=$(unfit "$1")
    if [ -n "$wrong" ]; then
      printf '%s\n' "qwen-rig: the proxy script $wrong"
      return
    fi
    set +eu
    # shellcheck disable=SC1090  # the host's, or the one that the knob proxy_script names
    . "$1" >/dev/null 2>&1
    set -eu
  fi
}

download() { # URL TARGET: by curl or wget, or by apt's own downloader where neither is there
  if command -v curl >/dev/null; then
    curl -fsSL --retry 2 --connect-timeout 30 --speed-time 60 --speed-limit 1000 -o "$2" "$1"
  elif command -v wget >/dev/null; then
    wget -q --tries=2 --timeout=60 -O "$2" "$1"
  else
    /usr/lib/apt/apt-helper -o Acquire::http::Timeout=60 download-file "$1" "$2"
  fi
}
