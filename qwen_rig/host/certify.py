"""Runs on the host, under any Python (3.9 or newer) that has torch: measure each card, and write what was seen as JSON.

Usage: certify.py --out FILE [--expect JSON or @FILE]. Needs the files certify_*.py, processes.py,
nvidia_text.py, tiny_qwen.py, flash_attn_check.py and gated_delta.py beside it, no root and no network. It changes
nothing on the host but FILE.

It measures and doesn't judge: whether a number is good is said on the controller, by qwen_rig/data/gates.yml
(`qwen-rig certificate read FILE`). Every check ends as measured, fail (it crashed, hung or computed wrongly) or
not_run, with the reason. Exits 0 whatever was found, 1 where FILE can't be written.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import threading
import time
from pathlib import Path

import certify_attention
import certify_card
import certify_compute
import certify_peers
import certify_training
import processes
from processes import attempt, result

FORMAT = 1  # of what is written; qwen_rig/certificate/ reads this one
# What isn't said is measured by these: the guide's settings for a 5090, a model in the shape of a small Qwen.
DEFAULTS = {
    "stack": None, "gpu": True, "torch": {}, "model": None, "steps": 20, "length": 1024, "size": "half-billion",
    "deadline_seconds": None, "load_seconds": 6,
    "head_dims": [64, 128], "gated_delta": None,
    "allow_busy_gpu": False, "busy": {"utilization": 10, "memory_mib": 1024},
    "training": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "bf16": True, "tf32": True,
                 "fp16": False, "attn_implementation": "sdpa", "use_cache": False},
}
PROOF = ("torch_build", "first_kernel")  # a card that hangs in these hangs in all that comes after
FIRST = 300  # seconds: the first import of torch after an installation took 40 s on a cold, slow disk
# name → (check, seconds). Those of one batch share a process until one of them dies.
BATCHES = (
    {"torch_build": (certify_compute.build, FIRST), "first_kernel": (certify_compute.kernel, 120),
     "precision": (certify_compute.precision, 60), "matmul": (certify_compute.matmul, 120),
     "load": (certify_compute.load, 120), "bandwidth": (certify_compute.bandwidth, 90),
     "transfer": (certify_compute.transfer, 60), "memory": (certify_compute.memory, 180),
     "sdpa": (certify_attention.sdpa, 90), "flash_attention": (certify_attention.flash_attention, 270)},
    {"gated_delta": (certify_attention.linear_attention, FIRST)},
    {"training": (certify_training.training, 600)},
    {"largest_batch": (certify_training.largest_batch, 240)},
)
GROUP = {"peers": (certify_peers.peers, 120), "all_reduce": (certify_peers.all_reduce, 2 * certify_peers.LIMIT + 60)}
CHECKS = {name: pair for batch in (*BATCHES, GROUP) for name, pair in batch.items()}
SECONDS = {name: seconds for name, (_, seconds) in CHECKS.items()}


def say(text):
    print(f"certify: {text}", file=sys.stderr, flush=True)


def chosen(cards):
    """Those cards that CUDA_VISIBLE_DEVICES leaves visible (indexes as nvidia-smi counts them, or UUIDs); else all."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return cards
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    return [card for card in cards if any(str(card["index"]) == n or (n.startswith("GPU-") and
                                          card["uuid"].startswith(n)) for n in names)]


def hung_in(checks):
    """Why no more can be asked of a card with these results; None where it can."""
    return next((f"the card hung in {name}" for name in PROOF if checks.get(name, {}).get("hang")), None)


