# SPDX-License-Identifier: AGPL-3.0-or-later
"""The command socket: a ZeroMQ request/reply service."""

import uuid

import pytest
import zmq

from harness import publish, tnetstring
from harness.hold import new_channel, open_poll, open_stream
from harness.origin import hold_response, hold_stream
from harness.publish import command
from harness.versions import skip_on
from harness.woh import open_session
from harness.wsfixtures import woh  # noqa: F401


def raw(suite, *frames, timeout=5.0):
    """Send frames on a DEALER socket, return the reply's frames or None."""
    s = zmq.Context.instance().socket(zmq.DEALER)
    s.linger = 0
    try:
        s.connect(suite.command_spec)
        s.send_multipart(list(frames))
        return s.recv_multipart() if s.poll(int(timeout * 1000)) else None
    finally:
        s.close()


def test_unknown_method(suite):
    resp = command(suite, "no-such-thing")
    assert resp["success"] is False
    assert resp["condition"] == b"method-not-found"


def test_id_is_echoed(suite):
    reply = raw(suite, b"", tnetstring.dumps({"id": "abc-1", "method": "recover"}))
    assert tnetstring.loads(reply[-1])["id"] == b"abc-1"


def test_request_without_id_is_answered(suite):
    reply = raw(suite, b"", tnetstring.dumps({"method": "recover"}))
    assert reply is not None, "no answer"
    assert tnetstring.loads(reply[-1])["success"] is True


def test_reply_is_a_plain_tnetstring_after_an_empty_frame(suite):
    reply = raw(suite, b"", tnetstring.dumps({"id": "1", "method": "recover"}))
    assert len(reply) == 2 and reply[0] == b"", reply
    assert isinstance(tnetstring.loads(reply[1]), dict)


def test_get_zmq_uris(suite):
    resp = command(suite, "get-zmq-uris")
    assert resp["success"] is True
    value = {k: v.decode() for k, v in resp["value"].items()}
    assert value["publish-pull"] == suite.pull_spec
    assert value["publish-sub"] == suite.sub_spec
    assert value["command"] == suite.command_spec


def test_recover_succeeds_without_value(suite):
    resp = command(suite, "recover")
    assert resp["success"] is True
    assert resp["value"] is None


def test_recover_asks_the_backend_again_for_held_polls(suite, origin):
    channel = new_channel()
    origin.on("/poll", hold_response(channel))
    c = open_poll(suite, "/poll", channel)
    origin.next_request()
    # the first subscription of a channel makes one request of its own after about a second
    origin.next_request(3)
    for _ in range(10):
        command(suite, "recover")
        if not origin.no_request(0.5):
            break
    else:
        raise AssertionError("recover does not lead to a request")
    c.close()


def test_recover_leaves_streams_open(suite, origin):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    assert c.read_text("hi\n") == "hi\n"
    command(suite, "recover")
    publish.stream(suite, channel, "after\n")
    assert c.read_text("after\n") == "after\n"


def test_publish_delivers(suite, origin):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    c.read_text("hi\n")
    resp = command(suite, "publish", {"items": [{"channel": channel, "formats": {"http-stream": {"content": "by command\n"}}}]})
    assert resp["success"] is True
    assert c.read_text("by command\n") == "by command\n"


def test_publish_several_items_in_order(suite, origin):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    c.read_text("hi\n")
    items = [{"channel": channel, "formats": {"http-stream": {"content": f"{i}\n"}}} for i in range(5)]
    assert command(suite, "publish", {"items": items})["success"] is True
    assert c.read_text("0\n1\n2\n3\n4\n") == "0\n1\n2\n3\n4\n"


@pytest.mark.parametrize("args", [{}, {"items": "x"}, {"items": [{"channel": "c"}]}, {"items": [{"formats": {"http-stream": {"content": "x"}}}]}])
def test_publish_of_something_invalid(suite, args):
    resp = command(suite, "publish", args)
    assert resp["success"] is False
    assert resp["condition"] == b"bad-request"


