#!/bin/sh
# EMULATED by the qwen-rig testbed: answers as nvidia-smi @VERSION@ does, from /run/testbed/gpu. There is no GPU.
version=@VERSION@ cuda=@CUDA@
# shellcheck disable=SC1091  # written by the testbed
[ -r /run/testbed/gpu ] && . /run/testbed/gpu
loaded='' flavour=proprietary
if [ -r /proc/driver/nvidia/version ]; then
  read -r line </proc/driver/nvidia/version
  case $line in *"Open Kernel Module"*) flavour=open ;; esac
  loaded=$(printf '%s\n' "$line" | sed -n 's/^NVRM version: [^0-9]*\(x86_64 \)\{0,1\}[^0-9]* \([0-9.]*\) .*/\2/p')
fi

case ${OUTER_SMI:-} in usr/lib/wsl/*) loaded=${HOST_DRIVER%%:*} flavour=${HOST_DRIVER#*:} ;; esac # Windows has it

usable() { # ends the program as the real one does where there is nothing to ask
  if [ -z "$loaded" ]; then
    echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running."
    echo
    exit 9
  fi
  if [ "$loaded" != "$version" ]; then
    echo "Failed to initialize NVML: Driver/library version mismatch"
    echo "NVML library version: ${version%.*}"
    exit 18
  fi
  branch=${loaded%%.*}
  case " $GPU_FLAVOURS " in *" $flavour "*) fits=1 ;; *) fits= ;; esac
  if [ -z "$fits" ] || [ "$branch" -lt "$GPU_FIRST_BRANCH" ] || [ "$branch" -gt "$GPU_LAST_BRANCH" ]; then
    echo "No devices were found"
    exit 6
  fi
}

nth() { shift "$1"; printf '%s' "$1"; }

users() { # pid name of whoever holds a GPU's device
  find /proc/[0-9]*/fd -lname '/dev/nvidia[0-9]*' 2>/dev/null | while read -r link; do
    pid=${link#/proc/}; pid=${pid%%/*}; read -r comm <"/proc/$pid/comm" && echo "$pid $comm"
  done | sort -un
}

# shellcheck disable=SC2086  # lists
cell() { # field index: one value, or nothing and 1 for a field that this version doesn't know
  case $1 in
    index) printf '%s' "$2" ;;
    name|gpu_name) printf '%s' "$GPU_NAME" ;;
    uuid|gpu_uuid) nth $(($2 + 1)) $GPU_UUIDS ;;
    pci.bus_id|gpu_bus_id) slot=$(nth $(($2 + 1)) $GPU_SLOTS); printf '0000%s.0' "$slot" ;;
    memory.total) printf '%s MiB' "$GPU_MEMORY_MIB" ;;
    memory.used) printf '1 MiB' ;;
    memory.free) printf '%s MiB' $((GPU_MEMORY_MIB - 1)) ;;
    utilization.gpu) printf '0 %%' ;;
    temperature.gpu) printf '30' ;;
    driver_version) printf '%s' "$loaded" ;;
    count) printf '%s' "$GPU_COUNT" ;;
    persistence_mode) printf 'Disabled' ;;
    display_active) printf 'Disabled' ;;
    ecc.errors.uncorrected.volatile.total|ecc.mode.current) printf '[N/A]' ;;
    compute_cap) [ "${version%%.*}" -ge 510 ] || return 1; printf '%s' "$GPU_COMPUTE" ;;
    mig.mode.current) [ "${version%%.*}" -ge 450 ] || return 1; printf '%s' "$GPU_MIG" ;;
    *) return 1 ;;
  esac
}

header() { case $1 in memory.*) printf '%s [MiB]' "$1" ;; utilization.*) printf '%s [%%]' "$1" ;; *) printf '%s' "$1" ;; esac; }

