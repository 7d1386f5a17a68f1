# SPDX-License-Identifier: AGPL-3.0-or-later
"""One suite, each part ours or Pushpin's, in a directory and on ports of its own."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import zmq

PATIENCE = 20

FRONTENDS = ["frontend", "condure", "mongrel2"]
PROXIES = ["proxy", "pushpin-proxy"]
HANDLERS = ["handler", "pushpin-handler"]
OUTBOUNDS = ["outbound", "zurl"]

# What must be installed for a part, and the Debian package that has it.
NEEDS = {
    "condure": [("condure", "condure")],
    "mongrel2": [("mongrel2", "mongrel2-core"), ("m2sh", "mongrel2-core"), ("m2adapter", "pushpin")],
    "pushpin-proxy": [("pushpin-proxy", "pushpin")],
    "pushpin-handler": [("pushpin-handler", "pushpin")],
    "zurl": [("zurl", "zurl")],
}


def original(name):
    """Where a program of Pushpin's is; ours may have the same name."""
    return shutil.which(name, path="/usr/bin:/usr/local/bin")


def missing(parts):
    """Packages that these parts lack."""
    lacks = [package for part in parts for program, package in NEEDS.get(part, []) if not original(program)]
    return sorted(set(lacks))


def until(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def free_ports(start, count):
    """Ports below those that the kernel gives to outgoing connections, so that none of those can take one first."""
    found = []
    port = start
    while len(found) < count:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                found.append(port)
            except OSError:
                pass
        port += 1
    return found


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class Mix:
    """The parts are the names that `services` has for them."""

    def __init__(self, parts, programs, directory, first_port, backend):
        self.parts, self.directory = parts, pathlib.Path(directory)
        self.programs = pathlib.Path(programs).resolve()
        self.port, self.publish_port, self.pull, self.sub, self.command = free_ports(first_port, 5)
        self.runner = None
        # Seconds that a busy machine may add to what is promised.
        self.slack = float(os.environ.get("SLACK", "0"))
        frontend, proxy, handler, outbound = parts
        services = [*(["mongrel2", "m2adapter"] if frontend == "mongrel2" else [frontend]), "proxy", "handler", outbound]
        bins = []
        if proxy == "pushpin-proxy":
            bins.append(f"proxy_bin={original('pushpin-proxy')}")
        if handler == "pushpin-handler":
            bins.append(f"handler_bin={original('pushpin-handler')}")
        newline = "\n"
        (self.directory / "pushpin.conf").write_text(f"""[global]
rundir={directory}/run
ipc_prefix=x-
[runner]
services={",".join(services)}
http_port=127.0.0.1:{self.port}
logdir={directory}/log
client_maxconn=1000
recover_wait={os.environ.get("RECOVER_WAIT", "0")}
{newline.join(bins)}
[proxy]
routesfile=routes
sig_key=changeme
auto_cross_origin=true
[handler]
push_in_spec=tcp://127.0.0.1:{self.pull}
push_in_sub_specs=tcp://127.0.0.1:{self.sub}
push_in_http_addr=127.0.0.1
push_in_http_port={self.publish_port}
command_spec=tcp://127.0.0.1:{self.command}
stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats
message_wait=500
stats_report_interval=2
""")
        (self.directory / "routes").write_text(
            f"*,path_beg=/ws 127.0.0.1:{backend.ws_port}\n"
            f"*,path_beg=/woh 127.0.0.1:{backend.port},over_http\n"
            f"* 127.0.0.1:{backend.port}\n"
        )

    def start(self):
        out = open(self.directory / "runner.out", "wb")
        command = [self.programs / "pushpin-runner", f"--config={self.directory}/pushpin.conf"]
        self.runner = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=self.directory)
        until("the suite listens", lambda: answers(self.port) and answers(self.publish_port))
        # Pushpin's programs do not say when they have found each other.
        until("the suite serves", self.serves)
        self.check_programs()

    def programs_that_run(self):
        """By the name of its pid file, the program of each process: nothing else shows that a mix is what it says."""
        names = sorted(f.stem for f in (self.directory / "run").glob("*.pid"))
        return {name: os.readlink(f"/proc/{self.pid(name)}/exe") for name in names}

    def check_programs(self):
        expected = {}
        names = {"frontend": "pushpin-frontend", "proxy": "pushpin-proxy", "handler": "pushpin-handler", "outbound": "pushpin-outbound"}
        for part in self.parts:
            if part == "mongrel2":
                expected |= {f"mongrel2_{self.port}": original("mongrel2"), "m2adapter": original("m2adapter")}
            elif part in names:
                expected[names[part]] = str(self.programs / names[part])
            else:
                expected[part] = original(part)
        # A program of Pushpin's is the runner for a moment, before it is itself.
        until(f"these run: {expected}", lambda: self.programs_that_run() == expected)

    def serves(self):
        try:
            # Pushpin's proxy does not wait for a handler, so it has to have found one.
            path = "hold?h=Grip-Hold:stream&h=Grip-Channel:begin"
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=2).status == 200
        except OSError:
            return False

    def stop(self):
        if self.runner:
            self.runner.send_signal(signal.SIGTERM)
            try:
                return self.runner.wait(10)
            finally:
                self.runner.kill()

    def pid(self, name):
        """Process id of a part, by the name of its pid file."""
        try:
            return int((self.directory / "run" / f"{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            # It is being started again.
            return None

    def logs(self):
        files = [self.directory / "runner.out", *sorted((self.directory / "log").glob("*"))]
        return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files if f.exists())

    # Publishing ---------------------------------------------------------------------------------

    def publish(self, *items):
        data = json.dumps({"items": list(items)}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.publish_port}/publish/", data=data)
        assert urllib.request.urlopen(request, timeout=PATIENCE).status == 200

    def push(self, item):
        socket = zmq.Context.instance().socket(zmq.PUSH)
        socket.linger = 5000
        socket.connect(f"tcp://127.0.0.1:{self.pull}")
        socket.send(b"J" + json.dumps(item).encode())
        socket.close()

    def publisher(self):
        """A socket whose messages are subscribed to."""
        socket = zmq.Context.instance().socket(zmq.XPUB)
        socket.linger = 0
        socket.connect(f"tcp://127.0.0.1:{self.sub}")
        return socket

    def ask(self, method, **args):
        """A command: success and value, or the condition."""
        socket = zmq.Context.instance().socket(zmq.REQ)
        socket.linger = 0
        socket.connect(f"tcp://127.0.0.1:{self.command}")
        socket.send(encode({"id": "1", "method": method, "args": args}))
        assert socket.poll(PATIENCE * 1000), f"no answer to {method}"
        answer = decode(socket.recv())
        socket.close()
        return answer.get(b"value", answer.get(b"condition")), answer[b"success"]

    def statistics(self):
        socket = zmq.Context.instance().socket(zmq.SUB)
        socket.linger = 0
        socket.subscribe(b"")
        socket.connect(f"ipc://{self.directory}/run/x-stats")
        return socket


# Tnetstrings, as far as commands and statistics need them --------------------------------------


def encode(value):
    match value:
        case None:
            body, kind = b"", b"~"
        case bool():
            body, kind = (b"true" if value else b"false"), b"!"
        case int():
            body, kind = str(value).encode(), b"#"
        case str():
            body, kind = value.encode(), b","
        case list():
            body, kind = b"".join(map(encode, value)), b"]"
        case dict():
            body, kind = b"".join(encode(k) + encode(v) for k, v in value.items()), b"}"
    return str(len(body)).encode() + b":" + body + kind


def decode(data):
    return read(data)[0]


def read(data):
    length, rest = data.split(b":", 1)
    size = int(length)
    body, kind, rest = rest[:size], rest[size : size + 1], rest[size + 1 :]
    match kind:
        case b"~":
            return None, rest
        case b"!":
            return body == b"true", rest
        case b"#":
            return int(body), rest
        case b",":
            return body, rest
    items = []
    while body:
        item, body = read(body)
        items.append(item)
    return (items if kind == b"]" else dict(zip(items[::2], items[1::2]))), rest
