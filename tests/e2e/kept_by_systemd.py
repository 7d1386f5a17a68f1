# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stands in for systemd: keeps the sockets that a service gives it, and hands them to the next run.

    kept_by_systemd.py NOTIFY_SOCKET LOG COMMAND...

Reads `start` and `stop` from stdin, a line each, and says when the service is `ready` and has `ended`.
"""
import os
import signal
import socket
import sys
import threading

path, log, *command = sys.argv[1:]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(path)
kept = {}


def listen():
    while True:
        text, files, _, _ = socket.recv_fds(notify, 4096, 16)
        lines = dict(line.split("=", 1) for line in text.decode().split("\n") if "=" in line)
        name = lines.get("FDNAME", "stored")
        if "FDSTORE" in lines:
            kept.setdefault(name, []).extend(files)
        elif "FDSTOREREMOVE" in lines:
            for file in kept.pop(name, []):
                os.close(file)
        if "READY" in lines:
            print("ready", flush=True)


def start():
    """Each name once: systemd does not keep the same socket twice."""
    names = sorted(kept)
    files = [os.dup(kept[name][-1]) for name in names]
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        return pid
    # Out of the way of the numbers that they are to have.
    high = [os.dup2(file, 100 + index) for index, file in enumerate(files)]
    os.closerange(3, 100)
    for index, file in enumerate(high):
        os.dup2(file, 3 + index, inheritable=True)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.closerange(3 + len(files), 1024)
    variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(files)), "LISTEN_FDNAMES": ":".join(names)}
    os.execve(command[0], command, {**os.environ, **(variables if files else {}), "NOTIFY_SOCKET": path})


threading.Thread(target=listen, daemon=True).start()
running = None
for line in sys.stdin:
    if line.strip() == "start":
        running = start()
    elif running:
        os.kill(running, signal.SIGTERM)
        os.waitpid(running, 0)
        running = None
        print("ended", flush=True)
if running:
    os.kill(running, signal.SIGTERM)
    os.waitpid(running, 0)
