# SPDX-License-Identifier: AGPL-3.0-or-later
"""What happens when parts die, when the suite is stopped, and when it can not start."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from harness import publish
from harness.client import Connection
from harness.hold import new_channel, wait_subscribed
from harness.origin import Response, hold_stream
from harness.suite import Suite
from harness.versions import REFERENCES, xfail_on

# process names of each part, by suite; the kernel keeps 15 characters of a name
PARTS = {
    "frontend": ("pushpin-frontend", "condure", "pushpin-connmgr"),
    "outbound": ("pushpin-outbound", "zurl"),
    "proxy": ("pushpin-proxy",),
    "handler": ("pushpin-handler",),
}


def pid_of(suite: Suite, part: str) -> int:
    children = suite.children()
    for name in PARTS[part]:
        if name[:15] in children:
            return children[name[:15]]
    pytest.skip(f"this suite has no process of its own for {part}: {sorted(children)}")


def serves(suite: Suite) -> bool:
    try:
        with Connection(suite.http_port, timeout=2) as c:
            return c.request("GET", "/plain").status == 200
    except (OSError, EOFError, TimeoutError):
        return False


def delivers(suite: Suite) -> bool:
    channel = new_channel()
    try:
        with Connection(suite.http_port, timeout=2) as c:
            c.start("GET", f"/stream/{channel}")
            if c.read_head().status != 200:
                return False
            wait_subscribed(suite, channel, timeout=2)
            publish.stream(suite, channel, "delivered\n")
            return "delivered" in c.read_text("hi\ndelivered\n")
    except (OSError, EOFError, TimeoutError, AssertionError):
        return False


def within(seconds: float, check) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.1)
    return False


def back(suite: Suite, check) -> bool:
    """Whether the check passes within 10 s. A runner that has ended brings nothing back."""
    time.sleep(0.3)
    return within(10, lambda: suite.process.poll() is not None or check(suite)) and suite.process.poll() is None


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def processes_of(suite: Suite) -> set[int]:
    """Every process whose command line names the directory of the suite."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(suite.dir).encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                pass
    return found


@pytest.fixture
def served(start_suite, origin):
    origin.handler = lambda req: (hold_stream(req.path.split("/")[-1], "hi\n") if req.path.startswith("/stream/")
                                  else Response(200, [], "fine\n"))
    return start_suite(routes=["* 127.0.0.1:{port}"])


# a part dies ---------------------------------------------------------------------------------
@xfail_on(*REFERENCES, reason="the runner of the reference ends when a part dies")
@pytest.mark.parametrize("part", PARTS)
def test_service_is_back_after_a_part_was_killed(served, part):
    os.kill(pid_of(served, part), signal.SIGKILL)
    assert back(served, serves), f"requests are not served 10 s after {part} was killed"
    assert back(served, delivers), f"publishing does not reach held clients 10 s after {part} was killed"


@xfail_on(*REFERENCES, reason="the runner of the reference ends when a part dies")
def test_service_is_back_after_all_parts_were_killed(served):
    for pid in served.children().values():
        os.kill(pid, signal.SIGKILL)
    assert back(served, lambda suite: serves(suite) and delivers(suite))


@pytest.mark.parametrize("part", PARTS)
def test_killed_part_leaves_a_working_suite_or_none(served, part):
    before = served.children()
    os.kill(pid_of(served, part), signal.SIGKILL)
    if within(3, lambda: served.process.poll() is not None):
        assert served.process.returncode != 0, "the runner ended with status 0 although a part died"
        assert within(3, lambda: not any(alive(p) for p in before.values())), "processes are left behind by a runner that gave up"
    else:
        assert within(10, lambda: serves(served)), "the runner lives on, but requests are not served"


# the end -------------------------------------------------------------------------------------
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_ends_everything_with_status_0(served, sig):
    children = served.children()
    assert len(children) >= 3
    served.process.send_signal(sig)
    assert served.process.wait(10) == 0
    left = {n for n, p in children.items() if alive(p)}
    assert not left, f"still running after the runner has ended: {left}"
    assert not processes_of(served)


def test_stop_with_held_connections(served):
    conns = []
    for _ in range(5):
        c = Connection(served.http_port)
        c.start("GET", f"/stream/{new_channel()}")
        c.read_head()
        c.read_text("hi\n")
        conns.append(c)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(10) == 0
    for c in conns:
        with pytest.raises(EOFError):
            while c.read_chunk():
                pass
            raise EOFError


def test_ports_are_free_after_the_stop(served):
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(10)
    for port in (served.http_port, served.publish_port):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))


@xfail_on(*REFERENCES, reason="zurl, proxy and handler of the reference leave their sockets behind")
def test_no_sockets_are_left_behind(served):
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(10)
    left = [p.name for p in (served.dir / "run").iterdir() if p.is_socket()]
    assert not left, f"left in the run directory: {left}"


