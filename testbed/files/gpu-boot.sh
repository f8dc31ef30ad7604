# shellcheck shell=sh
# Sourced by stage.sh: lays the EMULATED GPU over the new host's /sys, /proc and /dev. Which driver is "loaded" is read
# from the module file on the host's own disk, as a real boot would load it; only the GPU itself comes from outside.
: "${dir:?}" "${root:?}"
# shellcheck disable=SC1091  # written by the testbed, beside the host
. "$dir/gpu.env"
kernel=$(uname -r)
cp "$dir/gpu.env" "$root/run/testbed/gpu"

loaded='' flavour='' nouveau=''
module=$root/usr/lib/modules/$kernel/updates/dkms/nvidia.ko
if [ "$KIND" = container ] || [ "$KIND" = wsl ]; then
  # Driver, nvidia-smi and library are the outer host's, mounted in, as a container runtime does, and Windows
  loaded=${HOST_DRIVER%%:*} flavour=${HOST_DRIVER#*:}
  if [ -n "$loaded" ]; then
    for file in "/$OUTER_SMI" "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.$loaded"; do
      mount --bind "$dir/mounted/${file##*/}" "$root$file"
      mount -o remount,bind,ro "$root$file"
    done
  fi
else
  if [ -n "$NOUVEAU" ] && ! cat "$root"/etc/modprobe.d/*.conf "$root"/usr/lib/modprobe.d/*.conf 2>/dev/null |
    grep -q '^[[:space:]]*blacklist[[:space:]][[:space:]]*nouveau'; then
    nouveau=1                                       # it has the GPU before nvidia's module can take it
  elif [ -f "$module" ] && [ "$GPU_COUNT" -gt 0 ]; then
    loaded=$(tr '\0' '\n' <"$module" | sed -n 's/^version=//p')
    case $(tr '\0' '\n' <"$module" | sed -n 's/^.*license=//p') in *GPL*) flavour=open ;; *) flavour=proprietary ;; esac
  fi
fi

if [ "$KIND" = wsl ]; then                          # no driver in this kernel, no GPU on its bus: a device of Windows'
  echo "Linux version 5.15.167.4-microsoft-standard-WSL2 (EMULATED by the qwen-rig testbed)" >"$root/run/testbed/version"
  mount --bind "$root/run/testbed/version" "$root/proc/version"
  mknod -m 666 "$root/dev/dxg" c 1 3
  loaded='' GPU_SLOTS=''
fi
mount -t tmpfs -o mode=755 emulated "$root/sys/module"
(cd /sys/module && for name in *; do case $name in nvidia*|nouveau) ;; *) mkdir "$root/sys/module/$name" ;; esac; done)
mount -t tmpfs -o mode=755 emulated "$root/proc/driver"
modules=''
if [ -n "$loaded" ]; then
  title="x86_64 Kernel Module" taint=POE
  [ "$flavour" != open ] || { title="Open Kernel Module for x86_64"; taint=OE; }
  mkdir -p "$root/proc/driver/nvidia"
  printf 'NVRM version: NVIDIA UNIX %s  %s  Release Build  (EMULATED by the qwen-rig testbed)\nGCC version:  none\n' \
    "$title" "$loaded" >"$root/proc/driver/nvidia/version"
  for name in nvidia nvidia_uvm nvidia_modeset; do
    mkdir "$root/sys/module/$name"
    echo "$loaded" >"$root/sys/module/$name/version"
    echo "$taint" >"$root/sys/module/$name/taint"
    echo live >"$root/sys/module/$name/initstate"
    modules="$modules$name 1 0 - Live 0x0000000000000000 ($taint)\n"
  done
  # The null device under other names: it can be held open, which is all that the emulation needs
  for name in nvidiactl nvidia-uvm $(seq -f 'nvidia%.0f' 0 $((GPU_COUNT - 1))); do
    mknod -m 666 "$root/dev/$name" c 1 3
  done
elif [ -n "$nouveau" ]; then
  mkdir "$root/sys/module/nouveau"
  echo live >"$root/sys/module/nouveau/initstate"
  modules="nouveau 1 0 - Live 0x0000000000000000\n"
fi
if [ -e "$root/proc/modules" ]; then                # absent where the controller's kernel has no loadable modules
  printf %b "$modules" >"$root/run/testbed/modules"
  mount --bind "$root/run/testbed/modules" "$root/proc/modules"
fi

pci=$root/sys/bus/pci/devices
[ -d "$pci" ] || mount -t tmpfs -o mode=755 emulated "$root/sys/bus"
mkdir -p "$pci"
mount -t tmpfs -o mode=755 emulated "$pci"
function_() { # slot vendor:device class subsystem driver
  mkdir "$pci/$1"
  echo "0x${2%:*}" >"$pci/$1/vendor"
  echo "0x${2#*:}" >"$pci/$1/device"
  echo "0x$3" >"$pci/$1/class"
  echo "0x${4%:*}" >"$pci/$1/subsystem_vendor"
  echo "0x${4#*:}" >"$pci/$1/subsystem_device"
  [ -z "$5" ] || ln -s "../../../../bus/pci/drivers/$5" "$pci/$1/driver"
}
function_ 0000:00:01.0 8086:a70d 060400 8086:0000 pcieport
driver=''
[ -z "$loaded" ] || driver=nvidia
[ -z "$nouveau" ] || driver=nouveau
for slot in ${GPU_SLOTS:-}; do
  function_ "$slot.0" "$GPU_DEVICE" "${GPU_CLASS}00" "$GPU_SUBSYSTEM" "$driver"
  echo "$GPU_LANES" >"$pci/$slot.0/current_link_width"
  echo 16 >"$pci/$slot.0/max_link_width"
  [ -z "$GPU_AUDIO" ] || function_ "$slot.1" "$GPU_AUDIO" 040300 "$GPU_SUBSYSTEM" snd_hda_intel
done

if [ -n "$MEMORY_MIB" ]; then
  # EMULATED cgroup v2 limit: the file that tells it, without the enforcement
  mount -t tmpfs -o mode=755 emulated "$root/sys/fs/cgroup"
  echo "memory pids" >"$root/sys/fs/cgroup/cgroup.controllers"
  echo $((MEMORY_MIB * 1048576)) >"$root/sys/fs/cgroup/memory.max"
fi
