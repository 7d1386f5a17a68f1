# SPDX-License-Identifier: AGPL-3.0-or-later
"""Start and stop a suite of services from generated pushpin.conf and routes files.

The suite under test is chosen by the environment variable SUITE:

  project       (default) $PROJECT_BIN/pushpin-runner, PROJECT_BIN defaulting to ./target/release
  pushpin-1.36  the reference packages of Debian 12 (pushpin, condure, zurl)
  pushpin-2.0   a build of Pushpin 2.0 whose binaries are in $PUSHPIN2_BIN
  command       any other: $SUITE_COMMAND is run with --config=FILE, a pushpin.conf that names the ports and the routes file

With SUITE=project, SWAP puts the original's processes in place of some of ours, for example
SWAP=frontend:condure,proxy:/usr/bin/pushpin-proxy,handler:/usr/bin/pushpin-handler,outbound:zurl (frontend also: mongrel2).

Every suite gets its own directory, ipc prefix and ports, so several may run at once.
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SUITE = os.environ.get("SUITE", "project")
SWAP = dict(pair.split(":", 1) for pair in os.environ.get("SWAP", "").split(",") if pair)
START_TIMEOUT = float(os.environ.get("SUITE_START_TIMEOUT", "20"))


class PortBlock:
    """Free ports: `http`, and 5560 to 5563 plus `offset`. They are nobody else's among the tests that run on this machine, also
    before anything listens on them, for as long as the block is kept."""

    def __init__(self) -> None:
        for _ in range(200):
            self.offset = random.randrange(4000, 22000, 10)
            self.http = 7999 + self.offset
            if self._is_ours() and all(_is_free(p) for p in [self.http, *range(5560 + self.offset, 5564 + self.offset)]):
                return
        raise RuntimeError("no free ports")

    def _is_ours(self) -> bool:
        # The address is one of the network namespace, as the ports are, and is given back with the socket.
        self._claim = socket.socket(socket.AF_UNIX)
        try:
            self._claim.bind(f"\0grip-conformance-ports-{self.offset}")
        except OSError:
            return False
        return True


def _is_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_for_port(port: int, timeout: float, host: str = "127.0.0.1") -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing listens on port {port} after {timeout} s")
            time.sleep(0.05)


@dataclass
class Suite:
    """One running suite. Settings go to pushpin.conf as {section: {key: value}}."""

    routes: list[str]
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    name: str = SUITE

    def __post_init__(self) -> None:
        self._tmp = tempfile.TemporaryDirectory(prefix="suite-")
        self.dir = Path(self._tmp.name)
        self._ports = PortBlock()
        self.http_port, self.port_offset = self._ports.http, self._ports.offset
        self.process: subprocess.Popen | None = None

    # addresses a user of the suite would use -------------------------------------------------
    @property
    def publish_port(self) -> int:
        """HTTP control port (POST /publish/)."""
        return 5561 + self.port_offset

    @property
    def pull_spec(self) -> str:
        return f"tcp://127.0.0.1:{5560 + self.port_offset}"

    @property
    def sub_spec(self) -> str:
        return f"tcp://127.0.0.1:{5562 + self.port_offset}"

    @property
    def command_spec(self) -> str:
        return f"tcp://127.0.0.1:{5563 + self.port_offset}"

    @property
    def stats_spec(self) -> str:
        return f"ipc://{self.dir}/run/c-stats"

    # life cycle ------------------------------------------------------------------------------
    def start(self) -> "Suite":
        (self.dir / "run").mkdir(exist_ok=True)
        (self.dir / "log").mkdir(exist_ok=True)
        (self.dir / "runner" / "certs").mkdir(parents=True, exist_ok=True)
        (self.dir / "routes").write_text("\n".join(self.routes) + "\n")
        (self.dir / "pushpin.conf").write_text(self._config())
        out = open(self.dir / "log" / "runner.out", "wb")
        self.process = subprocess.Popen(
            [*self._command(), f"--config={self.dir}/pushpin.conf"],
            stdout=out, stderr=subprocess.STDOUT, cwd=self.dir, start_new_session=True,
        )
        try:
            wait_for_port(self.http_port, START_TIMEOUT)
            wait_for_port(self.publish_port, START_TIMEOUT)
        except TimeoutError:
            log = self.logs()
            self.stop()
            raise RuntimeError(f"suite {self.name} did not start:\n{log}")
        time.sleep(0.3)
        return self

    def stop(self) -> int | None:
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        code = self.process.returncode
        self.process = None
        return code

    def write_routes(self, lines: list[str]) -> None:
        """Replace the routes file the way an editor does: write aside, then rename over it."""
        tmp = self.dir / "routes.new"
        tmp.write_text("\n".join(lines) + "\n")
        tmp.rename(self.dir / "routes")

    def logs(self) -> str:
        parts = []
        for p in sorted((self.dir / "log").glob("*")):
            parts.append(f"--- {p.name}\n{p.read_text(errors='replace')[-6000:]}")
        return "\n".join(parts)

    def children(self) -> dict[str, int]:
        """Map process name -> pid for every descendant of the runner."""
        assert self.process
        parents: dict[int, list[int]] = {}
        names: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            pid = int(entry.name)
            comm = stat[stat.index("(") + 1 : stat.rindex(")")]
            ppid = int(stat[stat.rindex(")") + 2 :].split()[1])
            parents.setdefault(ppid, []).append(pid)
            names[pid] = comm
        found: dict[str, int] = {}
        todo = [self.process.pid]
        while todo:
            for child in parents.get(todo.pop(), []):
                found[names[child]] = child
                todo.append(child)
        return found

    # configuration ---------------------------------------------------------------------------
    def _command(self) -> list[str]:
        if self.name == "project":
            return [str(Path(os.environ.get("PROJECT_BIN", "target/release")).resolve() / "pushpin-runner")]
        if self.name == "pushpin-1.36":
            return ["pushpin"]
        if self.name == "pushpin-2.0":
            return [str(Path(os.environ["PUSHPIN2_BIN"]).resolve() / "pushpin")]
        if self.name == "command":
            return shlex.split(os.environ["SUITE_COMMAND"])
        raise ValueError(f"unknown SUITE {self.name}")

    def _config(self) -> str:
        conf: dict[str, dict[str, object]] = {
            "global": {
                "include": "{libdir}/internal.conf",
                "rundir": f"{self.dir}/run",
                "ipc_prefix": "c-",
                "port_offset": self.port_offset,
            },
            "runner": {
                "http_port": f"127.0.0.1:{self.http_port}",
                "logdir": f"{self.dir}/log",
                "log_level": 2,
                "client_maxconn": 1000,
            },
            "proxy": {"routesfile": "routes", "sig_key": "changeme"},
            "handler": {
                "push_in_spec": "tcp://127.0.0.1:5560",
                "push_in_sub_specs": "tcp://127.0.0.1:5562",
                "push_in_http_addr": "127.0.0.1",
                "push_in_http_port": 5561,
                "command_spec": "tcp://127.0.0.1:5563",
                "stats_spec": self.stats_spec,
            },
        }
        if self.name == "project":
            del conf["global"]["include"]
            conf["runner"].update(_swapped())
        if self.name == "pushpin-1.36":
            conf["runner"]["services"] = "condure,zurl,pushpin-proxy,pushpin-handler"
            conf["proxy"].update(
                zurl_out_specs="ipc://{rundir}/{ipc_prefix}zurl-in",
                zurl_out_stream_specs="ipc://{rundir}/{ipc_prefix}zurl-in-stream",
                zurl_in_specs="ipc://{rundir}/{ipc_prefix}zurl-out",
            )
        if self.name == "pushpin-2.0":
            conf["runner"]["services"] = "connmgr,proxy,handler"
        for section, values in self.settings.items():
            conf.setdefault(section, {}).update(values)
        lines = []
        for section, values in conf.items():
            lines.append(f"[{section}]")
            lines += [f"{k}={_setting(v)}" for k, v in values.items()]
            lines.append("")
        return "\n".join(lines)


def _swapped() -> dict[str, str]:
    """The [runner] settings that replace some of our processes by those that SWAP names."""
    if not SWAP:
        return {}
    services, programs = [], {}
    for part in ("frontend", "proxy", "handler", "outbound"):
        other = SWAP.get(part)
        if other in ("condure", "zurl"):
            services.append(other)
        elif other == "mongrel2":
            services += ["mongrel2", "m2adapter"]
        else:
            services.append(part)
            if other:
                programs[f"{part}_bin"] = other
    return {"services": ",".join(services), **programs}


def _setting(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
