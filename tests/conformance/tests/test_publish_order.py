# SPDX-License-Identifier: AGPL-3.0-or-later
"""Message ids: de-duplication, ordering by prev-id, reliable holds."""

import time

import pytest

from harness.client import Connection
from harness.hold import Subscriptions, new_channel, open_poll, open_stream, origin_on, publish_item, send_response, send_stream
from harness.origin import Response, hold_response, hold_stream


@pytest.fixture
def channel():
    return new_channel()


@pytest.fixture
def stream(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    c.read_text("hi\n")
    yield c
    c.close()


def finish(c, timeout=None):
    resp = c.read_head(timeout=timeout)
    resp.body = c.read_rest()
    return resp


@pytest.fixture(scope="module")
def quick(_origin):
    """A suite that gives up on missing messages after half a second and remembers ids."""
    from harness.suite import Suite

    suite = Suite([f"* 127.0.0.1:{_origin.port}"], {"handler": {"message_wait": 500, "id_cache_ttl": 60}}).start()
    yield suite
    suite.stop()


def held(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    c.read_text("hi\n")
    return c


def test_same_id_is_delivered_once(quick, origin, channel):
    with held(quick, origin, channel) as c:
        for _ in range(3):
            send_stream(quick, channel, "once;", id="a")
        send_stream(quick, channel, "end", id="b")
        assert c.read_text("once;end") == "once;end"


def test_same_id_on_another_channel_is_another_message(quick, origin):
    a, b = new_channel(), new_channel()
    origin.on("/s", hold_stream(f"{a}, {b}", "hi\n"))
    c, _ = open_stream(quick, "/s", [a, b])
    with c:
        c.read_text("hi\n")
        send_stream(quick, a, "a;", id="1")
        send_stream(quick, b, "b;", id="1")
        assert c.read_text("a;b;") == "a;b;"


def test_ids_are_forgotten_without_a_cache(start_suite, origin, channel):
    suite = start_suite(handler={"id_cache_ttl": 0})
    with held(suite, origin, channel) as c:
        send_stream(suite, channel, "x;", id="a")
        send_stream(suite, channel, "x;", id="a")
        assert c.read_text("x;x;") == "x;x;"


def test_ids_are_forgotten_after_the_cache_time(start_suite, origin, channel):
    suite = start_suite(handler={"id_cache_ttl": 1})
    with held(suite, origin, channel) as c:
        send_stream(suite, channel, "1;", id="a")
        send_stream(suite, channel, "2;", id="a")
        time.sleep(1.2)
        send_stream(suite, channel, "3;", id="a")
        assert c.read_text("1;3;") == "1;3;"


def test_messages_without_ids_are_never_duplicates(quick, origin, channel):
    with held(quick, origin, channel) as c:
        for _ in range(3):
            send_stream(quick, channel, "x;")
        assert c.read_text("x;x;x;") == "x;x;x;"


def test_out_of_order_messages_are_sorted_by_prev_id(suite, channel, stream):
    send_stream(suite, channel, "1;", id="1")
    send_stream(suite, channel, "3;", id="3", prev_id="2")
    send_stream(suite, channel, "4;", id="4", prev_id="3")
    assert stream.read_text("1;") == "1;"
    assert stream.is_silent(0.2)
    send_stream(suite, channel, "2;", id="2", prev_id="1")
    assert stream.read_text("2;3;4;") == "2;3;4;"


def test_reversed_messages_are_sorted(suite, channel, stream):
    send_stream(suite, channel, "0;", id="0")
    for i in range(9, 0, -1):
        send_stream(suite, channel, f"{i};", id=str(i), prev_id=str(i - 1))
    wanted = "".join(f"{i};" for i in range(10))
    assert stream.read_text(wanted) == wanted


def test_first_message_may_have_any_prev_id(suite, channel, stream):
    send_stream(suite, channel, "8;", id="8", prev_id="7")
    assert stream.read_text("8;") == "8;"


def test_message_without_prev_id_is_not_held_back(suite, channel, stream):
    send_stream(suite, channel, "1;", id="1")
    send_stream(suite, channel, "3;", id="3", prev_id="2")
    send_stream(suite, channel, "free;", id="9")
    assert stream.read_text("1;free;") == "1;free;"


def test_no_seq_message_is_not_held_back(suite, channel, stream):
    send_stream(suite, channel, "1;", id="1")
    send_stream(suite, channel, "now;", id="5", prev_id="4", no_seq=True)
    assert stream.read_text("1;now;") == "1;now;"


def test_missing_message_is_given_up_after_message_wait(quick, origin, channel):
    with held(quick, origin, channel) as c:
        send_stream(quick, channel, "1;", id="1")
        assert c.read_text("1;") == "1;"
        start = time.monotonic()
        send_stream(quick, channel, "3;", id="3", prev_id="2")
        time.sleep(0.05)  # messages that arrive within one millisecond are given up in any order
        send_stream(quick, channel, "4;", id="4", prev_id="3")
        assert c.read_text("3;4;") == "3;4;"
        took = time.monotonic() - start
        assert 0.4 < took < 3, took


def test_channels_are_ordered_independently(suite, origin):
    a, b = new_channel(), new_channel()
    origin.on("/s", hold_stream(f"{a}, {b}", "hi\n"))
    c, _ = open_stream(suite, "/s", [a, b])
    with c:
        c.read_text("hi\n")
        send_stream(suite, a, "a1;", id="1")
        send_stream(suite, a, "a3;", id="3", prev_id="2")
        send_stream(suite, b, "b1;", id="1")
        send_stream(suite, b, "b2;", id="2", prev_id="1")
        assert c.read_text("a1;b1;b2;") == "a1;b1;b2;"


def test_order_is_forgotten_when_nobody_is_subscribed(suite, origin, channel):
    with Subscriptions(suite) as subs:
        c = held(suite, origin, channel)
        subs.wait(channel)
        send_stream(suite, channel, "1;", id="1")
        assert c.read_text("1;") == "1;"
        c.close()
        subs.wait_end(channel)
    with held(suite, origin, channel) as c:
        send_stream(suite, channel, "9;", id="9", prev_id="8")
        assert c.read_text("9;") == "9;"


def test_reliable_poll_is_held_when_up_to_date(suite, origin, channel):
    origin.on("/p", hold_response(f"{channel}; prev-id=1", "t\n"))
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, "2\n", id="2", prev_id="1")
        assert finish(c).body == b"2\n"


def test_reliable_poll_that_missed_a_message_asks_again_with_grip_last(suite, origin, channel):
    origin_on(origin, "/p", hold_response(f"{channel}; prev-id=1", "t\n"), Response(200, [], "1..5\n"))
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, "5\n", id="5", prev_id="4")
        assert finish(c, timeout=8).body == b"1..5\n"
    assert origin.log[1].header("Grip-Last") == f"{channel}; last-id=1"


