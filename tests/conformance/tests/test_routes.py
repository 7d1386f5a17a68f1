# SPDX-License-Identifier: AGPL-3.0-or-later
"""The routes file: matching, rewriting, per-route options, bad lines, reload."""

import time

import pytest

from harness import publish
from harness.client import Connection
from harness.hold import new_channel, open_stream
from harness.origin import Response, hold_stream


@pytest.fixture(autouse=True)
def _echo_host(origin):
    origin.handler = lambda req: Response(200, [("X-Host", req.header("Host") or ""), ("X-Target", req.target)], "ok")


def get(suite, target="/", host="example.com", headers=()):
    with Connection(suite.http_port) as c:
        return c.request("GET", target, headers, host=host)


def where(suite, target="/", host="example.com", headers=()):
    """The Host that the origin saw (tests mark targets with host=), or the status if it was not reached."""
    resp = get(suite, target, host, headers)
    return resp.header("X-Host") or resp.status


def seen_target(suite, target, **kw):
    return get(suite, target, **kw).header("X-Target")


HOSTS = ["a.test 127.0.0.1:{port},host=one", "b.test 127.0.0.1:{port},host=two", "* 127.0.0.1:{port},host=rest"]


@pytest.mark.parametrize("host,wanted", [("a.test", "one"), ("b.test", "two"), ("c.test", "rest"), ("A.TEST", "one"), ("a.test:8080", "one"), ("x.a.test", "rest"), ("xa.test", "rest")])
def test_route_is_chosen_by_host(start_suite, host, wanted):
    assert where(start_suite(routes=HOSTS), host=host) == wanted


def test_order_of_lines_does_not_matter_for_hosts(start_suite):
    suite = start_suite(routes=list(reversed(HOSTS)))
    assert [where(suite, host=h) for h in ("a.test", "b.test", "c.test")] == ["one", "two", "rest"]


PATHS = ["*,path_beg=/a 127.0.0.1:{port},host=a", "*,path_beg=/a/b 127.0.0.1:{port},host=ab", "* 127.0.0.1:{port},host=rest", "*,path_beg=/A 127.0.0.1:{port},host=upper"]


def test_longest_path_prefix_wins(start_suite):
    suite = start_suite(routes=PATHS)
    got = {t: where(suite, t) for t in ("/", "/a", "/ab", "/a/", "/a/b", "/a/bc?x", "/a/c", "/A", "/b")}
    assert got == {"/": "rest", "/a": "a", "/ab": "a", "/a/": "a", "/a/b": "ab", "/a/bc?x": "ab", "/a/c": "a", "/A": "upper", "/b": "rest"}


def test_longest_path_prefix_wins_whatever_the_order(start_suite):
    suite = start_suite(routes=list(reversed(PATHS)))
    assert [where(suite, t) for t in ("/a/b", "/a", "/b")] == ["ab", "a", "rest"]


def test_path_prefix_with_percent_encoding_matches_the_encoded_path(start_suite):
    suite = start_suite(routes=["*,path_beg=/sp%20 127.0.0.1:{port},host=yes", "* 127.0.0.1:{port},host=no"])
    assert (where(suite, "/sp%20ace"), where(suite, "/space")) == ("yes", "no")


def test_query_is_not_part_of_the_path_match(start_suite):
    suite = start_suite(routes=["*,path_beg=/q?x 127.0.0.1:{port},host=yes", "* 127.0.0.1:{port},host=no"])
    assert where(suite, "/q?x=1") == "no"


def test_host_without_matching_path_does_not_fall_back_to_the_wildcard(start_suite):
    suite = start_suite(routes=["a.test,path_beg=/only 127.0.0.1:{port},host=one", "* 127.0.0.1:{port},host=rest"])
    assert where(suite, "/only/x", "a.test") == "one"
    assert where(suite, "/other", "a.test") == 502
    assert where(suite, "/other", "b.test") == "rest"


def test_proto_http_is_more_specific_than_none(start_suite):
    suite = start_suite(routes=["* 127.0.0.1:{port},host=any", "*,proto=http 127.0.0.1:{port},host=http", "*,proto=ws 127.0.0.1:{port},host=ws"])
    assert where(suite) == "http"


def test_proto_ws_route_does_not_serve_http(start_suite):
    suite = start_suite(routes=["*,proto=ws 127.0.0.1:{port},host=ws"])
    assert where(suite) == 502


SSL = ["*,ssl=yes 127.0.0.1:{port},host=tls", "*,ssl=no 127.0.0.1:{port},host=plain"]


def test_ssl_condition(start_suite):
    suite = start_suite(routes=SSL)
    assert where(suite) == "plain"
    assert where(suite, headers=[("X-Forwarded-Proto", "https")]) == "plain"


