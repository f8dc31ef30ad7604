#!/bin/sh
# stage.sh HOSTDIR: what a boot loader and an initramfs do. First process of the new namespaces; becomes the host's init.
set -eu
dir=$1
root=$dir/root
# shellcheck disable=SC1091  # written by the testbed, beside the host
. "$dir/host.env"
if [ "$KIND" = vm ] && [ -z "${OWN_CGROUP:-}" ]; then # systemd wants a cgroup2 tree of its own, with itself at its root
  mkdir -p "$CGROUP"
  echo 0 >"$CGROUP/cgroup.procs"
  OWN_CGROUP=1 exec unshare --cgroup -- /bin/sh "$FILES/stage.sh" "$@"
fi
read -r pid _ </proc/self/stat                       # /proc is still the controller's: its number for this process
echo "$pid" >"$dir/init.pid"
echo "$NAME" >/proc/sys/kernel/hostname

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o nosuid,mode=755 run "$root/run"
mount -t tmpfs -o nosuid,mode=755 dev "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/testbed" "$root/run/sshd" "$root/run/lock"
chmod 1777 "$root/run/lock"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777 shm "$root/dev/shm"
for node in null:3 zero:5 full:7 random:8 urandom:9; do
  mknod -m 666 "$root/dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 "$root/dev/tty" c 5 0
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for fd in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${fd%:*}" "$root/dev/${fd#*:}"; done

# A boot id of this boot; nothing here may reach the controller's kernel
cat /proc/sys/kernel/random/uuid >"$root/run/testbed/boot_id"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --bind "$root/run/testbed/boot_id" "$root/proc/sys/kernel/random/boot_id"
for file in sysrq-trigger kcore kmsg; do
  [ ! -e "$root/proc/$file" ] || mount --bind "$root/dev/null" "$root/proc/$file"
done

# shellcheck disable=SC1091  # a file of its own
. "$FILES/gpu-boot.sh"
init=/run/testbed/init                               # run by its #! line: pid 1 bears its name
[ "$KIND" != container ] || init=/run/testbed/entrypoint
cp "$FILES/init.sh" "$root$init"
chmod 755 "$root$init"
if [ "$KIND" = vm ]; then
  init=/usr/lib/systemd/systemd
  ip link set lo up
  ip address replace "$ADDRESS/24" dev eth0
  ip link set eth0 up
  [ -n "$MEMORY_MIB" ] || mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  : >>"$dir/sshd.log"
  : >"$root/run/testbed/sshd.log"
  mount --bind "$dir/sshd.log" "$root/run/testbed/sshd.log"
fi
[ "$KIND" != container ] || : >"$root/run/.containerenv"
exec 3>>"$dir/sshd.log"
cd "$root"
pivot_root . .
umount -l .
# shellcheck disable=SC2086  # $INIT_ENV is a list
exec setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time,-syslog --inh-caps=-all -- \
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TERM=linux $INIT_ENV \
  "$init" "$ADDRESS"
