# SPDX-License-Identifier: AGPL-3.0-or-later
"""The HTTP control port: paths, methods, input checks, exact answers."""

import json
import time

import pytest

from harness.client import Connection
from harness.hold import new_channel, open_stream
from harness.origin import hold_stream


def call(suite, method, target, body=None, headers=()):
    with Connection(suite.publish_port) as c:
        return c.request(method, target, headers, body)


def post(suite, value, path="/publish/", headers=()):
    return call(suite, "POST", path, value if isinstance(value, (bytes, str)) else json.dumps(value), headers)


def item(**kw):
    return {"channel": "c", "formats": {"http-stream": {"content": "x"}}, **kw}


@pytest.mark.parametrize("path", ["/publish", "/publish/"])
def test_publish_path(suite, path):
    resp = post(suite, {"items": [item()]}, path)
    assert (resp.status, resp.reason, resp.header("Content-Type"), resp.body) == (200, "OK", "text/plain", b"Published\n")


def test_answer_is_json_if_asked_for(suite):
    resp = post(suite, {"items": [item()]}, headers=[("Accept", "application/json")])
    assert (resp.status, resp.header("Content-Type")) == (200, "application/json")
    assert json.loads(resp.body) == {"message": "Published"}


@pytest.mark.parametrize("accept", ["text/plain", "text/*", "*/*"])
def test_answer_is_text_if_asked_for(suite, accept):
    assert post(suite, {"items": [item()]}, headers=[("Accept", accept)]).body == b"Published\n"


def test_unacceptable(suite):
    resp = post(suite, {"items": [item()]}, headers=[("Accept", "image/png")])
    assert (resp.status, resp.reason) == (406, "Not Acceptable")
    assert resp.body == b"Not Acceptable. Supported formats are text/plain and application/json.\n"


def test_connection_is_closed_after_each_answer(suite):
    with Connection(suite.publish_port) as c:
        resp = c.request("POST", "/publish/", body=json.dumps({"items": [item()]}))
        assert resp.header("Connection") == "close"
        assert resp.header("Content-Length") == "10"
        assert c.is_closed(2)


def test_http_1_0_request_gets_http_1_0_answer(suite):
    with Connection(suite.publish_port) as c:
        c.send_raw(b"GET / HTTP/1.0\r\n\r\n")
        assert c._until(b"\r\n", time.monotonic() + 3) == b"HTTP/1.0 200 OK"


def test_root_says_what_it_is(suite):
    resp = call(suite, "GET", "/")
    assert (resp.status, resp.header("Content-Type"), resp.body) == (200, "text/plain", b"Pushpin API\n")


@pytest.mark.parametrize("target", ["/nope", "/publish/x", "/Publish", "/publish?x=1", "//publish"])
def test_unknown_path(suite, target):
    resp = call(suite, "POST", target, b"{}")
    assert (resp.status, resp.reason, resp.body) == (404, "Not Found", b"Not Found\n")


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/publish/", "/recover"])
def test_wrong_method(suite, path, method):
    resp = call(suite, method, path)
    assert (resp.status, resp.reason, resp.header("Allow")) == (405, "Method Not Allowed", "POST")
    assert resp.body.decode() == f"Method not allowed: {method}.\n"


def test_recover(suite):
    resp = call(suite, "POST", "/recover/", b"")
    assert (resp.status, resp.body) == (200, b"Updated\n")
    resp = call(suite, "POST", "/recover", b"", [("Accept", "application/json")])
    assert json.loads(resp.body) == {"message": "Updated"}


def test_length_is_required(suite):
    with Connection(suite.publish_port) as c:
        c.send_head("POST", "/publish/")
        resp = c.read_head()
        assert (resp.status, resp.reason, c.read_rest()) == (411, "Length Required", b"Request requires Content-Length.\n")


def test_chunked_body_is_not_supported(suite):
    with Connection(suite.publish_port) as c:
        c.send_head("POST", "/publish/", [("Transfer-Encoding", "chunked")])
        assert c.read_head().status == 411


def test_bad_length(suite):
    with Connection(suite.publish_port) as c:
        c.send_head("POST", "/publish/", [("Content-Length", "many")])
        resp = c.read_head()
        assert (resp.status, c.read_rest()) == (400, b"Bad Content-Length.\n")


def test_body_over_the_limit(suite):
    with Connection(suite.publish_port) as c:
        c.send_head("POST", "/publish/", [("Content-Length", "100000000")])
        resp = c.read_head()
        assert (resp.status, resp.reason, c.read_rest()) == (400, "Bad Request", b"Request body too large.\n")


def test_header_over_the_limit(suite):
    with Connection(suite.publish_port) as c:
        c.send_head("GET", "/", [("X-Big", "a" * 100000)])
        resp = c.read_head()
        assert (resp.status, c.read_rest()) == (400, b"Request header too large.\n")


def test_unparsable_request_line(suite):
    with Connection(suite.publish_port) as c:
        c.send_raw(b"NONSENSE\r\n\r\n")
        resp = c.read_head()
        assert (resp.status, c.read_rest()) == (400, b"Failed to parse request header.\n")


