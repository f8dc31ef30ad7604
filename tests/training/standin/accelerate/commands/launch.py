"""A stand-in for accelerate's and torch's launcher, one process a host: the first host's opens the store, in which all
meet; it stays till all have ended."""

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress

import torch

MEET_S, END_S = 60, 10
PASSED_ON = (signal.SIGTERM, signal.SIGINT)


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            asked = json.loads(line)
            if "value" in asked:
                self.server.held[asked["key"]] = asked["value"]
            self.wfile.write(json.dumps(self.server.held.get(asked["key"])).encode() + b"\n")


class Store(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


def met(address, port):
    end = time.monotonic() + MEET_S
    while True:
        try:
            return torch.distributed.TCPStore(address, port)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def all_at(store, what, rank, count, seconds):
    store.set(f"{what}/{rank}", "1")
    end = time.monotonic() + seconds
    while not all(store.check([f"{what}/{n}"]) for n in range(count)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def main(arguments):
    with open(arguments[arguments.index("--config_file") + 1], encoding="utf-8") as lines:
        told = dict(line.rstrip("\n").split(": ", 1) for line in lines if ": " in line)
    rank, count = int(told["machine_rank"]), int(told["num_machines"])
    address, port = told["main_process_ip"], int(told["main_process_port"])
    if rank == 0:
        server = Store((address, port), Answer)
        server.held = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
    store = met(address, port)
    if not all_at(store, "meet", rank, count, MEET_S):
        sys.exit("RuntimeError: the other hosts did not come (stand-in)")
    print(f"stand-in: {count} processes at {address}:{port} by {os.environ['NCCL_SOCKET_IFNAME']}", flush=True)
    trainer = subprocess.Popen([sys.executable, *arguments[2:]], env={
        **os.environ, "RANK": str(rank), "LOCAL_RANK": "0", "GROUP_RANK": str(rank), "WORLD_SIZE": str(count),
        "MASTER_ADDR": address, "MASTER_PORT": str(port)})
    for number in PASSED_ON:
        signal.signal(number, lambda got, _: trainer.send_signal(got))
    code = trainer.wait()
    if code == 0:
        with suppress(RuntimeError):  # the first was through before us, and its store is gone
            all_at(store, "end", rank, count, END_S)
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
