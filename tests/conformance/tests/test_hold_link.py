# SPDX-License-Identifier: AGPL-3.0-or-later
"""Grip-Link next: pages fetched by the proxy itself and appended to the client's stream."""

import contextlib
import threading

import pytest

from harness.client import Connection
from harness.hold import new_channel, open_stream, origin_on, publish_item, send_stream, wait_subscribed
from harness.origin import Response, hold_stream
from harness.rawserver import RawServer


@pytest.fixture
def channel():
    return new_channel()


def page(body, link=None, extra=(), status=200):
    headers = [("Content-Type", "text/plain"), *extra]
    if link:
        headers.append(("Grip-Link", link))
    return Response(status, headers, body)


def test_pages_are_joined_into_one_response(suite, origin):
    origin.on("/p0", page("zero\n", "</p1>; rel=next"))
    origin.on("/p1", page("one\n", "</p2>; rel=next"))
    origin.on("/p2", page("two\n"))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/p0")
    assert (resp.status, resp.body) == (200, b"zero\none\ntwo\n")
    assert resp.header("Grip-Link") is None
    assert [r.target for r in origin.log] == ["/p0", "/p1", "/p2"]


def test_pages_then_hold(suite, origin, channel):
    origin.on("/p0", page("zero\n", "</p1>; rel=next"))
    origin.on("/p1", hold_stream(channel, "one\n"))
    with Connection(suite.http_port) as c:
        c.start("GET", "/p0")
        c.read_head()
        assert c.read_text("zero\none\n") == "zero\none\n"
        wait_subscribed(suite, channel)
        send_stream(suite, channel, "live\n")
        assert c.read_text("live\n") == "live\n"


def test_only_the_first_page_decides_status_and_headers(suite, origin):
    origin.on("/p0", page("zero\n", "</p1>; rel=next", [("X-A", "0"), ("Grip-Status", "203")]))
    origin.on("/p1", page("one\n", None, [("X-A", "1"), ("X-B", "1")], status=201))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/p0")
    assert (resp.status, resp.header("X-A"), resp.header("X-B"), resp.body) == (203, "0", None, b"zero\none\n")


@pytest.mark.parametrize("link,wanted", [("</abs?x=1>", "/abs?x=1"), ("<sibling>", "/dir/sibling"), ("<?n=2>", "/dir/page?n=2"), ("<../up>", "/up")])
def test_link_is_resolved_against_the_request(suite, origin, link, wanted):
    origin.on("/dir/page", lambda req: page("0;", f"{link}; rel=next") if len(origin.log) == 1 else page("1;"))
    origin.handler = lambda req: page("1;")
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/dir/page").body == b"0;1;"
    assert origin.log[1].target == wanted


def test_absolute_link_to_the_same_host_goes_through_the_routes(suite, origin):
    origin.on("/p0", page("0;", "<http://localhost/p1>; rel=next"))
    origin.on("/p1", page("1;"))
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/p0").body == b"0;1;"
    assert (origin.log[1].header("Host"), origin.log[1].method) == ("localhost", "GET")


def test_absolute_link_to_another_host_is_fetched_from_there(suite, origin):
    with RawServer().answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nother;") as other:
        origin.on("/p0", page("0;", f"<http://127.0.0.1:{other.port}/p1>; rel=next"))
        with Connection(suite.http_port) as c:
            assert c.request("GET", "/p0").body == b"0;other;"
        assert other.heads.get(timeout=1).startswith(b"GET /p1 HTTP/1.1\r\n")
    assert [r.target for r in origin.log] == ["/p0"]


def test_link_request_is_a_signed_get_without_the_clients_headers(suite, origin):
    origin.on("/p0", page("0;", "</p1>; rel=next"))
    origin.on("/p1", page("1;"))
    with Connection(suite.http_port) as c:
        assert c.request("POST", "/p0", [("X-Mine", "1"), ("Cookie", "a=b")], b"body").body == b"0;1;"
    req = origin.log[1]
    assert (req.method, req.body, req.header("X-Mine"), req.header("Cookie")) == ("GET", b"", None, None)
    assert req.header("Grip-Sig") is not None


def test_other_relations_are_ignored(suite, origin):
    origin.on("/p0", page("only\n", "</p1>; rel=prev"))
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/p0").body == b"only\n"
    assert [r.target for r in origin.log] == ["/p0"]


def test_pages_stream_as_they_come(suite, origin):
    go_on = threading.Event()

    def second(req):
        go_on.wait(10)
        return page("1;")

    origin.on("/p0", page("0;", "</p1>; rel=next"))
    origin.on("/p1", second)
    with Connection(suite.http_port) as c:
        c.start("GET", "/p0")
        assert c.read_head().status == 200
        assert c.read_text("0;") == "0;"
        go_on.set()
        assert c.read_text("1;") == "1;"
        assert c.read_chunk() == b""


