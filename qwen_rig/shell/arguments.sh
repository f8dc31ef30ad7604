# shellcheck shell=sh
# The arguments of a program: one line of standard input, so that no command line shows them. Each word is in base64
# with a dot behind, which keeps the newlines at its end: NAME=VALUE for each variable, `--`, the positional parameters.
# The names are the controller's own: lower-case letters, digits, underscores.
IFS= read -r words || exit 65
set --
for word in $words; do
  word=$(printf %s "$word" | base64 -d) || exit 65
  set -- "$@" "${word%.}"
done
while [ "$1" != -- ]; do
  eval "${1%%=*}=\${1#*=}"
  shift
done
shift
unset words word
