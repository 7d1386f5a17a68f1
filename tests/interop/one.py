# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs all scenarios with one mix, for matrix.py: a line `idle` when it has started, `done` when only waiting is left, then
the results as JSON. Arguments: directory of the programs, first port, the four parts."""

import json
import pathlib
import sys
import tempfile
import traceback

from backend import Backend
from faults import FAULTS
from mix import Mix
from scenarios import SCENARIOS, Idle, name_of

results = {}


def attempt(name, action):
    try:
        value = action()
        results[name] = None
        return value
    except BaseException as error:
        lines = traceback.extract_tb(error.__traceback__)
        where = next((line for line in reversed(lines) if "interop" in line.filename), lines[-1])
        results[name] = f"{type(error).__name__}: {error} ({pathlib.Path(where.filename).name}:{where.lineno})"


def say(text):
    print(text, flush=True)


def main(programs, port, *parts):
    with tempfile.TemporaryDirectory(prefix="mix-") as directory:
        backend = Backend()
        mix = Mix(parts, programs, directory, int(port), backend)
        try:
            attempt("start", mix.start)
            idle = None if results["start"] else attempt("idle for 64 s", lambda: Idle(mix))
            say("idle")
            sys.stdin.readline()
            if not results["start"]:
                for scenario in SCENARIOS:
                    attempt(name_of(scenario), lambda: scenario(mix, backend))
            say("done")
            if idle:
                attempt("idle for 64 s", idle.check)
            if not results["start"]:
                # Last, because clients of what dies are gone.
                for fault in FAULTS:
                    attempt(name_of(fault), lambda: fault(mix, backend))
                attempt("programs after all", mix.check_programs)
            attempt("stop", lambda: mix.stop())
        finally:
            failed = any(results.values())
            say(json.dumps({"results": results, "logs": mix.logs() if failed else ""}))
            mix.runner and mix.runner.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
