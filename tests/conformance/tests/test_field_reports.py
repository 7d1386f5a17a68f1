# SPDX-License-Identifier: AGPL-3.0-or-later
"""What users reported elsewhere: configuration files, backends and publishers that were met in the field, each case with a
small reproduction of our own. The report that a case comes from is named at its section or test."""

import base64
import gzip
import hashlib
import hmac
import json
import re
import shutil
import subprocess
import time
import zlib
from pathlib import Path

import pytest

from harness import publish
from harness.client import Connection
from harness.hold import instruct, new_channel, open_poll, open_stream, send_stream
from harness.origin import Response, hold_response, hold_stream
from harness.suite import SUITE, Suite
from harness.versions import REFERENCES, skip_on, xfail_on

IPC = "ipc://{rundir}/{ipc_prefix}"
ZURL = {"zurl_out_specs": IPC + "zurl-in", "zurl_out_stream_specs": IPC + "zurl-in-stream", "zurl_in_specs": IPC + "zurl-out"}
OLD_SERVICES = {"services": "condure,zurl,pushpin-proxy,pushpin-handler"}
# What stands in the internal.conf of the 1.x packages, as far as the suite cannot do without it.
INTERNAL = {
    "proxy": {
        "condure_in_specs": "condure-out",
        "condure_in_stream_specs": "condure-out-stream",
        "condure_out_specs": "condure-in",
        "m2a_in_specs": "m2zhttp-out",
        "m2a_in_stream_specs": "m2zhttp-out-stream",
        "m2a_out_specs": "m2zhttp-in",
        "handler_inspect_spec": "inspect",
        "handler_accept_spec": "accept",
        "handler_retry_in_spec": "retry",
        "handler_ws_control_in_spec": "ws-control-in",
        "handler_ws_control_out_spec": "ws-control-out",
        "stats_spec": "proxy-stats",
        "command_spec": "proxy-command",
        "intreq_in_specs": "intreq-in",
        "intreq_in_stream_specs": "intreq-in-stream",
        "intreq_out_specs": "intreq-out",
    },
    "handler": {
        "proxy_inspect_spec": "inspect",
        "proxy_accept_spec": "accept",
        "proxy_retry_out_spec": "retry",
        "proxy_ws_control_in_spec": "ws-control-out",
        "proxy_ws_control_out_spec": "ws-control-in",
        "proxy_stats_spec": "proxy-stats",
        "proxy_command_spec": "proxy-command",
        "condure_in_stream_specs": "condure-out-stream",
        "condure_out_specs": "condure-in",
        "m2a_in_stream_specs": "m2zhttp-out-stream",
        "m2a_out_specs": "m2zhttp-in",
        "proxy_intreq_out_specs": "intreq-in",
        "proxy_intreq_out_stream_specs": "intreq-in-stream",
        "proxy_intreq_in_specs": "intreq-out",
    },
}
other_wiring = skip_on("pushpin-2.0", reason="its parts have other names for their sockets")


@pytest.fixture
def channel():
    return new_channel()


def get(suite, target="/", headers=(), timeout=5.0):
    with Connection(suite.http_port, timeout=timeout) as c:
        return c.request("GET", target, headers)


def ok(origin):
    origin.handler = lambda req: Response(200, [], "ok")


# configuration files -------------------------------------------------------------------------
@other_wiring
def test_file_that_names_zurls_sockets(start_suite, origin):
    """pushpin_dev.conf of tracim, and every 1.x file that overrides the packages' internal.conf, has zurl_*_specs in [proxy]
    and zurl among the services. Whatever plays zurl's part here, requests have to be answered."""
    ok(origin)
    suite = start_suite(proxy=ZURL, runner=OLD_SERVICES)
    assert get(suite).body == b"ok"


@other_wiring
def test_file_that_includes_internal_conf_by_its_path(start_suite, origin, tmp_path):
    """A start script of edgecanvas-fastly finds the package's internal.conf and includes it by its full path."""
    ok(origin)
    lines = []
    for section, keys in INTERNAL.items():
        lines += [f"[{section}]", *(f"{key}={IPC}{name}" for key, name in keys.items())]
    (tmp_path / "internal.conf").write_text("\n".join(lines) + "\n")
    suite = start_suite(**{"global": {"include": tmp_path / "internal.conf"}}, proxy=ZURL, runner=OLD_SERVICES)
    assert get(suite).body == b"ok"