def certify_one(card, expect, deadline):
    """All checks of one card: first what is said of it, then what it does, last its error counters again."""
    uuid, name = card.get("uuid"), card.get("name") or "no GPU"
    checks = card["checks"]
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **({"CUDA_VISIBLE_DEVICES": uuid} if uuid else {})}
    asked = {**expect, "uuid": uuid, "bus_id": card.get("bus_id"),
             "in_use": bool(uuid) and certify_card.busy(checks["other_users"], expect["busy"])}
    seconds = {**SECONDS, "gated_delta": FIRST + (expect["gated_delta"] or {}).get("compile_s", 0)}  # Triton's, once
    for batch in BATCHES:
        if expect["torch"] is None:
            why = f"no GPU to compute on: stack {expect['stack']} has no torch"
            checks.update({check: result("not_run", why=why) for check in batch})
            continue
        if expect["gated_delta"] is None and "gated_delta" in batch:  # no process for that
            checks["gated_delta"] = result("not_run", why="the Qwen of this stack has no linear layers")
            continue
        say(f"{name}: {', '.join(batch)}")
        checks.update(processes.run(__file__, list(batch), asked, seconds, environment, deadline,
                                    lambda done: hung_in({**checks, **done})))
    if uuid:
        checks["ecc"] = attempt(certify_card.ecc, card["smi"])


def measure(expect):
    """The whole: what the host says, each card (all at once, as they work in earnest), then the cards together."""
    began = time.time()
    deadline = time.monotonic() + (math.inf if expect["deadline_seconds"] is None else expect["deadline_seconds"])
    log = attempt(certify_card.kernel_log)
    answering = certify_card.cards()
    listed = chosen(answering)
    cards = [{"uuid": row["uuid"], "index": row["index"], "name": row["name"], "bus_id": row["pci.bus_id"], "smi": row,
              "checks": {"identity": attempt(certify_card.identity, row)}} for row in listed]
    for card in cards:
        card["checks"]["other_users"] = attempt(certify_card.usage, card["smi"])
    threads = [threading.Thread(target=certify_one, args=(card, expect, deadline)) for card in cards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not cards:  # what can run without a card does, and is no certificate of any
        cards = [{"uuid": None, "index": None, "name": None, "bus_id": None, "smi": {}, "checks": {}}]
        certify_one(cards[0], expect, deadline)
    group = {name: result("not_run", why="one GPU only") for name in GROUP}
    if len(listed) > 1 and expect["torch"] is not None:
        say(f"{len(listed)} GPUs together: {', '.join(GROUP)}")
        every = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(c["uuid"] for c in cards)}
        hung = next(filter(None, (hung_in(card["checks"]) for card in cards)), None)
        group = processes.run(__file__, list(GROUP), expect, SECONDS, every, deadline, lambda done: hung)
    after = attempt(certify_card.kernel_log)
    if log["status"] == after["status"] == "measured":
        old = set(log["data"]["lines"])
        after["data"]["new"] = [line for line in after["data"]["lines"] if line not in old]
    return {"format": FORMAT, "program": program_id(), "host": platform.node(), "began": int(began),
            "seconds": round(time.time() - began, 1), "stack": expect["stack"],
            "system": {"kernel": platform.release(), "python": platform.python_version(),
                       "machine": platform.machine()},
            "driver": attempt(certify_card.driver), "bus": attempt(certify_card.bus, answering), "kernel_log": after,
            "cards": cards, "group": group}


def program_id():
    """Of the very files that measured: two certificates of unlike programs can differ for that alone."""
    here = Path(__file__).resolve().parent
    beside = ("processes.py", "nvidia_text.py", "tiny_qwen.py", "flash_attn_check.py", "gated_delta.py")
    names = sorted([*here.glob("certify*.py"), *(here / name for name in beside)])
    return hashlib.sha256(b"".join(name.read_bytes() for name in names)).hexdigest()[:12]


def read_expect(text):
    raw = Path(text[1:]).read_text() if text.startswith("@") else text
    asked = json.loads(raw)
    if not asked.get("head_dims"):  # a stack that doesn't say what it trains
        asked.pop("head_dims", None)
    return {**DEFAULTS, **asked}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", type=read_expect, default=DEFAULTS, help="what is wanted of this host, as JSON")
    parser.add_argument("--out", type=Path, help="where the measurements go")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return processes.serve({name: check for name, (check, _) in CHECKS.items()})
    if given.out is None:
        parser.error("--out is needed")
    text = json.dumps(measure(given.expect), default=str)
    new = given.out.with_name(given.out.name + ".new")
    try:
        new.write_text(text + "\n")
        os.replace(new, given.out)
    except OSError as error:
        sys.exit(f"certify.py: {given.out} can't be written: {error.strerror}")


if __name__ == "__main__":
    main()
