# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stream holds asked for with Grip-* headers."""

import time

import pytest

from harness.client import Connection
from harness.hold import Subscriptions, new_channel, open_stream, publish_item, send_stream, wait_subscribed
from harness.origin import Response, hold_stream


@pytest.fixture
def channel():
    return new_channel()


def hold(origin, channel, body="hi\n", extra=(), path="/s", **kw):
    origin.on(path, hold_stream(channel, body, extra, **kw))


def test_head_and_initial_body_arrive_at_once(suite, origin, channel):
    hold(origin, channel, "welcome\n", [("X-A", "1")])
    c, head = open_stream(suite, "/s", channel)
    with c:
        assert (head.status, head.header("Content-Type"), head.header("X-A")) == (200, "text/plain", "1")
        assert c.read_text("welcome\n") == "welcome\n"
        assert c.is_silent(0.2)


def test_grip_headers_and_length_are_removed(suite, origin, channel):
    hold(origin, channel, "hi\n", [("Grip-Foo", "x"), ("Content-Length", "3")])
    c, head = open_stream(suite, "/s", channel)
    with c:
        assert not any(n.startswith("grip-") for n in head.names())
        assert head.header("Content-Length") is None
        assert head.header("Transfer-Encoding").lower() == "chunked"


def test_empty_initial_body(suite, origin, channel):
    hold(origin, channel, "")
    c, head = open_stream(suite, "/s", channel)
    with c:
        assert head.status == 200
        send_stream(suite, channel, "first\n")
        assert c.read_text("first\n") == "first\n"


def test_messages_are_written_verbatim_and_in_order(suite, origin, channel):
    hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        for i in range(10):
            send_stream(suite, channel, f"{i};")
        assert c.read_text("0;1;2;3;4;5;6;7;8;9;") == "0;1;2;3;4;5;6;7;8;9;"


def test_stream_gets_only_its_own_channel(suite, origin, channel):
    other = new_channel()
    hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send_stream(suite, other, "not for you\n")
        send_stream(suite, channel + "x", "not for you either\n")
        send_stream(suite, channel, "yours\n")
        assert c.read_text("yours\n") == "yours\n"


def test_several_channels_in_one_header(suite, origin):
    a, b, c_ = new_channel(), new_channel(), new_channel()
    hold(origin, f"{a}, {b},{c_}")
    c, _ = open_stream(suite, "/s", [a, b, c_])
    with c:
        c.read_text("hi\n")
        for name in (b, a, c_):
            send_stream(suite, name, name + "\n")
            assert c.read_text(name + "\n") == name + "\n"


def test_several_channels_in_several_headers(suite, origin):
    a, b = new_channel(), new_channel()
    hold(origin, a, extra=[("Grip-Channel", b)])
    c, _ = open_stream(suite, "/s", [a, b])
    with c:
        c.read_text("hi\n")
        send_stream(suite, b, "b\n")
        send_stream(suite, a, "a\n")
        assert c.read_text("b\na\n") == "b\na\n"


def test_channel_named_twice_delivers_once(suite, origin, channel):
    hold(origin, f"{channel}, {channel}")
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send_stream(suite, channel, "once\n")
        assert c.read_text("once\n") == "once\n"
        assert c.is_silent(0.2)


def test_no_more_than_the_maximum_of_channels(start_suite, origin):
    suite = start_suite(handler={"connection_subscription_max": 2})
    names = [new_channel() for _ in range(3)]
    hold(origin, ", ".join(names))
    c, _ = open_stream(suite, "/s", names[:2])
    with c, Subscriptions(suite) as subs:
        subs.wait(*names[:2])
        assert not subs.sees(names[2], 0.3)


def test_channel_name_with_unusual_characters(suite, origin):
    name = "room/1:a b@é.x" + new_channel()
    hold(origin, name.encode().decode("latin-1"))
    c, _ = open_stream(suite, "/s", name)
    with c:
        c.read_text("hi\n")
        send_stream(suite, name, "ok\n")
        assert c.read_text("ok\n") == "ok\n"


