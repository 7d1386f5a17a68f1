# SPDX-License-Identifier: AGPL-3.0-or-later
"""WebSocket pass-through: data, ping and pong frames in both directions."""

import os

import pytest

from harness.versions import skip_on
from harness.ws import BINARY, CONT, PING, PONG, TEXT, encode_frame, pair
from harness.wsfixtures import _ws_origin, _ws_suite, ws_origin, ws_suite  # noqa: F401


@pytest.fixture
def ends(ws_suite, ws_origin):
    client, peer = pair(ws_suite, ws_origin)
    yield client, peer
    client.close_socket()


def test_text_from_client_to_origin(ends):
    client, peer = ends
    client.send_text("hello")
    assert peer.recv_text() == "hello"


def test_text_from_origin_to_client(ends):
    client, peer = ends
    peer.send_text("hello")
    assert client.recv_text() == "hello"


def test_binary_from_client_to_origin(ends):
    client, peer = ends
    data = bytes(range(256))
    client.send_binary(data)
    assert peer.recv_message() == (BINARY, data)


def test_binary_from_origin_to_client(ends):
    client, peer = ends
    data = bytes(range(256))
    peer.send_binary(data)
    assert client.recv_message() == (BINARY, data)


def test_text_outside_ascii(ends):
    client, peer = ends
    client.send_text("grüße 世界 🚀")
    assert peer.recv_text() == "grüße 世界 🚀"
    peer.send_text("zurück 🚀")
    assert client.recv_text() == "zurück 🚀"


def test_frames_to_the_client_are_not_masked(ends):
    client, peer = ends
    peer.send_text("x")
    assert client.recv_frame().masked is False


def test_frames_to_the_origin_are_masked(ends):
    client, peer = ends
    client.send_text("x")
    assert peer.recv_frame().masked is True


def test_empty_text_both_ways(ends):
    client, peer = ends
    client.send_text("")
    assert peer.recv_message() == (TEXT, b"")
    peer.send_text("")
    assert client.recv_message() == (TEXT, b"")


def test_empty_binary_both_ways(ends):
    client, peer = ends
    client.send_binary(b"")
    assert peer.recv_message() == (BINARY, b"")
    peer.send_binary(b"")
    assert client.recv_message() == (BINARY, b"")


def test_fragmented_text_from_client_is_one_message_at_the_origin(ends):
    client, peer = ends
    client.send_frame(TEXT, "one ", fin=False)
    client.send_frame(CONT, "two ", fin=False)
    client.send_frame(CONT, "three")
    assert peer.recv_message() == (TEXT, b"one two three")


def test_fragmented_binary_from_origin_is_one_message_at_the_client(ends):
    client, peer = ends
    peer.send_frame(BINARY, b"\x00\x01", fin=False)
    peer.send_frame(CONT, b"\x02", fin=False)
    peer.send_frame(CONT, b"\x03")
    assert client.recv_message() == (BINARY, b"\x00\x01\x02\x03")


def test_first_fragment_is_not_held_back(ends):
    client, peer = ends
    client.send_frame(TEXT, "part", fin=False)
    first = peer.recv_frame()
    assert (first.opcode, first.payload, first.fin) == (TEXT, b"part", False)
    client.send_frame(CONT, "rest")
    assert peer.recv_frame().payload == b"rest"


def test_messages_after_a_fragmented_one_keep_their_type(ends):
    client, peer = ends
    client.send_frame(BINARY, b"a", fin=False)
    client.send_frame(CONT, b"b")
    client.send_text("c")
    assert peer.recv_message() == (BINARY, b"ab")
    assert peer.recv_message() == (TEXT, b"c")


@pytest.mark.parametrize("size", [125, 126, 127, 8192, 65535, 65536, 200_000])
def test_message_of_size_from_client(ends, size):
    client, peer = ends
    data = os.urandom(size)
    client.send_binary(data)
    assert peer.recv_message(10) == (BINARY, data)


@pytest.mark.parametrize("size", [125, 126, 127, 8192, 65535, 65536, 200_000])
def test_message_of_size_from_origin(ends, size):
    client, peer = ends
    data = os.urandom(size)
    peer.send_binary(data)
    assert client.recv_message(10) == (BINARY, data)


def test_one_megabyte_message_from_client_in_fragments(ends):
    client, peer = ends
    data, step, got = os.urandom(1_000_000), 50_000, b""
    for at in range(0, len(data), step):
        client.send_frame(BINARY if at == 0 else CONT, data[at : at + step], fin=at + step >= len(data))
        while len(got) < at + step:
            frame = peer.recv_frame()
            assert frame.opcode == (BINARY if not got else CONT)
            got += frame.payload
    assert got == data
    assert frame.fin, "the message does not end"


def test_one_megabyte_message_from_origin_in_fragments(ends):
    client, peer = ends
    data = os.urandom(1_000_000)
    step = 100_000
    for at in range(0, len(data), step):
        peer.send_frame(BINARY if at == 0 else CONT, data[at : at + step], fin=at + step >= len(data))
    assert client.recv_message(20) == (BINARY, data)


