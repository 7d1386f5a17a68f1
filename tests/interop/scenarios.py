# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every mix has to do. Each scenario gets the suite and the backend; what it asserts is what clients see."""

import http.client
import json
import os
import socket
import threading
import time
import urllib.parse
import urllib.request

import websockets.sync.client
import zmq

from backend import LARGE
from mix import PATIENCE, until

SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


def name_of(function):
    return function.__name__.replace("_", " ")


def channel():
    return "c-" + os.urandom(6).hex()


def hold(mode, channels, *headers, body="open"):
    """The address of a request that the backend wants held."""
    headers = [f"Grip-Hold:{mode}", f"Grip-Channel:{channels}", *headers]
    return "/hold?" + urllib.parse.urlencode([("h", header) for header in headers] + [("body", body)])


class Request:
    """A request whose response is read piece by piece."""

    def __init__(self, mix, path, headers=(), timeout=PATIENCE):
        self.connection = http.client.HTTPConnection("127.0.0.1", mix.port, timeout=timeout)
        self.connection.request("GET", path, headers=dict(headers))

    def begin(self):
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.status
        return self

    def line(self):
        return self.response.readline().decode().rstrip("\n")

    def close(self):
        # The response has the socket as well.
        getattr(self, "response", self.connection).close()
        self.connection.close()


def stream(mix, path, headers=(), timeout=PATIENCE):
    request = Request(mix, path, headers, timeout).begin()
    assert request.line() == "open"
    return request


def poll(mix, path):
    """A long-poll, in a thread: its body will be in the list."""
    found = []

    def run():
        request = Request(mix, path, timeout=120)
        found.append(request.begin().response.read().decode())

    threading.Thread(target=run, daemon=True).start()
    return found


def item(channel, text, **more):
    formats = {
        "http-stream": {"content": text + "\n"},
        "http-response": {"body": text},
        "ws-message": {"content": text},
    }
    return {"channel": channel, "formats": formats, **more}


def publish_until(mix, channel, text, arrived):
    """Publishes until something arrives: nobody can see from outside when a long-poll is held."""

    def again():
        mix.publish(item(channel, text))
        time.sleep(0.1)
        return arrived()

    return until(f"{text} arrives", again)


def open_socket(mix, path):
    return websockets.sync.client.connect(
        f"ws://127.0.0.1:{mix.port}{path}", compression=None, max_size=None, ping_interval=None, open_timeout=PATIENCE, close_timeout=PATIENCE
    )


@scenario
def large_response_to_a_slow_reader(mix, backend):
    with socket.create_connection(("127.0.0.1", mix.port), timeout=PATIENCE) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = bytearray()
        for _ in range(10):
            data += client.recv(16384)
            time.sleep(0.05)
        while piece := client.recv(1 << 20):
            data += piece
    head, body = bytes(data).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200")
    assert body == LARGE, len(body)


@scenario
def large_upload(mix, backend):
    request = urllib.request.Request(f"http://127.0.0.1:{mix.port}/echo", data=LARGE, headers={"Content-Type": "x/y"})
    assert urllib.request.urlopen(request, timeout=PATIENCE).read() == LARGE


@scenario
def stream_hold_with_publishes_by_http_push_and_sub(mix, backend):
    name = channel()
    publisher = mix.publisher()
    held = stream(mix, hold("stream", name))
    mix.publish(item(name, "by http"))
    assert held.line() == "by http"
    mix.push(item(name, "by push"))
    assert held.line() == "by push"
    # The handler subscribes to the channels that somebody listens to.
    subscribed = set()
    while name.encode() not in subscribed:
        assert publisher.poll(PATIENCE * 1000), "the handler has not subscribed"
        subscribed.add(publisher.recv()[1:])
    publisher.send_multipart([name.encode(), b"J" + json.dumps(item(name, "by sub")).encode()])
    assert held.line() == "by sub"
    publisher.close()
    held.close()


@scenario
def response_hold(mix, backend):
    name = channel()
    held = poll(mix, hold("response", name))
    publish_until(mix, name, "answer", lambda: held)
    assert held == ["answer"]
    timed_out = poll(mix, hold("response", channel(), "Grip-Timeout:2", body="time"))
    until("the time is over", lambda: timed_out)
    assert timed_out == ["time\n"]


@scenario
def filters(mix, backend):
    name = channel()
    held = stream(mix, hold("stream", f"{name}; filter=skip-self", "Grip-Set-Meta:user=alice"))
    mix.publish(item(name, "own", meta={"sender": "alice"}), item(name, "other", meta={"sender": "bob"}))
    assert held.line() == "other"
    held.close()


@scenario
def next_link_after_a_gap(mix, backend):
    name = channel()
    page = "/page?" + urllib.parse.urlencode(
        [("n", name), ("h", "Grip-Hold:stream"), ("h", f"Grip-Channel:{name}; prev-id=2"), ("body", "page")]
    )
    held = stream(mix, hold("stream", f"{name}; prev-id=1", f"Grip-Link:<{page}>; rel=next; timeout=60"))
    # Nobody has got the message before this one, so the backend is asked.
    mix.publish(item(name, "late", id="3", **{"prev-id": "2"}))
    assert held.line() == "page"
    held.close()


