# SPDX-License-Identifier: AGPL-3.0-or-later
"""WebSocket pass-through: the opening handshake, accepted and refused."""

import pytest

from harness.client import Connection
from harness.origin import Response
from harness.ws import TEXT, Accept, WsClient, WsOrigin, accept_key, connect, encode_frame, pair
from harness.wsfixtures import _ws_origin, _ws_suite, ws_origin, ws_suite  # noqa: F401


def test_client_gets_101_with_the_key_answered(ws_suite, ws_origin):
    c = connect(ws_suite, "/chat")
    assert c.response.header("Upgrade").lower() == "websocket"
    assert "upgrade" in c.response.header("Connection").lower()
    assert c.response.header("Sec-WebSocket-Accept") == accept_key(c.key)


def test_key_of_rfc6455_example_is_answered_as_in_the_rfc(ws_suite, ws_origin):
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
               ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    c = WsClient(ws_suite, "/", raw_headers=headers)
    assert c.status == 101
    assert c.response.header("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_origin_sees_path_query_and_host(ws_suite, ws_origin):
    pair(ws_suite, ws_origin, "/a/b?x=1&y=%20", host="chat.example:81")
    req = ws_origin.next_request()
    assert (req.method, req.target) == ("GET", "/a/b?x=1&y=%20")
    assert req.header("Host") == "chat.example:81"


def test_origin_gets_a_valid_handshake(ws_suite, ws_origin):
    _, peer = pair(ws_suite, ws_origin)
    req = peer.request
    assert req.header("Upgrade").lower() == "websocket"
    assert "upgrade" in req.header("Connection").lower()
    assert req.header_values("Sec-WebSocket-Version") == ["13"]
    assert len(req.header_values("Sec-WebSocket-Key")) == 1


def test_request_headers_of_the_client_reach_the_origin(ws_suite, ws_origin):
    _, peer = pair(ws_suite, ws_origin, headers=[("Cookie", "a=b"), ("X-Thing", "one"), ("Origin", "http://app.example")])
    assert peer.request.header("Cookie") == "a=b"
    assert peer.request.header("X-Thing") == "one"
    assert peer.request.header("Origin") == "http://app.example"


def test_response_headers_of_the_origin_reach_the_client(ws_suite, ws_origin):
    ws_origin.answer = lambda req: Accept([("X-Origin", "yes"), ("Set-Cookie", "s=1")])
    c = connect(ws_suite)
    assert c.response.header("X-Origin") == "yes"
    assert c.response.header("Set-Cookie") == "s=1"


def test_offered_subprotocols_reach_the_origin_and_its_choice_the_client(ws_suite, ws_origin):
    ws_origin.answer = lambda req: Accept([("Sec-WebSocket-Protocol", "chat.v2")])
    c, peer = pair(ws_suite, ws_origin, headers=[("Sec-WebSocket-Protocol", "chat.v1, chat.v2")])
    assert peer.request.header("Sec-WebSocket-Protocol") == "chat.v1, chat.v2"
    assert c.response.header("Sec-WebSocket-Protocol") == "chat.v2"


def test_no_subprotocol_is_invented(ws_suite, ws_origin):
    c, peer = pair(ws_suite, ws_origin)
    assert peer.request.header("Sec-WebSocket-Protocol") is None
    assert c.response.header("Sec-WebSocket-Protocol") is None


def test_origin_is_offered_the_grip_extension_instead_of_the_clients(ws_suite, ws_origin):
    c, peer = pair(ws_suite, ws_origin, headers=[("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")])
    assert peer.request.header("Sec-WebSocket-Extensions") == "grip"
    assert c.response.header("Sec-WebSocket-Extensions") is None


def test_handshake_to_the_origin_is_grip_signed(ws_suite, ws_origin):
    _, peer = pair(ws_suite, ws_origin)
    assert peer.request.header("Grip-Sig"), f"no Grip-Sig in {peer.request.headers}"
    assert peer.request.header("Grip-Sig").count(".") == 2


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 500, 503])
def test_refusal_status_and_body_of_the_origin_reach_the_client(ws_suite, ws_origin, status):
    ws_origin.answer = lambda req: Response(status, [("Content-Type", "text/plain")], f"refused {status}\n")
    c = WsClient(ws_suite, "/")
    assert c.status == status
    assert c.response.body == f"refused {status}\n".encode()


