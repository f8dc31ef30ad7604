# shellcheck shell=sh
# apt: locks waited for and named, nothing asked, nothing half-resolved. $lock_s: how long a lock is waited for.

redirected() { # ADDRESS: a filter that sends the archives of apt's sources (sources.list(5), deb822) by way of an address
  at=$(printf %s "$1" | sed 's/[#&\\]/\\&/g') # mirror+https: and similar schemes are left alone
  sed -E "s#(^|[[:space:]:])(https?)://#\\1$at/\\2/#g"
}

through() { # of $archives: apt's archives by way of a bundle's address on the host; empty: apt as it is
  [ -n "${archives?}" ] || return 0
  # Sources and lists of this run: the host's own stay as they are. Below /var/cache, as apt's own user must get there.
  own=/var/cache/qwen-rig/apt
  patience=1800 # for a file that is first fetched elsewhere, whole
  own_folder $own/lists $own/sources.list.d
  mkdir -p $own/lists/partial # its owner is apt's own user, once apt has been there
  need_own /etc/apt $own/apt.conf
  chmod 755 ${own%/*} $own
  rm -f $own/sources.list $own/sources.list.d/*
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [ ! -r "$file" ] || redirected "$archives" <"$file" >"$own/${file#/etc/apt/}"
  done
  cp "${tunnel:?}/authority.pem" $own/authority.pem # read by apt's own user
  chmod 644 $own/authority.pem
  apt_in_tunnel $own/apt.conf $own/authority.pem
  cat >>$own/apt.conf <<EOT
Dir::Etc::SourceList "$own/sources.list";
Dir::Etc::SourceParts "$own/sources.list.d";
Dir::State::Lists "$own/lists";
Dir::Cache::pkgcache "$own/pkgcache.bin";
Dir::Cache::srcpkgcache "$own/srcpkgcache.bin";
Acquire::https::Timeout "$patience";
Acquire::Languages "none";
Acquire::PDiffs "false";
EOT
}

holder() { # whose lock it is, apt says only where it doesn't wait, or where its progress is just due: once more
  apt-get -q -o DPkg::Lock::Timeout=0 check 2>&1 | grep 'Could not get lock' || :
}

unlocked() { # wait until apt would let us install; fail naming who holds it if it never does; change nothing
  said=$(apt-get -q -o DPkg::Lock::Timeout=0 check 2>&1) && return
  printf '%s\n' "$said"
  case $said in *"Could not get lock"*) ;; *) exit 1 ;; esac
  said=$(apt-get -q -o DPkg::Lock::Timeout="${lock_s:?}" check 2>&1) || {
    printf '%s\n' "$said"
    holder
    exit 1
  }
}

update() { # `apt-get update`, waiting for the lists' lock too: DPkg::Lock::Timeout covers dpkg's alone
  export DEBIAN_FRONTEND=noninteractive
  end=$(($(date +%s) + ${lock_s:?})) told=''
  while ! said=$(apt-get -o Acquire::http::Timeout="${patience:-30}" -o Acquire::https::Timeout="${patience:-30}" \
    -o Acquire::Retries=1 -o APT::Update::Error-Mode=any update 2>&1); do
    case $said in
      *"Could not get lock"*)
        if [ "$(date +%s)" -lt "$end" ]; then
          [ -n "$told" ] || printf '%s\n' "$said" # whose it is: qwen_rig/run/job_protocol.py reads that
          told=1
          sleep 2
          continue
        fi
        ;;
    esac
    printf '%s\n' "$said"
    exit 1
  done
}

packages() { # of $groups, a line of packages each: in turn, as one that pins must stand before what it pins
  export DEBIAN_FRONTEND=noninteractive
  while IFS= read -r group <&8; do
    set -f
    # shellcheck disable=SC2086  # the names of packages
    set -- -y --no-install-recommends -o DPkg::Lock::Timeout="${lock_s:?}" -o Dpkg::Options::=--force-confold \
      install $group
    set +f
    apt-get -q "$@" || { # what apt can't resolve it refuses before it unpacks anything
      holder
      exit 1
    }
  done 8<<EOT
${groups:?}
EOT
}