def test_x_forwarded_for_as_the_shipped_file_writes_its_example(start_suite, origin):
    """The comment above the key shows its value in double quotes, so that is how people write it."""
    ok(origin)
    suite = start_suite(proxy={"x_forwarded_for": '"truncate:0,append"'})
    assert get(suite, headers=[("X-Forwarded-For", "192.0.2.1")]).status == 200


@pytest.mark.parametrize("section,key", [("handler", "message_block_size"), ("handler", "message_hwm"), ("handler", "id_cache_ttl")])
def test_number_without_a_value_counts_as_not_set(start_suite, origin, section, key):
    """The shipped file has keys without a value throughout, and `#message_block_size=` for whoever wants to set it."""
    ok(origin)
    suite = start_suite(**{section: {key: ""}})
    assert get(suite).body == b"ok"


def test_base64_key_without_padding(start_suite, origin):
    """Keys are copied from GRIP_URL or from a generator that leaves out the `=` at the end."""
    ok(origin)
    suite = start_suite(proxy={"sig_key": "base64:c2VjcmV0LWtleQ"})
    get(suite)
    head, claims, tag = origin.next_request().header("Grip-Sig").split(".")
    want = hmac.new(b"secret-key", f"{head}.{claims}".encode(), hashlib.sha256).digest()
    assert tag == base64.urlsafe_b64encode(want).rstrip(b"=").decode()


def make_key(folder: Path, kind: str) -> tuple[Path, Path]:
    """Files with a new private key and with its public key."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    algorithm = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "EC" else ["-algorithm", "RSA"]
    private, public = folder / "private.pem", folder / "public.pem"
    subprocess.run(["openssl", "genpkey", *algorithm, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def as_der(signature: bytes) -> bytes:
    """The signature of a token (r and s, 32 bytes each) as openssl wants it."""
    numbers = b""
    for number in (signature[:32], signature[32:]):
        number = number.lstrip(b"\0") or b"\0"
        number = (b"\0" if number[0] & 0x80 else b"") + number
        numbers += bytes([2, len(number)]) + number
    return bytes([0x30, len(numbers)]) + numbers


def test_requests_are_signed_with_a_private_key(start_suite, origin, tmp_path):
    """Since 1.36 the key may be a file with an EC or RSA key; backends then hold only the public one."""
    ok(origin)
    private, public = make_key(tmp_path, "EC")
    suite = start_suite(proxy={"sig_key": f"file:{private}"})
    get(suite)
    token = origin.next_request().header("Grip-Sig")
    assert token is not None, "the request is not signed"
    head, claims, tag = token.split(".")
    assert json.loads(decode(head))["alg"] == "ES256"
    (tmp_path / "tag").write_bytes(as_der(decode(tag)))
    check = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", tmp_path / "tag"]
    assert subprocess.run(check, input=f"{head}.{claims}".encode(), capture_output=True).returncode == 0


def test_interface_name_in_an_address(start_suite, origin, channel):
    """ZeroMQ takes the name of an interface where it binds, such as tcp://eth0:5560."""
    origin.on("/s", hold_stream(channel, "hi\n"))
    suite = start_suite(handler={"push_in_spec": "tcp://lo:5560"})
    c, _ = open_stream(suite, "/s", channel)
    push = publish.Push(suite)
    with c:
        c.read_text("hi\n")
        push.send({"channel": channel, "formats": {"http-stream": {"content": "by name\n"}}})
        assert c.read_text("by name\n") == "by name\n"
    push.close()


# starting ------------------------------------------------------------------------------------
class SuiteWith(Suite):
    """A suite whose runner gets further options."""

    options: tuple[str, ...] = ()

    def _command(self) -> list[str]:
        return [*super()._command(), *self.options]


@pytest.fixture
def start_with(origin):
    started = []

    def start(*options: str, **settings) -> SuiteWith:
        suite = SuiteWith([f"* 127.0.0.1:{origin.port},over_http"], settings)
        suite.options = options
        started.append(suite)
        return suite.start()

    yield start
    for suite in started:
        suite.stop()


def wait_for_line(path: Path, pattern: str, timeout: float = 5.0) -> str | None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            if re.search(pattern, line):
                return line
        time.sleep(0.05)
    return None


def test_runner_says_when_everything_has_started(start_with):
    """`fastly compute serve` reads what the runner prints and goes on at a line that ends in `started`; it gives --config and
    --verbose and nothing else."""
    suite = start_with("--verbose")
    assert wait_for_line(suite.dir / "log" / "runner.out", r"started$")


