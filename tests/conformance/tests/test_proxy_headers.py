# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which headers reach the origin and the client, and in what shape."""

import pytest

from harness.versions import REFERENCES, xfail_on
from harness.client import Connection
from harness.origin import Response
from harness.rawserver import RawServer


def ask(suite, headers=(), target="/", host="example.com", method="GET", body=None):
    with Connection(suite.http_port) as c:
        resp = c.request(method, target, headers, body, host)
    assert resp.status == 200, resp
    return resp


@pytest.fixture(autouse=True)
def _ok(origin):
    origin.handler = lambda req: Response(200, [], "ok")


def test_ordinary_headers_are_passed_on(suite, origin):
    ask(suite, [("User-Agent", "ua/1"), ("Cookie", "a=b; c=d"), ("Authorization", "Bearer x"), ("X-Custom", "v"), ("Referer", "http://r/")])
    req = origin.next_request()
    assert [req.header(n) for n in ("User-Agent", "Cookie", "Authorization", "X-Custom", "Referer")] == [
        "ua/1", "a=b; c=d", "Bearer x", "v", "http://r/"]


def test_repeated_request_headers_stay_separate_and_ordered(suite, origin):
    ask(suite, [("X-A", "1"), ("X-B", "b"), ("x-a", "2"), ("X-A", "3")])
    assert origin.next_request().header_values("X-A") == ["1", "2", "3"]


def test_order_of_request_headers_is_kept(suite, origin):
    names = ["X-Z", "X-A", "X-M", "X-B"]
    ask(suite, [(n, "1") for n in names])
    assert [k for k, _ in origin.next_request().headers if k in names] == names


def test_case_of_header_names_is_kept(suite, origin):
    ask(suite, [("x-LOWER-Upper", "v")])
    assert "x-LOWER-Upper" in [k for k, _ in origin.next_request().headers]


def test_non_ascii_header_value_is_passed_on(suite, origin):
    ask(suite, [("X-Latin", "caf\xe9")])
    assert origin.next_request().header("X-Latin") == "caf\xe9"


@pytest.mark.parametrize("name,value", [("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")])
def test_hop_by_hop_request_header_is_not_passed_on(suite, origin, name, value):
    ask(suite, [(name, value)])
    assert origin.next_request().header(name) != value


@xfail_on(*REFERENCES, reason="the reference removes it, and the backend can't read a packed upload")
def test_content_encoding_of_an_upload_is_passed_on(suite, origin):
    ask(suite, [("Content-Encoding", "x-mine")], method="POST", body=b"abc")
    assert origin.next_request().header("Content-Encoding") == "x-mine"


def test_accept_encoding_of_the_client_is_not_passed_on(suite, origin):
    ask(suite, [("Accept-Encoding", "x-unheard-of")])
    assert "x-unheard-of" not in (origin.next_request().header("Accept-Encoding") or "")


def test_expect_is_not_passed_on(suite, origin):
    ask(suite, [("Expect", "100-continue")], method="POST", body=b"abc")
    assert origin.next_request().header("Expect") is None


def test_grip_headers_of_clients_are_removed(suite, origin):
    ask(suite, [("Grip-Foo", "x"), ("Grip-Sig", "forged"), ("Grip-Feature", "forged"), ("grip-last", "c; last-id=1")])
    req = origin.next_request()
    assert req.header("Grip-Foo") is None
    assert req.header("Grip-Last") is None
    assert len(req.header_values("Grip-Sig")) == 1 and req.header("Grip-Sig") != "forged"
    assert len(req.header_values("Grip-Feature")) == 1 and "forged" not in req.header("Grip-Feature")


@pytest.mark.parametrize("host", ["example.com", "example.com:81", "localhost", "127.0.0.1:8000", "a.b.c.d.example.com"])
def test_host_is_passed_on(suite, origin, host):
    ask(suite, host=host)
    req = origin.next_request()
    assert req.header_values("Host") == [host]


def test_no_x_forwarded_for_is_added_by_default(suite, origin):
    ask(suite)
    assert origin.next_request().header("X-Forwarded-For") is None


def test_x_forwarded_for_of_the_client_is_kept_by_default(suite, origin):
    ask(suite, [("X-Forwarded-For", "1.1.1.1, 2.2.2.2")])
    assert origin.next_request().header("X-Forwarded-For") == "1.1.1.1, 2.2.2.2"


@pytest.mark.parametrize(
    "rule,sent,wanted",
    [
        ("append", [], "127.0.0.1"),
        ("append", ["1.1.1.1, 2.2.2.2", "3.3.3.3"], "1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1"),
        ("truncate:0", ["1.1.1.1"], None),
        ("truncate:0,append", ["1.1.1.1", "2.2.2.2"], "127.0.0.1"),
        ("truncate:1", ["1.1.1.1, 2.2.2.2", "3.3.3.3"], "3.3.3.3"),
        ("truncate:2,append", ["1.1.1.1, 2.2.2.2, 3.3.3.3"], "2.2.2.2, 3.3.3.3, 127.0.0.1"),
    ],
)
def test_x_forwarded_for_rule(start_suite, origin, rule, sent, wanted):
    suite = start_suite(proxy={"x_forwarded_for": rule})
    ask(suite, [("X-Forwarded-For", v) for v in sent])
    assert origin.next_request().header("X-Forwarded-For") == wanted


