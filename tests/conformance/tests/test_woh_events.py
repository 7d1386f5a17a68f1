# SPDX-License-Identifier: AGPL-3.0-or-later
"""WebSocket-over-HTTP: messages in both directions once the connection is open."""

import pytest

from harness.versions import skip_on
from harness.woh import EVENTS, binary, close, event, open_session, text
from harness.ws import BINARY, CONT, PING, PONG, TEXT
from harness.wsfixtures import woh  # noqa: F401


# client -> backend ---------------------------------------------------------------------------
def test_text_message(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("hello")
    req = woh.next()
    assert req.http.method == "POST"
    assert req.http.body == b"TEXT 5\r\nhello\r\n"


def test_length_is_lower_case_hex_of_the_byte_length(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("ä" * 87)
    assert woh.next().http.body.startswith(b"TEXT ae\r\n")


def test_empty_text_message(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("")
    assert woh.next().events == [("TEXT", b"")]


def test_binary_message(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_binary(b"\x00\r\n\xff")
    assert woh.next().http.body == b"BINARY 4\r\n\x00\r\n\xff\r\n"


def test_ping_and_pong(suite, woh):
    client, _ = open_session(suite, woh)
    client.ping(b"pp")
    req = woh.next()
    assert req.events == [("PING", b"pp")]
    req.reply(event("PONG", b"pp"))
    frame = client.recv_frame()
    assert (frame.opcode, frame.payload) == (PONG, b"pp")
    client.send_frame(PONG, b"qq")
    assert woh.next().events == [("PONG", b"qq")]


def test_fragments_are_joined(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_frame(TEXT, "frag", fin=False)
    assert woh.quiet(0.2), "an unfinished message was sent"
    client.send_frame(CONT, "ment")
    assert woh.next().http.body == b"TEXT 8\r\nfragment\r\n"


def test_connection_id_and_headers_repeat_on_every_request(suite, woh):
    client, first = open_session(suite, woh, headers=[("Cookie", "a=b")])
    for i in range(3):
        client.send_text(f"m{i}")
        req = woh.next()
        assert req.cid == first.cid
        assert req.header("Cookie") == "a=b"
        assert req.http.target == first.http.target
        assert req.header("Content-Type") == EVENTS
        assert req.header("Grip-Sig")
        req.reply()


def test_messages_sent_during_a_request_go_together_in_the_next(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("first")
    req = woh.next()
    for i in range(5):
        client.send_text(f"m{i}")
    assert woh.quiet(0.3), "a second request was made while one was open"
    req.reply()
    assert woh.next().events == [("TEXT", f"m{i}".encode()) for i in range(5)]


def test_different_events_keep_their_order_in_one_request(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("first")
    req = woh.next()
    client.send_text("t")
    client.send_binary(b"b")
    client.ping(b"p")
    client.send_text("u")
    assert woh.quiet(0.2)
    req.reply()
    assert woh.next().events == [("TEXT", b"t"), ("BINARY", b"b"), ("PING", b"p"), ("TEXT", b"u")]


def test_no_request_is_made_while_nothing_happens(suite, woh):
    client, _ = open_session(suite, woh)
    assert woh.quiet(0.7)
    client.close_socket()


def test_large_message_of_the_client(suite, woh):
    client, _ = open_session(suite, woh)
    data = bytes(range(256)) * 400
    client.send_binary(data)
    assert woh.next().events == [("BINARY", data)]


def test_one_event_option_sends_one_message_per_request(start_suite, origin, woh):
    suite = start_suite(routes=["* 127.0.0.1:{port},over_http,one_event"])
    client, _ = open_session(suite, woh)
    client.send_text("first")
    req = woh.next()
    client.send_text("second")
    client.send_text("third")
    assert woh.quiet(0.2)
    for expected in (b"first", b"second", b"third"):
        assert req.events == [("TEXT", expected)]
        req.reply()
        if expected != b"third":
            req = woh.next()


# backend -> client ---------------------------------------------------------------------------
def test_events_of_the_response_reach_the_client(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("question")
    woh.next().reply(text("answer"), binary(b"\x01"))
    assert client.recv_message() == (TEXT, b"answer")
    assert client.recv_message() == (BINARY, b"\x01")


def test_empty_response_is_fine(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("a")
    woh.next().reply()
    client.send_text("b")
    assert woh.next().events == [("TEXT", b"b")]


def test_upper_case_hex_length_is_understood(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("a")
    woh.next().reply(b"TEXT A\r\n0123456789\r\n")
    assert client.recv_text() == "0123456789"


def test_text_without_length_is_empty(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("a")
    woh.next().reply(event("TEXT"))
    assert client.recv_message() == (TEXT, b"")


def test_unknown_events_are_skipped(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("a")
    woh.next().reply(event("WHATEVER", b"x"), event("OTHER"), text("after"))
    assert client.recv_text() == "after"


def test_many_events_in_one_response_stay_in_order(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("go")
    woh.next().reply(*(text(f"e{i}") for i in range(100)))
    assert [client.recv_text() for _ in range(100)] == [f"e{i}" for i in range(100)]


def test_event_of_16_kilobytes_of_the_backend(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("go")
    data = bytes(range(256)) * 64
    woh.next().reply(binary(data))
    assert client.recv_message() == (BINARY, data)


@skip_on("pushpin-1.36", reason="an event above 16384 bytes is not delivered to its end")
def test_large_event_of_the_backend(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("go")
    data = bytes(range(256)) * 400
    woh.next().reply(binary(data))
    assert client.recv_message(10) == (BINARY, data)


def test_ping_of_the_backend_reaches_the_client(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("go")
    woh.next().reply(event("PING", b"hey"))
    frame = client.recv_frame()
    assert (frame.opcode, frame.payload) == (PING, b"hey")
    client.send_frame(PONG, b"hey")
    assert woh.next().events == [("PONG", b"hey")]


# meta ----------------------------------------------------------------------------------------
def test_meta_set_at_open_is_sent_with_every_request(suite, woh):
    client, _ = open_session(suite, woh, reply_headers=[("Set-Meta-User", "alice")])
    for i in range(2):
        client.send_text("x")
        req = woh.next()
        assert req.header("Meta-User") == "alice"
        req.reply()


def test_meta_can_be_changed_and_removed_later(suite, woh):
    client, _ = open_session(suite, woh, reply_headers=[("Set-Meta-User", "alice"), ("Set-Meta-Room", "1")])
    client.send_text("x")
    woh.next().reply(headers=[("Set-Meta-User", "bob")])
    client.send_text("x")
    req = woh.next()
    assert (req.header("Meta-User"), req.header("Meta-Room")) == ("bob", "1")
    req.reply(headers=[("Set-Meta-User", "")])
    client.send_text("x")
    req = woh.next()
    assert (req.header("Meta-User"), req.header("Meta-Room")) == (None, "1")


def test_meta_of_one_connection_is_not_sent_for_another(suite, woh):
    other, _ = open_session(suite, woh, reply_headers=[("Set-Meta-User", "alice")])
    client, _ = open_session(suite, woh)
    client.send_text("x")
    assert woh.next().header("Meta-User") is None
    other.close_socket()


# closing -------------------------------------------------------------------------------------
def test_close_by_the_client(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_close(1000, "bye")
    req = woh.next()
    assert req.http.body == b"CLOSE 5\r\n\x03\xe8bye\r\n"
    req.reply(close(1000, "bye"))
    assert client.recv_close() == (1000, "bye")
    assert client.ended()


def test_close_without_status_by_the_client(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_close()
    assert woh.next().http.body == b"CLOSE\r\n"


def test_messages_before_a_close_come_in_the_same_request(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("first")
    req = woh.next()
    client.send_text("last words")
    client.send_close(1000)
    assert woh.quiet(0.2)
    req.reply()
    assert woh.next().events == [("TEXT", b"last words"), ("CLOSE", b"\x03\xe8")]


def test_no_request_follows_a_complete_close(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_close(1000)
    woh.next().reply(close(1000))
    client.recv_close()
    assert woh.quiet(0.4)


def test_close_by_the_backend(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("x")
    woh.next().reply(text("last"), close(4010, "over"))
    assert client.recv_text() == "last"
    assert client.recv_close() == (4010, "over")


def test_events_after_a_close_are_not_delivered(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("x")
    woh.next().reply(close(4010, "over"), text("too late"))
    assert client.recv_close() == (4010, "over")


def test_client_that_breaks_off_is_told_by_disconnect(suite, woh):
    client, first = open_session(suite, woh)
    client.reset()
    req = woh.next_disconnect()
    assert req.http.body == b"DISCONNECT\r\n"
    assert req.cid == first.cid


def test_disconnect_carries_the_meta(suite, woh):
    client, _ = open_session(suite, woh, reply_headers=[("Set-Meta-User", "alice")])
    client.reset()
    assert woh.next_disconnect().header("Meta-User") == "alice"


def test_disconnect_event_of_the_backend_ends_the_connection(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("x")
    woh.next().reply(event("DISCONNECT"))
    assert client.ended(), "the client connection stays open"


@pytest.mark.parametrize("status", [404, 500, 502])
def test_error_status_on_a_later_request_ends_the_connection(suite, woh, status):
    client, _ = open_session(suite, woh)
    client.send_text("x")
    woh.next().reply(status=status)
    assert client.ended(), "the client connection stays open"


def test_other_content_type_on_a_later_request_ends_the_connection(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("x")
    woh.next().reply(content_type="text/plain")
    assert client.ended(), "the client connection stays open"


def test_malformed_events_on_a_later_request_end_the_connection(suite, woh):
    client, _ = open_session(suite, woh)
    client.send_text("x")
    woh.next().reply(b"TEXT nothex\r\nx\r\n")
    assert client.ended(), "the client connection stays open"
