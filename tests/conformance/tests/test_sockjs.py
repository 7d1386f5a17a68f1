# SPDX-License-Identifier: AGPL-3.0-or-later
"""SockJS on a route with a `sockjs` prefix."""

import json

import pytest

from harness import publish
from harness.client import Connection
from harness.hold import new_channel, wait_subscribed
from harness.origin import Response
from harness.suite import Suite
from harness.woh import WohBackend, close, control, text
from harness.ws import WsClient


@pytest.fixture(scope="module")
def sock_suite(_origin):
    suite = Suite([f"*,sockjs=/sock,sockjs_as_path=/ws 127.0.0.1:{_origin.port},over_http"]).start()
    yield suite
    suite.stop()


@pytest.fixture
def woh(origin):
    b = WohBackend(origin)
    yield b
    b.release()


class Xhr:
    """A client of the xhr transport."""

    def __init__(self, suite, name):
        self.suite, self.base = suite, f"/sock/000/{name}"
        self.c = Connection(suite.http_port)

    def post(self, what, body=""):
        with Connection(self.suite.http_port) as c:
            return c.request("POST", f"{self.base}/{what}", [("Content-Type", "text/plain")], body)

    def send(self, *messages):
        return self.post("xhr_send", json.dumps(list(messages)))

    def start_poll(self):
        c = Connection(self.suite.http_port)
        c.start("POST", f"{self.base}/xhr", [], "")
        return c

    def poll(self):
        resp = self.post("xhr")
        assert resp.status == 200, resp
        return resp.body.decode()


def opened(suite, woh, *events, grip=""):
    """An xhr session whose backend has accepted it."""
    x = Xhr(suite, new_channel("s"))
    c = x.start_poll()
    req = woh.next()
    assert req.events == [("OPEN", b"")]
    req.accept(*events, grip=grip)
    assert c.read_head().status == 200
    assert c.read_rest() == b"o\n"
    return x, req


def test_info(sock_suite):
    with Connection(sock_suite.http_port) as c:
        resp = c.request("GET", "/sock/info", [("Origin", "http://app.example")])
    assert resp.status == 200
    info = json.loads(resp.body)
    assert info["websocket"] is True
    assert info["cookie_needed"] is False
    assert info["origins"] == ["*:*"]
    assert isinstance(info["entropy"], int)
    assert resp.header("Access-Control-Allow-Origin") == "http://app.example"
    assert resp.header("Access-Control-Allow-Credentials") == "true"
    assert "no-store" in resp.header("Cache-Control")


def test_info_entropy_differs(sock_suite):
    with Connection(sock_suite.http_port) as c:
        values = {json.loads(c.request("GET", "/sock/info").body)["entropy"] for _ in range(3)}
    assert len(values) > 1


def test_options_request(sock_suite):
    with Connection(sock_suite.http_port) as c:
        assert c.request("OPTIONS", "/sock/info").status == 204


def test_iframe_page(sock_suite):
    with Connection(sock_suite.http_port) as c:
        resp = c.request("GET", "/sock/iframe.html")
        assert resp.status == 200
        assert resp.header("Content-Type").startswith("text/html")
        assert b"SockJS.bootstrap_iframe" in resp.body
        etag = resp.header("ETag")
        assert etag
        assert c.request("GET", "/sock/iframe.html", [("If-None-Match", etag)]).status == 304


def test_unknown_path_below_the_prefix(sock_suite):
    with Connection(sock_suite.http_port) as c:
        assert c.request("GET", "/sock/nothing/here").status == 404


def test_xhr_open(sock_suite, woh):
    _, req = opened(sock_suite, woh)
    assert req.http.target == "/ws"


def test_xhr_send_reaches_the_backend(sock_suite, woh):
    x, _ = opened(sock_suite, woh)
    resp = x.send("hello")
    assert (resp.status, resp.body) == (200, b"ok")
    assert woh.next().events == [("TEXT", b"hello")]


def test_xhr_poll_gets_messages_of_the_backend(sock_suite, woh):
    x, _ = opened(sock_suite, woh)
    x.send("question")
    woh.next().reply(text("answer"))
    assert x.poll() == 'a["answer"]\n'


