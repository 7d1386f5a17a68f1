# SPDX-License-Identifier: AGPL-3.0-or-later
"""Channel filters and the metadata they look at."""

import pytest

from harness.client import Connection
from harness.hold import instruct, new_channel, open_poll, open_stream, publish_item, send_stream
from harness.origin import hold_response, hold_stream


@pytest.fixture
def channel():
    return new_channel()


def stream(suite, origin, channel, *filters, meta="", extra=()):
    value = "; ".join([channel, *(f"filter={f}" for f in filters)])
    headers = list(extra)
    if meta:
        headers.append(("Grip-Set-Meta", meta))
    origin.on("/s", hold_stream(value, "hi\n", headers))
    c, _ = open_stream(suite, "/s", channel)
    c.read_text("hi\n")
    return c


def test_skip_self_drops_what_the_user_sent(suite, origin, channel):
    with stream(suite, origin, channel, "skip-self", meta="user=alice") as c:
        send_stream(suite, channel, "own;", meta={"sender": "alice"})
        send_stream(suite, channel, "other;", meta={"sender": "bob"})
        send_stream(suite, channel, "nobody;")
        assert c.read_text("other;nobody;") == "other;nobody;"


def test_skip_self_needs_the_filter(suite, origin, channel):
    with stream(suite, origin, channel, meta="user=alice") as c:
        send_stream(suite, channel, "own;", meta={"sender": "alice"})
        assert c.read_text("own;") == "own;"


def test_skip_self_without_user_drops_nothing(suite, origin, channel):
    with stream(suite, origin, channel, "skip-self") as c:
        send_stream(suite, channel, "m;", meta={"sender": "alice"})
        assert c.read_text("m;") == "m;"


def test_skip_users_drops_for_listed_users(suite, origin, channel):
    with stream(suite, origin, channel, "skip-users", meta="user=bob") as c:
        send_stream(suite, channel, "1;", meta={"skip_users": "alice, bob ,carol"})
        send_stream(suite, channel, "2;", meta={"skip_users": "alice,carol"})
        send_stream(suite, channel, "3;")
        assert c.read_text("2;3;") == "2;3;"


def test_require_sub_drops_unless_subscribed(suite, origin, channel):
    other = new_channel()
    origin.on("/s", hold_stream(f"{channel}; filter=require-sub, {other}", "hi\n"))
    c, _ = open_stream(suite, "/s", [channel, other])
    with c:
        c.read_text("hi\n")
        send_stream(suite, channel, "1;", meta={"require_sub": "something else"})
        send_stream(suite, channel, "2;", meta={"require_sub": other})
        send_stream(suite, channel, "3;")
        assert c.read_text("2;3;") == "2;3;"


def test_var_subst_replaces_names_by_meta(suite, origin, channel):
    with stream(suite, origin, channel, "var-subst", meta="user=alice, color=blue") as c:
        send_stream(suite, channel, "<%(user)s likes %(color)s, 100%%>")
        assert c.read_text("<alice likes blue, 100%>") == "<alice likes blue, 100%>"


def test_no_substitution_without_the_filter(suite, origin, channel):
    with stream(suite, origin, channel, meta="user=alice") as c:
        send_stream(suite, channel, "%(user)s 100%%")
        assert c.read_text("%(user)s 100%%") == "%(user)s 100%%"


def test_var_subst_differs_per_client(suite, origin, channel):
    origin.on("/s", lambda req: hold_stream(f"{channel}; filter=var-subst", "hi\n", [("Grip-Set-Meta", f"user={req.header('X-User')}")]))
    conns = []
    for user in ("alice", "bob"):
        c, _ = open_stream(suite, "/s", channel, [("X-User", user)])
        c.read_text("hi\n")
        conns.append(c)
    send_stream(suite, channel, "for %(user)s;")
    for c, user in zip(conns, ("alice", "bob")):
        assert c.read_text(f"for {user};") == f"for {user};"
        c.close()


def test_several_filters_apply_together(suite, origin, channel):
    with stream(suite, origin, channel, "skip-self", "var-subst", meta="user=alice") as c:
        send_stream(suite, channel, "own %(user)s;", meta={"sender": "alice"})
        send_stream(suite, channel, "to %(user)s;", meta={"sender": "bob"})
        assert c.read_text("to alice;") == "to alice;"


