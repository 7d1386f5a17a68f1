# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bounds, deadlines, lost messages: what processes cost, processes held up on purpose, crowds of held clients."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterable, Iterator

import pytest

from .client import Connection
from .suite import Suite

# process names of each part, by suite; the kernel keeps 15 characters of a name
PARTS = {
    "frontend": ("pushpin-frontend", "condure", "pushpin-connmgr"),
    "outbound": ("pushpin-outbound", "zurl"),
    "proxy": ("pushpin-proxy",),
    "handler": ("pushpin-handler",),
}
MB = 1 << 20


# processes -----------------------------------------------------------------------------------
def descendants(suite: Suite) -> dict[int, str]:
    """Every process below the runner: pid -> name. Unlike `Suite.children`, several of one name too."""
    parents: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            names[int(entry.name)] = stat[stat.index("(") + 1 : stat.rindex(")")]
            parents.setdefault(int(stat[stat.rindex(")") + 2 :].split()[1]), []).append(int(entry.name))
    found, todo = {}, [suite.process.pid]
    while todo:
        for child in parents.get(todo.pop(), []):
            found[child] = names[child]
            todo.append(child)
    return found


def pids_of(suite: Suite, part: str) -> list[int]:
    names = [name[:15] for name in PARTS[part]]
    return sorted(pid for pid, name in descendants(suite).items() if name in names)


def pid_of(suite: Suite, part: str) -> int:
    pids = pids_of(suite, part)
    if not pids:
        pytest.skip(f"this suite has no process of its own for {part}: {descendants(suite)}")
    return pids[0]


def parts_of(suite: Suite) -> dict[str, int]:
    """A process of each part that the suite has."""
    return {part: pids[0] for part in PARTS if (pids := pids_of(suite, part))}


def alive(pid: int) -> bool:
    return _state(pid) not in ("", "Z")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def memory(pid: int) -> int:
    """Resident bytes."""
    return _status(pid, "VmRSS")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Growth:
    """How far the resident memory of each part rises above what it is now. Only a fresh suite shows it: a process that
    has grown before reuses what it has."""

    def __init__(self, suite: Suite, *parts: str) -> None:
        self.pids = {part: pid for part, pid in parts_of(suite).items() if not parts or part in parts}
        self.start = {}
        for part, pid in self.pids.items():
            # from here on the kernel takes the peak anew
            Path(f"/proc/{pid}/clear_refs").write_text("5")
            self.start[part] = memory(pid)

    def peak(self, part: str) -> float:
        """In MB."""
        return (_status(self.pids[part], "VmHWM") - self.start[part]) / MB

    def now(self, part: str) -> float:
        return (memory(self.pids[part]) - self.start[part]) / MB

    def peaks(self) -> dict[str, float]:
        return {part: round(self.peak(part), 1) for part in self.pids}

    def stays_below(self, limit: float) -> bool:
        return max(self.peaks().values()) < limit


@contextmanager
def paused(*pids: int) -> Iterator[None]:
    """The processes do not run inside the block."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        assert within(2, lambda: all(_state(pid) == "T" for pid in pids), 0.005)
        yield
    finally:
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGCONT)


# waiting -------------------------------------------------------------------------------------
def within(seconds: float, check: Callable[[], object], step: float = 0.05) -> bool:
    """Whether the check becomes true in time. That it gets no answer counts as false."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if check():
                return True
        except (OSError, EOFError, TimeoutError):
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(step)


def settles(value: Callable[[], object], quiet: float = 1.0, timeout: float = 15.0) -> bool:
    """Wait until the value has not changed for a while; false if it goes on changing."""
    deadline, last, since = time.monotonic() + timeout, value(), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = value()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > quiet:
            return True
    return False


def answer_time(port: int, target: str = "/", timeout: float = 5.0) -> float:
    """Seconds until a GET is answered with 200; raises if it is not."""
    start = time.monotonic()
    with Connection(port, timeout=timeout) as c:
        resp = c.request("GET", target)
        assert resp.status == 200, resp
    return time.monotonic() - start


