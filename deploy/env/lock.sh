# shellcheck shell=sh

lock_env() { # one builder at a time: a run whose connection broke may still be at work on the host
  own_folder "${root:?}"
  exec 9>"$root/.${name:?}.lock"
  flock -w 60 9 || {
    echo "qwen-rig: another run is building this env (lock $root/.$name.lock): wait for it"
    exit 75
  }
}
