"""Every CUDA compiler on the host. Pure: knows no pyinfra."""

from __future__ import annotations

import re

# Each distinct nvcc once, whatever links lead to it. A wrapper script (Debian's /usr/bin/nvcc is one) counts as the
# toolkit that it starts, where that has headers of its own.
SECTIONS = {
    "cuda": r"""
seen=:
for n in "$(command -v nvcc)" "${CUDA_HOME:-/}/bin/nvcc" "${CUDA_PATH:-/}/bin/nvcc" /usr/local/cuda*/bin/nvcc \
  /usr/bin/nvcc /opt/cuda*/bin/nvcc; do
  [ -f "$n" ] && [ -x "$n" ] || continue
  r=$(readlink -f "$n"); r=${r:-$n}
  case $seen in *:"$r":*) continue ;; esac
  seen=$seen$r:
  if read -r line <"$r" && case $line in '#!'*) ;; *) false ;; esac; then
    t=$(sed -n 's|^ *exec *"\{0,1\}\(/[^ "]*/bin/nvcc\).*|\1|p' "$r"); t=$(readlink -f "$t")
    if [ -x "$t" ] && [ -d "${t%/bin/nvcc}/include" ]; then
      case $seen in *:"$t":*) continue ;; esac
      seen=$seen$t: r=$t
    fi
  fi
  gather "$n" "$r"; judge
  if [ -n "$fault" ]; then printf '##unfit %s\n' "$fault"; continue; fi
  printf '##nvcc %s\n' "${r%/bin/nvcc}"
  lim "$r" --version 2>&1
done
""",
}


def version(text: str) -> dict[str, str | None]:
    """`nvcc --version` as `{release, version}`; both None in a text that tells neither (CUDA 7.5 to 13.3 do)."""
    found = re.search(r"release (\d+\.\d+), V(\d+\.\d+\.\d+)", text)
    return {"release": found[1] if found else None, "version": found[2] if found else None}


def read(text: str) -> list[dict[str, str | None]]:
    """`{path, release, version}` of each toolkit; a compiler that doesn't answer has neither release nor version."""
    text = re.sub("^##unfit .*$", "", text, flags=re.MULTILINE)
    blocks = re.split(r"^##nvcc ", text, flags=re.MULTILINE)[1:]
    return [{"path": (lines := block.split("\n", 1))[0].strip(), **version(lines[-1])} for block in blocks]


def unfit(text: str) -> str | None:
    """The first compiler that was not run, as others could have put it there; None where there is none."""
    found = re.search("^##unfit (.*)$", text, re.MULTILINE)
    return found[1] if found else None
