# SPDX-License-Identifier: AGPL-3.0-or-later
"""What clients get when the origin cannot be used."""

import socket
import threading

import pytest

from harness.client import Connection
from harness.origin import Response
from harness.rawserver import RawServer
from harness.suite import SUITE

PLAIN = "Error while proxying to origin.\n"


@pytest.fixture
def dead_port():
    """A port that refuses connections."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield s.getsockname()[1]


def get(suite, target="/", host="example.com"):
    with Connection(suite.http_port, timeout=10) as c:
        return c.request("GET", target, host=host)


def check_502(resp, body):
    assert (resp.status, resp.reason) == (502, "Bad Gateway")
    assert resp.header("Content-Type") == "text/plain"
    assert resp.body.decode() == body


def test_origin_down(start_suite, dead_port):
    check_502(get(start_suite(routes=[f"* 127.0.0.1:{dead_port}"])), PLAIN)


def test_origin_down_with_debug_names_the_target(start_suite, dead_port):
    suite = start_suite(routes=[f"*,debug 127.0.0.1:{dead_port}"])
    check_502(get(suite), f"Unable to connect to any targets. Tried: 127.0.0.1:{dead_port}\n")


def test_origin_down_with_global_debug_names_the_target(start_suite, dead_port):
    suite = start_suite(routes=[f"* 127.0.0.1:{dead_port}"], proxy={"debug": "true"})
    check_502(get(suite), f"Unable to connect to any targets. Tried: 127.0.0.1:{dead_port}\n")


def test_all_origins_down_with_debug_names_all_targets_in_order(start_suite, dead_port):
    suite = start_suite(routes=[f"*,debug 127.0.0.1:{dead_port} 127.0.0.1:1"])
    check_502(get(suite), f"Unable to connect to any targets. Tried: 127.0.0.1:{dead_port}, 127.0.0.1:1\n")


def test_second_target_is_used_when_the_first_is_down(start_suite, origin, dead_port):
    origin.handler = lambda req: Response(200, [], "second")
    suite = start_suite(routes=[f"* 127.0.0.1:{dead_port} 127.0.0.1:{{port}}"])
    for _ in range(3):
        assert get(suite).body == b"second"


def test_request_body_survives_failover(start_suite, origin, dead_port):
    origin.handler = lambda req: Response(200, [], req.body)
    suite = start_suite(routes=[f"* 127.0.0.1:{dead_port} 127.0.0.1:{{port}}"])
    with Connection(suite.http_port) as c:
        assert c.request("POST", "/", body=b"keep me").body == b"keep me"
    assert origin.next_request().method == "POST"


def test_first_target_is_preferred_while_it_is_up(start_suite, origin):
    origin.handler = lambda req: Response(200, [], "first")
    with RawServer().answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond") as other:
        suite = start_suite(routes=[f"* 127.0.0.1:{{port}} 127.0.0.1:{other.port}"])
        for _ in range(4):
            assert get(suite).body == b"first"
        assert other.connections == 0


def test_error_status_of_the_first_target_is_final(start_suite, origin):
    origin.handler = lambda req: Response(503, [], "busy")
    with RawServer().answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond") as other:
        suite = start_suite(routes=[f"* 127.0.0.1:{{port}} 127.0.0.1:{other.port}"])
        assert get(suite).status == 503
        assert other.connections == 0


def test_no_route_is_502_with_plain_text(start_suite):
    suite = start_suite(routes=["only.example 127.0.0.1:{port}"])
    resp = get(suite, host="other.example")
    assert (resp.status, resp.reason, resp.header("Content-Type")) == (502, "Bad Gateway", "text/plain")
    assert resp.body.endswith(b"\n") and b"oute" in resp.body


@pytest.mark.parametrize("debug", ["", ",debug"])
@pytest.mark.parametrize(
    "answer",
    [b"", b"NOT HTTP AT ALL\r\n\r\n", b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
     pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", marks=pytest.mark.skipif(SUITE == "pushpin-2.0", reason="relays the head first"))],
    ids=["closes", "garbage", "bad-status", "bad-chunk"],
)
def test_unusable_answer_of_the_origin_is_502(start_suite, answer, debug):
    with RawServer().answering(answer) as server:
        check_502(get(start_suite(routes=[f"*{debug} 127.0.0.1:{server.port}"])), PLAIN)


def test_error_response_leaves_the_connection_usable(start_suite, origin, dead_port):
    origin.handler = lambda req: Response(200, [], "fine")
    suite = start_suite(routes=[f"*,path_beg=/dead 127.0.0.1:{dead_port}", "* 127.0.0.1:{port}"])
    with Connection(suite.http_port) as c:
        check_502(c.request("GET", "/dead"), PLAIN)
        assert c.request("GET", "/live").body == b"fine"


def test_error_response_to_head_has_no_effect_on_the_next_request(start_suite, origin, dead_port):
    suite = start_suite(routes=[f"* 127.0.0.1:{dead_port}"])
    with Connection(suite.http_port) as c:
        c.start("HEAD", "/")
        assert c.read_head("HEAD").status == 502


def test_body_cut_short_by_the_origin_is_never_completed(start_suite):
    with RawServer().answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc") as server:
        suite = start_suite(routes=[f"* 127.0.0.1:{server.port}"])
        with Connection(suite.http_port) as c:
            c.start("GET", "/")
            head = c.read_head()
            if head.status == 200:
                assert c.read_chunk() == b"abc"
                with pytest.raises((EOFError, TimeoutError)):
                    c.read_chunk(timeout=0.7)
            else:
                head.body = c.read_rest()
                check_502(head, PLAIN)


def test_stream_of_the_origin_ends_when_the_origin_dies(start_suite):
    die = threading.Event()

    def script(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        die.wait(10)

    with RawServer(script) as server:
        suite = start_suite(routes=[f"* 127.0.0.1:{server.port}"])
        with Connection(suite.http_port) as c:
            c.start("GET", "/")
            assert c.read_head().status == 200
            assert c.read_text("first") == "first"
            die.set()
            try:
                assert c.read_chunk(timeout=5) == b""  # an orderly end is what 1.36 gives
            except EOFError:
                pass  # so is a cut connection


def test_origin_connection_is_dropped_when_the_client_leaves(start_suite):
    gone = threading.Event()

    def script(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        if peer.wait_closed(8):
            gone.set()

    with RawServer(script) as server:
        suite = start_suite(routes=[f"* 127.0.0.1:{server.port}"])
        with Connection(suite.http_port) as c:
            c.start("GET", "/")
            c.read_head()
            assert c.read_text("first") == "first"
        assert gone.wait(6), "origin still connected after the client left"


def test_origin_down_then_up_again(start_suite):
    server = RawServer().answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    port = server.port
    server.stop()
    suite = start_suite(routes=[f"* 127.0.0.1:{port}"])
    assert get(suite).status == 502
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1)

        def serve():
            conn, _ = listener.accept()
            conn.recv(65536)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup")
            conn.close()

        threading.Thread(target=serve, daemon=True).start()
        assert get(suite).body == b"up"


def test_websocket_events_from_clients_are_refused(suite, origin):
    with Connection(suite.http_port) as c:
        resp = c.request("POST", "/", [("Content-Type", "application/websocket-events")], b"OPEN\r\n")
    assert (resp.status, resp.body) == (403, b"Client not allowed to send WebSocket events directly.\n")
    assert origin.no_request(0.2)
