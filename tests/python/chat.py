# SPDX-License-Identifier: AGPL-3.0-or-later
"""django-grip, unchanged, with the suite: a chat by WebSocket-over-HTTP. Argument: the directory of the programs."""

import sys

import websocket

from suite import PATIENCE, suite_before


def chat(port):
    def client(name):
        return websocket.create_connection(f"ws://127.0.0.1:{port}/chat?name={name}", timeout=PATIENCE)

    a, b = client("alice"), client("bob")
    for ws, name in ((a, "alice"), (b, "bob")):
        ws.send("who am i")
        assert ws.recv() == name
    for number in range(50):
        text = f"message {number} \u00fc"
        (a, b)[number % 2].send(text)
        assert (a.recv(), b.recv()) == (text, text)
    a.send_close(1000, b"bye")
    opcode, payload = a.recv_data()
    assert (opcode, payload[:2]) == (websocket.ABNF.OPCODE_CLOSE, b"\x03\xe8"), (opcode, payload)
    b.send("still here")
    assert b.recv() == "still here"
    b.close()


with suite_before(sys.argv[1], "site_with_chat.py", "* {site},over_http") as (port, _):
    chat(port)
print("chat by WebSocket-over-HTTP, with django-grip: passed")
