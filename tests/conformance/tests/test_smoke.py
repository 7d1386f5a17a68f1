# SPDX-License-Identifier: AGPL-3.0-or-later
"""The main job on real input: proxy a request, hold a stream, publish to it, close it."""

from harness import publish
from harness.client import Connection
from harness.origin import Response, hold_response, hold_stream


def test_plain_request_is_proxied(suite, origin):
    origin.on("/hello", Response(200, [("Content-Type", "text/plain"), ("X-Origin", "yes")], "hello world\n"))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/hello?a=1")
    assert (resp.status, resp.body) == (200, b"hello world\n")
    assert resp.header("X-Origin") == "yes"
    assert origin.next_request().target == "/hello?a=1"


def test_stream_hold_receives_published_data(suite, origin):
    origin.on("/stream", hold_stream("smoke", "welcome\n"))
    with Connection(suite.http_port) as c:
        c.start("GET", "/stream")
        head = c.read_head()
        assert head.status == 200
        assert not any(n.startswith("grip-") for n in head.names())
        assert c.read_text("welcome\n") == "welcome\n"
        publish.stream(suite, "smoke", "first\n")
        assert c.read_text("first\n") == "first\n"
        publish.stream(suite, "smoke", "second\n")
        assert c.read_text("second\n") == "second\n"


def test_response_hold_is_answered_by_publish(suite, origin):
    origin.on("/poll", hold_response("smoke-poll", "timed out\n"))
    with Connection(suite.http_port) as c:
        c.start("GET", "/poll")
        assert c.is_silent(0.5)
        publish.response(suite, "smoke-poll", "data\n")
        resp = c.read_head()
        assert resp.status == 200
        assert c.read_rest() == b"data\n"


def test_zmq_push_reaches_held_stream(suite, origin):
    origin.on("/stream", hold_stream("smoke-push", "hi\n"))
    with Connection(suite.http_port) as c:
        c.start("GET", "/stream")
        c.read_head()
        c.read_text("hi\n")
        push = publish.Push(suite)
        push.send({"channel": "smoke-push", "formats": {"http-stream": {"content": "pushed\n"}}})
        assert c.read_text("pushed\n") == "pushed\n"
        push.close()
