# SPDX-License-Identifier: AGPL-3.0-or-later
"""Response holds (long polling) asked for with Grip-* headers."""

import time

import pytest

from harness.client import Connection
from harness.hold import Subscriptions, new_channel, open_poll, origin_on, publish_item, send_response, wait_subscribed
from harness.origin import Response, hold_response
from harness.suite import SUITE


@pytest.fixture
def channel():
    return new_channel()


def hold(origin, channel, body="timed out\n", extra=(), path="/p", **kw):
    origin.on(path, hold_response(channel, body, extra, **kw))


def finish(c, method="GET"):
    resp = c.read_head(method)
    resp.body = c.read_rest()
    return resp


def test_nothing_is_sent_until_a_message_comes(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel) as c:
        assert c.is_silent(0.3)
        send_response(suite, channel, "data\n")
        resp = finish(c)
        assert (resp.status, resp.reason, resp.body) == (200, "OK", b"data\n")


def test_answer_has_a_content_length(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, "data\n")
        resp = finish(c)
        assert (resp.header("Content-Length"), resp.header("Transfer-Encoding")) == ("5", None)


def test_headers_of_the_hold_are_kept_and_grip_headers_are_not(suite, origin, channel):
    hold(origin, channel, extra=[("X-Hold", "1"), ("Grip-Foo", "x")])
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, "data\n")
        resp = finish(c)
        assert (resp.header("X-Hold"), resp.header("Content-Type")) == ("1", "text/plain")
        assert not any(n.startswith("grip-") for n in resp.names())


def test_published_headers_replace_those_of_the_hold(suite, origin, channel):
    hold(origin, channel, extra=[("X-A", "hold"), ("X-B", "hold")])
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, {"headers": {"x-a": "published", "Content-Type": "application/json"}, "body": "{}"})
        resp = finish(c)
        assert (resp.header("X-A"), resp.header("X-B"), resp.header("Content-Type")) == ("published", "hold", "application/json")


def test_published_code_and_reason(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, {"code": 404, "reason": "Gone Fishing", "body": "x"})
        resp = finish(c)
        assert (resp.status, resp.reason) == (404, "Gone Fishing")


def test_published_code_gets_the_standard_reason(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, {"code": 202, "body": "x"})
        resp = finish(c)
        assert (resp.status, resp.reason) == (202, "Accepted")


def test_status_of_the_hold_is_not_used_for_a_published_answer(suite, origin, channel):
    origin.on("/p", Response(418, [("Grip-Hold", "response"), ("Grip-Channel", channel)], "x"))
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, "data\n")
        assert finish(c).status == 200


def test_connection_is_reusable_after_the_answer(suite, origin, channel):
    hold(origin, channel)
    with Connection(suite.http_port) as c:
        for i in range(3):
            c.start("GET", "/p")
            assert c.is_silent(0.2)
            send_response(suite, channel, f"{i}\n")
            assert finish(c).body == f"{i}\n".encode()


def test_only_the_first_message_is_delivered(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, "one\n")
        send_response(suite, channel, "two\n")
        assert finish(c).body == b"one\n"
        assert c.is_silent(0.2)


def test_several_channels(suite, origin):
    a, b = new_channel(), new_channel()
    hold(origin, f"{a}, {b}")
    for name in (a, b):
        with open_poll(suite, "/p", [a, b]) as c:
            assert c.is_silent(0.1)
            send_response(suite, name, name)
            assert finish(c).body == name.encode()


def test_timeout_answers_with_the_response_of_the_hold(suite, origin, channel):
    hold(origin, channel, "nothing yet\n", [("Grip-Timeout", "5"), ("X-A", "1"), ("Grip-Status", "202 Come Back")])
    start = time.monotonic()
    with open_poll(suite, "/p", channel) as c:
        resp = c.read_head(timeout=8)
        took = time.monotonic() - start
        assert (resp.status, resp.reason, resp.header("X-A"), c.read_rest()) == (202, "Come Back", "1", b"nothing yet\n")
        assert 4.5 < took < 7, took


def test_every_waiting_client_is_answered(suite, origin, channel):
    marks = [new_channel() for _ in range(20)]
    conns = []
    for i, mark in enumerate(marks):
        hold(origin, f"{channel}, {mark}", path=f"/p{i}")
        c = Connection(suite.http_port)
        c.start("GET", f"/p{i}")
        conns.append(c)
    wait_subscribed(suite, channel, *marks)
    send_response(suite, channel, "all\n")
    for c in conns:
        assert finish(c).body == b"all\n"
        c.close()


def test_message_for_one_channel_leaves_others_waiting(suite, origin):
    a, b = new_channel(), new_channel()
    hold(origin, a, path="/a")
    hold(origin, b, path="/b")
    with open_poll(suite, "/a", a) as ca, open_poll(suite, "/b", b) as cb:
        send_response(suite, a, "a\n")
        assert finish(ca).body == b"a\n"
        assert cb.is_silent(0.2)


def test_client_leaving_breaks_nothing(suite, origin, channel):
    hold(origin, channel)
    open_poll(suite, "/p", channel).close()
    time.sleep(0.1)
    send_response(suite, channel, "to nobody\n")
    with open_poll(suite, "/p", channel) as c:
        assert c.is_silent(0.1)
        send_response(suite, channel, "to you\n")
        assert finish(c).body == b"to you\n"


