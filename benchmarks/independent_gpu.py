"""Matmul and copy speed of a card, measured another way than qwen_rig/host/certify_*.py, sharing no code with it.

    python3 benchmarks/independent_gpu.py [--gpu 0] [--out FILE] [--torch]

By ctypes on CUDA's own libraries: cublasGemmEx for a bf16 product of two random 8192 × 8192 matrices,
cudaMemcpyAsync for a 1 GiB copy on the card. By the host's clock, as a slope: the time of 2n calls less that of n,
so that whatever is spent once falls out. With --torch, or where the libraries can't be loaded, the same slope through
torch.mm and Tensor.add; the answer says which. It is for checking the certificate's numbers against arithmetic that has
another origin: on one machine, in one run, both should agree within a few per cent.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import statistics
import struct
import sys
import time
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any

N, COPY = 8192, 1 << 30
WARM_S = 3  # a card that has been idle is faster for a second or two, until heat and power hold it
CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT = 14, 68, -1  # library_types.h, cublas_api.h
HOST_TO_DEVICE, DEVICE_TO_DEVICE = 1, 3  # driver_types.h, cudaMemcpyKind


class Unavailable(Exception):
    """CUDA's libraries can't be used directly here."""


def slope(enqueue: Callable[[int], None], finish: Callable[[], Any], calls: int, rounds: int = 9) -> float:
    """Seconds a call: (time of 2·calls − time of calls) ÷ calls, the median of some rounds."""
    def clock(count: int) -> float:
        finish()
        began = time.perf_counter()
        enqueue(count)
        finish()
        return time.perf_counter() - began

    warm = time.perf_counter()
    while time.perf_counter() - warm < WARM_S:
        clock(calls)
    return statistics.median((clock(2 * calls) - clock(calls)) / calls for _ in range(rounds))


def library(name: str) -> ctypes.CDLL:
    """A CUDA library: of pip's nvidia packages beside torch, else of the toolkit, else by the loader's own search."""
    places = [f"{path}/nvidia/*/lib/{name}.so.*" for path in sys.path]
    places += [f"/usr/local/cuda*/lib64/{name}.so.*", f"/usr/local/cuda*/targets/*/lib/{name}.so.*"]
    found = [path for place in places for path in sorted(glob(place), reverse=True)]
    for path in [*found, f"{name}.so"]:
        try:
            return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    raise Unavailable(f"no {name}")


def noise(rows: int, columns: int, pool: int = 1 << 19) -> bytes:
    """A matrix of normally distributed bf16 numbers: a card at its power limit is the slower the more bits change, so
    that other numbers would be another measurement. Each row is a stretch of one pool, from a random place on."""
    draw = random.Random(8192)
    numbers = b"".join(struct.pack("<f", draw.gauss(0, 1))[2:] for _ in range(pool + columns))
    return b"".join(numbers[2 * at:2 * (at + columns)] for at in (draw.randrange(pool) for _ in range(rows)))


def direct() -> dict[str, float]:
    """Both numbers by ctypes."""
    cudart = library("libcudart")
    library("libcublasLt")  # libcublas needs it, and pip's copy is on no search path
    cublas = library("libcublas")

    def good(code: int, what: str) -> None:
        if code:
            raise Unavailable(f"{what} ended with {code}")

    def allocate(size: int) -> ctypes.c_void_p:
        pointer = ctypes.c_void_p()
        good(cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(size)), "cudaMalloc")
        return pointer

    good(cudart.cudaSetDevice(0), "cudaSetDevice")
    finish = cudart.cudaDeviceSynchronize
    size = 2 * N * N
    a, b, c = (allocate(size) for _ in range(3))
    for matrix in (a, b):
        good(cudart.cudaMemcpy(matrix, noise(N, N), ctypes.c_size_t(size), HOST_TO_DEVICE), "cudaMemcpy")
    handle = ctypes.c_void_p()
    good(cublas.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
    one, zero = ctypes.c_float(1), ctypes.c_float(0)

    def multiply(count: int) -> None:
        for _ in range(count):
            good(cublas.cublasGemmEx(
                handle, 0, 0, N, N, N, ctypes.byref(one), a, CUDA_R_16BF, N, b, CUDA_R_16BF, N, ctypes.byref(zero), c,
                CUDA_R_16BF, N, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT), "cublasGemmEx")

    product = slope(multiply, finish, 40)
    source, target = allocate(COPY), allocate(COPY)
    good(cudart.cudaMemset(source, 0x5A, ctypes.c_size_t(COPY)), "cudaMemset")

    def copy(count: int) -> None:
        for _ in range(count):
            good(cudart.cudaMemcpyAsync(target, source, ctypes.c_size_t(COPY), DEVICE_TO_DEVICE, None), "a copy")

    return {"matmul_tflops": 2 * N**3 / product / 1e12, "copy_gbs": 2 * COPY / slope(copy, finish, 40) / 1e9}


def through_torch() -> dict[str, float]:
    """Both numbers by torch, with other calls and another clock than the certificate's."""
    import torch

    a = torch.empty(N, N, dtype=torch.float32, device="cuda").normal_().bfloat16()
    b, c = a.roll(1, 0).contiguous(), torch.empty_like(a)

    def multiply(count: int) -> None:
        for _ in range(count):
            torch.mm(a, b, out=c)

    source = torch.full((COPY // 4,), 3, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)

    def copy(count: int) -> None:
        for _ in range(count):
            torch.add(source, 1, out=target)

    product = slope(multiply, torch.cuda.synchronize, 40)
    return {"matmul_tflops": 2 * N**3 / product / 1e12,
            "copy_gbs": 2 * COPY / slope(copy, torch.cuda.synchronize, 40) / 1e9}


def main() -> int:
    """0 where both were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default="0", help="index or UUID")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--torch", action="store_true", help="through torch only")
    given = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = given.gpu
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    found: dict[str, Any] = {}
    if not given.torch:
        try:
            found = {"by": "cublasGemmEx and cudaMemcpyAsync", **direct()}
        except (Unavailable, AttributeError) as error:
            found = {"not_direct": str(error)}
    if "matmul_tflops" not in found:
        try:
            found |= {"by": "torch.mm and torch.add", **through_torch()}
        except (ImportError, RuntimeError, AssertionError) as error:
            print(f"independent_gpu: nothing could be measured: {str(error).splitlines()[0]}", file=sys.stderr)
            return 1
    text = json.dumps(found)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
