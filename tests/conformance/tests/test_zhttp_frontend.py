# SPDX-License-Identifier: AGPL-3.0-or-later
"""The frontend alone, with the test in the place of proxy and handler."""

import signal
import threading
import time

import pytest

from harness.client import Connection
from harness.suite import wait_for_port
from harness.ws import BINARY, CONT, PING, PONG, TEXT, WsClient, accept_key
from harness.zhttp import FRONTENDS, Component, ProxySide, start_frontend
from harness.zhttpfixtures import _front  # noqa: F401


@pytest.fixture
def front(_front):
    """The proxy's sockets behind the frontend."""
    return _front[1]


def request(front, method="GET", target="/", headers=(), body=None):
    """A client that has sent a request, and the session the proxy sees."""
    c = Connection(front.frontend.port)
    c.start(method, target, headers, body)
    return c, front.next_session()


def streaming(front):
    """As `request`, with a streamed response begun and read."""
    c, s = request(front)
    s.keep_alive()
    s.respond(body=b"begin", more=True)
    c.read_head()
    assert c.read_text("begin") == "begin"
    # a credit still under way would cross a handoff
    s.recv_until("credit")
    return c, s


def websocket(front, target="/", headers=()):
    """An accepted WebSocket client, and the session the proxy sees."""
    c = WsClient(front.frontend.port, target, headers, wait=False)
    s = front.next_session()
    s.send(code=101, reason="Switching Protocols", headers=[], credits=200_000, ext={"multi": True})
    assert c.read_response().status == 101
    return c, s


# the request packet --------------------------------------------------------------------------
def test_request_packet_fields(front):
    c, s = request(front, "GET", "/a/b?x=1", [("X-Thing", "1")])
    p = s.first
    assert (p["method"], p["uri"], p["seq"]) == ("GET", "http://localhost/a/b?x=1", 0)
    assert p["stream"] is True
    assert p["credits"] > 0
    assert p["ext"]["multi"] is True
    assert p["peer-address"] == "127.0.0.1"
    assert not p.more and p.body == b""
    assert p["from"] == front.frontend_id
    s.respond()
    c.close()


def test_request_headers_are_passed_as_they_are(front):
    c, s = request(front, "GET", "/", [("X-B", "2"), ("x-a", "1"), ("X-B", "3"), ("Connection", "keep-alive")])
    names = [k for k, _ in s.first["headers"]]
    assert names == [b"Host", b"X-B", b"x-a", b"X-B", b"Connection"]
    assert s.first.headers("X-B") == [b"2", b"3"]
    s.respond()
    c.close()


def test_uri_takes_the_host_header(front):
    c = Connection(front.frontend.port)
    c.start("GET", "/x", [], None, "app.example:8080")
    s = front.next_session()
    assert s.first["uri"] == "http://app.example:8080/x"
    s.respond()
    c.close()


def test_session_ids_do_not_repeat_on_one_connection(front):
    c = Connection(front.frontend.port)
    ids = set()
    for _ in range(5):
        c.start("GET", "/")
        s = front.next_session()
        ids.add(s.id)
        s.respond(body=b"x")
        c.read_head()
        c.read_rest()
    c.close()
    assert len(ids) == 5


def test_frontend_subscribes_to_its_own_instance_id(front):
    assert front.frontend_id
    assert " " not in front.frontend_id and len(front.frontend_id) <= 64


# responses -----------------------------------------------------------------------------------
def test_response_in_one_packet(front):
    c, s = request(front)
    s.respond(200, "Fine", [("X-A", "1")], b"hello")
    resp = c.read_head()
    assert (resp.status, resp.reason, resp.header("X-A")) == (200, "Fine", "1")
    assert resp.header("Content-Length") == "5"
    assert c.read_rest() == b"hello"
    c.close()


def test_connection_serves_the_next_request(front):
    c, s = request(front)
    s.respond(body=b"one")
    c.read_head()
    assert c.read_rest() == b"one"
    c.start("GET", "/two")
    s = front.next_session()
    s.respond(body=b"two")
    c.read_head()
    assert c.read_rest() == b"two"
    c.close()