def test_message_published_between_answer_and_hold_is_not_missed(suite, origin, channel):
    """The origin names prev-id=1 but message 2 is already out: the request must go back to the origin at once."""
    origin.on("/s", hold_stream(channel, "hi\n"))
    origin_on(origin, "/p", hold_response(f"{channel}; prev-id=1", "t\n"), Response(200, [], "2\n"))
    c, _ = open_stream(suite, "/s", channel)  # keeps the channel's last id alive
    with c:
        c.read_text("hi\n")
        publish_item(suite, channel, {"http-stream": {"content": "2;"}, "http-response": {"body": "2\n"}}, id="2", prev_id="1")
        assert c.read_text("2;") == "2;"
        with Connection(suite.http_port) as poll:
            start = time.monotonic()
            resp = poll.request("GET", "/p")
            assert resp.body == b"2\n"
            assert time.monotonic() - start < 1
    polls = [r for r in origin.log if r.path == "/p"]
    assert polls[1].header("Grip-Last") == f"{channel}; last-id=1"


def test_unreliable_poll_is_held_whatever_was_published(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n"))
    mark = new_channel()
    origin.on("/p", hold_response(f"{channel}, {mark}", "t\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send_stream(suite, channel, "2;", id="2", prev_id="1")
        assert c.read_text("2;") == "2;"
        with open_poll(suite, "/p", mark) as poll:
            assert poll.is_silent(0.2)
            send_response(suite, channel, "3\n", id="3", prev_id="2")
            assert finish(poll).body == b"3\n"


def test_recover_makes_polls_ask_again(suite, origin, channel):
    origin_on(origin, "/p", hold_response(f"{channel}; prev-id=1", "t\n"), Response(200, [], "recovered\n"))
    with open_poll(suite, "/p", channel) as c:
        with Connection(suite.publish_port) as control:
            assert control.request("POST", "/recover", body=b"").status == 200
        assert finish(c).body == b"recovered\n"
    assert origin.log[1].header("Grip-Last") == f"{channel}; last-id=1"


def test_recover_makes_streams_fetch_their_next_link(suite, origin, channel):
    origin.on("/s", hold_stream(f"{channel}; prev-id=1", "hi\n", [("Grip-Link", "</next>; rel=next")]))
    origin.on("/next", hold_stream(f"{channel}; prev-id=2", "2\n", [("Grip-Link", "</next>; rel=next")]))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        with Connection(suite.publish_port) as control:
            assert control.request("POST", "/recover", body=b"").status == 200
        assert c.read_text("2\n") == "2\n"
    assert [r for r in origin.log if r.path == "/next"][0].header("Grip-Last") == f"{channel}; last-id=1"