query_gpu() { # fields, format
  usable
  fields=$(printf '%s' "$1" | tr -d ' ' | tr ',' ' ')
  for field in $fields; do
    cell "$field" 0 >/dev/null || { printf 'Field "%s" is not a valid field to query.\n\n' "$field"; exit 2; }
  done
  case $2 in *noheader*) ;; *) row=; for field in $fields; do row="$row, $(header "$field")"; done; echo "${row#, }" ;; esac
  index=0
  while [ "$index" -lt "$GPU_COUNT" ]; do
    if [ -z "$only" ] || [ "$only" = "$index" ]; then
      row=
      for field in $fields; do
        value=$(cell "$field" "$index")
        case $2 in *nounits*) value=${value% MiB}; value=${value% %} ;; esac
        row="$row, $value"
      done
      echo "${row#, }"
    fi
    index=$((index + 1))
  done
}

query_apps() { # fields, format
  usable
  fields=$(printf '%s' "$1" | tr -d ' ' | tr ',' ' ')
  case $2 in *noheader*) ;; *) row=; for field in $fields; do
    case $field in used_memory|used_gpu_memory) field="$field [MiB]" ;; esac; row="$row, $field"; done; echo "${row#, }" ;; esac
  users | while read -r pid comm; do
    row=
    for field in $fields; do
      case $field in
        pid) value=$pid ;;
        process_name|name) value=$comm ;;
        gpu_uuid) value=${GPU_UUIDS%% *} ;;
        used_memory|used_gpu_memory) value="512 MiB"; case $2 in *nounits*) value=512 ;; esac ;;
        *) value="[N/A]" ;;
      esac
      row="$row, $value"
    done
    echo "${row#, }"
  done
}

table() {
  usable
  line="+-----------------------------------------------------------------------------------------+"
  date
  echo "$line"
  printf '| NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %-9s|\n' "$version" "$loaded" "$cuda"
  echo "| EMULATED by the qwen-rig testbed: there is no GPU                                       |"
  echo "|=========================================================================================|"
  index=0
  while [ "$index" -lt "$GPU_COUNT" ]; do
    printf '| %3s  %-28s Off |   %-20s Off | %19s |\n' "$index" "$GPU_NAME" "$(cell pci.bus_id "$index")" ""
    printf '| %32s   |   %8sMiB / %8sMiB | %19s |\n' "" 1 "$GPU_MEMORY_MIB" "0%      Default"
    index=$((index + 1))
  done
  echo "$line"
  echo
  echo "$line"
  echo "| Processes:                                                                              |"
  echo "|  GPU   GI   CI        PID   Type   Process name                              GPU Memory |"
  echo "|=========================================================================================|"
  found=$(users)
  if [ -n "$found" ]; then
    printf '%s\n' "$found" | while read -r pid comm; do
      printf '|    0   N/A  N/A %10s      C   %-38s %11sMiB |\n' "$pid" "$comm" 512
    done
  else
    echo "|  No running processes found                                                             |"
  fi
  echo "$line"
}

only='' what='' fields='' format=''
while [ $# -gt 0 ]; do
  case $1 in
    --query-gpu=*) what=gpu fields=${1#*=} ;;
    --query-compute-apps=*) what=apps fields=${1#*=} ;;
    --format=*) format=${1#*=} ;;
    --id=*) only=${1#*=} ;;
    -i) only=${2:-}; [ $# -lt 2 ] || shift ;;
    -L|--list-gpus) what=list ;;
    --version) what=version ;;
    *) echo "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."; exit 1 ;;
  esac
  shift
done
case $what in
  gpu) query_gpu "$fields" "$format" ;;
  apps) query_apps "$fields" "$format" ;;
  list)
    usable
    index=0
    while [ "$index" -lt "$GPU_COUNT" ]; do
      echo "GPU $index: $GPU_NAME (UUID: $(cell uuid "$index"))"
      index=$((index + 1))
    done ;;
  version)
    usable
    printf 'NVIDIA-SMI version  : %s\nNVML version        : %s\nDRIVER version      : %s\nCUDA Version        : %s\n' \
      "$version" "${version%.*}" "$loaded" "$cuda" ;;
  *) table ;;
esac
