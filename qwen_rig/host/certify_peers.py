"""Travels with certify.py: several cards of one host together: peer copies, and all-reduce through NCCL.

The all-reduce runs in a process a card, under a hard limit: when it hangs, all are killed, and that is the finding.
What the environment says to NCCL (NCCL_NVLS_ENABLE and similar variables) is left as it is.
"""

import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from certify_compute import gpu, timed
from processes import MARK, NotRun, attempt, kill, one_line, result

BYTES = 1 << 30
BATCHES, CALLS = 7, 10  # after one batch to warm up
RANK_SECONDS = 60  # what torch.distributed waits for a partner
LIMIT = 150  # and for all pairs together


def peers(expect):
    """For each ordered pair of cards: may one read the other's memory, how fast is a copy, and is it the same after."""
    torch = gpu(expect)
    count = torch.cuda.device_count()
    if count < 2:
        raise NotRun("one GPU only")
    pairs = []
    for i in range(count):
        for j in range(count):
            if i == j:
                continue
            source = torch.randint(0, 255, (256 << 20,), dtype=torch.uint8, device=f"cuda:{i}")
            target = torch.empty_like(source, device=f"cuda:{j}")
            with torch.cuda.device(i):
                median, _, _ = timed(torch, lambda s=source, t=target: t.copy_(s, non_blocking=True), seconds=0.3)
            torch.cuda.synchronize(j)
            right = torch.equal(source.cpu(), target.cpu())
            pairs.append({"from": i, "to": j, "direct": torch.cuda.can_device_access_peer(j, i), "right": right,
                          "gbs": (256 << 20) / 1e9 / median})
    return result("measured", data={"pairs": pairs})


WITHOUT_PEERS = {"NCCL_P2P_DISABLE": "1"}  # through the host's memory instead


def all_reduce(expect, ranks=None, backend="nccl", size=BYTES, limit=LIMIT, program=None):
    """Bus bandwidth of the all-reduce of 1 GiB over all cards: 2(n-1)/n × bytes ÷ time, as nccl-tests define it.

    Where it hangs, dies or gets a wrong sum, once more without NCCL's peer-to-peer, which is what fails between PCIe
    cards on some machines (NVIDIA/nccl#1999); `without_peers` is then why the first one failed.
    """
    if ranks is None:
        ranks = gpu(expect).cuda.device_count()
    if ranks < 2:
        raise NotRun("one GPU only")
    found = _all_reduce(ranks, backend, size, limit, program, {})
    if found["status"] != "fail" or backend != "nccl" or WITHOUT_PEERS.keys() & os.environ.keys():
        return found
    again = _all_reduce(ranks, backend, size, limit, program, WITHOUT_PEERS)
    if again["status"] != "measured":
        return found
    return {**again, "data": {**again["data"], "without_peers": found["why"]}}


def _all_reduce(ranks, backend, size, limit, program, more):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", errors="replace") as errors:
        job = {"world": ranks, "backend": backend, "bytes": size, "store": os.path.join(folder, "store")}
        command = [sys.executable, program or os.path.abspath(__file__)]
        running = [subprocess.Popen([*command, json.dumps({**job, "rank": rank})], stdout=subprocess.PIPE,
                                    stderr=errors, text=True, start_new_session=True,
                                    env={**os.environ, **more}) for rank in range(ranks)]
        deadline, said, hung = time.monotonic() + limit, [], []
        try:
            for rank, process in enumerate(running):
                try:
                    out, _ = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
                    said += [json.loads(line[len(MARK):]) for line in out.splitlines() if line.startswith(MARK)]
                except subprocess.TimeoutExpired:
                    hung.append(rank)
        finally:
            for process in running:
                if process.poll() is None:
                    kill(process)
                    process.wait()
        errors.seek(0)
        last = one_line(" ".join(errors.read().strip().splitlines()[-2:]), 300)
    if hung:
        who = f"rank {', '.join(map(str, hung))} of {ranks} hangs in {backend}"
        return result("fail", why=f"no end after {limit} s: {who}" + (f" ({last})" if last else ""), hang=True)
    bad = [one for one in said if one["status"] != "measured"]
    if bad or len(said) < ranks:
        return result("fail", why=bad[0]["why"] if bad else f"{ranks - len(said)} of {ranks} ranks died: {last}")
    slowest = max(one["data"]["seconds"] for one in said)
    return result("measured", data={
        "ranks": ranks, "backend": backend, "bytes": size, "seconds": slowest, "version": said[0]["data"]["version"],
        "bus_gbs": 2 * (ranks - 1) / ranks * size / 1e9 / slowest,
        "environment": {name: text for name, text in {**os.environ, **more}.items() if name.startswith("NCCL_")}})


def batch(torch, dist, data, on_gpu):
    """Seconds that one all-reduce takes, of some without a pause: alone, each would count the host's own delays too."""
    data.fill_(1.0)  # sums grow by the number of ranks each time, and stay finite
    if not on_gpu:
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(data)
        return time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    dist.barrier()
    begin.record()
    for _ in range(CALLS):
        dist.all_reduce(data)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / CALLS


def rank_main(job):
    """One rank: warm up, time, and check the sum."""
    import torch
    import torch.distributed as dist

    on_gpu = job["backend"] == "nccl"
    device = f"cuda:{job['rank']}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(job["rank"])
    dist.init_process_group(job["backend"], init_method=f"file://{job['store']}", rank=job["rank"],
                            world_size=job["world"], timeout=datetime.timedelta(seconds=RANK_SECONDS))
    data = torch.full((job["bytes"] // 4,), float(job["rank"] + 1), device=device)
    dist.all_reduce(data)
    right = bool((data == job["world"] * (job["world"] + 1) / 2).all())
    times = [batch(torch, dist, data, on_gpu) for _ in range(1 + BATCHES)][1:]
    version = ".".join(map(str, torch.cuda.nccl.version())) if on_gpu else torch.__version__
    dist.destroy_process_group()
    if not right:
        return result("fail", why=f"rank {job['rank']} got a wrong sum")
    return result("measured", data={"seconds": statistics.median(times), "version": version})


if __name__ == "__main__":
    print(MARK + json.dumps(attempt(rank_main, json.loads(sys.argv[1]))), flush=True)
