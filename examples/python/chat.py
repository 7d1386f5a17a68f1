# SPDX-License-Identifier: AGPL-3.0-or-later
"""A chat by WebSocket-over-HTTP: the suite has the WebSockets, and tells this backend by POST what is said on them."""

import json
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from backend import PUBLISH, is_from_suite

EVENTS = "application/websocket-events"
CHANNEL = "room"


class Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Type") != EVENTS or not is_from_suite(self.headers.get("Grip-Sig", "")):
            return self.answer(501, "text/plain", b"Connect a WebSocket through port 7999.\n")
        answers = []
        for kind, content in events(body):
            if kind == "OPEN":
                # Text that begins with c: is for the suite, text that begins with m: for the client.
                subscribe = json.dumps({"type": "subscribe", "channel": CHANNEL})
                answers += [("OPEN", b""), ("TEXT", b"c:" + subscribe.encode()), ("TEXT", b"m:Welcome.")]
            elif kind == "TEXT":
                publish(content.decode())
            elif kind == "CLOSE":
                answers.append((kind, content))
        self.answer(200, EVENTS, b"".join(encoded(*event) for event in answers))

    def answer(self, status, content_type, body):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Sec-WebSocket-Extensions", "grip")
        self.end_headers()
        self.wfile.write(body)


def events(body):
    """The events of a body: a type, and content whose length in bytes is written in hexadecimal."""
    while body:
        line, _, body = body.partition(b"\r\n")
        kind, _, length = line.decode().partition(" ")
        size = int(length, 16) if length else 0
        yield kind, body[:size]
        body = body[size + 2 :] if length else body


def encoded(kind, content):
    return f"{kind} {len(content):x}\r\n".encode() + content + b"\r\n" if content else f"{kind}\r\n".encode()


def publish(text):
    """Sends a text to everyone in the room."""
    items = {"items": [{"channel": CHANNEL, "formats": {"ws-message": {"content": text}}}]}
    request = urllib.request.Request(PUBLISH, json.dumps(items).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()


if __name__ == "__main__":
    print("chat backend on port 8001; clients connect to ws://localhost:7999/chat")
    ThreadingHTTPServer(("127.0.0.1", 8001), Chat).serve_forever()
