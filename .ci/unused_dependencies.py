#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Dependencies that a crate declares and no file of it names. A gate of a second, where cargo-machete would have to be built first."""

import re
import sys
import tomllib
from pathlib import Path

# Needed without being named: for a link flag, a feature, or by another crate's macro. Say which.
NEEDED = {}


def sources(folder, places):
    for place in places:
        path = folder / place
        yield from path.rglob("*.rs") if path.is_dir() else [path] if path.exists() else []


def unused(manifest):
    folder, crate = manifest.parent, tomllib.loads(manifest.read_text())
    targets = [target["path"] for kind in ("test", "bench", "bin", "example") for target in crate.get(kind, []) if "path" in target]
    places = {
        "dependencies": ["src", "build.rs", "fuzz_targets"] + [p for p in targets if p.startswith("src")],
        "dev-dependencies": ["src", "tests", "benches", "examples"] + [str(Path(p).parent) for p in targets],
        "build-dependencies": ["build.rs"],
    }
    # A package of tests only has its dependencies used by them.
    places["dependencies"] += places["dev-dependencies"] if crate["package"]["name"].endswith("tests") else []
    for section, where in places.items():
        text = "\n".join(path.read_text() for path in sources(folder, where))
        for name in crate.get(section, {}):
            word = name.replace("-", "_")
            if not re.search(rf"\b{word}\b(::|\s*;|\s*\{{|\s+as\b)", text) and (crate["package"]["name"], name) not in NEEDED:
                yield f"{manifest}: {name} is in [{section}] but nothing there uses it"


def declared(root):
    """Dependencies of the workspace that no member takes."""
    workspace = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["dependencies"]
    members = [tomllib.loads(path.read_text()) for path in manifests(root)]
    sections = ("dependencies", "dev-dependencies", "build-dependencies")
    taken = {name for member in members for section in sections for name in member.get(section, {})}
    for name in workspace:
        if name not in taken:
            yield f"Cargo.toml: no member takes {name}"


def manifests(root):
    return sorted(p for p in root.glob("**/Cargo.toml") if "target" not in p.parts and p.parent != root)


root = Path(__file__).resolve().parent.parent
problems = [text for manifest in manifests(root) for text in unused(manifest)] + list(declared(root))
print("\n".join(problems))
sys.exit(bool(problems))