@pytest.mark.skipif(SUITE == "pushpin-2.0", reason="hangs on a Content-Length in a HEAD response")
def test_head_request_can_be_held(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel, method="HEAD") as c:
        send_response(suite, channel, {"code": 201, "headers": {"X-A": "1"}, "body": ""})
        resp = c.read_head("HEAD")
        assert (resp.status, resp.header("X-A")) == (201, "1")


def test_post_body_reaches_the_origin_and_is_held(suite, origin, channel):
    hold(origin, channel)
    with Connection(suite.http_port) as c:
        c.start("POST", "/p", body=b"question")
        wait_subscribed(suite, channel)
        assert origin.next_request().body == b"question"
        send_response(suite, channel, "answer\n")
        assert finish(c).body == b"answer\n"


def test_http_1_0_client_is_answered_and_closed(suite, origin, channel):
    hold(origin, channel)
    with Connection(suite.http_port) as c:
        c.send_head("GET", "/p", version="HTTP/1.0")
        wait_subscribed(suite, channel)
        send_response(suite, channel, "data\n")
        assert finish(c).body == b"data\n"
        assert c.is_closed(3)


def test_empty_published_body(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, "")
        resp = finish(c)
        assert (resp.status, resp.header("Content-Length"), resp.body) == (200, "0", b"")


def test_published_204_has_no_body(suite, origin, channel):
    hold(origin, channel)
    origin.on("/next", Response(200, [], "next"))
    with open_poll(suite, "/p", channel) as c:
        send_response(suite, channel, {"code": 204, "body": ""})
        assert finish(c).status == 204
        assert c.request("GET", "/next").body == b"next"


def test_stream_format_does_not_answer_a_response_hold(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel) as c:
        publish_item(suite, channel, {"http-stream": {"content": "no\n"}})
        assert c.is_silent(0.2)
        send_response(suite, channel, "yes\n")
        assert finish(c).body == b"yes\n"


def test_first_hold_on_a_channel_is_asked_again_after_a_second(suite, origin, channel):
    """About one second after a channel gets its first subscriber the request is repeated to the origin, in case
    something was published while upstream publishers did not yet know of the subscription."""
    origin_on(origin, "/p", hold_response(channel, "t\n"), Response(200, [("X-N", "2")], "second answer\n"))
    with open_poll(suite, "/p", channel) as c:
        resp = c.read_head(timeout=4)
        assert (resp.header("X-N"), c.read_rest()) == ("2", b"second answer\n")
    assert len(origin.log) == 2


def test_second_hold_on_a_channel_is_not_asked_again(suite, origin, channel):
    hold(origin, channel)
    mark = new_channel()
    hold(origin, f"{channel}", path="/q")
    with open_poll(suite, "/p", channel) as first:
        time.sleep(1.6)
        origin.log.clear()
        with Connection(suite.http_port) as second:
            second.start("GET", "/q")
            assert second.is_silent(1.6)
            assert [r.path for r in origin.log] == ["/q"]
            send_response(suite, channel, "both\n")
            assert finish(second).body == b"both\n"
        assert finish(first).body == b"both\n"


def test_repeated_request_is_the_original_one(suite, origin, channel):
    hold(origin, channel)
    with Connection(suite.http_port) as c:
        c.start("POST", "/p?q=1", [("X-A", "1"), ("Content-Type", "text/x")], b"body")
        wait_subscribed(suite, channel)
        first = origin.next_request()
        second = origin.next_request(timeout=4)
        assert (second.method, second.target, second.body) == (first.method, first.target, first.body)
        assert [second.header(n) for n in ("X-A", "Content-Type")] == ["1", "text/x"]
        assert second.header("Grip-Sig") is not None


def test_subscription_lingers_after_a_response_hold(suite, origin, channel):
    """Long polls come and go, so the channel stays subscribed for subscription_linger seconds."""
    hold(origin, channel)
    with Subscriptions(suite) as subs:
        with open_poll(suite, "/p", channel) as c:
            subs.wait(channel)
            send_response(suite, channel, "x\n")
            finish(c)
        with pytest.raises(TimeoutError):
            subs.wait_end(channel, timeout=0.7)


def test_subscription_linger_option(start_suite, origin, channel):
    suite = start_suite(handler={"subscription_linger": 1})
    hold(origin, channel)
    with Subscriptions(suite) as subs:
        with open_poll(suite, "/p", channel) as c:
            subs.wait(channel)
            send_response(suite, channel, "x\n")
            finish(c)
        subs.wait_end(channel, timeout=6)


def test_hint_makes_the_request_be_repeated(suite, origin, channel):
    origin_on(origin, "/p", hold_response(channel, "t\n"), Response(200, [], "fresh\n"))
    with open_poll(suite, "/p", channel) as c:
        publish_item(suite, channel, {"http-response": {"action": "hint"}})
        assert finish(c).body == b"fresh\n"


def test_repeated_request_may_be_held_again(suite, origin, channel):
    hold(origin, channel)
    with open_poll(suite, "/p", channel) as c:
        origin.next_request()
        publish_item(suite, channel, {"http-response": {"action": "hint"}})
        origin.next_request()
        assert c.is_silent(0.2)
        send_response(suite, channel, "at last\n")
        assert finish(c).body == b"at last\n"


def test_origin_error_after_a_hint_reaches_the_client(suite, origin, channel):
    origin_on(origin, "/p", hold_response(channel, "t\n"), Response(500, [], "broken\n"))
    with open_poll(suite, "/p", channel) as c:
        publish_item(suite, channel, {"http-response": {"action": "hint"}})
        resp = finish(c)
        assert (resp.status, resp.body) == (500, b"broken\n")