def test_refusal_with_empty_body(ws_suite, ws_origin):
    ws_origin.answer = lambda req: Response(403, [], b"")
    c = WsClient(ws_suite, "/")
    assert (c.status, c.response.body) == (403, b"")


def test_missing_route_is_502(start_suite, ws_origin):
    suite = start_suite(routes=[f"only.example 127.0.0.1:{ws_origin.port}"])
    c = WsClient(suite, "/", host="other.example")
    assert c.status == 502
    assert c.response.body, "no explanation"
    assert ws_origin.requests.empty(), "the origin was asked"


def test_origin_that_is_down_is_502(start_suite):
    with WsOrigin() as gone:
        port = gone.port
    suite = start_suite(routes=[f"* 127.0.0.1:{port}"])
    assert WsClient(suite, "/").status == 502


def test_origin_that_hangs_up_during_the_handshake_is_502(ws_suite, ws_origin):
    ws_origin.answer = lambda req: None
    assert WsClient(ws_suite, "/").status == 502


def test_origin_that_answers_garbage_is_502(ws_suite, ws_origin):
    ws_origin.answer = lambda req: b"what?\r\n\r\n"
    assert WsClient(ws_suite, "/").status == 502


def test_next_target_is_tried_when_the_first_is_down(start_suite, ws_origin):
    with WsOrigin() as gone:
        port = gone.port
    suite = start_suite(routes=[f"* 127.0.0.1:{port} 127.0.0.1:{ws_origin.port}"])
    c, peer = pair(suite, ws_origin)
    c.send_text("hi")
    assert peer.recv_text() == "hi"


def test_refusal_is_not_retried_on_the_next_target(start_suite, ws_origin):
    with WsOrigin() as second:
        ws_origin.answer = lambda req: Response(403, [], b"no")
        suite = start_suite(routes=[f"* 127.0.0.1:{ws_origin.port} 127.0.0.1:{second.port}"])
        assert WsClient(suite, "/").status == 403
        assert second.requests.empty(), "the second target was asked too"


def _handshake_without(port, drop, **replace):
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    headers.update(replace)
    headers.pop(drop, None)
    with Connection(port) as c:
        c.send_head("GET", "/", list(headers.items()))
        try:
            return c.read_head().status
        except EOFError:
            return None


def test_missing_key_is_not_accepted(ws_suite, ws_origin):
    assert _handshake_without(ws_suite.http_port, "Sec-WebSocket-Key") in (400, None)
    assert ws_origin.requests.empty(), "the origin was asked"


def test_missing_version_is_not_accepted(ws_suite, ws_origin):
    assert _handshake_without(ws_suite.http_port, "Sec-WebSocket-Version") in (400, 426, None)
    assert ws_origin.requests.empty(), "the origin was asked"


def test_other_version_is_not_accepted(ws_suite, ws_origin):
    assert _handshake_without(ws_suite.http_port, None, **{"Sec-WebSocket-Version": "8"}) in (400, 426, None)
    assert ws_origin.requests.empty(), "the origin was asked"


def test_upgrade_value_is_case_insensitive(ws_suite, ws_origin):
    assert _handshake_without(ws_suite.http_port, None, Upgrade="WebSocket") == 101


def test_connection_header_may_list_more(ws_suite, ws_origin):
    assert _handshake_without(ws_suite.http_port, None, Connection="keep-alive, Upgrade") == 101


def test_plain_request_on_the_same_route_still_works(start_suite, origin, ws_origin):
    origin.on("/plain", Response(200, [], "plain\n"))
    suite = start_suite(routes=[f"*,proto=ws 127.0.0.1:{ws_origin.port}", f"* 127.0.0.1:{origin.port}"])
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/plain").body == b"plain\n"
    client, peer = pair(suite, ws_origin)
    client.send_text("x")
    assert peer.recv_text() == "x"


def test_frames_sent_with_the_handshake_are_not_lost(ws_suite, ws_origin):
    c = WsClient(ws_suite, "/", wait=False)
    c.send_text("early")
    assert c.read_response().status == 101
    assert ws_origin.next_peer().recv_text() == "early"


def test_frames_sent_by_the_origin_with_its_answer_are_not_lost(ws_suite, ws_origin):
    ws_origin.answer = lambda req: Accept(frames=encode_frame(TEXT, b"welcome", mask=False))
    assert connect(ws_suite).recv_text() == "welcome"