@pytest.mark.parametrize("value,code,reason", [("201", 201, "Created"), ("404 Nothing Here", 404, "Nothing Here"), ("299 Odd", 299, "Odd")])
def test_grip_status_sets_the_status(suite, origin, channel, value, code, reason):
    hold(origin, channel, extra=[("Grip-Status", value)])
    c, head = open_stream(suite, "/s", channel)
    with c:
        assert (head.status, head.reason) == (code, reason)


def test_status_of_the_origin_is_kept(suite, origin, channel):
    origin.on("/s", Response(418, [("Grip-Hold", "stream"), ("Grip-Channel", channel)], "teapot\n"))
    c, head = open_stream(suite, "/s", channel)
    with c:
        assert head.status == 418
        assert c.read_text("teapot\n") == "teapot\n"


def test_expose_headers_keeps_only_those(suite, origin, channel):
    hold(origin, channel, extra=[("X-A", "1"), ("X-B", "2"), ("X-C", "3"), ("Grip-Expose-Headers", "x-a, X-C")])
    c, head = open_stream(suite, "/s", channel)
    with c:
        assert (head.header("X-A"), head.header("X-B"), head.header("X-C")) == ("1", None, "3")
        assert head.header("Content-Type") is None


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_other_methods_can_be_held(suite, origin, channel, method):
    hold(origin, channel)
    with Connection(suite.http_port) as c:
        c.start(method, "/s", body=b"request body")
        assert c.read_head().status == 200
        wait_subscribed(suite, channel)
        c.read_text("hi\n")
        send_stream(suite, channel, "m\n")
        assert c.read_text("m\n") == "m\n"


def test_http_1_0_client_gets_raw_stream_until_close(suite, origin, channel):
    hold(origin, channel)
    with Connection(suite.http_port) as c:
        c.send_head("GET", "/s", version="HTTP/1.0")
        head = c.read_head()
        assert head.status == 200 and head.header("Transfer-Encoding") is None and head.header("Content-Length") is None
        wait_subscribed(suite, channel)
        assert c.read_text("hi\n") == "hi\n"
        send_stream(suite, channel, "m\n")
        assert c.read_text("m\n") == "m\n"
        publish_item(suite, channel, {"http-stream": {"action": "close"}})
        assert c.is_closed(3)


