#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checks that every source file says under which licence it is, in its first or second line; `--write` adds what is missing."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LINE = "SPDX-License-Identifier: AGPL-3.0-or-later"
COMMENTS = {".rs": "//", ".mjs": "//", ".py": "#", ".sh": "#"}


def main(write: bool) -> int:
    files = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=TOP,
                                    text=True)
    lacking = []
    for name in filter(None, files.split("\0")):
        path = TOP / name
        comment = comment_of(path)
        if comment is None:
            continue
        lines = path.read_text().splitlines(keepends=True)
        if any(LINE in line for line in lines[:2]):
            continue
        lacking.append(name)
        if write:
            lines.insert(1 if lines and lines[0].startswith("#!/") else 0, f"{comment} {LINE}\n")
            path.write_text("".join(lines))
    if lacking and not write:
        print("\n".join(f"{name}: the licence is missing (.ci/licence_lines.py --write adds it)" for name in lacking))
        return 1
    print("licences in sources: " + (f"{len(lacking)} written" if lacking else "passed"))
    return 0


def comment_of(path: Path) -> str | None:
    """What begins a comment in a source file; none for other files."""
    if not path.is_file():
        return None
    if path.suffix in COMMENTS:
        return COMMENTS[path.suffix]
    if path.suffix or path.name.startswith("."):
        return None
    with path.open("rb") as file:
        return "#" if file.read(2) == b"#!" else None


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