@skip_on("pushpin-1.36", reason="stalls now and then when a client sends more than 200 kB ahead of the origin")
def test_one_megabyte_from_client_in_one_frame(ends):
    client, peer = ends
    data = os.urandom(1_000_000)
    client.send_binary(data)
    assert peer.recv_message(20) == (BINARY, data)


@skip_on("pushpin-1.36", reason="zurl refuses frames larger than its buffer of 200 kB")
def test_one_megabyte_from_origin_in_one_frame(ends):
    client, peer = ends
    data = os.urandom(1_000_000)
    peer.send_binary(data)
    assert client.recv_message(20) == (BINARY, data)


def test_many_small_messages_from_client_stay_in_order(ends):
    client, peer = ends
    client.send_raw(b"".join(encode_frame(TEXT, b"m%d" % i) for i in range(1000)))
    assert [peer.recv_text() for _ in range(1000)] == [f"m{i}" for i in range(1000)]


def test_many_small_messages_from_origin_stay_in_order(ends):
    client, peer = ends
    for start in range(0, 1000, 50):
        burst = range(start, start + 50)
        peer.send_raw(b"".join(encode_frame(TEXT, b"m%d" % i, mask=False) for i in burst))
        assert [client.recv_text() for _ in burst] == [f"m{i}" for i in burst]


@skip_on("pushpin-1.36", reason="stalls now and then when an origin sends several hundred messages at once")
def test_burst_of_messages_from_origin_arrives_whole(ends):
    client, peer = ends
    peer.send_raw(b"".join(encode_frame(TEXT, b"m%d" % i, mask=False) for i in range(5000)))
    assert [client.recv_text() for _ in range(5000)] == [f"m{i}" for i in range(5000)]


def test_both_directions_at_once(ends):
    client, peer = ends
    for i in range(200):
        client.send_text(f"c{i}")
        peer.send_text(f"o{i}")
    assert [peer.recv_text() for _ in range(200)] == [f"c{i}" for i in range(200)]
    assert [client.recv_text() for _ in range(200)] == [f"o{i}" for i in range(200)]


def test_connections_do_not_mix(ws_suite, ws_origin):
    ends = [pair(ws_suite, ws_origin, f"/{i}") for i in range(20)]
    for i, (client, peer) in enumerate(ends):
        assert peer.request.target == f"/{i}"
        client.send_text(f"from client {i}")
        peer.send_text(f"from origin {i}")
    for i, (client, peer) in enumerate(ends):
        assert peer.recv_text() == f"from client {i}"
        assert client.recv_text() == f"from origin {i}"


def test_ping_from_client_reaches_the_origin_and_is_not_answered_for_it(ends):
    client, peer = ends
    client.ping(b"")
    assert peer.recv_frame().opcode == PING
    assert client.is_silent(0.3), "the suite answered a ping in the origin's place"


def test_ping_from_origin_reaches_the_client_and_is_not_answered_for_it(ends):
    client, peer = ends
    peer.send_frame(PING)
    assert client.recv_frame().opcode == PING
    assert peer.is_silent(0.3), "the suite answered a ping in the client's place"


def test_pong_passes_in_both_directions(ends):
    client, peer = ends
    client.send_frame(PONG)
    assert peer.recv_frame().opcode == PONG
    peer.send_frame(PONG)
    assert client.recv_frame().opcode == PONG


def test_ping_between_messages_keeps_the_order(ends):
    client, peer = ends
    client.send_text("1")
    client.ping()
    client.send_text("2")
    assert [peer.recv_frame().opcode for _ in range(3)] == [TEXT, PING, TEXT]


def test_unmasked_client_frame_does_not_break_other_connections(ws_suite, ws_origin, ends):
    client, peer = ends
    client.send_frame(TEXT, b"unmasked", mask=False)
    other, other_peer = pair(ws_suite, ws_origin)
    other.send_text("fine")
    assert other_peer.recv_text() == "fine"


def test_unknown_opcode_ends_the_connection(ends):
    client, peer = ends
    client.send_frame(3, b"x")
    try:
        frame = client.recv_frame()
        assert frame.opcode == 8, f"expected a close, got {frame!r}"
    except EOFError:
        pass


def test_control_frame_longer_than_125_bytes_ends_the_connection(ends):
    client, peer = ends
    client.send_frame(PING, b"p" * 126)
    try:
        frame = client.recv_frame()
        assert frame.opcode == 8, f"expected a close, got {frame!r}"
    except EOFError:
        pass


def test_frame_split_over_many_tcp_segments(ends):
    client, peer = ends
    for b in encode_frame(TEXT, b"slow frame"):
        client.send_raw(bytes([b]))
    assert peer.recv_text() == "slow frame"


def test_several_frames_in_one_tcp_segment(ends):
    client, peer = ends
    client.send_raw(encode_frame(TEXT, b"a") + encode_frame(BINARY, b"b") + encode_frame(TEXT, b"c"))
    assert [peer.recv_message() for _ in range(3)] == [(TEXT, b"a"), (BINARY, b"b"), (TEXT, b"c")]
