# SPDX-License-Identifier: AGPL-3.0-or-later
"""Automatic cross-origin support: CORS headers and JSON-P wrapping (route option aco, or auto_cross_origin)."""

import json

import pytest

from harness.client import Connection
from harness.hold import new_channel, open_poll, open_stream, send_response, send_stream
from harness.origin import Response, hold_response, hold_stream

METHODS = "OPTIONS, HEAD, GET, POST, PUT, DELETE"


@pytest.fixture(scope="module")
def aco(_origin):
    from harness.suite import Suite

    suite = Suite(routes=[f"*,aco 127.0.0.1:{_origin.port}", f"basic.test,aco,jsonp_mode=basic 127.0.0.1:{_origin.port}",
                          f"custom.test,aco,jsonp_mode=basic,jsonp_cb=jcb,jsonp_body=bp,jsonp_defcb=dcb 127.0.0.1:{_origin.port}",
                          f"defmethod.test,aco,jsonp_defmethod=PUT 127.0.0.1:{_origin.port}"]).start()
    yield suite
    suite.stop()


@pytest.fixture(autouse=True)
def _ok(origin):
    origin.handler = lambda req: Response(200, [("Content-Type", "text/plain"), ("X-Custom", "1")], "ok\n")


def get(suite, target, headers=(), host="example.com", method="GET", body=None):
    with Connection(suite.http_port) as c:
        return c.request(method, target, headers, body, host)


def unwrap(resp, callback="cb"):
    """The JSON value given to the callback of an extended JSON-P response."""
    assert (resp.status, resp.header("Content-Type")) == (200, "application/javascript")
    text = resp.body.decode()
    assert text.startswith(f"/**/{callback}(") and text.endswith(");\n"), text
    return json.loads(text[len(f"/**/{callback}(") : -len(");\n")])


def test_cors_headers_without_an_origin_header(aco):
    resp = get(aco, "/")
    assert resp.header("Access-Control-Allow-Origin") == "*"
    assert resp.header("Access-Control-Allow-Methods") == METHODS
    assert resp.header("Access-Control-Allow-Credentials") == "true"
    assert resp.header("Access-Control-Max-Age") == "3600"
    assert resp.header("Access-Control-Allow-Headers") is None


def test_cors_echoes_the_origin(aco):
    assert get(aco, "/", [("Origin", "http://site.test")]).header("Access-Control-Allow-Origin") == "http://site.test"


def test_cors_exposes_non_simple_response_headers(aco):
    assert get(aco, "/").header("Access-Control-Expose-Headers") == "X-Custom"


def test_cors_answers_the_requested_method_and_headers(aco, origin):
    resp = get(aco, "/", [("Origin", "http://s"), ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "X-A, X-B")], method="OPTIONS")
    assert resp.header("Access-Control-Allow-Methods") == "PUT"
    assert resp.header("Access-Control-Allow-Headers") == "X-A, X-B"
    assert origin.next_request().method == "OPTIONS", "a preflight is still proxied"


def test_cors_request_headers_without_a_value_ask_for_nothing(aco):
    empty = [("Origin", ""), ("Access-Control-Request-Method", ""), ("Access-Control-Request-Headers", " , ")]
    resp = get(aco, "/", empty, method="OPTIONS")
    assert (resp.header("Access-Control-Allow-Origin"), resp.header("Access-Control-Allow-Methods")) == ("*", METHODS)
    assert resp.header("Access-Control-Allow-Headers") is None


def test_cors_allowed_headers_have_no_empty_ones(aco):
    resp = get(aco, "/", [("Access-Control-Request-Headers", "X-A,, X-B ,")], method="OPTIONS")
    assert resp.header("Access-Control-Allow-Headers") == "X-A, X-B"


def test_cors_keeps_what_the_origin_set(aco, origin):
    origin.on("/own", Response(200, [("Access-Control-Allow-Origin", "http://own"), ("Access-Control-Max-Age", "5")], "x"))
    resp = get(aco, "/own", [("Origin", "http://site.test")])
    assert (resp.header("Access-Control-Allow-Origin"), resp.header("Access-Control-Max-Age")) == ("http://own", "5")


def test_no_cors_headers_by_default(suite):
    assert not any(n.startswith("access-control-") for n in get(suite, "/", [("Origin", "http://s")]).names())


def test_callback_parameter_means_nothing_by_default(suite, origin):
    assert get(suite, "/?callback=cb").body == b"ok\n"
    assert origin.next_request().target == "/?callback=cb"


def test_auto_cross_origin_option_enables_it_for_all_routes(start_suite):
    suite = start_suite(proxy={"auto_cross_origin": "true"})
    assert get(suite, "/", [("Origin", "http://s")]).header("Access-Control-Allow-Origin") == "http://s"
    assert unwrap(get(suite, "/?callback=cb"))["body"] == "ok\n"


def test_cors_on_stream_hold(aco, origin):
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n", [("X-Q", "1")]))
    c, head = open_stream(aco, "/s", channel, [("Origin", "http://s")])
    with c:
        assert head.header("Access-Control-Allow-Origin") == "http://s"
        assert head.header("Access-Control-Expose-Headers") == "X-Q"
        c.read_text("hi\n")
        send_stream(aco, channel, "more\n")
        assert c.read_text("more\n") == "more\n"


def test_cors_on_response_hold(aco, origin):
    channel = new_channel()
    origin.on("/p", hold_response(channel, "t\n"))
    with open_poll(aco, "/p", channel, [("Origin", "http://s")]) as c:
        send_response(aco, channel, {"code": 201, "headers": {"X-P": "p"}, "body": "data\n"})
        head = c.read_head()
        assert (head.status, head.header("Access-Control-Allow-Origin"), head.header("Access-Control-Expose-Headers")) == (201, "http://s", "X-P")
        assert c.read_rest() == b"data\n"


