# SPDX-License-Identifier: AGPL-3.0-or-later
"""GRIP on passed-through WebSockets: control messages, prefixes, subscriptions, publishing, detach."""

import base64
import json
import socket

import pytest

from harness import publish
from harness.hold import Subscriptions, new_channel, publish_item, wait_subscribed
from harness.ws import BINARY, CLOSE, PING, PONG, TEXT, Accept, connect, encode_frame, grip_pair, pair
from harness.wsfixtures import _ws_origin, _ws_suite, ws_origin, ws_suite  # noqa: F401


def ws_message(suite, channel, **fmt):
    publish_item(suite, channel, {"ws-message": {k.replace("_", "-"): v for k, v in fmt.items()}})


# the extension and prefixes ------------------------------------------------------------------
def test_grip_extension_is_not_shown_to_the_client(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    assert client.response.header("Sec-WebSocket-Extensions") is None


def test_without_grip_a_control_message_is_just_text(ws_suite, ws_origin):
    client, peer = pair(ws_suite, ws_origin)
    peer.send_text('c:{"type": "subscribe", "channel": "x"}')
    assert client.recv_text() == 'c:{"type": "subscribe", "channel": "x"}'


def test_default_prefix_is_stripped(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.send_text("m:hello")
    assert client.recv_text() == "hello"


def test_message_with_only_the_prefix_is_empty(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.send_text("m:")
    assert client.recv_message() == (TEXT, b"")


def test_prefix_is_stripped_once(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.send_text("m:m:x")
    assert client.recv_text() == "m:x"


def test_message_without_prefix_is_dropped(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.send_text("dropped")
    peer.send_text("m:kept")
    assert client.recv_text() == "kept"


def test_binary_message_needs_the_prefix_too(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.send_binary(b"\x01dropped")
    peer.send_binary(b"m:\x02kept")
    assert client.recv_message() == (BINARY, b"\x02kept")


def test_prefix_named_by_the_origin(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin, prefix="msg>")
    peer.send_text("m:dropped")
    peer.send_text("msg>kept")
    assert client.recv_text() == "kept"


def test_prefix_without_quotes(ws_suite, ws_origin):
    ws_origin.answer = lambda req: Accept([("Sec-WebSocket-Extensions", "grip; message-prefix=p-")])
    client, peer = pair(ws_suite, ws_origin)
    peer.send_text("p-x")
    assert client.recv_text() == "x"


def test_empty_prefix_passes_everything_but_control_messages(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin, prefix="")
    peer.control(type="subscribe", channel=new_channel())
    peer.send_text("plain")
    peer.send_text("m:also")
    assert client.recv_text() == "plain"
    assert client.recv_text() == "m:also"


def test_messages_of_the_client_get_no_prefix(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    client.send_text("as it is")
    assert peer.recv_text() == "as it is"


def test_client_can_not_send_control_messages(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin)
    client.send_text('c:{"type": "subscribe", "channel": "%s"}' % channel)
    assert peer.recv_text().startswith("c:"), "the origin must see what the client sent"
    with Subscriptions(ws_suite) as subs:
        assert not subs.sees(channel), "a client subscribed itself"


def test_ping_and_pong_of_the_origin_need_no_prefix(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.send_frame(PING)
    peer.send_frame(PONG)
    assert client.recv_frame().opcode == PING
    assert client.recv_frame().opcode == PONG


def test_control_message_is_not_shown_to_the_client(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.control(type="subscribe", channel=new_channel())
    peer.send_text("m:after")
    assert client.recv_text() == "after"


@pytest.mark.parametrize("message", ["c:", "c:not json", "c:[]", "c:{}", 'c:{"type": "unknown"}', 'c:{"type": "subscribe"}'])
def test_bad_control_message_is_ignored(ws_suite, ws_origin, message):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.send_text(message)
    peer.send_text("m:still here")
    assert client.recv_text() == "still here"


def test_control_messages_in_one_burst_all_count(ws_suite, ws_origin):
    """Some of them stand across the ends of any buffer."""
    client, peer = grip_pair(ws_suite, ws_origin)
    channels = [new_channel() for _ in range(18)]
    burst = b""
    for number, channel in enumerate(channels):
        control = json.dumps({"type": "subscribe", "channel": channel, "padding": "x" * 4000})
        burst += encode_frame(TEXT, b"c:" + control.encode(), mask=False)
        burst += encode_frame(TEXT, b"m:%d" % number, mask=False)
    peer.send_raw(burst)
    assert [client.recv_text() for _ in channels] == [str(number) for number in range(len(channels))]
    with Subscriptions(ws_suite) as subs:
        subs.wait(*channels)


def test_messages_of_the_origin_may_come_byte_by_byte(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    control = json.dumps({"type": "subscribe", "channel": channel}).encode()
    for message in [b"m:first", b"c:" + control, b"m:second"]:
        for byte in encode_frame(TEXT, message, mask=False):
            peer.send_raw(bytes([byte]))
    assert client.recv_text() == "first"
    assert client.recv_text() == "second"
    with Subscriptions(ws_suite) as subs:
        subs.wait(channel)


# subscriptions and publishing ----------------------------------------------------------------
def test_published_text_reaches_a_subscriber(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    publish.ws(ws_suite, channel, "news")
    assert client.recv_message() == (TEXT, b"news")


def test_published_message_gets_no_prefix_treatment(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    publish.ws(ws_suite, channel, "m:as it is")
    publish.ws(ws_suite, channel, "c:as it is")
    assert client.recv_text() == "m:as it is"
    assert client.recv_text() == "c:as it is"


def test_published_message_is_not_seen_by_the_origin(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    publish.ws(ws_suite, channel, "news")
    client.recv_text()
    assert peer.is_silent(0.2)


def test_published_content_bin_is_a_binary_message(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    ws_message(ws_suite, channel, content_bin=base64.b64encode(b"\x00\xff\x01").decode())
    assert client.recv_message() == (BINARY, b"\x00\xff\x01")


def test_published_type_binary_with_text_content(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    ws_message(ws_suite, channel, type="binary", content="abc")
    assert client.recv_message() == (BINARY, b"abc")


def test_published_ping_and_pong(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    ws_message(ws_suite, channel, type="ping", content="are you there")
    ws_message(ws_suite, channel, type="pong", content="yes")
    frame = client.recv_frame()
    assert (frame.opcode, frame.payload) == (PING, b"are you there")
    frame = client.recv_frame()
    assert (frame.opcode, frame.payload) == (PONG, b"yes")


def test_published_ping_with_empty_content_is_an_empty_ping(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    ws_message(ws_suite, channel, type="ping", content="")
    frame = client.recv_frame()
    assert (frame.opcode, frame.payload) == (PING, b"")


def test_published_close_closes_client_and_origin(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    ws_message(ws_suite, channel, action="close", code=4001, reason="kicked")
    assert client.recv_close() == (4001, "kicked")
    frame = peer.recv_frame()
    assert frame.opcode == CLOSE, f"the origin got {frame!r}"


def test_published_close_without_code(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    ws_message(ws_suite, channel, action="close")
    code, reason = client.recv_close()
    assert code in (None, 1000) and reason == ""


def test_messages_keep_the_order_of_publishing(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    push = publish.Push(ws_suite)
    for i in range(100):
        push.send({"channel": channel, "formats": {"ws-message": {"content": f"n{i}"}}})
    assert [client.recv_text() for _ in range(100)] == [f"n{i}" for i in range(100)]
    push.close()


def test_one_message_reaches_all_subscribers(ws_suite, ws_origin):
    channel = new_channel()
    pairs = [grip_pair(ws_suite, ws_origin, channel) for _ in range(10)]
    # The channel is subscribed to from the first client on, so that only a further one tells when the others are.
    for _, peer in pairs:
        own = new_channel()
        peer.control(type="subscribe", channel=own)
        wait_subscribed(ws_suite, own)
    publish.ws(ws_suite, channel, "to all")
    assert [client.recv_text() for client, _ in pairs] == ["to all"] * 10


def test_other_channels_are_not_delivered(ws_suite, ws_origin):
    mine, other = new_channel(), new_channel()
    client, _ = grip_pair(ws_suite, ws_origin, mine)
    client2, _ = grip_pair(ws_suite, ws_origin, other)
    publish.ws(ws_suite, other, "theirs")
    assert client2.recv_text() == "theirs"
    publish.ws(ws_suite, mine, "mine")
    assert client.recv_text() == "mine"


def test_one_connection_may_subscribe_to_several_channels(ws_suite, ws_origin):
    channels = [new_channel() for _ in range(3)]
    client, peer = grip_pair(ws_suite, ws_origin)
    for ch in channels:
        peer.control(type="subscribe", channel=ch)
    wait_subscribed(ws_suite, *channels)
    for ch in channels:
        publish.ws(ws_suite, ch, f"on {ch}")
        assert client.recv_text() == f"on {ch}"


def test_subscribing_twice_delivers_once(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    peer.control(type="subscribe", channel=channel)
    peer.send_text("m:mark")
    client.recv_text()
    publish.ws(ws_suite, channel, "one")
    publish.ws(ws_suite, channel, "two")
    assert client.recv_text() == "one"
    assert client.recv_text() == "two"


def test_unsubscribe_ends_the_delivery(ws_suite, ws_origin):
    channel = new_channel()
    with Subscriptions(ws_suite) as subs:
        client, peer = grip_pair(ws_suite, ws_origin, channel)
        subs.wait(channel)
        peer.control(type="unsubscribe", channel=channel)
        subs.wait_end(channel)
    publish.ws(ws_suite, channel, "late")
    peer.send_text("m:mark")
    assert client.recv_text() == "mark"


def test_closed_connection_ends_its_subscription(ws_suite, ws_origin):
    channel = new_channel()
    with Subscriptions(ws_suite) as subs:
        client, peer = grip_pair(ws_suite, ws_origin, channel)
        subs.wait(channel)
        client.send_close(1000)
        peer.recv_close()
        peer.send_close(1000)
        client.recv_close()
        subs.wait_end(channel)


def test_broken_connection_ends_its_subscription(ws_suite, ws_origin):
    channel = new_channel()
    with Subscriptions(ws_suite) as subs:
        client, peer = grip_pair(ws_suite, ws_origin, channel)
        subs.wait(channel)
        client.reset()
        subs.wait_end(channel)


def test_traffic_with_the_origin_goes_on_after_a_publish(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    publish.ws(ws_suite, channel, "news")
    assert client.recv_text() == "news"
    client.send_text("question")
    assert peer.recv_text() == "question"
    peer.send_text("m:answer")
    assert client.recv_text() == "answer"


def test_item_with_other_formats_only_is_not_delivered(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    publish.stream(ws_suite, channel, "for streams")
    publish.ws(ws_suite, channel, "for websockets")
    assert client.recv_text() == "for websockets"


# detach --------------------------------------------------------------------------------------
def test_detach_closes_the_origin_side_only(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    peer.control(type="detach")
    assert peer.recv_frame().opcode == CLOSE
    publish.ws(ws_suite, channel, "still here")
    assert client.recv_text() == "still here"


def test_detached_client_is_not_closed_when_the_origin_hangs_up(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    peer.control(type="detach")
    peer.recv_frame()
    peer.close_socket()
    assert client.is_silent(0.3)
    publish.ws(ws_suite, channel, "still here")
    assert client.recv_text() == "still here"


def test_messages_of_a_detached_client_go_nowhere(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    peer.control(type="detach")
    peer.recv_frame()
    client.send_text("anyone?")
    publish.ws(ws_suite, channel, "still here")
    assert client.recv_text() == "still here"


def test_detached_client_can_be_closed_by_publish(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin, channel)
    peer.control(type="detach")
    peer.recv_frame()
    ws_message(ws_suite, channel, action="close", code=4002, reason="end")
    assert client.recv_close() == (4002, "end")


# filters -------------------------------------------------------------------------------------
def test_skip_self_filter_keeps_messages_from_their_sender(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.control(type="set-meta", name="user", value="alice")
    peer.control(type="subscribe", channel=channel, filters=["skip-self"])
    wait_subscribed(ws_suite, channel)
    publish_item(ws_suite, channel, {"ws-message": {"content": "own"}}, meta={"sender": "alice"})
    publish_item(ws_suite, channel, {"ws-message": {"content": "other"}}, meta={"sender": "bob"})
    assert client.recv_text() == "other"


def test_without_the_filter_the_sender_gets_its_message(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.control(type="set-meta", name="user", value="alice")
    peer.control(type="subscribe", channel=channel)
    wait_subscribed(ws_suite, channel)
    publish_item(ws_suite, channel, {"ws-message": {"content": "own"}}, meta={"sender": "alice"})
    assert client.recv_text() == "own"


def test_var_subst_filter_fills_in_meta(ws_suite, ws_origin):
    channel = new_channel()
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.control(type="set-meta", name="nick", value="Al")
    peer.control(type="subscribe", channel=channel, filters=["var-subst"])
    wait_subscribed(ws_suite, channel)
    publish_item(ws_suite, channel, {"ws-message": {"content": "hi %(nick)s, 100%%"}})
    assert client.recv_text() == "hi Al, 100%"


def test_require_sub_filter_drops_what_needs_another_channel(ws_suite, ws_origin):
    a, b = new_channel(), new_channel()
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.control(type="subscribe", channel=a, filters=["require-sub"])
    wait_subscribed(ws_suite, a)
    publish_item(ws_suite, a, {"ws-message": {"content": "needs b"}}, meta={"require_sub": b})
    publish_item(ws_suite, a, {"ws-message": {"content": "needs nothing"}})
    assert client.recv_text() == "needs nothing"


# keep-alive and delayed messages -------------------------------------------------------------
def test_keep_alive_message_is_sent_when_idle(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.control(type="keep-alive", content="ka", timeout=1)
    assert client.recv_text(4) == "ka"
    assert client.recv_text(4) == "ka"


def test_flush_delayed_sends_the_message_at_once(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.control(type="send-delayed", content="later", timeout=30)
    assert client.is_silent(0.3), "sent without delay"
    peer.control(type="flush-delayed")
    assert client.recv_text() == "later"


def test_delayed_message_is_sent_after_its_time(ws_suite, ws_origin):
    client, peer = grip_pair(ws_suite, ws_origin)
    peer.control(type="send-delayed", content="later", timeout=1)
    assert client.is_silent(0.5), "sent without delay"
    assert client.recv_text(3) == "later"


# routes --------------------------------------------------------------------------------------
def test_sub_option_of_a_route_subscribes_every_connection(start_suite, ws_origin):
    channel = new_channel()
    suite = start_suite(routes=[f"* 127.0.0.1:{ws_origin.port},sub={channel}"])
    ws_origin.answer = lambda req: Accept()
    client = connect(suite)
    wait_subscribed(suite, channel)
    publish.ws(suite, channel, "news")
    assert client.recv_text() == "news"
