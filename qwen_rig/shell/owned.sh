# shellcheck shell=sh
# Whose a path is: used is only what root or we own and nobody else can write, and so is all that leads there (sshd's
# StrictModes). Of a disk that is mounted for everybody to write to, or a sticky folder, our own folder in it counts.
# The same rules stand in qwen_rig/trust.py; tests/security/test_trust.py holds the two together.

nl='
'
tab='	'
me='' outer=''       # our uid, and who root is outside: `us`
targets='' absent='' # what `walk` has met so far: links with where they lead, what isn't there
up=-                 # the folder that `walk` went through last: what lies in it is walked to from there

walk() { # PATH: $chain, its components that are there, links as themselves and then what they lead to; $own, those of them
  # that its last name brings; $leaf, the last component
  case $1 in *[[:cntrl:]]*) return 1 ;; /*) ;; *) return 1 ;; esac
  if [ "${1%/*}" != "$up" ]; then
    up=- at='' chain=/ leaf=/ links=0 own=''
    steps "${1%/*}" || return 1
    [ -n "$leaf" ] || return 0
    up=${1%/*} up_at=$at up_chain=$chain up_leaf=$leaf up_links=$links
  fi
  at=$up_at chain=$up_chain leaf=$up_leaf links=$up_links
  steps "${1##*/}" || return 1
  own=${chain#"$up_chain"}
}

