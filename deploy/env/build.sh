#!/bin/sh
# The env in a generation of its own: created, filled from the lock on standard input, its import proven, its record
# written, then the link flipped.
#   $root, $name, $generation  the folder of the envs; the link there; the new env there, to which the link goes
#   $known_as                  a link by which conda finds that by its name; empty: conda looks in $root
#   $conda, …                  what python.sh takes
#   $python_version            for the env
#   $lock_options              of the installer; $afresh: not empty where the caches must not serve
#   $import_gate               the statement that must run
#   $made                      the record, a JSON object, but for what is known here only
#   $aside                     the name that the user's own env gets; empty: the env is our link, or absent
set -eu
: "${root:?}" "${name:?}" "${generation:?}" "${python_version:?}" "${lock_options?}" \
  "${afresh?}" "${import_gate:?}" "${made:?}" "${aside?}" "${known_as?}"
lock_env
place
trap no_tunnel EXIT
proxies
installers
new=$root/$generation
need_own "${conda:?}" "$new/bin/python" "$new/.rig" "$root/$name" "${cache:?}"
moved_aside
readable "$new"
if [ ! -f "$new/.rig/env.json" ] && ! as_we_left "$new"; then
  python_env "$new" "$python_version" || exit 1
  mkdir -p "$new/.rig" && conda_state "$new" >"$new/.rig/python"
fi
cat >"$new/.rig/lock.txt"
# In an env that was left aside whole: nothing, or what it lost.
[ -z "$afresh" ] || export UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1
whole_packages "$new" "$new/.rig/lock.txt" ${lock_options:+"$lock_options"}
torch_apart "$new"
timeout -k 10 600 "$new/bin/python" -c "$import_gate" || {
  rm -rf "$new" # no use to resume it: the next run builds anew
  printf '%s\n' "qwen-rig: the new env can't do «$import_gate», the old env is untouched: take another stack, or mend its lock"
  exit 1
}
link=$root/$name
settle "$new" "$link"
old=$(readlink "$link" 2>/dev/null || true)
# Its record was lost, and what was before it with that; or the link was conda's name for an env on a disk that is gone.
case $old in "$generation" | /*) old='' ;; esac
if [ -e "$link" ] && [ ! -L "$link" ]; then # not ours: it goes on under another name
  [ -n "$aside" ] && [ ! -e "$root/$aside" ] || {
    echo "qwen-rig: an env that isn't ours is at $link, and its name is wanted: run the same command again"
    exit 1
  }
  old=$aside
fi
{
  printf %s "${made%\}}"
  printf ', "installer": "%s", "source": "%s", "refused": "%s", "previous": "%s"}' \
    "${installer:?}" "${source:?}" "${refused?}" "$old"
} >"$new/.rig/env.json.new"
mv "$new/.rig/env.json.new" "$new/.rig/env.json"
[ -L "$link" ] || [ ! -e "$link" ] || step_aside "$name" "$old"
ln -sfn "$generation" "$link.new"
mv -T "$link.new" "$link"
moved_aside
name_for_conda "$link" "$known_as"
sweep "$generation" "$old"
