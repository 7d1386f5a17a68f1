#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checks a Dockerfile as far as that goes without an engine: that it can be read, that what it copies exists, that its
programs do not run as root."""

import sys
from pathlib import Path

from dockerfile_parse import DockerfileParser

KNOWN = {"ARG", "CMD", "COMMENT", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL",
         "USER", "VOLUME", "WORKDIR"}


def main(path: str) -> int:
    lines = DockerfileParser(fileobj=open(path, "rb")).structure
    mistakes, stages, user = [], set(), "root"
    for line in lines:
        number, instruction, words = line["startline"] + 1, line["instruction"], line["value"].split()
        if instruction not in KNOWN:
            mistakes.append(f"{number}: {instruction} is no instruction")
        elif instruction == "FROM":
            user = "root"
            if len(words) == 3 and words[1].upper() == "AS":
                stages.add(words[2])
        elif instruction == "USER":
            user = words[0]
        elif instruction == "COPY":
            options = [word for word in words if word.startswith("--")]
            stage = next((option[7:] for option in options if option.startswith("--from=")), None)
            sources = words[len(options):-1]
            if stage is not None and stage not in stages:
                mistakes.append(f"{number}: there is no stage {stage}")
            if stage is None:
                mistakes += [f"{number}: there is no {source}" for source in sources if not Path(source).exists()]
    if user in ("root", "0"):
        mistakes.append("the programs run as root")
    for mistake in mistakes:
        print(f"{path}:{mistake}", file=sys.stderr)
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
