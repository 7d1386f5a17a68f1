# SPDX-License-Identifier: AGPL-3.0-or-later
"""A raw RFC 6455 client and origin. Every frame is visible; nothing is answered unless the test says so."""

from __future__ import annotations

import base64
import hashlib
import os
import queue
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Callable

from .client import Connection, HttpResponse
from .origin import Request, Response
from .suite import Suite

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


@dataclass
class Frame:
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def text(self) -> str:
        assert self.opcode in (TEXT, CONT), f"not a text frame: {self!r}"
        return self.payload.decode()

    @property
    def close(self) -> tuple[int | None, str]:
        """Status and reason of a close frame; (None, '') if it carries none."""
        assert self.opcode == CLOSE, f"not a close frame: {self!r}"
        if not self.payload:
            return None, ""
        return struct.unpack("!H", self.payload[:2])[0], self.payload[2:].decode()


def encode_frame(opcode: int, payload: bytes = b"", fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    head = bytes([(0x80 if fin else 0) | (rsv << 4) | opcode])
    bit = 0x80 if mask else 0
    n = len(payload)
    if n < 126:
        head += bytes([bit | n])
    elif n < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", n)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", n)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + _mask(payload, key)


def _mask(data: bytes, key: bytes) -> bytes:
    n = len(data)
    if not n:
        return data
    repeated = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(n, "big")


def close_payload(code: int | None, reason: str = "") -> bytes:
    return b"" if code is None else struct.pack("!H", code) + reason.encode()


