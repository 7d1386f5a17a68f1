# SPDX-License-Identifier: AGPL-3.0-or-later
"""The outbound client alone, asked over ZHTTP."""

import socket
import threading
import time

import pytest

from harness.origin import Response
from harness.rawserver import RawServer
from harness.versions import skip_on
from harness.ws import BINARY, PING, PONG, TEXT, Accept, WsOrigin
from harness.zhttpfixtures import _outbound  # noqa: F401


@pytest.fixture
def out(_outbound):
    """The asking side's sockets."""
    return _outbound[1]


@pytest.fixture
def wso():
    with WsOrigin() as o:
        yield o


def url(origin, path="/", scheme="http"):
    return f"{scheme}://127.0.0.1:{origin.port}{path}"


# requests ------------------------------------------------------------------------------------
def test_get(out, origin):
    origin.on("/a", Response(200, [("X-Origin", "yes")], "hello"))
    head, body = out.call(url(origin, "/a?x=1"), headers=[["X-Thing", "1"]]).response()
    assert (head["code"], head["reason"], body) == (200, "OK", b"hello")
    assert head.headers("X-Origin") == [b"yes"]
    req = origin.next_request()
    assert (req.method, req.target, req.header("X-Thing")) == ("GET", "/a?x=1", "1")


def test_first_packet_tells_the_address_and_has_seq_0(out, origin):
    origin.on("/a", Response(200, [], "x"))
    first = out.call(url(origin, "/a")).recv()
    assert first["seq"] == 0
    assert first["from"], "the first packet does not tell whom to talk to"
    assert " " not in first["from"]


def test_request_is_acknowledged_before_the_origin_answers(out):
    with RawServer(lambda peer: peer.wait_closed(30)) as silent:
        call = out.call(url(silent))
        assert call.recv(2).kind in ("keep-alive", "credit")
        call.send(type="cancel")


def test_every_packet_names_the_session(out, origin):
    origin.on("/a", Response(200, [], "x"))
    call = out.call(url(origin, "/a"))
    while True:
        p = call.recv()
        assert p.ids == [call.id]
        if p.kind == "data" and not p.more:
            break


def test_origin_status_and_reason(out, origin):
    origin.on("/a", Response(404, [], "none", reason="Nothing Here"))
    head, body = out.call(url(origin, "/a")).response()
    assert (head["code"], head["reason"], body) == (404, "Nothing Here", b"none")


def test_redirect_is_not_followed(out, origin):
    origin.on("/a", Response(302, [("Location", "/b")], ""))
    head, _ = out.call(url(origin, "/a")).response()
    assert head["code"] == 302
    assert head.headers("Location") == [b"/b"]


def test_repeated_headers_are_kept(out, origin):
    origin.on("/a", Response(200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], ""))
    head, _ = out.call(url(origin, "/a"), headers=[["X-A", "1"], ["X-A", "2"]]).response()
    assert head.headers("Set-Cookie") == [b"a=1", b"b=2"]
    assert origin.next_request().header_values("X-A") == ["1", "2"]


def test_post_with_the_body_in_the_first_packet(out, origin):
    origin.on("/a", Response(200, [], "ok"))
    head, body = out.call(url(origin, "/a"), method="POST", headers=[["Content-Length", "4"]], body="data").response()
    assert (head["code"], body) == (200, b"ok")
    req = origin.next_request()
    assert (req.method, req.body) == ("POST", b"data")


def test_post_without_length_and_complete_body(out, origin):
    origin.on("/a", Response(200, [], "ok"))
    out.call(url(origin, "/a"), method="POST", body="data").response()
    assert origin.next_request().body == b"data"


def test_post_with_an_empty_body(out, origin):
    origin.on("/a", Response(200, [], "ok"))
    out.call(url(origin, "/a"), method="POST").response()
    req = origin.next_request()
    assert (req.body, req.header("Content-Length")) == (b"", "0")


def test_post_body_in_several_packets(out, origin):
    origin.on("/a", Response(200, [], "ok"))
    call = out.call(url(origin, "/a"), method="POST", headers=[["Content-Length", "9"]], more=True)
    while call.credits < 9:
        call.recv()
    call.send(body="one", more=True)
    call.send(body="two", more=True)
    call.send(body="end")
    head, body = call.response()
    assert (head["code"], body) == (200, b"ok")
    assert origin.next_request().body == b"onetwoend"


