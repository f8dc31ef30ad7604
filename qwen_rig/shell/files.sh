# shellcheck shell=sh

write() { # PATH TEXT: a file of the system's, whole or not at all: a full disk leaves what was there
  own_folder "${1%/*}"
  need_own "$1" "$1.new"
  printf %s "$2" >"$1.new"
  chmod 644 "$1.new"
  mv "$1.new" "$1"
}