steps() { # NAMES: on from $at
  rest=$1
  while [ -n "$rest" ]; do
    part=${rest%%/*}
    case $rest in */*) rest=${rest#*/} ;; *) rest='' ;; esac
    case $part in
      '' | .) continue ;;
      ..) at=${at%/*} leaf=${at:-/} && continue ;;
    esac
    at=$at/$part
    leaf=$at
    if [ -L "$at" ]; then
      chain=$chain$nl$at links=$((links + 1))
      [ "$links" -le 40 ] || return 1
      case $targets$nl in
        *"$nl$at$tab"*) to=${targets#*"$nl$at$tab"} to=${to%%"$nl"*} ;; # met before: no program for what is known
        *)
          to=$(readlink "$at" && echo .) || return 1
          to=${to%??} # the newline, and the dot that kept others
          case $to in '' | *[[:cntrl:]]*) return 1 ;; esac
          targets=$targets$nl$at$tab$to
          ;;
      esac
      case $to in /*) next='' ;; *) next=${at%/*} ;; esac
      at=$next leaf=${next:-/} rest=$to/$rest
    elif [ -e "$at" ]; then
      chain=$chain$nl$at
    else
      absent=$absent$nl$at leaf=''
      break
    fi
  done
}

us() { # $me, our uid; $outer, in a user namespace (a rootless container) who owns what is handed in from outside, where
  # nobody here is root
  [ -z "$me" ] || return 0
  me=$(id -u)
  read -r in out size </proc/self/uid_map || return 0
  [ "$in $out $size" = '0 0 4294967295' ] || read -r outer </proc/sys/kernel/overflowuid
}

own_group() { # GID: whether nobody but root and we can be in it
  line=$(getent group "$1" 2>/dev/null || grep "^[^:]*:[^:]*:$1:" /etc/group)
  [ -n "$line" ] || return 1
  name=$(id -un)
  for member in $(printf %s "${line##*:}" | tr , '\n'); do
    case $member in root | "$name") ;; *) return 1 ;; esac
  done
  # Whose first group it is. Some systems give root's to a few accounts of their own, with static ids (below 100).
  while IFS=: read -r _ _ uid gid _; do
    [ "$gid" = "$1" ] && [ "$uid" -ne 0 ] && [ "$uid" -ne "$me" ] || continue
    [ "$1" -eq 0 ] && [ "$uid" -lt 100 ] || return 1
  done </etc/passwd
}

others_write() { # PATH GID MODE: whether somebody else can write there, by its mode (some may) or an access control list
  [ $(($3 & 2)) -eq 0 ] || return 0
  own_group "$2" || return 0
  case $(ls -ld "$1") in ??????????+*) return 0 ;; esac
  return 1
}

disk_mounted() { # PATH: whether it is where a disk is mounted, not memory; / is nobody's to leave open
  [ "$1" != / ] || return 1
  while IFS=' ' read -r _ mount type _; do
    case $type in tmpfs | ramfs | devtmpfs | hugetlbfs) continue ;; esac
    case $mount in *\\*) mount=$(printf %b "$mount") ;; esac
    [ "$mount" != "$1" ] || return 0
  done </proc/self/mounts
  return 1
}

gather() { # PATH…: $list, of each path `>LEAF<tab>PATH` and then its components; $parts, these again for one stat of all
  list='' parts='' beside=+
  for path do add "$path" || break; done
}

add() { # PATH: one more to $list and $parts; of the last one's neighbour, what they haven't got yet
  walk "$1" || { list=$list$nl!$1 && return 1; }
  if [ "$up" = "$beside" ] && [ "$up" != - ]; then
    case $nl$own$nl in *"$nl$leaf$nl"*) chain=$own ;; esac # not where the path leads back to what lies above it
  fi
  beside=$up
  list=$list$nl\>$leaf$tab$1$nl$chain parts=$parts$nl$chain
}

judge() { # what `gather` found: $fault, what is wrong with the first path that isn't ours alone, empty where all are
  fault='' open=$nl # $open: the folders in which others may put things
  us
  case $- in *f*) globs='' ;; *) globs=1 ;; esac
  spaces=${IFS-" $tab$nl"} IFS=$nl
  set -f
  # shellcheck disable=SC2046,SC2086  # a path a line
  if [ -n "$parts" ]; then set -- $(stat -c '%u %g %f %n' $parts 2>/dev/null); else set --; fi
  for line in $list; do
    case $line in
      !*) fault="${line#!} can't be followed" && break ;;
      \>*)
        leaf=${line%%"$tab"*} path=${line#*"$tab"}
        leaf=${leaf#>}
        continue
        ;;
    esac
    uid=${1%% *} gid=${1#* } this=${1#* * * }
    [ "$this" = "$line" ] || { fault="$path can't be looked at" && break; }
    mode=${gid#* } gid=${gid%% *}
    mode=$((0x${mode%% *}))
    shift
    case $uid in 0 | "$me" | "$outer") known=1 ;; *) known='' ;; esac
    if [ $((mode & 0170000)) -eq $((0120000)) ]; then # a link: whoever can't write to its folder can't change it
      [ -z "$known" ] || continue
      folder=${this%/*}
      case $open in *"$nl${folder:-/}$nl"*) foreign "$path" "$this" && break ;; esac
      continue
    fi
    [ -n "$known" ] || { foreign "$path" "$this" && break; }
    [ $((mode & 18)) -ne 0 ] || continue
    others_write "$this" "$gid" "$mode" || continue
    if [ "$this" = "$leaf" ] || { [ $((mode & 01000)) -eq 0 ] && ! disk_mounted "$this"; }; then
      fault="$path is not used: others can write to $this ($(stat -c '%U, mode %a' "$this"))"
      break
    fi
    open=$open$this$nl
  done
  IFS=$spaces
  [ -z "$globs" ] || set +f
}

unfit() ( # PATH…: what is wrong with the first that isn't ours alone, in a line; nothing where all are
  set +e
  gather "$@"
  judge
  [ -z "$fault" ] || printf '%s\n' "$fault"
)

foreign() { # PATH COMPONENT
  fault="$1 is not used: $2 belongs to $(stat -c '%U (uid %u), mode %a' "$2")"
}

owned() { # PATH…: whether all are ours alone
  [ -z "$(unfit "$@")" ]
}

temporary() { # FOLDER: temporary files go to TMPDIR, where only their owner can take them away, else to this folder
  owned "${TMPDIR:-/tmp}/qwen-rig" && return
  (umask 077 && own_folder "$1") || exit 1
  export TMPDIR="$1"
  job_folder "$1"
}

job_folder() { # FOLDER: a job's temporary files go to one of its own in there, which is gone with the job (host/job.sh)
  [ -n "${QWEN_RIG_SCRATCH:-}" ] || return 0
  TMPDIR=$(mktemp -d "$1/job.XXXXXXXX")
  printf '%s\n' "$TMPDIR" >>"$QWEN_RIG_SCRATCH"
}

need_own() { # PATH…: go on only where all are ours alone; what isn't there yet counts by what it would lie in
  fault=$(unfit "$@")
  [ -z "$fault" ] || {
    printf '%s\n' "qwen-rig: $fault: look who did that, then make it yours (chown, chmod go-w), or name another place"
    exit 1
  }
}

own_folder() { # PATH…: folders that are ours alone, made where they aren't there; closed where all may write beside them
  need_own "$@"
  (for folder do # in a shell of its own: the names are the caller's
    within=$folder
    until [ -e "$within" ]; do
      first=$within within=${within%/*}
      within=${within:-/}
    done
    case $(stat -L -c %a "$within") in *[2367]) (umask 077 && mkdir -p "$first") ;; esac
    mkdir -p "$folder"
  done)
  need_own "$@" # somebody may have been faster
}
