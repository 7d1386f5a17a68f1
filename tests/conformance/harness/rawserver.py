# SPDX-License-Identifier: AGPL-3.0-or-later
"""A byte-level origin: shows the exact bytes that arrive and answers with exact bytes."""

from __future__ import annotations

import queue
import re
import socket
import threading
from typing import Callable


class RawPeer:
    """One accepted connection of a `RawServer`, as seen by its script."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""

    def _fill(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except OSError:
            return False
        self.buf += data
        return bool(data)

    def read_head(self) -> bytes:
        """The request head including its empty line; b'' if the peer closed."""
        while b"\r\n\r\n" not in self.buf:
            if not self._fill():
                return b""
        head, _, self.buf = self.buf.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def read_body(self, head: bytes) -> bytes:
        """The body that `head` announces; chunked bodies are returned decoded."""
        if re.search(rb"\r\ntransfer-encoding:\s*chunked\r\n", head, re.I):
            out = b""
            while True:
                while b"\r\n" not in self.buf:
                    if not self._fill():
                        return out
                line, _, self.buf = self.buf.partition(b"\r\n")
                size = int(line.split(b";")[0], 16)
                while len(self.buf) < size + 2:
                    if not self._fill():
                        return out
                out += self.buf[:size]
                self.buf = self.buf[size + 2 :]
                if size == 0:
                    return out
        m = re.search(rb"\r\ncontent-length:\s*(\d+)\r\n", head, re.I)
        size = int(m.group(1)) if m else 0
        while len(self.buf) < size:
            if not self._fill():
                break
        out, self.buf = self.buf[:size], self.buf[size:]
        return out

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait_closed(self, timeout: float = 5.0) -> bool:
        """True if the other side closes (or resets) within the time."""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(65536):
                pass
        except socket.timeout:
            return False
        except OSError:
            return True
        return True


Script = Callable[[RawPeer], None]


class RawServer:
    """Runs `script(peer)` in a thread per connection. `heads` and `bodies` hold what `answering` scripts received."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.heads: "queue.Queue[bytes]" = queue.Queue()
        self.bodies: "queue.Queue[bytes]" = queue.Queue()
        self.connections = 0
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen(64)
        self.port = self._sock.getsockname()[1]
        self._peers: list[socket.socket] = []

    def answering(self, *raw: bytes, close: bool = True) -> "RawServer":
        """Read one whole request per connection, then send the byte strings given."""

        def script(peer: RawPeer) -> None:
            while True:
                head = peer.read_head()
                if not head:
                    return
                self.heads.put(head)
                self.bodies.put(peer.read_body(head))
                for data in raw:
                    peer.send(data)
                if close:
                    return

        self.script = script
        return self

    def start(self) -> "RawServer":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self.connections += 1
            self._peers.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            self.script(RawPeer(sock))
        except OSError:
            pass
        finally:
            sock.close()

    def stop(self) -> None:
        self._sock.close()
        for sock in self._peers:
            sock.close()

    def __enter__(self) -> "RawServer":
        return self.start()

    def __exit__(self, *exc) -> None:
        self.stop()