def test_no_pid_files_are_left_behind(served):
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(10)
    assert not list((served.dir / "run").glob("*.pid"))


def test_suite_starts_again_in_the_same_directory(served):
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(10)
    served.start()
    assert serves(served)
    assert delivers(served)


def test_suite_starts_again_after_everything_was_killed(served):
    """Sockets and pid files of the dead are no obstacle."""
    pids = [served.process.pid, *served.children().values()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    served.process.wait(5)
    assert within(5, lambda: not any(alive(p) for p in pids))
    served.start()
    assert serves(served)
    assert delivers(served)


@xfail_on(*REFERENCES, reason="the parts of the reference live on without their runner")
def test_parts_end_when_the_runner_was_killed(served):
    pids = served.children()
    served.process.kill()
    served.process.wait(5)
    try:
        assert within(5, lambda: not any(alive(p) for p in pids.values())), "parts live on without their runner"
    finally:
        for pid in pids.values():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


# the start -----------------------------------------------------------------------------------
def start_expecting_failure(suite: Suite, conf: str | None = None, routes: str | None = None, timeout: float = 8.0):
    """Run the suite in the foreground; returns (exit status, everything it printed or logged)."""
    for name in ("run", "log"):
        (suite.dir / name).mkdir(exist_ok=True)
    (suite.dir / "runner" / "certs").mkdir(parents=True, exist_ok=True)
    (suite.dir / "routes").write_text("\n".join(suite.routes) + "\n" if routes is None else routes)
    (suite.dir / "pushpin.conf").write_text(suite._config() if conf is None else conf)
    out = suite.dir / "out"
    with open(out, "wb") as f:
        p = subprocess.Popen([*suite._command(), f"--config={suite.dir}/pushpin.conf"], cwd=suite.dir, stdout=f,
                             stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = p.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
            code = None
    return code, out.read_text(errors="replace") + suite.logs()


def test_client_port_in_use():
    suite = Suite(["* 127.0.0.1:1"])
    with socket.socket() as s:
        s.bind(("127.0.0.1", suite.http_port))
        s.listen()
        code, text = start_expecting_failure(suite)
    assert code not in (0, None), f"exit status {code}"
    assert str(suite.http_port) in text and "in use" in text.lower(), text[-1500:]
    assert not processes_of(suite)


@pytest.mark.parametrize("which, port", [("push_in_spec", 5560), ("push_in_sub_specs", 5562), ("command_spec", 5563)])
def test_zeromq_port_in_use(which, port):
    suite = Suite(["* 127.0.0.1:1"])
    port += suite.port_offset
    with socket.socket() as s:
        s.bind(("127.0.0.1", port))
        s.listen()
        code, text = start_expecting_failure(suite)
    assert code not in (0, None), f"exit status {code}"
    assert any(str(port) in line and "bind" in line for line in text.splitlines()), text[-1500:]
    assert not processes_of(suite)


def test_missing_config_file():
    suite = Suite([])
    p = subprocess.run([*suite._command(), "--config=/nonexistent/pushpin.conf"], capture_output=True, text=True, timeout=10)
    assert p.returncode not in (0, None)
    assert "/nonexistent/pushpin.conf" in p.stdout + p.stderr


def test_unknown_option():
    p = subprocess.run([*Suite([])._command(), "--no-such-option"], capture_output=True, text=True, timeout=10)
    assert p.returncode != 0
    assert "no-such-option" in p.stdout + p.stderr


def test_version_option():
    p = subprocess.run([*Suite([])._command(), "--version"], capture_output=True, text=True, timeout=10)
    assert p.returncode == 0
    assert any(ch.isdigit() for ch in p.stdout), p.stdout


def test_config_without_any_client_port():
    suite = Suite(["* 127.0.0.1:1"])
    conf = "\n".join(line for line in suite._config().splitlines() if not line.startswith("http_port="))
    code, text = start_expecting_failure(suite, conf)
    assert code not in (0, None)
    assert "port" in text.lower(), text[-500:]


@xfail_on("pushpin-1.36", reason="1.36 ignores names it does not know, and runs on with nothing")
def test_unknown_service_name():
    suite = Suite(["* 127.0.0.1:1"], {"runner": {"services": "no-such-service"}})
    code, text = start_expecting_failure(suite, timeout=3)
    assert code not in (0, None)
    assert "no-such-service" in text, text[-500:]


def test_bad_route_lines_do_not_stop_the_good_ones(start_suite, origin):
    origin.on("/plain", Response(200, [], "fine\n"))
    suite = start_suite(routes=["# comment", "this-route-has-no-target", "", "* 127.0.0.1:{port}"])
    assert serves(suite)
