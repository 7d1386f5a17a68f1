#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writes the notices that go with our programs: who wrote what is linked into them, and under which licence.

    packaging/notices.py > THIRD-PARTY-NOTICES

The crates are those that Cargo.lock has for the programs on this system; texts come from their sources as Cargo has fetched
them. A crate that brings no text is held to have the usual one of its licence.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

PROGRAMS = {"pushpin-runner", "pushpin-frontend", "pushpin-proxy", "pushpin-handler", "pushpin-outbound", "pushpin-publish"}
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)
# C and C++ that crates bring along, beside what their own licence covers: crate, what it is, its texts.
WITHIN = [
    ("zeromq-src", "libzmq, the ZeroMQ library, unmodified. Its licence is the LGPL-3.0-or-later, with an exception that lets "
     "programs link it whatever their own licence. Its source: https://github.com/zeromq/libzmq, and the crate zeromq-src.",
     ["vendor/COPYING.LESSER", "vendor/COPYING", "vendor/external/sha1/license.txt"]),
]


def main() -> int:
    metadata = json.loads(subprocess.check_output(
        ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={host()}"]))
    crates = {package["id"]: package for package in metadata["packages"]}
    linked = reached(metadata, crates)
    print("Pushpin, in Rust, is under the GNU Affero General Public License, version 3 or later. Its programs contain the crates\n"
          "below, each under the licence beside it; the texts follow.\n")
    # By their words; some differ in line ends only.
    texts: dict[str, tuple[str, list[str]]] = {}
    for package in sorted(linked, key=lambda package: package["name"]):
        name = f"{package['name']} {package['version']}"
        if not package["license"]:
            print(f"{name} does not say what its licence is", file=sys.stderr)
            return 1
        print(f"{name}: {package['license']}" + (f", {package['repository']}" if package["repository"] else ""))
        for text in own_texts(package):
            texts.setdefault(" ".join(text.split()), (text, []))[1].append(name)
    for crate, about, files in WITHIN:
        found = [package for package in linked if package["name"] == crate]
        if not found:
            print(f"{crate} is not linked any more: take it out of {Path(__file__).name}", file=sys.stderr)
            return 1
        print(f"\n{crate} contains {about}")
        for file in files:
            text = (Path(found[0]["manifest_path"]).parent / file).read_text(errors="replace").strip()
            texts.setdefault(" ".join(text.split()), (text, []))[1].append(f"{file} of {crate}")
    for text, names in texts.values():
        print(f"\n{'-' * 100}\n{', '.join(names)}\n\n{text}")
    return 0


def host() -> str:
    lines = subprocess.check_output(["rustc", "-vV"], text=True).splitlines()
    return next(line.removeprefix("host: ") for line in lines if line.startswith("host: "))


def reached(metadata: dict, crates: dict) -> list[dict]:
    """What is linked into the programs, without what only tests, builds and macros use; and the C++ that a build brings."""
    edges = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
    bringing = {crate for crate, _, _ in WITHIN}
    todo = [id for id, package in crates.items() if package["name"] in PROGRAMS]
    found = set(todo)
    while todo:
        for dependency in edges[todo.pop()]:
            package = crates[dependency["pkg"]]
            linked = None in {kind["kind"] for kind in dependency["dep_kinds"]} and not is_macro(package)
            brought = package["name"] in bringing
            if (linked or brought) and package["id"] not in found:
                found.add(package["id"])
                if not brought:
                    todo.append(package["id"])
    return [crates[id] for id in found if crates[id]["source"]]


def is_macro(package: dict) -> bool:
    return any("proc-macro" in target["kind"] for target in package["targets"])


def own_texts(package: dict) -> list[str]:
    root = Path(package["manifest_path"]).parent
    files = sorted(path for path in root.iterdir() if path.is_file() and LICENCE_FILE.search(path.name))
    return [path.read_text(errors="replace").strip() for path in files]


if __name__ == "__main__":
    sys.exit(main())
