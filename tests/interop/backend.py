# SPDX-License-Identifier: AGPL-3.0-or-later
"""A backend that does what the address says, and remembers what it was asked."""

import http.server
import threading
import urllib.parse

import websockets.exceptions
import websockets.sync.server

LARGE = bytes(range(256)) * 8192


class Backend:
    """Listens on two ports: HTTP, and WebSockets of its own."""

    def __init__(self):
        self.requests = []
        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer()

            do_POST = do_GET

            def answer(self):
                path, _, query = self.path.partition("?")
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = self.chunks()
                backend.requests.append((self.path, self.headers, body))
                headers, reply = backend.reply(path, urllib.parse.parse_qs(query), self.headers, body)
                self.send_response(200)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def chunks(self):
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.ws_server = websockets.sync.server.serve(echo, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None)
        self.ws_port = self.ws_server.socket.getsockname()[1]
        threading.Thread(target=self.ws_server.serve_forever, daemon=True).start()

    def asked(self, path):
        """Requests for a path, with their query."""
        return [request for request in list(self.requests) if request[0].startswith(path)]

    def reply(self, path, query, headers, body):
        if path == "/large":
            return [("Content-Type", "application/octet-stream")], LARGE
        if path == "/echo":
            return [("Content-Type", "application/octet-stream")], body
        if path.startswith("/woh"):
            return self.over_http(query, headers, body)
        named = [tuple(header.split(":", 1)) for header in query.get("h", [])]
        return [("Content-Type", "text/plain"), *named], query.get("body", ["backend"])[0].encode() + b"\n"

    def over_http(self, query, headers, body):
        channel = query["channel"][0]
        out = []
        for kind, content in events(body):
            if kind == "OPEN":
                out += [event("OPEN"), event("TEXT", control("subscribe", channel))]
            elif kind == "TEXT":
                out.append(event("TEXT", b"m:" + content))
            elif kind == "CLOSE":
                out.append(event("CLOSE", content))
        named = [("Content-Type", "application/websocket-events"), ("Sec-WebSocket-Extensions", 'grip; message-prefix="m:"')]
        return named, b"".join(out)


def control(kind, channel):
    return b'c:{"type": "%s", "channel": "%s"}' % (kind.encode(), channel.encode())


def event(kind, content=None):
    if content is None:
        return kind.encode() + b"\r\n"
    return b"%s %x\r\n%s\r\n" % (kind.encode(), len(content), content)


def events(body):
    found = []
    while body:
        line, body = body.split(b"\r\n", 1)
        kind, _, size = line.partition(b" ")
        content = None
        if size:
            content, body = body[: int(size, 16)], body[int(size, 16) + 2 :]
        found.append((kind.decode(), content))
    return found


def echo(connection):
    try:
        for message in connection:
            connection.send(message)
    except websockets.exceptions.ConnectionClosed:
        pass
