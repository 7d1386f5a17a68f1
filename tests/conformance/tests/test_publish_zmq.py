# SPDX-License-Identifier: AGPL-3.0-or-later
"""Publishing over ZeroMQ (PULL and SUB inputs) to held HTTP requests."""

import json

import pytest

from harness import publish, tnetstring
from harness.hold import new_channel, open_poll, open_stream
from harness.origin import hold_response, hold_stream
from harness.suite import SUITE


@pytest.fixture
def channel():
    return new_channel()


@pytest.fixture
def push(suite):
    push = publish.Push(suite)
    yield push
    push.close()


@pytest.fixture
def pub(suite):
    pub = publish.Pub(suite)
    yield pub
    pub.close()


@pytest.fixture
def stream(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    c.read_text("hi\n")
    yield c
    c.close()


def item(channel, content, **kw):
    return {"channel": channel, "formats": {"http-stream": {"content": content}}, **kw}


@pytest.mark.parametrize("framing", ["T", "J"])
def test_push(channel, stream, push, framing):
    push.send(item(channel, f"{framing}\n"), framing)
    assert stream.read_text(f"{framing}\n") == f"{framing}\n"


def test_push_of_a_bare_tnetstring(channel, stream, push):
    push.sock.send(tnetstring.dumps(item(channel, "bare\n")))
    assert stream.read_text("bare\n") == "bare\n"


def test_push_short_form(channel, stream, push):
    push.send({"channel": channel, "http-stream": {"content": "short\n"}})
    assert stream.read_text("short\n") == "short\n"


def test_push_binary_content(channel, stream, push):
    push.send(item(channel, b"\x00\xff\xfe"))
    assert stream.read_chunk() == b"\x00\xff\xfe"


def test_push_json_with_base64_content(channel, stream, push):
    push.send({"channel": channel, "formats": {"http-stream": {"content-bin": "AP/+"}}}, "J")
    assert stream.read_chunk() == b"\x00\xff\xfe"


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"J{nope", b"J[]", b"garbage", b"T" + tnetstring.dumps({"formats": {}}), b"T" + tnetstring.dumps([1]),
        pytest.param(b"T5:abc,", marks=pytest.mark.skipif(SUITE == "pushpin-1.36", reason="its handler dies of a cut tnetstring")),
    ],
    ids=["empty", "bad-json", "json-array", "garbage", "no-channel", "list", "cut-tnetstring"],
)
def test_bad_push_is_ignored(channel, stream, push, frame):
    push.sock.send(frame)
    push.send(item(channel, "good\n"))
    assert stream.read_text("good\n") == "good\n"


def test_push_with_several_frames_is_ignored(channel, stream, push):
    push.sock.send_multipart([b"T" + tnetstring.dumps(item(channel, "bad\n")), b"more"])
    push.send(item(channel, "good\n"))
    assert stream.read_text("good\n") == "good\n"


def test_push_keeps_order(channel, stream, push):
    for i in range(500):
        push.send(item(channel, f"{i}\n"))
    wanted = "".join(f"{i}\n" for i in range(500))
    assert stream.read_text(wanted) == wanted


def test_push_close_action(channel, stream, push):
    push.send({"channel": channel, "formats": {"http-stream": {"action": "close"}}})
    assert stream.read_chunk() == b""


def test_push_ids_are_sequenced(channel, stream, push):
    push.send(item(channel, "1;", id="1"))
    push.send(item(channel, "3;", **{"id": "3", "prev-id": "2"}))
    push.send(item(channel, "2;", **{"id": "2", "prev-id": "1"}))
    assert stream.read_text("1;2;3;") == "1;2;3;"


def test_push_response_with_headers_in_both_shapes(suite, origin, channel, push):
    for headers in ({"X-A": "1"}, [["X-A", "1"]]):
        mark = new_channel()
        origin.on("/p", hold_response(f"{channel}, {mark}", "t\n"))
        with open_poll(suite, "/p", mark) as c:
            push.send({"channel": channel, "formats": {"http-response": {"code": 202, "headers": headers, "body": "x"}}})
            head = c.read_head()
            assert (head.status, head.header("X-A"), c.read_rest()) == (202, "1", b"x")


def test_push_and_http_reach_the_same_stream(suite, channel, stream, push):
    publish.stream(suite, channel, "http;")
    assert stream.read_text("http;") == "http;"
    push.send(item(channel, "push;"))
    assert stream.read_text("push;") == "push;"


def test_sub_input(channel, stream, pub):
    pub.wait_subscription(channel)
    pub.send(channel, {"formats": {"http-stream": {"content": "via sub\n"}}})
    assert stream.read_text("via sub\n") == "via sub\n"


def test_sub_input_accepts_json(channel, stream, pub):
    pub.wait_subscription(channel)
    pub.sock.send_multipart([channel.encode(), b"J" + json.dumps({"http-stream": {"content": "json\n"}}).encode()])
    assert stream.read_text("json\n") == "json\n"


def test_sub_topic_is_the_channel(channel, stream, pub):
    pub.wait_subscription(channel)
    pub.send(channel, {"channel": "something-else", "formats": {"http-stream": {"content": "by topic\n"}}})
    assert stream.read_text("by topic\n") == "by topic\n"


def test_sub_prefix_match_is_not_a_delivery(channel, stream, pub):
    pub.wait_subscription(channel)
    pub.send(channel + "-longer", {"formats": {"http-stream": {"content": "not yours\n"}}})
    pub.send(channel, {"formats": {"http-stream": {"content": "yours\n"}}})
    assert stream.read_text("yours\n") == "yours\n"


def test_sub_unsubscribes_when_the_stream_ends(channel, stream, pub):
    pub.wait_subscription(channel)
    stream.close()
    pub.wait_unsubscription(channel)


def test_bad_sub_messages_are_ignored(channel, stream, pub):
    pub.wait_subscription(channel)
    pub.sock.send_multipart([channel.encode()])
    pub.sock.send_multipart([channel.encode(), b"T", b"x"])
    pub.sock.send_multipart([channel.encode(), b"J{"])
    pub.send(channel, {"formats": {"http-stream": {"content": "good\n"}}})
    assert stream.read_text("good\n") == "good\n"


def test_same_id_over_two_inputs_is_delivered_once(start_suite, origin, channel):
    suite = start_suite(handler={"id_cache_ttl": 60})
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    push, pub = publish.Push(suite), publish.Pub(suite)
    with c:
        c.read_text("hi\n")
        pub.wait_subscription(channel)
        push.send(item(channel, "once;", id="a"))
        assert c.read_text("once;") == "once;"
        pub.send(channel, {"id": "a", "formats": {"http-stream": {"content": "once;"}}})
        pub.send(channel, {"id": "b", "formats": {"http-stream": {"content": "end"}}})
        assert c.read_text("end") == "end"
    push.close()
    pub.close()
