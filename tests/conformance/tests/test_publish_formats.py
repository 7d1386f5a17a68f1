# SPDX-License-Identifier: AGPL-3.0-or-later
"""What each publish format does to held requests."""

import base64
import json

import pytest

from harness.client import Connection
from harness.hold import new_channel, open_poll, open_stream, publish_item, send_response, send_stream, wait_subscribed
from harness.origin import hold_response, hold_stream
from harness.publish import http as publish_http


@pytest.fixture
def channel():
    return new_channel()


@pytest.fixture
def stream(suite, origin, channel):
    """A held stream on `channel` whose initial body was read."""
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    c.read_text("hi\n")
    yield c
    c.close()


@pytest.fixture
def poll(suite, origin, channel):
    """A held poll on `channel`. Its timeout response is a JSON document."""
    origin.on("/p", hold_response(channel, '{"a": [1, 2], "b": "x"}\n', content_type="application/json"))
    c = open_poll(suite, "/p", channel)
    yield c
    c.close()


def finish(c):
    resp = c.read_head()
    resp.body = c.read_rest()
    return resp


def test_content(suite, channel, stream):
    publish_item(suite, channel, {"http-stream": {"content": "text\n"}})
    assert stream.read_text("text\n") == "text\n"


def test_content_bin(suite, channel, stream):
    data = bytes(range(256))
    publish_item(suite, channel, {"http-stream": {"content-bin": base64.b64encode(data).decode()}})
    assert stream.read_chunk() == data


def test_content_bin_wins_over_content(suite, channel, stream):
    publish_item(suite, channel, {"http-stream": {"content": "text", "content-bin": base64.b64encode(b"binary").decode()}})
    assert stream.read_chunk() == b"binary"


def test_unicode_content(suite, channel, stream):
    text = "h\xe9llo \u4f60\u597d \U0001f600\n"
    send_stream(suite, channel, text)
    assert stream.read_text(text) == text


def test_empty_content_delivers_nothing_and_breaks_nothing(suite, channel, stream):
    send_stream(suite, channel, "")
    send_stream(suite, channel, "after")
    assert stream.read_text("after") == "after"


def test_line_ends_are_kept(suite, channel, stream):
    send_stream(suite, channel, "a\r\n\r\nb\n\n\tc\x00d")
    assert stream.read_text("a\r\n\r\nb\n\n\tc\x00d") == "a\r\n\r\nb\n\n\tc\x00d"


def test_large_content(suite, channel, stream):
    text = "0123456789" * 90000  # 900 kB
    send_stream(suite, channel, text)
    assert stream.read_text(text, timeout=15) == text


def test_short_form_without_formats(suite, channel, stream):
    resp = publish_http(suite, [{"channel": channel, "http-stream": {"content": "short\n"}}])
    assert resp.status == 200
    assert stream.read_text("short\n") == "short\n"


def test_explicit_send_action(suite, channel, stream):
    publish_item(suite, channel, {"http-stream": {"action": "send", "content": "sent\n"}})
    assert stream.read_text("sent\n") == "sent\n"


def test_messages_after_close_are_not_delivered(suite, channel, stream):
    publish_item(suite, channel, {"http-stream": {"action": "close"}})
    send_stream(suite, channel, "late\n")
    assert stream.read_chunk() == b""
    assert stream.is_silent(0.2)


def test_one_item_serves_all_transports(suite, origin, channel, stream):
    mark = new_channel()
    origin.on("/both", hold_response(f"{channel}, {mark}", "t\n"))
    with open_poll(suite, "/both", mark) as poll:
        publish_item(suite, channel, {"http-stream": {"content": "to stream\n"}, "http-response": {"body": "to poll\n"}, "ws-message": {"content": "to ws"}})
        assert stream.read_text("to stream\n") == "to stream\n"
        assert finish(poll).body == b"to poll\n"


def test_response_body_bin(suite, channel, poll):
    data = bytes(range(256))
    send_response(suite, channel, {"body-bin": base64.b64encode(data).decode()})
    assert finish(poll).body == data