def test_streamed_response_is_chunked(front):
    c, s = request(front)
    s.keep_alive()
    s.respond(body=b"one", more=True)
    resp = c.read_head()
    assert resp.header("Transfer-Encoding") == "chunked"
    assert c.read_text("one") == "one"
    s.send(body=b"two", more=True)
    assert c.read_text("two") == "two"
    s.send()
    assert c.read_rest() == b""
    c.close()


def test_streamed_response_with_content_length_is_not_chunked(front):
    c, s = request(front)
    s.keep_alive()
    s.respond(headers=[("Content-Length", "6")], body=b"one", more=True)
    resp = c.read_head()
    assert (resp.header("Transfer-Encoding"), resp.header("Content-Length")) == (None, "6")
    s.send(body=b"two")
    assert c.read_rest() == b"onetwo"
    c.close()


def test_written_bytes_are_credited_back(front):
    c, s = request(front)
    s.keep_alive()
    s.respond(body=b"x" * 1000, more=True)
    got = 0
    while got < 1000:
        got += s.recv_until("credit").get("credits", 0)
    assert got == 1000
    s.send(body=b"y" * 500, more=True)
    while got < 1500:
        got += s.recv_until("credit").get("credits", 0)
    assert got == 1500
    s.send()
    c.read_head()
    assert len(c.read_rest()) == 1500
    c.close()


def test_large_response_within_credits(front):
    c, s = request(front)
    s.keep_alive()
    size, sent = 1_000_000, 0
    out, begun = b"", False
    while sent < size:
        n = min(s.credits, size - sent, 8192)
        if not n:
            s.recv_until("credit")
            continue
        s.credits -= n
        sent += n
        if not begun:
            s.respond(body=b"z" * n, more=True)
            c.read_head()
            begun = True
        else:
            s.send(body=b"z" * n, more=sent < size or None)
        while len(out) < sent:
            out += c.read_chunk()
    assert out == b"z" * size
    c.close()


def test_keep_alive_packets_are_not_visible_to_the_client(front):
    c, s = streaming(front)
    for _ in range(3):
        s.send(type="keep-alive")
    assert c.is_silent(0.2)
    s.send(body=b"after", more=True)
    assert c.read_text("after") == "after"
    s.send()
    c.close()


def test_error_before_the_response_ends_the_request(front):
    c, s = request(front)
    s.send(type="error", condition="undefined-condition")
    try:
        assert c.read_head().status in (500, 502)
    except EOFError:
        pass
    c.close()


def test_cancel_inside_a_streamed_response_breaks_it_off(front):
    c, s = streaming(front)
    s.send(type="cancel")
    with pytest.raises(EOFError):
        c.read_chunk()
    c.close()


def test_wrong_seq_breaks_the_response_off(front):
    c, s = streaming(front)
    s.out_seq += 3
    s.send(body=b"from the future", more=True)
    with pytest.raises(EOFError):
        c.read_chunk()
    c.close()


def test_packet_for_an_unknown_session_is_ignored(front):
    c, s = streaming(front)
    front.publish(s.to, {"from": s.instance, "id": "no-such-session", "seq": 0, "body": "x"})
    s.send(body=b"fine", more=True)
    assert c.read_text("fine") == "fine"
    s.send()
    c.close()


@pytest.mark.parametrize("data", [b"", b" ", b"T", b" T", b" garbage", b" Tgarbage", b" T3:abc,", b" T0:}", b" T5:x}"])
def test_malformed_packet_is_skipped(front, data):
    c, s = streaming(front)
    front.publish_raw(front.frontend_id.encode() + data)
    s.send(body=b"fine", more=True)
    assert c.read_text("fine") == "fine"
    s.send()
    c.close()


def test_client_that_leaves_is_reported_by_cancel(front):
    c, s = streaming(front)
    c.close()
    assert s.recv_until("cancel").kind == "cancel"


def test_client_that_leaves_before_the_response_is_reported_by_cancel(front):
    c, s = request(front)
    s.keep_alive()
    c.close()
    assert s.recv_until("cancel").kind == "cancel"


def test_no_packet_follows_a_completed_response(front):
    c, s = request(front)
    s.keep_alive()
    s.respond(body=b"done")
    c.read_head()
    assert c.read_rest() == b"done"
    c.close()
    with pytest.raises(TimeoutError):
        while True:
            assert s.recv(0.3).kind == "credit"