def test_close_action_ends_the_response_and_keeps_the_connection(suite, origin, channel):
    hold(origin, channel)
    origin.on("/next", Response(200, [], "next"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        publish_item(suite, channel, {"http-stream": {"action": "close"}})
        assert c.read_chunk() == b""
        assert c.request("GET", "/next").body == b"next"


def test_client_that_asked_for_close_is_closed_at_the_end(suite, origin, channel):
    hold(origin, channel)
    c, head = open_stream(suite, "/s", channel, [("Connection", "close")])
    with c:
        c.read_text("hi\n")
        publish_item(suite, channel, {"http-stream": {"action": "close"}})
        assert c.read_chunk() == b""
        assert c.is_closed(3)


def test_subscription_ends_when_the_client_leaves(suite, origin, channel):
    hold(origin, channel)
    with Subscriptions(suite) as subs:
        c, _ = open_stream(suite, "/s", channel)
        subs.wait(channel)
        c.close()
        subs.wait_end(channel)
    send_stream(suite, channel, "to nobody\n")


def test_others_still_receive_after_one_client_leaves(suite, origin, channel):
    hold(origin, channel)
    mark = new_channel()
    hold(origin, f"{channel}, {mark}", path="/marked")
    stay, _ = open_stream(suite, "/s", channel)
    go, _ = open_stream(suite, "/marked", mark)
    with stay, Subscriptions(suite) as subs:
        subs.wait(mark)
        stay.read_text("hi\n")
        go.close()
        subs.wait_end(mark)
        send_stream(suite, channel, "after\n")
        assert stay.read_text("after\n") == "after\n"


def test_connection_is_reusable_for_a_second_stream(suite, origin):
    a, b = new_channel(), new_channel()
    hold(origin, a, path="/a")
    hold(origin, b, path="/b")
    with Connection(suite.http_port) as c:
        for path, name in (("/a", a), ("/b", b)):
            c.start("GET", path)
            c.read_head()
            wait_subscribed(suite, name)
            c.read_text("hi\n")
            send_stream(suite, name, name + "\n")
            assert c.read_text(name + "\n") == name + "\n"
            publish_item(suite, name, {"http-stream": {"action": "close"}})
            assert c.read_chunk() == b""


def test_large_initial_body(suite, origin, channel):
    body = "0123456789abcdef" * 5000  # 80 kB
    hold(origin, channel, body)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        assert c.read_text(body) == body
        send_stream(suite, channel, "m\n")
        assert c.read_text("m\n") == "m\n"


def test_huge_initial_body(suite, origin, channel):
    """More than the proxy will hold for a GRIP instruct: it is relayed before the hold starts."""
    body = "0123456789abcdef" * 50000  # 800 kB
    hold(origin, channel, body)
    with Connection(suite.http_port, timeout=10) as c:
        c.start("GET", "/s")
        assert c.read_head().status == 200
        assert c.read_text(body) == body
        wait_subscribed(suite, channel)
        send_stream(suite, channel, "m\n")
        assert c.read_text("m\n") == "m\n"


@pytest.mark.parametrize(
    "value,wanted",
    [
        ("ping; timeout=1", "ping"),
        ("ping; format=raw; timeout=1", "ping"),
        ("ping\\r\\n\\x21\\\\; format=cstring; timeout=1", "ping\r\n!\\"),
        ("aGVsbG8K; format=base64; timeout=1", "hello\n"),
        ("tick; mode=idle; timeout=1", "tick"),
        ("tick; mode=interval; timeout=1", "tick"),
    ],
)
def test_keep_alive_content(suite, origin, channel, value, wanted):
    hold(origin, channel, extra=[("Grip-Keep-Alive", value)])
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        assert c.read_text(wanted * 2) == wanted * 2


def test_idle_keep_alive_waits_for_silence(suite, origin, channel):
    hold(origin, channel, extra=[("Grip-Keep-Alive", "KA; format=raw; mode=idle; timeout=2")])
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        got = ""
        for _ in range(12):
            send_stream(suite, channel, ".")
            got += c.read_text(".")
            time.sleep(0.2)
        assert got == "." * 12, "a keep-alive came although messages kept flowing"
        assert c.read_text("KA") == "KA"


def test_interval_keep_alive_comes_between_messages(suite, origin, channel):
    hold(origin, channel, extra=[("Grip-Keep-Alive", "KA; format=raw; mode=interval; timeout=1")])
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        got = ""
        deadline = time.monotonic() + 2.2
        while time.monotonic() < deadline:
            send_stream(suite, channel, ".")
            got += c.read_text(".")
            time.sleep(0.1)
        assert "KA" in got


def test_no_keep_alive_without_the_header(suite, origin, channel):
    hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        assert c.is_silent(1.2)


def test_hold_without_channels_just_stays_open(suite, origin):
    origin.on("/s", Response(200, [("Grip-Hold", "stream")], "hi\n"))
    with Connection(suite.http_port) as c:
        c.start("GET", "/s")
        assert c.read_head().status == 200
        c.read_text("hi\n")
        assert c.is_silent(0.3)


def test_instructions_are_recognised_whatever_the_header_case(suite, origin, channel):
    origin.on("/s", Response(200, [("GRIP-HOLD", "stream"), ("grip-channel", channel)], "hi\n"))
    c, head = open_stream(suite, "/s", channel)
    with c:
        assert not any(n.startswith("grip-") for n in head.names())


def test_format_the_transport_does_not_use_is_not_delivered(suite, origin, channel):
    hold(origin, channel)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        publish_item(suite, channel, {"http-response": {"body": "no\n"}, "ws-message": {"content": "no"}})
        send_stream(suite, channel, "yes\n")
        assert c.read_text("yes\n") == "yes\n"


def test_other_requests_are_served_while_streams_are_held(suite, origin):
    names = [new_channel() for _ in range(20)]
    conns = []
    for i, name in enumerate(names):
        hold(origin, name, path=f"/s{i}")
        conns.append(open_stream(suite, f"/s{i}", name)[0])
    origin.on("/plain", Response(200, [], "plain"))
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/plain").body == b"plain"
    for c, name in zip(conns, names):
        c.read_text("hi\n")
        send_stream(suite, name, name)
        assert c.read_text(name) == name
        c.close()