def test_publish_is_all_or_nothing(suite, origin):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    c.read_text("hi\n")
    good = {"channel": channel, "formats": {"http-stream": {"content": "x\n"}}}
    assert command(suite, "publish", {"items": [good, {"channel": channel}]})["success"] is False
    assert c.is_silent(0.3), "part of an invalid publish was delivered"


def test_conncheck_without_known_connections(suite):
    resp = command(suite, "conncheck", {"ids": ["nobody", "nobody-else"]})
    assert (resp["success"], resp["value"]) == (True, [])


def test_conncheck_of_an_empty_list(suite):
    resp = command(suite, "conncheck", {"ids": []})
    assert (resp["success"], resp["value"]) == (True, [])


def test_conncheck_knows_a_websocket(suite, woh):
    client, req = open_session(suite, woh)
    resp = command(suite, "conncheck", {"ids": [req.cid, "nobody"]})
    assert (resp["success"], resp["value"]) == (True, [req.cid.encode()])
    client.close_socket()


def test_conncheck_forgets_a_closed_websocket(suite, woh):
    client, req = open_session(suite, woh)
    client.reset()
    woh.next_disconnect()
    resp = command(suite, "conncheck", {"ids": [req.cid]})
    assert (resp["success"], resp["value"]) == (True, [])


@pytest.mark.parametrize("args", [None, {"ids": "x"}, {"ids": [1]}])
def test_conncheck_with_bad_arguments(suite, args):
    resp = command(suite, "conncheck", args)
    assert resp["success"] is False
    assert resp["condition"] == b"bad-request"


def test_refresh_by_connection_id(suite, woh):
    client, first = open_session(suite, woh)
    assert command(suite, "refresh", {"cid": first.cid})["success"] is True
    req = woh.next()
    assert (req.cid, req.http.body) == (first.cid, b"")
    client.close_socket()


def test_refresh_of_an_unknown_connection(suite):
    resp = command(suite, "refresh", {"cid": "nobody"})
    assert resp["success"] is False
    assert resp["condition"] == b"item-not-found"


def test_refresh_without_arguments(suite):
    resp = command(suite, "refresh")
    assert resp["success"] is False
    assert resp["condition"] == b"bad-request"


@pytest.mark.parametrize("content", [b"", b"garbage", b"3:abc,", b"0:}", tnetstring.dumps({"id": "1"}),
                                     tnetstring.dumps({"id": "1", "method": 5}), tnetstring.dumps([1, 2])])
def test_malformed_request_does_not_break_the_socket(suite, content):
    raw(suite, b"", content, timeout=0.15)
    assert command(suite, "recover")["success"] is True


@skip_on("pushpin-1.36", reason="the handler crashes on a truncated map, and the whole suite ends")
@pytest.mark.parametrize("content", [b"99999:x}", b"5:x}", b"7:3:abc,}"])
def test_truncated_request_does_not_break_the_socket(suite, content):
    raw(suite, b"", content, timeout=0.15)
    assert command(suite, "recover")["success"] is True


def test_request_with_too_many_frames_does_not_break_the_socket(suite):
    raw(suite, b"", b"a", b"b", timeout=0.15)
    assert command(suite, "recover")["success"] is True


def test_requests_of_many_clients(suite):
    sockets = []
    for i in range(20):
        s = zmq.Context.instance().socket(zmq.REQ)
        s.linger = 0
        s.connect(suite.command_spec)
        s.send(tnetstring.dumps({"id": str(i), "method": "get-zmq-uris"}))
        sockets.append(s)
    for i, s in enumerate(sockets):
        assert s.poll(5000), f"no answer for client {i}"
        assert tnetstring.loads(s.recv())["id"] == str(i).encode()
        s.close()


def test_several_requests_on_one_connection(suite):
    s = zmq.Context.instance().socket(zmq.DEALER)
    s.linger = 0
    s.connect(suite.command_spec)
    ids = [uuid.uuid4().hex for _ in range(10)]
    for id in ids:
        s.send_multipart([b"", tnetstring.dumps({"id": id, "method": "recover"})])
    got = set()
    for _ in ids:
        assert s.poll(5000), "an answer is missing"
        got.add(tnetstring.loads(s.recv_multipart()[-1])["id"].decode())
    s.close()
    assert got == set(ids)