# request bodies ------------------------------------------------------------------------------
def test_request_body_waits_for_credits(front):
    c, s = request(front, "POST", "/", [], "0123456789")
    assert s.first.more and s.first.body == b""
    s.send(type="credit", credits=4)
    p = s.recv_until("data")
    assert (p.body, p.more) == (b"0123", True)
    s.send(type="credit", credits=100)
    body = b""
    while p.more:
        p = s.recv_until("data")
        body += p.body
    assert body == b"456789"
    s.respond(body=b"ok")
    assert c.read_head().status == 200
    c.close()


def test_chunked_request_body_is_decoded(front):
    c = Connection(front.frontend.port)
    c.send_head("POST", "/", [("Transfer-Encoding", "chunked")])
    s = front.next_session()
    assert s.first.more
    s.send(type="credit", credits=200_000)
    c.send_raw(b"3\r\nabc\r\n")
    p = s.recv_until("data")
    assert (p.body, p.more) == (b"abc", True)
    c.send_raw(b"2\r\nde\r\n0\r\n\r\n")
    body = b""
    while p.more:
        p = s.recv_until("data")
        body += p.body
    assert body == b"de"
    s.respond(body=b"ok")
    assert c.read_head().status == 200
    c.close()


def test_large_request_body(front):
    data = bytes(range(256)) * 4000
    c = Connection(front.frontend.port)
    sender = threading.Thread(target=c.start, args=("POST", "/", [], data), daemon=True)
    sender.start()
    s = front.next_session()
    s.send(type="credit", credits=50_000)
    body, p = b"", s.first
    while p.more:
        p = s.recv_until("data")
        body += p.body
        if p.body and p.more:
            s.send(type="credit", credits=len(p.body))
    assert body == data
    s.respond(body=b"ok")
    sender.join(5)
    assert c.read_head().status == 200
    c.close()


# several sessions ----------------------------------------------------------------------------
def test_one_data_packet_for_several_connections(front):
    sessions = [streaming(front) for _ in range(5)]
    ids = []
    for _, s in sessions:
        ids.append({"id": s.id, "seq": s.out_seq})
        s.out_seq += 1
    front.publish(sessions[0][1].to, {"from": front.instance, "id": ids, "body": "to all", "more": True})
    for c, s in sessions:
        assert c.read_text("to all") == "to all"
    for c, s in sessions:
        s.send(body=b" and one", more=True)
        assert c.read_text(" and one") == " and one"
        s.send()
        c.close()


def test_128_connections_in_one_data_packet(front):
    sessions = [streaming(front) for _ in range(128)]
    for _ in range(3):
        ids = []
        for _, s in sessions:
            ids.append({"id": s.id, "seq": s.out_seq})
            s.out_seq += 1
        front.publish(sessions[0][1].to, {"from": front.instance, "id": ids, "body": "fan-out;", "more": True})
        for c, _ in sessions:
            assert c.read_text("fan-out;") == "fan-out;"
    for c, s in sessions:
        c.close()


def test_unknown_ids_in_a_list_are_skipped(front):
    c, s = streaming(front)
    ids = [{"id": "nobody", "seq": 4}, {"id": s.id, "seq": s.out_seq}, {"id": "nobody-else", "seq": 0}]
    s.out_seq += 1
    front.publish(s.to, {"from": front.instance, "id": ids, "body": "found", "more": True})
    assert c.read_text("found") == "found"
    s.send()
    c.close()


def test_cancel_for_several_connections(front):
    sessions = [streaming(front) for _ in range(3)]
    front.publish(sessions[0][1].to, {"from": front.instance, "type": "cancel",
                                      "id": [{"id": s.id, "seq": s.out_seq} for _, s in sessions]})
    for c, _ in sessions:
        assert c.is_closed(), "a connection survived its cancel"


# handoff -------------------------------------------------------------------------------------
def test_handoff_before_the_response(front):
    handler = front.add_instance("handler-" + front.instance)
    c, s = request(front)
    s.keep_alive()
    s.send(type="handoff-start")
    p = s.recv_until("handoff-proceed")
    assert p.kind == "handoff-proceed"
    s.instance = handler
    s.keep_alive()
    s.respond(body=b"from the handler", more=True)
    assert c.read_head().status == 200
    assert c.read_text("from the handler") == "from the handler"
    p = s.recv_until("credit")
    assert p["credits"] == len(b"from the handler")
    c.close()
    assert s.recv_until("cancel").kind == "cancel"


