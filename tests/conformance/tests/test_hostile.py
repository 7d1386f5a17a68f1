# SPDX-License-Identifier: AGPL-3.0-or-later
"""Hostile peers on every side: clients, backends, publishers, processes that die. What a fault may cost, and whom."""

import collections
import http.client
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
import zmq

from harness import publish, tnetstring
from harness.client import Connection
from harness.hold import Subscriptions, instruct, new_channel, open_poll, open_stream, wait_subscribed
from harness.origin import Response, hold_response, hold_stream
from harness.rawserver import RawServer
from harness.suite import SUITE, Suite, wait_for_port
from harness.versions import REFERENCES, xfail_on

CONTEXT = zmq.Context.instance()
PARTS = {"frontend": ("pushpin-fronten", "condure"), "outbound": ("pushpin-outboun", "zurl"), "proxy": ("pushpin-proxy",), "handler": ("pushpin-handler",)}
project_only = pytest.mark.skipif(SUITE != "project", reason="looks into processes of the project")


def pid_of(suite, part):
    children = suite.children()
    return next(children[name] for name in PARTS[part] if name in children)


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid):
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")) / 1024


def connect(port, rcvbuf=None):
    s = socket.socket()
    if rcvbuf:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    s.settimeout(5)
    s.connect(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_until(sock, mark):
    data = b""
    while mark not in data:
        piece = sock.recv(65536)
        assert piece, f"closed before {mark!r}: {data[:200]!r}"
        data += piece
    return data


def read_for(sock, seconds, idle=0.5):
    """(everything that comes, how it ended: closed, reset or open)"""
    data, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        sock.settimeout(idle if data else max(0.01, end - time.monotonic()))
        try:
            piece = sock.recv(65536)
        except socket.timeout:
            return data, "open"
        except ConnectionResetError:
            return data, "reset"
        if not piece:
            return data, "closed"
        data += piece
    return data, "open"


def exchange(port, *parts, seconds=4.0):
    """Send the parts (numbers are pauses), then read."""
    s = connect(port)
    try:
        for part in parts:
            time.sleep(part) if isinstance(part, (int, float)) else s.sendall(part)
    except OSError:
        pass
    try:
        return read_for(s, seconds)
    finally:
        s.close()


def statuses(data):
    """Status codes of the responses in a stream, framed as a client does; interim ones included."""
    out = []
    while data:
        head, sep, rest = data.partition(b"\r\n\r\n")
        m = re.match(rb"HTTP/1\.[01] (\d{3})[ \r]", head + b"\r")
        if not m or not sep:
            return out + ["junk"]
        code = int(m.group(1))
        out.append(code)
        length = re.search(rb"(?mi)^content-length:\s*(\d+)", head)
        if re.search(rb"(?mi)^transfer-encoding:\s*chunked", head):
            data = rest.partition(b"0\r\n\r\n")[2]
        elif code < 200 or code in (204, 304):
            data = rest
        else:
            data = rest[int(length.group(1)):] if length else b""
    return out


def within(seconds, check, pause=0.1):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(pause)
    return False


@pytest.fixture
def held(origin):
    """/stream/<channel>, /poll/<channel>, anything else: 200."""
    def serve(req):
        channel = req.path.split("/")[-1]
        if req.path.startswith("/stream/"):
            return hold_stream(channel, "hi\n")
        if req.path.startswith("/poll/"):
            return hold_response(channel, "timeout\n")
        return Response(200, [], "FINE\n")

    origin.handler = serve
    return origin


GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"


# 1. clients that go away unseen --------------------------------------------------------------------------------------
@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
@pytest.mark.parametrize("ahead", [1, 100, 8191, 8192, 20000])
@xfail_on(*REFERENCES, reason="noticed by the 1800 s timeout only")
def test_stream_client_that_sent_ahead_is_noticed_when_it_leaves(suite, held, ahead, leave):
    channel = new_channel()
    with Subscriptions(suite) as subs:
        s = connect(suite.http_port)
        s.sendall(GET % b"/stream/%s" % channel.encode())
        read_until(s, b"hi\n")
        subs.wait(channel)
        s.sendall(b"G" * ahead)
        time.sleep(0.1)
        leave(s)
        subs.wait_end(channel, timeout=6)


@xfail_on(*REFERENCES, reason="the same")
def test_clients_that_left_do_not_use_up_the_places(start_suite, held):
    suite = start_suite(runner={"client_maxconn": 10})
    for _ in range(10):
        s = connect(suite.http_port)
        s.sendall(GET % b"/stream/gone")
        read_until(s, b"hi\n")
        s.sendall(b"GET /next HTTP/1.1\r\nHost: h\r\nX: %s\r\n\r\n" % (b"y" * 9000))
        time.sleep(0.05)
        reset(s)
    assert within(8, lambda: b"FINE" in exchange(suite.http_port, GET % b"/", seconds=1)[0]), "ten clients that left hold all places"


@xfail_on(*REFERENCES, reason="the same")
def test_uploading_client_that_leaves_is_noticed_while_the_origin_reads_nothing(start_suite):
    closed = threading.Event()

    def script(peer):
        peer.read_head()
        watch = select.poll()  # without reading anything
        watch.register(peer.sock, select.POLLRDHUP)
        if watch.poll(10_000):
            closed.set()

    with RawServer(script) as server:
        suite = start_suite(routes=[f"* 127.0.0.1:{server.port}"])
        s = connect(suite.http_port)
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        s.settimeout(1)
        try:
            while True:
                s.send(b"x" * 65536)
        except OSError:
            pass
        reset(s)
        assert closed.wait(11), "the request to the origin lives on after its client has gone"


# 2. slow clients -------------------------------------------------------------------------------------------------------
@pytest.mark.timeout(120)
def test_slow_heads_are_cut_off(suite, held):
    """No client may take longer than 60 s for a head, however it spreads the bytes."""
    kinds = {"in the first head": b"GET / HTTP/1.1\r\nX: ", "in the second head": GET % b"/" + b"GET / HTTP/1.1\r\nX: ", "before the head": b""}
    conns = {}
    for kind, first in kinds.items():
        conns[kind] = connect(suite.http_port)
        conns[kind].sendall(first)
    start, open_ = time.monotonic(), set(conns)
    while open_ and time.monotonic() - start < 75:
        time.sleep(3)
        for kind in list(open_):
            s = conns[kind]
            try:
                s.sendall(b"\r\n" if kind == "before the head" else b"y")
                s.settimeout(0.05)
                if not s.recv(65536):
                    open_.discard(kind)
            except socket.timeout:
                pass
            except OSError:
                open_.discard(kind)
    assert not open_, f"still open after 75 s: {sorted(open_)}"


@project_only
def test_client_that_only_sends_while_it_is_to_be_closed_costs_little(suite, held):
    """`Connection: close`, a response that does not fit the kernel's buffers, and a client that writes instead of reading."""
    held.on("/big", lambda req: Response(200, [], b"x" * int(req.target.split("?")[1])))
    pid = pid_of(suite, "frontend")
    fds = lambda: len(os.listdir(f"/proc/{pid}/fd"))

    def ask(size):
        s = connect(suite.http_port, rcvbuf=2048)
        s.sendall(b"GET /big?%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % size)
        time.sleep(0.4)
        return s

    base, low, high = fds(), 50_000, 20_000_000
    while high - low > 20_000:  # the least that does not fit
        size = (low + high) // 2
        s = ask(size)
        low, high = (low, size) if fds() > base else (size, high)
        s.close()
        time.sleep(0.1)
    conns = [ask(high + 30_000) for _ in range(2)]
    before, start = cpu(pid), time.monotonic()
    while time.monotonic() - start < 4:
        for s in conns:
            s.settimeout(0.05)
            try:
                s.send(b"y" * 65536)
            except OSError:
                pass
    used = (cpu(pid) - before) / (time.monotonic() - start)
    for s in conns:
        s.close()
    assert used < 0.3, f"the frontend uses {used:.0%} of a core for two clients that send a few MB"


# 3. answers that must not be lost ----------------------------------------------------------------------------------------
@xfail_on(*REFERENCES, reason="closes with unread input as well")
def test_early_answer_reaches_a_client_that_is_still_uploading(start_suite):
    def script(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbig\n")
        peer.wait_closed(5)

    with RawServer(script) as server:
        suite = start_suite(routes=[f"* 127.0.0.1:{server.port}"])
        client = http.client.HTTPConnection("127.0.0.1", suite.http_port, timeout=10)
        client.request("POST", "/", body=b"x" * 30_000_000)
        assert client.getresponse().status == 413


@xfail_on(*REFERENCES, reason="says nothing at all")
@pytest.mark.parametrize("head", [b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", b"BAD\r\n\r\n"], ids=["lengths", "large", "junk"])
def test_refusal_is_not_followed_by_a_reset(suite, held, head):
    s = connect(suite.http_port)
    s.sendall(head + b"x" * 200_000)
    data, end = read_for(s, 4)
    assert data.startswith(b"HTTP/1.") and data.split()[1] == b"400"
    assert end == "closed", "a reset can take the answer with it"


# 4. publish port ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sent", [b"", b"POST /publish/ HT", b"POST /publish/ HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"], ids=["nothing", "half a head", "half a body"])
def test_idle_publishers_do_not_keep_others_waiting(suite, held, sent):
    idle = [connect(suite.publish_port) for _ in range(200)]
    try:
        for s in idle:
            s.sendall(sent)
        start = time.monotonic()
        data, _ = exchange(suite.publish_port, b'POST /publish/ HTTP/1.1\r\nContent-Length: 12\r\n\r\n{"items":[]}', seconds=5)
        assert data.startswith(b"HTTP/1.1 200"), f"no answer in {time.monotonic() - start:.1f} s behind 200 idle connections"
    finally:
        for s in idle:
            s.close()


BAD_RESPONSES = {
    "value-crlf": {"headers": {"X": "a\r\nSet-Cookie: evil=1"}}, "value-lf": {"headers": {"X": "a\nb"}}, "value-nul": {"headers": {"X": "a\0b"}},
    "name-crlf": {"headers": [["X: a\r\nSet-Cookie", "evil=1"]]}, "name-empty": {"headers": {"": "x"}}, "name-space": {"headers": {"X Y": "z"}},
    "reason-crlf": {"reason": "OK\r\nSet-Cookie: evil=1"}, "reason-cr": {"reason": "a\rb"},
}


@pytest.mark.parametrize("bad", BAD_RESPONSES.values(), ids=BAD_RESPONSES.keys())
@xfail_on("pushpin-1.36", reason="splits the response")
def test_publish_that_can_not_be_sent_does_not_end_those_who_wait(suite, held, bad):
    """Refused with 400, or skipped: either way the poll gets the next good message and not an error page."""
    channel = new_channel()
    c = open_poll(suite, f"/poll/{channel}", channel)
    publish.http(suite, [{"channel": channel, "formats": {"http-response": {"body": "x", **bad}}}])
    publish.response(suite, channel, "good\n")
    resp = c.read_head()
    assert resp.header("Set-Cookie") is None
    assert (resp.status, c.read_rest()) == (200, b"good\n")
    c.close()


@pytest.mark.parametrize("code", [0, 5, 99, 100, 101, 102, 199])
@xfail_on(*REFERENCES, reason="emits the code as it is")
def test_published_code_that_is_no_final_status_does_not_confuse_responses(suite, held, code):
    """The client must not take the answer to its next request for the answer to the poll."""
    channel = new_channel()
    s = connect(suite.http_port)
    s.sendall(GET % b"/poll/%s" % channel.encode())
    wait_subscribed(suite, channel)
    publish.http(suite, [{"channel": channel, "formats": {"http-response": {"code": code, "body": "POLL"}}}])
    time.sleep(0.2)
    s.sendall(GET % b"/fine")
    data, end = read_for(s, 3)
    codes = statuses(data)
    assert "junk" not in codes, data
    final = [c for c in codes if c >= 200]
    assert end != "open" or len(final) == 2 or not final, f"responses {codes} for two requests: {data!r}"


@pytest.mark.parametrize("code", [100, 101, 5, 0])
@xfail_on(*REFERENCES, reason="emits the code as it is")
def test_instruct_code_that_is_no_final_status_does_not_confuse_responses(suite, origin, code):
    origin.on("/i", instruct({"response": {"code": code, "body": "x\n"}}))
    origin.on("/fine", Response(200, [], "FINE\n"))
    data, end = exchange(suite.http_port, GET % b"/i", 0.2, GET % b"/fine", seconds=3)
    codes = statuses(data)
    assert "junk" not in codes, data
    final = [c for c in codes if c >= 200]
    assert end != "open" or len(final) == 2, f"responses {codes} for two requests: {data!r}"


@pytest.mark.parametrize("value", ["\x01", "\x1b[31m", "\x7f"], ids=["soh", "esc", "del"])
@xfail_on(*REFERENCES, reason="the same")
def test_control_bytes_in_published_headers_do_not_reach_clients(suite, held, value):
    channel = new_channel()
    s = connect(suite.http_port)
    s.sendall(GET % b"/poll/%s" % channel.encode())
    wait_subscribed(suite, channel)
    publish.http(suite, [{"channel": channel, "formats": {"http-response": {"headers": {"X": f"a{value}b"}, "body": "x"}}}])
    data, _ = read_for(s, 1)
    assert value.encode() not in data


# 5. command socket -------------------------------------------------------------------------------------------------------
def tnet(payload, kind):
    return b"%d:" % len(payload) + payload + kind


def nested(depth, kind=b"]"):
    """A list of a list of a list ..., or a map of maps."""
    heads, length = [], 3
    for _ in range(depth):
        key = b"" if kind == b"]" else b"1:a,"
        heads.append(b"%d:" % (length + len(key)) + key)
        length += len(heads[-1]) + 1
    return b"".join(reversed(heads)) + b"0:" + kind + kind * depth


@pytest.mark.parametrize("kind", [b"]", b"}"], ids=["lists", "maps"])
@pytest.mark.parametrize("depth", [1000, 100_000])
@xfail_on(*REFERENCES, reason="crashes, and ends the suite")
def test_deeply_nested_command_does_not_end_the_handler(start_suite, held, depth, kind):
    suite = start_suite()
    before = pid_of(suite, "handler")
    item = tnet(b"7:channel,1:x,13:http-response," + tnet(b"10:body-patch," + tnet(nested(depth, kind), b"]"), b"}"), b"}")
    message = tnet(b"2:id,1:1,6:method,7:publish,4:args," + tnet(b"5:items," + tnet(item, b"]"), b"}"), b"}")
    s = CONTEXT.socket(zmq.REQ)
    s.linger = 0
    s.connect(suite.command_spec)
    s.send(message)
    s.poll(3000)
    s.close()
    time.sleep(0.5)
    assert suite.process.poll() is None and pid_of(suite, "handler") == before, "the handler has died"
    assert publish.command(suite, "get-zmq-uris")["success"] is not None


@xfail_on(*REFERENCES, reason="crashes")
def test_command_with_a_malformed_second_item_publishes_nothing(start_suite, held):
    """All items are valid, or none counts."""
    suite = start_suite()
    channel = new_channel()
    c, _ = open_stream(suite, f"/stream/{channel}", channel)
    c.read_text("hi\n")
    good = tnetstring.dumps({"channel": channel, "formats": {"http-stream": {"content": "half\n"}}})
    message = tnet(b"2:id,1:1,6:method,7:publish,4:args," + tnet(b"5:items," + tnet(good + b"9:junk", b"]"), b"}"), b"}")
    s = CONTEXT.socket(zmq.REQ)
    s.linger = 0
    s.connect(suite.command_spec)
    s.send(message)
    answer = tnetstring.loads(s.recv()) if s.poll(1500) else None
    s.close()
    silent = c.is_silent(0.4)
    c.close()
    assert silent, f"the first item was published, and the answer was {answer}"


# 6. what clients may not ask for -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("kind", [["application/websocket-events"], ["Application/WebSocket-Events"], ["application/websocket-events ;a=b"], ["application/websocket-events;a=b"], ["text/plain", "application/websocket-events"]], ids=["exact", "case", "space", "parameter", "second"])
@xfail_on("pushpin-1.36", reason="compares case, space and the first field only")
def test_clients_can_not_send_websocket_events(start_suite, origin, kind, method):
    origin.handler = lambda req: Response(200, [("Content-Type", "application/websocket-events")], b"OPEN\r\n")
    suite = start_suite(routes=["* 127.0.0.1:{port},over_http"])
    with Connection(suite.http_port) as c:
        resp = c.request(method, "/ws", [("Content-Type", k) for k in kind] + [("Connection-Id", "forged")], b"OPEN\r\n")
    assert resp.status == 403, f"{resp.status}; the origin saw {[(r.method, r.header('Grip-Sig') is not None) for r in origin.log]}"
    assert not origin.log


@pytest.mark.parametrize("host", [b"a:99999", b"a:abc", b"a:+80", b"a:1:2", b":80", b"[::1", b"[::1]x", b"::1", b"a" * 300])
@xfail_on(*REFERENCES, reason="takes anything for a host")
def test_host_that_is_none_is_the_clients_fault(suite, held, host):
    data, _ = exchange(suite.http_port, b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert data[9:10] == b"4", data[:60]
    assert not held.log


@pytest.mark.parametrize("target", [b"/x", b"http://h/x", b"h:80", b"*"])
@xfail_on(*REFERENCES, reason="passes it on")
def test_connect_is_refused(suite, held, target):
    data, _ = exchange(suite.http_port, b"CONNECT " + target + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert data[9:12] in (b"400", b"405", b"501"), data[:60]
    assert not held.log


@pytest.mark.parametrize("length", ["9223372036854775808", "18446744073709551615"])
@xfail_on(*REFERENCES, reason="passes it on")
def test_length_that_origins_can_not_count_is_refused(suite, held, length):
    data, _ = exchange(suite.http_port, b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: " + length.encode() + b"\r\n\r\nabc", seconds=2)
    assert data[9:12] in (b"400", b"413"), data[:60]


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
@xfail_on(*REFERENCES, reason="sends it again as well")
def test_request_with_effects_is_sent_once(start_suite, method):
    """A used connection that closes instead of an answer may have done what was asked (RFC 9110, section 9.2.2)."""
    seen = []

    def script(peer):
        while True:
            head = peer.read_head()
            if not head:
                return
            peer.read_body(head)
            seen.append(head.split(b" ")[:2])
            if b"/die" in head:
                return
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with RawServer(script) as server:
        suite = start_suite(routes=[f"* 127.0.0.1:{server.port}"])
        exchange(suite.http_port, GET % b"/warm", seconds=1)
        data, _ = exchange(suite.http_port, f"{method} /die HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    assert data.startswith(b"HTTP/1.1 502"), data[:60]
    assert seen.count([method.encode(), b"/die"]) == 1, seen


# 7. processes that die ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["stream", "poll"])
def test_held_client_learns_soon_that_its_handler_died(start_suite, held, kind):
    suite = start_suite()
    channel = new_channel()
    s = connect(suite.http_port)
    s.sendall(GET % f"/{kind}/{channel}".encode())
    if kind == "stream":
        read_until(s, b"hi\n")
    wait_subscribed(suite, channel)
    os.kill(pid_of(suite, "handler"), signal.SIGKILL)
    start = time.monotonic()
    s.settimeout(8)
    try:
        data = s.recv(65536)
    except socket.timeout:
        pytest.fail("8 s after its handler died the client still waits for what nobody will send")
    except ConnectionResetError:
        data = b""
    assert time.monotonic() - start < 8, data


@pytest.mark.parametrize("part", ["proxy", "outbound"])
def test_request_under_way_ends_soon_when_a_part_dies(start_suite, origin, part):
    def slow(req):
        time.sleep(3)
        return Response(200, [], "SLOW\n")

    origin.on("/slow", slow)
    suite = start_suite()
    s = connect(suite.http_port)
    s.sendall(GET % b"/slow")
    time.sleep(1)
    os.kill(pid_of(suite, part), signal.SIGKILL)
    s.settimeout(10)
    try:
        s.recv(65536)
    except socket.timeout:
        pytest.fail(f"no answer and no end 10 s after {part} was killed")
    except ConnectionResetError:
        pass


@project_only
def test_logs_that_nobody_reads_stop_nobody(held):
    suite = Suite([f"* 127.0.0.1:{held.port}"])
    for name in ("run", "log"):
        (suite.dir / name).mkdir()
    (suite.dir / "routes").write_text("\n".join(suite.routes) + "\n")
    (suite.dir / "pushpin.conf").write_text(suite._config())
    r, w = os.pipe()
    suite.process = subprocess.Popen([*suite._command(), f"--config={suite.dir}/pushpin.conf", "--merge-output"], stdout=w, stderr=w, start_new_session=True)
    try:
        wait_for_port(suite.http_port, 10)
        time.sleep(0.5)
        for i in range(2500):
            data, _ = exchange(suite.http_port, b"GET /%s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % (b"x" * 100), seconds=5)
            assert b"FINE" in data, f"request {i} is not answered while nobody reads the log"
    finally:
        os.killpg(suite.process.pid, signal.SIGKILL)
        suite.process.wait()
        suite.process = None
        os.close(r)
        os.close(w)


@project_only
@pytest.mark.timeout(120)
def test_clients_do_not_use_up_the_files_that_parts_need(held):
    """client_maxconn is above what the limit of open files allows; parts that are replaced must still find their frontend."""
    suite = Suite([f"* 127.0.0.1:{held.port}"], {"runner": {"client_maxconn": 1000}})
    command = suite._command
    suite._command = lambda: ["prlimit", "--nofile=64:64", *command()]
    suite.start()
    conns, stop = [], threading.Event()
    try:
        def ask():
            s = connect(suite.http_port)
            s.sendall(GET % b"/x")
            return s

        mine = ask()
        read_until(mine, b"FINE\n")

        def flood():
            while not stop.is_set():
                try:
                    s = connect(suite.http_port)
                    s.sendall(GET % b"/stream/f")
                    conns.append(s)
                except OSError:
                    pass
                time.sleep(0.005)

        threading.Thread(target=flood, daemon=True).start()
        time.sleep(2)
        for _ in range(4):
            for part in ("proxy", "handler"):
                os.kill(pid_of(suite, part), signal.SIGKILL)
                time.sleep(2)
                mine.sendall(GET % b"/x")
                mine.settimeout(8)
                try:
                    read_until(mine, b"FINE\n")
                except socket.timeout:
                    pytest.fail(f"no answer on an open connection after {part} was replaced while clients fill the table of files")
    finally:
        stop.set()
        for s in conns:
            s.close()
        suite.stop()


# 8. costs that an outsider decides -----------------------------------------------------------------------------------------
@project_only
def test_instruct_with_many_meta_entries_costs_little(suite, origin):
    document = '{"hold":{"mode":"response","channels":[{"name":"z"}],"meta":{%s}}}' % ",".join(f'"k{i}":""' for i in range(9000))
    origin.on("/meta", Response(200, [("Content-Type", "application/grip-instruct")], document))
    pid = pid_of(suite, "handler")
    before = cpu(pid)
    conns = []
    for _ in range(10):
        s = connect(suite.http_port)
        s.sendall(GET % b"/meta")
        conns.append(s)
    time.sleep(2)
    for s in conns:
        s.close()
    assert cpu(pid) - before < 0.4, f"ten documents of {len(document)} bytes take {cpu(pid) - before:.2f} s of the handler"


GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\0NULL" + b"\0" * 48


def zmtp(suite, name, kind, identity=b""):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(1)
    s.connect(str(suite.dir / "run" / name))
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind + b"\x08Identity" + struct.pack(">I", len(identity)) + identity
    s.sendall(GREETING + b"\x04" + bytes([len(ready)]) + ready)
    return s


@project_only
def test_pings_that_are_not_read_do_not_fill_memory(start_suite):
    suite = start_suite()
    pid = pid_of(suite, "proxy")
    s = zmtp(suite, "c-proxy-stats", b"SUB")
    ping = b"\x06" + struct.pack(">Q", 1_000_007) + b"\x04PING\0\0" + b"p" * 1_000_000
    sent, end = 0, time.monotonic() + 3
    try:
        while time.monotonic() < end and sent < 600_000_000:
            sent += s.send(ping[sent % len(ping):])
    except OSError:
        pass
    used = rss_mb(pid)
    s.close()
    assert used < 300, f"{used:.0f} MB wait for a peer that does not read (libzmq refuses contexts over 16 bytes)"


# 9. logs -------------------------------------------------------------------------------------------------------------------
@project_only
@pytest.mark.parametrize("text", ["\u009b31m", "\u0085", "\u2028", "\u202e"], ids=["csi", "nel", "line", "rtl"])
def test_log_lines_have_no_characters_that_steer_a_terminal(start_suite, held, text):
    suite = start_suite()
    exchange(suite.http_port, b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nReferer: a" + text.encode() + b"b\r\n\r\n")
    within(2, lambda: "ref=a" in suite.logs())
    assert text not in suite.logs()


# 10. held so far: must stay so -----------------------------------------------------------------------------------------------
EVIL = b"GET /evil HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSED = {
    "cl-te": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "te-cl": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + EVIL,
    "cl-differ": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 33\r\n\r\n" + EVIL,
    "cl-list": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 4\r\n\r\nabcd",
    "cl-plus": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
    "cl-2^64+3": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551619\r\n\r\nabc" + EVIL,
    "te-twice": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "te-comma": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n" + EVIL,
    "te-fold": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "te-vt": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + EVIL,
    "te-1.0": b"POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + EVIL,
    "te-space": b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "chunk-ext-lf": CHUNKED + b"3;a\nxx\r\n0\r\n\r\n" + EVIL,
    "chunk-2^64+3": CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n" + EVIL,
    "chunk-end-lf": CHUNKED + b"3\r\nabc\r\n0\r\n\n" + EVIL,
    "trailer-lf": CHUNKED + b"3\r\nabc\r\n0\r\nX: a\n\r\n" + EVIL,
    "bare-cr": b"GET /a HTTP/1.1\r\nHost: h\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n" + EVIL,
    "nul": b"GET /a HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n" + EVIL,
    "hosts": b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + EVIL,
    "userinfo": b"GET http://u@a/ HTTP/1.1\r\nHost: h\r\n\r\n" + EVIL,
    "h2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "0.9": b"GET /a\r\n\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
@xfail_on(*REFERENCES, reason="some pass")
def test_ambiguous_request_is_refused_and_nothing_behind_it_counts(suite, held, data):
    got, end = exchange(suite.http_port, data, seconds=3)
    assert statuses(got) == [400] and end != "open", got[:100]
    assert "/evil" not in [r.target for r in held.log]


SPLITS = {"body": {"body": "a\r\n\r\nHTTP/1.1 200 EVIL\r\n\r\n"}, "length": {"headers": {"Content-Length": "1", "Transfer-Encoding": "chunked"}, "body": "longer"}, "grip": {"headers": {"Grip-Hold": "stream"}, "body": "x"}}


@pytest.mark.parametrize("fmt", SPLITS.values(), ids=SPLITS.keys())
def test_published_response_stays_one_response(suite, held, fmt):
    channel = new_channel()
    s = connect(suite.http_port)
    s.sendall(GET % b"/poll/%s" % channel.encode())
    wait_subscribed(suite, channel)
    publish.response(suite, channel, **fmt)
    time.sleep(0.2)
    s.sendall(GET % b"/fine")
    data, _ = read_for(s, 3)
    assert statuses(data) == [200, 200], data
    assert b"Grip-" not in data
