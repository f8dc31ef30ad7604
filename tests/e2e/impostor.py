"""A local user of a host who takes the port of a tunnel and serves canaries: `impostor.py UID PORT RECORD`, in the
host's network. It answers by TLS, with a certificate that anybody can make; the record has what was said to it."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading

from qwen_rig.network.secure import identity

CANARY = (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
          b"<a href='six-1.17.0-py2.py3-none-any.whl'>six-1.17.0-py2.py3-none-any.whl</a> canary")


def main(uid: int, port: int, record: str) -> None:
    """Serve until killed."""
    context = identity().context
    with open(record, "ab", buffering=0) as said:
        os.setgid(uid)
        os.setuid(uid)
        listener = socket.create_server(("127.0.0.1", port))
        said.write(b"listening\n")
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0], context, said), daemon=True).start()


def answer(connection: socket.socket, context: ssl.SSLContext, said: object) -> None:
    """One connection; what is told before and after the handshake is on record."""
    said.write(b"connected\n")  # type: ignore[attr-defined]
    try:
        with context.wrap_socket(connection, server_side=True) as secured:
            said.write(b"HEARD " + secured.recv(65536) + b"\n")  # type: ignore[attr-defined]
            secured.sendall(CANARY)
    except OSError:
        connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
