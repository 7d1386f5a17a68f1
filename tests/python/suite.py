# SPDX-License-Identifier: AGPL-3.0-or-later
"""The suite in front of a site, each on ports of its own."""

import contextlib
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 30


def free_ports(count):
    """Such that nothing listens on. They are none of those from which the kernel takes one for each connection, so that they stay free."""
    ports = set()
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


def until(what, condition, patience=PATIENCE):
    """Waits until a condition holds, and gives its result."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)
    return result


def is_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def until_open(port):
    until(f"somebody listens on port {port}", lambda: is_open(port))


def configure(directory, port, publish, routes, handler=""):
    """Writes the files of a suite that keeps all that it has in a directory; `handler` has further settings of that part."""
    (directory / "routes").write_text(routes + "\n")
    (directory / "pushpin.conf").write_text(f"""[global]
rundir={directory}/run
[runner]
http_port=127.0.0.1:{port}
logdir={directory}/log
[proxy]
routesfile=routes
sig_key=changeme
[handler]
push_in_http_addr=127.0.0.1
push_in_http_port={publish}
push_in_spec=ipc://{directory}/pull
push_in_sub_specs=ipc://{directory}/sub
command_spec=ipc://{directory}/command
{handler}
""")


@contextlib.contextmanager
def suite_before(programs, site, routes):
    """Runs a program of this directory, which gets its port and the publish port, behind the suite. Gives the suite's port
    and the publish port. `routes` has `{site}` for the site's address."""
    programs = pathlib.Path(programs).resolve()
    with tempfile.TemporaryDirectory() as directory:
        port, site_port, publish = free_ports(3)
        directory = pathlib.Path(directory)
        configure(directory, port, publish, routes.format(site=f"127.0.0.1:{site_port}"))
        commands = [
            [programs / "pushpin-runner", f"--config={directory}/pushpin.conf"],
            [sys.executable, HERE / site, str(site_port), str(publish)],
        ]
        out = open(directory / "out", "w")
        processes = [subprocess.Popen(command, cwd=directory, stdout=out, stderr=out) for command in commands]
        try:
            for waited in (port, site_port, publish):
                until_open(waited)
            yield port, publish
        except BaseException:
            for file in (directory / "out", *directory.glob("log/*")):
                print(f"--- {file}\n{file.read_text()[-6000:]}", file=sys.stderr)
            raise
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(PATIENCE)