@scenario
def keep_alive_of_a_stream(mix, backend):
    held = stream(mix, hold("stream", channel(), "Grip-Keep-Alive:still here\\n; format=cstring; timeout=1"))
    assert held.line() == "still here"
    assert held.line() == "still here"
    held.close()


@scenario
def websocket_passed_through(mix, backend):
    with open_socket(mix, "/ws") as client:
        for message in ["text", b"binary", "x" * 100_000]:
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message
        client.close(4000, "done")
        assert client.close_code == 4000, client.close_code


@scenario
def websocket_over_http(mix, backend):
    name = channel()
    client = open_socket(mix, f"/woh?channel={name}")
    client.send("hello")
    assert client.recv(timeout=PATIENCE) == "hello"
    # The subscription may be on its way to the handler still.
    received = []
    threading.Thread(target=lambda: received.append(client.recv(timeout=PATIENCE)), daemon=True).start()
    publish_until(mix, name, "published", lambda: received)
    assert received == ["published"]
    mix.publish({"channel": name, "formats": {"ws-message": {"action": "close", "code": 4001}}})
    try:
        while client.recv(timeout=PATIENCE) == "published":
            pass
        raise AssertionError("something else than the close has come")
    except websockets.exceptions.ConnectionClosed:
        assert client.close_code == 4001, client.close_code
    # Whoever breaks off is told to the backend.
    client = open_socket(mix, f"/woh?channel={name}-2")
    client.socket.shutdown(socket.SHUT_RDWR)
    asked = lambda: any(b"DISCONNECT" in r[2] or b"CLOSE" in r[2] for r in backend.asked(f"/woh?channel={name}-2"))
    until("the backend is told of the end", asked)


@scenario
def clients_that_leave_are_noticed(mix, backend):
    name = channel()
    events = mix.statistics()
    held = stream(mix, hold("stream", name))

    def told(*words):
        while events.poll(PATIENCE * 1000):
            event = events.recv()
            if all(word in event for word in words):
                return True
        return False

    assert told(b"sub ", name.encode(), b"subscribers")
    held.close()
    # It may take a write to notice.
    assert told(b"sub ", name.encode(), b"unavailable")
    events.close()


@scenario
def statistics(mix, backend):
    name = channel()
    events = mix.statistics()
    # A socket may take a while to connect.
    time.sleep(0.5)
    held = stream(mix, hold("stream", name))
    mix.publish(item(name, "one"))
    assert held.line() == "one"
    wanted = {b"conn", b"sub", b"message", b"activity", b"report"}
    while wanted:
        assert events.poll(PATIENCE * 1000), f"nothing was told of {wanted}"
        wanted.discard(events.recv().split(b" ")[0])
    events.close()
    held.close()


@scenario
def recover(mix, backend):
    name = channel()
    link = "/page?" + urllib.parse.urlencode(
        [("n", name), ("h", "Grip-Hold:stream"), ("h", f"Grip-Channel:{name}"), ("body", "recovered")]
    )
    held = stream(mix, hold("stream", name, f"Grip-Link:<{link}>; rel=next; timeout=60"))
    assert mix.ask("recover") == (None, True)
    assert held.line() == "recovered"
    held.close()


@scenario
def refresh_and_conncheck(mix, backend):
    name = channel()
    path = f"/woh?channel={name}"
    with open_socket(mix, path) as client:
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "hello"
        cid = backend.asked(path)[0][1]["Connection-Id"]
        assert mix.ask("conncheck", ids=[cid, "nobody"]) == ([cid.encode()], True)
        # The opening, and the message.
        assert len(backend.asked(path)) == 2
        assert mix.ask("refresh", cid=cid) == (None, True)
        until("the backend is asked again", lambda: len(backend.asked(path)) == 3)
        assert backend.asked(path)[2][2] == b""
        assert mix.ask("refresh", cid="nobody") == (b"item-not-found", False)


@scenario
def cors(mix, backend):
    request = urllib.request.Request(f"http://127.0.0.1:{mix.port}/get", headers={"Origin": "http://site"})
    response = urllib.request.urlopen(request, timeout=PATIENCE)
    assert response.headers["Access-Control-Allow-Origin"] == "http://site"


# These wait in all mixes at the same time.


class Idle:
    """A stream, a long-poll and a WebSocket on which nothing moves for longer than any expiry, which is 60 s."""

    SECONDS = int(os.environ.get("IDLE_SECONDS", "64"))

    def __init__(self, mix):
        self.mix, self.name = mix, channel()
        self.stream = stream(mix, hold("stream", self.name))
        self.poll = poll(mix, hold("response", self.name + "-poll", "Grip-Timeout:110"))
        self.socket = open_socket(mix, f"/woh?channel={self.name}")
        self.plain = open_socket(mix, "/ws")
        self.since = time.monotonic()

    def check(self):
        time.sleep(max(0, self.since + self.SECONDS - time.monotonic()))
        self.mix.publish(item(self.name, "after"))
        assert self.stream.line() == "after"
        assert self.socket.recv(timeout=PATIENCE) == "after"
        # `recover` may have sent it to the backend a moment ago.
        publish_until(self.mix, self.name + "-poll", "after", lambda: self.poll)
        assert self.poll == ["after"], self.poll
        self.plain.send("still there")
        assert self.plain.recv(timeout=PATIENCE) == "still there"
