# shellcheck shell=sh
# The way out: the proxy knob, the host's own proxy script, a download.

proxies() { # of $proxy: a URL; direct: none at all (a bundle is on loopback); empty: as the host has it
  # Who calls this calls no_tunnel from its trap of EXIT.
  case ${proxy?} in
    '') ;;
    direct)
      unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
      in_tunnel
      ;;
    *) export http_proxy="$proxy" https_proxy="$proxy" HTTP_PROXY="$proxy" HTTPS_PROXY="$proxy" ;;
  esac
}

in_tunnel() { # of $secret_tunnel: a token, a newline, an authority in PEM; empty: no tunnel
  # Each client reads the token in our file, never on its command line, and says it to nobody but the one whose
  # certificate that authority signed: another user may have taken the port. (netrc, for curl, apt, pip, uv and conda.)
  [ -n "${secret_tunnel?}" ] || return 0
  if [ "$(id -u)" = 0 ]; then tunnels=/var/lib/qwen-rig; else tunnels=${XDG_STATE_HOME:-$HOME/.local/state}/qwen-rig; fi
  tunnels=$tunnels/tunnels
  outside=$(export -p)
  tunnel=$(umask 077 && mkdir -p "$tunnels" && mktemp -d "$tunnels/XXXXXXXX")
  find "$tunnels" -mindepth 1 -maxdepth 1 -mmin +2880 -exec rm -rf {} + # of jobs that were killed: good for nothing now
  token=${secret_tunnel%%"
"*}
  (
    umask 077
    printf 'machine 127.0.0.1 login qwen-rig password %s\n' "$token" >"$tunnel/netrc"
    printf '%s\n' "${secret_tunnel#*"
"}" >"$tunnel/authority.pem"
    printf '%s = "%s"\n' netrc-file "$tunnel/netrc" cacert "$tunnel/authority.pem" >"$tunnel/.curlrc"
    printf '%s = %s\n' user qwen-rig password "$token" auth_no_challenge on ca_certificate "$tunnel/authority.pem" \
      >"$tunnel/wgetrc"
  )
  unset token secret_tunnel SSL_CERT_DIR
  export NETRC="$tunnel/netrc" CURL_HOME="$tunnel" WGETRC="$tunnel/wgetrc" SSL_CERT_FILE="$tunnel/authority.pem" \
    PIP_CERT="$tunnel/authority.pem" REQUESTS_CA_BUNDLE="$tunnel/authority.pem" CONDA_SSL_VERIFY="$tunnel/authority.pem"
}

outside_tunnel() { # for what comes from elsewhere: the host's own environment again; call it in a subshell
  [ -n "${tunnel:-}" ] || return 0
  unset NETRC CURL_HOME WGETRC SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE CONDA_SSL_VERIFY
  eval "$outside"
}

no_tunnel() {
  [ -z "${tunnel:-}" ] || rm -rf "$tunnel"
}

turbo() { # [FILE]: the host's own proxy script, where one is named and can be read
  if [ -n "$1" ] && [ -r "$1" ]; then
    wrong=$(unfit "$1")
    if [ -n "$wrong" ]; then
      printf '%s\n' "the proxy script $wrong"
      return
    fi
    set +eu
    # shellcheck disable=SC1090  # the host's, or the one that the knob proxy_script names
    . "$1" >/dev/null 2>&1
    set -eu
  fi
}

apt_in_tunnel() { # FILE AUTHORITY [LINE]: apt's configuration for it; apt.conf(5) reads the file before the host's own
  {
    printf 'Dir::Etc::netrc "%s";\n' "$tunnel/netrc"
    printf 'Acquire::https::127.0.0.1::%s "%s";\n' CaInfo "$2" Verify-Peer true Verify-Host true Proxy DIRECT
    printf '%s\n' "${3:-}"
  } >"$1"
  export APT_CONFIG="$1"
}

download() { # URL TARGET: by curl or wget, or by apt's own downloader where neither is there
  if command -v curl >/dev/null; then
    curl -fsSL --retry 2 --connect-timeout 30 --speed-time 60 --speed-limit 1000 -o "$2" "$1"
  elif command -v wget >/dev/null; then
    wget -q --tries=2 --timeout=60 -O "$2" "$1"
  else
    [ -z "${tunnel:-}" ] || apt_in_tunnel "$tunnel/apt.conf" "$tunnel/authority.pem" 'APT::Sandbox::User "root";'
    /usr/lib/apt/apt-helper -o Acquire::http::Timeout=60 download-file "$1" "$2"
  fi
}
