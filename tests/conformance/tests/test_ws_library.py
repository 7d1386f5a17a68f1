# SPDX-License-Identifier: AGPL-3.0-or-later
"""WebSocket pass-through between the `websockets` package as client and as origin."""

import os
import threading
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from harness.suite import Suite


def _origin(ws):
    path = ws.request.path
    if path == "/echo":
        for message in ws:
            ws.send(message)
    elif path == "/close":
        ws.close(4100, "told you")
    elif path == "/greet":
        for i in range(50):
            ws.send(f"greeting {i}")
        ws.recv()


def _refuse(ws, request):
    if request.path == "/refuse":
        return ws.respond(403, "go away\n")
    return None


def _choose(ws, offered):
    return next((p for p in ("v2", "v1") if p in offered), None)


@pytest.fixture(scope="module")
def url():
    server = serve(_origin, "127.0.0.1", 0, process_request=_refuse, select_subprotocol=_choose, compression=None, max_size=2**22)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    suite = Suite([f"* 127.0.0.1:{server.socket.getsockname()[1]}"]).start()
    yield f"ws://127.0.0.1:{suite.http_port}"
    suite.stop()
    server.shutdown()


def test_echo_text_and_binary(url):
    with connect(url + "/echo") as ws:
        ws.send("hello")
        assert ws.recv(5) == "hello"
        ws.send(b"\x00\x01")
        assert ws.recv(5) == b"\x00\x01"


def test_echo_100_kilobytes(url):
    data = os.urandom(100_000)
    with connect(url + "/echo", max_size=None) as ws:
        ws.send(data)
        assert ws.recv(10) == data


def test_echo_of_fragments(url):
    with connect(url + "/echo") as ws:
        ws.send(["one ", "two ", "three"])
        assert ws.recv(5) == "one two three"


def test_subprotocol_is_negotiated_with_the_origin(url):
    with connect(url + "/echo", subprotocols=["v1", "v2"]) as ws:
        assert ws.subprotocol == "v2"


def test_compression_offer_of_the_client_does_no_harm(url):
    with connect(url + "/echo", compression="deflate") as ws:
        ws.send("x" * 1000)
        assert ws.recv(5) == "x" * 1000


def test_refusal_is_an_http_response(url):
    with pytest.raises(InvalidStatus) as e:
        with connect(url + "/refuse"):
            pass
    assert e.value.response.status_code == 403
    assert e.value.response.body == b"go away\n"


def test_close_code_and_reason_of_the_origin(url):
    with connect(url + "/close") as ws:
        with pytest.raises(ConnectionClosed) as e:
            ws.recv(5)
    assert (e.value.rcvd.code, e.value.rcvd.reason) == (4100, "told you")


def test_clean_close_by_the_client(url):
    with connect(url + "/echo") as ws:
        ws.close(4200, "finished")
        assert ws.close_code == 4200, f"not closed cleanly: {ws.close_code}"


def test_ping_is_answered_by_the_origin(url):
    with connect(url + "/echo", ping_interval=None) as ws:
        assert ws.ping(b"").wait(5), "no pong"


def test_messages_sent_by_the_origin_right_after_the_handshake(url):
    with connect(url + "/greet") as ws:
        assert [ws.recv(5) for _ in range(50)] == [f"greeting {i}" for i in range(50)]


def test_twenty_clients_at_once(url):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(url + "/echo")) for _ in range(20)]
        for i, ws in enumerate(clients):
            ws.send(f"client {i}")
        assert [ws.recv(5) for ws in clients] == [f"client {i}" for i in range(20)]
