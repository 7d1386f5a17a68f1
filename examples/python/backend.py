# SPDX-License-Identifier: AGPL-3.0-or-later
"""A backend that has its clients held and pushes to them: GET /stream, GET /poll, POST /say."""

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PUBLISH = os.environ.get("PUBLISH", "http://localhost:5561/publish/")
CHANNEL = "chat"
KEY = os.environ.get("SIG_KEY", "changeme").encode()  # sig_key in pushpin.conf


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if not is_from_suite(self.headers.get("Grip-Sig", "")):
            self.answer(501, "Connect through port 7999.\n")
        elif self.path == "/stream":
            # The client gets this body at once, and then whatever is published.
            self.answer(200, "[open]\n", {"Grip-Hold": "stream", "Grip-Channel": CHANNEL})
        elif self.path == "/poll":
            # The client gets what is published next, or this body when the time is up.
            headers = {"Grip-Hold": "response", "Grip-Channel": CHANNEL, "Grip-Timeout": "20"}
            self.answer(200, "[nothing new]\n", headers)
        else:
            self.answer(404, "There are /stream, /poll and /say.\n")

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")
        publish(text + "\n")
        self.answer(200, "said\n")

    def answer(self, status, text, headers={}):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def publish(text):
    """Sends a text to everyone who is held on the channel."""
    formats = {"http-stream": {"content": text}, "http-response": {"body": text}}
    items = {"items": [{"channel": CHANNEL, "formats": formats}]}
    request = urllib.request.Request(PUBLISH, json.dumps(items).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()


def is_from_suite(token):
    """Whether a Grip-Sig header, a JSON web token, was signed with our key and is not too old."""
    try:
        signed, signature = token.rsplit(".", 1)
        expected = hmac.new(KEY, signed.encode(), hashlib.sha256).digest()
        claims = json.loads(decode(signed.split(".")[1]))
        return hmac.compare_digest(expected, decode(signature)) and claims["exp"] > time.time()
    except (ValueError, KeyError, IndexError, TypeError):
        return False


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


if __name__ == "__main__":
    print("backend on port 8000; clients connect to the suite, on port 7999")
    ThreadingHTTPServer((os.environ.get("ADDRESS", "127.0.0.1"), 8000), Backend).serve_forever()
