# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routes whose target is a ZeroMQ service instead of an HTTP server."""

import pytest
import zmq

from harness import publish
from harness.client import Connection
from harness.hold import new_channel, wait_subscribed
from harness.suite import Suite
from harness.ws import WsClient
from harness.zhttp import Packet, encode, new_id

CONTEXT = zmq.Context.instance()


@pytest.fixture(scope="module")
def req_suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("zreq") / "req"
    suite = Suite([f"* zhttpreq/ipc://{path}"]).start()
    rep = CONTEXT.socket(zmq.REP)
    rep.linger = 0
    rep.connect(f"ipc://{path}")
    yield suite, rep
    rep.close()
    suite.stop()


def take(sock, timeout=5.0) -> Packet:
    assert sock.poll(int(timeout * 1000)), "the ZeroMQ service got no request"
    return Packet.parse(sock.recv())


def test_req_target_gets_the_whole_request_in_one_packet(req_suite):
    suite, rep = req_suite
    with Connection(suite.http_port) as c:
        c.start("POST", "/a?b=1", [("X-Thing", "1")], "body of the request")
        p = take(rep)
        assert p["method"] == "POST"
        assert p["uri"] == "http://localhost/a?b=1"
        assert p.body == b"body of the request"
        assert p.headers("X-Thing") == [b"1"]
        assert not p.more and "seq" not in p and "credits" not in p
        rep.send(encode({"id": p["id"], "code": 200, "reason": "OK", "headers": [["X-From", "zmq"]], "body": "from zmq\n"}))
        resp = c.read_head()
        assert (resp.status, resp.header("X-From")) == (200, "zmq")
        assert c.read_rest() == b"from zmq\n"


def test_req_target_error_is_502(req_suite):
    suite, rep = req_suite
    with Connection(suite.http_port) as c:
        c.start("GET", "/")
        p = take(rep)
        rep.send(encode({"id": p["id"], "type": "error", "condition": "undefined-condition"}))
        assert c.read_head().status == 502


def test_req_target_may_hold_the_request(req_suite):
    suite, rep = req_suite
    channel = new_channel()
    with Connection(suite.http_port) as c:
        c.start("GET", "/")
        p = take(rep)
        headers = [["Content-Type", "text/plain"], ["Grip-Hold", "stream"], ["Grip-Channel", channel]]
        rep.send(encode({"id": p["id"], "code": 200, "reason": "OK", "headers": headers, "body": "hi\n"}))
        assert c.read_head().status == 200
        assert c.read_text("hi\n") == "hi\n"
        wait_subscribed(suite, channel)
        publish.stream(suite, channel, "pushed\n")
        assert c.read_text("pushed\n") == "pushed\n"


def test_req_target_answers_requests_one_after_another(req_suite):
    suite, rep = req_suite
    with Connection(suite.http_port) as c:
        for i in range(5):
            c.start("GET", f"/{i}")
            p = take(rep)
            assert p["uri"].endswith(f"/{i}")
            rep.send(encode({"id": p["id"], "code": 200, "reason": "OK", "headers": [], "body": str(i)}))
            assert c.read_head().status == 200
            assert c.read_rest() == str(i).encode()


class ZhttpOrigin:
    """Server side of a `zhttp/` target: the suite binds, this connects."""

    def __init__(self, base):
        self.instance = new_id("origin")
        self.pull = self._socket(zmq.PULL, base + "-out")
        self.router = self._socket(zmq.ROUTER, base + "-out-stream", self.instance)
        self.pub = self._socket(zmq.XPUB, base + "-in")
        assert self.pub.poll(5000), "the suite does not subscribe to responses"
        self.to = self.pub.recv()[1:]

    def _socket(self, kind, spec, identity=None):
        s = CONTEXT.socket(kind)
        s.linger = 0
        if identity:
            s.setsockopt(zmq.IDENTITY, identity.encode())
        s.connect(spec)
        return s

    def request(self):
        assert self.pull.poll(5000), "the ZeroMQ service got no request"
        return Packet.parse(self.pull.recv())

    def later(self, timeout=5.0):
        assert self.router.poll(int(timeout * 1000)), "no further packet"
        return Packet.parse(self.router.recv_multipart()[-1])

    def send(self, p, seq, **fields):
        packet = {"from": self.instance, "id": p["id"], "seq": seq, **{k.replace("_", "-"): v for k, v in fields.items()}}
        self.pub.send(self.to + encode(packet))


@pytest.fixture(scope="module")
def stream_target(tmp_path_factory):
    base = f"ipc://{tmp_path_factory.mktemp('zstream')}/t"
    suite = Suite([f"* zhttp/{base}"]).start()
    yield suite, ZhttpOrigin(base)
    suite.stop()


def test_stream_target_gets_a_request_that_allows_streaming(stream_target):
    suite, z = stream_target
    with Connection(suite.http_port) as c:
        c.start("GET", "/x")
        p = z.request()
        assert (p["method"], p["uri"], p["seq"], p["stream"]) == ("GET", "http://localhost/x", 0, True)
        assert p["credits"] > 0
        z.send(p, 0, code=200, reason="OK", headers=[["X-From", "zmq"]], body="part one, ", more=True)
        assert c.read_head().header("X-From") == "zmq"
        assert c.read_text("part one, ") == "part one, "
        z.send(p, 1, body="part two")
        assert c.read_rest() == b"part two"


def test_stream_target_request_body(stream_target):
    suite, z = stream_target
    with Connection(suite.http_port) as c:
        c.start("POST", "/x", [], b"z" * 50_000)
        p = z.request()
        body, seq = p.body, 0
        z.send(p, seq, type="credit", credits=200_000)
        while p.more:
            got = z.later()
            if got.kind == "data":
                p, body = Packet({**got, "id": p["id"]}), body + got.body
        assert body == b"z" * 50_000
        z.send(p, 1, code=200, reason="OK", headers=[], body="ok")
        assert c.read_head().status == 200
        assert c.read_rest() == b"ok"


def test_stream_target_error_is_502(stream_target):
    suite, z = stream_target
    with Connection(suite.http_port) as c:
        c.start("GET", "/x")
        z.send(z.request(), 0, type="error", condition="undefined-condition")
        assert c.read_head().status == 502


def test_stream_target_cancel_is_502(stream_target):
    suite, z = stream_target
    with Connection(suite.http_port) as c:
        c.start("GET", "/x")
        z.send(z.request(), 0, type="cancel")
        assert c.read_head().status == 502


def test_stream_target_is_told_when_the_client_leaves(stream_target):
    suite, z = stream_target
    c = Connection(suite.http_port)
    c.start("GET", "/x")
    p = z.request()
    z.send(p, 0, code=200, reason="OK", headers=[], body="begin", more=True)
    c.read_head()
    c.read_text("begin")
    c.close()
    for _ in range(10):
        got = z.later()
        if got.kind == "cancel":
            break
    assert got.kind == "cancel"


def test_stream_target_websocket(stream_target):
    suite, z = stream_target
    client = WsClient(suite, "/ws", wait=False)
    p = z.request()
    assert p["uri"] == "ws://localhost/ws"
    z.send(p, 0, code=101, reason="Switching Protocols", headers=[], credits=200_000)
    assert client.read_response().status == 101
    client.send_text("to zmq")
    got = z.later()
    while got.kind != "data":
        got = z.later()
    assert got.body == b"to zmq"
    z.send(p, 1, body="from zmq", content_type="text")
    assert client.recv_text() == "from zmq"


def test_req_target_refuses_websockets(req_suite):
    suite, _ = req_suite
    assert WsClient(suite, "/ws").status == 502