def test_response_headers_as_list(suite, channel, poll):
    send_response(suite, channel, {"headers": [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"]], "body": "x"})
    assert [v for k, v in finish(poll).headers if k == "Set-Cookie"] == ["a=1", "b=2"]


def test_response_headers_as_object(suite, channel, poll):
    send_response(suite, channel, {"headers": {"X-A": "1", "X-B": "2"}, "body": "x"})
    resp = finish(poll)
    assert (resp.header("X-A"), resp.header("X-B")) == ("1", "2")


def test_published_grip_and_length_headers_are_not_sent(suite, channel, poll):
    send_response(suite, channel, {"headers": {"Grip-Foo": "1", "Content-Length": "77", "X-A": "1"}, "body": "four"})
    resp = finish(poll)
    assert (resp.header("Grip-Foo"), resp.header("Content-Length"), resp.header("X-A"), resp.body) == (None, "4", "1", b"four")


def test_response_large_body(suite, channel, poll):
    body = "0123456789" * 90000
    send_response(suite, channel, body)
    assert finish(poll).body == body.encode()


def test_unicode_response_body(suite, channel, poll):
    send_response(suite, channel, "\u4f60\u597d")
    resp = finish(poll)
    assert (resp.body.decode(), resp.header("Content-Length")) == ("\u4f60\u597d", "6")


@pytest.mark.parametrize(
    "ops,wanted",
    [
        ([{"op": "replace", "path": "/b", "value": "y"}], {"a": [1, 2], "b": "y"}),
        ([{"op": "add", "path": "/c", "value": {"d": None}}], {"a": [1, 2], "b": "x", "c": {"d": None}}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3], "b": "x"}),
        ([{"op": "remove", "path": "/b"}], {"a": [1, 2]}),
        ([{"op": "move", "from": "/b", "path": "/c"}], {"a": [1, 2], "c": "x"}),
        ([{"op": "copy", "from": "/a", "path": "/c"}], {"a": [1, 2], "b": "x", "c": [1, 2]}),
        ([{"op": "test", "path": "/b", "value": "x"}, {"op": "replace", "path": "/b", "value": True}], {"a": [1, 2], "b": True}),
    ],
    ids=["replace", "add", "append", "remove", "move", "copy", "test"],
)
def test_body_patch_is_applied_to_the_body_of_the_hold(suite, channel, poll, ops, wanted):
    send_response(suite, channel, {"body-patch": ops})
    resp = finish(poll)
    assert (resp.status, json.loads(resp.body), resp.body[-1:]) == (200, wanted, b"\n")


@pytest.mark.parametrize("path,value", [("/b", "other"), ("/a/0", 1.5)])
def test_body_patch_that_does_not_apply_gives_no_document(suite, channel, poll, path, value):
    """1.36 answers 502, 2.0 an empty 200; the unpatched document must not be sent."""
    send_response(suite, channel, {"body-patch": [{"op": "test", "path": path, "value": value}]})
    resp = finish(poll)
    assert (resp.status, resp.body) in [(502, b"Error while proxying to origin.\n"), (200, b"")]


def test_failure_of_a_body_patch_has_no_headers_of_the_hold(suite, origin, channel):
    origin.on("/p", hold_response(channel, "{}", [("Cache-Control", "max-age=60"), ("ETag", '"1"')], "application/json"))
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, {"body-patch": [{"op": "remove", "path": "/b"}]})
        resp = finish(c)
    # 2.0 answers 200 with the hold's headers and without a body.
    if resp.status != 200:
        assert (resp.status, resp.header("ETag"), resp.header("Cache-Control")) == (502, None, None)
        assert resp.header("Content-Type") == "text/plain"


def test_body_wins_over_body_patch(suite, channel, poll):
    send_response(suite, channel, {"body": "plain", "body-patch": [{"op": "remove", "path": "/b"}]})
    assert finish(poll).body == b"plain"


def test_thousand_messages_in_order(suite, channel, stream):
    for start in range(0, 1000, 50):
        items = [{"channel": channel, "formats": {"http-stream": {"content": f"{i}\n"}}} for i in range(start, start + 50)]
        assert publish_http(suite, items).status == 200
        wanted = "".join(f"{i}\n" for i in range(start, start + 50))
        assert stream.read_text(wanted) == wanted


def open_many(suite, targets):
    """Open streams one after another; returns the connections with head and greeting read."""
    conns = []
    for target in targets:
        c = Connection(suite.http_port, timeout=10)
        conns.append(c)
        c.start("GET", target)
        assert c.read_head().status == 200
        assert c.read_text("hi\n") == "hi\n"
    return conns


def test_fan_out_to_200_streams_loses_nothing(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n"))
    conns = open_many(suite, ["/s"] * 200)
    wait_subscribed(suite, channel)
    wanted = "".join(f"message {i}\n" for i in range(20))
    for i in range(20):
        send_stream(suite, channel, f"message {i}\n")
    for n, c in enumerate(conns):
        assert c.read_text(wanted) == wanted, f"client {n}"
        c.close()


def test_two_hundred_channels_of_one_message_each(suite, origin):
    names = [new_channel() for _ in range(200)]
    origin.handler = lambda req: hold_stream(req.target[1:], "hi\n")
    conns = open_many(suite, [f"/{n}" for n in names])
    wait_subscribed(suite, *names)
    for start in range(0, 200, 40):
        assert publish_http(suite, [{"channel": n, "formats": {"http-stream": {"content": n}}} for n in names[start : start + 40]]).status == 200
    for c, name in zip(conns, names):
        assert c.read_text(name) == name
        c.close()
