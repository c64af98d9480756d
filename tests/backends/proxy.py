"""A Docker engine that can be killed: leads from one unix socket to another.

`python tests/backends/proxy.py SOCKET UPSTREAM`; it says that it is ready.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading

SOCKET, UPSTREAM = sys.argv[1:] if __name__ == "__main__" else ("", "")


class Connection(socketserver.BaseRequestHandler):
    """One client."""

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(UPSTREAM)
            back = threading.Thread(target=pour, args=(there, self.request))
            back.start()
            pour(self.request, there)
            back.join()


def pour(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes until one side ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    with socketserver.ThreadingUnixStreamServer(SOCKET, Connection) as server:
        print("ready", flush=True)  # noqa: T201  # the parent waits for it
        server.serve_forever()
