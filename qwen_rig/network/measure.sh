#!/bin/sh
# One small file from each candidate, timed and hashed, by curl or wget. Prints a row for each: role, label, bytes,
# milliseconds and verdict, with tabs between; the defaults first, all at once, and the mirrors of a role only where its
# default isn't good.
#   $asked   a line for each candidate, with tabs between: role, label, the proxy script to read before (- for none), URL,
#            and for a package index project, version and the sha256 of each locked file
#   $limit   seconds for each file; $enough: bytes a second by which a default is good
: "${asked?}" "${limit:?}" "${enough:?}"
set +e

get() { # url file [range]
  if command -v curl >/dev/null 2>&1; then
    curl -fsSL --connect-timeout "$limit" --max-time "$limit" ${3:+-r "$3"} -w '%{url_effective}' -o "$2" "$1" \
      >"$2.url" 2>"$2.err"
  elif command -v wget >/dev/null 2>&1; then
    printf '%s' "$1" >"$2.url"
    timeout -k 1 "$limit" wget -q --tries=1 ${3:+--header="Range: bytes=$3"} -O "$2" "$1" 2>"$2.err"
  else
    echo "unmeasured" >"$2.err"; return 99
  fi
}
ms() { n=$(date +%s%N); case $n in *N) n=${n%N}000000000 ;; esac; echo $((n / 1000000)); }
link() { # page-file page-url version hash…: the address of a locked file on an index page, by hash, else by version
  page=$1 from=$2 version=$3; shift 3
  # shellcheck disable=SC2020  # one newline for each
  tr '<>' '\n\n' <"$page" | sed -n 's/^a .*href="\([^"]*\)".*/\1/p' >"$page.links"
  href=
  for hash in "$@"; do href=$(grep -F "$hash" "$page.links" | head -n 1); [ -z "$href" ] || break; done
  [ -n "$href" ] || href=$(grep -v 'sha256=' "$page.links" | grep -F -e "-$version-" -e "-$version.tar" | head -n 1)
  [ -n "$href" ] || return 1
  href=$(printf '%s' "${href%%#*}" | sed 's/&amp;/\&/g')
  rest=${from#*://} origin=${from%%://*}; origin=$origin://${rest%%/*}
  case $href in
    *://*) printf '%s' "$href" ;;
    //*) printf '%s' "${from%%:*}:$href" ;;
    /*) printf '%s' "$origin$href" ;;
    *) printf '%s' "${from%/*}/$href" ;;
  esac
}
row() { # role label url [project version hash…]
  role=$1 label=$2 url=$3 f=$dir/$1.$2 range=0-1048575 verdict=ok; shift 3
  if [ $# -gt 0 ]; then
    range=
    if ! get "${url%/}/$1/" "$f.page"; then
      say 0 1 "$(tail -n 1 "$f.page.err")"; return
    fi
    project=$1 version=$2; shift 2
    url=$(link "$f.page" "$(cat "$f.page.url")" "$version" "$@") || {
      say 0 1 "it has no $project $version with a locked hash"; return; }
  fi
  start=$(ms)
  get "$url" "$f" "$range"; code=$?
  took=$(($(ms) - start))
  bytes=$(wc -c <"$f" 2>/dev/null || echo 0)
  if [ "$code" = 0 ]; then
    got=$(sha256sum <"$f")
    case " $* " in "  "|*" ${got%% *} "*) ;; *) verdict=lies ;; esac
  elif [ "$code" = 28 ] || [ "$code" = 124 ]; then
    verdict=slow; [ "$bytes" -gt 0 ] || verdict="no answer within $limit s"
  else
    verdict=$(tail -n 1 "$f.err"); verdict=${verdict:-failed with exit $code}
  fi
  say $((bytes + 0)) $((took + 0)) "$verdict"
}
say() { printf '%s\t%s\t%s\t%s\t%s\n' "$role" "$label" "$1" "$2" "$(printf '%s' "$3" | tr '\t' ' ')"; }
good() { # out-file: whether this default needs no rival
  IFS='	' read -r _ _ bytes took verdict <"$1" || return 1
  [ "$verdict" = ok ] && [ $((bytes * 1000 / (took + 1))) -ge "$enough" ]
}

ask() { # script role label url [project version hash…]: the row in a file of its own, in the background
  script=$1
  shift
  (
    [ "$script" = - ] || turbo "$script"
    set +e
    row "$@"
  ) >"$dir/$1.$2.row" 8<&- &
}

each() { # default|rival: ask those; a rival only where its role's default isn't good
  while IFS='	' read -r role label script url locked <&8; do
    kind=rival
    [ "$label" != default ] || kind=default
    [ "$kind" = "$1" ] || continue
    if [ "$kind" = rival ] && good "$dir/$role.default.row" 2>/dev/null; then continue; fi
    # shellcheck disable=SC2086  # project, version and hashes
    ask "$script" "$role" "$label" "$url" $locked
  done 8<<EOT
$asked
EOT
  wait
}

proxies
temporary "${XDG_CACHE_HOME:-$HOME/.cache}/qwen-rig/tmp"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"; no_tunnel' EXIT
each default
each rival
cat "$dir"/*.row 2>/dev/null
exit 0