def test_xhr_poll_waits_for_a_message(sock_suite, woh):
    channel = new_channel()
    x, _ = opened(sock_suite, woh, control(type="subscribe", channel=channel))
    wait_subscribed(sock_suite, channel)
    c = x.start_poll()
    assert c.is_silent(0.3)
    publish.ws(sock_suite, channel, "pushed")
    assert c.read_head().status == 200
    assert c.read_rest() == b'a["pushed"]\n'


def test_xhr_message_is_json_escaped(sock_suite, woh):
    x, _ = opened(sock_suite, woh)
    x.send("q")
    woh.next().reply(text('say "hi"\n'))
    frame = x.poll()
    assert frame[0] == "a" and json.loads(frame[1:]) == ['say "hi"\n']


def test_xhr_close_by_the_backend(sock_suite, woh):
    x, _ = opened(sock_suite, woh)
    x.send("q")
    woh.next().reply(close(4001, "over"))
    frame = x.poll()
    assert frame[0] == "c" and json.loads(frame[1:]) == [4001, "over"]


def test_xhr_refusal_of_the_backend_is_the_answer(sock_suite, woh):
    x = Xhr(sock_suite, new_channel("s"))
    c = x.start_poll()
    woh.next().reply_with(Response(403, [], "no\n"))
    assert c.read_head().status == 403
    assert c.read_rest() == b"no\n"


@pytest.mark.parametrize("body", ["", "not json", '{"a": 1}', "[1]"])
def test_xhr_send_of_something_invalid(sock_suite, woh, body):
    x, _ = opened(sock_suite, woh)
    resp = x.post("xhr_send", body)
    assert (resp.status, resp.body) == (400, b"Payload expected\n")


@pytest.mark.parametrize("body", ['["x"]', "", "[1]"])
def test_xhr_send_to_an_unknown_session(sock_suite, body):
    assert Xhr(sock_suite, new_channel("s")).post("xhr_send", body).status == 404


def test_xhr_send_to_a_session_that_the_backend_has_closed_says_so(sock_suite, woh):
    x, _ = opened(sock_suite, woh)
    x.send("q")
    woh.next().reply(close(4001, "over"))
    assert x.poll() == 'c[4001,"over"]\n'
    # A client whose message crosses the end must not take it for a failure of the network.
    resp = x.send("late")
    assert (resp.status, resp.body) == (200, b'c[4001,"over"]\n')


def test_xhr_send_of_half_a_surrogate_pair(sock_suite, woh):
    x, _ = opened(sock_suite, woh)
    resp = x.post("xhr_send", '["cut \\ud83d"]')
    assert (resp.status, resp.body) == (200, b"ok")
    kind, data = woh.next().events[0]
    assert kind == "TEXT" and data.startswith(b"cut ")


def test_second_poll_is_refused(sock_suite, woh):
    x, _ = opened(sock_suite, woh)
    c = x.start_poll()
    assert c.is_silent(0.2)
    frame = x.poll()
    assert frame[0] == "c" and json.loads(frame[1:])[0] == 2010
    c.close()


def test_framed_websocket(sock_suite, woh):
    client = WsClient(sock_suite, "/sock/000/abc/websocket", wait=False)
    woh.next().accept()
    assert client.read_response().status == 101
    assert client.recv_text() == "o"
    client.send_text('["hello"]')
    req = woh.next()
    assert req.events == [("TEXT", b"hello")]
    req.reply(text("answer"))
    assert client.recv_text() == 'a["answer"]'
    client.close_socket()


def test_raw_websocket(sock_suite, woh):
    client = WsClient(sock_suite, "/sock/websocket", wait=False)
    woh.next().accept()
    assert client.read_response().status == 101
    client.send_text("hello")
    req = woh.next()
    assert req.events == [("TEXT", b"hello")]
    req.reply(text("answer"))
    assert client.recv_text() == "answer"
    client.close_socket()


def test_requests_outside_the_prefix_are_not_sockjs(sock_suite, origin):
    origin.on("/info", Response(200, [], "mine\n"))
    with Connection(sock_suite.http_port) as c:
        assert c.request("GET", "/info").body == b"mine\n"
