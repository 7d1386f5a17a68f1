# SPDX-License-Identifier: AGPL-3.0-or-later
"""WebSocket-over-HTTP: the OPEN request and its answers."""

import socket
import uuid

import pytest

from harness.client import Connection
from harness.origin import Response
from harness.woh import EVENTS, OPEN, close, event, text
from harness.ws import WsClient
from harness.wsfixtures import woh  # noqa: F401


def begin(suite, woh, target="/ws", headers=(), **kw):
    client = WsClient(suite, target, headers, wait=False, **kw)
    return client, woh.next()


def test_open_request_is_a_post_with_an_open_event(suite, woh):
    _, req = begin(suite, woh, "/chat?room=1")
    assert (req.http.method, req.http.target) == ("POST", "/chat?room=1")
    assert req.http.body == b"OPEN\r\n"


def test_open_request_content_type_and_accept(suite, woh):
    _, req = begin(suite, woh)
    assert req.header("Content-Type") == EVENTS
    assert req.header("Accept") == EVENTS
    assert req.header("Content-Length") == "6"


def test_connection_id_is_a_uuid(suite, woh):
    _, req = begin(suite, woh)
    assert str(uuid.UUID(req.cid)) == req.cid


def test_every_connection_has_its_own_id(suite, woh):
    ids = {begin(suite, woh)[1].cid for _ in range(5)}
    assert len(ids) == 5


def test_connection_id_of_the_client_is_not_believed(suite, woh):
    _, req = begin(suite, woh, headers=[("Connection-Id", "mine")])
    assert req.http.header_values("Connection-Id") != ["mine"]
    assert "mine" not in req.cid


def test_grip_extension_is_offered(suite, woh):
    _, req = begin(suite, woh)
    assert req.header("Sec-WebSocket-Extensions") == "grip"


def test_extensions_of_the_client_are_not_offered(suite, woh):
    _, req = begin(suite, woh, headers=[("Sec-WebSocket-Extensions", "permessage-deflate")])
    assert req.header("Sec-WebSocket-Extensions") == "grip"


def test_request_is_grip_signed(suite, woh):
    _, req = begin(suite, woh)
    assert req.header("Grip-Sig").count(".") == 2


def test_headers_of_the_client_reach_the_backend(suite, woh):
    _, req = begin(suite, woh, headers=[("Cookie", "a=b"), ("X-Thing", "1")], host="chat.example")
    assert req.header("Cookie") == "a=b"
    assert req.header("X-Thing") == "1"
    assert req.header("Host") == "chat.example"


def test_meta_headers_of_the_client_are_removed(suite, woh):
    _, req = begin(suite, woh, headers=[("Meta-User", "root")])
    assert req.header("Meta-User") is None


@pytest.mark.parametrize("end", [event("DISCONNECT"), OPEN])
def test_accepted_and_ended_in_one_answer(suite, woh, end):
    """The client is accepted, then its connection ends without a close frame."""
    client, req = begin(suite, woh)
    req.accept(end)
    assert client.read_response().status == 101
    with pytest.raises(EOFError):
        client.recv_frame()


def test_upgrade_header_is_removed(suite, woh):
    _, req = begin(suite, woh)
    assert req.header("Upgrade") is None


def test_offered_subprotocols_reach_the_backend_and_its_choice_the_client(suite, woh):
    client, req = begin(suite, woh, headers=[("Sec-WebSocket-Protocol", "v1, v2")])
    assert req.header("Sec-WebSocket-Protocol") == "v1, v2"
    req.accept(headers=[("Sec-WebSocket-Protocol", "v2")])
    resp = client.read_response()
    assert (resp.status, resp.header("Sec-WebSocket-Protocol")) == (101, "v2")


def test_open_event_accepts_the_connection(suite, woh):
    client, req = begin(suite, woh)
    req.reply(OPEN)
    assert client.read_response().status == 101


def test_response_headers_reach_the_client_but_not_those_of_the_protocol(suite, woh):
    client, req = begin(suite, woh)
    req.accept(headers=[("X-Extra", "1"), ("Set-Meta-User", "alice"), ("Keep-Alive-Interval", "30")])
    resp = client.read_response()
    assert resp.header("X-Extra") == "1"
    for name in ("Set-Meta-User", "Keep-Alive-Interval", "Content-Type", "Content-Length", "Sec-WebSocket-Extensions"):
        assert resp.header(name) is None, f"{name} shown to the client"


def test_events_after_open_are_delivered(suite, woh):
    client, req = begin(suite, woh)
    req.accept(text("one"), text("two"))
    assert client.read_response().status == 101
    assert client.recv_text() == "one"
    assert client.recv_text() == "two"


def test_open_followed_by_close(suite, woh):
    client, req = begin(suite, woh)
    req.accept(text("only this"), close(4000, "full"))
    assert client.read_response().status == 101
    assert client.recv_text() == "only this"
    assert client.recv_close() == (4000, "full")


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 500, 503])
def test_other_status_is_passed_to_the_client(suite, woh, status):
    client, req = begin(suite, woh)
    req.reply_with(Response(status, [("Content-Type", "text/plain"), ("X-Why", "because")], f"status {status}\n"))
    resp = client.read_response()
    assert resp.status == status
    assert resp.header("X-Why") == "because"
    assert resp.body == f"status {status}\n".encode()


def test_plain_200_is_passed_to_the_client_as_refusal(suite, woh):
    client, req = begin(suite, woh)
    req.reply_with(Response(200, [("Content-Type", "text/plain")], "not a websocket\n"))
    resp = client.read_response()
    assert (resp.status, resp.body) == (200, b"not a websocket\n")


def test_answer_without_events_is_502(suite, woh):
    client, req = begin(suite, woh)
    req.reply()
    assert client.read_response().status == 502


def test_answer_that_does_not_begin_with_open_is_502(suite, woh):
    client, req = begin(suite, woh)
    req.reply(text("hello"))
    assert client.read_response().status == 502


def test_malformed_events_are_502(suite, woh):
    client, req = begin(suite, woh)
    req.reply(b"OPEN\r\nTEXT zz\r\nhello\r\n")
    assert client.read_response().status == 502


def test_backend_that_is_down_is_502(start_suite, origin):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    suite = start_suite(routes=[f"* 127.0.0.1:{port},over_http"])
    assert WsClient(suite, "/ws").status == 502


def test_next_target_is_tried_when_the_first_is_down(start_suite, origin, woh):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    suite = start_suite(routes=[f"* 127.0.0.1:{port},over_http 127.0.0.1:{{port}},over_http"])
    client, req = begin(suite, woh)
    req.accept()
    assert client.read_response().status == 101


def test_client_messages_wait_until_the_connection_is_open(suite, woh):
    client, req = begin(suite, woh)
    client.send_text("early")
    assert req.http.body == b"OPEN\r\n"
    req.accept()
    assert client.read_response().status == 101
    assert woh.next().events == [("TEXT", b"early")]


def test_plain_http_request_on_the_same_route(suite, woh, origin):
    origin.on("/page", Response(200, [], "page\n"))
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/page").body == b"page\n"
