# SPDX-License-Identifier: AGPL-3.0-or-later
"""All mixes of our processes with Pushpin's: {frontend, condure, mongrel2} x {proxy, pushpin-proxy} x {handler,
pushpin-handler} x {outbound, zurl}. Prints a table.

    matrix.py DIRECTORY_OF_PROGRAMS [--write docs/interop.md]
"""

import itertools
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading

from faults import FAULTS
from mix import FRONTENDS, HANDLERS, OUTBOUNDS, PROXIES, missing
from scenarios import SCENARIOS, name_of

HERE = pathlib.Path(__file__).parent
# Mixes whose scenarios run at the same time: these keep processors busy. Waiting does not.
BUSY = 4
START = "start"

# What a part of Pushpin's can not do, alone among its own as well. The part and the scenario; the reason is for people.
CAN_NOT = {}


def run(number, parts, programs, turn, results):
    """One mix, in a process of its own."""
    lacks = missing(parts)
    if lacks:
        results[parts] = {START: f"not installed: {', '.join(lacks)}"}
        return
    command = [sys.executable, HERE / "one.py", programs, str(11000 + number * 40), *parts]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(child, "idle\n")
        with turn:
            child.stdin.write("go\n")
            child.stdin.flush()
            wait_for(child, "done\n")
        outcome = json.loads(child.stdout.readline())
        results[parts] = outcome["results"]
        if any(unexpected(parts, outcome["results"]).values()):
            print(f"=== {' '.join(parts)}\n{outcome['logs']}", file=sys.stderr, flush=True)
    except (ValueError, OSError, AssertionError) as error:
        results[parts] = {START: f"the run ended: {error!r}"}
    finally:
        child.kill()
        child.wait()


def wait_for(child, line):
    got = child.stdout.readline()
    assert got == line, f"{got!r} instead of {line!r}"


def unexpected(parts, results):
    return {name: error for name, error in results.items() if error and not can_not(parts, name)}


def can_not(parts, name):
    return next((reason for (part, scenario), reason in CAN_NOT.items() if part in parts and scenario == name), None)


def cell(parts, results):
    if results.get(START, "").startswith("not installed") if results.get(START) else False:
        return results[START]
    wrong = unexpected(parts, results)
    if wrong:
        return "FAILS: " + "; ".join(wrong)
    known = [f"{name}: {can_not(parts, name)}" for name, error in results.items() if error]
    return "all" if not known else "all but " + "; ".join(known)


def table(results):
    lines = ["| frontend | proxy | handler | outbound | passes |", "|---|---|---|---|---|"]
    for parts in mixes():
        lines.append(f"| {' | '.join(parts)} | {cell(parts, results[parts])} |")
    return "\n".join(lines)


def mixes():
    return list(itertools.product(FRONTENDS, PROXIES, HANDLERS, OUTBOUNDS))


def main(programs, *options):
    results, turn = {}, threading.Semaphore(int(os.environ.get("BUSY", BUSY)))
    waiting = queue.SimpleQueue()
    for number, parts in enumerate(mixes()):
        waiting.put((number, parts))

    def worker():
        while not waiting.empty():
            number, parts = waiting.get()
            run(number, parts, programs, turn, results)

    # All wait at the same time, so that the longest scenario, which only waits, counts once.
    threads = [threading.Thread(target=worker) for _ in range(len(mixes()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = table(results)
    print(text)
    complete = not any(START in r and (r[START] or "").startswith("not installed") for r in results.values())
    if not complete:
        print("Some of Pushpin's programs are not installed: their mixes were NOT run.")
    if "--write" in options and complete:
        write(pathlib.Path(options[options.index("--write") + 1]), text)
    passed = sum(not unexpected(parts, r) for parts, r in results.items() if not (r.get(START) or "").startswith("not"))
    print(f"{passed} of {len(results)} mixes pass {len(SCENARIOS) + 1 + len(FAULTS)} scenarios")
    for parts, r in results.items():
        for name, error in unexpected(parts, r).items():
            if not error.startswith("not installed"):
                print(f"FAILED {' '.join(parts)}: {name}: {error}")
    bad = any(not e.startswith("not installed") for p, r in results.items() for e in unexpected(p, r).values())
    return 1 if bad else 0


def write(path, text):
    """Puts the table and the list of scenarios in their places in the page."""
    page = path.read_text()
    names = [*map(name_of, SCENARIOS), "idle for 64 s", *map(name_of, FAULTS)]
    for mark, content in [("table", text), ("scenarios", "\n".join(f"- {name}" for name in names))]:
        begin, end = f"<!-- {mark} -->\n", f"\n<!-- end of {mark} -->"
        before, rest = page.split(begin, 1)
        page = before + begin + content + end + rest.split(end, 1)[1]
    path.write_text(page)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