def test_handoff_inside_a_response(front):
    handler = front.add_instance("handler2-" + front.instance)
    c, s = streaming(front)
    s.send(type="handoff-start")
    s.recv_until("handoff-proceed")
    s.instance = handler
    s.keep_alive()
    s.send(body=b"second owner", more=True)
    assert c.read_text("second owner") == "second owner"
    s.send()
    assert c.read_rest() == b""
    c.close()


def test_session_may_stay_with_its_owner_after_handoff_proceed(front):
    c, s = request(front)
    s.keep_alive()
    s.send(type="handoff-start")
    s.recv_until("handoff-proceed")
    s.keep_alive()
    s.respond(body=b"never mind")
    assert c.read_head().status == 200
    assert c.read_rest() == b"never mind"
    c.close()


# WebSocket -----------------------------------------------------------------------------------
def test_websocket_request_packet(front):
    c = WsClient(front.frontend.port, "/chat?x=1", [("Sec-WebSocket-Protocol", "v1, v2")], wait=False)
    p = front.next_session().first
    assert p["uri"] == "ws://localhost/chat?x=1"
    assert "stream" not in p and not p.more
    assert p["credits"] > 0
    assert p.headers("Sec-WebSocket-Key") == [c.key.encode()]
    assert p.headers("Sec-WebSocket-Protocol") == [b"v1, v2"]
    c.close_socket()


def test_websocket_accept(front):
    c = WsClient(front.frontend.port, "/", wait=False)
    s = front.next_session()
    s.send(code=101, reason="Switching Protocols", headers=[["X-A", "1"], ["Sec-WebSocket-Protocol", "v2"]], credits=200_000)
    resp = c.read_response()
    assert (resp.status, resp.header("X-A"), resp.header("Sec-WebSocket-Protocol")) == (101, "1", "v2")
    assert resp.header("Sec-WebSocket-Accept") == accept_key(c.key)
    c.close_socket()


def test_websocket_rejection(front):
    c = WsClient(front.frontend.port, "/", wait=False)
    s = front.next_session()
    s.send(type="error", condition="rejected", code=403, reason="Forbidden", headers=[["X-Why", "no"]], body=b"refused")
    resp = c.read_response()
    assert (resp.status, resp.header("X-Why"), resp.body) == (403, "no", b"refused")


def test_websocket_client_message(front):
    c, s = websocket(front)
    c.send_text("hello")
    p = s.recv_until("data")
    assert (p["content-type"], p.body, p.more) == ("text", b"hello", False)
    c.send_binary(b"\x00\x01")
    p = s.recv_until("data")
    assert (p["content-type"], p.body) == ("binary", b"\x00\x01")
    c.close_socket()


def test_websocket_fragments_of_the_client(front):
    c, s = websocket(front)
    c.send_frame(TEXT, "one ", fin=False)
    p = s.recv_until("data")
    assert (p.body, p.more) == (b"one ", True)
    c.send_frame(CONT, "two")
    p = s.recv_until("data")
    assert (p.body, p.more) == (b"two", False)
    c.close_socket()


def test_websocket_message_to_the_client(front):
    c, s = websocket(front)
    s.send(content_type="text", body="hello")
    assert c.recv_message() == (TEXT, b"hello")
    s.send(content_type="binary", body=b"\x00")
    assert c.recv_message() == (BINARY, b"\x00")
    c.close_socket()


def test_websocket_message_in_two_packets(front):
    c, s = websocket(front)
    s.send(content_type="binary", body=b"one ", more=True)
    s.send(content_type="binary", body=b"two")
    assert c.recv_message() == (BINARY, b"one two")
    c.close_socket()


def test_websocket_ping_and_pong_with_content(front):
    c, s = websocket(front)
    c.ping(b"are you there")
    p = s.recv_until("ping")
    assert p.body == b"are you there"
    s.send(type="pong", body=b"yes")
    f = c.recv_frame()
    assert (f.opcode, f.payload) == (PONG, b"yes")
    s.send(type="ping", body=b"you?")
    f = c.recv_frame()
    assert (f.opcode, f.payload) == (PING, b"you?")
    c.send_frame(PONG, b"you?")
    assert s.recv_until("pong").body == b"you?"
    c.close_socket()


