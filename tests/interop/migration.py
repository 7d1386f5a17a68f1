# SPDX-License-Identifier: AGPL-3.0-or-later
"""The steps of docs/migration.md, one after the other, and the way back: Pushpin's own runner, with more and more of our
processes, then ours. Argument: the directory of our programs."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from backend import Backend
from mix import Mix, answers, missing, original, until
from scenarios import SCENARIOS, name_of

# Services of Pushpin's runner; which of ours it finds first in PATH; which of ours are started beside it.
ALL = ["condure", "zurl", "pushpin-proxy", "pushpin-handler"]
STEPS = [
    ("Pushpin 1.36 as it was", ALL, [], []),
    ("our handler", ALL, ["pushpin-handler"], []),
    ("our proxy too", ALL, ["pushpin-handler", "pushpin-proxy"], []),
    ("our outbound process too", ["condure", *ALL[2:]], ["pushpin-handler", "pushpin-proxy"], ["pushpin-outbound"]),
    ("our frontend too", ALL[2:], ["pushpin-handler", "pushpin-proxy"], ["pushpin-outbound", "pushpin-frontend"]),
    ("our runner, with the same file", ALL, None, []),
]


class Site(Mix):
    """A site with the file of a package of Pushpin's."""

    def __init__(self, programs, directory, first_port, backend):
        super().__init__(["condure", "pushpin-proxy", "pushpin-handler", "zurl"], programs, directory, first_port, backend)
        config = (self.directory / "pushpin.conf").read_text()
        config = config.replace("[global]\n", "[global]\ninclude={libdir}/internal.conf\n")
        # Debian's Zurl is a service of its own, with sockets elsewhere; here it is started along.
        config = config.replace("[proxy]\n", "[proxy]\n" + "".join(
            f"zurl_{key}=ipc://{{rundir}}/{{ipc_prefix}}zurl-{name}\n"
            for key, name in [("out_specs", "in"), ("out_stream_specs", "in-stream"), ("in_specs", "out")]))
        self.config = "".join(line + "\n" for line in config.splitlines() if "_bin=" not in line)
        for name in ["run", "log", "runner/certs", "first"]:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self.beside = []

    def begin(self, services, first, beside):
        services = ",".join(services)
        lines = [f"services={services}" if line.startswith("services=") else line for line in self.config.splitlines()]
        (self.directory / "pushpin.conf").write_text("\n".join(lines) + "\n")
        shutil.rmtree(self.directory / "first")
        (self.directory / "first").mkdir()
        for name in first or []:
            (self.directory / "first" / name).symlink_to(self.programs / name)
        runner = original("pushpin") if first is not None else str(self.programs / "pushpin-runner")
        path = f"{self.directory}/first:/usr/bin:/bin"
        for number, program in enumerate([*(self.programs / name for name in beside), runner]):
            log = open(self.directory / f"out-{number}", "wb")
            command = [program, f"--config={self.directory}/pushpin.conf"]
            environment = {**os.environ, "PATH": path}
            child = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory, env=environment)
            self.beside.append(child)
        until("the suite listens", lambda: answers(self.port) and answers(self.publish_port))
        until("the suite serves", self.serves)
        ours = [name for name in first or [] if self.runs(str(self.programs / name))]
        assert ours == (first or []), f"{ours} instead of {first} are ours"

    def runs(self, program):
        """Whether a process of this program has been started for this site."""
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if os.readlink(entry / "exe") == program and str(self.directory) in (entry / "cmdline").read_text():
                    return True
            except OSError:
                pass
        return False

    def end(self):
        for child in reversed(self.beside):
            child.send_signal(signal.SIGTERM)
        for child in self.beside:
            child.wait(20)
        self.beside = []


def main(programs):
    lacks = missing(["condure", "pushpin-proxy", "zurl"])
    if lacks:
        print(f"NOT TESTED: the steps of docs/migration.md, because {', '.join(lacks)} can not be installed here")
        return 0
    bad = 0
    with tempfile.TemporaryDirectory(prefix="migration-") as directory:
        backend = Backend()
        site = Site(programs, directory, 13500, backend)
        for name, services, first, beside in [*STEPS, *((f"back to: {n}", *rest) for n, *rest in reversed(STEPS[:-1]))]:
            failed = []
            try:
                site.begin(services, first, beside)
                for scenario in SCENARIOS:
                    try:
                        scenario(site, backend)
                    except Exception as error:
                        failed.append(f"{name_of(scenario)} ({error!r})")
            except AssertionError as error:
                failed.append(str(error))
                for file in sorted(site.directory.glob("out-*")):
                    print(file.read_text(errors="replace")[-1500:])
            finally:
                site.end()
            print(f"{name}: {'FAILED: ' + '; '.join(failed) if failed else 'works'}", flush=True)
            bad += bool(failed)
    return bad and 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
