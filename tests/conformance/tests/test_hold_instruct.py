# SPDX-License-Identifier: AGPL-3.0-or-later
"""Holds asked for with an application/grip-instruct body, and instructions that are wrong."""

import base64

import pytest

from harness.client import Connection
from harness.hold import new_channel, instruct, open_poll, open_stream, send_response, send_stream, wait_subscribed
from harness.origin import Response

PLAIN = b"Error while proxying to origin.\n"


@pytest.fixture
def channel():
    return new_channel()


@pytest.fixture(scope="module")
def debug_suite(_origin):
    from harness.suite import Suite

    suite = Suite(routes=[f"*,debug 127.0.0.1:{_origin.port}"]).start()
    yield suite
    suite.stop()


def finish(c):
    resp = c.read_head()
    resp.body = c.read_rest()
    return resp


def stream_instruct(channel, body="hi\n", **hold):
    return {"hold": {"mode": "stream", "channels": [{"name": channel}], **hold}, "response": {"headers": {"Content-Type": "text/plain"}, "body": body}}


def poll_instruct(channel, body="timed out\n", **hold):
    return {"hold": {"mode": "response", "channels": [{"name": channel}], **hold}, "response": {"body": body}}


def test_stream_hold(suite, origin, channel):
    origin.on("/i", instruct(stream_instruct(channel)))
    c, head = open_stream(suite, "/i", channel)
    with c:
        assert (head.status, head.header("Content-Type")) == (200, "text/plain")
        assert c.read_text("hi\n") == "hi\n"
        send_stream(suite, channel, "m\n")
        assert c.read_text("m\n") == "m\n"


def test_response_hold(suite, origin, channel):
    origin.on("/i", instruct(poll_instruct(channel)))
    with open_poll(suite, "/i", channel) as c:
        assert c.is_silent(0.2)
        send_response(suite, channel, "m\n")
        assert finish(c).body == b"m\n"


def test_mode_defaults_to_response(suite, origin, channel):
    origin.on("/i", instruct({"hold": {"channels": [{"name": channel}]}, "response": {"body": "t"}}))
    with open_poll(suite, "/i", channel) as c:
        assert c.is_silent(0.2)
        send_response(suite, channel, "m\n")
        assert finish(c).body == b"m\n"


def test_several_channels(suite, origin):
    a, b = new_channel(), new_channel()
    origin.on("/i", instruct({"hold": {"mode": "stream", "channels": [{"name": a}, {"name": b}]}, "response": {"body": "hi\n"}}))
    c, _ = open_stream(suite, "/i", [a, b])
    with c:
        c.read_text("hi\n")
        send_stream(suite, b, "b\n")
        send_stream(suite, a, "a\n")
        assert c.read_text("b\na\n") == "b\na\n"


def test_code_reason_and_headers_as_object(suite, origin, channel):
    value = stream_instruct(channel)
    value["response"].update(code=202, reason="Fine", headers={"X-A": "1", "Content-Type": "a/b"})
    origin.on("/i", instruct(value))
    c, head = open_stream(suite, "/i", channel)
    with c:
        assert (head.status, head.reason, head.header("X-A"), head.header("Content-Type")) == (202, "Fine", "1", "a/b")


