#!/bin/sh
# supervisor.sh HOSTDIR: a host's power supply and disk. Runs in the host's own network namespace and in a mount
# namespace of its own, so that the disk lives through reboots and goes when this process does.
set -u
dir=$1
# shellcheck disable=SC1091  # written by the testbed, beside the host
. "$dir/host.env"

if [ -n "$ROOT_MIB" ]; then
  mount -t tmpfs -o "size=${ROOT_MIB}m" disk "$dir/disk" || exit 1
fi
mkdir -p "$dir/disk/upper" "$dir/disk/work" "$dir/root"
cp -a "$dir/seed/." "$dir/disk/upper/" || exit 1
# volatile: no fsync reaches the disk; a host is thrown away, never recovered
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$dir/disk/upper,workdir=$dir/disk/work,volatile" "$dir/root" || exit 1

if [ -n "$INSTALL" ]; then
  # What the host's dpkg holds before anybody logs in
  mkdir -p "$dir/root/run/debs"
  mount --bind "$REPOSITORY" "$dir/root/run/debs"
  # shellcheck disable=SC2086  # a list of file names
  chroot "$dir/root" sh -c "cd /run/debs && DEBIAN_FRONTEND=noninteractive dpkg --force-unsafe-io -i $INSTALL" || exit 1
  umount "$dir/root/run/debs" && rmdir "$dir/root/run/debs"
fi

if [ -n "$DATA" ]; then                             # a second disk, as rented hosts have one beside a small /
  mkdir -p "$dir/data" "$dir/root$DATA"
  mount --bind "$dir/data" "$dir/root$DATA"
  chown "$UID_OF_USER" "$dir/root$DATA"
fi

left=2400                                             # who brings the host up may be killed before the cable comes
until grep -q eth0: /proc/self/net/dev; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || exit 1
  sleep 0.05
done

while :; do
  until [ "$(cat "$dir/power")" = on ]; do sleep 0.1; done
  uptime=$(cut -d. -f1 /proc/uptime)
  # Reboot or poweroff in a pid namespace ends its init by SIGHUP or SIGINT, and unshare passes that on:
  # reboot(2) in pid_namespaces(7). The time namespace makes the new boot's uptime begin at zero.
  unshare --mount --propagation private --uts --ipc --pid --fork --kill-child --time --boottime "-$uptime" \
    --monotonic "-$uptime" -- /bin/sh "$FILES/stage.sh" "$dir" "$uptime"
  case $? in
    129) ;;                                          # reboot
    *) [ "$(cat "$dir/power")" = off ] || echo off >"$dir/power" ;;
  esac
  : >"$dir/init.pid"
done
