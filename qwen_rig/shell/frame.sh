# shellcheck shell=sh
# A command's output between two lines of its own, so that what a login shell's start-up files print before it, and its
# traps after it, is told from it. $1 what marks the lines, $2 the command.
printf '\n%s\n' "$1"
sh -c "$2"
code=$?
printf '\n%s %s\n' "$1" "$code"
exit "$code"
