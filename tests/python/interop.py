# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official Python clients and django-eventstream, unchanged, with the suite. Argument: the directory of the programs."""

import functools
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import gripcontrol
import pubcontrol

from suite import free_ports, is_open, until as until_within

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = pathlib.Path(sys.argv[1]).resolve()
PATIENCE = 60
until = functools.partial(until_within, patience=PATIENCE)


class Suite:
    """The suite and the site, on ports of their own."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.port, self.site, self.publish, self.pull, self.sub, self.command = free_ports(6)
        config = f"""[global]
rundir={directory}/run
[runner]
http_port=127.0.0.1:{self.port}
logdir={directory}/log
[proxy]
routesfile=routes
sig_key=changeme
[handler]
push_in_spec=tcp://127.0.0.1:{self.pull}
push_in_sub_specs=tcp://127.0.0.1:{self.sub}
push_in_http_addr=127.0.0.1
push_in_http_port={self.publish}
command_spec=tcp://127.0.0.1:{self.command}
"""
        (self.directory / "pushpin.conf").write_text(config)
        (self.directory / "routes").write_text(f"* 127.0.0.1:{self.site}\n")
        self.processes = []
        self.start([PROGRAMS / "pushpin-runner", f"--config={directory}/pushpin.conf"], "runner.out")
        site = [sys.executable, HERE / "site_with_events.py", str(self.site), str(self.publish), f"{directory}/events.db"]
        self.start(site, "site.out")
        until("the suite has started", lambda: " started\n" in (self.directory / "runner.out").read_text())
        until("the site answers", lambda: is_open(self.site))

    def start(self, command, output):
        with open(self.directory / output, "w") as out:
            process = subprocess.Popen(command, cwd=self.directory, stdout=out, stderr=out)
        self.processes.append(process)

    def handler(self):
        """The process id of the handler, a child of the runner."""
        runner = self.processes[0].pid
        children = pathlib.Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
        for child in children:
            try:
                name = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]
            except FileNotFoundError:
                continue
            if name.endswith(b"pushpin-handler"):
                return int(child)
        return None

    def kill_handler(self):
        old = self.handler()
        os.kill(old, signal.SIGKILL)
        until("there is another handler", lambda: self.handler() not in (None, old) and is_open(self.publish))

    def send(self, channel, data, skip=""):
        query = urllib.parse.urlencode({"channel": channel, "data": data, "skip": skip})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.site}/send?{query}", timeout=PATIENCE) as response:
            assert response.status == 200

    def logs(self):
        return "".join(f"--- {f}\n{f.read_text()[-4000:]}" for f in [*self.directory.glob("log/*"), *self.directory.glob("*.out")])

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(PATIENCE)


class EventSource(threading.Thread):
    """As browsers have it: comes back with the id of the last event."""

    def __init__(self, suite, channels, user=None):
        super().__init__(daemon=True)
        self.suite, self.user = suite, user
        self.path = "/events/?" + "&".join(f"channel={channel}" for channel in channels)
        self.got, self.errors, self.opened = [], [], 0
        self.last_id, self.sock, self.stopped = None, None, False
        self.start()

    def run(self):
        while not self.stopped:
            try:
                self.read()
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.05)

    def read(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.suite.port, timeout=PATIENCE)
        connection.connect()
        self.sock = connection.sock
        headers = {"Accept": "text/event-stream"}
        if self.user:
            headers["X-User"] = self.user
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        connection.request("GET", self.path, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            raise OSError(response.status)
        event = {}
        while line := response.readline():
            line = line.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(":")
                event[name] = value.strip()
                continue
            if event.get("event") == "stream-open":
                self.opened += 1
            elif event.get("event") == "stream-error":
                self.errors.append(json.loads(event["data"])["condition"])
                self.stopped = True
            elif event.get("event") == "stream-reset":
                self.errors.append("reset")
            elif event.get("event") == "message":
                self.got.append(json.loads(event["data"]))
            if event.get("id"):
                self.last_id = event["id"]
            event = {}
        raise OSError("the stream has ended")

    def drop(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass

    def stop(self):
        self.stopped = True
        self.drop()


def reliable(suite):
    """200 events with reconnects and deaths of the handler between them: nothing is lost or repeated, and in order."""
    readers = [EventSource(suite, ["room"]), EventSource(suite, ["room"], "alice"), EventSource(suite, ["room"], "bob")]
    until("all are there", lambda: all(reader.opened for reader in readers))
    for number in range(200):
        suite.send("room", number)
        if number % 23 == 7:
            readers[number % 3].drop()
        if number in (60, 130):
            suite.kill_handler()
    for reader in readers:
        until("all have come", lambda: len(reader.got) >= 200)
        assert reader.got == list(range(200)), (reader.user, reader.got)
        assert reader.errors == [], reader.errors
        reader.stop()


def private(suite):
    """Channels of one user reach no other, and skipped users get nothing, also not when they ask again."""
    bob = EventSource(suite, ["lobby", "private-bob"], "bob")
    alice = EventSource(suite, ["lobby"], "alice")
    intruder = EventSource(suite, ["private-bob"], "alice")
    until("both are there", lambda: bob.opened and alice.opened)
    until("the intruder is refused", lambda: intruder.errors == ["forbidden"])
    # The library reads from its database what it is asked for again, skipped or not: so not while it is asked, which is done
    # once for the first subscribers of a channel.
    log = suite.directory / "log" / "pushpin-handler.log"
    until("both have asked again", lambda: sum("GET http" in line and "lobby" in line for line in log.open()) == 2)
    for number in range(0, 40, 4):
        suite.send("lobby", number)
        suite.send("lobby", number + 1, skip="bob")
        suite.send("private-bob", number + 2)
        suite.send("lobby", number + 3, skip="alice")
    suite.send("lobby", 100)
    for reader in (bob, alice):
        until("the last one has come", lambda: 100 in reader.got)
    lobby = [n for n in range(40) if n % 4 != 2]
    assert [n for n in alice.got if n != 100] == [n for n in lobby if n % 4 != 3], alice.got
    expected = [n for n in range(40) if n % 4 != 1]
    # Channels have orders of their own.
    assert sorted(n for n in bob.got if n != 100) == expected, bob.got
    assert intruder.got == []
    for reader in (bob, alice, intruder):
        reader.stop()


def libraries(suite):
    """gripcontrol and pubcontrol, by HTTP and by ZeroMQ, to streams and long-polls."""
    by_http = gripcontrol.GripPubControl({"control_uri": f"http://127.0.0.1:{suite.publish}"})
    by_zmq = gripcontrol.GripPubControl({"control_zmq_uri": f"tcp://127.0.0.1:{suite.command}"})
    for name, control in (("http", by_http), ("zmq", by_zmq)):
        stream = urllib.request.urlopen(f"http://127.0.0.1:{suite.port}/held?mode=stream&channel={name}", timeout=PATIENCE)
        assert stream.readline() == b"hello\n"
        poll = http.client.HTTPConnection("127.0.0.1", suite.port, timeout=PATIENCE)
        poll.request("GET", f"/held?mode=response&channel={name}")
        log = suite.directory / "log" / "pushpin-handler.log"
        until("the poll is held", lambda: f"/held?mode=response&channel={name} channel={name}" in log.read_text())
        item = pubcontrol.Item([gripcontrol.HttpStreamFormat("live\n"), gripcontrol.HttpResponseFormat(body="answer\n")])
        control.publish(name, item)
        assert stream.readline() == b"live\n"
        assert poll.getresponse().read() == b"answer\n"
        control.publish(name, pubcontrol.Item(gripcontrol.HttpStreamFormat(close=True)))
        assert stream.read() == b""
        print(f"gripcontrol and pubcontrol by {name}: ok")


with tempfile.TemporaryDirectory() as directory:
    suite = Suite(directory)
    try:
        for test in (libraries, private, reliable):
            test(suite)
            print(f"{test.__name__}: ok", flush=True)
    except BaseException:
        print(suite.logs())
        raise
    finally:
        suite.stop()
