# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proxying of plain requests and responses: methods, bodies, statuses, streaming."""

import hashlib
import threading

import pytest

from harness.client import Connection
from harness.origin import Response
from harness.rawserver import RawServer
from harness.suite import SUITE


@pytest.fixture
def raw(start_suite):
    """raw(*bytes) -> (suite, server): a suite in front of an origin that answers every request with these bytes."""
    servers = []

    def start(*answer, close=True):
        server = RawServer().answering(*answer, close=close).start()
        servers.append(server)
        return start_suite(routes=[f"* 127.0.0.1:{server.port}"]), server

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "FOO"])
def test_method_reaches_the_origin(suite, origin, method):
    origin.handler = lambda req: Response(200, [], req.method)
    with Connection(suite.http_port) as c:
        resp = c.request(method, "/m")
    assert resp.status == 200
    assert origin.next_request().method == method


@pytest.mark.skipif(SUITE == "pushpin-2.0", reason="hangs on a Content-Length in a HEAD response")
def test_head_has_no_body_and_keeps_content_length(suite, origin):
    origin.on("/h", Response(200, [("Content-Length", "55"), ("X-Of", "head")]))
    with Connection(suite.http_port) as c:
        resp = c.request("HEAD", "/h")
        assert (resp.status, resp.header("Content-Length"), resp.header("X-Of")) == (200, "55", "head")
        # nothing may follow the head: the next response on the connection must parse
        origin.on("/next", Response(200, [], "next"))
        assert c.request("GET", "/next").body == b"next"


@pytest.mark.parametrize("status", [204, 304])
def test_bodiless_status_has_neither_body_nor_chunked_coding(suite, origin, status):
    origin.on("/e", Response(status, [("ETag", '"x"')]))
    origin.on("/next", Response(200, [], "next"))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/e")
        assert (resp.status, resp.header("ETag"), resp.header("Transfer-Encoding")) == (status, '"x"', None)
        assert c.request("GET", "/next").body == b"next"


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299, 301, 302, 307, 400, 401, 403, 404, 409, 410, 418, 429, 500, 501, 503, 599])
def test_status_code_is_passed_on(suite, origin, status):
    origin.on("/s", Response(status, [("X-Same", "1")], f"status {status}"))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/s")
    assert (resp.status, resp.header("X-Same"), resp.body) == (status, "1", f"status {status}".encode())


def test_reason_phrase_is_passed_on(suite, origin):
    origin.on("/r", Response(200, [], "x", reason="Fine Thing"))
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/r").reason == "Fine Thing"


def test_redirect_is_not_followed(suite, origin):
    origin.on("/from", Response(302, [("Location", "/to")], ""))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/from")
    assert (resp.status, resp.header("Location")) == (302, "/to")
    assert [r.path for r in origin.log] == ["/from"]


def test_request_body_with_content_length(suite, origin):
    origin.handler = lambda req: Response(200, [], req.body[::-1])
    with Connection(suite.http_port) as c:
        resp = c.request("POST", "/b", [("Content-Type", "text/x")], b"hello\x00\xff")
    assert resp.body == b"\xff\x00olleh"
    req = origin.next_request()
    assert (req.header("Content-Type"), req.body) == ("text/x", b"hello\x00\xff")