# clients -------------------------------------------------------------------------------------
def get(target: str, *headers: tuple[str, str], method: str = "GET") -> bytes:
    """A request as bytes."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def served_by(suite: Suite, ports: Iterable[int]) -> dict[int, int]:
    """Which frontend process has the client connections with these local ports: port -> pid. Without those that none has
    accepted, or that one has closed."""
    owner: dict[str, int] = {}
    for pid in pids_of(suite, "frontend"):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                owner[os.readlink(fd)] = pid
            except OSError:
                pass
    found, wanted = {}, set(ports)
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(fields[i].rsplit(":", 1)[1], 16) for i in (1, 2))
        if local == suite.http_port and remote in wanted:
            pid = owner.get(f"socket:[{fields[9]}]")
            if pid is not None:
                found[remote] = pid
    return found


class Member:
    """One client of a `Crowd`. What it got is in `raw`, head included."""

    __slots__ = ("sock", "raw", "closed", "port")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.raw, self.closed = sock, bytearray(), False
        self.port = sock.getsockname()[1]

    @property
    def body(self) -> bytes:
        """The body so far. Chunks are taken apart by a pattern, so bodies must not contain a number between line ends."""
        head, _, rest = bytes(self.raw).partition(b"\r\n\r\n")
        if b"\r\ntransfer-encoding: chunked" not in head.lower():
            return rest
        rest = re.sub(rb"\A[0-9a-fA-F]+\r\n", b"", rest)
        rest = re.sub(rb"\r\n[0-9a-fA-F]+\r\n", b"", rest)
        return re.sub(rb"\r\n(0\r\n\r\n)?\Z", b"", rest)

    @property
    def numbers(self) -> list[int]:
        """Numbers in the body that a semicolon ends."""
        return [int(n) for n in re.findall(rb"(\d+);", self.body)]

    def has(self, mark: bytes) -> bool:
        """Whether the mark is near the end of what came."""
        return mark in self.raw[-4096:]


class Crowd:
    """Many clients that read all the time, in a thread of their own (unless `reading` is cleared)."""

    def __init__(self, suite: Suite, receive_buffer: int | None = None) -> None:
        self.suite, self.receive_buffer = suite, receive_buffer
        self.members: list[Member] = []
        self.reading = threading.Event()
        self.reading.set()
        self._epoll = select.epoll()
        self._by_fd: dict[int, Member] = {}
        self._run = True
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def open(self, count: int, request: bytes | Callable[[int], bytes], mark: bytes | None = b"hi\n", wave: int = 64,
             timeout: float = 10.0) -> list[Member]:
        """Open connections, some at a time, and wait until each of those has got the mark."""
        new: list[Member] = []
        for start in range(0, count, wave):
            some = [self.connect(request if isinstance(request, bytes) else request(i))
                    for i in range(start, min(count, start + wave))]
            new += some
            if mark is not None:
                assert within(timeout, lambda: all(m.has(mark) for m in some), 0.005), \
                    f"{sum(m.has(mark) for m in new)} of {count} clients got {mark!r}; the first {bytes(some[0].raw[:300])!r}"
        return new

    def connect(self, request: bytes) -> Member:
        sock = socket.socket()
        if self.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        sock.connect(("127.0.0.1", self.suite.http_port))
        member = Member(sock)
        sock.sendall(request)
        sock.setblocking(False)
        self.members.append(member)
        self._by_fd[sock.fileno()] = member
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return member

    def _loop(self) -> None:
        while self._run:
            if not self.reading.wait(0.1):
                continue
            for fd, _ in self._epoll.poll(0.1):
                member = self._by_fd.get(fd)
                if member is None or not self.reading.is_set():
                    break
                try:
                    data = member.sock.recv(262144)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if data:
                    member.raw += data
                else:
                    self._epoll.unregister(fd)
                    self._by_fd.pop(fd, None)
                    member.closed = True

    def received(self) -> int:
        return sum(len(m.raw) for m in self.members)

    def wait(self, mark: bytes, timeout: float, members: list[Member] | None = None) -> list[Member]:
        """Wait until all have the mark or are closed; returns those that do not have it."""
        members = self.members if members is None else members
        within(timeout, lambda: all(m.closed or m.has(mark) for m in members))
        return [m for m in members if not m.has(mark)]

    def close(self) -> None:
        """Close all connections."""
        self._run = False
        self._thread.join(5)
        self._epoll.close()
        for member in self.members:
            member.sock.close()

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *exc) -> None:
        if self._run:
            self.close()


def send_and_read(port: int, data: bytes, more: int = 0, receive_buffer: int | None = 4096, until: bytes | None = None,
                  timeout: float = 5.0) -> bytes:
    """What a client gets that goes on sending (`more` bytes) while it reads. Ends at `until`, or when it is closed."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    stop = threading.Event()

    def send() -> None:
        left = more
        try:
            sock.sendall(data)
            while left and not stop.is_set():
                left -= sock.send(b"z" * min(left, 50000))
        except OSError:
            pass

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    got, deadline = b"", time.monotonic() + timeout
    try:
        while until is None or until not in got[-4096:]:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            piece = sock.recv(65536)
            if not piece:
                break
            got += piece
    except OSError:
        pass
    stop.set()
    sock.close()
    sender.join(5)
    return got


