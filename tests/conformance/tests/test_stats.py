# SPDX-License-Identifier: AGPL-3.0-or-later
"""Packets on the stats socket."""

import json
import time

import pytest
import zmq

from harness import publish, tnetstring
from harness.client import Connection
from harness.hold import new_channel, open_poll, open_stream, publish_item
from harness.origin import Response, hold_response, hold_stream
from harness.suite import Suite
from harness.woh import open_session
from harness.wsfixtures import woh  # noqa: F401


class Stats:
    def __init__(self, suite, *kinds, form="T"):
        self.form = form
        self.sock = zmq.Context.instance().socket(zmq.SUB)
        self.sock.linger = 0
        for k in kinds or ("",):
            self.sock.setsockopt(zmq.SUBSCRIBE, k.encode())
        self.sock.connect(suite.stats_spec)
        # let the subscription arrive
        time.sleep(0.1)

    def next(self, timeout=5.0):
        """(type, fields) of the next packet; byte strings decoded."""
        assert self.sock.poll(max(1, int(timeout * 1000))), "no stats packet"
        parts = self.sock.recv_multipart()
        assert len(parts) == 1, f"stats message with {len(parts)} parts"
        kind, sep, data = parts[0].partition(b" ")
        assert sep and data[:1] == self.form.encode(), f"not a {self.form} stats message: {parts[0][:80]!r}"
        fields = json.loads(data[1:]) if self.form == "J" else tnetstring.loads(data[1:])
        return kind.decode(), {k: v.decode() if isinstance(v, bytes) else v for k, v in fields.items()}

    def wait(self, kind, timeout=5.0, **want):
        """The next packet of the kind with these fields."""
        deadline, seen = time.monotonic() + timeout, []
        while time.monotonic() < deadline:
            try:
                got, fields = self.next(deadline - time.monotonic())
            except AssertionError:
                break
            seen.append((got, fields))
            if got == kind and all(fields.get(k.replace("_", "-")) == v for k, v in want.items()):
                return fields
        raise AssertionError(f"no {kind} packet with {want}; seen: {seen!r:.1500}")

    def close(self):
        self.sock.close()


@pytest.fixture
def stats(suite):
    s = Stats(suite)
    yield s
    s.close()


def test_stream_subscription_packet(suite, origin, stats):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    sub = stats.wait("sub", channel=channel)
    assert (sub["mode"], sub["subscribers"], sub["ttl"]) == ("stream", 1, 60)
    assert sub["from"]
    assert "unavailable" not in sub
    c.close()


def test_end_of_a_stream_subscription_packet(suite, origin, stats):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    stats.wait("sub", channel=channel)
    c.close()
    sub = stats.wait("sub", channel=channel, unavailable=True)
    assert sub["mode"] == "stream"


def test_long_poll_subscription_packet(suite, origin, stats):
    channel = new_channel()
    origin.on("/poll", hold_response(channel))
    c = open_poll(suite, "/poll", channel)
    sub = stats.wait("sub", channel=channel)
    assert sub["mode"] == "response"
    c.close()


def test_websocket_subscription_packet(suite, woh, stats):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    sub = stats.wait("sub", channel=channel)
    assert (sub["mode"], sub["subscribers"]) == ("ws", 1)
    client.reset()
    stats.wait("sub", channel=channel, unavailable=True)


def test_number_of_subscribers_is_updated(suite, origin, stats):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    a, _ = open_stream(suite, "/stream", channel)
    b, _ = open_stream(suite, "/stream", channel)
    stats.wait("sub", channel=channel, subscribers=2, mode="stream")
    a.close()
    stats.wait("sub", channel=channel, subscribers=1, mode="stream")
    b.close()


def test_websocket_connection_packets(suite, woh, stats):
    client, req = open_session(suite, woh)
    conn = stats.wait("conn", id=req.cid)
    assert (conn["type"], conn["ttl"], conn["peer-address"]) == ("ws", 120, "127.0.0.1")
    client.reset()
    stats.wait("conn", id=req.cid, unavailable=True)


def test_http_connection_packets(suite, origin, stats):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    conn = stats.wait("conn", type="http")
    assert conn["peer-address"] == "127.0.0.1" and conn["ttl"] == 120
    c.close()
    end = stats.wait("conn", id=conn["id"], unavailable=True)
    assert "type" not in end


@pytest.mark.parametrize("rule,wanted", [("", "192.0.2.7"), ("truncate:0,append", "127.0.0.1")], ids=["default", "truncated"])
def test_connection_packets_have_the_address_that_the_rule_trusts(start_suite, origin, rule, wanted):
    suite = start_suite(routes=["* 127.0.0.1:{port}"], proxy={"x_forwarded_for": rule})
    stats, channel = Stats(suite, "conn "), new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel, [("X-Forwarded-For", "192.0.2.7, 192.0.2.8")])
    assert stats.wait("conn", type="http")["peer-address"] == wanted
    c.close()
    stats.close()