@pytest.mark.parametrize("header", ["X-Forwarded-Proto", "X-Forwarded-Protocol"])
def test_ssl_condition_trusts_accepted_forwarded_protocol(start_suite, header):
    suite = start_suite(routes=SSL, proxy={"accept_x_forwarded_protocol": "true"})
    assert where(suite, headers=[(header, "https")]) == "tls"
    assert where(suite, headers=[(header, "http")]) == "plain"
    assert where(suite) == "plain"


def test_ssl_yes_only_route_does_not_serve_plain_http(start_suite):
    assert where(start_suite(routes=["*,ssl=yes 127.0.0.1:{port},host=tls"])) == 502


@pytest.mark.parametrize(
    "condition,sent,wanted",
    [
        ("path_beg=/a/,path_rem=2", "/a/x?q=1", "/x?q=1"),
        ("path_beg=/a/,path_rem=2", "/a/", "/"),
        ("path_beg=/a,replace_beg=/new", "/a/x", "/new/x"),
        ("path_beg=/a/,replace_beg=/new/", "/a/x%20y?q=%2F", "/new/x%20y?q=%2F"),
        ("path_beg=/a/,replace_beg=/", "/a/deep/er", "/deep/er"),
        ("path_beg=/a/,replace_beg=/long/er/", "/a/", "/long/er/"),
    ],
)
def test_path_is_rewritten(start_suite, condition, sent, wanted):
    assert seen_target(start_suite(routes=[f"*,{condition} 127.0.0.1:{{port}}"]), sent) == wanted


def test_target_host_replaces_the_host_header(start_suite):
    assert where(start_suite(routes=["* 127.0.0.1:{port},host=internal.test:99"])) == "internal.test:99"


def test_as_host_replaces_the_host_header(start_suite):
    assert where(start_suite(routes=["*,as_host=public.test:81 127.0.0.1:{port}"])) == "public.test:81"


def test_target_host_beats_as_host(start_suite):
    assert where(start_suite(routes=["*,as_host=public.test 127.0.0.1:{port},host=internal.test"])) == "internal.test"


def test_header_option_adds_or_replaces(start_suite, origin):
    suite = start_suite(routes=['*,header=X-One:1,header="X-Two: a, b" 127.0.0.1:{port}'])
    get(suite, headers=[("X-One", "client"), ("X-One", "again")])
    req = origin.next_request()
    assert (req.header_values("X-One"), req.header_values("X-Two")) == (["1"], ["a, b"])


def test_header_option_can_be_x_forwarded_for(start_suite, origin):
    """It stands in the place of the client's, and the rule is applied to it."""
    suite = start_suite(routes=["*,header=X-Forwarded-For:192.0.2.1 127.0.0.1:{port}"], proxy={"x_forwarded_for": "append"})
    get(suite, headers=[("X-Forwarded-For", "198.51.100.1")])
    assert origin.next_request().header_values("X-Forwarded-For") == ["192.0.2.1, 127.0.0.1"]


def test_header_option_with_empty_value_removes(start_suite, origin):
    suite = start_suite(routes=["*,header=User-Agent: 127.0.0.1:{port}"])
    get(suite, headers=[("User-Agent", "ua/1"), ("X-A", "kept")])
    req = origin.next_request()
    assert (req.header("User-Agent"), req.header("X-A")) == (None, "kept")


def test_no_grip_route_passes_instructions_through(start_suite, origin):
    suite = start_suite(routes=["*,no_grip 127.0.0.1:{port}"])
    origin.on("/s", hold_stream("c", "body\n"))
    resp = get(suite, "/s")
    assert (resp.header("Grip-Hold"), resp.header("Grip-Channel"), resp.body) == ("stream", "c", b"body\n")


def test_prefix_is_prepended_to_channels(start_suite, origin):
    suite = start_suite(routes=["*,prefix=pre- 127.0.0.1:{port}"])
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", f"pre-{channel}")
    with c:
        c.read_text("hi\n")
        publish.stream(suite, channel, "unprefixed\n")
        publish.stream(suite, f"pre-{channel}", "prefixed\n")
        assert c.read_text("prefixed\n") == "prefixed\n"


def test_sub_adds_channels_to_every_hold(start_suite, origin):
    ch = [new_channel() for _ in range(3)]
    suite = start_suite(routes=[f"* 127.0.0.1:{{port}},sub={ch[1]},sub={ch[2]}"])
    origin.on("/s", hold_stream(ch[0], "hi\n"))
    c, _ = open_stream(suite, "/s", ch)
    with c:
        c.read_text("hi\n")
        for name in ch:
            publish.stream(suite, name, f"{name}\n")
            assert c.read_text(f"{name}\n") == f"{name}\n"


def test_sub_is_not_affected_by_prefix(start_suite, origin):
    own, implicit = new_channel(), new_channel()
    suite = start_suite(routes=[f"*,prefix=p- 127.0.0.1:{{port}},sub={implicit}"])
    origin.on("/s", hold_stream(own, "hi\n"))
    c, _ = open_stream(suite, "/s", [f"p-{own}", implicit])
    with c:
        c.read_text("hi\n")
        publish.stream(suite, implicit, "implicit\n")
        assert c.read_text("implicit\n") == "implicit\n"


