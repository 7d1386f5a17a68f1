#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checks that links between the project's Markdown files lead somewhere, headings included, and that the book has every page."""

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def main() -> int:
    listed = subprocess.check_output(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
                                     cwd=TOP, text=True)
    mistakes = []
    pages = [page for page in map(TOP.joinpath, listed.split()) if page.exists()]
    for page in pages:
        for link in LINK.findall(text(page)):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, heading = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                mistakes.append(f"{page.relative_to(TOP)}: {link} is not there")
            elif heading and heading not in headings(target):
                mistakes.append(f"{page.relative_to(TOP)}: {link} has no such heading")
    chapters = {(TOP / "docs" / link).resolve() for link in LINK.findall(text(TOP / "docs/SUMMARY.md"))}
    for page in (TOP / "docs").glob("*.md"):
        if page.name != "SUMMARY.md" and page.resolve() not in chapters:
            mistakes.append(f"docs/SUMMARY.md: {page.name} is missing")
    print("\n".join(mistakes) or f"links of {len(pages)} pages: passed")
    return 1 if mistakes else 0


def text(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def headings(page: Path) -> set[str]:
    """Anchors, as GitHub and mdbook make them of headings."""
    lines = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.strip().lower()).replace(" ", "-") for line in lines}


if __name__ == "__main__":
    sys.exit(main())