def test_x_forwarded_proto_is_removed_for_plain_http_when_set_by_the_proxy(start_suite, origin):
    suite = start_suite(proxy={"set_x_forwarded_protocol": "proto-only"})
    ask(suite, [("X-Forwarded-Proto", "https"), ("X-Forwarded-Protocol", "https")])
    req = origin.next_request()
    assert (req.header("X-Forwarded-Proto"), req.header("X-Forwarded-Protocol")) == (None, None)


def test_x_forwarded_proto_is_kept_when_neither_set_nor_accepted(start_suite, origin):
    suite = start_suite(proxy={"set_x_forwarded_protocol": "false", "accept_x_forwarded_protocol": "false"})
    ask(suite, [("X-Forwarded-Proto", "https")])
    assert origin.next_request().header("X-Forwarded-Proto") == "https"


def test_accepted_x_forwarded_proto_is_asserted_to_the_origin(start_suite, origin):
    suite = start_suite(proxy={"set_x_forwarded_protocol": "proto-only", "accept_x_forwarded_protocol": "true"})
    ask(suite, [("X-Forwarded-Proto", "https")])
    req = origin.next_request()
    assert (req.header("X-Forwarded-Proto"), req.header("X-Forwarded-Protocol")) == ("https", None)


def test_set_x_forwarded_protocol_true_sends_both_headers(start_suite, origin):
    suite = start_suite(proxy={"set_x_forwarded_protocol": "true", "accept_x_forwarded_protocol": "true"})
    ask(suite, [("X-Forwarded-Proto", "https")])
    req = origin.next_request()
    assert (req.header("X-Forwarded-Proto"), req.header("X-Forwarded-Protocol")) == ("https", "https")


def test_grip_feature_lists_the_common_features(suite, origin):
    ask(suite)
    features = [f.strip() for f in origin.next_request().header("Grip-Feature").split(",")]
    assert {"status", "session", "link:next", "filter:skip-self", "filter:skip-users", "filter:require-sub",
            "filter:build-id", "filter:var-subst"} <= set(features)


def test_ordinary_response_headers_are_passed_on(suite, origin):
    origin.on("/r", Response(200, [("Date", "Mon, 01 Jan 2024 00:00:00 GMT"), ("Server", "sv"), ("ETag", "x"), ("Cache-Control", "no-store"), ("Via", "v")], "x"))
    resp = ask(suite, target="/r")
    assert [resp.header(n) for n in ("Date", "Server", "ETag", "Cache-Control", "Via")] == [
        "Mon, 01 Jan 2024 00:00:00 GMT", "sv", "x", "no-store", "v"]


def test_repeated_response_headers_stay_separate_and_ordered(suite, origin):
    origin.on("/r", Response(200, [("Set-Cookie", "a=1"), ("X-B", "b"), ("Set-Cookie", "b=2, c"), ("set-cookie", "c=3")], "x"))
    resp = ask(suite, target="/r")
    assert [v for k, v in resp.headers if k.lower() == "set-cookie"] == ["a=1", "b=2, c", "c=3"]


def test_order_and_case_of_response_headers_are_kept(suite, origin):
    names = ["X-Zed", "x-a", "X-MIDDLE", "X-b"]
    origin.on("/r", Response(200, [(n, "1") for n in names], "x"))
    assert [k for k, _ in ask(suite, target="/r").headers if k in names] == names


@pytest.mark.parametrize("name,value", [("Connection", "X-Foo"), ("Keep-Alive", "timeout=4")])
def test_hop_by_hop_response_header_is_not_passed_on(suite, origin, name, value):
    origin.on("/r", Response(200, [(name, value), ("X-A", "1")], "x"))
    resp = ask(suite, target="/r")
    assert resp.header(name) != value
    assert resp.header("X-A") == "1"


def test_proxy_adds_no_date_or_server(suite, origin):
    resp = ask(suite)
    assert resp.names() == {"content-length"}


def test_response_with_grip_headers_but_no_hold_loses_only_those(suite, origin):
    origin.on("/r", Response(200, [("Grip-Channel", "c"), ("Grip-Foo", "x"), ("X-A", "1"), ("Content-Type", "text/x")], "body\n"))
    resp = ask(suite, target="/r")
    assert not any(n.startswith("grip-") for n in resp.names())
    assert (resp.header("X-A"), resp.header("Content-Type"), resp.body) == ("1", "text/x", b"body\n")


def test_target_marked_no_grip_gets_no_grip_headers(start_suite, origin):
    suite = start_suite(routes=["*,no_grip 127.0.0.1:{port}"])
    ask(suite)
    req = origin.next_request()
    assert [k for k, _ in req.headers if k.lower().startswith("grip-")] == []


def test_exactly_one_host_and_one_length_reach_the_origin(start_suite):
    with RawServer().answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as server:
        suite = start_suite(routes=[f"* 127.0.0.1:{server.port}"])
        ask(suite, method="POST", body=b"abc")
        head = server.heads.get(timeout=5).lower()
        assert server.bodies.get(timeout=5) == b"abc"
    assert head.count(b"\r\nhost:") == 1
    assert head.count(b"\r\ncontent-length:") + head.count(b"\r\ntransfer-encoding:") == 1
