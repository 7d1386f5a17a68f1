# SPDX-License-Identifier: AGPL-3.0-or-later
"""Publish as an application would: HTTP control port, ZeroMQ PUSH, ZeroMQ PUB, command socket."""

from __future__ import annotations

import json
import time
import uuid

import zmq

from . import tnetstring
from .client import Connection, HttpResponse
from .suite import Suite

_context = zmq.Context.instance()


def http(suite: Suite, items: list[dict], path: str = "/publish/") -> HttpResponse:
    with Connection(suite.publish_port) as c:
        return c.request("POST", path, [("Content-Type", "application/json")], json.dumps({"items": items}))


def stream(suite: Suite, channel: str, content: str, **item) -> None:
    resp = http(suite, [{"channel": channel, "formats": {"http-stream": {"content": content}}, **item}])
    assert resp.status == 200, resp


def response(suite: Suite, channel: str, body: str, **fmt) -> None:
    resp = http(suite, [{"channel": channel, "formats": {"http-response": {"body": body, **fmt}}}])
    assert resp.status == 200, resp


def ws(suite: Suite, channel: str, content: str, **item) -> None:
    resp = http(suite, [{"channel": channel, "formats": {"ws-message": {"content": content}}, **item}])
    assert resp.status == 200, resp


class Push:
    """A PUSH socket connected to the suite's PULL input. Reuse one for many messages."""

    def __init__(self, suite: Suite) -> None:
        self.sock = _context.socket(zmq.PUSH)
        self.sock.linger = 1000
        self.sock.connect(suite.pull_spec)

    def send(self, item: dict, framing: str = "T") -> None:
        if framing == "T":
            self.sock.send(b"T" + tnetstring.dumps(item))
        elif framing == "J":
            self.sock.send(b"J" + json.dumps(item).encode())
        else:
            raise ValueError(framing)

    def close(self) -> None:
        self.sock.close()


class Pub:
    """A PUB (XPUB) socket connected to the suite's SUB input; can wait for a subscription."""

    def __init__(self, suite: Suite) -> None:
        self.sock = _context.socket(zmq.XPUB)
        self.sock.linger = 1000
        self.sock.connect(suite.sub_spec)

    def wait_subscription(self, channel: str, timeout: float = 5.0) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.sock.poll(200):
                if self.sock.recv() == b"\x01" + channel.encode():
                    return
        raise TimeoutError(f"no subscription for {channel}")

    def wait_unsubscription(self, channel: str, timeout: float = 5.0) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.sock.poll(200):
                if self.sock.recv() == b"\x00" + channel.encode():
                    return
        raise TimeoutError(f"no unsubscription for {channel}")

    def send(self, channel: str, item: dict) -> None:
        self.sock.send_multipart([channel.encode(), b"T" + tnetstring.dumps(item)])

    def close(self) -> None:
        self.sock.close()


def command(suite: Suite, method: str, args: dict | None = None, timeout: float = 5.0) -> dict:
    """Call a method on the suite's command socket; returns the decoded response packet."""
    sock = _context.socket(zmq.REQ)
    sock.linger = 0
    try:
        sock.connect(suite.command_spec)
        req = {"id": uuid.uuid4().hex, "method": method}
        if args:
            req["args"] = args
        sock.send(tnetstring.dumps(req))
        if not sock.poll(int(timeout * 1000)):
            raise TimeoutError(f"no answer to {method}")
        return tnetstring.loads(sock.recv())
    finally:
        sock.close()
