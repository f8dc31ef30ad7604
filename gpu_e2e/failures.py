"""Failures made on this machine where that harms nothing, and what the doctor calls each.

Each is a small program in the host's env; what it prints goes to `qwen-rig doctor`, which must name the cause.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from .machine import env
from .runner import RIG, Runner, document
from .trained import SIZED, data, model, words

KERNEL = """#include <cstdio>
__global__ void add(int *x) { *x += 1; }
int main() {
  int *x;
  cudaMalloc(&x, sizeof(int));
  add<<<1, 1>>>(x);
  cudaError_t found = cudaDeviceSynchronize();
  if (cudaError_t last = cudaGetLastError()) found = last;
  if (found) fprintf(stderr, "%s: %s\\n", cudaGetErrorName(found), cudaGetErrorString(found));
  return found != cudaSuccess;
}
"""
# What an extension asks of a torch of the old C++ ABI: an exception's constructor that no torch of today has.
EXTENSION = """#include <string>
namespace c10 {
struct SourceLocation { const char *function, *file; unsigned line; };
struct Error { Error(SourceLocation, std::string); };
}
extern "C" void *PyInit_of_another_torch() { return new c10::Error({"", "", 0}, std::string("x")); }
"""
NVCC = 'nvcc=$(command -v nvcc || ls /usr/local/cuda*/bin/nvcc | tail -n 1); '


@dataclass(frozen=True)
class Made:
    """One failure: shell text that runs in a folder of its own with $python, and the cause that must be told."""

    name: str
    script: str
    cause: str


ALL = (
    Made("more memory than the card has",
         """$python -c "import torch; torch.empty(1 << 40, device='cuda')" """, "cuda-out-of-memory"),
    Made("a kernel for another card",
         NVCC + '"$nvcc" -gencode arch=compute_120,code=sm_120 -o kernel kernel.cu && ./kernel', "no-kernel-image"),
    Made("an architecture that nvcc doesn't know", NVCC + '"$nvcc" -arch=sm_999 -o kernel kernel.cu',
         "nvcc-unknown-arch"),
    Made("a library of another CUDA", """$python -c "import ctypes; ctypes.CDLL('libcudart.so.11.0')" """,
         "library-not-found"),
    Made("a program whose library is gone",
         "echo 'int part(void) { return 0; }' >part.c; echo 'int part(void); int main(void) { return part(); }' >of.c; "
         "gcc -shared -fPIC -Wl,-soname,libcudart.so.11.0 -o libpart.so part.c && gcc -o of of.c -L. -lpart && ./of",
         "library-not-found"),
    Made("a library path with a broken libcudart first",
         """mkdir broken; echo 'not a library' >broken/libcudart.so.13; LD_LIBRARY_PATH=$PWD/broken $python -c """
         """"import ctypes; ctypes.CDLL('libcudart.so.13')" """, "library-broken"),
    Made("an extension that was built for another torch",
         "g++ -D_GLIBCXX_USE_CXX11_ABI=0 -shared -fPIC -o of_another_torch.so extension.cc && "
         "$python -c 'import torch, of_another_torch'", "symbol-missing"),
    Made("a GPU that isn't there", """$python -c "import torch; torch.zeros(1, device='cuda:9')" """, "cuda-101"),
    Made("no GPU handed in", """CUDA_VISIBLE_DEVICES= $python -c "import torch; torch.zeros(1, device='cuda')" """,
         "torch-sees-no-gpu"),
)


def failures(run: Runner) -> None:
    """Each failure is told by its cause; and a training that doesn't fit is a card with smaller settings."""
    wrong = []
    run.part.figures["failures"] = told = []
    for made in ALL:
        log = _made(run, made)
        found = document(run.command(*RIG, "doctor", "--json", good=(1,), given=log))
        names = [each["name"] for each in next(iter(found.values()))["findings"]]
        told.append({"failure": made.name, "log": log[-1500:], "expected": made.cause, "told": names})
        if names[:1] != [made.cause]:
            wrong.append(f"{made.name}: {names}")
    large = ["--per_device_train_batch_size", "400", "--gradient_accumulation_steps", "1"]
    said = run.command(*words(run, f"large-{int(run.part.began)}", model(run, SIZED[0])[0], data(run)), *large,
                       good=(1,))
    if "ran out of memory with batch" not in " ".join(said.split()):
        wrong.append("a training that doesn't fit: its card")
    run.expect(not wrong, "; ".join(wrong))


def _made(run: Runner, made: Made) -> str:
    """What the failure printed. Raises Failed where it didn't fail."""
    folder = run.machine.work / "failures" / made.name.replace(" ", "-").replace("'", "")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.cu").write_text(KERNEL)
    (folder / "extension.cc").write_text(EXTENSION)
    python = env(run.machine) / "bin/python"
    done = subprocess.run(["sh", "-c", made.script], cwd=folder, text=True, errors="replace", timeout=120,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**run.machine.environment(), "python": str(python), "PYTHONPATH": "."})
    print(f"--- {run.part.name}: {made.name}: exit {done.returncode}\n{done.stdout[-1500:]}", flush=True)
    return done.stdout if done.returncode else f"it did not fail\n{done.stdout}"