class _Frames:
    """Frame reading and writing over an object with `sock`, `buf` and a mask direction."""

    sock: socket.socket
    buf: bytes
    timeout: float
    _mask_out: bool

    # writing ---------------------------------------------------------------------------------
    def send_raw(self, data: bytes) -> None:
        self.sock.settimeout(30)
        self.sock.sendall(data)

    def send_frame(self, opcode: int, payload: bytes | str = b"", fin: bool = True, mask: bool | None = None, rsv=0) -> None:
        if isinstance(payload, str):
            payload = payload.encode()
        self.send_raw(encode_frame(opcode, payload, fin, self._mask_out if mask is None else mask, rsv))

    def send_text(self, text: str) -> None:
        self.send_frame(TEXT, text)

    def send_binary(self, data: bytes) -> None:
        self.send_frame(BINARY, data)

    def send_close(self, code: int | None = None, reason: str = "") -> None:
        self.send_frame(CLOSE, close_payload(code, reason))

    # reading ---------------------------------------------------------------------------------
    def _need(self, n: int, deadline: float) -> bool:
        while len(self.buf) < n:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no frame; buffered: {self.buf[:100]!r}")
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(1 << 20)
            except socket.timeout:
                raise TimeoutError(f"no frame; buffered: {self.buf[:100]!r}") from None
            except OSError:
                data = b""
            if not data:
                return False
            self.buf += data
        return True

    def recv_frame(self, timeout: float | None = None) -> Frame:
        """The next frame. EOFError if the connection ends instead, TimeoutError if nothing comes."""
        deadline = time.monotonic() + (timeout or self.timeout)
        if not self._need(2, deadline):
            raise EOFError(f"connection ended without a frame; buffered: {self.buf[:100]!r}")
        b0, b1 = self.buf[0], self.buf[1]
        n, at = b1 & 0x7F, 2
        if n == 126:
            at = 4
        elif n == 127:
            at = 10
        if not self._need(at, deadline):
            raise EOFError("connection ended inside a frame head")
        if n == 126:
            n = struct.unpack("!H", self.buf[2:4])[0]
        elif n == 127:
            n = struct.unpack("!Q", self.buf[2:10])[0]
        key = b""
        if b1 & 0x80:
            at += 4
            if not self._need(at, deadline):
                raise EOFError("connection ended inside a frame head")
            key = self.buf[at - 4 : at]
        if not self._need(at + n, deadline):
            raise EOFError("connection ended inside a frame")
        payload, self.buf = self.buf[at : at + n], self.buf[at + n :]
        if key:
            payload = _mask(payload, key)
        return Frame(b0 & 0x0F, payload, bool(b0 & 0x80), (b0 >> 4) & 7, bool(b1 & 0x80))

    def recv_message(self, timeout: float | None = None) -> tuple[int, bytes]:
        """The next data message as (TEXT or BINARY, bytes), its fragments joined. Fails on a control frame."""
        deadline = time.monotonic() + (timeout or self.timeout)
        first = self.recv_frame(deadline - time.monotonic())
        assert first.opcode in (TEXT, BINARY), f"expected a data message, got {first!r:.300}"
        data, frame = [first.payload], first
        while not frame.fin:
            frame = self.recv_frame(max(0.001, deadline - time.monotonic()))
            assert frame.opcode == CONT, f"expected a continuation, got {frame!r:.300}"
            data.append(frame.payload)
        return first.opcode, b"".join(data)

    def recv_text(self, timeout: float | None = None) -> str:
        opcode, data = self.recv_message(timeout)
        assert opcode == TEXT, f"expected text, got binary {data[:200]!r}"
        return data.decode()

    def recv_close(self, timeout: float | None = None) -> tuple[int | None, str]:
        frame = self.recv_frame(timeout)
        assert frame.opcode == CLOSE, f"expected a close frame, got {frame!r:.300}"
        return frame.close

    def is_silent(self, within: float = 0.3) -> bool:
        """True if neither bytes nor an end of the connection arrive within the time."""
        if self.buf:
            return False
        return not select.select([self.sock], [], [], within)[0]

    def ended(self, within: float = 5.0) -> bool:
        """True if the connection ends within the time without another frame."""
        try:
            self.recv_frame(within)
        except EOFError:
            return True
        except TimeoutError:
            return False
        return False

    def reset(self) -> None:
        """End the TCP connection at once, without a closing handshake."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close_socket(self) -> None:
        self.sock.close()


class WsClient(_Frames):
    """Connects and sends a handshake. `response` is the answer; frames follow if its status is 101."""

    def __init__(self, port: int | Suite, target: str = "/", headers=(), host: str = "localhost", timeout: float = 5.0,
                 wait: bool = True, raw_headers=None) -> None:
        self._c = Connection(port.http_port if isinstance(port, Suite) else port, timeout=timeout)
        self.sock, self.timeout, self._mask_out, self.buf = self._c.sock, timeout, True, b""
        self.key = base64.b64encode(os.urandom(16)).decode()
        base = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", self.key)]
        self._c.send_head("GET", target, [*(base if raw_headers is None else raw_headers), *headers], host)
        self.response: HttpResponse | None = None
        if wait:
            self.read_response()

    def read_response(self, timeout: float | None = None) -> HttpResponse:
        self.response = self._c.read_head("GET", timeout or self.timeout)
        if self.response.status == 101:
            self.buf, self._c.buf = self._c.buf, b""
        else:
            self.response.body = self._c.read_rest()
        return self.response

    @property
    def status(self) -> int:
        return self.response.status

    def ping(self, payload: bytes | str = b"") -> None:
        self.send_frame(PING, payload)

    def __enter__(self) -> "WsClient":
        return self

    def __exit__(self, *exc) -> None:
        self.close_socket()


def connect(port: int | Suite, target: str = "/", headers=(), **kw) -> WsClient:
    """A client whose handshake must have been accepted."""
    c = WsClient(port, target, headers, **kw)
    assert c.status == 101, f"handshake refused: {c.response!r}"
    return c


class WsPeer(_Frames):
    """One accepted connection of a `WsOrigin`, driven by the test."""

    def __init__(self, sock: socket.socket, request: Request, rest: bytes) -> None:
        self.sock, self.request, self.buf = sock, request, rest
        self.timeout, self._mask_out = 5.0, False

    def control(self, **message) -> None:
        """Send a GRIP control message: `c:` and a JSON object. `_` in names becomes `-`."""
        import json

        self.send_text("c:" + json.dumps({k.replace("_", "-"): v for k, v in message.items()}))


@dataclass
class Accept:
    """Answer of a `WsOrigin`: switch protocols, with these extra headers."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    reason: str = "Switching Protocols"
    # sent in the same write as the handshake answer
    frames: bytes = b""


