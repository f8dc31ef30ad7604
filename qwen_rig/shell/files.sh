# shellcheck shell=sh

write() { # PATH TEXT: a file of the system's, whole or not at all: a full disk leaves what was there
  mkdir -p "$(dirname "$1")"
  printf %s "$2" >"$1.new"
  chmod 644 "$1.new"
  mv "$1.new" "$1"
}