def test_post_body_without_length_is_chunked(out, origin):
    origin.on("/a", Response(200, [], "ok"))
    call = out.call(url(origin, "/a"), method="POST", body="begin ", more=True)
    while call.credits < 6:
        call.recv()
    call.send(body="end")
    call.response()
    req = origin.next_request()
    assert req.body == b"begin end"
    assert req.header("Transfer-Encoding") == "chunked"


def test_large_body_is_sent_as_credits_allow(out, origin):
    origin.on("/a", lambda req: Response(200, [], str(len(req.body))))
    size = 500_000
    call = out.call(url(origin, "/a"), method="POST", headers=[["Content-Length", str(size)]], more=True)
    sent = 0
    while sent < size:
        if call.credits == 0:
            p = call.recv()
            assert p.kind in ("credit", "keep-alive")
            continue
        n = min(call.credits, size - sent, 50_000)
        call.credits -= n
        sent += n
        call.send(body=b"x" * n, more=sent < size or None)
    assert call.response(10)[1] == str(size).encode()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "CUSTOM"])
def test_method(out, origin, method):
    origin.on("/a", Response(200, [], "ok"))
    assert out.call(url(origin, "/a"), method=method).response()[0]["code"] == 200
    assert origin.next_request().method == method


@pytest.mark.parametrize("code", [204, 304])
def test_response_without_body(out, origin, code):
    origin.on("/a", Response(code))
    head, body = out.call(url(origin, "/a")).response()
    assert (head["code"], body) == (code, b"")


def test_connect_host_and_port_replace_those_of_the_uri(out, origin):
    origin.on("/a", Response(200, [], "here"))
    call = out.call("http://app.example:81/a", connect_host="127.0.0.1", connect_port=origin.port)
    assert call.response()[1] == b"here"
    assert origin.next_request().header("Host") == "app.example:81"


def test_hop_headers_of_the_packet_are_not_doubled(out, origin):
    origin.on("/a", Response(200, [], "x"))
    out.call(url(origin, "/a"), headers=[["Host", "wrong.example"], ["Connection", "close"]]).response()
    req = origin.next_request()
    assert len(req.header_values("Host")) == 1


# responses -----------------------------------------------------------------------------------
def test_streamed_response_arrives_piece_by_piece(out, origin):
    go = threading.Event()

    def stream(write):
        write(b"one")
        go.wait(5)
        write(b"two")

    origin.on("/a", Response(200, [], stream=stream))
    call = out.call(url(origin, "/a"))
    p = call.recv_kind("data")
    assert p["code"] == 200 and p.more
    body = p.body
    while body != b"one":
        body += call.recv_kind("data").body
    go.set()
    while p.more:
        p = call.recv_kind("data")
        body += p.body
    assert body == b"onetwo"


def test_response_body_stays_within_the_credits(out, origin):
    origin.on("/a", Response(200, [], b"x" * 10_000))
    call = out.call(url(origin, "/a"), credits=1000)
    p = call.recv_kind("data")
    assert p["code"] == 200
    body = p.body
    while len(body) < 1000:
        body += call.recv_kind("data").body
    assert len(body) == 1000
    assert call.silent(0.4), "more was sent than the credits allow"
    call.send(type="credit", credits=4000)
    while len(body) < 5000:
        body += call.recv_kind("data").body
    assert len(body) == 5000
    assert call.silent(0.3), "more was sent than the credits allow"
    call.send(type="credit", credits=5000)
    p = {"more": True}
    while p.get("more"):
        p = call.recv_kind("data")
        body += p.body
    assert body == b"x" * 10_000


def test_large_response_with_credits_returned(out, origin):
    data = bytes(range(256)) * 8000
    origin.on("/a", Response(200, [], data))
    call = out.call(url(origin, "/a"), credits=100_000)
    p = call.recv_kind("data")
    body = p.body
    while p.more:
        if p.body:
            call.send(type="credit", credits=len(p.body))
        p = call.recv_kind("data")
        body += p.body
    assert body == data