class Trickle:
    """Clients that go on slowly, or not at all, for as long as they are let. One thread serves them all.

    `add(name, first, piece, pause)` connects, sends `first`, and then `piece` every `pause` seconds. `ended` has the seconds
    after which each was closed.
    """

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.ended: dict[str, float] = {}
        self.answers: dict[str, bytes] = {}
        self._open: dict[str, tuple[socket.socket, float, bytes, float, bool]] = {}
        self._lock = threading.Lock()
        self._run = True
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def add(self, name: str, first: bytes, piece: bytes = b"", pause: float = 2.0, reads: bool = True,
            after: bytes = b"") -> None:
        """`reads`: it takes what it gets. `after` is sent when there has been an answer to `first`."""
        sock = socket.socket()
        if not reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self.suite.http_port))
        sock.sendall(first)
        if after:
            sock.settimeout(5)
            assert sock.recv(4096)
            sock.sendall(after)
        sock.settimeout(0)
        with self._lock:
            self._open[name] = (sock, time.monotonic(), piece, pause, reads)

    def _loop(self) -> None:
        last: dict[str, float] = {}
        while self._run:
            time.sleep(0.25)
            with self._lock:
                clients = list(self._open.items())
            for name, (sock, start, piece, pause, reads) in clients:
                now = time.monotonic()
                if reads:
                    gone = self._gone(name, sock)
                else:
                    port = sock.getsockname()[1]
                    gone = now - start > 2 and not served_by(self.suite, [port])
                if not gone and piece and now - last.get(name, start) >= pause:
                    last[name] = now
                    try:
                        sock.send(piece)
                    except BlockingIOError:
                        pass
                    except OSError:
                        gone = True
                if gone:
                    self.ended[name] = now - start
                    with self._lock:
                        self._open.pop(name)[0].close()

    def _gone(self, name: str, sock: socket.socket) -> bool:
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.answers[name] = self.answers.get(name, b"") + data
        return not data

    def wait(self, names: Iterable[str], seconds: float) -> dict[str, float]:
        """Wait until these have been closed, or have been open for so long; returns those that are open still."""
        def still() -> dict[str, float]:
            with self._lock:
                return {n: round(time.monotonic() - self._open[n][1], 1) for n in names if n in self._open}

        while (left := still()) and min(left.values()) < seconds:
            time.sleep(0.1)
        return left

    def close(self) -> None:
        self._run = False
        self._thread.join(5)
        for sock, *_ in self._open.values():
            sock.close()


# nesting -------------------------------------------------------------------------------------
def nested_list(depth: int) -> bytes:
    """A tnetstring of lists, one in the other."""
    heads, size = [], 3
    for _ in range(depth):
        heads.append(b"%d:" % size)
        size += len(heads[-1]) + 1
    return b"".join(reversed(heads)) + b"0:]" + b"]" * depth


def nested_map(depth: int) -> bytes:
    """A tnetstring of maps, each the value of the key `k` of the one around it."""
    heads, size = [], 3
    for _ in range(depth):
        heads.append(b"%d:1:k," % (size + 4))
        size += len(heads[-1]) + 1
    return b"".join(reversed(heads)) + b"0:}" + b"}" * depth


def tnet_map(**fields: bytes) -> bytes:
    """A tnetstring map of values that are encoded already; `_` in a name stands for `-`."""
    inner = b"".join(b"%d:%s,%s" % (len(k), k.replace("_", "-").encode(), v) for k, v in fields.items())
    return b"%d:%s}" % (len(inner), inner)
