#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Does what docs/guide.md tells its readers to do, and compares what is printed with what stands there.

    unshare -rn python3 tests/guide.py target/release

A comment before each block of the guide says what it is (nobody sees it in the rendered page):

    file NAME              the block is a file
    serve PORT             a command that goes on, and listens there
    backend PORT PROGRAM   the same; it is asked for /events through a suite of its own, if there is such a program here
    hold CHANNEL [FORMAT]  a command that prints the lines below it and then waits, subscribed to the channel
    then                   what the last of those prints now
    run                    commands that end, with what they print
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- (\w+)([^\n]*) -->\n```\w+\n(.*?)```", re.DOTALL)
COLOUR = re.compile(r"\x1b\[\d*\w")
TIMEOUT = 30
# For a program that is compiled first.
BUILD_TIMEOUT = 180


class Reader:
    def __init__(self, programs: str, work: Path) -> None:
        self.work, self.running, self.held = work, [], None
        paths = [programs, str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = {**os.environ, "PATH": ":".join(paths), "PYTHONUNBUFFERED": "1"}

    def start(self, command: str) -> "Running":
        self.running.append(Running(command, self.work, self.environment))
        return self.running[-1]

    def file(self, name: str, block: str) -> None:
        (self.work / name).write_text(block)

    def serve(self, port: str, block: str) -> None:
        ((command, _),) = commands(block)
        server = self.start(command)
        until(f"port {port} is open", lambda: server.is_running() and connects(int(port)), BUILD_TIMEOUT)

    def backend(self, arguments: str, block: str) -> None:
        port, program = arguments.split()
        lacks_express = program == "node" and not (self.work / "node_modules").exists()
        if lacks_express or shutil.which(program, path=self.environment["PATH"]) is None:
            print(f"guide: {program} or its library is not there: its backend is not run")
            return
        self.serve(port, block)
        suite = self.start(f"pushpin-runner --config=config/pushpin.conf --merge-output --id=1 --port=1{port} --route='* 127.0.0.1:{port}'")
        until("its suite serves", lambda: suite.is_running() and connects(int(f"1{port}")))
        client = self.start(f"curl -sN http://localhost:1{port}/events")
        client.expect("data: from ")
        until("it is held", lambda: subscribed("news", "http-stream", 5571))
        suite.end()

    def hold(self, arguments: str, block: str) -> None:
        channel, form = [*arguments.split(), "http-stream"][:2]
        before = subscribers(channel, form)
        ((command, output),) = commands(block)
        self.held = self.start(command)
        self.held.expect(output)
        until(f"there is one more on {channel}", lambda: subscribers(channel, form) > before)

    def then(self, _: str, block: str) -> None:
        self.held.expect(block)

    def run(self, _: str, block: str) -> None:
        for command, output in commands(block):
            done = subprocess.run(command, shell=True, cwd=self.work, env=self.environment, timeout=TIMEOUT,
                                  capture_output=True, text=True)
            if done.returncode != 0 or done.stdout.strip() != output.strip():
                raise Failure(f"{command}\n{done.stdout}{done.stderr}\ninstead of\n{output}")


class Running:
    """A command in the background, and how much of its output has been compared."""

    def __init__(self, command: str, work: Path, environment: dict) -> None:
        self.command = command
        self.output = work / f"{id(self)}.out"
        # Its input stays open: some programs end with it.
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, shell=True, cwd=work, env=environment, start_new_session=True,
                                            stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        self.seen = 0

    def printed(self) -> str:
        return COLOUR.sub("", self.output.read_text(errors="replace"))

    def is_running(self) -> bool:
        if self.process.poll() is not None:
            raise Failure(f"{self.command} has ended: {self.printed()}")
        return True

    def expect(self, text: str) -> None:
        def found() -> bool:
            at = self.printed().find(text.strip(), self.seen)
            if at >= 0:
                self.seen = at + len(text.strip())
            return at >= 0

        try:
            until("it is printed", found)
        except Failure:
            raise Failure(f"{self.command} has printed\n{self.printed()}\nwithout\n{text}") from None

    def end(self) -> None:
        # The shell and what it has started.
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(TIMEOUT)


class Failure(Exception):
    pass


def commands(block: str) -> list[tuple[str, str]]:
    """Commands, each with the lines that it prints."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        found.append((command, output))
    return found


def until(what: str, condition, timeout: int = TIMEOUT) -> None:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"not in {timeout} s: {what}")
        time.sleep(0.05)


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def subscribers(channel: str, form: str, port: int = 5561) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/channels/{channel}", timeout=5) as answer:
            return json.load(answer)["subscribers"][form]
    except OSError:
        return 0


def subscribed(channel: str, form: str, port: int) -> bool:
    return subscribers(channel, form, port) > 0


def main(programs: str) -> int:
    if os.geteuid() == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    blocks = BLOCK.findall((TOP / "docs/guide.md").read_text())
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        # Where Node looks for what is imported.
        if (TOP / "tests/node/node_modules").exists():
            (work / "node_modules").symlink_to(TOP / "tests/node/node_modules")
        shutil.copytree(TOP / "config", work / "config")
        reader = Reader(os.path.abspath(programs), work)
        try:
            for verb, arguments, block in blocks:
                getattr(reader, verb)(arguments.strip(), block)
        except Failure as failure:
            for running in reader.running:
                print(f"--- {running.command}\n{running.printed()[-3000:]}", file=sys.stderr)
            print(f"guide: at the block `{verb} {arguments}`: {failure}", file=sys.stderr)
            return 1
        finally:
            for running in reader.running:
                running.end()
    print(f"docs/guide.md: {len(blocks)} blocks passed")
    return 0 if blocks else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
