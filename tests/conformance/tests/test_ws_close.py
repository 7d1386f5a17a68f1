# SPDX-License-Identifier: AGPL-3.0-or-later
"""WebSocket pass-through: closing handshakes and broken connections."""

import pytest

from harness.versions import skip_on
from harness.ws import CLOSE, TEXT, encode_frame, pair
from harness.wsfixtures import _ws_origin, _ws_suite, ws_origin, ws_suite  # noqa: F401


@pytest.fixture
def ends(ws_suite, ws_origin):
    client, peer = pair(ws_suite, ws_origin)
    yield client, peer
    client.close_socket()


@pytest.mark.parametrize("code, reason", [(1000, ""), (1000, "bye"), (1001, "leaving"), (1008, "policy"), (3000, "lib"), (4999, "app")])
def test_close_by_client_reaches_the_origin(ends, code, reason):
    client, peer = ends
    client.send_close(code, reason)
    assert peer.recv_close() == (code, reason)
    peer.send_close(code, reason)
    assert client.recv_close() == (code, reason)


@pytest.mark.parametrize("code, reason", [(1000, ""), (1000, "done"), (1011, "trouble"), (1012, "restart"), (4000, "app reason")])
def test_close_by_origin_reaches_the_client(ends, code, reason):
    client, peer = ends
    peer.send_close(code, reason)
    assert client.recv_close() == (code, reason)


def test_answer_of_the_client_to_a_close_reaches_the_origin(ends):
    client, peer = ends
    peer.send_close(1000, "done")
    assert client.recv_close() == (1000, "done")
    client.send_close(1000, "done")
    assert peer.recv_close() == (1000, "done")


def test_tcp_is_closed_after_the_closing_handshake(ends):
    client, peer = ends
    client.send_close(1000)
    peer.recv_close()
    peer.send_close(1000)
    client.recv_close()
    assert client.ended(), "the client's connection stays open"
    peer.sock.settimeout(5)
    assert peer.ended(), "the origin's connection stays open"


def test_close_without_status_from_client(ends):
    client, peer = ends
    client.send_close()
    assert peer.recv_close() == (None, "")


def test_messages_before_a_close_are_delivered_first(ends):
    client, peer = ends
    client.send_raw(encode_frame(TEXT, b"one") + encode_frame(TEXT, b"two") + encode_frame(CLOSE, b"\x03\xe8"))
    assert peer.recv_text() == "one"
    assert peer.recv_text() == "two"
    assert peer.recv_close() == (1000, "")


def test_messages_of_the_origin_seen_before_its_close(ends):
    client, peer = ends
    peer.send_text("one")
    assert client.recv_text() == "one"
    peer.send_close(1000)
    assert client.recv_close() == (1000, "")


@skip_on("pushpin-1.36", reason="zurl loses messages that arrive together with a close frame")
def test_messages_of_the_origin_sent_together_with_its_close_are_delivered_first(ends):
    client, peer = ends
    peer.send_raw(b"".join(encode_frame(op, data, mask=False) for op, data in [(TEXT, b"one"), (TEXT, b"two"), (CLOSE, b"\x03\xe8")]))
    assert client.recv_text() == "one"
    assert client.recv_text() == "two"
    assert client.recv_close() == (1000, "")


def test_origin_that_breaks_off_ends_the_client_connection(ends):
    client, peer = ends
    peer.close_socket()
    try:
        frame = client.recv_frame()
    except EOFError:
        return
    assert frame.opcode == CLOSE and frame.close[0] != 1000, f"a broken origin looks like {frame!r}"


def test_client_that_breaks_off_ends_the_origin_connection(ends):
    client, peer = ends
    client.reset()
    try:
        frame = peer.recv_frame()
    except EOFError:
        return
    assert frame.opcode == CLOSE, f"expected the end of the connection, got {frame!r}"


def test_client_that_closes_its_socket_ends_the_origin_connection(ends):
    client, peer = ends
    client.close_socket()
    try:
        frame = peer.recv_frame()
    except EOFError:
        return
    assert frame.opcode == CLOSE, f"expected the end of the connection, got {frame!r}"


def test_new_connection_works_after_a_broken_one(ws_suite, ws_origin, ends):
    client, peer = ends
    peer.reset()
    client.close_socket()
    client, peer = pair(ws_suite, ws_origin)
    client.send_text("again")
    assert peer.recv_text() == "again"
