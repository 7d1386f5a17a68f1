# SPDX-License-Identifier: AGPL-3.0-or-later
"""Helpers around held HTTP requests: fresh channel names, waiting for subscriptions, opening holds."""

from __future__ import annotations

import itertools
import json
import os
import time

import zmq

from .client import Connection, HttpResponse
from .origin import Origin, Response
from .publish import http as publish_http
from .publish import _context
from .suite import Suite

_numbers = itertools.count(1)


def new_channel(prefix: str = "ch") -> str:
    """A channel name no other test uses."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


class Subscriptions:
    """Sees which channels the suite is subscribed to, through its SUB input, as a publisher with an XPUB socket would."""

    def __init__(self, suite: Suite) -> None:
        self.sock = _context.socket(zmq.XPUB)
        self.sock.linger = 0
        self.sock.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.sock.connect(suite.sub_spec)
        self.active: set[str] = set()
        self.ended: set[str] = set()

    def _read(self, timeout: float) -> None:
        if self.sock.poll(max(0, int(timeout * 1000))):
            data = self.sock.recv()
            name = data[1:].decode()
            if data[:1] == b"\x01":
                self.active.add(name)
                self.ended.discard(name)
            else:
                self.active.discard(name)
                self.ended.add(name)

    def wait(self, *channels: str, timeout: float = 5.0) -> None:
        deadline = time.monotonic() + timeout
        while not set(channels) <= self.active:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no subscription for {set(channels) - self.active}; seen: {sorted(self.active)[:20]}")
            self._read(left)

    def wait_end(self, *channels: str, timeout: float = 5.0) -> None:
        deadline = time.monotonic() + timeout
        while not set(channels) <= self.ended:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"still subscribed to {set(channels) - self.ended}")
            self._read(left)

    def sees(self, channel: str, within: float = 0.3) -> bool:
        """Whether a subscription for the channel is or becomes known within the time."""
        deadline = time.monotonic() + within
        while channel not in self.active:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._read(left)
        return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Subscriptions":
        return self

    def __exit__(self, *exc) -> None:
        self.close()


def wait_subscribed(suite: Suite, *channels: str, timeout: float = 5.0) -> None:
    """Return once the suite is subscribed to all the channels: from then on a publish reaches the held requests."""
    with Subscriptions(suite) as subs:
        subs.wait(*channels, timeout=timeout)


def open_stream(suite: Suite, target: str, channels, headers=(), method: str = "GET") -> tuple[Connection, HttpResponse]:
    """Request a stream hold; returns once its head has arrived and its channels are subscribed."""
    c = Connection(suite.http_port)
    c.start(method, target, headers)
    head = c.read_head(method)
    wait_subscribed(suite, *([channels] if isinstance(channels, str) else channels))
    return c, head


def open_poll(suite: Suite, target: str, channels, headers=(), method: str = "GET") -> Connection:
    """Request a response hold; returns once its channels are subscribed."""
    c = Connection(suite.http_port)
    c.start(method, target, headers)
    wait_subscribed(suite, *([channels] if isinstance(channels, str) else channels))
    return c


def instruct(value: dict, headers=(), status: int = 200, content_type: str = "application/grip-instruct") -> Response:
    """An origin response that carries GRIP instructions as JSON."""
    return Response(status, [("Content-Type", content_type), *headers], json.dumps(value))


def publish_item(suite: Suite, channel: str, formats: dict, **item) -> None:
    """POST one item to the control port and require success. `prev_id` and the like become `prev-id`."""
    extra = {k.replace("_", "-"): v for k, v in item.items()}
    resp = publish_http(suite, [{"channel": channel, "formats": formats, **extra}])
    assert resp.status == 200, f"publish refused: {resp.status} {resp.body!r}"


def send_stream(suite: Suite, channel: str, content: str, **item) -> None:
    publish_item(suite, channel, {"http-stream": {"content": content}}, **item)


def send_response(suite: Suite, channel: str, fmt: dict | str, **item) -> None:
    publish_item(suite, channel, {"http-response": {"body": fmt} if isinstance(fmt, str) else fmt}, **item)


def origin_on(origin: Origin, path: str, *responses: Response) -> None:
    """Answer the first request to `path` with the first response, and so on; the last one repeats."""
    left = list(responses)

    def handler(req):
        return left.pop(0) if len(left) > 1 else left[0]

    origin.on(path, handler)
