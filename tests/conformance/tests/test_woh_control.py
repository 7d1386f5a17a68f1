# SPDX-License-Identifier: AGPL-3.0-or-later
"""WebSocket-over-HTTP: GRIP control messages, publishing, refresh, keep-alive requests."""

import base64
import queue

import pytest

from harness import publish
from harness.hold import Subscriptions, new_channel, publish_item, wait_subscribed
from harness.versions import skip_on
from harness.woh import WohBackend, close, control, open_session, text
from harness.ws import BINARY, PING, PONG, TEXT
from harness.wsfixtures import woh  # noqa: F401

needs_refresh_action = skip_on("pushpin-1.36", reason="the refresh action of ws-message came with 1.38")
tells_filter_errors = skip_on("pushpin-1.36", reason="says nothing of filters to clients of WebSockets")


def ws_message(suite, channel, **fmt):
    publish_item(suite, channel, {"ws-message": {k.replace("_", "-"): v for k, v in fmt.items()}})


def test_published_message_reaches_the_client_and_not_the_backend(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    publish.ws(suite, channel, "news")
    assert client.recv_message() == (TEXT, b"news")
    assert woh.quiet(0.3)


def test_subscribe_in_a_later_response(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh)
    client.send_text("join")
    woh.next().reply(control(type="subscribe", channel=channel), text("joined"))
    assert client.recv_text() == "joined"
    wait_subscribed(suite, channel)
    publish.ws(suite, channel, "news")
    assert client.recv_text() == "news"


def test_unsubscribe(suite, woh):
    channel = new_channel()
    with Subscriptions(suite) as subs:
        client, _ = open_session(suite, woh, channel=channel)
        subs.wait(channel)
        client.send_text("leave")
        woh.next().reply(control(type="unsubscribe", channel=channel))
        subs.wait_end(channel)
    publish.ws(suite, channel, "late")
    client.send_text("still there?")
    woh.next().reply(text("yes"))
    assert client.recv_text() == "yes"


def test_default_prefix_applies_without_message_prefix(suite, woh):
    client, _ = open_session(suite, woh, grip="m:")
    client.send_text("x")
    woh.next().reply(text("dropped"), text("m:kept"))
    assert client.recv_text() == "kept"


def test_without_the_grip_extension_control_messages_are_text(suite, woh):
    client, _ = open_session(suite, woh, grip=None)
    client.send_text("x")
    woh.next().reply(control(type="subscribe", channel="c"))
    assert client.recv_text().startswith("c:{")


def test_subscription_ends_with_the_connection(suite, woh):
    channel = new_channel()
    with Subscriptions(suite) as subs:
        client, _ = open_session(suite, woh, channel=channel)
        subs.wait(channel)
        client.reset()
        subs.wait_end(channel)


def test_subscription_ends_when_the_backend_closes(suite, woh):
    channel = new_channel()
    with Subscriptions(suite) as subs:
        client, _ = open_session(suite, woh, channel=channel)
        subs.wait(channel)
        client.send_text("x")
        woh.next().reply(close(1000))
        client.recv_close()
        client.send_close(1000)
        # the backend is told that the client has closed too
        req = woh.next()
        assert [kind for kind, _ in req.events] == ["CLOSE"]
        req.reply(close(1000))
        subs.wait_end(channel)


@needs_refresh_action
def test_refresh_action_makes_an_empty_request(suite, woh):
    channel = new_channel()
    client, first = open_session(suite, woh, channel=channel)
    ws_message(suite, channel, action="refresh")
    req = woh.next()
    assert req.cid == first.cid
    assert (req.http.method, req.http.body) == ("POST", b"")
    req.reply(text("fresh"))
    assert client.recv_text() == "fresh"


@needs_refresh_action
def test_refresh_during_a_request_makes_another_one(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    client.send_text("x")
    req = woh.next()
    ws_message(suite, channel, action="refresh")
    assert woh.quiet(0.2)
    req.reply()
    assert woh.next().http.body == b""


@needs_refresh_action
def test_refresh_reaches_every_subscriber(suite, woh):
    channel = new_channel()
    sessions = [open_session(suite, woh, channel=channel) for _ in range(3)]
    ws_message(suite, channel, action="refresh")
    assert {woh.next().cid for _ in range(3)} == {first.cid for _, first in sessions}


def test_close_action_closes_client_and_backend(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    ws_message(suite, channel, action="close", code=4001, reason="kicked")
    assert client.recv_close() == (4001, "kicked")
    req = woh.next()
    assert [kind for kind, _ in req.events] == ["CLOSE"]


def test_published_binary(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    ws_message(suite, channel, content_bin=base64.b64encode(b"\x00\xff").decode())
    assert client.recv_message() == (BINARY, b"\x00\xff")


def test_published_ping_is_answered_to_the_backend(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    ws_message(suite, channel, type="ping", content="hey")
    frame = client.recv_frame()
    assert (frame.opcode, frame.payload) == (PING, b"hey")
    client.send_frame(PONG, b"hey")
    assert woh.next().events == [("PONG", b"hey")]


def test_detach_ends_the_requests_but_not_the_client(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    client.send_text("x")
    woh.next().reply(control(type="detach"))
    req = woh.next()
    assert req.http.body == b"CLOSE\r\n"
    req.reply(close())
    client.send_text("nobody listens")
    assert woh.quiet(0.3)
    publish.ws(suite, channel, "still here")
    assert client.recv_text() == "still here"


def test_keep_alive_message(suite, woh):
    client, _ = open_session(suite, woh, control(type="keep-alive", content="ka", timeout=1))
    assert client.recv_text(4) == "ka"
    assert woh.quiet(0.2), "the backend was asked"


def test_keep_alive_message_of_type_ping(suite, woh):
    client, _ = open_session(suite, woh, control(type="keep-alive", content="hb", message_type="ping", timeout=1))
    frame = client.recv_frame(4)
    assert (frame.opcode, frame.payload) == (PING, b"hb")


def test_keep_alive_without_content_is_off(suite, woh):
    client, _ = open_session(suite, woh, control(type="keep-alive", content="ka", timeout=1), control(type="keep-alive"))
    assert client.is_silent(1.3)


def test_send_delayed_and_flush_delayed(suite, woh):
    client, _ = open_session(suite, woh, control(type="send-delayed", content="later", timeout=30))
    assert client.is_silent(0.3)
    client.send_text("x")
    woh.next().reply(control(type="flush-delayed"))
    assert client.recv_text() == "later"


def test_set_meta_control_message_feeds_the_filters(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, control(type="set-meta", name="user", value="alice"),
                             control(type="subscribe", channel=channel, filters=["skip-self"]))
    wait_subscribed(suite, channel)
    publish_item(suite, channel, {"ws-message": {"content": "own"}}, meta={"sender": "alice"})
    publish_item(suite, channel, {"ws-message": {"content": "other"}}, meta={"sender": "bob"})
    assert client.recv_text() == "other"


@pytest.mark.parametrize("options", ["", pytest.param(",debug", marks=tells_filter_errors)])
def test_content_filters_that_differ_are_told_to_the_client_if_the_route_has_debug(start_suite, origin, options):
    """The message is never delivered."""
    suite, backend, channel = start_suite(routes=[f"*{options} 127.0.0.1:{{port}},over_http"]), WohBackend(origin), new_channel()
    try:
        client, _ = open_session(suite, backend, control(type="subscribe", channel=channel, filters=["var-subst"]))
        wait_subscribed(suite, channel)
        ws_message(suite, channel, content="%(user)s", content_filters=["build-id"])
        if options:
            mismatch = "content filter mismatch: subscription=var-subst message=build-id"
            assert client.recv_close() == (1011, mismatch)
        else:
            assert client.is_silent(0.3)
    finally:
        backend.release()


def test_backend_that_takes_a_published_close_is_told_nothing_more(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    publish_item(suite, channel, {"ws-message": {"action": "close", "code": 4001}})
    assert client.recv_close() == (4001, "")
    req = woh.next()
    assert req.events == [("CLOSE", b"")]
    client.close_socket()
    req.reply()
    with pytest.raises(queue.Empty):
        woh.disconnects.get(timeout=0.5)


def test_set_meta_control_message_is_not_a_meta_header(suite, woh):
    client, _ = open_session(suite, woh, control(type="set-meta", name="user", value="alice"))
    client.send_text("x")
    assert woh.next().header("Meta-User") is None


def test_keep_alive_interval_below_20_seconds_is_not_taken_literally(suite, woh):
    client, _ = open_session(suite, woh, reply_headers=[("Keep-Alive-Interval", "1")])
    assert woh.quiet(1.5), "the backend was asked again after about a second"
    client.close_socket()


def test_messages_and_publishes_interleave(suite, woh):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    for i in range(10):
        publish.ws(suite, channel, f"p{i}")
        assert client.recv_text() == f"p{i}"
        client.send_text(f"c{i}")
        woh.next().reply(text(f"r{i}"))
        assert client.recv_text() == f"r{i}"


def test_sub_option_of_a_route(start_suite, origin, woh):
    channel = new_channel()
    suite = start_suite(routes=[f"* 127.0.0.1:{{port}},over_http,sub={channel}"])
    client, _ = open_session(suite, woh, grip=None)
    wait_subscribed(suite, channel)
    publish.ws(suite, channel, "news")
    assert client.recv_text() == "news"