def test_headers_as_list_keep_duplicates(suite, origin, channel):
    value = stream_instruct(channel)
    value["response"]["headers"] = [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"]]
    origin.on("/i", instruct(value))
    c, head = open_stream(suite, "/i", channel)
    with c:
        assert [v for k, v in head.headers if k == "Set-Cookie"] == ["a=1", "b=2"]


def test_code_gets_the_standard_reason(suite, origin, channel):
    value = stream_instruct(channel)
    value["response"]["code"] = 404
    origin.on("/i", instruct(value))
    c, head = open_stream(suite, "/i", channel)
    with c:
        assert (head.status, head.reason) == (404, "Not Found")


def test_binary_body(suite, origin, channel):
    value = stream_instruct(channel)
    del value["response"]["body"]
    value["response"]["body-bin"] = base64.b64encode(b"\x00\xff\xfe!").decode()
    origin.on("/i", instruct(value))
    c, _ = open_stream(suite, "/i", channel)
    with c:
        assert c.read_chunk() == b"\x00\xff\xfe!"


def test_headers_of_the_http_response_itself_are_not_used(suite, origin, channel):
    origin.on("/i", instruct(stream_instruct(channel), [("X-Outer", "1")]))
    c, head = open_stream(suite, "/i", channel)
    with c:
        assert head.header("X-Outer") is None


def test_charset_parameter_is_allowed(suite, origin, channel):
    origin.on("/i", instruct(stream_instruct(channel), content_type="application/grip-instruct; charset=utf-8"))
    c, _ = open_stream(suite, "/i", channel)
    with c:
        assert c.read_text("hi\n") == "hi\n"


def test_timeout(suite, origin, channel):
    origin.on("/i", instruct(poll_instruct(channel, "timed out\n", timeout=5)))
    with open_poll(suite, "/i", channel) as c:
        resp = c.read_head(timeout=8)
        assert (resp.status, c.read_rest()) == (200, b"timed out\n")


def test_keep_alive(suite, origin, channel):
    origin.on("/i", instruct(stream_instruct(channel, **{"keep-alive": {"content": "KA\n", "timeout": 1}})))
    c, _ = open_stream(suite, "/i", channel)
    with c:
        c.read_text("hi\n")
        assert c.read_text("KA\nKA\n") == "KA\nKA\n"


def test_binary_keep_alive(suite, origin, channel):
    origin.on("/i", instruct(stream_instruct(channel, **{"keep-alive": {"content-bin": base64.b64encode(b"\x00\x01").decode(), "timeout": 1}})))
    c, _ = open_stream(suite, "/i", channel)
    with c:
        c.read_text("hi\n")
        assert c.read_chunk() == b"\x00\x01"


def test_no_hold_answers_at_once(suite, origin):
    origin.on("/i", instruct({"response": {"code": 201, "headers": {"X-A": "1"}, "body": "just this\n"}}))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/i")
        assert (resp.status, resp.header("X-A"), resp.body) == (201, "1", b"just this\n")


def test_unicode_body(suite, origin, channel):
    origin.on("/i", instruct(stream_instruct(channel, "h\xe9llo \u4f60\u597d \U0001f600\n")))
    c, _ = open_stream(suite, "/i", channel)
    with c:
        assert c.read_text("h\xe9llo \u4f60\u597d \U0001f600\n") == "h\xe9llo \u4f60\u597d \U0001f600\n"


BAD_JSON = {
    "not-json": (b"{nope", "failed to parse application/grip-instruct content as JSON"),
    "array": (b"[]", "instruct must be an object"),
    "hold-type": (b'{"hold": 1}', "instruct contains 'hold' with wrong type"),
    "mode-unknown": (b'{"hold": {"mode": "x", "channels": []}}', "hold 'mode' must be set to either 'response' or 'stream'"),
    "mode-type": (b'{"hold": {"mode": 1, "channels": []}}', "hold contains 'mode' with wrong type"),
    "no-channels": (b'{"hold": {"mode": "stream"}}', "hold does not contain 'channels'"),
    "channels-type": (b'{"hold": {"mode": "stream", "channels": "x"}}', "hold contains 'channels' with wrong type"),
    "channel-type": (b'{"hold": {"mode": "stream", "channels": ["x"]}}', "channel is not an object"),
    "channel-no-name": (b'{"hold": {"mode": "stream", "channels": [{}]}}', "channel does not contain 'name'"),
    "channel-name-type": (b'{"hold": {"mode": "stream", "channels": [{"name": 1}]}}', "channel contains 'name' with wrong type"),
    "prev-id-type": (b'{"hold": {"mode": "stream", "channels": [{"name": "a", "prev-id": 1}]}}', "channel contains 'prev-id' with wrong type"),
    "timeout-negative": (b'{"hold": {"channels": [], "timeout": -1}}', "hold contains 'timeout' with invalid value"),
    "code-range": (b'{"response": {"code": 1000, "body": "x"}}', "response contains 'code' with invalid value"),
    "header-type": (b'{"response": {"headers": {"X": 1}, "body": "x"}}', "headers contains 'X' with wrong type"),
    "header-pair": (b'{"response": {"headers": [["X"]], "body": "x"}}', "headers contains list with wrong number of elements"),
    "body-type": (b'{"response": {"body": 1}}', "response contains 'body' with wrong type"),
}


@pytest.mark.parametrize("body,message", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_instruct_is_502_and_debug_says_why(suite, debug_suite, origin, body, message):
    origin.on("/i", Response(200, [("Content-Type", "application/grip-instruct")], body))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/i")
        assert (resp.status, resp.header("Content-Type"), resp.body) == (502, "text/plain", PLAIN)
    with Connection(debug_suite.http_port) as c:
        resp = c.request("GET", "/i")
        assert (resp.status, resp.body.decode()) == (502, f"Failed to parse accept instructions: {message}\n")


def test_instruct_needs_status_200(suite, debug_suite, origin, channel):
    origin.on("/i", instruct(stream_instruct(channel), status=201))
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/i").body == PLAIN
    with Connection(debug_suite.http_port) as c:
        assert c.request("GET", "/i").body == b"Failed to parse accept instructions: response code for application/grip-instruct content must be 200\n"


BAD_HEADERS = {
    "hold-unknown": ([("Grip-Hold", "both")], "Grip-Hold must be set to either 'response' or 'stream'"),
    "hold-case": ([("Grip-Hold", "Stream")], "Grip-Hold must be set to either 'response' or 'stream'"),
    "hold-empty": ([("Grip-Hold", "")], "Grip-Hold must be set to either 'response' or 'stream'"),
    "timeout-junk": ([("Grip-Hold", "response"), ("Grip-Timeout", "soon")], "failed to parse Grip-Timeout"),
    "timeout-negative": ([("Grip-Hold", "response"), ("Grip-Timeout", "-1")], "Grip-Timeout has invalid value"),
    "status-junk": ([("Grip-Hold", "stream"), ("Grip-Status", "abc")], "Grip-Status contains invalid status code"),
    "status-range": ([("Grip-Hold", "stream"), ("Grip-Status", "1000")], "Grip-Status contains invalid status code"),
    "keep-alive-mode": ([("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x; mode=never")], "no such Grip-Keep-Alive mode 'never'"),
    "keep-alive-format": ([("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x; format=hex")], "no such Grip-Keep-Alive format 'hex'"),
    "keep-alive-timeout": ([("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x; timeout=y")], "failed to parse Grip-Keep-Alive timeout value"),
    "keep-alive-cstring": ([("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x\\; format=cstring")], "failed to parse Grip-Keep-Alive cstring format"),
    "link-no-brackets": ([("Grip-Hold", "stream"), ("Grip-Link", "/next; rel=next")], "failed to parse Grip-Link value"),
    "link-timeout": ([("Grip-Hold", "stream"), ("Grip-Link", "</next>; rel=next; timeout=x")], "failed to parse Grip-Link timeout value"),
}


@pytest.mark.parametrize("headers,message", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_bad_header_instruct_is_502_and_debug_says_why(suite, debug_suite, origin, channel, headers, message):
    origin.on("/i", Response(200, [("Grip-Channel", channel), *headers], "body\n"))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/i")
        assert (resp.status, resp.header("Content-Type"), resp.body) == (502, "text/plain", PLAIN)
    with Connection(debug_suite.http_port) as c:
        resp = c.request("GET", "/i")
        assert (resp.status, resp.body.decode()) == (502, f"Failed to parse accept instructions: {message}\n")


def test_refused_instruct_leaves_the_connection_usable(suite, origin):
    origin.on("/i", Response(200, [("Grip-Hold", "x")], "body\n"))
    origin.on("/next", Response(200, [], "next"))
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/i").status == 502
        assert c.request("GET", "/next").body == b"next"


def test_instruct_body_over_the_limit_is_502(suite, debug_suite, origin, channel):
    value = stream_instruct(channel, "x" * 200000)
    origin.on("/i", instruct(value))
    with Connection(suite.http_port, timeout=10) as c:
        assert c.request("GET", "/i").body == PLAIN
    with Connection(debug_suite.http_port, timeout=10) as c:
        assert c.request("GET", "/i").body.startswith(b"GRIP instruct response too large")


def test_request_body_over_the_limit_cannot_be_held(suite, origin, channel):
    origin.on("/i", Response(200, [("Grip-Hold", "stream"), ("Grip-Channel", channel)], "hi\n"))
    with Connection(suite.http_port, timeout=10) as c:
        resp = c.request("POST", "/i", body=b"x" * 200000)
        assert (resp.status, resp.body) == (400, b"Request too large to accept GRIP instruct.\n")


def test_request_body_within_the_limit_can_be_held(suite, origin, channel):
    origin.on("/i", Response(200, [("Grip-Hold", "stream"), ("Grip-Channel", channel)], "hi\n"))
    with Connection(suite.http_port, timeout=10) as c:
        c.start("POST", "/i", body=b"x" * 90000)
        assert c.read_head().status == 200
        assert c.read_text("hi\n") == "hi\n"
        wait_subscribed(suite, channel)
