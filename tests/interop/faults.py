# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each process of a mix in turn is killed: new requests work within two seconds, and the rest of the suite lives on."""

import os
import signal
import time
import urllib.request

from mix import PATIENCE, until
from scenarios import channel, hold, item, stream

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
