# SPDX-License-Identifier: AGPL-3.0-or-later
"""Settings of pushpin.conf whose effect shows from outside."""

import os
import re
import signal
import socket
import time

import pytest

from harness.client import Connection
from harness.hold import new_channel, open_poll, open_stream, publish_item, send_stream, wait_subscribed
from harness.origin import Response, hold_response, hold_stream
from harness.suite import Suite, wait_for_port


@pytest.fixture(autouse=True)
def _ok(origin):
    origin.handler = lambda req: Response(200, [], "ok")


def get(port, target="/", headers=(), host="example.com"):
    with Connection(port) as c:
        return c.request("GET", target, headers, host=host)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def test_port_offset_moves_the_control_port_but_not_the_http_port(suite):
    assert listening(suite.http_port)
    assert listening(5561 + suite.port_offset)
    assert listening(5560 + suite.port_offset)
    assert listening(5562 + suite.port_offset)
    assert listening(5563 + suite.port_offset)


class MovedControlPort(Suite):
    """A suite whose control port is 5571 + offset instead of 5561 + offset."""

    publish_port = property(lambda self: 5571 + self.port_offset)


def test_another_control_port():
    suite = MovedControlPort(["* test"], {"handler": {"push_in_http_port": 5571}})
    try:
        suite.start()
        assert get(suite.publish_port).body == b"Pushpin API\n"
        assert not listening(5561 + suite.port_offset)
    finally:
        suite.stop()


def test_several_http_ports():
    extra = free_port()
    suite = Suite(["* test"])
    suite.settings = {"runner": {"http_port": f"127.0.0.1:{suite.http_port},127.0.0.1:{extra}"}}
    try:
        suite.start()
        wait_for_port(extra, 5)
        assert get(suite.http_port).status == 200
        assert get(extra).status == 200
    finally:
        suite.stop()


def test_connections_beyond_client_maxconn_wait(start_suite, origin):
    """They are not refused: they sit in the listen queue until a slot is free."""
    suite = start_suite(runner={"client_maxconn": 10})
    held = []
    for _ in range(10):
        c = Connection(suite.http_port)
        c.start("GET", "/")
        assert c.read_head().status == 200
        c.read_rest()
        held.append(c)
    late = Connection(suite.http_port)
    late.start("GET", "/late")
    assert late.is_silent(0.5)
    for c in held:
        c.close()
    assert late.read_head().status == 200
    late.close()


def test_message_rate_spreads_a_fan_out_over_time(start_suite, origin):
    suite = start_suite(handler={"message_rate": 10, "message_hwm": 1000})
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    conns = []
    for _ in range(10):
        c = Connection(suite.http_port)
        c.start("GET", "/s")
        c.read_head()
        c.read_text("hi\n")
        conns.append(c)
    wait_subscribed(suite, channel)
    start = time.monotonic()
    send_stream(suite, channel, "m\n")
    for c in conns:
        assert c.read_text("m\n") == "m\n"
        c.close()
    took = time.monotonic() - start
    assert 0.6 < took < 2.5, f"10 deliveries at 10 per second took {took:.2f} s"


def test_message_hwm_drops_what_does_not_fit(start_suite, origin):
    suite = start_suite(handler={"message_rate": 10, "message_hwm": 5})
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    conns = []
    for _ in range(12):
        c = Connection(suite.http_port)
        c.start("GET", "/s")
        c.read_head()
        c.read_text("hi\n")
        conns.append(c)
    wait_subscribed(suite, channel)
    send_stream(suite, channel, "m\n")
    time.sleep(1.5)
    got = sum(not c.is_silent(0.01) for c in conns)
    for c in conns:
        c.close()
    assert got == 5, f"{got} of 12 clients received the message"


def test_connection_subscription_max_applies_to_polls(start_suite, origin):
    suite = start_suite(handler={"connection_subscription_max": 1})
    a, b = new_channel(), new_channel()
    origin.on("/p", hold_response(f"{a}, {b}", "t\n"))
    with open_poll(suite, "/p", a) as c:
        publish_item(suite, b, {"http-response": {"body": "b"}})
        assert c.is_silent(0.2)
        publish_item(suite, a, {"http-response": {"body": "a"}})
        c.read_head()
        assert c.read_rest() == b"a"


def test_request_log_line(start_suite, origin):
    suite = start_suite(routes=["*,id=my-route 127.0.0.1:{port}"], proxy={"log_from": "true", "log_user_agent": "true"})
    get(suite.http_port, "/logged?x=1", [("User-Agent", "UA/1"), ("Referer", "http://ref/")])
    wanted = f"GET http://example.com/logged?x=1 -> 127.0.0.1:{origin.port} from=127.0.0.1 ref=http://ref/ route=my-route code=200 2 ua=UA/1"
    deadline = time.monotonic() + 3
    while wanted not in suite.logs():
        assert time.monotonic() < deadline, suite.logs()[-3000:]
        time.sleep(0.05)


def test_address_and_user_agent_are_not_logged_by_default(start_suite, origin):
    suite = start_suite()
    get(suite.http_port, "/logged", [("User-Agent", "UA/1")])
    deadline = time.monotonic() + 3
    while "GET http://example.com/logged " not in suite.logs():
        assert time.monotonic() < deadline, suite.logs()[-3000:]
        time.sleep(0.05)
    line = next(l for l in suite.logs().splitlines() if "GET http://example.com/logged " in l and "code=200" in l)
    assert "from=" not in line and "ua=" not in line


def test_accepted_hold_and_publish_are_logged(start_suite, origin):
    suite = start_suite()
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        send_stream(suite, channel, "m\n")
        c.read_text("m\n")
    time.sleep(0.1)
    logs = suite.logs()
    assert f"subscribe http://localhost/s channel={channel}" in logs
    assert f"publish channel={channel} receivers=1" in logs
    assert re.search(r"GET http://localhost/s -> 127.0.0.1:\d+ accept", logs)


def test_runner_stops_everything_on_sigterm(start_suite):
    suite = start_suite()
    children = suite.children()
    assert children, "no child processes found"
    assert suite.stop() is not None
    deadline = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{pid}") for pid in children.values()):
        assert time.monotonic() < deadline, "child processes outlive the runner"
        time.sleep(0.05)
    assert not listening(suite.http_port)


def test_held_clients_are_disconnected_on_shutdown(start_suite, origin):
    suite = start_suite()
    channel = new_channel()
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        suite.process.send_signal(signal.SIGTERM)
        assert c.is_closed(5)
