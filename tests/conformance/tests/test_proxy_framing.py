# SPDX-License-Identifier: AGPL-3.0-or-later
"""Message framing between client and proxy: persistence, pipelining, HTTP/1.0, 100-continue, hostile requests."""

import time

import pytest

from harness.client import Connection
from harness.origin import Response
from harness.rawserver import RawServer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def _ok(origin):
    origin.handler = lambda req: Response(200, [], f"{req.method} {req.target} {len(req.body)}")


def read_all(c, timeout=5.0):
    """Everything until the peer closes."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if not c._fill(deadline):
                return c.buf
        except TimeoutError:
            raise AssertionError(f"not closed; got {c.buf[:200]!r}") from None


def test_connection_is_reused_by_default(suite):
    with Connection(suite.http_port) as c:
        for i in range(3):
            resp = c.request("GET", f"/{i}")
            assert resp.header("Connection") is None
            assert resp.body == f"GET /{i} 0".encode()


def test_connection_close_is_honoured(suite):
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/", [("Connection", "close")])
        assert resp.header("Connection") == "close"
        assert c.is_closed(2)


def test_http_1_0_closes_after_the_response(suite):
    with Connection(suite.http_port) as c:
        c.send_head("GET", "/", version="HTTP/1.0")
        data = read_all(c)
    assert data.startswith(b"HTTP/1.0 200 OK\r\n") and data.endswith(b"\r\n\r\nGET / 0")


def test_http_1_0_keep_alive(suite):
    with Connection(suite.http_port) as c:
        for i in range(2):
            c.send_head("GET", f"/{i}", [("Connection", "keep-alive")], version="HTTP/1.0")
            resp = c.read_head()
            assert resp.header("Connection").lower() == "keep-alive"
            assert c.read_rest() == f"GET /{i} 0".encode()


def test_http_1_0_without_host(suite, origin):
    with Connection(suite.http_port) as c:
        c.send_raw(b"GET /x HTTP/1.0\r\n\r\n")
        assert b"200" in read_all(c).split(b"\r\n")[0]
    assert origin.next_request().header("Host") == "localhost"


def test_http_1_1_without_host_is_treated_as_localhost(suite, origin):
    with Connection(suite.http_port) as c:
        c.send_raw(b"GET /x HTTP/1.1\r\n\r\n")
        assert c.read_head().status == 200
    assert origin.next_request().header("Host") == "localhost"


def test_http_1_0_client_gets_streamed_body_without_chunked_coding(suite, origin):
    origin.on("/s", Response(200, [], stream=lambda write: [write(b"abc"), write(b"def")]))
    with Connection(suite.http_port) as c:
        c.send_head("GET", "/s", version="HTTP/1.0")
        head, _, body = read_all(c).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"abcdef"


def test_pipelined_requests_are_answered_in_order(suite, origin):
    with Connection(suite.http_port) as c:
        c.send_raw(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(5)))
        for i in range(5):
            assert c.read_head().status == 200
            assert c.read_rest() == f"GET /{i} 0".encode()
    assert [r.target for r in origin.log] == [f"/{i}" for i in range(5)]


def test_pipelined_request_after_a_body(suite, origin):
    with Connection(suite.http_port) as c:
        c.send_raw(b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
        c.read_head()
        assert c.read_rest() == b"POST /1 3"
        c.read_head()
        assert c.read_rest() == b"GET /2 0"


def test_pipelined_request_after_a_chunked_body(suite, origin):
    with Connection(suite.http_port) as c:
        c.send_raw(b"POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
        c.read_head()
        assert c.read_rest() == b"POST /1 3"
        c.read_head()
        assert c.read_rest() == b"GET /2 0"


def test_pipelined_request_after_connection_close_is_ignored(suite, origin):
    with Connection(suite.http_port) as c:
        c.send_raw(b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_all(c).count(b"HTTP/1.1 ") == 1
    assert [r.target for r in origin.log] == ["/1"]


def test_expect_100_continue(suite, origin):
    with Connection(suite.http_port) as c:
        c.send_head("POST", "/e", [("Expect", "100-continue"), ("Content-Length", "3")])
        assert c._until(b"\r\n\r\n", time.monotonic() + 5).startswith(b"HTTP/1.1 100 ")
        c.send_raw(b"abc")
        assert c.read_head().status == 200
        assert c.read_rest() == b"POST /e 3"


def test_expect_100_continue_without_a_body_sends_no_interim_response(suite):
    with Connection(suite.http_port) as c:
        c.send_head("GET", "/e", [("Expect", "100-continue")])
        assert c._until(b"\r\n", time.monotonic() + 5) == b"HTTP/1.1 200 OK"


def test_request_sent_in_tiny_pieces(suite):
    data = b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    with Connection(suite.http_port) as c:
        for i in range(0, len(data), 7):
            c.send_raw(data[i : i + 7])
            time.sleep(0.002)
        c.read_head()
        assert c.read_rest() == b"POST /slow 5"


def test_empty_lines_before_a_request_are_skipped(suite):
    with Connection(suite.http_port) as c:
        c.send_raw(b"\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        c.read_head()
        assert c.read_rest() == b"GET /x 0"


def test_header_of_8000_bytes_is_accepted(suite):
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/", [("X-Big", "a" * 8000)]).status == 200


def test_header_beyond_the_buffer_is_not_proxied(suite, origin):
    with Connection(suite.http_port) as c:
        try:
            c.send_head("GET", "/", [("X-Big", "a" * 9000)])
            data = read_all(c)
        except (BrokenPipeError, ConnectionResetError):
            data = b""
    assert data == b"" or data.split(b" ")[1].startswith(b"4"), data[:100]
    assert origin.no_request(0.2)


def test_client_buffer_size_raises_the_header_limit(start_suite, origin):
    suite = start_suite(runner={"client_buffer_size": 16384})
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/", [("X-Big", "a" * 14000)]).status == 200
    assert len(origin.next_request().header("X-Big")) == 14000


REJECTED = {
    "length-list": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc",
    "length-negative": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: -3\r\n\r\nabc",
    "length-hex": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x3\r\n\r\nabc",
    "length-junk": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3a\r\n\r\nabc",
    "length-overflow": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
    "coding-unknown": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding-name-with-space": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded-header": b"GET /a HTTP/1.1\r\nHost: h\r\nX-A: a\r\n b\r\n\r\n",
    "folded-first-header": b"GET /a HTTP/1.1\r\n Host: h\r\nX-A: a\r\n\r\n",
    "name-with-space": b"GET /a HTTP/1.1\r\nHost : h\r\n\r\n",
    "no-colon": b"GET /a HTTP/1.1\r\nHost: h\r\nNoColon\r\n\r\n",
    "empty-name": b"GET /a HTTP/1.1\r\nHost: h\r\n: v\r\n\r\n",
    "nul-in-value": b"GET /a HTTP/1.1\r\nHost: h\r\nX-A: a\x00b\r\n\r\n",
    "cr-in-value": b"GET /a HTTP/1.1\r\nHost: h\rX-A: 1\r\n\r\n",
    "version-2": b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n",
    "no-version": b"GET /a\r\n\r\n",
    "garbage": b"hello world\r\n\r\n",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("data", REJECTED.values(), ids=REJECTED.keys())
def test_malformed_request_is_refused_and_never_proxied(suite, origin, data):
    with Connection(suite.http_port) as c:
        c.send_raw(data)
        answer = read_all(c, 3)
    assert answer == b"" or answer.split(b" ")[1].startswith(b"4"), answer[:100]
    assert origin.log == []


BAD_CHUNKS = {
    "size-junk": b"zz\r\nabc\r\n0\r\n\r\n",
    "size-negative": b"-3\r\nabc\r\n0\r\n\r\n",
    "size-overflow": b"FFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    "size-0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "data-too-long": b"3\r\nabcd\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_bad_chunk_ends_the_connection_and_smuggles_nothing(suite, origin, body):
    with Connection(suite.http_port) as c:
        c.send_raw(b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"GET /evil HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = read_all(c, 3)
    assert answer == b"" or not answer.split(b" ")[1].startswith(b"2"), answer[:100]
    assert "/evil" not in [r.target for r in origin.log]


SMUGGLING = {
    "length-and-chunked": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-and-length": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two-lengths-short-first": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two-codings": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_ambiguous_framing_never_sends_two_requests_to_the_origin(start_suite, data):
    """Whatever the proxy makes of it, the origin must not see more than one request on a connection for it."""
    heads = []

    def script(peer):
        while True:
            head = peer.read_head()
            if not head:
                return
            heads.append(head)
            peer.read_body(head)
            peer.send(OK)

    with RawServer(script) as server:
        suite = start_suite(routes=[f"* 127.0.0.1:{server.port}"])
        with Connection(suite.http_port) as c:
            c.send_raw(data)
            c.is_silent(0.4)
    assert len(heads) <= 1, heads
    for head in heads:
        lower = head.lower()
        assert not (b"\r\ntransfer-encoding:" in lower and b"\r\ncontent-length:" in lower), head
        assert lower.count(b"\r\ncontent-length:") <= 1, head
