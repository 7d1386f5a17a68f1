# SPDX-License-Identifier: AGPL-3.0-or-later
"""Peers that connect to the sockets of a frontend or outbound client and do not keep to the rules: nobody else may notice."""

import socket
import threading

import pytest

from harness.client import Connection
from harness.origin import Response
from harness.suite import SUITE
from harness.zhttp import ProxySide, encode, new_id
from harness.zhttpfixtures import _front, _outbound  # noqa: F401

FRONTEND = ["condure-out", "condure-out-stream", "condure-in"]
OUTBOUND = ["zurl-in", "zurl-in-stream", "zurl-out"]
# Of each socket: a type that may connect to it.
FITTING = {"condure-out": b"PULL", "condure-out-stream": b"ROUTER", "condure-in": b"XPUB",
           "zurl-in": b"PUSH", "zurl-in-stream": b"ROUTER", "zurl-out": b"SUB"}
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32)


def ready(kind: bytes, **more: bytes) -> bytes:
    """The command by which a socket says what it is."""
    pairs = {b"Socket-Type": kind, **{name.encode(): value for name, value in more.items()}}
    body = b"\x05READY" + b"".join(bytes([len(k)]) + k + len(v).to_bytes(4, "big") + v for k, v in pairs.items())
    return b"\x04" + bytes([len(body)]) + body


def raw(component, name: str, data: bytes) -> socket.socket:
    """A connection on which these bytes are sent, and nothing is read."""
    spec = component.spec(name)
    if spec.startswith("tcp://"):
        host, _, port = spec[len("tcp://"):].rpartition(":")
        s = socket.create_connection((host, int(port)), timeout=5)
    else:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(5)
        s.connect(spec[len("ipc://"):])
    s.sendall(data)
    return s


def wrong_beginnings() -> list[bytes]:
    """What no peer that would get messages begins with."""
    return [b"", GREETING[:40], GREETING + ready(b"REQ"), GREETING + ready(b"PAIR"), GREETING + ready(b"nonsense")]


def wrong_messages(name: str) -> list[bytes]:
    """What may come behind the beginning of one that fits."""
    hello = GREETING + ready(FITTING[name], Identity=new_id("unruly").encode())
    return [
        # A frame of more bytes than there are, and one of which most never come.
        hello + b"\x02" + (2**62).to_bytes(8, "big"),
        hello + b"\x02" + (2**63 + 5).to_bytes(8, "big") + b"x" * 100,
        hello + b"\x00\xff" + b"x" * 10,
        # A command that is none, and one that ends before its length says so.
        hello + b"\x04\x05\x04xxxx",
        hello + b"\x04\x01\xff",
        # Frames of kinds that have no meaning.
        hello + b"\xf8\x00" * 10,
        # A message of very many parts.
        hello + b"\x01\x00" * 10_000,
    ]


OTHER_PROTOCOL = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def still_serves(front: ProxySide) -> None:
    c = Connection(front.frontend.port)
    c.start("GET", "/")
    s = front.next_session()
    s.respond(body=b"fine")
    assert c.read_head().status == 200 and c.read_rest() == b"fine"
    c.close()


def test_frontend_serves_others_beside_peers_that_break_the_protocol(_front):
    component, front = _front
    still_serves(front)
    beginnings = [(name, data) for name in FRONTEND for data in wrong_beginnings()]
    # Whoever says that it takes requests gets its turn of them, so at `out` nobody says it. libzmq, which serves TCP here and all
    # sockets of condure, takes another protocol for libzmq 2, which says nothing before it gets its turn.
    is_libzmq = component.over == "tcp" or SUITE != "project"
    others = [(name, OTHER_PROTOCOL) for name in FRONTEND[is_libzmq:]]
    messages = [(name, data) for name in FRONTEND[1:] for data in wrong_messages(name)]
    peers = [raw(component, name, data) for name, data in beginnings + others + messages]
    try:
        for _ in range(20):
            still_serves(front)
    finally:
        for s in peers:
            s.close()
    still_serves(front)
    assert component.process.poll() is None


def test_outbound_serves_others_beside_peers_that_break_the_protocol(_outbound, origin):
    component, out = _outbound
    origin.on("/a", Response(200, [], "fine"))
    url = f"http://127.0.0.1:{origin.port}/a"
    kinds = [(name, data) for name in OUTBOUND for data in [*wrong_beginnings(), OTHER_PROTOCOL, *wrong_messages(name)]]
    peers = [raw(component, name, data) for name, data in kinds]
    try:
        for _ in range(20):
            assert out.call(url).response()[1] == b"fine"
    finally:
        for s in peers:
            s.close()
    assert out.call(url).response()[1] == b"fine"
    assert component.process.poll() is None


def test_outbound_serves_others_beside_a_peer_that_does_not_read(_outbound, origin):
    """It has asked for far more than sockets hold, with credits for all of it."""
    component, out = _outbound
    origin.on("/large", Response(200, [], b"x" * 2_000_000))
    origin.on("/a", Response(200, [], "fine"))
    base = f"http://127.0.0.1:{origin.port}"
    name = new_id("sick")
    subscription = b"\x01" + name.encode() + b" "
    sick = raw(component, "zurl-out", GREETING + ready(b"SUB") + bytes([0, len(subscription)]) + subscription)
    try:
        for index in range(60):
            first = {"from": name, "id": str(index), "seq": 0, "uri": f"{base}/large", "method": "GET", "headers": [],
                     "credits": 2_000_000, "stream": True, "ext": {"multi": True}, "ignore-policies": True}
            out.push.send(encode(first))
        for _ in range(50):
            assert out.call(f"{base}/a").response()[1] == b"fine"
    finally:
        sick.close()
    assert out.call(f"{base}/a").response()[1] == b"fine"


def test_frontend_serves_others_beside_a_peer_that_does_not_read(_front):
    """It owns a session whose client sends far more than sockets hold, with credits for all of it."""
    component, front = _front
    name = new_id("sick")
    sick = raw(component, "condure-out-stream", GREETING + ready(b"ROUTER", Identity=name.encode()))
    c = Connection(component.port)
    size = 100_000_000
    c.start("POST", "/", [("Content-Length", str(size))], None)
    s = front.next_session()
    s.instance = name
    s.send(type="credit", credits=size)

    def send() -> None:
        try:
            for _ in range(size // 1_000_000):
                c.sock.sendall(b"x" * 1_000_000)
        except OSError:
            pass

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        for _ in range(50):
            still_serves(front)
    finally:
        c.close()
        sick.close()
        sender.join(10)
    still_serves(front)