def test_chunked_request_body_is_received_whole(suite, origin):
    origin.handler = lambda req: Response(200, [], req.body)
    with Connection(suite.http_port) as c:
        c.send_head("POST", "/b", [("Transfer-Encoding", "chunked")])
        c.send_raw(b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n")
        resp = c.read_head()
        assert (resp.status, c.read_rest()) == (200, b"abcde")
    assert origin.next_request().body == b"abcde"


def test_chunked_request_trailers_do_not_break_the_connection(suite, origin):
    origin.handler = lambda req: Response(200, [], req.body)
    with Connection(suite.http_port) as c:
        c.send_head("POST", "/b", [("Transfer-Encoding", "chunked")])
        c.send_raw(b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n")
        c.read_head()
        assert c.read_rest() == b"abc"
        assert c.request("POST", "/b", body=b"second").body == b"second"


@pytest.mark.parametrize("headers", [[("Content-Length", "0")], []], ids=["length-zero", "no-length"])
def test_post_without_a_body(suite, origin, headers):
    origin.handler = lambda req: Response(200, [], "ok")
    with Connection(suite.http_port) as c:
        assert c.request("POST", "/b", headers).body == b"ok"
    assert origin.next_request().body == b""


def test_get_with_a_body(suite, origin):
    origin.handler = lambda req: Response(200, [], req.body)
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/b", body=b"odd but legal").body == b"odd but legal"


def test_large_upload_arrives_intact(suite, origin):
    data = bytes(range(256)) * 20480  # 5 MiB
    origin.handler = lambda req: Response(200, [], f"{len(req.body)} {hashlib.sha256(req.body).hexdigest()}")
    with Connection(suite.http_port, timeout=30) as c:
        resp = c.request("POST", "/up", body=data)
    assert resp.body.decode() == f"{len(data)} {hashlib.sha256(data).hexdigest()}"


def test_large_chunked_upload_arrives_intact(suite, origin):
    piece = bytes(range(256)) * 64
    origin.handler = lambda req: Response(200, [], hashlib.sha256(req.body).hexdigest())
    with Connection(suite.http_port, timeout=30) as c:
        c.send_head("POST", "/up", [("Transfer-Encoding", "chunked")])
        for _ in range(100):
            c.send_raw(b"%x\r\n%s\r\n" % (len(piece), piece))
        c.send_raw(b"0\r\n\r\n")
        c.read_head()
        assert c.read_rest().decode() == hashlib.sha256(piece * 100).hexdigest()


def test_large_download_arrives_intact(suite, origin):
    data = bytes(range(256)) * 20480
    origin.on("/down", Response(200, [], data))
    with Connection(suite.http_port, timeout=30) as c:
        resp = c.request("GET", "/down")
    assert len(resp.body) == len(data)
    assert hashlib.sha256(resp.body).digest() == hashlib.sha256(data).digest()


def test_large_streamed_download_arrives_intact(suite, origin):
    piece = bytes(range(256)) * 64

    def stream(write):
        for _ in range(100):
            write(piece)

    origin.on("/down", Response(200, [], stream=stream))
    with Connection(suite.http_port, timeout=30) as c:
        resp = c.request("GET", "/down")
    assert hashlib.sha256(resp.body).digest() == hashlib.sha256(piece * 100).digest()


def test_streamed_response_arrives_as_it_is_produced(suite, origin):
    steps = [threading.Event() for _ in range(3)]

    def stream(write):
        for i, step in enumerate(steps):
            step.wait(10)
            write(f"part {i}\n".encode())

    origin.on("/inc", Response(200, [("Content-Type", "text/plain")], stream=stream))
    with Connection(suite.http_port) as c:
        c.start("GET", "/inc")
        for i, step in enumerate(steps):
            step.set()
            if i == 0:
                assert c.read_head().status == 200
            assert c.read_text(f"part {i}\n") == f"part {i}\n"
        assert c.read_rest() == b""


def test_response_head_arrives_before_the_body_is_complete(raw):
    suite, server = raw()
    go_on = threading.Event()

    def script(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        go_on.wait(10)
        peer.send(b"world")

    server.script = script
    with Connection(suite.http_port) as c:
        c.start("GET", "/")
        assert c.read_head().header("Content-Length") == "10"
        assert c.read_text("hello") == "hello"
        go_on.set()
        assert c.read_text("world") == "world"


def test_response_without_length_is_delimited_by_the_origin_closing(raw):
    suite, _ = raw(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nuntil close")
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/")
    assert (resp.header("X-A"), resp.body) == ("1", b"until close")


def test_http_1_0_origin_is_understood(raw):
    suite, _ = raw(b"HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nold")
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/")
    assert (resp.status, resp.body) == (200, b"old")


@pytest.mark.skipif(SUITE == "pushpin-2.0", reason="hangs on interim responses")
def test_interim_response_from_the_origin_is_not_mistaken_for_the_response(raw):
    suite, _ = raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/")
    assert (resp.status, resp.body) == (201, b"ok")


def test_empty_response_has_content_length_zero(suite, origin):
    origin.on("/e", Response(200, [], ""))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/e")
    assert (resp.header("Content-Length"), resp.body) == ("0", b"")


def test_origin_gets_an_http_1_1_request(raw):
    suite, server = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with Connection(suite.http_port) as c:
        c.request("GET", "/x")
    assert server.heads.get(timeout=5).split(b"\r\n")[0] == b"GET /x HTTP/1.1"


@pytest.mark.parametrize(
    "target",
    ["/", "/plain", "/a%20b", "/a%2Fb", "/%E4%BD%A0", pytest.param("/a/../b/./c", marks=pytest.mark.skipif(SUITE == "pushpin-2.0", reason="resolves dot segments")), "/double//slash", "/a;p=1", "/'()*!~$&,=:@",
     "/?", "/a?", "/?q=a+b%20c&d=%2F", "/x?a=1&a=2&b", "/x?y?z=/a/b", "/trailing/"],
)
def test_target_reaches_the_origin_unchanged(suite, origin, target):
    origin.handler = lambda req: Response(200, [], "ok")
    with Connection(suite.http_port) as c:
        assert c.request("GET", target).status == 200
    assert origin.next_request().target == target


def test_many_requests_one_after_another(suite, origin):
    origin.handler = lambda req: Response(200, [], req.target)
    with Connection(suite.http_port) as c:
        for i in range(200):
            assert c.request("GET", f"/{i}").body.decode() == f"/{i}"


def test_many_requests_at_once(suite, origin):
    origin.handler = lambda req: Response(200, [], req.target)
    conns = [Connection(suite.http_port) for _ in range(100)]
    for i, c in enumerate(conns):
        c.start("GET", f"/{i}")
    for i, c in enumerate(conns):
        c.read_head()
        assert c.read_rest().decode() == f"/{i}"
        c.close()