def test_websocket_close_by_the_client(front):
    c, s = websocket(front)
    c.send_close(1000, "bye")
    p = s.recv_until("close")
    assert (p["code"], p.body) == (1000, b"bye")
    s.send(type="close", code=1000, body=b"bye")
    assert c.recv_close() == (1000, "bye")
    assert c.ended()


def test_websocket_close_by_the_server_side(front):
    c, s = websocket(front)
    s.send(type="close", code=4001, body=b"out")
    assert c.recv_close() == (4001, "out")
    c.send_close(4001, "out")
    assert s.recv_until("close")["code"] == 4001
    assert c.ended()


def test_websocket_close_without_status_by_the_client(front):
    c, s = websocket(front)
    c.send_close()
    assert "code" not in s.recv_until("close")
    c.close_socket()


def test_websocket_cancel_ends_the_connection(front):
    c, s = websocket(front)
    s.send(type="cancel")
    assert c.ended()


def test_websocket_client_that_breaks_off(front):
    c, s = websocket(front)
    c.reset()
    assert s.recv_until("cancel").kind == "cancel"


def test_websocket_client_is_held_back_without_credits(front):
    c = WsClient(front.frontend.port, "/", wait=False)
    s = front.next_session()
    s.send(code=101, reason="Switching Protocols", headers=[], credits=10)
    assert c.read_response().status == 101
    c.send_text("0123456789abcdefghij")
    p = s.recv_until("data")
    assert (p.body, p.more) == (b"0123456789", True)
    with pytest.raises(TimeoutError):
        s.recv_until("data", 0.3)
    s.send(type="credit", credits=100)
    p = s.recv_until("data")
    assert (p.body, p.more) == (b"abcdefghij", False)
    c.close_socket()


def test_websocket_message_for_several_connections(front):
    ends = [websocket(front) for _ in range(5)]
    ids = []
    for _, s in ends:
        ids.append({"id": s.id, "seq": s.out_seq})
        s.out_seq += 1
    front.publish(ends[0][1].to, {"from": front.instance, "id": ids, "content-type": "text", "body": "to all"})
    for c, s in ends:
        assert c.recv_text() == "to all"
    for c, s in ends:
        s.send(content_type="text", body="to one")
        assert c.recv_text() == "to one"
        c.close_socket()


def test_websocket_written_bytes_are_credited_back(front):
    c, s = websocket(front)
    s.send(content_type="text", body="x" * 300)
    c.recv_text()
    got = 0
    while got < 300:
        got += s.recv_until("credit").get("credits", 0)
    assert got == 300
    c.close_socket()


# limits and the end --------------------------------------------------------------------------
def test_request_head_larger_than_the_buffer_is_refused(front):
    c = Connection(front.frontend.port)
    c.start("GET", "/", [("X-Big", "x" * 20_000)])
    try:
        assert c.read_head().status in (400, 431)
    except (EOFError, ConnectionError):
        pass
    assert front.no_session(0.1)
    c.close()


def test_bad_request_line_is_refused(front):
    c = Connection(front.frontend.port)
    c.send_raw(b"this is not http\r\n\r\n")
    try:
        assert c.read_head().status == 400
    except EOFError:
        pass
    assert front.no_session(0.1)
    c.close()


def test_stopped_frontend_cancels_its_sessions():
    component, peer = start_frontend()
    try:
        c, s = streaming(peer)
        component.process.send_signal(signal.SIGTERM)
        assert s.recv_until("cancel").kind == "cancel"
        assert component.process.wait(10) == 0
        with pytest.raises(EOFError):
            c.read_chunk()
    finally:
        peer.close()
        component.stop()


def test_requests_wait_for_a_proxy_that_comes_late():
    component = Component(FRONTENDS)
    try:
        wait_for_port(component.port, 10)
        c = Connection(component.port)
        c.start("GET", "/early")
        time.sleep(0.3)
        peer = ProxySide(component)
        s = peer.next_session()
        assert s.first["uri"].endswith("/early")
        s.respond(body=b"late but here")
        assert c.read_head().status == 200
        assert c.read_rest() == b"late but here"
        peer.close()
    finally:
        component.stop()
