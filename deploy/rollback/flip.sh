#!/bin/sh
# The link of the env $name in $root, which goes to $now, goes back to $before; an env that was no generation gets its
# own name again.
set -eu
: "${root:?}" "${name:?}" "${now:?}" "${before:?}"
link=$root/$name
need_own "$link" "$root/$before/bin/python"
exec 9>"$root/.$name.lock"
flock -w 5 9 || {
  echo "qwen-rig: another run is building this env: wait for it"
  exit 75
}
[ "$(readlink "$link")" = "$now" ] || {
  echo "qwen-rig: the env has changed meanwhile: run the same command again"
  exit 1
}
moved_aside
[ -x "$root/$before/bin/python" ] || {
  echo "qwen-rig: $root/$before is gone, there is nothing to go back to: run rig plan"
  exit 1
}
case $before in
  ."$name"-*)
    ln -sfn "$before" "$link.new"
    mv -T "$link.new" "$link"
    ;;
  *)
    mv -T "$link" "$link.undone"
    step_aside "$before" "$name"
    moved_aside
    rm -f "$link.undone"
    ;;
esac
