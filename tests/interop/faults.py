# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each process of a mix in turn is killed: new requests work within two seconds, and the rest of the suite lives on."""

import os
import signal
import threading
import time
import urllib.request

import websockets.exceptions

from mix import PATIENCE, until
from scenarios import channel, hold, item, open_socket, stream

FAULTS = []
# How long it may take until a new request works, in seconds. The runner waits 0.1 s before it starts a process again.
SOON = 2.0


def fault(function):
    FAULTS.append(function)
    return function


def kill(mix, name, how):
    """Ends a process, and waits until the runner has started it again."""
    before = mix.pid(name)
    others = {other: pid for other in mix.programs_that_run() if other != name for pid in [mix.pid(other)]}
    os.kill(before, how)
    until(f"{name} is started again", lambda: mix.pid(name) not in (None, before))
    return others


def works(mix, timeout):
    """Whether a request and a hold with a publish work. Pushpin's parts drop what they have for a part that has not
    connected again, so whoever is unlucky has to come back."""
    try:
        name = channel()
        assert urllib.request.urlopen(f"http://127.0.0.1:{mix.port}/get", timeout=timeout).read() == b"backend\n"
        held = stream(mix, hold("stream", name), timeout=timeout)
        mix.publish(item(name, "again"))
        assert held.line() == "again"
        held.close()
        return True
    except (OSError, AssertionError):
        return False


def after(mix, how):
    for name in mix.programs_that_run():
        began = time.monotonic()
        others = kill(mix, name, how)
        until(f"a request works after the end of {name}", lambda: works(mix, 1.0), PATIENCE)
        took = time.monotonic() - began
        assert took < SOON + mix.slack, f"{name}: a new request works after {took:.1f} s"
        assert all(mix.pid(other) == pid for other, pid in others.items()), f"{name}: others were started again as well"


@fault
def kill_of_each_process(mix, backend):
    after(mix, signal.SIGKILL)


@fault
def restart_of_each_process(mix, backend):
    after(mix, signal.SIGTERM)


class Watched:
    """A client that is read from until its end."""

    def __init__(self, read, ask):
        self.ask, self.heard, self.ended = ask, [], False
        threading.Thread(target=self.run, args=(read,), daemon=True).start()

    def run(self, read):
        try:
            while line := read():
                self.heard.append(line)
        except Exception:
            pass
        self.ended = True


def opened(mix, path):
    """A WebSocket. A part of Pushpin's may break off what comes while another one is just coming back."""

    def attempt():
        try:
            return open_socket(mix, path)
        except (websockets.exceptions.WebSocketException, OSError):
            return None

    return until(f"a WebSocket opens at {path}", attempt)


class Clients:
    """One of each kind."""

    # Which part has to notice that this one has ended, and tells the client. None does where the client goes on.
    WATCHERS = {
        "stream": {"handler": "frontend"},
        "websocket over http": {"proxy": "frontend", "handler": "proxy"},
        "websocket": {"proxy": "frontend", "outbound": "proxy"},
    }

    def __init__(self, mix):
        self.mix, self.name = mix, channel()
        held = stream(mix, hold("stream", self.name))
        over_http, plain = opened(mix, f"/woh?channel={self.name}"), opened(mix, "/ws")
        published = lambda text: mix.publish(item(self.name, text))
        self.clients = {
            "stream": Watched(held.line, published),
            "websocket over http": Watched(over_http.recv, published),
            "websocket": Watched(plain.recv, plain.send),
        }
        until("all are open", lambda: not self.silent(list(self.clients), "before"))

    def silent(self, kinds, text):
        """Those that have neither ended nor hear what is said now."""
        for kind in kinds:
            if not self.clients[kind].ended:
                try:
                    self.clients[kind].ask(text)
                except Exception:
                    # The end is seen by whoever reads; and a handler that is starting takes nothing.
                    pass
        time.sleep(0.1)
        return [kind for kind in kinds if not self.clients[kind].ended and text not in self.clients[kind].heard]

    def told(self, part):
        """Those that go on, or that are told by somebody who can: a part of Pushpin's does not notice that another one has ended."""
        own = {part for name, part in zip(self.mix.parts, PARTS) if name == part}
        if part == "frontend":
            return list(self.clients) if part in own else []
        return [kind for kind in self.clients if self.WATCHERS[kind].get(part) in own | {None}]


PARTS = ["frontend", "proxy", "handler", "outbound"]


def part_of(name):
    known = {"zurl": "outbound", "pushpin-outbound": "outbound", "pushpin-proxy": "proxy", "pushpin-handler": "handler"}
    return known.get(name, "frontend")


@fault
def clients_of_what_ends_go_on_or_are_told(mix, backend):
    for name in mix.programs_that_run():
        clients = Clients(mix)
        kinds = clients.told(part_of(name))
        began = time.monotonic()
        kill(mix, name, signal.SIGKILL)
        left = kinds
        while left and time.monotonic() < began + SOON + mix.slack:
            left = clients.silent(left, f"after {name}")
        assert not left, f"{name}: these neither go on nor have ended after {SOON} s: {', '.join(left)}"
        until(f"a request works after the end of {name}", lambda: works(mix, 1.0), PATIENCE)
