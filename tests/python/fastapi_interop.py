# SPDX-License-Identifier: AGPL-3.0-or-later
"""FastAPI with gripcontrol, and the clients httpx and websockets, unchanged, with the suite.
Argument: the directory of the programs."""

import sys
import threading

import httpx
from websockets.sync.client import connect

from suite import PATIENCE, suite_before


def streams(site):
    """Held by an instruct in JSON, whose body is binary; every client gets everything."""
    with httpx.stream("GET", f"{site}/stream/a") as one, httpx.stream("GET", f"{site}/stream/a") as other:
        assert one.headers["content-type"] == "application/octet-stream", one.headers
        chunks = [one.iter_raw(), other.iter_raw()]
        for chunk in chunks:
            assert next(chunk) == b"\xff open\n"
        for number in range(100):
            text = f"{number} {'x' * number}"
            assert httpx.post(f"{site}/say/a", params={"text": text}).json() == {"said": text}
            for chunk in chunks:
                assert next(chunk) == f"{text}\n".encode()


def polls(site):
    """Answered by what is published, with its status and headers, or by what the instruct says when the time is up."""
    # Five seconds are the shortest time that there is.
    response = httpx.get(f"{site}/poll/none", params={"timeout": 1}, timeout=PATIENCE)
    assert (response.status_code, response.reason_phrase) == (204, "Nothing New")
    assert response.headers["x-channel"] == "none"

    answers = []
    poll = threading.Thread(target=lambda: answers.append(httpx.get(f"{site}/poll/b", timeout=PATIENCE)), daemon=True)
    poll.start()
    while poll.is_alive():
        # It may not be held yet.
        httpx.post(f"{site}/say/b", params={"text": "at last"})
        poll.join(0.1)
    assert (answers[0].status_code, answers[0].reason_phrase) == (201, "Said"), answers
    assert (answers[0].headers["x-said"], answers[0].text) == ("yes", "at last")


def sockets(url, site):
    """By WebSocket-over-HTTP."""
    with connect(f"{url}/socket/c") as one, connect(f"{url}/socket/c") as other:
        for ws in (one, other):
            ws.send("hello")
            assert ws.recv(PATIENCE) == "hello to you"
        httpx.post(f"{site}/say/c", params={"text": "all"})
        assert (one.recv(PATIENCE), other.recv(PATIENCE)) == ("all", "all")
        one.send("leave")
        assert one.recv(PATIENCE) == "left"
        # It takes effect a little later.
        quiet = number = 0
        while quiet < 3:
            number += 1
            httpx.post(f"{site}/say/c", params={"text": f"rest {number}"})
            assert other.recv(PATIENCE) == f"rest {number}"
            one.send("still here")
            got = one.recv(PATIENCE)
            quiet = quiet + 1 if got == "still here to you" else 0
            if got == f"rest {number}":
                got = one.recv(PATIENCE)
            assert got == "still here to you" and number < 100, got
        other.send("x" * 100_000)
        assert other.recv(PATIENCE) == "x" * 100_000 + " to you"


with suite_before(sys.argv[1], "site_of_fastapi.py", "*,path_beg=/socket {site},over_http\n* {site}") as (port, _):
    site = f"http://127.0.0.1:{port}"
    streams(site)
    polls(site)
    sockets(f"ws://127.0.0.1:{port}", site)
print("streams, long-polls and WebSockets, with FastAPI, gripcontrol, httpx and websockets: passed")
