#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files of a crate that need each other in a circle: none of them can be read, tested or moved alone.

A file needs another one if it names something from there, in a `use` or in a path. What a file only passes on (`pub use`) is
needed by those who name it, and unit tests at the end of a file do not count. A module and its own parts may need each other: the
module has the type, its parts add to it.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [ROOT, ROOT / "crates"]


def crates():
    for place in SOURCES:
        yield from (folder for folder in sorted(place.iterdir()) if (folder / "Cargo.toml").exists() and (folder / "src").is_dir())


def module_of(file, source):
    parts = file.relative_to(source).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts


def code(text):
    text = re.split(r"^#\[cfg\(test\)\]\s*\n(?:pub )?mod \w+ \{", text, maxsplit=1, flags=re.M)[0]
    # Strings may have anything in them; so may comments.
    return re.sub(r"(?m)//.*$", "", re.sub(r'"(?:[^"\\]|\\.)*"', '""', text, flags=re.S))


def leaves(tree):
    """The paths of a use tree: `a::{b, c::{d as e}}` is a::b and a::c::d."""
    tree = tree.strip()
    opening = tree.find("{")
    if opening < 0:
        yield re.split(r"\s+as\s+", tree)[0]
        return
    head, depth, start = tree[:opening], 0, opening + 1
    inside = tree[start : tree.rindex("}")]
    start = 0
    for at, char in enumerate(inside + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if inside[start:at].strip():
                yield from (head + leaf for leaf in leaves(inside[start:at]))
            start = at + 1


def absolute(path, module, modules):
    """The path from the crate's root, or nothing if it leads out of the crate."""
    parts = [part for part in path.replace(" ", "").split("::") if part]
    here = list(module)
    if parts[0] == "crate":
        return parts[1:]
    if parts[0] in ("self", "super"):
        while parts and parts[0] in ("self", "super"):
            if parts.pop(0) == "super":
                here = here[:-1]
        return here + parts
    return here + parts if tuple(here + parts[:1]) in modules else None


def edges(source):
    files = {module_of(file, source): file for file in sorted(source.rglob("*.rs")) if "bin" not in file.relative_to(source).parts}
    texts = {module: code(file.read_text()) for module, file in files.items()}
    passed_on, named = {}, {module: [] for module in files}
    for module, text in texts.items():
        for public, tree in re.findall(r"(?m)^\s*(pub(?:\([^)]*\))? )?use ([^;]+);", text):
            for leaf in leaves(tree):
                path = absolute(leaf, module, files)
                if path is None:
                    continue
                if public and path:
                    passed_on[module + (path[-1],)] = path
                else:
                    named[module].append(path)
        rest = re.sub(r"(?m)^\s*(pub(?:\([^)]*\))? )?use [^;]+;", "", text)
        for path in re.findall(r"(?<![\w:])(?:crate|self|super|[a-z_]\w*)(?:::\w+)+", rest):
            if found := absolute(path, module, files):
                named[module].append(found)

    def file_of(path):
        for _ in range(10):
            for length in range(len(path), 0, -1):
                if tuple(path[:length]) in passed_on:
                    path = passed_on[tuple(path[:length])] + list(path[length:])
                    break
            else:
                break
        for length in range(len(path), -1, -1):
            if tuple(path[:length]) in files:
                # A module of that name, and not something in it, says nothing about what is needed.
                return None if length == len(path) else tuple(path[:length])
        return None

    graph = {module: set() for module in files}
    for module, paths in named.items():
        found = {file for path in paths if (file := file_of(path)) is not None}
        # What a part needs of the module that it is a part of.
        graph[module] |= {file for file in found if file != module[: len(file)]}
    return files, graph


def circles(graph):
    """Strongly connected parts of more than one file (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for next_node in graph[node]:
            if next_node not in index:
                visit(next_node)
                low[node] = min(low[node], low[next_node])
            elif next_node in stack:
                low[node] = min(low[node], index[next_node])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def main():
    sys.setrecursionlimit(10_000)
    bad = 0
    for crate in crates():
        files, graph = edges(crate / "src")
        for circle in circles(graph):
            bad += 1
            print(f"{crate.relative_to(ROOT)}: {len(circle)} files in a circle:")
            for module in circle:
                inside = [str(files[other].relative_to(ROOT)) for other in sorted(graph[module] & set(circle))]
                print(f"  {files[module].relative_to(ROOT)} needs {', '.join(inside)}")
    sys.exit(1 if bad else 0)


main()
