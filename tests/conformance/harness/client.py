# SPDX-License-Identifier: AGPL-3.0-or-later
"""A raw HTTP/1.1 client: shows exactly what came over the wire, and when."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field


@dataclass
class HttpResponse:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        values = [v for k, v in self.headers if k.lower() == name.lower()]
        return ", ".join(values) if values else None

    def names(self) -> set[str]:
        return {k.lower() for k, _ in self.headers}


class Connection:
    """One TCP connection. Use `request` for whole exchanges, `send_head` + `read_*` for streams."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 5.0) -> None:
        self.sock = socket.create_connection((host, port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout
        self.buf = b""
        self._chunked = False
        self._remaining: int | None = None
        self._eof_delimited = False

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    # writing ---------------------------------------------------------------------------------
    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_head(self, method: str, target: str, headers=(), host: str = "localhost", version="HTTP/1.1") -> None:
        lines = [f"{method} {target} {version}"]
        if host is not None and not any(k.lower() == "host" for k, _ in headers):
            lines.append(f"Host: {host}")
        lines += [f"{k}: {v}" for k, v in headers]
        self.send_raw(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def request(self, method: str, target: str, headers=(), body: bytes | str | None = None, host="localhost") -> HttpResponse:
        self.start(method, target, headers, body, host)
        resp = self.read_head(method)
        resp.body = self.read_rest()
        return resp

    def start(self, method: str, target: str, headers=(), body=None, host="localhost") -> None:
        headers = list(headers)
        if isinstance(body, str):
            body = body.encode()
        if body is not None:
            headers.append(("Content-Length", str(len(body))))
        self.send_head(method, target, headers, host)
        if body:
            self.send_raw(body)

    # reading ---------------------------------------------------------------------------------
    def _fill(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"timed out; buffered so far: {self.buf[:300]!r}")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(65536)
        except socket.timeout:
            raise TimeoutError(f"timed out; buffered so far: {self.buf[:300]!r}") from None
        except ConnectionResetError:
            return False
        self.buf += data
        return bool(data)

    def _until(self, mark: bytes, deadline: float) -> bytes:
        while mark not in self.buf:
            if not self._fill(deadline):
                raise EOFError(f"closed before {mark!r}; had {self.buf[:300]!r}")
        out, _, self.buf = self.buf.partition(mark)
        return out

    def _exactly(self, n: int, deadline: float) -> bytes:
        while len(self.buf) < n:
            if not self._fill(deadline):
                raise EOFError(f"closed with {len(self.buf)} of {n} bytes")
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def read_head(self, method: str = "GET", timeout: float | None = None) -> HttpResponse:
        deadline = time.monotonic() + (timeout or self.timeout)
        while True:
            head = self._until(b"\r\n\r\n", deadline).decode("latin-1")
            first, *rest = head.split("\r\n")
            _, status, *reason = first.split(" ", 2)
            headers = []
            for line in rest:
                k, _, v = line.partition(":")
                headers.append((k, v.strip()))
            resp = HttpResponse(int(status), reason[0] if reason else "", headers)
            if resp.status == 100:
                continue
            break
        te = (resp.header("Transfer-Encoding") or "").lower()
        cl = resp.header("Content-Length")
        self._chunked = te == "chunked"
        self._eof_delimited = False
        self._remaining = None
        if method == "HEAD" or resp.status in (204, 304) or resp.status == 101:
            self._remaining = 0
            self._chunked = False
        elif self._chunked:
            pass
        elif cl is not None:
            self._remaining = int(cl)
        else:
            self._eof_delimited = True
        return resp

    def read_chunk(self, timeout: float | None = None) -> bytes:
        """Next piece of a streamed body; b'' at its end. Raises TimeoutError if nothing comes."""
        deadline = time.monotonic() + (timeout or self.timeout)
        if self._chunked:
            size = int(self._until(b"\r\n", deadline).split(b";")[0], 16)
            data = self._exactly(size, deadline)
            self._until(b"\r\n", deadline)
            if size == 0:
                self._chunked, self._remaining = False, 0
            return data
        if self._remaining is not None:
            if self._remaining == 0:
                return b""
            if not self.buf and not self._fill(deadline):
                raise EOFError("closed inside a body with Content-Length")
            data, self.buf = self.buf[: self._remaining], self.buf[self._remaining :]
            self._remaining -= len(data)
            return data
        if not self.buf and not self._fill(deadline):
            return b""
        data, self.buf = self.buf, b""
        return data

    def read_rest(self, timeout: float | None = None) -> bytes:
        out = b""
        while True:
            data = self.read_chunk(timeout)
            if not data:
                return out
            out += data

    def read_text(self, expected: str, timeout: float | None = None) -> str:
        """Read body pieces until their sum is at least as long as `expected`; return the sum."""
        out = b""
        while len(out) < len(expected.encode()):
            data = self.read_chunk(timeout)
            if not data:
                break
            out += data
        return out.decode()

    def is_silent(self, within: float = 0.5) -> bool:
        """True if neither data nor a close arrives within the time."""
        if self.buf:
            return False
        self.sock.settimeout(within)
        try:
            data = self.sock.recv(65536)
        except socket.timeout:
            return True
        except ConnectionResetError:
            return False
        self.buf += data
        return False

    def is_closed(self, within: float = 5.0) -> bool:
        """True if the peer closes within the time without sending more."""
        if self.buf:
            return False
        self.sock.settimeout(within)
        try:
            return self.sock.recv(1) == b""
        except socket.timeout:
            return False
        except ConnectionResetError:
            return True
