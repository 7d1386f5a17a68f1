# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sends the commands of tests/e2e/commands.txt to a command socket, Pushpin's or ours, and says where the answers are others than
those of the table. Arguments: the socket's address, and `pushpin` if it is Pushpin's."""

import pathlib
import re
import sys

import zmq
from mix import decode, encode

TABLE = pathlib.Path(__file__).parent.parent / "e2e" / "commands.txt"
PATIENCE = 3_000
CANARY = {"id": "canary", "method": "get-zmq-uris"}


def parse(tokens):
    token = tokens.pop(0)
    if token in "{[":
        items = []
        while tokens[0] not in "}]":
            items.append(parse(tokens))
        tokens.pop(0)
        body = b"".join(items)
        return str(len(body)).encode() + b":" + body + (b"}" if token == "{" else b"]")
    if match := re.fullmatch(r"\[(\d+)\]", token):
        nested = b""
        for _ in range(int(match[1])):
            nested = str(len(nested)).encode() + b":" + nested + b"]"
        return nested
    text, kind = token, b","
    if token == "~":
        text, kind = "", b"~"
    elif token[0] in "#^!":
        text, kind = token[1:], token[0].encode()
    elif match := re.fullmatch(r"\*(\d+)(.+)", token):
        text = int(match[1]) * match[2]
    elif token[0] == '"':
        text = token[1:-1]
    return str(len(text)).encode() + b":" + text.encode() + kind


def message(text):
    if text.startswith("="):
        return text[1:].encode()
    return parse(re.findall(r'\[\d+\]|[{}\[\]]|"[^"]*"|[^\s{}\[\]]+', text))


def outcome(address, request, expected):
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(address)
    # Answers to commands that need nobody else come in order.
    socket.send_multipart([b"", request])
    socket.send_multipart([b"", encode(CANARY)])
    answer = canary = None
    while not canary or (expected != "none" and not answer):
        if not socket.poll(PATIENCE):
            break
        reply = decode(socket.recv_multipart()[1])
        if reply.get(b"id") == b"canary":
            canary = reply
        else:
            answer = reply
    socket.close()
    if not canary:
        return "silence"
    if not answer:
        return "none"
    return "ok" if answer[b"success"] else answer[b"condition"].decode()


def main(address, whose="ours"):
    wrong = 0
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        ours, _, theirs = line.split("\t")[0].partition("/")
        expected = theirs or ours if whose == "pushpin" else ours
        if expected == "dies" and whose == "pushpin":
            continue
        came = outcome(address, message(line.split("\t")[1]), expected)
        if came != expected:
            wrong += 1
            print(f"line {number}: {came} instead of {expected}: {line}", flush=True)
        if came == "silence":
            sys.exit("nobody answers any more")
    print(f"{wrong} differ")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
