# SPDX-License-Identifier: AGPL-3.0-or-later
"""Minimal tnetstring codec used by the tests, independent of any implementation under test."""


def dumps(value) -> bytes:
    if value is None:
        return b"0:~"
    if value is True:
        return b"4:true!"
    if value is False:
        return b"5:false!"
    if isinstance(value, int):
        return _frame(str(value).encode(), b"#")
    if isinstance(value, float):
        return _frame(repr(value).encode(), b"^")
    if isinstance(value, str):
        return _frame(value.encode(), b",")
    if isinstance(value, (bytes, bytearray)):
        return _frame(bytes(value), b",")
    if isinstance(value, (list, tuple)):
        return _frame(b"".join(dumps(v) for v in value), b"]")
    if isinstance(value, dict):
        return _frame(b"".join(dumps(k) + dumps(v) for k, v in value.items()), b"}")
    raise TypeError(type(value))


def _frame(payload: bytes, tag: bytes) -> bytes:
    return str(len(payload)).encode() + b":" + payload + tag


def loads(data: bytes):
    value, rest = _parse(bytes(data))
    if rest:
        raise ValueError("trailing bytes after tnetstring")
    return value


def _parse(data: bytes):
    size, sep, rest = data.partition(b":")
    if not sep:
        raise ValueError("no length prefix")
    n = int(size)
    payload, tag, remain = rest[:n], rest[n : n + 1], rest[n + 1 :]
    if len(payload) != n or not tag:
        raise ValueError("truncated")
    if tag == b",":
        return payload, remain
    if tag == b"#":
        return int(payload), remain
    if tag == b"^":
        return float(payload), remain
    if tag == b"!":
        return payload == b"true", remain
    if tag == b"~":
        return None, remain
    if tag == b"]":
        out = []
        while payload:
            v, payload = _parse(payload)
            out.append(v)
        return out, remain
    if tag == b"}":
        out = {}
        while payload:
            k, payload = _parse(payload)
            v, payload = _parse(payload)
            out[k.decode()] = v
        return out, remain
    raise ValueError(f"unknown tag {tag!r}")
