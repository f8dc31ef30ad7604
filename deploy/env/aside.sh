# shellcheck shell=sh
# An env that isn't ours under another name, in which it works as before: each file of its own that says where it is (the
# #! lines of its programs, conda's activation scripts, the paths that conda wrote into compiled files) is told. Both
# names have one length, so that no compiled file changes its size.

step_aside() { # NAME OTHER: both below $root. What a kill leaves undone, moved_aside does
  printf '%s\n' "$1" "$2" >"${root:?}/.${name:?}.moved"
  mv -T "$root/$1" "$root/$2"
}

moved_aside() { # the env that stepped aside is told, where one has
  moved=${root:?}/.${name:?}.moved
  [ -f "$moved" ] || return 0
  { read -r was && read -r is; } <"$moved" || { rm -f "$moved" && return 0; }
  need_own "$root/$is" "$root/$was"
  if [ -d "$root/$is" ] && [ ! -L "$root/$is" ] && [ "${#was}" -eq "${#is}" ]; then told "$root/$was" "$root/$is"; fi
  rm -f "$moved"
}

told() { # FROM TO: what lies at TO speaks of TO. A name that only begins like FROM's is another env
  from=$(printf %s "$1" | sed 's/[][\\.*^$|]/\\&/g') to=$(printf %s "$2" | sed 's/[\\&|]/\\&/g')
  find "$2" -type f -exec grep -lF -e "$1" {} + | while IFS= read -r file; do
    LC_ALL=C sed -i -e "s|$from\\([^A-Za-z0-9._+~@-]\\)|$to\\1|g" -e "s|$from\$|$to|" "$file"
  done
  find "$2" -type l | while IFS= read -r file; do
    target=$(readlink "$file")
    case $target in "$1"/*) ln -sfn "$2${target#"$1"}" "$file" ;; esac
  done
}
