"""Runs on each of several hosts at once, under the env's python: an all-reduce over all their cards, with a hard limit.

Usage: launch_check.py --spec JSON [--record FILE]. A hang is a finding: when the limit is over, all that this host
started is killed, and the record says how far it came. Without cards (backend gloo) it shows the network, no more.
Exit status 0 whatever it found; the record tells.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from processes import MARK, NotRun, attempt, kill, one_line, result

STAGE = "rig-stage "
MEETING = 60  # seconds that torch.distributed waits for the others; the limit is above it


def rank_main(job):
    """One rank: meet, warm up, time, and check the sum. Says on standard output how far it has come."""
    import torch
    import torch.distributed as dist

    on_gpu = job["backend"] == "nccl"
    if on_gpu and torch.cuda.device_count() < job["per_node"]:
        raise RuntimeError(f"torch sees {torch.cuda.device_count()} of {job['per_node']} GPUs on "
                           f"{job['names'][job['node']]}")
    device = f"cuda:{job['local']}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(job["local"])
    world, rank = len(job["names"]) * job["per_node"], job["node"] * job["per_node"] + job["local"]
    say(f"meeting at {job['master']}:{job['port']} by {job['interface']}")
    dist.init_process_group(job["backend"], init_method=f"tcp://{job['master']}:{job['port']}", rank=rank,
                            world_size=world, timeout=datetime.timedelta(seconds=MEETING))
    say("all-reduce")
    data = torch.full((job["bytes"] // 4,), float(rank + 1), device=device)
    dist.all_reduce(data)
    right = bool((data == world * (world + 1) / 2).all())
    times = []
    for turn in range(6):
        data.fill_(1.0)
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(data)
        if on_gpu:
            torch.cuda.synchronize()
        if turn:  # the first warms up
            times.append(time.perf_counter() - began)
    version = ".".join(map(str, torch.cuda.nccl.version())) if on_gpu else f"torch {torch.__version__}"
    dist.destroy_process_group()
    if not right:
        return result("fail", why=f"rank {rank} got a wrong sum")
    seconds = statistics.median(times)
    return result("pass", data={"ranks": world, "backend": job["backend"], "version": version, "bytes": job["bytes"],
                                "bus_gbs": 2 * (world - 1) / world * job["bytes"] / 1e9 / seconds})


def say(stage):
    print(STAGE + stage, flush=True)


def check(job, program=None):
    """This host's ranks, under the limit: what the slowest of them says."""
    try:
        import torch  # noqa: F401
    except ImportError:
        if program is None:
            raise NotRun("torch is not installed") from None
    said, stages, lines, over = ran(job, program or os.path.abspath(__file__))
    me, far = job["names"][job["node"]], next(iter(stages.values()), "its start")
    last = one_line(" ".join(lines[-1:]), 200)
    bad = [one for one in said if one["status"] != "pass"]
    if bad:
        return result("fail", why=f"{me}, {far}: {bad[0]['why']}", data={"stage": far})
    if len(said) < job["per_node"]:
        why = f"hangs: no end after {job['limit']} s" if over else f"a rank died: {last or 'no word'}"
        return result("fail", why=f"{me}, {far}: {why}", hang=over, data={"stage": far})
    return said[0]


def ran(job, program):
    """What this host's ranks said, the stage that each one came to, the lines of their errors, and whether the limit
    ended them."""
    env = {**os.environ, **job.get("environment", {}), "NCCL_SOCKET_IFNAME": job["interface"],
           "GLOO_SOCKET_IFNAME": job["interface"]}
    said, stages = [], {}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        running = [subprocess.Popen([sys.executable, program, "--rank",
                                     json.dumps({**job, "local": local})], stdout=subprocess.PIPE, stderr=errors,
                                    text=True, env=env, start_new_session=True) for local in range(job["per_node"])]
        timer = threading.Timer(job["limit"], lambda: [kill(process) for process in running])
        began = time.monotonic()
        timer.start()
        try:
            for local, process in enumerate(running):
                for line in process.stdout:
                    if line.startswith(STAGE):
                        stages[local] = line[len(STAGE):].strip()
                    elif line.startswith(MARK):
                        said.append(json.loads(line[len(MARK):]))
                process.wait()
        finally:
            timer.cancel()
            for process in running:
                kill(process)
        errors.seek(0)
        lines = [line for line in errors.read().splitlines() if line.strip()]
    return said, stages, lines, time.monotonic() - began >= job["limit"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=json.loads)
    parser.add_argument("--rank", type=json.loads)
    parser.add_argument("--record")
    given = parser.parse_args()
    if given.rank:
        print(MARK + json.dumps(attempt(rank_main, given.rank)), flush=True)
        return
    record = {**attempt(check, given.spec), "fingerprint": given.spec["fingerprint"], "time": int(time.time())}
    if given.record:
        with open(f"{given.record}.new", "w") as file:
            json.dump(record, file, indent=1)
        os.replace(f"{given.record}.new", given.record)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