def test_request_without_a_route_is_nobodys(start_suite, origin):
    suite = start_suite(routes=["a.test 127.0.0.1:{port}"])
    stats = Stats(suite)
    for host in ("b.test", "a.test"):
        with Connection(suite.http_port) as c:
            c.request("GET", "/x", host=host)
    assert stats.wait("counts")["requests-received"] == 1
    stats.close()


def test_message_packet_counts_receivers(suite, origin, stats):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    conns = [open_stream(suite, "/stream", channel)[0] for _ in range(3)]
    publish_item(suite, channel, {"http-stream": {"content": "x\n"}}, id="item-7")
    m = stats.wait("message", channel=channel)
    assert (m["count"], m["transport"], m["item-id"]) == (3, "http-stream", "item-7")
    for c in conns:
        c.close()


def test_message_packet_without_item_id(suite, origin, stats):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    publish.stream(suite, channel, "x\n")
    assert "item-id" not in stats.wait("message", channel=channel)
    c.close()


def test_message_packet_of_a_websocket(suite, woh, stats):
    channel = new_channel()
    client, _ = open_session(suite, woh, channel=channel)
    publish.ws(suite, channel, "x")
    client.recv_text()
    m = stats.wait("message", channel=channel)
    assert (m["count"], m["transport"]) == (1, "ws-message")
    client.close_socket()


def test_no_message_packet_without_receivers(suite, origin, stats):
    nobody, channel = new_channel(), new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/stream", channel)
    publish.stream(suite, nobody, "x\n")
    publish.stream(suite, channel, "x\n")
    kind, m = stats.next()
    while kind != "message":
        kind, m = stats.next()
    assert m["channel"] == channel
    c.close()


def test_activity_packet_for_a_request(suite, origin, stats):
    origin.on("/plain", Response(200, [], "x"))
    with Connection(suite.http_port) as c:
        c.request("GET", "/plain")
    assert stats.wait("activity")["count"] >= 1


def test_activity_counts_every_request(suite, origin):
    origin.on("/plain", Response(200, [], "x"))
    stats = Stats(suite, "activity ")
    time.sleep(0.3)
    while stats.sock.poll(0):
        stats.sock.recv()
    with Connection(suite.http_port) as c:
        for _ in range(5):
            c.request("GET", "/plain")
    total = 0
    while total < 5:
        total += stats.next()[1]["count"]
    assert total == 5
    stats.close()


def test_subscriber_may_select_one_type(suite, origin):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    stats = Stats(suite, "message ")
    c, _ = open_stream(suite, "/stream", channel)
    publish.stream(suite, channel, "x\n")
    kind, m = stats.next()
    assert kind == "message"
    c.close()
    stats.close()


@pytest.fixture(scope="module")
def reporting(_origin):
    suite = Suite([f"*,id=main 127.0.0.1:{_origin.port},over_http"],
                  {"handler": {"stats_report_interval": 1, "stats_format": "json"}}).start()
    yield suite
    suite.stop()


def test_report_packet_of_one_connection(reporting, origin):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    stats = Stats(reporting, "report ", form="J")
    c, _ = open_stream(reporting, "/stream", channel)
    publish.stream(reporting, channel, "x\n")
    report = stats.wait("report", connections=1)
    assert 0 < report["duration"] < 5000
    assert report["from"]
    for side in ("client", "server"):
        for what in ("header-bytes", "content-bytes", "messages"):
            for way in ("received", "sent"):
                assert isinstance(report[f"{side}-{what}-{way}"], int)
    c.close()
    stats.close()


def test_report_counts_messages(reporting, origin):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    stats = Stats(reporting, "report ", form="J")
    conns = [open_stream(reporting, "/stream", channel)[0] for _ in range(2)]
    publish.stream(reporting, channel, "x\n")
    deadline, received, sent = time.monotonic() + 5, 0, 0
    while time.monotonic() < deadline and (received < 1 or sent < 2):
        _, r = stats.next(5)
        received += r["received"]
        sent += r["sent"]
    assert (received, sent) == (1, 2)
    for c in conns:
        c.close()
    stats.close()


def test_json_format(reporting, origin):
    channel = new_channel()
    origin.on("/stream", hold_stream(channel, "hi\n"))
    stats = Stats(reporting, "sub ", form="J")
    c, _ = open_stream(reporting, "/stream", channel)
    sub = stats.wait("sub", channel=channel)
    assert (sub["mode"], sub["subscribers"]) == ("stream", 1)
    c.close()
    stats.close()


def test_route_id_is_named_in_activity(reporting, origin):
    origin.on("/plain", Response(200, [], "x"))
    stats = Stats(reporting, "activity ", form="J")
    with Connection(reporting.http_port) as c:
        c.request("GET", "/plain")
    assert stats.wait("activity", route="main")["count"] >= 1
    stats.close()
