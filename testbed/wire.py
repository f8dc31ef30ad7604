"""What passes on hosts' cables, counted on the controller's ends; and a host cut off from what the bridge serves."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .base import PORT
from .bed import Testbed

ETH_P_ALL, ETH_IPV4 = 3, 0x0800
TCP, UDP = 6, 17


class Tap:
    """Packets of IPv4 by what they are: "tcp 22" (either end's port, the lower), "udp 53", "ip 1" for ICMP."""

    def __init__(self) -> None:
        self.packets: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def see(self, frame: bytes) -> None:
        """Count one Ethernet frame; what isn't IPv4 (ARP, IPv6's neighbour talk) is the cable's own."""
        if len(frame) < 34 or struct.unpack("!H", frame[12:14])[0] != ETH_IPV4:
            return
        protocol, begin = frame[23], 14 + (frame[14] & 15) * 4
        name = f"ip {protocol}"
        if protocol in (TCP, UDP) and len(frame) >= begin + 4:
            name = f"{'tcp' if protocol == TCP else 'udp'} {min(struct.unpack('!HH', frame[begin:begin + 4]))}"
        self.packets[name] += 1
        self.bytes[name] += len(frame)


@contextmanager
def tapped(bed: Testbed, names: Sequence[str]) -> Iterator[dict[str, Tap]]:
    """Meanwhile every packet on these hosts' cables is counted, whichever way it goes."""
    taps, sockets, threads = {name: Tap() for name in names}, [], []
    for name in names:
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        ear.bind((bed.cable_name(name), 0))
        ear.settimeout(0.2)
        sockets.append(ear)
    done = threading.Event()

    def listen(ear: socket.socket, tap: Tap) -> None:
        while not done.is_set():
            try:
                tap.see(ear.recv(65535))
            except TimeoutError:
                continue

    for ear, tap in zip(sockets, taps.values(), strict=True):
        threads.append(threading.Thread(target=listen, args=(ear, tap), daemon=True))
        threads[-1].start()
    try:
        yield taps
    finally:
        done.set()
        for thread in threads:
            thread.join(2)
        for ear in sockets:
            ear.close()


def cut_off(bed: Testbed, name: str) -> None:
    """Nothing that the bridge serves is within the host's reach any more, as behind a firewall; SSH to it still is."""
    bed.exec_(name, ["ip", "rule", "add", "ipproto", str(TCP), "dport", str(PORT), "prohibit"], check=True)