GRIP = ("Sec-WebSocket-Extensions", "grip")
Answer = Callable[[Request], "Accept | Response | bytes | None"]


class WsOrigin:
    """A WebSocket origin. `answer(request)` decides: Accept, a Response to refuse, raw bytes, or None to hang up."""

    def __init__(self) -> None:
        self.answer: Answer = lambda req: Accept()
        self.peers: "queue.Queue[WsPeer]" = queue.Queue()
        self.requests: "queue.Queue[Request]" = queue.Queue()
        self._open: list[socket.socket] = []
        # Connections belong to the test in which they were accepted; a later one never sees them.
        self._tests = 0
        self._lock = threading.Lock()
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen(256)
        self.port = self._sock.getsockname()[1]

    def start(self) -> "WsOrigin":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(sock)
                test = self._tests
            threading.Thread(target=self._handshake, args=(sock, test), daemon=True).start()

    def _offer(self, test: int, to: queue.Queue, value: "WsPeer | Request") -> None:
        with self._lock:
            if test == self._tests:
                to.put(value)

    def _handshake(self, sock: socket.socket, test: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buf = b""
        while b"\r\n\r\n" not in buf:
            data = sock.recv(65536)
            if not data:
                sock.close()
                return
            buf += data
        head, _, rest = buf.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        request = Request(method, target, [(k, v.strip()) for k, _, v in (line.partition(":") for line in lines)], b"")
        self._offer(test, self.requests, request)
        answer = self.answer(request)
        if answer is None:
            sock.close()
        elif isinstance(answer, bytes):
            sock.sendall(answer)
            sock.close()
        elif isinstance(answer, Response):
            body = answer.body or b""
            body = body.encode() if isinstance(body, str) else body
            out = [f"HTTP/1.1 {answer.status} {answer.reason or 'Reason'}", *(f"{k}: {v}" for k, v in answer.headers),
                   f"Content-Length: {len(body)}", "", ""]
            sock.sendall("\r\n".join(out).encode("latin-1") + body)
            sock.close()
        else:
            out = [f"HTTP/1.1 101 {answer.reason}", "Upgrade: websocket", "Connection: Upgrade",
                   f"Sec-WebSocket-Accept: {accept_key(request.header('Sec-WebSocket-Key') or '')}",
                   *(f"{k}: {v}" for k, v in answer.headers), "", ""]
            sock.sendall("\r\n".join(out).encode("latin-1") + answer.frames)
            self._offer(test, self.peers, WsPeer(sock, request, rest))

    def reset(self) -> None:
        """Forget what earlier tests left."""
        self.answer = lambda req: Accept()
        with self._lock:
            self._tests += 1
            for q in (self.peers, self.requests):
                while not q.empty():
                    q.get_nowait()
            for sock in self._open:
                sock.close()
            self._open.clear()

    def next_peer(self, timeout: float = 5.0) -> WsPeer:
        try:
            return self.peers.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError("the origin got no WebSocket connection") from None

    def next_request(self, timeout: float = 5.0) -> Request:
        try:
            return self.requests.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError("the origin got no request") from None

    def stop(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._sock.close()
        for sock in self._open:
            sock.close()

    def __enter__(self) -> "WsOrigin":
        return self.start()

    def __exit__(self, *exc) -> None:
        self.stop()


def pair(suite: Suite, origin: WsOrigin, target: str = "/", headers=(), **kw) -> tuple[WsClient, WsPeer]:
    """A client connected through the suite, and the origin's end of its connection."""
    client = connect(suite, target, headers, **kw)
    return client, origin.next_peer()


def grip_pair(suite: Suite, origin: WsOrigin, channel: str | None = None, prefix: str | None = None, target: str = "/",
              headers=()) -> tuple[WsClient, WsPeer]:
    """As `pair`, with the grip extension accepted and, if a channel is given, subscribed."""
    from .hold import wait_subscribed

    value = "grip" if prefix is None else f'grip; message-prefix="{prefix}"'
    origin.answer = lambda req: Accept([("Sec-WebSocket-Extensions", value)])
    client, peer = pair(suite, origin, target, headers)
    if channel is not None:
        peer.control(type="subscribe", channel=channel)
        wait_subscribed(suite, channel)
    return client, peer
