# SPDX-License-Identifier: AGPL-3.0-or-later
"""A WebSocket-over-HTTP backend: decodes the events of each request and answers with events."""

from __future__ import annotations

import json
import queue
import threading
from dataclasses import dataclass, field

from .origin import Origin, Request, Response
from .ws import close_payload

EVENTS = "application/websocket-events"
Event = tuple[str, bytes]


def event(kind: str, content: bytes | str | None = None) -> bytes:
    if content is None:
        return kind.encode() + b"\r\n"
    if isinstance(content, str):
        content = content.encode()
    return b"%s %x\r\n%s\r\n" % (kind.encode(), len(content), content)


def text(content: str | bytes) -> bytes:
    return event("TEXT", content)


def binary(content: bytes) -> bytes:
    return event("BINARY", content)


def close(code: int | None = None, reason: str = "") -> bytes:
    return event("CLOSE", None if code is None else close_payload(code, reason))


def control(**message) -> bytes:
    """A GRIP control message as TEXT event. `_` in names becomes `-`."""
    return text("c:" + json.dumps({k.replace("_", "-"): v for k, v in message.items()}))


OPEN = event("OPEN")


def parse(body: bytes) -> list[Event]:
    out: list[Event] = []
    while body:
        line, sep, body = body.partition(b"\r\n")
        assert sep, f"event line without CRLF: {line!r}"
        kind, _, size = line.partition(b" ")
        content = b""
        if size:
            n = int(size, 16)
            content, end, body = body[:n], body[n : n + 2], body[n + 2 :]
            assert len(content) == n and end == b"\r\n", f"bad event content after {line!r}"
        out.append((kind.decode(), content))
    return out


@dataclass
class EventRequest:
    """One request of the suite to the backend, with its events decoded."""

    http: Request
    _reply: "queue.Queue[Response]" = field(default_factory=lambda: queue.Queue(1))

    @property
    def events(self) -> list[Event]:
        return parse(self.http.body)

    @property
    def cid(self) -> str | None:
        return self.http.header("Connection-Id")

    def header(self, name: str) -> str | None:
        return self.http.header(name)

    def reply(self, *events: bytes, headers=(), status: int = 200, content_type: str | None = EVENTS) -> None:
        head = [("Content-Type", content_type)] if content_type else []
        self._reply.put(Response(status, [*head, *headers], b"".join(events)))

    def reply_with(self, response: Response) -> None:
        self._reply.put(response)

    def accept(self, *events: bytes, headers=(), grip: str | None = "") -> None:
        """Answer an OPEN request: OPEN, then the events, with the grip extension unless grip=None."""
        ext = [] if grip is None else [("Sec-WebSocket-Extensions", f'grip; message-prefix="{grip}"')]
        self.reply(OPEN, *events, headers=[*ext, *headers])


class WohBackend:
    """Takes over the handler of an `Origin`. Each request waits until the test calls its `reply`.

    DISCONNECT requests are answered at once and go to `disconnects`. Requests of connections that this backend has not
    seen opening (left over from an earlier test) are refused and not shown."""

    def __init__(self, origin: Origin, path: str | None = None) -> None:
        self.requests: "queue.Queue[EventRequest]" = queue.Queue()
        self.disconnects: "queue.Queue[EventRequest]" = queue.Queue()
        self._waiting: list[EventRequest] = []
        self._known: set[str | None] = set()
        self._lock = threading.Lock()
        if path is None:
            origin.handler = self._serve
        else:
            origin.on(path, self._serve)

    def _serve(self, http: Request) -> Response:
        req = EventRequest(http)
        if http.body.startswith(b"OPEN\r\n"):
            self._known.add(req.cid)
        elif req.cid not in self._known:
            return Response(410)
        if http.body == b"DISCONNECT\r\n":
            self.disconnects.put(req)
            return Response(200, [("Content-Type", EVENTS)])
        with self._lock:
            self._waiting.append(req)
        self.requests.put(req)
        return req._reply.get(timeout=30)

    def next(self, timeout: float = 5.0) -> EventRequest:
        try:
            return self.requests.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError("the backend got no request") from None

    def next_disconnect(self, timeout: float = 5.0) -> EventRequest:
        try:
            return self.disconnects.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError("the backend got no DISCONNECT") from None

    def quiet(self, within: float = 0.5) -> bool:
        """True if no request (of either queue) arrives within the time."""
        try:
            self.requests.get(timeout=within)
            return False
        except queue.Empty:
            return self.disconnects.empty()

    def release(self) -> None:
        """Answer everything still waiting, so that no thread of the origin hangs."""
        with self._lock:
            for req in self._waiting:
                if req._reply.empty():
                    try:
                        req._reply.put_nowait(Response(500))
                    except queue.Full:
                        pass
            self._waiting.clear()


def open_session(suite, backend: WohBackend, *events: bytes, target: str = "/ws", headers=(), reply_headers=(), grip: str | None = "",
                 channel: str | None = None):
    """Connect a client and accept it; returns (client, the OPEN request). Subscribes to the channel if one is given."""
    from .hold import wait_subscribed
    from .ws import WsClient

    client = WsClient(suite, target, headers, wait=False)
    req = backend.next()
    assert req.events == [("OPEN", b"")], f"first request carries {req.events}"
    more = [control(type="subscribe", channel=channel)] if channel else []
    req.accept(*more, *events, headers=reply_headers, grip=grip)
    resp = client.read_response()
    assert resp.status == 101, f"handshake refused: {resp!r}"
    if channel:
        wait_subscribed(suite, channel)
    return client, req
