# shellcheck shell=sh
# Root's jobs and each user's own, apart; the host keeps them over a reboot, which is how a reboot is told.
# shellcheck disable=SC2034  # for start.sh and poll.sh
if [ "$(id -u)" = 0 ]; then b=/var/lib/qwen-rig; else b=${XDG_STATE_HOME:-$HOME/.local/state}/qwen-rig; fi
