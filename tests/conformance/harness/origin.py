# SPDX-License-Identifier: AGPL-3.0-or-later
"""A programmable origin web server that records every request it gets."""

from __future__ import annotations

import json
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable


@dataclass
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """All values of a header joined by ', ', or None."""
        values = self.header_values(name)
        return ", ".join(values) if values else None

    def header_values(self, name: str) -> list[str]:
        return [v for k, v in self.headers if k.lower() == name.lower()]

    @property
    def path(self) -> str:
        return self.target.split("?", 1)[0]


@dataclass
class Response:
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | str | None = b""
    reason: str | None = None
    # called with a write(bytes) function after the head was sent chunked; for streamed bodies
    stream: Callable[[Callable[[bytes], None]], None] | None = None

    @classmethod
    def json(cls, value, headers=(), status=200) -> "Response":
        return cls(status, [("Content-Type", "application/json"), *headers], json.dumps(value))


Handler = Callable[[Request], Response]


class Origin:
    """HTTP/1.1 origin. Set `handler` (or add paths with `on`) to decide the responses."""

    def __init__(self) -> None:
        self.requests: "queue.Queue[Request]" = queue.Queue()
        self.log: list[Request] = []
        self._paths: dict[str, Handler] = {}
        self.handler: Handler = lambda req: Response(404, body=b"origin: no such path\n")
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def on(self, path: str, response: Response | Handler) -> None:
        self._paths[path] = response if callable(response) else (lambda req: response)

    def start(self, port: int = 0) -> "Origin":
        origin = self

        class H(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args) -> None:
                pass

            def _serve(self) -> None:
                body = self._read_body()
                req = Request(self.command, self.path, list(self.headers.items()), body)
                origin.log.append(req)
                origin.requests.put(req)
                fn = origin._paths.get(req.path, origin.handler)
                resp = fn(req)
                self._write(resp)

            def _read_body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                    out = b""
                    while True:
                        size = int(self.rfile.readline().split(b";")[0], 16)
                        chunk = self.rfile.read(size)
                        self.rfile.readline()
                        if size == 0:
                            return out
                        out += chunk
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _write(self, resp: Response) -> None:
                self.send_response_only(resp.status, resp.reason)
                for k, v in resp.headers:
                    self.send_header(k, v)
                names = {k.lower() for k, _ in resp.headers}
                if resp.stream is not None:
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()

                    def write(data: bytes) -> None:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                        self.wfile.flush()

                    resp.stream(write)
                    self.wfile.write(b"0\r\n\r\n")
                    return
                body = resp.body or b""
                if isinstance(body, str):
                    body = body.encode()
                if "content-length" not in names and resp.status not in (204, 304):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD" and resp.status not in (204, 304):
                    self.wfile.write(body)

            def __getattr__(self, name: str):
                if name.startswith("do_"):
                    return self._serve
                raise AttributeError(name)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, request, client_address) -> None:
                pass

        self._server = Server(("127.0.0.1", port), H)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def next_request(self, timeout: float = 5.0) -> Request:
        return self.requests.get(timeout=timeout)

    def no_request(self, within: float = 0.5) -> bool:
        try:
            self.requests.get(timeout=within)
        except queue.Empty:
            return True
        return False

    # canned behaviours -----------------------------------------------------------------------
    def reset(self) -> None:
        self._paths.clear()
        self.log.clear()
        while not self.requests.empty():
            self.requests.get_nowait()


def hold_stream(channel: str, body: str = "", extra=(), content_type="text/plain") -> Response:
    return Response(200, [("Content-Type", content_type), ("Grip-Hold", "stream"), ("Grip-Channel", channel), *extra], body)


def hold_response(channel: str, body: str = "", extra=(), content_type="text/plain") -> Response:
    return Response(200, [("Content-Type", content_type), ("Grip-Hold", "response"), ("Grip-Channel", channel), *extra], body)