def test_jsonp_wraps_status_headers_and_body(aco, origin):
    origin.on("/e", Response(404, [("X-Q", 'a"b')], 'no "such"\n'))
    value = unwrap(get(aco, "/e?callback=cb"))
    assert (value["code"], value["reason"], value["headers"]["X-Q"], value["body"]) == (404, "Not Found", 'a"b', 'no "such"\n')


def test_jsonp_strips_the_callback_parameter(aco, origin):
    get(aco, "/x?a=1&callback=cb&b=2")
    get(aco, "/x?callback=cb")
    assert [r.target for r in origin.log] == ["/x?a=1&b=2", "/x"]


def test_jsonp_callback_with_dots(aco):
    assert unwrap(get(aco, "/?callback=my.cb"), "my.cb")["code"] == 200


def test_jsonp_only_applies_to_get(aco):
    resp = get(aco, "/?callback=cb", method="POST", body=b"x")
    assert resp.body == b"ok\n"


def test_jsonp_method_body_and_headers_parameters(aco, origin):
    unwrap(get(aco, "/y?callback=cb&_method=POST&_body=hello%20w&_headers=%7B%22X-A%22%3A%221%22%2C%22Content-Type%22%3A%22text/a%22%7D"))
    req = origin.next_request()
    assert (req.method, req.target, req.body, req.header("X-A"), req.header("Content-Type")) == ("POST", "/y", b"hello w", "1", "text/a")


@pytest.mark.parametrize("query,text", [("callback=", "Invalid callback parameter."), ("callback=cb&_headers=zz", "Invalid _headers parameter.")])
def test_jsonp_bad_parameters(aco, origin, query, text):
    resp = get(aco, f"/?{query}")
    assert (resp.status, resp.body.decode()) == (400, text + "\n")
    assert origin.log == []


def test_jsonp_basic_mode_passes_the_body_as_the_argument(aco, origin):
    origin.on("/j", Response(200, [("Content-Type", "application/json")], '{"a":1}\n'))
    resp = get(aco, "/j?callback=cb", host="basic.test")
    assert (resp.header("Content-Type"), resp.body) == ("application/javascript", b'/**/cb({"a":1});\n')


def test_jsonp_basic_mode_defaults_to_post(aco, origin):
    get(aco, "/j?callback=cb", host="basic.test")
    assert origin.next_request().method == "POST"


def test_jsonp_extended_mode_defaults_to_get(aco, origin):
    get(aco, "/j?callback=cb")
    assert origin.next_request().method == "GET"


def test_jsonp_default_method_option(aco, origin):
    get(aco, "/j?callback=cb", host="defmethod.test")
    assert origin.next_request().method == "PUT"


def test_jsonp_custom_parameter_names(aco, origin):
    assert get(aco, "/?jcb=zz&bp=%7B%7D", host="custom.test").body == b"/**/zz(ok);\n"
    req = origin.next_request()
    assert (req.target, req.body, req.header("Content-Type")) == ("/", b"{}", "application/json")


def test_jsonp_without_the_body_parameter_has_no_content_type(aco, origin):
    get(aco, "/?jcb=zz", host="custom.test")
    req = origin.next_request()
    assert (req.method, req.body, req.header("Content-Type")) == ("POST", b"", None)


def test_jsonp_parameter_names_may_be_percent_encoded(aco, origin):
    assert unwrap(get(aco, "/x?%63allback=cb&a=1"))["code"] == 200
    assert origin.next_request().target == "/x?a=1"


def test_jsonp_keeps_cache_control(aco, origin):
    origin.on("/c", Response(200, [("Cache-Control", "no-store"), ("Content-Type", "application/json")], "1\n"))
    for host in ("basic.test", "example.com"):
        assert get(aco, "/c?callback=cb", host=host).header("Cache-Control") == "no-store"


def test_jsonp_default_callback_is_used_when_only_a_body_is_given(aco):
    assert get(aco, "/?bp=%7B%7D", host="custom.test").body == b"/**/dcb(ok);\n"


def test_jsonp_on_response_hold(aco, origin):
    channel = new_channel()
    origin.on("/p", hold_response(channel, "t\n"))
    with open_poll(aco, "/p?callback=cb", channel) as c:
        send_response(aco, channel, {"code": 201, "headers": {"X-P": "p"}, "body": "data\n"})
        resp = c.read_head()
        resp.body = c.read_rest()
    value = unwrap(resp)
    assert (value["code"], value["reason"], value["body"], value["headers"]["X-P"]) == (201, "Created", "data\n", "p")


def test_jsonp_on_response_hold_keeps_the_other_headers(aco, origin):
    channel = new_channel()
    origin.on("/p", hold_response(channel, "t\n", [("Cache-Control", "no-cache"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]))
    with open_poll(aco, "/p?callback=cb", channel) as c:
        send_response(aco, channel, {"headers": {"X-P": "p", "Content-Type": "a/b"}, "body": "data\n"})
        resp = c.read_head()
        resp.body = c.read_rest()
    assert (resp.header("Cache-Control"), resp.header("Set-Cookie"), resp.header("X-P")) == ("no-cache", "a=b, c=d", "p")
    assert unwrap(resp)["headers"]["Content-Type"] == "a/b"


def test_jsonp_does_not_apply_to_stream_holds(aco, origin):
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, head = open_stream(aco, "/s?callback=cb", channel, [("Origin", "http://s")])
    with c:
        assert head.header("Access-Control-Allow-Origin") == "http://s"
        assert head.header("Content-Type") == "text/plain"
        assert head.header("Access-Control-Allow-Origin") == "http://s"
        assert c.read_text("hi\n") == "hi\n"