def test_hint_fetches_the_next_link_of_a_held_stream(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n", [("Grip-Link", "</next>; rel=next")]))
    origin.on("/next", hold_stream(channel, "caught up\n", [("Grip-Link", "</next>; rel=next")]))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        publish_item(suite, channel, {"http-stream": {"action": "hint"}})
        assert c.read_text("caught up\n") == "caught up\n"
        send_stream(suite, channel, "live\n")
        assert c.read_text("live\n") == "live\n"


def test_hint_means_nothing_without_a_link(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        publish_item(suite, channel, {"http-stream": {"action": "hint"}})
        send_stream(suite, channel, "live\n")
        assert c.read_text("live\n") == "live\n"


def test_next_link_is_fetched_when_its_timeout_passes(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n", [("Grip-Link", "</next>; rel=next; timeout=1")]))
    origin.on("/next", page("bye\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        assert c.read_text("bye\n") == "bye\n"
        assert c.read_chunk() == b""


def test_channels_of_the_next_page_replace_the_old_ones(suite, origin):
    a, b = new_channel(), new_channel()
    origin.on("/s", hold_stream(a, "hi\n", [("Grip-Link", "</next>; rel=next")]))
    origin.on("/next", hold_stream(b, "moved\n"))
    c, _ = open_stream(suite, "/s", a)
    with c:
        c.read_text("hi\n")
        publish_item(suite, a, {"http-stream": {"action": "hint"}})
        assert c.read_text("moved\n") == "moved\n"
        wait_subscribed(suite, b)
        send_stream(suite, a, "old\n")
        send_stream(suite, b, "new\n")
        assert c.read_text("new\n") == "new\n"


def test_messages_published_while_a_page_is_fetched_come_after_it(suite, origin, channel):
    asked, go_on = threading.Event(), threading.Event()

    def slow(req):
        asked.set()
        go_on.wait(10)
        return hold_stream(channel, "page\n")

    origin.on("/s", hold_stream(channel, "hi\n", [("Grip-Link", "</next>; rel=next")]))
    origin.on("/next", slow)
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        publish_item(suite, channel, {"http-stream": {"action": "hint"}})
        assert asked.wait(5)
        send_stream(suite, channel, "meanwhile\n")
        go_on.set()
        assert c.read_text("page\nmeanwhile\n") == "page\nmeanwhile\n"


def test_failing_page_is_tried_again(suite, origin):
    origin.on("/p0", page("0;", "</p1>; rel=next"))
    origin_on(origin, "/p1", Response(503, [], "busy"), page("1;"))
    with Connection(suite.http_port) as c:
        c.start("GET", "/p0")
        c.read_head()
        assert c.read_text("0;1;", timeout=6) == "0;1;"
    assert [r.target for r in origin.log] == ["/p0", "/p1", "/p1"]


def test_prev_id_of_a_stream_needs_a_next_link(start_suite, origin, channel):
    suite = start_suite(routes=["*,debug 127.0.0.1:{port}"])
    origin.on("/s", hold_stream(f"{channel}; prev-id=1", "hi\n"))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/s")
    assert resp.status == 200
    assert resp.body.decode() == f"hi\n\n\nchannel '{channel}' specifies prev-id, but no next link found\n"


def test_prev_id_gap_makes_the_proxy_fetch_the_next_link_with_grip_last(suite, origin, channel):
    origin.on("/s", hold_stream(f"{channel}; prev-id=1", "hi\n", [("Grip-Link", "</next>; rel=next")]))
    origin.on("/next", hold_stream(f"{channel}; prev-id=5", "2..5\n", [("Grip-Link", "</next>; rel=next")]))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send_stream(suite, channel, "5\n", id="5", prev_id="4")
        assert c.read_text("2..5\n", timeout=8) == "2..5\n"
        fetched = [r for r in origin.log if r.path == "/next"]
        assert fetched[0].header("Grip-Last") == f"{channel}; last-id=1"
        send_stream(suite, channel, "6\n", id="6", prev_id="5")
        assert c.read_text("6\n") == "6\n"


def test_prev_id_in_step_is_delivered_without_fetching(suite, origin, channel):
    origin.on("/s", hold_stream(f"{channel}; prev-id=1", "hi\n", [("Grip-Link", "</next>; rel=next")]))
    origin.on("/next", hold_stream(f"{channel}; prev-id=3", "", [("Grip-Link", "</next>; rel=next")]))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send_stream(suite, channel, "2\n", id="2", prev_id="1")
        send_stream(suite, channel, "3\n", id="3", prev_id="2")
        assert c.read_text("2\n3\n") == "2\n3\n"


def test_many_streams_in_the_same_place_do_not_ask_one_by_one(suite, origin, channel):
    """1.36 asks some six times for each page of 500 streams, since those that come together share a request."""
    count = 200
    answer = hold_stream(f"{channel}; prev-id=1", "hi\n", [("Grip-Link", "</next>; rel=next; timeout=2")])
    following = hold_stream(f"{channel}; prev-id=1", "page\n", [("Grip-Link", "</next>; rel=next; timeout=60")])
    origin.on("/s", answer)
    origin.on("/next", following)
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(Connection(suite.http_port)) for _ in range(count)]
        for c in clients:
            c.start("GET", "/s")
            c.read_head()
            assert c.read_text("hi\n") == "hi\n"
        for c in clients:
            assert c.read_text("page\n", timeout=20) == "page\n"
    asked = sum(r.path == "/next" for r in origin.log)
    assert asked < count / 4, f"{asked} requests for one page"
