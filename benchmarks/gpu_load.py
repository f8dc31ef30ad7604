"""Keep a GPU busy for some seconds, holding some of its memory: for taking a certificate while somebody else works.

    python3 benchmarks/gpu_load.py --seconds 120 --gib 8 [--gpu 0]
"""

from __future__ import annotations

import argparse
import os
import sys
import time


def main() -> int:
    """0 when the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--gib", type=float, default=8, help="memory to hold")
    parser.add_argument("--gpu", default="0", help="index or UUID")
    given = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = given.gpu
    import torch

    if not torch.cuda.is_available():
        print("gpu_load: torch sees no GPU", file=sys.stderr)
        return 1
    held = torch.zeros(int(given.gib * (1 << 30)), dtype=torch.uint8, device="cuda")
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    print(f"gpu_load: {held.numel() >> 30} GiB held, busy for {given.seconds:.0f} s", flush=True)
    until = time.monotonic() + given.seconds
    while time.monotonic() < until:
        for _ in range(50):
            a @ a
        torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