def test_unknown_filters_are_ignored(suite, origin, channel):
    with stream(suite, origin, channel, "from-the-future") as c:
        send_stream(suite, channel, "m;")
        assert c.read_text("m;") == "m;"


def test_filter_belongs_to_its_channel_only(suite, origin, channel):
    other = new_channel()
    origin.on("/s", hold_stream(f"{channel}; filter=skip-self, {other}", "hi\n", [("Grip-Set-Meta", "user=alice")]))
    c, _ = open_stream(suite, "/s", [channel, other])
    with c:
        c.read_text("hi\n")
        send_stream(suite, channel, "dropped;", meta={"sender": "alice"})
        send_stream(suite, other, "kept;", meta={"sender": "alice"})
        assert c.read_text("kept;") == "kept;"


def test_filters_on_a_response_hold(suite, origin, channel):
    origin.on("/p", hold_response(f"{channel}; filter=skip-self", "t\n", [("Grip-Set-Meta", "user=alice")]))
    with open_poll(suite, "/p", channel) as c:
        publish_item(suite, channel, {"http-response": {"body": "own"}}, meta={"sender": "alice"})
        assert c.is_silent(0.2)
        publish_item(suite, channel, {"http-response": {"body": "other"}}, meta={"sender": "bob"})
        c.read_head()
        assert c.read_rest() == b"other"


def test_filters_and_meta_in_a_json_instruct(suite, origin, channel):
    origin.on("/s", instruct({"hold": {"mode": "stream", "channels": [{"name": channel, "filters": ["skip-self"]}], "meta": {"user": "alice"}}, "response": {"body": "hi\n"}}))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send_stream(suite, channel, "own;", meta={"sender": "alice"})
        send_stream(suite, channel, "other;", meta={"sender": "bob"})
        assert c.read_text("other;") == "other;"


def test_content_filters_that_match_those_of_the_channel(suite, origin, channel):
    with stream(suite, origin, channel, "var-subst", meta="user=alice") as c:
        publish_item(suite, channel, {"http-stream": {"content": "2 %(user)s;", "content-filters": ["var-subst"]}})
        assert c.read_text("2 alice;") == "2 alice;"


@pytest.mark.parametrize("listed", [["build-id"], [], ["var-subst", "build-id"]])
def test_message_with_other_content_filters_is_not_delivered(suite, origin, channel, listed):
    """1.36 ends the stream on a mismatch, 2.0 drops the message; in no case is the content sent."""
    with stream(suite, origin, channel, "var-subst", meta="user=alice") as c:
        publish_item(suite, channel, {"http-stream": {"content": "wrong %(user)s;", "content-filters": listed}})
        try:
            assert c.read_chunk(timeout=0.3) == b""
        except TimeoutError:
            pass


def test_debug_route_ends_a_stream_and_says_what_a_filter_has_against_a_message(start_suite, origin, channel):
    suite = start_suite(routes=["*,debug 127.0.0.1:{port}"])
    with stream(suite, origin, channel, "var-subst", meta="user=alice") as c:
        send_stream(suite, channel, "1 %(user)s;")
        assert c.read_text("1 alice;") == "1 alice;"
        publish_item(suite, channel, {"http-stream": {"content": "x", "content-filters": ["build-id"]}})
        assert c.read_rest() == b"\n\ncontent filter mismatch: subscription=var-subst message=build-id\n"
    with stream(suite, origin, channel, "var-subst", meta="user=alice") as c:
        send_stream(suite, channel, "2 %(nobody)s;")
        assert c.read_rest() == b"\n\nfilter error: var-subst: No such variable 'nobody' at position 11\n"


def test_build_id_in_the_initial_response_and_messages(suite, origin, channel):
    origin.on("/s", hold_stream(f"{channel}; prev-id=7; filter=build-id", "%(7)I\n", [("Grip-Set-Meta", f'id_format="<%({channel})s>"'), ("Grip-Link", "</s>; rel=next")]))
    with Connection(suite.http_port) as c:
        c.start("GET", "/s")
        c.read_head()
        assert c.read_text("7\n") == "7\n"