def test_comments_blank_lines_and_spacing(start_suite):
    suite = start_suite(routes=["# first line", "", "   ", "*,path_beg=/a 127.0.0.1:{port},host=a # trailing", "   *,path_beg=/b     127.0.0.1:{port},host=b  "])
    assert (where(suite, "/a"), where(suite, "/b"), where(suite, "/c")) == ("a", "b", 502)


BAD_LINES = {
    "no-target": "*,path_beg=/x",
    "target-without-port": "*,path_beg=/x 127.0.0.1",
    "port-zero": "*,path_beg=/x 127.0.0.1:0",
    "port-too-large": "*,path_beg=/x 127.0.0.1:70000",
    "empty-path_beg": "*,path_beg= 127.0.0.1:{port}",
    "ssl-maybe": "*,ssl=maybe,path_beg=/x 127.0.0.1:{port}",
    "unknown-proto": "*,proto=ftp,path_beg=/x 127.0.0.1:{port}",
    "open-quote": '*,path_beg="/x 127.0.0.1:{port}',
    "empty-property": "*,path_beg=/x,,debug 127.0.0.1:{port}",
    "header-without-colon": "*,path_beg=/x,header=nocolon 127.0.0.1:{port}",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_bad_line_is_skipped_and_the_rest_works(start_suite, line):
    suite = start_suite(routes=["*,path_beg=/before 127.0.0.1:{port},host=before", line, "*,path_beg=/after 127.0.0.1:{port},host=after"])
    assert (where(suite, "/before"), where(suite, "/after"), where(suite, "/x")) == ("before", "after", 502)


def test_unknown_properties_are_ignored(start_suite):
    assert where(start_suite(routes=["*,future=1 127.0.0.1:{port},host=ok,novel"])) == "ok"


def test_first_of_two_equal_conditions_wins(start_suite):
    assert where(start_suite(routes=["*,path_beg=/x 127.0.0.1:{port},host=first", "*,path_beg=/x 127.0.0.1:{port},host=second"]), "/x") == "first"


def test_routes_file_is_reloaded_when_replaced(start_suite, origin):
    suite = start_suite(routes=["* 127.0.0.1:{port},host=old"])
    assert where(suite) == "old"
    suite.write_routes([f"* 127.0.0.1:{origin.port},host=new"])
    deadline = time.monotonic() + 5
    while where(suite) != "new":
        assert time.monotonic() < deadline, "routes were not reloaded within 5 s"
        time.sleep(0.1)


def test_reload_keeps_held_connections(start_suite, origin):
    suite = start_suite(routes=["* 127.0.0.1:{port},host=old"])
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        suite.write_routes(["other.test 127.0.0.1:9"])
        deadline = time.monotonic() + 5
        while where(suite) != 502:
            assert time.monotonic() < deadline, "routes were not reloaded within 5 s"
            time.sleep(0.1)
        publish.stream(suite, channel, "still here\n")
        assert c.read_text("still here\n") == "still here\n"


def test_pushpin_route_header_selects_a_route_by_id_if_accepted(start_suite, origin):
    routes = ["* 127.0.0.1:{port},host=default", "nowhere.test,id=special 127.0.0.1:{port},host=special"]
    suite = start_suite(routes=routes, proxy={"accept_pushpin_route": "true"})
    assert where(suite) == "default"
    assert where(suite, headers=[("Pushpin-Route", "special")]) == "special"
    assert [r.header("Pushpin-Route") for r in origin.log] == [None, None]


def test_pushpin_route_header_is_ordinary_if_not_accepted(start_suite, origin):
    suite = start_suite(routes=["* 127.0.0.1:{port},host=default", "nowhere.test,id=special 127.0.0.1:{port},host=special"])
    assert where(suite, headers=[("Pushpin-Route", "special")]) == "default"
    assert origin.next_request().header("Pushpin-Route") == "special"


def test_builtin_test_target(start_suite):
    suite = start_suite(routes=["* test"])
    resp = get(suite, "/")
    assert (resp.status, resp.header("Content-Type"), resp.body) == (200, "text/plain", b"Hello from the Pushpin test handler!\n")
    resp = get(suite, "/nothing-here")
    assert (resp.status, resp.body) == (404, b"no such test resource\n")


def test_builtin_test_target_holds(start_suite):
    suite = start_suite(routes=["* test"])
    c, head = open_stream(suite, "/stream", "test")
    with c:
        assert head.header("Content-Type") == "text/plain"
        assert c.read_text("[stream opened]\n") == "[stream opened]\n"
        publish.stream(suite, "test", "hello\n")
        assert c.read_text("hello\n") == "hello\n"
    with Connection(suite.http_port) as c:
        c.start("GET", "/response")
        assert c.is_silent(0.3)
        publish.response(suite, "test", "answer\n")
        assert c.read_head().status == 200
        assert c.read_rest() == b"answer\n"