BAD = {
    "not-json": (b"{nope", "Body is not valid JSON."),
    "empty-body": (b"", "Body is not valid JSON."),
    "no-items": (b"{}", "Invalid format: object does not contain 'items'"),
    "items-type": (b'{"items": {}}', "Invalid format: object contains 'items' with wrong type"),
    "item-type": (b'{"items": [1]}', "Invalid format: publish item object is not an object"),
    "no-channel": (b'{"items": [{"formats": {"http-stream": {"content": "x"}}}]}', "Invalid format: publish item object does not contain 'channel'"),
    "channel-type": (b'{"items": [{"channel": 1, "formats": {"http-stream": {"content": "x"}}}]}', "Invalid format: publish item object contains 'channel' with wrong type"),
    "no-formats": (b'{"items": [{"channel": "c"}]}', "Invalid format: no formats specified"),
    "empty-formats": (b'{"items": [{"channel": "c", "formats": {}}]}', "Invalid format: no formats specified"),
    "formats-type": (b'{"items": [{"channel": "c", "formats": 1}]}', "Invalid format: publish item object contains 'formats' with wrong type"),
    "id-type": (b'{"items": [{"channel": "c", "id": 1, "formats": {"http-stream": {"content": "x"}}}]}', "Invalid format: publish item object contains 'id' with wrong type"),
    "meta-type": (b'{"items": [{"channel": "c", "meta": 1, "formats": {"http-stream": {"content": "x"}}}]}', "Invalid format: publish item object contains 'meta' with wrong type"),
    "stream-no-content": (b'{"items": [{"channel": "c", "formats": {"http-stream": {}}}]}', "Invalid format: 'http-stream' does not contain 'content' or 'content-bin'"),
    "response-no-body": (b'{"items": [{"channel": "c", "formats": {"http-response": {}}}]}', "Invalid format: 'http-response' does not contain 'body', 'body-bin', or 'body-patch'"),
    "response-code-range": (b'{"items": [{"channel": "c", "formats": {"http-response": {"code": 1000, "body": "x"}}}]}', "Invalid format: 'http-response' contains 'code' with invalid value"),
    "format-type": (b'{"items": [{"channel": "c", "formats": {"http-stream": "x"}}]}', "Invalid format: 'http-stream' is not an object"),
    "content-type": (b'{"items": [{"channel": "c", "formats": {"http-stream": {"content": 1}}}]}', "Invalid format: 'http-stream' contains 'content' with wrong type"),
}


@pytest.mark.parametrize("body,message", BAD.values(), ids=BAD.keys())
def test_bad_publish_request(suite, body, message):
    resp = post(suite, body)
    assert (resp.status, resp.reason, resp.header("Content-Type")) == (400, "Bad Request", "text/plain")
    assert resp.body.decode() == message + "\n"


def test_body_that_is_a_json_array(suite):
    resp = post(suite, b"[]")
    assert (resp.status, resp.body) == (400, b"Invalid format.\n")


def test_no_items_at_all_is_fine(suite):
    assert post(suite, {"items": []}).status == 200


def test_unknown_members_are_ignored(suite):
    value = item(color="red")
    value["formats"]["smoke-signal"] = {"puffs": 3}
    assert post(suite, {"items": [value], "more": 1}).status == 200


def test_content_type_of_the_request_does_not_matter(suite):
    assert post(suite, {"items": [item()]}, headers=[("Content-Type", "text/weird")]).status == 200


def test_one_bad_item_publishes_nothing(suite, origin):
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        resp = post(suite, {"items": [item(channel=channel), {"channel": channel}]})
        assert (resp.status, resp.body) == (400, b"Invalid format: no formats specified\n")
        assert c.is_silent(0.2)


def test_items_are_published_in_order(suite, origin):
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        items = [{"channel": channel, "formats": {"http-stream": {"content": f"{i},"}}} for i in range(20)]
        assert post(suite, {"items": items}).status == 200
        wanted = "".join(f"{i}," for i in range(20))
        assert c.read_text(wanted) == wanted


def test_request_in_small_pieces(suite):
    body = json.dumps({"items": [item()]}).encode()
    data = b"POST /publish/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with Connection(suite.publish_port) as c:
        for i in range(0, len(data), 10):
            c.send_raw(data[i : i + 10])
        resp = c.read_head()
        assert (resp.status, c.read_rest()) == (200, b"Published\n")


def test_expect_100_continue(suite):
    body = json.dumps({"items": [item()]}).encode()
    with Connection(suite.publish_port) as c:
        c.send_head("POST", "/publish/", [("Content-Length", str(len(body))), ("Expect", "100-continue")])
        assert c._until(b"\r\n\r\n", time.monotonic() + 3) == b"HTTP/1.1 100 Continue"
        c.send_raw(body)
        assert c.read_head().status == 200


def test_many_connections_at_once(suite):
    body = json.dumps({"items": [item()]}).encode()
    conns = [Connection(suite.publish_port) for _ in range(50)]
    for c in conns:
        c.start("POST", "/publish/", (), body)
    for c in conns:
        assert c.read_head().status == 200
        c.close()