def test_response_of_unknown_length(out):
    with RawServer().answering(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n", b"until the end") as s:
        head, body = out.call(url(s)).response()
        assert (head["code"], body) == (200, b"until the end")


def test_chunked_response_is_decoded(out):
    with RawServer().answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") as s:
        assert out.call(url(s)).response()[1] == b"abcde"


def test_concurrent_requests_do_not_mix(out, origin):
    origin.handler = lambda req: Response(200, [], req.target)
    calls = [(f"/n{i}", out.call(url(origin, f"/n{i}"))) for i in range(50)]
    for path, call in calls:
        assert call.response(10)[1] == path.encode()


# errors --------------------------------------------------------------------------------------
def error(call, timeout=5.0):
    return call.recv_kind("error", timeout=timeout)["condition"]


def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_refused_connection(out):
    assert error(out.call(f"http://127.0.0.1:{closed_port()}/")) == "remote-connection-failed"


@pytest.mark.parametrize("uri", ["", "not a uri", "ftp://127.0.0.1/", "foo://x/"])
def test_bad_uri(out, uri):
    assert error(out.call(uri, method="GET", stream=True)) == "bad-request"


def test_uri_without_host(out):
    assert error(out.call("http://")) in ("bad-request", "undefined-condition")


def test_origin_that_closes_without_an_answer(out):
    with RawServer(lambda peer: peer.read_head()) as s:
        assert error(out.call(url(s))) == "undefined-condition"


def test_origin_that_answers_garbage(out):
    with RawServer().answering(b"garbage\r\n\r\n") as s:
        call = out.call(url(s))
        assert error(call) == "undefined-condition"


def test_truncated_response_ends_with_error_or_cancel(out):
    with RawServer().answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc") as s:
        call = out.call(url(s))
        body, p = b"", call.recv_kind("data", "error", "cancel")
        while p.kind == "data":
            assert p.more, "a truncated response looks complete"
            body += p.body
            p = call.recv_kind("data", "error", "cancel")
        assert body in (b"abc", b"")


def test_loopback_is_denied_without_ignore_policies(out, origin):
    origin.on("/a", Response(200, [], "x"))
    assert error(out.call(url(origin, "/a"), ignore_policies=None)) == "policy-violation"
    assert origin.no_request(0.2)


def test_nothing_follows_an_error(out):
    call = out.call(f"http://127.0.0.1:{closed_port()}/")
    error(call)
    assert call.silent(0.3)


def test_client_works_after_errors(out, origin):
    origin.on("/a", Response(200, [], "fine"))
    error(out.call("nonsense"))
    error(out.call(f"http://127.0.0.1:{closed_port()}/"))
    assert out.call(url(origin, "/a")).response()[1] == b"fine"


@pytest.mark.parametrize("data", [b"", b"T", b"garbage", b"Tgarbage", b"T3:abc,", b"J{"])
def test_malformed_first_packet_is_skipped(out, origin, data):
    origin.on("/a", Response(200, [], "fine"))
    out.push.send(data)
    assert out.call(url(origin, "/a")).response()[1] == b"fine"


@skip_on("pushpin-1.36", reason="zurl aborts")
@pytest.mark.parametrize("data", [b"T0:}", b"T5:x}", b"T7:3:abc,}", b"T15:4:from,6:nobody,}"])
def test_truncated_or_empty_first_packet_is_skipped(out, origin, data):
    origin.on("/a", Response(200, [], "fine"))
    out.push.send(data)
    assert out.call(url(origin, "/a")).response()[1] == b"fine"


# cancel --------------------------------------------------------------------------------------
def test_cancel_closes_the_connection_to_the_origin(out):
    gone = []

    def script(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
        gone.append(peer.wait_closed(5))

    with RawServer(script) as s:
        call = out.call(url(s))
        p = call.recv_kind("data")
        while not p.body:
            p = call.recv_kind("data")
        call.send(type="cancel")
        deadline = time.monotonic() + 5
        while not gone and time.monotonic() < deadline:
            time.sleep(0.02)
        assert gone == [True], "the origin's connection stays open after cancel"
        assert call.silent(0.2)


def test_cancel_before_the_response(out):
    gone = []

    def script(peer):
        peer.read_head()
        gone.append(peer.wait_closed(5))

    with RawServer(script) as s:
        call = out.call(url(s))
        call.recv_kind("keep-alive")
        call.send(type="cancel")
        deadline = time.monotonic() + 5
        while not gone and time.monotonic() < deadline:
            time.sleep(0.02)
        assert gone == [True], "the origin's connection stays open after cancel"


def test_wrong_seq_ends_the_session(out):
    with RawServer(lambda peer: (peer.read_head(), peer.wait_closed(10))) as s:
        call = out.call(url(s), method="POST", more=True, headers=[["Content-Length", "10"]])
        call.recv()
        call.out_seq = 7
        call.send(body="abc", more=True)
        deadline, kinds = time.monotonic() + 1.0, []
        while time.monotonic() < deadline:
            try:
                kinds.append(call.recv(0.3).kind)
            except TimeoutError:
                break
        assert set(kinds) <= {"credit", "keep-alive", "cancel"}, kinds


# WebSocket -----------------------------------------------------------------------------------
def opened(out, wso, **fields):
    call = out.call(url(wso, "/ws", "ws"), **fields)
    p = call.recv_kind("data")
    assert p["code"] == 101, dict(p)
    return call, p, wso.next_peer()


def test_websocket_accept(out, wso):
    wso.answer = lambda req: Accept([("X-Origin", "yes"), ("Sec-WebSocket-Protocol", "v2")])
    call, p, peer = opened(out, wso, headers=[["X-Thing", "1"], ["Sec-WebSocket-Protocol", "v1, v2"]])
    assert p["credits"] > 0 and not p.more
    assert p.headers("X-Origin") == [b"yes"]
    assert p.headers("Sec-WebSocket-Protocol") == [b"v2"]
    assert peer.request.header("X-Thing") == "1"
    assert peer.request.header("Sec-WebSocket-Protocol") == "v1, v2"
    assert peer.request.header("Sec-WebSocket-Version") == "13"
    call.send(type="cancel")


def test_websocket_messages(out, wso):
    call, _, peer = opened(out, wso)
    call.send(content_type="text", body="to origin")
    assert peer.recv_message() == (TEXT, b"to origin")
    call.send(content_type="binary", body=b"\x00\x01")
    assert peer.recv_message() == (BINARY, b"\x00\x01")
    peer.send_text("to client")
    p = call.recv_kind("data")
    assert (p.body, p.get("content-type", "text"), p.more) == (b"to client", "text", False)
    peer.send_binary(b"\x02")
    p = call.recv_kind("data")
    assert (p.body, p["content-type"]) == (b"\x02", "binary")
    call.send(type="cancel")


def test_websocket_message_in_two_packets(out, wso):
    call, _, peer = opened(out, wso)
    call.send(content_type="text", body="one ", more=True)
    call.send(body="two")
    assert peer.recv_message() == (TEXT, b"one two")
    call.send(type="cancel")


def test_websocket_ping_and_pong(out, wso):
    call, _, peer = opened(out, wso)
    call.send(type="ping")
    assert peer.recv_frame().opcode == PING
    peer.send_frame(PONG)
    assert call.recv_kind("pong").kind == "pong"
    peer.send_frame(PING)
    assert call.recv_kind("ping").kind == "ping"
    call.send(type="pong")
    assert peer.recv_frame().opcode == PONG
    call.send(type="cancel")


def test_websocket_frames_to_the_origin_are_masked(out, wso):
    call, _, peer = opened(out, wso)
    call.send(content_type="text", body="x")
    assert peer.recv_frame().masked
    call.send(type="cancel")


def test_websocket_close_by_the_asking_side(out, wso):
    call, _, peer = opened(out, wso)
    call.send(type="close", code=1000, body="bye")
    assert peer.recv_close() == (1000, "bye")
    peer.send_close(1000, "bye")
    p = call.recv_kind("close")
    assert (p["code"], p.body) == (1000, b"bye")
    assert peer.ended()


def test_websocket_close_by_the_origin(out, wso):
    call, _, peer = opened(out, wso)
    peer.send_close(4001, "out")
    p = call.recv_kind("close")
    assert (p["code"], p.body) == (4001, b"out")
    call.send(type="close", code=4001, body="out")
    assert peer.recv_close() == (4001, "out")


def test_websocket_close_without_status_by_the_origin(out, wso):
    call, _, peer = opened(out, wso)
    peer.send_close()
    assert "code" not in call.recv_kind("close")
    call.send(type="cancel")


def test_websocket_credits_are_returned(out, wso):
    call, p, peer = opened(out, wso)
    call.send(content_type="binary", body=b"x" * 5000)
    peer.recv_message()
    got = 0
    while got < 5000:
        got += call.recv_kind("credit").get("credits", 0)
    assert got == 5000
    call.send(type="cancel")


def test_websocket_refused(out, wso):
    wso.answer = lambda req: Response(403, [("X-Why", "no")], "refused")
    p = out.call(url(wso, "/ws", "ws")).recv_kind("error")
    assert (p["condition"], p["code"], p.body) == ("rejected", 403, b"refused")


def test_websocket_refused_connection(out):
    assert error(out.call(f"ws://127.0.0.1:{closed_port()}/")) == "remote-connection-failed"


def test_websocket_cancel_closes_the_origin_connection(out, wso):
    call, _, peer = opened(out, wso)
    call.send(type="cancel")
    assert peer.ended()


def test_websocket_origin_that_breaks_off(out, wso):
    call, _, peer = opened(out, wso)
    peer.close_socket()
    assert call.recv_kind("error", "cancel").kind in ("error", "cancel")
