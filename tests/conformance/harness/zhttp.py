# SPDX-License-Identifier: AGPL-3.0-or-later
"""Drive one component alone over ZHTTP: be the proxy behind a frontend, or the proxy in front of an outbound client.

How a component of each suite is started is in the two tables `FRONTENDS` and `OUTBOUNDS`. Whatever is started has its
sockets at ipc://DIR/run/c-condure-{out,out-stream,in} (frontend) or ipc://DIR/run/c-zurl-{in,in-stream,out} (outbound), or, if it
is this project's and is to be reached over TCP, at three ports.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import zmq

from . import tnetstring
from .suite import SUITE, PortBlock, wait_for_port

_context = zmq.Context.instance()
PREFIX = "c-"
_ids = itertools.count(1)


def new_id(prefix: str = "t") -> str:
    return f"{prefix}-{os.getpid()}-{next(_ids)}"


# launching -----------------------------------------------------------------------------------
def _conf(c: "Component") -> list[str]:
    """Write the pushpin.conf that our own components read; returns the argument that names it."""
    sections = {
        "global": {"rundir": c.dir / "run", "ipc_prefix": PREFIX, "port_offset": 0},
        "runner": {"http_port": f"127.0.0.1:{c.port}", "logdir": c.dir / "log", "client_maxconn": 1000, "client_buffer_size": 8192, **c.settings},
    }
    if c.over == "tcp":
        sections["proxy"] = {setting: c.spec(name) for name, setting in _TCP.items()}
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{k}={v}" for k, v in values.items()), ""]
    (c.dir / "pushpin.conf").write_text("\n".join(lines))
    return [f"--config={c.dir}/pushpin.conf"]


def _project(name: str):
    def command(c: "Component") -> list[str]:
        return [str(Path(os.environ.get("PROJECT_BIN", "target/release")).resolve() / name), *_conf(c)]

    return command


def _server_args(c: "Component", base: str) -> list[str]:
    return [f"--listen=127.0.0.1:{c.port},stream", f"--zclient-stream=ipc://{c.dir}/run/{PREFIX}{base}", "--stream-maxconn=1000",
            f"--buffer-size={c.settings.get('client_buffer_size', 8192)}"]


def _zurl(c: "Component") -> list[str]:
    run = f"ipc://{c.dir}/run/{PREFIX}zurl"
    (c.dir / "zurl.conf").write_text(
        f"[General]\nin_spec={run}-in\nin_stream_spec={run}-in-stream\nout_spec={run}-out\nin_req_spec=\n"
        "defpolicy=allow\nallow=\ndeny=127.*,10.*,192.168.*,*.local\nmax_open_requests=2000\nbuffer_size=200000\ntimeout=600\n")
    return ["zurl", f"--config={c.dir}/zurl.conf"]


def _connmgr(args):
    def command(c: "Component") -> list[str]:
        return [str(Path(os.environ["PUSHPIN2_BIN"]).resolve() / "pushpin-connmgr"), *args(c)]

    return command


FRONTENDS = {
    "project": _project("pushpin-frontend"),
    "pushpin-1.36": lambda c: ["condure", *_server_args(c, "condure")],
    "pushpin-2.0": _connmgr(lambda c: _server_args(c, "condure")),
}
OUTBOUNDS = {
    "project": _project("pushpin-outbound"),
    "pushpin-1.36": _zurl,
    "pushpin-2.0": _connmgr(lambda c: [f"--zserver-stream=ipc://{c.dir}/run/{PREFIX}zurl", "--deny-out-internal"]),
}


# What the proxy is told where these sockets are, if they are not in the run directory; a component alone binds them there.
_TCP = {
    "condure-out": "condure_in_specs", "condure-out-stream": "condure_in_stream_specs", "condure-in": "condure_out_specs",
    "zurl-in": "condure_client_out_specs", "zurl-in-stream": "condure_client_out_stream_specs", "zurl-out": "condure_client_in_specs",
}


# Socket names of the reference's frontend and outbound client -> ours
_OWN_NAMES = {"condure-": "frontend-", "zurl-": "outbound-"}


def _socket_name(name: str) -> str:
    if SUITE == "project":
        for theirs, ours in _OWN_NAMES.items():
            if name.startswith(theirs):
                return ours + name[len(theirs):]
    return name


class Component:
    """A started process with a directory of its own. `settings` go to [runner] (client_buffer_size is known to all)."""

    def __init__(self, table: dict, over: str = "ipc", **settings) -> None:
        self.over = over
        self._tmp = tempfile.TemporaryDirectory(prefix="component-")
        self.dir = Path(self._tmp.name)
        for name in ("run", "log"):
            (self.dir / name).mkdir()
        self._ports = PortBlock()
        self.port = self._ports.http
        self.settings = settings
        self._log = open(self.dir / "log" / "out", "wb")
        self.process = subprocess.Popen(table[SUITE](self), cwd=self.dir, stdout=self._log, stderr=subprocess.STDOUT)

    def spec(self, name: str) -> str:
        if self.over == "tcp":
            return f"tcp://127.0.0.1:{5560 + self._ports.offset + list(_TCP).index(name) % 3}"
        return f"ipc://{self.dir}/run/{PREFIX}{_socket_name(name)}"

    def wait_socket(self, name: str, timeout: float = 10.0) -> None:
        if self.over == "tcp":
            return wait_for_port(int(self.spec(name).rpartition(":")[2]), timeout)
        path = self.dir / "run" / f"{PREFIX}{_socket_name(name)}"
        deadline = time.monotonic() + timeout
        while not path.exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"component did not create {path.name}:\n{self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        return (self.dir / "log" / "out").read_text(errors="replace")[-6000:]

    def stop(self, sig: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        return self.process.returncode


# packets -------------------------------------------------------------------------------------
class Packet(dict):
    """A decoded ZHTTP packet. Byte strings stay bytes, except the short fields that are always text."""

    TEXT = ("from", "type", "condition", "method", "uri", "reason", "content-type", "peer-address")

    @classmethod
    def parse(cls, data: bytes) -> "Packet":
        assert data[:1] == b"T", f"not a tnetstring ZHTTP packet: {data[:60]!r}"
        value = tnetstring.loads(data[1:])
        assert isinstance(value, dict), f"packet is not a map: {value!r}"
        for k in cls.TEXT:
            if isinstance(value.get(k), bytes):
                value[k] = value[k].decode("utf-8", "replace")
        return cls(value)

    @property
    def ids(self) -> list[str]:
        v = self.get("id")
        if isinstance(v, list):
            return [m["id"].decode() for m in v]
        return [] if v is None else [v.decode()]

    def seq(self, id: str) -> int | None:
        v = self.get("id")
        if isinstance(v, list):
            return next(m["seq"] for m in v if m["id"].decode() == id)
        return self.get("seq")

    def split(self) -> list["Packet"]:
        """One packet per session, for a packet that lists several."""
        v = self.get("id")
        if not isinstance(v, list):
            return [self]
        return [Packet({**self, "id": m["id"], "seq": m["seq"]}) for m in v]

    @property
    def kind(self) -> str:
        """The packet type; 'data' if it has none."""
        return self.get("type", "data")

    @property
    def body(self) -> bytes:
        return self.get("body", b"")

    @property
    def more(self) -> bool:
        return self.get("more", False)

    def headers(self, name: str) -> list[bytes]:
        return [v for k, v in self.get("headers", []) if k.lower() == name.lower().encode()]


def encode(packet: dict) -> bytes:
    return b"T" + tnetstring.dumps(packet)


class Inbox:
    """Packets read from one socket, handed out per session."""

    def __init__(self) -> None:
        self.waiting: list[Packet] = []

    def take(self, id: str | None, read, timeout: float) -> Packet:
        deadline = time.monotonic() + timeout
        while True:
            for i, p in enumerate(self.waiting):
                if id is None or id in p.ids:
                    return self.waiting.pop(i)
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no packet for {id}; waiting: {[dict(p) for p in self.waiting[:5]]!r:.1000}")
            packet = read(left)
            if packet is not None:
                self.waiting += packet.split()


# the proxy's place behind a frontend ---------------------------------------------------------
class Session:
    """One client request seen from the server side: counts sequence numbers and credits for the test."""

    def __init__(self, peer: "ProxySide", first: Packet, instance: str) -> None:
        self.peer, self.first, self._instance, self._moved = peer, first, instance, False
        self.id = first.ids[0]
        self.to = first["from"]
        self.out_seq = 0
        self.in_seq = 1
        self.credits = first.get("credits", 0)

    @property
    def instance(self) -> str:
        """The owner of the session; to assign another is what ends a handoff."""
        return self._instance

    @instance.setter
    def instance(self, name: str) -> None:
        self._instance, self._moved = name, True

    def packet(self, **fields) -> dict:
        p = {"from": self.instance, "id": self.id, "seq": self.out_seq}
        self.out_seq += 1
        p.update({k.replace("_", "-"): v for k, v in fields.items() if v is not None})
        return p

    def send(self, **fields) -> None:
        """Send one packet on PUB. `_` in field names becomes `-`; from, id and seq are filled in."""
        self.peer.publish(self.to, self.packet(**fields))

    def respond(self, code: int = 200, reason: str = "OK", headers=(), body: bytes = b"", **fields) -> None:
        self.send(code=code, reason=reason, headers=[[k, v] for k, v in headers], body=body or None, **fields)

    def keep_alive(self, **fields) -> None:
        self.send(type="keep-alive", ext={"multi": True}, **fields)

    def recv(self, timeout: float = 5.0) -> Packet:
        """The next packet of this session from the ROUTER socket, its seq checked."""
        p = self.peer.next_stream(self.id, self.instance, timeout)
        if self._moved and SUITE != "project":
            # condure may send one more keep-alive to the owner before, after its handoff-proceed
            self.in_seq = max(self.in_seq, p.seq(self.id))
        self._moved = False
        assert p.seq(self.id) == self.in_seq, f"seq {p.seq(self.id)}, expected {self.in_seq}: {dict(p)!r:.400}"
        self.in_seq += 1
        self.credits += p.get("credits", 0)
        return p

    def recv_until(self, kind: str, timeout: float = 5.0) -> Packet:
        """The next packet of a kind; keep-alive and credit packets before it are skipped."""
        deadline = time.monotonic() + timeout
        while True:
            p = self.recv(max(0.001, deadline - time.monotonic()))
            if p.kind == kind:
                return p
            assert p.kind in ("keep-alive", "credit"), f"expected {kind}, got {dict(p)!r:.400}"


class ProxySide:
    """Sockets of a proxy connected to a frontend. A second instance name makes a handler."""

    def __init__(self, frontend: Component) -> None:
        for name in ("condure-out", "condure-out-stream", "condure-in"):
            frontend.wait_socket(name)
        self.frontend = frontend
        self.instance = new_id("proxy")
        self.pull = self._socket(zmq.PULL, "condure-out")
        self.pub = self._socket(zmq.XPUB, "condure-in")
        self.routers: dict[str, tuple[zmq.Socket, Inbox]] = {}
        self.add_instance(self.instance)
        self.frontend_id = self._wait_subscription()

    def _socket(self, kind: int, name: str) -> zmq.Socket:
        s = _context.socket(kind)
        s.linger = 0
        s.connect(self.frontend.spec(name))
        return s

    def add_instance(self, name: str) -> str:
        s = _context.socket(zmq.ROUTER)
        events = s.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        s.linger = 0
        s.setsockopt(zmq.IDENTITY, name.encode())
        s.connect(self.frontend.spec("condure-out-stream"))
        # until then the frontend drops what is for this instance
        if not events.poll(5000):
            raise TimeoutError("the frontend's ROUTER socket does not accept a connection")
        s.disable_monitor()
        time.sleep(0.02)
        self.routers[name] = (s, Inbox())
        return name

    def _wait_subscription(self) -> str:
        if not self.pub.poll(5000):
            raise TimeoutError("the frontend does not subscribe to its responses")
        msg = self.pub.recv()
        assert msg[:1] == b"\x01" and msg.endswith(b" "), f"subscription is not an instance id and a space: {msg!r}"
        return msg[1:-1].decode()

    def publish(self, to: str, packet: dict) -> None:
        self.pub.send(to.encode() + b" " + encode(packet))

    def publish_raw(self, data: bytes) -> None:
        self.pub.send(data)

    def next_session(self, timeout: float = 5.0) -> Session:
        """The next new request, from the PULL socket."""
        if not self.pull.poll(int(timeout * 1000)):
            raise TimeoutError("the frontend sent no request")
        parts = self.pull.recv_multipart()
        assert len(parts) == 1, f"request packet has {len(parts)} parts"
        return Session(self, Packet.parse(parts[0]), self.instance)

    def no_session(self, within: float = 0.3) -> bool:
        return not self.pull.poll(int(within * 1000))

    def next_stream(self, id: str | None, instance: str | None = None, timeout: float = 5.0) -> Packet:
        sock, inbox = self.routers[instance or self.instance]

        def read(left: float) -> Packet | None:
            if not sock.poll(max(1, int(left * 1000))):
                return None
            parts = sock.recv_multipart()
            assert len(parts) == 3 and parts[1] == b"", f"stream packet is not [peer, empty, content]: {parts!r:.300}"
            return Packet.parse(parts[2])

        return inbox.take(id, read, timeout)

    def close(self) -> None:
        for s in (self.pull, self.pub, *(r for r, _ in self.routers.values())):
            s.close()


# the proxy's place in front of an outbound client --------------------------------------------
class Call:
    """One request to an outbound client, seen from the side that asks."""

    def __init__(self, peer: "ClientSide", id: str) -> None:
        self.peer, self.id = peer, id
        self.out_seq = 0
        self.in_seq = 0
        self.to: str | None = None
        self.credits = 0

    def start(self, **fields) -> "Call":
        """Send the first packet."""
        self.peer.push.send(encode(self._packet(fields)))
        return self

    def _packet(self, fields: dict) -> dict:
        p = {"from": self.peer.instance, "id": self.id, "seq": self.out_seq}
        self.out_seq += 1
        p.update({k.replace("_", "-"): v for k, v in fields.items() if v is not None})
        return p

    def send(self, **fields) -> None:
        """Send a later packet; a response must have told the address."""
        assert self.to, "no response yet, the address is not known"
        self.peer.send_stream(self.to, self._packet(fields))

    def recv(self, timeout: float = 5.0) -> Packet:
        p = self.peer.next(self.id, timeout)
        if "seq" in p or isinstance(p.get("id"), list):
            assert p.seq(self.id) == self.in_seq, f"seq {p.seq(self.id)}, expected {self.in_seq}: {dict(p)!r:.400}"
            self.in_seq += 1
        self.to = p.get("from", self.to)
        self.credits += p.get("credits", 0)
        return p

    def recv_kind(self, *kinds: str, timeout: float = 5.0) -> Packet:
        """The next packet of one of the kinds; keep-alive and credit packets before it are skipped."""
        deadline = time.monotonic() + timeout
        while True:
            p = self.recv(max(0.001, deadline - time.monotonic()))
            if p.kind in kinds:
                return p
            assert p.kind in ("keep-alive", "credit"), f"expected {kinds}, got {dict(p)!r:.400}"

    def response(self, timeout: float = 5.0) -> tuple[Packet, bytes]:
        """Read until the last data packet; returns the packet with the head and the whole body."""
        head = self.recv_kind("data", timeout=timeout)
        body, p = head.body, head
        while p.more:
            p = self.recv_kind("data", timeout=timeout)
            body += p.body
        return head, body

    def silent(self, within: float = 0.5) -> bool:
        """True if no packet of this session arrives within the time, keep-alives apart."""
        deadline = time.monotonic() + within
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            try:
                p = self.recv(left)
            except TimeoutError:
                return True
            if p.kind != "keep-alive":
                return False


class ClientSide:
    """Sockets of a proxy connected to an outbound client."""

    def __init__(self, outbound: Component) -> None:
        for name in ("zurl-in", "zurl-in-stream", "zurl-out"):
            outbound.wait_socket(name)
        self.outbound = outbound
        self.instance = new_id("proxy")
        self.inbox = Inbox()
        self.push = self._socket(zmq.PUSH, "zurl-in")
        self.router = self._socket(zmq.ROUTER, "zurl-in-stream", self.instance)
        self.sub = _context.socket(zmq.SUB)
        self.sub.linger = 0
        self.sub.setsockopt(zmq.SUBSCRIBE, self.instance.encode() + b" ")
        self.sub.connect(outbound.spec("zurl-out"))
        self._warm_up()

    def _socket(self, kind: int, name: str, identity: str | None = None) -> zmq.Socket:
        s = _context.socket(kind)
        s.linger = 0
        if identity:
            s.setsockopt(zmq.IDENTITY, identity.encode())
        if kind == zmq.ROUTER:
            s.setsockopt(zmq.ROUTER_MANDATORY, 1)
        s.connect(self.outbound.spec(name))
        return s

    def _warm_up(self) -> None:
        """Ask for something invalid until an answer comes: from then on no response is lost for want of a subscription."""
        for _ in range(200):
            call = self.call("bad://", method="GET")
            try:
                call.recv(0.1)
                return
            except TimeoutError:
                pass
        raise TimeoutError(f"the outbound client does not answer:\n{self.outbound.log()}")

    def call(self, uri: str, **fields) -> Call:
        """Start a request. Defaults are those of the proxy; a field given as None is left out."""
        c = Call(self, new_id("req"))
        base: dict = {"uri": uri, "headers": [], "credits": 200_000, "ext": {"multi": True}, "ignore_policies": True}
        if uri.startswith("ws"):
            pass
        else:
            base.update(method="GET", stream=True)
        base.update(fields)
        return c.start(**base)

    def send_stream(self, to: str, packet: dict) -> None:
        for _ in range(100):
            try:
                self.router.send_multipart([to.encode(), b"", encode(packet)])
                return
            except zmq.ZMQError as e:
                if e.errno != zmq.EHOSTUNREACH:
                    raise
                time.sleep(0.02)
        raise TimeoutError(f"{to} is not connected to the stream socket")

    def next(self, id: str, timeout: float = 5.0) -> Packet:
        def read(left: float) -> Packet | None:
            poller = zmq.Poller()
            poller.register(self.sub, zmq.POLLIN)
            poller.register(self.router, zmq.POLLIN)
            ready = dict(poller.poll(max(1, int(left * 1000))))
            if self.sub in ready:
                data = self.sub.recv()
                prefix = self.instance.encode() + b" "
                assert data.startswith(prefix), f"response without our prefix: {data[:80]!r}"
                return Packet.parse(data[len(prefix) :])
            if self.router in ready:
                return Packet.parse(self.router.recv_multipart()[-1])
            return None

        return self.inbox.take(id, read, timeout)

    def close(self) -> None:
        for s in (self.push, self.router, self.sub):
            s.close()


# fixtures use these --------------------------------------------------------------------------
# What the sockets of a component may be reached over.
WAYS = ["ipc", "tcp"] if SUITE == "project" else ["ipc"]


def start_frontend(over: str = "ipc", **settings) -> tuple[Component, ProxySide]:
    c = Component(FRONTENDS, over, **settings)
    try:
        wait_for_port(c.port, 10)
        return c, ProxySide(c)
    except BaseException:
        c.stop()
        raise


def start_outbound(over: str = "ipc", **settings) -> tuple[Component, ClientSide]:
    c = Component(OUTBOUNDS, over, **settings)
    try:
        return c, ClientSide(c)
    except BaseException:
        c.stop()
        raise