def test_proxy_takes_the_options_that_the_1x_runner_gives_it(tmp_path):
    """The 1.x runner starts its proxy with --quiet-check. A proxy that ends over it cannot be swapped in."""
    suite = Suite(["* test"])
    (suite.dir / "routes").write_text("* test\n")
    (suite.dir / "run").mkdir()
    (suite.dir / "pushpin.conf").write_text(suite._config())
    folder = Path(suite._command()[0]).parent if SUITE == "project" else None
    program = str(folder / "pushpin-proxy") if folder else shutil.which("pushpin-proxy")
    if not program:
        pytest.skip("no pushpin-proxy of its own")
    options = [f"--config={suite.dir}/pushpin.conf", "--ipc-prefix=c-", f"--logfile={tmp_path}/proxy.log", "--loglevel=2", "--quiet-check"]
    process = subprocess.Popen([program, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=suite.dir)
    try:
        process.wait(1.5)
    except subprocess.TimeoutExpired:
        return
    else:
        raise AssertionError(f"ended with {process.returncode}: {process.stdout.read().decode()}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


# compressed bodies of backends ---------------------------------------------------------------
TEXT = b"function hello() { return 'hello' }\n" * 30
CODINGS = {"gzip": gzip.compress, "deflate": zlib.compress}


def readable(resp) -> bytes:
    """The body as a client understands it: with the coding that the response names, if any, taken off."""
    coding = resp.header("Content-Encoding")
    return {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}[coding](resp.body)


@xfail_on("pushpin-2.0", reason="hides the coding without taking it off")
@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_body_is_readable(suite, origin, coding):
    """Files that lie compressed on the server, and backends that compress whatever was asked for (h3js/h3#891,
    ai-ecoverse/slicc#3037; Pushpin's own change of 1.11). Hiding the coding without taking it off leaves garbage."""
    body = CODINGS[coding](TEXT)
    origin.on("/app.js", Response(200, [("Content-Type", "text/javascript"), ("Content-Encoding", coding)], body))
    assert readable(get(suite, "/app.js", [("Accept-Encoding", "gzip, deflate")])) == TEXT


@xfail_on("pushpin-2.0", reason="hides the coding without taking it off")
def test_compressed_answer_for_the_timeout_is_readable(suite, origin, channel):
    extra = [("Content-Encoding", "gzip"), ("Grip-Timeout", "5")]
    origin.on("/p", hold_response(channel, gzip.compress(b"nothing new\n"), extra))
    assert readable(get(suite, "/p", timeout=12)) == b"nothing new\n"


# chunked uploads -----------------------------------------------------------------------------
def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def upload(suite, pieces, method="POST", pause=0.05):
    """Send a chunked body piece by piece and read the answer."""
    with Connection(suite.http_port) as c:
        c.send_head(method, "/u", [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")])
        for piece in pieces:
            time.sleep(pause)
            c.send_raw(chunk(piece))
        c.send_raw(b"0\r\n\r\n")
        resp = c.read_head()
        resp.body = c.read_rest()
        return resp


@pytest.mark.parametrize("pieces", [(b'{"a":', b"1}"), (b"x" * 9000,)], ids=["two small pieces", "9000 bytes"])
def test_short_chunked_upload_gets_a_length(suite, origin, pieces):
    """WSGI servers and frameworks take a request without Content-Length for one without a body (django/daphne#476,
    benoitc/gunicorn#2947), and large proxies send every body chunked (avantifellows/plio-backend#439). Pushpin looks at the
    first 10,000 bytes before it asks the backend, so that a body shorter than that has its length. Each time, not sometimes."""
    ok(origin)
    for _ in range(3):
        assert upload(suite, pieces).status == 200
        req = origin.next_request()
        assert (req.header("Content-Length"), req.header("Transfer-Encoding")) == (str(len(b"".join(pieces))), None)
        assert req.body == b"".join(pieces)


# JSON of publishers and backends -------------------------------------------------------------
def post(suite, body: bytes):
    with Connection(suite.publish_port) as c:
        return c.request("POST", "/publish/", [("Content-Type", "application/json")], body)


def item(channel: str, content: str) -> bytes:
    """An item whose content stands in the text as it is."""
    return b'{"items":[{"channel":"%s","formats":{"http-stream":{"content":"%s"}}}]}' % (channel.encode(), content.encode())


@pytest.fixture
def stream(suite, origin, channel):
    origin.on("/s", hold_stream(channel, "hi\n"))
    c, _ = open_stream(suite, "/s", channel)
    with c:
        c.read_text("hi\n")
        yield c


def test_publish_with_a_byte_order_mark(suite, stream, channel):
    """Windows tools put one in front (modelcontextprotocol/registry#1528, fastify/secure-json-parse#5)."""
    assert post(suite, b"\xef\xbb\xbf" + item(channel, r"marked\n")).status == 200
    assert stream.read_text("marked\n") == "marked\n"


def test_publish_with_half_of_a_surrogate_pair(suite, stream, channel):
    """A script that cuts a text at so many characters cuts emoji in two (serde-rs/json#495, #827). The message goes out, with a
    replacement for the half that is left."""
    assert post(suite, item(channel, r"cut \ud83d;\n")).status == 200
    assert re.fullmatch("cut (\\?|\ufffd);\n", stream.read_chunk().decode())


def test_publish_with_a_line_end_inside_a_text(suite, stream, channel):
    """Shell scripts put texts of several lines into JSON as they are (eclipse-hawkbit/hawkbit#1340, nextcloud/appstore#533)."""
    assert post(suite, item(channel, "data: one\ndata: two\n\n")).status == 200
    assert stream.read_text("data: one\ndata: two\n\n") == "data: one\ndata: two\n\n"


def test_instruct_with_a_byte_order_mark(suite, origin, channel):
    """PHP files saved with a mark print it before everything else."""
    text = json.dumps({"hold": {"mode": "stream", "channels": [{"name": channel}]}, "response": {"body": "hi\n"}})
    origin.on("/i", Response(200, [("Content-Type", "application/grip-instruct")], b"\xef\xbb\xbf" + text.encode()))
    c, head = open_stream(suite, "/i", channel)
    with c:
        assert (head.status, c.read_text("hi\n")) == (200, "hi\n")


def test_routes_file_with_a_byte_order_mark(start_suite, origin):
    ok(origin)
    assert get(start_suite(routes=["\ufeff* 127.0.0.1:{port}"])).body == b"ok"


# large heads of backends ---------------------------------------------------------------------
@xfail_on("pushpin-2.0", reason="takes heads of 8 kB and 64 headers")
def test_two_thousand_channels_in_one_header(start_suite, origin, channel):
    """The backend of octii subscribes each user to all their channels by one Grip-Channel header, and sets the maximum of
    subscriptions to 90,000."""
    names = [f"{channel}-{i:05}" for i in range(2000)]
    origin.on("/s", hold_stream(", ".join(names), "hi\n"))
    suite = start_suite(handler={"connection_subscription_max": 90000})
    c, head = open_stream(suite, "/s", names[-1])
    with c:
        assert (head.status, c.read_text("hi\n")) == (200, "hi\n")
        send_stream(suite, names[1234], "to one of many\n")
        assert c.read_text("to one of many\n") == "to one of many\n"


@xfail_on("pushpin-2.0", reason="takes heads of 8 kB and 64 headers")
def test_two_hundred_channel_headers(start_suite, origin, channel):
    names = [f"{channel}-{i}" for i in range(200)]
    origin.on("/s", hold_stream(names[0], "hi\n", [("Grip-Channel", name) for name in names[1:]]))
    suite = start_suite(handler={"connection_subscription_max": 90000})
    c, head = open_stream(suite, "/s", names[-1])
    with c:
        assert (head.status, c.read_text("hi\n")) == (200, "hi\n")


# responses that cannot have a body -----------------------------------------------------------
@xfail_on(*REFERENCES, reason="holds the connection on, and writes messages behind the answer of a HEAD")
def test_head_of_an_event_stream_leaves_the_connection_usable(suite, origin, channel):
    """Monitors ask event streams for their head (kemalcr/kemal#798, vivekchand/clawmetry#248). Nothing can follow it, so there
    is nothing to hold: the next request on the connection must be answered."""
    origin.on("/s", hold_stream(channel, "hi\n", content_type="text/event-stream"))
    origin.on("/next", Response(200, [], "next"))
    with Connection(suite.http_port) as c:
        head = c.request("HEAD", "/s")
        assert (head.status, head.header("Content-Type")) == (200, "text/event-stream")
        assert c.request("GET", "/next").body == b"next"


@xfail_on(*REFERENCES, reason="holds the connection on")
def test_held_204_leaves_the_connection_usable(suite, origin, channel):
    """Frameworks answer 204 by themselves when the body is empty. For the client that is a complete response."""
    origin.on("/s", Response(204, [("Grip-Hold", "stream"), ("Grip-Channel", channel)], None))
    origin.on("/next", Response(200, [], "next"))
    with Connection(suite.http_port) as c:
        assert c.request("GET", "/s").status == 204
        assert c.request("GET", "/next").body == b"next"
