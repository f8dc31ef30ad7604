# shellcheck shell=sh

sweep() { # GENERATION BEFORE: all others of this env's name go: they neither run nor would be gone back to
  # An env whose name goes on after ours is not ours: what follows it must be a lock's id and a number.
  hex='[0-9a-f]'
  ours=.${name:?}-$hex$hex$hex$hex$hex$hex$hex$hex$hex$hex$hex$hex
  # shellcheck disable=SC2231,SC2254  # $ours is a pattern
  for other in "${root:?}"/$ours-*; do
    case ${other##*/} in "$1" | "$2" | $ours-*[!0-9]*) ;; *) rm -rf "$other" ;; esac
  done
}

lock_env() { # one builder at a time: a run whose connection broke may still be at work on the host
  own_folder "${root:?}"
  exec 9>"$root/.${name:?}.lock"
  flock -w 60 9 || {
    echo "qwen-rig: another run is building this env (lock $root/.$name.lock): wait for it"
    exit 75
  }
}
