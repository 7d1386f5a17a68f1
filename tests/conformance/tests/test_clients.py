# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official Python libraries against the suite: gripcontrol and pubcontrol, over HTTP and ZeroMQ."""

import json

import pytest

gripcontrol = pytest.importorskip("gripcontrol")
pubcontrol = pytest.importorskip("pubcontrol")

from harness.hold import new_channel, open_poll, open_stream  # noqa: E402
from harness.origin import Response  # noqa: E402


@pytest.fixture
def channel():
    return new_channel()


@pytest.fixture(params=["http", "zmq-push", "zmq-auto"])
def grip(request, suite):
    """A GripPubControl configured three ways: control port, PUSH, and command socket (which tells the PUSH/PUB addresses)."""
    pub = gripcontrol.GripPubControl()
    if request.param == "http":
        pub.apply_grip_config({"control_uri": f"http://127.0.0.1:{suite.publish_port}"})
    elif request.param == "zmq-auto":
        pub.apply_grip_config({"control_zmq_uri": suite.command_spec})
    else:
        pub.add_client(pubcontrol.ZmqPubControlClient(None, suite.pull_spec))
    yield pub
    pub.close()


def send(pub, channel, *formats, **kw):
    pub.publish(channel, pubcontrol.Item(list(formats), **kw), blocking=True)


def stream_hold(origin, channel):
    headers = [("Content-Type", "text/plain"), ("Grip-Hold", "stream"), ("Grip-Channel", gripcontrol.create_grip_channel_header(channel))]
    origin.on("/s", Response(200, headers, "hi\n"))


def test_publish_to_a_stream(suite, origin, channel, grip):
    stream_hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send(grip, channel, gripcontrol.HttpStreamFormat("from library\n"))
        assert c.read_text("from library\n") == "from library\n"


def test_publish_to_a_poll(suite, origin, channel, grip):
    origin.on("/p", Response(200, [("Content-Type", "application/grip-instruct")], gripcontrol.create_hold_response(channel, gripcontrol.Response(body="t\n"))))
    with open_poll(suite, "/p", channel) as c:
        send(grip, channel, gripcontrol.HttpResponseFormat(code=201, headers={"X-A": "1"}, body="answer\n"))
        head = c.read_head()
        assert (head.status, head.header("X-A"), c.read_rest()) == (201, "1", b"answer\n")


def test_close_a_stream(suite, origin, channel, grip):
    stream_hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send(grip, channel, gripcontrol.HttpStreamFormat(close=True))
        assert c.read_chunk() == b""


def test_library_made_instruct(suite, origin, channel):
    text = gripcontrol.create_hold_stream([gripcontrol.Channel(channel)], gripcontrol.Response(code=202, reason="Fine", headers={"X-A": "1"}, body="body\n"))
    origin.on("/i", Response(200, [("Content-Type", "application/grip-instruct")], text))
    c, head = open_stream(suite, "/i", channel)
    with c:
        assert (head.status, head.reason, head.header("X-A")) == (202, "Fine", "1")
        assert c.read_text("body\n") == "body\n"


def test_library_made_instruct_with_binary_body(suite, origin, channel):
    text = gripcontrol.create_hold_stream(channel, b"\x00\xff\xfe")
    assert "body-bin" in json.loads(text)["response"]
    origin.on("/i", Response(200, [("Content-Type", "application/grip-instruct")], text))
    c, _ = open_stream(suite, "/i", channel)
    with c:
        assert c.read_chunk() == b"\x00\xff\xfe"


def test_ids_from_the_library(suite, origin, channel, grip):
    stream_hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send(grip, channel, gripcontrol.HttpStreamFormat("1;"), id="1")
        send(grip, channel, gripcontrol.HttpStreamFormat("3;"), id="3", prev_id="2")
        send(grip, channel, gripcontrol.HttpStreamFormat("2;"), id="2", prev_id="1")
        assert c.read_text("1;2;3;") == "1;2;3;"


def test_binary_content_from_the_library_over_http(suite, origin, channel):
    """Over ZeroMQ the library sends base64 as content-bin, which tnetstring input does not know."""
    pub = gripcontrol.GripPubControl({"control_uri": f"http://127.0.0.1:{suite.publish_port}"})
    stream_hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send(pub, channel, gripcontrol.HttpStreamFormat(b"\x00\xff\xfe"))
        assert c.read_chunk() == b"\x00\xff\xfe"
    pub.close()


def test_prefixed_control_uri_is_parsed_by_the_library(suite, origin, channel):
    config = gripcontrol.parse_grip_uri(f"http://127.0.0.1:{suite.publish_port}?iss=x&key=base64:AAEC")
    pub = gripcontrol.GripPubControl(config)
    stream_hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send(pub, channel, gripcontrol.HttpStreamFormat("with token\n"))
        assert c.read_text("with token\n") == "with token\n"
    pub.close()
